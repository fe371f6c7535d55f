//! `vipool gc`: the slow path, for a timer.

use std::process::ExitCode;
#[cfg(unix)]
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;
use vipool::map::Map;
use vipool::os::{clock, probe::SystemProbe};

use crate::place::{Place, save_users, sweep_clients};
#[cfg(unix)]
use crate::{events, history};

/// Addresses looked at in one hold of the lock: a fraction of a millisecond.
const BUDGET: u32 = 1024;

/// Free cooled addresses without sockets, and close sessions whose leader is gone
///
/// An address that was given back and has cooled down goes to another session only when no socket
/// is left on it. A session whose leader (the process that stands for it) is found gone twice,
/// ten seconds apart or more, is closed. What happened since the last time goes to the history and
/// to the system's log, what is too old goes from the history, and who had each address last is
/// saved, so that users get theirs again after a restart of the machine. Run it from a timer; it
/// is quick, and harmless at any time.
#[derive(clap::Args)]
#[command(after_help = "Example, for cron(8):
  * * * * * root vipool gc --quiet")]
pub struct Gc {
    /// Say nothing unless it fails
    #[arg(long, short)]
    quiet: bool,
    /// Print JSON
    #[arg(long, conflicts_with = "quiet")]
    json: bool,
    /// Remove what the history has of longer ago; 0 keeps it
    #[cfg(unix)]
    #[arg(long, value_name = "DAYS", default_value_t = 365)]
    keep_days: u32,
    /// Remove the oldest of a history that is larger than this
    #[cfg(unix)]
    #[arg(long, value_name = "MIB", default_value_t = 80, value_parser = clap::value_parser!(u32).range(16..))]
    keep_mib: u32,
    #[command(flatten)]
    place: Place,
}

/// What was found and done.
#[derive(Default, Serialize)]
pub struct Collected {
    pub freed: u32,
    pub lingering: u32,
    pub closed: Vec<String>,
}

/// Looks at every address that is not free and at every leader.
pub fn collect(map: &Map) -> anyhow::Result<Collected> {
    let mut probe = SystemProbe::new().context("cannot look at the sockets")?;
    let mut all = Collected::default();
    loop {
        let reaped = map.reap(clock::now(), BUDGET, &mut probe)?;
        all.freed += reaped.freed;
        all.lingering = all.lingering.max(reaped.lingering);
        all.closed.extend(reaped.closed.iter().map(|session| session.to_string()));
        if !reaped.more {
            return Ok(all);
        }
    }
}

impl Gc {
    /// What the history is to keep.
    #[cfg(unix)]
    fn keep(&self) -> history::Keep {
        let age = Duration::from_secs(u64::from(self.keep_days) * 24 * 3600);
        // The file in use is beside these.
        let bytes = (u64::from(self.keep_mib) << 20) - history::MOST_BYTES;
        history::Keep { age: (self.keep_days > 0).then_some(age), bytes }
    }

    pub fn run(self) -> anyhow::Result<ExitCode> {
        let directory = self.place.directory()?;
        let map = Map::open(&directory)?;
        let all = collect(&map)?;
        #[cfg(unix)]
        let told = history::collect(&directory, &history::file_of(&directory), Some(&self.keep()));
        #[cfg(unix)]
        if let Ok(records) = &told {
            events::tell(&directory, records);
        }
        save_users(&map, &directory);
        sweep_clients(&map, &directory);
        if self.json {
            println!("{}", serde_json::to_string_pretty(&all)?);
        } else if !self.quiet {
            println!(
                "{} addresses became free, {} still have sockets on them, {} sessions closed",
                all.freed,
                all.lingering,
                all.closed.len()
            );
        }
        // The map is in order by now, whatever became of its history.
        #[cfg(unix)]
        told.context("the history was not brought up to date")?;
        Ok(ExitCode::SUCCESS)
    }
}
