//! When no address is left.

use std::path::Path;
use std::process::Stdio;

use vipool::EXHAUSTED_MESSAGE;
use vipool_testing::ChildGuard;

use crate::support::{Place, text, wait_for_line};

/// A session that holds the only address until its standard input is closed.
fn holder(place: &Place, farm: &str) -> ChildGuard {
    let mut command = place.vipool(&["run", "--private", "--farm", farm, "-s", "1", "--", "sh"]);
    command.args(["-c", "echo ready; read line"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut running = ChildGuard::start(&mut command);
    wait_for_line(running.0.stdout.take().unwrap(), "ready");
    running
}

const PROGRAM: [&str; 3] = ["sh", "-c", "echo lease=$VIPOOL_LEASE preload=$LD_PRELOAD"];

#[test]
fn the_user_is_told_and_the_program_runs_untouched() {
    let place = Place::new();
    let farm = place.farm(1, "pass", Path::new("/bin/sh"));
    let _holder = holder(&place, &farm);
    let run = ["run", "--private", "--farm", &farm, "-s", "2"];
    let output = place.output(&[&run[..], &["--"], &PROGRAM].concat());
    assert_eq!(text(&output.stderr), format!("{EXHAUSTED_MESSAGE}\n"));
    assert_eq!(text(&output.stdout), "lease= preload=\n");
    assert_eq!(output.status.code(), Some(0));

    let output = place.output(&[&run[..], &["--require", "--"], &PROGRAM].concat());
    assert_eq!(output.status.code(), Some(75), "{output:?}");
    assert!(output.stdout.is_empty());
    assert_eq!(place.open_sessions(), ["1"]);
}

#[test]
fn a_farm_may_refuse() {
    let place = Place::new();
    let farm = place.farm(1, "refuse", Path::new("/bin/sh"));
    let _holder = holder(&place, &farm);
    let run = ["run", "--private", "--farm", &farm, "-s", "2", "--"];
    let output = place.output(&[&run[..], &PROGRAM].concat());
    assert_eq!(output.status.code(), Some(75), "{output:?}");
    assert_eq!(text(&output.stderr), format!("{EXHAUSTED_MESSAGE}\n"));
    assert!(output.stdout.is_empty());
}

#[test]
fn a_farm_may_let_sessions_wait() {
    let place = Place::new();
    let farm = place.farm(1, "wait 60s", Path::new("/bin/sh"));
    let mut first = holder(&place, &farm);
    let mut second = place.vipool(&["run", "--private", "--farm", &farm, "-s", "2", "--"]);
    let mut second = ChildGuard::start(second.args(PROGRAM).stdout(Stdio::piped()));
    // It is waiting, or has not come to it yet; in both cases it gets what the first gives back.
    drop(first.0.stdin.take());
    first.0.wait().unwrap();
    wait_for_line(second.0.stdout.take().unwrap(), "lease=05");
    assert!(second.0.wait().unwrap().success());
}
