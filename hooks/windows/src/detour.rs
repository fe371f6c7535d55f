//! Uses MinHook to install and disable the hooks.

use std::ffi::c_void;
use std::sync::atomic::Ordering;

use minhook::{MH_STATUS, MinHook};
use windows_sys::Win32::System::LibraryLoader::LOAD_LIBRARY_SEARCH_SYSTEM32;
use windows_sys::Win32::System::LibraryLoader::{GetProcAddress, LoadLibraryExA};

use crate::original::SystemFunction;

unsafe extern "system" {
    /// Initializes MinHook. The crate `minhook` contains this function and does not export it.
    fn MH_Initialize() -> MH_STATUS;
}

/// Initializes MinHook, unless it is initialized already.
///
/// The crate `minhook` panics if its own initialization fails, and a panic would end the program.
/// If MinHook is already initialized, the crate accepts this.
///
/// # Errors
/// Returns the status of MinHook, for example if there is no memory.
fn initialize() -> Result<(), MH_STATUS> {
    // SAFETY: MinHook has a lock of its own, so any thread may call this function at any time.
    match unsafe { MH_Initialize() } {
        MH_STATUS::MH_ERROR_ALREADY_INITIALIZED => Ok(()),
        status => status.ok(),
    }
}

/// A hooked function and its replacement.
pub struct Detour {
    /// The system function.
    pub original: &'static SystemFunction,
    /// Returns the replacement, which has the same signature.
    pub replacement: fn() -> *mut c_void,
}

/// Hooks the functions of the tables. Skips functions that this version of Windows does not have.
///
/// First creates all trampolines, then enables all hooks in one step. So each replacement can call
/// every original function as soon as any hook is enabled.
///
/// # Errors
/// Returns the status of MinHook if a hook cannot be created or enabled. If a hook cannot be
/// created, this function enables no hook.
pub fn install_all(tables: &[&[Detour]]) -> Result<(), MH_STATUS> {
    initialize()?;
    for detour in tables.iter().copied().flatten() {
        let original = detour.original;
        let Some(target) = find_function(original) else { continue };
        // SAFETY: the replacement has the signature of the target (see `crate::table`).
        match unsafe { MinHook::create_hook(target as *mut c_void, (detour.replacement)()) } {
            Ok(trampoline) => original.address.store(trampoline, Ordering::Release),
            // An earlier installation created this hook and stored its trampoline.
            Err(MH_STATUS::MH_ERROR_ALREADY_CREATED) => {}
            Err(status) => return Err(status),
        }
    }
    // SAFETY: every trampoline is stored, so every replacement can call its original.
    unsafe { MinHook::enable_all_hooks() }
}

/// Returns the address of a system function, or `None` if this version of Windows does not have the
/// function or its DLL.
fn find_function(function: &SystemFunction) -> Option<unsafe extern "system" fn() -> isize> {
    // SAFETY: both names end in NUL. The DLL is loaded from the system directory only. For NULL,
    // GetProcAddress would search the program itself.
    unsafe {
        let module = LoadLibraryExA(
            function.module.as_ptr().cast(),
            std::ptr::null_mut(),
            LOAD_LIBRARY_SEARCH_SYSTEM32,
        );
        if module.is_null() {
            return None;
        }
        GetProcAddress(module, function.name.as_ptr().cast())
    }
}

/// Disables all hooks. The trampolines stay in memory, because replacements that are still running
/// call the original functions through the trampolines.
pub fn disable_all() {
    if initialize().is_err() {
        // Without MinHook, there is no hook.
        return;
    }
    // SAFETY: MinHook suspends the other threads. If a thread executes a patched instruction,
    // MinHook moves the instruction pointer of that thread.
    _ = unsafe { MinHook::disable_all_hooks() };
}
