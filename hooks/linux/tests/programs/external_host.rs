//! Test of sessions that connect to an external host, and of servers that this host connects to.

use std::fs;

use super::listed_programs;
use crate::support::{
    EXTERNAL_ADDRESS, MATRIX_SOURCES, TestHost, compile, in_namespace, output_of, python_path,
    start_until_ready, wait_for_listener,
};
use vipool_testing::{ChildGuard, needs::find_program, preload_path};

/// Tests the main use case. Clients in two sessions have different source addresses on the external
/// host. Servers in both sessions bind the same port of the wildcard address, and clients in the
/// sessions and on the external host reach them.
#[test]
fn each_session_has_its_own_source() {
    let test_name = "external_host::each_session_has_its_own_source";
    let compile_matrix = || compile("matrix", MATRIX_SOURCES, &[]);
    let prepare = || {
        compile_matrix();
        preload_path();
    };
    in_namespace(test_name, &["python3", "curl"], prepare, || {
        let host = TestHost::new(listed_programs());
        let _service = start_until_ready(host.external_command(compile_matrix()).arg("serve"));
        let sessions = [host.session(1), host.session(2)];
        // The external server sees a different source for each session.
        for session in &sessions {
            let client_script = format!(
                "import socket; connection = socket.create_connection(('{EXTERNAL_ADDRESS}', 7)); \
                 print(connection.recv(99).decode())"
            );
            let source = output_of(session.command(python_path()).args(["-c", &client_script]));
            assert_eq!(source.trim(), session.v());
        }
        // Both sessions serve port 8000 on 0.0.0.0, for internal and external clients.
        let mut servers = Vec::new();
        for (name, session) in ["one", "two"].iter().zip(&sessions) {
            let directory = host.directory.join(name);
            fs::create_dir(&directory).unwrap();
            fs::write(directory.join("session_id"), name).unwrap();
            let mut command = session.command(python_path());
            command.args(["-m", "http.server", "8000"]).current_dir(&directory);
            servers.push(ChildGuard::start(&mut command));
            wait_for_listener(&format!("{}:8000", session.v()), &mut servers.last_mut().unwrap().0);
        }
        for (name, session) in ["one", "two"].iter().zip(&sessions) {
            let curl = find_program("curl").unwrap();
            let internal_output =
                session.command(&curl).args(["-sS", "http://127.0.0.1:8000/session_id"]).output();
            assert_eq!(String::from_utf8_lossy(&internal_output.unwrap().stdout), *name);
            let url = format!("http://{}:8000/session_id", session.v());
            assert_eq!(output_of(host.external_command(&curl).args(["-sS", &url])), *name);
        }
    });
}
