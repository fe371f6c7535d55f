//! Writes events and the actions of administrators to the history and to the system log.

use std::path::Path;

use anyhow::Context;

use crate::event_log;
use crate::history::{self, AdminAction, Retention};
use crate::system::caller;

/// Returns the id of this boot and network namespace.
pub fn current_boot() -> anyhow::Result<u64> {
    vipool::system::current_boot_id().context("cannot identify this boot in /proc")
}

/// Records completed actions in the history and in the system log.
///
/// # Errors
/// The history cannot be written.
fn record(directory: &Path, actions: &[AdminAction<'_>]) -> anyhow::Result<()> {
    if actions.is_empty() {
        return Ok(());
    }
    let append =
        || history::append_actions(directory, current_boot()?, actions, &caller::logged_on_user());
    let records = append().context("the history does not contain this command")?;
    event_log::log_records(directory, &records);
    Ok(())
}

/// Records a completed action as [`record`] does. On failure, prints a warning, because nothing
/// depends on the record.
pub fn record_or_warn(directory: &Path, action: AdminAction<'_>) {
    if let Err(error) = record(directory, &[action]) {
        errln!("vipool: {error:#}");
    }
}

/// Records completed drains or reservations as [`record`] does.
///
/// # Errors
/// The history cannot be written, so `vipool up` cannot apply the change to a new map.
pub fn record_change(directory: &Path, actions: &[AdminAction<'_>]) -> anyhow::Result<()> {
    record(directory, actions)
        .context("the change is done, but does not survive 'vipool down' (run the command again)")
}

/// Copies the new events of the map's journal to the history and to the system log.
///
/// `directory` is the directory of the map. `retention` limits the history; `None` keeps all
/// records.
///
/// # Errors
/// The history cannot be written.
pub fn record_events(directory: &Path, retention: Option<&Retention>) -> anyhow::Result<()> {
    let file = history::history_file(directory);
    let records =
        history::collect(directory, &file, retention).context("cannot update the history")?;
    event_log::log_records(directory, &records);
    Ok(())
}
