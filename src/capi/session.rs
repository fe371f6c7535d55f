//! Session ids, handles and leases as C has them.

use std::ffi::c_char;

use super::address::vipool_ip;
use super::handle::not_null;
use super::layout::layout;
use super::outcome::{call, quiet};
use super::status::vipool_status::{self, *};
use super::text::{bytes, copy_out, utf8};
use crate::map::{Leases, MAX_LEASES};
use crate::session::{Addresses, Handle, Lease, SessionId, SessionKind};

/// A session id: 64 bits, its kind in the upper 8, its value in the lower 56. Zero is no session.
pub type vipool_session = u64;

/// Where a session id comes from; it enters as uint32_t.
#[repr(u32)]
#[derive(Clone, Copy, Debug)]
pub enum vipool_session_kind {
    /// A Windows terminal services session id (ProcessIdToSessionId).
    VIPOOL_SESSION_WINDOWS = 1,
    /// A Linux audit session id (/proc/self/sessionid).
    VIPOOL_SESSION_AUDIT = 2,
    /// A logind session (XDG_SESSION_ID); see vipool_session_logind().
    VIPOOL_SESSION_LOGIND = 3,
    /// Chosen by the program that embeds this library.
    VIPOOL_SESSION_EMBEDDER = 4,
    /// Chosen by an administrator on the command line.
    VIPOOL_SESSION_COMMAND_LINE = 5,
}

/// Room for the leases of one session; fewer may be used.
pub const VIPOOL_MAX_LEASES: usize = 4;
const _: () = assert!(VIPOOL_MAX_LEASES >= MAX_LEASES);

/// What a program is told of its lease instead of the bare session id: enough to find it, and to
/// notice that it is no longer the same one. Plain data; its layout never changes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct vipool_handle {
    /// The session the address was leased to.
    pub session: vipool_session,
    /// The boot and network namespace the map belongs to, hashed.
    pub boot: u64,
    /// Slot within the pool.
    pub slot: u32,
    /// How often the slot had been leased, this lease included (wraps).
    pub generation: u32,
    /// Number of the pool in the map, from 0.
    pub pool: u32,
    /// Zero.
    pub reserved: u32,
}

/// One address given to one session. Plain data; its layout never changes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct vipool_lease {
    /// The session the address was leased to.
    pub session: vipool_session,
    /// Slot within the pool.
    pub slot: u32,
    /// How often the slot had been leased, this lease included (wraps).
    pub generation: u32,
    /// Number of the pool in the map, from 0.
    pub pool: u32,
    /// The address.
    pub address: vipool_ip,
}

/// The addresses of one session, as a hook uses them. Any of them may be none.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct vipool_addresses {
    /// sizeof(vipool_addresses), set by the caller.
    pub size: usize,
    /// V: the session's virtual IP, IPv4.
    pub v4: vipool_ip,
    /// The session's virtual IP, IPv6.
    pub v6: vipool_ip,
    /// L: the session's virtual loopback address, in 127.0.0.0/8.
    pub loopback: vipool_ip,
    /// L6: a second address in 127.0.0.0/8, which stands for ::1 as ::ffff:L6.
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
    pub(crate) fn get(&self) -> Result<Handle, vipool_status> {
        Ok(Handle {
            session: session(self.session)?,
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

/// Writes the leases to an array; answers how many they are.
#[inline(always)]
pub(crate) fn set_leases(places: &mut [vipool_lease; VIPOOL_MAX_LEASES], leases: &Leases) -> u32 {
    let Some(session) = leases.session() else { return 0 };
    let held = leases.packed();
    for (lease, place) in places.iter_mut().zip(held) {
        // Field by field: what was written in pieces is waited for when it is read as a whole.
        lease.session = session.raw();
        lease.slot = place.slot;
        lease.generation = place.generation;
        lease.pool = place.pool;
        let [upper, lower] = &place.address_bits;
        let (family, upper, lower) =
            if place.ipv4 != 0 { (4, *lower << 32, 0) } else { (6, *upper, *lower) };
        lease.address.family = family;
        let (head, tail) = lease.address.bytes.split_at_mut(8);
        head.copy_from_slice(&upper.to_be_bytes());
        tail.copy_from_slice(&lower.to_be_bytes());
    }
    held.len() as u32
}

/// The session with these 64 bits.
#[inline]
pub(crate) fn session(raw: vipool_session) -> Result<SessionId, vipool_status> {
    SessionId::from_raw(raw).ok_or(VIPOOL_ERR_SESSION_ID)
}

/// Makes a session id of a kind (vipool_session_kind) and a value from 0 to 2^56-1.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_KIND, VIPOOL_ERR_SESSION_ID, VIPOOL_ERR_SESSION_UNSET.
/// May be called from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_session_new(
    kind: u32,
    value: u64,
    out: *mut vipool_session,
) -> vipool_status {
    call(|| {
        not_null(out)?;
        let kind = u8::try_from(kind).ok().and_then(SessionKind::from_number);
        let session = SessionId::new(kind.ok_or(VIPOOL_ERR_KIND)?, value)?;
        // SAFETY: not NULL.
        unsafe { out.write(session.raw()) };
        Ok(())
    })
}

/// The id of a logind session by its name, `length` bytes of UTF-8. Numeric names keep their
/// number; others ("c1") are hashed within the kind.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_UTF8, VIPOOL_ERR_SESSION_ID.
/// May be called from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_session_logind(
    name: *const c_char,
    length: usize,
    out: *mut vipool_session,
) -> vipool_status {
    call(|| {
        not_null(out)?;
        // SAFETY: the caller vouches for the text.
        let session = SessionId::logind(unsafe { utf8(name, length) }?)?;
        // SAFETY: not NULL.
        unsafe { out.write(session.raw()) };
        Ok(())
    })
}

/// Reads a session id from text: "7" (command line) or kind and value ("audit:3", "logind:c1").
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_UTF8, VIPOOL_ERR_KIND, VIPOOL_ERR_SESSION_ID,
/// VIPOOL_ERR_SESSION_UNSET. May be called from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_session_parse(
    text: *const c_char,
    length: usize,
    out: *mut vipool_session,
) -> vipool_status {
    call(|| {
        not_null(out)?;
        // SAFETY: the caller vouches for the text.
        let session: SessionId = unsafe { utf8(text, length) }?.parse()?;
        // SAFETY: not NULL.
        unsafe { out.write(session.raw()) };
        Ok(())
    })
}

/// Writes a session id as vipool_session_parse() reads it, with a NUL behind it; 32 bytes are
/// always enough.
///
/// `out_length` may be NULL; it is told the length without the NUL, also with VIPOOL_ERR_BUFFER.
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_SESSION_ID, VIPOOL_ERR_BUFFER.
/// May be called from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_session_format(
    session_id: vipool_session,
    buffer: *mut c_char,
    capacity: usize,
    out_length: *mut usize,
) -> vipool_status {
    call(|| {
        let text = session(session_id)?.to_string();
        // SAFETY: the caller vouches for buffer and length.
        unsafe { copy_out(&text, buffer, capacity, out_length) }
    })
}

/// Writes a handle as text for the environment of a program, with a NUL behind it; 72 bytes are
/// always enough.
///
/// `out_length` may be NULL; it is told the length without the NUL, also with VIPOOL_ERR_BUFFER.
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_SESSION_ID, VIPOOL_ERR_HANDLE, VIPOOL_ERR_BUFFER.
/// May be called from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_handle_format(
    handle: *const vipool_handle,
    buffer: *mut c_char,
    capacity: usize,
    out_length: *mut usize,
) -> vipool_status {
    call(|| {
        // SAFETY: the caller vouches for the handle.
        let handle = unsafe { handle.as_ref() }.ok_or(VIPOOL_ERR_NULL)?.get()?;
        // SAFETY: the caller vouches for buffer and length.
        unsafe { copy_out(&handle.to_string(), buffer, capacity, out_length) }
    })
}

/// Reads what vipool_handle_format() wrote. Takes no lock and allocates nothing; leaves the last
/// error text alone.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_HANDLE.
/// May be called from any thread and in a signal handler.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_handle_parse(
    text: *const c_char,
    length: usize,
    out: *mut vipool_handle,
) -> vipool_status {
    quiet(|| {
        if out.is_null() {
            return VIPOOL_ERR_NULL;
        }
        // SAFETY: the caller vouches for the text.
        match unsafe { bytes(text.cast(), length) }.map(Handle::parse) {
            Ok(Some(handle)) => {
                // SAFETY: not NULL.
                unsafe { out.write(handle.into()) };
                VIPOOL_OK
            }
            Ok(None) => VIPOOL_ERR_HANDLE,
            Err(status) => status,
        }
    })
}
