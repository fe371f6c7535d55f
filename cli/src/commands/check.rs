//! `vipool check`: validates a farm.toml and shows the pools of each server.

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Args;
use indicatif::HumanBytes;
use serde::Serialize;
use vipool::farm::{Farm, Finding, Level, Report};
use vipool::pool::{Pool, PoolKind};
use vipool::range::Range;

use super::farm_args::{FarmArgs, is_missing, machine_farm_file};
use crate::output::print_json;
use crate::table::table;
use crate::text::pluralize;

/// Check a farm.toml and show the pools of each server
///
/// Reports all findings in one run, each with file, line, value and remedy. An error means that
/// the file cannot be used. A warning means that the file works, but perhaps not as intended. The
/// check needs no privileges and can run on any machine. For /etc/vipool/farm.toml, the farm file
/// of this machine, the check also reports listed programs that do not exist.
/// 'vipool up' also excludes addresses that the server or another machine uses. 'vipool status'
/// shows these addresses.
///
/// The exit status is 0, or 1 if there are errors (with --strict also for warnings).
#[derive(Args)]
#[command(after_help = "Examples:
  vipool check
  vipool check ./farm.toml --server ts1 --strict")]
pub struct Check {
    #[command(flatten)]
    farm: FarmArgs,
    /// Show only the pools of this server
    #[arg(long, value_name = "NAME")]
    server: Option<String>,
    /// Print JSON: the findings, and the servers with their pools
    #[arg(long)]
    json: bool,
    /// Fail on warnings too
    #[arg(long)]
    strict: bool,
}

impl Check {
    /// Checks the file and prints the findings.
    pub fn run(self) -> Result<ExitCode> {
        let passed = check(&self.farm.path(), self.server.as_deref(), self.json, self.strict)?;
        Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// Checks a file, prints the findings, and returns whether the file passed.
fn check(file: &Path, server_name: Option<&str>, is_json: bool, is_strict: bool) -> Result<bool> {
    let (farm, mut report) = Farm::load(file);
    if file == machine_farm_file() {
        report.extend(farm.missing_programs(is_missing));
    }
    let servers = if report.has_text() { server_rows(&farm, server_name)? } else { Vec::new() };
    let passed = if is_strict { report.is_empty() } else { !report.has_errors() };
    if is_json {
        let findings = report.findings().iter().map(FindingRow::from).collect();
        let output = JsonOutput { file, passed, findings, servers };
        print_json(&output)?;
    } else {
        out!("{}", render(file, &report, &servers)?)?;
    }
    Ok(passed)
}

/// The output of `--json`.
#[derive(Serialize)]
struct JsonOutput<'a> {
    file: &'a Path,
    passed: bool,
    findings: Vec<FindingRow<'a>>,
    servers: Vec<ServerRow>,
}

#[derive(Serialize)]
struct FindingRow<'a> {
    level: String,
    code: &'a str,
    key: &'a str,
    value: &'a str,
    message: &'a str,
    remedy: &'a str,
    line: Option<usize>,
    column: Option<usize>,
}

#[derive(Serialize)]
struct ServerRow {
    /// `None` if the file names no servers. The file then applies to any machine.
    name: Option<String>,
    enabled: bool,
    /// 0 means no limit.
    max_sessions: u32,
    /// The number of bytes that the files of the map take.
    map_bytes: u64,
    pools: Vec<PoolRow>,
}

#[derive(Serialize)]
struct PoolRow {
    name: String,
    kind: &'static str,
    family: &'static str,
    /// Number of addresses for sessions. A session uses two addresses of a loopback range, which
    /// count as one.
    addresses: u32,
    first: Option<String>,
    last: Option<String>,
    ranges: Vec<String>,
}

impl<'a> From<&'a Finding> for FindingRow<'a> {
    fn from(finding: &'a Finding) -> Self {
        Self {
            level: finding.level.to_string(),
            code: finding.code,
            key: &finding.key,
            value: &finding.value,
            message: &finding.message,
            remedy: &finding.remedy,
            line: finding.position.map(|position| position.line),
            column: finding.position.map(|position| position.column),
        }
    }
}

fn server_rows(farm: &Farm, selected_name: Option<&str>) -> Result<Vec<ServerRow>> {
    if farm.servers.is_empty() {
        return Ok(vec![server_row(farm, None)]);
    }
    let names: Vec<&str> = match selected_name {
        None => farm.servers.iter().map(|server| &*server.name).collect(),
        Some(name) => match farm.find_server(name) {
            Some(server) => vec![&server.name],
            None => bail!("{}", farm.plan(name, None).findings[0]),
        },
    };
    Ok(names.into_iter().map(|name| server_row(farm, Some(name))).collect())
}

fn server_row(farm: &Farm, name: Option<&str>) -> ServerRow {
    let plan = farm.plan(name.unwrap_or_default(), None).plan;
    ServerRow {
        name: name.map(str::to_owned),
        enabled: name.and_then(|name| farm.find_server(name)).is_none_or(|server| server.enabled),
        max_sessions: plan.settings.max_sessions,
        map_bytes: plan.file_bytes(),
        pools: plan.pools.iter().map(pool_row).collect(),
    }
}

fn pool_row(pool: &Pool) -> PoolRow {
    let ranges = || pool.blocks().iter().map(|(_, range)| range);
    PoolRow {
        name: pool.name().to_owned(),
        kind: match pool.kind() {
            PoolKind::VirtualIp => "virtual-ip",
            PoolKind::Loopback => "loopback",
        },
        family: match pool.is_ipv4() {
            Some(true) => "IPv4",
            Some(false) => "IPv6",
            None => "none",
        },
        addresses: pool.slot_count(),
        first: ranges().next().map(|range| range.first().to_string()),
        last: ranges().next_back().map(|range| range.last().to_string()),
        ranges: ranges().map(Range::to_string).collect(),
    }
}

/// Formats the findings and the pools as text.
fn render(file: &Path, report: &Report, servers: &[ServerRow]) -> Result<String> {
    let mut text = String::new();
    write!(text, "{report}")?;
    for server in servers {
        let limit = match (server.enabled, server.max_sessions) {
            (false, _) => "disabled, no session gets an address".to_owned(),
            (true, 0) => "any number of sessions".to_owned(),
            (true, max_sessions) => {
                format!("at most {}", pluralize(max_sessions, "session", "sessions"))
            }
        };
        match &server.name {
            Some(name) => writeln!(text, "\nserver {name}: {limit}")?,
            None => writeln!(text, "\nany server: {limit}")?,
        }
        if server.pools.is_empty() {
            continue;
        }
        let mut pool_table = table(&["POOL", "FAMILY", "ADDRESSES#", "FIRST", "LAST", "RANGES"]);
        for pool in &server.pools {
            let text_or_dash =
                |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
            pool_table.add_row([
                pool.name.clone(),
                pool.family.to_owned(),
                pool.addresses.to_string(),
                text_or_dash(&pool.first),
                text_or_dash(&pool.last),
                abbreviate(&pool.ranges),
            ]);
        }
        writeln!(text, "{}", pool_table.trim_fmt())?;
        writeln!(text, "The map takes {}.", HumanBytes(server.map_bytes))?;
    }
    let (error_count, warning_count) = (report.count(Level::Error), report.count(Level::Warning));
    writeln!(
        text,
        "\n{}: {}, {}",
        file.display(),
        pluralize_or_no(error_count, "error", "errors"),
        pluralize_or_no(warning_count, "warning", "warnings")
    )?;
    Ok(text)
}

/// Joins the first ranges and counts the other ranges, so that the line does not become too long.
fn abbreviate(ranges: &[String]) -> String {
    const MAX_RANGES: usize = 3;
    let first_ranges = ranges[..ranges.len().min(MAX_RANGES)].join(", ");
    match ranges.len().saturating_sub(MAX_RANGES) {
        0 => first_ranges,
        omitted_count => format!("{first_ranges}, and {omitted_count} more"),
    }
}

/// Returns the number with its noun. Zero is "no": "no errors".
fn pluralize_or_no(number: usize, singular: &str, plural: &str) -> String {
    if number == 0 { format!("no {plural}") } else { pluralize(number, singular, plural) }
}
