//! What the program may have come to hold, as far as it saves questions to the kernel.
//!
//! Nothing is kept for a socket: a fact says that there may be a socket of some kind among all that
//! the program has. Invariants: a fact is noted before a hook can meet what makes it true, and is
//! never taken back; what can't be known is taken for true, as all is until [`scan_inherited_fds`] has
//! looked. A process and its forks share sockets that any of them may connect, so they share the
//! facts; a program that is started by exec looks at what it was handed, and a descriptor that is
//! passed is looked at by who sends it and by who receives it.

use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU8, Ordering};

use libc::c_int;
use vipool::rewrite::{Protocol, Socket};

use crate::descriptors;
use crate::hooked_process::HookedProcess;
use crate::socket::Fd;

/// Some of the facts.
#[derive(Clone, Copy)]
pub struct Facts(u8);

/// A socket has an end that is shown otherwise only because of the other end: V and L, or 127.0.0.1
/// and L6.
pub const PAIRED_SOCKETS: Facts = Facts(1);
/// A socket for addresses of IPv4 or IPv6 carries something other than TCP and UDP.
pub const OTHER_PROTOCOLS: Facts = Facts(2);
/// A UDP socket is bound to an address and has no port.
pub const PORTLESS_BINDINGS: Facts = Facts(4);
/// The kernel does not keep marks, or not with every socket (see `mark`).
pub const MARKS_UNSUPPORTED: Facts = Facts(8);

/// What is true where nothing is known.
static ALL_POSSIBLE: AtomicU8 = AtomicU8::new(u8::MAX);
/// All facts, in memory that forks share.
static SHARED: AtomicPtr<AtomicU8> = AtomicPtr::new((&raw const ALL_POSSIBLE).cast_mut());

impl Facts {
    /// Whether one of them may be true.
    #[inline]
    pub fn is_possible(self) -> bool {
        shared().load(Ordering::Relaxed) & self.0 != 0
    }

    /// From now on they may be true.
    #[inline]
    pub fn record(self) {
        if shared().load(Ordering::Relaxed) & self.0 != self.0 {
            shared().fetch_or(self.0, Ordering::SeqCst);
        }
    }

    /// Those of a descriptor that comes from elsewhere, or goes there.
    pub fn of_fd(process: &HookedProcess, fd: c_int) -> Self {
        let fd = Fd(fd);
        let mut facts = 0;
        let domain = match fd.option(libc::SOL_SOCKET, libc::SO_DOMAIN) {
            // Neither a file nor one of these has an address of IPv4 or IPv6.
            None | Some(libc::AF_UNIX | libc::AF_NETLINK) => return Self(0),
            Some(domain) => domain,
        };
        let protocol = fd.protocol();
        if ![libc::AF_INET, libc::AF_INET6].contains(&domain) || protocol == Protocol::Other {
            facts |= OTHER_PROTOCOLS.0;
        }
        match (protocol, fd.peer()) {
            // It stays what it is.
            (Protocol::Tcp, Some(peer)) => {
                if process
                    .display_rewriter()
                    .visible_address(peer, || fd.local_address())
                    .rewritten()
                    .is_some()
                {
                    facts |= PAIRED_SOCKETS.0;
                }
            }
            (Protocol::Tcp, None)
                if fd.option(libc::SOL_SOCKET, libc::SO_ACCEPTCONN) == Some(1) => {}
            // Whoever else holds it may connect it, or dissolve it.
            _ => facts |= PAIRED_SOCKETS.0 | PORTLESS_BINDINGS.0,
        }
        Self(facts)
    }
}

#[inline]
fn shared() -> &'static AtomicU8 {
    // SAFETY: it points to the static above, or to memory that stays.
    unsafe { &*SHARED.load(Ordering::Acquire) }
}

/// Looks while the process is loaded: at the descriptors that it was handed, or that others have
/// opened in it by now.
pub fn scan_inherited_fds(process: &HookedProcess) {
    let mut facts = 0;
    if !descriptors::for_each_open_fd(|fd| facts |= Facts::of_fd(process, fd).0) {
        return;
    }
    // SAFETY: asks for new memory, which is all zero.
    let page = unsafe {
        let (access, kind) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
        libc::mmap(ptr::null_mut(), size_of::<AtomicU8>(), access, kind, -1, 0)
    };
    if page != libc::MAP_FAILED {
        SHARED.store(page.cast(), Ordering::Release);
        Facts(facts).record();
    }
}
