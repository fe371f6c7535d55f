//! The selection of a slot of one pool for a session.

use super::table::Table;
use super::table_writer::TableWriter;
use crate::Tick;
use crate::map::format::counters::Counter;
use crate::map::format::index::{Key, LoadedBucket};
use crate::map::format::placement::Placement;
use crate::map::format::queue::Queue;
use crate::map::format::slot::{Owner, stamp_time};
use crate::map::format::user::UserHash;
use crate::map::types::plan::Settings;

/// The reason why a pool has no slot for a session, or why the requested slot is not available.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unavailable {
    /// Every slot is leased, reserved or drained, and [`Unavailable::Drained`] does not apply.
    Exhausted,
    /// Slots of the pool, or the requested slot, cool down. The field is the tick at which the
    /// first of these slots has cooled down.
    Cooling(Tick),
    /// Slots of the pool, or the requested slot, have cooled down, but a reap must still check
    /// these slots for sockets.
    Lingering,
    /// Every slot is drained, the requested slot is drained, or the server drains.
    Drained,
    /// Another session holds the requested slot.
    Leased,
    /// The requested slot is reserved for another user.
    Reserved,
}

impl Table<'_> {
    /// Returns a slot that is reserved for the user, or whose last user is this user.
    ///
    /// Prefers an available slot that is reserved for the user. The next choice is a slot whose
    /// last user is this user: first a cooling slot, then a free slot. Among several cooling slots,
    /// or several free slots, the latest stamp decides.
    ///
    /// Takes O(1) time if the index is complete. Otherwise scans all slots.
    #[inline(never)]
    fn preferred_slot(self, user: UserHash, settings: &Settings, now: Tick) -> Option<u32> {
        let mut best_candidate: Option<((u8, u64), u32)> = None;
        let mut visit = |slot: u32| {
            if slot < self.pool.slot_count && self.meta(slot).user_tag() == user.tag() {
                let stamp = self.owner(slot).stamp().unwrap_or(0);
                let rank = match self.placement(slot) {
                    Placement::Reserved
                        if self.is_reserved_for(slot, user)
                            && self.check_cooled(slot, user, settings, now).is_ok() =>
                    {
                        (2, 0)
                    }
                    // A free slot can have the stamp of the end of its cool-down, not of its
                    // release. So the stamps of a cooling slot and of a free slot cannot be
                    // compared, and the first number of the rank decides between these slots.
                    Placement::Queued(Queue::Cooling) if self.is_last_user(slot, user) => {
                        (1, stamp)
                    }
                    Placement::Queued(Queue::Free) if self.is_last_user(slot, user) => (0, stamp),
                    _ => return None::<()>,
                };
                if best_candidate.is_none_or(|(best_rank, _)| rank > best_rank) {
                    best_candidate = Some((rank, slot));
                }
            }
            None
        };
        LoadedBucket::load(Key::user(user.tag()), self.index).find(&mut visit);
        if self.count(Counter::Unindexed) > 0 {
            (0..self.pool.slot_count).for_each(|slot| _ = visit(slot));
        }
        best_candidate.map(|(_, slot)| slot)
    }

    #[cold]
    #[inline(never)]
    fn shortage(self, settings: &Settings, now: Tick) -> Unavailable {
        if let Some(slot) = self.front(Queue::Cooling) {
            let until = self.cool_down_end(slot, settings);
            return if until > now { Unavailable::Cooling(until) } else { Unavailable::Lingering };
        }
        if self.count(Counter::Lingering) > 0 {
            return Unavailable::Lingering;
        }
        let all_drained =
            self.pool.slot_count > 0 && self.count(Counter::Drained) == self.pool.slot_count;
        // A slot that awaits the release of its address in another pool counts as drained, but the
        // address is in use.
        if all_drained && !self.awaits_any_release() {
            return Unavailable::Drained;
        }
        Unavailable::Exhausted
    }

    /// Returns an error if this slot is not available for a session of this user.
    pub(crate) fn check_available(
        &self,
        slot: u32,
        user: UserHash,
        settings: &Settings,
        now: Tick,
    ) -> Result<(), Unavailable> {
        match self.placement(slot) {
            Placement::Leased => Err(Unavailable::Leased),
            Placement::Drained => Err(Unavailable::Drained),
            Placement::Reserved if self.is_reserved_for(slot, user) => {
                self.check_cooled(slot, user, settings, now)
            }
            Placement::Reserved => Err(Unavailable::Reserved),
            Placement::Queued(Queue::Cooling) if self.is_last_user(slot, user) => Ok(()),
            Placement::Queued(_) => self.check_cooled(slot, UserHash::NONE, settings, now),
        }
    }

    /// Returns an error if the cool-down of an unleased slot has not ended, or if a reap must still
    /// check the slot. A reserved slot needs neither the cool-down nor the check if `user` was its
    /// last user. For a slot that is not reserved, the caller passes [`UserHash::NONE`], so that
    /// this exception does not apply.
    fn check_cooled(
        &self,
        slot: u32,
        user: UserHash,
        settings: &Settings,
        now: Tick,
    ) -> Result<(), Unavailable> {
        match self.owner(slot) {
            Owner::Cooling(_) | Owner::Lingering(_) if self.is_last_user(slot, user) => Ok(()),
            Owner::Lingering(_) => Err(Unavailable::Lingering),
            Owner::Cooling(_) => match self.cool_down_end(slot, settings) {
                until if until > now => Err(Unavailable::Cooling(until)),
                _ if settings.check_in_use => Err(Unavailable::Lingering),
                _ => Ok(()),
            },
            Owner::Free(_) | Owner::Session(_) => Ok(()),
        }
    }

    /// Returns the time at which the cool-down of a slot ends.
    pub(crate) fn cool_down_end(&self, slot: u32, settings: &Settings) -> Tick {
        let release_time = self.owner(slot).stamp().map_or(Tick::ZERO, stamp_time);
        release_time.saturating_add(settings.cool_down)
    }
}

impl TableWriter<'_> {
    /// Selects the slot for a new session of this user: the slot reserved for the user, the last
    /// slot of the user, or the slot that has been free longest.
    ///
    /// `new_stamp` returns the stamp for a slot that this method frees after its cool-down.
    #[inline(always)]
    pub(crate) fn select(
        &self,
        user: UserHash,
        settings: &Settings,
        now: Tick,
        new_stamp: impl FnMut() -> u64,
    ) -> Result<u32, Unavailable> {
        if user != UserHash::NONE
            && let Some(slot) = self.preferred_slot(user, settings, now)
        {
            return Ok(slot);
        }
        if !settings.check_in_use && self.count(Counter::Cooling) > 0 {
            self.free_cooled(settings, now, new_stamp);
        }
        // A damaged queue can contain a slot that is not free.
        if let Some(slot) = self.front(Queue::Free).filter(|slot| self.is_free(*slot)) {
            return Ok(slot);
        }
        Err(self.shortage(settings, now))
    }

    /// Frees at most two slots that have cooled down, from the front of the queue of cooling slots.
    /// An allocation takes only one slot, so repeated calls reduce a backlog of cooled slots.
    #[inline(never)]
    fn free_cooled(self, settings: &Settings, now: Tick, mut new_stamp: impl FnMut() -> u64) {
        for _ in 0..2 {
            if let Some(slot) = self.front(Queue::Cooling)
                && matches!(self.owner(slot), Owner::Cooling(_))
                && self.cool_down_end(slot, settings) <= now
            {
                self.change_state(slot, Owner::Free(new_stamp()));
            }
        }
    }
}
