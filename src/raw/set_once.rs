//! A cell that is set once and never blocks.
//!
//! [`SetOnce`] differs from `std::sync::OnceLock` in two ways. An empty cell is all zero bits, so a
//! large static table of cells takes no space in the program file. If siglongjmp or fork interrupts
//! a thread while it sets the value, the cell stays empty forever, but no thread waits for it. A
//! lock would stay held, and other threads would wait forever.

#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::fmt;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicU8, Ordering};

const EMPTY: u8 = 0;
const WRITING: u8 = 1;
const SET: u8 = 2;

/// A cell that is set once and then only read. Threads may share it.
pub struct SetOnce<T> {
    state: AtomicU8,
    value: UnsafeCell<MaybeUninit<T>>,
}

// SAFETY: one thread writes the value before any other thread can read it. From then on every
// thread only reads it.
unsafe impl<T: Send + Sync> Sync for SetOnce<T> {}

impl<T> SetOnce<T> {
    /// Returns an empty cell.
    #[allow(clippy::new_without_default, reason = "only statics and their parts hold a cell")]
    #[must_use]
    pub const fn new() -> Self {
        Self { state: AtomicU8::new(EMPTY), value: UnsafeCell::new(MaybeUninit::uninit()) }
    }

    /// Returns the value if it is set. Costs one load.
    #[inline]
    pub fn get(&self) -> Option<&T> {
        if self.state.load(Ordering::Acquire) != SET {
            return None;
        }
        // SAFETY: the value was written before the state became `SET`, and no thread writes it
        // again.
        Some(unsafe { (*self.value.get()).assume_init_ref() })
    }

    /// Sets the value. Does nothing if another thread has set the value or is setting it. If
    /// another thread is setting the value, the cell can still be empty when this method returns.
    pub fn set(&self, value: T) {
        let exchange =
            self.state.compare_exchange(EMPTY, WRITING, Ordering::Relaxed, Ordering::Relaxed);
        if exchange.is_ok() {
            // SAFETY: only this thread changed the state from `EMPTY` to `WRITING`, and no thread
            // reads the value before the state is `SET`.
            unsafe { (*self.value.get()).write(value) };
            self.state.store(SET, Ordering::Release);
        }
    }
}

impl<T> Drop for SetOnce<T> {
    fn drop(&mut self) {
        if *self.state.get_mut() == SET {
            // SAFETY: the value was written, and `&mut self` guarantees that no other thread uses
            // it.
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
    fn only_the_first_value_is_kept() {
        let cell = SetOnce::new();
        assert_eq!(cell.get(), None);
        std::thread::scope(|scope| {
            for number in 0..8 {
                let cell = &cell;
                scope.spawn(move || cell.set(vec![number; 100]));
            }
        });
        let first_value = cell.get().expect("a thread was first").clone();
        cell.set(vec![]);
        assert_eq!(cell.get(), Some(&first_value));
        assert!(first_value.iter().all(|number| *number == first_value[0]));
    }
}
