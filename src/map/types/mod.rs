//! The plain values that callers of a map pass and receive.

pub(crate) mod outcome;
pub(crate) mod plan;
