//! Recovery: everything that is derived, derived from the slots again.
//!
//! What the slots say is never changed, and nothing right is taken out of the index, so readers go
//! on finding every session while it runs.

use super::state::State;
use super::table::Table;
use crate::map::format::counters::{COUNTERS, Counter};
use crate::map::format::index::{self, Key};
use crate::map::format::layout::{BUSY, LAST_STAMP, OPEN_SESSIONS};
use crate::map::format::queue::{self, Queue};
use crate::map::format::record;
use crate::map::format::region::{load, store};
use crate::map::format::slot::Owner;
use crate::map::format::slot_state::{Standing, counter_of};

impl State {
    /// Makes the map whole if its last writer died within an operation. The caller is the only
    /// writer.
    #[inline(always)]
    pub(crate) fn recover(&self) {
        if load(self.words(), BUSY) != 0 {
            self.rebuild();
            self.finish_moves();
            store(self.words(), BUSY, 0);
        }
    }

    /// Derives everything from the slots again: after the death of a writer, or to be sure.
    pub(crate) fn rebuild(&self) {
        let highest = self.tables().map(|(_, table)| table.rebuild()).max().unwrap_or(0);
        if highest > load(self.words(), LAST_STAMP) {
            store(self.words(), LAST_STAMP, highest);
        }
        for (_, table) in self.tables() {
            let is_free = |slot: &u32| table.owner(*slot).stamp().is_some();
            (0..table.pool.slots)
                .filter(is_free)
                .for_each(|slot| record::forget(self.records(), table.pool, slot));
        }
        let open: usize = self
            .tables()
            .map(|(number, table)| {
                (0..table.pool.slots)
                    .filter(|slot| {
                        matches!(table.owner(*slot), Owner::Session(raw)
                            if number == 0 || self.is_anchor(raw, number))
                    })
                    .count()
            })
            .sum();
        store(self.words(), OPEN_SESSIONS, open as u64);
    }
}

impl Table<'_> {
    /// Derives queues, index and counters from the slots, whatever they were. Answers the highest
    /// stamp. Readers beside it go on finding every session. Takes heap for one entry a slot.
    pub(crate) fn rebuild(&self) -> u64 {
        let mut queues: [Vec<(u64, u32)>; 3] = Default::default();
        let mut counts = [0u32; COUNTERS];
        let mut highest = 0;
        for slot in 0..self.pool.slots {
            let standing = self.standing(slot);
            let stamp = self.owner(slot).stamp().unwrap_or(0);
            highest = highest.max(stamp);
            match counter_of(standing) {
                Some(counter) => counts[counter as usize] += 1,
                None => counts[Counter::Used as usize] += 1,
            }
            if let Standing::Queued(queue) = standing {
                queues[queue as usize].push((stamp, slot));
            }
        }
        for (queue, slots) in
            [Queue::Free, Queue::Cooling, Queue::Lingering].into_iter().zip(&mut queues)
        {
            slots.sort_unstable();
            queue::rebuild(self.control, self.slots, queue, slots.iter().map(|(_, slot)| *slot));
        }
        let unindexed = index::repair(self.index, self.pool.slots, |slot| self.key_of(slot));
        for counter in [
            Counter::Free,
            Counter::Cooling,
            Counter::Lingering,
            Counter::Used,
            Counter::Reserved,
            Counter::Drained,
        ] {
            self.set_count(counter, counts[counter as usize]);
        }
        self.set_count(Counter::Unindexed, unindexed);
        let used = counts[Counter::Used as usize];
        self.set_count(Counter::Peak, self.count(Counter::Peak).clamp(used, self.pool.slots));
        highest
    }

    /// What a slot should be under in the index.
    fn key_of(&self, slot: u32) -> Option<Key> {
        match (self.owner(slot), self.tenancy(slot).user()) {
            (Owner::Session(raw), _) => Some(Key::session(raw)),
            (_, 0) => None,
            (_, user) => Some(Key::user(user)),
        }
    }
}
