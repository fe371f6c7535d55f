//! A pool: the numbered usable addresses of one server.
//!
//! The ranges of a pool contain only usable addresses, so slots are numbered from 0 without gaps.
//! All addresses of a pool belong to one family. A pool stores ranges instead of single addresses.
//! [`Pool::new`] limits a large IPv6 prefix to the requested number of slots.

use std::net::{IpAddr, Ipv4Addr};

use crate::range::Range;

/// The name of the pool for sessions that no rule assigns to another pool.
pub const DEFAULT_POOL: &str = "default";

/// Maximum number of slots of a pool (24 bits in the index of the map file).
pub const MAX_SLOTS: u32 = (1 << 24) - 2;

/// The purpose of the addresses of a pool. The numbers are part of the map file and of the C ABI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PoolKind {
    /// V: addresses of the network.
    VirtualIp = 1,
    /// L: addresses in 127.0.0.0/8. Each slot also has a second address, see [`Pool::loopback6`].
    Loopback = 2,
}

impl PoolKind {
    /// Returns the number of slots that a range of this kind can have.
    fn max_slots(self, range: &Range) -> u128 {
        match self {
            Self::VirtualIp => range.count(),
            Self::Loopback => range.count() / 2,
        }
    }
}

/// Usable addresses of one server. The pool has a name; its addresses have one kind and one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    name: String,
    kind: PoolKind,
    /// Ranges with the number of their first slot, sorted by slot.
    blocks: Vec<(u32, Range)>,
    slot_count: u32,
}

/// An address that only sessions of one user can receive.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Reservation {
    /// The user's name, in the form that the system reports.
    pub user: String,
    /// The address. It must be in one of the pools.
    pub address: IpAddr,
}

impl Reservation {
    /// Creates the reservation of an address for a user.
    #[must_use]
    pub fn new(address: IpAddr, user: impl Into<String>) -> Self {
        Self { user: user.into(), address }
    }
}

/// The reason why ranges do not form a pool.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PoolError {
    /// The ranges mix IPv4 and IPv6.
    #[error("pool {0:?} mixes IPv4 and IPv6: create two pools with the same name")]
    MixedFamilies(String),
    /// Two ranges overlap.
    #[error("pool {0:?}: {1} and {2} overlap")]
    Overlap(String, Range, Range),
    /// The ranges have room for more than [`MAX_SLOTS`] slots, and the requested maximum is also
    /// above [`MAX_SLOTS`].
    #[error(
        "pool {0:?} has {1} addresses, but a pool has at most {MAX_SLOTS} (reduce its ranges, or \
         set a maximum of addresses)"
    )]
    TooManyAddresses(String, u128),
    /// A range of a loopback pool contains an address outside 127.0.0.2-127.255.255.254.
    #[error("pool {0:?}: {1} is not inside 127.0.0.2-127.255.255.254")]
    NotLoopback(String, Range),
    /// A range of virtual IPs contains addresses that no host can have. The string names
    /// their purpose, such as "multicast".
    #[error("pool {0:?}: hosts cannot use {1} ({2})")]
    NonHostAddresses(String, Range, &'static str),
}

/// Addresses that no host of a network can have, with their purpose.
const NON_HOST_RANGES: [(&str, &str); 6] = [
    ("0.0.0.0/8", "this network"),
    ("127.0.0.0/8", "loopback"),
    ("224.0.0.0/4", "multicast"),
    ("255.255.255.255", "broadcast"),
    ("::/127", "unspecified and loopback"),
    ("ff00::/8", "multicast"),
];

/// Returns the parts of a range that hosts cannot use, each with its purpose.
pub(crate) fn non_host_parts(range: &Range) -> impl Iterator<Item = (Range, &'static str)> {
    NON_HOST_RANGES.into_iter().filter_map(|(text, purpose)| {
        let non_host_range: Range = text.parse().expect("a range");
        Some((non_host_range.intersection(range)?, purpose))
    })
}

impl Pool {
    /// Returns a pool of these ranges with at most `max_slots` slots. A pool without ranges is
    /// valid and always exhausted.
    ///
    /// In a loopback pool, the lower half of each range contains the addresses of the slots. The
    /// upper half contains the second addresses of these slots.
    ///
    /// # Errors
    /// Fails if the ranges overlap, mix families, or do not fit the kind of the pool. Also fails if
    /// the pool would have more than [`MAX_SLOTS`] slots and `max_slots` allows more.
    pub fn new(
        name: &str,
        kind: PoolKind,
        ranges: &[Range],
        max_slots: u32,
    ) -> Result<Self, PoolError> {
        let mut sorted_ranges = ranges.to_vec();
        sorted_ranges.sort_unstable();
        for pair in sorted_ranges.windows(2) {
            if pair[0].first().is_ipv4() != pair[1].first().is_ipv4() {
                return Err(PoolError::MixedFamilies(name.to_owned()));
            }
            if pair[0].intersection(&pair[1]).is_some() {
                return Err(PoolError::Overlap(name.to_owned(), pair[0], pair[1]));
            }
        }
        if kind == PoolKind::Loopback {
            let usable_range = Range::new(
                IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2)),
                IpAddr::V4(Ipv4Addr::new(127, 255, 255, 254)),
            )
            .expect("the first address is below the last");
            if let Some(range) =
                sorted_ranges.iter().find(|range| usable_range.intersection(range) != Some(**range))
            {
                return Err(PoolError::NotLoopback(name.to_owned(), *range));
            }
        }
        if kind == PoolKind::VirtualIp
            && let Some((part, purpose)) = sorted_ranges.iter().flat_map(non_host_parts).next()
        {
            return Err(PoolError::NonHostAddresses(name.to_owned(), part, purpose));
        }
        let unlimited_count =
            sorted_ranges.iter().map(|range| kind.max_slots(range)).fold(0, u128::saturating_add);
        if unlimited_count > MAX_SLOTS.into() && max_slots > MAX_SLOTS {
            return Err(PoolError::TooManyAddresses(name.to_owned(), unlimited_count));
        }
        let mut remaining_slot_count = u128::from(max_slots.min(MAX_SLOTS));
        let mut blocks = Vec::new();
        let mut slot_count = 0u32;
        for range in sorted_ranges {
            let block_slot_count = kind.max_slots(&range).min(remaining_slot_count);
            if block_slot_count == 0 {
                continue;
            }
            blocks.push((slot_count, range));
            slot_count += block_slot_count as u32;
            remaining_slot_count -= block_slot_count;
        }
        Ok(Self { name: name.to_owned(), kind, blocks, slot_count })
    }

    /// Returns a pool with these blocks.
    pub(crate) fn from_blocks(
        name: &str,
        kind: PoolKind,
        blocks: Vec<(u32, Range)>,
        slot_count: u32,
    ) -> Self {
        Self { name: name.to_owned(), kind, blocks, slot_count }
    }

    /// Returns this pool with the additional addresses of `new_version` appended. Every slot keeps
    /// its number, so the handles of open sessions stay valid.
    pub(crate) fn extended(&self, new_version: &Pool) -> Pool {
        let mut extended_pool = self.clone();
        let mut new_ranges: Vec<Range> =
            new_version.blocks.iter().map(|(_, range)| *range).collect();
        for (index, (first_slot, range)) in self.blocks.iter().enumerate() {
            let end_slot = self.blocks.get(index + 1).map_or(self.slot_count, |(slot, _)| *slot);
            // The limit of `Pool::new` can leave the last addresses of a range of virtual IPs
            // without a slot. The new version can add slots for these addresses. In a loopback
            // range, second addresses have no slot of their own, and must not get one.
            let kept_range = match self.kind {
                PoolKind::Loopback => Some(*range),
                PoolKind::VirtualIp => range
                    .nth(u128::from(end_slot.saturating_sub(*first_slot)).saturating_sub(1))
                    .and_then(|last_address| Range::new(range.first(), last_address)),
            };
            if let Some(kept_range) = kept_range {
                new_ranges =
                    new_ranges.iter().flat_map(|range| range.difference(&kept_range)).collect();
            }
        }
        let is_kept = |slot: &u32| {
            let address = self.address(*slot);
            address.is_some_and(|address| new_version.has_slot(address, self.loopback6(*slot)))
        };
        let kept_count = (0..self.slot_count).filter(is_kept).count() as u32;
        let mut remaining_slot_count =
            new_version.slot_count.saturating_sub(kept_count).min(MAX_SLOTS - self.slot_count);
        for range in new_ranges {
            let block_slot_count =
                self.kind.max_slots(&range).min(remaining_slot_count.into()) as u32;
            if block_slot_count > 0 {
                extended_pool.blocks.push((extended_pool.slot_count, range));
                extended_pool.slot_count += block_slot_count;
                remaining_slot_count -= block_slot_count;
            }
        }
        extended_pool
    }

    /// Returns whether this pool still contains the addresses of a slot of an older version. For a
    /// slot with a second address, the ranges must contain both addresses. The two addresses can
    /// belong to different slots now: second addresses begin in the middle of a range, and the
    /// middle moves if the range changes.
    pub(crate) fn has_slot(&self, address: IpAddr, loopback6: Option<IpAddr>) -> bool {
        match loopback6 {
            None => self.slot_of(address).is_some(),
            Some(loopback6) => self.contains(address) && self.contains(loopback6),
        }
    }

    /// Returns the name. Rules select the pool by this name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the purpose of the addresses.
    #[must_use]
    pub fn kind(&self) -> PoolKind {
        self.kind
    }

    /// Returns whether the addresses are IPv4; `None` for an empty pool.
    #[must_use]
    pub fn is_ipv4(&self) -> Option<bool> {
        self.blocks.first().map(|(_, range)| range.first().is_ipv4())
    }

    /// Returns the number of slots.
    #[must_use]
    pub fn slot_count(&self) -> u32 {
        self.slot_count
    }

    /// Returns the ranges, each with the number of its first slot.
    #[must_use]
    pub fn blocks(&self) -> &[(u32, Range)] {
        &self.blocks
    }

    /// Returns the address of a slot.
    #[must_use]
    pub fn address(&self, slot: u32) -> Option<IpAddr> {
        SlotBlocks::address(self, slot)
    }

    /// Returns the second address of a slot of a loopback pool (L6 in
    /// [`crate::session::Addresses`]); `None` in other pools.
    ///
    /// The offset of the second address from the middle of its range equals the offset of the first
    /// address from the start of the range.
    #[must_use]
    pub fn loopback6(&self, slot: u32) -> Option<IpAddr> {
        match self.kind {
            PoolKind::Loopback => SlotBlocks::loopback6(self, slot),
            PoolKind::VirtualIp => None,
        }
    }

    /// Returns the slot of an address; `None` for a second loopback address.
    #[must_use]
    pub fn slot_of(&self, address: IpAddr) -> Option<u32> {
        SlotBlocks::slot_of(self, address)
    }
}

/// The blocks of a pool, in memory or in a map: ranges with the number of their first slot, sorted
/// by slot.
pub(crate) trait SlotBlocks {
    /// Returns the number of slots.
    fn slot_count(&self) -> u32;

    /// Returns the number of blocks.
    fn block_count(&self) -> usize;

    /// Returns the first slot and the range of a block.
    fn block(&self, index: usize) -> Option<(u32, Range)>;

    /// Returns the block that contains a slot.
    fn block_of(&self, slot: u32) -> Option<(u32, Range)> {
        if slot >= self.slot_count() {
            return None;
        }
        // Binary search for the number of blocks that begin at or before the slot.
        let (mut low, mut high) = (0, self.block_count());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.block(middle)?.0 <= slot {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        self.block(low.checked_sub(1)?)
    }

    /// Returns the address of a slot.
    fn address(&self, slot: u32) -> Option<IpAddr> {
        let (first_slot, range) = self.block_of(slot)?;
        range.nth(u128::from(slot.checked_sub(first_slot)?))
    }

    /// Returns the second address of a slot of a loopback pool.
    fn loopback6(&self, slot: u32) -> Option<IpAddr> {
        let (first_slot, range) = self.block_of(slot)?;
        range.nth(u128::from(slot.checked_sub(first_slot)?) + range.span().div_ceil(2))
    }

    /// Returns the slot of an address; `None` for a second loopback address.
    fn slot_of(&self, address: IpAddr) -> Option<u32> {
        (0..self.block_count()).find_map(|index| {
            let (first_slot, range) = self.block(index)?;
            let offset = u32::try_from(range.offset_of(address)?).ok()?;
            let slot = first_slot.checked_add(offset)?;
            // If a range has more addresses than slots, a later block can contain the address.
            let end_slot = self.block(index + 1).map_or(self.slot_count(), |(slot, _)| slot);
            (slot < end_slot.min(self.slot_count())).then_some(slot)
        })
    }

    /// Returns the slot of a second loopback address.
    fn slot_of_loopback6(&self, address: IpAddr) -> Option<u32> {
        (0..self.block_count()).find_map(|index| {
            let (first_slot, range) = self.block(index)?;
            let offset = range.offset_of(address)?.checked_sub(range.span().div_ceil(2))?;
            let slot = first_slot.checked_add(u32::try_from(offset).ok()?)?;
            (self.loopback6(slot) == Some(address)).then_some(slot)
        })
    }

    /// Returns whether the address is in one of the ranges. It can be a second loopback address or
    /// an address without a slot.
    fn contains(&self, address: IpAddr) -> bool {
        (0..self.block_count())
            .filter_map(|index| self.block(index))
            .any(|(_, range)| range.contains(address))
    }
}

impl SlotBlocks for Pool {
    fn slot_count(&self) -> u32 {
        self.slot_count
    }

    fn block_count(&self) -> usize {
        self.blocks.len()
    }

    fn block(&self, index: usize) -> Option<(u32, Range)> {
        self.blocks.get(index).copied()
    }
}
