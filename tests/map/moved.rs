//! Plans that rename pools and move addresses between them: an address is one address whatever pool
//! it is in, and the pools of the plan are the ones there are.

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

use crate::support::{id, loopback, only, pool, user};

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// Puts a plan with these pools in place.
fn create(directory: &tempfile::TempDir, pools: &[Pool], settings: Settings) -> Map {
    let plan = Plan { pools: pools.to_vec(), settings, ..Plan::default() };
    Map::create(directory.path(), &plan).unwrap()
}

/// Opens a session of this user; answers its handle and its only address.
fn open(map: &Map, number: u64, name: &str, now: u32) -> (Handle, String) {
    let opened = map.open_session(id(number), &user(name), Tick::from_secs(now)).unwrap();
    (opened.handle, only(&opened.leases))
}

fn asking<'a>(name: &'a str, address: &str) -> OpenOptions<'a> {
    OpenOptions { address: address.parse().ok(), ..user(name) }
}

fn of_pool<'a>(name: &'a str, pool: &'a str) -> OpenOptions<'a> {
    OpenOptions { pool: Some(pool), ..user(name) }
}

fn status(directory: &Path) -> Vec<PoolStatus> {
    Reader::attach(directory).unwrap().pools()
}

fn names(directory: &tempfile::TempDir) -> Vec<String> {
    status(directory.path()).into_iter().map(|pool| pool.name).collect()
}

/// Says of every address that it has sockets on it, or that none has.
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
fn a_pool_that_is_renamed_gives_out_nothing_that_is_held() {
    let directory = directory();
    let range = ["10.0.0.1-10.0.0.2"];
    let map = create(&directory, &[pool("default", &range)], Settings::default());
    let (ann, address) = open(&map, 1, "ann", 0);
    assert_eq!(address, "10.0.0.1");
    let map = create(&directory, &[pool("office", &range)], Settings::default());
    assert!(map.reader().unwrap().is_live(&ann));
    assert_eq!(open(&map, 2, "eve", 0).1, "10.0.0.2");
    let no = map.open_session(id(3), &user("joe"), Tick::ZERO).unwrap_err();
    assert!(matches!(no, OpenError::Shortage(Shortage::Exhausted)), "{no}");
    let no = map.open_session(id(3), &asking("joe", "10.0.0.1"), Tick::ZERO).unwrap_err();
    assert!(matches!(no, OpenError::Taken(_)), "{no}");
    // Given back, it is there at once, without another plan.
    map.close_by_handle(&ann, Tick::ZERO).unwrap();
    assert_eq!(open(&map, 3, "joe", 0).1, "10.0.0.1");
    assert!(map.close_by_handle(&ann, Tick::ZERO).is_err());
    assert_eq!(map.sessions().unwrap().len(), 2);
}

#[test]
fn a_pool_in_which_sessions_hold_all_under_the_old_name_is_exhausted() {
    let directory = directory();
    let map = create(&directory, &[pool("default", &["10.0.0.1"])], Settings::default());
    let (ann, _) = open(&map, 1, "ann", 0);
    let map = create(&directory, &[pool("office", &["10.0.0.1"])], Settings::default());
    let no = map.open_session(id(2), &user("eve"), Tick::ZERO).unwrap_err();
    assert!(matches!(no, OpenError::Shortage(Shortage::Exhausted)), "{no}");
    map.close_by_handle(&ann, Tick::ZERO).unwrap();
    assert_eq!(open(&map, 2, "eve", 0).1, "10.0.0.1");
}

#[test]
fn what_is_held_is_awaited_plan_after_plan() {
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
        let asked = [(10, "default"), (11, "default"), (12, "lab"), (13, "lab")];
        let opened: Vec<_> = asked
            .into_iter()
            .filter_map(|(number, pool)| {
                map.open_session(id(number), &of_pool("eve", pool), Tick::ZERO).ok()
            })
            .collect();
        // All but hers.
        assert_eq!(opened.len(), 2);
        for opened in opened {
            assert_ne!(only(&opened.leases), address);
            map.close_by_handle(&opened.handle, Tick::ZERO).unwrap();
        }
    }
    map.close_by_handle(&ann, Tick::ZERO).unwrap();
    // Her last address is hers in the pool that has it now.
    let again = map.open_session(id(2), &of_pool("ann", "lab"), Tick::ZERO).unwrap();
    assert_eq!(only(&again.leases), "10.0.0.1");
}

#[test]
fn an_address_goes_on_cooling_in_its_new_pool() {
    let directory = directory();
    let settings = Settings { cool_down: 60, ..Settings::default() };
    let map = create(&directory, &[pool("default", &["10.0.0.1-10.0.0.2"])], settings);
    let (ann, _) = open(&map, 1, "ann", 100);
    let (bob, _) = open(&map, 2, "bob", 100);
    map.close_by_handle(&ann, Tick::from_secs(100)).unwrap();
    let map = create(&directory, &[pool("office", &["10.0.0.1-10.0.0.2"])], settings);
    map.close_by_handle(&bob, Tick::from_secs(110)).unwrap();
    for (now, until) in [(120, 160), (159, 160)] {
        let no = map.open_session(id(3), &user("eve"), Tick::from_secs(now)).unwrap_err();
        assert!(
            matches!(no, OpenError::Shortage(Shortage::Cooling { until: found }) if found == Tick::from_secs(until)),
            "{no}"
        );
    }
    assert_eq!(open(&map, 3, "eve", 160).1, "10.0.0.1");
    assert!(map.open_session(id(4), &user("joe"), Tick::from_secs(169)).is_err());
    // Who had it last need not wait.
    assert_eq!(open(&map, 5, "bob", 169).1, "10.0.0.2");
}

#[test]
fn an_address_lingers_on_in_its_new_pool() {
    let directory = directory();
    let settings = Settings { cool_down: 5, check_in_use: true, ..Settings::default() };
    let map = create(&directory, &[pool("default", &["10.0.0.1"])], settings);
    let (ann, _) = open(&map, 1, "ann", 100);
    map.close_by_handle(&ann, Tick::from_secs(100)).unwrap();
    assert_eq!(map.reap(Tick::from_secs(105), u32::MAX, &mut Sockets(true)).unwrap().lingering, 1);
    let map = create(&directory, &[pool("office", &["10.0.0.1"])], settings);
    assert_eq!(status(directory.path())[0].lingering, 1);
    let no = map.open_session(id(2), &user("eve"), Tick::from_secs(900)).unwrap_err();
    assert!(matches!(no, OpenError::Shortage(Shortage::Lingering)), "{no}");
    assert_eq!(map.reap(Tick::from_secs(900), u32::MAX, &mut Sockets(false)).unwrap().freed, 1);
    assert_eq!(open(&map, 2, "eve", 900).1, "10.0.0.1");
}

#[test]
fn what_was_said_of_an_address_goes_with_it() {
    let directory = directory();
    let map = create(&directory, &[pool("default", &["10.0.0.1-10.0.0.5"])], Settings::default());
    let (ann, _) = open(&map, 1, "ann", 0);
    let (bob, _) = open(&map, 2, "bob", 0);
    map.close_by_handle(&ann, Tick::ZERO).unwrap();
    map.drain(&"10.0.0.3".parse().unwrap(), Tick::ZERO).unwrap();
    map.reserve("10.0.0.4".parse().unwrap(), "joe", Tick::ZERO).unwrap();
    let map = create(&directory, &[pool("office", &["10.0.0.1-10.0.0.5"])], Settings::default());
    // While he holds it in the pool of old.
    let changed = map.reserve("10.0.0.2".parse().unwrap(), "kim", Tick::ZERO).unwrap();
    assert_eq!((changed.addresses, changed.held), (1, 1));
    let changed = map.drain(&"10.0.0.0/29".parse().unwrap(), Tick::ZERO).unwrap();
    assert_eq!((changed.addresses, changed.held), (5, 1));
    map.undrain(&"10.0.0.1-10.0.0.2".parse().unwrap(), Tick::ZERO).unwrap();
    map.undrain(&"10.0.0.4".parse().unwrap(), Tick::ZERO).unwrap();
    assert_eq!(open(&map, 3, "ann", 0).1, "10.0.0.1");
    assert_eq!(open(&map, 4, "joe", 0).1, "10.0.0.4");
    assert!(map.open_session(id(5), &user("eve"), Tick::ZERO).is_err());
    map.close_by_handle(&bob, Tick::ZERO).unwrap();
    assert!(map.open_session(id(5), &user("bob"), Tick::ZERO).is_err());
    assert_eq!(open(&map, 5, "kim", 0).1, "10.0.0.2");
}

#[test]
fn a_plan_reserves_an_address_wherever_it_is() {
    let directory = directory();
    let map = create(&directory, &[pool("default", &["10.0.0.1"])], Settings::default());
    let (ann, _) = open(&map, 1, "ann", 0);
    let address = "10.0.0.1".parse().unwrap();
    let reservations = vec![Reservation { user: "bob".into(), address }];
    let pools = vec![pool("office", &["10.0.0.1"])];
    let plan = Plan { pools: pools.clone(), reservations, ..Plan::default() };
    let map = Map::create(directory.path(), &plan).unwrap();
    map.close_by_handle(&ann, Tick::ZERO).unwrap();
    assert!(map.open_session(id(2), &user("ann"), Tick::ZERO).is_err());
    let (bob, _) = open(&map, 2, "bob", 0);
    map.close_by_handle(&bob, Tick::ZERO).unwrap();
    // No longer, once the plan no longer does.
    let map = create(&directory, &pools, Settings::default());
    assert_eq!(open(&map, 3, "ann", 0).1, "10.0.0.1");
}

#[test]
fn a_pool_that_nobody_uses_any_more_is_gone_with_the_plan() {
    let directory = directory();
    create(&directory, &[pool("default", &["10.0.0.1-10.0.0.4"])], Settings::default());
    let map = create(&directory, &[pool("office", &["10.0.0.1-10.0.0.4"])], Settings::default());
    assert_eq!(names(&directory), ["office"]);
    assert_eq!(
        only(&map.open_session(id(1), &asking("ann", "10.0.0.3"), Tick::ZERO).unwrap().leases),
        "10.0.0.3"
    );
    assert_eq!(open(&map, 2, "eve", 0).1, "10.0.0.1");
    let no = map.open_session(id(3), &of_pool("joe", "lab"), Tick::ZERO).unwrap_err();
    assert!(matches!(no, OpenError::UnknownPool(_)), "{no}");
}

#[test]
fn a_session_that_asks_for_no_pool_gets_one_of_the_plan_there_is() {
    let directory = directory();
    let (one, two) = (pool("lab", &["10.0.0.1"]), pool("annex", &["10.0.1.1-10.0.1.9"]));
    let map = create(&directory, std::slice::from_ref(&one), Settings::default());
    open(&map, 1, "ann", 0);
    // The first of the plan, whatever came first in the map.
    let map = create(&directory, &[two.clone(), one], Settings::default());
    assert_eq!(open(&map, 2, "eve", 0).1, "10.0.1.1");
    // One that is named so comes before it; the address of the other one stays with its session.
    let map = create(&directory, &[two, pool("default", &["10.0.2.1"])], Settings::default());
    assert_eq!(open(&map, 3, "joe", 0).1, "10.0.2.1");
    let again = map.open_session(id(1), &user("ann"), Tick::ZERO).unwrap();
    assert!(again.already_open && again.shortage.is_none());
    assert_eq!(only(&again.leases), "10.0.0.1");
    let no = map.open_session(id(4), &of_pool("kim", "lab"), Tick::ZERO).unwrap_err();
    assert!(matches!(no, OpenError::UnknownPool(_)), "{no}");
}

#[test]
fn a_loopback_pool_that_is_gone_is_not_asked_for_addresses() {
    let directory = directory();
    let office = pool("default", &["10.0.0.1-10.0.0.4"]);
    let map = create(&directory, &[office.clone(), loopback("127.9.0.0/29")], Settings::default());
    let ann = map.open_session(id(1), &user("ann"), Tick::ZERO).unwrap();
    let map = create(&directory, &[office], Settings::default());
    let again = map.open_session(id(1), &user("ann"), Tick::ZERO).unwrap();
    assert_eq!(again.leases, ann.leases);
    let eve = map.open_session(id(2), &user("eve"), Tick::ZERO).unwrap();
    assert_eq!((only(&eve.leases).as_str(), eve.shortage), ("10.0.0.2", None));
}

#[test]
fn the_second_address_of_a_loopback_lease_is_as_much_its_own() {
    let directory = directory();
    let settings = Settings { cool_down: 60, ..Settings::default() };
    let pairs = [loopback("127.9.0.0/29")];
    let single = [pool("default", &["127.9.0.0/29"])];
    let map = create(&directory, &pairs, settings);
    let (ann, address) = open(&map, 1, "ann", 100);
    assert_eq!(address, "127.9.0.0");
    let others = |map: &Map| {
        let others = (10..).map_while(|number| {
            map.open_session(id(number), &user("eve"), Tick::from_secs(100)).ok()
        });
        let opened: Vec<_> = others.collect();
        opened.iter().for_each(|opened| {
            _ = map.close_by_handle(&opened.handle, Tick::from_secs(100)).unwrap()
        });
        opened.iter().map(|opened| only(&opened.leases)).collect::<Vec<_>>()
    };
    let held = ["127.9.0.0", "127.9.0.4"];
    let map = create(&directory, &single, settings);
    let got = others(&map);
    assert_eq!((got.len(), got.iter().any(|it| held.contains(&it.as_str()))), (6, false));
    map.close_by_handle(&ann, Tick::from_secs(100)).unwrap();
    let map = create(&directory, &single, Settings { low_water: 1, ..settings });
    // Both cool down now.
    assert_eq!(status(directory.path()).last().unwrap().cooling, 8);
    let asked = map.open_session(id(2), &asking("ann", "127.9.0.4"), Tick::from_secs(100)).unwrap();
    // And back: one of a pair is enough.
    let map = create(&directory, &pairs, settings);
    for number in 3..6 {
        assert_ne!(open(&map, number, "joe", 200).1, "127.9.0.0");
    }
    assert!(map.open_session(id(6), &user("joe"), Tick::from_secs(200)).is_err());
    assert!(map.reader().unwrap().is_live(&asked.handle));
}

#[test]
fn a_pool_stays_while_its_addresses_are_held_or_cool_down() {
    let directory = directory();
    let settings = Settings { cool_down: 60, check_in_use: true, ..Settings::default() };
    let lab = pool("lab", &["10.0.1.1"]);
    let default = pool("default", &["10.0.0.1"]);
    let map = create(&directory, &[default.clone(), lab], settings);
    let ann = map.open_session(id(1), &of_pool("ann", "lab"), Tick::from_secs(100)).unwrap();
    let default = [default];
    create(&directory, &default, settings);
    assert_eq!(names(&directory), ["default", "lab"]);
    map.close_by_handle(&ann.handle, Tick::from_secs(100)).unwrap();
    create(&directory, &default, settings);
    assert_eq!(names(&directory), ["default", "lab"]);
    assert_eq!(map.reap(Tick::from_secs(160), u32::MAX, &mut Sockets(true)).unwrap().lingering, 1);
    create(&directory, &default, settings);
    assert_eq!(names(&directory), ["default", "lab"]);
    assert_eq!(map.reap(Tick::from_secs(161), u32::MAX, &mut Sockets(false)).unwrap().freed, 1);
    let map = create(&directory, &default, settings);
    assert_eq!(names(&directory), ["default"]);
    assert!(!map.reader().unwrap().is_live(&ann.handle));
}

#[test]
fn those_behind_a_pool_that_is_gone_keep_their_numbers() {
    let directory = directory();
    let (lab, annex) = (pool("lab", &["10.0.1.1"]), pool("annex", &["10.0.2.1"]));
    let map =
        create(&directory, &[pool("default", &["10.0.0.1"]), lab.clone()], Settings::default());
    let ann = map.open_session(id(1), &of_pool("ann", "lab"), Tick::ZERO).unwrap();
    assert_eq!(ann.handle.pool, 1);
    let map = create(&directory, std::slice::from_ref(&lab), Settings::default());
    assert!(map.reader().unwrap().is_live(&ann.handle));
    assert_eq!(names(&directory), ["", "lab"]);
    assert_eq!(status(directory.path())[0].slots, 0);
    assert_eq!(map.reader().unwrap().pool_kind("10.0.0.1".parse().unwrap()), None);
    // Its place is taken by the next one.
    let map = create(&directory, &[lab, annex], Settings::default());
    assert_eq!(names(&directory), ["annex", "lab"]);
    assert!(map.reader().unwrap().is_live(&ann.handle));
    map.close_by_handle(&ann.handle, Tick::ZERO).unwrap();
}

#[test]
fn a_handle_of_a_pool_that_is_gone_is_good_for_none_that_comes_after_it() {
    let directory = directory();
    let default = pool("default", &["10.0.0.1"]);
    let with = |other: Pool| [default.clone(), other];
    let map = create(&directory, &with(pool("lab", &["10.0.1.1-10.0.1.2"])), Settings::default());
    let mut old = Vec::new();
    for _ in 0..3 {
        let opened = map.open_session(id(7), &of_pool("ann", "lab"), Tick::ZERO).unwrap();
        map.close_by_handle(&opened.handle, Tick::ZERO).unwrap();
        old.push(opened.handle);
    }
    // The same session, in the same slot of a pool of the same number: at once, after there was
    // none, and in slots that came later.
    for (gone, range) in [(false, "10.0.2.1"), (true, "10.0.3.1"), (false, "10.0.3.1-10.0.3.2")] {
        if gone {
            create(&directory, std::slice::from_ref(&default), Settings::default());
            assert_eq!(names(&directory), ["default"]);
        }
        let map = create(&directory, &with(pool("annex", &[range])), Settings::default());
        for _ in 0..2 {
            let opened = map.open_session(id(7), &of_pool("ann", "annex"), Tick::ZERO).unwrap();
            let reader = map.reader().unwrap();
            assert_eq!(opened.handle.pool, 1);
            assert!(reader.is_live(&opened.handle));
            for handle in &old {
                assert!(!reader.is_live(handle), "{handle:?}");
                assert!(map.close_by_handle(handle, Tick::ZERO).is_err());
            }
            map.close_by_handle(&opened.handle, Tick::ZERO).unwrap();
            old.push(opened.handle);
        }
    }
}

#[test]
fn pools_are_renamed_as_often_as_one_likes_while_nobody_is_there() {
    let directory = directory();
    for number in 0..40 {
        let named = pool(&format!("p{number}"), &[&format!("10.0.{number}.1")]);
        let map = create(&directory, &[named], Settings::default());
        let (handle, address) = open(&map, 1, "ann", 0);
        assert_eq!(address, format!("10.0.{number}.1"));
        map.close_by_handle(&handle, Tick::ZERO).unwrap();
    }
    assert_eq!(names(&directory), ["p39"]);
}

#[test]
fn too_many_pools_in_use_are_told_with_their_names() {
    let directory = directory();
    for number in 0..16 {
        let named = pool(&format!("p{number}"), &[&format!("10.0.{number}.1")]);
        open(&create(&directory, &[named], Settings::default()), number, "ann", 0);
    }
    let plan = Plan { pools: vec![pool("last", &["10.0.20.1"])], ..Plan::default() };
    let no = Map::create(directory.path(), &plan).unwrap_err().to_string();
    let names: Vec<_> = (0..16).map(|number| format!("p{number}")).collect();
    assert_eq!(
        no,
        format!(
            "a map has at most 16 pools: this plan has 1, and of those that it no longer has, 16 have \
             addresses in use or cooling down ({})",
            names.join(", ")
        )
    );
    Map::open(directory.path()).unwrap().close_session(id(3), Tick::ZERO).unwrap();
    let map = Map::create(directory.path(), &plan).unwrap();
    assert_eq!(open(&map, 99, "eve", 0).1, "10.0.20.1");
}

#[test]
fn pools_that_share_addresses_make_no_map() {
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
    // What a sparse range is cut to is all it has.
    let sparse = |name, range: &str| {
        Pool::new(name, PoolKind::VirtualIp, &[range.parse().unwrap()], 4).unwrap()
    };
    let pools = vec![sparse("a", "fd00::/64"), sparse("b", "fd00::4/126")];
    Map::in_memory(&Plan { pools, ..Plan::default() }).unwrap();
}

#[test]
fn no_address_is_held_twice_while_plans_come_and_go() {
    let directory = directory();
    let range = |first: u32| format!("10.0.0.{first}-10.0.0.{}", first + 3);
    let ranges = [range(0), range(4), range(8)];
    let plan = |number: usize| {
        let names = ["default", "office", "lab", "annex"];
        let of = |at: usize| pool(names[(at + number) % 4], &[&ranges[at]]);
        [of(0), of(1), of(2)]
    };
    create(&directory, &plan(0), Settings::default());
    let held = Mutex::new(BTreeSet::new());
    let rounds: u64 = vipool_testing::effort(300, 20_000);
    std::thread::scope(|scope| {
        for thread in 0..3u64 {
            let (path, held) = (directory.path(), &held);
            scope.spawn(move || {
                let map = Map::open(path).unwrap();
                let mut open = VecDeque::new();
                for round in 0..rounds {
                    let session = id(1 + thread + 3 * (round % 7));
                    let Ok(opened) = map.open_session(session, &OpenOptions::default(), Tick::ZERO)
                    else {
                        continue;
                    };
                    if opened.already_open {
                        continue;
                    }
                    let address = only(&opened.leases);
                    assert!(held.lock().unwrap().insert(address.clone()), "{address} twice");
                    open.push_back((opened.handle, address));
                    if open.len() > 2 {
                        let (handle, address) = open.pop_front().unwrap();
                        held.lock().unwrap().remove(&address);
                        map.close_by_handle(&handle, Tick::ZERO).unwrap();
                    }
                }
            });
        }
        for number in 0..rounds as usize / 10 {
            create(&directory, &plan(number), Settings::default());
        }
    });
    // All of it can be had again.
    let map = create(&directory, &[pool("last", &["10.0.0.0-10.0.0.11"])], Settings::default());
    map.reconcile(Tick::ZERO, |_, _| false).unwrap();
    let all =
        (100..).map_while(|number| map.open_session(id(number), &user("ann"), Tick::ZERO).ok());
    assert_eq!(all.map(|opened| only(&opened.leases)).collect::<BTreeSet<_>>().len(), 12);
}
