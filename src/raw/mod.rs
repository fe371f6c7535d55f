//! Memory primitives with `unsafe` in them, kept in one folder so that they are audited together.

pub mod bytes;
pub mod mapping;
pub mod prefetch;
pub mod sections;
pub mod set_once;
