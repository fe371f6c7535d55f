//! Recovery: rebuilds queues, index and counters from the slots, and finishes interrupted
//! handovers ([`super::handover`]).
//!
//! Recovery does not change the owner and meta words of leased slots, and it keeps correct index
//! entries in place. So during a recovery, readers find every session that they found before it.

use super::table_writer::TableWriter;
use super::writer::MapWriter;
use crate::map::format::counters::{Counter, MAX_COUNTERS};
use crate::map::format::header::{BUSY, LAST_STAMP, OPEN_SESSIONS};
use crate::map::format::index;
use crate::map::format::placement::Placement;
use crate::map::format::queue::{self, Queue};
use crate::map::format::record;
use crate::map::format::slot::{Meta, Owner};

impl MapWriter<'_> {
    /// Makes the map consistent if its last transaction was not committed.
    #[inline(always)]
    pub(crate) fn recover_if_needed(&self) {
        if self.header(BUSY) != 0 {
            self.rebuild();
            self.finish_handovers();
            self.store_header(BUSY, 0);
        }
    }

    /// Rebuilds all data that is derived from the slots. Finishes an interrupted update of a
    /// record, and invalidates the records of leases that were never committed.
    pub(crate) fn rebuild(&self) {
        record::finish_update(self.access(), self.sessions_words());
        self.rebuild_derived();
        for (_, table) in self.table_writers() {
            (0..table.pool.slot_count).for_each(|slot| table.invalidate_uncommitted_record(slot));
        }
    }

    /// Rebuilds queues, index, counters and the last stamp from the slots.
    pub(crate) fn rebuild_derived(&self) {
        let highest_stamps = self.table_writers().map(|(_, table)| table.rebuild());
        let highest_stamp = highest_stamps.max().unwrap_or(0);
        if highest_stamp > self.header(LAST_STAMP) {
            self.store_header(LAST_STAMP, highest_stamp);
        }
        let is_anchor = |owner: Owner, pool: u16| match owner {
            Owner::Session(session_id) => pool == 0 || self.is_anchor(session_id, pool),
            _ => false,
        };
        let open_session_count: usize = self
            .tables()
            .map(|(pool, table)| {
                (0..table.pool.slot_count)
                    .filter(|slot| is_anchor(table.owner(*slot), pool))
                    .count()
            })
            .sum();
        self.store_header(OPEN_SESSIONS, open_session_count as u64);
    }
}

impl TableWriter<'_> {
    /// Invalidates the record of a slot if the record belongs to a lease that was never committed.
    pub(crate) fn invalidate_uncommitted_record(&self, slot: u32) {
        let record = self.record(slot).filter(|_| !self.owner(slot).is_session());
        if let Some(record) = record {
            let Meta { generation, .. } = self.meta(slot);
            record::invalidate_uncommitted(self.access(), record, generation);
        }
    }

    /// Rebuilds queues, index and counters from the slots. The old queues, index and counters may
    /// contain any bytes. Returns the highest stamp of the slots. Allocates memory in proportion to
    /// the number of slots.
    fn rebuild(&self) -> u64 {
        let mut queues: [Vec<(u64, u32)>; 3] = Default::default();
        let mut counts = [0u32; MAX_COUNTERS];
        let mut highest_stamp = 0;
        for slot in 0..self.pool.slot_count {
            let placement = self.placement(slot);
            let stamp = self.owner(slot).stamp().unwrap_or(0);
            highest_stamp = highest_stamp.max(stamp);
            counts[placement.counter() as usize] += 1;
            if let Placement::Queued(queue) = placement {
                queues[queue as usize].push((stamp, slot));
            }
        }
        for (queue, entries) in
            [Queue::Free, Queue::Cooling, Queue::Lingering].into_iter().zip(&mut queues)
        {
            entries.sort_unstable();
            let slots_in_order = entries.iter().map(|(_, slot)| *slot);
            queue::rebuild(self.access(), self.control, self.slots, queue, slots_in_order);
        }
        let key_of = |slot| self.index_key(slot);
        let unindexed_count =
            index::repair(self.access(), self.index, self.pool.slot_count, key_of);
        for counter in [
            Counter::Free,
            Counter::Cooling,
            Counter::Lingering,
            Counter::Leased,
            Counter::Reserved,
            Counter::Drained,
        ] {
            self.set_count(counter, counts[counter as usize]);
        }
        self.set_count(Counter::Unindexed, unindexed_count);
        let leased_count = counts[Counter::Leased as usize];
        let peak = self.count(Counter::PeakLeased).clamp(leased_count, self.pool.slot_count);
        self.set_count(Counter::PeakLeased, peak);
        highest_stamp
    }
}
