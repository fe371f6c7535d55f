//! The packet information of a datagram: the address at this end and the interface (`IP_PKTINFO`,
//! `IPV6_PKTINFO`).
//!
//! The interface must match the destination. If the destination is a loopback address and the
//! program specifies another interface, the kernel sends the datagram to the network.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::connect::{is_link_scoped, is_local_destination};
use super::{AddressForm, Outcome, Reason, Rewriter, Socket, SystemView, sockaddr};

/// The index of the loopback interface on Linux, Windows and macOS.
const LOOPBACK_INTERFACE: u32 = 1;

/// The packet information of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketInfo {
    /// The source of a datagram to send, or the destination of a received datagram.
    pub address: IpAddr,
    /// The index of the interface. Zero lets the kernel choose the interface.
    pub interface: u32,
}

impl<S: SystemView + ?Sized> Rewriter<'_, S> {
    /// Returns the outcome for the packet information that the program specifies for one datagram.
    /// The source in `info` takes precedence over the bound address (row 24). `destination` is the
    /// rewritten destination of the datagram, if known.
    ///
    /// For a datagram to a loopback address or an address of the session, the kernel chooses the
    /// interface. The interface in `info` belongs to the address that the program requested, not to
    /// its replacement.
    pub fn send_packet_info(
        &self,
        socket: &(impl Socket + ?Sized),
        info: PacketInfo,
        destination: Option<SocketAddr>,
    ) -> Outcome<PacketInfo> {
        if !self.lease_held {
            return Outcome::Passed(Reason::LeaseClosed);
        }
        let destination = destination.map(|destination| destination.ip());
        let stays_on_host = destination.is_some_and(|ip| self.stays_on_host(ip));
        let interface = if stays_on_host { 0 } else { info.interface };
        match self.datagram_source(socket, info.address, destination) {
            Outcome::Rewritten(address) => Outcome::Rewritten(PacketInfo { address, interface }),
            Outcome::Passed(_) if interface != info.interface => {
                Outcome::Rewritten(PacketInfo { interface, ..info })
            }
            Outcome::Passed(reason) => Outcome::Passed(reason),
            Outcome::Refused(refusal) => Outcome::Refused(refusal),
        }
    }

    /// Returns the packet information that the program sees with a received datagram (row 25).
    /// `read_source` returns the source of the datagram, as the kernel reports it. If the program
    /// sees a loopback address, it also sees the loopback interface, so a reply with the same
    /// packet information stays on the host.
    #[must_use]
    pub fn visible_packet_info(
        &self,
        info: PacketInfo,
        read_source: impl FnOnce() -> Option<SocketAddr>,
    ) -> Outcome<PacketInfo> {
        match self.visible_address(SocketAddr::new(info.address, 0), read_source) {
            Outcome::Rewritten(visible) => Outcome::Rewritten(PacketInfo {
                address: visible.ip(),
                interface: LOOPBACK_INTERFACE,
            }),
            Outcome::Passed(reason) => Outcome::Passed(reason),
            Outcome::Refused(refusal) => Outcome::Refused(refusal),
        }
    }

    /// Returns the outcome for the source of one datagram.
    fn datagram_source(
        &self,
        socket: &(impl Socket + ?Sized),
        source: IpAddr,
        destination: Option<IpAddr>,
    ) -> Outcome<IpAddr> {
        let form = AddressForm::of(source);
        let v4 = sockaddr::as_ipv4(source);
        if v4.unwrap_or(Ipv4Addr::UNSPECIFIED).is_loopback() || source.is_loopback() {
            return self.loopback_datagram_source(socket, source, destination);
        }
        let has_mapped_destination =
            destination.is_some_and(|ip| AddressForm::of(ip) == AddressForm::Mapped);
        let is_unspecified = v4.map_or(source.is_unspecified(), |v4| v4.is_unspecified());
        if is_unspecified && destination.is_some_and(|ip| self.stays_on_host(ip)) {
            // The kernel uses the address of the socket as the source. If the destination is
            // IPv4-mapped, the kernel accepts only an IPv4-mapped source in the packet information.
            return if form == AddressForm::Ipv6 && has_mapped_destination {
                Outcome::Rewritten(AddressForm::Mapped.convert(Ipv4Addr::UNSPECIFIED))
            } else {
                Outcome::Passed(Reason::OtherAddress)
            };
        }
        let has_link_destination = destination.is_some_and(is_link_scoped);
        if is_link_scoped(source) || source.is_unspecified() && has_link_destination {
            return Outcome::Passed(Reason::LinkLocal);
        }
        let is_host_source =
            is_unspecified || self.system.is_host_address(v4.map_or(source, IpAddr::V4));
        if !is_host_source || destination.is_some_and(is_loopback) {
            return Outcome::Passed(Reason::OtherAddress);
        }
        let replacement = match form {
            AddressForm::Ipv4 | AddressForm::Mapped => {
                self.virtual_ipv4().map(|v4| form.convert(v4))
            }
            AddressForm::Ipv6 if has_mapped_destination => {
                self.virtual_ipv4().map(|v4| form.convert(v4))
            }
            AddressForm::Ipv6 => self.virtual_ipv6().map(IpAddr::V6),
        };
        match replacement {
            Some(replacement) => Outcome::Rewritten(replacement),
            None => Outcome::Passed(self.missing_address_reason(self.rules.features.virtual_ip)),
        }
    }

    /// Returns the outcome for a loopback address as the source of one datagram.
    fn loopback_datagram_source(
        &self,
        socket: &(impl Socket + ?Sized),
        source: IpAddr,
        destination: Option<IpAddr>,
    ) -> Outcome<IpAddr> {
        let form = AddressForm::of(source);
        let replacement =
            if form == AddressForm::Ipv6 { self.loopback6() } else { self.loopback() };
        let Some(replacement) = replacement.filter(|_| is_local_destination(source)) else {
            return Outcome::Passed(Reason::OtherAddress);
        };
        let local_v4 = socket.local_address().and_then(|local| sockaddr::as_ipv4(local.ip()));
        let source = if local_v4 == Some(replacement) {
            replacement
        } else if let Some(v4) = local_v4
            && self.virtual_ipv4() == Some(v4)
            && destination.is_none_or(|ip| self.stays_on_host(ip))
        {
            // The peer sent to 127.0.0.1, and reached the service on V. The peer accepts an answer
            // only from V.
            v4
        } else if destination.is_some_and(is_local_destination) {
            // A datagram to the host's loopback address keeps the host's loopback source.
            return Outcome::Passed(Reason::OtherAddress);
        } else {
            replacement
        };
        Outcome::Rewritten(form.convert(source))
    }

    /// Returns whether `ip` is a loopback address, the wildcard address or an address of the
    /// session. A datagram to such an address does not leave the host.
    fn stays_on_host(&self, ip: IpAddr) -> bool {
        is_loopback(ip)
            || is_local_destination(ip)
            || self.is_session_address(sockaddr::as_ipv4(ip).map_or(ip, IpAddr::V4))
    }
}

fn is_loopback(ip: IpAddr) -> bool {
    match sockaddr::as_ipv4(ip) {
        Some(v4) => v4.is_loopback(),
        None => ip.is_loopback(),
    }
}
