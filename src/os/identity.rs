//! The identity of this boot and of the network namespace of this process.

use std::io;

/// Returns the identity of this boot and of the network namespace of this process. Processes do not
/// use a map with another identity.
///
/// On Linux, it is a hash of `/proc/sys/kernel/random/boot_id` (random(4)) and of the inode of
/// `/proc/self/ns/net` (namespaces(7)). The result is never 0.
#[cfg(target_os = "linux")]
pub fn current_boot_id() -> io::Result<u64> {
    boot_id_with_namespace("/proc/self/ns/net")
}

/// Returns the identity of this boot and of the network namespace of another process. For a process
/// of another user, the caller must be root.
#[cfg(target_os = "linux")]
pub fn process_boot_id(pid: u32) -> io::Result<u64> {
    boot_id_with_namespace(&format!("/proc/{pid}/ns/net"))
}

#[cfg(target_os = "linux")]
fn boot_id_with_namespace(namespace_path: &str) -> io::Result<u64> {
    use std::io::Read;
    use std::os::unix::fs::MetadataExt;

    use super::uncancellable_file::UncancellableFile;

    let mut boot_id = [0; 36];
    let flags = libc::O_RDONLY | libc::O_CLOEXEC;
    UncancellableFile::open(&[b"/proc/sys/kernel/random/boot_id"], flags)?
        .read_exact(&mut boot_id)?;
    let inode = std::fs::metadata(namespace_path)?.ino();
    Ok(crate::hash::hash64(&boot_id, inode) | 1)
}

/// Returns the identity of this boot. Processes do not use a map with another identity. The result
/// is never 0.
///
/// On macOS, it is a hash of `kern.bootsessionuuid` (sysctl(3)).
#[cfg(all(unix, not(target_os = "linux")))]
#[allow(unsafe_code)]
pub fn current_boot_id() -> io::Result<u64> {
    let mut boot_id = [0u8; 64];
    let mut length = boot_id.len();
    // SAFETY: the name ends with NUL, and the system writes at most `length` bytes.
    let status = unsafe {
        libc::sysctlbyname(
            c"kern.bootsessionuuid".as_ptr(),
            boot_id.as_mut_ptr().cast(),
            &mut length,
            std::ptr::null_mut(),
            0,
        )
    };
    if status != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(crate::hash::hash64(&boot_id, 0) | 1)
}
