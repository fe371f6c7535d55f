//! The addresses that a program sees: for its sockets, as sources of datagrams, for the host's own
//! name, and in lists of interfaces.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{AddressForm, Outcome, Reason, Rewriter, SystemView, sockaddr, with_ip};
use crate::pool::PoolKind;
use crate::session::Addresses;

/// The addresses to which the host's own name resolves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostNameAddresses {
    /// The replacement for the IPv4 addresses of the host.
    pub v4: Option<Ipv4Addr>,
    /// The replacement for the IPv6 addresses of the host.
    pub v6: Option<Ipv6Addr>,
}

impl<S: SystemView + ?Sized> Rewriter<'_, S> {
    /// Returns the address that the program sees for one end of a socket: in getsockname,
    /// getpeername and accept, and as the source of a received datagram (rows 1, 17 to 20, 25, 32,
    /// 33).
    ///
    /// `read_other_end` returns the address of the other end. This method calls `read_other_end`
    /// only if the result depends on the other end. The program normally sees V as V. If the other
    /// end is the session's own L, the connection was made to 127.0.0.1, so the program sees
    /// 127.0.0.1 instead of V. For a received datagram, the other end is the socket's own address.
    #[inline]
    pub fn visible_address(
        &self,
        address: SocketAddr,
        read_other_end: impl FnOnce() -> Option<SocketAddr>,
    ) -> Outcome<SocketAddr> {
        let Some(ip) = sockaddr::as_ipv4(address.ip()) else {
            return Outcome::Passed(Reason::VisibleUnchanged);
        };
        let host_loopback = self.replaced_loopback(ip).or_else(|| {
            self.loopback()?;
            // If a socket without a source address connects to L6 in place of ::1, the kernel
            // selects the source 127.0.0.1.
            let may_represent_ipv6 =
                ip == Ipv4Addr::LOCALHOST && address.is_ipv6() && self.loopback6().is_some();
            if self.virtual_ipv4() != Some(ip) && !may_represent_ipv6 {
                return None;
            }
            self.replaced_loopback(sockaddr::as_ipv4(read_other_end()?.ip())?)
        });
        match (host_loopback, address) {
            (None, _) => Outcome::Passed(Reason::VisibleUnchanged),
            (Some(HostLoopback::Ipv6), SocketAddr::V6(_)) => {
                Outcome::Rewritten(with_ip(address, Ipv6Addr::LOCALHOST.into()))
            }
            (Some(_), _) => {
                let form = AddressForm::of(address.ip());
                Outcome::Rewritten(with_ip(address, form.convert(Ipv4Addr::LOCALHOST)))
            }
        }
    }

    /// Returns whether a connection to `destination` can connect two addresses of the session.
    /// `destination` is the address that the hook layer passes to the kernel.
    ///
    /// If the result is false, the address that the program sees for one end does not depend on the
    /// other end, so the hook layer need not record the connection.
    ///
    /// The result does not depend on the features of the program, because a later map can change
    /// them.
    #[inline]
    #[must_use]
    pub fn may_form_loopback_pair(&self, destination: SocketAddr) -> bool {
        let Addresses { v4, loopback, loopback6, .. } = self.addresses;
        sockaddr::as_ipv4(destination.ip())
            .is_some_and(|ip| [v4, loopback, loopback6].contains(&Some(ip)))
    }

    /// Returns the address that a reverse lookup uses instead of `ip` (row 42): 127.0.0.1 or ::1,
    /// if `ip` is the session's L or L6.
    #[must_use]
    pub fn visible_ip(&self, ip: IpAddr) -> Outcome<IpAddr> {
        match self.visible_address(SocketAddr::new(ip, 0), || None) {
            Outcome::Rewritten(visible) => Outcome::Rewritten(visible.ip()),
            Outcome::Passed(reason) => Outcome::Passed(reason),
            Outcome::Refused(refusal) => Outcome::Refused(refusal),
        }
    }

    /// Returns the addresses to which the host's own name resolves (row 40).
    ///
    /// `client` is the address of the session's client, if known. The result is `client` if the
    /// program has the feature `client-ip`, else V.
    #[must_use]
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

    /// Returns whether this is the session's virtual IP. A reverse lookup of the virtual IP returns
    /// the host's own name (row 42).
    pub fn is_virtual_ip(&self, ip: IpAddr) -> bool {
        match sockaddr::as_ipv4(ip) {
            Some(v4) => self.virtual_ipv4() == Some(v4),
            None => self.virtual_ipv6().map(IpAddr::V6) == Some(ip),
        }
    }

    /// Returns whether the hook layer removes this address from lists of interfaces (row 43).
    #[must_use]
    pub fn is_hidden(&self, ip: IpAddr) -> bool {
        self.lease_held
            && self.rules.rewrite_flags.hide_addresses
            && !self.is_virtual_ip(ip)
            && self.system.pool_kind(ip) == Some(PoolKind::VirtualIp)
    }

    /// Returns the host's loopback address that the session's address `ip` replaces.
    fn replaced_loopback(&self, ip: Ipv4Addr) -> Option<HostLoopback> {
        if self.loopback() == Some(ip) {
            Some(HostLoopback::Ipv4)
        } else if self.loopback6() == Some(ip) {
            Some(HostLoopback::Ipv6)
        } else {
            None
        }
    }
}

/// A loopback address of the host.
#[derive(Clone, Copy)]
enum HostLoopback {
    /// 127.0.0.1.
    Ipv4,
    /// ::1.
    Ipv6,
}

#[cfg(test)]
mod tests {
    use super::super::tests::{TestSystem, rewriter};

    #[test]
    fn only_connections_within_the_session_form_pairs() {
        let system = TestSystem::default();
        let mut rewriter = rewriter(&system);
        let session_addresses =
            ["10.0.5.7:80", "127.3.4.5:80", "127.131.4.5:80", "[::ffff:10.0.5.7]:80"];
        let other_addresses =
            ["127.0.0.1:80", "10.0.5.8:80", "192.0.2.9:80", "[::1]:80", "[fd00::7]:80"];
        for virtual_ip in [true, false] {
            rewriter.rules.features.virtual_ip = virtual_ip;
            for (addresses, may_form_pair) in
                [(&session_addresses[..], true), (&other_addresses[..], false)]
            {
                for address in addresses {
                    let destination = address.parse().unwrap();
                    assert_eq!(
                        rewriter.may_form_loopback_pair(destination),
                        may_form_pair,
                        "{address}"
                    );
                }
            }
        }
    }
}
