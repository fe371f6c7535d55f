//! Exit statuses of `vipool run` that do not come from the program.

use std::ffi::OsStr;
use std::io;
use std::process::ExitCode;

/// vipool failed before it could start the program. env(1) and timeout(1) use the same value.
pub const VIPOOL_FAILED: u8 = 125;
/// The program exists but cannot be executed.
pub const CANNOT_EXECUTE: u8 = 126;
/// There is no such program.
pub const NOT_FOUND: u8 = 127;

/// Prints the reason why the program was not started, and returns the exit status.
pub fn report_exec_failure(program: &OsStr, error: &io::Error) -> ExitCode {
    errln!("vipool: cannot run {}: {error}", program.display());
    let is_missing = error.kind() == io::ErrorKind::NotFound;
    ExitCode::from(if is_missing { NOT_FOUND } else { CANNOT_EXECUTE })
}
