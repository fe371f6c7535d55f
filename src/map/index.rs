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
use crate::session::mix64;
use crate::sync::{AtomicU64, Ordering};

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
        self.entry_tag() | (slot + 1) & SLOT_MASK
    }

    /// The tag, where an entry has it.
    #[inline]
    fn entry_tag(self) -> u32 {
        (self.hash as u32) << SLOT_BITS
    }

    /// The word of a bucket to begin with.
    #[inline]
    fn start(self) -> usize {
        (self.hash >> 8) as usize % BUCKET_WORDS
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
    let bucket = bucket(words, pool, home, 0)?;
    let found = find_in(bucket, key, &mut visit);
    if found.is_some() || displaced(bucket) == 0 {
        return found;
    }
    (1..PROBES.min(pool.buckets))
        .find_map(|probe| find_in(self::bucket(words, pool, home, probe)?, key, &mut visit))
}

#[inline]
fn find_in<T>(bucket: &Bucket, key: Key, visit: &mut impl FnMut(u32) -> Option<T>) -> Option<T> {
    let halves = bucket.each_ref().map(|word| word.load(Ordering::Acquire));
    let wanted = pair(key.entry_tag(), key.entry_tag());
    // Most buckets have no entry of the tag: one look at all of them tells.
    let any = halves.iter().fold(0, |any, word| any | zero_halves((word ^ wanted) & TAGS));
    if any == 0 {
        return None;
    }
    for (number, word) in halves.into_iter().enumerate() {
        let (upper, lower) = unpair(word);
        if key.matches(upper) {
            if let Some(found) = visit((upper & SLOT_MASK) - 1) {
                return Some(found);
            }
        }
        if number > 0 && key.matches(lower) {
            if let Some(found) = visit((lower & SLOT_MASK) - 1) {
                return Some(found);
            }
        }
    }
    None
}

/// Adds an entry; false if there is no room, which the caller counts.
#[inline]
pub(super) fn insert(words: &[AtomicU64], pool: &PoolLayout, key: Key, slot: u32) -> bool {
    let home = key.home(pool);
    for probe in 0..PROBES.min(pool.buckets) {
        let Some(bucket) = bucket(words, pool, home, probe) else { return false };
        if let Some(place) = place_of(bucket, key, 0) {
            if probe > 0 {
                change_displaced(words, pool, home, 1);
            }
            set_entry(bucket, place, key.entry(slot));
            return true;
        }
    }
    false
}

/// Takes an entry out; false if it is not there.
#[inline]
pub(super) fn remove(words: &[AtomicU64], pool: &PoolLayout, key: Key, slot: u32) -> bool {
    let home = key.home(pool);
    for probe in 0..PROBES.min(pool.buckets) {
        let Some(bucket) = bucket(words, pool, home, probe) else { return false };
        if let Some(place) = place_of(bucket, key, key.entry(slot)) {
            set_entry(bucket, place, 0);
            if probe > 0 {
                change_displaced(words, pool, home, -1);
            }
            return true;
        }
        if probe == 0 && displaced(bucket) == 0 {
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
        let Some(bucket) = bucket(words, pool, number, 0) else { continue };
        for place in PLACES {
            let entry = entry(bucket, place);
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
                _ => set_entry(bucket, place, 0),
            }
        }
    }
    for (number, count) in (0..pool.buckets).zip(counts) {
        if let Some(bucket) = bucket(words, pool, number, 0) {
            if displaced(bucket) != count {
                set_entry(bucket, 0, count);
            }
        }
    }
    let homeless = (0..pool.slots).filter(|slot| {
        !known[*slot as usize] && key_of(*slot).is_some_and(|key| !insert(words, pool, key, *slot))
    });
    homeless.count() as u32
}

/// The halves of a bucket's words that hold entries: half 0 is the count.
const PLACES: std::ops::Range<usize> = 1..BUCKET_WORDS * 2;

type Bucket = [AtomicU64; BUCKET_WORDS];

/// The bucket that is `probe` behind `home`.
#[inline]
fn bucket<'a>(
    words: &'a [AtomicU64],
    pool: &PoolLayout,
    home: u32,
    probe: u32,
) -> Option<&'a Bucket> {
    let mut number = home + probe;
    if number >= pool.buckets {
        number -= pool.buckets;
    }
    words.get(pool.index_at + number as usize * BUCKET_WORDS..)?.first_chunk()
}

/// A place in a bucket that holds this entry (0: that is empty). Looks first where the key points
/// to, so that few words are read.
#[inline]
fn place_of(bucket: &Bucket, key: Key, wanted: u32) -> Option<usize> {
    let start = key.start();
    for step in 0..BUCKET_WORDS {
        let number = (start + step) % BUCKET_WORDS;
        let (upper, lower) = unpair(bucket[number].load(Ordering::Relaxed));
        if upper == wanted {
            return Some(number * 2 + 1);
        }
        if lower == wanted && number > 0 {
            return Some(number * 2);
        }
    }
    None
}

#[inline]
fn entry(bucket: &Bucket, place: usize) -> u32 {
    let (upper, lower) = unpair(bucket[place / 2].load(Ordering::Relaxed));
    if place % 2 == 0 { lower } else { upper }
}

#[inline]
fn set_entry(bucket: &Bucket, place: usize, entry: u32) {
    let word = &bucket[place / 2];
    let (upper, lower) = unpair(word.load(Ordering::Relaxed));
    let new = if place % 2 == 0 { pair(upper, entry) } else { pair(entry, lower) };
    word.store(new, Ordering::Release);
}

/// How many entries of this home are in the buckets behind it.
#[inline]
fn displaced(home: &Bucket) -> u32 {
    entry(home, 0)
}

#[cold]
fn change_displaced(words: &[AtomicU64], pool: &PoolLayout, home: u32, by: i32) {
    if let Some(home) = bucket(words, pool, home, 0) {
        set_entry(home, 0, displaced(home).saturating_add_signed(by));
    }
}

/// The bits of the tags in a word of two entries.
const TAGS: u64 = pair(!SLOT_MASK, !SLOT_MASK);

/// Not 0 if one of the halves of a word is 0; now and then also if none is.
#[inline]
fn zero_halves(word: u64) -> u64 {
    word.wrapping_sub(pair(1, 1)) & !word & pair(1 << 31, 1 << 31)
}
