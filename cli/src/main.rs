//! The command `vipool`.
//!
//! The modules form layers, listed from the highest to the lowest. A module uses only modules of
//! lower layers:
//!
//! 1. `commands` has one module per subcommand. The argument struct of a subcommand contains the
//!    `--help` text. The method `run` of the struct returns the exit status.
//! 2. `assigner` adds pool addresses to network interfaces and removes them. `event_log` writes
//!    events to journald or syslog.
//! 3. `history` writes and reads the file that records which session held which address.
//! 4. `maps` selects the map for a command, creates private maps, and reports the state of a map.
//! 5. `system` reads information from the operating system: processes, sockets, users, program
//!    files. `table`, `text`, `output`, `remedy` and `exit_status` are in this layer too. Only
//!    `system::trace` and `system::arp_socket` contain `unsafe` code.
//!
//! `main` prints an error once, with its causes.

#![deny(unsafe_code)]
#![deny(clippy::print_stdout, clippy::print_stderr)]

#[macro_use]
mod output;

#[cfg(target_os = "linux")]
mod assigner;
mod commands;
#[cfg(unix)]
mod event_log;
mod exit_status;
#[cfg(unix)]
mod history;
mod maps;
mod remedy;
mod system;
mod table;
mod text;

use std::process::ExitCode;

use clap::Parser;

use commands::Cli;

fn main() -> ExitCode {
    Cli::parse().run().unwrap_or_else(|error| {
        errln!("vipool: {}", remedy::describe(&error));
        ExitCode::from(exit_status::FAILURE)
    })
}
