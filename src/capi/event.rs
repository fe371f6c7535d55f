//! The events of a map. The library reports them to a callback of the agent.

use std::ffi::{c_char, c_void};
use std::ptr;

use super::layout::layout;
use super::session::{vipool_lease, vipool_session};
use super::status::vipool_status::{self, *};
use crate::map::{ClosedSession, OpenError, OpenedSession, SessionRow};
use crate::session::{Lease, SessionId};

/// Kind of an event.
#[repr(u32)]
#[derive(Clone, Copy, Debug)]
pub enum vipool_event_kind {
    /// A session got the address of `lease`.
    VIPOOL_EVENT_ASSIGNED = 1,
    /// A session released the address of `lease`.
    VIPOOL_EVENT_RELEASED = 2,
    /// A session got no address of a pool, because of `reason`.
    VIPOOL_EVENT_EXHAUSTED = 3,
    /// A pool fell below its low-water mark when the session was opened.
    VIPOOL_EVENT_LOW_WATER = 4,
}

/// An event. The library fills it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct vipool_event {
    /// Number of bytes that the library filled. A program that was compiled with a newer header
    /// must not read beyond them.
    pub size: usize,
    /// vipool_event_kind.
    pub kind: u32,
    /// With VIPOOL_EVENT_EXHAUSTED: VIPOOL_ERR_EXHAUSTED, VIPOOL_ERR_COOLING, VIPOOL_ERR_LINGERING
    /// or VIPOOL_ERR_DRAINING. Otherwise VIPOOL_OK.
    pub reason: i32,
    /// The session.
    pub session: vipool_session,
    /// With VIPOOL_EVENT_ASSIGNED and VIPOOL_EVENT_RELEASED: the lease. Otherwise zero.
    pub lease: vipool_lease,
    /// Number of the pool in the map, from 0.
    pub pool: u32,
    /// Reserved: zero.
    pub reserved: u32,
    /// With VIPOOL_EVENT_EXHAUSTED and VIPOOL_EVENT_LOW_WATER: the name of the pool, UTF-8 without
    /// a NUL, valid until the callback returns. Otherwise NULL.
    pub pool_name: *const c_char,
    /// Length of `pool_name` in bytes.
    pub pool_name_length: usize,
}
layout!(vipool_event {
    size,
    kind,
    reason,
    session,
    lease,
    pool,
    reserved,
    pool_name,
    pool_name_length,
});

/// Receives the events of a map.
///
/// The library calls the function on the thread whose call caused the event, after the operation on
/// the map and before that call returns. Several threads may call the function at once. The
/// function may call the library, but must not close the map, throw or longjmp.
///
/// Parameters:
/// - `context`: vipool_map_options.context.
/// - `event`: the event, valid until the callback returns.
pub type vipool_event_fn =
    Option<unsafe extern "C" fn(context: *mut c_void, event: *const vipool_event)>;

/// The callback of a map with its context.
pub(crate) struct EventSink {
    callback: vipool_event_fn,
    context: *mut c_void,
}

// SAFETY: the library only passes the context to the callback, and the caller of `new` guarantees
// that any thread may call the callback.
unsafe impl Send for EventSink {}
// SAFETY: as above.
unsafe impl Sync for EventSink {}

impl Default for EventSink {
    fn default() -> Self {
        Self { callback: None, context: ptr::null_mut() }
    }
}

impl EventSink {
    /// Returns a sink that calls a callback of the caller.
    ///
    /// # Safety
    /// As long as the result is used, any thread that uses the map may call the callback with the
    /// context.
    pub(crate) unsafe fn new(callback: vipool_event_fn, context: *mut c_void) -> Self {
        Self { callback, context }
    }

    #[inline]
    pub(crate) fn is_set(&self) -> bool {
        self.callback.is_some()
    }

    /// Reports the result of opening a session. `pool_name` returns the name of a pool.
    #[inline]
    pub(crate) fn report_open(
        &self,
        session: SessionId,
        result: &Result<OpenedSession, OpenError>,
        pool_name: impl Fn(u16) -> Option<String>,
    ) {
        if self.is_set() {
            self.emit_open(session, result, &pool_name);
        }
    }

    #[cold]
    fn emit_open(
        &self,
        session: SessionId,
        result: &Result<OpenedSession, OpenError>,
        pool_name: &dyn Fn(u16) -> Option<String>,
    ) {
        let shortage_and_pool = match result {
            Ok(opened) => opened.shortage.map(|shortage| (shortage, opened.shortage_pool)),
            Err(OpenError::Shortage { shortage, pool }) => Some((*shortage, *pool)),
            Err(_) => None,
        };
        if let Ok(opened) = result {
            for lease in opened.new_leases() {
                self.emit_lease_event(vipool_event_kind::VIPOOL_EVENT_ASSIGNED, lease);
            }
            for pool in opened.low_water_pools() {
                let kind = vipool_event_kind::VIPOOL_EVENT_LOW_WATER;
                let name = pool_name(pool).unwrap_or_default();
                self.emit_pool_event(kind, session, VIPOOL_OK, pool, &name);
            }
        }
        if let Some((shortage, pool)) = shortage_and_pool {
            let kind = vipool_event_kind::VIPOOL_EVENT_EXHAUSTED;
            let name = pool_name(pool).unwrap_or_default();
            self.emit_pool_event(kind, session, (&shortage).into(), pool, &name);
        }
    }

    /// Reports the leases that the close of a session released.
    #[inline]
    pub(crate) fn report_close(&self, closed: &ClosedSession) {
        if self.is_set() {
            self.emit_close(closed);
        }
    }

    #[cold]
    fn emit_close(&self, closed: &ClosedSession) {
        for lease in closed.leases.iter() {
            self.emit_lease_event(vipool_event_kind::VIPOOL_EVENT_RELEASED, lease);
        }
    }

    /// Reports that `closed_sessions` released their leases. `previous_rows` contains these leases.
    pub(crate) fn report_closed_sessions(
        &self,
        previous_rows: &[SessionRow],
        closed_sessions: &[SessionId],
    ) {
        for row in previous_rows.iter().filter(|row| closed_sessions.contains(&row.session)) {
            self.report_close(&ClosedSession { leases: row.leases });
        }
    }

    /// Emits an event about a lease.
    fn emit_lease_event(&self, kind: vipool_event_kind, lease: Lease) {
        let event = vipool_event {
            pool: lease.pool.into(),
            lease: lease.into(),
            ..new_event(kind, lease.session)
        };
        self.emit(&event);
    }

    /// Emits an event about a pool.
    fn emit_pool_event(
        &self,
        kind: vipool_event_kind,
        session: SessionId,
        reason: vipool_status,
        pool: u16,
        name: &str,
    ) {
        let event = vipool_event {
            reason: reason as i32,
            pool: pool.into(),
            pool_name: name.as_ptr().cast(),
            pool_name_length: name.len(),
            ..new_event(kind, session)
        };
        self.emit(&event);
    }

    fn emit(&self, event: &vipool_event) {
        let Some(callback) = self.callback else { return };
        // SAFETY: the caller of `new` guarantees callback and context. The callback can use the
        // map, because this thread is not inside an operation of the map.
        unsafe { callback(self.context, event) };
    }
}

/// Returns an event without a reason, a lease or a pool.
fn new_event(kind: vipool_event_kind, session: SessionId) -> vipool_event {
    vipool_event {
        size: size_of::<vipool_event>(),
        kind: kind as u32,
        reason: VIPOOL_OK as i32,
        session: session.raw(),
        lease: vipool_lease::default(),
        pool: 0,
        reserved: 0,
        pool_name: ptr::null(),
        pool_name_length: 0,
    }
}
