//! Tests of sessions that are opened again, and of updates of their client and leader.

use vipool::Tick;
use vipool::map::{ChangeError, LEADER_GRACE, Leader, Map, OpenError, OpenOptions, Plan, Settings};

use crate::support::{
    ANONYMOUS, FakeSystem, address, for_address, for_user, loopback_pool, memory_map, only_address,
    plan, pool, session_id,
};

const NOW: Tick = Tick::from_secs(100);

fn leader(pid: u32) -> Leader {
    Leader { pid, start_time: 7, pid_namespace: 0 }
}

/// An operating system in which only the process with this id is running.
struct OneProcess(u32);

impl vipool::map::Probe for OneProcess {
    fn has_sockets(&mut self, _: std::net::IpAddr) -> bool {
        false
    }

    fn has_exited(&mut self, leader: &Leader) -> bool {
        leader.pid != self.0
    }
}

#[test]
fn open_session_refuses_another_user() {
    let map = memory_map(&["10.0.0.1-10.0.0.3"], Settings::without_cool_down());
    let opened = map.open_session(session_id(1), &for_user("ann"), NOW).unwrap();
    let error = map.open_session(session_id(1), &for_user("bob"), NOW).unwrap_err();
    assert!(matches!(error, OpenError::OtherUser(id) if id == session_id(1)), "{error}");
    for options in [for_user("ann"), ANONYMOUS] {
        let reopened = map.open_session(session_id(1), &options, NOW).unwrap();
        assert!(reopened.already_open);
        assert_eq!((reopened.handle, reopened.leases), (opened.handle, opened.leases));
    }
    assert_eq!(map.sessions().unwrap()[0].user.as_deref(), Some("ann"));

    map.open_session(session_id(2), &ANONYMOUS, NOW).unwrap();
    // The first open with a user sets the user of an anonymous session.
    map.open_session(session_id(2), &for_user("bob"), NOW).unwrap();
    let error = map.open_session(session_id(2), &for_user("ann"), NOW).unwrap_err();
    assert!(matches!(error, OpenError::OtherUser(_)), "{error}");
    assert_eq!(map.sessions().unwrap()[1].user.as_deref(), Some("bob"));
    map.close_session(session_id(1), NOW).unwrap();
    map.open_session(session_id(1), &for_user("bob"), NOW).unwrap();
}

#[test]
fn open_session_refuses_an_address_that_the_session_does_not_hold() {
    let map = memory_map(&["10.0.0.1-10.0.0.3"], Settings::without_cool_down());
    map.open_session(session_id(1), &for_address("10.0.0.2"), NOW).unwrap();
    map.open_session(session_id(2), &for_address("10.0.0.3"), NOW).unwrap();
    // The first address is free, another session holds the second, and no pool has the third.
    for (requested, is_in_pool) in [("10.0.0.1", true), ("10.0.0.3", true), ("10.0.9.9", false)] {
        match map.open_session(session_id(1), &for_address(requested), NOW).unwrap_err() {
            OpenError::OtherAddress(found) => assert!(is_in_pool && found == address(requested)),
            OpenError::Excluded(found) => assert!(!is_in_pool && found == address(requested)),
            error => panic!("{requested}: {error}"),
        }
    }
    let reopened = map.open_session(session_id(1), &for_address("10.0.0.2"), NOW).unwrap();
    assert_eq!(
        (only_address(&reopened.leases).as_str(), reopened.already_open),
        ("10.0.0.2", true)
    );
}

#[test]
fn open_session_takes_a_new_client_and_leader() {
    let map = memory_map(&["10.0.0.1-10.0.0.3"], Settings::without_cool_down());
    let options = for_user("ann").with_client(address("192.0.2.1")).with_leader(leader(5));
    map.open_session(session_id(1), &options, NOW).unwrap();
    let identity = || {
        let row = map.sessions().unwrap().remove(0);
        (row.user, row.client, row.leader.map(|leader| leader.pid))
    };
    let expected = |client: &str, pid| (Some("ann".to_owned()), Some(address(client)), Some(pid));
    // An option that is not set changes nothing.
    map.open_session(session_id(1), &ANONYMOUS, NOW).unwrap();
    assert_eq!(identity(), expected("192.0.2.1", 5));
    map.open_session(session_id(1), &for_user("ann").with_client(address("2001:db8::2")), NOW)
        .unwrap();
    assert_eq!(identity(), expected("2001:db8::2", 5));
    map.open_session(session_id(1), &ANONYMOUS.with_leader(leader(6)), NOW).unwrap();
    assert_eq!(identity(), expected("2001:db8::2", 6));

    map.update_session(session_id(1), Some(address("192.0.2.3")), Some(leader(7))).unwrap();
    assert_eq!(identity(), expected("192.0.2.3", 7));
    map.update_session(session_id(1), None, None).unwrap();
    assert_eq!(identity(), expected("192.0.2.3", 7));
    let error = map.update_session(session_id(2), None, Some(leader(7))).unwrap_err();
    assert!(matches!(error, ChangeError::NotOpen(_)), "{error}");
}

#[test]
fn session_with_a_new_leader_outlives_the_old_leader() {
    let map = memory_map(&["10.0.0.1"], Settings::without_cool_down());
    map.open_session(session_id(1), &ANONYMOUS.with_leader(leader(5)), NOW).unwrap();
    let grace_end = NOW.saturating_add(LEADER_GRACE);
    map.reap(NOW, 10, &mut OneProcess(6)).unwrap();
    map.update_session(session_id(1), Some(address("192.0.2.1")), None).unwrap();
    map.update_session(session_id(1), None, Some(leader(6))).unwrap();
    assert!(map.reap(grace_end, 10, &mut OneProcess(6)).unwrap().closed.is_empty());
    assert!(map.reap(grace_end, 10, &mut OneProcess(7)).unwrap().closed.is_empty());
    // A new client does not postpone the close of a session with a dead leader.
    map.update_session(session_id(1), Some(address("192.0.2.2")), None).unwrap();
    let second_grace_end = grace_end.saturating_add(LEADER_GRACE);
    assert_eq!(map.reap(second_grace_end, 10, &mut OneProcess(7)).unwrap().closed, [session_id(1)]);
}

#[test]
fn completed_session_keeps_its_user() {
    let mut plan = plan(&["10.0.0.1"], Settings::without_cool_down());
    plan.pools.push(loopback_pool("127.7.0.0/28"));
    let map = Map::in_memory(&plan).unwrap();
    map.open_session(session_id(1), &for_user("bob"), NOW).unwrap();
    let partial_session = map.open_session(session_id(2), &for_user("ann"), NOW).unwrap();
    assert_eq!(partial_session.leases.len(), 1);
    map.close_session(session_id(1), NOW).unwrap();
    let options = OpenOptions::new().with_client(address("192.0.2.1"));
    let complete_session = map.open_session(session_id(2), &options, NOW).unwrap();
    assert_eq!(complete_session.leases.len(), 2);
    // The new lease is in the first pool, so `sessions` reads the user from the record of this
    // lease.
    let row = &map.sessions().unwrap()[0];
    assert_eq!((row.user.as_deref(), row.client), (Some("ann"), Some(address("192.0.2.1"))));
    map.reap(NOW, 10, &mut FakeSystem::default()).unwrap();
    assert!(map.open_session(session_id(2), &for_user("bob"), NOW).is_err());
}

#[test]
fn added_lease_does_not_change_the_start_of_the_session() {
    let plan = Plan::new([pool("default", &["10.0.0.1"]), loopback_pool("127.9.0.0/24")])
        .with_settings(Settings::without_cool_down());
    let map = Map::in_memory(&plan).unwrap();
    let start_time = |session| {
        let rows = map.sessions().unwrap();
        let row = rows.into_iter().find(|row| row.session == session_id(session)).unwrap();
        (row.leases.iter().count(), row.since)
    };
    map.open_session(session_id(1), &ANONYMOUS, NOW).unwrap();
    let later = Tick::from_secs(105);
    let opened = map.open_session(session_id(2), &ANONYMOUS, later).unwrap();
    assert!(opened.shortage.is_some());
    assert_eq!(start_time(2), (1, later));
    map.close_session(session_id(1), later).unwrap();
    map.open_session(session_id(2), &ANONYMOUS, Tick::from_secs(110)).unwrap();
    // The virtual IP is the anchor now, but it is not the first lease of the session.
    assert_eq!(start_time(2), (2, later));
}
