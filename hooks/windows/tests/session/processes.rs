//! How the hook layer comes into processes, and how it leaves.

use std::process::Command;

use super::support::{HOST, Host, Session, installed, output, port, program, started};

/// `rows.exe` for row 6, which shows where a wildcard bind went.
fn row_6(session: &Session<'_>, port: u16) -> [String; 6] {
    let rows = program("rows.exe").display().to_string();
    let (v, l) = (session.v().to_string(), session.l().to_string());
    [rows, "6".to_owned(), port.to_string(), v, l, HOST.to_owned()]
}

const REWRITTEN: &str = "bind: ok\nname: V port\n";
const UNTOUCHED: &str = "bind: ok\nname: 0.0.0.0 port\n";

#[test]
fn a_listed_child_of_an_unlisted_program_is_found() {
    let host = Host::new(|_| ());
    let session = host.session(1);
    for way in ["a", "w"] {
        let mut command = session.launch(&program("starter.exe"));
        assert_eq!(output(command.arg(way).args(row_6(&session, port()))), REWRITTEN, "{way}");
    }
}

#[test]
fn a_suspended_child_stays_so_and_is_hooked_before_its_entry_point() {
    let host = Host::new(|_| ());
    let session = host.session(1);
    let row = row_6(&session, port());
    let plain = output(Command::new(program("starter.exe")).arg("suspended").args(&row));
    let hooked = output(session.launch(&program("starter.exe")).arg("suspended").args(&row));
    // The same last error, and a thread that is suspended once.
    let error = plain.split_once(',').unwrap().0;
    assert_eq!(plain, format!("{error}, hooked 0\n{UNTOUCHED}suspended 1\n"));
    assert_eq!(hooked, format!("{error}, hooked 1\n{REWRITTEN}suspended 1\n"));
}

#[test]
fn a_child_is_not_rewritten_because_its_parent_is() {
    let host = Host::new(|policy| policy.programs[0].pattern = "starter.exe".to_owned());
    let session = host.session(1);
    let mut command = session.launch(&program("starter.exe"));
    assert_eq!(output(command.arg("w").args(row_6(&session, port()))), UNTOUCHED);
}

#[test]
fn a_rule_can_be_handed_down() {
    let host = Host::new(|policy| {
        policy.programs[0].pattern = "starter.exe".to_owned();
        policy.programs[0].inherit = true;
    });
    let session = host.session(1);
    let mut command = session.launch(&program("starter.exe"));
    assert_eq!(output(command.arg("w").args(row_6(&session, port()))), REWRITTEN);
}

#[test]
fn the_exit_code_and_the_arguments_are_handed_through() {
    let host = Host::new(|_| ());
    let session = host.session(1);
    // No arguments: the program answers 2.
    assert_eq!(started(|| session.launch(&program("rows.exe")).status()).code(), Some(2));
    let missing = started(|| session.launch(&program("no such program.exe")).status());
    assert_eq!(missing.code(), Some(125));
}

#[test]
fn without_a_map_or_with_the_switch_off_nothing_is_touched() {
    let host = Host::new(|_| ());
    let session = host.session(1);
    let [rows, arguments @ ..] = row_6(&session, port());
    let launch = |set: &[(&str, &str)]| {
        let mut command = Command::new(installed("vipool-launch.exe"));
        command.arg("--explain").arg(&rows).args(&arguments);
        session.enter(&mut command);
        let output = started(|| command.envs(set.iter().copied()).output());
        let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace("\r\n", "\n");
        (said(&output.stdout), said(&output.stderr))
    };
    let (out, explained) = launch(&[]);
    assert_eq!(out, REWRITTEN);
    assert!(explained.ends_with("its socket calls are rewritten\n"), "{explained}");
    let (out, explained) = launch(&[("VIPOOL_DISABLE", "1")]);
    assert_eq!(out, UNTOUCHED);
    assert!(explained.contains("VIPOOL_DISABLE is set"), "{explained}");
    let (out, explained) = launch(&[("VIPOOL_MAP", r"C:\no such directory")]);
    assert_eq!(out, UNTOUCHED);
    assert!(explained.contains("there is no map"), "{explained}");
    host.close(&session.handle);
    let (out, explained) = launch(&[]);
    assert_eq!(out, UNTOUCHED);
    assert!(explained.contains("its lease is closed"), "{explained}");
}

#[test]
fn a_session_is_named_only_where_the_policy_allows_it() {
    let host = Host::new(|policy| policy.session_override = false);
    let session = host.session(1);
    assert_eq!(session.row(6, port()), UNTOUCHED);
}

#[test]
fn without_a_lease_it_is_the_session_of_windows() {
    let host = Host::new(|policy| policy.session_override = false);
    let own = vipool::os::process::session_of(std::process::id()).unwrap();
    let (session, another) = (host.open(own), host.session(2));
    let run = |session: &Session<'_>, lease: Option<&Session<'_>>| {
        let [rows, arguments @ ..] = row_6(session, port());
        let mut command = session.launch(rows.as_ref());
        command.args(arguments).env_remove("VIPOOL_LEASE");
        output(command.envs(lease.map(|lease| ("VIPOOL_LEASE", lease.handle.to_string()))))
    };
    assert_eq!(run(&session, None), REWRITTEN);
    // What the environment says of it counts for nothing.
    assert_eq!(run(&session, Some(&another)), REWRITTEN);
}

#[test]
fn hooks_leave_and_come_back() {
    let host = Host::new(|_| ());
    let session = host.session(1);
    let mut command = Command::new(program("unload.exe"));
    command.arg(port().to_string()).arg(installed("vipool_hook.dll"));
    session.enter(&mut command);
    let v = session.v();
    let expected = format!(
        "before: 0.0.0.0\nby itself: {v}\nwith: {v}\nafter: 0.0.0.0\nagain: {v}\nunloaded: 0.0.0.0\n"
    );
    assert_eq!(output(&mut command), expected);
}
