//! The outcomes of connect, and of datagrams with a destination (sendto and sendmsg).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::socket::SEARCH_ERROR;
use super::{
    AddressForm, ListenerMatch, Outcome, Protocol, Reason, Refusal, Rewriter, Socket, SystemView,
    is_unbound,
};
use super::{sockaddr, with_ip};
use crate::policy::LoopbackConnect;

/// A rewritten connect, or a rewritten datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connect {
    /// The address to which the hook layer binds the socket first. The port is 0, unless `rebind`
    /// is set.
    pub source: Option<IpAddr>,
    /// Whether this bind leaves the choice of the port to the connect, so that connections to two
    /// destinations can share a port (`IP_BIND_ADDRESS_NO_PORT` of ip(7); row 7).
    pub defer_port: bool,
    /// The destination. It has the family of the program's address.
    pub destination: SocketAddr,
    /// Whether the hook layer clears `IPV6_V6ONLY` first.
    pub clear_v6only: bool,
    /// Whether the hook layer moves the socket from the wildcard address to `source`, with the port
    /// that the socket already has (row 30, see
    /// [`RewriteRules::rebind_datagrams`](super::RewriteRules::rebind_datagrams)).
    pub rebind: bool,
}

/// The session's own addresses that can replace the program's destination.
struct OwnAddresses {
    /// L, or L6 for an IPv6 destination. Only a connect to a loopback address uses it.
    loopback: Option<SocketAddr>,
    /// V, and for an IPv6 destination also the session's IPv6 address.
    virtual_ip: [Option<SocketAddr>; 2],
}

impl<S: SystemView + ?Sized> Rewriter<'_, S> {
    /// Returns the outcome of a connect of a TCP or UDP socket (rows 4, 7 to 12, 14, 22, 28, 32,
    /// 33).
    pub fn connect(
        &self,
        socket: &(impl Socket + ?Sized),
        destination: SocketAddr,
    ) -> Outcome<Connect> {
        if !self.lease_held {
            return Outcome::Passed(Reason::LeaseClosed);
        }
        if is_local_destination(destination.ip()) {
            self.connect_to_loopback(socket, destination)
        } else {
            self.connect_to_host(socket, destination)
                .unwrap_or_else(|| self.connect_externally(socket, destination))
        }
    }

    /// Returns the outcome of a datagram with a destination, or of a send that opens a stream with
    /// `MSG_FASTOPEN` (rows 11b, 22, 28).
    pub fn send(
        &self,
        socket: &(impl Socket + ?Sized),
        destination: SocketAddr,
        is_fast_open: bool,
    ) -> Outcome<Connect> {
        match self.connect(socket, destination) {
            // The kernel ignores the destination of data on a stream, so the hook layer binds
            // nothing and refuses nothing. Only a rewritten TCP connect has `defer_port`.
            Outcome::Rewritten(Connect { defer_port: true, .. }) if !is_fast_open => {
                Outcome::Passed(Reason::Stream)
            }
            Outcome::Refused(_) if !is_fast_open && socket.protocol() == Protocol::Tcp => {
                Outcome::Passed(Reason::Stream)
            }
            outcome => outcome,
        }
    }

    /// Returns the interface for a multicast datagram of a program that has set no interface (row
    /// 27). The value is the address of the interface, as for `IP_MULTICAST_IF`.
    #[must_use]
    pub fn multicast_interface(&self, destination: IpAddr) -> Outcome<Ipv4Addr> {
        if !self.lease_held {
            return Outcome::Passed(Reason::LeaseClosed);
        }
        let is_multicast = sockaddr::as_ipv4(destination).is_some_and(|v4| v4.is_multicast());
        match (is_multicast, self.virtual_ipv4()) {
            (false, _) => Outcome::Passed(Reason::OtherAddress),
            (true, None) => {
                Outcome::Passed(self.missing_address_reason(self.rules.features.virtual_ip))
            }
            (true, Some(v4)) => Outcome::Rewritten(v4),
        }
    }

    /// Returns the outcome of a connect to 127.0.0.1, ::1 or an unspecified address. The session's
    /// own listener takes precedence over the host's listener.
    fn connect_to_loopback(
        &self,
        socket: &(impl Socket + ?Sized),
        destination: SocketAddr,
    ) -> Outcome<Connect> {
        let own_addresses = self.own_addresses(destination);
        let candidates =
            [own_addresses.loopback, own_addresses.virtual_ip[0], own_addresses.virtual_ip[1]];
        if candidates.iter().all(Option::is_none) {
            let features = self.rules.features;
            return Outcome::Passed(
                self.missing_address_reason(features.loopback || features.virtual_ip),
            );
        }
        if self.system.is_shared_port(destination.port()) {
            return Outcome::Passed(Reason::SharedPort);
        }
        if !socket.is_tcp_or_udp() {
            return Outcome::Passed(Reason::NotTcpOrUdp);
        }
        let is_always_own = self.rules.program_flags.loopback_connect == LoopbackConnect::Own
            || self.system.is_own_port(destination.port());
        let listener = match own_addresses.loopback.filter(|_| is_always_own) {
            Some(loopback) => Ok(loopback),
            None => self.find_own_listener(socket, candidates),
        };
        let listener = match (listener, own_addresses.loopback) {
            (Ok(listener), _) => listener,
            // A socket on an IPv4 address cannot reach ::1, so it connects to L6 (row 32).
            (Err(Outcome::Passed(Reason::NoOwnListener)), Some(loopback6))
                if AddressForm::of(destination.ip()) == AddressForm::Ipv6
                    && has_ipv4_address(socket) =>
            {
                loopback6
            }
            (Err(outcome), _) => return outcome,
        };
        let source = match AddressForm::of(destination.ip()) {
            // If the source is L, both ends see the address 127.0.0.1 (row 11).
            AddressForm::Ipv4 | AddressForm::Mapped => {
                self.loopback().filter(|_| Some(listener) != own_addresses.loopback)
            }
            // If the source is L6, both ends see the address ::1 (row 32).
            AddressForm::Ipv6 => {
                self.loopback6().filter(|_| sockaddr::as_ipv4(listener.ip()).is_some())
            }
        };
        self.connect_to_listener(socket, destination, listener, source.map(IpAddr::V4))
    }

    /// Returns the outcome of a connect to an address of the host (row 5). The rewriter changes a
    /// bind to such an address into a bind to V, so the session's own listener is on V.
    ///
    /// Returns `None` if `destination` is not an address of the host, if it is a loopback or
    /// link-scoped address, or if the session has no listener on its port.
    fn connect_to_host(
        &self,
        socket: &(impl Socket + ?Sized),
        destination: SocketAddr,
    ) -> Option<Outcome<Connect>> {
        let ip = sockaddr::as_ipv4(destination.ip()).map_or(destination.ip(), IpAddr::V4);
        if !self.system.is_host_address(ip) || no_bind_reason(ip).is_some() {
            return None;
        }
        let [v4, v6] = self.own_addresses(destination).virtual_ip;
        match self.find_own_listener(socket, [v4, v6, None]) {
            Ok(listener) => {
                Some(self.connect_to_listener(socket, destination, listener, Some(listener.ip())))
            }
            Err(refused @ Outcome::Refused(_)) => Some(refused),
            Err(_) => None,
        }
    }

    /// Returns the first candidate that has a listener. If no candidate has a listener, the error
    /// is [`Outcome::Passed`] with the reason.
    ///
    /// If the kernel does not report the listeners, the connect is refused. A connect that passed
    /// could reach a service of the host although the session has its own service.
    fn find_own_listener(
        &self,
        socket: &(impl Socket + ?Sized),
        candidates: [Option<SocketAddr>; 3],
    ) -> Result<SocketAddr, Outcome<Connect>> {
        let protocol = socket.protocol();
        if protocol == Protocol::Other {
            return Err(Outcome::Passed(Reason::NotTcpOrUdp));
        }
        let Some(first_candidate) = candidates.iter().flatten().next() else {
            return Err(Outcome::Passed(Reason::NoSuchAddress));
        };
        let mut existing_candidates = [*first_candidate; 3];
        let mut candidate_count = 0;
        for (entry, candidate) in existing_candidates.iter_mut().zip(candidates.iter().flatten()) {
            *entry = *candidate;
            candidate_count += 1;
        }
        let existing_candidates = existing_candidates.get(..candidate_count).unwrap_or_default();
        let source = if protocol.is_datagram() {
            socket.local_address().filter(|local| !is_unbound(*local))
        } else {
            None
        };
        let refuse = |error| Outcome::Refused(Refusal::ListenersUnknown { error });
        match self.system.find_listener(existing_candidates, protocol, source) {
            ListenerMatch::NotFound => Err(Outcome::Passed(Reason::NoOwnListener)),
            ListenerMatch::Unknown { error } => Err(refuse(error)),
            ListenerMatch::Index(index) => {
                existing_candidates.get(index).copied().ok_or_else(|| refuse(SEARCH_ERROR))
            }
        }
    }

    /// Returns the outcome of a connect that goes to `listener` instead of `requested`. If the
    /// socket is unbound, the hook layer first binds it to `source`.
    fn connect_to_listener(
        &self,
        socket: &(impl Socket + ?Sized),
        requested: SocketAddr,
        listener: SocketAddr,
        source: Option<IpAddr>,
    ) -> Outcome<Connect> {
        let form = AddressForm::of(requested.ip());
        let to_requested_form =
            |ip: IpAddr| sockaddr::as_ipv4(ip).map_or(ip, |v4| form.convert(v4));
        let destination = with_ip(requested, to_requested_form(listener.ip()));
        let is_ipv6_to_mapped =
            form == AddressForm::Ipv6 && AddressForm::of(destination.ip()) == AddressForm::Mapped;
        let mut connect = Connect {
            source: None,
            defer_port: false,
            destination,
            clear_v6only: false,
            rebind: false,
        };
        if is_ipv6_to_mapped || source.is_some() {
            let Some(local) =
                socket.local_address().filter(|local| can_reach(socket, *local, destination))
            else {
                return Outcome::Passed(Reason::NotInet);
            };
            if is_ipv6_to_mapped
                && AddressForm::of(local.ip()) == AddressForm::Ipv6
                && !local.ip().is_unspecified()
            {
                // A socket that is bound to an IPv6 address cannot reach an IPv4 address.
                return Outcome::Passed(Reason::AlreadyBound);
            }
            connect.clear_v6only = is_ipv6_to_mapped && socket.is_v6only();
            let source = source.filter(|_| is_unbound(local));
            connect.source =
                source.map(|source| to_socket_family(local, to_requested_form(source)));
            connect.defer_port = connect.source.is_some() && socket.protocol() == Protocol::Tcp;
        }
        Outcome::Rewritten(connect)
    }

    /// Returns the session's own addresses with the port of `destination`.
    fn own_addresses(&self, destination: SocketAddr) -> OwnAddresses {
        let with_port = |ip: IpAddr| SocketAddr::new(ip, destination.port());
        match AddressForm::of(destination.ip()) {
            AddressForm::Ipv4 | AddressForm::Mapped => {
                let v4 = |ip: Ipv4Addr| with_port(ip.into());
                OwnAddresses {
                    loopback: self.loopback().map(v4),
                    virtual_ip: [self.virtual_ipv4().map(v4), None],
                }
            }
            // Mapped candidates match only IPv6 listeners. Without the hook, a connect to ::1 also
            // reaches only IPv6 listeners.
            AddressForm::Ipv6 => {
                let mapped = |ip: Ipv4Addr| with_port(ip.to_ipv6_mapped().into());
                OwnAddresses {
                    loopback: self.loopback6().map(mapped),
                    virtual_ip: [
                        self.virtual_ipv4().map(mapped),
                        self.virtual_ipv6().map(|v6| with_port(v6.into())),
                    ],
                }
            }
        }
    }

    /// Returns the outcome of a connect that keeps the program's destination. The hook layer binds
    /// an unbound socket to the session's virtual IP first (rows 4, 7, 22).
    fn connect_externally(
        &self,
        socket: &(impl Socket + ?Sized),
        destination: SocketAddr,
    ) -> Outcome<Connect> {
        let form = AddressForm::of(destination.ip());
        if let Some(reason) = no_bind_reason(destination.ip()) {
            return Outcome::Passed(reason);
        }
        let source = match form {
            AddressForm::Ipv4 | AddressForm::Mapped => {
                self.virtual_ipv4().map(|v4| form.convert(v4))
            }
            AddressForm::Ipv6 => self.virtual_ipv6().map(IpAddr::V6),
        };
        let Some(source) = source else {
            return Outcome::Passed(self.missing_address_reason(self.rules.features.virtual_ip));
        };
        let Some(local) =
            socket.local_address().filter(|local| can_reach(socket, *local, destination))
        else {
            return Outcome::Passed(Reason::NotInet);
        };
        // If a rewritten connect fails, the socket stays bound to L without a port (row 9).
        let is_left_on_loopback = local.port() == 0
            && sockaddr::as_ipv4(local.ip())
                .is_some_and(|ip| self.loopback() == Some(ip) || self.loopback6() == Some(ip));
        let rebind = self.is_rebindable(socket, local);
        if !is_unbound(local) && !is_left_on_loopback && !rebind {
            return Outcome::Passed(Reason::AlreadyBound);
        }
        let protocol = socket.protocol();
        if protocol == Protocol::Other {
            return Outcome::Passed(Reason::NotTcpOrUdp);
        }
        let source = to_socket_family(local, source);
        if AddressForm::of(source) == AddressForm::Mapped && socket.is_v6only() {
            return Outcome::Passed(Reason::V6Only);
        }
        let defer_port = protocol == Protocol::Tcp;
        Outcome::Rewritten(Connect {
            source: Some(source),
            defer_port,
            destination,
            clear_v6only: false,
            rebind,
        })
    }

    /// Returns whether the hook layer tries to bind this socket again, to the session's virtual IP.
    ///
    /// The first bind of an IPv6 datagram socket can keep the wildcard address, because the family
    /// of the destinations is unknown (row 30). If the program chose the port, the second bind
    /// fails, and the socket stays as it is.
    fn is_rebindable(&self, socket: &(impl Socket + ?Sized), local: SocketAddr) -> bool {
        self.rules.rebind_datagrams
            && local.is_ipv6()
            && local.ip().is_unspecified()
            && local.port() != 0
            && socket.protocol().is_datagram()
            && !self.system.is_wildcard_udp_port(local.port())
            && !socket.can_share_port()
    }
}

/// Returns whether the hook layer binds an unbound socket to the session's virtual IP before the
/// socket connects to this address. Returns false for IPv4 multicast, because the hook layer also
/// sets the interface before such a call (row 27).
#[inline]
pub(super) fn is_external(ip: IpAddr) -> bool {
    let is_multicast = sockaddr::as_ipv4(ip).is_some_and(|v4| v4.is_multicast());
    !is_multicast && !is_local_destination(ip) && no_bind_reason(ip).is_none()
}

/// Returns the reason why the hook layer does not bind a socket before the socket connects to this
/// destination.
#[inline]
fn no_bind_reason(ip: IpAddr) -> Option<Reason> {
    match (ip, sockaddr::as_ipv4(ip)) {
        (_, Some(v4)) if v4.is_loopback() => Some(Reason::OtherAddress),
        (_, None) if is_link_scoped(ip) => Some(Reason::LinkLocal),
        _ => None,
    }
}

/// Returns whether the kernel lets a socket with this local address use the destination. An IPv6
/// socket can send datagrams to an IPv4 sockaddr, but cannot open a stream to an IPv4 sockaddr.
fn can_reach(socket: &(impl Socket + ?Sized), local: SocketAddr, destination: SocketAddr) -> bool {
    local.is_ipv4() == destination.is_ipv4() || local.is_ipv6() && socket.protocol().is_datagram()
}

/// Returns whether an IPv6 socket is bound to an IPv4 address, and therefore cannot reach an IPv6
/// destination.
fn has_ipv4_address(socket: &(impl Socket + ?Sized)) -> bool {
    socket.local_address().is_some_and(|local| AddressForm::of(local.ip()) == AddressForm::Mapped)
}

/// Returns the address in the family of the socket. `local` is the local address of the socket.
fn to_socket_family(local: SocketAddr, ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(v4) if local.is_ipv6() => v4.to_ipv6_mapped().into(),
        _ => ip,
    }
}

/// Returns whether this destination is 127.0.0.1, ::1 or the wildcard address. The kernel treats
/// 0.0.0.0 as 127.0.0.1, and :: as ::1 (row 12).
pub(super) fn is_local_destination(ip: IpAddr) -> bool {
    match sockaddr::as_ipv4(ip) {
        Some(v4) => v4 == Ipv4Addr::LOCALHOST || v4.is_unspecified(),
        None => ip == Ipv6Addr::LOCALHOST || ip.is_unspecified(),
    }
}

/// Returns whether an IPv6 address is link-local, or multicast with link scope or less (RFC 4291).
pub(super) fn is_link_scoped(ip: IpAddr) -> bool {
    let IpAddr::V6(ip) = ip else { return false };
    let [high, low, ..] = ip.octets();
    ip.is_unicast_link_local() || high == 0xff && low & 0x0f <= 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_multicast_and_link_scope_are_not_external() {
        for (text, expected) in [
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
            assert_eq!(is_external(text.parse().unwrap()), expected, "{text}");
        }
    }
}
