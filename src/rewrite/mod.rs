//! Rewrites the addresses in the socket calls of listed programs.
//!
//! This module decides for all hook layers how a call is rewritten. It has one function for each
//! kind of call. A hook layer reads the arguments of a call, passes them to a [`Rewriter`] and
//! makes the original call according to the [`Outcome`]. `docs/socket-matrix.md` specifies all
//! decisions in a table. A comment such as "row 5" refers to a row of that table.
//!
//! V is the session's virtual IP. L and L6 are the session's loopback addresses: L replaces
//! 127.0.0.1, and L6 replaces ::1. The wildcard address is 0.0.0.0 or ::.
//!
//! Invariants:
//! - This module keeps no state for a socket.
//! - A decision never allocates, blocks or panics.
//! - No socket uses L or L6 as its source to reach another host.

mod bind;
mod connect;
pub mod control_message;
#[cfg(not(loom))]
mod hooked_process;
mod live_system;
mod names;
mod outcome;
mod packet_info;
pub mod sockaddr;
mod socket;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

pub use bind::Bind;
pub use connect::Connect;
#[cfg(not(loom))]
pub use hooked_process::HookedProcess;
pub use live_system::{KernelListeners, ListenerLookup, LiveSystem};
pub use names::HostNameAddresses;
pub use outcome::{Outcome, Reason, Refusal};
pub use packet_info::PacketInfo;
pub use socket::{ListenerMatch, Protocol, Socket, SocketProperties};

use crate::policy::{Features, ProgramFlags, RewriteFlags};
use crate::pool::PoolKind;
use crate::session::Addresses;

/// The settings of the policy for one program. The [`SystemView`] has the port lists of the
/// program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RewriteRules {
    /// The parts of vipool that the program uses.
    pub features: Features,
    /// The flags of the rule that matches the program.
    pub program_flags: ProgramFlags,
    /// The flags for all listed programs.
    pub rewrite_flags: RewriteFlags,
    /// Whether a TCP bind to the wildcard address and port 0 is deferred until the destination is
    /// known. Windows needs this setting (row 46), see [`Bind::defer`].
    pub defer_wildcard: bool,
    /// Whether the hook layer can bind a datagram socket a second time if the kernel chose the
    /// port, see [`Connect::rebind`].
    pub rebind_datagrams: bool,
}

/// The state outside the socket that a decision depends on: ports and host addresses of the policy,
/// the pools, and listening sockets.
pub trait SystemView {
    /// Returns whether connects to this loopback port always use L.
    fn is_own_port(&self, port: u16) -> bool;
    /// Returns whether this loopback port belongs to the host. Binds and connects to it are never
    /// rewritten.
    fn is_shared_port(&self, port: u16) -> bool;
    /// Returns whether a UDP bind to the wildcard address and this port stays unchanged (row 26).
    fn is_wildcard_udp_port(&self, port: u16) -> bool;
    /// Returns whether this is the host's own address on an interface that a range belongs to (row
    /// 5).
    fn is_host_address(&self, address: IpAddr) -> bool;
    /// Returns the kind of the pool that contains the address.
    fn pool_kind(&self, address: IpAddr) -> Option<PoolKind>;
    /// Finds the first candidate to which a socket is bound: a listening TCP socket, or a UDP
    /// socket. A socket that is bound to the wildcard address does not count.
    ///
    /// An IPv4 candidate also matches an IPv6 socket on the mapped address. A mapped candidate
    /// matches only an IPv6 socket. `source` is the source of a datagram, if known. A UDP socket
    /// that is connected to `source` matches too.
    fn find_listener(
        &self,
        candidates: &[SocketAddr],
        protocol: Protocol,
        source: Option<SocketAddr>,
    ) -> ListenerMatch;
}

/// Decides how the socket calls of one program in one session are rewritten.
#[derive(Clone, Copy, Debug)]
pub struct Rewriter<'s, S: ?Sized> {
    /// The addresses of the session. Each address may be missing.
    pub addresses: Addresses,
    /// The settings of the policy for the program.
    pub rules: RewriteRules,
    /// Whether the session still holds its lease. Without the lease, new binds and connects pass,
    /// but the program still sees the addresses of existing sockets as before.
    pub lease_held: bool,
    /// The state outside the socket.
    pub system: &'s S,
}

impl<S: SystemView + ?Sized> Rewriter<'_, S> {
    /// Returns whether the hook layer repeats a call with the program's original address after the
    /// call with `address` failed with `EADDRNOTAVAIL` (row 6).
    #[must_use]
    pub fn retries_original(&self, address: IpAddr) -> bool {
        self.rules.rewrite_flags.pass_when_missing && self.is_virtual_ip(address)
    }

    fn virtual_ipv4(&self) -> Option<Ipv4Addr> {
        self.addresses.v4.filter(|_| self.rules.features.virtual_ip)
    }

    fn virtual_ipv6(&self) -> Option<Ipv6Addr> {
        self.addresses.v6.filter(|_| self.rules.features.virtual_ip)
    }

    fn loopback(&self) -> Option<Ipv4Addr> {
        self.addresses.loopback.filter(|_| self.rules.features.loopback)
    }

    fn loopback6(&self) -> Option<Ipv4Addr> {
        self.addresses.loopback6.filter(|_| self.rules.features.loopback)
    }

    /// Returns the reason why an address is missing. `is_feature_on` states whether the program
    /// uses the feature that needs this address.
    fn missing_address_reason(&self, is_feature_on: bool) -> Reason {
        if is_feature_on { Reason::NoSuchAddress } else { Reason::FeatureOff }
    }
}

/// The form of an address. The replacement of an `Ipv4` or `Mapped` address has the same form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AddressForm {
    /// An IPv4 address.
    Ipv4,
    /// An IPv4-mapped IPv6 address.
    Mapped,
    /// Any other IPv6 address.
    Ipv6,
}

impl AddressForm {
    fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => AddressForm::Ipv4,
            IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => AddressForm::Mapped,
            IpAddr::V6(_) => AddressForm::Ipv6,
        }
    }

    /// Returns the IPv4 address in this form. For `Ipv6`, the result is an IPv4-mapped address.
    fn convert(self, address: Ipv4Addr) -> IpAddr {
        match self {
            AddressForm::Ipv4 => address.into(),
            AddressForm::Mapped | AddressForm::Ipv6 => address.to_ipv6_mapped().into(),
        }
    }
}

/// Returns `address` with `ip`, which has the same family. Keeps port, flow label and scope.
fn with_ip(address: SocketAddr, ip: IpAddr) -> SocketAddr {
    let mut changed = address;
    changed.set_ip(ip);
    changed
}

fn is_unbound(local_address: SocketAddr) -> bool {
    local_address.port() == 0 && local_address.ip().is_unspecified()
}
