//! Configures servers, ranges, pools, reservations and programs of a farm. The values and the
//! validation are the same as for farm.toml.

use std::ffi::c_char;

use super::address::{read_ranges, vipool_ip, vipool_range};
use super::error::{CallError, catch_panic};
use super::farm::vipool_farm;
use super::handle::borrow_exclusive;
use super::layout::{layout, read};
use super::process_list::{read_program, vipool_program};
use super::status::vipool_status::{self, *};
use super::text::{check_flags, read_optional_utf8, read_utf8};
use crate::farm::{Farm, PoolOptions, Server, ServerRange};
use crate::policy::PoolRule;
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
    /// With VIPOOL_SERVER_MAX_SESSIONS: the maximum number of sessions at once; 0 for no limit.
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
    /// Ranges inside `addresses` that are never allocated. May be NULL for none.
    pub excluded: *const vipool_range,
    /// Number of `excluded`.
    pub excluded_count: usize,
    /// Name of the server. May be NULL unless the farm has several servers.
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

/// The property of a session that a pool rule matches.
#[repr(u32)]
#[derive(Clone, Copy, Debug)]
pub enum vipool_pool_rule {
    /// The name of the user.
    VIPOOL_POOL_RULE_USER = 1,
    /// The name of a group of the user.
    VIPOOL_POOL_RULE_GROUP = 2,
    /// The program that the session starts: a full path or a bare file name.
    VIPOOL_POOL_RULE_PROGRAM = 3,
}

/// Applies `change` to a farm.
///
/// # Safety
/// As for [`borrow_exclusive`].
pub(crate) unsafe fn change_farm(
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
            let server = read(server)?;
            let known_flags = VIPOOL_SERVER_DISABLED | VIPOOL_SERVER_MAX_SESSIONS;
            let flags = check_flags(server.flags, known_flags)?;
            let has_max_sessions = flags & VIPOOL_SERVER_MAX_SESSIONS != 0;
            farm.servers.push(Server {
                enabled: flags & VIPOOL_SERVER_DISABLED == 0,
                max_sessions: has_max_sessions.then_some(server.max_sessions),
                ..Server::new(read_utf8(server.name, server.name_length)?)
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
            let range = read(range)?;
            let server = read_optional_utf8(range.server, range.server_length)?;
            let pool = read_optional_utf8(range.pool, range.pool_length)?;
            farm.ranges.push(ServerRange {
                addresses: read_ranges(range.addresses, range.address_count)?,
                exclude: read_ranges(range.excluded, range.excluded_count)?,
                server: server.map(str::to_owned),
                pool: pool.unwrap_or(DEFAULT_POOL).to_owned(),
            });
            Ok(())
        })
    }
}

/// Returns the options of the pool with this name. Adds the pool if it is missing.
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
/// - `max_addresses`: the maximum number of addresses of each family. The pool uses the lowest
///   addresses. 0 means all IPv4 addresses and 4096 IPv6 addresses.
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
            let name = read_utf8(name, name_length)?;
            let max_addresses = (max_addresses != 0).then_some(max_addresses);
            pool_options(farm, name).max_addresses = max_addresses;
            Ok(())
        })
    }
}

/// Returns the users, groups or programs of a pool rule, as `kind` (vipool_pool_rule) selects.
fn rule_names(rule: &mut PoolRule, kind: u32) -> Result<&mut Vec<String>, CallError> {
    match kind {
        1 => Ok(&mut rule.users),
        2 => Ok(&mut rule.groups),
        3 => Ok(&mut rule.programs),
        unknown => {
            Err(VIPOOL_ERR_KIND.with_message(format_args!("unknown kind of pool rule: {unknown}")))
        }
    }
}

/// Adds a rule that selects the pool of a session's virtual IP. Declares the pool if necessary.
///
/// If several rules match a session, a rule for a user has precedence over a rule for a group, and
/// a rule for a group over a rule for a program. Among rules of the same kind, the rule of the pool
/// that was declared first has precedence.
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
            let (pool, name) = (read_utf8(pool, pool_length)?, read_utf8(name, name_length)?);
            // Check the kind first, because a failed call must not add the pool.
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
            let user = read_utf8(user, user_length)?.to_owned();
            let address = address.as_ref().ok_or(VIPOOL_ERR_NULL)?.decode_required_ip()?;
            farm.reservations.push(Reservation { user, address });
            Ok(())
        })
    }
}

/// Adds a rule to the process list.
///
/// The most specific rule that matches a program applies. Among equally specific rules, the rule
/// that was added first applies.
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
