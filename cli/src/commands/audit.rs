//! Records the actions of administrators in the history and in the system log.

use std::path::Path;

use crate::event_log;
use crate::history::{self, AdminAction};
use crate::system::caller;

/// Records an action that is complete. Only prints a failure.
///
/// `boot` is the boot of the map in `directory`, or `None` without a map.
pub fn record(directory: &Path, boot: Option<u64>, action: AdminAction<'_>) {
    match history::append_action(directory, boot, action, caller::logged_on_user()) {
        Ok(record) => event_log::log_records(directory, &[record]),
        Err(error) => errln!("vipool: the history does not contain this command: {error:#}"),
    }
}
