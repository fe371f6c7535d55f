//! A new configuration for a map that has open sessions.

pub(crate) mod merge;
pub(crate) mod migrate;
