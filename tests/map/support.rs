//! Helpers that create small plans, maps and options.

use std::net::IpAddr;

use vipool::map::{Leader, Leases, Map, OpenOptions, Plan, Probe, Settings};
use vipool::pool::{Pool, PoolKind};
use vipool::session::SessionId;

/// Returns a plan with one pool, which has the name `default` and these ranges.
pub fn plan(ranges: &[&str], settings: Settings) -> Plan {
    Plan::new([pool("default", ranges)]).with_settings(settings)
}

/// Returns a pool of virtual IPs.
pub fn pool(name: &str, ranges: &[&str]) -> Pool {
    let ranges: Vec<_> = ranges.iter().map(|range| range.parse().unwrap()).collect();
    Pool::new(name, PoolKind::VirtualIp, &ranges, u32::MAX).unwrap()
}

/// Returns a loopback pool.
pub fn loopback_pool(range: &str) -> Pool {
    Pool::new("default", PoolKind::Loopback, &[range.parse().unwrap()], u32::MAX).unwrap()
}

/// Returns a map in memory with one pool, which has the name `default` and these ranges.
pub fn memory_map(ranges: &[&str], settings: Settings) -> Map {
    Map::in_memory(&plan(ranges, settings)).unwrap()
}

/// Returns the id of the session with this number.
pub fn session_id(number: u64) -> SessionId {
    number.to_string().parse().unwrap()
}

/// The options of an anonymous session.
pub const ANONYMOUS: OpenOptions<'_> = OpenOptions::new();

/// Returns the options of a user's session.
pub fn for_user(name: &str) -> OpenOptions<'_> {
    OpenOptions::new().with_user(name)
}

/// Returns the addresses of the leases.
pub fn addresses_of(leases: &Leases) -> Vec<IpAddr> {
    leases.iter().map(|lease| lease.address).collect()
}

/// Returns the address of the only lease.
pub fn only_address(leases: &Leases) -> String {
    let addresses = addresses_of(leases);
    assert_eq!(addresses.len(), 1);
    addresses[0].to_string()
}

/// Parses an address.
pub fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Returns options that request this address.
pub fn for_address(text: &str) -> OpenOptions<'_> {
    ANONYMOUS.with_address(address(text))
}

/// A simulated operating system.
#[derive(Default)]
pub struct FakeSystem {
    /// The addresses with sockets.
    pub addresses_in_use: Vec<IpAddr>,
    /// Whether every session leader has exited.
    pub have_leaders_exited: bool,
}

impl Probe for FakeSystem {
    fn has_sockets(&mut self, address: IpAddr) -> bool {
        self.addresses_in_use.contains(&address)
    }

    fn has_exited(&mut self, _: &Leader) -> bool {
        self.have_leaders_exited
    }
}
