//! Tests of `vipool discover` on real programs. The ports depend on the process id, so that
//! concurrent runs of the tests use different ports.

#![cfg(target_os = "linux")]

use std::process::Command;

use serde_json::Value;

const SERVER_SCRIPT: &str = "
import socket, subprocess, sys, threading
port = int(sys.argv[1])
server = socket.create_server(('127.0.0.1', port))
threading.Thread(target=server.accept, daemon=True).start()
wildcard_socket = socket.socket()
wildcard_socket.bind(('0.0.0.0', port + 1))
subprocess.run(['nc', '-N', '127.0.0.1', str(port)], stdin=subprocess.DEVNULL, timeout=20)
socket.if_nameindex(); subprocess.run(['hostname', '-I'])
";

#[test]
fn program_and_helper_are_reported_separately() {
    if !vipool_testing::have(&["python3", "nc"]) {
        return;
    }
    let port = 20000 + std::process::id() % 9000;
    let output = Command::new(env!("CARGO_BIN_EXE_vipool"))
        .args(["discover", "--json", "--", "python3", "-c", SERVER_SCRIPT, &port.to_string()])
        .env_remove("VIPOOL_LEASE")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // The output of hostname precedes the report.
    let report: Value = serde_json::from_str(&text[text.find('{').expect("JSON")..]).unwrap();
    let find_with_evidence = |name: &str| {
        let programs = report["programs"].as_array().unwrap().iter();
        let has_name = |program: &&Value| {
            program["path"].as_str().unwrap().rsplit('/').next().unwrap().starts_with(name)
        };
        programs
            .clone()
            .filter(has_name)
            .find(|program| !program["evidence"].as_array().unwrap().is_empty())
            .cloned()
    };
    let python = find_with_evidence("python").unwrap_or_else(|| panic!("{report:#}"));
    assert_eq!(python["features"], serde_json::json!(["loopback", "virtual-ip"]), "{report:#}");
    assert_eq!(python["own_ports"], serde_json::json!([port]));
    assert_eq!(python["second_instance_fails"], true);
    let nc = find_with_evidence("nc").unwrap_or_else(|| panic!("{report:#}"));
    assert_eq!(nc["features"], serde_json::json!(["loopback"]), "{report:#}");
    let (farm, findings) = vipool::farm::Farm::parse(report["farm_toml"].as_str().unwrap());
    assert!(!findings.has_errors(), "{findings}");
    assert_eq!(farm.programs.len(), 2);
}

#[test]
fn missing_program_is_reported() {
    let output = Command::new(env!("CARGO_BIN_EXE_vipool"))
        .args(["discover", "--", "/no/such/program"])
        .output()
        .unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("/no/such/program"));
}

const STATIC_PROGRAM: &str = "
#include <netinet/in.h>
#include <sys/socket.h>
#include <stdlib.h>
int main(int argc, char **argv) {
    struct sockaddr_in local = { .sin_family = AF_INET, .sin_port = htons(atoi(argv[1])) };
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    return bind(fd, (struct sockaddr *)&local, sizeof local) || listen(fd, 1);
}
";

/// `vipool discover` also traces a statically linked program, although no hook can be loaded into
/// it. The report contains this obstacle, and no lines for farm.toml.
#[test]
fn static_program_is_reported_with_its_rewrite_obstacle() {
    if !vipool_testing::have(&["cc"]) {
        return;
    }
    let directory = std::env::temp_dir().join(format!("vipool-discover-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join("static.c"), STATIC_PROGRAM).unwrap();
    // The program's file has two paths. The report contains the path by which the program was
    // started.
    let (file, link) = (directory.join("file"), directory.join("link"));
    let status = Command::new("cc")
        .args(["-static", "-o"])
        .args([&file, &directory.join("static.c")])
        .status();
    assert!(status.unwrap().success());
    std::os::unix::fs::symlink(&file, &link).unwrap();
    // The ports differ from those of the other tests, which run at the same time.
    let port = 30000 + std::process::id() % 2000;
    let output = Command::new(env!("CARGO_BIN_EXE_vipool"))
        .args(["discover", "--"])
        .arg(&link)
        .arg(port.to_string())
        .output()
        .unwrap();
    std::fs::remove_dir_all(&directory).unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for line in [
        format!(
            "{}: loopback, virtual-ip (a second instance would fail), but no hook layer can rewrite it, because \
             it is linked statically",
            link.display()
        ),
        format!("  binds 0.0.0.0:{port}, the wildcard address (TCP)"),
        "No program needs a line in farm.toml.".to_owned(),
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    assert!(text.contains("Not observed: "), "{text}");
}
