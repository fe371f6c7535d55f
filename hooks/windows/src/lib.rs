//! The hook layer for Windows. It rewrites addresses in the arguments of a socket call before the
//! original call, and addresses in the results after the original call.
//!
//! The crate builds `vipool_hook.dll`. `vipool-launch.exe` (or a hooked parent) loads the DLL into
//! a suspended process and runs `vipool_hook_install` there. If the DLL is loaded in another way,
//! a thread that `DllMain` starts installs the hooks. A loaded DLL stays in the process, because
//! that thread or a hooked call may be running, and programs keep pointers to functions of the DLL,
//! such as the replacement of ConnectEx. `vipool_hook_remove` disables the hooks.
//!
//! This crate contains no policy. `vipool::rewrite` decides how an address is rewritten.
//!
//! Layers, top first. A module uses modules of lower layers only:
//! 1. `entry`: the exported functions, which install and disable the hooks
//! 2. `table`: the replacement of each hooked function
//! 3. `calls`, `child_process`: the replacements
//! 4. `context`: the map, the session and the rule of this process
//! 5. `address_table`, `detour`, `own_dll`, `socket`: addresses for overlapped calls, MinHook, the
//!    loaded DLL itself, sockets of the program
//! 6. `inject`: loads the DLL into another process
//! 7. `deferred`, `environment`, `install_status`, `last_error`, `memory`, `original`, `program`:
//!    helpers that use no other layer

#![cfg(windows)]
// The replacements must have the signatures of the system functions.
#![allow(clippy::too_many_arguments)]

#[cfg(not(target_arch = "x86_64"))]
compile_error!("the hook layer supports x86-64 only: rule ids must fit into pointers");

mod address_table;
mod calls;
mod child_process;
mod context;
mod deferred;
mod detour;
mod entry;
mod environment;
mod inject;
mod install_status;
mod last_error;
mod memory;
mod original;
mod own_dll;
mod program;
mod socket;
mod table;
