//! Builds plans and farms with functions of the C ABI.

#![allow(unsafe_code, reason = "the C ABI takes raw pointers")]

use std::net::IpAddr;
use std::ptr::{null, null_mut};

use ipnet::IpNet;
use vipool::capi::farm::*;
use vipool::capi::farm_build::*;
use vipool::capi::farm_settings::*;
use vipool::capi::interface::{vipool_interface, vipool_subnet};
use vipool::capi::plan::*;
use vipool::capi::process_list::*;
use vipool::capi::settings::vipool_settings_get_default;
use vipool::capi::status::vipool_status;
use vipool::farm::Farm;
use vipool::interface::Interface;
use vipool::map::{Plan, Settings};
use vipool::policy::{PoolRule, Program, RewriteFlags};
use vipool::pool::{Pool, PoolKind, Reservation};

use super::values::*;
use crate::api::Status;

/// Converts a Rust plan to a plan of the C ABI. The caller frees the result.
///
/// The C ABI creates plans only from farms. The function therefore builds a farm without servers,
/// and creates the plan of this farm.
pub fn plan(plan: &Plan, flags: u32) -> Result<*mut vipool_plan, Status> {
    let farm = new_farm();
    // SAFETY: all structs and texts outlive the calls. The farm is freed once.
    unsafe {
        fill_farm(farm, plan);
        let plan_handle = with_host_interface(&plan.policy.host_addresses, |interfaces| {
            new_plan(farm, "", interfaces, flags)
        });
        let error_count = count_findings(farm, vipool_level::VIPOOL_LEVEL_ERROR);
        assert_eq!(plan_handle.is_err(), error_count > 0);
        vipool_farm_free(farm);
        // The Rust API rejects an invalid plan later, when it creates the map. Return the status of
        // that failure, so that both APIs return the same status.
        plan_handle.map_err(|status| {
            assert_eq!(status, vipool_status::VIPOOL_ERR_FARM as Status);
            vipool_status::VIPOOL_ERR_PLAN as Status
        })
    }
}

fn new_farm() -> *mut vipool_farm {
    let mut farm = null_mut();
    // SAFETY: the output pointer is valid.
    check(unsafe { vipool_farm_new(&mut farm) }).unwrap();
    farm
}

/// Creates the plan of a host. The caller frees the plan.
///
/// # Safety
/// `farm` is a valid farm handle.
pub unsafe fn new_plan(
    farm: *mut vipool_farm,
    host: &str,
    interfaces: Option<&[Interface]>,
    flags: u32,
) -> Result<*mut vipool_plan, Status> {
    let mut plan = null_mut();
    with_interfaces(interfaces, |array, count| {
        let mut options = sized::<vipool_plan_options>();
        (options.host, options.host_length) = (c_chars(host), host.len());
        (options.interfaces, options.interface_count) = (array, count);
        options.flags = flags;
        // SAFETY: the caller passes a valid farm. The struct and its texts are valid.
        check(unsafe { vipool_plan_new(farm, &options, &mut plan) })
    })
    .map(|()| plan)
}

/// Returns the number of findings of at least this level.
///
/// # Safety
/// `farm` is a valid farm handle.
unsafe fn count_findings(farm: *const vipool_farm, level: vipool_level) -> usize {
    let (mut count, mut total) = (0, 0);
    // SAFETY: the caller passes a valid farm. The output pointers are valid.
    check(unsafe {
        let level = level as u32;
        vipool_farm_list_findings(farm, level, 0, null_mut(), 0, &mut count, &mut total)
    })
    .unwrap();
    assert_eq!(count, 0);
    total
}

/// Calls `body` with an interface that has these addresses, or with `None` if `addresses` is empty.
/// `vipool_plan_new` reads the addresses of the host from the interfaces.
fn with_host_interface<R>(addresses: &[IpAddr], body: impl FnOnce(Option<&[Interface]>) -> R) -> R {
    if addresses.is_empty() {
        return body(None);
    }
    let subnets = addresses.iter().map(|address| IpNet::new(*address, 24).unwrap()).collect();
    let interface = Interface { index: 1, name: "test0".into(), addresses: subnets };
    body(Some(&[interface]))
}

/// Adds the pools, the reservations, the settings and the policy of a plan to a farm.
///
/// Skips the host addresses of the policy, because a farm has none.
///
/// # Safety
/// `farm` is a valid farm handle.
unsafe fn fill_farm(farm: *mut vipool_farm, plan: &Plan) {
    let pools_of_kind = |kind| plan.pools.iter().filter(move |pool| pool.kind() == kind);
    let ranges =
        |pool: &Pool| -> Vec<_> { pool.blocks().iter().map(|(_, range)| c_range(range)).collect() };
    // SAFETY: all arguments are valid during the calls.
    unsafe {
        for pool in pools_of_kind(PoolKind::VirtualIp) {
            let (name, addresses) = (pool.name(), ranges(pool));
            check(vipool_farm_add_pool(farm, c_chars(name), name.len(), pool.slot_count()))
                .unwrap();
            let range = vipool_server_range {
                addresses: addresses.as_ptr(),
                address_count: addresses.len(),
                pool: c_chars(name),
                pool_length: name.len(),
                ..sized()
            };
            check(vipool_farm_add_range(farm, &range)).unwrap();
        }
        let loopback_ranges: Vec<_> = pools_of_kind(PoolKind::Loopback).flat_map(ranges).collect();
        let (array, count) = (loopback_ranges.as_ptr(), loopback_ranges.len());
        check(vipool_farm_set_loopback(farm, array, count, null(), 0)).unwrap();
        add_pool_rules(farm, &plan.policy.pool_rules);
        add_reservations(farm, &plan.reservations);
        check(vipool_farm_set_settings(farm, &c_settings(&plan.settings))).unwrap();
        add_programs(farm, &plan.policy.programs);
        let udp_ports = ports(&plan.policy.wildcard_udp_ports);
        set_rewrite(farm, &udp_ports, &[], plan.policy.rewrite);
    }
}

/// Adds pool rules to a farm.
///
/// # Safety
/// `farm` is a valid farm handle.
unsafe fn add_pool_rules(farm: *mut vipool_farm, rules: &[PoolRule]) {
    for (pool, kind, name) in pool_rule_names(rules) {
        let (text, length) = (c_chars(pool), pool.len());
        // SAFETY: all arguments are valid during the call.
        check(unsafe {
            vipool_farm_add_pool_rule(farm, text, length, kind, c_chars(name), name.len())
        })
        .unwrap();
    }
}

/// Adds reservations to a farm.
///
/// # Safety
/// `farm` is a valid farm handle.
unsafe fn add_reservations(farm: *mut vipool_farm, reservations: &[Reservation]) {
    for reservation in reservations {
        let (user, address) = (&reservation.user, c_ip(reservation.address));
        // SAFETY: all arguments are valid during the call.
        check(unsafe { vipool_farm_add_reservation(farm, c_chars(user), user.len(), &address) })
            .unwrap();
    }
}

/// Adds rules of the process list to a farm.
///
/// # Safety
/// `farm` is a valid farm handle.
unsafe fn add_programs(farm: *mut vipool_farm, programs: &[Program]) {
    for rule in programs {
        let (own_ports, shared_ports) = (ports(&rule.own_ports), ports(&rule.shared_ports));
        let program = c_program(rule, &own_ports, &shared_ports);
        // SAFETY: all arguments are valid during the call.
        check(unsafe { vipool_farm_add_program(farm, &program) }).unwrap();
    }
}

/// Sets the rewrite settings of a farm.
///
/// # Safety
/// `farm` is a valid farm handle.
unsafe fn set_rewrite(
    farm: *mut vipool_farm,
    udp_ports: &[vipool_ports],
    fixed_ports: &[vipool_ports],
    flags: RewriteFlags,
) {
    let settings = vipool_rewrite_settings {
        wildcard_udp_ports: udp_ports.as_ptr(),
        wildcard_udp_port_count: udp_ports.len(),
        fixed_ports: fixed_ports.as_ptr(),
        fixed_port_count: fixed_ports.len(),
        flags: flags.bits(),
        ..sized()
    };
    // SAFETY: all arguments are valid during the call.
    check(unsafe { vipool_farm_set_rewrite(farm, &settings) }).unwrap();
}

/// Converts a rule of the process list. `own_ports` and `shared_ports` are the ports of the rule as
/// C structs. The result points to these arrays and to the texts of the rule.
fn c_program(
    rule: &Program,
    own_ports: &[vipool_ports],
    shared_ports: &[vipool_ports],
) -> vipool_program {
    let pointer_and_length = |value: &Option<String>| {
        value.as_ref().map_or((null(), 0), |text| (c_chars(text), text.len()))
    };
    let ((script, script_length), (target, target_length)) =
        (pointer_and_length(&rule.script), pointer_and_length(&rule.target));
    vipool_program {
        pattern: c_chars(&rule.pattern),
        pattern_length: rule.pattern.len(),
        script,
        script_length,
        target,
        target_length,
        features: rule.features.bits(),
        flags: rule.flags.bits(),
        own_ports: own_ports.as_ptr(),
        own_port_count: own_ports.len(),
        shared_ports: shared_ports.as_ptr(),
        shared_port_count: shared_ports.len(),
        ..sized()
    }
}

/// Returns the users, groups and programs of the pool rules.
///
/// An item consists of a pool, a kind (`vipool_pool_rule`) and a name.
fn pool_rule_names(rules: &[PoolRule]) -> impl Iterator<Item = (&str, u32, &str)> {
    rules.iter().flat_map(|rule| {
        (1..).zip([&rule.users, &rule.groups, &rule.programs]).flat_map(move |(kind, names)| {
            names.iter().map(move |name| (&*rule.pool, kind, &**name))
        })
    })
}

fn c_ranges(ranges: &[vipool::range::Range]) -> Vec<vipool::capi::address::vipool_range> {
    ranges.iter().map(c_range).collect()
}

fn c_subnet(subnet: &IpNet) -> vipool_subnet {
    vipool_subnet { address: c_ip(subnet.addr()), prefix_length: subnet.prefix_len().into() }
}

/// Builds a copy of a farm with functions of the C ABI. The caller frees the copy.
pub fn farm(farm: &Farm) -> *mut vipool_farm {
    let handle = new_farm();
    // SAFETY: all arguments are valid during the calls.
    unsafe {
        add_servers_and_ranges(handle, farm);
        let (addresses, excluded) =
            (c_ranges(&farm.loopback.ranges), c_ranges(&farm.loopback.exclude));
        let (array, count) = (addresses.as_ptr(), addresses.len());
        let (excluded, excluded_count) = (excluded.as_ptr(), excluded.len());
        check(vipool_farm_set_loopback(handle, array, count, excluded, excluded_count)).unwrap();
        let subnets: Vec<_> = farm.network.subnets.iter().map(c_subnet).collect();
        let dhcp_ranges = c_ranges(&farm.network.dhcp_ranges);
        let (subnets, count) = (subnets.as_ptr(), subnets.len());
        let (dhcp, dhcp_count) = (dhcp_ranges.as_ptr(), dhcp_ranges.len());
        check(vipool_farm_set_network(handle, subnets, count, dhcp, dhcp_count)).unwrap();
        set_session_settings(handle, farm);
        add_reservations(handle, &farm.reservations);
        add_programs(handle, &farm.programs);
        let udp_ports = ports(&farm.rewrite.wildcard_udp_ports);
        let fixed_ports = ports(&farm.rewrite.fixed_ports);
        set_rewrite(handle, &udp_ports, &fixed_ports, farm.rewrite.flags);
    }
    handle
}

/// Adds the servers, the pools with their rules, and the ranges of `farm` to the farm of `handle`.
///
/// # Safety
/// `handle` is a valid farm handle.
unsafe fn add_servers_and_ranges(handle: *mut vipool_farm, farm: &Farm) {
    for server in &farm.servers {
        let c_server = vipool_server {
            name: c_chars(&server.name),
            name_length: server.name.len(),
            max_sessions: server.max_sessions.unwrap_or(0),
            flags: u32::from(!server.enabled) * VIPOOL_SERVER_DISABLED
                + u32::from(server.max_sessions.is_some()) * VIPOOL_SERVER_MAX_SESSIONS,
            ..sized()
        };
        // SAFETY: all arguments are valid during the call.
        check(unsafe { vipool_farm_add_server(handle, &c_server) }).unwrap();
    }
    for pool in &farm.pools {
        let (name, length) = (c_chars(&pool.rule.pool), pool.rule.pool.len());
        let max_addresses = pool.max_addresses.unwrap_or(0);
        // SAFETY: all arguments are valid during the call.
        check(unsafe { vipool_farm_add_pool(handle, name, length, max_addresses) }).unwrap();
    }
    let rules: Vec<_> = farm.pools.iter().map(|pool| pool.rule.clone()).collect();
    // SAFETY: all arguments are valid during the call.
    unsafe { add_pool_rules(handle, &rules) };
    for entry in &farm.ranges {
        let (addresses, excluded) = (c_ranges(&entry.addresses), c_ranges(&entry.exclude));
        let server = entry.server.as_deref();
        let c_range = vipool_server_range {
            addresses: addresses.as_ptr(),
            address_count: addresses.len(),
            excluded: excluded.as_ptr(),
            excluded_count: excluded.len(),
            server: server.map_or(null(), c_chars),
            server_length: server.map_or(0, str::len),
            pool: c_chars(&entry.pool),
            pool_length: entry.pool.len(),
            ..sized()
        };
        // SAFETY: all arguments are valid during the call.
        check(unsafe { vipool_farm_add_range(handle, &c_range) }).unwrap();
    }
}

/// Copies the session settings of `farm` to the farm of `handle`.
///
/// Also checks the default settings of the C ABI.
///
/// # Safety
/// `handle` is a valid farm handle.
unsafe fn set_session_settings(handle: *mut vipool_farm, farm: &Farm) {
    let (mut defaults_in_c, mut farm_settings) = (sized(), sized());
    // SAFETY: the caller passes a valid farm, and the structs are valid.
    unsafe {
        check(vipool_settings_get_default(&mut defaults_in_c)).unwrap();
        check(vipool_farm_get_settings(handle, &mut farm_settings)).unwrap();
    }
    for default in [settings(&defaults_in_c), settings(&farm_settings)] {
        assert_eq!((default, default), (Settings::default(), Farm::default().sessions));
    }
    // SAFETY: the caller passes a valid farm, and the struct is valid.
    check(unsafe { vipool_farm_set_settings(handle, &c_settings(&farm.sessions)) }).unwrap();
}

/// Passes the interfaces to `body` as an array. For `None`, passes NULL and 0.
pub fn with_interfaces<R>(
    interfaces: Option<&[Interface]>,
    body: impl FnOnce(*const vipool_interface, usize) -> R,
) -> R {
    let Some(interfaces) = interfaces else { return body(null(), 0) };
    let addresses: Vec<Vec<_>> = interfaces
        .iter()
        .map(|interface| interface.addresses.iter().map(c_subnet).collect())
        .collect();
    let array: Vec<_> = interfaces
        .iter()
        .zip(&addresses)
        .map(|(interface, addresses)| vipool_interface {
            name: c_chars(&interface.name),
            name_length: interface.name.len(),
            addresses: addresses.as_ptr(),
            address_count: addresses.len(),
            index: interface.index,
            ..sized()
        })
        .collect();
    body(array.as_ptr(), array.len())
}
