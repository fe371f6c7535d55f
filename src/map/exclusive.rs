//! A writer that has the map to itself: no lock but the one between processes, held all the time.

use super::engine::state::State;
use super::format::layout::HOLDER;
use super::format::region::store;
use super::types::outcome::{CloseError, ClosedSession, MapError, OpenError, OpenedSession};
use super::types::plan::{OpenOptions, pair};
use super::writer::{Map, Shared};
use crate::Tick;
use crate::session::{Handle, SessionId};

impl Map {
    /// The same operations without even a lock between threads, for a program in which one thread
    /// opens and closes all sessions. Holds the map, against other processes too, for as long as
    /// it lives.
    pub fn exclusive_writer(&mut self) -> Result<ExclusiveWriter<'_>, MapError> {
        let mut operation = self.begin()?;
        let shared = operation.shared.take();
        if shared.is_some() {
            store(operation.state.map.words(), HOLDER, pair(1, std::process::id()));
        }
        drop(operation);
        let keeps = self.exclusive;
        Ok(ExclusiveWriter { state: self.state.get_mut(), shared: self.shared.as_ref(), keeps })
    }
}

/// A writer that has the map to itself: see [`Map::exclusive_writer`].
#[derive(Debug)]
pub struct ExclusiveWriter<'a> {
    state: &'a mut State,
    shared: Option<&'a Shared>,
    /// Whether the map was held exclusively before, and stays so.
    keeps: bool,
}

impl ExclusiveWriter<'_> {
    /// As [`Map::open_session`].
    #[inline(always)]
    pub fn open_session(
        &mut self,
        session: SessionId,
        options: &OpenOptions<'_>,
        now: Tick,
    ) -> Result<OpenedSession, OpenError> {
        self.begin()?;
        if let Some(opened) = self.state.open_plain(session, options, now) {
            return Ok(opened);
        }
        self.state.open_anyhow(session, options, now)
    }

    /// As [`Map::close_by_handle`].
    #[inline(always)]
    pub fn close_by_handle(
        &mut self,
        handle: &Handle,
        now: Tick,
    ) -> Result<ClosedSession, CloseError> {
        self.begin()?;
        if let Some(closed) = self.state.close_plain(handle, now) {
            return Ok(closed);
        }
        self.state.close_anyhow(handle, now)
    }

    /// As [`Map::close_session`].
    #[inline(always)]
    pub fn close_session(
        &mut self,
        session: SessionId,
        now: Tick,
    ) -> Result<ClosedSession, CloseError> {
        self.begin()?;
        if let Some(closed) = self.state.close_session_plain(session, now) {
            return Ok(closed);
        }
        self.state.close_session_anyhow(session, now)
    }

    #[inline(always)]
    fn begin(&self) -> Result<(), MapError> {
        if self.shared.is_some_and(|shared| shared.lock.is_of_parent()) {
            return Err(MapError::Forked);
        }
        self.state.begin();
        Ok(())
    }
}

impl Drop for ExclusiveWriter<'_> {
    fn drop(&mut self) {
        if let (false, Some(shared)) = (self.keeps, self.shared)
            && !shared.lock.is_of_parent()
        {
            store(self.state.map.words(), HOLDER, 0);
            shared.lock.release();
        }
    }
}
