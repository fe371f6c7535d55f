//! The files of a map in their directory: opening them, and putting new ones in their place.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use crate::map::format::layout::{self, Layout};
use crate::map::format::region::Region;
use crate::map::journal;
use crate::map::types::outcome::MapError;
use crate::map::{JOURNAL_FILE, LOCK_FILE, MAP_FILE, SESSIONS_FILE};
use crate::os::identity;
use crate::os::lock::FileLock;
use crate::os::trust::{self, Refused};
use crate::raw::mapping::Mapping;

/// Opens one of the files and checks that it is what it should be.
pub(crate) fn open(
    directory: &Path,
    name: &str,
    write: bool,
) -> Result<(Region, Layout), MapError> {
    let region = open_region(directory, name, write)?;
    match Layout::read(region.words()) {
        Ok(layout) => Ok((region, layout)),
        Err(reason) => Err(MapError::Damaged { path: directory.join(name), reason }),
    }
}

/// Maps one of the files, whatever it holds.
pub(crate) fn open_region(directory: &Path, name: &str, write: bool) -> Result<Region, MapError> {
    let path = || directory.join(name);
    let file = open_file(directory, name, write)?;
    match Mapping::new(&file, write) {
        Ok(mapping) => Ok(Region::from_mapping(mapping)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Err(MapError::Damaged { path: path(), reason: "it is empty" })
        }
        Err(error) => Err(io_error("cannot map", path(), error)),
    }
}

fn open_file(directory: &Path, name: &str, write: bool) -> Result<File, MapError> {
    let path = || directory.join(name);
    trust::open(directory, name, write).map_err(|refused| match refused {
        Refused::Io(error) if error.kind() == io::ErrorKind::NotFound => MapError::Missing(path()),
        Refused::Io(error) => io_error("cannot open", path(), error),
        Refused::Untrusted(reason) => MapError::Untrusted { path: path(), reason },
    })
}

/// Refuses a map of another boot or network namespace.
pub(crate) fn check_identity(directory: &Path, layout: &Layout) -> Result<(), MapError> {
    if here(directory)? == layout.boot {
        Ok(())
    } else {
        Err(MapError::OtherBoot(directory.join(MAP_FILE)))
    }
}

/// This boot and network namespace.
pub(crate) fn here(directory: &Path) -> Result<u64, MapError> {
    identity::current_boot_id().map_err(|error| {
        io_error("cannot tell this boot from others, for", directory.join(MAP_FILE), error)
    })
}

/// The lock of the writers of the map in this directory, made if it is not there.
pub(crate) fn lock(directory: &Path) -> Result<FileLock, MapError> {
    let path = directory.join(LOCK_FILE);
    let file = match open_file(directory, LOCK_FILE, true) {
        Err(MapError::Missing(_)) => {
            match trust::create_new(&path) {
                // Somebody else made it at the same time.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(io_error("cannot make", path, error)),
                Ok(_) => {}
            }
            open_file(directory, LOCK_FILE, true)?
        }
        other => other?,
    };
    FileLock::new(file).map_err(|error| io_error("cannot lock", path, error))
}

/// Makes new files for a map and its private twin, zeroed and fully allocated, under names of
/// their own until [`put_in_place`]. The caller holds the lock: what bears these names was left by
/// somebody who died, and is removed.
pub(crate) fn make(
    directory: &Path,
    map_words: usize,
    private_words: usize,
) -> Result<(Region, Region), MapError> {
    let make = |name, words: usize, mode| {
        let path = temporary(directory, name);
        trust::create(&path, words as u64 * 8, mode)
            .and_then(|file| Mapping::new(&file, true))
            .map(Region::from_mapping)
            .map_err(|error| io_error("cannot make", path, error))
    };
    let map = make(MAP_FILE, map_words, 0o644)?;
    let private =
        make(SESSIONS_FILE, private_words, 0o640).inspect_err(|_| remove_new(directory))?;
    Ok((map, private))
}

/// The private twin of a map. It bears the name it was made under until it is put in its place, or
/// for good if its maker dies before. Nothing where there is none, or it is not to be trusted.
pub(crate) fn private_twin(directory: &Path, layout: &Layout) -> Result<Region, MapError> {
    let new = new_name(SESSIONS_FILE);
    // The place again: it may have been put there meanwhile.
    for name in [SESSIONS_FILE, &new, SESSIONS_FILE] {
        match open_region(directory, name, true) {
            Ok(region) if layout::is_private_twin(region.words(), layout) => return Ok(region),
            Err(error @ MapError::Io { .. }) => return Err(error),
            _ => {}
        }
    }
    Ok(Region::default())
}

/// The journal in this directory, if there is one of this boot.
pub(crate) fn journal(directory: &Path, boot: u64) -> Option<Region> {
    let region = open_region(directory, JOURNAL_FILE, true).ok()?;
    journal::is_of(region.words(), boot).then_some(region)
}

/// Makes an empty journal. The caller holds the lock.
pub(crate) fn make_journal(directory: &Path, boot: u64) -> io::Result<Region> {
    let new = temporary(directory, JOURNAL_FILE);
    let file = trust::create(&new, journal::WORDS as u64 * 8, 0o640)?;
    let region = Region::from_mapping(Mapping::new(&file, true)?);
    journal::begin(region.words(), boot);
    trust::replace(&new, &directory.join(JOURNAL_FILE))?;
    Ok(region)
}

/// Puts the new files in the place of older ones, the map first: [`private_twin`] finds its twin under
/// either name, but not that of a map whose twin was written over.
pub(crate) fn put_in_place(directory: &Path) -> Result<(), MapError> {
    place(directory, MAP_FILE).inspect_err(|_| remove_new(directory))?;
    place(directory, SESSIONS_FILE)
}

fn place(directory: &Path, name: &str) -> Result<(), MapError> {
    let path = directory.join(name);
    trust::replace(&temporary(directory, name), &path)
        .map_err(|error| io_error("cannot replace", path, error))
}

/// Puts the private twin of this map in its place, should its maker have died before that. The caller
/// holds the lock.
pub(crate) fn finish_placing(directory: &Path, layout: &Layout) -> Result<(), MapError> {
    let new = new_name(SESSIONS_FILE);
    let is_twin = |region: Region| layout::is_private_twin(region.words(), layout);
    // The mapping is gone by the time the file gets its name.
    if !open_region(directory, &new, true).is_ok_and(is_twin) {
        return Ok(());
    }
    place(directory, SESSIONS_FILE)
}

/// Whether a maker died before its files were in place.
pub(crate) fn has_new(directory: &Path) -> bool {
    [MAP_FILE, SESSIONS_FILE].into_iter().any(|name| temporary(directory, name).exists())
}

/// Removes new files that were not put in place.
pub(crate) fn remove_new(directory: &Path) {
    for name in [MAP_FILE, SESSIONS_FILE] {
        _ = std::fs::remove_file(temporary(directory, name));
    }
}

fn temporary(directory: &Path, name: &str) -> PathBuf {
    directory.join(new_name(name))
}

fn new_name(name: &str) -> String {
    format!("{name}.new")
}

fn io_error(what: &'static str, path: PathBuf, source: io::Error) -> MapError {
    MapError::Io { what, path, source }
}
