//! Opens, creates and replaces the files of a map in their directory.
//!
//! New files, except the lock files, are created under temporary names and then renamed. A process
//! that dies before the rename leaves temporary files. The next process that creates or replaces
//! these files finishes the rename or removes the temporary files.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::image::MapImage;
use super::writer::WritableMap;
use crate::map::format::journal::{self, JOURNAL_WORDS};
use crate::map::format::layout::Layout;
use crate::map::format::region::{Region, WritableRegion};
use crate::map::types::error::MapError;
use crate::os::identity;
use crate::os::lock::FileLock;
use crate::os::trust_error::TrustError;
use crate::os::trusted_file::{self, FileIdentity};
use crate::raw::mapping::{Mapping, WritableMapping};

/// Name of the map file, which every user can read.
pub const MAP_FILE: &str = "map";
/// Name of the file with users, clients and leaders. Only root and the group of the file can read
/// it.
pub const SESSIONS_FILE: &str = "sessions";
/// Name of the file with the latest events. Only root and the group of the file can read it.
pub const JOURNAL_FILE: &str = "journal";
/// The start of the error message if the system does not report the identity of this boot.
const CANNOT_IDENTIFY_BOOT: &str = "cannot identify this boot for";
/// Name of the file that writers lock. No process replaces this file.
pub const LOCK_FILE: &str = "lock";
/// Name of the file that a process locks while it creates or repairs the map. No process replaces
/// this file.
pub const RELOAD_LOCK_FILE: &str = "reload";

/// The reason why a file of a map cannot be used. The value contains no path, so that a failure
/// allocates nothing.
#[derive(Debug)]
pub(crate) enum OpenFailure {
    /// See [`MapError::Io`].
    Io(&'static str, io::Error),
    /// See [`MapError::Missing`].
    Missing,
    /// See [`MapError::Damaged`].
    Damaged(&'static str),
    /// See [`MapError::OtherBoot`].
    OtherBoot,
    /// See [`MapError::Untrusted`].
    Untrusted(&'static str),
}

impl OpenFailure {
    /// Returns the error for the file at `path`.
    pub(crate) fn at(self, path: PathBuf) -> MapError {
        match self {
            Self::Io(failure, source) => io_error(failure, path, source),
            Self::Missing => MapError::Missing(path),
            Self::Damaged(reason) => MapError::Damaged { path, reason },
            Self::OtherBoot => MapError::OtherBoot(path),
            Self::Untrusted(reason) => MapError::Untrusted { path, reason },
        }
    }
}

/// Opens the file `map` for reading. Allocates nothing on Unix.
pub(crate) fn open_image(directory: &Path) -> Result<MapImage, OpenFailure> {
    let map = open_region(directory, MAP_FILE)?;
    let layout = Layout::read(map.words()).map_err(OpenFailure::Damaged)?;
    Ok(MapImage::new(map, Region::default(), layout))
}

/// Opens the files of a map for writing. The map may belong to another boot.
pub(crate) fn open_writable(directory: &Path) -> Result<WritableMap, MapError> {
    let (map, layout, identity) =
        open_writable_map(directory).map_err(|failure| failure.at(directory.join(MAP_FILE)))?;
    let sessions = open_sessions_file(directory, &layout)?;
    let journal = open_journal(directory, layout.boot)?.unwrap_or_default();
    let mut map = WritableMap::new(map, sessions, journal, layout);
    map.set_identity(identity);
    Ok(map)
}

fn open_writable_map(
    directory: &Path,
) -> Result<(WritableRegion, Layout, FileIdentity), OpenFailure> {
    let file = open_writable_file(directory, MAP_FILE)?;
    let identity =
        FileIdentity::of(&file).map_err(|error| OpenFailure::Io("cannot examine", error))?;
    let map = map_writable(&file)?;
    let layout = Layout::read(map.words()).map_err(OpenFailure::Damaged)?;
    Ok((map, layout, identity))
}

/// Maps the file `name` of a map into memory for reading. Does not check its content. On Unix, the
/// function has no cancellation point (pthreads(7)), because hooks call it.
pub(crate) fn open_region(directory: &Path, name: &str) -> Result<Region, OpenFailure> {
    let file = trusted_file::open_uncancellable(directory, name, false).map_err(open_failure)?;
    Mapping::new(&file).map(Region::from_mapping).map_err(map_failure)
}

/// Maps the file `name` of a map into memory for writing. Does not check its content.
pub(crate) fn open_writable_region(
    directory: &Path,
    name: &str,
) -> Result<WritableRegion, OpenFailure> {
    map_writable(&open_writable_file(directory, name)?)
}

/// Maps a file of a map with [`open_region`] or [`open_writable_region`]. Returns an empty region if
/// the file is missing, empty or not trusted, because such a file contains no data of the map.
///
/// # Errors
/// Fails if the system cannot open the file. Its data may be intact.
pub(crate) fn open_if_usable<T: Default>(
    directory: &Path,
    name: &str,
    open: impl FnOnce(&Path, &str) -> Result<T, OpenFailure>,
) -> Result<T, MapError> {
    match open(directory, name) {
        Err(failure @ OpenFailure::Io(..)) => Err(failure.at(directory.join(name))),
        region => Ok(region.unwrap_or_default()),
    }
}

fn map_writable(file: &File) -> Result<WritableRegion, OpenFailure> {
    WritableMapping::new(file).map(WritableRegion::from_mapping).map_err(map_failure)
}

fn map_failure(error: io::Error) -> OpenFailure {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => OpenFailure::Damaged("it is empty"),
        _ => OpenFailure::Io("cannot map", error),
    }
}

/// Returns whether the file at `path` is the file of this map. Another file is there if the map was
/// removed and a new map was created.
///
/// # Errors
/// Fails if there is no file at `path`, or if the file cannot be examined.
pub(crate) fn is_in_place(path: &Path, map: &WritableMap) -> Result<bool, MapError> {
    let Some(identity) = map.identity() else { return Ok(true) };
    identity.is_at(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => MapError::Missing(path.to_owned()),
        _ => io_error("cannot examine", path.to_owned(), error),
    })
}

fn open_writable_file(directory: &Path, name: &str) -> Result<File, OpenFailure> {
    trusted_file::open(directory, name, true).map_err(open_failure)
}

fn open_failure(error: TrustError) -> OpenFailure {
    match error {
        TrustError::Io(error) if error.kind() == io::ErrorKind::NotFound => OpenFailure::Missing,
        TrustError::Io(error) => OpenFailure::Io("cannot open", error),
        TrustError::Untrusted(reason) => OpenFailure::Untrusted(reason),
    }
}

/// Returns a failure if the map belongs to another boot or network namespace. Allocates nothing on
/// Unix.
pub(crate) fn check_boot(layout: &Layout) -> Result<(), OpenFailure> {
    let boot = identity::current_boot_id()
        .map_err(|error| OpenFailure::Io(CANNOT_IDENTIFY_BOOT, error))?;
    if boot == layout.boot { Ok(()) } else { Err(OpenFailure::OtherBoot) }
}

/// Returns the hash of this boot and network namespace.
pub(crate) fn current_boot_id(directory: &Path) -> Result<u64, MapError> {
    identity::current_boot_id()
        .map_err(|error| io_error(CANNOT_IDENTIFY_BOOT, directory.join(MAP_FILE), error))
}

/// Opens the lock file `name` of a map, and creates it if it does not exist.
pub(crate) fn open_lock(directory: &Path, name: &str) -> Result<FileLock, MapError> {
    let path = || directory.join(name);
    let open = || match open_writable_file(directory, name) {
        Err(OpenFailure::Missing) => {
            match trusted_file::create_new(&path(), 0o600) {
                // Another process has just created the file.
                Err(TrustError::Io(error)) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(TrustError::Io(error)) => return Err(OpenFailure::Io("cannot create", error)),
                Err(TrustError::Untrusted(reason)) => return Err(OpenFailure::Untrusted(reason)),
                Ok(_) => {}
            }
            open_writable_file(directory, name)
        }
        result => result,
    };
    FileLock::open(open, |error| OpenFailure::Io("cannot lock", error)).map_err(|failure| {
        match failure {
            OpenFailure::Io(_, error) if error.kind() == io::ErrorKind::NotFound => {
                MapError::NoDirectory(directory.to_owned())
            }
            failure => failure.at(path()),
        }
    })
}

/// Zeroed, fully allocated files for a map and its sessions, under temporary names.
pub(crate) struct NewFiles<'a> {
    pub(crate) map: WritableRegion,
    pub(crate) sessions: WritableRegion,
    /// The identity of the map file.
    pub(crate) identity: FileIdentity,
    pub(crate) temporary_files: TemporaryFiles<'a>,
}

impl<'a> NewFiles<'a> {
    /// Creates the files. Replaces existing temporary files. The caller holds the reload lock, so no
    /// other process uses these files.
    pub(crate) fn create(
        directory: &'a Path,
        map_word_count: usize,
        sessions_word_count: usize,
    ) -> Result<Self, MapError> {
        let create_file = |name, word_count: usize, mode| {
            let path = temporary_path(directory, name);
            let map_new_file = || {
                let file = trusted_file::create(&path, word_count as u64 * 8, mode)?;
                trusted_file::keep_group(&file, &directory.join(name));
                let region = WritableRegion::from_mapping(WritableMapping::new(&file)?);
                Ok((region, FileIdentity::of(&file)?))
            };
            map_new_file().map_err(|error| {
                _ = std::fs::remove_file(&path);
                trust_error("cannot create", path.clone(), error)
            })
        };
        // Declared before the mappings, so that it is dropped after them.
        let mut temporary_files =
            TemporaryFiles { directory, identities: [None; 2], is_published: false };
        let (map, identity) = create_file(MAP_FILE, map_word_count, 0o644)?;
        temporary_files.identities[0] = Some(identity);
        let (sessions, sessions_identity) = create_file(SESSIONS_FILE, sessions_word_count, 0o640)?;
        temporary_files.identities[1] = Some(sessions_identity);
        Ok(Self { map, sessions, identity, temporary_files })
    }
}

/// The new files that this process has created under temporary names. They are removed when this
/// value is dropped, unless [`TemporaryFiles::publish`] has renamed them. Drop the mappings of the
/// files first, because Windows does not remove a mapped file.
///
/// On Unix, a file of another process under a temporary name is neither renamed nor removed. Such a
/// file can appear if the reload lock was lost, or if the other process does not know the reload
/// lock. On Windows a file has no identity, so only its existence is checked.
#[derive(Debug)]
pub(crate) struct TemporaryFiles<'a> {
    directory: &'a Path,
    /// The map file and the sessions file, if they were created.
    identities: [Option<FileIdentity>; 2],
    is_published: bool,
}

impl TemporaryFiles<'_> {
    /// Returns the directory of the files.
    pub(crate) fn directory(&self) -> &Path {
        self.directory
    }

    /// Returns whether both files still have their temporary names. [`remove`] removes them without
    /// the reload lock.
    pub(crate) fn exist(&self) -> bool {
        self.paths().all(|(_, is_in_place)| is_in_place)
    }

    /// Returns the temporary path of each file, and whether the file is at this path.
    fn paths(&self) -> impl Iterator<Item = (PathBuf, bool)> {
        [MAP_FILE, SESSIONS_FILE].into_iter().zip(self.identities).map(|(name, identity)| {
            let path = temporary_path(self.directory, name);
            // On Windows, `is_at` is always true.
            let is_in_place =
                path.exists() && identity.is_some_and(|file| file.is_at(&path).unwrap_or(false));
            (path, is_in_place)
        })
    }

    /// Returns an error unless both files still have their temporary names.
    pub(crate) fn check(&self) -> Result<(), MapError> {
        for (name, identity) in [MAP_FILE, SESSIONS_FILE].into_iter().zip(self.identities) {
            let path = temporary_path(self.directory, name);
            match identity.map(|file| file.is_at(&path)) {
                Some(Ok(true)) => {}
                Some(Err(error)) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(io_error("cannot examine", path, error));
                }
                _ => {
                    let path = self.directory.join(RELOAD_LOCK_FILE);
                    let reason = "another process has replaced the new files of the map";
                    return Err(MapError::LockLost { path, reason });
                }
            }
        }
        Ok(())
    }

    /// Renames the new files to their final names: first the map, then the sessions file.
    ///
    /// If a process dies between the two renames, the next writer finds the new sessions file under
    /// its temporary name. In the opposite order, the old map would be in place without its sessions
    /// file.
    pub(crate) fn publish(mut self) -> Result<(), MapError> {
        publish_file(self.directory, MAP_FILE)?;
        // The map is in place now, so its sessions file must not be removed.
        self.is_published = true;
        publish_file(self.directory, SESSIONS_FILE)
    }
}

impl Drop for TemporaryFiles<'_> {
    fn drop(&mut self) {
        if !self.is_published {
            for (path, _) in self.paths().filter(|(_, is_in_place)| *is_in_place) {
                _ = std::fs::remove_file(path);
            }
        }
    }
}

/// Opens the sessions file of a map. Returns an empty region if the directory has no trusted
/// sessions file of this map.
///
/// If the creator of the file died before it published the file, opens the file under its temporary
/// name.
fn open_sessions_file(directory: &Path, layout: &Layout) -> Result<WritableRegion, MapError> {
    let unpublished_name = temporary_name(SESSIONS_FILE);
    // Try the final name again at the end: another process can rename the file between the first
    // two attempts.
    for name in [SESSIONS_FILE, &unpublished_name, SESSIONS_FILE] {
        match open_writable_region(directory, name) {
            Ok(region) if layout.is_sessions_file(region.words()) => return Ok(region),
            Err(failure @ OpenFailure::Io(..)) => return Err(failure.at(directory.join(name))),
            _ => {}
        }
    }
    Ok(WritableRegion::default())
}

/// Opens the journal of this boot. If there is none, creates an empty journal. The caller holds the
/// writer lock.
pub(crate) fn open_or_create_journal(
    directory: &Path,
    boot: u64,
) -> Result<WritableRegion, MapError> {
    match open_journal(directory, boot)? {
        Some(region) => Ok(region),
        None => create_journal(directory, boot).map_err(|error| {
            trust_error("cannot create", temporary_path(directory, JOURNAL_FILE), error)
        }),
    }
}

/// Opens the journal. Returns `None` if no journal of this boot exists, or if the journal is
/// damaged or not trusted.
///
/// # Errors
/// Fails if the system cannot open an existing file. The events in this file may be intact, and a
/// new journal would replace them.
fn open_journal(directory: &Path, boot: u64) -> Result<Option<WritableRegion>, MapError> {
    let is_current = |region: &WritableRegion| {
        journal::is_journal(region.words()) && journal::boot(region.words()) == boot
    };
    let region = open_if_usable(directory, JOURNAL_FILE, open_writable_region)?;
    Ok(Some(region).filter(is_current))
}

fn create_journal(directory: &Path, boot: u64) -> Result<WritableRegion, TrustError> {
    let new_path = temporary_path(directory, JOURNAL_FILE);
    let path = directory.join(JOURNAL_FILE);
    let file = trusted_file::create(&new_path, JOURNAL_WORDS as u64 * 8, 0o640)?;
    trusted_file::keep_group(&file, &path);
    let mut region = WritableRegion::from_mapping(WritableMapping::new(&file)?);
    let (words, access) = region.write_access();
    journal::write_header(access, words, boot);
    trusted_file::replace(&new_path, &path)?;
    Ok(region)
}

fn publish_file(directory: &Path, name: &str) -> Result<(), MapError> {
    let path = directory.join(name);
    trusted_file::replace(&temporary_path(directory, name), &path)
        .map_err(|error| io_error("cannot replace", path, error))
}

/// Renames the sessions file of this map to its final name if the creator of the file died before
/// the rename. The caller holds the reload lock and the writer lock.
pub(crate) fn finish_publishing(directory: &Path, layout: &Layout) -> Result<(), MapError> {
    let unpublished_name = temporary_name(SESSIONS_FILE);
    let is_sessions_file = |region: Region| layout.is_sessions_file(region.words());
    // An error ends the call, because only this file has the users of the map, and a new map would
    // replace it. The closure drops the mapping before the rename, because Windows does not replace
    // a mapped file.
    match open_if_usable(directory, &unpublished_name, open_region).map(is_sessions_file)? {
        true => publish_file(directory, SESSIONS_FILE),
        false => Ok(()),
    }
}

/// Returns whether the directory has a temporary file of the map or of its sessions. If this process
/// holds the reload lock and has created no such file, the creator died before the rename.
pub(crate) fn has_temporary_files(directory: &Path) -> bool {
    [MAP_FILE, SESSIONS_FILE].into_iter().any(|name| temporary_path(directory, name).exists())
}

/// Removes the map and its sessions file. The caller holds the writer lock. Another process can hold
/// the reload lock: see [`TemporaryFiles::exist`].
pub(crate) fn remove(directory: &Path) -> Result<(), MapError> {
    remove_temporary_files(directory);
    for name in [MAP_FILE, SESSIONS_FILE] {
        let path = directory.join(name);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(io_error("cannot remove", path, error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Removes the new files that still have their temporary names.
fn remove_temporary_files(directory: &Path) {
    for name in [MAP_FILE, SESSIONS_FILE] {
        _ = std::fs::remove_file(temporary_path(directory, name));
    }
}

/// Renames the map and its sessions file to unused names with the suffix `.damaged-N`. Returns the
/// new paths. If a file cannot be renamed, both keep their names. The caller holds the reload lock
/// and the writer lock.
pub(crate) fn set_aside(directory: &Path) -> Result<Vec<PathBuf>, MapError> {
    let damaged_path = |name: &str, number: u32| directory.join(format!("{name}.damaged-{number}"));
    let names = [MAP_FILE, SESSIONS_FILE];
    let unused_number = (1..=u32::MAX)
        .find(|number| names.iter().all(|name| !damaged_path(name, *number).exists()))
        .unwrap_or(u32::MAX);
    let mut new_paths = Vec::new();
    for name in names {
        let new_path = damaged_path(name, unused_number);
        match std::fs::rename(directory.join(name), &new_path) {
            Ok(()) => new_paths.push(new_path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                restore_aside(directory, &new_paths);
                return Err(io_error("cannot rename", directory.join(name), error));
            }
        }
    }
    Ok(new_paths)
}

/// Gives the files that [`set_aside`] has renamed their names again, unless a new map is in place.
pub(crate) fn restore_aside(directory: &Path, set_aside: &[PathBuf]) {
    if directory.join(MAP_FILE).exists() {
        return;
    }
    for path in set_aside {
        if let Some(name) = path.file_stem() {
            _ = std::fs::rename(path, directory.join(name));
        }
    }
}

fn temporary_path(directory: &Path, name: &str) -> PathBuf {
    directory.join(temporary_name(name))
}

fn temporary_name(name: &str) -> String {
    format!("{name}.new")
}

/// Returns the error for an operation that needs the sessions file, if that file cannot be used.
pub(crate) fn unusable_sessions_file() -> MapError {
    let reason = "it is missing, damaged or not trusted, so users are unknown (run 'vipool up')";
    MapError::Damaged { path: SESSIONS_FILE.into(), reason }
}

fn trust_error(failure: &'static str, path: PathBuf, error: TrustError) -> MapError {
    match error {
        TrustError::Io(source) => io_error(failure, path, source),
        TrustError::Untrusted(reason) => MapError::Untrusted { path, reason },
    }
}

fn io_error(failure: &'static str, path: PathBuf, source: io::Error) -> MapError {
    MapError::Io { failure, path, source }
}
