//! The outcome of a rewrite call: how a hook continues with a socket call.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::address::vipool_sockaddr;
use super::layout::layout;
use super::reason::refusal_number;
use crate::rewrite::{Bind, Connect, Outcome, PacketInfo, Refusal};

/// How a socket call continues.
#[repr(u32)]
#[derive(Clone, Copy, Debug)]
pub enum vipool_outcome_kind {
    /// Make the call with `address` instead of the address of the program, or return `address` to
    /// the program. `flags` lists further steps.
    VIPOOL_REWRITTEN = 1,
    /// Make the call exactly as the program made it, because of `reason`.
    VIPOOL_PASSED = 2,
    /// Do not make the call: it fails with `error`, because of `reason`.
    VIPOOL_REFUSED = 3,
}

/// vipool_outcome.flags: clear IPV6_V6ONLY first. Set it again if the call fails; EINPROGRESS and
/// WSAEWOULDBLOCK are not failures.
pub const VIPOOL_DO_CLEAR_V6ONLY: u32 = 1;
/// vipool_outcome.flags: do not bind now, but report success and remember the socket until its
/// destination is known. Only with VIPOOL_REWRITER_DEFER_WILDCARD, for Windows: ConnectEx requires
/// a bound socket, and on Windows a socket that is bound to a virtual IP cannot reach a loopback
/// address. The hook then handles a socket that the program bound to the wildcard address without a
/// port:
///
///  - bind: remember the socket if it is not bound (getsockname fails with WSAEINVAL) and the hook
///    has space to remember it. Otherwise bind it to `address` at once. A second bind of a
///    remembered socket fails with WSAEINVAL, without a rewrite call.
///  - connect, WSAConnect: forget the socket and follow vipool_rewrite_connect(). The call itself
///    binds a socket that is still unbound.
///  - ConnectEx: the same, but before the call, bind a remembered socket that is still unbound to
///    the wildcard address and port 0. Ignore VIPOOL_DO_BIND_FIRST for a socket that is not
///    remembered: ConnectEx fails with WSAEINVAL if the socket was never bound.
///  - listen, getsockname: forget the socket and bind it to the address of vipool_rewrite_listen(),
///    or to the wildcard address and port 0 if the rewrite call passes; then make the call. Make no
///    rewrite call for a socket that is not remembered: the call fails with WSAEINVAL if the socket
///    was never bound.
///  - closesocket: forget the socket.
pub const VIPOOL_DO_DEFER: u32 = 2;
/// vipool_outcome.flags: bind the socket to `bind` (port 0) first. If the bind fails, continue
/// anyway, unless the address is on no interface and vipool_rewrite_is_retry_allowed() does not
/// allow the call to continue.
pub const VIPOOL_DO_BIND_FIRST: u32 = 4;
/// vipool_outcome.flags, with VIPOOL_DO_BIND_FIRST: the connect chooses the port, so that
/// connections to two destinations can share one port. On Linux, set IP_BIND_ADDRESS_NO_PORT before
/// the bind. Clear the option after the bind unless the program had set it, because a bind of the
/// program must choose a port at once.
pub const VIPOOL_DO_DEFER_PORT: u32 = 8;
/// vipool_outcome.flags, with VIPOOL_DO_BIND_FIRST: the socket is bound to the wildcard address and
/// a port. Only with VIPOOL_REWRITER_REBIND_DATAGRAMS. Connect the socket to AF_UNSPEC, which
/// releases a port that the kernel chose, then bind it to `bind` with the same port. A port that
/// the program chose is not released, so the bind fails and the call continues. Leave a socket with
/// SO_BINDTODEVICE as it is, because AF_UNSPEC resets this option. If the bind fails after the
/// release, bind the socket to the wildcard address and its port again.
pub const VIPOOL_DO_REBIND: u32 = 16;

/// How a socket call continues.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct vipool_outcome {
    /// sizeof(vipool_outcome), set by the caller.
    pub size: usize,
    /// vipool_outcome_kind.
    pub kind: u32,
    /// With VIPOOL_PASSED and VIPOOL_REFUSED: vipool_reason. Otherwise 0.
    pub reason: u32,
    /// With VIPOOL_REFUSED: the value for errno or WSASetLastError(). Otherwise 0.
    pub error: i32,
    /// With VIPOOL_REWRITTEN: VIPOOL_DO_... Otherwise 0.
    pub flags: u32,
    /// With VIPOOL_REWRITTEN: the address for the call or for the program.
    pub address: vipool_sockaddr,
    /// With VIPOOL_DO_BIND_FIRST: the address to bind first.
    pub bind: vipool_sockaddr,
    /// With VIPOOL_REWRITTEN, for packet information: the index of the interface. Otherwise 0.
    pub interface_index: u32,
    /// Reserved: zero.
    pub reserved: u32,
}
layout!(vipool_outcome {
    size,
    kind,
    reason,
    error,
    flags,
    address,
    bind,
    interface_index,
    reserved,
});

/// The system's EADDRNOTAVAIL (errno.h) or WSAEADDRNOTAVAIL (winsock2.h).
const ADDRESS_NOT_AVAILABLE: i32 = if cfg!(windows) {
    10049
} else if cfg!(target_vendor = "apple") {
    49
} else {
    99
};

/// A value of [`Outcome::Rewritten`] that can be written to a [`vipool_outcome`].
pub(crate) trait WriteTo {
    /// Sets the members that the value determines: addresses, flags and the interface.
    fn write_to(&self, out: &mut vipool_outcome);
}

impl WriteTo for SocketAddr {
    #[inline]
    fn write_to(&self, out: &mut vipool_outcome) {
        out.address.set(self);
    }
}

/// An address without a port.
impl WriteTo for IpAddr {
    #[inline]
    fn write_to(&self, out: &mut vipool_outcome) {
        SocketAddr::new(*self, 0).write_to(out);
    }
}

impl WriteTo for Ipv4Addr {
    #[inline]
    fn write_to(&self, out: &mut vipool_outcome) {
        IpAddr::V4(*self).write_to(out);
    }
}

impl WriteTo for PacketInfo {
    #[inline]
    fn write_to(&self, out: &mut vipool_outcome) {
        self.address.write_to(out);
        out.interface_index = self.interface;
    }
}

impl WriteTo for Bind {
    #[inline]
    fn write_to(&self, out: &mut vipool_outcome) {
        self.address.write_to(out);
        if self.clear_v6only {
            out.flags |= VIPOOL_DO_CLEAR_V6ONLY;
        }
        if self.defer {
            out.flags |= VIPOOL_DO_DEFER;
        }
    }
}

impl WriteTo for Connect {
    #[inline]
    fn write_to(&self, out: &mut vipool_outcome) {
        self.destination.write_to(out);
        if self.clear_v6only {
            out.flags |= VIPOOL_DO_CLEAR_V6ONLY;
        }
        if let Some(ip) = self.source {
            out.flags |= VIPOOL_DO_BIND_FIRST;
            if self.defer_port {
                out.flags |= VIPOOL_DO_DEFER_PORT;
            }
            if self.rebind {
                out.flags |= VIPOOL_DO_REBIND;
            }
            out.bind.set(&SocketAddr::new(ip, 0));
        }
    }
}

impl vipool_outcome {
    /// Sets all members but the size.
    #[inline]
    pub(crate) fn set<T: WriteTo>(&mut self, outcome: &Outcome<T>) {
        let (kind, reason, error) = outcome_numbers(outcome);
        (self.kind, self.reason, self.error, self.flags) = (kind, reason, error, 0);
        (self.address.length, self.bind.length) = (0, 0);
        (self.interface_index, self.reserved) = (0, 0);
        if let Outcome::Rewritten(value) = outcome {
            value.write_to(self);
        }
    }
}

/// Returns the kind, the reason and the system error of an outcome.
#[inline]
pub(crate) fn outcome_numbers<T>(outcome: &Outcome<T>) -> (u32, u32, i32) {
    match outcome {
        Outcome::Rewritten(_) => (vipool_outcome_kind::VIPOOL_REWRITTEN as u32, 0, 0),
        Outcome::Passed(reason) => {
            (vipool_outcome_kind::VIPOOL_PASSED as u32, reason.number().into(), 0)
        }
        Outcome::Refused(refusal) => {
            let error = match refusal {
                Refusal::OtherSessionAddress | Refusal::SharedIpv6Wildcard => ADDRESS_NOT_AVAILABLE,
                Refusal::ListenersUnknown { error } => *error,
            };
            (vipool_outcome_kind::VIPOOL_REFUSED as u32, refusal_number(*refusal), error)
        }
    }
}
