//! Puts the hook layer into another process before that runs a line of its own program.
//!
//! The process was created suspended. A first remote thread loads the DLL (its `DllMain` only
//! hands off), a second one runs `vipool_hook_install` and is waited for, so that every hook is in
//! place when the caller resumes the main thread. The system's loader has by then run the entry
//! points of the DLLs that the program imports, and its TLS callbacks: operation these do with sockets
//! comes too early for any hook.

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
use windows_sys::Win32::System::Threading::{
    CreateRemoteThread, GetExitCodeThread, GetProcessId, IsWow64Process, LPTHREAD_START_ROUTINE,
    WaitForSingleObject,
};
use windows_sys::core::{PCSTR, s};

use crate::install_status::InstallStatus;

/// How long the loader of a new process may take, in milliseconds: virus scanners read the DLL.
const LOAD_TIMEOUT_MS: u32 = 30_000;

/// The longest path of the DLL, in UTF-16 path_units with the final 0.
pub const MAX_PATH_UNITS: usize = 1024;

/// The DLL on disk, and where in it the function is that sets the hooks.
pub struct Dll {
    path: [u16; MAX_PATH_UNITS],
    path_units: usize,
    install_offset: usize,
}

/// Why a process runs without the hook layer: operation failed, and the number that Windows gave.
#[derive(Clone, Copy, Debug)]
#[allow(dead_code, reason = "only the launcher tells people")]
pub struct InjectError {
    /// What was tried.
    pub operation: &'static str,
    /// The system's error number; 0 where it has none.
    pub error_code: u32,
}

impl Dll {
    /// The DLL at a path (with its final 0) whose `vipool_hook_install` is this far from its start.
    /// `None` if the path is too long.
    pub fn new(path_with_nul: &[u16], install_offset: usize) -> Option<Self> {
        let mut path = [0; MAX_PATH_UNITS];
        path.get_mut(..path_with_nul.len())?.copy_from_slice(path_with_nul);
        Some(Self { path, path_units: path_with_nul.len(), install_offset })
    }

    /// Loads the DLL into a suspended process and sets the hooks there. `inherited_rule` is the id of
    /// the rule that the process is under if it is not listed itself; 0 for none.
    ///
    /// # Safety
    /// `process` is a handle to a process that this one created, with all access.
    pub unsafe fn inject(
        &self,
        process: HANDLE,
        inherited_rule: u64,
    ) -> Result<InstallStatus, InjectError> {
        let mut wow64 = 0;
        // SAFETY: the handle is valid as the caller says, the flag is ours.
        if unsafe { IsWow64Process(process, &mut wow64) } == 0 || wow64 != 0 {
            return Err(InjectError {
                operation: "the program is not a 64-bit one",
                error_code: 0,
            });
        }
        // SAFETY: the caller's handle; LoadLibraryW takes one pointer and is at the same address
        // in every process of this boot, since kernel32 is.
        unsafe {
            let path = RemoteString::write(process, &self.path[..self.path_units])?;
            let load = kernel32_function(s!("LoadLibraryW"));
            run_remote_thread(process, load, path.address, "cannot load vipool_hook.dll")?;
        }
        let base = module_base(process, &self.path[..self.path_units - 1])?;
        // SAFETY: the address is inside the module that was just found there, whose function of
        // that offset has the signature of a thread's start.
        let code = unsafe {
            let install =
                std::mem::transmute::<usize, LPTHREAD_START_ROUTINE>(base + self.install_offset);
            run_remote_thread(
                process,
                install,
                inherited_rule as usize as *const c_void,
                "cannot set the hooks",
            )?
        };
        Ok(InstallStatus::from_code(code))
    }
}

/// Text in the memory of another process, for as long as this value lives.
struct RemoteString {
    process: HANDLE,
    address: *mut c_void,
}

impl RemoteString {
    /// # Safety
    /// `process` is a handle with all access.
    unsafe fn write(process: HANDLE, text: &[u16]) -> Result<Self, InjectError> {
        let bytes = size_of_val(text);
        // SAFETY: reserves fresh memory in the other process and writes no more than its size.
        unsafe {
            let address =
                VirtualAllocEx(process, null(), bytes, MEM_COMMIT | MEM_RESERVE, PAGE_READWRITE);
            if address.is_null() {
                return Err(last_os_error("cannot allocate in the new process"));
            }
            let remote = Self { process, address };
            if WriteProcessMemory(process, address, text.as_ptr().cast(), bytes, null_mut()) == 0 {
                return Err(last_os_error("cannot write to the new process"));
            }
            Ok(remote)
        }
    }
}

impl Drop for RemoteString {
    fn drop(&mut self) {
        // SAFETY: operation `write` allocated, given back once.
        unsafe { VirtualFreeEx(self.process, self.address, 0, MEM_RELEASE) };
    }
}

/// Runs a function in the other process and waits for its answer.
///
/// # Safety
/// `start` is the address of a function with the signature of a thread's start in that process.
unsafe fn run_remote_thread(
    process: HANDLE,
    start: LPTHREAD_START_ROUTINE,
    argument: *const c_void,
    operation: &'static str,
) -> Result<u32, InjectError> {
    // SAFETY: as the caller says; the thread's handle is closed once.
    unsafe {
        let thread = CreateRemoteThread(process, null(), 0, start, argument, 0, null_mut());
        if thread.is_null() {
            return Err(last_os_error(operation));
        }
        let mut code = 0;
        let has_ended = WaitForSingleObject(thread, LOAD_TIMEOUT_MS) == WAIT_OBJECT_0
            && GetExitCodeThread(thread, &mut code) != 0;
        CloseHandle(thread);
        if has_ended { Ok(code) } else { Err(InjectError { operation, error_code: 0 }) }
    }
}

/// Where a module is in another process: a thread's exit code has half the bits of the address
/// that LoadLibraryW returned.
fn module_base(process: HANDLE, path: &[u16]) -> Result<usize, InjectError> {
    let operation = "vipool_hook.dll did not load in the new process";
    // SAFETY: the snapshot is closed once; the entry says its own size.
    unsafe {
        let snapshot = CreateToolhelp32Snapshot(TH32CS_SNAPMODULE, GetProcessId(process));
        if snapshot == INVALID_HANDLE_VALUE {
            return Err(last_os_error(operation));
        }
        let mut entry: MODULEENTRY32W = std::mem::zeroed();
        entry.dwSize = size_of::<MODULEENTRY32W>() as u32;
        let mut more = Module32FirstW(snapshot, &mut entry);
        let mut found = None;
        while more != 0 && found.is_none() {
            if is_module_of_path(&entry.szModule, path) {
                found = Some(entry.modBaseAddr as usize);
            }
            more = Module32NextW(snapshot, &mut entry);
        }
        CloseHandle(snapshot);
        found.ok_or(InjectError { operation, error_code: 0 })
    }
}

/// Whether the name of a module (has_ended by 0) is the last component of the path, ASCII case aside.
fn is_module_of_path(module: &[u16], path: &[u16]) -> bool {
    let module = module.split(|unit| *unit == 0).next().unwrap_or_default();
    let is_separator = |unit: &u16| *unit == u16::from(b'\\') || *unit == u16::from(b'/');
    let name = path.rsplit(is_separator).next().unwrap_or_default();
    let lower = |unit: &u16| u8::try_from(*unit).map_or(*unit, |b| b.to_ascii_lowercase().into());
    module.iter().map(lower).eq(name.iter().map(lower))
}

/// A function of kernel32 as the start of a thread.
///
/// # Safety
/// It takes one pointer and returns a word.
unsafe fn kernel32_function(name: PCSTR) -> LPTHREAD_START_ROUTINE {
    // SAFETY: kernel32 is in every process; a function pointer for a function pointer.
    unsafe { std::mem::transmute(GetProcAddress(GetModuleHandleA(s!("kernel32.dll")), name)) }
}

fn last_os_error(operation: &'static str) -> InjectError {
    // SAFETY: reads a word of this thread.
    InjectError { operation, error_code: unsafe { GetLastError() } }
}
