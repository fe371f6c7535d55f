//! `libvipool_preload.so`: what stands between the programs of a session and their socket calls.
//!
//! Loaded by `LD_PRELOAD`, it puts the functions of `calls`, `names`, `messages`, `lookups`,
//! `hostent` and `interfaces` in front of those of the C library. Each reads its arguments, asks the Rewriter of
//! the crate `vipool` what becomes of them, and makes the original call.
//!
//! It is a guest in other people's processes. No hook allocates, locks or starts anything, keeps
//! anything of a socket (`facts` says what is known of all together, `mark` what the kernel keeps),
//! writes to the environment or logs; none can panic; all may be called in signal handlers and
//! after fork or vfork. Every hook decides first and has nothing live while the original call
//! runs, which may be left by siglongjmp or cancellation. `errno` after success is as without it.
//! A process that is not rewritten pays one load per call.

mod addrinfo;
mod caller_memory;
mod connect;
mod descriptors;
mod errno;
mod facts;
mod hooked_process;
mod hostent;
mod identity;
mod interfaces;
mod mark;
mod messages;
mod original;
mod socket;
mod socket_names;
mod system_call;

use libc::{c_char, c_int};

/// Runs when the object is loaded, with what glibc hands to constructors.
extern "C" fn load(
    _count: c_int,
    arguments: *const *const c_char,
    environment: *const *const c_char,
) {
    let before = errno::get();
    caller_memory::record_main_stack(environment.cast());
    original::resolve();
    // SAFETY: these are the arguments and the environment of the process.
    unsafe { hooked_process::load(arguments, environment) };
    errno::set(before);
}

// The unwinder that the standard library refers to, linked in: one library less to be loaded into
// every process.
#[link(name = "gcc_eh", kind = "static", modifiers = "-bundle")]
unsafe extern "C" {}

#[used]
#[unsafe(link_section = ".init_array")]
static LOAD: extern "C" fn(c_int, *const *const c_char, *const *const c_char) = load;
