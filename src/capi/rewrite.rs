//! The rewrite functions: one for each kind of socket call.

use std::ffi::c_void;
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, SocketAddr};

use super::address::sockaddr_bytes;
use super::error::silent_status;
use super::handle::borrow_shared;
use super::outcome::{WriteTo, vipool_outcome};
use super::output::check_out_silent;
use super::rewriter::vipool_rewriter;
use super::socket::{CallerSocket, call_get_address, vipool_get_address_fn, vipool_socket};
use super::status::vipool_status;
use crate::rewrite::sockaddr::{self, Parsed};
use crate::rewrite::{Outcome, Reason, Socket};

/// Decides about a call and writes the outcome.
///
/// # Safety
/// `rewriter` is NULL or a live handle. `out` is NULL or valid as [`check_out_silent`] requires.
#[inline]
pub(crate) unsafe fn decide<T: WriteTo>(
    rewriter: *const vipool_rewriter,
    out: *mut vipool_outcome,
    decision: impl FnOnce(&vipool_rewriter) -> Result<Outcome<T>, vipool_status>,
) -> vipool_status {
    silent_status(|| {
        // SAFETY: the caller guarantees the handle.
        let rewriter = unsafe { borrow_shared(rewriter) }?;
        // SAFETY: the caller guarantees the struct.
        let out = unsafe { check_out_silent(out) }?;
        let outcome = decision(rewriter)?;
        out.fill(|out| vipool_outcome::set(out, &outcome));
        Ok(())
    })
}

/// Decides about a call on a socket.
///
/// # Safety
/// As for [`decide`] and [`CallerSocket::new`].
#[inline(always)]
pub(crate) unsafe fn decide_for_socket<T: WriteTo>(
    rewriter: *const vipool_rewriter,
    socket: *const vipool_socket,
    out: *mut vipool_outcome,
    decision: impl FnOnce(&vipool_rewriter, &CallerSocket) -> Result<Outcome<T>, vipool_status>,
) -> vipool_status {
    let decision = |rewriter: &vipool_rewriter| {
        let mut storage = MaybeUninit::uninit();
        // SAFETY: the caller guarantees the struct.
        let socket = unsafe { CallerSocket::new(socket, &mut storage) }?;
        let outcome = decision(rewriter, &socket)?;
        socket.check_callback_numbers()?;
        Ok(outcome)
    };
    // SAFETY: the caller guarantees handle and struct.
    unsafe { decide(rewriter, out, decision) }
}

/// Parses an address of the program. The kernel rejects an address that is too short or too long,
/// so a call with such an address passes.
///
/// # Safety
/// `address` is NULL or valid for reads of `length` bytes.
#[inline]
pub(crate) unsafe fn parse_address(
    address: *const c_void,
    length: u32,
) -> Result<Parsed, vipool_status> {
    // SAFETY: the caller guarantees the bytes.
    unsafe { sockaddr_bytes(address, length) }.map(sockaddr::parse)
}

/// Decides about bind.
///
/// A bind to an address that is neither IPv4 nor IPv6 passes. On an IPv4 socket, AF_UNSPEC with
/// 0.0.0.0 counts as IPv4.
///
/// Parameters:
/// - `rewriter`: the rewriter.
/// - `socket`: the socket.
/// - `address`, `length`: the address of the program.
/// - `out`: receives the outcome.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_UNKNOWN_FIELD,
/// VIPOOL_ERR_KIND. After an error, the hook makes the call as the program made it.
///
/// Threads: any; signal-safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_rewrite_bind(
    rewriter: *const vipool_rewriter,
    socket: *const vipool_socket,
    address: *const c_void,
    length: u32,
    out: *mut vipool_outcome,
) -> vipool_status {
    let decision = |rewriter: &vipool_rewriter, socket: &CallerSocket| {
        // SAFETY: the caller guarantees the bytes.
        let address = match unsafe { parse_address(address, length) }? {
            Parsed::Inet(address) => address,
            // On an IPv4 socket the kernel treats AF_UNSPEC with 0.0.0.0 as the wildcard address.
            Parsed::Unspecified(Some(port))
                if socket.local_address().is_some_and(|address| address.is_ipv4()) =>
            {
                SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port)
            }
            Parsed::Unspecified(_) | Parsed::Other => {
                return Ok(Outcome::Passed(Reason::NotInet));
            }
        };
        Ok(rewriter.for_call().bind(socket, address))
    };
    // SAFETY: the caller guarantees handle and structs.
    unsafe { decide_for_socket(rewriter, socket, out, decision) }
}

/// Decides about listen.
///
/// On an unbound socket, listen would bind the socket to the wildcard address. With
/// VIPOOL_REWRITTEN, bind the socket to `out->address` first. If this bind fails with
/// EADDRNOTAVAIL, vipool_rewrite_is_retry_allowed() decides whether to call listen or to fail with
/// this error. After any other error of the bind, call listen.
///
/// On Windows, call this function only for sockets whose bind was deferred (VIPOOL_DO_DEFER). For
/// any other unbound socket, listen fails with WSAEINVAL, as without a hook.
///
/// Parameters:
/// - `rewriter`: the rewriter.
/// - `socket`: the socket.
/// - `out`: receives the outcome.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_UNKNOWN_FIELD,
/// VIPOOL_ERR_KIND. After an error, the hook makes the call as the program made it.
///
/// Threads: any; signal-safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_rewrite_listen(
    rewriter: *const vipool_rewriter,
    socket: *const vipool_socket,
    out: *mut vipool_outcome,
) -> vipool_status {
    let decision =
        |rewriter: &vipool_rewriter, socket: &CallerSocket| Ok(rewriter.for_call().listen(socket));
    // SAFETY: the caller guarantees handle and structs.
    unsafe { decide_for_socket(rewriter, socket, out, decision) }
}

/// Decides about connect, WSAConnect and ConnectEx, for TCP and UDP.
///
/// Parameters:
/// - `rewriter`: the rewriter.
/// - `socket`: the socket.
/// - `address`, `length`: the destination.
/// - `out`: receives the outcome.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_UNKNOWN_FIELD,
/// VIPOOL_ERR_KIND. After an error, the hook makes the call as the program made it.
///
/// Threads: any; signal-safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_rewrite_connect(
    rewriter: *const vipool_rewriter,
    socket: *const vipool_socket,
    address: *const c_void,
    length: u32,
    out: *mut vipool_outcome,
) -> vipool_status {
    let decision = |rewriter: &vipool_rewriter, socket: &CallerSocket| {
        // SAFETY: the caller guarantees the bytes.
        Ok(match unsafe { parse_address(address, length) }? {
            Parsed::Inet(destination) => rewriter.for_call().connect(socket, destination),
            Parsed::Unspecified(_) | Parsed::Other => Outcome::Passed(Reason::NotInet),
        })
    };
    // SAFETY: the caller guarantees handle and structs.
    unsafe { decide_for_socket(rewriter, socket, out, decision) }
}

/// Decides about sendto, sendmsg, WSASendTo and WSASendMsg with a destination.
///
/// A call without a destination needs no decision.
///
/// Parameters:
/// - `rewriter`: the rewriter.
/// - `socket`: the socket.
/// - `address`, `length`: the destination.
/// - `fast_open`: 1 if the call has the flag MSG_FASTOPEN, which opens a stream. Otherwise 0.
/// - `out`: receives the outcome.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_UNKNOWN_FIELD,
/// VIPOOL_ERR_KIND. After an error, the hook makes the call as the program made it.
///
/// Threads: any; signal-safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_rewrite_send(
    rewriter: *const vipool_rewriter,
    socket: *const vipool_socket,
    address: *const c_void,
    length: u32,
    fast_open: u32,
    out: *mut vipool_outcome,
) -> vipool_status {
    let decision = |rewriter: &vipool_rewriter, socket: &CallerSocket| {
        // SAFETY: the caller guarantees the bytes.
        Ok(match unsafe { parse_address(address, length) }? {
            Parsed::Inet(destination) => {
                rewriter.for_call().send(socket, destination, fast_open != 0)
            }
            Parsed::Unspecified(_) | Parsed::Other => Outcome::Passed(Reason::NotInet),
        })
    };
    // SAFETY: the caller guarantees handle and structs.
    unsafe { decide_for_socket(rewriter, socket, out, decision) }
}

/// Decides about an address that the program receives from the kernel.
///
/// Use this function for getsockname, getpeername, accept, accept4, WSAAccept, AcceptEx, and for
/// the source of recvfrom, recvmsg, recvmmsg, WSARecvFrom and WSARecvMsg.
///
/// Parameters:
/// - `rewriter`: the rewriter.
/// - `address`, `length`: the address of one end of a socket, as the kernel reports it.
/// - `get_other_end`, `context`: the callback that returns the address of the other end. For a
///   received datagram, this is the local address of the socket. The library calls the callback
///   only if the outcome depends on the other end. May be NULL.
/// - `out`: receives the outcome. With VIPOOL_REWRITTEN the program gets `out->address`.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_UNKNOWN_FIELD. After an error, the
/// hook does not change the address.
///
/// Threads: any; signal-safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_rewrite_visible_address(
    rewriter: *const vipool_rewriter,
    address: *const c_void,
    length: u32,
    get_other_end: vipool_get_address_fn,
    context: *mut c_void,
    out: *mut vipool_outcome,
) -> vipool_status {
    let decision = |rewriter: &vipool_rewriter| {
        // SAFETY: the caller guarantees bytes, callback and context.
        unsafe { visible_address(rewriter, address, length, get_other_end, context) }
    };
    // SAFETY: the caller guarantees handle and struct.
    unsafe { decide(rewriter, out, decision) }
}

/// Returns the outcome of `vipool_rewrite_visible_address`.
///
/// The function is not inlined. If it were inlined, the compiler would split the address into parts
/// and join them again where the outcome is written, which costs more than a call.
///
/// # Safety
/// `address` is NULL or valid for reads of `length` bytes. `get_other_end` may be called with this
/// context.
#[inline(never)]
unsafe fn visible_address(
    rewriter: &vipool_rewriter,
    address: *const c_void,
    length: u32,
    get_other_end: vipool_get_address_fn,
    context: *mut c_void,
) -> Result<Outcome<SocketAddr>, vipool_status> {
    // The callback may change the bytes of the address, so no reference to them is a parameter.
    // SAFETY: the caller guarantees the bytes.
    Ok(match unsafe { parse_address(address, length) }? {
        Parsed::Inet(address) => rewriter.for_display().visible_address(address, || {
            // SAFETY: the caller guarantees callback and context.
            unsafe { call_get_address(get_other_end, context) }
        }),
        Parsed::Unspecified(_) | Parsed::Other => Outcome::Passed(Reason::NotInet),
    })
}
