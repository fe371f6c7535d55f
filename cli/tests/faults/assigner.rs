//! Failures in `vipool up`, `vipool down` and `vipool repair`.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use crate::machine::{MAP_DIRECTORY, on_test_machine};
use crate::sweep::{Scenario, sweep};

const UP: &str = "up --no-probe --server any /run/farm/farm.toml";

/// A state with open sessions, drains and a reservation.
const SETUP: &[&str] = &[
    UP,
    "session open 7 --user alice --client 192.0.2.7",
    "session open 8 --user bob",
    "drain fd77::102",
    "drain --all",
    "reserve 127.77.0.6 carol",
];

#[test]
fn failing_up_is_completed_by_the_next_up() {
    on_test_machine("assigner::failing_up_is_completed_by_the_next_up", || {
        let setup = &[SETUP, &["down --force"]].concat();
        let completed = Scenario { setup, command: UP, ..Scenario::DEFAULT };
        assert!(sweep(&[completed]) > 200);
    });
}

#[test]
fn failing_up_is_reverted_by_down() {
    on_test_machine("assigner::failing_up_is_reverted_by_down", || {
        let setup = &[SETUP, &["down --force"]].concat();
        let reverted = Scenario {
            setup,
            command: UP,
            then: Some("down"),
            after: &["down"],
            ..Scenario::DEFAULT
        };
        assert!(sweep(&[reverted]) > 200);
    });
}

#[test]
fn failing_reload_keeps_every_session() {
    on_test_machine("assigner::failing_reload_keeps_every_session", || {
        let reload = Scenario {
            setup: SETUP,
            before: &[UP],
            command: "up --no-probe --server any /run/farm/smaller.toml",
            after: &[],
            ..Scenario::DEFAULT
        };
        assert!(sweep(&[reload]) > 200);
    });
}

#[test]
fn failing_down_is_completed_by_the_next_down() {
    on_test_machine("assigner::failing_down_is_completed_by_the_next_down", || {
        let keeps_sessions = Scenario {
            setup: SETUP,
            before: &[UP],
            command: "down",
            after: &[],
            ..Scenario::DEFAULT
        };
        let forced =
            Scenario { command: "down --force", after: &["down", UP, "gc"], ..keeps_sessions };
        let setup = &[SETUP, &["session close 7", "session close 8"]].concat();
        let removes_map = Scenario { setup, after: &["down", UP, "gc"], ..keeps_sessions };
        assert!(sweep(&[keeps_sessions, forced, removes_map]) > 400);
    });
}

/// Overwrites the start of the map.
fn damage_map() {
    let path = Path::new(MAP_DIRECTORY).join("map");
    File::options().write(true).open(path).unwrap().write_all(b"damaged").unwrap();
}

/// Shortens the map, so that it contains no lease. The history contains the leases.
fn truncate_map() {
    let path = Path::new(MAP_DIRECTORY).join("map");
    File::options().write(true).open(path).unwrap().set_len(100).unwrap();
}

#[test]
fn failing_repair_keeps_readable_leases() {
    on_test_machine("assigner::failing_repair_keeps_readable_leases", || {
        let repair = Scenario {
            setup: SETUP,
            prepare_files: damage_map,
            command: "repair --server any /run/farm/farm.toml",
            ..Scenario::DEFAULT
        };
        let loses_leases = Scenario { prepare_files: truncate_map, exit_status: 1, ..repair };
        assert!(sweep(&[repair, loses_leases]) > 200);
    });
}
