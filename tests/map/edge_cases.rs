//! Tests of edge cases of pools. Some cases are errors that users of other pool allocators
//! reported.

use vipool::Tick;
use vipool::map::{CloseError, Map, MapError, OpenError, Plan, PlanError, Settings, Shortage};
use vipool::policy::{Policy, Program};
use vipool::pool::{Pool, PoolError, PoolKind};
use vipool::range::subtract;

use crate::support::{ANONYMOUS, for_address, memory_map, only_address, plan, pool, session_id};

#[test]
fn no_address_is_allocated_before_the_restore_completes() {
    let settings = Settings::without_cool_down().with_await_restore(true);
    let map = memory_map(&["10.0.0.1-10.0.0.2"], settings);
    assert!(matches!(
        map.open_session(session_id(1), &ANONYMOUS, Tick::ZERO),
        Err(OpenError::NotReady)
    ));
    assert!(matches!(
        map.open_session(session_id(1), &for_address("10.0.0.1"), Tick::ZERO),
        Err(OpenError::NotReady)
    ));
    assert!(map.reconcile(Tick::ZERO, |_, _| true).unwrap().is_empty());
    map.open_session(session_id(1), &ANONYMOUS, Tick::ZERO).unwrap();
}

#[test]
fn no_address_is_allocated_twice_across_ranges() {
    let map = memory_map(
        &["10.0.0.1-10.0.0.2", "10.0.0.9-10.0.0.12", "10.0.1.0"],
        Settings::without_cool_down(),
    );
    let mut allocated_addresses = Vec::new();
    for number in 1..=7 {
        allocated_addresses.push(only_address(
            &map.open_session(session_id(number), &ANONYMOUS, Tick::ZERO).unwrap().leases,
        ));
    }
    allocated_addresses.sort();
    allocated_addresses.dedup();
    assert_eq!(allocated_addresses.len(), 7);
    assert!(map.open_session(session_id(8), &ANONYMOUS, Tick::ZERO).is_err());
}

#[test]
fn first_and_last_addresses_are_usable() {
    for (range, address_count) in [("10.0.0.0/31", 2), ("10.0.0.7/32", 1), ("223.255.255.255", 1)] {
        let map = memory_map(&[range], Settings::without_cool_down());
        for number in 1..=address_count {
            map.open_session(session_id(number), &ANONYMOUS, Tick::ZERO).unwrap();
        }
        assert!(map.open_session(session_id(9), &ANONYMOUS, Tick::ZERO).is_err(), "{range}");
    }
    let map = memory_map(&["10.0.0.10-10.0.0.20"], Settings::without_cool_down());
    map.open_session(session_id(1), &for_address("10.0.0.10"), Tick::ZERO).unwrap();
    map.open_session(session_id(2), &for_address("10.0.0.20"), Tick::ZERO).unwrap();
    assert!(matches!(
        map.open_session(session_id(3), &for_address("10.0.0.9"), Tick::ZERO),
        Err(OpenError::Excluded(_))
    ));
    assert!(matches!(
        map.open_session(session_id(3), &for_address("10.0.0.21"), Tick::ZERO),
        Err(OpenError::Excluded(_))
    ));
}

#[test]
fn empty_and_fully_excluded_pools_are_exhausted() {
    let range = "10.0.0.0/30".parse().unwrap();
    let remaining_ranges = subtract(&[range], &[range]);
    for ranges in [&[][..], &remaining_ranges] {
        let pool = Pool::new("default", PoolKind::VirtualIp, ranges, u32::MAX).unwrap();
        let map = Map::in_memory(&Plan::new([pool])).unwrap();
        assert!(matches!(
            map.open_session(session_id(1), &ANONYMOUS, Tick::ZERO),
            Err(OpenError::Shortage { shortage: Shortage::Exhausted, .. })
        ));
        map.recover().unwrap();
        assert_eq!(map.reader().unwrap().pools()[0].slots, 0);
    }
    let empty_map = Map::in_memory(&Plan::default()).unwrap();
    assert!(empty_map.open_session(session_id(1), &ANONYMOUS, Tick::ZERO).is_err());
    assert!(matches!(
        empty_map.close_session(session_id(1), Tick::ZERO),
        Err(CloseError::NotOpen(_))
    ));
}

#[test]
fn generations_increase_while_the_queue_wraps_around() {
    let map = memory_map(&["10.0.0.1-10.0.0.3"], Settings::without_cool_down());
    let mut last_handle = None;
    for number in 1..10_000u32 {
        let opened = map
            .open_session(session_id(number.into()), &ANONYMOUS, Tick::from_secs(number))
            .unwrap();
        assert_eq!(only_address(&opened.leases), format!("10.0.0.{}", (number - 1) % 3 + 1));
        map.close_by_handle(&opened.handle, Tick::from_secs(number)).unwrap();
        assert!(matches!(
            map.close_by_handle(&opened.handle, Tick::from_secs(number)),
            Err(CloseError::Stale(_))
        ));
        last_handle = Some(opened.handle);
    }
    assert_eq!(last_handle.unwrap().generation, 3333);
}

#[test]
fn ipv6_prefix_serves_its_first_addresses() {
    let settings = Settings::without_cool_down();
    let range = "2001:db8::/64".parse().unwrap();
    let pool = Pool::new("default", PoolKind::VirtualIp, &[range], 1000).unwrap();
    let map = Map::in_memory(&Plan::new([pool]).with_settings(settings)).unwrap();
    map.open_session(session_id(1), &for_address("2001:db8::3e7"), Tick::ZERO).unwrap();
    assert!(matches!(
        map.open_session(session_id(2), &for_address("2001:db8::ffff:ffff"), Tick::ZERO),
        Err(OpenError::Excluded(_))
    ));
    assert_eq!(map.drain(&range, Tick::ZERO).unwrap().addresses, 1000);
    assert!(map.open_session(session_id(3), &ANONYMOUS, Tick::ZERO).is_err());
    map.undrain(&range, Tick::ZERO).unwrap();
    assert_eq!(
        only_address(&map.open_session(session_id(3), &ANONYMOUS, Tick::ZERO).unwrap().leases),
        "2001:db8::"
    );
}

#[test]
fn draining_server_allocates_nothing_even_on_request() {
    let map = memory_map(&["10.0.0.1-10.0.0.2"], Settings::without_cool_down());
    let opened = map.open_session(session_id(1), &ANONYMOUS, Tick::ZERO).unwrap();
    map.drain_server(true).unwrap();
    assert!(map.open_session(session_id(1), &ANONYMOUS, Tick::ZERO).unwrap().already_open);
    for options in [ANONYMOUS, for_address("10.0.0.2")] {
        assert!(matches!(
            map.open_session(session_id(2), &options, Tick::ZERO),
            Err(OpenError::Shortage { shortage: Shortage::Draining, .. })
        ));
    }
    assert!(map.reader().unwrap().is_live(&opened.handle));
    map.drain_server(false).unwrap();
    map.open_session(session_id(2), &for_address("10.0.0.2"), Tick::ZERO).unwrap();
}

#[test]
fn undrain_of_undrained_addresses_keeps_their_order() {
    let settings = Settings::without_cool_down().with_cool_down(10);
    let map = memory_map(&["10.0.0.1-10.0.0.3"], settings);
    for number in 1..=3 {
        map.open_session(session_id(number), &ANONYMOUS, Tick::ZERO).unwrap();
    }
    for number in [2, 1, 3] {
        map.close_session(session_id(number), Tick::ZERO).unwrap();
    }
    map.undrain(&"10.0.0.0/24".parse().unwrap(), Tick::from_secs(9)).unwrap();
    let next_addresses: Vec<_> = (4..=6)
        .map(|number| {
            only_address(
                &map.open_session(session_id(number), &ANONYMOUS, Tick::from_secs(10))
                    .unwrap()
                    .leases,
            )
        })
        .collect();
    assert_eq!(next_addresses, ["10.0.0.2", "10.0.0.1", "10.0.0.3"]);
}

#[test]
fn pools_of_different_names_do_not_mix() {
    let plan = Plan::new([pool("office", &["10.0.0.1"]), pool("lab", &["10.0.1.1"])])
        .with_settings(Settings::without_cool_down());
    let map = Map::in_memory(&plan).unwrap();
    // No pool has the name "default", so the first pool is the default pool.
    assert_eq!(
        only_address(&map.open_session(session_id(1), &ANONYMOUS, Tick::ZERO).unwrap().leases),
        "10.0.0.1"
    );
    assert!(map.open_session(session_id(2), &ANONYMOUS, Tick::ZERO).is_err());
    let lab_options = ANONYMOUS.with_pool("lab");
    assert_eq!(
        only_address(&map.open_session(session_id(2), &lab_options, Tick::ZERO).unwrap().leases),
        "10.0.1.1"
    );
    assert!(map.open_session(session_id(3), &lab_options, Tick::ZERO).is_err());
}

/// If a pool of virtual IPs could contain loopback addresses, the address of a loopback lease could
/// become the virtual IP of another session.
#[test]
fn addresses_that_hosts_cannot_have_are_no_virtual_ips() {
    for range in ["127.9.0.0/29", "224.0.0.1", "0.0.0.0/0", "255.255.255.255", "::1", "ff02::1"] {
        let ranges = [range.parse().unwrap()];
        let error = Pool::new("default", PoolKind::VirtualIp, &ranges, 4).unwrap_err();
        assert!(matches!(error, PoolError::NonHostAddresses(..)), "{range}: {error}");
    }
}

#[test]
fn pattern_that_matches_no_program_makes_no_map() {
    for pattern in ["", "/", "bin/server", "/bin/../server", "a\0b"] {
        let policy = Policy::new([Program::new(pattern)]);
        let plan = plan(&["10.0.0.1"], Settings::without_cool_down()).with_policy(policy);
        match Map::in_memory(&plan) {
            Err(MapError::Plan(PlanError::Program(found))) => assert_eq!(found, pattern),
            other => panic!("{pattern:?}: {other:?}"),
        }
    }
}
