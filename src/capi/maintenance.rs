//! Administration of a map: drain, reserve, reap, reconcile.

use std::ffi::{c_char, c_void};
use std::net::IpAddr;

use super::address::{vipool_ip, vipool_range};
use super::error::{CallError, catch_panic};
use super::handle::borrow_shared;
use super::layout::{layout, read};
use super::leader::vipool_leader;
use super::map::vipool_map;
use super::output::check_optional_out;
use super::session::vipool_session;
use super::status::vipool_status::{self, *};
use super::text::read_utf8;
use crate::Tick;
use crate::map::{AdminChange, ChangeError, Leader, Map, MapError, Probe};
use crate::range::Range;

/// Result of a call that starts or ends a drain or a reservation of addresses.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct vipool_admin_change {
    /// sizeof(vipool_admin_change), set by the caller.
    pub size: usize,
    /// Number of addresses that the change applies to.
    pub addresses: u32,
    /// Number of these addresses that sessions hold and keep.
    pub held: u32,
}
layout!(vipool_admin_change { size, addresses, held });

/// Changes a map with `operation` and writes the result to `out`.
///
/// # Safety
/// `map` is NULL or a live handle. `out` is NULL or valid as [`check_optional_out`] requires.
unsafe fn change_map<E: Into<CallError>>(
    map: *const vipool_map,
    out: *mut vipool_admin_change,
    operation: impl FnOnce(&Map) -> Result<Result<AdminChange, E>, CallError>,
) -> vipool_status {
    catch_panic(|| {
        // SAFETY: the caller guarantees the handle.
        let map = unsafe { borrow_shared(map) }?.map()?;
        // SAFETY: the caller guarantees the struct.
        let out = unsafe { check_optional_out(out) }?;
        let AdminChange { addresses, held } = operation(&map)?.map_err(Into::into)?;
        if let Some(out) = out {
            let size = size_of::<vipool_admin_change>();
            out.write(&vipool_admin_change { size, addresses, held });
        }
        Ok(())
    })
}

/// Changes the addresses of a range with `operation` and writes the result to `out`.
///
/// # Safety
/// The requirements of [`change_map`] apply. `range` is NULL or valid for reads.
unsafe fn change_range(
    map: *const vipool_map,
    range: *const vipool_range,
    out: *mut vipool_admin_change,
    operation: impl FnOnce(&Map, &Range) -> Result<AdminChange, MapError>,
) -> vipool_status {
    // SAFETY: the caller guarantees handle, range and struct.
    unsafe {
        change_map(map, out, |map| {
            Ok(operation(map, &range.as_ref().ok_or(VIPOOL_ERR_NULL)?.decode_range()?))
        })
    }
}

/// Changes one address with `operation` and writes the result to `out`.
///
/// # Safety
/// The requirements of [`change_map`] apply. `address` is NULL or valid for reads.
unsafe fn change_address(
    map: *const vipool_map,
    address: *const vipool_ip,
    out: *mut vipool_admin_change,
    operation: impl FnOnce(&Map, IpAddr) -> Result<Result<AdminChange, ChangeError>, CallError>,
) -> vipool_status {
    // SAFETY: the caller guarantees handle, address and struct.
    unsafe {
        change_map(map, out, |map| {
            operation(map, address.as_ref().ok_or(VIPOOL_ERR_NULL)?.decode_required_ip()?)
        })
    }
}

/// Drains addresses: no further session gets them. Sessions that hold them keep them.
///
/// Parameters:
/// - `map`: the map.
/// - `range`: the addresses.
/// - `now`: vipool_now().
/// - `out`: receives the result. May be NULL.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_ADDRESS, VIPOOL_ERR_RANGE_ORDER, and
/// writer errors.
///
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_map_drain(
    map: *const vipool_map,
    range: *const vipool_range,
    now: u32,
    out: *mut vipool_admin_change,
) -> vipool_status {
    // SAFETY: the caller guarantees handle, range and struct.
    unsafe { change_range(map, range, out, |map, range| map.drain(range, Tick::from_secs(now))) }
}

/// Ends the drain of addresses, so that sessions can get them again.
///
/// Parameters:
/// - `map`: the map.
/// - `range`: the addresses.
/// - `now`: vipool_now().
/// - `out`: receives the result. May be NULL.
///
/// Errors: as for vipool_map_drain().
///
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_map_undrain(
    map: *const vipool_map,
    range: *const vipool_range,
    now: u32,
    out: *mut vipool_admin_change,
) -> vipool_status {
    // SAFETY: the caller guarantees handle, range and struct.
    unsafe { change_range(map, range, out, |map, range| map.undrain(range, Tick::from_secs(now))) }
}

/// Starts or ends the drain of the whole server. While the server drains, sessions keep their
/// addresses, and no session gets another address.
///
/// Parameters:
/// - `map`: the map.
/// - `draining`: 1 to start the drain, 0 to end it.
///
/// Errors: VIPOOL_ERR_NULL, and writer errors.
///
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_map_set_draining(
    map: *const vipool_map,
    draining: u32,
) -> vipool_status {
    // SAFETY: the caller guarantees the handle.
    catch_panic(|| Ok(unsafe { borrow_shared(map) }?.map()?.drain_server(draining != 0)?))
}

/// Reserves an address for a user. A session that holds the address keeps it.
///
/// Parameters:
/// - `map`: the map.
/// - `address`: the address.
/// - `user`, `user_length`: the name of the user, UTF-8.
/// - `now`: vipool_now().
/// - `out`: receives the result. May be NULL.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_UTF8, VIPOOL_ERR_ADDRESS,
/// VIPOOL_ERR_EXCLUDED (in no pool), VIPOOL_ERR_RESERVED (for another user), and writer errors.
///
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_map_reserve(
    map: *const vipool_map,
    address: *const vipool_ip,
    user: *const c_char,
    user_length: usize,
    now: u32,
    out: *mut vipool_admin_change,
) -> vipool_status {
    // SAFETY: the caller guarantees handle, address, text and struct.
    unsafe {
        change_address(map, address, out, |map, address| {
            Ok(map.reserve(address, read_utf8(user, user_length)?, Tick::from_secs(now)))
        })
    }
}

/// Removes the reservation of an address.
///
/// Parameters:
/// - `map`: the map.
/// - `address`: the address.
/// - `now`: vipool_now().
/// - `out`: receives the result. May be NULL.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_ADDRESS, VIPOOL_ERR_EXCLUDED (in no
/// pool), VIPOOL_ERR_NOT_RESERVED, and writer errors.
///
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_map_unreserve(
    map: *const vipool_map,
    address: *const vipool_ip,
    now: u32,
    out: *mut vipool_admin_change,
) -> vipool_status {
    // SAFETY: the caller guarantees handle, address and struct.
    unsafe {
        change_address(map, address, out, |map, address| {
            Ok(map.unreserve(address, Tick::from_secs(now)))
        })
    }
}

/// Reports that the agent has restored the sessions of the operating system.
/// vipool_map_open_session() then no longer returns VIPOOL_ERR_NOT_READY.
///
/// Parameters:
/// - `map`: the map.
///
/// Errors: VIPOOL_ERR_NULL, and writer errors.
///
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_map_mark_restored(map: *const vipool_map) -> vipool_status {
    // SAFETY: the caller guarantees the handle.
    catch_panic(|| Ok(unsafe { borrow_shared(map) }?.map()?.mark_restored()?))
}

/// Rebuilds free lists, index and counters from the slots.
///
/// The library recovers a map automatically after a writer died. An administrator can also request
/// a recovery.
///
/// Parameters:
/// - `map`: the map.
///
/// Errors: VIPOOL_ERR_NULL, and writer errors.
///
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_map_recover(map: *const vipool_map) -> vipool_status {
    // SAFETY: the caller guarantees the handle.
    catch_panic(|| Ok(unsafe { borrow_shared(map) }?.map()?.recover()?))
}

/// Returns whether a session still exists in the operating system. The callback must not use the
/// map.
///
/// Parameters:
/// - `context`: as passed to vipool_map_reconcile().
/// - `session`: the session.
/// - `leader`: the leader of the session. NULL if the session has none.
///
/// Returns: 0 if the session has ended, otherwise 1.
pub type vipool_is_alive_fn = Option<
    unsafe extern "C" fn(
        context: *mut c_void,
        session: vipool_session,
        leader: *const vipool_leader,
    ) -> u32,
>;

/// Closes every session for which `is_alive` returns 0. Then does the same as
/// vipool_map_mark_restored().
///
/// Call this function after the start of an agent, before the agent opens the first session.
///
/// Events: released for each lease.
///
/// Parameters:
/// - `map`: the map.
/// - `now`: vipool_now().
/// - `is_alive`: called for each open session.
/// - `context`: passed to `is_alive`.
/// - `out_closed`: receives the number of closed sessions. May be NULL.
///
/// Errors: VIPOOL_ERR_NULL, and writer errors.
///
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_map_reconcile(
    map: *const vipool_map,
    now: u32,
    is_alive: vipool_is_alive_fn,
    context: *mut c_void,
    out_closed: *mut u32,
) -> vipool_status {
    catch_panic(|| {
        // SAFETY: the caller guarantees the handle.
        let map = unsafe { borrow_shared(map) }?;
        let is_alive = is_alive.ok_or(VIPOOL_ERR_NULL)?;
        let previous_rows = map.rows_for_events()?;
        let closed = map.map()?.reconcile(Tick::from_secs(now), |session, leader| {
            let caller_leader = leader.map(vipool_leader::from);
            let leader_pointer =
                caller_leader.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
            // SAFETY: the caller guarantees callback and context.
            unsafe { is_alive(context, session.raw(), leader_pointer) != 0 }
        })?;
        map.sink.report_closed_sessions(&previous_rows, &closed);
        if !out_closed.is_null() {
            // SAFETY: not NULL.
            unsafe { out_closed.write(closed.len() as u32) };
        }
        Ok(())
    })
}

/// Callbacks of the agent for vipool_map_reap(). They must not use the map, because it is locked
/// while they run.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct vipool_probe {
    /// sizeof(vipool_probe), set by the caller.
    pub size: usize,
    /// Returns 0 if no socket is bound to the address or connected from it. Returns 1 otherwise and
    /// in doubt. NULL means 1 for every address.
    pub has_sockets:
        Option<unsafe extern "C" fn(context: *mut c_void, address: *const vipool_ip) -> u32>,
    /// Returns 1 if the process has exited. Returns 0 otherwise and in doubt. NULL means 0 for
    /// every process.
    pub has_exited:
        Option<unsafe extern "C" fn(context: *mut c_void, leader: *const vipool_leader) -> u32>,
    /// Passed to the callbacks.
    pub context: *mut c_void,
}
layout!(vipool_probe { size, has_sockets, has_exited, context });

/// A probe that calls the callbacks of the agent.
struct CallerProbe(vipool_probe);

impl CallerProbe {
    /// Returns a probe that calls the callbacks in `probe`.
    ///
    /// # Safety
    /// As long as the result is used, the callbacks may be called with the context.
    unsafe fn new(probe: vipool_probe) -> Self {
        Self(probe)
    }
}

impl Probe for CallerProbe {
    fn has_sockets(&mut self, address: IpAddr) -> bool {
        let vipool_probe { has_sockets, context, .. } = self.0;
        // SAFETY: the caller of `new` guarantees callback and context.
        has_sockets.is_none_or(|call| unsafe { call(context, &address.into()) != 0 })
    }

    fn has_exited(&mut self, leader: &Leader) -> bool {
        let vipool_probe { has_exited, context, .. } = self.0;
        // SAFETY: the caller of `new` guarantees callback and context.
        has_exited.is_some_and(|call| unsafe { call(context, &leader.into()) != 0 })
    }
}

/// Result of vipool_map_reap().
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct vipool_reap_report {
    /// sizeof(vipool_reap_report), set by the caller.
    pub size: usize,
    /// Number of addresses that became free.
    pub freed: u32,
    /// Number of cooled addresses on which this call found sockets.
    pub lingering: u32,
    /// Number of sessions that were closed because their leader has exited.
    pub closed: u32,
    /// 1 if the budget ran out before every session and every cooled address was examined,
    /// otherwise 0. Addresses that an earlier call found lingering do not count.
    pub more: u32,
}
layout!(vipool_reap_report { size, freed, lingering, closed, more });

/// Closes sessions whose leader has exited, and frees addresses that have cooled down.
///
/// An agent calls this function about every ten seconds. A session is closed when two calls, at
/// least ten seconds apart, find that its leader has exited. If the process of another logon of the
/// session still runs, this process becomes the leader instead. With VIPOOL_SETTING_CHECK_IN_USE, a
/// cooled address that has sockets is not freed.
///
/// Events: released for each lease.
///
/// Parameters:
/// - `map`: the map.
/// - `now`: vipool_now().
/// - `budget`: the maximum number of sessions to examine. In each pool, the same maximum applies to
///   each of three groups: lingering addresses; cooling addresses; reserved or drained addresses.
///   Call again while `out->more` is 1.
/// - `probe`: callbacks of the agent. With NULL, the library examines this machine (Linux,
///   Windows).
/// - `out`: receives the result. May be NULL.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_UNKNOWN_FIELD, VIPOOL_ERR_IO,
/// VIPOOL_ERR_UNSUPPORTED (NULL for `probe` on another system), and writer errors.
///
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_map_reap(
    map: *const vipool_map,
    now: u32,
    budget: u32,
    probe: *const vipool_probe,
    out: *mut vipool_reap_report,
) -> vipool_status {
    catch_panic(|| {
        // SAFETY: the caller guarantees the handle.
        let map = unsafe { borrow_shared(map) }?;
        // SAFETY: the caller guarantees the structs, and the callbacks in `probe` until this call
        // returns.
        let (out, caller_probe) = unsafe {
            let out = check_optional_out(out)?;
            (out, if probe.is_null() { None } else { Some(CallerProbe::new(read(probe)?)) })
        };
        let previous_rows = map.rows_for_events()?;
        let report = match caller_probe {
            Some(mut probe) => map.map()?.reap(Tick::from_secs(now), budget, &mut probe)?,
            None => map.map()?.reap(Tick::from_secs(now), budget, &mut system_probe()?)?,
        };
        map.sink.report_closed_sessions(&previous_rows, &report.closed);
        if let Some(out) = out {
            out.write(&vipool_reap_report {
                size: size_of::<vipool_reap_report>(),
                freed: report.freed,
                lingering: report.lingering,
                closed: report.closed.len() as u32,
                more: report.more.into(),
            });
        }
        Ok(())
    })
}

#[cfg(any(target_os = "linux", windows))]
fn system_probe() -> Result<crate::system::SystemProbe, CallError> {
    crate::system::SystemProbe::new().map_err(|error| {
        VIPOOL_ERR_IO.with_message(format_args!("cannot list the sockets of the system: {error}"))
    })
}

#[cfg(not(any(target_os = "linux", windows)))]
fn system_probe() -> Result<CallerProbe, CallError> {
    Err(VIPOOL_ERR_UNSUPPORTED.into())
}
