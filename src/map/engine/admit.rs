//! Whether a session may be opened, and what it is to get, before anything is given to it.

use std::net::IpAddr;

use super::select::Refusal;
use super::state::State;
use super::table::Table;
use crate::Tick;
use crate::map::format::layout::{Layout, OPEN_SESSIONS, READY, named};
use crate::map::format::region::load;
use crate::map::format::slot::Owner;
use crate::map::types::outcome::{Leases, OpenError, Shortage};
use crate::map::types::plan::OpenOptions;
use crate::pool::DEFAULT_POOL;
use crate::session::SessionId;

/// Some pools of a map, a bit for each.
pub(crate) type PoolSet = u32;

/// What a session should get.
pub(crate) struct Request {
    /// A lease of each of these pools.
    pub(crate) pools: PoolSet,
    /// This very slot of its pool.
    pub(crate) place: Option<(u16, u32)>,
}

impl State {
    /// What a session should get, or why it cannot be opened.
    #[inline(always)]
    pub(crate) fn admit(
        &self,
        session: SessionId,
        options: &OpenOptions<'_>,
        user: u32,
        now: Tick,
    ) -> Result<Request, OpenError> {
        if self.layout.open_to_all && options.address.is_none() && options.pool.is_none() {
            return Ok(Request { pools: PoolSet::MAX, place: None });
        }
        self.check(session, options, user, now)
    }

    #[inline(never)]
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
            self.check_limits(options, user)?;
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
    fn check_limits(&self, options: &OpenOptions<'_>, user: u32) -> Result<(), OpenError> {
        let settings = &self.layout.settings;
        if settings.await_restore && load(self.words(), READY) == 0 {
            return Err(OpenError::NotReady);
        }
        if settings.max_sessions > 0
            && load(self.words(), OPEN_SESSIONS) >= u64::from(settings.max_sessions)
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

    /// The pools that a session should have a lease of: every loopback pool, and the virtual-IP
    /// pools of one name: that of the leases it has, or of the address it asks for, or the name it
    /// asks for, or `default`, or the first of the plan.
    fn pools_for(&self, held: &Leases, options: &OpenOptions<'_>) -> Result<PoolSet, OpenError> {
        let Layout { loopback_pools, default_pools, .. } = self.layout;
        let named_like = |number: u16| self.layout.pool(number).map_or(0, |pool| pool.namesakes);
        let is_loopback = |number: u16| self.layout.pool(number).is_some_and(|pool| pool.loopback);
        let held_in = held.iter().map(|lease| lease.pool).find(|number| !is_loopback(*number));
        let chosen = match (held_in, options.address, options.pool) {
            (Some(number), _, _) => named_like(number),
            (None, Some(address), _) => {
                let (number, _) = self.locate(address).ok_or(OpenError::Excluded(address))?;
                if is_loopback(number) { default_pools } else { named_like(number) }
            }
            (None, None, Some(name)) if name != DEFAULT_POOL => {
                match named(self.words(), self.layout.pools(), name.as_bytes()) {
                    0 => return Err(OpenError::UnknownPool(name.to_owned())),
                    pools => pools,
                }
            }
            _ => default_pools,
        };
        Ok(loopback_pools | chosen)
    }
}

pub(crate) fn short(refusal: Refusal) -> Shortage {
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
