//! Which boot of which machine, and which network namespace, this process is in.

use std::io;

/// A number for this boot and network namespace; a map of another one is not ours.
///
/// Linux: a hash of `/proc/sys/kernel/random/boot_id` (random(4)) and the inode of
/// `/proc/self/ns/net` (namespaces(7)). Never 0.
#[cfg(target_os = "linux")]
pub fn current_boot_id() -> io::Result<u64> {
    of_namespace("/proc/self/ns/net")
}

/// The same of another process: this boot, and the network namespace that it is in. Of another
/// user's process only root is told.
#[cfg(target_os = "linux")]
pub fn process_boot_id(pid: u32) -> io::Result<u64> {
    of_namespace(&format!("/proc/{pid}/ns/net"))
}

#[cfg(target_os = "linux")]
fn of_namespace(file: &str) -> io::Result<u64> {
    use std::io::Read;
    use std::os::unix::fs::MetadataExt;

    let mut id = [0; 36];
    std::fs::File::open("/proc/sys/kernel/random/boot_id")?.read_exact(&mut id)?;
    let namespace = std::fs::metadata(file)?.ino();
    Ok(crate::hash::hash64(&id, namespace) | 1)
}

/// A number for this boot; a map of another one is not ours. Never 0.
///
/// macOS: a hash of `kern.bootsessionuuid` (sysctl(3)).
#[cfg(all(unix, not(target_os = "linux")))]
#[allow(unsafe_code)]
pub fn current_boot_id() -> io::Result<u64> {
    let mut id = [0u8; 64];
    let mut length = id.len();
    // SAFETY: the name ends in NUL; the system writes no more than `length` bytes.
    let answer = unsafe {
        libc::sysctlbyname(
            c"kern.bootsessionuuid".as_ptr(),
            id.as_mut_ptr().cast(),
            &mut length,
            std::ptr::null_mut(),
            0,
        )
    };
    if answer != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(crate::hash::hash64(&id, 0) | 1)
}
