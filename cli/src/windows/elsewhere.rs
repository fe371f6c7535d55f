//! Commands that there are on Linux only: each says what to do in its place.

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::bail;

/// What is not there on Windows. Hidden in the help.
#[derive(clap::Subcommand)]
pub enum Elsewhere {
    #[command(hide = true)]
    Down(Arguments),
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

/// Whatever the command was given.
#[derive(clap::Args)]
pub struct Arguments {
    #[arg(hide = true, trailing_var_arg = true, allow_hyphen_values = true)]
    _all: Vec<OsString>,
}

impl Elsewhere {
    /// Fails, and says what to do on Windows.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let (command, instead) = match self {
            Self::Down(_) => (
                "down",
                "close the sessions ('vipool session close'), and take the addresses off the \
                 interfaces by Remove-NetIPAddress",
            ),
            Self::Discover(_) => (
                "discover",
                "see which programs listen ('netstat -abn'), and list them in farm.toml",
            ),
            Self::Explain(_) => {
                ("explain", "start the program by 'vipool-launch --explain PROGRAM'")
            }
            Self::History(_) | Self::Who(_) => (
                if matches!(self, Self::Who(_)) { "who" } else { "history" },
                "no history is kept; 'vipool status' says who has which address now",
            ),
            Self::Demo(_) => ("demo", "docs/windows.md shows two sessions, step by step"),
        };
        bail!("'vipool {command}' is not there on Windows: {instead}")
    }
}
