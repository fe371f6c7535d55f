//! The bytes of a map: the offset and the meaning of each word. No policy, no I/O.
//!
//! The slots are the only authoritative state. Queues, index and counters are derived from them.
//! Functions that store take [`crate::raw::word::WriteAccess`]; all others only read.

pub(crate) mod counters;
pub(crate) mod header;
pub(crate) mod index;
pub(crate) mod journal;
pub(crate) mod layout;
pub(crate) mod placement;
pub(crate) mod pool;
pub(crate) mod queue;
pub(crate) mod record;
pub(crate) mod region;
pub(crate) mod settings;
pub(crate) mod slot;
pub(crate) mod user;
pub(crate) mod words;
