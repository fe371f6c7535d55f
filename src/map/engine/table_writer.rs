//! Changes to the table of one pool: allocating and releasing slots, and changing their state.
//!
//! The placement of a slot that is not leased determines its counter and its queue, if any. The
//! index contains the slot if the slot has a user tag. A change to a slot that is not leased has
//! three steps: call [`TableWriter::dequeue`], change the words, call [`TableWriter::enqueue`].
//! For speed, allocation has its own code for the first step, and release has its own code for the
//! last step. All operations take O(1) time.

use std::ops::Deref;

use super::table::Table;
use crate::Tick;
use crate::map::format::counters::{Counter, add_leased_and_free, add_to_count, set_count};
use crate::map::format::index::{self, Entry, Key, LoadedBucket};
use crate::map::format::placement::{self, Placement, is_in_free_queue};
use crate::map::format::queue::{self, Front, Queue};
use crate::map::format::record;
use crate::map::format::slot::{LINK, META, Meta, OWNER, Owner, PLANNED, RESERVED};
use crate::map::format::user::UserHash;
use crate::map::format::words::join_halves;
use crate::map::types::plan::Settings;
use crate::raw::word::WriteAccess;

/// The table of one pool, with the right to change it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TableWriter<'a> {
    table: Table<'a>,
    access: WriteAccess<'a>,
}

impl<'a> Deref for TableWriter<'a> {
    type Target = Table<'a>;

    #[inline(always)]
    fn deref(&self) -> &Table<'a> {
        &self.table
    }
}

impl<'a> TableWriter<'a> {
    /// Returns the table with the right to change it.
    #[inline(always)]
    pub(crate) fn new(table: Table<'a>, access: WriteAccess<'a>) -> Self {
        Self { table, access }
    }

    /// Returns the right to store to the words of the table.
    #[inline(always)]
    pub(crate) fn access(&self) -> WriteAccess<'a> {
        self.access
    }

    /// Writes a word of a slot with release ordering.
    #[inline(always)]
    pub(crate) fn store(&self, slot: u32, offset: usize, value: u64) {
        if let Some(words) = self.slots.get(slot as usize) {
            words[offset].store(self.access, value);
        }
    }

    /// Writes the meta word of a slot. Does not update queues, counters and index.
    pub(crate) fn store_meta(&self, slot: u32, meta: Meta) {
        self.store(slot, META, meta.to_word());
    }

    /// Writes the owner word of a slot. Does not update queues, counters and index.
    pub(crate) fn store_owner(&self, slot: u32, owner: Owner) {
        self.store(slot, OWNER, owner.to_word());
    }

    /// Writes a counter.
    #[inline(always)]
    pub(crate) fn set_count(&self, counter: Counter, value: u32) {
        set_count(self.access, self.control, counter, value);
    }

    #[inline(always)]
    fn add_to_count(&self, counter: Counter, delta: i32) {
        add_to_count(self.access, self.control, counter, delta);
    }

    #[inline(always)]
    fn add_leased_and_free(&self, leased_delta: i32, free_delta: i32) {
        add_leased_and_free(self.access, self.control, leased_delta, free_delta);
    }

    #[inline(always)]
    fn update_peak(&self) {
        let leased = self.count(Counter::Leased);
        if leased > self.count(Counter::PeakLeased) {
            self.set_count(Counter::PeakLeased, leased);
        }
    }

    /// Allocates a slot that is not leased. Returns the generation of the lease. Returns 0 and
    /// changes nothing if the pool has no slot with this number.
    ///
    /// `session_start` is the time at which the session got its first lease. `home` is the home
    /// bucket of the session. `last_user_entry` is the index entry of the last user of the slot, if
    /// the caller has found this entry.
    #[inline(always)]
    pub(crate) fn allocate(
        &self,
        slot: u32,
        session: u64,
        home: &LoadedBucket<'_>,
        last_user_entry: Option<Entry<'_>>,
        user: UserHash,
        session_start: Tick,
    ) -> u32 {
        let Some(words) = self.slots.get(slot as usize) else { return 0 };
        let old_meta = Meta::from_word(words[META].load());
        let owner_word = words[OWNER].load();
        let mut meta = old_meta.next_lease(user.tag());
        if is_in_free_queue(owner_word, old_meta) {
            queue::remove(self.access, self.control, self.slots, Queue::Free, slot);
            self.add_leased_and_free(1, -1);
        } else {
            self.dequeue_without_index(slot, owner_word, old_meta);
            self.add_leased_and_free(1, 0);
            if old_meta.has_any(RESERVED) {
                // A reserved slot keeps the tag of the user of the reservation.
                meta = old_meta.next_lease(old_meta.user_tag());
            }
        }
        match last_user_entry {
            Some(entry) => entry.clear(self.access),
            None if old_meta.user_tag() == 0 => {}
            None => self.remove_from_index(Key::user(old_meta.user_tag()), slot),
        }
        words[LINK].store(self.access, join_halves(session_start.as_secs(), 0));
        words[META].store(self.access, meta.to_word());
        // This store commits the lease. The other words of the lease are already written.
        words[OWNER].store(self.access, session);
        if !home.insert(self.access, slot) {
            self.add_to_count(Counter::Unindexed, 1);
        }
        self.update_peak();
        meta.generation
    }

    /// Releases a slot that the session of this home bucket holds. The slot cools down if
    /// `cools_down` is true. Otherwise the slot is free at once.
    #[inline(always)]
    pub(crate) fn release(&self, home: &LoadedBucket<'_>, slot: u32, cools_down: bool, stamp: u64) {
        let Some(words) = self.slots.get(slot as usize) else { return };
        let owner = if cools_down { Owner::Cooling(stamp) } else { Owner::Free(stamp) };
        let owner_word = owner.to_word();
        // This store commits the release. Recovery can derive all other changes.
        words[OWNER].store(self.access, owner_word);
        if !home.remove(self.access, slot) {
            self.add_to_count(Counter::Unindexed, -1);
        }
        let meta = Meta::from_word(words[META].load());
        if is_in_free_queue(owner_word, meta) {
            queue::push_back(self.access, self.control, self.slots, Queue::Free, slot);
            self.add_leased_and_free(-1, 1);
        } else {
            self.enqueue_without_index(slot, owner_word, meta);
            self.add_leased_and_free(-1, 0);
        }
        if meta.user_tag() != 0 {
            self.insert_into_index(Key::user(meta.user_tag()), slot);
        }
    }

    /// Allocates the slot that has been free longest to an anonymous session. Returns the slot and
    /// the generation of the lease.
    ///
    /// Returns `None` and changes nothing if no slot is free, if the slot has a user tag or flags,
    /// or if any slot of the pool cools down.
    #[inline(always)]
    pub(crate) fn allocate_anonymous(
        &self,
        session: u64,
        vacant_entry: Entry<'_>,
        now: Tick,
    ) -> Option<(u32, u32)> {
        let front = queue::peek_front(self.control, self.slots, Queue::Free)?;
        let Front { slot, words, .. } = front;
        let old_meta = Meta::from_word(words[META].load_relaxed());
        let is_free = Owner::is_free_word(words[OWNER].load_relaxed());
        if !is_free || !old_meta.has_no_user_or_flags() || self.count(Counter::Cooling) != 0 {
            return None;
        }
        let meta = old_meta.next_lease(0);
        front.remove(self.access, self.slots);
        self.add_leased_and_free(1, -1);
        words[LINK].store(self.access, join_halves(now.as_secs(), 0));
        words[META].store(self.access, meta.to_word());
        // This store commits the lease. The other words of the lease are already written.
        words[OWNER].store(self.access, session);
        vacant_entry.fill(self.access, slot);
        self.update_peak();
        Some((slot, meta.generation))
    }

    /// Releases a slot of an anonymous session. The slot becomes free at once.
    ///
    /// Returns `None` and changes nothing if the slot has a user tag or flags.
    #[inline(always)]
    pub(crate) fn release_anonymous(
        &self,
        slot: u32,
        session_entry: Entry<'_>,
        stamp: u64,
    ) -> Option<()> {
        let words = self.slots.get(slot as usize)?;
        if !Meta::from_word(words[META].load_relaxed()).has_no_user_or_flags() {
            return None;
        }
        // This store commits the release. Recovery can derive all other changes.
        words[OWNER].store(self.access, Owner::Free(stamp).to_word());
        session_entry.clear(self.access);
        queue::push_back(self.access, self.control, self.slots, Queue::Free, slot);
        self.add_leased_and_free(-1, 1);
        Some(())
    }

    /// Sets and clears flags of a slot. Also replaces the user tag of the slot if `user_tag` is
    /// `Some`. If `user_tag` is `None` and this call clears [`RESERVED`], the slot gets the tag of
    /// its current or last user.
    pub(crate) fn change_flags(
        &self,
        slot: u32,
        flags_to_set: u32,
        flags_to_clear: u32,
        user_tag: Option<u32>,
        stamp: u64,
    ) {
        let old_meta = self.meta(slot);
        let mut meta = old_meta.with_flags(flags_to_set, flags_to_clear);
        if let Some(user_tag) = user_tag {
            meta = meta.with_user(user_tag);
        } else if flags_to_clear & RESERVED != 0 {
            meta = self.meta_without_reservation(slot).with_flags(flags_to_set, flags_to_clear);
        }
        if meta == old_meta {
            // Without this return, the slot would move to the back of its queue, and a cooling slot
            // would begin its cool-down again.
            return;
        }
        match self.owner(slot) {
            Owner::Session(_) => self.store_meta(slot, meta),
            owner => {
                self.dequeue(slot);
                self.store_meta(slot, meta);
                // The slot moves to the back of its queue, so it needs a new stamp.
                self.store_owner(slot, owner.with_stamp(stamp));
                self.enqueue(slot);
            }
        }
    }

    /// Writes the user for whom a slot is reserved. The caller then sets [`RESERVED`] and the tag
    /// of the user.
    pub(crate) fn write_reservation(&self, slot: u32, user: UserHash) {
        if let Some(record) = self.record(slot) {
            record::write_reservation(self.access, record, user);
        }
    }

    /// Writes the last user of a slot that is not leased. The caller then sets the tag of the user.
    pub(crate) fn write_last_user(&self, slot: u32, user: UserHash, name: &str) {
        if let Some(record) = self.record(slot) {
            let Meta { generation, .. } = self.meta(slot);
            record::write_last_user(self.access, record, generation, user, name);
        }
    }

    /// Changes the state of a slot that is not leased.
    pub(crate) fn change_state(&self, slot: u32, owner: Owner) {
        let meta = self.meta(slot);
        self.dequeue_without_index(slot, self.load(slot, OWNER), meta);
        self.store_owner(slot, owner);
        self.enqueue_without_index(slot, owner.to_word(), meta);
    }

    /// Updates [`Counter::LowWaterWarned`]. Returns true if the pool has fallen below its low-water
    /// mark since the last call.
    #[inline]
    pub(crate) fn update_low_water_warning(&self, settings: &Settings) -> bool {
        if settings.low_water == 0 {
            return false;
        }
        let available = self.count(Counter::Free).saturating_add(self.count(Counter::Cooling));
        let is_below = available < settings.low_water;
        let is_warned = self.count(Counter::LowWaterWarned) != 0;
        if is_below != is_warned {
            self.set_count(Counter::LowWaterWarned, u32::from(is_below));
        }
        is_below && !is_warned
    }

    /// Removes a slot from its queue, its counter and the index.
    pub(crate) fn remove_derived(&self, slot: u32) {
        match self.owner(slot) {
            Owner::Session(session_id) => {
                self.add_to_count(Counter::Leased, -1);
                self.remove_from_index(Key::session(session_id), slot);
            }
            _ => self.dequeue(slot),
        }
    }

    /// Adds a slot to its queue, its counter and the index.
    pub(crate) fn add_derived(&self, slot: u32) {
        match self.owner(slot) {
            Owner::Session(session_id) => {
                self.add_to_count(Counter::Leased, 1);
                self.insert_into_index(Key::session(session_id), slot);
            }
            _ => self.enqueue(slot),
        }
    }

    /// Copies a slot and its record from another map, with this meta word. Does not update queues,
    /// counters and index.
    pub(crate) fn copy_slot(&self, slot: u32, source: &Table<'_>, meta: Meta) {
        self.copy_record(slot, source);
        for offset in [LINK, OWNER] {
            self.store(slot, offset, source.load(slot, offset));
        }
        self.store_meta(slot, meta);
    }

    /// Copies the record of a slot from another map, see [`record::copy`]. Also copies the
    /// reservation, unless the plan of this map reserves the slot.
    pub(crate) fn copy_record(&self, slot: u32, source: &Table<'_>) {
        if let (Some(source_record), Some(record)) = (source.record(slot), self.record(slot)) {
            record::copy(self.access, source_record, record);
            if !self.meta(slot).has_any(PLANNED) {
                record::write_reservation(self.access, record, record::reservation(source_record));
            }
        }
    }

    /// Adds a slot that is not leased to its queue, its counter and the index.
    pub(crate) fn enqueue(&self, slot: u32) {
        let meta = self.meta(slot);
        self.enqueue_without_index(slot, self.load(slot, OWNER), meta);
        if meta.user_tag() != 0 {
            self.insert_into_index(Key::user(meta.user_tag()), slot);
        }
    }

    /// Removes a slot that is not leased from its queue, its counter and the index.
    pub(crate) fn dequeue(&self, slot: u32) {
        let meta = self.meta(slot);
        self.dequeue_without_index(slot, self.load(slot, OWNER), meta);
        if meta.user_tag() != 0 {
            self.remove_from_index(Key::user(meta.user_tag()), slot);
        }
    }

    #[inline(always)]
    fn enqueue_without_index(&self, slot: u32, owner_word: u64, meta: Meta) {
        let placement = Placement::of(Owner::from_word(owner_word), meta);
        placement::enqueue(self.access, self.control, self.slots, slot, placement);
    }

    #[inline(always)]
    fn dequeue_without_index(&self, slot: u32, owner_word: u64, meta: Meta) {
        let placement = Placement::of(Owner::from_word(owner_word), meta);
        placement::dequeue(self.access, self.control, self.slots, slot, placement);
    }

    #[inline(always)]
    fn insert_into_index(&self, key: Key, slot: u32) {
        if !index::insert(self.access, self.index, key, slot) {
            self.add_to_count(Counter::Unindexed, 1);
        }
    }

    #[inline(always)]
    fn remove_from_index(&self, key: Key, slot: u32) {
        if !index::remove(self.access, self.index, key, slot) {
            self.add_to_count(Counter::Unindexed, -1);
        }
    }
}
