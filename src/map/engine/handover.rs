//! Handover: moves a released address to the pool to which a new plan assigns it.
//!
//! Such an address has a slot in the old pool and a slot in the new pool. While a session holds the
//! old slot, the new slot has the flags [`AWAITING_RELEASE`]. When the session releases the old
//! slot, the writer moves the state of the address to the new slot, and resets and retires the old
//! slot. The state consists of the cool-down, the last user, the reservation and the drain.
//!
//! [`AWAITING_RELEASE`]: crate::map::format::slot::AWAITING_RELEASE

use super::image::has_state;
use super::table::Table;
use super::table_writer::TableWriter;
use super::writer::MapWriter;
use crate::map::format::record;
use crate::map::format::slot::{META, Meta, OWNER, Owner, RETIRED};

impl MapWriter<'_> {
    /// Moves the state of a released address to the slot that awaits the release, if there is such
    /// a slot.
    #[cold]
    #[inline(never)]
    pub(crate) fn hand_over(&self, old_pool: u16, old_table: TableWriter<'_>, old_slot: u32) {
        if old_table.pool.is_loopback {
            return;
        }
        let Some(address) = old_table.pool.address(self.words(), old_slot) else { return };
        let waiting_slot =
            self.table_writers().filter(|(pool, _)| *pool != old_pool).find_map(|(_, table)| {
                let slot = table.pool.slot_of(self.words(), address)?;
                let is_waiting = !table.pool.is_loopback && table.meta(slot).is_awaiting_release();
                is_waiting.then_some((table, slot))
            });
        if let Some((new_table, new_slot)) = waiting_slot {
            let old_meta = old_table.meta(old_slot);
            new_table.dequeue(new_slot);
            copy_state((&new_table, new_slot), (&old_table, old_slot), old_meta);
            new_table.enqueue(new_slot);
            reset_and_retire_queued(&old_table, old_slot);
        }
    }

    /// Finishes the handovers of a writer that died. The caller has already rebuilt queues and
    /// index.
    #[cold]
    #[inline(never)]
    pub(crate) fn finish_handovers(&self) {
        for (pool, table) in self.table_writers() {
            let has_unmoved_state = |slot: &u32| {
                let (owner, meta) = (table.owner(*slot), table.meta(*slot));
                meta.has_any(RETIRED) && !owner.is_session() && has_state(owner, meta)
            };
            for slot in (0..table.pool.slot_count).filter(has_unmoved_state) {
                self.hand_over(pool, table, slot);
                // If the state is already in another slot, only the last step is missing.
                if !self.is_state_slot(pool, &table, slot) {
                    reset_and_retire_queued(&table, slot);
                }
            }
        }
    }
}

/// Copies the state of an address to a slot in another pool. `old_meta` has the flags and the user
/// tag for the new slot. The new slot keeps its own generation. The last store makes the new slot
/// usable.
pub(crate) fn copy_state(
    (new_table, new_slot): (&TableWriter<'_>, u32),
    (old_table, old_slot): (&Table<'_>, u32),
    old_meta: Meta,
) {
    let Meta { generation, .. } = new_table.meta(new_slot);
    let records = (old_table.record(old_slot), new_table.record(new_slot));
    if let (Some(old_record), Some(new_record)) = records {
        let old_generation = old_table.meta(old_slot).generation;
        let access = new_table.access();
        record::copy_users(access, (old_record, old_generation), (new_record, generation));
    }
    new_table.store(new_slot, OWNER, old_table.load(old_slot, OWNER));
    let new_meta = old_meta.with_flags(0, RETIRED).with_generation(generation);
    new_table.store(new_slot, META, new_meta.to_word());
}

/// Resets and retires a slot, and updates the queues and the index.
fn reset_and_retire_queued(table: &TableWriter<'_>, slot: u32) {
    table.dequeue(slot);
    reset_and_retire(table, slot);
    table.enqueue(slot);
}

/// Removes the state of a slot and sets the flag [`RETIRED`]. Keeps the generation. Does not update
/// queues and index.
pub(crate) fn reset_and_retire(table: &TableWriter<'_>, slot: u32) {
    let Meta { generation, .. } = table.meta(slot);
    // Invalidate the record first: after a crash, recovery repeats this function only for a slot
    // whose owner word or meta word still has state.
    if let Some(record) = table.record(slot) {
        record::invalidate(table.access(), record);
    }
    table.store_owner(slot, Owner::Free(0));
    let meta = Meta::from_word(0).with_generation(generation);
    table.store_meta(slot, meta.with_flags(RETIRED, 0));
}
