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

const PLACES: usize = 1024;
/// How far from its own place a socket may be.
const REACH: usize = 16;

static TABLE: [AtomicUsize; PLACES] = [const { AtomicUsize::new(0) }; PLACES];

/// The places where a socket may be. Handles are multiples of 4.
fn places(s: SOCKET) -> impl Iterator<Item = &'static AtomicUsize> {
    (0..REACH).map(move |step| &TABLE[((s >> 2) + step) % PLACES])
}

/// Notes a socket; false if there is no room.
pub fn insert(s: SOCKET) -> bool {
    s != 0
        && (contains(s)
            || places(s).any(|place| {
                place.compare_exchange(0, s, Ordering::AcqRel, Ordering::Relaxed).is_ok()
            }))
}

/// Whether the socket's bind was put off.
pub fn contains(s: SOCKET) -> bool {
    s != 0 && places(s).any(|place| place.load(Ordering::Acquire) == s)
}

/// Forgets a socket; whether it was there. Of two threads one is told so.
pub fn remove(s: SOCKET) -> bool {
    s != 0
        && places(s)
            .any(|place| place.compare_exchange(s, 0, Ordering::AcqRel, Ordering::Relaxed).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_neighbourhood_is_said_to_be_full() {
        let near: Vec<SOCKET> = (0..REACH as SOCKET).map(|i| (i * PLACES + 7) * 4).collect();
        assert!(near.iter().all(|s| insert(*s) && contains(*s)));
        assert!(!insert((REACH * PLACES + 7) * 4));
        assert!(insert(near[3]), "what is there is there once");
        assert!(remove(near[3]) && !remove(near[3]) && !contains(near[3]));
        assert!(!insert(0) && !contains(0));
        assert!(near.iter().filter(|s| remove(**s)).count() == REACH - 1);
    }
}
