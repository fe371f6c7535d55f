//! `vipool status`: prints the pools and the open sessions as tables.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::process::ExitCode;

use crate::maps::report::{PoolReport, Report};
use crate::maps::selection::MapArgs;
use crate::maps::unusable::UnusableAddress;
use crate::output::print_json;
use crate::table::{local_time, render as render_table, table};
use crate::text::{escape, pluralize};

/// Show the pools and the open sessions with their addresses
///
/// Each logon is a session of its own, and so is each ssh connection. With 'session-per = "user"'
/// in the farm file, all logons of a user share one session.
///
/// Only root can see the users and clients of all sessions. Other users see the counts of the
/// pools and the session of their own logon.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vipool status
  vipool status --json | jq '.pools[] | {name, free}'")]
pub struct Status {
    /// Print JSON (docs/json.md describes the fields)
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    map: MapArgs,
}

impl Status {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let report = Report::read(&self.map.existing_directory()?)?;
        if self.json {
            print_json(&report)?;
        } else {
            out!("{}", render(&report))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Formats the status as text.
pub fn render(report: &Report) -> String {
    let mut text = render_pools(&report.pools);
    for pool in report.pools.iter().filter(|pool| pool.low) {
        let (name, low_water) = (escape(&pool.name), report.low_water);
        let free = pluralize(pool.free, "free address", "free addresses");
        let _ = writeln!(text, "Pool {name} is low: {free}, the low-water mark is {low_water}.");
    }
    for UnusableAddress { address, reason } in &report.unusable {
        let _ = writeln!(text, "Address {address} is not usable: {reason}.");
    }
    if report.draining {
        text.push_str("The server is drained: no new session gets an address.\n");
    }
    text + "\n" + &render_sessions(report) + session_note(report)
}

/// Returns a line that explains how logons and sessions are related. The line is empty if each
/// logon is a session and no user has several sessions.
fn session_note(report: &Report) -> &'static str {
    let users: Vec<_> = report.sessions.iter().filter_map(|row| row.user.as_ref()).collect();
    let distinct_users: HashSet<_> = users.iter().collect();
    if report.session_per == "user" {
        "All logons of a user share one session.\n"
    } else if distinct_users.len() < users.len() {
        "Each logon is a session of its own, and so is each ssh connection.\n"
    } else {
        ""
    }
}

fn render_pools(pools: &[PoolReport]) -> String {
    let mut pool_table = table(&[
        "POOL",
        "KIND",
        "ADDRESSES#",
        "FREE#",
        "USED#",
        "COOLING#",
        "LINGERING#",
        "RESERVED#",
        "DRAINED#",
        "PEAK#",
    ]);
    for pool in pools {
        let kind = match (pool.kind, pool.family) {
            ("virtual-ip", "ipv6") => "virtual-ip (IPv6)",
            (kind, _) => kind,
        };
        let state_counts = pool.state_counts().map(|(_, count)| count);
        let counts = [&[pool.addresses], &state_counts[..], &[pool.peak]].concat();
        let name_and_kind = [escape(&pool.name), kind.to_owned()];
        pool_table.add_row(name_and_kind.into_iter().chain(counts.iter().map(u32::to_string)));
    }
    render_table(&pool_table)
}

/// Formats the sessions as a table, and the number of open sessions that the report does not
/// contain.
pub fn render_sessions(report: &Report) -> String {
    if report.open_sessions == 0 {
        return "No session is open.\n".to_owned();
    }
    let hidden_sessions_note = match report.open_sessions - report.sessions.len() {
        0 => String::new(),
        hidden_count => format!(
            "Not shown: {} (only root can see the sessions of other users)\n",
            pluralize(hidden_count, "open session", "open sessions")
        ),
    };
    if report.sessions.is_empty() {
        return hidden_sessions_note;
    }
    let mut session_table = table(&["SESSION", "USER", "CLIENT", "ADDRESSES", "SINCE"]);
    for session in &report.sessions {
        // A user name may contain control characters, which the terminal would interpret.
        let user = session.user.as_deref().map(escape);
        let client = session.client.map(|client| client.to_string());
        session_table.add_row([
            session.session.clone(),
            user.unwrap_or_else(|| "-".to_owned()),
            client.unwrap_or_else(|| "-".to_owned()),
            session.addresses(),
            local_time(session.since),
        ]);
    }
    render_table(&session_table) + &hidden_sessions_note
}
