//! One pool of a map: which slot to give, giving it, taking it back.
//!
//! Every slot stands somewhere: held, in one of the queues, reserved or drained. `enter` and
//! `leave` keep queue, index and counter of a slot that is not held; a change to such a slot is
//! leave, change, enter. Writers only, one at a time; every operation is O(1) but the scans that
//! say so.

use super::index::{self, Bucket, Key};
use super::layout::{Control, PoolLayout};
use super::plan::{Settings, Tick, pair, unpair};
use super::queue::{self, Queue};
use super::slot::{
    DRAINED, OWNER, Owner, PLACE, PLANNED, RESERVED, RETIRED, Slot, TENANCY, Tenancy, stamp_time,
};
use crate::session::Handle;
use crate::sync::{AtomicU64, Ordering};

/// A counter of a pool: one of its control words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(super) enum Counter {
    Free = 4,
    Cooling = 5,
    Lingering = 6,
    Used = 7,
    Reserved = 8,
    Drained = 9,
    /// The most that were used at once.
    Peak = 10,
    /// Entries for which the index had no room.
    Unindexed = 11,
    /// Not 0 once the low-water warning was given, until there is more again.
    Warned = 12,
}

/// Where a slot stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Held,
    Queued(Queue),
    Reserved,
    Drained,
}

/// Why a pool has no slot to give, or not this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// All held, reserved or drained.
    Exhausted,
    /// The first cooling one is ready at this tick.
    Cooling(Tick),
    /// Waiting for a look at their sockets.
    Lingering,
    /// Drained.
    Drained,
    /// Held by another session.
    Taken,
    /// Reserved for another user.
    Reserved,
}

/// A pool of a map.
#[derive(Clone, Copy, Debug)]
pub(super) struct Table<'a> {
    pub(super) pool: &'a PoolLayout,
    pub(super) control: &'a Control,
    pub(super) index: &'a [Bucket],
    pub(super) slots: &'a [Slot],
}

impl<'a> Table<'a> {
    /// The pool in the words of its map; `None` if they are not those the layout was read from.
    #[inline(always)]
    pub(super) fn new(words: &'a [AtomicU64], pool: &'a PoolLayout) -> Option<Self> {
        let (index, slots) = words
            .get(pool.index_at..pool.end())?
            .split_at_checked(pool.slots_at - pool.index_at)?;
        Some(Self {
            pool,
            control: words.get(pool.control_at..)?.first_chunk()?,
            index: index.as_chunks().0,
            slots: slots.as_chunks().0,
        })
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
    pub(super) fn owner(&self, slot: u32) -> Owner {
        Owner::from_word(self.load(slot, OWNER))
    }

    /// Whether this session holds the slot.
    #[inline]
    pub(super) fn is_held_by(&self, slot: u32, session: u64) -> bool {
        self.load(slot, OWNER) == session
    }

    /// Whether the lease of a handle of this pool is still held. The owner is looked at first: a
    /// generation seen after it is of that lease or a later one.
    #[inline]
    pub(super) fn is_lease_of(&self, handle: &Handle) -> bool {
        self.is_held_by(handle.slot, handle.session.raw())
            && self.tenancy(handle.slot).generation == handle.generation
    }

    #[inline(always)]
    pub(super) fn tenancy(&self, slot: u32) -> Tenancy {
        Tenancy::from_word(self.load(slot, TENANCY))
    }

    /// Sets the tenancy of a slot before the first rebuild: nothing is derived from it yet.
    pub(super) fn set_tenancy(&self, slot: u32, tenancy: Tenancy) {
        self.store(slot, TENANCY, tenancy.to_word());
    }

    /// Takes over the peak of the same pool in an older map.
    pub(super) fn keep_peak(&self, older: &Table<'_>) {
        self.set_count(Counter::Peak, older.count(Counter::Peak));
    }

    /// Since when a held slot is held.
    pub(super) fn since(&self, slot: u32) -> Tick {
        unpair(self.load(slot, PLACE)).0
    }

    /// Tag of the user whose session holds a held slot; 0 for nobody's. The tenancy may bear the
    /// tag of another user by then, for whom the address was reserved.
    pub(super) fn holder(&self, slot: u32) -> u32 {
        unpair(self.load(slot, PLACE)).1
    }

    #[inline(always)]
    pub(super) fn count(&self, counter: Counter) -> u32 {
        self.control[counter as usize].load(Ordering::Relaxed) as u32
    }

    #[inline(always)]
    pub(super) fn set_count(&self, counter: Counter, value: u32) {
        self.control[counter as usize].store(value.into(), Ordering::Relaxed);
    }

    #[inline(always)]
    fn add(&self, counter: Counter, by: i32) {
        self.set_count(counter, self.count(counter).saturating_add_signed(by));
    }

    /// The oldest slot in a queue.
    #[inline]
    pub(super) fn first(&self, queue: Queue) -> Option<u32> {
        queue::first(self.control, self.slots, queue)
    }

    /// The slot after this one in its queue.
    pub(super) fn next(&self, slot: u32) -> Option<u32> {
        queue::next(self.slots, slot)
    }

    /// Where a slot stands, from its own words alone.
    #[inline]
    pub(super) fn standing(&self, slot: u32) -> Standing {
        let queued = match self.owner(slot) {
            Owner::Session(_) => return Standing::Held,
            Owner::Free(_) => Queue::Free,
            Owner::Cooling(_) => Queue::Cooling,
            Owner::Lingering(_) => Queue::Lingering,
        };
        let tenancy = self.tenancy(slot);
        if tenancy.has(DRAINED | RETIRED) {
            Standing::Drained
        } else if tenancy.has(RESERVED) {
            Standing::Reserved
        } else {
            Standing::Queued(queued)
        }
    }

    /// The slot that a session holds. O(1); a scan while the index lacks entries.
    #[inline(always)]
    pub(super) fn held_by(&self, session: u64) -> Option<u32> {
        let is_his = |slot: u32| self.is_held_by(slot, session).then_some(slot);
        index::find(self.index, Key::session(session), is_his).or_else(|| {
            if self.count(Counter::Unindexed) == 0 {
                return None;
            }
            (0..self.pool.slots).find_map(is_his)
        })
    }

    /// The slot a user should get again: the one reserved for the user, else the last one the user
    /// gave back, cooled or not. O(1); a scan while the index lacks entries.
    #[inline]
    fn of_user(&self, user: u32) -> Option<u32> {
        if user == 0 {
            return None;
        }
        let mut best: Option<(u64, u32)> = None;
        let mut consider = |slot: u32| {
            if slot < self.pool.slots && self.tenancy(slot).user() == user {
                let rank = match self.standing(slot) {
                    Standing::Reserved => u64::MAX,
                    Standing::Queued(Queue::Free | Queue::Cooling) => {
                        self.owner(slot).stamp().unwrap_or(0)
                    }
                    _ => return None::<()>,
                };
                if best.is_none_or(|(most, _)| rank > most) {
                    best = Some((rank, slot));
                }
            }
            None
        };
        index::find(self.index, Key::user(user), &mut consider);
        if self.count(Counter::Unindexed) > 0 {
            (0..self.pool.slots).for_each(|slot| _ = consider(slot));
        }
        best.map(|(_, slot)| slot)
    }

    /// The slot for a new session of this user (0: nobody's): reservation, last address, the
    /// oldest that is free.
    #[inline(always)]
    pub(super) fn choose(
        &self,
        user: u32,
        settings: &Settings,
        now: Tick,
        stamp: &mut impl FnMut() -> u64,
    ) -> Result<u32, Refusal> {
        if let Some(slot) = self.of_user(user) {
            return Ok(slot);
        }
        if !settings.check_in_use && self.count(Counter::Cooling) > 0 {
            // Two for every one that can come in, so that none is left behind.
            for _ in 0..2 {
                self.promote_cooled(settings, now, stamp);
            }
        }
        if let Some(slot) = self.first(Queue::Free) {
            return Ok(slot);
        }
        Err(self.shortage(settings, now))
    }

    #[cold]
    fn shortage(&self, settings: &Settings, now: Tick) -> Refusal {
        if let Some(slot) = self.first(Queue::Cooling) {
            let until = self.cooled_at(slot, settings);
            return if until > now { Refusal::Cooling(until) } else { Refusal::Lingering };
        }
        if self.count(Counter::Lingering) > 0 {
            return Refusal::Lingering;
        }
        if self.pool.slots > 0 && self.count(Counter::Drained) == self.pool.slots {
            return Refusal::Drained;
        }
        Refusal::Exhausted
    }

    /// Whether this very slot can be given to this user's session.
    pub(super) fn check_request(
        &self,
        slot: u32,
        user: u32,
        settings: &Settings,
        now: Tick,
    ) -> Result<(), Refusal> {
        let tenancy = self.tenancy(slot);
        let his = user != 0 && tenancy.user() == user;
        match self.standing(slot) {
            Standing::Held => Err(Refusal::Taken),
            Standing::Drained => Err(Refusal::Drained),
            Standing::Reserved if his => Ok(()),
            Standing::Reserved => Err(Refusal::Reserved),
            Standing::Queued(Queue::Free) => Ok(()),
            Standing::Queued(Queue::Lingering) => Err(Refusal::Lingering),
            Standing::Queued(Queue::Cooling) if his => Ok(()),
            Standing::Queued(Queue::Cooling) => match self.cooled_at(slot, settings) {
                until if until > now => Err(Refusal::Cooling(until)),
                _ if settings.check_in_use => Err(Refusal::Lingering),
                _ => Ok(()),
            },
        }
    }

    fn cooled_at(&self, slot: u32, settings: &Settings) -> Tick {
        let released = self.owner(slot).stamp().map_or(0, stamp_time);
        released.saturating_add(settings.cool_down)
    }

    /// Moves the oldest cooling slot to the free ones if its time has passed.
    #[inline]
    fn promote_cooled(&self, settings: &Settings, now: Tick, stamp: &mut impl FnMut() -> u64) {
        if let Some(slot) = self.first(Queue::Cooling)
            && self.cooled_at(slot, settings) <= now
        {
            self.move_to(slot, Owner::Free(stamp()));
        }
    }

    /// Gives a slot that is not held to a session; answers the generation of the lease.
    #[inline(always)]
    pub(super) fn give(&self, slot: u32, session: u64, user: u32, now: Tick) -> u32 {
        self.leave(slot);
        let before = self.tenancy(slot);
        // A reserved slot keeps the tag of the user it is reserved for.
        let tenancy = before.next(if before.has(RESERVED) { before.user() } else { user });
        self.store(slot, PLACE, pair(now, user));
        self.store(slot, TENANCY, tenancy.to_word());
        // The commit: everything about the lease is in place before it.
        self.store(slot, OWNER, session);
        self.index(Key::session(session), slot);
        let used = self.count(Counter::Used) + 1;
        self.set_count(Counter::Used, used);
        if used > self.count(Counter::Peak) {
            self.set_count(Counter::Peak, used);
        }
        tenancy.generation
    }

    /// Takes back a held slot; it cools down if it must.
    #[inline(always)]
    pub(super) fn take_back(&self, slot: u32, session: u64, settings: &Settings, stamp: u64) {
        let owner = if settings.cool_down > 0 || settings.check_in_use {
            Owner::Cooling(stamp)
        } else {
            Owner::Free(stamp)
        };
        // The commit: the rest can be derived.
        self.store(slot, OWNER, owner.to_word());
        self.unindex(Key::session(session), slot);
        self.add(Counter::Used, -1);
        self.enter(slot);
    }

    /// Sets and clears flags of a slot, and gives it to another user's name if one is named.
    pub(super) fn change_flags(
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
                self.store(slot, TENANCY, tenancy.to_word());
                // A fresh stamp, since it goes to the end of a queue.
                let fresh = match owner {
                    Owner::Free(_) => Owner::Free(stamp),
                    Owner::Cooling(_) => Owner::Cooling(stamp),
                    _ => Owner::Lingering(stamp),
                };
                self.store(slot, OWNER, fresh.to_word());
                self.enter(slot);
            }
        }
    }

    /// The tenancy of a slot that is no longer reserved. While a slot is held it may have been
    /// reserved for somebody else than its holder.
    pub(super) fn unreserved(&self, slot: u32) -> Tenancy {
        let tenancy = self.tenancy(slot).with_flags(0, RESERVED | PLANNED);
        match self.owner(slot) {
            Owner::Session(_) => tenancy.with_user(self.holder(slot)),
            _ => tenancy,
        }
    }

    /// Moves a slot that is not held to another state.
    pub(super) fn move_to(&self, slot: u32, owner: Owner) {
        self.leave_queue(slot);
        self.store(slot, OWNER, owner.to_word());
        self.enter_queue(slot);
    }

    /// Whether the pool fell below its low-water mark just now.
    #[inline]
    pub(super) fn warn_low_water(&self, settings: &Settings) -> bool {
        if settings.low_water == 0 {
            return false;
        }
        let left = self.count(Counter::Free) + self.count(Counter::Cooling);
        let warned = self.count(Counter::Warned) != 0;
        if (left < settings.low_water) != warned {
            self.set_count(Counter::Warned, u32::from(!warned));
            return !warned;
        }
        false
    }

    #[inline(always)]
    fn enter(&self, slot: u32) {
        self.enter_queue(slot);
        match self.tenancy(slot).user() {
            0 => {}
            user => self.index(Key::user(user), slot),
        }
    }

    #[inline(always)]
    fn leave(&self, slot: u32) {
        self.leave_queue(slot);
        match self.tenancy(slot).user() {
            0 => {}
            user => self.unindex(Key::user(user), slot),
        }
    }

    #[inline(always)]
    fn enter_queue(&self, slot: u32) {
        if self.is_plain(slot) {
            queue::push(self.control, self.slots, Queue::Free, slot);
            self.add(Counter::Free, 1);
        } else {
            self.move_standing(slot, 1);
        }
    }

    #[inline(always)]
    fn leave_queue(&self, slot: u32) {
        if self.is_plain(slot) {
            queue::remove(self.control, self.slots, Queue::Free, slot);
            self.add(Counter::Free, -1);
        } else {
            self.move_standing(slot, -1);
        }
    }

    /// Whether the slot is free and without flags, as nearly all are.
    #[inline(always)]
    fn is_plain(&self, slot: u32) -> bool {
        matches!(self.owner(slot), Owner::Free(_))
            && !self.tenancy(slot).has(DRAINED | RETIRED | RESERVED)
    }

    /// Enters a slot where it stands (1), or takes it away from there (-1).
    #[inline(never)]
    fn move_standing(&self, slot: u32, by: i32) {
        let standing = self.standing(slot);
        match standing {
            Standing::Queued(queue) if by > 0 => {
                queue::push(self.control, self.slots, queue, slot);
            }
            Standing::Queued(queue) => queue::remove(self.control, self.slots, queue, slot),
            _ => {}
        }
        if let Some(counter) = counter_of(standing) {
            self.add(counter, by);
        }
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

#[inline]
pub(super) fn counter_of(standing: Standing) -> Option<Counter> {
    match standing {
        Standing::Held => None,
        Standing::Queued(Queue::Free) => Some(Counter::Free),
        Standing::Queued(Queue::Cooling) => Some(Counter::Cooling),
        Standing::Queued(Queue::Lingering) => Some(Counter::Lingering),
        Standing::Reserved => Some(Counter::Reserved),
        Standing::Drained => Some(Counter::Drained),
    }
}
