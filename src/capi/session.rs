//! Session ids, handles, leases and the addresses of a session.

use std::ffi::c_char;
use std::mem::MaybeUninit;

use super::address::vipool_ip;
use super::error::{catch_panic, silent_status};
use super::handle::check_not_null;
use super::layout::{any_bytes, layout};
use super::status::vipool_status::{self, *};
use super::text::{check_reserved, copy_text, read_bytes, read_utf8};
use crate::map::{Leases, MAX_LEASES};
use crate::session::{Addresses, Handle, Lease, SessionId, SessionKind};

/// A session id: the kind in the upper 8 bits, the value in the lower 56. Zero is no session.
pub type vipool_session = u64;

/// Source of a session id.
#[repr(u32)]
#[derive(Clone, Copy, Debug)]
pub enum vipool_session_kind {
    /// A Windows terminal services session (ProcessIdToSessionId). Text: "windows:3".
    VIPOOL_SESSION_WINDOWS = 1,
    /// A Linux audit session (/proc/self/sessionid). Text: "audit:3".
    VIPOOL_SESSION_AUDIT = 2,
    /// A logind session (XDG_SESSION_ID). vipool_session_parse() makes the id from "logind:" and
    /// the name.
    VIPOOL_SESSION_LOGIND = 3,
    /// An id that the embedding program chooses. Text: "embedder:3".
    VIPOOL_SESSION_EMBEDDER = 4,
    /// An id that an administrator chooses on the command line. Text: "3".
    VIPOOL_SESSION_COMMAND_LINE = 5,
    /// A Linux user id, for the session that all logons of the user share
    /// (VIPOOL_SETTING_SESSION_PER_USER). Text: "user:1000".
    VIPOOL_SESSION_USER = 6,
}

/// Capacity of the lease arrays. A session has at most this number of leases.
pub const VIPOOL_MAX_LEASES: usize = 4;
const _: () = assert!(VIPOOL_MAX_LEASES >= MAX_LEASES);

/// Identifies one lease. Programs receive a handle instead of a session id, because the library
/// recognises a handle of an earlier session, boot or map as stale. Plain data with a fixed layout.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct vipool_handle {
    /// The session that holds the lease.
    pub session: vipool_session,
    /// Hash of the boot id and the network namespace that the map belongs to.
    pub boot: u64,
    /// Slot within the pool.
    pub slot: u32,
    /// Number of leases that the slot has had, including this one. Wraps around.
    pub generation: u32,
    /// Number of the pool in the map, from 0.
    pub pool: u32,
    /// Reserved: zero.
    pub reserved: u32,
}
any_bytes!(vipool_handle { session, boot, slot, generation, pool, reserved });

/// One address leased to one session. Plain data with a fixed layout.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct vipool_lease {
    /// The session that holds the lease.
    pub session: vipool_session,
    /// Slot within the pool.
    pub slot: u32,
    /// Number of leases that the slot has had, including this one. Wraps around.
    pub generation: u32,
    /// Number of the pool in the map, from 0.
    pub pool: u32,
    /// The address.
    pub address: vipool_ip,
}
any_bytes!(vipool_lease { session, slot, generation, pool, address });

/// The addresses of one session, as a hook uses them. Each of them may be missing.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct vipool_addresses {
    /// sizeof(vipool_addresses), set by the caller.
    pub size: usize,
    /// V: the virtual IP, an IPv4 address.
    pub v4: vipool_ip,
    /// The virtual IP, an IPv6 address.
    pub v6: vipool_ip,
    /// L: the virtual loopback address, in 127.0.0.0/8.
    pub loopback: vipool_ip,
    /// L6: a second address in 127.0.0.0/8. ::ffff:L6 replaces ::1.
    pub loopback6: vipool_ip,
}
layout!(vipool_addresses { size, v4, v6, loopback, loopback6 });

impl From<Handle> for vipool_handle {
    #[inline]
    fn from(handle: Handle) -> Self {
        Self {
            session: handle.session.raw(),
            boot: handle.boot,
            slot: handle.slot,
            generation: handle.generation,
            pool: handle.pool.into(),
            reserved: 0,
        }
    }
}

impl vipool_handle {
    #[inline]
    pub(crate) fn decode_handle(&self) -> Result<Handle, vipool_status> {
        check_reserved(self.reserved)?;
        Ok(Handle {
            session: session_id(self.session)?,
            pool: u16::try_from(self.pool).map_err(|_| VIPOOL_ERR_HANDLE)?,
            slot: self.slot,
            generation: self.generation,
            boot: self.boot,
        })
    }
}

impl From<Lease> for vipool_lease {
    #[inline(always)]
    fn from(lease: Lease) -> Self {
        Self {
            session: lease.session.raw(),
            slot: lease.slot,
            generation: lease.generation,
            pool: lease.pool.into(),
            address: lease.address.into(),
        }
    }
}

impl From<Addresses> for vipool_addresses {
    fn from(addresses: Addresses) -> Self {
        Self {
            size: size_of::<Self>(),
            v4: addresses.v4.map(Into::into).into(),
            v6: addresses.v6.map(Into::into).into(),
            loopback: addresses.loopback.map(Into::into).into(),
            loopback6: addresses.loopback6.map(Into::into).into(),
        }
    }
}

/// Writes the leases to an array, whose bytes may be uninitialised, and returns their number.
///
/// # Safety
/// `rows` is aligned and valid for writes, and no other code uses the array during the call.
#[inline(always)]
pub(crate) unsafe fn write_leases(
    rows: *mut [vipool_lease; VIPOOL_MAX_LEASES],
    leases: &Leases,
) -> u32 {
    let Some(session) = leases.session() else { return 0 };
    let packed = leases.packed();
    // SAFETY: the caller guarantees the array, and that no other code uses it. Its elements may be
    // uninitialised.
    let rows = unsafe { &mut *rows.cast::<[MaybeUninit<vipool_lease>; VIPOOL_MAX_LEASES]>() };
    for (row, packed_lease) in rows.iter_mut().zip(packed) {
        // Build the row from single members. A wide load of bytes that were just stored in pieces
        // stalls the CPU.
        let [upper_bits, lower_bits] = &packed_lease.address_bits;
        let (family, upper_word, lower_word) = if packed_lease.is_ipv4 != 0 {
            (4, *lower_bits << 32, 0)
        } else {
            (6, *upper_bits, *lower_bits)
        };
        let bits = u128::from(upper_word) << 64 | u128::from(lower_word);
        row.write(vipool_lease {
            session: session.raw(),
            slot: packed_lease.slot,
            generation: packed_lease.generation,
            pool: packed_lease.pool,
            address: vipool_ip { family, bytes: bits.to_be_bytes() },
        });
    }
    packed.len() as u32
}

/// Converts a number of the caller to a session id.
#[inline]
pub(crate) fn session_id(raw: vipool_session) -> Result<SessionId, vipool_status> {
    SessionId::from_raw(raw).ok_or(VIPOOL_ERR_SESSION_ID)
}

/// Makes a session id.
///
/// Parameters:
/// - `kind`: vipool_session_kind.
/// - `value`: 0 to 2^56-1.
/// - `out`: receives the id.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_KIND, VIPOOL_ERR_SESSION_ID, VIPOOL_ERR_SESSION_UNSET.
///
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_session_make(
    kind: u32,
    value: u64,
    out: *mut vipool_session,
) -> vipool_status {
    catch_panic(|| {
        check_not_null(out)?;
        let kind = u8::try_from(kind).ok().and_then(SessionKind::from_number);
        let session = SessionId::new(kind.ok_or(VIPOOL_ERR_KIND)?, value)?;
        // SAFETY: not NULL.
        unsafe { out.write(session.raw()) };
        Ok(())
    })
}

/// Parses a session id: "7" (command line), or kind and value ("audit:3", "logind:c1").
///
/// For a logind session, the text is "logind:" and the name of the session. If the name is a number
/// below 2^56, this number is the value of the id. If it is another name of up to nine ASCII
/// letters and digits, the value encodes the name. For a longer name, or a name with other
/// characters, the value is a hash of the name.
///
/// Parameters:
/// - `text`, `length`: the text, UTF-8.
/// - `out`: receives the id.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_UTF8, VIPOOL_ERR_KIND, VIPOOL_ERR_SESSION_ID,
/// VIPOOL_ERR_SESSION_UNSET.
///
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_session_parse(
    text: *const c_char,
    length: usize,
    out: *mut vipool_session,
) -> vipool_status {
    catch_panic(|| {
        check_not_null(out)?;
        // SAFETY: the caller guarantees the text.
        let session: SessionId = unsafe { read_utf8(text, length) }?.parse()?;
        // SAFETY: not NULL.
        unsafe { out.write(session.raw()) };
        Ok(())
    })
}

/// Formats a session id in the syntax of vipool_session_parse().
///
/// Parameters:
/// - `session`: the id.
/// - `buffer`, `capacity`: receives the text and a NUL. 32 bytes are always enough.
/// - `out_length`: receives the length without the NUL. May be NULL.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_SESSION_ID, VIPOOL_ERR_BUFFER.
///
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_session_format(
    session: vipool_session,
    buffer: *mut c_char,
    capacity: usize,
    out_length: *mut usize,
) -> vipool_status {
    catch_panic(|| {
        let text = session_id(session)?.to_string();
        // SAFETY: the caller guarantees buffer and length.
        unsafe { copy_text(&text, buffer, capacity, out_length) }
    })
}

/// Formats a handle for the environment variable VIPOOL_LEASE.
///
/// Parameters:
/// - `handle`: the handle.
/// - `buffer`, `capacity`: receives the text and a NUL. 72 bytes are always enough.
/// - `out_length`: receives the length without the NUL. May be NULL.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_UNKNOWN_FIELD, VIPOOL_ERR_SESSION_ID, VIPOOL_ERR_HANDLE,
/// VIPOOL_ERR_BUFFER.
///
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_handle_format(
    handle: *const vipool_handle,
    buffer: *mut c_char,
    capacity: usize,
    out_length: *mut usize,
) -> vipool_status {
    catch_panic(|| {
        // SAFETY: the caller guarantees the handle.
        let handle = unsafe { handle.as_ref() }.ok_or(VIPOOL_ERR_NULL)?.decode_handle()?;
        // SAFETY: the caller guarantees buffer and length.
        unsafe { copy_text(&handle.to_string(), buffer, capacity, out_length) }
    })
}

/// Parses the text of a handle, as vipool_handle_format() returns it.
///
/// Parameters:
/// - `text`, `length`: the text.
/// - `out`: receives the handle.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_HANDLE.
///
/// Threads: any; signal-safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_handle_parse(
    text: *const c_char,
    length: usize,
    out: *mut vipool_handle,
) -> vipool_status {
    silent_status(|| {
        check_not_null(out)?;
        // SAFETY: the caller guarantees the text.
        let handle = Handle::parse(unsafe { read_bytes(text.cast(), length) }?);
        // SAFETY: not NULL.
        unsafe { out.write(handle.ok_or(VIPOOL_ERR_HANDLE)?.into()) };
        Ok(())
    })
}
