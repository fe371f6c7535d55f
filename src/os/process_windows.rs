//! Identifies a process and its terminal services session. This is the Windows version of
//! `process.rs`.

#![allow(unsafe_code)]

use std::io;

use windows_sys::Win32::Foundation::{
    CloseHandle, ERROR_INVALID_PARAMETER, FILETIME, WAIT_TIMEOUT,
};
use windows_sys::Win32::System::RemoteDesktop::ProcessIdToSessionId;
use windows_sys::Win32::System::Threading::{
    GetProcessTimes, OpenProcess, PROCESS_QUERY_LIMITED_INFORMATION, PROCESS_SYNCHRONIZE,
    WaitForSingleObject,
};

use crate::leader::Leader;

/// Returns the identity of the process that has this process id now. The creation time, in units of
/// 100 ns, distinguishes the process from a later process with the same id (GetProcessTimes).
///
/// An error of kind `NotFound` means that the process does not exist or has exited.
pub fn identify(pid: u32) -> io::Result<Leader> {
    let mut times = [FILETIME::default(); 4];
    // SAFETY: the handle is closed once, and the system writes each element of `times`.
    unsafe {
        let access = PROCESS_QUERY_LIMITED_INFORMATION | PROCESS_SYNCHRONIZE;
        let process = OpenProcess(access, 0, pid);
        if process.is_null() {
            let error = io::Error::last_os_error();
            let is_missing = error.raw_os_error() == Some(ERROR_INVALID_PARAMETER as i32);
            return Err(if is_missing { io::ErrorKind::NotFound.into() } else { error });
        }
        let [creation, exit, kernel, user] = &mut times;
        let has_times = GetProcessTimes(process, creation, exit, kernel, user) != 0;
        let error = io::Error::last_os_error();
        let is_running = WaitForSingleObject(process, 0) == WAIT_TIMEOUT;
        CloseHandle(process);
        if !has_times {
            return Err(error);
        }
        if !is_running {
            return Err(io::ErrorKind::NotFound.into());
        }
    }
    let [creation, ..] = times;
    let start_time = u64::from(creation.dwHighDateTime) << 32 | u64::from(creation.dwLowDateTime);
    Ok(Leader { pid, start_time, pid_namespace: 0 })
}

/// Returns whether a process has exited.
pub fn has_exited(process: &Leader) -> bool {
    match identify(process.pid) {
        Ok(current) => current.start_time != process.start_time,
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

/// Returns the terminal services session of a process (ProcessIdToSessionId).
pub fn terminal_session(pid: u32) -> io::Result<u32> {
    let mut session_id = 0;
    // SAFETY: the function writes one `u32` to `session_id`.
    if unsafe { ProcessIdToSessionId(pid, &mut session_id) } == 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(session_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn process_is_identified_until_it_exits() {
        let this_process = identify(std::process::id()).unwrap();
        assert_eq!(identify(this_process.pid).unwrap(), this_process);
        let mut child = std::process::Command::new("cmd")
            .args(["/c", "pause"])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let child_identity = identify(child.id()).unwrap();
        assert!(child_identity.start_time >= this_process.start_time);
        assert_eq!(
            terminal_session(child.id()).unwrap(),
            terminal_session(this_process.pid).unwrap()
        );
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(identify(child.id()).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
