//! Opens and closes a session that several logons share. `engine/logons` describes the records of
//! these logons.

use std::io;
use std::path::Path;

use super::engine::files::MAP_FILE;
use super::engine::logons::{LOGONS_DIRECTORY, Logon, Logons};
use super::types::error::{CloseError, MapError, OpenError};
use super::types::outcome::{ClosedSession, OpenedSession};
use super::types::plan::{Leader, OpenOptions};
use super::writer::Map;
use crate::Tick;
use crate::session::{Handle, SessionId};

impl Map {
    /// Adds a logon to a session that several logons share. Opens the session if it is not open. A
    /// logon ends with [`Map::leave_session`] or with the exit of its process. The session stays
    /// open until its last logon has ended. The session keeps the client of its first logon.
    ///
    /// `process` is the process of this logon, see
    /// [`system::identify_process`](crate::system::identify_process). The leader in the options is
    /// ignored: the process of the first logon becomes the leader. Several logons can have the same
    /// process.
    ///
    /// # Errors
    /// Fails as [`Map::open_session`] does, or if the logon cannot be recorded in the directory of
    /// the map. Always fails for a map in memory.
    pub fn join_session(
        &self,
        session: SessionId,
        options: &OpenOptions<'_>,
        process: Leader,
        now: Tick,
    ) -> Result<OpenedSession, OpenError> {
        let directory = self.require_directory()?;
        let mut locked = self.lock_for_writing(Some(now))?;
        let is_open = locked.map.leases_of(session).next().is_some();
        let options = match is_open {
            true => OpenOptions { client: None, leader: None, ..*options },
            false => options.with_leader(process),
        };
        let opened = locked.map.begin().open_session_and_commit(session, &options, now)?;
        let logon = Logon { handle: opened.handle, process };
        if let Err(source) = Logons::of_map(directory).add(&logon) {
            if !opened.already_open {
                let _ = locked.map.begin().close_by_handle_and_commit(&opened.handle, now);
            }
            return Err(cannot_record_logon(&directory.join(LOGONS_DIRECTORY), source).into());
        }
        Ok(opened)
    }

    /// Ends a logon of a shared session. `process` is the process that [`Map::join_session`]
    /// received. Closes the session if it has no other logon. Returns the closed session, or `None`
    /// if the session has another logon and stays open.
    ///
    /// `has_exited` returns whether a process has exited, as [`Probe::has_exited`] does.
    ///
    /// [`Probe::has_exited`]: crate::map::Probe::has_exited
    ///
    /// # Errors
    /// Fails if the handle is stale or belongs to another boot, or the map cannot be used. Always
    /// fails for a map in memory.
    pub fn leave_session(
        &self,
        handle: &Handle,
        process: &Leader,
        mut has_exited: impl FnMut(&Leader) -> bool,
        now: Tick,
    ) -> Result<Option<ClosedSession>, CloseError> {
        let session = handle.session;
        let logons = Logons::of_map(self.require_directory()?);
        let mut locked = self.lock_for_writing(Some(now))?;
        // A stale handle must not remove the records of a later session with the same id.
        if locked.map.is_live(handle) {
            // A record that cannot be removed counts until its process has exited.
            let _ = logons.remove_one(session, process);
            let has_other_logon = locked.map.transact(|transaction| {
                let leader = transaction.leader_of(session).map(|(_, leader)| leader);
                leader.is_some_and(|leader| leader != *process && !has_exited(&leader))
                    || transaction.replace_leader(session, &logons, &mut has_exited)
            });
            if has_other_logon {
                return Ok(None);
            }
        }
        locked.map.begin().close_by_handle_and_commit(handle, now).map(Some)
    }

    /// Returns the directory of the map. Fails for a map in memory, which cannot record logons.
    fn require_directory(&self) -> Result<&Path, MapError> {
        self.directory().ok_or_else(|| {
            cannot_record_logon(MAP_FILE.as_ref(), io::ErrorKind::Unsupported.into())
        })
    }
}

fn cannot_record_logon(path: &Path, source: io::Error) -> MapError {
    MapError::Io { failure: "cannot record a logon in", path: path.to_owned(), source }
}
