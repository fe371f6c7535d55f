//! The outcomes of bind and listen.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{
    AddressForm, Outcome, Protocol, Reason, Refusal, Rewriter, Socket, SystemView, is_unbound,
};
use super::{connect::is_link_scoped, sockaddr, with_ip};
use crate::policy::WildcardBind;
use crate::session::Addresses;

/// A rewritten bind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bind {
    /// The address to bind. It has the family of the program's address.
    pub address: SocketAddr,
    /// Whether the hook layer clears `IPV6_V6ONLY` before the bind. If the bind fails, the hook
    /// layer sets the option again.
    pub clear_v6only: bool,
    /// Whether the hook layer defers the bind. In this case, it reports success, and binds the
    /// socket at a later call such as connect, listen or getsockname (row 46, see
    /// [`RewriteRules::defer_wildcard`](super::RewriteRules::defer_wildcard)).
    pub defer: bool,
}

impl Bind {
    fn immediate(address: SocketAddr) -> Outcome<Self> {
        Outcome::Rewritten(Self { address, clear_v6only: false, defer: false })
    }
}

impl<S: SystemView + ?Sized> Rewriter<'_, S> {
    /// Returns the outcome of a bind (rows 1 to 6, 23, 26, 30 to 33).
    pub fn bind(&self, socket: &(impl Socket + ?Sized), address: SocketAddr) -> Outcome<Bind> {
        if !self.lease_held {
            return Outcome::Passed(Reason::LeaseClosed);
        }
        let ip = address.ip();
        let v4 = sockaddr::as_ipv4(ip);
        if v4.is_some_and(|v4| v4.is_unspecified()) || ip.is_unspecified() {
            return self.bind_wildcard(socket, address);
        }
        if !socket.is_tcp_or_udp() {
            return Outcome::Passed(Reason::NotTcpOrUdp);
        }
        match v4 {
            Some(Ipv4Addr::LOCALHOST) => self.bind_loopback(address, self.loopback()),
            None if ip == Ipv6Addr::LOCALHOST => {
                match self.bind_loopback(address, self.loopback6()) {
                    // L6 is an IPv4 address, so the socket must accept IPv4 (row 32).
                    Outcome::Rewritten(bind) => {
                        Outcome::Rewritten(Bind { clear_v6only: socket.is_v6only(), ..bind })
                    }
                    outcome => outcome,
                }
            }
            v4 => self.bind_specific(socket, address, v4.map_or(ip, IpAddr::V4)),
        }
    }

    /// Returns the outcome of a listen. The kernel would bind an unbound socket to the wildcard
    /// address, so the hook layer binds the socket first (row 21).
    pub fn listen(&self, socket: &(impl Socket + ?Sized)) -> Outcome<Bind> {
        match socket.local_address() {
            None => Outcome::Passed(Reason::NotInet),
            Some(local) if !is_unbound(local) => Outcome::Passed(Reason::AlreadyBound),
            Some(local) => match self.bind(socket, local) {
                // A listening socket never has a destination, so the hook layer does not defer the
                // bind.
                Outcome::Rewritten(bind) => Outcome::Rewritten(Bind { defer: false, ..bind }),
                outcome => outcome,
            },
        }
    }

    /// Returns the outcome of a bind to 127.0.0.1, ::ffff:127.0.0.1 or ::1. `replacement` is L, or
    /// L6 for a bind to ::1.
    fn bind_loopback(&self, address: SocketAddr, replacement: Option<Ipv4Addr>) -> Outcome<Bind> {
        let Some(replacement) = replacement else {
            return Outcome::Passed(self.missing_address_reason(self.rules.features.loopback));
        };
        if address.port() == 0 && self.rules.program_flags.keep_ephemeral {
            return Outcome::Passed(Reason::EphemeralPort);
        }
        if self.system.is_shared_port(address.port()) {
            return Outcome::Passed(Reason::SharedPort);
        }
        Bind::immediate(with_ip(address, AddressForm::of(address.ip()).convert(replacement)))
    }

    /// Returns the outcome of a bind to 0.0.0.0 or ::.
    fn bind_wildcard(&self, socket: &(impl Socket + ?Sized), address: SocketAddr) -> Outcome<Bind> {
        let protocol = socket.protocol();
        if protocol == Protocol::Other {
            return Outcome::Passed(Reason::NotTcpOrUdp);
        }
        if protocol.is_datagram()
            && (self.system.is_wildcard_udp_port(address.port()) || socket.can_share_port())
        {
            return Outcome::Passed(Reason::SharedReceiver);
        }
        let form = AddressForm::of(address.ip());
        let is_v6only = form == AddressForm::Ipv6 && socket.is_v6only();
        let v4 = self.virtual_ipv4().filter(|_| !is_v6only).map(|v4| form.convert(v4));
        let v6 = self.virtual_ipv6().filter(|_| form == AddressForm::Ipv6).map(IpAddr::V6);
        let virtual_ip = v4.or(v6);
        let is_ipv6_datagram_client =
            protocol.is_datagram() && form == AddressForm::Ipv6 && address.port() == 0;
        if is_ipv6_datagram_client && (self.rules.rebind_datagrams || virtual_ip.is_none()) {
            // The socket must accept IPv4, because L6 represents ::1 (row 32). `IPV6_V6ONLY` cannot
            // change after the bind.
            if is_v6only && self.loopback6().is_some() {
                return Outcome::Rewritten(Bind { address, clear_v6only: true, defer: false });
            }
            // From one of the session's addresses, the socket would reach only destinations of the
            // family of that address (row 30).
            if !is_v6only && virtual_ip.is_some() {
                return Outcome::Passed(Reason::FamilyUnknown);
            }
        }
        let defer = self.rules.defer_wildcard && protocol == Protocol::Tcp && address.port() == 0;
        if let Some(virtual_ip) = virtual_ip {
            let address = with_ip(address, virtual_ip);
            return Outcome::Rewritten(Bind { address, clear_v6only: false, defer });
        }
        // After a bind without a port, the program may connect to another host. L must not be the
        // source of such a connection (row 4).
        let loopback = self.loopback().filter(|_| {
            self.rules.program_flags.wildcard == WildcardBind::Loopback && address.port() != 0
        });
        let is_session_listener =
            address.port() != 0 && (self.virtual_ipv4().is_some() || loopback.is_some());
        if is_v6only && is_session_listener {
            return self.bind_ipv6_wildcard_to_loopback(address);
        }
        match loopback {
            Some(loopback) => Bind::immediate(with_ip(address, form.convert(loopback))),
            // The bind is deferred, because a socket that is already bound to an IPv6 address
            // cannot connect to L6 (row 32).
            _ if defer && form == AddressForm::Ipv6 && self.loopback6().is_some() => {
                Outcome::Rewritten(Bind { address, clear_v6only: false, defer })
            }
            _ => Outcome::Passed(Reason::WildcardUnchanged),
        }
    }

    /// Returns the outcome of a bind to `::` with a fixed port, by an IPv6-only socket of a session
    /// without an IPv6 address (row 30). On `::`, the socket would receive the connections of other
    /// sessions. The only IPv6 address that leads to a listener of this session is `::1`.
    fn bind_ipv6_wildcard_to_loopback(&self, address: SocketAddr) -> Outcome<Bind> {
        match self.loopback6() {
            Some(loopback6) => Outcome::Rewritten(Bind {
                address: with_ip(address, AddressForm::Mapped.convert(loopback6)),
                clear_v6only: true,
                defer: false,
            }),
            None => Outcome::Refused(Refusal::SharedIpv6Wildcard),
        }
    }

    /// Returns the outcome of a bind to an address that is neither the wildcard address nor
    /// 127.0.0.1 nor ::1 (row 5). `ip` is the IP address of `address`. If that address is
    /// IPv4-mapped, `ip` is the IPv4 address.
    fn bind_specific(
        &self,
        socket: &(impl Socket + ?Sized),
        address: SocketAddr,
        ip: IpAddr,
    ) -> Outcome<Bind> {
        if self.is_session_address(ip) {
            return Outcome::Passed(Reason::OwnAddress);
        }
        if self.system.pool_kind(ip).is_some() {
            // `is_tcp_or_udp` can be true for a socket of another family. Only a socket whose
            // protocol is TCP or UDP is refused.
            return match socket.protocol() {
                Protocol::Other => Outcome::Passed(Reason::NotTcpOrUdp),
                Protocol::Tcp | Protocol::Udp | Protocol::UdpLite => {
                    Outcome::Refused(Refusal::OtherSessionAddress)
                }
            };
        }
        // V has no link scope, so it cannot replace a link-scoped address. `connect` also passes
        // link-scoped addresses.
        if is_link_scoped(ip) {
            return Outcome::Passed(Reason::LinkLocal);
        }
        if !self.system.is_host_address(ip) {
            return Outcome::Passed(Reason::OtherAddress);
        }
        let replacement = match ip {
            IpAddr::V4(_) => {
                self.virtual_ipv4().map(|v4| AddressForm::of(address.ip()).convert(v4))
            }
            IpAddr::V6(_) => self.virtual_ipv6().map(IpAddr::V6),
        };
        match replacement {
            Some(replacement) => Bind::immediate(with_ip(address, replacement)),
            None => Outcome::Passed(self.missing_address_reason(self.rules.features.virtual_ip)),
        }
    }

    /// Returns whether the session holds this address, even if the program does not use the
    /// address.
    pub(super) fn is_session_address(&self, ip: IpAddr) -> bool {
        let Addresses { v4, v6, loopback, loopback6 } = self.addresses;
        match ip {
            IpAddr::V4(ip) => [v4, loopback, loopback6].contains(&Some(ip)),
            IpAddr::V6(ip) => v6 == Some(ip),
        }
    }
}
