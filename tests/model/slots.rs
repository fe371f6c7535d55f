//! The slots of the model's pools: plain values, and what follows from them.

use std::net::IpAddr;

use vipool::map::{Leader, Settings, Tick};
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
}

/// Numbers of a pool, in the order of `PoolStatus`: free, used, cooling, lingering, reserved,
/// drained.
pub type Numbers = [u32; 6];

impl Slot {
    pub fn new(address: IpAddr) -> Self {
        Self {
            address,
            held: None,
            rest: Rest::Free,
            since: (0, 0),
            user: None,
            last: None,
            reserved: false,
            planned: false,
            drained: false,
            retired: false,
            generation: 0,
        }
    }

    pub fn is_out(&self) -> bool {
        self.drained || self.retired
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

    /// Numbers of the slots at rest so that are reserved, the oldest first.
    pub fn reserved(&self, rest: Rest) -> Vec<usize> {
        let is = |slot: &Slot| {
            slot.held.is_none() && !slot.is_out() && slot.reserved && slot.rest == rest
        };
        let mut reserved: Vec<usize> =
            (0..self.slots.len()).filter(|slot| is(&self.slots[*slot])).collect();
        reserved.sort_by_key(|slot| (self.slots[*slot].since, *slot));
        reserved
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
