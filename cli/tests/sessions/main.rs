//! Tests of `vipool run`, `vipool session` and related commands. Each test has its own private map.
#![cfg(target_os = "linux")]

mod bad_input;
mod control;
mod ending;
mod exhaustion;
pub mod files;
mod lifecycle;
mod listing;
mod pools;
mod reports;
mod support;
mod up;
mod users;
