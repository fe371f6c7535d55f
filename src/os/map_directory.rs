//! The directory of this machine's map. The path is fixed, because a path in the environment would
//! affect only some of the processes. Only rootless use and tests set a path in the environment.

use std::path::PathBuf;

/// Returns the directory of the machine's map, `/run/vipool`. Neither the directory nor the leases
/// survive a restart of the machine.
#[cfg(unix)]
pub fn map_directory() -> PathBuf {
    PathBuf::from("/run/vipool")
}

/// Returns the directory of the machine's map: `ProgramData\vipool` on the Windows drive.
#[cfg(windows)]
#[allow(unsafe_code)]
pub fn map_directory() -> PathBuf {
    use windows_sys::Win32::System::SystemInformation::GetSystemWindowsDirectoryW;

    let mut windows_directory = [0; 260];
    // SAFETY: the system writes at most 260 units, the length of the buffer.
    unsafe { GetSystemWindowsDirectoryW(windows_directory.as_mut_ptr(), 260) };
    let drive_letter = u8::try_from(windows_directory[0]).ok().filter(u8::is_ascii_alphabetic);
    // If the path does not begin with a drive letter, assume C:, the usual Windows drive.
    PathBuf::from(format!(r"{}:\ProgramData\vipool", char::from(drive_letter.unwrap_or(b'C'))))
}
