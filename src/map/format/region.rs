//! The memory that holds the words of one file of a map.
//!
//! All access to a word is atomic, so a reader and a writer cause no data race.

use std::ops::Deref;

use super::words::store;
use crate::raw::mapping::{Mapping, WritableMapping};
use crate::raw::word::{OwnsWords, Word, WriteAccess};

/// The words of one file of a map, mapped or in private memory.
#[derive(Debug, Default)]
pub(crate) struct Region {
    /// Empty if the map has no such file. Every load then returns 0.
    words: Words,
}

#[cfg(not(loom))]
type Words = Mapping;
/// The model checker has its own atomics, which cannot lie in a mapped file.
#[cfg(loom)]
type Words = std::sync::Arc<[Word]>;

impl Region {
    /// Returns the words of a mapped file.
    pub(crate) fn from_mapping(mapping: Mapping) -> Self {
        #[cfg(not(loom))]
        return Self { words: mapping };
        #[cfg(loom)]
        unreachable!("the model checker maps no file: {mapping:?}");
    }

    /// Returns a second view of the same private memory. Returns `None` for a mapped file, which
    /// the caller maps again instead.
    pub(crate) fn share(&self) -> Option<Self> {
        #[cfg(not(loom))]
        let words = self.words.share()?;
        #[cfg(loom)]
        let words = self.words.clone();
        Some(Self { words })
    }

    /// Returns the words for reading.
    #[inline(always)]
    pub(crate) fn words(&self) -> &[Word] {
        #[cfg(not(loom))]
        return self.words.words();
        #[cfg(loom)]
        return &self.words;
    }
}

/// The words of one file of a map, in memory that this process may write.
#[derive(Debug, Default)]
pub(crate) struct WritableRegion(Region);

impl OwnsWords for WritableRegion {}

impl Deref for WritableRegion {
    type Target = Region;

    #[inline(always)]
    fn deref(&self) -> &Region {
        &self.0
    }
}

impl WritableRegion {
    /// Returns zeroed words in private memory.
    pub(crate) fn in_memory(word_count: usize) -> Self {
        #[cfg(not(loom))]
        let words = WritableMapping::in_memory(word_count).into_mapping();
        #[cfg(loom)]
        let words = (0..word_count).map(|_| Word::new(0)).collect();
        Self(Region { words })
    }

    /// Returns a copy of `bytes` in private memory. Ignores bytes after the last whole word.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Self {
        let mut region = Self::in_memory(bytes.len() / 8);
        let (words, access) = region.write_access();
        for (offset, chunk) in bytes.chunks_exact(8).enumerate() {
            let word = u64::from_ne_bytes(chunk.try_into().unwrap_or_default());
            store(access, words, offset, word);
        }
        region
    }

    /// Returns the words of a file that is mapped for writing.
    pub(crate) fn from_mapping(mapping: WritableMapping) -> Self {
        Self(Region::from_mapping(mapping.into_mapping()))
    }

    /// Returns the words and the right to store to them.
    pub(crate) fn write_access(&mut self) -> (&[Word], WriteAccess<'_>) {
        let (region, access) = WriteAccess::split(self);
        (region.words(), access)
    }

    /// Returns the words without the right to store to them.
    pub(crate) fn into_region(self) -> Region {
        self.0
    }
}
