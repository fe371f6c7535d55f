//! Tests of the addresses at which programs in sessions listen and from which they connect.
//!
//! In most tests, two sessions, or a session and the host, use the same port.

use std::time::Duration;

use super::support::{
    HOST_ADDRESS, RunningProgram, Session, TestHost, retry_start, stdout_of, test_program,
    unused_port,
};

#[test]
fn rows_1_and_3_two_sessions_listen_on_the_same_port() {
    let host = TestHost::new(|_| ());
    let (first_session, second_session) = (host.open_session(1), host.open_session(2));
    for (row, expected) in
        [(1, "bind: ok\nname: 127.0.0.1 port\n"), (3, "bind: ok\nname: V port\n")]
    {
        let port = unused_port();
        let first_program = first_session.start_row(row, port);
        let second_program = second_session.start_row(row, port);
        assert_eq!(
            (&*first_program.output, &*second_program.output),
            (expected, expected),
            "row {row}"
        );
        // The kernel has a listener for each session.
        let listening_address = |session: &Session<'_>| {
            if row == 1 { session.loopback() } else { session.virtual_ip() }
        };
        for session in [&first_session, &second_session] {
            std::net::TcpStream::connect((listening_address(session), port)).unwrap();
        }
        // No program listens on the real loopback address.
        std::net::TcpStream::connect(("127.0.0.1", port)).unwrap_err();
    }
    // Without the hook layer, the second bind fails.
    let port = unused_port();
    let _first_program = first_session.start_row_without_hooks(1, port);
    let is_second_refused =
        std::panic::catch_unwind(|| second_session.run_row_without_hooks(1, port)).is_err();
    assert!(is_second_refused, "two programs cannot share a port without the hook layer");
}

/// Wine uses the sockets of Linux, so this test expects the result of Linux. The result on Windows
/// may differ.
#[test]
fn rows_2_and_29_wildcard_listener_of_the_host_blocks_the_port() {
    let host = TestHost::new(|_| ());
    let session = host.open_session(1);
    for (listener_row, bind_row) in [(3, 1), (29, 3)] {
        let port = unused_port();
        let _host_listener = session.start_row_without_hooks(listener_row, port);
        let mut command = session.launcher_command(&test_program("rows.exe"));
        let mut bind_command = command.args([bind_row.to_string(), port.to_string()]);
        bind_command = bind_command.args([
            session.virtual_ip().to_string(),
            session.loopback().to_string(),
            HOST_ADDRESS.to_owned(),
        ]);
        let output = retry_start(|| bind_command.output()).stdout;
        assert!(
            output.starts_with(b"bind: 10048\r\n"),
            "{listener_row}: {}",
            output.escape_ascii()
        );
    }
}

#[test]
fn row_11b_datagrams_reach_own_services() {
    let port = unused_port();
    let host = TestHost::new(|policy| {
        let range = vipool::policy::PortRange { first: port, last: port };
        policy.programs[0].own_ports.push(range);
    });
    let session = host.open_session(1);
    let service = std::net::UdpSocket::bind((session.loopback(), port)).unwrap();
    service.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    assert_eq!(session.run_row(112, port), "connect: ok\npeer: 127.0.0.1 port\nsend: ok\n");
    // This test does not check the reply, because Wine would send it from 127.0.0.1.
    assert_eq!(service.recv(&mut [0; 8]).unwrap(), 1);
}

#[test]
fn row_11_own_services_take_precedence_over_the_host() {
    let host = TestHost::new(|_| ());
    let (first_session, second_session) = (host.open_session(1), host.open_session(2));
    let connected_output = "connect: ok\nname: 127.0.0.1 other\npeer: 127.0.0.1 port\n";
    // The program of row 1 listens on L, and the program of row 3 listens on V.
    for row in [1, 3] {
        let port = unused_port();
        let _listener = first_session.start_row(row, port);
        assert_eq!(first_session.run_row(11, port), connected_output, "row {row}");
        let is_refused = std::panic::catch_unwind(|| second_session.run_row(11, port)).is_err();
        assert!(is_refused, "a program reached the service of another session");
    }
    // A service of the host is shared by all sessions.
    let port = unused_port();
    let _host_service = first_session.start_row_without_hooks(1, port);
    assert_eq!(second_session.run_row(11, port), connected_output);
}

#[test]
fn row_11_own_ports_never_reach_the_host() {
    let port = unused_port();
    let host = TestHost::new(|policy| {
        let range = vipool::policy::PortRange { first: port, last: port };
        policy.programs[0].own_ports.push(range);
    });
    let session = host.open_session(1);
    let _host_service = session.start_row_without_hooks(1, port);
    assert!(
        std::panic::catch_unwind(|| session.run_row(11, port)).is_err(),
        "the host's service must not be reached"
    );
}

#[test]
fn rows_7_and_46_external_connections_come_from_v() {
    let host = TestHost::new(|_| ());
    let (first_session, second_session) = (host.open_session(1), host.open_session(2));
    let port = unused_port();
    let listener = std::net::TcpListener::bind((HOST_ADDRESS, port)).unwrap();
    for session in [&first_session, &second_session] {
        let output = session.run_row(461, port);
        assert_eq!(
            output,
            "bind: ok\nConnectEx: ok\nbound: V other\nconnect: ok\nunbound: V other\n"
        );
        for _ in 0..2 {
            assert_eq!(listener.accept().unwrap().1.ip(), session.virtual_ip());
        }
    }
}

#[test]
fn row_47_overlapped_servers_and_clients_are_rewritten() {
    let host = TestHost::new(|_| ());
    let (first_session, second_session) = (host.open_session(1), host.open_session(2));
    let iocp_program = test_program("iocp.exe");
    for mode in ["serve", "exports"] {
        let port = unused_port().to_string();
        let iocp_command = |session: &Session<'_>, mode: &str| {
            let mut command = session.launcher_command(&iocp_program);
            command.args([mode, &port, &session.virtual_ip().to_string()]);
            command
        };
        let servers = [&first_session, &second_session]
            .map(|session| RunningProgram::start(&mut iocp_command(session, mode)));
        for (session, server) in [&first_session, &second_session].into_iter().zip(&servers) {
            assert_eq!(server.output, "listening on 127.0.0.1\n");
            assert_eq!(
                stdout_of(&mut iocp_command(session, "connect")),
                "connected to 127.0.0.1\nserver address 127.0.0.1, client address 127.0.0.1\n"
            );
        }
    }
}

#[test]
fn programs_started_under_a_closed_lease_are_not_rewritten() {
    let host = TestHost::new(|_| ());
    let session = host.open_session(1);
    host.close_session(&session.handle);
    assert_eq!(session.run_row(3, unused_port()), "bind: ok\nname: 0.0.0.0 port\nready\n");
}
