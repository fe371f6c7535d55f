//! Functions for the maps that commands use: selection of the map, private maps, and reports about
//! a map.

pub mod client;
pub mod last_users;
#[cfg_attr(windows, path = "private_windows.rs")]
pub mod private;
pub mod reap;
pub mod report;
pub mod selection;
pub mod unusable;
