//! [`Newest`]: a pointer to the newest of several values, which all stay in memory forever.

#![allow(unsafe_code)]

use std::fmt;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicPtr, Ordering};

/// The newest of several values. Threads may share it.
///
/// Each value has its own pages, so an append neither locks nor uses the heap. A value is never
/// dropped or moved, so a reference is valid until the process exits. If siglongjmp or fork
/// interrupts a replacement, the newest value stays, and at most the pages of one value are lost.
pub struct Newest<T: Send + Sync + 'static> {
    /// Null, or a value that [`Newest::replace`] has published.
    value: AtomicPtr<T>,
}

impl<T: Send + Sync> Newest<T> {
    /// Returns a `Newest` without a value.
    #[allow(clippy::new_without_default, reason = "only statics hold one")]
    #[must_use]
    pub const fn new() -> Self {
        Self { value: AtomicPtr::new(ptr::null_mut()) }
    }

    /// Returns the newest value. Costs one load.
    #[inline]
    pub fn get(&self) -> Option<&'static T> {
        // SAFETY: the pointer is null or refers to a value that `replace` has written before it
        // published the pointer. No code drops, moves or mutably borrows such a value. `T` is
        // `Sync`, so any thread may borrow it.
        unsafe { self.value.load(Ordering::Acquire).as_ref() }
    }

    /// Makes `value` the newest value if `old` is still the newest value, and drops `value`
    /// otherwise. Returns the newest value, or `None` if the kernel has no memory for `value`.
    pub fn replace(&self, old: Option<&'static T>, value: T) -> Option<&'static T> {
        let old = old.map_or(ptr::null_mut(), |old| ptr::from_ref(old).cast_mut());
        let new = map_pages(size_of::<T>())?.cast::<T>().as_ptr();
        const { assert!(align_of::<T>() <= MIN_PAGE_SIZE) };
        // SAFETY: the pages are writable, large enough, aligned, and known to this thread only.
        unsafe { new.write(value) };
        if self.value.compare_exchange(old, new, Ordering::AcqRel, Ordering::Relaxed).is_err() {
            // SAFETY: the value was written above, and no other thread has seen the pointer.
            unsafe {
                new.drop_in_place();
                unmap_pages(new.cast(), size_of::<T>());
            }
        }
        self.get()
    }
}

impl<T: fmt::Debug + Send + Sync + 'static> fmt::Debug for Newest<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Newest").field(&self.get()).finish()
    }
}

/// The smallest page size of all supported processors.
const MIN_PAGE_SIZE: usize = 4096;

/// Maps zeroed private pages for `length` bytes.
fn map_pages(length: usize) -> Option<NonNull<u8>> {
    // A mapping has at least one byte.
    let length = length.max(1);
    #[cfg(unix)]
    {
        let (access, kind) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: the kernel chooses the address of a new mapping, so no memory in use changes.
        let start = unsafe { libc::mmap(ptr::null_mut(), length, access, kind, -1, 0) };
        if start == libc::MAP_FAILED { None } else { NonNull::new(start.cast()) }
    }
    #[cfg(windows)]
    {
        use windows_sys::Win32::System::Memory::{
            MEM_COMMIT, MEM_RESERVE, PAGE_READWRITE, VirtualAlloc,
        };
        let kind = MEM_RESERVE | MEM_COMMIT;
        // SAFETY: Windows chooses the address of the new pages, so no memory in use changes.
        NonNull::new(unsafe { VirtualAlloc(ptr::null(), length, kind, PAGE_READWRITE) }.cast())
    }
}

/// Unmaps the pages of [`map_pages`].
///
/// # Safety
/// `map_pages` has returned `start` for this length, and nothing refers to the pages any more.
unsafe fn unmap_pages(start: *mut u8, length: usize) {
    #[cfg(unix)]
    // SAFETY: guaranteed by the caller.
    unsafe {
        libc::munmap(start.cast(), length.max(1));
    }
    #[cfg(windows)]
    // SAFETY: guaranteed by the caller. With `MEM_RELEASE`, the length is 0.
    unsafe {
        use windows_sys::Win32::System::Memory::{MEM_RELEASE, VirtualFree};
        let _ = length;
        VirtualFree(start.cast(), 0, MEM_RELEASE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn one_of_several_threads_replaces_a_value() {
        let newest = Newest::new();
        let values: Vec<_> = (0..9).map(Arc::new).collect();
        let first = newest.replace(None, Arc::clone(&values[8]));
        std::thread::scope(|scope| {
            for value in &values[..8] {
                let newest = &newest;
                scope.spawn(move || assert_ne!(newest.replace(first, Arc::clone(value)), first));
            }
        });
        let last = newest.get().unwrap();
        // The values of the other threads were dropped. The two published values stay.
        assert_eq!(values.iter().filter(|value| Arc::strong_count(value) == 2).count(), 2);
        assert_eq!((**first.unwrap(), Arc::strong_count(last)), (8, 2));
        // A late thread that has read the first value changes nothing.
        assert!(ptr::eq(newest.replace(first, Arc::new(10)).unwrap(), last));
    }
}
