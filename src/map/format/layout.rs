//! The layout of a map file: 64-bit words in native byte order. A map is valid only on its machine
//! and during its boot.
//!
//! | words | content |
//! |---|---|
//! | 0-63 | header, fixed once the map is published |
//! | 64-127 | header, changed by writers |
//! | then | directory: one entry per pool, see [`super::pool`] |
//! | then | address blocks of the pools |
//! | then | the compiled policy |
//! | then, per pool | the table of the pool: control words, index, slots |
//!
//! The sessions file has a header of the same length, one record per slot (see [`super::record`]),
//! and the encoded rules for pools.
//!
//! A process reads the layout once, checks it against the length of the file, and keeps a copy. So
//! later damage to the header cannot make the process access memory outside the file.

use super::header::{
    BOOT, FILE_ID, FIXED_WORDS, HEADER_WORDS, LENGTH, MAGIC, MAP_MAGIC, POLICY_BYTES,
    POLICY_OFFSET, POOL_COUNT, SETTINGS, fits, is_sessions_file, pool_rules_bytes,
    write_sessions_header,
};
use super::pool::{
    BLOCK_WORDS, ENTRY_WORDS, PlannedPool, PoolLayout, PoolSet, table_word_count, write_entry,
};
use super::record::RECORD_WORDS;
use super::settings;
use super::words::{load, load_bytes, store, store_bytes};
use crate::hash::HashKey;
use crate::map::types::plan::{MAX_POOLS, Settings};
use crate::raw::word::{Word, WriteAccess};

/// The bits of the magic number that do not contain the version.
const MAGIC_MASK_WITHOUT_VERSION: u64 = 0x0000_ffff_ffff_ffff;

/// The layout of a map.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    pub(crate) boot: u64,
    pub(crate) file_id: u64,
    pub(crate) settings: Settings,
    policy_offset: usize,
    policy_byte_count: usize,
    /// The loopback pools of the plan, one bit for each pool.
    pub(crate) loopback_pools: PoolSet,
    /// The virtual-IP pools for sessions that request no pool by name, one bit for each pool.
    pub(crate) default_pools: PoolSet,
    /// True if three conditions hold: the settings have no limit of sessions; the map does not
    /// await a restore; a session that requests no pool and no address gets a lease from every
    /// pool.
    pub(crate) is_unrestricted: bool,
    /// Whether a released address is first cooling instead of free, because the settings have a
    /// cool-down or a check for sockets.
    pub(crate) cools_down: bool,
    /// Whether the map can use the fast path for opening and closing sessions: it has one pool and
    /// no low-water mark, `is_unrestricted` is true, and `cools_down` is false.
    pub(crate) has_fast_path: bool,
    pools: [PoolLayout; MAX_POOLS],
    pool_count: usize,
}

/// Returns the number of words of a map with these pools and a policy of this size.
pub(crate) fn map_word_count(pools: &[PlannedPool], policy_byte_count: usize) -> usize {
    let table_words: usize =
        pools.iter().map(|planned| table_word_count(planned.pool.slot_count())).sum();
    tables_offset(pools, policy_byte_count) + table_words
}

/// Returns the number of words of a sessions file for pools with these numbers of slots and for
/// `pool_rules_bytes` bytes of encoded pool rules.
pub(crate) fn sessions_word_count(
    slot_counts: impl Iterator<Item = u32>,
    pool_rules_bytes: usize,
) -> usize {
    pool_rules_offset(slot_counts) + pool_rules_bytes.div_ceil(8)
}

fn pool_rules_offset(slot_counts: impl Iterator<Item = u32>) -> usize {
    HEADER_WORDS + slot_counts.map(|count| count as usize * RECORD_WORDS).sum::<usize>()
}

/// Writes the header and the encoded pool rules of a sessions file. The caller passes zeroed words.
/// Their number is the result of [`sessions_word_count`].
pub(crate) fn write_sessions(
    access: WriteAccess<'_>,
    words: &[Word],
    slot_counts: impl Iterator<Item = u32>,
    pool_rules: &[u8],
    boot: u64,
    file_id: u64,
    user_key: HashKey,
) {
    store_bytes(access, words, pool_rules_offset(slot_counts), pool_rules);
    write_sessions_header(access, words, boot, file_id, user_key, pool_rules.len());
}

fn policy_offset(pools: &[PlannedPool]) -> usize {
    let block_count: usize = pools.iter().map(|planned| planned.pool.blocks().len()).sum();
    HEADER_WORDS + pools.len() * ENTRY_WORDS + block_count * BLOCK_WORDS
}

/// Returns the offset of the first table, which follows the policy.
pub(crate) fn tables_offset(pools: &[PlannedPool], policy_byte_count: usize) -> usize {
    let policy_word_count = policy_byte_count.div_ceil(8).next_multiple_of(8);
    (policy_offset(pools) + policy_word_count).next_multiple_of(8)
}

/// Writes the fixed header, the directory, the address blocks and the policy of a map. The caller
/// passes zeroed words. Their number is the result of [`map_word_count`].
pub(crate) fn write(
    access: WriteAccess<'_>,
    words: &[Word],
    pools: &[PlannedPool],
    policy: &[u8],
    settings: &Settings,
    boot: u64,
    file_id: u64,
) {
    let mut blocks_offset = HEADER_WORDS + pools.len() * ENTRY_WORDS;
    let mut table_offset = tables_offset(pools, policy.len());
    for (number, planned) in pools.iter().enumerate() {
        let entry_offset = HEADER_WORDS + number * ENTRY_WORDS;
        write_entry(access, words, entry_offset, planned, blocks_offset, table_offset);
        blocks_offset += planned.pool.blocks().len() * BLOCK_WORDS;
        table_offset += table_word_count(planned.pool.slot_count());
    }
    let policy_offset = policy_offset(pools);
    store_bytes(access, words, policy_offset, policy);
    store(access, words, LENGTH, words.len() as u64);
    store(access, words, BOOT, boot);
    store(access, words, FILE_ID, file_id);
    for (index, word) in settings::encode(settings).into_iter().enumerate() {
        store(access, words, SETTINGS + index, word);
    }
    store(access, words, POLICY_OFFSET, policy_offset as u64);
    store(access, words, POLICY_BYTES, policy.len() as u64);
    store(access, words, POOL_COUNT, pools.len() as u64);
    // Write the magic number last: without it, the file is not a valid map.
    store(access, words, MAGIC, MAP_MAGIC);
}

/// Returns whether these words are a map of another version.
pub(crate) fn has_other_version(words: &[Word]) -> bool {
    let magic = load(words, MAGIC);
    magic != MAP_MAGIC && (magic ^ MAP_MAGIC) & MAGIC_MASK_WITHOUT_VERSION == 0
}

impl Layout {
    /// Reads and checks the fixed header and the directory of a map. Whatever `words` contains, the
    /// returned layout refers only to words inside the slice.
    pub(crate) fn read(words: &[Word]) -> Result<Self, &'static str> {
        if words.len() < HEADER_WORDS {
            return Err("it is too short");
        }
        match load(words, MAGIC) {
            MAP_MAGIC => {}
            _ if has_other_version(words) => return Err("this program does not know its version"),
            _ => return Err("it is not a vipool map"),
        }
        if load(words, LENGTH) != words.len() as u64 {
            return Err("its length differs from the length in its header");
        }
        let pool_count = load(words, POOL_COUNT) as usize;
        if pool_count > MAX_POOLS {
            return Err("it has too many pools");
        }
        let policy_offset = load(words, POLICY_OFFSET) as usize;
        let policy_byte_count = load(words, POLICY_BYTES) as usize;
        if !fits(words, policy_offset, policy_byte_count.div_ceil(8)) {
            return Err("its policy lies outside the file");
        }
        let mut pools = [PoolLayout::default(); MAX_POOLS];
        let mut records_offset = HEADER_WORDS;
        for (number, pool) in pools.iter_mut().take(pool_count).enumerate() {
            *pool = PoolLayout::read(words, HEADER_WORDS + number * ENTRY_WORDS, records_offset)?;
            records_offset += pool.slot_count as usize * RECORD_WORDS;
        }
        for number in 0..pool_count {
            pools[number].same_name_pools = pools[number]
                .read_name(words, |name| pools_with_name(words, &pools[..pool_count], name));
        }
        let map_pools = &pools[..pool_count];
        let loopback_pools = pool_set(map_pools, |pool| pool.is_loopback && !pool.is_dropped);
        let default_pools = pool_set(map_pools, |pool| pool.is_default && !pool.is_loopback);
        let settings = settings::decode(std::array::from_fn(|index| load(words, SETTINGS + index)));
        let cools_down = settings.cool_down > 0 || settings.check_in_use;
        let is_unrestricted = (loopback_pools | default_pools).count_ones() as usize == pool_count
            && !settings.await_restore
            && settings.max_sessions == 0
            && settings.sessions_per_user == 0;
        Ok(Self {
            boot: load(words, BOOT),
            file_id: load(words, FILE_ID),
            settings,
            policy_offset,
            policy_byte_count,
            loopback_pools,
            default_pools,
            is_unrestricted,
            cools_down,
            has_fast_path: is_unrestricted
                && pool_count == 1
                && !cools_down
                && settings.low_water == 0,
            pools,
            pool_count,
        })
    }

    /// Returns the pools in the order of their numbers.
    #[inline(always)]
    pub(crate) fn pools(&self) -> &[PoolLayout] {
        &self.pools[..self.pool_count.min(MAX_POOLS)]
    }

    /// Returns the pool with this number.
    #[inline(always)]
    pub(crate) fn pool(&self, number: u16) -> Option<&PoolLayout> {
        self.pools().get(usize::from(number))
    }

    /// Returns the plan's virtual-IP pools that have this name, one bit for each pool.
    pub(crate) fn pools_with_name(&self, words: &[Word], name: &[u8]) -> PoolSet {
        pools_with_name(words, self.pools(), name)
    }

    /// Returns the words that hold the compiled policy, and the length of the policy in bytes.
    pub(crate) fn policy<'a>(&self, words: &'a [Word]) -> (&'a [Word], usize) {
        let end = self.policy_offset + self.policy_byte_count.div_ceil(8);
        (words.get(self.policy_offset..end).unwrap_or_default(), self.policy_byte_count)
    }

    /// Returns whether these words are the sessions file of this map.
    pub(crate) fn is_sessions_file(&self, words: &[Word]) -> bool {
        is_sessions_file(words, self.file_id, self.pool_rules_offset())
    }

    /// Returns the encoded rules for pools in the words of the sessions file. Returns `None` if the
    /// map has no sessions file, or if the rules lie outside that file.
    pub(crate) fn pool_rules(&self, sessions: &[Word]) -> Option<Vec<u8>> {
        let words = sessions.get(self.pool_rules_offset()..)?;
        let length = pool_rules_bytes(sessions);
        if length.div_ceil(8) > words.len() {
            return None;
        }
        let mut bytes = vec![0; length];
        load_bytes(words, 0, &mut bytes);
        Some(bytes)
    }

    fn pool_rules_offset(&self) -> usize {
        pool_rules_offset(self.pools().iter().map(|pool| pool.slot_count))
    }

    /// Returns the words that never change once the map is published, except the word `FILE_ID`,
    /// which differs in every map file.
    pub(crate) fn fixed_words<'a>(&self, words: &'a [Word]) -> impl Iterator<Item = u64> + 'a {
        let end = self.policy_offset + self.policy_byte_count.div_ceil(8);
        let header_offsets = (0..FIXED_WORDS).filter(|offset| *offset != FILE_ID);
        header_offsets.chain(HEADER_WORDS..end).map(|offset| load(words, offset))
    }
}

fn pools_with_name(words: &[Word], pools: &[PoolLayout], name: &[u8]) -> PoolSet {
    let has_name = |pool: &PoolLayout| pool.read_name(words, |pool_name| pool_name == name);
    pool_set(pools, |pool| !pool.is_loopback && !pool.is_dropped && has_name(pool))
}

/// Returns the pools that match a predicate, one bit for each pool.
fn pool_set(pools: &[PoolLayout], predicate: impl Fn(&PoolLayout) -> bool) -> PoolSet {
    (0..).zip(pools).fold(0, |set, (number, pool)| set | u32::from(predicate(pool)) << number)
}
