//! Installs the prerequisites of tests: Debian packages, Rust targets and components, cargo
//! commands.

use std::collections::BTreeSet;
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

fn apt_get(args: &[&str]) -> bool {
    let mut command = Command::new("apt-get");
    command.args(args).env("DEBIAN_FRONTEND", "noninteractive");
    // In run level 1 (single-user mode), the installation scripts of packages do not start servers.
    command.env("RUNLEVEL", "1");
    run_logged(command)
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
