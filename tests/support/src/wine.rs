//! Runs Windows programs in a Wine prefix for tests. The prefix contains a DLL that Wine 8 lacks.
//!
//! The prefix is in the target directory, and all tests of this build share it. Wine programs use
//! Linux sockets, so they bind the addresses of this machine.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::{cargo, target_dir};

/// The Rust target of all programs for Wine.
pub const TARGET: &str = "x86_64-pc-windows-gnu";

/// The needs of a test that runs Windows programs: see [`crate::have`].
pub const NEEDS: [&str; 3] = ["wine", "x86_64-w64-mingw32-gcc", TARGET];

/// A replacement for `bcryptprimitives.dll`, which Wine 8 lacks. Rust's standard library imports
/// the random number generator of this DLL.
const PROCESS_PRNG: &str = "#include <windows.h>\n\
    BOOLEAN NTAPI SystemFunction036(PVOID, ULONG);\n\
    __declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE data, SIZE_T length)\n\
    { return SystemFunction036(data, (ULONG)length); }\n";

/// Returns a command that runs a Windows program. The command does not use the caller's Wine
/// configuration.
pub fn command(program: &Path) -> Command {
    let mut command = wine_in(prefix());
    command.arg(program);
    command
}

/// Returns the Wine prefix. The first call creates the prefix.
pub fn prefix() -> &'static Path {
    static PREFIX: OnceLock<PathBuf> = OnceLock::new();
    PREFIX.get_or_init(|| {
        let prefix = target_dir().join("wine");
        // If several test processes start at the same time, one process creates the prefix and the
        // others wait.
        let lock = File::create(target_dir().join("wine.lock")).expect("the target is writable");
        lock.lock().expect("the file can be locked");
        let shim = prefix.join("drive_c/windows/system32/bcryptprimitives.dll");
        if !shim.exists() {
            let status = wine_in(&prefix).arg("wineboot").arg("-i").status().expect("wine starts");
            assert!(status.success(), "wineboot failed");
            // The Windows version that Wine 8 reports by default is too old for many programs.
            let version = wine_in(&prefix).args(["winecfg", "-v", "win10"]).status();
            assert!(version.expect("wine starts").success(), "winecfg failed");
            let source = target_dir().join("bcryptprimitives.c");
            File::create(&source)
                .and_then(|mut file| file.write_all(PROCESS_PRNG.as_bytes()))
                .expect("the target is writable");
            let library = target_dir().join("bcryptprimitives.dll");
            compile_c(&source, &library, &["-shared", "-ladvapi32"]);
            // Copy this file last, because it marks the prefix as complete.
            fs::copy(library, shim).expect("the prefix is writable");
        }
        prefix
    })
}

/// Compiles a C program or DLL for Windows. Every warning is an error.
///
/// # Panics
/// Panics if the source does not compile.
pub fn compile_c(source: &Path, output: &Path, extra_args: &[&str]) {
    let status = Command::new("x86_64-w64-mingw32-gcc")
        .args(["-O1", "-Wall", "-Wextra", "-Werror", "-o"])
        .arg(output)
        .arg(source)
        .args(extra_args)
        .status()
        .expect("mingw starts");
    assert!(status.success(), "{} does not compile", source.display());
}

/// Builds `vipool_hook.dll`, `vipool-launch.exe` and `vipool.exe` once, and returns their
/// directory. Only `vipool.exe` is a debug build. The DLL has the feature `test-session`, so that
/// tests can choose the session of a program.
pub fn hook_directory() -> &'static Path {
    static HOOK_DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    HOOK_DIRECTORY.get_or_init(|| {
        let hook_args = ["build", "--package", "vipool-hook", "--features", "test-session"];
        cargo(&[&hook_args[..], &["--profile", "hook", "--target", TARGET]].concat());
        cargo(&["build", "--package", "vipool-cli", "--target", TARGET]);
        let target = target_dir().join(TARGET);
        let directory = target.join("hook");
        fs::copy(target.join("debug/vipool.exe"), directory.join("vipool.exe"))
            .expect("the target is writable");
        directory
    })
}

/// Returns a Wine command for this prefix.
fn wine_in(prefix: &Path) -> Command {
    let mut command = Command::new("wine");
    command
        .env("WINEPREFIX", prefix)
        .env("WINEDEBUG", "-all")
        .env("WINEARCH", "win64")
        // Disable the dialogs about missing components and the entries in the desktop menu.
        .env("WINEDLLOVERRIDES", "mscoree=;mshtml=;winemenubuilder.exe=")
        .env_remove("DISPLAY");
    command
}
