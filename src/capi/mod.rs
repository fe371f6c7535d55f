//! The C ABI of `include/vipool.h`.
//!
//! The header states these conventions, and the tests check them. `cbindgen.toml` has the text.
//!
//! - A function that can fail returns a [`vipool_status`](status::vipool_status). Out-parameters
//!   come last. They are written on success only, except that some errors write a count, a length
//!   or a shortage.
//! - Every pointer is checked for NULL. Kinds and flags are `uint32_t` and are checked. A call with
//!   invalid input returns an error status. Its behaviour is undefined only if a pointer that is
//!   not NULL is invalid, or if the caller breaks the thread rules of the function.
//! - `_new`, `_load` and `vipool_farm_parse` create an opaque object that `_free` frees. `_open`
//!   and `_create` create an opaque object that `_close` frees.
//! - Each struct of the caller begins with its size ([`layout`], [`output`]), except plain data such
//!   as addresses and handles. Texts are UTF-8 with a length. Addresses are [`address::vipool_ip`]
//!   or the bytes of a sockaddr.
//! - A panic becomes `VIPOOL_ERR_PANIC`. Nothing unwinds into C.
//!
//! Types and functions have their C names, and their documentation is the text of the header. In
//! this file, a module uses only modules that are declared above it. The groups of modules are:
//! support, values, configuration, agent, monitors, hooks. The sections of the header follow the
//! same order (`xtask/src/header.rs`).
//!
//! C programs can do everything that Rust programs can do. These Rust items have no C function of
//! their own:
//!
//! | Rust | C |
//! |---|---|
//! | reading the fields of `Farm` (except `sessions`) and [`Plan`](crate::map::Plan) | read the result from a map in memory |
//! | building a [`Plan`](crate::map::Plan) by hand | a farm without servers and `vipool_plan_new` |
//! | arithmetic on [`Range`](crate::range::Range) | plain structs; `vipool_range_intersect` |
//! | kind and value of a [`SessionId`](crate::session::SessionId) | the upper 8 and lower 56 bits of a `vipool_session` |
//! | [`interface_of`](crate::interface::interface_of), [`reserved_addresses`](crate::interface::reserved_addresses) | `vipool_plan_new` with interfaces |
//! | system view, socket and rules of [`rewrite`](crate::rewrite) | `vipool_listener_find_fn`, `vipool_socket`, the id of a rule |

#![allow(unsafe_code, non_camel_case_types, clippy::missing_safety_doc)]

// Support.
pub mod status;

pub mod error;

pub mod handle;

pub mod layout;

pub mod output;

pub mod text;

pub mod page;

pub mod version;

// Values.
pub mod address;

pub mod session;

pub mod leader;

pub mod interface;

pub mod settings;

pub mod process_list;

pub mod executable;

// The configuration.
pub mod farm;

pub mod farm_build;

pub mod farm_settings;

pub mod plan;

// The agent.
pub mod event;

pub mod map;

pub mod map_session;

pub mod maintenance;

pub mod client;

// Monitors.
pub mod reader;

pub mod snapshot;

pub mod journal;

// Hooks.
pub mod rule;

pub mod process;

pub mod reason;

pub mod outcome;

pub mod socket;

pub mod listener;

pub mod rewriter;

pub mod rewrite;

pub mod packet_info;

pub mod visible;

#[cfg(test)]
mod caller_memory;
