//! The operations of [`Map`] for administrators and agents: drain, reserve, update, reconcile,
//! reap, recover.

use std::net::IpAddr;

use super::engine::files::unusable_sessions_file;
use super::engine::image::MapImage;
use super::engine::logons::Logons;
use super::engine::reap::{Probe, ReapReport};
use super::engine::table_writer::TableWriter;
use super::format::header::{DRAINING, RESTORED};
use super::format::slot::{DRAINED, PLANNED, RESERVED};
use super::types::error::{ChangeError, MapError};
use super::types::outcome::AdminChange;
use super::types::plan::{Leader, OpenOptions};
use super::types::status::SessionRow;
use super::writer::Map;
use crate::Tick;
use crate::range::Range;
use crate::session::SessionId;

/// A change to the flags and the user tag in the meta word of a slot.
struct MetaChange {
    flags_to_set: u32,
    flags_to_clear: u32,
    /// The new user tag. With `None`, the slot gets the tag of its current or last user.
    user_tag: Option<u32>,
}

impl Map {
    /// Drains the addresses of `range`: the map no longer allocates them. Sessions keep the
    /// addresses that they hold.
    ///
    /// # Errors
    /// Fails if another writer holds the lock, or the map cannot be used.
    ///
    /// ```
    /// # use vipool::Tick;
    /// # use vipool::map::{Map, OpenOptions, Plan};
    /// # use vipool::pool::{Pool, PoolKind};
    /// # let ranges = ["10.0.5.10-10.0.5.11".parse()?];
    /// # let pool = Pool::new("default", PoolKind::VirtualIp, &ranges, u32::MAX)?;
    /// # let map = Map::in_memory(&Plan::new([pool]))?;
    /// # let now = Tick::now();
    /// let opened = map.open_session("7".parse()?, &OpenOptions::default(), now)?;
    /// let change = map.drain(&"10.0.5.0/24".parse()?, now)?;
    /// assert_eq!((change.addresses, change.held), (2, 1));
    /// // The open session keeps its address; no new session gets one.
    /// assert!(map.reader()?.is_live(&opened.handle));
    /// map.close_by_handle(&opened.handle, now)?;
    /// assert!(map.open_session("8".parse()?, &OpenOptions::default(), now).is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn drain(&self, range: &Range, now: Tick) -> Result<AdminChange, MapError> {
        self.change_flags(range, DRAINED, 0, now)
    }

    /// Ends the drain of the addresses of `range`.
    ///
    /// # Errors
    /// Fails if another writer holds the lock, or the map cannot be used.
    pub fn undrain(&self, range: &Range, now: Tick) -> Result<AdminChange, MapError> {
        self.change_flags(range, 0, DRAINED, now)
    }

    /// Starts or ends the drain of the whole server. While the server drains, no new session gets
    /// an address.
    ///
    /// # Errors
    /// Fails if another writer holds the lock, or the map cannot be used.
    pub fn drain_server(&self, is_draining: bool) -> Result<(), MapError> {
        self.transact(|transaction| transaction.store_header(DRAINING, is_draining.into()))
    }

    /// Reserves an address for a user. A session that already holds the address keeps the address.
    ///
    /// # Errors
    /// Fails if the address is in no pool or is reserved for another user. Also fails if another
    /// writer holds the lock, or if the map cannot be used or has no `sessions` file.
    ///
    /// ```
    /// # use vipool::Tick;
    /// # use vipool::map::{Map, OpenOptions, Plan};
    /// # use vipool::pool::{Pool, PoolKind};
    /// # let ranges = ["10.0.5.10-10.0.5.11".parse()?];
    /// # let pool = Pool::new("default", PoolKind::VirtualIp, &ranges, u32::MAX)?;
    /// # let map = Map::in_memory(&Plan::new([pool]))?;
    /// # let now = Tick::now();
    /// map.reserve("10.0.5.10".parse()?, "ada", now)?;
    /// let user = |user| OpenOptions::new().with_user(user);
    /// let bob = map.open_session("7".parse()?, &user("bob"), now)?;
    /// assert_eq!(bob.leases.iter().next().unwrap().address.to_string(), "10.0.5.11");
    /// let ada = map.open_session("8".parse()?, &user("ada"), now)?;
    /// assert_eq!(ada.leases.iter().next().unwrap().address.to_string(), "10.0.5.10");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn reserve(
        &self,
        address: IpAddr,
        user: &str,
        now: Tick,
    ) -> Result<AdminChange, ChangeError> {
        self.change_reservation(address, now, |map, table, slot| {
            let user = map.user_hash(user).ok_or_else(unusable_sessions_file)?;
            if table.meta(slot).has_any(RESERVED) && !table.is_reserved_for(slot, user) {
                return Err(ChangeError::ReservedForAnother(address));
            }
            table.write_reservation(slot, user);
            Ok(MetaChange { flags_to_set: RESERVED, flags_to_clear: 0, user_tag: Some(user.tag()) })
        })
    }

    /// Removes the reservation of an address.
    ///
    /// # Errors
    /// Fails if the address is in no pool or is not reserved, if another writer holds the lock, or
    /// if the map cannot be used.
    pub fn unreserve(&self, address: IpAddr, now: Tick) -> Result<AdminChange, ChangeError> {
        self.change_reservation(address, now, |_, table, slot| {
            if !table.meta(slot).has_any(RESERVED) {
                return Err(ChangeError::NotReserved(address));
            }
            let flags_to_clear = RESERVED | PLANNED;
            Ok(MetaChange { flags_to_set: 0, flags_to_clear, user_tag: None })
        })
    }

    /// Returns whether an address is reserved for this user. Does not wait for the writer lock.
    ///
    /// # Errors
    /// Fails if the map cannot be used or has no `sessions` file.
    pub fn is_reserved_for(&self, address: IpAddr, user: &str) -> Result<bool, MapError> {
        let map = self.lock_for_reading()?;
        let user = map.user_hash(user).ok_or_else(unusable_sessions_file)?;
        Ok(map.locate(address).is_some_and(|(pool, slot)| {
            map.table(pool).is_some_and(|table| table.is_reserved_for(slot, user))
        }))
    }

    /// Replaces the client and the leader of an open session. `None` keeps the current value. An
    /// agent calls this method when a user reconnects, or when another process becomes the leader.
    ///
    /// # Errors
    /// Fails if the session is not open, another writer holds the lock, or the map cannot be used.
    ///
    /// ```
    /// # use vipool::Tick;
    /// # use vipool::map::{Map, OpenOptions, Plan};
    /// # use vipool::pool::{Pool, PoolKind};
    /// # let ranges = ["10.0.5.10-10.0.5.11".parse()?];
    /// # let pool = Pool::new("default", PoolKind::VirtualIp, &ranges, u32::MAX)?;
    /// # let map = Map::in_memory(&Plan::new([pool]))?;
    /// let session = "7".parse()?;
    /// map.open_session(session, &OpenOptions::new().with_user("ada"), Tick::now())?;
    /// map.update_session(session, Some("192.0.2.9".parse()?), None)?;
    /// let rows = map.sessions()?;
    /// assert_eq!(rows[0].user.as_deref(), Some("ada"));
    /// assert_eq!(rows[0].client, Some("192.0.2.9".parse()?));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn update_session(
        &self,
        session: SessionId,
        client: Option<IpAddr>,
        leader: Option<Leader>,
    ) -> Result<(), ChangeError> {
        self.transact(|transaction| {
            let identity =
                transaction.session_identity(session).ok_or(ChangeError::NotOpen(session))?;
            let options = OpenOptions { client, leader, ..OpenOptions::default() };
            transaction.update_records(session, &identity.complete(&options), identity.user);
            Ok(())
        })?
    }

    /// Records that the agent has restored the sessions of the operating system. From then on, the
    /// map no longer refuses new sessions with [`OpenError::NotReady`](super::OpenError::NotReady).
    ///
    /// # Errors
    /// Fails if another writer holds the lock, or the map cannot be used.
    pub fn mark_restored(&self) -> Result<(), MapError> {
        self.transact(|transaction| transaction.store_header(RESTORED, 1))
    }

    /// Closes every session for which `is_alive` returns false. Returns the closed sessions.
    ///
    /// Also marks the map as restored, see [`Map::mark_restored`]. An agent calls this method
    /// before it opens its first session. Its `is_alive` returns whether the operating system still
    /// has the session.
    ///
    /// # Errors
    /// Fails if another writer holds the lock, or the map cannot be used.
    ///
    /// ```
    /// # use vipool::Tick;
    /// # use vipool::map::{Map, OpenError, OpenOptions, Plan, Settings};
    /// # use vipool::pool::{Pool, PoolKind};
    /// # let ranges = ["10.0.5.10-10.0.5.11".parse()?];
    /// # let pool = Pool::new("default", PoolKind::VirtualIp, &ranges, u32::MAX)?;
    /// # let now = Tick::now();
    /// let settings = Settings::new().with_await_restore(true);
    /// let map = Map::in_memory(&Plan::new([pool]).with_settings(settings))?;
    /// let options = OpenOptions::default();
    /// assert!(matches!(map.open_session("7".parse()?, &options, now), Err(OpenError::NotReady)));
    /// // The sessions that the operating system lists.
    /// let listed = ["7".parse()?];
    /// let closed = map.reconcile(now, |session, _leader| listed.contains(&session))?;
    /// assert!(closed.is_empty());
    /// map.open_session("7".parse()?, &options, now)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn reconcile(
        &self,
        now: Tick,
        mut is_alive: impl FnMut(SessionId, Option<&Leader>) -> bool,
    ) -> Result<Vec<SessionId>, MapError> {
        self.transact(|transaction| {
            let rows: Vec<SessionRow> = transaction.sessions().collect();
            let rows_to_close =
                rows.iter().filter(|row| !is_alive(row.session, row.leader.as_ref()));
            let closed = rows_to_close
                .filter(|row| transaction.close_session(row.session, now).is_some())
                .map(|row| row.session)
                .collect();
            transaction.store_header(RESTORED, 1);
            closed
        })
    }

    /// Closes sessions whose leader has exited, and frees addresses that have cooled down. With
    /// [`Settings::check_in_use`](super::Settings::check_in_use), an address with sockets lingers
    /// instead.
    ///
    /// A session is closed after two calls have found its leader dead, at least
    /// [`LEADER_GRACE`](super::LEADER_GRACE) seconds apart. One call checks up to `budget` leaders.
    /// In each pool, it checks up to `budget` lingering addresses, up to `budget` cooling
    /// addresses, and up to `budget` reserved or drained addresses. Repeat the call while
    /// [`ReapReport::more`] is set.
    ///
    /// # Errors
    /// Fails if another writer holds the lock, or the map cannot be used.
    ///
    /// ```
    /// use std::net::IpAddr;
    /// # use vipool::Tick;
    /// # use vipool::map::{Leader, Map, OpenOptions, Plan, Probe, Settings};
    /// # use vipool::pool::{Pool, PoolKind};
    /// # let ranges = ["10.0.5.10-10.0.5.11".parse()?];
    /// # let pool = Pool::new("default", PoolKind::VirtualIp, &ranges, u32::MAX)?;
    ///
    /// struct IdleSystem;
    ///
    /// impl Probe for IdleSystem {
    ///     fn has_sockets(&mut self, _address: IpAddr) -> bool {
    ///         false
    ///     }
    ///     fn has_exited(&mut self, _leader: &Leader) -> bool {
    ///         true
    ///     }
    /// }
    ///
    /// let settings = Settings::new().with_cool_down(60).with_check_in_use(true);
    /// let map = Map::in_memory(&Plan::new([pool]).with_settings(settings))?;
    /// let release = Tick::from_secs(1000);
    /// let opened = map.open_session("7".parse()?, &OpenOptions::default(), release)?;
    /// map.close_by_handle(&opened.handle, release)?;
    /// let (too_early, cooled) = (release.saturating_add(59), release.saturating_add(60));
    /// assert_eq!(map.reap(too_early, u32::MAX, &mut IdleSystem)?.freed, 0);
    /// assert_eq!(map.reap(cooled, u32::MAX, &mut IdleSystem)?.freed, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn reap(
        &self,
        now: Tick,
        budget: u32,
        probe: &mut dyn Probe,
    ) -> Result<ReapReport, MapError> {
        let logons = self.directory().map(Logons::of_map);
        self.transact(|transaction| transaction.reap(now, budget, probe, logons.as_ref()))
    }

    /// Rebuilds queues, index and counters from the slots. If a writer dies in an operation, the
    /// next writer rebuilds them automatically.
    ///
    /// # Errors
    /// Fails if another writer holds the lock, or the map cannot be used.
    pub fn recover(&self) -> Result<(), MapError> {
        self.transact(|transaction| transaction.rebuild())
    }

    fn change_flags(
        &self,
        range: &Range,
        flags_to_set: u32,
        flags_to_clear: u32,
        now: Tick,
    ) -> Result<AdminChange, MapError> {
        self.transact(|transaction| {
            let mut change = AdminChange::default();
            for (pool, table) in transaction.table_writers() {
                for slot in 0..table.pool.slot_count {
                    let address = table.pool.address(transaction.words(), slot);
                    if address.is_some_and(|address| range.contains(address))
                        && transaction.is_state_slot(pool, &table, slot)
                    {
                        let stamp = transaction.new_stamp(now);
                        table.change_flags(slot, flags_to_set, flags_to_clear, None, stamp);
                        change.addresses += 1;
                        change.held += u32::from(table.owner(slot).is_session());
                    }
                }
            }
            change
        })
    }

    /// Passes the slot of an address to `decide`, and applies the change that `decide` returns.
    fn change_reservation(
        &self,
        address: IpAddr,
        now: Tick,
        decide: impl FnOnce(&MapImage, &TableWriter<'_>, u32) -> Result<MetaChange, ChangeError>,
    ) -> Result<AdminChange, ChangeError> {
        self.transact(|transaction| {
            let (pool, slot) =
                transaction.locate(address).ok_or(ChangeError::NotInPool(address))?;
            let table = transaction.table_writer(pool).ok_or(ChangeError::NotInPool(address))?;
            let change = decide(transaction, &table, slot)?;
            let MetaChange { flags_to_set, flags_to_clear, user_tag } = change;
            let stamp = transaction.new_stamp(now);
            table.change_flags(slot, flags_to_set, flags_to_clear, user_tag, stamp);
            Ok(AdminChange { addresses: 1, held: table.owner(slot).is_session().into() })
        })?
    }
}
