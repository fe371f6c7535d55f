//! A map says of its addresses what the pool it was made from says, also after new plans.

use std::net::IpAddr;

use proptest::prelude::*;

use super::engine::reap::{Probe, reap};
use super::engine::state::State;
use super::format::queue::Queue;
use super::format::record;
use super::types::plan::{Leader, OpenOptions, Plan, Settings, pair};
use crate::Tick;
use crate::pool::{Pool, PoolKind};
use crate::range::Range;
use crate::sync::Ordering;

fn range(first: u8, length: u8, kind: PoolKind) -> Range {
    let address = |low: u8| match kind {
        PoolKind::VirtualIp => IpAddr::from([10, 0, 0, low]),
        PoolKind::Loopback => IpAddr::from([127, 9, 0, low]),
    };
    Range::new(address(first), address(first.saturating_add(length).min(99))).unwrap()
}

/// A pool of some ranges below 100 that do not overlap, of at most so many slots.
fn pool(kind: PoolKind) -> impl Strategy<Value = Pool> {
    (prop::collection::vec((0u8..90, 0u8..20), 1..4), 0u32..60).prop_map(move |(pieces, most)| {
        let mut ranges: Vec<Range> = Vec::new();
        for (first, length) in pieces {
            let new = range(first, length, kind);
            if ranges.iter().all(|range| range.intersection(&new).is_none()) {
                ranges.push(new);
            }
        }
        Pool::new("default", kind, &ranges, most).unwrap()
    })
}

fn kinds() -> impl Strategy<Value = (Pool, Pool)> {
    prop_oneof![
        (pool(PoolKind::VirtualIp), pool(PoolKind::VirtualIp)),
        (pool(PoolKind::Loopback), pool(PoolKind::Loopback)),
    ]
}

fn addresses(pool: &Pool) -> Vec<IpAddr> {
    (0..pool.slots()).map(|slot| pool.address(slot).unwrap()).collect()
}

/// Whether slots and addresses of a map made from this pool are those of the pool.
fn check_layout(pool: &Pool) -> Result<(), TestCaseError> {
    let plan = Plan { pools: vec![pool.clone()], ..Plan::default() };
    let state = State::in_memory(&plan).unwrap();
    let (words, layout) = (state.map.words(), state.layout.pools()[0]);
    for slot in 0..pool.slots() + 3 {
        prop_assert_eq!(layout.address(words, slot), pool.address(slot));
        prop_assert_eq!(layout.twin(words, slot), pool.twin(slot));
    }
    for low in 0..=110 {
        for address in [IpAddr::from([10, 0, 0, low]), IpAddr::from([127, 9, 0, low])] {
            prop_assert_eq!(layout.slot_of(words, address), pool.slot_of(address));
        }
    }
    prop_assert_eq!(layout.as_planned(words), pool.clone());
    Ok(())
}

#[test]
fn what_was_written_of_a_lease_that_was_never_committed_is_said_of_nobody() {
    let ranges = ["10.0.0.1".parse().unwrap()];
    let pool = Pool::new("default", PoolKind::VirtualIp, &ranges, 1).unwrap();
    let state = State::in_memory(&Plan { pools: vec![pool], ..Plan::default() }).unwrap();
    // As by a writer that is killed before the lease is in place.
    let ann = OpenOptions { user: Some("ann"), ..OpenOptions::default() };
    record::write(state.records(), &state.layout.pools()[0], 0, 1, &ann);
    state.rebuild();
    let session = "7".parse().unwrap();
    let opened = state.open_anyhow(session, &OpenOptions::default(), Tick::from_secs(1)).unwrap();
    assert_eq!(opened.handle.generation, 1);
    assert_eq!(state.rows().next().unwrap().user, None);
}

#[test]
fn a_damaged_queue_frees_nothing_that_is_held() {
    let ranges = ["10.0.0.1-10.0.0.2".parse().unwrap()];
    let pool = Pool::new("default", PoolKind::VirtualIp, &ranges, 2).unwrap();
    let settings = Settings { cool_down: 5, ..Settings::default() };
    let plan = Plan { pools: vec![pool], settings, ..Plan::default() };
    let state = State::in_memory(&plan).unwrap();
    let [ann, bob, eve] = ["1", "2", "3"].map(|session| session.parse().unwrap());
    let any = OpenOptions::default();
    let held = state.open_anyhow(ann, &any, Tick::ZERO).unwrap();
    state.open_anyhow(bob, &any, Tick::ZERO).unwrap();
    state.close_session_anyhow(bob, Tick::ZERO).unwrap();
    // The queue names her slot in place of his.
    let table = state.table(0).unwrap();
    table.control[Queue::Cooling as usize].store(pair(1, 1), Ordering::Relaxed);
    assert!(state.open_anyhow(eve, &any, Tick::from_secs(100)).is_err());
    assert!(table.is_lease_of(&held.handle));
    struct Nothing;
    impl Probe for Nothing {
        fn has_sockets(&mut self, _: IpAddr) -> bool {
            false
        }
        fn is_gone(&mut self, _: &Leader) -> bool {
            false
        }
    }
    reap(&state, Tick::from_secs(100), u32::MAX, &mut Nothing);
    assert!(table.is_lease_of(&held.handle));
    state.rebuild();
    assert!(state.open_anyhow(eve, &any, Tick::from_secs(100)).is_ok());
}

proptest! {
    #[test]
    fn a_map_numbers_addresses_as_its_pool_does((old, new) in kinds()) {
        check_layout(&old)?;
        check_layout(&old.extended(&new))?;
        check_layout(&old.extended(&new).extended(&old))?;
    }

    #[test]
    fn a_pool_that_is_extended_keeps_its_slots_and_has_no_address_twice((old, new) in kinds()) {
        let extended = old.extended(&new);
        let all = addresses(&extended);
        prop_assert_eq!(&all[..old.slots() as usize], addresses(&old));
        let twins = (0..extended.slots()).filter_map(|slot| extended.twin(slot));
        let mut each: Vec<IpAddr> = all.iter().copied().chain(twins).collect();
        let count = each.len();
        each.sort_unstable();
        each.dedup();
        prop_assert_eq!(each.len(), count);
        if old.kind() == PoolKind::VirtualIp {
            let missing = addresses(&new).into_iter().find(|address| !all.contains(address));
            prop_assert_eq!(missing, None);
        }
    }
}
