//! Tests of maps in files. Several writers and readers share a map, and a new plan replaces a map
//! while sessions are open.

use std::io::{Seek, SeekFrom, Write};
use std::path::PathBuf;

use vipool::Tick;
use vipool::map::{Map, MapError, OpenError, OpenOptions, Plan, Reader, Settings, Shortage};
use vipool::policy::{Policy, PoolRule, Program};
use vipool::pool::{MAX_SLOTS, Pool, PoolError, PoolKind, Reservation};

use crate::support::{
    ANONYMOUS, FakeSystem, address, addresses_of, for_user, loopback_pool, memory_map,
    only_address, plan, pool, session_id,
};

/// A directory that is removed when the value is dropped.
struct TestDirectory(PathBuf);

impl TestDirectory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("vipool-map-{name}-{}", std::process::id()));
        _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for TestDirectory {
    fn drop(&mut self) {
        _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn writers_and_readers_share_a_file() {
    let directory = TestDirectory::new("share");
    let first_map =
        Map::create(&directory.0, &plan(&["10.0.0.1-10.0.0.9"], Settings::without_cool_down()))
            .unwrap();
    let second_map = Map::open(&directory.0).unwrap();
    let reader = Reader::attach(&directory.0).unwrap();
    let first_session =
        first_map.open_session(session_id(1), &for_user("ann"), Tick::from_secs(5)).unwrap();
    let second_session =
        second_map.open_session(session_id(2), &for_user("bob"), Tick::from_secs(6)).unwrap();
    assert_ne!(addresses_of(&first_session.leases), addresses_of(&second_session.leases));
    assert_eq!(reader.find(session_id(1)), Some((first_session.handle, first_session.leases)));
    let rows = second_map.sessions().unwrap();
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[0].user.as_deref(), Some("ann"));
    assert_eq!((rows[1].user.as_deref(), rows[1].since), (Some("bob"), Tick::from_secs(6)));
    second_map.close_by_handle(&first_session.handle, Tick::from_secs(7)).unwrap();
    assert!(first_map.close_by_handle(&first_session.handle, Tick::from_secs(7)).is_err());
    assert!(!reader.is_live(&first_session.handle));
    assert!(reader.is_live(&second_session.handle));
}

#[test]
fn equal_plan_leaves_the_map_in_place() {
    let directory = TestDirectory::new("same");
    let current_plan = || {
        plan(&["10.0.0.1-10.0.0.3"], Settings::without_cool_down().with_cool_down(60))
            .with_reservations([Reservation::new("10.0.0.3".parse().unwrap(), "eve")])
    };
    let map = Map::create(&directory.0, &current_plan()).unwrap();
    let opened = map.open_session(session_id(1), &for_user("ann"), Tick::from_secs(5)).unwrap();
    map.open_session(session_id(2), &for_user("eve"), Tick::from_secs(5)).unwrap();
    map.close_session(session_id(2), Tick::from_secs(5)).unwrap();
    map.drain(&"10.0.0.2".parse().unwrap(), Tick::from_secs(5)).unwrap();
    let reader = Reader::attach(&directory.0).unwrap();
    let reopened_map = Map::create(&directory.0, &current_plan()).unwrap();
    assert!(!reader.is_superseded() && reader.is_live(&opened.handle));
    reopened_map.close_by_handle(&opened.handle, Tick::from_secs(6)).unwrap();
    assert!(!reader.is_live(&opened.handle));
    // Each of these plans differs from the previous plan, so each plan replaces the map.
    let mut plans = [current_plan(), current_plan(), current_plan(), current_plan()];
    plans[0].reservations[0].user = "bob".into();
    plans[1].settings.low_water = 1;
    plans[2].pools = vec![pool("default", &["10.0.0.1-10.0.0.4"])];
    plans[3].policy.rewrite.hide_addresses = true;
    for different_plan in plans {
        let reader = Reader::attach(&directory.0).unwrap();
        Map::create(&directory.0, &different_plan).unwrap();
        assert!(reader.is_superseded(), "{different_plan:?}");
    }
}

#[test]
fn second_create_corrects_a_release_time_in_the_future() {
    let directory = TestDirectory::new("future");
    let settings = Settings::without_cool_down().with_cool_down(60);
    let single_address_plan = plan(&["10.0.0.1"], settings);
    let map = Map::create(&directory.0, &single_address_plan).unwrap();
    map.open_session(session_id(1), &for_user("ann"), Tick::from_secs(5)).unwrap();
    // Pass the time of another clock: seconds since 1970.
    map.close_session(session_id(1), Tick::from_secs(1_800_000_000)).unwrap();
    let latest_end = Tick::now().saturating_add(60 + 3600);
    assert!(map.open_session(session_id(2), &for_user("bob"), latest_end).is_err());
    Map::create(&directory.0, &single_address_plan).unwrap();
    assert!(
        map.open_session(session_id(2), &for_user("bob"), latest_end.saturating_add_signed(-3610))
            .is_err()
    );
    map.open_session(session_id(2), &for_user("bob"), latest_end).unwrap();
}

#[test]
fn kill_during_create_keeps_names() {
    let directory = TestDirectory::new("between");
    let path = |name: &str| directory.0.join(name);
    let two_address_plan = plan(&["10.0.0.1-10.0.0.2"], Settings::without_cool_down());
    let map = Map::create(&directory.0, &two_address_plan).unwrap();
    map.open_session(session_id(1), &for_user("ann"), Tick::from_secs(5)).unwrap();
    std::fs::copy(path("sessions"), path("older")).unwrap();
    let three_address_plan = plan(&["10.0.0.1-10.0.0.3"], Settings::without_cool_down());
    Map::create(&directory.0, &three_address_plan).unwrap();
    // Simulate a kill between the rename of the map file and the rename of the sessions file.
    std::fs::rename(path("sessions"), path("sessions.new")).unwrap();
    std::fs::rename(path("older"), path("sessions")).unwrap();
    let names = |map: &Map| -> Vec<_> {
        map.sessions().unwrap().into_iter().map(|row| row.user.unwrap_or_default()).collect()
    };
    assert_eq!(names(&map), ["ann"]);
    Map::open(&directory.0)
        .unwrap()
        .open_session(session_id(2), &for_user("bob"), Tick::from_secs(6))
        .unwrap();
    assert_eq!(names(&map), ["ann", "bob"]);
    let map = Map::create(&directory.0, &two_address_plan).unwrap();
    assert_eq!(names(&map), ["ann", "bob"]);
    assert!(!path("sessions.new").exists());
}

#[test]
fn new_plan_revokes_no_lease() {
    let directory = TestDirectory::new("reload");
    let old_map =
        Map::create(&directory.0, &plan(&["10.0.0.1-10.0.0.2"], Settings::without_cool_down()))
            .unwrap();
    let reader = Reader::attach(&directory.0).unwrap();
    let first_session =
        old_map.open_session(session_id(1), &for_user("ann"), Tick::from_secs(5)).unwrap();
    let second_session =
        old_map.open_session(session_id(2), &ANONYMOUS, Tick::from_secs(5)).unwrap();
    let new_map =
        Map::create(&directory.0, &plan(&["10.0.0.2-10.0.0.3"], Settings::without_cool_down()))
            .unwrap();
    assert!(reader.is_superseded());
    let new_reader = Reader::attach(&directory.0).unwrap();
    assert!(
        !new_reader.is_superseded()
            && new_reader.is_live(&first_session.handle)
            && new_reader.is_live(&second_session.handle)
    );
    assert_eq!(new_map.sessions().unwrap()[0].user.as_deref(), Some("ann"));
    // The writer of the old file automatically switches to the new file.
    old_map.close_by_handle(&first_session.handle, Tick::from_secs(6)).unwrap();
    assert_eq!(new_reader.pools()[0].drained, 1);
    assert_eq!(
        only_address(
            &old_map.open_session(session_id(3), &ANONYMOUS, Tick::from_secs(6)).unwrap().leases
        ),
        "10.0.0.3"
    );
    assert!(new_map.open_session(session_id(4), &ANONYMOUS, Tick::from_secs(6)).is_err());
    // This plan contains 10.0.0.1 again, so the map can allocate the address.
    Map::create(&directory.0, &plan(&["10.0.0.1-10.0.0.3"], Settings::without_cool_down()))
        .unwrap();
    assert_eq!(
        only_address(
            &old_map.open_session(session_id(4), &ANONYMOUS, Tick::from_secs(6)).unwrap().leases
        ),
        "10.0.0.1"
    );
}

#[test]
fn invalid_map_files_are_refused_with_a_reason() {
    let directory = TestDirectory::new("refused");
    assert!(matches!(Map::open(&directory.0), Err(MapError::Missing(_))));
    let map_file = directory.0.join("map");
    std::fs::write(&map_file, "not a map").unwrap();
    assert!(matches!(Reader::attach(&directory.0), Err(MapError::Damaged { .. })));
    std::fs::write(&map_file, vec![0; 8192]).unwrap();
    assert!(matches!(Map::open(&directory.0), Err(MapError::Damaged { .. })));
    let plan = plan(&["10.0.0.1"], Settings::without_cool_down());
    // `Map::create` does not replace a damaged file, because the file may contain open sessions.
    assert!(matches!(Map::create(&directory.0, &plan), Err(MapError::Damaged { .. })));
    std::fs::remove_file(&map_file).unwrap();
    // On Windows, only administrators can create symbolic links by default.
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("/etc/passwd", &map_file).unwrap();
        assert!(matches!(Reader::attach(&directory.0), Err(MapError::Untrusted { .. })));
    }
}

#[test]
fn busy_error_names_the_exclusive_writer() {
    let directory = TestDirectory::new("exclusive");
    let mut agent =
        Map::create(&directory.0, &plan(&["10.0.0.1-10.0.0.2"], Settings::without_cool_down()))
            .unwrap();
    agent.lock_exclusive().unwrap();
    let other_map = Map::open(&directory.0).unwrap();
    let error =
        other_map.open_session(session_id(1), &OpenOptions::default(), Tick::ZERO).unwrap_err();
    let pid = std::process::id();
    assert_eq!(error.to_string(), format!("busy: pid {pid} holds the writer lock exclusively"));
    agent.open_session(session_id(1), &OpenOptions::default(), Tick::ZERO).unwrap();
    assert_eq!(other_map.sessions().unwrap().len(), 1);
    drop(agent);
    other_map.close_session(session_id(1), Tick::ZERO).unwrap();
}

#[test]
fn user_gets_the_last_address_after_a_restart() {
    let directory = TestDirectory::new("restart");
    let last_users_file = directory.0.join("last-users");
    let ranges = ["10.0.0.1-10.0.0.4"];
    let old_map = memory_map(&ranges, Settings::without_cool_down());
    assert_eq!(old_map.restore_users(&last_users_file, Tick::ZERO).unwrap(), 0);
    let ann = old_map.open_session(session_id(1), &for_user("ann"), Tick::ZERO).unwrap();
    old_map.open_session(session_id(2), &for_user("bob"), Tick::ZERO).unwrap();
    old_map.close_by_handle(&ann.handle, Tick::ZERO).unwrap();
    old_map.save_users(&last_users_file).unwrap();

    // Create a new map, as after a reboot. The file of last users also contains invalid lines.
    let text = std::fs::read_to_string(&last_users_file).unwrap();
    std::fs::write(&last_users_file, format!("{text}10.0.0.3 no\n10.9.9.9 7\n10.0.0.4\n")).unwrap();
    let new_map = memory_map(&["10.0.0.1-10.0.0.4"], Settings::without_cool_down());
    assert_eq!(new_map.restore_users(&last_users_file, Tick::ZERO).unwrap(), 2);
    let bob = new_map.open_session(session_id(1), &for_user("bob"), Tick::ZERO).unwrap();
    assert_eq!(only_address(&bob.leases), "10.0.0.2");
    // New users first get the addresses that have no last user.
    assert_eq!(
        only_address(
            &new_map.open_session(session_id(2), &for_user("eve"), Tick::ZERO).unwrap().leases
        ),
        "10.0.0.3"
    );
    assert_eq!(
        only_address(
            &new_map.open_session(session_id(3), &for_user("ann"), Tick::ZERO).unwrap().leases
        ),
        "10.0.0.1"
    );
    assert_eq!(new_map.restore_users(&last_users_file, Tick::ZERO).unwrap(), 0);
}

#[cfg(unix)]
#[test]
fn last_users_are_saved_without_following_a_planted_link() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    std::fs::write(path("target"), "target").unwrap();
    let map = memory_map(&["10.0.0.1-10.0.0.4"], Settings::without_cool_down());
    map.open_session(session_id(1), &for_user("ann"), Tick::ZERO).unwrap();
    std::os::unix::fs::symlink(path("target"), path("last-users.new")).unwrap();
    std::os::unix::fs::symlink(path("target"), path("last-users")).unwrap();
    assert!(map.restore_users(&path("last-users"), Tick::ZERO).is_err());
    map.save_users(&path("last-users")).unwrap();
    assert_eq!(std::fs::read(path("target")).unwrap(), b"target");
    assert!(!path("last-users").is_symlink());
}

#[test]
fn threads_that_hand_over_the_lock_do_not_starve_another_map() {
    let directory = tempfile::tempdir().unwrap();
    let plan = plan(&["10.0.0.1-10.0.0.9"], Settings::without_cool_down());
    let map = Map::create(directory.path(), &plan).unwrap();
    let other_map = Map::open(directory.path()).unwrap();
    let open_and_close = |map: &Map, first_number: u64| {
        for number in first_number..first_number + 500 {
            let opened =
                map.open_session(session_id(number), &OpenOptions::default(), Tick::ZERO).unwrap();
            map.close_by_handle(&opened.handle, Tick::ZERO).unwrap();
        }
    };
    std::thread::scope(|scope| {
        for thread in 1..=3 {
            let map = &map;
            scope.spawn(move || open_and_close(map, thread * 1000));
        }
        scope.spawn(|| open_and_close(&other_map, 9000));
    });
    assert_eq!(map.reader().unwrap().pools()[0].leased, 0);
    // The lock is free again, so a third writer can acquire it.
    let mut third_map = Map::open(directory.path()).unwrap();
    third_map.lock_exclusive().unwrap();
}

// On Windows, a deleted file keeps its name until the last process has unmapped it.
#[cfg(unix)]
#[test]
fn map_without_sessions_is_removed() {
    let directory = tempfile::tempdir().unwrap();
    let plan = plan(&["10.0.0.1-10.0.0.9"], Settings::without_cool_down());
    let map = Map::create(directory.path(), &plan).unwrap();
    let other_map = Map::open(directory.path()).unwrap();
    let reader = Reader::attach(directory.path()).unwrap();
    map.open_session(session_id(1), &ANONYMOUS, Tick::ZERO).unwrap();
    let result = Map::open(directory.path()).unwrap().remove();
    assert!(matches!(result, Err(vipool::map::RemoveError::OpenSessions)));
    assert!(!reader.is_superseded());
    map.close_session(session_id(1), Tick::ZERO).unwrap();
    map.remove().unwrap();
    assert!(reader.is_superseded());
    assert!(matches!(Map::open(directory.path()), Err(MapError::Missing(_))));
    assert!(!directory.path().join("sessions").exists());
    assert!(other_map.open_session(session_id(1), &ANONYMOUS, Tick::ZERO).is_err());
    Map::create(directory.path(), &plan).unwrap();
    other_map.open_session(session_id(1), &ANONYMOUS, Tick::ZERO).unwrap();
}

#[test]
fn lost_map_withholds_addresses_with_sockets() {
    let directory = tempfile::tempdir().unwrap();
    let plan = Plan::new([pool("default", &["10.0.0.1-10.0.0.2"]), loopback_pool("127.9.0.0/30")])
        .with_settings(Settings::without_cool_down());
    let mut system =
        FakeSystem { addresses_in_use: vec![address("10.0.0.1")], ..FakeSystem::default() };
    // The second loopback address of the first slot has a socket.
    system.addresses_in_use.push(address("127.9.0.2"));
    let (create_time, reap_time) = (Tick::from_secs(5), Tick::from_secs(6));
    let map = Map::create_after_loss(directory.path(), &plan, create_time, &mut system).unwrap();
    let opened = map.open_session(session_id(1), &ANONYMOUS, create_time).unwrap();
    assert_eq!(addresses_of(&opened.leases), ["10.0.0.2", "127.9.0.1"].map(address));
    let result = map.open_session(session_id(2), &ANONYMOUS, create_time);
    assert!(
        matches!(result, Err(OpenError::Shortage { shortage: Shortage::Lingering, .. })),
        "{result:?}"
    );
    let report = map.reap(reap_time, u32::MAX, &mut system).unwrap();
    assert_eq!((report.freed, report.lingering), (0, 2));
    assert!(map.open_session(session_id(2), &ANONYMOUS, reap_time).is_err());
    // The map was not lost this time, so a socket on the address of session 1 changes nothing.
    system.addresses_in_use.push(address("10.0.0.2"));
    let map = Map::create_after_loss(directory.path(), &plan, reap_time, &mut system).unwrap();
    map.close_session(session_id(1), reap_time).unwrap();
    let next_session = map.open_session(session_id(1), &ANONYMOUS, reap_time).unwrap();
    assert_eq!(addresses_of(&next_session.leases), ["10.0.0.2", "127.9.0.1"].map(address));
    system.addresses_in_use.clear();
    assert_eq!(map.reap(reap_time, u32::MAX, &mut system).unwrap().freed, 2);
    map.open_session(session_id(2), &ANONYMOUS, reap_time).unwrap();
}

#[test]
fn size_of_the_files_is_known_before_they_are_created() {
    let directory = tempfile::tempdir().unwrap();
    let policy = Policy::default().with_pool_rules([PoolRule::new("default").with_users(["ann"])]);
    let pools = [pool("default", &["10.0.0.0/24"]), loopback_pool("127.9.0.0/24")];
    let plan = Plan::new(pools).with_policy(policy);
    Map::create(directory.path(), &plan).unwrap();
    let length = |name| std::fs::metadata(directory.path().join(name)).unwrap().len();
    assert_eq!(plan.file_bytes(), ["map", "sessions", "journal"].map(length).iter().sum());
}

#[test]
fn range_of_too_many_addresses_is_not_cut_silently() {
    let new_pool = |range: &str, max_slots| {
        Pool::new("default", PoolKind::VirtualIp, &[range.parse().unwrap()], max_slots)
    };
    let error = new_pool("2001:db8::/64", u32::MAX).unwrap_err();
    assert_eq!(error, PoolError::TooManyAddresses("default".to_owned(), 1 << 64));
    assert!(new_pool("10.0.0.0/8", u32::MAX).is_err());
    // A caller that passes at most `MAX_SLOTS` gets the first addresses.
    assert_eq!(new_pool("2001:db8::/64", MAX_SLOTS).unwrap().slot_count(), MAX_SLOTS);
    assert_eq!(new_pool("10.0.0.0/9", u32::MAX).unwrap().slot_count(), 1 << 23);
}

#[test]
fn create_leaves_no_map_if_the_journal_cannot_be_created() {
    let directory = tempfile::tempdir().unwrap();
    // A directory at the temporary name of the journal makes the creation fail, as a full file
    // system does.
    std::fs::create_dir(directory.path().join("journal.new")).unwrap();
    let plan = plan(&["10.0.0.1-10.0.0.9"], Settings::without_cool_down());
    let error = Map::create(directory.path(), &plan).unwrap_err();
    assert!(matches!(error, MapError::Io { failure: "cannot create", .. }), "{error}");
    assert!(matches!(Map::open(directory.path()), Err(MapError::Missing(_))));
    std::fs::remove_dir(directory.path().join("journal.new")).unwrap();
    Map::create(directory.path(), &plan).unwrap();
}

#[cfg(unix)]
#[test]
fn replaced_files_keep_their_group() {
    use std::os::unix::fs::{MetadataExt, chown};

    if !vipool_testing::have(&["root"]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let group_of = |name: &str| directory.path().join(name).metadata().unwrap().gid();
    Map::create(directory.path(), &plan(&["10.0.0.1-10.0.0.9"], Settings::without_cool_down()))
        .unwrap();
    for name in ["sessions", "journal"] {
        chown(directory.path().join(name), None, Some(12)).unwrap();
    }
    // Damage the journal, so that `Map::create` also creates the journal again.
    std::fs::write(directory.path().join("journal"), [0; 64]).unwrap();
    let map =
        Map::create(directory.path(), &plan(&["10.0.0.1-10.0.0.5"], Settings::without_cool_down()))
            .unwrap();
    assert_eq!((group_of("sessions"), group_of("journal")), (12, 12));

    let last_users = directory.path().join("last-users");
    map.save_users(&last_users).unwrap();
    chown(&last_users, None, Some(12)).unwrap();
    map.save_users(&last_users).unwrap();
    assert_eq!(group_of("last-users"), 12);
}

#[test]
fn process_list_of_a_reader_does_not_change_with_the_file() {
    let directory = TestDirectory::new("process-list");
    let plan = plan(&["10.0.0.1"], Settings::without_cool_down())
        .with_policy(Policy::new([Program::new("/usr/bin/nc"), Program::new("redis-server")]));
    Map::create(&directory.0, &plan).unwrap();
    let reader = Reader::attach(&directory.0).unwrap();
    let patterns = || -> Vec<Vec<u8>> {
        reader.policy().programs().map(|program| program.pattern().to_vec()).collect()
    };
    let patterns_before_damage = patterns();
    assert_eq!(patterns_before_damage, [b"/usr/bin/nc".to_vec(), b"redis-server".to_vec()]);
    // Overwrite the file in place, from the middle of its header on.
    let mut file = std::fs::File::options().write(true).open(directory.0.join("map")).unwrap();
    let length = file.metadata().unwrap().len() as usize;
    file.seek(SeekFrom::Start(512)).unwrap();
    file.write_all(&vec![0xff; length - 512]).unwrap();
    assert_eq!(patterns(), patterns_before_damage);
}
