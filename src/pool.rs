//! A pool: the usable addresses of one server, numbered.
//!
//! Ranges come in with everything that must not be given out already cut away, so slot numbers
//! run from 0 without holes: slot `i` is the `i`-th usable address. A pool is of one family.
//! Nothing iterates over addresses: a sparse IPv6 prefix is cut at the wanted number of slots.

use std::net::{IpAddr, Ipv4Addr};

use crate::range::Range;

/// The pool of sessions that no rule names another for.
pub const DEFAULT_POOL: &str = "default";

/// The most slots of one pool (24 bits in the index of the map file).
pub const MAX_SLOTS: u32 = (1 << 24) - 2;

/// What the addresses of a pool are for. The numbers are part of the map file and of the C ABI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PoolKind {
    /// V: addresses of the network.
    VirtualIp = 1,
    /// L: addresses of 127.0.0.0/8, of the session's own. See [`Pool::twin`] for L6.
    Loopback = 2,
}

/// The usable addresses of one server under one name, of one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    name: String,
    kind: PoolKind,
    /// Each range with the number of its first slot; sorted by slot.
    blocks: Vec<(u32, Range)>,
    slots: u32,
}

/// An address that only sessions of one user are given.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reservation {
    /// The user's name, as the system writes it.
    pub user: String,
    /// The address; in one of the pools.
    pub address: IpAddr,
}

/// Why ranges do not make a pool.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// IPv4 and IPv6 in one pool.
    #[error("pool {0:?} mixes IPv4 and IPv6: make it two pools of the same name")]
    MixedFamilies(String),
    /// Two of its ranges share addresses.
    #[error("pool {0:?}: {1} and {2} overlap")]
    Overlap(String, Range, Range),
    /// A loopback pool with addresses outside 127.0.0.0/8, or with 127.0.0.1 among them.
    #[error("pool {0:?}: {1} is not inside 127.0.0.2-127.255.255.254")]
    NotLoopback(String, Range),
}

impl Pool {
    /// A pool of these ranges, of at most `max_slots` (and never more than [`MAX_SLOTS`])
    /// addresses. No ranges make an empty pool, which answers "exhausted".
    ///
    /// Of a loopback pool, half the addresses become slots; the other half are their twins.
    pub fn new(
        name: &str,
        kind: PoolKind,
        ranges: &[Range],
        max_slots: u32,
    ) -> Result<Self, PoolError> {
        let mut sorted = ranges.to_vec();
        sorted.sort_unstable();
        for pair in sorted.windows(2) {
            if pair[0].first().is_ipv4() != pair[1].first().is_ipv4() {
                return Err(PoolError::MixedFamilies(name.to_owned()));
            }
            if pair[0].intersection(&pair[1]).is_some() {
                return Err(PoolError::Overlap(name.to_owned(), pair[0], pair[1]));
            }
        }
        if kind == PoolKind::Loopback {
            let usable = Range::new(
                IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2)),
                IpAddr::V4(Ipv4Addr::new(127, 255, 255, 254)),
            )
            .expect("in order");
            if let Some(range) = sorted.iter().find(|r| usable.intersection(r) != Some(**r)) {
                return Err(PoolError::NotLoopback(name.to_owned(), *range));
            }
        }
        let mut room = u128::from(max_slots.min(MAX_SLOTS));
        let mut blocks = Vec::new();
        let mut slots = 0u32;
        for range in sorted {
            let addresses = range.span().saturating_add(1);
            let count =
                if kind == PoolKind::Loopback { addresses / 2 } else { addresses }.min(room);
            if count == 0 {
                continue;
            }
            blocks.push((slots, range));
            slots += count as u32;
            room -= count;
        }
        Ok(Self { name: name.to_owned(), kind, blocks, slots })
    }

    /// A pool as a map has it.
    pub(crate) fn from_blocks(
        name: &str,
        kind: PoolKind,
        blocks: Vec<(u32, Range)>,
        slots: u32,
    ) -> Self {
        Self { name: name.to_owned(), kind, blocks, slots }
    }

    /// This pool with the addresses of a newer one of the same name behind its own: every slot
    /// keeps its number, so that the handles of open sessions stay good.
    pub(crate) fn extended(&self, newer: &Pool) -> Pool {
        let mut extended = self.clone();
        let mut fresh: Vec<Range> = newer.blocks.iter().map(|(_, range)| *range).collect();
        for (number, (first_slot, range)) in self.blocks.iter().enumerate() {
            let end = self.blocks.get(number + 1).map_or(self.slots, |(slot, _)| *slot);
            // Of a sparse range, what lies behind the slots can still be added; of a loopback
            // range, the rest is twins.
            let used = match self.kind {
                PoolKind::Loopback => Some(*range),
                PoolKind::VirtualIp => range
                    .nth(u128::from(end.saturating_sub(*first_slot)).saturating_sub(1))
                    .and_then(|last| Range::new(range.first(), last)),
            };
            if let Some(used) = used {
                fresh = fresh.iter().flat_map(|range| range.without(&used)).collect();
            }
        }
        let kept = (0..self.slots)
            .filter(|slot| {
                self.address(*slot).is_some_and(|own| newer.still_has(own, self.twin(*slot)))
            })
            .count() as u32;
        let mut room = newer.slots.saturating_sub(kept).min(MAX_SLOTS - self.slots);
        for range in fresh {
            let addresses = range.span().saturating_add(1);
            let count = if self.kind == PoolKind::Loopback { addresses / 2 } else { addresses };
            let count = count.min(room.into()) as u32;
            if count > 0 {
                extended.blocks.push((extended.slots, range));
                extended.slots += count;
                room -= count;
            }
        }
        extended
    }

    /// Whether it gives out this address of an older pool. Where an address has a twin, both must
    /// be in its ranges: which of them are twins depends on where a range ends.
    pub(crate) fn still_has(&self, address: IpAddr, twin: Option<IpAddr>) -> bool {
        let covers = |address| self.blocks.iter().any(|(_, range)| range.contains(address));
        match twin {
            None => self.slot_of(address).is_some(),
            Some(twin) => covers(address) && covers(twin),
        }
    }

    /// The name that rules choose it by.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What its addresses are for.
    pub fn kind(&self) -> PoolKind {
        self.kind
    }

    /// Whether its addresses are IPv4; `None` for an empty pool.
    pub fn is_ipv4(&self) -> Option<bool> {
        self.blocks.first().map(|(_, range)| range.first().is_ipv4())
    }

    /// How many addresses it gives out.
    pub fn slots(&self) -> u32 {
        self.slots
    }

    /// Its ranges, each with the number of its first slot.
    pub fn blocks(&self) -> &[(u32, Range)] {
        &self.blocks
    }

    /// The address of a slot.
    pub fn address(&self, slot: u32) -> Option<IpAddr> {
        let (first_slot, range) = self.block_of(slot)?;
        range.nth(u128::from(slot.checked_sub(*first_slot)?))
    }

    /// Of a loopback pool, the second address of a slot (L6 in [`crate::session::Addresses`]):
    /// the one as far into the upper half of its range as the first is into the lower.
    pub fn twin(&self, slot: u32) -> Option<IpAddr> {
        if self.kind != PoolKind::Loopback {
            return None;
        }
        let (first_slot, range) = self.block_of(slot)?;
        range.nth(u128::from(slot.checked_sub(*first_slot)?) + range.span().div_ceil(2))
    }

    /// The slot of an address.
    pub fn slot_of(&self, address: IpAddr) -> Option<u32> {
        self.blocks.iter().find_map(|(first_slot, range)| {
            let slot = u128::from(*first_slot) + range.offset_of(address)?;
            let slot = u32::try_from(slot).ok().filter(|slot| *slot < self.slots)?;
            (self.address(slot) == Some(address)).then_some(slot)
        })
    }

    fn block_of(&self, slot: u32) -> Option<&(u32, Range)> {
        if slot >= self.slots {
            return None;
        }
        let after = self.blocks.partition_point(|(first, _)| *first <= slot);
        self.blocks.get(after.checked_sub(1)?)
    }
}
