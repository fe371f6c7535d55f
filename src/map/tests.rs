//! Tests of the engine, and of the address arithmetic that pools and maps share.

use std::net::IpAddr;

use proptest::prelude::*;

use super::engine::reap::Probe;
use super::engine::writer::WritableMap;
use super::format::queue::Queue;
use super::format::record;
use super::format::slot::RESERVED;
use super::format::words::join_halves;
use super::replan::build::build_in_memory;
use super::types::error::OpenError;
use super::types::plan::{Leader, OpenOptions, Plan, Settings};
use crate::Tick;
use crate::pool::{Pool, PoolKind};
use crate::range::Range;
use crate::session::SessionId;

fn range(first: u8, span: u8, kind: PoolKind) -> Range {
    let address = |last_byte: u8| match kind {
        PoolKind::VirtualIp => IpAddr::from([10, 0, 0, last_byte]),
        PoolKind::Loopback => IpAddr::from([127, 9, 0, last_byte]),
    };
    Range::new(address(first), address(first.saturating_add(span).min(99))).unwrap()
}

/// Generates a pool of disjoint ranges. The last byte of each address is below 100.
fn pool(kind: PoolKind) -> impl Strategy<Value = Pool> {
    let spans = prop::collection::vec((0u8..90, 0u8..20), 1..4);
    (spans, 0u32..60).prop_map(move |(spans, max_slots)| {
        let mut ranges: Vec<Range> = Vec::new();
        for (first, span) in spans {
            let new_range = range(first, span, kind);
            if ranges.iter().all(|range| range.intersection(&new_range).is_none()) {
                ranges.push(new_range);
            }
        }
        Pool::new("default", kind, &ranges, max_slots).unwrap()
    })
}

fn pools_of_one_kind() -> impl Strategy<Value = (Pool, Pool)> {
    prop_oneof![
        (pool(PoolKind::VirtualIp), pool(PoolKind::VirtualIp)),
        (pool(PoolKind::Loopback), pool(PoolKind::Loopback)),
    ]
}

fn addresses(pool: &Pool) -> Vec<IpAddr> {
    (0..pool.slot_count()).map(|slot| pool.address(slot).unwrap()).collect()
}

fn map_in_memory(ranges: &str, max_slots: u32, settings: Settings) -> WritableMap {
    let ranges = [ranges.parse().unwrap()];
    let pool = Pool::new("default", PoolKind::VirtualIp, &ranges, max_slots).unwrap();
    build_in_memory(&Plan { pools: vec![pool], settings, ..Plan::default() }).unwrap()
}

/// Builds a map from a pool. Checks that the map has the slots and addresses of the pool.
fn check_map_of_pool(pool: &Pool) -> Result<(), TestCaseError> {
    let map =
        build_in_memory(&Plan::new([pool.clone()]).with_settings(Settings::without_cool_down()))
            .unwrap();
    let (words, layout) = (map.words(), map.layout().pools()[0]);
    for slot in 0..pool.slot_count() + 3 {
        prop_assert_eq!(layout.address(words, slot), pool.address(slot));
        prop_assert_eq!(layout.loopback6(words, slot), pool.loopback6(slot));
        if let Some(second_address) = pool.loopback6(slot) {
            prop_assert_eq!(layout.slot_of_loopback6(words, second_address), Some(slot));
        }
        if let Some(address) = pool.address(slot) {
            prop_assert_eq!(layout.slot_of_loopback6(words, address), None);
        }
    }
    for last_byte in 0..=110 {
        for address in [IpAddr::from([10, 0, 0, last_byte]), IpAddr::from([127, 9, 0, last_byte])] {
            prop_assert_eq!(layout.slot_of(words, address), pool.slot_of(address));
        }
    }
    prop_assert_eq!(layout.to_pool(words), pool.clone());
    Ok(())
}

#[test]
fn a_record_of_an_uncommitted_lease_is_not_attributed_to_the_next_session() {
    let mut map = map_in_memory("10.0.0.1", 1, Settings::without_cool_down());
    // A writer writes the record and is killed before it commits the lease.
    let ann = OpenOptions { user: Some("ann"), ..OpenOptions::default() };
    let writer = map.writer();
    let user = writer.user_hash("ann").unwrap();
    record::write(writer.access(), writer.table(0).unwrap().record(0).unwrap(), 1, &ann, user);
    writer.rebuild();
    let session = "7".parse().unwrap();
    let opened =
        map.begin().open_session_and_commit(session, &OpenOptions::default(), Tick::from_secs(1));
    assert_eq!(opened.unwrap().handle.generation, 1);
    assert_eq!(map.sessions().next().unwrap().user, None);
}

/// Returns two user names with the same tag in this map.
fn names_with_one_tag(map: &WritableMap) -> [String; 2] {
    let mut names = std::collections::HashMap::new();
    for number in 0.. {
        let name = format!("user{number}");
        let tag = map.user_hash(&name).unwrap().tag();
        if let Some(earlier_name) = names.insert(tag, name.clone()) {
            return [earlier_name, name];
        }
    }
    unreachable!("there are fewer tags than names")
}

#[test]
fn users_with_one_tag_are_different_users() {
    let settings =
        Settings { cool_down: 60, sessions_per_user: 1, ..Settings::without_cool_down() };
    let mut map = map_in_memory("10.0.0.1-10.0.0.3", 3, settings);
    let [ann, eve] = names_with_one_tag(&map);
    let open = |map: &mut WritableMap, number: u64, name: &str, address: Option<&str>, now| {
        let address = address.map(|address| address.parse().unwrap());
        let options = OpenOptions { user: Some(name), address, ..OpenOptions::default() };
        let session = number.to_string().parse().unwrap();
        map.begin().open_session_and_commit(session, &options, Tick::from_secs(now)).map(|opened| {
            let address = opened.leases.iter().next().unwrap().address;
            address.to_string()
        })
    };
    let close = |map: &mut WritableMap, number: u64, now| {
        let session = number.to_string().parse().unwrap();
        map.begin().close_session_and_commit(session, Tick::from_secs(now)).unwrap();
    };
    // The sessions of one user do not count for the limit of the other user.
    assert_eq!(open(&mut map, 1, &ann, None, 1).unwrap(), "10.0.0.1");
    assert_eq!(open(&mut map, 2, &eve, None, 1).unwrap(), "10.0.0.2");
    assert!(matches!(open(&mut map, 3, &ann, None, 1), Err(OpenError::Quota { .. })));
    // eve is not the last user of 10.0.0.1, so she waits for its cool-down. Both have one tag.
    close(&mut map, 1, 2);
    close(&mut map, 2, 3);
    let result = open(&mut map, 3, &eve, Some("10.0.0.1"), 4);
    assert!(matches!(result, Err(OpenError::AddressCooling(..))), "{result:?}");
    assert_eq!(open(&mut map, 3, &ann, None, 4).unwrap(), "10.0.0.1");
    assert_eq!(open(&mut map, 4, &eve, None, 4).unwrap(), "10.0.0.2");
    close(&mut map, 3, 5);
    close(&mut map, 4, 5);
    // A reservation for one user does not admit the other user.
    let transaction = map.begin();
    let user = transaction.user_hash(&ann).unwrap();
    let table = transaction.table_writer(0).unwrap();
    table.write_reservation(2, user);
    table.change_flags(2, RESERVED, 0, Some(user.tag()), transaction.new_stamp(Tick::ZERO));
    transaction.commit();
    let result = open(&mut map, 5, &eve, Some("10.0.0.3"), 6);
    assert!(matches!(result, Err(OpenError::ReservedForAnother(_))), "{result:?}");
    assert_eq!(open(&mut map, 5, &eve, None, 6).unwrap(), "10.0.0.2");
    assert_eq!(open(&mut map, 6, &ann, None, 6).unwrap(), "10.0.0.3");
}

#[test]
fn a_damaged_queue_frees_no_leased_slot() {
    let settings = Settings { cool_down: 5, ..Settings::without_cool_down() };
    let mut map = map_in_memory("10.0.0.1-10.0.0.2", 2, settings);
    let [ann, bob, eve]: [SessionId; 3] = ["1", "2", "3"].map(|text| text.parse().unwrap());
    let (start_time, end_time) = (Tick::ZERO, Tick::from_secs(100));
    let options = OpenOptions::default();
    let opened = map.begin().open_session_and_commit(ann, &options, start_time).unwrap();
    map.begin().open_session_and_commit(bob, &options, start_time).unwrap();
    map.begin().close_session_and_commit(bob, start_time).unwrap();
    // The cooling queue now contains the slot of ann instead of the slot of bob.
    let writer = map.writer();
    let table = writer.table_writer(0).unwrap();
    table.control[Queue::Cooling as usize].store_relaxed(writer.access(), join_halves(1, 1));
    assert!(map.begin().open_session_and_commit(eve, &options, end_time).is_err());
    assert!(map.is_live(&opened.handle));

    struct IdleSystem;
    impl Probe for IdleSystem {
        fn has_sockets(&mut self, _: IpAddr) -> bool {
            false
        }
        fn has_exited(&mut self, _: &Leader) -> bool {
            false
        }
    }
    map.transact(|transaction| transaction.reap(end_time, u32::MAX, &mut IdleSystem, None));
    assert!(map.is_live(&opened.handle));
    map.writer().rebuild();
    assert!(map.begin().open_session_and_commit(eve, &options, end_time).is_ok());
}

proptest! {
    #[test]
    fn a_map_and_its_pool_have_equal_slot_numbers((old_pool, new_pool) in pools_of_one_kind()) {
        check_map_of_pool(&old_pool)?;
        check_map_of_pool(&old_pool.extended(&new_pool))?;
        check_map_of_pool(&old_pool.extended(&new_pool).extended(&old_pool))?;
    }

    #[test]
    fn an_extended_pool_keeps_its_slots_and_repeats_no_address(
        (old_pool, new_pool) in pools_of_one_kind(),
    ) {
        let extended_pool = old_pool.extended(&new_pool);
        let slot_addresses = addresses(&extended_pool);
        prop_assert_eq!(&slot_addresses[..old_pool.slot_count() as usize], addresses(&old_pool));
        let second_addresses =
            (0..extended_pool.slot_count()).filter_map(|slot| extended_pool.loopback6(slot));
        let mut distinct_addresses: Vec<IpAddr> =
            slot_addresses.iter().copied().chain(second_addresses).collect();
        let address_count = distinct_addresses.len();
        distinct_addresses.sort_unstable();
        distinct_addresses.dedup();
        prop_assert_eq!(distinct_addresses.len(), address_count);
        if old_pool.kind() == PoolKind::VirtualIp {
            let missing_address =
                addresses(&new_pool).into_iter().find(|address| !slot_addresses.contains(address));
            prop_assert_eq!(missing_address, None);
        }
    }
}
