//! The test environment: a host in its own network namespace, an external host, a map, sessions,
//! and programs that run in the sessions.
//!
//! A test calls [`in_namespace`], which runs the test again inside new namespaces. So each test has
//! its own ports, interfaces and map. A test requires root only if it passes "root" in `needs`.

#![allow(dead_code)]

use std::env;
use std::io::{BufRead, BufReader, Read};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use vipool::Tick;
use vipool::map::{Map, OpenOptions, Plan};
use vipool::policy::{Features, Policy, PortRange, Program};
use vipool::pool::{Pool, PoolKind};
use vipool::rewrite::{KernelListeners, ListenerLookup, ListenerMatch, Protocol};
use vipool::session::{Addresses, Handle, SessionId};
use vipool_testing::namespace::{self, INSIDE_VARIABLE};
use vipool_testing::{ChildGuard, preload_path};

/// The host's own address.
pub const HOST_ADDRESS: &str = "10.99.5.1";
/// The address of the external host on the same link.
pub const EXTERNAL_ADDRESS: &str = "10.99.5.2";

/// This variable contains the path of a hook that was built with AddressSanitizer (`cargo xtask
/// test address-hook`). If it is set, tests preload this hook, and also build the C programs with
/// AddressSanitizer.
const SANITIZED_HOOK_VARIABLE: &str = "VIPOOL_SANITIZED_HOOK";

/// Runs `body` in new namespaces, in another process that runs the test `name` again.
///
/// Before that, `prepare` runs outside the namespaces and builds the programs. The test is skipped
/// if one of `needs`, `cc`, `ip` or the right to create namespaces is missing.
pub fn in_namespace(name: &str, needs: &[&str], prepare: impl FnOnce(), body: impl FnOnce()) {
    namespace::in_namespace(name, &[&["cc"], needs].concat(), prepare, body);
}

/// Runs this program again in new namespaces, and waits until the new process exits.
///
/// Returns `false` in the first process. In the new process, the function only returns `true`.
pub fn reenter() -> bool {
    namespace::reenter(&["cc"])
}

/// Compiles files of `tests/c` into a program and returns its path.
pub fn compile(name: &str, files: &[&str], flags: &[&str]) -> PathBuf {
    compile_sources(
        "cc",
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/c"),
        name,
        files,
        flags,
    )
}

/// Compiles files of `tests/c` with a cross compiler.
pub fn cross_compile(compiler: &str, name: &str, files: &[&str]) -> PathBuf {
    compile_sources(
        compiler,
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/c"),
        name,
        files,
        &[],
    )
}

/// Compiles files of `source_directory` into a program.
pub fn compile_in(source_directory: &Path, name: &str, files: &[&str], flags: &[&str]) -> PathBuf {
    compile_sources("cc", source_directory, name, files, flags)
}

/// Compiles files into a program. Inside the namespaces, only returns the path of the program,
/// because the run outside has compiled it.
fn compile_sources(
    compiler: &str,
    source_directory: &Path,
    name: &str,
    files: &[&str],
    flags: &[&str],
) -> PathBuf {
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    if env::var_os(INSIDE_VARIABLE).is_some() {
        return program;
    }
    let status = Command::new(compiler)
        .args([
            "-std=gnu11",
            "-g",
            "-O1",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-Wno-nonnull",
            "-pthread",
        ])
        .args(flags)
        .args(env::var_os(SANITIZED_HOOK_VARIABLE).map(|_| "-fsanitize=address"))
        .arg("-o")
        .arg(&program)
        .args(files.iter().map(|file| source_directory.join(file)))
        .status()
        .expect("the compiler starts");
    assert!(status.success(), "{files:?} do not compile");
    program
}

/// The C sources of the program that runs the rows of docs/socket-matrix.md.
pub const MATRIX_SOURCES: &[&str] = &[
    "matrix.c",
    "common.c",
    "rows_bind.c",
    "rows_connect.c",
    "rows_datagrams.c",
    "rows_errors.c",
    "rows_messages.c",
    "rows_ipv6.c",
    "rows_descriptors.c",
    "rows_lookups.c",
    "rows_unhooked.c",
    "rows_inherited.c",
];

/// A host with a map. Dropping this value removes the directory of the map.
pub struct TestHost {
    pub directory: PathBuf,
    pub map: Map,
    plan: Plan,
    external_host: ChildGuard,
}

impl TestHost {
    /// Creates a host with these rules in its process list.
    pub fn new(programs: Vec<Program>) -> Self {
        Self::with_policy(
            Policy::new(programs)
                .with_host_addresses([ip(HOST_ADDRESS), ip("fd99::1"), ip("fe80::1")])
                .with_wildcard_udp_ports([PortRange { first: 5353, last: 5353 }]),
        )
    }

    /// Creates a host with this policy.
    pub fn with_policy(policy: Policy) -> Self {
        let (external_host, _) = start_until_ready(Command::new("unshare").args([
            "-n",
            "sh",
            "-c",
            "ip link set lo up && echo ready && exec sleep infinity",
        ]));
        let external_pid = external_host.0.id().to_string();
        for arguments in [
            "link set lo up",
            "link add v0 type veth peer name v1",
            &format!("link set v1 netns {external_pid}"),
            "link set v0 up",
            "addr add 10.99.5.1/24 dev v0",
            "addr add fd99::1/64 dev v0 nodad",
            "addr add fe80::1/64 dev v0 nodad",
        ] {
            run_ip_command(arguments);
        }
        for last_part in 10..14 {
            run_ip_command(&format!("addr add 10.99.5.{last_part}/24 dev v0"));
            // The kernel does not select a deprecated address as the source of the host's own
            // connections.
            run_ip_command(&format!("addr add fd99::{last_part}/64 dev v0 nodad preferred_lft 0"));
        }
        run_ip_command("route add 239.0.0.0/8 dev v0");
        let script = "ip addr add 10.99.5.2/24 dev v1; ip addr add fd99::2/64 dev v1 nodad; \
                      ip link set v1 up";
        let status = external_command(&external_pid, "sh").args(["-c", script]).status().unwrap();
        assert!(status.success());
        let run_id = env::var(INSIDE_VARIABLE).expect("in_namespace was called");
        let directory = env::temp_dir().join(format!("vipool-hook-{run_id}"));
        std::fs::create_dir_all(&directory).unwrap();
        // The host name resolves to the host's addresses.
        let hosts_file = directory.join("hosts");
        let hosts_text =
            "127.0.0.1 localhost\n::1 localhost\n10.99.5.1 matrixhost\nfd99::1 matrixhost\n";
        std::fs::write(&hosts_file, hosts_text).unwrap();
        std::fs::write("/proc/sys/kernel/hostname", "matrixhost").unwrap();
        let mount_status =
            Command::new("mount").arg("--bind").arg(&hosts_file).arg("/etc/hosts").status();
        assert!(mount_status.unwrap().success());
        let pool = |kind, range: &str| Pool::new("default", kind, &[range.parse().unwrap()], 64);
        let plan = Plan::new([
            pool(PoolKind::VirtualIp, "10.99.5.10-10.99.5.13").unwrap(),
            pool(PoolKind::VirtualIp, "fd99::10-fd99::13").unwrap(),
            pool(PoolKind::Loopback, "127.99.0.2-127.99.0.101").unwrap(),
        ])
        .with_policy(policy)
        .with_settings(vipool::map::Settings::without_cool_down());
        let map = Map::create(&directory, &plan).expect("the map is created");
        Self { directory, map, plan, external_host }
    }

    /// Replaces the map with a map that has a changed policy.
    pub fn change_policy(&mut self, change: impl FnOnce(&mut Policy)) {
        change(&mut self.plan.policy);
        // `Map::create` replaces the map only if the plan has changed, and `change` may have no
        // effect.
        self.plan.settings.low_water += 1;
        self.map = Map::create(&self.directory, &self.plan).expect("the map is replaced");
    }

    /// Returns the policy of the map.
    pub fn policy(&self) -> &Policy {
        &self.plan.policy
    }

    /// Replaces the map with a map whose sessions have no IPv6 address.
    pub fn remove_ipv6_pool(&mut self) {
        self.plan.pools.retain(|pool| pool.is_ipv4() == Some(true));
        self.map = Map::create(&self.directory, &self.plan).expect("the map is replaced");
    }

    /// Replaces the map with a map that has changed rules.
    pub fn change_rules(&mut self, change: impl FnMut(&mut Program)) {
        self.change_policy(|policy| policy.programs.iter_mut().for_each(change));
    }

    /// Opens the session with this number. Returns it without a change if it is already open.
    pub fn session(&self, number: u64) -> TestSession<'_> {
        let id: SessionId = number.to_string().parse().unwrap();
        let opened = self
            .map
            .open_session(id, &OpenOptions::default(), Tick::now())
            .expect("the session opens");
        let addresses = self.map.reader().unwrap().addresses(&opened.leases);
        TestSession { host: self, handle: opened.handle, addresses }
    }

    /// Configures the C library, so that it sends DNS queries to this address.
    pub fn set_name_server(&self, server: &str) {
        let file = self.directory.join("resolv.conf");
        std::fs::write(&file, format!("nameserver {server}\n")).unwrap();
        let mount_status =
            Command::new("mount").arg("--bind").arg(&file).arg("/etc/resolv.conf").status();
        assert!(mount_status.unwrap().success());
    }

    /// Returns a command that runs on the external host.
    pub fn external_command(&self, program: impl AsRef<Path>) -> Command {
        external_command(&self.external_host.0.id().to_string(), program)
    }
}

impl Drop for TestHost {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// A session of a [`TestHost`].
pub struct TestSession<'h> {
    host: &'h TestHost,
    pub handle: Handle,
    pub addresses: Addresses,
}

impl TestSession<'_> {
    /// Returns a command that runs in the session, with the hook.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        command
            .env("LD_PRELOAD", preload_value())
            .env("VIPOOL_MAP", &self.host.directory)
            .env("VIPOOL_LEASE", self.handle.to_string());
        command
    }

    pub fn v(&self) -> String {
        self.addresses.v4.expect("a virtual IP").to_string()
    }

    pub fn v6(&self) -> String {
        self.addresses.v6.expect("a virtual IP").to_string()
    }

    pub fn l(&self) -> String {
        self.addresses.loopback.expect("a loopback address").to_string()
    }

    pub fn l6(&self) -> String {
        self.addresses.loopback6.expect("a second loopback address").to_string()
    }
}

/// Returns the value of `LD_PRELOAD` that loads the hook. The library of AddressSanitizer must come
/// before the hook.
fn preload_value() -> String {
    let Some(sanitized_hook) = env::var_os(SANITIZED_HOOK_VARIABLE) else {
        return preload_path().to_str().unwrap().to_owned();
    };
    let sanitizer_library = output_of(Command::new("cc").arg("-print-file-name=libasan.so"));
    format!("{}:{}", sanitizer_library.trim(), sanitized_hook.to_str().unwrap())
}

/// Returns a rule with the features `virtual-ip` and `loopback`.
pub fn listed_program(pattern: impl AsRef<Path>) -> Program {
    Program::new(pattern.as_ref().to_str().unwrap())
        .with_features(Features::default().with_virtual_ip(true).with_loopback(true))
}

/// Returns a rule that also applies to the children of the program.
pub fn inheriting_program(pattern: impl AsRef<Path>) -> Program {
    let mut program = listed_program(pattern);
    program.flags.inherit = true;
    program
}

/// Returns the path of the Python binary. The command `python3` can be a wrapper of a version
/// manager.
pub fn python_path() -> PathBuf {
    let script = "import os, sys; print(os.path.realpath(sys.executable))";
    PathBuf::from(output_of(Command::new("python3").args(["-c", script])).trim())
}

/// Starts a program, waits for its first line of output, and returns this line. Panics if the line
/// does not begin with "ready".
pub fn start_until_ready(command: &mut Command) -> (ChildGuard, String) {
    let (mut process, mut output) = start_piped(command);
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    if !line.starts_with("ready") {
        let _ = output.read_to_string(&mut line);
        panic!("{command:?} is not ready: {line} ({:?})", process.0.wait());
    }
    // The pipe stays open, so that later output does not raise SIGPIPE.
    std::mem::forget(output);
    (process, line)
}

/// Starts a program with pipes for its input and output.
pub fn start_piped(command: &mut Command) -> (ChildGuard, BufReader<ChildStdout>) {
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut process = ChildGuard::start(command);
    let output = BufReader::new(process.0.stdout.take().unwrap());
    (process, output)
}

/// Runs a program until it exits, and returns its standard output. Panics if the program failed.
pub fn output_of(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    stdout_on_success(command, output)
}

/// Returns the standard output of a program. Panics if the program failed.
pub fn stdout_on_success(command: &Command, output: Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{text}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

/// Waits until any process listens on this TCP address. Panics if `child` exits first, or after
/// about 30 seconds.
pub fn wait_for_listener(address: &str, child: &mut Child) {
    let address = address.parse().unwrap();
    for _ in 0..600 {
        let listener = KernelListeners.find(&[address], Protocol::Tcp, None);
        if listener == ListenerMatch::Index(0) {
            return;
        }
        if let Some(status) = child.try_wait().unwrap() {
            panic!("the program ended ({status}) before it listened on {address}");
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    panic!("nothing listens on {address}");
}

pub fn run_ip_command(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().unwrap();
    assert!(status.success(), "ip {arguments}");
}

fn external_command(pid: &str, program: impl AsRef<Path>) -> Command {
    let mut command = Command::new("nsenter");
    command.args(["-t", pid, "-n", "--"]).arg(program.as_ref());
    command
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}
