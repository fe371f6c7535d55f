//! Writes or checks the lists of the symbols that the shared objects export. The lists are checked
//! in, so that every added symbol is visible in a diff. The command also prints the sizes of the
//! stripped objects.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::run::{cargo, root, target_dir};
use crate::{Error, run_checked};

/// A shared object of this workspace.
pub struct SharedObject {
    file_name: &'static str,
    /// Arguments of `cargo rustc` that build the object.
    build_args: &'static [&'static str],
    profile: &'static str,
    /// Path of the list of symbols, relative to the root of the repository.
    symbol_list: &'static str,
}

/// The hook layer for Linux.
pub const PRELOAD: SharedObject = SharedObject {
    file_name: "libvipool_preload.so",
    build_args: &["--package", "vipool-preload"],
    profile: "hook",
    symbol_list: "hooks/linux/symbols.txt",
};

/// The PAM module.
pub const PAM: SharedObject = SharedObject {
    file_name: "libpam_vipool.so",
    build_args: &["--package", "vipool-pam"],
    profile: "hook",
    symbol_list: "pam/symbols.txt",
};

/// The library with its C ABI.
const LIBRARY: SharedObject = SharedObject {
    file_name: "libvipool.so",
    build_args: &["--package", "vipool", "--features", "capi", "--crate-type", "cdylib"],
    profile: "release",
    symbol_list: "include/symbols.txt",
};

const OBJECTS: &[SharedObject] = &[PRELOAD, PAM, LIBRARY];

/// Builds an object and returns its path. A separate cargo call builds the object, so the features
/// that other packages enable do not apply to it.
pub fn build(object: &SharedObject) -> Result<PathBuf, Error> {
    let mut command = cargo(&format!("rustc --quiet --lib --profile {}", object.profile));
    command.args(object.build_args);
    run_checked(command)?;
    Ok(target_dir().join(object.profile).join(object.file_name))
}

/// Writes the lists. With `check`, only compares them with the existing files.
pub fn run(check: bool) -> Result<(), Error> {
    let mut differences = Vec::new();
    for object in OBJECTS {
        let object_path = build(object)?;
        let symbols = exported_symbols(&object_path)?;
        let size = stripped_size(&object_path)?;
        println!("{}: {} symbols, {size} bytes stripped", object.file_name, symbols.len());
        let list_path = root().join(object.symbol_list);
        if !check {
            fs::write(
                list_path,
                symbols.iter().map(|name| format!("{name}\n")).collect::<String>(),
            )?;
            continue;
        }
        let text = fs::read_to_string(&list_path)
            .map_err(|error| format!("{}: {error}", list_path.display()))?;
        let listed_symbols: BTreeSet<String> = text.lines().map(str::to_owned).collect();
        let added_symbols = symbols.difference(&listed_symbols).map(|name| format!("+{name}"));
        let removed_symbols = listed_symbols.difference(&symbols).map(|name| format!("-{name}"));
        let changes: Vec<String> = added_symbols.chain(removed_symbols).collect();
        if !changes.is_empty() {
            differences.push(format!(
                "{} against {}: {}",
                object.file_name,
                object.symbol_list,
                changes.join(" ")
            ));
        }
    }
    if differences.is_empty() {
        return Ok(());
    }
    Err(format!("{}\nIf the change is intended, run `cargo xtask symbols`", differences.join("\n"))
        .into())
}

/// Returns the size of the object after strip(1), as in a release.
fn stripped_size(object: &Path) -> Result<u64, Error> {
    let stripped_path = object.with_extension("stripped");
    let mut strip = Command::new("strip");
    strip.arg(object).arg("-o").arg(&stripped_path);
    run_checked(strip)?;
    Ok(fs::metadata(&stripped_path)?.len())
}

/// Returns the dynamic symbols that the object defines.
fn exported_symbols(object: &PathBuf) -> Result<BTreeSet<String>, Error> {
    let output = Command::new("nm")
        .args(["--dynamic", "--defined-only", "--format=posix"])
        .arg(object)
        .output()
        .map_err(|error| format!("nm (apt-get install binutils): {error}"))?;
    if !output.status.success() {
        return Err(format!(
            "nm {}: {}",
            object.display(),
            String::from_utf8_lossy(&output.stderr)
        )
        .into());
    }
    let text = String::from_utf8(output.stdout)?;
    Ok(text.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect())
}
