//! Tests of `vipool.exe`: the commands check, up, session, status, run and gc, and the messages of
//! unsupported commands.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::support::{
    RunningProgram, installed_file, retry_start, stdout_of, test_program, unused_port,
};

/// A farm file and the directory of its map. Dropping the value removes both.
struct Farm {
    directory: PathBuf,
}

impl Farm {
    /// Writes a farm.toml and runs `vipool up`.
    fn new(name: &str, text: &str) -> Self {
        let name = format!("vipool-commands-{name}-{}", std::process::id());
        let farm = Self { directory: std::env::temp_dir().join(name) };
        fs::create_dir_all(&farm.directory).unwrap();
        fs::write(farm.file(), text).unwrap();
        stdout_of(farm.vipool(&["up", "--farm", &farm.file(), "--map"]).arg(farm.map_directory()));
        farm
    }

    fn file(&self) -> String {
        self.directory.join("farm.toml").to_str().unwrap().to_owned()
    }

    fn map_directory(&self) -> PathBuf {
        self.directory.join("map directory")
    }

    fn vipool(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(installed_file("vipool.exe"));
        command.args(arguments).env_remove("VIPOOL_LEASE").env("VIPOOL_MAP", self.map_directory());
        command.env("VIPOOL_TEST_SESSION", "1");
        command
    }

    /// Runs a command that must fail. Returns its exit code, and its output on both streams.
    fn run_failing(&self, arguments: &[&str]) -> (i32, String) {
        let output = retry_start(|| self.vipool(arguments).output());
        assert!(!output.status.success(), "{arguments:?}");
        let bytes = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8(bytes).unwrap().replace("\r\n", "\n"))
    }
}

impl Drop for Farm {
    fn drop(&mut self) {
        _ = fs::remove_dir_all(&self.directory);
    }
}

const PROGRAM_RULE: &str = "[[program]]\npath = 'rows.exe'\n\
                    features = ['loopback', 'client-ip']\n";

#[test]
fn commands_open_use_and_close_a_session() {
    let farm = Farm::new("use", PROGRAM_RULE);
    let vipool = |arguments: &[&str]| farm.vipool(arguments);
    assert!(stdout_of(&mut vipool(&["check", &farm.file()])).contains("no errors"));
    let output =
        stdout_of(vipool(&["up", "--farm", &farm.file(), "--map"]).arg(farm.map_directory()));
    assert!(output.contains("2048 addresses"), "{output}");
    let opened = stdout_of(&mut vipool(&["session", "open", "7", "--user", "alice"]));
    assert!(opened.starts_with("Session 7 is open: 127."), "{opened}");
    let reopened = stdout_of(&mut vipool(&["session", "open", "7"]));
    assert!(reopened.starts_with("Session 7 was already open: 127."), "{reopened}");
    let loopback = opened.trim_end().rsplit(' ').next().unwrap().to_owned();
    assert!(stdout_of(&mut vipool(&["session", "list"])).contains(&loopback));
    // Session 7 is already open. `vipool run` opens session 8, and closes this session when the
    // program ends.
    for session in ["7", "8"] {
        let mut run = vipool(&["run", "--session", session, "--"]);
        run.arg(test_program("rows.exe")).args([
            "1",
            &unused_port().to_string(),
            "10.0.0.1",
            &loopback,
            "10.0.0.2",
        ]);
        assert_eq!(stdout_of(&mut run), "bind: ok\nname: 127.0.0.1 port\nready\n");
    }
    let status = stdout_of(&mut vipool(&["status"]));
    let row = status.lines().find(|line| line.starts_with("loopback")).unwrap();
    let used_count = row.split_whitespace().nth(4);
    // Session 7 still has its address. `vipool run` released the address of session 8 when the
    // program ended.
    assert_eq!(used_count, Some("1"), "{status}");
    for (arguments, expected_parts) in [
        (&["status", "--json"][..], &["\"schema\": 1", "\"open_sessions\": 1", "\"used\": 1"][..]),
        (&["session", "list", "--json"], &[]),
    ] {
        let json = stdout_of(&mut vipool(arguments));
        for part in
            [expected_parts, &["\"session\": \"7\"", "\"user\": \"alice\"", &loopback]].concat()
        {
            assert!(json.contains(part), "{part}: {json}");
        }
    }
    let exit_status = retry_start(|| {
        vipool(&["run", "--session", "7", "--"]).arg(test_program("rows.exe")).status()
    });
    assert_eq!(exit_status.code(), Some(2), "the program's own exit code");
    let closed = stdout_of(&mut vipool(&["session", "close", "7"]));
    assert_eq!(closed, format!("Session 7 is closed, released {loopback}\n"));
    assert_eq!(stdout_of(&mut vipool(&["session", "close", "7", "--if-open"])), "");
    assert_eq!(stdout_of(&mut vipool(&["session", "list"])), "No session is open.\n");
    assert!(stdout_of(&mut vipool(&["gc"])).contains("closed 0 sessions"));
    // The last user of each address is stored in a file for the next boot.
    assert!(
        fs::read_to_string(farm.map_directory().join("last-users")).unwrap().contains(&loopback)
    );
}

#[test]
fn failures_have_a_message_and_an_exit_code() {
    let farm = Farm::new(
        "fail",
        &format!("[loopback]\nranges = ['127.77.9.2-127.77.9.3']\n\n{PROGRAM_RULE}"),
    );
    let invalid_farm = farm.directory.join("bad.toml");
    fs::write(&invalid_farm, "[loopback]\nranges = ['10.0.0.0/8']\n").unwrap();
    let (code, output) = farm.run_failing(&["check", invalid_farm.to_str().unwrap()]);
    assert!(code == 1 && output.contains("bad.toml:2"), "{code} {output}");
    let (code, output) = farm.run_failing(&["session", "close", "7"]);
    assert!(code == 1 && output.contains("7"), "{code} {output}");
    let (code, output) = farm.run_failing(&["status", "--map", r"C:\no such directory"]);
    assert!(code == 1 && output.contains("no such directory"), "{code} {output}");
    let (code, output) = farm.run_failing(&["status", "--private"]);
    assert!(code == 1 && output.contains("private maps need Linux"), "{code} {output}");
    // The pool has two addresses. Session 1 needs both, as L and L6, so no address is left for
    // session 2.
    stdout_of(&mut farm.vipool(&["session", "open", "1"]));
    let (code, output) = farm.run_failing(&["session", "open", "2"]);
    assert_eq!(code, 75, "{output}");
    let rows_program = test_program("rows.exe").to_str().unwrap().to_owned();
    let (code, output) =
        farm.run_failing(&["run", "--require", "--session", "2", "--", &rows_program]);
    assert!(code == 75 && output.starts_with(vipool::EXHAUSTED_MESSAGE), "{code} {output}");
    let (code, output) = farm.run_failing(&["run", "--session", "2", "--", &rows_program]);
    assert!(code == 2 && output.starts_with(vipool::EXHAUSTED_MESSAGE), "{code} {output}");
    for command in ["down", "discover", "explain", "history", "who", "demo"] {
        let (code, output) = farm.run_failing(&[command, "--json", "10.0.5.17"]);
        assert_eq!(code, 1);
        assert!(
            output.contains(&format!("'vipool {command}' is not available on Windows (")),
            "{output}"
        );
    }
}

#[test]
fn client_ip_feature_reports_the_client_of_the_session() {
    let farm = Farm::new("client", PROGRAM_RULE);
    let client_arguments = ["--client", "192.0.2.9"];
    let client_file_exists = || {
        fs::read_dir(farm.map_directory())
            .unwrap()
            .any(|entry| entry.unwrap().file_name().to_string_lossy().starts_with("client."))
    };
    let run_lookup_row = |arguments: &[&str]| {
        let mut run = farm.vipool(&["run"]);
        run.args(arguments).arg("--").arg(test_program("rows.exe"));
        stdout_of(run.args(["40", &unused_port().to_string(), "10.0.0.1", "127.0.0.9", "10.0.0.2"]))
    };
    let client_output = "getaddrinfo: 192.0.2.9 0\nGetAddrInfoW: 192.0.2.9 0\n\
                   GetAddrInfoExW: 192.0.2.9 0\nGetAddrInfoExW, overlapped: 192.0.2.9 0\n\
                   gethostbyname: 192.0.2.9\n";
    // Session 7 belongs to a user. `vipool run` opens session 8, and closes this session when the
    // program ends.
    let user = std::env::var("USERNAME").unwrap();
    stdout_of(farm.vipool(&["session", "open", "7", "--user", &user]).args(client_arguments));
    assert!(client_file_exists());
    assert_eq!(run_lookup_row(&["--session", "7"]), client_output);
    stdout_of(&mut farm.vipool(&["session", "close", "7"]));
    assert!(!client_file_exists(), "the file is removed with the session");
    assert_eq!(
        run_lookup_row(&["--session", "8", client_arguments[0], client_arguments[1]]),
        client_output
    );
    assert!(!client_file_exists(), "the file is removed when the program ends");
    assert_ne!(run_lookup_row(&["--session", "9"]), client_output);
}

/// Without `VIPOOL_TEST_SESSION`, as on a server, the hook ignores `VIPOOL_LEASE`. The hook uses
/// only the session that belongs to the Windows session of the program, even with `--session`.
#[test]
fn session_of_the_logon_is_the_default() {
    let farm = Farm::new("logon", PROGRAM_RULE);
    let reaches_host_loopback = |session_arguments: &[&str]| {
        let mut run = farm.vipool(&["run"]);
        run.env_remove("VIPOOL_TEST_SESSION");
        let port = unused_port();
        run.args(session_arguments).arg("--").arg(test_program("rows.exe"));
        run.args(["1", &port.to_string(), "10.0.0.1", "127.0.0.9", "10.0.0.2"]);
        let _program = RunningProgram::start(&mut run);
        std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
    };
    assert!(!reaches_host_loopback(&[]), "the program must listen on the session's address");
    assert!(reaches_host_loopback(&["--session", "9"]), "`--session 9` must have no effect");
}
