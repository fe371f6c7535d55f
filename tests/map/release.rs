//! Tests of the release of addresses: dead leaders, cool-down, socket checks and clock jumps.

use vipool::Tick;
use vipool::map::{LEADER_GRACE, Leader, Map, OpenError, Plan, Settings, Shortage};
use vipool::pool::{Pool, PoolKind};

use crate::support::{
    ANONYMOUS, FakeSystem, address, addresses_of, for_user, loopback_pool, memory_map,
    only_address, session_id,
};

#[test]
fn reap_does_not_close_a_later_lease_of_the_address() {
    let map = memory_map(&["10.0.0.1"], Settings::without_cool_down());
    let leader = Leader { pid: 7, start_time: 1, pid_namespace: 2 };
    let with_leader = ANONYMOUS.with_leader(leader);
    let mut system_after_exit = FakeSystem { have_leaders_exited: true, ..FakeSystem::default() };
    // `reap` finds the leader of session 1 dead, so a grace period begins. Then session 1 closes,
    // and session 2, which has the same leader, gets the address.
    map.open_session(session_id(1), &with_leader, Tick::ZERO).unwrap();
    assert!(map.reap(Tick::ZERO, u32::MAX, &mut system_after_exit).unwrap().closed.is_empty());
    map.close_session(session_id(1), Tick::from_secs(1)).unwrap();
    let next_session = map.open_session(session_id(2), &with_leader, Tick::from_secs(1)).unwrap();
    let report = map.reap(Tick::from_secs(LEADER_GRACE), u32::MAX, &mut system_after_exit).unwrap();
    assert!(report.closed.is_empty(), "the grace period of an earlier lease must not apply");
    assert!(map.reader().unwrap().is_live(&next_session.handle));
    // This `reap` finds the leader alive, which ends the grace period. A new grace period begins
    // when the next `reap` finds the leader dead.
    map.reap(Tick::from_secs(LEADER_GRACE + 1), u32::MAX, &mut FakeSystem::default()).unwrap();
    let report =
        map.reap(Tick::from_secs(2 * LEADER_GRACE + 1), u32::MAX, &mut system_after_exit).unwrap();
    assert!(report.closed.is_empty());
    let report =
        map.reap(Tick::from_secs(3 * LEADER_GRACE + 1), u32::MAX, &mut system_after_exit).unwrap();
    assert_eq!(report.closed, [session_id(2)]);
    // `reap` never closes a session without a leader.
    map.open_session(session_id(3), &ANONYMOUS, Tick::from_secs(99)).unwrap();
    map.reap(Tick::from_secs(99), u32::MAX, &mut system_after_exit).unwrap();
    assert!(
        map.reap(Tick::from_secs(999), u32::MAX, &mut system_after_exit).unwrap().closed.is_empty()
    );
}

#[test]
fn leader_is_found_on_any_lease_of_its_session() {
    let ranges = ["10.0.0.1".parse().unwrap()];
    let plan = Plan::new([
        Pool::new("default", PoolKind::VirtualIp, &ranges, 1).unwrap(),
        loopback_pool("127.9.0.0/28"),
    ])
    .with_settings(Settings::without_cool_down());
    let map = Map::in_memory(&plan).unwrap();
    let leader = Leader { pid: 7, start_time: 1, pid_namespace: 2 };
    map.open_session(session_id(1), &ANONYMOUS, Tick::ZERO).unwrap();
    // No virtual IP is free, so the session opens with a loopback address only.
    let with_leader = ANONYMOUS.with_leader(leader);
    assert_eq!(
        only_address(&map.open_session(session_id(2), &with_leader, Tick::ZERO).unwrap().leases),
        "127.9.0.1"
    );
    map.close_session(session_id(1), Tick::ZERO).unwrap();
    assert_eq!(
        map.open_session(session_id(2), &ANONYMOUS, Tick::ZERO).unwrap().leases.iter().count(),
        2
    );
    let mut system_after_exit = FakeSystem { have_leaders_exited: true, ..FakeSystem::default() };
    map.reap(Tick::ZERO, u32::MAX, &mut system_after_exit).unwrap();
    assert_eq!(
        map.reap(Tick::from_secs(LEADER_GRACE), u32::MAX, &mut system_after_exit).unwrap().closed,
        [session_id(2)]
    );
}

#[test]
fn released_addresses_count_as_free_or_cooling() {
    let settings = Settings::without_cool_down().with_cool_down(10);
    let map = memory_map(&["10.0.0.1-10.0.0.4"], settings);
    // Each round releases all addresses in the same second, drains them, recovers the map and
    // undrains the addresses.
    for round in 0..5 {
        let now = round * 100;
        for number in 1..=4 {
            map.open_session(session_id(number), &ANONYMOUS, Tick::from_secs(now)).unwrap();
        }
        assert!(matches!(
            map.open_session(session_id(9), &ANONYMOUS, Tick::from_secs(now)),
            Err(OpenError::Shortage { shortage: Shortage::Exhausted, .. })
        ));
        for number in 1..=4 {
            map.close_session(session_id(number), Tick::from_secs(now)).unwrap();
        }
        map.drain(&"10.0.0.0/24".parse().unwrap(), Tick::from_secs(now)).unwrap();
        map.recover().unwrap();
        map.undrain(&"10.0.0.0/24".parse().unwrap(), Tick::from_secs(now)).unwrap();
        let status = &map.reader().unwrap().pools()[0];
        assert_eq!((status.free + status.cooling, status.leased), (4, 0));
    }
}

#[test]
fn clock_jump_neither_shortens_a_cool_down_nor_loses_an_address() {
    let settings = Settings::without_cool_down().with_cool_down(60);
    let map = memory_map(&["10.0.0.1-10.0.0.2"], settings);
    let cooling_until = |now| match map.open_session(session_id(9), &ANONYMOUS, now) {
        Err(OpenError::Shortage { shortage: Shortage::Cooling { until }, .. }) => until,
        result => panic!("{result:?}"),
    };
    for number in 1..=2 {
        map.open_session(session_id(number), &ANONYMOUS, Tick::from_secs(1000)).unwrap();
    }
    map.close_session(session_id(1), Tick::from_secs(1000)).unwrap();
    // The clock jumps back from 1000 to 5 seconds. The releases keep their order, and both
    // cool-downs end at 1060 seconds.
    map.close_session(session_id(2), Tick::from_secs(5)).unwrap();
    assert_eq!(
        (cooling_until(Tick::from_secs(6)), cooling_until(Tick::from_secs(1059))),
        (Tick::from_secs(1060), Tick::from_secs(1060))
    );
    assert_eq!(
        only_address(
            &map.open_session(session_id(3), &ANONYMOUS, Tick::from_secs(1060)).unwrap().leases
        ),
        "10.0.0.1"
    );
    // The clock jumps to its maximum.
    assert_eq!(
        only_address(&map.open_session(session_id(4), &ANONYMOUS, Tick::MAX).unwrap().leases),
        "10.0.0.2"
    );
    map.close_session(session_id(4), Tick::MAX).unwrap();
    map.close_session(session_id(3), Tick::MAX).unwrap();
    assert_eq!(
        only_address(&map.open_session(session_id(5), &ANONYMOUS, Tick::MAX).unwrap().leases),
        "10.0.0.2"
    );
    map.recover().unwrap();
    assert_eq!(
        only_address(&map.open_session(session_id(6), &ANONYMOUS, Tick::MAX).unwrap().leases),
        "10.0.0.1"
    );
}

#[test]
fn user_with_several_last_addresses_keeps_the_latest() {
    let map = memory_map(&["10.0.0.1-10.0.0.9"], Settings::without_cool_down());
    let first_session = map.open_session(session_id(1), &for_user("ann"), Tick::ZERO).unwrap();
    let second_session = map.open_session(session_id(2), &for_user("ann"), Tick::ZERO).unwrap();
    map.close_by_handle(&first_session.handle, Tick::from_secs(1)).unwrap();
    map.close_by_handle(&second_session.handle, Tick::from_secs(2)).unwrap();
    // Ann is the last user of two addresses. The map always prefers the address that she released
    // last.
    for number in 3..50u32 {
        let opened = map
            .open_session(session_id(number.into()), &for_user("ann"), Tick::from_secs(number))
            .unwrap();
        assert_eq!(addresses_of(&opened.leases), addresses_of(&second_session.leases));
        map.close_by_handle(&opened.handle, Tick::from_secs(number)).unwrap();
        let bob = map
            .open_session(
                session_id(100 + u64::from(number)),
                &for_user("bob"),
                Tick::from_secs(number),
            )
            .unwrap();
        map.close_by_handle(&bob.handle, Tick::from_secs(number)).unwrap();
    }
}

#[test]
fn released_address_goes_to_the_end_of_the_queue() {
    let map = memory_map(&["10.0.0.1-10.0.0.3"], Settings::without_cool_down());
    let first_session = map.open_session(session_id(1), &ANONYMOUS, Tick::ZERO).unwrap();
    map.close_by_handle(&first_session.handle, Tick::ZERO).unwrap();
    let next_addresses: Vec<_> = (2..=4)
        .map(|number| {
            only_address(
                &map.open_session(session_id(number), &ANONYMOUS, Tick::ZERO).unwrap().leases,
            )
        })
        .collect();
    assert_eq!(next_addresses, ["10.0.0.2", "10.0.0.3", "10.0.0.1"]);
}

#[test]
fn cooled_address_waits_for_a_socket_check() {
    let settings = Settings::without_cool_down().with_cool_down(5).with_check_in_use(true);
    let map = memory_map(&["10.0.0.1-10.0.0.3"], settings);
    for number in 1..=3 {
        map.open_session(session_id(number), &ANONYMOUS, Tick::ZERO).unwrap();
    }
    for number in 1..=3 {
        map.close_session(session_id(number), Tick::ZERO).unwrap();
    }
    let shortage = |now| match map.open_session(session_id(9), &ANONYMOUS, now) {
        Err(OpenError::Shortage { shortage, .. }) => shortage,
        result => panic!("{result:?}"),
    };
    assert_eq!(shortage(Tick::from_secs(4)), Shortage::Cooling { until: Tick::from_secs(5) });
    assert_eq!(shortage(Tick::from_secs(5)), Shortage::Lingering);
    let mut system = FakeSystem {
        addresses_in_use: vec![address("10.0.0.1"), address("10.0.0.2")],
        ..FakeSystem::default()
    };
    // No address has cooled down yet.
    assert_eq!(map.reap(Tick::from_secs(4), u32::MAX, &mut system).unwrap().lingering, 0);
    let mut round_count = 0;
    while map.reap(Tick::from_secs(5), 1, &mut system).unwrap().more {
        round_count += 1;
        assert!(round_count < 9, "reap reports more work without end");
    }
    let status = &map.reader().unwrap().pools()[0];
    assert_eq!((status.free, status.lingering), (1, 2));
    assert_eq!(
        only_address(
            &map.open_session(session_id(4), &ANONYMOUS, Tick::from_secs(5)).unwrap().leases
        ),
        "10.0.0.3"
    );
    // Even with the smallest budget, repeated calls of `reap` check every lingering address.
    system.addresses_in_use.pop();
    let freed: u32 =
        (6..9).map(|now| map.reap(Tick::from_secs(now), 1, &mut system).unwrap().freed).sum();
    assert_eq!(freed, 1);
    assert_eq!(
        only_address(
            &map.open_session(session_id(5), &ANONYMOUS, Tick::from_secs(9)).unwrap().leases
        ),
        "10.0.0.2"
    );
}

#[test]
fn reap_ends_a_cool_down_that_began_in_the_future() {
    let map = memory_map(&["10.0.0.1-10.0.0.2"], Settings::without_cool_down().with_cool_down(60));
    let now = Tick::now();
    // The first release has a wrong time, far in the future. The second release has the correct
    // time, but the map keeps the order in which the releases happen.
    for (number, time) in [(1, now.saturating_add(100_000_000)), (2, now)] {
        map.open_session(session_id(number), &ANONYMOUS, now).unwrap();
        map.close_session(session_id(number), time).unwrap();
    }
    let end_of_cool_down = now.saturating_add(100);
    let is_cooling = |result| {
        matches!(result, Err(OpenError::Shortage { shortage: Shortage::Cooling { .. }, .. }))
    };
    assert!(is_cooling(map.open_session(session_id(3), &ANONYMOUS, end_of_cool_down)));
    map.reap(now, u32::MAX, &mut FakeSystem::default()).unwrap();
    assert!(is_cooling(map.open_session(session_id(3), &ANONYMOUS, now)));
    // The addresses are reused in the order of their release.
    let opened = map.open_session(session_id(3), &ANONYMOUS, end_of_cool_down).unwrap();
    assert_eq!(only_address(&opened.leases), "10.0.0.1");
    let opened = map.open_session(session_id(4), &ANONYMOUS, end_of_cool_down).unwrap();
    assert_eq!(only_address(&opened.leases), "10.0.0.2");
}

#[test]
fn session_of_a_dead_leader_closes_despite_an_earlier_reap_with_a_wrong_time() {
    let map = memory_map(&["10.0.0.1"], Settings::without_cool_down());
    let leader = Leader { pid: 7, start_time: 1, pid_namespace: 2 };
    let (now, end_of_grace) = (Tick::from_secs(1000), Tick::from_secs(1000 + LEADER_GRACE));
    map.open_session(session_id(1), &ANONYMOUS.with_leader(leader), now).unwrap();
    let mut system = FakeSystem { have_leaders_exited: true, ..FakeSystem::default() };
    for time in [Tick::from_secs(1_000_000_000), now] {
        assert!(map.reap(time, u32::MAX, &mut system).unwrap().closed.is_empty());
    }
    assert_eq!(map.reap(end_of_grace, u32::MAX, &mut system).unwrap().closed, [session_id(1)]);
}
