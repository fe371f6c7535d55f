//! What the kernel says of a socket, asked directly: past our own hooks, and past those of others,
//! since it is the kernel's own names that are wanted.

use std::cell::Cell;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use libc::{c_int, c_long, socklen_t};
use vipool::rewrite::sockaddr::{self, IPV6_LENGTH, Parsed};
use vipool::rewrite::{Protocol, Socket};

use crate::facts::{OTHER_PROTOCOLS, PORTLESS_BINDINGS};
use crate::system_call::system_call;
use crate::{errno, original};

/// A descriptor of the program's. What is asked of it leaves `errno` alone.
#[derive(Clone, Copy)]
pub struct Fd(pub c_int);

impl Socket for Fd {
    fn protocol(&self) -> Protocol {
        match self.option(libc::SOL_SOCKET, libc::SO_PROTOCOL) {
            Some(libc::IPPROTO_TCP | libc::IPPROTO_MPTCP) => Protocol::Tcp,
            Some(libc::IPPROTO_UDP | libc::IPPROTO_UDPLITE) => Protocol::Udp,
            _ => Protocol::Other,
        }
    }

    fn is_tcp_or_udp(&self) -> bool {
        !OTHER_PROTOCOLS.is_possible() || self.protocol() != Protocol::Other
    }

    fn local_address(&self) -> Option<SocketAddr> {
        self.read_name(libc::SYS_getsockname)
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
    /// The address of the other end.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.read_name(libc::SYS_getpeername)
    }

    /// Whether it has a port.
    pub fn has_port(&self) -> bool {
        self.local_address().is_some_and(|local| local.port() != 0)
    }

    /// An option whose value is a number.
    pub fn option(&self, level: c_int, option: c_int) -> Option<c_int> {
        let mut value: c_int = 0;
        let mut length = size_of::<c_int>() as socklen_t;
        let (address, length_address) = (&raw mut value as usize, &raw mut length as usize);
        let arguments =
            [self.0 as usize, level as usize, option as usize, address, length_address, 0];
        // SAFETY: value and length are of the sizes that are said.
        let result = unsafe { system_call(libc::SYS_getsockopt, arguments) };
        (result == 0).then_some(value)
    }

    /// Sets an option whose value is a number, if it can be set.
    pub fn set_option(&self, level: c_int, option: c_int, value: c_int) {
        let (address, length) = (&raw const value as usize, size_of::<c_int>());
        let arguments = [self.0 as usize, level as usize, option as usize, address, length, 0];
        // SAFETY: the value is of the size that is said.
        unsafe { system_call(libc::SYS_setsockopt, arguments) };
    }

    /// fcntl(2) with a number in memory, whether it succeeds.
    #[inline]
    pub fn fcntl_u64(&self, command: c_int, number: &mut u64) -> bool {
        let arguments = [self.0 as usize, command as usize, &raw mut *number as usize, 0, 0, 0];
        // SAFETY: the callers' commands read or write such a number.
        unsafe { system_call(libc::SYS_fcntl, arguments) == 0 }
    }

    /// Sets the interface for multicast, by its address, if the program set none.
    pub fn set_multicast_interface(&self, interface: Ipv4Addr) {
        let (level, option) = (libc::IPPROTO_IP, libc::IP_MULTICAST_IF);
        if self.option(level, option) == Some(libc::INADDR_ANY as c_int) {
            self.set_option(level, option, c_int::from_ne_bytes(interface.octets()));
        }
    }

    /// Binds an address and answers 0 or the error; with `defer_port` a connect chooses the port (ip(7)). The option is put
    /// back at once: a bind of the program's own shows its port as ever (row 8). One of IPv4 is
    /// written as a socket of IPv6 takes it, if it is one.
    pub fn bind(&self, address: IpAddr, defer_port: bool) -> c_int {
        const BIND_NO_PORT: c_int = libc::IP_BIND_ADDRESS_NO_PORT;
        let sets_no_port = defer_port && self.option(libc::IPPROTO_IP, BIND_NO_PORT) == Some(0);
        if sets_no_port {
            self.set_option(libc::IPPROTO_IP, BIND_NO_PORT, 1);
        }
        let saved_errno = errno::get();
        let mut error = self.bind_once(address);
        if let (libc::EAFNOSUPPORT, IpAddr::V4(v4)) = (error, address) {
            error = self.bind_once(v4.to_ipv6_mapped().into());
        }
        errno::set(saved_errno);
        if sets_no_port {
            self.set_option(libc::IPPROTO_IP, BIND_NO_PORT, 0);
        }
        error
    }

    /// `EAFNOSUPPORT` if the socket is not of the address's family.
    fn bind_once(&self, address: IpAddr) -> c_int {
        // The whole of it also for IPv4: of a shorter one a socket of IPv6 says `EINVAL`, as one
        // that is bound does.
        let mut bytes = [0u8; IPV6_LENGTH];
        sockaddr::write(&SocketAddr::new(address, 0), &mut bytes);
        // SAFETY: the address is as long as is said.
        let result =
            unsafe { original::bind(self.0, bytes.as_ptr().cast(), IPV6_LENGTH as socklen_t) };
        if result == 0 { 0 } else { errno::get() }
    }

    fn read_name(&self, number: c_long) -> Option<SocketAddr> {
        let mut bytes = [0u8; IPV6_LENGTH];
        let mut length = bytes.len() as socklen_t;
        let (address, length_address) = (bytes.as_mut_ptr() as usize, &raw mut length as usize);
        // SAFETY: the buffer is as long as is said.
        let result =
            unsafe { system_call(number, [self.0 as usize, address, length_address, 0, 0, 0]) };
        if result != 0 {
            return None;
        }
        // One that does not fit is of another family.
        match sockaddr::parse(bytes.get(..usize::try_from(length).ok()?)?) {
            Parsed::Inet(address) => Some(address),
            Parsed::Unspecified(_) | Parsed::Other => None,
        }
    }
}

/// A socket on its way outside. Of UDP it is not asked whether it is bound, but taken to be unbound,
/// and of the family of where it goes: the kernel binds no socket that has a port, nor one of another
/// family, so that the attempt tells. That is asked all the same where a UDP socket may have an
/// address without a port, since that could be bound again.
pub struct PresumedUnbound {
    fd: Fd,
    destination: SocketAddr,
    protocol: Cell<Option<Protocol>>,
}

impl PresumedUnbound {
    pub fn new(fd: Fd, destination: SocketAddr) -> Self {
        Self { fd, destination, protocol: Cell::new(None) }
    }
}

impl Socket for PresumedUnbound {
    fn protocol(&self) -> Protocol {
        let protocol = self.protocol.get().unwrap_or_else(|| self.fd.protocol());
        self.protocol.set(Some(protocol));
        protocol
    }

    fn local_address(&self) -> Option<SocketAddr> {
        if PORTLESS_BINDINGS.is_possible() || self.protocol() != Protocol::Udp {
            return self.fd.local_address();
        }
        let unbound: IpAddr = match self.destination {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        Some(SocketAddr::new(unbound, 0))
    }

    fn is_v6only(&self) -> bool {
        self.fd.is_v6only()
    }

    fn can_share_port(&self) -> bool {
        self.fd.can_share_port()
    }
}
