//! Tests of `vipool run` when no address is available.

use std::path::Path;
use std::process::Stdio;

use vipool::map::{ExhaustionPolicy, Map, OpenOptions, Plan, Settings};
use vipool::pool::{Pool, PoolKind};
use vipool::{EXHAUSTED_MESSAGE, Tick};
use vipool_testing::ChildGuard;

use crate::support::{PrivateMap, text, wait_for_line};

/// Starts a program in session 1. The session holds the only address until the standard input of
/// the program is closed.
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
    // Close session 1. Session 2 must get its address, whether the second `vipool run` is already
    // waiting for an address or has not started yet.
    drop(holder.0.stdin.take());
    holder.0.wait().unwrap();
    wait_for_line(waiting_run.0.stdout.take().unwrap(), "lease=05");
    assert!(waiting_run.0.wait().unwrap().success());
}

/// Creates a map with one virtual IP, which session 1 holds, and free loopback addresses.
fn map_without_free_virtual_ip(
    directory: &Path,
    exhausted: ExhaustionPolicy,
    max_sessions: u32,
) -> Map {
    let pool = |name, kind, range: &str| {
        Pool::new(name, kind, &[range.parse().unwrap()], u32::MAX).unwrap()
    };
    let plan = Plan::new([
        pool("default", PoolKind::VirtualIp, "10.77.0.10-10.77.0.10"),
        pool("loopback", PoolKind::Loopback, "127.98.0.2-127.98.0.99"),
    ]);
    let settings =
        Settings::without_cool_down().with_on_exhausted(exhausted).with_max_sessions(max_sessions);
    let map = Map::create(directory, &plan.with_settings(settings)).unwrap();
    let first = map.open_session("1".parse().unwrap(), &OpenOptions::new(), Tick::now()).unwrap();
    assert_eq!(first.shortage, None);
    map
}

#[test]
fn session_without_a_required_virtual_ip_is_refused() {
    let private_map = PrivateMap::new();
    let directory = private_map.path().to_str().unwrap();
    let run_arguments = ["run", "--map", directory, "-s", "2"];
    let open_arguments = ["session", "open", "3", "--map", directory];
    let code_and_output = |arguments: &[&str]| {
        let output = private_map.output(arguments);
        (output.status.code(), text(&output.stdout))
    };
    let refused = (Some(75), String::new());

    let map = map_without_free_virtual_ip(private_map.path(), ExhaustionPolicy::Refuse, 0);
    assert_eq!(code_and_output(&[&run_arguments[..], &["--", "echo", "ran"]].concat()), refused);
    assert_eq!(code_and_output(&open_arguments), refused);
    assert_eq!(map.sessions().unwrap().len(), 1, "the refused sessions were closed");

    let map = map_without_free_virtual_ip(private_map.path(), ExhaustionPolicy::Pass, 0);
    assert_eq!(
        code_and_output(&[&run_arguments[..], &["--require", "--", "echo", "ran"]].concat()),
        refused
    );
    assert_eq!(map.sessions().unwrap().len(), 1, "the refused session was closed");
    let passed = (Some(0), "ran\n".to_owned());
    assert_eq!(code_and_output(&[&run_arguments[..], &["--", "echo", "ran"]].concat()), passed);
    assert_eq!(code_and_output(&open_arguments).0, Some(0));
    assert_eq!(map.sessions().unwrap().len(), 2);
}

#[test]
fn maximum_of_sessions_is_treated_like_exhaustion() {
    let private_map = PrivateMap::new();
    let directory = private_map.path().to_str().unwrap();
    map_without_free_virtual_ip(private_map.path(), ExhaustionPolicy::Refuse, 1);
    for arguments in [
        &["run", "--map", directory, "-s", "2", "--", "echo", "ran"][..],
        &["session", "open", "3", "--map", directory],
    ] {
        let output = private_map.output(arguments);
        assert_eq!(output.status.code(), Some(75), "{output:?}");
        assert!(text(&output.stderr).contains("(max-sessions in farm.toml)"), "{output:?}");
        assert!(output.stdout.is_empty(), "{output:?}");
    }
}
