//! `vipool gc`: does the periodic maintenance of a map. A timer starts the command.

use std::process::ExitCode;
#[cfg(unix)]
use std::time::Duration;

#[cfg(unix)]
use anyhow::Context;
use vipool::map::Map;

use crate::maps::client::remove_stale_client_files;
use crate::maps::selection::MapArgs;
use crate::maps::{last_users, reap};
use crate::text::count;
#[cfg(unix)]
use crate::{event_log, history};

/// Free addresses that have cooled down and have no sockets, and close sessions whose leader has
/// exited
///
/// A released address becomes free for other sessions when it has cooled down and no socket is left
/// on it. A session is closed when two checks, at least ten seconds apart, find that its leader
/// process does not exist. The command writes the events since the last run to the history and to
/// the system log, and removes old history records. It saves the last user of each address, so that
/// users get the same addresses after a restart of the machine. Run this command from a timer.
/// The command is fast, and you can run it at any time.
#[derive(clap::Args)]
#[command(after_help = "Example, for cron(8):
  * * * * * root vipool gc --quiet")]
pub struct Gc {
    /// Print nothing unless the command fails
    #[arg(long, short)]
    quiet: bool,
    /// Print JSON
    #[arg(long, conflicts_with = "quiet")]
    json: bool,
    /// Remove history records that are older than this number of days; 0 keeps all records
    #[cfg(unix)]
    #[arg(long, value_name = "DAYS", default_value_t = 365)]
    keep_days: u32,
    /// Remove the oldest history records until the history is not larger than this size
    #[cfg(unix)]
    #[arg(long, value_name = "MIB", default_value_t = 80, value_parser = clap::value_parser!(u32).range(16..))]
    keep_mib: u32,
    #[command(flatten)]
    map: MapArgs,
}

impl Gc {
    #[cfg(unix)]
    fn retention(&self) -> history::Retention {
        let age = Duration::from_secs(u64::from(self.keep_days) * 24 * 3600);
        // `max_bytes` limits the rotated files only, so subtract the maximum size of the current
        // file.
        let max_bytes = (u64::from(self.keep_mib) << 20) - history::MAX_FILE_BYTES;
        history::Retention { max_age: (self.keep_days > 0).then_some(age), max_bytes }
    }

    pub fn run(self) -> anyhow::Result<ExitCode> {
        let directory = self.map.existing_directory()?;
        let map = Map::open(&directory)?;
        let summary = reap::reap_all(&map)?;
        #[cfg(unix)]
        let collect_result = history::collect(
            &directory,
            &history::history_file(&directory),
            Some(&self.retention()),
        );
        #[cfg(unix)]
        if let Ok(records) = &collect_result {
            event_log::log_records(&directory, records);
        }
        last_users::save(&map, &directory);
        remove_stale_client_files(&map, &directory);
        if self.json {
            outln!("{}", serde_json::to_string_pretty(&summary)?)?;
        } else if !self.quiet {
            outln!(
                "freed {}, closed {}; {} with open sockets",
                count(summary.freed, "address", "addresses"),
                count(summary.closed.len(), "session", "sessions"),
                count(summary.lingering, "address", "addresses")
            )?;
        }
        // Report this error last: a failure to write the history must not prevent the maintenance
        // of the map.
        #[cfg(unix)]
        collect_result.context("cannot update the history")?;
        Ok(ExitCode::SUCCESS)
    }
}
