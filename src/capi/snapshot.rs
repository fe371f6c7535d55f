//! Pools and sessions as they were at a time, read in pages, for monitors.

use std::ffi::c_char;
use std::ptr;

use super::address::vipool_ip;
use super::handle::{Owned, Shared, free, not_null, shared};
use super::layout::{Versioned, check_out, layout, write};
use super::leader::vipool_leader;
use super::outcome::{Failure, call, quiet};
use super::reader::vipool_reader;
use super::session::{VIPOOL_MAX_LEASES, set_leases, vipool_handle, vipool_lease, vipool_session};
use super::status::vipool_status;
use crate::map::{PoolStatus, SessionRow, SlotRow, SlotState};

/// Pools and sessions as they were when it was made: what is read from it later does not change. Any number of
/// threads may use it at once; vipool_snapshot_free() must be the last call.
pub struct vipool_snapshot {
    pub(crate) sessions: Vec<SessionRow>,
    pub(crate) pools: Vec<PoolStatus>,
}

impl Owned for vipool_snapshot {
    type Access = Shared;
}

/// One open session.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct vipool_session_row {
    /// sizeof(vipool_session_row), set by the caller in the first row of a page.
    pub size: usize,
    /// The session.
    pub session: vipool_session,
    /// What its programs were told.
    pub handle: vipool_handle,
    /// Its leases, in the order of the pools.
    pub leases: [vipool_lease; VIPOOL_MAX_LEASES],
    /// How many of them there are.
    pub lease_count: u32,
    /// The tick when the first of them was given.
    pub since: u32,
    /// The user's name, UTF-8 without a NUL, valid until the snapshot is freed; NULL if unknown.
    pub user: *const c_char,
    /// Its length in bytes.
    pub user_length: usize,
    /// The address of the client; none if unknown.
    pub client: vipool_ip,
    /// Zero.
    pub reserved: u32,
    /// The process that stands for it; pid 0 if unknown or none.
    pub leader: vipool_leader,
}
layout!(vipool_session_row {
    size,
    session,
    handle,
    leases,
    lease_count,
    since,
    user,
    user_length,
    client,
    reserved,
    leader,
});

/// The numbers of one pool.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct vipool_pool_row {
    /// sizeof(vipool_pool_row), set by the caller in the first row of a page.
    pub size: usize,
    /// The pool's name, UTF-8 without a NUL, valid until the snapshot is freed; empty for the number
    /// of a pool that is gone while others behind it are not.
    pub name: *const c_char,
    /// Its length in bytes.
    pub name_length: usize,
    /// vipool_pool_kind.
    pub kind: u32,
    /// Addresses in all.
    pub slots: u32,
    /// Free to be given out.
    pub free: u32,
    /// Held by sessions.
    pub used: u32,
    /// Released and cooling down.
    pub cooling: u32,
    /// Cooled, with sockets still on them.
    pub lingering: u32,
    /// Reserved for a user and not in use.
    pub reserved: u32,
    /// Taken out of use, and not in use.
    pub drained: u32,
    /// The most that were used at once.
    pub peak: u32,
    /// 4 or 6: the family of its addresses.
    pub family: u32,
}
layout!(vipool_pool_row {
    size,
    name,
    name_length,
    kind,
    slots,
    free,
    used,
    cooling,
    lingering,
    reserved,
    drained,
    peak,
    family,
});

impl From<&SessionRow> for vipool_session_row {
    fn from(row: &SessionRow) -> Self {
        let mut leases = [vipool_lease::default(); VIPOOL_MAX_LEASES];
        let lease_count = set_leases(&mut leases, &row.leases);
        Self {
            size: size_of::<Self>(),
            session: row.session.raw(),
            handle: row.handle.into(),
            leases,
            lease_count,
            since: row.since.as_secs(),
            user: row.user.as_ref().map_or(ptr::null(), |user| user.as_ptr().cast()),
            user_length: row.user.as_ref().map_or(0, String::len),
            client: row.client.into(),
            reserved: 0,
            leader: row.leader.as_ref().map_or(vipool_leader::default(), Into::into),
        }
    }
}

impl From<&PoolStatus> for vipool_pool_row {
    fn from(pool: &PoolStatus) -> Self {
        Self {
            size: size_of::<Self>(),
            name: pool.name.as_ptr().cast(),
            name_length: pool.name.len(),
            kind: if pool.loopback { 2 } else { 1 },
            slots: pool.slots,
            free: pool.free,
            used: pool.used,
            cooling: pool.cooling,
            lingering: pool.lingering,
            reserved: pool.reserved,
            drained: pool.drained,
            peak: pool.peak,
            family: if pool.ipv4 { 4 } else { 6 },
        }
    }
}

/// Copies a page of items into rows of the caller's, which lie as far apart as the size in the
/// first of them says. Answers how many were written.
///
/// # Safety
/// `rows` is NULL or valid for writes of `capacity` rows of that size; `out_count` is NULL or
/// valid for a write.
pub(crate) unsafe fn page<'a, T: 'a, R: Versioned + From<&'a T>>(
    items: &'a [T],
    first: usize,
    rows: *mut R,
    capacity: usize,
    out_count: *mut usize,
) -> Result<usize, Failure> {
    not_null(out_count)?;
    let items = items.get(first..).unwrap_or_default();
    let count = items.len().min(capacity);
    if capacity > 0 {
        // SAFETY: the caller vouches for the first row.
        unsafe { check_out(rows) }?;
        // SAFETY: the size of the first row was checked; the caller vouches for as many bytes
        // times `capacity`.
        unsafe {
            let size = rows.cast::<usize>().read();
            for (place, item) in items[..count].iter().enumerate() {
                let row = rows.byte_add(place * size);
                row.cast::<usize>().write(size);
                write(row, &R::from(item));
            }
        }
    }
    // SAFETY: not NULL.
    unsafe { out_count.write(count) };
    Ok(count)
}

/// How many sessions are in the snapshot; 0 for NULL. May be called from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_snapshot_session_count(snapshot: *const vipool_snapshot) -> usize {
    // SAFETY: the caller vouches for the handle.
    quiet(|| unsafe { shared(snapshot) }.map_or(0, |snapshot| snapshot.sessions.len()))
}

/// How many pools are in the snapshot; 0 for NULL. May be called from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_snapshot_pool_count(snapshot: *const vipool_snapshot) -> usize {
    // SAFETY: the caller vouches for the handle.
    quiet(|| unsafe { shared(snapshot) }.map_or(0, |snapshot| snapshot.pools.len()))
}

/// A page of the sessions, from number `first` on (from 0), in the order of pools and slots.
///
/// `rows`: an array of `capacity` rows; set the size of the first one. `out_count` is told how
/// many were written, 0 behind the last.
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE. May be called from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_snapshot_sessions(
    snapshot: *const vipool_snapshot,
    first: usize,
    rows: *mut vipool_session_row,
    capacity: usize,
    out_count: *mut usize,
) -> vipool_status {
    // SAFETY: the caller vouches for handle, array and count.
    call(|| unsafe {
        page(&shared(snapshot)?.sessions, first, rows, capacity, out_count).map(drop)
    })
}

/// A page of the pools, from number `first` on (from 0), in their order.
///
/// `rows`: an array of `capacity` rows; set the size of the first one. `out_count` is told how
/// many were written, 0 behind the last.
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE. May be called from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_snapshot_pools(
    snapshot: *const vipool_snapshot,
    first: usize,
    rows: *mut vipool_pool_row,
    capacity: usize,
    out_count: *mut usize,
) -> vipool_status {
    // SAFETY: the caller vouches for handle, array and count.
    call(|| unsafe { page(&shared(snapshot)?.pools, first, rows, capacity, out_count).map(drop) })
}

/// What an address is doing.
#[repr(u32)]
#[derive(Clone, Copy, Debug)]
pub enum vipool_slot_state {
    /// Nothing.
    VIPOOL_SLOT_FREE = 0,
    /// A session holds it.
    VIPOOL_SLOT_USED = 1,
    /// Released and cooling down.
    VIPOOL_SLOT_COOLING = 2,
    /// Cooled, with sockets still on it.
    VIPOOL_SLOT_LINGERING = 3,
}

/// Of vipool_slot_row.flags: the address is kept for a user.
pub const VIPOOL_SLOT_RESERVED: u32 = 1;
/// Of vipool_slot_row.flags: the address was taken out of use.
pub const VIPOOL_SLOT_DRAINED: u32 = 2;

/// One address of a pool.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct vipool_slot_row {
    /// sizeof(vipool_slot_row), set by the caller in the first row of a page.
    pub size: usize,
    /// The address.
    pub address: vipool_ip,
    /// vipool_slot_state.
    pub state: u32,
    /// VIPOOL_SLOT_RESERVED, VIPOOL_SLOT_DRAINED.
    pub flags: u32,
    /// Zero.
    pub reserved: u32,
}
layout!(vipool_slot_row { size, address, state, flags, reserved });

impl From<&SlotRow> for vipool_slot_row {
    fn from(row: &SlotRow) -> Self {
        let state = match row.state {
            SlotState::Free => vipool_slot_state::VIPOOL_SLOT_FREE,
            SlotState::Leased => vipool_slot_state::VIPOOL_SLOT_USED,
            SlotState::Cooling => vipool_slot_state::VIPOOL_SLOT_COOLING,
            SlotState::Lingering => vipool_slot_state::VIPOOL_SLOT_LINGERING,
        };
        let mut flags = 0;
        if row.reserved {
            flags |= VIPOOL_SLOT_RESERVED;
        }
        if row.drained {
            flags |= VIPOOL_SLOT_DRAINED;
        }
        let size = size_of::<Self>();
        Self { size, address: row.address.into(), state: state as u32, flags, reserved: 0 }
    }
}

/// A page of the addresses of a pool (by its number, from 0), from slot `first` on, as they are
/// now: each page is of its own moment, so ask for all at once where that matters.
///
/// `rows`: an array of `capacity` rows; set the size of the first one. `out_count` is told how
/// many were written, 0 behind the last and for a pool that there is not.
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE. May be called from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_reader_slots(
    reader: *const vipool_reader,
    pool: u32,
    first: usize,
    rows: *mut vipool_slot_row,
    capacity: usize,
    out_count: *mut usize,
) -> vipool_status {
    call(|| {
        // SAFETY: the caller vouches for the handle.
        let reader = unsafe { shared(reader) }?;
        let slots = u16::try_from(pool).map(|pool| reader.reader.slots(pool)).unwrap_or_default();
        // SAFETY: the caller vouches for array and count.
        unsafe { page(&slots, first, rows, capacity, out_count).map(drop) }
    })
}

/// Frees a snapshot; the texts in its rows are gone with it. NULL is nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_snapshot_free(snapshot: *mut vipool_snapshot) {
    // SAFETY: the caller gives the handle back.
    quiet(|| unsafe { free(snapshot) });
}
