//! `libvipool_preload.so`, the hook layer for Linux.
//!
//! `LD_PRELOAD` loads this library before the C library, and its functions interpose the socket and
//! lookup functions. Each hook reads the program's arguments, asks the rewriter of the crate
//! `vipool` what to do, and makes the original call.
//!
//! The library runs inside programs that it does not control. Therefore:
//! - No hook allocates, locks, logs, starts a thread, writes the environment or panics.
//! - No hook keeps state for a socket. `facts` are about all sockets together, and a `mark` is kept
//!   by the kernel.
//! - Every hook is safe in signal handlers and after fork or vfork.
//! - Every hook decides before the original call and owns nothing while it runs. siglongjmp or
//!   cancellation may leave the original call.
//! - After a call, `errno` is what it would be without the hook.
//! - A process that is not rewritten pays one load per call.
//!
//! # Layers
//! A module uses only modules of lines above its own:
//! 1. `errno`, `facts`, `identity`, `node_name`, `original`
//! 2. `system_call`
//! 3. `caller_memory`, `descriptors`
//! 4. `sockaddr_buf`
//! 5. `socket`
//! 6. `fd_facts`, `mark`
//! 7. `hooked_process`
//! 8. `destination`, `host_names`, `visible_name`
//! 9. the hooks: `addrinfo`, `bind`, `connect`, `hostent`, `interfaces`, `options`,
//!    `receive_messages`, `send_messages`, `socket_names`

mod addrinfo;
mod bind;
mod caller_memory;
mod connect;
mod descriptors;
mod destination;
mod errno;
mod facts;
mod fd_facts;
mod hooked_process;
mod host_names;
mod hostent;
mod identity;
mod interfaces;
mod mark;
mod node_name;
mod options;
mod original;
mod receive_messages;
mod send_messages;
mod sockaddr_buf;
mod socket;
mod socket_names;
mod system_call;
mod visible_name;

use libc::{c_char, c_int};

/// Initializes the hook. The dynamic linker calls it when it loads the library, with the arguments
/// that glibc passes to constructors.
extern "C" fn load(
    _count: c_int,
    arguments: *const *const c_char,
    environment: *const *const c_char,
) {
    let saved_errno = errno::get();
    caller_memory::record_main_stack(environment.cast());
    original::resolve();
    // SAFETY: glibc passes the arguments and the environment of the process.
    unsafe { hooked_process::load(arguments, environment) };
    errno::set(saved_errno);
}

// The unwinder that the standard library needs is linked statically, so that no process loads
// another library for it.
#[link(name = "gcc_eh", kind = "static", modifiers = "-bundle")]
unsafe extern "C" {}

#[used]
#[unsafe(link_section = ".init_array")]
static LOAD: extern "C" fn(c_int, *const *const c_char, *const *const c_char) = load;
