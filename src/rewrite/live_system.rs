//! The [`SystemView`] of a running system: the map, its policy, and the kernel.

use std::net::{IpAddr, SocketAddr};

use super::{ListenerMatch, Protocol, RewriteRules, SystemView};
use crate::map::Reader;
use crate::os::listeners;
use crate::policy::{PolicyView, ProgramView};
use crate::pool::PoolKind;

/// A source of information about listening sockets.
pub trait ListenerLookup {
    /// Finds a listener, see [`SystemView::find_listener`].
    fn find(
        &self,
        candidates: &[SocketAddr],
        protocol: Protocol,
        source: Option<SocketAddr>,
    ) -> ListenerMatch;
}

/// Finds listeners through a query to the kernel of this machine.
#[derive(Clone, Copy, Debug)]
pub struct KernelListeners;

impl ListenerLookup for KernelListeners {
    fn find(
        &self,
        candidates: &[SocketAddr],
        protocol: Protocol,
        source: Option<SocketAddr>,
    ) -> ListenerMatch {
        listeners::find(candidates, protocol, source)
    }
}

/// The state that decides the calls of one program: map, policy, rule and listening sockets.
#[derive(Clone, Copy, Debug)]
pub struct LiveSystem<'a, L = KernelListeners> {
    /// The map.
    pub reader: &'a Reader,
    /// The policy of the map.
    pub policy: PolicyView<'a>,
    /// The rule that matches the program.
    pub program: ProgramView<'a>,
    /// The source of information about listening sockets.
    pub listeners: L,
}

impl<L: ListenerLookup> SystemView for LiveSystem<'_, L> {
    fn is_own_port(&self, port: u16) -> bool {
        self.program.is_own_port(port)
    }

    fn is_shared_port(&self, port: u16) -> bool {
        self.program.is_shared_port(port)
    }

    fn is_wildcard_udp_port(&self, port: u16) -> bool {
        self.policy.is_wildcard_udp_port(port)
    }

    fn is_host_address(&self, address: IpAddr) -> bool {
        self.policy.is_host_address(address)
    }

    fn pool_kind(&self, address: IpAddr) -> Option<PoolKind> {
        self.reader.pool_kind(address)
    }

    fn find_listener(
        &self,
        candidates: &[SocketAddr],
        protocol: Protocol,
        source: Option<SocketAddr>,
    ) -> ListenerMatch {
        self.listeners.find(candidates, protocol, source)
    }
}

impl RewriteRules {
    /// Returns the settings for a program that matches the rule `program` of `policy`.
    #[must_use]
    pub fn new(program: &ProgramView<'_>, policy: &PolicyView<'_>) -> Self {
        Self {
            features: program.features(),
            program_flags: program.flags(),
            rewrite_flags: policy.rewrite_flags(),
            defer_wildcard: cfg!(windows),
            rebind_datagrams: cfg!(target_os = "linux"),
        }
    }
}
