//! The journal: the last events of a map, for monitors in other processes.

use std::ffi::c_char;

use super::address::vipool_ip;
use super::error::{catch_panic, silent};
use super::handle::{Opaque, Shared, borrow_shared, check_not_null, free_handle, write_handle};
use super::layout::layout;
use super::output::check_out;
use super::page::{Page, write_page};
use super::session::vipool_session;
use super::status::vipool_status;
use super::text::read_directory;
use crate::map::{Event, Journal};

/// The last events of a map (at most 1024) from all of its writers. Threads may share the journal.
pub struct vipool_journal {
    journal: Journal,
}

impl Opaque for vipool_journal {
    type Access = Shared;
}

/// Capacity of vipool_journal_row.user, with the NUL.
pub const VIPOOL_USER_MAX: usize = 64;

/// An event of a journal.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct vipool_journal_row {
    /// sizeof(vipool_journal_row), set by the caller in the first row of a page.
    pub size: usize,
    /// Number of the event in this boot, from 1.
    pub number: u64,
    /// The session.
    pub session: vipool_session,
    /// Time of the event, as a tick: see vipool_now().
    pub tick: u32,
    /// vipool_event_kind.
    pub kind: u32,
    /// Generation of the lease; 0 with VIPOOL_EVENT_EXHAUSTED.
    pub generation: u32,
    /// Length of `user` in bytes; 0 if unknown, and with VIPOOL_EVENT_RELEASED.
    pub user_length: u32,
    /// Address of the lease; no address with VIPOOL_EVENT_EXHAUSTED. With VIPOOL_EVENT_LOW_WATER,
    /// the address whose allocation brought the pool below its low-water mark.
    pub address: vipool_ip,
    /// Address of the user's client; no address if unknown, and with VIPOOL_EVENT_RELEASED.
    pub client: vipool_ip,
    /// Name of the user, UTF-8 with a NUL.
    pub user: [c_char; VIPOOL_USER_MAX],
    /// Number of the pool in the map, from 0. Also 0 if an earlier version of vipool, which did not
    /// record pools, recorded the event.
    pub pool: u32,
    /// Reserved: zero.
    pub reserved: u32,
}
layout!(vipool_journal_row {
    size,
    number,
    session,
    tick,
    kind,
    generation,
    user_length,
    address,
    client,
    user,
    pool,
    reserved,
});

impl From<&Event> for vipool_journal_row {
    fn from(event: &Event) -> Self {
        let mut user = [0; VIPOOL_USER_MAX];
        let user_name = event.user.as_deref().unwrap_or_default().as_bytes();
        let user_length = user_name.len().min(VIPOOL_USER_MAX - 1);
        for (target, byte) in user.iter_mut().zip(&user_name[..user_length]) {
            *target = *byte as c_char;
        }
        Self {
            size: size_of::<Self>(),
            number: event.number,
            session: event.session.raw(),
            tick: event.time.as_secs(),
            kind: event.kind as u32,
            generation: event.generation,
            user_length: user_length as u32,
            pool: event.pool.unwrap_or(0).into(),
            reserved: 0,
            address: event.address.into(),
            client: event.client.into(),
            user,
        }
    }
}

/// Result of vipool_journal_list_events().
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct vipool_journal_page {
    /// sizeof(vipool_journal_page), set by the caller.
    pub size: usize,
    /// Number of rows that were written. 0 if no event has the number `first` or a higher number.
    pub count: usize,
    /// Number of events from number `first` on that were overwritten before this call read them.
    pub lost: u64,
    /// Number of the first event of the next page.
    pub next: u64,
    /// Hash of the boot id and the network namespace, as in vipool_handle.boot. If the value
    /// changes, the event numbers start again at 1.
    pub boot: u64,
}
layout!(vipool_journal_page { size, count, lost, next, boot });

/// Opens the journal of the map in a directory. Only root and the group of vipool may read the
/// journal.
///
/// Parameters:
/// - `directory`, `directory_length`: the directory, UTF-8.
/// - `out`: receives the journal. Close it with vipool_journal_close().
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_UTF8, VIPOOL_ERR_DIRECTORY (empty), VIPOOL_ERR_MISSING,
/// VIPOOL_ERR_DAMAGED, VIPOOL_ERR_UNTRUSTED, VIPOOL_ERR_IO.
///
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_journal_open(
    directory: *const c_char,
    directory_length: usize,
    out: *mut *mut vipool_journal,
) -> vipool_status {
    catch_panic(|| {
        check_not_null(out)?;
        // SAFETY: the caller guarantees the text; `out` is not NULL.
        unsafe {
            let journal = Journal::open(read_directory(directory, directory_length)?)?;
            write_handle(vipool_journal { journal }, out);
        }
        Ok(())
    })
}

/// Closes a journal and frees it.
///
/// Parameters:
/// - `journal`: the journal. NULL is ignored.
///
/// Threads: any; the last call with the journal.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_journal_close(journal: *mut vipool_journal) {
    // SAFETY: the caller gives up the handle.
    silent(|| unsafe { free_handle(journal) });
}

/// Lists events, beginning with the number `first`.
///
/// Start with 1, then continue with `out->next`.
///
/// Parameters:
/// - `journal`: the journal.
/// - `first`: number of the first event, from 1.
/// - `rows`, `capacity`: receives the events. Set the size of the first row.
/// - `out`: receives the counts and the next number.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE.
///
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_journal_list_events(
    journal: *const vipool_journal,
    first: u64,
    rows: *mut vipool_journal_row,
    capacity: usize,
    out: *mut vipool_journal_page,
) -> vipool_status {
    catch_panic(|| {
        // SAFETY: the caller guarantees the handle.
        let journal = &unsafe { borrow_shared(journal) }?.journal;
        // SAFETY: the caller guarantees the struct.
        let out = unsafe { check_out(out) }?;
        let events_since_first = journal.since(first);
        let (mut count, mut total) = (0, 0);
        let page = Page { first: 0, rows, capacity, out_count: &mut count, out_total: &mut total };
        // SAFETY: the caller guarantees the array; the counts are local.
        unsafe { write_page(&events_since_first.events, page) }?;
        let (mut lost, mut next) = (events_since_first.lost, events_since_first.next);
        if let Some(next_event) = events_since_first.events.get(count) {
            next = next_event.number;
            lost = next.saturating_sub(first.max(1)) - count as u64;
        }
        let size = size_of::<vipool_journal_page>();
        out.write(&vipool_journal_page { size, count, lost, next, boot: journal.boot() });
        Ok(())
    })
}
