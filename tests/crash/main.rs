//! Nothing lost, nothing doubled: writers that die at any instruction, and readers beside them.
#![cfg(target_os = "linux")]

mod kill;
mod operations;
mod process;
#[cfg(target_arch = "x86_64")]
mod step;
mod view;
