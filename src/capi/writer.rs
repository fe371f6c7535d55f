//! The fastest way to open and close sessions: a map that one thread has to itself.

use std::ptr::NonNull;

use super::event::Sink;
use super::handle::{Exclusive, Owned, exclusive, free, give, not_null};
use super::map::vipool_map;
use super::open::{closing, opening, vipool_closed, vipool_open_options, vipool_opened};
use super::outcome::{call, quiet};
use super::session::{session, vipool_handle, vipool_session};
use super::status::vipool_status::{self, *};
use crate::Tick;
use crate::map::{ExclusiveWriter, OpenOptions};

/// Opens and closes sessions without even a lock between threads, and holds the map against other
/// processes for as long as it lives.
///
/// One thread at a time may use it. It borrows its map: no call with the map is allowed, not even
/// vipool_map_free(), before vipool_writer_free(). Readers and snapshots made of the map before go
/// on.
pub struct vipool_writer {
    writer: ExclusiveWriter<'static>,
    sink: &'static Sink,
}

impl Owned for vipool_writer {
    type Access = Exclusive;
}

/// Makes a writer of a map.
///
/// Give it back with vipool_writer_free(), before the map.
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_IO, VIPOOL_ERR_MISSING, VIPOOL_ERR_DAMAGED,
/// VIPOOL_ERR_BUSY, VIPOOL_ERR_BUSY_EXCLUSIVE, VIPOOL_ERR_FORKED; then the map is as it was.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_writer_new(
    map: *mut vipool_map,
    out: *mut *mut vipool_writer,
) -> vipool_status {
    call(|| {
        not_null(out)?;
        let mut map = NonNull::new(map).ok_or(VIPOOL_ERR_NULL)?;
        // SAFETY: the caller vouches for the handle and that nobody uses the map as long as the
        // writer lives: the one shared handle that may be borrowed so.
        let vipool_map { map, sink } = unsafe { map.as_mut() };
        // SAFETY: not NULL.
        unsafe { give(vipool_writer { writer: map.exclusive_writer()?, sink }, out) };
        Ok(())
    })
}

/// vipool_map_open_session() by a writer: same parameters, events and errors.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_writer_open_session(
    writer: *mut vipool_writer,
    session_id: vipool_session,
    options: *const vipool_open_options,
    now: u32,
    out: *mut vipool_opened,
) -> vipool_status {
    call(|| {
        // SAFETY: the caller vouches for the handle.
        let sink = unsafe { exclusive(writer) }?.sink;
        let open = |id, options: &OpenOptions<'_>, now| {
            // SAFETY: not NULL; borrowed until it has answered, so that a callback may call it too.
            unsafe { &mut *writer }.writer.open_session(id, options, now)
        };
        // SAFETY: the caller vouches for the structs and the texts in them.
        unsafe { opening((session_id, options, now), out, sink, open) }
    })
}

/// vipool_map_close_session() by a writer: same parameters, events and errors.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_writer_close_session(
    writer: *mut vipool_writer,
    session_id: vipool_session,
    now: u32,
    out: *mut vipool_closed,
) -> vipool_status {
    call(|| {
        // SAFETY: the caller vouches for the handle.
        let sink = unsafe { exclusive(writer) }?.sink;
        let close = || {
            // SAFETY: not NULL; borrowed until it has answered, so that a callback may call it too.
            let writer = unsafe { &mut (*writer).writer };
            Ok(writer.close_session(session(session_id)?, Tick::from_secs(now)))
        };
        // SAFETY: the caller vouches for the struct.
        unsafe { closing(out, sink, close) }
    })
}

/// vipool_map_close() by a writer: same parameters, events and errors.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_writer_close(
    writer: *mut vipool_writer,
    handle: *const vipool_handle,
    now: u32,
    out: *mut vipool_closed,
) -> vipool_status {
    call(|| {
        // SAFETY: the caller vouches for the handles.
        let (sink, handle) =
            unsafe { (exclusive(writer)?.sink, handle.as_ref().ok_or(VIPOOL_ERR_NULL)?) };
        let close = || {
            // SAFETY: not NULL; borrowed until it has answered, so that a callback may call it too.
            let writer = unsafe { &mut (*writer).writer };
            Ok(writer.close_by_handle(&handle.get()?, Tick::from_secs(now)))
        };
        // SAFETY: the caller vouches for the struct.
        unsafe { closing(out, sink, close) }
    })
}

/// Frees a writer; its map can be used again. NULL is nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_writer_free(writer: *mut vipool_writer) {
    // SAFETY: the caller gives the handle back.
    quiet(|| unsafe { free(writer) });
}
