//! Tests of plans that add, remove and rename pools.

use vipool::Tick;
use vipool::map::{Map, MapError, OpenError, Plan, Settings};
use vipool::policy::{Policy, PoolRule};
use vipool::pool::{Pool, PoolKind};

use crate::plan_support::{
    FixedProbe, create_map, for_pool, for_user_at, new_directory, open_for_user, pool_names,
    pool_statuses,
};
use crate::support::{for_user, loopback_pool, only_address, pool, session_id};

#[test]
fn unused_pool_is_removed_if_the_new_plan_omits_it() {
    let directory = new_directory();
    create_map(
        &directory,
        &[pool("default", &["10.0.0.1-10.0.0.4"])],
        Settings::without_cool_down(),
    );
    let map = create_map(
        &directory,
        &[pool("office", &["10.0.0.1-10.0.0.4"])],
        Settings::without_cool_down(),
    );
    assert_eq!(pool_names(&directory), ["office"]);
    assert_eq!(
        only_address(
            &map.open_session(session_id(1), &for_user_at("ann", "10.0.0.3"), Tick::ZERO)
                .unwrap()
                .leases
        ),
        "10.0.0.3"
    );
    assert_eq!(open_for_user(&map, 2, "eve", 0).1, "10.0.0.1");
    let error = map.open_session(session_id(3), &for_pool("joe", "lab"), Tick::ZERO).unwrap_err();
    assert!(matches!(error, OpenError::UnknownPool(_)), "{error}");
}

#[test]
fn session_without_a_pool_gets_the_default_pool_of_the_current_plan() {
    let directory = new_directory();
    let (lab, annex) = (pool("lab", &["10.0.0.1"]), pool("annex", &["10.0.1.1-10.0.1.9"]));
    let map = create_map(&directory, std::slice::from_ref(&lab), Settings::without_cool_down());
    open_for_user(&map, 1, "ann", 0);
    // No pool has the name "default", so the first pool of the plan is the default pool. In the
    // map, "lab" is still the first pool.
    let map = create_map(&directory, &[annex.clone(), lab], Settings::without_cool_down());
    assert_eq!(open_for_user(&map, 2, "eve", 0).1, "10.0.1.1");
    // A pool with the name "default" is the default pool, even if it is not the first pool. Session
    // 1 keeps its address of the removed pool "lab".
    let map = create_map(
        &directory,
        &[annex, pool("default", &["10.0.2.1"])],
        Settings::without_cool_down(),
    );
    assert_eq!(open_for_user(&map, 3, "joe", 0).1, "10.0.2.1");
    let reopened_session = map.open_session(session_id(1), &for_user("ann"), Tick::ZERO).unwrap();
    assert!(reopened_session.already_open && reopened_session.shortage.is_none());
    assert_eq!(only_address(&reopened_session.leases), "10.0.0.1");
    let error = map.open_session(session_id(4), &for_pool("kim", "lab"), Tick::ZERO).unwrap_err();
    assert!(matches!(error, OpenError::UnknownPool(_)), "{error}");
}

#[test]
fn removed_loopback_pool_allocates_nothing() {
    let directory = new_directory();
    let office = pool("default", &["10.0.0.1-10.0.0.4"]);
    let map = create_map(
        &directory,
        &[office.clone(), loopback_pool("127.9.0.0/29")],
        Settings::without_cool_down(),
    );
    let ann = map.open_session(session_id(1), &for_user("ann"), Tick::ZERO).unwrap();
    let map = create_map(&directory, &[office], Settings::without_cool_down());
    let reopened_session = map.open_session(session_id(1), &for_user("ann"), Tick::ZERO).unwrap();
    assert_eq!(reopened_session.leases, ann.leases);
    let eve = map.open_session(session_id(2), &for_user("eve"), Tick::ZERO).unwrap();
    assert_eq!((only_address(&eve.leases).as_str(), eve.shortage), ("10.0.0.2", None));
}

#[test]
fn removed_pool_remains_while_addresses_are_leased_cooling_or_lingering() {
    let directory = new_directory();
    let settings = Settings::without_cool_down().with_cool_down(60).with_check_in_use(true);
    let lab = pool("lab", &["10.0.1.1"]);
    let default_pool = pool("default", &["10.0.0.1"]);
    let map = create_map(&directory, &[default_pool.clone(), lab], settings);
    let ann =
        map.open_session(session_id(1), &for_pool("ann", "lab"), Tick::from_secs(100)).unwrap();
    let remaining_pools = [default_pool];
    create_map(&directory, &remaining_pools, settings);
    assert_eq!(pool_names(&directory), ["default", "lab"]);
    map.close_by_handle(&ann.handle, Tick::from_secs(100)).unwrap();
    create_map(&directory, &remaining_pools, settings);
    assert_eq!(pool_names(&directory), ["default", "lab"]);
    assert_eq!(
        map.reap(Tick::from_secs(160), u32::MAX, &mut FixedProbe(true)).unwrap().lingering,
        1
    );
    create_map(&directory, &remaining_pools, settings);
    assert_eq!(pool_names(&directory), ["default", "lab"]);
    assert_eq!(map.reap(Tick::from_secs(161), u32::MAX, &mut FixedProbe(false)).unwrap().freed, 1);
    let map = create_map(&directory, &remaining_pools, settings);
    assert_eq!(pool_names(&directory), ["default"]);
    assert!(!map.reader().unwrap().is_live(&ann.handle));
}

#[test]
fn removing_a_pool_keeps_the_numbers_of_later_pools() {
    let directory = new_directory();
    let (lab, annex) = (pool("lab", &["10.0.1.1"]), pool("annex", &["10.0.2.1"]));
    let map = create_map(
        &directory,
        &[pool("default", &["10.0.0.1"]), lab.clone()],
        Settings::without_cool_down(),
    );
    let ann = map.open_session(session_id(1), &for_pool("ann", "lab"), Tick::ZERO).unwrap();
    assert_eq!(ann.handle.pool, 1);
    let map = create_map(&directory, std::slice::from_ref(&lab), Settings::without_cool_down());
    assert!(map.reader().unwrap().is_live(&ann.handle));
    assert_eq!(pool_names(&directory), ["", "lab"]);
    assert_eq!(pool_statuses(directory.path())[0].slots, 0);
    assert_eq!(map.reader().unwrap().pool_kind("10.0.0.1".parse().unwrap()), None);
    // The next new pool takes the free number.
    let map = create_map(&directory, &[lab, annex], Settings::without_cool_down());
    assert_eq!(pool_names(&directory), ["annex", "lab"]);
    assert!(map.reader().unwrap().is_live(&ann.handle));
    map.close_by_handle(&ann.handle, Tick::ZERO).unwrap();
}

#[test]
fn handle_of_a_removed_pool_is_stale_in_its_successors() {
    let directory = new_directory();
    let default_pool = pool("default", &["10.0.0.1"]);
    let default_and = |second_pool: Pool| [default_pool.clone(), second_pool];
    let map = create_map(
        &directory,
        &default_and(pool("lab", &["10.0.1.1-10.0.1.2"])),
        Settings::without_cool_down(),
    );
    let mut old_handles = Vec::new();
    for _ in 0..3 {
        let opened = map.open_session(session_id(7), &for_pool("ann", "lab"), Tick::ZERO).unwrap();
        map.close_by_handle(&opened.handle, Tick::ZERO).unwrap();
        old_handles.push(opened.handle);
    }
    // All sessions have the same id, pool number and slot number. In the first case, "annex" takes
    // the number of "lab". In the second case, one plan removes "annex", and the next plan adds a
    // new "annex". In the third case, "annex" remains and gets a second slot.
    for (is_removed_first, range) in
        [(false, "10.0.2.1"), (true, "10.0.3.1"), (false, "10.0.3.1-10.0.3.2")]
    {
        if is_removed_first {
            create_map(
                &directory,
                std::slice::from_ref(&default_pool),
                Settings::without_cool_down(),
            );
            assert_eq!(pool_names(&directory), ["default"]);
        }
        let map = create_map(
            &directory,
            &default_and(pool("annex", &[range])),
            Settings::without_cool_down(),
        );
        for _ in 0..2 {
            let opened =
                map.open_session(session_id(7), &for_pool("ann", "annex"), Tick::ZERO).unwrap();
            let reader = map.reader().unwrap();
            assert_eq!(opened.handle.pool, 1);
            assert!(reader.is_live(&opened.handle));
            for handle in &old_handles {
                assert!(!reader.is_live(handle), "{handle:?}");
                assert!(map.close_by_handle(handle, Tick::ZERO).is_err());
            }
            map.close_by_handle(&opened.handle, Tick::ZERO).unwrap();
            old_handles.push(opened.handle);
        }
    }
}

#[test]
fn unused_pools_can_be_renamed_any_number_of_times() {
    let directory = new_directory();
    for number in 0..40 {
        let renamed_pool = pool(&format!("p{number}"), &[&format!("10.0.{number}.1")]);
        let map = create_map(&directory, &[renamed_pool], Settings::without_cool_down());
        let (handle, address) = open_for_user(&map, 1, "ann", 0);
        assert_eq!(address, format!("10.0.{number}.1"));
        map.close_by_handle(&handle, Tick::ZERO).unwrap();
    }
    assert_eq!(pool_names(&directory), ["p39"]);
}

#[test]
fn error_names_the_pools_in_use_if_there_are_too_many() {
    let directory = new_directory();
    for number in 0..16 {
        let next_pool = pool(&format!("p{number}"), &[&format!("10.0.{number}.1")]);
        open_for_user(
            &create_map(&directory, &[next_pool], Settings::without_cool_down()),
            number,
            "ann",
            0,
        );
    }
    let plan =
        Plan::new([pool("last", &["10.0.20.1"])]).with_settings(Settings::without_cool_down());
    let error = Map::create(directory.path(), &plan).unwrap_err().to_string();
    let names: Vec<_> = (0..16).map(|number| format!("p{number}")).collect();
    assert_eq!(
        error,
        format!(
            "the plan has 1 pools and 16 former pools have addresses in use or cooling down ({}), but a \
             map has at most 16",
            names.join(", ")
        )
    );
    Map::open(directory.path()).unwrap().close_session(session_id(3), Tick::ZERO).unwrap();
    let map = Map::create(directory.path(), &plan).unwrap();
    assert_eq!(open_for_user(&map, 99, "eve", 0).1, "10.0.20.1");
}

#[test]
fn pools_that_share_addresses_are_refused() {
    let pools = vec![
        pool("default", &["10.0.0.1-10.0.0.9"]),
        pool("lab", &["10.0.1.1", "10.0.0.8-10.0.0.12"]),
    ];
    match Map::in_memory(&Plan::new(pools)) {
        Err(MapError::Plan(error)) => {
            let text = r#"pools "default" and "lab" share addresses, the first of them 10.0.0.8"#;
            assert_eq!(error.to_string(), text);
        }
        result => panic!("{result:?}"),
    }
    // Pool "a" uses only the first four addresses of its range, so the pools share no address.
    let sparse_pool = |name, range: &str| {
        Pool::new(name, PoolKind::VirtualIp, &[range.parse().unwrap()], 4).unwrap()
    };
    let pools = vec![sparse_pool("a", "fd00::/64"), sparse_pool("b", "fd00::4/126")];
    Map::in_memory(&Plan::new(pools)).unwrap();
}

// Only on Unix, because Windows does not delete a file that a process has mapped.
#[cfg(unix)]
#[test]
fn choose_pool_fails_if_the_rules_are_missing() {
    let directory = new_directory();
    let pools = [pool("default", &["10.0.0.1"]), pool("lab", &["10.0.1.1"])];
    let plan_with = |low_water| {
        let policy = Policy::default().with_pool_rules([PoolRule::new("lab").with_users(["eve"])]);
        let settings = Settings::without_cool_down().with_low_water(low_water);
        Plan::new(pools.clone()).with_policy(policy).with_settings(settings)
    };
    let map = Map::create(directory.path(), &plan_with(0)).unwrap();
    assert_eq!(map.choose_pool("eve", None).unwrap().as_deref(), Some("lab"));
    assert_eq!(map.choose_pool("ann", None).unwrap(), None);
    // The map is replaced, and the file of the new map is deleted.
    Map::create(directory.path(), &plan_with(1)).unwrap();
    std::fs::remove_file(directory.path().join("map")).unwrap();
    assert!(matches!(map.choose_pool("eve", None), Err(OpenError::Map(MapError::Missing(_)))));
    // The file `sessions` contains the rules. After its deletion, a map that is already open still
    // has the rules, but a map that is opened later does not.
    let map = Map::create(directory.path(), &plan_with(0)).unwrap();
    let map_bytes = std::fs::read(directory.path().join("map")).unwrap();
    std::fs::remove_file(directory.path().join("sessions")).unwrap();
    assert_eq!(map.choose_pool("eve", None).unwrap().as_deref(), Some("lab"));
    for map in [Map::open(directory.path()).unwrap(), Map::from_bytes(&map_bytes, &[]).unwrap()] {
        let error = map.choose_pool("eve", None).unwrap_err();
        assert!(error.to_string().contains("users are unknown"), "{error}");
    }
}

#[test]
fn equal_rules_leave_the_map_in_place() {
    let directory = new_directory();
    let plan_for = |user: &str| {
        let policy = Policy::default().with_pool_rules([PoolRule::new("lab").with_users([user])]);
        Plan::new([pool("lab", &["10.0.1.1"])]).with_policy(policy)
    };
    Map::create(directory.path(), &plan_for("eve")).unwrap();
    let reader = vipool::map::Reader::attach(directory.path()).unwrap();
    Map::create(directory.path(), &plan_for("eve")).unwrap();
    assert!(!reader.is_superseded());
    let map = Map::create(directory.path(), &plan_for("ann")).unwrap();
    assert!(reader.is_superseded());
    assert_eq!(map.choose_pool("ann", None).unwrap().as_deref(), Some("lab"));
    assert_eq!(map.choose_pool("eve", None).unwrap(), None);
}

#[test]
fn removed_pool_disappears_after_its_cool_down_on_an_idle_server() {
    let directory = new_directory();
    let settings = Settings::without_cool_down().with_cool_down(60);
    let default_pool = pool("default", &["10.0.0.1"]);
    let create_at = |pools: &[Pool], second| {
        let plan = Plan::new(pools.to_vec()).with_settings(settings);
        Map::create_at(directory.path(), &plan, Tick::from_secs(second)).unwrap()
    };
    let map = create_at(&[default_pool.clone(), pool("lab", &["10.0.1.1"])], 0);
    let release_time = Tick::from_secs(100);
    map.open_session(session_id(1), &for_pool("ann", "lab"), release_time).unwrap();
    map.close_session(session_id(1), release_time).unwrap();
    create_at(std::slice::from_ref(&default_pool), 159);
    assert_eq!(pool_names(&directory), ["default", "lab"]);
    // No session has been opened or closed since the release.
    create_at(&[default_pool], 160);
    assert_eq!(pool_names(&directory), ["default"]);
}
