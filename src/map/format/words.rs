//! Access to the words of a file of a map by offset.
//!
//! A load at an offset outside the file returns 0. A store at such an offset has no effect.

use crate::hash::load_padded_le;
use crate::raw::word::{Word, WriteAccess};

/// Reads a word with acquire ordering, see [`Word::load`].
#[inline(always)]
pub(crate) fn load(words: &[Word], offset: usize) -> u64 {
    words.get(offset).map_or(0, Word::load)
}

/// Writes a word with release ordering, see [`Word::store`].
#[inline(always)]
pub(crate) fn store(access: WriteAccess<'_>, words: &[Word], offset: usize, value: u64) {
    if let Some(word) = words.get(offset) {
        word.store(access, value);
    }
}

/// Stores bytes in memory order, eight per word. Fills the rest of the last word with zeros.
pub(crate) fn store_bytes(access: WriteAccess<'_>, words: &[Word], offset: usize, bytes: &[u8]) {
    let (chunks, remainder) = bytes.as_chunks();
    for (index, chunk) in chunks.iter().enumerate() {
        store(access, words, offset + index, u64::from_ne_bytes(*chunk));
    }
    if !remainder.is_empty() {
        store(access, words, offset + chunks.len(), load_padded_le(remainder).to_le());
    }
}

/// Reads bytes that [`store_bytes`] stored.
pub(crate) fn load_bytes(words: &[Word], offset: usize, bytes: &mut [u8]) {
    for (index, chunk) in bytes.chunks_mut(8).enumerate() {
        let word_bytes = load(words, offset + index).to_ne_bytes();
        chunk.copy_from_slice(&word_bytes[..chunk.len()]);
    }
}

/// Returns a word with these halves.
pub(crate) const fn join_halves(upper: u32, lower: u32) -> u64 {
    (upper as u64) << 32 | lower as u64
}

/// Returns the upper and the lower half of a word.
pub(crate) const fn split_halves(word: u64) -> (u32, u32) {
    ((word >> 32) as u32, word as u32)
}
