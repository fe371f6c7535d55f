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
    let Some((name, arguments)) = arguments.split_first() else {
        return succeed(cargo("bench --package vipool"));
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
        let path = root().join(format!("benches/record/{}-{name}.jsonl", said("date", "-u +%F")));
        let mut file = File::create(&path)?;
        file.write_all(circumstances(name).as_bytes())?;
        command.arg("--json").stdout(file);
        println!("into {}", path.display());
    }
    succeed(command)
}

/// The head of a record: what was measured, on which machine, and what else ran on it.
fn circumstances(name: &str) -> String {
    let processor = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let processor = processor
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown processor", |(_, name)| name)
        .to_owned();
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    format!(
        "# cargo xtask bench {name} --json at {}, {}\n# {processors} x {processor}, {}, {}; load before it {}\n",
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
