//! `vipool run` and `vipool session` on real processes, in private maps of the tests' own.
#![cfg(target_os = "linux")]

mod bad_input;
mod control;
mod ending;
mod exhaustion;
mod lifecycle;
mod listing;
mod pools;
mod support;
mod users;
