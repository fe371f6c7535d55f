//! The common part of calls with a destination address.

use std::net::SocketAddr;

use vipool::rewrite::{Connect, LiveSystem, Outcome, Rewriter};
use windows_sys::Win32::Networking::WinSock::{
    SOCKADDR, SOCKET, WSA_IO_PENDING, WSAEALREADY, WSAENOBUFS, WSAEWOULDBLOCK,
};
use windows_sys::Win32::System::IO::OVERLAPPED;

use super::bind::bind_to_source;
use crate::context::rewriter;
use crate::last_error::{LastError, error_of_refusal, last_error, set_last_error};
use crate::socket::{SockaddrBuf, Winsock, read_sockaddr};
use crate::{address_table, deferred};

/// The destination that the hook layer passes to the system.
pub enum Destination {
    /// The address that the program passed.
    Unchanged,
    /// The address that replaces the program's address. If `cleared_v6only` is set, the hook layer
    /// has cleared `IPV6_V6ONLY` for the call.
    Rewritten { address: SockaddrBuf, cleared_v6only: bool },
    /// The call must fail. The last error is set.
    Failed,
}

impl Destination {
    /// Returns the address and its length for the original call. `name` and `length` are the
    /// arguments that the program passed. A rewritten address is valid as long as `self`. Returns
    /// `None` if the call must fail.
    pub fn sockaddr(&self, name: *const SOCKADDR, length: i32) -> Option<(*const SOCKADDR, i32)> {
        match self {
            Destination::Unchanged => Some((name, length)),
            Destination::Rewritten { address, .. } => Some((address.as_ptr(), address.length())),
            Destination::Failed => None,
        }
    }

    /// Returns the same as [`Destination::sockaddr`] for a call with this `overlapped` argument. For
    /// an overlapped call, a rewritten address stays valid after the call has returned. If there is
    /// no memory for it, the call must fail with WSAENOBUFS.
    pub fn sockaddr_of_overlapped(
        &self,
        name: *const SOCKADDR,
        length: i32,
        overlapped: *const OVERLAPPED,
    ) -> Option<(*const SOCKADDR, i32)> {
        match self {
            Destination::Rewritten { address, .. } if !overlapped.is_null() => {
                let Some(address) = address_table::intern(address) else {
                    set_last_error(WSAENOBUFS);
                    return None;
                };
                Some((address.as_ptr(), address.length()))
            }
            _ => self.sockaddr(name, length),
        }
    }

    /// Sets `IPV6_V6ONLY` again if the hook layer cleared it and the call then failed. While a
    /// connection is not complete yet, the option must stay cleared. Preserves the last error.
    pub fn restore_v6only_on_failure(&self, socket: SOCKET, has_failed: bool) {
        let Destination::Rewritten { cleared_v6only: true, .. } = self else { return };
        let saved_error = LastError::save();
        if has_failed && ![WSAEWOULDBLOCK, WSAEALREADY, WSA_IO_PENDING].contains(&last_error()) {
            Winsock(socket).set_v6only(true);
        }
        saved_error.restore();
    }
}

/// Rewrites the destination address if necessary, and prepares the socket for the call. Preserves
/// the last error unless the call must fail.
pub fn prepare_destination(
    socket: SOCKET,
    decide: impl FnOnce(&Rewriter<'_, LiveSystem<'_>>, Winsock, SocketAddr) -> Outcome<Connect>,
    name: *const SOCKADDR,
    length: i32,
) -> Destination {
    let saved_error = LastError::save();
    let prepare = || {
        let (rewriter, requested) = (rewriter()?, read_sockaddr(name, length)?);
        if let Outcome::Rewritten(interface) = rewriter.multicast_interface(requested.ip()) {
            Winsock(socket).set_multicast_interface(interface);
        }
        match decide(&rewriter, Winsock(socket), requested) {
            Outcome::Passed(_) => None,
            Outcome::Refused(refusal) => {
                set_last_error(error_of_refusal(refusal));
                Some(Destination::Failed)
            }
            Outcome::Rewritten(connect) => {
                Some(apply_decision(&rewriter, Winsock(socket), requested, &connect))
            }
        }
    };
    let destination = prepare().unwrap_or(Destination::Unchanged);
    if !matches!(destination, Destination::Failed) {
        saved_error.restore();
    }
    destination
}

fn apply_decision(
    rewriter: &Rewriter<'_, LiveSystem<'_>>,
    socket: Winsock,
    requested: SocketAddr,
    connect: &Connect,
) -> Destination {
    if connect.clear_v6only {
        socket.set_v6only(false);
    }
    if let Some(source) = connect.source {
        deferred::remove(socket.0);
        if !bind_to_source(rewriter, socket, source) {
            if connect.clear_v6only {
                let saved_error = LastError::save();
                socket.set_v6only(true);
                saved_error.restore();
            }
            return Destination::Failed;
        }
    }
    if connect.destination == requested {
        Destination::Unchanged
    } else {
        Destination::Rewritten {
            address: SockaddrBuf::new(connect.destination),
            cleared_v6only: connect.clear_v6only,
        }
    }
}
