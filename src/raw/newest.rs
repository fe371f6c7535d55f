//! [`Newest`]: a pointer to the newest of several values, which all stay in memory forever.

#![allow(unsafe_code)]

use std::fmt;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use super::pages;

/// The newest of several values. Threads may share it.
///
/// Each value has its own pages, so a replacement neither locks nor uses the heap. A published
/// value is never dropped or moved, so a reference is valid until the process exits. If siglongjmp
/// or fork interrupts a replacement, at most one value and its pages leak.
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

    /// Makes `value` the newest value if `old_value` is still the newest value, and drops `value`
    /// otherwise. Returns the newest value, or `None` if the kernel has no memory for `value`.
    pub fn replace(&self, old_value: Option<&'static T>, value: T) -> Option<&'static T> {
        const { assert!(align_of::<T>() <= pages::MIN_PAGE_SIZE) };
        let old_pointer = old_value.map_or(ptr::null_mut(), |old| ptr::from_ref(old).cast_mut());
        let pages_start = pages::map(size_of::<T>()).ok()?;
        let new_pointer = pages_start.cast::<T>().as_ptr();
        // SAFETY: the pages are writable, large enough and aligned, and only this thread has their
        // address.
        unsafe { new_pointer.write(value) };
        let exchange = self.value.compare_exchange(
            old_pointer,
            new_pointer,
            Ordering::AcqRel,
            Ordering::Relaxed,
        );
        if exchange.is_err() {
            // SAFETY: the value was written above, and no other thread has seen the pointer.
            unsafe {
                new_pointer.drop_in_place();
                pages::unmap(pages_start, size_of::<T>());
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn one_of_several_threads_replaces_a_value() {
        let newest = Newest::new();
        let values: Vec<_> = (0..9).map(Arc::new).collect();
        let first_value = newest.replace(None, Arc::clone(&values[8]));
        std::thread::scope(|scope| {
            for value in &values[..8] {
                let newest = &newest;
                scope.spawn(move || {
                    let newest_value = newest.replace(first_value, Arc::clone(value));
                    assert_ne!(newest_value, first_value);
                });
            }
        });
        let last_value = newest.get().unwrap();
        // The values of the other threads were dropped. The two published values stay.
        assert_eq!(values.iter().filter(|value| Arc::strong_count(value) == 2).count(), 2);
        assert_eq!((**first_value.unwrap(), Arc::strong_count(last_value)), (8, 2));
        // A replacement of the first value has no effect, because it is no longer the newest.
        assert!(ptr::eq(newest.replace(first_value, Arc::new(10)).unwrap(), last_value));
    }
}
