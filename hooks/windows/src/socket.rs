//! Socket addresses in the memory layout of Winsock, and sockets of the program.
//!
//! This module calls the system's own functions, never the replacements.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use vipool::rewrite::sockaddr::{self, MAX_LENGTH, Parsed};
use vipool::rewrite::{Protocol, Socket};
use windows_sys::Win32::Networking::WinSock::{
    AF_INET, AF_INET6, IP_MULTICAST_IF, IPPROTO_IP, IPPROTO_IPV6, IPPROTO_TCP, IPPROTO_UDP,
    IPV6_V6ONLY, SO_BROADCAST, SO_PROTOCOL_INFOW, SO_REUSEADDR, SOCKADDR, SOCKET, SOL_SOCKET,
    WSAEINVAL, WSAPROTOCOL_INFOW, getsockopt, setsockopt,
};

use crate::last_error::last_error;
use crate::memory;
use crate::original;

/// A socket address in the memory layout of Winsock. The bytes after the address are zero.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct SockaddrBuf {
    bytes: [u8; MAX_LENGTH],
    length: i32,
}

impl SockaddrBuf {
    /// Converts an address.
    pub fn new(address: SocketAddr) -> Self {
        let mut bytes = [0; MAX_LENGTH];
        let length = sockaddr::write(&address, &mut bytes) as i32;
        Self { bytes, length }
    }

    /// Returns a pointer to the address.
    pub fn as_ptr(&self) -> *const SOCKADDR {
        self.bytes.as_ptr().cast()
    }

    /// Returns the bytes of the address.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length as usize]
    }

    /// Returns the length of the address in bytes.
    pub fn length(&self) -> i32 {
        self.length
    }
}

/// Reads a socket address through a pointer that may be invalid. Returns `None` if the address is
/// not readable, too short, or neither IPv4 nor IPv6. A hook leaves such an address unchanged, and
/// the system reports any error.
pub fn read_sockaddr(name: *const SOCKADDR, length: i32) -> Option<SocketAddr> {
    let mut bytes = [0; sockaddr::IPV6_LENGTH];
    let length = usize::try_from(length).ok()?.min(bytes.len());
    let bytes = &mut bytes[..length];
    if !memory::read_bytes(name.cast(), bytes) {
        return None;
    }
    match sockaddr::parse(bytes) {
        Parsed::Inet(address) => Some(address),
        Parsed::Unspecified(_) | Parsed::Other => None,
    }
}

/// Replaces the socket address of `length` bytes that the system has just written to `name`. Writes
/// at most `length` bytes.
///
/// # Safety
/// `length` bytes at `name` are writable, and no other thread uses them.
pub unsafe fn overwrite_sockaddr(name: *mut SOCKADDR, length: i32, address: SocketAddr) {
    let buffer = SockaddrBuf::new(address);
    let byte_count = buffer.length.min(length).max(0) as usize;
    // SAFETY: the caller guarantees that these bytes are writable.
    unsafe {
        std::ptr::copy_nonoverlapping(buffer.bytes.as_ptr(), name.cast(), byte_count);
    }
}

/// A socket of the program.
#[derive(Clone, Copy)]
pub struct Winsock(pub SOCKET);

impl Winsock {
    /// Returns the local address that the system reports.
    pub fn local_name(self) -> Option<SocketAddr> {
        let mut name = SockaddrBuf { bytes: [0; MAX_LENGTH], length: MAX_LENGTH as i32 };
        // SAFETY: the buffer can hold any address, and `length` is the size of the buffer.
        let result = unsafe {
            original::getsockname(self.0, name.bytes.as_mut_ptr().cast(), &mut name.length)
        };
        if result != 0 { None } else { read_sockaddr(name.as_ptr(), name.length) }
    }

    /// Returns the peer address that the system reports.
    pub fn peer_name(self) -> Option<SocketAddr> {
        let mut name = SockaddrBuf { bytes: [0; MAX_LENGTH], length: MAX_LENGTH as i32 };
        // SAFETY: the buffer can hold any address, and `length` is the size of the buffer.
        let result = unsafe {
            original::getpeername(self.0, name.bytes.as_mut_ptr().cast(), &mut name.length)
        };
        if result != 0 { None } else { read_sockaddr(name.as_ptr(), name.length) }
    }

    /// Binds the socket. Returns false and sets the last error on failure.
    pub fn bind(self, address: SocketAddr) -> bool {
        let name = SockaddrBuf::new(address);
        // SAFETY: the pointer and the length describe `name`.
        unsafe { original::bind(self.0, name.as_ptr(), name.length) == 0 }
    }

    /// Sets `IPV6_V6ONLY`.
    pub fn set_v6only(self, is_enabled: bool) {
        let value = i32::from(is_enabled);
        let value_pointer: *const i32 = &value;
        // SAFETY: the option and the variable both have four bytes.
        unsafe { setsockopt(self.0, IPPROTO_IPV6, IPV6_V6ONLY, value_pointer.cast(), 4) };
    }

    /// Sets the interface for outgoing multicast, unless the program has set one (row 27).
    pub fn set_multicast_interface(self, interface: Ipv4Addr) {
        let mut value = 0u32;
        let mut length = 4;
        let value_pointer: *mut u32 = &mut value;
        // SAFETY: the option and the variable both have four bytes.
        unsafe {
            let result =
                getsockopt(self.0, IPPROTO_IP, IP_MULTICAST_IF, value_pointer.cast(), &mut length);
            if result == 0 && value == 0 {
                let octets = interface.octets();
                setsockopt(self.0, IPPROTO_IP, IP_MULTICAST_IF, octets.as_ptr(), 4);
            }
        }
    }

    fn bool_option(self, level: i32, option: i32) -> bool {
        let mut value = 0i32;
        let mut length = 4;
        let value_pointer: *mut i32 = &mut value;
        // SAFETY: the option and the variable both have four bytes.
        let result =
            unsafe { getsockopt(self.0, level, option, value_pointer.cast(), &mut length) };
        result == 0 && value != 0
    }

    fn protocol_info(self) -> Option<WSAPROTOCOL_INFOW> {
        // SAFETY: the structure has integers and character arrays only, so zeroes are valid.
        let mut info: WSAPROTOCOL_INFOW = unsafe { std::mem::zeroed() };
        let mut length = size_of::<WSAPROTOCOL_INFOW>() as i32;
        let info_pointer: *mut WSAPROTOCOL_INFOW = &mut info;
        // SAFETY: the pointer and the length describe `info`.
        let result = unsafe {
            getsockopt(self.0, SOL_SOCKET, SO_PROTOCOL_INFOW, info_pointer.cast(), &mut length)
        };
        (result == 0).then_some(info)
    }
}

impl Socket for Winsock {
    fn protocol(&self) -> Protocol {
        match self.protocol_info().map(|info| info.iProtocol) {
            Some(IPPROTO_TCP) => Protocol::Tcp,
            Some(IPPROTO_UDP) => Protocol::Udp,
            _ => Protocol::Other,
        }
    }

    fn local_address(&self) -> Option<SocketAddr> {
        if let Some(name) = self.local_name() {
            return Some(name);
        }
        if last_error() != WSAEINVAL {
            return None;
        }
        // Windows reports WSAEINVAL for an unbound socket. For such a socket, the rewriter expects
        // the wildcard address with port 0.
        match self.protocol_info()?.iAddressFamily as u16 {
            AF_INET => Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0)),
            AF_INET6 => Some(SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0)),
            _ => None,
        }
    }

    fn is_v6only(&self) -> bool {
        self.bool_option(IPPROTO_IPV6, IPV6_V6ONLY)
    }

    fn can_share_port(&self) -> bool {
        self.bool_option(SOL_SOCKET, SO_REUSEADDR) || self.bool_option(SOL_SOCKET, SO_BROADCAST)
    }
}
