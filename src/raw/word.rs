//! A 64-bit word of a map, and the right to store to it.
//!
//! Every thread and process may read a [`Word`] at any time. A store needs [`WriteAccess`], which
//! exists only while the owner of the words is borrowed exclusively. So the compiler rejects code
//! that writes without the writer lock. It also rejects a method of a read-only type that writes.

use std::marker::PhantomData;

use crate::sync::{AtomicU64, Ordering};

/// A word that one writer stores to while other threads and processes read it.
#[derive(Debug, Default)]
#[repr(transparent)]
pub struct Word(AtomicU64);

impl Word {
    /// Returns a word with this value.
    #[must_use]
    pub fn new(value: u64) -> Self {
        Self(AtomicU64::new(value))
    }

    /// Reads the word with acquire ordering: the reader also sees every store that preceded the
    /// store of this value.
    #[inline(always)]
    pub fn load(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// Reads the word without ordering. Use this method for words that only the writer reads.
    #[inline(always)]
    pub fn load_relaxed(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Writes the word with release ordering: a reader that sees this value also sees every earlier
    /// store.
    #[inline(always)]
    pub fn store(&self, _: WriteAccess<'_>, value: u64) {
        self.0.store(value, Ordering::Release);
    }

    /// Writes the word without ordering. Use this method for words that only the writer reads.
    #[inline(always)]
    pub fn store_relaxed(&self, _: WriteAccess<'_>, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }
}

/// The right to store to words.
///
/// This value lives as long as an exclusive borrow of the owner of the words. It is not [`Send`],
/// so two threads cannot have it at the same time.
#[derive(Clone, Copy, Debug)]
pub struct WriteAccess<'a>(PhantomData<(&'a mut Word, *const ())>);

/// A type that owns writable words. An exclusive borrow of the owner includes the right to store to
/// its words.
pub trait OwnsWords {}

impl<'a> WriteAccess<'a> {
    /// Splits an exclusive borrow of the owner into a shared borrow and the right to store.
    #[inline(always)]
    pub fn split<T: OwnsWords>(owner: &'a mut T) -> (&'a T, Self) {
        (owner, Self(PhantomData))
    }

    /// Returns the right to store to words that a test owns.
    #[cfg(test)]
    pub fn for_test() -> Self {
        Self(PhantomData)
    }
}
