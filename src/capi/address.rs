//! Addresses and ranges as C has them: a small tagged struct, or the bytes of a sockaddr.

use std::ffi::{c_char, c_void};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use super::handle::not_null;
use super::outcome::call;
use super::status::vipool_status::{self, *};
use super::text::{bytes, copy_out, utf8};
use crate::range::Range;

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
    pub(crate) fn get(&self) -> Result<Option<IpAddr>, vipool_status> {
        let [a, b, c, d, ..] = self.bytes;
        match self.family {
            0 => Ok(None),
            4 => Ok(Some(Ipv4Addr::new(a, b, c, d).into())),
            6 => Ok(Some(Ipv6Addr::from(self.bytes).into())),
            _ => Err(VIPOOL_ERR_ADDRESS),
        }
    }

    /// The address, which must be one.
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

/// `length` bytes of a sockaddr as an address and port. IPv6 scope and flow are kept.
///
/// # Safety
/// `sockaddr` is NULL or valid for reads of `length` bytes.
pub(crate) unsafe fn from_sockaddr(
    sockaddr: *const c_void,
    length: u32,
) -> Result<SocketAddr, vipool_status> {
    // SAFETY: the caller's promise.
    let given = unsafe { bytes(sockaddr.cast(), length as usize) }?;
    decode(given).ok_or(VIPOOL_ERR_ADDRESS)
}

/// AF_INET is 2 on every system.
const AF_INET: u16 = 2;
/// AF_INET6 is not: linux/socket.h, winsock2.h, and sys/socket.h of macOS.
const AF_INET6: u16 = if cfg!(windows) {
    23
} else if cfg!(target_os = "macos") {
    30
} else {
    10
};
/// The lengths of sockaddr_in and sockaddr_in6, the same everywhere.
const LENGTH_V4: usize = 16;
const LENGTH_V6: usize = 28;

/// The most bytes that a sockaddr given back has: sizeof(struct sockaddr_in6).
pub const VIPOOL_SOCKADDR_MAX: usize = 28;
const _: () = assert!(VIPOOL_SOCKADDR_MAX == LENGTH_V6);

/// Reads a sockaddr_in or sockaddr_in6. On macOS the first byte is the length, the second the
/// family; elsewhere both are the family.
pub(crate) fn decode(given: &[u8]) -> Option<SocketAddr> {
    let family = match given.first_chunk::<2>()? {
        [_, family] if cfg!(target_os = "macos") => u16::from(*family),
        family => u16::from_ne_bytes(*family),
    };
    let port = u16::from_be_bytes(*given.get(2..)?.first_chunk()?);
    if family == AF_INET && given.len() >= LENGTH_V4 {
        let address: [u8; 4] = *given[4..].first_chunk()?;
        return Some(SocketAddrV4::new(address.into(), port).into());
    }
    if family == AF_INET6 && given.len() >= LENGTH_V6 {
        let flow = u32::from_ne_bytes(*given[4..].first_chunk()?);
        let address: [u8; 16] = *given[8..].first_chunk()?;
        let scope = u32::from_ne_bytes(*given[24..].first_chunk()?);
        return Some(SocketAddrV6::new(address.into(), port, flow, scope).into());
    }
    None
}

/// Writes what [`decode`] reads, and how many of the bytes it is.
pub(crate) fn encode(address: SocketAddr) -> ([u8; VIPOOL_SOCKADDR_MAX], usize) {
    let mut bytes = [0; VIPOOL_SOCKADDR_MAX];
    let (family, length) = match address {
        SocketAddr::V4(_) => (AF_INET, LENGTH_V4),
        SocketAddr::V6(_) => (AF_INET6, LENGTH_V6),
    };
    let head =
        if cfg!(target_os = "macos") { [length as u8, family as u8] } else { family.to_ne_bytes() };
    bytes[..2].copy_from_slice(&head);
    bytes[2..4].copy_from_slice(&address.port().to_be_bytes());
    match address {
        SocketAddr::V4(v4) => bytes[4..8].copy_from_slice(&v4.ip().octets()),
        SocketAddr::V6(v6) => {
            bytes[4..8].copy_from_slice(&v6.flowinfo().to_ne_bytes());
            bytes[8..24].copy_from_slice(&v6.ip().octets());
            bytes[24..28].copy_from_slice(&v6.scope_id().to_ne_bytes());
        }
    }
    (bytes, length)
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
/// `sockaddr`: `length` bytes as the system's socket calls have them, aligned or not. `out_port`
/// is in host order and may be NULL.
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_ADDRESS (another family, or too short).
/// May be called from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_ip_from_sockaddr(
    sockaddr: *const c_void,
    length: u32,
    out: *mut vipool_ip,
    out_port: *mut u16,
) -> vipool_status {
    call(|| {
        not_null(out)?;
        // SAFETY: the caller vouches for the bytes.
        let address = unsafe { from_sockaddr(sockaddr, length) }?;
        // SAFETY: not NULL; the port where it is not NULL either.
        unsafe {
            out.write(address.ip().into());
            if !out_port.is_null() {
                out_port.write(address.port());
            }
        }
        Ok(())
    })
}

/// Makes a sockaddr_in or sockaddr_in6 of an address and a port in host order.
///
/// `buffer`: `capacity` bytes; VIPOOL_SOCKADDR_MAX are always enough. `out_length` is told how
/// many it takes, also with VIPOOL_ERR_BUFFER.
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_ADDRESS, VIPOOL_ERR_BUFFER.
/// May be called from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_ip_to_sockaddr(
    ip: *const vipool_ip,
    port: u16,
    buffer: *mut c_void,
    capacity: u32,
    out_length: *mut u32,
) -> vipool_status {
    call(|| {
        not_null(buffer)?;
        not_null(out_length)?;
        // SAFETY: the caller vouches for the address.
        let ip = unsafe { ip.as_ref() }.ok_or(VIPOOL_ERR_NULL)?.required()?;
        // SAFETY: not NULL, and the caller vouches for the capacity.
        unsafe { put_sockaddr(SocketAddr::new(ip, port), buffer, capacity, out_length) }?;
        Ok(())
    })
}

/// Writes a sockaddr into a buffer of the caller's.
///
/// # Safety
/// `buffer` is valid for writes of `capacity` bytes, `out_length` for a write.
pub(crate) unsafe fn put_sockaddr(
    address: SocketAddr,
    buffer: *mut c_void,
    capacity: u32,
    out_length: *mut u32,
) -> Result<(), vipool_status> {
    let (bytes, length) = encode(address);
    // SAFETY: the caller's promise.
    unsafe { out_length.write(length as u32) };
    if (capacity as usize) < length {
        return Err(VIPOOL_ERR_BUFFER);
    }
    // SAFETY: the buffer has room for them.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), buffer.cast(), length) };
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockaddrs_come_back_and_short_ones_do_not() {
        for text in ["10.0.5.7:80", "[fe80::7%3]:443", "[::ffff:127.0.0.1]:1"] {
            let address: SocketAddr = text.parse().unwrap();
            let (bytes, length) = encode(address);
            assert_eq!(decode(&bytes[..length]), Some(address));
            assert_eq!(decode(&bytes[..length - 1]), None);
        }
        assert_eq!(decode(&[]), None);
        assert_eq!(decode(&[1, 0, b'/', b'x']), None);
    }
}
