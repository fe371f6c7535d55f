//! Tests of reloads: sessions open and close while other threads replace the map.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use vipool::Tick;
use vipool::map::{Map, MapError, OpenOptions, Plan, Settings};
use vipool::session::SessionId;

use crate::support::{addresses_of, plan, pool, session_id};

/// The sessions of a thread that stay open, with their addresses.
type OpenSessions = BTreeMap<SessionId, Vec<std::net::IpAddr>>;

/// Returns a plan that needs time to build. A reload without the second pool of the last reload
/// builds the map under the writer lock.
fn large_plan(cool_down: u32, has_second_pool: bool) -> Plan {
    let mut pools = vec![pool("default", &["10.0.0.0-10.0.255.255"])];
    if has_second_pool {
        pools.push(pool("office", &["10.64.0.0/24"]));
    }
    Plan::new(pools).with_settings(Settings::without_cool_down().with_cool_down(cool_down))
}

/// Opens and closes sessions until `is_finished` is true. Returns the sessions that are still open.
fn open_and_close(directory: &Path, worker: u64, is_finished: &AtomicBool) -> OpenSessions {
    let map = Map::open(directory).unwrap();
    let mut open_sessions = OpenSessions::new();
    let mut count = 0;
    while !is_finished.load(Ordering::Relaxed) || count < 200 {
        count += 1;
        let session = session_id(worker * 1_000_000 + count % 100);
        let opened = map.open_session(session, &OpenOptions::new(), Tick::now()).unwrap();
        let addresses = addresses_of(&opened.leases);
        let known_addresses = open_sessions.entry(session).or_insert_with(|| addresses.clone());
        assert_eq!(*known_addresses, addresses);
        // Close every second session. The others stay open.
        if count % 2 == 0 {
            map.close_session(session, Tick::now()).unwrap();
            open_sessions.remove(&session);
        }
    }
    open_sessions
}

/// Starts one thread for each list of plans. The thread reloads the map with each plan of its list,
/// while other threads open and close sessions. Checks that no call fails and that no lease is lost.
fn reload_beside_sessions(first_plan: &Plan, plans_of_reloaders: &[Vec<Plan>]) {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    Map::create(directory, first_plan).unwrap();
    let is_finished = AtomicBool::new(false);
    let open_sessions: OpenSessions = thread::scope(|scope| {
        let is_finished = &is_finished;
        let workers: Vec<_> = (1..=2)
            .map(|worker| scope.spawn(move || open_and_close(directory, worker, is_finished)))
            .collect();
        let reloaders: Vec<_> = plans_of_reloaders
            .iter()
            .map(|plans| {
                scope.spawn(move || -> Result<(), MapError> {
                    plans.iter().try_for_each(|plan| Map::create(directory, plan).map(drop))
                })
            })
            .collect();
        let results: Vec<_> = reloaders.into_iter().map(|reloader| reloader.join()).collect();
        is_finished.store(true, Ordering::Relaxed);
        let open_sessions = workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect();
        for result in results {
            result.unwrap().unwrap();
        }
        open_sessions
    });
    let rows = Map::open(directory).unwrap().sessions().unwrap();
    let found_sessions: OpenSessions =
        rows.iter().map(|row| (row.session, addresses_of(&row.leases))).collect();
    assert_eq!(found_sessions, open_sessions);
    assert_eq!(open_sessions.len(), 100);
    for name in ["map.new", "sessions.new"] {
        assert!(!directory.join(name).exists(), "{name} remains");
    }
}

#[test]
#[cfg_attr(miri, ignore = "Miri does not support mapped files")]
fn sessions_open_and_close_while_the_map_grows() {
    let growing_plan = |last_octet| {
        plan(&[&format!("10.0.0.0-10.1.0.{last_octet}")], Settings::without_cool_down())
    };
    reload_beside_sessions(&growing_plan(0), &[(1..=8).map(growing_plan).collect()]);
}

#[test]
#[cfg_attr(miri, ignore = "Miri does not support mapped files")]
fn concurrent_reloads_lose_no_session() {
    for reloader_count in [2, 4] {
        // The first reloader changes the settings. The others add and drop a pool.
        let plan_of = |reloader: u32, round: u32| match reloader {
            0 => large_plan(2 + round, false),
            _ => large_plan(1, (reloader + round).is_multiple_of(2)),
        };
        let plans: Vec<Vec<Plan>> = (0..reloader_count)
            .map(|reloader| (0..8).map(|round| plan_of(reloader, round)).collect())
            .collect();
        reload_beside_sessions(&large_plan(1, false), &plans);
    }
}
