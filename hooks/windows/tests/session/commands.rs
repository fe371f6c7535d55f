//! `vipool.exe`: check, up, session, status and run.

use std::fs;
use std::process::Command;

use super::support::{installed, output, port, program};

#[test]
fn sessions_are_opened_shown_used_and_closed() {
    let directory = std::env::temp_dir().join(format!("vipool-commands-{}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    let farm = directory.join("farm.toml");
    let rule = "[rewrite]\nsession-override = true\n\n[[program]]\npath = 'rows.exe'\n\
                features = ['loopback']\n";
    fs::write(&farm, rule).unwrap();
    let map = directory.join("map directory");
    let vipool = |arguments: &[&str]| {
        let mut command = Command::new(installed("vipool.exe"));
        command.args(arguments).env_remove("VIPOOL_LEASE").env("VIPOOL_MAP", &map);
        command
    };
    let farm = farm.to_str().unwrap();
    assert!(output(&mut vipool(&["check", farm])).contains("no errors"));
    let said = output(vipool(&["up", "--farm", farm, "--map"]).arg(&map));
    assert!(said.contains("2048 addresses"), "{said}");
    let opened = output(&mut vipool(&["session", "open", "7"]));
    assert!(opened.starts_with("Session 7 is open: 127."), "{opened}");
    let l = opened.trim_end().rsplit(' ').next().unwrap().to_owned();
    assert!(output(&mut vipool(&["session", "list"])).contains(&l));
    // In that session, and in one that is opened for the program alone.
    for session in ["7", "8"] {
        let mut run = vipool(&["run", "--session", session, "--"]);
        run.arg(program("rows.exe")).args(["1", &port().to_string(), "10.0.0.1", &l, "10.0.0.2"]);
        assert_eq!(output(&mut run), "bind: ok\nname: 127.0.0.1 port\nready\n");
    }
    let status = output(&mut vipool(&["status"]));
    let row = status.lines().find(|line| line.starts_with("loopback")).unwrap();
    let columns: Vec<&str> = row.split_whitespace().collect();
    // One is in use, the other was given back when the program had ended.
    assert_eq!(columns[4], "1", "{status}");
    let code = vipool(&["run", "--session", "7", "--"]).arg(program("rows.exe")).status();
    assert_eq!(code.unwrap().code(), Some(2), "the program's own exit code");
    let closed = output(&mut vipool(&["session", "close", "7"]));
    assert!(closed.starts_with("Session 7 is closed"), "{closed}");
    fs::remove_dir_all(directory).unwrap();
}
