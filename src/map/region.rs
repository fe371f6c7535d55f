//! The words of a map, in memory of our own or in a mapped file.
//!
//! Everything that changes is read and written through atomics, so that readers beside a writer
//! are well-defined; the compiled policy never changes once a map is published. Word numbers come
//! from a [`super::layout::Layout`] that was checked against the region's length; what is out of
//! range all the same reads as 0 and is not written.

use std::sync::Arc;

use crate::os::mapping::Mapping;
use crate::sync::{AtomicU64, Ordering};

/// The words of a map.
#[derive(Debug)]
pub(super) struct Region {
    store: Store,
}

#[derive(Debug)]
enum Store {
    Memory(Arc<[AtomicU64]>),
    File(Mapping),
}

impl Region {
    /// Zeroed words in memory of our own.
    pub(super) fn in_memory(words: usize) -> Self {
        Self { store: Store::Memory((0..words).map(|_| AtomicU64::new(0)).collect()) }
    }

    /// A copy of these bytes in memory of our own, whole words of them.
    pub(super) fn copied(bytes: &[u8]) -> Self {
        let words = bytes
            .chunks_exact(8)
            .map(|chunk| AtomicU64::new(u64::from_ne_bytes(chunk.try_into().unwrap_or_default())));
        Self { store: Store::Memory(words.collect()) }
    }

    pub(super) fn from_mapping(mapping: Mapping) -> Self {
        Self { store: Store::File(mapping) }
    }

    /// A second view of the same memory; `None` for a file, which is mapped again instead.
    pub(super) fn share(&self) -> Option<Self> {
        match &self.store {
            Store::Memory(words) => Some(Self { store: Store::Memory(Arc::clone(words)) }),
            Store::File(_) => None,
        }
    }

    #[inline(always)]
    pub(super) fn words(&self) -> &[AtomicU64] {
        match &self.store {
            Store::Memory(words) => words,
            #[cfg(not(loom))]
            Store::File(mapping) => mapping.words(),
            #[cfg(loom)]
            Store::File(_) => &[],
        }
    }
}

/// Reads a word that another process may be writing; everything stored before it is seen.
#[inline(always)]
pub(super) fn load(words: &[AtomicU64], at: usize) -> u64 {
    words.get(at).map_or(0, |word| word.load(Ordering::Acquire))
}

/// Writes a word; readers that see it see everything stored before it.
#[inline(always)]
pub(super) fn store(words: &[AtomicU64], at: usize, value: u64) {
    if let Some(word) = words.get(at) {
        word.store(value, Ordering::Release);
    }
}
