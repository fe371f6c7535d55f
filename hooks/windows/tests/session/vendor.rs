//! A hook DLL of a vendor's own, in C over `vipool.dll`, in a program that knows nothing of it.

use std::net::TcpListener;
use std::process::Command;

use super::support::{HOST, Host, Session, output, port, program};

/// The example.
const EXAMPLE: &str = "windows_hook.dll";
/// The same, with binds put off as the header says.
const DEFERRING: &str = "deferring_hook.dll";

/// A row in a session, with a vendor's DLL.
fn command(session: &Session<'_>, dll: &str, row: &str, port: u16) -> Command {
    let mut command = Command::new(program("load.exe"));
    command.arg(program(dll)).arg(program("rows.exe"));
    command.args([row, &port.to_string()]);
    command.args([session.v().to_string(), session.l().to_string(), HOST.to_owned()]);
    session.enter(&mut command);
    command
}

fn run(session: &Session<'_>, row: &str, port: u16) -> String {
    output(&mut command(session, EXAMPLE, row, port))
}

#[test]
fn a_vendors_own_dll_rewrites_too() {
    let host = Host::new(|_| ());
    let (one, two) = (host.session(1), host.session(2));
    for session in [&one, &two] {
        assert_eq!(run(session, "6", port()), "bind: ok\nname: V port\n");
        let both = run(session, "10", port());
        assert!(both.contains("connect: ok\n"), "{both}");
    }
    // An unbound socket leaves from V, one that is for IPv6 alone reaches the session's own ::1.
    let listener = TcpListener::bind((HOST, port())).unwrap();
    let outside = run(&one, "461", listener.local_addr().unwrap().port());
    assert!(outside.ends_with("connect: ok\nunbound: V other\n"), "{outside}");
    let both = run(&one, "32", port());
    assert!(both.starts_with("bind: ok\nname: ::1 port\nconnect: ok\n"), "{both}");
    // The last error is as without it.
    let at = port();
    assert_eq!(run(&one, "45", at), one.plain_row(45, at));
}

/// What the header asks of a hook that puts binds off comes to what the hook layer does.
#[test]
fn a_vendors_own_dll_that_puts_binds_off() {
    let host = Host::new(|_| ());
    let session = host.session(1);
    let listener = TcpListener::bind((HOST, port())).unwrap();
    let outside = listener.local_addr().unwrap().port();
    for (row, port) in [(46, port()), (461, outside), (462, port()), (18, port()), (21, port())] {
        let said = output(&mut command(&session, DEFERRING, &row.to_string(), port));
        assert_eq!(said, session.row(row, port), "row {row}");
    }
}

#[test]
fn a_vendors_own_dll_where_no_interface_has_the_address() {
    for (pass_when_missing, said) in
        [(false, "bind: 10049\nname: 10022\n"), (true, "bind: ok\nname: 0.0.0.0 port\n")]
    {
        let host = Host::new(|policy| policy.pass_when_missing = pass_when_missing);
        let session = (1..=5).map(|number| host.session(number)).last().unwrap();
        assert_eq!(run(&session, "6", port()), said);
    }
}

#[test]
fn a_vendors_own_dll_where_the_environment_is_of_no_use() {
    let host = Host::new(|_| ());
    let session = host.session(1);
    for (name, value) in [
        ("VIPOOL_MAP", "x".repeat(30000)),
        ("VIPOOL_LEASE", "x".repeat(30000)),
        ("VIPOOL_DISABLE", "1".to_owned()),
    ] {
        let said = output(command(&session, EXAMPLE, "6", port()).env(name, value));
        assert_eq!(said, "bind: ok\nname: 0.0.0.0 port\n", "{name}");
    }
}
