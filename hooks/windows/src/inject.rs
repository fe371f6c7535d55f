//! Loads the hook layer into another process before its program runs.
//!
//! The caller creates the process suspended. A first remote thread loads the DLL. A second remote
//! thread runs `vipool_hook_install`. [`Dll::inject`] waits for both remote threads, so every hook
//! is in place when the caller resumes the main thread.
//!
//! Some code runs before any hook is installed: the entry points of the imported DLLs and the TLS
//! callbacks of the program.

use std::ffi::c_void;
use std::mem::size_of;
use std::ptr::{null, null_mut};

use windows_sys::Win32::Foundation::{
    CloseHandle, GetLastError, HANDLE, INVALID_HANDLE_VALUE, WAIT_OBJECT_0,
};
use windows_sys::Win32::System::Diagnostics::Debug::WriteProcessMemory;
use windows_sys::Win32::System::Diagnostics::ToolHelp::{
    CreateToolhelp32Snapshot, MODULEENTRY32W, Module32FirstW, Module32NextW, TH32CS_SNAPMODULE,
};
use windows_sys::Win32::System::LibraryLoader::{GetModuleHandleA, GetProcAddress};
use windows_sys::Win32::System::Memory::{
    MEM_COMMIT, MEM_RELEASE, MEM_RESERVE, PAGE_READWRITE, VirtualAllocEx, VirtualFreeEx,
};
use windows_sys::Win32::System::SystemInformation::{
    IMAGE_FILE_MACHINE_AMD64, IMAGE_FILE_MACHINE_UNKNOWN,
};
use windows_sys::Win32::System::Threading::{
    CreateRemoteThread, GetExitCodeThread, GetProcessId, IsWow64Process2, LPTHREAD_START_ROUTINE,
    WaitForSingleObject,
};
use windows_sys::core::{PCSTR, s};

use crate::install_status::InstallStatus;

/// The longest time that a remote thread may take, in milliseconds. The time is long, because a
/// virus scanner may first read the DLL.
const REMOTE_THREAD_TIMEOUT_MS: u32 = 30_000;

/// The maximum length of the path of the DLL, in UTF-16 units with the final NUL.
pub const MAX_PATH_UNITS: usize = 1024;

/// The path of the DLL, and the offset of `vipool_hook_install` from the start of the module.
pub struct Dll {
    path: [u16; MAX_PATH_UNITS],
    /// The number of UTF-16 units of the path, with the final NUL.
    path_length: usize,
    install_offset: usize,
}

/// The reason why the hook layer was not loaded into a process, or did not report its status.
#[derive(Clone, Copy, Debug)]
#[allow(dead_code, reason = "only the launcher prints it")]
pub struct InjectError {
    /// The failure, as a message for users.
    pub message: &'static str,
    /// The error code of Windows; 0 if there is none.
    pub error_code: u32,
}

impl Dll {
    /// Describes the DLL at a path. The path ends in NUL. `install_offset` is the distance from the
    /// start of the module to `vipool_hook_install`. Returns `None` if the path is too long.
    pub fn new(path_with_nul: &[u16], install_offset: usize) -> Option<Self> {
        let mut path = [0; MAX_PATH_UNITS];
        path.get_mut(..path_with_nul.len())?.copy_from_slice(path_with_nul);
        Some(Self { path, path_length: path_with_nul.len(), install_offset })
    }

    /// Loads the DLL into a suspended process and installs the hooks there. Returns the status that
    /// `vipool_hook_install` reported.
    ///
    /// `inherited_rule` is the id of the rule that applies to the process if the process list has
    /// no rule for its program; 0 for none.
    ///
    /// # Errors
    /// Fails if the program is not a program for x86-64, if the DLL could not be loaded, or if
    /// `vipool_hook_install` did not return in time. The process can still be resumed.
    ///
    /// # Safety
    /// `process` is a handle with all access rights, to a process that this process created.
    pub unsafe fn inject(
        &self,
        process: HANDLE,
        inherited_rule: u64,
    ) -> Result<InstallStatus, InjectError> {
        // SAFETY: the caller passes a valid handle.
        unsafe { check_machine(process)? };
        // SAFETY: the caller passes a valid handle. LoadLibraryW takes one pointer. Windows maps
        // kernel32 at the same address in every process of one boot, so LoadLibraryW has the same
        // address in both processes.
        unsafe {
            let path = RemoteString::write(process, &self.path[..self.path_length])?;
            let message = "cannot load vipool_hook.dll";
            let load_library = kernel32_function(s!("LoadLibraryW"));
            if load_library.is_none() {
                return Err(last_os_error(message));
            }
            if let Err(error) = run_remote_thread(process, load_library, path.address, message) {
                // The thread can still read the path, so the memory must stay.
                std::mem::forget(path);
                return Err(error);
            }
        }
        let base_address = module_base(process, &self.path[..self.path_length - 1])?;
        // SAFETY: the module at this base is the DLL. Its function at this offset has the signature
        // of a thread function.
        let status_code = unsafe {
            let install = std::mem::transmute::<usize, LPTHREAD_START_ROUTINE>(
                base_address + self.install_offset,
            );
            run_remote_thread(
                process,
                install,
                inherited_rule as usize as *const c_void,
                "cannot install the hooks",
            )?
        };
        Ok(InstallStatus::from_code(status_code))
    }
}

/// Checks that a process runs code for x86-64.
///
/// # Errors
/// Fails if the process runs in an emulation of Windows (WOW64), or if Windows runs on another
/// processor. On such a system, a process outside WOW64 can run code of that processor.
///
/// # Safety
/// `process` is an open handle with the right to query the process.
unsafe fn check_machine(process: HANDLE) -> Result<(), InjectError> {
    let (mut process_machine, mut native_machine) = (0, 0);
    // SAFETY: the caller passes a valid handle. The results are local variables.
    if unsafe { IsWow64Process2(process, &mut process_machine, &mut native_machine) } == 0 {
        return Err(last_os_error("cannot find the processor of the program"));
    }
    let message = if process_machine != IMAGE_FILE_MACHINE_UNKNOWN {
        "the program is not a 64-bit program"
    } else if native_machine != IMAGE_FILE_MACHINE_AMD64 {
        "Windows does not run on an x86-64 processor"
    } else {
        return Ok(());
    };
    Err(InjectError { message, error_code: 0 })
}

/// A string in the memory of another process. Dropping the value frees the string.
struct RemoteString {
    process: HANDLE,
    address: *mut c_void,
}

impl RemoteString {
    /// Copies a string into another process.
    ///
    /// # Safety
    /// `process` is a handle with all access rights.
    unsafe fn write(process: HANDLE, text: &[u16]) -> Result<Self, InjectError> {
        let size = size_of_val(text);
        // SAFETY: the new memory is in the other process. The call writes exactly the number of
        // allocated bytes.
        unsafe {
            let address =
                VirtualAllocEx(process, null(), size, MEM_COMMIT | MEM_RESERVE, PAGE_READWRITE);
            if address.is_null() {
                return Err(last_os_error("cannot allocate in the new process"));
            }
            let remote_string = Self { process, address };
            if WriteProcessMemory(process, address, text.as_ptr().cast(), size, null_mut()) == 0 {
                return Err(last_os_error("cannot write to the new process"));
            }
            Ok(remote_string)
        }
    }
}

impl Drop for RemoteString {
    fn drop(&mut self) {
        // SAFETY: `write` allocated this memory, and only this function frees it.
        unsafe { VirtualFreeEx(self.process, self.address, 0, MEM_RELEASE) };
    }
}

/// Runs a function in a thread of another process. Returns the exit code of the thread.
///
/// # Safety
/// `process` is a handle with all access rights. In that process, `start` is the address of a
/// function with the signature of a thread function.
unsafe fn run_remote_thread(
    process: HANDLE,
    start: LPTHREAD_START_ROUTINE,
    argument: *const c_void,
    failure_message: &'static str,
) -> Result<u32, InjectError> {
    // SAFETY: the caller passes a valid handle and address. The thread handle is closed once.
    unsafe {
        let thread = CreateRemoteThread(process, null(), 0, start, argument, 0, null_mut());
        if thread.is_null() {
            return Err(last_os_error(failure_message));
        }
        let mut exit_code = 0;
        let has_ended = WaitForSingleObject(thread, REMOTE_THREAD_TIMEOUT_MS) == WAIT_OBJECT_0
            && GetExitCodeThread(thread, &mut exit_code) != 0;
        CloseHandle(thread);
        if has_ended {
            Ok(exit_code)
        } else {
            Err(InjectError { message: failure_message, error_code: 0 })
        }
    }
}

/// Finds the module of `process` that was loaded from `path`, and returns its base address. Another
/// module can have the same file name, such as the DLL of another version of vipool.
///
/// The exit code of the thread that ran LoadLibraryW cannot be used, because it holds only 32 bits
/// of the address.
fn module_base(process: HANDLE, path: &[u16]) -> Result<usize, InjectError> {
    let message = "vipool_hook.dll did not load in the new process";
    // SAFETY: the snapshot is closed once. The entry is initialised with its own size.
    unsafe {
        let snapshot = CreateToolhelp32Snapshot(TH32CS_SNAPMODULE, GetProcessId(process));
        if snapshot == INVALID_HANDLE_VALUE {
            return Err(last_os_error(message));
        }
        let mut entry: MODULEENTRY32W = std::mem::zeroed();
        entry.dwSize = size_of::<MODULEENTRY32W>() as u32;
        let mut has_entry = Module32FirstW(snapshot, &mut entry);
        let mut base_address = None;
        while has_entry != 0 && base_address.is_none() {
            // The stored path can be truncated, so the file name is compared too.
            if is_file_name_of(&entry.szModule, path) && is_loaded_from(&entry.szExePath, path) {
                base_address = Some(entry.modBaseAddr as usize);
            }
            has_entry = Module32NextW(snapshot, &mut entry);
        }
        CloseHandle(snapshot);
        base_address.ok_or(InjectError { message, error_code: 0 })
    }
}

/// Returns whether a module name is the last component of the path. The module name ends in NUL.
/// The comparison ignores ASCII case.
fn is_file_name_of(module_name: &[u16], path: &[u16]) -> bool {
    let module_name = module_name.split(|unit| *unit == 0).next().unwrap_or_default();
    let is_separator = |unit: &u16| normalize(unit) == u16::from(b'\\');
    let file_name = path.rsplit(is_separator).next().unwrap_or_default();
    module_name.iter().map(normalize).eq(file_name.iter().map(normalize))
}

/// Returns whether the path of a module equals `path`. The path of the module is a buffer of the
/// system that ends in NUL, or that holds the beginning of a longer path. The comparison ignores
/// ASCII case and the kind of separators.
fn is_loaded_from(module_path: &[u16], path: &[u16]) -> bool {
    let stored_length = module_path.iter().position(|unit| *unit == 0).unwrap_or(module_path.len());
    // The system stores at most one unit less than the buffer holds.
    let is_truncated = stored_length + 1 >= module_path.len();
    let compared_length = if is_truncated { path.len().min(stored_length) } else { path.len() };
    module_path[..stored_length]
        .iter()
        .map(normalize)
        .eq(path[..compared_length].iter().map(normalize))
}

/// Returns a character of a path in lower case (ASCII only), and a backslash for a slash.
fn normalize(unit: &u16) -> u16 {
    match u8::try_from(*unit) {
        Ok(b'/') => u16::from(b'\\'),
        Ok(byte) => byte.to_ascii_lowercase().into(),
        Err(_) => *unit,
    }
}

/// Returns a function of kernel32 as a thread function.
///
/// # Safety
/// The function of this name must take one pointer and return a DWORD or a pointer-sized value.
unsafe fn kernel32_function(name: PCSTR) -> LPTHREAD_START_ROUTINE {
    // SAFETY: kernel32 is loaded in every process. Both types are optional function pointers.
    unsafe { std::mem::transmute(GetProcAddress(GetModuleHandleA(s!("kernel32.dll")), name)) }
}

/// Returns an error with this message and the last error code of Windows.
fn last_os_error(message: &'static str) -> InjectError {
    // SAFETY: the function only reads the last error code of this thread.
    let error_code = unsafe { GetLastError() };
    InjectError { message, error_code }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a path as the system stores it in a buffer of `length` units.
    fn stored_path(path: &str, length: usize) -> Vec<u16> {
        path.encode_utf16().chain(std::iter::repeat(0)).take(length - 1).chain([0]).collect()
    }

    #[test]
    fn module_of_another_directory_is_not_the_dll() {
        let path: Vec<u16> = r"C:\Program Files\vipool\vipool_hook.dll".encode_utf16().collect();
        let is_dll = |module_path: &str| is_loaded_from(&stored_path(module_path, 260), &path);
        assert!(is_dll(r"C:\Program Files\vipool\vipool_hook.dll"));
        assert!(is_dll(r"c:\program files\VIPOOL/vipool_hook.DLL"));
        assert!(!is_dll(r"C:\old\vipool_hook.dll"));
        assert!(!is_dll("vipool_hook.dll"));
        assert!(!is_dll(r"C:\Program Files\vipool\vipool_hook.dll.old"));
        assert!(!is_dll(""));
    }

    #[test]
    fn truncated_path_is_compared_up_to_its_end() {
        let directory = "long\\".repeat(60);
        let path: Vec<u16> = format!(r"C:\{directory}vipool_hook.dll").encode_utf16().collect();
        let is_dll = |module_path: &str| is_loaded_from(&stored_path(module_path, 260), &path);
        assert!(is_dll(&format!(r"C:\{directory}vipool_hook.dll")));
        assert!(!is_dll(&format!(r"D:\{directory}vipool_hook.dll")));
        let has_file_name = |name: &str| is_file_name_of(&stored_path(name, 256), &path);
        assert!(has_file_name("VIPOOL_hook.dll"));
        assert!(!has_file_name("vipool-launch.exe"));
    }
}
