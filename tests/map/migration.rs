//! Plans that rename pools and move addresses between them. An address keeps its state in another
//! pool, and pools outside the plan disappear.

use std::collections::{BTreeSet, VecDeque};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Mutex;

use vipool::Tick;
use vipool::map::{
    Leader, Map, MapError, OpenError, OpenOptions, Plan, PoolStatus, Probe, Reader, Settings,
    Shortage,
};
use vipool::pool::{Pool, PoolKind, Reservation};
use vipool::session::Handle;

use crate::support::{for_user, loopback_pool, only_address, pool, session_id};

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// Creates a map with these pools, or replaces the plan of the existing map.
fn create(directory: &tempfile::TempDir, pools: &[Pool], settings: Settings) -> Map {
    let plan = Plan { pools: pools.to_vec(), settings, ..Plan::default() };
    Map::create(directory.path(), &plan).unwrap()
}

/// Opens a session of this user. Returns its handle and its only address.
fn open(map: &Map, number: u64, name: &str, now: u32) -> (Handle, String) {
    let opened =
        map.open_session(session_id(number), &for_user(name), Tick::from_secs(now)).unwrap();
    (opened.handle, only_address(&opened.leases))
}

fn for_user_at<'a>(name: &'a str, address: &str) -> OpenOptions<'a> {
    OpenOptions { address: address.parse().ok(), ..for_user(name) }
}

fn for_pool<'a>(name: &'a str, pool: &'a str) -> OpenOptions<'a> {
    OpenOptions { pool: Some(pool), ..for_user(name) }
}

fn status(directory: &Path) -> Vec<PoolStatus> {
    Reader::attach(directory).unwrap().pools()
}

/// Returns the names of all pools.
fn pool_names(directory: &tempfile::TempDir) -> Vec<String> {
    status(directory.path()).into_iter().map(|pool| pool.name).collect()
}

/// Reports sockets on every address, or on none.
struct Sockets(bool);

impl Probe for Sockets {
    fn has_sockets(&mut self, _address: IpAddr) -> bool {
        self.0
    }

    fn is_gone(&mut self, _leader: &Leader) -> bool {
        false
    }
}

#[test]
fn renamed_pool_does_not_allocate_leased_addresses() {
    let directory = directory();
    let range = ["10.0.0.1-10.0.0.2"];
    let map = create(&directory, &[pool("default", &range)], Settings::default());
    let (ann, address) = open(&map, 1, "ann", 0);
    assert_eq!(address, "10.0.0.1");
    let map = create(&directory, &[pool("office", &range)], Settings::default());
    assert!(map.reader().unwrap().is_live(&ann));
    assert_eq!(open(&map, 2, "eve", 0).1, "10.0.0.2");
    let error = map.open_session(session_id(3), &for_user("joe"), Tick::ZERO).unwrap_err();
    assert!(matches!(error, OpenError::Shortage(Shortage::Exhausted)), "{error}");
    let error =
        map.open_session(session_id(3), &for_user_at("joe", "10.0.0.1"), Tick::ZERO).unwrap_err();
    assert!(matches!(error, OpenError::Taken(_)), "{error}");
    // Once released, the address is available without another plan.
    map.close_by_handle(&ann, Tick::ZERO).unwrap();
    assert_eq!(open(&map, 3, "joe", 0).1, "10.0.0.1");
    assert!(map.close_by_handle(&ann, Tick::ZERO).is_err());
    assert_eq!(map.sessions().unwrap().len(), 2);
}

#[test]
fn renamed_pool_with_all_addresses_leased_is_exhausted() {
    let directory = directory();
    let map = create(&directory, &[pool("default", &["10.0.0.1"])], Settings::default());
    let (ann, _) = open(&map, 1, "ann", 0);
    let map = create(&directory, &[pool("office", &["10.0.0.1"])], Settings::default());
    let error = map.open_session(session_id(2), &for_user("eve"), Tick::ZERO).unwrap_err();
    assert!(matches!(error, OpenError::Shortage(Shortage::Exhausted)), "{error}");
    map.close_by_handle(&ann, Tick::ZERO).unwrap();
    assert_eq!(open(&map, 2, "eve", 0).1, "10.0.0.1");
}

#[test]
fn leased_address_is_awaited_through_several_plans() {
    let directory = directory();
    let plans = [
        [pool("default", &["10.0.0.1-10.0.0.2"]), pool("lab", &["10.0.1.1"])],
        [pool("default", &["10.0.0.2"]), pool("lab", &["10.0.0.1", "10.0.1.1"])],
    ];
    let map = create(&directory, &plans[0], Settings::default());
    let (ann, address) = open(&map, 1, "ann", 0);
    assert_eq!(address, "10.0.0.1");
    for plan in [1, 1, 0, 1] {
        let map = create(&directory, &plans[plan], Settings::default());
        assert!(map.reader().unwrap().is_live(&ann));
        let requests = [(10, "default"), (11, "default"), (12, "lab"), (13, "lab")];
        let opened: Vec<_> = requests
            .into_iter()
            .filter_map(|(number, pool)| {
                map.open_session(session_id(number), &for_pool("eve", pool), Tick::ZERO).ok()
            })
            .collect();
        // All addresses but the leased one.
        assert_eq!(opened.len(), 2);
        for opened in opened {
            assert_ne!(only_address(&opened.leases), address);
            map.close_by_handle(&opened.handle, Tick::ZERO).unwrap();
        }
    }
    map.close_by_handle(&ann, Tick::ZERO).unwrap();
    // The user gets her last address from the pool that contains it now.
    let again = map.open_session(session_id(2), &for_pool("ann", "lab"), Tick::ZERO).unwrap();
    assert_eq!(only_address(&again.leases), "10.0.0.1");
}

#[test]
fn address_continues_to_cool_in_its_new_pool() {
    let directory = directory();
    let settings = Settings { cool_down: 60, ..Settings::default() };
    let map = create(&directory, &[pool("default", &["10.0.0.1-10.0.0.2"])], settings);
    let (ann, _) = open(&map, 1, "ann", 100);
    let (bob, _) = open(&map, 2, "bob", 100);
    map.close_by_handle(&ann, Tick::from_secs(100)).unwrap();
    let map = create(&directory, &[pool("office", &["10.0.0.1-10.0.0.2"])], settings);
    map.close_by_handle(&bob, Tick::from_secs(110)).unwrap();
    for (now, until) in [(120, 160), (159, 160)] {
        let error =
            map.open_session(session_id(3), &for_user("eve"), Tick::from_secs(now)).unwrap_err();
        assert!(
            matches!(error, OpenError::Shortage(Shortage::Cooling { until: found }) if found == Tick::from_secs(until)),
            "{error}"
        );
    }
    assert_eq!(open(&map, 3, "eve", 160).1, "10.0.0.1");
    assert!(map.open_session(session_id(4), &for_user("joe"), Tick::from_secs(169)).is_err());
    // The last user need not wait.
    assert_eq!(open(&map, 5, "bob", 169).1, "10.0.0.2");
}

#[test]
fn address_continues_to_linger_in_its_new_pool() {
    let directory = directory();
    let settings = Settings { cool_down: 5, check_in_use: true, ..Settings::default() };
    let map = create(&directory, &[pool("default", &["10.0.0.1"])], settings);
    let (ann, _) = open(&map, 1, "ann", 100);
    map.close_by_handle(&ann, Tick::from_secs(100)).unwrap();
    assert_eq!(map.reap(Tick::from_secs(105), u32::MAX, &mut Sockets(true)).unwrap().lingering, 1);
    let map = create(&directory, &[pool("office", &["10.0.0.1"])], settings);
    assert_eq!(status(directory.path())[0].lingering, 1);
    let error =
        map.open_session(session_id(2), &for_user("eve"), Tick::from_secs(900)).unwrap_err();
    assert!(matches!(error, OpenError::Shortage(Shortage::Lingering)), "{error}");
    assert_eq!(map.reap(Tick::from_secs(900), u32::MAX, &mut Sockets(false)).unwrap().freed, 1);
    assert_eq!(open(&map, 2, "eve", 900).1, "10.0.0.1");
}

#[test]
fn drain_and_reservation_move_with_the_address() {
    let directory = directory();
    let map = create(&directory, &[pool("default", &["10.0.0.1-10.0.0.5"])], Settings::default());
    let (ann, _) = open(&map, 1, "ann", 0);
    let (bob, _) = open(&map, 2, "bob", 0);
    map.close_by_handle(&ann, Tick::ZERO).unwrap();
    map.drain(&"10.0.0.3".parse().unwrap(), Tick::ZERO).unwrap();
    map.reserve("10.0.0.4".parse().unwrap(), "joe", Tick::ZERO).unwrap();
    let map = create(&directory, &[pool("office", &["10.0.0.1-10.0.0.5"])], Settings::default());
    // The address is still leased from the previous pool.
    let changed = map.reserve("10.0.0.2".parse().unwrap(), "kim", Tick::ZERO).unwrap();
    assert_eq!((changed.addresses, changed.held), (1, 1));
    let changed = map.drain(&"10.0.0.0/29".parse().unwrap(), Tick::ZERO).unwrap();
    assert_eq!((changed.addresses, changed.held), (5, 1));
    map.undrain(&"10.0.0.1-10.0.0.2".parse().unwrap(), Tick::ZERO).unwrap();
    map.undrain(&"10.0.0.4".parse().unwrap(), Tick::ZERO).unwrap();
    assert_eq!(open(&map, 3, "ann", 0).1, "10.0.0.1");
    assert_eq!(open(&map, 4, "joe", 0).1, "10.0.0.4");
    assert!(map.open_session(session_id(5), &for_user("eve"), Tick::ZERO).is_err());
    map.close_by_handle(&bob, Tick::ZERO).unwrap();
    assert!(map.open_session(session_id(5), &for_user("bob"), Tick::ZERO).is_err());
    assert_eq!(open(&map, 5, "kim", 0).1, "10.0.0.2");
}

#[test]
fn plan_reserves_an_address_that_is_leased_from_another_pool() {
    let directory = directory();
    let map = create(&directory, &[pool("default", &["10.0.0.1"])], Settings::default());
    let (ann, _) = open(&map, 1, "ann", 0);
    let address = "10.0.0.1".parse().unwrap();
    let reservations = vec![Reservation { user: "bob".into(), address }];
    let pools = vec![pool("office", &["10.0.0.1"])];
    let plan = Plan { pools: pools.clone(), reservations, ..Plan::default() };
    let map = Map::create(directory.path(), &plan).unwrap();
    map.close_by_handle(&ann, Tick::ZERO).unwrap();
    assert!(map.open_session(session_id(2), &for_user("ann"), Tick::ZERO).is_err());
    let (bob, _) = open(&map, 2, "bob", 0);
    map.close_by_handle(&bob, Tick::ZERO).unwrap();
    // The next plan has no reservation.
    let map = create(&directory, &pools, Settings::default());
    assert_eq!(open(&map, 3, "ann", 0).1, "10.0.0.1");
}

#[test]
fn unused_pool_is_removed_with_the_plan() {
    let directory = directory();
    create(&directory, &[pool("default", &["10.0.0.1-10.0.0.4"])], Settings::default());
    let map = create(&directory, &[pool("office", &["10.0.0.1-10.0.0.4"])], Settings::default());
    assert_eq!(pool_names(&directory), ["office"]);
    assert_eq!(
        only_address(
            &map.open_session(session_id(1), &for_user_at("ann", "10.0.0.3"), Tick::ZERO)
                .unwrap()
                .leases
        ),
        "10.0.0.3"
    );
    assert_eq!(open(&map, 2, "eve", 0).1, "10.0.0.1");
    let error = map.open_session(session_id(3), &for_pool("joe", "lab"), Tick::ZERO).unwrap_err();
    assert!(matches!(error, OpenError::UnknownPool(_)), "{error}");
}

#[test]
fn session_without_a_pool_gets_one_of_the_current_plan() {
    let directory = directory();
    let (lab, annex) = (pool("lab", &["10.0.0.1"]), pool("annex", &["10.0.1.1-10.0.1.9"]));
    let map = create(&directory, std::slice::from_ref(&lab), Settings::default());
    open(&map, 1, "ann", 0);
    // The first pool of the plan is the default, not the first one of the map.
    let map = create(&directory, &[annex.clone(), lab], Settings::default());
    assert_eq!(open(&map, 2, "eve", 0).1, "10.0.1.1");
    // A pool named "default" takes precedence. The session keeps its address of the removed pool.
    let map = create(&directory, &[annex, pool("default", &["10.0.2.1"])], Settings::default());
    assert_eq!(open(&map, 3, "joe", 0).1, "10.0.2.1");
    let again = map.open_session(session_id(1), &for_user("ann"), Tick::ZERO).unwrap();
    assert!(again.already_open && again.shortage.is_none());
    assert_eq!(only_address(&again.leases), "10.0.0.1");
    let error = map.open_session(session_id(4), &for_pool("kim", "lab"), Tick::ZERO).unwrap_err();
    assert!(matches!(error, OpenError::UnknownPool(_)), "{error}");
}

#[test]
fn removed_loopback_pool_allocates_nothing() {
    let directory = directory();
    let office = pool("default", &["10.0.0.1-10.0.0.4"]);
    let map =
        create(&directory, &[office.clone(), loopback_pool("127.9.0.0/29")], Settings::default());
    let ann = map.open_session(session_id(1), &for_user("ann"), Tick::ZERO).unwrap();
    let map = create(&directory, &[office], Settings::default());
    let again = map.open_session(session_id(1), &for_user("ann"), Tick::ZERO).unwrap();
    assert_eq!(again.leases, ann.leases);
    let eve = map.open_session(session_id(2), &for_user("eve"), Tick::ZERO).unwrap();
    assert_eq!((only_address(&eve.leases).as_str(), eve.shortage), ("10.0.0.2", None));
}

#[test]
fn both_addresses_of_a_loopback_lease_are_leased() {
    let directory = directory();
    let settings = Settings { cool_down: 60, ..Settings::default() };
    let pairs = [loopback_pool("127.9.0.0/29")];
    let single = [pool("default", &["127.9.0.0/29"])];
    let map = create(&directory, &pairs, settings);
    let (ann, address) = open(&map, 1, "ann", 100);
    assert_eq!(address, "127.9.0.0");
    let open_and_close_all = |map: &Map| {
        let results = (10..).map_while(|number| {
            map.open_session(session_id(number), &for_user("eve"), Tick::from_secs(100)).ok()
        });
        let opened: Vec<_> = results.collect();
        opened.iter().for_each(|opened| {
            _ = map.close_by_handle(&opened.handle, Tick::from_secs(100)).unwrap()
        });
        opened.iter().map(|opened| only_address(&opened.leases)).collect::<Vec<_>>()
    };
    let leased = ["127.9.0.0", "127.9.0.4"];
    let map = create(&directory, &single, settings);
    let allocated = open_and_close_all(&map);
    assert_eq!(
        (allocated.len(), allocated.iter().any(|address| leased.contains(&address.as_str()))),
        (6, false)
    );
    map.close_by_handle(&ann, Tick::from_secs(100)).unwrap();
    let map = create(&directory, &single, Settings { low_water: 1, ..settings });
    // Both addresses cool down now.
    assert_eq!(status(directory.path()).last().unwrap().cooling, 8);
    let opened = map
        .open_session(session_id(2), &for_user_at("ann", "127.9.0.4"), Tick::from_secs(100))
        .unwrap();
    // As a loopback pool again: a pair is leased if one of its addresses is.
    let map = create(&directory, &pairs, settings);
    for number in 3..6 {
        assert_ne!(open(&map, number, "joe", 200).1, "127.9.0.0");
    }
    assert!(map.open_session(session_id(6), &for_user("joe"), Tick::from_secs(200)).is_err());
    assert!(map.reader().unwrap().is_live(&opened.handle));
}

#[test]
fn removed_pool_remains_while_addresses_are_leased_cooling_or_lingering() {
    let directory = directory();
    let settings = Settings { cool_down: 60, check_in_use: true, ..Settings::default() };
    let lab = pool("lab", &["10.0.1.1"]);
    let default = pool("default", &["10.0.0.1"]);
    let map = create(&directory, &[default.clone(), lab], settings);
    let ann =
        map.open_session(session_id(1), &for_pool("ann", "lab"), Tick::from_secs(100)).unwrap();
    let default = [default];
    create(&directory, &default, settings);
    assert_eq!(pool_names(&directory), ["default", "lab"]);
    map.close_by_handle(&ann.handle, Tick::from_secs(100)).unwrap();
    create(&directory, &default, settings);
    assert_eq!(pool_names(&directory), ["default", "lab"]);
    assert_eq!(map.reap(Tick::from_secs(160), u32::MAX, &mut Sockets(true)).unwrap().lingering, 1);
    create(&directory, &default, settings);
    assert_eq!(pool_names(&directory), ["default", "lab"]);
    assert_eq!(map.reap(Tick::from_secs(161), u32::MAX, &mut Sockets(false)).unwrap().freed, 1);
    let map = create(&directory, &default, settings);
    assert_eq!(pool_names(&directory), ["default"]);
    assert!(!map.reader().unwrap().is_live(&ann.handle));
}

#[test]
fn removing_a_pool_keeps_the_numbers_of_later_pools() {
    let directory = directory();
    let (lab, annex) = (pool("lab", &["10.0.1.1"]), pool("annex", &["10.0.2.1"]));
    let map =
        create(&directory, &[pool("default", &["10.0.0.1"]), lab.clone()], Settings::default());
    let ann = map.open_session(session_id(1), &for_pool("ann", "lab"), Tick::ZERO).unwrap();
    assert_eq!(ann.handle.pool, 1);
    let map = create(&directory, std::slice::from_ref(&lab), Settings::default());
    assert!(map.reader().unwrap().is_live(&ann.handle));
    assert_eq!(pool_names(&directory), ["", "lab"]);
    assert_eq!(status(directory.path())[0].slots, 0);
    assert_eq!(map.reader().unwrap().pool_kind("10.0.0.1".parse().unwrap()), None);
    // The next new pool takes the free number.
    let map = create(&directory, &[lab, annex], Settings::default());
    assert_eq!(pool_names(&directory), ["annex", "lab"]);
    assert!(map.reader().unwrap().is_live(&ann.handle));
    map.close_by_handle(&ann.handle, Tick::ZERO).unwrap();
}

#[test]
fn handle_of_a_removed_pool_is_stale_in_its_successors() {
    let directory = directory();
    let default = pool("default", &["10.0.0.1"]);
    let with = |other: Pool| [default.clone(), other];
    let map = create(&directory, &with(pool("lab", &["10.0.1.1-10.0.1.2"])), Settings::default());
    let mut old_handles = Vec::new();
    for _ in 0..3 {
        let opened = map.open_session(session_id(7), &for_pool("ann", "lab"), Tick::ZERO).unwrap();
        map.close_by_handle(&opened.handle, Tick::ZERO).unwrap();
        old_handles.push(opened.handle);
    }
    // The same session in the same slot and pool number: in the next plan, after a plan without
    // that pool, and in a pool with more slots.
    for (is_removed_first, range) in
        [(false, "10.0.2.1"), (true, "10.0.3.1"), (false, "10.0.3.1-10.0.3.2")]
    {
        if is_removed_first {
            create(&directory, std::slice::from_ref(&default), Settings::default());
            assert_eq!(pool_names(&directory), ["default"]);
        }
        let map = create(&directory, &with(pool("annex", &[range])), Settings::default());
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
    let directory = directory();
    for number in 0..40 {
        let named = pool(&format!("p{number}"), &[&format!("10.0.{number}.1")]);
        let map = create(&directory, &[named], Settings::default());
        let (handle, address) = open(&map, 1, "ann", 0);
        assert_eq!(address, format!("10.0.{number}.1"));
        map.close_by_handle(&handle, Tick::ZERO).unwrap();
    }
    assert_eq!(pool_names(&directory), ["p39"]);
}

#[test]
fn error_names_the_pools_in_use_if_there_are_too_many() {
    let directory = directory();
    for number in 0..16 {
        let named = pool(&format!("p{number}"), &[&format!("10.0.{number}.1")]);
        open(&create(&directory, &[named], Settings::default()), number, "ann", 0);
    }
    let plan = Plan { pools: vec![pool("last", &["10.0.20.1"])], ..Plan::default() };
    let error = Map::create(directory.path(), &plan).unwrap_err().to_string();
    let names: Vec<_> = (0..16).map(|number| format!("p{number}")).collect();
    assert_eq!(
        error,
        format!(
            "a map has at most 16 pools: this plan has 1, and of those that it no longer has, 16 have \
             addresses in use or cooling down ({})",
            names.join(", ")
        )
    );
    Map::open(directory.path()).unwrap().close_session(session_id(3), Tick::ZERO).unwrap();
    let map = Map::create(directory.path(), &plan).unwrap();
    assert_eq!(open(&map, 99, "eve", 0).1, "10.0.20.1");
}

#[test]
fn pools_that_share_addresses_are_refused() {
    let pools = vec![
        pool("default", &["10.0.0.1-10.0.0.9"]),
        pool("lab", &["10.0.1.1", "10.0.0.8-10.0.0.12"]),
    ];
    match Map::in_memory(&Plan { pools, ..Plan::default() }) {
        Err(MapError::Plan(text)) => {
            assert_eq!(text, r#"pools "default" and "lab" share addresses from 10.0.0.8 on"#);
        }
        other => panic!("{other:?}"),
    }
    // A sparse range has only its first addresses, so these pools share none.
    let sparse = |name, range: &str| {
        Pool::new(name, PoolKind::VirtualIp, &[range.parse().unwrap()], 4).unwrap()
    };
    let pools = vec![sparse("a", "fd00::/64"), sparse("b", "fd00::4/126")];
    Map::in_memory(&Plan { pools, ..Plan::default() }).unwrap();
}

#[test]
fn no_address_is_leased_twice_while_plans_change() {
    let directory = directory();
    let range = |first: u32| format!("10.0.0.{first}-10.0.0.{}", first + 3);
    let ranges = [range(0), range(4), range(8)];
    let plan = |number: usize| {
        let names = ["default", "office", "lab", "annex"];
        let renamed = |index: usize| pool(names[(index + number) % 4], &[&ranges[index]]);
        [renamed(0), renamed(1), renamed(2)]
    };
    create(&directory, &plan(0), Settings::default());
    let leased = Mutex::new(BTreeSet::new());
    let rounds: u64 = vipool_testing::effort(300, 20_000);
    std::thread::scope(|scope| {
        for thread in 0..3u64 {
            let (path, leased) = (directory.path(), &leased);
            scope.spawn(move || {
                let map = Map::open(path).unwrap();
                let mut open = VecDeque::new();
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
                        leased.lock().unwrap().insert(address.clone()),
                        "{address} is leased twice"
                    );
                    open.push_back((opened.handle, address));
                    if open.len() > 2 {
                        let (handle, address) = open.pop_front().unwrap();
                        leased.lock().unwrap().remove(&address);
                        map.close_by_handle(&handle, Tick::ZERO).unwrap();
                    }
                }
            });
        }
        for number in 0..rounds as usize / 10 {
            create(&directory, &plan(number), Settings::default());
        }
    });
    // All addresses can be allocated again.
    let map = create(&directory, &[pool("last", &["10.0.0.0-10.0.0.11"])], Settings::default());
    map.reconcile(Tick::ZERO, |_, _| false).unwrap();
    let opened = (100..).map_while(|number| {
        map.open_session(session_id(number), &for_user("ann"), Tick::ZERO).ok()
    });
    assert_eq!(
        opened.map(|opened| only_address(&opened.leases)).collect::<BTreeSet<_>>().len(),
        12
    );
}
