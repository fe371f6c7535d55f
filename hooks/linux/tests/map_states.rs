//! Counts the allocations and system calls of every hooked function: with the current map, without
//! a map, and with a new map that the hook cannot use. The hook never allocates during a call. If
//! the hook cannot follow a new map, it makes no additional system calls, except for a few attempts
//! to follow the new map.

mod support;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use support::{TestHost, compile, in_namespace, listed_program, start_piped};
use vipool::Tick;
use vipool::map::{MAP_FILE, Map};
use vipool::policy::PortRange;
use vipool_testing::{ChildGuard, preload_path};

/// Functions that allocate and make many system calls also without the hook.
const LOOKUPS: &[&str] = &[
    "getaddrinfo",
    "gethostbyaddr",
    "gethostbyaddr_r",
    "gethostbyname",
    "gethostbyname2",
    "gethostbyname2_r",
    "gethostbyname_r",
    "getifaddrs",
    "getnameinfo",
];

/// The number of rounds in one measurement. In each round, the program calls every hooked function.
const ROUNDS: usize = 10;

fn test_program() -> PathBuf {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| compile("map-states", &["map_states.c", "common.c"], &[])).clone()
}

fn on_test_host(test_name: &str, body: impl FnOnce(TestHost)) {
    let prepare = || {
        test_program();
        preload_path();
    };
    in_namespace(test_name, &["strace"], prepare, || {
        let rule = listed_program(test_program());
        body(TestHost::new(vec![rule.with_own_ports([PortRange { first: 8311, last: 8311 }])]));
    });
}

/// A running program under strace.
struct TracedProgram {
    process: ChildGuard,
    output: BufReader<ChildStdout>,
    trace_file: PathBuf,
}

/// The largest number of allocations of one call, for each function.
type AllocationCounts = BTreeMap<String, u64>;

impl TracedProgram {
    /// Starts the program in session 1 of `host`, with the map in `directory`.
    fn start(host: &TestHost, directory: &Path, has_hook: bool) -> Self {
        let trace_file = host.directory.join("trace");
        let mut command = Command::new("strace");
        command.arg("-o").arg(&trace_file).arg(test_program());
        for (name, value) in host.session(1).command(test_program()).get_envs() {
            if has_hook || name != "LD_PRELOAD" {
                command.env(name, value.unwrap());
            }
        }
        let (process, mut output) = start_piped(command.env("VIPOOL_MAP", directory));
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Self { process, output, trace_file }
    }

    /// Sends a command, and returns the lines of the answer.
    fn command(&mut self, command: &str) -> Vec<String> {
        writeln!(self.process.0.stdin.as_mut().unwrap(), "{command}").unwrap();
        let lines = self.output.by_ref().lines().map(Result::unwrap);
        lines.take_while(|line| line != "done").collect()
    }

    fn measure(&mut self) -> AllocationCounts {
        let parse = |line: &String| {
            let (name, count) = line.split_once(' ').unwrap();
            (name.to_owned(), count.parse().unwrap())
        };
        self.command(&format!("measure {ROUNDS}")).iter().map(parse).collect()
    }

    /// Ends the program, and returns the calls of each measurement.
    fn finish(mut self) -> Vec<Vec<Call>> {
        drop(self.process.0.stdin.take());
        assert!(self.process.0.wait().unwrap().success());
        parse_trace(&fs::read_to_string(&self.trace_file).unwrap())
    }
}

/// A call of a hooked function, with the lines of the trace for its system calls.
struct Call {
    name: String,
    system_calls: Vec<String>,
}

impl Call {
    /// Returns whether the hook tried to open a map during the call.
    fn is_attempt(&self) -> bool {
        self.system_calls.iter().any(|line| line.contains("/map\""))
    }
}

fn parse_trace(trace: &str) -> Vec<Vec<Call>> {
    let mut measurements: Vec<Vec<Call>> = Vec::new();
    let mut is_inside_call = false;
    for line in trace.lines() {
        let marker = line.strip_prefix("write(-1, \"").and_then(|rest| rest.split('"').next());
        match (marker, measurements.last_mut()) {
            (Some("measure"), _) => measurements.push(Vec::new()),
            (Some("end"), _) => is_inside_call = false,
            (Some(name), Some(calls)) => {
                is_inside_call = true;
                calls.push(Call { name: name.to_owned(), system_calls: Vec::new() });
            }
            (None, Some(calls)) if is_inside_call => {
                calls.last_mut().unwrap().system_calls.push(line.to_owned());
            }
            _ => {}
        }
    }
    measurements
}

/// Returns the number of measured calls in which the hook tried to open a map.
///
/// Every other call must make at most as many system calls as the same call in the last round of
/// `baseline_calls`. Calls of [`LOOKUPS`] are not compared.
fn count_attempts(baseline_calls: &[Call], measured_calls: &[Call]) -> usize {
    let calls_per_round = baseline_calls.len() / ROUNDS;
    assert_eq!(baseline_calls.len(), measured_calls.len());
    let expected_calls = baseline_calls[baseline_calls.len() - calls_per_round..].iter().cycle();
    let mut attempt_count = 0;
    for (expected_call, call) in expected_calls.zip(measured_calls) {
        assert_eq!(expected_call.name, call.name);
        if call.is_attempt() {
            attempt_count += 1;
        } else if !LOOKUPS.contains(&call.name.as_str()) {
            let (expected, actual) = (&expected_call.system_calls, &call.system_calls);
            assert!(actual.len() <= expected.len(), "{}: {actual:#?}, {expected:#?}", call.name);
        }
    }
    attempt_count
}

/// Checks that no socket call allocates, and that no lookup allocates more than without the hook.
fn check_allocations(without_hook: &AllocationCounts, measured: &AllocationCounts) {
    let symbols = include_str!("../symbols.txt");
    assert!(symbols.lines().eq(measured.keys()), "{measured:?}");
    for (name, count) in measured {
        let limit = if LOOKUPS.contains(&name.as_str()) { without_hook[name] } else { 0 };
        assert!(*count <= limit, "{name} makes {count} allocations, not {limit}");
    }
}

/// Runs the program. Measures the calls once with the current map, and twice after `change`.
///
/// Returns the number of attempts to follow a new map in the two later measurements, and their
/// duration.
fn measure_change(
    host: &mut TestHost,
    change: impl FnOnce(&mut TestHost, &mut TracedProgram),
) -> (usize, Duration) {
    let directory = host.directory.clone();
    let mut unhooked = TracedProgram::start(host, &directory, false);
    let without_hook = unhooked.measure();
    unhooked.finish();
    let mut program = TracedProgram::start(host, &directory, true);
    check_allocations(&without_hook, &program.measure());
    change(host, &mut program);
    let start = Instant::now();
    for _ in 0..2 {
        check_allocations(&without_hook, &program.measure());
    }
    let elapsed = start.elapsed();
    let measurements = program.finish();
    let [baseline, later_measurements @ ..] = &measurements[..] else { panic!("no measurement") };
    assert!(!baseline.iter().any(Call::is_attempt));
    (later_measurements.iter().map(|measured| count_attempts(baseline, measured)).sum(), elapsed)
}

/// Checks that the program tried to follow the map a few times. The delay between two attempts
/// doubles up to 4 s.
fn expect_few_attempts((attempts, elapsed): (usize, Duration)) {
    let limit = 14 + elapsed.as_secs() / 4;
    assert!((1..=limit).contains(&(attempts as u64)), "{attempts} attempts in {elapsed:?}");
}

#[test]
fn calls_without_a_map_cost_nothing() {
    on_test_host("calls_without_a_map_cost_nothing", |host| {
        let missing_directory = host.directory.join("nowhere");
        let measure = |has_hook| {
            let mut program = TracedProgram::start(&host, &missing_directory, has_hook);
            let allocations = program.measure();
            (allocations, program.finish().remove(0))
        };
        let ((without_hook, expected), (allocations, calls)) = (measure(false), measure(true));
        assert_eq!(allocations, without_hook);
        assert_eq!(count_attempts(&expected, &calls), 0);
    });
}

#[test]
fn calls_under_the_current_map_make_no_attempt() {
    on_test_host("calls_under_the_current_map_make_no_attempt", |mut host| {
        assert_eq!(measure_change(&mut host, |_, _| {}).0, 0);
    });
}

#[test]
fn calls_after_the_lease_was_closed_make_no_attempt() {
    on_test_host("calls_after_the_lease_was_closed_make_no_attempt", |mut host| {
        let close = |host: &mut TestHost, _: &mut TracedProgram| {
            host.map.close_session("1".parse().unwrap(), Tick::now()).unwrap();
        };
        assert_eq!(measure_change(&mut host, close).0, 0);
    });
}

#[test]
fn calls_after_the_map_was_removed_make_few_attempts() {
    on_test_host("calls_after_the_map_was_removed_make_few_attempts", |mut host| {
        // Like `vipool down --force`, this closure closes the session and removes the map.
        let remove = |host: &mut TestHost, _: &mut TracedProgram| {
            host.map.close_session("1".parse().unwrap(), Tick::now()).unwrap();
            Map::open(&host.directory).unwrap().remove().unwrap();
        };
        expect_few_attempts(measure_change(&mut host, remove));
    });
}

#[test]
fn calls_with_a_map_of_another_boot_make_few_attempts() {
    on_test_host("calls_with_a_map_of_another_boot_make_few_attempts", |mut host| {
        let change_boot = |host: &mut TestHost, _: &mut TracedProgram| {
            host.change_policy(|_| {});
            // The third word of a map contains the boot.
            let map = File::options().write(true).open(host.directory.join(MAP_FILE)).unwrap();
            map.write_all_at(&1u64.to_ne_bytes(), 16).unwrap();
        };
        expect_few_attempts(measure_change(&mut host, change_boot));
    });
}

#[test]
fn calls_without_descriptors_make_few_attempts() {
    on_test_host("calls_without_descriptors_make_few_attempts", |mut host| {
        let fill = |host: &mut TestHost, program: &mut TracedProgram| {
            program.command("fill");
            host.change_policy(|_| {});
        };
        expect_few_attempts(measure_change(&mut host, fill));
    });
}

/// A program that could not follow a map follows it later, and then makes no more attempts.
#[test]
fn attempts_end_with_success() {
    on_test_host("attempts_end_with_success", |mut host| {
        let directory = host.directory.clone();
        let mut program = TracedProgram::start(&host, &directory, true);
        program.measure();
        program.command("fill");
        host.change_policy(|_| {});
        program.measure();
        program.command("release");
        // The longest delay between two attempts is 4 s.
        thread::sleep(Duration::from_secs(5));
        program.measure();
        program.measure();
        let measurements = program.finish();
        let [baseline, full_table, released, final_calls] = &measurements[..] else {
            panic!("{} measurements", measurements.len())
        };
        assert!(count_attempts(baseline, full_table) > 0);
        assert_eq!([released, final_calls].map(|calls| count_attempts(baseline, calls)), [1, 0]);
    });
}
