//! New plans over old ones: what is added can be used, what is gone goes out of use, and nothing is
//! taken from a session.

use std::collections::BTreeSet;
use std::path::Path;

use vipool::Tick;
use vipool::map::{Map, OpenOptions, Plan};
use vipool::pool::{Pool, PoolKind, Reservation};

use crate::support::{addresses, id, only, user};

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn plan(kind: PoolKind, ranges: &[&str], slots: u32) -> Plan {
    let ranges: Vec<_> = ranges.iter().map(|range| range.parse().unwrap()).collect();
    let pool = Pool::new("default", kind, &ranges, slots).unwrap();
    Plan { pools: vec![pool], ..Plan::default() }
}

/// Opens sessions until none can be; answers what they were given.
fn all(map: &Map, from: u64) -> BTreeSet<String> {
    (from..)
        .map_while(|number| map.open_session(id(number), &OpenOptions::default(), Tick::ZERO).ok())
        .map(|opened| only(&opened.leases))
        .collect()
}

fn numbers(directory: &Path) -> (u32, u32, u32) {
    let pool = &vipool::map::Reader::attach(directory).unwrap().pools()[0];
    (pool.free, pool.used, pool.drained)
}

#[test]
fn a_sparse_prefix_grows_and_what_is_new_can_be_asked_for() {
    let directory = directory();
    let sparse = |slots| plan(PoolKind::VirtualIp, &["fd00::/64"], slots);
    let map = Map::create(directory.path(), &sparse(4)).unwrap();
    let first = map.open_session(id(1), &OpenOptions::default(), Tick::ZERO).unwrap();
    let reservations =
        vec![Reservation { user: "ann".into(), address: "fd00::5".parse().unwrap() }];
    let map = Map::create(directory.path(), &Plan { reservations, ..sparse(8) }).unwrap();
    assert!(map.reader().unwrap().is_live(&first.handle));
    assert_eq!(only(&map.open_session(id(2), &user("ann"), Tick::ZERO).unwrap().leases), "fd00::5");
    let asked = OpenOptions { address: "fd00::6".parse().ok(), ..OpenOptions::default() };
    assert_eq!(only(&map.open_session(id(3), &asked, Tick::ZERO).unwrap().leases), "fd00::6");
    assert_eq!(all(&map, 4).len(), 5);
    // Smaller again: those behind the fourth go out of use as they are given back.
    let map = Map::create(directory.path(), &sparse(4)).unwrap();
    for number in 1..=8 {
        map.close_session(id(number), Tick::ZERO).unwrap();
    }
    assert_eq!(numbers(directory.path()), (4, 0, 4));
}

#[test]
fn a_loopback_range_grows_by_whole_pairs() {
    let directory = directory();
    let loopback = |range| plan(PoolKind::Loopback, &[range], u32::MAX);
    let map = Map::create(directory.path(), &loopback("127.9.0.0/28")).unwrap();
    let first = map.open_session(id(1), &OpenOptions::default(), Tick::ZERO).unwrap();
    let twin = map.reader().unwrap().addresses(&first.leases).loopback6;
    let map = Map::create(directory.path(), &loopback("127.9.0.0/27")).unwrap();
    assert_eq!(numbers(directory.path()), (15, 1, 0));
    let reader = map.reader().unwrap();
    assert_eq!(reader.addresses(&first.leases).loopback6, twin);
    // Every address belongs to one session, be it as its own or as a twin.
    let mut seen = BTreeSet::from([addresses(&first.leases)[0], twin.unwrap().into()]);
    for number in 2..=16 {
        let opened = map.open_session(id(number), &OpenOptions::default(), Tick::ZERO).unwrap();
        let found = reader.addresses(&opened.leases);
        assert!(seen.insert(found.loopback.unwrap().into()));
        assert!(seen.insert(found.loopback6.unwrap().into()));
    }
    assert_eq!(seen.len(), 32);
    // Another range altogether: the sessions keep what they have, and nobody gets it after them.
    let map = Map::create(directory.path(), &loopback("127.10.0.0/29")).unwrap();
    assert_eq!(numbers(directory.path()), (4, 16, 0));
    map.close_by_handle(&first.handle, Tick::ZERO).unwrap();
    assert_eq!(numbers(directory.path()), (4, 15, 1));
}

#[test]
fn a_range_that_goes_and_comes_back_has_forgotten_nothing() {
    let directory = directory();
    let two = plan(PoolKind::VirtualIp, &["10.0.0.1-10.0.0.2", "10.0.1.1-10.0.1.2"], u32::MAX);
    let one = plan(PoolKind::VirtualIp, &["10.0.0.1-10.0.0.2"], u32::MAX);
    let map = Map::create(directory.path(), &two).unwrap();
    let asked = OpenOptions { address: "10.0.1.1".parse().ok(), ..user("ann") };
    let kept = map.open_session(id(1), &asked, Tick::ZERO).unwrap();
    map.drain(&"10.0.1.2".parse().unwrap(), Tick::ZERO).unwrap();
    let map = Map::create(directory.path(), &one).unwrap();
    assert_eq!(all(&map, 10), BTreeSet::from(["10.0.0.1".into(), "10.0.0.2".into()]));
    map.close_by_handle(&kept.handle, Tick::ZERO).unwrap();
    assert!(map.open_session(id(2), &user("ann"), Tick::ZERO).is_err());
    let map = Map::create(directory.path(), &two).unwrap();
    // Her last address is hers again; what was drained by hand still is.
    assert_eq!(
        only(&map.open_session(id(2), &user("ann"), Tick::ZERO).unwrap().leases),
        "10.0.1.1"
    );
    assert_eq!(numbers(directory.path()), (0, 3, 1));
    map.undrain(&"10.0.1.2".parse().unwrap(), Tick::ZERO).unwrap();
    assert_eq!(all(&map, 20), BTreeSet::from(["10.0.1.2".into()]));
}
