//! Sets the parts of a farm that apply to all servers: loopback addresses, the network, allocation
//! and rewriting.

use super::address::{read_ranges, vipool_range};
use super::error::{CallError, catch_panic};
use super::farm::vipool_farm;
use super::farm_build::change_farm;
use super::handle::{check_not_null, read_exclusive};
use super::interface::vipool_subnet;
use super::layout::{layout, read};
use super::output::check_out;
use super::process_list::{read_ports, vipool_ports};
use super::settings::vipool_settings;
use super::status::vipool_status::{self, *};
use super::text::{check_flags, check_reserved, read_slice};
use crate::farm::RewriteOptions;
use crate::policy::RewriteFlags;

/// vipool_rewrite_settings.flags: if no interface has the virtual IP, a bind passes unchanged.
/// Without the flag, the bind fails with EADDRNOTAVAIL.
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
    /// UDP ports on which a bind to the wildcard address passes unchanged, for receivers of
    /// multicast and broadcast. NULL with a count of 0 means the defaults 5353, 1900, 3702, 5355,
    /// 67 and 68. For no ports, pass a pointer that is not NULL and a count of 0.
    pub wildcard_udp_ports: *const vipool_ports,
    /// Number of `wildcard_udp_ports`.
    pub wildcard_udp_port_count: usize,
    /// Ports that programs bind, in addition to vipool_program.own_ports: see
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

/// Sets the ranges in 127.0.0.0/8 from which each session gets two addresses.
///
/// The default is 127.100.0.0/20. Without ranges, no session gets a loopback address. 127.0.0.1 is
/// never allocated.
///
/// Parameters:
/// - `farm`: the farm.
/// - `addresses`, `address_count`: the ranges. May be NULL for none.
/// - `excluded`, `excluded_count`: ranges inside `addresses` that are never allocated. May be NULL
///   for none.
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
            let excluded_ranges = read_ranges(excluded, excluded_count)?;
            farm.loopback.ranges = read_ranges(addresses, address_count)?;
            farm.loopback.exclude = excluded_ranges;
            Ok(())
        })
    }
}

/// Sets the known subnets and DHCP ranges, so that the ranges of the farm can be validated on any
/// machine.
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
            let decoded_subnets = read_slice(subnets, subnet_count)?
                .iter()
                .map(|subnet| Ok(subnet.decode_ip_net()?.trunc()))
                .collect::<Result<_, CallError>>()?;
            farm.network.dhcp_ranges = read_ranges(dhcp_ranges, dhcp_range_count)?;
            farm.network.subnets = decoded_subnets;
            Ok(())
        })
    }
}

/// Replaces all settings for the allocation of addresses.
///
/// To change some settings, start with the result of vipool_farm_get_settings() or
/// vipool_settings_get_default().
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
            farm.sessions = read(settings)?.decode_settings()?;
            Ok(())
        })
    }
}

/// Returns the settings for the allocation of addresses.
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
        unsafe { check_out(out) }?.write(&settings.into());
        Ok(())
    })
}

/// Sets the settings for all programs of the process list.
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
            let settings = read(settings)?;
            check_reserved(settings.reserved)?;
            let flags = check_flags(settings.flags, RewriteFlags::ALL_BITS)?;
            let mut rewrite = RewriteOptions {
                flags: RewriteFlags::from_bits(flags),
                fixed_ports: read_ports(settings.fixed_ports, settings.fixed_port_count)?,
                ..RewriteOptions::default()
            };
            if !settings.wildcard_udp_ports.is_null() || settings.wildcard_udp_port_count != 0 {
                rewrite.wildcard_udp_ports =
                    read_ports(settings.wildcard_udp_ports, settings.wildcard_udp_port_count)?;
            }
            farm.rewrite = rewrite;
            Ok(())
        })
    }
}

/// Lists the ports that programs bind: fixed_ports and all own_ports, sorted and without overlaps.
///
/// The kernel must not choose one of these ports as the source port of a connection, because the
/// program could then not bind it. On Linux, add the ports to net.ipv4.ip_local_reserved_ports.
///
/// Parameters:
/// - `farm`: the farm.
/// - `ports`, `capacity`: receives the ports.
/// - `out_count`: receives the number of port ranges, also with VIPOOL_ERR_BUFFER. Call with
///   capacity 0 first to get the number.
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
        check_not_null(out_count)?;
        // SAFETY: the caller guarantees the handle.
        let fixed_ports = unsafe { read_exclusive(farm) }?.farm.fixed_ports();
        if capacity > 0 {
            check_not_null(ports)?;
        }
        // SAFETY: not NULL, and the array is large enough for every range that is written.
        unsafe {
            out_count.write(fixed_ports.len());
            if fixed_ports.len() > capacity {
                return Err(VIPOOL_ERR_BUFFER.into());
            }
            for (index, range) in fixed_ports.iter().enumerate() {
                ports.add(index).write(vipool_ports { first: range.first, last: range.last });
            }
        }
        Ok(())
    })
}
