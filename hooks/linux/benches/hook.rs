//! Measures the cost of the hook (`cargo xtask bench hook`, with `--json` for JSON lines).
//!
//! `hook.c` alternates direct system calls and library calls in one process. The benchmark runs
//! this program as a listed program, as an unlisted program, and with three other interposing
//! libraries if they are installed. The floor is a run without the hook: the program itself makes
//! the additional system calls that a hook cannot avoid. The benchmark also measures the start of a
//! process.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use vipool::policy::PortRange;
use vipool_testing::preload_path;

#[path = "../tests/support/mod.rs"]
mod support;

use support::{TestHost, compile_in, listed_program, output_of, reenter, run_ip_command};

/// An address of this machine that is not in the policy. The hook treats it as the address of an
/// external host.
const HOST_ADDRESS: &str = "10.99.5.3";

/// Limits for operations in a listed program: either for the ratio of hooked to direct time, or for
/// the difference in nanoseconds.
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

struct Measurement {
    environment: &'static str,
    operation: String,
    numbers: Option<[f64; 4]>,
}

fn main() {
    let is_json = std::env::args().any(|argument| argument == "--json");
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches");
    let bench = compile_in(&sources, "hook-bench", &["hook.c"], &["-O2", "-g0"]);
    preload_path();
    if !reenter() {
        return;
    }
    measure(&bench, |row| print(&row, is_json));
}

fn measure(bench: &Path, report: impl Fn(Measurement)) {
    let listed = listed_program(bench).with_own_ports([PortRange { first: 8904, last: 8904 }]);
    let unlisted = bench.with_file_name("hook-bench-unlisted");
    std::fs::copy(bench, &unlisted).expect("the program can be copied");
    let mut host = TestHost::new(vec![listed]);
    run_ip_command(&format!("addr add {HOST_ADDRESS}/24 dev v0"));
    let session = host.session(1);
    let (v, l) = (session.v(), session.l());
    let run = |mut command: Command| {
        command.env("BENCH_HOST", HOST_ADDRESS).env("BENCH_V", &v).env("BENCH_L", &l);
        output_of(&mut command)
    };
    let find_library = |name: &str| {
        let path = PathBuf::from("/usr/lib/x86_64-linux-gnu").join(name);
        path.exists().then_some(path)
    };
    let command_with_library = |path: PathBuf| {
        let mut command = Command::new(bench);
        command.env("LD_PRELOAD", path).env("SOCKET_WRAPPER_DIR", &host.directory);
        command.env("SOCKET_WRAPPER_DEFAULT_IFACE", "10").env("PROXYCHAINS_QUIET_MODE", "1");
        command
    };
    let report_lines = |environment, output: &str| {
        for line in output.lines() {
            let mut words = line.split(' ');
            let Some(operation) = words.next() else { continue };
            let numbers: Vec<f64> = words.filter_map(|word| word.parse().ok()).collect();
            let numbers = numbers.try_into().ok();
            report(Measurement { environment, operation: operation.to_owned(), numbers });
        }
    };
    let unhooked = run(Command::new(bench));
    report_lines("nothing", &unhooked);
    let mut floor = Command::new(bench);
    floor.env("BENCH_FLOOR", "1");
    report_lines("the floor", &run(floor));
    report_lines("unlisted", &run(session.command(&unlisted)));
    report_lines("listed", &run(session.command(bench)));
    report(measure_start("start-unlisted", || session.command("/bin/true")));
    for (environment, path) in [
        ("socket_wrapper", "libsocket_wrapper.so"),
        ("torsocks", "torsocks/libtorsocks.so"),
        ("proxychains4", "libproxychains.so.4"),
    ] {
        let Some(path) = find_library(path) else {
            report(Measurement {
                environment,
                operation: "not installed".to_owned(),
                numbers: None,
            });
            continue;
        };
        // With another library, an unsupported call can terminate or block the program. A direct
        // system call between the library's calls can have the same effect. Therefore each
        // operation runs in its own process.
        for operation in unhooked.lines().filter_map(|line| line.split(' ').next()) {
            let mut command = command_with_library(path.clone());
            command
                .arg(operation)
                .env("BENCH_HOST", HOST_ADDRESS)
                .env("BENCH_V", &v)
                .env("BENCH_L", &l);
            let output = command.output().expect("the program starts");
            let output = String::from_utf8_lossy(&output.stdout);
            // The library may print other lines.
            let line = output.lines().find(|line| line.split(' ').next() == Some(operation));
            report_lines(environment, line.unwrap_or(operation));
        }
    }
    host.change_policy(|policy| policy.programs.push(listed_program("true")));
    let session = host.session(1);
    report(measure_start("start-listed", || session.command("/bin/true")));
}

/// Measures how long `/bin/true` runs without and with the hook.
///
/// The results are medians over pairs of runs: first without the hook, then with the hook.
fn measure_start(environment: &'static str, hooked_command: impl Fn() -> Command) -> Measurement {
    let time = |mut command: Command| {
        // Cargo sets this variable. With the variable, the dynamic linker searches more directories
        // for every library.
        command.env_remove("LD_LIBRARY_PATH");
        let start = Instant::now();
        command.status().expect("the program starts");
        start.elapsed()
    };
    let mut pairs: Vec<(Duration, Duration)> = Vec::new();
    for _ in 0..401 {
        let unhooked = time(Command::new("/bin/true"));
        pairs.push((unhooked, time(hooked_command())));
    }
    let median = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let nanos = |time: &Duration| time.as_nanos() as f64;
    let unhooked = median(pairs.iter().map(|(unhooked, _)| nanos(unhooked)).collect());
    let hooked = median(pairs.iter().map(|(_, hooked)| nanos(hooked)).collect());
    let difference =
        median(pairs.iter().map(|(unhooked, hooked)| nanos(hooked) - nanos(unhooked)).collect());
    Measurement {
        environment,
        operation: "process".into(),
        numbers: Some([unhooked, hooked, difference, hooked / unhooked]),
    }
}

fn print(row: &Measurement, is_json: bool) {
    let limit =
        LIMITS.iter().find(|(name, _)| *name == row.operation && row.environment == "listed");
    let limit = match (row.environment, limit) {
        ("unlisted", _) => "10 ns",
        ("start-unlisted" | "start-listed", _) => "200000 ns",
        (_, Some((_, limit))) => limit,
        _ => "",
    };
    let Measurement { environment, operation, numbers } = row;
    match (numbers, is_json) {
        (Some([raw, hooked, difference, ratio]), true) => println!(
            "{{\"under\":\"{environment}\",\"operation\":\"{operation}\",\"raw_ns\":{raw:.1},\
             \"hooked_ns\":{hooked:.1},\"more_ns\":{difference:.1},\"ratio\":{ratio:.3},\
             \"limit\":\"{limit}\"}}"
        ),
        (None, true) => println!("{{\"under\":\"{environment}\",\"operation\":\"{operation}\"}}"),
        (Some([raw, hooked, difference, ratio]), false) => println!(
            "{environment:16} {operation:26} {raw:10.1} {hooked:10.1} {difference:10.1} ns {ratio:7.3}  {limit}"
        ),
        (None, false) => println!("{environment:16} {operation:26} could not be measured"),
    }
}
