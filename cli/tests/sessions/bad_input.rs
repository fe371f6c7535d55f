//! Tests of invalid input: vipool reports the error, and no open session is lost.

use std::process::{Command, Output};

use crate::support::{PrivateMap, text};
use vipool_testing::have;

/// Asserts that the program ran outside the session, and that standard error contains these words.
fn assert_runs_outside_session(output: &Output, expected_words: &[&str]) {
    let error_text = text(&output.stderr);
    for word in expected_words {
        assert!(error_text.contains(word), "{word:?} is not in {error_text:?}");
    }
    assert_eq!(text(&output.stdout), "lease=\n", "{error_text}");
    assert_eq!(output.status.code(), Some(0), "{error_text}");
}

const PROGRAM_ARGUMENTS: [&str; 4] = ["--", "sh", "-c", "echo lease=$VIPOOL_LEASE"];

#[test]
fn invalid_farm_files_are_reported() {
    let private_map = PrivateMap::new();
    private_map.output(&["session", "open", "1", "--private"]);
    let truncated_text =
        "[loopback]\naddresses = \"127.77.0.0/24\"\n\n[[program]]\npath = \"/usr/bi";
    let truncated_farm = private_map.write_file("truncated.toml", truncated_text);
    let unknown_key_farm = private_map.write_file("unknown.toml", "[sessions]\ncooldown = 5\n");
    let directory = private_map.path().to_owned();
    let missing_farm = private_map.path().join("missing.toml");
    for (farm, expected) in [
        (&truncated_farm, "5"),
        (&unknown_key_farm, "cool-down"),
        (&directory, "directory"),
        (&missing_farm, "No such file"),
    ] {
        let farm = farm.to_str().unwrap();
        let run_arguments = ["run", "--private", "-s", "2", "--farm", farm];
        let output = private_map.output(&[&run_arguments[..], &PROGRAM_ARGUMENTS].concat());
        assert_runs_outside_session(&output, &[farm, expected, "outside the session"]);
        let output =
            private_map.output(&[&run_arguments[..], &["--require"], &PROGRAM_ARGUMENTS].concat());
        assert_eq!(output.status.code(), Some(125), "{output:?}");
        assert!(output.stdout.is_empty());
    }
    assert_eq!(private_map.open_sessions(), ["1"]);
    assert!(text(&private_map.run_shell("1", "echo $VIPOOL_LEASE").stdout).starts_with("05"));
}

#[test]
fn damaged_map_is_reported() {
    let private_map = PrivateMap::new();
    private_map.output(&["session", "open", "1", "--private"]);
    let map_file = private_map.map_directory().join("map");
    let original_bytes = std::fs::read(&map_file).unwrap();
    // The damaged file keeps the original size, because vipool never resizes a map file.
    std::fs::write(&map_file, vec![0xa5; original_bytes.len()]).unwrap();
    let run_arguments = ["run", "--private", "-s", "1"];
    let output = private_map.output(&[&run_arguments[..], &PROGRAM_ARGUMENTS].concat());
    assert_runs_outside_session(&output, &["map", "cannot use map file", "remove"]);
    let status = private_map.output(&["status", "--private"]);
    assert_eq!(status.status.code(), Some(1), "{status:?}");

    std::fs::write(&map_file, &original_bytes).unwrap();
    assert_eq!(private_map.open_sessions(), ["1"], "the sessions are unchanged");
}

#[test]
fn map_of_another_namespace_is_reported() {
    if !have(&["root"]) {
        return;
    }
    let private_map = PrivateMap::new();
    private_map.output(&["session", "open", "1", "--private"]);
    let map_directory = private_map.map_directory();
    let mut command = Command::new("unshare");
    command.args(["--net", env!("CARGO_BIN_EXE_vipool"), "run", "-s", "1"]).args(PROGRAM_ARGUMENTS);
    private_map.set_environment(&mut command);
    let output = command.env("VIPOOL_MAP", &map_directory).output().unwrap();
    assert_runs_outside_session(
        &output,
        &["another boot or network namespace", map_directory.to_str().unwrap()],
    );
    assert_eq!(private_map.open_sessions(), ["1"]);
}

#[test]
fn missing_hook_layer_is_reported() {
    let private_map = PrivateMap::new();
    private_map.output(&["session", "open", "1", "--private"]);
    let mut command = private_map.vipool(&["run", "--private", "-s", "1"]);
    command.args(PROGRAM_ARGUMENTS).env("VIPOOL_PRELOAD", "/nonexistent/hook.so");
    assert_runs_outside_session(
        &command.output().unwrap(),
        &["/nonexistent/hook.so", "outside the session"],
    );
    assert_eq!(private_map.open_sessions(), ["1"]);
}

#[test]
fn invalid_arguments_are_reported() {
    let private_map = PrivateMap::new();
    for (arguments, expected) in [
        (vec!["run", "-s", "x", "--", "true"], "write a number"),
        (vec!["run", "-s", "audit:4294967295", "--", "true"], "no session"),
        (vec!["run", "-s", "1"], "PROGRAM"),
        (vec!["session", "open", "pts:1"], "unknown session kind"),
    ] {
        let output = private_map.output(&arguments);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(text(&output.stderr).contains(expected), "{output:?}");
    }
}
