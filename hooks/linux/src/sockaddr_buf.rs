//! Copies of socket addresses, and the conversion of C socket addresses to [`SocketAddr`].

use std::net::SocketAddr;
use std::ptr;

use libc::socklen_t;
use vipool::rewrite::sockaddr::{self, IPV4_LENGTH, IPV6_LENGTH, MAX_LENGTH, Parsed};

use crate::caller_memory::is_readable;

/// A copy of a socket address that the program passed. The buffer has the size of a `struct
/// sockaddr_in6`. A longer address is truncated, because the hooks read only IPv4 and IPv6
/// addresses.
#[derive(Clone, Copy)]
pub struct SockaddrBuf {
    bytes: [u8; IPV6_LENGTH],
    length: u32,
}

impl SockaddrBuf {
    /// Copies the address. Returns `None` if the kernel would reject the length, or if the memory
    /// is not readable.
    ///
    /// # Safety
    /// No other thread changes or unmaps the memory during the call. The memory may be unmapped or
    /// protected.
    #[inline]
    pub unsafe fn read(address: *const libc::sockaddr, length: socklen_t) -> Option<Self> {
        let length = usize::try_from(length).ok()?;
        if !(2..=MAX_LENGTH).contains(&length)
            || address.is_null()
            || !is_readable(address.cast(), length)
        {
            return None;
        }
        let mut bytes = [0; IPV6_LENGTH];
        let length = length.min(IPV6_LENGTH);
        let target = bytes.as_mut_ptr();
        // SAFETY: `length` bytes are readable, and the caller guarantees that they stay unchanged.
        // `length` is at most the size of `bytes`.
        unsafe {
            match length {
                // IPv4 is the most frequent case. With a constant length, the compiler emits no
                // call of memcpy.
                IPV4_LENGTH => ptr::copy_nonoverlapping(address.cast(), target, IPV4_LENGTH),
                _ => ptr::copy_nonoverlapping(address.cast(), target, length),
            }
        }
        Some(Self { bytes, length: length as u32 })
    }

    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length as usize).unwrap_or_default()
    }

    /// Returns a copy that contains `address` and has the length of `self`.
    pub fn with_address(&self, address: &SocketAddr) -> Self {
        let mut copy = *self;
        sockaddr::write(address, copy.bytes.get_mut(..self.length as usize).unwrap_or_default());
        copy
    }

    pub fn as_ptr(&self) -> *const libc::sockaddr {
        self.bytes.as_ptr().cast()
    }

    pub fn length(&self) -> socklen_t {
        self.length
    }
}

/// Parses an IPv4 or IPv6 socket address. Returns `None` for another family or an invalid length.
#[inline]
pub fn parse_inet(bytes: &[u8]) -> Option<SocketAddr> {
    match sockaddr::parse(bytes) {
        Parsed::Inet(address) => Some(address),
        Parsed::Unspecified(_) | Parsed::Other => None,
    }
}

/// Parses a socket address that the C library returned.
///
/// # Safety
/// `address` is null or points to `length` readable bytes.
pub unsafe fn parse_sockaddr(
    address: *const libc::sockaddr,
    length: socklen_t,
) -> Option<SocketAddr> {
    if address.is_null() {
        return None;
    }
    // SAFETY: guaranteed by the caller.
    parse_inet(unsafe { std::slice::from_raw_parts(address.cast::<u8>(), length as usize) })
}
