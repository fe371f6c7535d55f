//! This DLL as a module of the process.

use std::ptr::null_mut;

use windows_sys::Win32::Foundation::HMODULE;
use windows_sys::Win32::System::LibraryLoader::{
    GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS, GET_MODULE_HANDLE_EX_FLAG_PIN,
    GET_MODULE_HANDLE_EX_FLAG_UNCHANGED_REFCOUNT, GetModuleFileNameW, GetModuleHandleExW,
    GetProcAddress,
};
use windows_sys::core::s;

use crate::inject::{Dll, MAX_PATH_UNITS};

/// Describes this DLL for injection into another process. Returns `None` if the path of the DLL is
/// too long.
pub fn own_dll() -> Option<Dll> {
    let module = module_handle(GET_MODULE_HANDLE_EX_FLAG_UNCHANGED_REFCOUNT);
    let mut path = [0; MAX_PATH_UNITS];
    // SAFETY: the module is loaded, because this code is part of it. The system writes at most as
    // many units as the buffer holds.
    let (install_address, path_length) = unsafe {
        let install_function = GetProcAddress(module, s!("vipool_hook_install"))?;
        let path_length = GetModuleFileNameW(module, path.as_mut_ptr(), MAX_PATH_UNITS as u32);
        (install_function as usize, path_length as usize)
    };
    // If the path does not fit, the system truncates it and fills the whole buffer.
    (path_length < MAX_PATH_UNITS)
        .then(|| Dll::new(path.get(..=path_length)?, install_address - module as usize))?
}

/// Keeps the DLL in the process: later calls of FreeLibrary do not unload it. Returns whether this
/// succeeded. `DllMain` may call this function.
pub fn pin() -> bool {
    !module_handle(GET_MODULE_HANDLE_EX_FLAG_PIN).is_null()
}

/// Returns the module of this DLL, or NULL on failure.
fn module_handle(flags: u32) -> HMODULE {
    let mut module = null_mut();
    let own_address = own_dll as *const () as *const u16;
    // SAFETY: with FROM_ADDRESS, the system expects an address inside the module instead of its
    // name. The address of the function `own_dll` is inside the module.
    unsafe {
        GetModuleHandleExW(
            GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS | flags,
            own_address,
            &mut module,
        );
    }
    module
}
