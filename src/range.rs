//! Ranges of addresses: CIDR or first-last, IPv4 or IPv6, and arithmetic on them.
//!
//! A range never mixes families and its first address is never above its last. Nothing here
//! iterates over addresses, so an IPv6 /64 costs what a /32 costs.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

/// Addresses from `first` to `last`, both included, of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Range {
    first: IpAddr,
    last: IpAddr,
}

/// Why a text is not a range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// Neither an address, a CIDR prefix nor first-last.
    #[error(
        "{0:?} is not a range: write a CIDR prefix (10.0.5.0/24), first-last (10.0.5.10-10.0.5.99) or one address"
    )]
    Syntax(String),
    /// A CIDR prefix with bits set behind the prefix length.
    #[error("{0} has host bits set: did you mean {1}?")]
    HostBits(String, IpNet),
    /// First above last, or two families.
    #[error("{0:?}: the first address must not be above the last, and both must be of one family")]
    Order(String),
}

impl Range {
    /// The range from `first` to `last`; `None` if they are of two families or out of order.
    pub fn new(first: IpAddr, last: IpAddr) -> Option<Self> {
        (first.is_ipv4() == last.is_ipv4() && first <= last).then_some(Self { first, last })
    }

    /// The lowest address.
    pub fn first(&self) -> IpAddr {
        self.first
    }

    /// The highest address.
    pub fn last(&self) -> IpAddr {
        self.last
    }

    /// Whether the address is one of these.
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.first.is_ipv4() && self.first <= address && address <= self.last
    }

    /// The addresses in both.
    pub fn intersection(&self, other: &Range) -> Option<Range> {
        if self.first.is_ipv4() != other.first.is_ipv4() {
            return None;
        }
        Range::new(self.first.max(other.first), self.last.min(other.last))
    }

    /// What is left of this range without the other: none, one or two ranges, in order.
    pub fn without(&self, other: &Range) -> impl Iterator<Item = Range> + use<> {
        let pieces = match self.intersection(other) {
            None => [Some(*self), None],
            Some(cut) => [
                step(cut.first, -1).and_then(|last| Range::new(self.first, last)),
                step(cut.last, 1).and_then(|first| Range::new(first, self.last)),
            ],
        };
        pieces.into_iter().flatten()
    }

    /// How many addresses there are, less one (an IPv6 range can hold 2^128).
    pub fn span(&self) -> u128 {
        bits(self.last) - bits(self.first)
    }

    /// The address `offset` above the first, if it is in the range.
    pub fn nth(&self, offset: u128) -> Option<IpAddr> {
        (offset <= self.span()).then(|| with_bits(self.first, bits(self.first) + offset))
    }

    /// How far the address is above the first, if it is in the range.
    pub fn offset_of(&self, address: IpAddr) -> Option<u128> {
        self.contains(address).then(|| bits(address) - bits(self.first))
    }
}

impl From<IpNet> for Range {
    fn from(net: IpNet) -> Self {
        Self { first: net.network(), last: net.broadcast() }
    }
}

impl From<IpAddr> for Range {
    fn from(address: IpAddr) -> Self {
        Self { first: address, last: address }
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

impl FromStr for Range {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<Self, RangeError> {
        let syntax = || RangeError::Syntax(text.to_owned());
        if let Some((first, last)) = text.split_once('-') {
            let first = first.trim().parse().map_err(|_| syntax())?;
            let last = last.trim().parse().map_err(|_| syntax())?;
            return Range::new(first, last).ok_or_else(|| RangeError::Order(text.to_owned()));
        }
        if text.contains('/') {
            let net: IpNet = text.parse().map_err(|_| syntax())?;
            if net.addr() != net.network() {
                return Err(RangeError::HostBits(text.to_owned(), net.trunc()));
            }
            return Ok(net.into());
        }
        text.parse::<IpAddr>().map(Range::from).map_err(|_| syntax())
    }
}

/// The address as a number within its family.
pub(crate) fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_bits().into(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// The number as an address of the same family as `family`; IPv4 keeps the low 32 bits.
pub(crate) fn with_bits(family: IpAddr, bits: u128) -> IpAddr {
    match family {
        IpAddr::V4(_) => IpAddr::V4((bits as u32).into()),
        IpAddr::V6(_) => IpAddr::V6(bits.into()),
    }
}

/// The address one above or one below, if the family has it.
fn step(address: IpAddr, by: i8) -> Option<IpAddr> {
    let most = if address.is_ipv4() { u32::MAX.into() } else { u128::MAX };
    let moved = if by < 0 { bits(address).checked_sub(1) } else { bits(address).checked_add(1) };
    moved.filter(|bits| *bits <= most).map(|bits| with_bits(address, bits))
}
