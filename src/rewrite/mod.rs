//! What becomes of the address in each socket call of a listed program.
//!
//! Everything that decides is here, for every platform and every hook layer: functions over plain
//! values, one per kind of call. A hook layer reads the program's arguments, asks a [`Rewriter`],
//! and makes the original call. `docs/socket-matrix.md` is the contract; comments name its rows.
//!
//! Invariants: nothing is kept per socket; nothing allocates, blocks or panics; V is the session's
//! virtual IP, L and L6 are loopback addresses of its own, and they never meet the outside.

mod bind;
mod connect;
pub mod control_message;
#[cfg(not(loom))]
mod hooked_process;
mod live_system;
mod names;
mod outcome;
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
pub use socket::{ListenerMatch, Protocol, Socket, SocketProperties};

use crate::policy::{Features, ProgramFlags, RewriteFlags};
use crate::pool::PoolKind;
use crate::session::Addresses;

/// What the policy says of one program, without its lists of ports (see [`SystemView`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RewriteRules {
    /// Which parts of vipool the program uses.
    pub features: Features,
    /// The flags of the rule that the program is under.
    pub program: ProgramFlags,
    /// The flags for all listed programs.
    pub policy: RewriteFlags,
    /// Whether TCP binds to 0.0.0.0:0 are put off until the destination is known, as Windows
    /// needs it (row 46); see [`Bind::defer`].
    pub defer_wildcard: bool,
}

/// What a decision may want to know beside the socket: the lists of the policy, the pools, and
/// what listens.
pub trait SystemView {
    /// Whether this loopback port always goes to the session's own address.
    fn is_own_port(&self, port: u16) -> bool;
    /// Whether this loopback port is left alone: it is the host's.
    fn is_shared_port(&self, port: u16) -> bool;
    /// Whether a wildcard bind of UDP to this port stays wildcard (row 26).
    fn is_wildcard_udp_port(&self, port: u16) -> bool;
    /// Whether this is an address of the host itself on a matched interface (row 5).
    fn is_host_address(&self, address: IpAddr) -> bool;
    /// Whether an address is one of the pools', and of which kind.
    fn pool_kind(&self, address: IpAddr) -> Option<PoolKind>;
    /// Which of these addresses, in this order, has a socket of its own: TCP listening, UDP bound.
    /// A wildcard socket is none. An IPv4 address is met by an IPv6 socket on its mapped form too;
    /// a mapped one only by an IPv6 socket. `from` is where a datagram would come from, if that is
    /// known: it reaches sockets connected to there too.
    fn find_listener(
        &self,
        wanted: &[SocketAddr],
        protocol: Protocol,
        from: Option<SocketAddr>,
    ) -> ListenerMatch;
}

/// Decides for the calls of one program in one session.
#[derive(Clone, Copy, Debug)]
pub struct Rewriter<'w, W: ?Sized> {
    /// The addresses of the session; any may be missing.
    pub addresses: Addresses,
    /// What the policy says of the program.
    pub rules: RewriteRules,
    /// Whether the session's lease is still held. If not, addresses are still shown as before, but
    /// new binds and connects pass.
    pub lease_held: bool,
    /// What else there is.
    pub system: &'w W,
}

impl<W: SystemView + ?Sized> Rewriter<'_, W> {
    /// Whether a call that was rewritten to `address` and failed because the address is on no
    /// interface (`EADDRNOTAVAIL`) is made again as the program meant it (row 6).
    pub fn retries_original(&self, address: IpAddr) -> bool {
        let virtual_ip = match sockaddr::as_ipv4(address) {
            Some(v4) => self.virtual_ipv4() == Some(v4),
            None => self.virtual_ipv6().map(IpAddr::V6) == Some(address),
        };
        self.rules.policy.pass_when_missing && virtual_ip
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

    /// Why there is no address of a kind whose feature is on or off.
    fn missing_address_reason(&self, feature: bool) -> Reason {
        if feature { Reason::NoSuchAddress } else { Reason::FeatureOff }
    }
}

/// How an address is written: what stands for it must be written the same way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AddressForm {
    /// As IPv4.
    Ipv4,
    /// As IPv4 within IPv6.
    Mapped,
    /// As IPv6.
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

    /// An IPv4 address as an address of the same family.
    fn convert(self, address: Ipv4Addr) -> IpAddr {
        match self {
            AddressForm::Ipv4 => address.into(),
            AddressForm::Mapped | AddressForm::Ipv6 => address.to_ipv6_mapped().into(),
        }
    }
}

/// The same address with another host: port, flow and scope stay.
fn with_ip(address: SocketAddr, ip: IpAddr) -> SocketAddr {
    let mut changed = address;
    changed.set_ip(ip);
    changed
}

fn is_unbound(local: SocketAddr) -> bool {
    local.port() == 0 && local.ip().is_unspecified()
}
