//! vipool's table beside other crates that could do its job, behind one trait.
//!
//! What each of them lacks is said at its type: most forget everything when their process dies,
//! and none but vipool gives a user the same address again or lets another process look.

use std::sync::atomic::Ordering;

use vipool::os::mapping::Mapping;

mod memory;
mod store;
mod table;

pub use memory::{IdPool, MutexMap, QueueMap, VmAllocator};
pub use store::Lmdb;
pub use table::{AloneBySession, ByHandle, BySession, Locking, Place, id, map};

/// Gives addresses (numbers here) to sessions and takes them back. Threads share it.
pub trait Allocator: Sync {
    /// What a close needs.
    type Lease: Copy + Send;

    /// An address for a session that has none, or `None` if there is none left.
    fn open(&self, session: u64, user: Option<&str>) -> Option<Self::Lease>;

    /// Takes it back.
    ///
    /// # Panics
    /// If the lease is not open: the bench would be wrong.
    fn close(&self, lease: Self::Lease);
}

/// What one thread holds of a table.
pub trait Hand: Send {
    /// What a close needs.
    type Lease: Copy + Send;

    /// As [`Allocator::open`].
    fn open(&mut self, session: u64, user: Option<&str>) -> Option<Self::Lease>;

    /// As [`Allocator::close`].
    ///
    /// # Panics
    /// If the lease is not open.
    fn close(&mut self, lease: Self::Lease);
}

impl<A: Allocator> Hand for &A {
    type Lease = A::Lease;

    fn open(&mut self, session: u64, user: Option<&str>) -> Option<A::Lease> {
        (**self).open(session, user)
    }

    fn close(&mut self, lease: A::Lease) {
        (**self).close(lease);
    }
}

/// What the machine itself takes for an open and a close: two atomic read-modify-writes on random
/// lines of a table of the same size, in memory of the same pages. It allocates nothing.
pub struct Floor {
    table: Mapping,
}

/// Words of a line.
const LINE: usize = 8;

impl Floor {
    /// A table for so many addresses, 32 bytes each.
    pub fn new(slots: u32) -> Self {
        Self { table: Mapping::in_memory(slots.div_ceil(2) as usize * LINE) }
    }

    fn touch(&self, number: u64) -> u64 {
        let words = self.table.words();
        // Fibonacci hashing: any number reaches a random line.
        let line =
            (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize % (words.len() / LINE);
        words[line * LINE].fetch_add(1, Ordering::AcqRel)
    }
}

impl Allocator for Floor {
    type Lease = u64;

    fn open(&self, session: u64, _user: Option<&str>) -> Option<u64> {
        self.touch(session);
        Some(session)
    }

    fn close(&self, lease: u64) {
        self.touch(!lease);
    }
}

/// The same where each waits for the one before, as what a processor does at once is not what it
/// takes to reach a line: the next line follows from what the last one held.
pub struct Chain<'a> {
    floor: &'a Floor,
    last: u64,
}

impl<'a> Chain<'a> {
    /// On this table.
    pub fn new(floor: &'a Floor) -> Self {
        Self { floor, last: 0 }
    }
}

impl Hand for Chain<'_> {
    type Lease = u64;

    fn open(&mut self, session: u64, _user: Option<&str>) -> Option<u64> {
        self.last = self.floor.touch(session ^ self.last);
        Some(session)
    }

    fn close(&mut self, lease: u64) {
        self.last = self.floor.touch(!lease ^ self.last);
    }
}
