//! The chores of the repository: `cargo xtask help` lists them.

use std::process::{Command, ExitCode};

use lexopt::prelude::*;

mod bench;
mod checkers;
mod deb;
mod fuzz;
mod header;
mod hygiene;
mod install;
mod run;
mod steps;
mod symbols;
mod windows;

const HELP: &str = "\
The chores of this repository.

cargo xtask demo [ARGUMENT…]   build what is needed and run `vipool demo` (no root needed)
cargo xtask test [STEP…]       run all checks, or those named; what needs something absent is skipped,
                               and the line that installs it is printed at the end
           --all               install what is missing first (apt, rustup, cargo) and skip nothing
           --long              also what takes hours: fuzzing, 10,000 kills, another architecture
           --list              print the steps and what they need
cargo xtask bench [NAME]       all criterion benches, or one of the tables: alloc, capi, hook
           --json              one object per row instead of a table; other flags go to the bench
           --record            the same into benches/record/DATE-NAME.jsonl, below what the machine is;
                               without a NAME what criterion says, into DATE-criterion.txt
cargo xtask deb                make the Debian package (needs cargo-deb)
           --debug             with the unoptimised command, as the tests do
cargo xtask header             write include/vipool.h again
cargo xtask symbols            write the lists of exported symbols again
           --check             (both) only compare; fails on a difference
";

/// What went wrong, for a person to read.
type Error = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    match chore() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("cargo xtask: {error}");
            ExitCode::FAILURE
        }
    }
}

fn chore() -> Result<bool, Error> {
    let mut arguments = lexopt::Parser::from_env();
    let chore = match arguments.next()? {
        Some(Value(name)) => name.string()?,
        None | Some(Short('h') | Long("help")) => "help".to_owned(),
        Some(other) => return Err(other.unexpected().into()),
    };
    let raw = |mut parser: lexopt::Parser| -> Result<Vec<String>, Error> {
        Ok(parser.raw_args()?.map(|word| word.to_string_lossy().into_owned()).collect())
    };
    match &*chore {
        "demo" => return demo(&raw(arguments)?),
        "bench" => return bench::run(&raw(arguments)?).map(|()| true),
        _ => {}
    }
    let (mut names, mut flags) = (Vec::new(), Vec::new());
    while let Some(argument) = arguments.next()? {
        match argument {
            Value(name) => names.push(name.string()?),
            Long(flag) => flags.push(flag.to_owned()),
            other => return Err(other.unexpected().into()),
        }
    }
    let known: &[&str] = match &*chore {
        "test" => &["all", "long", "list"],
        "deb" => &["debug"],
        "header" | "symbols" => &["check"],
        _ => &[],
    };
    if let Some(flag) = flags.iter().find(|flag| !known.contains(&&***flag)) {
        return Err(format!("`{chore}` has no --{flag}; see `cargo xtask help`").into());
    }
    let flag = |name: &str| flags.iter().any(|flag| flag == name);
    match &*chore {
        "test" if flag("list") => steps::list(),
        "test" => return run::test(&names, flag("all"), flag("long")),
        "header" => header::run(flag("check"))?,
        "symbols" => symbols::run(flag("check"))?,
        "deb" => deb::run(flag("debug"))?,
        "help" => print!("{HELP}"),
        other => return Err(format!("no chore {other:?}; see `cargo xtask help`").into()),
    }
    Ok(true)
}

/// Builds the command and the preload object and runs `vipool demo`.
fn demo(arguments: &[String]) -> Result<bool, Error> {
    let preload = symbols::build(&symbols::PRELOAD)?;
    let vipool = run::target_dir().join("debug/vipool");
    let mut build = run::cargo("build --quiet --package vipool-cli");
    build.args(["--bins", "--examples"]);
    succeed(build)?;
    let status =
        Command::new(vipool).arg("demo").args(arguments).env("VIPOOL_PRELOAD", preload).status()?;
    Ok(status.success())
}

/// Runs a command whose failure is ours.
fn succeed(mut command: Command) -> Result<(), Error> {
    let status = command.status().map_err(|error| format!("{command:?}: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("{command:?}: {status}").into()) }
}
