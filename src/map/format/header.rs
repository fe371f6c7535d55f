//! The offsets of the header words of a map and of its sessions file.
//!
//! The first [`FIXED_WORDS`] words never change once a map is published. Writers store the changing
//! state of the map in the words after them.

use super::words::{load, store};
use crate::hash::HashKey;
use crate::raw::word::{Word, WriteAccess};

/// The magic number of a map: "vipool" and the version of the layout.
pub(crate) const MAP_MAGIC: u64 = u64::from_le_bytes(*b"vipool\x00\x04");
/// The magic number of a sessions file: "vipoolS" and the version of its layout.
const SESSIONS_MAGIC: u64 = u64::from_le_bytes(*b"vipoolS\x03");

// Offsets of the fixed words.
pub(crate) const MAGIC: usize = 0;
pub(crate) const LENGTH: usize = 1;
pub(crate) const BOOT: usize = 2;
/// A number that is unique to this map file. The sessions file of the map has the same number.
pub(crate) const FILE_ID: usize = 3;
pub(crate) const SETTINGS: usize = 4;
pub(crate) const POLICY_OFFSET: usize = 7;
pub(crate) const POLICY_BYTES: usize = 8;
pub(crate) const POOL_COUNT: usize = 9;
pub(crate) const FIXED_WORDS: usize = 64;

// Offsets of words that only the sessions file has.
/// The secret key of the hashes of users, two words. See [`super::user`].
const USER_KEY: usize = 4;
/// The length in bytes of the encoded rules for pools. The rules follow the records.
const POOL_RULES_BYTES: usize = 6;

// Offsets of the words that writers change.
/// Not 0: the map file is superseded. The value is [`BEING_REPLACED`] or [`REPLACED`].
pub(crate) const SUPERSEDED: usize = 64;
/// Not 0: a writer is in a transaction, or died in one.
pub(crate) const BUSY: usize = 65;
/// The process that holds the writer lock. The lower half is its pid. The upper half is 1 if that
/// process has locked the map exclusively.
pub(crate) const LOCK_HOLDER: usize = 66;
/// The last stamp (see [`super::slot`]).
pub(crate) const LAST_STAMP: usize = 67;
/// Not 0: an agent has restored the sessions of the operating system (`Settings::await_restore`).
pub(crate) const RESTORED: usize = 68;
/// Not 0: the server drains, so no new session gets an address.
pub(crate) const DRAINING: usize = 69;
/// The number of open sessions.
pub(crate) const OPEN_SESSIONS: usize = 70;
/// The pool and the slot at which the next reap continues to check leaders.
pub(crate) const REAP_CURSOR: usize = 71;
/// The highest generation of all slots that were removed during this boot. The leases of new slots
/// get higher generations, so no old handle matches them.
pub(crate) const DROPPED_GENERATION: usize = 72;
pub(crate) const HEADER_WORDS: usize = 128;

/// A value of [`SUPERSEDED`]: a writer has begun to replace or remove this file.
pub(crate) const BEING_REPLACED: u64 = 1;
/// A value of [`SUPERSEDED`]: a newer map file is in place.
pub(crate) const REPLACED: u64 = 2;

// Words of the sessions file that writers change.
/// The offset of the record that the staged record replaces; 0 if there is no staged record.
pub(crate) const STAGED_TARGET: usize = 64;
/// The first word of the staged record, see [`super::record`].
pub(crate) const STAGED_RECORD: usize = 72;

/// Writes the header of a sessions file into zeroed words.
pub(crate) fn write_sessions_header(
    access: WriteAccess<'_>,
    words: &[Word],
    boot: u64,
    file_id: u64,
    user_key: HashKey,
    pool_rules_bytes: usize,
) {
    for (index, word) in user_key.into_iter().enumerate() {
        store(access, words, USER_KEY + index, word);
    }
    store(access, words, POOL_RULES_BYTES, pool_rules_bytes as u64);
    store(access, words, LENGTH, words.len() as u64);
    store(access, words, BOOT, boot);
    store(access, words, FILE_ID, file_id);
    store(access, words, MAGIC, SESSIONS_MAGIC);
}

/// Returns whether these words are a sessions file with this id and at least `length` words.
pub(crate) fn is_sessions_file(words: &[Word], file_id: u64, length: usize) -> bool {
    load(words, MAGIC) == SESSIONS_MAGIC && load(words, FILE_ID) == file_id && words.len() >= length
}

/// Returns the key of the hashes of users in a sessions file; `None` if there is no such file.
pub(crate) fn user_key(words: &[Word]) -> Option<HashKey> {
    (!words.is_empty()).then(|| [load(words, USER_KEY), load(words, USER_KEY + 1)])
}

/// Returns the length in bytes of the encoded rules for pools in a sessions file.
pub(crate) fn pool_rules_bytes(words: &[Word]) -> usize {
    load(words, POOL_RULES_BYTES) as usize
}

/// Returns whether `count` words at `offset` are within the map and after the fixed header.
pub(crate) fn fits(words: &[Word], offset: usize, count: usize) -> bool {
    offset >= FIXED_WORDS && offset.checked_add(count).is_some_and(|end| end <= words.len())
}
