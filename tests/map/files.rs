//! Maps in files: shared by writers and readers, replaced while sessions are open.

use std::path::PathBuf;

use vipool::Tick;
use vipool::map::{Map, MapError, OpenOptions, Plan, Reader, Settings};
use vipool::pool::Reservation;

use crate::support::{addresses, id, map, only, plan, pool, user};

/// A directory of its own, removed when dropped.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("vipool-map-{name}-{}", std::process::id()));
        _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn writers_and_readers_share_a_file() {
    let directory = Directory::new("share");
    let one =
        Map::create(&directory.0, &plan(&["10.0.0.1-10.0.0.9"], Settings::default())).unwrap();
    let two = Map::open(&directory.0).unwrap();
    let reader = Reader::attach(&directory.0).unwrap();
    let first = one.open_session(id(1), &user("ann"), Tick::from_secs(5)).unwrap();
    let second = two.open_session(id(2), &user("bob"), Tick::from_secs(6)).unwrap();
    assert_ne!(addresses(&first.leases), addresses(&second.leases));
    assert_eq!(reader.find(id(1)), Some((first.handle, first.leases)));
    let rows = two.sessions().unwrap();
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[0].user.as_deref(), Some("ann"));
    assert_eq!((rows[1].user.as_deref(), rows[1].since), (Some("bob"), Tick::from_secs(6)));
    two.close_by_handle(&first.handle, Tick::from_secs(7)).unwrap();
    assert!(one.close_by_handle(&first.handle, Tick::from_secs(7)).is_err());
    assert!(!reader.is_live(&first.handle));
    assert!(reader.is_live(&second.handle));
}

#[test]
fn a_plan_that_changes_nothing_leaves_the_map_in_place() {
    let directory = Directory::new("same");
    let same = || Plan {
        reservations: vec![Reservation {
            user: "eve".into(),
            address: "10.0.0.3".parse().unwrap(),
        }],
        ..plan(&["10.0.0.1-10.0.0.3"], Settings { cool_down: 60, ..Settings::default() })
    };
    let map = Map::create(&directory.0, &same()).unwrap();
    let opened = map.open_session(id(1), &user("ann"), Tick::from_secs(5)).unwrap();
    map.open_session(id(2), &user("eve"), Tick::from_secs(5)).unwrap();
    map.close_session(id(2), Tick::from_secs(5)).unwrap();
    map.drain(&"10.0.0.2".parse().unwrap(), Tick::from_secs(5)).unwrap();
    let reader = Reader::attach(&directory.0).unwrap();
    let again = Map::create(&directory.0, &same()).unwrap();
    assert!(!reader.is_superseded() && reader.is_live(&opened.handle));
    again.close_by_handle(&opened.handle, Tick::from_secs(6)).unwrap();
    assert!(!reader.is_live(&opened.handle));
    // Each of these is a change.
    let mut plans = [same(), same(), same(), same()];
    plans[0].reservations[0].user = "bob".into();
    plans[1].settings.low_water = 1;
    plans[2].pools = vec![pool("default", &["10.0.0.1-10.0.0.4"])];
    plans[3].policy.rewrite.hide_addresses = true;
    for changed in plans {
        let reader = Reader::attach(&directory.0).unwrap();
        Map::create(&directory.0, &changed).unwrap();
        assert!(reader.is_superseded(), "{changed:?}");
    }
}

#[test]
fn a_time_that_was_told_wrong_is_over_with_the_next_configuration() {
    let directory = Directory::new("future");
    let settings = Settings { cool_down: 60, ..Settings::default() };
    let one = plan(&["10.0.0.1"], settings);
    let map = Map::create(&directory.0, &one).unwrap();
    map.open_session(id(1), &user("ann"), Tick::from_secs(5)).unwrap();
    // Seconds since 1970, say.
    map.close_session(id(1), Tick::from_secs(1_800_000_000)).unwrap();
    let soon = Tick::now().saturating_add(60 + 3600);
    assert!(map.open_session(id(2), &user("bob"), soon).is_err());
    Map::create(&directory.0, &one).unwrap();
    assert!(map.open_session(id(2), &user("bob"), soon.saturating_add_signed(-3610)).is_err());
    map.open_session(id(2), &user("bob"), soon).unwrap();
}

#[test]
fn a_maker_killed_before_its_private_file_was_in_place_loses_nobodys_name() {
    let directory = Directory::new("between");
    let at = |name: &str| directory.0.join(name);
    let two = plan(&["10.0.0.1-10.0.0.2"], Settings::default());
    let map = Map::create(&directory.0, &two).unwrap();
    map.open_session(id(1), &user("ann"), Tick::from_secs(5)).unwrap();
    std::fs::copy(at("sessions"), at("older")).unwrap();
    let three = plan(&["10.0.0.1-10.0.0.3"], Settings::default());
    Map::create(&directory.0, &three).unwrap();
    std::fs::rename(at("sessions"), at("sessions.new")).unwrap();
    std::fs::rename(at("older"), at("sessions")).unwrap();
    let names = |map: &Map| -> Vec<_> {
        map.sessions().unwrap().into_iter().map(|row| row.user.unwrap_or_default()).collect()
    };
    assert_eq!(names(&map), ["ann"]);
    Map::open(&directory.0).unwrap().open_session(id(2), &user("bob"), Tick::from_secs(6)).unwrap();
    assert_eq!(names(&map), ["ann", "bob"]);
    let map = Map::create(&directory.0, &two).unwrap();
    assert_eq!(names(&map), ["ann", "bob"]);
    assert!(!at("sessions.new").exists());
}

#[test]
fn a_new_plan_takes_nothing_from_open_sessions() {
    let directory = Directory::new("reload");
    let one =
        Map::create(&directory.0, &plan(&["10.0.0.1-10.0.0.2"], Settings::default())).unwrap();
    let reader = Reader::attach(&directory.0).unwrap();
    let any = OpenOptions::default();
    let kept = one.open_session(id(1), &user("ann"), Tick::from_secs(5)).unwrap();
    let other = one.open_session(id(2), &any, Tick::from_secs(5)).unwrap();
    let newer =
        Map::create(&directory.0, &plan(&["10.0.0.2-10.0.0.3"], Settings::default())).unwrap();
    assert!(reader.is_superseded());
    let again = Reader::attach(&directory.0).unwrap();
    assert!(!again.is_superseded() && again.is_live(&kept.handle) && again.is_live(&other.handle));
    assert_eq!(newer.sessions().unwrap()[0].user.as_deref(), Some("ann"));
    // The older writer goes over to the new file by itself.
    one.close_by_handle(&kept.handle, Tick::from_secs(6)).unwrap();
    assert_eq!(again.pools()[0].drained, 1);
    assert_eq!(
        only(&one.open_session(id(3), &any, Tick::from_secs(6)).unwrap().leases),
        "10.0.0.3"
    );
    assert!(newer.open_session(id(4), &any, Tick::from_secs(6)).is_err());
    // Back in the plan, back in use.
    Map::create(&directory.0, &plan(&["10.0.0.1-10.0.0.3"], Settings::default())).unwrap();
    assert_eq!(
        only(&one.open_session(id(4), &any, Tick::from_secs(6)).unwrap().leases),
        "10.0.0.1"
    );
}

#[test]
fn what_is_no_map_is_refused_with_its_reason() {
    let directory = Directory::new("refused");
    assert!(matches!(Map::open(&directory.0), Err(MapError::Missing(_))));
    let map = directory.0.join("map");
    std::fs::write(&map, "not a map").unwrap();
    assert!(matches!(Reader::attach(&directory.0), Err(MapError::Damaged { .. })));
    std::fs::write(&map, vec![0; 8192]).unwrap();
    assert!(matches!(Map::open(&directory.0), Err(MapError::Damaged { .. })));
    let plan = plan(&["10.0.0.1"], Settings::default());
    // Not replaced by itself: what it was cannot be known.
    assert!(matches!(Map::create(&directory.0, &plan), Err(MapError::Damaged { .. })));
    std::fs::remove_file(&map).unwrap();
    // Windows lets administrators alone make one.
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("/etc/passwd", &map).unwrap();
        assert!(matches!(Reader::attach(&directory.0), Err(MapError::Untrusted { .. })));
    }
}

#[test]
fn an_exclusive_writer_keeps_others_out_and_is_named() {
    let directory = Directory::new("exclusive");
    let mut agent =
        Map::create(&directory.0, &plan(&["10.0.0.1-10.0.0.2"], Settings::default())).unwrap();
    agent.lock_exclusive().unwrap();
    let other = Map::open(&directory.0).unwrap();
    let busy = other.open_session(id(1), &OpenOptions::default(), Tick::ZERO).unwrap_err();
    let pid = std::process::id();
    assert_eq!(busy.to_string(), format!("busy: pid {pid} (it holds the map for itself)"));
    agent.open_session(id(1), &OpenOptions::default(), Tick::ZERO).unwrap();
    assert_eq!(other.sessions().unwrap().len(), 1);
    drop(agent);
    other.close_session(id(1), Tick::ZERO).unwrap();
}

#[test]
fn a_user_gets_the_address_from_before_a_restart() {
    let directory = Directory::new("restart");
    let file = directory.0.join("last-users");
    let range = ["10.0.0.1-10.0.0.4"];
    let before = map(&range, Settings::default());
    assert_eq!(before.recall_users(&file, Tick::ZERO).unwrap(), 0);
    let ann = before.open_session(id(1), &user("ann"), Tick::ZERO).unwrap();
    before.open_session(id(2), &user("bob"), Tick::ZERO).unwrap();
    before.close_by_handle(&ann.handle, Tick::ZERO).unwrap();
    before.save_users(&file).unwrap();

    // Another map, as after a start of the machine; somebody spoilt a line meanwhile.
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{text}10.0.0.3 no\n10.9.9.9 7\n10.0.0.4\n")).unwrap();
    let after = map(&["10.0.0.1-10.0.0.4"], Settings::default());
    assert_eq!(after.recall_users(&file, Tick::ZERO).unwrap(), 2);
    let bob = after.open_session(id(1), &user("bob"), Tick::ZERO).unwrap();
    assert_eq!(only(&bob.leases), "10.0.0.2");
    // Those that nobody had go to newcomers first.
    assert_eq!(
        only(&after.open_session(id(2), &user("eve"), Tick::ZERO).unwrap().leases),
        "10.0.0.3"
    );
    assert_eq!(
        only(&after.open_session(id(3), &user("ann"), Tick::ZERO).unwrap().leases),
        "10.0.0.1"
    );
    assert_eq!(after.recall_users(&file, Tick::ZERO).unwrap(), 0);
}

#[test]
fn writers_that_hand_the_lock_on_keep_no_other_out() {
    let directory = tempfile::tempdir().unwrap();
    let plan = plan(&["10.0.0.1-10.0.0.9"], Settings::default());
    let map = Map::create(directory.path(), &plan).unwrap();
    let other = Map::open(directory.path()).unwrap();
    let churn = |map: &Map, first: u64| {
        for number in first..first + 500 {
            let opened = map.open_session(id(number), &OpenOptions::default(), Tick::ZERO).unwrap();
            map.close_by_handle(&opened.handle, Tick::ZERO).unwrap();
        }
    };
    std::thread::scope(|scope| {
        for thread in 1..=3 {
            let map = &map;
            scope.spawn(move || churn(map, thread * 1000));
        }
        scope.spawn(|| churn(&other, 9000));
    });
    assert_eq!(map.reader().unwrap().pools()[0].used, 0);
    // Nobody holds it any more.
    let mut third = Map::open(directory.path()).unwrap();
    third.lock_exclusive().unwrap();
}
