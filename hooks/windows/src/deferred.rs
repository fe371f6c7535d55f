//! Sockets whose bind to the wildcard address is deferred (row 46).
//!
//! This is the only state that the hook layer keeps per socket. On an unbound socket, getsockname,
//! ConnectEx and listen fail with WSAEINVAL. A program that called bind must not see this error, so
//! the hook layer records the socket and binds it before such a call. No socket option can store
//! the state: each option that can be set before a bind and read back also changes the behaviour of
//! the socket.
//!
//! The state is a fixed hash table without a lock. If no entry is vacant for a socket, the hook
//! layer does not defer the bind. If a program closes a socket without closesocket, the number of
//! the socket stays in the table. The system may reuse the number for an unbound socket. The bind
//! of that socket then counts as deferred, and the next call that needs a bound socket binds it.

use std::sync::atomic::{AtomicUsize, Ordering};

use windows_sys::Win32::Networking::WinSock::SOCKET;

const TABLE_SIZE: usize = 1024;
/// The number of entries that may hold a given socket.
const MAX_PROBES: usize = 16;

/// Socket numbers; 0 marks a vacant entry.
static TABLE: [AtomicUsize; TABLE_SIZE] = [const { AtomicUsize::new(0) }; TABLE_SIZE];

/// Returns the entries that may hold a socket. Socket numbers are multiples of 4.
fn probe_sequence(socket: SOCKET) -> impl Iterator<Item = &'static AtomicUsize> {
    (0..MAX_PROBES).map(move |step| &TABLE[((socket >> 2) + step) % TABLE_SIZE])
}

/// Records that the bind of a socket is deferred. Returns false if no entry is vacant.
pub fn insert(socket: SOCKET) -> bool {
    socket != 0
        && (contains(socket)
            || probe_sequence(socket).any(|entry| {
                entry.compare_exchange(0, socket, Ordering::AcqRel, Ordering::Relaxed).is_ok()
            }))
}

/// Returns whether the bind of a socket is deferred.
pub fn contains(socket: SOCKET) -> bool {
    socket != 0 && probe_sequence(socket).any(|entry| entry.load(Ordering::Acquire) == socket)
}

/// Removes a socket. Returns whether it was in the table. If several threads remove the same
/// socket, exactly one call returns true.
pub fn remove(socket: SOCKET) -> bool {
    socket != 0
        && probe_sequence(socket).any(|entry| {
            entry.compare_exchange(socket, 0, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn insert_fails_when_no_probed_entry_is_vacant() {
        let colliding_sockets: Vec<SOCKET> =
            (0..MAX_PROBES as SOCKET).map(|round| (round * TABLE_SIZE + 7) * 4).collect();
        assert!(colliding_sockets.iter().all(|socket| insert(*socket) && contains(*socket)));
        assert!(!insert((MAX_PROBES * TABLE_SIZE + 7) * 4));
        assert!(insert(colliding_sockets[3]), "a second insert takes no second entry");
        assert!(
            remove(colliding_sockets[3])
                && !remove(colliding_sockets[3])
                && !contains(colliding_sockets[3])
        );
        assert!(!insert(0) && !contains(0));
        assert!(
            colliding_sockets.iter().filter(|socket| remove(**socket)).count() == MAX_PROBES - 1
        );
    }
}
