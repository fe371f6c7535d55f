//! Closing a session.
//!
//! The *anchor* of a session is its first lease in the order of the pools. The handle names the
//! anchor. The engine releases the anchor last, so a caller can repeat an interrupted close with
//! the same handle.

use super::table_writer::TableWriter;
use super::transaction::Transaction;
use crate::Tick;
use crate::map::format::header::OPEN_SESSIONS;
use crate::map::format::index::HomeBucket;
use crate::map::format::slot::RETIRED;
use crate::map::types::error::CloseError;
use crate::map::types::event::EventKind;
use crate::map::types::leases::Leases;
use crate::map::types::outcome::ClosedSession;
use crate::map::types::plan::OpenOptions;
use crate::session::{Handle, SessionId};

/// A lease of a session, with the home bucket of the session in the index of the pool.
struct HeldLease<'a> {
    pool: u16,
    table: TableWriter<'a>,
    home: HomeBucket<'a>,
    slot: u32,
    generation: u32,
}

impl<'t> Transaction<'t> {
    /// Closes the session of a handle.
    #[inline(always)]
    pub(crate) fn close_by_handle(
        &self,
        handle: &Handle,
        now: Tick,
    ) -> Result<ClosedSession, CloseError> {
        match self.close_by_handle_fast_path(handle, now) {
            Some(closed) => Ok(closed),
            None => self.close_by_handle_slow_path(handle, now),
        }
    }

    /// Closes a session.
    #[inline(always)]
    pub(crate) fn close_session(
        &self,
        session: SessionId,
        now: Tick,
    ) -> Result<ClosedSession, CloseError> {
        match self.close_session_fast_path(session, now) {
            Some(closed) => Ok(closed),
            None => self.close_session_slow_path(session, now),
        }
    }

    #[inline(never)]
    fn close_by_handle_slow_path(
        &self,
        handle: &Handle,
        now: Tick,
    ) -> Result<ClosedSession, CloseError> {
        let Handle { session, pool, slot, generation, boot } = *handle;
        if boot != self.layout().boot {
            return Err(CloseError::Foreign);
        }
        let Some(table) = self.table_writer(pool).filter(|table| table.is_lease_of(handle)) else {
            return Err(CloseError::Stale(session));
        };
        let home = table.home_bucket(session.raw());
        let anchor = HeldLease { pool, table, home, slot, generation };
        Ok(self.release_session(session, &anchor, now))
    }

    #[inline(never)]
    fn close_session_slow_path(
        &self,
        session: SessionId,
        now: Tick,
    ) -> Result<ClosedSession, CloseError> {
        match self.held_leases(session).next() {
            Some(anchor) => Ok(self.release_session(session, &anchor, now)),
            None => Err(CloseError::NotOpen(session)),
        }
    }

    /// Finds the leases of a session, in the order of the pools.
    #[inline(always)]
    fn held_leases(
        &self,
        session: SessionId,
    ) -> impl DoubleEndedIterator<Item = HeldLease<'t>> + use<'t> {
        self.table_writers().filter_map(move |(pool, table)| {
            let home = table.home_bucket(session.raw());
            let (slot, generation) = table.lease_in(&home, session.raw())?;
            Some(HeldLease { pool, table, home, slot, generation })
        })
    }

    /// Releases all leases of a session, the anchor last.
    #[inline(always)]
    fn release_session(
        &self,
        session: SessionId,
        anchor: &HeldLease<'_>,
        now: Tick,
    ) -> ClosedSession {
        let mut leases = Leases::default();
        if self.layout().pools().len() > 1 {
            leases = self.release_others(session, anchor.pool, now);
        }
        self.release_lease(&mut leases, session, anchor, now);
        if leases.packed().len() > 1 {
            leases = leases.sorted();
        }
        let options = OpenOptions::default();
        self.record_event(EventKind::Released, session, &leases, &options, now);
        self.store_header(OPEN_SESSIONS, self.header(OPEN_SESSIONS).saturating_sub(1));
        ClosedSession { leases }
    }

    /// Releases the leases of a session in all pools except `anchor_pool`. Begins with the last
    /// pool.
    #[inline(never)]
    fn release_others(&self, session: SessionId, anchor_pool: u16, now: Tick) -> Leases {
        let mut leases = Leases::default();
        for lease in self.held_leases(session).rev().filter(|lease| lease.pool != anchor_pool) {
            self.release_lease(&mut leases, session, &lease, now);
        }
        leases
    }

    #[inline(always)]
    fn release_lease(
        &self,
        leases: &mut Leases,
        session: SessionId,
        lease: &HeldLease<'_>,
        now: Tick,
    ) {
        let HeldLease { pool, table, home, slot, generation } = lease;
        let layout = self.layout();
        table.release(home, *slot, layout.cools_down, self.new_stamp(now));
        if table.meta(*slot).has_any(RETIRED) {
            self.hand_over(*pool, table, *slot);
        }
        table.update_low_water(&layout.settings);
        self.push_lease(leases, session, *pool, table, *slot, *generation);
    }
}
