//! Lists the names in a directory. Allocates nothing and has no cancellation point (pthreads(7)), so
//! a hooked call can use this module.

#![allow(unsafe_code)]

use std::ffi::CStr;
use std::io;
use std::ops::ControlFlow;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::uncancellable_file::UncancellableFile;

/// Offsets in `linux_dirent64` (getdents64(2)).
const RECORD_LENGTH_OFFSET: usize = 16;
const NAME_OFFSET: usize = 19;

/// Calls `visit` with the name of each entry, including `.` and `..`, until `visit` returns
/// `Break`. Allocates nothing. Skips names that are not UTF-8.
///
/// # Errors
/// Fails if the directory cannot be read.
pub fn for_each_name(
    directory: &Path,
    mut visit: impl FnMut(&str) -> ControlFlow<()>,
) -> io::Result<()> {
    let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC;
    let descriptor = UncancellableFile::open(&[directory.as_os_str().as_bytes()], flags)?;
    let mut buffer = [0u8; 4096];
    loop {
        // SAFETY: the kernel writes at most `buffer.len()` bytes to the buffer.
        let length = unsafe {
            libc::syscall(
                libc::SYS_getdents64,
                descriptor.as_raw_fd(),
                buffer.as_mut_ptr(),
                buffer.len(),
            )
        };
        let mut entries = match usize::try_from(length) {
            Ok(0) => return Ok(()),
            Ok(length) => buffer.get(..length).unwrap_or_default(),
            Err(_) => return Err(io::Error::last_os_error()),
        };
        while let Some((entry, rest)) = split_entry(entries) {
            let name =
                entry.get(NAME_OFFSET..).and_then(|name| CStr::from_bytes_until_nul(name).ok());
            if let Some(Ok(name)) = name.map(CStr::to_str)
                && visit(name).is_break()
            {
                return Ok(());
            }
            entries = rest;
        }
    }
}

/// Returns the first entry and the bytes after it. Returns `None` after the last entry.
fn split_entry(entries: &[u8]) -> Option<(&[u8], &[u8])> {
    let length =
        entries.get(RECORD_LENGTH_OFFSET..)?.first_chunk().copied().map(u16::from_ne_bytes)?;
    entries.split_at_checked(length.into()).filter(|(entry, _)| !entry.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_visited_once() {
        let directory = tempfile::tempdir().unwrap();
        let mut expected: Vec<String> =
            (0..300).map(|number| format!("{number}-{}", "x".repeat(number % 99))).collect();
        for name in &expected {
            std::fs::write(directory.path().join(name), "").unwrap();
        }
        expected.extend([".".to_owned(), "..".to_owned()]);
        let mut visited_names = Vec::new();
        for_each_name(directory.path(), |name| {
            visited_names.push(name.to_owned());
            ControlFlow::Continue(())
        })
        .unwrap();
        visited_names.sort_unstable();
        expected.sort_unstable();
        assert_eq!(visited_names, expected);
        let mut visit_count = 0;
        let stop_at_first = |_: &str| {
            visit_count += 1;
            ControlFlow::Break(())
        };
        for_each_name(directory.path(), stop_at_first).unwrap();
        assert_eq!(visit_count, 1);
        assert!(for_each_name(&directory.path().join("missing"), |_| unreachable!()).is_err());
    }
}
