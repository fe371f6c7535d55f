//! The Debian package: builds its parts, each in its profile, and has cargo-deb put them together
//! by the list in `cli/Cargo.toml`.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::run::{cargo, root, target_dir};
use crate::symbols::{self, PAM, PRELOAD};
use crate::{Error, succeed};

/// Makes the package and says where it is.
pub fn run(debug: bool) -> Result<(), Error> {
    println!("{}", build(debug)?.display());
    Ok(())
}

fn build(debug: bool) -> Result<PathBuf, Error> {
    if root().join("target") != target_dir() {
        return Err("the package is made in ./target only: unset CARGO_TARGET_DIR".into());
    }
    symbols::build(&PRELOAD)?;
    symbols::build(&PAM)?;
    let (profile, built) = if debug { ("dev", "debug") } else { ("release", "release") };
    succeed(cargo(&format!("build --quiet --package vipool-cli --profile {profile}")))?;
    let staged = target_dir().join("deb");
    let _ = fs::remove_dir_all(&staged);
    fs::create_dir_all(staged.join("man"))?;
    let vipool = target_dir().join(built).join("vipool");
    let mut man = Command::new(&vipool);
    man.arg("man").arg(staged.join("man"));
    succeed(man)?;
    for (shell, file) in [("bash", "vipool"), ("zsh", "_vipool"), ("fish", "vipool.fish")] {
        let output = Command::new(&vipool).args(["completions", shell]).output()?;
        fs::write(staged.join(file), output.stdout)?;
    }
    let package = staged.join("vipool.deb");
    let mut deb = cargo("deb --quiet --no-build --package vipool-cli");
    deb.args(["--profile", profile, "--output"]).arg(&package);
    succeed(deb)?;
    Ok(package)
}
