//! What the tests of all parts share: saying what a test needs, build products, clean-up.
//!
//! A test that needs something which may be absent begins with
//! `if !vipool_testing::have(&["root", "redis-server"]) { return; }`. What is absent is told on
//! standard error and appended to the file that `VIPOOL_SKIPPED` names; `cargo xtask test` takes
//! such a test for skipped, not passed, and `cargo xtask test --all` takes it for a failure.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::OnceLock;
use std::{env, io, thread};

pub mod needs;
pub mod wine;

/// Names the file that skipped tests are written to, a line each: test, need, install line, with
/// tabs between.
pub const SKIPPED: &str = "VIPOOL_SKIPPED";

/// Set by `cargo xtask test --long`: see [`long`].
pub const LONG: &str = "VIPOOL_LONG";

/// Whether everything named is there (the names are those of [`needs::ALL`]). If not, the
/// calling test is recorded as skipped and must return.
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

/// Records that the calling test is skipped for want of something that [`needs::ALL`] cannot
/// know (a kernel feature, say), with what to do about it. Prefer [`have`].
pub fn record_skip(needs: &str, remedy: &str) {
    let program = env::current_exe().unwrap_or_default();
    let program = program.file_stem().unwrap_or_default().to_string_lossy();
    // The name of a test binary ends in a hash.
    let program = program.rsplit_once('-').map_or(&*program, |(name, _)| name);
    let thread = thread::current();
    let test = format!("{program}::{}", thread.name().unwrap_or("?"));
    // Not eprintln, which the test harness would swallow.
    let _ = writeln!(io::stderr(), "skipped: {test}: needs {needs}; install with: {remedy}");
    if let Some(path) = env::var_os(SKIPPED) {
        let mut file = OpenOptions::new()
            .append(true)
            .create(true)
            .open(&path)
            .unwrap_or_else(|error| panic!("{SKIPPED}={}: {error}", path.display()));
        file.write_all(format!("{test}\t{needs}\t{remedy}\n").as_bytes())
            .expect("the file of skipped tests can be written");
    }
}

/// How much a test shall do: `usual`, or `long` under `cargo xtask test --long`.
pub fn effort<T>(usual: T, long: T) -> T {
    if env::var_os(LONG).is_some() { long } else { usual }
}

/// The target directory of this build.
pub fn target_dir() -> PathBuf {
    let program = env::current_exe().expect("a test has a path");
    program
        .ancestors()
        .find(|dir| dir.join("CACHEDIR.TAG").exists())
        .expect("a test is inside a target directory")
        .to_owned()
}

/// The workspace.
pub fn workspace_root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("this crate is two levels down")
}

/// Runs cargo in the workspace, into the same target directory. Products that other processes
/// load are built apart from the tests, so that no feature of theirs leaks in.
///
/// # Panics
/// If cargo fails.
pub fn cargo(args: &[&str]) {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(args)
        .arg("--quiet")
        .arg("--target-dir")
        .arg(target_dir())
        .current_dir(workspace_root())
        .status()
        .expect("cargo runs");
    assert!(status.success(), "cargo {} failed", args.join(" "));
}

/// `libvipool_preload.so` as it is installed: built once, in the profile `hook`.
pub fn preload_path() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        cargo(&["build", "--package", "vipool-preload", "--profile", "hook"]);
        target_dir().join("hook/libvipool_preload.so")
    })
}

/// The command `vipool`, built once, for tests of other packages (those of `cli/` have
/// `CARGO_BIN_EXE_vipool`).
pub fn vipool_path() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        cargo(&["build", "--package", "vipool-cli"]);
        target_dir().join("debug/vipool")
    })
}

/// A child process that is killed and reaped when this goes out of scope, also in a test that
/// panics.
#[derive(Debug)]
pub struct ChildGuard(pub Child);

impl ChildGuard {
    /// Starts the command.
    ///
    /// # Panics
    /// If it can't be started.
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
