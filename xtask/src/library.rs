//! Builds the library for C programs in `target/library`, in the form that distributions install.
//!
//! cargo builds a static library that also exports the symbols of the Rust standard library, and a
//! shared library without symbol versions. This module instead makes one object file in which only
//! the functions of the C ABI are global, and makes a static and a shared library from that object.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::run::{cargo, root, target_dir};
use crate::{Error, run_checked};

/// The system libraries that the library needs.
const SYSTEM_LIBRARIES: [&str; 5] = ["-lgcc_s", "-lpthread", "-ldl", "-lm", "-lc"];

/// Builds the libraries and prints their paths.
pub fn run() -> Result<(), Error> {
    let mut build = cargo("rustc --quiet --package vipool --lib --features capi --release");
    build.args(["--crate-type", "staticlib"]);
    run_checked(build)?;
    let folder = target_dir().join("library");
    // Remove the old files, because ar adds to an existing archive, and symlink(2) does not replace
    // an existing link.
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    let object = link_object(&target_dir().join("release/libvipool.a"), &folder)?;
    for library in [archive(&object, &folder)?, link_shared(&object, &folder)?] {
        println!("{}", library.display());
    }
    Ok(())
}

/// Links the functions of the ABI, with everything that they need from a static library, into one
/// object. Only the functions of the ABI stay global.
fn link_object(static_library: &Path, folder: &Path) -> Result<PathBuf, Error> {
    let symbols = fs::read_to_string(root().join("include/symbols.txt"))?;
    let object = folder.join("vipool.o");
    let mut link = Command::new("ld");
    link.args(["--relocatable", "--output"]).arg(&object);
    link.args(symbols.lines().map(|symbol| format!("--undefined={symbol}")));
    link.arg(static_library);
    run_checked(link)?;
    let mut objcopy = Command::new("objcopy");
    objcopy.args(["--strip-debug", "--wildcard", "--keep-global-symbol=vipool_*"]);
    objcopy.arg(&object);
    run_checked(objcopy)?;
    Ok(object)
}

fn archive(object: &Path, folder: &Path) -> Result<PathBuf, Error> {
    let library = folder.join("libvipool.a");
    let mut archive = Command::new("ar");
    archive.arg("rcs").arg(&library).arg(object);
    run_checked(archive)?;
    Ok(library)
}

/// Links the shared library, with a SONAME and with symbol versions.
fn link_shared(object: &Path, folder: &Path) -> Result<PathBuf, Error> {
    let version = env!("CARGO_PKG_VERSION");
    let (major, minor) = (env!("CARGO_PKG_VERSION_MAJOR"), env!("CARGO_PKG_VERSION_MINOR"));
    // Until 1.0, a new minor version may break programs. build.rs has the same rule.
    let soname_version = if major == "0" { format!("0.{minor}") } else { major.to_owned() };
    let version_script = folder.join("vipool.map");
    fs::write(
        &version_script,
        format!("VIPOOL_{soname_version} {{ global: vipool_*; local: *; }};\n"),
    )?;
    let file_name = format!("libvipool.so.{version}");
    let library = folder.join(&file_name);
    let soname = format!("libvipool.so.{soname_version}");
    let mut link = Command::new("cc");
    link.args(["-shared", "-Wl,--gc-sections", "-Wl,-z,relro,-z,now", "-Wl,-z,defs", "-s"]);
    link.arg(format!("-Wl,-soname,{soname}"));
    link.arg(format!("-Wl,--version-script={}", version_script.display()));
    link.arg("-o").arg(&library).arg(object).args(SYSTEM_LIBRARIES);
    run_checked(link)?;
    for (link_name, target) in [(&*soname, &file_name), ("libvipool.so", &soname)] {
        std::os::unix::fs::symlink(target, folder.join(link_name))?;
    }
    Ok(library)
}
