//! A map with a policy for the test programs, sessions in it, and programs run in them.

use std::io::{self, BufRead, BufReader, Lines, Write};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use vipool::map::{Map, OpenOptions, Plan};
use vipool::policy::{Features, Policy, PortRange, Program};
use vipool::pool::{Pool, PoolKind};
use vipool::session::{Addresses, Handle, SessionId};

/// An address of the host, outside the pool. This and the pool's first addresses are on an
/// interface, but for those from .15 on.
pub const HOST: &str = "10.77.0.1";

/// Programs that no test means to be rewritten are on no list; these are.
const LISTED: [&str; 5] = ["rows.exe", "iocp.exe", "unload.exe", "running.exe", "sending.exe"];

/// A server with a map of its own, gone when this goes out of scope.
pub struct Host {
    directory: PathBuf,
    plan: Plan,
    /// There until the end: a directory with a mapped file can't be removed.
    map: Option<Map>,
}

/// A session on it, and how its programs are started.
pub struct Session<'h> {
    pub handle: Handle,
    pub addresses: Addresses,
    directory: &'h Path,
}

impl Host {
    /// A server; `change` may add to the policy.
    pub fn new(change: impl FnOnce(&mut Policy)) -> Self {
        static NUMBER: AtomicU16 = AtomicU16::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let directory =
            std::env::temp_dir().join(format!("vipool-hook-{}-{number}", std::process::id()));
        // A run that was killed may have left one.
        _ = std::fs::remove_dir_all(&directory);
        std::fs::create_dir_all(&directory).unwrap();
        let pool = |kind, range: &str| {
            Pool::new("default", kind, &[range.parse().unwrap()], u32::MAX).unwrap()
        };
        let mut policy = Policy {
            programs: LISTED.iter().map(|name| listed(name)).collect(),
            host_addresses: vec![HOST.parse().unwrap()],
            session_override: true,
            wildcard_udp_ports: vec![PortRange { first: 5353, last: 5353 }],
            ..Policy::default()
        };
        change(&mut policy);
        let plan = Plan {
            pools: vec![
                pool(PoolKind::VirtualIp, "10.77.0.11-10.77.0.30"),
                pool(PoolKind::Loopback, "127.77.0.2-127.77.0.41"),
            ],
            policy,
            ..Plan::default()
        };
        let map = Some(Map::create(&directory, &plan).unwrap());
        Self { directory, plan, map }
    }

    /// Puts another map in the place of this one; `change` may change the policy.
    pub fn replace(&mut self, change: impl FnOnce(&mut Policy)) {
        change(&mut self.plan.policy);
        // A map that would say the same stays.
        self.plan.settings.low_water += 1;
        self.map = Some(Map::create(&self.directory, &self.plan).unwrap());
    }

    fn map(&self) -> &Map {
        self.map.as_ref().unwrap()
    }

    /// The names of the files beside the map.
    pub fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.directory).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// A new session with this number; it gets the addresses of the numbers before plus one.
    pub fn session(&self, number: u64) -> Session<'_> {
        self.open(number.to_string().parse().unwrap())
    }

    /// The session of this id.
    pub fn open(&self, id: SessionId) -> Session<'_> {
        let opened = self.map().open_session(id, &OpenOptions::default(), 0).unwrap();
        let addresses = self.map().reader().unwrap().addresses(&opened.leases);
        Session { handle: opened.handle, addresses, directory: &self.directory }
    }

    /// Closes a session.
    pub fn close(&self, handle: &Handle) {
        self.map().close_by_handle(handle, 0).unwrap();
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.map = None;
        _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// A rule with both features for a program of this name.
pub fn listed(name: &str) -> Program {
    Program {
        pattern: name.to_owned(),
        features: Features { virtual_ip: true, loopback: true, client_ip: false },
        ..Program::default()
    }
}

/// A port that no other test of this run uses, nor the one after it.
pub fn port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(21000);
    NEXT.fetch_add(2, Ordering::Relaxed)
}

/// Where a test program is: `cargo xtask test windows` compiles them.
pub fn program(name: &str) -> PathBuf {
    let directory = std::env::var_os("VIPOOL_PROGRAMS")
        .expect("VIPOOL_PROGRAMS names the directory of the compiled tests/c/*.c");
    Path::new(&directory).join(name)
}

/// A file of the hook layer as it is installed.
pub fn installed(name: &str) -> PathBuf {
    let directory = std::env::var_os("VIPOOL_HOOK")
        .expect("VIPOOL_HOOK names the directory of vipool_hook.dll and vipool-launch.exe");
    Path::new(&directory).join(name)
}

impl Session<'_> {
    pub fn v(&self) -> Ipv4Addr {
        self.addresses.v4.unwrap()
    }

    pub fn l(&self) -> Ipv4Addr {
        self.addresses.loopback.unwrap()
    }

    /// The launcher, about to start a program in this session.
    pub fn launch(&self, program: &Path) -> Command {
        let mut command = Command::new(installed("vipool-launch.exe"));
        command.arg(program);
        self.enter(&mut command);
        command
    }

    /// Puts a command into this session.
    pub fn enter(&self, command: &mut Command) {
        command
            .env("VIPOOL_MAP", self.directory)
            .env("VIPOOL_LEASE", self.handle.to_string())
            .env_remove("VIPOOL_DISABLE");
    }

    fn arguments(&self, row: u32, port: u16) -> [String; 5] {
        let (v, l) = (self.v().to_string(), self.l().to_string());
        [row.to_string(), port.to_string(), v, l, HOST.to_owned()]
    }

    /// What a row prints in this session.
    pub fn row(&self, row: u32, port: u16) -> String {
        output(self.launch(&program("rows.exe")).args(self.arguments(row, port)))
    }

    /// What a row prints without the hook layer.
    pub fn plain_row(&self, row: u32, port: u16) -> String {
        output(Command::new(program("rows.exe")).args(self.arguments(row, port)))
    }

    /// A row that listens in this session, once it is ready.
    pub fn start_row(&self, row: u32, port: u16) -> Listening {
        Listening::start(self.launch(&program("rows.exe")).args(self.arguments(row, port)))
    }

    /// The same without the hook layer.
    pub fn start_plain_row(&self, row: u32, port: u16) -> Listening {
        Listening::start(Command::new(program("rows.exe")).args(self.arguments(row, port)))
    }
}

/// Starts a program. Where many start at once, Wine now and then answers that of an internal error
/// it has started none: then once more.
pub fn started<T>(mut start: impl FnMut() -> io::Result<T>) -> T {
    const ERROR_INTERNAL_ERROR: i32 = 1359;
    let mut tries = 0;
    loop {
        match start() {
            Err(error) if error.raw_os_error() == Some(ERROR_INTERNAL_ERROR) && tries < 5 => {
                tries += 1;
                std::thread::sleep(Duration::from_millis(200));
            }
            answer => return answer.unwrap(),
        }
    }
}

/// What a program prints; it must end well.
pub fn output(command: &mut Command) -> String {
    let output = started(|| command.stdin(Stdio::null()).stderr(Stdio::inherit()).output());
    let text = String::from_utf8(output.stdout).unwrap().replace("\r\n", "\n");
    assert!(output.status.success(), "{command:?}: {:?}\n{text}", output.status);
    text
}

/// A program that listens until this goes out of scope.
pub struct Listening {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    /// What it printed before it was ready.
    pub said: String,
}

impl Listening {
    pub fn start(command: &mut Command) -> Self {
        let mut child = started(|| command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn());
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut listening = Self { child, lines, said: String::new() };
        let (said, is_ready) = listening.read();
        listening.said = said;
        if !is_ready {
            let status = listening.child.wait().unwrap();
            panic!("{command:?} ended ({status:?}) before it was ready:\n{}", listening.said);
        }
        listening
    }

    /// Tells it to go on; what it says until it is ready again, or ends.
    pub fn ask(&mut self) -> String {
        self.child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
        self.read().0
    }

    fn read(&mut self) -> (String, bool) {
        let mut said = String::new();
        loop {
            match self.lines.next() {
                Some(Ok(line)) if line.trim_end() == "ready" => return (said, true),
                Some(Ok(line)) => said += &format!("{}\n", line.trim_end()),
                _ => return (said, false),
            }
        }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        // The launcher waits for the program, which ends with its standard input.
        if let Some(mut stdin) = self.child.stdin.take() {
            _ = stdin.write_all(b"\n");
        }
        _ = self.child.wait();
    }
}
