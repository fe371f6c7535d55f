//! Handover: moves a released address to the pool to which a new plan assigns it.
//!
//! Such an address has a slot in the old pool and a slot in the new pool. While a session holds the
//! old slot, the new slot has the flags [`AWAITING_RELEASE`]. When the session releases the old
//! slot, the writer moves the state of the address to the new slot, and resets and retires the old
//! slot. The state consists of the cool-down, the last user and the reservation.
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
    pub(crate) fn hand_over(&self, old_pool: u16, old: TableWriter<'_>, old_slot: u32) {
        if old.pool.loopback {
            return;
        }
        let Some(address) = old.pool.address(self.words(), old_slot) else { return };
        let successor =
            self.table_writers().filter(|(pool, _)| *pool != old_pool).find_map(|(_, table)| {
                let slot = table.pool.slot_of(self.words(), address)?;
                let is_waiting = !table.pool.loopback && table.meta(slot).is_awaiting_release();
                is_waiting.then_some((table, slot))
            });
        if let Some((new, new_slot)) = successor {
            new.dequeue(new_slot);
            copy_state((&new, new_slot), (&old, old_slot), old.meta(old_slot));
            new.enqueue(new_slot);
            reset_and_retire_queued(&old, old_slot);
        }
    }

    /// Finishes the handovers of a writer that died. The caller has already rebuilt queues and
    /// index.
    #[cold]
    #[inline(never)]
    pub(crate) fn finish_handovers(&self) {
        for (number, table) in self.table_writers() {
            let has_unmoved_state = |slot: &u32| {
                let (owner, meta) = (table.owner(*slot), table.meta(*slot));
                meta.has_any(RETIRED) && !owner.is_session() && has_state(owner, meta)
            };
            for slot in (0..table.pool.slots).filter(has_unmoved_state) {
                self.hand_over(number, table, slot);
                if !self.is_state_slot(number, &table, slot) {
                    reset_and_retire_queued(&table, slot);
                }
            }
        }
    }
}

/// Copies the state of an address to a slot in another pool. The new slot keeps its own generation.
/// The last store makes the new slot usable.
pub(crate) fn copy_state(
    (new, new_slot): (&TableWriter<'_>, u32),
    (old, old_slot): (&Table<'_>, u32),
    meta: Meta,
) {
    let Meta { generation, .. } = new.meta(new_slot);
    if let (Some(from), Some(to)) = (old.record(old_slot), new.record(new_slot)) {
        let from_generation = old.meta(old_slot).generation;
        record::copy_users(new.access(), (from, from_generation), (to, generation));
    }
    new.store(new_slot, OWNER, old.load(old_slot, OWNER));
    let meta = meta.with_flags(0, RETIRED).with_generation(generation);
    new.store(new_slot, META, meta.to_word());
}

/// Resets and retires a slot, and updates the queues and the index.
fn reset_and_retire_queued(table: &TableWriter<'_>, slot: u32) {
    table.dequeue(slot);
    reset_and_retire(table, slot);
    table.enqueue(slot);
}

/// Sets the flag [`RETIRED`] of a slot and removes the rest of its state, except for the
/// generation. Does not update queues and index.
pub(crate) fn reset_and_retire(table: &TableWriter<'_>, slot: u32) {
    let Meta { generation, .. } = table.meta(slot);
    // Invalidate the record first: after a crash, recovery finds only slots whose words still have
    // a state.
    if let Some(record) = table.record(slot) {
        record::invalidate(table.access(), record);
    }
    table.store_owner(slot, Owner::Free(0));
    let meta = Meta::from_word(0).with_generation(generation);
    table.store_meta(slot, meta.with_flags(RETIRED, 0));
}
