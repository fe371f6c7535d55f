//! Tests of reservations, and of their effect on quotas and on the last user of an address.

use vipool::Tick;
use vipool::map::{Map, OpenError, Settings};
use vipool::pool::Reservation;

use crate::plan_support::{create_map, new_directory};
use crate::support::{
    ANONYMOUS, FakeSystem, address, for_address, for_user, loopback_pool, memory_map, only_address,
    plan, pool, session_id,
};

#[test]
fn reserved_address_goes_to_its_user_only() {
    let plan = plan(&["10.0.0.1-10.0.0.3"], Settings::without_cool_down())
        .with_reservations([Reservation::new(address("10.0.0.2"), "ann")]);
    let map = Map::in_memory(&plan).unwrap();
    assert!(matches!(
        map.open_session(session_id(1), &for_address("10.0.0.2"), Tick::ZERO),
        Err(OpenError::ReservedForAnother(_))
    ));
    for number in 1..=2 {
        let opened = map.open_session(session_id(number), &for_user("bob"), Tick::ZERO).unwrap();
        assert_ne!(only_address(&opened.leases), "10.0.0.2");
    }
    assert!(map.open_session(session_id(3), &for_user("bob"), Tick::ZERO).is_err());
    assert_eq!(
        only_address(
            &map.open_session(session_id(3), &for_user("ann"), Tick::ZERO).unwrap().leases
        ),
        "10.0.0.2"
    );
}

#[test]
fn reservation_skips_the_cool_down_for_the_last_user_only() {
    let settings = Settings::without_cool_down().with_cool_down(60).with_check_in_use(true);
    let map = memory_map(&["10.0.0.1-10.0.0.3"], settings);
    let (reserved_address, mut probe) = (address("10.0.0.1"), FakeSystem::default());
    let open =
        |number, name, now| map.open_session(session_id(number), &for_user(name), now).unwrap();
    let bob = open(1, "bob", Tick::ZERO);
    map.reserve(reserved_address, "ann", Tick::ZERO).unwrap();
    map.close_by_handle(&bob.handle, Tick::ZERO).unwrap();
    // Bob's sockets may still use the address.
    assert_eq!(only_address(&open(2, "ann", Tick::from_secs(59)).leases), "10.0.0.2");
    let options = for_user("ann").with_address(reserved_address);
    let result = map.open_session(session_id(3), &options, Tick::from_secs(59));
    assert!(
        matches!(result, Err(OpenError::AddressCooling(_, until)) if until == Tick::from_secs(60)),
        "{result:?}"
    );
    let result = map.open_session(session_id(3), &options, Tick::from_secs(60));
    assert!(matches!(result, Err(OpenError::AddressLingering(_))), "{result:?}");
    probe.addresses_in_use = vec![reserved_address];
    assert_eq!(map.reap(Tick::from_secs(60), u32::MAX, &mut probe).unwrap().lingering, 1);
    assert_eq!(only_address(&open(3, "ann", Tick::from_secs(61)).leases), "10.0.0.3");
    map.close_session(session_id(3), Tick::from_secs(61)).unwrap();
    probe.addresses_in_use.clear();
    assert_eq!(map.reap(Tick::from_secs(62), u32::MAX, &mut probe).unwrap().freed, 1);
    let ann = open(3, "ann", Tick::from_secs(62));
    assert_eq!(only_address(&ann.leases), "10.0.0.1");
    // After this release, ann is the last user of the address. She need not wait for the end of its
    // cool-down.
    map.close_by_handle(&ann.handle, Tick::from_secs(63)).unwrap();
    assert_eq!(only_address(&open(3, "ann", Tick::from_secs(63)).leases), "10.0.0.1");
}

#[test]
fn user_of_a_later_lease_is_not_the_last_user_of_an_anonymous_lease() {
    let directory = new_directory();
    let virtual_ip_pool = pool("default", &["10.0.0.1"]);
    let settings = Settings::without_cool_down().with_cool_down(60);
    let map = create_map(&directory, std::slice::from_ref(&virtual_ip_pool), settings);
    map.open_session(session_id(1), &ANONYMOUS, Tick::ZERO).unwrap();
    // The first open passed no user. The next open passes a user, and the session gets a second
    // lease.
    let map = create_map(&directory, &[virtual_ip_pool, loopback_pool("127.3.4.0/29")], settings);
    map.open_session(session_id(1), &for_user("ann"), Tick::ZERO).unwrap();
    map.reserve(address("10.0.0.1"), "ann", Tick::ZERO).unwrap();
    map.close_session(session_id(1), Tick::from_secs(10)).unwrap();
    let options = for_user("ann").with_address(address("10.0.0.1"));
    let result = map.open_session(session_id(2), &options, Tick::from_secs(11));
    assert!(
        matches!(result, Err(OpenError::AddressCooling(_, until)) if until == Tick::from_secs(70)),
        "{result:?}"
    );
}

#[test]
fn removed_reservation_restores_the_last_user() {
    let directory = tempfile::tempdir().unwrap();
    let settings = Settings::without_cool_down().with_cool_down(60);
    let plan_for = |user: &str| {
        plan(&["10.0.0.1-10.0.0.2"], settings)
            .with_reservations([Reservation::new(address("10.0.0.1"), user)])
    };
    let map = Map::create(directory.path(), &plan(&["10.0.0.1-10.0.0.2"], settings)).unwrap();
    let bob = map.open_session(session_id(1), &for_user("bob"), Tick::ZERO).unwrap();
    map.close_by_handle(&bob.handle, Tick::ZERO).unwrap();
    map.reserve(address("10.0.0.1"), "ann", Tick::ZERO).unwrap();
    map.unreserve(address("10.0.0.1"), Tick::ZERO).unwrap();
    Map::create(directory.path(), &plan_for("ann")).unwrap();
    let map = Map::create(directory.path(), &plan_for("eve")).unwrap();
    let eve = map.open_session(session_id(2), &for_user("eve"), Tick::from_secs(1)).unwrap();
    assert_eq!(only_address(&eve.leases), "10.0.0.2");
    let map = Map::create(directory.path(), &plan(&["10.0.0.1-10.0.0.2"], settings)).unwrap();
    assert!(map.open_session(session_id(3), &for_user("ann"), Tick::from_secs(1)).is_err());
    assert_eq!(
        only_address(
            &map.open_session(session_id(3), &for_user("bob"), Tick::from_secs(1)).unwrap().leases
        ),
        "10.0.0.1"
    );
}

#[test]
fn quota_counts_sessions_by_their_user_not_by_reservation() {
    let settings = Settings::without_cool_down().with_sessions_per_user(1);
    let map = memory_map(&["10.0.0.1-10.0.0.4"], settings);
    map.open_session(session_id(1), &for_user("bob"), Tick::ZERO).unwrap();
    map.reserve(address("10.0.0.1"), "ann", Tick::ZERO).unwrap();
    assert!(matches!(
        map.open_session(session_id(2), &for_user("bob"), Tick::ZERO),
        Err(OpenError::Quota { .. })
    ));
    map.open_session(session_id(2), &for_user("ann"), Tick::ZERO).unwrap();
    // The reservation is removed before session 1 closes, so bob becomes the last user of the
    // address and gets it again.
    map.unreserve(address("10.0.0.1"), Tick::ZERO).unwrap();
    map.close_session(session_id(1), Tick::ZERO).unwrap();
    assert_eq!(
        only_address(
            &map.open_session(session_id(3), &for_user("bob"), Tick::ZERO).unwrap().leases
        ),
        "10.0.0.1"
    );
}
