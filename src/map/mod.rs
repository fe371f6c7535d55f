//! The map file: who holds which address, shared by every process of a server.
//!
//! A [`Map`] writes: it opens and closes sessions, alone or beside other writers. A [`Reader`]
//! only reads and never blocks; hook layers and monitors use it. Both work on a file or on memory
//! alone.
//!
//! Invariants: the slots are the truth, lists, index and counters are derived from them; a lease
//! is committed by one store of its owner word, after everything else about it; one writer at a
//! time; readers never write, block or loop without a bound.

mod admin;
mod affinity;
mod engine;
mod exclusive;
mod format;
mod journal;
#[cfg(all(test, loom))]
mod model_checked;
mod reader;
mod replan;
#[cfg(all(test, not(loom)))]
mod tests;
mod types;
#[cfg(not(loom))]
mod versions;
mod writer;

pub use engine::reap::{LEADER_GRACE, Probe, ReapReport};
pub use exclusive::ExclusiveWriter;
pub use format::layout::{MAX_POOL_NAME, MAX_POOLS};
pub use journal::{CAPACITY as JOURNAL_CAPACITY, Event, EventKind, Journal, Recent};
pub use reader::Reader;
pub use types::outcome::{
    AdminChange, ChangeError, CloseError, ClosedSession, Leases, MapError, OpenError,
    OpenedSession, PoolStatus, SessionRow, Shortage, SlotRow, SlotState,
};
pub use types::plan::{AllocationTime, ExhaustionPolicy, Leader, OpenOptions, Plan, Settings};
#[cfg(not(loom))]
pub use versions::Succession;
pub use writer::Map;

/// Name of the file that every user may read, in the directory of the map.
pub const MAP_FILE: &str = "map";
/// Name of the file that only root and the group may read: users, clients, leaders.
pub const SESSIONS_FILE: &str = "sessions";
/// Name of the file with the last events, which only root and the group may read.
pub const JOURNAL_FILE: &str = "journal";
/// Name of the file that writers lock, in the directory of the map. It is never replaced.
pub const LOCK_FILE: &str = "lock";
/// The most leases of one session: V, its IPv6 twin, and L.
pub const MAX_LEASES: usize = 3;
