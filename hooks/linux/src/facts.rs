//! Facts about all sockets of the process. While a fact is not recorded, hooks can skip some system
//! calls.
//!
//! A fact states that the program may have a socket of some kind. No fact belongs to a single
//! socket, so the hook has no state per socket.
//!
//! Invariants:
//! - A fact is recorded before the program can use a socket for which the fact is true.
//! - A recorded fact is never cleared.
//! - Every fact counts as recorded until the process has scanned its inherited descriptors.
//!
//! A process and its forks share sockets, and each process may connect a shared socket. Therefore
//! these processes also share the facts, in a page of shared memory. After exec(3), the hook of the
//! new program scans the inherited descriptors. If a message passes a descriptor, the sender's hook
//! and the receiver's hook both examine the descriptor.

use std::sync::atomic::{AtomicPtr, AtomicU8, Ordering};

/// A set of facts.
#[derive(Clone, Copy)]
pub struct Facts(u8);

/// A connected socket is paired: the address that the program must see for one end depends on the
/// other end. One end is V and the other is L or L6, or one end is 127.0.0.1 and the other is L6.
/// The program must see a loopback address for both ends.
pub const PAIRED_SOCKETS: Facts = Facts(1);
/// A socket is not TCP, UDP or UDP-Lite, and may have an IPv4 or IPv6 address.
pub const OTHER_PROTOCOLS: Facts = Facts(2);
/// A UDP socket is bound to an address but has no port.
pub const PORTLESS_BINDINGS: Facts = Facts(4);
/// The kernel rejects marks for at least one socket (see `mark`).
pub const MARKS_UNSUPPORTED: Facts = Facts(8);

/// A set in which every fact is recorded. It is used until the inherited descriptors are scanned.
static ALL_POSSIBLE: AtomicU8 = AtomicU8::new(u8::MAX);
/// The current facts: `ALL_POSSIBLE`, or the page that this process shares with its forks.
static CURRENT: AtomicPtr<AtomicU8> = AtomicPtr::new((&raw const ALL_POSSIBLE).cast_mut());

impl Facts {
    /// The empty set.
    pub const NONE: Facts = Facts(0);

    /// Returns the union of two sets.
    pub fn union(self, other: Facts) -> Facts {
        Facts(self.0 | other.0)
    }

    /// Returns whether any fact of this set may be true.
    #[inline]
    pub fn is_possible(self) -> bool {
        current_facts().load(Ordering::Relaxed) & self.0 != 0
    }

    /// Records that all facts of this set may be true from now on.
    #[inline]
    pub fn record(self) {
        if current_facts().load(Ordering::Relaxed) & self.0 != self.0 {
            current_facts().fetch_or(self.0, Ordering::SeqCst);
        }
    }
}

#[inline]
fn current_facts() -> &'static AtomicU8 {
    // SAFETY: the pointer refers to the static above or to a page that is never unmapped.
    unsafe { &*CURRENT.load(Ordering::Acquire) }
}

/// Replaces the current facts with `page`. `initial_facts` contains the facts that may already be
/// true.
pub fn use_shared_page(page: &'static AtomicU8, initial_facts: Facts) {
    page.store(initial_facts.0, Ordering::Relaxed);
    CURRENT.store(std::ptr::from_ref(page).cast_mut(), Ordering::Release);
}
