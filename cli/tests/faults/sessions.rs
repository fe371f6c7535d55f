//! Failures in commands that open and close sessions, and in commands that write or read their
//! history.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::machine::{HISTORY_DIRECTORY, on_test_machine};
use crate::sweep::{Scenario, sweep};

/// A state with open sessions, a drain and a reservation. The history lacks the latest events.
const SETUP: &[&str] = &[
    "up --no-probe --server any /run/farm/farm.toml",
    "session open 7 --user alice --client 192.0.2.7",
    "session open 8 --user bob",
    "drain fd77::102",
    "reserve 127.77.0.6 carol",
    "gc",
    "session close 8",
    "session open 9 --user dora",
    "session close 9",
];

const DEFAULT: Scenario<'static> = Scenario { setup: SETUP, ..Scenario::DEFAULT };

/// Writes an earlier part of the history that ended a hundred days ago, so `vipool gc` rotates the
/// history.
fn age_history() {
    let file = File::create(Path::new(HISTORY_DIRECTORY).join("history.log.1")).unwrap();
    let hundred_days = Duration::from_secs(100 * 24 * 3600);
    file.set_modified(SystemTime::now() - hundred_days).unwrap();
}

#[test]
fn failing_collection_loses_and_repeats_no_event() {
    on_test_machine("sessions::failing_collection_loses_and_repeats_no_event", || {
        let collect = Scenario { command: "gc", after: &[], ..DEFAULT };
        let rotate = Scenario { prepare_files: age_history, after: &["gc"], ..collect };
        assert!(sweep(&[collect, rotate]) > 200);
    });
}

#[test]
fn failing_session_commands_keep_every_session_and_address() {
    on_test_machine("sessions::failing_session_commands_keep_every_session_and_address", || {
        let open =
            Scenario { command: "session open 10 --user erik --client 192.0.2.10", ..DEFAULT };
        let close = Scenario { command: "session close --if-open 7", ..DEFAULT };
        let run = Scenario {
            command: "run --session 10 --require -- /bin/true",
            remaining_session: Some("10"),
            after: &["session close --if-open 10", "gc"],
            ..DEFAULT
        };
        assert!(sweep(&[open, close, run]) > 150);
    });
}

#[test]
fn failing_actions_of_administrators_are_completed_by_the_next_run() {
    on_test_machine(
        "sessions::failing_actions_of_administrators_are_completed_by_the_next_run",
        || {
            let commands = [
                "drain fd77::103 127.77.0.8",
                "undrain fd77::102",
                "drain --all",
                "reserve 127.77.0.10 erik",
                "unreserve 127.77.0.6",
            ];
            let scenario = Scenario { may_warn: false, after: &[], ..DEFAULT };
            let scenarios = commands.map(|command| Scenario { command, ..scenario });
            assert!(sweep(&scenarios) > 200);
        },
    );
}

#[test]
fn failing_reports_change_nothing() {
    on_test_machine("sessions::failing_reports_change_nothing", || {
        let commands = [
            "history --json",
            "who fd77::100",
            "reservations /run/farm/farm.toml",
            "metrics --output /run/vipool/metrics.prom",
        ];
        let scenarios = commands.map(|command| Scenario { command, after: &[], ..DEFAULT });
        assert!(sweep(&scenarios) > 100);
    });
}

#[test]
fn failing_run_in_a_private_map_is_completed_by_the_next_run() {
    on_test_machine("sessions::failing_run_in_a_private_map_is_completed_by_the_next_run", || {
        // The second program is not on the process list of the map, so the map is replaced.
        let replaced = Scenario {
            setup: &["run --private --session 1 --require -- /bin/pwd"],
            command: "run --private --session 2 --require -- /bin/true",
            after: &["session close --if-open 2 --private"],
            ..Scenario::DEFAULT
        };
        let first = Scenario { setup: &[], ..replaced };
        assert!(sweep(&[first, replaced]) > 100);
    });
}
