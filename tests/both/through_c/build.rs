//! Plans and farms, built by calls.

#![allow(unsafe_code, reason = "this is what a C program does")]

use std::ptr::{null, null_mut};

use ipnet::IpNet;
use vipool::capi::farm::*;
use vipool::capi::farm_by_calls::*;
use vipool::capi::farm_rules::*;
use vipool::capi::interface::{vipool_interface, vipool_subnet};
use vipool::capi::list::*;
use vipool::capi::plan::*;
use vipool::farm::Farm;
use vipool::interface::Interface;
use vipool::map::Plan;
use vipool::policy::{PoolRule, Program};

use super::values::*;
use crate::api::Status;

/// Builds the plan by calls.
pub fn plan(plan: &Plan) -> Result<*mut vipool_plan, Status> {
    let mut made = null_mut();
    // SAFETY: all structs and texts outlive the calls; the plan goes back when a call fails.
    unsafe {
        check(vipool_plan_new(&mut made))?;
        let filled = fill(made, plan);
        if filled.is_err() {
            vipool_plan_free(made);
        }
        filled.map(|()| made)
    }
}

/// # Safety
/// `made` is a plan.
unsafe fn fill(made: *mut vipool_plan, plan: &Plan) -> Result<(), Status> {
    for pool in &plan.pools {
        let ranges: Vec<_> = pool.blocks().iter().map(|(_, range)| c_range(range)).collect();
        let (name, kind) = (pool.name(), pool.kind() as u32);
        // SAFETY: everything given is valid during the call.
        check(unsafe {
            vipool_plan_add_pool(
                made,
                chars(name),
                name.len(),
                kind,
                ranges.as_ptr(),
                ranges.len(),
                pool.slots(),
            )
        })?;
    }
    for (pool, kind, name) in names(&plan.policy.pool_rules) {
        let (text, length) = (chars(pool), pool.len());
        // SAFETY: as above.
        check(unsafe {
            vipool_plan_add_pool_rule(made, text, length, kind, chars(name), name.len())
        })?;
    }
    for reservation in &plan.reservations {
        let (user, address) = (&reservation.user, c_ip(reservation.address));
        // SAFETY: as above.
        check(unsafe { vipool_plan_add_reservation(made, chars(user), user.len(), &address) })?;
    }
    // SAFETY: as above.
    check(unsafe { vipool_plan_set_settings(made, &c_settings(&plan.settings)) })?;
    for rule in &plan.policy.programs {
        let (own, shared) = (ports(&rule.own_ports), ports(&rule.shared_ports));
        // SAFETY: as above.
        check(unsafe { vipool_plan_add_program(made, &c_program(rule, &own, &shared)) })?;
    }
    let hosts: Vec<_> = plan.policy.host_addresses.iter().copied().map(c_ip).collect();
    let udp = ports(&plan.policy.wildcard_udp_ports);
    let mut rules = sized::<vipool_rules>();
    (rules.host_addresses, rules.host_address_count) = (hosts.as_ptr(), hosts.len());
    (rules.wildcard_udp_ports, rules.wildcard_udp_port_count) = (udp.as_ptr(), udp.len());
    rules.flags = plan.policy.rewrite.bits();
    // SAFETY: as above.
    check(unsafe { vipool_plan_set_rules(made, &rules) })
}

/// A rule of the process list. The ports are lists of the rule's.
fn c_program(rule: &Program, own: &[vipool_ports], shared: &[vipool_ports]) -> vipool_program {
    let optional =
        |text: &Option<String>| text.as_ref().map_or((null(), 0), |t| (chars(t), t.len()));
    let ((script, script_length), (target, target_length)) =
        (optional(&rule.script), optional(&rule.target));
    vipool_program {
        pattern: chars(&rule.pattern),
        pattern_length: rule.pattern.len(),
        script,
        script_length,
        target,
        target_length,
        features: rule.features.bits(),
        flags: rule.flags.bits(),
        own_ports: own.as_ptr(),
        own_port_count: own.len(),
        shared_ports: shared.as_ptr(),
        shared_port_count: shared.len(),
        ..sized()
    }
}

/// All names in rules of pools, each with its pool and kind.
fn names(rules: &[PoolRule]) -> impl Iterator<Item = (&str, u32, &str)> {
    rules.iter().flat_map(|rule| {
        (1..).zip([&rule.users, &rule.groups, &rule.programs]).flat_map(move |(kind, names)| {
            names.iter().map(move |name| (&*rule.pool, kind, &**name))
        })
    })
}

fn c_ranges(ranges: &[vipool::range::Range]) -> Vec<vipool::capi::address::vipool_range> {
    ranges.iter().map(c_range).collect()
}

fn c_subnet(net: &IpNet) -> vipool_subnet {
    vipool_subnet { address: c_ip(net.addr()), prefix_length: net.prefix_len().into() }
}

/// Builds the farm by calls and validates it. The caller frees it.
pub fn farm(farm: &Farm) -> *mut vipool_farm {
    let mut made = null_mut();
    // SAFETY: a place for the handle.
    check(unsafe { vipool_farm_new(&mut made) }).unwrap();
    // SAFETY: everything that is given is valid during the calls.
    unsafe {
        servers_and_ranges(made, farm);
        let (addresses, excluded) =
            (c_ranges(&farm.loopback.ranges), c_ranges(&farm.loopback.exclude));
        let (first, count) = (addresses.as_ptr(), addresses.len());
        let (excluded, more) = (excluded.as_ptr(), excluded.len());
        check(vipool_farm_set_loopback(made, first, count, excluded, more)).unwrap();
        let subnets: Vec<_> = farm.network.subnets.iter().map(c_subnet).collect();
        let dhcp = c_ranges(&farm.network.dhcp_ranges);
        let (subnets, count) = (subnets.as_ptr(), subnets.len());
        check(vipool_farm_set_network(made, subnets, count, dhcp.as_ptr(), dhcp.len())).unwrap();
        set_sessions(made, farm);
        for kept in &farm.reservations {
            let (user, length) = (chars(&kept.user), kept.user.len());
            check(vipool_farm_add_reservation(made, user, length, &c_ip(kept.address))).unwrap();
        }
        for rule in &farm.programs {
            let (own, shared) = (ports(&rule.own_ports), ports(&rule.shared_ports));
            check(vipool_farm_add_program(made, &c_program(rule, &own, &shared))).unwrap();
        }
        let udp = ports(&farm.rewrite.wildcard_udp_ports);
        let fixed = ports(&farm.rewrite.fixed_ports);
        let rules = vipool_farm_rules {
            wildcard_udp_ports: udp.as_ptr(),
            wildcard_udp_port_count: udp.len(),
            fixed_ports: fixed.as_ptr(),
            fixed_port_count: fixed.len(),
            flags: farm.rewrite.flags.bits(),
            ..sized()
        };
        check(vipool_farm_set_rules(made, &rules)).unwrap();
        check(vipool_farm_validate(made)).unwrap();
    }
    made
}

/// # Safety
/// `made` is a farm.
unsafe fn servers_and_ranges(made: *mut vipool_farm, farm: &Farm) {
    for server in &farm.servers {
        let given = vipool_server {
            name: chars(&server.name),
            name_length: server.name.len(),
            max_sessions: server.max_sessions.unwrap_or(0),
            flags: u32::from(!server.enabled) * VIPOOL_SERVER_DISABLED
                + u32::from(server.max_sessions.is_some()) * VIPOOL_SERVER_MAX_SESSIONS,
            ..sized()
        };
        // SAFETY: everything that is given is valid during the call.
        check(unsafe { vipool_farm_add_server(made, &given) }).unwrap();
    }
    for pool in &farm.pools {
        let (name, length) = (chars(&pool.rule.pool), pool.rule.pool.len());
        let most = pool.max_addresses.unwrap_or(0);
        // SAFETY: as above.
        check(unsafe { vipool_farm_add_pool(made, name, length, most) }).unwrap();
    }
    let rules: Vec<_> = farm.pools.iter().map(|pool| pool.rule.clone()).collect();
    for (pool, kind, name) in names(&rules) {
        let (text, length) = (chars(pool), pool.len());
        // SAFETY: as above.
        check(unsafe {
            vipool_farm_add_pool_rule(made, text, length, kind, chars(name), name.len())
        })
        .unwrap();
    }
    for entry in &farm.ranges {
        let (addresses, excluded) = (c_ranges(&entry.addresses), c_ranges(&entry.exclude));
        let server = entry.server.as_deref();
        let given = vipool_server_range {
            addresses: addresses.as_ptr(),
            address_count: addresses.len(),
            excluded: excluded.as_ptr(),
            excluded_count: excluded.len(),
            server: server.map_or(null(), chars),
            server_length: server.map_or(0, str::len),
            pool: chars(&entry.pool),
            pool_length: entry.pool.len(),
            ..sized()
        };
        // SAFETY: as above.
        check(unsafe { vipool_farm_add_range(made, &given) }).unwrap();
    }
}

/// Sets what differs from the defaults, as a C program does it.
///
/// # Safety
/// `made` is a farm.
unsafe fn set_sessions(made: *mut vipool_farm, farm: &Farm) {
    let mut given = sized();
    // SAFETY: valid structs.
    check(unsafe { vipool_farm_settings(made, &mut given) }).unwrap();
    let defaults = Farm::default().sessions;
    let read = settings(&given);
    assert_eq!(
        (read.cool_down, read.check_in_use, read.max_sessions),
        (defaults.cool_down, defaults.check_in_use, defaults.max_sessions)
    );
    // SAFETY: as above.
    check(unsafe { vipool_farm_set_settings(made, &c_settings(&farm.sessions)) }).unwrap();
}

/// Hands interfaces on as an array.
pub fn with_interfaces<R>(
    interfaces: Option<&[Interface]>,
    then: impl FnOnce(*const vipool_interface, usize) -> R,
) -> R {
    let Some(interfaces) = interfaces else { return then(null(), 0) };
    let subnets: Vec<Vec<_>> = interfaces
        .iter()
        .map(|interface| interface.addresses.iter().map(c_subnet).collect())
        .collect();
    let array: Vec<_> = interfaces
        .iter()
        .zip(&subnets)
        .map(|(interface, subnets)| vipool_interface {
            name: chars(&interface.name),
            name_length: interface.name.len(),
            addresses: subnets.as_ptr(),
            address_count: subnets.len(),
            index: interface.index,
            ..sized()
        })
        .collect();
    then(array.as_ptr(), array.len())
}
