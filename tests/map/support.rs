//! Small plans to make maps of.

use std::net::IpAddr;

use vipool::map::{Leases, Map, OpenOptions, Plan, Settings};
use vipool::pool::{Pool, PoolKind};
use vipool::session::SessionId;

/// A plan with one pool named `default` of these ranges.
pub fn plan(ranges: &[&str], settings: Settings) -> Plan {
    Plan { pools: vec![pool("default", ranges)], settings, ..Plan::default() }
}

/// A pool of virtual IPs.
pub fn pool(name: &str, ranges: &[&str]) -> Pool {
    let ranges: Vec<_> = ranges.iter().map(|range| range.parse().unwrap()).collect();
    Pool::new(name, PoolKind::VirtualIp, &ranges, u32::MAX).unwrap()
}

/// A loopback pool.
pub fn loopback(range: &str) -> Pool {
    Pool::new("default", PoolKind::Loopback, &[range.parse().unwrap()], u32::MAX).unwrap()
}

/// A map in memory.
pub fn map(ranges: &[&str], settings: Settings) -> Map {
    Map::in_memory(&plan(ranges, settings)).unwrap()
}

/// The session with this number.
pub fn id(number: u64) -> SessionId {
    number.to_string().parse().unwrap()
}

/// Options of a user's session.
pub fn user(name: &str) -> OpenOptions<'_> {
    OpenOptions { user: Some(name), ..OpenOptions::default() }
}

/// The addresses of some leases.
pub fn addresses(leases: &Leases) -> Vec<IpAddr> {
    leases.iter().map(|lease| lease.address).collect()
}

/// The only address a session was given.
pub fn only(leases: &Leases) -> String {
    let addresses = addresses(leases);
    assert_eq!(addresses.len(), 1);
    addresses[0].to_string()
}
