//! Bad input: a clear error, the program still runs, and no session is lost.

use std::process::{Command, Output};

use crate::support::{Place, text};
use vipool_testing::have;

/// Runs a program with a broken something; it is to run, outside the session.
fn runs_untouched(output: &Output, said: &[&str]) {
    let errors = text(&output.stderr);
    for word in said {
        assert!(errors.contains(word), "{word:?} is not in {errors:?}");
    }
    assert_eq!(text(&output.stdout), "lease=\n", "{errors}");
    assert_eq!(output.status.code(), Some(0), "{errors}");
}

const PROGRAM: [&str; 4] = ["--", "sh", "-c", "echo lease=$VIPOOL_LEASE"];

#[test]
fn farm_files_that_cannot_be_used() {
    let place = Place::new();
    place.output(&["session", "open", "1", "--private"]);
    let half = "[loopback]\naddresses = \"127.77.0.0/24\"\n\n[[program]]\npath = \"/usr/bi";
    let half = place.write("half.toml", half);
    let unknown = place.write("unknown.toml", "[sessions]\ncooldown = 5\n");
    let directory = place.path().to_owned();
    let missing = place.path().join("missing.toml");
    for (farm, said) in [
        (&half, "5"),
        (&unknown, "cool-down"),
        (&directory, "directory"),
        (&missing, "No such file"),
    ] {
        let farm = farm.to_str().unwrap();
        let run = ["run", "--private", "-s", "2", "--farm", farm];
        let output = place.output(&[&run[..], &PROGRAM].concat());
        runs_untouched(&output, &[farm, said, "outside the session"]);
        let output = place.output(&[&run[..], &["--require"], &PROGRAM].concat());
        assert_eq!(output.status.code(), Some(125), "{output:?}");
        assert!(output.stdout.is_empty());
    }
    assert_eq!(place.open_sessions(), ["1"]);
    assert!(text(&place.sh("1", "echo $VIPOOL_LEASE").stdout).starts_with("05"));
}

#[test]
fn a_map_that_is_damaged() {
    let place = Place::new();
    place.output(&["session", "open", "1", "--private"]);
    let map = place.map().join("map");
    let whole = std::fs::read(&map).unwrap();
    // In place: a file that is in use is never resized.
    std::fs::write(&map, vec![0xa5; whole.len()]).unwrap();
    let run = ["run", "--private", "-s", "1"];
    let output = place.output(&[&run[..], &PROGRAM].concat());
    runs_untouched(&output, &["map", "not a usable map file", "remove"]);
    let status = place.output(&["status", "--private"]);
    assert_eq!(status.status.code(), Some(1), "{status:?}");

    std::fs::write(&map, &whole).unwrap();
    assert_eq!(place.open_sessions(), ["1"], "nothing was done to it meanwhile");
}

#[test]
fn a_map_of_another_boot_or_namespace() {
    if !have(&["root"]) {
        return;
    }
    let place = Place::new();
    place.output(&["session", "open", "1", "--private"]);
    let map = place.map();
    let mut command = Command::new("unshare");
    command.args(["--net", env!("CARGO_BIN_EXE_vipool"), "run", "-s", "1"]).args(PROGRAM);
    place.settle(&mut command);
    let output = command.env("VIPOOL_MAP", &map).output().unwrap();
    runs_untouched(&output, &["another boot or network namespace", map.to_str().unwrap()]);
    assert_eq!(place.open_sessions(), ["1"]);
}

#[test]
fn a_hook_layer_that_is_missing() {
    let place = Place::new();
    place.output(&["session", "open", "1", "--private"]);
    let mut command = place.vipool(&["run", "--private", "-s", "1"]);
    command.args(PROGRAM).env("VIPOOL_PRELOAD", "/nonexistent/hook.so");
    runs_untouched(&command.output().unwrap(), &["/nonexistent/hook.so", "outside the session"]);
    assert_eq!(place.open_sessions(), ["1"]);
}

#[test]
fn arguments_that_make_no_sense() {
    let place = Place::new();
    for (arguments, said) in [
        (vec!["run", "-s", "x", "--", "true"], "write a number"),
        (vec!["run", "-s", "audit:4294967295", "--", "true"], "no session"),
        (vec!["run", "-s", "1"], "PROGRAM"),
        (vec!["session", "open", "pts:1"], "unknown session kind"),
    ] {
        let output = place.output(&arguments);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(text(&output.stderr).contains(said), "{output:?}");
    }
}
