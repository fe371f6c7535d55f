//! A read-only view of a map: the leases and addresses of sessions.

use std::ffi::c_char;
use std::mem::MaybeUninit;
use std::sync::Arc;

use super::address::vipool_ip;
use super::error::{catch_panic, silent, silent_status};
use super::handle::{Opaque, Shared, borrow_shared, check_not_null, free_handle, write_handle};
use super::layout::layout;
use super::map::vipool_map;
use super::output::{check_out, check_out_silent};
use super::session::{
    VIPOOL_MAX_LEASES, session_id, vipool_addresses, vipool_handle, vipool_lease, vipool_session,
    write_leases,
};
use super::settings::vipool_settings;
use super::status::vipool_status::{self, *};
use super::text::read_directory;
use crate::map::{Leases, Reader};
use crate::session::Handle;

/// A read-only view of a map. It never blocks and never writes. Threads may share it.
pub struct vipool_reader {
    pub(crate) reader: Arc<Reader>,
}

impl Opaque for vipool_reader {
    type Access = Shared;
}

/// The handle and the leases of an open session.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct vipool_found_session {
    /// sizeof(vipool_found_session), set by the caller.
    pub size: usize,
    /// Handle for the programs of the session.
    pub handle: vipool_handle,
    /// The leases, in the order of the pools. The first `lease_count` elements are written.
    pub leases: [vipool_lease; VIPOOL_MAX_LEASES],
    /// Number of leases.
    pub lease_count: u32,
    /// Reserved: zero.
    pub reserved: u32,
}
layout!(vipool_found_session { size, handle, leases, lease_count, reserved });

impl vipool_found_session {
    /// Writes a session to `out`, whose bytes may be uninitialised.
    #[inline]
    pub(crate) fn set(out: &mut MaybeUninit<Self>, handle: &Handle, leases: &Leases) {
        let out = out.as_mut_ptr();
        // SAFETY: `out` comes from a reference, so it is valid for writes. No member is read.
        unsafe {
            (*out).lease_count = write_leases(&raw mut (*out).leases, leases);
            (*out).reserved = 0;
            // Copy the handle last. The lookup has just stored the handle, and an earlier copy
            // would wait for the stores of the lookup.
            (*out).handle = (*handle).into();
        }
    }
}

/// vipool_map_info.flags: the whole server drains (vipool_map_set_draining()).
pub const VIPOOL_MAP_INFO_DRAINING: u32 = 1;
/// vipool_map_info.flags: this map is out of date, see vipool_reader_is_superseded().
pub const VIPOOL_MAP_INFO_SUPERSEDED: u32 = 2;

/// Properties of a map.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct vipool_map_info {
    /// sizeof(vipool_map_info), set by the caller.
    pub size: usize,
    /// Hash of the boot id and the network namespace. The handles of the map have this value in
    /// vipool_handle.boot.
    pub boot: u64,
    /// VIPOOL_MAP_INFO_...
    pub flags: u32,
    /// VIPOOL_REWRITE_...: vipool_rewrite_settings.flags of the farm.
    pub rewrite_flags: u32,
}
layout!(vipool_map_info { size, boot, flags, rewrite_flags });

/// Opens the map in a directory for reading, as a hook or a monitor does.
///
/// Parameters:
/// - `directory`, `directory_length`: the directory, UTF-8.
/// - `out`: receives the reader. Close it with vipool_reader_close(). A hook can keep it open until
///   the process exits.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_UTF8, VIPOOL_ERR_MISSING, VIPOOL_ERR_DAMAGED,
/// VIPOOL_ERR_OTHER_BOOT, VIPOOL_ERR_UNTRUSTED, VIPOOL_ERR_IO.
///
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_reader_open(
    directory: *const c_char,
    directory_length: usize,
    out: *mut *mut vipool_reader,
) -> vipool_status {
    catch_panic(|| {
        check_not_null(out)?;
        // SAFETY: the caller guarantees the text.
        let reader = Reader::attach(unsafe { read_directory(directory, directory_length) }?)?;
        // SAFETY: not NULL.
        unsafe { write_handle(vipool_reader { reader: Arc::new(reader) }, out) };
        Ok(())
    })
}

/// Opens a reader of an open map. A map in memory is accepted too.
///
/// Parameters:
/// - `map`: the map. The reader may outlive it.
/// - `out`: receives the reader. Close it with vipool_reader_close().
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_IO, VIPOOL_ERR_MISSING, VIPOOL_ERR_DAMAGED,
/// VIPOOL_ERR_OTHER_BOOT, VIPOOL_ERR_UNTRUSTED, VIPOOL_ERR_FORKED.
///
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_reader_open_map(
    map: *const vipool_map,
    out: *mut *mut vipool_reader,
) -> vipool_status {
    catch_panic(|| {
        // SAFETY: the caller guarantees the handle.
        let map = unsafe { borrow_shared(map) }?;
        check_not_null(out)?;
        let reader = Arc::new(map.map()?.reader()?);
        // SAFETY: not NULL.
        unsafe { write_handle(vipool_reader { reader }, out) };
        Ok(())
    })
}

/// Closes a reader and frees it.
///
/// Parameters:
/// - `reader`: the reader. NULL is ignored.
///
/// Threads: any; the last call with the reader.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_reader_close(reader: *mut vipool_reader) {
    // SAFETY: the caller gives up the handle.
    silent(|| unsafe { free_handle(reader) });
}

/// Finds the handle and the leases of a session.
///
/// Parameters:
/// - `reader`: the reader.
/// - `session`: the session.
/// - `out`: receives handle and leases.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_SESSION_ID, VIPOOL_ERR_NOT_OPEN.
///
/// Threads: any; signal-safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_reader_find_session(
    reader: *const vipool_reader,
    session: vipool_session,
    out: *mut vipool_found_session,
) -> vipool_status {
    silent_status(|| {
        // SAFETY: the caller guarantees the handle.
        let reader = unsafe { borrow_shared(reader) }?;
        // SAFETY: the caller guarantees the struct.
        let out = unsafe { check_out_silent(out) }?;
        let write_session = |handle, leases: &Leases| {
            out.fill(|out| vipool_found_session::set(out, &handle, leases));
        };
        reader.reader.with_session(session_id(session)?, write_session).ok_or(VIPOOL_ERR_NOT_OPEN)
    })
}

/// Finds the leases of the session of a handle, if the lease of the handle is still held.
///
/// Programs that received a handle use this function instead of vipool_reader_find_session(),
/// because a later session can have the same session id.
///
/// Parameters:
/// - `reader`: the reader.
/// - `handle`: the handle.
/// - `out`: receives handle and leases.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_UNKNOWN_FIELD,
/// VIPOOL_ERR_SESSION_ID, VIPOOL_ERR_HANDLE, VIPOOL_ERR_STALE.
///
/// Threads: any; signal-safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_reader_find_by_handle(
    reader: *const vipool_reader,
    handle: *const vipool_handle,
    out: *mut vipool_found_session,
) -> vipool_status {
    silent_status(|| {
        // SAFETY: the caller guarantees both handles.
        let (reader, handle) =
            unsafe { (borrow_shared(reader)?, handle.as_ref().ok_or(VIPOOL_ERR_NULL)?) };
        // SAFETY: the caller guarantees the struct.
        let out = unsafe { check_out_silent(out) }?;
        let handle = handle.decode_handle()?;
        let leases = reader.reader.leases_of(&handle).ok_or(VIPOOL_ERR_STALE)?;
        out.fill(|out| vipool_found_session::set(out, &handle, &leases));
        Ok(())
    })
}

/// Checks whether the lease of a handle is still held. The check costs a few loads from memory.
///
/// Parameters:
/// - `reader`: the reader.
/// - `handle`: the handle.
///
/// Returns: VIPOOL_OK if the lease is held.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_UNKNOWN_FIELD, VIPOOL_ERR_SESSION_ID, VIPOOL_ERR_HANDLE,
/// VIPOOL_ERR_STALE.
///
/// Threads: any; signal-safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_reader_check_handle(
    reader: *const vipool_reader,
    handle: *const vipool_handle,
) -> vipool_status {
    silent_status(|| {
        // SAFETY: the caller guarantees both handles.
        let (reader, handle) =
            unsafe { (borrow_shared(reader)?, handle.as_ref().ok_or(VIPOOL_ERR_NULL)?) };
        if reader.reader.is_live(&handle.decode_handle()?) { Ok(()) } else { Err(VIPOOL_ERR_STALE) }
    })
}

/// Returns the addresses of a session.
///
/// Parameters:
/// - `reader`: the reader.
/// - `session`: the session.
/// - `out`: receives the addresses.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_SESSION_ID, VIPOOL_ERR_NOT_OPEN.
///
/// Threads: any; signal-safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_reader_get_addresses(
    reader: *const vipool_reader,
    session: vipool_session,
    out: *mut vipool_addresses,
) -> vipool_status {
    silent_status(|| {
        // SAFETY: the caller guarantees the handle.
        let reader = unsafe { borrow_shared(reader) }?;
        // SAFETY: the caller guarantees the struct.
        let out = unsafe { check_out_silent(out) }?;
        let leases = reader.reader.lookup(session_id(session)?);
        if leases.is_empty() {
            return Err(VIPOOL_ERR_NOT_OPEN);
        }
        out.write(&reader.reader.addresses(&leases).into());
        Ok(())
    })
}

/// Returns the kind of the pool that an address belongs to. The address may be leased or not.
///
/// Parameters:
/// - `reader`: the reader.
/// - `address`: the address.
/// - `out_kind`: receives vipool_pool_kind, or 0 if the address is in no pool.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_ADDRESS.
///
/// Threads: any; signal-safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_reader_get_address_kind(
    reader: *const vipool_reader,
    address: *const vipool_ip,
    out_kind: *mut u32,
) -> vipool_status {
    silent_status(|| {
        check_not_null(out_kind)?;
        // SAFETY: the caller guarantees handle and address.
        let (reader, ip) =
            unsafe { (borrow_shared(reader)?, address.as_ref().ok_or(VIPOOL_ERR_NULL)?) };
        let kind = reader.reader.pool_kind(ip.decode_required_ip()?).map_or(0, |kind| kind as u32);
        // SAFETY: not NULL.
        unsafe { out_kind.write(kind) };
        Ok(())
    })
}

/// Returns whether the map of this reader is out of date. The check reads one word.
///
/// A map is out of date if a newer map replaces it, or if the map was removed. In this case, open
/// the newer map with vipool_reader_open(). If there is none yet, try again later. The old reader
/// stays valid until it is closed.
///
/// Parameters:
/// - `reader`: the reader.
/// - `out_superseded`: receives 1 if the map is out of date, otherwise 0.
///
/// Errors: VIPOOL_ERR_NULL.
///
/// Threads: any; signal-safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_reader_is_superseded(
    reader: *const vipool_reader,
    out_superseded: *mut u32,
) -> vipool_status {
    silent_status(|| {
        check_not_null(out_superseded)?;
        // SAFETY: the caller guarantees the handle.
        let is_superseded = unsafe { borrow_shared(reader) }?.reader.is_superseded();
        // SAFETY: not NULL.
        unsafe { out_superseded.write(is_superseded.into()) };
        Ok(())
    })
}

/// Returns properties of the map.
///
/// Parameters:
/// - `reader`: the reader.
/// - `out`: receives the properties.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE.
///
/// Threads: any; signal-safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_reader_get_info(
    reader: *const vipool_reader,
    out: *mut vipool_map_info,
) -> vipool_status {
    silent_status(|| {
        // SAFETY: the caller guarantees the handle.
        let reader = &unsafe { borrow_shared(reader) }?.reader;
        // SAFETY: the caller guarantees the struct.
        let out = unsafe { check_out_silent(out) }?;
        let flag_if = |condition, flag| if condition { flag } else { 0 };
        let info = vipool_map_info {
            size: size_of::<vipool_map_info>(),
            boot: reader.boot(),
            flags: flag_if(reader.is_draining(), VIPOOL_MAP_INFO_DRAINING)
                | flag_if(reader.is_superseded(), VIPOOL_MAP_INFO_SUPERSEDED),
            rewrite_flags: reader.policy().rewrite_flags().bits(),
        };
        out.write(&info);
        Ok(())
    })
}

/// Returns the settings for the allocation of addresses.
///
/// Parameters:
/// - `reader`: the reader.
/// - `out`: receives the settings.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE.
///
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_reader_get_settings(
    reader: *const vipool_reader,
    out: *mut vipool_settings,
) -> vipool_status {
    catch_panic(|| {
        // SAFETY: the caller guarantees the handle.
        let reader = unsafe { borrow_shared(reader) }?;
        // SAFETY: the caller guarantees the struct.
        unsafe { check_out(out) }?.write(&reader.reader.settings().into());
        Ok(())
    })
}
