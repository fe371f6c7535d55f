//! Tests unmodified real programs. Most tests run a server in two sessions on the same port at the
//! same time. A client in each session must reach the instance of its own session.
//!
//! docs/compatibility.md lists the results.

mod external_host;
mod runtimes;
mod servers;
mod socket_tests;
#[path = "../support/mod.rs"]
mod support;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use support::{
    TestHost, TestSession, in_namespace, listed_program, output_of, python_path, wait_for_listener,
};
use vipool::policy::Program;
use vipool_testing::{ChildGuard, needs::find_program, preload_path};

/// The programs in the process list of these tests, except Python. Python is listed by its path,
/// which is determined at run time.
const LISTED_PROGRAMS: &[&str] = &[
    "redis-server",
    "redis-cli",
    "nginx",
    "nc",
    "nc.openbsd",
    "memcached",
    "dnsmasq",
    "sshd",
    "ssh",
    "ssh-keyscan",
    "node",
    "java",
    "postgres",
    "psql",
    "curl",
];

fn listed_programs() -> Vec<Program> {
    let python = python_path();
    LISTED_PROGRAMS.iter().map(listed_program).chain([listed_program(python)]).collect()
}

/// One run of a program, with its session and its own directory.
struct ProgramRun<'a> {
    session: &'a TestSession<'a>,
    number: u64,
    directory: PathBuf,
}

impl ProgramRun<'_> {
    /// Returns a command that runs `name` in the session.
    fn command(&self, name: &str) -> Command {
        self.session.command(find_program(name).unwrap_or_else(|| PathBuf::from(name)))
    }

    /// Returns a command that runs `program` with an empty tmpfs mounted on each directory. Other
    /// processes do not see these mounts.
    fn with_private_directories(&self, directories: &[&str], program: &[&str]) -> Command {
        let mut script = String::new();
        for directory in directories {
            script +=
                &format!("mkdir -p {directory} && mount -t tmpfs -o mode=755 none {directory} && ");
        }
        let mut command = self.session.command(find_program("unshare").unwrap());
        command.args(["-m", "sh", "-c", &(script + "exec \"$@\""), "sh"]).args(program);
        command
    }

    /// Returns the path of a file in the directory of the run.
    fn path(&self, name: &str) -> String {
        self.directory.join(name).to_str().unwrap().to_owned()
    }

    /// Writes a file into the directory of the run. Returns the path of the file.
    fn write(&self, name: &str, text: &str) -> String {
        fs::write(self.directory.join(name), text).unwrap();
        self.path(name)
    }

    /// Runs a command in the session and returns its output.
    fn query(&self, name: &str, arguments: &[&str]) -> String {
        output_of(self.command(name).args(arguments)).trim().to_owned()
    }

    /// Returns a command that runs a Python script in the session. The script finds the number of the
    /// session in the variable SESSION_ID.
    fn python_command(&self, script: &str) -> Command {
        let mut command = self.session.command(python_path());
        command.args(["-c", script]).env("SESSION_ID", session_id(self));
        command
    }

    /// Runs a Python script in the session and returns its output.
    fn query_python(&self, script: &str) -> String {
        output_of(&mut self.python_command(script)).trim().to_owned()
    }

    fn curl(&self, url: &str) -> String {
        self.query("curl", &["-sS", "--noproxy", "*", "--max-time", "20", url])
    }
}

/// The address and port on which the program listens, as the kernel stores them.
#[derive(Clone, Copy)]
enum Endpoint {
    V(u16),
    L(u16),
    /// A UDP port. The test does not wait until the server is ready, because [`wait_for_listener`]
    /// finds only TCP listeners. The client retries instead.
    Udp,
}

/// Runs a program in two sessions at once and queries each instance.
fn run_in_two_sessions(
    test_name: &str,
    needs: &[&str],
    endpoint: Endpoint,
    command_for: impl Fn(&ProgramRun<'_>) -> Command,
    query: impl Fn(&ProgramRun<'_>),
) {
    let prepare = || _ = preload_path();
    in_namespace(test_name, &[&["python3", "curl"], needs].concat(), prepare, || {
        let host = TestHost::new(listed_programs());
        let sessions = [host.session(1), host.session(2)];
        let runs: Vec<_> = (1..)
            .zip(&sessions)
            .map(|(number, session)| {
                let directory = host.directory.join(format!("run{number}"));
                fs::create_dir(&directory).unwrap();
                ProgramRun { session, number, directory }
            })
            .collect();
        let mut servers: Vec<_> =
            runs.iter().map(|run| (run, ChildGuard::start(&mut command_for(run)))).collect();
        for (run, child) in &mut servers {
            let address = match endpoint {
                Endpoint::V(port) => format!("{}:{port}", run.session.v()),
                Endpoint::L(port) => format!("{}:{port}", run.session.l()),
                Endpoint::Udp => continue,
            };
            wait_for_listener(&address, &mut child.0);
        }
        for run in &runs {
            query(run);
        }
        // Terminate only the processes that this test started. Their children exit with their
        // parents, or when the PID namespace ends.
        for (_, child) in &mut servers {
            let pid = child.0.id().to_string();
            let _ = Command::new("kill").arg(pid).status();
        }
    });
}

fn session_id(run: &ProgramRun<'_>) -> String {
    run.number.to_string()
}
