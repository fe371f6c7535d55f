//! Validation of capacity: every server needs enough addresses for its sessions.

use super::{quote_key_part, server_key, warning};
use crate::farm::finding::Finding;
use crate::farm::plan::ranges_of_family;
use crate::farm::{DEFAULT_MAX_IPV6_ADDRESSES, Farm, Server};
use crate::pool::MAX_SLOTS;
use crate::range::Range;

impl Farm {
    /// Reports a server that has no ranges, or too few addresses for its sessions.
    ///
    /// Also reports pools of this server that have too many addresses or at most `low-water`
    /// addresses. If the farm lists no servers, `server` is `None` and means this machine.
    pub(super) fn validate_capacity(&self, server: Option<&Server>, findings: &mut Vec<Finding>) {
        if server.is_some_and(|server| !server.enabled) {
            return;
        }
        let name =
            server.map_or_else(|| "this machine".to_owned(), |server| format!("{:?}", server.name));
        let max_sessions_key = match server {
            Some(server) if server.max_sessions.is_some() => {
                format!("{}.max-sessions", server_key(server))
            }
            _ => "sessions.max-sessions".to_owned(),
        };
        let max_sessions = self.max_sessions(server);
        let too_few = |message: String, remedy: &str| {
            Finding::new(warning("too-few"), &max_sessions_key, max_sessions, message, remedy)
        };
        let mut has_virtual_ips = false;
        for is_ipv4 in [true, false] {
            let mut total_count = 0u128;
            for pool in self.pool_names() {
                let range_entries = self.ranges_for(server).filter(|(_, entry)| entry.pool == pool);
                let usable_ranges: Vec<Range> = range_entries
                    .flat_map(|(_, entry)| {
                        let addresses: Vec<Range> =
                            ranges_of_family(&entry.addresses, is_ipv4).collect();
                        has_virtual_ips |= !addresses.is_empty();
                        self.usable_ranges(&addresses, &entry.exclude)
                    })
                    .collect();
                let count = usable_ranges
                    .iter()
                    .fold(0u128, |sum, range| sum.saturating_add(range.count()));
                let max_addresses = self.max_addresses(pool, is_ipv4);
                let used_count = count.min(max_addresses.into());
                if is_ipv4 && count > u128::from(max_addresses) && max_addresses == MAX_SLOTS {
                    let message = format!(
                        "pool {pool:?} of {name} has {count} addresses; only the first {max_addresses} are used"
                    );
                    let remedy = "reduce its ranges, or set max-addresses";
                    findings.push(Finding::new(
                        warning("too-many"),
                        "range",
                        count,
                        message,
                        remedy,
                    ));
                }
                if !is_ipv4 && used_count > u128::from(DEFAULT_MAX_IPV6_ADDRESSES) {
                    let message = format!(
                        "pool {pool:?} of {name} has {used_count} IPv6 addresses; Linux takes minutes to add \
                         more than {DEFAULT_MAX_IPV6_ADDRESSES} to an interface, and hours for 65536"
                    );
                    let key = format!("pool.{}.max-addresses", quote_key_part(pool));
                    let remedy = "lower it to the maximum number of sessions plus the number of addresses that cool down";
                    findings.push(Finding::new(
                        warning("many-ipv6"),
                        key,
                        max_addresses,
                        message,
                        remedy,
                    ));
                }
                if 0 < count && count <= u128::from(self.sessions.low_water) {
                    let message = format!(
                        "low-water is always reached, because pool {pool:?} of {name} is not larger ({count})"
                    );
                    let value = self.sessions.low_water;
                    let key = "sessions.low-water";
                    let remedy = "lower low-water";
                    findings.push(Finding::new(warning("low-water"), key, value, message, remedy));
                }
                total_count = total_count.saturating_add(used_count);
            }
            let has_family = self
                .ranges_for(server)
                .any(|(_, entry)| ranges_of_family(&entry.addresses, is_ipv4).next().is_some());
            if has_family && total_count < u128::from(max_sessions) {
                let family = if is_ipv4 { "IPv4" } else { "IPv6" };
                let message = format!(
                    "{name} has fewer {family} addresses ({total_count}) than sessions ({max_sessions}); each session needs one"
                );
                findings.push(too_few(message, "add addresses, or lower max-sessions"));
            }
        }
        let is_feature_used = |feature: fn(&crate::policy::Features) -> bool| {
            self.programs.is_empty()
                || self.programs.iter().any(|program| feature(&program.features))
        };
        if let Some(server) = server
            && !has_virtual_ips
            && is_feature_used(|features| features.virtual_ip)
        {
            let message = format!("server {name} has no ranges, so its sessions get no virtual IP");
            let remedy = format!("add a [[range]] with server = {name}, or set enabled = false");
            let key = server_key(server);
            findings.push(Finding::new(warning("no-range"), key, &server.name, message, remedy));
        }
        let max_loopback_sessions = self.loopback_pool().map_or(0, |pool| pool.slot_count());
        if max_loopback_sessions < max_sessions && is_feature_used(|features| features.loopback) {
            let message = format!(
                "the loopback ranges suffice for fewer sessions ({max_loopback_sessions}) than {name} allows ({max_sessions}); each session needs two addresses"
            );
            let remedy = "extend the ranges of [loopback], or lower max-sessions";
            findings.push(too_few(message, remedy));
        }
    }
}
