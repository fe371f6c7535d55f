//! Which boot of which machine, and which network namespace, this process is in.

use std::io;

/// A number for this boot and network namespace; a map of another one is not ours.
///
/// Linux: a hash of `/proc/sys/kernel/random/boot_id` (random(4)) and the inode of
/// `/proc/self/ns/net` (namespaces(7)). Never 0.
#[cfg(target_os = "linux")]
pub fn here() -> io::Result<u64> {
    use std::io::Read;
    use std::os::unix::fs::MetadataExt;

    let mut id = [0; 36];
    std::fs::File::open("/proc/sys/kernel/random/boot_id")?.read_exact(&mut id)?;
    let namespace = std::fs::metadata("/proc/self/ns/net")?.ino();
    Ok(crate::session::hash64(&id, namespace) | 1)
}
