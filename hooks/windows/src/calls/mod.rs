//! The replacements of the socket calls, one module per kind of call.
//!
//! A replacement rewrites arguments before the original call, and results after the original call.
//! During the original call, the replacement uses no state of the hook layer. If the system calls
//! one replacement from inside another (WSAConnect calls connect), the inner replacement receives
//! an address that is already rewritten, and passes it unchanged.
//!
//! Layers, top first:
//! 1. `ioctl`: returns the replacements of the extension functions
//! 2. `connect`, `datagram`, `socket_names`
//! 3. `destination`: the common part of calls with a destination address
//! 4. `bind`, `control`, `extension`, `adapters`, `resolver`: use no other module of `calls`

pub mod adapters;
pub mod bind;
pub mod connect;
mod control;
pub mod datagram;
mod destination;
mod extension;
pub mod ioctl;
pub mod resolver;
pub mod socket_names;
