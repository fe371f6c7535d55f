//! Configures a farm by calls: the same values and the same validation as farm.toml.

use std::ffi::c_char;

use super::address::{read_ranges, vipool_ip, vipool_range};
use super::error::{CallError, catch_panic};
use super::farm::vipool_farm;
use super::handle::{borrow_exclusive, not_null, read_exclusive};
use super::interface::vipool_subnet;
use super::layout::{check_out, layout, read, write};
use super::process_list::{read_ports, read_program, vipool_ports, vipool_program};
use super::settings::vipool_settings;
use super::status::vipool_status::{self, *};
use super::text::{array, check_flags, check_reserved, optional_utf8, utf8};
use crate::farm::{Farm, PoolOptions, RewriteOptions, Server, ServerRange};
use crate::policy::{PoolRule, RewriteFlags};
use crate::pool::{DEFAULT_POOL, Reservation};

/// vipool_server.flags: sessions on this server get no addresses.
pub const VIPOOL_SERVER_DISABLED: u32 = 1;
/// vipool_server.flags: max_sessions replaces vipool_settings.max_sessions.
pub const VIPOOL_SERVER_MAX_SESSIONS: u32 = 2;

/// A server of a farm.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct vipool_server {
    /// sizeof(vipool_server), set by the caller.
    pub size: usize,
    /// Host name, with or without the domain. Case does not matter.
    pub name: *const c_char,
    /// Length of `name` in bytes.
    pub name_length: usize,
    /// With VIPOOL_SERVER_MAX_SESSIONS: the most sessions at once; 0 for no limit.
    pub max_sessions: u32,
    /// VIPOOL_SERVER_...
    pub flags: u32,
}
layout!(vipool_server { size, name, name_length, max_sessions, flags });

/// Ranges for one pool of one server. The library copies texts and arrays.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct vipool_server_range {
    /// sizeof(vipool_server_range), set by the caller.
    pub size: usize,
    /// The ranges, IPv4 or IPv6.
    pub addresses: *const vipool_range,
    /// Number of `addresses`.
    pub address_count: usize,
    /// Ranges inside them that no session gets. May be NULL for none.
    pub excluded: *const vipool_range,
    /// Number of `excluded`.
    pub excluded_count: usize,
    /// Name of the server. May be NULL if the farm has one server.
    pub server: *const c_char,
    /// Length of `server` in bytes.
    pub server_length: usize,
    /// Name of the pool. NULL means "default".
    pub pool: *const c_char,
    /// Length of `pool` in bytes.
    pub pool_length: usize,
}
layout!(vipool_server_range {
    size,
    addresses,
    address_count,
    excluded,
    excluded_count,
    server,
    server_length,
    pool,
    pool_length,
});

/// Which sessions a pool rule applies to.
#[repr(u32)]
#[derive(Clone, Copy, Debug)]
pub enum vipool_pool_rule {
    /// Sessions of the user of this name.
    VIPOOL_POOL_RULE_USER = 1,
    /// Sessions of the members of the group of this name.
    VIPOOL_POOL_RULE_GROUP = 2,
    /// Sessions in which this program is started: a full path or a bare file name.
    VIPOOL_POOL_RULE_PROGRAM = 3,
}

/// vipool_rewrite_settings.flags: a bind passes if the virtual IP is on no interface. Without the flag
/// it fails with EADDRNOTAVAIL.
pub const VIPOOL_REWRITE_PASS_WHEN_MISSING: u32 = 1;
/// vipool_rewrite_settings.flags: getifaddrs and GetAdaptersAddresses do not list the addresses of
/// other sessions.
pub const VIPOOL_REWRITE_HIDE_ADDRESSES: u32 = 2;

const _: () = assert!(
    VIPOOL_REWRITE_PASS_WHEN_MISSING | VIPOOL_REWRITE_HIDE_ADDRESSES == RewriteFlags::ALL_BITS,
    "a flag of the table has no C constant"
);

/// Settings for all programs of the process list. The library copies the arrays.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct vipool_rewrite_settings {
    /// sizeof(vipool_rewrite_settings), set by the caller.
    pub size: usize,
    /// UDP ports whose wildcard binds pass (multicast and broadcast receivers). NULL for the
    /// defaults 5353, 1900, 3702, 5355, 67 and 68. For no port: not NULL, and a count of 0.
    pub wildcard_udp_ports: *const vipool_ports,
    /// Number of `wildcard_udp_ports`.
    pub wildcard_udp_port_count: usize,
    /// Ports that programs bind, in addition to their own_ports: see
    /// vipool_farm_list_fixed_ports(). May be NULL for none.
    pub fixed_ports: *const vipool_ports,
    /// Number of `fixed_ports`.
    pub fixed_port_count: usize,
    /// VIPOOL_REWRITE_...
    pub flags: u32,
    /// Reserved: zero.
    pub reserved: u32,
}
layout!(vipool_rewrite_settings {
    size,
    wildcard_udp_ports,
    wildcard_udp_port_count,
    fixed_ports,
    fixed_port_count,
    flags,
    reserved,
});

/// Changes a farm.
///
/// # Safety
/// As for [`borrow_exclusive`].
unsafe fn change_farm(
    farm: *mut vipool_farm,
    change: impl FnOnce(&mut Farm) -> Result<(), CallError>,
) -> vipool_status {
    // SAFETY: the caller guarantees the handle.
    catch_panic(|| change(&mut unsafe { borrow_exclusive(farm) }?.farm))
}

/// Adds a server.
///
/// Parameters:
/// - `farm`: the farm.
/// - `server`: the server.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_UNKNOWN_FIELD, VIPOOL_ERR_UTF8,
/// VIPOOL_ERR_KIND (flags).
///
/// Threads: one at a time per farm.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_farm_add_server(
    farm: *mut vipool_farm,
    server: *const vipool_server,
) -> vipool_status {
    // SAFETY: the caller guarantees handle, struct and text.
    unsafe {
        change_farm(farm, |farm| {
            let given = read(server)?;
            let known = VIPOOL_SERVER_DISABLED | VIPOOL_SERVER_MAX_SESSIONS;
            let flags = check_flags(given.flags, known)?;
            let has_limit = flags & VIPOOL_SERVER_MAX_SESSIONS != 0;
            farm.servers.push(Server {
                enabled: flags & VIPOOL_SERVER_DISABLED == 0,
                max_sessions: has_limit.then_some(given.max_sessions),
                ..Server::new(utf8(given.name, given.name_length)?)
            });
            Ok(())
        })
    }
}

/// Adds ranges to a pool of a server.
///
/// Parameters:
/// - `farm`: the farm.
/// - `range`: the ranges, the server and the pool.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_UNKNOWN_FIELD, VIPOOL_ERR_UTF8,
/// VIPOOL_ERR_ADDRESS, VIPOOL_ERR_RANGE_ORDER.
///
/// Threads: one at a time per farm.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_farm_add_range(
    farm: *mut vipool_farm,
    range: *const vipool_server_range,
) -> vipool_status {
    // SAFETY: the caller guarantees handle, struct, texts and arrays.
    unsafe {
        change_farm(farm, |farm| {
            let given = read(range)?;
            let server = optional_utf8(given.server, given.server_length)?;
            let pool = optional_utf8(given.pool, given.pool_length)?;
            farm.ranges.push(ServerRange {
                addresses: read_ranges(given.addresses, given.address_count)?,
                exclude: read_ranges(given.excluded, given.excluded_count)?,
                server: server.map(str::to_owned),
                pool: pool.unwrap_or(DEFAULT_POOL).to_owned(),
            });
            Ok(())
        })
    }
}

/// Returns the pool of this name. Adds it if it is missing.
fn pool_options<'f>(farm: &'f mut Farm, name: &str) -> &'f mut PoolOptions {
    let index = farm.pools.iter().position(|pool| pool.rule.pool == name);
    let index = index.unwrap_or_else(|| {
        let rule = PoolRule { pool: name.to_owned(), ..PoolRule::default() };
        farm.pools.push(PoolOptions { rule, max_addresses: None });
        farm.pools.len() - 1
    });
    &mut farm.pools[index]
}

/// Declares a pool, so that ranges and rules can name it. The pool "default" always exists.
///
/// Parameters:
/// - `farm`: the farm.
/// - `name`, `name_length`: the pool, UTF-8.
/// - `max_addresses`: the most addresses of each family that the pool uses, from the lowest on. 0
///   for all of IPv4 and 4096 of IPv6.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_UTF8.
///
/// Threads: one at a time per farm.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_farm_add_pool(
    farm: *mut vipool_farm,
    name: *const c_char,
    name_length: usize,
    max_addresses: u32,
) -> vipool_status {
    // SAFETY: the caller guarantees handle and text.
    unsafe {
        change_farm(farm, |farm| {
            let name = utf8(name, name_length)?;
            let limit = (max_addresses != 0).then_some(max_addresses);
            pool_options(farm, name).max_addresses = limit;
            Ok(())
        })
    }
}

/// Returns the names of a pool rule that are of this kind.
fn rule_names(rule: &mut PoolRule, kind: u32) -> Result<&mut Vec<String>, CallError> {
    match kind {
        1 => Ok(&mut rule.users),
        2 => Ok(&mut rule.groups),
        3 => Ok(&mut rule.programs),
        other => {
            Err(VIPOOL_ERR_KIND.with_message(format_args!("unknown kind of pool rule: {other}")))
        }
    }
}

/// Adds a rule that selects the pool of a session's virtual IP.
///
/// A rule for the user precedes one for a group, which precedes one for a program. Of rules of the
/// same kind, the one whose pool was declared first precedes.
///
/// Parameters:
/// - `farm`: the farm.
/// - `pool`, `pool_length`: the pool, UTF-8.
/// - `kind`: vipool_pool_rule.
/// - `name`, `name_length`: the user, group or program, UTF-8.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_UTF8, VIPOOL_ERR_KIND.
///
/// Threads: one at a time per farm.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_farm_add_pool_rule(
    farm: *mut vipool_farm,
    pool: *const c_char,
    pool_length: usize,
    kind: u32,
    name: *const c_char,
    name_length: usize,
) -> vipool_status {
    // SAFETY: the caller guarantees handle and texts.
    unsafe {
        change_farm(farm, |farm| {
            let (pool, name) = (utf8(pool, pool_length)?, utf8(name, name_length)?);
            // The kind is checked first: an error must not add the pool.
            rule_names(&mut PoolRule::default(), kind)?;
            rule_names(&mut pool_options(farm, pool).rule, kind)?.push(name.to_owned());
            Ok(())
        })
    }
}

/// Reserves an address for a user.
///
/// Parameters:
/// - `farm`: the farm.
/// - `user`, `user_length`: the name of the user, UTF-8.
/// - `address`: the address.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_UTF8, VIPOOL_ERR_ADDRESS.
///
/// Threads: one at a time per farm.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_farm_add_reservation(
    farm: *mut vipool_farm,
    user: *const c_char,
    user_length: usize,
    address: *const vipool_ip,
) -> vipool_status {
    // SAFETY: the caller guarantees handle, text and address.
    unsafe {
        change_farm(farm, |farm| {
            let user = utf8(user, user_length)?.to_owned();
            let address = address.as_ref().ok_or(VIPOOL_ERR_NULL)?.required()?;
            farm.reservations.push(Reservation { user, address });
            Ok(())
        })
    }
}

/// Adds a rule to the process list.
///
/// The most specific rule that matches a program applies; of equally specific rules, the first.
///
/// Parameters:
/// - `farm`: the farm.
/// - `program`: the rule.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_UNKNOWN_FIELD, VIPOOL_ERR_UTF8,
/// VIPOOL_ERR_KIND, VIPOOL_ERR_RANGE_ORDER (ports).
///
/// Threads: one at a time per farm.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_farm_add_program(
    farm: *mut vipool_farm,
    program: *const vipool_program,
) -> vipool_status {
    // SAFETY: the caller guarantees handle, struct, texts and arrays.
    unsafe {
        change_farm(farm, |farm| {
            farm.programs.push(read_program(program)?);
            Ok(())
        })
    }
}

/// Sets the addresses of 127.0.0.0/8 for sessions. Each session takes two of them.
///
/// The default is 127.100.0.0/20. Without ranges no session gets a loopback address. 127.0.0.1 is
/// never allocated.
///
/// Parameters:
/// - `farm`: the farm.
/// - `addresses`, `address_count`: the ranges. May be NULL for none.
/// - `excluded`, `excluded_count`: ranges inside them that no session gets. May be NULL for none.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_ADDRESS, VIPOOL_ERR_RANGE_ORDER.
///
/// Threads: one at a time per farm.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_farm_set_loopback(
    farm: *mut vipool_farm,
    addresses: *const vipool_range,
    address_count: usize,
    excluded: *const vipool_range,
    excluded_count: usize,
) -> vipool_status {
    // SAFETY: the caller guarantees handle and arrays.
    unsafe {
        change_farm(farm, |farm| {
            let exclude = read_ranges(excluded, excluded_count)?;
            farm.loopback.ranges = read_ranges(addresses, address_count)?;
            farm.loopback.exclude = exclude;
            Ok(())
        })
    }
}

/// Sets the known subnets and DHCP ranges, so that ranges can be validated on any machine.
///
/// Parameters:
/// - `farm`: the farm.
/// - `subnets`, `subnet_count`: the subnets of the servers. May be NULL for none.
/// - `dhcp_ranges`, `dhcp_range_count`: the ranges of a DHCP server. May be NULL for none.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_ADDRESS, VIPOOL_ERR_RANGE_ORDER.
///
/// Threads: one at a time per farm.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_farm_set_network(
    farm: *mut vipool_farm,
    subnets: *const vipool_subnet,
    subnet_count: usize,
    dhcp_ranges: *const vipool_range,
    dhcp_range_count: usize,
) -> vipool_status {
    // SAFETY: the caller guarantees handle and arrays.
    unsafe {
        change_farm(farm, |farm| {
            let subnets = array(subnets, subnet_count)?;
            let subnets = subnets.iter().map(|subnet| Ok(subnet.get()?.trunc()));
            let subnets = subnets.collect::<Result<_, CallError>>()?;
            farm.network.dhcp_ranges = read_ranges(dhcp_ranges, dhcp_range_count)?;
            farm.network.subnets = subnets;
            Ok(())
        })
    }
}

/// Sets how addresses are allocated.
///
/// Replaces all settings. To change some of them, start with vipool_farm_get_settings().
///
/// Parameters:
/// - `farm`: the farm.
/// - `settings`: the settings.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_UNKNOWN_FIELD, VIPOOL_ERR_KIND.
///
/// Threads: one at a time per farm.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_farm_set_settings(
    farm: *mut vipool_farm,
    settings: *const vipool_settings,
) -> vipool_status {
    // SAFETY: the caller guarantees handle and struct.
    unsafe {
        change_farm(farm, |farm| {
            farm.sessions = read(settings)?.get()?;
            Ok(())
        })
    }
}

/// Returns how addresses are allocated.
///
/// The defaults are a cool-down of 120 seconds and VIPOOL_SETTING_CHECK_IN_USE.
///
/// Parameters:
/// - `farm`: the farm.
/// - `out`: receives the settings.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE.
///
/// Threads: one at a time per farm.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_farm_get_settings(
    farm: *const vipool_farm,
    out: *mut vipool_settings,
) -> vipool_status {
    catch_panic(|| {
        // SAFETY: the caller guarantees the handle.
        let settings = unsafe { read_exclusive(farm)?.farm.sessions };
        // SAFETY: the caller guarantees the struct.
        unsafe {
            check_out(out)?;
            write(out, &settings.into());
        }
        Ok(())
    })
}

/// Sets what applies to all programs of the process list.
///
/// Parameters:
/// - `farm`: the farm.
/// - `settings`: the settings.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_UNKNOWN_FIELD, VIPOOL_ERR_KIND,
/// VIPOOL_ERR_RANGE_ORDER (ports).
///
/// Threads: one at a time per farm.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_farm_set_rewrite(
    farm: *mut vipool_farm,
    settings: *const vipool_rewrite_settings,
) -> vipool_status {
    // SAFETY: the caller guarantees handle, struct and arrays.
    unsafe {
        change_farm(farm, |farm| {
            let given = read(settings)?;
            check_reserved(given.reserved)?;
            let flags = check_flags(given.flags, RewriteFlags::ALL_BITS)?;
            let mut rewrite = RewriteOptions {
                flags: RewriteFlags::from_bits(flags),
                fixed_ports: read_ports(given.fixed_ports, given.fixed_port_count)?,
                ..RewriteOptions::default()
            };
            if !given.wildcard_udp_ports.is_null() || given.wildcard_udp_port_count != 0 {
                rewrite.wildcard_udp_ports =
                    read_ports(given.wildcard_udp_ports, given.wildcard_udp_port_count)?;
            }
            farm.rewrite = rewrite;
            Ok(())
        })
    }
}

/// Lists the ports that programs bind: fixed_ports and all own_ports, sorted and without overlaps.
///
/// Outgoing connections must not use them: add them to net.ipv4.ip_local_reserved_ports on Linux.
///
/// Parameters:
/// - `farm`: the farm.
/// - `ports`, `capacity`: receives the ports.
/// - `out_count`: receives the number of port ranges, also with VIPOOL_ERR_BUFFER. Call with
///   capacity 0 first to learn it.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_BUFFER.
///
/// Threads: one at a time per farm.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_farm_list_fixed_ports(
    farm: *const vipool_farm,
    ports: *mut vipool_ports,
    capacity: usize,
    out_count: *mut usize,
) -> vipool_status {
    catch_panic(|| {
        not_null(out_count)?;
        // SAFETY: the caller guarantees the handle.
        let fixed = unsafe { read_exclusive(farm) }?.farm.fixed_ports();
        if capacity > 0 {
            not_null(ports)?;
        }
        // SAFETY: not NULL, and the array has room for every range that is written.
        unsafe {
            out_count.write(fixed.len());
            if fixed.len() > capacity {
                return Err(VIPOOL_ERR_BUFFER.into());
            }
            for (index, range) in fixed.iter().enumerate() {
                ports.add(index).write(vipool_ports { first: range.first, last: range.last });
            }
        }
        Ok(())
    })
}
