//! What is made from the command line's own description: shell completions and manual pages.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::CommandFactory;
use clap_complete::Shell;

use crate::Cli;

/// Print the completions of a shell.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vipool completions bash > ~/.local/share/bash-completion/completions/vipool
  vipool completions zsh > \"${fpath[1]}/_vipool\"")]
pub struct Completions {
    /// The shell.
    shell: Shell,
}

impl Completions {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        clap_complete::generate(self.shell, &mut Cli::command(), "vipool", &mut io::stdout());
        Ok(ExitCode::SUCCESS)
    }
}

/// Write the manual pages, one per subcommand.
#[derive(clap::Args)]
#[command(after_help = "Example:
  vipool man target/man && man target/man/vipool-run.1")]
pub struct Man {
    /// The directory to write vipool.1, vipool-run.1, ... to; it is made if it is not there.
    directory: PathBuf,
}

impl Man {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let cannot = || format!("cannot write manual pages to {}", self.directory.display());
        std::fs::create_dir_all(&self.directory).with_context(cannot)?;
        clap_mangen::generate_to(Cli::command(), &self.directory).with_context(cannot)?;
        Ok(ExitCode::SUCCESS)
    }
}
