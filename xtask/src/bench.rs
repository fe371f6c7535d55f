//! The benches: criterion's, and tables of ratios measured within one run.

use crate::run::cargo;
use crate::{Error, succeed};

/// The tables: name, package and bench target.
const TABLES: &[(&str, &str, &str)] =
    &[("alloc", "vipool-bench-peers", "alloc"), ("hook", "vipool-preload", "hook")];

/// Runs the named table, or all criterion benches of the crate.
pub fn run(name: Option<&str>, json: bool) -> Result<(), Error> {
    let Some(name) = name else {
        return succeed(cargo(["bench", "--package", "vipool"]));
    };
    let (_, package, bench) =
        TABLES.iter().find(|(table, ..)| *table == name).ok_or_else(|| {
            let names: Vec<&str> = TABLES.iter().map(|(table, ..)| *table).collect();
            format!("no bench {name:?}; there are: {}", names.join(", "))
        })?;
    let mut command = cargo(["bench", "--quiet", "--package", package, "--bench", bench]);
    if json {
        command.args(["--", "--json"]);
    }
    succeed(command)
}
