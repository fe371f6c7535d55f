//! [`Map::create`]: the files of a map from a plan, with the sessions of the map before.

use std::path::Path;
use std::time::Duration;

use super::engine::files;
use super::engine::writer::WritableMap;
use super::format::header::LOCK_HOLDER;
use super::replan::build::{keep_if_unchanged, replace_files};
use super::replan::validate::validate;
use super::types::error::MapError;
use super::types::plan::Plan;
use super::writer::Map;
use super::writer_lock::{LOCK_TIMEOUT, LockHolder, WriterLock};

impl Map {
    /// Creates the files of a map in a directory and opens them.
    ///
    /// If the directory has a map of this boot, its sessions are kept with their addresses and
    /// handles. An address that the plan no longer has is not allocated again after its session
    /// releases it. An address that is in another pool of the plan keeps its state there: it is not
    /// allocated before its session has released it and it has cooled down. A pool that the plan no
    /// longer has exists until none of its addresses is leased or cools down.
    ///
    /// The old file is marked as superseded. If the new file would have the same content, the old
    /// one stays in place, so repeated configuration does not disturb running programs.
    ///
    /// # Errors
    /// Fails if no map can be built from the plan, another writer holds the lock, or the files
    /// cannot be created. A damaged map is not replaced: the error names the file to remove.
    pub fn create(directory: &Path, plan: &Plan) -> Result<Self, MapError> {
        validate(plan)?;
        let boot = files::current_boot_id(directory)?;
        let lock = WriterLock::open(directory)?;
        let holder = || {
            let map = files::open_writable(directory).ok();
            map.map(|map| LockHolder::read(&map)).unwrap_or_default()
        };
        // An exclusive holder does not release the lock soon, so waiting is useless. If it has died,
        // the first attempt succeeds.
        let timeout = if holder().is_exclusive { Duration::ZERO } else { LOCK_TIMEOUT };
        if !lock.acquire(timeout)? {
            return Err(holder().to_error());
        }
        let map = match files::open_writable(directory) {
            Ok(old) => update_files(directory, plan, boot, old),
            Err(MapError::Missing(_)) => replace_files(directory, plan, boot, None),
            Err(error) => Err(error),
        };
        lock.release();
        Ok(Self::shared(map?, lock))
    }
}

/// Applies a plan to a map that exists. Returns the old map if it stays in place.
fn update_files(
    directory: &Path,
    plan: &Plan,
    boot: u64,
    mut old: WritableMap,
) -> Result<WritableMap, MapError> {
    let writer = old.writer();
    writer.store_header(LOCK_HOLDER, LockHolder::this_process(false));
    writer.recover_if_needed();
    let result = files::finish_publishing(directory, old.layout())
        .and_then(|()| keep_if_unchanged(&mut old, directory, plan, boot))
        .and_then(|is_kept| match is_kept {
            true => Ok(None),
            false => replace_files(directory, plan, boot, Some(&mut old)).map(Some),
        });
    old.writer().store_header(LOCK_HOLDER, 0);
    Ok(result?.unwrap_or(old))
}
