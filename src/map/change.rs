//! What administrators and agents change beside sessions: addresses drained and reserved, the restore
//! after a start, the look at what is idle or dead.

use std::net::IpAddr;

use super::layout::{DRAINING, READY};
use super::outcome::{ChangeError, Changed, MapError, SessionRow};
use super::plan::{Leader, Tick};
use super::reap::{Probe, Reaped, reap};
use super::region::store;
use super::slot::{DRAINED, Owner, PLANNED, RESERVED, user_tag};
use super::writer::Map;
use crate::range::Range;
use crate::session::SessionId;

impl Map {
    /// Takes addresses out of use: no session gets them; those that have them keep them.
    pub fn drain(&self, range: &Range, now: Tick) -> Result<Changed, MapError> {
        self.change_flags(range, DRAINED, 0, now)
    }

    /// Puts drained addresses back into use.
    pub fn undrain(&self, range: &Range, now: Tick) -> Result<Changed, MapError> {
        self.change_flags(range, 0, DRAINED, now)
    }

    /// Whether the whole server drains: no new session gets an address.
    pub fn drain_server(&self, draining: bool) -> Result<(), MapError> {
        store(self.begin()?.state.map.words(), DRAINING, draining.into());
        Ok(())
    }

    /// Keeps an address for a user from now on. A session that has it keeps it.
    pub fn reserve(&self, address: IpAddr, user: &str, now: Tick) -> Result<Changed, ChangeError> {
        self.change_reservation(address, now, |sessions_tag, reserved| {
            match (reserved, sessions_tag == user_tag(user)) {
                (true, false) => Err(ChangeError::ReservedForAnother(address)),
                _ => Ok((RESERVED, 0, Some(user_tag(user)))),
            }
        })
    }

    /// Keeps an address for nobody any more.
    pub fn unreserve(&self, address: IpAddr, now: Tick) -> Result<Changed, ChangeError> {
        self.change_reservation(address, now, |_, reserved| match reserved {
            true => Ok((0, RESERVED | PLANNED, None)),
            false => Err(ChangeError::NotReserved(address)),
        })
    }

    /// Says that the sessions of the operating system are restored: "not ready" ends.
    pub fn restored(&self) -> Result<(), MapError> {
        store(self.begin()?.state.map.words(), READY, 1);
        Ok(())
    }

    /// Closes every session of which `is_alive` says no, then ends "not ready": to be called with
    /// the operating system's list of sessions before the first session is opened.
    pub fn reconcile(
        &self,
        now: Tick,
        mut is_alive: impl FnMut(SessionId, Option<&Leader>) -> bool,
    ) -> Result<Vec<SessionId>, MapError> {
        let operation = self.begin()?;
        let sessions = operation.state.sessions();
        let rows: Vec<SessionRow> = sessions.rows().collect();
        let gone = rows.iter().filter(|row| !is_alive(row.session, row.leader.as_ref()));
        let closed = gone
            .filter(|row| sessions.close_session(row.session, now).is_ok())
            .map(|row| row.session)
            .collect();
        store(sessions.words, READY, 1);
        Ok(closed)
    }

    /// The slow path: closes sessions whose leader is gone (seen dead twice, [`super::LEADER_GRACE`]
    /// apart), and frees cooled addresses without sockets. Looks at up to `budget` addresses of
    /// each pool; call it again while [`Reaped::more`] is set.
    pub fn reap(&self, now: Tick, budget: u32, probe: &mut dyn Probe) -> Result<Reaped, MapError> {
        Ok(reap(self.begin()?.state.sessions(), now, budget, probe))
    }

    /// Derives queues, index and counters from the slots again, as is done by itself after the
    /// death of a writer.
    pub fn recover(&self) -> Result<(), MapError> {
        self.begin()?.state.sessions().rebuild();
        Ok(())
    }

    fn change_flags(
        &self,
        range: &Range,
        set: u32,
        clear: u32,
        now: Tick,
    ) -> Result<Changed, MapError> {
        let operation = self.begin()?;
        let sessions = operation.state.sessions();
        let mut changed = Changed::default();
        for (_, table) in sessions.tables() {
            for slot in 0..table.pool.slots {
                let address = table.pool.address(sessions.words, slot);
                if address.is_some_and(|address| range.contains(address)) {
                    table.change_flags(slot, set, clear, None, sessions.stamp(now));
                    changed.addresses += 1;
                    changed.held += u32::from(matches!(table.owner(slot), Owner::Session(_)));
                }
            }
        }
        Ok(changed)
    }

    fn change_reservation(
        &self,
        address: IpAddr,
        now: Tick,
        decide: impl FnOnce(u32, bool) -> Result<(u32, u32, Option<u32>), ChangeError>,
    ) -> Result<Changed, ChangeError> {
        let operation = self.begin()?;
        let sessions = operation.state.sessions();
        let (pool, slot) = sessions.locate(address).ok_or(ChangeError::NotInPool(address))?;
        let table = sessions.table(pool).ok_or(ChangeError::NotInPool(address))?;
        let tenancy = table.tenancy(slot);
        let (set, clear, user) = decide(tenancy.user(), tenancy.has(RESERVED))?;
        table.change_flags(slot, set, clear, user, sessions.stamp(now));
        let held = matches!(table.owner(slot), Owner::Session(_));
        Ok(Changed { addresses: 1, held: held.into() })
    }
}
