//! Windows programs under Wine: a prefix of our own, and what Wine 8 lacks.
//!
//! The prefix is in the target directory and is shared by all tests of this build. Wine uses the
//! sockets of Linux, so addresses that Windows programs bind are those of this machine.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::{cargo, target_dir};

/// The target that everything for Wine is built for.
pub const TARGET: &str = "x86_64-pc-windows-gnu";

/// What a test needs to run Windows programs: see [`crate::have`].
pub const NEEDS: [&str; 3] = ["wine", "x86_64-w64-mingw32-gcc", TARGET];

/// Rust's standard library imports a random number generator from a DLL that Wine 8 lacks.
const PROCESS_PRNG: &str = "#include <windows.h>\n\
    BOOLEAN NTAPI SystemFunction036(PVOID, ULONG);\n\
    __declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE data, SIZE_T length)\n\
    { return SystemFunction036(data, (ULONG)length); }\n";

/// A command that runs a Windows program. Nothing of the caller's Wine configuration is used.
pub fn command(program: &Path) -> Command {
    let mut command = wine_in(prefix());
    command.arg(program);
    command
}

/// The prefix, made on first use.
pub fn prefix() -> &'static Path {
    static READY: OnceLock<PathBuf> = OnceLock::new();
    READY.get_or_init(|| {
        let prefix = target_dir().join("wine");
        // Tests are processes of their own: one makes the prefix, the others wait.
        let lock = File::create(target_dir().join("wine.lock")).expect("the target is writable");
        lock.lock().expect("a lock can be waited for");
        let shim = prefix.join("drive_c/windows/system32/bcryptprimitives.dll");
        if !shim.exists() {
            let status = wine_in(&prefix).arg("wineboot").arg("-i").status().expect("wine starts");
            assert!(status.success(), "wineboot failed");
            // What Wine 8 says of itself by default is too old for many programs.
            let version = wine_in(&prefix).args(["winecfg", "-v", "win10"]).status();
            assert!(version.expect("wine starts").success(), "winecfg failed");
            let source = target_dir().join("bcryptprimitives.c");
            File::create(&source)
                .and_then(|mut file| file.write_all(PROCESS_PRNG.as_bytes()))
                .expect("the target is writable");
            let made = target_dir().join("bcryptprimitives.dll");
            compile_c(&source, &made, &["-shared", "-ladvapi32"]);
            // Last, since it says that the prefix is complete.
            fs::copy(made, shim).expect("the prefix is writable");
        }
        prefix
    })
}

/// Compiles a C program or DLL for Windows with every warning an error.
///
/// # Panics
/// If it does not compile.
pub fn compile_c(source: &Path, output: &Path, more: &[&str]) {
    let status = Command::new("x86_64-w64-mingw32-gcc")
        .args(["-O1", "-Wall", "-Wextra", "-Werror", "-o"])
        .arg(output)
        .arg(source)
        .args(more)
        .status()
        .expect("mingw starts");
    assert!(status.success(), "{} does not compile", source.display());
}

/// `vipool_hook.dll`, `vipool-launch.exe` and `vipool.exe` as they are installed, built once. The
/// directory they are in.
pub fn hook_directory() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        cargo(&["build", "--package", "vipool-hook", "--profile", "hook", "--target", TARGET]);
        cargo(&["build", "--package", "vipool-cli", "--target", TARGET]);
        let target = target_dir().join(TARGET);
        let hook = target.join("hook");
        fs::copy(target.join("debug/vipool.exe"), hook.join("vipool.exe"))
            .expect("the target is writable");
        hook
    })
}

fn wine_in(prefix: &Path) -> Command {
    let mut command = Command::new("wine");
    command
        .env("WINEPREFIX", prefix)
        .env("WINEDEBUG", "-all")
        .env("WINEARCH", "win64")
        // No questions about missing parts, and no menus in somebody's desktop.
        .env("WINEDLLOVERRIDES", "mscoree=;mshtml=;winemenubuilder.exe=")
        .env_remove("DISPLAY");
    command
}
