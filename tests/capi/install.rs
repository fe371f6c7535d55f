//! Tests that pkg-config finds the files that `cargo cinstall` installs. With these files, the test
//! compiles a C program outside the source tree and links it with the shared and the static
//! library.
//!
//! `cargo cinstall` builds the library again, which takes long. The test is therefore a separate
//! step: `cargo xtask test cinstall`.

use std::fs;
use std::path::Path;
use std::process::Command;

use vipool_testing::{have, target_dir, workspace_root};

use crate::build::{run_command, stdout_of};

fn pkg_config(prefix: &Path, flags: &[&str]) -> Vec<String> {
    let mut command = Command::new("pkg-config");
    command.env("PKG_CONFIG_PATH", prefix.join("lib/pkgconfig")).args(flags).arg("vipool");
    stdout_of(&mut command).split_whitespace().map(str::to_owned).collect()
}

#[test]
#[ignore = "needs cargo-c; run by the step cinstall"]
fn pkg_config_finds_the_installed_library() {
    if !have(&["cargo-cinstall", "pkg-config", "cc"]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let prefix = directory.path().join("prefix");
    let mut install = Command::new("cargo");
    install.args(["cinstall", "--package", "vipool", "--debug", "--jobs", "2", "--libdir", "lib"]);
    install.arg("--prefix").arg(&prefix);
    install.arg("--target-dir").arg(target_dir().join("capi-install"));
    run_command(install.current_dir(workspace_root()));

    let header = fs::read(workspace_root().join("include/vipool.h")).unwrap();
    assert_eq!(fs::read(prefix.join("include/vipool.h")).unwrap(), header);
    let wrapper = fs::read(workspace_root().join("include/vipool.hpp")).unwrap();
    assert_eq!(fs::read(prefix.join("include/vipool.hpp")).unwrap(), wrapper);
    assert_eq!(pkg_config(&prefix, &["--modversion"]), [env!("CARGO_PKG_VERSION")]);
    let library = prefix.join("lib/libvipool.so");
    let dynamic_section = stdout_of(Command::new("readelf").arg("--dynamic").arg(&library));
    assert!(dynamic_section.contains("Library soname: [libvipool.so.0.1]"), "{dynamic_section}");

    // Create a C project outside the source tree.
    let source = directory.path().join("project.c");
    fs::copy(workspace_root().join("examples/c/first_session.c"), &source).unwrap();
    let shared_program = directory.path().join("shared");
    let mut cc = Command::new("cc");
    cc.args(["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]).arg(&source);
    cc.args(pkg_config(&prefix, &["--cflags", "--libs"])).arg("-o").arg(&shared_program);
    run_command(&mut cc);
    let shared_output =
        stdout_of(Command::new(&shared_program).env("LD_LIBRARY_PATH", prefix.join("lib")));
    assert!(shared_output.contains("127.0.0.1 becomes    127.3.0.2\n"), "{shared_output}");

    // Link the archive instead of -lvipool, because -lvipool would select the shared library.
    let static_program = directory.path().join("static");
    let flags = pkg_config(&prefix, &["--static", "--cflags", "--libs"]);
    let archive = prefix.join("lib/libvipool.a").display().to_string();
    let flags = flags.into_iter().map(|flag| match &*flag {
        "-lvipool" => archive.clone(),
        _ => flag,
    });
    let mut cc = Command::new("cc");
    cc.arg("-std=c99").arg(&source).args(flags).arg("-o").arg(&static_program);
    run_command(&mut cc);
    assert_eq!(stdout_of(&mut Command::new(&static_program)), shared_output);
    let static_program_section =
        stdout_of(Command::new("readelf").arg("--dynamic").arg(&static_program));
    assert!(!static_program_section.contains("libvipool"), "{static_program_section}");
}
