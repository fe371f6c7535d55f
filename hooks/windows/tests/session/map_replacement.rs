//! Tests of programs that run while their map is replaced or their session is closed.

use std::net::{Ipv4Addr, TcpStream};

use super::support::{
    HOST_ADDRESS, RunningProgram, Session, TestHost, listed_program, test_program, unused_port,
};

/// Starts running.exe in a session.
fn start_running(session: &Session<'_>, port: u16) -> RunningProgram {
    RunningProgram::start(
        session.launcher_command(&test_program("running.exe")).arg(port.to_string()),
    )
}

/// Returns whether a connection to this address and port succeeds.
fn is_listening(address: Ipv4Addr, port: u16) -> bool {
    TcpStream::connect((address, port)).is_ok()
}

#[test]
fn running_programs_follow_a_replaced_map() {
    let mut host = TestHost::new(|_| ());
    let port = unused_port();
    let (v, l) = {
        let session = host.open_session(1);
        (session.virtual_ip(), session.loopback())
    };
    let mut program = start_running(&host.open_session(1), port);
    let rewritten_output = format!("first 127.0.0.1, wildcard {v}, connect 0\n");
    let assert_rewritten = |output: String| {
        assert_eq!(output, rewritten_output);
        assert!(is_listening(l, port + 1) && !is_listening(Ipv4Addr::LOCALHOST, port + 1));
    };
    assert_rewritten(program.continue_until_ready());
    // The session and its leases stay open in each new map.
    for round in 0..4 {
        host.replace_map(|policy| policy.rewrite.pass_when_missing = round % 2 == 0);
        assert_rewritten(program.continue_until_ready());
        assert_rewritten(program.continue_until_ready());
    }
    // Without the feature for virtual IPs in the new rule, the wildcard bind is not rewritten.
    host.replace_map(|policy| policy.programs = vec![listed_program("running.exe")]);
    host.replace_map(|policy| policy.programs[0].features.virtual_ip = false);
    assert_eq!(program.continue_until_ready(), "first 127.0.0.1, wildcard 0.0.0.0, connect 0\n");
    // The program is removed from the list. Existing sockets keep their visible address, and new
    // calls are not rewritten.
    host.replace_map(|policy| policy.programs = vec![listed_program("another.exe")]);
    assert_eq!(
        program.continue_until_ready(),
        "first 127.0.0.1, wildcard 0.0.0.0, connect 10061\n"
    );
    assert!(!is_listening(l, port + 1) && is_listening(Ipv4Addr::LOCALHOST, port + 1));
    host.replace_map(|policy| policy.programs = vec![listed_program("running.exe")]);
    assert_rewritten(program.continue_until_ready());
    // Each replacement first removes the renamed map files that no process has mapped. Then it
    // renames the current map file, because `host` has this file mapped. The renamed files that the
    // program has mapped stay while the program runs. The next replacement after the end of the
    // program leaves only the file that this replacement renames.
    let superseded_map_count = |host: &TestHost| {
        host.map_files().iter().filter(|name| name.starts_with("map.old")).count()
    };
    assert!(superseded_map_count(&host) > 1, "{:?}", host.map_files());
    drop(program);
    host.replace_map(|_| ());
    assert_eq!(superseded_map_count(&host), 1, "{:?}", host.map_files());
}

#[test]
fn running_programs_notice_that_their_session_was_closed() {
    let host = TestHost::new(|_| ());
    let port = unused_port();
    let session = host.open_session(1);
    let (v, l) = (session.virtual_ip(), session.loopback());
    let mut program = start_running(&session, port);
    assert_eq!(
        program.continue_until_ready(),
        format!("first 127.0.0.1, wildcard {v}, connect 0\n")
    );
    assert!(is_listening(l, port + 1));
    host.close_session(&session.handle);
    // The program still sees 127.0.0.1 as the address of its socket. New binds and connects pass
    // unchanged.
    let passed_output = "first 127.0.0.1, wildcard 0.0.0.0, connect 10061\n";
    assert_eq!(program.continue_until_ready(), passed_output);
    assert!(is_listening(l, port), "an existing listener stays");
    assert!(!is_listening(l, port + 1) && is_listening(Ipv4Addr::LOCALHOST, port + 1));
    // The program does not join a later session with the same number.
    let later_session = host.open_session(1);
    assert_ne!(later_session.handle, session.handle);
    assert_eq!(program.continue_until_ready(), passed_output);
}

#[test]
fn session_closed_before_a_replacement_stays_closed() {
    let mut host = TestHost::new(|_| ());
    let port = unused_port();
    let mut program = start_running(&host.open_session(1), port);
    program.continue_until_ready();
    let handle = host.open_session(1).handle;
    host.close_session(&handle);
    host.replace_map(|_| ());
    host.open_session(1);
    assert_eq!(
        program.continue_until_ready(),
        "first 127.0.0.1, wildcard 0.0.0.0, connect 10061\n"
    );
}

#[test]
fn programs_started_after_a_replacement_use_the_new_process_list() {
    let mut host = TestHost::new(|policy| policy.programs = vec![listed_program("another.exe")]);
    let port = unused_port();
    // The hooks of an unlisted program check each child against the current list.
    let mut starter = {
        let session = host.open_session(1);
        let mut command = session.launcher_command(&test_program("starter.exe"));
        let rows = test_program("rows.exe").display().to_string();
        command.args(["repeat", &rows, "6", &port.to_string(), &session.virtual_ip().to_string()]);
        command.args([session.loopback().to_string(), HOST_ADDRESS.to_owned()]);
        RunningProgram::start(&mut command)
    };
    assert_eq!(starter.continue_until_ready(), "bind: ok\nname: 0.0.0.0 port\n");
    host.replace_map(|policy| policy.programs = vec![listed_program("rows.exe")]);
    assert_eq!(starter.continue_until_ready(), "bind: ok\nname: V port\n");
}
