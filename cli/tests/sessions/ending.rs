//! Tests that `vipool run` ends like its program and passes signals on to the program.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use vipool_testing::ChildGuard;

use crate::support::{PrivateMap, text, wait_for_line};

#[test]
fn exit_status_is_passed_on() {
    let private_map = PrivateMap::new();
    for status in [0, 1, 7, 128, 255] {
        let output = private_map.run_shell("1", &format!("exit {status}"));
        assert_eq!(output.status.code(), Some(status), "{output:?}");
    }
}

#[test]
fn death_by_signal_is_passed_on() {
    let private_map = PrivateMap::new();
    for signal in ["KILL", "TERM", "INT", "PIPE", "SEGV", "USR1"] {
        let output = private_map.run_shell("1", &format!("kill -{signal} $$"));
        let expected: Signal = format!("SIG{signal}").parse().unwrap();
        assert_eq!(output.status.signal(), Some(expected as i32), "{output:?}");
        assert!(!output.status.core_dumped());
    }
    assert!(private_map.open_sessions().is_empty());
}

#[test]
fn exit_codes_distinguish_missing_and_not_executable_programs() {
    let private_map = PrivateMap::new();
    let file = private_map.write_file("not-executable", "");
    for (program, status) in [("/nonexistent/program", 127), (file.to_str().unwrap(), 126)] {
        let output = private_map.output(&["run", "--private", "-s", "1", "--", program]);
        assert_eq!(output.status.code(), Some(status), "{output:?}");
        assert!(text(&output.stderr).contains(program), "{output:?}");
    }
    assert!(private_map.open_sessions().is_empty());
}

/// Runs a script in a session, and sends a signal to `vipool run` when the script prints "ready".
/// Returns the exit status of `vipool run`.
fn run_and_signal(private_map: &PrivateMap, script: &str, signal: Signal) -> ExitStatus {
    let mut command =
        private_map.vipool(&["run", "--private", "-s", "1", "--", "sh", "-c", script]);
    let mut vipool_process = ChildGuard::start(command.stdout(Stdio::piped()));
    let _output = wait_for_line(vipool_process.0.stdout.take().unwrap(), "ready");
    assert_eq!(private_map.open_sessions(), ["1"]);
    kill(Pid::from_raw(vipool_process.0.id() as i32), signal).unwrap();
    vipool_process.0.wait().unwrap()
}

#[test]
fn signals_reach_the_program_and_close_the_session() {
    let private_map = PrivateMap::new();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGUSR2] {
        let name = &signal.as_str()[3..];
        let trap_script = format!("trap 'exit 42' {name}; echo ready; while :; do sleep 0.1; done");
        assert_eq!(run_and_signal(&private_map, &trap_script, signal).code(), Some(42), "{signal}");
        assert!(private_map.open_sessions().is_empty(), "{signal}");

        let default_script = "echo ready; exec sleep 60";
        assert_eq!(
            run_and_signal(&private_map, default_script, signal).signal(),
            Some(signal as i32),
            "{signal}"
        );
        assert!(private_map.open_sessions().is_empty(), "{signal}");
    }
}

#[test]
fn ignored_sighup_is_inherited() {
    let private_map = PrivateMap::new();
    // The shell ignores SIGHUP. `vipool run` and its program inherit this disposition.
    let script_prefix =
        format!("trap '' HUP; exec {} run --private -s 1 -- sh -c", env!("CARGO_BIN_EXE_vipool"));
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{script_prefix} 'echo ready; read line; exit 9'")]);
    private_map.set_environment(&mut command);
    let mut vipool_process =
        ChildGuard::start(command.stdin(Stdio::piped()).stdout(Stdio::piped()));
    let _output = wait_for_line(vipool_process.0.stdout.take().unwrap(), "ready");
    kill(Pid::from_raw(vipool_process.0.id() as i32), Signal::SIGHUP).unwrap();
    drop(vipool_process.0.stdin.take());
    assert_eq!(vipool_process.0.wait().unwrap().code(), Some(9));
}

/// A terminal signals every process in the foreground group, so `vipool run` must not forward the
/// signal to its program.
#[test]
fn terminal_interrupt_arrives_once() {
    if !vipool_testing::have(&["python3"]) {
        return;
    }
    let private_map = PrivateMap::new();
    let program = "import signal, time
count = 0
def interrupted(*_):
    global count
    count += 1
signal.signal(signal.SIGINT, interrupted)
print('ready', flush=True)
while not count: time.sleep(0.05)
time.sleep(0.5)
print('interrupted', count, 'times', flush=True)
";
    let terminal = "import os, pty, sys
pid, terminal = pty.fork()
if not pid: os.execv(sys.argv[1], sys.argv[1:])
output = b''
def until(what):
    global output
    while what not in output: output += os.read(terminal, 1000)
until(b'ready')
os.write(terminal, b'\\x03')
until(b'times')
print(output.decode())
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
";
    let mut command = Command::new("python3");
    command.args(["-c", terminal, env!("CARGO_BIN_EXE_vipool"), "run", "--private", "-s", "1"]);
    command.args(["--", "python3", "-c", program]);
    private_map.set_environment(&mut command);
    let output = command.output().unwrap();
    assert!(text(&output.stdout).contains("interrupted 1 times"), "{output:?}");
    assert!(output.status.success(), "{output:?}");
}
