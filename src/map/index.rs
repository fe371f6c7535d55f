//! The index of a pool: which slot a session holds, and which free slots a user had last.
//!
//! A slot is in it at most once: under its session while it is held, under its last user while it
//! is not. So there are never more entries than slots, and room for nearly two a slot.
//!
//! Buckets of one cache line: 15 entries of 32 bits and a count of the entries that found no room
//! here and went to one of the buckets behind. An entry is a tag of 8 bits and the slot number
//! plus one. Entries never move: an insert or delete is one store, so a reader finds what is
//! stable whatever a writer is doing, or did when it was killed. The count is raised before and
//! lowered after, so it may be too high and is never too low. An entry that finds no room at all
//! is counted in the pool's control words ([`super::table::UNINDEXED`]); while there are any,
//! whoever finds nothing here looks through the slots.

use super::layout::PoolLayout;
use super::plan::{pair, unpair};
use super::region::{load, store};
use crate::session::mix64;
use crate::sync::AtomicU64;

/// Words of a bucket.
pub(super) const BUCKET_WORDS: usize = 8;
/// How many buckets an entry may be in, its home counted.
const PROBES: u32 = 4;
const SLOT_BITS: u32 = 24;
const SLOT_MASK: u32 = (1 << SLOT_BITS) - 1;

/// Where an entry belongs, and its tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    hash: u64,
}

impl Key {
    #[inline]
    pub(super) fn session(raw: u64) -> Self {
        Self { hash: mix64(raw) }
    }

    /// The key of a user's tag. The top byte keeps it from that of a session.
    #[inline]
    pub(super) fn user(tag: u32) -> Self {
        Self { hash: mix64(u64::from(tag) | 0xff << 56) }
    }

    #[inline]
    fn home(self, pool: &PoolLayout) -> u32 {
        ((self.hash >> 32).wrapping_mul(u64::from(pool.buckets)) >> 32) as u32
    }

    #[inline]
    fn entry(self, slot: u32) -> u32 {
        ((self.hash as u32) << SLOT_BITS) | (slot + 1) & SLOT_MASK
    }

    /// Whether an entry bears this tag.
    #[inline]
    fn matches(self, entry: u32) -> bool {
        entry >> SLOT_BITS == self.hash as u32 & 0xff && entry & SLOT_MASK != 0
    }
}

/// Goes through the slots that may be those of a key, until `visit` answers.
#[inline]
pub(super) fn find<T>(
    words: &[AtomicU64],
    pool: &PoolLayout,
    key: Key,
    mut visit: impl FnMut(u32) -> Option<T>,
) -> Option<T> {
    let home = key.home(pool);
    for probe in 0..PROBES.min(pool.buckets) {
        let at = bucket_at(pool, home, probe);
        for word in 0..BUCKET_WORDS {
            let (upper, lower) = unpair(load(words, at + word));
            if key.matches(upper) {
                if let Some(found) = visit((upper & SLOT_MASK) - 1) {
                    return Some(found);
                }
            }
            if word > 0 && key.matches(lower) {
                if let Some(found) = visit((lower & SLOT_MASK) - 1) {
                    return Some(found);
                }
            }
        }
        if probe == 0 && displaced(words, at) == 0 {
            return None;
        }
    }
    None
}

/// Adds an entry; false if there is no room, which the caller counts.
#[inline]
pub(super) fn insert(words: &[AtomicU64], pool: &PoolLayout, key: Key, slot: u32) -> bool {
    let home = key.home(pool);
    for probe in 0..PROBES.min(pool.buckets) {
        let at = bucket_at(pool, home, probe);
        if let Some(place) = place_of(words, at, 0) {
            if probe > 0 {
                let home_at = bucket_at(pool, home, 0);
                set_displaced(words, home_at, displaced(words, home_at).saturating_add(1));
            }
            set_entry(words, at, place, key.entry(slot));
            return true;
        }
    }
    false
}

/// Takes an entry out; false if it is not there.
#[inline]
pub(super) fn remove(words: &[AtomicU64], pool: &PoolLayout, key: Key, slot: u32) -> bool {
    let home = key.home(pool);
    let home_at = bucket_at(pool, home, 0);
    for probe in 0..PROBES.min(pool.buckets) {
        let at = bucket_at(pool, home, probe);
        if let Some(place) = place_of(words, at, key.entry(slot)) {
            set_entry(words, at, place, 0);
            if probe > 0 {
                set_displaced(words, home_at, displaced(words, home_at).saturating_sub(1));
            }
            return true;
        }
        if probe == 0 && displaced(words, home_at) == 0 {
            return false;
        }
    }
    false
}

/// Puts the index right after a writer died or its bytes were damaged, without taking out anything
/// that is right: readers go on finding what is stable. `key_of` gives the key that a slot should
/// be under. Answers how many slots found no room.
pub(super) fn repair(
    words: &[AtomicU64],
    pool: &PoolLayout,
    key_of: impl Fn(u32) -> Option<Key>,
) -> u32 {
    let mut known = vec![false; pool.slots as usize];
    let mut counts = vec![0u32; pool.buckets as usize];
    for number in 0..pool.buckets {
        let at = bucket_at(pool, number, 0);
        for place in PLACES {
            let entry = entry(words, at, place);
            if entry == 0 {
                continue;
            }
            let slot = (entry & SLOT_MASK).wrapping_sub(1);
            let home = known
                .get(slot as usize)
                .filter(|known| !**known)
                .and_then(|_| key_of(slot))
                .filter(|key| key.entry(slot) == entry)
                .map(|key| key.home(pool));
            match home.map(|home| (home, (number + pool.buckets - home) % pool.buckets)) {
                Some((home, distance)) if distance < PROBES => {
                    known[slot as usize] = true;
                    counts[home as usize] += u32::from(distance > 0);
                }
                _ => set_entry(words, at, place, 0),
            }
        }
    }
    for (number, count) in counts.into_iter().enumerate() {
        let at = bucket_at(pool, number as u32, 0);
        if displaced(words, at) != count {
            set_displaced(words, at, count);
        }
    }
    let homeless = (0..pool.slots).filter(|slot| {
        !known[*slot as usize] && key_of(*slot).is_some_and(|key| !insert(words, pool, key, *slot))
    });
    homeless.count() as u32
}

/// The halves of a bucket's words that hold entries: half 0 is the count.
const PLACES: std::ops::Range<usize> = 1..BUCKET_WORDS * 2;

/// Word number of the bucket that is `probe` behind `home`.
#[inline]
fn bucket_at(pool: &PoolLayout, home: u32, probe: u32) -> usize {
    let mut number = home + probe;
    if number >= pool.buckets {
        number -= pool.buckets;
    }
    pool.index_at + number as usize * BUCKET_WORDS
}

/// The first place in a bucket that holds this entry (0: that is empty).
#[inline]
fn place_of(words: &[AtomicU64], at: usize, wanted: u32) -> Option<usize> {
    for word in 0..BUCKET_WORDS {
        let (upper, lower) = unpair(load(words, at + word));
        if word > 0 && lower == wanted {
            return Some(word * 2);
        }
        if upper == wanted {
            return Some(word * 2 + 1);
        }
    }
    None
}

#[inline]
fn entry(words: &[AtomicU64], at: usize, place: usize) -> u32 {
    let (upper, lower) = unpair(load(words, at + place / 2));
    if place % 2 == 0 { lower } else { upper }
}

#[inline]
fn set_entry(words: &[AtomicU64], at: usize, place: usize, entry: u32) {
    let (upper, lower) = unpair(load(words, at + place / 2));
    let word = if place % 2 == 0 { pair(upper, entry) } else { pair(entry, lower) };
    store(words, at + place / 2, word);
}

/// How many entries of this home are in the buckets behind it.
#[inline]
fn displaced(words: &[AtomicU64], home_at: usize) -> u32 {
    entry(words, home_at, 0)
}

#[inline]
fn set_displaced(words: &[AtomicU64], home_at: usize, count: u32) {
    set_entry(words, home_at, 0, count);
}
