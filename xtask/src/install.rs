//! Installs what tests need: Debian packages, Rust targets and components, cargo commands.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};

use vipool_testing::needs;

use crate::Error;

/// Installs those of the named needs that are missing. What can't be installed is told and left
/// to the steps, which then are skipped.
pub fn missing(names: &BTreeSet<&str>) -> Result<(), Error> {
    let missing: Vec<_> =
        needs::ALL.iter().filter(|need| names.contains(need.name) && !need.is_present()).collect();
    let packages: BTreeSet<&str> =
        missing.iter().filter_map(|need| need.debian_package()).collect();
    if !packages.is_empty() {
        apt(&["update", "--quiet"]);
        let mut install = vec!["install", "--quiet", "--yes", "--no-install-recommends"];
        install.extend(&packages);
        if !apt(&install) {
            // One that this release does not have must not take the others with it.
            for package in packages {
                apt(&["install", "--quiet", "--yes", "--no-install-recommends", package]);
            }
        }
    }
    for need in missing.iter().filter(|need| need.debian_package().is_none()) {
        let line = need.install_command();
        let mut words = line.split(' ');
        let program = words.next().expect("a line has words");
        if program == "rustup" || program == "cargo" {
            let mut command = Command::new(program);
            command.args(words);
            // Else cargo would build for this repository's target directory and toolchain file.
            command.current_dir("/").env_remove("CARGO_TARGET_DIR");
            told(command);
        }
    }
    Ok(())
}

fn apt(args: &[&str]) -> bool {
    let mut command = Command::new("apt-get");
    command.args(args).env("DEBIAN_FRONTEND", "noninteractive");
    // Keeps init scripts from starting the servers that come with the packages.
    command.env("RUNLEVEL", "1");
    told(command)
}

/// Runs a command with its output on standard error; tells if it fails.
fn told(mut command: Command) -> bool {
    eprintln!("$ {command:?}");
    let done = command.stdin(Stdio::null()).stdout(std::io::stderr()).status();
    let success = matches!(&done, Ok(status) if status.success());
    if !success {
        eprintln!("{command:?}: {done:?}");
    }
    success
}
