//! Memory primitives that need `unsafe`, in one folder so that they are audited together.
//!
//! The modules in this folder depend on no other module of the crate, except on the atomics in
//! `sync`. They make no policy decisions and call the operating system only to map and allocate
//! memory.

pub mod bytes;
pub mod mapping;
pub mod newest;
pub mod pages;
pub mod prefetch;
pub mod private_bytes;
pub mod sections;
pub mod set_once;
pub mod word;
