//! Tests of the programs that the process list matches, and of ports that sessions share.

use crate::support::{
    PrivateMap, TerminateOnDrop, host_listener, page_server, text, wait_for_line,
};
use std::path::Path;
use std::process::{Command, Stdio};
use vipool_testing::ChildGuard;

/// Returns whether the bind of a page server is rewritten. Runs `command_prefix`, followed by the
/// arguments of the server, in session 1. The host already listens on `port`, so the bind fails
/// unless it is rewritten.
fn is_rewritten(private_map: &PrivateMap, farm: &str, command_prefix: &[&str], port: u16) -> bool {
    let file = private_map.write_file("index.html", "a page\n");
    let port = port.to_string();
    let mut command = private_map.vipool(&["run", "--private", "--farm", farm, "-s", "1", "--"]);
    command.args(command_prefix).args(["serve", &port, file.to_str().unwrap()]);
    let mut vipool_process =
        ChildGuard::start(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
    let mut line = String::new();
    use std::io::{BufRead, BufReader, Read};
    BufReader::new(vipool_process.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let is_served = line == format!("Serving HTTP on 127.0.0.1 port {port}\n");
    if is_served {
        let pid = nix::unistd::Pid::from_raw(vipool_process.0.id() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        vipool_process.0.wait().unwrap();
    } else {
        let mut errors = String::new();
        vipool_process.0.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
        assert!(errors.contains("AddrInUse"), "{errors}");
    }
    is_served
}

#[test]
fn full_path_matches_one_file_and_a_name_matches_any() {
    let private_map = PrivateMap::new();
    let (_host, port) = host_listener();
    let copied_file = private_map.path().join("page");
    std::fs::copy(page_server(), &copied_file).unwrap();
    let copy_path = copied_file.to_str().unwrap();
    let original_path = page_server().to_str().unwrap();

    let farm = private_map.write_farm(2, "pass", page_server());
    assert!(is_rewritten(&private_map, &farm, &[original_path], port));
    assert!(
        !is_rewritten(&private_map, &farm, &[copy_path], port),
        "a file of the same name in another directory"
    );

    let farm = private_map.write_farm(2, "pass", Path::new("page"));
    assert!(is_rewritten(&private_map, &farm, &[copy_path], port), "listed by name");
}

#[test]
fn unlisted_child_is_not_rewritten() {
    let private_map = PrivateMap::new();
    let (_host, port) = host_listener();
    // In the first farm, only the parent is listed. In the second farm, the server is listed too.
    let env = Path::new("/usr/bin/env").canonicalize().unwrap();
    let env_path = env.to_str().unwrap();
    let page_path = page_server().to_str().unwrap();
    let shell = Path::new("/bin/sh").canonicalize().unwrap();
    let farm = private_map.write_farm(2, "pass", &shell);
    let shell_command = ["sh", "-c", "\"$@\"; exit $?", "sh", page_path];
    assert!(!is_rewritten(&private_map, &farm, &shell_command, port));
    let farm_with_server = std::fs::read_to_string(&farm).unwrap()
        + &format!("[[program]]\npath = {page_path:?}\nfeatures = [\"loopback\"]\n");
    std::fs::write(&farm, farm_with_server).unwrap();
    assert!(is_rewritten(&private_map, &farm, &[env_path, page_path], port));
}

#[test]
fn two_sessions_and_the_host_share_a_port() {
    let private_map = PrivateMap::new();
    let (host, port) = host_listener();
    drop(host);
    let port = port.to_string();
    let program = page_server().to_str().unwrap();
    let mut servers = Vec::new();
    for owner in ["host", "1", "2"] {
        let file = private_map.write_file(owner, &format!("page of {owner}\n"));
        let mut command = match owner {
            "host" => Command::new(program),
            session => {
                let mut command = private_map.vipool(&["run", "--private", "-s", session, "--"]);
                command.arg(program);
                command
            }
        };
        command.args(["serve", &port, file.to_str().unwrap()]).stdout(Stdio::piped());
        let mut server = ChildGuard::start(&mut command);
        wait_for_line(server.0.stdout.take().unwrap(), "Serving HTTP on 127.0.0.1 port");
        servers.push(TerminateOnDrop(server));
    }
    for session in ["1", "2"] {
        let output =
            private_map.output(&["run", "--private", "-s", session, "--", program, "fetch", &port]);
        assert_eq!(text(&output.stdout), format!("page of {session}\n"), "{output:?}");
    }
    let output = Command::new(program).args(["fetch", &port]).output().unwrap();
    assert_eq!(text(&output.stdout), "page of host\n");
    drop(servers);
    assert!(private_map.open_sessions().is_empty());
}

#[test]
fn demo_succeeds() {
    let private_map = PrivateMap::new();
    let (host, port) = host_listener();
    drop(host);
    page_server();
    let output = private_map.output(&["demo", "--port", &port.to_string()]);
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
}
