//! Builds a map from a plan. The new map keeps the sessions of the map that it replaces.

use std::path::Path;

use super::merge::{is_kept, merge, new_pools};
use super::migrate::migrate;
use crate::Tick;
use crate::hash::{HashKey, hash64, random_key};
use crate::map::engine::files::{self, NewFiles, TemporaryFiles};
use crate::map::engine::image::MapImage;
use crate::map::engine::writer::{MapWriter, WritableMap};
use crate::map::format::counters::Counter;
use crate::map::format::header::{
    BEING_REPLACED, DRAINING, DROPPED_GENERATION, LAST_STAMP, REPLACED, RESTORED, SUPERSEDED,
    user_key,
};
use crate::map::format::journal::JOURNAL_WORDS;
use crate::map::format::layout::{self, Layout};
use crate::map::format::pool::PlannedPool;
use crate::map::format::region::WritableRegion;
use crate::map::format::slot::{META, OWNER, PLANNED, RESERVED, RETIRED};
use crate::map::format::user::UserHash;
use crate::map::types::error::{MapError, PlanError};
use crate::map::types::plan::Plan;
use crate::policy::encode_rules;
use crate::pool::Pool;
use crate::raw::word::Word;

/// Builds a map in memory.
pub(crate) fn build_in_memory(plan: &Plan) -> Result<WritableMap, MapError> {
    let (pools, policy) = (new_pools(plan), plan.policy.encode());
    let map = WritableRegion::in_memory(layout::map_word_count(&pools, policy.len()));
    let sessions = WritableRegion::in_memory(sessions_word_count(&pools, plan));
    build(map, sessions, &pools, plan, &policy, 1, None).map(|(map, _)| map)
}

/// Returns the number of bytes of the files of a new map.
pub(crate) fn file_bytes(plan: &Plan) -> u64 {
    let (pools, policy) = (new_pools(plan), plan.policy.encode());
    let word_count =
        layout::map_word_count(&pools, policy.len()) + sessions_word_count(&pools, plan);
    (word_count + JOURNAL_WORDS) as u64 * 8
}

/// Builds new files from a plan and the sessions of the old map, and publishes them. The caller
/// holds the reload lock and the writer lock.
pub(crate) fn replace_files(
    directory: &Path,
    plan: &Plan,
    boot: u64,
    old_map: Option<&mut WritableMap>,
    now: Tick,
) -> Result<WritableMap, MapError> {
    replace_files_after(directory, plan, boot, old_map, now, || Ok(()))
}

/// Replaces files as [`replace_files`] does. Calls `before_publish` when the new files are complete.
/// If this call fails, the new files are removed.
pub(crate) fn replace_files_after(
    directory: &Path,
    plan: &Plan,
    boot: u64,
    old_map: Option<&mut WritableMap>,
    now: Tick,
    before_publish: impl FnOnce() -> Result<(), MapError>,
) -> Result<WritableMap, MapError> {
    // Keep nothing of a map from another boot or network namespace.
    let kept_map = old_map.as_deref().filter(|old_map| old_map.layout().boot == boot);
    let pools = match kept_map {
        Some(kept_map) => merge(kept_map, plan, now)?,
        None => new_pools(plan),
    };
    let kept_map_and_time = kept_map.map(|kept_map| (&**kept_map, now));
    let (new_map, _) = build_files(directory, &pools, plan, boot, kept_map_and_time)?;
    publish(new_map, boot, old_map, before_publish)
}

/// A complete map in new files that still have their temporary names.
pub(crate) struct UnpublishedMap<'a> {
    pub(crate) map: WritableMap,
    // Declared after `map`, so that it is dropped after the mappings of the files.
    files: TemporaryFiles<'a>,
}

impl UnpublishedMap<'_> {
    /// Returns whether the files still have their temporary names, see [`TemporaryFiles::exist`].
    pub(crate) fn has_files(&self) -> bool {
        self.files.exist()
    }
}

/// Builds a map in new files. Also returns the words of the old map from which it was built. The
/// caller holds the reload lock.
pub(crate) fn build_files<'a>(
    directory: &'a Path,
    pools: &[PlannedPool],
    plan: &Plan,
    boot: u64,
    old_map_and_time: Option<(&MapImage, Tick)>,
) -> Result<(UnpublishedMap<'a>, Snapshot), MapError> {
    let policy = plan.policy.encode();
    let map_word_count = layout::map_word_count(pools, policy.len());
    let NewFiles { temporary_files, map, sessions, identity } =
        NewFiles::create(directory, map_word_count, sessions_word_count(pools, plan))?;
    let (mut map, snapshot) = build(map, sessions, pools, plan, &policy, boot, old_map_and_time)?;
    map.set_identity(identity);
    Ok((UnpublishedMap { map, files: temporary_files }, snapshot))
}

/// Publishes new files. Calls `before_publish` first. If this call fails, the new files are removed.
/// The caller holds the reload lock and the writer lock.
pub(crate) fn publish(
    mut new_map: UnpublishedMap<'_>,
    boot: u64,
    mut old_map: Option<&mut WritableMap>,
    before_publish: impl FnOnce() -> Result<(), MapError>,
) -> Result<WritableMap, MapError> {
    let journal = files::open_or_create_journal(new_map.files.directory(), boot)?;
    new_map.map.set_journal(journal);
    before_publish()?;
    new_map.files.check()?;
    // Mark the old map as superseded before `publish` renames the new files. A process that dies
    // after `publish` must not leave an old map without the mark, because readers of that map would
    // never look for the new map. If this process dies before `publish`, the next writer removes
    // the mark. Also mark an old map of another network namespace.
    let set_mark = |old_map: Option<&mut WritableMap>, mark| {
        if let Some(old_map) = old_map {
            old_map.writer().store_header(SUPERSEDED, mark);
        }
    };
    set_mark(old_map.as_deref_mut(), BEING_REPLACED);
    new_map.files.publish()?;
    // Readers that looked for the new file too early look again when the mark changes.
    set_mark(old_map, REPLACED);
    Ok(new_map.map)
}

/// Returns true if the old map stays in place, because new files from this plan would have the same
/// content. In this case, calls [`keep`]. The caller holds the reload lock and the writer lock.
pub(crate) fn keep_if_unchanged(
    old_map: &mut WritableMap,
    directory: &Path,
    plan: &Plan,
    boot: u64,
    now: Tick,
) -> Result<bool, MapError> {
    if !is_complete(old_map, directory) || old_map.layout().boot != boot {
        return Ok(false);
    }
    let pools = merge(old_map, plan, now)?;
    if snapshot_if_unchanged(old_map, &pools, plan, boot, now)?.is_none()
        || !has_reservations(old_map, plan)
    {
        return Ok(false);
    }
    keep(old_map);
    Ok(true)
}

/// Keeps a map in place: completes its index, resets the low-water warnings, and removes the mark of
/// an unfinished replacement. The caller holds the writer lock.
pub(crate) fn keep(map: &mut WritableMap) {
    // A transaction, so that the next writer recovers the map if this process dies meanwhile.
    map.transact(|transaction| {
        if transaction.tables().any(|(_, table)| table.count(Counter::Unindexed) > 0) {
            transaction.rebuild_derived();
        }
        for (_, table) in transaction.table_writers() {
            table.set_count(Counter::LowWaterWarned, 0);
        }
        transaction.store_header(SUPERSEDED, 0);
    });
}

/// Returns whether a map has all its files, and its directory has no temporary files.
pub(crate) fn is_complete(map: &WritableMap, directory: &Path) -> bool {
    !map.sessions_words().is_empty()
        && !map.journal().is_empty()
        && !files::has_temporary_files(directory)
}

/// Builds the new map in memory. If it equals the old map, returns the words of the old map from
/// which it was built.
pub(crate) fn snapshot_if_unchanged(
    old_map: &MapImage,
    pools: &[PlannedPool],
    plan: &Plan,
    boot: u64,
    now: Tick,
) -> Result<Option<Snapshot>, MapError> {
    let policy = plan.policy.encode();
    let map_word_count = layout::map_word_count(pools, policy.len());
    let pool_rules = encode_rules(&plan.policy.pool_rules);
    if map_word_count != old_map.words().len()
        || old_map.layout().pool_rules(old_map.sessions_words()) != Some(pool_rules)
    {
        return Ok(None);
    }
    let (map, sessions) = (WritableRegion::in_memory(map_word_count), WritableRegion::default());
    let (new_map, snapshot) =
        build(map, sessions, pools, plan, &policy, boot, Some((old_map, now)))?;
    let is_unchanged = old_map
        .layout()
        .fixed_words(old_map.words())
        .eq(new_map.layout().fixed_words(new_map.words()))
        && slot_words(&new_map).eq(snapshot.words.iter().copied());
    Ok(is_unchanged.then_some(snapshot))
}

/// The words of the old map from which a new map was built.
#[derive(Default)]
pub(crate) struct Snapshot {
    /// The owner and meta words of the slots of all kept pools.
    pub(crate) words: Vec<[u64; 2]>,
    /// The header word [`DROPPED_GENERATION`].
    pub(crate) dropped_generation: u32,
}

/// Returns whether a map has the reservations of the plan. The tags in the words of the map do not
/// prove this, because several users can have the same tag.
pub(crate) fn has_reservations(map: &MapImage, plan: &Plan) -> bool {
    plan.reservations.iter().all(|reservation| {
        let user = map.user_hash(&reservation.user).unwrap_or(UserHash::NONE);
        map.locate(reservation.address).is_none_or(|(pool, slot)| {
            map.table(pool).is_some_and(|table| table.is_reserved_for(slot, user))
        })
    })
}

/// Returns the number of words of the sessions file of a map with these pools.
fn sessions_word_count(pools: &[PlannedPool], plan: &Plan) -> usize {
    layout::sessions_word_count(slot_counts(pools), encode_rules(&plan.policy.pool_rules).len())
}

fn slot_counts(pools: &[PlannedPool]) -> impl Iterator<Item = u32> {
    pools.iter().map(|planned| planned.pool.slot_count())
}

/// Returns the owner and meta words of all slots.
fn slot_words(map: &MapImage) -> impl Iterator<Item = [u64; 2]> {
    map.tables().flat_map(|(_, table)| {
        (0..table.pool.slot_count).map(move |slot| table.owner_and_meta(slot))
    })
}

/// Builds a map in these regions. `old_map_and_time` contains the old map, whose state the new map
/// keeps, and the current time. It is `None` if there is no state to keep.
fn build(
    mut map: WritableRegion,
    mut sessions: WritableRegion,
    pools: &[PlannedPool],
    plan: &Plan,
    policy: &[u8],
    boot: u64,
    old_map_and_time: Option<(&MapImage, Tick)>,
) -> Result<(WritableMap, Snapshot), MapError> {
    let old_map = old_map_and_time.map(|(old_map, _)| old_map);
    let file_id = new_file_id(boot, old_map);
    let (words, access) = map.write_access();
    layout::write(access, words, pools, policy, &plan.settings, boot, file_id);
    let (words, access) = sessions.write_access();
    let pool_rules = encode_rules(&plan.policy.pool_rules);
    // Keep the key of the old map, because the user tags in its slots were computed with this key.
    let key =
        old_map.and_then(|old_map| user_key(old_map.sessions_words())).unwrap_or_else(random_key);
    layout::write_sessions(access, words, slot_counts(pools), &pool_rules, boot, file_id, key);
    let layout = Layout::read(map.words()).map_err(PlanError::Layout)?;
    let mut new_map = WritableMap::new(map, sessions, WritableRegion::default(), layout);
    let writer = new_map.writer();
    let mut snapshot = Snapshot::default();
    if let Some((old_map, now)) = old_map_and_time {
        snapshot = copy_persistent_state(&writer, old_map, pools);
        writer.correct_future_stamps(now);
    }
    retire_dropped_addresses(&writer, pools, plan);
    if let Some(old_map) = old_map {
        migrate(&writer, pools, old_map);
    }
    apply_reservations(&writer, plan, key);
    writer.rebuild_derived();
    Ok((new_map, snapshot))
}

/// Copies the slots, records and header words that stay valid under a new configuration. Gives each
/// new slot the highest generation of all removed slots, so no old handle matches a new lease.
fn copy_persistent_state(
    writer: &MapWriter<'_>,
    old_map: &MapImage,
    pools: &[PlannedPool],
) -> Snapshot {
    for offset in [LAST_STAMP, RESTORED, DRAINING] {
        writer.store_header(offset, old_map.header(offset));
    }
    let dropped_generation = old_map.header(DROPPED_GENERATION) as u32;
    let mut snapshot = Snapshot { dropped_generation, ..Snapshot::default() };
    let mut max_dropped_generation = dropped_generation;
    for (_, table) in old_map.tables().filter(|(pool, _)| !is_kept(pools, *pool)) {
        let generations = (0..table.pool.slot_count).map(|slot| table.meta(slot).generation);
        max_dropped_generation = max_dropped_generation.max(generations.max().unwrap_or(0));
    }
    writer.store_header(DROPPED_GENERATION, max_dropped_generation.into());
    for (pool, target) in writer.table_writers() {
        let source = old_map.table(pool).filter(|_| is_kept(pools, pool));
        let copied_slot_count =
            source.map_or(0, |source| source.pool.slot_count.min(target.pool.slot_count));
        if let Some(source) = source {
            for (slot, source_slot) in (0..).zip(source.slots) {
                // Read each word once, because the old map can change meanwhile.
                let words = source_slot.each_ref().map(Word::load);
                snapshot.words.push([words[OWNER], words[META]]);
                for (offset, word) in words.into_iter().enumerate() {
                    target.store(slot, offset, word);
                }
                // The record of a slot that was never used is empty. Do not touch its memory.
                if [words[OWNER], words[META]] != [0, 0] {
                    target.copy_record(slot, &source);
                    target.invalidate_uncommitted_record(slot);
                }
            }
            target.set_count(Counter::PeakLeased, source.count(Counter::PeakLeased));
        }
        for slot in
            (copied_slot_count..target.pool.slot_count).filter(|_| max_dropped_generation > 0)
        {
            target.store_meta(slot, target.meta(slot).with_generation(max_dropped_generation));
        }
    }
    snapshot
}

/// Retires the addresses that the plan no longer has, and removes the reservations of the old plan.
/// The caller rebuilds the queues later, so this function does not update them.
fn retire_dropped_addresses(writer: &MapWriter<'_>, pools: &[PlannedPool], plan: &Plan) {
    let words = writer.words();
    for ((_, table), planned_pool) in writer.table_writers().zip(pools) {
        let pool_of_plan = planned_pool.plan_index.map(|index| &plan.pools[index]);
        // A new plan can have the same ranges with fewer slots.
        let mut remaining_slot_count = pool_of_plan.map_or(0, Pool::slot_count);
        for slot in 0..table.pool.slot_count {
            let Some(address) = table.pool.address(words, slot) else { continue };
            let loopback6 = table.pool.loopback6(words, slot);
            let is_planned = remaining_slot_count > 0
                && pool_of_plan.is_some_and(|pool| pool.has_slot(address, loopback6));
            remaining_slot_count -= u32::from(is_planned);
            let retired_flag = if is_planned { 0 } else { RETIRED };
            let meta = table.meta_without_plan(slot).with_flags(retired_flag, RETIRED);
            table.store_meta(slot, meta);
        }
    }
}

/// Reserves the addresses that the plan reserves. `key` is the key for [`UserHash::of`].
fn apply_reservations(writer: &MapWriter<'_>, plan: &Plan, key: HashKey) {
    for reservation in &plan.reservations {
        let Some((pool, slot)) = writer.locate(reservation.address) else { continue };
        let Some(table) = writer.table_writer(pool) else { continue };
        let user = UserHash::of(&reservation.user, key);
        table.write_reservation(slot, user);
        let meta = table.meta(slot).with_flags(RESERVED | PLANNED, 0);
        table.store_meta(slot, meta.with_user(user.tag()));
    }
}

/// Returns the id of a new map file: a hash of the time, the pid, the boot and the id of the old
/// file.
fn new_file_id(boot: u64, old_map: Option<&MapImage>) -> u64 {
    let old_file_id = old_map.map_or(0, |old_map| old_map.layout().file_id);
    let time = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |time| time.as_nanos() as u64);
    let pid = u64::from(std::process::id());
    hash64(&[time.to_ne_bytes(), pid.to_ne_bytes()].concat(), boot ^ old_file_id)
}
