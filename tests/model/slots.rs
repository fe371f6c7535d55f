//! The slots of the model's pools: plain values, and what follows from them.

use std::net::IpAddr;

use vipool::Tick;
use vipool::map::{Leader, Settings};
use vipool::pool::PoolKind;

/// What a slot that nobody holds is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    Free,
    Cooling,
    Lingering,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    pub session: u64,
    pub holder: Option<String>,
    /// The leader, and when it was first seen dead.
    pub leader: Option<(Leader, Option<Tick>)>,
}

#[derive(Clone, Debug)]
pub struct Slot {
    pub address: IpAddr,
    pub held: Option<Held>,
    pub rest: Rest,
    /// When it came to rest: time, and a number that grows. (0, 0) if it was never given.
    pub since: (Tick, u64),
    /// The user it is reserved for, or who had it last.
    pub user: Option<String>,
    /// Who had it last, while it is reserved and nobody has it.
    pub last: Option<String>,
    pub reserved: bool,
    pub planned: bool,
    pub drained: bool,
    pub retired: bool,
    /// Retired until the session gives the address back that holds it in another pool.
    pub awaits: bool,
    pub generation: u32,
}

#[derive(Clone, Debug)]
pub struct ModelPool {
    pub name: String,
    pub kind: PoolKind,
    pub ipv4: bool,
    pub slots: Vec<Slot>,
    pub peak: u32,
    pub warned: bool,
    /// No longer in the plan.
    pub dropped: bool,
    /// For sessions that ask for no pool by name.
    pub default: bool,
}

/// Numbers of a pool, in the order of `PoolStatus`: free, used, cooling, lingering, reserved,
/// drained.
pub type Numbers = [u32; 6];

impl Slot {
    pub fn new(address: IpAddr, generation: u32) -> Self {
        Self {
            address,
            held: None,
            rest: Rest::Free,
            since: (Tick::ZERO, 0),
            user: None,
            last: None,
            reserved: false,
            planned: false,
            drained: false,
            retired: false,
            awaits: false,
            generation,
        }
    }

    pub fn is_out(&self) -> bool {
        self.drained || self.retired
    }

    /// Whether nothing is known of it.
    pub fn is_blank(&self) -> bool {
        let never = self.held.is_none() && self.rest == Rest::Free && self.since == (Tick::ZERO, 0);
        never && self.user.is_none() && !self.reserved && !self.drained
    }

    /// Gives all that is known of the address to its slot in another pool.
    pub fn move_to(&mut self, to: &mut Slot) {
        let blank = Slot::new(self.address, self.generation);
        let known = std::mem::replace(self, Slot { retired: true, ..blank });
        *to = Slot { generation: to.generation, retired: false, awaits: false, ..known };
    }

    fn rests(&self, rest: Rest) -> bool {
        self.held.is_none() && !self.is_out() && !self.reserved && self.rest == rest
    }

    pub fn reserve(&mut self, user: &str) {
        if !self.reserved {
            self.last = self.user.take();
        }
        self.reserved = true;
        self.user = Some(user.to_owned());
    }

    pub fn unreserve(&mut self) {
        self.reserved = false;
        self.planned = false;
        self.user.clone_from(match &self.held {
            Some(held) => &held.holder,
            None => &self.last,
        });
    }
}

impl ModelPool {
    /// Numbers of the slots at rest so, the oldest first.
    pub fn queue(&self, rest: Rest) -> Vec<usize> {
        let mut queue: Vec<usize> =
            (0..self.slots.len()).filter(|slot| self.slots[*slot].rests(rest)).collect();
        queue.sort_by_key(|slot| (self.slots[*slot].since, *slot));
        queue
    }

    /// Numbers of the slots in no queue that may have to be looked at, the oldest first.
    pub fn unqueued(&self) -> Vec<usize> {
        let is = |slot: &Slot| match slot.is_out() {
            true => slot.held.is_none() && self.dropped,
            false => slot.held.is_none() && slot.reserved,
        };
        let mut unqueued: Vec<usize> =
            (0..self.slots.len()).filter(|slot| is(&self.slots[*slot])).collect();
        unqueued.sort_by_key(|slot| (self.slots[*slot].since, *slot));
        unqueued
    }

    pub fn numbers(&self) -> Numbers {
        let count = |is: &dyn Fn(&Slot) -> bool| self.slots.iter().filter(|s| is(s)).count() as u32;
        [
            count(&|slot| slot.rests(Rest::Free)),
            count(&|slot| slot.held.is_some()),
            count(&|slot| slot.rests(Rest::Cooling)),
            count(&|slot| slot.rests(Rest::Lingering)),
            count(&|slot| slot.held.is_none() && slot.reserved && !slot.is_out()),
            count(&|slot| slot.held.is_none() && slot.is_out()),
        ]
    }

    pub fn warn(&mut self, settings: &Settings) -> bool {
        let [free, _, cooling, ..] = self.numbers();
        let low = free + cooling < settings.low_water;
        let news = low && !self.warned;
        self.warned = low;
        news
    }

    pub fn of(&self, session: u64) -> Option<usize> {
        self.slots.iter().position(|s| s.held.as_ref().is_some_and(|h| h.session == session))
    }
}
