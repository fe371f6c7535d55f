//! What an agent does to a map now and then: drain, reserve, reap, reconcile.

use std::ffi::{c_char, c_void};
use std::net::IpAddr;

use super::address::{vipool_ip, vipool_range};
use super::handle::shared;
use super::layout::{check_optional, fill_optional, layout, read};
use super::leader::vipool_leader;
use super::map::vipool_map;
use super::outcome::{Failure, call};
use super::session::vipool_session;
use super::status::vipool_status::{self, *};
use super::text::utf8;
use crate::Tick;
use crate::map::{AdminChange, ChangeError, Leader, Map, MapError, Probe};
use crate::range::Range;

/// What a change to addresses did.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct vipool_changed {
    /// sizeof(vipool_changed), set by the caller.
    pub size: usize,
    /// How many addresses the change was made to.
    pub addresses: u32,
    /// How many of them are held by sessions, which keep them.
    pub held: u32,
}
layout!(vipool_changed { size, addresses, held });

/// Makes a change and writes what it did.
///
/// # Safety
/// The pointers are NULL or as the header wants them.
unsafe fn change<E: Into<Failure>>(
    map: *const vipool_map,
    out: *mut vipool_changed,
    make: impl FnOnce(&Map) -> Result<Result<AdminChange, E>, Failure>,
) -> vipool_status {
    call(|| {
        // SAFETY: the caller's promise.
        let map = unsafe { shared(map) }?;
        // SAFETY: the caller's promise.
        unsafe { check_optional(out) }?;
        let changed = make(&map.map)?.map_err(Into::into)?;
        // SAFETY: checked above.
        unsafe {
            fill_optional(out, |place| {
                (place.addresses, place.held) = (changed.addresses, changed.held);
            });
        }
        Ok(())
    })
}

/// [`change`] of all addresses of a range.
///
/// # Safety
/// As for [`change`].
unsafe fn change_range(
    map: *const vipool_map,
    range: *const vipool_range,
    out: *mut vipool_changed,
    make: impl FnOnce(&Map, &Range) -> Result<AdminChange, MapError>,
) -> vipool_status {
    // SAFETY: the caller's promise.
    unsafe { change(map, out, |map| Ok(make(map, &range.as_ref().ok_or(VIPOOL_ERR_NULL)?.get()?))) }
}

/// [`change`] of one address.
///
/// # Safety
/// As for [`change`].
unsafe fn change_address(
    map: *const vipool_map,
    address: *const vipool_ip,
    out: *mut vipool_changed,
    make: impl FnOnce(&Map, IpAddr) -> Result<Result<AdminChange, ChangeError>, Failure>,
) -> vipool_status {
    // SAFETY: the caller's promise.
    unsafe {
        change(map, out, |map| make(map, address.as_ref().ok_or(VIPOOL_ERR_NULL)?.required()?))
    }
}

/// Takes addresses out of use: no session gets them; those that have them keep them.
///
/// `out` may be NULL.
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_ADDRESS, VIPOOL_ERR_RANGE_ORDER,
/// VIPOOL_ERR_IO, VIPOOL_ERR_DAMAGED, VIPOOL_ERR_BUSY, VIPOOL_ERR_BUSY_EXCLUSIVE,
/// VIPOOL_ERR_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_map_drain(
    map: *const vipool_map,
    range: *const vipool_range,
    now: u32,
    out: *mut vipool_changed,
) -> vipool_status {
    // SAFETY: the caller vouches for all of them.
    unsafe { change_range(map, range, out, |map, range| map.drain(range, Tick::from_secs(now))) }
}

/// Puts drained addresses back into use.
///
/// `out` may be NULL. Errors: those of vipool_map_drain().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_map_undrain(
    map: *const vipool_map,
    range: *const vipool_range,
    now: u32,
    out: *mut vipool_changed,
) -> vipool_status {
    // SAFETY: the caller vouches for all of them.
    unsafe { change_range(map, range, out, |map, range| map.undrain(range, Tick::from_secs(now))) }
}

/// Whether the whole server drains (`draining` not 0): no new session gets an address.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_IO, VIPOOL_ERR_DAMAGED, VIPOOL_ERR_BUSY,
/// VIPOOL_ERR_BUSY_EXCLUSIVE, VIPOOL_ERR_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_map_drain_server(
    map: *const vipool_map,
    draining: u32,
) -> vipool_status {
    // SAFETY: the caller vouches for the handle.
    call(|| Ok(unsafe { shared(map) }?.map.drain_server(draining != 0)?))
}

/// Keeps an address for a user from now on, whose name is `user_length` bytes of UTF-8. A session
/// that has it keeps it.
///
/// `out` may be NULL.
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_UTF8, VIPOOL_ERR_ADDRESS,
/// VIPOOL_ERR_EXCLUDED (in no pool), VIPOOL_ERR_RESERVED (for another user), VIPOOL_ERR_IO,
/// VIPOOL_ERR_DAMAGED, VIPOOL_ERR_BUSY, VIPOOL_ERR_BUSY_EXCLUSIVE, VIPOOL_ERR_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_map_reserve(
    map: *const vipool_map,
    address: *const vipool_ip,
    user: *const c_char,
    user_length: usize,
    now: u32,
    out: *mut vipool_changed,
) -> vipool_status {
    // SAFETY: the caller vouches for all of them.
    unsafe {
        change_address(map, address, out, |map, address| {
            Ok(map.reserve(address, utf8(user, user_length)?, Tick::from_secs(now)))
        })
    }
}

/// Keeps an address for nobody any more.
///
/// `out` may be NULL. Errors: those of vipool_map_reserve(), and VIPOOL_ERR_NOT_RESERVED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_map_unreserve(
    map: *const vipool_map,
    address: *const vipool_ip,
    now: u32,
    out: *mut vipool_changed,
) -> vipool_status {
    // SAFETY: the caller vouches for all of them.
    unsafe {
        change_address(map, address, out, |map, address| {
            Ok(map.unreserve(address, Tick::from_secs(now)))
        })
    }
}

/// Says that the sessions of the operating system are restored: VIPOOL_ERR_NOT_READY ends.
///
/// Errors: those of vipool_map_drain_server().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_map_restored(map: *const vipool_map) -> vipool_status {
    // SAFETY: the caller vouches for the handle.
    call(|| Ok(unsafe { shared(map) }?.map.mark_restored()?))
}

/// Derives lists, index and counters from the addresses' own records again, as is done by itself
/// after the death of a writer.
///
/// Errors: those of vipool_map_drain_server().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_map_recover(map: *const vipool_map) -> vipool_status {
    // SAFETY: the caller vouches for the handle.
    call(|| Ok(unsafe { shared(map) }?.map.recover()?))
}

/// Asked whether a session of the map is still one of the operating system's: answers 0 if it is
/// gone, something else if it lives. `leader` is NULL if none is known. It must not call the map.
pub type vipool_is_alive_fn = Option<
    unsafe extern "C" fn(
        context: *mut c_void,
        session: vipool_session,
        leader: *const vipool_leader,
    ) -> u32,
>;

/// Closes every session that `is_alive` says is gone, then ends VIPOOL_ERR_NOT_READY: to be called
/// with the operating system's list of sessions before the first session is opened.
///
/// `out_closed` (may be NULL) is told how many were closed. Events: released for each lease.
/// Errors: those of vipool_map_drain_server().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_map_reconcile(
    map: *const vipool_map,
    now: u32,
    is_alive: vipool_is_alive_fn,
    context: *mut c_void,
    out_closed: *mut u32,
) -> vipool_status {
    call(|| {
        // SAFETY: the caller vouches for the handle.
        let map = unsafe { shared(map) }?;
        let is_alive = is_alive.ok_or(VIPOOL_ERR_NULL)?;
        let before = map.rows_if_told()?;
        let closed = map.map.reconcile(Tick::from_secs(now), |session, leader| {
            let leader = leader.map(vipool_leader::from);
            let leader = leader.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
            // SAFETY: the caller vouches for the callback and its context.
            unsafe { is_alive(context, session.raw(), leader) != 0 }
        })?;
        map.sink.gone(&before, &closed);
        if !out_closed.is_null() {
            // SAFETY: not NULL.
            unsafe { out_closed.write(closed.len() as u32) };
        }
        Ok(())
    })
}

/// What vipool_map_reap() asks. The callbacks run while the map is locked: they must not call it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct vipool_probe {
    /// sizeof(vipool_probe), set by the caller.
    pub size: usize,
    /// Whether some socket is bound to this address or connected from it: 0 for no. Say yes when
    /// in doubt. NULL: always in doubt.
    pub has_sockets:
        Option<unsafe extern "C" fn(context: *mut c_void, address: *const vipool_ip) -> u32>,
    /// Whether this process is gone: 0 for no. Say no when in doubt. NULL: always in doubt.
    pub is_gone:
        Option<unsafe extern "C" fn(context: *mut c_void, leader: *const vipool_leader) -> u32>,
    /// Handed to the callbacks.
    pub context: *mut c_void,
}
layout!(vipool_probe { size, has_sockets, is_gone, context });

impl Probe for vipool_probe {
    fn has_sockets(&mut self, address: IpAddr) -> bool {
        // SAFETY: the caller vouches for the callback and its context.
        self.has_sockets.is_none_or(|ask| unsafe { ask(self.context, &address.into()) != 0 })
    }

    fn is_gone(&mut self, leader: &Leader) -> bool {
        // SAFETY: the caller vouches for the callback and its context.
        self.is_gone.is_some_and(|ask| unsafe { ask(self.context, &leader.into()) != 0 })
    }
}

/// What vipool_map_reap() did.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct vipool_reaped {
    /// sizeof(vipool_reaped), set by the caller.
    pub size: usize,
    /// Addresses that became free.
    pub freed: u32,
    /// Addresses that cooled down but still have sockets on them.
    pub lingering: u32,
    /// Sessions closed because their leader was gone.
    pub closed: u32,
    /// 1 if the budget ran out before everything was looked at, else 0.
    pub more: u32,
}
layout!(vipool_reaped { size, freed, lingering, closed, more });

/// The slow path, for an agent's timer: closes sessions whose leader is gone (seen dead twice, ten
/// seconds apart or more), and frees cooled addresses without sockets. Looks at up to `budget`
/// addresses of each pool; call it again while `out->more` is set.
///
/// `probe` may be NULL: then this machine is asked, on Linux and Windows. `out` may be NULL.
/// Events: released for each lease.
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_UNKNOWN_FIELD, VIPOOL_ERR_IO,
/// VIPOOL_ERR_DAMAGED, VIPOOL_ERR_BUSY, VIPOOL_ERR_BUSY_EXCLUSIVE, VIPOOL_ERR_FORKED,
/// VIPOOL_ERR_UNSUPPORTED (no probe on another system).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_map_reap(
    map: *const vipool_map,
    now: u32,
    budget: u32,
    probe: *const vipool_probe,
    out: *mut vipool_reaped,
) -> vipool_status {
    call(|| {
        // SAFETY: the caller vouches for the handle.
        let map = unsafe { shared(map) }?;
        // SAFETY: the caller vouches for the structs.
        let given = unsafe {
            check_optional(out)?;
            if probe.is_null() { None } else { Some(read(probe)?) }
        };
        let before = map.rows_if_told()?;
        let reaped = match given {
            Some(mut probe) => map.map.reap(Tick::from_secs(now), budget, &mut probe)?,
            None => map.map.reap(Tick::from_secs(now), budget, &mut system()?)?,
        };
        map.sink.gone(&before, &reaped.closed);
        // SAFETY: checked above.
        unsafe {
            fill_optional(out, |place| {
                (place.freed, place.lingering) = (reaped.freed, reaped.lingering);
                (place.closed, place.more) = (reaped.closed.len() as u32, reaped.more.into());
            });
        }
        Ok(())
    })
}

#[cfg(any(target_os = "linux", windows))]
fn system() -> Result<crate::system::SystemProbe, Failure> {
    crate::system::SystemProbe::new()
        .map_err(|error| VIPOOL_ERR_IO.because(format_args!("the system's sockets: {error}")))
}

#[cfg(not(any(target_os = "linux", windows)))]
fn system() -> Result<vipool_probe, Failure> {
    Err(VIPOOL_ERR_UNSUPPORTED.into())
}
