//! A private copy of bytes, outside the heap.

#![allow(unsafe_code)]

use std::alloc::Layout;
use std::io;
use std::ptr::NonNull;

use super::pages;

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
    /// Copies the first `length` bytes of `words`, in memory order. If the words have fewer bytes,
    /// copies all of them.
    ///
    /// # Errors
    /// Fails if the system provides no pages, for example because of a memory limit. Also fails if
    /// the words do not fit into the address space.
    pub fn copy(words: impl ExactSizeIterator<Item = u64>, length: usize) -> io::Result<Self> {
        let word_count = words.len();
        let byte_count =
            Layout::array::<u64>(word_count).map_err(|_| io::ErrorKind::OutOfMemory)?.size();
        let length = length.min(byte_count);
        if word_count == 0 {
            return Ok(Self { start: NonNull::dangling(), word_count, length });
        }
        let copy = Self { start: pages::map(byte_count)?.cast(), word_count, length };
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
            // SAFETY: `copy` mapped these pages, and no slice of them outlives `self`.
            unsafe { pages::unmap(self.start.cast(), self.word_count * 8) };
        }
    }
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

    #[test]
    fn words_beyond_the_address_space_are_an_error() {
        // Without a check, the size in bytes would be 16.
        let words = std::iter::repeat_n(0, usize::MAX / 8 + 3);
        let error = PrivateBytes::copy(words, 8).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::OutOfMemory);
    }
}
