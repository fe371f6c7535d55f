//! A value that is set once, by whoever is first, and that nobody waits for.
//!
//! Unlike `std::sync::OnceLock` it is all zero bits while it is empty, so that a large table of them
//! takes no room in a file; and a thread that is left in the middle of setting it (siglongjmp, fork)
//! leaves it empty, where a lock would be held for ever. Not of the operating system, but `unsafe`.

#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::fmt;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicU8, Ordering};

const EMPTY: u8 = 0;
const TAKEN: u8 = 1;
const SET: u8 = 2;

/// A value that is set once and then only read. Threads may share it.
pub struct SetOnce<T> {
    state: AtomicU8,
    value: UnsafeCell<MaybeUninit<T>>,
}

// SAFETY: one thread writes the value, before any other can read it; from then on all only read.
unsafe impl<T: Send + Sync> Sync for SetOnce<T> {}

impl<T> SetOnce<T> {
    /// Without a value yet.
    #[allow(clippy::new_without_default, reason = "only statics and what is in them hold one")]
    pub const fn new() -> Self {
        Self { state: AtomicU8::new(EMPTY), value: UnsafeCell::new(MaybeUninit::uninit()) }
    }

    /// The value, once it is set. One load.
    #[inline]
    pub fn get(&self) -> Option<&T> {
        if self.state.load(Ordering::Acquire) != SET {
            return None;
        }
        // SAFETY: it was written before the state said so, and is never written again.
        Some(unsafe { (*self.value.get()).assume_init_ref() })
    }

    /// Sets the value, unless somebody else does or did. It may be unset still when this returns.
    pub fn set(&self, value: T) {
        let first = self.state.compare_exchange(EMPTY, TAKEN, Ordering::Relaxed, Ordering::Relaxed);
        if first.is_ok() {
            // SAFETY: the state was taken once, by us, and nobody reads before it says that the
            // value is set.
            unsafe { (*self.value.get()).write(value) };
            self.state.store(SET, Ordering::Release);
        }
    }
}

impl<T> Drop for SetOnce<T> {
    fn drop(&mut self) {
        if *self.state.get_mut() == SET {
            // SAFETY: it was written, and nobody else has it any more.
            unsafe { self.value.get_mut().assume_init_drop() };
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for SetOnce<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SetOnce").field(&self.get()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_value_stays() {
        let value = SetOnce::new();
        assert_eq!(value.get(), None);
        std::thread::scope(|scope| {
            for number in 0..8 {
                let value = &value;
                scope.spawn(move || value.set(vec![number; 100]));
            }
        });
        let first = value.get().expect("one was the first").clone();
        value.set(vec![]);
        assert_eq!(value.get(), Some(&first));
        assert!(first.iter().all(|number| *number == first[0]));
    }
}
