//! A read-only view of the table of one pool: its control words, its index and its slots.

use crate::Tick;
use crate::map::format::counters::{self, ControlWords, Counter};
use crate::map::format::index::{Bucket, Entry, Key, LoadedBucket};
use crate::map::format::placement::{Placement, is_in_free_queue};
use crate::map::format::pool::PoolLayout;
use crate::map::format::queue::{self, Queue};
use crate::map::format::record::{self, RecordWords};
use crate::map::format::slot::{LINK, META, Meta, OWNER, Owner, PLANNED, RESERVED, Slot};
use crate::map::format::user::UserHash;
use crate::map::format::words::split_halves;
use crate::raw::word::Word;
use crate::session::Handle;

/// A read-only view of the table of one pool, with the records of its slots.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Table<'a> {
    pub(crate) pool: &'a PoolLayout,
    pub(crate) control: &'a ControlWords,
    pub(crate) index: &'a [Bucket],
    pub(crate) slots: &'a [Slot],
    /// The words of the sessions file. Empty if the map has no such file.
    sessions_words: &'a [Word],
}

impl<'a> Table<'a> {
    /// Returns the table of a pool. `words` and `sessions_words` are the words of the map and of
    /// its sessions file. Returns `None` if the layout belongs to a map of another length.
    #[inline(always)]
    pub(crate) fn new(
        words: &'a [Word],
        sessions_words: &'a [Word],
        pool: &'a PoolLayout,
    ) -> Option<Self> {
        let (control, index, slots) = pool.table.locate(words)?;
        Some(Self { pool, control, index, slots, sessions_words })
    }

    /// Reads a word of a slot with acquire ordering (see [`Word::load`]).
    #[inline(always)]
    pub(crate) fn load(&self, slot: u32, offset: usize) -> u64 {
        self.slots.get(slot as usize).map_or(0, |words| words[offset].load())
    }

    /// Reads the owner word of a slot.
    #[inline(always)]
    pub(crate) fn owner(&self, slot: u32) -> Owner {
        Owner::from_word(self.load(slot, OWNER))
    }

    /// Reads the meta word of a slot.
    #[inline(always)]
    pub(crate) fn meta(&self, slot: u32) -> Meta {
        Meta::from_word(self.load(slot, META))
    }

    /// Returns the owner word and the meta word of a slot.
    pub(crate) fn owner_and_meta(&self, slot: u32) -> [u64; 2] {
        [self.load(slot, OWNER), self.load(slot, META)]
    }

    /// Returns whether this session holds the slot.
    #[inline]
    pub(crate) fn is_held_by(&self, slot: u32, session: u64) -> bool {
        self.load(slot, OWNER) == session
    }

    /// Returns whether the session still holds the lease of a handle of this pool.
    ///
    /// This method reads the owner word first. So the generation that it reads next belongs to the
    /// lease that the owner word shows or to a later lease, never to an earlier one.
    #[inline]
    pub(crate) fn is_live(&self, handle: &Handle) -> bool {
        self.is_held_by(handle.slot, handle.session.raw())
            && self.meta(handle.slot).generation == handle.generation
    }

    /// Returns the start of the session that holds a leased slot.
    pub(crate) fn session_start(&self, slot: u32) -> Tick {
        Tick::from_secs(split_halves(self.load(slot, LINK)).0)
    }

    /// Returns the record of a slot; `None` if the map has no sessions file.
    #[inline]
    pub(crate) fn record(&self, slot: u32) -> Option<&'a RecordWords> {
        record::locate(self.sessions_words, self.pool, slot)
    }

    /// Returns the user who got the current lease of a slot, or the last lease if the slot is not
    /// leased. Returns [`UserHash::NONE`] if the user is unknown.
    #[inline]
    pub(crate) fn last_user(&self, slot: u32) -> UserHash {
        let record = self.record(slot);
        record
            .map_or(UserHash::NONE, |record| record::last_user(record, self.meta(slot).generation))
    }

    /// Returns whether `user` is known and is the last user of the slot ([`Table::last_user`]).
    #[inline]
    pub(crate) fn is_last_user(&self, slot: u32, user: UserHash) -> bool {
        user != UserHash::NONE && self.last_user(slot) == user
    }

    /// Returns the user of the session that holds a slot. Unlike [`Table::last_user`], this can be
    /// a user whom the session got after the lease.
    pub(crate) fn session_user(&self, slot: u32) -> UserHash {
        let record = self.record(slot);
        record.map_or(UserHash::NONE, |record| {
            record::session_user(record, self.meta(slot).generation)
        })
    }

    /// Returns whether the slot is reserved for `user`.
    pub(crate) fn is_reserved_for(&self, slot: u32, user: UserHash) -> bool {
        let reservation = self.record(slot).map_or(UserHash::NONE, record::reservation);
        user != UserHash::NONE && self.meta(slot).has_any(RESERVED) && reservation == user
    }

    /// Reads a counter.
    #[inline(always)]
    pub(crate) fn count(&self, counter: Counter) -> u32 {
        counters::count(self.control, counter)
    }

    /// Returns the front slot of a queue.
    #[inline]
    pub(crate) fn front(&self, queue: Queue) -> Option<u32> {
        queue::front(self.control, self.slots, queue)
    }

    /// Returns the next slot in the queue of this slot.
    pub(crate) fn successor(&self, slot: u32) -> Option<u32> {
        queue::successor(self.slots, slot)
    }

    /// Returns the placement of a slot, computed from its own words.
    #[inline]
    pub(crate) fn placement(&self, slot: u32) -> Placement {
        Placement::of(self.owner(slot), self.meta(slot))
    }

    /// Loads the home bucket of a session in the index.
    #[inline(always)]
    pub(crate) fn home_bucket(&self, session: u64) -> LoadedBucket<'a> {
        LoadedBucket::load(Key::session(session), self.index)
    }

    /// Returns whether the index proves that the session of this home bucket holds no slot.
    #[inline(always)]
    pub(crate) fn is_session_absent(&self, home: &LoadedBucket<'_>) -> bool {
        home.has_no_entry() && self.count(Counter::Unindexed) == 0
    }

    /// Returns the slot that a session holds and the generation of its lease.
    ///
    /// Takes O(1) time if the index is complete. Otherwise scans all slots.
    #[inline(always)]
    pub(crate) fn lease_of(&self, session: u64) -> Option<(u32, u32)> {
        self.find_lease(&self.home_bucket(session), session)
    }

    /// Same as [`Table::lease_of`], for a caller that has loaded `home`, the session's home bucket.
    #[inline(always)]
    pub(crate) fn find_lease(&self, home: &LoadedBucket<'_>, session: u64) -> Option<(u32, u32)> {
        let slot_if_held = |slot: u32| self.is_held_by(slot, session).then_some(slot);
        let slot = match home.find(slot_if_held) {
            Some(slot) => slot,
            None if self.count(Counter::Unindexed) == 0 => return None,
            None => self.scan_for_session(session)?,
        };
        let generation = self.meta(slot).generation;
        // Read the owner again after the generation: in the meantime, the slot can have been
        // released and leased to another session.
        self.is_held_by(slot, session).then_some((slot, generation))
    }

    #[cold]
    #[inline(never)]
    fn scan_for_session(self, session: u64) -> Option<u32> {
        (0..self.pool.slot_count).find(|slot| self.is_held_by(*slot, session))
    }

    /// Returns the generation of the next lease of a slot.
    pub(crate) fn next_generation(&self, slot: u32) -> u32 {
        self.meta(slot).next_lease(0).generation
    }

    /// Returns whether a slot is in the free queue, according to its own words.
    #[inline(always)]
    pub(crate) fn is_free(&self, slot: u32) -> bool {
        is_in_free_queue(self.load(slot, OWNER), self.meta(slot))
    }

    /// Returns the free slot that this user held last, and the index entry of that slot. Returns
    /// `None` if there is no such slot, or if the index may contain several slots of the user.
    #[inline(always)]
    pub(crate) fn only_free_slot_of(&self, user: UserHash) -> Option<(u32, Entry<'a>)> {
        if user == UserHash::NONE || self.count(Counter::Unindexed) > 0 {
            return None;
        }
        let home = LoadedBucket::load(Key::user(user.tag()), self.index);
        let (slot, entry) = home.single_match()?;
        let is_available = self.meta(slot).user_tag() == user.tag()
            && self.is_free(slot)
            && self.is_last_user(slot, user);
        is_available.then_some((slot, entry))
    }

    /// Returns the meta word of a reserved slot without the reservation. The result has the tag of
    /// the last user ([`Table::last_user`]) instead of the tag of the reservation's user.
    pub(crate) fn meta_without_reservation(&self, slot: u32) -> Meta {
        self.meta(slot).with_flags(0, RESERVED | PLANNED).with_user(self.last_user(slot).tag())
    }

    /// Returns the meta word of a slot without [`PLANNED`] and without a reservation by the plan. A
    /// retired slot stays retired.
    pub(crate) fn meta_without_plan(&self, slot: u32) -> Meta {
        let meta = self.meta(slot);
        if meta.has_any(PLANNED) && meta.has_any(RESERVED) {
            return self.meta_without_reservation(slot);
        }
        meta.with_flags(0, PLANNED)
    }

    /// Returns whether at least one slot awaits the release of its address in another pool. Scans
    /// all slots.
    #[cold]
    pub(crate) fn awaits_any_release(&self) -> bool {
        (0..self.pool.slot_count).any(|slot| self.meta(slot).is_awaiting_release())
    }

    /// Returns the key under which the index contains a slot: the key of its session or of its user
    /// tag. Returns `None` if the slot is not leased and has no user tag.
    pub(crate) fn index_key(&self, slot: u32) -> Option<Key> {
        match (self.owner(slot), self.meta(slot).user_tag()) {
            (Owner::Session(session_id), _) => Some(Key::session(session_id)),
            (_, 0) => None,
            (_, user_tag) => Some(Key::user(user_tag)),
        }
    }
}
