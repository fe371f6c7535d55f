//! The fast path for opening and closing an anonymous session in a map with one pool.
//!
//! The slow path in `open` and `close` handles every case. The fast path has the same result, but
//! handles only the common case. For example, [`Layout::has_fast_path`] must be set, and an open
//! must have no options. The fast path checks all preconditions before its first change. If a
//! precondition fails, the slow path runs.
//!
//! The compiler can inline all functions that the common case calls, except the functions of the
//! journal. The fast path builds the result last. So the compiler can remove the parts of the
//! result that the caller does not use.
//!
//! [`Layout::has_fast_path`]: crate::map::format::layout::Layout::has_fast_path

use super::table_writer::TableWriter;
use super::transaction::Transaction;
use crate::Tick;
use crate::map::format::header::{DRAINING, HEADER_WORDS, LAST_STAMP, OPEN_SESSIONS};
use crate::map::format::index::LoadedBucket;
use crate::map::format::journal::{self, EventCore, EventLease};
use crate::map::format::queue::Queue;
use crate::map::format::slot::next_stamp;
use crate::map::types::event::EventKind;
use crate::map::types::leases::{Leases, PackedLease};
use crate::map::types::outcome::{ClosedSession, OpenedSession};
use crate::map::types::plan::OpenOptions;
use crate::raw::word::Word;
use crate::session::{Handle, SessionId};

/// A map with one pool. Every session gets a lease from that pool.
struct SinglePool<'a> {
    header: &'a [Word; HEADER_WORDS],
    table: TableWriter<'a>,
}

/// The lease of a session, with the home bucket of the session.
struct HeldLease<'a> {
    home_bucket: LoadedBucket<'a>,
    slot: u32,
    generation: u32,
}

impl<'t> Transaction<'t> {
    #[inline(always)]
    fn single_pool(&self) -> Option<SinglePool<'t>> {
        let map = self.map();
        if !map.layout().has_fast_path {
            return None;
        }
        Some(SinglePool { header: map.words().first_chunk()?, table: self.table_writer(0)? })
    }

    /// Opens an anonymous session. Returns `None` and changes nothing if the slow path must open
    /// the session.
    #[inline(always)]
    pub(crate) fn open_fast_path(
        &self,
        session: SessionId,
        options: &OpenOptions<'_>,
        now: Tick,
    ) -> Option<OpenedSession> {
        if !options.is_default() {
            return None;
        }
        let SinglePool { header, table } = self.single_pool()?;
        let home_bucket = table.home_bucket(session.raw());
        if !table.is_session_absent(&home_bucket) && holds_lease(&table, session) {
            return None;
        }
        if header[DRAINING].load_relaxed() != 0 {
            return None;
        }
        let vacant_entry = home_bucket.vacant_entry()?;
        let address_bits = table.pool.address_bits(self.words(), table.front(Queue::Free)?)?;
        let (slot, generation) = table.allocate_anonymous(session.raw(), vacant_entry, now)?;
        let open_session_count = header[OPEN_SESSIONS].load_relaxed();
        header[OPEN_SESSIONS].store_relaxed(self.access(), open_session_count.wrapping_add(1));
        if !self.journal().is_empty() {
            let lease = Some(EventLease { generation, address_bits, is_ipv4: table.pool.is_ipv4 });
            let event = EventCore { kind: EventKind::Assigned, session, time: now, pool: 0, lease };
            journal::append_anonymous(self.access(), self.journal(), event);
        }
        Some(OpenedSession {
            handle: Handle { session, pool: 0, slot, generation, boot: self.layout().boot },
            leases: single_lease(&table, session, address_bits, slot, generation),
            already_open: false,
            shortage: None,
            shortage_pool: 0,
            low_water_pools: 0,
            added_leases: 0,
        })
    }

    /// Closes the anonymous session of a handle. Returns `None` and changes nothing if the slow
    /// path must close the session.
    #[inline(always)]
    pub(crate) fn close_by_handle_fast_path(
        &self,
        handle: &Handle,
        now: Tick,
    ) -> Option<ClosedSession> {
        let single_pool = self.single_pool()?;
        let Handle { session, pool, slot, generation, boot } = *handle;
        if !single_pool.table.meta(slot).has_no_user_or_flags() {
            return None;
        }
        let is_held = boot == self.layout().boot && pool == 0 && single_pool.table.is_live(handle);
        if !is_held {
            return None;
        }
        let home_bucket = single_pool.table.home_bucket(session.raw());
        self.release_fast_path(
            &single_pool,
            &HeldLease { home_bucket, slot, generation },
            session,
            now,
        )
    }

    /// Closes an anonymous session. Returns `None` and changes nothing if the slow path must close
    /// the session.
    #[inline(always)]
    pub(crate) fn close_session_fast_path(
        &self,
        session: SessionId,
        now: Tick,
    ) -> Option<ClosedSession> {
        let single_pool = self.single_pool()?;
        let home_bucket = single_pool.table.home_bucket(session.raw());
        let (slot, generation) = single_pool.table.find_lease(&home_bucket, session.raw())?;
        self.release_fast_path(
            &single_pool,
            &HeldLease { home_bucket, slot, generation },
            session,
            now,
        )
    }

    #[inline(always)]
    fn release_fast_path(
        &self,
        SinglePool { header, table }: &SinglePool<'_>,
        lease: &HeldLease<'_>,
        session: SessionId,
        now: Tick,
    ) -> Option<ClosedSession> {
        let address_bits = table.pool.address_bits(self.words(), lease.slot)?;
        let session_entry = lease.home_bucket.occupied_entry(lease.slot)?;
        let stamp = next_stamp(header[LAST_STAMP].load_relaxed(), now);
        table.release_anonymous(lease.slot, session_entry, stamp)?;
        header[LAST_STAMP].store_relaxed(self.access(), stamp);
        let open_session_count = header[OPEN_SESSIONS].load_relaxed();
        header[OPEN_SESSIONS].store_relaxed(self.access(), open_session_count.wrapping_sub(1));
        if !self.journal().is_empty() {
            let (generation, is_ipv4) = (lease.generation, table.pool.is_ipv4);
            let lease = Some(EventLease { generation, address_bits, is_ipv4 });
            let event = EventCore { kind: EventKind::Released, session, time: now, pool: 0, lease };
            journal::append_anonymous(self.access(), self.journal(), event);
        }
        let leases = single_lease(table, session, address_bits, lease.slot, lease.generation);
        Some(ClosedSession { leases })
    }
}

/// Returns whether a session holds a slot. The caller uses this function only if the home bucket
/// cannot prove that the session holds no slot.
#[cold]
#[inline(never)]
fn holds_lease(table: &TableWriter<'_>, session: SessionId) -> bool {
    table.lease_of(session.raw()).is_some()
}

#[inline(always)]
fn single_lease(
    table: &TableWriter<'_>,
    session: SessionId,
    address_bits: [u64; 2],
    slot: u32,
    generation: u32,
) -> Leases {
    let is_ipv4 = table.pool.is_ipv4.into();
    Leases::single(session, PackedLease { address_bits, slot, generation, pool: 0, is_ipv4 })
}
