//! A new configuration for a map with open sessions.
//!
//! A slot keeps its number for as long as its pool exists. New addresses of a plan are appended,
//! and dropped addresses are retired. So handles stay valid across configurations. If a plan
//! assigns an address to another pool, the state of the address migrates to that pool.

pub(crate) mod build;
pub(crate) mod merge;
pub(crate) mod migrate;
pub(crate) mod overlap;
pub(crate) mod prepare;
pub(crate) mod validate;
