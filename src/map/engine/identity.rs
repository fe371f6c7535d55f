//! The identity of an open session: its user, client and leader.
//!
//! A session with a user keeps that user until the session is closed. A later open can add missing
//! leases, replace the client and the leader, and give a user to a session without one. The records
//! of all leases contain the same identity, so the writer can release the leases in any order.

use super::image::{FoundLease, MapImage};
use super::writer::MapWriter;
use crate::Tick;
use crate::map::format::record::{self, Record};
use crate::map::format::user::UserHash;
use crate::map::types::plan::OpenOptions;
use crate::session::SessionId;

/// The identity of an open session.
pub(crate) struct Identity {
    /// The user; [`UserHash::NONE`] for an anonymous session.
    pub(crate) user: UserHash,
    /// The time at which the session got its first lease.
    pub(crate) start: Tick,
    record: Record,
}

impl Identity {
    /// Returns whether the session can be opened again for `user`. Always returns true if the
    /// session has no user, or if `user` is [`UserHash::NONE`].
    pub(crate) fn admits(&self, user: UserHash) -> bool {
        [self.user, user].contains(&UserHash::NONE) || self.user == user
    }

    /// Returns the user of the session; `user` if the session has none.
    pub(crate) fn user_or(&self, user: UserHash) -> UserHash {
        if self.user == UserHash::NONE { user } else { self.user }
    }

    /// Returns a copy of `options`. If `options` has no user, client or leader, the copy has the
    /// value of the session.
    pub(crate) fn complete<'a>(&'a self, options: &OpenOptions<'a>) -> OpenOptions<'a> {
        OpenOptions {
            user: options.user.or(self.record.user()),
            client: options.client.or(self.record.client),
            leader: options.leader.or(self.record.leader),
            ..*options
        }
    }
}

impl MapImage {
    /// Returns the identity of a session, or `None` if the session is not open.
    #[inline]
    pub(crate) fn session_identity(&self, session: SessionId) -> Option<Identity> {
        let first_lease = self.leases_of(session).next()?;
        Some(self.read_identity(session, first_lease.table.session_start(first_lease.slot)))
    }

    #[cold]
    #[inline(never)]
    fn read_identity(&self, session: SessionId, start: Tick) -> Identity {
        let mut users = self.leases_of(session).map(|lease| lease.table.session_user(lease.slot));
        Identity {
            user: users.find(|user| *user != UserHash::NONE).unwrap_or(UserHash::NONE),
            start,
            record: self.records_of(session).next().map_or(Record::EMPTY, |(_, record)| record),
        }
    }
}

impl MapWriter<'_> {
    /// Writes `user` and the identity in `options` to the records of all leases of an open session.
    pub(crate) fn update_records(
        &self,
        session: SessionId,
        options: &OpenOptions<'_>,
        user: UserHash,
    ) {
        for FoundLease { table, slot, generation, .. } in self.leases_of(session) {
            let (access, records) = (self.access(), self.sessions_words());
            record::update(access, records, table.pool, slot, generation, options, user);
        }
    }
}
