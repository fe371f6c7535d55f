//! Sockets whose bind to the wildcard address was put off (row 46).
//!
//! The one thing that is kept per socket: Windows tells a socket that was never bound from one
//! that was (getsockname, ConnectEx, listen: WSAEINVAL), and a program that bound must not see the
//! first. The system could keep it only as an option of the socket, and has none that it gives back,
//! that changes nothing, and that a stream socket may have before it is bound.
//!
//! A fixed table without a lock; a socket that finds no place is bound to V at once. A socket
//! closed by other means than closesocket leaves its number here: should the number come again,
//! an unbound socket is taken for a bound one, and is bound.

use std::sync::atomic::{AtomicUsize, Ordering};

use windows_sys::Win32::Networking::WinSock::SOCKET;

const TABLE_SIZE: usize = 1024;
/// How far from its own place a socket may be.
const MAX_PROBES: usize = 16;

static TABLE: [AtomicUsize; TABLE_SIZE] = [const { AtomicUsize::new(0) }; TABLE_SIZE];

/// The places where a socket may be. Handles are multiples of 4.
fn probe_sequence(s: SOCKET) -> impl Iterator<Item = &'static AtomicUsize> {
    (0..MAX_PROBES).map(move |step| &TABLE[((s >> 2) + step) % TABLE_SIZE])
}

/// Notes a socket; false if there is no room.
pub fn insert(s: SOCKET) -> bool {
    s != 0
        && (contains(s)
            || probe_sequence(s).any(|entry| {
                entry.compare_exchange(0, s, Ordering::AcqRel, Ordering::Relaxed).is_ok()
            }))
}

/// Whether the socket's bind was put off.
pub fn contains(s: SOCKET) -> bool {
    s != 0 && probe_sequence(s).any(|entry| entry.load(Ordering::Acquire) == s)
}

/// Forgets a socket; whether it was there. Of two threads one is told so.
pub fn remove(s: SOCKET) -> bool {
    s != 0
        && probe_sequence(s)
            .any(|entry| entry.compare_exchange(s, 0, Ordering::AcqRel, Ordering::Relaxed).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn insert_fails_when_every_probed_entry_is_taken() {
        let colliding: Vec<SOCKET> =
            (0..MAX_PROBES as SOCKET).map(|i| (i * TABLE_SIZE + 7) * 4).collect();
        assert!(colliding.iter().all(|s| insert(*s) && contains(*s)));
        assert!(!insert((MAX_PROBES * TABLE_SIZE + 7) * 4));
        assert!(insert(colliding[3]), "what is there is there once");
        assert!(remove(colliding[3]) && !remove(colliding[3]) && !contains(colliding[3]));
        assert!(!insert(0) && !contains(0));
        assert!(colliding.iter().filter(|s| remove(**s)).count() == MAX_PROBES - 1);
    }
}
