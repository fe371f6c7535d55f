//! Where everything is in a map file. All in 64-bit words, native byte order: a map never leaves
//! its machine, nor its boot.
//!
//! | words | what |
//! |---|---|
//! | 0-63 | header: fixed once the map is published |
//! | 64-127 | header: what writers publish, see the constants from [`SUPERSEDED`] on |
//! | then | directory: [`ENTRY_WORDS`] a pool, see [`PoolLayout`] |
//! | then | blocks: [`BLOCK_WORDS`] each: first slot, first address, last address |
//! | then | the compiled policy |
//! | then, for each pool | control words, index, slots |
//!
//! A layout is read once, checked against the length of the file, and kept by value: later damage
//! to the header cannot make a reader leave the file.

use std::net::IpAddr;

use super::counters::CONTROL_WORDS;
use super::index::{BUCKET_WORDS, SLOTS_PER_BUCKET};
use super::pool::PoolLayout;
use super::region::{load, store, store_bytes};
use super::slot::SLOT_WORDS;
use crate::map::replan::merge::Merged;
use crate::map::types::plan::Settings;
use crate::range::bits;
use crate::sync::AtomicU64;

/// The most pools of a map.
pub const MAX_POOLS: usize = 16;

/// "vipool" and the version of the layout.
const MAGIC: u64 = u64::from_le_bytes(*b"vipool\x00\x03");

/// "vipoolS" and the version of the layout of the private twin.
const PRIVATE_MAGIC: u64 = u64::from_le_bytes(*b"vipoolS\x02");

// Header, fixed.
const LENGTH: usize = 1;
const BOOT: usize = 2;
/// A number that only this file bears; its private twin bears it too.
const FILE_ID: usize = 3;
const SETTINGS: usize = 4;
const POLICY_AT: usize = 7;
const POLICY_BYTES: usize = 8;
const POOLS: usize = 9;
pub(crate) const FIXED_WORDS: usize = 64;

// Header, published by writers.
/// Not 0: a newer file has taken the place of this one.
pub(crate) const SUPERSEDED: usize = 64;
/// Not 0: a writer is between the first and the last store of an operation, or died there.
pub(crate) const BUSY: usize = 65;
/// The writer: pid in the lower half, 1 in the upper half if it holds the map for itself.
pub(crate) const HOLDER: usize = 66;
/// The last stamp given (see [`super::slot`]).
pub(crate) const LAST_STAMP: usize = 67;
/// Not 0: the restore is done ([`Settings::await_restore`]).
pub(crate) const READY: usize = 68;
/// Not 0: the server is draining, no new session gets an address.
pub(crate) const DRAINING: usize = 69;
/// How many sessions are open.
pub(crate) const OPEN_SESSIONS: usize = 70;
/// Where the search for dead leaders goes on: pool and slot.
pub(crate) const REAPED: usize = 71;
/// The highest generation of all slots that new maps of this boot did not take over: new slots begin
/// behind it, so that no handle of an older one is good for them.
pub(crate) const GONE_GENERATION: usize = 72;
pub(crate) const HEADER_WORDS: usize = 128;

pub(crate) const ENTRY_WORDS: usize = 16;
// Bits of word 8 of an entry, above the kind of the pool.
pub(crate) const IPV4: u32 = 8;
/// No longer in the plan: it is there for what sessions hold of it.
pub(crate) const DROPPED: u32 = 9;
/// For sessions that ask for no pool by name.
pub(crate) const DEFAULT: u32 = 10;
pub(crate) const BLOCK_WORDS: usize = 5;
/// Words of the name of a pool in the directory.
pub(crate) const NAME_WORDS: usize = 8;
/// The longest name of a pool, in bytes.
pub const MAX_POOL_NAME: usize = NAME_WORDS * 8 - 1;

/// Words of a record in the private file.
pub(crate) const RECORD_WORDS: usize = 16;

/// Where everything is in a map.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    pub(crate) boot: u64,
    pub(crate) file_id: u64,
    pub(crate) settings: Settings,
    pub(crate) policy_at: usize,
    pub(crate) policy_bytes: usize,
    /// A bit for each loopback pool of the plan.
    pub(crate) loopback_pools: u32,
    /// A bit for each virtual-IP pool that a session gets which asks for none by name.
    pub(crate) default_pools: u32,
    /// Whether there is nothing to check for a session that asks for nothing: it gets a lease of
    /// every pool, and no limit is set.
    pub(crate) open_to_all: bool,
    /// Whether it gets one lease then: there is one pool.
    pub(crate) plain: bool,
    /// Whether addresses cool down when they are given back.
    pub(crate) cools: bool,
    /// Whether neither cooling down nor a low-water mark is to be thought of.
    pub(crate) bare: bool,
    pools: [PoolLayout; MAX_POOLS],
    count: usize,
}

/// How many words the map takes for these pools and a policy of this size.
pub(crate) fn words_needed(pools: &[Merged], policy_bytes: usize) -> usize {
    let blocks: usize = pools.iter().map(|merged| merged.pool.blocks().len()).sum();
    let head = HEADER_WORDS
        + pools.len() * ENTRY_WORDS
        + blocks * BLOCK_WORDS
        + policy_bytes.div_ceil(8).next_multiple_of(8);
    let tables = pools.iter().map(|merged| pool_words(merged.pool.slots()));
    head.next_multiple_of(8) + tables.sum::<usize>()
}

/// How many words the private twin takes for pools of these numbers of slots.
pub(crate) fn private_words(slots: impl Iterator<Item = u32>) -> usize {
    HEADER_WORDS + slots.map(|slots| slots as usize * RECORD_WORDS).sum::<usize>()
}

/// Words of a pool's control, index and slots, whole cache lines each.
fn pool_words(slots: u32) -> usize {
    let index = buckets_for(slots) as usize * BUCKET_WORDS;
    CONTROL_WORDS + (index + slots as usize * SLOT_WORDS).next_multiple_of(8)
}

pub(crate) fn buckets_for(slots: u32) -> u32 {
    slots.div_ceil(SLOTS_PER_BUCKET).max(1)
}

/// Writes the head of the private twin of a map into zeroed words.
pub(crate) fn write_private(words: &[AtomicU64], boot: u64, file_id: u64) {
    store(words, LENGTH, words.len() as u64);
    store(words, BOOT, boot);
    store(words, FILE_ID, file_id);
    store(words, 0, PRIVATE_MAGIC);
}

/// Whether these are the words of the private twin of this map.
pub(crate) fn is_private_twin(words: &[AtomicU64], layout: &Layout) -> bool {
    load(words, 0) == PRIVATE_MAGIC
        && load(words, FILE_ID) == layout.file_id
        && words.len() >= layout.private_words()
}

/// Writes the fixed part of a map into zeroed words of the length that [`words_needed`] told.
pub(crate) fn write(
    words: &[AtomicU64],
    pools: &[Merged],
    policy: &[u8],
    settings: Settings,
    boot: u64,
    file_id: u64,
) {
    let entries_at = HEADER_WORDS;
    let mut block_at = entries_at + pools.len() * ENTRY_WORDS;
    let blocks: usize = pools.iter().map(|merged| merged.pool.blocks().len()).sum();
    let policy_at = block_at + blocks * BLOCK_WORDS;
    let mut table_at =
        (policy_at + policy.len().div_ceil(8).next_multiple_of(8)).next_multiple_of(8);
    for (number, Merged { pool, planned, is_default, .. }) in pools.iter().enumerate() {
        let entry = entries_at + number * ENTRY_WORDS;
        let mut name = [0; NAME_WORDS * 8];
        let bytes = pool.name().as_bytes();
        let kept = bytes.len().min(MAX_POOL_NAME);
        name[..kept].copy_from_slice(&bytes[..kept]);
        store_bytes(words, entry, &name);
        let ipv4 = pool.is_ipv4().unwrap_or(true);
        let traits = [(ipv4, IPV4), (planned.is_none(), DROPPED), (*is_default, DEFAULT)];
        let kind = pool.kind() as u64;
        let traits = traits.iter().fold(kind, |all, (is, bit)| all | u64::from(*is) << bit);
        store(words, entry + 8, traits);
        store(words, entry + 9, pool.slots().into());
        store(words, entry + 10, block_at as u64);
        store(words, entry + 11, pool.blocks().len() as u64);
        store(words, entry + 12, table_at as u64);
        for (first_slot, range) in pool.blocks() {
            store(words, block_at, u64::from(*first_slot));
            store_address(words, block_at + 1, range.first());
            store_address(words, block_at + 3, range.last());
            block_at += BLOCK_WORDS;
        }
        table_at += pool_words(pool.slots());
    }
    store_bytes(words, policy_at, policy);
    store(words, LENGTH, words.len() as u64);
    store(words, BOOT, boot);
    store(words, FILE_ID, file_id);
    for (offset, word) in settings.to_words().into_iter().enumerate() {
        store(words, SETTINGS + offset, word);
    }
    store(words, POLICY_AT, policy_at as u64);
    store(words, POLICY_BYTES, policy.len() as u64);
    store(words, POOLS, pools.len() as u64);
    // Last: without the magic number it is no map.
    store(words, 0, MAGIC);
}

/// What is fixed once a map is published, but for what tells its file from others.
pub(crate) fn fixed_words(words: &[AtomicU64], layout: &Layout) -> impl Iterator<Item = u64> {
    let end = layout.policy_at + layout.policy_bytes.div_ceil(8);
    let fixed = (0..FIXED_WORDS).filter(|at| *at != FILE_ID).chain(HEADER_WORDS..end);
    fixed.map(|at| load(words, at))
}

impl Layout {
    /// How many words the private twin takes.
    pub(crate) fn private_words(&self) -> usize {
        private_words(self.pools().iter().map(|pool| pool.slots))
    }

    /// Reads and checks the fixed part of a map. No words make it read outside them later.
    pub(crate) fn read(words: &[AtomicU64]) -> Result<Self, &'static str> {
        if words.len() < HEADER_WORDS {
            return Err("it is too short");
        }
        match load(words, 0) {
            MAGIC => {}
            other if other & 0x0000_ffff_ffff_ffff == MAGIC & 0x0000_ffff_ffff_ffff => {
                return Err("it is of a version this program does not know");
            }
            _ => return Err("it is not a vipool map"),
        }
        if load(words, LENGTH) != words.len() as u64 {
            return Err("its length is not the one it was made with");
        }
        let count = load(words, POOLS) as usize;
        if count > MAX_POOLS {
            return Err("it names too many pools");
        }
        let (policy_at, policy_bytes) =
            (load(words, POLICY_AT) as usize, load(words, POLICY_BYTES) as usize);
        if !fits(words, policy_at, policy_bytes.div_ceil(8)) {
            return Err("its policy lies outside the file");
        }
        let mut pools = [PoolLayout::default(); MAX_POOLS];
        let mut records_at = HEADER_WORDS;
        for (number, pool) in pools.iter_mut().take(count).enumerate() {
            *pool = PoolLayout::read(words, HEADER_WORDS + number * ENTRY_WORDS, records_at)?;
            records_at += pool.slots as usize * RECORD_WORDS;
        }
        for number in 0..count {
            let mut name = [0; NAME_WORDS * 8];
            let name = pools[number].name(words, &mut name);
            pools[number].namesakes = named(words, &pools[..count], name);
        }
        let pools_read = &pools[..count];
        let loopback_pools = bits_of(pools_read, |pool| pool.loopback && !pool.dropped);
        let default_pools = bits_of(pools_read, |pool| pool.default && !pool.loopback);
        let settings = Settings::from_words(std::array::from_fn(|i| load(words, SETTINGS + i)));
        let cools = settings.cool_down > 0 || settings.check_in_use;
        let open_to_all = (loopback_pools | default_pools).count_ones() as usize == count
            && !settings.await_restore
            && settings.max_sessions == 0
            && settings.sessions_per_user == 0;
        Ok(Self {
            loopback_pools,
            default_pools,
            open_to_all,
            plain: open_to_all && count == 1,
            cools,
            bare: !cools && settings.low_water == 0,
            boot: load(words, BOOT),
            file_id: load(words, FILE_ID),
            settings,
            policy_at,
            policy_bytes,
            pools,
            count,
        })
    }

    pub(crate) fn pools(&self) -> &[PoolLayout] {
        &self.pools[..self.count.min(MAX_POOLS)]
    }

    pub(crate) fn pool(&self, number: u16) -> Option<&PoolLayout> {
        self.pools().get(usize::from(number))
    }
}

/// The virtual-IP pools of the plan that have this name, a bit for each.
pub(crate) fn named(words: &[AtomicU64], pools: &[PoolLayout], name: &[u8]) -> u32 {
    let has_name = |pool: &PoolLayout| pool.name(words, &mut [0; NAME_WORDS * 8]) == name;
    bits_of(pools, |pool| !pool.loopback && !pool.dropped && has_name(pool))
}

/// A bit for each pool of which this is true.
fn bits_of(pools: &[PoolLayout], is_in: impl Fn(&PoolLayout) -> bool) -> u32 {
    (0..).zip(pools).fold(0, |set, (number, pool)| set | u32::from(is_in(pool)) << number)
}

pub(crate) fn fits(words: &[AtomicU64], at: usize, count: usize) -> bool {
    at.checked_add(count).is_some_and(|end| end <= words.len()) && at >= FIXED_WORDS
}

fn store_address(words: &[AtomicU64], at: usize, address: IpAddr) {
    let bits = bits(address);
    store(words, at, (bits >> 64) as u64);
    store(words, at + 1, bits as u64);
}
