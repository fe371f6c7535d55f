//! The index of a pool: which slot a session holds, and which free slots a user had last.
//!
//! A slot is in it at most once: under its session while it is held, under its last user while it
//! is not. So there are never more entries than slots, and room for nearly two a slot.
//!
//! Buckets of half a cache line: 7 entries of 32 bits and a count of the entries that found no room
//! here and went to one of the buckets behind. An entry is a tag of 8 bits, never 0, and the slot
//! number plus one. Entries never move: an insert or delete is one store, so a reader finds what is
//! stable whatever a writer is doing, or did when it was killed. The count is raised before and
//! lowered after, so it may be too high and is never too low. An entry that finds no room at all
//! is counted in the control words of the pool (`Counter::Unindexed`); while there are any,
//! whoever finds nothing here looks through the slots.

use super::plan::pair;
use crate::session::mix64;
use crate::sync::{AtomicU64, Ordering};

/// Words of a bucket.
pub(super) const BUCKET_WORDS: usize = 4;
/// Slots for which there is one bucket.
pub(super) const SLOTS_PER_BUCKET: u32 = 4;
/// A bucket: see above.
pub(super) type Bucket = [AtomicU64; BUCKET_WORDS];
/// How many buckets an entry may be in, its home counted.
const PROBES: usize = 16;
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

    /// The tag, where an entry has it.
    #[inline]
    fn tag(self) -> u32 {
        ((self.hash as u32) << SLOT_BITS).max(1 << SLOT_BITS)
    }

    #[inline]
    fn entry(self, slot: u32) -> u32 {
        self.tag() | (slot + 1) & SLOT_MASK
    }
}

/// The home of a key, as it was when it was looked at.
#[derive(Clone, Copy)]
pub(super) struct Home<'a> {
    buckets: &'a [Bucket],
    bucket: &'a Bucket,
    key: Key,
    tags: u64,
}

impl<'a> Home<'a> {
    /// Looks at the home of a key in an index, which has a bucket at least.
    #[inline(always)]
    pub(super) fn of(key: Key, buckets: &'a [Bucket]) -> Self {
        let bucket = &buckets[key.home(buckets)];
        Self { buckets, bucket, key, tags: tags(bucket) }
    }

    /// Goes through the slots that may be those of the key, until `visit` answers. It is shown
    /// slots of other keys now and then, and numbers that are no slot's.
    #[inline(always)]
    pub(super) fn find<T>(&self, mut visit: impl FnMut(u32) -> Option<T>) -> Option<T> {
        let found = find_in(self.bucket, self.tags, self.key, &mut visit);
        if found.is_some() || displaced(self.bucket) == 0 {
            return found;
        }
        self.behind().find_map(|bucket| find_in(bucket, tags(bucket), self.key, &mut visit))
    }

    /// Adds an entry; false if there is no room, which the caller counts. Since the home was looked
    /// at, entries may have been taken out, not put in.
    #[inline(always)]
    pub(super) fn insert(&self, slot: u32) -> bool {
        match place_of(zero_bytes(self.tags)) {
            Some(place) => {
                place.put(self.bucket, self.key.entry(slot));
                true
            }
            None => self.insert_behind(slot),
        }
    }

    #[cold]
    #[inline(never)]
    fn insert_behind(self, slot: u32) -> bool {
        let free = |bucket| Some((bucket, place_of(zero_bytes(tags(bucket)))?));
        let Some((bucket, place)) = self.behind().find_map(free) else { return false };
        COUNT.put(self.bucket, displaced(self.bucket).saturating_add(1).min(SLOT_MASK));
        place.put(bucket, self.key.entry(slot));
        true
    }

    /// Takes an entry out; false if it is not there.
    #[inline(always)]
    pub(super) fn remove(&self, slot: u32) -> bool {
        remove_from(self.bucket, self.tags, self.key, slot)
            || displaced(self.bucket) > 0 && self.remove_behind(slot)
    }

    #[cold]
    #[inline(never)]
    fn remove_behind(self, slot: u32) -> bool {
        let taken = self.behind().any(|bucket| remove_from(bucket, tags(bucket), self.key, slot));
        if taken {
            COUNT.put(self.bucket, displaced(self.bucket).saturating_sub(1));
        }
        taken
    }

    /// The buckets behind, which entries may be in that found no room at home.
    #[inline]
    fn behind(&self) -> impl Iterator<Item = &'a Bucket> + use<'a> {
        let (buckets, home) = (self.buckets, self.key.home(self.buckets));
        let numbers = home + 1..home + PROBES.min(buckets.len());
        numbers.filter_map(move |number| buckets.get(number % buckets.len()))
    }
}

#[inline(always)]
fn find_in<T>(
    bucket: &Bucket,
    tags: u64,
    key: Key,
    visit: &mut impl FnMut(u32) -> Option<T>,
) -> Option<T> {
    let mut matches = matching(tags, key);
    while let Some(place) = place_of(matches) {
        if let Some(found) = visit((place.get(bucket) & SLOT_MASK).wrapping_sub(1)) {
            return Some(found);
        }
        matches &= matches - 1;
    }
    None
}

#[inline(always)]
fn remove_from(bucket: &Bucket, tags: u64, key: Key, slot: u32) -> bool {
    let mut matches = matching(tags, key);
    while let Some(place) = place_of(matches) {
        if place.get(bucket) == key.entry(slot) {
            place.put(bucket, 0);
            return true;
        }
        matches &= matches - 1;
    }
    false
}

/// A place for an entry in a bucket: its word, and whether it is the upper or the lower half.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Place {
    word: usize,
    shift: u32,
}

/// The place of the count.
const COUNT: Place = Place { word: 0, shift: 0 };

impl Place {
    #[inline(always)]
    fn get(self, bucket: &Bucket) -> u32 {
        (bucket[self.word % BUCKET_WORDS].load(Ordering::Acquire) >> self.shift) as u32
    }

    #[inline(always)]
    fn put(self, bucket: &Bucket, entry: u32) {
        let word = &bucket[self.word % BUCKET_WORDS];
        let others = word.load(Ordering::Relaxed) & !(pair(0, u32::MAX) << self.shift);
        word.store(others | u64::from(entry) << self.shift, Ordering::Release);
    }

    /// All places for entries.
    fn all() -> impl Iterator<Item = Self> {
        let places = (0..BUCKET_WORDS).flat_map(|word| [0, 32].map(|shift| Self { word, shift }));
        places.filter(|place| *place != COUNT)
    }
}

/// The tags in a bucket, a byte each: word `i` has that of its upper entry in byte `7 - i`, that of
/// its lower one in byte `3 - i`. In the place of the count stands one that is not 0.
#[inline(always)]
fn tags(bucket: &Bucket) -> u64 {
    const TAGS: u64 = pair(!SLOT_MASK, !SLOT_MASK);
    const OF_COUNT: u64 = pair(0, !SLOT_MASK);
    let [a, b, c, d] = bucket.each_ref().map(|word| word.load(Ordering::Acquire) & TAGS);
    (a | OF_COUNT) | b >> 8 | c >> 16 | d >> 24
}

/// A bit for each place with this tag; now and then also for another, above such a one.
#[inline(always)]
fn matching(tags: u64, key: Key) -> u64 {
    let tag = u64::from(key.tag() >> SLOT_BITS);
    zero_bytes(tags ^ (tag * EACH_BYTE))
}

/// The first place of these.
#[inline(always)]
fn place_of(bits: u64) -> Option<Place> {
    let byte = bits.trailing_zeros() / 8;
    (bits != 0).then_some(Place { word: 3 - byte as usize % 4, shift: byte / 4 * 32 })
}

const EACH_BYTE: u64 = 0x0101_0101_0101_0101;

/// The upper bit of each byte that is 0. The first is right, others may also be of a byte that is 1.
#[inline(always)]
fn zero_bytes(word: u64) -> u64 {
    word.wrapping_sub(EACH_BYTE) & !word & EACH_BYTE << 7
}

/// How many entries of this home are in the buckets behind it.
#[inline]
fn displaced(home: &Bucket) -> u32 {
    COUNT.get(home)
}

/// Puts the index right after a writer died or its bytes were damaged, without taking out anything
/// that is right: readers go on finding what is stable. `key_of` gives the key that a slot should
/// be under. Answers how many slots found no room.
pub(super) fn repair(buckets: &[Bucket], slots: u32, key_of: impl Fn(u32) -> Option<Key>) -> u32 {
    let mut known = vec![false; slots as usize];
    let mut counts = vec![0u32; buckets.len()];
    for (number, bucket) in buckets.iter().enumerate() {
        for place in Place::all() {
            let entry = place.get(bucket);
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
                _ => place.put(bucket, 0),
            }
        }
    }
    for (bucket, count) in buckets.iter().zip(counts) {
        if displaced(bucket) != count {
            COUNT.put(bucket, count);
        }
    }
    let homeless = (0..slots).filter(|slot| {
        !known[*slot as usize]
            && key_of(*slot).is_some_and(|key| !Home::of(key, buckets).insert(*slot))
    });
    homeless.count() as u32
}
