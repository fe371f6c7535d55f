//! Arrays of 64-bit atomic words: a file mapped into memory, or private memory.

#![allow(unsafe_code)]

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::fs::File;
use std::io;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::word::Word;

/// A shared mapping of a whole file, or a view of private memory.
///
/// Dropping a mapping of a file unmaps the file. Dropping the last view of private memory releases
/// the memory.
///
/// The memory can be read-only. Only a [`WritableMapping`] gives the right to store to the words.
#[derive(Debug)]
pub struct Mapping {
    start: NonNull<Word>,
    word_count: usize,
    /// The private memory; `None` for a mapping of a file and for `Mapping::default()`.
    memory: Option<Arc<Memory>>,
}

/// Size and alignment of a cache line.
const CACHE_LINE: usize = 64;
/// Size of a large page. Large pages reduce TLB misses in a large table.
const LARGE_PAGE: usize = 2 << 20;

// SAFETY: the mapping belongs to the process, not to a thread, and all access to it is atomic.
unsafe impl Send for Mapping {}
// SAFETY: the same argument holds for shared references.
unsafe impl Sync for Mapping {}

impl Default for Mapping {
    /// Returns a mapping without words.
    fn default() -> Self {
        Self { start: NonNull::dangling(), word_count: 0, memory: None }
    }
}

impl Mapping {
    /// Returns another view of the same private memory; `None` if there is no private memory.
    #[must_use]
    pub fn share(&self) -> Option<Self> {
        let memory = Arc::clone(self.memory.as_ref()?);
        Some(Self { memory: Some(memory), ..*self })
    }

    /// Maps a file for reading. Ignores a partial word at the end of the file. Does not allocate.
    ///
    /// The file must keep its length: access to a page past the end of the file kills the process
    /// (SIGBUS, mmap(2)). Windows refuses to truncate a mapped file.
    ///
    /// # Errors
    /// Fails if the file is shorter than a word (`UnexpectedEof`) or does not fit into the address
    /// space (`FileTooLarge`). Also fails if the system cannot return the length of the file or map
    /// the file.
    pub fn new(file: &File) -> io::Result<Self> {
        Self::map(file, false)
    }

    /// Returns the number of bytes in the whole words of a file.
    fn mapped_length(file: &File) -> io::Result<usize> {
        // A slice has at most `isize::MAX` bytes.
        let length = isize::try_from(file.metadata()?.len())
            .map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
        match length.unsigned_abs() & !7 {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            length => Ok(length),
        }
    }

    #[cfg(unix)]
    fn map(file: &File, is_writable: bool) -> io::Result<Self> {
        use std::os::fd::AsRawFd;

        let length = Self::mapped_length(file)?;
        let protection =
            if is_writable { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_READ };
        // SAFETY: the kernel chooses the address of a new mapping, so no memory in use changes.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                protection,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, word_count: length / 8, memory: None })
    }

    #[cfg(windows)]
    fn map(file: &File, is_writable: bool) -> io::Result<Self> {
        use std::os::windows::io::AsRawHandle;
        use std::ptr::null;

        use windows_sys::Win32::Foundation::CloseHandle;
        use windows_sys::Win32::System::Memory::{
            CreateFileMappingW, FILE_MAP_READ, FILE_MAP_WRITE, MapViewOfFile, PAGE_READONLY,
            PAGE_READWRITE,
        };

        let length = Self::mapped_length(file)?;
        let (protection, access) = if is_writable {
            (PAGE_READWRITE, FILE_MAP_READ | FILE_MAP_WRITE)
        } else {
            (PAGE_READONLY, FILE_MAP_READ)
        };
        // SAFETY: Windows chooses the address of a new mapping, so no memory in use changes. The
        // view keeps the section alive after the handle of the section is closed.
        let start = unsafe {
            let section =
                CreateFileMappingW(file.as_raw_handle(), null(), protection, 0, 0, null());
            if section.is_null() {
                return Err(io::Error::last_os_error());
            }
            let view = MapViewOfFile(section, access, 0, 0, length);
            let error = io::Error::last_os_error();
            CloseHandle(section);
            NonNull::new(view.Value.cast()).ok_or(error)?
        };
        Ok(Self { start, word_count: length / 8, memory: None })
    }

    /// Returns the words.
    #[cfg(not(loom))]
    #[inline]
    #[must_use]
    pub fn words(&self) -> &[Word] {
        // SAFETY: the memory is aligned to words, holds `self.word_count` words, and lives as long
        // as `self`. A word is one atomic integer, so all bytes are valid. This process accesses
        // the memory only as such words.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.word_count) }
    }
}

/// A [`Mapping`] of memory that this process may write.
#[derive(Debug)]
pub struct WritableMapping(Mapping);

impl WritableMapping {
    /// Returns zeroed private memory that is aligned to a cache line.
    ///
    /// # Panics
    /// Panics if the words do not fit into the address space.
    #[must_use]
    pub fn in_memory(word_count: usize) -> Self {
        let memory = Arc::new(Memory::new(word_count));
        Self(Mapping { start: memory.start.cast(), word_count, memory: Some(memory) })
    }

    /// Maps a file for reading and writing. Otherwise the same as [`Mapping::new`].
    ///
    /// # Errors
    /// Fails as [`Mapping::new`] does.
    pub fn new(file: &File) -> io::Result<Self> {
        Mapping::map(file, true).map(Self)
    }

    /// Returns the words as integers that every thread may change.
    #[cfg(not(loom))]
    #[must_use]
    pub fn atomics(&self) -> &[AtomicU64] {
        let words = self.0.words();
        // SAFETY: `Word` is a transparent wrapper of `AtomicU64`, so both slices have the same
        // layout. The result borrows the same memory for the same lifetime.
        unsafe { std::slice::from_raw_parts(words.as_ptr().cast(), words.len()) }
    }

    /// Returns the mapping without the right to store to its words.
    #[must_use]
    pub fn into_mapping(self) -> Mapping {
        self.0
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.word_count == 0 || self.memory.is_some() {
            return;
        }
        #[cfg(unix)]
        // SAFETY: `Mapping::map` mapped this range, and no slice of it outlives `self`.
        unsafe {
            libc::munmap(self.start.as_ptr().cast(), self.word_count * 8);
        }
        #[cfg(windows)]
        // SAFETY: `Mapping::map` mapped this view, and no slice of it outlives `self`.
        unsafe {
            use windows_sys::Win32::System::Memory::{MEMORY_MAPPED_VIEW_ADDRESS, UnmapViewOfFile};
            UnmapViewOfFile(MEMORY_MAPPED_VIEW_ADDRESS { Value: self.start.as_ptr().cast() });
        }
    }
}

/// Zeroed private memory.
#[derive(Debug)]
struct Memory {
    start: NonNull<u8>,
    layout: Layout,
}

// SAFETY: the memory belongs to the process, not to a thread, and all access to it is atomic.
unsafe impl Send for Memory {}
// SAFETY: the same argument holds for shared references.
unsafe impl Sync for Memory {}

impl Memory {
    fn new(word_count: usize) -> Self {
        let words = Layout::array::<u64>(word_count);
        let byte_count = words.expect("the words fit into the address space").size();
        let alignment = if byte_count < LARGE_PAGE { CACHE_LINE } else { LARGE_PAGE };
        let layout = Layout::from_size_align(byte_count.max(CACHE_LINE), alignment)
            .expect("the words fit into the address space");
        // SAFETY: the size of the layout is not zero.
        let start = unsafe { alloc(layout) };
        let Some(start) = NonNull::new(start) else { handle_alloc_error(layout) };
        // SAFETY: the memory was just allocated with this size. The advice changes no content. It
        // precedes the first access, so that the kernel allocates large pages from the start.
        unsafe {
            #[cfg(all(target_os = "linux", not(miri)))]
            if alignment == LARGE_PAGE {
                libc::madvise(start.as_ptr().cast(), layout.size(), libc::MADV_HUGEPAGE);
            }
            start.write_bytes(0, layout.size());
        }
        Self { start, layout }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: `new` allocated the memory with this layout, and no slice of it outlives `self`.
        unsafe { dealloc(self.start.as_ptr(), self.layout) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "the words fit into the address space")]
    fn size_of_memory_does_not_wrap() {
        // Without a check, the size in bytes would be 16.
        _ = WritableMapping::in_memory(usize::MAX / 8 + 3);
    }

    #[test]
    #[should_panic(expected = "the words fit into the address space")]
    fn size_of_memory_is_at_most_that_of_a_slice() {
        _ = WritableMapping::in_memory(isize::MAX as usize / 8 + 1);
    }
}
