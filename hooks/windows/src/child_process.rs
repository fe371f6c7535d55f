//! Programs that a hooked one starts: those on the process list are given the hook layer too.
//!
//! A child is looked at for its own sake: it is hooked if it is on the list, or if this program's
//! rule says that it is handed down. Any other child runs untouched, and so do its children.

use std::ffi::c_void;

use windows_sys::Win32::Foundation::HANDLE;
use windows_sys::Win32::Security::SECURITY_ATTRIBUTES;
use windows_sys::Win32::System::Threading::{
    self, CREATE_SUSPENDED, PROCESS_INFORMATION, ResumeThread, STARTUPINFOA, STARTUPINFOW,
};
use windows_sys::core::{BOOL, PCSTR, PCWSTR, PSTR, PWSTR};

use crate::context;
use crate::detour::detours;
use crate::socket::LastError;
use crate::{entry, program};

detours! {
    /// What starts processes.
    TABLE from Threading;
    "kernel32.dll" {
        CreateProcessA(
            application: PCSTR, command_line: PSTR, process: *const SECURITY_ATTRIBUTES,
            thread: *const SECURITY_ATTRIBUTES, inherit_handles: BOOL, flags: u32,
            environment: *const c_void, directory: PCSTR, startup: *const STARTUPINFOA,
            information: *mut PROCESS_INFORMATION,
        ) -> BOOL => create_process_a;
        CreateProcessW(
            application: PCWSTR, command_line: PWSTR, process: *const SECURITY_ATTRIBUTES,
            thread: *const SECURITY_ATTRIBUTES, inherit_handles: BOOL, flags: u32,
            environment: *const c_void, directory: PCWSTR, startup: *const STARTUPINFOW,
            information: *mut PROCESS_INFORMATION,
        ) -> BOOL => create_process_w;
    }
    "advapi32.dll" {
        CreateProcessAsUserW(
            token: HANDLE, application: PCWSTR, command_line: PWSTR, process: *const SECURITY_ATTRIBUTES,
            thread: *const SECURITY_ATTRIBUTES, inherit_handles: BOOL, flags: u32,
            environment: *const c_void, directory: PCWSTR, startup: *const STARTUPINFOW,
            information: *mut PROCESS_INFORMATION,
        ) -> BOOL => create_process_as_user_w;
    }
}

/// Looks at a process that was made suspended, and lets it run unless its creator wants it so.
///
/// # Safety
/// `information` is what a successful CreateProcess filled in, or NULL.
unsafe fn hook_and_resume(
    created: BOOL,
    flags: u32,
    information: *const PROCESS_INFORMATION,
) -> BOOL {
    // SAFETY: as the caller says.
    let child = unsafe { information.as_ref() };
    if let Some(child) = child.filter(|_| created != 0) {
        let error = LastError::save();
        hook_child(child.hProcess);
        if flags & CREATE_SUSPENDED == 0 {
            // SAFETY: the handle is open: its owner has not seen it yet.
            unsafe { ResumeThread(child.hThread) };
        }
        error.restore();
    }
    created
}

/// Puts the hook layer into a suspended child that is listed. One that can't be hooked runs as it
/// would without vipool.
fn hook_child(child: HANDLE) {
    let inherited_rule = context::rule_for_children();
    let may_be_listed = |policy| {
        // SAFETY: a handle with all access, as CreateProcess gives it.
        unsafe { program::may_be_listed(&policy, child) }
    };
    if (inherited_rule != 0 || context::current_policy().is_some_and(may_be_listed))
        && let Some(dll) = entry::own_dll()
    {
        // SAFETY: as above.
        _ = unsafe { dll.inject(child, inherited_rule) };
    }
}

/// A function of the CreateProcess family, which are alike but for what names the program.
macro_rules! create_process {
    ($name:ident, $original:ident, ($($leading:ident: $type:ty),*), $text:ty, $startup:ty) => {
        unsafe extern "system" fn $name(
            $($leading: $type,)*
            process: *const SECURITY_ATTRIBUTES,
            thread: *const SECURITY_ATTRIBUTES,
            inherit_handles: BOOL,
            flags: u32,
            environment: *const c_void,
            directory: $text,
            startup: *const $startup,
            information: *mut PROCESS_INFORMATION,
        ) -> BOOL {
            // SAFETY: the program's own call, with a flag more.
            unsafe {
                let created = original::$original(
                    $($leading,)*
                    process,
                    thread,
                    inherit_handles,
                    flags | CREATE_SUSPENDED,
                    environment,
                    directory,
                    startup,
                    information,
                );
                hook_and_resume(created, flags, information)
            }
        }
    };
}

create_process!(
    create_process_a,
    CreateProcessA,
    (application: PCSTR, command_line: PSTR),
    PCSTR,
    STARTUPINFOA
);
create_process!(
    create_process_w,
    CreateProcessW,
    (application: PCWSTR, command_line: PWSTR),
    PCWSTR,
    STARTUPINFOW
);
create_process!(
    create_process_as_user_w,
    CreateProcessAsUserW,
    (token: HANDLE, application: PCWSTR, command_line: PWSTR),
    PCWSTR,
    STARTUPINFOW
);
