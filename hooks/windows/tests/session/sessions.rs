//! Two sessions on one port, and what reaches whom.

use std::time::Duration;

use super::support::{HOST, Host, Listening, Session, output, port, program, started};

#[test]
fn rows_1_and_3_two_sessions_listen_on_one_port() {
    let host = Host::new(|_| ());
    let (one, two) = (host.session(1), host.session(2));
    for (row, said) in [(1, "bind: ok\nname: 127.0.0.1 port\n"), (3, "bind: ok\nname: V port\n")] {
        let port = port();
        let first = one.start_row(row, port);
        let second = two.start_row(row, port);
        assert_eq!((&*first.said, &*second.said), (said, said), "row {row}");
        // The kernel has an address for each.
        let own = |session: &Session<'_>| if row == 1 { session.l() } else { session.v() };
        for session in [&one, &two] {
            std::net::TcpStream::connect((own(session), port)).unwrap();
        }
        // Nobody has the real one.
        std::net::TcpStream::connect(("127.0.0.1", port)).unwrap_err();
    }
    // Without the hook layer the port is taken.
    let port = port();
    let _first = one.start_plain_row(1, port);
    let second = std::panic::catch_unwind(|| two.plain_row(1, port)).is_err();
    assert!(second, "two programs without the hook layer can't share a port");
}

/// Rows 2 and 29, as Linux answers, whose sockets Wine uses; on Windows it may be otherwise.
#[test]
fn rows_2_and_29_a_wildcard_listener_of_the_host_is_not_masked() {
    let host = Host::new(|_| ());
    let one = host.session(1);
    for (listens, binds) in [(3, 1), (29, 3)] {
        let port = port();
        let _of_the_host = one.start_plain_row(listens, port);
        let mut command = one.launch(&program("rows.exe"));
        let mut binding = command.args([binds.to_string(), port.to_string()]);
        binding = binding.args([one.v().to_string(), one.l().to_string(), HOST.to_owned()]);
        let said = started(|| binding.output()).stdout;
        assert!(said.starts_with(b"bind: 10048\r\n"), "{listens}: {}", said.escape_ascii());
    }
}

#[test]
fn row_11b_datagrams_to_a_service_of_its_own() {
    let port = port();
    let host = Host::new(|policy| {
        let range = vipool::policy::PortRange { first: port, last: port };
        policy.programs[0].own_ports.push(range);
    });
    let one = host.session(1);
    let service = std::net::UdpSocket::bind((one.l(), port)).unwrap();
    service.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    assert_eq!(one.row(112, port), "connect: ok\npeer: 127.0.0.1 port\nsend: ok\n");
    // The answer can't be shown: Wine would send it from 127.0.0.1 itself.
    assert_eq!(service.recv(&mut [0; 8]).unwrap(), 1);
}

#[test]
fn row_11_own_services_first_then_those_of_the_host() {
    let host = Host::new(|_| ());
    let (one, two) = (host.session(1), host.session(2));
    let own = "connect: ok\nname: 127.0.0.1 other\npeer: 127.0.0.1 port\n";
    // On L, and on V.
    for row in [1, 3] {
        let port = port();
        let _listener = one.start_row(row, port);
        assert_eq!(one.row(11, port), own, "row {row}");
        let refused = std::panic::catch_unwind(|| two.row(11, port)).is_err();
        assert!(refused, "another session's service is not reached");
    }
    // A service of the host, shared.
    let port = port();
    let _shared = one.start_plain_row(1, port);
    assert_eq!(two.row(11, port), own);
}

#[test]
fn row_11_ports_that_are_always_the_sessions_own() {
    let port = port();
    let host = Host::new(|policy| {
        let range = vipool::policy::PortRange { first: port, last: port };
        policy.programs[0].own_ports.push(range);
    });
    let one = host.session(1);
    let _shared = one.start_plain_row(1, port);
    assert!(std::panic::catch_unwind(|| one.row(11, port)).is_err(), "no fall-through");
}

#[test]
fn rows_7_and_46_connections_to_the_outside_come_from_v() {
    let host = Host::new(|_| ());
    let (one, two) = (host.session(1), host.session(2));
    let port = port();
    let listener = std::net::TcpListener::bind((HOST, port)).unwrap();
    for session in [&one, &two] {
        let said = session.row(461, port);
        assert_eq!(
            said,
            "bind: ok\nConnectEx: ok\nbound: V other\nconnect: ok\nunbound: V other\n"
        );
        for _ in 0..2 {
            assert_eq!(listener.accept().unwrap().1.ip(), session.v());
        }
    }
}

#[test]
fn row_47_overlapped_servers_and_clients() {
    let host = Host::new(|_| ());
    let (one, two) = (host.session(1), host.session(2));
    let iocp = program("iocp.exe");
    for way in ["serve", "exports"] {
        let port = port().to_string();
        let start = |session: &Session<'_>, way: &str| {
            let mut command = session.launch(&iocp);
            command.args([way, &port, &session.v().to_string()]);
            command
        };
        let servers = [&one, &two].map(|session| Listening::start(&mut start(session, way)));
        for (session, server) in [&one, &two].into_iter().zip(&servers) {
            assert_eq!(server.said, "listening on 127.0.0.1\n");
            assert_eq!(
                output(&mut start(session, "dial")),
                "connected to 127.0.0.1\nserver saw itself as 127.0.0.1 and me as 127.0.0.1\n"
            );
        }
    }
}

#[test]
fn what_starts_under_a_closed_lease_is_as_without_vipool() {
    let host = Host::new(|_| ());
    let one = host.session(1);
    host.close(&one.handle);
    // What starts now is under no lease: it is as without vipool.
    assert_eq!(one.row(3, port()), "bind: ok\nname: 0.0.0.0 port\nready\n");
}
