//! `libvipool_preload.so`, the hook layer for Linux.
//!
//! Because of `LD_PRELOAD`, the dynamic linker loads this library before the C library. The
//! functions of this library, the hooks, interpose the socket and lookup functions of the C
//! library. A hook makes the original call, and may change addresses in its arguments or results.
//! The rewriter of the crate `vipool` decides which addresses a hook changes.
//!
//! The library runs inside programs that it does not control. Therefore:
//! - No hook allocates, locks, logs, starts a thread, writes the environment or panics.
//! - No hook stores state for a single socket. The module `facts` stores facts about all sockets of
//!   the process. The module `mark` stores the mark of a socket in the kernel.
//! - A hook is safe in signal handlers and after fork or vfork, if its original function is safe
//!   there.
//! - A hook that changes arguments makes its decision before the original call. During the original
//!   call, a hook owns no resource that must be released, because siglongjmp or a thread
//!   cancellation may end the call early.
//! - A hook preserves `errno` during its own work. It sets `errno` only to fail a call.
//! - If the program is not listed or has no session, a hook adds a few instructions to a call, and
//!   no system call.
//!
//! # Layers
//! A module uses only modules with a smaller number in this list:
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

/// Initializes the hook layer. The dynamic linker calls this function when it loads the library,
/// with the arguments that glibc passes to constructors.
///
/// # Safety
/// `arguments` and `environment` are the argument vector and the environment of the process. This
/// function is called once.
unsafe extern "C" fn initialize(
    _argument_count: c_int,
    arguments: *const *const c_char,
    environment: *const *const c_char,
) {
    let saved_errno = errno::get();
    caller_memory::record_main_thread();
    original::resolve();
    // SAFETY: guaranteed by the caller.
    unsafe { hooked_process::initialize(arguments, environment) };
    errno::set(saved_errno);
}

// The standard library needs an unwinder. The unwinder is linked statically (libgcc_eh), so that no
// process must load another library.
//
// When a thread is cancelled in an original function, the libgcc_s of the process unwinds the
// thread. For a frame of this library that has cleanup code, libgcc_s calls the personality function
// of the standard library, which passes the unwind context to the functions of this libgcc_eh. This
// requires that both versions of GCC have the same layout of the context. So a hook has no value
// that needs cleanup during the original call.
#[link(name = "gcc_eh", kind = "static", modifiers = "-bundle")]
unsafe extern "C" {}

#[used]
#[unsafe(link_section = ".init_array")]
static INITIALIZE: unsafe extern "C" fn(c_int, *const *const c_char, *const *const c_char) =
    initialize;
