//! Validation of the values of a farm. This file checks servers, pools and reservations; `ranges`,
//! `capacity` and `programs` check the rest.

mod capacity;
mod programs;
mod ranges;

use std::collections::HashSet;
use std::net::IpAddr;

use crate::farm::finding::{Finding, Level, quote_key_part};
use crate::farm::{Farm, LOOPBACK_POOL, Server, ServerRange};
use crate::map::{MAX_POOL_NAME, MAX_POOLS};
use crate::policy::path::{PatternKind, pattern_kind};
use crate::pool::{DEFAULT_POOL, MAX_SLOTS};
use crate::range::Range;

const fn error(code: &'static str) -> (Level, &'static str) {
    (Level::Error, code)
}

const fn warning(code: &'static str) -> (Level, &'static str) {
    (Level::Warning, code)
}

/// The maximum length of a user name in bytes. A session record has no room for a longer name.
const MAX_USER_LENGTH: usize = 63;

/// The maximum length of a host name in bytes (RFC 1035).
const MAX_HOST_NAME_LENGTH: usize = 253;
/// The maximum length in bytes of a part of a host name between two dots (RFC 1035).
const MAX_HOST_LABEL_LENGTH: usize = 63;

impl Farm {
    /// Returns the findings about the farm. Does not access any server.
    #[must_use]
    pub fn validate(&self) -> Vec<Finding> {
        let mut findings = self.validate_present_values();
        for (index, range) in self.ranges.iter().enumerate() {
            self.validate_range(index, range, &mut findings);
        }
        self.validate_pool_ranges(&mut findings);
        self.validate_loopback(&mut findings);
        self.validate_programs(&mut findings);
        self.validate_reservations(&mut findings);
        for server in &self.servers {
            self.validate_capacity(Some(server), &mut findings);
        }
        if self.servers.is_empty() {
            self.validate_capacity(None, &mut findings);
        }
        findings
    }

    /// Runs the checks that also suit an incomplete farm, such as the check of address kinds.
    ///
    /// If farm.toml has a syntax error, the values of the invalid lines are missing. In this case,
    /// [`Farm::parse`] runs only these checks.
    pub(super) fn validate_present_values(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        self.validate_servers(&mut findings);
        self.validate_pools(&mut findings);
        self.validate_address_kinds(&mut findings);
        self.validate_overlaps(&mut findings);
        self.validate_patterns(&mut findings);
        findings
    }

    fn validate_servers(&self, findings: &mut Vec<Finding>) {
        let mut names = HashSet::new();
        for server in &self.servers {
            let key = server_key(server);
            if server.name.trim().is_empty() {
                let remedy = "write the host name of the server";
                findings.push(Finding::new(
                    error("name"),
                    &key,
                    "",
                    "a server has no name",
                    remedy,
                ));
            } else if server.name.len() > MAX_HOST_NAME_LENGTH
                || server.name.split('.').any(|label| label.len() > MAX_HOST_LABEL_LENGTH)
            {
                let message = format!("the server name {:?} is too long", server.name);
                let remedy = format!(
                    "write at most {MAX_HOST_NAME_LENGTH} characters, and {MAX_HOST_LABEL_LENGTH} \
                     between two dots"
                );
                let name = &server.name;
                findings.push(Finding::new(error("name"), &key, name, message, remedy));
            } else if !names.insert(server.name.to_ascii_lowercase()) {
                let message = format!("server {:?} is listed twice", server.name);
                let remedy = "remove one of them; case does not matter in host names";
                findings.push(Finding::new(
                    error("duplicate"),
                    &key,
                    &server.name,
                    message,
                    remedy,
                ));
            }
        }
    }

    fn validate_pools(&self, findings: &mut Vec<Finding>) {
        let mut names = HashSet::new();
        for pool in &self.pools {
            let name = &pool.rule.pool;
            let key = format!("pool.{}", quote_key_part(name));
            if !names.insert(name) {
                let message = format!("pool {name:?} is listed twice");
                findings.push(Finding::new(error("duplicate"), &key, name, message, "merge them"));
            }
            if name == LOOPBACK_POOL || name.is_empty() || name.len() > MAX_POOL_NAME {
                let message = format!("invalid pool name {name:?}");
                let remedy = format!("choose another name with 1 to {MAX_POOL_NAME} bytes");
                findings.push(Finding::new(error("name"), &key, name, message, remedy));
            }
            if pool.max_addresses.is_some_and(|max| max == 0 || max > MAX_SLOTS) {
                let message = format!("max-addresses is not from 1 to {MAX_SLOTS}");
                let value = pool.max_addresses.unwrap_or(0);
                let key = format!("{key}.max-addresses");
                findings.push(Finding::new(
                    error("too-many"),
                    key,
                    value,
                    message,
                    "choose a number in this range",
                ));
            }
            for (index, program) in pool.rule.programs.iter().enumerate() {
                if pattern_kind(program.as_bytes()) == PatternKind::Relative {
                    let message = format!("{program:?} is neither a full path nor a bare name");
                    let key = format!("{key}.programs[{index}]");
                    let remedy = "write the full path";
                    findings.push(Finding::new(error("path"), key, program, message, remedy));
                }
            }
        }
        // Each pool name counts twice, once per address family. The loopback pool counts once.
        if self.pool_names().count() * 2 + 1 > MAX_POOLS {
            let max_pools = (MAX_POOLS - 1) / 2;
            let message = format!("a farm has at most {max_pools} pools");
            let count = self.pools.len();
            findings.push(Finding::new(error("too-many"), "pool", count, message, "remove pools"));
        }
    }

    /// Reports pools without ranges. The default pool needs no range.
    fn validate_pool_ranges(&self, findings: &mut Vec<Finding>) {
        for name in self.pools.iter().map(|pool| &pool.rule.pool) {
            if name != DEFAULT_POOL && !self.ranges.iter().any(|range| range.pool == *name) {
                let key = format!("pool.{}", quote_key_part(name));
                let message =
                    format!("pool {name:?} has no range, so its sessions get no virtual IP");
                let remedy = format!("add a [[range]] with pool = {name:?}");
                findings.push(Finding::new(warning("no-range"), key, name, message, remedy));
            }
        }
    }

    fn validate_reservations(&self, findings: &mut Vec<Finding>) {
        for (index, reservation) in self.reservations.iter().enumerate() {
            let (user, address) = (&reservation.user, reservation.address);
            let earlier_reservations = &self.reservations[..index];
            let item_index =
                earlier_reservations.iter().filter(|earlier| earlier.user == *user).count();
            let key = format!("reservations.{}[{item_index}]", quote_key_part(user));
            if user.is_empty() || user.len() > MAX_USER_LENGTH {
                let message = format!("a user name must have 1 to {MAX_USER_LENGTH} bytes");
                let remedy = "write the name that the system uses";
                findings.push(Finding::new(error("name"), &key, user, message, remedy));
            }
            if let Some(earlier) =
                earlier_reservations.iter().find(|earlier| earlier.address == address)
            {
                let message = if earlier.user == *user {
                    format!("{address} is reserved twice for {user}")
                } else {
                    format!("{address} is reserved for two users, {} and {user}", earlier.user)
                };
                let remedy = "reserve an address for one user only";
                findings.push(Finding::new(error("duplicate"), &key, address, message, remedy));
            }
            let contains_address =
                |entry: &&ServerRange| entry.addresses.iter().any(|range| range.contains(address));
            let (message, remedy) = match self.ranges.iter().find(contains_address) {
                None => (
                    format!("{address} is in no range, so it cannot be reserved"),
                    "add the address to a range, or choose an address of a range",
                ),
                Some(entry)
                    if !contains(
                        &self.usable_ranges(&entry.addresses, &entry.exclude),
                        address,
                    ) =>
                {
                    (
                        format!("{address} is never allocated, so it cannot be reserved"),
                        "choose an address that is not excluded, network or broadcast address",
                    )
                }
                Some(_) => continue,
            };
            findings.push(Finding::new(error("reservation"), &key, address, message, remedy));
        }
    }
}

fn server_key(server: &Server) -> String {
    format!("server.{}", quote_key_part(&server.name))
}

fn contains(ranges: &[Range], address: IpAddr) -> bool {
    ranges.iter().any(|range| range.contains(address))
}
