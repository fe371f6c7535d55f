//! Tests of the identity of users. A keyed hash of the complete name identifies a user. The public
//! file `map` contains no name.

use vipool::Tick;
use vipool::map::{Map, OpenError, Settings};

use crate::support::{
    ANONYMOUS, address, for_address, for_user, memory_map, only_address, plan, session_id,
};

/// Returns pairs of names. The names of the first pair have the same hash if the hash function has
/// no key. The names of each other pair begin with the same 63 bytes.
fn similar_names() -> Vec<[String; 2]> {
    let prefix = "a".repeat(63);
    vec![
        ["alice".to_owned(), "uwsf1hi".to_owned()],
        [format!("{prefix}b"), format!("{prefix}c")],
        [format!("{prefix}b"), prefix.clone()],
        [prefix.clone() + &prefix, format!("{prefix}{}b", &prefix[1..])],
    ]
}

#[test]
fn similar_names_are_different_users() {
    for [name, similar_name] in similar_names() {
        let settings = Settings::without_cool_down().with_sessions_per_user(1).with_cool_down(60);
        let map = memory_map(&["10.0.0.1-10.0.0.3"], settings);
        map.reserve(address("10.0.0.3"), &name, Tick::ZERO).unwrap();
        let result = map.reserve(address("10.0.0.3"), &similar_name, Tick::ZERO);
        assert!(result.is_err(), "{similar_name}");
        let open = |number, name, now| {
            map.open_session(session_id(number), &for_user(name), Tick::from_secs(now))
                .map(|opened| only_address(&opened.leases))
        };
        assert_eq!(open(1, &similar_name, 1).unwrap(), "10.0.0.1", "{similar_name}");
        assert_eq!(open(2, &name, 1).unwrap(), "10.0.0.3", "{name}");
        assert!(matches!(open(3, &name, 1), Err(OpenError::Quota { .. })), "{name}");
        map.close_session(session_id(1), Tick::from_secs(2)).unwrap();
        map.close_session(session_id(2), Tick::from_secs(2)).unwrap();
        let options = for_address("10.0.0.1").with_user(&*name);
        let result = map.open_session(session_id(4), &options, Tick::from_secs(3));
        assert!(matches!(result, Err(OpenError::AddressCooling(..))), "{name}: {result:?}");
        assert_eq!(open(4, &similar_name, 3).unwrap(), "10.0.0.1", "{similar_name}");
    }
}

#[test]
fn long_names_keep_their_address_but_are_not_saved() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("last-users");
    let long_name = "a".repeat(64);
    let map = memory_map(&["10.0.0.1-10.0.0.4"], Settings::without_cool_down());
    for (number, name) in [(1, &*long_name), (2, "bob"), (3, "line\nbreak"), (4, "d \"e\" ")] {
        map.open_session(session_id(number), &for_user(name), Tick::ZERO).unwrap();
    }
    for number in 1..=4 {
        map.close_session(session_id(number), Tick::ZERO).unwrap();
    }
    map.save_users(&file).unwrap();
    let text = std::fs::read_to_string(&file).unwrap();
    let lines: Vec<&str> = text.lines().skip(1).collect();
    assert_eq!(lines, ["10.0.0.2 \"bob\"", "10.0.0.4 \"d \"e\" \""]);
    let next_session = map.open_session(session_id(5), &for_user(&long_name), Tick::ZERO).unwrap();
    assert_eq!(only_address(&next_session.leases), "10.0.0.1");
    let new_map = memory_map(&["10.0.0.1-10.0.0.4"], Settings::without_cool_down());
    assert_eq!(new_map.restore_users(&file, Tick::ZERO).unwrap(), 2);
    let options = for_user("d \"e\" ");
    let restored_session = new_map.open_session(session_id(1), &options, Tick::ZERO).unwrap();
    assert_eq!(only_address(&restored_session.leases), "10.0.0.4");
}

/// The file would lose its users if a save followed a restoration that failed.
#[test]
fn users_that_were_not_restored_stay_in_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("last-users");
    let first_line = "# vipool: who had an address last, version 3\n";
    let lines = "10.0.0.2 \"bob\"\n10.0.0.1 \"ann\"\n10.0.0.9 \"eve\"\n";
    std::fs::write(&file, format!("{first_line}{lines}")).unwrap();
    let map = memory_map(&["10.0.0.1-10.0.0.4"], Settings::without_cool_down());
    map.open_session(session_id(1), &for_user("carol"), Tick::ZERO).unwrap();
    map.save_users(&file).unwrap();
    let text = std::fs::read_to_string(&file).unwrap();
    assert_eq!(text, format!("{first_line}10.0.0.2 \"bob\"\n10.0.0.1 \"carol\"\n"));
    assert_eq!(map.restore_users(&file, Tick::ZERO).unwrap(), 1);
}

#[test]
fn map_file_depends_on_names_only_through_a_secret() {
    const HEADER_BYTES: usize = 128 * 8;
    let map_bytes = |options: &_| {
        let directory = tempfile::tempdir().unwrap();
        let map =
            Map::create(directory.path(), &plan(&["10.0.0.1"], Settings::without_cool_down()))
                .unwrap();
        map.reserve(address("10.0.0.1"), "eve", Tick::ZERO).unwrap();
        map.unreserve(address("10.0.0.1"), Tick::ZERO).unwrap();
        map.open_session(session_id(1), options, Tick::ZERO).unwrap();
        std::fs::read(directory.path().join("map")).unwrap().split_off(HEADER_BYTES)
    };
    assert_eq!(map_bytes(&ANONYMOUS), map_bytes(&ANONYMOUS));
    let ann = for_user("ann");
    assert_ne!(map_bytes(&ann), map_bytes(&ann), "anybody could compute the tag of ann");
}

#[test]
fn last_user_survives_a_recovery_and_a_new_plan() {
    let directory = tempfile::tempdir().unwrap();
    let settings = Settings::without_cool_down().with_cool_down(60);
    let map = Map::create(directory.path(), &plan(&["10.0.0.1-10.0.0.3"], settings)).unwrap();
    for (number, name) in [(1, "ann"), (2, "bob")] {
        map.open_session(session_id(number), &for_user(name), Tick::ZERO).unwrap();
    }
    map.close_session(session_id(2), Tick::ZERO).unwrap();
    map.close_session(session_id(1), Tick::ZERO).unwrap();
    // After a writer was killed in a transaction, the next writer makes the same recovery.
    map.recover().unwrap();
    let map = Map::create(directory.path(), &plan(&["10.0.0.0-10.0.0.3"], settings)).unwrap();
    let open = |number, name| {
        let opened = map.open_session(session_id(number), &for_user(name), Tick::from_secs(1));
        only_address(&opened.unwrap().leases)
    };
    assert_eq!((open(3, "bob"), open(4, "ann")), ("10.0.0.2".into(), "10.0.0.1".into()));
}

#[test]
fn users_are_unknown_without_the_sessions_file() {
    let directory = tempfile::tempdir().unwrap();
    let settings = Settings::without_cool_down().with_sessions_per_user(1);
    let map = Map::create(directory.path(), &plan(&["10.0.0.1-10.0.0.9"], settings)).unwrap();
    map.open_session(session_id(1), &for_user("ann"), Tick::ZERO).unwrap();
    map.reserve(address("10.0.0.9"), "eve", Tick::ZERO).unwrap();
    let bytes = std::fs::read(directory.path().join("map")).unwrap();
    let map = Map::from_bytes(&bytes, &[]).unwrap();
    let result = map.open_session(session_id(2), &for_user("ann"), Tick::ZERO);
    assert!(matches!(result, Err(OpenError::Map(_))), "the quota would not hold: {result:?}");
    let result = map.open_session(session_id(2), &for_address("10.0.0.9"), Tick::ZERO);
    assert!(matches!(result, Err(OpenError::ReservedForAnother(_))), "{result:?}");
    assert!(map.reserve(address("10.0.0.8"), "eve", Tick::ZERO).is_err());
    map.open_session(session_id(2), &ANONYMOUS, Tick::ZERO).unwrap();
}
