//! The common case, apart from all others: a server with one pool, and a session that asks for
//! nothing but an address.
//!
//! It comes to the same as `sessions`, without what only other cases need. What is not as usual is
//! found before anything is changed, and left to it. The most common of all, nobody's session and
//! an address that was nobody's, calls nothing but for the journal: it is inlined into its caller, and
//! the answer is put together last, so that who looks at the handle alone pays for no more.

use super::admit::short;
use super::state::State;
use super::table::Table;
use crate::Tick;
use crate::map::format::index::Home;
use crate::map::format::layout::{BUSY, DRAINING, HEADER_WORDS, LAST_STAMP, OPEN_SESSIONS};
use crate::map::format::queue::Queue;
use crate::map::format::record;
use crate::map::format::slot::{next_stamp, user_tag};
use crate::map::journal::{self, EventKind, Note};
use crate::map::types::outcome::{
    CloseError, ClosedSession, Leases, OpenError, OpenedSession, Place,
};
use crate::map::types::plan::OpenOptions;
use crate::session::{Handle, SessionId};
use crate::sync::{AtomicU64, Ordering};

/// A map of one pool, of which every session gets a lease.
struct Plain<'a> {
    state: &'a State,
    header: &'a [AtomicU64; HEADER_WORDS],
    table: Table<'a>,
}

/// A lease, and where the index has its session.
struct Held<'a> {
    home: Home<'a>,
    slot: u32,
    generation: u32,
}

impl State {
    #[inline(always)]
    fn plain(&self) -> Option<Plain<'_>> {
        let words = self.words();
        let pool = self.layout.pools().first().filter(|_| self.layout.plain)?;
        let (header, table) = (words.first_chunk()?, Table::new(words, pool)?);
        Some(Plain { state: self, header, table })
    }

    /// Opens a session that is nobody's and ends the operation; `None` if it is not as usual.
    #[inline(always)]
    pub(crate) fn open_plain(
        &self,
        session: SessionId,
        options: &OpenOptions<'_>,
        now: Tick,
    ) -> Option<OpenedSession> {
        if !options.is_nothing() {
            return None;
        }
        self.plain()?.open_nobodys(session, now)
    }

    /// Opens any session and ends the operation.
    #[inline(never)]
    pub(crate) fn open_anyhow(
        &self,
        session: SessionId,
        options: &OpenOptions<'_>,
        now: Tick,
    ) -> Result<OpenedSession, OpenError> {
        self.open_somebodys(session, options, now).unwrap_or_else(|| {
            let opened = self.open_session(session, options, now);
            self.end();
            opened
        })
    }

    #[inline(always)]
    fn open_somebodys(
        &self,
        session: SessionId,
        options: &OpenOptions<'_>,
        now: Tick,
    ) -> Option<Result<OpenedSession, OpenError>> {
        if options.address.is_some() || options.pool.is_some() {
            return None;
        }
        let plain = self.plain()?;
        let home = plain.home_of_none(session)?;
        let (table, settings) = (&plain.table, &self.layout.settings);
        let user = options.user.map_or(0, user_tag);
        let last = table.last_of(user);
        let slot = match &last {
            Some((slot, _)) => *slot,
            None => match table.choose(user, settings, now, || self.stamp(now)) {
                Ok(slot) => slot,
                Err(refusal) => {
                    self.note(EventKind::Exhausted, session, &Leases::default(), options, now);
                    plain.end(0);
                    return Some(Err(short(refusal).into()));
                }
            },
        };
        let bits = table.pool.address_bits(self.words(), slot)?;
        if options.is_of_somebody() {
            let generation = table.next_generation(slot);
            record::write(self.records(), table.pool, slot, generation, options);
        }
        let entry = last.map(|(_, entry)| entry);
        let generation = table.give(slot, session.raw(), &home, entry, user, now);
        let leases = plain.leases(session, bits, slot, generation);
        self.note(EventKind::Assigned, session, &leases, options, now);
        let low_water = table.warn_low_water(settings);
        if low_water {
            self.note(EventKind::LowWater, session, &leases, options, now);
        }
        plain.end(1);
        Some(Ok(plain.opened(session, slot, generation, leases, low_water)))
    }

    /// Closes the session of a handle, nobody's, and ends the operation; `None` if it is not as
    /// usual.
    #[inline(always)]
    pub(crate) fn close_plain(&self, handle: &Handle, now: Tick) -> Option<ClosedSession> {
        let plain = self.plain()?;
        if !plain.table.tenancy(handle.slot).is_bare() {
            return None;
        }
        plain.give_back_nobodys(&plain.held(handle)?, handle.session, now)
    }

    /// Closes a session, nobody's, and ends the operation; `None` if it is not as usual.
    #[inline(always)]
    pub(crate) fn close_session_plain(
        &self,
        session: SessionId,
        now: Tick,
    ) -> Option<ClosedSession> {
        let plain = self.plain()?;
        plain.give_back_nobodys(&plain.held_by(session)?, session, now)
    }

    /// Closes the session of any handle and ends the operation.
    #[inline(never)]
    pub(crate) fn close_anyhow(
        &self,
        handle: &Handle,
        now: Tick,
    ) -> Result<ClosedSession, CloseError> {
        if let Some(plain) = self.plain()
            && let Some(held) = plain.held(handle)
            && let Some(closed) = plain.give_back(&held, handle.session, now)
        {
            return Ok(closed);
        }
        let closed = self.close(handle, now);
        self.end();
        closed
    }

    /// Closes any session and ends the operation.
    #[inline(never)]
    pub(crate) fn close_session_anyhow(
        &self,
        session: SessionId,
        now: Tick,
    ) -> Result<ClosedSession, CloseError> {
        if let Some(plain) = self.plain()
            && let Some(held) = plain.held_by(session)
            && let Some(closed) = plain.give_back(&held, session, now)
        {
            return Ok(closed);
        }
        let closed = self.close_session(session, now);
        self.end();
        closed
    }

    /// Whether a session holds a slot of the one pool.
    #[cold]
    #[inline(never)]
    fn holds(&self, session: SessionId) -> bool {
        self.table(0).is_some_and(|table| table.lease_of(session.raw()).is_some())
    }
}

impl<'a> Plain<'a> {
    /// The home of a session that holds nothing; `None` if it does, or if the server drains.
    #[inline(always)]
    fn home_of_none(&self, session: SessionId) -> Option<Home<'a>> {
        let home = self.table.home(session.raw());
        let holds = !self.table.is_of_nobody(&home) && self.state.holds(session);
        (!holds && self.header[DRAINING].load(Ordering::Relaxed) == 0).then_some(home)
    }

    #[inline(always)]
    fn open_nobodys(&self, session: SessionId, now: Tick) -> Option<OpenedSession> {
        let (state, table) = (self.state, &self.table);
        let home = self.home_of_none(session).filter(|_| state.layout.bare)?;
        let entry = home.free_entry()?;
        let bits = table.pool.address_bits(state.words(), table.first(Queue::Free)?)?;
        let (slot, generation) = table.give_oldest(session.raw(), entry, now)?;
        self.end(1);
        if !state.journal().is_empty() {
            let (kind, ipv4) = (EventKind::Assigned, table.pool.ipv4);
            let lease = Some((generation, bits, ipv4));
            journal::append_nobodys(state.journal(), Note { kind, session, now, lease });
        }
        let leases = self.leases(session, bits, slot, generation);
        Some(self.opened(session, slot, generation, leases, false))
    }

    /// The lease of a handle, if it is still held.
    #[inline(always)]
    fn held(&self, handle: &Handle) -> Option<Held<'a>> {
        let Handle { session, pool, slot, generation, boot } = *handle;
        let is_held = boot == self.state.layout.boot && pool == 0 && self.table.is_lease_of(handle);
        is_held.then(|| Held { home: self.table.home(session.raw()), slot, generation })
    }

    /// The lease that a session holds.
    #[inline(always)]
    fn held_by(&self, session: SessionId) -> Option<Held<'a>> {
        let home = self.table.home(session.raw());
        let (slot, generation) = self.table.lease_at(&home, session.raw())?;
        Some(Held { home, slot, generation })
    }

    #[inline(always)]
    fn give_back_nobodys(
        &self,
        held: &Held<'_>,
        session: SessionId,
        now: Tick,
    ) -> Option<ClosedSession> {
        let (state, table) = (self.state, &self.table);
        let bits = table.pool.address_bits(state.words(), held.slot)?;
        let entry = held.home.entry_of(held.slot).filter(|_| state.layout.bare)?;
        let stamp = self.next_stamp(now);
        table.take_back_bare(held.slot, entry, stamp)?;
        self.header[LAST_STAMP].store(stamp, Ordering::Relaxed);
        self.end(-1);
        if !state.journal().is_empty() {
            let note = Note { kind: EventKind::Released, session, now, lease: None };
            journal::append_nobodys(state.journal(), note);
        }
        Some(ClosedSession { leases: self.leases(session, bits, held.slot, held.generation) })
    }

    #[inline(always)]
    fn give_back(&self, held: &Held<'_>, session: SessionId, now: Tick) -> Option<ClosedSession> {
        let (state, table) = (self.state, &self.table);
        let bits = table.pool.address_bits(state.words(), held.slot)?;
        let leases = self.leases(session, bits, held.slot, held.generation);
        let stamp = self.next_stamp(now);
        self.header[LAST_STAMP].store(stamp, Ordering::Relaxed);
        table.take_back(&held.home, held.slot, state.layout.cools, stamp);
        table.warn_low_water(&state.layout.settings);
        if !state.journal().is_empty() {
            let note = Note { kind: EventKind::Released, session, now, lease: None };
            journal::append_nobodys(state.journal(), note);
        }
        self.end(-1);
        Some(ClosedSession { leases })
    }

    #[inline(always)]
    fn next_stamp(&self, now: Tick) -> u64 {
        next_stamp(self.header[LAST_STAMP].load(Ordering::Relaxed), now)
    }

    /// Ends an operation that opened or closed a session.
    #[inline(always)]
    fn end(&self, opened: i64) {
        let open = self.header[OPEN_SESSIONS].load(Ordering::Relaxed);
        self.header[OPEN_SESSIONS].store(open.wrapping_add_signed(opened), Ordering::Relaxed);
        self.header[BUSY].store(0, Ordering::Release);
    }

    #[inline(always)]
    fn leases(&self, session: SessionId, bits: [u64; 2], slot: u32, generation: u32) -> Leases {
        let ipv4 = self.table.pool.ipv4.into();
        Leases::one(session, Place { bits, slot, generation, pool: 0, ipv4 })
    }

    #[inline(always)]
    fn opened(
        &self,
        session: SessionId,
        slot: u32,
        generation: u32,
        leases: Leases,
        low_water: bool,
    ) -> OpenedSession {
        let handle = Handle { session, pool: 0, slot, generation, boot: self.state.layout.boot };
        OpenedSession { handle, leases, already_open: false, shortage: None, low_water, added: 0 }
    }
}
