//! bind and listen.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{
    AddressForm, Outcome, Protocol, Reason, Refusal, Rewriter, Socket, SystemView, is_unbound,
};
use super::{connect::is_link_scoped, sockaddr, with_ip};
use crate::policy::WildcardBind;
use crate::session::Addresses;

/// How a bind goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bind {
    /// The address to bind, of the same family as the program's.
    pub address: SocketAddr,
    /// Whether `IPV6_V6ONLY` must be cleared first (and set again if the bind fails).
    pub clear_v6only: bool,
    /// Whether the bind is put off: the program is told that it succeeded, and connect, listen or
    /// getsockname binds (row 46, see [`RewriteRules::defer_wildcard`](super::RewriteRules::defer_wildcard)).
    pub defer: bool,
}

impl Bind {
    fn to(address: SocketAddr) -> Outcome<Self> {
        Outcome::Rewritten(Self { address, clear_v6only: false, defer: false })
    }
}

impl<W: SystemView + ?Sized> Rewriter<'_, W> {
    /// A bind of the program's (rows 1 to 6, 23, 26, 30 to 33).
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
                    // Only an address of IPv4 can be the session's own (row 32).
                    Outcome::Rewritten(bind) => {
                        Outcome::Rewritten(Bind { clear_v6only: socket.is_v6only(), ..bind })
                    }
                    other => other,
                }
            }
            v4 => self.bind_specific(socket, address, v4.map_or(ip, IpAddr::V4)),
        }
    }

    /// A listen of the program's: an unbound socket would be bound to the wildcard address by the
    /// kernel, so it is bound before (row 21).
    pub fn listen(&self, socket: &(impl Socket + ?Sized)) -> Outcome<Bind> {
        match socket.local_address() {
            None => Outcome::Passed(Reason::NotInet),
            Some(local) if !is_unbound(local) => Outcome::Passed(Reason::AlreadyBound),
            Some(local) => match self.bind(socket, local) {
                // The time to bind has come.
                Outcome::Rewritten(bind) => Outcome::Rewritten(Bind { defer: false, ..bind }),
                other => other,
            },
        }
    }

    /// 127.0.0.1, ::ffff:127.0.0.1 or ::1, for which `own` stands.
    fn bind_loopback(&self, address: SocketAddr, own: Option<Ipv4Addr>) -> Outcome<Bind> {
        let Some(own) = own else {
            return Outcome::Passed(self.missing_address_reason(self.rules.features.loopback));
        };
        if address.port() == 0 && !self.rules.program.map_ephemeral {
            return Outcome::Passed(Reason::EphemeralPort);
        }
        if self.system.is_shared_port(address.port()) {
            return Outcome::Passed(Reason::SharedPort);
        }
        Bind::to(with_ip(address, AddressForm::of(address.ip()).convert(own)))
    }

    /// 0.0.0.0 or ::.
    fn bind_wildcard(&self, socket: &(impl Socket + ?Sized), address: SocketAddr) -> Outcome<Bind> {
        let protocol = socket.protocol();
        if protocol == Protocol::Other {
            return Outcome::Passed(Reason::NotTcpOrUdp);
        }
        if protocol == Protocol::Udp
            && (self.system.is_wildcard_udp_port(address.port()) || socket.can_share_port())
        {
            return Outcome::Passed(Reason::SharedReceiver);
        }
        let form = AddressForm::of(address.ip());
        let v6only = form == AddressForm::Ipv6 && socket.is_v6only();
        let v = self.virtual_ipv4().filter(|_| !v6only).map(|v| form.convert(v));
        let v6 = self.virtual_ipv6().filter(|_| form == AddressForm::Ipv6).map(IpAddr::V6);
        let defer = self.rules.defer_wildcard && protocol == Protocol::Tcp && address.port() == 0;
        if let Some(own) = v.or(v6) {
            let address = with_ip(address, own);
            return Outcome::Rewritten(Bind { address, clear_v6only: false, defer });
        }
        match self.loopback() {
            // Without a port it may be meant for the outside, where L must not go (row 4).
            Some(l)
                if self.rules.program.wildcard == WildcardBind::Loopback
                    && address.port() != 0
                    && !v6only =>
            {
                Bind::to(with_ip(address, form.convert(l)))
            }
            // Bound for IPv6 it could not go to L6, should it dial ::1 (row 32).
            _ if defer && form == AddressForm::Ipv6 && self.loopback6().is_some() => {
                Outcome::Rewritten(Bind { address, clear_v6only: false, defer })
            }
            _ => Outcome::Passed(Reason::WildcardKept),
        }
    }

    /// Any other address; `ip` is it without the IPv6 form of IPv4 (row 5).
    fn bind_specific(
        &self,
        socket: &(impl Socket + ?Sized),
        address: SocketAddr,
        ip: IpAddr,
    ) -> Outcome<Bind> {
        if self.is_own(ip) {
            return Outcome::Passed(Reason::OwnAddress);
        }
        if self.system.pool_kind(ip).is_some() {
            // Nothing is refused to what may be no such socket at all.
            return match socket.protocol() {
                Protocol::Other => Outcome::Passed(Reason::NotTcpOrUdp),
                Protocol::Tcp | Protocol::Udp => Outcome::Refused(Refusal::OtherSessionAddress),
            };
        }
        // Its scope would be lost, and connect leaves it alone too.
        if is_link_scoped(ip) {
            return Outcome::Passed(Reason::LinkLocal);
        }
        if !self.system.is_host_address(ip) {
            return Outcome::Passed(Reason::OtherAddress);
        }
        let own = match ip {
            IpAddr::V4(_) => self.virtual_ipv4().map(|v| AddressForm::of(address.ip()).convert(v)),
            IpAddr::V6(_) => self.virtual_ipv6().map(IpAddr::V6),
        };
        match own {
            Some(own) => Bind::to(with_ip(address, own)),
            None => Outcome::Passed(self.missing_address_reason(self.rules.features.virtual_ip)),
        }
    }

    /// Whether the session was given this address, whatever the program may use of it.
    fn is_own(&self, ip: IpAddr) -> bool {
        let Addresses { v4, v6, loopback, loopback6 } = self.addresses;
        match ip {
            IpAddr::V4(ip) => [v4, loopback, loopback6].contains(&Some(ip)),
            IpAddr::V6(ip) => v6 == Some(ip),
        }
    }
}
