//! A file that keeps the last user of each address across a restart of the machine.
//!
//! The file is a text file. The first line contains the version. Each other line contains an
//! address, a space and the name of its last user in quotation marks. These lines are sorted by the
//! time of the release, from the earliest to the latest. Addresses that are still leased come last.
//! [`Map::restore_users`] keeps this order: the address that has been free longest is allocated
//! first. It ignores lines that it cannot parse, and addresses that the map no longer has.
//!
//! Only the owner of the file can read it. A restart of the machine loses all changes since the
//! latest save. The file does not contain a user whose name has control characters or is longer
//! than a record can store.

use std::fmt::Write as _;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::Path;

use super::engine::image::MapImage;
use super::engine::table::Table;
use super::format::record;
use super::format::slot::{Owner, RESERVED};
use super::types::error::MapError;
use super::writer::Map;
use crate::Tick;
use crate::trusted_file;

/// The first line of the file. A file with another version is ignored.
const FIRST_LINE: &str = "# vipool: who had an address last, version 3";
/// Maximum size of the file: enough for several million addresses.
const MAX_FILE_BYTES: u64 = 512 << 20;

impl Map {
    /// Saves the last user of each address to `file`. [`Map::restore_users`] reads this file.
    /// Replaces an existing file atomically. Only the owner of the file can read it.
    ///
    /// An address that no session has leased since the map was created keeps its user in the file:
    /// the map does not have this user if [`Map::restore_users`] has failed.
    ///
    /// # Errors
    /// Fails if the file cannot be read or written, or the map cannot be used.
    pub fn save_users(&self, file: &Path) -> Result<(), MapError> {
        let saved_text = match read_users(file) {
            // This call replaces such a file.
            Err(MapError::Io { source, .. }) if trusted_file::is_refusal(&source) => String::new(),
            text => text?,
        };
        let (kept_users, mut last_users) = self.transact(|transaction| {
            let is_kept = |(address, _): &(IpAddr, &str)| {
                let (pool, slot) = transaction.locate(*address)?;
                Some(was_never_leased(&transaction.table(pool)?, slot))
            };
            let kept_users: Vec<_> =
                saved_users(&saved_text).filter(|user| is_kept(user) == Some(true)).collect();
            let mut last_users: Vec<(u64, IpAddr, String)> = Vec::new();
            for (_, table) in transaction.tables() {
                for slot in 0..table.pool.slot_count {
                    let address = table.pool.address(transaction.words(), slot);
                    if let (Some(name), Some(address)) =
                        (complete_name(transaction, &table, slot), address)
                    {
                        // Leased addresses sort last, because they are still in use.
                        let stamp = table.owner(slot).stamp().unwrap_or(u64::MAX);
                        last_users.push((stamp, address, name));
                    }
                }
            }
            (kept_users, last_users)
        })?;
        last_users.sort_unstable();
        let mut text = format!("{FIRST_LINE}\n");
        for (address, name) in kept_users {
            _ = writeln!(text, "{address} \"{name}\"");
        }
        for (_, address, name) in last_users {
            _ = writeln!(text, "{address} \"{name}\"");
        }
        trusted_file::replace(file, text.as_bytes(), 0o600).map_err(|source| MapError::Io {
            failure: "cannot write",
            path: file.to_owned(),
            source,
        })
    }

    /// Restores the last user of each address that no session has leased since the map was created,
    /// and that is not reserved. When such a user returns, the user gets the same address again if
    /// it is still free. Returns the number of addresses whose user was restored, or 0 if the file
    /// does not exist.
    ///
    /// # Errors
    /// Fails if the file cannot be read, is not trusted or is too large, or the map cannot be
    /// used.
    pub fn restore_users(&self, file: &Path, now: Tick) -> Result<u32, MapError> {
        let text = read_users(file)?;
        self.transact(|transaction| {
            let mut restored_count = 0;
            for (address, name) in saved_users(&text) {
                let Some(user) = transaction.user_hash(name) else { break };
                let Some((pool, slot)) = transaction.locate(address) else { continue };
                let Some(table) = transaction.table_writer(pool) else { continue };
                let meta = table.meta(slot);
                if was_never_leased(&table, slot) && !meta.has_any(RESERVED) {
                    table.write_last_user(slot, user, name);
                    table.change_flags(slot, 0, 0, Some(user.tag()), transaction.new_stamp(now));
                    restored_count += 1;
                }
            }
            restored_count
        })
    }
}

/// Returns the name of the current or last user of a slot, if the record has the complete name and
/// the name has no control characters.
fn complete_name(map: &MapImage, table: &Table<'_>, slot: u32) -> Option<String> {
    let meta = table.meta(slot);
    let record = record::read(map.sessions_words(), table.pool, slot, meta.generation)?;
    let name = record.user()?;
    let is_complete = meta.user_tag() != 0 && table.is_last_user(slot, map.user_hash(name)?);
    (is_complete && !name.contains(char::is_control)).then(|| name.to_owned())
}

/// Reads the file. Returns an empty text if there is no file.
fn read_users(file: &Path) -> Result<String, MapError> {
    match trusted_file::read(file, MAX_FILE_BYTES) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(String::new()),
        Err(source) => Err(MapError::Io { failure: "cannot read", path: file.to_owned(), source }),
    }
}

/// Returns the addresses and user names in the text of the file.
fn saved_users(text: &str) -> impl Iterator<Item = (IpAddr, &str)> {
    let mut lines = text.lines();
    let is_current_version = lines.next() == Some(FIRST_LINE);
    lines.filter(move |_| is_current_version).filter_map(parse_line)
}

/// Returns whether no session has leased the slot since the map was created, and no user was
/// restored.
fn was_never_leased(table: &Table<'_>, slot: u32) -> bool {
    table.owner(slot) == Owner::Free(0) && table.meta(slot).user_tag() == 0
}

/// Parses an address and a user name.
fn parse_line(line: &str) -> Option<(IpAddr, &str)> {
    let (address, quoted_name) = line.split_once(' ')?;
    Some((address.parse().ok()?, quoted_name.strip_prefix('"')?.strip_suffix('"')?))
}
