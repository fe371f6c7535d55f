//! The words of the journal: a ring buffer of the latest events of a map.
//!
//! The journal has its own file, `journal`, which stays in place when the map file is replaced. A
//! writer holds the lock, commits or releases a lease, and then appends the event. So the journal
//! never contains an event of an uncommitted change. If the writer is killed between these steps,
//! the event is missing, but the map is complete. Readers take no lock. An entry that a writer
//! overwrites during a read counts as lost.
//!
//! | word | content |
//! |---|---|
//! | 0, 1 | magic number and version, boot |
//! | 2 | number of the next event, from 1 |
//! | 16 + 16 i | the entry of the latest event n with n - 1 = i modulo the capacity |
//!
//! | word of an entry | content |
//! |---|---|
//! | 0 | number of the event, stored last; 0 while the writer fills the entry |
//! | 1 | time (upper half), kind, families of address and client, length of the user name |
//! | 2 | session |
//! | 3 | number of the pool plus one (upper half), generation |
//! | 4, 5 | address |
//! | 6, 7 | client |
//! | 8-15 | user name, cut at 63 bytes |

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::record::truncate_name;
use super::words::{join_halves, load, load_bytes, split_halves, store, store_bytes};
use crate::Tick;
use crate::map::types::event::{Event, EventKind};
use crate::map::types::plan::OpenOptions;
use crate::raw::word::{Word, WriteAccess};
use crate::session::SessionId;

/// Maximum number of events in a journal. Newer events overwrite older ones.
pub const CAPACITY: u64 = 1024;

const JOURNAL_MAGIC: u64 = u64::from_le_bytes(*b"vipoolJ\x01");

// Offsets in the header.
const MAGIC: usize = 0;
const BOOT: usize = 1;
const NEXT_NUMBER: usize = 2;

const HEADER_WORDS: usize = 16;
const ENTRY_WORDS: usize = 16;
/// The number of words of a journal file.
pub(crate) const JOURNAL_WORDS: usize = HEADER_WORDS + CAPACITY as usize * ENTRY_WORDS;

// Offsets in an entry.
const NUMBER: usize = 0;
const ATTRIBUTES: usize = 1;
const SESSION: usize = 2;
const POOL_AND_GENERATION: usize = 3;
const ADDRESS: usize = 4;
const CLIENT: usize = 6;
const USER_NAME: usize = 8;
type Entry = [Word; ENTRY_WORDS];

/// The fields of an event, except its number, user and client. The user and the client come from
/// the options of the session.
#[derive(Clone, Copy)]
pub(crate) struct EventCore {
    pub(crate) kind: EventKind,
    pub(crate) session: SessionId,
    pub(crate) time: Tick,
    pub(crate) pool: u16,
    /// The lease. Set for all kinds except `Exhausted`.
    pub(crate) lease: Option<EventLease>,
}

/// The lease of an event.
#[derive(Clone, Copy)]
pub(crate) struct EventLease {
    pub(crate) generation: u32,
    /// The address as a number of 128 bits: the upper half, then the lower half.
    pub(crate) address_bits: [u64; 2],
    pub(crate) is_ipv4: bool,
}

/// Returns whether these words are a journal.
pub(crate) fn is_journal(words: &[Word]) -> bool {
    words.len() >= JOURNAL_WORDS && load(words, MAGIC) == JOURNAL_MAGIC
}

/// Returns the boot of a journal: the hash of the boot id and the network namespace.
pub(crate) fn boot(words: &[Word]) -> u64 {
    load(words, BOOT)
}

/// Returns the number of the next event.
pub(crate) fn next_number(words: &[Word]) -> u64 {
    load(words, NEXT_NUMBER)
}

/// Writes the header of an empty journal into zeroed words.
pub(crate) fn write_header(access: WriteAccess<'_>, words: &[Word], boot: u64) {
    store(access, words, BOOT, boot);
    store(access, words, NEXT_NUMBER, 1);
    store(access, words, MAGIC, JOURNAL_MAGIC);
}

/// Appends an event.
#[inline(never)]
pub(crate) fn append(
    access: WriteAccess<'_>,
    words: &[Word],
    event: EventCore,
    options: &OpenOptions<'_>,
) {
    let user = truncate_name(options.user.unwrap_or_default());
    let option_attributes = family(options.client) << 12 | user.len() as u32;
    let Some((number, entry)) = begin_entry(access, words, event, option_attributes) else {
        return;
    };
    let bits = options.client.map_or(0, crate::range::bits);
    store(access, entry, CLIENT, (bits >> 64) as u64);
    store(access, entry, CLIENT + 1, bits as u64);
    store_bytes(access, entry, USER_NAME, user.as_bytes());
    end_entry(access, words, number, entry);
}

/// Appends an event of a session without user and client.
#[inline(never)]
pub(crate) fn append_anonymous(access: WriteAccess<'_>, words: &[Word], event: EventCore) {
    if let Some((number, entry)) = begin_entry(access, words, event, 0) {
        end_entry(access, words, number, entry);
    }
}

/// Writes the fields that every entry has. Returns the number of the event and its entry.
/// `option_attributes` contains the family of the client and the length of the user name.
#[inline(always)]
fn begin_entry<'a>(
    access: WriteAccess<'_>,
    words: &'a [Word],
    event: EventCore,
    option_attributes: u32,
) -> Option<(u64, &'a Entry)> {
    let EventCore { kind, session, time, pool, lease } = event;
    let number = load(words, NEXT_NUMBER).max(1);
    let entry = words.get(entry_offset(number)..)?.first_chunk::<ENTRY_WORDS>()?;
    let (generation, [upper, lower], family) = match lease {
        Some(EventLease { generation, address_bits, is_ipv4 }) => {
            (generation, address_bits, if is_ipv4 { 4 } else { 6 })
        }
        None => (0, [0; 2], 0),
    };
    let attributes = (kind as u32) << 24 | family << 16 | option_attributes;
    store(access, entry, NUMBER, 0);
    store(access, entry, ATTRIBUTES, join_halves(time.as_secs(), attributes));
    store(access, entry, SESSION, session.raw());
    let pool = u32::from(pool) + 1;
    store(access, entry, POOL_AND_GENERATION, join_halves(pool, generation));
    store(access, entry, ADDRESS, upper);
    store(access, entry, ADDRESS + 1, lower);
    Some((number, entry))
}

#[inline(always)]
fn end_entry(access: WriteAccess<'_>, words: &[Word], number: u64, entry: &Entry) {
    store(access, entry, NUMBER, number);
    // In a damaged journal the number can be u64::MAX, so the addition wraps.
    store(access, words, NEXT_NUMBER, number.wrapping_add(1));
}

/// Reads the event with this number; `None` if it was overwritten or is not recorded yet.
pub(crate) fn read(words: &[Word], number: u64) -> Option<Event> {
    let entry = words.get(entry_offset(number)..)?.first_chunk::<ENTRY_WORDS>()?;
    if load(entry, NUMBER) != number {
        return None;
    }
    let (seconds, attributes) = split_halves(load(entry, ATTRIBUTES));
    let kind = match attributes >> 24 {
        1 => EventKind::Assigned,
        2 => EventKind::Released,
        3 => EventKind::Exhausted,
        4 => EventKind::LowWater,
        _ => return None,
    };
    let read_address = |offset, family| {
        let (upper, lower) = (load(entry, offset), load(entry, offset + 1));
        let bits = u128::from(upper) << 64 | u128::from(lower);
        match family {
            4 => Some(IpAddr::V4(Ipv4Addr::from_bits(bits as u32))),
            6 => Some(IpAddr::V6(Ipv6Addr::from_bits(bits))),
            _ => None,
        }
    };
    let mut name = [0; 64];
    load_bytes(entry, USER_NAME, &mut name);
    let name = &name[..(attributes as usize & 0xff).min(name.len())];
    let (pool, generation) = split_halves(load(entry, POOL_AND_GENERATION));
    let event = Event {
        number,
        time: Tick::from_secs(seconds),
        kind,
        session: SessionId::from_raw(load(entry, SESSION))?,
        address: read_address(ADDRESS, attributes >> 16 & 0xf),
        pool: pool.checked_sub(1).map(|pool| pool as u16),
        generation,
        user: (!name.is_empty()).then(|| String::from_utf8_lossy(name).into_owned()),
        client: read_address(CLIENT, attributes >> 12 & 0xf),
    };
    // A changed number means that a writer overwrote the entry during this read.
    (load(entry, NUMBER) == number).then_some(event)
}

fn entry_offset(number: u64) -> usize {
    HEADER_WORDS + (number.max(1) - 1) as usize % CAPACITY as usize * ENTRY_WORDS
}

fn family(address: Option<IpAddr>) -> u32 {
    match address {
        None => 0,
        Some(IpAddr::V4(_)) => 4,
        Some(IpAddr::V6(_)) => 6,
    }
}
