//! The identity of this boot. This is the Windows version of `identity.rs`.

use std::io;

use windows_sys::Wdk::System::SystemInformation::{
    NtQuerySystemInformation, SystemTimeOfDayInformation,
};
use windows_sys::Win32::Foundation::RtlNtStatusToDosError;

use crate::hash::hash64;

/// The first fields of `SYSTEM_TIMEOFDAY_INFORMATION`. Times are in units of 100 ns.
#[repr(C)]
#[derive(Default)]
struct TimeOfDay {
    /// The time at which the kernel started. Windows adjusts it when somebody sets the clock.
    boot_time: i64,
    current_time: i64,
    time_zone_bias: i64,
    time_zone_id: u32,
    reserved: u32,
    /// The sum of the adjustments of `boot_time`.
    boot_time_bias: i64,
    sleep_time_bias: i64,
}

/// Returns the identity of this boot. Processes do not use a map with another identity. The result
/// is never 0.
///
/// Windows has no boot id that a user can read. The identity is a hash of the time at which the
/// kernel started. A later change of the clock does not change the identity. Every process gets the
/// same identity. The identity changes at a restart.
///
/// A fast start-up, which resumes a hibernated kernel, is not a restart: the kernel, its tick count
/// and its sockets survive the shutdown. Only the Windows sessions of users end. `reap` then closes
/// the vipool sessions, because their leaders have exited.
#[allow(unsafe_code)]
pub fn current_boot_id() -> io::Result<u64> {
    let mut time = TimeOfDay::default();
    let size = size_of::<TimeOfDay>() as u32;
    let mut written_length = 0;
    // SAFETY: the system writes at most `size` bytes to the structure.
    let status = unsafe {
        NtQuerySystemInformation(
            SystemTimeOfDayInformation,
            (&raw mut time).cast(),
            size,
            &mut written_length,
        )
    };
    if status < 0 {
        // SAFETY: the function only converts a number.
        let error = unsafe { RtlNtStatusToDosError(status) };
        return Err(io::Error::from_raw_os_error(error as i32));
    }
    let unadjusted_boot_time = time.boot_time.wrapping_sub(time.boot_time_bias);
    Ok(hash64(&unadjusted_boot_time.to_le_bytes(), 0) | 1)
}

#[cfg(test)]
mod tests {
    #[test]
    fn boot_id_is_stable() {
        let boot_id = super::current_boot_id().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert_eq!(super::current_boot_id().unwrap(), boot_id);
        assert_ne!(boot_id, 0);
    }
}
