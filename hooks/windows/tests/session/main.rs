//! Programs with the hook layer in them, on real Windows or under Wine. `cargo xtask test windows`
//! builds what is needed and runs this under Wine; docs/windows.md says how to run it on Windows.
#![cfg(windows)]

mod commands;
mod datagrams;
mod map_replacement;
mod processes;
mod rows;
mod servers;
mod sessions;
mod support;
mod vendor_hook;
