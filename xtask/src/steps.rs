//! The steps of `cargo xtask test`, in the order in which they run. A new one is one entry.

use std::collections::BTreeSet;

use vipool_testing::{needs, wine};

use crate::run::{Log, cargo};
use crate::{Error, checkers, fuzz, header, hygiene, symbols, windows};

/// One step.
pub struct Step {
    /// The name it is called by.
    pub name: &'static str,
    /// What it does, in a few words.
    pub does: &'static str,
    /// Without one of these it is skipped (names of `tests/support/src/needs.rs`).
    pub needs: &'static [&'static str],
    /// Whether it runs with `--long` only.
    pub long: bool,
    /// Runs it.
    pub run: fn(&mut Log) -> Result<(), Error>,
}

/// What most steps are: for every run, in need of nothing.
const STEP: Step = Step { name: "", does: "", needs: &[], long: false, run: |_| Ok(()) };

/// What takes hours, or installs what takes long to build.
const LONG_STEP: Step = Step { long: true, ..STEP };

#[allow(clippy::needless_update)] // all end alike, also those that say everything
const STEPS: &[Step] = &[
    Step {
        name: "format",
        does: "rustfmt finds nothing to change",
        run: |log| log.cargo("fmt --all -- --check"),
        ..STEP
    },
    Step {
        name: "hygiene",
        does: "no file holds words that are none of its business",
        run: hygiene::check,
        ..STEP
    },
    Step {
        name: "clippy",
        does: "no warning in any target or feature",
        run: |log| {
            log.cargo("clippy --workspace --all-targets -- -D warnings")?;
            log.cargo("clippy --package vipool --features capi --all-targets -- -D warnings")
        },
        ..STEP
    },
    Step {
        name: "header",
        does: "include/vipool.h is what the source says",
        run: |_| header::run(true),
        ..STEP
    },
    Step {
        name: "symbols",
        does: "shared objects export what their lists say",
        needs: &["nm"],
        run: |_| symbols::run(true),
        ..STEP
    },
    Step {
        name: "tests",
        does: "all tests of the workspace",
        run: |log| log.cargo("test --workspace --no-fail-fast --jobs 2"),
        ..STEP
    },
    Step {
        name: "tests-capi",
        does: "the tests of the crate with its C ABI",
        run: |log| log.cargo("test --package vipool --features capi --no-fail-fast --jobs 2"),
        ..STEP
    },
    Step {
        name: "cinstall",
        does: "a C project outside the tree builds with what cargo-c installs",
        needs: &["cargo-cinstall", "pkg-config", "cc"],
        run: |log| {
            log.cargo(
                "test --package vipool --features capi --jobs 2 --test capi -- --ignored install",
            )
        },
        ..LONG_STEP
    },
    Step {
        name: "doc",
        does: "the documentation builds without a warning",
        run: |log| {
            for crates in ["--workspace", "--package vipool --features capi"] {
                let mut doc =
                    cargo(&format!("doc {crates} --no-deps --document-private-items --jobs 2"));
                doc.env("RUSTDOCFLAGS", "-D warnings");
                log.run(doc)?;
            }
            Ok(())
        },
        ..STEP
    },
    Step {
        name: "macos",
        does: "the crate compiles for macOS",
        needs: &["aarch64-apple-darwin"],
        run: |log| log.cargo("check --package vipool --target aarch64-apple-darwin"),
        ..STEP
    },
    Step {
        name: "windows-msvc",
        does: "what is for Windows compiles for Microsoft's linker too",
        needs: &["x86_64-pc-windows-msvc", "x86_64-w64-mingw32-gcc"],
        run: windows::msvc,
        ..STEP
    },
    Step {
        name: "windows",
        does: "the crate's own tests as Windows programs under Wine",
        needs: &wine::NEEDS,
        run: windows::crate_tests,
        ..STEP
    },
    Step {
        name: "windows-hook",
        does: "the hook layer for Windows in real programs, under Wine",
        needs: windows::HOOK_NEEDS,
        run: windows::hook,
        ..STEP
    },
    Step {
        name: "loom",
        does: "readers beside a writer, in every order of their loads and stores",
        run: checkers::loom,
        ..STEP
    },
    Step {
        name: "miri",
        does: "maps in memory, without undefined behaviour",
        needs: &["nightly", "miri", "rust-src"],
        long: true,
        run: checkers::miri,
    },
    Step {
        name: "address",
        does: "maps in files, under AddressSanitizer",
        needs: &["nightly"],
        long: true,
        run: checkers::address,
    },
    Step {
        name: "address-hook",
        does: "the hook for Linux in programs, under AddressSanitizer",
        needs: &["nightly", "cc", "ip"],
        long: true,
        run: checkers::address_hook,
    },
    Step {
        name: "thread",
        does: "threads that share a map, under ThreadSanitizer",
        needs: &["nightly", "rust-src"],
        long: true,
        run: checkers::thread,
    },
    Step {
        name: "fuzz",
        does: "a minute of each fuzz target (an hour with --long)",
        needs: &["nightly", "c++"],
        run: fuzz::run,
        ..STEP
    },
    Step {
        name: "aarch64",
        does: "the crate's own tests and the hook for aarch64, under qemu",
        needs: &["aarch64-unknown-linux-gnu", "aarch64-linux-gnu-gcc", "qemu-aarch64"],
        run: aarch64,
        ..LONG_STEP
    },
    Step {
        name: "peers",
        does: "the benches beside other crates compile",
        run: |log| {
            log.cargo("clippy --manifest-path bench-peers/Cargo.toml --all-targets -- -D warnings")
        },
        ..STEP
    },
];

fn aarch64(log: &mut Log) -> Result<(), Error> {
    let mut test = cargo("test --package vipool --lib --no-fail-fast --jobs 2");
    // qemu-user knows no sock_diag, by which the kernel is asked what listens.
    test.args(["--target", "aarch64-unknown-linux-gnu", "--", "--skip", "os::listeners"]);
    test.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", "aarch64-linux-gnu-gcc");
    test.env(
        "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER",
        "qemu-aarch64 -L /usr/aarch64-linux-gnu",
    );
    log.run(test)?;
    log.cargo("test --package vipool-preload --test aarch64 --jobs 2 -- --ignored")
}

/// The named steps, or all; those for hours only with `long` or by name.
pub fn chosen(names: &[String], long: bool) -> Result<Vec<&'static Step>, Error> {
    if let Some(name) = names.iter().find(|name| STEPS.iter().all(|step| step.name != **name)) {
        return Err(format!("no step {name:?}; see `cargo xtask test --list`").into());
    }
    let wanted = |step: &&Step| match names {
        [] => long || !step.long,
        names => names.iter().any(|name| name == step.name),
    };
    Ok(STEPS.iter().filter(wanted).collect())
}

/// What `--all` installs for these steps: what they need, and what no step needs as a whole, but
/// single tests do.
pub fn wanted(chosen: &[&Step]) -> BTreeSet<&'static str> {
    let needed_by = |steps: &mut dyn Iterator<Item = &Step>| -> BTreeSet<&'static str> {
        steps.flat_map(|step| step.needs).copied().collect()
    };
    let (chosen, all) = (needed_by(&mut chosen.iter().copied()), needed_by(&mut STEPS.iter()));
    let names = needs::ALL.iter().map(|need| need.name);
    names.filter(|name| chosen.contains(name) || !all.contains(name)).collect()
}

/// Prints the steps with their needs.
pub fn list() {
    for step in STEPS {
        let long = if step.long { " (--long)" } else { "" };
        println!("{:<16} {}{long}", step.name, step.does);
        for name in step.needs {
            println!("{:<16}   needs {name}: {}", "", needs::by_name(name).install_command());
        }
    }
}
