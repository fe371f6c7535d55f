//! The index of a pool: which slot a session holds, and which free slots a user had last.
//!
//! A slot is in it at most once: under its session while it is held, under its last user while it
//! is not. So there are never more entries than slots, and room for nearly two a slot.
//!
//! A bucket is a cache line with places for 15 entries. An entry is a tag, which is never 0, and
//! the number of a slot in 24 bits:
//!
//! | words | what |
//! |---|---|
//! | 0, 1 | the tags, a byte each, 0 for a free place; in the last byte, how many entries found no room here and went to one of the buckets behind |
//! | 2-5 | the lower 16 bits of the slots |
//! | 6, 7 | their upper 8 bits |
//!
//! Entries never move, and one store, that of the tag, commits an insert as it does a delete. So a
//! reader finds what is stable whatever a writer is doing, or did when it was killed. The slot that
//! it finds beside a tag may be another's by then: whoever looks, looks at the slot too. The count
//! is raised before and lowered after, so it may be too high and is never too low. An entry that
//! finds no room at all is counted in the control words of the pool (`Counter::Unindexed`); while
//! there are any, whoever finds nothing here looks through the slots.

use crate::raw::bytes;
use crate::session::spread;
use crate::sync::{AtomicU64, Ordering};

/// Words of a bucket.
pub(crate) const BUCKET_WORDS: usize = 8;
/// Slots for which there is one bucket.
pub(crate) const SLOTS_PER_BUCKET: u32 = 8;
/// A bucket: see above.
pub(crate) type Bucket = [AtomicU64; BUCKET_WORDS];
/// How many buckets an entry may be in, its home counted: what they hold can be counted in a byte.
const PROBES: usize = 8;
/// Places of a bucket.
const PLACES: usize = 15;
/// The first words of the lower and of the upper bits of the slots.
const LOWER: usize = 2;
const UPPER: usize = 6;
/// How far up in word 1 the count is.
const COUNT_SHIFT: usize = 56;

/// Where an entry belongs, and its tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    hash: u64,
}

impl Key {
    #[inline(always)]
    pub(crate) fn session(raw: u64) -> Self {
        Self { hash: spread(raw) }
    }

    /// The key of a user's tag. The top byte keeps it from that of a session.
    #[inline(always)]
    pub(crate) fn user(tag: u32) -> Self {
        Self::session(u64::from(tag) | 0xff << 56)
    }

    #[inline(always)]
    fn home(self, buckets: usize) -> usize {
        ((self.hash >> 32).wrapping_mul(buckets as u64) >> 32) as usize
    }

    #[inline(always)]
    fn tag(self) -> u8 {
        (self.hash as u8).max(1)
    }
}

/// The home of a key, as it was when it was looked at.
#[derive(Clone, Copy)]
pub(crate) struct Home<'a> {
    buckets: &'a [Bucket],
    bucket: &'a Bucket,
    key: Key,
    head: Head,
}

impl<'a> Home<'a> {
    /// Looks at the home of a key in an index, which has a bucket at least.
    #[inline(always)]
    pub(crate) fn of(key: Key, buckets: &'a [Bucket]) -> Self {
        let bucket = &buckets[key.home(buckets.len())];
        Self { buckets, bucket, key, head: Head::of(bucket) }
    }

    /// Goes through the slots that may be those of the key, until `visit` answers. It is shown
    /// slots of other keys now and then, and numbers that are no slot's.
    #[inline(always)]
    pub(crate) fn find<T>(&self, mut visit: impl FnMut(u32) -> Option<T>) -> Option<T> {
        let found = self.head.with(self.key).find_map(|place| visit(slot(self.bucket, place)));
        if found.is_some() || self.head.displaced() == 0 {
            return found;
        }
        find_behind(self.buckets, self.key, visit)
    }

    /// Whether there is no entry of the key, here or behind.
    #[inline(always)]
    pub(crate) fn is_of_nobody(&self) -> bool {
        self.head.with(self.key).0 == 0 && self.head.displaced() == 0
    }

    /// Adds an entry; false if there is no room, which the caller counts. Since the home was looked
    /// at, entries may have been taken out, not put in.
    #[inline(always)]
    pub(crate) fn insert(&self, slot: u32) -> bool {
        match self.free_entry() {
            Some(entry) => {
                entry.put(slot);
                true
            }
            None => insert_behind(self.buckets, self.key, slot),
        }
    }

    /// Takes an entry out; false if it is not there.
    #[inline(always)]
    pub(crate) fn remove(&self, slot: u32) -> bool {
        match self.entry_of(slot) {
            Some(entry) => {
                entry.clear();
                true
            }
            None => self.head.displaced() > 0 && remove_behind(self.buckets, self.key, slot),
        }
    }

    /// The entry of the key and its slot, where there can be only one.
    #[inline(always)]
    pub(crate) fn only(&self) -> Option<(u32, Entry<'a>)> {
        let Places(places) = self.head.with(self.key);
        if !places.is_power_of_two() || self.head.displaced() > 0 {
            return None;
        }
        let place = Places(places).next()?;
        let entry = Entry { bucket: self.bucket, place, tag: self.key.tag() };
        Some((slot(self.bucket, place), entry))
    }

    /// A place for an entry of the key, if there is one at home.
    #[inline(always)]
    pub(crate) fn free_entry(&self) -> Option<Entry<'a>> {
        let place = self.head.free().next()?;
        Some(Entry { bucket: self.bucket, place, tag: self.key.tag() })
    }

    /// The entry of the key for this slot, if it is at home.
    #[inline(always)]
    pub(crate) fn entry_of(&self, slot: u32) -> Option<Entry<'a>> {
        let place =
            self.head.with(self.key).find(|place| self::slot(self.bucket, *place) == slot)?;
        Some(Entry { bucket: self.bucket, place, tag: self.key.tag() })
    }

    /// The buckets behind, looked at for the same key.
    fn behind(self) -> impl Iterator<Item = Self> {
        let (all, home) = (self.buckets.len(), self.key.home(self.buckets.len()));
        (home + 1..home + PROBES.min(all)).map(move |number| {
            let bucket = &self.buckets[number % all];
            Self { bucket, head: Head::of(bucket), ..self }
        })
    }
}

/// A place in a bucket, for an entry of one key.
#[derive(Clone, Copy)]
pub(crate) struct Entry<'a> {
    bucket: &'a Bucket,
    place: usize,
    tag: u8,
}

impl Entry<'_> {
    /// Puts the entry there.
    #[inline(always)]
    pub(crate) fn put(self, slot: u32) {
        let (lower, upper) = words_of(self.bucket, self.place);
        set(lower, self.place % 4 * 16, 0xffff, slot);
        set(upper, self.place % 8 * 8, 0xff, slot >> 16);
        set_tag(self.bucket, self.place, self.tag);
    }

    /// Takes it out.
    #[inline(always)]
    pub(crate) fn clear(self) {
        set_tag(self.bucket, self.place, 0);
    }
}

/// Adds an entry under a key whose home was not looked at.
#[inline(never)]
pub(crate) fn insert(buckets: &[Bucket], key: Key, slot: u32) -> bool {
    Home::of(key, buckets).insert(slot)
}

/// Takes an entry out from under a key whose home was not looked at.
#[inline(never)]
pub(crate) fn remove(buckets: &[Bucket], key: Key, slot: u32) -> bool {
    Home::of(key, buckets).remove(slot)
}

#[cold]
#[inline(never)]
fn find_behind<T>(
    buckets: &[Bucket],
    key: Key,
    mut visit: impl FnMut(u32) -> Option<T>,
) -> Option<T> {
    let mut behind = Home::of(key, buckets).behind();
    behind.find_map(|at| at.head.with(key).find_map(|place| visit(slot(at.bucket, place))))
}

#[cold]
#[inline(never)]
fn insert_behind(buckets: &[Bucket], key: Key, slot: u32) -> bool {
    let home = Home::of(key, buckets);
    let Some(entry) = home.behind().find_map(|at| at.free_entry()) else { return false };
    count(home.bucket, home.head.displaced().saturating_add(1));
    entry.put(slot);
    true
}

#[cold]
#[inline(never)]
fn remove_behind(buckets: &[Bucket], key: Key, slot: u32) -> bool {
    let home = Home::of(key, buckets);
    let Some(entry) = home.behind().find_map(|at| at.entry_of(slot)) else { return false };
    entry.clear();
    count(home.bucket, home.head.displaced().saturating_sub(1));
    true
}

/// The first words of a bucket: tags and count.
#[derive(Clone, Copy)]
struct Head([u64; 2]);

impl Head {
    #[inline(always)]
    fn of(bucket: &Bucket) -> Self {
        Self([bucket[0].load(Ordering::Acquire), bucket[1].load(Ordering::Acquire)])
    }

    /// The places with the tag of this key.
    #[inline(always)]
    fn with(self, key: Key) -> Places {
        self.places(key.tag())
    }

    /// The places without an entry.
    #[inline(always)]
    fn free(self) -> Places {
        self.places(0)
    }

    #[inline(always)]
    fn places(self, tag: u8) -> Places {
        Places(bytes::equal(self.0, tag) & ((1 << PLACES) - 1))
    }

    #[inline(always)]
    fn tag(self, place: usize) -> u8 {
        (self.0[place / 8] >> (place % 8 * 8)) as u8
    }

    /// How many entries of this home are in the buckets behind it.
    #[inline(always)]
    fn displaced(self) -> u32 {
        (self.0[1] >> COUNT_SHIFT) as u32
    }
}

/// Some places of a bucket, a bit for each.
struct Places(u32);

impl Iterator for Places {
    type Item = usize;

    #[inline(always)]
    fn next(&mut self) -> Option<usize> {
        let place = self.0.trailing_zeros();
        self.0 &= self.0.wrapping_sub(1);
        (place < 32).then_some(place as usize % 16)
    }
}

#[inline(always)]
fn slot(bucket: &Bucket, place: usize) -> u32 {
    let (lower, upper) = words_of(bucket, place);
    let lower = lower.load(Ordering::Acquire) >> (place % 4 * 16) & 0xffff;
    let upper = upper.load(Ordering::Acquire) >> (place % 8 * 8) & 0xff;
    (upper << 16 | lower) as u32
}

/// The words of the lower and of the upper bits of a slot.
#[inline(always)]
fn words_of(bucket: &Bucket, place: usize) -> (&AtomicU64, &AtomicU64) {
    (&bucket[LOWER + place / 4 % 4], &bucket[UPPER + place / 8 % 2])
}

/// The commit of an insert or a delete.
#[inline(always)]
fn set_tag(bucket: &Bucket, place: usize, tag: u8) {
    set(&bucket[place / 8 % 2], place % 8 * 8, 0xff, tag.into());
}

fn count(home: &Bucket, displaced: u32) {
    set(&home[1], COUNT_SHIFT, 0xff, displaced.min(0xff));
}

/// Writes some bits of a word, which only its writer changes.
#[inline(always)]
fn set(word: &AtomicU64, shift: usize, mask: u64, bits: u32) {
    let others = word.load(Ordering::Relaxed) & !(mask << shift);
    word.store(others | (u64::from(bits) & mask) << shift, Ordering::Release);
}

/// Puts the index right after a writer died or its bytes were damaged, without taking out anything
/// that is right: readers go on finding what is stable. `key_of` gives the key that a slot should
/// be under. Answers how many slots found no room.
pub(crate) fn repair(buckets: &[Bucket], slots: u32, key_of: impl Fn(u32) -> Option<Key>) -> u32 {
    let mut known = vec![false; slots as usize];
    let mut counts = vec![0u32; buckets.len()];
    for (number, bucket) in buckets.iter().enumerate() {
        let head = Head::of(bucket);
        for place in (0..PLACES).filter(|place| head.tag(*place) != 0) {
            let slot = slot(bucket, place);
            let home = known
                .get(slot as usize)
                .filter(|known| !**known)
                .and_then(|_| key_of(slot))
                .filter(|key| key.tag() == head.tag(place))
                .map(|key| key.home(buckets.len()));
            match home.map(|home| (home, (number + buckets.len() - home) % buckets.len())) {
                Some((home, distance)) if distance < PROBES => {
                    known[slot as usize] = true;
                    counts[home] += u32::from(distance > 0);
                }
                _ => set_tag(bucket, place, 0),
            }
        }
    }
    for (bucket, displaced) in buckets.iter().zip(counts) {
        if Head::of(bucket).displaced() != displaced {
            count(bucket, displaced);
        }
    }
    let homeless = (0..slots).filter(|slot| {
        !known[*slot as usize]
            && key_of(*slot).is_some_and(|key| !Home::of(key, buckets).insert(*slot))
    });
    homeless.count() as u32
}
