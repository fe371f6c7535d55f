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
    /// The text has a known mistake.
    #[error("{0:?} is not a range: {1}")]
    Mistake(String, AddressMistake),
    /// The CIDR prefix has bits set after the prefix length. The second value is the corrected
    /// prefix.
    #[error("{0} has host bits set: did you mean {1}?")]
    HostBits(String, IpNet),
    /// The first address is above the last, or the families differ.
    #[error(
        "{0:?} is not a range: the first address must not be above the last, and both must be of \
         one family"
    )]
    Order(String),
}

/// A common mistake in the text of an address, a CIDR prefix or a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressMistake {
    /// The text begins or ends with white space.
    #[error("remove the blanks at its ends")]
    Blanks,
    /// An IPv6 address has a zone id, such as `%eth0`.
    #[error("remove the zone id after %; vipool finds the interface by the subnet")]
    ZoneId,
    /// The prefix length is negative or above the maximum of the family. The value is this maximum.
    #[error("the prefix length must be from 0 to {0}")]
    PrefixLength(u8),
    /// A netmask follows the slash. The value is the equivalent prefix length.
    #[error("write the prefix length /{0} instead of the netmask")]
    Netmask(u8),
    /// A number has leading zeros. Some programs read such a number as octal.
    #[error("remove the leading zeros of its numbers")]
    LeadingZeros,
}

impl AddressMistake {
    /// Returns the mistake in a text that is not an address, a CIDR prefix or a range. Returns
    /// `None` if the text has none of these mistakes.
    pub(crate) fn find(text: &str) -> Option<Self> {
        if text.trim() != text {
            return Some(Self::Blanks);
        }
        if text.contains('%') {
            return Some(Self::ZoneId);
        }
        let has_leading_zeros = |number: &str| number.len() > 1 && number.starts_with('0');
        let looks_like_ipv4 = |address: &&str| address.contains('.') && !address.contains(':');
        let mut ipv4_addresses = text.split(['-', '/']).map(str::trim).filter(looks_like_ipv4);
        if ipv4_addresses.any(|address| address.split('.').any(has_leading_zeros)) {
            return Some(Self::LeadingZeros);
        }
        let (address, suffix) = text.split_once('/')?;
        let is_ipv4 = address.parse::<IpAddr>().ok()?.is_ipv4();
        if let Ok(netmask) = suffix.parse()
            && is_ipv4
        {
            return ipnet::ipv4_mask_to_prefix(netmask).ok().map(Self::Netmask);
        }
        let max_length: u8 = if is_ipv4 { 32 } else { 128 };
        match suffix.parse::<i64>() {
            Ok(length) if !(0..=i64::from(max_length)).contains(&length) => {
                Some(Self::PrefixLength(max_length))
            }
            Ok(_) if has_leading_zeros(suffix) => Some(Self::LeadingZeros),
            _ => None,
        }
    }
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

    /// Returns the first address plus `offset`, or `None` if the result is not in the range.
    #[must_use]
    pub fn nth(&self, offset: u128) -> Option<IpAddr> {
        (offset <= self.span()).then(|| from_bits(self.first, bits(self.first) + offset))
    }

    /// Returns the distance from the first address to `address`, or `None` if the range does not
    /// contain `address`.
    #[must_use]
    pub fn offset_of(&self, address: IpAddr) -> Option<u128> {
        self.contains(address).then(|| bits(address) - bits(self.first))
    }
}

impl From<IpNet> for Range {
    fn from(prefix: IpNet) -> Self {
        Self { first: prefix.network(), last: prefix.broadcast() }
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
        let syntax_error = || match AddressMistake::find(text) {
            Some(mistake) => RangeError::Mistake(text.to_owned(), mistake),
            None => RangeError::Syntax(text.to_owned()),
        };
        if let Some((first_text, last_text)) = text.split_once('-') {
            let first = first_text.trim().parse().map_err(|_| syntax_error())?;
            let last = last_text.trim().parse().map_err(|_| syntax_error())?;
            return Range::new(first, last).ok_or_else(|| RangeError::Order(text.to_owned()));
        }
        if text.contains('/') {
            let prefix: IpNet = text.parse().map_err(|_| syntax_error())?;
            if prefix.addr() != prefix.network() {
                return Err(RangeError::HostBits(text.to_owned(), prefix.trunc()));
            }
            return Ok(prefix.into());
        }
        text.parse::<IpAddr>().map(Range::from).map_err(|_| syntax_error())
    }
}

/// Removes the addresses of `excluded` from each range, and returns the remaining ranges, sorted.
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
    let excluded_union = union(excluded);
    let mut pieces = Vec::with_capacity(ranges.len());
    for range in ranges {
        let first_index = excluded_union.partition_point(|excluded| excluded.last < range.first);
        // The part of the range above the excluded ranges that the loop has already processed.
        let mut upper_part = Some(*range);
        let overlapping = excluded_union[first_index..]
            .iter()
            .take_while(|excluded| excluded.first <= range.last);
        for excluded in overlapping {
            let Some(remaining) = upper_part.take() else { break };
            for piece in remaining.difference(excluded) {
                if piece.first < excluded.first {
                    pieces.push(piece);
                } else {
                    upper_part = Some(piece);
                }
            }
        }
        pieces.extend(upper_part);
    }
    pieces.sort_unstable();
    pieces
}

/// Sorts ranges, and merges ranges that overlap.
fn union(ranges: &[Range]) -> Vec<Range> {
    let mut sorted = ranges.to_vec();
    sorted.sort_unstable();
    let mut merged: Vec<Range> = Vec::with_capacity(sorted.len());
    for range in sorted {
        match merged.last_mut() {
            Some(last_range) if last_range.intersection(&range).is_some() => {
                last_range.last = last_range.last.max(range.last);
            }
            _ => merged.push(range),
        }
    }
    merged
}

/// Returns the address as a number within its family.
pub(crate) fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(ipv4) => ipv4.to_bits().into(),
        IpAddr::V6(ipv6) => ipv6.to_bits(),
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
    let max_bits = if address.is_ipv4() { u32::MAX.into() } else { u128::MAX };
    let next_bits = bits(address).checked_add(1).filter(|next_bits| *next_bits <= max_bits)?;
    Some(from_bits(address, next_bits))
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
            ("10.0.5.0/33", Err("is not a range: the prefix length must be from 0 to 32")),
            ("10.0.5.0/-1", Err("the prefix length must be from 0 to 32")),
            ("2001:db8::/129", Err("the prefix length must be from 0 to 128")),
            ("10.0.5.0/024", Err("leading zeros")),
            ("10.0.5.0/255.255.255.0", Err("write the prefix length /24")),
            ("10.0.5.0/0.0.0.0", Err("write the prefix length /0")),
            ("10.0.5.0/255.0.255.0", Err("is not a range: write a CIDR prefix")),
            ("fe80::1%eth0", Err("zone id")),
            ("10.0.5.7 ", Err("blanks")),
            ("\t10.0.5.0/24", Err("blanks")),
            ("10.0.5.10-10.0.5.010", Err("leading zeros")),
            ("10.0.5.1-", Err("is not a range")),
            ("", Err("is not a range")),
            ("10.0.05.1", Err("is not a range: remove the leading zeros")),
        ];
        for (text, expected) in table {
            match (text.parse::<Range>(), expected) {
                (Ok(range), Ok(formatted)) => {
                    assert_eq!(range.to_string(), formatted);
                    assert_eq!(formatted.parse(), Ok(range));
                }
                (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
                (result, _) => panic!("{text}: {result:?}"),
            }
        }
    }

    #[test]
    fn whole_families_are_ranges() {
        for prefix in ["0.0.0.0/0", "::/0"] {
            let family: Range = prefix.parse().unwrap();
            assert_eq!(family.nth(family.span()), Some(family.last()));
            assert_eq!(family.offset_of(family.last()), Some(family.span()));
            assert_eq!(subtract(&[family], &[family]), []);
            let inner_ranges = subtract(&[family], &[family.first().into(), family.last().into()]);
            assert_eq!(inner_ranges.len(), 1);
            assert_eq!(inner_ranges[0].span(), family.span() - 2);
        }
        let ipv4_range: Range = "0.0.0.0/0".parse().unwrap();
        assert_eq!(ipv4_range.count(), 1 << 32);
        assert!(!ipv4_range.contains("::1".parse().unwrap()));
        let difference: Vec<_> = ipv4_range.difference(&"::/0".parse().unwrap()).collect();
        assert_eq!(difference, [ipv4_range]);
    }

    #[test]
    fn subtract_handles_many_exclusions() {
        let range: Range = "10.0.0.0/8".parse().unwrap();
        let excluded: Vec<Range> =
            (0..100_000).map(|index| range.nth(index * 2).unwrap().into()).collect();
        assert_eq!(subtract(&[range], &excluded).len(), 100_000);
    }

    fn small_range() -> impl Strategy<Value = Range> {
        (0u8..40, 0u8..40).prop_map(|(octet1, octet2)| {
            let address = |last_octet| IpAddr::V4(Ipv4Addr::new(10, 0, 0, last_octet));
            Range::new(address(octet1.min(octet2)), address(octet1.max(octet2))).unwrap()
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
            range1 in small_range(),
            range2 in small_range(),
            excluded in prop::collection::vec(small_range(), 0..5),
        ) {
            let (set1, set2) = (members(&[range1]), members(&[range2]));
            let intersection: Vec<Range> = range1.intersection(&range2).into_iter().collect();
            prop_assert_eq!(members(&intersection), &set1 & &set2);
            let difference: Vec<Range> = range1.difference(&range2).collect();
            prop_assert_eq!(members(&difference), &set1 - &set2);
            let remaining = subtract(&[range1], &excluded);
            prop_assert_eq!(members(&remaining), &set1 - &members(&excluded));
            let remaining_of_union = members(&subtract(&[range2, range1], &excluded));
            prop_assert_eq!(remaining_of_union, &(&set1 | &set2) - &members(&excluded));
            prop_assert!(remaining.is_sorted());
            let remaining_count: u128 = remaining.iter().map(Range::count).sum();
            prop_assert_eq!(remaining_count, members(&remaining).len() as u128);
            prop_assert_eq!(range1.count(), set1.len() as u128);
            for (offset, address) in set1.iter().enumerate() {
                prop_assert_eq!(range1.nth(offset as u128), Some(*address));
                prop_assert_eq!(range1.offset_of(*address), Some(offset as u128));
            }
            prop_assert_eq!(range1.nth(range1.span() + 1), None);
        }

        #[test]
        fn formatted_ranges_parse_to_the_same_range(address1: IpAddr, address2: IpAddr) {
            if let Some(range) = Range::new(address1.min(address2), address1.max(address2)) {
                prop_assert_eq!(range.to_string().parse(), Ok(range));
            }
        }
    }
}
