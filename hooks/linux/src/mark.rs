//! The mark of bound datagram sockets. The kernel stores the mark with the socket. For a marked
//! socket, a hook does not need to call getsockname(2) for each datagram.
//!
//! The mark is the write-lifetime hint of the socket's inode (`F_SET_RW_HINT` of fcntl(2)). Each
//! socket has its own hint, and the kernel's socket code does not use the hint. All descriptors of
//! a socket share the hint, including duplicated, passed and inherited descriptors. A new socket
//! has no hint. Reading the hint takes half as long as getsockname. The hooks replace only the
//! values [`HINT_NOT_SET`] and [`HINT_BOUND`]. Every other value comes from the program and stays.
//!
//! Invariant: a marked socket is bound. Only connect(2) with `AF_UNSPEC` can unbind a socket, so
//! the hook of connect clears the mark before and after such a call. If the program itself bound
//! the socket, a hook checks the binding again after it has set the mark. So a race between two
//! threads never leaves a mark on an unbound socket. The mark of a stream socket has no effect,
//! because data on a stream goes to the connected peer.

use crate::facts::MARKS_UNSUPPORTED;
use crate::socket::{Fd, HintCommand};

/// `RWH_WRITE_LIFE_NOT_SET`, the hint of a new socket.
const HINT_NOT_SET: u64 = 0;
/// `RWH_WRITE_LIFE_EXTREME`, the hint that marks a bound socket.
const HINT_BOUND: u64 = 5;

/// The binding of a socket according to its mark.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// The socket is bound.
    Bound,
    /// The socket has no mark, and a hook can mark it.
    Unmarked,
    /// The binding is unknown, and the socket must not be marked.
    Unknown,
}

impl Mark {
    /// Reads the mark of a socket.
    #[inline]
    pub fn read(fd: Fd) -> Self {
        if MARKS_UNSUPPORTED.is_possible() {
            return Mark::Unknown;
        }
        match read_hint(fd) {
            Some(HINT_BOUND) => Mark::Bound,
            // `None`: the kernel does not support hints. The first attempt to set a hint records
            // MARKS_UNSUPPORTED.
            Some(HINT_NOT_SET) | None => Mark::Unmarked,
            Some(_) => Mark::Unknown,
        }
    }
}

/// Marks a socket that this hook has just bound to an address. A disconnect does not remove this
/// address, so the function does not check the binding again.
pub fn set(fd: Fd) {
    write_hint(fd, HINT_BOUND);
}

/// Marks a socket if the socket is bound.
pub fn set_if_bound(fd: Fd) {
    if fd.has_port() && write_hint(fd, HINT_BOUND) && !fd.has_port() {
        write_hint(fd, HINT_NOT_SET);
    }
}

/// Clears the mark.
pub fn clear(fd: Fd) {
    if read_hint(fd) == Some(HINT_BOUND) {
        write_hint(fd, HINT_NOT_SET);
    }
}

#[inline]
fn read_hint(fd: Fd) -> Option<u64> {
    let mut hint = HINT_NOT_SET;
    fd.fcntl_hint(HintCommand::Get, &mut hint).then_some(hint)
}

fn write_hint(fd: Fd, mut hint: u64) -> bool {
    let is_stored = fd.fcntl_hint(HintCommand::Set, &mut hint);
    if !is_stored {
        MARKS_UNSUPPORTED.record();
    }
    is_stored
}
