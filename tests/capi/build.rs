//! Builds the library, and programs in C and C++ that use the library.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use vipool_testing::{cargo, target_dir, workspace_root};

/// Builds `libvipool.a` once and returns its path. A separate cargo command builds the library, so
/// that it lacks the features that only other packages of the workspace enable.
pub fn static_library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        cargo(&[
            "rustc",
            "-p",
            "vipool",
            "--lib",
            "--features",
            "capi",
            "--crate-type",
            "staticlib",
        ]);
        target_dir().join("debug/libvipool.a")
    })
}

/// Builds `libvipool.so` once, in the release profile, and returns its path.
pub fn shared_library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let arguments = ["rustc", "-p", "vipool", "--lib", "--features", "capi", "--release"];
        cargo(&[&arguments[..], &["--crate-type", "cdylib"]].concat());
        target_dir().join("release/libvipool.so")
    })
}

/// The language of a program.
#[derive(Clone, Copy, Debug)]
pub enum Language {
    C99,
    Cpp17,
}

/// Compiles a source file, links the static library, and returns the path of the program. Warnings
/// are errors. `extra_arguments` contains further arguments for the compiler. `name` must be unique
/// for each combination of `source` and `extra_arguments`, because the path contains only `name`
/// and `language`.
pub fn compile(source: &Path, language: Language, name: &str, extra_arguments: &[&str]) -> PathBuf {
    let (compiler, standard) = match language {
        Language::C99 => ("cc", ["-x", "c", "-std=c99"]),
        Language::Cpp17 => ("c++", ["-x", "c++", "-std=c++17"]),
    };
    let folder = target_dir().join("capi-programs");
    std::fs::create_dir_all(&folder).expect("the target directory can be written");
    let program = folder.join(format!("{name}-{language:?}"));
    let mut command = Command::new(compiler);
    command
        .args(standard)
        .args(["-D_POSIX_C_SOURCE=200809L", "-g", "-O1"])
        .args(["-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow", "-Werror"])
        .args(extra_arguments)
        .arg("-I")
        .arg(workspace_root().join("include"))
        .arg(workspace_root().join(source))
        .args(["-x", "none"])
        .arg(static_library())
        .args(["-lpthread", "-ldl", "-lm", "-o"])
        .arg(&program);
    run_command(&mut command);
    program
}

/// Runs a command and panics if it fails.
pub fn run_command(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// Returns the standard output of a command and panics if it fails.
pub fn stdout_of(command: &mut Command) -> String {
    String::from_utf8(run_command(command).stdout).expect("UTF-8")
}
