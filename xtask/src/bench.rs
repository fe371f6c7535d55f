//! The benches: criterion's, and tables of ratios measured within one run.

use crate::run::cargo;
use crate::{Error, succeed};

/// The tables: name, manifest and bench target.
const TABLES: &[(&str, &str, &str)] =
    &[("alloc", "bench-peers/Cargo.toml", "alloc"), ("hook", "hooks/linux/Cargo.toml", "hook")];

/// Runs the table that the first argument names, with the others, or all criterion benches.
pub fn run(arguments: &[String]) -> Result<(), Error> {
    let Some((name, arguments)) = arguments.split_first() else {
        return succeed(cargo("bench --package vipool"));
    };
    let (_, manifest, bench) =
        TABLES.iter().find(|(table, ..)| *table == *name).ok_or_else(|| {
            let names: Vec<&str> = TABLES.iter().map(|(table, ..)| *table).collect();
            format!("no bench {name:?}; there are: {}", names.join(", "))
        })?;
    let mut command = cargo(&format!("bench --quiet --manifest-path {manifest} --bench {bench}"));
    command.arg("--").args(arguments);
    succeed(command)
}
