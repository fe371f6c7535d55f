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
    /// Whether the session was open before. Its leases are the same then, or more if it lacked some.
    pub already_open: bool,
    /// Why the session has fewer leases than it could have.
    pub shortage: Option<Shortage>,
    /// Whether this call brought a pool below its low-water mark.
    pub low_water: bool,
    /// The leases that this call added to a session that was open before, one bit for each.
    pub(crate) added: u8,
}

impl OpenedSession {
    /// Returns the leases that this call added: all of them, unless the session was open before.
    pub fn new_leases(&self) -> impl Iterator<Item = Lease> + '_ {
        let is_new = |index: usize| !self.already_open || self.added & 1 << index != 0;
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

/// The result of a change to addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct AdminChange {
    /// The number of addresses that the change applies to.
    pub addresses: u32,
    /// The number of them that sessions hold. The sessions keep them.
    pub held: u32,
}
