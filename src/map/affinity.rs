//! A file that keeps the last user of each address across a restart of the machine.
//!
//! The file is a text file with one line per address. A line contains the address, and the tag of
//! its last user in hexadecimal. The first line contains the address that has been free longest.
//! The file contains no user names. A restart loses all changes after the last save. The reader
//! ignores lines that it cannot parse and addresses that the map no longer has.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::IpAddr;
use std::path::Path;

use super::format::slot::{Owner, RESERVED};
use super::types::error::MapError;
use super::writer::Map;
use crate::Tick;

/// The first line of the file. The version number changes when the algorithm of the user tags
/// changes. A file with another version is ignored.
const FIRST_LINE: &str = "# vipool: who had an address last, version 2";

impl Map {
    /// Saves the last user of each address to `file`. [`Map::restore_users`] reads this file.
    /// Replaces an existing file atomically. Only the owner of the file can read it.
    ///
    /// # Errors
    /// Fails if the file cannot be written, or the map cannot be used.
    pub fn save_users(&self, file: &Path) -> Result<(), MapError> {
        let mut users = self.transact(|transaction| {
            let mut users: Vec<(u64, IpAddr, u32)> = Vec::new();
            for (_, table) in transaction.tables() {
                for slot in 0..table.pool.slots {
                    let user_tag = table.meta(slot).user_tag();
                    let address = table.pool.address(transaction.words(), slot);
                    if let (1.., Some(address)) = (user_tag, address) {
                        // Leased addresses sort last, because they are still in use.
                        let stamp = table.owner(slot).stamp().unwrap_or(u64::MAX);
                        users.push((stamp, address, user_tag));
                    }
                }
            }
            users
        })?;
        users.sort_unstable();
        let mut text = format!("{FIRST_LINE}\n");
        for (_, address, user_tag) in users {
            _ = writeln!(text, "{address} {user_tag:x}");
        }
        replace_file(file, text.as_bytes()).map_err(|source| MapError::Io {
            failure: "cannot write",
            path: file.to_owned(),
            source,
        })
    }

    /// Restores the last user of each address that no session has leased since the map was created.
    /// A returning user then gets the same address again. Returns the number of addresses whose
    /// user was restored, or 0 if the file does not exist.
    ///
    /// # Errors
    /// Fails if the file cannot be read, or the map cannot be used.
    pub fn restore_users(&self, file: &Path, now: Tick) -> Result<u32, MapError> {
        let text = match std::fs::read(file) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
            Err(source) => {
                return Err(MapError::Io { failure: "cannot read", path: file.to_owned(), source });
            }
        };
        let mut lines = text.lines();
        let is_current_version = lines.next() == Some(FIRST_LINE);
        let users = lines.filter(|_| is_current_version).filter_map(parse_line);
        self.transact(|transaction| {
            let mut restored = 0;
            for (address, user_tag) in users {
                let Some((pool, slot)) = transaction.locate(address) else { continue };
                let Some(table) = transaction.table_writer(pool) else { continue };
                let meta = table.meta(slot);
                let was_never_leased = table.owner(slot) == Owner::Free(0) && meta.user_tag() == 0;
                if was_never_leased && !meta.has_any(RESERVED) {
                    table.change_flags(slot, 0, 0, Some(user_tag), transaction.new_stamp(now));
                    restored += 1;
                }
            }
            restored
        })
    }
}

/// Parses an address and a user tag.
fn parse_line(line: &str) -> Option<(IpAddr, u32)> {
    let (address, user_tag) = line.split_once(' ')?;
    let user_tag = u32::from_str_radix(user_tag, 16).ok().filter(|user_tag| *user_tag != 0)?;
    Some((address.parse().ok()?, user_tag))
}

/// Writes a temporary file and renames it, so a crash never leaves an incomplete file.
fn replace_file(file: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut temporary_path = file.as_os_str().to_owned();
    temporary_path.push(".new");
    let temporary_path = Path::new(&temporary_path);
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut temporary_file = options.open(temporary_path)?;
    temporary_file.write_all(bytes)?;
    temporary_file.sync_all()?;
    std::fs::rename(temporary_path, file)
}
