//! Tests of sessions, limits, administration, monitoring and parsing. Also contains helpers that
//! the other test modules use.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};

use vipool::capi::status::vipool_status::{self, *};
use vipool::map::{
    AllocationTime, ExhaustionPolicy, OpenOptions, Plan, Settings, SlotRow, SlotState,
};
use vipool::policy::PoolRule;
use vipool::pool::{MAX_SLOTS, Pool, PoolKind, Reservation};
use vipool::session::{SessionId, SessionKind};

use crate::api::{Api, OpenedSession};

pub const FIRST_ADDRESS: &str = "10.0.5.10";
pub const SECOND_ADDRESS: &str = "10.0.5.11";

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub fn socket_addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

pub fn session_id(value: u64) -> SessionId {
    SessionId::new(SessionKind::Embedder, value).unwrap()
}

pub fn for_user(name: &str) -> OpenOptions<'_> {
    OpenOptions::new().with_user(name)
}

/// Returns a plan with virtual IPs and loopback addresses for four sessions.
pub fn plan() -> Plan {
    let pool = |name, kind, ranges: &str| {
        Pool::new(name, kind, &[ranges.parse().unwrap()], MAX_SLOTS).unwrap()
    };
    Plan::new([
        pool("default", PoolKind::VirtualIp, "10.0.5.10-10.0.5.13"),
        pool("loopback", PoolKind::Loopback, "127.3.0.2-127.3.0.9"),
    ])
    .with_settings(Settings::without_cool_down())
}

pub fn plan_with(settings: Settings) -> Plan {
    plan().with_settings(settings)
}

pub fn addresses(opened: &OpenedSession) -> Vec<String> {
    opened.leases.iter().map(|lease| lease.address.to_string()).collect()
}

/// Returns the error of a result as a status. Panics if the result is not an error.
pub fn status_of<T: std::fmt::Debug>(result: Result<T, i32>) -> vipool_status {
    vipool_status::from_number(result.unwrap_err()).unwrap()
}

pub fn session_opens_and_closes_once<A: Api>() {
    let api = A::new(&plan()).unwrap();
    let opened = api.open(session_id(1), &for_user("ada"), 100).unwrap();
    assert_eq!(addresses(&opened), [FIRST_ADDRESS, "127.3.0.2"]);
    assert!(!opened.was_already_open && !opened.is_low_water && opened.shortage == 0);

    let reopened = api.open(session_id(1), &for_user("ada"), 101).unwrap();
    assert!(reopened.was_already_open);
    assert_eq!((reopened.handle, &reopened.leases), (opened.handle, &opened.leases));

    assert_eq!(api.find(session_id(1)), Ok((opened.handle, opened.leases.clone())));
    let session_addresses = api.addresses(session_id(1)).unwrap();
    assert_eq!(session_addresses.v4.map(IpAddr::from), Some(ip(FIRST_ADDRESS)));
    assert_eq!(session_addresses.loopback.map(IpAddr::from), Some(ip("127.3.0.2")));
    assert_eq!(session_addresses.loopback6.map(IpAddr::from), Some(ip("127.3.0.6")));
    assert_eq!(session_addresses.v6, None);
    assert!(api.is_live(&opened.handle));

    assert_eq!(api.close(&opened.handle, 102), Ok(opened.leases));
    assert!(!api.is_live(&opened.handle));
    assert_eq!(status_of(api.find(session_id(1))), VIPOOL_ERR_NOT_OPEN);
    assert_eq!(status_of(api.addresses(session_id(1))), VIPOOL_ERR_NOT_OPEN);
    assert_eq!(status_of(api.close(&opened.handle, 103)), VIPOOL_ERR_STALE);
    assert_eq!(status_of(api.close_session(session_id(1), 103)), VIPOOL_ERR_NOT_OPEN);

    let other_api = A::new(&plan()).unwrap();
    let other_opened = other_api.open(session_id(1), &for_user("ada"), 100).unwrap();
    let mut foreign_handle = other_opened.handle;
    foreign_handle.boot ^= 1;
    assert_eq!(status_of(other_api.close(&foreign_handle, 101)), VIPOOL_ERR_FOREIGN);
    assert!(other_api.is_live(&other_opened.handle));
}

pub fn exhausted_pools_and_limits_refuse_sessions<A: Api>() {
    let settings = Settings::without_cool_down().with_low_water(2).with_max_sessions(5);
    let api = A::new(&plan_with(settings)).unwrap();
    for value in 1..=4 {
        let opened = api.open(session_id(value), &for_user("ada"), 100).unwrap();
        assert_eq!(opened.is_low_water, value == 3, "session {value}");
    }
    // Both pools are exhausted, so session 5 gets no address at all.
    assert_eq!(status_of(api.open(session_id(5), &for_user("ada"), 100)), VIPOOL_ERR_EXHAUSTED);
    assert_eq!(
        status_of(api.open(session_id(5), &OpenOptions::default(), 100)),
        VIPOOL_ERR_EXHAUSTED
    );
    api.close_session(session_id(2), 101).unwrap();
    let opened = api.open(session_id(5), &for_user("eve"), 101).unwrap();
    assert_eq!(addresses(&opened)[0], SECOND_ADDRESS);

    let map_with_session_limit =
        A::new(&plan_with(Settings::without_cool_down().with_max_sessions(1))).unwrap();
    map_with_session_limit.open(session_id(1), &for_user("ada"), 100).unwrap();
    let second_result = map_with_session_limit.open(session_id(2), &for_user("eve"), 100);
    assert_eq!(status_of(second_result), VIPOOL_ERR_TOO_MANY_SESSIONS);

    let map_with_user_quota =
        A::new(&plan_with(Settings::without_cool_down().with_sessions_per_user(1))).unwrap();
    map_with_user_quota.open(session_id(1), &for_user("ada"), 100).unwrap();
    assert_eq!(
        status_of(map_with_user_quota.open(session_id(2), &for_user("ada"), 100)),
        VIPOOL_ERR_QUOTA
    );
    map_with_user_quota.open(session_id(2), &for_user("eve"), 100).unwrap();
}

pub fn required_address_is_leased_or_refused<A: Api>() {
    let api = A::new(&plan()).unwrap();
    let options = |address: &str| for_user("ada").with_address(ip(address));
    let opened = api.open(session_id(1), &options("10.0.5.12"), 100).unwrap();
    assert_eq!(addresses(&opened)[0], "10.0.5.12");
    assert_eq!(status_of(api.open(session_id(2), &options("10.0.5.12"), 100)), VIPOOL_ERR_TAKEN);
    assert_eq!(status_of(api.open(session_id(2), &options("10.0.9.9"), 100)), VIPOOL_ERR_EXCLUDED);
    let unknown_pool = for_user("ada").with_pool("nowhere");
    assert_eq!(status_of(api.open(session_id(2), &unknown_pool, 100)), VIPOOL_ERR_UNKNOWN_POOL);

    let mut plan_with_rules = plan();
    for (name, addresses) in [("lab", "10.0.6.0-10.0.6.3"), ("web", "10.0.7.0-10.0.7.3")] {
        let range = addresses.parse().unwrap();
        let pool = Pool::new(name, PoolKind::VirtualIp, &[range], MAX_SLOTS).unwrap();
        plan_with_rules.pools.push(pool);
    }
    plan_with_rules.policy.pool_rules = vec![
        PoolRule::new("lab").with_users(["eve"]),
        PoolRule::new("web").with_programs(["firefox"]),
    ];
    let api_with_rules = A::new(&plan_with_rules).unwrap();
    assert_eq!(
        api_with_rules.choose_pool("eve", Some("/usr/bin/firefox")).unwrap().as_deref(),
        Some("lab")
    );
    assert_eq!(
        api_with_rules.choose_pool("ada", Some("/usr/bin/firefox")).unwrap().as_deref(),
        Some("web")
    );
    assert_eq!(api_with_rules.choose_pool("ada", None), Ok(None));
    assert_eq!(api.sessions().len(), 1);
}

pub fn reserved_and_drained_addresses_are_withheld<A: Api>() {
    let mut plan_with_reservation = plan();
    plan_with_reservation.reservations.push(Reservation::new(ip("10.0.5.13"), "ada"));
    let api = A::new(&plan_with_reservation).unwrap();
    let options = for_user("eve").with_address(ip("10.0.5.13"));
    assert_eq!(status_of(api.open(session_id(1), &options, 100)), VIPOOL_ERR_RESERVED);
    let opened = api.open(session_id(1), &for_user("ada"), 100).unwrap();
    assert_eq!(addresses(&opened)[0], "10.0.5.13");

    api.reserve(ip(SECOND_ADDRESS), "eve", 101).unwrap();
    assert_eq!(status_of(api.reserve(ip(SECOND_ADDRESS), "bob", 101)), VIPOOL_ERR_RESERVED);
    assert_eq!(status_of(api.reserve(ip("10.0.9.9"), "bob", 101)), VIPOOL_ERR_EXCLUDED);
    assert_eq!(
        addresses(&api.open(session_id(2), &for_user("eve"), 101).unwrap())[0],
        SECOND_ADDRESS
    );
    api.unreserve(ip(SECOND_ADDRESS), 102).unwrap();
    assert_eq!(status_of(api.unreserve(ip(SECOND_ADDRESS), 102)), VIPOOL_ERR_NOT_RESERVED);

    let range = "10.0.5.10-10.0.5.11".parse().unwrap();
    assert_eq!(api.drain(&range, 103), Ok((2, 1)));
    let options = for_user("bob").with_address(ip(FIRST_ADDRESS));
    assert_eq!(status_of(api.open(session_id(3), &options, 103)), VIPOOL_ERR_DRAINED);
    assert_eq!(addresses(&api.open(session_id(3), &for_user("bob"), 103).unwrap())[0], "10.0.5.12");
    api.undrain(&range, 104).unwrap();
    assert_eq!(addresses(&api.open(session_id(4), &options, 104).unwrap())[0], FIRST_ADDRESS);

    let draining_map = A::new(&plan()).unwrap();
    draining_map.set_draining(true).unwrap();
    assert!(draining_map.is_draining());
    assert_eq!(
        status_of(draining_map.open(session_id(1), &for_user("ada"), 100)),
        VIPOOL_ERR_DRAINING
    );
    draining_map.set_draining(false).unwrap();
    draining_map.open(session_id(1), &for_user("ada"), 100).unwrap();
}

pub fn names_are_compared_completely<A: Api>() {
    // The names of the first pair have the same hash if the hash function has no key. The names of
    // each other pair begin with the same 63 bytes.
    let common_prefix = "a".repeat(63);
    for [name1, name2] in [
        ["alice".to_owned(), "uwsf1hi".to_owned()],
        [format!("{common_prefix}b"), format!("{common_prefix}c")],
        [format!("{common_prefix}b"), common_prefix.clone()],
    ] {
        let api =
            A::new(&plan_with(Settings::without_cool_down().with_sessions_per_user(1))).unwrap();
        api.reserve(ip(SECOND_ADDRESS), &name1, 100).unwrap();
        assert_eq!(status_of(api.reserve(ip(SECOND_ADDRESS), &name2, 100)), VIPOOL_ERR_RESERVED);
        let options = for_user(&name2).with_address(ip(SECOND_ADDRESS));
        assert_eq!(status_of(api.open(session_id(1), &options, 100)), VIPOOL_ERR_RESERVED);
        assert_eq!(
            addresses(&api.open(session_id(1), &for_user(&name2), 100).unwrap())[0],
            FIRST_ADDRESS
        );
        assert_eq!(
            addresses(&api.open(session_id(2), &for_user(&name1), 100).unwrap())[0],
            SECOND_ADDRESS
        );
        for name in [&name1, &name2] {
            let result = api.open(session_id(3), &for_user(name), 100);
            assert_eq!(status_of(result), VIPOOL_ERR_QUOTA);
        }
    }
}

pub fn lingering_address_is_freed_by_reap<A: Api>() {
    let settings = Settings::without_cool_down().with_cool_down(60).with_check_in_use(true);
    let api = A::new(&plan_with(settings)).unwrap();
    for value in 1..=4 {
        api.open(session_id(value), &for_user("ada"), 100).unwrap();
    }
    let released_leases = api.close_session(session_id(1), 100).unwrap();
    assert_eq!(released_leases.len(), 2);
    assert_eq!(status_of(api.open(session_id(5), &for_user("eve"), 110)), VIPOOL_ERR_COOLING);
    assert_eq!(api.reap(110, &[]), Ok([0, 0, 0]));
    assert_eq!(status_of(api.open(session_id(5), &for_user("eve"), 200)), VIPOOL_ERR_LINGERING);

    let [freed, lingering, closed] = api.reap(200, &[ip(FIRST_ADDRESS)]).unwrap();
    assert_eq!((freed, lingering, closed), (1, 1, 0));
    let opened = api.open(session_id(5), &for_user("eve"), 201).unwrap();
    assert_eq!(addresses(&opened), ["127.3.0.2"]);
    assert_eq!((opened.shortage, opened.shortage_pool), (VIPOOL_ERR_LINGERING as i32, 0));
    api.reap(300, &[]).unwrap();
    // Opening the session again adds the missing address.
    let opened = api.open(session_id(5), &for_user("eve"), 301).unwrap();
    assert!(opened.was_already_open && opened.shortage == 0);
    assert_eq!(addresses(&opened), [FIRST_ADDRESS, "127.3.0.2"]);
}

pub fn reconcile_closes_ended_sessions<A: Api>() {
    let api = A::new(&plan()).unwrap();
    for value in 1..=3 {
        api.open(session_id(value), &for_user("ada"), 100).unwrap();
    }
    assert_eq!(api.reconcile(101, &[session_id(2)]), Ok(2));
    assert_eq!(api.sessions().len(), 1);
    assert!(api.find(session_id(2)).is_ok());
    api.recover().unwrap();
    assert!(api.find(session_id(2)).is_ok());
}

pub fn sessions_are_refused_until_restored<A: Api>() {
    let settings = Settings::without_cool_down().with_await_restore(true);
    let api = A::new(&plan_with(settings)).unwrap();
    assert_eq!(status_of(api.open(session_id(1), &for_user("ada"), 100)), VIPOOL_ERR_NOT_READY);
    api.mark_restored().unwrap();
    api.open(session_id(1), &for_user("ada"), 100).unwrap();
}

pub fn monitor_sees_sessions_pools_and_slots<A: Api>() {
    let settings = Settings::without_cool_down()
        .with_cool_down(7)
        .with_check_in_use(true)
        .with_low_water(1)
        .with_sessions_per_user(9)
        .with_max_sessions(8)
        .with_on_exhausted(ExhaustionPolicy::Wait(5))
        .with_allocate(AllocationTime::FirstUse);
    let api = A::new(&plan_with(settings)).unwrap();
    assert_eq!(api.settings(), settings);
    let options = for_user("ada").with_client(ip("192.0.2.9"));
    let opened_sessions: Vec<_> =
        (1..=3).map(|value| api.open(session_id(value), &options, 100).unwrap()).collect();
    let rows = api.sessions();
    assert_eq!(rows.len(), 3);
    for (row, opened) in rows.iter().zip(&opened_sessions) {
        assert_eq!((row.handle, &row.leases), (opened.handle, &opened.leases));
        assert_eq!((row.user.as_deref(), row.client), (Some("ada"), Some(ip("192.0.2.9"))));
    }
    api.close_session(session_id(1), 101).unwrap();
    let pools = api.pools();
    assert_eq!((&*pools[0].name, pools[0].loopback), ("default", false));
    assert_eq!((&*pools[1].name, pools[1].loopback), ("loopback", true));
    for pool in pools {
        assert_eq!((pool.slots, pool.leased, pool.free, pool.cooling, pool.peak), (4, 2, 1, 1, 3));
    }
    api.reserve(ip("10.0.5.13"), "ada", 102).unwrap();
    let slot = |address: &str, state| {
        SlotRow::new(ip(address), state).with_reserved(address == "10.0.5.13")
    };
    let slots = [
        slot(SECOND_ADDRESS, SlotState::Leased),
        slot("10.0.5.12", SlotState::Leased),
        slot("10.0.5.13", SlotState::Free),
    ];
    assert_eq!(api.slots(0), slots);
    assert_eq!(api.slots(9), []);
    assert_eq!(api.pool_kind(ip(FIRST_ADDRESS)), Some(PoolKind::VirtualIp));
    assert_eq!(api.pool_kind(ip("127.3.0.2")), Some(PoolKind::Loopback));
    assert_eq!(api.pool_kind(ip("192.0.2.1")), None);
}

pub fn texts_are_parsed_and_formatted<A: Api>() {
    assert_eq!(A::parse_session("7"), Ok(5 << 56 | 7));
    assert_eq!(A::parse_session("audit:3"), Ok(2 << 56 | 3));
    assert_eq!(status_of(A::parse_session("audit:4294967295")), VIPOOL_ERR_SESSION_UNSET);
    assert_eq!(status_of(A::parse_session("pts:3")), VIPOOL_ERR_KIND);
    for text in ["", "x", "7 ", "-1", "72057594037927936"] {
        assert_eq!(status_of(A::parse_session(text)), VIPOOL_ERR_SESSION_ID, "{text:?}");
    }
    assert_eq!(A::parse_range("10.0.5.0/31"), Ok((ip("10.0.5.0"), ip("10.0.5.1"))));
    assert_eq!(status_of(A::parse_range("10.0.5.1/31")), VIPOOL_ERR_RANGE_HOST_BITS);
    assert_eq!(status_of(A::parse_range("10.0.5.9-10.0.5.1")), VIPOOL_ERR_RANGE_ORDER);
    assert_eq!(status_of(A::parse_range("10.0.5")), VIPOOL_ERR_RANGE_SYNTAX);
    let api = A::new(&plan()).unwrap();
    let handle = api.open(session_id(1), &for_user("ada"), 100).unwrap().handle;
    assert_eq!(A::format_and_parse(&handle), Some(handle));
}

pub fn invalid_plan_creates_no_map<A: Api>() {
    let mut duplicate_pools = plan();
    duplicate_pools.pools.push(duplicate_pools.pools[0].clone());
    assert_eq!(A::new(&duplicate_pools).err(), Some(VIPOOL_ERR_PLAN as i32));
    // If an API accepts a plan without pools, the map has no address for a session.
    if let Ok(api) = A::new(&Plan::default()) {
        assert_eq!(status_of(api.open(session_id(1), &for_user("ada"), 100)), VIPOOL_ERR_EXHAUSTED);
    }
}

pub fn eight_threads_share_a_map<A: Api>() {
    let mut large_plan = plan();
    let range = "10.1.0.0-10.1.3.255".parse().unwrap();
    large_plan.pools =
        vec![Pool::new("default", PoolKind::VirtualIp, &[range], MAX_SLOTS).unwrap()];
    let api = A::new(&large_plan).unwrap();
    let kept_addresses: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|thread| {
                let api = &api;
                scope.spawn(move || {
                    let mut kept_addresses = Vec::new();
                    for round in 0..100 {
                        let id = session_id(thread * 1000 + round);
                        let opened = api.open(id, &for_user("ada"), 100).unwrap();
                        assert_eq!(api.find(id).unwrap().0, opened.handle);
                        if round % 2 == 0 {
                            api.close(&opened.handle, 100).unwrap();
                            assert!(!api.is_live(&opened.handle));
                        } else {
                            kept_addresses.extend(opened.leases.iter().map(|lease| lease.address));
                        }
                    }
                    kept_addresses
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(kept_addresses.len(), 400);
    assert_eq!(
        kept_addresses.iter().collect::<HashSet<_>>().len(),
        400,
        "no address may be leased twice"
    );
    assert_eq!(api.pools()[0].leased, 400);
}
