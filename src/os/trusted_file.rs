//! Opens, creates and replaces the files of a map, and rejects planted files.
//!
//! A trusted file meets these conditions: The file is a regular file with at most one hard link,
//! and the path is not a symbolic link. Root or the user of this process owns the file. No other
//! user can write to the file.
//!
//! Files are created only in a trusted directory: root or the user of this process owns the
//! directory, and no other user can replace its entries.

#![allow(unsafe_code)]

use std::fs::{File, Metadata, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::Path;

use super::directory_of;
use super::trust_error::TrustError;
use super::uncancellable_file::UncancellableFile;
use super::users::UserId;

/// Opens a trusted file in `directory` for reading, and also for writing if `is_writable` is set.
pub fn open(directory: &Path, name: &str, is_writable: bool) -> Result<File, TrustError> {
    open_uncancellable(directory, name, is_writable).map(UncancellableFile::into_file)
}

/// Same as [`open`], for code inside hooked calls. Allocates nothing.
pub fn open_uncancellable(
    directory: &Path,
    name: &str,
    is_writable: bool,
) -> Result<UncancellableFile, TrustError> {
    let path_parts = [directory.as_os_str().as_bytes(), b"/", name.as_bytes()];
    let access = if is_writable { libc::O_RDWR } else { libc::O_RDONLY };
    // O_NONBLOCK: opening a planted FIFO must not block. The flag has no effect on regular files.
    let flags = access | libc::O_CLOEXEC | libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = UncancellableFile::open(&path_parts, flags).map_err(|error| {
        match error.raw_os_error() {
            Some(libc::ELOOP) => TrustError::Untrusted("it is a symbolic link"),
            _ => error.into(),
        }
    })?;
    let metadata = file.metadata()?;
    if !metadata.file_type().is_file() {
        return Err(TrustError::Untrusted("it is not a regular file"));
    }
    // The link count is 0 if another process has just replaced the file.
    if metadata.nlink() > 1 {
        return Err(TrustError::Untrusted("it has more than one hard link"));
    }
    if !has_trusted_owner(&metadata) {
        return Err(TrustError::Untrusted("it belongs to another user"));
    }
    if metadata.mode() & 0o022 != 0 {
        return Err(TrustError::Untrusted("users other than its owner can write to it"));
    }
    Ok(file)
}

/// Identifies a file as long as it is open or mapped. After that, a new file can have the same
/// identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileIdentity {
    device: u64,
    inode: u64,
}

impl FileIdentity {
    /// Returns the identity of an open file.
    pub fn of(file: &File) -> io::Result<Self> {
        Ok(Self::of_metadata(&file.metadata()?))
    }

    /// Returns whether the path names this file.
    pub fn is_at(self, path: &Path) -> io::Result<bool> {
        Ok(Self::of_metadata(&path.symlink_metadata()?) == self)
    }

    fn of_metadata(metadata: &Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino() }
    }
}

/// Returns whether root or the user of this process is the owner.
fn has_trusted_owner(metadata: &Metadata) -> bool {
    metadata.uid() == 0 || metadata.uid() == effective_user()
}

fn effective_user() -> UserId {
    // SAFETY: geteuid always succeeds.
    unsafe { libc::geteuid() }
}

/// Checks that no other user can replace the entries of a directory. In a directory with the sticky
/// bit, other users can create entries but can replace only their own.
pub fn check_directory(directory: &Path) -> Result<(), TrustError> {
    const STICKY: u32 = 0o1000;

    // If the path is a symbolic link, its owner could later point it to another directory.
    let link_metadata = std::fs::symlink_metadata(directory)?;
    let metadata = std::fs::metadata(directory)?;
    if !has_trusted_owner(&link_metadata) || !has_trusted_owner(&metadata) {
        return Err(TrustError::Untrusted("its directory belongs to another user"));
    }
    if metadata.mode() & 0o022 != 0 && metadata.mode() & STICKY == 0 {
        return Err(TrustError::Untrusted("other users can write to its directory"));
    }
    Ok(())
}

/// Creates a file of `length` zero bytes with the permissions `mode`. The file system allocates
/// every byte. Removes an existing file at `path` first.
pub fn create(path: &Path, length: u64, mode: u32) -> Result<File, TrustError> {
    let file = recreate(path, mode)?;
    check_size_limit(length)
        .and_then(|()| allocate(&file, length))
        .inspect_err(|_| _ = std::fs::remove_file(path))?;
    Ok(file)
}

/// Creates an empty file as [`create_new`] does. Removes an existing file at `path` first.
pub fn recreate(path: &Path, mode: u32) -> Result<File, TrustError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    create_new(path, mode)
}

/// Creates an empty file with the permissions `mode` in a trusted directory. Fails if the path
/// exists, even if it is a dangling symbolic link.
pub fn create_new(path: &Path, mode: u32) -> Result<File, TrustError> {
    check_directory(directory_of(path))?;
    let mut options = std::fs::OpenOptions::new();
    let file = options.read(true).write(true).create_new(true).mode(0o600).open(path)?;
    // Set the mode after the creation, because the umask applies at the creation. A file with
    // another mode must not remain, because later calls would use it.
    file.set_permissions(Permissions::from_mode(mode))
        .inspect_err(|_| _ = std::fs::remove_file(path))?;
    Ok(file)
}

/// Creates an empty file that `user` can read. On Linux, the user of this process owns the file. On
/// other systems, `user` owns the file. Other users have no access, except root. Fails if the path
/// exists.
pub fn create_for_user(path: &Path, user: Option<&UserId>) -> Result<File, TrustError> {
    // The caller writes a handle and an address, which have at most 128 bytes.
    check_size_limit(128)?;
    let file = create_new(path, 0o600)?;
    if let Some(user) = user.filter(|user| **user != effective_user()) {
        allow_reading(&file, *user).inspect_err(|_| _ = std::fs::remove_file(path))?;
    }
    Ok(file)
}

/// Allows another user to read a file that only its owner can access.
#[cfg(target_os = "linux")]
fn allow_reading(file: &File, user: UserId) -> io::Result<()> {
    use std::os::fd::AsRawFd;

    // An access control list in the format of the kernel (linux/posix_acl_xattr.h): the version,
    // followed by entries. An entry has a tag, permissions and an id. The tags below are, in this
    // order: owner, user, group, mask and others.
    const VERSION: u32 = 2;
    const NO_ID: u32 = u32::MAX;
    let mut acl = VERSION.to_le_bytes().to_vec();
    for (tag, permissions, id) in [
        (0x01u16, 6u16, NO_ID),
        (0x02, 4, user),
        (0x04, 0, NO_ID),
        (0x10, 4, NO_ID),
        (0x20, 0, NO_ID),
    ] {
        acl.extend(tag.to_le_bytes());
        acl.extend(permissions.to_le_bytes());
        acl.extend(id.to_le_bytes());
    }
    let name = c"system.posix_acl_access";
    // SAFETY: the descriptor is open, the name ends with NUL, and the length is that of the list.
    let result = unsafe {
        libc::fsetxattr(file.as_raw_fd(), name.as_ptr(), acl.as_ptr().cast(), acl.len(), 0)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Makes another user the owner of a file, so that this user can read the file.
#[cfg(all(unix, not(target_os = "linux")))]
fn allow_reading(file: &File, user: UserId) -> io::Result<()> {
    std::os::unix::fs::fchown(file, Some(user), None)
}

/// Gives a new file the group of the file that it is going to replace, so that a chgrp(1) by an
/// administrator lasts. If this process may not change the group, the new file keeps its own group.
pub fn keep_group(new_file: &File, old_path: &Path) {
    if let Ok(metadata) = std::fs::symlink_metadata(old_path)
        && metadata.is_file()
    {
        _ = fchown(new_file, None, Some(metadata.gid()));
    }
}

/// Checks that the process may write a file of `length` bytes. If a file became larger than
/// RLIMIT_FSIZE, the kernel would send SIGXFSZ, which kills the process.
pub fn check_size_limit(length: u64) -> io::Result<()> {
    // SAFETY: all-zero bytes are a valid `rlimit`, and the kernel writes only this value.
    let (status, limit) = unsafe {
        let mut limit: libc::rlimit = std::mem::zeroed();
        (libc::getrlimit(libc::RLIMIT_FSIZE, &mut limit), limit.rlim_cur)
    };
    if status == 0 && limit < length { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(()) }
}

/// Renames `from` to `to`. Replaces an existing file atomically (rename(2)).
pub fn replace(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::rename(from, to)
}

/// Allocates every byte (posix_fallocate(3)). Without the allocation, an access to a hole in the
/// mapped file would raise SIGBUS if the file system were full.
///
/// A signal can interrupt a call. tmpfs then frees the bytes that the call has allocated. Each call
/// therefore allocates only a part of the file, so that a periodic signal cannot prevent all
/// progress.
#[cfg(target_os = "linux")]
fn allocate(file: &File, length: u64) -> io::Result<()> {
    use std::os::fd::AsRawFd;

    const PART_LENGTH: libc::off_t = 1 << 20;

    let length = libc::off_t::try_from(length).map_err(|_| io::ErrorKind::FileTooLarge)?;
    let mut offset = 0;
    while offset < length {
        let part_length = PART_LENGTH.min(length - offset);
        // SAFETY: the descriptor is open.
        match unsafe { libc::posix_fallocate(file.as_raw_fd(), offset, part_length) } {
            0 => offset += part_length,
            libc::EINTR => {}
            error => return Err(io::Error::from_raw_os_error(error)),
        }
    }
    Ok(())
}

/// Allocates every byte by writing it.
#[cfg(all(unix, not(target_os = "linux")))]
fn allocate(mut file: &File, length: u64) -> io::Result<()> {
    io::copy(&mut io::Read::take(io::repeat(0), length), &mut file)?;
    Ok(())
}
