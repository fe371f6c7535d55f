//! `vipool gc`: does the periodic maintenance of a map. A service or a timer runs the command.

use std::path::Path;
use std::process::ExitCode;
#[cfg(unix)]
use std::thread;
#[cfg(unix)]
use std::time::{Duration, Instant};

use vipool::map::Map;
#[cfg(unix)]
use vipool::map::{Journal, MAP_FILE};

#[cfg(unix)]
use super::audit;
use crate::maps::client::remove_stale_client_files;
use crate::maps::last_users;
use crate::maps::reap::{self, ReapSummary};
use crate::maps::selection::MapArgs;
use crate::output::print_json;
use crate::text::pluralize;
#[cfg(unix)]
use crate::{history, remedy};

/// The interval at which `gc --every` looks for new events.
#[cfg(unix)]
const JOURNAL_POLL_INTERVAL: Duration = Duration::from_millis(500);

/// Free addresses that have cooled down and have no sockets, and close sessions whose leader has
/// exited
///
/// A released address becomes free for other sessions when it has cooled down and no socket is left
/// on it. With 'check-in-use = false' in the farm file, the cool-down is sufficient. A session is
/// closed when two checks, at least ten seconds apart, find that its leader process does not exist.
/// The command writes the events since the last run to the history and to the system log, and
/// removes old history records. It saves the last user of each address, so that users get the same
/// addresses after a restart of the machine. The service vipool-gc runs this command with --every
/// 30. The command is fast, and you can run it at any time.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vipool gc
  vipool gc --every 30

Example for cron(8), without the service:
  * * * * * root vipool gc --quiet")]
pub struct Gc {
    /// Print nothing unless the command fails
    #[arg(long, short)]
    quiet: bool,
    /// Print JSON
    #[arg(long, conflicts_with = "quiet")]
    json: bool,
    /// Do not exit: do the maintenance every SECONDS seconds, and write events within a second
    /// after they happened. Print a line only if an address became free or a session was closed
    #[cfg(unix)]
    #[arg(long, value_name = "SECONDS", conflicts_with = "json", value_parser = clap::value_parser!(u64).range(1..))]
    every: Option<u64>,
    /// Remove history records that are older than this number of days; 0 means no limit on the age
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
        #[cfg(unix)]
        if let Some(seconds) = self.every {
            self.run_repeatedly(Duration::from_secs(seconds));
        }
        self.maintain(&self.map.existing_directory()?)?;
        Ok(ExitCode::SUCCESS)
    }

    /// Does the maintenance once per interval. Between these runs, writes new events of the journal
    /// to the history at each poll. While there is no map, waits for a map. A signal ends the
    /// process.
    #[cfg(unix)]
    fn run_repeatedly(&self, interval: Duration) -> ! {
        let mut next_maintenance = Instant::now();
        let mut collected_position = None;
        let mut last_error = None;
        loop {
            let directory = self.map.existing_directory().ok();
            let journal = directory.as_ref().and_then(|directory| Journal::open(directory).ok());
            if let (Some(directory), Some(journal)) = (directory, journal)
                && directory.join(MAP_FILE).exists()
            {
                let position = Some((journal.boot(), journal.next_number()));
                let result = if Instant::now() >= next_maintenance {
                    next_maintenance = Instant::now() + interval;
                    Some(self.maintain(&directory))
                } else if position != collected_position {
                    Some(audit::record_events(&directory, Some(&self.retention())))
                } else {
                    None
                };
                collected_position = position;
                if let Some(result) = result {
                    // Print a lasting error once, not at each interval.
                    let error = result.err().map(|error| remedy::describe(&error));
                    if let Some(error) = error.as_ref().filter(|_| error != last_error) {
                        errln!("vipool: {error}");
                    }
                    last_error = error;
                }
            }
            thread::sleep(JOURNAL_POLL_INTERVAL);
        }
    }

    fn maintain(&self, directory: &Path) -> anyhow::Result<()> {
        let map = Map::open(directory)?;
        let summary = reap::reap_all(&map)?;
        #[cfg(unix)]
        let collect_result = audit::record_events(directory, Some(&self.retention()));
        if let Err(error) = last_users::save(&map, directory) {
            errln!("vipool: {error:#}");
        }
        remove_stale_client_files(&map, directory);
        if self.json {
            print_json(&summary)?;
        } else if self.should_print(&summary) {
            outln!(
                "freed {}, closed {}; {} with open sockets",
                pluralize(summary.freed, "address", "addresses"),
                pluralize(summary.closed.len(), "session", "sessions"),
                pluralize(summary.lingering, "address", "addresses")
            )?;
        }
        // Report this error last: a failure to write the history must not prevent the maintenance
        // of the map.
        #[cfg(unix)]
        collect_result?;
        Ok(())
    }

    /// Returns whether the summary is printed. With `--every`, only a summary with a change is
    /// printed.
    fn should_print(&self, summary: &ReapSummary) -> bool {
        let has_change = summary.freed > 0 || !summary.closed.is_empty();
        #[cfg(unix)]
        let is_repeated = self.every.is_some();
        #[cfg(windows)]
        let is_repeated = false;
        !self.quiet && (has_change || !is_repeated)
    }
}
