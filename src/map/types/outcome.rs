//! The results of the operations on a map.

use super::error::Shortage;
use super::leases::Leases;
use crate::session::{Handle, Lease};

/// The result of opening a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OpenedSession {
    /// The handle for the programs of the session.
    pub handle: Handle,
    /// All leases of the session.
    pub leases: Leases,
    /// Whether the session was already open. In this case, the session has kept its leases. If it
    /// had no lease in one of its pools, this call has added a lease, unless the pool had no
    /// available address.
    pub already_open: bool,
    /// The reason why the session has no lease in one of its pools; `None` if it has a lease in
    /// each of its pools.
    pub shortage: Option<Shortage>,
    /// The number of the first pool that has no address for the session; 0 without a shortage.
    pub shortage_pool: u16,
    /// The pools that this call brought below their low-water marks, one bit for each pool.
    pub(crate) low_water_pools: u32,
    /// The leases that this call added to a session that was already open. Bit i is set if the call
    /// added the lease with index i in `leases`.
    pub(crate) added_leases: u8,
}

impl OpenedSession {
    /// Returns the numbers of the pools that this call brought below their low-water marks.
    pub fn low_water_pools(&self) -> impl Iterator<Item = u16> + use<> {
        let pools = self.low_water_pools;
        (0..32).filter(move |number| pools & 1 << number != 0)
    }

    /// Returns whether this call brought a pool below its low-water mark.
    #[inline]
    pub fn is_low_water(&self) -> bool {
        self.low_water_pools != 0
    }

    /// Returns the leases that this call added. These are all leases if the session was not open
    /// before.
    pub fn new_leases(&self) -> impl Iterator<Item = Lease> + '_ {
        let is_new = |index: usize| !self.already_open || self.added_leases & 1 << index != 0;
        self.leases
            .iter()
            .enumerate()
            .filter(move |(index, _)| is_new(*index))
            .map(|(_, lease)| lease)
    }
}

/// The result of closing a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClosedSession {
    /// The leases that were released.
    pub leases: Leases,
}

/// The result of an operation that starts or ends a drain or a reservation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct AdminChange {
    /// The number of addresses that the change applies to.
    pub addresses: u32,
    /// The number of these addresses that sessions hold. The sessions keep these addresses.
    pub held: u32,
}
