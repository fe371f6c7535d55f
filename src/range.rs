//! Ranges of addresses: CIDR or first-last, IPv4 or IPv6, and arithmetic on them.
//!
//! A range never mixes families and its first address is never above its last. Nothing here
//! iterates over addresses, so an IPv6 /64 costs what a /32 costs.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

/// Addresses from `first` to `last`, both included, of one family.
///
/// ```
/// use vipool::range::Range;
///
/// let range: Range = "10.0.5.10-10.0.5.99".parse()?;
/// assert_eq!(range.count(), 90);
/// assert_eq!(range.nth(89), Some(range.last()));
/// assert!(range.contains("10.0.5.42".parse()?));
/// assert_eq!(range.intersection(&"10.0.5.0/26".parse()?), Some("10.0.5.10-10.0.5.63".parse()?));
/// assert!("10.0.5.1/24".parse::<Range>().is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Range {
    first: IpAddr,
    last: IpAddr,
}

/// Why a text is not a range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
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

    /// How many addresses there are; 2^128 - 1 for all of IPv6, which holds one more.
    pub fn count(&self) -> u128 {
        self.span().saturating_add(1)
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

/// What is left of the ranges when all of the holes are cut out, in order.
///
/// ```
/// use vipool::range::{Range, subtract};
///
/// let range: Range = "10.0.5.0/24".parse()?;
/// let left = subtract(&[range], &["10.0.5.0".parse()?, "10.0.5.100-10.0.5.255".parse()?]);
/// assert_eq!(left, ["10.0.5.1-10.0.5.99".parse()?]);
/// # Ok::<(), vipool::range::RangeError>(())
/// ```
pub fn subtract(ranges: &[Range], holes: &[Range]) -> Vec<Range> {
    let holes = union(holes);
    let mut left = Vec::with_capacity(ranges.len());
    for range in ranges {
        let first = holes.partition_point(|hole| hole.last < range.first);
        let mut rest = Some(*range);
        for hole in holes[first..].iter().take_while(|hole| hole.first <= range.last) {
            let Some(whole) = rest.take() else { break };
            for piece in whole.without(hole) {
                if piece.first < hole.first { left.push(piece) } else { rest = Some(piece) }
            }
        }
        left.extend(rest);
    }
    left.sort_unstable();
    left
}

/// The same addresses in ranges that do not overlap, in order.
fn union(ranges: &[Range]) -> Vec<Range> {
    let mut sorted = ranges.to_vec();
    sorted.sort_unstable();
    let mut merged: Vec<Range> = Vec::with_capacity(sorted.len());
    for range in sorted {
        match merged.last_mut() {
            Some(last) if last.intersection(&range).is_some() => {
                last.last = last.last.max(range.last);
            }
            _ => merged.push(range),
        }
    }
    merged
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn texts() {
        let table = [
            ("10.0.5.0/24", Ok("10.0.5.0-10.0.5.255")),
            ("10.0.5.10-10.0.5.99", Ok("10.0.5.10-10.0.5.99")),
            ("10.0.5.10 - 10.0.5.99", Ok("10.0.5.10-10.0.5.99")),
            ("10.0.5.7", Ok("10.0.5.7")),
            ("10.0.5.7/32", Ok("10.0.5.7")),
            ("0.0.0.0/0", Ok("0.0.0.0-255.255.255.255")),
            ("2001:db8::/126", Ok("2001:db8::-2001:db8::3")),
            ("::/0", Ok("::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")),
            ("10.0.5.1/24", Err("did you mean 10.0.5.0/24?")),
            ("10.0.5.9-10.0.5.1", Err("must not be above")),
            ("10.0.5.1-::1", Err("of one family")),
            ("10.0.5", Err("is not a range")),
            ("10.0.5.0/33", Err("is not a range")),
            ("10.0.5.1-", Err("is not a range")),
            ("", Err("is not a range")),
            ("10.0.05.1", Err("is not a range")),
        ];
        for (text, expected) in table {
            match (text.parse::<Range>(), expected) {
                (Ok(range), Ok(shown)) => {
                    assert_eq!(range.to_string(), shown);
                    assert_eq!(shown.parse(), Ok(range));
                }
                (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
                (found, _) => panic!("{text}: {found:?}"),
            }
        }
    }

    #[test]
    fn edges_of_the_families() {
        for all in ["0.0.0.0/0", "::/0"] {
            let all: Range = all.parse().unwrap();
            assert_eq!(all.nth(all.span()), Some(all.last()));
            assert_eq!(all.offset_of(all.last()), Some(all.span()));
            assert_eq!(subtract(&[all], &[all]), []);
            let inner = subtract(&[all], &[all.first().into(), all.last().into()]);
            assert_eq!(inner.len(), 1);
            assert_eq!(inner[0].span(), all.span() - 2);
        }
        let v4: Range = "0.0.0.0/0".parse().unwrap();
        assert_eq!(v4.count(), 1 << 32);
        assert!(!v4.contains("::1".parse().unwrap()));
        assert_eq!(v4.without(&"::/0".parse().unwrap()).collect::<Vec<_>>(), [v4]);
    }

    #[test]
    fn many_holes_do_not_take_long() {
        let range: Range = "10.0.0.0/8".parse().unwrap();
        let holes: Vec<Range> = (0..100_000).map(|n| range.nth(n * 2).unwrap().into()).collect();
        assert_eq!(subtract(&[range], &holes).len(), 100_000);
    }

    fn small() -> impl Strategy<Value = Range> {
        (0u8..40, 0u8..40).prop_map(|(a, b)| {
            let address = |low| IpAddr::V4(Ipv4Addr::new(10, 0, 0, low));
            Range::new(address(a.min(b)), address(a.max(b))).unwrap()
        })
    }

    fn members(ranges: &[Range]) -> BTreeSet<IpAddr> {
        ranges.iter().flat_map(|r| (0..=r.span()).map(|offset| r.nth(offset).unwrap())).collect()
    }

    proptest! {
        #[test]
        fn arithmetic_is_that_of_sets(
            a in small(), b in small(), holes in prop::collection::vec(small(), 0..5),
        ) {
            let (set_a, set_b) = (members(&[a]), members(&[b]));
            let both: Vec<Range> = a.intersection(&b).into_iter().collect();
            prop_assert_eq!(members(&both), &set_a & &set_b);
            prop_assert_eq!(members(&a.without(&b).collect::<Vec<_>>()), &set_a - &set_b);
            let left = subtract(&[a], &holes);
            prop_assert_eq!(members(&left), &set_a - &members(&holes));
            let of_both = members(&subtract(&[b, a], &holes));
            prop_assert_eq!(of_both, &(&set_a | &set_b) - &members(&holes));
            prop_assert!(left.is_sorted());
            prop_assert_eq!(left.iter().map(Range::count).sum::<u128>(), members(&left).len() as u128);
            prop_assert_eq!(a.count(), set_a.len() as u128);
            for (offset, address) in set_a.iter().enumerate() {
                prop_assert_eq!(a.nth(offset as u128), Some(*address));
                prop_assert_eq!(a.offset_of(*address), Some(offset as u128));
            }
            prop_assert_eq!(a.nth(a.span() + 1), None);
        }

        #[test]
        fn shown_ranges_are_read_back(a: IpAddr, b: IpAddr) {
            if let Some(range) = Range::new(a.min(b), a.max(b)) {
                prop_assert_eq!(range.to_string().parse(), Ok(range));
            }
        }
    }
}
