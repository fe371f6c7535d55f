//! The queues of a pool: slots in the order of their stamps, as lists through their place words.
//!
//! First in, first out, and O(1) to take from the middle. The link of the oldest slot to the one before
//! it means nothing. Derived from the slots: a queue can be
//! rebuilt at any time. Only writers look at queues. Slots are numbered from 1 in the links; 0 is
//! none. Damaged links lead to slots that are in range or to none, and no operation follows more
//! than one.

use super::counters::Control;
use super::slot::{PLACE, Slot};
use crate::map::types::plan::{pair, unpair};
use crate::raw::prefetch::prefetch;
use crate::sync::{AtomicU64, Ordering};

/// A queue of a pool, by the control word that holds its ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Queue {
    /// Ready to be given out.
    Free = 0,
    /// Cooling down.
    Cooling = 1,
    /// Sockets were found on them.
    Lingering = 2,
}

/// The oldest slot in the queue.
#[inline]
pub(crate) fn first(control: &Control, slots: &[Slot], queue: Queue) -> Option<u32> {
    in_range(slots, read(&control[queue as usize]).0)
}

/// The slot after this one in its queue.
pub(crate) fn next(slots: &[Slot], slot: u32) -> Option<u32> {
    in_range(slots, read(&slots.get(slot as usize)?[PLACE]).0)
}

/// The oldest slot in a queue, and what is needed to take it out.
#[derive(Clone, Copy)]
pub(crate) struct Oldest<'a> {
    pub(crate) slot: u32,
    pub(crate) own: &'a Slot,
    ends: &'a AtomicU64,
    tail: u32,
}

/// Looks at the oldest slot in a queue.
#[inline(always)]
pub(crate) fn oldest<'a>(
    control: &'a Control,
    slots: &'a [Slot],
    queue: Queue,
) -> Option<Oldest<'a>> {
    let ends = &control[queue as usize];
    let (head, tail) = read(ends);
    Some(Oldest { slot: head.wrapping_sub(1), own: slot_of(slots, head)?, ends, tail })
}

impl Oldest<'_> {
    /// Takes it out of its queue.
    #[inline(always)]
    pub(crate) fn remove(self, slots: &[Slot]) {
        // The next one keeps its link to this one: nobody follows that of the oldest. It will be
        // given out by the next opening, which so finds it near.
        let (next, _) = read(&self.own[PLACE]);
        if let Some(next) = slot_of(slots, next) {
            prefetch(next);
        }
        write(self.ends, next, if next == 0 { 0 } else { self.tail });
    }
}

/// Adds a slot behind the youngest.
#[inline(always)]
pub(crate) fn push(control: &Control, slots: &[Slot], queue: Queue, slot: u32) {
    let Some(own) = slots.get(slot as usize) else { return };
    let ends = &control[queue as usize];
    let (head, tail) = read(ends);
    write(&own[PLACE], 0, tail);
    match linked(slots, tail) {
        Some(youngest) => {
            let (_, before) = read(youngest);
            write(youngest, slot + 1, before);
            write(ends, head, slot + 1);
        }
        None => write(ends, slot + 1, slot + 1),
    }
}

/// Takes a slot out of the queue it is in, wherever it is.
#[inline(always)]
pub(crate) fn remove(control: &Control, slots: &[Slot], queue: Queue, slot: u32) {
    let Some(own) = slots.get(slot as usize) else { return };
    if let Some(oldest) = oldest(control, slots, queue).filter(|oldest| oldest.slot == slot) {
        return oldest.remove(slots);
    }
    let ends = &control[queue as usize];
    let ((next, before), (head, _)) = (read(&own[PLACE]), read(ends));
    if let Some(older) = linked(slots, before) {
        write(older, next, read(older).1);
    }
    match linked(slots, next) {
        Some(younger) => write(younger, read(younger).0, before),
        None => write(ends, head, before),
    }
}

/// Makes the queue hold exactly these slots, in this order.
pub(crate) fn rebuild(
    control: &Control,
    slots: &[Slot],
    queue: Queue,
    order: impl Iterator<Item = u32>,
) {
    let mut order = order.peekable();
    let (mut head, mut before) = (0, 0);
    while let Some(slot) = order.next() {
        let next = order.peek().map_or(0, |next| next + 1);
        if let Some(own) = slots.get(slot as usize) {
            write(&own[PLACE], next, before);
        }
        before = slot + 1;
        if head == 0 {
            head = before;
        }
    }
    write(&control[queue as usize], head, before);
}

/// The slot that a link names, if it is one.
#[inline]
fn in_range(slots: &[Slot], link: u32) -> Option<u32> {
    link.checked_sub(1).filter(|slot| (*slot as usize) < slots.len())
}

/// The slot that a link names, itself.
#[inline]
fn slot_of(slots: &[Slot], link: u32) -> Option<&Slot> {
    slots.get((link as usize).wrapping_sub(1))
}

/// The place word of the slot that a link names.
#[inline]
fn linked(slots: &[Slot], link: u32) -> Option<&AtomicU64> {
    Some(&slot_of(slots, link)?[PLACE])
}

#[inline]
fn read(word: &AtomicU64) -> (u32, u32) {
    unpair(word.load(Ordering::Relaxed))
}

#[inline]
fn write(word: &AtomicU64, upper: u32, lower: u32) {
    word.store(pair(upper, lower), Ordering::Relaxed);
}
