//! Compiles and runs programs in C99 and C++17. Depending on the test, a program runs without a
//! checker, with AddressSanitizer and UndefinedBehaviorSanitizer, or under valgrind. Compiler
//! warnings are errors.

use std::path::Path;
use std::process::Command;

use vipool::Tick;
use vipool_testing::{cargo, have, target_dir};

use crate::build::{Language, compile, run_command, stdout_of};

/// Compiler arguments that make a program fail after a memory error, a leak or undefined behaviour.
pub const SANITIZED: &[&str] = &["-fsanitize=address,undefined", "-fno-sanitize-recover=all"];

/// Returns a command that runs a program under valgrind. The command fails after a memory error or
/// a leak.
pub fn under_valgrind(program: &Path) -> Command {
    let mut command = Command::new("valgrind");
    command.args(["--quiet", "--error-exitcode=9", "--leak-check=full"]);
    command.args(["--errors-for-leak-kinds=definite,possible"]).arg(program);
    command
}

#[test]
fn first_session_prints_leases_and_rewritten_bind() {
    if !have(&["cc", "c++"]) {
        return;
    }
    let source = Path::new("examples/c/first_session.c");
    for language in [Language::C99, Language::Cpp17] {
        let program = compile(source, language, "first_session", &[]);
        let directory = tempfile::tempdir().unwrap();
        let output_with_memory_map = stdout_of(&mut Command::new(&program));
        assert_eq!(stdout_of(Command::new(&program).arg(directory.path())), output_with_memory_map);
        let expected = "\
            vipool 0.1.0\n\
            leased               10.0.5.10\n\
            leased               127.3.0.2\n\
            127.0.0.1 becomes    127.3.0.2\n\
            with port            6379\n\
            closed twice         VIPOOL_ERR_STALE: stale: the lease of session \
            embedder:7 was released before\n\
            passed               the session's lease was closed\n";
        assert_eq!(output_with_memory_map, expected);
    }
}

#[test]
fn first_session_has_no_error_under_address_sanitizer() {
    if !have(&["cc"]) {
        return;
    }
    let source = Path::new("examples/c/first_session.c");
    let program = compile(source, Language::C99, "first_session_asan", SANITIZED);
    let directory = tempfile::tempdir().unwrap();
    run_command(&mut Command::new(&program));
    run_command(Command::new(&program).arg(directory.path()));
}

#[test]
fn first_session_has_no_error_under_valgrind() {
    if !have(&["cc", "valgrind"]) {
        return;
    }
    let source = Path::new("examples/c/first_session.c");
    let program = compile(source, Language::C99, "first_session_valgrind", &[]);
    let directory = tempfile::tempdir().unwrap();
    run_command(&mut under_valgrind(&program));
    run_command(under_valgrind(&program).arg(directory.path()));
}

/// The example hook runs in two sessions at the same time, with real sockets on the same port. Each
/// session connects to its own listener, although the test also listens on this port of 127.0.0.1.
#[cfg(target_os = "linux")]
#[test]
fn two_sessions_use_the_same_port_with_the_c_hook() {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::TcpListener;
    use std::process::Stdio;

    use vipool::map::{Map, OpenOptions, Plan};
    use vipool::policy::{Features, Policy, Program};
    use vipool::pool::{MAX_SLOTS, Pool, PoolKind};
    use vipool::session::{SessionId, SessionKind};
    use vipool_testing::ChildGuard;

    if !have(&["cc"]) {
        return;
    }
    let hook = compile(Path::new("examples/c/hook.c"), Language::C99, "hook", SANITIZED);
    let pid = std::process::id();
    let range = format!("127.{}.{}.16-127.{0}.{1}.31", 128 + pid / 256 % 64, pid % 256);
    let features = Features::default().with_loopback(true);
    let pattern = hook.canonicalize().unwrap().to_str().unwrap().to_owned();
    let plan = Plan::new([Pool::new(
        "loopback",
        PoolKind::Loopback,
        &[range.parse().unwrap()],
        MAX_SLOTS,
    )
    .unwrap()])
    .with_policy(Policy::new([Program::new(pattern).with_features(features)]));
    let directory = tempfile::tempdir().unwrap();
    let map = Map::create(directory.path(), &plan).unwrap();
    let host_listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = host_listener.local_addr().unwrap().port();

    let mut children: Vec<_> = (1..=2)
        .map(|value| {
            let session = SessionId::new(SessionKind::Embedder, value).unwrap();
            let opened = map.open_session(session, &OpenOptions::default(), Tick::ZERO).unwrap();
            let address = opened.leases.iter().next().unwrap().address;
            let mut child = ChildGuard::start(
                Command::new(&hook)
                    .arg(directory.path())
                    .arg(opened.handle.to_string())
                    .arg(port.to_string())
                    .stdin(Stdio::piped())
                    .stdout(Stdio::piped()),
            );
            let mut output = BufReader::new(child.0.stdout.take().unwrap());
            let mut lines = String::new();
            for _ in 0..2 {
                output.read_line(&mut lines).unwrap();
            }
            let expected = format!(
                "the kernel listens on {address}:{port}\nthe program sees 127.0.0.1:{port}\n"
            );
            assert_eq!(lines, expected);
            (child, output)
        })
        .collect();
    for (child, output) in &mut children {
        child.0.stdin.take().unwrap().write_all(b"\n").unwrap();
        let mut remaining_output = String::new();
        output.read_to_string(&mut remaining_output).unwrap();
        assert_eq!(remaining_output, "accepted from 127.0.0.1\nreceived x\n");
        assert!(child.0.wait().unwrap().success());
    }
}

/// `hook_calls.c` passes NULL to the example hook and makes calls that need the virtual IP of the
/// session. No interface has this virtual IP. With pass-when-missing, calls that need the virtual
/// IP pass unchanged. Otherwise, they fail.
#[cfg(target_os = "linux")]
#[test]
fn c_hook_handles_null_and_a_missing_virtual_ip() {
    use std::net::TcpListener;

    use vipool::map::{Map, OpenOptions, Plan};
    use vipool::policy::{Features, LoopbackConnect, Policy, Program, ProgramFlags, RewriteFlags};
    use vipool::pool::{MAX_SLOTS, Pool, PoolKind};
    use vipool::session::{SessionId, SessionKind};

    if !have(&["cc"]) {
        return;
    }
    let hook_calls =
        compile(Path::new("tests/capi/hook_calls.c"), Language::C99, "hook_calls", SANITIZED);
    let pid = std::process::id();
    let loopback_range = format!("127.{}.{}.32-127.{0}.{1}.47", 128 + pid / 256 % 64, pid % 256);
    let pool = |kind, range: &str| {
        Pool::new("default", kind, &[range.parse().unwrap()], MAX_SLOTS).unwrap()
    };
    for pass_when_missing in [false, true] {
        let plan = Plan::new([
            pool(PoolKind::VirtualIp, "198.51.100.16-198.51.100.31"),
            pool(PoolKind::Loopback, &loopback_range),
        ])
        .with_policy(
            Policy::new([Program::new(hook_calls.canonicalize().unwrap().to_str().unwrap())
                .with_features(Features::default().with_virtual_ip(true).with_loopback(true))
                .with_flags(ProgramFlags::default().with_loopback_connect(LoopbackConnect::Own))])
            .with_rewrite(RewriteFlags::default().with_pass_when_missing(pass_when_missing)),
        );
        let directory = tempfile::tempdir().unwrap();
        let map = Map::create(directory.path(), &plan).unwrap();
        let session = SessionId::new(SessionKind::Embedder, 1).unwrap();
        let opened = map.open_session(session, &OpenOptions::default(), Tick::ZERO).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let output = stdout_of(
            Command::new(&hook_calls)
                .arg(directory.path())
                .args([opened.handle.to_string(), port.to_string()])
                .arg(u8::from(pass_when_missing).to_string()),
        );
        println!("{output}");
    }
}

/// Uses every class of the C++ wrapper under AddressSanitizer, which reports memory leaks.
#[test]
fn wrapper_for_cpp_frees_every_handle() {
    if !have(&["c++"]) {
        return;
    }
    let source = Path::new("tests/capi/wrapper.cpp");
    let wrapper = compile(source, Language::Cpp17, "wrapper", SANITIZED);
    let directory = tempfile::tempdir().unwrap();
    assert_eq!(stdout_of(Command::new(wrapper).arg(directory.path())), "done\n");
}

#[test]
fn agents_in_cpp_and_rust_print_the_same_output() {
    use std::io::Write;
    use std::process::Stdio;

    if !have(&["c++"]) {
        return;
    }
    cargo(&["build", "--package", "vipool", "--example", "agent"]);
    let agents = [
        compile(Path::new("examples/cpp/agent.cpp"), Language::Cpp17, "agent", SANITIZED),
        target_dir().join("debug/examples/agent"),
    ];
    let farm = "
        [server.ts1]
        [[range]]
        addresses = \"10.0.5.10-10.0.5.12\"
        server = \"ts1\"
        [sessions]
        low-water = 2
    ";
    let input = "\
        logon 1 ada\nlogon 2 bob\nlogon 1 ada\nstatus\nlogoff 1\nlogoff 1\nlogon 3 eve\n\
        logon 4 dan\nreserve 10.0.5.11 bob\nreserve 10.0.9.9 bob\ndrain 10.0.5.12\ntick\n\
        status\nnonsense\n";
    let outputs = agents.map(|agent| {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("farm.toml");
        std::fs::write(&file, farm).unwrap();
        let mut child = Command::new(&agent)
            .args([&file, Path::new("ts1"), directory.path()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "{}: {text}", agent.display());
        text
    });
    assert_eq!(outputs[0], outputs[1]);
    println!("{}", outputs[0]);
    for line in [
        "event: windows:1 leased 10.0.5.10",
        "event: few addresses are left",
        "session windows:2 of bob: 10.0.5.11",
        "event: windows:1 released 10.0.5.10",
        "error: session windows:1 is not open",
        "error: 10.0.9.9 is in no pool of this server",
        "drained 1, 1 held",
        "unknown command: nonsense",
    ] {
        assert!(outputs[0].contains(line), "{line} is not in\n{}", outputs[0]);
    }
}
