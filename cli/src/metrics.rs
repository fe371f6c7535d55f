//! `vipool metrics`: the numbers as OpenMetrics text.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;

use crate::place::Place;
use crate::report::{PoolReport, Report};

/// Print the numbers of the pools as OpenMetrics text
///
/// For node_exporter's textfile collector, write them to a file in its folder from a timer; the
/// file is replaced whole.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vipool metrics
  vipool metrics --output /var/lib/node_exporter/textfile_collector/vipool.prom")]
pub struct Metrics {
    /// Write to this file, by renaming, in place of standard output
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    place: Place,
}

impl Metrics {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let text = render(&Report::read(&self.place.directory()?, None)?);
        let Some(path) = self.output else {
            print!("{text}");
            return Ok(ExitCode::SUCCESS);
        };
        // The collector reads *.prom: it never sees the file being written.
        let new = path.with_extension(format!("new{}", std::process::id()));
        fs::write(&new, text)
            .and_then(|()| fs::rename(&new, &path))
            .inspect_err(|_| drop(fs::remove_file(&new)))
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// The text, after the OpenMetrics 1.0 specification.
fn render(report: &Report) -> String {
    let mut text = String::new();
    family(&mut text, "vipool_addresses", "Addresses of a pool by what they are doing.");
    for pool in &report.pools {
        for (state, number) in pool.states() {
            let labels = labels(pool);
            let _ = writeln!(text, "vipool_addresses{{{labels},state=\"{state}\"}} {number}");
        }
    }
    type Number = (&'static str, &'static str, fn(&PoolReport) -> u32);
    let numbers: [Number; 3] = [
        ("vipool_pool_size", "Addresses of a pool in all.", |pool| pool.addresses),
        ("vipool_addresses_peak", "The most addresses in use at once.", |pool| pool.peak),
        ("vipool_low", "1 if fewer addresses are free than the low-water mark.", |pool| {
            pool.low.into()
        }),
    ];
    for (name, help, number) in numbers {
        family(&mut text, name, help);
        for pool in &report.pools {
            let _ = writeln!(text, "{name}{{{}}} {}", labels(pool), number(pool));
        }
    }
    family(&mut text, "vipool_sessions", "Open sessions.");
    let _ = writeln!(text, "vipool_sessions {}", report.open_sessions);
    family(&mut text, "vipool_draining", "1 if no new session gets an address.");
    let _ = writeln!(text, "vipool_draining {}", u8::from(report.draining));
    text + "# EOF\n"
}

fn family(text: &mut String, name: &str, help: &str) {
    let _ = writeln!(text, "# TYPE {name} gauge\n# HELP {name} {help}");
}

fn labels(pool: &PoolReport) -> String {
    let name = pool.name.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    format!("pool=\"{name}\",kind=\"{}\",family=\"{}\"", pool.kind, pool.family)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_what_collectors_read() {
        let pool = PoolReport {
            name: "a \"b\"".into(),
            kind: "loopback",
            family: "ipv4",
            addresses: 10,
            free: 4,
            used: 3,
            cooling: 2,
            lingering: 0,
            reserved: 1,
            drained: 0,
            peak: 5,
            low: true,
        };
        let report = Report { pools: vec![pool], open_sessions: 3, ..Report::default() };
        let text = render(&report);
        let labels = r#"pool="a \"b\"",kind="loopback",family="ipv4""#;
        for line in [
            format!("vipool_addresses{{{labels},state=\"free\"}} 4"),
            format!("vipool_addresses{{{labels},state=\"cooling\"}} 2"),
            format!("vipool_pool_size{{{labels}}} 10"),
            format!("vipool_low{{{labels}}} 1"),
            "vipool_sessions 3".to_owned(),
            "vipool_draining 0".to_owned(),
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
        // Each family is said once and its samples stand together.
        let types: Vec<_> = text.lines().filter(|line| line.starts_with("# TYPE")).collect();
        assert_eq!(types.len(), 6);
    }
}
