//! What becomes of a socket call, as the caller is told of it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::address::vipool_sockaddr;
use super::layout::layout;
use crate::rewrite::{Bind, Connect, Outcome, Refusal};

/// What becomes of a call.
#[repr(u32)]
#[derive(Clone, Copy, Debug)]
pub enum vipool_outcome_kind {
    /// The call goes on with `address` in place of what the program gave (or is shown), after what
    /// `flags` and `bind` say.
    VIPOOL_REWRITTEN = 1,
    /// The call goes on exactly as the program made it; `code` is the vipool_reason.
    VIPOOL_PASSED = 2,
    /// The call is not made: the program gets `error`; `code` is the vipool_refusal.
    VIPOOL_REFUSED = 3,
}

/// Of vipool_outcome.flags: clear IPV6_V6ONLY first (and set it again if the call fails; one that
/// goes on, EINPROGRESS or WSAEWOULDBLOCK, did not).
pub const VIPOOL_DO_CLEAR_V6ONLY: u32 = 1;
/// Of vipool_outcome.flags: do not bind now but report success, and remember the socket until its
/// destination is known. Only with VIPOOL_REWRITER_DEFER_WILDCARD, for Windows: ConnectEx wants a
/// socket that is bound, and one that is bound to a virtual IP reaches no loopback address there.
/// A socket that was bound to the wildcard address without a port is then, in each call:
///
///  - bind: remembered if it is not bound yet (getsockname answers WSAEINVAL) and there is room to
///    remember it; otherwise bound to `address` at once. A second bind of a remembered socket fails
///    with WSAEINVAL, without asking.
///  - connect, WSAConnect: forgotten, and what vipool_rewrite_connect() says is done; the call binds
///    what is still unbound.
///  - ConnectEx: the same, and if it is still unbound it is bound to the wildcard address and port 0
///    before the call. Of a socket that is not remembered VIPOOL_DO_BIND_FIRST is ignored: ConnectEx
///    answers WSAEINVAL if it was never bound.
///  - listen, getsockname: forgotten, and bound to what vipool_rewrite_listen() says, or to the
///    wildcard address and port 0 if that passes; then the call is made. Of a socket that is not
///    remembered nothing is asked: if it was never bound they answer WSAEINVAL.
///  - closesocket: forgotten.
pub const VIPOOL_DO_DEFER: u32 = 2;
/// Of vipool_outcome.flags: bind the socket to `bind` (port 0) first. If that fails, go on all the
/// same, unless the address is on no interface and vipool_rewrite_retries() says that the program
/// gets the error.
pub const VIPOOL_DO_BIND_FIRST: u32 = 4;
/// Of vipool_outcome.flags, with VIPOOL_DO_BIND_FIRST: that bind leaves the choice of the port to
/// the connect, so that two destinations can share one: on Linux set IP_BIND_ADDRESS_NO_PORT before
/// it, and clear it after it unless the program had set it: a bind of the program's own chooses a
/// port at once.
pub const VIPOOL_DO_LATE_PORT: u32 = 8;

/// What becomes of a call, and how it goes on.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct vipool_outcome {
    /// sizeof(vipool_outcome), set by the caller.
    pub size: usize,
    /// vipool_outcome_kind.
    pub kind: u32,
    /// With VIPOOL_PASSED a vipool_reason, with VIPOOL_REFUSED a vipool_refusal; otherwise 0.
    pub code: u32,
    /// With VIPOOL_REFUSED, what errno (on Windows WSAGetLastError) says; otherwise 0.
    pub error: i32,
    /// With VIPOOL_REWRITTEN, VIPOOL_DO_...; otherwise 0.
    pub flags: u32,
    /// With VIPOOL_REWRITTEN, the address to go on with, of the same family as the program's.
    pub address: vipool_sockaddr,
    /// With VIPOOL_DO_BIND_FIRST, the address to bind first.
    pub bind: vipool_sockaddr,
}
layout!(vipool_outcome { size, kind, code, error, flags, address, bind });

/// EADDRNOTAVAIL of the system's (errno.h, winsock2.h).
const ADDRESS_NOT_AVAILABLE: i32 = if cfg!(windows) {
    10049
} else if cfg!(target_vendor = "apple") {
    49
} else {
    99
};

/// What a call can be rewritten to, as the caller is told of it.
pub(crate) trait Told {
    /// Sets the address, and what is to be done beside.
    fn tell(&self, out: &mut vipool_outcome);
}

impl Told for SocketAddr {
    #[inline]
    fn tell(&self, out: &mut vipool_outcome) {
        out.address.set(self);
    }
}

/// An address without a port.
impl Told for IpAddr {
    #[inline]
    fn tell(&self, out: &mut vipool_outcome) {
        SocketAddr::new(*self, 0).tell(out);
    }
}

impl Told for Ipv4Addr {
    #[inline]
    fn tell(&self, out: &mut vipool_outcome) {
        IpAddr::V4(*self).tell(out);
    }
}

impl Told for Bind {
    #[inline]
    fn tell(&self, out: &mut vipool_outcome) {
        self.address.tell(out);
        if self.clear_v6only {
            out.flags |= VIPOOL_DO_CLEAR_V6ONLY;
        }
        if self.defer {
            out.flags |= VIPOOL_DO_DEFER;
        }
    }
}

impl Told for Connect {
    #[inline]
    fn tell(&self, out: &mut vipool_outcome) {
        self.destination.tell(out);
        if self.clear_v6only {
            out.flags |= VIPOOL_DO_CLEAR_V6ONLY;
        }
        if let Some(ip) = self.source {
            out.flags |= VIPOOL_DO_BIND_FIRST;
            if self.defer_port {
                out.flags |= VIPOOL_DO_LATE_PORT;
            }
            out.bind.set(&SocketAddr::new(ip, 0));
        }
    }
}

impl vipool_outcome {
    /// Tells what becomes of a call.
    #[inline]
    pub(crate) fn tell<T: Told>(&mut self, outcome: &Outcome<T>) {
        let (kind, code, error) = numbers(outcome);
        (self.kind, self.code, self.error, self.flags) = (kind, code, error, 0);
        (self.address.length, self.bind.length) = (0, 0);
        if let Outcome::Rewritten(value) = outcome {
            value.tell(self);
        }
    }
}

/// The kind of an outcome, why it is so, and the error of the system's.
#[inline]
pub(crate) fn numbers<T>(outcome: &Outcome<T>) -> (u32, u32, i32) {
    match outcome {
        Outcome::Rewritten(_) => (vipool_outcome_kind::VIPOOL_REWRITTEN as u32, 0, 0),
        Outcome::Passed(reason) => {
            (vipool_outcome_kind::VIPOOL_PASSED as u32, reason.number().into(), 0)
        }
        Outcome::Refused(refusal) => {
            let error = match refusal {
                Refusal::OtherSessionAddress => ADDRESS_NOT_AVAILABLE,
            };
            (vipool_outcome_kind::VIPOOL_REFUSED as u32, refusal.number().into(), error)
        }
    }
}
