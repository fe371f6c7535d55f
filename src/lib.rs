//! Leases a separate IP address to every session on a multi-user server.
//!
//! Two users of one server can then run the same program on the same port. `vipool` is a library
//! and a shared file, the *map*. A program that opens sessions links the library and writes the
//! map. Hook layers inside applications, and monitors, read the map. No daemon is necessary.
//!
//! This example opens and closes a session of a map in memory.
//! [`Map::create`](map::Map::create) creates a map in a directory, and other processes can open
//! that map.
//!
//! ```
//! use vipool::Tick;
//! use vipool::map::{Map, OpenOptions, Plan};
//! use vipool::pool::{MAX_SLOTS, Pool, PoolKind};
//!
//! let range = "10.0.5.10-10.0.5.99".parse()?;
//! let pool = Pool::new("default", PoolKind::VirtualIp, &[range], MAX_SLOTS)?;
//! let map = Map::in_memory(&Plan::new([pool]))?;
//!
//! let session = "7".parse()?;
//! let opened = map.open_session(session, &OpenOptions::new().with_user("ada"), Tick::now())?;
//! for lease in &opened.leases {
//!     println!("{session} has {}", lease.address);
//! }
//! map.close_session(session, Tick::now())?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Modules, in the order of the data flow
//!
//! 1. `farm` parses and validates farm.toml, the configuration of all servers.
//! 2. [`range`] represents reserved addresses, and [`pool`] represents the usable addresses of one
//!    server.
//! 3. [`interface`] finds the network interface whose subnet contains a range.
//! 4. [`map`] allocates the addresses of the pools to sessions and stores the leases in a file.
//!    [`session`] defines session ids, handles and leases.
//! 5. [`policy`] decides which programs use the addresses of their session.
//! 6. [`rewrite`] decides what a socket call of such a program does.
//!
//! [`system`] provides information about the machine to agents and hooks. `discovery` finds the
//! session of a process whose environment names no session.
//! [`client_file`] stores the client address of a session for the programs of the session.
//! [`trusted_file`] opens and replaces files beside a map. It never follows a link that another
//! user has planted.
//!
//! # Features
//!
//! - `farm` (default): the module `farm`. Hook layers disable this feature, so they contain no
//!   parser of farm.toml.
//! - `capi`: the module `capi`, the C ABI of `include/vipool.h`.

#![cfg_attr(docsrs, feature(doc_cfg))]
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
pub mod trusted_file;

pub use time::Tick;

#[cfg(feature = "capi")]
pub mod capi;

/// The message for a user whose session gets no address because none is available.
pub const EXHAUSTED_MESSAGE: &str =
    "No virtual IP address is available for this session, please contact your administrator.";
