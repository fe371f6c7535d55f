//! Runs a command once for each of its calls, and lets this call fail.

use std::fs;
use std::io;
use std::process::Output;

use nix::libc;

use crate::machine::{SavedFiles, restore, run, set_up, vipool};
use crate::state::{Sessions, State, check_assigned, sessions};

/// The file to which the preloaded object writes the function that failed.
const REPORT_FILE: &str = "/run/fault-report";

/// The call number that makes every call fail.
const EVERY_CALL: u32 = 0;

/// A state of the machine, and a command that runs in this state.
#[derive(Clone, Copy)]
pub struct Scenario<'a> {
    /// The commands that bring about the state.
    pub setup: &'a [&'a str],
    /// Changes the files after `setup`.
    pub prepare_files: fn(),
    /// Commands that run before each run of `command`, to add addresses to the interface.
    pub before: &'a [&'a str],
    /// The command in which calls fail.
    pub command: &'a str,
    /// The exit status of the command without a failure.
    pub exit_status: i32,
    /// A session that stays open if `vipool run` cannot close it. Later, `vipool gc` closes it.
    pub remaining_session: Option<&'a str>,
    /// The command that runs if `command` fails or reports a failure. `None` repeats `command`.
    pub then: Option<&'a str>,
    /// Whether the command can succeed although it reports a failure.
    pub may_warn: bool,
    /// The commands that run at the end.
    pub after: &'a [&'a str],
}

impl Scenario<'_> {
    /// The default values: `vipool up` without sessions, and `vipool gc` as maintenance.
    pub const DEFAULT: Scenario<'static> = Scenario {
        setup: &["up --no-probe --server any /run/farm/farm.toml"],
        prepare_files: || {},
        before: &[],
        command: "",
        exit_status: 0,
        remaining_session: None,
        then: None,
        may_warn: true,
        after: &["gc"],
    };
}

/// A kind of failure.
#[derive(Clone, Copy, Debug)]
enum Failure {
    Error(i32),
    NoSpace,
    Interrupt,
    ShortTransfer,
}

impl Failure {
    /// Returns the value of `VIPOOL_FAULT`.
    fn variable(self, call_number: u32) -> String {
        match self {
            Self::Error(error) => format!("errno:{error}:{call_number}"),
            Self::NoSpace => format!("no-space:{call_number}"),
            Self::Interrupt => format!("interrupt:{call_number}"),
            Self::ShortTransfer => format!("short:{call_number}"),
        }
    }

    /// Returns the number of the call that fails in the first run. A failure that must have no effect
    /// hits every call of a single run.
    fn first_call_number(self) -> u32 {
        match self {
            Self::Error(_) | Self::NoSpace => 1,
            Self::Interrupt | Self::ShortTransfer => EVERY_CALL,
        }
    }

    /// Returns the text of the error. `None` if commands must not report this failure, because they
    /// repeat the call.
    fn error_text(self) -> Option<String> {
        let error = match self {
            Self::Error(error) => error,
            Self::NoSpace => libc::ENOSPC,
            Self::Interrupt | Self::ShortTransfer => return None,
        };
        let text = io::Error::from_raw_os_error(error).to_string();
        text.split_once(" (").map(|(text, _)| text.to_owned())
    }
}

/// Runs all scenarios with all failures. Returns the number of runs with a failure.
pub fn sweep(scenarios: &[Scenario<'_>]) -> u32 {
    set_up();
    let mut failures = vec![
        Failure::Error(libc::EIO),
        Failure::NoSpace,
        Failure::Interrupt,
        Failure::ShortTransfer,
    ];
    // The commands treat this error as EIO.
    failures.extend(vipool_testing::effort(None, Some(Failure::Error(libc::ENOMEM))));
    let mut failure_count = 0;
    for scenario in scenarios {
        restore(&SavedFiles::none());
        scenario.setup.iter().for_each(|command| _ = run(command));
        (scenario.prepare_files)();
        let files = SavedFiles::read();
        let expected = Expected::find(scenario, &files);
        for failure in &failures {
            failure_count += expected.sweep_failure(scenario, &files, *failure);
        }
    }
    failure_count
}

/// The states of runs without a failure.
struct Expected {
    sessions_before: Sessions,
    sessions_after: Sessions,
    final_state: State,
}

impl Expected {
    fn find(scenario: &Scenario<'_>, files: &SavedFiles) -> Self {
        start(scenario, files);
        let sessions_before = sessions();
        let output = vipool(scenario.command).output().unwrap();
        assert_eq!(output.status.code(), Some(scenario.exit_status), "{output:?}");
        let sessions_after = sessions();
        scenario.after.iter().for_each(|command| _ = run(command));
        Self { sessions_before, sessions_after, final_state: State::read() }
    }

    /// Runs the command until no call fails. Returns the number of runs with a failure.
    fn sweep_failure(&self, scenario: &Scenario<'_>, files: &SavedFiles, failure: Failure) -> u32 {
        for call_number in failure.first_call_number().. {
            start(scenario, files);
            let output = vipool(scenario.command)
                .env("LD_PRELOAD", vipool_testing::fault_preload_path())
                .env("VIPOOL_FAULT", failure.variable(call_number))
                .env("VIPOOL_FAULT_REPORT", REPORT_FILE)
                .output()
                .unwrap();
            let hit_function = fs::read_to_string(REPORT_FILE).unwrap_or_default();
            let context = format!(
                "vipool {}: {failure:?} at call {call_number}, {hit_function:?}: {output:?}",
                scenario.command
            );
            let has_failed = !hit_function.is_empty();
            let is_complete = output.status.code() == Some(scenario.exit_status);
            let error_text = failure.error_text().filter(|_| has_failed);
            let has_reported = check_output(&output, is_complete, error_text.as_deref(), &context);
            check_assigned(&context);
            let mut open_sessions = sessions();
            scenario.remaining_session.map(|session| open_sessions.remove(session));
            self.check_sessions(&open_sessions, &context);
            assert!(!is_complete || !has_reported || scenario.may_warn, "{context}");
            if has_reported {
                let command = scenario.then.unwrap_or(scenario.command);
                let output = vipool(command).output().unwrap();
                let expected_status = scenario.then.map_or(scenario.exit_status, |_| 0);
                assert_eq!(
                    output.status.code(),
                    Some(expected_status),
                    "{context}, then {output:?}"
                );
            }
            for command in scenario.after {
                let output = vipool(command).output().unwrap();
                assert!(output.status.success(), "{context}, then {command}: {output:?}");
            }
            let mut state = State::read();
            // `vipool down` removes the map without saving the last users if the file system is full
            // or the administrator demands it.
            let lost_users = "users may get different addresses";
            let may_lose_users =
                matches!(failure, Failure::NoSpace) || scenario.command.contains("--force");
            if may_lose_users && String::from_utf8_lossy(&output.stderr).contains(lost_users) {
                state.last_users.clone_from(&self.final_state.last_users);
            }
            assert_eq!(state, self.final_state, "{context}");
            if call_number == EVERY_CALL {
                assert!(has_failed, "{context}");
                return 1;
            }
            if !has_failed {
                return call_number - 1;
            }
        }
        unreachable!("a run without a failure ends the sweep")
    }

    /// Checks that each session is open with the same addresses as before or after the command, and
    /// that the command closes no other session.
    fn check_sessions(&self, open_sessions: &Sessions, context: &str) {
        let has = |sessions: &Sessions, (name, session): (&String, _)| {
            sessions.get(name) == Some(session)
        };
        for session in open_sessions {
            let is_expected =
                has(&self.sessions_before, session) || has(&self.sessions_after, session);
            assert!(is_expected, "{context}: {session:?}");
        }
        for session in &self.sessions_before {
            let must_stay = has(&self.sessions_after, session);
            assert!(!must_stay || has(open_sessions, session), "{context}: {session:?} is lost");
        }
    }
}

/// Restores the state in which the command of the scenario runs.
fn start(scenario: &Scenario<'_>, files: &SavedFiles) {
    let _ = fs::remove_file(REPORT_FILE);
    restore(files);
    scenario.before.iter().for_each(|command| _ = run(command));
}

/// Checks that the command has no other exit status without an error message, and that the message
/// names the file and the error. `error_text` is `None` if the command must report no error. Returns
/// whether the command reported the error.
fn check_output(
    output: &Output,
    is_complete: bool,
    error_text: Option<&str>,
    context: &str,
) -> bool {
    let messages = String::from_utf8(output.stderr.clone()).unwrap();
    assert!(output.status.code().is_some_and(|code| code != 101), "{context}");
    let has_error = |line: &&str| match error_text {
        Some(text) => line.contains(text),
        None => line.contains("(os error "),
    };
    let mut has_reported = false;
    for line in messages.lines().filter(has_error) {
        let names_file = line.contains('/') || line.contains("the kernel's socket tables");
        assert!(names_file, "{context}: no file in {line:?}");
        has_reported = true;
    }
    assert!(is_complete || has_reported, "{context}");
    assert!(error_text.is_some() || !has_reported, "{context}");
    has_reported
}
