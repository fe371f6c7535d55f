//! Writes and removes client files. A client file contains the address of the user's client.
//! Programs with the feature `client-ip` read the file. The process that opens the session creates
//! the file, so the user of this process owns it. If root (on Windows: any user) opens the session
//! for another user, that user can also read the file. Other users cannot read the file.

use std::net::IpAddr;
use std::path::Path;

use vipool::client_file;
use vipool::map::Map;
use vipool::session::Handle;

/// Records the address of the session's client for the programs of that session.
///
/// `user` is the user of the session, or `None` if the caller is this user. On failure, prints a
/// warning and continues, because the session works without the file.
pub fn write_client_file(directory: &Path, handle: &Handle, address: IpAddr, user: Option<&str>) {
    if let Err(error) = client_file::write(directory, handle, address, reader_id(user)) {
        errln!(
            "vipool: cannot record the client address {address} for client-ip in {}: {error}",
            directory.display()
        );
    }
}

/// The operating system's id of a user: a uid, or a SID.
#[cfg(unix)]
type UserId = u32;
#[cfg(windows)]
type UserId = String;

/// Returns the id of the user who may read a client file in addition to the file's owner. Returns
/// `None` if `user` is `None` or is unknown on this machine. On Unix, also returns `None` if the
/// caller is not root.
fn reader_id(user: Option<&str>) -> Option<UserId> {
    #[cfg(unix)]
    {
        let user = user.filter(|_| nix::unistd::Uid::effective().is_root())?;
        crate::system::caller::find_user(user).ok().map(|user| user.uid.as_raw())
    }
    #[cfg(windows)]
    vipool::system::user_id(&std::ffi::CString::new(user?).ok()?)
}

/// Removes the client file of a session that is about to close. Ignores failures, because no
/// program reads the file after the lease was released.
pub fn remove_client_file(directory: &Path, handle: &Handle) {
    let _ = client_file::remove(directory, handle);
}

/// Removes the client files of all closed sessions. On failure, prints a warning and continues: a
/// remaining file is harmless, because only its owner and the user of its session can read it.
pub fn remove_stale_client_files(map: &Map, directory: &Path) {
    let removal_result = map.reader().map_err(|error| error.to_string()).and_then(|reader| {
        client_file::remove_stale(directory, |handle| reader.is_live(handle))
            .map_err(|error| error.to_string())
    });
    if let Err(error) = removal_result {
        errln!("vipool: cannot remove old client files in {}: {error}", directory.display());
    }
}
