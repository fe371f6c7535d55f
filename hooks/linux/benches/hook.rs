//! What the hook costs, in ratios within one run (`cargo xtask bench hook`, `--json`).
//!
//! `hook.c` alternates raw system calls and hooked ones in one process. It runs listed, unlisted,
//! and, where they are installed, under other libraries that stand before socket calls; and without
//! a hook, with nothing but what this one asks of the kernel and has it do (the floor). Starting a
//! process is measured beside that.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use vipool::policy::PortRange;
use vipool_testing::preload_path;

#[path = "../tests/support/mod.rs"]
mod support;

use support::{TestHost, compile_in, listed_program, output_of, reenter, run_ip_command};

/// An address of this machine that is none of the policy's: it stands for a host elsewhere.
const HOST_ADDRESS: &str = "10.99.5.3";

/// The most that each operation of a listed program may cost: by a ratio or in nanoseconds.
const LIMITS: &[(&str, &str)] = &[
    ("getsockname", "10 ns"),
    ("getsockname-of-V", "10 ns"),
    ("getpeername", "10 ns"),
    ("getpeername-of-V", "10 ns"),
    ("bind-cycle", "1.05"),
    ("udp-connect", "1.10"),
    ("connect-cycle", "1.15"),
    ("sendto-recvfrom", "1.06"),
    ("sendto-recvfrom-own-port", "1.06"),
];

struct Row {
    under: &'static str,
    operation: String,
    numbers: Option<[f64; 4]>,
}

fn main() {
    let json = std::env::args().any(|argument| argument == "--json");
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches");
    let bench = compile_in(&sources, "hook-bench", &["hook.c"], &["-O2", "-g0"]);
    preload_path();
    if !reenter() {
        return;
    }
    measure(&bench, |row| print(&row, json));
}

fn measure(bench: &Path, show: impl Fn(Row)) {
    let listed = vipool::policy::Program {
        own_ports: vec![PortRange { first: 8904, last: 8904 }],
        ..listed_program(bench)
    };
    let unlisted = bench.with_file_name("hook-bench-unlisted");
    std::fs::copy(bench, &unlisted).expect("it can be copied");
    let mut host = TestHost::new(vec![listed]);
    run_ip_command(&format!("addr add {HOST_ADDRESS}/24 dev v0"));
    let session = host.session(1);
    let (v, l) = (session.v(), session.l());
    let with = |mut command: Command| {
        command.env("BENCH_HOST", HOST_ADDRESS).env("BENCH_V", &v).env("BENCH_L", &l);
        output_of(&mut command)
    };
    let library = |name: &str| {
        let path = PathBuf::from("/usr/lib/x86_64-linux-gnu").join(name);
        path.exists().then_some(path)
    };
    let other = |path: PathBuf| {
        let mut command = Command::new(bench);
        command.env("LD_PRELOAD", path).env("SOCKET_WRAPPER_DIR", &host.directory);
        command.env("SOCKET_WRAPPER_DEFAULT_IFACE", "10").env("PROXYCHAINS_QUIET_MODE", "1");
        command
    };
    let each = |under, output: &str| {
        for line in output.lines() {
            let mut words = line.split(' ');
            let Some(operation) = words.next() else { continue };
            let numbers: Vec<f64> = words.filter_map(|word| word.parse().ok()).collect();
            let numbers = numbers.try_into().ok();
            show(Row { under, operation: operation.to_owned(), numbers });
        }
    };
    let plain = with(Command::new(bench));
    each("nothing", &plain);
    let mut asking = Command::new(bench);
    asking.env("BENCH_ASKING", "1");
    each("the floor", &with(asking));
    each("unlisted", &with(session.command(&unlisted)));
    each("listed", &with(session.command(bench)));
    show(start_up("start-unlisted", || session.command("/bin/true")));
    for (under, path) in [
        ("socket_wrapper", "libsocket_wrapper.so"),
        ("torsocks", "torsocks/libtorsocks.so"),
        ("proxychains4", "libproxychains.so.4"),
    ] {
        let Some(path) = library(path) else {
            show(Row { under, operation: "not installed".to_owned(), numbers: None });
            continue;
        };
        // What they do not support, or the bench's own raw calls beside theirs, ends the program or
        // makes it wait: each in one of its own.
        for operation in plain.lines().filter_map(|line| line.split(' ').next()) {
            let mut command = other(path.clone());
            command
                .arg(operation)
                .env("BENCH_HOST", HOST_ADDRESS)
                .env("BENCH_V", &v)
                .env("BENCH_L", &l);
            let output = command.output().expect("it starts");
            let output = String::from_utf8_lossy(&output.stdout);
            // They may write something too.
            let line = output.lines().find(|line| line.split(' ').next() == Some(operation));
            each(under, line.unwrap_or(operation));
        }
    }
    host.replace(|policy| policy.programs.push(listed_program("true")));
    let session = host.session(1);
    show(start_up("start-listed", || session.command("/bin/true")));
}

/// What it costs a process more to start: pairs that alternate, medians.
fn start_up(under: &'static str, with: impl Fn() -> Command) -> Row {
    let time = |mut command: Command| {
        // Cargo's own, which makes every library be looked for in many places.
        command.env_remove("LD_LIBRARY_PATH");
        let start = Instant::now();
        command.status().expect("it starts");
        start.elapsed()
    };
    let mut pairs: Vec<(Duration, Duration)> = Vec::new();
    for _ in 0..401 {
        let plain = time(Command::new("/bin/true"));
        pairs.push((plain, time(with())));
    }
    let median = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let nanos = |time: &Duration| time.as_nanos() as f64;
    let plain = median(pairs.iter().map(|(plain, _)| nanos(plain)).collect());
    let hooked = median(pairs.iter().map(|(_, hooked)| nanos(hooked)).collect());
    let more = median(pairs.iter().map(|(plain, hooked)| nanos(hooked) - nanos(plain)).collect());
    Row { under, operation: "process".into(), numbers: Some([plain, hooked, more, hooked / plain]) }
}

fn print(row: &Row, json: bool) {
    let limit = LIMITS.iter().find(|(name, _)| *name == row.operation && row.under == "listed");
    let limit = match (row.under, limit) {
        ("unlisted", _) => "10 ns",
        ("start-unlisted" | "start-listed", _) => "200000 ns",
        (_, Some((_, limit))) => limit,
        _ => "",
    };
    let Row { under, operation, numbers } = row;
    match (numbers, json) {
        (Some([raw, hooked, more, ratio]), true) => println!(
            "{{\"under\":\"{under}\",\"operation\":\"{operation}\",\"raw_ns\":{raw:.1},\
             \"hooked_ns\":{hooked:.1},\"more_ns\":{more:.1},\"ratio\":{ratio:.3},\
             \"limit\":\"{limit}\"}}"
        ),
        (None, true) => println!("{{\"under\":\"{under}\",\"operation\":\"{operation}\"}}"),
        (Some([raw, hooked, more, ratio]), false) => println!(
            "{under:16} {operation:26} {raw:10.1} {hooked:10.1} {more:10.1} ns {ratio:7.3}  {limit}"
        ),
        (None, false) => println!("{under:16} {operation:26} could not be measured"),
    }
}
