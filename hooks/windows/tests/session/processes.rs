//! Tests that load the hook layer into processes and remove the hooks.

use std::process::Command;

use super::support::{
    HOST_ADDRESS, Session, TestHost, installed_file, retry_start, stdout_of, test_program,
    unused_port,
};

/// Returns a command line of rows.exe for row 6. This row binds a socket to the wildcard address
/// and prints the address that getsockname reports.
fn wildcard_bind_row(session: &Session<'_>, port: u16) -> [String; 6] {
    let rows = test_program("rows.exe").display().to_string();
    let (v, l) = (session.virtual_ip().to_string(), session.loopback().to_string());
    [rows, "6".to_owned(), port.to_string(), v, l, HOST_ADDRESS.to_owned()]
}

const REWRITTEN: &str = "bind: ok\nname: V port\n";
const NOT_REWRITTEN: &str = "bind: ok\nname: 0.0.0.0 port\n";

#[test]
fn listed_child_of_unlisted_program_is_hooked() {
    let host = TestHost::new(|_| ());
    let session = host.open_session(1);
    for mode in ["a", "w"] {
        let mut command = session.launcher_command(&test_program("starter.exe"));
        assert_eq!(
            stdout_of(command.arg(mode).args(wildcard_bind_row(&session, unused_port()))),
            REWRITTEN,
            "{mode}"
        );
    }
}

#[test]
fn suspended_child_stays_suspended_and_is_hooked_before_its_entry_point() {
    let host = TestHost::new(|_| ());
    let session = host.open_session(1);
    let row_command = wildcard_bind_row(&session, unused_port());
    let without_hooks =
        stdout_of(Command::new(test_program("starter.exe")).arg("suspended").args(&row_command));
    let with_hooks = stdout_of(
        session.launcher_command(&test_program("starter.exe")).arg("suspended").args(&row_command),
    );
    // With and without hooks, the last error is the same and the suspend count of the thread is 1.
    let error = without_hooks.split_once(',').unwrap().0;
    assert_eq!(without_hooks, format!("{error}, hooked 0\n{NOT_REWRITTEN}suspended 1\n"));
    assert_eq!(with_hooks, format!("{error}, hooked 1\n{REWRITTEN}suspended 1\n"));
}

#[test]
fn unlisted_child_of_listed_program_is_not_rewritten() {
    let host = TestHost::new(|policy| policy.programs[0].pattern = "starter.exe".to_owned());
    let session = host.open_session(1);
    let mut command = session.launcher_command(&test_program("starter.exe"));
    assert_eq!(
        stdout_of(command.arg("w").args(wildcard_bind_row(&session, unused_port()))),
        NOT_REWRITTEN
    );
}

#[test]
fn children_inherit_an_inheritable_rule() {
    let host = TestHost::new(|policy| {
        policy.programs[0].pattern = "starter.exe".to_owned();
        policy.programs[0].flags.inherit = true;
    });
    let session = host.open_session(1);
    let mut command = session.launcher_command(&test_program("starter.exe"));
    assert_eq!(
        stdout_of(command.arg("w").args(wildcard_bind_row(&session, unused_port()))),
        REWRITTEN
    );
}

#[test]
fn launcher_preserves_arguments_and_exit_code() {
    let host = TestHost::new(|_| ());
    let session = host.open_session(1);
    // The exit code of rows.exe without arguments is 2.
    assert_eq!(
        retry_start(|| session.launcher_command(&test_program("rows.exe")).status()).code(),
        Some(2)
    );
    let launcher_status =
        retry_start(|| session.launcher_command(&test_program("no such program.exe")).status());
    assert_eq!(launcher_status.code(), Some(125), "the exit code of the launcher itself");
}

#[test]
fn nothing_is_rewritten_without_map_or_lease_or_with_the_disable_variable() {
    let host = TestHost::new(|_| ());
    let session = host.open_session(1);
    let [rows, arguments @ ..] = wildcard_bind_row(&session, unused_port());
    let launch = |variables: &[(&str, &str)]| {
        let mut command = Command::new(installed_file("vipool-launch.exe"));
        command.arg("--explain").arg(&rows).args(&arguments);
        session.set_environment(&mut command);
        let output = retry_start(|| command.envs(variables.iter().copied()).output());
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace("\r\n", "\n");
        (text(&output.stdout), text(&output.stderr))
    };
    let (stdout, explanation) = launch(&[]);
    assert_eq!(stdout, REWRITTEN);
    assert!(explanation.ends_with("its socket calls are rewritten\n"), "{explanation}");
    let (stdout, explanation) = launch(&[("VIPOOL_DISABLE", "1")]);
    assert_eq!(stdout, NOT_REWRITTEN);
    assert!(explanation.contains("VIPOOL_DISABLE is set"), "{explanation}");
    let (stdout, explanation) = launch(&[("VIPOOL_MAP", r"C:\no such directory")]);
    assert_eq!(stdout, NOT_REWRITTEN);
    assert!(explanation.contains("there is no readable map"), "{explanation}");
    host.close_session(&session.handle);
    let (stdout, explanation) = launch(&[]);
    assert_eq!(stdout, NOT_REWRITTEN);
    assert!(explanation.contains("its lease is closed"), "{explanation}");
}

#[test]
fn lease_variable_is_ignored_outside_test_sessions() {
    let host = TestHost::new(|_| ());
    let session = host.open_session(1);
    let [rows, arguments @ ..] = wildcard_bind_row(&session, unused_port());
    let mut command = session.launcher_command(rows.as_ref());
    command.args(arguments).env_remove("VIPOOL_TEST_SESSION");
    assert_eq!(stdout_of(&mut command), NOT_REWRITTEN);
}

#[test]
fn session_of_windows_applies_outside_test_sessions() {
    let host = TestHost::new(|_| ());
    let own_session_id = vipool::system::process_session(std::process::id()).unwrap();
    let (session, other_session) = (host.open_session_id(own_session_id), host.open_session(2));
    let run = |session: &Session<'_>, leased_session: Option<&Session<'_>>| {
        let [rows, arguments @ ..] = wildcard_bind_row(session, unused_port());
        let mut command = session.launcher_command(rows.as_ref());
        command.args(arguments).env_remove("VIPOOL_LEASE").env_remove("VIPOOL_TEST_SESSION");
        let lease = leased_session.map(|leased| ("VIPOOL_LEASE", leased.handle.to_string()));
        stdout_of(command.envs(lease))
    };
    assert_eq!(run(&session, None), REWRITTEN);
    // The hook layer ignores the lease in the environment.
    assert_eq!(run(&session, Some(&other_session)), REWRITTEN);
}

#[test]
fn hooks_can_be_removed_and_installed_again() {
    let host = TestHost::new(|_| ());
    let session = host.open_session(1);
    let mut command = Command::new(test_program("unload.exe"));
    command.arg(unused_port().to_string()).arg(installed_file("vipool_hook.dll"));
    session.set_environment(&mut command);
    let v = session.virtual_ip();
    let expected_output = format!(
        "before: 0.0.0.0\nfreed at once: loaded\nby DllMain: {v}\ninstalled: {v}\nremoved: 0.0.0.0\ninstalled again: {v}\nunloaded: 0.0.0.0\n"
    );
    assert_eq!(stdout_of(&mut command), expected_output);
}
