//! The words of a map, in memory of our own or in a mapped file.
//!
//! Everything that changes is read and written through atomics, so that readers beside a writer
//! are well-defined; the compiled policy never changes once a map is published. Word numbers come
//! from a [`super::layout::Layout`] that was checked against the region's length; what is out of
//! range all the same reads as 0 and is not written.

use crate::raw::mapping::Mapping;
use crate::session::short_word;
use crate::sync::{AtomicU64, Ordering};

/// The words of a map.
#[derive(Debug, Default)]
pub(crate) struct Region {
    /// Empty where there is nothing to read: every word is 0 then.
    words: Words,
}

#[cfg(not(loom))]
type Words = Mapping;
/// The model checker has its own atomics, which no file holds.
#[cfg(loom)]
type Words = std::sync::Arc<[AtomicU64]>;

impl Region {
    /// Zeroed words in memory of our own.
    pub(crate) fn in_memory(words: usize) -> Self {
        #[cfg(not(loom))]
        let words = Mapping::in_memory(words);
        #[cfg(loom)]
        let words = (0..words).map(|_| AtomicU64::new(0)).collect();
        Self { words }
    }

    /// A copy of these bytes in memory of our own, whole words of them.
    pub(crate) fn copied(bytes: &[u8]) -> Self {
        let region = Self::in_memory(bytes.len() / 8);
        for (at, chunk) in bytes.chunks_exact(8).enumerate() {
            store(region.words(), at, u64::from_ne_bytes(chunk.try_into().unwrap_or_default()));
        }
        region
    }

    pub(crate) fn from_mapping(mapping: Mapping) -> Self {
        #[cfg(not(loom))]
        return Self { words: mapping };
        #[cfg(loom)]
        unreachable!("the model checker maps no file: {mapping:?}");
    }

    /// A second view of the same memory; `None` for a file, which is mapped again instead.
    pub(crate) fn share(&self) -> Option<Self> {
        #[cfg(not(loom))]
        let words = self.words.share()?;
        #[cfg(loom)]
        let words = self.words.clone();
        Some(Self { words })
    }

    #[inline(always)]
    pub(crate) fn words(&self) -> &[AtomicU64] {
        #[cfg(not(loom))]
        return self.words.words();
        #[cfg(loom)]
        return &self.words;
    }
}

/// Reads a word that another process may be writing; everything stored before it is seen.
#[inline(always)]
pub(crate) fn load(words: &[AtomicU64], at: usize) -> u64 {
    words.get(at).map_or(0, |word| word.load(Ordering::Acquire))
}

/// Writes a word; readers that see it see everything stored before it.
#[inline(always)]
pub(crate) fn store(words: &[AtomicU64], at: usize, value: u64) {
    if let Some(word) = words.get(at) {
        word.store(value, Ordering::Release);
    }
}

/// Stores bytes, eight to a word, in memory order.
pub(crate) fn store_bytes(words: &[AtomicU64], at: usize, bytes: &[u8]) {
    let (whole, rest) = bytes.as_chunks();
    for (number, word) in whole.iter().enumerate() {
        store(words, at + number, u64::from_ne_bytes(*word));
    }
    if !rest.is_empty() {
        store(words, at + whole.len(), short_word(rest).to_le());
    }
}

/// Reads what [`store_bytes`] stored.
pub(crate) fn load_bytes(words: &[AtomicU64], at: usize, bytes: &mut [u8]) {
    for (number, chunk) in bytes.chunks_mut(8).enumerate() {
        let word = load(words, at + number).to_ne_bytes();
        chunk.copy_from_slice(&word[..chunk.len()]);
    }
}
