//! The exported functions, which install the hooks in a process and remove them.

use std::ffi::c_void;
use std::ptr::{null, null_mut};
use std::sync::{Mutex, PoisonError};

use windows_sys::Win32::Foundation::{CloseHandle, HINSTANCE};
use windows_sys::Win32::System::LibraryLoader::DisableThreadLibraryCalls;
use windows_sys::Win32::System::SystemServices::DLL_PROCESS_ATTACH;
use windows_sys::Win32::System::Threading::CreateThread;
use windows_sys::core::BOOL;

use crate::detour::{self, Detour};
use crate::install_status::InstallStatus;
use crate::{context, own_dll, table};

/// Starts a thread that installs the hooks. The system holds its loader lock during this call, so
/// the hooks cannot be installed here.
///
/// First pins the DLL, because the program may call FreeLibrary before the thread runs. If the DLL
/// cannot be pinned, starts no thread.
#[unsafe(no_mangle)]
extern "system" fn DllMain(module: HINSTANCE, reason: u32, _reserved: *mut c_void) -> BOOL {
    if reason == DLL_PROCESS_ATTACH && own_dll::pin() {
        // SAFETY: these functions may be called under the loader lock. The new thread starts when
        // the lock is released. The DLL is pinned, so the code of the thread stays in memory.
        unsafe {
            DisableThreadLibraryCalls(module);
            let thread_function =
                Some(vipool_hook_install as unsafe extern "system" fn(*mut c_void) -> u32);
            let thread = CreateThread(null(), 0, thread_function, null(), 0, null_mut());
            if !thread.is_null() {
                CloseHandle(thread);
            }
        }
    }
    1
}

/// The result of the latest installation. The value is `Unknown` before the first installation and
/// after a removal. `vipool_hook_install` holds the mutex during an installation, so a concurrent
/// call waits.
static INSTALL_STATUS: Mutex<InstallStatus> = Mutex::new(InstallStatus::Unknown);

/// Installs the hooks, and returns the number of an [`InstallStatus`].
///
/// The status is stored. A later call installs nothing and returns the stored status, even if the
/// installation failed. Exceptions are the first call after `vipool_hook_remove`, and a call with a
/// rule if the stored status is `NotListed`. If another thread is installing the hooks, the
/// function waits for that thread.
///
/// The signature is that of a thread function. The argument is the id of the rule that the parent
/// process passes on to its children; 0 for none.
#[unsafe(no_mangle)]
extern "system" fn vipool_hook_install(inherited_rule: *mut c_void) -> u32 {
    let mut status = INSTALL_STATUS.lock().unwrap_or_else(PoisonError::into_inner);
    // The thread that DllMain starts may call this function first, without an inherited rule. If
    // the process list does not contain the program, a later call with a rule must install the
    // socket hooks.
    let has_new_rule = *status == InstallStatus::NotListed && !inherited_rule.is_null();
    // The hooked functions jump to this DLL, so it must stay in memory.
    if !own_dll::pin() {
        return InstallStatus::HookFailed as u32;
    }
    if *status == InstallStatus::Unknown || has_new_rule {
        *status = install(inherited_rule as usize as u64);
    }
    *status as u32
}

fn install(inherited_rule: u64) -> InstallStatus {
    let hooked_process = match context::initialize(inherited_rule) {
        Ok(hooked_process) => hooked_process,
        Err(status) => return status,
    };
    let tables: &[&[Detour]] = match hooked_process {
        None => &[table::PROCESSES],
        Some(hooked_process) if hooked_process.rewriter().rules.rewrite_flags.hide_addresses => {
            &[table::PROCESSES, table::SOCKETS, table::INTERFACES]
        }
        Some(_) => &[table::PROCESSES, table::SOCKETS],
    };
    match detour::install_all(tables) {
        Err(_) => InstallStatus::HookFailed,
        Ok(()) if hooked_process.is_some() => InstallStatus::Hooked,
        Ok(()) => InstallStatus::NotListed,
    }
}

/// Disables the hooks. Returns the number of the previous status.
///
/// Later calls of the hooked functions go directly to the system. The program may keep pointers to
/// the replacements of extension functions, such as ConnectEx. Calls through these pointers are
/// still rewritten. The DLL stays in the process because of these pointers, and because threads may
/// be executing its code.
///
/// `vipool_hook_install` enables the hooks again. The signature is that of a thread function.
#[unsafe(no_mangle)]
extern "system" fn vipool_hook_remove(_unused: *mut c_void) -> u32 {
    let mut status = INSTALL_STATUS.lock().unwrap_or_else(PoisonError::into_inner);
    detour::disable_all();
    std::mem::replace(&mut *status, InstallStatus::Unknown) as u32
}
