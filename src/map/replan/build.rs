//! Builds a map from a plan. The new map keeps the sessions of the map that it replaces.

use std::path::Path;

use super::merge::{is_kept, merge, new_pools};
use super::migrate::migrate;
use crate::Tick;
use crate::hash::{HashKey, hash64, random_key};
use crate::map::engine::files;
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
use crate::map::format::record::RECORD_WORDS;
use crate::map::format::region::WritableRegion;
use crate::map::format::slot::{PLANNED, RESERVED, RETIRED};
use crate::map::format::user::UserHash;
use crate::map::format::words::{load, store};
use crate::map::types::error::{MapError, PlanError};
use crate::map::types::plan::Plan;
use crate::policy::encode_rules;
use crate::pool::Pool;

/// Builds a map in memory.
pub(crate) fn build_in_memory(plan: &Plan) -> Result<WritableMap, MapError> {
    let (pools, policy) = (new_pools(plan), plan.policy.encode());
    let map = WritableRegion::in_memory(layout::map_word_count(&pools, policy.len()));
    let sessions = WritableRegion::in_memory(sessions_word_count(&pools, plan));
    build(map, sessions, &pools, plan, &policy, 1, None)
}

/// Returns the number of bytes of the files of a new map.
pub(crate) fn file_bytes(plan: &Plan) -> u64 {
    let (pools, policy) = (new_pools(plan), plan.policy.encode());
    let word_count =
        layout::map_word_count(&pools, policy.len()) + sessions_word_count(&pools, plan);
    (word_count + JOURNAL_WORDS) as u64 * 8
}

/// Builds new files from a plan and the sessions of the old map, and publishes them. The caller
/// holds the lock.
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
    mut old_map: Option<&mut WritableMap>,
    now: Tick,
    before_publish: impl FnOnce() -> Result<(), MapError>,
) -> Result<WritableMap, MapError> {
    // Keep nothing of a map from another boot or network namespace.
    let kept_map = old_map.as_deref().filter(|old_map| old_map.layout().boot == boot);
    let pools = match kept_map {
        Some(kept_map) => merge(kept_map, plan, now)?,
        None => new_pools(plan),
    };
    let policy = plan.policy.encode();
    let (map, sessions, identity) = files::create(
        directory,
        layout::map_word_count(&pools, policy.len()),
        sessions_word_count(&pools, plan),
    )?;
    let kept_map_and_time = kept_map.map(|kept_map| (&**kept_map, now));
    let mut new_map = build(map, sessions, &pools, plan, &policy, boot, kept_map_and_time)
        .inspect_err(|_| files::remove_temporary_files(directory))?;
    new_map.set_identity(identity);
    let journal = files::open_or_create_journal(directory, boot)
        .inspect_err(|_| files::remove_temporary_files(directory))?;
    new_map.set_journal(journal);
    before_publish().inspect_err(|_| files::remove_temporary_files(directory))?;
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
    files::publish(directory)?;
    // Readers that looked for the new file too early look again when the mark changes.
    set_mark(old_map, REPLACED);
    Ok(new_map)
}

/// Returns true if the old map stays in place, because new files from this plan would have the same
/// content. In this case, rebuilds the derived data of the old map, resets the low-water warnings,
/// and removes the mark of an unfinished replacement. The caller holds the lock.
pub(crate) fn keep_if_unchanged(
    old_map: &mut WritableMap,
    directory: &Path,
    plan: &Plan,
    boot: u64,
    now: Tick,
) -> Result<bool, MapError> {
    let is_complete = !old_map.sessions_words().is_empty()
        && !old_map.journal().is_empty()
        && !files::has_temporary_files(directory);
    if !is_complete || old_map.layout().boot != boot {
        return Ok(false);
    }
    let (pools, policy) = (merge(old_map, plan, now)?, plan.policy.encode());
    let map_word_count = layout::map_word_count(&pools, policy.len());
    if map_word_count != old_map.words().len() {
        return Ok(false);
    }
    let (map, sessions) = (WritableRegion::in_memory(map_word_count), WritableRegion::default());
    let new_map = build(map, sessions, &pools, plan, &policy, boot, Some((&**old_map, now)))?;
    let pool_rules = encode_rules(&plan.policy.pool_rules);
    if !compared_words(old_map).eq(compared_words(&new_map))
        || old_map.layout().pool_rules(old_map.sessions_words()) != Some(pool_rules)
        || !has_reservations(old_map, plan)
    {
        return Ok(false);
    }
    let writer = old_map.writer();
    writer.rebuild();
    for (_, table) in writer.table_writers() {
        table.set_count(Counter::LowWaterWarned, 0);
    }
    writer.store_header(SUPERSEDED, 0);
    Ok(true)
}

/// Returns whether a map has the reservations of the plan. The tags in the words of the map do not
/// prove this, because several users can have the same tag.
fn has_reservations(map: &MapImage, plan: &Plan) -> bool {
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

/// Returns the fixed words of a map, except `FILE_ID`, and the owner and meta words of all slots.
fn compared_words(map: &MapImage) -> impl Iterator<Item = u64> {
    let slots = map.tables().flat_map(|(_, table)| {
        (0..table.pool.slot_count).flat_map(move |slot| table.owner_and_meta(slot))
    });
    map.layout().fixed_words(map.words()).chain(slots)
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
) -> Result<WritableMap, MapError> {
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
    if let Some((old_map, now)) = old_map_and_time {
        copy_persistent_state(&writer, old_map, pools);
        writer.correct_future_stamps(now);
    }
    retire_dropped_addresses(&writer, pools, plan);
    if let Some(old_map) = old_map {
        migrate(&writer, pools, old_map);
    }
    apply_reservations(&writer, plan, key);
    writer.rebuild();
    Ok(new_map)
}

/// Copies the slots, records and header words that stay valid under a new configuration. Gives each
/// new slot the highest generation of all removed slots, so no old handle matches a new lease.
fn copy_persistent_state(writer: &MapWriter<'_>, old_map: &MapImage, pools: &[PlannedPool]) {
    for offset in [LAST_STAMP, RESTORED, DRAINING] {
        writer.store_header(offset, old_map.header(offset));
    }
    let mut max_dropped_generation = old_map.header(DROPPED_GENERATION) as u32;
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
            for (target_word, source_word) in
                target.slots.iter().flatten().zip(source.slots.iter().flatten())
            {
                target_word.store(writer.access(), source_word.load());
            }
            for offset in 0..copied_slot_count as usize * RECORD_WORDS {
                let source_offset = source.pool.records_offset + offset;
                let target_offset = target.pool.records_offset + offset;
                let word = load(old_map.sessions_words(), source_offset);
                store(writer.access(), writer.sessions_words(), target_offset, word);
            }
            target.set_count(Counter::PeakLeased, source.count(Counter::PeakLeased));
        }
        for slot in
            (copied_slot_count..target.pool.slot_count).filter(|_| max_dropped_generation > 0)
        {
            target.store_meta(slot, target.meta(slot).with_generation(max_dropped_generation));
        }
    }
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
            let meta = table.meta_without_plan(slot).with_flags(0, RETIRED);
            table.store_meta(slot, meta.with_flags(retired_flag, 0));
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
