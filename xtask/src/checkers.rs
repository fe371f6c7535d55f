//! What only a special compiler finds: the model checker, Miri, and the sanitizers.

use std::process::Command;

use crate::Error;
use crate::run::{Log, cargo, root, target_dir};

/// With a target of its own, so that build scripts are not instrumented.
const HOST: &str = "x86_64-unknown-linux-gnu";

/// Readers beside a writer in every order that the memory model allows.
pub fn loom(log: &mut Log) -> Result<(), Error> {
    let mut test =
        cargo("test --package vipool --lib --no-default-features --jobs 2 model_checked");
    test.env("RUSTFLAGS", "--cfg loom").env("CARGO_TARGET_DIR", target_dir().join("loom"));
    log.run(test)
}

/// The middle of the crate, and maps in memory, under Miri: no undefined behaviour, no data race.
/// Not what asks the system or maps files, which Miri cannot, nor what is done a million times.
pub fn miri(log: &mut Log) -> Result<(), Error> {
    let lib = "--lib -- --skip os:: --skip map::journal --skip many_holes";
    for tests in [lib, "--test map giving", "--test map threads"] {
        let mut miri = nightly("miri test --package vipool --no-default-features --jobs 2", tests);
        // What runs is ten thousand times slower; proptest asks for the directory it is in.
        miri.env("MIRIFLAGS", "-Zmiri-disable-isolation").env("PROPTEST_CASES", "2");
        log.run(with_target(miri, "miri"))?;
    }
    Ok(())
}

/// Processes and threads under AddressSanitizer. Single-stepping would step through its checks.
pub fn address(log: &mut Log) -> Result<(), Error> {
    let mut test = nightly(
        "test --package vipool --no-default-features --jobs 2 --target",
        &format!("{HOST} --lib --test map --test crash --test model -- --skip step::"),
    );
    test.env("RUSTFLAGS", "-Zsanitizer=address");
    log.run(with_target(test, "address"))
}

/// The hook for Linux under AddressSanitizer, in C programs that are built with it too: the matrix,
/// and what programs do to a guest.
pub fn address_hook(log: &mut Log) -> Result<(), Error> {
    let mut build =
        nightly("build --package vipool-preload --profile hook --jobs 2 --target", HOST);
    build.env("RUSTFLAGS", "-Zsanitizer=address");
    log.run(with_target(build, "address"))?;
    let hook = target_dir().join("address").join(HOST).join("hook/libvipool_preload.so");
    let mut test = cargo("test --package vipool-preload --jobs 2 --test matrix --test guest");
    // valgrind and the sanitizer do not go together; in row 16 the sanitizer itself reads the bad
    // pointers that are given to the kernel, hook or not.
    test.args(["--", "--skip", "under_valgrind", "--skip", "row_16"]);
    test.env("VIPOOL_SANITIZED_HOOK", hook).env("ASAN_OPTIONS", "detect_leaks=0");
    log.run(with_target(test, "address"))
}

/// Threads that share a map under ThreadSanitizer, with a standard library that it watches too.
pub fn thread(log: &mut Log) -> Result<(), Error> {
    let mut test = nightly(
        "test --package vipool --no-default-features --jobs 2 -Zbuild-std --target",
        &format!("{HOST} --test map"),
    );
    test.env("RUSTFLAGS", "-Zsanitizer=thread");
    log.run(with_target(test, "thread"))
}

fn nightly(arguments: &str, more: &str) -> Command {
    let mut command = Command::new("rustup");
    command.args(["run", "nightly", "cargo"]);
    command.args(arguments.split_whitespace()).args(more.split_whitespace());
    command.env_remove("CARGO").env_remove("RUSTC").current_dir(root());
    command
}

fn with_target(mut command: Command, name: &str) -> Command {
    command.env("CARGO_TARGET_DIR", target_dir().join(name));
    command
}
