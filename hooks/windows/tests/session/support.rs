//! Helpers: a host with its own map, sessions in that map, and programs that run in the sessions.

use std::io::{self, BufRead, BufReader, Lines, Write};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use vipool::Tick;
use vipool::map::{Map, OpenOptions, Plan};
use vipool::policy::{Features, Policy, PortRange, Program};
use vipool::pool::{Pool, PoolKind};
use vipool::session::{Addresses, Handle, SessionId};

/// An address of the host that is not in the pool. An interface has this address and the pool
/// addresses 10.77.0.11 to 10.77.0.14. No interface has the other addresses of the pool.
pub const HOST_ADDRESS: &str = "10.77.0.1";

/// The programs on the default process list. All other test programs run without rewriting.
const LISTED_PROGRAMS: [&str; 5] =
    ["rows.exe", "iocp.exe", "unload.exe", "running.exe", "sending.exe"];

/// A host with its own map. Dropping the value removes the map.
pub struct TestHost {
    directory: PathBuf,
    plan: Plan,
    /// `None` only during the drop. The drop first unmaps the map file, because Windows cannot
    /// remove the directory of a mapped file.
    map: Option<Map>,
}

/// A session of a [`TestHost`]. Dropping the value does not close the session.
pub struct Session<'h> {
    pub handle: Handle,
    pub addresses: Addresses,
    directory: &'h Path,
}

impl TestHost {
    /// Creates a host. `modify_policy` receives the default policy and may change it.
    pub fn new(modify_policy: impl FnOnce(&mut Policy)) -> Self {
        static NEXT_NUMBER: AtomicU16 = AtomicU16::new(0);
        let number = NEXT_NUMBER.fetch_add(1, Ordering::Relaxed);
        let directory =
            std::env::temp_dir().join(format!("vipool-hook-{}-{number}", std::process::id()));
        // A killed test run may have left the directory.
        _ = std::fs::remove_dir_all(&directory);
        std::fs::create_dir_all(&directory).unwrap();
        let pool = |kind, range: &str| {
            Pool::new("default", kind, &[range.parse().unwrap()], u32::MAX).unwrap()
        };
        let mut policy = Policy::new(LISTED_PROGRAMS.iter().map(|name| listed_program(name)))
            .with_host_addresses([HOST_ADDRESS.parse().unwrap()])
            .with_wildcard_udp_ports([PortRange { first: 5353, last: 5353 }]);
        modify_policy(&mut policy);
        let plan = Plan::new([
            pool(PoolKind::VirtualIp, "10.77.0.11-10.77.0.30"),
            pool(PoolKind::Loopback, "127.77.0.2-127.77.0.41"),
        ])
        .with_policy(policy)
        .with_settings(vipool::map::Settings::without_cool_down());
        let map = Some(Map::create(&directory, &plan).unwrap());
        Self { directory, plan, map }
    }

    /// Replaces the map with a new map. `modify_policy` receives the current policy and may change
    /// it.
    pub fn replace_map(&mut self, modify_policy: impl FnOnce(&mut Policy)) {
        modify_policy(&mut self.plan.policy);
        // With an equal plan, `Map::create` would keep the old map.
        self.plan.settings.low_water += 1;
        self.map = Some(Map::create(&self.directory, &self.plan).unwrap());
    }

    fn map(&self) -> &Map {
        self.map.as_ref().unwrap()
    }

    /// Returns the names of the files in the map directory.
    pub fn map_files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.directory).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// Opens the session with this number. Each new session gets the next addresses of the pools.
    pub fn open_session(&self, number: u64) -> Session<'_> {
        self.open_session_id(number.to_string().parse().unwrap())
    }

    /// Opens the session with this id.
    pub fn open_session_id(&self, id: SessionId) -> Session<'_> {
        let opened = self.map().open_session(id, &OpenOptions::default(), Tick::ZERO).unwrap();
        let addresses = self.map().reader().unwrap().addresses(&opened.leases);
        Session { handle: opened.handle, addresses, directory: &self.directory }
    }

    /// Closes a session.
    pub fn close_session(&self, handle: &Handle) {
        self.map().close_by_handle(handle, Tick::ZERO).unwrap();
    }
}

impl Drop for TestHost {
    fn drop(&mut self) {
        self.map = None;
        _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// Returns a rule that gives programs of this name both V and L.
pub fn listed_program(name: &str) -> Program {
    Program::new(name).with_features(Features::default().with_virtual_ip(true).with_loopback(true))
}

/// Returns a port that no other test uses. The following port is unused too.
pub fn unused_port() -> u16 {
    static NEXT_PORT: AtomicU16 = AtomicU16::new(21000);
    NEXT_PORT.fetch_add(2, Ordering::Relaxed)
}

/// Returns the path of a compiled test program.
pub fn test_program(name: &str) -> PathBuf {
    let directory = std::env::var_os("VIPOOL_PROGRAMS")
        .expect("VIPOOL_PROGRAMS names the directory of the compiled tests/c/*.c");
    Path::new(&directory).join(name)
}

/// Returns the path of an installed file: the hook layer, the launcher or `vipool.exe`.
pub fn installed_file(name: &str) -> PathBuf {
    let directory = std::env::var_os("VIPOOL_HOOK")
        .expect("VIPOOL_HOOK names the directory of vipool_hook.dll and vipool-launch.exe");
    Path::new(&directory).join(name)
}

impl Session<'_> {
    /// Returns the virtual IP, V.
    pub fn virtual_ip(&self) -> Ipv4Addr {
        self.addresses.v4.unwrap()
    }

    /// Returns the virtual loopback address, L.
    pub fn loopback(&self) -> Ipv4Addr {
        self.addresses.loopback.unwrap()
    }

    /// Returns a command that runs the launcher with a program in this session.
    pub fn launcher_command(&self, program: &Path) -> Command {
        let mut command = Command::new(installed_file("vipool-launch.exe"));
        command.arg(program);
        self.set_environment(&mut command);
        command
    }

    /// Sets the environment of a command, so that the process belongs to this session. The hook
    /// layer reads `VIPOOL_LEASE` only in a process with `VIPOOL_TEST_SESSION=1`.
    pub fn set_environment(&self, command: &mut Command) {
        command
            .env("VIPOOL_MAP", self.directory)
            .env("VIPOOL_LEASE", self.handle.to_string())
            .env("VIPOOL_TEST_SESSION", "1")
            .env_remove("VIPOOL_DISABLE");
    }

    fn row_arguments(&self, row: u32, port: u16) -> [String; 5] {
        let (v, l) = (self.virtual_ip().to_string(), self.loopback().to_string());
        [row.to_string(), port.to_string(), v, l, HOST_ADDRESS.to_owned()]
    }

    /// Runs rows.exe for a row of the matrix in this session. Returns its output.
    pub fn run_row(&self, row: u32, port: u16) -> String {
        stdout_of(
            self.launcher_command(&test_program("rows.exe")).args(self.row_arguments(row, port)),
        )
    }

    /// Runs rows.exe for a row of the matrix without the hook layer. Returns its output.
    pub fn run_row_without_hooks(&self, row: u32, port: u16) -> String {
        stdout_of(Command::new(test_program("rows.exe")).args(self.row_arguments(row, port)))
    }

    /// Starts rows.exe in this session for a row that listens. Returns when the program is ready.
    pub fn start_row(&self, row: u32, port: u16) -> RunningProgram {
        RunningProgram::start(
            self.launcher_command(&test_program("rows.exe")).args(self.row_arguments(row, port)),
        )
    }

    /// Starts rows.exe without the hook layer for a row that listens. Returns when the program is
    /// ready.
    pub fn start_row_without_hooks(&self, row: u32, port: u16) -> RunningProgram {
        RunningProgram::start(
            Command::new(test_program("rows.exe")).args(self.row_arguments(row, port)),
        )
    }
}

/// Starts a program and retries a few times. If many programs start at once, Wine sometimes fails
/// with an internal error.
pub fn retry_start<T>(mut start: impl FnMut() -> io::Result<T>) -> T {
    const ERROR_INTERNAL_ERROR: i32 = 1359;
    let mut failed_attempt_count = 0;
    loop {
        match start() {
            Err(error)
                if error.raw_os_error() == Some(ERROR_INTERNAL_ERROR)
                    && failed_attempt_count < 5 =>
            {
                failed_attempt_count += 1;
                std::thread::sleep(Duration::from_millis(200));
            }
            result => return result.unwrap(),
        }
    }
}

/// Runs a program and returns its standard output. Panics if its exit code is not 0.
pub fn stdout_of(command: &mut Command) -> String {
    let output = retry_start(|| command.stdin(Stdio::null()).stderr(Stdio::inherit()).output());
    let text = String::from_utf8(output.stdout).unwrap().replace("\r\n", "\n");
    assert!(output.status.success(), "{command:?}: {:?}\n{text}", output.status);
    text
}

/// A program that runs until this value is dropped.
pub struct RunningProgram {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    /// The output of the program before it was ready.
    pub output: String,
}

impl RunningProgram {
    /// Starts a program and waits until it prints "ready".
    pub fn start(command: &mut Command) -> Self {
        let mut child =
            retry_start(|| command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn());
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut program = Self { child, lines, output: String::new() };
        let (output, is_ready) = program.read_until_ready();
        program.output = output;
        if !is_ready {
            let status = program.child.wait().unwrap();
            panic!("{command:?} ended ({status:?}) before it was ready:\n{}", program.output);
        }
        program
    }

    /// Lets the program continue. Returns its output until it is ready again or ends.
    pub fn continue_until_ready(&mut self) -> String {
        self.child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
        self.read_until_ready().0
    }

    /// Returns the output until the program prints "ready" or ends, and whether it printed "ready".
    fn read_until_ready(&mut self) -> (String, bool) {
        let mut output = String::new();
        loop {
            match self.lines.next() {
                Some(Ok(line)) if line.trim_end() == "ready" => return (output, true),
                Some(Ok(line)) => output += &format!("{}\n", line.trim_end()),
                _ => return (output, false),
            }
        }
    }
}

impl Drop for RunningProgram {
    fn drop(&mut self) {
        // The program continues after a line, and ends when its standard input closes. The launcher
        // ends with the program.
        if let Some(mut stdin) = self.child.stdin.take() {
            _ = stdin.write_all(b"\n");
        }
        _ = self.child.wait();
    }
}
