//! Preparation of a new map while sessions open and close in the old map.
//!
//! Building a map of millions of addresses takes seconds. A [`PreparedMap`] is built without the
//! writer lock, from slots that writers change at the same time. Under the writer lock,
//! [`PreparedMap::finish`] only compares the slots with a snapshot, and copies the changed slots and
//! the records of the leased slots again.
//!
//! Invariants:
//! - The caller holds the reload lock from the beginning of the preparation until the map is
//!   published. So no other process creates or publishes files in this time.
//! - The snapshot contains exactly the words from which the new map was built, so no change is
//!   missed. A writer that changes a slot changes its owner word or its meta word. Each lease, each
//!   release, and each change of the flags of a slot that is not leased creates a pair of these
//!   words that the slot never had before. The flags of a leased slot can return to an earlier
//!   value, but its record is always copied again.
//! - The records of leased slots are always copied again, because they change without their slots.
//! - Slots whose stamp is later than the start of the preparation are copied again too, so that each
//!   queue of the new map is sorted by stamp.
//! - Nothing is published before the new map equals a map that was built under the writer lock. If
//!   this module cannot prove that, the caller builds the map again.

use std::path::Path;

use super::build::{self, Snapshot, UnpublishedMap};
use super::merge::merge;
use super::overlap::find_overlaps;
use crate::Tick;
use crate::map::engine::files;
use crate::map::engine::image::MapImage;
use crate::map::engine::writer::WritableMap;
use crate::map::format::counters::Counter;
use crate::map::format::header::{
    DRAINING, DROPPED_GENERATION, LAST_STAMP, OPEN_SESSIONS, RESTORED,
};
use crate::map::format::pool::PlannedPool;
use crate::map::format::slot::{Meta, Owner, PLANNED, RETIRED};
use crate::map::types::error::MapError;
use crate::map::types::plan::Plan;

/// A map that was built without the writer lock.
pub(crate) struct PreparedMap<'a> {
    directory: &'a Path,
    /// The id of the old map.
    old_file_id: u64,
    snapshot: Snapshot,
    /// The last stamp of the old map when the preparation began.
    start_stamp: u64,
    /// The new map. `None` if the plan leads to the same map, so the old map stays in place.
    new_map: Option<UnpublishedMap<'a>>,
}

/// The result of [`PreparedMap::finish`].
#[expect(clippy::large_enum_variant, reason = "a reload has one value of this type")]
pub(crate) enum Finished<'a> {
    /// The old map stays in place.
    Unchanged,
    /// The new map is complete, but not published.
    Complete(UnpublishedMap<'a>),
    /// The map must be built again under the writer lock.
    Outdated,
}

impl<'a> PreparedMap<'a> {
    /// Builds the map that replaces the map in a directory. Returns `None` if this map cannot be
    /// prepared. The caller holds the reload lock, but not the writer lock.
    ///
    /// # Errors
    /// Fails if the new files cannot be created.
    pub(crate) fn new(
        directory: &'a Path,
        plan: &Plan,
        boot: u64,
        now: Tick,
    ) -> Result<Option<Self>, MapError> {
        // Under the writer lock, the caller opens the old map again and reports the error.
        let Ok(old_map) = files::open_writable(directory) else { return Ok(None) };
        if !build::is_complete(&old_map, directory) || old_map.layout().boot != boot {
            return Ok(None);
        }
        let start_stamp = old_map.header(LAST_STAMP);
        let Ok(pools) = merge(&old_map, plan, now) else { return Ok(None) };
        if old_map.has_future_stamps(now) || !keeps_all_pools(&old_map, &pools) {
            return Ok(None);
        }
        let old_file_id = old_map.layout().file_id;
        let prepared =
            |snapshot, new_map| Self { directory, old_file_id, snapshot, start_stamp, new_map };
        if let Some(snapshot) = build::snapshot_if_unchanged(&old_map, &pools, plan, boot, now)? {
            return Ok(Some(prepared(snapshot, None)));
        }
        let (new_map, snapshot) =
            build::build_files(directory, &pools, plan, boot, Some((&old_map, now)))?;
        Ok(Some(prepared(snapshot, Some(new_map))))
    }

    /// Brings the new map up to date. The caller holds the reload lock and the writer lock, and
    /// `old_map` is consistent.
    pub(crate) fn finish(self, old_map: &mut WritableMap, plan: &Plan, now: Tick) -> Finished<'a> {
        let is_outdated = old_map.layout().file_id != self.old_file_id
            || old_map.has_future_stamps(now)
            || old_map.header(DROPPED_GENERATION) as u32 != self.snapshot.dropped_generation;
        if is_outdated {
            return Finished::Outdated;
        }
        let Some(mut new_map) = self.new_map else {
            if !build::is_complete(old_map, self.directory)
                || !is_unchanged(old_map, &self.snapshot, plan)
            {
                return Finished::Outdated;
            }
            build::keep(old_map);
            return Finished::Unchanged;
        };
        let is_complete = new_map.has_files()
            && update(&mut new_map.map, old_map, &self.snapshot, self.start_stamp);
        if is_complete { Finished::Complete(new_map) } else { Finished::Outdated }
    }
}

/// Returns whether a map that is built from the plan still equals the old map. The map was equal
/// when the snapshot was made.
fn is_unchanged(old_map: &MapImage, snapshot: &Snapshot, plan: &Plan) -> bool {
    let has_same_plan = |change: &Change| {
        let flags = RETIRED | PLANNED;
        change.meta_before.flags(flags) == change.meta.flags(flags)
    };
    changed_slots(old_map, snapshot, u64::MAX)
        .is_some_and(|changes| changes.iter().all(has_same_plan))
        && build::has_reservations(old_map, plan)
}

/// Returns whether the new map keeps all pools of the old map and moves no address to another pool.
fn keeps_all_pools(old_map: &MapImage, pools: &[PlannedPool]) -> bool {
    let is_kept = |planned: &PlannedPool| planned.is_kept && planned.plan_index.is_some();
    let all_pools: Vec<_> = pools.iter().map(|planned| planned.pool.clone()).collect();
    pools.len() >= old_map.layout().pools().len()
        && pools.iter().take(old_map.layout().pools().len()).all(is_kept)
        && find_overlaps(&all_pools).is_empty()
}

/// A slot that must be copied again.
struct Change {
    pool: u16,
    slot: u32,
    owner: Owner,
    meta: Meta,
    /// The meta word in the snapshot.
    meta_before: Meta,
}

/// Returns the slots that differ from the snapshot or have a later stamp than `start_stamp`. Returns
/// `None` if the snapshot does not contain all slots.
fn changed_slots(old_map: &MapImage, snapshot: &Snapshot, start_stamp: u64) -> Option<Vec<Change>> {
    let mut changes = Vec::new();
    let mut words_before = snapshot.words.iter();
    for (pool, table) in old_map.tables() {
        for slot in 0..table.pool.slot_count {
            let before = words_before.next()?;
            let words = table.owner_and_meta(slot);
            let owner = Owner::from_word(words[0]);
            if words != *before || owner.stamp().is_some_and(|stamp| stamp > start_stamp) {
                let [meta, meta_before] = [words[1], before[1]].map(Meta::from_word);
                changes.push(Change { pool, slot, owner, meta, meta_before });
            }
        }
    }
    Some(changes)
}

/// Copies the changed slots to a new map again. Returns false if the new map can be inconsistent.
fn update(
    new_map: &mut WritableMap,
    old_map: &MapImage,
    snapshot: &Snapshot,
    start_stamp: u64,
) -> bool {
    let Some(mut changes) = changed_slots(old_map, snapshot, start_stamp) else { return false };
    // Only a writer that died before it committed a lease leaves a changed slot with an old stamp.
    // The position of such a slot in its queue is not the end.
    let has_old_stamp =
        |change: &Change| change.owner.stamp().is_some_and(|stamp| stamp <= start_stamp);
    if changes.iter().any(has_old_stamp) {
        return false;
    }
    // Recovery sorts the slots of a queue in this order too.
    changes.sort_unstable_by_key(|change| (change.owner.stamp(), change.slot));
    let writer = new_map.writer();
    for change in &changes {
        let (Some(source), Some(target)) =
            (old_map.table(change.pool), writer.table_writer(change.pool))
        else {
            return false;
        };
        // A reservation by the plan hides the last user of the slot.
        if change.meta.has_any(PLANNED) || target.meta(change.slot).has_any(PLANNED) {
            return false;
        }
        target.remove_derived(change.slot);
        let retired = target.meta(change.slot).flags(RETIRED);
        let meta = change.meta.with_flags(retired, RETIRED);
        target.copy_slot(change.slot, &source, meta);
    }
    for change in &changes {
        if let Some(target) = writer.table_writer(change.pool) {
            target.add_derived(change.slot);
        }
    }
    for (pool, source) in old_map.tables() {
        let Some(target) = writer.table_writer(pool) else { return false };
        // The user, the client and the leader of a session change without its slot.
        for slot in (0..source.pool.slot_count).filter(|slot| source.owner(*slot).is_session()) {
            target.copy_record(slot, &source);
        }
        target.set_count(Counter::PeakLeased, source.count(Counter::PeakLeased));
    }
    for offset in [LAST_STAMP, RESTORED, DRAINING, OPEN_SESSIONS] {
        writer.store_header(offset, old_map.header(offset));
    }
    true
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::map::engine::table::Table;
    use crate::map::format::queue::Queue;
    use crate::map::{Leader, Map, OpenOptions, Probe, Settings};
    use crate::pool::{Pool, PoolKind, Reservation};
    use crate::session::SessionId;
    use proptest::prelude::*;
    use std::net::IpAddr;

    /// A system with a socket on every second address, in which every process runs.
    struct TestSystem;

    impl Probe for TestSystem {
        fn has_sockets(&mut self, address: IpAddr) -> bool {
            crate::range::bits(address).is_multiple_of(2)
        }

        fn has_exited(&mut self, _: &Leader) -> bool {
            false
        }
    }

    fn plan(last_octet: u32, cool_down: u32) -> Plan {
        let pool = |kind, range: String| {
            Pool::new("default", kind, &[range.parse().unwrap()], u32::MAX).unwrap()
        };
        Plan::new([
            pool(PoolKind::VirtualIp, format!("10.0.0.1-10.0.0.{last_octet}")),
            pool(PoolKind::Loopback, "127.77.0.0/27".to_owned()),
        ])
        .with_settings(Settings::default().with_cool_down(cool_down))
    }

    /// Returns the reservation of an address of [`plan`] for a user, if there is an octet.
    fn reservation(last_octet: Option<u8>, user: &str) -> Option<Reservation> {
        last_octet.map(|octet| Reservation::new([10, 0, 0, octet].into(), user))
    }

    /// Performs one operation. `number` selects the session or the address.
    fn operate(map: &Map, operation: u8, number: u8, now: Tick) {
        let session: SessionId = (u64::from(number) + 1).to_string().parse().unwrap();
        let address: IpAddr = [10, 0, 0, number + 1].into();
        let user = format!("user{}", number % 4);
        let client: IpAddr = [192, 0, 2, operation].into();
        let options = OpenOptions::new().with_user(&*user).with_client(client);
        match operation {
            0..10 => _ = map.open_session(session, &options, now),
            10..16 => _ = map.close_session(session, now),
            16 => _ = map.reap(now, u32::MAX, &mut TestSystem).unwrap(),
            17 => _ = map.drain(&address.into(), now),
            18 => _ = map.undrain(&address.into(), now),
            19 => _ = map.reserve(address, &user, now),
            _ => _ = map.unreserve(address, now),
        }
    }

    /// Returns the slots of a queue in their order.
    fn queued_slots(table: &Table<'_>, queue: Queue) -> Vec<u32> {
        let front = table.front(queue);
        std::iter::successors(front, |slot| table.successor(*slot)).take(1000).collect()
    }

    /// Checks that two maps have the same slots, records, queues, counters and sessions.
    fn assert_equal_maps(map: &MapImage, expected: &MapImage) {
        let sorted = |map: &MapImage| {
            let mut rows: Vec<_> = map.sessions().map(|row| format!("{row:?}")).collect();
            rows.sort();
            rows
        };
        assert_eq!(sorted(map), sorted(expected));
        for offset in [LAST_STAMP, OPEN_SESSIONS, DRAINING, RESTORED, DROPPED_GENERATION] {
            assert_eq!(map.header(offset), expected.header(offset), "header word {offset}");
        }
        for ((_, table), (_, expected_table)) in map.tables().zip(expected.tables()) {
            for slot in 0..expected_table.pool.slot_count {
                let words = (table.owner_and_meta(slot), table.last_user(slot));
                let expected_words =
                    (expected_table.owner_and_meta(slot), expected_table.last_user(slot));
                assert_eq!(words, expected_words, "slot {slot}");
                for user in (0..4).map(|number| format!("user{number}")) {
                    let hash = expected.user_hash(&user).unwrap();
                    let is_reserved = table.is_reserved_for(slot, hash);
                    assert_eq!(is_reserved, expected_table.is_reserved_for(slot, hash));
                }
                if let Owner::Session(session_id) = expected_table.owner(slot) {
                    assert_eq!(table.lease_of(session_id).map(|(slot, _)| slot), Some(slot));
                }
            }
            for queue in [Queue::Free, Queue::Cooling, Queue::Lingering] {
                assert_eq!(queued_slots(&table, queue), queued_slots(&expected_table, queue));
            }
            for counter in [
                Counter::Free,
                Counter::Cooling,
                Counter::Lingering,
                Counter::Leased,
                Counter::Reserved,
                Counter::Drained,
                Counter::Unindexed,
                Counter::PeakLeased,
            ] {
                assert_eq!(table.count(counter), expected_table.count(counter), "{counter:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn prepared_map_equals_a_map_that_is_built_under_the_lock(
            operations_before in prop::collection::vec((0..22u8, 0..20u8), 0..60),
            operations_after in prop::collection::vec((0..22u8, 0..20u8), 0..30),
            new_last_octet in 12..24u32,
            old_reserved_octet in prop::option::of(1..12u8),
            reserved_octet in prop::option::of(1..12u8),
        ) {
            let directory = tempfile::tempdir().unwrap();
            let now = Tick::from_secs(1000);
            let old_plan = plan(16, 30).with_reservations(reservation(old_reserved_octet, "user2"));
            let map = Map::create_at(directory.path(), &old_plan, now).unwrap();
            let mut time = now;
            for (operation, number) in operations_before {
                time = time.saturating_add(u32::from(operation) / 4);
                operate(&map, operation, number, time);
            }
            let boot = files::current_boot_id(directory.path()).unwrap();
            let new_plan = plan(new_last_octet, 40)
                .with_reservations(reservation(reserved_octet, "user1"));
            let reserved_slots = || {
                let old_map = files::open_writable(directory.path()).unwrap();
                [old_reserved_octet, reserved_octet].map(|octet| {
                    let (pool, slot) = old_map.locate([10, 0, 0, octet?].into())?;
                    Some(old_map.table(pool)?.owner_and_meta(slot))
                })
            };
            let reserved_slots_before = reserved_slots();
            let prepared_map =
                PreparedMap::new(directory.path(), &new_plan, boot, time).unwrap().unwrap();
            for (operation, number) in operations_after {
                time = time.saturating_add(u32::from(operation) / 4);
                operate(&map, operation, number, time);
            }
            let mut old_map = files::open_writable(directory.path()).unwrap();
            let expected_directory = tempfile::tempdir().unwrap();
            let pools = merge(&old_map, &new_plan, time).unwrap();
            let (expected_map, ..) = build::build_files(
                expected_directory.path(), &pools, &new_plan, boot, Some((&old_map, time)),
            ).unwrap();
            match prepared_map.finish(&mut old_map, &new_plan, time) {
                Finished::Complete(new_map) => assert_equal_maps(&new_map.map, &expected_map.map),
                // The slot of a reservation by a plan changed.
                Finished::Outdated if reserved_slots() != reserved_slots_before => {}
                _ => panic!("the prepared map cannot be completed"),
            }
        }

        #[test]
        fn unchanged_plan_keeps_the_old_map(
            operations in prop::collection::vec((0..22u8, 0..20u8), 0..30),
        ) {
            let directory = tempfile::tempdir().unwrap();
            let now = Tick::from_secs(1000);
            let map = Map::create_at(directory.path(), &plan(16, 30), now).unwrap();
            let boot = files::current_boot_id(directory.path()).unwrap();
            let prepared_map =
                PreparedMap::new(directory.path(), &plan(16, 30), boot, now).unwrap().unwrap();
            for (operation, number) in operations {
                operate(&map, operation, number, now);
            }
            let mut old_map = files::open_writable(directory.path()).unwrap();
            let finished = prepared_map.finish(&mut old_map, &plan(16, 30), now);
            prop_assert!(matches!(finished, Finished::Unchanged));
        }
    }

    #[cfg(unix)]
    #[test]
    fn prepared_map_is_outdated_if_its_files_were_removed_or_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path();
        let now = Tick::from_secs(1000);
        let boot = files::current_boot_id(directory).unwrap();
        let prepare = |last_octet| {
            PreparedMap::new(directory, &plan(last_octet, 30), boot, now).unwrap().unwrap()
        };
        let is_outdated = |prepared_map: PreparedMap<'_>, last_octet| {
            let mut old_map = files::open_writable(directory).unwrap();
            let finished = prepared_map.finish(&mut old_map, &plan(last_octet, 30), now);
            matches!(finished, Finished::Outdated)
        };
        Map::create_at(directory, &plan(16, 30), now).unwrap();
        for name in ["map.new", "sessions.new"] {
            let prepared_map = prepare(17);
            std::fs::remove_file(directory.join(name)).unwrap();
            assert!(is_outdated(prepared_map, 17));
            assert!(!files::has_temporary_files(directory));
        }
        // Files of another process have the temporary names. They are neither published nor removed.
        for name in ["map.new", "sessions.new"] {
            let prepared_map = prepare(17);
            std::fs::remove_file(directory.join(name)).unwrap();
            std::fs::write(directory.join(name), "another file").unwrap();
            assert!(is_outdated(prepared_map, 17));
            assert!(directory.join(name).exists());
            std::fs::remove_file(directory.join(name)).unwrap();
            assert!(!files::has_temporary_files(directory));
        }
    }

    #[cfg(unix)]
    #[test]
    fn prepared_map_is_outdated_if_the_old_map_was_removed() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path();
        let now = Tick::from_secs(1000);
        let boot = files::current_boot_id(directory).unwrap();
        Map::create_at(directory, &plan(16, 30), now).unwrap();
        let new_plan = plan(18, 30);
        let prepared_map = PreparedMap::new(directory, &new_plan, boot, now).unwrap().unwrap();
        Map::open(directory).unwrap().remove().unwrap();
        Map::create_at(directory, &plan(16, 30), now).unwrap();
        let mut old_map = files::open_writable(directory).unwrap();
        let finished = prepared_map.finish(&mut old_map, &new_plan, now);
        assert!(matches!(finished, Finished::Outdated));
        assert!(!files::has_temporary_files(directory));
    }

    #[test]
    fn prepared_map_is_outdated_if_a_writer_died_in_an_allocation() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path();
        let now = Tick::from_secs(1000);
        let boot = files::current_boot_id(directory).unwrap();
        Map::create_at(directory, &plan(16, 30), now).unwrap();
        let new_plan = plan(18, 30);
        let prepared_map = PreparedMap::new(directory, &new_plan, boot, now).unwrap().unwrap();
        let mut old_map = files::open_writable(directory).unwrap();
        // The writer stored the generation of the lease, but not its owner.
        let table = old_map.writer().table_writer(0).unwrap();
        table.store_meta(3, table.meta(3).with_generation(1));
        let finished = prepared_map.finish(&mut old_map, &new_plan, now);
        assert!(matches!(finished, Finished::Outdated));
    }

    #[test]
    fn prepared_files_are_removed_if_they_are_not_published() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path();
        let now = Tick::from_secs(1000);
        let boot = files::current_boot_id(directory).unwrap();
        Map::create_at(directory, &plan(16, 30), now).unwrap();
        let prepare = || PreparedMap::new(directory, &plan(17, 30), boot, now).unwrap();
        let prepared_map = prepare().unwrap();
        assert!(files::has_temporary_files(directory));
        drop(prepared_map);
        assert!(!files::has_temporary_files(directory));
        // The temporary sessions file of a killed process can belong to the map in place.
        std::fs::write(directory.join("sessions.new"), "").unwrap();
        assert!(prepare().is_none());
        assert!(files::has_temporary_files(directory));
    }
}
