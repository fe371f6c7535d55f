//! The agent's side: a map that opens and closes sessions.

use std::ffi::{c_char, c_void};
use std::path::Path;
use std::sync::Arc;

use super::address::vipool_ip;
use super::event::{Sink, vipool_event_fn};
use super::handle::{Owned, Shared, free, give, not_null, read_exclusive, shared};
use super::layout::{check_out, layout, read, write};
use super::outcome::{Failure, call, quiet};
use super::plan::{flags, vipool_plan};
use super::program::{vipool_executable, with_executable};
use super::reader::vipool_reader;
use super::session::{
    VIPOOL_MAX_LEASES, lease_array, session, vipool_handle, vipool_lease, vipool_session,
};
use super::snapshot::vipool_snapshot;
use super::status::vipool_status::{self, *};
use super::text::{copy_out, optional_utf8, utf8, utf16};
use crate::map::{Closed, Leader, Leases, Map, OpenOptions, Opened, SessionRow, Shortage};

/// A writer of the map: opens and closes sessions. Any number of threads may use it at once;
/// vipool_map_free() must be the last call. Other processes may write to the same map unless one
/// holds it exclusively.
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

/// A process, so named that a later one with the same pid is not taken for it. Plain data; see
/// vipool_leader_of().
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct vipool_leader {
    /// Its pid, in its own pid namespace; 0 for none.
    pub pid: u32,
    /// Zero.
    pub reserved: u32,
    /// Its start time in the kernel's unit (field 22 of /proc/PID/stat).
    pub start_time: u64,
    /// The inode of its pid namespace; 0 where there are none.
    pub pid_namespace: u64,
}

impl From<&Leader> for vipool_leader {
    fn from(leader: &Leader) -> Self {
        let Leader { pid, start_time, pid_namespace } = *leader;
        Self { pid, reserved: 0, start_time, pid_namespace }
    }
}

impl vipool_leader {
    fn get(self) -> Option<Leader> {
        let Self { pid, start_time, pid_namespace, .. } = self;
        (pid != 0).then_some(Leader { pid, start_time, pid_namespace })
    }
}

/// The process that has this pid now. On Linux; elsewhere VIPOOL_ERR_UNSUPPORTED.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_IO, VIPOOL_ERR_UNSUPPORTED. May be called from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_leader_of(pid: u32, out: *mut vipool_leader) -> vipool_status {
    call(|| {
        not_null(out)?;
        let leader = identify(pid)?;
        // SAFETY: not NULL.
        unsafe { out.write(leader) };
        Ok(())
    })
}

#[cfg(target_os = "linux")]
fn identify(pid: u32) -> Result<vipool_leader, Failure> {
    match crate::os::process::identify(pid) {
        Ok(leader) => Ok((&leader).into()),
        Err(error) => Err(VIPOOL_ERR_IO.because(format_args!("process {pid}: {error}"))),
    }
}

#[cfg(not(target_os = "linux"))]
fn identify(_pid: u32) -> Result<vipool_leader, Failure> {
    Err(VIPOOL_ERR_UNSUPPORTED.into())
}

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
    /// What the session holds now, in the order of the pools.
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
    /// The leases that were given back, in the order of the pools.
    pub leases: [vipool_lease; VIPOOL_MAX_LEASES],
    /// How many of them there are.
    pub lease_count: u32,
    /// Zero.
    pub reserved: u32,
}
layout!(vipool_closed { size, leases, lease_count, reserved });

impl From<&Opened> for vipool_opened {
    fn from(opened: &Opened) -> Self {
        let (leases, lease_count) = lease_array(&opened.leases);
        let mut flags = 0;
        if opened.already_open {
            flags |= VIPOOL_OPENED_ALREADY;
        }
        if opened.low_water {
            flags |= VIPOOL_OPENED_LOW_WATER;
        }
        Self {
            size: size_of::<Self>(),
            handle: opened.handle.into(),
            leases,
            lease_count,
            flags,
            shortage: opened.shortage.as_ref().map_or(VIPOOL_OK, Into::into) as i32,
            cooling_until: match opened.shortage {
                Some(Shortage::Cooling { until }) => until,
                _ => 0,
            },
        }
    }
}

/// Seconds since the machine was started, time asleep included; jumps of the wall clock do not
/// move it. What all calls take as `now`.
///
/// May be called from any thread and in a signal handler.
#[unsafe(no_mangle)]
pub extern "C" fn vipool_now() -> u32 {
    crate::os::clock::now()
}

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
        map.hold_exclusively()?;
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
    call(|| {
        // SAFETY: the caller vouches for all of them.
        unsafe {
            let (directory, plan) = (utf16(directory, directory_length)?, read_exclusive(plan)?);
            hand_out(|| Ok(Map::create(Path::new(&directory), &plan.plan)?), options, out)
        }
    })
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
    call(|| {
        // SAFETY: the caller vouches for all of them.
        unsafe {
            let directory = utf16(directory, directory_length)?;
            hand_out(|| Ok(Map::open(Path::new(&directory))?), options, out)
        }
    })
}

/// Closes the map and frees it; what is in it stays. NULL is nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_map_free(map: *mut vipool_map) {
    // SAFETY: the caller gives the handle back.
    quiet(|| unsafe { free(map) });
}

/// Gives a session its addresses, or completes and returns those it has: opening twice is as
/// opening once.
///
/// `options` may be NULL. `now`: vipool_now(). VIPOOL_OK with `out->shortage` set means that the
/// session has some addresses but not all. Without any, nothing was opened.
/// Events: assigned for each new lease, exhausted, low water.
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_UNKNOWN_FIELD, VIPOOL_ERR_UTF8,
/// VIPOOL_ERR_ADDRESS, VIPOOL_ERR_SESSION_ID, VIPOOL_ERR_EXHAUSTED to VIPOOL_ERR_NOT_READY,
/// VIPOOL_ERR_IO, VIPOOL_ERR_DAMAGED, VIPOOL_ERR_BUSY, VIPOOL_ERR_BUSY_EXCLUSIVE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_map_open_session(
    map: *const vipool_map,
    session_id: vipool_session,
    options: *const vipool_open_options,
    now: u32,
    out: *mut vipool_opened,
) -> vipool_status {
    call(|| {
        // SAFETY: the caller vouches for handle and struct.
        let map = unsafe { shared(map) }?;
        // SAFETY: as above.
        unsafe { check_out(out) }?;
        let id = session(session_id)?;
        let mut given = OpenOptions::default();
        if !options.is_null() {
            // SAFETY: the caller vouches for the struct and the texts in it.
            unsafe {
                let options = read(options)?;
                given.user = optional_utf8(options.user, options.user_length)?;
                given.pool = optional_utf8(options.pool, options.pool_length)?;
                given.address = options.address.get()?;
                given.client = options.client.get()?;
                given.leader = options.leader.get();
            }
        }
        let mut before = Leases::default();
        if map.sink.is_set() {
            before = map.map.find(id)?.map_or(before, |(_, leases)| leases);
        }
        let opened = map.map.open_session(id, &given, now);
        map.sink.opened(id, &before, &opened);
        let opened = opened?;
        // SAFETY: checked above.
        unsafe { write(out, &vipool_opened::from(&opened)) };
        Ok(())
    })
}

/// Reports a close and writes what it did.
///
/// # Safety
/// `out` is NULL or was accepted by [`check_out`].
unsafe fn closed(map: &vipool_map, closed: &Closed, out: *mut vipool_closed) {
    map.sink.closed(closed);
    if !out.is_null() {
        let (leases, lease_count) = lease_array(&closed.leases);
        let done =
            vipool_closed { size: size_of::<vipool_closed>(), leases, lease_count, reserved: 0 };
        // SAFETY: the caller's promise.
        unsafe { write(out, &done) };
    }
}

/// Gives back what this session holds.
///
/// `out` may be NULL. Events: released for each lease.
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_SESSION_ID, VIPOOL_ERR_NOT_OPEN,
/// VIPOOL_ERR_IO, VIPOOL_ERR_DAMAGED, VIPOOL_ERR_BUSY, VIPOOL_ERR_BUSY_EXCLUSIVE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_map_close_session(
    map: *const vipool_map,
    session_id: vipool_session,
    now: u32,
    out: *mut vipool_closed,
) -> vipool_status {
    call(|| {
        // SAFETY: the caller vouches for handle and struct.
        let map = unsafe { shared(map) }?;
        if !out.is_null() {
            // SAFETY: as above.
            unsafe { check_out(out) }?;
        }
        let done = map.map.close_session(session(session_id)?, now)?;
        // SAFETY: checked above.
        unsafe { closed(map, &done, out) };
        Ok(())
    })
}

/// Gives back what the session of this handle holds. A stale, foreign or second close frees
/// nothing and says so.
///
/// `out` may be NULL. Events: released for each lease.
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_SESSION_ID, VIPOOL_ERR_HANDLE,
/// VIPOOL_ERR_NOT_OPEN, VIPOOL_ERR_STALE, VIPOOL_ERR_FOREIGN, VIPOOL_ERR_IO, VIPOOL_ERR_DAMAGED,
/// VIPOOL_ERR_BUSY, VIPOOL_ERR_BUSY_EXCLUSIVE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_map_close(
    map: *const vipool_map,
    handle: *const vipool_handle,
    now: u32,
    out: *mut vipool_closed,
) -> vipool_status {
    call(|| {
        // SAFETY: the caller vouches for handles and struct.
        let (map, handle) = unsafe { (shared(map)?, handle.as_ref().ok_or(VIPOOL_ERR_NULL)?) };
        if !out.is_null() {
            // SAFETY: as above.
            unsafe { check_out(out) }?;
        }
        let done = map.map.close(&handle.get()?, now)?;
        // SAFETY: checked above.
        unsafe { closed(map, &done, out) };
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
        not_null(buffer)?;
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
/// VIPOOL_ERR_MISSING, VIPOOL_ERR_DAMAGED, VIPOOL_ERR_OTHER_BOOT, VIPOOL_ERR_UNTRUSTED.
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

/// The pools and the open sessions of one moment, with users, clients and leaders where this
/// process may read them.
///
/// Give it back with vipool_snapshot_free().
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_IO, VIPOOL_ERR_DAMAGED, VIPOOL_ERR_BUSY,
/// VIPOOL_ERR_BUSY_EXCLUSIVE.
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
