//! `vipool metrics`: prints metrics of the pools and sessions as OpenMetrics text.

use std::fmt::Write as _;
use std::fs;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};

use crate::maps::report::{PoolReport, Report};
use crate::maps::selection::MapArgs;

/// Print metrics of the pools and sessions as OpenMetrics text
///
/// For node_exporter's textfile collector, run this command from a timer. Set --output to a file in
/// the collector's directory.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vipool metrics
  vipool metrics --output /var/lib/node_exporter/textfile_collector/vipool.prom")]
pub struct Metrics {
    /// Write to this regular file instead of standard output; the file is replaced atomically
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    map: MapArgs,
}

impl Metrics {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let text = render(&Report::read(&self.map.existing_directory()?)?);
        let Some(path) = self.output else {
            out!("{text}")?;
            return Ok(ExitCode::SUCCESS);
        };
        replace_file(&path, &text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Replaces a regular file atomically, or creates it.
///
/// # Errors
/// The path exists but is not a regular file (for example, it is a link or a device), or the file
/// cannot be written.
fn replace_file(path: &Path, text: &str) -> anyhow::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.is_file() => {
            bail!("it is not a regular file (omit --output to print the text)")
        }
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    // The collector reads only files named *.prom, so it does not read the temporary file.
    let mut builder = tempfile::Builder::new();
    builder.prefix(".vipool-metrics");
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644));
    let mut file = builder.tempfile_in(directory.unwrap_or(Path::new(".")))?;
    file.write_all(text.as_bytes())?;
    file.persist(path)?;
    Ok(())
}

/// Formats the report according to the OpenMetrics 1.0 specification.
fn render(report: &Report) -> String {
    let mut text = String::new();
    write_family_header(&mut text, "vipool_addresses", "Addresses of a pool by state.");
    for pool in &report.pools {
        for (state, count) in pool.state_counts() {
            let labels = labels(pool);
            let _ = writeln!(text, "vipool_addresses{{{labels},state=\"{state}\"}} {count}");
        }
    }
    type Gauge = (&'static str, &'static str, fn(&PoolReport) -> u32);
    let gauges: [Gauge; 3] = [
        ("vipool_pool_size", "Total number of addresses in a pool.", |pool| pool.addresses),
        ("vipool_addresses_peak", "Highest number of addresses in use at one time.", |pool| {
            pool.peak
        }),
        ("vipool_low", "1 if fewer addresses are free than the low-water mark.", |pool| {
            pool.low.into()
        }),
    ];
    for (name, help, read_value) in gauges {
        write_family_header(&mut text, name, help);
        for pool in &report.pools {
            let _ = writeln!(text, "{name}{{{}}} {}", labels(pool), read_value(pool));
        }
    }
    write_family_header(
        &mut text,
        "vipool_unusable_addresses",
        "Addresses that vipool up could not use.",
    );
    let _ = writeln!(text, "vipool_unusable_addresses {}", report.unusable.len());
    write_family_header(&mut text, "vipool_sessions", "Open sessions.");
    let _ = writeln!(text, "vipool_sessions {}", report.open_sessions);
    write_family_header(&mut text, "vipool_draining", "1 if no new session gets an address.");
    let _ = writeln!(text, "vipool_draining {}", u8::from(report.draining));
    text + "# EOF\n"
}

fn write_family_header(text: &mut String, name: &str, help: &str) {
    let _ = writeln!(text, "# TYPE {name} gauge\n# HELP {name} {help}");
}

fn labels(pool: &PoolReport) -> String {
    let name = pool.name.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    format!("pool=\"{name}\",kind=\"{}\",family=\"{}\"", pool.kind, pool.family)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::maps::unusable::UnusableAddress;

    #[test]
    fn text_has_samples_and_declares_each_family_once() {
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
        let unusable = UnusableAddress {
            address: "10.0.5.17".parse().unwrap(),
            reason: "another host uses it".into(),
        };
        let (pools, unusable) = (vec![pool], vec![unusable]);
        let report = Report { pools, unusable, open_sessions: 3, ..Report::default() };
        let text = render(&report);
        let labels = r#"pool="a \"b\"",kind="loopback",family="ipv4""#;
        for line in [
            format!("vipool_addresses{{{labels},state=\"free\"}} 4"),
            format!("vipool_addresses{{{labels},state=\"cooling\"}} 2"),
            format!("vipool_pool_size{{{labels}}} 10"),
            format!("vipool_low{{{labels}}} 1"),
            "vipool_unusable_addresses 1".to_owned(),
            "vipool_sessions 3".to_owned(),
            "vipool_draining 0".to_owned(),
        ] {
            assert!(text.lines().any(|text_line| text_line == line), "{line} is not in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
        let type_lines: Vec<_> = text.lines().filter(|line| line.starts_with("# TYPE")).collect();
        assert_eq!(type_lines.len(), 7);
    }
}
