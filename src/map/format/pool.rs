//! Where one pool is in a map, and the addresses of its slots.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::counters::CONTROL_WORDS;
use super::index::BUCKET_WORDS;
use super::layout::{
    BLOCK_WORDS, DEFAULT, DROPPED, ENTRY_WORDS, FIXED_WORDS, IPV4, MAX_POOL_NAME, NAME_WORDS,
    buckets_for, fits,
};
use super::region::{load, load_bytes};
use super::slot::SLOT_WORDS;
use crate::pool::{MAX_SLOTS, Pool, PoolKind};
use crate::range::{Range, bits};
use crate::raw::sections::Sections;
use crate::sync::AtomicU64;

/// Where one pool is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PoolLayout {
    /// Word number of its entry in the directory, which begins with its name.
    entry: usize,
    pub(crate) loopback: bool,
    pub(crate) ipv4: bool,
    /// Whether the plan no longer has it.
    pub(crate) dropped: bool,
    /// Whether a session gets an address of it that asks for no pool by name.
    pub(crate) default: bool,
    pub(crate) slots: u32,
    blocks_at: usize,
    blocks: usize,
    /// The first address of the first block and the end of its slots: most pools have no other.
    head: u128,
    head_end: u32,
    /// Its control words, index and slots.
    pub(crate) table: Sections<CONTROL_WORDS, BUCKET_WORDS, SLOT_WORDS>,
    /// Word number of its first record in the private file.
    pub(crate) records_at: usize,
    /// The virtual-IP pools of the plan that have its name, a bit for each.
    pub(crate) namesakes: u32,
}

impl PoolLayout {
    pub(crate) fn read(
        words: &[AtomicU64],
        entry: usize,
        records_at: usize,
    ) -> Result<Self, &'static str> {
        if !fits(words, entry, ENTRY_WORDS) {
            return Err("its directory lies outside the file");
        }
        let traits = load(words, entry + 8);
        let slots = load(words, entry + 9);
        let blocks_at = load(words, entry + 10) as usize;
        let blocks = load(words, entry + 11) as usize;
        let table_at = load(words, entry + 12) as usize;
        if slots > u64::from(MAX_SLOTS) {
            return Err("a pool has too many slots");
        }
        let slots = slots as u32;
        if blocks > slots as usize || !fits(words, blocks_at, blocks * BLOCK_WORDS) {
            return Err("the ranges of a pool lie outside the file");
        }
        let table =
            Sections::new(table_at, buckets_for(slots) as usize, slots as usize, words.len())
                .filter(|_| table_at >= FIXED_WORDS)
                .ok_or("the table of a pool lies outside the file")?;
        let has = |bit: u32| traits >> bit & 1 == 1;
        let ipv4 = has(IPV4);
        let mut layout = Self {
            entry,
            loopback: traits & 0xff == PoolKind::Loopback as u64,
            ipv4,
            dropped: has(DROPPED),
            default: has(DEFAULT),
            slots,
            blocks_at,
            blocks,
            head: 0,
            head_end: 0,
            table,
            records_at,
            namesakes: 0,
        };
        if let Some((0, range)) = layout.block(words, 0) {
            let end = layout.block(words, 1).map_or(slots, |(first_slot, _)| first_slot);
            layout.head = bits(range.first());
            layout.head_end = u128::from(end.min(slots)).min(range.span().saturating_add(1)) as u32;
        }
        Ok(layout)
    }

    /// The pool's name, read into a buffer of the caller's.
    pub(crate) fn name<'a>(
        &self,
        words: &[AtomicU64],
        buffer: &'a mut [u8; NAME_WORDS * 8],
    ) -> &'a [u8] {
        load_bytes(words, self.entry, buffer);
        let end = buffer.iter().position(|byte| *byte == 0).unwrap_or(MAX_POOL_NAME);
        &buffer[..end]
    }

    /// The pool's name as text.
    pub(crate) fn name_text(&self, words: &[AtomicU64]) -> String {
        String::from_utf8_lossy(self.name(words, &mut [0; NAME_WORDS * 8])).into_owned()
    }

    /// The blocks: number of the first slot and range, sorted by slot.
    fn block(&self, words: &[AtomicU64], number: usize) -> Option<(u32, Range)> {
        if number >= self.blocks {
            return None;
        }
        let at = self.blocks_at + number * BLOCK_WORDS;
        let first = load_address(words, at + 1, self.ipv4);
        let last = load_address(words, at + 3, self.ipv4);
        Some((load(words, at) as u32, Range::new(first, last)?))
    }

    /// The pool as it was when the map was made.
    pub(crate) fn as_planned(&self, words: &[AtomicU64]) -> Pool {
        let kind = if self.loopback { PoolKind::Loopback } else { PoolKind::VirtualIp };
        let blocks = (0..self.blocks).map_while(|number| self.block(words, number)).collect();
        Pool::from_blocks(&self.name_text(words), kind, blocks, self.slots)
    }

    /// The address of a slot.
    pub(crate) fn address(&self, words: &[AtomicU64], slot: u32) -> Option<IpAddr> {
        let [upper, lower] = self.address_bits(words, slot)?;
        Some(address(u128::from(upper) << 64 | u128::from(lower), self.ipv4))
    }

    /// The address of a slot as a number, its upper and its lower half.
    #[inline(always)]
    pub(crate) fn address_bits(&self, words: &[AtomicU64], slot: u32) -> Option<[u64; 2]> {
        let bits = if slot < self.head_end {
            self.head.wrapping_add(slot.into())
        } else {
            self.bits_behind(words, slot)?
        };
        Some([(bits >> 64) as u64, bits as u64])
    }

    /// The address of a slot that is not in the first block.
    #[cold]
    fn bits_behind(&self, words: &[AtomicU64], slot: u32) -> Option<u128> {
        let (first_slot, range) = self.block_of(words, slot)?;
        range.nth(u128::from(slot - first_slot)).map(bits)
    }

    /// The twin of the address of a slot in a loopback pool ([`Pool::twin`]).
    pub(crate) fn twin(&self, words: &[AtomicU64], slot: u32) -> Option<IpAddr> {
        if !self.loopback {
            return None;
        }
        let (first_slot, range) = self.block_of(words, slot)?;
        range.nth(u128::from(slot - first_slot) + range.span().div_ceil(2))
    }

    /// The block that holds a slot.
    fn block_of(&self, words: &[AtomicU64], slot: u32) -> Option<(u32, Range)> {
        if slot >= self.slots {
            return None;
        }
        // The last block that begins at or below the slot.
        let (mut low, mut high) = (0, self.blocks);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.block(words, middle)?.0 <= slot {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        self.block(words, low.checked_sub(1)?)
    }

    /// The slot of an address, twins not counted.
    pub(crate) fn slot_of(&self, words: &[AtomicU64], address: IpAddr) -> Option<u32> {
        (0..self.blocks).find_map(|number| {
            let (first_slot, range) = self.block(words, number)?;
            let offset = u32::try_from(range.offset_of(address)?).ok()?;
            let slot = first_slot.checked_add(offset)?;
            // What lies behind the slots of a sparse range may be in a later block.
            let end = self.block(words, number + 1).map_or(self.slots, |(slot, _)| slot);
            (slot < end.min(self.slots)).then_some(slot)
        })
    }

    /// Whether the address is in one of the pool's ranges, twins counted.
    pub(crate) fn contains(&self, words: &[AtomicU64], address: IpAddr) -> bool {
        (0..self.blocks)
            .filter_map(|number| self.block(words, number))
            .any(|(_, range)| range.contains(address))
    }
}

fn load_address(words: &[AtomicU64], at: usize, ipv4: bool) -> IpAddr {
    let (upper, lower) = (load(words, at), load(words, at + 1));
    address(u128::from(upper) << 64 | u128::from(lower), ipv4)
}

#[inline]
fn address(bits: u128, ipv4: bool) -> IpAddr {
    if ipv4 {
        IpAddr::V4(Ipv4Addr::from_bits(bits as u32))
    } else {
        IpAddr::V6(Ipv6Addr::from_bits(bits))
    }
}
