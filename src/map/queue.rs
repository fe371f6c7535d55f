//! The queues of a pool: slots in the order of their stamps, as lists through their place words.
//!
//! First in, first out, and O(1) to take from the middle. Derived from the slots: a queue can be
//! rebuilt at any time. Only writers look at queues, so the links need no ordering. Damaged links
//! lead to slots that are in range or to none, and no operation follows more than one.

use super::layout::PoolLayout;
use super::plan::{pair, unpair};
use super::region::{load, store};
use super::slot::{PLACE, SLOT_WORDS};
use crate::sync::AtomicU64;

/// A queue of a pool, by the control word that holds its ends. Slots are numbered from 1 in the
/// links; 0 is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(super) enum Queue {
    /// Ready to be given out.
    Free = 0,
    /// Cooling down.
    Cooling = 1,
    /// Sockets were found on them.
    Lingering = 2,
}

/// The oldest slot in the queue.
#[inline]
pub(super) fn first(words: &[AtomicU64], pool: &PoolLayout, queue: Queue) -> Option<u32> {
    let (head, _) = unpair(load(words, pool.control_at + queue as usize));
    head.checked_sub(1).filter(|slot| *slot < pool.slots)
}

/// The slot after this one in its queue.
pub(super) fn next(words: &[AtomicU64], pool: &PoolLayout, slot: u32) -> Option<u32> {
    let (next, _) = unpair(load(words, place_at(pool, slot)));
    next.checked_sub(1).filter(|slot| *slot < pool.slots)
}

/// Adds a slot behind the youngest.
#[inline]
pub(super) fn push(words: &[AtomicU64], pool: &PoolLayout, queue: Queue, slot: u32) {
    let ends_at = pool.control_at + queue as usize;
    let (head, tail) = unpair(load(words, ends_at));
    store(words, place_at(pool, slot), pair(0, tail));
    match tail.checked_sub(1).filter(|tail| *tail < pool.slots) {
        Some(tail) => {
            let (_, before) = unpair(load(words, place_at(pool, tail)));
            store(words, place_at(pool, tail), pair(slot + 1, before));
            store(words, ends_at, pair(head, slot + 1));
        }
        None => store(words, ends_at, pair(slot + 1, slot + 1)),
    }
}

/// Takes a slot out of the queue it is in, wherever it is.
#[inline]
pub(super) fn remove(words: &[AtomicU64], pool: &PoolLayout, queue: Queue, slot: u32) {
    let ends_at = pool.control_at + queue as usize;
    let (next, before) = unpair(load(words, place_at(pool, slot)));
    let (mut head, mut tail) = unpair(load(words, ends_at));
    match before.checked_sub(1).filter(|before| *before < pool.slots) {
        Some(before) => {
            let (_, further) = unpair(load(words, place_at(pool, before)));
            store(words, place_at(pool, before), pair(next, further));
        }
        None => head = next,
    }
    match next.checked_sub(1).filter(|next| *next < pool.slots) {
        Some(next) => {
            let (further, _) = unpair(load(words, place_at(pool, next)));
            store(words, place_at(pool, next), pair(further, before));
        }
        None => tail = before,
    }
    store(words, ends_at, pair(head, tail));
}

/// Makes the queue hold exactly these slots, in this order.
pub(super) fn rebuild(
    words: &[AtomicU64],
    pool: &PoolLayout,
    queue: Queue,
    slots: impl ExactSizeIterator<Item = u32>,
) {
    store(words, pool.control_at + queue as usize, 0);
    let mut slots = slots.peekable();
    let (mut head, mut before) = (0, 0);
    while let Some(slot) = slots.next() {
        let next = slots.peek().map_or(0, |next| next + 1);
        store(words, place_at(pool, slot), pair(next, before));
        before = slot + 1;
        if head == 0 {
            head = before;
        }
    }
    store(words, pool.control_at + queue as usize, pair(head, before));
}

#[inline]
fn place_at(pool: &PoolLayout, slot: u32) -> usize {
    pool.slots_at + slot as usize * SLOT_WORDS + PLACE
}
