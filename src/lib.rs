//! An IP address of its own for every session on a multi-user server.
//!
//! `vipool` is a library and a file, as SQLite is: whoever opens a session links the library, and
//! hook layers inside applications map the file read-only. No daemon has to run.
//!
//! The way of an address, one module each:
//!
//! 1. `farm`: farm.toml, one file for a whole farm, and all of its validation;
//! 2. [`range`], [`pool`]: reserved ranges, and the usable addresses of one server;
//! 3. [`interface`]: the network interface whose subnet a range belongs to;
//! 4. [`map`]: the map file, from which [`session`]s are given addresses and to which they return
//!    them;
//! 5. [`policy`]: the process list and all else that a hook layer goes by;
//! 6. [`rewrite`]: what becomes of the address in each socket call.
//!
//! Functions over plain values in the middle, the operating system at the edges (`os`), `unsafe`
//! in `os` and the C ABI only.

#![deny(unsafe_code)]

pub mod client_file;
#[cfg(target_os = "linux")]
pub mod discovery;
#[cfg(feature = "farm")]
pub mod farm;
mod hash;
pub mod interface;
mod leader;
pub mod map;
mod os;
pub mod policy;
pub mod pool;
pub mod range;
#[doc(hidden)]
pub mod raw;
pub mod rewrite;
pub mod session;
mod sync;
pub mod system;
mod time;

pub use time::Tick;

#[cfg(feature = "capi")]
pub mod capi;

/// What a user is told when no address is left, word for word.
pub const EXHAUSTED_MESSAGE: &str =
    "No virtual IP address is available for this session, please contact your administrator.";
