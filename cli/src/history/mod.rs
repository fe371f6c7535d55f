//! The history records which session and user held which address, and when.
//!
//! A map has a short journal of its latest events. [`collect()`] copies new events from the journal
//! to the history file of the map. [`pending()`] returns records of the events that are not in the
//! history yet. [`log`] writes and reads the history file. The history also contains the actions of
//! administrators ([`admin`]).

mod admin;
mod collect;
mod files;
mod log;
mod record;

use std::path::{Path, PathBuf};

use vipool::system::map_directory;

pub use admin::{AdminAction, AdminState, WHOLE_SERVER, append_actions, format_boot};
pub use collect::{collect, pending};
pub use log::{MAX_FILE_BYTES, Retention, read};
pub use record::{Record, RecordKind};

/// The history file of the system's map.
const SYSTEM_FILE: &str = "/var/lib/vipool/history.log";

/// Returns the history file of the map in `directory`.
pub fn history_file(directory: &Path) -> PathBuf {
    if directory == map_directory() { SYSTEM_FILE.into() } else { directory.join("history.log") }
}
