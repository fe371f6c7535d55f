//! The pools and slots of the model, and values that are computed from them.

use std::net::IpAddr;

use vipool::Tick;
use vipool::map::{Leader, Settings};
use vipool::pool::PoolKind;

/// The state of a slot without a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdleState {
    Free,
    Cooling,
    /// After the cool-down, a socket still used the address.
    Lingering,
}

/// A lease, with the data of its session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelLease {
    pub session: u64,
    /// The user of the session.
    pub user: Option<String>,
    /// The user of the session when the session got the lease. After the release, this user is the
    /// last user of the slot.
    pub first_user: Option<String>,
    /// The leader, and the time when `reap` first found that the leader is dead.
    pub leader: Option<(Leader, Option<Tick>)>,
}

/// A slot of a pool, with the state of its address.
#[derive(Clone, Debug)]
pub struct Slot {
    pub address: IpAddr,
    pub lease: Option<ModelLease>,
    pub idle_state: IdleState,
    /// The time and the serial number of the last release or of the last change without a lease,
    /// whichever is later. The queues are sorted by this value. It is zero before the first event.
    pub since: (Tick, u64),
    /// The user of the reservation. Without a reservation, the first user of the current or last
    /// lease.
    pub user: Option<String>,
    /// The first user of the last lease. Meaningful only while the slot is reserved and not leased.
    pub last_user: Option<String>,
    pub is_reserved: bool,
    /// Whether the plan made the reservation.
    pub is_reserved_by_plan: bool,
    pub is_drained: bool,
    /// Whether the plan no longer contains the address in this pool. Also set while
    /// `awaits_release` is set.
    pub is_retired: bool,
    /// Whether the slot is unavailable until a session releases the address in another pool.
    pub awaits_release: bool,
    pub generation: u32,
}

/// A pool of the model.
#[derive(Clone, Debug)]
pub struct ModelPool {
    pub name: String,
    pub kind: PoolKind,
    pub is_ipv4: bool,
    pub slots: Vec<Slot>,
    pub peak: u32,
    /// Whether the low-water warning is active.
    pub is_low: bool,
    /// Whether the plan no longer contains the pool.
    pub is_dropped: bool,
    /// Whether sessions that request no pool use this pool.
    pub is_default: bool,
}

/// The counters of a pool in the order of `PoolStatus`: free, leased, cooling, lingering, reserved,
/// drained.
pub type Counts = [u32; 6];

impl Slot {
    pub fn new(address: IpAddr, generation: u32) -> Self {
        Self {
            address,
            lease: None,
            idle_state: IdleState::Free,
            since: (Tick::ZERO, 0),
            user: None,
            last_user: None,
            is_reserved: false,
            is_reserved_by_plan: false,
            is_drained: false,
            is_retired: false,
            awaits_release: false,
            generation,
        }
    }

    /// Returns whether the slot is drained or retired.
    pub fn is_withdrawn(&self) -> bool {
        self.is_drained || self.is_retired
    }

    /// Returns whether the slot has no state that a migration must keep.
    pub fn is_blank(&self) -> bool {
        let is_unchanged = self.lease.is_none()
            && self.idle_state == IdleState::Free
            && self.since == (Tick::ZERO, 0);
        is_unchanged && self.user.is_none() && !self.is_reserved && !self.is_drained
    }

    /// Moves the state of the address to `target`, the slot of the address in another pool. Each
    /// slot keeps its generation.
    pub fn migrate_to(&mut self, target: &mut Slot) {
        let blank = Slot::new(self.address, self.generation);
        let state = std::mem::replace(self, Slot { is_retired: true, ..blank });
        *target = Slot {
            generation: target.generation,
            is_retired: false,
            awaits_release: false,
            ..state
        };
    }

    /// Returns whether the slot belongs to the queue of this state.
    fn is_queued(&self, state: IdleState) -> bool {
        self.lease.is_none()
            && !self.is_withdrawn()
            && !self.is_reserved
            && self.idle_state == state
    }

    pub fn reserve(&mut self, user: &str) {
        if !self.is_reserved {
            self.last_user = self.user.take();
        }
        self.is_reserved = true;
        self.user = Some(user.to_owned());
    }

    pub fn unreserve(&mut self) {
        self.is_reserved = false;
        self.is_reserved_by_plan = false;
        self.user.clone_from(match &self.lease {
            Some(lease) => &lease.first_user,
            None => &self.last_user,
        });
    }
}

impl ModelPool {
    /// Returns the slots of the queue of this state, the oldest first.
    pub fn queue(&self, state: IdleState) -> Vec<usize> {
        let mut slots: Vec<usize> =
            (0..self.slots.len()).filter(|slot| self.slots[*slot].is_queued(state)).collect();
        slots.sort_by_key(|slot| (self.slots[*slot].since, *slot));
        slots
    }

    /// Returns the slots that `reap` must check although no queue contains them, the oldest first.
    pub fn unqueued_slots_to_check(&self) -> Vec<usize> {
        let must_check = |slot: &Slot| match slot.is_withdrawn() {
            true => slot.lease.is_none() && self.is_dropped,
            false => slot.lease.is_none() && slot.is_reserved,
        };
        let mut slots: Vec<usize> =
            (0..self.slots.len()).filter(|slot| must_check(&self.slots[*slot])).collect();
        slots.sort_by_key(|slot| (self.slots[*slot].since, *slot));
        slots
    }

    pub fn counts(&self) -> Counts {
        let count = |predicate: &dyn Fn(&Slot) -> bool| {
            self.slots.iter().filter(|slot| predicate(slot)).count() as u32
        };
        [
            count(&|slot| slot.is_queued(IdleState::Free)),
            count(&|slot| slot.lease.is_some()),
            count(&|slot| slot.is_queued(IdleState::Cooling)),
            count(&|slot| slot.is_queued(IdleState::Lingering)),
            count(&|slot| slot.lease.is_none() && slot.is_reserved && !slot.is_withdrawn()),
            count(&|slot| slot.lease.is_none() && slot.is_withdrawn()),
        ]
    }

    /// Updates the low-water warning. Returns whether the pool has fallen below its low-water mark
    /// since the last update.
    pub fn update_low_water_warning(&mut self, settings: &Settings) -> bool {
        let [free, _, cooling, ..] = self.counts();
        let is_low = free + cooling < settings.low_water;
        let has_fallen = is_low && !self.is_low;
        self.is_low = is_low;
        has_fallen
    }

    /// Returns the slot that the session leases.
    pub fn slot_of(&self, session: u64) -> Option<usize> {
        self.slots
            .iter()
            .position(|slot| slot.lease.as_ref().is_some_and(|lease| lease.session == session))
    }
}
