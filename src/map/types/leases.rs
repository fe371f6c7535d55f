//! The leases of one session.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::session::{Lease, SessionId};

/// Maximum number of leases of one session: an IPv4 virtual IP, an IPv6 virtual IP, and a loopback
/// address.
pub const MAX_LEASES: usize = 3;

/// The leases of one session, in the order of the pools.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leases {
    session: Option<SessionId>,
    count: usize,
    leases: [PackedLease; MAX_LEASES],
}

/// A lease without its session. The struct has no padding, so the processor can copy it in whole
/// words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PackedLease {
    /// The address as a 128-bit number: its upper half and its lower half.
    pub(crate) address_bits: [u64; 2],
    pub(crate) slot: u32,
    pub(crate) generation: u32,
    pub(crate) pool: u32,
    /// Not 0 if the address is an IPv4 address.
    pub(crate) is_ipv4: u32,
}

impl Leases {
    /// Returns the leases.
    #[inline]
    #[must_use]
    pub fn iter(&self) -> LeaseIter<'_> {
        LeaseIter { session: self.session, packed: self.packed().iter() }
    }

    /// Returns the number of leases, at most [`MAX_LEASES`].
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Returns whether there are no leases.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Returns the session that holds the leases; `None` if there are none.
    #[inline(always)]
    #[must_use]
    pub fn session(&self) -> Option<SessionId> {
        self.session
    }

    /// Returns the leases without their session.
    #[inline(always)]
    pub(crate) fn packed(&self) -> &[PackedLease] {
        self.leases.get(..self.count).unwrap_or_default()
    }

    /// Returns the lease in this pool.
    #[inline]
    pub(crate) fn in_pool(&self, pool: u16) -> Option<Lease> {
        self.iter().find(|lease| lease.pool == pool)
    }

    /// Returns a list that contains one lease.
    #[inline(always)]
    pub(crate) fn single(session: SessionId, lease: PackedLease) -> Self {
        let leases = [lease, PackedLease::default(), PackedLease::default()];
        Self { session: Some(session), count: 1, leases }
    }

    /// Appends a lease of the session. Does nothing if there are already [`MAX_LEASES`] leases.
    #[inline(always)]
    pub(crate) fn push(&mut self, session: SessionId, lease: PackedLease) {
        if let Some(vacant_entry) = self.leases.get_mut(self.count) {
            *vacant_entry = lease;
            self.session = Some(session);
            self.count += 1;
        }
    }

    /// Returns the leases in the order of the pools.
    #[inline(never)]
    pub(crate) fn sorted(mut self) -> Self {
        if let Some(leases) = self.leases.get_mut(..self.count) {
            leases.sort_unstable_by_key(|lease| lease.pool);
        }
        self
    }
}

/// An iterator over the leases of one session. [`Leases::iter`] returns it.
#[derive(Clone, Debug)]
pub struct LeaseIter<'a> {
    session: Option<SessionId>,
    packed: std::slice::Iter<'a, PackedLease>,
}

impl Iterator for LeaseIter<'_> {
    type Item = Lease;

    #[inline]
    fn next(&mut self) -> Option<Lease> {
        let session = self.session?;
        self.packed.next().map(|lease| lease.unpack(session))
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        match self.session {
            Some(_) => self.packed.size_hint(),
            None => (0, Some(0)),
        }
    }
}

impl DoubleEndedIterator for LeaseIter<'_> {
    #[inline]
    fn next_back(&mut self) -> Option<Lease> {
        let session = self.session?;
        self.packed.next_back().map(|lease| lease.unpack(session))
    }
}

impl ExactSizeIterator for LeaseIter<'_> {}

impl std::iter::FusedIterator for LeaseIter<'_> {}

impl<'a> IntoIterator for &'a Leases {
    type Item = Lease;
    type IntoIter = LeaseIter<'a>;

    #[inline]
    fn into_iter(self) -> LeaseIter<'a> {
        self.iter()
    }
}

impl PackedLease {
    #[inline]
    fn unpack(&self, session: SessionId) -> Lease {
        let Self { address_bits: [upper, lower], slot, generation, pool, is_ipv4 } = *self;
        let address = if is_ipv4 != 0 {
            Ipv4Addr::from_bits(lower as u32).into()
        } else {
            Ipv6Addr::from_bits(u128::from(upper) << 64 | u128::from(lower)).into()
        };
        Lease { session, pool: pool as u16, slot, generation, address }
    }
}
