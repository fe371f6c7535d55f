//! Addresses and ranges as C has them: a small tagged struct, or the bytes of a sockaddr.

use std::ffi::{c_char, c_void};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::handle::not_null;
use super::outcome::call;
use super::status::vipool_status::{self, *};
use super::text::{bytes, copy_out, utf8};
use crate::range::Range;
use crate::rewrite::sockaddr::{self, Parsed};

/// An IP address, or none. Zeroed memory is none. Plain data: copy it as you like.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct vipool_ip {
    /// 0 none, 4 IPv4, 6 IPv6 (not AF_INET: that differs between systems).
    pub family: u32,
    /// The address in network order; IPv4 in the first four bytes, the others zero.
    pub bytes: [u8; 16],
}

/// Addresses from the first to the last, both included, of one family. Plain data.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct vipool_range {
    /// The lowest address.
    pub first: vipool_ip,
    /// The highest address.
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
            IpAddr::V4(v4) => {
                let mut bytes = [0; 16];
                bytes[..4].copy_from_slice(&v4.octets());
                Self { family: 4, bytes }
            }
            IpAddr::V6(v6) => Self { family: 6, bytes: v6.octets() },
        }
    }
}

impl vipool_ip {
    /// The address; `None` for none; an error for another family.
    #[inline]
    pub(crate) fn get(&self) -> Result<Option<IpAddr>, vipool_status> {
        match self.family {
            0 => Ok(None),
            4 => Ok(Some(self.v4().into())),
            6 => Ok(Some(self.v6().into())),
            _ => Err(VIPOOL_ERR_ADDRESS),
        }
    }

    /// The address as one of IPv4, which its family says it is.
    #[inline]
    pub(crate) fn v4(&self) -> Ipv4Addr {
        let [a, b, c, d, ..] = self.bytes;
        Ipv4Addr::new(a, b, c, d)
    }

    /// The address as one of IPv6, which its family says it is.
    #[inline]
    pub(crate) fn v6(&self) -> Ipv6Addr {
        self.bytes.into()
    }

    /// The address, which must be one.
    #[inline]
    pub(crate) fn required(&self) -> Result<IpAddr, vipool_status> {
        self.get()?.ok_or(VIPOOL_ERR_ADDRESS)
    }
}

impl From<&Range> for vipool_range {
    fn from(range: &Range) -> Self {
        Self { first: range.first().into(), last: range.last().into() }
    }
}

impl vipool_range {
    pub(crate) fn get(&self) -> Result<Range, vipool_status> {
        Range::new(self.first.required()?, self.last.required()?).ok_or(VIPOOL_ERR_RANGE_ORDER)
    }
}

/// A sockaddr_in or sockaddr_in6 with its length: hand `bytes` and `length` to the system's calls.
/// Plain data.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct vipool_sockaddr {
    /// How many of the bytes there are; 0 for none.
    pub length: u32,
    /// As the system's socket calls have them. Those behind `length` are left as they were.
    pub bytes: [u8; VIPOOL_SOCKADDR_MAX],
}

/// The most bytes that a sockaddr given back has: sizeof(struct sockaddr_in6).
pub const VIPOOL_SOCKADDR_MAX: usize = 28;
const _: () = assert!(VIPOOL_SOCKADDR_MAX == sockaddr::IPV6_LENGTH);

impl vipool_sockaddr {
    pub(crate) const NONE: Self = Self { length: 0, bytes: [0; VIPOOL_SOCKADDR_MAX] };

    pub(crate) fn get(&self) -> Option<SocketAddr> {
        match sockaddr::parse(self.bytes.get(..self.length as usize)?) {
            Parsed::Inet(address) => Some(address),
            Parsed::Unspecified(_) | Parsed::Other => None,
        }
    }
}

impl From<&SocketAddr> for vipool_sockaddr {
    #[inline]
    fn from(address: &SocketAddr) -> Self {
        let mut made = Self::NONE;
        made.set(address);
        made
    }
}

impl vipool_sockaddr {
    /// Writes an address over this one. Bytes behind its length stay as they were.
    #[inline]
    pub(crate) fn set(&mut self, address: &SocketAddr) {
        self.length = sockaddr::write(address, &mut self.bytes) as u32;
    }
}

/// The bytes of a sockaddr of the caller's.
///
/// # Safety
/// `address` is NULL or valid for reads of `length` bytes during `'a`.
#[inline]
pub(crate) unsafe fn sockaddr_bytes<'a>(
    address: *const c_void,
    length: u32,
) -> Result<&'a [u8], vipool_status> {
    // No kernel takes more, and what follows must not read them.
    let length = (length as usize).min(sockaddr::MAX_LENGTH + 1);
    // SAFETY: the caller's promise.
    unsafe { bytes(address.cast(), length) }
}

/// Reads an address from text, such as "10.0.5.7" or "2001:db8::7".
///
/// `text`: `length` bytes of UTF-8. Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_UTF8, VIPOOL_ERR_ADDRESS.
/// May be called from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_ip_parse(
    text: *const c_char,
    length: usize,
    out: *mut vipool_ip,
) -> vipool_status {
    call(|| {
        not_null(out)?;
        // SAFETY: the caller vouches for the text.
        let text = unsafe { utf8(text, length) }?;
        let address: IpAddr = text
            .parse()
            .map_err(|_| VIPOOL_ERR_ADDRESS.because(format_args!("{text:?} is no address")))?;
        // SAFETY: not NULL.
        unsafe { out.write(address.into()) };
        Ok(())
    })
}

/// Writes an address as text with a NUL behind it; 46 bytes are always enough. None is empty.
///
/// `out_length` may be NULL; it is told the length without the NUL, also with VIPOOL_ERR_BUFFER.
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_ADDRESS (unknown family), VIPOOL_ERR_BUFFER.
/// May be called from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_ip_format(
    ip: *const vipool_ip,
    buffer: *mut c_char,
    capacity: usize,
    out_length: *mut usize,
) -> vipool_status {
    call(|| {
        // SAFETY: the caller vouches for the address.
        let ip = unsafe { ip.as_ref() }.ok_or(VIPOOL_ERR_NULL)?;
        let text = ip.get()?.map_or(String::new(), |address| address.to_string());
        // SAFETY: the caller vouches for buffer and length.
        unsafe { copy_out(&text, buffer, capacity, out_length) }
    })
}

/// Takes the address and port out of a sockaddr_in or sockaddr_in6.
///
/// `address`: `length` bytes as the system's socket calls have them, aligned or not. `out_port`
/// is in host order and may be NULL.
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_ADDRESS (another family, or too short).
/// May be called from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_ip_from_sockaddr(
    address: *const c_void,
    length: u32,
    out: *mut vipool_ip,
    out_port: *mut u16,
) -> vipool_status {
    call(|| {
        not_null(out)?;
        // SAFETY: the caller vouches for the bytes.
        let bytes = unsafe { sockaddr_bytes(address, length) }?;
        let Parsed::Inet(found) = sockaddr::parse(bytes) else {
            return Err(VIPOOL_ERR_ADDRESS.into());
        };
        // SAFETY: not NULL; the port where it is not NULL either.
        unsafe {
            out.write(found.ip().into());
            if !out_port.is_null() {
                out_port.write(found.port());
            }
        }
        Ok(())
    })
}

/// Makes a sockaddr of an address and a port in host order.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_ADDRESS. May be called from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_ip_to_sockaddr(
    ip: *const vipool_ip,
    port: u16,
    out: *mut vipool_sockaddr,
) -> vipool_status {
    call(|| {
        not_null(out)?;
        // SAFETY: the caller vouches for the address.
        let ip = unsafe { ip.as_ref() }.ok_or(VIPOOL_ERR_NULL)?.required()?;
        // SAFETY: not NULL.
        unsafe { out.write((&SocketAddr::new(ip, port)).into()) };
        Ok(())
    })
}

/// Reads a range from text: a CIDR prefix ("10.0.5.0/24"), first-last ("10.0.5.10-10.0.5.99") or
/// one address.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_UTF8, VIPOOL_ERR_RANGE_SYNTAX, VIPOOL_ERR_RANGE_HOST_BITS,
/// VIPOOL_ERR_RANGE_ORDER. May be called from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_range_parse(
    text: *const c_char,
    length: usize,
    out: *mut vipool_range,
) -> vipool_status {
    call(|| {
        not_null(out)?;
        // SAFETY: the caller vouches for the text.
        let range: Range = unsafe { utf8(text, length) }?.parse()?;
        // SAFETY: not NULL.
        unsafe { out.write((&range).into()) };
        Ok(())
    })
}

/// Writes a range as one address or as first-last, which vipool_range_parse() reads, with a NUL
/// behind it; 92 bytes are always enough.
///
/// `out_length` may be NULL; it is told the length without the NUL, also with VIPOOL_ERR_BUFFER.
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_ADDRESS, VIPOOL_ERR_RANGE_ORDER, VIPOOL_ERR_BUFFER.
/// May be called from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_range_format(
    range: *const vipool_range,
    buffer: *mut c_char,
    capacity: usize,
    out_length: *mut usize,
) -> vipool_status {
    call(|| {
        // SAFETY: the caller vouches for range, buffer and length.
        unsafe {
            let range = range.as_ref().ok_or(VIPOOL_ERR_NULL)?.get()?;
            copy_out(&range.to_string(), buffer, capacity, out_length)
        }
    })
}

/// The addresses that are in both ranges; VIPOOL_ERR_NOT_FOUND if there are none.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_ADDRESS, VIPOOL_ERR_RANGE_ORDER, VIPOOL_ERR_NOT_FOUND.
/// May be called from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_range_intersection(
    range: *const vipool_range,
    other: *const vipool_range,
    out: *mut vipool_range,
) -> vipool_status {
    call(|| {
        not_null(out)?;
        // SAFETY: the caller vouches for both ranges; the place is not NULL.
        unsafe {
            let range = range.as_ref().ok_or(VIPOOL_ERR_NULL)?.get()?;
            let other = other.as_ref().ok_or(VIPOOL_ERR_NULL)?.get()?;
            let both = range.intersection(&other).ok_or(VIPOOL_ERR_NOT_FOUND)?;
            out.write((&both).into());
        }
        Ok(())
    })
}

/// What is left of a range without another: `out` has room for two ranges, `out_count` is told how
/// many are left (0, 1 or 2), in order.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_ADDRESS, VIPOOL_ERR_RANGE_ORDER.
/// May be called from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_range_without(
    range: *const vipool_range,
    cut: *const vipool_range,
    out: *mut vipool_range,
    out_count: *mut usize,
) -> vipool_status {
    call(|| {
        not_null(out)?;
        not_null(out_count)?;
        // SAFETY: the caller vouches for both ranges.
        let (range, cut) = unsafe {
            (range.as_ref().ok_or(VIPOOL_ERR_NULL)?.get()?, cut.as_ref().ok_or(VIPOOL_ERR_NULL)?)
        };
        let mut count = 0;
        for piece in range.without(&cut.get()?) {
            // SAFETY: not NULL, room for two, and there are no more than two pieces.
            unsafe { out.add(count).write((&piece).into()) };
            count += 1;
        }
        // SAFETY: not NULL.
        unsafe { out_count.write(count) };
        Ok(())
    })
}
