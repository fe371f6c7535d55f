//! The plan of one server: the contents of its map, and the interface of each address.

use ipnet::IpNet;

use super::finding::{Finding, Level, suggest};
use super::{DEFAULT_MAX_IPV6_ADDRESSES, Farm, LOOPBACK_POOL, Server, ServerRange};
use crate::interface::{Assignment, Interface, MatchError, assign, reserved_addresses};
use crate::map::{Plan, Settings};
use crate::policy::Policy;
use crate::pool::{DEFAULT_POOL, MAX_SLOTS, Pool, PoolKind};
use crate::range::{Range, subtract};

/// The result of [`Farm::plan`] for one server.
#[derive(Clone, Debug, Default)]
pub struct ServerPlan {
    /// The contents of the server's map.
    pub plan: Plan,
    /// The usable addresses of the ranges, grouped by interface and subnet. Empty if the interfaces
    /// are unknown.
    pub assignments: Vec<Assignment>,
    /// The findings that [`Farm::validate`] does not report: an error if no server has the host
    /// name, and an error for each range that does not belong to exactly one interface. The pools
    /// of the plan do not contain such a range.
    pub findings: Vec<Finding>,
}

impl Farm {
    /// Returns the plan of the server with this host name.
    ///
    /// If `interfaces` contains the interfaces of the server, the function assigns each range to
    /// the interface of its subnet. It removes the host's own addresses, and the network and
    /// broadcast addresses of these subnets. If `interfaces` is `None` (no privilege, or another
    /// machine), the function assigns no range. It then removes only the network and broadcast
    /// addresses of the subnets of `[network]`.
    ///
    /// A server that is not enabled has no pools and no programs.
    #[must_use]
    pub fn plan(&self, host: &str, interfaces: Option<&[Interface]>) -> ServerPlan {
        let server = self.find_server(host);
        if server.is_none() && !self.servers.is_empty() {
            let names = self.servers.iter().map(|server| &*server.name);
            let message = format!("no server is named {host:?}");
            let remedy = suggest(host, names);
            let code = (Level::Error, "unknown-server");
            let findings = vec![Finding::new(code, "server", host, message, remedy)];
            return ServerPlan { findings, ..ServerPlan::default() };
        }
        let settings = self.settings(server);
        if server.is_some_and(|server| !server.enabled) {
            return ServerPlan {
                plan: Plan { settings, ..Plan::default() },
                ..ServerPlan::default()
            };
        }
        let mut server_plan = ServerPlan::default();
        let pools = self.virtual_pools(server, interfaces, &mut server_plan);
        let reservations = self.reservations.iter().filter(|reservation| {
            pools.iter().any(|pool| pool.slot_of(reservation.address).is_some())
        });
        let mut policy = self.policy(&server_plan.assignments, interfaces);
        // Remove the rules whose pool has no range on this server. The sessions of such a rule then
        // use the next rule that matches.
        policy.pool_rules.retain(|rule| pools.iter().any(|pool| pool.name() == rule.pool));
        server_plan.plan = Plan {
            reservations: reservations.cloned().collect(),
            pools: pools.into_iter().chain(self.loopback_pool()).collect(),
            policy,
            settings,
        };
        server_plan
    }

    /// Returns the pools of virtual IPs. Adds the assignments and findings to `server_plan`.
    fn virtual_pools(
        &self,
        server: Option<&Server>,
        interfaces: Option<&[Interface]>,
        server_plan: &mut ServerPlan,
    ) -> Vec<Pool> {
        let mut pools = Vec::new();
        for name in self.pool_names() {
            for is_ipv4 in [true, false] {
                let mut usable_ranges = Vec::new();
                let mut has_addresses = false;
                for (index, entry) in
                    self.ranges_for(server).filter(|(_, entry)| entry.pool == name)
                {
                    let addresses: Vec<Range> =
                        ranges_of_family(&entry.addresses, is_ipv4).collect();
                    has_addresses |= !addresses.is_empty();
                    let Some(interfaces) = interfaces else {
                        usable_ranges.extend(self.usable_ranges(&addresses, &entry.exclude));
                        continue;
                    };
                    let (assignments, errors) = assign(&addresses, &entry.exclude, interfaces);
                    usable_ranges
                        .extend(assignments.iter().flat_map(|assignment| &assignment.ranges));
                    merge_assignments(&mut server_plan.assignments, assignments);
                    let to_finding = |error| no_interface_finding(index, entry, &error);
                    server_plan.findings.extend(errors.into_iter().map(to_finding));
                }
                let max_addresses = self.max_addresses(name, is_ipv4);
                if has_addresses
                    && let Ok(pool) =
                        Pool::new(name, PoolKind::VirtualIp, &usable_ranges, max_addresses)
                {
                    pools.push(pool);
                }
            }
        }
        pools
    }

    /// Returns the names of the pools, the default pool first.
    pub(super) fn pool_names(&self) -> impl Iterator<Item = &str> {
        let listed_names = self.pools.iter().map(|pool| &*pool.rule.pool);
        std::iter::once(DEFAULT_POOL).chain(listed_names.filter(|name| *name != DEFAULT_POOL))
    }

    /// Returns the maximum number of addresses of one family in a pool.
    pub(super) fn max_addresses(&self, pool: &str, is_ipv4: bool) -> u32 {
        let options = self.pools.iter().find(|options| options.rule.pool == pool);
        let default_max = if is_ipv4 { MAX_SLOTS } else { DEFAULT_MAX_IPV6_ADDRESSES };
        options.and_then(|options| options.max_addresses).unwrap_or(default_max)
    }

    /// Returns the addresses without the excluded addresses, and without the network and broadcast
    /// addresses of the subnets of `[network]`.
    pub(super) fn usable_ranges(&self, addresses: &[Range], excluded: &[Range]) -> Vec<Range> {
        let reserved =
            self.network.subnets.iter().copied().flat_map(reserved_addresses).map(Range::from);
        subtract(&subtract(addresses, excluded), &reserved.collect::<Vec<_>>())
    }

    /// Returns the pool of loopback addresses, or `None` if there are no loopback ranges.
    pub(super) fn loopback_pool(&self) -> Option<Pool> {
        // All programs share 127.0.0.1. The first and last address of 127.0.0.0/8 are its network
        // and broadcast addresses.
        let usable_range: Range = "127.0.0.2-127.255.255.254".parse().expect("a range");
        let loopback_ranges =
            self.loopback.ranges.iter().filter_map(|range| usable_range.intersection(range));
        let ranges = subtract(&loopback_ranges.collect::<Vec<_>>(), &self.loopback.exclude);
        let pool = Pool::new(LOOPBACK_POOL, PoolKind::Loopback, &ranges, MAX_SLOTS).ok()?;
        (!self.loopback.ranges.is_empty()).then_some(pool)
    }

    fn policy(&self, assignments: &[Assignment], interfaces: Option<&[Interface]>) -> Policy {
        let has_assignment = |interface: &&Interface| {
            assignments.iter().any(|assignment| assignment.index == interface.index)
        };
        let assigned_interfaces = interfaces.unwrap_or_default().iter().filter(has_assignment);
        Policy {
            programs: self.programs.clone(),
            host_addresses: assigned_interfaces
                .flat_map(|interface| &interface.addresses)
                .map(IpNet::addr)
                .collect(),
            wildcard_udp_ports: self.rewrite.wildcard_udp_ports.clone(),
            rewrite: self.rewrite.flags,
            pool_rules: self.pools.iter().map(|pool| pool.rule.clone()).collect(),
        }
    }

    fn settings(&self, server: Option<&Server>) -> Settings {
        Settings { max_sessions: self.max_sessions(server), ..self.sessions }
    }

    /// Returns the maximum number of concurrent sessions of a server; 0 means no limit.
    pub(super) fn max_sessions(&self, server: Option<&Server>) -> u32 {
        server.and_then(|server| server.max_sessions).unwrap_or(self.sessions.max_sessions)
    }
}

/// Returns the ranges of one family.
pub(super) fn ranges_of_family(ranges: &[Range], is_ipv4: bool) -> impl Iterator<Item = Range> {
    ranges.iter().copied().filter(move |range| range.first().is_ipv4() == is_ipv4)
}

/// Adds assignments to a list that has one entry for each subnet of an interface.
fn merge_assignments(merged: &mut Vec<Assignment>, added: Vec<Assignment>) {
    for assignment in added {
        let matching_assignment = merged.iter_mut().find(|existing| {
            existing.index == assignment.index && existing.subnet == assignment.subnet
        });
        match matching_assignment {
            Some(existing) => existing.ranges.extend(assignment.ranges),
            None => merged.push(assignment),
        }
    }
}

fn no_interface_finding(index: usize, entry: &ServerRange, error: &MatchError) -> Finding {
    let (range, remedy) = match error {
        MatchError::NoInterface(range) => (
            range,
            "give an interface an address in that subnet, or correct the range or its server",
        ),
        MatchError::Ambiguous { range, .. } => {
            (range, "remove the subnet from all interfaces but one")
        }
        MatchError::SpansSubnets { range, .. } => (range, "write one range for each subnet"),
    };
    let item_index = entry.addresses.iter().position(|address| address == range).unwrap_or(0);
    let key = format!("range[{index}].addresses[{item_index}]");
    Finding::new((Level::Error, "no-interface"), key, range, error.to_string(), remedy)
}
