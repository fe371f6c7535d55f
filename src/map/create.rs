//! [`Map::create`]: builds the files of a map from a plan and keeps the sessions of the previous
//! map.

use std::path::Path;
use std::time::Duration;

use super::engine::files;
use super::engine::reap::Probe;
use super::engine::writer::WritableMap;
use super::format::header::LOCK_HOLDER;
use super::reload_lock::ReloadLock;
use super::replan::build::{file_bytes, keep_if_unchanged, publish, replace_files};
use super::replan::prepare::{Finished, PreparedMap};
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
    /// Other processes can open and close sessions while this function builds the map. In these
    /// cases, it holds the lock for its whole time instead: two pools of the new map contain the
    /// same address; the plan lacks a pool of the old map; a session opens or closes meanwhile at an
    /// address that the plan reserves; a process dies while it opens a session; or the last call or
    /// an exclusive writer was killed. A map keeps the slots of an address that moved to another
    /// pool, so the first case also applies to later calls.
    ///
    /// A second call waits until the first call has ended, at most 30 seconds.
    ///
    /// # Errors
    /// Fails if no map can be built from the plan, another process holds the lock or replaces the
    /// map, or the files cannot be created. Also fails if the old map is damaged; [`Map::repair`]
    /// replaces it.
    pub fn create(directory: &Path, plan: &Plan) -> Result<Self, MapError> {
        Self::create_at(directory, plan, Tick::now())
    }

    /// Creates the files of a map like [`Map::create`], at the time `now`. Use this function if the
    /// other operations receive the time from another clock than [`Tick::now`].
    ///
    /// # Errors
    /// Fails as [`Map::create`] does.
    pub fn create_at(directory: &Path, plan: &Plan, now: Tick) -> Result<Self, MapError> {
        Self::create_and_initialize(directory, plan, now, |_| {})
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
        Self::create_and_initialize(directory, plan, now, |map| {
            map.transact(|transaction| transaction.withhold_slots_in_use(now, probe));
        })
    }

    /// Creates the files of a map. Runs `initialize` under the lock if the directory had no map.
    fn create_and_initialize(
        directory: &Path,
        plan: &Plan,
        now: Tick,
        initialize: impl FnOnce(&mut WritableMap),
    ) -> Result<Self, MapError> {
        validate(plan)?;
        let boot = files::current_boot_id(directory)?;
        let reload_lock = ReloadLock::acquire(directory)?;
        let lock = WriterLock::open(directory)?;
        let read_holder =
            || files::open_image(directory).map(|map| LockHolder::read(&map)).unwrap_or_default();
        // An exclusive holder keeps the lock for a long time. So do not build a map that cannot be
        // published, and do not wait for the lock. If the holder has died, the first attempt
        // succeeds.
        let prepared_map = match read_holder().is_exclusive {
            true => None,
            false => PreparedMap::new(directory, plan, boot, now)?,
        };
        let timeout = if read_holder().is_exclusive { Duration::ZERO } else { LOCK_TIMEOUT };
        if !lock.acquire(timeout)? {
            return Err(read_holder().to_error());
        }
        let mut old_map = files::open_writable(directory);
        let new_map = reload_lock.check().and_then(|()| match &mut old_map {
            Ok(old_map) => update_files(directory, plan, boot, old_map, prepared_map, now),
            Err(MapError::Missing(_)) => {
                // Remove the prepared files before new files are created.
                drop(prepared_map);
                replace_files(directory, plan, boot, None, now).map(|mut map| {
                    initialize(&mut map);
                    Some(map)
                })
            }
            Err(_) => Ok(None),
        });
        // Release the lock before the old map is dropped: the kernel needs a long time to free the
        // memory of a large map.
        lock.release();
        let map = match new_map? {
            Some(new_map) => new_map,
            None => old_map?,
        };
        Ok(Self::with_lock(map, lock))
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

/// Applies a plan to an existing map. Returns the new map, or `None` if the old map stays in place.
/// The caller holds the reload lock and the writer lock.
fn update_files(
    directory: &Path,
    plan: &Plan,
    boot: u64,
    old_map: &mut WritableMap,
    prepared_map: Option<PreparedMap<'_>>,
    now: Tick,
) -> Result<Option<WritableMap>, MapError> {
    let writer = old_map.writer();
    writer.store_header(LOCK_HOLDER, LockHolder::this_process(false));
    writer.recover_if_needed();
    let new_map = files::finish_publishing(directory, old_map.layout()).and_then(|()| {
        let finished =
            prepared_map.map_or(Finished::Outdated, |map| map.finish(old_map, plan, now));
        match finished {
            Finished::Unchanged => return Ok(None),
            Finished::Complete(new_map) => {
                return publish(new_map, boot, Some(old_map), || Ok(())).map(Some);
            }
            Finished::Outdated => {}
        }
        if keep_if_unchanged(old_map, directory, plan, boot, now)? {
            return Ok(None);
        }
        replace_files(directory, plan, boot, Some(old_map), now).map(Some)
    });
    old_map.writer().store_header(LOCK_HOLDER, 0);
    new_map
}
