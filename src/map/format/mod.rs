//! The bytes of a map: where each word lies in a file, and what it means. No policy.

pub(crate) mod counters;
pub(crate) mod index;
pub(crate) mod layout;
pub(crate) mod pool;
pub(crate) mod queue;
pub(crate) mod record;
pub(crate) mod region;
pub(crate) mod slot;
pub(crate) mod slot_state;
