//! A 64-bit word of a map, and the right to store to it.
//!
//! Every thread and process may read a [`Word`] at any time. A store needs `WriteAccess`, which
//! exists only while the owner of the words is borrowed exclusively. The writer lock protects the
//! owner, so the compiler rejects code that stores without this lock. The compiler also rejects a
//! store in a method of a read-only type.

use std::marker::PhantomData;

use crate::sync::{AtomicU64, Ordering, fence};

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
    ///
    /// The memory can be mapped read-only. For such memory, the standard library guarantees relaxed
    /// loads of up to 8 bytes on 64-bit processors, and no other atomic operation. So the ordering
    /// comes from a fence. On x86-64 the fence needs no instruction. On 32-bit x86 the guarantee
    /// ends at 4 bytes. There, the compiler does not use a compare-and-swap, which would fail on
    /// read-only memory. The compiler loads 8 bytes with one SSE2 or x87 instruction.
    #[inline(always)]
    pub fn load(&self) -> u64 {
        let value = self.0.load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        value
    }

    /// Reads the word without ordering. Use this method for words that only the writer reads.
    #[inline(always)]
    pub fn load_relaxed(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Writes the word with release ordering: a reader that sees this value also sees every earlier
    /// store.
    #[inline(always)]
    pub(crate) fn store(&self, _: WriteAccess<'_>, value: u64) {
        self.0.store(value, Ordering::Release);
    }

    /// Writes the word without ordering. Use this method for words that only the writer reads.
    #[inline(always)]
    pub(crate) fn store_relaxed(&self, _: WriteAccess<'_>, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }
}

/// The right to store to words.
///
/// This value lives no longer than an exclusive borrow of the owner of the words. It is not
/// [`Send`], so two threads cannot have it at the same time.
///
/// The value does not name the words for which it is valid. So it is private to this crate, which
/// uses it only with the words of the owner.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WriteAccess<'a>(PhantomData<(&'a mut Word, *const ())>);

/// A type that owns words in writable memory.
///
/// An exclusive borrow of the owner includes the right to store to its words. Only types that are
/// built from writable memory implement this trait: a store to read-only memory would kill the
/// process.
pub(crate) trait OwnsWords {}

impl<'a> WriteAccess<'a> {
    /// Splits an exclusive borrow of the owner into a shared borrow and the right to store.
    #[inline(always)]
    pub(crate) fn split<T: OwnsWords>(owner: &'a mut T) -> (&'a T, Self) {
        (owner, Self(PhantomData))
    }

    /// Returns the right to store to words that a test owns.
    #[cfg(test)]
    pub(crate) fn for_test() -> Self {
        Self(PhantomData)
    }
}
