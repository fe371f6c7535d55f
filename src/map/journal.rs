//! The journal: the last events of a map, for whoever keeps a history of them.
//!
//! A ring of [`CAPACITY`] entries in a private file of its own, `journal`, which a new layout of
//! the map leaves where it is. Writers append while they hold the lock, after the lease was
//! committed or given back: a writer that is killed in between leaves a lease without an entry,
//! never the reverse, and the map itself says so. Readers take no lock; an entry that is
//! overwritten while it is read is counted as lost. Native byte order, 64-bit words:
//!
//! | word | what |
//! |---|---|
//! | 0, 1 | magic and version, boot |
//! | 2 | number of the next entry, from 1 |
//! | 16 + 16 i | entry `i`, modulo the capacity |
//!
//! | word of an entry | what |
//! |---|---|
//! | 0 | its number; 0 while it is being written. Stored last |
//! | 1 | tick (upper half), kind, families of address and client, length of the name |
//! | 2, 3 | session, generation |
//! | 4, 5, 6, 7 | address, client |
//! | 8-15 | the user's name, cut at 63 bytes |

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use super::engine::files;
use super::format::record::cut;
use super::format::region::{Region, load, load_bytes, store, store_bytes};
use super::types::outcome::MapError;
use super::types::plan::{OpenOptions, pair, unpair};
use crate::Tick;
use crate::session::SessionId;
use crate::sync::AtomicU64;

/// How many events a journal holds. Older ones are overwritten.
pub const CAPACITY: u64 = 1024;

const MAGIC: u64 = u64::from_le_bytes(*b"vipoolJ\x01");
const BOOT: usize = 1;
const NEXT: usize = 2;
const HEADER_WORDS: usize = 16;
const ENTRY_WORDS: usize = 16;
const ADDRESS: usize = 4;
const CLIENT: usize = 6;
const NAME: usize = 8;
type Entry = [AtomicU64; ENTRY_WORDS];
/// Words of the file.
pub(crate) const WORDS: usize = HEADER_WORDS + CAPACITY as usize * ENTRY_WORDS;

/// What happened. The numbers are part of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum EventKind {
    /// The session was given the address.
    Assigned = 1,
    /// The session was closed; all its addresses were given back.
    Released = 2,
    /// The session found no address left in some pool.
    Exhausted = 3,
    /// With the address, its pool fell below the low-water mark.
    LowWater = 4,
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its number within this boot, from 1.
    pub number: u64,
    /// When.
    pub at: Tick,
    /// What.
    pub kind: EventKind,
    /// The session.
    pub session: SessionId,
    /// The address; of assignments and low water.
    pub address: Option<IpAddr>,
    /// Generation of the lease; of assignments.
    pub generation: u32,
    /// The user, if known; not of releases.
    pub user: Option<String>,
    /// The user's client, if known; not of releases.
    pub client: Option<IpAddr>,
}

/// What [`Journal::since`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recent {
    /// The events, in order.
    pub events: Vec<Event>,
    /// How many between them were overwritten before they were read.
    pub lost: u64,
    /// The number to ask for next time.
    pub next: u64,
}

/// A journal, opened for reading. Threads may share it.
#[derive(Debug)]
pub struct Journal {
    region: Region,
}

impl Journal {
    /// Opens the journal of the map in this directory, which only root and the group may.
    pub fn open(directory: &Path) -> Result<Self, MapError> {
        let region = files::open_region(directory, super::JOURNAL_FILE, false)?;
        if load(region.words(), 0) != MAGIC || region.words().len() < WORDS {
            let path = directory.join(super::JOURNAL_FILE);
            return Err(MapError::Damaged { path, reason: "it is not a journal" });
        }
        Ok(Self { region })
    }

    /// The boot and network namespace it is of: that of the handles of its map.
    pub fn boot(&self) -> u64 {
        load(self.region.words(), BOOT)
    }

    /// Number of the next event.
    pub fn next(&self) -> u64 {
        load(self.region.words(), NEXT)
    }

    /// The events from this number on (1 for all that there are).
    pub fn since(&self, first: u64) -> Recent {
        let words = self.region.words();
        let next = self.next();
        let oldest = next.saturating_sub(CAPACITY).max(1);
        let from = first.clamp(1, next.max(1)).max(oldest);
        let events: Vec<_> = (from..next).filter_map(|number| read(words, number)).collect();
        let asked = next.saturating_sub(first.max(1));
        Recent { lost: asked - (events.len() as u64).min(asked), events, next }
    }
}

/// Whether these are the words of a journal of this boot.
pub(crate) fn is_of(words: &[AtomicU64], boot: u64) -> bool {
    words.len() >= WORDS && load(words, 0) == MAGIC && load(words, BOOT) == boot
}

/// Makes an empty journal of zeroed words.
pub(crate) fn begin(words: &[AtomicU64], boot: u64) {
    store(words, BOOT, boot);
    store(words, NEXT, 1);
    store(words, 0, MAGIC);
}

/// What is noted of an event beside what was told of the session.
#[derive(Clone, Copy)]
pub(crate) struct Note {
    pub(crate) kind: EventKind,
    pub(crate) session: SessionId,
    pub(crate) now: Tick,
    /// Generation and address, its bits and whether they are of IPv4; of assignments and low water.
    pub(crate) lease: Option<(u32, [u64; 2], bool)>,
}

/// Appends an event. The caller is the only writer.
#[inline(never)]
pub(crate) fn append(words: &[AtomicU64], note: Note, options: &OpenOptions<'_>) {
    let user = cut(options.user.unwrap_or_default());
    let told = family(options.client) << 12 | user.len() as u32;
    let Some(entry) = begin_entry(words, note, told) else { return };
    let bits = options.client.map_or(0, crate::range::bits);
    store(entry, CLIENT, (bits >> 64) as u64);
    store(entry, CLIENT + 1, bits as u64);
    store_bytes(entry, NAME, user.as_bytes());
    end_entry(words, entry);
}

/// Appends an event of a session of which nothing was told.
#[inline(never)]
pub(crate) fn append_nobodys(words: &[AtomicU64], note: Note) {
    if let Some(entry) = begin_entry(words, note, 0) {
        end_entry(words, entry);
    }
}

/// Writes what every entry has; `told` are the traits of what was told of the session.
#[inline(always)]
fn begin_entry(words: &[AtomicU64], note: Note, told: u32) -> Option<&Entry> {
    let Note { kind, session, now, lease } = note;
    let entry = words.get(place(load(words, NEXT))..)?.first_chunk::<ENTRY_WORDS>()?;
    let (generation, [upper, lower], family) = match lease {
        Some((generation, bits, true)) => (generation, bits, 4),
        Some((generation, bits, false)) => (generation, bits, 6),
        None => (0, [0; 2], 0),
    };
    store(entry, 0, 0);
    store(entry, 1, pair(now.as_secs(), (kind as u32) << 24 | family << 16 | told));
    store(entry, 2, session.raw());
    store(entry, 3, generation.into());
    store(entry, ADDRESS, upper);
    store(entry, ADDRESS + 1, lower);
    Some(entry)
}

#[inline(always)]
fn end_entry(words: &[AtomicU64], entry: &Entry) {
    let number = load(words, NEXT).max(1);
    store(entry, 0, number);
    store(words, NEXT, number + 1);
}

/// The event of this number, unless it was overwritten.
fn read(words: &[AtomicU64], number: u64) -> Option<Event> {
    let at = place(number);
    if load(words, at) != number {
        return None;
    }
    let (tick, traits) = unpair(load(words, at + 1));
    let kind = match traits >> 24 {
        1 => EventKind::Assigned,
        2 => EventKind::Released,
        3 => EventKind::Exhausted,
        4 => EventKind::LowWater,
        _ => return None,
    };
    let address = |offset, family| {
        let bits =
            u128::from(load(words, at + offset)) << 64 | u128::from(load(words, at + offset + 1));
        match family {
            4 => Some(IpAddr::V4(Ipv4Addr::from_bits(bits as u32))),
            6 => Some(IpAddr::V6(Ipv6Addr::from_bits(bits))),
            _ => None,
        }
    };
    let mut name = [0; 64];
    load_bytes(words, at + NAME, &mut name);
    let name = &name[..(traits as usize & 0xff).min(name.len())];
    let event = Event {
        number,
        at: Tick::from_secs(tick),
        kind,
        session: SessionId::from_raw(load(words, at + 2))?,
        address: address(ADDRESS, traits >> 16 & 0xf),
        generation: load(words, at + 3) as u32,
        user: (!name.is_empty()).then(|| String::from_utf8_lossy(name).into_owned()),
        client: address(CLIENT, traits >> 12 & 0xf),
    };
    // Overwritten meanwhile?
    (load(words, at) == number).then_some(event)
}

fn place(number: u64) -> usize {
    HEADER_WORDS + (number.max(1) - 1) as usize % CAPACITY as usize * ENTRY_WORDS
}

fn family(address: Option<IpAddr>) -> u32 {
    match address {
        None => 0,
        Some(IpAddr::V4(_)) => 4,
        Some(IpAddr::V6(_)) => 6,
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::map::{Map, Plan};
    use crate::pool::{Pool, PoolKind};

    fn plan() -> Plan {
        let ranges = ["10.0.5.10-10.0.5.11".parse().unwrap()];
        let pool = Pool::new("default", PoolKind::VirtualIp, &ranges, u32::MAX).unwrap();
        Plan { pools: vec![pool], ..Plan::default() }
    }

    fn session(number: u64) -> SessionId {
        number.to_string().parse().unwrap()
    }

    #[test]
    fn what_writers_do_is_there_in_order_and_stays_over_a_new_layout() {
        let directory = tempfile::tempdir().unwrap();
        let map = Map::create(directory.path(), &plan()).unwrap();
        let client = Some("2001:db8::7".parse().unwrap());
        let options = OpenOptions { user: Some("alice"), client, ..OpenOptions::default() };
        map.open_session(session(1), &options, Tick::from_secs(10)).unwrap();
        map.open_session(session(1), &options, Tick::from_secs(11)).unwrap();
        map.open_session(session(2), &OpenOptions::default(), Tick::from_secs(12)).unwrap();
        map.open_session(session(3), &OpenOptions::default(), Tick::from_secs(13)).unwrap_err();
        Map::create(directory.path(), &plan()).unwrap();
        map.close_session(session(1), Tick::from_secs(14)).unwrap();

        let journal = Journal::open(directory.path()).unwrap();
        let recent = journal.since(1);
        let kinds: Vec<_> = recent
            .events
            .iter()
            .map(|event| (event.kind, event.session, event.at.as_secs()))
            .collect();
        let expected = [
            (EventKind::Assigned, session(1), 10),
            (EventKind::Assigned, session(2), 12),
            (EventKind::Exhausted, session(3), 13),
            (EventKind::Released, session(1), 14),
        ];
        assert_eq!(kinds, expected);
        assert_eq!((recent.lost, recent.next), (0, 5));
        let first = &recent.events[0];
        assert_eq!((first.user.as_deref(), first.client), (Some("alice"), client));
        assert_eq!(first.address, Some("10.0.5.10".parse().unwrap()));
        assert_eq!(journal.since(5), Recent { next: 5, ..Recent::default() });
        assert_eq!(journal.boot(), map.reader().unwrap().boot());
    }

    #[test]
    fn what_is_overwritten_is_counted() {
        let directory = tempfile::tempdir().unwrap();
        let map = Map::create(directory.path(), &plan()).unwrap();
        for _ in 0..CAPACITY {
            map.open_session(session(1), &OpenOptions::default(), Tick::from_secs(1)).unwrap();
            map.close_session(session(1), Tick::from_secs(1)).unwrap();
        }
        let recent = Journal::open(directory.path()).unwrap().since(1);
        assert_eq!(recent.events.len() as u64, CAPACITY);
        assert_eq!(recent.lost, CAPACITY);
        assert_eq!(recent.events[0].number, CAPACITY + 1);
    }

    #[test]
    fn a_journal_of_any_bytes_is_read_without_harm() {
        let region = Region::in_memory(WORDS);
        for at in 0..WORDS {
            store(region.words(), at, crate::session::mix64(at as u64));
        }
        let journal = Journal { region };
        for next in [0, 1, CAPACITY, u64::MAX] {
            store(journal.region.words(), NEXT, next);
            assert!(journal.since(0).events.len() as u64 <= CAPACITY);
            journal.since(u64::MAX);
        }
    }
}
