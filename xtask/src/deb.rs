//! Builds the Debian package. This module builds each part with a separate cargo call, so that the
//! features of one part do not apply to another part. cargo-deb packs the files that
//! `cli/Cargo.toml` lists.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::run::{cargo, root, target_dir};
use crate::symbols::{self, PAM, PRELOAD};
use crate::{Error, run_checked};

/// Builds the package and prints its path.
pub fn run(is_debug: bool) -> Result<(), Error> {
    println!("{}", build(is_debug)?.display());
    Ok(())
}

fn build(is_debug: bool) -> Result<PathBuf, Error> {
    // cargo-deb finds the files only in `target`, because its asset list has fixed paths.
    if root().join("target") != target_dir() {
        return Err("the package can be built in ./target only (unset CARGO_TARGET_DIR)".into());
    }
    symbols::build(&PRELOAD)?;
    symbols::build(&PAM)?;
    let (profile, profile_dir) = if is_debug { ("dev", "debug") } else { ("release", "release") };
    run_checked(cargo(&format!("build --quiet --package vipool-cli --profile {profile}")))?;
    let staging_directory = target_dir().join("deb");
    let _ = fs::remove_dir_all(&staging_directory);
    fs::create_dir_all(staging_directory.join("man"))?;
    let vipool = target_dir().join(profile_dir).join("vipool");
    let mut man_command = Command::new(&vipool);
    man_command.arg("man").arg(staging_directory.join("man"));
    run_checked(man_command)?;
    for (shell, file) in [("bash", "vipool"), ("zsh", "_vipool"), ("fish", "vipool.fish")] {
        let output = Command::new(&vipool).args(["completions", shell]).output()?;
        fs::write(staging_directory.join(file), output.stdout)?;
    }
    let maintainer = maintainer()?;
    fs::write(staging_directory.join("changelog"), changelog(&maintainer)?)?;
    let package = staging_directory.join("vipool.deb");
    let mut deb_command = cargo("deb --quiet --no-build --strip --package vipool-cli");
    deb_command.args(["--profile", profile, "--maintainer", &maintainer, "--output"]).arg(&package);
    run_checked(deb_command)?;
    Ok(package)
}

/// Returns the maintainer of the package. As in the tools of Debian, `DEBFULLNAME` and `DEBEMAIL`
/// are the name and the address. If a variable is not set, git's `user.name` or `user.email`
/// replaces it.
fn maintainer() -> Result<String, Error> {
    let read_setting = |variable: &str, git_key: &str| -> Result<String, Error> {
        match std::env::var(variable) {
            Ok(value) => Ok(value),
            Err(_) => output_of(Command::new("git").args(["config", git_key]))
                .map_err(|error| format!("{error} (set {variable})").into()),
        }
    };
    let name = read_setting("DEBFULLNAME", "user.name")?;
    let address = read_setting("DEBEMAIL", "user.email")?;
    Ok(format!("{name} <{address}>"))
}

/// Returns the changelog in the format of deb-changelog(5). It has one entry, with the time of the
/// commit from which the package is built.
fn changelog(maintainer: &str) -> Result<String, Error> {
    let time = output_of(Command::new("git").args(["log", "-1", "--format=%cD"]))?;
    let version = env!("CARGO_PKG_VERSION");
    Ok(format!(
        "vipool ({version}-1) unstable; urgency=medium\n\n  \
         * See /usr/share/doc/vipool/CHANGELOG.md.\n\n -- {maintainer}  {time}\n"
    ))
}

fn output_of(command: &mut Command) -> Result<String, Error> {
    let output = command.current_dir(root()).output()?;
    if !output.status.success() {
        return Err(format!("{command:?} failed").into());
    }
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
