//! The queues of a pool: doubly linked lists through the link words of the slots. A slot enters a
//! queue with a new stamp ([`super::slot`]), so each queue is sorted by stamp.
//!
//! A queue is first in, first out. A removal takes O(1) time at any position. The predecessor link
//! of the front slot is undefined. Queues are derived from the slots, so recovery can rebuild them.
//! Only writers read queues.
//!
//! The upper half of a link word is the link to the next slot. The lower half is the link to the
//! previous slot. A link is a slot number plus 1, and 0 means the end. A damaged link to a slot
//! that does not exist counts as the end. No operation of this module follows a chain of links, so
//! a damaged queue cannot cause an endless loop.

use super::counters::ControlWords;
use super::slot::{LINK, Slot};
use super::words::{join_halves, split_halves};
use crate::raw::prefetch::prefetch;
use crate::raw::word::{Word, WriteAccess};

/// A queue of a pool. The value of a variant is the index of the control word that contains the
/// front link and the back link of the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Queue {
    /// Slots that can be allocated.
    Free = 0,
    /// Slots that cool down.
    Cooling = 1,
    /// Slots that have cooled down, but on whose address the last check found sockets.
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
    /// The control word with the front link and the back link of the queue.
    ends: &'a Word,
    back_link: u32,
}

/// Returns the front slot of a queue, with the values that its removal needs.
#[inline(always)]
pub(crate) fn peek_front<'a>(
    control: &'a ControlWords,
    slots: &'a [Slot],
    queue: Queue,
) -> Option<Front<'a>> {
    let ends = &control[queue as usize];
    let (front_link, back_link) = read_links(ends);
    let words = linked_slot(slots, front_link)?;
    Some(Front { slot: front_link.wrapping_sub(1), words, ends, back_link })
}

impl Front<'_> {
    /// Removes the slot from its queue.
    #[inline(always)]
    pub(crate) fn remove(self, access: WriteAccess<'_>, slots: &[Slot]) {
        // The successor becomes the front slot. Its predecessor link stays as it is, because no
        // operation follows the predecessor link of a front slot. The next allocation uses the
        // successor, so prefetch the successor now.
        let (next_link, _) = read_links(&self.words[LINK]);
        if let Some(successor) = linked_slot(slots, next_link) {
            prefetch(successor);
        }
        let back_link = if next_link == 0 { 0 } else { self.back_link };
        write_links(access, self.ends, next_link, back_link);
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
    let (front_link, back_link) = read_links(ends);
    write_links(access, &words[LINK], 0, back_link);
    match linked_slot(slots, back_link) {
        Some(back_slot) => {
            let (_, previous_link) = read_links(&back_slot[LINK]);
            write_links(access, &back_slot[LINK], slot + 1, previous_link);
            write_links(access, ends, front_link, slot + 1);
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
    let (next_link, previous_link) = read_links(&words[LINK]);
    if let Some(predecessor) = linked_slot(slots, previous_link) {
        let (_, kept_link) = read_links(&predecessor[LINK]);
        write_links(access, &predecessor[LINK], next_link, kept_link);
    }
    match linked_slot(slots, next_link) {
        Some(successor) => {
            let (kept_link, _) = read_links(&successor[LINK]);
            write_links(access, &successor[LINK], kept_link, previous_link);
        }
        None => {
            let (front_link, _) = read_links(ends);
            write_links(access, ends, front_link, previous_link);
        }
    }
}

/// Rebuilds the queue from these slots, in this order.
pub(crate) fn rebuild(
    access: WriteAccess<'_>,
    control: &ControlWords,
    slots: &[Slot],
    queue: Queue,
    slots_in_order: impl Iterator<Item = u32>,
) {
    let mut slots_in_order = slots_in_order.peekable();
    let (mut front_link, mut previous_link) = (0, 0);
    while let Some(slot) = slots_in_order.next() {
        let next_link = slots_in_order.peek().map_or(0, |next_slot| next_slot + 1);
        if let Some(words) = slots.get(slot as usize) {
            write_links(access, &words[LINK], next_link, previous_link);
        }
        previous_link = slot + 1;
        if front_link == 0 {
            front_link = previous_link;
        }
    }
    write_links(access, &control[queue as usize], front_link, previous_link);
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
