//! Tests of the C ABI: the header, the static and the shared library, and programs that link the
//! libraries. The tests need the feature `capi`.

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
