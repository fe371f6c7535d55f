//! The replacements of the socket calls, one module per kind of call.
//!
//! Each replacement decides first and then makes the original call. No state of the hook layer is
//! live during the original call. If the system calls one replacement from inside another
//! (WSAConnect calls connect), the inner one finds an address that is already rewritten, and passes
//! it.
//!
//! Layers, top first:
//! 1. `ioctl`: hands out the replacements of the extension functions
//! 2. `connect`, `datagram`, `socket_names`
//! 3. `destination`: the common part of calls with a destination address
//! 4. `bind`, `control`, `extension`, `adapters`, `resolver`: leaves

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
