//! Runs the socket tests of Python's standard library without the hook and with it, and compares
//! the results.

use std::process::Command;

use crate::support::{TestHost, in_namespace, listed_program, python_path};
use vipool_testing::preload_path;

/// The classes of Python's socket tests that every run covers. They test TCP, UDP, IPv6, messages
/// and lookups.
const SHORT_RUN_CLASSES: &[&str] = &[
    "GeneralModuleTests",
    "BasicTCPTest",
    "BasicUDPTest",
    "NonBlockingTCPTests",
    "CreateServerTest",
    "CreateServerFunctionalTest",
    "NetworkConnectionAttributesTest",
    "SendmsgUDP6Test",
    "RecvmsgIntoUDPTest",
];

/// Runs Python's socket tests: those of `classes`, or all tests if `classes` is empty. Returns the
/// sorted results.
fn run_socket_tests(mut command: Command, classes: &[&str]) -> Vec<String> {
    let runner = "
import sys, unittest
class Result(unittest.TextTestResult):
    def addSuccess(self, test): super().addSuccess(test); print(test.id(), 'ok')
    def addFailure(self, test, error): super().addFailure(test, error); print(test.id(), 'failed')
    def addError(self, test, error): super().addError(test, error); print(test.id(), 'error')
    def addSkip(self, test, reason): super().addSkip(test, reason); print(test.id(), 'skipped')
import test.test_socket
# On a virtual machine without a vsock loopback, this test never ends, with or without the hook.
test.test_socket.ThreadedVSOCKSocketStreamTest.__unittest_skip__ = True
loader = unittest.defaultTestLoader
names = ['test.test_socket.' + name for name in sys.argv[1:]] or ['test.test_socket']
suite = loader.loadTestsFromNames(names)
unittest.TextTestRunner(stream=sys.stderr, resultclass=Result).run(suite)";
    let output = command.args(["-c", runner]).args(classes).output().unwrap();
    let stdout_text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut lines: Vec<_> = stdout_text.lines().map(str::to_owned).collect();
    let min_result_count = if classes.is_empty() { 300 } else { 100 };
    assert!(
        lines.len() > min_result_count,
        "{stdout_text}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    lines.sort();
    lines
}

/// The results that differ in a listed program. A socket on ::1 is bound to an IPv4-mapped address,
/// so its option `IPV6_V6ONLY` is cleared (row 32).
const LISTED_DIFFERENCES: &[&str] =
    &["test.test_socket.CreateServerTest.test_ipv6_only_default failed"];

/// Under `cargo xtask test --long`, all classes run, which takes minutes. Only the tests in
/// [`LISTED_DIFFERENCES`] depend on behaviour that the hook changes.
#[test]
fn python_socket_tests_are_unaffected() {
    let test_name = "socket_tests::python_socket_tests_are_unaffected";
    let classes = vipool_testing::effort(SHORT_RUN_CLASSES, &[]);
    let has_tests = || {
        let output = Command::new("python3").args(["-c", "import test.test_socket"]).output();
        output.is_ok_and(|output| output.status.success())
    };
    if !has_tests() {
        return vipool_testing::record_skip(
            "test.test_socket",
            "apt-get install libpython3-testsuite",
        );
    }
    let prepare = || _ = preload_path();
    in_namespace(test_name, &["python3"], prepare, || {
        let mut host = TestHost::new(vec![listed_program("another")]);
        let unhooked_results = run_socket_tests(Command::new(python_path()), classes);
        let hooked_results = run_socket_tests(host.session(1).command(python_path()), classes);
        assert_eq!(
            unhooked_results, hooked_results,
            "the hook must not change an unlisted program"
        );
        host.change_policy(|policy| policy.programs.push(listed_program(python_path())));
        let listed_results = run_socket_tests(host.session(1).command(python_path()), classes);
        let differences: Vec<&String> =
            listed_results.iter().filter(|result| !unhooked_results.contains(result)).collect();
        assert_eq!(listed_results.len(), unhooked_results.len());
        assert_eq!(
            differences, LISTED_DIFFERENCES,
            "a listed program must not see rewritten addresses"
        );
    });
}
