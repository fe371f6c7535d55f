//! The addresses that several pools have in common.

use crate::pool::{Pool, PoolKind};
use crate::range::bits;

/// Consecutive addresses that two pools have in common.
pub(crate) struct Overlap {
    pub(crate) count: u32,
    /// For each of the two pools, its index and the slot of the first address.
    first_slots: [(usize, u32); 2],
}

impl Overlap {
    /// Returns, for both pools, the pool index and the slot of the address at this offset.
    pub(crate) fn slots_at(&self, offset: u32) -> [(usize, u32); 2] {
        self.first_slots.map(|(pool, slot)| (pool, slot + offset))
    }
}

/// Consecutive addresses of one pool.
struct Run {
    is_ipv4: bool,
    first_address: u128,
    last_address: u128,
    pool_index: usize,
    first_slot: u32,
}

/// Returns the addresses of a pool as runs. For a loopback pool, includes the second address of
/// each slot (`Pool::loopback6`).
fn runs(pool_index: usize, pool: &Pool) -> impl Iterator<Item = Run> {
    let block_ends = pool.blocks().iter().skip(1).map(|(slot, _)| *slot).chain([pool.slot_count()]);
    pool.blocks().iter().zip(block_ends).flat_map(move |((first_slot, range), block_end)| {
        let loopback6_offset =
            (pool.kind() == PoolKind::Loopback).then(|| range.span().div_ceil(2));
        let last_offset = u128::from(block_end.saturating_sub(*first_slot)).checked_sub(1);
        [Some(0), loopback6_offset].into_iter().flatten().filter_map(move |offset| {
            let first_address = range.nth(offset)?;
            let last_address = range.nth(offset.checked_add(last_offset?)?)?;
            Some(Run {
                is_ipv4: first_address.is_ipv4(),
                first_address: bits(first_address),
                last_address: bits(last_address),
                pool_index,
                first_slot: *first_slot,
            })
        })
    })
}

/// Returns, for each pair of these pools, the addresses that both pools contain.
pub(crate) fn find_overlaps(pools: &[Pool]) -> Vec<Overlap> {
    let mut all_runs: Vec<Run> =
        pools.iter().enumerate().flat_map(|(index, pool)| runs(index, pool)).collect();
    all_runs.sort_unstable_by_key(|run| (run.is_ipv4, run.first_address));
    let mut overlaps = Vec::new();
    // The earlier runs that can overlap the next run. There are few, because the runs of one pool
    // normally do not overlap each other.
    let mut active_runs: Vec<Run> = Vec::new();
    for run in all_runs {
        active_runs.retain(|active_run| {
            active_run.is_ipv4 == run.is_ipv4 && active_run.last_address >= run.first_address
        });
        let overlapping_runs =
            active_runs.iter().filter(|active_run| active_run.pool_index != run.pool_index);
        overlaps.extend(overlapping_runs.map(|active_run| {
            let last_address = active_run.last_address.min(run.last_address);
            let count = (last_address - run.first_address + 1) as u32;
            let offset = (run.first_address - active_run.first_address) as u32;
            let active_slot = active_run.first_slot + offset;
            let first_slots =
                [(active_run.pool_index, active_slot), (run.pool_index, run.first_slot)];
            Overlap { count, first_slots }
        }));
        active_runs.push(run);
    }
    overlaps
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::net::IpAddr;

    use proptest::prelude::*;

    use super::*;
    use crate::range::Range;

    const KINDS: [PoolKind; 2] = [PoolKind::VirtualIp, PoolKind::Loopback];

    /// Returns two pools of one kind, because pools of different kinds have no common addresses.
    fn two_pools() -> impl Strategy<Value = (Pool, Pool)> {
        prop::sample::select(KINDS.to_vec()).prop_flat_map(|kind| (pool(kind), pool(kind)))
    }

    /// Returns a pool of disjoint ranges of one /16 prefix.
    fn pool(kind: PoolKind) -> impl Strategy<Value = Pool> {
        let gaps_and_spans = prop::collection::vec((0u32..12, 0u32..9), 0..4);
        let prefix = match kind {
            PoolKind::VirtualIp => [10, 9, 0, 0],
            PoolKind::Loopback => [127, 9, 0, 0],
        };
        (gaps_and_spans, 0u32..20).prop_map(move |(gaps_and_spans, max_slots)| {
            let mut ranges = Vec::new();
            let mut next_bits = u32::from_be_bytes(prefix);
            for (gap, span) in gaps_and_spans {
                let first_bits = next_bits + gap;
                let last_bits = first_bits + span;
                let [first_address, last_address] =
                    [first_bits, last_bits].map(|bits| IpAddr::V4(bits.into()));
                ranges.push(Range::new(first_address, last_address).unwrap());
                next_bits = last_bits + 1;
            }
            Pool::new("default", kind, &ranges, max_slots).unwrap()
        })
    }

    proptest! {
        #[test]
        fn overlaps_contain_exactly_the_common_addresses(
            (pool, other_pool) in two_pools(),
        ) {
            let addresses = |pool: &Pool| -> Vec<(IpAddr, u32)> {
                let slot_addresses = |slot| {
                    [pool.address(slot), pool.loopback6(slot)].map(|ip| Some((ip?, slot)))
                };
                (0..pool.slot_count()).flat_map(slot_addresses).flatten().collect()
            };
            let mut expected: Vec<[(usize, u32); 2]> = Vec::new();
            for (address, slot) in addresses(&pool) {
                for (other_address, other_slot) in addresses(&other_pool) {
                    if other_address == address {
                        expected.push([(0, slot), (1, other_slot)]);
                    }
                }
            }
            let mut actual: Vec<_> = find_overlaps(&[pool, other_pool])
                .iter()
                .flat_map(|overlap| (0..overlap.count).map(|offset| overlap.slots_at(offset)))
                .collect();
            actual.iter_mut().for_each(|slots| slots.sort_unstable());
            actual.sort_unstable();
            expected.sort_unstable();
            prop_assert_eq!(actual, expected);
        }
    }
}
