//! Opening a session.
//!
//! The engine commits each lease separately, so a killed writer can leave a session with only some
//! of its leases. Such a session is valid. A later open adds the missing leases, and replaces the
//! client and the leader of the session.

use super::admit::Admission;
use super::select::Unavailable;
use super::table_writer::TableWriter;
use super::transaction::Transaction;
use crate::Tick;
use crate::map::format::header::OPEN_SESSIONS;
use crate::map::format::index::Entry;
use crate::map::format::pool::PoolSet;
use crate::map::format::record;
use crate::map::format::user::UserHash;
use crate::map::types::error::{OpenError, Shortage};
use crate::map::types::event::EventKind;
use crate::map::types::leases::Leases;
use crate::map::types::leases::MAX_LEASES;
use crate::map::types::outcome::OpenedSession;
use crate::map::types::plan::OpenOptions;
use crate::session::SessionId;

/// The progress of opening a session: the admission, and the result so far.
struct Opening<'a> {
    session: SessionId,
    options: &'a OpenOptions<'a>,
    user: UserHash,
    now: Tick,
    /// The time at which the session got its first lease.
    session_start: Tick,
    admission: Admission,
    leases: Leases,
    was_already_open: bool,
    shortage: Option<Shortage>,
    /// The pool of the shortage.
    shortage_pool: u16,
    /// The pools that an allocation brought below their low-water marks.
    low_water_pools: PoolSet,
    /// The new leases, one bit for each index in `leases`.
    added_leases: u8,
}

impl Transaction<'_> {
    /// Opens a session and commits the transaction.
    #[inline(always)]
    pub(crate) fn open_session_and_commit(
        self,
        session: SessionId,
        options: &OpenOptions<'_>,
        now: Tick,
    ) -> Result<OpenedSession, OpenError> {
        match self.open_fast_path(session, options, now) {
            Some(opened) => {
                self.commit();
                Ok(opened)
            }
            None => self.open_slow_path_and_commit(session, options, now),
        }
    }

    /// Opens a session, or adds the leases that an open session lacks, and commits the transaction.
    ///
    /// The function commits before it builds the result. Otherwise, the compiler would copy the
    /// result.
    #[inline(never)]
    fn open_slow_path_and_commit(
        self,
        session: SessionId,
        options: &OpenOptions<'_>,
        now: Tick,
    ) -> Result<OpenedSession, OpenError> {
        let requested_user =
            options.user.and_then(|name| self.user_hash(name)).unwrap_or(UserHash::NONE);
        let identity = self.session_identity(session);
        let (options, user) = match &identity {
            Some(identity) => (identity.complete(options), identity.user_or(requested_user)),
            None => (*options, requested_user),
        };
        let admission_result = match &identity {
            Some(identity) if !identity.admits(requested_user) => {
                Err(OpenError::OtherUser(session))
            }
            _ => self.admit(session, &options, user, now),
        };
        let admission = match admission_result {
            Ok(admission) => admission,
            Err(error) => {
                self.commit();
                return Err(error);
            }
        };
        if identity.is_some() {
            self.update_records(session, &options, user);
        }
        let mut opening = Opening {
            session,
            options: &options,
            user,
            now,
            session_start: identity.as_ref().map_or(now, |identity| identity.start),
            admission,
            leases: Leases::default(),
            was_already_open: false,
            shortage: None,
            shortage_pool: 0,
            low_water_pools: 0,
            added_leases: 0,
        };
        if let Some(table) = self.table_writer(0) {
            self.open_in_pool(&mut opening, 0, &table);
        }
        if self.layout().pools().len() > 1 {
            opening = self.open_in_other_pools(opening);
        }
        let Opening { leases, was_already_open, shortage, shortage_pool, .. } = opening;
        if shortage.is_some() {
            let kind = EventKind::Exhausted;
            self.record_event(kind, session, shortage_pool, None, &options, now);
        }
        let handle = self.handle(&leases);
        if handle.is_some() && !was_already_open {
            self.store_header(OPEN_SESSIONS, self.header(OPEN_SESSIONS).saturating_add(1));
        }
        self.commit();
        let Some(handle) = handle else {
            let shortage = shortage.unwrap_or(Shortage::Exhausted);
            return Err(OpenError::Shortage { shortage, pool: shortage_pool });
        };
        Ok(OpenedSession {
            handle,
            leases,
            already_open: was_already_open,
            shortage,
            shortage_pool,
            low_water_pools: opening.low_water_pools,
            // If the session was not open before, all its leases are new, and `OpenedSession`
            // does not read these bits.
            added_leases: if was_already_open { opening.added_leases } else { 0 },
        })
    }

    /// Opens the session in all pools except the first.
    #[inline(never)]
    fn open_in_other_pools<'a>(&self, mut opening: Opening<'a>) -> Opening<'a> {
        for (pool, table) in self.table_writers().skip(1) {
            self.open_in_pool(&mut opening, pool, &table);
        }
        opening
    }

    /// Finds the lease of the session in one pool, or allocates a lease if the session is admitted
    /// to the pool.
    #[inline(always)]
    fn open_in_pool(&self, opening: &mut Opening<'_>, pool: u16, table: &TableWriter<'_>) {
        let Opening { session, options, user, now, session_start, .. } = *opening;
        let home_bucket = table.home_bucket(session.raw());
        if !table.is_session_absent(&home_bucket)
            && let Some((slot, generation)) = table.find_lease(&home_bucket, session.raw())
        {
            self.push_lease(&mut opening.leases, session, pool, table, slot, generation);
            opening.was_already_open = true;
            return;
        }
        if opening.admission.pools & 1 << pool == 0 {
            return;
        }
        let (slot, last_user_entry) =
            match self.select_slot(table, pool, &opening.admission, user, now) {
                Ok(slot_and_entry) => slot_and_entry,
                Err(unavailable) => {
                    if opening.shortage.is_none() {
                        opening.shortage = Some(unavailable.into());
                        opening.shortage_pool = pool;
                    }
                    return;
                }
            };
        if options.has_identity() {
            let generation = table.next_generation(slot);
            if let Some(record) = table.record(slot) {
                record::write(self.access(), record, generation, options, user);
            }
        }
        let generation =
            table.allocate(slot, session.raw(), &home_bucket, last_user_entry, user, session_start);
        opening.added_leases |= 1 << opening.leases.packed().len();
        self.push_lease(&mut opening.leases, session, pool, table, slot, generation);
        let lease = opening.leases.packed().last();
        self.record_event(EventKind::Assigned, session, pool, lease, options, now);
        if table.update_low_water_warning(&self.layout().settings) {
            opening.low_water_pools |= 1 << pool;
            self.record_event(EventKind::LowWater, session, pool, lease, options, now);
        }
    }

    /// Selects the slot of a pool for a session. Also returns the index entry of the last user of
    /// the slot, if the selection has found that entry.
    #[inline(always)]
    fn select_slot<'t>(
        &self,
        table: &TableWriter<'t>,
        pool: u16,
        admission: &Admission,
        user: UserHash,
        now: Tick,
    ) -> Result<(u32, Option<Entry<'t>>), Unavailable> {
        if self.is_draining() {
            return Err(Unavailable::Drained);
        }
        if let Some((requested_pool, slot)) = admission.requested_slot
            && requested_pool == pool
        {
            return Ok((slot, None));
        }
        if let Some((slot, entry)) = table.only_free_slot_of(user) {
            return Ok((slot, Some(entry)));
        }
        let settings = &self.layout().settings;
        let slot = table.select(user, settings, now, || self.new_stamp(now))?;
        Ok((slot, None))
    }
}

const _: () = assert!(MAX_LEASES >= 3, "a session can have an IPv4, an IPv6 and a loopback lease");
