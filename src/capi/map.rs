//! The agent's side: a map that opens and closes sessions.

use std::ffi::{c_char, c_void};
use std::path::Path;
use std::sync::Arc;

use super::event::{Sink, vipool_event_fn};
use super::handle::{Owned, Shared, free, give, not_null, read_exclusive, shared};
use super::layout::{check_out, fill, layout, read, write};
use super::outcome::{Failure, call, quiet};
use super::plan::vipool_plan;
use super::program::{vipool_executable, with_executable};
use super::reader::{vipool_found, vipool_reader};
use super::session::{session, vipool_session};
use super::settings::vipool_settings;
use super::snapshot::vipool_snapshot;
use super::status::vipool_status::{self, *};
use super::text::{array, copy_out, flags, utf8, with_utf16};
use crate::map::{Map, SessionRow};

/// A writer of the map: opens and closes sessions. Any number of threads may use it at once;
/// vipool_map_free() must be the last call. Other processes may write to the same map unless one
/// holds it exclusively. A process may have 64 maps with files open at once (on Windows any number);
/// one more is VIPOOL_ERR_IO.
pub struct vipool_map {
    pub(crate) map: Map,
    pub(crate) sink: Sink,
}

impl Owned for vipool_map {
    type Access = Shared;
}

/// Of vipool_map_options.flags: keep the writer lock for as long as the map is open. Operations
/// then cost no system call, and other writers get VIPOOL_ERR_BUSY_EXCLUSIVE with the pid.
pub const VIPOOL_MAP_EXCLUSIVE: u32 = 1;

/// How a map is opened.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct vipool_map_options {
    /// sizeof(vipool_map_options), set by the caller.
    pub size: usize,
    /// Called for what happens in the calls of this map. May be NULL.
    pub on_event: vipool_event_fn,
    /// Handed to on_event.
    pub context: *mut c_void,
    /// VIPOOL_MAP_...
    pub flags: u32,
    /// Zero.
    pub reserved: u32,
}
layout!(vipool_map_options { size, on_event, context, flags, reserved });

impl vipool_map {
    /// The open sessions, if somebody is to be told which of them a call closes.
    pub(crate) fn rows_if_told(&self) -> Result<Vec<SessionRow>, Failure> {
        if self.sink.is_set() { Ok(self.map.sessions()?) } else { Ok(Vec::new()) }
    }
}

/// # Safety
/// `options` is NULL or valid as [`read`] wants it.
unsafe fn hand_out(
    make: impl FnOnce() -> Result<Map, Failure>,
    options: *const vipool_map_options,
    out: *mut *mut vipool_map,
) -> Result<(), Failure> {
    not_null(out)?;
    let (mut sink, mut exclusive) = (Sink::default(), false);
    if !options.is_null() {
        // SAFETY: the caller's promise.
        let options = unsafe { read(options) }?;
        sink = Sink::new(options.on_event, options.context);
        exclusive = flags(options.flags, VIPOOL_MAP_EXCLUSIVE)? != 0;
    }
    let mut map = make()?;
    if exclusive {
        map.lock_exclusive()?;
    }
    // SAFETY: not NULL.
    unsafe { give(vipool_map { map, sink }, out) };
    Ok(())
}

/// Makes a map in memory alone: gone with the process, seen by nobody else.
///
/// `options` may be NULL. Give the map back with vipool_map_free().
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_UNKNOWN_FIELD, VIPOOL_ERR_KIND,
/// VIPOOL_ERR_PLAN.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_map_in_memory(
    plan: *const vipool_plan,
    options: *const vipool_map_options,
    out: *mut *mut vipool_map,
) -> vipool_status {
    call(|| {
        // SAFETY: the caller vouches for both.
        unsafe {
            let plan = read_exclusive(plan)?;
            hand_out(|| Ok(Map::in_memory(&plan.plan)?), options, out)
        }
    })
}

/// Makes the files of a map in a directory of ours, which exists, and opens it. Sessions of an
/// older map there, of this boot, are carried over; readers of the old one are told.
///
/// `options` may be NULL. Give the map back with vipool_map_free(); the files stay.
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_UNKNOWN_FIELD, VIPOOL_ERR_KIND,
/// VIPOOL_ERR_UTF8, VIPOOL_ERR_PLAN, VIPOOL_ERR_IO, VIPOOL_ERR_UNTRUSTED, VIPOOL_ERR_BUSY,
/// VIPOOL_ERR_BUSY_EXCLUSIVE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_map_create(
    directory: *const c_char,
    directory_length: usize,
    plan: *const vipool_plan,
    options: *const vipool_map_options,
    out: *mut *mut vipool_map,
) -> vipool_status {
    call(|| {
        // SAFETY: the caller vouches for all of them.
        unsafe {
            let (directory, plan) = (utf8(directory, directory_length)?, read_exclusive(plan)?);
            hand_out(|| Ok(Map::create(Path::new(directory), &plan.plan)?), options, out)
        }
    })
}

/// vipool_map_create() with a UTF-16 path of `directory_length` units.
///
/// Errors: those, and VIPOOL_ERR_UTF16.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_map_create_utf16(
    directory: *const u16,
    directory_length: usize,
    plan: *const vipool_plan,
    options: *const vipool_map_options,
    out: *mut *mut vipool_map,
) -> vipool_status {
    // SAFETY: the caller vouches for all of them.
    unsafe {
        with_utf16(directory, directory_length, |text, length| {
            vipool_map_create(text, length, plan, options, out)
        })
    }
}

/// Opens the map in a directory for writing.
///
/// `options` may be NULL. Give the map back with vipool_map_free().
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_UNKNOWN_FIELD, VIPOOL_ERR_KIND,
/// VIPOOL_ERR_UTF8, VIPOOL_ERR_MISSING, VIPOOL_ERR_DAMAGED, VIPOOL_ERR_OTHER_BOOT,
/// VIPOOL_ERR_UNTRUSTED, VIPOOL_ERR_IO, VIPOOL_ERR_BUSY, VIPOOL_ERR_BUSY_EXCLUSIVE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_map_open(
    directory: *const c_char,
    directory_length: usize,
    options: *const vipool_map_options,
    out: *mut *mut vipool_map,
) -> vipool_status {
    call(|| {
        // SAFETY: the caller vouches for all of them.
        unsafe {
            let directory = utf8(directory, directory_length)?;
            hand_out(|| Ok(Map::open(Path::new(directory))?), options, out)
        }
    })
}

/// vipool_map_open() with a UTF-16 path of `directory_length` units.
///
/// Errors: those, and VIPOOL_ERR_UTF16.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_map_open_utf16(
    directory: *const u16,
    directory_length: usize,
    options: *const vipool_map_options,
    out: *mut *mut vipool_map,
) -> vipool_status {
    // SAFETY: the caller vouches for all of them.
    unsafe {
        with_utf16(directory, directory_length, |text, length| {
            vipool_map_open(text, length, options, out)
        })
    }
}

/// A copy in memory of the bytes of the files `map` and `sessions`, of whatever boot: to look at
/// what somebody left, or to try something on it. The files themselves never change by it.
///
/// `sessions` may be NULL (or the bytes of another map's): then nothing is known of users, clients
/// and leaders. `options` may be NULL. Give the map back with vipool_map_free().
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_UNKNOWN_FIELD, VIPOOL_ERR_KIND,
/// VIPOOL_ERR_DAMAGED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_map_from_bytes(
    map: *const c_void,
    map_length: usize,
    sessions: *const c_void,
    sessions_length: usize,
    options: *const vipool_map_options,
    out: *mut *mut vipool_map,
) -> vipool_status {
    call(|| {
        not_null(map)?;
        // SAFETY: the caller vouches for all of them.
        unsafe {
            let map = array(map.cast(), map_length)?;
            let sessions = array(sessions.cast(), sessions_length)?;
            hand_out(|| Ok(Map::from_bytes(map, sessions)?), options, out)
        }
    })
}

/// Closes the map and frees it; what is in it stays. NULL is nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_map_free(map: *mut vipool_map) {
    // SAFETY: the caller gives the handle back.
    quiet(|| unsafe { free(map) });
}

/// How addresses are given out: what the plan said.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE. May be called from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_map_settings(
    map: *const vipool_map,
    out: *mut vipool_settings,
) -> vipool_status {
    call(|| {
        // SAFETY: the caller vouches for handle and struct.
        unsafe {
            let map = shared(map)?;
            check_out(out)?;
            write(out, &map.map.settings().into());
        }
        Ok(())
    })
}

/// The handle and leases of a session. Waits for threads that use the map, but not for other
/// processes; vipool_reader_find() waits for nobody.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_SESSION_ID, VIPOOL_ERR_NOT_OPEN,
/// VIPOOL_ERR_IO, VIPOOL_ERR_DAMAGED, VIPOOL_ERR_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_map_find(
    map: *const vipool_map,
    session_id: vipool_session,
    out: *mut vipool_found,
) -> vipool_status {
    call(|| {
        // SAFETY: the caller vouches for handle and struct.
        let map = unsafe { shared(map) }?;
        // SAFETY: as above.
        unsafe { check_out(out) }?;
        let (handle, leases) = map.map.find(session(session_id)?)?.ok_or(VIPOOL_ERR_NOT_OPEN)?;
        // SAFETY: checked above.
        unsafe { fill(out, |place| place.tell(&handle, &leases)) };
        Ok(())
    })
}

/// The pool that the rules choose for a session of this user (`user_length` bytes of UTF-8), in
/// which this program is started (NULL if that is not known): its name with a NUL behind it, for
/// vipool_open_options.pool. May block while the user's groups are looked up, where a rule names a
/// group.
///
/// `out_length` may be NULL; it is told the length without the NUL, also with VIPOOL_ERR_BUFFER.
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_UTF8, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_UNKNOWN_FIELD,
/// VIPOOL_ERR_KIND, VIPOOL_ERR_BUFFER, VIPOOL_ERR_NOT_FOUND (no rule holds: the default pool).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_map_choose_pool(
    map: *const vipool_map,
    user: *const c_char,
    user_length: usize,
    program: *const vipool_executable,
    buffer: *mut c_char,
    capacity: usize,
    out_length: *mut usize,
) -> vipool_status {
    call(|| {
        if capacity > 0 {
            not_null(buffer)?;
        }
        // SAFETY: the caller vouches for handle, texts, struct and buffer.
        unsafe {
            let (map, user) = (shared(map)?, utf8(user, user_length)?);
            let chosen = match program.is_null() {
                true => map.map.choose_pool(user, None),
                false => with_executable(&read(program)?, |program| {
                    map.map.choose_pool(user, Some(program))
                })?,
            };
            copy_out(&chosen.ok_or(VIPOOL_ERR_NOT_FOUND)?, buffer, capacity, out_length)
        }
    })
}

/// A view of this map for looking things up, also of one in memory. It may outlive the map.
///
/// Give it back with vipool_reader_free(). Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_IO,
/// VIPOOL_ERR_MISSING, VIPOOL_ERR_DAMAGED, VIPOOL_ERR_OTHER_BOOT, VIPOOL_ERR_UNTRUSTED,
/// VIPOOL_ERR_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_map_reader(
    map: *const vipool_map,
    out: *mut *mut vipool_reader,
) -> vipool_status {
    call(|| {
        // SAFETY: the caller vouches for the handle.
        let map = unsafe { shared(map) }?;
        not_null(out)?;
        // SAFETY: not NULL.
        unsafe { give(vipool_reader { reader: Arc::new(map.map.reader()?) }, out) };
        Ok(())
    })
}

/// The open sessions of one moment and the pools, with users, clients and leaders where this
/// process may read them. Sessions that open and close meanwhile wait; pools are read right
/// after.
///
/// Give it back with vipool_snapshot_free().
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_IO, VIPOOL_ERR_MISSING, VIPOOL_ERR_DAMAGED,
/// VIPOOL_ERR_OTHER_BOOT, VIPOOL_ERR_UNTRUSTED, VIPOOL_ERR_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_map_snapshot(
    map: *const vipool_map,
    out: *mut *mut vipool_snapshot,
) -> vipool_status {
    call(|| {
        // SAFETY: the caller vouches for the handle.
        let map = unsafe { shared(map) }?;
        not_null(out)?;
        let snapshot =
            vipool_snapshot { sessions: map.map.sessions()?, pools: map.map.reader()?.pools() };
        // SAFETY: not NULL.
        unsafe { give(snapshot, out) };
        Ok(())
    })
}
