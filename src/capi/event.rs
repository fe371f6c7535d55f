//! What an agent is told of, by a callback: addresses given out, given back, missing, running low.

use std::ffi::c_void;
use std::ptr;

use super::layout::layout;
use super::session::{vipool_lease, vipool_session};
use super::status::vipool_status::{self, *};
use crate::map::{ClosedSession, OpenError, OpenedSession, SessionRow};
use crate::session::SessionId;

/// What happened.
#[repr(u32)]
#[derive(Clone, Copy, Debug)]
pub enum vipool_event_kind {
    /// A session was given an address: `lease`.
    VIPOOL_EVENT_ASSIGNED = 1,
    /// A session gave an address back: `lease`.
    VIPOOL_EVENT_RELEASED = 2,
    /// A session got no address of a pool: `reason` says why.
    VIPOOL_EVENT_EXHAUSTED = 3,
    /// A pool fell below its low-water mark when this session was opened.
    VIPOOL_EVENT_LOW_WATER = 4,
}

/// Something that happened. Made by the library; its size says how much of it there is.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct vipool_event {
    /// How many bytes of this struct the library has filled: a program that was compiled with a
    /// newer header must not read beyond.
    pub size: usize,
    /// vipool_event_kind.
    pub kind: u32,
    /// With VIPOOL_EVENT_EXHAUSTED: VIPOOL_ERR_EXHAUSTED, VIPOOL_ERR_COOLING,
    /// VIPOOL_ERR_LINGERING or VIPOOL_ERR_DRAINING. Otherwise VIPOOL_OK.
    pub reason: i32,
    /// The session.
    pub session: vipool_session,
    /// With VIPOOL_EVENT_ASSIGNED and VIPOOL_EVENT_RELEASED: the lease. Otherwise zero.
    pub lease: vipool_lease,
}
layout!(vipool_event { size, kind, reason, session, lease });

/// Called with the context of vipool_map_options for each event, on the thread whose call caused
/// it, after the map was unlocked and before the call returns; by several threads at once if
/// several threads use the map. It may call the library; it must not throw or free the map. With a
/// writer it may call that writer, but not the writer's map, and must not free either. The event
/// is valid until it returns.
pub type vipool_event_fn =
    Option<unsafe extern "C" fn(context: *mut c_void, event: *const vipool_event)>;

/// The callback of a map with its context.
pub(crate) struct Sink {
    callback: vipool_event_fn,
    context: *mut c_void,
}

// SAFETY: the context is only handed through to the callback, and the header says that it is
// called by whatever thread uses the map.
unsafe impl Send for Sink {}
// SAFETY: as above.
unsafe impl Sync for Sink {}

impl Default for Sink {
    fn default() -> Self {
        Self::new(None, ptr::null_mut())
    }
}

impl Sink {
    pub(crate) fn new(callback: vipool_event_fn, context: *mut c_void) -> Self {
        Self { callback, context }
    }

    #[inline]
    pub(crate) fn is_set(&self) -> bool {
        self.callback.is_some()
    }

    /// Tells what an opening did.
    #[inline]
    pub(crate) fn opened(&self, session: SessionId, opened: &Result<OpenedSession, OpenError>) {
        if self.is_set() {
            self.assigned(session, opened);
        }
    }

    #[cold]
    fn assigned(&self, session: SessionId, opened: &Result<OpenedSession, OpenError>) {
        let shortage = match opened {
            Ok(opened) => opened.shortage,
            Err(OpenError::Shortage(shortage)) => Some(*shortage),
            Err(_) => None,
        };
        if let Ok(opened) = opened {
            for lease in opened.new_leases() {
                let assigned = vipool_event_kind::VIPOOL_EVENT_ASSIGNED;
                self.emit(assigned, session, VIPOOL_OK, lease.into());
            }
            if opened.low_water {
                let low = vipool_event_kind::VIPOOL_EVENT_LOW_WATER;
                self.emit(low, session, VIPOOL_OK, vipool_lease::default());
            }
        }
        if let Some(shortage) = shortage {
            let exhausted = vipool_event_kind::VIPOOL_EVENT_EXHAUSTED;
            self.emit(exhausted, session, (&shortage).into(), vipool_lease::default());
        }
    }

    /// Tells what a close gave back.
    #[inline]
    pub(crate) fn closed(&self, closed: &ClosedSession) {
        if self.is_set() {
            self.released(closed);
        }
    }

    #[cold]
    fn released(&self, closed: &ClosedSession) {
        for lease in closed.leases.iter() {
            let released = vipool_event_kind::VIPOOL_EVENT_RELEASED;
            self.emit(released, lease.session, VIPOOL_OK, lease.into());
        }
    }

    /// Tells which of the sessions that were open before are closed by now.
    pub(crate) fn gone(&self, before: &[SessionRow], closed: &[SessionId]) {
        for row in before.iter().filter(|row| closed.contains(&row.session)) {
            self.closed(&ClosedSession { leases: row.leases });
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
        // SAFETY: the caller of vipool_map_open() vouches for the callback and its context; no
        // lock is held.
        unsafe { callback(self.context, &event) };
    }
}
