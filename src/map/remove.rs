//! [`Map::remove`]: removes the files of a map that has no open session.

use super::engine::files;
use super::engine::logons::Logons;
use super::format::header::{BEING_REPLACED, SUPERSEDED};
use super::types::error::RemoveError;
use super::writer::Map;

impl Map {
    /// Removes a map that has no open session: the files `map` and `sessions`, and the records of
    /// logons. Needs no space on the file system. Programs that open the map later find no map.
    ///
    /// # Errors
    /// Fails if a session is open, another writer holds the lock, or a file cannot be removed.
    /// Never fails for a map in memory, which has no files.
    pub fn remove(self) -> Result<(), RemoveError> {
        let Some(directory) = self.directory() else { return Ok(()) };
        let mut locked = self.lock_for_writing(None)?;
        if locked.map.sessions().next().is_some() {
            return Err(RemoveError::OpenSessions);
        }
        // Mark the map as superseded, so that its readers look for a new map. If this process dies
        // before it removes the files, the next writer removes the mark.
        locked.map.writer().store_header(SUPERSEDED, BEING_REPLACED);
        files::remove(directory)?;
        // Without a map, no later reap removes the logon records.
        let _ = Logons::of_map(directory).remove_all();
        Ok(())
    }
}
