//! What a map is made from, built by calls: pools, settings, the process list.

use std::ffi::c_char;

use super::address::{vipool_ip, vipool_range};
use super::handle::{Exclusive, Owned, exclusive, free, give, not_null};
use super::layout::{layout, read};
use super::list::{listed, port_ranges, vipool_ports, vipool_program};
use super::outcome::{Failure, call, quiet};
use super::settings::vipool_settings;
use super::status::vipool_status::{self, *};
use super::text::{array, flags, utf8};
use crate::map::Plan;
use crate::policy::{PoolRule, RewriteFlags};
use crate::pool::{MAX_SLOTS, Pool, PoolKind, Reservation};

/// What a map is made from: the pools of this server, how addresses are given out, and the process
/// list. Built by calls (vipool_plan_new()) or from farm.toml (vipool_farm_plan()).
///
/// One thread at a time may use it. A map keeps nothing of it.
pub struct vipool_plan {
    pub(crate) plan: Plan,
}

impl Owned for vipool_plan {
    type Access = Exclusive;
}

/// What the addresses of a pool are for; it enters as uint32_t.
#[repr(u32)]
#[derive(Clone, Copy, Debug)]
pub enum vipool_pool_kind {
    /// V: addresses of the network.
    VIPOOL_POOL_VIRTUAL_IP = 1,
    /// L: addresses inside 127.0.0.2-127.255.255.254; every second one stands for ::1.
    VIPOOL_POOL_LOOPBACK = 2,
}

/// Whose sessions a rule sends to a pool; it enters as uint32_t.
#[repr(u32)]
#[derive(Clone, Copy, Debug)]
pub enum vipool_pool_rule {
    /// Those of the user of this name.
    VIPOOL_POOL_RULE_USER = 1,
    /// Those of members of the group of this name.
    VIPOOL_POOL_RULE_GROUP = 2,
    /// Those in which this program is started: a full path or a bare file name.
    VIPOOL_POOL_RULE_PROGRAM = 3,
}

/// Of vipool_rules.flags: binds pass when the virtual IP is on no interface; otherwise they fail
/// with EADDRNOTAVAIL.
pub const VIPOOL_RULE_PASS_WHEN_MISSING: u32 = 1;
/// Of vipool_rules.flags: other sessions' addresses are hidden from getifaddrs and
/// GetAdaptersAddresses.
pub const VIPOOL_RULE_HIDE_ADDRESSES: u32 = 2;
const _: () = assert!(
    VIPOOL_RULE_PASS_WHEN_MISSING | VIPOOL_RULE_HIDE_ADDRESSES == RewriteFlags::ALL_BITS,
    "a flag of the table has no C constant"
);

/// What hook layers go by beside the process list. The arrays are copied.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct vipool_rules {
    /// sizeof(vipool_rules), set by the caller.
    pub size: usize,
    /// The addresses of the host itself on the interfaces that the pools belong to: a bind to one
    /// of them becomes one to the session's virtual IP. May be NULL for none.
    pub host_addresses: *const vipool_ip,
    /// How many they are.
    pub host_address_count: usize,
    /// UDP ports whose wildcard binds stay wildcard (multicast and broadcast receivers). May be
    /// NULL for none.
    pub wildcard_udp_ports: *const vipool_ports,
    /// How many they are.
    pub wildcard_udp_port_count: usize,
    /// VIPOOL_RULE_...
    pub flags: u32,
    /// Zero.
    pub reserved: u32,
}
layout!(vipool_rules {
    size,
    host_addresses,
    host_address_count,
    wildcard_udp_ports,
    wildcard_udp_port_count,
    flags,
    reserved,
});

/// The names in a rule that are of this kind.
pub(crate) fn names_of(rule: &mut PoolRule, kind: u32) -> Result<&mut Vec<String>, Failure> {
    match kind {
        1 => Ok(&mut rule.users),
        2 => Ok(&mut rule.groups),
        3 => Ok(&mut rule.programs),
        other => Err(VIPOOL_ERR_KIND.because(format_args!("no kind of rule: {other}"))),
    }
}

/// An address that is kept for a user.
///
/// # Safety
/// As for [`utf8`]; `address` is NULL or valid for reads.
pub(crate) unsafe fn reservation(
    user: *const c_char,
    user_length: usize,
    address: *const vipool_ip,
) -> Result<Reservation, Failure> {
    // SAFETY: the caller's promise.
    let (user, address) =
        unsafe { (utf8(user, user_length)?, address.as_ref().ok_or(VIPOOL_ERR_NULL)?) };
    Ok(Reservation { user: user.to_owned(), address: address.required()? })
}

/// Makes a plan without pools, with the default settings and an empty process list.
///
/// Give it back with vipool_plan_free(). Errors: VIPOOL_ERR_NULL. May be called from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_plan_new(out: *mut *mut vipool_plan) -> vipool_status {
    call(|| {
        not_null(out)?;
        // SAFETY: not NULL.
        unsafe { give(vipool_plan { plan: Plan::default() }, out) };
        Ok(())
    })
}

/// Frees a plan. NULL is nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_plan_free(plan: *mut vipool_plan) {
    // SAFETY: the caller gives the handle back.
    quiet(|| unsafe { free(plan) });
}

/// Adds a pool: ranges of one family, with everything that must not be given out cut away already
/// (network, broadcast, host and excluded addresses; see vipool_range_without()).
///
/// `name`: what sessions choose it by, "default" being the one taken if none is named; a pool of
/// IPv4 and one of IPv6 may share a name, none may share addresses. `kind`: vipool_pool_kind.
/// `max_slots`: at most so many addresses, 0 for all; a sparse IPv6 prefix is cut there. The number
/// of a pool is how many were added before it, but for a map that takes the place of another one:
/// pools that were there keep their numbers.
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_UTF8, VIPOOL_ERR_KIND, VIPOOL_ERR_ADDRESS,
/// VIPOOL_ERR_RANGE_ORDER, VIPOOL_ERR_POOL_MIXED, VIPOOL_ERR_POOL_OVERLAP,
/// VIPOOL_ERR_POOL_NOT_LOOPBACK.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_plan_add_pool(
    plan: *mut vipool_plan,
    name: *const c_char,
    name_length: usize,
    kind: u32,
    ranges: *const vipool_range,
    range_count: usize,
    max_slots: u32,
) -> vipool_status {
    call(|| {
        // SAFETY: the caller vouches for handle, text and array.
        let (plan, name, ranges) =
            unsafe { (exclusive(plan)?, utf8(name, name_length)?, array(ranges, range_count)?) };
        let kind = match kind {
            1 => PoolKind::VirtualIp,
            2 => PoolKind::Loopback,
            other => return Err(VIPOOL_ERR_KIND.because(format_args!("no kind of pool: {other}"))),
        };
        let ranges = ranges.iter().map(vipool_range::get).collect::<Result<Vec<_>, _>>()?;
        let max_slots = if max_slots == 0 { MAX_SLOTS } else { max_slots };
        plan.plan.pools.push(Pool::new(name, kind, &ranges, max_slots)?);
        Ok(())
    })
}

/// Finds vipool_program.target of every listed path that is a symbolic link on this machine, so that
/// the rule holds for the file behind it. The plan is then one for this machine. Programs that are
/// added later are not looked at.
///
/// Errors: VIPOOL_ERR_NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_plan_follow_links(plan: *mut vipool_plan) -> vipool_status {
    call(|| {
        // SAFETY: the caller vouches for the handle.
        let plan = unsafe { exclusive(plan) }?;
        plan.plan.policy.resolve_links(|path| std::fs::canonicalize(path));
        Ok(())
    })
}

/// Sets how addresses are given out.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_UNKNOWN_FIELD, VIPOOL_ERR_KIND.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_plan_set_settings(
    plan: *mut vipool_plan,
    settings: *const vipool_settings,
) -> vipool_status {
    call(|| {
        // SAFETY: the caller vouches for handle and struct.
        let (plan, settings) = unsafe { (exclusive(plan)?, read(settings)?) };
        plan.plan.settings = settings.get()?;
        Ok(())
    })
}

/// Adds a rule to the process list. The most specific rule that holds for a program wins, the
/// first of equals.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_UNKNOWN_FIELD, VIPOOL_ERR_UTF8,
/// VIPOOL_ERR_KIND, VIPOOL_ERR_RANGE_ORDER (ports).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_plan_add_program(
    plan: *mut vipool_plan,
    program: *const vipool_program,
) -> vipool_status {
    call(|| {
        // SAFETY: the caller vouches for handle and struct.
        let (plan, program) = unsafe { (exclusive(plan)?, listed(program)?) };
        plan.plan.policy.programs.push(program);
        Ok(())
    })
}

/// Sets what hook layers go by beside the process list.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_UNKNOWN_FIELD, VIPOOL_ERR_ADDRESS,
/// VIPOOL_ERR_KIND, VIPOOL_ERR_RANGE_ORDER (ports).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_plan_set_rules(
    plan: *mut vipool_plan,
    rules: *const vipool_rules,
) -> vipool_status {
    call(|| {
        // SAFETY: the caller vouches for handle and struct.
        let (plan, given) = unsafe { (exclusive(plan)?, read(rules)?) };
        let flags = flags(given.flags, RewriteFlags::ALL_BITS)?;
        // SAFETY: the caller vouches for the arrays in the struct.
        let (hosts, ports) = unsafe {
            (
                array(given.host_addresses, given.host_address_count)?,
                port_ranges(given.wildcard_udp_ports, given.wildcard_udp_port_count)?,
            )
        };
        let hosts = hosts.iter().map(vipool_ip::required).collect::<Result<Vec<_>, _>>()?;
        let policy = &mut plan.plan.policy;
        policy.host_addresses = hosts;
        policy.wildcard_udp_ports = ports;
        policy.rewrite = RewriteFlags::from_bits(flags);
        Ok(())
    })
}

/// Keeps an address of one of the pools for a user, whose name is `user_length` bytes of UTF-8.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_UTF8, VIPOOL_ERR_ADDRESS. Whether a pool has the address
/// shows when a map is made.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_plan_add_reservation(
    plan: *mut vipool_plan,
    user: *const c_char,
    user_length: usize,
    address: *const vipool_ip,
) -> vipool_status {
    call(|| {
        // SAFETY: the caller vouches for handle, text and address.
        let (plan, kept) = unsafe { (exclusive(plan)?, reservation(user, user_length, address)?) };
        plan.plan.reservations.push(kept);
        Ok(())
    })
}

/// Adds a rule by which sessions take their virtual IPs from a pool: `kind` (vipool_pool_rule) and
/// `name` say whose. A rule for the user wins over one for a group, that over one for a program;
/// of equals the first.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_UTF8, VIPOOL_ERR_KIND.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_plan_add_pool_rule(
    plan: *mut vipool_plan,
    pool: *const c_char,
    pool_length: usize,
    kind: u32,
    name: *const c_char,
    name_length: usize,
) -> vipool_status {
    call(|| {
        // SAFETY: the caller vouches for handle and texts.
        let (plan, pool, name) =
            unsafe { (exclusive(plan)?, utf8(pool, pool_length)?, utf8(name, name_length)?) };
        let mut rule = PoolRule { pool: pool.to_owned(), ..PoolRule::default() };
        names_of(&mut rule, kind)?.push(name.to_owned());
        plan.plan.policy.pool_rules.push(rule);
        Ok(())
    })
}
