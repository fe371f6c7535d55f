//! What is wrong with a farm, judged on its values alone: here servers, pools and reservations;
//! `ranges`, `capacity` and `programs` have the rest.

mod capacity;
mod programs;
mod ranges;

use std::collections::HashSet;
use std::net::IpAddr;

use crate::farm::finding::{Finding, Level, key_part};
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

/// The longest user name that is kept with a session, in bytes.
const MAX_USER: usize = 63;

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
            if name == LOOPBACK_POOL || name.is_empty() || name.len() > MAX_POOL_NAME {
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
}

fn server_key(server: &Server) -> String {
    format!("server.{}", key_part(&server.name))
}

fn contains(ranges: &[Range], address: IpAddr) -> bool {
    ranges.iter().any(|range| range.contains(address))
}
