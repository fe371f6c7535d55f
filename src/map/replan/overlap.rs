//! The addresses that several pools have in common.

use std::net::IpAddr;

use crate::pool::{Pool, PoolKind};
use crate::range::bits;

/// Consecutive addresses that two pools have in common.
pub(crate) struct Overlap {
    pub(crate) count: u32,
    /// For each of the two pools, its index and the slot of the first address.
    first_slots: [(usize, u32); 2],
}

impl Overlap {
    /// Returns the pool index and the slot, in both pools, of the address at this offset.
    pub(crate) fn slots_at(&self, offset: u32) -> [(usize, u32); 2] {
        self.first_slots.map(|(pool, slot)| (pool, slot + offset))
    }
}

/// Consecutive addresses of one pool.
struct Run {
    is_ipv4: bool,
    first: u128,
    last: u128,
    pool: usize,
    slot: u32,
}

/// Returns the addresses of a pool as runs. For a loopback pool, includes the second address of
/// each slot (`Pool::loopback6`).
fn runs(number: usize, pool: &Pool) -> impl Iterator<Item = Run> {
    let ends = pool.blocks().iter().skip(1).map(|(slot, _)| *slot).chain([pool.slots()]);
    pool.blocks().iter().zip(ends).flat_map(move |((slot, range), end)| {
        let loopback6_offset =
            (pool.kind() == PoolKind::Loopback).then(|| range.span().div_ceil(2));
        let last_offset = u128::from(end.saturating_sub(*slot)).checked_sub(1);
        [Some(0), loopback6_offset].into_iter().flatten().filter_map(move |offset| {
            let first = range.nth(offset)?;
            let last = range.nth(offset.checked_add(last_offset?)?)?;
            let run = |first: IpAddr, last| Run {
                is_ipv4: first.is_ipv4(),
                first: bits(first),
                last: bits(last),
                pool: number,
                slot: *slot,
            };
            Some(run(first, last))
        })
    })
}

/// Returns the addresses that two of these pools have in common.
pub(crate) fn find_overlaps(pools: &[Pool]) -> Vec<Overlap> {
    let mut all_runs: Vec<Run> =
        pools.iter().enumerate().flat_map(|(number, pool)| runs(number, pool)).collect();
    all_runs.sort_unstable_by_key(|run| (run.is_ipv4, run.first));
    let mut overlaps = Vec::new();
    // The earlier runs that can overlap the next run. There is rarely more than one per pool.
    let mut active_runs: Vec<Run> = Vec::new();
    for run in all_runs {
        active_runs.retain(|active| active.is_ipv4 == run.is_ipv4 && active.last >= run.first);
        overlaps.extend(active_runs.iter().filter(|active| active.pool != run.pool).map(
            |active| {
                let count = (active.last.min(run.last) - run.first + 1) as u32;
                let slot = active.slot + (run.first - active.first) as u32;
                Overlap { count, first_slots: [(active.pool, slot), (run.pool, run.slot)] }
            },
        ));
        active_runs.push(run);
    }
    overlaps
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::range::Range;

    const KINDS: [PoolKind; 2] = [PoolKind::VirtualIp, PoolKind::Loopback];

    /// Returns a pool of distinct ranges of 127.9.0.0/16.
    fn pool() -> impl Strategy<Value = Pool> {
        let gaps_and_spans = prop::collection::vec((0u32..12, 0u32..9), 0..4);
        (prop::sample::select(KINDS.to_vec()), gaps_and_spans, 0u32..20).prop_map(
            |(kind, gaps_and_spans, max_slots)| {
                let mut ranges = Vec::new();
                let mut next = u32::from_be_bytes([127, 9, 0, 0]);
                for (gap, span) in gaps_and_spans {
                    let (first, last) = (next + gap, next + gap + span);
                    let [first_ip, last_ip] = [first, last].map(|ip| IpAddr::V4(ip.into()));
                    ranges.push(Range::new(first_ip, last_ip).unwrap());
                    next = last + 1;
                }
                Pool::new("default", kind, &ranges, max_slots).unwrap()
            },
        )
    }

    proptest! {
        #[test]
        fn overlaps_contain_exactly_the_common_addresses((a, b) in (pool(), pool())) {
            let addresses = |pool: &Pool| -> Vec<(IpAddr, u32)> {
                let slot_addresses = |slot| {
                    [pool.address(slot), pool.loopback6(slot)].map(|ip| Some((ip?, slot)))
                };
                (0..pool.slots()).flat_map(slot_addresses).flatten().collect()
            };
            let mut expected: Vec<[(usize, u32); 2]> = Vec::new();
            for (address, slot) in addresses(&a) {
                let common =
                    addresses(&b).into_iter().filter(|(address_of_b, _)| *address_of_b == address);
                expected.extend(common.map(|(_, slot_of_b)| [(0, slot), (1, slot_of_b)]));
            }
            let mut found: Vec<_> = find_overlaps(&[a, b])
                .iter()
                .flat_map(|overlap| (0..overlap.count).map(|offset| overlap.slots_at(offset)))
                .collect();
            found.iter_mut().for_each(|slots| slots.sort_unstable());
            found.sort_unstable();
            expected.sort_unstable();
            prop_assert_eq!(found, expected);
        }
    }
}
