//! A read-only view of a map: which addresses a session has, and whether a lease still holds.

use std::ffi::c_char;
use std::path::Path;
use std::sync::Arc;

use super::address::vipool_ip;
use super::handle::{Owned, Shared, free, give, not_null, shared};
use super::layout::{check_out, check_out_quietly, fill, layout, write};
use super::outcome::{call, quiet};
use super::session::{
    VIPOOL_MAX_LEASES, session, set_leases, vipool_addresses, vipool_handle, vipool_lease,
    vipool_session,
};
use super::settings::vipool_settings;
use super::snapshot::vipool_snapshot;
use super::status::vipool_status::{self, *};
use super::text::{utf8, with_utf16};
use crate::map::{Leases, Reader};
use crate::session::Handle;

/// A read-only view of a map. It never blocks and never writes. Any number of threads may use it
/// at once; vipool_reader_free() must be the last call.
pub struct vipool_reader {
    pub(crate) reader: Arc<Reader>,
}

impl Owned for vipool_reader {
    type Access = Shared;
}

/// What an open session holds.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct vipool_found {
    /// sizeof(vipool_found), set by the caller.
    pub size: usize,
    /// What its programs are told.
    pub handle: vipool_handle,
    /// Its leases, in the order of the pools; `lease_count` of them are written.
    pub leases: [vipool_lease; VIPOOL_MAX_LEASES],
    /// How many of them there are.
    pub lease_count: u32,
    /// Zero.
    pub reserved: u32,
}
layout!(vipool_found { size, handle, leases, lease_count, reserved });

impl vipool_found {
    #[inline]
    pub(crate) fn tell(&mut self, handle: &Handle, leases: &Leases) {
        self.lease_count = set_leases(&mut self.leases, leases);
        self.reserved = 0;
        // It was made last: by now it can be read without waiting.
        self.handle = (*handle).into();
    }
}

/// Maps the map in a directory read-only, as a hook or a monitor does.
///
/// Give it back with vipool_reader_free(); a hook keeps it for the life of its process.
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_UTF8, VIPOOL_ERR_MISSING, VIPOOL_ERR_DAMAGED,
/// VIPOOL_ERR_OTHER_BOOT, VIPOOL_ERR_UNTRUSTED, VIPOOL_ERR_IO.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_reader_attach(
    directory: *const c_char,
    directory_length: usize,
    out: *mut *mut vipool_reader,
) -> vipool_status {
    call(|| {
        not_null(out)?;
        // SAFETY: the caller vouches for the text.
        let reader = Reader::attach(Path::new(unsafe { utf8(directory, directory_length) }?))?;
        // SAFETY: not NULL.
        unsafe { give(vipool_reader { reader: Arc::new(reader) }, out) };
        Ok(())
    })
}

/// vipool_reader_attach() with a UTF-16 path of `directory_length` units.
///
/// Errors: those, and VIPOOL_ERR_UTF16.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_reader_attach_utf16(
    directory: *const u16,
    directory_length: usize,
    out: *mut *mut vipool_reader,
) -> vipool_status {
    // SAFETY: the caller vouches for all of them.
    unsafe {
        with_utf16(directory, directory_length, |text, length| {
            vipool_reader_attach(text, length, out)
        })
    }
}

/// Frees a reader. NULL is nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_reader_free(reader: *mut vipool_reader) {
    // SAFETY: the caller gives the handle back.
    quiet(|| unsafe { free(reader) });
}

/// The handle and leases of a session.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_SESSION_ID, VIPOOL_ERR_NOT_OPEN.
/// May be called from any thread and in a signal handler.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_reader_find(
    reader: *const vipool_reader,
    session_id: vipool_session,
    out: *mut vipool_found,
) -> vipool_status {
    let find = || {
        // SAFETY: the caller vouches for handle and struct.
        let reader = unsafe { shared(reader) }?;
        // SAFETY: as above.
        unsafe { check_out_quietly(out) }?;
        let tell = |handle, leases: &Leases| {
            // SAFETY: checked above.
            unsafe { fill(out, |place| place.tell(&handle, leases)) }
        };
        reader.reader.with_session(session(session_id)?, tell).ok_or(VIPOOL_ERR_NOT_OPEN)
    };
    quiet(|| find().err().unwrap_or(VIPOOL_OK))
}

/// The leases of the session of a handle, if the lease that the handle names is still held: what a
/// program goes by that was told its handle.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_SESSION_ID, VIPOOL_ERR_HANDLE,
/// VIPOOL_ERR_STALE. May be called from any thread and in a signal handler.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_reader_leases_of(
    reader: *const vipool_reader,
    handle: *const vipool_handle,
    out: *mut vipool_found,
) -> vipool_status {
    let find = || {
        // SAFETY: the caller vouches for handles and struct.
        let (reader, handle) =
            unsafe { (shared(reader)?, handle.as_ref().ok_or(VIPOOL_ERR_NULL)?) };
        // SAFETY: as above.
        unsafe { check_out_quietly(out) }?;
        let handle = handle.get()?;
        let leases = reader.reader.leases_of(&handle).ok_or(VIPOOL_ERR_STALE)?;
        // SAFETY: checked above.
        unsafe { fill(out, |place| place.tell(&handle, &leases)) };
        Ok(())
    };
    quiet(|| find().err().unwrap_or(VIPOOL_OK))
}

/// The addresses of a session.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_SESSION_ID, VIPOOL_ERR_NOT_OPEN.
/// May be called from any thread and in a signal handler.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_reader_addresses(
    reader: *const vipool_reader,
    session_id: vipool_session,
    out: *mut vipool_addresses,
) -> vipool_status {
    let find = || {
        // SAFETY: the caller vouches for handle and struct.
        let reader = unsafe { shared(reader) }?;
        // SAFETY: as above.
        unsafe { check_out_quietly(out) }?;
        let leases = reader.reader.lookup(session(session_id)?);
        if leases.is_empty() {
            return Err(VIPOOL_ERR_NOT_OPEN);
        }
        // SAFETY: checked above.
        unsafe { write(out, &reader.reader.addresses(&leases).into()) };
        Ok(())
    };
    quiet(|| find().err().unwrap_or(VIPOOL_OK))
}

/// Whether the lease of this handle is still held: VIPOOL_OK or VIPOOL_ERR_STALE. Costs a few
/// loads.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_SESSION_ID, VIPOOL_ERR_HANDLE, VIPOOL_ERR_STALE.
/// May be called from any thread and in a signal handler.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_reader_check(
    reader: *const vipool_reader,
    handle: *const vipool_handle,
) -> vipool_status {
    let check = || {
        // SAFETY: the caller vouches for both.
        let (reader, handle) =
            unsafe { (shared(reader)?, handle.as_ref().ok_or(VIPOOL_ERR_NULL)?) };
        if reader.reader.is_live(&handle.get()?) { Ok(()) } else { Err(VIPOOL_ERR_STALE) }
    };
    quiet(|| check().err().unwrap_or(VIPOOL_OK))
}

/// The boot and network namespace that the map belongs to, hashed: vipool_handle.boot of its leases.
///
/// Errors: VIPOOL_ERR_NULL. May be called from any thread and in a signal handler.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_reader_boot(
    reader: *const vipool_reader,
    out_boot: *mut u64,
) -> vipool_status {
    let look = || {
        not_null(out_boot)?;
        // SAFETY: the caller vouches for the handle; the place is not NULL.
        unsafe { out_boot.write(shared(reader)?.reader.boot()) };
        Ok(())
    };
    quiet(|| look().err().unwrap_or(VIPOOL_OK))
}

/// Whose an address is: `out_kind` is the vipool_pool_kind of the pool that it belongs to (some
/// session's V or L, held or not), 0 if it belongs to none.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_ADDRESS.
/// May be called from any thread and in a signal handler.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_reader_kind_of(
    reader: *const vipool_reader,
    address: *const vipool_ip,
    out_kind: *mut u32,
) -> vipool_status {
    let find = || {
        not_null(out_kind)?;
        // SAFETY: the caller vouches for both.
        let (reader, ip) = unsafe { (shared(reader)?, address.as_ref().ok_or(VIPOOL_ERR_NULL)?) };
        let kind = reader.reader.pool_kind(ip.required()?).map_or(0, |kind| kind as u32);
        // SAFETY: not NULL.
        unsafe { out_kind.write(kind) };
        Ok(())
    };
    quiet(|| find().err().unwrap_or(VIPOOL_OK))
}

/// Whether a newer file has taken the place of this map: `out_superseded` is 1 if so, else 0.
/// Then attach again; the old reader stays valid until it is freed.
///
/// Errors: VIPOOL_ERR_NULL. May be called from any thread and in a signal handler.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_reader_is_superseded(
    reader: *const vipool_reader,
    out_superseded: *mut u32,
) -> vipool_status {
    let look = || {
        not_null(out_superseded)?;
        // SAFETY: the caller vouches for the handle.
        let superseded = unsafe { shared(reader) }?.reader.is_superseded();
        // SAFETY: not NULL.
        unsafe { out_superseded.write(superseded.into()) };
        Ok(())
    };
    quiet(|| look().err().unwrap_or(VIPOOL_OK))
}

/// Whether the whole server drains: `out_draining` is 1 if so, else 0.
///
/// Errors: VIPOOL_ERR_NULL. May be called from any thread and in a signal handler.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_reader_is_draining(
    reader: *const vipool_reader,
    out_draining: *mut u32,
) -> vipool_status {
    let look = || {
        not_null(out_draining)?;
        // SAFETY: the caller vouches for the handle.
        let draining = unsafe { shared(reader) }?.reader.is_draining();
        // SAFETY: not NULL.
        unsafe { out_draining.write(draining.into()) };
        Ok(())
    };
    quiet(|| look().err().unwrap_or(VIPOOL_OK))
}

/// How addresses are given out.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE. May be called from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_reader_settings(
    reader: *const vipool_reader,
    out: *mut vipool_settings,
) -> vipool_status {
    call(|| {
        // SAFETY: the caller vouches for handle and struct.
        let reader = unsafe { shared(reader) }?;
        // SAFETY: as above.
        unsafe {
            check_out(out)?;
            write(out, &reader.reader.settings().into());
        }
        Ok(())
    })
}

/// The pools and the open sessions, without users, clients and leaders. No lock is taken: each row
/// is of a moment of its own while sessions open and close, and the numbers of the pools are of
/// another. vipool_map_snapshot() gives the sessions of one moment.
///
/// Give it back with vipool_snapshot_free(). Errors: VIPOOL_ERR_NULL. May be called from any
/// thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_reader_snapshot(
    reader: *const vipool_reader,
    out: *mut *mut vipool_snapshot,
) -> vipool_status {
    call(|| {
        // SAFETY: the caller vouches for the handle.
        let reader = unsafe { shared(reader) }?;
        not_null(out)?;
        let snapshot =
            vipool_snapshot { sessions: reader.reader.sessions(), pools: reader.reader.pools() };
        // SAFETY: not NULL.
        unsafe { give(snapshot, out) };
        Ok(())
    })
}
