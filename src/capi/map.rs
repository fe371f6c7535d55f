//! A map that an agent writes: the functions that create, open and close it.

use std::cell::{Ref, RefCell};
use std::ffi::{c_char, c_void};
use std::ops::Deref;

use super::error::{CallError, catch_panic, silent};
use super::event::{EventSink, vipool_event_fn};
use super::executable::{vipool_executable, with_executable};
use super::handle::{Opaque, Shared, borrow_shared, check_not_null, free_handle, write_handle};
use super::layout::{layout, read};
use super::plan::vipool_plan;
use super::status::vipool_status::{self, *};
use super::text::{check_flags, check_reserved, copy_text, read_directory, read_slice, read_utf8};
use crate::map::{ExclusiveWriter, Map, MapError, SessionRow};

/// A writable map, in which an agent opens and closes sessions.
///
/// Threads may share it, unless it was opened with VIPOOL_MAP_SINGLE_THREADED. Other processes may
/// write the same map, unless it was opened with VIPOOL_MAP_EXCLUSIVE. A process may have 64 maps
/// with files open at once. Opening another one returns VIPOOL_ERR_IO. Windows has no such limit.
pub struct vipool_map {
    map: MapCell,
    pub(crate) sink: EventSink,
}

/// The map of a `vipool_map`.
enum MapCell {
    /// Threads share the map.
    Shared(Map),
    /// One thread at a time uses the map, so opening and closing sessions needs no lock.
    SingleThreaded(SingleThreadedMap),
}

/// A map that one thread at a time uses.
struct SingleThreadedMap(RefCell<Map>);

impl SingleThreadedMap {
    /// Returns a map for one thread at a time.
    ///
    /// # Safety
    /// One thread at a time uses the result.
    unsafe fn new(map: Map) -> Self {
        Self(RefCell::new(map))
    }
}

// SAFETY: the caller of `new` guarantees that one thread at a time uses the map.
unsafe impl Sync for SingleThreadedMap {}

impl Opaque for vipool_map {
    type Access = Shared;
}

/// A borrow of the map of a `vipool_map`.
pub(crate) enum MapRef<'a> {
    Shared(&'a Map),
    SingleThreaded(Ref<'a, Map>),
}

impl Deref for MapRef<'_> {
    type Target = Map;

    #[inline]
    fn deref(&self) -> &Map {
        match self {
            Self::Shared(map) => map,
            Self::SingleThreaded(map) => map,
        }
    }
}

/// vipool_map_options.flags: hold the writer lock as long as the map is open. Calls then need no
/// system call for the lock. Other writers get VIPOOL_ERR_BUSY_EXCLUSIVE, and vipool_last_error()
/// names the pid of this process.
pub const VIPOOL_MAP_EXCLUSIVE: u32 = 1;
/// vipool_map_options.flags: the caller guarantees that one thread at a time uses the map. Opening
/// and closing sessions then needs no lock at all. Includes VIPOOL_MAP_EXCLUSIVE.
pub const VIPOOL_MAP_SINGLE_THREADED: u32 = 2;
/// vipool_map_options.flags, for vipool_map_open(): open the map although another writer holds it
/// exclusively. A monitor can then take snapshots. Calls that change the map fail with
/// VIPOOL_ERR_BUSY_EXCLUSIVE as long as that writer holds it.
pub const VIPOOL_MAP_MONITOR: u32 = 4;

/// Options for creating or opening a map.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct vipool_map_options {
    /// sizeof(vipool_map_options), set by the caller.
    pub size: usize,
    /// Receives the events that calls with this map cause. May be NULL.
    pub on_event: vipool_event_fn,
    /// Passed to on_event.
    pub context: *mut c_void,
    /// VIPOOL_MAP_...
    pub flags: u32,
    /// Reserved: zero.
    pub reserved: u32,
}
layout!(vipool_map_options { size, on_event, context, flags, reserved });

impl vipool_map {
    /// Returns the value of the handle of a map.
    ///
    /// # Safety
    /// If `is_single_threaded` is true, one thread at a time uses the result.
    pub(crate) unsafe fn new(map: Map, sink: EventSink, is_single_threaded: bool) -> Self {
        let map = match is_single_threaded {
            // SAFETY: the caller guarantees this.
            true => MapCell::SingleThreaded(unsafe { SingleThreadedMap::new(map) }),
            false => MapCell::Shared(map),
        };
        Self { map, sink }
    }

    /// Returns the map for all operations except opening and closing sessions.
    ///
    /// # Errors
    /// Fails if a session of a single-threaded map is being opened or closed.
    #[inline]
    pub(crate) fn map(&self) -> Result<MapRef<'_>, vipool_status> {
        match &self.map {
            MapCell::Shared(map) => Ok(MapRef::Shared(map)),
            MapCell::SingleThreaded(SingleThreadedMap(map)) => {
                map.try_borrow().map(MapRef::SingleThreaded).map_err(|_| VIPOOL_ERR_BUSY)
            }
        }
    }

    /// Runs `use_map` with a shared map, or `use_writer` with the writer of a single-threaded map.
    ///
    /// The closures must not call a callback of the caller, because the callback may use the map.
    #[inline(always)]
    pub(crate) fn with_session_writer<R, E: From<MapError>>(
        &self,
        use_map: impl FnOnce(&Map) -> Result<R, E>,
        use_writer: impl FnOnce(&mut ExclusiveWriter<'_>) -> Result<R, E>,
    ) -> Result<R, E> {
        match &self.map {
            MapCell::Shared(map) => use_map(map),
            MapCell::SingleThreaded(SingleThreadedMap(map)) => {
                let busy_error = |_| MapError::Busy { pid: std::process::id(), exclusive: true };
                use_writer(&mut map.try_borrow_mut().map_err(busy_error)?.exclusive_writer()?)
            }
        }
    }

    /// Returns the open sessions if the map has an event callback, otherwise an empty list. Calls
    /// that close sessions use the list to report the leases of these sessions.
    pub(crate) fn rows_for_events(&self) -> Result<Vec<SessionRow>, CallError> {
        if self.sink.is_set() { Ok(self.map()?.sessions()?) } else { Ok(Vec::new()) }
    }
}

/// Opens a map, applies `options`, and writes the pointer to the new `vipool_map` to `out`.
///
/// # Safety
/// `options` is NULL or valid as [`read`] requires. The caller follows the rules of the header for
/// the callback and the flags. `out` is NULL or valid for a write.
unsafe fn make_map(
    open_map: impl FnOnce() -> Result<Map, CallError>,
    options: *const vipool_map_options,
    out: *mut *mut vipool_map,
) -> Result<(), CallError> {
    check_not_null(out)?;
    let (mut sink, mut flags) = (EventSink::default(), 0);
    if !options.is_null() {
        // SAFETY: the caller guarantees the struct.
        let options = unsafe { read(options) }?;
        check_reserved(options.reserved)?;
        // SAFETY: the header states that any thread that uses the map may call the callback.
        sink = unsafe { EventSink::new(options.on_event, options.context) };
        let known_flags = VIPOOL_MAP_EXCLUSIVE | VIPOOL_MAP_SINGLE_THREADED | VIPOOL_MAP_MONITOR;
        flags = check_flags(options.flags, known_flags)?;
    }
    let mut map = open_map()?;
    if flags & (VIPOOL_MAP_EXCLUSIVE | VIPOOL_MAP_SINGLE_THREADED) != 0 {
        map.lock_exclusive()?;
    } else if flags & VIPOOL_MAP_MONITOR == 0 {
        map.check_writable()?;
    }
    let is_single_threaded = flags & VIPOOL_MAP_SINGLE_THREADED != 0;
    // SAFETY: with VIPOOL_MAP_SINGLE_THREADED, the caller guarantees that one thread at a time uses
    // the map. `out` is not NULL.
    unsafe { write_handle(vipool_map::new(map, sink, is_single_threaded), out) };
    Ok(())
}

/// Returns the directory of the map of this machine.
///
/// The directory is fixed at installation: /run/vipool, or on Windows the folder vipool in
/// ProgramData of the system drive. For use without root and in tests, the environment variable
/// VIPOOL_MAP of a process names another directory to its hook. This function ignores the variable.
///
/// Parameters:
/// - `buffer`, `capacity`: receives the path and a NUL.
/// - `out_length`: receives the length without the NUL. May be NULL.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_BUFFER.
///
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_map_get_directory(
    buffer: *mut c_char,
    capacity: usize,
    out_length: *mut usize,
) -> vipool_status {
    catch_panic(|| {
        let directory = crate::system::map_directory();
        // SAFETY: the caller guarantees buffer and length.
        unsafe { copy_text(&directory.to_string_lossy(), buffer, capacity, out_length) }
    })
}

/// Creates the files of a map in an existing directory and opens the map.
///
/// If the directory has a map of this boot, the sessions of that map stay open in the new map. The
/// readers of the old map see that it is superseded. If the new map would have the same content,
/// the call opens the old map instead.
///
/// Parameters:
/// - `directory`, `directory_length`: the directory, UTF-8.
/// - `plan`: the plan of this server.
/// - `options`: may be NULL.
/// - `out`: receives the map. Close it with vipool_map_close(), which does not remove the files.
///
/// If another call creates or repairs a map in the directory, this function waits for at most 30
/// seconds, and then fails with VIPOOL_ERR_BUSY.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_UNKNOWN_FIELD, VIPOOL_ERR_KIND,
/// VIPOOL_ERR_UTF8, VIPOOL_ERR_PLAN, VIPOOL_ERR_DIRECTORY (create the directory first),
/// VIPOOL_ERR_DAMAGED (remove the file), VIPOOL_ERR_IO, VIPOOL_ERR_UNTRUSTED, VIPOOL_ERR_BUSY,
/// VIPOOL_ERR_BUSY_EXCLUSIVE.
///
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_map_create(
    directory: *const c_char,
    directory_length: usize,
    plan: *const vipool_plan,
    options: *const vipool_map_options,
    out: *mut *mut vipool_map,
) -> vipool_status {
    catch_panic(|| {
        // SAFETY: the caller guarantees text, handle, struct and `out`.
        unsafe {
            let directory = read_directory(directory, directory_length)?;
            let plan = borrow_shared(plan)?;
            make_map(|| Ok(Map::create(directory, &plan.plan)?), options, out)
        }
    })
}

/// Creates a map in the memory of this process, without files.
///
/// Parameters:
/// - `plan`: the plan.
/// - `options`: may be NULL.
/// - `out`: receives the map. Close it with vipool_map_close().
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_UNKNOWN_FIELD, VIPOOL_ERR_KIND,
/// VIPOOL_ERR_PLAN.
///
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_map_create_in_memory(
    plan: *const vipool_plan,
    options: *const vipool_map_options,
    out: *mut *mut vipool_map,
) -> vipool_status {
    catch_panic(|| {
        // SAFETY: the caller guarantees handle, struct and `out`.
        unsafe {
            let plan = borrow_shared(plan)?;
            make_map(|| Ok(Map::in_memory(&plan.plan)?), options, out)
        }
    })
}

/// Opens the map in a directory for writing.
///
/// Parameters:
/// - `directory`, `directory_length`: the directory, UTF-8.
/// - `options`: may be NULL.
/// - `out`: receives the map. Close it with vipool_map_close().
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_UNKNOWN_FIELD, VIPOOL_ERR_KIND,
/// VIPOOL_ERR_UTF8, VIPOOL_ERR_DIRECTORY (empty), VIPOOL_ERR_MISSING, VIPOOL_ERR_DAMAGED,
/// VIPOOL_ERR_OTHER_BOOT, VIPOOL_ERR_UNTRUSTED, VIPOOL_ERR_IO, VIPOOL_ERR_BUSY,
/// VIPOOL_ERR_BUSY_EXCLUSIVE (another writer holds the map, and VIPOOL_MAP_MONITOR is not set).
///
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_map_open(
    directory: *const c_char,
    directory_length: usize,
    options: *const vipool_map_options,
    out: *mut *mut vipool_map,
) -> vipool_status {
    catch_panic(|| {
        // SAFETY: the caller guarantees text, struct and `out`.
        unsafe {
            let directory = read_directory(directory, directory_length)?;
            make_map(|| Ok(Map::open(directory)?), options, out)
        }
    })
}

/// Makes a map in memory from the bytes of the files of a map.
///
/// The files may be of any boot. Use the map in memory to inspect the files or to try an operation.
/// The library does not change the bytes. They must not change before the call returns: read the
/// files into memory, do not map them.
///
/// Parameters:
/// - `map`, `map_length`: the bytes of the file `map`.
/// - `sessions`, `sessions_length`: the bytes of the file `sessions`. May be NULL. Users, clients
///   and leaders are unknown if `sessions` is NULL or belongs to another map.
/// - `options`: may be NULL.
/// - `out`: receives the map. Close it with vipool_map_close().
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_UNKNOWN_FIELD, VIPOOL_ERR_KIND,
/// VIPOOL_ERR_DAMAGED.
///
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_map_open_bytes(
    map: *const c_void,
    map_length: usize,
    sessions: *const c_void,
    sessions_length: usize,
    options: *const vipool_map_options,
    out: *mut *mut vipool_map,
) -> vipool_status {
    catch_panic(|| {
        check_not_null(map)?;
        // SAFETY: the caller guarantees arrays, struct and `out`.
        unsafe {
            let map_bytes = read_slice(map.cast(), map_length)?;
            let sessions_bytes = read_slice(sessions.cast(), sessions_length)?;
            make_map(|| Ok(Map::from_bytes(map_bytes, sessions_bytes)?), options, out)
        }
    })
}

/// Closes a map and frees it.
///
/// The files of a map remain, and its sessions stay open. A map in memory is lost.
///
/// Parameters:
/// - `map`: the map. NULL is ignored.
///
/// Threads: any; the last call with the map.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_map_close(map: *mut vipool_map) {
    // SAFETY: the caller gives up the handle.
    silent(|| unsafe { free_handle(map) });
}

/// Returns the pool that the pool rules select for a session.
///
/// Use the result as vipool_open_options.pool.
///
/// Parameters:
/// - `map`: the map.
/// - `user`, `user_length`: the user of the session, UTF-8.
/// - `program`: the program that starts in the session. May be NULL if it is unknown.
/// - `buffer`, `capacity`: receives the name of the pool and a NUL.
/// - `out_length`: receives the length without the NUL. May be NULL.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_UTF8, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_UNKNOWN_FIELD,
/// VIPOOL_ERR_KIND, VIPOOL_ERR_BUFFER, VIPOOL_ERR_NOT_FOUND (no rule applies: use NULL as pool),
/// VIPOOL_ERR_UNKNOWN_GROUPS and VIPOOL_ERR_DAMAGED (the pool is unknown: do not open the session),
/// VIPOOL_ERR_FORKED, and the errors of vipool_map_open() if the map was replaced.
///
/// Threads: any. May block while it looks up the groups of the user, if a rule names a group.
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
    catch_panic(|| {
        if capacity > 0 {
            check_not_null(buffer)?;
        }
        // SAFETY: the caller guarantees handle, texts, struct and buffer.
        unsafe {
            let (map, user) = (borrow_shared(map)?.map()?, read_utf8(user, user_length)?);
            let pool = match program.is_null() {
                true => map.choose_pool(user, None),
                false => with_executable(&read(program)?, |program| {
                    map.choose_pool(user, Some(program))
                })?,
            }?;
            copy_text(&pool.ok_or(VIPOOL_ERR_NOT_FOUND)?, buffer, capacity, out_length)
        }
    })
}
