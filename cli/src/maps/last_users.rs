//! Saves the last user of every address to a file, and copies the users from the file to a new map.
//! So a returning user can get the same address again after a restart.

use std::path::{Path, PathBuf};

use anyhow::Context;
use vipool::Tick;
use vipool::map::{Map, MapError};
use vipool::system::map_directory;
use vipool::trusted_file;

/// Returns the path of the file for the map in `directory`.
///
/// On Unix the system's map is in /run. A restart empties /run, so the file of this map is in
/// another directory.
fn file_path(directory: &Path) -> PathBuf {
    if cfg!(unix) && directory == map_directory() {
        PathBuf::from("/var/lib/vipool/last-users")
    } else {
        directory.join("last-users")
    }
}

/// Saves the last user of every address.
///
/// # Errors
/// The file cannot be read or written, or the map cannot be used.
pub fn save(map: &Map, directory: &Path) -> anyhow::Result<()> {
    let file = file_path(directory);
    if let Some(parent) = file.parent() {
        // If this fails, `save_users` below reports the reason.
        let _ = trusted_file::create_directory(parent, 0o750);
    }
    map.save_users(&file).context("users may get different addresses after a restart")
}

/// Copies the last user of every address from the file to a new map.
///
/// # Errors
/// The file cannot be read, or the map cannot be used.
pub fn restore(map: &Map, directory: &Path) -> Result<(), MapError> {
    map.restore_users(&file_path(directory), Tick::now()).map(drop)
}
