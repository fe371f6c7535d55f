//! A plan: the part of a farm that concerns one server. A map is created from a plan.

use std::ffi::c_char;

use super::address::vipool_range;
use super::error::{catch_panic, silent};
use super::farm::vipool_farm;
use super::handle::{
    Opaque, Shared, borrow_exclusive, borrow_shared, check_not_null, free_handle, write_handle,
};
use super::interface::{read_interfaces, vipool_interface, vipool_subnet};
use super::layout::{layout, read};
use super::page::{Page, write_page};
use super::status::vipool_status::{self, *};
use super::text::{check_flags, check_reserved, read_utf8};
use crate::farm::Level;
use crate::interface::Assignment;
use crate::map::Plan;

/// The plan of one server: pools, settings, the process list, and the addresses of each interface.
/// Threads may share a plan. A map keeps no reference to the plan from which it was created.
pub struct vipool_plan {
    pub(crate) plan: Plan,
    assignments: Vec<(Assignment, Vec<vipool_range>)>,
}

impl Opaque for vipool_plan {
    type Access = Shared;
}

/// Use of the addresses of a pool.
#[repr(u32)]
#[derive(Clone, Copy, Debug)]
pub enum vipool_pool_kind {
    /// V: addresses of the network.
    VIPOOL_POOL_VIRTUAL_IP = 1,
    /// L: addresses inside 127.0.0.2-127.255.255.254. Each session gets two of them: one as L, one
    /// as L6, which represents ::1. A pool of n addresses serves n/2 sessions.
    VIPOOL_POOL_LOOPBACK = 2,
}

/// vipool_plan_options.flags: replace vipool_program.target in each rule of the plan. If `pattern`
/// is a full path that contains a symbolic link on this machine, the target is the path without
/// links. Otherwise the rule has no target. Use this flag only on the server of the plan.
pub const VIPOOL_PLAN_FOLLOW_LINKS: u32 = 1;

/// Options of vipool_plan_new().
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct vipool_plan_options {
    /// sizeof(vipool_plan_options), set by the caller.
    pub size: usize,
    /// Host name of the server, UTF-8. A farm without servers accepts every name.
    pub host: *const c_char,
    /// Length of `host` in bytes.
    pub host_length: usize,
    /// Interfaces of the server, without the addresses that vipool added itself. Each range is
    /// assigned to the interface whose subnet contains it. Network, broadcast and host addresses
    /// are removed from the ranges. NULL with count 0 if the interfaces are unknown. In this case,
    /// no range is assigned, no host address is removed, and network and broadcast addresses are
    /// removed only in the subnets that the farm lists.
    pub interfaces: *const vipool_interface,
    /// Number of `interfaces`.
    pub interface_count: usize,
    /// VIPOOL_PLAN_...
    pub flags: u32,
    /// Reserved: zero.
    pub reserved: u32,
}
layout!(vipool_plan_options {
    size,
    host,
    host_length,
    interfaces,
    interface_count,
    flags,
    reserved,
});

/// The addresses of the plan on one interface in one subnet.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct vipool_assignment {
    /// sizeof(vipool_assignment), set by the caller in the first row of a page.
    pub size: usize,
    /// The usable addresses. Valid until the plan is freed. NULL for none.
    pub ranges: *const vipool_range,
    /// Number of `ranges`.
    pub range_count: usize,
    /// Index of the interface in the system.
    pub index: u32,
    /// The subnet that contains the ranges.
    pub subnet: vipool_subnet,
    /// Reserved: zero.
    pub reserved: u32,
    /// Name of the interface, UTF-8 without a NUL. Valid until the plan is freed.
    pub name: *const c_char,
    /// Length of `name` in bytes.
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

impl From<&(Assignment, Vec<vipool_range>)> for vipool_assignment {
    fn from((assignment, ranges): &(Assignment, Vec<vipool_range>)) -> Self {
        Self {
            size: size_of::<Self>(),
            ranges: if ranges.is_empty() { std::ptr::null() } else { ranges.as_ptr() },
            range_count: ranges.len(),
            index: assignment.index,
            subnet: assignment.subnet.into(),
            reserved: 0,
            name: assignment.interface.as_ptr().cast(),
            name_length: assignment.interface.len(),
        }
    }
}

/// Makes the plan of one server.
///
/// Validates the farm as vipool_farm_validate() does, and adds findings of the plan, for example a
/// range without an interface. If one of the findings is an error, the call makes no plan and
/// returns VIPOOL_ERR_FARM. Warnings do not prevent a plan. The findings replace those of an
/// earlier call.
///
/// Parameters:
/// - `farm`: the farm. Receives the findings, also with VIPOOL_ERR_FARM.
/// - `options`: the server and its interfaces.
/// - `out`: receives the plan. Free it with vipool_plan_free().
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_UNKNOWN_FIELD, VIPOOL_ERR_UTF8,
/// VIPOOL_ERR_KIND (flags), VIPOOL_ERR_ADDRESS, VIPOOL_ERR_FARM.
///
/// Threads: one at a time per farm.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_plan_new(
    farm: *mut vipool_farm,
    options: *const vipool_plan_options,
    out: *mut *mut vipool_plan,
) -> vipool_status {
    catch_panic(|| {
        check_not_null(out)?;
        // SAFETY: the caller guarantees handle and struct.
        let (farm, options) = unsafe { (borrow_exclusive(farm)?, read(options)?) };
        check_reserved(options.reserved)?;
        let flags = check_flags(options.flags, VIPOOL_PLAN_FOLLOW_LINKS)?;
        let has_interfaces = !options.interfaces.is_null() || options.interface_count != 0;
        // SAFETY: the caller guarantees text and array.
        let (host, interfaces) = unsafe {
            (
                match options.host_length {
                    0 if options.host.is_null() => "",
                    length => read_utf8(options.host, length)?,
                },
                match has_interfaces {
                    true => Some(read_interfaces(options.interfaces, options.interface_count)?),
                    false => None,
                },
            )
        };
        let mut server_plan = farm.farm.plan(host, interfaces.as_deref());
        if flags & VIPOOL_PLAN_FOLLOW_LINKS != 0 {
            server_plan.plan.policy.resolve_links(|path| std::fs::canonicalize(path));
        }
        farm.validate();
        farm.report.extend(server_plan.findings);
        let mut findings = farm.report.findings().iter();
        if let Some(first_error) = findings.find(|finding| finding.level == Level::Error) {
            return Err(VIPOOL_ERR_FARM.with_message(format_args!(
                "the number of errors in the farm is {}; the first error: {} ({})",
                farm.report.count(Level::Error),
                first_error.message,
                first_error.remedy
            )));
        }
        let assignments = server_plan.assignments.into_iter().map(|assignment| {
            let ranges = assignment.ranges.iter().map(Into::into).collect();
            (assignment, ranges)
        });
        let plan = vipool_plan { plan: server_plan.plan, assignments: assignments.collect() };
        // SAFETY: not NULL.
        unsafe { write_handle(plan, out) };
        Ok(())
    })
}

/// Frees a plan, with the texts and ranges of its assignments.
///
/// Parameters:
/// - `plan`: the plan. NULL is ignored.
///
/// Threads: the last call with the plan.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_plan_free(plan: *mut vipool_plan) {
    // SAFETY: the caller gives up the handle.
    silent(|| unsafe { free_handle(plan) });
}

/// Lists the addresses of each interface: one row per interface and subnet.
///
/// The list is empty if the plan was made without interfaces.
///
/// Parameters:
/// - `plan`: the plan.
/// - `first`: index of the first row, from 0.
/// - `rows`, `capacity`: receives the rows. Set the size of the first row.
/// - `out_count`: receives the number of rows that were written.
/// - `out_total`: receives the total number of rows. May be NULL.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE.
///
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_plan_list_assignments(
    plan: *const vipool_plan,
    first: usize,
    rows: *mut vipool_assignment,
    capacity: usize,
    out_count: *mut usize,
    out_total: *mut usize,
) -> vipool_status {
    let page = Page { first, rows, capacity, out_count, out_total };
    // SAFETY: the caller guarantees handle, array and counts.
    catch_panic(|| unsafe { write_page(&borrow_shared(plan)?.assignments, page).map(drop) })
}
