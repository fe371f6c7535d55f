//! `vipool status`: who has what.

use std::fmt::Write as _;
use std::process::ExitCode;

use crate::place::Place;
use crate::report::{PoolReport, Report, SessionReport};
use crate::table::{render as render_table, table};
use jiff::tz::TimeZone;

/// Show the pools and who has which addresses.
///
/// Names and clients are in a file that only root may read: other users see the numbers of the
/// pools and the session of their own logon.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vipool status
  vipool status --json | jq '.pools[] | {name, free}'")]
pub struct Status {
    /// Print JSON (docs/json.md says what it holds)
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

impl Status {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let report = Report::read(&self.place.directory()?, crate::run::own_session().ok())?;
        if self.json {
            println!("{}", serde_json::to_string_pretty(&report)?);
        } else {
            print!("{}", render(&report));
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The whole status as text.
pub fn render(report: &Report) -> String {
    let mut text = pools(&report.pools);
    for pool in report.pools.iter().filter(|pool| pool.low) {
        let (name, free, mark) = (pool.name.escape_debug(), pool.free, report.low_water);
        let _ = writeln!(text, "Pool {name} is low: {free} free, below its mark of {mark}.");
    }
    if report.draining {
        text.push_str("The server is draining: no new session gets an address.\n");
    }
    text + "\n" + &sessions(&report.sessions)
}

fn pools(pools: &[PoolReport]) -> String {
    let mut rows = table(&[
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
        let numbers = pool.states().map(|(_, number)| number);
        let numbers = [&[pool.addresses], &numbers[..], &[pool.peak]].concat();
        let names = [pool.name.escape_debug().to_string(), kind.to_owned()];
        rows.add_row(names.into_iter().chain(numbers.iter().map(u32::to_string)));
    }
    render_table(&rows)
}

/// The sessions as a table.
pub fn sessions(sessions: &[SessionReport]) -> String {
    if sessions.is_empty() {
        return "No session is open.\n".to_owned();
    }
    let mut rows = table(&["SESSION", "USER", "CLIENT", "ADDRESSES", "SINCE"]);
    for session in sessions {
        let since = session.since.to_zoned(TimeZone::system());
        // A user's name may hold anything, also what a terminal would act on.
        let user = session.user.as_ref().map(|user| user.escape_debug().to_string());
        let client = session.client.map(|client| client.to_string());
        rows.add_row([
            session.session.clone(),
            user.unwrap_or_else(|| "-".to_owned()),
            client.unwrap_or_else(|| "-".to_owned()),
            session.addresses(),
            since.strftime("%Y-%m-%d %H:%M:%S").to_string(),
        ]);
    }
    render_table(&rows)
}
