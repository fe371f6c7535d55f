//! Tests `vipool explain` on real processes: the reported sockets, sessions and obstacles to
//! rewriting.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;
use support::{
    TestHost, compile, in_namespace, inheriting_program, listed_program, output_of, python_path,
    start_until_ready, wait_for_listener,
};
use vipool::Tick;
use vipool::policy::{Features, LoopbackConnect, PortRange, Program, ProgramFlags};
use vipool_testing::needs::find_program;
use vipool_testing::{ChildGuard, preload_path, vipool_path};

/// Returns a variant of the idle program. Each variant is built once, because tests run in
/// parallel.
fn idle_program(kind: &str) -> PathBuf {
    static PROGRAMS: OnceLock<[PathBuf; 3]> = OnceLock::new();
    let [dynamic_program, static_program, go_program] = PROGRAMS.get_or_init(|| {
        let build =
            |kind: &str, flags: &[&str]| compile(&format!("idle-{kind}"), &["idle.c"], flags);
        [build("dynamic", &[]), build("static", &["-static"]), build("go", &["-DGO"])]
    });
    match kind {
        "static" => static_program.clone(),
        "go" => go_program.clone(),
        _ => dynamic_program.clone(),
    }
}

/// Runs a test on a [`TestHost`] with these rules, in new namespaces.
fn on_test_host(
    test_name: &str,
    needs: &[&str],
    programs: Vec<Program>,
    body: impl FnOnce(TestHost),
) {
    let prepare = || {
        idle_program("dynamic");
        preload_path();
        vipool_path();
    };
    in_namespace(test_name, &[&["python3"], needs].concat(), prepare, || {
        body(TestHost::new(programs))
    });
}

/// Returns the JSON output of `vipool explain` with these arguments.
fn explain_with_arguments(host: &TestHost, arguments: &[&str]) -> Value {
    let mut command = Command::new(vipool_path());
    command.args(["explain", "--json"]).args(arguments);
    if arguments.contains(&"--") {
        command.env("VIPOOL_MAP", &host.directory);
    }
    serde_json::from_str(&output_of(&mut command)).expect("JSON")
}

fn explain(host: &TestHost, process: &ChildGuard) -> Value {
    explain_with_arguments(host, &[&process.0.id().to_string()])
}

fn obstacles(explanation: &Value) -> Vec<&str> {
    let entries = explanation["obstacles"].as_array().unwrap().iter();
    entries.map(|obstacle| obstacle["name"].as_str().unwrap()).collect()
}

/// Starts the program of `command`. Returns the obstacles that prevent the rewriting of its calls.
fn obstacles_of(host: &TestHost, command: &mut Command) -> Vec<String> {
    let (process, _) = start_until_ready(command);
    let report = explain(host, &process);
    assert_eq!(report["rewritten"], obstacles(&report).is_empty(), "{report:#}");
    obstacles(&report).into_iter().map(str::to_owned).collect()
}

#[test]
fn each_socket_is_reported_with_its_requested_address() {
    let rule = || {
        listed_program(python_path())
            .with_own_ports([PortRange { first: 8500, last: 8500 }])
            .with_shared_ports([PortRange { first: 8501, last: 8501 }])
    };
    let script = "
import socket, time
tcp, udp = socket.SOCK_STREAM, socket.SOCK_DGRAM
sockets = []
def bind(kind, *address, family=socket.AF_INET, listen=True, share=False):
    bound_socket = socket.socket(family, kind)
    if share: bound_socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound_socket.bind(address)
    if kind == tcp and listen: bound_socket.listen()
    sockets.append(bound_socket)
    return bound_socket
server = bind(tcp, '127.0.0.1', 8100)
bind(tcp, '0.0.0.0', 8101)
bind(tcp, '::', 8102, family=socket.AF_INET6)
bind(tcp, '::1', 8103, family=socket.AF_INET6)
bind(tcp, '127.0.0.1', 0)
bind(tcp, '127.0.0.1', 8501)
bind(tcp, '127.0.0.1', 8104, listen=False)
bind(udp, '127.0.0.1', 8105)
bind(udp, '0.0.0.0', 8106)
bind(udp, '0.0.0.0', 8107, share=True)
bind(udp, '::', 0, family=socket.AF_INET6)
sockets.append(socket.socket())
sockets.append(socket.create_connection(('127.0.0.1', 8100)))
sockets.append(server.accept()[0])
sockets.append(socket.create_connection(('127.0.0.1', 8101)))
sockets.append(socket.create_connection(('127.0.0.1', 8110)))
sockets.append(socket.create_connection(('10.99.5.1', 8111)))
sockets.append(socket.socket(socket.AF_UNIX))
print('ready', flush=True)
time.sleep(1000)";
    let test_name = "each_socket_is_reported_with_its_requested_address";
    let prepare = || {
        preload_path();
        vipool_path();
    };
    in_namespace(test_name, &["python3"], prepare, || {
        let host = TestHost::new(vec![rule()]);
        let host_script = "
import socket, time
sockets = [socket.create_server(('127.0.0.1', 8110)), socket.create_server(('10.99.5.1', 8111)),
           socket.create_server(('0.0.0.0', 8500)),
           socket.create_server(('::', 8502), family=socket.AF_INET6, dualstack_ipv6=True),
           socket.create_server(('::', 8503), family=socket.AF_INET6)]
print('ready', flush=True)
time.sleep(1000)";
        let _host = start_until_ready(Command::new(python_path()).args(["-c", host_script]));
        let session = host.session(1);
        let (process, _) = start_until_ready(session.command(python_path()).args(["-c", script]));
        let report = explain(&host, &process);
        assert_eq!(report["rewritten"], true, "{report:#}");
        assert_eq!(report["rule"]["key"], "program[0]");
        assert_eq!(report["rule"]["verdict"], "matches by full path");
        assert_eq!(report["session"]["session"], "1");
        assert_eq!(report["session"]["found_by"], "lease");
        let (v, l, l6) = (session.v(), session.l(), session.l6());
        let sockets = report["sockets"].as_array().unwrap();
        let find_socket = |bound_address: &str| {
            let entry = sockets.iter().find(|entry| entry["bound"] == bound_address);
            entry.unwrap_or_else(|| panic!("no {bound_address} in {report:#}"))
        };
        let check_socket = |bound_address: &str, state: &str, requested: &str, why: &str| {
            let entry = find_socket(bound_address);
            assert_eq!(entry["state"], state, "{entry}");
            assert_eq!(entry["requested"].as_str().unwrap_or("-"), requested, "{entry}");
            assert!(entry["why"].as_str().unwrap().contains(why), "{entry}");
        };
        check_socket(
            &format!("{l}:8100"),
            "listening",
            "127.0.0.1:8100",
            "to the session's loopback address instead",
        );
        check_socket(
            &format!("{v}:8101"),
            "listening",
            "0.0.0.0:8101",
            "bound to the session's virtual IP",
        );
        check_socket(
            &format!("[::ffff:{v}]:8102"),
            "listening",
            "[::]:8102",
            "bound to the session's virtual IP",
        );
        check_socket(
            &format!("[::ffff:{l6}]:8103"),
            "listening",
            "[::1]:8103",
            "to the session's loopback address instead",
        );
        check_socket("127.0.0.1:8501", "listening", "127.0.0.1:8501", "shared with the host");
        check_socket(
            &format!("{l}:8104"),
            "bound",
            "127.0.0.1:8104",
            "to the session's loopback address instead",
        );
        check_socket(
            &format!("{l}:8105"),
            "bound",
            "127.0.0.1:8105",
            "to the session's loopback address instead",
        );
        check_socket(
            &format!("{v}:8106"),
            "bound",
            "0.0.0.0:8106",
            "bound to the session's virtual IP",
        );
        check_socket("0.0.0.0:8107", "bound", "0.0.0.0:8107", "multicast");
        check_socket("0.0.0.0:0", "unbound", "-", "not bound yet");
        let is_ephemeral_listener = |entry: &Value| {
            entry["state"] == "listening"
                && entry["bound"].as_str().unwrap().starts_with(&format!("{l}:"))
                && entry["bound"] != format!("{l}:8100")
                && entry["requested"].as_str().unwrap().starts_with("127.0.0.1:")
        };
        assert!(sockets.iter().any(is_ephemeral_listener), "{report:#}");
        let waits_for_destination = |entry: &Value| {
            entry["state"] == "bound"
                && entry["bound"].as_str().unwrap().starts_with("[::]:")
                && entry["why"].as_str().unwrap().contains("first destination")
        };
        assert!(sockets.iter().any(waits_for_destination), "{report:#}");
        let connected_to = |peer: &str| {
            let entry =
                sockets.iter().find(|entry| entry["peer"] == peer && entry["state"] == "connected");
            entry.unwrap_or_else(|| panic!("no connection to {peer} in {report:#}"))
        };
        let loopback_connection = connected_to(&format!("{l}:8100"));
        assert_eq!(loopback_connection["visible_peer"], "127.0.0.1:8100");
        assert!(
            loopback_connection["why"]
                .as_str()
                .unwrap()
                .contains("the connect to 127.0.0.1 went to"),
            "{loopback_connection}"
        );
        let wildcard_connection = connected_to(&format!("{v}:8101"));
        assert_eq!(wildcard_connection["visible_peer"], "127.0.0.1:8101");
        assert!(
            wildcard_connection["why"].as_str().unwrap().contains("listener on its virtual IP"),
            "{wildcard_connection}"
        );
        let host_loopback_connection = connected_to("127.0.0.1:8110");
        assert!(
            host_loopback_connection["why"]
                .as_str()
                .unwrap()
                .contains("the session does not listen"),
            "{host_loopback_connection}"
        );
        let host_address_connection = connected_to("10.99.5.1:8111");
        assert!(
            host_address_connection["why"]
                .as_str()
                .unwrap()
                .contains("source address is the session's virtual IP"),
            "{host_address_connection}"
        );
        assert!(
            host_address_connection["bound"].as_str().unwrap().starts_with(&v),
            "{host_address_connection}"
        );
        let accepted_socket = sockets.iter().find(|entry| entry["state"] == "accepted").unwrap();
        assert_eq!(accepted_socket["bound"], format!("{l}:8100"));
        // The Unix socket is not reported.
        assert_eq!(sockets.len(), 17, "{report:#}");

        // Wildcard listeners of the host occupy their ports in the session too (rows 2 and 29).
        let conflicts = report["conflicts"].as_array().unwrap();
        let conflict_on =
            |address: &str| conflicts.iter().find(|entry| entry["address"] == address).unwrap();
        assert_eq!(conflict_on("0.0.0.0:8500")["row"], 2);
        assert_eq!(conflict_on("0.0.0.0:8500")["own_port"], true);
        assert_eq!(conflict_on("[::]:8502")["row"], 29);
        assert_eq!(conflict_on("[::]:8502")["own_port"], false);
        assert!(conflict_on("[::]:8502")["program"].as_str().unwrap().starts_with("python"));
        assert!(!conflicts.iter().any(|entry| entry["address"] == "127.0.0.1:8110"));
        assert!(
            !conflicts.iter().any(|entry| entry["address"] == "[::]:8503"),
            "an IPv6-only listener is no conflict"
        );
        // A bind to each of these ports fails.
        for port in [8500, 8502] {
            let bind_script = format!("import socket; socket.create_server(('127.0.0.1', {port}))");
            let output =
                session.command(python_path()).args(["-c", &bind_script]).output().unwrap();
            assert!(String::from_utf8_lossy(&output.stderr).contains("Address already in use"));
        }

        // In an unlisted program, a wildcard bind conflicts with the listeners of sessions.
        let (unlisted_process, _) = start_until_ready(
            Command::new(python_path())
                .args(["-c", "print('ready', flush=True); import time; time.sleep(1000)"]),
        );
        let report = explain_with_arguments(
            &host,
            &["--map", host.directory.to_str().unwrap(), &unlisted_process.0.id().to_string()],
        );
        let conflicts = report["conflicts"].as_array().unwrap();
        let conflict =
            conflicts.iter().find(|entry| entry["address"] == format!("{v}:8101")).unwrap();
        assert_eq!(conflict["row"], 2);

        // The text output contains the same values.
        let printed =
            output_of(Command::new(vipool_path()).args(["explain", &process.0.id().to_string()]));
        let line = printed.lines().find(|line| line.contains(&format!("{l}:8100"))).unwrap();
        assert!(line.contains("127.0.0.1:8100"), "{printed}");
        assert!(printed.contains("Rewritten  yes"), "{printed}");
    });
}

#[test]
fn each_obstacle_is_reported() {
    let rules = ["dynamic", "static", "go"].map(|kind| listed_program(idle_program(kind)));
    on_test_host("each_obstacle_is_reported", &[], rules.to_vec(), |mut host| {
        let program = idle_program("dynamic");
        let session = host.session(1);
        let no_obstacles: [&str; 0] = [];
        assert_eq!(obstacles_of(&host, &mut session.command(&program)), no_obstacles);
        assert_eq!(
            obstacles_of(&host, &mut session.command(idle_program("static"))),
            ["static-program"]
        );
        assert_eq!(
            obstacles_of(&host, &mut session.command(idle_program("go"))),
            ["direct-system-calls"]
        );
        let obstacles_with = |name: &str, value: &str| {
            obstacles_of(&host, session.command(&program).env(name, value))
        };
        assert_eq!(obstacles_with("LD_PRELOAD", ""), ["hook-not-loaded"]);
        assert_eq!(obstacles_with("VIPOOL_DISABLE", "1"), ["disabled"]);
        assert_eq!(obstacles_with("VIPOOL_MAP", "/nowhere"), ["map-unreadable"]);
        assert_eq!(obstacles_with("VIPOOL_LEASE", "nonsense"), ["stale-lease"]);
        // Without `VIPOOL_LEASE`, the hook finds no session, because no session is open for the
        // audit session or the control group of the program.
        assert_eq!(
            obstacles_of(&host, session.command(&program).env_remove("VIPOOL_LEASE")),
            ["no-session"]
        );
        // The copy has the file name of a listed program, but the rule requires another path.
        let unlisted_copy = host.directory.join("idle-dynamic");
        fs::copy(&program, &unlisted_copy).unwrap();
        let (process, _) = start_until_ready(&mut session.command(&unlisted_copy));
        let report = explain(&host, &process);
        assert_eq!(obstacles(&report), ["not-listed"]);
        assert_eq!(report["near_misses"][0]["key"], "program[0]", "{report:#}");
        assert_eq!(report["rules"], 3);
        // The map is damaged.
        let damaged_map = host.directory.join("elsewhere");
        fs::create_dir(&damaged_map).unwrap();
        fs::write(damaged_map.join("map"), [7; 8192]).unwrap();
        let damaged_map = damaged_map.to_str().unwrap();
        assert_eq!(
            obstacles_of(&host, session.command(&program).env("VIPOOL_MAP", damaged_map)),
            ["map-unreadable"]
        );
        // The process is in another network namespace.
        let unshare_script = format!("exec unshare -n {}", program.display());
        let (process, _) =
            start_until_ready(session.command("/bin/sh").args(["-c", &unshare_script]));
        let report = explain(&host, &process);
        assert!(obstacles(&report).contains(&"other-namespace"), "{report:#}");
        // The process inherits the rule from its parent.
        let shell = fs::canonicalize("/bin/sh").unwrap();
        host.change_policy(|policy| {
            policy.programs = vec![inheriting_program(&shell)];
        });
        let session = host.session(1);
        let script = format!("{}; true", program.display());
        let (process, _) = start_until_ready(session.command(&shell).args(["-c", &script]));
        let children = format!("/proc/{0}/task/{0}/children", process.0.id());
        let child = fs::read_to_string(children).unwrap().trim().to_owned();
        let report = explain_with_arguments(&host, &[&child]);
        assert_eq!(report["rule"]["inherited_from"], process.0.id(), "{report:#}");
        assert_eq!(report["rewritten"], true);
        let _ = Command::new("kill").arg(&child).status();
    });
}

#[test]
fn closed_lease_is_reported_as_closed() {
    let rules = vec![listed_program(idle_program("dynamic")), listed_program(python_path())];
    on_test_host("closed_lease_is_reported_as_closed", &[], rules, |host| {
        let session = host.session(1);
        let script = "
import socket, time
server = socket.create_server(('127.0.0.1', 8200))
print('ready', flush=True)
time.sleep(1000)";
        let (process, _) = start_until_ready(session.command(python_path()).args(["-c", script]));
        let loopback_ip = session.l();
        assert_eq!(obstacles(&explain(&host, &process)), [""; 0]);
        host.map.close_session("1".parse().unwrap(), Tick::now()).unwrap();
        let report = explain(&host, &process);
        assert_eq!(obstacles(&report), ["lease-closed"], "{report:#}");
        assert_eq!(report["session"]["session"], "1");
        assert_eq!(report["session"]["open"], false);
        assert_eq!(report["sockets"][0]["bound"], format!("{loopback_ip}:8200"));
        assert!(report["sockets"][0]["why"].as_str().unwrap().contains("an address of a session"));
    });
}

#[test]
fn session_without_virtual_ip_is_reported() {
    let features = Features::default().with_virtual_ip(true);
    let rules = vec![listed_program(idle_program("dynamic")).with_features(features)];
    on_test_host("session_without_virtual_ip_is_reported", &[], rules, |host| {
        // The pool has four addresses.
        for number in 1..=4 {
            host.session(number);
        }
        let fifth_session = host.session(5);
        assert_eq!(fifth_session.addresses.v4, None);
        assert_eq!(
            obstacles_of(&host, &mut fifth_session.command(idle_program("dynamic"))),
            ["no-address"]
        );
    });
}

/// Some servers write their state to the process title. This overwrites their arguments and their
/// environment.
#[test]
fn overwritten_environment_is_reported() {
    let rules = vec![listed_program(idle_program("dynamic"))];
    on_test_host("overwritten_environment_is_reported", &[], rules, |host| {
        let (process, _) =
            start_until_ready(host.session(1).command(idle_program("dynamic")).arg("set-title"));
        let report = explain(&host, &process);
        // The program has no socket that would identify its session.
        assert_eq!(report["rewritten"], Value::Null, "{report:#}");
        assert_eq!(report["map"], host.directory.to_str().unwrap());
        assert!(report["notes"][0].as_str().unwrap().contains("environment"));
    });
}

#[test]
fn session_is_found_by_sockets_after_environment_is_overwritten() {
    let test_name = "session_is_found_by_sockets_after_environment_is_overwritten";
    let rules = vec![listed_program("redis-server")];
    on_test_host(test_name, &["redis-server"], rules, |host| {
        let (_first_session, second_session) = (host.session(1), host.session(2));
        let server = find_program("redis-server").unwrap();
        let arguments = ["--port", "6401", "--bind", "127.0.0.1", "--save", ""];
        let mut process = ChildGuard::start(second_session.command(server).args(arguments));
        let server_address = format!("{}:6401", second_session.l());
        wait_for_listener(&server_address, &mut process.0);
        let report = explain(&host, &process);
        assert_eq!(report["rewritten"], true, "{report:#}");
        assert_eq!(report["session"]["session"], "2");
        assert_eq!(report["session"]["found_by"], "sockets");
        assert_eq!(report["rule"]["path"], "redis-server");
        let sockets = report["sockets"].as_array().unwrap();
        let listener = sockets
            .iter()
            .find(|entry| entry["bound"] == server_address)
            .expect("the server listens");
        assert_eq!(listener["requested"], "127.0.0.1:6401");
    });
}

#[test]
fn program_is_explained_before_it_starts() {
    let rules = vec![
        listed_program(idle_program("dynamic"))
            .with_flags(ProgramFlags::default().with_loopback_connect(LoopbackConnect::Own)),
    ];
    on_test_host("program_is_explained_before_it_starts", &[], rules, |host| {
        let program = idle_program("dynamic");
        let program = program.to_str().unwrap();
        let report = explain_with_arguments(&host, &["--session", "3", "--", program]);
        assert_eq!(report["rewritten"], true, "{report:#}");
        assert_eq!(report["session"]["open"], false);
        let session = host.session(3);
        let report = explain_with_arguments(&host, &["--session", "3", "--", program]);
        assert_eq!(report["session"]["virtual_ip"][0], session.v());
        let report =
            explain_with_arguments(&host, &["--session", "3", "--", "/bin/sh", "-c", "true"]);
        assert_eq!(obstacles(&report), ["not-listed"]);
        let static_program = idle_program("static");
        let report = explain_with_arguments(
            &host,
            &["--session", "3", "--", static_program.to_str().unwrap()],
        );
        assert_eq!(obstacles(&report), ["static-program", "not-listed"]);
    });
}

#[test]
fn explain_respects_process_permissions() {
    let rules = vec![listed_program(idle_program("dynamic"))];
    on_test_host("explain_respects_process_permissions", &["root", "setpriv"], rules, |host| {
        let session = host.session(1);
        let setuid_program = host.directory.join("raised");
        fs::copy(idle_program("dynamic"), &setuid_program).unwrap();
        fs::set_permissions(&host.directory, fs::Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(&setuid_program, fs::Permissions::from_mode(0o4755)).unwrap();
        let nobody_arguments = ["--reuid=65534", "--regid=65534", "--clear-groups"];
        let (process, _) = start_until_ready(
            session.command("setpriv").args(nobody_arguments).arg(&setuid_program),
        );
        let report = explain(&host, &process);
        assert_eq!(obstacles(&report)[0], "secure-execution", "{report:#}");
        // The user of the process also sees this obstacle, but cannot read the path of the
        // executable.
        let vipool_copy = host.directory.join("vipool");
        fs::copy(vipool_path(), &vipool_copy).unwrap();
        let explain_as_nobody = |pid: u32| {
            let mut command = Command::new("setpriv");
            command.args(nobody_arguments).arg(&vipool_copy).args([
                "explain",
                "--json",
                &pid.to_string(),
            ]);
            command.output().unwrap()
        };
        let output = explain_as_nobody(process.0.id());
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(obstacles(&report).contains(&"secure-execution"), "{report:#}");
        assert_eq!(report["file"], Value::Null);
        // Only root may examine the processes of another user.
        let (root_process, _) = start_until_ready(&mut session.command(idle_program("dynamic")));
        let output = explain_as_nobody(root_process.0.id());
        assert!(!output.status.success());
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(stderr.contains("permission denied"), "{stderr}");
        let nobody_program = host.directory.join("idle-dynamic");
        fs::copy(idle_program("dynamic"), &nobody_program).unwrap();
        let (process, _) = start_until_ready(
            session.command("setpriv").args(nobody_arguments).arg(&nobody_program),
        );
        let output = explain_as_nobody(process.0.id());
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(obstacles(&report), ["not-listed"], "{report:#}");
        assert_eq!(report["session"]["session"], "1");
    });
}
