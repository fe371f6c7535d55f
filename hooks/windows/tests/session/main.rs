//! Tests of programs that run with the hook layer, on Windows or under Wine.
//!
//! `cargo xtask test windows-hook` builds the test programs and runs the tests under Wine.
//! docs/windows.md describes how to run them on Windows.
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
