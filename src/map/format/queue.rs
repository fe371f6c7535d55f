//! The queues of a pool: doubly linked lists through the link words of the slots, sorted by stamp.
//!
//! A queue is first in, first out. A removal takes O(1) time at any position. The predecessor link
//! of the front slot is undefined. Queues are derived from the slots, so recovery can rebuild them.
//! Only writers read queues. A link is a slot number plus 1, and 0 means the end. A damaged link to
//! a slot that does not exist counts as the end. No operation of this module follows a chain of
//! links, so a damaged queue cannot cause an endless loop.

use super::counters::ControlWords;
use super::slot::{LINK, Slot};
use super::words::{join_halves, split_halves};
use crate::raw::prefetch::prefetch;
use crate::raw::word::{Word, WriteAccess};

/// A queue of a pool. The value of the variant is the number of the control word with the front
/// link and the back link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Queue {
    /// Slots that can be allocated.
    Free = 0,
    /// Slots that cool down.
    Cooling = 1,
    /// Slots that have cooled down but still have sockets on their address.
    Lingering = 2,
}

/// Returns the front slot of a queue.
#[inline]
pub(crate) fn front(control: &ControlWords, slots: &[Slot], queue: Queue) -> Option<u32> {
    link_target(slots, read_links(&control[queue as usize]).0)
}

/// Returns the slot after `slot` in its queue.
pub(crate) fn successor(slots: &[Slot], slot: u32) -> Option<u32> {
    link_target(slots, read_links(&slots.get(slot as usize)?[LINK]).0)
}

/// The front slot of a queue, with the values that its removal needs.
#[derive(Clone, Copy)]
pub(crate) struct Front<'a> {
    pub(crate) slot: u32,
    pub(crate) words: &'a Slot,
    ends: &'a Word,
    back: u32,
}

/// Returns the front slot of a queue, prepared for its removal.
#[inline(always)]
pub(crate) fn peek_front<'a>(
    control: &'a ControlWords,
    slots: &'a [Slot],
    queue: Queue,
) -> Option<Front<'a>> {
    let ends = &control[queue as usize];
    let (front, back) = read_links(ends);
    let words = linked_slot(slots, front)?;
    Some(Front { slot: front.wrapping_sub(1), words, ends, back })
}

impl Front<'_> {
    /// Removes the slot from its queue.
    #[inline(always)]
    pub(crate) fn remove(self, access: WriteAccess<'_>, slots: &[Slot]) {
        // The successor becomes the front slot. Its predecessor link stays as it is, because no
        // operation follows the predecessor link of a front slot. The next allocation uses the
        // successor, so prefetch the successor now.
        let (next, _) = read_links(&self.words[LINK]);
        if let Some(next) = linked_slot(slots, next) {
            prefetch(next);
        }
        write_links(access, self.ends, next, if next == 0 { 0 } else { self.back });
    }
}

/// Appends a slot at the back of a queue.
#[inline(always)]
pub(crate) fn push_back(
    access: WriteAccess<'_>,
    control: &ControlWords,
    slots: &[Slot],
    queue: Queue,
    slot: u32,
) {
    let Some(words) = slots.get(slot as usize) else { return };
    let ends = &control[queue as usize];
    let (front, back) = read_links(ends);
    write_links(access, &words[LINK], 0, back);
    match linked_slot(slots, back) {
        Some(last) => {
            let (_, previous) = read_links(&last[LINK]);
            write_links(access, &last[LINK], slot + 1, previous);
            write_links(access, ends, front, slot + 1);
        }
        None => write_links(access, ends, slot + 1, slot + 1),
    }
}

/// Removes a slot from the queue that contains it, at any position.
#[inline(always)]
pub(crate) fn remove(
    access: WriteAccess<'_>,
    control: &ControlWords,
    slots: &[Slot],
    queue: Queue,
    slot: u32,
) {
    let Some(words) = slots.get(slot as usize) else { return };
    if let Some(front) = peek_front(control, slots, queue).filter(|front| front.slot == slot) {
        return front.remove(access, slots);
    }
    let ends = &control[queue as usize];
    let ((next, previous), (front, _)) = (read_links(&words[LINK]), read_links(ends));
    if let Some(predecessor) = linked_slot(slots, previous) {
        let (_, kept_previous) = read_links(&predecessor[LINK]);
        write_links(access, &predecessor[LINK], next, kept_previous);
    }
    match linked_slot(slots, next) {
        Some(successor) => {
            let (kept_next, _) = read_links(&successor[LINK]);
            write_links(access, &successor[LINK], kept_next, previous);
        }
        None => write_links(access, ends, front, previous),
    }
}

/// Rebuilds the queue from these slots, in this order.
pub(crate) fn rebuild(
    access: WriteAccess<'_>,
    control: &ControlWords,
    slots: &[Slot],
    queue: Queue,
    order: impl Iterator<Item = u32>,
) {
    let mut order = order.peekable();
    let (mut front, mut previous) = (0, 0);
    while let Some(slot) = order.next() {
        let next = order.peek().map_or(0, |next| next + 1);
        if let Some(words) = slots.get(slot as usize) {
            write_links(access, &words[LINK], next, previous);
        }
        previous = slot + 1;
        if front == 0 {
            front = previous;
        }
    }
    write_links(access, &control[queue as usize], front, previous);
}

/// Returns the number of the slot that a link names.
#[inline]
fn link_target(slots: &[Slot], link: u32) -> Option<u32> {
    link.checked_sub(1).filter(|slot| (*slot as usize) < slots.len())
}

/// Returns the words of the slot that a link names.
#[inline]
fn linked_slot(slots: &[Slot], link: u32) -> Option<&Slot> {
    slots.get((link as usize).wrapping_sub(1))
}

#[inline]
fn read_links(word: &Word) -> (u32, u32) {
    split_halves(word.load_relaxed())
}

#[inline]
fn write_links(access: WriteAccess<'_>, word: &Word, upper: u32, lower: u32) {
    word.store_relaxed(access, join_halves(upper, lower));
}
