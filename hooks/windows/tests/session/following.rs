//! Programs that run while the map is replaced, and while their session is closed.

use std::net::{Ipv4Addr, TcpStream};

use super::support::{HOST, Host, Listening, Session, listed, port, program};

fn running(session: &Session<'_>, port: u16) -> Listening {
    Listening::start(session.launch(&program("running.exe")).arg(port.to_string()))
}

/// Whether something listens there.
fn listens(address: Ipv4Addr, port: u16) -> bool {
    TcpStream::connect((address, port)).is_ok()
}

#[test]
fn a_replaced_map_is_followed() {
    let mut host = Host::new(|_| ());
    let port = port();
    let (v, l) = {
        let session = host.session(1);
        (session.v(), session.l())
    };
    let mut first = running(&host.session(1), port);
    let rewritten = format!("first 127.0.0.1, any {v}, dialled 0\n");
    let is_rewritten = |said: String| {
        assert_eq!(said, rewritten);
        assert!(listens(l, port + 1) && !listens(Ipv4Addr::LOCALHOST, port + 1));
    };
    is_rewritten(first.ask());
    // Another map takes its place, again and again: the session and its leases are in it.
    for round in 0..4 {
        host.replace(|policy| policy.pass_when_missing = round % 2 == 0);
        is_rewritten(first.ask());
        is_rewritten(first.ask());
    }
    // The rule is changed under the program: without a virtual IP.
    host.replace(|policy| policy.programs = vec![listed("running.exe")]);
    host.replace(|policy| policy.programs[0].features.virtual_ip = false);
    assert_eq!(first.ask(), "first 127.0.0.1, any 0.0.0.0, dialled 0\n");
    // It is taken off the list: names stay as they were, nothing new is rewritten.
    host.replace(|policy| policy.programs = vec![listed("another.exe")]);
    assert_eq!(first.ask(), "first 127.0.0.1, any 0.0.0.0, dialled 10061\n");
    assert!(!listens(l, port + 1) && listens(Ipv4Addr::LOCALHOST, port + 1));
    host.replace(|policy| policy.programs = vec![listed("running.exe")]);
    is_rewritten(first.ask());
    // Maps that the program has mapped have made way, and stay until it has ended. (The last is
    // mapped by this test while it is replaced.)
    let old = |host: &Host| host.files().iter().filter(|name| name.starts_with("map.old")).count();
    assert!(old(&host) > 1, "{:?}", host.files());
    drop(first);
    host.replace(|_| ());
    assert_eq!(old(&host), 1, "{:?}", host.files());
}

#[test]
fn a_closed_session_is_noticed() {
    let host = Host::new(|_| ());
    let port = port();
    let session = host.session(1);
    let (v, l) = (session.v(), session.l());
    let mut first = running(&session, port);
    assert_eq!(first.ask(), format!("first 127.0.0.1, any {v}, dialled 0\n"));
    assert!(listens(l, port + 1));
    host.close(&session.handle);
    // Its own address stays shown as 127.0.0.1; new binds and connects pass.
    let passed = "first 127.0.0.1, any 0.0.0.0, dialled 10061\n";
    assert_eq!(first.ask(), passed);
    assert!(listens(l, port), "what listens goes on");
    assert!(!listens(l, port + 1) && listens(Ipv4Addr::LOCALHOST, port + 1));
    // A later session of the same number is another's.
    let later = host.session(1);
    assert_ne!(later.handle, session.handle);
    assert_eq!(first.ask(), passed);
}

#[test]
fn a_session_closed_before_a_map_is_replaced_stays_closed() {
    let mut host = Host::new(|_| ());
    let port = port();
    let mut first = running(&host.session(1), port);
    first.ask();
    let handle = host.session(1).handle;
    host.close(&handle);
    host.replace(|_| ());
    host.session(1);
    assert_eq!(first.ask(), "first 127.0.0.1, any 0.0.0.0, dialled 10061\n");
}

#[test]
fn programs_started_after_a_replacement_are_found_by_the_newer_list() {
    let mut host = Host::new(|policy| policy.programs = vec![listed("another.exe")]);
    let port = port();
    // A program on no list looks at those that it starts by the list as it is then.
    let mut starter = {
        let session = host.session(1);
        let mut command = session.launch(&program("starter.exe"));
        let rows = program("rows.exe").display().to_string();
        command.args(["later", &rows, "6", &port.to_string(), &session.v().to_string()]);
        command.args([session.l().to_string(), HOST.to_owned()]);
        Listening::start(&mut command)
    };
    assert_eq!(starter.ask(), "bind: ok\nname: 0.0.0.0 port\n");
    host.replace(|policy| policy.programs = vec![listed("rows.exe")]);
    assert_eq!(starter.ask(), "bind: ok\nname: V port\n");
}
