//! Nothing lost, nothing doubled: writers that die at any instruction, readers beside them, several
//! processes at one map, and places and users where it does not belong.
#![cfg(target_os = "linux")]

mod forks;
mod kill;
mod operations;
mod places;
mod process;
mod rights;
#[cfg(target_arch = "x86_64")]
mod step;
mod view;
