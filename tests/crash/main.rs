//! Crash safety: no lease is lost or allocated twice.
//!
//! Writers die at any instruction while readers run, several processes share a map, and a map meets
//! full file systems, other namespaces, other boots and hostile users.
#![cfg(target_os = "linux")]

mod environment;
mod kill;
mod operations;
mod permissions;
mod process;
mod processes;
mod recovery;
#[cfg(target_arch = "x86_64")]
mod single_step;
