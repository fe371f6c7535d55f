//! The placement of a slot: its counter, and the queue that contains the slot, if any.
//!
//! The owner word and the meta word determine the placement. So recovery can rebuild damaged queues
//! and counters.

use super::counters::{ControlWords, Counter, add_to_count};
use super::queue::{self, Queue};
use super::slot::{DRAINED, Meta, Owner, RESERVED, RETIRED, Slot};
use crate::raw::word::WriteAccess;

/// The placement of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Placement {
    /// A session holds the slot.
    Leased,
    /// The slot is in this queue.
    Queued(Queue),
    /// The slot is reserved for one user and in no queue.
    Reserved,
    /// The slot is drained or retired and in no queue.
    Drained,
}

impl Placement {
    /// Returns the placement of a slot with these words.
    #[inline]
    pub(crate) fn of(owner: Owner, meta: Meta) -> Self {
        let queue = match owner {
            Owner::Session(_) => return Self::Leased,
            Owner::Free(_) => Queue::Free,
            Owner::Cooling(_) => Queue::Cooling,
            Owner::Lingering(_) => Queue::Lingering,
        };
        if meta.has_any(DRAINED | RETIRED) {
            Self::Drained
        } else if meta.has_any(RESERVED) {
            Self::Reserved
        } else {
            Self::Queued(queue)
        }
    }

    /// Returns the counter of the slots in this placement.
    #[inline]
    pub(crate) fn counter(self) -> Counter {
        match self {
            Self::Leased => Counter::Leased,
            Self::Queued(Queue::Free) => Counter::Free,
            Self::Queued(Queue::Cooling) => Counter::Cooling,
            Self::Queued(Queue::Lingering) => Counter::Lingering,
            Self::Reserved => Counter::Reserved,
            Self::Drained => Counter::Drained,
        }
    }
}

/// Returns whether a slot with these words is in the free queue. This check is faster than
/// [`Placement::of`]. Almost every slot that a session gets is in the free queue.
#[inline(always)]
pub(crate) fn is_in_free_queue(owner_word: u64, meta: Meta) -> bool {
    Owner::is_free_word(owner_word) && !meta.has_any(DRAINED | RETIRED | RESERVED)
}

/// Adds a slot that is not leased to the queue and the counter of its placement.
#[inline(never)]
pub(crate) fn enqueue(
    access: WriteAccess<'_>,
    control: &ControlWords,
    slots: &[Slot],
    slot: u32,
    placement: Placement,
) {
    if let Placement::Queued(queue) = placement {
        queue::push_back(access, control, slots, queue, slot);
    }
    if placement != Placement::Leased {
        add_to_count(access, control, placement.counter(), 1);
    }
}

/// Removes a slot that is not leased from the queue and the counter of its placement.
#[inline(never)]
pub(crate) fn dequeue(
    access: WriteAccess<'_>,
    control: &ControlWords,
    slots: &[Slot],
    slot: u32,
    placement: Placement,
) {
    if let Placement::Queued(queue) = placement {
        queue::remove(access, control, slots, queue, slot);
    }
    if placement != Placement::Leased {
        add_to_count(access, control, placement.counter(), -1);
    }
}
