//! A private map for a test, and helpers to run programs in its sessions.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;
use vipool_testing::ChildGuard;

/// A temporary directory for a private map. The tests do not use the files of the user who runs
/// them.
pub struct PrivateMap {
    directory: TempDir,
}

impl PrivateMap {
    pub fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Returns a `vipool` command with these arguments.
    pub fn vipool(&self, arguments: &[&str]) -> Command {
        // A test process in the background of a shell can have the action "ignore" for HUP, INT and
        // QUIT. Its child processes inherit these actions, so `env` restores the default actions.
        let mut command = Command::new("env");
        command
            .args(["--default-signal=HUP,INT,QUIT", env!("CARGO_BIN_EXE_vipool")])
            .args(arguments);
        self.set_environment(&mut command);
        command
    }

    /// Sets the environment of a command so that it uses this private map.
    pub fn set_environment(&self, command: &mut Command) {
        command
            .env("VIPOOL_PRIVATE", self.path())
            .env("VIPOOL_PRELOAD", vipool_testing::preload_path());
        // Remove variables that the developer may have set.
        for name in
            ["VIPOOL_LEASE", "VIPOOL_MAP", "VIPOOL_DISABLE", "XDG_CONFIG_HOME", "LD_PRELOAD"]
        {
            command.env_remove(name);
        }
        command.env("HOME", self.path());
    }

    /// Runs `vipool` with these arguments.
    pub fn output(&self, arguments: &[&str]) -> Output {
        self.vipool(arguments).output().unwrap()
    }

    /// Runs a shell script in a session.
    pub fn run_shell(&self, session: &str, script: &str) -> Output {
        self.output(&["run", "--private", "--session", session, "--", "sh", "-c", script])
    }

    /// Returns the ids of the open sessions.
    pub fn open_sessions(&self) -> Vec<String> {
        let output = self.output(&["session", "list", "--private", "--json"]);
        let error = || panic!("{}", text(&output.stderr));
        let Ok(list) = serde_json::from_slice::<Vec<Value>>(&output.stdout) else { error() };
        list.iter().map(|row| row["session"].as_str().unwrap().to_owned()).collect()
    }

    /// Runs `vipool` with these arguments and `--json`. Returns the parsed output.
    pub fn json_output(&self, arguments: &[&str]) -> Value {
        let output = self.output(&[arguments, &["--json"]].concat());
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
    }

    /// Writes a file into the temporary directory. Returns the path of the file.
    pub fn write_file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    /// Writes a farm file with loopback addresses for `session_count` sessions, and one listed
    /// program. Returns the path of the file.
    pub fn write_farm(&self, session_count: u32, when_exhausted: &str, program: &Path) -> String {
        let content = format!(
            "[loopback]\nranges = \"127.77.0.2-127.77.0.{}\"\n\
             [sessions]\nwhen-exhausted = {when_exhausted:?}\ncool-down = 0\ncheck-in-use = false\n\
             [[program]]\npath = {program:?}\nfeatures = [\"loopback\"]\n",
            1 + 2 * session_count
        );
        self.write_file("farm.toml", &content).to_str().unwrap().to_owned()
    }

    /// Returns the subdirectory that contains the map.
    pub fn map_directory(&self) -> PathBuf {
        let mut entries =
            std::fs::read_dir(self.path()).unwrap().map(|entry| entry.unwrap().path());
        entries.find(|path| path.join("map").exists()).expect("a map was made")
    }
}

/// A running `vipool run`. Dropping the value sends SIGTERM to `vipool run`, which passes the
/// signal on to its program.
pub struct TerminateOnDrop(pub ChildGuard);

impl Drop for TerminateOnDrop {
    fn drop(&mut self) {
        let pid = Pid::from_raw(self.0.0.id() as i32);
        let _ = kill(pid, Signal::SIGTERM);
        // If `vipool run` does not end in time, `ChildGuard` kills it.
        for _ in 0..200 {
            if !matches!(self.0.0.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Returns the output of a program as text.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Builds the example `page`, an HTTP server and client without code for vipool. Returns its path.
pub fn page_server() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        vipool_testing::cargo(&["build", "--package", "vipool-cli", "--example", "page"]);
        vipool_testing::target_dir().join("debug/examples/page")
    })
}

/// Opens a listener on 127.0.0.1. A program that binds the same port gets EADDRINUSE, unless its
/// bind is rewritten.
pub fn host_listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

/// Reads output up to the first line that contains `expected`. Returns a reader of the remaining
/// output.
pub fn wait_for_line(
    output: impl std::io::Read,
    expected: &str,
) -> std::io::BufReader<impl std::io::Read> {
    use std::io::BufRead;
    let mut reader = std::io::BufReader::new(output);
    let mut output_so_far = String::new();
    while reader.read_line(&mut output_so_far).unwrap() > 0 {
        if output_so_far.contains(expected) {
            return reader;
        }
    }
    panic!("no line with {expected:?} in {output_so_far:?}");
}
