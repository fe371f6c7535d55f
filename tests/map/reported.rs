//! What users of other pools reported, and the edges of pools: each a test with its clear answer.

use std::net::IpAddr;

use vipool::Tick;
use vipool::map::{
    CloseError, LEADER_GRACE, Leader, Map, OpenError, OpenOptions, Plan, Probe, Settings, Shortage,
};
use vipool::pool::{Pool, PoolKind, Reservation};
use vipool::range::subtract;

use crate::support::{addresses, id, map, only, plan, pool, user};

const ANY: OpenOptions<'_> =
    OpenOptions { user: None, pool: None, address: None, client: None, leader: None };

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn at(text: &str) -> OpenOptions<'_> {
    OpenOptions { address: Some(address(text)), ..ANY }
}

/// Answers as it is told, and remembers what it was asked.
#[derive(Default)]
struct Script {
    in_use: Vec<IpAddr>,
    gone: bool,
    asked: Vec<IpAddr>,
}

impl Probe for Script {
    fn has_sockets(&mut self, address: IpAddr) -> bool {
        self.asked.push(address);
        self.in_use.contains(&address)
    }

    fn is_gone(&mut self, _: &Leader) -> bool {
        self.gone
    }
}

#[test]
fn no_address_is_given_out_before_the_restore_is_complete() {
    let settings = Settings { await_restore: true, ..Settings::default() };
    let map = map(&["10.0.0.1-10.0.0.2"], settings);
    assert!(matches!(map.open_session(id(1), &ANY, Tick::ZERO), Err(OpenError::NotReady)));
    assert!(matches!(
        map.open_session(id(1), &at("10.0.0.1"), Tick::ZERO),
        Err(OpenError::NotReady)
    ));
    assert!(map.reconcile(Tick::ZERO, |_, _| true).unwrap().is_empty());
    map.open_session(id(1), &ANY, Tick::ZERO).unwrap();
}

#[test]
fn a_cleaner_does_not_free_an_address_given_away_since() {
    let map = map(&["10.0.0.1"], Settings::default());
    let leader = Leader { pid: 7, start_time: 1, pid_namespace: 2 };
    let led = OpenOptions { leader: Some(leader), ..ANY };
    let mut dead = Script { gone: true, ..Script::default() };
    // Seen dead once, closed, and the address given to somebody whose leader is dead as well.
    map.open_session(id(1), &led, Tick::ZERO).unwrap();
    assert!(map.reap(Tick::ZERO, u32::MAX, &mut dead).unwrap().closed.is_empty());
    map.close_session(id(1), Tick::from_secs(1)).unwrap();
    let next = map.open_session(id(2), &led, Tick::from_secs(1)).unwrap();
    let reaped = map.reap(Tick::from_secs(LEADER_GRACE), u32::MAX, &mut dead).unwrap();
    assert!(reaped.closed.is_empty(), "the sighting was of another lease");
    assert!(map.reader().unwrap().is_live(&next.handle));
    // It is alive again by then, so the next sighting is a first one.
    map.reap(Tick::from_secs(LEADER_GRACE + 1), u32::MAX, &mut Script::default()).unwrap();
    let reaped = map.reap(Tick::from_secs(2 * LEADER_GRACE + 1), u32::MAX, &mut dead).unwrap();
    assert!(reaped.closed.is_empty());
    let reaped = map.reap(Tick::from_secs(3 * LEADER_GRACE + 1), u32::MAX, &mut dead).unwrap();
    assert_eq!(reaped.closed, [id(2)]);
    // And one without a leader is never closed.
    map.open_session(id(3), &ANY, Tick::from_secs(99)).unwrap();
    map.reap(Tick::from_secs(99), u32::MAX, &mut dead).unwrap();
    assert!(map.reap(Tick::from_secs(999), u32::MAX, &mut dead).unwrap().closed.is_empty());
}

#[test]
fn a_leader_is_found_whichever_of_the_leases_knows_it() {
    let ranges = ["10.0.0.1".parse().unwrap()];
    let plan = Plan {
        pools: vec![
            Pool::new("default", PoolKind::VirtualIp, &ranges, 1).unwrap(),
            crate::support::loopback("127.9.0.0/28"),
        ],
        ..Plan::default()
    };
    let map = Map::in_memory(&plan).unwrap();
    let leader = Leader { pid: 7, start_time: 1, pid_namespace: 2 };
    map.open_session(id(1), &ANY, Tick::ZERO).unwrap();
    // No virtual IP is left: the session begins with its loopback address alone.
    let led = OpenOptions { leader: Some(leader), ..ANY };
    assert_eq!(only(&map.open_session(id(2), &led, Tick::ZERO).unwrap().leases), "127.9.0.1");
    map.close_session(id(1), Tick::ZERO).unwrap();
    assert_eq!(map.open_session(id(2), &ANY, Tick::ZERO).unwrap().leases.iter().count(), 2);
    let mut dead = Script { gone: true, ..Script::default() };
    map.reap(Tick::ZERO, u32::MAX, &mut dead).unwrap();
    assert_eq!(
        map.reap(Tick::from_secs(LEADER_GRACE), u32::MAX, &mut dead).unwrap().closed,
        [id(2)]
    );
}

#[test]
fn a_pool_is_not_full_while_it_is_empty() {
    let settings = Settings { cool_down: 10, ..Settings::default() };
    let map = map(&["10.0.0.1-10.0.0.4"], settings);
    // All released in one second, then wanted again one by one, then drained and undrained.
    for round in 0..5 {
        let now = round * 100;
        for n in 1..=4 {
            map.open_session(id(n), &ANY, Tick::from_secs(now)).unwrap();
        }
        assert!(matches!(
            map.open_session(id(9), &ANY, Tick::from_secs(now)),
            Err(OpenError::Shortage(Shortage::Exhausted))
        ));
        for n in 1..=4 {
            map.close_session(id(n), Tick::from_secs(now)).unwrap();
        }
        map.drain(&"10.0.0.0/24".parse().unwrap(), Tick::from_secs(now)).unwrap();
        map.recover().unwrap();
        map.undrain(&"10.0.0.0/24".parse().unwrap(), Tick::from_secs(now)).unwrap();
        let status = &map.reader().unwrap().pools()[0];
        assert_eq!((status.free + status.cooling, status.used), (4, 0));
    }
}

#[test]
fn no_duplicates_once_a_part_of_the_range_is_used_up() {
    let map = map(&["10.0.0.1-10.0.0.2", "10.0.0.9-10.0.0.12", "10.0.1.0"], Settings::default());
    let mut given = Vec::new();
    for n in 1..=7 {
        given.push(only(&map.open_session(id(n), &ANY, Tick::ZERO).unwrap().leases));
    }
    given.sort();
    given.dedup();
    assert_eq!(given.len(), 7);
    assert!(map.open_session(id(8), &ANY, Tick::ZERO).is_err());
}

#[test]
fn first_and_last_address_are_usable() {
    for (range, count) in [("10.0.0.0/31", 2), ("10.0.0.7/32", 1), ("255.255.255.255", 1)] {
        let map = map(&[range], Settings::default());
        for n in 1..=count {
            map.open_session(id(n), &ANY, Tick::ZERO).unwrap();
        }
        assert!(map.open_session(id(9), &ANY, Tick::ZERO).is_err(), "{range}");
    }
    let map = map(&["10.0.0.10-10.0.0.20"], Settings::default());
    map.open_session(id(1), &at("10.0.0.10"), Tick::ZERO).unwrap();
    map.open_session(id(2), &at("10.0.0.20"), Tick::ZERO).unwrap();
    assert!(matches!(
        map.open_session(id(3), &at("10.0.0.9"), Tick::ZERO),
        Err(OpenError::Excluded(_))
    ));
    assert!(matches!(
        map.open_session(id(3), &at("10.0.0.21"), Tick::ZERO),
        Err(OpenError::Excluded(_))
    ));
}

#[test]
fn an_empty_pool_and_one_of_exclusions_only_are_exhausted() {
    let all = "10.0.0.0/30".parse().unwrap();
    let left = subtract(&[all], &[all]);
    for ranges in [&[][..], &left] {
        let pool = Pool::new("default", PoolKind::VirtualIp, ranges, u32::MAX).unwrap();
        let map = Map::in_memory(&Plan { pools: vec![pool], ..Plan::default() }).unwrap();
        assert!(matches!(
            map.open_session(id(1), &ANY, Tick::ZERO),
            Err(OpenError::Shortage(Shortage::Exhausted))
        ));
        map.recover().unwrap();
        assert_eq!(map.reader().unwrap().pools()[0].slots, 0);
    }
    let none = Map::in_memory(&Plan::default()).unwrap();
    assert!(none.open_session(id(1), &ANY, Tick::ZERO).is_err());
    assert!(matches!(none.close_session(id(1), Tick::ZERO), Err(CloseError::NotOpen(_))));
}

#[test]
fn a_clock_that_jumps_gives_nothing_early_and_loses_nothing() {
    let settings = Settings { cool_down: 60, ..Settings::default() };
    let map = map(&["10.0.0.1-10.0.0.2"], settings);
    let cooling = |now| match map.open_session(id(9), &ANY, now) {
        Err(OpenError::Shortage(Shortage::Cooling { until })) => until,
        other => panic!("{other:?}"),
    };
    for n in 1..=2 {
        map.open_session(id(n), &ANY, Tick::from_secs(1000)).unwrap();
    }
    map.close_session(id(1), Tick::from_secs(1000)).unwrap();
    // Back: releases keep their order, and cool until the clock has caught up.
    map.close_session(id(2), Tick::from_secs(5)).unwrap();
    assert_eq!(
        (cooling(Tick::from_secs(6)), cooling(Tick::from_secs(1059))),
        (Tick::from_secs(1060), Tick::from_secs(1060))
    );
    assert_eq!(
        only(&map.open_session(id(3), &ANY, Tick::from_secs(1060)).unwrap().leases),
        "10.0.0.1"
    );
    // Far ahead, to the end of what it can count.
    assert_eq!(only(&map.open_session(id(4), &ANY, Tick::MAX).unwrap().leases), "10.0.0.2");
    map.close_session(id(4), Tick::MAX).unwrap();
    map.close_session(id(3), Tick::MAX).unwrap();
    assert_eq!(only(&map.open_session(id(5), &ANY, Tick::MAX).unwrap().leases), "10.0.0.2");
    map.recover().unwrap();
    assert_eq!(only(&map.open_session(id(6), &ANY, Tick::MAX).unwrap().leases), "10.0.0.1");
}

#[test]
fn queues_and_generations_wrap_around() {
    let map = map(&["10.0.0.1-10.0.0.3"], Settings::default());
    let mut last = None;
    for n in 1..10_000u32 {
        let opened = map.open_session(id(n.into()), &ANY, Tick::from_secs(n)).unwrap();
        assert_eq!(only(&opened.leases), format!("10.0.0.{}", (n - 1) % 3 + 1));
        map.close_by_handle(&opened.handle, Tick::from_secs(n)).unwrap();
        assert!(matches!(
            map.close_by_handle(&opened.handle, Tick::from_secs(n)),
            Err(CloseError::Stale(_))
        ));
        last = Some(opened.handle);
    }
    assert_eq!(last.unwrap().generation, 3333);
}

#[test]
fn a_reserved_address_in_the_pool_goes_to_nobody_else() {
    let plan = Plan {
        reservations: vec![Reservation { user: "ann".into(), address: address("10.0.0.2") }],
        ..plan(&["10.0.0.1-10.0.0.3"], Settings::default())
    };
    let map = Map::in_memory(&plan).unwrap();
    assert!(matches!(
        map.open_session(id(1), &at("10.0.0.2"), Tick::ZERO),
        Err(OpenError::ReservedForAnother(_))
    ));
    for n in 1..=2 {
        let opened = map.open_session(id(n), &user("bob"), Tick::ZERO).unwrap();
        assert_ne!(only(&opened.leases), "10.0.0.2");
    }
    assert!(map.open_session(id(3), &user("bob"), Tick::ZERO).is_err());
    assert_eq!(
        only(&map.open_session(id(3), &user("ann"), Tick::ZERO).unwrap().leases),
        "10.0.0.2"
    );
}

#[test]
fn a_reservation_spares_no_cool_down_but_that_of_its_own_user() {
    let settings = Settings { cool_down: 60, check_in_use: true, ..Settings::default() };
    let map = map(&["10.0.0.1-10.0.0.3"], settings);
    let (first, mut probe) = (address("10.0.0.1"), Script::default());
    let open = |number, name, now| map.open_session(id(number), &user(name), now).unwrap();
    let bob = open(1, "bob", Tick::ZERO);
    map.reserve(first, "ann", Tick::ZERO).unwrap();
    map.close_by_handle(&bob.handle, Tick::ZERO).unwrap();
    // Bob's sockets may be on it still.
    assert_eq!(only(&open(2, "ann", Tick::from_secs(59)).leases), "10.0.0.2");
    let asked = OpenOptions { address: Some(first), ..user("ann") };
    let refused = map.open_session(id(3), &asked, Tick::from_secs(59));
    assert!(
        matches!(refused, Err(OpenError::AddressCooling(_, until)) if until == Tick::from_secs(60)),
        "{refused:?}"
    );
    let refused = map.open_session(id(3), &asked, Tick::from_secs(60));
    assert!(matches!(refused, Err(OpenError::AddressLingering(_))), "{refused:?}");
    probe.in_use = vec![first];
    assert_eq!(map.reap(Tick::from_secs(60), u32::MAX, &mut probe).unwrap().lingering, 1);
    assert_eq!(only(&open(3, "ann", Tick::from_secs(61)).leases), "10.0.0.3");
    map.close_session(id(3), Tick::from_secs(61)).unwrap();
    probe.in_use.clear();
    assert_eq!(map.reap(Tick::from_secs(62), u32::MAX, &mut probe).unwrap().freed, 1);
    let ann = open(3, "ann", Tick::from_secs(62));
    assert_eq!(only(&ann.leases), "10.0.0.1");
    // Her own need not cool for her.
    map.close_by_handle(&ann.handle, Tick::from_secs(63)).unwrap();
    assert_eq!(only(&open(3, "ann", Tick::from_secs(63)).leases), "10.0.0.1");
}

#[test]
fn a_reservation_that_came_and_went_leaves_the_address_to_who_had_it_last() {
    let directory = tempfile::tempdir().unwrap();
    let settings = Settings { cool_down: 60, ..Settings::default() };
    let planned = |user: &str| Plan {
        reservations: vec![Reservation { user: user.into(), address: address("10.0.0.1") }],
        ..plan(&["10.0.0.1-10.0.0.2"], settings)
    };
    let map = Map::create(directory.path(), &plan(&["10.0.0.1-10.0.0.2"], settings)).unwrap();
    let bob = map.open_session(id(1), &user("bob"), Tick::ZERO).unwrap();
    map.close_by_handle(&bob.handle, Tick::ZERO).unwrap();
    map.reserve(address("10.0.0.1"), "ann", Tick::ZERO).unwrap();
    map.unreserve(address("10.0.0.1"), Tick::ZERO).unwrap();
    Map::create(directory.path(), &planned("ann")).unwrap();
    let map = Map::create(directory.path(), &planned("eve")).unwrap();
    let eve = map.open_session(id(2), &user("eve"), Tick::from_secs(1)).unwrap();
    assert_eq!(only(&eve.leases), "10.0.0.2");
    let map = Map::create(directory.path(), &plan(&["10.0.0.1-10.0.0.2"], settings)).unwrap();
    assert!(map.open_session(id(3), &user("ann"), Tick::from_secs(1)).is_err());
    assert_eq!(
        only(&map.open_session(id(3), &user("bob"), Tick::from_secs(1)).unwrap().leases),
        "10.0.0.1"
    );
}

#[test]
fn a_quota_counts_sessions_by_who_has_them_not_by_whom_the_address_is_for() {
    let settings = Settings { sessions_per_user: 1, ..Settings::default() };
    let map = map(&["10.0.0.1-10.0.0.4"], settings);
    map.open_session(id(1), &user("bob"), Tick::ZERO).unwrap();
    map.reserve(address("10.0.0.1"), "ann", Tick::ZERO).unwrap();
    assert!(matches!(
        map.open_session(id(2), &user("bob"), Tick::ZERO),
        Err(OpenError::Quota { .. })
    ));
    map.open_session(id(2), &user("ann"), Tick::ZERO).unwrap();
    // The reservation is taken back before he leaves: he gets the address again.
    map.unreserve(address("10.0.0.1"), Tick::ZERO).unwrap();
    map.close_session(id(1), Tick::ZERO).unwrap();
    assert_eq!(
        only(&map.open_session(id(3), &user("bob"), Tick::ZERO).unwrap().leases),
        "10.0.0.1"
    );
}

#[test]
fn a_user_stays_on_one_address() {
    let map = map(&["10.0.0.1-10.0.0.9"], Settings::default());
    let first = map.open_session(id(1), &user("ann"), Tick::ZERO).unwrap();
    let second = map.open_session(id(2), &user("ann"), Tick::ZERO).unwrap();
    map.close_by_handle(&first.handle, Tick::from_secs(1)).unwrap();
    map.close_by_handle(&second.handle, Tick::from_secs(2)).unwrap();
    // Two addresses bear the name by now; the later one stays the one.
    for n in 3..50u32 {
        let opened = map.open_session(id(n.into()), &user("ann"), Tick::from_secs(n)).unwrap();
        assert_eq!(addresses(&opened.leases), addresses(&second.leases));
        map.close_by_handle(&opened.handle, Tick::from_secs(n)).unwrap();
        let other =
            map.open_session(id(100 + u64::from(n)), &user("bob"), Tick::from_secs(n)).unwrap();
        map.close_by_handle(&other.handle, Tick::from_secs(n)).unwrap();
    }
}

#[test]
fn a_64_is_served_at_once() {
    let settings = Settings::default();
    let range = "2001:db8::/64".parse().unwrap();
    let slots = Pool::new("default", PoolKind::VirtualIp, &[range], 1000).unwrap();
    let map = Map::in_memory(&Plan { pools: vec![slots], settings, ..Plan::default() }).unwrap();
    map.open_session(id(1), &at("2001:db8::3e7"), Tick::ZERO).unwrap();
    assert!(matches!(
        map.open_session(id(2), &at("2001:db8::ffff:ffff"), Tick::ZERO),
        Err(OpenError::Excluded(_))
    ));
    assert_eq!(map.drain(&range, Tick::ZERO).unwrap().addresses, 1000);
    assert!(map.open_session(id(3), &ANY, Tick::ZERO).is_err());
    map.undrain(&range, Tick::ZERO).unwrap();
    assert_eq!(only(&map.open_session(id(3), &ANY, Tick::ZERO).unwrap().leases), "2001:db8::");
}

#[test]
fn a_released_address_is_not_given_out_at_once() {
    let map = map(&["10.0.0.1-10.0.0.3"], Settings::default());
    let first = map.open_session(id(1), &ANY, Tick::ZERO).unwrap();
    map.close_by_handle(&first.handle, Tick::ZERO).unwrap();
    let next: Vec<_> =
        (2..=4).map(|n| only(&map.open_session(id(n), &ANY, Tick::ZERO).unwrap().leases)).collect();
    assert_eq!(next, ["10.0.0.2", "10.0.0.3", "10.0.0.1"]);
}

#[test]
fn a_cooled_address_waits_for_a_look_at_its_sockets() {
    let settings = Settings { cool_down: 5, check_in_use: true, ..Settings::default() };
    let map = map(&["10.0.0.1-10.0.0.3"], settings);
    for n in 1..=3 {
        map.open_session(id(n), &ANY, Tick::ZERO).unwrap();
    }
    for n in 1..=3 {
        map.close_session(id(n), Tick::ZERO).unwrap();
    }
    let shortage = |now| match map.open_session(id(9), &ANY, now) {
        Err(OpenError::Shortage(shortage)) => shortage,
        other => panic!("{other:?}"),
    };
    assert_eq!(shortage(Tick::from_secs(4)), Shortage::Cooling { until: Tick::from_secs(5) });
    assert_eq!(shortage(Tick::from_secs(5)), Shortage::Lingering);
    let mut script =
        Script { in_use: vec![address("10.0.0.1"), address("10.0.0.2")], ..Script::default() };
    // Too early for any.
    assert_eq!(map.reap(Tick::from_secs(4), u32::MAX, &mut script).unwrap().lingering, 0);
    let mut rounds = 0;
    while map.reap(Tick::from_secs(5), 1, &mut script).unwrap().more {
        rounds += 1;
        assert!(rounds < 9, "it never ends");
    }
    let status = &map.reader().unwrap().pools()[0];
    assert_eq!((status.free, status.lingering), (1, 2));
    assert_eq!(
        only(&map.open_session(id(4), &ANY, Tick::from_secs(5)).unwrap().leases),
        "10.0.0.3"
    );
    // However small the budget, each of the lingering ones has its turn.
    script.in_use.pop();
    let freed: u32 =
        (6..9).map(|now| map.reap(Tick::from_secs(now), 1, &mut script).unwrap().freed).sum();
    assert_eq!(freed, 1);
    assert_eq!(
        only(&map.open_session(id(5), &ANY, Tick::from_secs(9)).unwrap().leases),
        "10.0.0.2"
    );
}

#[test]
fn a_draining_server_gives_nothing_even_on_request() {
    let map = map(&["10.0.0.1-10.0.0.2"], Settings::default());
    let kept = map.open_session(id(1), &ANY, Tick::ZERO).unwrap();
    map.drain_server(true).unwrap();
    assert!(map.open_session(id(1), &ANY, Tick::ZERO).unwrap().already_open);
    for options in [ANY, at("10.0.0.2")] {
        assert!(matches!(
            map.open_session(id(2), &options, Tick::ZERO),
            Err(OpenError::Shortage(Shortage::Draining))
        ));
    }
    assert!(map.reader().unwrap().is_live(&kept.handle));
    map.drain_server(false).unwrap();
    map.open_session(id(2), &at("10.0.0.2"), Tick::ZERO).unwrap();
}

#[test]
fn undraining_what_was_not_drained_changes_nothing() {
    let settings = Settings { cool_down: 10, ..Settings::default() };
    let map = map(&["10.0.0.1-10.0.0.3"], settings);
    for n in 1..=3 {
        map.open_session(id(n), &ANY, Tick::ZERO).unwrap();
    }
    for n in [2, 1, 3] {
        map.close_session(id(n), Tick::ZERO).unwrap();
    }
    map.undrain(&"10.0.0.0/24".parse().unwrap(), Tick::from_secs(9)).unwrap();
    let next: Vec<_> = (4..=6)
        .map(|n| only(&map.open_session(id(n), &ANY, Tick::from_secs(10)).unwrap().leases))
        .collect();
    assert_eq!(next, ["10.0.0.2", "10.0.0.1", "10.0.0.3"]);
}

#[test]
fn pools_of_one_name_and_others_do_not_mix() {
    let plan = Plan {
        pools: vec![pool("office", &["10.0.0.1"]), pool("lab", &["10.0.1.1"])],
        ..Plan::default()
    };
    let map = Map::in_memory(&plan).unwrap();
    // None is named default: the first it is.
    assert_eq!(only(&map.open_session(id(1), &ANY, Tick::ZERO).unwrap().leases), "10.0.0.1");
    assert!(map.open_session(id(2), &ANY, Tick::ZERO).is_err());
    let lab = OpenOptions { pool: Some("lab"), ..ANY };
    assert_eq!(only(&map.open_session(id(2), &lab, Tick::ZERO).unwrap().leases), "10.0.1.1");
    assert!(map.open_session(id(3), &lab, Tick::ZERO).is_err());
}
