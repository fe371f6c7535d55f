//! Peers that live in memory alone: a crash of their process loses every session.

use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;

use crossbeam_queue::ArrayQueue;
use dashmap::DashMap;
use id_pool::IdPool as Ids;
use vm_allocator::IdAllocator;

use crate::Allocator;

/// What one would write by hand: a queue of the free ones, a map of the others, a lock around.
pub struct MutexMap(Mutex<(VecDeque<u32>, HashMap<u64, u32, ahash::RandomState>)>);

impl MutexMap {
    /// With so many addresses, all free.
    pub fn new(slots: u32) -> Self {
        let map = HashMap::with_capacity_and_hasher(slots as usize, ahash::RandomState::new());
        Self(Mutex::new(((0..slots).collect(), map)))
    }
}

impl Allocator for MutexMap {
    type Lease = u64;

    fn open(&self, session: u64, _user: Option<&str>) -> Option<u64> {
        let (free, sessions) = &mut *self.0.lock().expect("nobody panics");
        sessions.insert(session, free.pop_front()?);
        Some(session)
    }

    fn close(&self, lease: u64) {
        let (free, sessions) = &mut *self.0.lock().expect("nobody panics");
        free.push_back(sessions.remove(&lease).expect("open"));
    }
}

/// A bounded lock-free queue of the free ones and a sharded map of the others.
pub struct QueueMap {
    free: ArrayQueue<u32>,
    sessions: DashMap<u64, u32, ahash::RandomState>,
}

impl QueueMap {
    /// With so many addresses, all free.
    pub fn new(slots: u32) -> Self {
        let free = ArrayQueue::new(slots as usize);
        (0..slots).for_each(|slot| free.push(slot).expect("room for all"));
        let sessions = DashMap::with_capacity_and_hasher(slots as usize, ahash::RandomState::new());
        Self { free, sessions }
    }
}

impl Allocator for QueueMap {
    type Lease = u64;

    fn open(&self, session: u64, _user: Option<&str>) -> Option<u64> {
        self.sessions.insert(session, self.free.pop()?);
        Some(session)
    }

    fn close(&self, lease: u64) {
        let (_, slot) = self.sessions.remove(&lease).expect("open");
        self.free.push(slot).expect("room for all");
    }
}

/// The allocator of virtual machine monitors. Knows no sessions: the caller must remember, and
/// the lowest free address is given again at once.
pub struct VmAllocator(Mutex<IdAllocator>);

impl VmAllocator {
    /// With so many addresses, all free.
    pub fn new(slots: u32) -> Self {
        Self(Mutex::new(IdAllocator::new(0, slots - 1).expect("in order")))
    }
}

impl Allocator for VmAllocator {
    type Lease = u32;

    fn open(&self, _session: u64, _user: Option<&str>) -> Option<u32> {
        self.0.lock().expect("nobody panics").allocate_id().ok()
    }

    fn close(&self, lease: u32) {
        self.0.lock().expect("nobody panics").free_id(lease).expect("open");
    }
}

/// Ranges of free numbers. Knows no sessions either.
pub struct IdPool(Mutex<Ids>);

impl IdPool {
    /// With so many addresses, all free.
    pub fn new(slots: u32) -> Self {
        Self(Mutex::new(Ids::new_ranged(0..slots)))
    }
}

impl Allocator for IdPool {
    type Lease = u32;

    fn open(&self, _session: u64, _user: Option<&str>) -> Option<u32> {
        self.0.lock().expect("nobody panics").request_id()
    }

    fn close(&self, lease: u32) {
        self.0.lock().expect("nobody panics").return_id(lease).expect("open");
    }
}
