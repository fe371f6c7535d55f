//! Runs the socket tests of CPython, Node.js, libuv and the Linux Test Project with and without the
//! hook.
//!
//! Each suite runs without the hook, with the hook in an unlisted program, and with the hook in a
//! listed program under four rules. Each test must have the same result as without the hook, except
//! for the differences that docs/socket-matrix.md demands.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::{TestHost, in_namespace, listed_program, output_of, python_path};
use vipool::policy::{Features, Program};
use vipool_testing::{needs, preload_path, record_skip};

/// A test whose result differs in a listed program.
struct Difference {
    /// The end of the name of the test.
    test: &'static str,
    /// A part of the names of the rules under which the result differs.
    rule: &'static str,
    /// The row of docs/socket-matrix.md that demands the difference.
    row: &'static str,
}

const fn difference(test: &'static str, rule: &'static str, row: &'static str) -> Difference {
    Difference { test, rule, row }
}

/// A set of tests.
struct Suite {
    /// The programs that run the tests. The rules apply to these programs.
    programs: Vec<PathBuf>,
    /// The names of the tests. Each test runs in a separate process. For Python, the name of a
    /// module selects all its tests.
    tests: Vec<String>,
    /// Returns the program and the arguments that run a test.
    command_line: fn(&str) -> Vec<String>,
    /// The time in seconds after which a process is killed. The result is then SIGKILL.
    time_limit: u32,
    /// The minimum number of tests that must succeed without the hook.
    min_successes: usize,
    differences: &'static [Difference],
}

/// The suffix of the result that counts the checks of a test of the Linux Test Project.
const PASSED_CHECKS: &str = ": passed checks";

/// The results of tests, by the name of the test.
type Results = BTreeMap<String, String>;

/// The rules under which a suite runs in listed programs, with the name of the configuration.
fn rules(programs: &[PathBuf]) -> [(&'static str, Vec<Program>); 4] {
    let loopback = Features::default().with_loopback(true);
    let rule = |features, keep_ephemeral| {
        let rule_of = |program: &PathBuf| {
            let mut rule = listed_program(program).with_features(features);
            rule.flags.keep_ephemeral = keep_ephemeral;
            rule
        };
        programs.iter().map(rule_of).collect()
    };
    let both = loopback.with_virtual_ip(true);
    [
        ("loopback", rule(loopback, false)),
        ("loopback, keep-ephemeral", rule(loopback, true)),
        ("loopback, virtual-ip", rule(both, false)),
        ("loopback, virtual-ip, keep-ephemeral", rule(both, true)),
    ]
}

/// Returns a command that runs a program, either without the hook or in a session.
type CommandFor<'a> = &'a dyn Fn(&str) -> Command;

impl Suite {
    /// Runs one test, or all tests of a Python module. The current directory is the directory of the
    /// map, which the test host removes.
    fn run(&self, host: &TestHost, command_for: CommandFor<'_>, test: &str) -> Results {
        let output = host.directory.join("output");
        let file = File::create(&output).unwrap();
        let mut command = command_for("timeout");
        command
            .args(["--signal=KILL", &self.time_limit.to_string()])
            .args((self.command_line)(test))
            .current_dir(&host.directory)
            .env("UV_RUN_AS_ROOT", "1")
            .env("UV_TEST_TIMEOUT_MULTIPLIER", "3")
            .env("LTP_RUNTIME_MUL", "0.1")
            .stdout(file.try_clone().unwrap())
            .stderr(file);
        let status = command.status().expect("timeout starts");
        let output_bytes = fs::read(&output).unwrap();
        let output_text = String::from_utf8_lossy(&output_bytes);
        let mut results: Results = output_text
            .lines()
            .filter_map(|line| line.strip_prefix("result ")?.rsplit_once(' '))
            .map(|(test, result)| (test.to_owned(), result.to_owned()))
            .collect();
        if results.is_empty() || !status.success() {
            let result = if status.success() { "ok".to_owned() } else { status.to_string() };
            results.insert(test.to_owned(), result);
        }
        let passed_checks = output_text.matches(": TPASS: ").count();
        if passed_checks > 0 {
            results.insert(format!("{test}{PASSED_CHECKS}"), passed_checks.to_string());
        }
        results
    }

    fn run_all(&self, host: &TestHost, command_for: CommandFor<'_>) -> Results {
        self.tests.iter().flat_map(|test| self.run(host, command_for, test)).collect()
    }

    /// Runs the test of a result twice more without the hook and with `command_for`. Returns whether the results
    /// differ each time. The results of some tests depend on the load of the machine.
    fn differs_again(&self, host: &TestHost, command_for: CommandFor<'_>, name: &str) -> bool {
        let test = name.trim_end_matches(PASSED_CHECKS);
        let result = |command_for| self.run(host, command_for, test).remove(name);
        (0..2).all(|_| result(&unhooked_command) != result(command_for))
    }
}

fn unhooked_command(program: &str) -> Command {
    Command::new(program)
}

/// Runs a suite in all configurations and compares the results. `prepare` runs first, outside the
/// namespaces.
fn compare_results(name: &str, needs: &[&str], prepare: impl FnOnce(), suite: impl Fn() -> Suite) {
    let prepare = || {
        preload_path();
        prepare();
    };
    in_namespace(name, needs, prepare, || {
        let mut suite = suite();
        let mut host = TestHost::new(vec![listed_program("another")]);
        let mut unhooked = suite.run_all(&host, &unhooked_command);
        let successes = unhooked.values().filter(|result| *result == "ok").count();
        assert!(successes >= suite.min_successes, "{successes} tests succeed: {unhooked:#?}");
        // A test that fails without the hook shows nothing.
        let is_failed = |test: &&String| unhooked.get(*test).is_some_and(|result| result != "ok");
        let failed: BTreeSet<String> = suite.tests.iter().filter(is_failed).cloned().collect();
        suite.tests.retain(|test| !failed.contains(test));
        unhooked.retain(|name, _| !failed.contains(name.trim_end_matches(PASSED_CHECKS)));
        let unlisted = [("unlisted", vec![listed_program("another")])];
        let mut unexpected = Vec::new();
        for (rule_name, programs) in unlisted.into_iter().chain(rules(&suite.programs)) {
            host.change_policy(|policy| policy.programs = programs);
            let session = host.session(1);
            let command_for = |program: &str| session.command(program);
            let hooked = suite.run_all(&host, &command_for);
            eprintln!("{name}: {rule_name}: {} results", hooked.len());
            let tests: BTreeSet<&String> = unhooked.keys().chain(hooked.keys()).collect();
            for test in tests.into_iter().filter(|test| unhooked.get(*test) != hooked.get(*test)) {
                let results = format!("{:?} -> {:?}", unhooked.get(test), hooked.get(test));
                let known = suite.differences.iter().find(|difference| {
                    test.ends_with(difference.test) && rule_name.contains(difference.rule)
                });
                match known {
                    Some(known) => eprintln!("    {test}: {results} (row {})", known.row),
                    None if suite.differs_again(&host, &command_for, test) => {
                        unexpected.push(format!("{rule_name}: {test}: {results}"));
                    }
                    None => eprintln!("    {test}: {results} (not when repeated)"),
                }
            }
        }
        assert!(unexpected.is_empty(), "{unexpected:#?}");
    });
}

const PYTHON_MODULES: &[&str] = &[
    "test.test_asyncore",
    "test.test_smtplib",
    "test.test_ftplib",
    "test.test_socketserver",
    "test.test_ssl",
    "test.test_asyncio.test_events",
    "test.test_asyncio.test_server",
    "test.test_asyncio.test_sock_lowlevel",
    "test.test_asyncio.test_streams",
];

const PYTHON_DIFFERENCES: &[Difference] = &[
    // A second bind of a port to which the program bound 127.0.0.1:0 succeeds.
    difference("TestAPI_UseIPv4Poll.test_bind", "keep-ephemeral", "23"),
    difference("TestAPI_UseIPv4Select.test_bind", "keep-ephemeral", "23"),
    difference("TestAPI_UseIPv6Poll.test_bind", "keep-ephemeral", "23"),
    difference("TestAPI_UseIPv6Select.test_bind", "keep-ephemeral", "23"),
    difference("LoopTests.test_create_connection_local_addr_in_use", "keep-ephemeral", "23"),
    // The client is bound to L6, so it does not reach a server that stays on ::1.
    difference("DebuggingServerTests.testSourceAddress", "keep-ephemeral", "32"),
    // The tests expect 0.0.0.0 but see V.
    difference("LoopTests.test_create_server", "virtual-ip", "3"),
    difference("LoopTests.test_create_server_sock", "virtual-ip", "3"),
];

/// A Python program that runs one test, or all tests of a module, and prints the results.
const PYTHON_RUNNER: &str = "
import sys, unittest
class Result(unittest.TextTestResult):
    def addSuccess(self, test): super().addSuccess(test); report(test, 'ok')
    def addFailure(self, test, error): super().addFailure(test, error); report(test, 'failed')
    def addError(self, test, error): super().addError(test, error); report(test, 'error')
    def addSkip(self, test, reason): super().addSkip(test, reason); report(test, 'skipped')
# A test may replace sys.stdout.
def report(test, result): print('\\nresult', test.id(), result, file=sys.__stdout__, flush=True)
suite = unittest.defaultTestLoader.loadTestsFromName(sys.argv[1])
unittest.TextTestRunner(resultclass=Result).run(suite)";

#[test]
#[ignore = "takes many minutes: cargo xtask test suites"]
fn python_tests_are_unaffected() {
    let has_tests = || {
        let output = Command::new("python3").args(["-c", "import test.test_asyncio"]).output();
        output.is_ok_and(|output| output.status.success())
    };
    if !has_tests() {
        return record_skip("test.test_asyncio", "apt-get install libpython3-testsuite");
    }
    compare_results(
        "python_tests_are_unaffected",
        &["python3"],
        || {},
        || Suite {
            programs: vec![python_path()],
            tests: PYTHON_MODULES.iter().map(ToString::to_string).collect(),
            command_line: |test| {
                let python = python_path();
                [python.to_str().unwrap(), "-W", "ignore", "-c", PYTHON_RUNNER, test]
                    .map(str::to_owned)
                    .to_vec()
            },
            time_limit: 900,
            min_successes: 600,
            differences: PYTHON_DIFFERENCES,
        },
    );
}

const NODE_DIFFERENCES: &[Difference] = &[
    // A second bind of a port to which the program bound 127.0.0.1:0 succeeds.
    difference("/test-net-bind-twice.js", "keep-ephemeral", "23"),
    difference("/test-net-client-bind-twice.js", "keep-ephemeral", "23"),
    difference("/test-http-bind-twice.js", "keep-ephemeral", "23"),
    // The tests expect a wildcard address but see V.
    difference("/test-dgram-bind-default-address.js", "virtual-ip", "3"),
    difference("/test-net-listen-invalid-port.js", "virtual-ip", "30"),
    // The client is bound to 0.0.0.0:0, so the server sees V.
    difference("/test-dgram-udp4.js", "virtual-ip", "4"),
    // IPV6_V6ONLY is cleared, so a bind to 0.0.0.0 and the same port fails.
    difference("/test-dgram-ipv6only.js", "loopback", "32"),
];

fn node_program() -> PathBuf {
    needs::find_program("node").unwrap().canonicalize().unwrap()
}

/// Returns the directory into which [`unpack`] extracts files of a source package.
fn unpacked_directory(package: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(package)
}

/// Extracts the files of a source package whose paths match one of the patterns.
fn unpack(package: &str, patterns: &[&str]) {
    let directory = unpacked_directory(package);
    fs::create_dir_all(&directory).unwrap();
    let archive = needs::source_archive(package).expect("the source package is present");
    let mut tar = Command::new("tar");
    tar.args(["--strip-components=1", "--wildcards", "-xf"]).arg(archive).arg("-C").arg(directory);
    output_of(tar.args(patterns));
}

/// Compares the results of the tests of Node.js whose file names begin with one of the prefixes.
fn compare_node_results(name: &str, prefixes: &'static [&str], min_successes: usize) {
    const COMMON_PATTERNS: [&str; 2] = ["*/test/common", "*/test/fixtures"];
    let unpack_tests = || {
        let test_patterns: Vec<_> =
            prefixes.iter().map(|prefix| format!("*/test/parallel/{prefix}*")).collect();
        let test_patterns = test_patterns.iter().map(String::as_str);
        unpack("nodejs", &COMMON_PATTERNS.into_iter().chain(test_patterns).collect::<Vec<_>>());
    };
    let suite = || {
        let files = unpacked_directory("nodejs").join("test/parallel");
        let mut tests = Vec::new();
        for file in fs::read_dir(files).unwrap() {
            let file = file.unwrap();
            let file_name = file.file_name().into_string().unwrap();
            if prefixes.iter().any(|prefix| file_name.starts_with(prefix)) {
                tests.push(file.path().to_str().unwrap().to_owned());
            }
        }
        tests.sort();
        Suite {
            programs: vec![node_program()],
            tests,
            command_line: |test| {
                let node = node_program();
                let text = fs::read_to_string(test).unwrap();
                let flags = text.lines().find_map(|line| line.strip_prefix("// Flags:"));
                let flags = flags.unwrap_or_default().split_whitespace();
                let words = [node.to_str().unwrap()].into_iter().chain(flags).chain([test]);
                words.map(str::to_owned).collect()
            },
            time_limit: 20,
            min_successes,
            differences: NODE_DIFFERENCES,
        }
    };
    compare_results(name, &["node", "node-source"], unpack_tests, suite);
}

#[test]
#[ignore = "takes many minutes: cargo xtask test suites"]
fn node_socket_tests_are_unaffected() {
    let name = "node_socket_tests_are_unaffected";
    compare_node_results(name, &["test-dgram-", "test-net-"], 150);
}

#[test]
#[ignore = "takes many minutes: cargo xtask test suites"]
fn node_http_tests_are_unaffected() {
    compare_node_results("node_http_tests_are_unaffected", &["test-http-"], 200);
}

/// The prefixes of the names of the libuv tests that use sockets.
const LIBUV_TEST_PREFIXES: &[&str] = &[
    "connection_",
    "delayed_accept",
    "getsockname_",
    "ipc_",
    "ip6_",
    "multiple_listen",
    "tcp",
    "udp_",
];

const LIBUV_DIFFERENCES: &[Difference] = &[
    // The tests expect 0.0.0.0 but see V.
    difference("getsockname_tcp", "virtual-ip", "3"),
    difference("getsockname_udp", "virtual-ip", "3"),
    // The client connects before the server binds.
    difference("udp_open_connect", "loopback", "11b"),
    // A socket on V receives no multicast.
    difference("udp_multicast_join", "virtual-ip", "26"),
    difference("udp_multicast_join6", "virtual-ip", "30"),
    // libuv 1.44 sends by direct system calls.
    difference("udp_alloc_cb_fail", "virtual-ip", "49"),
    difference("udp_connect", "virtual-ip", "49"),
    difference("udp_connect6", "virtual-ip", "49"),
    difference("udp_send_and_recv", "virtual-ip", "49"),
    difference("udp_send_immediate", "virtual-ip", "49"),
    // The client is bound to 0.0.0.0:0, so the server sees V. Row 49 also prevents success.
    difference("udp_dual_stack", "virtual-ip", "4"),
];

/// The files in `src/unix` that libuv on Linux consists of. Other systems use the other files.
const LIBUV_UNIX_FILES: &str = "async core dl epoll fs getaddrinfo getnameinfo linux-core \
    linux-inotify linux-syscalls loop loop-watcher pipe poll process procfs-exepath proctitle \
    random-devurandom random-getrandom random-sysctl-linux signal stream tcp thread tty udp";

fn libuv_program() -> PathBuf {
    unpacked_directory("libuv1").join("run-tests")
}

/// Compiles the test program of libuv.
fn compile_libuv() {
    unpack("libuv1", &["*"]);
    let directory = unpacked_directory("libuv1");
    let source_files = |folder: &str| {
        let files = fs::read_dir(directory.join(folder)).unwrap();
        let paths = files.map(|file| file.unwrap().path());
        paths
            .filter(|path| path.extension().is_some_and(|extension| extension == "c"))
            .filter(|path| {
                let name = path.file_name().unwrap().to_string_lossy();
                !name.ends_with("-win.c") && !name.contains("benchmark")
            })
            .collect::<Vec<_>>()
    };
    let mut compiler = Command::new("cc");
    // Some tests contain copies of functions of libuv, so the linker must accept a second definition.
    compiler
        .args(["-w", "-D_GNU_SOURCE", "-Iinclude", "-Isrc", "-Itest", "-Wl,-z,muldefs"])
        .arg("-o")
        .arg(libuv_program())
        .args(source_files("src"))
        .args(LIBUV_UNIX_FILES.split_whitespace().map(|name| format!("src/unix/{name}.c")))
        .args(source_files("test"))
        .args(["-pthread", "-ldl", "-lrt", "-lutil"])
        .current_dir(directory);
    output_of(&mut compiler);
}

#[test]
#[ignore = "takes many minutes: cargo xtask test suites"]
fn libuv_tests_are_unaffected() {
    let suite = || {
        let list =
            output_of(Command::new(libuv_program()).arg("--list").env("UV_RUN_AS_ROOT", "1"));
        // Each line begins with the name of a test. Its helpers follow.
        let names = list.lines().filter_map(|line| line.split_whitespace().next());
        let tests =
            names.filter(|name| LIBUV_TEST_PREFIXES.iter().any(|prefix| name.starts_with(prefix)));
        Suite {
            programs: vec![libuv_program()],
            tests: tests.map(str::to_owned).collect(),
            command_line: |test| vec![libuv_program().display().to_string(), test.to_owned()],
            time_limit: 90,
            min_successes: 100,
            differences: LIBUV_DIFFERENCES,
        }
    };
    let needs = ["libuv-source"];
    compare_results("libuv_tests_are_unaffected", &needs, compile_libuv, suite);
}

const LTP_DIFFERENCES: &[Difference] = &[];

/// The folders of the system calls whose tests use sockets.
const LTP_CALLS: &str = "accept accept4 bind connect getpeername getsockname getsockopt listen recv \
    recvfrom recvmmsg recvmsg send sendfile sendmmsg sendmsg sendto setsockopt socket socketcall \
    socketpair";

/// Tests that repeat a call for minutes to find a race in the kernel.
const LTP_STRESS_TESTS: [&str; 3] = ["bind06", "setsockopt06", "setsockopt11"];

/// Returns the compiled socket tests of the Linux Test Project.
fn ltp_programs(tree: &Path) -> Vec<PathBuf> {
    let mut programs = Vec::new();
    for call in LTP_CALLS.split_whitespace() {
        let directory = tree.join("testcases/kernel/syscalls").join(call);
        for file in directory.read_dir().into_iter().flatten().flatten() {
            let metadata = file.metadata().unwrap();
            let is_stress_test = LTP_STRESS_TESTS.iter().any(|test| file.file_name() == *test);
            if metadata.is_file() && metadata.permissions().mode() & 0o111 != 0 && !is_stress_test {
                programs.push(file.path());
            }
        }
    }
    programs.sort();
    programs
}

#[test]
#[ignore = "takes many minutes: cargo xtask test suites"]
fn ltp_tests_are_unaffected() {
    let Some(tree) = std::env::var_os("VIPOOL_LTP").map(PathBuf::from) else {
        let remedy = "set VIPOOL_LTP to a directory in which the Linux Test Project was compiled";
        return record_skip("ltp", remedy);
    };
    let suite = || {
        let programs = ltp_programs(&tree);
        Suite {
            tests: programs.iter().map(|program| program.display().to_string()).collect(),
            programs,
            command_line: |test| vec![test.to_owned()],
            time_limit: 60,
            min_successes: 45,
            differences: LTP_DIFFERENCES,
        }
    };
    compare_results("ltp_tests_are_unaffected", &["root"], || {}, suite);
}
