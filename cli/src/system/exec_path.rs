//! Searches for a program's file on the PATH, like a shell.

use std::ffi::OsStr;
use std::path::PathBuf;

use anyhow::Context;
use nix::unistd::{AccessFlags, access};

/// Returns the path by which `program` will be started. Returns `None` if no directory of the PATH
/// contains the program. A name with a slash is already a path: the function returns it unchecked.
pub fn find_program(program: &OsStr) -> Option<PathBuf> {
    if program.as_encoded_bytes().contains(&b'/') {
        return Some(program.into());
    }
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into());
    std::env::split_paths(&path)
        .map(|directory| directory.join(program))
        .find(|file| access(file, AccessFlags::X_OK).is_ok() && file.is_file())
}

/// Returns the path of the program's file with all symlinks resolved.
///
/// /proc/PID/exe will contain this path, unless the file is a script.
///
/// # Errors
/// There is no such program.
pub fn resolve_program(program: &OsStr) -> anyhow::Result<PathBuf> {
    find_program(program)
        .and_then(|path| path.canonicalize().ok())
        .with_context(|| format!("cannot find the program {}", program.display()))
}
