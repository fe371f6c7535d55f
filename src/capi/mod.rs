//! The C ABI of `include/vipool.h`.
//!
//! One page of conventions, kept by every function here; the header repeats them for its readers
//! (`cbindgen.toml`), and the tests check them:
//!
//! - What can fail returns a [`vipool_status`](status::vipool_status): zero, or a negative number that never changes its
//!   meaning. Out-parameters come last and are written on success only.
//! - Every pointer is checked for NULL. Numbers that stand for a kind enter as `uint32_t` and are
//!   checked. Bad input is a status, never undefined behaviour, as long as non-NULL pointers
//!   point to what the declaration says.
//! - Opaque types come from a function that ends in `_new`, `_open`, `_create`, `_load` (and so
//!   on) and go back through their own `_free`, which takes NULL too.
//! - Structs of the caller's begin with their size ([`layout`]); strings are UTF-8 with a length;
//!   addresses are [`address::vipool_ip`] or the bytes of a sockaddr with a length.
//! - A panic inside comes out as `VIPOOL_ERR_PANIC`; nothing unwinds into C.
//!
//! The names are those of the header, so that one text serves both.
//!
//! What Rust can do, C can do. What has no function of its own, and why:
//!
//! | in Rust | in C |
//! |---|---|
//! | reading the fields of `Farm`, [`Plan`](crate::map::Plan), [`Pool`](crate::pool::Pool) | both are written only; what they come to is read from a map in memory (`vipool_map_in_memory`), which costs nothing |
//! | `contains`, `count`, `nth`, `offset_of` of [`Range`](crate::range::Range), `subtract`; [`PortRange`](crate::policy::PortRange)s | arithmetic on plain structs; `vipool_range_without` and `_intersection` are there for what is easily done wrong |
//! | kind and value of a [`SessionId`](crate::session::SessionId) | the upper 8 and lower 56 bits of a `vipool_session` |
//! | [`interface_of`](crate::interface::interface_of), [`unusable`](crate::interface::unusable) | `vipool_match_new` does both |
//! | [`policy::path`](crate::policy::path), [`Policy::encode`](crate::policy::Policy::encode), host addresses and ports of a [`PolicyView`](crate::policy::PolicyView) | what `vipool_reader_find_rule` and the rewrite calls are made of |
//! | [`SystemView`](crate::rewrite::SystemView), [`Socket`](crate::rewrite::Socket), [`RewriteRules`](crate::rewrite::RewriteRules) | `vipool_find_listener_fn`, `vipool_socket`, the id of a rule |
//! | [`HookedProcess`](crate::rewrite::HookedProcess), [`VersionChain`](crate::map::VersionChain) | statics of a hook layer in Rust; the header says what a hook in C does when a map is replaced |
//! | the other modules of [`os`](crate::os) | what the crate and the command line are made of |

#![allow(unsafe_code, non_camel_case_types, clippy::missing_safety_doc)]

// What all calls are made of.
pub mod handle;
pub mod layout;
pub mod outcome;
pub mod text;

// The header, in this order (cbindgen is given the files as they are named here).
pub mod version;

pub mod status;

pub mod address;

pub mod session;

pub mod interface;

pub mod machine;

pub mod farm;

pub mod farm_by_calls;

pub mod farm_rules;

pub mod plan;

pub mod settings;

pub mod list;

pub mod event;

pub mod map;

pub mod leader;

pub mod open;

pub mod writer;

pub mod upkeep;

pub mod client;

pub mod reader;

pub mod snapshot;

pub mod journal;

pub mod program;

pub mod explain;

pub mod reason;

pub mod rewriter;

pub mod socket;

pub mod decision;

pub mod rewrite;

pub mod names;
