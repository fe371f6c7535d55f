//! `vipool explain` on real processes in every state that it tells apart.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;
use support::{Host, compile, finish, in_namespace, program, start, wait_for_listener};
use vipool::os::clock;
use vipool::policy::{Features, LoopbackConnect, PortRange, Program};
use vipool_testing::needs::find_program;
use vipool_testing::{ChildGuard, preload_path, vipool_path};

/// The program that does nothing, in one of its forms. Built once: tests run side by side.
fn still(kind: &str) -> PathBuf {
    static BUILT: OnceLock<[PathBuf; 3]> = OnceLock::new();
    let [plain, fixed, go] = BUILT.get_or_init(|| {
        let build =
            |kind: &str, flags: &[&str]| compile(&format!("still-{kind}"), &["still.c"], flags);
        [build("plain", &[]), build("static", &["-static"]), build("go", &["-DGO"])]
    });
    match kind {
        "static" => fixed.clone(),
        "go" => go.clone(),
        _ => plain.clone(),
    }
}

/// The file behind `python3`: shims of version managers lead to it.
fn python() -> PathBuf {
    let code = "import os, sys; print(os.path.realpath(sys.executable))";
    PathBuf::from(finish(Command::new("python3").args(["-c", code])).trim())
}

fn on_a_host(test: &str, needs: &[&str], programs: Vec<Program>, body: impl FnOnce(Host)) {
    let prepare = || {
        still("plain");
        preload_path();
        vipool_path();
    };
    in_namespace(test, &[&["python3"], needs].concat(), prepare, || body(Host::new(programs)));
}

fn explained(host: &Host, arguments: &[&str]) -> Value {
    let mut command = Command::new(vipool_path());
    command.args(["explain", "--json"]).args(arguments);
    if arguments.contains(&"--") {
        command.env("VIPOOL_MAP", &host.directory);
    }
    serde_json::from_str(&finish(&mut command)).expect("JSON")
}

fn explain(host: &Host, running: &ChildGuard) -> Value {
    explained(host, &[&running.0.id().to_string()])
}

fn obstacles(explanation: &Value) -> Vec<&str> {
    let list = explanation["obstacles"].as_array().unwrap().iter();
    list.map(|obstacle| obstacle["name"].as_str().unwrap()).collect()
}

/// Starts a program in a session and says what is in its way.
fn in_the_way(host: &Host, command: &mut Command) -> Vec<String> {
    let (running, _) = start(command);
    let told = explain(host, &running);
    assert_eq!(told["rewritten"], obstacles(&told).is_empty(), "{told:#}");
    obstacles(&told).into_iter().map(str::to_owned).collect()
}

#[test]
fn each_socket_is_told_with_what_was_asked() {
    let rule = || Program {
        own_ports: vec![PortRange { first: 8500, last: 8500 }],
        shared_ports: vec![PortRange { first: 8501, last: 8501 }],
        ..program(python())
    };
    let code = "
import socket, time
tcp, udp = socket.SOCK_STREAM, socket.SOCK_DGRAM
kept = []
def bound(kind, *address, family=socket.AF_INET, listen=True, share=False):
    s = socket.socket(family, kind)
    if share: s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(address)
    if kind == tcp and listen: s.listen()
    kept.append(s)
    return s
server = bound(tcp, '127.0.0.1', 8100)
bound(tcp, '0.0.0.0', 8101)
bound(tcp, '::', 8102, family=socket.AF_INET6)
bound(tcp, '::1', 8103, family=socket.AF_INET6)
bound(tcp, '127.0.0.1', 0)
bound(tcp, '127.0.0.1', 8501)
bound(tcp, '127.0.0.1', 8104, listen=False)
bound(udp, '127.0.0.1', 8105)
bound(udp, '0.0.0.0', 8106)
bound(udp, '0.0.0.0', 8107, share=True)
kept.append(socket.socket())
kept.append(socket.create_connection(('127.0.0.1', 8100)))
kept.append(server.accept()[0])
kept.append(socket.create_connection(('127.0.0.1', 8101)))
kept.append(socket.create_connection(('127.0.0.1', 8110)))
kept.append(socket.create_connection(('10.99.5.1', 8111)))
kept.append(socket.socket(socket.AF_UNIX))
print('ready', flush=True)
time.sleep(1000)";
    let test = "each_socket_is_told_with_what_was_asked";
    let prepare = || {
        preload_path();
        vipool_path();
    };
    in_namespace(test, &["python3"], prepare, || {
        let host = Host::new(vec![rule()]);
        let outer = "
import socket, time
kept = [socket.create_server(('127.0.0.1', 8110)), socket.create_server(('10.99.5.1', 8111)),
        socket.create_server(('0.0.0.0', 8500)),
        socket.create_server(('::', 8502), family=socket.AF_INET6, dualstack_ipv6=True),
        socket.create_server(('::', 8503), family=socket.AF_INET6)]
print('ready', flush=True)
time.sleep(1000)";
        let _host = start(Command::new(python()).args(["-c", outer]));
        let session = host.session(1);
        let (running, _) = start(session.command(python()).args(["-c", code]));
        let told = explain(&host, &running);
        assert_eq!(told["rewritten"], true, "{told:#}");
        assert_eq!(told["rule"]["place"], 1);
        assert_eq!(told["rule"]["verdict"], "matches by full path");
        assert_eq!(told["session"]["session"], "1");
        assert_eq!(told["session"]["found_by"], "lease");
        let (v, l, l6) = (session.v(), session.l(), session.l6());
        let sockets = told["sockets"].as_array().unwrap();
        let find = |bound: &str| {
            let found = sockets.iter().find(|it| it["bound"] == bound);
            found.unwrap_or_else(|| panic!("no {bound} in {told:#}"))
        };
        let row = |bound: &str, state: &str, asked: &str, why: &str| {
            let it = find(bound);
            assert_eq!(it["state"], state, "{it}");
            assert_eq!(it["asked"].as_str().unwrap_or("-"), asked, "{it}");
            assert!(it["why"].as_str().unwrap().contains(why), "{it}");
        };
        row(&format!("{l}:8100"), "listening", "127.0.0.1:8100", "stands for it");
        row(&format!("{v}:8101"), "listening", "0.0.0.0:8101", "virtual IP stands");
        row(&format!("[::ffff:{v}]:8102"), "listening", "[::]:8102", "virtual IP stands");
        row(&format!("[::ffff:{l6}]:8103"), "listening", "[::1]:8103", "stands for it");
        row("127.0.0.1:8501", "listening", "127.0.0.1:8501", "shared with the host");
        row(&format!("{l}:8104"), "bound", "127.0.0.1:8104", "stands for it");
        row(&format!("{l}:8105"), "bound", "127.0.0.1:8105", "stands for it");
        row(&format!("{v}:8106"), "bound", "0.0.0.0:8106", "virtual IP stands");
        row("0.0.0.0:8107", "bound", "0.0.0.0:8107", "multicast");
        row("0.0.0.0:0", "unbound", "-", "nothing yet");
        let listens = |it: &&Value| {
            it["state"] == "listening" && it["why"].as_str().unwrap().contains("fixed port")
        };
        assert!(sockets.iter().any(|it| listens(&it)), "{told:#}");
        let to = |peer: &str| {
            let found = sockets.iter().find(|it| it["peer"] == peer && it["state"] == "connected");
            found.unwrap_or_else(|| panic!("none to {peer} in {told:#}"))
        };
        let own = to(&format!("{l}:8100"));
        assert_eq!(own["peer_shown"], "127.0.0.1:8100");
        assert!(own["why"].as_str().unwrap().contains("127.0.0.1 was dialled"), "{own}");
        let wild = to(&format!("{v}:8101"));
        assert_eq!(wild["peer_shown"], "127.0.0.1:8101");
        assert!(wild["why"].as_str().unwrap().contains("listener on its virtual IP"), "{wild}");
        let real = to("127.0.0.1:8110");
        assert!(real["why"].as_str().unwrap().contains("nothing of the session's own"), "{real}");
        let outside = to("10.99.5.1:8111");
        assert!(outside["why"].as_str().unwrap().contains("is its source"), "{outside}");
        assert!(outside["bound"].as_str().unwrap().starts_with(&v), "{outside}");
        let accepted = sockets.iter().find(|it| it["state"] == "accepted").unwrap();
        assert_eq!(accepted["bound"], format!("{l}:8100"));
        // Its one socket of another family is not told.
        assert_eq!(sockets.len(), 16, "{told:#}");

        // What the host has keeps the port from the session: rows 2 and 29.
        let conflicts = told["conflicts"].as_array().unwrap();
        let port = |address: &str| conflicts.iter().find(|it| it["address"] == address).unwrap();
        assert_eq!(port("0.0.0.0:8500")["row"], 2);
        assert_eq!(port("0.0.0.0:8500")["own_port"], true);
        assert_eq!(port("[::]:8502")["row"], 29);
        assert_eq!(port("[::]:8502")["own_port"], false);
        assert!(port("[::]:8502")["program"].as_str().unwrap().starts_with("python"));
        assert!(!conflicts.iter().any(|it| it["address"] == "127.0.0.1:8110"));
        assert!(!conflicts.iter().any(|it| it["address"] == "[::]:8503"), "for IPv6 alone");
        // They are as said.
        for port in [8500, 8502] {
            let bind = format!("import socket; socket.create_server(('127.0.0.1', {port}))");
            let output = session.command(python()).args(["-c", &bind]).output().unwrap();
            assert!(String::from_utf8_lossy(&output.stderr).contains("Address already in use"));
        }

        // A program that is not rewritten can't have the wildcard address where a session is.
        let (plain, _) = start(
            Command::new(python())
                .args(["-c", "print('ready', flush=True); import time; time.sleep(1000)"]),
        );
        let told = explained(
            &host,
            &["--map", host.directory.to_str().unwrap(), &plain.0.id().to_string()],
        );
        let conflicts = told["conflicts"].as_array().unwrap();
        let held = conflicts.iter().find(|it| it["address"] == format!("{v}:8101")).unwrap();
        assert_eq!(held["row"], 2);

        // The table for people says the same.
        let table =
            finish(Command::new(vipool_path()).args(["explain", &running.0.id().to_string()]));
        let line = table.lines().find(|line| line.contains(&format!("{l}:8100"))).unwrap();
        assert!(line.contains("127.0.0.1:8100"), "{table}");
        assert!(table.contains("Rewritten  yes"), "{table}");
    });
}

#[test]
fn what_is_in_the_way_is_named() {
    let listed = ["plain", "static", "go"].map(|kind| program(still(kind)));
    on_a_host("what_is_in_the_way_is_named", &[], listed.to_vec(), |mut host| {
        let plain = still("plain");
        let session = host.session(1);
        let none: [&str; 0] = [];
        assert_eq!(in_the_way(&host, &mut session.command(&plain)), none);
        assert_eq!(in_the_way(&host, &mut session.command(still("static"))), ["static-program"]);
        assert_eq!(in_the_way(&host, &mut session.command(still("go"))), ["direct-system-calls"]);
        let with =
            |name: &str, value: &str| in_the_way(&host, session.command(&plain).env(name, value));
        assert_eq!(with("LD_PRELOAD", ""), ["hook-not-loaded"]);
        assert_eq!(with("VIPOOL_DISABLE", "1"), ["disabled"]);
        assert_eq!(with("VIPOOL_MAP", "/nowhere"), ["map-unreadable"]);
        assert_eq!(with("VIPOOL_LEASE", "nonsense"), ["stale-lease"]);
        // Without a lease, the audit session and the control group say of none here.
        assert_eq!(
            in_the_way(&host, session.command(&plain).env_remove("VIPOOL_LEASE")),
            ["no-session"]
        );
        // Another program of the same name, and one of another name.
        let other = host.directory.join("still-plain");
        fs::copy(&plain, &other).unwrap();
        let (running, _) = start(&mut session.command(&other));
        let told = explain(&host, &running);
        assert_eq!(obstacles(&told), ["not-listed"]);
        assert_eq!(told["near_misses"][0]["place"], 1, "{told:#}");
        assert_eq!(told["rules"], 3);
        // The map is damaged.
        let map = host.directory.join("elsewhere");
        fs::create_dir(&map).unwrap();
        fs::write(map.join("map"), [7; 8192]).unwrap();
        let damaged = map.to_str().unwrap();
        assert_eq!(
            in_the_way(&host, session.command(&plain).env("VIPOOL_MAP", damaged)),
            ["map-unreadable"]
        );
        // Another network namespace.
        let apart = format!("exec unshare -n {}", plain.display());
        let (running, _) = start(session.command("/bin/sh").args(["-c", &apart]));
        let told = explain(&host, &running);
        assert!(obstacles(&told).contains(&"other-namespace"), "{told:#}");
        // A parent hands its rule down.
        let shell = fs::canonicalize("/bin/sh").unwrap();
        host.replace(|policy| {
            policy.programs = vec![Program { inherit: true, ..program(&shell) }];
        });
        let session = host.session(1);
        let wait = format!("{}; true", plain.display());
        let (running, _) = start(session.command(&shell).args(["-c", &wait]));
        let children = format!("/proc/{0}/task/{0}/children", running.0.id());
        let child = fs::read_to_string(children).unwrap().trim().to_owned();
        let told = explained(&host, &[&child]);
        assert_eq!(told["rule"]["inherited_from"], running.0.id(), "{told:#}");
        assert_eq!(told["rewritten"], true);
        let _ = Command::new("kill").arg(&child).status();
    });
}

#[test]
fn a_closed_lease_is_told_from_none() {
    let rules = vec![program(still("plain")), program(python())];
    on_a_host("a_closed_lease_is_told_from_none", &[], rules, |host| {
        let session = host.session(1);
        let code = "
import socket, time
kept = socket.create_server(('127.0.0.1', 8200))
print('ready', flush=True)
time.sleep(1000)";
        let (running, _) = start(session.command(python()).args(["-c", code]));
        let l = session.l();
        assert_eq!(obstacles(&explain(&host, &running)), [""; 0]);
        host.map.close_session("1".parse().unwrap(), clock::now()).unwrap();
        let told = explain(&host, &running);
        assert_eq!(obstacles(&told), ["lease-closed"], "{told:#}");
        assert_eq!(told["session"]["session"], "1");
        assert_eq!(told["session"]["open"], false);
        assert_eq!(told["sockets"][0]["bound"], format!("{l}:8200"));
        assert!(told["sockets"][0]["why"].as_str().unwrap().contains("of a session's"));
    });
}

#[test]
fn a_session_without_an_address_of_the_kind() {
    let features = Features { virtual_ip: true, ..Features::default() };
    let rules = vec![Program { features, ..program(still("plain")) }];
    on_a_host("a_session_without_an_address_of_the_kind", &[], rules, |host| {
        // There are four.
        for number in 1..=4 {
            host.session(number);
        }
        let fifth = host.session(5);
        assert_eq!(fifth.addresses.v4, None);
        assert_eq!(in_the_way(&host, &mut fifth.command(still("plain"))), ["no-address"]);
    });
}

/// Servers that show their state in the list of processes write over what they were told.
#[test]
fn a_process_that_wrote_over_its_environment() {
    let rules = vec![program(still("plain"))];
    on_a_host("a_process_that_wrote_over_its_environment", &[], rules, |host| {
        let (running, _) = start(host.session(1).command(still("plain")).arg("titled"));
        let told = explain(&host, &running);
        // No socket says which session it is in.
        assert_eq!(told["rewritten"], Value::Null, "{told:#}");
        assert_eq!(told["map"], host.directory.to_str().unwrap());
        assert!(told["notes"][0].as_str().unwrap().contains("environment"));
    });
}

/// The session is then that of its sockets.
#[test]
fn a_real_server_that_writes_over_its_environment() {
    let test = "a_real_server_that_writes_over_its_environment";
    let rules = vec![program("redis-server")];
    on_a_host(test, &["redis-server"], rules, |host| {
        let (_first, second) = (host.session(1), host.session(2));
        let server = find_program("redis-server").unwrap();
        let arguments = ["--port", "6401", "--bind", "127.0.0.1", "--save", ""];
        let mut running = ChildGuard::start(second.command(server).args(arguments));
        wait_for_listener(&format!("{}:6401", second.l()), &mut running.0);
        let told = explain(&host, &running);
        assert_eq!(told["rewritten"], true, "{told:#}");
        assert_eq!(told["session"]["session"], "2");
        assert_eq!(told["session"]["found_by"], "sockets");
        assert_eq!(told["rule"]["path"], "redis-server");
        let sockets = told["sockets"].as_array().unwrap();
        let bound = format!("{}:6401", second.l());
        let own = sockets.iter().find(|it| it["bound"] == bound).expect("it listens");
        assert_eq!(own["asked"], "127.0.0.1:6401");
    });
}

#[test]
fn a_program_that_is_not_started() {
    let rules = vec![Program { loopback_connect: LoopbackConnect::Own, ..program(still("plain")) }];
    on_a_host("a_program_that_is_not_started", &[], rules, |host| {
        let plain = still("plain");
        let plain = plain.to_str().unwrap();
        let told = explained(&host, &["--session", "3", "--", plain]);
        assert_eq!(told["rewritten"], true, "{told:#}");
        assert_eq!(told["session"]["open"], false);
        let session = host.session(3);
        let told = explained(&host, &["--session", "3", "--", plain]);
        assert_eq!(told["session"]["virtual_ip"][0], session.v());
        let told = explained(&host, &["--session", "3", "--", "/bin/sh", "-c", "true"]);
        assert_eq!(obstacles(&told), ["not-listed"]);
        let fixed = still("static");
        let told = explained(&host, &["--session", "3", "--", fixed.to_str().unwrap()]);
        assert_eq!(obstacles(&told), ["static-program", "not-listed"]);
    });
}

/// What runs with more rights than its user, and what others may see.
#[test]
fn rights_are_respected_and_told() {
    let rules = vec![program(still("plain"))];
    on_a_host("rights_are_respected_and_told", &["root", "setpriv"], rules, |host| {
        let session = host.session(1);
        let raised = host.directory.join("raised");
        fs::copy(still("plain"), &raised).unwrap();
        fs::set_permissions(&host.directory, fs::Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(&raised, fs::Permissions::from_mode(0o4755)).unwrap();
        let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups"];
        let (running, _) = start(session.command("setpriv").args(nobody).arg(&raised));
        let told = explain(&host, &running);
        assert_eq!(obstacles(&told)[0], "secure-execution", "{told:#}");
        // Its user sees that much too, and no more.
        let own = host.directory.join("vipool");
        fs::copy(vipool_path(), &own).unwrap();
        let as_nobody = |pid: u32| {
            let mut command = Command::new("setpriv");
            command.args(nobody).arg(&own).args(["explain", "--json", &pid.to_string()]);
            command.output().unwrap()
        };
        let output = as_nobody(running.0.id());
        let told: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(obstacles(&told).contains(&"secure-execution"), "{told:#}");
        assert_eq!(told["file"], Value::Null);
        // Root's process is not theirs to look at; their own is.
        let (roots, _) = start(&mut session.command(still("plain")));
        let output = as_nobody(roots.0.id());
        assert!(!output.status.success());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("not yours to look at"), "{said}");
        let theirs = host.directory.join("still-plain");
        fs::copy(still("plain"), &theirs).unwrap();
        let (running, _) = start(session.command("setpriv").args(nobody).arg(&theirs));
        let output = as_nobody(running.0.id());
        let told: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(obstacles(&told), ["not-listed"], "{told:#}");
        assert_eq!(told["session"]["session"], "1");
    });
}
