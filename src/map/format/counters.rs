//! The control words of a pool: the ends of its queues, and its counters.
//!
//! The writer updates the counters, and a reader never recomputes them. In a damaged map, a counter
//! can have any value until the next recovery. A wrong counter can cause a wrong shortage, a wrong
//! warning, or an unnecessary scan of the slots. If [`Counter::Reserved`] is 0 by mistake, a reap
//! can skip the reserved slots. If [`Counter::Unindexed`] is 0 by mistake, a lookup can miss a
//! session that has no entry in the index.

use super::words::join_halves;
use crate::raw::word::{Word, WriteAccess};

/// The number of control words of a pool.
pub(crate) const CONTROL_WORDS: usize = 16;
/// The control words of one pool. The first words hold the ends of the queues, see
/// [`super::queue::Queue`].
pub(crate) type ControlWords = [Word; CONTROL_WORDS];

/// A counter of a pool. Each counter is one half of a control word. The value of the variant is the
/// number of that half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Counter {
    /// Slots in the free queue.
    Free = 8,
    /// Leased slots.
    Leased = 9,
    /// Slots in the queue of cooling slots.
    Cooling = 10,
    /// Slots in the queue of lingering slots.
    Lingering = 11,
    /// Reserved slots that are not leased, drained or retired.
    Reserved = 12,
    /// Drained or retired slots that are not leased.
    Drained = 13,
    /// The maximum of [`Counter::Leased`] so far.
    PeakLeased = 14,
    /// Slots for which the index had no room.
    Unindexed = 15,
    /// 1 after a low-water warning, until the pool is no longer below the low-water mark. Else 0.
    LowWaterWarned = 16,
}

/// The number of halves of control words, which limits the number of counters.
pub(crate) const MAX_COUNTERS: usize = 2 * CONTROL_WORDS;

impl Counter {
    /// Returns the index of the control word, and the shift of this counter within that word.
    #[inline(always)]
    fn position(self) -> (usize, u32) {
        (self as usize / 2, self as u32 % 2 * 32)
    }
}

/// Reads a counter.
#[inline(always)]
pub(crate) fn count(control: &ControlWords, counter: Counter) -> u32 {
    let (word, shift) = counter.position();
    (control[word].load_relaxed() >> shift) as u32
}

/// Writes a counter.
#[inline(always)]
pub(crate) fn set_count(
    access: WriteAccess<'_>,
    control: &ControlWords,
    counter: Counter,
    value: u32,
) {
    let (word, shift) = counter.position();
    let other_half = control[word].load_relaxed() & !(join_halves(0, u32::MAX) << shift);
    control[word].store_relaxed(access, other_half | u64::from(value) << shift);
}

/// Adds `delta` to a counter.
#[inline(always)]
pub(crate) fn add_to_count(
    access: WriteAccess<'_>,
    control: &ControlWords,
    counter: Counter,
    delta: i32,
) {
    let value = count(control, counter).saturating_add_signed(delta);
    set_count(access, control, counter, value);
}

/// Adds to the counters of leased and free slots, which share a control word.
#[inline(always)]
pub(crate) fn add_leased_and_free(
    access: WriteAccess<'_>,
    control: &ControlWords,
    leased_delta: i32,
    free_delta: i32,
) {
    let (word, _) = Counter::Leased.position();
    let delta = (i64::from(leased_delta) << 32).wrapping_add(free_delta.into());
    let counts = control[word].load_relaxed().wrapping_add_signed(delta);
    control[word].store_relaxed(access, counts);
}
