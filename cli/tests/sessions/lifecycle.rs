//! Opening, closing, and who closes what.

use crate::support::{Place, text, wait_for_line};
use std::process::Stdio;
use vipool_testing::ChildGuard;

#[test]
fn opening_and_closing_twice_changes_nothing_and_says_so() {
    let place = Place::new();
    let open = || place.output(&["session", "open", "1", "--private"]);
    let close =
        |more: &[&str]| place.output(&[&["session", "close", "1", "--private"], more].concat());
    let first = text(&open().stdout);
    assert!(first.contains("Session 1 is open: 127."), "{first}");
    let second = text(&open().stdout);
    assert_eq!(second, first.replace("is open", "was already open"));
    assert_eq!(place.open_sessions(), ["1"]);

    let closed = close(&[]);
    assert!(closed.status.success());
    assert!(text(&closed.stdout).contains("released 127."), "{closed:?}");
    let again = close(&[]);
    assert_eq!(again.status.code(), Some(1));
    assert!(text(&again.stderr).contains("session 1 is not open"), "{again:?}");
    assert!(close(&["--if-open"]).status.success());
    assert!(place.open_sessions().is_empty());
}

#[test]
fn run_closes_what_it_opened_and_nothing_else() {
    let place = Place::new();
    let output = place.sh("1", "echo $VIPOOL_LEASE");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(text(&output.stdout).trim().split('.').count(), 5, "{output:?}");
    assert!(place.open_sessions().is_empty());

    place.output(&["session", "open", "1", "--private"]);
    let output = place.sh("1", "true");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(place.open_sessions(), ["1"]);
}

#[test]
fn a_second_program_joins_the_session_that_runs() {
    let place = Place::new();
    let mut first = place.vipool(&["run", "--private", "-s", "1", "--", "sh", "-c"]);
    first.arg("echo $VIPOOL_LEASE; read line").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut first = ChildGuard::start(&mut first);
    let mut output = wait_for_line(first.0.stdout.take().unwrap(), ".");

    let second = place.sh("1", "true");
    assert!(second.status.success(), "{second:?}");
    assert_eq!(place.open_sessions(), ["1"]);
    let other = place.sh("2", "true");
    assert!(other.status.success(), "{other:?}");
    assert_eq!(place.open_sessions(), ["1"]);

    drop(first.0.stdin.take());
    first.0.wait().unwrap();
    std::io::copy(&mut output, &mut std::io::sink()).unwrap();
    assert!(place.open_sessions().is_empty());
}

#[test]
fn what_was_preloaded_stays_and_the_map_is_told() {
    let place = Place::new();
    let mut command = place.vipool(&["run", "--private", "-s", "1", "--", "env"]);
    let output = command.env("LD_PRELOAD", "libm.so.6").output().unwrap();
    let environment = text(&output.stdout);
    let preload = format!("LD_PRELOAD=libm.so.6:{}", vipool_testing::preload_path().display());
    assert!(environment.lines().any(|line| line == preload), "{environment}");
    let map = format!("VIPOOL_MAP={}", place.map().display());
    assert!(environment.lines().any(|line| line == map), "{environment}");
}

#[test]
fn a_program_run_without_a_farm_is_listed_and_stays_so() {
    let place = Place::new();
    let mut first = place.vipool(&["run", "--private", "-s", "1", "--", "cat"]);
    let mut first = ChildGuard::start(first.stdin(Stdio::piped()).stdout(Stdio::piped()));
    // The map is there once the program answers.
    use std::io::Write;
    first.0.stdin.as_mut().unwrap().write_all(b"hello\n").unwrap();
    let _output = wait_for_line(first.0.stdout.take().unwrap(), "hello");
    assert!(place.sh("2", "true").status.success());
    let inputs = std::fs::read_to_string(place.map().join("map-inputs.json")).unwrap();
    let programs = serde_json::from_str::<serde_json::Value>(&inputs).unwrap();
    assert_eq!(programs["programs"].as_array().unwrap().len(), 2, "{inputs}");
    assert_eq!(place.open_sessions(), ["1"]);
}

#[test]
fn a_private_session_whose_run_was_killed_is_closed_by_a_later_one() {
    let place = Place::new();
    let mut killed = place.vipool(&["run", "--private", "-s", "1", "--", "sh", "-c"]);
    killed.arg("kill -9 $PPID");
    killed.output().unwrap();
    assert_eq!(place.open_sessions(), ["1"]);
    // Seen dead now, and closed once that is some seconds ago.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while place.open_sessions().contains(&"1".to_owned()) {
        assert!(std::time::Instant::now() < deadline, "it stays open");
        assert!(place.sh("2", "true").status.success());
        std::thread::sleep(std::time::Duration::from_millis(500));
    }
}

#[test]
fn pages_and_completions_are_written() {
    let place = Place::new();
    let pages = place.path().join("man");
    assert!(place.output(&["man", pages.to_str().unwrap()]).status.success());
    let page = std::fs::read_to_string(pages.join("vipool-run.1")).unwrap();
    assert!(page.contains("Exit status"), "{page}");
    assert!(!pages.join("vipool-as-user.1").exists());
    for shell in ["bash", "zsh", "fish"] {
        let script = text(&place.output(&["completions", shell]).stdout);
        assert!(script.contains("undrain"), "{shell}");
    }
}
