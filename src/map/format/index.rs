//! The hash index of a pool. The index maps a session to its slot, and a user tag to the slots with
//! this tag that are not leased.
//!
//! The index contains a slot at most once: under its session while the slot is leased, else under
//! its user tag. So the index never has more entries than slots. It has room for almost two entries
//! per slot.
//!
//! A bucket is one cache line with 15 lanes, and a lane holds one entry. An entry consists of a
//! slot number of 24 bits and a *tag*: one byte of the hash of the key, which is never 0 (not to be
//! confused with the user tag, which is a key). The hash of a key selects its *home bucket*. If the
//! home bucket is full, the entry goes to one of the next buckets, the *overflow buckets* of the
//! key. The *overflow count* of a home bucket is the number of its entries in overflow buckets.
//!
//! | words | content |
//! |---|---|
//! | 0, 1 | the tags, one byte each, 0 for a vacant lane; the last byte is the overflow count |
//! | 2-5 | the lower 16 bits of the slot numbers |
//! | 6, 7 | the upper 8 bits of the slot numbers |
//!
//! Entries never move, and the store of the tag commits an insert or a removal. So a reader finds
//! every unchanged entry, both while a writer works and after a writer was killed. A writer can
//! replace an entry after a reader has loaded its tag and before the reader loads its slot number.
//! So the reader always checks the words of the slot too. A writer raises the overflow count before
//! an insert into an overflow bucket, and lowers it after a removal from an overflow bucket. So the
//! count can be too high, but never too low. If neither the home bucket nor an overflow bucket has
//! room for an entry, the writer increments `Counter::Unindexed`. While that counter is not 0, a
//! failed lookup scans the slots.

use crate::hash::folded_multiply;
use crate::raw::bytes;
use crate::raw::word::{Word, WriteAccess};

/// The number of words of a bucket.
pub(crate) const BUCKET_WORDS: usize = 8;
/// The number of slots of a pool for each bucket of its index.
pub(crate) const SLOTS_PER_BUCKET: u32 = 8;
/// The words of one bucket.
pub(crate) type Bucket = [Word; BUCKET_WORDS];
/// The number of buckets that can contain an entry: its home bucket and the overflow buckets. The
/// overflow count of one byte is large enough for the lanes of 7 overflow buckets.
const MAX_PROBES: usize = 8;
/// The number of lanes of a bucket.
const LANES: usize = 15;
/// First word with the lower bits of slot numbers.
const FIRST_LOWER_WORD: usize = 2;
/// First word with the upper bits of slot numbers.
const FIRST_UPPER_WORD: usize = 6;
/// Shift of the overflow count in word 1.
const OVERFLOW_SHIFT: usize = 56;

/// The hashed key of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    hash: u64,
}

impl Key {
    /// Returns the key of a session.
    #[inline(always)]
    pub(crate) fn session(session_id: u64) -> Self {
        Self { hash: folded_multiply(session_id) }
    }

    /// Returns the key of a user tag: the hash of a number with the top byte 0xff. No session id
    /// has this top byte.
    #[inline(always)]
    pub(crate) fn user(user_tag: u32) -> Self {
        Self::session(u64::from(user_tag) | 0xff << 56)
    }

    /// Returns the number of the home bucket.
    #[inline(always)]
    fn home_number(self, bucket_count: usize) -> usize {
        ((self.hash >> 32).wrapping_mul(bucket_count as u64) >> 32) as usize
    }

    /// Returns the tag of the entries of this key, which is never 0.
    #[inline(always)]
    fn tag(self) -> u8 {
        (self.hash as u8).max(1)
    }
}

/// The home bucket of a key or one of its overflow buckets, with a copy of the tags from the time
/// of the load.
#[derive(Clone, Copy)]
pub(crate) struct LoadedBucket<'a> {
    buckets: &'a [Bucket],
    bucket: &'a Bucket,
    key: Key,
    tags: Tags,
}

impl<'a> LoadedBucket<'a> {
    /// Loads the home bucket of a key. `buckets` must not be empty.
    #[inline(always)]
    pub(crate) fn load(key: Key, buckets: &'a [Bucket]) -> Self {
        let bucket = &buckets[key.home_number(buckets.len())];
        Self { buckets, bucket, key, tags: Tags::load(bucket) }
    }

    /// Calls `visit` with the slot of each entry that has the tag of the key, until `visit` returns
    /// `Some`. Such an entry can belong to another key, and its slot number can be out of range.
    #[inline(always)]
    pub(crate) fn find<T>(&self, mut visit: impl FnMut(u32) -> Option<T>) -> Option<T> {
        let mut lanes = self.tags.matching(self.key);
        let result = lanes.find_map(|lane| visit(slot_of(self.bucket, lane)));
        if result.is_some() || self.tags.overflow_count() == 0 {
            return result;
        }
        find_in_overflow(self.buckets, self.key, visit)
    }

    /// Returns true only if no bucket has an entry of the key.
    #[inline(always)]
    pub(crate) fn has_no_entry(&self) -> bool {
        self.tags.matching(self.key).0 == 0 && self.tags.overflow_count() == 0
    }

    /// Inserts an entry. Returns false if no bucket has room. The caller then counts the slot as
    /// unindexed.
    ///
    /// The caller must not insert another entry into the home bucket between the load of that
    /// bucket and this call. Removals are allowed.
    #[inline(always)]
    pub(crate) fn insert(&self, access: WriteAccess<'_>, slot: u32) -> bool {
        match self.vacant_entry() {
            Some(entry) => {
                entry.fill(access, slot);
                true
            }
            None => insert_in_overflow(access, self.buckets, self.key, slot),
        }
    }

    /// Removes an entry. Returns false if the entry does not exist.
    #[inline(always)]
    pub(crate) fn remove(&self, access: WriteAccess<'_>, slot: u32) -> bool {
        match self.occupied_entry(slot) {
            Some(entry) => {
                entry.clear(access);
                true
            }
            None => {
                self.tags.overflow_count() > 0
                    && remove_from_overflow(access, self.buckets, self.key, slot)
            }
        }
    }

    /// Returns the slot and the entry of the key if exactly one lane matches and the overflow count
    /// is 0.
    #[inline(always)]
    pub(crate) fn single_match(&self) -> Option<(u32, Entry<'a>)> {
        let LaneMask(mask) = self.tags.matching(self.key);
        if !mask.is_power_of_two() || self.tags.overflow_count() > 0 {
            return None;
        }
        let lane = LaneMask(mask).next()?;
        Some((slot_of(self.bucket, lane), self.entry(lane)))
    }

    /// Returns a vacant entry of this bucket.
    #[inline(always)]
    pub(crate) fn vacant_entry(&self) -> Option<Entry<'a>> {
        self.tags.vacant().next().map(|lane| self.entry(lane))
    }

    /// Returns the entry of the key for this slot if this bucket contains the entry.
    #[inline(always)]
    pub(crate) fn occupied_entry(&self, slot: u32) -> Option<Entry<'a>> {
        let mut lanes = self.tags.matching(self.key);
        lanes.find(|lane| slot_of(self.bucket, *lane) == slot).map(|lane| self.entry(lane))
    }

    #[inline(always)]
    fn entry(&self, lane: usize) -> Entry<'a> {
        Entry { bucket: self.bucket, lane, tag: self.key.tag() }
    }

    /// Loads the overflow buckets of the key. `bucket` and `tags` of a result are those of an
    /// overflow bucket.
    fn overflow_buckets(self) -> impl Iterator<Item = Self> {
        let bucket_count = self.buckets.len();
        let home_number = self.key.home_number(bucket_count);
        (home_number + 1..home_number + MAX_PROBES.min(bucket_count)).map(move |number| {
            let bucket = &self.buckets[number % bucket_count];
            Self { bucket, tags: Tags::load(bucket), ..self }
        })
    }
}

/// A lane of a bucket that contains an entry of one key, or into which this entry can be stored.
#[derive(Clone, Copy)]
pub(crate) struct Entry<'a> {
    bucket: &'a Bucket,
    lane: usize,
    tag: u8,
}

impl Entry<'_> {
    /// Writes the entry. The store of the tag commits it.
    #[inline(always)]
    pub(crate) fn fill(self, access: WriteAccess<'_>, slot: u32) {
        let (lower, upper) = slot_words(self.bucket, self.lane);
        store_bits(access, lower, self.lane % 4 * 16, 0xffff, slot);
        store_bits(access, upper, self.lane % 8 * 8, 0xff, slot >> 16);
        store_tag(access, self.bucket, self.lane, self.tag);
    }

    /// Removes the entry.
    #[inline(always)]
    pub(crate) fn clear(self, access: WriteAccess<'_>) {
        store_tag(access, self.bucket, self.lane, 0);
    }
}

/// Inserts an entry under a key whose home bucket is not loaded.
#[inline(never)]
pub(crate) fn insert(access: WriteAccess<'_>, buckets: &[Bucket], key: Key, slot: u32) -> bool {
    LoadedBucket::load(key, buckets).insert(access, slot)
}

/// Removes an entry under a key whose home bucket is not loaded.
#[inline(never)]
pub(crate) fn remove(access: WriteAccess<'_>, buckets: &[Bucket], key: Key, slot: u32) -> bool {
    LoadedBucket::load(key, buckets).remove(access, slot)
}

#[cold]
#[inline(never)]
fn find_in_overflow<T>(
    buckets: &[Bucket],
    key: Key,
    mut visit: impl FnMut(u32) -> Option<T>,
) -> Option<T> {
    let mut overflow = LoadedBucket::load(key, buckets).overflow_buckets();
    overflow.find_map(|probe| {
        probe.tags.matching(key).find_map(|lane| visit(slot_of(probe.bucket, lane)))
    })
}

#[cold]
#[inline(never)]
fn insert_in_overflow(access: WriteAccess<'_>, buckets: &[Bucket], key: Key, slot: u32) -> bool {
    let home = LoadedBucket::load(key, buckets);
    let Some(entry) = home.overflow_buckets().find_map(|probe| probe.vacant_entry()) else {
        return false;
    };
    store_overflow_count(access, home.bucket, home.tags.overflow_count().saturating_add(1));
    entry.fill(access, slot);
    true
}

#[cold]
#[inline(never)]
fn remove_from_overflow(access: WriteAccess<'_>, buckets: &[Bucket], key: Key, slot: u32) -> bool {
    let home = LoadedBucket::load(key, buckets);
    let Some(entry) = home.overflow_buckets().find_map(|probe| probe.occupied_entry(slot)) else {
        return false;
    };
    entry.clear(access);
    store_overflow_count(access, home.bucket, home.tags.overflow_count().saturating_sub(1));
    true
}

/// The first two words of a bucket: tags and overflow count.
#[derive(Clone, Copy)]
struct Tags([u64; 2]);

impl Tags {
    #[inline(always)]
    fn load(bucket: &Bucket) -> Self {
        Self([bucket[0].load(), bucket[1].load()])
    }

    /// Returns the lanes with the tag of this key.
    #[inline(always)]
    fn matching(self, key: Key) -> LaneMask {
        self.lanes_with_tag(key.tag())
    }

    /// Returns the lanes without an entry.
    #[inline(always)]
    fn vacant(self) -> LaneMask {
        self.lanes_with_tag(0)
    }

    #[inline(always)]
    fn lanes_with_tag(self, tag: u8) -> LaneMask {
        LaneMask(bytes::equality_mask(self.0, tag) & ((1 << LANES) - 1))
    }

    #[inline(always)]
    fn tag(self, lane: usize) -> u8 {
        (self.0[lane / 8] >> (lane % 8 * 8)) as u8
    }

    /// Returns the number of entries of this home bucket that are in overflow buckets.
    #[inline(always)]
    fn overflow_count(self) -> u32 {
        (self.0[1] >> OVERFLOW_SHIFT) as u32
    }
}

/// A set of lanes, one bit for each.
struct LaneMask(u32);

impl Iterator for LaneMask {
    type Item = usize;

    #[inline(always)]
    fn next(&mut self) -> Option<usize> {
        let lane = self.0.trailing_zeros();
        self.0 &= self.0.wrapping_sub(1);
        (lane < 32).then_some(lane as usize % 16)
    }
}

/// Reads the slot number in a lane.
#[inline(always)]
fn slot_of(bucket: &Bucket, lane: usize) -> u32 {
    let (lower, upper) = slot_words(bucket, lane);
    let lower = lower.load() >> (lane % 4 * 16) & 0xffff;
    let upper = upper.load() >> (lane % 8 * 8) & 0xff;
    (upper << 16 | lower) as u32
}

/// Returns the two words that contain the lower bits and the upper bits of a lane's slot number.
#[inline(always)]
fn slot_words(bucket: &Bucket, lane: usize) -> (&Word, &Word) {
    (&bucket[FIRST_LOWER_WORD + lane / 4 % 4], &bucket[FIRST_UPPER_WORD + lane / 8 % 2])
}

#[inline(always)]
fn store_tag(access: WriteAccess<'_>, bucket: &Bucket, lane: usize, tag: u8) {
    store_bits(access, &bucket[lane / 8 % 2], lane % 8 * 8, 0xff, tag.into());
}

fn store_overflow_count(access: WriteAccess<'_>, home: &Bucket, count: u32) {
    store_bits(access, &home[1], OVERFLOW_SHIFT, 0xff, count.min(0xff));
}

/// Replaces the bits `mask << shift` of a word. Only the writer changes the word, so the change
/// needs no atomic read-modify-write.
#[inline(always)]
fn store_bits(access: WriteAccess<'_>, word: &Word, shift: usize, mask: u64, bits: u32) {
    let other_bits = word.load_relaxed() & !(mask << shift);
    word.store(access, other_bits | (u64::from(bits) & mask) << shift);
}

/// Corrects the index after a writer died or bytes were damaged. Returns the number of slots for
/// which no bucket has room.
///
/// `key_of` returns the key under which the index must contain a slot. Correct entries stay in
/// place, so readers find them during the repair.
pub(crate) fn repair(
    access: WriteAccess<'_>,
    buckets: &[Bucket],
    slot_count: u32,
    key_of: impl Fn(u32) -> Option<Key>,
) -> u32 {
    let mut is_indexed = vec![false; slot_count as usize];
    let mut overflow_counts = vec![0u32; buckets.len()];
    for (number, bucket) in buckets.iter().enumerate() {
        let tags = Tags::load(bucket);
        for lane in (0..LANES).filter(|lane| tags.tag(*lane) != 0) {
            let slot = slot_of(bucket, lane);
            let home_number = is_indexed
                .get(slot as usize)
                .filter(|is_indexed| !**is_indexed)
                .and_then(|_| key_of(slot))
                .filter(|key| key.tag() == tags.tag(lane))
                .map(|key| key.home_number(buckets.len()));
            let distance_from = |home: usize| (number + buckets.len() - home) % buckets.len();
            match home_number.map(|home| (home, distance_from(home))) {
                Some((home, distance)) if distance < MAX_PROBES => {
                    is_indexed[slot as usize] = true;
                    overflow_counts[home] += u32::from(distance > 0);
                }
                _ => store_tag(access, bucket, lane, 0),
            }
        }
    }
    for (bucket, overflow_count) in buckets.iter().zip(overflow_counts) {
        if Tags::load(bucket).overflow_count() != overflow_count {
            store_overflow_count(access, bucket, overflow_count);
        }
    }
    let unindexed_slots = (0..slot_count).filter(|slot| {
        !is_indexed[*slot as usize]
            && key_of(*slot)
                .is_some_and(|key| !LoadedBucket::load(key, buckets).insert(access, *slot))
    });
    unindexed_slots.count() as u32
}
