//! Ranges of IP addresses and set operations on them.
//!
//! The text form of a range is a CIDR prefix, first-last, or a single address. A range contains
//! addresses of one family, and its first address is not above its last. No function iterates over
//! addresses, so an IPv6 /64 costs the same as a single address.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

/// The addresses of one family from `first` to `last`, both included.
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

/// The reason why a text is not a range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RangeError {
    /// The text is neither an address, nor a CIDR prefix, nor first-last.
    #[error(
        "{0:?} is not a range: write a CIDR prefix (10.0.5.0/24), first-last (10.0.5.10-10.0.5.99) \
         or one address"
    )]
    Syntax(String),
    /// The CIDR prefix has bits set after the prefix length. The second value is the corrected prefix.
    #[error("{0} has host bits set: did you mean {1}?")]
    HostBits(String, IpNet),
    /// The first address is above the last, or the families differ.
    #[error(
        "{0:?} is not a range: the first address must not be above the last, and both must be of \
         one family"
    )]
    Order(String),
}

impl Range {
    /// Returns the range from `first` to `last`, or `None` if the families differ or the order is
    /// wrong.
    #[must_use]
    pub fn new(first: IpAddr, last: IpAddr) -> Option<Self> {
        (first.is_ipv4() == last.is_ipv4() && first <= last).then_some(Self { first, last })
    }

    /// Returns the lowest address.
    #[must_use]
    pub fn first(&self) -> IpAddr {
        self.first
    }

    /// Returns the highest address.
    #[must_use]
    pub fn last(&self) -> IpAddr {
        self.last
    }

    /// Returns whether the range contains the address.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.first.is_ipv4() && self.first <= address && address <= self.last
    }

    /// Returns the addresses that both ranges contain.
    #[must_use]
    pub fn intersection(&self, other: &Range) -> Option<Range> {
        if self.first.is_ipv4() != other.first.is_ipv4() {
            return None;
        }
        Range::new(self.first.max(other.first), self.last.min(other.last))
    }

    /// Returns this range without the addresses of `other`: zero, one or two ranges in ascending
    /// order.
    pub fn difference(&self, other: &Range) -> impl Iterator<Item = Range> + use<> {
        let pieces = match self.intersection(other) {
            None => [Some(*self), None],
            Some(shared) => [
                predecessor(shared.first).and_then(|last| Range::new(self.first, last)),
                successor(shared.last).and_then(|first| Range::new(first, self.last)),
            ],
        };
        pieces.into_iter().flatten()
    }

    /// Returns the number of addresses. For the range of all 2^128 IPv6 addresses, the result is
    /// 2^128-1.
    #[must_use]
    pub fn count(&self) -> u128 {
        self.span().saturating_add(1)
    }

    /// Returns the distance between the last and the first address: the number of addresses minus
    /// one. The result cannot overflow, because an IPv6 range has at most 2^128 addresses.
    #[must_use]
    pub fn span(&self) -> u128 {
        bits(self.last) - bits(self.first)
    }

    /// Returns the address that is `offset` above the first, or `None` if it is not in the range.
    #[must_use]
    pub fn nth(&self, offset: u128) -> Option<IpAddr> {
        (offset <= self.span()).then(|| from_bits(self.first, bits(self.first) + offset))
    }

    /// Returns the distance of the address from the first, or `None` if it is not in the range.
    #[must_use]
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

/// Returns the ranges without the addresses of `excluded`, sorted.
///
/// ```
/// use vipool::range::{Range, subtract};
///
/// let range: Range = "10.0.5.0/24".parse()?;
/// let rest = subtract(&[range], &["10.0.5.0".parse()?, "10.0.5.100-10.0.5.255".parse()?]);
/// assert_eq!(rest, ["10.0.5.1-10.0.5.99".parse()?]);
/// # Ok::<(), vipool::range::RangeError>(())
/// ```
#[must_use]
pub fn subtract(ranges: &[Range], excluded: &[Range]) -> Vec<Range> {
    let excluded = union(excluded);
    let mut pieces = Vec::with_capacity(ranges.len());
    for range in ranges {
        let first = excluded.partition_point(|removed| removed.last < range.first);
        let mut rest = Some(*range);
        for removed in excluded[first..].iter().take_while(|removed| removed.first <= range.last) {
            let Some(remaining) = rest.take() else { break };
            for piece in remaining.difference(removed) {
                if piece.first < removed.first { pieces.push(piece) } else { rest = Some(piece) }
            }
        }
        pieces.extend(rest);
    }
    pieces.sort_unstable();
    pieces
}

/// Returns the same addresses as sorted ranges without overlaps.
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

/// Returns the address as a number within its family.
pub(crate) fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_bits().into(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// Returns the number as an address of the same family as `family_of`. IPv4 uses the low 32 bits.
pub(crate) fn from_bits(family_of: IpAddr, bits: u128) -> IpAddr {
    match family_of {
        IpAddr::V4(_) => IpAddr::V4((bits as u32).into()),
        IpAddr::V6(_) => IpAddr::V6(bits.into()),
    }
}

/// Returns the next higher address of the family.
fn successor(address: IpAddr) -> Option<IpAddr> {
    let max = if address.is_ipv4() { u32::MAX.into() } else { u128::MAX };
    let next = bits(address).checked_add(1).filter(|next| *next <= max)?;
    Some(from_bits(address, next))
}

/// Returns the next lower address of the family.
fn predecessor(address: IpAddr) -> Option<IpAddr> {
    Some(from_bits(address, bits(address).checked_sub(1)?))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn texts_are_parsed_and_formatted() {
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
                (Ok(range), Ok(formatted)) => {
                    assert_eq!(range.to_string(), formatted);
                    assert_eq!(formatted.parse(), Ok(range));
                }
                (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
                (found, _) => panic!("{text}: {found:?}"),
            }
        }
    }

    #[test]
    fn whole_families_are_ranges() {
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
        assert_eq!(v4.difference(&"::/0".parse().unwrap()).collect::<Vec<_>>(), [v4]);
    }

    #[test]
    fn subtract_handles_many_exclusions() {
        let range: Range = "10.0.0.0/8".parse().unwrap();
        let excluded: Vec<Range> = (0..100_000).map(|n| range.nth(n * 2).unwrap().into()).collect();
        assert_eq!(subtract(&[range], &excluded).len(), 100_000);
    }

    fn small_range() -> impl Strategy<Value = Range> {
        (0u8..40, 0u8..40).prop_map(|(a, b)| {
            let address = |low| IpAddr::V4(Ipv4Addr::new(10, 0, 0, low));
            Range::new(address(a.min(b)), address(a.max(b))).unwrap()
        })
    }

    fn members(ranges: &[Range]) -> BTreeSet<IpAddr> {
        ranges
            .iter()
            .flat_map(|range| (0..=range.span()).map(|offset| range.nth(offset).unwrap()))
            .collect()
    }

    proptest! {
        #[test]
        fn operations_equal_set_operations(
            a in small_range(), b in small_range(), excluded in prop::collection::vec(small_range(), 0..5),
        ) {
            let (set_a, set_b) = (members(&[a]), members(&[b]));
            let both: Vec<Range> = a.intersection(&b).into_iter().collect();
            prop_assert_eq!(members(&both), &set_a & &set_b);
            prop_assert_eq!(members(&a.difference(&b).collect::<Vec<_>>()), &set_a - &set_b);
            let rest = subtract(&[a], &excluded);
            prop_assert_eq!(members(&rest), &set_a - &members(&excluded));
            let rest_of_union = members(&subtract(&[b, a], &excluded));
            prop_assert_eq!(rest_of_union, &(&set_a | &set_b) - &members(&excluded));
            prop_assert!(rest.is_sorted());
            prop_assert_eq!(rest.iter().map(Range::count).sum::<u128>(), members(&rest).len() as u128);
            prop_assert_eq!(a.count(), set_a.len() as u128);
            for (offset, address) in set_a.iter().enumerate() {
                prop_assert_eq!(a.nth(offset as u128), Some(*address));
                prop_assert_eq!(a.offset_of(*address), Some(offset as u128));
            }
            prop_assert_eq!(a.nth(a.span() + 1), None);
        }

        #[test]
        fn formatted_ranges_parse_to_the_same_range(a: IpAddr, b: IpAddr) {
            if let Some(range) = Range::new(a.min(b), a.max(b)) {
                prop_assert_eq!(range.to_string().parse(), Ok(range));
            }
        }
    }
}
