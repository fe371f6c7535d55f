//! [`Map::create`]: builds the files of a map from a plan and keeps the sessions of the previous
//! map.

use std::path::Path;
use std::time::Duration;

use super::engine::files;
use super::engine::reap::Probe;
use super::engine::writer::WritableMap;
use super::format::header::LOCK_HOLDER;
use super::replan::build::{file_bytes, keep_if_unchanged, replace_files};
use super::replan::validate::validate;
use super::types::error::MapError;
use super::types::plan::Plan;
use super::writer::Map;
use super::writer_lock::{LOCK_TIMEOUT, LockHolder, WriterLock};
use crate::Tick;

impl Map {
    /// Creates the files of a map in a directory and opens them.
    ///
    /// If the directory has a map of this boot, the sessions of that map keep their addresses and
    /// handles. If the plan no longer has an address, the map does not allocate the address again
    /// after its session has released it. If the plan moves an address to another pool, the address
    /// keeps its state. The new pool allocates the address only after its session has released it,
    /// and the usual cool-down applies.
    ///
    /// The map keeps a pool that the plan no longer has if an address of this pool is still leased.
    /// It also keeps the pool if an address of this pool cools down or lingers, and no pool of the
    /// plan has the address. A later call removes the pool.
    ///
    /// If the new map file would have the same content as the old file, the old file stays in
    /// place. So running programs need not attach again after the same plan was applied twice.
    /// Otherwise, this function marks the old map file as superseded.
    ///
    /// # Errors
    /// Fails if no map can be built from the plan, another writer holds the lock, or the files
    /// cannot be created. Also fails if the old map is damaged; [`Map::repair`] replaces it.
    pub fn create(directory: &Path, plan: &Plan) -> Result<Self, MapError> {
        Self::create_at(directory, plan, Tick::now())
    }

    /// Creates the files of a map like [`Map::create`], at the time `now`. Use this function if the
    /// other operations receive the time from another clock than [`Tick::now`].
    ///
    /// # Errors
    /// Fails as [`Map::create`] does.
    pub fn create_at(directory: &Path, plan: &Plan, now: Tick) -> Result<Self, MapError> {
        Self::create_and_prepare(directory, plan, now, |_| {})
    }

    /// Creates the files of a map like [`Map::create`], for a directory whose map may have been
    /// lost while sessions were open.
    ///
    /// If the directory has no map, programs of such sessions may still use addresses of the plan.
    /// So each address on which `probe` finds sockets lingers: no session gets the address until
    /// [`Map::reap`] finds no socket on it. No session can open before the probe has ended.
    ///
    /// # Errors
    /// Fails in the same cases as [`Map::create`].
    pub fn create_after_loss(
        directory: &Path,
        plan: &Plan,
        now: Tick,
        probe: &mut dyn Probe,
    ) -> Result<Self, MapError> {
        Self::create_and_prepare(directory, plan, now, |map| {
            map.transact(|transaction| transaction.withhold_slots_in_use(now, probe));
        })
    }

    /// Creates the files of a map. Runs `prepare` under the lock if the directory had no map.
    fn create_and_prepare(
        directory: &Path,
        plan: &Plan,
        now: Tick,
        prepare: impl FnOnce(&mut WritableMap),
    ) -> Result<Self, MapError> {
        validate(plan)?;
        let boot = files::current_boot_id(directory)?;
        let lock = WriterLock::open(directory)?;
        let read_holder = || {
            let map = files::open_writable(directory).ok();
            map.map(|map| LockHolder::read(&map)).unwrap_or_default()
        };
        // Do not wait for an exclusive holder, which keeps the lock for a long time. If the holder
        // has died, the first attempt succeeds.
        let timeout = if read_holder().is_exclusive { Duration::ZERO } else { LOCK_TIMEOUT };
        if !lock.acquire(timeout)? {
            return Err(read_holder().to_error());
        }
        let map = match files::open_writable(directory) {
            Ok(old_map) => update_files(directory, plan, boot, old_map, now),
            Err(MapError::Missing(_)) => {
                replace_files(directory, plan, boot, None, now).map(|mut map| {
                    prepare(&mut map);
                    map
                })
            }
            Err(error) => Err(error),
        };
        lock.release();
        Ok(Self::with_lock(map?, lock))
    }
}

impl Plan {
    /// Returns the number of bytes that the files of a new map take.
    ///
    /// [`Map::create`] writes every byte, so the time to create a map grows with this number: a
    /// gigabyte takes seconds. Files in `/run` take memory.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        file_bytes(self)
    }
}

/// Applies a plan to an existing map. Returns the old map if it stays in place, else the new map.
fn update_files(
    directory: &Path,
    plan: &Plan,
    boot: u64,
    mut old_map: WritableMap,
    now: Tick,
) -> Result<WritableMap, MapError> {
    let writer = old_map.writer();
    writer.store_header(LOCK_HOLDER, LockHolder::this_process(false));
    writer.recover_if_needed();
    let new_map = files::finish_publishing(directory, old_map.layout())
        .and_then(|()| keep_if_unchanged(&mut old_map, directory, plan, boot, now))
        .and_then(|is_kept| match is_kept {
            true => Ok(None),
            false => replace_files(directory, plan, boot, Some(&mut old_map), now).map(Some),
        });
    old_map.writer().store_header(LOCK_HOLDER, 0);
    Ok(new_map?.unwrap_or(old_map))
}
