//! The Debian package: builds its parts, each in its profile, and has cargo-deb put them together
//! by the list in `cli/Cargo.toml`.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::run::{cargo, root, target_dir};
use crate::symbols::{self, PAM, PRELOAD};
use crate::{Error, succeed};

/// Makes the package and says where it is.
pub fn run() -> Result<(), Error> {
    println!("{}", build()?.display());
    Ok(())
}

fn build() -> Result<PathBuf, Error> {
    if root().join("target") != target_dir() {
        return Err("the package is made in ./target only: unset CARGO_TARGET_DIR".into());
    }
    symbols::build(&PRELOAD)?;
    symbols::build(&PAM)?;
    succeed(cargo("build --quiet --package vipool-cli --release"))?;
    let staged = target_dir().join("deb");
    let _ = fs::remove_dir_all(&staged);
    fs::create_dir_all(staged.join("man"))?;
    let vipool = target_dir().join("release/vipool");
    let mut man = Command::new(&vipool);
    man.arg("man").arg(staged.join("man"));
    succeed(man)?;
    for (shell, file) in [("bash", "vipool"), ("zsh", "_vipool"), ("fish", "vipool.fish")] {
        let output = Command::new(&vipool).args(["completions", shell]).output()?;
        fs::write(staged.join(file), output.stdout)?;
    }
    let package = staged.join("vipool.deb");
    let mut deb = cargo("deb --quiet --no-build --package vipool-cli --output");
    deb.arg(&package);
    succeed(deb)?;
    Ok(package)
}
