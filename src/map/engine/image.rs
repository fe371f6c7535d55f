//! A read-only view of a map. A lookup is safe while a writer changes the map.

use std::cmp::Reverse;
use std::net::IpAddr;

use super::table::Table;
use crate::map::format::header::{DRAINING, user_key};
use crate::map::format::layout::Layout;
use crate::map::format::record::{self, Record};
use crate::map::format::region::Region;
use crate::map::format::slot::{AWAITING_RELEASE, Meta, Owner, RETIRED};
use crate::map::format::user::UserHash;
use crate::map::format::words::load;
use crate::map::types::leases::{Leases, PackedLease};
use crate::map::types::status::SessionRow;
use crate::policy::{PoolRule, decode_rules};
use crate::pool::Pool;
use crate::raw::word::Word;
use crate::session::{Handle, SessionId};

/// The files of a map and their layout. No method writes to the files.
#[derive(Debug)]
pub(crate) struct MapImage {
    map: Region,
    /// The words of the sessions file. Empty for a reader, and if the file could not be opened.
    /// Users, clients and leaders are then unknown.
    sessions: Region,
    layout: Layout,
}

/// The lease of a session in one pool, as the result of a lookup.
pub(crate) struct FoundLease<'a> {
    pub(crate) pool: u16,
    pub(crate) table: Table<'a>,
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

impl MapImage {
    /// Returns a view of a map with these files and this layout.
    pub(crate) fn new(map: Region, sessions: Region, layout: Layout) -> Self {
        Self { map, sessions, layout }
    }

    /// Returns a second view of a map in private memory, without the sessions file. Returns `None`
    /// for a map in files.
    pub(crate) fn share(&self) -> Option<Self> {
        Some(Self::new(self.map.share()?, Region::default(), self.layout))
    }

    /// Returns a second view of a map in private memory, with the sessions file.
    #[cfg(all(test, loom))]
    pub(crate) fn share_with_sessions(&self) -> Option<Self> {
        Some(Self::new(self.map.share()?, self.sessions.share()?, self.layout))
    }

    /// Returns the words of the map.
    #[inline(always)]
    pub(crate) fn words(&self) -> &[Word] {
        self.map.words()
    }

    /// Returns the words of the sessions file.
    #[inline(always)]
    pub(crate) fn sessions_words(&self) -> &[Word] {
        self.sessions.words()
    }

    /// Returns the layout of the map.
    #[inline(always)]
    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Reads a header word.
    #[inline(always)]
    pub(crate) fn header(&self, offset: usize) -> u64 {
        load(self.words(), offset)
    }

    /// Returns whether the server drains.
    #[inline(always)]
    pub(crate) fn is_draining(&self) -> bool {
        self.header(DRAINING) != 0
    }

    /// Returns the table of the pool with this number.
    #[inline(always)]
    pub(crate) fn table(&self, pool: u16) -> Option<Table<'_>> {
        Table::new(self.words(), self.sessions_words(), self.layout.pool(pool)?)
    }

    /// Returns the number and the table of each pool.
    #[inline(always)]
    pub(crate) fn tables(&self) -> impl DoubleEndedIterator<Item = (u16, Table<'_>)> {
        let (words, sessions_words) = (self.words(), self.sessions_words());
        let pools = self.layout.pools().iter().enumerate();
        pools.filter_map(move |(number, pool)| {
            Some((number as u16, Table::new(words, sessions_words, pool)?))
        })
    }

    /// Returns the pools of the map, converted to the type that a plan contains.
    pub(crate) fn pools(&self) -> Vec<Pool> {
        self.layout.pools().iter().map(|pool| pool.to_pool(self.words())).collect()
    }

    /// Returns the hash that identifies a user in this map; `None` if the map has no sessions file.
    #[inline]
    pub(crate) fn user_hash(&self, name: &str) -> Option<UserHash> {
        user_key(self.sessions_words()).map(|key| UserHash::of(name, key))
    }

    /// Returns whether the session is open for a user with another name. Returns false if the
    /// session has no user.
    pub(crate) fn is_open_for_another(&self, session: SessionId, name: &str) -> bool {
        self.leases_of(session).any(|FoundLease { table, slot, .. }| {
            let user = table.session_user(slot);
            user != UserHash::NONE && Some(user) != self.user_hash(name)
        })
    }

    /// Returns the rules that select the pool of a session; `None` if the map has no sessions file,
    /// or if that file is damaged. The rules are then unknown.
    pub(crate) fn pool_rules(&self) -> Option<Vec<PoolRule>> {
        decode_rules(&self.layout.pool_rules(self.sessions_words())?)
    }

    /// Returns the leases of a session.
    pub(crate) fn lookup(&self, session: SessionId) -> Leases {
        let mut leases = Leases::default();
        for FoundLease { pool, table, slot, generation } in self.leases_of(session) {
            self.push_lease(&mut leases, session, pool, &table, slot, generation);
        }
        leases
    }

    /// Finds the leases of a session, in the order of the pools.
    #[inline(always)]
    pub(crate) fn leases_of(
        &self,
        session: SessionId,
    ) -> impl DoubleEndedIterator<Item = FoundLease<'_>> {
        self.tables().filter_map(move |(pool, table)| {
            let (slot, generation) = table.lease_of(session.raw())?;
            Some(FoundLease { pool, table, slot, generation })
        })
    }

    /// Appends a lease to `leases`.
    #[inline(always)]
    pub(crate) fn push_lease(
        &self,
        leases: &mut Leases,
        session: SessionId,
        pool: u16,
        table: &Table<'_>,
        slot: u32,
        generation: u32,
    ) {
        if let Some(lease) = self.packed_lease(pool, table, slot, generation) {
            leases.push(session, lease);
        }
    }

    /// Returns a lease of a slot, without the session.
    #[inline(always)]
    pub(crate) fn packed_lease(
        &self,
        pool: u16,
        table: &Table<'_>,
        slot: u32,
        generation: u32,
    ) -> Option<PackedLease> {
        let address_bits = table.pool.address_bits(self.words(), slot)?;
        let (pool, is_ipv4) = (pool.into(), table.pool.is_ipv4.into());
        Some(PackedLease { address_bits, slot, generation, pool, is_ipv4 })
    }

    /// Returns whether the handle is of this boot, and its session still holds the lease of the
    /// handle.
    #[inline]
    pub(crate) fn is_live(&self, handle: &Handle) -> bool {
        handle.boot == self.layout.boot
            && self.table(handle.pool).is_some_and(|table| table.is_live(handle))
    }

    /// Returns the handle of a session with these leases.
    #[inline(always)]
    pub(crate) fn handle(&self, leases: &Leases) -> Option<Handle> {
        let (session, anchor) = (leases.session()?, leases.packed().first()?);
        let PackedLease { pool, slot, generation, .. } = *anchor;
        Some(Handle { session, pool: pool as u16, slot, generation, boot: self.layout.boot })
    }

    /// Returns whether the lease of a session in this pool is the anchor of the session (its first
    /// lease).
    pub(crate) fn is_anchor(&self, session: u64, pool: u16) -> bool {
        self.tables()
            .take_while(|(earlier_pool, _)| *earlier_pool < pool)
            .all(|(_, table)| table.lease_of(session).is_none())
    }

    /// Returns the open sessions, in the order of their anchors.
    pub(crate) fn sessions(&self) -> impl Iterator<Item = SessionRow> {
        self.tables().flat_map(move |(pool, table)| {
            (0..table.pool.slot_count)
                .filter_map(move |slot| self.session_with_anchor(pool, table, slot))
        })
    }

    /// Returns the session whose anchor is in this slot.
    fn session_with_anchor(&self, pool: u16, table: Table<'_>, slot: u32) -> Option<SessionRow> {
        let Owner::Session(session_id) = table.owner(slot) else { return None };
        let session = SessionId::from_raw(session_id)?;
        if !self.is_anchor(session_id, pool) {
            return None;
        }
        let since = table.session_start(slot);
        let leases = self.lookup(session);
        let handle = self.handle(&leases)?;
        let record = self.records_of(session).next().map_or(Record::EMPTY, |(_, record)| record);
        Some(SessionRow {
            session,
            handle,
            leases,
            since,
            user: record.user().map(str::to_owned),
            client: record.client,
            leader: record.leader,
        })
    }

    /// Returns the records of a session, each with its lease.
    pub(crate) fn records_of(
        &self,
        session: SessionId,
    ) -> impl Iterator<Item = (FoundLease<'_>, Record)> {
        self.leases_of(session).filter_map(|lease| {
            let FoundLease { table, slot, generation, .. } = lease;
            let record = record::read(self.sessions_words(), table.pool, slot, generation)?;
            Some((lease, record))
        })
    }

    /// Returns the pool and the slot of an address.
    ///
    /// If several pools have the address, the result is its *state slot*, which holds the state of
    /// the address. The state slot is the leased slot, else the slot that is not retired, else a
    /// slot with state ([`has_state`]).
    pub(crate) fn locate(&self, address: IpAddr) -> Option<(u16, u32)> {
        let slots = self.tables().filter_map(|(pool, table)| {
            Some((pool, table, table.pool.slot_of(self.words(), address)?))
        });
        let (pool, _, slot) = slots.max_by_key(|(pool, table, slot)| {
            let meta = table.meta(*slot);
            let rank = match table.owner(*slot) {
                Owner::Session(_) => 3,
                _ if !meta.has_any(RETIRED) => 2,
                owner => u8::from(has_state(owner, meta)),
            };
            (rank, Reverse(*pool))
        })?;
        Some((pool, slot))
    }

    /// Returns whether this slot is the state slot of its address, see [`MapImage::locate`].
    pub(crate) fn is_state_slot(&self, pool: u16, table: &Table<'_>, slot: u32) -> bool {
        let locate_state = || self.locate(table.pool.address(self.words(), slot)?);
        !table.meta(slot).has_any(RETIRED) || locate_state() == Some((pool, slot))
    }
}

/// Returns whether a slot holds state besides its generation and the flags [`AWAITING_RELEASE`].
pub(crate) fn has_state(owner: Owner, meta: Meta) -> bool {
    owner != Owner::Free(0) || !meta.with_flags(0, AWAITING_RELEASE).has_no_user_or_flags()
}
