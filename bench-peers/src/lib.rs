//! Implements the same two traits for the map of vipool and for comparable crates.
//!
//! The documentation of the modules and types states which features of vipool a peer lacks. Most
//! peers lose all sessions when their process dies. Only vipool gives a returning user the user's
//! last address again. Only vipool and LMDB let other processes read the table.

use std::sync::atomic::Ordering;

use vipool::raw::mapping::WritableMapping;

mod memory;
mod store;
mod table;

pub use memory::{IdPool, MutexMap, QueueMap, VmAllocator};
pub use store::Lmdb;
pub use table::{
    ByHandle, BySession, ExclusiveBySession, Locking, Storage, create_map, session_id,
};

/// Allocates addresses to sessions. In the peers, an address is a slot number. Threads share the
/// allocator.
pub trait Allocator: Sync {
    /// The value that `close` needs.
    type Lease: Copy + Send;

    /// Allocates an address to a session that has none. Returns `None` if all addresses are in use.
    fn open(&self, session: u64, user: Option<&str>) -> Option<Self::Lease>;

    /// Releases the address of `lease`.
    ///
    /// # Panics
    /// Panics if the lease is not held, because that is a bug in the benchmark.
    fn close(&self, lease: Self::Lease);
}

/// The access of one thread to a table.
pub trait Accessor: Send {
    /// The value that `close` needs.
    type Lease: Copy + Send;

    /// See [`Allocator::open`].
    fn open(&mut self, session: u64, user: Option<&str>) -> Option<Self::Lease>;

    /// See [`Allocator::close`].
    ///
    /// # Panics
    /// Panics if the lease is not held.
    fn close(&mut self, lease: Self::Lease);
}

impl<A: Allocator> Accessor for &A {
    type Lease = A::Lease;

    fn open(&mut self, session: u64, user: Option<&str>) -> Option<A::Lease> {
        (**self).open(session, user)
    }

    fn close(&mut self, lease: A::Lease) {
        (**self).close(lease);
    }
}

/// The baseline of an open and a close: each is one atomic read-modify-write on a random cache
/// line. The table has the same size and page size as the table of vipool. `Floor` tracks no
/// leases, so `open` always succeeds.
pub struct Floor {
    table: WritableMapping,
}

/// The number of 64-bit words in a cache line.
const WORDS_PER_LINE: usize = 8;

impl Floor {
    /// Creates one table, with 32 bytes for each of `slot_count` addresses.
    pub fn new(slot_count: u32) -> Self {
        Self { table: WritableMapping::in_memory(slot_count.div_ceil(2) as usize * WORDS_PER_LINE) }
    }

    /// Increments a word in the line that `key` selects. Returns the previous value of the
    /// word.
    fn touch(&self, key: u64) -> u64 {
        let words = self.table.atomics();
        // Fibonacci hashing spreads consecutive keys over all lines.
        let hash = (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize;
        let line = hash % (words.len() / WORDS_PER_LINE);
        words[line * WORDS_PER_LINE].fetch_add(1, Ordering::AcqRel)
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

/// The floor with dependent accesses: the choice of each line needs the content of the previous
/// line. The processor therefore cannot overlap the cache misses. In a table larger than the
/// caches, each access takes the latency of one cache miss.
pub struct DependentFloor<'a> {
    floor: &'a Floor,
    last_value: u64,
}

impl<'a> DependentFloor<'a> {
    /// Creates a floor that uses the table of `floor`.
    pub fn new(floor: &'a Floor) -> Self {
        Self { floor, last_value: 0 }
    }
}

impl Accessor for DependentFloor<'_> {
    type Lease = u64;

    fn open(&mut self, session: u64, _user: Option<&str>) -> Option<u64> {
        self.last_value = self.floor.touch(session ^ self.last_value);
        Some(session)
    }

    fn close(&mut self, lease: u64) {
        self.last_value = self.floor.touch(!lease ^ self.last_value);
    }
}
