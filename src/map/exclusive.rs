//! [`ExclusiveWriter`]: a writer without a lock between threads.

use super::engine::writer::WritableMap;
use super::types::error::{CloseError, MapError, OpenError};
use super::types::outcome::{ClosedSession, OpenedSession};
use super::types::plan::OpenOptions;
use super::writer::Map;
use super::writer_lock::WriterLock;
use crate::Tick;
use crate::os::fork::ProcessMark;
use crate::session::{Handle, SessionId};

impl Map {
    /// Returns a writer for a program in which one thread opens and closes all sessions. The writer
    /// needs no lock between threads. Until the writer is dropped, no other process can write to
    /// the map.
    ///
    /// # Errors
    /// Fails if another writer holds the lock, or the map cannot be used.
    pub fn exclusive_writer(&mut self) -> Result<ExclusiveWriter<'_>, MapError> {
        let process = self.process();
        let (map, lock, keeps_lock) = self.split_exclusive()?;
        Ok(ExclusiveWriter { map, lock, keeps_lock, process })
    }
}

/// A writer without a lock between threads, see [`Map::exclusive_writer`].
#[derive(Debug)]
pub struct ExclusiveWriter<'a> {
    map: &'a mut WritableMap,
    /// `None` for a map in memory.
    lock: Option<&'a WriterLock>,
    /// Whether the map already held the lock when this writer was created. If so, dropping the
    /// writer does not release the lock.
    keeps_lock: bool,
    process: ProcessMark,
}

impl ExclusiveWriter<'_> {
    /// Opens a session, see [`Map::open_session`].
    ///
    /// # Errors
    /// Fails as [`Map::open_session`] does.
    #[inline(always)]
    pub fn open_session(
        &mut self,
        session: SessionId,
        options: &OpenOptions<'_>,
        now: Tick,
    ) -> Result<OpenedSession, OpenError> {
        self.check_writable(now)?;
        self.map.begin().open_session_and_commit(session, options, now)
    }

    /// Closes the session of a handle, see [`Map::close_by_handle`].
    ///
    /// # Errors
    /// Fails as [`Map::close_by_handle`] does.
    #[inline(always)]
    pub fn close_by_handle(
        &mut self,
        handle: &Handle,
        now: Tick,
    ) -> Result<ClosedSession, CloseError> {
        self.check_writable(now)?;
        self.map.begin().close_by_handle_and_commit(handle, now)
    }

    /// Closes a session, see [`Map::close_session`].
    ///
    /// # Errors
    /// Fails as [`Map::close_session`] does.
    #[inline(always)]
    pub fn close_session(
        &mut self,
        session: SessionId,
        now: Tick,
    ) -> Result<ClosedSession, CloseError> {
        self.check_writable(now)?;
        self.map.begin().close_session_and_commit(session, now)
    }

    /// Returns an error in a child process after a fork, or if the files of the map were removed.
    #[inline(always)]
    fn check_writable(&self, now: Tick) -> Result<(), MapError> {
        if !self.process.is_current() {
            return Err(MapError::Forked);
        }
        self.lock.map_or(Ok(()), |lock| lock.check_exclusive(self.map, Some(now)))
    }
}

impl Drop for ExclusiveWriter<'_> {
    fn drop(&mut self) {
        if let (false, Some(lock)) = (self.keeps_lock, self.lock) {
            lock.end_exclusive(self.map);
        }
    }
}
