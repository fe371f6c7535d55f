//! Stores the client address of a session in a file, for programs with the feature `client-ip`.
//!
//! All users can read the map, so the map does not contain the client address. The file is in the
//! directory of the map. On Linux and Windows, the owner of the file is the user of the process
//! that opens the session. If the session belongs to another user, the session's user can only read
//! the file.
//!
//! The name of the file is random, and the file contains the handle of its session. So the list of
//! files does not show which user has which session. A program can open only the files for sessions
//! of its own user. It searches them for the file that contains its handle.

use std::fs;
use std::io::{self, Read, Write as _};
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use crate::hash::{keyed_hash, random_key};
use crate::os::directory::for_each_name;
use crate::os::trust_error::TrustError;
use crate::os::trusted_file;
use crate::os::users::UserId;
use crate::session::Handle;
use crate::trusted_file::remove_files;

const PREFIX: &str = "client.";
/// The longest text of a handle has 56 characters, and that of an address has 45.
const MAX_FILE_BYTES: usize = 128;
/// The age at which a file without a handle and an address counts as abandoned, because its writer
/// was killed.
const ABANDONED_AGE: Duration = Duration::from_secs(60);

/// Writes the client address of a session to a new file. Removes an older file of this session.
///
/// A privileged caller that opens the session for another user passes that user as `reader`. On
/// Linux and Windows, the caller's user owns the file, and `reader` can only read it. On other
/// systems, `reader` owns the file.
///
/// # Errors
/// Fails if the older file cannot be removed, or the new file cannot be created or written. If
/// `reader` is another user on Linux, the file system of the directory must support access control
/// lists (acl(5)).
pub fn write(
    directory: &Path,
    handle: &Handle,
    client_address: IpAddr,
    reader: Option<UserId>,
) -> io::Result<()> {
    remove(directory, handle)?;
    let text = format!("{handle} {client_address}");
    loop {
        let name = keyed_hash(text.as_bytes(), random_key());
        let path = directory.join(format!("{PREFIX}{name:016x}"));
        match trusted_file::create_for_user(&path, reader.as_ref()).map_err(io::Error::from) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            result => {
                return result?
                    .write_all(text.as_bytes())
                    .inspect_err(|_| _ = fs::remove_file(&path));
            }
        }
    }
}

/// Returns the client address of the session. Returns `None` if the session has no file that the
/// caller can read, or the owner of the file is not trusted. Allocates nothing on Linux.
#[must_use]
pub fn read(directory: &Path, handle: &Handle) -> Option<IpAddr> {
    let mut found_address = None;
    let search_result = for_each_name(directory, |name| match read_file(directory, name) {
        Ok(Some((stored_handle, client_address))) if stored_handle == *handle => {
            found_address = Some(client_address);
            ControlFlow::Break(())
        }
        _ => ControlFlow::Continue(()),
    });
    search_result.ok().and(found_address)
}

/// Returns the contents of a client file. Returns `None` for all other files, and for a client file
/// that is not complete or not trusted. Allocates nothing on Linux.
///
/// # Errors
/// Fails if the system cannot read the file. The contents may be intact.
fn read_file(directory: &Path, name: &str) -> io::Result<Option<(Handle, IpAddr)>> {
    if !name.starts_with(PREFIX) {
        return Ok(None);
    }
    let mut file = match trusted_file::open_uncancellable(directory, name, false) {
        Ok(file) => file,
        Err(TrustError::Untrusted(_)) => return Ok(None),
        Err(TrustError::Io(error)) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(TrustError::Io(error)) => return Err(error),
    };
    let mut text = [0; MAX_FILE_BYTES];
    let mut length = 0;
    // A call of read(2) can return a part of the file, which can be a valid but wrong address.
    while let Some(rest) = text.get_mut(length..).filter(|rest| !rest.is_empty()) {
        match file.read(rest) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(text.get(..length).and_then(parse))
}

fn parse(text: &[u8]) -> Option<(Handle, IpAddr)> {
    let (handle, address) = str::from_utf8(text).ok()?.split_once(' ')?;
    Some((Handle::parse(handle.as_bytes())?, address.parse().ok()?))
}

/// Removes the file that contains this handle, if it exists.
///
/// # Errors
/// Fails if the directory cannot be read, or the file exists and cannot be removed.
pub fn remove(directory: &Path, handle: &Handle) -> io::Result<()> {
    let contains_handle = |name: &str| {
        let contents = read_file(directory, name).ok().flatten();
        contents.is_some_and(|(stored_handle, _)| stored_handle == *handle)
    };
    match remove_files(directory, contains_handle) {
        // Without the directory, there is no file.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Removes the files of all closed sessions and of killed writers. A file of a closed session can
/// remain, because not every process that closes a session calls [`remove`].
///
/// `is_live` returns whether a session still holds the lease of a handle.
///
/// # Errors
/// Fails if the directory cannot be read, or a file cannot be removed.
pub fn remove_stale(directory: &Path, is_live: impl Fn(&Handle) -> bool) -> io::Result<()> {
    remove_files(directory, |name| match (read_file(directory, name), name.strip_prefix(PREFIX)) {
        (Ok(Some((handle, _))), _) => !is_live(&handle),
        // Earlier versions named the file after the handle.
        (Ok(None), Some(suffix)) if Handle::parse(suffix.as_bytes()).is_some() => true,
        (Ok(None), Some(suffix)) if is_random_name(suffix) => is_abandoned(&directory.join(name)),
        // A file that cannot be read now may belong to an open session.
        (Ok(None) | Err(_), _) => false,
    })
}

fn is_random_name(suffix: &str) -> bool {
    suffix.len() == 16 && suffix.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn is_abandoned(path: &Path) -> bool {
    let modification_time = fs::symlink_metadata(path).and_then(|metadata| metadata.modified());
    modification_time.is_ok_and(|time| time.elapsed().is_ok_and(|age| age >= ABANDONED_AGE))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handle_of_generation(generation: u32) -> Handle {
        Handle { session: "7".parse().unwrap(), pool: 0, slot: 3, generation, boot: 5 }
    }

    fn file_names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn longest_text_fits_the_buffer() {
        let handle = Handle {
            session: "windows:72057594037927935".parse().unwrap(),
            pool: u16::MAX,
            slot: u32::MAX,
            generation: u32::MAX,
            boot: u64::MAX,
        };
        let address = "ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255";
        assert!(format!("{handle} {address}").len() <= MAX_FILE_BYTES);
    }

    #[test]
    fn client_is_stored_per_handle() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path();
        let client_address = "2001:db8::7".parse().unwrap();
        write(directory, &handle_of_generation(1), client_address, None).unwrap();
        write(directory, &handle_of_generation(1), client_address, None).unwrap();
        assert_eq!(file_names(directory).len(), 1);
        assert_eq!(read(directory, &handle_of_generation(1)), Some(client_address));
        assert_eq!(read(directory, &handle_of_generation(2)), None);
        remove(directory, &handle_of_generation(1)).unwrap();
        remove(directory, &handle_of_generation(1)).unwrap();
        remove(&directory.join("missing"), &handle_of_generation(1)).unwrap();
        assert_eq!(read(directory, &handle_of_generation(1)), None);
        assert_eq!(file_names(directory).len(), 0);
    }

    #[test]
    fn only_files_of_closed_sessions_and_killed_writers_are_removed() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path();
        let client_address = "192.0.2.7".parse().unwrap();
        for generation in [1, 2] {
            write(directory, &handle_of_generation(generation), client_address, None).unwrap();
        }
        let live_name = file_names(directory)
            .into_iter()
            .find(|name| read_file(directory, name).unwrap().unwrap().0 == handle_of_generation(1))
            .unwrap();
        let named_after_handle = format!("client.{}", handle_of_generation(1));
        let (recent_name, old_name) = ("client.0123456789abcdef", "client.0123456789abcde0");
        for name in ["client.list", &named_after_handle, recent_name, old_name] {
            fs::write(directory.join(name), "").unwrap();
        }
        let old_file = fs::File::options().write(true).open(directory.join(old_name)).unwrap();
        old_file.set_modified(std::time::SystemTime::now() - 2 * ABANDONED_AGE).unwrap();
        // On Windows, a deleted file keeps its name until the last handle is closed.
        drop(old_file);
        remove_stale(directory, |handle| *handle == handle_of_generation(1)).unwrap();
        let mut remaining_names = file_names(directory);
        remaining_names.sort_unstable();
        let mut expected_names = vec!["client.list", recent_name, &*live_name];
        expected_names.sort_unstable();
        assert_eq!(remaining_names, expected_names);
        assert_eq!(read(directory, &handle_of_generation(1)), Some(client_address));
        assert_eq!(read(directory, &handle_of_generation(2)), None);
    }

    #[test]
    fn file_name_is_random() {
        let directory = tempfile::tempdir().unwrap();
        let [name, name_after_rewrite] = [(), ()].map(|()| {
            write(directory.path(), &handle_of_generation(1), "192.0.2.7".parse().unwrap(), None)
                .unwrap();
            file_names(directory.path()).pop().unwrap()
        });
        assert_ne!(name, name_after_rewrite, "anybody could compute the name from a handle");
        assert!(is_random_name(name.strip_prefix(PREFIX).unwrap()), "{name}");
    }
}
