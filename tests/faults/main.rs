//! Tests of failing system calls and of exhausted memory: no lease is lost or allocated twice.
//!
//! A sequence of operations runs again and again. Run N injects the fault into the Nth eligible
//! call of the C library. The last run has no fault. A lease is acknowledged if its open succeeded
//! and no close of its session succeeded. After each run, a new writer must find exactly the
//! acknowledged leases.
#![cfg(target_os = "linux")]

mod interpose;
mod memory;
#[path = "../crash/process.rs"]
#[allow(dead_code)]
mod process;
#[path = "../crash/recovery.rs"]
#[allow(dead_code)]
mod recovery;
#[cfg(feature = "capi")]
mod through_c;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use interpose::{Fault, error_text, with_fault};
use recovery::{TestDirectory, all_leases, recover_copy, session_id};
use vipool::farm::Farm;
use vipool::map::{Journal, Map, OpenOptions, Plan};
use vipool::session::Handle;
use vipool::{Tick, client_file};

/// Returns a farm.toml with the virtual IPs from 10.0.0.1 to 10.0.0.`last_octet`.
fn farm_text(last_octet: u8) -> String {
    let last_loopback_octet = 2 * last_octet;
    format!(
        "[[range]]\naddresses = \"10.0.0.1-10.0.0.{last_octet}\"\n\
         [loopback]\nranges = [\"127.77.0.1-127.77.0.{last_loopback_octet}\"]\n"
    )
}

/// Returns the plan of a server in the farm of [`farm_text`].
fn plan(last_octet: u8) -> Plan {
    let (farm, report) = Farm::parse(&farm_text(last_octet));
    assert!(!report.has_errors(), "{report:?}");
    farm.plan("server", None).plan
}

/// The results of the operations of a run.
#[derive(Default)]
struct Outcome {
    /// The handles and users of the open sessions, by session number.
    open_sessions: BTreeMap<u64, (Handle, String)>,
    has_map: bool,
    /// The errors of failed operations.
    errors: Vec<String>,
}

impl Outcome {
    fn record<T, E: std::fmt::Display>(&mut self, result: Result<T, E>) -> Option<T> {
        result.map_err(|error| self.errors.push(error.to_string())).ok()
    }

    fn open(&mut self, map: &Map, number: u64, now: u32) {
        let user = format!("user{number}");
        let options = OpenOptions::new().with_user(user.as_str());
        let result = map.open_session(session_id(number), &options, Tick::from_secs(now));
        if let Some(opened) = self.record(result) {
            self.open_sessions.insert(number, (opened.handle, user));
        }
    }

    fn close(&mut self, map: &Map, number: u64, now: u32) {
        if let Some((handle, _)) = self.open_sessions.get(&number).cloned()
            && self.record(map.close_by_handle(&handle, Tick::from_secs(now))).is_some()
        {
            self.open_sessions.remove(&number);
        }
    }
}

/// Runs the operations of an agent and of an administrator.
fn run_operations(directory: &Path) -> Outcome {
    let mut outcome = Outcome::default();
    let now = Tick::from_secs(1);
    let create_result = Map::create_at(directory, &plan(8), now);
    outcome.has_map = create_result.is_ok();
    let map = outcome.record(create_result);
    let map = map.or_else(|| outcome.record(Map::open(directory)));
    if let Some(map) = &map {
        outcome.has_map = true;
        outcome.open(map, 1, 2);
        outcome.open(map, 2, 3);
        outcome.close(map, 1, 4);
        let save_result = map.save_users(&directory.join("last-users"));
        outcome.record(save_result);
        if let Some((handle, _)) = outcome.open_sessions.get(&2).cloned() {
            let address = "192.0.2.7".parse().unwrap();
            let write_result = client_file::write(directory, &handle, address, None);
            outcome
                .record(write_result.map_err(|error| format!("{}: {error}", directory.display())));
        }
    }
    let reload_result = Map::create_at(directory, &plan(9), Tick::from_secs(5));
    let reloaded_map = outcome.record(reload_result);
    outcome.has_map |= reloaded_map.is_some();
    // `map` was opened before the reload. Its next operation switches to the new map.
    for (map, number) in [&map, &reloaded_map].into_iter().flatten().zip(3..) {
        outcome.open(map, number, 6);
    }
    if let Some(mut agent) = outcome.record(Map::open(directory)) {
        let lock_result = agent.lock_exclusive();
        if outcome.record(lock_result).is_some() {
            outcome.open(&agent, 5, 7);
            outcome.close(&agent, 2, 8);
        }
    }
    // If the first reload succeeded, this plan equals the plan of the map, so the files stay in
    // place.
    let second_reload_result = Map::create_at(directory, &plan(9), Tick::from_secs(9));
    if let Some(map) = outcome.record(second_reload_result) {
        outcome.has_map = true;
        outcome.record(map.restore_users(&directory.join("last-users"), Tick::from_secs(9)));
        outcome.open(&map, 6, 9);
    }
    outcome
}

/// Checks that a new writer finds exactly the acknowledged leases, and that a reload succeeds.
fn check_leases(directory: &Path, outcome: &Outcome, context: &str) {
    let map = match Map::open(directory) {
        Err(error) if !outcome.has_map => {
            return assert!(outcome.open_sessions.is_empty(), "{error}");
        }
        map => map.unwrap_or_else(|error| panic!("{context}: {error}")),
    };
    let leases = all_leases(&map);
    let rows = map.sessions().unwrap();
    let found_users: BTreeMap<_, _> =
        rows.iter().map(|row| (row.session, row.user.clone().unwrap_or_default())).collect();
    let expected_users: BTreeMap<_, _> = outcome
        .open_sessions
        .iter()
        .map(|(number, (_, user))| (session_id(*number), user.clone()))
        .collect();
    assert_eq!(found_users, expected_users, "{context}: {:?}", outcome.errors);
    let reader = map.reader().unwrap();
    assert!(outcome.open_sessions.values().all(|(handle, _)| reader.is_live(handle)), "{context}");
    let events = Journal::open(directory).unwrap().since(1);
    let has_event =
        |number: &u64| events.events.iter().any(|event| event.session == session_id(*number));
    assert!(outcome.open_sessions.keys().all(has_event), "{context}: events are lost");
    drop(map);
    let read_file = |name| fs::read(directory.join(name)).unwrap_or_default();
    let sessions = read_file("sessions");
    let sessions = if sessions.is_empty() { read_file("sessions.new") } else { sessions };
    assert_eq!(recover_copy(&read_file("map"), &sessions), leases, "{context}");
    let map = Map::create_at(directory, &plan(10), Tick::from_secs(20)).unwrap();
    assert_eq!(all_leases(&map), leases, "{context}");
    map.open_session(session_id(7), &OpenOptions::new(), Tick::from_secs(20)).unwrap();
    for entry in fs::read_dir(directory).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(!["map.new", "sessions.new"].contains(&name.as_str()), "{context}: {name} remains");
    }
}

/// Runs `operations` again and again, until a run has no fault. Each run has a new directory.
/// `check_errors` checks the error messages of a run. Returns the number of runs with a fault.
fn sweep(
    fault: Fault,
    operations: impl Fn(&Path) -> Outcome,
    check_errors: impl Fn(&Outcome, &Path, &str),
) -> u32 {
    for call_number in 1.. {
        let directory = TestDirectory::new(&format!("fault-{fault:?}-{call_number}"));
        let mut outcome = Outcome::default();
        let hit_function = with_fault(fault, call_number, || outcome = operations(&directory.0));
        let context = format!("{fault:?} at call {call_number}, {hit_function:?}");
        check_errors(&outcome, &directory.0, &context);
        check_leases(&directory.0, &outcome, &context);
        if hit_function.is_none() {
            assert_no_errors(&outcome, &directory.0, &context);
            return call_number - 1;
        }
    }
    unreachable!("a run without a fault ends the sweep")
}

fn assert_no_errors(outcome: &Outcome, _: &Path, context: &str) {
    assert_eq!(outcome.errors, [""; 0], "{context}");
}

/// Checks that each error message contains the text of `error` and the path of the directory.
fn assert_errors_name(error: i32, outcome: &Outcome, directory: &Path, context: &str) {
    for message in &outcome.errors {
        let has_path_and_error =
            message.contains(&error_text(error)) && message.contains(directory.to_str().unwrap());
        // After a failed creation, the following operations find no map.
        assert!(has_path_and_error || message.contains("no map"), "{context}: {message}");
    }
}

/// Lets one call fail with this error in each run. Returns the number of runs with a fault.
fn sweep_error(error: i32) -> u32 {
    sweep(Fault::Error(error), run_operations, |outcome, directory, context| {
        assert_errors_name(error, outcome, directory, context);
    })
}

#[test]
fn input_output_error_at_any_call_loses_nothing() {
    assert!(sweep_error(libc::EIO) > 100);
}

#[test]
fn full_file_system_at_any_call_loses_nothing() {
    assert!(sweep_error(libc::ENOSPC) > 100);
}

#[test]
fn exhausted_kernel_memory_at_any_call_loses_nothing() {
    assert!(sweep_error(libc::ENOMEM) > 100);
}

#[test]
fn interrupted_calls_are_repeated() {
    assert!(sweep(Fault::Interrupt, run_operations, assert_no_errors) > 30);
}

#[test]
fn short_transfers_are_continued() {
    assert!(sweep(Fault::ShortTransfer, run_operations, assert_no_errors) > 3);
}
