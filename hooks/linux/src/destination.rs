//! Chooses the destination address of a connect(2) call or of a send.
//!
//! The hooks in `connect` and `send_messages` use this module. Before the original call, this
//! module may bind the socket, record a fact, and mark the socket.

use std::net::SocketAddr;

use libc::{c_int, sockaddr, socklen_t};
use vipool::rewrite::sockaddr::{self as sockaddr_bytes, Parsed};
use vipool::rewrite::{Connect, Outcome, Reason, Socket};

use crate::errno;
use crate::facts::PAIRED_SOCKETS;
use crate::hooked_process::{self, ProcessRewriter};
use crate::mark::{self, Mark};
use crate::sockaddr_buf::SockaddrBuf;
use crate::socket::{Fd, PresumedUnbound};

/// The action of a hook for a call that has a destination.
pub enum CallAction {
    /// Makes the call unchanged.
    PassThrough,
    /// Makes the call unchanged. If the call is connect(2), it disconnects the socket.
    Disconnect,
    /// Makes the call with this address. If `cleared_v6only` is set, this module has cleared
    /// `IPV6_V6ONLY` for the call.
    UseAddress { address: SockaddrBuf, cleared_v6only: bool },
    /// Does not make the call, and fails with this error number.
    Fail(c_int),
}

/// The kind of a call that has a destination.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum DestinationCall {
    /// connect(2).
    Connect,
    /// A send with `MSG_FASTOPEN`, which connects a stream.
    FastOpen,
    /// Any other send.
    Send,
}

impl DestinationCall {
    /// Returns the kind of a send with these flags.
    pub fn from_send_flags(flags: c_int) -> Self {
        if flags & libc::MSG_FASTOPEN != 0 { Self::FastOpen } else { Self::Send }
    }
}

/// Chooses the destination of a connect or a send, and binds the socket if necessary. Does not
/// change `errno`.
///
/// This is the fast path: for a datagram from a marked socket to an external destination, the hook
/// only reads the destination and the mark.
///
/// # Safety
/// The program passed `address` to a function that reads it. The memory may be unmapped or
/// protected.
#[inline(always)]
pub unsafe fn choose_destination(
    fd: c_int,
    address: *const sockaddr,
    length: socklen_t,
    call: DestinationCall,
) -> CallAction {
    let Some(process) = hooked_process::cached() else { return CallAction::PassThrough };
    // SAFETY: guaranteed by the caller.
    let Some(buffer) = (unsafe { SockaddrBuf::read(address, length) }) else {
        return CallAction::PassThrough;
    };
    let destination = match sockaddr_bytes::parse(buffer.bytes()) {
        Parsed::Inet(destination) => destination,
        Parsed::Unspecified(_) => return CallAction::Disconnect,
        Parsed::Other => return CallAction::PassThrough,
    };
    let is_external = process.is_known_external(destination.ip());
    let mark = if is_external && call == DestinationCall::Send {
        Mark::read(Fd(fd))
    } else {
        Mark::Unknown
    };
    if mark == Mark::Bound {
        return CallAction::PassThrough;
    }
    let saved_errno = errno::get();
    let may_presume_unbound =
        is_external && (call == DestinationCall::Connect || mark == Mark::Unmarked);
    let action =
        choose_destination_slow_path(Fd(fd), &buffer, destination, call, mark, may_presume_unbound);
    errno::set(saved_errno);
    action
}

/// The slow path of [`choose_destination`]. `may_presume_unbound` selects [`PresumedUnbound`],
/// which usually saves a call of getsockname(2).
#[inline(never)]
fn choose_destination_slow_path(
    fd: Fd,
    buffer: &SockaddrBuf,
    destination: SocketAddr,
    call: DestinationCall,
    mark: Mark,
    may_presume_unbound: bool,
) -> CallAction {
    let Some(process) = hooked_process::current() else { return CallAction::PassThrough };
    let rewriter = process.rewriter();
    if let Outcome::Rewritten(interface) = rewriter.multicast_interface(destination.ip()) {
        fd.set_multicast_interface(interface);
    }
    let presumed_unbound = PresumedUnbound::new(fd, destination);
    let socket: &dyn Socket = if may_presume_unbound { &presumed_unbound } else { &fd };
    let outcome = match call {
        DestinationCall::Connect => rewriter.connect(socket, destination),
        DestinationCall::FastOpen => rewriter.send(socket, destination, true),
        DestinationCall::Send => rewriter.send(socket, destination, false),
    };
    let rewritten_call = match outcome {
        Outcome::Rewritten(rewritten_call) => rewritten_call,
        Outcome::Refused(refusal) => return CallAction::Fail(errno::for_refusal(refusal)),
        Outcome::Passed(reason) => {
            if mark == Mark::Unmarked && reason == Reason::AlreadyBound {
                mark::set_if_bound(fd);
            }
            record_possible_pair(&rewriter, destination, call);
            return CallAction::PassThrough;
        }
    };
    match bind_source(&rewriter, fd, &rewritten_call, mark) {
        Ok(true) => {}
        // The bind failed, so the presumption may be wrong. Decide again with the socket's real
        // local address.
        Ok(false) if may_presume_unbound => {
            return choose_destination_slow_path(fd, buffer, destination, call, mark, false);
        }
        Ok(false) if mark == Mark::Unmarked => mark::set_if_bound(fd),
        Ok(false) => {}
        Err(error) => {
            if rewritten_call.clear_v6only {
                fd.set_option(libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1);
            }
            return CallAction::Fail(error);
        }
    }
    record_possible_pair(&rewriter, rewritten_call.destination, call);
    if rewritten_call.destination == destination {
        CallAction::PassThrough
    } else {
        CallAction::UseAddress {
            address: buffer.with_address(&rewritten_call.destination),
            cleared_v6only: rewritten_call.clear_v6only,
        }
    }
}

/// Binds the socket to the source that the rewriter chose. First clears `IPV6_V6ONLY` if necessary.
///
/// Returns `true` if the socket now has this source, or if the rewriter chose no source. Returns
/// `false` if the bind failed, but the program's call can continue. Returns an error number if that
/// call must fail.
fn bind_source(
    rewriter: &ProcessRewriter<'_>,
    fd: Fd,
    rewritten_call: &Connect,
    mark: Mark,
) -> Result<bool, c_int> {
    if rewritten_call.clear_v6only {
        fd.set_option(libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 0);
    }
    let Some(source) = rewritten_call.source else { return Ok(true) };
    let error = if rewritten_call.rebind {
        fd.rebind(source)
    } else {
        fd.bind(source, rewritten_call.defer_port)
    };
    match error {
        0 if mark == Mark::Unmarked => mark::set(fd),
        0 => {}
        // This host does not have the source address. Without `pass-when-missing`, the call can
        // continue only if the socket is already bound and `rebind` is not set.
        libc::EADDRNOTAVAIL
            if !rewriter.retries_original(source) && (rewritten_call.rebind || !fd.has_port()) =>
        {
            return Err(libc::EADDRNOTAVAIL);
        }
        _ => {}
    }
    Ok(error == 0)
}

/// Sets `IPV6_V6ONLY` again if the call that needed the cleared option has failed. While a
/// connection is still being established, the option must stay cleared. Does not change `errno`.
///
/// If the socket still has a port, as a bound UDP socket does, the option stays cleared, because
/// the kernel rejects the change.
pub fn restore_v6only_on_failure(fd: Fd, has_failed: bool) {
    let is_pending = [libc::EINPROGRESS, libc::EALREADY, libc::EINTR].contains(&errno::get());
    if has_failed && !is_pending {
        fd.set_option(libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1);
    }
}

/// Records [`PAIRED_SOCKETS`] if this call may connect two addresses of the session. A datagram
/// with a destination does not connect its socket, so it creates no pair.
#[inline]
fn record_possible_pair(
    rewriter: &ProcessRewriter<'_>,
    destination: SocketAddr,
    call: DestinationCall,
) {
    if call != DestinationCall::Send && rewriter.may_form_loopback_pair(destination) {
        PAIRED_SOCKETS.record();
    }
}
