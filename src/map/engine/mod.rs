//! The operations on the words of a map. This folder and `replan` contain all code that writes.
//!
//! [`image::MapImage`] is the read-only view that readers get: it has no method that stores.
//! [`writer::MapWriter`] can store; it borrows a [`writer::WritableMap`] exclusively, which a map
//! keeps behind its lock. A [`transaction::Transaction`] adds the guarantee that the map is
//! consistent, and that a crash within it is noticed. Sessions are opened and closed in a
//! transaction only.

pub(crate) mod admit;
pub(crate) mod close;
pub(crate) mod fast_path;
pub(crate) mod files;
pub(crate) mod handover;
pub(crate) mod image;
pub(crate) mod open;
pub(crate) mod reap;
pub(crate) mod recover;
pub(crate) mod select;
pub(crate) mod table;
pub(crate) mod table_writer;
pub(crate) mod transaction;
pub(crate) mod writer;
