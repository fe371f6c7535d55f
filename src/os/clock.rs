//! Time since the machine was started.

use std::time::Duration;

/// Time since boot, time asleep included: `CLOCK_BOOTTIME` of clock_gettime(2).
#[cfg(unix)]
#[allow(unsafe_code)]
pub fn since_boot() -> Duration {
    #[cfg(target_os = "linux")]
    const CLOCK: libc::clockid_t = libc::CLOCK_BOOTTIME;
    // Elsewhere (macOS) the monotonic clock goes on while the machine sleeps.
    #[cfg(not(target_os = "linux"))]
    const CLOCK: libc::clockid_t = libc::CLOCK_MONOTONIC;
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: clock_gettime writes one timespec to the address, which is valid for that.
    unsafe { libc::clock_gettime(CLOCK, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Time since boot, time asleep included, in steps of 10 to 16 ms: `GetTickCount64`. After a fast
/// start-up the count goes on from before the shutdown, as do the kernel and its sockets.
#[cfg(windows)]
#[allow(unsafe_code)]
pub fn since_boot() -> Duration {
    // SAFETY: takes nothing, cannot fail.
    Duration::from_millis(unsafe {
        windows_sys::Win32::System::SystemInformation::GetTickCount64()
    })
}
