//! Tests the hook in programs that use signals, threads, forks, jumps and many sockets. Some tests
//! replace or damage the map while a program runs.

mod support;

use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::{fs, thread, time::Duration};

use support::{
    TestHost, TestSession, compile, in_namespace, inheriting_program, listed_program, output_of,
    start_piped, start_until_ready, stdout_on_success,
};
use vipool::Tick;
use vipool::map::MAP_FILE;
use vipool::policy::{PortRange, Program};
use vipool_testing::{effort, preload_path};

fn test_program() -> PathBuf {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM
        .get_or_init(|| compile("hooked-process", &["hooked_process.c", "common.c"], &[]))
        .clone()
}

fn rule() -> Program {
    listed_program(test_program()).with_own_ports([PortRange { first: 8311, last: 8311 }])
}

fn on_test_host(test_name: &str, needs: &[&str], body: impl FnOnce(TestHost)) {
    let prepare = || {
        test_program();
        preload_path();
    };
    in_namespace(test_name, needs, prepare, || body(TestHost::new(vec![rule()])));
}

/// Returns a command that runs the test program in the session. The process list contains the
/// program.
fn listed_command(session: &TestSession<'_>) -> Command {
    let mut command = session.command(test_program());
    command.env("MATRIX_LISTED", "1").env("MATRIX_V", session.v()).env("MATRIX_L", session.l());
    command
}

#[test]
fn hooks_work_in_handlers_threads_and_forks() {
    on_test_host("hooks_work_in_handlers_threads_and_forks", &[], |host| {
        output_of(listed_command(&host.session(1)).arg("signals"));
    });
}

/// The hooks must also fit on the signal stack of an unlisted program, because every program of a
/// session calls the hooks.
#[test]
fn hooks_fit_a_minimal_signal_stack() {
    on_test_host("hooks_fit_a_minimal_signal_stack", &[], |host| {
        let session = host.session(1);
        output_of(listed_command(&session).arg("small-stack"));
        let unlisted_copy = host.directory.join("unlisted");
        fs::copy(test_program(), &unlisted_copy).unwrap();
        output_of(session.command(unlisted_copy).arg("small-stack"));
    });
}

#[test]
fn message_array_is_probed_once_per_page() {
    on_test_host("message_array_is_probed_once_per_page", &[], |host| {
        output_of(listed_command(&host.session(1)).arg("memory-probes"));
    });
}

#[test]
fn jumps_and_cancellation_leave_no_state() {
    on_test_host("jumps_and_cancellation_leave_no_state", &[], |host| {
        let session = host.session(1);
        output_of(listed_command(&session).arg("jumps"));
        // In this mode, a timer sends a signal every 40 µs. Under valgrind, the program would make
        // no progress, so `hooks_pass_valgrind` does not use this mode.
        output_of(listed_command(&session).arg("jumps-during-connect"));
    });
}

#[test]
fn many_sockets_leak_nothing() {
    on_test_host("many_sockets_leak_nothing", &[], |host| {
        let count = effort(100_000, 1_000_000).to_string();
        output_of(listed_command(&host.session(1)).args(["many-sockets", &count]));
    });
}

/// When a program connects to 127.0.0.1, the hook opens a descriptor to ask the kernel for the
/// session's listeners. The hook closes this descriptor before the connect returns.
#[test]
fn hooks_leave_descriptors_unchanged() {
    on_test_host("hooks_leave_descriptors_unchanged", &[], |host| {
        output_of(listed_command(&host.session(1)).arg("descriptors"));
    });
}

/// The hook needs a descriptor to ask the kernel for the session's listeners. Without a free
/// descriptor, a call that needs this query fails. It does not reach the host's service on the same
/// port.
#[test]
fn full_descriptor_table_never_leads_to_the_host() {
    on_test_host("full_descriptor_table_never_leads_to_the_host", &[], |host| {
        let _services = start_until_ready(Command::new(test_program()).arg("host-services"));
        output_of(listed_command(&host.session(1)).arg("full-descriptor-table"));
    });
}

#[test]
fn connections_may_exceed_the_port_range() {
    on_test_host("connections_may_exceed_the_port_range", &[], |host| {
        fs::write("/proc/sys/net/ipv4/ip_local_port_range", "40000 40099").unwrap();
        let with_fd_limit = |command: &mut Command| {
            // The program keeps all connections open, so it needs many descriptors.
            let script = "ulimit -n 12000 && exec \"$@\"";
            let mut shell = Command::new("sh");
            shell.args(["-c", script, "sh"]).arg(command.get_program()).args(command.get_args());
            for (name, value) in command.get_envs() {
                shell.env(name, value.unwrap());
            }
            shell
        };
        let _service =
            start_until_ready(host.external_command(test_program()).arg("listen-forever"));
        output_of(&mut with_fd_limit(
            listed_command(&host.session(1)).args(["connections", "10000"]),
        ));
    });
}

/// Requests two names from a program in the mode "report-names". The program binds a socket to
/// 127.0.0.1, and reports the visible name and the kernel's name of this socket.
fn query_names(
    process: &mut vipool_testing::ChildGuard,
    output: &mut impl BufRead,
) -> (String, String) {
    let input = process.0.stdin.as_mut().unwrap();
    input.write_all(b"?\n").unwrap();
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    let (visible_name, kernel_name) = line.trim().split_once(' ').expect("two names");
    (visible_name.to_owned(), kernel_name.to_owned())
}

#[test]
fn running_program_follows_replaced_map() {
    on_test_host("running_program_follows_replaced_map", &[], |mut host| {
        let (mut command, session_address) = {
            let session = host.session(1);
            (listed_command(&session), format!("{}:8094", session.l()))
        };
        let (mut process, mut output) = start_piped(command.arg("report-names"));
        output.read_line(&mut String::new()).unwrap();
        let loopback_address = || "127.0.0.1:8094".to_owned();
        assert_eq!(
            query_names(&mut process, &mut output),
            (loopback_address(), session_address.clone())
        );
        // After the map is replaced, the program uses the new map, which contains the same leases.
        for round in 0..5 {
            host.change_policy(|policy| policy.rewrite.hide_addresses = round % 2 == 0);
            assert_eq!(
                query_names(&mut process, &mut output),
                (loopback_address(), session_address.clone())
            );
        }
        // A program whose rule is removed continues without rewriting.
        let rules = std::cell::RefCell::new(Vec::new());
        host.change_policy(|policy| rules.replace(std::mem::take(&mut policy.programs)).clear());
        host.change_policy(|policy| policy.programs.push(listed_program("another")));
        assert_eq!(
            query_names(&mut process, &mut output),
            (loopback_address(), loopback_address())
        );
        host.change_policy(|policy| policy.programs = rules.take());
        assert_eq!(query_names(&mut process, &mut output), (loopback_address(), session_address));
        // After the session is closed, new binds pass unchanged.
        host.map.close_session("1".parse().unwrap(), Tick::now()).unwrap();
        assert_eq!(
            query_names(&mut process, &mut output),
            (loopback_address(), loopback_address())
        );
    });
}

/// Each call is the first call after a replacement of the map, so the hook opens, reads and closes
/// files in it. These operations must not be cancellation points, because a cancellation would end
/// the call in the middle of the hook.
#[test]
fn cancelled_thread_completes_the_call_that_follows_a_new_map() {
    let test_name = "cancelled_thread_completes_the_call_that_follows_a_new_map";
    on_test_host(test_name, &[], |mut host| {
        // With `client-ip`, the hook searches the directory of the map for the client file. With an
        // inheriting rule, it reads the files of the ancestors if no rule matches the program.
        host.change_policy(|policy| {
            policy.programs[0].features.client_ip = true;
            policy.programs.push(inheriting_program("/nowhere/inheriting"));
        });
        let mut command = listed_command(&host.session(1));
        let (mut process, mut output) = start_piped(command.arg("cancelled-calls"));
        output.read_line(&mut String::new()).unwrap();
        let rule = host.policy().programs[0].clone();
        for round in 0..4 {
            for call in ["bind", "listen", "setsockopt", "getnameinfo"] {
                let is_listed = round % 2 == 0;
                host.change_policy(|policy| {
                    policy.programs[0] =
                        if is_listed { rule.clone() } else { listed_program("/nowhere/other") };
                });
                writeln!(process.0.stdin.as_mut().unwrap(), "{call}").unwrap();
                let mut line = String::new();
                output.read_line(&mut line).unwrap();
                assert_eq!(line, "ok, cancelled later, descriptors unchanged\n", "{call}");
            }
        }
    });
}

#[test]
fn corrupt_map_never_ends_the_program() {
    on_test_host("corrupt_map_never_ends_the_program", &[], |host| {
        let session = host.session(1);
        let (mut process, mut output) = start_piped(listed_command(&session).arg("report-names"));
        output.read_line(&mut String::new()).unwrap();
        let map_file = host.directory.join(MAP_FILE);
        let length = fs::metadata(&map_file).unwrap().len() as usize;
        let mut random_state = 0x9e37_79b9_7f4a_7c15u64;
        for round in 0..effort(200, 5000) {
            // The test overwrites random bytes of the file, and in every 50th round all bytes. The
            // length of the file does not change.
            let mut bytes = fs::read(&map_file).unwrap();
            for _ in 0..64 {
                random_state =
                    random_state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(round);
                let offset = (random_state >> 17) as usize % length;
                bytes[offset] = (random_state >> 50) as u8;
            }
            if round % 50 == 49 {
                bytes.fill((random_state >> 40) as u8);
            }
            let mut file = fs::OpenOptions::new().write(true).open(&map_file).unwrap();
            file.write_all(&bytes).unwrap();
            thread::sleep(Duration::from_millis(1));
            assert!(process.0.try_wait().unwrap().is_none(), "the program must continue");
        }
        // The program never sees an address of the session, even if the map is corrupt.
        let (visible_name, _) = query_names(&mut process, &mut output);
        assert_eq!(visible_name, "127.0.0.1:8094");
        // A program that starts with the corrupt map also runs.
        let (mut process, mut output) = start_piped(listed_command(&session).arg("report-names"));
        output.read_line(&mut String::new()).unwrap();
        assert_eq!(query_names(&mut process, &mut output).0, "127.0.0.1:8094");
    });
}

#[test]
fn child_needs_its_own_or_an_inherited_rule() {
    let test_name = "child_needs_its_own_or_an_inherited_rule";
    on_test_host(test_name, &[], |mut host| {
        let child_output = |host: &TestHost| {
            let session = host.session(1);
            let script = format!(
                "{0} report-names <<EOF\n?\nEOF\ntrue",
                test_program().with_file_name("hooked-child").display()
            );
            fs::copy(test_program(), test_program().with_file_name("hooked-child")).unwrap();
            let mut command = session.command("/bin/sh");
            output_of(command.args(["-c", &script]))
        };
        let session_address = format!("{}:8094", host.session(1).l());
        assert!(!child_output(&host).contains(&session_address));
        host.change_policy(|policy| policy.programs.push(listed_program("sh")));
        assert!(!child_output(&host).contains(&session_address));
        // /bin/sh may be a link to another program.
        let shell = fs::canonicalize("/bin/sh").unwrap();
        let shell_name = shell.file_name().unwrap().to_str().unwrap().to_owned();
        host.change_policy(|policy| {
            policy.programs.push(inheriting_program(&shell));
            policy.programs.push(inheriting_program(&shell_name));
        });
        assert!(child_output(&host).contains(&session_address));
    });
}

#[test]
fn disable_and_invalid_map_or_lease_stop_rewriting() {
    on_test_host("disable_and_invalid_map_or_lease_stop_rewriting", &[], |host| {
        let session = host.session(1);
        let session_address = format!("{}:8094", session.l());
        let bound_address = |command: &mut Command| {
            let (mut process, mut output) = start_piped(command.arg("report-names"));
            output.read_line(&mut String::new()).unwrap();
            query_names(&mut process, &mut output).1
        };
        assert_eq!(bound_address(&mut listed_command(&session)), session_address);
        assert_eq!(
            bound_address(listed_command(&session).env("VIPOOL_DISABLE", "1")),
            "127.0.0.1:8094"
        );
        assert_eq!(
            bound_address(listed_command(&session).env("VIPOOL_MAP", "/nowhere")),
            "127.0.0.1:8094"
        );
        assert_eq!(
            bound_address(listed_command(&session).env("VIPOOL_LEASE", "nonsense")),
            "127.0.0.1:8094"
        );
        // The handle of a closed session has no effect in a later session with the same id.
        let stale_handle = session.handle.to_string();
        host.map.close_by_handle(&session.handle, Tick::now()).unwrap();
        let reopened_session = host.session(1);
        assert_eq!(
            bound_address(listed_command(&reopened_session).env("VIPOOL_LEASE", stale_handle)),
            "127.0.0.1:8094"
        );
    });
}

/// Runs three modes of the test program under valgrind, which checks the memory accesses of the
/// hook. Valgrind must print nothing: it would also report a system call that it does not know.
#[test]
fn hooks_pass_valgrind() {
    on_test_host("hooks_pass_valgrind", &["valgrind"], |host| {
        let session = host.session(1);
        for arguments in [&["jumps"][..], &["heap-arguments"], &["many-sockets", "2000"]] {
            let mut command = Command::new("valgrind");
            command.args(["-q", "--error-exitcode=9", "--leak-check=no"]).arg(test_program());
            let hooked_command = listed_command(&session);
            for (name, value) in hooked_command.get_envs() {
                command.env(name, value.unwrap());
            }
            let output = command.args(arguments).output().unwrap();
            assert_eq!(String::from_utf8_lossy(&output.stderr), "");
            stdout_on_success(&command, output);
        }
    });
}
