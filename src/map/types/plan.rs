//! The input of a map: the plan that it is built from, and the options of a session.

use std::net::IpAddr;

pub use crate::leader::Leader;
use crate::policy::Policy;
use crate::pool::{Pool, Reservation};

/// The content of a map. `Farm::plan` returns one for a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The pools, at most [`MAX_POOLS`](crate::map::MAX_POOLS), without common addresses.
    ///
    /// The number of a pool is its index here. If the map replaces another one, pools that exist
    /// already keep their numbers.
    pub pools: Vec<Pool>,
    /// The policy for hook layers.
    pub policy: Policy,
    /// The settings of the map.
    pub settings: Settings,
    /// The reserved addresses.
    pub reservations: Vec<Reservation>,
}

/// The settings of a map, the same for all its writers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Seconds from the release of an address until another user can get it.
    pub cool_down: u32,
    /// Whether a cooled address becomes available only after [`Map::reap`](crate::map::Map::reap)
    /// has found no socket on it.
    pub check_in_use: bool,
    /// Report once when fewer addresses of a pool than this are available; 0 for never.
    pub low_water: u32,
    /// Maximum number of sessions of one user; 0 for no limit.
    pub sessions_per_user: u32,
    /// Maximum number of sessions of the server; 0 for no limit.
    pub max_sessions: u32,
    /// The treatment of a session when no address is available.
    pub on_exhausted: ExhaustionPolicy,
    /// The time at which a session gets its addresses.
    pub allocate: AllocationTime,
    /// Whether the map refuses sessions as "not ready" until
    /// [`Map::mark_restored`](crate::map::Map::mark_restored) is called.
    pub await_restore: bool,
}

/// The treatment of a session when no address is available. The caller of the map applies it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExhaustionPolicy {
    /// The session starts with the address of the host, and the user gets a message.
    #[default]
    Pass,
    /// The session does not start.
    Refuse,
    /// The caller tries again for up to this many seconds, then continues as with `Pass`.
    Wait(u32),
}

/// The time at which a session gets its addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AllocationTime {
    /// The logon of the user.
    #[default]
    Logon,
    /// The first start of a listed program in the session. A hook layer never allocates.
    FirstUse,
}

/// Options for [`Map::open_session`](crate::map::Map::open_session). Every field is optional.
#[derive(Clone, Copy, Debug, Default)]
pub struct OpenOptions<'a> {
    /// The name of the user, for returning users, reservations and the limit per user. The map
    /// keeps at most 63 bytes.
    pub user: Option<&'a str>,
    /// The name of the pool for virtual IPs. Without it, the pool is `default`, or the first one of
    /// the plan. Every session gets an address of the loopback pool.
    pub pool: Option<&'a str>,
    /// Require this address; fail if it is not available.
    pub address: Option<IpAddr>,
    /// The address of the client of the user.
    pub client: Option<IpAddr>,
    /// The session leader. [`Map::reap`](crate::map::Map::reap) closes the session when this
    /// process has exited.
    pub leader: Option<Leader>,
}

impl OpenOptions<'_> {
    /// Returns whether no option is set.
    #[inline(always)]
    pub(crate) fn is_default(&self) -> bool {
        !self.has_identity() && self.pool.is_none() && self.address.is_none()
    }

    /// Returns whether an option is set that the sessions file keeps.
    #[inline]
    pub(crate) fn has_identity(&self) -> bool {
        self.user.is_some() || self.client.is_some() || self.leader.is_some()
    }
}
