//! The CreateProcess family: loads the hook layer into child processes to which a rule may apply.
//!
//! A rule applies to a child if the process list contains the child's program, or if the child
//! inherits the rule of this program. The hook layer is not loaded into other children, so all
//! their descendants run unchanged.

use std::ffi::c_void;

use windows_sys::Win32::Foundation::HANDLE;
use windows_sys::Win32::Security::SECURITY_ATTRIBUTES;
use windows_sys::Win32::System::Threading::{
    CREATE_SUSPENDED, PROCESS_INFORMATION, ResumeThread, STARTUPINFOA, STARTUPINFOW,
};
use windows_sys::core::{BOOL, PCSTR, PCWSTR, PSTR, PWSTR};

use crate::context;
use crate::last_error::LastError;
use crate::own_dll::own_dll;
use crate::{original, program};

/// Hooks a suspended child if a rule may apply to it. Then resumes the child, unless the program
/// itself requested a suspended process. Returns `created`.
///
/// # Safety
/// A CreateProcess call has just returned `created`. If `created` is not 0, `information` points to
/// the result of that call.
unsafe fn hook_and_resume(
    created: BOOL,
    flags: u32,
    information: *const PROCESS_INFORMATION,
) -> BOOL {
    if created != 0 {
        let saved_error = LastError::save();
        // SAFETY: the call has succeeded, so it has written the structure. The program may have
        // passed a pointer that is not aligned. The handles are open and have all access rights,
        // because the program has not received them yet.
        unsafe {
            let child = information.read_unaligned();
            hook_child(child.hProcess);
            if flags & CREATE_SUSPENDED == 0 {
                ResumeThread(child.hThread);
            }
        }
        saved_error.restore();
    }
    created
}

/// Loads the hook layer into a suspended child if a rule may apply to it. If loading fails, the
/// child runs without vipool.
///
/// # Safety
/// `child` is an open handle that CreateProcess returned, with all access rights.
unsafe fn hook_child(child: HANDLE) {
    let inherited_rule = context::rule_for_children();
    let may_be_listed = |policy| {
        // SAFETY: the caller passes an open handle with all access rights.
        unsafe { program::may_be_listed(&policy, child) }
    };
    if (inherited_rule != 0 || context::current_policy().is_some_and(may_be_listed))
        && let Some(dll) = own_dll()
    {
        // SAFETY: the caller passes an open handle with all access rights.
        _ = unsafe { dll.inject(child, inherited_rule) };
    }
}

/// Defines the replacement of one function of the CreateProcess family. The functions differ only
/// in their leading parameters, their string type and their type of `startup`.
macro_rules! create_process {
    ($name:ident, $original:ident, ($($leading:ident: $type:ty),*), $text:ty, $startup:ty) => {
        pub unsafe extern "system" fn $name(
            $($leading: $type,)*
            process_attributes: *const SECURITY_ATTRIBUTES,
            thread_attributes: *const SECURITY_ATTRIBUTES,
            inherit_handles: BOOL,
            flags: u32,
            environment: *const c_void,
            directory: $text,
            startup: *const $startup,
            information: *mut PROCESS_INFORMATION,
        ) -> BOOL {
            // SAFETY: the arguments come from the program, with one more flag.
            unsafe {
                let created = original::$original(
                    $($leading,)*
                    process_attributes,
                    thread_attributes,
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
