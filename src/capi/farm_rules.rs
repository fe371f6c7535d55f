//! What a farm that is built by calls says of all its servers: loopback addresses, the network, how
//! addresses are given out, programs.

use std::ffi::c_char;

use super::address::{vipool_ip, vipool_range};
use super::farm::vipool_farm;
use super::farm_by_calls::{change, ranges};
use super::handle::{not_null, read_exclusive};
use super::interface::vipool_subnet;
use super::layout::{check_out, layout, read, write};
use super::list::{listed, port_ranges, vipool_ports, vipool_program};
use super::outcome::{Failure, call};
use super::plan::reservation;
use super::settings::vipool_settings;
use super::status::vipool_status::{self, *};
use super::text::{array, flags};
use crate::farm::RewriteOptions;
use crate::policy::RewriteFlags;

/// What concerns all listed programs of a farm. The arrays are copied.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct vipool_farm_rules {
    /// sizeof(vipool_farm_rules), set by the caller.
    pub size: usize,
    /// UDP ports whose wildcard binds stay wildcard (multicast and broadcast receivers). NULL for
    /// the usual ones: 5353, 1900, 3702, 5355, 67 and 68; for none a pointer that is not NULL and a
    /// count of 0.
    pub wildcard_udp_ports: *const vipool_ports,
    /// How many they are.
    pub wildcard_udp_port_count: usize,
    /// Ports that programs bind, to be kept from being given to outgoing connections, beside the
    /// own_ports of the programs: see vipool_farm_fixed_ports(). May be NULL for none.
    pub fixed_ports: *const vipool_ports,
    /// How many they are.
    pub fixed_port_count: usize,
    /// VIPOOL_RULE_...
    pub flags: u32,
    /// Zero.
    pub reserved: u32,
}
layout!(vipool_farm_rules {
    size,
    wildcard_udp_ports,
    wildcard_udp_port_count,
    fixed_ports,
    fixed_port_count,
    flags,
    reserved,
});

/// Sets the addresses of 127.0.0.0/8 that sessions are given (each session takes two), in place of
/// 127.100.0.0/20. No ranges: no session gets any. 127.0.0.1 is never given out.
///
/// Arrays may be NULL for none.
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_ADDRESS, VIPOOL_ERR_RANGE_ORDER.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_farm_set_loopback(
    farm: *mut vipool_farm,
    addresses: *const vipool_range,
    address_count: usize,
    excluded: *const vipool_range,
    excluded_count: usize,
) -> vipool_status {
    // SAFETY: the caller vouches for handle and arrays.
    unsafe {
        change(farm, |farm| {
            let exclude = ranges(excluded, excluded_count)?;
            farm.loopback.ranges = ranges(addresses, address_count)?;
            farm.loopback.exclude = exclude;
            Ok(())
        })
    }
}

/// Says what is known of the network, so that ranges can be checked without seeing a server: the
/// subnets that the servers are in, and what a DHCP server gives out.
///
/// Arrays may be NULL for none.
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_ADDRESS, VIPOOL_ERR_RANGE_ORDER.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_farm_set_network(
    farm: *mut vipool_farm,
    subnets: *const vipool_subnet,
    subnet_count: usize,
    dhcp_ranges: *const vipool_range,
    dhcp_range_count: usize,
) -> vipool_status {
    // SAFETY: the caller vouches for handle and arrays.
    unsafe {
        change(farm, |farm| {
            let subnets = array(subnets, subnet_count)?;
            let subnets = subnets.iter().map(|subnet| Ok(subnet.get()?.trunc()));
            let subnets = subnets.collect::<Result<_, Failure>>()?;
            farm.network.dhcp_ranges = ranges(dhcp_ranges, dhcp_range_count)?;
            farm.network.subnets = subnets;
            Ok(())
        })
    }
}

/// How addresses are given out: the defaults (cool_down 120, VIPOOL_SETTING_CHECK_IN_USE), or what was
/// read or set.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_farm_settings(
    farm: *const vipool_farm,
    out: *mut vipool_settings,
) -> vipool_status {
    call(|| {
        // SAFETY: the caller vouches for handle and struct.
        let settings = unsafe { read_exclusive(farm)?.farm.sessions };
        // SAFETY: as above.
        unsafe {
            check_out(out)?;
            write(out, &settings.into());
        }
        Ok(())
    })
}

/// Sets how addresses are given out, all of it: change what vipool_farm_settings() gave.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_UNKNOWN_FIELD, VIPOOL_ERR_KIND.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_farm_set_settings(
    farm: *mut vipool_farm,
    settings: *const vipool_settings,
) -> vipool_status {
    // SAFETY: the caller vouches for handle and struct.
    unsafe {
        change(farm, |farm| {
            farm.sessions = read(settings)?.get()?;
            Ok(())
        })
    }
}

/// Keeps an address for a user, whose name is `user_length` bytes of UTF-8.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_UTF8, VIPOOL_ERR_ADDRESS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_farm_add_reservation(
    farm: *mut vipool_farm,
    user: *const c_char,
    user_length: usize,
    address: *const vipool_ip,
) -> vipool_status {
    // SAFETY: the caller vouches for handle, text and address.
    unsafe {
        change(farm, |farm| {
            farm.reservations.push(reservation(user, user_length, address)?);
            Ok(())
        })
    }
}

/// Adds a rule to the process list. The most specific rule that holds for a program wins, the first
/// of equals.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_UNKNOWN_FIELD, VIPOOL_ERR_UTF8,
/// VIPOOL_ERR_KIND, VIPOOL_ERR_RANGE_ORDER (ports).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_farm_add_program(
    farm: *mut vipool_farm,
    program: *const vipool_program,
) -> vipool_status {
    // SAFETY: the caller vouches for handle and struct, and for the texts and arrays in it.
    unsafe {
        change(farm, |farm| {
            farm.programs.push(listed(program)?);
            Ok(())
        })
    }
}

/// Sets what concerns all listed programs.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_UNKNOWN_FIELD, VIPOOL_ERR_KIND,
/// VIPOOL_ERR_RANGE_ORDER (ports).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_farm_set_rules(
    farm: *mut vipool_farm,
    rules: *const vipool_farm_rules,
) -> vipool_status {
    // SAFETY: the caller vouches for handle and struct, and for the arrays in it.
    unsafe {
        change(farm, |farm| {
            let given = read(rules)?;
            let flags = flags(given.flags, RewriteFlags::ALL_BITS)?;
            let udp = (given.wildcard_udp_ports, given.wildcard_udp_port_count);
            farm.rewrite = RewriteOptions {
                flags: RewriteFlags::from_bits(flags),
                wildcard_udp_ports: match udp {
                    (ports, 0) if ports.is_null() => RewriteOptions::default().wildcard_udp_ports,
                    (ports, count) => port_ranges(ports, count)?,
                },
                fixed_ports: port_ranges(given.fixed_ports, given.fixed_port_count)?,
            };
            Ok(())
        })
    }
}

/// The ports that listed programs bind: the fixed ones of the farm's rules and all own_ports, in
/// order and without overlaps. They are to be kept from outgoing connections
/// (net.ipv4.ip_local_reserved_ports of Linux).
///
/// `ports`: an array of `capacity`. `out_count` is told how many there are, also with
/// VIPOOL_ERR_BUFFER: call once with capacity 0 to learn it.
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_BUFFER.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_farm_fixed_ports(
    farm: *const vipool_farm,
    ports: *mut vipool_ports,
    capacity: usize,
    out_count: *mut usize,
) -> vipool_status {
    call(|| {
        not_null(out_count)?;
        // SAFETY: the caller vouches for the handle.
        let fixed = unsafe { read_exclusive(farm) }?.farm.fixed_ports();
        if capacity > 0 {
            not_null(ports)?;
        }
        // SAFETY: not NULL; there is room for as many as are written.
        unsafe {
            out_count.write(fixed.len());
            if fixed.len() > capacity {
                return Err(VIPOOL_ERR_BUFFER.into());
            }
            for (place, range) in fixed.iter().enumerate() {
                ports.add(place).write(vipool_ports { first: range.first, last: range.last });
            }
        }
        Ok(())
    })
}
