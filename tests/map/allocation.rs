//! Tests of the selection and the release of addresses.

use vipool::Tick;
use vipool::map::{CloseError, OpenError, OpenOptions, Plan, Settings, Shortage};
use vipool::pool::{Pool, PoolKind};

use crate::support::{
    ANONYMOUS, addresses_of, for_user, loopback_pool, memory_map, only_address, plan, pool,
    session_id,
};

#[test]
fn addresses_are_reused_first_in_first_out() {
    let map = memory_map(&["10.0.0.1-10.0.0.3"], Settings::without_cool_down());
    let opened_sessions: Vec<_> = (1..=3)
        .map(|number| map.open_session(session_id(number), &ANONYMOUS, Tick::ZERO).unwrap())
        .collect();
    assert!(matches!(
        map.open_session(session_id(4), &ANONYMOUS, Tick::ZERO),
        Err(OpenError::Shortage { shortage: Shortage::Exhausted, .. })
    ));
    map.close_by_handle(&opened_sessions[1].handle, Tick::ZERO).unwrap();
    map.close_by_handle(&opened_sessions[0].handle, Tick::ZERO).unwrap();
    assert_eq!(
        only_address(&map.open_session(session_id(5), &ANONYMOUS, Tick::ZERO).unwrap().leases),
        "10.0.0.2"
    );
    assert_eq!(
        only_address(&map.open_session(session_id(6), &ANONYMOUS, Tick::ZERO).unwrap().leases),
        "10.0.0.1"
    );
}

#[test]
fn reopening_a_session_returns_the_same_leases() {
    let map = memory_map(&["10.0.0.1-10.0.0.3"], Settings::without_cool_down());
    let first_session = map.open_session(session_id(1), &ANONYMOUS, Tick::ZERO).unwrap();
    let reopened_session = map.open_session(session_id(1), &ANONYMOUS, Tick::from_secs(9)).unwrap();
    assert!(!first_session.already_open && reopened_session.already_open);
    assert_eq!(
        (first_session.handle, first_session.leases),
        (reopened_session.handle, reopened_session.leases)
    );
}

#[test]
fn stale_close_frees_nothing() {
    let map = memory_map(&["10.0.0.1"], Settings::without_cool_down());
    let first_session = map.open_session(session_id(1), &ANONYMOUS, Tick::ZERO).unwrap();
    map.close_by_handle(&first_session.handle, Tick::ZERO).unwrap();
    let second_session = map.open_session(session_id(1), &ANONYMOUS, Tick::ZERO).unwrap();
    assert!(matches!(
        map.close_by_handle(&first_session.handle, Tick::ZERO),
        Err(CloseError::Stale(_))
    ));
    let mut foreign_handle = second_session.handle;
    foreign_handle.boot ^= 1;
    assert!(matches!(map.close_by_handle(&foreign_handle, Tick::ZERO), Err(CloseError::Foreign)));
    assert!(matches!(map.close_session(session_id(2), Tick::ZERO), Err(CloseError::NotOpen(_))));
    let reader = map.reader().unwrap();
    assert!(reader.is_live(&second_session.handle) && !reader.is_live(&first_session.handle));
}

#[test]
fn user_gets_the_last_address_again_without_cool_down() {
    let settings = Settings::without_cool_down().with_cool_down(60);
    let map = memory_map(&["10.0.0.1-10.0.0.2"], settings);
    let ann = map.open_session(session_id(1), &for_user("ann"), Tick::ZERO).unwrap();
    let bob = map.open_session(session_id(2), &for_user("bob"), Tick::ZERO).unwrap();
    map.close_by_handle(&ann.handle, Tick::from_secs(10)).unwrap();
    map.close_by_handle(&bob.handle, Tick::from_secs(20)).unwrap();
    assert!(matches!(
        map.open_session(session_id(3), &for_user("eve"), Tick::from_secs(30)),
        Err(OpenError::Shortage { shortage: Shortage::Cooling { until }, .. }) if until == Tick::from_secs(70)
    ));
    let next_session =
        map.open_session(session_id(4), &for_user("bob"), Tick::from_secs(30)).unwrap();
    assert_eq!(addresses_of(&next_session.leases), addresses_of(&bob.leases));
    let eve = map.open_session(session_id(3), &for_user("eve"), Tick::from_secs(70)).unwrap();
    assert_eq!(addresses_of(&eve.leases), addresses_of(&ann.leases));
}

#[test]
fn user_with_two_last_addresses_gets_the_one_released_last() {
    let settings = Settings::without_cool_down().with_cool_down(60);
    let map = memory_map(&["10.0.0.1-10.0.0.9"], settings);
    let closed_last = map.open_session(session_id(1), &for_user("ann"), Tick::ZERO).unwrap();
    let closed_first = map.open_session(session_id(2), &for_user("ann"), Tick::ZERO).unwrap();
    map.close_by_handle(&closed_first.handle, Tick::from_secs(10)).unwrap();
    map.close_by_handle(&closed_last.handle, Tick::from_secs(50)).unwrap();
    // This call also frees the address that was released first, because it has cooled down.
    map.open_session(session_id(4), &for_user("bob"), Tick::from_secs(80)).unwrap();
    let next_session =
        map.open_session(session_id(3), &for_user("ann"), Tick::from_secs(80)).unwrap();
    assert_eq!(addresses_of(&next_session.leases), addresses_of(&closed_last.leases));
}

#[test]
fn explicit_request_gets_its_address_or_an_error() {
    let map = memory_map(&["10.0.0.1-10.0.0.9"], Settings::without_cool_down());
    let for_address =
        |address: &str| OpenOptions::new().with_address(Some(address.parse().unwrap()));
    assert_eq!(
        only_address(
            &map.open_session(session_id(1), &for_address("10.0.0.5"), Tick::ZERO).unwrap().leases
        ),
        "10.0.0.5"
    );
    assert!(matches!(
        map.open_session(session_id(2), &for_address("10.0.0.5"), Tick::ZERO),
        Err(OpenError::Taken(_))
    ));
    assert!(matches!(
        map.open_session(session_id(2), &for_address("10.0.1.5"), Tick::ZERO),
        Err(OpenError::Excluded(_))
    ));
    assert!(map.reader().unwrap().lookup(session_id(2)).is_empty());
}

#[test]
fn reserved_addresses_go_to_their_user_and_only_once() {
    let map = memory_map(&["10.0.0.1-10.0.0.3"], Settings::without_cool_down());
    map.reserve("10.0.0.1".parse().unwrap(), "ann", Tick::ZERO).unwrap();
    assert_eq!(
        only_address(
            &map.open_session(session_id(1), &for_user("bob"), Tick::ZERO).unwrap().leases
        ),
        "10.0.0.2"
    );
    let ann = map.open_session(session_id(2), &for_user("ann"), Tick::ZERO).unwrap();
    assert_eq!(only_address(&ann.leases), "10.0.0.1");
    assert_eq!(
        only_address(
            &map.open_session(session_id(3), &for_user("ann"), Tick::ZERO).unwrap().leases
        ),
        "10.0.0.3"
    );
    map.close_by_handle(&ann.handle, Tick::ZERO).unwrap();
    assert!(map.open_session(session_id(4), &for_user("eve"), Tick::ZERO).is_err());
    map.unreserve("10.0.0.1".parse().unwrap(), Tick::ZERO).unwrap();
    assert_eq!(
        only_address(
            &map.open_session(session_id(4), &for_user("eve"), Tick::ZERO).unwrap().leases
        ),
        "10.0.0.1"
    );
}

#[test]
fn drained_address_stays_leased_and_is_not_allocated_again() {
    let map = memory_map(&["10.0.0.1-10.0.0.2"], Settings::without_cool_down());
    let first_session = map.open_session(session_id(1), &ANONYMOUS, Tick::ZERO).unwrap();
    let range = "10.0.0.0/24".parse().unwrap();
    let change = map.drain(&range, Tick::ZERO).unwrap();
    assert_eq!((change.addresses, change.held), (2, 1));
    assert!(map.reader().unwrap().is_live(&first_session.handle));
    map.close_by_handle(&first_session.handle, Tick::ZERO).unwrap();
    assert!(matches!(
        map.open_session(session_id(2), &ANONYMOUS, Tick::ZERO),
        Err(OpenError::Shortage { shortage: Shortage::Draining, .. })
    ));
    assert_eq!(map.reader().unwrap().pools()[0].drained, 2);
    map.undrain(&range, Tick::ZERO).unwrap();
    assert_eq!(map.reader().unwrap().pools()[0].free, 2);
    map.open_session(session_id(2), &ANONYMOUS, Tick::ZERO).unwrap();
}

#[test]
fn session_gets_one_address_of_each_kind() {
    let plan = Plan::new([
        pool("default", &["10.0.0.1-10.0.0.2"]),
        pool("lab", &["10.0.1.1"]),
        Pool::new("default", PoolKind::VirtualIp, &["fd00::/64".parse().unwrap()], 1000).unwrap(),
        loopback_pool("127.9.0.0/24"),
    ])
    .with_settings(Settings::without_cool_down());
    let map = vipool::map::Map::in_memory(&plan).unwrap();
    let opened = map.open_session(session_id(1), &OpenOptions::default(), Tick::ZERO).unwrap();
    let addresses: Vec<_> = addresses_of(&opened.leases).iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["10.0.0.1", "fd00::", "127.9.0.0"]);
    let reader = map.reader().unwrap();
    let session_addresses = reader.addresses(&opened.leases);
    assert_eq!(session_addresses.loopback6.unwrap().to_string(), "127.9.0.128");
    assert_eq!(reader.pool_kind("127.9.0.200".parse().unwrap()), Some(PoolKind::Loopback));
    let lab_options = OpenOptions::new().with_pool("lab");
    let lab_session = map.open_session(session_id(2), &lab_options, Tick::ZERO).unwrap();
    assert_eq!(addresses_of(&lab_session.leases)[0].to_string(), "10.0.1.1");
    let unknown_pool_options = OpenOptions::new().with_pool("no");
    assert!(matches!(
        map.open_session(session_id(3), &unknown_pool_options, Tick::ZERO),
        Err(OpenError::UnknownPool(_))
    ));
    map.close_by_handle(&lab_session.handle, Tick::ZERO).unwrap();
    let loopback_address: std::net::IpAddr = "127.9.0.7".parse().unwrap();
    let lab_session_with_loopback =
        map.open_session(session_id(3), &lab_options.with_address(loopback_address), Tick::ZERO);
    let lab_session_with_loopback = lab_session_with_loopback.unwrap();
    let addresses = addresses_of(&lab_session_with_loopback.leases);
    assert_eq!(addresses, ["10.0.1.1".parse().unwrap(), loopback_address]);
    map.close_by_handle(&lab_session_with_loopback.handle, Tick::ZERO).unwrap();
    map.close_by_handle(&opened.handle, Tick::ZERO).unwrap();
    assert!(map.reader().unwrap().pools().iter().all(|pool| pool.leased == 0));
}

#[test]
fn low_water_warns_once() {
    let settings = Settings::without_cool_down().with_low_water(2);
    let map = memory_map(&["10.0.0.1-10.0.0.4"], settings);
    let low_water_warnings: Vec<_> = (1..=4)
        .map(|number| {
            map.open_session(session_id(number), &ANONYMOUS, Tick::ZERO).unwrap().is_low_water()
        })
        .collect();
    assert_eq!(low_water_warnings, [false, false, true, false]);
    for number in 1..=4 {
        map.close_session(session_id(number), Tick::ZERO).unwrap();
    }
    assert!(!map.open_session(session_id(5), &ANONYMOUS, Tick::ZERO).unwrap().is_low_water());
    assert_eq!(map.reader().unwrap().pools()[0].peak, 4);
}

#[test]
fn quotas_limit_sessions_per_user_and_in_total() {
    let settings = Settings::without_cool_down().with_sessions_per_user(1).with_max_sessions(2);
    let map = vipool::map::Map::in_memory(&plan(&["10.0.0.1-10.0.0.9"], settings)).unwrap();
    map.open_session(session_id(1), &for_user("ann"), Tick::ZERO).unwrap();
    map.open_session(session_id(1), &for_user("ann"), Tick::ZERO).unwrap();
    assert!(matches!(
        map.open_session(session_id(2), &for_user("ann"), Tick::ZERO),
        Err(OpenError::Quota { .. })
    ));
    map.open_session(session_id(2), &for_user("bob"), Tick::ZERO).unwrap();
    assert!(matches!(
        map.open_session(session_id(3), &for_user("eve"), Tick::ZERO),
        Err(OpenError::TooManySessions(2))
    ));
}
