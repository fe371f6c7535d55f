//! The address of a session's client, for programs of the session that go by it (`client-ip`).
//!
//! The map, which everybody reads, does not hold it. It is in a file beside the map that belongs
//! to the session's user and that nobody else can read, named after the lease: a later session's
//! programs do not find it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::os::unix::fs::{OpenOptionsExt, chown};
use std::path::{Path, PathBuf};

use crate::session::Handle;

fn file(directory: &Path, handle: &Handle) -> PathBuf {
    directory.join(format!("client.{handle}"))
}

/// Tells the user of a session, and nobody else, where its client is. `owner` is given where the
/// caller is root and opens the session for somebody else.
pub fn write(
    directory: &Path,
    handle: &Handle,
    client: IpAddr,
    owner: Option<u32>,
) -> io::Result<()> {
    let path = file(directory, handle);
    remove(directory, handle)?;
    // Made new, so that it is nobody else's, nor a link to anywhere.
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o400).open(&path)?;
    file.write_all(client.to_string().as_bytes())?;
    chown(&path, owner, None)
}

/// Where the client of the session of this lease is, if the caller may know.
pub fn read(directory: &Path, handle: &Handle) -> Option<IpAddr> {
    let mut text = [0; 64];
    let length = File::open(file(directory, handle)).ok()?.read(&mut text).ok()?;
    str::from_utf8(text.get(..length)?).ok()?.parse().ok()
}

/// Forgets it, when the session is closed.
pub fn remove(directory: &Path, handle: &Handle) -> io::Result<()> {
    match fs::remove_file(file(directory, handle)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_known_to_its_own_lease_only() {
        let directory = std::env::temp_dir().join(format!("vipool-client-{}", std::process::id()));
        fs::create_dir(&directory).unwrap();
        let handle =
            Handle { session: "7".parse().unwrap(), pool: 0, slot: 3, generation: 1, boot: 5 };
        let client = "2001:db8::7".parse().unwrap();
        write(&directory, &handle, client, None).unwrap();
        write(&directory, &handle, client, None).unwrap();
        assert_eq!(read(&directory, &handle), Some(client));
        assert_eq!(read(&directory, &Handle { generation: 2, ..handle }), None);
        remove(&directory, &handle).unwrap();
        remove(&directory, &handle).unwrap();
        assert_eq!(read(&directory, &handle), None);
        fs::remove_dir(&directory).unwrap();
    }
}
