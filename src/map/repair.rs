//! [`Map::repair`]: replaces a damaged map and keeps the leases that are readable.

use std::path::{Path, PathBuf};

use super::engine::files;
use super::engine::writer::WritableMap;
use super::format::header::{
    BOOT, BUSY, FILE_ID, FIXED_WORDS, HEADER_WORDS, LOCK_HOLDER, REPLACED, SUPERSEDED,
};
use super::format::layout::{self, Layout};
use super::format::region::{Region, WritableRegion};
use super::format::words::{load, store};
use super::reload_lock::ReloadLock;
use super::replan::build::replace_files_after;
use super::replan::merge::new_pools;
use super::replan::validate::validate;
use super::types::error::MapError;
use super::types::plan::Plan;
use super::writer::Map;
use super::writer_lock::{LOCK_TIMEOUT, LockHolder, WriterLock};
use crate::Tick;

/// The result of [`Map::repair`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RepairReport {
    /// The reason why the map could not be opened.
    pub reason: &'static str,
    /// The new names of the damaged map and of its sessions file.
    pub set_aside: Vec<PathBuf>,
    /// Whether the new map contains the readable leases of the damaged map. If not, the damaged map
    /// belonged to another boot, had another version, or was longer than a map of the given plan.
    pub kept_leases: bool,
}

impl Map {
    /// Replaces a damaged map: renames its files and builds a new map from `plan`. Returns `None`
    /// if the map is not damaged. In this case, nothing changes.
    ///
    /// `plan` must be the plan with which the damaged map was created, because the plan determines
    /// the position of each slot. If the damaged map replaced a map with another plan, its slots
    /// can have other positions.
    ///
    /// The readable leases of the damaged map and their handles stay valid. A lease whose slot is
    /// damaged is lost, and no error reports the loss: compare the sessions of the new map with
    /// other records.
    ///
    /// # Errors
    /// Fails if the plan is not valid, there is no map, the map is not trusted, another process
    /// holds the lock or replaces the map, or the files cannot be read, renamed or created. In this
    /// case, the damaged files keep their names.
    pub fn repair(directory: &Path, plan: &Plan) -> Result<Option<RepairReport>, MapError> {
        validate(plan)?;
        let boot = files::current_boot_id(directory)?;
        let _reload_lock = ReloadLock::acquire(directory)?;
        let lock = WriterLock::open(directory)?;
        if !lock.acquire(LOCK_TIMEOUT)? {
            return Err(LockHolder::default().to_error());
        }
        let report = match files::open_writable(directory) {
            // An earlier call may have failed before it renamed the new sessions file.
            Ok(map) => files::finish_publishing(directory, map.layout()).map(|()| None),
            Err(MapError::Damaged { reason, .. }) => {
                replace_damaged(directory, plan, boot).map(|(set_aside, kept_leases)| {
                    Some(RepairReport { reason, set_aside, kept_leases })
                })
            }
            Err(error) => Err(error),
        };
        lock.release();
        report
    }
}

/// Replaces a damaged map. Returns the new names of the damaged files, and whether the new map
/// contains the readable leases. The caller holds the reload lock and the writer lock.
fn replace_damaged(
    directory: &Path,
    plan: &Plan,
    boot: u64,
) -> Result<(Vec<PathBuf>, bool), MapError> {
    let mut damaged =
        files::open_if_usable(directory, files::MAP_FILE, files::open_writable_region)?;
    let sessions = files::open_if_usable(directory, files::SESSIONS_FILE, files::open_region)?;
    let mut recovered_map = recover_map(&damaged, &sessions, plan, boot);
    let mut set_aside = Vec::new();
    let rename_damaged_files = || {
        set_aside = files::set_aside(directory)?;
        Ok(())
    };
    let old_map = recovered_map.as_mut();
    replace_files_after(directory, plan, boot, old_map, Tick::now(), rename_damaged_files)
        .inspect_err(|_| files::restore_aside(directory, &set_aside))?;
    // Running programs have mapped the damaged file. This mark makes these programs use the new
    // map.
    let (words, access) = damaged.write_access();
    store(access, words, SUPERSEDED, REPLACED);
    Ok((set_aside, recovered_map.is_some()))
}

/// Builds a map in memory: the fixed part from the plan, the slots and sessions from the damaged
/// files. Returns `None` if the files belong to another boot, or if the map has another version or
/// is longer than a map of this plan.
fn recover_map(map: &Region, sessions: &Region, plan: &Plan, boot: u64) -> Option<WritableMap> {
    let (pools, policy) = (new_pools(plan), plan.policy.encode());
    let word_count = layout::map_word_count(&pools, policy.len());
    let is_same_boot = [map, sessions].iter().any(|region| load(region.words(), BOOT) == boot);
    // A shorter map was truncated. Its missing slots are free.
    if !is_same_boot || map.words().len() > word_count || layout::has_other_version(map.words()) {
        return None;
    }
    let mut new_map = WritableRegion::in_memory(word_count);
    let (words, access) = new_map.write_access();
    let copied_header_offsets = (FIXED_WORDS..HEADER_WORDS)
        .filter(|offset| ![SUPERSEDED, BUSY, LOCK_HOLDER].contains(offset));
    let table_offsets = layout::tables_offset(&pools, policy.len())..word_count;
    for offset in copied_header_offsets.chain(table_offsets) {
        store(access, words, offset, load(map.words(), offset));
    }
    let file_id = load(sessions.words(), FILE_ID);
    layout::write(access, words, &pools, &policy, &plan.settings, boot, file_id);
    let layout = Layout::read(new_map.words()).ok()?;
    let new_sessions = match layout.is_sessions_file(sessions.words()) {
        true => copy_region(sessions),
        false => WritableRegion::default(),
    };
    Some(WritableMap::new(new_map, new_sessions, WritableRegion::default(), layout))
}

fn copy_region(region: &Region) -> WritableRegion {
    let mut copy = WritableRegion::in_memory(region.words().len());
    let (words, access) = copy.write_access();
    for (offset, word) in region.words().iter().enumerate() {
        store(access, words, offset, word.load());
    }
    copy
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::map::OpenOptions;
    use crate::pool::{Pool, PoolKind};

    fn plan() -> Plan {
        let ranges = ["10.0.5.10-10.0.5.29".parse().unwrap()];
        Plan::new([Pool::new("default", PoolKind::VirtualIp, &ranges, u32::MAX).unwrap()])
    }

    /// Creates a map with two sessions and damages it. Returns its directory, and the handle of
    /// session 1.
    fn damaged_map(damage: impl Fn(&mut Vec<u8>)) -> (tempfile::TempDir, crate::session::Handle) {
        let directory = tempfile::tempdir().unwrap();
        let map = Map::create(directory.path(), &plan()).unwrap();
        let open = |session: &str, user| {
            let options = OpenOptions::new().with_user(user);
            map.open_session(session.parse().unwrap(), &options, Tick::from_secs(9)).unwrap()
        };
        let handle = open("1", "ann").handle;
        open("2", "bob");
        drop(map);
        let file = directory.path().join(files::MAP_FILE);
        let mut bytes = std::fs::read(&file).unwrap();
        damage(&mut bytes);
        std::fs::write(&file, bytes).unwrap();
        (directory, handle)
    }

    #[test]
    fn leases_survive_a_damaged_fixed_part() {
        let overwrite = |bytes: &mut Vec<u8>| bytes[..FIXED_WORDS * 8].fill(0x5a);
        let (directory, handle) = damaged_map(overwrite);
        let directory = directory.path();
        assert!(matches!(Map::create(directory, &plan()), Err(MapError::Damaged { .. })));
        let report = Map::repair(directory, &plan()).unwrap().unwrap();
        assert_eq!(report.reason, "it is not a vipool map");
        assert!(report.kept_leases);
        assert_eq!(report.set_aside.len(), 2);
        assert!(report.set_aside.iter().all(|file| file.exists()), "{report:?}");
        let map = Map::open(directory).unwrap();
        let rows = map.sessions().unwrap();
        let users: Vec<_> = rows.iter().map(|row| row.user.as_deref()).collect();
        assert_eq!(users, [Some("ann"), Some("bob")]);
        assert!(map.reader().unwrap().is_live(&handle));
        let new_session = map
            .open_session("3".parse().unwrap(), &OpenOptions::default(), Tick::from_secs(10))
            .unwrap();
        let new_lease = new_session.leases.iter().next();
        assert!(rows.iter().all(|row| row.leases.iter().next() != new_lease));
        map.close_by_handle(&handle, Tick::from_secs(11)).unwrap();
        assert_eq!(Map::repair(directory, &plan()).unwrap(), None, "the new map is not damaged");
    }

    #[test]
    fn truncated_and_oversized_maps_are_replaced_without_a_lease() {
        for damage in [
            (|bytes: &mut Vec<u8>| bytes.truncate(64 * 8)) as fn(&mut Vec<u8>),
            |bytes: &mut Vec<u8>| bytes.clear(),
            |bytes: &mut Vec<u8>| bytes.extend([0; 8]),
        ] {
            let (directory, handle) = damaged_map(damage);
            let directory = directory.path();
            let report = Map::repair(directory, &plan()).unwrap().unwrap();
            let map = Map::open(directory).unwrap();
            assert_eq!(map.sessions().unwrap(), [], "{report:?}");
            assert!(!map.reader().unwrap().is_live(&handle));
            assert!(report.set_aside[0].exists());
        }
    }
}
