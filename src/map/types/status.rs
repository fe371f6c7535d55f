//! The state of pools, addresses and sessions, for monitors.

use std::net::IpAddr;

use super::leases::Leases;
use super::plan::Leader;
use crate::Tick;
use crate::session::{Handle, SessionId};

/// The counters of one pool, as the last writer stored them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolStatus {
    /// The name of the pool. Empty if the pool was removed and pools with higher numbers exist.
    pub name: String,
    /// Whether the pool is a loopback pool.
    pub loopback: bool,
    /// Whether the addresses are IPv4.
    pub ipv4: bool,
    /// The number of addresses.
    pub slots: u32,
    /// The number of free addresses.
    pub free: u32,
    /// The number of leased addresses.
    pub leased: u32,
    /// The number of addresses that cool down after their release.
    pub cooling: u32,
    /// The number of addresses that have cooled down but still have sockets.
    pub lingering: u32,
    /// The number of addresses that are reserved for a user and not leased.
    pub reserved: u32,
    /// The number of drained addresses that are not leased. An address is drained if an
    /// administrator drained it, or if the configuration no longer has it in this pool.
    pub drained: u32,
    /// The maximum of `leased` so far.
    pub peak: u32,
}

/// One address of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SlotRow {
    /// The address.
    pub address: IpAddr,
    /// The state of the address.
    pub state: SlotState,
    /// Whether the address is reserved for a user.
    pub reserved: bool,
    /// Whether an administrator drained the address, or the configuration no longer has it in this
    /// pool.
    pub drained: bool,
}

impl SlotRow {
    /// Creates the row of an address that is neither reserved nor drained.
    #[must_use]
    pub const fn new(address: IpAddr, state: SlotState) -> Self {
        Self { address, state, reserved: false, drained: false }
    }

    /// Sets whether the address is reserved for a user.
    #[must_use]
    pub const fn with_reserved(mut self, reserved: bool) -> Self {
        self.reserved = reserved;
        self
    }

    /// Sets whether the address is drained or no longer configured.
    #[must_use]
    pub const fn with_drained(mut self, drained: bool) -> Self {
        self.drained = drained;
        self
    }
}

/// The state of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SlotState {
    /// Not held by a session, and available unless reserved or drained.
    Free,
    /// Held by a session.
    Leased,
    /// Released, and not available to other users yet.
    Cooling,
    /// Cooled down, but sockets still use the address.
    Lingering,
}

/// One open session.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionRow {
    /// The session.
    pub session: SessionId,
    /// The handle of the session.
    pub handle: Handle,
    /// The leases of the session.
    pub leases: Leases,
    /// The time at which the session got its first lease.
    pub since: Tick,
    /// The user. `None` if unknown, or if the caller cannot read the file `sessions`.
    pub user: Option<String>,
    /// The client of the user. `None` if unknown, or if the caller cannot read the file `sessions`.
    pub client: Option<IpAddr>,
    /// The leader. `None` if there is none, or if the caller cannot read the file `sessions`.
    pub leader: Option<Leader>,
}
