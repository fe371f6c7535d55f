//! The plain values that callers of a map pass and receive. These modules do not depend on the
//! other modules of `map`.

pub(crate) mod error;
pub(crate) mod event;
pub(crate) mod leases;
pub(crate) mod outcome;
pub(crate) mod plan;
pub(crate) mod status;
