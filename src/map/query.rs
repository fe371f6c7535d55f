//! The queries of [`Map`]: its settings and pools, its open sessions, and the pool that the rules
//! select for a user. A query does not change the map.

use super::engine::files;
use super::types::error::{MapError, OpenError};
use super::types::leases::Leases;
use super::types::plan::Settings;
use super::types::status::SessionRow;
use super::writer::Map;
use crate::os::users::UserGroups;
use crate::policy::{Executable, choose_pool_by};
use crate::session::{Handle, SessionId};

impl Map {
    /// Returns the settings of the map.
    ///
    /// # Errors
    /// Fails if this process is a child that inherited this `Map` at a fork.
    pub fn settings(&self) -> Result<Settings, MapError> {
        Ok(self.lock_mutex()?.layout().settings)
    }

    /// Returns the name of a pool; `None` if there is no pool with this number.
    ///
    /// # Errors
    /// Fails if this process is a child that inherited this `Map` at a fork.
    pub fn pool_name(&self, pool: u16) -> Result<Option<String>, MapError> {
        let map = self.lock_mutex()?;
        Ok(map.layout().pool(pool).map(|layout| layout.name(map.words())))
    }

    /// Returns the handle and the leases of a session if the session is open. Does not wait for
    /// other processes.
    ///
    /// # Errors
    /// Fails if the map was replaced and the new map cannot be opened, or if this process is a
    /// child that inherited this `Map` at a fork.
    pub fn find(&self, session: SessionId) -> Result<Option<(Handle, Leases)>, MapError> {
        let map = self.lock_for_reading()?;
        let leases = map.lookup(session);
        Ok(map.handle(&leases).map(|handle| (handle, leases)))
    }

    /// Returns whether a session is open for another user than `user`. Returns false if the session
    /// has no user. Does not wait for other processes.
    ///
    /// This method compares complete names. [`SessionRow::user`] has at most 63 bytes of a name.
    ///
    /// # Errors
    /// Fails if the map was replaced and the new map cannot be opened, or if this process is a
    /// child that inherited this `Map` at a fork.
    pub fn is_open_for_another(&self, session: SessionId, user: &str) -> Result<bool, MapError> {
        let map = self.lock_for_reading()?;
        Ok(map.is_open_for_another(session, user))
    }

    /// Returns the open sessions with their users, clients and leaders. Does not wait for other
    /// processes.
    ///
    /// # Errors
    /// Fails if the map was replaced and the new map cannot be opened, or if this process is a
    /// child that inherited this `Map` at a fork.
    pub fn sessions(&self) -> Result<Vec<SessionRow>, MapError> {
        let map = self.lock_for_reading()?;
        let rows = map.sessions().collect();
        Ok(rows)
    }

    /// Returns the pool that the rules of the farm select for this user and this program. Pass the
    /// result as [`OpenOptions::pool`], unless the caller requests another pool.
    ///
    /// Returns `None` if no rule matches. If a rule names a group, this method looks up the groups
    /// of the user, which can block.
    ///
    /// # Errors
    /// Fails if the rules cannot be read, or a rule names a group and the system cannot determine
    /// whether the user is a member. The pool is then unknown, and the session must get no address.
    /// On Windows, no rule for a group can be checked.
    ///
    /// [`OpenOptions::pool`]: super::OpenOptions::pool
    pub fn choose_pool(
        &self,
        user: &str,
        program: Option<&Executable<'_>>,
    ) -> Result<Option<String>, OpenError> {
        let rules = {
            let map = self.lock_for_reading()?;
            map.pool_rules().ok_or_else(files::unusable_sessions_file)?
        };
        // Look up the groups without the lock, because the lookup can block.
        let mut groups = None;
        let is_member = |group: &str| {
            let groups = match &mut groups {
                Some(groups) => groups,
                unknown_groups => unknown_groups.insert(UserGroups::of(user)?),
            };
            groups.contains(group)
        };
        choose_pool_by(&rules, user, is_member, program)
            .map(|pool| pool.map(str::to_owned))
            .map_err(|source| OpenError::UnknownGroups { user: user.to_owned(), source })
    }
}
