//! The help texts of all commands.

use crate::Error;

/// A command and its help text. The first line of the text is the summary.
struct Entry {
    name: &'static str,
    usage: &'static str,
    text: &'static str,
}

const COMMANDS: &[Entry] = &[
    Entry {
        name: "demo",
        usage: "demo [ARGUMENT...]",
        text: "\
Builds the programs that `vipool demo` starts, then runs `vipool demo`. The demo does not need root.

All arguments are passed to `vipool demo`.
",
    },
    Entry {
        name: "test",
        usage: "test [FLAG...] [STEP...]",
        text: "\
Runs all checks, or the named steps.

A test is skipped if one of its prerequisites is missing. The summary prints the
command that installs the prerequisite.

  --quick   format, hygiene, clippy and the fast tests: under two minutes after a build
  --all     install missing prerequisites first (apt, rustup, cargo); a skipped test fails the run
  --long    also the steps that take hours: fuzzing, 10,000 crash tests (each kills a writer or a
            reader), another architecture
  --list    print the steps with their prerequisites

Before a release, also run `cargo semver-checks --package vipool --baseline-rev TAG`. TAG is the
tag of the last release. This check is not a step, because installing cargo-semver-checks takes
longer than installing all other tools.
",
    },
    Entry {
        name: "bench",
        usage: "bench [NAME] [FLAG...]",
        text: "\
Runs all criterion benches, or one comparison bench: alloc, capi, history, hook.

  --json     print one object per row instead of a table
  --record   write the result to benches/record/DATE-NAME.jsonl, with a header that describes
             the machine; without NAME, write criterion's output to DATE-criterion.txt
All other flags are passed to the bench.
",
    },
    Entry {
        name: "library",
        usage: "library",
        text: "\
Builds libvipool.a and libvipool.so for C programs in target/library.

Only the functions of vipool.h are visible. The shared library has a SONAME and symbol versions.
Needs ld, objcopy, ar (binutils) and cc.
",
    },
    Entry {
        name: "deb",
        usage: "deb [--debug]",
        text: "\
Builds the Debian package (needs cargo-deb).

  --debug   package a debug build; the tests use this
",
    },
    Entry {
        name: "header",
        usage: "header [--check]",
        text: "\
Generates include/vipool.h from src/capi.

  --check   write nothing; fail if the result would differ
",
    },
    Entry {
        name: "symbols",
        usage: "symbols [--check]",
        text: "\
Writes the lists of exported symbols.

  --check   write nothing; fail if the result would differ
",
    },
    Entry {
        name: "help",
        usage: "help [COMMAND]",
        text: "Prints this list, or the help of one command.\n",
    },
];

/// Prints the help text of one command.
///
/// # Errors
/// Returns an error if there is no such command.
pub fn print(name: &str) -> Result<(), Error> {
    let entry = COMMANDS.iter().find(|entry| entry.name == name);
    let Entry { usage, text, .. } =
        entry.ok_or_else(|| format!("unknown command {name:?} (see `cargo xtask help`)"))?;
    println!("cargo xtask {usage}\n\n{}", text.trim_end());
    Ok(())
}

/// Prints the commands with their summaries.
pub fn print_all() {
    println!(
        "Maintenance commands of this repository. `cargo xtask COMMAND --help` describes a command.\n"
    );
    for Entry { usage, text, .. } in COMMANDS {
        println!("cargo xtask {usage:<26} {}", text.lines().next().unwrap_or_default());
    }
}
