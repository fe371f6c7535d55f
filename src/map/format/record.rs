//! The private twin of a map, `sessions`: what not everybody may read of a session.
//!
//! One record of [`RECORD_WORDS`] words a slot, stamped with the generation of the lease it is
//! about; a record of another generation is ignored. The stamp is stored last.
//!
//! | word | what |
//! |---|---|
//! | 0 | generation, family of the client, length of the user's name |
//! | 1 | pid of the leader, 0 for none; tick when it was first seen dead, plus one, or 0 |
//! | 2, 3 | start time and pid namespace of the leader |
//! | 4, 5 | the client's address |
//! | 6-13 | the user's name, cut at 63 bytes |
//!
//! Of a short name all is in the first of its two cache lines. What is not there (no leader, no
//! client) is not written either: words 0 and 1 say so.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::layout::RECORD_WORDS;
use super::pool::PoolLayout;
use super::region::{load, load_bytes, store, store_bytes};
use crate::Tick;
use crate::map::types::plan::{Leader, OpenOptions, pair, unpair};
use crate::sync::AtomicU64;

/// Offset of the user's name in a record.
const NAME: usize = 6;
/// The most bytes of a user's name that are kept.
const NAME_BYTES: usize = 63;

/// What is known of a session beside its leases.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) user: Option<String>,
    pub(crate) client: Option<IpAddr>,
    pub(crate) leader: Option<Leader>,
}

fn at(pool: &PoolLayout, slot: u32) -> usize {
    pool.records_at + slot as usize * RECORD_WORDS
}

/// Writes the record of a lease that is about to be committed.
#[inline(never)]
pub(crate) fn write(
    words: &[AtomicU64],
    pool: &PoolLayout,
    slot: u32,
    generation: u32,
    options: &OpenOptions<'_>,
) {
    let Some(words) =
        words.get(at(pool, slot)..).and_then(|words| words.first_chunk::<RECORD_WORDS>())
    else {
        return;
    };
    // Who still reads what is known of an earlier lease must not get half of this one.
    store(words, 0, 0);
    store(words, 1, pair(0, options.leader.map_or(0, |leader| leader.pid)));
    if let Some(leader) = options.leader {
        store(words, 2, leader.start_time);
        store(words, 3, leader.pid_namespace);
    }
    let family = match options.client {
        None => 0,
        Some(client) => {
            let bits = crate::range::bits(client);
            store(words, 4, (bits >> 64) as u64);
            store(words, 5, bits as u64);
            if client.is_ipv4() { 4 } else { 6 }
        }
    };
    let user = cut(options.user.unwrap_or_default());
    store_bytes(words, NAME, user.as_bytes());
    store(words, 0, pair(generation, family << 8 | user.len() as u32));
}

/// Takes away what was written of a lease that was never committed: its generation is that of the
/// next lease.
pub(crate) fn forget(words: &[AtomicU64], pool: &PoolLayout, slot: u32) {
    let at = at(pool, slot);
    if load(words, at) != 0 {
        store(words, at, 0);
    }
}

/// Reads the record of a lease, if there is one of its generation.
pub(crate) fn read(
    words: &[AtomicU64],
    pool: &PoolLayout,
    slot: u32,
    generation: u32,
) -> Option<Record> {
    let at = at(pool, slot);
    let stamp = load(words, at);
    let (recorded, traits) = unpair(stamp);
    if recorded != generation || traits == 0 && load(words, at + 1) == 0 {
        return None;
    }
    let bits = u128::from(load(words, at + 4)) << 64 | u128::from(load(words, at + 5));
    let client = match traits >> 8 & 0xff {
        4 => Some(IpAddr::V4(Ipv4Addr::from_bits(bits as u32))),
        6 => Some(IpAddr::V6(Ipv6Addr::from_bits(bits))),
        _ => None,
    };
    let (_, pid) = unpair(load(words, at + 1));
    let leader = (pid != 0).then(|| Leader {
        pid,
        start_time: load(words, at + 2),
        pid_namespace: load(words, at + 3),
    });
    let mut name = [0; NAME_BYTES + 1];
    load_bytes(words, at + NAME, &mut name);
    let length = (traits as usize & 0xff).min(NAME_BYTES);
    let user = (length > 0).then(|| String::from_utf8_lossy(&name[..length]).into_owned());
    // Overwritten meanwhile?
    (load(words, at) == stamp).then_some(Record { user, client, leader })
}

/// When the leader of this lease was first seen dead.
pub(crate) fn seen_dead(words: &[AtomicU64], pool: &PoolLayout, slot: u32) -> Option<Tick> {
    unpair(load(words, at(pool, slot) + 1)).0.checked_sub(1).map(Tick::from_secs)
}

/// Notes when the leader was first seen dead, or that it is alive.
pub(crate) fn note_dead(words: &[AtomicU64], pool: &PoolLayout, slot: u32, since: Option<Tick>) {
    let at = at(pool, slot) + 1;
    let (_, pid) = unpair(load(words, at));
    store(words, at, pair(since.map_or(0, |tick| tick.as_secs().saturating_add(1)), pid));
}

/// As much of a name as a record holds, whole characters.
pub(crate) fn cut(name: &str) -> &str {
    let mut end = name.len().min(NAME_BYTES);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    &name[..end]
}
