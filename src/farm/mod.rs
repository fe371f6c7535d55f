//! farm.toml: one file for a whole farm, the same on every server.
//!
//! A [`Farm`] is plain values; it can be filled in by calls as well as from the file
//! ([`Farm::load`], [`Farm::parse`]). All validation is in one place and works on the values
//! ([`Farm::validate`]); the file only adds where they stand. [`Farm::plan`] makes of it what one
//! server's map is made from.
//!
//! ```
//! use vipool::farm::Farm;
//!
//! let (farm, report) = Farm::parse(
//!     r#"
//!     [server.ts1]
//!     max-sessions = 80
//!
//!     [[range]]
//!     addresses = "10.0.5.10-10.0.5.99"
//!     server = "ts1"
//!
//!     [[program]]
//!     path = "/usr/bin/redis-server"
//!     features = ["virtual-ip", "loopback"]
//!     "#,
//! );
//! assert!(report.is_empty(), "{report}");
//! let planned = farm.plan("ts1", None);
//! assert_eq!(planned.plan.pools[0].slots(), 90);
//! assert_eq!(planned.plan.settings.max_sessions, 80);
//! ```
//!
//! `finding` is what is wrong and where, `toml` and `section` read the file, `validate` judges the
//! values, `plan` compiles them. The keys and their defaults are
//! explained in `examples/farm.toml`.

mod finding;
mod plan;
mod section;
#[cfg(test)]
mod tests;
mod toml;
mod validate;

use ipnet::IpNet;

use crate::map::{AllocationTime, ExhaustionPolicy, Settings};
use crate::policy::{PoolRule, PortRange, Program, RewriteFlags};
use crate::pool::{DEFAULT_POOL, Reservation};
use crate::range::Range;

pub use finding::{Finding, Level, Position, Report};
pub use plan::ServerPlan;

/// Name of the pool of loopback addresses in a map.
pub const LOOPBACK_POOL: &str = "loopback";

/// How many addresses of an IPv6 pool are used where [`PoolOptions::max_addresses`] is not given.
///
/// Each is added to an interface, and Linux takes the longer for one the more there are: 4,096 in
/// eleven seconds, 16,384 in three minutes.
pub const DEFAULT_MAX_IPV6_ADDRESSES: u32 = 4096;

/// What an administrator says of a farm of servers. Every field but the ranges and the programs
/// has a default that works; `Farm::default()` has neither and is valid.
///
/// Built by calls:
///
/// ```
/// use vipool::farm::{Farm, Level, ServerRange};
/// use vipool::policy::{Features, Program};
///
/// let mut farm = Farm::default();
/// farm.ranges.push(ServerRange {
///     addresses: vec!["10.0.5.10-10.0.5.12".parse()?],
///     ..ServerRange::default()
/// });
/// farm.programs.push(Program {
///     pattern: "/usr/bin/nc".into(),
///     features: Features { virtual_ip: true, ..Features::default() },
///     ..Program::default()
/// });
/// assert_eq!(farm.validate(), []);
/// assert_eq!(farm.plan("any-host", None).plan.pools[0].slots(), 3);
///
/// farm.programs[0].pattern = "bin/nc".into();
/// let finding = &farm.validate()[0];
/// assert_eq!((finding.level, &*finding.key), (Level::Error, "program[0].path"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Farm {
    /// The servers. A farm of none is one machine, whatever its name: it has every range.
    pub servers: Vec<Server>,
    /// The ranges of the servers.
    pub ranges: Vec<ServerRange>,
    /// Limits of pools, beside the ranges in them. [`DEFAULT_POOL`] need not be listed.
    pub pools: Vec<PoolOptions>,
    /// The addresses of 127.0.0.0/8 that sessions are given, the same on every server.
    pub loopback: LoopbackOptions,
    /// What is known of the network, so that a range can be checked without seeing a server.
    pub network: NetworkOptions,
    /// How addresses are given out.
    pub sessions: Settings,
    /// Addresses kept for users.
    pub reservations: Vec<Reservation>,
    /// What concerns every listed program.
    pub rewrite: RewriteOptions,
    /// The process list.
    pub programs: Vec<Program>,
}

/// One server: `[server.NAME]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Its host name, with or without its domain. Case does not matter.
    pub name: String,
    /// Whether sessions there get addresses at all. Default: true.
    pub enabled: bool,
    /// The most sessions at once; `None` takes [`Settings::max_sessions`]. 0 sets no limit.
    pub max_sessions: Option<u32>,
}

/// Ranges for one pool of one server: `[[range]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerRange {
    /// The addresses, IPv4 or IPv6.
    pub addresses: Vec<Range>,
    /// Those of them that are not given out. Default: none.
    pub exclude: Vec<Range>,
    /// The server. Default: the only one there is.
    pub server: Option<String>,
    /// The pool. Default: [`DEFAULT_POOL`].
    pub pool: String,
}

/// A pool and the sessions that are given addresses from it: `[pool.NAME]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolOptions {
    /// Its name, and whose sessions it is for. Default: nobody's; then it must be asked for.
    pub rule: PoolRule,
    /// The most addresses of each family that it uses, from the lowest on. Default: all of IPv4,
    /// [`DEFAULT_MAX_IPV6_ADDRESSES`] of IPv6; never more than [`crate::pool::MAX_SLOTS`].
    pub max_addresses: Option<u32>,
}

/// `[loopback]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoopbackOptions {
    /// Default: 127.100.0.0/20, enough for 2048 sessions (each takes two addresses).
    pub ranges: Vec<Range>,
    /// Those of them that are not given out. 127.0.0.1 never is. Default: none.
    pub exclude: Vec<Range>,
}

/// `[network]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkOptions {
    /// The subnets that the servers are in. Default: not known before `vipool up` sees them.
    pub subnets: Vec<IpNet>,
    /// What a DHCP server gives out. Default: none.
    pub dhcp_ranges: Vec<Range>,
}

/// `[rewrite]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RewriteOptions {
    /// The flags. Default: all off.
    pub flags: RewriteFlags,
    /// UDP ports whose wildcard binds stay wildcard (row 26). Default: 5353, 1900, 3702, 5355, 67
    /// and 68: mDNS, SSDP, WS-Discovery, LLMNR, DHCP.
    pub wildcard_udp_ports: Vec<PortRange>,
    /// Ports that programs bind, to be kept from being given to outgoing connections (row 23),
    /// beside the `own-ports` of the programs. Default: none.
    pub fixed_ports: Vec<PortRange>,
}

/// `[sessions]` where the file has no such key: a cool-down of 120 seconds, twice what TCP keeps a
/// closed connection for on Linux, and a check that no socket is left on an address.
pub const DEFAULT_SETTINGS: Settings = Settings {
    cool_down: 120,
    check_in_use: true,
    low_water: 0,
    sessions_per_user: 0,
    max_sessions: 0,
    on_exhausted: ExhaustionPolicy::Pass,
    allocate: AllocationTime::Logon,
    await_restore: false,
};

impl Default for Farm {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            ranges: Vec::new(),
            pools: Vec::new(),
            loopback: LoopbackOptions::default(),
            network: NetworkOptions::default(),
            sessions: DEFAULT_SETTINGS,
            reservations: Vec::new(),
            rewrite: RewriteOptions::default(),
            programs: Vec::new(),
        }
    }
}

impl Server {
    /// An enabled server without a limit of its own.
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), enabled: true, max_sessions: None }
    }
}

impl Default for ServerRange {
    fn default() -> Self {
        let pool = DEFAULT_POOL.to_owned();
        Self { addresses: Vec::new(), exclude: Vec::new(), server: None, pool }
    }
}

impl Default for LoopbackOptions {
    fn default() -> Self {
        let range = "127.100.0.0/20".parse().expect("a range");
        Self { ranges: vec![range], exclude: Vec::new() }
    }
}

impl Default for RewriteOptions {
    fn default() -> Self {
        Self {
            flags: RewriteFlags::default(),
            wildcard_udp_ports: [5353, 1900, 3702, 5355, 67, 68].map(PortRange::from).to_vec(),
            fixed_ports: Vec::new(),
        }
    }
}

impl Farm {
    /// The server with this host name: the same name, else the same without the domain of either.
    pub fn find_server(&self, host: &str) -> Option<&Server> {
        let short = |name: &str| name.split('.').next().unwrap_or_default().to_ascii_lowercase();
        let exact = self.servers.iter().find(|server| server.name.eq_ignore_ascii_case(host));
        exact.or_else(|| {
            self.servers.iter().find(|server| {
                // Two full names of two domains are two hosts.
                let one_is_short = !server.name.contains('.') || !host.contains('.');
                one_is_short && short(&server.name) == short(host)
            })
        })
    }

    /// The ranges of a server, each with its place in [`Farm::ranges`]. `None` is a machine whose
    /// farm has no servers.
    pub fn ranges_for<'f>(
        &'f self,
        server: Option<&'f Server>,
    ) -> impl Iterator<Item = (usize, &'f ServerRange)> {
        let only = matches!(self.servers.as_slice(), [_]);
        self.ranges.iter().enumerate().filter(move |(_, range)| match (&range.server, server) {
            (Some(name), Some(server)) => server.name.eq_ignore_ascii_case(name),
            (None, Some(_)) => only,
            (None, None) => true,
            (Some(_), None) => false,
        })
    }

    /// The ports that listed programs bind: those of [`RewriteOptions::fixed_ports`] and all `own-ports`,
    /// in order and without overlaps. `vipool up` keeps them from outgoing connections.
    pub fn fixed_ports(&self) -> Vec<PortRange> {
        let own = self.programs.iter().flat_map(|program| &program.own_ports);
        PortRange::merge(self.rewrite.fixed_ports.iter().chain(own))
    }
}
