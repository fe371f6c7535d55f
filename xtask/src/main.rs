//! The maintenance commands of this repository. `cargo xtask help` lists them.

use std::process::{Command, ExitCode};

use lexopt::prelude::*;

mod bench;
mod checkers;
mod deb;
mod fuzz;
mod header;
mod help;
mod hygiene;
mod install;
mod library;
mod run;
mod steps;
mod symbols;
mod vocabulary;
mod windows;

use run::Selection;

/// An error with a text for the user.
type Error = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    match run_command() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("cargo xtask: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Parses the command line and runs the command. Returns `false` if a check or the demo failed.
fn run_command() -> Result<bool, Error> {
    let mut parser = lexopt::Parser::from_env();
    let command = match parser.next()? {
        Some(Value(name)) => name.string()?,
        None | Some(Short('h') | Long("help")) => "help".to_owned(),
        Some(argument) => return Err(argument.unexpected().into()),
    };
    let (mut operands, mut flags) = (Vec::new(), Vec::new());
    match &*command {
        // These commands pass their arguments to another program, except for a leading --help.
        "demo" | "bench" => {
            operands = parser.raw_args()?.map(|word| word.to_string_lossy().into_owned()).collect();
            if operands.first().is_some_and(|word| word == "--help" || word == "-h") {
                flags.push("help".to_owned());
            }
        }
        _ => {
            while let Some(argument) = parser.next()? {
                match argument {
                    Value(name) => operands.push(name.string()?),
                    Short('h') => flags.push("help".to_owned()),
                    Long(flag) => flags.push(flag.to_owned()),
                    argument => return Err(argument.unexpected().into()),
                }
            }
        }
    }
    if flags.iter().any(|flag| flag == "help") {
        return help::print(&command).map(|()| true);
    }
    let known_flags: &[&str] = match &*command {
        "test" => &["all", "long", "quick", "list"],
        "deb" => &["debug"],
        "header" | "symbols" => &["check"],
        _ => &[],
    };
    if let Some(flag) = flags.iter().find(|flag| !known_flags.contains(&&***flag)) {
        return Err(format!("unknown flag --{flag} (see `cargo xtask {command} --help`)").into());
    }
    let has_flag = |name: &str| flags.iter().any(|flag| flag == name);
    match &*command {
        "demo" => return demo(&operands),
        "bench" => bench::run(&operands)?,
        "test" if has_flag("list") => steps::list(),
        "test" => {
            let selection = match (has_flag("quick"), has_flag("long")) {
                (true, false) => Selection::Quick,
                (false, false) => Selection::Full,
                (false, true) => Selection::Long,
                (true, true) => return Err("--quick and --long exclude each other".into()),
            };
            return run::test(&operands, selection, has_flag("all"));
        }
        "header" => header::run(has_flag("check"))?,
        "symbols" => symbols::run(has_flag("check"))?,
        "library" => library::run()?,
        "deb" => deb::run(has_flag("debug"))?,
        "help" => match operands.first() {
            Some(name) => help::print(name)?,
            None => help::print_all(),
        },
        unknown => {
            return Err(format!("unknown command {unknown:?} (see `cargo xtask help`)").into());
        }
    }
    Ok(true)
}

/// Builds the preload object and the programs of the package `vipool-cli`, then runs `vipool demo`.
fn demo(arguments: &[String]) -> Result<bool, Error> {
    let preload = symbols::build(&symbols::PRELOAD)?;
    let vipool = run::target_dir().join("debug/vipool");
    let mut build = run::cargo("build --quiet --package vipool-cli");
    build.args(["--bins", "--examples"]);
    run_checked(build)?;
    let status =
        Command::new(vipool).arg("demo").args(arguments).env("VIPOOL_PRELOAD", preload).status()?;
    Ok(status.success())
}

/// Runs a command and returns an error unless it succeeds.
fn run_checked(mut command: Command) -> Result<(), Error> {
    let status = command.status().map_err(|error| format!("{command:?}: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("{command:?}: {status}").into()) }
}
