//! `vipool completions` and `vipool man`: generate files from the definition of the command line.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap_complete::Shell;

/// Print the completion script for a shell
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

/// The subcommands for system administration. Their pages are in section 8 (man-pages(7)).
const ADMINISTRATION_COMMANDS: [&str; 8] =
    ["up", "down", "repair", "drain", "undrain", "reserve", "unreserve", "gc"];
/// The manual page of farm.toml. It contains [`EXAMPLE_MARK`], which [`EXAMPLE`] replaces.
const FARM_PAGE: &str = include_str!("../../../packaging/man/farm.toml.5");
const EXAMPLE_MARK: &str = "@EXAMPLE@";
const EXAMPLE: &str = include_str!("../../../examples/farm.toml");
const PAM_PAGE: &str = include_str!("../../../packaging/man/pam_vipool.8");

/// Write the manual pages of vipool, of each subcommand, of farm.toml and of the PAM module
#[derive(clap::Args)]
#[command(after_help = "Example:
  vipool man target/man && man target/man/vipool-run.1")]
pub struct Man {
    /// The directory for the pages (vipool.1, farm.toml.5, vipool-up.8, ...); created if it does
    /// not exist
    directory: PathBuf,
}

impl Man {
    pub fn run(self, command: clap::Command) -> anyhow::Result<ExitCode> {
        let context = || format!("cannot write manual pages to {}", self.directory.display());
        std::fs::create_dir_all(&self.directory).with_context(context)?;
        let mut command = command.disable_help_subcommand(true);
        command.build();
        write_pages(&command, "1", &self.directory).with_context(context)?;
        let farm_page = FARM_PAGE.replace(EXAMPLE_MARK, escape_roff(EXAMPLE).trim_end());
        std::fs::write(self.directory.join("farm.toml.5"), farm_page).with_context(context)?;
        std::fs::write(self.directory.join("pam_vipool.8"), PAM_PAGE).with_context(context)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Writes the pages of a command and of its subcommands.
fn write_pages(command: &clap::Command, section: &str, directory: &Path) -> io::Result<()> {
    for subcommand in command.get_subcommands().filter(|subcommand| !subcommand.is_hide_set()) {
        let is_administration_command = ADMINISTRATION_COMMANDS.contains(&subcommand.get_name());
        write_pages(subcommand, if is_administration_command { "8" } else { section }, directory)?;
    }
    let page = clap_mangen::Man::new(command.clone()).section(section);
    let mut page_bytes = Vec::new();
    page.render(&mut page_bytes)?;
    let mut text = String::from_utf8_lossy(&page_bytes).into_owned();
    // clap_mangen assumes that all pages are in the section of this page. Correct the references to
    // pages in section 8.
    for name in ADMINISTRATION_COMMANDS {
        let reference = |section: &str| format!("vipool\\-{name}({section})");
        text = text.replace(&reference(section), &reference("8"));
    }
    std::fs::write(directory.join(page.get_filename()), text)
}

/// Escapes text, so that groff(1) prints each character literally. Only the line-drawing character
/// `─` becomes a hyphen.
fn escape_roff(text: &str) -> String {
    let escape_line = |line: &str| {
        let line = line.replace('\\', "\\e").replace(['-', '─'], "\\-");
        let prefix = if line.starts_with(['.', '\'']) { "\\&" } else { "" };
        format!("{prefix}{line}\n")
    };
    text.lines().map(escape_line).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::CommandFactory;

    use super::*;
    use crate::commands::Cli;

    #[test]
    fn every_page_that_another_page_names_exists() {
        let directory = tempfile::tempdir().unwrap();
        Man { directory: directory.path().into() }.run(Cli::command()).unwrap();
        let pages: BTreeSet<String> = std::fs::read_dir(directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        for page in ["vipool.1", "vipool-run.1", "farm.toml.5", "vipool-up.8", "pam_vipool.8"] {
            assert!(pages.contains(page), "{page} is missing in {pages:?}");
        }
        for page in &pages {
            let text = std::fs::read_to_string(directory.path().join(page)).unwrap();
            assert!(!text.contains(EXAMPLE_MARK), "{page}");
            // A reference is `vipool\-up(8)`, or `.BR vipool\-up (8),` in a page written by hand.
            let text = text.replace("\\-", "-").replace(" (", "(");
            let references = text.split_whitespace().filter_map(|word| {
                let (name, section) = word.split_once('(')?;
                let section = section.strip_suffix(")").or(section.strip_suffix("),"))?;
                name.starts_with("vipool").then(|| format!("{name}.{section}"))
            });
            for reference in references {
                assert!(pages.contains(&reference), "{page} names {reference}");
            }
        }
    }

    #[test]
    fn roff_requests_and_escapes_in_the_example_are_printed() {
        assert_eq!(escape_roff("CORP\\ada\n.x\n'y"), "CORP\\eada\n\\&.x\n\\&'y\n");
    }
}
