//! Tests of `vipool run` when no address is available.

use std::path::Path;
use std::process::Stdio;

use vipool::EXHAUSTED_MESSAGE;
use vipool_testing::ChildGuard;

use crate::support::{PrivateMap, text, wait_for_line};

/// Starts a session that holds the only address until its standard input is closed.
fn start_holder(private_map: &PrivateMap, farm: &str) -> ChildGuard {
    let mut command =
        private_map.vipool(&["run", "--private", "--farm", farm, "-s", "1", "--", "sh"]);
    command.args(["-c", "echo ready; read line"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut holder = ChildGuard::start(&mut command);
    wait_for_line(holder.0.stdout.take().unwrap(), "ready");
    holder
}

const PROGRAM: [&str; 3] = ["sh", "-c", "echo lease=$VIPOOL_LEASE preload=$LD_PRELOAD"];

#[test]
fn user_gets_the_message_and_the_program_runs_outside_the_session() {
    let private_map = PrivateMap::new();
    let farm = private_map.write_farm(1, "pass", Path::new("/bin/sh"));
    let _holder = start_holder(&private_map, &farm);
    let run_arguments = ["run", "--private", "--farm", &farm, "-s", "2"];
    let output = private_map.output(&[&run_arguments[..], &["--"], &PROGRAM].concat());
    assert_eq!(text(&output.stderr), format!("{EXHAUSTED_MESSAGE}\n"));
    assert_eq!(text(&output.stdout), "lease= preload=\n");
    assert_eq!(output.status.code(), Some(0));

    let output = private_map.output(&[&run_arguments[..], &["--require", "--"], &PROGRAM].concat());
    assert_eq!(output.status.code(), Some(75), "{output:?}");
    assert!(output.stdout.is_empty());
    assert_eq!(private_map.open_sessions(), ["1"]);
}

#[test]
fn refuse_policy_does_not_run_the_program() {
    let private_map = PrivateMap::new();
    let farm = private_map.write_farm(1, "refuse", Path::new("/bin/sh"));
    let _holder = start_holder(&private_map, &farm);
    let run_arguments = ["run", "--private", "--farm", &farm, "-s", "2", "--"];
    let output = private_map.output(&[&run_arguments[..], &PROGRAM].concat());
    assert_eq!(output.status.code(), Some(75), "{output:?}");
    assert_eq!(text(&output.stderr), format!("{EXHAUSTED_MESSAGE}\n"));
    assert!(output.stdout.is_empty());
}

#[test]
fn wait_policy_waits_for_an_address() {
    let private_map = PrivateMap::new();
    let farm = private_map.write_farm(1, "wait 60s", Path::new("/bin/sh"));
    let mut holder = start_holder(&private_map, &farm);
    let mut command = private_map.vipool(&["run", "--private", "--farm", &farm, "-s", "2", "--"]);
    let mut waiting_run = ChildGuard::start(command.args(PROGRAM).stdout(Stdio::piped()));
    // The second session may not wait yet. In both cases, the second session gets the address of the
    // first session.
    drop(holder.0.stdin.take());
    holder.0.wait().unwrap();
    wait_for_line(waiting_run.0.stdout.take().unwrap(), "lease=05");
    assert!(waiting_run.0.wait().unwrap().success());
}
