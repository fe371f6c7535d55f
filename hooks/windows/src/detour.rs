//! The functions that are hooked, in one table, and MinHook.
//!
//! Each entry makes a function of the same name in [`original`] that calls the system's own: the
//! import until the hooks are made, MinHook's trampoline from then on. All trampolines are known
//! before the first hook can run. A function that this Windows lacks is left out; if one of the
//! others can't be hooked, none is.

use std::ffi::{CStr, c_void};
use std::sync::atomic::{AtomicPtr, Ordering};

use minhook::{MH_STATUS, MinHook};
use windows_sys::Win32::System::LibraryLoader::LOAD_LIBRARY_SEARCH_SYSTEM32;
use windows_sys::Win32::System::LibraryLoader::{GetProcAddress, LoadLibraryExA};

/// One hooked function.
pub struct Detour {
    /// The DLL that exports it.
    pub module: &'static CStr,
    /// Its name there.
    pub name: &'static CStr,
    /// Ours, of the same signature.
    pub replacement: fn() -> *mut c_void,
    /// The system's own.
    pub original: &'static AtomicPtr<c_void>,
}

/// Makes a table of [`Detour`]s and a module `original` with a function for each.
macro_rules! detours {
    ($(#[$doc:meta])* $table:ident from $source:ident; $($module:literal {
        $($name:ident($($argument:ident: $type:ty),* $(,)?) -> $result:ty => $replacement:path;)*
    })*) => {
        /// The system's own functions.
        ///
        /// # Safety
        /// Of each: as of the function itself.
        pub mod original {
            #![allow(non_snake_case, unused_imports)]
            use super::*;
            $($(
                #[doc = concat!("`", stringify!($name), "` of `", $module, "`.")]
                #[inline]
                pub unsafe fn $name($($argument: $type),*) -> $result {
                    type Function = unsafe extern "system" fn($($type),*) -> $result;
                    let function = super::slot::$name.load(std::sync::atomic::Ordering::Relaxed);
                    // SAFETY: the slot holds this function or its trampoline, of this signature.
                    unsafe { std::mem::transmute::<*mut std::ffi::c_void, Function>(function)($($argument),*) }
                }
            )*)*
        }

        #[allow(non_upper_case_globals)]
        mod slot {
            use std::ffi::c_void;
            use std::sync::atomic::AtomicPtr;
            $($(pub static $name: AtomicPtr<c_void> = AtomicPtr::new(super::$source::$name as *mut c_void);)*)*
        }

        $(#[$doc])*
        pub static $table: &[$crate::detour::Detour] = &[
            $($($crate::detour::Detour {
                module: match std::ffi::CStr::from_bytes_with_nul(concat!($module, "\0").as_bytes()) {
                    Ok(name) => name,
                    Err(_) => unreachable!(),
                },
                name: match std::ffi::CStr::from_bytes_with_nul(concat!(stringify!($name), "\0").as_bytes()) {
                    Ok(name) => name,
                    Err(_) => unreachable!(),
                },
                replacement: || {
                    let replacement: unsafe extern "system" fn($($type),*) -> $result = $replacement;
                    replacement as *mut std::ffi::c_void
                },
                original: &slot::$name,
            },)*)*
        ];
    };
}
pub(crate) use detours;

/// Hooks every function of the tables, all or none.
pub fn install_all(tables: &[&[Detour]]) -> Result<(), MH_STATUS> {
    for detour in tables.iter().copied().flatten() {
        // SAFETY: names that end in 0; system DLLs are loaded from the system's directory alone.
        let target = unsafe {
            let module = LoadLibraryExA(
                detour.module.as_ptr().cast(),
                std::ptr::null_mut(),
                LOAD_LIBRARY_SEARCH_SYSTEM32,
            );
            GetProcAddress(module, detour.name.as_ptr().cast())
        };
        let Some(target) = target else { continue };
        // SAFETY: the target is a function of the replacement's signature.
        match unsafe { MinHook::create_hook(target as *mut c_void, (detour.replacement)()) } {
            Ok(trampoline) => detour.original.store(trampoline, Ordering::Release),
            // After a removal its trampoline is still known.
            Err(MH_STATUS::MH_ERROR_ALREADY_CREATED) => {}
            Err(status) => return Err(status),
        }
    }
    // SAFETY: every trampoline is in its slot.
    unsafe { MinHook::enable_all_hooks() }
}

/// Takes all hooks out. The trampolines stay: calls that are under way return through them.
pub fn disable_all() {
    // SAFETY: MinHook stops the other threads and moves those inside a patched instruction.
    _ = unsafe { MinHook::disable_all_hooks() };
}
