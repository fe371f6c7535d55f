//! A private copy of bytes, outside the heap.

#![allow(unsafe_code)]

use std::io;
use std::ptr::NonNull;

/// A private copy of bytes. No other process can change it. Dropping it releases the memory.
///
/// The memory comes from the kernel, because code inside other programs must not use their heap.
#[derive(Debug)]
pub struct PrivateBytes {
    start: NonNull<u64>,
    word_count: usize,
    /// The number of bytes, at most 8 for each word.
    length: usize,
}

// SAFETY: the memory belongs to the process, not to a thread.
unsafe impl Send for PrivateBytes {}
// SAFETY: after its creation, all threads only read the memory.
unsafe impl Sync for PrivateBytes {}

impl PrivateBytes {
    /// Copies the first `length` bytes, in memory order, of these words. Copies fewer bytes if there
    /// are fewer words.
    ///
    /// # Errors
    /// Fails if the system has no memory left.
    pub fn copy(words: impl ExactSizeIterator<Item = u64>, length: usize) -> io::Result<Self> {
        let word_count = words.len();
        let length = length.min(word_count * 8);
        if word_count == 0 {
            return Ok(Self { start: NonNull::dangling(), word_count, length });
        }
        let copy = Self { start: allocate(word_count * 8)?.cast(), word_count, length };
        for (index, word) in words.take(word_count).enumerate() {
            // SAFETY: the memory is aligned to a page and holds `word_count` words.
            unsafe { copy.start.add(index).write(word) };
        }
        Ok(copy)
    }

    /// Returns the bytes.
    #[inline]
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the memory holds at least `self.length` initialized bytes, and nothing writes to
        // it before `self` is dropped.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast(), self.length) }
    }
}

impl Drop for PrivateBytes {
    fn drop(&mut self) {
        if self.word_count > 0 {
            // SAFETY: `copy` allocated this memory, and no slice of it outlives `self`.
            unsafe { release(self.start.cast(), self.word_count * 8) };
        }
    }
}

/// Allocates zeroed pages.
#[cfg(unix)]
fn allocate(length: usize) -> io::Result<NonNull<u8>> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANON;
    // SAFETY: the kernel chooses the address of a new mapping, so no memory in use changes.
    let start = unsafe { libc::mmap(std::ptr::null_mut(), length, protection, flags, -1, 0) };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(start.cast()).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
}

/// Releases pages.
///
/// # Safety
/// [`allocate`] returned the pages for this length, and nothing uses them any more.
#[cfg(unix)]
unsafe fn release(start: NonNull<u8>, length: usize) {
    // SAFETY: the caller guarantees that these pages are mapped and unused.
    unsafe { libc::munmap(start.as_ptr().cast(), length) };
}

/// Allocates zeroed pages.
#[cfg(windows)]
fn allocate(length: usize) -> io::Result<NonNull<u8>> {
    use windows_sys::Win32::System::Memory::{
        MEM_COMMIT, MEM_RESERVE, PAGE_READWRITE, VirtualAlloc,
    };

    let kind = MEM_COMMIT | MEM_RESERVE;
    // SAFETY: Windows chooses the address of the new pages, so no memory in use changes.
    let start = unsafe { VirtualAlloc(std::ptr::null(), length, kind, PAGE_READWRITE) };
    NonNull::new(start.cast()).ok_or_else(io::Error::last_os_error)
}

/// Releases pages.
///
/// # Safety
/// [`allocate`] returned the pages for this length, and nothing uses them any more.
#[cfg(windows)]
unsafe fn release(start: NonNull<u8>, _length: usize) {
    use windows_sys::Win32::System::Memory::{MEM_RELEASE, VirtualFree};

    // SAFETY: the caller guarantees that these pages are allocated and unused.
    unsafe { VirtualFree(start.as_ptr().cast(), 0, MEM_RELEASE) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copy_has_the_bytes_of_the_words() {
        let words = [u64::from_ne_bytes(*b"abcdefgh"), u64::from_ne_bytes(*b"ijklmnop")];
        let copy = |length| PrivateBytes::copy(words.into_iter(), length).unwrap();
        assert_eq!(copy(10).bytes(), b"abcdefghij");
        assert_eq!(copy(99).bytes(), b"abcdefghijklmnop");
        assert_eq!(PrivateBytes::copy([].into_iter(), 3).unwrap().bytes(), b"");
    }
}
