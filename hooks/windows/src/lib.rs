//! The hook layer for Windows: socket call in, the core's decision, original out.
//!
//! Built as `vipool_hook.dll`. `vipool-launch.exe` (or a hooked parent) loads it into a suspended
//! process and runs `vipool_hook_install` there; whoever loads it otherwise gets the same from a
//! thread that `DllMain` starts. From then on the DLL stays in the process: threads may be inside
//! a hooked call, and programs keep the extension functions that they asked for.
//! `vipool_hook_remove` takes the hooks out again.
//!
//! No policy is here: what becomes of an address is decided by `vipool::rewrite`.

#![cfg(windows)]
// The signatures are those of the system.
#![allow(clippy::too_many_arguments)]

mod calls;
mod child_process;
mod context;
mod deferred;
mod detour;
mod entry;
mod environment;
mod inject;
mod install_status;
mod memory;
mod program;
mod socket;
mod table;
