//! The map file: who holds which address, shared by every process of a server.
//!
//! A [`Map`] writes: it opens and closes sessions, alone or beside other writers. A [`Reader`]
//! only reads and never blocks; hook layers and monitors use it. Both work on a file or on memory
//! alone.
//!
//! Invariants: the slots are the truth, lists, index and counters are derived from them; a lease
//! is committed by one store of its owner word, after everything else about it; one writer at a
//! time; readers never write, block or loop without a bound.

mod admit;
mod alone;
mod change;
mod choose;
mod control;
mod file;
mod index;
mod journal;
mod last_users;
mod layout;
mod merge;
#[cfg(all(test, loom))]
mod model_checked;
mod moved;
mod outcome;
mod plain;
mod plan;
mod pool_layout;
mod queue;
mod reader;
mod reap;
mod record;
mod recover;
mod region;
mod sessions;
mod slot;
mod standing;
mod state;
#[cfg(not(loom))]
mod succession;
mod table;
#[cfg(all(test, not(loom)))]
mod tests;
mod writer;

pub use alone::ExclusiveWriter;
pub use journal::{CAPACITY as JOURNAL_CAPACITY, Event, EventKind, Journal, Recent};
pub use layout::{MAX_POOL_NAME, MAX_POOLS};
pub use outcome::{
    AdminChange, ChangeError, CloseError, ClosedSession, Leases, MapError, OpenError,
    OpenedSession, PoolStatus, SessionRow, Shortage, SlotRow, SlotState,
};
pub use plan::{AllocationTime, ExhaustionPolicy, Leader, OpenOptions, Plan, Settings, Tick};
pub use reader::Reader;
pub use reap::{LEADER_GRACE, Probe, ReapReport};
#[cfg(not(loom))]
pub use succession::Succession;
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
