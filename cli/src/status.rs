//! `vipool status`: who has what.

use std::process::ExitCode;

use crate::place::Place;
use crate::report::{PoolReport, Report, SessionReport};
use crate::table::{print, table};
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
            pools(&report.pools);
            println!();
            sessions(&report.sessions);
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn pools(pools: &[PoolReport]) {
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
        let numbers = [
            pool.addresses,
            pool.free,
            pool.used,
            pool.cooling,
            pool.lingering,
            pool.reserved,
            pool.drained,
            pool.peak,
        ];
        let names = [pool.name.clone(), pool.kind.to_owned()];
        rows.add_row(names.into_iter().chain(numbers.map(|number| number.to_string())));
    }
    print(&rows);
}

/// The sessions as a table.
pub fn sessions(sessions: &[SessionReport]) {
    if sessions.is_empty() {
        println!("No session is open.");
        return;
    }
    let mut rows = table(&["SESSION", "USER", "CLIENT", "ADDRESSES", "SINCE"]);
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    for session in sessions {
        let since = session.since.to_zoned(TimeZone::system());
        rows.add_row([
            session.session.clone(),
            or_dash(session.user.clone()),
            or_dash(session.client.map(|client| client.to_string())),
            session.addresses(),
            since.strftime("%Y-%m-%d %H:%M:%S").to_string(),
        ]);
    }
    print(&rows);
}
