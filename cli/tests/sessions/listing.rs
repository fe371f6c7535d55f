//! Who is on the process list and who is not.

use crate::support::{Ended, Place, host_listener, page, text, wait_for_line};
use std::path::Path;
use std::process::{Command, Stdio};
use vipool_testing::ChildGuard;

/// Runs the server on a port that the host listens on: it serves only if it is rewritten.
fn serves(place: &Place, farm: &str, program: &[&str], port: u16) -> bool {
    let file = place.write("index.html", "a page\n");
    let port = port.to_string();
    let mut command = place.vipool(&["run", "--private", "--farm", farm, "-s", "1", "--"]);
    command.args(program).args(["serve", &port, file.to_str().unwrap()]);
    let mut running = ChildGuard::start(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
    let mut line = String::new();
    use std::io::{BufRead, BufReader, Read};
    BufReader::new(running.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let served = line == format!("Serving HTTP on 127.0.0.1 port {port}\n");
    if served {
        let pid = nix::unistd::Pid::from_raw(running.0.id() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        running.0.wait().unwrap();
    } else {
        let mut errors = String::new();
        running.0.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
        assert!(errors.contains("AddrInUse"), "{errors}");
    }
    served
}

#[test]
fn a_full_path_is_that_file_alone_and_a_name_is_any() {
    let place = Place::new();
    let (_host, port) = host_listener();
    let copy = place.path().join("page");
    std::fs::copy(page(), &copy).unwrap();
    let elsewhere = copy.to_str().unwrap();
    let original = page().to_str().unwrap();

    let farm = place.farm(2, "pass", page());
    assert!(serves(&place, &farm, &[original], port));
    assert!(!serves(&place, &farm, &[elsewhere], port), "the same name elsewhere");

    let farm = place.farm(2, "pass", Path::new("page"));
    assert!(serves(&place, &farm, &[elsewhere], port), "listed by its bare name");
}

#[test]
fn a_child_that_is_not_listed_is_untouched() {
    let place = Place::new();
    let (_host, port) = host_listener();
    // env is listed, and starts a server that is not; then both are.
    let env = Path::new("/usr/bin/env").canonicalize().unwrap();
    let env_name = env.to_str().unwrap();
    let page_name = page().to_str().unwrap();
    let shell = Path::new("/bin/sh").canonicalize().unwrap();
    let farm = place.farm(2, "pass", &shell);
    let child = ["sh", "-c", "\"$@\"; exit $?", "sh", page_name];
    assert!(!serves(&place, &farm, &child, port));
    let both = std::fs::read_to_string(&farm).unwrap()
        + &format!("[[program]]\npath = {page_name:?}\nfeatures = [\"loopback\"]\n");
    std::fs::write(&farm, both).unwrap();
    assert!(serves(&place, &farm, &[env_name, page_name], port));
}

#[test]
fn two_sessions_and_the_host_on_one_port() {
    let place = Place::new();
    let (host, port) = host_listener();
    drop(host);
    let port = port.to_string();
    let page = page().to_str().unwrap();
    let mut servers = Vec::new();
    for who in ["host", "1", "2"] {
        let file = place.write(who, &format!("page of {who}\n"));
        let mut command = match who {
            "host" => Command::new(page),
            session => {
                let mut command = place.vipool(&["run", "--private", "-s", session, "--"]);
                command.arg(page);
                command
            }
        };
        command.args(["serve", &port, file.to_str().unwrap()]).stdout(Stdio::piped());
        let mut server = ChildGuard::start(&mut command);
        wait_for_line(server.0.stdout.take().unwrap(), "Serving HTTP on 127.0.0.1 port");
        servers.push(Ended(server));
    }
    for session in ["1", "2"] {
        let output = place.output(&["run", "--private", "-s", session, "--", page, "fetch", &port]);
        assert_eq!(text(&output.stdout), format!("page of {session}\n"), "{output:?}");
    }
    let output = Command::new(page).args(["fetch", &port]).output().unwrap();
    assert_eq!(text(&output.stdout), "page of host\n");
    drop(servers);
    assert!(place.open_sessions().is_empty());
}

#[test]
fn the_demo_holds() {
    let place = Place::new();
    let (host, port) = host_listener();
    drop(host);
    page();
    let output = place.output(&["demo", "--port", &port.to_string()]);
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
}
