//! 64-bit atomic words: a file mapped into memory, or memory of our own laid out like one.

#![allow(unsafe_code)]

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::fs::File;
use std::io;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// A shared mapping of a whole file, or memory of our own. Given back when dropped.
#[derive(Debug)]
pub struct Mapping {
    start: NonNull<AtomicU64>,
    words: usize,
    writable: bool,
    /// Missing for a file.
    memory: Option<Arc<Memory>>,
}

/// Where the lines of the processor's caches begin.
const LINE: usize = 64;
/// A page of the large kind: a table that fills some costs the processor fewer look-ups of pages.
const LARGE_PAGE: usize = 2 << 20;

// SAFETY: the mapping belongs to the process, not to a thread, and is only read and written
// through atomics.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Default for Mapping {
    /// No words.
    fn default() -> Self {
        Self { start: NonNull::dangling(), words: 0, writable: false, memory: None }
    }
}

impl Mapping {
    /// Zeroed words in memory of our own, which begin where a line of the caches does.
    pub fn in_memory(words: usize) -> Self {
        let memory = Arc::new(Memory::new(words));
        Self { start: memory.start.cast(), words, writable: true, memory: Some(memory) }
    }

    /// A second view of the same memory; `None` for a file.
    pub fn share(&self) -> Option<Self> {
        let memory = Arc::clone(self.memory.as_ref()?);
        Some(Self { memory: Some(memory), ..*self })
    }

    /// Maps a file of at least 8 bytes, whole words of it. The file must keep its length: touching
    /// a page that was cut off kills the process (SIGBUS, mmap(2)).
    ///
    /// Allocates nothing.
    #[cfg(unix)]
    pub fn new(file: &File, writable: bool) -> io::Result<Self> {
        use std::os::fd::AsRawFd;

        let length = usize::try_from(file.metadata()?.len()).unwrap_or(0) & !7;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let protection =
            if writable { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_READ };
        // SAFETY: a new mapping where the kernel likes; no memory in use is touched.
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
        Ok(Self { start, words: length / 8, writable, memory: None })
    }

    /// Maps a file of at least 8 bytes, whole words of it. While it is mapped the system lets nobody
    /// cut it off.
    #[cfg(windows)]
    pub fn new(file: &File, writable: bool) -> io::Result<Self> {
        use std::os::windows::io::AsRawHandle;
        use std::ptr::null;

        use windows_sys::Win32::Foundation::CloseHandle;
        use windows_sys::Win32::System::Memory::{
            CreateFileMappingW, FILE_MAP_READ, FILE_MAP_WRITE, MapViewOfFile, PAGE_READONLY,
            PAGE_READWRITE,
        };

        let length = usize::try_from(file.metadata()?.len()).unwrap_or(0) & !7;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let (protection, access) = if writable {
            (PAGE_READWRITE, FILE_MAP_READ | FILE_MAP_WRITE)
        } else {
            (PAGE_READONLY, FILE_MAP_READ)
        };
        // SAFETY: a new mapping where the system likes; no memory in use is touched. The view
        // keeps the section alive, so its handle is closed at once.
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
        Ok(Self { start, words: length / 8, writable, memory: None })
    }

    /// The words. Stores to a mapping that is not writable fault: the caller knows which it made.
    #[inline]
    pub fn words(&self) -> &[AtomicU64] {
        // SAFETY: the memory is aligned to words, holds this many, lives as long as `self`, and all
        // access, that of other processes too, is by atomic words.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.words) }
    }

    /// Whether stores are allowed.
    pub fn is_writable(&self) -> bool {
        self.writable
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.words == 0 || self.memory.is_some() {
            return;
        }
        #[cfg(unix)]
        // SAFETY: this range was mapped by `new`, and no slice of it outlives `self`.
        unsafe {
            libc::munmap(self.start.as_ptr().cast(), self.words * 8);
        }
        #[cfg(windows)]
        // SAFETY: as above.
        unsafe {
            use windows_sys::Win32::System::Memory::{MEMORY_MAPPED_VIEW_ADDRESS, UnmapViewOfFile};
            UnmapViewOfFile(MEMORY_MAPPED_VIEW_ADDRESS { Value: self.start.as_ptr().cast() });
        }
    }
}

/// Zeroed memory of our own.
#[derive(Debug)]
struct Memory {
    start: NonNull<u8>,
    layout: Layout,
}

// SAFETY: the memory belongs to the process, not to a thread, and is only read and written through
// atomics.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    fn new(words: usize) -> Self {
        let bytes = words * 8;
        let align = if bytes < LARGE_PAGE { LINE } else { LARGE_PAGE };
        let layout = Layout::from_size_align(bytes.max(LINE), align).expect("it fits in memory");
        // SAFETY: the layout is not empty.
        let start = unsafe { alloc(layout) };
        let Some(start) = NonNull::new(start) else { handle_alloc_error(layout) };
        // SAFETY: the memory is ours, and this long. Advice changes nothing that it holds; before it
        // is first touched, so that the pages are large from the beginning.
        unsafe {
            #[cfg(all(target_os = "linux", not(miri)))]
            if align == LARGE_PAGE {
                libc::madvise(start.as_ptr().cast(), layout.size(), libc::MADV_HUGEPAGE);
            }
            start.write_bytes(0, layout.size());
        }
        Self { start, layout }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout, and no slice of it outlives `self`.
        unsafe { dealloc(self.start.as_ptr(), self.layout) };
    }
}

/// The bytes of words that nobody writes any more, in memory order.
#[cfg(not(loom))]
pub(crate) fn bytes_of(words: &[AtomicU64]) -> &[u8] {
    // SAFETY: the words are readable memory for as long as the slice is borrowed, any bytes are
    // valid, and the caller's words are of the part of a map that never changes after publication.
    unsafe { std::slice::from_raw_parts(words.as_ptr().cast(), words.len() * 8) }
}
