//! Migration: moves the state of addresses that a new plan assigns to another pool.
//!
//! Such an address has a slot in the old pool and a slot in the planned pool. One of these slots
//! has the state of the address: its cool-down, its last user, its reservation. While the new map
//! is built, [`migrate`] moves the state to the slot in the planned pool, and resets and retires
//! the other slot. [`migrate`] does not move the state of a leased slot, because the handle of the
//! session names that slot. In this case, the slot in the planned pool awaits the release, and
//! [`crate::map::engine::handover`] moves the state at the release.

use super::merge::is_kept;
use super::overlap::find_overlaps;
use crate::map::engine::handover::{copy_state, reset_and_retire};
use crate::map::engine::image::{MapImage, has_state};
use crate::map::engine::table::Table;
use crate::map::engine::table_writer::TableWriter;
use crate::map::engine::writer::MapWriter;
use crate::map::format::pool::PlannedPool;
use crate::map::format::slot::{AWAITING_RELEASE, RETIRED};

/// Moves the state of all addresses that the new plan assigns to another pool. `pools` are the
/// pools of the new map. The caller rebuilds queues and index later, so this function does not
/// update them.
pub(crate) fn migrate(writer: &MapWriter<'_>, pools: &[PlannedPool], old_map: &MapImage) {
    let table_writers: Vec<TableWriter<'_>> =
        writer.table_writers().map(|(_, table)| table).collect();
    let mut tables: Vec<Table<'_>> = writer.tables().map(|(_, table)| table).collect();
    let mut all_pools = writer.pools();
    // Append the old pools that the new map does not keep. This function only reads these pools.
    for ((number, table), pool) in old_map.tables().zip(old_map.pools()) {
        if !is_kept(pools, number) {
            all_pools.push(pool);
            tables.push(table);
        }
    }
    // A loopback slot has two addresses, so its state can move to two slots. Therefore reset the
    // old slots at the end.
    let mut source_slots = Vec::new();
    for overlap in find_overlaps(&all_pools) {
        for offset in 0..overlap.count {
            let is_planned = |(pool, slot): &(usize, u32)| {
                *pool < pools.len() && !tables[*pool].meta(*slot).has_any(RETIRED)
            };
            let [first_slot, second_slot] = overlap.slots_at(offset);
            let (target, source) = if is_planned(&first_slot) {
                (first_slot, second_slot)
            } else if is_planned(&second_slot) {
                (second_slot, first_slot)
            } else {
                continue;
            };
            let ((target_pool, target_slot), (source_pool, source_slot)) = (target, source);
            move_state(
                (&table_writers[target_pool], target_slot),
                (&tables[source_pool], source_slot),
            );
            source_slots.push(source);
        }
    }
    for (pool, slot) in source_slots.into_iter().filter(|(pool, _)| *pool < pools.len()) {
        let table = &table_writers[pool];
        if !table.owner(slot).is_session() {
            reset_and_retire(table, slot);
        }
    }
}

/// Copies the state of an address from the source slot to the target slot, unless the source slot
/// has no state or the target slot has a later stamp. If the source slot is leased, makes the
/// target slot await the release instead. Does nothing if the target slot is leased.
fn move_state(
    (target, target_slot): (&TableWriter<'_>, u32),
    (source, source_slot): (&Table<'_>, u32),
) {
    let (owner, meta) = (source.owner(source_slot), source.meta_without_plan(source_slot));
    match (target.owner(target_slot).stamp(), owner.stamp()) {
        (Some(_), None) => {
            let target_meta = target.meta(target_slot).with_flags(AWAITING_RELEASE, 0);
            target.store_meta(target_slot, target_meta);
        }
        (Some(target_stamp), Some(stamp)) if stamp >= target_stamp && has_state(owner, meta) => {
            copy_state((target, target_slot), (source, source_slot), meta);
        }
        _ => {}
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use crate::Tick;
    use crate::map::engine::handover::copy_state;
    use crate::map::engine::image::has_state;
    use crate::map::engine::table_writer::TableWriter;
    use crate::map::engine::writer::{MapWriter, WritableMap};
    use crate::map::format::header::BUSY;
    use crate::map::format::slot::{Owner, RETIRED};
    use crate::map::replan::build::replace_files;
    use crate::map::types::plan::{OpenOptions, Plan, Settings};
    use crate::pool::{Pool, PoolKind};
    use crate::session::SessionId;

    /// Returns a map after its only pool was renamed. A session holds the only address. Pool 0 has
    /// the old name, and pool 1 has the new name.
    fn map_with_renamed_pool() -> WritableMap {
        let directory = tempfile::tempdir().unwrap();
        let settings = Settings { cool_down: 60, ..Settings::without_cool_down() };
        let plan = |name| {
            let ranges = ["10.0.0.1".parse().unwrap()];
            let pool = Pool::new(name, PoolKind::VirtualIp, &ranges, 1).unwrap();
            Plan { pools: vec![pool], settings, ..Plan::default() }
        };
        let now = Tick::from_secs(100);
        let mut old_map = replace_files(directory.path(), &plan("default"), 7, None, now).unwrap();
        let ann = OpenOptions { user: Some("ann"), ..OpenOptions::default() };
        let session = "1".parse().unwrap();
        old_map.begin().open_session_and_commit(session, &ann, now).unwrap();
        replace_files(directory.path(), &plan("office"), 7, Some(&mut old_map), now).unwrap()
    }

    fn old_and_new_tables<'a>(writer: &MapWriter<'a>) -> (TableWriter<'a>, TableWriter<'a>) {
        (writer.table_writer(0).unwrap(), writer.table_writer(1).unwrap())
    }

    #[test]
    fn recovery_finishes_a_handover() {
        for is_copied in [false, true] {
            let mut map = map_with_renamed_pool();
            let writer = map.writer();
            let (old_table, new_table) = old_and_new_tables(&writer);
            assert!(new_table.meta(0).is_awaiting_release());
            let session = match old_table.owner(0) {
                Owner::Session(session_id) => SessionId::from_raw(session_id).unwrap(),
                owner => panic!("{owner:?}"),
            };
            writer.store_header(BUSY, 1);
            let stamp = writer.new_stamp(Tick::from_secs(100));
            old_table.release(&old_table.home_bucket(session.raw()), 0, true, stamp);
            let released_owner = old_table.owner(0);
            if is_copied {
                copy_state((&new_table, 0), (&old_table, 0), old_table.meta(0));
            }
            writer.recover_if_needed();
            assert_eq!(new_table.owner(0), released_owner);
            assert!(!new_table.meta(0).has_any(RETIRED));
            assert!(!has_state(old_table.owner(0), old_table.meta(0)));
            let eve = OpenOptions { user: Some("eve"), ..OpenOptions::default() };
            let mut open_at_second = |second| {
                let now = Tick::from_secs(second);
                map.begin().open_session_and_commit(session, &eve, now)
            };
            assert!(open_at_second(159).is_err());
            assert_eq!(open_at_second(160).unwrap().handle.pool, 1);
        }
    }

    #[test]
    fn recovery_does_not_hand_over_a_leased_address() {
        let mut map = map_with_renamed_pool();
        let writer = map.writer();
        let (old_table, new_table) = old_and_new_tables(&writer);
        writer.store_header(BUSY, 1);
        writer.recover_if_needed();
        assert!(new_table.meta(0).is_awaiting_release());
        assert!(old_table.owner(0).is_session());
    }
}
