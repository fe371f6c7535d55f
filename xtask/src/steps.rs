//! The steps of `cargo xtask test`, in the order in which they run. To add a step, add an entry to
//! [`STEPS`].

use std::collections::BTreeSet;

use vipool_testing::{needs, wine};

use crate::run::{Log, Selection, cargo};
use crate::{Error, checkers, fuzz, header, hygiene, symbols, windows};

/// A named check.
pub struct Step {
    /// The name on the command line.
    pub name: &'static str,
    /// A short description of what the step checks.
    pub summary: &'static str,
    /// Names from `tests/support/src/needs.rs`. The step is skipped if one of them is missing.
    pub needs: &'static [&'static str],
    /// The runs that include the step.
    schedule: Schedule,
    /// Runs the step.
    pub run: fn(&mut Log) -> Result<(), Error>,
}

/// The runs that include a step.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Schedule {
    /// `--quick` only. In other runs, another step includes the same work.
    QuickOnly,
    /// All runs.
    Always,
    /// All runs except `--quick`.
    Full,
    /// `--long` only: the step takes hours or needs large tools.
    Long,
}

impl Step {
    fn is_selected(&self, selection: Selection) -> bool {
        match self.schedule {
            Schedule::QuickOnly => selection == Selection::Quick,
            Schedule::Always => true,
            Schedule::Full => selection != Selection::Quick,
            Schedule::Long => selection == Selection::Long,
        }
    }
}

/// The default values of an entry of [`STEPS`].
const DEFAULT_STEP: Step =
    Step { name: "", summary: "", needs: &[], schedule: Schedule::Full, run: |_| Ok(()) };

/// The default values of an entry that runs with `--long` only.
const DEFAULT_LONG_STEP: Step = Step { schedule: Schedule::Long, ..DEFAULT_STEP };

#[allow(clippy::needless_update)] // an entry may set every field
const STEPS: &[Step] = &[
    Step {
        name: "format",
        summary: "the source is formatted by rustfmt",
        schedule: Schedule::Always,
        run: |log| log.cargo("fmt --all -- --check"),
        ..DEFAULT_STEP
    },
    Step {
        name: "hygiene",
        summary: "no file contains forbidden text, dead links or excluded words",
        schedule: Schedule::Always,
        run: hygiene::check,
        ..DEFAULT_STEP
    },
    Step {
        name: "clippy",
        summary: "no warning in any target",
        schedule: Schedule::Always,
        run: |log| {
            log.cargo("clippy --workspace --all-targets -- -D warnings")?;
            log.cargo("clippy --package vipool --features capi --all-targets -- -D warnings")
        },
        ..DEFAULT_STEP
    },
    Step {
        name: "header",
        summary: "include/vipool.h matches the source",
        run: |_| header::run(true),
        ..DEFAULT_STEP
    },
    Step {
        name: "symbols",
        summary: "shared objects export the listed symbols",
        needs: &["nm"],
        run: |_| symbols::run(true),
        ..DEFAULT_STEP
    },
    Step {
        name: "quick-tests",
        summary: "unit tests and the fast integration tests",
        schedule: Schedule::QuickOnly,
        run: |log| {
            log.cargo("test --package vipool --no-fail-fast --jobs 2 --lib --test map")?;
            log.cargo("test --package vipool-cli --package xtask --no-fail-fast --jobs 2 --bins")
        },
        ..DEFAULT_STEP
    },
    Step {
        name: "tests",
        summary: "all tests of the workspace",
        run: |log| log.cargo("test --workspace --no-fail-fast --jobs 2"),
        ..DEFAULT_STEP
    },
    Step {
        name: "tests-capi",
        summary: "the tests of the crate with its C ABI",
        run: |log| log.cargo("test --package vipool --features capi --no-fail-fast --jobs 2"),
        ..DEFAULT_STEP
    },
    Step {
        name: "cinstall",
        summary: "a C project outside the tree builds with the files that cargo-c installs",
        needs: &["cargo-cinstall", "pkg-config"],
        run: |log| {
            log.cargo(
                "test --package vipool --features capi --jobs 2 --test capi -- --ignored install",
            )
        },
        ..DEFAULT_LONG_STEP
    },
    Step {
        name: "doc",
        summary: "the documentation builds without warnings",
        run: |log| {
            for packages in ["--workspace", "--package vipool --features capi"] {
                let mut doc =
                    cargo(&format!("doc {packages} --no-deps --document-private-items --jobs 2"));
                doc.env("RUSTDOCFLAGS", "-D warnings");
                log.run(doc)?;
            }
            Ok(())
        },
        ..DEFAULT_STEP
    },
    Step {
        name: "deny",
        summary: "licences, versions and sources of the dependencies",
        needs: &["cargo-deny"],
        run: |log| log.cargo("deny --log-level error check licenses bans sources"),
        ..DEFAULT_STEP
    },
    Step {
        name: "macos",
        summary: "the crate compiles for macOS",
        needs: &["aarch64-apple-darwin"],
        run: |log| log.cargo("check --package vipool --target aarch64-apple-darwin"),
        ..DEFAULT_STEP
    },
    Step {
        name: "windows-msvc",
        summary: "the Windows code compiles for the MSVC target",
        needs: &["x86_64-pc-windows-msvc", "x86_64-w64-mingw32-gcc"],
        run: windows::check_msvc,
        ..DEFAULT_STEP
    },
    Step {
        name: "windows",
        summary: "the tests of the crate as Windows programs under Wine",
        needs: &wine::NEEDS,
        run: windows::crate_tests,
        ..DEFAULT_STEP
    },
    Step {
        name: "windows-hook",
        summary: "the hook layer for Windows in real programs under Wine",
        needs: windows::HOOK_NEEDS,
        run: windows::hook_tests,
        ..DEFAULT_STEP
    },
    Step {
        name: "loom",
        summary: "concurrent readers and a writer, in every order of loads and stores",
        run: checkers::loom,
        ..DEFAULT_STEP
    },
    Step {
        name: "miri",
        summary: "maps in memory under Miri: no undefined behaviour",
        needs: &["nightly", "miri", "rust-src"],
        run: checkers::miri,
        ..DEFAULT_LONG_STEP
    },
    Step {
        name: "address",
        summary: "maps in files under AddressSanitizer",
        needs: &["nightly"],
        run: checkers::address_sanitizer,
        ..DEFAULT_LONG_STEP
    },
    Step {
        name: "address-hook",
        summary: "the hook layer for Linux in programs under AddressSanitizer",
        needs: &["nightly"],
        run: checkers::address_sanitizer_hook,
        ..DEFAULT_LONG_STEP
    },
    Step {
        name: "thread",
        summary: "threads that share a map under ThreadSanitizer",
        needs: &["nightly", "rust-src"],
        run: checkers::thread_sanitizer,
        ..DEFAULT_LONG_STEP
    },
    Step {
        name: "fuzz",
        summary: "each fuzz target for a minute (an hour with --long)",
        needs: &["nightly", "c++"],
        run: fuzz::run,
        ..DEFAULT_STEP
    },
    Step {
        name: "aarch64",
        summary: "the unit tests and the hook layer for aarch64 under qemu",
        needs: &["aarch64-unknown-linux-gnu", "aarch64-linux-gnu-gcc", "qemu-aarch64"],
        run: aarch64,
        ..DEFAULT_LONG_STEP
    },
    Step {
        name: "suites",
        summary: "the socket tests of CPython, Node.js and libuv with the hook layer for Linux",
        needs: &["node-source", "libuv-source"],
        run: |log| {
            log.cargo(
                "test --package vipool-preload --test suites --jobs 2 -- --ignored --nocapture \
                 --test-threads 3",
            )
        },
        ..DEFAULT_LONG_STEP
    },
    Step {
        name: "peers",
        summary: "the comparison benches compile",
        run: |log| {
            log.cargo("clippy --manifest-path bench-peers/Cargo.toml --all-targets -- -D warnings")
        },
        ..DEFAULT_STEP
    },
];

fn aarch64(log: &mut Log) -> Result<(), Error> {
    let mut test = cargo("test --package vipool --lib --no-fail-fast --jobs 2");
    // qemu-user does not implement sock_diag, the kernel interface that lists sockets.
    test.args(["--target", "aarch64-unknown-linux-gnu", "--", "--skip", "os::listeners"]);
    test.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", "aarch64-linux-gnu-gcc");
    test.env(
        "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER",
        "qemu-aarch64 -L /usr/aarch64-linux-gnu",
    );
    log.run(test)?;
    log.cargo("test --package vipool-preload --test aarch64 --jobs 2 -- --ignored")
}

/// Returns the named steps, or the steps of the selection if no name is given.
///
/// # Errors
/// Returns an error if there is no step of a given name.
pub fn select(names: &[String], selection: Selection) -> Result<Vec<&'static Step>, Error> {
    if let Some(name) = names.iter().find(|name| STEPS.iter().all(|step| step.name != **name)) {
        return Err(format!("unknown step {name:?} (see `cargo xtask test --list`)").into());
    }
    let is_selected = |step: &&Step| match names {
        [] => step.is_selected(selection),
        names => names.iter().any(|name| name == step.name),
    };
    Ok(STEPS.iter().filter(is_selected).collect())
}

/// Returns the needs of these steps and all needs that no step declares. Individual tests may
/// declare the latter, so a step declares no need of a test.
pub fn needs_of(selected: &[&Step]) -> BTreeSet<&'static str> {
    let needs_declared_by = |steps: &mut dyn Iterator<Item = &Step>| -> BTreeSet<&'static str> {
        steps.flat_map(|step| step.needs).copied().collect()
    };
    let selected_needs = needs_declared_by(&mut selected.iter().copied());
    let step_needs = needs_declared_by(&mut STEPS.iter());
    let names = needs::ALL.iter().map(|need| need.name);
    names.filter(|name| selected_needs.contains(name) || !step_needs.contains(name)).collect()
}

/// Prints the steps with their needs.
pub fn list() {
    for step in STEPS {
        let schedule = match step.schedule {
            Schedule::QuickOnly => " (--quick only)",
            Schedule::Always => " (also --quick)",
            Schedule::Full => "",
            Schedule::Long => " (--long only)",
        };
        println!("{:<16} {}{schedule}", step.name, step.summary);
        for name in step.needs {
            println!("{:<16}   needs {name}: {}", "", needs::by_name(name).install_command());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_run_installs_the_needs_of_tests() {
        let full_steps = select(&[], Selection::Full).unwrap();
        let needs = needs_of(&full_steps);
        for name in ["cc", "ip", "node", "python3", "unshare"] {
            assert!(needs.contains(name), "{name}");
        }
        assert!(!needs.contains("miri"));
    }
}
