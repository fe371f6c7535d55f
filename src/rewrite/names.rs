//! What a program is shown: names of sockets, sources of datagrams, the host's own name, and the
//! list of interfaces.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{AddressForm, Outcome, Reason, Rewriter, SystemView, sockaddr, with_ip};
use crate::pool::PoolKind;
use crate::session::Addresses;

/// The addresses that the host's own name stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostNameAddresses {
    /// In place of its IPv4 addresses.
    pub v4: Option<Ipv4Addr>,
    /// In place of its IPv6 addresses.
    pub v6: Option<Ipv6Addr>,
}

impl<W: SystemView + ?Sized> Rewriter<'_, W> {
    /// How one end of a socket is shown (getsockname, getpeername, accept, and the source of
    /// recvfrom and recvmsg; rows 1, 17 to 20, 25, 32, 33). `other` gives the other end, and is
    /// asked only where that matters: V is shown as V, but paired with the session's own L it is
    /// what a dialled 127.0.0.1 became. The other end of a received datagram is the socket's own.
    #[inline]
    pub fn visible_address(
        &self,
        end: SocketAddr,
        other: impl FnOnce() -> Option<SocketAddr>,
    ) -> Outcome<SocketAddr> {
        let Some(ip) = sockaddr::as_ipv4(end.ip()) else {
            return Outcome::Passed(Reason::ShownAsIs);
        };
        let aliased_loopback = self.aliased_loopback(ip).or_else(|| {
            self.loopback()?;
            // A socket that was on the wildcard address when it dialled ::1 comes from 127.0.0.1.
            let may_be_v6 =
                ip == Ipv4Addr::LOCALHOST && end.is_ipv6() && self.loopback6().is_some();
            if self.virtual_ipv4() != Some(ip) && !may_be_v6 {
                return None;
            }
            self.aliased_loopback(sockaddr::as_ipv4(other()?.ip())?)
        });
        match (aliased_loopback, end) {
            (None, _) => Outcome::Passed(Reason::ShownAsIs),
            (Some(Loopback::V6), SocketAddr::V6(_)) => {
                Outcome::Rewritten(with_ip(end, Ipv6Addr::LOCALHOST.into()))
            }
            (Some(_), _) => Outcome::Rewritten(with_ip(
                end,
                AddressForm::of(end.ip()).convert(Ipv4Addr::LOCALHOST),
            )),
        }
    }

    /// Whether a connection to this address, as the kernel is told it, may become one of which an
    /// end is shown otherwise only because of the other: there is none where it goes elsewhere.
    /// Whatever the program may use of the session's addresses by now.
    #[inline]
    pub fn may_form_loopback_pair(&self, to: SocketAddr) -> bool {
        let Addresses { v4, loopback, loopback6, .. } = self.addresses;
        sockaddr::as_ipv4(to.ip()).is_some_and(|ip| [v4, loopback, loopback6].contains(&Some(ip)))
    }

    /// How an address without a port is shown: in a received `IP_PKTINFO`, or to a look-up of its
    /// name (rows 25, 42).
    pub fn visible_ip(&self, ip: IpAddr) -> Outcome<IpAddr> {
        match self.visible_address(SocketAddr::new(ip, 0), || None) {
            Outcome::Rewritten(shown) => Outcome::Rewritten(shown.ip()),
            Outcome::Passed(reason) => Outcome::Passed(reason),
            Outcome::Refused(refusal) => Outcome::Refused(refusal),
        }
    }

    /// What the host's own name stands for (row 40): V, or the address of the session's client
    /// where the program has that feature.
    pub fn resolve_host_name(&self, client: Option<IpAddr>) -> Outcome<HostNameAddresses> {
        if !self.lease_held {
            return Outcome::Passed(Reason::LeaseClosed);
        }
        let features = self.rules.features;
        let addresses = match client.filter(|_| features.client_ip) {
            Some(IpAddr::V4(v4)) => HostNameAddresses { v4: Some(v4), v6: None },
            Some(IpAddr::V6(v6)) => HostNameAddresses { v4: v6.to_ipv4_mapped(), v6: Some(v6) },
            None => HostNameAddresses { v4: self.virtual_ipv4(), v6: self.virtual_ipv6() },
        };
        if addresses == HostNameAddresses::default() {
            return Outcome::Passed(
                self.missing_address_reason(features.virtual_ip || features.client_ip),
            );
        }
        Outcome::Rewritten(addresses)
    }

    /// Whether the name of this address is the host's own name (row 42).
    pub fn is_virtual_ip(&self, ip: IpAddr) -> bool {
        match sockaddr::as_ipv4(ip) {
            Some(v4) => self.virtual_ipv4() == Some(v4),
            None => self.virtual_ipv6().map(IpAddr::V6) == Some(ip),
        }
    }

    /// Whether an address of an interface is left out of the list that a program gets (row 43).
    pub fn is_hidden(&self, ip: IpAddr) -> bool {
        self.lease_held
            && self.rules.policy.hide_addresses
            && !self.is_virtual_ip(ip)
            && self.system.pool_kind(ip) == Some(PoolKind::VirtualIp)
    }

    fn aliased_loopback(&self, ip: Ipv4Addr) -> Option<Loopback> {
        if self.loopback() == Some(ip) {
            Some(Loopback::V4)
        } else if self.loopback6() == Some(ip) {
            Some(Loopback::V6)
        } else {
            None
        }
    }
}

/// Which loopback address of the host one of the session's own stands for.
#[derive(Clone, Copy)]
enum Loopback {
    V4,
    V6,
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Values, rewriter};

    /// Of no other destination can the far end of a socket change how its near end is shown.
    #[test]
    fn pairs_come_of_connections_within_the_session() {
        let system = Values::default();
        let mut rewriter = rewriter(&system);
        let own = ["10.0.5.7:80", "127.3.4.5:80", "127.131.4.5:80", "[::ffff:10.0.5.7]:80"];
        let others = ["127.0.0.1:80", "10.0.5.8:80", "192.0.2.9:80", "[::1]:80", "[fd00::7]:80"];
        for virtual_ip in [true, false] {
            // What the program may use by now does not matter: that may change.
            rewriter.rules.features.virtual_ip = virtual_ip;
            for (to, joins) in
                own.map(|to| (to, true)).into_iter().chain(others.map(|to| (to, false)))
            {
                assert_eq!(rewriter.may_form_loopback_pair(to.parse().unwrap()), joins, "{to}");
            }
        }
    }
}
