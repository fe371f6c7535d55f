//! The [`SystemView`] of a running system: the map, the policy in it, and the kernel.

use std::net::{IpAddr, SocketAddr};

use super::{ListenerMatch, Protocol, RewriteRules, SystemView};
use crate::map::Reader;
use crate::os::listeners;
use crate::policy::{PolicyView, ProgramView};
use crate::pool::PoolKind;

/// Who is asked what listens.
pub trait ListenerLookup {
    /// See [`SystemView::find_listener`].
    fn find(
        &self,
        wanted: &[SocketAddr],
        protocol: Protocol,
        from: Option<SocketAddr>,
    ) -> ListenerMatch;
}

/// The kernel of this machine.
#[derive(Clone, Copy, Debug)]
pub struct KernelListeners;

impl ListenerLookup for KernelListeners {
    fn find(
        &self,
        wanted: &[SocketAddr],
        protocol: Protocol,
        from: Option<SocketAddr>,
    ) -> ListenerMatch {
        listeners::find(wanted, protocol, from)
    }
}

/// What there is for a program under one rule of the process list.
#[derive(Clone, Copy, Debug)]
pub struct LiveSystem<'a, L = KernelListeners> {
    /// The map.
    pub reader: &'a Reader,
    /// Its policy.
    pub policy: PolicyView<'a>,
    /// The program's rule in it.
    pub program: ProgramView<'a>,
    /// Who knows what listens.
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
        wanted: &[SocketAddr],
        protocol: Protocol,
        from: Option<SocketAddr>,
    ) -> ListenerMatch {
        self.listeners.find(wanted, protocol, from)
    }
}

impl RewriteRules {
    /// What a policy says of the programs under one of its rules.
    pub fn new(program: &ProgramView<'_>, policy: &PolicyView<'_>) -> Self {
        Self {
            features: program.features(),
            program: program.flags(),
            policy: policy.rewrite_flags(),
            defer_wildcard: cfg!(windows),
        }
    }
}
