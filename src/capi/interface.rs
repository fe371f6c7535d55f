//! Which network interface a range belongs to, from interfaces that the caller hands in.

use std::ffi::c_char;

use ipnet::IpNet;

use super::address::{vipool_ip, vipool_range};
use super::handle::{Owned, Shared, free, give, not_null, shared};
use super::layout::{check_out, layout, read_array, write};
use super::outcome::{Failure, call, quiet};
use super::status::vipool_status::{self, *};
use super::text::{array, copy_out, utf8};
use crate::interface::{Assignment, Interface, MatchError, assign};

/// An address of an interface with the length of its subnet's prefix. Plain data.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct vipool_subnet {
    /// The address.
    pub address: vipool_ip,
    /// 0 to 32 for IPv4, to 128 for IPv6.
    pub prefix_length: u32,
}

/// A network interface, as the system lists it (getifaddrs, GetAdaptersAddresses). Addresses that
/// vipool itself has put on it are left out.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct vipool_interface {
    /// sizeof(vipool_interface), set by the caller in every element of an array.
    pub size: usize,
    /// Its name, UTF-8, such as "eth0".
    pub name: *const c_char,
    /// Its length in bytes.
    pub name_length: usize,
    /// Its addresses. May be NULL for none.
    pub addresses: *const vipool_subnet,
    /// How many they are.
    pub address_count: usize,
    /// The system's number for it.
    pub index: u32,
    /// Zero.
    pub reserved: u32,
}
layout!(vipool_interface { size, name, name_length, addresses, address_count, index, reserved });

/// What one interface carries of the ranges that were asked for.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct vipool_assignment {
    /// sizeof(vipool_assignment), set by the caller.
    pub size: usize,
    /// The usable addresses, in order, valid until the match is freed: ranges for
    /// vipool_plan_add_pool(). NULL if there are none.
    pub ranges: *const vipool_range,
    /// How many ranges they are.
    pub range_count: usize,
    /// The system's number for the interface.
    pub index: u32,
    /// The subnet that the ranges belong to.
    pub subnet: vipool_subnet,
    /// Zero.
    pub reserved: u32,
    /// Name of the interface, UTF-8 without a NUL, valid until the match is freed.
    pub name: *const c_char,
    /// Its length in bytes.
    pub name_length: usize,
}
layout!(vipool_assignment {
    size,
    ranges,
    range_count,
    index,
    subnet,
    reserved,
    name,
    name_length,
});

/// Which interface each of some ranges belongs to. Any number of threads may use it at once;
/// vipool_match_free() must be the last call.
pub struct vipool_match {
    assignments: Vec<(Assignment, Vec<vipool_range>)>,
    errors: Vec<MatchError>,
}

impl Owned for vipool_match {
    type Access = Shared;
}

impl vipool_match {
    pub(crate) fn new(assignments: Vec<Assignment>, errors: Vec<MatchError>) -> Self {
        let assignments = assignments
            .into_iter()
            .map(|found| {
                let ranges = found.ranges.iter().map(Into::into).collect();
                (found, ranges)
            })
            .collect();
        Self { assignments, errors }
    }
}

impl From<IpNet> for vipool_subnet {
    fn from(net: IpNet) -> Self {
        Self { address: net.addr().into(), prefix_length: net.prefix_len().into() }
    }
}

impl vipool_subnet {
    pub(crate) fn get(&self) -> Result<IpNet, Failure> {
        let address = self.address.required()?;
        u8::try_from(self.prefix_length)
            .ok()
            .and_then(|length| IpNet::new(address, length).ok())
            .ok_or_else(|| {
                VIPOOL_ERR_ADDRESS
                    .because(format_args!("{address}/{}: no such prefix", self.prefix_length))
            })
    }
}

impl From<&MatchError> for vipool_status {
    fn from(error: &MatchError) -> Self {
        match error {
            MatchError::NoInterface(_) => VIPOOL_ERR_NO_INTERFACE,
            MatchError::Tie { .. } => VIPOOL_ERR_INTERFACE_TIE,
            MatchError::Spans { .. } => VIPOOL_ERR_SPANS_SUBNETS,
        }
    }
}

/// The interfaces in an array of the caller's.
///
/// # Safety
/// `given` is NULL or an array of `count` interfaces with all that they point to.
pub(crate) unsafe fn interfaces(
    given: *const vipool_interface,
    count: usize,
) -> Result<Vec<Interface>, Failure> {
    // SAFETY: the caller's promise.
    let given = unsafe { read_array(given, count) }?;
    given
        .iter()
        .map(|interface| {
            // SAFETY: the caller vouches for name and addresses.
            let (name, addresses) = unsafe {
                (
                    utf8(interface.name, interface.name_length)?,
                    array(interface.addresses, interface.address_count)?,
                )
            };
            Ok(Interface {
                index: interface.index,
                name: name.to_owned(),
                addresses: addresses.iter().map(vipool_subnet::get).collect::<Result<_, _>>()?,
            })
        })
        .collect()
}

/// Finds the interface that each range belongs to (the one whose subnet holds all of it; of nested
/// subnets the longest prefix) and cuts away what cannot be given out there: network and broadcast
/// addresses, the host's own, and `excluded`. Ranges that belong to no interface become errors of
/// the match; the others are assigned all the same.
///
/// Arrays may be NULL for none. Give the match back with vipool_match_free().
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_UNKNOWN_FIELD, VIPOOL_ERR_UTF8,
/// VIPOOL_ERR_ADDRESS, VIPOOL_ERR_RANGE_ORDER. May be called from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_match_new(
    ranges: *const vipool_range,
    range_count: usize,
    excluded: *const vipool_range,
    excluded_count: usize,
    interface_array: *const vipool_interface,
    interface_count: usize,
    out: *mut *mut vipool_match,
) -> vipool_status {
    call(|| {
        not_null(out)?;
        // SAFETY: the caller vouches for the arrays.
        let (ranges, excluded, interfaces) = unsafe {
            (
                array(ranges, range_count)?,
                array(excluded, excluded_count)?,
                interfaces(interface_array, interface_count)?,
            )
        };
        let ranges = ranges.iter().map(vipool_range::get).collect::<Result<Vec<_>, _>>()?;
        let excluded = excluded.iter().map(vipool_range::get).collect::<Result<Vec<_>, _>>()?;
        let (assignments, errors) = assign(&ranges, &excluded, &interfaces);
        // SAFETY: not NULL.
        unsafe { give(vipool_match::new(assignments, errors), out) };
        Ok(())
    })
}

/// How many assignments (one per interface and subnet) the match has; 0 for NULL.
/// May be called from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_match_count(found: *const vipool_match) -> usize {
    // SAFETY: the caller vouches for the handle.
    quiet(|| unsafe { shared(found) }.map_or(0, |found| found.assignments.len()))
}

/// An assignment by its number, from 0.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_NOT_FOUND.
/// May be called from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_match_get(
    found: *const vipool_match,
    number: usize,
    out: *mut vipool_assignment,
) -> vipool_status {
    call(|| {
        // SAFETY: the caller vouches for handle and struct.
        let found = unsafe { shared(found) }?;
        // SAFETY: as above.
        unsafe { check_out(out) }?;
        let (assigned, ranges) = found.assignments.get(number).ok_or(VIPOOL_ERR_NOT_FOUND)?;
        let assignment = vipool_assignment {
            size: size_of::<vipool_assignment>(),
            ranges: if ranges.is_empty() { std::ptr::null() } else { ranges.as_ptr() },
            range_count: ranges.len(),
            index: assigned.index,
            subnet: assigned.subnet.into(),
            reserved: 0,
            name: assigned.interface.as_ptr().cast(),
            name_length: assigned.interface.len(),
        };
        // SAFETY: checked above.
        unsafe { write(out, &assignment) };
        Ok(())
    })
}

/// How many ranges belong to no interface; 0 for NULL. May be called from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_match_error_count(found: *const vipool_match) -> usize {
    // SAFETY: the caller vouches for the handle.
    quiet(|| unsafe { shared(found) }.map_or(0, |found| found.errors.len()))
}

/// Why a range belongs to no interface, by the number of the error, from 0: `out_reason` is told
/// VIPOOL_ERR_NO_INTERFACE, VIPOOL_ERR_INTERFACE_TIE or VIPOOL_ERR_SPANS_SUBNETS, the buffer gets
/// the text with a NUL behind it.
///
/// `out_length` may be NULL; it is told the length without the NUL, also with VIPOOL_ERR_BUFFER.
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_NOT_FOUND, VIPOOL_ERR_BUFFER.
/// May be called from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_match_error(
    found: *const vipool_match,
    number: usize,
    out_reason: *mut i32,
    buffer: *mut c_char,
    capacity: usize,
    out_length: *mut usize,
) -> vipool_status {
    call(|| {
        not_null(out_reason)?;
        // SAFETY: the caller vouches for the handle.
        let error = unsafe { shared(found) }?.errors.get(number).ok_or(VIPOOL_ERR_NOT_FOUND)?;
        // SAFETY: the caller vouches for buffer and length; the reason is not NULL.
        unsafe {
            copy_out(&error.to_string(), buffer, capacity, out_length)?;
            out_reason.write(vipool_status::from(error) as i32);
        }
        Ok(())
    })
}

/// Frees a match; the ranges of its assignments are gone with it. NULL is nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_match_free(found: *mut vipool_match) {
    // SAFETY: the caller gives the handle back.
    quiet(|| unsafe { free(found) });
}
