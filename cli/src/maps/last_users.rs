//! The file that keeps the last user of every address over a restart of the machine.

use std::path::{Path, PathBuf};

use vipool::Tick;
use vipool::map::Map;
use vipool::system::map_directory;

/// Returns the file for the map in `directory`.
///
/// The system's map on Unix is in /run, which a restart empties, so its file is elsewhere.
fn file(directory: &Path) -> PathBuf {
    if cfg!(unix) && directory == map_directory() {
        PathBuf::from("/var/lib/vipool/last-users")
    } else {
        directory.join("last-users")
    }
}

/// Saves the last user of every address. A failure is only printed.
pub fn save(map: &Map, directory: &Path) {
    let file = file(directory);
    if let Some(parent) = file.parent() {
        let mut builder = std::fs::DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o750);
        // If this fails, the save below fails with the reason.
        let _ = builder.recursive(true).create(parent);
    }
    if let Err(error) = map.save_users(&file) {
        eprintln!("vipool: users may get different addresses after a restart: {error}");
    }
}

/// Restores the last user of every address into a new map. A failure is only printed.
pub fn restore(map: &Map, directory: &Path) {
    if let Err(error) = map.recall_users(&file(directory), Tick::now()) {
        eprintln!("vipool: users may get different addresses than before: {error}");
    }
}
