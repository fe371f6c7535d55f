//! Sessions across the pools of a map: opening, completing, closing, looking up.
//!
//! Each lease commits alone, so a session with some of its leases is valid, and opening it again
//! adds what is missing. The anchor (the first lease in the order of the pools) is given back last:
//! a close that was cut short can be repeated with the same handle.

use std::sync::atomic::{Ordering, compiler_fence};

use super::admit::{Request, short};
use super::select::Refusal;
use super::state::State;
use super::table::Table;
use crate::Tick;
use crate::map::MAX_LEASES;
use crate::map::format::index::Home;
use crate::map::format::layout::{BUSY, DRAINING, LAST_STAMP, OPEN_SESSIONS};
use crate::map::format::pool::PoolLayout;
use crate::map::format::record;
use crate::map::format::region::{load, store};
use crate::map::format::slot::{Owner, RETIRED, next_stamp, user_tag};
use crate::map::journal::{self, EventKind, Note};
use crate::map::types::outcome::{
    CloseError, ClosedSession, Leases, OpenError, OpenedSession, Place, SessionRow, Shortage,
};
use crate::map::types::plan::OpenOptions;
use crate::session::{Handle, Lease, SessionId};

/// A session that is being opened: what is asked for, and what came of it so far.
struct Opening<'a> {
    session: SessionId,
    options: &'a OpenOptions<'a>,
    user: u32,
    now: Tick,
    request: Request,
    leases: Leases,
    already_open: bool,
    shortage: Option<Shortage>,
    low_water: bool,
    /// Which of the leases are new, a bit each.
    added: u8,
}

/// A lease of a session, and where the index of its pool has it.
struct Held<'a> {
    pool: u16,
    table: Table<'a>,
    home: Home<'a>,
    slot: u32,
    generation: u32,
}

impl State {
    pub(crate) fn table(&self, pool: u16) -> Option<Table<'_>> {
        Table::new(self.words(), self.layout.pool(pool)?)
    }

    pub(crate) fn tables(&self) -> impl DoubleEndedIterator<Item = (u16, Table<'_>)> {
        let words = self.words();
        let pools = self.layout.pools().iter().enumerate();
        pools.filter_map(move |(number, pool)| Some((number as u16, Table::new(words, pool)?)))
    }

    /// Begins an operation, on a map that is whole. One that is not ended, by a panic say, makes the
    /// next one derive everything again. The caller is the only writer.
    #[inline(always)]
    pub(crate) fn begin(&self) {
        self.recover();
        store(self.words(), BUSY, 1);
        // Nothing of the operation is moved before the mark. Who is killed leaves what came before, in
        // the order of the instructions: no fence of the processor is needed.
        compiler_fence(Ordering::SeqCst);
    }

    /// Ends an operation.
    #[inline(always)]
    pub(crate) fn end(&self) {
        store(self.words(), BUSY, 0);
    }

    /// A stamp after all others.
    #[inline(always)]
    pub(crate) fn stamp(&self, now: Tick) -> u64 {
        let stamp = next_stamp(load(self.words(), LAST_STAMP), now);
        store(self.words(), LAST_STAMP, stamp);
        stamp
    }

    /// What a session holds.
    pub(crate) fn lookup(&self, session: SessionId) -> Leases {
        let mut leases = Leases::default();
        for Held { pool, table, slot, generation, .. } in self.held(session) {
            self.add(&mut leases, session, pool, &table, slot, generation);
        }
        leases
    }

    /// Whether the lease of this handle is still held.
    #[inline]
    pub(crate) fn is_live(&self, handle: &Handle) -> bool {
        self.table(handle.pool).is_some_and(|table| table.is_lease_of(handle))
    }

    /// The handle for a session with these leases.
    #[inline(always)]
    pub(crate) fn handle(&self, leases: &Leases) -> Option<Handle> {
        let Lease { session, pool, slot, generation, .. } = leases.anchor()?;
        Some(Handle { session, pool, slot, generation, boot: self.layout.boot })
    }

    /// Opens a session. The caller is the only writer.
    #[inline(never)]
    pub(crate) fn open_session(
        &self,
        session: SessionId,
        options: &OpenOptions<'_>,
        now: Tick,
    ) -> Result<OpenedSession, OpenError> {
        let user = options.user.map_or(0, user_tag);
        let mut opening = Opening {
            session,
            options,
            user,
            now,
            request: self.admit(session, options, user, now)?,
            leases: Leases::default(),
            already_open: false,
            shortage: None,
            low_water: false,
            added: 0,
        };
        if let [pool, others @ ..] = self.layout.pools() {
            self.fill(&mut opening, 0, pool);
            if !others.is_empty() {
                opening = self.fill_others(opening, others);
            }
        }
        let Opening { leases, already_open, shortage, low_water, added, .. } = opening;
        if shortage.is_some() {
            self.note(EventKind::Exhausted, session, &leases, options, now);
        }
        let Some(handle) = self.handle(&leases) else {
            return Err(shortage.unwrap_or(Shortage::Exhausted).into());
        };
        if !already_open {
            let open = load(self.words(), OPEN_SESSIONS);
            store(self.words(), OPEN_SESSIONS, open.saturating_add(1));
        }
        // Of a session that was not open all are new, which needs no bits.
        let added = if already_open { added } else { 0 };
        Ok(OpenedSession { handle, leases, already_open, shortage, low_water, added })
    }

    #[inline(never)]
    fn fill_others<'a>(&self, mut opening: Opening<'a>, pools: &[PoolLayout]) -> Opening<'a> {
        for (number, pool) in (1..).zip(pools) {
            self.fill(&mut opening, number, pool);
        }
        opening
    }

    /// Gives a session what it lacks of one pool.
    #[inline(always)]
    fn fill(&self, opening: &mut Opening<'_>, number: u16, pool: &PoolLayout) {
        let Opening { session, options, user, now, .. } = *opening;
        let Some(table) = Table::new(self.words(), pool) else { return };
        let home = table.home(session.raw());
        if let Some((slot, generation)) = table.lease_at(&home, session.raw()) {
            self.add(&mut opening.leases, session, number, &table, slot, generation);
            opening.already_open = true;
            return;
        }
        if opening.request.pools & 1 << number == 0 {
            return;
        }
        let slot = match self.choose(&table, number, &opening.request, user, now) {
            Ok(slot) => slot,
            Err(refusal) => {
                opening.shortage = opening.shortage.or(Some(short(refusal)));
                return;
            }
        };
        if options.is_of_somebody() {
            let generation = table.next_generation(slot);
            record::write(self.records(), pool, slot, generation, options);
        }
        let generation = table.give(slot, session.raw(), &home, None, user, now);
        opening.added |= 1 << opening.leases.places().len();
        self.add(&mut opening.leases, session, number, &table, slot, generation);
        self.note(EventKind::Assigned, session, &opening.leases, options, now);
        if table.warn_low_water(&self.layout.settings) {
            opening.low_water = true;
            self.note(EventKind::LowWater, session, &opening.leases, options, now);
        }
    }

    /// The slot of a pool that a session is given.
    #[inline(always)]
    fn choose(
        &self,
        table: &Table<'_>,
        pool: u16,
        request: &Request,
        user: u32,
        now: Tick,
    ) -> Result<u32, Refusal> {
        if load(self.words(), DRAINING) != 0 {
            return Err(Refusal::Drained);
        }
        match request.place {
            Some((asked, slot)) if asked == pool => Ok(slot),
            _ => {
                let slot = table.choose(user, &self.layout.settings, now, || self.stamp(now));
                slot.map_err(|refusal| match refusal {
                    // Those that sessions hold in another pool are in use.
                    Refusal::Drained if table.awaits_any() => Refusal::Exhausted,
                    refusal => refusal,
                })
            }
        }
    }

    /// Adds a lease to the others.
    #[inline(always)]
    fn add(
        &self,
        leases: &mut Leases,
        session: SessionId,
        pool: u16,
        table: &Table<'_>,
        slot: u32,
        generation: u32,
    ) {
        if let Some(bits) = table.pool.address_bits(self.words(), slot) {
            let (pool, ipv4) = (pool.into(), table.pool.ipv4.into());
            leases.push(session, Place { bits, slot, generation, pool, ipv4 });
        }
    }

    /// Whether a session's first lease is the one it holds in this pool.
    pub(crate) fn is_anchor(&self, session: u64, pool: u16) -> bool {
        self.tables()
            .take_while(|(number, _)| *number < pool)
            .all(|(_, table)| table.lease_of(session).is_none())
    }

    /// Closes the session of a handle. The caller is the only writer.
    #[inline(never)]
    pub(crate) fn close(&self, handle: &Handle, now: Tick) -> Result<ClosedSession, CloseError> {
        let Handle { session, pool, slot, generation, boot } = *handle;
        if boot != self.layout.boot {
            return Err(CloseError::Foreign);
        }
        let Some(table) = self.table(pool).filter(|table| table.is_lease_of(handle)) else {
            return Err(CloseError::Stale(session));
        };
        let home = table.home(session.raw());
        Ok(self.give_back(session, Held { pool, table, home, slot, generation }, now))
    }

    /// Closes a session. The caller is the only writer.
    #[inline(never)]
    pub(crate) fn close_session(
        &self,
        session: SessionId,
        now: Tick,
    ) -> Result<ClosedSession, CloseError> {
        match self.held(session).next() {
            Some(anchor) => Ok(self.give_back(session, anchor, now)),
            None => Err(CloseError::NotOpen(session)),
        }
    }

    /// What a session holds, in the order of the pools.
    #[inline(always)]
    fn held(&self, session: SessionId) -> impl DoubleEndedIterator<Item = Held<'_>> {
        self.tables().filter_map(move |(pool, table)| {
            let home = table.home(session.raw());
            let (slot, generation) = table.lease_at(&home, session.raw())?;
            Some(Held { pool, table, home, slot, generation })
        })
    }

    /// Takes back what a session holds, the lease that its handle names last.
    #[inline(always)]
    fn give_back(&self, session: SessionId, anchor: Held<'_>, now: Tick) -> ClosedSession {
        let mut leases = Leases::default();
        if self.layout.pools().len() > 1 {
            leases = self.give_back_others(session, anchor.pool, now);
        }
        self.take_back(&mut leases, session, &anchor, now);
        if leases.are_many() {
            leases = leases.sorted();
        }
        self.note(EventKind::Released, session, &leases, &OpenOptions::default(), now);
        let open = load(self.words(), OPEN_SESSIONS);
        store(self.words(), OPEN_SESSIONS, open.saturating_sub(1));
        ClosedSession { leases }
    }

    /// Takes back what a session holds of all pools but one, of the last pool first.
    #[inline(never)]
    fn give_back_others(&self, session: SessionId, but: u16, now: Tick) -> Leases {
        let mut leases = Leases::default();
        for held in self.held(session).rev().filter(|held| held.pool != but) {
            self.take_back(&mut leases, session, &held, now);
        }
        leases
    }

    #[inline(always)]
    fn take_back(&self, leases: &mut Leases, session: SessionId, held: &Held<'_>, now: Tick) {
        let Held { pool, table, home, slot, generation } = held;
        let settings = &self.layout.settings;
        table.take_back(home, *slot, self.layout.cools, self.stamp(now));
        if table.tenancy(*slot).has(RETIRED) {
            self.hand_over(*pool, table, *slot);
        }
        table.warn_low_water(settings);
        self.add(leases, session, *pool, table, *slot, *generation);
    }

    /// Appends an event to the journal, where there is one: about the last of these leases, but for
    /// a session that was closed or found no address.
    #[inline(always)]
    pub(crate) fn note(
        &self,
        kind: EventKind,
        session: SessionId,
        leases: &Leases,
        options: &OpenOptions<'_>,
        now: Tick,
    ) {
        if self.journal().is_empty() {
            return;
        }
        let lease = match kind {
            EventKind::Assigned | EventKind::LowWater => leases.last_place(),
            EventKind::Released | EventKind::Exhausted => None,
        };
        let lease = lease.map(|place| (place.generation, place.bits, place.ipv4 != 0));
        journal::append(self.journal(), Note { kind, session, now, lease }, options);
    }

    /// The open sessions, in the order of their anchors.
    pub(crate) fn rows(&self) -> impl Iterator<Item = SessionRow> {
        self.tables().flat_map(move |(number, table)| {
            (0..table.pool.slots).filter_map(move |slot| self.row(number, table, slot))
        })
    }

    /// The session whose anchor is in this slot, if there is one.
    pub(crate) fn row(&self, pool: u16, table: Table<'_>, slot: u32) -> Option<SessionRow> {
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
            record::read(self.records(), pool, lease.slot, lease.generation)
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
