//! The operations on a map: opening and closing sessions, recovery, and the files.

pub(crate) mod admit;
pub(crate) mod fast_path;
pub(crate) mod files;
pub(crate) mod reap;
pub(crate) mod recover;
pub(crate) mod select;
pub(crate) mod sessions;
pub(crate) mod state;
pub(crate) mod table;
