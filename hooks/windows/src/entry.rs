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
use crate::inject::{Dll, PATH_UNITS};
use crate::outcome::Outcome;
use crate::{context, process, table};

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

static INSTALLING: Mutex<Outcome> = Mutex::new(Outcome::Unknown);

/// Sets the hooks, unless they are set. Returns when all are in place, whichever thread sets them;
/// the answer is a number of [`Outcome`]. Has the signature of a thread's start; the argument is
/// the id of the rule that a parent handed down, or 0.
#[unsafe(no_mangle)]
extern "system" fn vipool_hook_install(inherited: *mut c_void) -> u32 {
    let mut outcome = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
    // The thread of DllMain knows of no rule that is handed down.
    let more = *outcome == Outcome::NotListed && !inherited.is_null();
    if *outcome == Outcome::Unknown || more {
        stay();
        *outcome = install(inherited as usize as u64);
    }
    *outcome as u32
}

fn install(inherited: u64) -> Outcome {
    let guest = match context::make(inherited) {
        Ok(guest) => guest,
        Err(outcome) => return outcome,
    };
    let tables: &[&[Detour]] = match guest {
        None => &[process::TABLE],
        Some(guest) if guest.rewriter().rules.hide_addresses => {
            &[process::TABLE, table::SOCKETS, table::interfaces::TABLE]
        }
        Some(_) => &[process::TABLE, table::SOCKETS],
    };
    match detour::set(tables) {
        Err(_) => Outcome::HookFailed,
        Ok(()) if guest.is_some() => Outcome::Hooked,
        Ok(()) => Outcome::NotListed,
    }
}

/// Takes the hooks out: from now on calls are as without vipool. The DLL stays, for the threads
/// inside it and for extension functions that the program keeps. `vipool_hook_install` sets the
/// hooks again. Has the signature of a thread's start; the argument is not used.
#[unsafe(no_mangle)]
extern "system" fn vipool_hook_remove(_unused: *mut c_void) -> u32 {
    let mut outcome = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
    detour::clear();
    std::mem::replace(&mut *outcome, Outcome::Unknown) as u32
}

/// This DLL, to put into another process.
pub fn own_dll() -> Option<Dll> {
    let mut module = null_mut();
    let install = vipool_hook_install as *const () as usize;
    let mut path = [0; PATH_UNITS];
    // SAFETY: with this flag the "name" is an address inside the module; the system writes no more
    // than the buffer holds.
    let length = unsafe {
        let flags =
            GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS | GET_MODULE_HANDLE_EX_FLAG_UNCHANGED_REFCOUNT;
        GetModuleHandleExW(flags, install as *const u16, &mut module);
        GetModuleFileNameW(module, path.as_mut_ptr(), PATH_UNITS as u32) as usize
    };
    // A path that was cut off fills the buffer.
    (length < PATH_UNITS).then(|| Dll::new(path.get(..=length)?, install - module as usize))?
}

/// Keeps the DLL in the process whatever FreeLibrary says.
fn stay() {
    let flags = GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS | GET_MODULE_HANDLE_EX_FLAG_PIN;
    let mut module = null_mut();
    // SAFETY: with this flag the "name" is an address inside the module.
    unsafe {
        GetModuleHandleExW(flags, vipool_hook_install as *const () as *const u16, &mut module);
    }
}
