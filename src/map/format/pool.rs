//! The position and the attributes of one pool in a map, and the addresses of its slots.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::counters::CONTROL_WORDS;
use super::header::{FIXED_WORDS, fits};
use super::index::{BUCKET_WORDS, SLOTS_PER_BUCKET};
use super::slot::SLOT_WORDS;
use super::words::{load, load_bytes, store, store_bytes};
use crate::map::types::plan::MAX_POOL_NAME;
use crate::pool::{MAX_SLOTS, Pool, PoolKind, SlotBlocks};
use crate::range::{Range, bits};
use crate::raw::sections::Sections;
use crate::raw::word::{Word, WriteAccess};

/// A set of pools, one bit for each pool.
pub(crate) type PoolSet = u32;

/// The number of words of an entry in the map's directory of pools.
pub(crate) const ENTRY_WORDS: usize = 16;
/// The number of words of a block: first slot (one word), first address and last address (two words
/// each).
pub(crate) const BLOCK_WORDS: usize = 5;
/// The number of words of the name in an entry.
const NAME_WORDS: usize = 8;
const NAME_BYTES: usize = NAME_WORDS * 8;
const _: () = assert!(NAME_BYTES > MAX_POOL_NAME, "a name ends in a zero byte");

// Word indices in an entry of the directory of pools. The name is first.
const ATTRIBUTES_WORD: usize = 8;
const SLOT_COUNT_WORD: usize = 9;
const BLOCKS_OFFSET_WORD: usize = 10;
const BLOCK_COUNT_WORD: usize = 11;
const TABLE_OFFSET_WORD: usize = 12;

// Bits of the attributes, above the kind of the pool.
const IPV4_BIT: u32 = 8;
const DROPPED_BIT: u32 = 9;
const DEFAULT_BIT: u32 = 10;

/// A pool of a map before the map is written.
#[derive(Debug)]
pub(crate) struct PlannedPool {
    pub(crate) pool: Pool,
    /// The index of the pool in the plan; `None` if the plan no longer has the pool.
    pub(crate) plan_index: Option<usize>,
    /// Whether the pool serves sessions that request no pool by name.
    pub(crate) is_default: bool,
    /// Whether the previous map has this pool under the same number.
    pub(crate) is_kept: bool,
}

/// The position and the attributes of one pool in a map.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PoolLayout {
    /// The offset of the directory entry, which begins with the name of the pool.
    entry_offset: usize,
    pub(crate) is_loopback: bool,
    pub(crate) is_ipv4: bool,
    /// Whether the plan no longer has the pool. The map has such a pool for addresses that are
    /// leased, cool down or linger. An empty pool of this kind only keeps the numbers of the pools
    /// after it.
    pub(crate) is_dropped: bool,
    /// Whether the pool serves sessions that request no pool by name.
    pub(crate) is_default: bool,
    pub(crate) slot_count: u32,
    blocks_offset: usize,
    block_count: usize,
    /// The first address of the first block. Most pools have one block, so this copy makes the
    /// address of most slots available without a search.
    first_address: u128,
    /// The first slot after the first block.
    first_block_end: u32,
    /// The position of the control words, the index and the slots.
    pub(crate) table: Sections<CONTROL_WORDS, BUCKET_WORDS, SLOT_WORDS>,
    /// The offset of the first record of the pool in the sessions file.
    pub(crate) records_offset: usize,
    /// The plan's virtual-IP pools that have the name of this pool, one bit for each pool.
    pub(crate) same_name_pools: PoolSet,
}

/// Returns the number of words of a table: the control words, the index and the slots of a pool,
/// rounded up to whole cache lines.
pub(crate) fn table_word_count(slot_count: u32) -> usize {
    let index_words = bucket_count(slot_count) as usize * BUCKET_WORDS;
    CONTROL_WORDS + (index_words + slot_count as usize * SLOT_WORDS).next_multiple_of(8)
}

fn bucket_count(slot_count: u32) -> u32 {
    slot_count.div_ceil(SLOTS_PER_BUCKET).max(1)
}

/// Writes the directory entry and the blocks of a pool.
pub(crate) fn write_entry(
    access: WriteAccess<'_>,
    words: &[Word],
    entry_offset: usize,
    planned_pool: &PlannedPool,
    blocks_offset: usize,
    table_offset: usize,
) {
    let PlannedPool { pool, plan_index, is_default, .. } = planned_pool;
    let mut name = [0; NAME_BYTES];
    let name_length = pool.name().len().min(MAX_POOL_NAME);
    name[..name_length].copy_from_slice(&pool.name().as_bytes()[..name_length]);
    store_bytes(access, words, entry_offset, &name);
    let is_ipv4 = pool.is_ipv4().unwrap_or(true);
    let attributes = pool.kind() as u64
        | u64::from(is_ipv4) << IPV4_BIT
        | u64::from(plan_index.is_none()) << DROPPED_BIT
        | u64::from(*is_default) << DEFAULT_BIT;
    store(access, words, entry_offset + ATTRIBUTES_WORD, attributes);
    store(access, words, entry_offset + SLOT_COUNT_WORD, pool.slot_count().into());
    store(access, words, entry_offset + BLOCKS_OFFSET_WORD, blocks_offset as u64);
    store(access, words, entry_offset + BLOCK_COUNT_WORD, pool.blocks().len() as u64);
    store(access, words, entry_offset + TABLE_OFFSET_WORD, table_offset as u64);
    for (index, (first_slot, range)) in pool.blocks().iter().enumerate() {
        let block_offset = blocks_offset + index * BLOCK_WORDS;
        store(access, words, block_offset, u64::from(*first_slot));
        store_address(access, words, block_offset + 1, range.first());
        store_address(access, words, block_offset + 3, range.last());
    }
}

/// The address blocks of a pool, read from the words of its map.
struct PoolBlocks<'a> {
    layout: &'a PoolLayout,
    words: &'a [Word],
}

impl SlotBlocks for PoolBlocks<'_> {
    fn slot_count(&self) -> u32 {
        self.layout.slot_count
    }

    fn block_count(&self) -> usize {
        self.layout.block_count
    }

    fn block(&self, index: usize) -> Option<(u32, Range)> {
        if index >= self.layout.block_count {
            return None;
        }
        let offset = self.layout.blocks_offset + index * BLOCK_WORDS;
        let first_address = load_address(self.words, offset + 1, self.layout.is_ipv4);
        let last_address = load_address(self.words, offset + 3, self.layout.is_ipv4);
        // In a damaged map, the stored first slot can be too high. `min` bounds every loop over the
        // slots before this block.
        let first_slot = (load(self.words, offset) as u32).min(self.layout.slot_count);
        Some((first_slot, Range::new(first_address, last_address)?))
    }
}

impl PoolLayout {
    /// Reads and checks a directory entry.
    pub(crate) fn read(
        words: &[Word],
        entry_offset: usize,
        records_offset: usize,
    ) -> Result<Self, &'static str> {
        if !fits(words, entry_offset, ENTRY_WORDS) {
            return Err("its directory lies outside the file");
        }
        let attributes = load(words, entry_offset + ATTRIBUTES_WORD);
        let slot_count = load(words, entry_offset + SLOT_COUNT_WORD);
        let blocks_offset = load(words, entry_offset + BLOCKS_OFFSET_WORD) as usize;
        let block_count = load(words, entry_offset + BLOCK_COUNT_WORD) as usize;
        let table_offset = load(words, entry_offset + TABLE_OFFSET_WORD) as usize;
        if slot_count > u64::from(MAX_SLOTS) {
            return Err("a pool has too many slots");
        }
        let slot_count = slot_count as u32;
        let max_block_count = slot_count as usize;
        if block_count > max_block_count || !fits(words, blocks_offset, block_count * BLOCK_WORDS) {
            return Err("the ranges of a pool lie outside the file");
        }
        let bucket_count = bucket_count(slot_count) as usize;
        let table = Sections::new(table_offset, bucket_count, slot_count as usize, words.len())
            .filter(|_| table_offset >= FIXED_WORDS)
            .ok_or("the table of a pool lies outside the file")?;
        let has_attribute = |bit: u32| attributes >> bit & 1 == 1;
        let mut layout = Self {
            entry_offset,
            is_loopback: attributes & 0xff == PoolKind::Loopback as u64,
            is_ipv4: has_attribute(IPV4_BIT),
            is_dropped: has_attribute(DROPPED_BIT),
            is_default: has_attribute(DEFAULT_BIT),
            slot_count,
            blocks_offset,
            block_count,
            first_address: 0,
            first_block_end: 0,
            table,
            records_offset,
            same_name_pools: 0,
        };
        let blocks = layout.blocks(words);
        if let Some((0, range)) = blocks.block(0) {
            let second_block_start = blocks.block(1).map_or(slot_count, |(slot, _)| slot);
            let address_count = range.count();
            layout.first_address = bits(range.first());
            layout.first_block_end = u128::from(second_block_start).min(address_count) as u32;
        }
        Ok(layout)
    }

    fn blocks<'a>(&'a self, words: &'a [Word]) -> PoolBlocks<'a> {
        PoolBlocks { layout: self, words }
    }

    /// Calls `read` with the bytes of the name of the pool.
    pub(crate) fn read_name<T>(&self, words: &[Word], read: impl FnOnce(&[u8]) -> T) -> T {
        let mut buffer = [0; NAME_BYTES];
        load_bytes(words, self.entry_offset, &mut buffer);
        let end = buffer.iter().position(|byte| *byte == 0).unwrap_or(MAX_POOL_NAME);
        read(&buffer[..end])
    }

    /// Returns the name of the pool as text.
    pub(crate) fn name(&self, words: &[Word]) -> String {
        self.read_name(words, |name| String::from_utf8_lossy(name).into_owned())
    }

    /// Returns the pool as it was when the map was written.
    pub(crate) fn to_pool(self, words: &[Word]) -> Pool {
        let kind = if self.is_loopback { PoolKind::Loopback } else { PoolKind::VirtualIp };
        let blocks = self.blocks(words);
        let all_blocks = (0..self.block_count).map_while(|index| blocks.block(index)).collect();
        Pool::from_blocks(&self.name(words), kind, all_blocks, self.slot_count)
    }

    /// Returns the address of a slot.
    pub(crate) fn address(&self, words: &[Word], slot: u32) -> Option<IpAddr> {
        let [upper, lower] = self.address_bits(words, slot)?;
        Some(address_from_bits(u128::from(upper) << 64 | u128::from(lower), self.is_ipv4))
    }

    /// Returns the address of a slot as a number of 128 bits: the upper half, then the lower half.
    #[inline(always)]
    pub(crate) fn address_bits(&self, words: &[Word], slot: u32) -> Option<[u64; 2]> {
        let bits = if slot < self.first_block_end {
            self.first_address.wrapping_add(slot.into())
        } else {
            self.address_bits_after_first_block(words, slot)?
        };
        Some([(bits >> 64) as u64, bits as u64])
    }

    /// Returns the address of a slot after the first block.
    #[cold]
    fn address_bits_after_first_block(&self, words: &[Word], slot: u32) -> Option<u128> {
        self.blocks(words).address(slot).map(bits)
    }

    /// Returns the second loopback address of a slot ([`Pool::loopback6`]).
    pub(crate) fn loopback6(&self, words: &[Word], slot: u32) -> Option<IpAddr> {
        if self.is_loopback { self.blocks(words).loopback6(slot) } else { None }
    }

    /// Returns the slot of an address. Returns `None` for a second loopback address, which has no
    /// slot of its own.
    pub(crate) fn slot_of(&self, words: &[Word], address: IpAddr) -> Option<u32> {
        self.blocks(words).slot_of(address)
    }

    /// Returns the slot of a second loopback address.
    pub(crate) fn slot_of_loopback6(&self, words: &[Word], address: IpAddr) -> Option<u32> {
        if self.is_loopback { self.blocks(words).slot_of_loopback6(address) } else { None }
    }

    /// Returns whether a range of the pool contains the address. The ranges of a loopback pool also
    /// contain the second loopback addresses.
    pub(crate) fn contains(&self, words: &[Word], address: IpAddr) -> bool {
        self.blocks(words).contains(address)
    }
}

fn store_address(access: WriteAccess<'_>, words: &[Word], offset: usize, address: IpAddr) {
    let bits = bits(address);
    store(access, words, offset, (bits >> 64) as u64);
    store(access, words, offset + 1, bits as u64);
}

fn load_address(words: &[Word], offset: usize, is_ipv4: bool) -> IpAddr {
    let (upper, lower) = (load(words, offset), load(words, offset + 1));
    address_from_bits(u128::from(upper) << 64 | u128::from(lower), is_ipv4)
}

#[inline]
fn address_from_bits(bits: u128, is_ipv4: bool) -> IpAddr {
    if is_ipv4 {
        IpAddr::V4(Ipv4Addr::from_bits(bits as u32))
    } else {
        IpAddr::V6(Ipv6Addr::from_bits(bits))
    }
}
