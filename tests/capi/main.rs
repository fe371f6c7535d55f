//! The C ABI as C programs use it: the header, the static and the shared library, and programs
//! compiled against them. Needs the feature `capi`.

#![cfg(all(feature = "capi", unix))]

mod abuse;
mod build;
mod header;
mod install;
mod library;
mod panics;
mod programs;
mod record;
mod symbols;
mod windows;
