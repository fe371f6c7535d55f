//! Installs the prerequisites of tests: Debian packages, Debian source packages, Rust targets and
//! components, cargo commands.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Stdio};

use vipool_testing::needs;

use crate::Error;

/// Installs the named needs that are missing, if apt-get, rustup or cargo can install them. Prints
/// each failed installation. Afterwards, `cargo xtask test` skips the steps that still lack a need.
pub fn install_missing(names: &BTreeSet<&str>) -> Result<(), Error> {
    let missing_needs: Vec<_> =
        needs::ALL.iter().filter(|need| names.contains(need.name) && !need.is_present()).collect();
    let packages: BTreeSet<&str> =
        missing_needs.iter().filter_map(|need| need.debian_package()).collect();
    if !packages.is_empty() {
        apt_get(&["update", "--quiet"]);
        let mut install_args = vec!["install", "--quiet", "--yes", "--no-install-recommends"];
        install_args.extend(&packages);
        if !apt_get(&install_args) {
            // apt-get installs nothing if one package is unknown, so try each package alone.
            for package in packages {
                apt_get(&["install", "--quiet", "--yes", "--no-install-recommends", package]);
            }
        }
    }
    let source_packages: Vec<_> =
        missing_needs.iter().filter_map(|need| need.source_package()).collect();
    if !source_packages.is_empty()
        && let Err(error) = download_sources(&source_packages)
    {
        eprintln!("cannot download the source packages {source_packages:?}: {error}");
    }
    for need in missing_needs.iter().filter(|need| need.debian_package().is_none()) {
        let command_line = need.install_command();
        let mut words = command_line.split(' ');
        let program = words.next().expect("split returns at least one word");
        if program == "rustup" || program == "cargo" {
            let mut command = Command::new(program);
            command.args(words);
            // Run cargo outside this repository, so that it does not use the target directory and
            // the toolchain file of the repository.
            command.current_dir("/").env_remove("CARGO_TARGET_DIR");
            run_logged(command);
        }
    }
    Ok(())
}

/// Downloads Debian source packages. Uses a separate list of sources, because the list of the system
/// usually has no `deb-src` entry.
///
/// # Errors
/// Returns an error if the list cannot be made. Prints a failure of `apt-get`.
fn download_sources(packages: &[&str]) -> Result<(), Error> {
    let directory = needs::source_directory();
    let list_directory = directory.join("apt");
    fs::create_dir_all(list_directory.join("lists/partial"))?;
    let source_list = list_directory.join("sources.list");
    fs::write(&source_list, source_entries()?)?;
    let list_directory = list_directory.display();
    let options = [
        format!("--option=Dir::Etc::SourceList={}", source_list.display()),
        "--option=Dir::Etc::SourceParts=-".to_owned(),
        format!("--option=Dir::State::Lists={list_directory}/lists"),
        format!("--option=Dir::Cache={list_directory}"),
    ];
    for arguments in [&["update"][..], &[&["source", "--download-only"], packages].concat()] {
        let mut command = apt_get_command(arguments);
        command.arg("--quiet").args(&options).current_dir(&directory);
        run_logged(command);
    }
    Ok(())
}

/// Returns a `deb-src` entry for each archive from which the system installs packages.
fn source_entries() -> Result<String, Error> {
    let mut command = Command::new("apt-get");
    command.args(["indextargets", "--format", "deb-src $(SITE) $(RELEASE) $(COMPONENT)"]);
    let output = command.arg("Created-By: Packages").output()?;
    let text = String::from_utf8(output.stdout)?;
    let entries: BTreeSet<_> = text.lines().collect();
    if entries.is_empty() {
        return Err("apt-get has no list of packages (run 'apt-get update')".into());
    }
    Ok(entries.into_iter().map(|entry| format!("{entry}\n")).collect())
}

fn apt_get(args: &[&str]) -> bool {
    run_logged(apt_get_command(args))
}

fn apt_get_command(args: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    command.args(args).env("DEBIAN_FRONTEND", "noninteractive");
    // In run level 1 (single-user mode), the installation scripts of packages do not start servers.
    command.env("RUNLEVEL", "1");
    command
}

/// Runs a command with its output on standard error. Returns whether the command succeeded. If it
/// failed, also prints the failure.
fn run_logged(mut command: Command) -> bool {
    eprintln!("$ {command:?}");
    let result = command.stdin(Stdio::null()).stdout(std::io::stderr()).status();
    let has_succeeded = matches!(&result, Ok(status) if status.success());
    if !has_succeeded {
        eprintln!("{command:?}: {result:?}");
    }
    has_succeeded
}
