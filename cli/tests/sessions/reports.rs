//! Tests of the text that `vipool` prints about sessions, addresses and programs.

use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

use vipool_testing::{ChildGuard, have};

use crate::support::{PrivateMap, text};

/// Opens a session and returns its loopback address.
fn open_session(private_map: &PrivateMap, session: &str, user: &str) -> Ipv4Addr {
    let output = private_map.output(&["session", "open", session, "--private", "--user", user]);
    let text = text(&output.stdout);
    text.trim().rsplit(' ').next().unwrap().parse().unwrap_or_else(|_| panic!("{output:?}"))
}

#[test]
fn logind_session_has_the_same_name_in_every_command() {
    let private_map = PrivateMap::new();
    open_session(&private_map, "logind:c1", "bob");
    assert_eq!(private_map.open_sessions(), ["logind:c1"]);
    let history = private_map.json_output(&["history", "--private", "--session", "logind:c1"]);
    assert_eq!(history[0]["session"], "logind:c1", "{history}");
}

#[test]
fn backslash_of_a_user_name_is_printed_and_control_characters_are_escaped() {
    let private_map = PrivateMap::new();
    let address = open_session(&private_map, "7", "DOMAIN\\alice").to_string();
    for arguments in [&["status"][..], &["session", "list"], &["history"], &["who", &address]] {
        let output = private_map.output(&[arguments, &["--private"]].concat());
        let printed = text(&output.stdout);
        assert!(printed.contains("DOMAIN\\alice"), "{printed}");
    }
    private_map.output(&["session", "open", "8", "--private", "--user", "\u{1b}[2J"]);
    let printed = text(&private_map.output(&["status", "--private"]).stdout);
    assert!(printed.contains("\\u{1b}[2J") && !printed.contains('\u{1b}'), "{printed}");
}

#[test]
fn who_finds_sessions_by_loopback_address_and_reports_foreign_addresses() {
    let private_map = PrivateMap::new();
    let address = open_session(&private_map, "7", "alice");
    // The session has a second loopback address in the same /24. It represents ::1.
    let is_second_address = |last_octet: u8| {
        let mut octets = address.octets();
        octets[3] = last_octet;
        let candidate = Ipv4Addr::from(octets).to_string();
        let output = private_map.output(&["who", &candidate, "--private"]);
        let expected = format!(
            "{candidate} (::1 of the session that leased {address}) was leased to session 7 of user alice"
        );
        output.status.success() && text(&output.stdout).starts_with(&expected)
    };
    let second_addresses = (1..=254)
        .filter(|last_octet| *last_octet != address.octets()[3])
        .filter(|last_octet| is_second_address(*last_octet));
    assert_eq!(second_addresses.count(), 1);
    for foreign_address in ["8.8.8.8", "::1"] {
        let output = private_map.output(&["who", foreign_address, "--private"]);
        assert_eq!(output.status.code(), Some(1));
        let expected = format!("{foreign_address} belongs to no pool");
        assert!(text(&output.stdout).starts_with(&expected), "{output:?}");
    }
}

#[test]
fn missing_map_is_reported_with_the_command_that_creates_it() {
    let private_map = PrivateMap::new();
    for arguments in [
        &["status"][..],
        &["session", "list"],
        &["session", "close", "7"],
        &["addresses"],
        &["metrics"],
        &["gc"],
        &["drain", "--all"],
        &["history"],
    ] {
        let output = private_map.output(&[arguments, &["--private"]].concat());
        let errors = text(&output.stderr);
        let expected = "you have no private map ('vipool run --private' creates it)";
        assert!(errors.contains(expected), "{arguments:?}: {errors}");
        assert!(!errors.contains("vipool up"), "{arguments:?}: {errors}");
    }
}

#[test]
fn several_processes_are_explained_in_one_run() {
    let private_map = PrivateMap::new();
    let mut command = Command::new("sleep");
    command.arg("60").stdout(Stdio::null());
    let processes = [ChildGuard::start(&mut command), ChildGuard::start(&mut command)];
    let pids = processes.each_ref().map(|process| process.0.id().to_string());
    let output = private_map.output(&["explain", &pids[0], &pids[1]]);
    let printed = text(&output.stdout);
    for pid in &pids {
        assert!(printed.contains(&format!("sleep (pid {pid}): ")), "{printed}");
    }
    let reports = private_map.json_output(&["explain", &pids[0], &pids[1]]);
    let reported_pids: Vec<_> =
        reports.as_array().unwrap().iter().map(|report| report["pid"].to_string()).collect();
    assert_eq!(reported_pids, pids);
    assert_eq!(private_map.json_output(&["explain", &pids[0]])["pid"].to_string(), pids[0]);

    // A pid that does not exist is an error, and the other process is still explained.
    let output = private_map.output(&["explain", "4194305", &pids[1]]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("there is no process 4194305"), "{output:?}");
    assert!(text(&output.stdout).contains(&format!("(pid {})", pids[1])), "{output:?}");
}

#[test]
fn script_is_a_path_and_a_module_is_a_name() {
    if !have(&["python3"]) {
        return;
    }
    let private_map = PrivateMap::new();
    let script = private_map.write_file("script.py", "").canonicalize().unwrap();
    // The command python3 can be a script, so use the path of the interpreter.
    let print_path = "import os, sys; print(os.path.realpath(sys.executable))";
    let path_output = Command::new("python3").args(["-c", print_path]).output().unwrap();
    let python = text(&path_output.stdout).trim().to_owned();
    for (arguments, expected) in [
        (&["-m", "http.server"][..], "http.server"),
        (&["script.py"], script.to_str().unwrap()),
        (&[script.to_str().unwrap()], script.to_str().unwrap()),
    ] {
        let mut command = private_map.vipool(&["explain", "--private", "--json", "--"]);
        command.arg(&python).args(arguments).current_dir(private_map.path());
        let output = command.output().unwrap();
        let report: serde_json::Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
        assert_eq!(report["script"], expected);
    }
}
