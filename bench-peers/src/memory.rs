//! Peers that keep their state in memory only. A crash of their process loses all sessions.

use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;

use crossbeam_queue::ArrayQueue;
use dashmap::DashMap;
use vm_allocator::IdAllocator;

use crate::Allocator;

/// The simplest implementation: a queue of free addresses and a map of sessions, behind a mutex.
pub struct MutexMap(Mutex<(VecDeque<u32>, HashMap<u64, u32, ahash::RandomState>)>);

impl MutexMap {
    /// Creates an allocator of `slots` free addresses.
    pub fn new(slots: u32) -> Self {
        let map = HashMap::with_capacity_and_hasher(slots as usize, ahash::RandomState::new());
        Self(Mutex::new(((0..slots).collect(), map)))
    }
}

impl Allocator for MutexMap {
    type Lease = u64;

    fn open(&self, session: u64, _user: Option<&str>) -> Option<u64> {
        let (free_slots, sessions) = &mut *self.0.lock().expect("no panic under the lock");
        sessions.insert(session, free_slots.pop_front()?);
        Some(session)
    }

    fn close(&self, lease: u64) {
        let (free_slots, sessions) = &mut *self.0.lock().expect("no panic under the lock");
        free_slots.push_back(sessions.remove(&lease).expect("an open lease"));
    }
}

/// A bounded lock-free queue of free addresses and a sharded map of sessions.
pub struct QueueMap {
    free_slots: ArrayQueue<u32>,
    sessions: DashMap<u64, u32, ahash::RandomState>,
}

impl QueueMap {
    /// Creates an allocator of `slots` free addresses.
    pub fn new(slots: u32) -> Self {
        let free_slots = ArrayQueue::new(slots as usize);
        (0..slots).for_each(|slot| free_slots.push(slot).expect("capacity for all slots"));
        let sessions = DashMap::with_capacity_and_hasher(slots as usize, ahash::RandomState::new());
        Self { free_slots, sessions }
    }
}

impl Allocator for QueueMap {
    type Lease = u64;

    fn open(&self, session: u64, _user: Option<&str>) -> Option<u64> {
        self.sessions.insert(session, self.free_slots.pop()?);
        Some(session)
    }

    fn close(&self, lease: u64) {
        let (_, slot) = self.sessions.remove(&lease).expect("an open lease");
        self.free_slots.push(slot).expect("capacity for all slots");
    }
}

/// The crate vm-allocator, the ID allocator of virtual machine monitors. It stores no sessions, so
/// the caller must store them. It reuses the lowest free address immediately.
pub struct VmAllocator(Mutex<IdAllocator>);

impl VmAllocator {
    /// Creates an allocator of `slots` free addresses.
    pub fn new(slots: u32) -> Self {
        Self(Mutex::new(IdAllocator::new(0, slots - 1).expect("a valid range")))
    }
}

impl Allocator for VmAllocator {
    type Lease = u32;

    fn open(&self, _session: u64, _user: Option<&str>) -> Option<u32> {
        self.0.lock().expect("no panic under the lock").allocate_id().ok()
    }

    fn close(&self, lease: u32) {
        self.0.lock().expect("no panic under the lock").free_id(lease).expect("an open lease");
    }
}

/// The crate id-pool, a set of ranges of free IDs. It stores no sessions.
pub struct IdPool(Mutex<id_pool::IdPool>);

impl IdPool {
    /// Creates an allocator of `slots` free addresses.
    pub fn new(slots: u32) -> Self {
        Self(Mutex::new(id_pool::IdPool::new_ranged(0..slots)))
    }
}

impl Allocator for IdPool {
    type Lease = u32;

    fn open(&self, _session: u64, _user: Option<&str>) -> Option<u32> {
        self.0.lock().expect("no panic under the lock").request_id()
    }

    fn close(&self, lease: u32) {
        self.0.lock().expect("no panic under the lock").return_id(lease).expect("an open lease");
    }
}
