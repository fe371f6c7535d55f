//! What is wrong with a farm: ranges, servers, pools and reservations. The process list is judged
//! in `validate_programs`.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};

use super::finding::{Finding, Level, key_part, suggest};
use super::plan::of_family;
use super::{Farm, Server, ServerRange};
use crate::interface::unusable;
use crate::map::{MAX_POOL_NAME, MAX_POOLS};
use crate::policy::path::{PatternKind, pattern_kind};
use crate::pool::{DEFAULT_POOL, MAX_SLOTS};
use crate::range::{Range, subtract};

pub(super) const fn error(code: &'static str) -> (Level, &'static str) {
    (Level::Error, code)
}

pub(super) const fn warning(code: &'static str) -> (Level, &'static str) {
    (Level::Warning, code)
}

/// The longest user name that is kept with a session, in bytes.
const MAX_USER: usize = 63;

/// Loopback addresses that other software is known to use.
const TAKEN_LOOPBACK: [(Ipv4Addr, &str); 4] = [
    (Ipv4Addr::LOCALHOST, "every program's loopback address"),
    (Ipv4Addr::new(127, 0, 0, 53), "the resolver of systemd"),
    (Ipv4Addr::new(127, 0, 0, 54), "the resolver of systemd"),
    (Ipv4Addr::new(127, 0, 1, 1), "the host's own name on Debian"),
];

/// Addresses that are no hosts of a network, with what they are.
const NOT_HOSTS: [(&str, &str); 6] = [
    ("0.0.0.0/8", "this host"),
    ("127.0.0.0/8", "the loopback"),
    ("224.0.0.0/4", "multicast"),
    ("255.255.255.255", "broadcast"),
    ("::/127", "this host and the loopback"),
    ("ff00::/8", "multicast"),
];

impl Farm {
    /// Everything that is wrong with the farm, without a look at any machine. Empty if nothing is.
    pub fn validate(&self) -> Vec<Finding> {
        let mut found = Vec::new();
        self.validate_servers(&mut found);
        self.validate_pools(&mut found);
        for (place, range) in self.ranges.iter().enumerate() {
            self.validate_range(place, range, &mut found);
        }
        self.validate_overlaps(&mut found);
        self.validate_loopback(&mut found);
        self.validate_reservations(&mut found);
        self.validate_programs(&mut found);
        for server in &self.servers {
            self.validate_capacity(Some(server), &mut found);
        }
        if self.servers.is_empty() {
            self.validate_capacity(None, &mut found);
        }
        found
    }

    fn validate_servers(&self, found: &mut Vec<Finding>) {
        let mut names = HashSet::new();
        for server in &self.servers {
            let key = server_key(server);
            if server.name.trim().is_empty() {
                let remedy = "give it its host name";
                found.push(Finding::new(
                    error("name"),
                    &key,
                    "",
                    "a server without a name",
                    remedy,
                ));
            } else if !names.insert(server.name.to_ascii_lowercase()) {
                let message = format!("server {:?} is given twice", server.name);
                let remedy = "host names are the same in upper and lower case: make it one";
                found.push(Finding::new(error("duplicate"), &key, &server.name, message, remedy));
            }
        }
    }

    fn validate_pools(&self, found: &mut Vec<Finding>) {
        let mut names = HashSet::new();
        for pool in &self.pools {
            let name = &pool.rule.pool;
            let key = format!("pool.{}", key_part(name));
            if !names.insert(name) {
                let message = format!("pool {name:?} is given twice");
                found.push(Finding::new(error("duplicate"), &key, name, message, "make it one"));
            }
            if name == super::LOOPBACK_POOL || name.is_empty() || name.len() > MAX_POOL_NAME {
                let message = format!("a pool can't be named {name:?}");
                let remedy = format!("name it otherwise, with 1 to {MAX_POOL_NAME} bytes");
                found.push(Finding::new(error("name"), &key, name, message, remedy));
            }
            if pool.max_addresses.is_some_and(|most| most == 0 || most > MAX_SLOTS) {
                let message = format!("a pool holds 1 to {MAX_SLOTS} addresses");
                let value = pool.max_addresses.unwrap_or(0);
                let key = format!("{key}.max-addresses");
                found.push(Finding::new(
                    error("too-many"),
                    key,
                    value,
                    message,
                    "lower the number",
                ));
            }
            if name != DEFAULT_POOL && !self.ranges.iter().any(|range| range.pool == *name) {
                let message = format!("pool {name:?} has no range: its sessions get no virtual IP");
                let remedy = format!("add a [[range]] with pool = {name:?}");
                found.push(Finding::new(warning("no-range"), &key, name, message, remedy));
            }
            for (place, program) in pool.rule.programs.iter().enumerate() {
                if pattern_kind(program.as_bytes()) == PatternKind::Relative {
                    let message = format!("{program:?} is neither a full path nor a bare name");
                    let key = format!("{key}.programs[{place}]");
                    let remedy = "write the full path";
                    found.push(Finding::new(error("path"), key, program, message, remedy));
                }
            }
        }
        // Each in both families, and the loopback pool.
        if self.pool_names().count() * 2 + 1 > MAX_POOLS {
            let most = (MAX_POOLS - 1) / 2;
            let message = format!("a farm has {most} pools at most");
            let count = self.pools.len();
            found.push(Finding::new(error("too-many"), "pool", count, message, "make it fewer"));
        }
    }

    fn validate_range(&self, place: usize, entry: &ServerRange, found: &mut Vec<Finding>) {
        let key = format!("range[{place}]");
        if entry.addresses.is_empty() {
            let remedy = "add addresses = \"10.0.5.10-10.0.5.99\"";
            let message = "a range without addresses";
            let key = format!("{key}.addresses");
            found.push(Finding::new(error("no-addresses"), key, "", message, remedy));
        }
        let servers = self.servers.iter().map(|server| &*server.name);
        match &entry.server {
            Some(name) if !servers.clone().any(|server| server.eq_ignore_ascii_case(name)) => {
                let message = format!("no server is named {name:?}");
                let remedy = if self.servers.is_empty() {
                    format!("add [server.{}]", key_part(name))
                } else {
                    suggest(name, servers)
                };
                let key = format!("{key}.server");
                found.push(Finding::new(error("unknown-server"), key, name, message, remedy));
            }
            None if self.servers.len() > 1 => {
                let message = "a range without a server, and there are several servers";
                let remedy = "add server = \"NAME\"";
                let key = format!("{key}.server");
                found.push(Finding::new(error("no-server"), key, "", message, remedy));
            }
            _ => {}
        }
        if !self.pool_names().any(|name| name == entry.pool) {
            let message = format!("no pool is named {:?}", entry.pool);
            let known = self.pool_names().collect::<Vec<_>>();
            let remedy = format!(
                "{} Or add [pool.{}]",
                suggest(&entry.pool, known.into_iter()),
                key_part(&entry.pool)
            );
            let key = format!("{key}.pool");
            found.push(Finding::new(error("unknown-pool"), key, &entry.pool, message, remedy));
        }
        for (item, range) in entry.exclude.iter().enumerate() {
            if !entry.addresses.iter().any(|addresses| addresses.intersection(range).is_some()) {
                let key = format!("{key}.exclude[{item}]");
                let message = format!("{range} is not in this range: it excludes nothing");
                let remedy = "take it out, or mend it";
                found.push(Finding::new(warning("exclude"), key, range, message, remedy));
            }
        }
        if !entry.addresses.is_empty() && subtract(&entry.addresses, &entry.exclude).is_empty() {
            let message = "every address of the range is excluded: nothing is left to give out";
            let remedy = "exclude less";
            let key = format!("{key}.exclude");
            found.push(Finding::new(warning("empty"), key, "", message, remedy));
        }
        for (item, addresses) in entry.addresses.iter().enumerate() {
            let key = format!("{key}.addresses[{item}]");
            self.validate_addresses(&key, addresses, &entry.exclude, found);
        }
    }

    fn validate_addresses(
        &self,
        key: &str,
        addresses: &Range,
        exclude: &[Range],
        found: &mut Vec<Finding>,
    ) {
        for (text, what) in NOT_HOSTS {
            let range: Range = text.parse().expect("a range");
            if let Some(both) = range.intersection(addresses) {
                let message = format!("{both} is {what}, not addresses of a network");
                let remedy = "take them out (loopback addresses go to [loopback])";
                found.push(Finding::new(error("not-hosts"), key, addresses, message, remedy));
            }
        }
        for dhcp in &self.network.dhcp_ranges {
            if let Some(both) = addresses.intersection(dhcp) {
                let message = format!("{both} is also given out by DHCP ({dhcp})");
                let remedy = "exclude it here or in the DHCP server";
                found.push(Finding::new(warning("dhcp"), key, addresses, message, remedy));
            }
        }
        let left = subtract(&[*addresses], exclude);
        let touched: Vec<_> = self
            .network
            .subnets
            .iter()
            .filter_map(|net| Some((*net, Range::from(*net).intersection(addresses)?)))
            .collect();
        if let Some((net, both)) = touched.iter().find(|(_, both)| both != addresses) {
            let message = format!("only {both} of {addresses} is in subnet {net}");
            let remedy = "write one range for each subnet";
            found.push(Finding::new(error("spans-subnets"), key, addresses, message, remedy));
        } else if !touched.is_empty() {
            let never: Vec<IpAddr> = touched
                .iter()
                .flat_map(|(net, _)| unusable(*net))
                .filter(|address| left.iter().any(|range| range.contains(*address)))
                .collect();
            if !never.is_empty() && addresses.first().is_ipv4() {
                let message = format!(
                    "{} can't be given out: network or broadcast address of the subnet",
                    list(&never)
                );
                let remedy = "nothing, they are left out; or exclude them";
                found.push(Finding::new(warning("broadcast"), key, addresses, message, remedy));
            }
        } else if self.network.subnets.is_empty() {
            let ends: Vec<IpAddr> = left.iter().flat_map(ends_of_24).take(4).collect();
            if !ends.is_empty() {
                let message = format!(
                    "{} would be network or broadcast address, if the subnet is a /24",
                    list(&ends)
                );
                let remedy = "exclude them, or name the real subnets under [network] subnets";
                found.push(Finding::new(warning("broadcast"), key, addresses, message, remedy));
            }
        } else {
            let message = format!("{addresses} is in none of the subnets under [network]");
            let remedy = "mend the range, or add its subnet";
            found.push(Finding::new(warning("no-subnet"), key, addresses, message, remedy));
        }
    }

    /// Overlaps of all ranges, found in one sweep from the lowest to the highest address.
    fn validate_overlaps(&self, found: &mut Vec<Finding>) {
        let mut all: Vec<(Range, usize, usize)> = self
            .ranges
            .iter()
            .enumerate()
            .flat_map(|(place, entry)| {
                let item = move |(item, range): (usize, &Range)| (*range, place, item);
                entry.addresses.iter().enumerate().map(item)
            })
            .collect();
        all.sort_unstable();
        let Some(mut widest) = all.first().copied() else { return };
        for next in all.into_iter().skip(1) {
            if let Some(both) = widest.0.intersection(&next.0) {
                let (a, b) = if widest.1 <= next.1 { (widest, next) } else { (next, widest) };
                found.push(self.overlap(both, a, b));
            }
            let same_family = widest.0.first().is_ipv4() == next.0.first().is_ipv4();
            if !same_family || next.0.last() > widest.0.last() {
                widest = next;
            }
        }
    }

    fn overlap(
        &self,
        both: Range,
        (range_a, place_a, item_a): (Range, usize, usize),
        (range_b, place_b, item_b): (Range, usize, usize),
    ) -> Finding {
        let server = |place: usize| self.ranges[place].server.as_deref().unwrap_or_default();
        let (server_a, server_b) = (server(place_a), server(place_b));
        let key = format!("range[{place_b}].addresses[{item_b}]");
        let other = format!("range[{place_a}].addresses[{item_a}]");
        if server_a.eq_ignore_ascii_case(server_b) {
            let message = format!("{range_b} and {range_a} ({other}) overlap in {both}");
            let remedy = "take what they share out of one of them";
            return Finding::new(error("overlap"), key, range_b, message, remedy);
        }
        let message =
            format!("{both} is given to two servers, {server_a:?} ({other}) and {server_b:?}");
        let remedy = "an address belongs to one server: take it from the other";
        Finding::new(error("two-servers"), key, range_b, message, remedy)
    }

    fn validate_loopback(&self, found: &mut Vec<Finding>) {
        let whole: Range = "127.0.0.0/8".parse().expect("a range");
        let ranges = &self.loopback.ranges;
        for (item, range) in ranges.iter().enumerate() {
            let key = format!("loopback.ranges[{item}]");
            if whole.intersection(range) != Some(*range) {
                let message = format!("{range} is not inside 127.0.0.0/8");
                let remedy = "take a part of it, such as 127.100.0.0/20";
                found.push(Finding::new(error("not-loopback"), key, range, message, remedy));
                continue;
            }
            if let Some(other) = ranges[..item].iter().find(|o| o.intersection(range).is_some()) {
                let message = format!("{range} and {other} overlap");
                let remedy = "take what they share out of one of them";
                found.push(Finding::new(error("overlap"), &key, range, message, remedy));
            }
            let left = subtract(&[*range], &self.loopback.exclude);
            for (address, user) in TAKEN_LOOPBACK {
                if left.iter().any(|left| left.contains(address.into())) {
                    let (message, remedy) = if address == Ipv4Addr::LOCALHOST {
                        (format!("{address} is {user}: it is never given out"), "start higher")
                    } else {
                        (format!("{address} is used by others: {user}"), "exclude it")
                    };
                    let code = warning("taken-loopback");
                    found.push(Finding::new(code, &key, range, message, remedy));
                }
            }
        }
    }

    fn validate_reservations(&self, found: &mut Vec<Finding>) {
        for (place, reservation) in self.reservations.iter().enumerate() {
            let (user, address) = (&reservation.user, reservation.address);
            let of_user = self.reservations[..place].iter().filter(|other| other.user == *user);
            let key = format!("reservations.{}[{}]", key_part(user), of_user.count());
            if user.is_empty() || user.len() > MAX_USER {
                let message = format!("a user's name has 1 to {MAX_USER} bytes");
                let remedy = "write the name as the system does";
                found.push(Finding::new(error("name"), &key, user, message, remedy));
            }
            let same = |other: &&crate::pool::Reservation| other.address == address;
            if let Some(other) = self.reservations[..place].iter().find(same) {
                let message = if other.user == *user {
                    format!("{address} is reserved for {user} twice")
                } else {
                    format!("{address} is reserved for two users, {} and {user}", other.user)
                };
                let remedy = "an address is reserved for one user: take another";
                found.push(Finding::new(error("duplicate"), &key, address, message, remedy));
            }
            let of = |entry: &&ServerRange| entry.addresses.iter().any(|r| r.contains(address));
            let (message, remedy) = match self.ranges.iter().find(of) {
                None => (
                    format!("{address} is in no range: it can't be reserved"),
                    "add it to a range, or take one of a range",
                ),
                Some(entry)
                    if !contains(&self.usable(&entry.addresses, &entry.exclude), address) =>
                {
                    (
                        format!("{address} is never given out: it can't be reserved"),
                        "it is excluded, or network or broadcast address: take another",
                    )
                }
                Some(_) => continue,
            };
            found.push(Finding::new(error("reservation"), &key, address, message, remedy));
        }
    }

    /// Whether a server has the addresses that its sessions want.
    fn validate_capacity(&self, server: Option<&Server>, found: &mut Vec<Finding>) {
        if server.is_some_and(|server| !server.enabled) {
            return;
        }
        let name = server.map_or_else(|| "this machine".to_owned(), |s| format!("{:?}", s.name));
        let limit_key = match server {
            Some(server) if server.max_sessions.is_some() => {
                format!("{}.max-sessions", server_key(server))
            }
            _ => "sessions.max-sessions".to_owned(),
        };
        let limit = self.max_sessions(server);
        let mut virtual_ips = false;
        for ipv4 in [true, false] {
            let mut total = 0u128;
            for pool in self.pool_names() {
                let entries = self.ranges_of(server).filter(|(_, entry)| entry.pool == pool);
                let usable: Vec<Range> = entries
                    .flat_map(|(_, entry)| {
                        let addresses: Vec<Range> = of_family(&entry.addresses, ipv4).collect();
                        virtual_ips |= !addresses.is_empty();
                        self.usable(&addresses, &entry.exclude)
                    })
                    .collect();
                let count =
                    usable.iter().fold(0u128, |sum, range| sum.saturating_add(range.count()));
                let most = self.max_addresses(pool, ipv4);
                if ipv4 && count > u128::from(most) && most == MAX_SLOTS {
                    let message = format!(
                        "pool {pool:?} of {name} has {count} addresses; the first {most} are used"
                    );
                    let remedy = "make its ranges smaller, or set max-addresses";
                    found.push(Finding::new(warning("too-many"), "range", count, message, remedy));
                }
                if 0 < count && count <= u128::from(self.sessions.low_water) {
                    let message = format!(
                        "low-water is reached at once: pool {pool:?} of {name} has {count} addresses"
                    );
                    let value = self.sessions.low_water;
                    let key = "sessions.low-water";
                    let remedy = "lower it";
                    found.push(Finding::new(warning("low-water"), key, value, message, remedy));
                }
                total = total.saturating_add(count.min(most.into()));
            }
            let has_family = self
                .ranges_of(server)
                .any(|(_, entry)| of_family(&entry.addresses, ipv4).next().is_some());
            if has_family && total < u128::from(limit) {
                let family = if ipv4 { "IPv4" } else { "IPv6" };
                let message = format!(
                    "{name} has {total} {family} addresses for {limit} sessions; each session takes one"
                );
                let remedy = "add addresses, or lower max-sessions";
                found.push(Finding::new(warning("too-few"), &limit_key, limit, message, remedy));
            }
        }
        let uses = |feature: fn(&crate::policy::Features) -> bool| {
            self.programs.is_empty()
                || self.programs.iter().any(|program| feature(&program.features))
        };
        if let Some(server) = server
            && !virtual_ips
            && uses(|features| features.virtual_ip)
        {
            let message = format!("server {name} has no ranges: its sessions get no virtual IP");
            let remedy = format!("add a [[range]] with server = {name}, or set enabled = false");
            let key = server_key(server);
            found.push(Finding::new(warning("no-range"), key, &server.name, message, remedy));
        }
        let loopbacks = self.loopback_pool().map_or(0, |pool| pool.slots());
        if loopbacks < limit && uses(|features| features.loopback) {
            let message = format!(
                "the loopback ranges are enough for {loopbacks} sessions, {name} may have {limit}; each session takes two addresses"
            );
            let remedy = "make [loopback] ranges larger, or lower max-sessions";
            found.push(Finding::new(warning("too-few"), &limit_key, limit, message, remedy));
        }
    }
}

fn server_key(server: &Server) -> String {
    format!("server.{}", key_part(&server.name))
}

fn contains(ranges: &[Range], address: IpAddr) -> bool {
    ranges.iter().any(|range| range.contains(address))
}

fn list(addresses: &[IpAddr]) -> String {
    addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", ")
}

/// The first address that ends in 0 and the first that ends in 255.
fn ends_of_24(range: &Range) -> impl Iterator<Item = IpAddr> {
    let (IpAddr::V4(first), IpAddr::V4(last)) = (range.first(), range.last()) else {
        return [None, None].into_iter().flatten();
    };
    let (first, last) = (first.to_bits(), last.to_bits());
    let next = |low: u32| {
        let here = first & !255 | low;
        let at = if here < first { here.checked_add(256)? } else { here };
        (at <= last).then(|| IpAddr::V4(Ipv4Addr::from_bits(at)))
    };
    [next(0), next(255)].into_iter().flatten()
}
