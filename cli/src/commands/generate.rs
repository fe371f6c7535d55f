//! `vipool completions` and `vipool man`: generate files from the definition of the command line.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap_complete::Shell;

/// Print the completions of a shell
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vipool completions bash > ~/.local/share/bash-completion/completions/vipool
  vipool completions zsh > \"${fpath[1]}/_vipool\"")]
pub struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    pub fn run(self, command: &mut clap::Command) -> anyhow::Result<ExitCode> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, command, "vipool", &mut script);
        out!("{}", String::from_utf8_lossy(&script))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Write the manual pages, one per subcommand
#[derive(clap::Args)]
#[command(after_help = "Example:
  vipool man target/man && man target/man/vipool-run.1")]
pub struct Man {
    /// The directory for the pages (vipool.1, vipool-run.1, ...); created if it does not exist
    directory: PathBuf,
}

impl Man {
    pub fn run(self, command: clap::Command) -> anyhow::Result<ExitCode> {
        let context = || format!("cannot write manual pages to {}", self.directory.display());
        std::fs::create_dir_all(&self.directory).with_context(context)?;
        clap_mangen::generate_to(command, &self.directory).with_context(context)?;
        Ok(ExitCode::SUCCESS)
    }
}
