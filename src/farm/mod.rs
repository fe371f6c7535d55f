//! farm.toml: one file for a whole farm, the same on every server.
//!
//! A [`Farm`] contains plain values. The caller sets them, or [`Farm::load`] or [`Farm::parse`]
//! reads them. These two functions also validate the values, and their [`Report`] contains the
//! positions of the findings in the text. [`Farm::validate`] checks values that the caller has set.
//! [`Farm::plan`] compiles the plan for the map of one server.
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
//! assert_eq!(planned.plan.pools[0].slot_count(), 90);
//! assert_eq!(planned.plan.settings.max_sessions, 80);
//! ```
//!
//! `toml`, `tables` and `section` read the file, `validate` checks the values, `finding` describes
//! errors and warnings, and `plan` compiles the values. `examples/farm.toml` explains the keys and
//! their defaults.

mod finding;
mod plan;
mod section;
mod tables;
#[cfg(test)]
mod tests;
mod toml;
mod validate;

use ipnet::IpNet;

use crate::map::Settings;
use crate::policy::{PoolRule, PortRange, Program, RewriteFlags};
use crate::pool::{DEFAULT_POOL, Reservation};
use crate::range::Range;

pub use finding::{Finding, Level, Position, Report};
pub use plan::ServerPlan;

/// Name of the pool of loopback addresses in a map.
pub const LOOPBACK_POOL: &str = "loopback";

/// The maximum number of addresses of an IPv6 pool without [`PoolOptions::max_addresses`].
///
/// `vipool up` adds each address to an interface. The time that Linux needs to add one address
/// grows with the number of addresses: 4,096 addresses take eleven seconds, 16,384 addresses take
/// three minutes.
pub const DEFAULT_MAX_IPV6_ADDRESSES: u32 = 4096;

/// The configuration of a farm of servers. Every field except the ranges and the programs has a
/// useful default. `Farm::default()` has no ranges and no programs, and is valid.
///
/// A farm without a file:
///
/// ```
/// use vipool::farm::{Farm, Level, ServerRange};
/// use vipool::policy::{Features, Program};
///
/// let mut farm = Farm::default();
/// farm.ranges.push(ServerRange::new(["10.0.5.10-10.0.5.12".parse()?]));
/// let features = Features::default().with_virtual_ip(true);
/// farm.programs.push(Program::new("/usr/bin/nc").with_features(features));
/// assert_eq!(farm.validate(), []);
/// assert_eq!(farm.plan("any-host", None).plan.pools[0].slot_count(), 3);
///
/// farm.programs[0].pattern = "bin/nc".into();
/// let finding = &farm.validate()[0];
/// assert_eq!((finding.level, &*finding.key), (Level::Error, "program[0].path"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Farm {
    /// The servers. If the list is empty, the farm is a single machine. Its name does not matter,
    /// and it uses every range without a server.
    pub servers: Vec<Server>,
    /// The ranges of the servers.
    pub ranges: Vec<ServerRange>,
    /// The options of pools. [`DEFAULT_POOL`] need not be listed.
    pub pools: Vec<PoolOptions>,
    /// The addresses of 127.0.0.0/8 for sessions, the same on every server.
    pub loopback: LoopbackOptions,
    /// Information about the network, for checking ranges without access to a server.
    pub network: NetworkOptions,
    /// The settings for sessions. Default: [`Settings::new`].
    pub sessions: Settings,
    /// Addresses that are reserved for users.
    pub reservations: Vec<Reservation>,
    /// The options for all listed programs.
    pub rewrite: RewriteOptions,
    /// The process list.
    pub programs: Vec<Program>,
}

/// One server: `[server.NAME]`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Server {
    /// The host name, with or without the domain. Case does not matter.
    pub name: String,
    /// Whether sessions on this server get addresses. Default: true.
    pub enabled: bool,
    /// The maximum number of concurrent sessions. `None` uses [`Settings::max_sessions`]; 0 means
    /// no limit.
    pub max_sessions: Option<u32>,
}

/// Ranges for one pool of one server: `[[range]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerRange {
    /// The addresses, IPv4 or IPv6.
    pub addresses: Vec<Range>,
    /// The addresses that are not allocated. Default: none.
    pub exclude: Vec<Range>,
    /// The name of the server. Default: the only server of the farm.
    pub server: Option<String>,
    /// The name of the pool. Default: [`DEFAULT_POOL`].
    pub pool: String,
}

/// A pool and the sessions that use it: `[pool.NAME]`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolOptions {
    /// The name of the pool and the sessions that use it. Default: only sessions that request it.
    pub rule: PoolRule,
    /// The maximum number of addresses of each family. The pool uses its lowest addresses. Default:
    /// all IPv4 addresses and [`DEFAULT_MAX_IPV6_ADDRESSES`] IPv6 addresses, at most
    /// [`crate::pool::MAX_SLOTS`].
    pub max_addresses: Option<u32>,
}

/// The loopback addresses of sessions: `[loopback]`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoopbackOptions {
    /// The ranges. Default: 127.100.0.0/20, for 2048 sessions with two addresses each.
    pub ranges: Vec<Range>,
    /// The addresses that are not allocated. 127.0.0.1 is never allocated. Default: none.
    pub exclude: Vec<Range>,
}

/// Information about the network: `[network]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct NetworkOptions {
    /// The subnets of the servers. Default: unknown; `vipool up` reads the subnets of the
    /// interfaces.
    pub subnets: Vec<IpNet>,
    /// The ranges of DHCP servers. Default: none.
    pub dhcp_ranges: Vec<Range>,
}

/// The options for all listed programs: `[rewrite]`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RewriteOptions {
    /// The flags. Default: all off.
    pub flags: RewriteFlags,
    /// UDP ports on which a bind to the wildcard address is not rewritten (row 26). Default: 5353,
    /// 1900, 3702, 5355, 67 and 68 (mDNS, SSDP, WS-Discovery, LLMNR, DHCP).
    pub wildcard_udp_ports: Vec<PortRange>,
    /// Ports that programs bind, in addition to the `own-ports` of the programs. `vipool up`
    /// reserves all these ports, so that the kernel does not use them for outgoing connections.
    /// Default: none.
    pub fixed_ports: Vec<PortRange>,
}

impl Server {
    /// Creates an enabled server without its own limit.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), enabled: true, max_sessions: None }
    }

    /// Sets whether sessions on this server get addresses.
    #[must_use]
    pub fn with_enabled(mut self, enabled: bool) -> Self {
        self.enabled = enabled;
        self
    }

    /// Sets the maximum number of concurrent sessions; 0 means no limit.
    #[must_use]
    pub fn with_max_sessions(mut self, max_sessions: u32) -> Self {
        self.max_sessions = Some(max_sessions);
        self
    }
}

impl ServerRange {
    /// Creates ranges of the default pool for the only server of the farm.
    #[must_use]
    pub fn new(addresses: impl IntoIterator<Item = Range>) -> Self {
        Self { addresses: addresses.into_iter().collect(), ..Self::default() }
    }

    /// Sets the addresses that are not allocated.
    #[must_use]
    pub fn with_exclude(mut self, exclude: impl IntoIterator<Item = Range>) -> Self {
        self.exclude = exclude.into_iter().collect();
        self
    }

    /// Sets the server.
    #[must_use]
    pub fn with_server(mut self, server: impl Into<String>) -> Self {
        self.server = Some(server.into());
        self
    }

    /// Sets the pool.
    #[must_use]
    pub fn with_pool(mut self, pool: impl Into<String>) -> Self {
        self.pool = pool.into();
        self
    }
}

impl PoolOptions {
    /// Creates the options of a pool without its own limit.
    #[must_use]
    pub fn new(rule: PoolRule) -> Self {
        Self { rule, max_addresses: None }
    }

    /// Sets the maximum number of addresses of each family.
    #[must_use]
    pub fn with_max_addresses(mut self, max_addresses: u32) -> Self {
        self.max_addresses = Some(max_addresses);
        self
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
    /// Returns the server with this host name. If no server has this name, returns the first server
    /// whose name is the same without the domains. In this case, `host` or the name of the server
    /// must have no domain.
    #[must_use]
    pub fn find_server(&self, host: &str) -> Option<&Server> {
        let short_name =
            |name: &str| name.split('.').next().unwrap_or_default().to_ascii_lowercase();
        let exact_match = self.servers.iter().find(|server| server.name.eq_ignore_ascii_case(host));
        exact_match.or_else(|| {
            self.servers.iter().find(|server| {
                // Two full names with different domains belong to different hosts.
                let has_short_name = !server.name.contains('.') || !host.contains('.');
                has_short_name && short_name(&server.name) == short_name(host)
            })
        })
    }

    /// Returns the ranges of a server, each with its index in [`Farm::ranges`]. In a farm without
    /// servers, `server` is `None`.
    pub fn ranges_for<'f>(
        &'f self,
        server: Option<&'f Server>,
    ) -> impl Iterator<Item = (usize, &'f ServerRange)> {
        let is_only_server = matches!(self.servers.as_slice(), [_]);
        self.ranges.iter().enumerate().filter(move |(_, range)| match (&range.server, server) {
            (Some(name), Some(server)) => server.name.eq_ignore_ascii_case(name),
            (None, Some(_)) => is_only_server,
            (None, None) => true,
            (Some(_), None) => false,
        })
    }

    /// Returns the ports that listed programs bind: [`RewriteOptions::fixed_ports`] and all
    /// `own-ports`, sorted and without overlaps. `vipool up` reserves these ports.
    #[must_use]
    pub fn fixed_ports(&self) -> Vec<PortRange> {
        let own_ports = self.programs.iter().flat_map(|program| &program.own_ports);
        PortRange::merge(self.rewrite.fixed_ports.iter().chain(own_ports))
    }
}
