//! The control words of a pool: the ends of its queues, and its counters.
//!
//! Counters are published, never derived by who reads them, and only their writer changes them. On
//! a map whose bytes were damaged they may say anything until everything is derived again: then the
//! wrong reason may be given for a shortage, or slots looked through for nothing.

use crate::map::types::plan::pair;
use crate::sync::{AtomicU64, Ordering};

/// How many there are.
pub(crate) const CONTROL_WORDS: usize = 16;
/// The control words of a pool: the queues first, see [`super::queue::Queue`].
pub(crate) type Control = [AtomicU64; CONTROL_WORDS];

/// A counter of a pool: half of one of its control words, counted in halves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Counter {
    Free = 8,
    Used = 9,
    Cooling = 10,
    Lingering = 11,
    Reserved = 12,
    Drained = 13,
    /// The most that were used at once.
    Peak = 14,
    /// Entries for which the index had no room.
    Unindexed = 15,
    /// Not 0 once the low-water warning was given, until there is more again.
    Warned = 16,
}

impl Counter {
    /// Its control word, and how far up in it it begins.
    #[inline(always)]
    fn place(self) -> (usize, u32) {
        (self as usize / 2, self as u32 % 2 * 32)
    }
}

/// How many counters there could be.
pub(crate) const COUNTERS: usize = 2 * CONTROL_WORDS;

#[inline(always)]
pub(crate) fn count(control: &Control, counter: Counter) -> u32 {
    let (word, shift) = counter.place();
    (control[word].load(Ordering::Relaxed) >> shift) as u32
}

#[inline(always)]
pub(crate) fn set_count(control: &Control, counter: Counter, value: u32) {
    let (word, shift) = counter.place();
    let other = control[word].load(Ordering::Relaxed) & !(pair(0, u32::MAX) << shift);
    control[word].store(other | u64::from(value) << shift, Ordering::Relaxed);
}

#[inline(always)]
pub(crate) fn add(control: &Control, counter: Counter, by: i32) {
    set_count(control, counter, count(control, counter).saturating_add_signed(by));
}

/// Adds to the number of slots used and of those free: they share a word.
#[inline(always)]
pub(crate) fn add_used(control: &Control, used: i32, free: i32) {
    let (word, _) = Counter::Used.place();
    let by = (i64::from(used) << 32).wrapping_add(free.into());
    let both = control[word].load(Ordering::Relaxed).wrapping_add_signed(by);
    control[word].store(both, Ordering::Relaxed);
}
