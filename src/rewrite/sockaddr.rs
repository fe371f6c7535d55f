//! Socket addresses as the bytes of a `struct sockaddr`.
//!
//! No function panics, or reads or writes outside the slices of the caller. An address that is too
//! short, too long or of another family is [`Parsed::Other`]. Calls with such an address pass
//! unchanged, so the kernel reports the error.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// Length of the longest socket address that a kernel accepts (`struct sockaddr_storage`).
pub const MAX_LENGTH: usize = 128;
/// Length of a `struct sockaddr_in`.
pub const IPV4_LENGTH: usize = 16;
/// Length of a `struct sockaddr_in6`.
pub const IPV6_LENGTH: usize = 28;
/// Length of the shortest `struct sockaddr_in6` that Linux accepts. This form has no scope id (RFC
/// 2133).
const IPV6_SHORT_LENGTH: usize = 24;

/// `AF_UNSPEC`, the same on every platform.
const AF_UNSPEC: u16 = 0;
/// `AF_INET`, the same on every platform.
const AF_INET: u16 = 2;
/// `AF_INET6` of this platform.
const AF_INET6: u16 = if cfg!(windows) {
    23
} else if cfg!(target_vendor = "apple") {
    30
} else {
    10
};

/// A parsed socket address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// An IPv4 or IPv6 address.
    Inet(SocketAddr),
    /// Family `AF_UNSPEC`. A connect with this family disconnects the socket. A bind with this
    /// family uses 0.0.0.0 if the address is zero (row 15). The port is present only in that case.
    Unspecified(Option<u16>),
    /// Another family, or a length that the kernel rejects.
    Other,
}

/// Parses a socket address of `bytes.len()` bytes.
#[inline]
#[must_use]
pub fn parse(bytes: &[u8]) -> Parsed {
    let Some(family) = read_family(bytes).filter(|_| bytes.len() <= MAX_LENGTH) else {
        return Parsed::Other;
    };
    match family {
        AF_INET => parse_ipv4(bytes).map_or(Parsed::Other, |v4| Parsed::Inet(v4.into())),
        AF_INET6 => parse_ipv6(bytes).map_or(Parsed::Other, |v6| Parsed::Inet(v6.into())),
        AF_UNSPEC => Parsed::Unspecified(
            parse_ipv4(bytes).filter(|v4| v4.ip().is_unspecified()).map(|v4| v4.port()),
        ),
        _ => Parsed::Other,
    }
}

/// Returns the octets of the IPv4 address within a socket address. The address can be IPv4-mapped.
/// Returns `None` if the bytes are too short or contain no IPv4 address.
#[inline]
pub fn ipv4_octets_mut(bytes: &mut [u8]) -> Option<&mut [u8; 4]> {
    const MAPPED_PREFIX: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];
    match read_family(bytes)? {
        AF_INET => bytes.first_chunk_mut::<IPV4_LENGTH>()?.get_mut(4..)?.first_chunk_mut(),
        AF_INET6 => {
            let (_, address) = bytes.first_chunk_mut::<IPV6_SHORT_LENGTH>()?.split_at_mut(8);
            let (prefix, ip) = address.split_first_chunk_mut()?;
            if *prefix == MAPPED_PREFIX { ip.first_chunk_mut() } else { None }
        }
        _ => None,
    }
}

/// Writes the address to the beginning of `out`, truncated to the length of `out`. Returns the full
/// length, as getsockname does. Bytes after the address stay unchanged.
#[inline]
pub fn write(address: &SocketAddr, out: &mut [u8]) -> usize {
    match address {
        SocketAddr::V4(v4) => {
            let [family0, family1] = encode_family(AF_INET, IPV4_LENGTH);
            let [port_high, port_low] = v4.port().to_be_bytes();
            let [ip0, ip1, ip2, ip3] = v4.ip().octets();
            copy_truncated(
                out,
                &[
                    family0, family1, port_high, port_low, ip0, ip1, ip2, ip3, 0, 0, 0, 0, 0, 0, 0,
                    0,
                ],
            )
        }
        SocketAddr::V6(v6) => {
            let mut bytes = [0; IPV6_LENGTH];
            let (head, rest) = bytes.split_at_mut(8);
            head[..2].copy_from_slice(&encode_family(AF_INET6, IPV6_LENGTH));
            head[2..4].copy_from_slice(&v6.port().to_be_bytes());
            head[4..].copy_from_slice(&v6.flowinfo().to_ne_bytes());
            rest[..16].copy_from_slice(&v6.ip().octets());
            rest[16..].copy_from_slice(&v6.scope_id().to_ne_bytes());
            copy_truncated(out, &bytes)
        }
    }
}

/// Returns the address as an IPv4-mapped IPv6 address.
#[must_use]
pub fn to_mapped(address: SocketAddrV4) -> SocketAddr {
    SocketAddrV6::new(address.ip().to_ipv6_mapped(), address.port(), 0, 0).into()
}

/// Returns the IPv4 address of an IPv4 or IPv4-mapped address.
#[must_use]
pub fn as_ipv4(address: IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(v4) => Some(v4),
        IpAddr::V6(v6) => v6.to_ipv4_mapped(),
    }
}

#[cfg(not(target_vendor = "apple"))]
fn read_family(bytes: &[u8]) -> Option<u16> {
    bytes.first_chunk().copied().map(u16::from_ne_bytes)
}

/// On BSD the first byte is a length, which the kernel ignores.
#[cfg(target_vendor = "apple")]
fn read_family(bytes: &[u8]) -> Option<u16> {
    bytes.get(1).copied().map(u16::from)
}

#[cfg(not(target_vendor = "apple"))]
fn encode_family(family: u16, _length: usize) -> [u8; 2] {
    family.to_ne_bytes()
}

#[cfg(target_vendor = "apple")]
fn encode_family(family: u16, length: usize) -> [u8; 2] {
    [length as u8, family as u8]
}

fn parse_ipv4(bytes: &[u8]) -> Option<SocketAddrV4> {
    let bytes: &[u8; IPV4_LENGTH] = bytes.first_chunk()?;
    let [_, _, port_high, port_low, ip0, ip1, ip2, ip3, ..] = *bytes;
    Some(SocketAddrV4::new(
        Ipv4Addr::new(ip0, ip1, ip2, ip3),
        u16::from_be_bytes([port_high, port_low]),
    ))
}

fn parse_ipv6(bytes: &[u8]) -> Option<SocketAddrV6> {
    let short_address: &[u8; IPV6_SHORT_LENGTH] = bytes.first_chunk()?;
    let [_, _, port_high, port_low, flow0, flow1, flow2, flow3, address @ ..] = *short_address;
    let scope = bytes.get(IPV6_SHORT_LENGTH..IPV6_LENGTH).and_then(|tail| tail.first_chunk());
    Some(SocketAddrV6::new(
        Ipv6Addr::from(address),
        u16::from_be_bytes([port_high, port_low]),
        u32::from_ne_bytes([flow0, flow1, flow2, flow3]),
        scope.copied().map_or(0, u32::from_ne_bytes),
    ))
}

/// Copies as many bytes as fit and returns the full length.
#[inline]
fn copy_truncated<const LENGTH: usize>(out: &mut [u8], bytes: &[u8; LENGTH]) -> usize {
    match out.first_chunk_mut() {
        Some(target) => *target = *bytes,
        None => {
            for (target, byte) in out.iter_mut().zip(bytes) {
                *target = *byte;
            }
        }
    }
    LENGTH
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_addresses_parse_to_the_same_value() {
        for text in ["127.0.0.1:80", "10.1.2.3:65535", "[::1]:8080", "[fe80::1%3]:9"] {
            let address: SocketAddr = text.parse().unwrap();
            let mut bytes = [0; MAX_LENGTH];
            let length = write(&address, &mut bytes);
            assert_eq!(parse(&bytes[..length]), Parsed::Inet(address), "{text}");
            assert_eq!(parse(&bytes), Parsed::Inet(address), "{text} in 128 bytes");
            assert_eq!(parse(&[bytes.as_slice(), &[0]].concat()), Parsed::Other, "129 bytes");
        }
    }

    #[test]
    fn short_input_is_rejected_and_short_output_is_truncated() {
        let address: SocketAddr = "[fe80::1%3]:9".parse().unwrap();
        let mut bytes = [0; IPV6_LENGTH];
        write(&address, &mut bytes);
        for length in 0..IPV6_SHORT_LENGTH {
            assert_eq!(parse(&bytes[..length]), Parsed::Other, "{length}");
        }
        assert_eq!(parse(&bytes[..24]), Parsed::Inet("[fe80::1]:9".parse().unwrap()));
        for length in 0..IPV6_LENGTH {
            let mut out = [0xaa; IPV6_LENGTH];
            assert_eq!(write(&address, &mut out[..length]), IPV6_LENGTH);
            assert_eq!(out[..length], bytes[..length]);
            assert!(out[length..].iter().all(|byte| *byte == 0xaa));
        }
    }

    #[test]
    fn ipv4_octets_are_found_in_ipv4_and_mapped_addresses() {
        for text in ["10.1.2.3:5", "[::ffff:10.1.2.3]:5", "[::1]:5", "[fe80::10.1.2.3]:5"] {
            let address: SocketAddr = text.parse().unwrap();
            let mut bytes = [0; MAX_LENGTH];
            let length = write(&address, &mut bytes);
            for length in 0..IPV4_LENGTH {
                assert_eq!(ipv4_octets_mut(&mut bytes[..length]), None, "{text}");
            }
            let octets = ipv4_octets_mut(&mut bytes[..length]).map(|ip| Ipv4Addr::from(*ip));
            assert_eq!(octets, as_ipv4(address.ip()), "{text}");
            if let Some(ip) = ipv4_octets_mut(&mut bytes[..length]) {
                *ip = [192, 0, 2, 9];
                let changed = text.replace("10.1.2.3", "192.0.2.9").parse().unwrap();
                assert_eq!(parse(&bytes[..length]), Parsed::Inet(changed));
            }
        }
        assert_eq!(ipv4_octets_mut(&mut [0; IPV4_LENGTH]), None);
    }

    #[test]
    fn unspec_family_has_a_port_only_with_a_zero_address() {
        let mut bytes = [0; IPV4_LENGTH];
        bytes[2] = 1;
        assert_eq!(parse(&bytes), Parsed::Unspecified(Some(256)));
        assert_eq!(parse(&bytes[..2]), Parsed::Unspecified(None));
        bytes[4] = 1;
        assert_eq!(parse(&bytes), Parsed::Unspecified(None));
    }
}
