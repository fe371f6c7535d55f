//! What this machine says of itself: time, interfaces, the session of a process, where the map is.

use std::ffi::c_char;
use std::ptr;

use super::handle::{Owned, Shared, free, give, not_null, shared};
use super::interface::{vipool_interface, vipool_subnet};
use super::layout::{check_out_quietly, fill, write};
use super::outcome::{call, quiet};
use super::program::{vipool_matched_by, vipool_rule};
use super::reader::{vipool_found, vipool_reader};
use super::session::vipool_session;
use super::status::vipool_status::{self, *};
use super::text::copy_out;
#[cfg(target_os = "linux")]
use crate::discovery::{self, FoundBy, Process};
use crate::interface::Interface;
use crate::map::Reader;
use crate::policy::{PolicyView, ProgramView};
use crate::session::SessionId;

/// Seconds since the machine was started, time asleep included; jumps of the wall clock do not
/// move it. What all calls take as `now`.
///
/// May be called from any thread and in a signal handler.
#[unsafe(no_mangle)]
pub extern "C" fn vipool_now() -> u32 {
    crate::Tick::now().as_secs()
}

/// The directory of this machine's map (/run/vipool, on Windows ProgramData\\vipool of the system
/// drive) with a NUL behind it. Fixed at installation. Hook layers take another one from the
/// environment variable VIPOOL_MAP, for rootless use and tests.
///
/// `out_length` may be NULL; it is told the length without the NUL, also with VIPOOL_ERR_BUFFER.
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_BUFFER. May be called from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_map_directory(
    buffer: *mut c_char,
    capacity: usize,
    out_length: *mut usize,
) -> vipool_status {
    call(|| {
        let directory = crate::system::map_directory();
        // SAFETY: the caller vouches for buffer and length.
        unsafe { copy_out(&directory.to_string_lossy(), buffer, capacity, out_length) }
    })
}

/// The network interfaces of this machine at one moment. Any number of threads may use it at once;
/// vipool_interface_list_free() must be the last call.
pub struct vipool_interface_list {
    /// What `array` points to.
    _interfaces: Vec<Interface>,
    _subnets: Vec<Vec<vipool_subnet>>,
    array: Vec<vipool_interface>,
}

// SAFETY: the pointers lead to what the list itself owns and nobody changes.
unsafe impl Send for vipool_interface_list {}
// SAFETY: as above.
unsafe impl Sync for vipool_interface_list {}

impl Owned for vipool_interface_list {
    type Access = Shared;
}

/// Lists the interfaces of this machine that have an IP address, as the system does: with all of
/// their addresses. Leave out those that vipool itself has put there (all that are in the ranges)
/// before you hand them to vipool_match_new() or vipool_farm_plan().
///
/// Give the list back with vipool_interface_list_free().
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_IO. May be called from any thread; may block shortly.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_interface_list_new(
    out: *mut *mut vipool_interface_list,
) -> vipool_status {
    call(|| {
        not_null(out)?;
        let interfaces = crate::system::interfaces()
            .map_err(|error| VIPOOL_ERR_IO.because(format_args!("the interfaces: {error}")))?;
        let subnets: Vec<Vec<_>> = interfaces
            .iter()
            .map(|interface| interface.addresses.iter().copied().map(Into::into).collect())
            .collect();
        let array = interfaces.iter().zip(&subnets).map(|(interface, subnets)| vipool_interface {
            size: size_of::<vipool_interface>(),
            name: interface.name.as_ptr().cast(),
            name_length: interface.name.len(),
            addresses: subnets.as_ptr(),
            address_count: subnets.len(),
            index: interface.index,
            reserved: 0,
        });
        let array = array.collect();
        let list = vipool_interface_list { _interfaces: interfaces, _subnets: subnets, array };
        // SAFETY: not NULL.
        unsafe { give(list, out) };
        Ok(())
    })
}

/// The interfaces of a list as an array, as other functions take it, valid until the list is freed.
///
/// Errors: VIPOOL_ERR_NULL. May be called from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_interface_list_get(
    list: *const vipool_interface_list,
    out: *mut *const vipool_interface,
    out_count: *mut usize,
) -> vipool_status {
    call(|| {
        not_null(out)?;
        not_null(out_count)?;
        // SAFETY: the caller vouches for the handle; neither place is NULL.
        unsafe {
            let array = &shared(list)?.array;
            out.write(if array.is_empty() { ptr::null() } else { array.as_ptr() });
            out_count.write(array.len());
        }
        Ok(())
    })
}

/// Frees a list of interfaces; its array is gone with it. NULL is nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_interface_list_free(list: *mut vipool_interface_list) {
    // SAFETY: the caller gives the handle back.
    quiet(|| unsafe { free(list) });
}

/// The session of a process of Windows (ProcessIdToSessionId). Elsewhere VIPOOL_ERR_UNSUPPORTED:
/// what opens sessions there knows them.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_IO (no such process), VIPOOL_ERR_UNSUPPORTED.
/// May be called from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_session_of_process(
    pid: u32,
    out: *mut vipool_session,
) -> vipool_status {
    call(|| {
        not_null(out)?;
        #[cfg(windows)]
        {
            let session = crate::system::process_session(pid)
                .map_err(|error| VIPOOL_ERR_IO.because(format_args!("process {pid}: {error}")))?;
            // SAFETY: not NULL.
            unsafe { out.write(session.raw()) };
            Ok(())
        }
        #[cfg(not(windows))]
        {
            let _ = pid;
            Err(VIPOOL_ERR_UNSUPPORTED.into())
        }
    })
}

/// By what a process was found to belong to a session.
#[repr(u32)]
#[derive(Clone, Copy, Debug)]
pub enum vipool_found_by {
    /// Linux: the kernel's audit session.
    VIPOOL_FOUND_BY_AUDIT_SESSION = 1,
    /// Linux: the scope of a logind session, which is its control group.
    VIPOOL_FOUND_BY_SESSION_SCOPE = 2,
    /// Linux: the user's manager, of a user with one session.
    VIPOOL_FOUND_BY_USER_MANAGER = 3,
    /// Windows: the terminal services session.
    VIPOOL_FOUND_BY_WINDOWS_SESSION = 4,
}

/// The lease of a process, by what the operating system says of it: that of the open session which
/// it belongs to. `pid`: 0 for this process. `out_found_by` (may be NULL) is told vipool_found_by.
///
/// A program that was started with the environment variable VIPOOL_LEASE goes by what is in there
/// instead: vipool_handle_parse(), then vipool_reader_leases_of().
/// Takes no lock and allocates nothing, but reads files of /proc and /run: for a hook while its
/// process starts. Leaves the last error text alone.
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_NOT_OPEN (its session is not open,
/// it belongs to none, or the system does not let us see), VIPOOL_ERR_UNSUPPORTED (other systems).
/// May be called from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_reader_lease_of_process(
    reader: *const vipool_reader,
    pid: u32,
    out: *mut vipool_found,
    out_found_by: *mut u32,
) -> vipool_status {
    let find = || {
        // SAFETY: the caller vouches for handle and struct.
        let reader = unsafe { shared(reader) }?;
        // SAFETY: as above.
        unsafe { check_out_quietly(out) }?;
        let (session, by) = session_of(&reader.reader, pid)?.ok_or(VIPOOL_ERR_NOT_OPEN)?;
        let (handle, leases) = reader.reader.find(session).ok_or(VIPOOL_ERR_NOT_OPEN)?;
        // SAFETY: checked above; the caller vouches for the place if it is not NULL.
        unsafe {
            fill(out, |place| place.tell(&handle, &leases));
            if !out_found_by.is_null() {
                out_found_by.write(by as u32);
            }
        }
        Ok(())
    };
    quiet(|| find().err().unwrap_or(VIPOOL_OK))
}

/// The session of a process, and by what.
type Found = Option<(SessionId, vipool_found_by)>;

#[cfg(target_os = "linux")]
fn session_of(map: &Reader, pid: u32) -> Result<Found, vipool_status> {
    let found = discovery::session_of_process(map, process(pid)).map(|(session, by)| {
        let by = match by {
            FoundBy::AuditSession => vipool_found_by::VIPOOL_FOUND_BY_AUDIT_SESSION,
            FoundBy::SessionScope => vipool_found_by::VIPOOL_FOUND_BY_SESSION_SCOPE,
            FoundBy::UserManager => vipool_found_by::VIPOOL_FOUND_BY_USER_MANAGER,
        };
        (session, by)
    });
    Ok(found)
}

#[cfg(target_os = "linux")]
fn process(pid: u32) -> Process {
    if pid == 0 { Process::This } else { Process::Other(pid) }
}

#[cfg(windows)]
fn session_of(_: &Reader, pid: u32) -> Result<Found, vipool_status> {
    let pid = if pid == 0 { std::process::id() } else { pid };
    let session = crate::system::process_session(pid).ok();
    Ok(session.map(|session| (session, vipool_found_by::VIPOOL_FOUND_BY_WINDOWS_SESSION)))
}

#[cfg(not(any(target_os = "linux", windows)))]
fn session_of(_: &Reader, _: u32) -> Result<Found, vipool_status> {
    Err(VIPOOL_ERR_UNSUPPORTED)
}

/// The rule that the nearest listed one of a process's parents hands down: for a program that is on
/// no rule itself. `pid`: 0 for this process. `out_parent` (may be NULL) is told the pid of that
/// parent. On Linux, where it is found in /proc; on Windows a hook hands the id of the rule to the
/// processes that it starts (vipool_reader_inherited_rule()).
///
/// Takes no lock and allocates nothing, but reads files of /proc: for a hook while its process
/// starts. Leaves the last error text alone.
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_NOT_FOUND (none does),
/// VIPOOL_ERR_UNSUPPORTED (other systems). May be called from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_reader_parents_rule(
    reader: *const vipool_reader,
    pid: u32,
    out: *mut vipool_rule,
    out_parent: *mut u32,
) -> vipool_status {
    let find = || {
        // SAFETY: the caller vouches for handle and struct.
        let reader = unsafe { shared(reader) }?;
        // SAFETY: as above.
        unsafe { check_out_quietly(out) }?;
        let policy = reader.reader.policy();
        let (program, parent) = parents_rule(&policy, pid)?.ok_or(VIPOOL_ERR_NOT_FOUND)?;
        let inherited = vipool_matched_by::VIPOOL_MATCHED_INHERITED;
        // SAFETY: checked above; the caller vouches for the place if it is not NULL.
        unsafe {
            write(out, &vipool_rule::new(&program, inherited));
            if !out_parent.is_null() {
                out_parent.write(parent);
            }
        }
        Ok(())
    };
    quiet(|| find().err().unwrap_or(VIPOOL_OK))
}

/// A rule, and the parent that hands it down.
type Handed<'a> = Option<(ProgramView<'a>, u32)>;

#[cfg(target_os = "linux")]
fn parents_rule<'a>(policy: &PolicyView<'a>, pid: u32) -> Result<Handed<'a>, vipool_status> {
    Ok(discovery::inherited_rule(policy, process(pid)))
}

#[cfg(not(target_os = "linux"))]
fn parents_rule<'a>(_: &PolicyView<'a>, _: u32) -> Result<Handed<'a>, vipool_status> {
    Err(VIPOOL_ERR_UNSUPPORTED)
}
