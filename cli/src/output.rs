//! Writes text to standard output and standard error. The macros of this module replace those of
//! the standard library, which panic if the reader has closed the pipe, as in
//! `vipool status | head -1`.

use std::fmt;
use std::io::{self, ErrorKind, Write};

use anyhow::Context;
use serde::Serialize;

/// Writes formatted text to standard output, like `print!`. Evaluates to the result of
/// [`write_stdout`].
macro_rules! out {
    ($($argument:tt)*) => {
        $crate::output::write_stdout(format_args!($($argument)*))
    };
}

/// Writes a line to standard output, like `println!`. Evaluates to the result of [`write_stdout`].
macro_rules! outln {
    ($($argument:tt)*) => {
        $crate::output::write_stdout(format_args!("{}\n", format_args!($($argument)*)))
    };
}

/// Writes formatted text to standard error, like `eprint!`. Ignores errors.
macro_rules! err {
    ($($argument:tt)*) => {
        $crate::output::write_stderr(format_args!($($argument)*))
    };
}

/// Writes a line to standard error, like `eprintln!`. Ignores errors.
macro_rules! errln {
    ($($argument:tt)*) => {
        $crate::output::write_stderr(format_args!("{}\n", format_args!($($argument)*)))
    };
}

/// Writes text to standard output. If the reader has closed the pipe, discards the text, so that a
/// command completes its work and its exit status does not depend on the reader.
///
/// # Errors
/// The text cannot be written for another reason, such as a full disk.
pub fn write_stdout(text: fmt::Arguments<'_>) -> anyhow::Result<()> {
    match io::stdout().write_fmt(text) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => result.context("cannot write to standard output"),
    }
}

/// Writes a value to standard output as JSON.
///
/// # Errors
/// The value cannot be serialized, or as [`write_stdout`].
pub fn print_json(value: &(impl Serialize + ?Sized)) -> anyhow::Result<()> {
    outln!("{}", serde_json::to_string_pretty(value)?)
}

/// Writes text to standard error. Ignores errors, because there is no place to report them.
pub fn write_stderr(text: fmt::Arguments<'_>) {
    let _ = io::stderr().write_fmt(text);
}
