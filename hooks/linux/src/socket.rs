//! A descriptor of the program, and the properties of its socket.
//!
//! The hook makes direct system calls to read the properties. These calls bypass the hooks of this
//! library and of other libraries, because decisions need the addresses that the kernel stores.

use std::cell::Cell;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use libc::{c_int, c_long, socklen_t};
use vipool::rewrite::sockaddr::{self, IPV6_LENGTH};
use vipool::rewrite::{Protocol, Socket};

use crate::facts::{OTHER_PROTOCOLS, PORTLESS_BINDINGS};
use crate::sockaddr_buf::parse_inet;
use crate::system_call::system_call;
use crate::{errno, original};

/// A command of fcntl(2) whose argument is a pointer to a 64-bit number.
#[derive(Clone, Copy)]
#[repr(i32)]
pub enum HintCommand {
    /// Reads the write hint of the inode (`F_GET_RW_HINT`, `F_LINUX_SPECIFIC_BASE` + 11).
    Get = 1024 + 11,
    /// Sets the write hint of the inode (`F_SET_RW_HINT`, `F_LINUX_SPECIFIC_BASE` + 12).
    Set = 1024 + 12,
}

/// A descriptor of the program. The public methods do not change `errno`.
#[derive(Clone, Copy)]
pub struct Fd(pub c_int);

impl Socket for Fd {
    fn protocol(&self) -> Protocol {
        match self.option(libc::SOL_SOCKET, libc::SO_PROTOCOL) {
            Some(libc::IPPROTO_TCP | libc::IPPROTO_MPTCP) => Protocol::Tcp,
            Some(libc::IPPROTO_UDP) => Protocol::Udp,
            Some(libc::IPPROTO_UDPLITE) => Protocol::UdpLite,
            _ => Protocol::Other,
        }
    }

    fn is_tcp_or_udp(&self) -> bool {
        !OTHER_PROTOCOLS.is_possible() || self.protocol() != Protocol::Other
    }

    fn local_address(&self) -> Option<SocketAddr> {
        self.query_address(libc::SYS_getsockname)
    }

    fn is_v6only(&self) -> bool {
        self.option(libc::IPPROTO_IPV6, libc::IPV6_V6ONLY).is_some_and(|value| value != 0)
    }

    fn can_share_port(&self) -> bool {
        [libc::SO_REUSEADDR, libc::SO_REUSEPORT, libc::SO_BROADCAST]
            .into_iter()
            .any(|option| self.option(libc::SOL_SOCKET, option).is_some_and(|value| value != 0))
    }
}

impl Fd {
    /// Returns the peer's address, as the kernel stores it.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.query_address(libc::SYS_getpeername)
    }

    /// Returns whether the socket is bound to a port.
    pub fn has_port(&self) -> bool {
        self.local_address().is_some_and(|local| local.port() != 0)
    }

    /// Returns the value of an integer option.
    pub fn option(&self, level: c_int, option: c_int) -> Option<c_int> {
        let mut value: c_int = 0;
        let mut length = size_of::<c_int>() as socklen_t;
        let (value_address, length_address) = (&raw mut value as usize, &raw mut length as usize);
        let arguments =
            [self.0 as usize, level as usize, option as usize, value_address, length_address, 0];
        // SAFETY: `length` is the size of `value`.
        let result = unsafe { system_call(libc::SYS_getsockopt, arguments) };
        (result == 0).then_some(value)
    }

    /// Sets an integer option. Errors are ignored.
    pub fn set_option(&self, level: c_int, option: c_int, value: c_int) {
        let (value_address, length) = (&raw const value as usize, size_of::<c_int>());
        let arguments =
            [self.0 as usize, level as usize, option as usize, value_address, length, 0];
        // SAFETY: `length` is the size of `value`.
        unsafe { system_call(libc::SYS_setsockopt, arguments) };
    }

    /// Reads or sets the write hint of the inode. Returns whether the call succeeded.
    #[inline]
    pub fn fcntl_hint(&self, command: HintCommand, hint: &mut u64) -> bool {
        let arguments = [self.0 as usize, command as usize, &raw mut *hint as usize, 0, 0, 0];
        // SAFETY: both commands read or write one 64-bit number.
        unsafe { system_call(libc::SYS_fcntl, arguments) == 0 }
    }

    /// Sets the multicast interface by its address, unless the program has set a multicast
    /// interface.
    pub fn set_multicast_interface(&self, interface: Ipv4Addr) {
        let (level, option) = (libc::IPPROTO_IP, libc::IP_MULTICAST_IF);
        if self.option(level, option) == Some(libc::INADDR_ANY as c_int) {
            self.set_option(level, option, c_int::from_ne_bytes(interface.octets()));
        }
    }

    /// Binds the socket to `address` with port 0. Returns 0 or the error number.
    ///
    /// With `defer_port` the kernel chooses the port when the socket connects
    /// (`IP_BIND_ADDRESS_NO_PORT` of ip(7)). The hook clears the option after the bind, so that a
    /// later bind by the program gets its port immediately (row 8). An IPv6 socket is bound to the
    /// IPv4-mapped form of an IPv4 address.
    pub fn bind(&self, address: IpAddr, defer_port: bool) -> c_int {
        const BIND_NO_PORT: c_int = libc::IP_BIND_ADDRESS_NO_PORT;
        let should_set_option =
            defer_port && self.option(libc::IPPROTO_IP, BIND_NO_PORT) == Some(0);
        if should_set_option {
            self.set_option(libc::IPPROTO_IP, BIND_NO_PORT, 1);
        }
        let saved_errno = errno::get();
        let mut error = self.bind_exact(SocketAddr::new(address, 0));
        if let (libc::EAFNOSUPPORT, IpAddr::V4(v4)) = (error, address) {
            error = self.bind_exact(SocketAddr::new(v4.to_ipv6_mapped().into(), 0));
        }
        errno::set(saved_errno);
        if should_set_option {
            self.set_option(libc::IPPROTO_IP, BIND_NO_PORT, 0);
        }
        error
    }

    /// Moves a datagram socket from the wildcard address to `address`, and keeps its port. Returns
    /// 0 or the error number.
    ///
    /// This function calls connect(2) with `AF_UNSPEC`, and then bind(2). The connect releases a
    /// port that the kernel chose. The connect keeps a port that the program chose. In this case
    /// the bind fails with `EINVAL`. The connect also resets `SO_BINDTODEVICE`, so a socket with
    /// this option is not moved. If the bind fails, this function binds the socket to the wildcard
    /// address again.
    pub fn rebind(&self, address: IpAddr) -> c_int {
        let Some(local) = self.local_address() else { return libc::EINVAL };
        if self.option(libc::SOL_SOCKET, libc::SO_BINDTOIFINDEX) != Some(0) {
            return libc::EINVAL;
        }
        // A zeroed address has the family AF_UNSPEC.
        let unspecified = [0u8; IPV6_LENGTH];
        let arguments = [self.0 as usize, unspecified.as_ptr() as usize, IPV6_LENGTH, 0, 0, 0];
        // SAFETY: the buffer contains IPV6_LENGTH bytes.
        unsafe { system_call(libc::SYS_connect, arguments) };
        let saved_errno = errno::get();
        let error = self.bind_exact(SocketAddr::new(address, local.port()));
        if error != 0 {
            self.bind_exact(local);
        }
        errno::set(saved_errno);
        error
    }

    /// Binds the socket to `address` without a conversion to another family. Returns 0 or the error
    /// number, which is `EAFNOSUPPORT` if the socket and `address` have different families. Changes
    /// `errno` if the bind fails.
    fn bind_exact(&self, address: SocketAddr) -> c_int {
        // An IPv4 address is passed with the length of an IPv6 address. With a shorter length, the
        // bind of an IPv6 socket would fail with EINVAL, which is also the error for a socket that
        // is already bound.
        let mut bytes = [0u8; IPV6_LENGTH];
        sockaddr::write(&address, &mut bytes);
        // SAFETY: the buffer contains IPV6_LENGTH bytes.
        let result =
            unsafe { original::bind(self.0, bytes.as_ptr().cast(), IPV6_LENGTH as socklen_t) };
        if result == 0 { 0 } else { errno::get() }
    }

    fn query_address(&self, call_number: c_long) -> Option<SocketAddr> {
        let mut bytes = [0u8; IPV6_LENGTH];
        let mut length = bytes.len() as socklen_t;
        let (bytes_address, length_address) =
            (bytes.as_mut_ptr() as usize, &raw mut length as usize);
        let arguments = [self.0 as usize, bytes_address, length_address, 0, 0, 0];
        // SAFETY: `length` is the size of the buffer.
        let result = unsafe { system_call(call_number, arguments) };
        if result != 0 {
            return None;
        }
        // A longer address belongs to another family.
        parse_inet(bytes.get(..usize::try_from(length).ok()?)?)
    }
}

/// A socket for a call with an external destination. For a datagram socket, the hook's bind
/// replaces the check whether the socket is already bound.
///
/// A datagram socket is presumed to be unbound and to have the family of the destination. The hook
/// does not read the socket's local address: if the socket has a port, or cannot have an address of
/// this family, the bind fails. There is one exception: if a UDP socket with an address but no port
/// may exist, the hook reads the local address, because the kernel would bind such a socket again.
pub struct PresumedUnbound {
    fd: Fd,
    destination: SocketAddr,
    cached_protocol: Cell<Option<Protocol>>,
}

impl PresumedUnbound {
    pub fn new(fd: Fd, destination: SocketAddr) -> Self {
        Self { fd, destination, cached_protocol: Cell::new(None) }
    }
}

impl Socket for PresumedUnbound {
    fn protocol(&self) -> Protocol {
        let protocol = self.cached_protocol.get().unwrap_or_else(|| self.fd.protocol());
        self.cached_protocol.set(Some(protocol));
        protocol
    }

    fn local_address(&self) -> Option<SocketAddr> {
        if PORTLESS_BINDINGS.is_possible() || !self.protocol().is_datagram() {
            return self.fd.local_address();
        }
        let wildcard: IpAddr = match self.destination {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        Some(SocketAddr::new(wildcard, 0))
    }

    fn is_v6only(&self) -> bool {
        self.fd.is_v6only()
    }

    fn can_share_port(&self) -> bool {
        self.fd.can_share_port()
    }
}
