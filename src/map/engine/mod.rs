//! The operations on the words of a map. They open and close sessions, free addresses, and recover
//! the map after a crash.
//!
//! [`image::MapImage`] is the read-only view that readers get. No method of this view changes the
//! map. [`writer::MapWriter`] can change the map. It needs an exclusive borrow of a
//! [`writer::WritableMap`], which the writer lock of the map protects. A
//! [`transaction::Transaction`] also guarantees that the map is consistent, and that the next
//! writer detects a crash within the transaction. The engine opens and closes sessions only in a
//! transaction.

pub(crate) mod admit;
pub(crate) mod close;
pub(crate) mod fast_path;
pub(crate) mod files;
pub(crate) mod future_stamps;
pub(crate) mod handover;
pub(crate) mod identity;
pub(crate) mod image;
pub(crate) mod logons;
pub(crate) mod open;
pub(crate) mod reap;
pub(crate) mod recover;
pub(crate) mod select;
pub(crate) mod table;
pub(crate) mod table_writer;
pub(crate) mod transaction;
pub(crate) mod writer;
