//! Time since the machine was started.

use crate::map::Tick;

/// Seconds since boot, time asleep included: `CLOCK_BOOTTIME` of clock_gettime(2).
#[cfg(unix)]
#[allow(unsafe_code)]
pub fn now() -> Tick {
    #[cfg(target_os = "linux")]
    const CLOCK: libc::clockid_t = libc::CLOCK_BOOTTIME;
    // Elsewhere (macOS) the monotonic clock goes on while the machine sleeps.
    #[cfg(not(target_os = "linux"))]
    const CLOCK: libc::clockid_t = libc::CLOCK_MONOTONIC;
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: clock_gettime writes one timespec to the address, which is valid for that.
    unsafe { libc::clock_gettime(CLOCK, &mut time) };
    Tick::try_from(time.tv_sec).unwrap_or(Tick::MAX)
}

/// Seconds since boot, time asleep included: `GetTickCount64`. After a fast start-up the count
/// goes on from before the shutdown, as do the kernel and its sockets.
#[cfg(windows)]
#[allow(unsafe_code)]
pub fn now() -> Tick {
    // SAFETY: takes nothing, cannot fail.
    let milliseconds = unsafe { windows_sys::Win32::System::SystemInformation::GetTickCount64() };
    Tick::try_from(milliseconds / 1000).unwrap_or(Tick::MAX)
}
