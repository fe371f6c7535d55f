//! `vipool.exe`: check, up, session, status and run; and what it says of the rest.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::support::{Listening, installed, output, port, program, started};

/// A farm file and the directory of its map, gone when this goes out of scope.
struct Farm {
    directory: PathBuf,
}

impl Farm {
    /// A server with this farm.toml, on which `vipool up` was run.
    fn new(name: &str, text: &str) -> Self {
        let name = format!("vipool-commands-{name}-{}", std::process::id());
        let farm = Self { directory: std::env::temp_dir().join(name) };
        fs::create_dir_all(&farm.directory).unwrap();
        fs::write(farm.file(), text).unwrap();
        output(farm.vipool(&["up", "--farm", &farm.file(), "--map"]).arg(farm.map()));
        farm
    }

    fn file(&self) -> String {
        self.directory.join("farm.toml").to_str().unwrap().to_owned()
    }

    fn map(&self) -> PathBuf {
        self.directory.join("map directory")
    }

    fn vipool(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(installed("vipool.exe"));
        command.args(arguments).env_remove("VIPOOL_LEASE").env("VIPOOL_MAP", self.map());
        command
    }

    /// What a command that is to fail says, with its exit code.
    fn fails(&self, arguments: &[&str]) -> (i32, String) {
        let output = started(|| self.vipool(arguments).output());
        assert!(!output.status.success(), "{arguments:?}");
        let said = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8(said).unwrap().replace("\r\n", "\n"))
    }
}

impl Drop for Farm {
    fn drop(&mut self) {
        _ = fs::remove_dir_all(&self.directory);
    }
}

const RULE: &str = "[rewrite]\nsession-override = true\n\n[[program]]\npath = 'rows.exe'\n\
                    features = ['loopback', 'client-ip']\n";

#[test]
fn sessions_are_opened_shown_used_and_closed() {
    let farm = Farm::new("use", RULE);
    let vipool = |arguments: &[&str]| farm.vipool(arguments);
    assert!(output(&mut vipool(&["check", &farm.file()])).contains("no errors"));
    let said = output(vipool(&["up", "--farm", &farm.file(), "--map"]).arg(farm.map()));
    assert!(said.contains("2048 addresses"), "{said}");
    let opened = output(&mut vipool(&["session", "open", "7", "--user", "alice"]));
    assert!(opened.starts_with("Session 7 is open: 127."), "{opened}");
    let again = output(&mut vipool(&["session", "open", "7"]));
    assert!(again.starts_with("Session 7 was open already: 127."), "{again}");
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
    for (arguments, least) in [
        (&["status", "--json"][..], &["\"schema\": 1", "\"open_sessions\": 1", "\"used\": 1"][..]),
        (&["session", "list", "--json"], &[]),
    ] {
        let json = output(&mut vipool(arguments));
        for part in [least, &["\"session\": \"7\"", "\"user\": \"alice\"", &l]].concat() {
            assert!(json.contains(part), "{part}: {json}");
        }
    }
    let code =
        started(|| vipool(&["run", "--session", "7", "--"]).arg(program("rows.exe")).status());
    assert_eq!(code.code(), Some(2), "the program's own exit code");
    let closed = output(&mut vipool(&["session", "close", "7"]));
    assert_eq!(closed, format!("Session 7 is closed: {l} given back\n"));
    assert_eq!(output(&mut vipool(&["session", "close", "7", "--if-open"])), "");
    assert_eq!(output(&mut vipool(&["session", "list"])), "No session is open.\n");
    assert!(output(&mut vipool(&["gc"])).contains("0 sessions closed"));
    // Who had an address last is kept beside the map, for the next start of the machine.
    assert!(fs::read_to_string(farm.map().join("last-users")).unwrap().contains(&l));
}

#[test]
fn what_can_not_be_done_is_said_with_an_exit_code() {
    let farm =
        Farm::new("fail", &format!("[loopback]\nranges = ['127.77.9.2-127.77.9.3']\n\n{RULE}"));
    let bad = farm.directory.join("bad.toml");
    fs::write(&bad, "[loopback]\nranges = ['10.0.0.0/8']\n").unwrap();
    let (code, said) = farm.fails(&["check", bad.to_str().unwrap()]);
    assert!(code == 1 && said.contains("bad.toml:2"), "{code} {said}");
    let (code, said) = farm.fails(&["session", "close", "7"]);
    assert!(code == 1 && said.contains("7"), "{code} {said}");
    let (code, said) = farm.fails(&["status", "--map", r"C:\no such directory"]);
    assert!(code == 1 && said.contains("no such directory"), "{code} {said}");
    let (code, said) = farm.fails(&["status", "--private"]);
    assert!(code == 1 && said.contains("private maps are for Linux"), "{code} {said}");
    // Each session takes two addresses, so there is room for one: 75, with the text that users are told.
    output(&mut farm.vipool(&["session", "open", "1"]));
    let (code, said) = farm.fails(&["session", "open", "2"]);
    assert_eq!(code, 75, "{said}");
    let rows = program("rows.exe").to_str().unwrap().to_owned();
    let (code, said) = farm.fails(&["run", "--require", "--session", "2", "--", &rows]);
    assert!(code == 75 && said.starts_with(vipool::EXHAUSTED_MESSAGE), "{code} {said}");
    let (code, said) = farm.fails(&["run", "--session", "2", "--", &rows]);
    assert!(code == 2 && said.starts_with(vipool::EXHAUSTED_MESSAGE), "{code} {said}");
    for command in ["down", "discover", "explain", "history", "who", "demo"] {
        let (code, said) = farm.fails(&[command, "--json", "10.0.5.17"]);
        assert_eq!(code, 1);
        assert!(said.contains(&format!("'vipool {command}' is not there on Windows: ")), "{said}");
    }
}

#[test]
fn programs_are_told_their_sessions_client() {
    let farm = Farm::new("client", RULE);
    let client = ["--client", "192.0.2.9"];
    let told = || {
        fs::read_dir(farm.map())
            .unwrap()
            .any(|entry| entry.unwrap().file_name().to_string_lossy().starts_with("client."))
    };
    let row = |arguments: &[&str]| {
        let mut run = farm.vipool(&["run"]);
        run.args(arguments).arg("--").arg(program("rows.exe"));
        output(run.args(["40", &port().to_string(), "10.0.0.1", "127.0.0.9", "10.0.0.2"]))
    };
    let its_own = "getaddrinfo: 192.0.2.9 0\nGetAddrInfoW: 192.0.2.9 0\n\
                   GetAddrInfoExW: 192.0.2.9 0\nGetAddrInfoExW, overlapped: 192.0.2.9 0\n\
                   gethostbyname: 192.0.2.9\n";
    // A session opened for a user of this machine, and one for a program alone.
    let user = std::env::var("USERNAME").unwrap();
    output(farm.vipool(&["session", "open", "7", "--user", &user]).args(client));
    assert!(told());
    assert_eq!(row(&["--session", "7"]), its_own);
    output(&mut farm.vipool(&["session", "close", "7"]));
    assert!(!told(), "gone with the session");
    assert_eq!(row(&["--session", "8", client[0], client[1]]), its_own);
    assert!(!told(), "gone with the program");
    assert_ne!(row(&["--session", "9"]), its_own);
}

/// As on a server: nothing in the environment counts, and the session is that of Windows.
#[test]
fn without_a_name_the_session_is_that_of_the_logon() {
    let farm = Farm::new("logon", &RULE.replace("session-override = true", ""));
    let listens = |session: &[&str]| {
        let mut run = farm.vipool(&["run"]);
        let port = port();
        run.args(session).arg("--").arg(program("rows.exe"));
        run.args(["1", &port.to_string(), "10.0.0.1", "127.0.0.9", "10.0.0.2"]);
        let _listening = Listening::start(&mut run);
        std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
    };
    assert!(!listens(&[]), "it has an address of its own");
    assert!(listens(&["--session", "9"]), "another session is not followed here");
}
