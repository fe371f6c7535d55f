//! A private map of a test's own, and what runs in its sessions.

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

/// A directory with a private map in it; nothing of the user's own is touched.
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

    /// `vipool` with these arguments.
    pub fn vipool(&self, arguments: &[&str]) -> Command {
        // A shell that starts the tests in the background ignores these, and they are inherited.
        let mut command = Command::new("env");
        command
            .args(["--default-signal=HUP,INT,QUIT", env!("CARGO_BIN_EXE_vipool")])
            .args(arguments);
        self.set_environment(&mut command);
        command
    }

    /// Sets the environment that a command is to find its private map by.
    pub fn set_environment(&self, command: &mut Command) {
        command
            .env("VIPOOL_PRIVATE", self.path())
            .env("VIPOOL_PRELOAD", vipool_testing::preload_path());
        // What a developer may have set is not to reach the test.
        for name in
            ["VIPOOL_LEASE", "VIPOOL_MAP", "VIPOOL_DISABLE", "XDG_CONFIG_HOME", "LD_PRELOAD"]
        {
            command.env_remove(name);
        }
        command.env("HOME", self.path());
    }

    /// What `vipool` with these arguments printed.
    pub fn output(&self, arguments: &[&str]) -> Output {
        self.vipool(arguments).output().unwrap()
    }

    /// `vipool run --private --session N -- sh -c SCRIPT`.
    pub fn run_shell(&self, session: &str, script: &str) -> Output {
        self.output(&["run", "--private", "--session", session, "--", "sh", "-c", script])
    }

    /// The ids of the open sessions.
    pub fn open_sessions(&self) -> Vec<String> {
        let output = self.output(&["session", "list", "--private", "--json"]);
        let error = || panic!("{}", text(&output.stderr));
        let Ok(list) = serde_json::from_slice::<Vec<Value>>(&output.stdout) else { error() };
        list.iter().map(|row| row["session"].as_str().unwrap().to_owned()).collect()
    }

    /// What `vipool` with these arguments and `--json` says.
    pub fn json_output(&self, arguments: &[&str]) -> Value {
        let output = self.output(&[arguments, &["--json"]].concat());
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
    }

    /// Writes a file beside the map.
    pub fn write_file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    /// A farm file with loopback addresses for so many sessions and one program.
    pub fn write_farm(&self, sessions: u32, exhausted: &str, program: &Path) -> String {
        let content = format!(
            "[loopback]\nranges = \"127.77.0.2-127.77.0.{}\"\n\
             [sessions]\nwhen-exhausted = {exhausted:?}\ncool-down = 0\ncheck-in-use = false\n\
             [[program]]\npath = {program:?}\nfeatures = [\"loopback\"]\n",
            1 + 2 * sessions
        );
        self.write_file("farm.toml", &content).to_str().unwrap().to_owned()
    }

    /// The private map's own directory.
    pub fn map_directory(&self) -> PathBuf {
        let mut entries =
            std::fs::read_dir(self.path()).unwrap().map(|entry| entry.unwrap().path());
        entries.find(|path| path.join("map").exists()).expect("a map was made")
    }
}

/// A `vipool run` that is ended with SIGTERM, so that the program behind it ends too, also in a
/// test that panics.
pub struct TerminateOnDrop(pub ChildGuard);

impl Drop for TerminateOnDrop {
    fn drop(&mut self) {
        let pid = Pid::from_raw(self.0.0.id() as i32);
        let _ = kill(pid, Signal::SIGTERM);
        // What does not end is killed by `ChildGuard`.
        for _ in 0..200 {
            if !matches!(self.0.0.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The example `page`, a server that knows nothing of vipool.
pub fn page_server() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        vipool_testing::cargo(&["build", "--package", "vipool-cli", "--example", "page"]);
        vipool_testing::target_dir().join("debug/examples/page")
    })
}

/// A listener of the host's on 127.0.0.1: who binds its port untouched gets EADDRINUSE.
pub fn host_listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

/// What the process tree prints up to and including the line with this in it.
pub fn wait_for_line(
    output: impl std::io::Read,
    wanted: &str,
) -> std::io::BufReader<impl std::io::Read> {
    use std::io::BufRead;
    let mut reader = std::io::BufReader::new(output);
    let mut line = String::new();
    while reader.read_line(&mut line).unwrap() > 0 {
        if line.contains(wanted) {
            return reader;
        }
    }
    panic!("no line with {wanted:?} in {line:?}");
}
