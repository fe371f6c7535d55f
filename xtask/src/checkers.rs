//! Steps that need a special build: the model checker, Miri and the sanitizers.

use std::process::Command;

use crate::Error;
use crate::run::{Log, cargo, root, target_dir};

/// The target triple of this host. The commands pass it with `--target`, so that cargo does not
/// apply the sanitizer flags to build scripts.
const HOST_TRIPLE: &str = "x86_64-unknown-linux-gnu";

/// Runs the tests that use loom, a model checker. Loom runs concurrent readers and a writer in
/// every order of loads and stores that the memory model allows, with a limited number of
/// preemptions.
pub fn loom(log: &mut Log) -> Result<(), Error> {
    let mut test =
        cargo("test --package vipool --lib --no-default-features --jobs 2 model_checked");
    test.env("RUSTFLAGS", "--cfg loom").env("CARGO_TARGET_DIR", target_dir().join("loom"));
    log.run(test)
}

/// Runs the unit tests, the tests of the C ABI and the tests of maps in memory under Miri. Miri
/// detects undefined behaviour and data races. Skips tests with system calls or mapped files,
/// because Miri does not support them. Also skips tests whose many rounds would take too long under
/// Miri.
pub fn miri(log: &mut Log) -> Result<(), Error> {
    let unit_tests = "--lib -- --skip os:: --skip raw:: --skip client_file:: --skip discovery:: \
        --skip trusted_file:: --skip map::journal --skip map::repair --skip map::replan::migrate \
        --skip map::versions --skip each_logon_of_a_process --skip rewrite::hooked_process \
        --skip users_with_one_tag --skip many_exclusions";
    // A C program may pass structs with uninitialised members. Miri detects a reference to such
    // members only with recursive validation. The library leaks the payloads of panics on purpose,
    // so skip the test of panics.
    let capi_tests = "--features capi --lib -- capi:: --skip concurrent_opens --skip panic_becomes";
    for (tests, additional_flag) in [
        (unit_tests, ""),
        (capi_tests, "-Zmiri-recursive-validation"),
        ("--test map allocation::", ""),
        ("--test map threads::", ""),
    ] {
        let mut miri = nightly("miri test --package vipool --no-default-features --jobs 2", tests);
        // Let proptest use only two cases, because tests run ten thousand times slower under Miri.
        // Allow access to the system, because proptest reads the current directory.
        let flags = format!("-Zmiri-tree-borrows -Zmiri-disable-isolation {additional_flag}");
        miri.env("MIRIFLAGS", flags).env("PROPTEST_CASES", "2");
        log.run(with_target_dir(miri, "miri"))?;
    }
    Ok(())
}

/// Runs the unit tests and the tests of maps under AddressSanitizer. Skips the tests that run
/// the library instruction by instruction, because they would also stop at each instruction of the
/// sanitizer.
pub fn address_sanitizer(log: &mut Log) -> Result<(), Error> {
    let mut test = nightly(
        "test --package vipool --no-default-features --jobs 2 --target",
        &format!("{HOST_TRIPLE} --lib --test map --test crash --test model -- --skip step::"),
    );
    test.env("RUSTFLAGS", "-Zsanitizer=address");
    log.run(with_target_dir(test, "address"))
}

/// Runs the hook layer for Linux under AddressSanitizer, in instrumented C programs.
pub fn address_sanitizer_hook(log: &mut Log) -> Result<(), Error> {
    let mut build =
        nightly("build --package vipool-preload --profile hook --jobs 2 --target", HOST_TRIPLE);
    build.env("RUSTFLAGS", "-Zsanitizer=address");
    log.run(with_target_dir(build, "address"))?;
    let hook = target_dir().join("address").join(HOST_TRIPLE).join("hook/libvipool_preload.so");
    let mut test =
        cargo("test --package vipool-preload --jobs 2 --test matrix --test hooked_process");
    // Skip the valgrind test, because valgrind cannot run a program with the sanitizer. Skip row
    // 16, because in this row the program passes invalid pointers to the kernel. The sanitizer
    // reads the memory at these pointers and fails, even without the hook layer.
    test.args(["--", "--skip", "hooks_pass_valgrind", "--skip", "row_16"]);
    test.env("VIPOOL_SANITIZED_HOOK", hook).env("ASAN_OPTIONS", "detect_leaks=0");
    log.run(with_target_dir(test, "address"))
}

/// Runs the tests of `tests/map` under ThreadSanitizer, with an instrumented standard library. In
/// some of these tests, threads share a map.
pub fn thread_sanitizer(log: &mut Log) -> Result<(), Error> {
    let mut test = nightly(
        "test --package vipool --no-default-features --jobs 2 -Zbuild-std --target",
        &format!("{HOST_TRIPLE} --test map"),
    );
    test.env("RUSTFLAGS", "-Zsanitizer=thread");
    log.run(with_target_dir(test, "thread"))
}

/// Returns a command that runs the nightly cargo with these arguments.
fn nightly(arguments: &str, more_arguments: &str) -> Command {
    let mut command = Command::new("rustup");
    command.args(["run", "nightly", "cargo"]);
    command.args(arguments.split_whitespace()).args(more_arguments.split_whitespace());
    command.env_remove("CARGO").env_remove("RUSTC").current_dir(root());
    command
}

/// Makes the command build into a separate target directory with this name.
fn with_target_dir(mut command: Command, name: &str) -> Command {
    command.env("CARGO_TARGET_DIR", target_dir().join(name));
    command
}
