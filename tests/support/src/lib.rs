//! Shared helpers of all tests. A test declares its needs, builds programs and libraries, and
//! cleans up with these helpers.
//!
//! A test that needs something that may be absent begins with `if !vipool_testing::have(&["root",
//! "redis-server"]) { return; }`. If a need is missing, [`have`] prints the need and appends it to
//! the file that `VIPOOL_SKIPPED` names. `cargo xtask test` counts such a test as skipped. With
//! `--all`, a skipped test fails the run.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::OnceLock;
use std::{env, io, thread};

#[cfg(unix)]
pub mod namespace;
pub mod needs;
pub mod wine;

/// The environment variable that names the file with the record of skipped tests. Each line of the
/// file contains the test, the need and the install command, separated by tabs.
pub const SKIP_RECORD_VARIABLE: &str = "VIPOOL_SKIPPED";

/// The environment variable that `cargo xtask test --long` sets: see [`effort`].
pub const LONG_VARIABLE: &str = "VIPOOL_LONG";

/// Returns whether all named needs of [`needs::ALL`] are present. If not, records that the calling
/// test is skipped. The test must then return.
#[must_use]
pub fn have(names: &[&str]) -> bool {
    match names.iter().map(|name| needs::by_name(name)).find(|need| !need.is_present()) {
        None => true,
        Some(need) => {
            record_skip(need.name, &need.install_command());
            false
        }
    }
}

/// Records that the calling test is skipped, with the missing need and the command that installs
/// the need. Prefer [`have`]. Use this function for needs that [`needs::ALL`] cannot describe, such
/// as a kernel feature.
pub fn record_skip(need: &str, remedy: &str) {
    let program = env::current_exe().unwrap_or_default();
    let program = program.file_stem().unwrap_or_default().to_string_lossy();
    // The name of a test binary ends in a hash.
    let program = program.rsplit_once('-').map_or(&*program, |(name, _)| name);
    let thread = thread::current();
    let test = format!("{program}::{}", thread.name().unwrap_or("?"));
    // The test harness captures eprintln, but not a direct write.
    let _ = writeln!(io::stderr(), "skipped: {test}: needs {need}; install with: {remedy}");
    if let Some(path) = env::var_os(SKIP_RECORD_VARIABLE) {
        let mut file =
            OpenOptions::new().append(true).create(true).open(&path).unwrap_or_else(|error| {
                panic!("{SKIP_RECORD_VARIABLE}={}: {error}", path.display())
            });
        file.write_all(format!("{test}\t{need}\t{remedy}\n").as_bytes())
            .expect("the record of skipped tests is writable");
    }
}

/// Selects the effort of a test: `usual`, or `long` under `cargo xtask test --long`.
pub fn effort<T>(usual: T, long: T) -> T {
    if env::var_os(LONG_VARIABLE).is_some() { long } else { usual }
}

/// Returns the target directory of this build.
pub fn target_dir() -> PathBuf {
    let program = env::current_exe().expect("a test program has a path");
    program
        .ancestors()
        .find(|dir| dir.join("CACHEDIR.TAG").exists())
        .expect("a test is inside a target directory")
        .to_owned()
}

/// Returns the root of the workspace.
pub fn workspace_root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("this crate is two levels down")
}

/// Runs cargo in the workspace with the target directory of this build. Tests build programs and
/// libraries for other processes with this function, so that the features that the tests enable do
/// not apply to these programs and libraries.
///
/// # Panics
/// Panics if cargo fails.
pub fn cargo(args: &[&str]) {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(args)
        .arg("--quiet")
        .arg("--target-dir")
        .arg(target_dir())
        .current_dir(workspace_root())
        .status()
        .expect("cargo can be started");
    assert!(status.success(), "cargo {} failed", args.join(" "));
}

/// Builds `libvipool_preload.so` once, in the profile `hook`, and returns its path.
pub fn preload_path() -> &'static Path {
    static BUILT_FILE: OnceLock<PathBuf> = OnceLock::new();
    BUILT_FILE.get_or_init(|| {
        cargo(&["build", "--package", "vipool-preload", "--profile", "hook"]);
        target_dir().join("hook/libvipool_preload.so")
    })
}

/// Builds the object of `tests/faults/preload` once and returns its path. The object lets one call
/// of a program fail.
pub fn fault_preload_path() -> &'static Path {
    static BUILT_FILE: OnceLock<PathBuf> = OnceLock::new();
    BUILT_FILE.get_or_init(|| {
        cargo(&["build", "--package", "vipool-fault-preload"]);
        target_dir().join("debug/libvipool_fault_preload.so")
    })
}

/// Builds the command `vipool` once and returns its path. Tests in `cli/` use
/// `CARGO_BIN_EXE_vipool` instead.
pub fn vipool_path() -> &'static Path {
    static BUILT_FILE: OnceLock<PathBuf> = OnceLock::new();
    BUILT_FILE.get_or_init(|| {
        cargo(&["build", "--package", "vipool-cli"]);
        target_dir().join("debug/vipool")
    })
}

/// A child process. Dropping the value kills and reaps the process, even if the test panics.
#[derive(Debug)]
pub struct ChildGuard(pub Child);

impl ChildGuard {
    /// Starts the command.
    ///
    /// # Panics
    /// Panics if the command cannot be started.
    pub fn start(command: &mut Command) -> Self {
        Self(command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")))
    }
}

impl Drop for ChildGuard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
