//! Tests of new plans for an existing map. The map allocates added addresses, revokes no lease, and
//! retires removed addresses: after their release, they count as drained.

use std::collections::BTreeSet;
use std::path::Path;

use vipool::Tick;
use vipool::map::{Map, OpenOptions, Plan, Settings};
use vipool::pool::{Pool, PoolKind, Reservation};

use crate::support::{addresses_of, for_user, only_address, session_id};

fn new_directory() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn plan(kind: PoolKind, ranges: &[&str], max_slots: u32) -> Plan {
    let ranges: Vec<_> = ranges.iter().map(|range| range.parse().unwrap()).collect();
    let pool = Pool::new("default", kind, &ranges, max_slots).unwrap();
    Plan::new([pool]).with_settings(Settings::without_cool_down())
}

/// Opens sessions until the pool is exhausted. Returns their addresses.
fn open_all(map: &Map, first_number: u64) -> BTreeSet<String> {
    (first_number..)
        .map_while(|number| {
            map.open_session(session_id(number), &OpenOptions::default(), Tick::ZERO).ok()
        })
        .map(|opened| only_address(&opened.leases))
        .collect()
}

/// Returns the numbers of free, leased and drained addresses of the first pool.
fn state_counts(directory: &Path) -> (u32, u32, u32) {
    let pool = &vipool::map::Reader::attach(directory).unwrap().pools()[0];
    (pool.free, pool.leased, pool.drained)
}

#[test]
fn grown_sparse_prefix_serves_requests_for_new_addresses() {
    let directory = new_directory();
    let sparse_plan = |max_slots| plan(PoolKind::VirtualIp, &["fd00::/64"], max_slots);
    let map = Map::create(directory.path(), &sparse_plan(4)).unwrap();
    let first_session =
        map.open_session(session_id(1), &OpenOptions::default(), Tick::ZERO).unwrap();
    let reservations = vec![Reservation::new("fd00::5".parse().unwrap(), "ann")];
    let map =
        Map::create(directory.path(), &sparse_plan(8).with_reservations(reservations)).unwrap();
    assert!(map.reader().unwrap().is_live(&first_session.handle));
    assert_eq!(
        only_address(
            &map.open_session(session_id(2), &for_user("ann"), Tick::ZERO).unwrap().leases
        ),
        "fd00::5"
    );
    let options = OpenOptions::new().with_address("fd00::6".parse().ok());
    assert_eq!(
        only_address(&map.open_session(session_id(3), &options, Tick::ZERO).unwrap().leases),
        "fd00::6"
    );
    assert_eq!(open_all(&map, 4).len(), 5);
    // The next plan again uses only the first four addresses of the prefix. The other addresses
    // retire when their sessions close.
    let map = Map::create(directory.path(), &sparse_plan(4)).unwrap();
    for number in 1..=8 {
        map.close_session(session_id(number), Tick::ZERO).unwrap();
    }
    assert_eq!(state_counts(directory.path()), (4, 0, 4));
}

#[test]
fn loopback_range_grows_by_whole_pairs() {
    let directory = new_directory();
    let loopback_plan = |range| plan(PoolKind::Loopback, &[range], u32::MAX);
    let map = Map::create(directory.path(), &loopback_plan("127.9.0.0/28")).unwrap();
    let first_session =
        map.open_session(session_id(1), &OpenOptions::default(), Tick::ZERO).unwrap();
    let loopback6 = map.reader().unwrap().addresses(&first_session.leases).loopback6;
    let map = Map::create(directory.path(), &loopback_plan("127.9.0.0/27")).unwrap();
    assert_eq!(state_counts(directory.path()), (15, 1, 0));
    let reader = map.reader().unwrap();
    assert_eq!(reader.addresses(&first_session.leases).loopback6, loopback6);
    // Every address belongs to one session, as its first or second loopback address.
    let mut seen_addresses =
        BTreeSet::from([addresses_of(&first_session.leases)[0], loopback6.unwrap().into()]);
    for number in 2..=16 {
        let opened =
            map.open_session(session_id(number), &OpenOptions::default(), Tick::ZERO).unwrap();
        let session_addresses = reader.addresses(&opened.leases);
        assert!(seen_addresses.insert(session_addresses.loopback.unwrap().into()));
        assert!(seen_addresses.insert(session_addresses.loopback6.unwrap().into()));
    }
    assert_eq!(seen_addresses.len(), 32);
    // The next plan has a different range. The sessions keep their addresses. Each of these
    // addresses retires when its session closes.
    let map = Map::create(directory.path(), &loopback_plan("127.10.0.0/29")).unwrap();
    assert_eq!(state_counts(directory.path()), (4, 16, 0));
    map.close_by_handle(&first_session.handle, Tick::ZERO).unwrap();
    assert_eq!(state_counts(directory.path()), (4, 15, 1));
}

#[test]
fn removed_range_keeps_its_state_until_it_returns() {
    let directory = new_directory();
    let two_range_plan =
        plan(PoolKind::VirtualIp, &["10.0.0.1-10.0.0.2", "10.0.1.1-10.0.1.2"], u32::MAX);
    let one_range_plan = plan(PoolKind::VirtualIp, &["10.0.0.1-10.0.0.2"], u32::MAX);
    let map = Map::create(directory.path(), &two_range_plan).unwrap();
    let options = for_user("ann").with_address("10.0.1.1".parse().ok());
    let ann_session = map.open_session(session_id(1), &options, Tick::ZERO).unwrap();
    map.drain(&"10.0.1.2".parse().unwrap(), Tick::ZERO).unwrap();
    let map = Map::create(directory.path(), &one_range_plan).unwrap();
    assert_eq!(open_all(&map, 10), BTreeSet::from(["10.0.0.1".into(), "10.0.0.2".into()]));
    map.close_by_handle(&ann_session.handle, Tick::ZERO).unwrap();
    assert!(map.open_session(session_id(2), &for_user("ann"), Tick::ZERO).is_err());
    let map = Map::create(directory.path(), &two_range_plan).unwrap();
    // Ann gets 10.0.1.1 again, and 10.0.1.2 is still drained.
    assert_eq!(
        only_address(
            &map.open_session(session_id(2), &for_user("ann"), Tick::ZERO).unwrap().leases
        ),
        "10.0.1.1"
    );
    assert_eq!(state_counts(directory.path()), (0, 3, 1));
    map.undrain(&"10.0.1.2".parse().unwrap(), Tick::ZERO).unwrap();
    assert_eq!(open_all(&map, 20), BTreeSet::from(["10.0.1.2".into()]));
}
