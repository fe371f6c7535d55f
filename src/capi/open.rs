//! Opening and closing sessions.

use std::ffi::c_char;
use std::mem::MaybeUninit;

use super::address::vipool_ip;
use super::event::Sink;
use super::handle::shared;
use super::layout::{check_optional, check_out, fill, fill_optional, in_place, layout};
use super::leader::vipool_leader;
use super::map::vipool_map;
use super::outcome::{Failure, call};
use super::session::{
    VIPOOL_MAX_LEASES, session, set_leases, vipool_handle, vipool_lease, vipool_session,
};
use super::status::vipool_status::{self, *};
use super::text::utf8;
use crate::Tick;
use crate::map::{CloseError, ClosedSession, OpenError, OpenOptions, OpenedSession, Shortage};
use crate::session::SessionId;

/// What vipool_map_open_session() is told of a session, beside its id. All may be left out.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct vipool_open_options {
    /// sizeof(vipool_open_options), set by the caller.
    pub size: usize,
    /// The user's name, UTF-8: for the address of last time, reservations and the quota. At most
    /// 63 bytes are kept. May be NULL.
    pub user: *const c_char,
    /// Its length in bytes.
    pub user_length: usize,
    /// Name of the pool to take virtual IPs from, "default" if NULL. Loopback pools serve every
    /// session.
    pub pool: *const c_char,
    /// Its length in bytes.
    pub pool_length: usize,
    /// This very address, or an error.
    pub address: vipool_ip,
    /// The address of the user's client.
    pub client: vipool_ip,
    /// The process that stands for the session; pid 0 for none. vipool_map_reap() closes the
    /// session when it is gone.
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

/// Of vipool_opened.flags: the session was open already; its leases are the same, or more if some
/// were missing.
pub const VIPOOL_OPENED_ALREADY: u32 = 1;
/// Of vipool_opened.flags: this call brought a pool below its low-water mark.
pub const VIPOOL_OPENED_LOW_WATER: u32 = 2;

/// An open session: what its programs are told, and its leases.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct vipool_opened {
    /// sizeof(vipool_opened), set by the caller.
    pub size: usize,
    /// To hand to the session's programs.
    pub handle: vipool_handle,
    /// What the session holds now, in the order of the pools; `lease_count` of them are written.
    pub leases: [vipool_lease; VIPOOL_MAX_LEASES],
    /// How many of them there are.
    pub lease_count: u32,
    /// VIPOOL_OPENED_...
    pub flags: u32,
    /// Why it holds less than it could: VIPOOL_ERR_EXHAUSTED, VIPOOL_ERR_COOLING,
    /// VIPOOL_ERR_LINGERING or VIPOOL_ERR_DRAINING; VIPOOL_OK if it holds all.
    pub shortage: i32,
    /// With VIPOOL_ERR_COOLING: the tick when the first address is ready.
    pub cooling_until: u32,
}
layout!(vipool_opened { size, handle, leases, lease_count, flags, shortage, cooling_until });

/// What a close did.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct vipool_closed {
    /// sizeof(vipool_closed), set by the caller.
    pub size: usize,
    /// The leases that were given back, in the order of the pools; `lease_count` of them are
    /// written.
    pub leases: [vipool_lease; VIPOOL_MAX_LEASES],
    /// How many of them there are.
    pub lease_count: u32,
    /// Zero.
    pub reserved: u32,
}
layout!(vipool_closed { size, leases, lease_count, reserved });

impl vipool_opened {
    /// Tells what an opening gave.
    #[inline]
    pub(crate) fn tell(&mut self, opened: &OpenedSession) {
        self.lease_count = set_leases(&mut self.leases, &opened.leases);
        let bit = |on, bit| if on { bit } else { 0 };
        self.flags = bit(opened.already_open, VIPOOL_OPENED_ALREADY)
            | bit(opened.low_water, VIPOOL_OPENED_LOW_WATER);
        self.shortage = opened.shortage.as_ref().map_or(VIPOOL_OK, Into::into) as i32;
        self.cooling_until = match opened.shortage {
            Some(Shortage::Cooling { until }) => until.as_secs(),
            _ => 0,
        };
        // It was made last: by now it can be read without waiting.
        self.handle = opened.handle.into();
    }
}

/// What is known of a session of which the caller says nothing.
static NOTHING: OpenOptions<'static> =
    OpenOptions { user: None, pool: None, address: None, client: None, leader: None };

/// What the caller says of a session. Where that is nothing, nothing is copied.
///
/// # Safety
/// `given` is NULL or valid as the header wants it, with the texts in it, during `'a`.
#[inline(always)]
unsafe fn open_options<'r, 'a: 'r>(
    given: *const vipool_open_options,
    room: &'r mut MaybeUninit<OpenOptions<'a>>,
) -> Result<&'r OpenOptions<'a>, Failure> {
    if given.is_null() {
        return Ok(&NOTHING);
    }
    let mut copy = MaybeUninit::uninit();
    // SAFETY: the caller's promise.
    unsafe {
        let given = in_place(given, &mut copy)?;
        let known = room.write(NOTHING);
        // Only what is given is written: to write twice before it is read costs more.
        if !(*given).user.is_null() || (*given).user_length != 0 {
            known.user = Some(utf8((*given).user, (*given).user_length)?);
        }
        if !(*given).pool.is_null() || (*given).pool_length != 0 {
            known.pool = Some(utf8((*given).pool, (*given).pool_length)?);
        }
        if (*given).address.family != 0 {
            known.address = (*given).address.get()?;
        }
        if (*given).client.family != 0 {
            known.client = (*given).client.get()?;
        }
        if (*given).leader.pid != 0 {
            known.leader = (*given).leader.get();
        }
        Ok(known)
    }
}

/// Opens a session by a map or a writer (`open`), tells of it and writes it. Nothing of theirs is
/// borrowed while the caller's callback runs, which may call them.
///
/// # Safety
/// The caller vouches for the structs and for the texts in them.
#[inline(always)]
pub(crate) unsafe fn opening(
    (session_id, options, now): (vipool_session, *const vipool_open_options, u32),
    out: *mut vipool_opened,
    sink: &Sink,
    open: impl FnOnce(SessionId, &OpenOptions<'_>, Tick) -> Result<OpenedSession, OpenError>,
) -> Result<(), Failure> {
    // SAFETY: the caller's promise.
    unsafe { check_out(out) }?;
    let id = session(session_id)?;
    let mut room = MaybeUninit::uninit();
    // SAFETY: as above.
    let given = unsafe { open_options(options, &mut room) }?;
    let opened = open(id, given, Tick::from_secs(now));
    sink.opened(id, &opened);
    // By reference, as a copy of the whole costs more than the rest.
    if let Ok(opened) = &opened {
        // SAFETY: checked above.
        unsafe { fill(out, |place| place.tell(opened)) }
    }
    Ok(opened.map(drop)?)
}

/// Closes a session by a map or a writer (`close`), tells of it and writes it.
///
/// # Safety
/// The caller vouches for the struct.
#[inline(always)]
pub(crate) unsafe fn closing(
    out: *mut vipool_closed,
    sink: &Sink,
    close: impl FnOnce() -> Result<Result<ClosedSession, CloseError>, Failure>,
) -> Result<(), Failure> {
    // SAFETY: the caller's promise.
    unsafe { check_optional(out) }?;
    let closed = close()?;
    if let Ok(closed) = &closed {
        sink.closed(closed);
        // SAFETY: checked above.
        unsafe {
            fill_optional(out, |place| {
                place.lease_count = set_leases(&mut place.leases, &closed.leases);
                place.reserved = 0;
            });
        }
    }
    Ok(closed.map(drop)?)
}

/// Gives a session its addresses, or completes and returns those it has: opening twice is as
/// opening once.
///
/// In this order: the lease it has; the address it asks for, or an error; the one reserved for the
/// user; the user's last one; the one that has been free longest.
///
/// `options` may be NULL. `now`: vipool_now(). VIPOOL_OK with `out->shortage` set means that the
/// session has some addresses but not all. Without any, nothing was opened.
/// Events: assigned for each new lease, exhausted, low water.
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_UNKNOWN_FIELD, VIPOOL_ERR_UTF8,
/// VIPOOL_ERR_ADDRESS, VIPOOL_ERR_SESSION_ID, VIPOOL_ERR_EXHAUSTED to VIPOOL_ERR_NOT_READY,
/// VIPOOL_ERR_IO, VIPOOL_ERR_DAMAGED, VIPOOL_ERR_BUSY, VIPOOL_ERR_BUSY_EXCLUSIVE,
/// VIPOOL_ERR_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_map_open_session(
    map: *const vipool_map,
    session_id: vipool_session,
    options: *const vipool_open_options,
    now: u32,
    out: *mut vipool_opened,
) -> vipool_status {
    call(|| {
        // SAFETY: the caller vouches for the handle.
        let vipool_map { map, sink } = unsafe { shared(map) }?;
        let open = |id, options: &OpenOptions<'_>, now| map.open_session(id, options, now);
        // SAFETY: the caller vouches for the structs and the texts in them.
        unsafe { opening((session_id, options, now), out, sink, open) }
    })
}

/// Gives back what this session holds.
///
/// `out` may be NULL. Events: released for each lease.
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_SESSION_ID, VIPOOL_ERR_NOT_OPEN,
/// VIPOOL_ERR_IO, VIPOOL_ERR_DAMAGED, VIPOOL_ERR_BUSY, VIPOOL_ERR_BUSY_EXCLUSIVE,
/// VIPOOL_ERR_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_map_close_session(
    map: *const vipool_map,
    session_id: vipool_session,
    now: u32,
    out: *mut vipool_closed,
) -> vipool_status {
    call(|| {
        // SAFETY: the caller vouches for the handle.
        let vipool_map { map, sink } = unsafe { shared(map) }?;
        let close = || Ok(map.close_session(session(session_id)?, Tick::from_secs(now)));
        // SAFETY: the caller vouches for the struct.
        unsafe { closing(out, sink, close) }
    })
}

/// Gives back what the session of this handle holds. A stale, foreign or second close frees
/// nothing and says so.
///
/// `out` may be NULL. Events: released for each lease.
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_SESSION_ID, VIPOOL_ERR_HANDLE,
/// VIPOOL_ERR_NOT_OPEN, VIPOOL_ERR_STALE, VIPOOL_ERR_FOREIGN, VIPOOL_ERR_IO, VIPOOL_ERR_DAMAGED,
/// VIPOOL_ERR_BUSY, VIPOOL_ERR_BUSY_EXCLUSIVE, VIPOOL_ERR_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_map_close(
    map: *const vipool_map,
    handle: *const vipool_handle,
    now: u32,
    out: *mut vipool_closed,
) -> vipool_status {
    call(|| {
        // SAFETY: the caller vouches for the handles.
        let (vipool_map { map, sink }, handle) =
            unsafe { (shared(map)?, handle.as_ref().ok_or(VIPOOL_ERR_NULL)?) };
        let close = || Ok(map.close_by_handle(&handle.get()?, Tick::from_secs(now)));
        // SAFETY: the caller vouches for the struct.
        unsafe { closing(out, sink, close) }
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

    unsafe extern "C" fn count(context: *mut c_void, event: *const vipool_event) {
        // SAFETY: the counter below, and an event of the library's.
        let (assigned, event) = unsafe { (&*context.cast::<AtomicU32>(), &*event) };
        if event.kind == vipool_event_kind::VIPOOL_EVENT_ASSIGNED as u32 {
            assigned.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn of_two_threads_that_open_a_session_one_is_told() {
        let address = std::net::IpAddr::from([10, 0, 0, 0]);
        let ranges = [crate::range::Range::new(address, [10, 0, 255, 255].into()).unwrap()];
        let pool = Pool::new("default", PoolKind::VirtualIp, &ranges, 60_000).unwrap();
        let map = Map::in_memory(&Plan { pools: vec![pool], ..Plan::default() }).unwrap();
        let assigned = AtomicU32::new(0);
        let arrived = AtomicU32::new(0);
        let context = (&raw const assigned).cast_mut().cast();
        let map = vipool_map { map, sink: Sink::new(Some(count), context) };
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for number in 1..=50_000u64 {
                        // Both at once, for each session.
                        arrived.fetch_add(1, Ordering::Relaxed);
                        while u64::from(arrived.load(Ordering::Relaxed)) < 2 * number {
                            thread::yield_now();
                        }
                        let mut opened = MaybeUninit::<vipool_opened>::zeroed();
                        // SAFETY: zeros with a size are a valid struct; the map outlives the call.
                        let status = unsafe {
                            opened.as_mut_ptr().cast::<usize>().write(size_of::<vipool_opened>());
                            let id = 0x0400_0000_0000_0000 | number;
                            let out = opened.as_mut_ptr();
                            vipool_map_open_session(&raw const map, id, std::ptr::null(), 1000, out)
                        };
                        assert_eq!(status, VIPOOL_OK);
                    }
                });
            }
        });
        assert_eq!(assigned.into_inner(), 50_000);
    }
}
