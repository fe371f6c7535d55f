//! Subcommands that do not exist on Windows. Each of them returns an error that describes a
//! replacement.

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::bail;

/// The subcommands. They are hidden in the help.
#[derive(clap::Subcommand)]
pub enum Unsupported {
    #[command(hide = true)]
    Down(Arguments),
    #[command(hide = true)]
    Repair(Arguments),
    #[command(hide = true)]
    Discover(Arguments),
    #[command(hide = true)]
    Explain(Arguments),
    #[command(hide = true)]
    History(Arguments),
    #[command(hide = true)]
    Who(Arguments),
    #[command(hide = true)]
    Demo(Arguments),
}

/// The arguments. The subcommand ignores them.
#[derive(clap::Args)]
pub struct Arguments {
    #[arg(hide = true, trailing_var_arg = true, allow_hyphen_values = true)]
    _arguments: Vec<OsString>,
}

impl Unsupported {
    /// Returns an error with the replacement on Windows.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let (command, replacement) = match self {
            Self::Down(_) => (
                "down",
                "close the sessions with 'vipool session close' and remove the addresses from the \
                 interfaces with Remove-NetIPAddress",
            ),
            Self::Repair(_) => {
                ("repair", "rename the files 'map' and 'sessions', then run 'vipool up'")
            }
            Self::Discover(_) => (
                "discover",
                "find the listening programs with 'netstat -abn' and list them in farm.toml",
            ),
            Self::Explain(_) => {
                ("explain", "start the program with 'vipool-launch --explain PROGRAM'")
            }
            Self::History(_) | Self::Who(_) => (
                if matches!(self, Self::Who(_)) { "who" } else { "history" },
                "Windows keeps no history; 'vipool status' shows the current leases",
            ),
            Self::Demo(_) => ("demo", "docs/windows.md lists the steps for two sessions"),
        };
        bail!("'vipool {command}' is not available on Windows ({replacement})")
    }
}
