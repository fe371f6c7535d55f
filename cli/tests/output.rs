//! Tests of the output of `vipool` to a closed pipe and to a full disk.

#![cfg(target_os = "linux")]

use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// The home directory of a test user. Initially, it contains only a farm file.
struct Home(TempDir);

impl Home {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        std::fs::write(directory.path().join("farm.toml"), "[sessions]\nlow-water = 1\n")
            .expect("a file");
        Self(directory)
    }

    fn vipool(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vipool"));
        command.args(arguments).current_dir(self.0.path());
        command.env("HOME", self.0.path()).env("VIPOOL_PRIVATE", self.0.path());
        command.env_remove("VIPOOL_LEASE").env_remove("VIPOOL_MAP").env_remove("XDG_CONFIG_HOME");
        command
    }
}

/// Returns the writing end of a pipe that has no reader.
fn closed_pipe() -> Stdio {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    writer.into()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn closed_standard_output_does_not_change_the_exit_status() {
    let home = Home::new();
    for arguments in [
        &["session", "open", "1", "--private"][..],
        &["status", "--private"],
        &["status", "--private", "--json"],
        &["session", "list", "--private"],
        &["addresses", "--private"],
        &["history", "--private"],
        &["history", "--private", "--csv"],
        &["metrics", "--private"],
        &["watch", "--private"],
        &["gc", "--private"],
        &["check", "farm.toml"],
        &["check", "farm.toml", "--json"],
        &["discover"],
        &["explain", "--private", "--", "sh"],
        &["completions", "bash"],
        &["--help"],
    ] {
        let mut command = home.vipool(arguments);
        let output = command.stdout(closed_pipe()).output().expect("vipool runs");
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", stderr(&output));
        assert_eq!(stderr(&output), "", "{arguments:?}");
    }
}

#[test]
fn closed_standard_error_does_not_prevent_the_start_of_the_program() {
    let home = Home::new();
    let mut command = home.vipool(&["run", "--private", "--session", "1", "--", "echo", "ran"]);
    // Without a hook layer, `vipool run` prints a message and runs the program outside the session.
    command.env("VIPOOL_PRELOAD", "/nonexistent/hook.so");
    let output = command.stderr(closed_pipe()).output().expect("vipool runs");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "ran\n", "{output:?}");
}

#[test]
fn full_disk_under_standard_output_is_an_error() {
    let home = Home::new();
    for arguments in [&["check", "farm.toml"][..], &["completions", "bash"]] {
        let full_disk = std::fs::File::create("/dev/full").expect("/dev/full");
        let output = home.vipool(arguments).stdout(full_disk).output().expect("vipool runs");
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        let expected = "vipool: cannot write to standard output: No space left on device";
        assert!(stderr(&output).starts_with(expected), "{}", stderr(&output));
    }
}
