//! The common case, apart from all others: a server with one pool, and a session that asks for
//! nothing but an address.
//!
//! It comes to the same as `sessions`, without what only other cases need. What is not as usual is
//! found before anything is changed, and left to it. The most common of all, nobody's session and
//! an address that was nobody's, calls nothing: it is inlined into its caller, and the answer is
//! put together last, so that who looks at the handle alone pays for no more.

use super::index::Home;
use super::journal::{self, EventKind, Note};
use super::layout::{BUSY, DRAINING, HEADER_WORDS, LAST_STAMP, OPEN_SESSIONS};
use super::outcome::{Closed, Leases, OpenError, Opened, Place};
use super::plan::{OpenOptions, Tick};
use super::record;
use super::slot::{next_stamp, user_tag};
use super::state::State;
use super::table::Table;
use crate::session::{Handle, SessionId};
use crate::sync::{AtomicU64, Ordering};

/// A map of one pool, of which every session gets a lease.
struct Plain<'a> {
    state: &'a State,
    header: &'a [AtomicU64; HEADER_WORDS],
    table: Table<'a>,
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
    pub(super) fn open_plain(
        &self,
        session: SessionId,
        options: &OpenOptions<'_>,
        now: Tick,
    ) -> Option<Opened> {
        if !options.is_nothing() {
            return None;
        }
        self.plain()?.open_nobodys(session, now)
    }

    /// Opens any session and ends the operation.
    #[inline(never)]
    pub(super) fn open_anyhow(
        &self,
        session: SessionId,
        options: &OpenOptions<'_>,
        now: Tick,
    ) -> Result<Opened, OpenError> {
        if let Some(opened) = self.open_somebodys(session, options, now) {
            return Ok(opened);
        }
        let opened = self.open_session(session, options, now);
        self.end();
        opened
    }

    #[inline(always)]
    fn open_somebodys(
        &self,
        session: SessionId,
        options: &OpenOptions<'_>,
        now: Tick,
    ) -> Option<Opened> {
        if options.address.is_some() || options.pool.is_some() {
            return None;
        }
        let plain = self.plain()?;
        let home = plain.home_of_none(session)?;
        let table = &plain.table;
        let user = options.user.map_or(0, user_tag);
        let settings = &self.layout.settings;
        let slot = table.choose(user, settings, now, || self.stamp(now)).ok()?;
        if options.is_of_somebody() {
            let generation = table.next_generation(slot);
            record::write(self.records(), table.pool, slot, generation, options);
        }
        let generation = table.give(slot, session.raw(), &home, user, now);
        let leases = plain.leases(session, slot, generation)?;
        self.note(EventKind::Assigned, session, &leases, options, now);
        let low_water = table.warn_low_water(settings);
        if low_water {
            self.note(EventKind::LowWater, session, &leases, options, now);
        }
        plain.end(1);
        Some(plain.opened(session, slot, generation, leases, low_water))
    }

    /// Closes the session of a handle and ends the operation; `None` if it is not as usual.
    #[inline(always)]
    pub(super) fn close_plain(&self, handle: &Handle, now: Tick) -> Option<Closed> {
        let plain = self.plain()?;
        if handle.boot != self.layout.boot || handle.pool != 0 || !plain.table.is_lease_of(handle) {
            return None;
        }
        let home = plain.table.home(handle.session.raw());
        plain.give_back(&home, handle.session, handle.slot, handle.generation, now)
    }

    /// Closes a session and ends the operation; `None` if it is not as usual.
    #[inline(always)]
    pub(super) fn close_session_plain(&self, session: SessionId, now: Tick) -> Option<Closed> {
        let plain = self.plain()?;
        let home = plain.table.home(session.raw());
        let (slot, generation) = plain.table.lease_at(&home, session.raw())?;
        plain.give_back(&home, session, slot, generation, now)
    }

    /// Whether a session holds a lease.
    #[cold]
    #[inline(never)]
    fn holds(&self, session: SessionId) -> bool {
        !self.lookup(session).is_empty()
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
    fn open_nobodys(&self, session: SessionId, now: Tick) -> Option<Opened> {
        let (state, table) = (self.state, &self.table);
        let home = self.home_of_none(session).filter(|_| state.layout.bare)?;
        let entry = home.free_entry()?;
        let (slot, generation) = table.give_oldest(session.raw(), entry, now)?;
        self.end(1);
        let leases = self.leases(session, slot, generation)?;
        if !state.journal().is_empty() {
            let (bits, ipv4) = (table.pool.address_bits(state.words(), slot)?, table.pool.ipv4);
            let (kind, lease) = (EventKind::Assigned, Some((generation, bits, ipv4)));
            journal::append_nobodys(state.journal(), Note { kind, session, now, lease });
        }
        Some(self.opened(session, slot, generation, leases, false))
    }

    #[inline(always)]
    fn give_back(
        &self,
        home: &Home<'_>,
        session: SessionId,
        slot: u32,
        generation: u32,
        now: Tick,
    ) -> Option<Closed> {
        let (state, table) = (self.state, &self.table);
        let entry = home.entry_of(slot).filter(|_| state.layout.bare)?;
        let stamp = next_stamp(self.header[LAST_STAMP].load(Ordering::Relaxed), now);
        table.take_back_bare(slot, entry, stamp)?;
        self.header[LAST_STAMP].store(stamp, Ordering::Relaxed);
        self.end(-1);
        if !state.journal().is_empty() {
            let note = Note { kind: EventKind::Released, session, now, lease: None };
            journal::append_nobodys(state.journal(), note);
        }
        Some(Closed { leases: self.leases(session, slot, generation)? })
    }

    /// Ends an operation that opened or closed a session.
    #[inline(always)]
    fn end(&self, opened: i64) {
        let open = self.header[OPEN_SESSIONS].load(Ordering::Relaxed);
        self.header[OPEN_SESSIONS].store(open.wrapping_add_signed(opened), Ordering::Relaxed);
        self.header[BUSY].store(0, Ordering::Release);
    }

    #[inline(always)]
    fn leases(&self, session: SessionId, slot: u32, generation: u32) -> Option<Leases> {
        let pool = self.table.pool;
        let bits = pool.address_bits(self.state.words(), slot)?;
        Some(Leases::one(
            session,
            Place { bits, slot, generation, pool: 0, ipv4: pool.ipv4.into() },
        ))
    }

    #[inline(always)]
    fn opened(
        &self,
        session: SessionId,
        slot: u32,
        generation: u32,
        leases: Leases,
        low_water: bool,
    ) -> Opened {
        let handle = Handle { session, pool: 0, slot, generation, boot: self.state.layout.boot };
        Opened { handle, leases, already_open: false, shortage: None, low_water }
    }
}
