//! Clocks: the time since boot, and a monotonic time that is cheap to read.

#[cfg(target_os = "linux")]
use std::path::Path;
#[cfg(target_os = "linux")]
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

/// Returns the time since boot, including the time that the machine was asleep. On Linux, this is
/// `CLOCK_BOOTTIME` of clock_gettime(2) without the offset of the time namespace of this process.
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
    #[cfg(target_os = "linux")]
    {
        time.tv_sec -= namespace_offset();
    }
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), time.tv_nsec as u32)
}

/// Returns the whole seconds that the time namespace of this process adds to `CLOCK_BOOTTIME`, or 0
/// if they are unknown. [`since_boot`] subtracts them, because all processes that share a map must
/// read the same time. Later calls return the offset of the first call.
#[cfg(target_os = "linux")]
fn namespace_offset() -> libc::time_t {
    static OFFSET: AtomicI64 = AtomicI64::new(UNKNOWN_OFFSET);
    const UNKNOWN_OFFSET: i64 = i64::MIN;

    let mut offset = OFFSET.load(Ordering::Relaxed);
    if offset == UNKNOWN_OFFSET {
        offset = read_namespace_offset().unwrap_or(0);
        OFFSET.store(offset, Ordering::Relaxed);
    }
    offset as libc::time_t
}

#[cfg(target_os = "linux")]
fn read_namespace_offset() -> Option<i64> {
    let namespace_link = |name| std::fs::read_link(Path::new("/proc/self/ns").join(name)).ok();
    // The kernel shows the offsets of future children (time_namespaces(7)). They are the offsets of
    // this process too, unless this process has created a time namespace for its children.
    if namespace_link("time")? != namespace_link("time_for_children")? {
        return None;
    }
    let offsets = std::fs::read_to_string("/proc/self/timens_offsets").ok()?;
    let boottime_offset = offsets.lines().find_map(|line| line.strip_prefix("boottime"))?;
    boottime_offset.split_whitespace().next()?.parse().ok()
}

/// Returns the time since boot, including the time asleep, in steps of 10 to 16 ms
/// (`GetTickCount64`). A fast start-up resumes a hibernated kernel with its sockets, so the count
/// does not restart at 0.
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
/// Makes no system call: the vDSO can read `CLOCK_MONOTONIC_COARSE` with every clock source
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
