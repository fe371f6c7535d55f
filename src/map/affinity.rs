//! Who had an address last, kept over a restart of the machine.
//!
//! A text file, a line an address: the address and the tag of its last user in hexadecimal, the
//! longest free first. Best effort: it is as old as its last save, a line that is not understood
//! is left out, and addresses that the map no longer has are passed over. Names are not in it.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::IpAddr;
use std::path::Path;

use super::format::slot::{Owner, RESERVED};
use super::types::outcome::MapError;
use super::writer::Map;
use crate::Tick;

/// The first line of the file.
const HEAD: &str = "# vipool: who had an address last, version 2";

impl Map {
    /// Saves who had each address last, for [`Map::recall_users`]. Takes the place of an older
    /// file at once; only its owner may read it.
    pub fn save_users(&self, file: &Path) -> Result<(), MapError> {
        let mut known: Vec<(u64, IpAddr, u32)> = Vec::new();
        {
            let operation = self.begin()?;
            let sessions = &*operation.state;
            for (_, table) in sessions.tables() {
                for slot in 0..table.pool.slots {
                    let user = table.tenancy(slot).user();
                    let address = table.pool.address(sessions.words(), slot);
                    if let (1.., Some(address)) = (user, address) {
                        // Those in use come last: they were in use when the machine went down.
                        let stamp = table.owner(slot).stamp().unwrap_or(u64::MAX);
                        known.push((stamp, address, user));
                    }
                }
            }
        }
        known.sort_unstable();
        let mut text = format!("{HEAD}\n");
        for (_, address, user) in known {
            _ = writeln!(text, "{address} {user:x}");
        }
        replace(file, text.as_bytes()).map_err(|source| MapError::Io {
            what: "cannot write",
            path: file.to_owned(),
            source,
        })
    }

    /// Gives each address that nobody has had since the map was made its last user before, so that
    /// the user gets it again. Answers how many; a missing file is none.
    pub fn recall_users(&self, file: &Path, now: Tick) -> Result<u32, MapError> {
        let text = match std::fs::read(file) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
            Err(source) => {
                return Err(MapError::Io { what: "cannot read", path: file.to_owned(), source });
            }
        };
        // The tags of another version stand for nobody.
        let known = text.lines().next() == Some(HEAD);
        let operation = self.begin()?;
        let sessions = &*operation.state;
        let mut recalled = 0;
        for (address, user) in text.lines().filter(|_| known).filter_map(parse) {
            let place = sessions.locate(address).and_then(|(pool, slot)| {
                let table = sessions.table(pool)?;
                let tenancy = table.tenancy(slot);
                let fresh = matches!(table.owner(slot), Owner::Free(0)) && tenancy.user() == 0;
                (fresh && !tenancy.has(RESERVED)).then_some((table, slot))
            });
            if let Some((table, slot)) = place {
                table.change_flags(slot, 0, 0, Some(user), sessions.stamp(now));
                recalled += 1;
            }
        }
        Ok(recalled)
    }
}

/// An address and the tag of a user.
fn parse(line: &str) -> Option<(IpAddr, u32)> {
    let (address, user) = line.split_once(' ')?;
    let user = u32::from_str_radix(user, 16).ok().filter(|user| *user != 0)?;
    Some((address.parse().ok()?, user))
}

/// Writes a file beside and puts it in place, so that there is always a whole one.
fn replace(file: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut beside = file.as_os_str().to_owned();
    beside.push(".new");
    let beside = Path::new(&beside);
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut new = options.open(beside)?;
    new.write_all(bytes)?;
    new.sync_all()?;
    std::fs::rename(beside, file)
}
