//! Which slot of a pool a session is given, or why none.

use super::table::Table;
use crate::Tick;
use crate::map::format::counters::Counter;
use crate::map::format::index::{Entry, Home, Key};
use crate::map::format::queue::Queue;
use crate::map::format::slot::{Owner, stamp_time};
use crate::map::format::slot_state::Standing;
use crate::map::types::plan::Settings;

/// Why a pool has no slot to give, or not this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
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

impl Table<'_> {
    /// The slot a user should get again: the one reserved for the user, else the last one the user
    /// gave back, cooled or not. O(1); a scan while the index lacks entries.
    #[inline(never)]
    fn of_user(self, user: u32, settings: &Settings, now: Tick) -> Option<u32> {
        let mut best: Option<((u8, u64), u32)> = None;
        let mut consider = |slot: u32| {
            if slot < self.pool.slots && self.tenancy(slot).user() == user {
                let stamp = self.owner(slot).stamp().unwrap_or(0);
                let rank = match self.standing(slot) {
                    Standing::Reserved if self.check_cooled(slot, user, settings, now).is_ok() => {
                        (2, 0)
                    }
                    // One that cooled down was given back before: its stamp is from then on later.
                    Standing::Queued(Queue::Cooling) => (1, stamp),
                    Standing::Queued(Queue::Free) => (0, stamp),
                    _ => return None::<()>,
                };
                if best.is_none_or(|(most, _)| rank > most) {
                    best = Some((rank, slot));
                }
            }
            None
        };
        Home::of(Key::user(user), self.index).find(&mut consider);
        if self.count(Counter::Unindexed) > 0 {
            (0..self.pool.slots).for_each(|slot| _ = consider(slot));
        }
        best.map(|(_, slot)| slot)
    }

    /// The slot that this user had last, and its entry, where there is nothing to choose: it is free
    /// and the only one.
    #[inline(always)]
    pub(crate) fn last_of(&self, user: u32) -> Option<(u32, Entry<'_>)> {
        if user == 0 || self.count(Counter::Unindexed) > 0 {
            return None;
        }
        let (slot, entry) = Home::of(Key::user(user), self.index).only()?;
        self.is_free_and_of(slot, user).then_some((slot, entry))
    }

    /// The slot for a new session of this user (0: nobody's): reservation, last address, the
    /// oldest that is free.
    #[inline(always)]
    pub(crate) fn choose(
        &self,
        user: u32,
        settings: &Settings,
        now: Tick,
        stamp: impl FnMut() -> u64,
    ) -> Result<u32, Refusal> {
        if user != 0
            && let Some(slot) = self.of_user(user, settings, now)
        {
            return Ok(slot);
        }
        if !settings.check_in_use && self.count(Counter::Cooling) > 0 {
            self.promote_cooled(settings, now, stamp);
        }
        // What is not free is given to nobody, whatever a damaged queue says.
        if let Some(slot) = self.first(Queue::Free).filter(|slot| self.is_free(*slot)) {
            return Ok(slot);
        }
        Err(self.shortage(settings, now))
    }

    #[cold]
    #[inline(never)]
    fn shortage(self, settings: &Settings, now: Tick) -> Refusal {
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
    pub(crate) fn check_request(
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
            Standing::Reserved if his => self.check_cooled(slot, user, settings, now),
            Standing::Reserved => Err(Refusal::Reserved),
            Standing::Queued(Queue::Cooling) if his => Ok(()),
            Standing::Queued(_) => self.check_cooled(slot, 0, settings, now),
        }
    }

    /// Whether this slot, which nobody holds, has cooled down, or need not if it is reserved for this
    /// user who had it last.
    fn check_cooled(
        &self,
        slot: u32,
        user: u32,
        settings: &Settings,
        now: Tick,
    ) -> Result<(), Refusal> {
        match self.owner(slot) {
            Owner::Cooling(_) | Owner::Lingering(_) if user != 0 && self.holder(slot) == user => {
                Ok(())
            }
            Owner::Lingering(_) => Err(Refusal::Lingering),
            Owner::Cooling(_) => match self.cooled_at(slot, settings) {
                until if until > now => Err(Refusal::Cooling(until)),
                _ if settings.check_in_use => Err(Refusal::Lingering),
                _ => Ok(()),
            },
            Owner::Free(_) | Owner::Session(_) => Ok(()),
        }
    }

    /// When a slot that cools has cooled down.
    pub(crate) fn cooled_at(&self, slot: u32, settings: &Settings) -> Tick {
        let released = self.owner(slot).stamp().map_or(Tick::ZERO, stamp_time);
        released.saturating_add(settings.cool_down)
    }

    /// Moves the oldest cooling slots to the free ones if their time has passed: two for every one
    /// that can come in, so that none is left behind.
    #[inline(never)]
    fn promote_cooled(self, settings: &Settings, now: Tick, mut stamp: impl FnMut() -> u64) {
        for _ in 0..2 {
            if let Some(slot) = self.first(Queue::Cooling)
                && matches!(self.owner(slot), Owner::Cooling(_))
                && self.cooled_at(slot, settings) <= now
            {
                self.move_to(slot, Owner::Free(stamp()));
            }
        }
    }
}
