//! Closing a session.
//!
//! The *anchor* of a session is its first lease in the order of the pools. A handle names the lease
//! that was the anchor when the handle was created; a lease that the session gets later can be the
//! new anchor. The engine releases the lease of the handle last, so that the caller can repeat an
//! interrupted close with the same handle. A close without a handle releases the anchor last.

use super::table_writer::TableWriter;
use super::transaction::Transaction;
use crate::Tick;
use crate::map::format::header::OPEN_SESSIONS;
use crate::map::format::index::LoadedBucket;
use crate::map::format::slot::RETIRED;
use crate::map::types::error::CloseError;
use crate::map::types::event::EventKind;
use crate::map::types::leases::{Leases, PackedLease};
use crate::map::types::outcome::ClosedSession;
use crate::map::types::plan::OpenOptions;
use crate::session::{Handle, SessionId};

/// A lease of a session, with the home bucket of the session in the index of the pool.
#[derive(Clone, Copy)]
struct HeldLease<'a> {
    pool: u16,
    table: TableWriter<'a>,
    home: LoadedBucket<'a>,
    slot: u32,
    generation: u32,
}

impl<'t> Transaction<'t> {
    /// Closes the session of a handle and commits the transaction.
    #[inline(always)]
    pub(crate) fn close_by_handle_and_commit(
        self,
        handle: &Handle,
        now: Tick,
    ) -> Result<ClosedSession, CloseError> {
        match self.close_by_handle_fast_path(handle, now) {
            Some(closed) => {
                self.commit();
                Ok(closed)
            }
            None => self.close_by_handle_slow_path_and_commit(handle, now),
        }
    }

    /// Closes a session and commits the transaction.
    #[inline(always)]
    pub(crate) fn close_session_and_commit(
        self,
        session: SessionId,
        now: Tick,
    ) -> Result<ClosedSession, CloseError> {
        match self.close_session_fast_path(session, now) {
            Some(closed) => {
                self.commit();
                Ok(closed)
            }
            None => self.close_session_slow_path_and_commit(session, now),
        }
    }

    #[inline(never)]
    fn close_by_handle_slow_path_and_commit(
        self,
        handle: &Handle,
        now: Tick,
    ) -> Result<ClosedSession, CloseError> {
        let Handle { session, pool, slot, generation, boot } = *handle;
        let table = self.table_writer(pool).filter(|table| table.is_live(handle));
        let (Some(table), true) = (table, boot == self.layout().boot) else {
            let is_foreign = boot != self.layout().boot;
            self.commit();
            return Err(if is_foreign { CloseError::Foreign } else { CloseError::Stale(session) });
        };
        let home = table.home_bucket(session.raw());
        let lease_of_handle = HeldLease { pool, table, home, slot, generation };
        let leases = self.release_session(session, lease_of_handle, now);
        self.commit();
        Ok(ClosedSession { leases })
    }

    #[inline(never)]
    fn close_session_slow_path_and_commit(
        self,
        session: SessionId,
        now: Tick,
    ) -> Result<ClosedSession, CloseError> {
        let leases = self.close_session(session, now);
        self.commit();
        leases.map(|leases| ClosedSession { leases }).ok_or(CloseError::NotOpen(session))
    }

    /// Closes a session. Returns the released leases; `None` if the session is not open.
    #[inline(always)]
    pub(crate) fn close_session(&self, session: SessionId, now: Tick) -> Option<Leases> {
        let anchor = self.held_leases(session).next()?;
        Some(self.release_session(session, anchor, now))
    }

    /// Finds the leases of a session, in the order of the pools.
    #[inline(always)]
    fn held_leases(
        &self,
        session: SessionId,
    ) -> impl DoubleEndedIterator<Item = HeldLease<'t>> + use<'t> {
        self.table_writers().filter_map(move |(pool, table)| {
            let home = table.home_bucket(session.raw());
            let (slot, generation) = table.find_lease(&home, session.raw())?;
            Some(HeldLease { pool, table, home, slot, generation })
        })
    }

    /// Releases all leases of a session. The last of them is `released_last`.
    #[inline(always)]
    fn release_session(
        &self,
        session: SessionId,
        released_last: HeldLease<'_>,
        now: Tick,
    ) -> Leases {
        let leases = if self.layout().pools().len() == 1 {
            let lease = self.release_lease(&released_last, now);
            lease.map_or_else(Leases::default, |lease| Leases::single(session, lease))
        } else {
            self.release_in_all_pools(session, released_last, now)
        };
        let options = OpenOptions::default();
        for lease in leases.packed() {
            let (kind, pool) = (EventKind::Released, lease.pool as u16);
            self.record_event(kind, session, pool, Some(lease), &options, now);
        }
        self.store_header(OPEN_SESSIONS, self.header(OPEN_SESSIONS).saturating_sub(1));
        leases
    }

    /// Releases all leases of a session in a map with several pools: first the other leases in the
    /// reverse order of the pools, then `released_last`.
    #[inline(never)]
    fn release_in_all_pools(
        &self,
        session: SessionId,
        released_last: HeldLease<'_>,
        now: Tick,
    ) -> Leases {
        let mut leases = Leases::default();
        let other_leases =
            self.held_leases(session).rev().filter(|lease| lease.pool != released_last.pool);
        for lease in other_leases.filter_map(|lease| self.release_lease(&lease, now)) {
            leases.push(session, lease);
        }
        if let Some(lease) = self.release_lease(&released_last, now) {
            leases.push(session, lease);
        }
        leases.sorted()
    }

    /// Releases one lease and returns it.
    #[inline(always)]
    fn release_lease(&self, lease: &HeldLease<'_>, now: Tick) -> Option<PackedLease> {
        let HeldLease { pool, table, home, slot, generation } = *lease;
        let layout = self.layout();
        table.release(&home, slot, layout.cools_down, self.new_stamp(now));
        if table.meta(slot).has_any(RETIRED) {
            self.hand_over(pool, table, slot);
        }
        table.update_low_water_warning(&layout.settings);
        self.packed_lease(pool, &table, slot, generation)
    }
}
