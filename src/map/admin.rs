//! What administrators and agents change beside sessions: addresses drained and reserved, the restore
//! after a start, the look at what is idle or dead.

use std::net::IpAddr;

use super::engine::reap::{Probe, ReapReport, reap};
use super::format::layout::{DRAINING, READY};
use super::format::region::store;
use super::format::slot::{DRAINED, Owner, PLANNED, RESERVED, user_tag};
use super::types::outcome::{AdminChange, ChangeError, MapError, SessionRow};
use super::types::plan::Leader;
use super::writer::Map;
use crate::Tick;
use crate::range::Range;
use crate::session::SessionId;

impl Map {
    /// Takes addresses out of use: no session gets them; those that have them keep them.
    ///
    /// ```
    /// # use vipool::Tick;
    /// # use vipool::map::{Map, OpenOptions, Plan};
    /// # use vipool::pool::{Pool, PoolKind};
    /// # let ranges = ["10.0.5.10-10.0.5.11".parse()?];
    /// # let pool = Pool::new("default", PoolKind::VirtualIp, &ranges, u32::MAX)?;
    /// # let map = Map::in_memory(&Plan { pools: vec![pool], ..Plan::default() })?;
    /// let opened = map.open_session("7".parse()?, &OpenOptions::default(), Tick::now())?;
    /// let changed = map.drain(&"10.0.5.0/24".parse()?, Tick::now())?;
    /// assert_eq!((changed.addresses, changed.held), (2, 1));
    /// // The session goes on; nobody comes after it.
    /// assert!(map.reader()?.is_live(&opened.handle));
    /// map.close_by_handle(&opened.handle, Tick::now())?;
    /// assert!(map.open_session("8".parse()?, &OpenOptions::default(), Tick::now()).is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn drain(&self, range: &Range, now: Tick) -> Result<AdminChange, MapError> {
        self.change_flags(range, DRAINED, 0, now)
    }

    /// Puts drained addresses back into use.
    pub fn undrain(&self, range: &Range, now: Tick) -> Result<AdminChange, MapError> {
        self.change_flags(range, 0, DRAINED, now)
    }

    /// Whether the whole server drains: no new session gets an address.
    pub fn drain_server(&self, draining: bool) -> Result<(), MapError> {
        store(self.begin()?.state.map.words(), DRAINING, draining.into());
        Ok(())
    }

    /// Keeps an address for a user from now on. A session that has it keeps it.
    ///
    /// ```
    /// # use vipool::Tick;
    /// # use vipool::map::{Map, OpenOptions, Plan};
    /// # use vipool::pool::{Pool, PoolKind};
    /// # let ranges = ["10.0.5.10-10.0.5.11".parse()?];
    /// # let pool = Pool::new("default", PoolKind::VirtualIp, &ranges, u32::MAX)?;
    /// # let map = Map::in_memory(&Plan { pools: vec![pool], ..Plan::default() })?;
    /// map.reserve("10.0.5.10".parse()?, "ada", Tick::now())?;
    /// let of = |user| OpenOptions { user: Some(user), ..OpenOptions::default() };
    /// let bob = map.open_session("7".parse()?, &of("bob"), Tick::now())?;
    /// assert_eq!(bob.leases.iter().next().unwrap().address.to_string(), "10.0.5.11");
    /// let ada = map.open_session("8".parse()?, &of("ada"), Tick::now())?;
    /// assert_eq!(ada.leases.iter().next().unwrap().address.to_string(), "10.0.5.10");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn reserve(
        &self,
        address: IpAddr,
        user: &str,
        now: Tick,
    ) -> Result<AdminChange, ChangeError> {
        self.change_reservation(address, now, |sessions_tag, reserved| {
            match (reserved, sessions_tag == user_tag(user)) {
                (true, false) => Err(ChangeError::ReservedForAnother(address)),
                _ => Ok((RESERVED, 0, Some(user_tag(user)))),
            }
        })
    }

    /// Keeps an address for nobody any more.
    pub fn unreserve(&self, address: IpAddr, now: Tick) -> Result<AdminChange, ChangeError> {
        self.change_reservation(address, now, |_, reserved| match reserved {
            true => Ok((0, RESERVED | PLANNED, None)),
            false => Err(ChangeError::NotReserved(address)),
        })
    }

    /// Says that the sessions of the operating system are restored: "not ready" ends.
    pub fn mark_restored(&self) -> Result<(), MapError> {
        store(self.begin()?.state.map.words(), READY, 1);
        Ok(())
    }

    /// Closes every session of which `is_alive` says no, then ends "not ready": to be called with
    /// the operating system's list of sessions before the first session is opened.
    ///
    /// ```
    /// # use vipool::Tick;
    /// # use vipool::map::{Map, OpenError, OpenOptions, Plan, Settings};
    /// # use vipool::pool::{Pool, PoolKind};
    /// # let ranges = ["10.0.5.10-10.0.5.11".parse()?];
    /// # let pool = Pool::new("default", PoolKind::VirtualIp, &ranges, u32::MAX)?;
    /// let settings = Settings { await_restore: true, ..Settings::default() };
    /// let map = Map::in_memory(&Plan { pools: vec![pool], settings, ..Plan::default() })?;
    /// let none = OpenOptions::default();
    /// assert!(matches!(map.open_session("7".parse()?, &none, Tick::now()), Err(OpenError::NotReady)));
    /// // What the operating system calls open.
    /// let open = ["7".parse()?];
    /// let closed = map.reconcile(Tick::now(), |session, _leader| open.contains(&session))?;
    /// assert!(closed.is_empty());
    /// map.open_session("7".parse()?, &none, Tick::now())?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn reconcile(
        &self,
        now: Tick,
        mut is_alive: impl FnMut(SessionId, Option<&Leader>) -> bool,
    ) -> Result<Vec<SessionId>, MapError> {
        let operation = self.begin()?;
        let sessions = &*operation.state;
        let rows: Vec<SessionRow> = sessions.rows().collect();
        let gone = rows.iter().filter(|row| !is_alive(row.session, row.leader.as_ref()));
        let closed = gone
            .filter(|row| sessions.close_session(row.session, now).is_ok())
            .map(|row| row.session)
            .collect();
        store(sessions.words(), READY, 1);
        Ok(closed)
    }

    /// The slow path: closes sessions whose leader is gone (seen dead twice, [`super::LEADER_GRACE`]
    /// apart), and frees cooled addresses without sockets. Looks at up to `budget` addresses of
    /// each pool; call it again while [`ReapReport::more`] is set.
    ///
    /// ```
    /// use std::net::IpAddr;
    /// # use vipool::Tick;
    /// # use vipool::map::{Leader, Map, OpenOptions, Plan, Probe, Settings};
    /// # use vipool::pool::{Pool, PoolKind};
    /// # let ranges = ["10.0.5.10-10.0.5.11".parse()?];
    /// # let pool = Pool::new("default", PoolKind::VirtualIp, &ranges, u32::MAX)?;
    ///
    /// struct NobodyThere;
    ///
    /// impl Probe for NobodyThere {
    ///     fn has_sockets(&mut self, _address: IpAddr) -> bool {
    ///         false
    ///     }
    ///     fn is_gone(&mut self, _leader: &Leader) -> bool {
    ///         true
    ///     }
    /// }
    ///
    /// let settings = Settings { cool_down: 60, check_in_use: true, ..Settings::default() };
    /// let map = Map::in_memory(&Plan { pools: vec![pool], settings, ..Plan::default() })?;
    /// let opened = map.open_session("7".parse()?, &OpenOptions::default(), Tick::from_secs(1000))?;
    /// map.close_by_handle(&opened.handle, Tick::from_secs(1000))?;
    /// assert_eq!(map.reap(Tick::from_secs(1059), u32::MAX, &mut NobodyThere)?.freed, 0);
    /// assert_eq!(map.reap(Tick::from_secs(1060), u32::MAX, &mut NobodyThere)?.freed, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn reap(
        &self,
        now: Tick,
        budget: u32,
        probe: &mut dyn Probe,
    ) -> Result<ReapReport, MapError> {
        Ok(reap(&self.begin()?.state, now, budget, probe))
    }

    /// Derives queues, index and counters from the slots again, as is done by itself after the
    /// death of a writer.
    pub fn recover(&self) -> Result<(), MapError> {
        self.begin()?.state.rebuild();
        Ok(())
    }

    fn change_flags(
        &self,
        range: &Range,
        set: u32,
        clear: u32,
        now: Tick,
    ) -> Result<AdminChange, MapError> {
        let operation = self.begin()?;
        let sessions = &*operation.state;
        let mut changed = AdminChange::default();
        for (number, table) in sessions.tables() {
            for slot in 0..table.pool.slots {
                let address = table.pool.address(sessions.words(), slot);
                if address.is_some_and(|address| range.contains(address))
                    && sessions.is_home(number, &table, slot)
                {
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
    ) -> Result<AdminChange, ChangeError> {
        let operation = self.begin()?;
        let sessions = &*operation.state;
        let (pool, slot) = sessions.locate(address).ok_or(ChangeError::NotInPool(address))?;
        let table = sessions.table(pool).ok_or(ChangeError::NotInPool(address))?;
        let tenancy = table.tenancy(slot);
        let (set, clear, user) = decide(tenancy.user(), tenancy.has(RESERVED))?;
        table.change_flags(slot, set, clear, user, sessions.stamp(now));
        let held = matches!(table.owner(slot), Owner::Session(_));
        Ok(AdminChange { addresses: 1, held: held.into() })
    }
}
