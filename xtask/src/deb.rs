//! Builds the Debian package. This module builds each part with its own cargo profile, and
//! cargo-deb packs the files that `cli/Cargo.toml` lists.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::run::{cargo, root, target_dir};
use crate::symbols::{self, PAM, PRELOAD};
use crate::{Error, run_checked};

/// Builds the package and prints its path.
pub fn run(debug: bool) -> Result<(), Error> {
    println!("{}", build(debug)?.display());
    Ok(())
}

fn build(debug: bool) -> Result<PathBuf, Error> {
    // cargo-deb finds the files only in `target`, because its asset list has fixed paths.
    if root().join("target") != target_dir() {
        return Err("the package can be built in ./target only (unset CARGO_TARGET_DIR)".into());
    }
    symbols::build(&PRELOAD)?;
    symbols::build(&PAM)?;
    let (profile, profile_dir) = if debug { ("dev", "debug") } else { ("release", "release") };
    run_checked(cargo(&format!("build --quiet --package vipool-cli --profile {profile}")))?;
    let staging_directory = target_dir().join("deb");
    let _ = fs::remove_dir_all(&staging_directory);
    fs::create_dir_all(staging_directory.join("man"))?;
    let vipool = target_dir().join(profile_dir).join("vipool");
    let mut man = Command::new(&vipool);
    man.arg("man").arg(staging_directory.join("man"));
    run_checked(man)?;
    for (shell, file) in [("bash", "vipool"), ("zsh", "_vipool"), ("fish", "vipool.fish")] {
        let output = Command::new(&vipool).args(["completions", shell]).output()?;
        fs::write(staging_directory.join(file), output.stdout)?;
    }
    let package = staging_directory.join("vipool.deb");
    let mut deb = cargo("deb --quiet --no-build --package vipool-cli");
    deb.args(["--profile", profile, "--output"]).arg(&package);
    run_checked(deb)?;
    Ok(package)
}
