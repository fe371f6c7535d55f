//! connect, and the destinations of sendto and sendmsg.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Form, Listener, Outcome, Protocol, Reason, Rewriter, Socket, World, is_unbound};
use super::{sockaddr, with_ip};
use crate::policy::LoopbackConnect;

/// How a connect, or a datagram on its way, goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connect {
    /// To be bound first, with port 0.
    pub bind: Option<IpAddr>,
    /// Whether that bind leaves the choice of the port to the connect, so that two destinations
    /// can share one (`IP_BIND_ADDRESS_NO_PORT` of ip(7); row 7).
    pub late_port: bool,
    /// The destination, of the same family as the program's.
    pub to: SocketAddr,
    /// Whether `IPV6_V6ONLY` must be cleared first.
    pub clear_v6only: bool,
}

/// What of the session's own may be meant by the address that a program dials.
struct Own {
    /// L or L6, for a loopback address.
    loopback: Option<SocketAddr>,
    /// V, and on IPv6 sockets the session's IPv6 address.
    virtual_ip: [Option<SocketAddr>; 2],
}

impl<W: World + ?Sized> Rewriter<'_, W> {
    /// A connect of the program's (rows 4, 7 to 12, 14, 22, 28, 32, 33), TCP or UDP.
    pub fn connect(&self, socket: &(impl Socket + ?Sized), to: SocketAddr) -> Outcome<Connect> {
        if !self.live {
            return Outcome::Passed(Reason::LeaseClosed);
        }
        if is_dialled_loopback(to.ip()) {
            self.to_loopback(socket, to)
        } else {
            self.to_host(socket, to).unwrap_or_else(|| self.to_outside(socket, to))
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
            Outcome::Rewritten(Connect { late_port: true, .. }) if !fast_open => {
                Outcome::Passed(Reason::Stream)
            }
            outcome => outcome,
        }
    }

    /// The source of one datagram, where the program names it (`IP_PKTINFO`, `IPV6_PKTINFO`): it
    /// counts for more than what the socket is bound to (row 24). `to` is where the datagram goes
    /// by now, if it is known.
    pub fn send_source(&self, source: IpAddr, to: Option<SocketAddr>) -> Outcome<IpAddr> {
        if !self.live {
            return Outcome::Passed(Reason::LeaseClosed);
        }
        let form = Form::of(source);
        let v4 = sockaddr::as_ipv4(source);
        let towards_loopback = to.is_some_and(|to| match sockaddr::as_ipv4(to.ip()) {
            Some(to) => to.is_loopback(),
            None => to.ip().is_loopback(),
        });
        if v4.unwrap_or(Ipv4Addr::UNSPECIFIED).is_loopback() || source.is_loopback() {
            let own = if form == Form::V6 { self.l6() } else { self.l() };
            let plain = to.is_some_and(|to| is_dialled_loopback(to.ip()));
            return match own {
                // A datagram that goes to the host's own loopback comes from there.
                Some(own) if !plain && is_dialled_loopback(source) => {
                    Outcome::Rewritten(form.write(own))
                }
                _ => Outcome::Passed(Reason::OtherAddress),
            };
        }
        let to_one_link = to.is_some_and(|to| is_of_one_link(to.ip()));
        if is_of_one_link(source) || source.is_unspecified() && to_one_link {
            return Outcome::Passed(Reason::LinkLocal);
        }
        let host = source.is_unspecified()
            || v4.is_some_and(|v4| v4.is_unspecified())
            || self.world.is_host_address(v4.map_or(source, IpAddr::V4));
        if !host || towards_loopback {
            return Outcome::Passed(Reason::OtherAddress);
        }
        let mapped_to = to.is_some_and(|to| Form::of(to.ip()) == Form::Mapped);
        let own = match form {
            Form::V4 | Form::Mapped => self.v().map(|v| form.write(v)),
            Form::V6 if mapped_to => self.v().map(|v| form.write(v)),
            Form::V6 => self.v6().map(IpAddr::V6),
        };
        match own {
            Some(own) => Outcome::Rewritten(own),
            None => Outcome::Passed(self.without(self.rules.features.virtual_ip)),
        }
    }

    /// The interface that a multicast datagram leaves by, where the program set none, by its
    /// address (`IP_MULTICAST_IF`; row 27).
    pub fn multicast_interface(&self, to: IpAddr) -> Outcome<Ipv4Addr> {
        if !self.live {
            return Outcome::Passed(Reason::LeaseClosed);
        }
        match (sockaddr::as_ipv4(to).is_some_and(|to| to.is_multicast()), self.v()) {
            (false, _) => Outcome::Passed(Reason::OtherAddress),
            (true, None) => Outcome::Passed(self.without(self.rules.features.virtual_ip)),
            (true, Some(v)) => Outcome::Rewritten(v),
        }
    }

    /// 127.0.0.1, ::1 or an unspecified address: the session's own first, then the host's.
    fn to_loopback(&self, socket: &(impl Socket + ?Sized), to: SocketAddr) -> Outcome<Connect> {
        let own = self.own(to);
        let candidates = [own.loopback, own.virtual_ip[0], own.virtual_ip[1]];
        if candidates.iter().all(Option::is_none) {
            let features = self.rules.features;
            return Outcome::Passed(self.without(features.loopback || features.virtual_ip));
        }
        if self.world.is_shared_port(to.port()) {
            return Outcome::Passed(Reason::SharedPort);
        }
        if !socket.is_tcp_or_udp() {
            return Outcome::Passed(Reason::NotTcpOrUdp);
        }
        let always = self.rules.loopback_connect == LoopbackConnect::Own
            || self.world.is_own_port(to.port());
        let found = match own.loopback.filter(|_| always) {
            Some(loopback) => Ok(loopback),
            None => self.find_own(socket, candidates),
        };
        let found = match found {
            Ok(found) => found,
            Err(reason) => return Outcome::Passed(reason),
        };
        let source = match Form::of(to.ip()) {
            // Bound to L, both ends know that 127.0.0.1 was dialled (row 11).
            Form::V4 | Form::Mapped => self.l().filter(|_| Some(found) != own.loopback),
            // From elsewhere, who dials ::1 would be seen as ::ffff:127.0.0.1.
            Form::V6 => self.l6().filter(|_| sockaddr::as_ipv4(found.ip()).is_some()),
        };
        self.to_own(socket, to, found, source.map(IpAddr::V4))
    }

    /// An address of the host itself: what the session's programs bound to it is on V (row 5).
    /// `None` if nothing of theirs listens there.
    fn to_host(&self, socket: &(impl Socket + ?Sized), to: SocketAddr) -> Option<Outcome<Connect>> {
        let ip = sockaddr::as_ipv4(to.ip()).map_or(to.ip(), IpAddr::V4);
        if !self.world.is_host_address(ip) || stays(ip).is_some() {
            return None;
        }
        let [v, v6] = self.own(to).virtual_ip;
        let found = self.find_own(socket, [v, v6, None]).ok()?;
        Some(self.to_own(socket, to, found, Some(found.ip())))
    }

    /// The first of these on which something listens.
    fn find_own(
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
            Protocol::Udp => socket.local().filter(|local| !is_unbound(*local)),
            Protocol::Tcp | Protocol::Other => None,
        };
        match self.world.find_listener(wanted, protocol, from) {
            Listener::None => Err(Reason::NoOwnListener),
            Listener::Unknown => Err(Reason::ListenersUnknown),
            Listener::At(place) => wanted.get(place).copied().ok_or(Reason::ListenersUnknown),
        }
    }

    /// To an address of the session's own in place of the one dialled, from `source` if it must be.
    fn to_own(
        &self,
        socket: &(impl Socket + ?Sized),
        dialled: SocketAddr,
        found: SocketAddr,
        source: Option<IpAddr>,
    ) -> Outcome<Connect> {
        let form = Form::of(dialled.ip());
        let written = |ip: IpAddr| sockaddr::as_ipv4(ip).map_or(ip, |v4| form.write(v4));
        let to = with_ip(dialled, written(found.ip()));
        let crosses = form == Form::V6 && Form::of(to.ip()) == Form::Mapped;
        let mut connect = Connect { bind: None, late_port: false, to, clear_v6only: false };
        if crosses || source.is_some() {
            let Some(local) = socket.local().filter(|local| can_go(socket, *local, to)) else {
                return Outcome::Passed(Reason::NotInet);
            };
            if crosses && Form::of(local.ip()) == Form::V6 && !local.ip().is_unspecified() {
                // Bound to an address of IPv6: it can't reach one of IPv4.
                return Outcome::Passed(Reason::AlreadyBound);
            }
            connect.clear_v6only = crosses && socket.is_v6only();
            let source = source.filter(|_| is_unbound(local));
            connect.bind = source.map(|source| on_socket(local, written(source)));
            connect.late_port = connect.bind.is_some() && socket.protocol() == Protocol::Tcp;
        }
        Outcome::Rewritten(connect)
    }

    fn own(&self, to: SocketAddr) -> Own {
        let at = |ip: IpAddr| SocketAddr::new(ip, to.port());
        let v4 = |ip: Ipv4Addr| at(ip.into());
        match Form::of(to.ip()) {
            Form::V4 | Form::Mapped => {
                Own { loopback: self.l().map(v4), virtual_ip: [self.v().map(v4), None] }
            }
            // A socket that is not one of IPv6 could not be reached by ::1 without the hook.
            Form::V6 => {
                let mapped = |ip: Ipv4Addr| at(ip.to_ipv6_mapped().into());
                Own {
                    loopback: self.l6().map(mapped),
                    virtual_ip: [self.v().map(mapped), self.v6().map(|v6| at(v6.into()))],
                }
            }
        }
    }

    /// Anywhere else: an unbound socket gets the session's virtual IP first (rows 4, 7, 22).
    fn to_outside(&self, socket: &(impl Socket + ?Sized), to: SocketAddr) -> Outcome<Connect> {
        let form = Form::of(to.ip());
        if let Some(reason) = stays(to.ip()) {
            return Outcome::Passed(reason);
        }
        let source = match form {
            Form::V4 | Form::Mapped => self.v().map(|v| form.write(v)),
            Form::V6 => self.v6().map(IpAddr::V6),
        };
        let Some(source) = source else {
            return Outcome::Passed(self.without(self.rules.features.virtual_ip));
        };
        let Some(local) = socket.local().filter(|local| can_go(socket, *local, to)) else {
            return Outcome::Passed(Reason::NotInet);
        };
        // L with no port yet is what an earlier connect of ours left (row 9).
        let ours = local.port() == 0
            && sockaddr::as_ipv4(local.ip())
                .is_some_and(|ip| self.l() == Some(ip) || self.l6() == Some(ip));
        if !is_unbound(local) && !ours {
            return Outcome::Passed(Reason::AlreadyBound);
        }
        let protocol = socket.protocol();
        if protocol == Protocol::Other {
            return Outcome::Passed(Reason::NotTcpOrUdp);
        }
        let source = on_socket(local, source);
        if Form::of(source) == Form::Mapped && socket.is_v6only() {
            return Outcome::Passed(Reason::V6Only);
        }
        let late_port = protocol == Protocol::Tcp;
        Outcome::Rewritten(Connect { bind: Some(source), late_port, to, clear_v6only: false })
    }
}

/// Whether this is an address to which an unbound socket goes from the session's virtual IP, and a
/// bound one as it is. Not so multicast of IPv4, which has an interface too (row 27).
#[inline]
pub(super) fn is_outside(ip: IpAddr) -> bool {
    let is_multicast = sockaddr::as_ipv4(ip).is_some_and(|v4| v4.is_multicast());
    !is_multicast && !is_dialled_loopback(ip) && stays(ip).is_none()
}

/// Why a socket that goes there is not bound first.
#[inline]
fn stays(ip: IpAddr) -> Option<Reason> {
    match (ip, sockaddr::as_ipv4(ip)) {
        (_, Some(v4)) if v4.is_loopback() => Some(Reason::OtherAddress),
        (_, None) if is_of_one_link(ip) => Some(Reason::LinkLocal),
        _ => None,
    }
}

/// Whether the kernel lets a socket with this local address go there: from one of IPv6 a datagram
/// goes to an address of IPv4 as it is, but no stream.
fn can_go(socket: &(impl Socket + ?Sized), local: SocketAddr, to: SocketAddr) -> bool {
    local.is_ipv4() == to.is_ipv4() || local.is_ipv6() && socket.protocol() == Protocol::Udp
}

/// An address as a socket with this local one can be bound to it.
fn on_socket(local: SocketAddr, ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(v4) if local.is_ipv6() => v4.to_ipv6_mapped().into(),
        _ => ip,
    }
}

/// Whether a program that dials this means the host it runs on (row 12: 0.0.0.0 is 127.0.0.1).
fn is_dialled_loopback(ip: IpAddr) -> bool {
    match sockaddr::as_ipv4(ip) {
        Some(v4) => v4 == Ipv4Addr::LOCALHOST || v4.is_unspecified(),
        None => ip == Ipv6Addr::LOCALHOST || ip.is_unspecified(),
    }
}

/// Link-local, or multicast of one link or less, of IPv6 (RFC 4291).
pub(super) fn is_of_one_link(ip: IpAddr) -> bool {
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
