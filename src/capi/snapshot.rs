//! Pools, sessions and slots, read in pages by monitors.

use std::ffi::c_char;
use std::ptr;

use super::address::vipool_ip;
use super::error::{catch_panic, silent};
use super::handle::{Opaque, Shared, borrow_shared, check_not_null, free_handle, write_handle};
use super::layout::layout;
use super::leader::vipool_leader;
use super::map::vipool_map;
use super::page::{Page, write_page};
use super::reader::vipool_reader;
use super::session::{
    VIPOOL_MAX_LEASES, vipool_handle, vipool_lease, vipool_session, write_leases,
};
use super::status::vipool_status;
use crate::map::{PoolStatus, SessionRow, SlotRow, SlotState};

/// The pools and the open sessions at the time when the snapshot was made. Threads may share a
/// snapshot.
pub struct vipool_snapshot {
    sessions: Vec<SessionRow>,
    pools: Vec<PoolStatus>,
}

impl Opaque for vipool_snapshot {
    type Access = Shared;
}

/// An open session.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct vipool_session_row {
    /// sizeof(vipool_session_row), set by the caller in the first row of a page.
    pub size: usize,
    /// The session.
    pub session: vipool_session,
    /// Handle of the session.
    pub handle: vipool_handle,
    /// Leases of the session, in the order of the pools.
    pub leases: [vipool_lease; VIPOOL_MAX_LEASES],
    /// Number of leases.
    pub lease_count: u32,
    /// Time at which the session got its first lease, as a tick (see vipool_now()).
    pub since: u32,
    /// Name of the user, UTF-8 without a NUL, valid until the snapshot is freed. NULL if unknown.
    pub user: *const c_char,
    /// Length of `user` in bytes.
    pub user_length: usize,
    /// Address of the client; no address if unknown.
    pub client: vipool_ip,
    /// Reserved: zero.
    pub reserved: u32,
    /// Leader of the session; pid 0 if unknown or none.
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

/// The counters of a pool.
///
/// Each slot is counted in exactly one of `free`, `leased`, `cooling`, `lingering`, `reserved` and
/// `drained`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct vipool_pool_row {
    /// sizeof(vipool_pool_row), set by the caller in the first row of a page.
    pub size: usize,
    /// Name of the pool, UTF-8 without a NUL, valid until the snapshot is freed. Empty for a
    /// removed pool. Such a pool has a row only because pools with higher numbers exist.
    pub name: *const c_char,
    /// Length of `name` in bytes.
    pub name_length: usize,
    /// vipool_pool_kind.
    pub kind: u32,
    /// Number of slots. A slot of a loopback pool has two addresses, a slot of another pool has
    /// one.
    pub slots: u32,
    /// Slots that can be allocated.
    pub free: u32,
    /// Slots that sessions hold.
    pub leased: u32,
    /// Released slots that cool down, or that vipool_map_reap() has not examined since they cooled
    /// down.
    pub cooling: u32,
    /// Slots that have cooled down, but had sockets at their most recent check.
    pub lingering: u32,
    /// Slots that are reserved for a user, and neither leased nor drained.
    pub reserved: u32,
    /// Slots that are not leased, and are drained or no longer configured.
    pub drained: u32,
    /// The maximum of `leased` so far.
    pub peak: u32,
    /// Family of the addresses: 4 or 6.
    pub family: u32,
}
layout!(vipool_pool_row {
    size,
    name,
    name_length,
    kind,
    slots,
    free,
    leased,
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
        // SAFETY: the array is a local variable.
        let lease_count = unsafe { write_leases(&raw mut leases, &row.leases) };
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
            leased: pool.leased,
            cooling: pool.cooling,
            lingering: pool.lingering,
            reserved: pool.reserved,
            drained: pool.drained,
            peak: pool.peak,
            family: if pool.ipv4 { 4 } else { 6 },
        }
    }
}

/// Takes a snapshot of a map, with users, clients and leaders if this process may read them.
///
/// In this process, calls that open or close sessions wait while the sessions are read. If no other
/// process changes the map, all sessions are of the same moment. The pools are read immediately
/// afterwards.
///
/// Parameters:
/// - `map`: the map.
/// - `out`: receives the snapshot. Free it with vipool_snapshot_free().
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_IO, VIPOOL_ERR_MISSING, VIPOOL_ERR_DAMAGED,
/// VIPOOL_ERR_OTHER_BOOT, VIPOOL_ERR_UNTRUSTED, VIPOOL_ERR_FORKED.
///
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_snapshot_new(
    map: *const vipool_map,
    out: *mut *mut vipool_snapshot,
) -> vipool_status {
    catch_panic(|| {
        // SAFETY: the caller guarantees the handle.
        let map = unsafe { borrow_shared(map) }?.map()?;
        check_not_null(out)?;
        let snapshot = vipool_snapshot { sessions: map.sessions()?, pools: map.reader()?.pools() };
        // SAFETY: not NULL.
        unsafe { write_handle(snapshot, out) };
        Ok(())
    })
}

/// Takes a snapshot through a reader, without users, clients and leaders. Takes no lock.
///
/// If sessions are opened or closed during the call, the rows may be of different moments.
///
/// Parameters:
/// - `reader`: the reader.
/// - `out`: receives the snapshot. Free it with vipool_snapshot_free().
///
/// Errors: VIPOOL_ERR_NULL.
///
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_snapshot_new_from_reader(
    reader: *const vipool_reader,
    out: *mut *mut vipool_snapshot,
) -> vipool_status {
    catch_panic(|| {
        // SAFETY: the caller guarantees the handle.
        let reader = &unsafe { borrow_shared(reader) }?.reader;
        check_not_null(out)?;
        let snapshot = vipool_snapshot { sessions: reader.sessions(), pools: reader.pools() };
        // SAFETY: not NULL.
        unsafe { write_handle(snapshot, out) };
        Ok(())
    })
}

/// Frees a snapshot and the texts of its rows.
///
/// Parameters:
/// - `snapshot`: the snapshot. NULL is ignored.
///
/// Threads: any; the last call with the snapshot.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_snapshot_free(snapshot: *mut vipool_snapshot) {
    // SAFETY: the caller gives up the handle.
    silent(|| unsafe { free_handle(snapshot) });
}

/// Lists the sessions of a snapshot, sorted by the pool and slot of their first leases.
///
/// Parameters:
/// - `snapshot`: the snapshot.
/// - `first`: index of the first row, from 0.
/// - `rows`, `capacity`: receives the rows. Set the size of the first row.
/// - `out_count`: receives the number of rows that were written.
/// - `out_total`: receives the total number of sessions. May be NULL.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE.
///
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_snapshot_list_sessions(
    snapshot: *const vipool_snapshot,
    first: usize,
    rows: *mut vipool_session_row,
    capacity: usize,
    out_count: *mut usize,
    out_total: *mut usize,
) -> vipool_status {
    let page = Page { first, rows, capacity, out_count, out_total };
    // SAFETY: the caller guarantees handle, array and counts.
    catch_panic(|| unsafe { write_page(&borrow_shared(snapshot)?.sessions, page).map(drop) })
}

/// Lists the pools of a snapshot in the order of their numbers.
///
/// Parameters:
/// - `snapshot`: the snapshot.
/// - `first`: number of the first pool, from 0.
/// - `rows`, `capacity`: receives the rows. Set the size of the first row.
/// - `out_count`: receives the number of rows that were written.
/// - `out_total`: receives the total number of pools. May be NULL.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE.
///
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_snapshot_list_pools(
    snapshot: *const vipool_snapshot,
    first: usize,
    rows: *mut vipool_pool_row,
    capacity: usize,
    out_count: *mut usize,
    out_total: *mut usize,
) -> vipool_status {
    let page = Page { first, rows, capacity, out_count, out_total };
    // SAFETY: the caller guarantees handle, array and counts.
    catch_panic(|| unsafe { write_page(&borrow_shared(snapshot)?.pools, page).map(drop) })
}

/// State of a slot.
#[repr(u32)]
#[derive(Clone, Copy, Debug)]
pub enum vipool_slot_state {
    /// The address can be allocated, unless it is drained or reserved for another user.
    VIPOOL_SLOT_FREE = 0,
    /// A session holds the address.
    VIPOOL_SLOT_LEASED = 1,
    /// The address was released. It cools down, or vipool_map_reap() has not examined it since it
    /// cooled down.
    VIPOOL_SLOT_COOLING = 2,
    /// The cool-down has ended, but the most recent check found sockets on the address.
    VIPOOL_SLOT_LINGERING = 3,
}

/// vipool_slot_row.flags: the address is reserved for a user.
pub const VIPOOL_SLOT_RESERVED: u32 = 1;
/// vipool_slot_row.flags: the address is drained or no longer configured.
pub const VIPOOL_SLOT_DRAINED: u32 = 2;

/// A slot: one address of a pool with its state.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct vipool_slot_row {
    /// sizeof(vipool_slot_row), set by the caller in the first row of a page.
    pub size: usize,
    /// The address; in a loopback pool, the address that replaces 127.0.0.1.
    pub address: vipool_ip,
    /// vipool_slot_state.
    pub state: u32,
    /// VIPOOL_SLOT_RESERVED, VIPOOL_SLOT_DRAINED.
    pub flags: u32,
    /// Reserved: zero.
    pub reserved: u32,
}
layout!(vipool_slot_row { size, address, state, flags, reserved });

impl From<&SlotRow> for vipool_slot_row {
    fn from(row: &SlotRow) -> Self {
        let state = match row.state {
            SlotState::Free => vipool_slot_state::VIPOOL_SLOT_FREE,
            SlotState::Leased => vipool_slot_state::VIPOOL_SLOT_LEASED,
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

/// Lists the slots of a pool in their current state. Each call reads the slots again.
///
/// Parameters:
/// - `reader`: the reader.
/// - `pool`: number of the pool, from 0. An unknown pool has no slots.
/// - `first`: number of the first slot, from 0.
/// - `rows`, `capacity`: receives the rows. Set the size of the first row.
/// - `out_count`: receives the number of rows that were written.
/// - `out_total`: receives the total number of slots. May be NULL.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE.
///
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_reader_list_slots(
    reader: *const vipool_reader,
    pool: u32,
    first: usize,
    rows: *mut vipool_slot_row,
    capacity: usize,
    out_count: *mut usize,
    out_total: *mut usize,
) -> vipool_status {
    catch_panic(|| {
        // SAFETY: the caller guarantees the handle.
        let reader = &unsafe { borrow_shared(reader) }?.reader;
        let slots = u16::try_from(pool).map(|pool| reader.slots(pool)).unwrap_or_default();
        let page = Page { first, rows, capacity, out_count, out_total };
        // SAFETY: the caller guarantees array and counts.
        unsafe { write_page(&slots, page).map(drop) }
    })
}
