//! Tests of plans that move addresses between pools. An address keeps its state in its new pool.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Mutex;

use vipool::Tick;
use vipool::map::{Map, OpenError, OpenOptions, Plan, Settings, Shortage};
use vipool::pool::Reservation;

use crate::plan_support::{
    FixedProbe, create_map, for_pool, for_user_at, new_directory, open_for_user, pool_statuses,
};
use crate::support::{for_user, only_address, pool, session_id};

#[test]
fn renamed_pool_does_not_allocate_leased_addresses() {
    let directory = new_directory();
    let ranges = ["10.0.0.1-10.0.0.2"];
    let map = create_map(&directory, &[pool("default", &ranges)], Settings::without_cool_down());
    let (ann, address) = open_for_user(&map, 1, "ann", 0);
    assert_eq!(address, "10.0.0.1");
    let map = create_map(&directory, &[pool("office", &ranges)], Settings::without_cool_down());
    assert!(map.reader().unwrap().is_live(&ann));
    assert_eq!(open_for_user(&map, 2, "eve", 0).1, "10.0.0.2");
    let error = map.open_session(session_id(3), &for_user("joe"), Tick::ZERO).unwrap_err();
    assert!(matches!(error, OpenError::Shortage { shortage: Shortage::Exhausted, .. }), "{error}");
    let error =
        map.open_session(session_id(3), &for_user_at("joe", "10.0.0.1"), Tick::ZERO).unwrap_err();
    assert!(matches!(error, OpenError::Taken(_)), "{error}");
    // After the release, the address is available. No new plan is necessary.
    map.close_by_handle(&ann, Tick::ZERO).unwrap();
    assert_eq!(open_for_user(&map, 3, "joe", 0).1, "10.0.0.1");
    assert!(map.close_by_handle(&ann, Tick::ZERO).is_err());
    assert_eq!(map.sessions().unwrap().len(), 2);
}

#[test]
fn renamed_pool_with_all_addresses_leased_is_exhausted() {
    let directory = new_directory();
    let map =
        create_map(&directory, &[pool("default", &["10.0.0.1"])], Settings::without_cool_down());
    let (ann, _) = open_for_user(&map, 1, "ann", 0);
    let map =
        create_map(&directory, &[pool("office", &["10.0.0.1"])], Settings::without_cool_down());
    let error = map.open_session(session_id(2), &for_user("eve"), Tick::ZERO).unwrap_err();
    assert!(matches!(error, OpenError::Shortage { shortage: Shortage::Exhausted, .. }), "{error}");
    map.close_by_handle(&ann, Tick::ZERO).unwrap();
    assert_eq!(open_for_user(&map, 2, "eve", 0).1, "10.0.0.1");
}

#[test]
fn leased_address_is_awaited_through_several_plans() {
    let directory = new_directory();
    let plans = [
        [pool("default", &["10.0.0.1-10.0.0.2"]), pool("lab", &["10.0.1.1"])],
        [pool("default", &["10.0.0.2"]), pool("lab", &["10.0.0.1", "10.0.1.1"])],
    ];
    let map = create_map(&directory, &plans[0], Settings::without_cool_down());
    let (ann, address) = open_for_user(&map, 1, "ann", 0);
    assert_eq!(address, "10.0.0.1");
    for plan_number in [1, 1, 0, 1] {
        let map = create_map(&directory, &plans[plan_number], Settings::without_cool_down());
        assert!(map.reader().unwrap().is_live(&ann));
        let requests = [(10, "default"), (11, "default"), (12, "lab"), (13, "lab")];
        let opened_sessions: Vec<_> = requests
            .into_iter()
            .filter_map(|(number, pool)| {
                map.open_session(session_id(number), &for_pool("eve", pool), Tick::ZERO).ok()
            })
            .collect();
        // The new sessions got all addresses except the leased address.
        assert_eq!(opened_sessions.len(), 2);
        for opened in opened_sessions {
            assert_ne!(only_address(&opened.leases), address);
            map.close_by_handle(&opened.handle, Tick::ZERO).unwrap();
        }
    }
    map.close_by_handle(&ann, Tick::ZERO).unwrap();
    // Ann gets the same address again, now from the pool `lab`.
    let next_session =
        map.open_session(session_id(2), &for_pool("ann", "lab"), Tick::ZERO).unwrap();
    assert_eq!(only_address(&next_session.leases), "10.0.0.1");
}

#[test]
fn address_continues_to_cool_in_its_new_pool() {
    let directory = new_directory();
    let settings = Settings::without_cool_down().with_cool_down(60);
    let map = create_map(&directory, &[pool("default", &["10.0.0.1-10.0.0.2"])], settings);
    let (ann, _) = open_for_user(&map, 1, "ann", 100);
    let (bob, _) = open_for_user(&map, 2, "bob", 100);
    map.close_by_handle(&ann, Tick::from_secs(100)).unwrap();
    let map = create_map(&directory, &[pool("office", &["10.0.0.1-10.0.0.2"])], settings);
    map.close_by_handle(&bob, Tick::from_secs(110)).unwrap();
    for now in [120, 159] {
        let error =
            map.open_session(session_id(3), &for_user("eve"), Tick::from_secs(now)).unwrap_err();
        let OpenError::Shortage { shortage: Shortage::Cooling { until }, .. } = error else {
            panic!("{error}")
        };
        assert_eq!(until, Tick::from_secs(160));
    }
    assert_eq!(open_for_user(&map, 3, "eve", 160).1, "10.0.0.1");
    assert!(map.open_session(session_id(4), &for_user("joe"), Tick::from_secs(169)).is_err());
    // Bob was the last user of 10.0.0.2, so he need not wait for the end of its cool-down.
    assert_eq!(open_for_user(&map, 5, "bob", 169).1, "10.0.0.2");
}

#[test]
fn address_continues_to_linger_in_its_new_pool() {
    let directory = new_directory();
    let settings = Settings::without_cool_down().with_cool_down(5).with_check_in_use(true);
    let map = create_map(&directory, &[pool("default", &["10.0.0.1"])], settings);
    let (ann, _) = open_for_user(&map, 1, "ann", 100);
    map.close_by_handle(&ann, Tick::from_secs(100)).unwrap();
    assert_eq!(
        map.reap(Tick::from_secs(105), u32::MAX, &mut FixedProbe(true)).unwrap().lingering,
        1
    );
    let map = create_map(&directory, &[pool("office", &["10.0.0.1"])], settings);
    assert_eq!(pool_statuses(directory.path())[0].lingering, 1);
    let error =
        map.open_session(session_id(2), &for_user("eve"), Tick::from_secs(900)).unwrap_err();
    assert!(matches!(error, OpenError::Shortage { shortage: Shortage::Lingering, .. }), "{error}");
    assert_eq!(map.reap(Tick::from_secs(900), u32::MAX, &mut FixedProbe(false)).unwrap().freed, 1);
    assert_eq!(open_for_user(&map, 2, "eve", 900).1, "10.0.0.1");
}

#[test]
fn last_user_leaves_the_old_slot_with_the_address() {
    let directory = new_directory();
    let range = ["10.0.0.1-10.0.0.3"];
    let map = create_map(&directory, &[pool("default", &range)], Settings::without_cool_down());
    // The lease of this session keeps the pool `default` in all later maps.
    open_for_user(&map, 1, "ann", 0);
    let (eve, address) = open_for_user(&map, 2, "eve", 0);
    assert_eq!(address, "10.0.0.2");
    let map = create_map(&directory, &[pool("office", &range)], Settings::without_cool_down());
    map.close_by_handle(&eve, Tick::ZERO).unwrap();
    // No address of the pool `office` is in use, so this plan removes the pool. The records of the
    // last users in `office` are lost.
    create_map(&directory, &[pool("lab", &["10.0.1.1"])], Settings::without_cool_down());
    let plan = Plan::new(vec![pool("default", &range)])
        .with_reservations([Reservation::new("10.0.0.2".parse().unwrap(), "bob")]);
    let map = Map::create(directory.path(), &plan).unwrap();
    map.unreserve("10.0.0.2".parse().unwrap(), Tick::ZERO).unwrap();
    assert_eq!(open_for_user(&map, 3, "eve", 0).1, "10.0.0.3");
}

#[test]
fn drain_and_reservation_move_with_the_address() {
    let directory = new_directory();
    let map = create_map(
        &directory,
        &[pool("default", &["10.0.0.1-10.0.0.5"])],
        Settings::without_cool_down(),
    );
    let (ann, _) = open_for_user(&map, 1, "ann", 0);
    let (bob, _) = open_for_user(&map, 2, "bob", 0);
    map.close_by_handle(&ann, Tick::ZERO).unwrap();
    map.drain(&"10.0.0.3".parse().unwrap(), Tick::ZERO).unwrap();
    map.reserve("10.0.0.4".parse().unwrap(), "joe", Tick::ZERO).unwrap();
    let map = create_map(
        &directory,
        &[pool("office", &["10.0.0.1-10.0.0.5"])],
        Settings::without_cool_down(),
    );
    // 10.0.0.2 is still leased from the old pool `default`.
    let change = map.reserve("10.0.0.2".parse().unwrap(), "kim", Tick::ZERO).unwrap();
    assert_eq!((change.addresses, change.held), (1, 1));
    let change = map.drain(&"10.0.0.0/29".parse().unwrap(), Tick::ZERO).unwrap();
    assert_eq!((change.addresses, change.held), (5, 1));
    map.undrain(&"10.0.0.1-10.0.0.2".parse().unwrap(), Tick::ZERO).unwrap();
    map.undrain(&"10.0.0.4".parse().unwrap(), Tick::ZERO).unwrap();
    assert_eq!(open_for_user(&map, 3, "ann", 0).1, "10.0.0.1");
    assert_eq!(open_for_user(&map, 4, "joe", 0).1, "10.0.0.4");
    assert!(map.open_session(session_id(5), &for_user("eve"), Tick::ZERO).is_err());
    map.close_by_handle(&bob, Tick::ZERO).unwrap();
    assert!(map.open_session(session_id(5), &for_user("bob"), Tick::ZERO).is_err());
    assert_eq!(open_for_user(&map, 5, "kim", 0).1, "10.0.0.2");
}

#[test]
fn plan_can_reserve_an_address_that_is_leased_from_another_pool() {
    let directory = new_directory();
    let map =
        create_map(&directory, &[pool("default", &["10.0.0.1"])], Settings::without_cool_down());
    let (ann, _) = open_for_user(&map, 1, "ann", 0);
    let address = "10.0.0.1".parse().unwrap();
    let reservations = vec![Reservation::new(address, "bob")];
    let pools = vec![pool("office", &["10.0.0.1"])];
    let plan = Plan::new(pools.clone())
        .with_settings(Settings::without_cool_down())
        .with_reservations(reservations);
    let map = Map::create(directory.path(), &plan).unwrap();
    map.close_by_handle(&ann, Tick::ZERO).unwrap();
    assert!(map.open_session(session_id(2), &for_user("ann"), Tick::ZERO).is_err());
    let (bob, _) = open_for_user(&map, 2, "bob", 0);
    map.close_by_handle(&bob, Tick::ZERO).unwrap();
    // The next plan has no reservation.
    let map = create_map(&directory, &pools, Settings::without_cool_down());
    assert_eq!(open_for_user(&map, 3, "ann", 0).1, "10.0.0.1");
}

#[test]
fn no_address_is_leased_twice_while_plans_change() {
    let directory = new_directory();
    let range = |first: u32| format!("10.0.0.{first}-10.0.0.{}", first + 3);
    let ranges = [range(0), range(4), range(8)];
    let renamed_pools = |number: usize| {
        let names = ["default", "office", "lab", "annex"];
        let renamed_pool = |index: usize| pool(names[(index + number) % 4], &[&ranges[index]]);
        [renamed_pool(0), renamed_pool(1), renamed_pool(2)]
    };
    create_map(&directory, &renamed_pools(0), Settings::without_cool_down());
    let leased_addresses = Mutex::new(BTreeSet::new());
    let rounds: u64 = vipool_testing::effort(300, 20_000);
    std::thread::scope(|scope| {
        for thread in 0..3u64 {
            let (path, leased_addresses) = (directory.path(), &leased_addresses);
            scope.spawn(move || {
                let map = Map::open(path).unwrap();
                let mut open_sessions = VecDeque::new();
                for round in 0..rounds {
                    let session = session_id(1 + thread + 3 * (round % 7));
                    let Ok(opened) = map.open_session(session, &OpenOptions::default(), Tick::ZERO)
                    else {
                        continue;
                    };
                    if opened.already_open {
                        continue;
                    }
                    let address = only_address(&opened.leases);
                    assert!(
                        leased_addresses.lock().unwrap().insert(address.clone()),
                        "{address} is leased twice"
                    );
                    open_sessions.push_back((opened.handle, address));
                    if open_sessions.len() > 2 {
                        let (handle, address) = open_sessions.pop_front().unwrap();
                        leased_addresses.lock().unwrap().remove(&address);
                        map.close_by_handle(&handle, Tick::ZERO).unwrap();
                    }
                }
            });
        }
        for number in 0..rounds as usize / 10 {
            create_map(&directory, &renamed_pools(number), Settings::without_cool_down());
        }
    });
    // All addresses can be allocated again.
    let map = create_map(
        &directory,
        &[pool("last", &["10.0.0.0-10.0.0.11"])],
        Settings::without_cool_down(),
    );
    map.reconcile(Tick::ZERO, |_, _| false).unwrap();
    let opened_sessions = (100..).map_while(|number| {
        map.open_session(session_id(number), &for_user("ann"), Tick::ZERO).ok()
    });
    assert_eq!(
        opened_sessions.map(|opened| only_address(&opened.leases)).collect::<BTreeSet<_>>().len(),
        12
    );
}
