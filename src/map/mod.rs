//! The map file: the leases of all sessions, shared by every process of a server.
//!
//! A [`Map`] opens and closes sessions. It shares the map file with other writers, or locks them
//! out. A [`Reader`] never writes and never blocks; hook layers and monitors use readers. Both
//! types work on files or in memory.
//!
//! The code has four layers. `types` holds plain values. `format` defines the bytes on disk.
//! `engine` contains the operations. `replan` applies a new configuration. The other modules
//! implement the public types and methods on top of these layers.
//!
//! Invariants:
//! - The slots are authoritative. Queues, index and counters are derived from them.
//! - The store of the owner word commits a lease. Before this store, the writer stores all other
//!   words of the lease.
//! - There is one writer at a time. Within a process, the type system guarantees this: a store
//!   needs an exclusive borrow of the map. Between processes, a file lock guarantees it.
//! - Readers never write, never block and never loop without a bound.

mod admin;
mod affinity;
mod create;
mod engine;
mod exclusive;
mod format;
mod journal;
#[cfg(all(test, loom))]
mod model_checked;
mod query;
mod reader;
mod reload_lock;
mod remove;
mod repair;
mod replan;
mod shared;
#[cfg(all(test, not(loom)))]
mod tests;
mod types;
#[cfg(not(loom))]
mod versions;
mod writer;
mod writer_lock;

pub use engine::files::{JOURNAL_FILE, LOCK_FILE, MAP_FILE, RELOAD_LOCK_FILE, SESSIONS_FILE};
pub use engine::reap::{LEADER_GRACE, Probe, ReapReport};
pub use exclusive::ExclusiveWriter;
pub use format::journal::CAPACITY as JOURNAL_CAPACITY;
pub use journal::Journal;
pub use reader::Reader;
pub use repair::RepairReport;
pub use types::error::{
    ChangeError, CloseError, MapError, OpenError, PlanError, RemoveError, Shortage,
};
pub use types::event::{Event, EventKind, RecentEvents};
pub use types::leases::{LeaseIter, Leases, MAX_LEASES};
pub use types::outcome::{AdminChange, ClosedSession, OpenedSession};
pub use types::plan::{
    AllocationTime, ExhaustionPolicy, Leader, MAX_POOL_NAME, MAX_POOLS, OpenOptions, Plan,
    SessionPer, Settings,
};
pub use types::status::{PoolStatus, SessionRow, SlotRow, SlotState};
#[cfg(not(loom))]
pub use versions::VersionChain;
pub use writer::Map;
