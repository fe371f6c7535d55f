//! Builds the fuzz targets with libFuzzer and AddressSanitizer on a nightly toolchain, and runs
//! them.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::Error;
use crate::run::{Log, root, target_dir};

/// Compiler flags: coverage instrumentation for libFuzzer, and AddressSanitizer.
const INSTRUMENTATION_FLAGS: &str = "--cfg fuzzing -Zsanitizer=address -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares \
    -Ccodegen-units=1";

/// The target triple of this host. The build passes it with `--target`, so that cargo does not
/// apply the instrumentation flags to build scripts.
const HOST_TRIPLE: &str = "x86_64-unknown-linux-gnu";

/// Runs each target for a minute (an hour with `--long`), two targets at a time. libFuzzer writes
/// crashing inputs to `fuzz/artifacts`, and inputs with new coverage to `fuzz/corpus`.
pub fn run(log: &mut Log) -> Result<(), Error> {
    let target_directory = target_dir().join("fuzz");
    let mut build = Command::new("rustup");
    build
        .args(["run", "nightly", "cargo", "build", "--release", "--jobs", "2"])
        .args(["--manifest-path", "fuzz/Cargo.toml", "--target", HOST_TRIPLE])
        .arg("--target-dir")
        .arg(&target_directory)
        .env("RUSTFLAGS", INSTRUMENTATION_FLAGS)
        .env_remove("CARGO")
        .current_dir(root());
    log.run(build)?;
    let seconds = if log.long { 3600 } else { 60 };
    let mut target_names: Vec<String> = fs::read_dir(root().join("fuzz/targets"))?
        .filter_map(|entry| entry.ok()?.path().file_stem()?.to_str().map(str::to_owned))
        .collect();
    target_names.sort();
    let program_directory = target_directory.join(HOST_TRIPLE).join("release");
    for name_pair in target_names.chunks(2) {
        let mut children: Vec<(&String, Child)> = Vec::new();
        for name in name_pair {
            let fuzz_directory = root().join("fuzz");
            let (corpus, artifacts) =
                (fuzz_directory.join("corpus").join(name), fuzz_directory.join("artifacts"));
            fs::create_dir_all(&corpus)?;
            fs::create_dir_all(&artifacts)?;
            let mut command = Command::new(program_directory.join(name));
            command
                .arg(&corpus)
                .arg(format!("-max_total_time={seconds}"))
                .args(["-timeout=10", "-max_len=4096", "-print_final_stats=1"])
                .arg(format!("-artifact_prefix={}/{name}-", artifacts.display()))
                .stdin(Stdio::null());
            // Some targets write a map file for each input. Keep these files in memory, not on a
            // disk.
            if Path::new("/dev/shm").is_dir() {
                command.env("TMPDIR", "/dev/shm");
            }
            children.push((name, log.spawn(&mut command)?));
        }
        // Wait for both targets, so that none still runs after a failure of the other.
        let mut statuses = Vec::new();
        for (name, mut child) in children {
            statuses.push((name, child.wait()?));
        }
        for (name, status) in statuses {
            if !status.success() {
                return Err(format!("fuzz target {name}: {status} (see fuzz/artifacts)").into());
            }
            log.write_line(&format!("test result: {name}, {seconds} s. 1 passed; 0 failed"))?;
        }
    }
    Ok(())
}
