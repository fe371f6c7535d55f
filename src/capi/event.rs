//! The events of a map. The library reports them to a callback of the agent.

use std::ffi::c_void;
use std::ptr;

use super::layout::layout;
use super::session::{vipool_lease, vipool_session};
use super::status::vipool_status::{self, *};
use crate::map::{ClosedSession, OpenError, OpenedSession, SessionRow};
use crate::session::SessionId;

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
    /// Number of bytes that the library filled. A program that was compiled with a newer header must
    /// not read beyond them.
    pub size: usize,
    /// vipool_event_kind.
    pub kind: u32,
    /// With VIPOOL_EVENT_EXHAUSTED: VIPOOL_ERR_EXHAUSTED, VIPOOL_ERR_COOLING, VIPOOL_ERR_LINGERING or
    /// VIPOOL_ERR_DRAINING. Otherwise VIPOOL_OK.
    pub reason: i32,
    /// The session.
    pub session: vipool_session,
    /// With VIPOOL_EVENT_ASSIGNED and VIPOOL_EVENT_RELEASED: the lease. Otherwise zero.
    pub lease: vipool_lease,
}
layout!(vipool_event { size, kind, reason, session, lease });

/// Receives the events of a map.
///
/// The library calls it on the thread that caused the event, after the map was unlocked and before
/// the call returns. Several threads may call it at once. It may call the library, but must not
/// close the map, throw or longjmp.
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

// SAFETY: the library only passes the context to the callback. The header states that any thread
// that uses the map may call the callback.
unsafe impl Send for EventSink {}
// SAFETY: as above.
unsafe impl Sync for EventSink {}

impl Default for EventSink {
    fn default() -> Self {
        Self::new(None, ptr::null_mut())
    }
}

impl EventSink {
    pub(crate) fn new(callback: vipool_event_fn, context: *mut c_void) -> Self {
        Self { callback, context }
    }

    #[inline]
    pub(crate) fn is_set(&self) -> bool {
        self.callback.is_some()
    }

    /// Reports the result of opening a session.
    #[inline]
    pub(crate) fn report_open(
        &self,
        session: SessionId,
        result: &Result<OpenedSession, OpenError>,
    ) {
        if self.is_set() {
            self.emit_open(session, result);
        }
    }

    #[cold]
    fn emit_open(&self, session: SessionId, result: &Result<OpenedSession, OpenError>) {
        let shortage = match result {
            Ok(opened) => opened.shortage,
            Err(OpenError::Shortage(shortage)) => Some(*shortage),
            Err(_) => None,
        };
        if let Ok(opened) = result {
            for lease in opened.new_leases() {
                let kind = vipool_event_kind::VIPOOL_EVENT_ASSIGNED;
                self.emit(kind, session, VIPOOL_OK, lease.into());
            }
            if opened.low_water {
                let kind = vipool_event_kind::VIPOOL_EVENT_LOW_WATER;
                self.emit(kind, session, VIPOOL_OK, vipool_lease::default());
            }
        }
        if let Some(shortage) = shortage {
            let kind = vipool_event_kind::VIPOOL_EVENT_EXHAUSTED;
            self.emit(kind, session, (&shortage).into(), vipool_lease::default());
        }
    }

    /// Reports the leases that a close released.
    #[inline]
    pub(crate) fn report_close(&self, closed: &ClosedSession) {
        if self.is_set() {
            self.emit_close(closed);
        }
    }

    #[cold]
    fn emit_close(&self, closed: &ClosedSession) {
        for lease in closed.leases.iter() {
            let kind = vipool_event_kind::VIPOOL_EVENT_RELEASED;
            self.emit(kind, lease.session, VIPOOL_OK, lease.into());
        }
    }

    /// Reports the leases that the closed sessions have in `previous_rows`.
    pub(crate) fn report_closed_sessions(
        &self,
        previous_rows: &[SessionRow],
        closed: &[SessionId],
    ) {
        for row in previous_rows.iter().filter(|row| closed.contains(&row.session)) {
            self.report_close(&ClosedSession { leases: row.leases });
        }
    }

    fn emit(
        &self,
        kind: vipool_event_kind,
        session: SessionId,
        reason: vipool_status,
        lease: vipool_lease,
    ) {
        let Some(callback) = self.callback else { return };
        let event = vipool_event {
            size: size_of::<vipool_event>(),
            kind: kind as u32,
            reason: reason as i32,
            session: session.raw(),
            lease,
        };
        // SAFETY: the caller that set the callback guarantees it and its context. No lock is held.
        unsafe { callback(self.context, &event) };
    }
}
