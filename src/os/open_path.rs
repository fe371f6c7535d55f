//! Opens a file without allocating, for code that runs inside hooked calls.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

/// Maximum length of a path, including the NUL byte at its end.
const MAX_PATH: usize = 1024;

/// Opens the path that is the concatenation of `parts` (open(2)).
///
/// # Errors
/// The kind is `InvalidFilename` if the path is too long or contains a NUL byte. Otherwise the
/// error is that of the kernel.
pub fn open_path(parts: &[&[u8]], flags: libc::c_int) -> io::Result<OwnedFd> {
    let mut path = [0u8; MAX_PATH];
    let mut length = 0;
    for part in parts {
        // The last byte of the buffer stays 0.
        let target = path[..MAX_PATH - 1].get_mut(length..length + part.len());
        let target = target.filter(|_| !part.contains(&0)).ok_or(io::ErrorKind::InvalidFilename)?;
        target.copy_from_slice(part);
        length += part.len();
    }
    loop {
        // SAFETY: the path is NUL-terminated, because the last byte of the buffer is 0.
        let descriptor = unsafe { libc::open(path.as_ptr().cast(), flags) };
        if descriptor >= 0 {
            // SAFETY: the descriptor was opened above and has no other owner.
            return Ok(unsafe { OwnedFd::from_raw_fd(descriptor) });
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longer_paths_and_nul_bytes_are_invalid() {
        let open = |parts: &[&[u8]]| open_path(parts, libc::O_RDONLY | libc::O_CLOEXEC);
        let slashes = [b'/'; MAX_PATH];
        assert!(open(&[b"/", b"dev", b"/null"]).is_ok());
        assert!(open(&[&slashes[..MAX_PATH - 5], b"proc"]).is_ok());
        for parts in [&[&slashes[..MAX_PATH - 4], b"proc"], &[b"/dev/null\0".as_slice(), b"x"]] {
            assert_eq!(open(parts).unwrap_err().kind(), io::ErrorKind::InvalidFilename);
        }
    }
}
