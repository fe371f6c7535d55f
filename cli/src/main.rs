//! The command line: one module per subcommand.
//!
//! A subcommand is a struct of arguments (its documentation is its `--help`) with a method `run`,
//! which says with what status the process ends. An error is printed once, here, with its causes.

#![forbid(unsafe_code)]

mod addresses;
#[cfg(target_os = "linux")]
mod assign;
mod change;
mod check;
#[cfg(unix)]
mod demo;
#[cfg(target_os = "linux")]
mod discover;
#[cfg(windows)]
#[path = "windows/elsewhere.rs"]
mod elsewhere;
#[cfg(unix)]
mod events;
#[cfg(target_os = "linux")]
mod explain;
mod gc;
mod generate;
#[cfg(unix)]
mod history;
mod metrics;
mod place;
#[cfg_attr(windows, path = "windows/private.rs")]
mod private;
mod report;
#[cfg_attr(windows, path = "windows/run.rs")]
mod run;
mod session;
#[cfg(target_os = "linux")]
mod sockets;
mod status;
mod table;
#[cfg(windows)]
#[path = "windows/up.rs"]
mod up;
mod watch;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Status of the process when vipool itself failed (those of `run` are in its `--help`).
const FAILED: u8 = 1;
/// Status where no address was left for a session: EX_TEMPFAIL of sysexits(3).
const EXHAUSTED: u8 = 75;

/// What the help ends with.
const BEGIN: &str =
    if cfg!(windows) { "Begin with: vipool check FARM.TOML" } else { "Begin with: vipool demo" };

/// An IP address of its own for every session on a multi-user server.
///
/// Two users of one server run the same program on the same fixed port, and each talks to their
/// own: vipool leases every session addresses (a virtual IP of the network, a loopback address of
/// 127.0.0.0/8, or both), and programs that are on the process list use these in place of the
/// host's.
#[derive(Parser)]
#[command(name = "vipool", version, max_term_width = 100, after_help = BEGIN)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Check(check::Check),
    #[cfg(target_os = "linux")]
    #[command(visible_alias = "reload")]
    Up(assign::Up),
    #[cfg(target_os = "linux")]
    Down(assign::Down),
    #[cfg(target_os = "linux")]
    Discover(discover::Discover),
    #[cfg(target_os = "linux")]
    Explain(explain::Explain),
    Run(run::Run),
    Session(session::Session),
    Status(status::Status),
    Watch(watch::Watch),
    Addresses(addresses::Addresses),
    Drain(change::Drain),
    Undrain(change::Undrain),
    Reserve(change::Reserve),
    Unreserve(change::Unreserve),
    Gc(gc::Gc),
    #[cfg(unix)]
    History(history::History),
    #[cfg(unix)]
    Who(history::Who),
    Metrics(metrics::Metrics),
    #[cfg(windows)]
    Up(up::Up),
    #[cfg(unix)]
    Demo(demo::Demo),
    Completions(generate::Completions),
    Man(generate::Man),
    #[cfg(unix)]
    AsUser(run::AsUser),
    #[cfg(windows)]
    #[command(flatten)]
    Elsewhere(elsewhere::Elsewhere),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Check(args) => args.run(),
        #[cfg(target_os = "linux")]
        Command::Up(args) => args.run(),
        #[cfg(target_os = "linux")]
        Command::Down(args) => args.run(),
        #[cfg(target_os = "linux")]
        Command::Discover(args) => args.run(),
        #[cfg(target_os = "linux")]
        Command::Explain(args) => args.run(),
        Command::Run(args) => args.run(),
        Command::Session(args) => args.run(),
        Command::Status(args) => args.run(),
        Command::Watch(args) => args.run(),
        Command::Addresses(args) => args.run(),
        Command::Drain(args) => args.run(),
        Command::Undrain(args) => args.run(),
        Command::Reserve(args) => args.run(),
        Command::Unreserve(args) => args.run(),
        Command::Gc(args) => args.run(),
        #[cfg(unix)]
        Command::History(args) => args.run(),
        #[cfg(unix)]
        Command::Who(args) => args.run(),
        Command::Metrics(args) => args.run(),
        #[cfg(windows)]
        Command::Up(args) => args.run(),
        #[cfg(unix)]
        Command::Demo(args) => args.run(),
        #[cfg(unix)]
        Command::AsUser(args) => args.run(),
        #[cfg(windows)]
        Command::Elsewhere(command) => command.run(),
        Command::Completions(args) => args.run(),
        Command::Man(args) => args.run(),
    };
    result.unwrap_or_else(|error| {
        eprintln!("vipool: {error:#}");
        ExitCode::from(FAILED)
    })
}
