//! Tests the rows of docs/socket-matrix.md. The tests make no system calls.
//!
//! This module holds the system with fixed results, the helpers, and the test of the names of the
//! reasons. Each child module tests the rows of one topic.

mod binds;
mod connects;
mod datagrams;
mod ipv6;
mod visible;

use super::*;
use crate::policy::{Features, LoopbackConnect, WildcardBind};

const V: &str = "10.0.5.7";
const L: &str = "127.3.4.5";

/// A system with fixed results in place of the map and the kernel.
#[derive(Default)]
pub(super) struct TestSystem {
    listeners: Vec<SocketAddr>,
    is_kernel_failing: bool,
}

impl SystemView for TestSystem {
    fn is_own_port(&self, port: u16) -> bool {
        port == 7000
    }
    fn is_shared_port(&self, port: u16) -> bool {
        port == 631
    }
    fn is_wildcard_udp_port(&self, port: u16) -> bool {
        port == 5353
    }
    fn is_host_address(&self, address: IpAddr) -> bool {
        ["10.0.5.1", "fd00::1", "fe80::1"].map(ip).contains(&address)
    }
    fn pool_kind(&self, address: IpAddr) -> Option<PoolKind> {
        match address {
            IpAddr::V4(v4) if v4.octets()[..3] == [10, 0, 5] && v4.octets()[3] > 1 => {
                Some(PoolKind::VirtualIp)
            }
            IpAddr::V4(v4) if v4.octets()[..2] == [127, 3] => Some(PoolKind::Loopback),
            _ => None,
        }
    }
    fn find_listener(
        &self,
        candidates: &[SocketAddr],
        _: Protocol,
        _: Option<SocketAddr>,
    ) -> ListenerMatch {
        if self.is_kernel_failing {
            return ListenerMatch::Unknown { error: 24 };
        }
        let index = candidates.iter().position(|candidate| self.listeners.contains(candidate));
        index.map_or(ListenerMatch::NotFound, ListenerMatch::Index)
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn socket_address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn session_addresses() -> Addresses {
    Addresses {
        v4: V.parse().ok(),
        v6: "fd00::7".parse().ok(),
        loopback: L.parse().ok(),
        loopback6: "127.131.4.5".parse().ok(),
    }
}

fn rules() -> RewriteRules {
    RewriteRules {
        features: Features { virtual_ip: true, loopback: true, client_ip: false },
        ..RewriteRules::default()
    }
}

pub(super) fn rewriter(system: &TestSystem) -> Rewriter<'_, TestSystem> {
    Rewriter { addresses: session_addresses(), rules: rules(), lease_held: true, system }
}

fn socket(protocol: Protocol, local: &str) -> SocketProperties {
    SocketProperties::new(protocol, Some(socket_address(local)))
}

fn tcp() -> SocketProperties {
    socket(Protocol::Tcp, "0.0.0.0:0")
}

fn udp() -> SocketProperties {
    socket(Protocol::Udp, "0.0.0.0:0")
}

fn tcp6() -> SocketProperties {
    socket(Protocol::Tcp, "[::]:0")
}

/// Returns the outcome of a bind as text: the address, or the name of the reason or refusal. Before
/// the address, "dual" means that the hook layer clears `IPV6_V6ONLY`, and "deferred" means that it
/// defers the bind.
fn bind(rewriter: &Rewriter<'_, TestSystem>, socket: SocketProperties, address: &str) -> String {
    match rewriter.bind(&socket, socket_address(address)) {
        Outcome::Rewritten(Bind { address, clear_v6only: false, defer: false }) => {
            address.to_string()
        }
        Outcome::Rewritten(bind) if bind.defer => format!("deferred {}", bind.address),
        Outcome::Rewritten(bind) => format!("dual {}", bind.address),
        Outcome::Passed(reason) => reason.name().to_owned(),
        Outcome::Refused(refusal) => refusal.name().to_owned(),
    }
}

/// Returns the outcome of a connect as text: `source > destination`, the destination alone, or the
/// name of the reason or refusal. Before a destination without a source, "dual" means that the hook
/// layer clears `IPV6_V6ONLY`.
fn connect(
    rewriter: &Rewriter<'_, TestSystem>,
    socket: SocketProperties,
    destination: &str,
) -> String {
    match rewriter.connect(&socket, socket_address(destination)) {
        Outcome::Rewritten(Connect { source: Some(source), destination, .. }) => {
            format!("{source} > {destination}")
        }
        Outcome::Rewritten(connect) if connect.clear_v6only => {
            format!("dual {}", connect.destination)
        }
        Outcome::Rewritten(connect) => connect.destination.to_string(),
        Outcome::Passed(reason) => reason.name().to_owned(),
        Outcome::Refused(refusal) => refusal.name().to_owned(),
    }
}

fn system_with_listeners(addresses: &[&str]) -> TestSystem {
    TestSystem {
        listeners: addresses.iter().map(|text| socket_address(text)).collect(),
        is_kernel_failing: false,
    }
}

#[test]
fn numbers_and_names_of_reasons_are_unique() {
    for reason in Reason::ALL {
        assert_eq!(Reason::from_number(reason.number()), Some(*reason));
        let same_name = Reason::ALL.iter().filter(|other| other.name() == reason.name());
        assert_eq!(same_name.count(), 1, "{}", reason.name());
    }
}
