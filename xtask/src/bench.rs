//! The benches: criterion's, and tables of ratios measured within one run.

use std::fs::{self, File};
use std::io::Write as _;
use std::process::Command;

use crate::run::{cargo, root};
use crate::{Error, succeed};

/// The tables: name (that of the bench target too), and the manifest with what else cargo is told.
const TABLES: &[(&str, &str)] = &[
    ("alloc", "bench-peers/Cargo.toml"),
    ("capi", "Cargo.toml --package vipool --features capi"),
    ("hook", "hooks/linux/Cargo.toml"),
];

/// Runs the table that the first argument names, with the others, or all criterion benches.
pub fn run(arguments: &[String]) -> Result<(), Error> {
    let (name, arguments) = match arguments.split_first() {
        None => return succeed(cargo("bench --package vipool")),
        Some((record, [])) if record == "--record" => {
            let mut command = cargo("bench --quiet --package vipool -- --quiet --noplot");
            command.stdout(record_of("criterion", "txt", "cargo xtask bench")?);
            return succeed(command);
        }
        Some(table) => table,
    };
    let (_, manifest) = TABLES.iter().find(|(table, _)| *table == *name).ok_or_else(|| {
        let names: Vec<&str> = TABLES.iter().map(|(table, _)| *table).collect();
        format!("no bench {name:?}; there are: {}", names.join(", "))
    })?;
    let mut command = cargo(&format!("bench --quiet --manifest-path {manifest} --bench {name}"));
    let (record, arguments): (Vec<_>, Vec<_>) =
        arguments.iter().partition(|argument| *argument == "--record");
    command.arg("--").args(arguments);
    if !record.is_empty() {
        let ran = format!("cargo xtask bench {name} --json");
        command.arg("--json").stdout(record_of(name, "jsonl", &ran)?);
    }
    succeed(command)
}

/// The file for the record of a bench, begun with what was run.
fn record_of(name: &str, extension: &str, ran: &str) -> Result<File, Error> {
    let date = said("date", "-u +%F");
    let path = root().join(format!("benches/record/{date}-{name}.{extension}"));
    let mut file = File::create(&path)?;
    file.write_all(circumstances(ran).as_bytes())?;
    println!("into {}", path.display());
    Ok(file)
}

/// The head of a record: what was run, on which machine, and what else ran on it.
fn circumstances(ran: &str) -> String {
    let processor = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let processor = processor
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown processor", |(_, name)| name)
        .to_owned();
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    format!(
        "# {ran} at {}, {}\n# {processors} x {processor}, {}, {}; load before it {}\n",
        said("git", "rev-parse --short HEAD"),
        said("date", "-u +%F"),
        said("uname", "-srm"),
        said("rustc", "--version"),
        load.split(' ').next().unwrap_or("unknown"),
    )
}

/// What a command says, or that it does not.
fn said(program: &str, arguments: &str) -> String {
    let output = Command::new(program).args(arguments.split(' ')).current_dir(root()).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    text.ok().filter(|text| !text.is_empty()).unwrap_or_else(|| format!("no {program}"))
}
