//! Time since the machine was started.

use std::time::Duration;

/// Returns the time since boot, including the time the machine was asleep: `CLOCK_BOOTTIME` of
/// clock_gettime(2).
#[cfg(unix)]
#[allow(unsafe_code)]
pub fn since_boot() -> Duration {
    #[cfg(target_os = "linux")]
    const CLOCK: libc::clockid_t = libc::CLOCK_BOOTTIME;
    // On macOS, the monotonic clock also counts the time asleep.
    #[cfg(not(target_os = "linux"))]
    const CLOCK: libc::clockid_t = libc::CLOCK_MONOTONIC;
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: clock_gettime writes one timespec to `time`, which is valid for writing.
    unsafe { libc::clock_gettime(CLOCK, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Returns the time since boot, including the time asleep, in steps of 10 to 16 ms
/// (`GetTickCount64`). After a fast start-up, which resumes a hibernated kernel, the count
/// continues at its value before the shutdown, because the kernel and its sockets survive.
#[cfg(windows)]
#[allow(unsafe_code)]
pub fn since_boot() -> Duration {
    // SAFETY: the function has no parameters and cannot fail.
    Duration::from_millis(unsafe {
        windows_sys::Win32::System::SystemInformation::GetTickCount64()
    })
}

/// Returns a monotonic time in milliseconds, in steps of at most 10 ms.
///
/// Makes no system call: the vDSO contains `CLOCK_MONOTONIC_COARSE` for every clock source
/// (vdso(7)).
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
pub fn coarse_milliseconds() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: clock_gettime writes one timespec to `time`, which is valid for writing.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &mut time) };
    time.tv_sec as u64 * 1000 + time.tv_nsec as u64 / 1_000_000
}

/// Returns a monotonic time in milliseconds.
#[cfg(not(target_os = "linux"))]
pub fn coarse_milliseconds() -> u64 {
    since_boot().as_millis() as u64
}
