//! Sessions across the pools of a map: opening, completing, closing, looking up.
//!
//! Each lease commits alone, so a session with some of its leases is valid, and opening it again
//! adds what is missing. The anchor (the first lease in the order of the pools) is given back last:
//! a close that was cut short can be repeated with the same handle.

use std::net::IpAddr;

use super::MAX_LEASES;
use super::journal::{self, EventKind};
use super::layout::{DRAINING, LAST_STAMP, Layout, OPEN_SESSIONS, READY};
use super::outcome::{CloseError, Closed, Leases, OpenError, Opened, SessionRow, Shortage};
use super::plan::{OpenOptions, Tick};
use super::record;
use super::region::{load, store};
use super::slot::{Owner, next_stamp, user_tag};
use super::table::{Refusal, Table};
use crate::pool::DEFAULT_POOL;
use crate::session::{Handle, Lease, SessionId};
use crate::sync::AtomicU64;

/// The words of a map and where everything is in them.
#[derive(Clone, Copy)]
pub(super) struct Sessions<'a> {
    pub(super) words: &'a [AtomicU64],
    /// The words of the private twin, where it is there.
    pub(super) records: &'a [AtomicU64],
    /// The words of the journal, where there is one.
    pub(super) journal: &'a [AtomicU64],
    pub(super) layout: &'a Layout,
}

/// Some pools of a map, a bit for each.
type PoolSet = u32;

/// What a session should get.
struct Request {
    /// A lease of each of these pools.
    pools: PoolSet,
    /// This very slot of its pool.
    place: Option<(u16, u32)>,
}

impl<'a> Sessions<'a> {
    pub(super) fn table(&self, pool: u16) -> Option<Table<'a>> {
        Table::new(self.words, self.layout.pool(pool)?)
    }

    pub(super) fn tables(&self) -> impl Iterator<Item = (u16, Table<'a>)> + use<'a> {
        let words = self.words;
        (0u16..)
            .zip(self.layout.pools())
            .filter_map(move |(number, pool)| Some((number, Table::new(words, pool)?)))
    }

    /// A stamp after all others.
    #[inline(always)]
    pub(super) fn stamp(&self, now: Tick) -> u64 {
        let stamp = next_stamp(load(self.words, LAST_STAMP), now);
        store(self.words, LAST_STAMP, stamp);
        stamp
    }

    /// What a session holds.
    #[inline]
    pub(super) fn lookup(&self, session: SessionId) -> Leases {
        let mut leases = Leases::default();
        for (number, table) in self.tables() {
            if let Some(lease) = self.held(session, number, table) {
                leases.add(lease);
            }
        }
        leases
    }

    /// What a session holds of one pool.
    #[inline(always)]
    fn held(&self, session: SessionId, pool: u16, table: Table<'_>) -> Option<Lease> {
        let slot = table.held_by(session.raw())?;
        let generation = table.tenancy(slot).generation;
        // Read before the owner is looked at again: it is of this lease or a later one.
        if !table.is_held_by(slot, session.raw()) {
            return None;
        }
        self.lease(session, pool, table, slot, generation)
    }

    #[inline(always)]
    fn lease(
        &self,
        session: SessionId,
        pool: u16,
        table: Table<'_>,
        slot: u32,
        generation: u32,
    ) -> Option<Lease> {
        let address = table.pool.address(self.words, slot)?;
        Some(Lease { session, pool, slot, generation, address })
    }

    /// Whether the lease of this handle is still held.
    #[inline]
    pub(super) fn is_live(&self, handle: &Handle) -> bool {
        self.table(handle.pool).is_some_and(|table| table.is_lease_of(handle))
    }

    /// The handle for a session with these leases.
    #[inline(always)]
    pub(super) fn handle(&self, leases: &Leases) -> Option<Handle> {
        let anchor = leases.anchor()?;
        Some(Handle {
            session: anchor.session,
            pool: anchor.pool,
            slot: anchor.slot,
            generation: anchor.generation,
            boot: self.layout.boot,
        })
    }

    #[inline(always)]
    pub(super) fn open(
        &self,
        session: SessionId,
        options: &OpenOptions<'_>,
        now: Tick,
    ) -> Result<Opened, OpenError> {
        let settings = &self.layout.settings;
        let user = options.user.map_or(0, user_tag);
        let request = if self.is_plain(options) {
            Request { pools: PoolSet::MAX, place: None }
        } else {
            self.check(session, options, user, now)?
        };
        let mut leases = Leases::default();
        let mut already_open = false;
        let mut shortage = None;
        let mut low_water = false;
        for (number, table) in self.tables() {
            if let Some(lease) = self.held(session, number, table) {
                leases.add(lease);
                already_open = true;
                continue;
            }
            if request.pools & 1 << number == 0 {
                continue;
            }
            let chosen = match request.place {
                _ if load(self.words, DRAINING) != 0 => Err(Refusal::Drained),
                Some((pool, slot)) if pool == number => Ok(slot),
                _ => table.choose(user, settings, now, &mut || self.stamp(now)),
            };
            match chosen {
                Ok(slot) => {
                    if options.user.is_some()
                        || options.client.is_some()
                        || options.leader.is_some()
                    {
                        let generation = table.tenancy(slot).generation.wrapping_add(1);
                        record::write(self.records, table.pool, slot, generation, options);
                    }
                    let generation = table.give(slot, session.raw(), user, now);
                    let lease = self.lease(session, number, table, slot, generation);
                    if let Some(lease) = lease {
                        leases.add(lease);
                    }
                    self.note(EventKind::Assigned, session, lease.as_ref(), options, now);
                    if table.warn_low_water(settings) {
                        low_water = true;
                        self.note(EventKind::LowWater, session, lease.as_ref(), options, now);
                    }
                }
                Err(refusal) => shortage = shortage.or(Some(short(refusal))),
            }
        }
        if shortage.is_some() {
            self.note(EventKind::Exhausted, session, None, options, now);
        }
        let Some(handle) = self.handle(&leases) else {
            return Err(shortage.unwrap_or(Shortage::Exhausted).into());
        };
        if !already_open {
            let open = load(self.words, OPEN_SESSIONS);
            store(self.words, OPEN_SESSIONS, open.saturating_add(1));
        }
        Ok(Opened { handle, leases, already_open, shortage, low_water })
    }

    /// Whether there is nothing to check before a session is opened: it asks for nothing, every
    /// pool is for everybody, and no limit is set.
    #[inline(always)]
    fn is_plain(&self, options: &OpenOptions<'_>) -> bool {
        let Layout { settings, everybody, .. } = self.layout;
        *everybody
            && options.address.is_none()
            && options.pool.is_none()
            && !settings.await_restore
            && settings.max_sessions == 0
            && settings.sessions_per_user == 0
    }

    /// What a session should get, or why it cannot be opened.
    fn check(
        &self,
        session: SessionId,
        options: &OpenOptions<'_>,
        user: u32,
        now: Tick,
    ) -> Result<Request, OpenError> {
        let held = self.lookup(session);
        let pools = self.pools_for(&held, options)?;
        if held.is_empty() {
            self.admit(options, user)?;
        }
        let place = match options.address {
            Some(address) => self.check_request(address, &held, user, now)?,
            None => None,
        };
        Ok(Request { pools, place })
    }

    /// The place of the address a session asks for, unless it has a lease of that pool already.
    fn check_request(
        &self,
        address: IpAddr,
        held: &Leases,
        user: u32,
        now: Tick,
    ) -> Result<Option<(u16, u32)>, OpenError> {
        let (pool, slot) = self.locate(address).ok_or(OpenError::Excluded(address))?;
        match self.table(pool) {
            Some(table) if held.in_pool(pool).is_none() => table
                .check_request(slot, user, &self.layout.settings, now)
                .map(|()| Some((pool, slot)))
                .map_err(|refusal| refuse(refusal, address)),
            _ => Ok(None),
        }
    }

    /// Whether the server takes another session, and one of this user.
    #[inline]
    fn admit(&self, options: &OpenOptions<'_>, user: u32) -> Result<(), OpenError> {
        let settings = &self.layout.settings;
        if settings.await_restore && load(self.words, READY) == 0 {
            return Err(OpenError::NotReady);
        }
        if settings.max_sessions > 0
            && load(self.words, OPEN_SESSIONS) >= u64::from(settings.max_sessions)
        {
            return Err(OpenError::TooManySessions(settings.max_sessions));
        }
        match (options.user, settings.sessions_per_user) {
            (Some(name), 1..) => self.check_quota(name, user),
            _ => Ok(()),
        }
    }

    /// Whether the user may have another session. Goes through all slots.
    #[cold]
    fn check_quota(&self, name: &str, user: u32) -> Result<(), OpenError> {
        let limit = self.layout.settings.sessions_per_user;
        let his = |(number, table): (u16, Table<'_>), slot| {
            matches!(table.owner(slot), Owner::Session(raw)
                if table.holder(slot) == user && self.is_anchor(raw, number))
        };
        let sessions: usize = self
            .tables()
            .map(|at| (0..at.1.pool.slots).filter(|slot| his(at, *slot)).count())
            .sum();
        if sessions >= limit as usize {
            return Err(OpenError::Quota { user: name.to_owned(), limit });
        }
        Ok(())
    }

    /// Whether a session's first lease is the one it holds in this pool.
    pub(super) fn is_anchor(&self, session: u64, pool: u16) -> bool {
        self.tables()
            .take_while(|(number, _)| *number < pool)
            .all(|(_, table)| table.held_by(session).is_none())
    }

    /// The pools that a session should have a lease of: every loopback pool, and the virtual-IP
    /// pools of one name: that of the leases it has, or of the address it asks for, or the name it
    /// asks for, or `default`, or the first there is.
    #[inline]
    fn pools_for(&self, held: &Leases, options: &OpenOptions<'_>) -> Result<PoolSet, OpenError> {
        let Layout { loopback_pools, default_pools, .. } = *self.layout;
        let named_like = |number: u16| {
            let mut name = [0; 64];
            match self.layout.pool(number) {
                Some(pool) => {
                    let name = pool.name(self.words, &mut name);
                    self.named(std::str::from_utf8(name).unwrap_or_default())
                }
                None => 0,
            }
        };
        let held_in =
            held.iter().map(|lease| lease.pool).find(|pool| loopback_pools & 1 << pool == 0);
        let chosen = match (held_in, options.address, options.pool) {
            (Some(number), _, _) => named_like(number),
            (None, Some(address), _) => {
                let (number, _) = self.locate(address).ok_or(OpenError::Excluded(address))?;
                if loopback_pools & 1 << number == 0 { named_like(number) } else { default_pools }
            }
            (None, None, Some(name)) if name != DEFAULT_POOL => match self.named(name) {
                0 => return Err(OpenError::UnknownPool(name.to_owned())),
                pools => pools,
            },
            _ => default_pools,
        };
        Ok(loopback_pools | chosen)
    }

    /// The pool and slot of an address.
    pub(super) fn locate(&self, address: IpAddr) -> Option<(u16, u32)> {
        self.tables()
            .find_map(|(number, table)| Some((number, table.pool.slot_of(self.words, address)?)))
    }

    /// The virtual-IP pools of this name.
    fn named(&self, name: &str) -> PoolSet {
        self.tables()
            .filter(|(_, table)| !table.pool.loopback && table.pool.is_named(self.words, name))
            .fold(0, |pools, (number, _)| pools | 1 << number)
    }

    #[inline(always)]
    pub(super) fn close(&self, handle: &Handle, now: Tick) -> Result<Closed, CloseError> {
        if handle.boot != self.layout.boot {
            return Err(CloseError::Foreign);
        }
        match self.table(handle.pool) {
            Some(table) if table.is_lease_of(handle) => {
                let mut leases = self.give_back(handle.session, Some(handle.pool), now);
                self.take_back(&mut leases, handle.session, handle.pool, table, handle.slot, now);
                Ok(self.closed(handle.session, leases, now))
            }
            _ => Err(CloseError::Stale(handle.session)),
        }
    }

    #[inline(always)]
    pub(super) fn close_session(
        &self,
        session: SessionId,
        now: Tick,
    ) -> Result<Closed, CloseError> {
        let leases = self.give_back(session, None, now);
        if leases.is_empty() {
            return Err(CloseError::NotOpen(session));
        }
        Ok(self.closed(session, leases, now))
    }

    /// Takes back what a session holds, of the last pool first, but for one pool.
    #[inline(always)]
    fn give_back(&self, session: SessionId, but: Option<u16>, now: Tick) -> Leases {
        let mut leases = Leases::default();
        let pools = self.layout.pools().len() as u16;
        for number in (0..pools).rev().filter(|number| Some(*number) != but) {
            if let Some(table) = self.table(number)
                && let Some(slot) = table.held_by(session.raw())
            {
                self.take_back(&mut leases, session, number, table, slot, now);
            }
        }
        leases
    }

    #[inline(always)]
    fn take_back(
        &self,
        leases: &mut Leases,
        session: SessionId,
        pool: u16,
        table: Table<'_>,
        slot: u32,
        now: Tick,
    ) {
        let generation = table.tenancy(slot).generation;
        if let Some(lease) = self.lease(session, pool, table, slot, generation) {
            leases.add(lease);
        }
        let settings = &self.layout.settings;
        table.take_back(slot, session.raw(), settings, self.stamp(now));
        table.warn_low_water(settings);
    }

    #[inline(always)]
    fn closed(&self, session: SessionId, leases: Leases, now: Tick) -> Closed {
        self.note(EventKind::Released, session, None, &OpenOptions::default(), now);
        let open = load(self.words, OPEN_SESSIONS);
        store(self.words, OPEN_SESSIONS, open.saturating_sub(1));
        Closed { leases }
    }

    /// Appends an event to the journal, where there is one.
    #[inline(always)]
    fn note(
        &self,
        kind: EventKind,
        session: SessionId,
        lease: Option<&Lease>,
        options: &OpenOptions<'_>,
        now: Tick,
    ) {
        if !self.journal.is_empty() {
            journal::append(self.journal, kind, session, lease, options, now);
        }
    }

    /// The open sessions, in the order of their anchors.
    pub(super) fn rows(&self) -> impl Iterator<Item = SessionRow> + use<'_, 'a> {
        self.tables().flat_map(move |(number, table)| {
            (0..table.pool.slots).filter_map(move |slot| self.row(number, table, slot))
        })
    }

    /// The session whose anchor is in this slot, if there is one.
    pub(super) fn row(&self, pool: u16, table: Table<'_>, slot: u32) -> Option<SessionRow> {
        let Owner::Session(raw) = table.owner(slot) else { return None };
        let session = SessionId::from_raw(raw)?;
        if !self.is_anchor(raw, pool) {
            return None;
        }
        let since = table.since(slot);
        let leases = self.lookup(session);
        let handle = self.handle(&leases)?;
        let record = leases.iter().find_map(|lease| {
            let pool = self.layout.pool(lease.pool)?;
            record::read(self.records, pool, lease.slot, lease.generation)
        });
        let record = record.unwrap_or_default();
        Some(SessionRow {
            session,
            handle,
            leases,
            since,
            user: record.user,
            client: record.client,
            leader: record.leader,
        })
    }
}

const _: () = assert!(MAX_LEASES >= 3, "V, IPv6 and L");

fn short(refusal: Refusal) -> Shortage {
    match refusal {
        Refusal::Cooling(until) => Shortage::Cooling { until },
        Refusal::Lingering => Shortage::Lingering,
        Refusal::Drained => Shortage::Draining,
        Refusal::Exhausted | Refusal::Taken | Refusal::Reserved => Shortage::Exhausted,
    }
}

fn refuse(refusal: Refusal, address: IpAddr) -> OpenError {
    match refusal {
        Refusal::Taken => OpenError::Taken(address),
        Refusal::Cooling(until) => OpenError::AddressCooling(address, until),
        Refusal::Lingering => OpenError::AddressLingering(address),
        Refusal::Reserved => OpenError::ReservedForAnother(address),
        Refusal::Drained => OpenError::AddressDrained(address),
        Refusal::Exhausted => Shortage::Exhausted.into(),
    }
}
