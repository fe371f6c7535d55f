//! Opens the files of a map and rejects planted files.
//!
//! A trusted file meets these conditions: The file is a regular file with one hard link, and the
//! path is not a symbolic link. Root or the user of this process owns the file. No other user can
//! write to the file.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::path::Path;

use super::users::UserId;

/// The reason why a file was not opened.
#[derive(Debug)]
pub enum TrustError {
    /// The operating system returned an error.
    Io(io::Error),
    /// The file does not meet the conditions of this module. The value is the reason.
    Untrusted(&'static str),
}

impl From<io::Error> for TrustError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Opens a file in `directory` for reading, and also for writing if `write` is set. Allocates
/// nothing.
pub fn open(directory: &Path, name: &str, write: bool) -> Result<File, TrustError> {
    use std::os::fd::FromRawFd;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::MetadataExt;

    let mut path = [0u8; 1024];
    let directory = directory.as_os_str().as_bytes();
    let path_length = directory.len() + 1 + name.len();
    if path_length >= path.len() || directory.contains(&0) {
        return Err(io::Error::from(io::ErrorKind::InvalidFilename).into());
    }
    path[..directory.len()].copy_from_slice(directory);
    path[directory.len()] = b'/';
    path[directory.len() + 1..path_length].copy_from_slice(name.as_bytes());
    let access = if write { libc::O_RDWR } else { libc::O_RDONLY };
    // O_NONBLOCK: opening a planted FIFO must not block. The flag has no effect on regular files.
    let flags = access | libc::O_CLOEXEC | libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
    // SAFETY: the path is NUL-terminated: the byte at `path_length` is 0.
    let descriptor = unsafe { libc::open(path.as_ptr().cast(), flags) };
    if descriptor < 0 {
        let error = io::Error::last_os_error();
        return Err(match error.raw_os_error() {
            Some(libc::ELOOP) => TrustError::Untrusted("it is a symbolic link"),
            _ => error.into(),
        });
    }
    // SAFETY: the descriptor was opened above and has no other owner.
    let file = unsafe { File::from_raw_fd(descriptor) };
    let metadata = file.metadata()?;
    // SAFETY: geteuid always succeeds.
    let user = unsafe { libc::geteuid() };
    if !metadata.file_type().is_file() {
        return Err(TrustError::Untrusted("it is not a regular file"));
    }
    // The link count is 0 if another process has just replaced the file.
    if metadata.nlink() > 1 {
        return Err(TrustError::Untrusted("it has more than one hard link"));
    }
    if metadata.uid() != 0 && metadata.uid() != user {
        return Err(TrustError::Untrusted("it belongs to another user"));
    }
    if metadata.mode() & 0o022 != 0 {
        return Err(TrustError::Untrusted("users other than its owner can write to it"));
    }
    Ok(file)
}

/// Creates a file of `length` zero bytes with the permissions `mode`. The file system allocates
/// every byte. Removes an existing file at `path` first.
pub fn create(path: &Path, length: u64, mode: u32) -> io::Result<File> {
    use std::os::unix::fs::PermissionsExt;

    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = create_new(path)?;
    allocate(&file, length).inspect_err(|_| _ = std::fs::remove_file(path))?;
    // Set the mode after the creation, because the umask applies at the creation.
    file.set_permissions(std::fs::Permissions::from_mode(mode))?;
    Ok(file)
}

/// Creates an empty file that only the user of this process and root can open. Fails if the path
/// exists, even if it is a dangling symbolic link.
pub fn create_new(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;

    std::fs::OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)
}

/// Creates an empty file that `user` can read. Its owner is the user of this process. All other
/// users have no access, except root. Fails if the path exists.
pub fn create_for_user(path: &Path, user: Option<&UserId>) -> io::Result<File> {
    let file = create_new(path)?;
    // SAFETY: geteuid always succeeds.
    let owner = unsafe { libc::geteuid() };
    if let Some(user) = user.filter(|user| **user != owner) {
        allow_reading(&file, *user).inspect_err(|_| _ = std::fs::remove_file(path))?;
    }
    Ok(file)
}

/// Allows another user to read a file that only its owner can access.
#[cfg(target_os = "linux")]
fn allow_reading(file: &File, user: UserId) -> io::Result<()> {
    use std::os::fd::AsRawFd;

    // An access control list in the form of the kernel (linux/posix_acl_xattr.h): the version, and
    // entries of tag, permissions and id. The tags are owner, user, group, mask and others.
    const VERSION: u32 = 2;
    const NO_ID: u32 = u32::MAX;
    let mut list = VERSION.to_le_bytes().to_vec();
    for (tag, permissions, id) in [
        (0x01u16, 6u16, NO_ID),
        (0x02, 4, user),
        (0x04, 0, NO_ID),
        (0x10, 4, NO_ID),
        (0x20, 0, NO_ID),
    ] {
        list.extend(tag.to_le_bytes());
        list.extend(permissions.to_le_bytes());
        list.extend(id.to_le_bytes());
    }
    let name = c"system.posix_acl_access";
    // SAFETY: the descriptor is open, the name ends with NUL, and the length is that of the list.
    let result = unsafe {
        libc::fsetxattr(file.as_raw_fd(), name.as_ptr(), list.as_ptr().cast(), list.len(), 0)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Makes another user the owner of a file, who can then read it.
#[cfg(all(unix, not(target_os = "linux")))]
fn allow_reading(file: &File, user: UserId) -> io::Result<()> {
    std::os::unix::fs::fchown(file, Some(user), None)
}

/// Renames `from` to `to`. Replaces an existing file atomically (rename(2)).
pub fn replace(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::rename(from, to)
}

/// Allocates every byte (posix_fallocate(3)). If a tmpfs is full, a later access to a hole in the
/// file would raise SIGBUS.
#[cfg(target_os = "linux")]
fn allocate(file: &File, length: u64) -> io::Result<()> {
    use std::os::fd::AsRawFd;

    let length = libc::off_t::try_from(length).map_err(|_| io::ErrorKind::FileTooLarge)?;
    // SAFETY: the descriptor is open.
    match unsafe { libc::posix_fallocate(file.as_raw_fd(), 0, length) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// Allocates every byte by writing it.
#[cfg(all(unix, not(target_os = "linux")))]
fn allocate(mut file: &File, length: u64) -> io::Result<()> {
    io::copy(&mut io::Read::take(io::repeat(0), length), &mut file)?;
    Ok(())
}
