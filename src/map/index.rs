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
//! is counted in the control words of the pool (`Counter::Unindexed`); while there are any,
//! whoever finds nothing here looks through the slots.

use super::plan::{pair, unpair};
use crate::session::mix64;
use crate::sync::{AtomicU64, Ordering};

/// Words of a bucket.
pub(super) const BUCKET_WORDS: usize = 8;
/// A bucket: see above.
pub(super) type Bucket = [AtomicU64; BUCKET_WORDS];
/// How many buckets an entry may be in, its home counted.
const PROBES: usize = 4;
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
    fn home(self, buckets: &[Bucket]) -> usize {
        ((self.hash >> 32).wrapping_mul(buckets.len() as u64) >> 32) as usize
    }

    #[inline]
    fn entry(self, slot: u32) -> u32 {
        self.tag() | (slot + 1) & SLOT_MASK
    }

    /// The tag, where an entry has it.
    #[inline]
    fn tag(self) -> u32 {
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
        entry & !SLOT_MASK == self.tag() && entry & SLOT_MASK != 0
    }
}

/// Goes through the slots that may be those of a key, until `visit` answers.
#[inline(always)]
pub(super) fn find<T>(
    buckets: &[Bucket],
    key: Key,
    mut visit: impl FnMut(u32) -> Option<T>,
) -> Option<T> {
    let home = key.home(buckets);
    let bucket = buckets.get(home)?;
    let found = find_in(bucket, key, &mut visit);
    if found.is_some() || displaced(bucket) == 0 {
        return found;
    }
    behind(buckets, home).find_map(|bucket| find_in(bucket, key, &mut visit))
}

#[inline(always)]
fn find_in<T>(bucket: &Bucket, key: Key, visit: &mut impl FnMut(u32) -> Option<T>) -> Option<T> {
    let words = bucket.each_ref().map(|word| word.load(Ordering::Acquire));
    // Most buckets have no entry of the tag: one look at all of them tells.
    let tags = pair(key.tag(), key.tag());
    let any = words.iter().fold(0, |any, word| any | zero_halves((word ^ tags) & TAGS));
    if any == 0 {
        return None;
    }
    for (number, word) in words.into_iter().enumerate() {
        let (upper, lower) = unpair(word);
        if key.matches(upper)
            && let Some(found) = visit((upper & SLOT_MASK) - 1)
        {
            return Some(found);
        }
        if number > 0
            && key.matches(lower)
            && let Some(found) = visit((lower & SLOT_MASK) - 1)
        {
            return Some(found);
        }
    }
    None
}

/// Adds an entry; false if there is no room, which the caller counts.
#[inline(always)]
pub(super) fn insert(buckets: &[Bucket], key: Key, slot: u32) -> bool {
    let home = key.home(buckets);
    let Some(bucket) = buckets.get(home) else { return false };
    put(bucket, key, 0, key.entry(slot)) || insert_behind(buckets, bucket, key, slot)
}

#[cold]
fn insert_behind(buckets: &[Bucket], home: &Bucket, key: Key, slot: u32) -> bool {
    let room = |bucket: &&Bucket| place_of(bucket, key, 0).is_some();
    let Some(bucket) = behind(buckets, key.home(buckets)).find(room) else { return false };
    set_entry(home, COUNT, displaced(home).saturating_add(1));
    put(bucket, key, 0, key.entry(slot))
}

/// Takes an entry out; false if it is not there.
#[inline(always)]
pub(super) fn remove(buckets: &[Bucket], key: Key, slot: u32) -> bool {
    let home = key.home(buckets);
    let Some(bucket) = buckets.get(home) else { return false };
    put(bucket, key, key.entry(slot), 0)
        || displaced(bucket) > 0 && remove_behind(buckets, bucket, key, slot)
}

#[cold]
fn remove_behind(buckets: &[Bucket], home: &Bucket, key: Key, slot: u32) -> bool {
    let taken =
        behind(buckets, key.home(buckets)).any(|bucket| put(bucket, key, key.entry(slot), 0));
    if taken {
        set_entry(home, COUNT, displaced(home).saturating_sub(1));
    }
    taken
}

/// Puts the index right after a writer died or its bytes were damaged, without taking out anything
/// that is right: readers go on finding what is stable. `key_of` gives the key that a slot should
/// be under. Answers how many slots found no room.
pub(super) fn repair(buckets: &[Bucket], slots: u32, key_of: impl Fn(u32) -> Option<Key>) -> u32 {
    let mut known = vec![false; slots as usize];
    let mut counts = vec![0u32; buckets.len()];
    for (number, bucket) in buckets.iter().enumerate() {
        for place in COUNT + 1..BUCKET_WORDS * 2 {
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
                .map(|key| key.home(buckets));
            match home.map(|home| (home, (number + buckets.len() - home) % buckets.len())) {
                Some((home, distance)) if distance < PROBES => {
                    known[slot as usize] = true;
                    counts[home] += u32::from(distance > 0);
                }
                _ => set_entry(bucket, place, 0),
            }
        }
    }
    for (bucket, count) in buckets.iter().zip(counts) {
        if displaced(bucket) != count {
            set_entry(bucket, COUNT, count);
        }
    }
    let homeless = (0..slots).filter(|slot| {
        !known[*slot as usize] && key_of(*slot).is_some_and(|key| !insert(buckets, key, *slot))
    });
    homeless.count() as u32
}

/// The place of the count; entries are at the places behind it.
const COUNT: usize = 0;

/// The buckets behind a home that its entries may be in.
#[inline]
fn behind(buckets: &[Bucket], home: usize) -> impl Iterator<Item = &Bucket> {
    let numbers = home + 1..home + PROBES.min(buckets.len());
    numbers.filter_map(|number| buckets.get(number % buckets.len()))
}

/// The first place in a bucket that holds this entry (0: that is empty). Looks first where the key
/// points to, so that few words are read.
#[inline(always)]
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

/// Puts one entry in the place of another.
#[inline(always)]
fn put(bucket: &Bucket, key: Key, old: u32, new: u32) -> bool {
    match place_of(bucket, key, old) {
        Some(place) => {
            set_entry(bucket, place, new);
            true
        }
        None => false,
    }
}

#[inline]
fn entry(bucket: &Bucket, place: usize) -> u32 {
    let (upper, lower) = unpair(bucket[place / 2].load(Ordering::Relaxed));
    if place.is_multiple_of(2) { lower } else { upper }
}

#[inline]
fn set_entry(bucket: &Bucket, place: usize, entry: u32) {
    let word = &bucket[place / 2];
    let (upper, lower) = unpair(word.load(Ordering::Relaxed));
    let new = if place.is_multiple_of(2) { pair(upper, entry) } else { pair(entry, lower) };
    word.store(new, Ordering::Release);
}

/// How many entries of this home are in the buckets behind it.
#[inline]
fn displaced(home: &Bucket) -> u32 {
    unpair(home[0].load(Ordering::Acquire)).1
}

/// The bits of the tags in a word of two entries.
const TAGS: u64 = pair(!SLOT_MASK, !SLOT_MASK);

/// Not 0 if one of the halves of a word is 0; now and then also if none is.
#[inline]
fn zero_halves(word: u64) -> u64 {
    word.wrapping_sub(pair(1, 1)) & !word & pair(1 << 31, 1 << 31)
}
