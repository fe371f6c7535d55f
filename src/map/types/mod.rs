//! The plain values that callers of a map pass and receive. They depend on no other part of it.

pub(crate) mod error;
pub(crate) mod event;
pub(crate) mod leases;
pub(crate) mod outcome;
pub(crate) mod plan;
pub(crate) mod status;
