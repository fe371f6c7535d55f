//! Time since the machine was started.

use crate::map::Tick;

/// Seconds since boot, time asleep included (`CLOCK_BOOTTIME`, clock_gettime(2)).
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
pub fn now() -> Tick {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: clock_gettime writes one timespec to the address, which is valid for that.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &mut time) };
    Tick::try_from(time.tv_sec).unwrap_or(Tick::MAX)
}
