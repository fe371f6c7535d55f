//! Kills processes at random times while they reload the map, and opens and closes sessions
//! meanwhile.

use std::fs;
use std::path::Path;
use std::time::Duration;

use vipool::Tick;
use vipool::map::{Map, MapError, OpenOptions, Plan, Settings};
use vipool::pool::{Pool, PoolKind};

use crate::operations::Random;
use crate::process::Child;
use crate::recovery::{LeaseTable, TestDirectory, all_leases, recover_copy, session_id};

const RELOADER_COUNT: usize = 2;
const SESSION_COUNT: u64 = 12;

/// Returns one of several plans. Numbers that differ by less than four have different plans. A
/// reload from an odd number to an even number drops a pool.
pub fn plan(number: u64, slot_count: u32) -> Plan {
    let pool = |name, kind, range: &str, max_slots| {
        Pool::new(name, kind, &[range.parse().unwrap()], max_slots).unwrap()
    };
    let mut pools = vec![
        pool("default", PoolKind::VirtualIp, "10.0.0.0/8", slot_count),
        pool("default", PoolKind::Loopback, "127.77.0.0/26", u32::MAX),
    ];
    if !number.is_multiple_of(2) {
        pools.push(pool("default", PoolKind::VirtualIp, "2001:db8::/124", u32::MAX));
    }
    let settings = Settings::without_cool_down().with_low_water((number % 4) as u32);
    Plan::new(pools).with_settings(settings)
}

/// Opens or closes a random session.
pub fn change_random_session(map: &Map, random: &mut Random, now: u32) {
    let session = session_id(random.below(SESSION_COUNT) + 1);
    let options = OpenOptions::new().with_user("ann");
    match random.below(2) {
        0 => drop(map.open_session(session, &options, Tick::from_secs(now)).unwrap()),
        _ => drop(map.close_session(session, Tick::from_secs(now))),
    }
}

/// Returns the leases. All sessions of these tests have a user. A read without the writer lock finds
/// no users if a reload replaces the map between the opening of its two files, so this function
/// repeats such a read.
fn leases_with_users(map: &Map) -> LeaseTable {
    for _ in 0..1000 {
        let leases = all_leases(map);
        if leases.values().all(|record| record.user.is_some()) {
            return leases;
        }
    }
    panic!("the users of the map are lost");
}

/// Reloads the map until the test kills this process.
fn run_reloader(directory: &Path, seed: u64, slot_count: u32) {
    let mut random = Random::new(seed);
    loop {
        let number = random.below(4);
        match Map::create_at(directory, &plan(number, slot_count), Tick::from_secs(1)) {
            // The test and the other reloader can hold the writer lock in turns.
            Ok(_) | Err(MapError::Busy { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// Checks the map after a reloader was killed: it has exactly these leases. Checks a copy of the
/// files, too, as the next writer finds them.
fn check_map(directory: &Path, map: &Map, leases: &LeaseTable) {
    assert_eq!(all_leases(map), *leases);
    let read_file = |name| fs::read(directory.join(name)).unwrap_or_default();
    assert_eq!(recover_copy(&read_file("map"), &read_file("sessions")), *leases);
}

/// Kills reloaders at random times in `round_count` rounds.
fn kill_reloaders(name: &str, slot_count: u32, round_count: u32, max_delay: Duration) {
    let directory = TestDirectory::new(name);
    let mut random = Random::from_environment();
    let map = Map::create_at(&directory.0, &plan(0, slot_count), Tick::from_secs(1)).unwrap();
    let mut seeds = Random::new(random.below(u32::MAX.into()));
    let mut start_reloader = || {
        let seed = seeds.below(u32::MAX.into());
        Child::start(|| run_reloader(&directory.0, seed, slot_count))
    };
    let mut reloaders: Vec<Child> = (0..RELOADER_COUNT).map(|_| start_reloader()).collect();
    for round in 0..round_count {
        for _ in 0..random.below(8) {
            change_random_session(&map, &mut random, 1);
        }
        let leases = leases_with_users(&map);
        let max_microseconds = max_delay.as_micros() as u64;
        std::thread::sleep(Duration::from_micros(random.below(max_microseconds)));
        let reloader = &mut reloaders[random.below(RELOADER_COUNT as u64) as usize];
        assert_eq!(reloader.poll(), None, "a reload failed");
        reloader.kill();
        assert_eq!(leases_with_users(&map), leases);
        change_random_session(&map, &mut random, 1);
        if round % 8 == 0 {
            // Kill all reloaders, so that the next reload finds the files of a killed process.
            reloaders.iter_mut().for_each(Child::kill);
            let leases = all_leases(&map);
            let number = random.below(4);
            let reloaded_map =
                Map::create_at(&directory.0, &plan(number, slot_count), Tick::from_secs(1))
                    .unwrap();
            assert_eq!(all_leases(&reloaded_map), leases);
            check_map(&directory.0, &map, &leases);
            for name in ["map.new", "sessions.new"] {
                assert!(!directory.0.join(name).exists(), "{name} remains");
            }
            reloaders = (0..RELOADER_COUNT).map(|_| start_reloader()).collect();
        } else {
            *reloader = start_reloader();
        }
    }
}

#[test]
fn kill_during_a_reload_loses_no_lease_and_doubles_none() {
    let round_count = vipool_testing::effort(400, 20_000);
    kill_reloaders("kill-reload", 20, round_count, Duration::from_millis(8));
}

#[test]
fn kill_during_a_reload_of_a_large_map_loses_no_lease_and_doubles_none() {
    let round_count = vipool_testing::effort(60, 3_000);
    kill_reloaders("kill-large-reload", 20_000, round_count, Duration::from_millis(200));
}
