//! Stores the client address of a session in a file, for programs with the feature `client-ip`.
//!
//! All users can read the map, so the map does not contain the address. The file is in the
//! directory of the map, and only the session's user can read the file. The name of the file
//! contains the handle, so programs of a later session do not find the file.

use std::fmt::{self, Write as _};
use std::fs;
use std::io::{self, Read, Write as _};
use std::net::IpAddr;
use std::path::Path;

use crate::os::trusted_file;
use crate::os::users::UserId;
use crate::session::Handle;

const PREFIX: &str = "client.";

/// The name of the file, in a buffer on the stack.
struct FileName {
    bytes: [u8; 80],
    length: usize,
}

impl FileName {
    fn new(handle: &Handle) -> Self {
        let mut name = Self { bytes: [0; 80], length: 0 };
        // The longest name has 63 bytes: the prefix (7), session (16), pool (4), slot (8),
        // generation (8), boot (16) and four dots.
        let _ = write!(name, "{PREFIX}{handle}");
        name
    }

    fn as_str(&self) -> &str {
        self.bytes.get(..self.length).and_then(|name| str::from_utf8(name).ok()).unwrap_or_default()
    }
}

impl fmt::Write for FileName {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.length + text.len();
        self.bytes.get_mut(self.length..end).ok_or(fmt::Error)?.copy_from_slice(text.as_bytes());
        self.length = end;
        Ok(())
    }
}

/// Writes the client address to a file that only the session's user can read. A privileged caller
/// that opens the session for another user passes that user as `owner`.
///
/// # Errors
/// Fails if an older file cannot be removed, or the new file cannot be created or written.
pub fn write(
    directory: &Path,
    handle: &Handle,
    client_address: IpAddr,
    owner: Option<UserId>,
) -> io::Result<()> {
    remove(directory, handle)?;
    let path = directory.join(FileName::new(handle).as_str());
    let mut file = trusted_file::create_for_user(&path, owner.as_ref())?;
    file.write_all(client_address.to_string().as_bytes())
}

/// Returns the client address of the session. Returns `None` if the caller cannot read the file or
/// the owner of the file is not trusted. Allocates nothing on Unix.
#[must_use]
pub fn read(directory: &Path, handle: &Handle) -> Option<IpAddr> {
    let mut text = [0; 64];
    let mut file = trusted_file::open(directory, FileName::new(handle).as_str(), false).ok()?;
    let length = file.read(&mut text).ok()?;
    str::from_utf8(text.get(..length)?).ok()?.parse().ok()
}

/// Removes the file of a closed session, if it exists.
///
/// # Errors
/// Fails if the file exists and cannot be removed.
pub fn remove(directory: &Path, handle: &Handle) -> io::Result<()> {
    match fs::remove_file(directory.join(FileName::new(handle).as_str())) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Removes the files of all closed sessions. `is_live` returns whether a session still holds the
/// lease of a handle. A file of a closed session can remain, because not every process that closes
/// a session calls [`remove`].
///
/// # Errors
/// Fails if the directory cannot be read, or a file cannot be removed.
pub fn remove_stale(directory: &Path, is_live: impl Fn(&Handle) -> bool) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let handle_text = name.as_encoded_bytes().strip_prefix(PREFIX.as_bytes());
        if let Some(handle) = handle_text.and_then(Handle::parse)
            && !is_live(&handle)
        {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longest_name_fits_the_buffer() {
        let handle = Handle {
            session: "windows:72057594037927935".parse().unwrap(),
            pool: u16::MAX,
            slot: u32::MAX,
            generation: u32::MAX,
            boot: u64::MAX,
        };
        assert_eq!(FileName::new(&handle).as_str(), format!("client.{handle}"));
    }

    #[test]
    fn client_is_stored_per_handle() {
        let directory = std::env::temp_dir().join(format!("vipool-client-{}", std::process::id()));
        fs::create_dir(&directory).unwrap();
        let handle =
            Handle { session: "7".parse().unwrap(), pool: 0, slot: 3, generation: 1, boot: 5 };
        let client_address = "2001:db8::7".parse().unwrap();
        write(&directory, &handle, client_address, None).unwrap();
        write(&directory, &handle, client_address, None).unwrap();
        assert_eq!(read(&directory, &handle), Some(client_address));
        assert_eq!(read(&directory, &Handle { generation: 2, ..handle }), None);
        remove(&directory, &handle).unwrap();
        remove(&directory, &handle).unwrap();
        assert_eq!(read(&directory, &handle), None);
        // `remove_stale` removes only the files of closed sessions.
        let closed = Handle { generation: 2, ..handle };
        for stored in [&handle, &closed] {
            write(&directory, stored, client_address, None).unwrap();
        }
        fs::write(directory.join("client.list"), "").unwrap();
        remove_stale(&directory, |live| *live == handle).unwrap();
        assert_eq!(read(&directory, &handle), Some(client_address));
        assert_eq!(read(&directory, &closed), None);
        assert!(directory.join("client.list").exists());
        fs::remove_dir_all(&directory).unwrap();
    }
}
