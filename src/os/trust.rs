//! Opening the files of a map so that nobody can plant one.
//!
//! A file is trusted if it is a regular file with one name, not a symlink, owned by root or by the
//! user of this process, and writable by nobody else.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::path::Path;

use super::users::UserId;

/// Why a file was not opened.
#[derive(Debug)]
pub enum Refused {
    /// The operating system said no.
    Io(io::Error),
    /// It may have been planted; what is wrong with it.
    Untrusted(&'static str),
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Opens a file in a directory, to read it or to write it too. Allocates nothing.
pub fn open(directory: &Path, name: &str, write: bool) -> Result<File, Refused> {
    use std::os::fd::FromRawFd;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::MetadataExt;

    let mut path = [0u8; 1024];
    let directory = directory.as_os_str().as_bytes();
    let end = directory.len() + 1 + name.len();
    if end >= path.len() || directory.contains(&0) {
        return Err(io::Error::from(io::ErrorKind::InvalidFilename).into());
    }
    path[..directory.len()].copy_from_slice(directory);
    path[directory.len()] = b'/';
    path[directory.len() + 1..end].copy_from_slice(name.as_bytes());
    let access = if write { libc::O_RDWR } else { libc::O_RDONLY };
    // NONBLOCK: a planted FIFO must not hold us up. It does nothing to regular files.
    let flags = access | libc::O_CLOEXEC | libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
    // SAFETY: the path ends with the zero behind `end`.
    let descriptor = unsafe { libc::open(path.as_ptr().cast(), flags) };
    if descriptor < 0 {
        let error = io::Error::last_os_error();
        return Err(match error.raw_os_error() {
            Some(libc::ELOOP) => Refused::Untrusted("it is a symbolic link"),
            _ => error.into(),
        });
    }
    // SAFETY: the descriptor was opened above and nobody else has it.
    let file = unsafe { File::from_raw_fd(descriptor) };
    let data = file.metadata()?;
    // SAFETY: geteuid always succeeds.
    let user = unsafe { libc::geteuid() };
    if !data.file_type().is_file() {
        return Err(Refused::Untrusted("it is not a regular file"));
    }
    // A file that was replaced just now has none left.
    if data.nlink() > 1 {
        return Err(Refused::Untrusted("it has another name too"));
    }
    if data.uid() != 0 && data.uid() != user {
        return Err(Refused::Untrusted("it belongs to another user"));
    }
    if data.mode() & 0o022 != 0 {
        return Err(Refused::Untrusted("others than its owner may write to it"));
    }
    Ok(file)
}

/// Makes a file of this many zero bytes, all of them allocated, readable as `mode` says. An older
/// file of the name is removed first.
pub fn create(path: &Path, length: u64, mode: u32) -> io::Result<File> {
    use std::os::unix::fs::PermissionsExt;

    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = create_new(path)?;
    allocate(&file, length).inspect_err(|_| _ = std::fs::remove_file(path))?;
    // Now, since the umask would have had its say before.
    file.set_permissions(std::fs::Permissions::from_mode(mode))?;
    Ok(file)
}

/// Makes an empty file of our own, which nobody else can open. An error if anything bears the name,
/// a symbolic link to nowhere too.
pub fn create_new(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;

    std::fs::OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)
}

/// Makes an empty file that this user alone can read, beside root; the user of this process if none
/// is named. An error if anything bears the name.
pub fn create_for_user(path: &Path, user: Option<&UserId>) -> io::Result<File> {
    use std::os::unix::fs::{PermissionsExt, fchown};

    let file = create_new(path)?;
    file.set_permissions(std::fs::Permissions::from_mode(0o400))?;
    fchown(&file, user.copied(), None)?;
    Ok(file)
}

/// Gives a file the name of another, which goes (rename(2)): at no moment there is none.
pub fn replace(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::rename(from, to)
}

/// Allocates every byte: a hole in a full tmpfs would be a SIGBUS later (posix_fallocate(3)).
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
