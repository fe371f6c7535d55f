//! Addresses and ranges of the C ABI. An address is a small tagged struct, or the bytes of a
//! sockaddr.

use std::ffi::{c_char, c_void};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::error::{CallError, catch_panic};
use super::handle::check_not_null;
use super::layout::any_bytes;
use super::status::vipool_status::{self, *};
use super::text::{copy_text, read_bytes, read_slice, read_utf8};
use crate::range::Range;
use crate::rewrite::sockaddr::{self, Parsed};

/// An IP address, or no address. A struct of zeros means no address. Plain data.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct vipool_ip {
    /// 4 for IPv4, 6 for IPv6, 0 for no address. This is not AF_INET6, whose value differs between
    /// systems.
    pub family: u32,
    /// The address in network byte order. An IPv4 address uses the first four bytes; the other
    /// bytes are zero.
    pub bytes: [u8; 16],
}
any_bytes!(vipool_ip { family, bytes });

/// An inclusive range of addresses of one family. Plain data.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct vipool_range {
    /// Lowest address.
    pub first: vipool_ip,
    /// Highest address.
    pub last: vipool_ip,
}

impl From<Option<IpAddr>> for vipool_ip {
    fn from(address: Option<IpAddr>) -> Self {
        address.map_or(Self::default(), Self::from)
    }
}

impl From<IpAddr> for vipool_ip {
    #[inline]
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(ipv4) => {
                let mut bytes = [0; 16];
                bytes[..4].copy_from_slice(&ipv4.octets());
                Self { family: 4, bytes }
            }
            IpAddr::V6(ipv6) => Self { family: 6, bytes: ipv6.octets() },
        }
    }
}

impl vipool_ip {
    /// Returns the address, `None` for no address, or an error for an unknown family.
    #[inline]
    pub(crate) fn decode_ip(&self) -> Result<Option<IpAddr>, vipool_status> {
        match self.family {
            0 => Ok(None),
            4 => Ok(Some(self.ipv4().into())),
            6 => Ok(Some(self.ipv6().into())),
            _ => Err(VIPOOL_ERR_ADDRESS),
        }
    }

    /// Returns the IPv4 address. The family must be 4.
    #[inline]
    pub(crate) fn ipv4(&self) -> Ipv4Addr {
        let [octet0, octet1, octet2, octet3, ..] = self.bytes;
        Ipv4Addr::new(octet0, octet1, octet2, octet3)
    }

    /// Returns the IPv6 address. The family must be 6.
    #[inline]
    pub(crate) fn ipv6(&self) -> Ipv6Addr {
        self.bytes.into()
    }

    /// Returns the address, or an error for no address or an unknown family.
    #[inline]
    pub(crate) fn decode_required_ip(&self) -> Result<IpAddr, vipool_status> {
        self.decode_ip()?.ok_or(VIPOOL_ERR_ADDRESS)
    }
}

impl From<&Range> for vipool_range {
    fn from(range: &Range) -> Self {
        Self { first: range.first().into(), last: range.last().into() }
    }
}

impl vipool_range {
    pub(crate) fn decode_range(&self) -> Result<Range, vipool_status> {
        Range::new(self.first.decode_required_ip()?, self.last.decode_required_ip()?)
            .ok_or(VIPOOL_ERR_RANGE_ORDER)
    }
}

/// Reads an array of ranges.
///
/// # Safety
/// As for [`read_slice`].
pub(crate) unsafe fn read_ranges(
    ranges: *const vipool_range,
    count: usize,
) -> Result<Vec<Range>, CallError> {
    // SAFETY: the caller guarantees `count` readable ranges.
    let ranges = unsafe { read_slice(ranges, count) }?;
    Ok(ranges.iter().map(vipool_range::decode_range).collect::<Result<_, _>>()?)
}

/// Capacity of vipool_sockaddr.bytes: sizeof(struct sockaddr_in6).
pub const VIPOOL_SOCKADDR_MAX: usize = 28;
const _: () = assert!(VIPOOL_SOCKADDR_MAX == sockaddr::IPV6_LENGTH);

/// A sockaddr_in or sockaddr_in6 with its length. Pass `bytes` and `length` to the socket calls of
/// the system. Plain data.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct vipool_sockaddr {
    /// Number of valid bytes; 0 for no address.
    pub length: u32,
    /// The sockaddr. Bytes beyond `length` are undefined.
    pub bytes: [u8; VIPOOL_SOCKADDR_MAX],
}
any_bytes!(vipool_sockaddr { length, bytes });

impl vipool_sockaddr {
    pub(crate) const NONE: Self = Self { length: 0, bytes: [0; VIPOOL_SOCKADDR_MAX] };

    /// Reads an address of the caller. Reads only `length` bytes of the sockaddr, because the
    /// caller may not have initialised the others.
    ///
    /// # Safety
    /// `sockaddr` is aligned and valid for reads of its length and of the bytes of this length.
    pub(crate) unsafe fn read(sockaddr: *const Self) -> Option<SocketAddr> {
        // SAFETY: the caller guarantees the length.
        let length = unsafe { (*sockaddr).length };
        if length as usize > VIPOOL_SOCKADDR_MAX {
            return None;
        }
        // SAFETY: the caller guarantees `length` bytes.
        let bytes = unsafe { sockaddr_bytes((&raw const (*sockaddr).bytes).cast(), length) };
        parse_inet(bytes.ok()?)
    }

    /// Writes an address. Bytes beyond its length keep their value.
    #[inline]
    pub(crate) fn set(&mut self, address: &SocketAddr) {
        self.length = sockaddr::write(address, &mut self.bytes) as u32;
    }
}

impl From<&SocketAddr> for vipool_sockaddr {
    #[inline]
    fn from(address: &SocketAddr) -> Self {
        let mut sockaddr = Self::NONE;
        sockaddr.set(address);
        sockaddr
    }
}

/// Returns the bytes of a sockaddr, but at most `MAX_LENGTH` + 1 bytes.
///
/// # Safety
/// `address` is NULL or valid for reads of `length` bytes during `'a`.
#[inline]
pub(crate) unsafe fn sockaddr_bytes<'a>(
    address: *const c_void,
    length: u32,
) -> Result<&'a [u8], vipool_status> {
    // No kernel accepts more than `MAX_LENGTH` bytes. A slice that is one byte longer is enough for
    // the parser to reject the sockaddr.
    let length = (length as usize).min(sockaddr::MAX_LENGTH + 1);
    // SAFETY: the caller guarantees at least `length` readable bytes.
    unsafe { read_bytes(address.cast(), length) }
}

/// Parses a sockaddr. Returns `None` if it is not an IPv4 or IPv6 address.
pub(crate) fn parse_inet(bytes: &[u8]) -> Option<SocketAddr> {
    match sockaddr::parse(bytes) {
        Parsed::Inet(address) => Some(address),
        Parsed::Unspecified(_) | Parsed::Other => None,
    }
}

/// Parses an address, such as "10.0.5.7" or "2001:db8::7".
///
/// Parameters:
/// - `text`, `length`: the text, UTF-8.
/// - `out`: receives the address.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_UTF8, VIPOOL_ERR_ADDRESS.
///
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_ip_parse(
    text: *const c_char,
    length: usize,
    out: *mut vipool_ip,
) -> vipool_status {
    catch_panic(|| {
        check_not_null(out)?;
        // SAFETY: the caller guarantees the text.
        let text = unsafe { read_utf8(text, length) }?;
        let address: IpAddr = text.parse().map_err(|_| {
            VIPOOL_ERR_ADDRESS.with_message(format_args!("{text:?} is not an IP address"))
        })?;
        // SAFETY: not NULL.
        unsafe { out.write(address.into()) };
        Ok(())
    })
}

/// Formats an address.
///
/// Parameters:
/// - `ip`: the address. For no address, the text is empty.
/// - `buffer`, `capacity`: receives the text and a NUL. 46 bytes are always enough.
/// - `out_length`: receives the length without the NUL. May be NULL.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_ADDRESS (unknown family), VIPOOL_ERR_BUFFER.
///
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_ip_format(
    ip: *const vipool_ip,
    buffer: *mut c_char,
    capacity: usize,
    out_length: *mut usize,
) -> vipool_status {
    catch_panic(|| {
        // SAFETY: the caller guarantees the address.
        let ip = unsafe { ip.as_ref() }.ok_or(VIPOOL_ERR_NULL)?;
        let text = ip.decode_ip()?.map_or(String::new(), |address| address.to_string());
        // SAFETY: the caller guarantees buffer and length.
        unsafe { copy_text(&text, buffer, capacity, out_length) }
    })
}

/// Reads the address and the port of a sockaddr_in or sockaddr_in6.
///
/// Parameters:
/// - `address`, `length`: the sockaddr, aligned or not.
/// - `out`: receives the address.
/// - `out_port`: receives the port in host byte order. May be NULL.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_ADDRESS (another family, or a wrong length).
///
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_ip_from_sockaddr(
    address: *const c_void,
    length: u32,
    out: *mut vipool_ip,
    out_port: *mut u16,
) -> vipool_status {
    catch_panic(|| {
        check_not_null(out)?;
        // SAFETY: the caller guarantees the bytes.
        let bytes = unsafe { sockaddr_bytes(address, length) }?;
        let Parsed::Inet(socket_address) = sockaddr::parse(bytes) else {
            return Err(VIPOOL_ERR_ADDRESS.into());
        };
        // SAFETY: neither pointer is NULL when it is written.
        unsafe {
            out.write(socket_address.ip().into());
            if !out_port.is_null() {
                out_port.write(socket_address.port());
            }
        }
        Ok(())
    })
}

/// Makes a sockaddr from an address and a port.
///
/// Parameters:
/// - `ip`: the address.
/// - `port`: the port in host byte order.
/// - `out`: receives the sockaddr.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_ADDRESS.
///
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_ip_to_sockaddr(
    ip: *const vipool_ip,
    port: u16,
    out: *mut vipool_sockaddr,
) -> vipool_status {
    catch_panic(|| {
        check_not_null(out)?;
        // SAFETY: the caller guarantees the address.
        let ip = unsafe { ip.as_ref() }.ok_or(VIPOOL_ERR_NULL)?.decode_required_ip()?;
        // SAFETY: not NULL.
        unsafe { out.write((&SocketAddr::new(ip, port)).into()) };
        Ok(())
    })
}

/// Parses a range.
///
/// The text is a CIDR prefix ("10.0.5.0/24"), first-last ("10.0.5.10-10.0.5.99"), or one address.
///
/// Parameters:
/// - `text`, `length`: the text, UTF-8.
/// - `out`: receives the range.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_UTF8, VIPOOL_ERR_RANGE_SYNTAX, VIPOOL_ERR_RANGE_HOST_BITS,
/// VIPOOL_ERR_RANGE_ORDER.
///
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_range_parse(
    text: *const c_char,
    length: usize,
    out: *mut vipool_range,
) -> vipool_status {
    catch_panic(|| {
        check_not_null(out)?;
        // SAFETY: the caller guarantees the text.
        let range: Range = unsafe { read_utf8(text, length) }?.parse()?;
        // SAFETY: not NULL.
        unsafe { out.write((&range).into()) };
        Ok(())
    })
}

/// Formats a range as first-last, or as one address if first and last are equal.
///
/// Parameters:
/// - `range`: the range.
/// - `buffer`, `capacity`: receives the text and a NUL. 92 bytes are always enough.
/// - `out_length`: receives the length without the NUL. May be NULL.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_ADDRESS, VIPOOL_ERR_RANGE_ORDER, VIPOOL_ERR_BUFFER.
///
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_range_format(
    range: *const vipool_range,
    buffer: *mut c_char,
    capacity: usize,
    out_length: *mut usize,
) -> vipool_status {
    catch_panic(|| {
        // SAFETY: the caller guarantees range, buffer and length.
        unsafe {
            let range = range.as_ref().ok_or(VIPOOL_ERR_NULL)?.decode_range()?;
            copy_text(&range.to_string(), buffer, capacity, out_length)
        }
    })
}

/// Computes the addresses that two ranges have in common.
///
/// Parameters:
/// - `range`, `other_range`: the ranges.
/// - `out`: receives the intersection.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_ADDRESS, VIPOOL_ERR_RANGE_ORDER, VIPOOL_ERR_NOT_FOUND (no
/// common address).
///
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_range_intersect(
    range: *const vipool_range,
    other_range: *const vipool_range,
    out: *mut vipool_range,
) -> vipool_status {
    catch_panic(|| {
        check_not_null(out)?;
        // SAFETY: the caller guarantees both ranges; `out` is not NULL.
        unsafe {
            let range = range.as_ref().ok_or(VIPOOL_ERR_NULL)?.decode_range()?;
            let other_range = other_range.as_ref().ok_or(VIPOOL_ERR_NULL)?.decode_range()?;
            let intersection = range.intersection(&other_range).ok_or(VIPOOL_ERR_NOT_FOUND)?;
            out.write((&intersection).into());
        }
        Ok(())
    })
}
