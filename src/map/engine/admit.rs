//! Admission of a session: checks the limits, selects the pools, and finds the requested slot.

use std::net::IpAddr;

use super::files::unusable_sessions_file;
use super::image::MapImage;
use super::select::Unavailable;
use super::table::Table;
use crate::Tick;
use crate::map::format::header::{OPEN_SESSIONS, RESTORED};
use crate::map::format::layout::Layout;
use crate::map::format::pool::PoolSet;
use crate::map::format::slot::Owner;
use crate::map::format::user::UserHash;
use crate::map::types::error::{OpenError, Shortage};
use crate::map::types::leases::Leases;
use crate::map::types::plan::OpenOptions;
use crate::pool::DEFAULT_POOL;
use crate::session::SessionId;

/// The leases that an admitted session gets.
pub(crate) struct Admission {
    /// The session gets one lease from each of these pools.
    pub(crate) pools: PoolSet,
    /// The requested slot: pool number and slot number. `None` lets the allocator choose.
    pub(crate) requested_slot: Option<(u16, u32)>,
}

impl MapImage {
    /// Returns the leases that a session gets, or an error if the session cannot be opened.
    #[inline(always)]
    pub(crate) fn admit(
        &self,
        session: SessionId,
        options: &OpenOptions<'_>,
        user: UserHash,
        now: Tick,
    ) -> Result<Admission, OpenError> {
        let has_request = options.address.is_some() || options.pool.is_some();
        if self.layout().is_unrestricted && !has_request {
            return Ok(Admission { pools: PoolSet::MAX, requested_slot: None });
        }
        self.admit_restricted(session, options, user, now)
    }

    #[inline(never)]
    fn admit_restricted(
        &self,
        session: SessionId,
        options: &OpenOptions<'_>,
        user: UserHash,
        now: Tick,
    ) -> Result<Admission, OpenError> {
        let leases = self.lookup(session);
        let pools = self.select_pools(&leases, options)?;
        if leases.is_empty() {
            self.check_limits(options, user)?;
        }
        let requested_slot = match options.address {
            Some(address) => self.find_requested_slot(address, &leases, pools, user, now)?,
            None => None,
        };
        Ok(Admission { pools, requested_slot })
    }

    /// Returns the slot of the requested address; `None` if the session already holds that address.
    /// `pools` are the pools from which the session gets a lease.
    fn find_requested_slot(
        &self,
        address: IpAddr,
        leases: &Leases,
        pools: PoolSet,
        user: UserHash,
        now: Tick,
    ) -> Result<Option<(u16, u32)>, OpenError> {
        if leases.iter().any(|lease| lease.address == address) {
            return Ok(None);
        }
        let (pool, slot) = self.locate(address).ok_or(OpenError::Excluded(address))?;
        let can_add_lease =
            leases.is_empty() || leases.in_pool(pool).is_none() && pools & 1 << pool != 0;
        match self.table(pool) {
            Some(table) if can_add_lease => table
                .check_available(slot, user, &self.layout().settings, now)
                .map(|()| Some((pool, slot)))
                .map_err(|unavailable| address_error(unavailable, address)),
            _ => Err(OpenError::OtherAddress(address)),
        }
    }

    /// Returns an error if the map is not ready, or if the server or the user has reached a limit.
    fn check_limits(&self, options: &OpenOptions<'_>, user: UserHash) -> Result<(), OpenError> {
        let settings = &self.layout().settings;
        if settings.await_restore && self.header(RESTORED) == 0 {
            return Err(OpenError::NotReady);
        }
        if settings.max_sessions > 0
            && self.header(OPEN_SESSIONS) >= u64::from(settings.max_sessions)
        {
            return Err(OpenError::TooManySessions(settings.max_sessions));
        }
        match (options.user, settings.sessions_per_user) {
            (Some(name), 1..) => self.check_quota(name, user),
            _ => Ok(()),
        }
    }

    /// Returns an error if the user has reached the limit of sessions. Scans all slots.
    #[cold]
    fn check_quota(&self, name: &str, user: UserHash) -> Result<(), OpenError> {
        if user == UserHash::NONE {
            return Err(unusable_sessions_file().into());
        }
        let limit = self.layout().settings.sessions_per_user;
        let is_session_of_user = |pool, table: &Table<'_>, slot| {
            matches!(table.owner(slot), Owner::Session(session_id)
                if table.session_user(slot) == user && self.is_anchor(session_id, pool))
        };
        let open_session_count: usize = self
            .tables()
            .map(|(pool, table)| {
                (0..table.pool.slot_count)
                    .filter(|slot| is_session_of_user(pool, &table, *slot))
                    .count()
            })
            .sum();
        if open_session_count >= limit as usize {
            return Err(OpenError::Quota { user: name.to_owned(), limit });
        }
        Ok(())
    }

    /// Returns the pools from which a session gets a lease: all loopback pools, and all virtual-IP
    /// pools with the selected name.
    ///
    /// The selected name is the first of these names that exists:
    /// 1. the name of a virtual-IP pool in which the session has a lease
    /// 2. the name of the virtual-IP pool of the requested address
    /// 3. the requested name, if it is not `default`
    /// 4. `default`, if a virtual-IP pool has this name
    /// 5. the name of the first virtual-IP pool of the plan
    ///
    /// # Errors
    /// Fails if step 2 finds no pool with the requested address, or if step 3 finds no pool with
    /// the requested name.
    fn select_pools(
        &self,
        leases: &Leases,
        options: &OpenOptions<'_>,
    ) -> Result<PoolSet, OpenError> {
        let layout = self.layout();
        let Layout { loopback_pools, default_pools, .. } = *layout;
        let pools_with_same_name =
            |number: u16| layout.pool(number).map_or(0, |pool| pool.same_name_pools);
        let is_loopback = |number: u16| layout.pool(number).is_some_and(|pool| pool.is_loopback);
        let leased_pool = leases.iter().map(|lease| lease.pool).find(|pool| !is_loopback(*pool));
        let virtual_ip_pool = match (leased_pool, options.address) {
            (None, Some(address)) => {
                let (pool, _) = self.locate(address).ok_or(OpenError::Excluded(address))?;
                Some(pool).filter(|pool| !is_loopback(*pool))
            }
            _ => leased_pool,
        };
        let virtual_ip_pools = match (virtual_ip_pool, options.pool) {
            (Some(pool), _) => pools_with_same_name(pool),
            (None, Some(name)) if name != DEFAULT_POOL => {
                match layout.pools_with_name(self.words(), name.as_bytes()) {
                    0 => return Err(OpenError::UnknownPool(name.to_owned())),
                    pools => pools,
                }
            }
            _ => default_pools,
        };
        Ok(loopback_pools | virtual_ip_pools)
    }
}

impl From<Unavailable> for Shortage {
    fn from(unavailable: Unavailable) -> Self {
        match unavailable {
            Unavailable::Cooling(until) => Self::Cooling { until },
            Unavailable::Lingering => Self::Lingering,
            Unavailable::Drained => Self::Draining,
            Unavailable::Exhausted | Unavailable::Leased | Unavailable::Reserved => Self::Exhausted,
        }
    }
}

fn address_error(unavailable: Unavailable, address: IpAddr) -> OpenError {
    match unavailable {
        Unavailable::Leased | Unavailable::Exhausted => OpenError::Taken(address),
        Unavailable::Cooling(until) => OpenError::AddressCooling(address, until),
        Unavailable::Lingering => OpenError::AddressLingering(address),
        Unavailable::Reserved => OpenError::ReservedForAnother(address),
        Unavailable::Drained => OpenError::AddressDrained(address),
    }
}
