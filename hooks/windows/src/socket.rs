//! A socket of the program's, and what we ask and do about it, by the system's own functions.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use vipool::rewrite::sockaddr::{self, MAX_LENGTH, Parsed};
use vipool::rewrite::{Protocol, Socket};
use windows_sys::Win32::Foundation::{GetLastError, SetLastError};
use windows_sys::Win32::Networking::WinSock::{
    AF_INET, AF_INET6, IP_MULTICAST_IF, IPPROTO_IP, IPPROTO_IPV6, IPPROTO_TCP, IPPROTO_UDP,
    IPV6_V6ONLY, SO_BROADCAST, SO_PROTOCOL_INFOW, SO_REUSEADDR, SOCKADDR, SOCKET, SOL_SOCKET,
    WSAEINVAL, WSAPROTOCOL_INFOW, getsockopt, setsockopt,
};

use crate::memory;
use crate::table::original;

/// The error that the program sees: of Windows and of Winsock, which are one. What we ask the
/// system in between must not show.
pub struct LastError(u32);

impl LastError {
    /// The error as it is now.
    pub fn save() -> Self {
        // SAFETY: reads a word of this thread.
        Self(unsafe { GetLastError() })
    }

    /// Puts it back.
    pub fn restore(&self) {
        // SAFETY: writes a word of this thread.
        unsafe { SetLastError(self.0) };
    }
}

/// Sets the error that a failed call leaves.
pub fn set_last_error(error: i32) {
    // SAFETY: writes a word of this thread.
    unsafe { SetLastError(error as u32) };
}

/// An address as Winsock takes it.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub struct SockaddrBuf {
    bytes: [u8; MAX_LENGTH],
    length: i32,
}

impl SockaddrBuf {
    /// The address in the form of Winsock.
    pub fn new(address: SocketAddr) -> Self {
        let mut bytes = [0; MAX_LENGTH];
        let length = sockaddr::write(&address, &mut bytes) as i32;
        Self { bytes, length }
    }

    /// Where it is.
    pub fn as_ptr(&self) -> *const SOCKADDR {
        self.bytes.as_ptr().cast()
    }

    /// Its length in bytes.
    pub fn length(&self) -> i32 {
        self.length
    }
}

/// The address that the program hands to a call, which may be anything. `None` for what can't be
/// read, is too short, or is of another family: the system is to result that.
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

/// Writes over an address that the system has just given to the program, by one of its family.
pub fn overwrite_sockaddr(name: *mut SOCKADDR, address: SocketAddr) {
    let buffer = SockaddrBuf::new(address);
    // SAFETY: the system wrote an address of this family there, so there is room for another.
    unsafe {
        std::ptr::copy_nonoverlapping(buffer.bytes.as_ptr(), name.cast(), buffer.length as usize);
    }
}

/// A socket of the program's.
#[derive(Clone, Copy)]
pub struct Winsock(pub SOCKET);

impl Winsock {
    /// Its address as the system has it.
    pub fn local_name(self) -> Option<SocketAddr> {
        let mut name = SockaddrBuf { bytes: [0; MAX_LENGTH], length: MAX_LENGTH as i32 };
        // SAFETY: room for any address, and its length.
        let result = unsafe {
            original::getsockname(self.0, name.bytes.as_mut_ptr().cast(), &mut name.length)
        };
        if result != 0 { None } else { read_sockaddr(name.as_ptr(), name.length) }
    }

    /// Its peer's address as the system has it.
    pub fn peer_name(self) -> Option<SocketAddr> {
        let mut name = SockaddrBuf { bytes: [0; MAX_LENGTH], length: MAX_LENGTH as i32 };
        // SAFETY: room for any address, and its length.
        let result = unsafe {
            original::getpeername(self.0, name.bytes.as_mut_ptr().cast(), &mut name.length)
        };
        if result != 0 { None } else { read_sockaddr(name.as_ptr(), name.length) }
    }

    /// Binds it with the system's own function.
    pub fn bind(self, address: SocketAddr) -> bool {
        let name = SockaddrBuf::new(address);
        // SAFETY: an address of this length.
        unsafe { original::bind(self.0, name.as_ptr(), name.length) == 0 }
    }

    /// Sets `IPV6_V6ONLY`.
    pub fn set_v6only(self, on: bool) {
        let value = i32::from(on);
        let pointer: *const i32 = &value;
        // SAFETY: an option of four bytes.
        unsafe { setsockopt(self.0, IPPROTO_IPV6, IPV6_V6ONLY, pointer.cast(), 4) };
    }

    /// Sets the interface that multicast leaves by, where the program set none (row 27).
    pub fn set_multicast_interface(self, interface: Ipv4Addr) {
        let mut value = 0u32;
        let mut length = 4;
        let pointer: *mut u32 = &mut value;
        // SAFETY: an option of four bytes.
        unsafe {
            let result =
                getsockopt(self.0, IPPROTO_IP, IP_MULTICAST_IF, pointer.cast(), &mut length);
            if result == 0 && value == 0 {
                let octets = interface.octets();
                setsockopt(self.0, IPPROTO_IP, IP_MULTICAST_IF, octets.as_ptr(), 4);
            }
        }
    }

    fn bool_option(self, level: i32, option: i32) -> bool {
        let mut value = 0i32;
        let mut length = 4;
        let pointer: *mut i32 = &mut value;
        // SAFETY: room for an option of four bytes.
        let result = unsafe { getsockopt(self.0, level, option, pointer.cast(), &mut length) };
        result == 0 && value != 0
    }

    fn protocol_info(self) -> Option<WSAPROTOCOL_INFOW> {
        // SAFETY: plain numbers and texts, for which zeroes are valid.
        let mut info: WSAPROTOCOL_INFOW = unsafe { std::mem::zeroed() };
        let mut length = size_of::<WSAPROTOCOL_INFOW>() as i32;
        let pointer: *mut WSAPROTOCOL_INFOW = &mut info;
        // SAFETY: room for the structure, and its length.
        let result = unsafe {
            getsockopt(self.0, SOL_SOCKET, SO_PROTOCOL_INFOW, pointer.cast(), &mut length)
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

    fn local(&self) -> Option<SocketAddr> {
        if let Some(name) = self.local_name() {
            return Some(name);
        }
        // SAFETY: reads a word of this thread.
        if unsafe { GetLastError() } != WSAEINVAL as u32 {
            return None;
        }
        // Windows has no name for a socket that is not bound.
        match self.protocol_info()?.iAddressFamily as u16 {
            AF_INET => Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0)),
            AF_INET6 => Some(SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0)),
            _ => None,
        }
    }

    fn is_v6only(&self) -> bool {
        self.bool_option(IPPROTO_IPV6, IPV6_V6ONLY)
    }

    fn shares_port(&self) -> bool {
        self.bool_option(SOL_SOCKET, SO_REUSEADDR) || self.bool_option(SOL_SOCKET, SO_BROADCAST)
    }
}
