//! Opening and closing sessions.

use std::ffi::c_char;
use std::mem::MaybeUninit;

use super::address::vipool_ip;
use super::error::{CallError, catch_panic};
use super::event::EventSink;
use super::handle::borrow_shared;
use super::layout::{layout, read_in_place};
use super::leader::vipool_leader;
use super::map::vipool_map;
use super::output::{check_optional_out, check_out};
use super::session::{
    VIPOOL_MAX_LEASES, session_id, vipool_handle, vipool_lease, vipool_session, write_leases,
};
use super::status::vipool_status::{self, *};
use super::text::read_utf8;
use crate::Tick;
use crate::map::{CloseError, ClosedSession, OpenError, OpenOptions, OpenedSession, Shortage};

/// Options of vipool_map_open_session(). Every member is optional.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct vipool_open_options {
    /// sizeof(vipool_open_options), set by the caller.
    pub size: usize,
    /// Name of the user, UTF-8. The user's last address, reservations and quota apply. The library
    /// compares the complete name; the map shows its first 63 bytes. May be NULL.
    pub user: *const c_char,
    /// Length of `user` in bytes.
    pub user_length: usize,
    /// Name of the pool of the virtual IP. NULL means "default", or the first pool if no pool has
    /// this name. Loopback pools serve every session.
    pub pool: *const c_char,
    /// Length of `pool` in bytes.
    pub pool_length: usize,
    /// Require this address; fail if it is not available.
    pub address: vipool_ip,
    /// Address of the user's client.
    pub client: vipool_ip,
    /// Session leader: vipool_map_reap() closes the session when this process has exited. Pid 0 for
    /// none.
    pub leader: vipool_leader,
}
layout!(vipool_open_options {
    size,
    user,
    user_length,
    pool,
    pool_length,
    address,
    client,
    leader,
});

/// vipool_opened_session.flags: the session was already open. It keeps its leases, and gets the
/// leases that were missing.
pub const VIPOOL_OPENED_ALREADY: u32 = 1;
/// vipool_opened_session.flags: this call brought a pool below its low-water mark.
pub const VIPOOL_OPENED_LOW_WATER: u32 = 2;

/// Result of vipool_map_open_session().
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct vipool_opened_session {
    /// sizeof(vipool_opened_session), set by the caller.
    pub size: usize,
    /// Handle for the programs of the session.
    pub handle: vipool_handle,
    /// The leases of the session, in the order of the pools. The first `lease_count` elements are
    /// written.
    pub leases: [vipool_lease; VIPOOL_MAX_LEASES],
    /// Number of leases.
    pub lease_count: u32,
    /// VIPOOL_OPENED_...
    pub flags: u32,
    /// VIPOOL_OK if the session has a lease in every pool that serves it. Otherwise the reason why
    /// a lease is missing: VIPOOL_ERR_EXHAUSTED, VIPOOL_ERR_COOLING, VIPOOL_ERR_LINGERING or
    /// VIPOOL_ERR_DRAINING.
    pub shortage: i32,
    /// With VIPOOL_ERR_COOLING: the tick (see vipool_now()) at which the next cool-down of an
    /// address of the pool ends.
    pub cooling_until: u32,
    /// With a shortage: number, from 0, of the first pool that has no address for the session.
    /// vipool_snapshot_list_pools() returns the name of the pool.
    pub shortage_pool: u32,
    /// Reserved: zero.
    pub reserved: u32,
}
layout!(vipool_opened_session {
    size,
    handle,
    leases,
    lease_count,
    flags,
    shortage,
    cooling_until,
    shortage_pool,
    reserved,
});

/// Result of closing a session.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct vipool_closed_session {
    /// sizeof(vipool_closed_session), set by the caller.
    pub size: usize,
    /// The released leases, in the order of the pools. The first `lease_count` elements are
    /// written.
    pub leases: [vipool_lease; VIPOOL_MAX_LEASES],
    /// Number of leases.
    pub lease_count: u32,
    /// Reserved: zero.
    pub reserved: u32,
}
layout!(vipool_closed_session { size, leases, lease_count, reserved });

impl vipool_opened_session {
    /// Writes the result of `open_session` to `out`, whose bytes may be uninitialised.
    #[inline]
    fn set(out: &mut MaybeUninit<Self>, opened: &OpenedSession) {
        let flag_if = |condition, flag| if condition { flag } else { 0 };
        let (shortage, cooling_until) = shortage_members(opened.shortage);
        let out = out.as_mut_ptr();
        // SAFETY: `out` comes from a reference, so it is valid for writes. No member is read.
        unsafe {
            (*out).lease_count = write_leases(&raw mut (*out).leases, &opened.leases);
            (*out).flags = flag_if(opened.already_open, VIPOOL_OPENED_ALREADY)
                | flag_if(opened.is_low_water(), VIPOOL_OPENED_LOW_WATER);
            ((*out).shortage, (*out).cooling_until) = (shortage, cooling_until);
            ((*out).shortage_pool, (*out).reserved) = (opened.shortage_pool.into(), 0);
            // `open_session` stores the handle last. Read the handle last, so that the CPU does not
            // wait for that store.
            (*out).handle = opened.handle.into();
        }
    }

    /// Returns the result of an open that failed because of a shortage.
    #[cold]
    fn failed(shortage: Shortage, pool: u16) -> Self {
        let (shortage, cooling_until) = shortage_members(Some(shortage));
        Self {
            size: size_of::<Self>(),
            handle: vipool_handle::default(),
            leases: [vipool_lease::default(); VIPOOL_MAX_LEASES],
            lease_count: 0,
            flags: 0,
            shortage,
            cooling_until,
            shortage_pool: pool.into(),
            reserved: 0,
        }
    }
}

/// Returns the members `shortage` and `cooling_until` of a [`vipool_opened_session`].
#[inline]
fn shortage_members(shortage: Option<Shortage>) -> (i32, u32) {
    let status = shortage.as_ref().map_or(VIPOOL_OK, Into::into);
    let cooling_until = match shortage {
        Some(Shortage::Cooling { until }) => until.as_secs(),
        _ => 0,
    };
    (status as i32, cooling_until)
}

impl vipool_closed_session {
    /// Writes the released leases to `out`, whose bytes may be uninitialised.
    #[inline]
    fn set(out: &mut MaybeUninit<Self>, closed: &ClosedSession) {
        let out = out.as_mut_ptr();
        // SAFETY: `out` comes from a reference, so it is valid for writes. No member is read.
        unsafe {
            (*out).lease_count = write_leases(&raw mut (*out).leases, &closed.leases);
            (*out).reserved = 0;
        }
    }
}

static DEFAULT_OPTIONS: OpenOptions<'static> =
    OpenOptions { user: None, pool: None, address: None, client: None, leader: None };

/// Reads the options of the caller. Converts only members that are not zero.
///
/// # Safety
/// `caller_options` is NULL or valid for reads, with its texts, during `'a`.
#[inline(always)]
unsafe fn read_open_options<'r, 'a: 'r>(
    caller_options: *const vipool_open_options,
    storage: &'r mut MaybeUninit<OpenOptions<'a>>,
) -> Result<&'r OpenOptions<'a>, CallError> {
    if caller_options.is_null() {
        return Ok(&DEFAULT_OPTIONS);
    }
    let mut struct_storage = MaybeUninit::uninit();
    // SAFETY: the caller guarantees struct and texts.
    unsafe {
        let caller_options = read_in_place(caller_options, &mut struct_storage)?;
        let options = storage.write(DEFAULT_OPTIONS);
        // The storage already contains the defaults. To write them a second time would be slower,
        // so write only members that are set.
        if !(*caller_options).user.is_null() || (*caller_options).user_length != 0 {
            options.user = Some(read_utf8((*caller_options).user, (*caller_options).user_length)?);
        }
        if !(*caller_options).pool.is_null() || (*caller_options).pool_length != 0 {
            options.pool = Some(read_utf8((*caller_options).pool, (*caller_options).pool_length)?);
        }
        if (*caller_options).address.family != 0 {
            options.address = (*caller_options).address.decode_ip()?;
        }
        if (*caller_options).client.family != 0 {
            options.client = (*caller_options).client.decode_ip()?;
        }
        if (*caller_options).leader.pid != 0 || (*caller_options).leader.reserved != 0 {
            options.leader = (*caller_options).leader.decode_leader()?;
        }
        Ok(options)
    }
}

/// Closes a session with `close`, reports the events and writes the result. No borrow of the map or
/// of a struct of the caller is live while the event callback runs, because the callback may use
/// the map and change the structs.
///
/// # Safety
/// `out` is NULL or valid as [`check_optional_out`] requires.
#[inline(always)]
unsafe fn close_and_report(
    out: *mut vipool_closed_session,
    sink: &EventSink,
    close: impl FnOnce() -> Result<Result<ClosedSession, CloseError>, CallError>,
) -> Result<(), CallError> {
    // SAFETY: the caller guarantees the struct.
    let out = unsafe { check_optional_out(out) }?;
    let result = close()?;
    if let Ok(closed) = &result {
        sink.report_close(closed);
        if let Some(out) = out {
            out.fill(|out| vipool_closed_session::set(out, closed));
        }
    }
    Ok(result.map(drop)?)
}

/// Opens a session: allocates its addresses, or returns the addresses that it already has.
///
/// A second call for an open session adds missing addresses, and replaces the client and the leader
/// of the session if the options contain them. A session keeps its user, if it has one, and its
/// pool.
///
/// In each pool, the session gets the first of these addresses that is available: the address that
/// it already holds, the required address, the reserved address of the user, the last address of
/// the user, the address that has been free longest. If the required address is not available, the
/// call fails.
///
/// Events: assigned for each new lease, exhausted, low water.
///
/// Parameters:
/// - `map`: the map.
/// - `session`: the session.
/// - `options`: may be NULL.
/// - `now`: vipool_now().
/// - `out`: receives the handle and the leases. If the call succeeds and `shortage` is not
///   VIPOOL_OK, the session lacks a lease of at least one pool. If the call fails with
///   VIPOOL_ERR_EXHAUSTED, VIPOOL_ERR_COOLING, VIPOOL_ERR_LINGERING or VIPOOL_ERR_DRAINING, `out`
///   receives the shortage and no leases.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_UNKNOWN_FIELD, VIPOOL_ERR_UTF8,
/// VIPOOL_ERR_ADDRESS, VIPOOL_ERR_SESSION_ID, VIPOOL_ERR_OTHER_USER, VIPOOL_ERR_OTHER_ADDRESS, all
/// statuses from VIPOOL_ERR_EXHAUSTED to VIPOOL_ERR_NOT_READY, and writer errors.
///
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_map_open_session(
    map: *const vipool_map,
    session: vipool_session,
    options: *const vipool_open_options,
    now: u32,
    out: *mut vipool_opened_session,
) -> vipool_status {
    catch_panic(|| {
        // SAFETY: the caller guarantees handle and struct.
        let map = unsafe { borrow_shared(map) }?;
        // SAFETY: as above.
        let out = unsafe { check_out(out) }?;
        let id = session_id(session)?;
        let mut storage = MaybeUninit::uninit();
        // SAFETY: the caller guarantees struct and texts.
        let options = unsafe { read_open_options(options, &mut storage) }?;
        let result = map.with_session_writer(
            |map| map.open_session(id, options, Tick::from_secs(now)),
            |writer| writer.open_session(id, options, Tick::from_secs(now)),
        );
        let pool_name = |pool| map.map().ok()?.pool_name(pool).ok()?;
        map.sink.report_open(id, &result, pool_name);
        // Use a reference, because a copy of the result costs more than the rest of this function.
        match &result {
            Ok(opened) => out.fill(|out| vipool_opened_session::set(out, opened)),
            Err(OpenError::Shortage { shortage, pool }) => {
                out.write(&vipool_opened_session::failed(*shortage, *pool));
            }
            Err(_) => {}
        }
        Ok(result.map(drop)?)
    })
}

/// Replaces the client and the leader of an open session.
///
/// Call this function when the user reconnects from another client, or when another process becomes
/// the leader.
///
/// Parameters:
/// - `map`: the map.
/// - `session`: the session.
/// - `client`: address of the client. NULL or no address keeps the current client.
/// - `leader`: the leader. NULL or pid 0 keeps the current leader.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_UNKNOWN_FIELD, VIPOOL_ERR_ADDRESS, VIPOOL_ERR_SESSION_ID,
/// VIPOOL_ERR_NOT_OPEN, and writer errors.
///
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_map_update_session(
    map: *const vipool_map,
    session: vipool_session,
    client: *const vipool_ip,
    leader: *const vipool_leader,
) -> vipool_status {
    catch_panic(|| {
        // SAFETY: the caller guarantees the handle. Both structs are NULL or valid.
        let (map, client, leader) =
            unsafe { (borrow_shared(map)?, client.as_ref(), leader.as_ref()) };
        let client = client.map_or(Ok(None), |client| client.decode_ip())?;
        let leader = leader.map_or(Ok(None), |leader| leader.decode_leader())?;
        Ok(map.map()?.update_session(session_id(session)?, client, leader)?)
    })
}

/// Closes a session by its id and releases its leases.
///
/// Events: released for each lease.
///
/// Parameters:
/// - `map`: the map.
/// - `session`: the session.
/// - `now`: vipool_now().
/// - `out`: receives the released leases. May be NULL.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_SESSION_ID, VIPOOL_ERR_NOT_OPEN, and
/// writer errors.
///
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_map_close_session(
    map: *const vipool_map,
    session: vipool_session,
    now: u32,
    out: *mut vipool_closed_session,
) -> vipool_status {
    catch_panic(|| {
        // SAFETY: the caller guarantees the handle.
        let map = unsafe { borrow_shared(map) }?;
        let close = || {
            let id = session_id(session)?;
            Ok(map.with_session_writer(
                |map| map.close_session(id, Tick::from_secs(now)),
                |writer| writer.close_session(id, Tick::from_secs(now)),
            ))
        };
        // SAFETY: the caller guarantees the struct.
        unsafe { close_and_report(out, &map.sink, close) }
    })
}

/// Closes the session of a handle and releases its leases.
///
/// A handle that is stale or foreign, or whose session is closed, releases nothing.
///
/// Events: released for each lease.
///
/// Parameters:
/// - `map`: the map.
/// - `handle`: the handle.
/// - `now`: vipool_now().
/// - `out`: receives the released leases. May be NULL.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_UNKNOWN_FIELD,
/// VIPOOL_ERR_SESSION_ID, VIPOOL_ERR_HANDLE, VIPOOL_ERR_NOT_OPEN, VIPOOL_ERR_STALE,
/// VIPOOL_ERR_FOREIGN, and writer errors.
///
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_map_close_by_handle(
    map: *const vipool_map,
    handle: *const vipool_handle,
    now: u32,
    out: *mut vipool_closed_session,
) -> vipool_status {
    catch_panic(|| {
        // SAFETY: the caller guarantees both handles.
        let (map, handle) =
            unsafe { (borrow_shared(map)?, handle.as_ref().ok_or(VIPOOL_ERR_NULL)?) };
        let handle = handle.decode_handle()?;
        let close = || {
            Ok(map.with_session_writer(
                |map| map.close_by_handle(&handle, Tick::from_secs(now)),
                |writer| writer.close_by_handle(&handle, Tick::from_secs(now)),
            ))
        };
        // SAFETY: the caller guarantees the struct.
        unsafe { close_and_report(out, &map.sink, close) }
    })
}

#[cfg(test)]
mod tests {
    use std::ffi::c_void;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::thread;

    use super::*;
    use crate::capi::event::{vipool_event, vipool_event_kind};
    use crate::map::{Map, Plan};
    use crate::pool::{Pool, PoolKind};

    unsafe extern "C" fn count_assigned(context: *mut c_void, event: *const vipool_event) {
        // SAFETY: `context` points to the counter of the test, and `event` to an event of the
        // library.
        let (assigned_count, event) = unsafe { (&*context.cast::<AtomicU32>(), &*event) };
        if event.kind == vipool_event_kind::VIPOOL_EVENT_ASSIGNED as u32 {
            assigned_count.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn concurrent_opens_of_a_session_emit_one_event() {
        let address = std::net::IpAddr::from([10, 0, 0, 0]);
        let ranges = [crate::range::Range::new(address, [10, 0, 255, 255].into()).unwrap()];
        let pool = Pool::new("default", PoolKind::VirtualIp, &ranges, 60_000).unwrap();
        let map = Map::in_memory(&Plan { pools: vec![pool], ..Plan::default() }).unwrap();
        let assigned_count = AtomicU32::new(0);
        let arrival_count = AtomicU32::new(0);
        let context = (&raw const assigned_count).cast_mut().cast();
        // SAFETY: the callback may run on any thread. The counter outlives the map.
        let map =
            unsafe { vipool_map::new(map, EventSink::new(Some(count_assigned), context), false) };
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for number in 1..=50_000u64 {
                        // Both threads open each session at the same time.
                        arrival_count.fetch_add(1, Ordering::Relaxed);
                        while u64::from(arrival_count.load(Ordering::Relaxed)) < 2 * number {
                            thread::yield_now();
                        }
                        let mut opened = MaybeUninit::<vipool_opened_session>::zeroed();
                        // SAFETY: zeroed memory with a size is a valid struct. The map outlives the
                        // call.
                        let status = unsafe {
                            opened
                                .as_mut_ptr()
                                .cast::<usize>()
                                .write(size_of::<vipool_opened_session>());
                            let id = 0x0400_0000_0000_0000 | number;
                            let out = opened.as_mut_ptr();
                            vipool_map_open_session(&raw const map, id, std::ptr::null(), 1000, out)
                        };
                        assert_eq!(status, VIPOOL_OK);
                    }
                });
            }
        });
        assert_eq!(assigned_count.into_inner(), 50_000);
    }
}
