//! Tests of two hook DLLs that are written in C and use `vipool.dll`, as a vendor's DLL does.

use std::net::TcpListener;
use std::process::Command;

use super::support::{HOST_ADDRESS, Session, TestHost, stdout_of, test_program, unused_port};

/// The DLL of examples/c/windows_hook.c.
const EXAMPLE_DLL: &str = "windows_hook.dll";
/// The DLL of tests/vendor/deferring_hook.c, which defers binds as include/vipool.h describes.
const DEFERRING_DLL: &str = "deferring_hook.dll";

/// Returns a command that runs a row of the socket matrix in a session, with one of the DLLs.
fn row_command(session: &Session<'_>, dll: &str, row: &str, port: u16) -> Command {
    let mut command = Command::new(test_program("load.exe"));
    command.arg(test_program(dll)).arg(test_program("rows.exe"));
    command.args([row, &port.to_string()]);
    command.args([
        session.virtual_ip().to_string(),
        session.loopback().to_string(),
        HOST_ADDRESS.to_owned(),
    ]);
    session.set_environment(&mut command);
    command
}

/// Runs a row with the example DLL in a session. Returns the output.
fn run_row(session: &Session<'_>, row: &str, port: u16) -> String {
    stdout_of(&mut row_command(session, EXAMPLE_DLL, row, port))
}

#[test]
fn vendor_dll_rewrites_addresses_and_keeps_the_last_error() {
    let host = TestHost::new(|_| ());
    let (first_session, second_session) = (host.open_session(1), host.open_session(2));
    for session in [&first_session, &second_session] {
        assert_eq!(run_row(session, "6", unused_port()), "bind: ok\nname: V port\n");
        let output = run_row(session, "10", unused_port());
        assert!(output.contains("connect: ok\n"), "{output}");
    }
    // An unbound socket connects from V. An IPv6-only socket reaches the session's own ::1.
    let listener = TcpListener::bind((HOST_ADDRESS, unused_port())).unwrap();
    let output = run_row(&first_session, "461", listener.local_addr().unwrap().port());
    assert!(output.ends_with("connect: ok\nunbound: V other\n"), "{output}");
    let output = run_row(&first_session, "32", unused_port());
    assert!(output.starts_with("bind: ok\nname: ::1 port\nconnect: ok\n"), "{output}");
    // After each call, the last error is the same as without the DLL.
    let port = unused_port();
    assert_eq!(run_row(&first_session, "45", port), first_session.run_row_without_hooks(45, port));
}

/// The DLL, which follows the description in include/vipool.h, behaves like our own hook layer.
#[test]
fn vendor_dll_can_defer_binds() {
    let host = TestHost::new(|_| ());
    let session = host.open_session(1);
    let listener = TcpListener::bind((HOST_ADDRESS, unused_port())).unwrap();
    let external_port = listener.local_addr().unwrap().port();
    for (row, port) in [
        (46, unused_port()),
        (461, external_port),
        (462, unused_port()),
        (18, unused_port()),
        (21, unused_port()),
    ] {
        let output = stdout_of(&mut row_command(&session, DEFERRING_DLL, &row.to_string(), port));
        assert_eq!(output, session.run_row(row, port), "row {row}");
    }
}

#[test]
fn address_without_interface_fails_or_passes_by_policy_with_vendor_dll() {
    for (pass_when_missing, output) in
        [(false, "bind: 10049\nname: 10022\n"), (true, "bind: ok\nname: 0.0.0.0 port\n")]
    {
        let host = TestHost::new(|policy| policy.rewrite.pass_when_missing = pass_when_missing);
        let session = (1..=5).map(|number| host.open_session(number)).last().unwrap();
        assert_eq!(run_row(&session, "6", unused_port()), output);
    }
}

#[test]
fn vendor_dll_rewrites_nothing_with_unusable_environment() {
    let host = TestHost::new(|_| ());
    let session = host.open_session(1);
    for (name, value) in [
        ("VIPOOL_MAP", "x".repeat(30000)),
        ("VIPOOL_LEASE", "x".repeat(30000)),
        ("VIPOOL_DISABLE", "1".to_owned()),
    ] {
        let output =
            stdout_of(row_command(&session, EXAMPLE_DLL, "6", unused_port()).env(name, value));
        assert_eq!(output, "bind: ok\nname: 0.0.0.0 port\n", "{name}");
    }
}
