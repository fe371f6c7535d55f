//! Tests how a process without `VIPOOL_LEASE` finds its session: through the kernel's audit
//! session, the scope of its logon, or the manager of its user. Other tests check which programs
//! remove the variables of the hook, and how a program gets the address of the session's client.

mod support;

use std::fs;
use std::io::{BufRead, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use support::{
    TestHost, compile, in_namespace, listed_program, output_of, python_path, start_piped,
};
use vipool::Tick;
use vipool::map::OpenOptions;
use vipool::policy::{Features, Program};
use vipool::session::SessionId;
use vipool_testing::{ChildGuard, preload_path, record_skip, vipool_path};

/// Builds the test program once, because tests run in parallel.
fn test_program() -> PathBuf {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM
        .get_or_init(|| compile("hooked-process", &["hooked_process.c", "common.c"], &[]))
        .clone()
}

fn on_test_host(
    test_name: &str,
    needs: &[&str],
    programs: fn() -> Vec<Program>,
    body: impl FnOnce(TestHost),
) {
    let prepare = || {
        test_program();
        preload_path();
        vipool_path();
    };
    in_namespace(test_name, needs, prepare, || body(TestHost::new(programs())));
}

fn test_program_rules() -> Vec<Program> {
    vec![listed_program(test_program())]
}

/// Starts a shell without `VIPOOL_LEASE`. The shell runs `shell_command`, waits for a line of
/// input, and then replaces itself with the listed program (exec).
fn start_after_shell(host: &TestHost, shell_command: &str) -> (ChildGuard, impl BufRead + use<>) {
    let script =
        format!("{shell_command}; read line; exec {} report-names", test_program().display());
    let mut command = Command::new("/bin/sh");
    command.args(["-c", &script]).env("LD_PRELOAD", preload_path());
    command.env("VIPOOL_MAP", &host.directory).env_remove("VIPOOL_LEASE");
    start_piped(&mut command)
}

/// Sends a line of input to a shell of [`start_after_shell`]. The listed program then binds a
/// socket to 127.0.0.1. Returns the kernel's name of this socket.
fn bound_address((mut process, mut output): (ChildGuard, impl BufRead)) -> String {
    let mut input = process.0.stdin.take().unwrap();
    input.write_all(b"go\n").unwrap();
    let mut line = String::new();
    while !line.starts_with("ready") {
        line.clear();
        assert_ne!(output.read_line(&mut line).unwrap(), 0, "the program starts");
    }
    input.write_all(b"?\n").unwrap();
    line.clear();
    output.read_line(&mut line).unwrap();
    let (visible_name, kernel_name) = line.trim().split_once(' ').expect("two names");
    assert_eq!(visible_name, "127.0.0.1:8094");
    kernel_name.to_owned()
}

/// The result of [`bound_address`] if the bind is not rewritten.
const NOT_REWRITTEN: &str = "127.0.0.1:8094";

/// Opens a session. Returns the name that [`bound_address`] returns if the bind is rewritten to L
/// of this session.
fn open_session(host: &TestHost, session: &str) -> String {
    let session: SessionId = session.parse().unwrap();
    let opened = host.map.open_session(session, &OpenOptions::default(), Tick::now()).unwrap();
    let addresses = host.map.reader().unwrap().addresses(&opened.leases);
    format!("{}:8094", addresses.loopback.unwrap())
}

/// Returns how the session of the process was found, as `vipool explain` reports it.
fn session_found_by(host: &TestHost, process: &ChildGuard) -> String {
    let pid = process.0.id().to_string();
    let map_directory = host.directory.to_str().unwrap();
    let report = output_of(Command::new(vipool_path()).args([
        "explain",
        "--json",
        "--map",
        map_directory,
        &pid,
    ]));
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    report["session"]["found_by"].as_str().unwrap_or("none").to_owned()
}

#[test]
fn lease_is_found_by_audit_session() {
    let test_name = "lease_is_found_by_audit_session";
    on_test_host(test_name, &[], test_program_rules, |host| {
        // When the shell sets its login user, the kernel starts an audit session. pam_loginuid(8)
        // does the same at a logon.
        let start_audit_session =
            "echo 0 2>/dev/null >/proc/self/loginuid; cat /proc/self/sessionid; echo";
        let (process, mut output) = start_after_shell(&host, start_audit_session);
        let mut audit_id = String::new();
        output.read_line(&mut audit_id).unwrap();
        if audit_id.trim() == "4294967295" || audit_id.trim().is_empty() {
            return record_skip("audit sessions", "boot a kernel with CONFIG_AUDIT");
        }
        let first_audit_id = audit_id.trim().to_owned();
        let session_address = open_session(&host, &format!("audit:{first_audit_id}"));
        assert_eq!(session_found_by(&host, &process), "audit-session");
        assert_eq!(bound_address((process, output)), session_address);
        // If no session is open for an audit session, the audit session has no effect.
        let (process, mut output) = start_after_shell(&host, start_audit_session);
        audit_id.clear();
        output.read_line(&mut audit_id).unwrap();
        if audit_id.trim() == first_audit_id {
            // The kernel did not start another audit session, so the session above is still open.
            return;
        }
        let _ = host
            .map
            .close_session(format!("audit:{}", audit_id.trim()).parse().unwrap(), Tick::now());
        assert_eq!(bound_address((process, output)), NOT_REWRITTEN);
    });
}

/// A control group. Dropping this value removes the group.
struct ControlGroup(PathBuf);

impl ControlGroup {
    /// Creates the control group `name`. Returns `None` if the system does not permit it.
    fn new(name: &str) -> Option<Self> {
        let mount_points = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd", "/sys/fs/cgroup"];
        mount_points.into_iter().find_map(|mount_point| {
            let group = Path::new(mount_point).join(name);
            fs::create_dir(&group).ok()?;
            let group = Self(group);
            group.0.join("cgroup.procs").exists().then_some(group)
        })
    }

    /// Returns the command with which a shell joins the group.
    fn join_command(&self) -> String {
        format!("echo 0 > {}/cgroup.procs", self.0.display())
    }
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        // The kernel needs a moment to notice that the last process has exited.
        for _ in 0..100 {
            if fs::remove_dir(&self.0).is_ok() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

/// Mounts a private /run, and writes the files of users and sessions to /run/systemd, as logind
/// does. `files` contains the path and the text of each file.
fn write_logind_files(files: &[(&str, &str)]) {
    let mount_status = Command::new("mount").args(["-t", "tmpfs", "none", "/run"]).status();
    assert!(mount_status.unwrap().success());
    for directory in ["/run/systemd/users", "/run/systemd/sessions"] {
        fs::create_dir_all(directory).unwrap();
    }
    for (file, text) in files {
        fs::write(Path::new("/run/systemd").join(file), text).unwrap();
    }
}

#[test]
fn lease_is_found_by_control_group() {
    let test_name = "lease_is_found_by_control_group";
    on_test_host(test_name, &["root"], test_program_rules, |host| {
        let test_pid = std::process::id();
        let unique_id = format!("{test_pid}{}", fs::metadata("/proc/self/ns/net").map_or(0, inode));
        let logind_session = format!("c{unique_id}");
        let Some(scope) = ControlGroup::new(&format!("session-{logind_session}.scope")) else {
            return record_skip("writable control groups", "mount -t cgroup2 none /sys/fs/cgroup");
        };
        let user = &unique_id[..unique_id.len().min(9)];
        let manager = ControlGroup::new(&format!("user@{user}.service")).unwrap();
        write_logind_files(&[
            (&format!("users/{user}"), &format!("NAME=ada\nSESSIONS={logind_session}\n")),
            (&format!("sessions/{logind_session}"), "AUDIT=4711\n"),
        ]);
        // No session is open yet.
        assert_eq!(bound_address(start_after_shell(&host, &scope.join_command())), NOT_REWRITTEN);
        assert_eq!(bound_address(start_after_shell(&host, &manager.join_command())), NOT_REWRITTEN);
        // Open a session whose id is derived from the name of logind's session.
        let session_id = SessionId::logind(&logind_session).unwrap().to_string();
        let session_address = open_session(&host, &session_id);
        let waiting_shell = start_after_shell(&host, &format!("{}; echo", scope.join_command()));
        let waiting_shell = wait_until_joined(waiting_shell);
        assert_eq!(session_found_by(&host, &waiting_shell.0), "session-scope");
        assert_eq!(bound_address(waiting_shell), session_address);
        // A process of the user's manager joins the user's only session.
        let waiting_shell = wait_until_joined(start_after_shell(
            &host,
            &format!("{}; echo", manager.join_command()),
        ));
        assert_eq!(session_found_by(&host, &waiting_shell.0), "user-manager");
        assert_eq!(bound_address(waiting_shell), session_address);
        // If the user has several sessions, a process of the user's manager joins none.
        let user_file_text = format!("NAME=ada\nSESSIONS={logind_session} c2\n");
        fs::write(format!("/run/systemd/users/{user}"), user_file_text).unwrap();
        let waiting_shell = wait_until_joined(start_after_shell(
            &host,
            &format!("{}; echo", manager.join_command()),
        ));
        assert_eq!(session_found_by(&host, &waiting_shell.0), "none");
        assert_eq!(bound_address(waiting_shell), NOT_REWRITTEN);
        // The file of logind's session contains the number of the audit session, 4711. Through this
        // number, the hook finds the session of vipool.
        host.map.close_session(session_id.parse().unwrap(), Tick::now()).unwrap();
        let session_address = open_session(&host, "audit:4711");
        assert_eq!(bound_address(start_after_shell(&host, &scope.join_command())), session_address);
    });
}

fn inode(metadata: fs::Metadata) -> u64 {
    use std::os::unix::fs::MetadataExt;
    metadata.ino()
}

/// Waits until the shell has joined its control group.
fn wait_until_joined<R: BufRead>((process, mut output): (ChildGuard, R)) -> (ChildGuard, R) {
    output.read_line(&mut String::new()).unwrap();
    (process, output)
}

/// Returns which of the variables `LD_PRELOAD` and `VIPOOL_LEASE` an environment contains.
fn hook_variables(environment: &str) -> Vec<&str> {
    let names = environment.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name);
    let mut names: Vec<_> =
        names.filter(|name| ["LD_PRELOAD", "VIPOOL_LEASE"].contains(name)).collect();
    names.sort_unstable();
    names
}

/// Checks the statements of docs/compatibility.md on setuid programs, sudo and su.
#[test]
fn setuid_sudo_and_login_su_drop_hook_variables() {
    let needs = &["root", "setpriv", "sudo"];
    let test_name = "setuid_sudo_and_login_su_drop_hook_variables";
    on_test_host(test_name, needs, test_program_rules, |host| {
        let session = host.session(1);
        let both_variables = ["LD_PRELOAD", "VIPOOL_LEASE"];
        let no_variables: [&str; 0] = [];
        let run_as = |user: &str, command: &[&str]| {
            let mut setpriv_command = session.command("setpriv");
            let ids = [format!("--reuid={user}"), format!("--regid={user}")];
            output_of(setpriv_command.args(ids).arg("--clear-groups").args(command))
        };
        assert_eq!(hook_variables(&run_as("65534", &["env"])), both_variables);
        let setuid_copy = host.directory.join("env");
        fs::copy(vipool_testing::needs::find_program("env").unwrap(), &setuid_copy).unwrap();
        fs::set_permissions(&setuid_copy, fs::Permissions::from_mode(0o4755)).unwrap();
        let setuid_copy = setuid_copy.to_str().unwrap();
        assert_eq!(hook_variables(&run_as("65534", &[setuid_copy])), ["VIPOOL_LEASE"]);

        let sudoers = host.directory.join("sudoers");
        let allow_rules = "root ALL=(ALL) ALL\nnobody ALL=(ALL) NOPASSWD: ALL\n";
        fs::write(&sudoers, allow_rules).unwrap();
        fs::set_permissions(&sudoers, fs::Permissions::from_mode(0o440)).unwrap();
        let mount_status =
            Command::new("mount").arg("--bind").arg(&sudoers).arg("/etc/sudoers").status();
        assert!(mount_status.unwrap().success());
        assert_eq!(hook_variables(&run_as("65534", &["sudo", "-n", "env"])), no_variables);
        let keep_rules = format!("Defaults env_keep += \"LD_PRELOAD VIPOOL_LEASE\"\n{allow_rules}");
        fs::write(&sudoers, keep_rules).unwrap();
        assert_eq!(hook_variables(&run_as("65534", &["sudo", "-n", "env"])), ["VIPOOL_LEASE"]);
        let preload_variable = format!("LD_PRELOAD={}", preload_path().display());
        assert_eq!(
            hook_variables(&run_as("65534", &["sudo", "-n", "env", &preload_variable, "env"])),
            both_variables
        );

        let run_su = |arguments: &[&str]| {
            let command = [&["su"], arguments, &["nobody", "-s", "/bin/sh", "-c", "env"]].concat();
            output_of(session.command(command[0]).args(&command[1..]))
        };
        assert_eq!(hook_variables(&run_su(&[])), both_variables);
        assert_eq!(hook_variables(&run_su(&["-"])), no_variables);
    });
}

const CLIENT_ADDRESS: &str = "203.0.113.9";
const HOST_ADDRESS: &str = "10.99.5.1";

fn client_ip_rules() -> Vec<Program> {
    let features = Features::default().with_client_ip(true);
    let rule_for = |name: &str| listed_program(name).with_features(features);
    vec![rule_for("getent"), rule_for(python_path().to_str().unwrap())]
}

/// Looks up the host name with three functions of Python, and prints one address from each.
const LOOKUP_SCRIPT: &str = "
import socket
name = socket.gethostname()
print(socket.gethostbyname(name), socket.gethostbyname_ex(name)[2][0],
      socket.getaddrinfo(name, 80, socket.AF_INET)[0][4][0])";

#[test]
fn host_name_resolves_to_the_client_address() {
    let test_name = "host_name_resolves_to_the_client_address";
    on_test_host(test_name, &["python3"], client_ip_rules, |mut host| {
        let map = host.directory.to_str().unwrap().to_owned();
        let run_vipool = |arguments: &[&str]| {
            let mut command = Command::new(vipool_path());
            command.arg(arguments[0]);
            let subcommand_count = usize::from(arguments[0] == "session");
            command
                .args(&arguments[1..=subcommand_count])
                .args(["--map", &map])
                .args(&arguments[1 + subcommand_count..]);
            command.env("VIPOOL_PRELOAD", preload_path()).env_remove("VIPOOL_LEASE");
            output_of(&mut command)
        };
        let client_file_count = |map: &str| {
            let entries = fs::read_dir(map).unwrap().flatten();
            entries
                .filter(|entry| entry.file_name().to_string_lossy().starts_with("client."))
                .count()
        };
        let python = python_path();
        let python = python.to_str().unwrap();
        let three_times = |address: &str| format!("{address} {address} {address}\n");
        let run_arguments = [
            "run",
            "--session",
            "7",
            "--client",
            CLIENT_ADDRESS,
            "--",
            python,
            "-c",
            LOOKUP_SCRIPT,
        ];
        assert_eq!(run_vipool(&run_arguments), three_times(CLIENT_ADDRESS));
        assert_eq!(client_file_count(&map), 0, "the client file is removed with the session");
        // Without a client, the host name resolves to the host's address, as without the hook.
        let run_arguments = ["run", "--session", "7", "--", python, "-c", LOOKUP_SCRIPT];
        assert_eq!(run_vipool(&run_arguments), three_times(HOST_ADDRESS));
        // The lookup also works with an IPv6 client and another program.
        let lookup = ["getent", "ahostsv6", "matrixhost"];
        let run_arguments =
            [&["run", "--session", "7", "--client", "2001:db8::9", "--"][..], &lookup].concat();
        assert!(run_vipool(&run_arguments).starts_with("2001:db8::9 "), "{run_arguments:?}");

        // The program joins an existing session.
        run_vipool(&["session", "open", "8", "--client", CLIENT_ADDRESS]);
        let run_arguments = ["run", "--session", "8", "--", python, "-c", LOOKUP_SCRIPT];
        assert_eq!(run_vipool(&run_arguments), three_times(CLIENT_ADDRESS));
        // If the map is replaced before or after the start of the program, the program still gets
        // the client's address.
        host.change_policy(|policy| policy.rewrite.hide_addresses = true);
        assert_eq!(run_vipool(&run_arguments), three_times(CLIENT_ADDRESS));
        let waiting_script = format!("print('ready', flush=True); input(){LOOKUP_SCRIPT}");
        let mut command = Command::new(vipool_path());
        command.args(["run", "--map", &map, "--session", "8", "--", python, "-c", &waiting_script]);
        command.env("VIPOOL_PRELOAD", preload_path()).env_remove("VIPOOL_LEASE");
        let (mut process, mut output) = start_piped(&mut command);
        output.read_line(&mut String::new()).unwrap();
        host.change_policy(|policy| policy.rewrite.hide_addresses = false);
        process.0.stdin.take().unwrap().write_all(b"\n").unwrap();
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        assert_eq!(line, three_times(CLIENT_ADDRESS));
        assert!(process.0.wait().unwrap().success());
        assert_eq!(client_file_count(&map), 1);
        run_vipool(&["session", "close", "8"]);
        assert_eq!(client_file_count(&map), 0);
    });
}

#[test]
fn client_address_is_readable_by_its_user_only() {
    let test_name = "client_address_is_readable_by_its_user_only";
    on_test_host(test_name, &["root", "setpriv"], client_ip_rules, |host| {
        let lookup = ["getent", "ahostsv4", "matrixhost"];
        let mut command = Command::new(vipool_path());
        command.args(["session", "open", "7", "--user", "nobody", "--client", CLIENT_ADDRESS]);
        command.args(["--map", host.directory.to_str().unwrap()]);
        output_of(&mut command);
        let session = host.session(7);
        let lookup_as_user = |id: &str| {
            let mut command = session.command("setpriv");
            let (user, group) = (format!("--reuid={id}"), format!("--regid={id}"));
            output_of(command.args([&*user, &*group, "--clear-groups"]).args(lookup))
        };
        let nobody_uid = output_of(Command::new("id").args(["-u", "nobody"]));
        assert!(lookup_as_user(nobody_uid.trim()).starts_with(CLIENT_ADDRESS));
        assert!(lookup_as_user("54321").starts_with(HOST_ADDRESS));
    });
}
