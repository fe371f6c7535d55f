//! [`UncancellableFile`]: an open file for code that runs inside hooked calls.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::os::fd::{AsRawFd, FromRawFd};

/// Maximum length of a path, including the NUL byte at its end.
const MAX_PATH: usize = 1024;

/// An open file. Opening, reading and closing it are not cancellation points (pthreads(7)), and do
/// not allocate.
///
/// open(2), read(2) and close(2) of the C library are cancellation points. There, a cancelled thread
/// would leave a hooked function that is not a cancellation point itself, and leak the descriptor.
#[derive(Debug)]
pub struct UncancellableFile(ManuallyDrop<File>);

impl UncancellableFile {
    /// Opens the path that is the concatenation of `parts` (open(2)).
    ///
    /// # Errors
    /// The kind is `InvalidFilename` if the path is too long or contains a NUL byte. Otherwise the
    /// error is that of the kernel.
    pub fn open(parts: &[&[u8]], flags: libc::c_int) -> io::Result<Self> {
        let mut path = [0u8; MAX_PATH];
        let mut length = 0;
        for part in parts {
            // The last byte of the buffer stays 0.
            let target = path[..MAX_PATH - 1].get_mut(length..length + part.len());
            let target =
                target.filter(|_| !part.contains(&0)).ok_or(io::ErrorKind::InvalidFilename)?;
            target.copy_from_slice(part);
            length += part.len();
        }
        loop {
            // SAFETY: the path is NUL-terminated, because the last byte of the buffer is 0.
            let descriptor = unsafe { system_calls::open(path.as_ptr().cast(), flags) };
            if descriptor >= 0 {
                // SAFETY: the descriptor was opened above and has no other owner.
                let file = unsafe { File::from_raw_fd(descriptor) };
                return Ok(Self(ManuallyDrop::new(file)));
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }

    /// Returns the file for code that does not run inside hooked calls.
    pub fn into_file(self) -> File {
        let mut this = ManuallyDrop::new(self);
        // SAFETY: `this` is not used again, and its destructor does not run.
        unsafe { ManuallyDrop::take(&mut this.0) }
    }
}

impl io::Read for UncancellableFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // SAFETY: the kernel writes at most `buffer.len()` bytes to the buffer.
        let length = unsafe {
            system_calls::read(self.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len())
        };
        usize::try_from(length).map_err(|_| io::Error::last_os_error())
    }
}

impl Deref for UncancellableFile {
    type Target = File;

    fn deref(&self) -> &File {
        &self.0
    }
}

impl Drop for UncancellableFile {
    fn drop(&mut self) {
        // SAFETY: this value owns the descriptor, and the destructor of the inner file never runs.
        unsafe { system_calls::close(self.as_raw_fd()) };
    }
}

/// System calls without the functions of the C library that are cancellation points. They set
/// `errno`.
#[cfg(all(target_os = "linux", not(miri)))]
mod system_calls {
    use libc::{AT_FDCWD, SYS_close, SYS_openat, SYS_read, c_char, c_int, c_long, c_void, syscall};

    /// Opens a file (open(2)).
    ///
    /// # Safety
    /// `path` is a C string.
    pub unsafe fn open(path: *const c_char, flags: c_int) -> c_int {
        // SAFETY: guaranteed by the caller. The mode is used only for new files.
        unsafe { syscall(SYS_openat, AT_FDCWD, path, flags, 0) as c_int }
    }

    /// Reads from a file (read(2)).
    ///
    /// # Safety
    /// `buffer` points to `length` writable bytes.
    pub unsafe fn read(descriptor: c_int, buffer: *mut c_void, length: usize) -> c_long {
        // SAFETY: guaranteed by the caller.
        unsafe { syscall(SYS_read, descriptor, buffer, length) }
    }

    /// Closes a descriptor (close(2)).
    ///
    /// # Safety
    /// The caller owns the descriptor.
    pub unsafe fn close(descriptor: c_int) {
        // SAFETY: guaranteed by the caller.
        unsafe { syscall(SYS_close, descriptor) };
    }
}

/// On other systems there is no hook layer, so the functions of the C library are sufficient. Miri
/// does not support these system calls.
#[cfg(not(all(target_os = "linux", not(miri))))]
use libc as system_calls;

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    const FLAGS: libc::c_int = libc::O_RDONLY | libc::O_CLOEXEC;

    #[test]
    fn longer_paths_and_nul_bytes_are_invalid() {
        let open = |parts: &[&[u8]]| UncancellableFile::open(parts, FLAGS);
        let slashes = [b'/'; MAX_PATH];
        assert!(open(&[b"/", b"dev", b"/null"]).is_ok());
        assert!(open(&[&slashes[..MAX_PATH - 5], b"proc"]).is_ok());
        for parts in [&[&slashes[..MAX_PATH - 4], b"proc"], &[b"/dev/null\0".as_slice(), b"x"]] {
            assert_eq!(open(parts).unwrap_err().kind(), io::ErrorKind::InvalidFilename);
        }
    }

    #[test]
    fn file_is_read_and_errors_are_those_of_the_kernel() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, "text").unwrap();
        let path = path.to_str().unwrap().as_bytes();
        let mut text = String::new();
        UncancellableFile::open(&[path], FLAGS).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "text");
        let mut file = UncancellableFile::open(&[path], FLAGS).unwrap().into_file();
        assert_eq!(file.read(&mut [0; 8]).unwrap(), 4);
        let missing = UncancellableFile::open(&[path, b"/x"], FLAGS).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotADirectory);
        let mut directory = UncancellableFile::open(&[b"/"], FLAGS).unwrap();
        assert_eq!(directory.read(&mut [0; 8]).unwrap_err().kind(), io::ErrorKind::IsADirectory);
    }
}
