//! connect, and the destinations of sendto and sendmsg.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{
    AddressForm, ListenerMatch, Outcome, Protocol, Reason, Rewriter, Socket, SystemView, is_unbound,
};
use super::{sockaddr, with_ip};
use crate::policy::LoopbackConnect;

/// How a connect, or a datagram on its way, goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connect {
    /// To be bound first, with port 0.
    pub source: Option<IpAddr>,
    /// Whether that bind leaves the choice of the port to the connect, so that two destinations
    /// can share one (`IP_BIND_ADDRESS_NO_PORT` of ip(7); row 7).
    pub defer_port: bool,
    /// The destination, of the same family as the program's.
    pub destination: SocketAddr,
    /// Whether `IPV6_V6ONLY` must be cleared first.
    pub clear_v6only: bool,
}

/// What of the session's own may be meant by the address that a program dials.
struct OwnAddresses {
    /// L or L6, for a loopback address.
    loopback: Option<SocketAddr>,
    /// V, and on IPv6 sockets the session's IPv6 address.
    virtual_ip: [Option<SocketAddr>; 2],
}

impl<W: SystemView + ?Sized> Rewriter<'_, W> {
    /// A connect of the program's (rows 4, 7 to 12, 14, 22, 28, 32, 33), TCP or UDP.
    pub fn connect(&self, socket: &(impl Socket + ?Sized), to: SocketAddr) -> Outcome<Connect> {
        if !self.lease_held {
            return Outcome::Passed(Reason::LeaseClosed);
        }
        if is_local_destination(to.ip()) {
            self.connect_to_loopback(socket, to)
        } else {
            self.connect_to_host(socket, to).unwrap_or_else(|| self.connect_to_outside(socket, to))
        }
    }

    /// A datagram with a destination, or a stream begun by `MSG_FASTOPEN` (rows 11b, 22, 28).
    pub fn send(
        &self,
        socket: &(impl Socket + ?Sized),
        to: SocketAddr,
        fast_open: bool,
    ) -> Outcome<Connect> {
        match self.connect(socket, to) {
            // The kernel does not look at a stream's destination: nothing may be bound for it.
            Outcome::Rewritten(Connect { defer_port: true, .. }) if !fast_open => {
                Outcome::Passed(Reason::Stream)
            }
            outcome => outcome,
        }
    }

    /// The source of one datagram, where the program names it (`IP_PKTINFO`, `IPV6_PKTINFO`): it
    /// counts for more than what the socket is bound to (row 24). `to` is where the datagram goes
    /// by now, if it is known.
    pub fn datagram_source(&self, source: IpAddr, to: Option<SocketAddr>) -> Outcome<IpAddr> {
        if !self.lease_held {
            return Outcome::Passed(Reason::LeaseClosed);
        }
        let form = AddressForm::of(source);
        let v4 = sockaddr::as_ipv4(source);
        let towards_loopback = to.is_some_and(|to| match sockaddr::as_ipv4(to.ip()) {
            Some(to) => to.is_loopback(),
            None => to.ip().is_loopback(),
        });
        if v4.unwrap_or(Ipv4Addr::UNSPECIFIED).is_loopback() || source.is_loopback() {
            let own = if form == AddressForm::Ipv6 { self.loopback6() } else { self.loopback() };
            let plain = to.is_some_and(|to| is_local_destination(to.ip()));
            return match own {
                // A datagram that goes to the host's own loopback comes from there.
                Some(own) if !plain && is_local_destination(source) => {
                    Outcome::Rewritten(form.convert(own))
                }
                _ => Outcome::Passed(Reason::OtherAddress),
            };
        }
        let to_one_link = to.is_some_and(|to| is_link_scoped(to.ip()));
        if is_link_scoped(source) || source.is_unspecified() && to_one_link {
            return Outcome::Passed(Reason::LinkLocal);
        }
        let host = source.is_unspecified()
            || v4.is_some_and(|v4| v4.is_unspecified())
            || self.system.is_host_address(v4.map_or(source, IpAddr::V4));
        if !host || towards_loopback {
            return Outcome::Passed(Reason::OtherAddress);
        }
        let mapped_to = to.is_some_and(|to| AddressForm::of(to.ip()) == AddressForm::Mapped);
        let own = match form {
            AddressForm::Ipv4 | AddressForm::Mapped => self.virtual_ipv4().map(|v| form.convert(v)),
            AddressForm::Ipv6 if mapped_to => self.virtual_ipv4().map(|v| form.convert(v)),
            AddressForm::Ipv6 => self.virtual_ipv6().map(IpAddr::V6),
        };
        match own {
            Some(own) => Outcome::Rewritten(own),
            None => Outcome::Passed(self.missing_address_reason(self.rules.features.virtual_ip)),
        }
    }

    /// The interface that a multicast datagram leaves by, where the program set none, by its
    /// address (`IP_MULTICAST_IF`; row 27).
    pub fn multicast_interface(&self, to: IpAddr) -> Outcome<Ipv4Addr> {
        if !self.lease_held {
            return Outcome::Passed(Reason::LeaseClosed);
        }
        match (sockaddr::as_ipv4(to).is_some_and(|to| to.is_multicast()), self.virtual_ipv4()) {
            (false, _) => Outcome::Passed(Reason::OtherAddress),
            (true, None) => {
                Outcome::Passed(self.missing_address_reason(self.rules.features.virtual_ip))
            }
            (true, Some(v)) => Outcome::Rewritten(v),
        }
    }

    /// 127.0.0.1, ::1 or an unspecified address: the session's own first, then the host's.
    fn connect_to_loopback(
        &self,
        socket: &(impl Socket + ?Sized),
        to: SocketAddr,
    ) -> Outcome<Connect> {
        let own = self.own_addresses(to);
        let candidates = [own.loopback, own.virtual_ip[0], own.virtual_ip[1]];
        if candidates.iter().all(Option::is_none) {
            let features = self.rules.features;
            return Outcome::Passed(
                self.missing_address_reason(features.loopback || features.virtual_ip),
            );
        }
        if self.system.is_shared_port(to.port()) {
            return Outcome::Passed(Reason::SharedPort);
        }
        if !socket.is_tcp_or_udp() {
            return Outcome::Passed(Reason::NotTcpOrUdp);
        }
        let always = self.rules.program.loopback_connect == LoopbackConnect::Own
            || self.system.is_own_port(to.port());
        let found = match own.loopback.filter(|_| always) {
            Some(loopback) => Ok(loopback),
            None => self.find_own_listener(socket, candidates),
        };
        let found = match found {
            Ok(found) => found,
            Err(reason) => return Outcome::Passed(reason),
        };
        let source = match AddressForm::of(to.ip()) {
            // Bound to L, both ends know that 127.0.0.1 was dialled (row 11).
            AddressForm::Ipv4 | AddressForm::Mapped => {
                self.loopback().filter(|_| Some(found) != own.loopback)
            }
            // From elsewhere, who dials ::1 would be seen as ::ffff:127.0.0.1.
            AddressForm::Ipv6 => {
                self.loopback6().filter(|_| sockaddr::as_ipv4(found.ip()).is_some())
            }
        };
        self.connect_to_own(socket, to, found, source.map(IpAddr::V4))
    }

    /// An address of the host itself: what the session's programs bound to it is on V (row 5).
    /// `None` if nothing of theirs listens there.
    fn connect_to_host(
        &self,
        socket: &(impl Socket + ?Sized),
        to: SocketAddr,
    ) -> Option<Outcome<Connect>> {
        let ip = sockaddr::as_ipv4(to.ip()).map_or(to.ip(), IpAddr::V4);
        if !self.system.is_host_address(ip) || unbound_reason(ip).is_some() {
            return None;
        }
        let [v, v6] = self.own_addresses(to).virtual_ip;
        let found = self.find_own_listener(socket, [v, v6, None]).ok()?;
        Some(self.connect_to_own(socket, to, found, Some(found.ip())))
    }

    /// The first of these on which something listens.
    fn find_own_listener(
        &self,
        socket: &(impl Socket + ?Sized),
        candidates: [Option<SocketAddr>; 3],
    ) -> Result<SocketAddr, Reason> {
        let protocol = socket.protocol();
        if protocol == Protocol::Other {
            return Err(Reason::NotTcpOrUdp);
        }
        let Some(first) = candidates.iter().flatten().next() else {
            return Err(Reason::NoSuchAddress);
        };
        let mut wanted = [*first; 3];
        let mut count = 0;
        for (place, candidate) in wanted.iter_mut().zip(candidates.iter().flatten()) {
            *place = *candidate;
            count += 1;
        }
        let wanted = wanted.get(..count).unwrap_or_default();
        let from = match protocol {
            Protocol::Udp => socket.local_address().filter(|local| !is_unbound(*local)),
            Protocol::Tcp | Protocol::Other => None,
        };
        match self.system.find_listener(wanted, protocol, from) {
            ListenerMatch::NotFound => Err(Reason::NoOwnListener),
            ListenerMatch::Unknown => Err(Reason::ListenersUnknown),
            ListenerMatch::Index(place) => {
                wanted.get(place).copied().ok_or(Reason::ListenersUnknown)
            }
        }
    }

    /// To an address of the session's own in place of the one dialled, from `source` if it must be.
    fn connect_to_own(
        &self,
        socket: &(impl Socket + ?Sized),
        dialled: SocketAddr,
        found: SocketAddr,
        source: Option<IpAddr>,
    ) -> Outcome<Connect> {
        let form = AddressForm::of(dialled.ip());
        let written = |ip: IpAddr| sockaddr::as_ipv4(ip).map_or(ip, |v4| form.convert(v4));
        let to = with_ip(dialled, written(found.ip()));
        let crosses = form == AddressForm::Ipv6 && AddressForm::of(to.ip()) == AddressForm::Mapped;
        let mut connect =
            Connect { source: None, defer_port: false, destination: to, clear_v6only: false };
        if crosses || source.is_some() {
            let Some(local) = socket.local_address().filter(|local| can_reach(socket, *local, to))
            else {
                return Outcome::Passed(Reason::NotInet);
            };
            if crosses
                && AddressForm::of(local.ip()) == AddressForm::Ipv6
                && !local.ip().is_unspecified()
            {
                // Bound to an address of IPv6: it can't reach one of IPv4.
                return Outcome::Passed(Reason::AlreadyBound);
            }
            connect.clear_v6only = crosses && socket.is_v6only();
            let source = source.filter(|_| is_unbound(local));
            connect.source = source.map(|source| in_socket_family(local, written(source)));
            connect.defer_port = connect.source.is_some() && socket.protocol() == Protocol::Tcp;
        }
        Outcome::Rewritten(connect)
    }

    fn own_addresses(&self, to: SocketAddr) -> OwnAddresses {
        let at = |ip: IpAddr| SocketAddr::new(ip, to.port());
        let v4 = |ip: Ipv4Addr| at(ip.into());
        match AddressForm::of(to.ip()) {
            AddressForm::Ipv4 | AddressForm::Mapped => OwnAddresses {
                loopback: self.loopback().map(v4),
                virtual_ip: [self.virtual_ipv4().map(v4), None],
            },
            // A socket that is not one of IPv6 could not be reached by ::1 without the hook.
            AddressForm::Ipv6 => {
                let mapped = |ip: Ipv4Addr| at(ip.to_ipv6_mapped().into());
                OwnAddresses {
                    loopback: self.loopback6().map(mapped),
                    virtual_ip: [
                        self.virtual_ipv4().map(mapped),
                        self.virtual_ipv6().map(|v6| at(v6.into())),
                    ],
                }
            }
        }
    }

    /// Anywhere else: an unbound socket gets the session's virtual IP first (rows 4, 7, 22).
    fn connect_to_outside(
        &self,
        socket: &(impl Socket + ?Sized),
        to: SocketAddr,
    ) -> Outcome<Connect> {
        let form = AddressForm::of(to.ip());
        if let Some(reason) = unbound_reason(to.ip()) {
            return Outcome::Passed(reason);
        }
        let source = match form {
            AddressForm::Ipv4 | AddressForm::Mapped => self.virtual_ipv4().map(|v| form.convert(v)),
            AddressForm::Ipv6 => self.virtual_ipv6().map(IpAddr::V6),
        };
        let Some(source) = source else {
            return Outcome::Passed(self.missing_address_reason(self.rules.features.virtual_ip));
        };
        let Some(local) = socket.local_address().filter(|local| can_reach(socket, *local, to))
        else {
            return Outcome::Passed(Reason::NotInet);
        };
        // L with no port yet is what an earlier connect of ours left (row 9).
        let ours = local.port() == 0
            && sockaddr::as_ipv4(local.ip())
                .is_some_and(|ip| self.loopback() == Some(ip) || self.loopback6() == Some(ip));
        if !is_unbound(local) && !ours {
            return Outcome::Passed(Reason::AlreadyBound);
        }
        let protocol = socket.protocol();
        if protocol == Protocol::Other {
            return Outcome::Passed(Reason::NotTcpOrUdp);
        }
        let source = in_socket_family(local, source);
        if AddressForm::of(source) == AddressForm::Mapped && socket.is_v6only() {
            return Outcome::Passed(Reason::V6Only);
        }
        let defer_port = protocol == Protocol::Tcp;
        Outcome::Rewritten(Connect {
            source: Some(source),
            defer_port,
            destination: to,
            clear_v6only: false,
        })
    }
}

/// Whether this is an address to which an unbound socket goes from the session's virtual IP, and a
/// bound one as it is. Not so multicast of IPv4, which has an interface too (row 27).
#[inline]
pub(super) fn is_outside(ip: IpAddr) -> bool {
    let is_multicast = sockaddr::as_ipv4(ip).is_some_and(|v4| v4.is_multicast());
    !is_multicast && !is_local_destination(ip) && unbound_reason(ip).is_none()
}

/// Why a socket that goes there is not bound first.
#[inline]
fn unbound_reason(ip: IpAddr) -> Option<Reason> {
    match (ip, sockaddr::as_ipv4(ip)) {
        (_, Some(v4)) if v4.is_loopback() => Some(Reason::OtherAddress),
        (_, None) if is_link_scoped(ip) => Some(Reason::LinkLocal),
        _ => None,
    }
}

/// Whether the kernel lets a socket with this local address go there: from one of IPv6 a datagram
/// goes to an address of IPv4 as it is, but no stream.
fn can_reach(socket: &(impl Socket + ?Sized), local: SocketAddr, to: SocketAddr) -> bool {
    local.is_ipv4() == to.is_ipv4() || local.is_ipv6() && socket.protocol() == Protocol::Udp
}

/// An address as a socket with this local one can be bound to it.
fn in_socket_family(local: SocketAddr, ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(v4) if local.is_ipv6() => v4.to_ipv6_mapped().into(),
        _ => ip,
    }
}

/// Whether a program that dials this means the host it runs on (row 12: 0.0.0.0 is 127.0.0.1).
fn is_local_destination(ip: IpAddr) -> bool {
    match sockaddr::as_ipv4(ip) {
        Some(v4) => v4 == Ipv4Addr::LOCALHOST || v4.is_unspecified(),
        None => ip == Ipv6Addr::LOCALHOST || ip.is_unspecified(),
    }
}

/// Link-local, or multicast of one link or less, of IPv6 (RFC 4291).
pub(super) fn is_link_scoped(ip: IpAddr) -> bool {
    let IpAddr::V6(ip) = ip else { return false };
    let [high, low, ..] = ip.octets();
    ip.is_unicast_link_local() || high == 0xff && low & 0x0f <= 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_outside() {
        for (text, outside) in [
            ("192.0.2.9", true),
            ("::ffff:192.0.2.9", true),
            ("2001:db8::9", true),
            ("255.255.255.255", true),
            ("127.0.0.1", false),
            ("127.3.4.5", false),
            ("0.0.0.0", false),
            ("::ffff:127.0.0.1", false),
            ("::ffff:0.0.0.0", false),
            ("::", false),
            ("::1", false),
            ("239.1.2.3", false),
            ("::ffff:239.1.2.3", false),
            ("fe80::1", false),
            ("ff02::fb", false),
        ] {
            assert_eq!(is_outside(text.parse().unwrap()), outside, "{text}");
        }
    }
}
