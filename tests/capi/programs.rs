//! Programs in C99 and C++17, compiled without a warning and run: as they are, under
//! AddressSanitizer with its leak check, and under valgrind.

use std::path::Path;
use std::process::Command;

use vipool_testing::have;

use crate::build::{Language, program, said, succeed};

/// What gcc and clang want for a program whose memory errors and leaks end it.
const SANITIZED: &[&str] = &["-fsanitize=address,undefined", "-fno-sanitize-recover=all"];

/// Runs a program under valgrind, which fails it for an error or a leak.
fn under_valgrind(program: &Path) -> Command {
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
            closed twice         VIPOOL_ERR_STALE: stale: the lease of session embedder:7 was \
            closed before\n\
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
