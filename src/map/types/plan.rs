//! The input of a map: the plan from which a map is built, and the options of a session.

use std::net::IpAddr;

pub use crate::leader::Leader;
use crate::policy::Policy;
use crate::pool::{Pool, Reservation};

/// Maximum number of pools of a map.
pub const MAX_POOLS: usize = 16;

/// Maximum length of the name of a pool, in bytes.
pub const MAX_POOL_NAME: usize = 63;

/// The plan from which a map is built. `Farm::plan` returns the plan of a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Plan {
    /// The pools, at most [`MAX_POOLS`]. Two pools must not have an address in common.
    ///
    /// If the map replaces no other map, the number of a pool is its index in this list. If it
    /// replaces another map, the pools of that map keep their numbers.
    pub pools: Vec<Pool>,
    /// The policy for hook layers.
    pub policy: Policy,
    /// The settings of the map.
    pub settings: Settings,
    /// The reserved addresses.
    pub reservations: Vec<Reservation>,
}

impl Plan {
    /// Creates a plan with these pools, an empty policy, default settings and no reservations.
    #[must_use]
    pub fn new(pools: impl IntoIterator<Item = Pool>) -> Self {
        Self { pools: pools.into_iter().collect(), ..Self::default() }
    }

    /// Sets the policy for hook layers.
    #[must_use]
    pub fn with_policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// Sets the settings of the map.
    #[must_use]
    pub fn with_settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// Sets the reserved addresses.
    #[must_use]
    pub fn with_reservations(
        mut self,
        reservations: impl IntoIterator<Item = Reservation>,
    ) -> Self {
        self.reservations = reservations.into_iter().collect();
        self
    }
}

/// The settings of a map. They are the same for all writers of the map.
///
/// By default, the cool-down is 120 seconds. This is twice the time for which Linux keeps a closed
/// TCP connection in the state TIME_WAIT. By default, `check_in_use` is also set. A farm, a plan
/// and the C ABI have the same defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Settings {
    /// Seconds from the release of an address until another user can get the address.
    pub cool_down: u32,
    /// Whether an address that has cooled down becomes available only after
    /// [`Map::reap`](crate::map::Map::reap) has found no socket on the address.
    pub check_in_use: bool,
    /// The low-water mark: the map reports when the number of free and cooling addresses of a pool
    /// falls below this number. It does not repeat the report until the number has risen to the
    /// mark again. 0 for no report.
    pub low_water: u32,
    /// Maximum number of sessions of one user; 0 for no limit.
    pub sessions_per_user: u32,
    /// Maximum number of sessions of the server; 0 for no limit.
    pub max_sessions: u32,
    /// The treatment of a session when no address is available.
    pub on_exhausted: ExhaustionPolicy,
    /// The time at which a session gets its addresses.
    pub allocate: AllocationTime,
    /// Whether each logon is a session of its own, or all logons of a user share one session.
    pub session_per: SessionPer,
    /// Whether the map refuses sessions as "not ready" until
    /// [`Map::mark_restored`](crate::map::Map::mark_restored) is called.
    pub await_restore: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self::new()
    }
}

impl Settings {
    /// Creates the default settings: a cool-down of 120 seconds, a check for sockets, no limits,
    /// addresses at logon.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            cool_down: 120,
            check_in_use: true,
            low_water: 0,
            sessions_per_user: 0,
            max_sessions: 0,
            on_exhausted: ExhaustionPolicy::Pass,
            allocate: AllocationTime::Logon,
            session_per: SessionPer::Logon,
            await_restore: false,
        }
    }

    /// Creates the default settings without the cool-down and the check for sockets. Another user
    /// can get an address as soon as it is released.
    #[must_use]
    pub const fn without_cool_down() -> Self {
        Self::new().with_cool_down(0).with_check_in_use(false)
    }

    /// Sets the seconds from the release of an address until another user can get the address.
    #[must_use]
    pub const fn with_cool_down(mut self, cool_down: u32) -> Self {
        self.cool_down = cool_down;
        self
    }

    /// Sets whether an address becomes available only after a check for sockets. See
    /// [`Settings::check_in_use`].
    #[must_use]
    pub const fn with_check_in_use(mut self, check_in_use: bool) -> Self {
        self.check_in_use = check_in_use;
        self
    }

    /// Sets the low-water mark; 0 for no report. See [`Settings::low_water`].
    #[must_use]
    pub const fn with_low_water(mut self, low_water: u32) -> Self {
        self.low_water = low_water;
        self
    }

    /// Sets the maximum number of sessions of one user; 0 for no limit.
    #[must_use]
    pub const fn with_sessions_per_user(mut self, sessions_per_user: u32) -> Self {
        self.sessions_per_user = sessions_per_user;
        self
    }

    /// Sets the maximum number of sessions of the server; 0 for no limit.
    #[must_use]
    pub const fn with_max_sessions(mut self, max_sessions: u32) -> Self {
        self.max_sessions = max_sessions;
        self
    }

    /// Sets the treatment of a session when no address is available.
    #[must_use]
    pub const fn with_on_exhausted(mut self, on_exhausted: ExhaustionPolicy) -> Self {
        self.on_exhausted = on_exhausted;
        self
    }

    /// Sets the time at which a session gets its addresses.
    #[must_use]
    pub const fn with_allocate(mut self, allocate: AllocationTime) -> Self {
        self.allocate = allocate;
        self
    }

    /// Sets whether each logon is a session of its own, or all logons of a user share one session.
    #[must_use]
    pub const fn with_session_per(mut self, session_per: SessionPer) -> Self {
        self.session_per = session_per;
        self
    }

    /// Sets whether the map refuses sessions until it is marked as restored.
    #[must_use]
    pub const fn with_await_restore(mut self, await_restore: bool) -> Self {
        self.await_restore = await_restore;
        self
    }
}

/// The treatment of a session when no address is available. The caller of the map applies this
/// treatment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExhaustionPolicy {
    /// The session starts with the address of the host, and the user gets a message.
    #[default]
    Pass,
    /// The session does not start.
    Refuse,
    /// The caller tries again for up to this many seconds. If there is still no address, the
    /// session starts as with `Pass`.
    Wait(u32),
}

/// The time at which a session gets its addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AllocationTime {
    /// The logon of the user.
    #[default]
    Logon,
    /// The first start of a listed program in the session. `vipool run` or another caller of the
    /// map allocates the addresses, not the hook layer.
    FirstUse,
}

/// The logons that belong to one session. The program that opens sessions applies this setting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SessionPer {
    /// One logon. A user with two logons has two sessions.
    #[default]
    Logon,
    /// All logons of one user. Their session has an id of the kind
    /// [`SessionKind::User`](crate::session::SessionKind::User), see
    /// [`Map::join_session`](crate::map::Map::join_session). Windows does not use this setting:
    /// there, a session is always a session of terminal services.
    User,
}

/// Options for [`Map::open_session`](crate::map::Map::open_session). Every field is optional.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct OpenOptions<'a> {
    /// The name of the user. By this name, the map finds the last address and the reservations of
    /// the user, and counts the sessions of the user. The map shows at most 63 bytes of the name,
    /// but compares the complete name.
    pub user: Option<&'a str>,
    /// The name of the pool for virtual IPs. Without a name, the session gets an address of the
    /// pool `default`, or of the first pool for virtual IPs if no pool is named `default`. Every
    /// session also gets an address of the loopback pool, if the map has one.
    pub pool: Option<&'a str>,
    /// Require this address; fail if it is not available.
    pub address: Option<IpAddr>,
    /// The address of the client of the user.
    pub client: Option<IpAddr>,
    /// The session leader. [`Map::reap`](crate::map::Map::reap) closes the session when this
    /// process has exited.
    pub leader: Option<Leader>,
}

impl<'a> OpenOptions<'a> {
    /// Creates options for an anonymous session: no user, no client, no leader, any address.
    #[must_use]
    pub const fn new() -> Self {
        Self { user: None, pool: None, address: None, client: None, leader: None }
    }

    /// Sets the name of the user.
    #[must_use]
    pub fn with_user(mut self, user: impl Into<Option<&'a str>>) -> Self {
        self.user = user.into();
        self
    }

    /// Sets the name of the pool for virtual IPs.
    #[must_use]
    pub fn with_pool(mut self, pool: impl Into<Option<&'a str>>) -> Self {
        self.pool = pool.into();
        self
    }

    /// Requires this address.
    #[must_use]
    pub fn with_address(mut self, address: impl Into<Option<IpAddr>>) -> Self {
        self.address = address.into();
        self
    }

    /// Sets the address of the client.
    #[must_use]
    pub fn with_client(mut self, client: impl Into<Option<IpAddr>>) -> Self {
        self.client = client.into();
        self
    }

    /// Sets the session leader.
    #[must_use]
    pub fn with_leader(mut self, leader: impl Into<Option<Leader>>) -> Self {
        self.leader = leader.into();
        self
    }
}

impl OpenOptions<'_> {
    /// Returns whether no option is set.
    #[inline(always)]
    pub(crate) fn is_default(&self) -> bool {
        !self.has_identity() && self.pool.is_none() && self.address.is_none()
    }

    /// Returns whether a user, a client or a leader is set. The file `sessions` stores these
    /// options.
    #[inline]
    pub(crate) fn has_identity(&self) -> bool {
        self.user.is_some() || self.client.is_some() || self.leader.is_some()
    }
}
