//! Tests that open and close sessions with `vipool session` and with `vipool run`. Also tests the
//! generated man pages and completions.

use crate::support::{PrivateMap, text, wait_for_line};
use std::process::Stdio;
use vipool_testing::ChildGuard;

#[test]
fn second_open_or_close_changes_nothing() {
    let private_map = PrivateMap::new();
    let open = || private_map.output(&["session", "open", "1", "--private"]);
    let close = |extra_arguments: &[&str]| {
        private_map.output(&[&["session", "close", "1", "--private"], extra_arguments].concat())
    };
    let first_output = text(&open().stdout);
    assert!(first_output.contains("Session 1 is open: 127."), "{first_output}");
    let second_output = text(&open().stdout);
    assert_eq!(second_output, first_output.replace("is open", "was already open"));
    assert_eq!(private_map.open_sessions(), ["1"]);

    let first_close = close(&[]);
    assert!(first_close.status.success());
    assert!(text(&first_close.stdout).contains("released 127."), "{first_close:?}");
    let second_close = close(&[]);
    assert_eq!(second_close.status.code(), Some(1));
    assert!(text(&second_close.stderr).contains("session 1 is not open"), "{second_close:?}");
    assert!(close(&["--if-open"]).status.success());
    assert!(private_map.open_sessions().is_empty());
}

#[test]
fn run_closes_only_the_session_it_opened() {
    let private_map = PrivateMap::new();
    let output = private_map.run_shell("1", "echo $VIPOOL_LEASE");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(text(&output.stdout).trim().split('.').count(), 5, "{output:?}");
    assert!(private_map.open_sessions().is_empty());

    private_map.output(&["session", "open", "1", "--private"]);
    let output = private_map.run_shell("1", "true");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(private_map.open_sessions(), ["1"]);
}

#[test]
fn second_program_joins_the_open_session() {
    let private_map = PrivateMap::new();
    let mut command = private_map.vipool(&["run", "--private", "-s", "1", "--", "sh", "-c"]);
    command.arg("echo $VIPOOL_LEASE; read line").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut first_run = ChildGuard::start(&mut command);
    let mut output = wait_for_line(first_run.0.stdout.take().unwrap(), ".");

    let same_session_output = private_map.run_shell("1", "true");
    assert!(same_session_output.status.success(), "{same_session_output:?}");
    assert_eq!(private_map.open_sessions(), ["1"]);
    let other_session_output = private_map.run_shell("2", "true");
    assert!(other_session_output.status.success(), "{other_session_output:?}");
    assert_eq!(private_map.open_sessions(), ["1"]);

    drop(first_run.0.stdin.take());
    first_run.0.wait().unwrap();
    std::io::copy(&mut output, &mut std::io::sink()).unwrap();
    assert!(private_map.open_sessions().is_empty());
}

#[test]
fn run_appends_to_ld_preload_and_sets_the_map() {
    let private_map = PrivateMap::new();
    let mut command = private_map.vipool(&["run", "--private", "-s", "1", "--", "env"]);
    let output = command.env("LD_PRELOAD", "libm.so.6").output().unwrap();
    let environment = text(&output.stdout);
    let preload_line = format!("LD_PRELOAD=libm.so.6:{}", vipool_testing::preload_path().display());
    assert!(environment.lines().any(|line| line == preload_line), "{environment}");
    let map_line = format!("VIPOOL_MAP={}", private_map.map_directory().display());
    assert!(environment.lines().any(|line| line == map_line), "{environment}");
}

#[test]
fn program_run_without_farm_stays_listed() {
    let private_map = PrivateMap::new();
    let mut command = private_map.vipool(&["run", "--private", "-s", "1", "--", "cat"]);
    let mut first_run = ChildGuard::start(command.stdin(Stdio::piped()).stdout(Stdio::piped()));
    // When the program prints a line, the map exists.
    use std::io::Write;
    first_run.0.stdin.as_mut().unwrap().write_all(b"hello\n").unwrap();
    let _output = wait_for_line(first_run.0.stdout.take().unwrap(), "hello");
    assert!(private_map.run_shell("2", "true").status.success());
    let inputs =
        std::fs::read_to_string(private_map.map_directory().join("map-inputs.json")).unwrap();
    let map_inputs = serde_json::from_str::<serde_json::Value>(&inputs).unwrap();
    assert_eq!(map_inputs["programs"].as_array().unwrap().len(), 2, "{inputs}");
    assert_eq!(private_map.open_sessions(), ["1"]);
}

#[test]
fn later_run_closes_the_session_of_a_killed_run() {
    let private_map = PrivateMap::new();
    let mut killed_run = private_map.vipool(&["run", "--private", "-s", "1", "--", "sh", "-c"]);
    killed_run.arg("kill -9 $PPID");
    killed_run.output().unwrap();
    assert_eq!(private_map.open_sessions(), ["1"]);
    // One run finds the leader dead. A run ten or more seconds later closes the session.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while private_map.open_sessions().contains(&"1".to_owned()) {
        assert!(std::time::Instant::now() < deadline, "the session stays open");
        assert!(private_map.run_shell("2", "true").status.success());
        std::thread::sleep(std::time::Duration::from_millis(500));
    }
}

#[test]
fn man_pages_and_completions_are_generated() {
    let private_map = PrivateMap::new();
    let pages = private_map.path().join("man");
    assert!(private_map.output(&["man", pages.to_str().unwrap()]).status.success());
    let page = std::fs::read_to_string(pages.join("vipool-run.1")).unwrap();
    assert!(page.contains("Exit status"), "{page}");
    assert!(!pages.join("vipool-as-user.1").exists());
    for shell in ["bash", "zsh", "fish"] {
        let script = text(&private_map.output(&["completions", shell]).stdout);
        assert!(script.contains("undrain"), "{shell}");
    }
}
