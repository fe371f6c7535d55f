//! Opens and replaces the files beside a map, such as the history, and rejects planted files.
//!
//! A privileged process can use a directory that belongs to another user. That user can plant
//! symbolic links, FIFOs and files of any size there. The functions of this module therefore open
//! only trusted files. A trusted file is a regular file with at most one hard link. Root or the
//! user of this process owns it, and no other user can write to it.
//!
//! The functions create files only in trusted directories. Root or the user of this process owns a
//! trusted directory, and no other user can replace its entries.
//!
//! On Windows, the owner is the system, the administrators or the user of this process. The number
//! of hard links is not checked, and every directory counts as trusted.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use crate::os::directory::for_each_name;
use crate::os::{directory_of, trusted_file};

/// Opens a trusted file for reading. Never blocks, even if the path is a FIFO.
///
/// # Errors
/// The kind is `NotFound` if there is no file, and `PermissionDenied` if the file is not trusted.
pub fn open(path: &Path) -> io::Result<File> {
    open_with(path, false)
}

/// Opens a trusted file for reading and writing. Creates the file with the permissions `mode` if it
/// does not exist.
///
/// # Errors
/// The kind is `PermissionDenied` if the existing file, or the directory of a new file, is not
/// trusted.
pub fn open_or_create(path: &Path, mode: u32) -> io::Result<File> {
    match open_with(path, true) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        result => return result,
    }
    match trusted_file::create_new(path, mode).map_err(io::Error::from) {
        // Another process has just created the file.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => open_with(path, true),
        result => result,
    }
}

/// Reads a trusted file.
///
/// # Errors
/// Fails as [`open`] does. The kind is `FileTooLarge` if the file has more than `max_bytes` bytes.
pub fn read(path: &Path, max_bytes: u64) -> io::Result<Vec<u8>> {
    let mut contents = Vec::new();
    let file = open(path)?;
    if file.metadata()?.len() <= max_bytes {
        // The file can grow after the check.
        file.take(max_bytes + 1).read_to_end(&mut contents)?;
        if contents.len() as u64 <= max_bytes {
            return Ok(contents);
        }
    }
    Err(io::Error::new(
        io::ErrorKind::FileTooLarge,
        format!("it is longer than {max_bytes} bytes, the maximum"),
    ))
}

/// Returns whether [`open`] or [`read`] refused a file because it is not trusted, too large, or
/// forbidden to this process. After any other error, the file may be intact, and a later call may
/// read it.
#[must_use]
pub fn is_refusal(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::FileTooLarge)
}

/// Replaces a file: writes `PATH.new` with the permissions `mode`, then renames it to `PATH`.
///
/// On Unix, the replacement is atomic, and the new file gets the group of the old file if this
/// process may change the group. A link at either path is replaced, not followed.
///
/// # Errors
/// The kind is `PermissionDenied` if the directory of the file is not trusted.
pub fn replace(path: &Path, contents: &[u8], mode: u32) -> io::Result<()> {
    let mut temporary_path = path.as_os_str().to_owned();
    temporary_path.push(".new");
    let temporary_path = PathBuf::from(temporary_path);
    trusted_file::check_size_limit(contents.len() as u64)?;
    let mut file = trusted_file::recreate(&temporary_path, mode)?;
    trusted_file::keep_group(&file, path);
    file.write_all(contents)
        .and_then(|()| file.sync_all())
        .and_then(|()| trusted_file::replace(&temporary_path, path))
        .inspect_err(|_| _ = fs::remove_file(&temporary_path))
}

/// Creates a directory and its missing parents. An existing directory must be trusted.
///
/// On Unix, the new directories have the permissions `mode` without the bits of the umask.
///
/// # Errors
/// The kind is `PermissionDenied` if the directory is not trusted.
pub fn create_directory(path: &Path, mode: u32) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, mode);
    #[cfg(not(unix))]
    let _ = mode;
    match builder.recursive(true).create(path) {
        // The standard library also returns this error if it cannot examine an existing directory.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            if !fs::metadata(path)?.is_dir() {
                return Err(error);
            }
        }
        result => result?,
    }
    Ok(trusted_file::check_directory(path)?)
}

/// Removes each file in `directory` if `should_remove` returns true for the name of the file. Stops
/// at the first file that cannot be removed.
///
/// # Errors
/// Fails if the directory cannot be read, or a file cannot be removed.
pub(crate) fn remove_files(
    directory: &Path,
    mut should_remove: impl FnMut(&str) -> bool,
) -> io::Result<()> {
    let mut result = Ok(());
    for_each_name(directory, |name| {
        if should_remove(name)
            && let Err(error) = fs::remove_file(directory.join(name))
            && error.kind() != io::ErrorKind::NotFound
        {
            result = Err(error);
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    })?;
    result
}

fn open_with(path: &Path, is_writable: bool) -> io::Result<File> {
    let name =
        path.file_name().and_then(|name| name.to_str()).ok_or(io::ErrorKind::InvalidFilename)?;
    Ok(trusted_file::open(directory_of(path), name, is_writable)?)
}

#[cfg(all(test, unix))]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};

    use super::*;

    fn error_kind<T: std::fmt::Debug>(result: io::Result<T>) -> io::ErrorKind {
        result.unwrap_err().kind()
    }

    #[test]
    fn planted_links_fifos_and_huge_files_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("target");
        fs::write(&target, "target").unwrap();
        let link = directory.path().join("link");
        symlink(&target, &link).unwrap();
        assert_eq!(error_kind(open(&link)), io::ErrorKind::PermissionDenied);
        assert_eq!(error_kind(open_or_create(&link, 0o600)), io::ErrorKind::PermissionDenied);
        let dangling_link = directory.path().join("dangling");
        symlink(directory.path().join("absent"), &dangling_link).unwrap();
        assert!(open_or_create(&dangling_link, 0o600).is_err());
        assert!(!directory.path().join("absent").exists());

        let fifo = directory.path().join("fifo");
        let mkfifo_status = std::process::Command::new("mkfifo").arg(&fifo).status().unwrap();
        assert!(mkfifo_status.success());
        assert_eq!(error_kind(read(&fifo, 10)), io::ErrorKind::PermissionDenied);
        let huge_file = directory.path().join("huge");
        File::create(&huge_file).unwrap().set_len(1 << 40).unwrap();
        assert_eq!(error_kind(read(&huge_file, 10)), io::ErrorKind::FileTooLarge);
        assert_eq!(read(&target, 6).unwrap(), b"target");
        assert_eq!(error_kind(read(&target, 5)), io::ErrorKind::FileTooLarge);
    }

    #[test]
    fn replacement_follows_no_link_and_keeps_the_group() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("target");
        fs::write(&target, "target").unwrap();
        let path = directory.path().join("file");
        symlink(&target, directory.path().join("file.new")).unwrap();
        symlink(&target, &path).unwrap();
        replace(&path, b"contents", 0o640).unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"target");
        assert_eq!(fs::read(&path).unwrap(), b"contents");
        assert_eq!(path.symlink_metadata().unwrap().permissions().mode() & 0o7777, 0o640);
        assert!(!directory.path().join("file.new").exists());

        if vipool_testing::have(&["root"]) {
            chown(&path, None, Some(12)).unwrap();
            replace(&path, b"newer", 0o640).unwrap();
            assert_eq!(path.metadata().unwrap().gid(), 12);
        }
    }

    #[test]
    fn nothing_is_created_in_an_untrusted_directory() {
        if !vipool_testing::have(&["root"]) {
            return;
        }
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("directory");
        fs::create_dir(&directory).unwrap();
        let assert_untrusted = || {
            let file = directory.join("file");
            assert_eq!(error_kind(replace(&file, b"", 0o600)), io::ErrorKind::PermissionDenied);
            assert_eq!(error_kind(open_or_create(&file, 0o600)), io::ErrorKind::PermissionDenied);
            assert_eq!(
                error_kind(create_directory(&directory, 0o755)),
                io::ErrorKind::PermissionDenied
            );
            assert_eq!(fs::read_dir(&directory).unwrap().count(), 0);
        };
        chown(&directory, Some(12), None).unwrap();
        assert_untrusted();
        chown(&directory, Some(0), None).unwrap();
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o777)).unwrap();
        assert_untrusted();
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o1777)).unwrap();
        replace(&directory.join("file"), b"", 0o600).unwrap();
    }
}
