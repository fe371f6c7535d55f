//! The last events of a map, whoever caused them, for monitors in other processes.

use std::ffi::c_char;
use std::path::Path;

use super::address::vipool_ip;
use super::handle::{Owned, Shared, free, give, not_null, shared};
use super::layout::layout;
use super::outcome::{call, quiet};
use super::session::vipool_session;
use super::snapshot::page;
use super::status::vipool_status;
use super::text::{utf8, with_utf16};
use crate::map::{Event, Journal};

/// The last events of a map (1024 at most), of all its writers. Any number of threads may
/// use it at once; vipool_journal_free() must be the last call.
pub struct vipool_journal {
    journal: Journal,
}

impl Owned for vipool_journal {
    type Access = Shared;
}

/// Room for the name of a user with its NUL.
pub const VIPOOL_USER_ROOM: usize = 64;

/// One event of a journal.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct vipool_journal_row {
    /// sizeof(vipool_journal_row), set by the caller in the first row of a page.
    pub size: usize,
    /// Its number within this boot, from 1.
    pub number: u64,
    /// The session.
    pub session: vipool_session,
    /// The tick when it happened.
    pub at: u32,
    /// vipool_event_kind.
    pub kind: u32,
    /// With VIPOOL_EVENT_ASSIGNED the generation of the lease; otherwise 0.
    pub generation: u32,
    /// Length of `user` in bytes; 0 if the user is not known, and of releases.
    pub user_length: u32,
    /// With VIPOOL_EVENT_ASSIGNED and VIPOOL_EVENT_LOW_WATER the address; otherwise none.
    pub address: vipool_ip,
    /// The address of the user's client; none if it is not known, and of releases.
    pub client: vipool_ip,
    /// The user's name, UTF-8 with a NUL.
    pub user: [c_char; VIPOOL_USER_ROOM],
}
layout!(vipool_journal_row {
    size,
    number,
    session,
    at,
    kind,
    generation,
    user_length,
    address,
    client,
    user,
});

impl From<&Event> for vipool_journal_row {
    fn from(event: &Event) -> Self {
        let mut user = [0; VIPOOL_USER_ROOM];
        let name = event.user.as_deref().unwrap_or_default().as_bytes();
        let length = name.len().min(VIPOOL_USER_ROOM - 1);
        for (place, byte) in user.iter_mut().zip(&name[..length]) {
            *place = *byte as c_char;
        }
        Self {
            size: size_of::<Self>(),
            number: event.number,
            session: event.session.raw(),
            at: event.at.as_secs(),
            kind: event.kind as u32,
            generation: event.generation,
            user_length: length as u32,
            address: event.address.into(),
            client: event.client.into(),
            user,
        }
    }
}

/// Opens the journal of the map in a directory, which only root and the group of vipool may.
///
/// Give it back with vipool_journal_free().
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_UTF8, VIPOOL_ERR_MISSING, VIPOOL_ERR_DAMAGED,
/// VIPOOL_ERR_UNTRUSTED, VIPOOL_ERR_IO. May be called from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_journal_open(
    directory: *const c_char,
    directory_length: usize,
    out: *mut *mut vipool_journal,
) -> vipool_status {
    call(|| {
        not_null(out)?;
        // SAFETY: the caller vouches for the text; the place is not NULL.
        unsafe {
            let journal = Journal::open(Path::new(utf8(directory, directory_length)?))?;
            give(vipool_journal { journal }, out);
        }
        Ok(())
    })
}

/// vipool_journal_open() with a UTF-16 path of `directory_length` units.
///
/// Errors: those, and VIPOOL_ERR_UTF16.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_journal_open_utf16(
    directory: *const u16,
    directory_length: usize,
    out: *mut *mut vipool_journal,
) -> vipool_status {
    // SAFETY: the caller vouches for all of them.
    unsafe {
        with_utf16(directory, directory_length, |text, length| {
            vipool_journal_open(text, length, out)
        })
    }
}

/// The boot and network namespace that the journal belongs to, hashed: vipool_handle.boot of the
/// leases in it. Event numbers begin anew with another one.
///
/// Errors: VIPOOL_ERR_NULL. May be called from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_journal_boot(
    journal: *const vipool_journal,
    out_boot: *mut u64,
) -> vipool_status {
    call(|| {
        not_null(out_boot)?;
        // SAFETY: the caller vouches for the handle; the place is not NULL.
        unsafe { out_boot.write(shared(journal)?.journal.boot()) };
        Ok(())
    })
}

/// A page of the events from number `first` on (1 for all that there are), in order.
///
/// `rows`: an array of `capacity` rows; set the size of the first one. `out_count` is told how many
/// were written, 0 if nothing has happened since. `out_lost` (may be NULL) is told how many before or
/// between them were overwritten before they could be read. `out_next` (may be NULL) is told the number
/// to ask for next time.
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE. May be called from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_journal_since(
    journal: *const vipool_journal,
    first: u64,
    rows: *mut vipool_journal_row,
    capacity: usize,
    out_count: *mut usize,
    out_lost: *mut u64,
    out_next: *mut u64,
) -> vipool_status {
    call(|| {
        // SAFETY: the caller vouches for the handle.
        let recent = unsafe { shared(journal) }?.journal.since(first);
        // SAFETY: the caller vouches for array and count.
        let count = unsafe { page(&recent.events, 0, rows, capacity, out_count) }?;
        let (mut lost, mut next) = (recent.lost, recent.next);
        if let Some(following) = recent.events.get(count) {
            next = following.number;
            lost = next.saturating_sub(first.max(1)) - count as u64;
        }
        // SAFETY: the caller vouches for the places that are not NULL.
        unsafe {
            if !out_lost.is_null() {
                out_lost.write(lost);
            }
            if !out_next.is_null() {
                out_next.write(next);
            }
        }
        Ok(())
    })
}

/// Closes a journal and frees it. NULL is nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_journal_free(journal: *mut vipool_journal) {
    // SAFETY: the caller gives the handle back.
    quiet(|| unsafe { free(journal) });
}
