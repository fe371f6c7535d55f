//! Tests of crash safety: no lease is lost or allocated twice.
//!
//! The tests kill writers at any instruction while readers run, and let several processes share a
//! map. Other tests cover full file systems, other namespaces, other boots and hostile users.
#![cfg(target_os = "linux")]

mod changing_file;
mod environment;
mod exclusion;
mod kill;
mod operations;
mod permissions;
mod process;
mod processes;
mod recovery;
mod reload;
#[cfg(target_arch = "x86_64")]
mod single_step;
#[cfg(target_arch = "x86_64")]
mod single_step_reload;
