//! One pool of a map: giving a slot, taking it back, and what is derived from the slots.
//!
//! Every slot stands somewhere: held, in one of the queues, reserved or drained. `enter` and
//! `leave` keep queue, index and counter of a slot that is not held; a change to such a slot is
//! leave, change, enter, and so is giving it and taking it back, written out. Writers only, one at a
//! time; every operation is O(1) but the scans that say so.

use crate::Tick;
use crate::map::format::counters::{self, Control, Counter};
use crate::map::format::index::{self, Bucket, Entry, Home, Key};
use crate::map::format::pool::PoolLayout;
use crate::map::format::queue::{self, Oldest, Queue};
use crate::map::format::slot::{OWNER, Owner, PLACE, PLANNED, RESERVED, Slot, TENANCY, Tenancy};
use crate::map::format::slot_state::{Standing, is_plain, stand, standing};
use crate::map::types::plan::{Settings, pair, unpair};
use crate::session::Handle;
use crate::sync::{AtomicU64, Ordering};

/// A pool of a map.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Table<'a> {
    pub(crate) pool: &'a PoolLayout,
    pub(crate) control: &'a Control,
    pub(crate) index: &'a [Bucket],
    pub(crate) slots: &'a [Slot],
}

impl<'a> Table<'a> {
    /// The pool in the words of its map; `None` if they are not those the layout was read from.
    #[inline(always)]
    pub(crate) fn new(words: &'a [AtomicU64], pool: &'a PoolLayout) -> Option<Self> {
        let (control, index, slots) = pool.table.of(words)?;
        Some(Self { pool, control, index, slots })
    }

    /// A word of a slot, with everything that was stored before it.
    #[inline(always)]
    fn load(&self, slot: u32, word: usize) -> u64 {
        self.slots.get(slot as usize).map_or(0, |slot| slot[word].load(Ordering::Acquire))
    }

    /// Writes a word of a slot; who sees it sees everything stored before it.
    #[inline(always)]
    fn store(&self, slot: u32, word: usize, value: u64) {
        if let Some(slot) = self.slots.get(slot as usize) {
            slot[word].store(value, Ordering::Release);
        }
    }

    #[inline(always)]
    pub(crate) fn owner(&self, slot: u32) -> Owner {
        Owner::from_word(self.load(slot, OWNER))
    }

    /// Whether this session holds the slot.
    #[inline]
    pub(crate) fn is_held_by(&self, slot: u32, session: u64) -> bool {
        self.load(slot, OWNER) == session
    }

    /// Whether the lease of a handle of this pool is still held. The owner is looked at first: a
    /// generation seen after it is of that lease or a later one.
    #[inline]
    pub(crate) fn is_lease_of(&self, handle: &Handle) -> bool {
        self.is_held_by(handle.slot, handle.session.raw())
            && self.tenancy(handle.slot).generation == handle.generation
    }

    #[inline(always)]
    pub(crate) fn tenancy(&self, slot: u32) -> Tenancy {
        Tenancy::from_word(self.load(slot, TENANCY))
    }

    /// The words of a slot that say what is true of its address, but for where it is in a queue.
    pub(crate) fn truth(&self, slot: u32) -> [u64; 2] {
        [self.load(slot, OWNER), self.load(slot, TENANCY)]
    }

    /// Sets the tenancy of a slot before the first rebuild: nothing is derived from it yet.
    pub(crate) fn set_tenancy(&self, slot: u32, tenancy: Tenancy) {
        self.store(slot, TENANCY, tenancy.to_word());
    }

    /// Sets the owner of a slot, likewise.
    pub(crate) fn set_owner(&self, slot: u32, owner: Owner) {
        self.store(slot, OWNER, owner.to_word());
    }

    /// Takes over the slots of the same pool in an older map, before the first rebuild.
    pub(crate) fn copy_slots(&self, older: &Table<'_>) {
        for (to, from) in self.slots.iter().flatten().zip(older.slots.iter().flatten()) {
            to.store(from.load(Ordering::Acquire), Ordering::Release);
        }
    }

    /// Takes over the peak of the same pool in an older map.
    pub(crate) fn keep_peak(&self, older: &Table<'_>) {
        self.set_count(Counter::Peak, older.count(Counter::Peak));
    }

    /// Since when a held slot is held.
    pub(crate) fn since(&self, slot: u32) -> Tick {
        Tick::from_secs(unpair(self.load(slot, PLACE)).0)
    }

    /// Tag of the user whose session holds a held slot, or held a reserved one last; 0 for nobody's.
    /// The tenancy may bear the tag of another user, for whom the address is reserved.
    pub(crate) fn holder(&self, slot: u32) -> u32 {
        unpair(self.load(slot, PLACE)).1
    }

    #[inline(always)]
    pub(crate) fn count(&self, counter: Counter) -> u32 {
        counters::count(self.control, counter)
    }

    #[inline(always)]
    pub(crate) fn set_count(&self, counter: Counter, value: u32) {
        counters::set_count(self.control, counter, value);
    }

    #[inline(always)]
    fn add(&self, counter: Counter, by: i32) {
        counters::add(self.control, counter, by);
    }

    #[inline(always)]
    fn raise_peak(&self) {
        let used = self.count(Counter::Used);
        if used > self.count(Counter::Peak) {
            self.set_count(Counter::Peak, used);
        }
    }

    /// The oldest slot in a queue.
    #[inline]
    pub(crate) fn first(&self, queue: Queue) -> Option<u32> {
        queue::first(self.control, self.slots, queue)
    }

    /// The slot after this one in its queue.
    pub(crate) fn next(&self, slot: u32) -> Option<u32> {
        queue::next(self.slots, slot)
    }

    /// Where a slot stands, from its own words alone.
    #[inline]
    pub(crate) fn standing(&self, slot: u32) -> Standing {
        standing(self.owner(slot), self.tenancy(slot))
    }

    /// Where the index has a session.
    #[inline(always)]
    pub(crate) fn home(&self, session: u64) -> Home<'a> {
        Home::of(Key::session(session), self.index)
    }

    /// Whether the index shows that a session of this home holds no slot.
    #[inline(always)]
    pub(crate) fn is_of_nobody(&self, home: &Home<'_>) -> bool {
        home.is_of_nobody() && self.count(Counter::Unindexed) == 0
    }

    /// The slot that a session holds, and the generation of its lease. O(1); a scan while the index
    /// lacks entries.
    #[inline(always)]
    pub(crate) fn lease_of(&self, session: u64) -> Option<(u32, u32)> {
        self.lease_at(&self.home(session), session)
    }

    /// The same, where the index was looked at already.
    #[inline(always)]
    pub(crate) fn lease_at(&self, home: &Home<'_>, session: u64) -> Option<(u32, u32)> {
        let is_his = |slot: u32| self.is_held_by(slot, session).then_some(slot);
        let slot = match home.find(is_his) {
            Some(slot) => slot,
            None if self.count(Counter::Unindexed) == 0 => return None,
            None => self.search(session)?,
        };
        let generation = self.tenancy(slot).generation;
        // Read before the owner is looked at again: it is of this lease or a later one.
        self.is_held_by(slot, session).then_some((slot, generation))
    }

    #[cold]
    #[inline(never)]
    fn search(self, session: u64) -> Option<u32> {
        (0..self.pool.slots).find(|slot| self.is_held_by(*slot, session))
    }

    /// The generation that the next lease of a slot bears.
    pub(crate) fn next_generation(&self, slot: u32) -> u32 {
        self.tenancy(slot).next(0).generation
    }

    /// Whether a slot is free and without flags.
    #[inline(always)]
    pub(crate) fn is_free(&self, slot: u32) -> bool {
        is_plain(self.load(slot, OWNER), self.tenancy(slot))
    }

    /// Whether a slot is free, without flags, and this user had it last.
    #[inline(always)]
    pub(crate) fn is_free_and_of(&self, slot: u32, user: u32) -> bool {
        self.tenancy(slot).user() == user && self.is_free(slot)
    }

    /// Gives a slot that is not held to a session; answers the generation of the lease. `last` is the
    /// entry of its last user, if that was looked up.
    #[inline(always)]
    pub(crate) fn give(
        &self,
        slot: u32,
        session: u64,
        home: &Home<'_>,
        last: Option<Entry<'_>>,
        user: u32,
        now: Tick,
    ) -> u32 {
        let Some(own) = self.slots.get(slot as usize) else { return 0 };
        let before = Tenancy::from_word(own[TENANCY].load(Ordering::Acquire));
        let owner = own[OWNER].load(Ordering::Acquire);
        let mut tenancy = before.next(user);
        if is_plain(owner, before) {
            queue::remove(self.control, self.slots, Queue::Free, slot);
            counters::add_used(self.control, 1, -1);
        } else {
            self.leave_queue(slot, owner, before);
            counters::add_used(self.control, 1, 0);
            if before.has(RESERVED) {
                // It keeps the tag of the user it is reserved for.
                tenancy = before.next(before.user());
            }
        }
        match last {
            Some(entry) => entry.clear(),
            None if before.user() == 0 => {}
            None => self.unindex(Key::user(before.user()), slot),
        }
        own[PLACE].store(pair(now.as_secs(), user), Ordering::Release);
        own[TENANCY].store(tenancy.to_word(), Ordering::Release);
        // The commit: everything about the lease is in place before it.
        own[OWNER].store(session, Ordering::Release);
        if !home.insert(slot) {
            self.add(Counter::Unindexed, 1);
        }
        self.raise_peak();
        tenancy.generation
    }

    /// Takes back a slot that the session of this home holds; it cools down if
    /// addresses do.
    #[inline(always)]
    pub(crate) fn take_back(&self, home: &Home<'_>, slot: u32, cools: bool, stamp: u64) {
        let Some(own) = self.slots.get(slot as usize) else { return };
        let owner = if cools { Owner::Cooling(stamp) } else { Owner::Free(stamp) }.to_word();
        // The commit: the rest can be derived.
        own[OWNER].store(owner, Ordering::Release);
        if !home.remove(slot) {
            self.add(Counter::Unindexed, -1);
        }
        let tenancy = Tenancy::from_word(own[TENANCY].load(Ordering::Acquire));
        if is_plain(owner, tenancy) {
            queue::push(self.control, self.slots, Queue::Free, slot);
            counters::add_used(self.control, -1, 1);
        } else {
            self.enter_queue(slot, owner, tenancy);
            counters::add_used(self.control, -1, 0);
        }
        if tenancy.user() != 0 {
            self.index(Key::user(tenancy.user()), slot);
        }
    }

    /// Gives the slot that has been free longest to nobody's session; answers it and the generation
    /// of the lease. `None`, and nothing is changed, if it was somebody's or is not as it should be.
    #[inline(always)]
    pub(crate) fn give_oldest(
        &self,
        session: u64,
        entry: Entry<'_>,
        now: Tick,
    ) -> Option<(u32, u32)> {
        let oldest = queue::oldest(self.control, self.slots, Queue::Free)?;
        let Oldest { slot, own, .. } = oldest;
        let before = Tenancy::from_word(own[TENANCY].load(Ordering::Relaxed));
        let is_bare = Owner::is_free(own[OWNER].load(Ordering::Relaxed)) && before.is_bare();
        if !is_bare || self.count(Counter::Cooling) != 0 {
            return None;
        }
        let tenancy = before.next(0);
        oldest.remove(self.slots);
        counters::add_used(self.control, 1, -1);
        own[PLACE].store(pair(now.as_secs(), 0), Ordering::Release);
        own[TENANCY].store(tenancy.to_word(), Ordering::Release);
        // The commit: everything about the lease is in place before it.
        own[OWNER].store(session, Ordering::Release);
        entry.put(slot);
        self.raise_peak();
        Some((slot, tenancy.generation))
    }

    /// Takes back a slot of nobody's session, which becomes free at once. `None`, and nothing is
    /// changed, if it was somebody's or must not.
    #[inline(always)]
    pub(crate) fn take_back_bare(&self, slot: u32, entry: Entry<'_>, stamp: u64) -> Option<()> {
        let own = self.slots.get(slot as usize)?;
        if !Tenancy::from_word(own[TENANCY].load(Ordering::Relaxed)).is_bare() {
            return None;
        }
        // The commit: the rest can be derived.
        own[OWNER].store(Owner::Free(stamp).to_word(), Ordering::Release);
        entry.clear();
        queue::push(self.control, self.slots, Queue::Free, slot);
        counters::add_used(self.control, -1, 1);
        Some(())
    }

    /// Sets and clears flags of a slot, and gives it to another user's name if one is named.
    pub(crate) fn change_flags(
        &self,
        slot: u32,
        set: u32,
        clear: u32,
        user: Option<u32>,
        stamp: u64,
    ) {
        let before = self.tenancy(slot);
        let mut tenancy = before.with_flags(set, clear);
        if let Some(user) = user {
            tenancy = tenancy.with_user(user);
        } else if clear & RESERVED != 0 {
            tenancy = self.unreserved(slot).with_flags(set, clear);
        }
        if tenancy == before {
            // It keeps its place in the queue, and goes on cooling.
            return;
        }
        match self.owner(slot) {
            Owner::Session(_) => self.store(slot, TENANCY, tenancy.to_word()),
            owner => {
                self.leave(slot);
                if tenancy.has(RESERVED) {
                    self.keep_last_user(slot, before);
                }
                self.store(slot, TENANCY, tenancy.to_word());
                // A fresh stamp, since it goes to the end of a queue.
                self.store(slot, OWNER, owner.since(stamp).to_word());
                self.enter(slot);
            }
        }
    }

    /// Before a slot is reserved: who had it last, for whom alone it need not cool down. It is in no
    /// queue while it is reserved, so its place word can say so, as it does of one that is held.
    pub(crate) fn keep_last_user(&self, slot: u32, before: Tenancy) {
        if !before.has(RESERVED) && self.owner(slot).stamp().is_some() {
            self.store(slot, PLACE, pair(0, before.user()));
        }
    }

    /// The tenancy of a reserved slot that is no longer reserved: it may have been reserved for
    /// somebody else than its holder.
    pub(crate) fn unreserved(&self, slot: u32) -> Tenancy {
        self.tenancy(slot).with_flags(0, RESERVED | PLANNED).with_user(self.holder(slot))
    }

    /// Moves a slot that is not held to another state.
    pub(crate) fn move_to(&self, slot: u32, owner: Owner) {
        let tenancy = self.tenancy(slot);
        self.leave_queue(slot, self.load(slot, OWNER), tenancy);
        self.store(slot, OWNER, owner.to_word());
        self.enter_queue(slot, owner.to_word(), tenancy);
    }

    /// Whether the pool fell below its low-water mark just now.
    #[inline]
    pub(crate) fn warn_low_water(&self, settings: &Settings) -> bool {
        if settings.low_water == 0 {
            return false;
        }
        let left = self.count(Counter::Free).saturating_add(self.count(Counter::Cooling));
        let warned = self.count(Counter::Warned) != 0;
        if (left < settings.low_water) != warned {
            self.set_count(Counter::Warned, u32::from(!warned));
            return !warned;
        }
        false
    }

    /// Enters a slot that is not held where its words say it stands.
    pub(crate) fn enter(&self, slot: u32) {
        let tenancy = self.tenancy(slot);
        self.enter_queue(slot, self.load(slot, OWNER), tenancy);
        if tenancy.user() != 0 {
            self.index(Key::user(tenancy.user()), slot);
        }
    }

    /// Takes a slot that is not held away from where it stands.
    pub(crate) fn leave(&self, slot: u32) {
        let tenancy = self.tenancy(slot);
        self.leave_queue(slot, self.load(slot, OWNER), tenancy);
        if tenancy.user() != 0 {
            self.unindex(Key::user(tenancy.user()), slot);
        }
    }

    #[inline(always)]
    fn enter_queue(&self, slot: u32, owner: u64, tenancy: Tenancy) {
        stand(self.control, self.slots, slot, standing(Owner::from_word(owner), tenancy), 1);
    }

    #[inline(always)]
    fn leave_queue(&self, slot: u32, owner: u64, tenancy: Tenancy) {
        stand(self.control, self.slots, slot, standing(Owner::from_word(owner), tenancy), -1);
    }

    #[inline(always)]
    fn index(&self, key: Key, slot: u32) {
        if !index::insert(self.index, key, slot) {
            self.add(Counter::Unindexed, 1);
        }
    }

    #[inline(always)]
    fn unindex(&self, key: Key, slot: u32) {
        if !index::remove(self.index, key, slot) {
            self.add(Counter::Unindexed, -1);
        }
    }
}
