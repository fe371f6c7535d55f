//! Programs in C99 and C++17, compiled without a warning and run: as they are, under
//! AddressSanitizer with its leak check, and under valgrind.

use std::path::Path;
use std::process::Command;

use vipool::Tick;
use vipool_testing::{cargo, have, target_dir};

use crate::build::{Language, program, said, succeed};

/// What gcc and clang want for a program whose memory errors and leaks end it.
pub const SANITIZED: &[&str] = &["-fsanitize=address,undefined", "-fno-sanitize-recover=all"];

/// Runs a program under valgrind, which fails it for an error or a leak.
pub fn under_valgrind(program: &Path) -> Command {
    let mut command = Command::new("valgrind");
    command.args(["--quiet", "--error-exitcode=9", "--leak-check=full"]);
    command.args(["--errors-for-leak-kinds=definite,possible"]).arg(program);
    command
}

#[test]
fn a_session_and_its_bind() {
    if !have(&["cc", "c++"]) {
        return;
    }
    let source = Path::new("examples/c/first_session.c");
    for language in [Language::C99, Language::Cpp17] {
        let program = program(source, language, "first_session", &[]);
        let directory = tempfile::tempdir().unwrap();
        let in_memory = said(&mut Command::new(&program));
        assert_eq!(said(Command::new(&program).arg(directory.path())), in_memory);
        let expected = "\
            vipool 0.1.0\n\
            leased               10.0.5.10\n\
            leased               127.3.0.2\n\
            127.0.0.1 becomes    127.3.0.2\n\
            with port            6379\n\
            closed twice         VIPOOL_ERR_STALE: stale: the lease of session \
            embedder:7 was released before\n\
            passed               the session's lease was closed\n";
        assert_eq!(in_memory, expected);
    }
}

#[test]
fn no_memory_error_under_address_sanitizer() {
    if !have(&["cc"]) {
        return;
    }
    let source = Path::new("examples/c/first_session.c");
    let program = program(source, Language::C99, "first_session_asan", SANITIZED);
    let directory = tempfile::tempdir().unwrap();
    succeed(&mut Command::new(&program));
    succeed(Command::new(&program).arg(directory.path()));
}

#[test]
fn no_memory_error_under_valgrind() {
    if !have(&["cc", "valgrind"]) {
        return;
    }
    let source = Path::new("examples/c/first_session.c");
    let program = program(source, Language::C99, "first_session_valgrind", &[]);
    let directory = tempfile::tempdir().unwrap();
    succeed(&mut under_valgrind(&program));
    succeed(under_valgrind(&program).arg(directory.path()));
}

/// A hook layer in C99 in two sessions at once, on real sockets and the same port: each meets its
/// own, while the host's 127.0.0.1 has the port too.
#[cfg(target_os = "linux")]
#[test]
fn a_hook_layer_in_c() {
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
    let hook = program(Path::new("examples/c/hook.c"), Language::C99, "hook", SANITIZED);
    let id = std::process::id();
    let block = format!("127.{}.{}.16-127.{0}.{1}.31", 128 + id / 256 % 64, id % 256);
    let features = Features::default().with_loopback(true);
    let pattern = hook.canonicalize().unwrap().to_str().unwrap().to_owned();
    let plan = Plan::new([Pool::new(
        "loopback",
        PoolKind::Loopback,
        &[block.parse().unwrap()],
        MAX_SLOTS,
    )
    .unwrap()])
    .with_policy(Policy::new([Program::new(pattern).with_features(features)]));
    let directory = tempfile::tempdir().unwrap();
    let map = Map::create(directory.path(), &plan).unwrap();
    let host = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = host.local_addr().unwrap().port();

    let mut sessions: Vec<_> = (1..=2)
        .map(|value| {
            let session = SessionId::new(SessionKind::Embedder, value).unwrap();
            let opened = map.open_session(session, &OpenOptions::default(), Tick::ZERO).unwrap();
            let own = opened.leases.iter().next().unwrap().address;
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
            let seen =
                format!("the kernel listens on {own}:{port}\nthe program sees 127.0.0.1:{port}\n");
            assert_eq!(lines, seen);
            (child, output)
        })
        .collect();
    for (child, output) in &mut sessions {
        child.0.stdin.take().unwrap().write_all(b"\n").unwrap();
        let mut rest = String::new();
        output.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "accepted from 127.0.0.1\nreceived x\n");
        assert!(child.0.wait().unwrap().success());
    }
}

/// The hook layer in C99 with NULLs, and with calls that fail: the session's virtual IP is on no
/// interface, and the administrator lets such calls pass or not.
#[cfg(target_os = "linux")]
#[test]
fn a_hook_layer_in_c_where_calls_fail() {
    use std::net::TcpListener;

    use vipool::map::{Map, OpenOptions, Plan};
    use vipool::policy::{Features, LoopbackConnect, Policy, Program, ProgramFlags, RewriteFlags};
    use vipool::pool::{MAX_SLOTS, Pool, PoolKind};
    use vipool::session::{SessionId, SessionKind};

    if !have(&["cc"]) {
        return;
    }
    let calls =
        program(Path::new("tests/capi/hook_calls.c"), Language::C99, "hook_calls", SANITIZED);
    let id = std::process::id();
    let block = format!("127.{}.{}.32-127.{0}.{1}.47", 128 + id / 256 % 64, id % 256);
    let pool = |kind, range: &str| {
        Pool::new("default", kind, &[range.parse().unwrap()], MAX_SLOTS).unwrap()
    };
    for pass_when_missing in [false, true] {
        let plan = Plan::new([
            pool(PoolKind::VirtualIp, "198.51.100.16-198.51.100.31"),
            pool(PoolKind::Loopback, &block),
        ])
        .with_policy(
            Policy::new([Program::new(calls.canonicalize().unwrap().to_str().unwrap())
                .with_features(Features::default().with_virtual_ip(true).with_loopback(true))
                .with_flags(ProgramFlags::default().with_loopback_connect(LoopbackConnect::Own))])
            .with_rewrite(RewriteFlags::default().with_pass_when_missing(pass_when_missing)),
        );
        let directory = tempfile::tempdir().unwrap();
        let map = Map::create(directory.path(), &plan).unwrap();
        let session = SessionId::new(SessionKind::Embedder, 1).unwrap();
        let opened = map.open_session(session, &OpenOptions::default(), Tick::ZERO).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let said = said(
            Command::new(&calls)
                .arg(directory.path())
                .args([opened.handle.to_string(), port.to_string()])
                .arg(u8::from(pass_when_missing).to_string()),
        );
        println!("{said}");
    }
}

/// The C++ wrapper: every part of it, under AddressSanitizer.
#[test]
fn wrapper_for_cpp_frees_every_handle() {
    if !have(&["c++"]) {
        return;
    }
    let source = Path::new("tests/capi/wrapper.cpp");
    let wrapper = program(source, Language::Cpp17, "wrapper", SANITIZED);
    let directory = tempfile::tempdir().unwrap();
    assert_eq!(said(Command::new(wrapper).arg(directory.path())), "done\n");
}

/// The agent in C++ and the one in Rust do the same and say the same.
#[test]
fn agents_in_two_languages() {
    use std::io::Write;
    use std::process::Stdio;

    if !have(&["c++"]) {
        return;
    }
    cargo(&["build", "--package", "vipool", "--example", "agent"]);
    let agents = [
        program(Path::new("examples/cpp/agent.cpp"), Language::Cpp17, "agent", SANITIZED),
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
    let said = agents.map(|agent| {
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
    assert_eq!(said[0], said[1]);
    println!("{}", said[0]);
    for line in [
        "event: windows:1 has 10.0.5.10",
        "event: few addresses are left",
        "session windows:2 of bob: 10.0.5.11",
        "event: windows:1 gave back 10.0.5.10",
        "error: session windows:1 is not open",
        "error: 10.0.9.9 is in no pool of this server",
        "drained 1, 1 held",
        "unknown command: nonsense",
    ] {
        assert!(said[0].contains(line), "{line} is not in\n{}", said[0]);
    }
}
