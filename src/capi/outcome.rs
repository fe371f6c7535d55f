//! The outcome of a rewrite call: how a hook continues with a socket call.

use std::mem::MaybeUninit;
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
/// address. If the program binds a socket to the wildcard address and port 0, the hook handles the
/// calls on this socket as follows:
///
///  - bind: remember the socket if it is not bound (getsockname fails with WSAEINVAL) and the hook
///    has space to remember it. Otherwise bind it to `address` at once. A second bind of a
///    remembered socket fails with WSAEINVAL, without a rewrite call.
///  - connect, WSAConnect: forget the socket and follow vipool_rewrite_connect(). If the socket is
///    still unbound, connect and WSAConnect bind it.
///  - ConnectEx: forget the socket and follow vipool_rewrite_connect(). If the socket was
///    remembered and is still unbound, bind it to the wildcard address and port 0 before the call.
///    If it was not remembered, ignore VIPOOL_DO_BIND_FIRST, so that ConnectEx still fails with
///    WSAEINVAL if the program never bound the socket.
///  - listen, getsockname: forget the socket, call vipool_rewrite_listen() and bind the socket to
///    the address of the outcome. If the outcome is VIPOOL_PASSED, bind it to the wildcard address
///    and port 0 instead. Then make the call. For a socket that is not remembered, do not call
///    vipool_rewrite_listen(), so that the call still fails with WSAEINVAL if the program never
///    bound the socket.
///  - closesocket: forget the socket.
pub const VIPOOL_DO_DEFER: u32 = 2;
/// vipool_outcome.flags: bind the socket to `bind` (port 0) first. If the bind fails with
/// EADDRNOTAVAIL or WSAEADDRNOTAVAIL, vipool_rewrite_is_retry_allowed() decides whether the call
/// continues or fails with this error. After any other error of the bind, continue with the call.
pub const VIPOOL_DO_BIND_FIRST: u32 = 4;
/// vipool_outcome.flags, with VIPOOL_DO_BIND_FIRST: the kernel chooses the port at the
/// connect and not at the bind, so that connections to two destinations can share one port. On
/// Linux, set IP_BIND_ADDRESS_NO_PORT before the bind. Clear the option after the bind unless the
/// program had set it: if the connect fails, the program can bind the socket itself, and that bind
/// must choose a port at once.
pub const VIPOOL_DO_DEFER_PORT: u32 = 8;
/// vipool_outcome.flags, with VIPOOL_DO_BIND_FIRST: move the socket from the wildcard address to
/// the IP address in `bind`, and keep the port of the socket. Only with
/// VIPOOL_REWRITER_REBIND_DATAGRAMS. First connect the socket to AF_UNSPEC, which releases a port
/// that the kernel chose. Then bind the socket to the IP address in `bind` and to its old port. A
/// port that the program chose is not released, so the bind fails and the call continues. Leave a
/// socket with SO_BINDTODEVICE as it is, because the connect to AF_UNSPEC resets this option. If
/// the bind fails after the release, bind the socket to the wildcard address and its port again.
pub const VIPOOL_DO_REBIND: u32 = 16;

/// The outcome of a rewrite call.
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

/// An address without a port is written with port 0.
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
    /// Writes an outcome to `out`, whose bytes may be uninitialised.
    #[inline]
    pub(crate) fn set<T: WriteTo>(out: &mut MaybeUninit<Self>, outcome: &Outcome<T>) {
        let (kind, reason, error) = outcome_numbers(outcome);
        let out = out.write(Self {
            size: size_of::<Self>(),
            kind,
            reason,
            error,
            flags: 0,
            address: vipool_sockaddr::NONE,
            bind: vipool_sockaddr::NONE,
            interface_index: 0,
            reserved: 0,
        });
        if let Outcome::Rewritten(value) = outcome {
            value.write_to(out);
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
