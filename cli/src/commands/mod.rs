//! Defines the subcommands, and the command line that clap parses.

mod addresses;
mod admin;
#[cfg(unix)]
mod audit;
mod check;
#[cfg(unix)]
mod demo;
#[cfg(target_os = "linux")]
mod discover;
#[cfg(target_os = "linux")]
mod down;
#[cfg(target_os = "linux")]
mod explain;
mod farm_args;
mod gc;
mod generate;
#[cfg(unix)]
mod history;
mod metrics;
#[cfg(target_os = "linux")]
mod plan_args;
#[cfg(target_os = "linux")]
mod repair;
#[cfg(unix)]
mod reservations;
#[cfg_attr(windows, path = "windows/run.rs")]
mod run;
mod session;
mod status;
#[cfg(unix)]
mod time_argument;
#[cfg(windows)]
#[path = "windows/unsupported.rs"]
mod unsupported;
#[cfg_attr(windows, path = "windows/up.rs")]
#[cfg(any(target_os = "linux", windows))]
mod up;
mod watch;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

/// The last line of `vipool --help`.
const FIRST_STEP: &str =
    if cfg!(windows) { "Begin with: vipool check FARM.TOML" } else { "Begin with: vipool demo" };

/// An IP address of its own for every session on a multi-user server.
///
/// Two users of one server run the same program on the same fixed port, and each user reaches their
/// own copy. vipool leases addresses to every session: a virtual IP of the network, a loopback
/// address of 127.0.0.0/8, or both. Programs on the process list use these addresses instead of the
/// host's addresses.
///
/// The farm file (farm.toml) contains the addresses and the process list. 'vipool up' creates the
/// map from the farm file. The map is the file that records which session holds which address.
/// 'vipool run', or the PAM module at a logon, opens a session in the map.
#[derive(Parser)]
#[command(name = "vipool", version, max_term_width = 100, after_help = FIRST_STEP)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Check(check::Check),
    #[cfg(target_os = "linux")]
    #[command(visible_alias = "reload")]
    Up(up::Up),
    #[cfg(target_os = "linux")]
    Down(down::Down),
    #[cfg(target_os = "linux")]
    Repair(repair::Repair),
    #[cfg(target_os = "linux")]
    Discover(discover::Discover),
    #[cfg(target_os = "linux")]
    Explain(explain::Explain),
    Run(run::Run),
    Session(session::Session),
    Status(status::Status),
    Watch(watch::Watch),
    Addresses(addresses::Addresses),
    Drain(admin::Drain),
    Undrain(admin::Undrain),
    Reserve(admin::Reserve),
    Unreserve(admin::Unreserve),
    #[cfg(unix)]
    Reservations(reservations::Reservations),
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
    Unsupported(unsupported::Unsupported),
}

impl Cli {
    /// Runs the chosen subcommand and returns the exit status.
    ///
    /// # Errors
    /// The subcommand failed; `main` prints the reason.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Check(args) => args.run(),
            #[cfg(any(target_os = "linux", windows))]
            Command::Up(args) => args.run(),
            #[cfg(target_os = "linux")]
            Command::Down(args) => args.run(),
            #[cfg(target_os = "linux")]
            Command::Repair(args) => args.run(),
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
            #[cfg(unix)]
            Command::Reservations(args) => args.run(),
            Command::Gc(args) => args.run(),
            #[cfg(unix)]
            Command::History(args) => args.run(),
            #[cfg(unix)]
            Command::Who(args) => args.run(),
            Command::Metrics(args) => args.run(),
            #[cfg(unix)]
            Command::Demo(args) => args.run(),
            Command::Completions(args) => args.run(&mut Self::command()),
            Command::Man(args) => args.run(Self::command()),
            #[cfg(unix)]
            Command::AsUser(args) => args.run(),
            #[cfg(windows)]
            Command::Unsupported(command) => command.run(),
        }
    }
}
