//! Where the map of this machine is. Fixed, not taken from the environment: a path from there is
//! for rootless use and tests, and moves only the process that sets it.

use std::path::PathBuf;

/// The directory of the machine's map: `/run/vipool`, gone with the boot as the leases are.
#[cfg(unix)]
pub fn map_directory() -> PathBuf {
    PathBuf::from("/run/vipool")
}

/// The directory of the machine's map: `ProgramData\vipool` on the drive that Windows is on.
#[cfg(windows)]
#[allow(unsafe_code)]
pub fn map_directory() -> PathBuf {
    use windows_sys::Win32::System::SystemInformation::GetSystemWindowsDirectoryW;

    let mut windows = [0; 260];
    // SAFETY: the system writes no more than the 260 units that the buffer holds.
    unsafe { GetSystemWindowsDirectoryW(windows.as_mut_ptr(), 260) };
    // A drive letter is ASCII; should there be none, Windows is on C: as nearly everywhere.
    let letter = u8::try_from(windows[0]).ok().filter(u8::is_ascii_alphabetic).unwrap_or(b'C');
    PathBuf::from(format!(r"{}:\ProgramData\vipool", char::from(letter)))
}
