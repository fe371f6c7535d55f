//! The records of the `sessions` file: data about sessions that only root and the group of the file
//! can read.
//!
//! Each slot has one record of [`RECORD_WORDS`] words. A record contains the generation of its
//! lease. A reader uses the record only if the slot has the same generation. The last word, a
//! reservation, does not depend on the generation. The writer stores word 0 after the other words
//! of the record. After the release of the slot, the record stays valid and describes the last
//! user.
//!
//! | word | content |
//! |---|---|
//! | 0 | generation, mark of a valid record, number of replacements, [`USER_SET_LATER`], family of the client, length of the name |
//! | 1 | pid of the leader, or 0; time at which the leader was first found dead, plus one, or 0 |
//! | 2, 3 | start time and pid namespace of the leader |
//! | 4, 5 | address of the client |
//! | 6 | hash of the complete user name ([`UserHash`]), or 0 |
//! | 7-14 | user name, cut at 63 bytes |
//! | 15 | hash of the user for whom the slot is reserved; valid while the slot has the flag `RESERVED` |
//!
//! A record occupies two cache lines. The hash of the user is in the first line, so a comparison of
//! users does not load the second line. If word 1 contains no pid, words 2 and 3 keep the content
//! of an earlier record. If word 0 contains no family, words 4 and 5 do.
//!
//! The writer replaces the record of an open session in two steps. It writes the new record to the
//! header of the file ([`STAGED_RECORD`]), then copies the new record over the old one. If the
//! writer dies before it finishes the copy, the next writer copies the staged record again.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::header::{HEADER_WORDS, STAGED_RECORD, STAGED_TARGET};
use super::pool::PoolLayout;
use super::user::UserHash;
use super::words::{join_halves, load, load_bytes, split_halves, store, store_bytes};
use crate::Tick;
use crate::map::types::plan::{Leader, OpenOptions};
use crate::raw::word::{Word, WriteAccess};

/// The number of words of a record.
pub(crate) const RECORD_WORDS: usize = 16;

// Offsets in a record.
const COMMIT_WORD: usize = 0;
const LEADER_PID: usize = 1;
const LEADER_START_TIME: usize = 2;
const LEADER_PID_NAMESPACE: usize = 3;
const CLIENT: usize = 4;
const USER_HASH: usize = 6;
const USER_NAME: usize = 7;
const RESERVATION: usize = 15;
/// Flag in the lower half of word 0: the record is complete.
const VALID: u32 = 1 << 31;
/// Flag in the lower half of word 0: the session had no user when it got this lease, and got its
/// user later. This user does not count as the last user of the address.
const USER_SET_LATER: u32 = 1 << 15;
/// Maximum number of bytes of a user name that a record holds.
const MAX_NAME_BYTES: usize = 63;

/// The words of one record.
pub(crate) type RecordWords = [Word; RECORD_WORDS];

/// Returns the record of a slot; `None` if the map has no sessions file.
#[inline]
pub(crate) fn locate<'a>(
    words: &'a [Word],
    pool: &PoolLayout,
    slot: u32,
) -> Option<&'a RecordWords> {
    words.get(record_offset(pool, slot)..)?.first_chunk()
}

/// Data about a session in addition to its leases. A `Record` owns no heap memory, because the
/// writer reads records while it opens a session, and a failed allocation would end the process.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    name: [u8; MAX_NAME_BYTES],
    name_length: usize,
    pub(crate) client: Option<IpAddr>,
    pub(crate) leader: Option<Leader>,
}

impl Record {
    /// The record of a lease without user, client and leader.
    pub(crate) const EMPTY: Self =
        Self { name: [0; MAX_NAME_BYTES], name_length: 0, client: None, leader: None };

    /// Returns the name of the user; `None` for an anonymous session. Damaged bytes end the name.
    pub(crate) fn user(&self) -> Option<&str> {
        let name = self.name.get(..self.name_length)?.utf8_chunks().next()?.valid();
        (!name.is_empty()).then_some(name)
    }
}

fn record_offset(pool: &PoolLayout, slot: u32) -> usize {
    pool.records_offset + slot as usize * RECORD_WORDS
}

/// Writes the record of a lease before the caller commits the lease.
#[inline(never)]
pub(crate) fn write(
    access: WriteAccess<'_>,
    record: &RecordWords,
    generation: u32,
    options: &OpenOptions<'_>,
    user: UserHash,
) {
    fill(access, record, generation, 0, options, user);
}

/// Replaces the record of a lease, unless the record already has this content. If the leader stays
/// the same, keeps the time at which the leader was first found dead.
#[cold]
#[inline(never)]
pub(crate) fn update(
    access: WriteAccess<'_>,
    words: &[Word],
    pool: &PoolLayout,
    slot: u32,
    generation: u32,
    options: &OpenOptions<'_>,
    user: UserHash,
) {
    let (Some(record), Some(staged)) =
        (locate(words, pool, slot), words.get(STAGED_RECORD..).and_then(<[Word]>::first_chunk))
    else {
        return;
    };
    let current = read(words, pool, slot, generation).unwrap_or(Record::EMPTY);
    let is_same_user = session_user(record, generation) == user;
    if is_same_user && (current.client, current.leader) == (options.client, options.leader) {
        return;
    }
    // With a new number of replacements, readers notice that the record was replaced.
    let (_, attributes) = split_halves(load(record, COMMIT_WORD));
    let replacement_bits = (((attributes >> 16) + 1) & 0x7fff) << 16;
    let user_flag = if last_user(record, generation) == user { 0 } else { USER_SET_LATER };
    fill(access, staged, generation, replacement_bits | user_flag, options, user);
    if current.leader.is_some() && current.leader == options.leader {
        store(access, staged, LEADER_PID, load(record, LEADER_PID));
    }
    store(access, words, STAGED_TARGET, record_offset(pool, slot) as u64);
    finish_update(access, words);
}

/// Copies the staged record, if there is one, over the record that it replaces. Keeps the
/// reservation.
pub(crate) fn finish_update(access: WriteAccess<'_>, words: &[Word]) {
    let offset = load(words, STAGED_TARGET) as usize;
    if offset == 0 {
        return;
    }
    if offset >= HEADER_WORDS {
        store(access, words, offset + COMMIT_WORD, 0);
        for word in (0..RESERVATION).rev() {
            store(access, words, offset.saturating_add(word), load(words, STAGED_RECORD + word));
        }
    }
    store(access, words, STAGED_TARGET, 0);
}

/// Writes the content of a record, and then its commit word. Keeps the reservation. `attributes`
/// contains the number of replacements and [`USER_SET_LATER`].
fn fill(
    access: WriteAccess<'_>,
    record: &RecordWords,
    generation: u32,
    attributes: u32,
    options: &OpenOptions<'_>,
    user: UserHash,
) {
    // Invalidate the previous record, so that no reader gets a mixture of both records.
    store(access, record, COMMIT_WORD, 0);
    let pid = options.leader.map_or(0, |leader| leader.pid);
    store(access, record, LEADER_PID, join_halves(0, pid));
    if let Some(leader) = options.leader {
        store(access, record, LEADER_START_TIME, leader.start_time);
        store(access, record, LEADER_PID_NAMESPACE, leader.pid_namespace);
    }
    let family = match options.client {
        None => 0,
        Some(client) => {
            let bits = crate::range::bits(client);
            store(access, record, CLIENT, (bits >> 64) as u64);
            store(access, record, CLIENT + 1, bits as u64);
            if client.is_ipv4() { 4 } else { 6 }
        }
    };
    store_user(access, record, user, options.user.unwrap_or_default());
    let length = truncate_name(options.user.unwrap_or_default()).len() as u32;
    let attributes = VALID | attributes | family << 8 | length;
    store(access, record, COMMIT_WORD, join_halves(generation, attributes));
}

/// Writes the last user of a slot that is not leased.
pub(crate) fn write_last_user(
    access: WriteAccess<'_>,
    record: &RecordWords,
    generation: u32,
    user: UserHash,
    name: &str,
) {
    store(access, record, COMMIT_WORD, 0);
    store(access, record, LEADER_PID, 0);
    store_user(access, record, user, name);
    let length = truncate_name(name).len() as u32;
    store(access, record, COMMIT_WORD, join_halves(generation, VALID | length));
}

fn store_user(access: WriteAccess<'_>, record: &RecordWords, user: UserHash, name: &str) {
    store(access, record, USER_HASH, user.to_word());
    store_bytes(access, record, USER_NAME, truncate_name(name).as_bytes());
}

/// Returns the user that the session had when it got the lease with this generation. After the
/// release of the lease, this user is the last user of the slot.
#[inline]
pub(crate) fn last_user(record: &RecordWords, generation: u32) -> UserHash {
    user_unless(record, generation, USER_SET_LATER)
}

/// Returns the user of the session that holds the lease with this generation.
pub(crate) fn session_user(record: &RecordWords, generation: u32) -> UserHash {
    user_unless(record, generation, 0)
}

/// Returns the user in a record; [`UserHash::NONE`] if the record is not valid, has another
/// generation, or has one of `excluded_flags`.
#[inline]
fn user_unless(record: &RecordWords, generation: u32, excluded_flags: u32) -> UserHash {
    let (recorded_generation, attributes) = split_halves(load(record, COMMIT_WORD));
    if recorded_generation == generation && attributes & (VALID | excluded_flags) == VALID {
        UserHash::from_word(load(record, USER_HASH))
    } else {
        UserHash::NONE
    }
}

/// Returns the user for whom a slot is reserved.
pub(crate) fn reservation(record: &RecordWords) -> UserHash {
    UserHash::from_word(load(record, RESERVATION))
}

/// Writes the user for whom a slot is reserved. The caller then sets the flag `RESERVED` of the
/// slot.
pub(crate) fn write_reservation(access: WriteAccess<'_>, record: &RecordWords, user: UserHash) {
    store(access, record, RESERVATION, user.to_word());
}

/// Copies a record to the record of the same slot in another map, without the reservation. If a
/// writer overwrites the record during the copy, the copy is not valid.
pub(crate) fn copy(access: WriteAccess<'_>, source: &RecordWords, target: &RecordWords) {
    let commit_word = load(source, COMMIT_WORD);
    for offset in COMMIT_WORD + 1..RESERVATION {
        store(access, target, offset, load(source, offset));
    }
    // A changed commit word means that a writer overwrote the record during this copy.
    let is_unchanged = load(source, COMMIT_WORD) == commit_word;
    store(access, target, COMMIT_WORD, if is_unchanged { commit_word } else { 0 });
}

/// Copies the last user and the reservation of a slot to the record of another slot that is not
/// leased.
pub(crate) fn copy_users(
    access: WriteAccess<'_>,
    (source, source_generation): (&RecordWords, u32),
    (target, target_generation): (&RecordWords, u32),
) {
    store(access, target, COMMIT_WORD, 0);
    store(access, target, LEADER_PID, 0);
    for offset in USER_HASH..=RESERVATION {
        store(access, target, offset, load(source, offset));
    }
    if last_user(source, source_generation) != UserHash::NONE {
        let name_length = load(source, COMMIT_WORD) as u32 & 0xff;
        store(access, target, COMMIT_WORD, join_halves(target_generation, VALID | name_length));
    }
}

/// Invalidates the record of a slot that is not leased. Keeps the reservation.
pub(crate) fn invalidate(access: WriteAccess<'_>, record: &RecordWords) {
    store(access, record, COMMIT_WORD, 0);
}

/// Invalidates the record of a slot that is not leased, unless the record has the generation of the
/// last lease. A writer that died before it committed a lease can have left the record of that
/// lease. The next lease has the same generation, so the record would otherwise count for it.
pub(crate) fn invalidate_uncommitted(
    access: WriteAccess<'_>,
    record: &RecordWords,
    generation: u32,
) {
    let commit_word = load(record, COMMIT_WORD);
    if commit_word != 0 && split_halves(commit_word).0 != generation {
        invalidate(access, record);
    }
}

/// Reads the record of the lease with this generation. Returns `None` if there is no such record,
/// if the record is empty, or if a writer overwrites the record during the read.
pub(crate) fn read(
    words: &[Word],
    pool: &PoolLayout,
    slot: u32,
    generation: u32,
) -> Option<Record> {
    let offset = record_offset(pool, slot);
    let commit_word = load(words, offset + COMMIT_WORD);
    let (recorded_generation, attributes) = split_halves(commit_word);
    let is_valid = recorded_generation == generation && attributes & VALID != 0;
    let is_empty = attributes & 0xffff == 0 && load(words, offset + LEADER_PID) == 0;
    if !is_valid || is_empty {
        return None;
    }
    let (upper, lower) = (load(words, offset + CLIENT), load(words, offset + CLIENT + 1));
    let bits = u128::from(upper) << 64 | u128::from(lower);
    let client = match attributes >> 8 & 0xf {
        4 => Some(IpAddr::V4(Ipv4Addr::from_bits(bits as u32))),
        6 => Some(IpAddr::V6(Ipv6Addr::from_bits(bits))),
        _ => None,
    };
    let (_, pid) = split_halves(load(words, offset + LEADER_PID));
    let leader = (pid != 0).then(|| Leader {
        pid,
        start_time: load(words, offset + LEADER_START_TIME),
        pid_namespace: load(words, offset + LEADER_PID_NAMESPACE),
    });
    let mut name = [0; MAX_NAME_BYTES];
    load_bytes(words, offset + USER_NAME, &mut name);
    let name_length = (attributes as usize & 0xff).min(MAX_NAME_BYTES);
    // A changed commit word means that a writer overwrote the record during this read.
    let is_unchanged = load(words, offset + COMMIT_WORD) == commit_word;
    is_unchanged.then_some(Record { name, name_length, client, leader })
}

/// Returns the time at which the leader in the record of a slot was first found dead; `None` if it
/// was not found dead.
pub(crate) fn first_seen_dead(words: &[Word], pool: &PoolLayout, slot: u32) -> Option<Tick> {
    let (seconds_plus_one, _) = split_halves(load(words, record_offset(pool, slot) + LEADER_PID));
    seconds_plus_one.checked_sub(1).map(Tick::from_secs)
}

/// Records the time at which the leader was first found dead. `None` means that the leader is
/// alive.
pub(crate) fn set_first_seen_dead(
    access: WriteAccess<'_>,
    words: &[Word],
    pool: &PoolLayout,
    slot: u32,
    time: Option<Tick>,
) {
    let offset = record_offset(pool, slot) + LEADER_PID;
    let (_, pid) = split_halves(load(words, offset));
    let seconds_plus_one = time.map_or(0, |time| time.as_secs().saturating_add(1));
    store(access, words, offset, join_halves(seconds_plus_one, pid));
}

/// Returns the part of a user name that a record holds: at most [`MAX_NAME_BYTES`], in whole
/// characters.
pub(crate) fn truncate_name(name: &str) -> &str {
    let mut end = name.len().min(MAX_NAME_BYTES);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    &name[..end]
}
