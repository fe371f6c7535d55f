//! Writes events and the actions of administrators to the history and to the system log.

use std::path::Path;

use anyhow::Context;

use crate::event_log;
use crate::history::{self, AdminAction, Retention};
use crate::system::caller;

/// Records completed actions in the history and in the system log. On failure, prints a warning.
pub fn record(directory: &Path, actions: &[AdminAction<'_>]) {
    if actions.is_empty() {
        return;
    }
    let append = || {
        let boot = vipool::system::current_boot_id()?;
        history::append_actions(directory, boot, actions, &caller::logged_on_user())
    };
    match append() {
        Ok(records) => event_log::log_records(directory, &records),
        Err(error) => errln!("vipool: the history does not contain this command: {error:#}"),
    }
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
