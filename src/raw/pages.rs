//! Private pages from the kernel, for code that must not use the heap of its process.

#![allow(unsafe_code)]

use std::io;
use std::ptr::{self, NonNull};

/// The smallest page size of all supported processors. Pages have at least this alignment.
pub const MIN_PAGE_SIZE: usize = 4096;

/// Maps zeroed private pages for at least `length` bytes.
///
/// # Errors
/// Fails if the system provides no pages, for example because of a memory limit.
pub fn map(length: usize) -> io::Result<NonNull<u8>> {
    // The system rejects a mapping of 0 bytes.
    let length = length.max(1);
    #[cfg(unix)]
    {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANON;
        // SAFETY: the kernel chooses the address of a new mapping, so no memory in use changes.
        let start = unsafe { libc::mmap(ptr::null_mut(), length, protection, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        NonNull::new(start.cast()).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
    }
    #[cfg(windows)]
    {
        use windows_sys::Win32::System::Memory::{
            MEM_COMMIT, MEM_RESERVE, PAGE_READWRITE, VirtualAlloc,
        };
        let allocation_type = MEM_COMMIT | MEM_RESERVE;
        // SAFETY: Windows chooses the address of the new pages, so no memory in use changes.
        let start = unsafe { VirtualAlloc(ptr::null(), length, allocation_type, PAGE_READWRITE) };
        NonNull::new(start.cast()).ok_or_else(io::Error::last_os_error)
    }
}

/// Unmaps pages.
///
/// # Safety
/// [`map`] returned `start` for this length, and nothing refers to the pages any more.
pub unsafe fn unmap(start: NonNull<u8>, length: usize) {
    #[cfg(unix)]
    // SAFETY: the caller guarantees that these pages are mapped and unused.
    unsafe {
        libc::munmap(start.as_ptr().cast(), length.max(1));
    }
    #[cfg(windows)]
    // SAFETY: the caller guarantees that these pages are mapped and unused. `MEM_RELEASE` requires
    // the length 0.
    unsafe {
        use windows_sys::Win32::System::Memory::{MEM_RELEASE, VirtualFree};
        let _ = length;
        VirtualFree(start.as_ptr().cast(), 0, MEM_RELEASE);
    }
}
