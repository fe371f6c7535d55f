//! The mark of a datagram socket that is bound, so that it need not be asked for each datagram.
//!
//! The kernel keeps it with the socket itself: the hint of how long what is written will live
//! (`F_SET_RW_HINT` of fcntl(2)). Each socket has one of its own, and no socket heeds it; duplicated,
//! passed and inherited descriptors show the same, a new socket shows none. Reading it costs half of
//! what the socket's name costs. A hint of the program's own is left alone.
//!
//! Invariant: a marked socket is bound. What can undo that is a connect with `AF_UNSPEC`: it takes
//! the mark off before and after it, and who marks a socket that was bound by others looks again
//! afterwards, so that none of two threads leaves a mark on what the other dissolved. Marks mean
//! nothing for a stream, whose sends go where it is connected to.

use crate::facts::MARKS_UNSUPPORTED;
use crate::socket::Fd;
use libc::c_int;

/// `F_LINUX_SPECIFIC_BASE` of linux/fcntl.h, and what is counted from it.
const F_GET_RW_HINT: c_int = 1024 + 11;
const F_SET_RW_HINT: c_int = 1024 + 12;
/// `RWH_WRITE_LIFE_NOT_SET`: what every socket begins with.
const HINT_NOT_SET: u64 = 0;
/// `RWH_WRITE_LIFE_EXTREME`.
const HINT_BOUND: u64 = 5;

/// What is known by a socket's mark.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// It is bound.
    Bound,
    /// It has none, and may get one.
    Unmarked,
    /// Nothing, and nothing is to be marked.
    Unknown,
}

impl Mark {
    /// Of this socket.
    #[inline]
    pub fn read(fd: Fd) -> Self {
        if MARKS_UNSUPPORTED.is_possible() {
            return Mark::Unknown;
        }
        match read_hint(fd) {
            Some(HINT_BOUND) => Mark::Bound,
            // Where there are no hints, setting one will show it.
            Some(HINT_NOT_SET) | None => Mark::Unmarked,
            Some(_) => Mark::Unknown,
        }
    }
}

/// Marks a socket that was bound to an address just now: it stays so even when it is dissolved.
pub fn set(fd: Fd) {
    write_hint(fd, HINT_BOUND);
}

/// Marks a socket that is bound, if it is.
pub fn set_if_bound(fd: Fd) {
    if fd.has_port() && write_hint(fd, HINT_BOUND) && !fd.has_port() {
        write_hint(fd, HINT_NOT_SET);
    }
}

/// Takes the mark off.
pub fn clear(fd: Fd) {
    if read_hint(fd) == Some(HINT_BOUND) {
        write_hint(fd, HINT_NOT_SET);
    }
}

#[inline]
fn read_hint(fd: Fd) -> Option<u64> {
    let mut hint = HINT_NOT_SET;
    fd.fcntl_u64(F_GET_RW_HINT, &mut hint).then_some(hint)
}

fn write_hint(fd: Fd, mut hint: u64) -> bool {
    let is_set = fd.fcntl_u64(F_SET_RW_HINT, &mut hint);
    if !is_set {
        MARKS_UNSUPPORTED.record();
    }
    is_set
}
