//! A farm built by calls instead of read from a farm.toml: the same values, the same validation.
//! Here its servers, ranges and pools; `farm_rules` has the rest.

use std::ffi::c_char;

use super::address::vipool_range;
use super::farm::vipool_farm;
use super::handle::{exclusive, give, not_null};
use super::layout::{layout, read};
use super::outcome::{Failure, call};
use super::plan::names_of;
use super::status::vipool_status;
use super::text::{array, flags, optional_utf8, utf8};
use crate::farm::{Farm, PoolOptions, Report, Server, ServerRange};
use crate::policy::PoolRule;
use crate::pool::DEFAULT_POOL;
use crate::range::Range;

/// Of vipool_server.flags: sessions there get no addresses.
pub const VIPOOL_SERVER_DISABLED: u32 = 1;
/// Of vipool_server.flags: max_sessions counts; otherwise that of the farm's settings.
pub const VIPOOL_SERVER_MAX_SESSIONS: u32 = 2;

/// One server of a farm.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct vipool_server {
    /// sizeof(vipool_server), set by the caller.
    pub size: usize,
    /// Its host name, with or without its domain. Case does not matter.
    pub name: *const c_char,
    /// Its length in bytes.
    pub name_length: usize,
    /// With VIPOOL_SERVER_MAX_SESSIONS the most sessions at once; 0 sets no limit.
    pub max_sessions: u32,
    /// VIPOOL_SERVER_...
    pub flags: u32,
}
layout!(vipool_server { size, name, name_length, max_sessions, flags });

/// Ranges for one pool of one server. The texts and arrays are copied.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct vipool_server_range {
    /// sizeof(vipool_server_range), set by the caller.
    pub size: usize,
    /// The addresses, IPv4 or IPv6.
    pub addresses: *const vipool_range,
    /// How many ranges they are.
    pub address_count: usize,
    /// Those of them that are not given out. May be NULL for none.
    pub excluded: *const vipool_range,
    /// How many ranges they are.
    pub excluded_count: usize,
    /// Name of the server. May be NULL: the only one there is.
    pub server: *const c_char,
    /// Its length in bytes.
    pub server_length: usize,
    /// Name of the pool. May be NULL: "default".
    pub pool: *const c_char,
    /// Its length in bytes.
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

/// Makes a farm without servers (one machine, whatever its name), ranges and programs, with the
/// defaults for all else: those of a farm.toml that is empty.
///
/// Build it by the functions below, then call vipool_farm_validate(). Farms that were read can be
/// changed by them too. Give it back with vipool_farm_free(). Errors: VIPOOL_ERR_NULL.
/// May be called from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_farm_new(out: *mut *mut vipool_farm) -> vipool_status {
    call(|| {
        not_null(out)?;
        let farm = vipool_farm { farm: Farm::default(), report: Report::default() };
        // SAFETY: not NULL.
        unsafe { give(farm, out) };
        Ok(())
    })
}

/// Changes a farm.
///
/// # Safety
/// As for [`exclusive`].
pub(crate) unsafe fn change(
    farm: *mut vipool_farm,
    change: impl FnOnce(&mut Farm) -> Result<(), Failure>,
) -> vipool_status {
    // SAFETY: the caller's promise.
    call(|| change(&mut unsafe { exclusive(farm) }?.farm))
}

/// Ranges of the caller's.
///
/// # Safety
/// As for [`array()`].
pub(crate) unsafe fn ranges(
    given: *const vipool_range,
    count: usize,
) -> Result<Vec<Range>, Failure> {
    // SAFETY: the caller's promise.
    let given = unsafe { array(given, count) }?;
    Ok(given.iter().map(vipool_range::get).collect::<Result<_, _>>()?)
}

/// Adds a server.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_UNKNOWN_FIELD, VIPOOL_ERR_UTF8,
/// VIPOOL_ERR_KIND (flags).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_farm_add_server(
    farm: *mut vipool_farm,
    server: *const vipool_server,
) -> vipool_status {
    // SAFETY: the caller vouches for handle, struct and text.
    unsafe {
        change(farm, |farm| {
            let given = read(server)?;
            let known = VIPOOL_SERVER_DISABLED | VIPOOL_SERVER_MAX_SESSIONS;
            let flags = flags(given.flags, known)?;
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

/// Adds ranges.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_UNKNOWN_FIELD, VIPOOL_ERR_UTF8,
/// VIPOOL_ERR_ADDRESS, VIPOOL_ERR_RANGE_ORDER.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_farm_add_range(
    farm: *mut vipool_farm,
    range: *const vipool_server_range,
) -> vipool_status {
    // SAFETY: the caller vouches for handle and struct, and for the texts and arrays in it.
    unsafe {
        change(farm, |farm| {
            let given = read(range)?;
            let server = optional_utf8(given.server, given.server_length)?;
            let pool = optional_utf8(given.pool, given.pool_length)?;
            farm.ranges.push(ServerRange {
                addresses: ranges(given.addresses, given.address_count)?,
                exclude: ranges(given.excluded, given.excluded_count)?,
                server: server.map(str::to_owned),
                pool: pool.unwrap_or(DEFAULT_POOL).to_owned(),
            });
            Ok(())
        })
    }
}

/// The pool of this name, added if there is none.
fn pool_options<'f>(farm: &'f mut Farm, name: &str) -> &'f mut PoolOptions {
    let place = farm.pools.iter().position(|pool| pool.rule.pool == name);
    let place = place.unwrap_or_else(|| {
        let rule = PoolRule { pool: name.to_owned(), ..PoolRule::default() };
        farm.pools.push(PoolOptions { rule, max_addresses: None });
        farm.pools.len() - 1
    });
    &mut farm.pools[place]
}

/// Declares a pool, which ranges and rules then name. "default" need not be declared.
///
/// `max_addresses`: the most addresses of each family that it uses, from the lowest on; 0 for all of
/// IPv4 and 4096 of IPv6.
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_UTF8.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_farm_add_pool(
    farm: *mut vipool_farm,
    name: *const c_char,
    name_length: usize,
    max_addresses: u32,
) -> vipool_status {
    // SAFETY: the caller vouches for handle and text.
    unsafe {
        change(farm, |farm| {
            let name = utf8(name, name_length)?;
            let most = (max_addresses != 0).then_some(max_addresses);
            pool_options(farm, name).max_addresses = most;
            Ok(())
        })
    }
}

/// Adds a rule by which sessions take their virtual IPs from a pool: `kind` (vipool_pool_rule) and
/// `name` say whose. A rule for the user wins over one for a group, that over one for a program; of
/// equals the one whose pool was declared first.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_UTF8, VIPOOL_ERR_KIND.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_farm_add_pool_rule(
    farm: *mut vipool_farm,
    pool: *const c_char,
    pool_length: usize,
    kind: u32,
    name: *const c_char,
    name_length: usize,
) -> vipool_status {
    // SAFETY: the caller vouches for handle and texts.
    unsafe {
        change(farm, |farm| {
            let (pool, name) = (utf8(pool, pool_length)?, utf8(name, name_length)?);
            names_of(&mut PoolRule::default(), kind)?;
            names_of(&mut pool_options(farm, pool).rule, kind)?.push(name.to_owned());
            Ok(())
        })
    }
}

/// Validates the farm as it is now. What is wrong is added to its findings; findings of an earlier
/// validation stay, so build all of it first.
///
/// Errors: VIPOOL_ERR_NULL. A farm that is wrong is no error of this call: see
/// vipool_farm_error_count().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_farm_validate(farm: *mut vipool_farm) -> vipool_status {
    call(|| {
        // SAFETY: the caller vouches for the handle.
        let vipool_farm { farm, report } = unsafe { exclusive(farm) }?;
        report.extend(farm.validate());
        Ok(())
    })
}
