//! How the DLL comes into a process and how its hooks leave again.

use std::ffi::c_void;
use std::ptr::{null, null_mut};
use std::sync::{Mutex, PoisonError};

use windows_sys::Win32::Foundation::{CloseHandle, HINSTANCE};
use windows_sys::Win32::System::LibraryLoader::{
    DisableThreadLibraryCalls, GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS,
    GET_MODULE_HANDLE_EX_FLAG_PIN, GET_MODULE_HANDLE_EX_FLAG_UNCHANGED_REFCOUNT,
    GetModuleFileNameW, GetModuleHandleExW,
};
use windows_sys::Win32::System::SystemServices::DLL_PROCESS_ATTACH;
use windows_sys::Win32::System::Threading::CreateThread;
use windows_sys::core::BOOL;

use crate::detour::{self, Detour};
use crate::inject::{Dll, MAX_PATH_UNITS};
use crate::install_status::InstallStatus;
use crate::{child_process, context, table};

/// Only hands off: the system's loader lock is held here, under which next to nothing is allowed.
#[unsafe(no_mangle)]
extern "system" fn DllMain(module: HINSTANCE, reason: u32, _reserved: *mut c_void) -> BOOL {
    if reason == DLL_PROCESS_ATTACH {
        // SAFETY: both are among what is allowed here; the thread starts when the lock is free.
        unsafe {
            DisableThreadLibraryCalls(module);
            let start = Some(vipool_hook_install as unsafe extern "system" fn(*mut c_void) -> u32);
            let thread = CreateThread(null(), 0, start, null(), 0, null_mut());
            if !thread.is_null() {
                CloseHandle(thread);
            }
        }
    }
    1
}

static INSTALL_STATUS: Mutex<InstallStatus> = Mutex::new(InstallStatus::Unknown);

/// Sets the hooks, unless they are set. Returns when all are in place, whichever thread sets them;
/// the answer is a number of [`InstallStatus`]. Has the signature of a thread's start; the argument is
/// the id of the rule that a parent handed down, or 0.
#[unsafe(no_mangle)]
extern "system" fn vipool_hook_install(inherited_rule: *mut c_void) -> u32 {
    let mut status = INSTALL_STATUS.lock().unwrap_or_else(PoisonError::into_inner);
    // The thread of DllMain knows of no rule that is handed down.
    let rule_arrived = *status == InstallStatus::NotListed && !inherited_rule.is_null();
    if *status == InstallStatus::Unknown || rule_arrived {
        pin_dll();
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
        None => &[child_process::TABLE],
        Some(hooked_process) if hooked_process.rewriter().rules.hide_addresses => {
            &[child_process::TABLE, table::SOCKETS, table::interfaces::TABLE]
        }
        Some(_) => &[child_process::TABLE, table::SOCKETS],
    };
    match detour::install_all(tables) {
        Err(_) => InstallStatus::HookFailed,
        Ok(()) if hooked_process.is_some() => InstallStatus::Hooked,
        Ok(()) => InstallStatus::NotListed,
    }
}

/// Takes the hooks out: from now on calls are as without vipool. The DLL stays, for the threads
/// inside it and for extension functions that the program keeps. `vipool_hook_install` sets the
/// hooks again. Has the signature of a thread's start; the argument is not used.
#[unsafe(no_mangle)]
extern "system" fn vipool_hook_remove(_unused: *mut c_void) -> u32 {
    let mut status = INSTALL_STATUS.lock().unwrap_or_else(PoisonError::into_inner);
    detour::disable_all();
    std::mem::replace(&mut *status, InstallStatus::Unknown) as u32
}

/// This DLL, to put into another process.
pub fn own_dll() -> Option<Dll> {
    let mut module = null_mut();
    let install = vipool_hook_install as *const () as usize;
    let mut path = [0; MAX_PATH_UNITS];
    // SAFETY: with this flag the "name" is an address inside the module; the system writes no rule_arrived
    // than the buffer holds.
    let length = unsafe {
        let flags =
            GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS | GET_MODULE_HANDLE_EX_FLAG_UNCHANGED_REFCOUNT;
        GetModuleHandleExW(flags, install as *const u16, &mut module);
        GetModuleFileNameW(module, path.as_mut_ptr(), MAX_PATH_UNITS as u32) as usize
    };
    // A path that was cut off fills the buffer.
    (length < MAX_PATH_UNITS).then(|| Dll::new(path.get(..=length)?, install - module as usize))?
}

/// Keeps the DLL in the process whatever FreeLibrary says.
fn pin_dll() {
    let flags = GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS | GET_MODULE_HANDLE_EX_FLAG_PIN;
    let mut module = null_mut();
    // SAFETY: with this flag the "name" is an address inside the module.
    unsafe {
        GetModuleHandleExW(flags, vipool_hook_install as *const () as *const u16, &mut module);
    }
}
