//! A call for each kind of socket call: what becomes of its address.

use std::ffi::c_void;
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, SocketAddr};

use super::address::{sockaddr_bytes, vipool_ip};
use super::decision::{Told, vipool_outcome};
use super::handle::shared;
use super::layout::{check_out_quietly, fill, in_place_quietly};
use super::outcome::quiet;
use super::rewriter::vipool_rewriter;
use super::socket::{Asked, ask_address, vipool_ask_address_fn, vipool_socket};
use super::status::vipool_status::{self, *};
use crate::rewrite::sockaddr::{self, Parsed};
use crate::rewrite::{Outcome, Reason, Socket};

/// What every rewrite call does: reads its arguments, decides, writes the outcome.
///
/// # Safety
/// The pointers are NULL or as the header wants them.
#[inline]
pub(crate) unsafe fn decide<T: Told>(
    rewriter: *const vipool_rewriter,
    out: *mut vipool_outcome,
    decision: impl FnOnce(&vipool_rewriter) -> Result<Outcome<T>, vipool_status>,
) -> vipool_status {
    let decide = || {
        // SAFETY: the caller's promise.
        let rewriter = unsafe { shared(rewriter) }?;
        // SAFETY: the caller's promise.
        unsafe { check_out_quietly(out) }?;
        let outcome = decision(rewriter)?;
        // SAFETY: checked above.
        unsafe { fill(out, |place| place.tell(&outcome)) };
        Ok(())
    };
    quiet(|| decide().err().unwrap_or(VIPOOL_OK))
}

/// An address of the program's. What is no IPv4 or IPv6 address, too short or too long is for the
/// kernel to judge: the call passes.
///
/// # Safety
/// `address` is NULL or valid for reads of `length` bytes.
#[inline]
unsafe fn parse(address: *const c_void, length: u32) -> Result<Parsed, vipool_status> {
    // SAFETY: the caller's promise.
    unsafe { sockaddr_bytes(address, length) }.map(sockaddr::parse)
}

/// bind: the program binds `socket` to `address`.
///
/// Errors of this and all vipool_rewrite_ calls: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE,
/// VIPOOL_ERR_UNKNOWN_FIELD; then the call goes on as the program made it. An address that is not
/// IPv4 or IPv6 is no error but VIPOOL_PASSED.
/// May be called from any thread and in a signal handler, as all of them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_rewrite_bind(
    rewriter: *const vipool_rewriter,
    socket: *const vipool_socket,
    address: *const c_void,
    length: u32,
    out: *mut vipool_outcome,
) -> vipool_status {
    let decision = |rewriter: &vipool_rewriter| {
        let mut room = MaybeUninit::uninit();
        // SAFETY: the caller vouches for struct and bytes.
        let (socket, address) =
            unsafe { (Asked(in_place_quietly(socket, &mut room)?), parse(address, length)?) };
        let address = match address {
            Parsed::Inet(address) => address,
            // On an IPv4 socket family AF_UNSPEC and 0.0.0.0 are the wildcard address.
            Parsed::Unspecified(Some(port))
                if socket.local_address().is_some_and(|l| l.is_ipv4()) =>
            {
                SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port)
            }
            Parsed::Unspecified(_) | Parsed::Other => {
                return Ok(Outcome::Passed(Reason::NotInet));
            }
        };
        Ok(rewriter.now().bind(&socket, address))
    };
    // SAFETY: the caller vouches for handle and struct.
    unsafe { decide(rewriter, out, decision) }
}

/// listen: an unbound socket would be bound to the wildcard address by the kernel, so with
/// VIPOOL_REWRITTEN bind it to `address` first. If that fails, go on all the same, unless the address
/// is on no interface and vipool_rewrite_retries() says that the program gets the error.
///
/// Winsock binds nothing in listen but answers WSAEINVAL: on Windows ask only of sockets whose bind
/// was put off (VIPOOL_DO_DEFER).
///
/// Errors: those of vipool_rewrite_bind().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_rewrite_listen(
    rewriter: *const vipool_rewriter,
    socket: *const vipool_socket,
    out: *mut vipool_outcome,
) -> vipool_status {
    let decision = |rewriter: &vipool_rewriter| {
        let mut room = MaybeUninit::uninit();
        // SAFETY: the caller vouches for the struct.
        Ok(rewriter.now().listen(&Asked(unsafe { in_place_quietly(socket, &mut room) }?)))
    };
    // SAFETY: the caller vouches for handle and struct.
    unsafe { decide(rewriter, out, decision) }
}

/// connect, WSAConnect, ConnectEx: the program connects `socket` to `address`, TCP or UDP.
///
/// Errors: those of vipool_rewrite_bind().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_rewrite_connect(
    rewriter: *const vipool_rewriter,
    socket: *const vipool_socket,
    address: *const c_void,
    length: u32,
    out: *mut vipool_outcome,
) -> vipool_status {
    let decision = |rewriter: &vipool_rewriter| {
        let mut room = MaybeUninit::uninit();
        // SAFETY: the caller vouches for struct and bytes.
        let (socket, address) =
            unsafe { (Asked(in_place_quietly(socket, &mut room)?), parse(address, length)?) };
        Ok(match address {
            Parsed::Inet(to) => rewriter.now().connect(&socket, to),
            Parsed::Unspecified(_) | Parsed::Other => Outcome::Passed(Reason::NotInet),
        })
    };
    // SAFETY: the caller vouches for handle and struct.
    unsafe { decide(rewriter, out, decision) }
}

/// sendto, sendmsg, WSASendTo, WSASendMsg with a destination: a datagram (`fast_open` 0), or with
/// `fast_open` not 0 (MSG_FASTOPEN) a stream that begins with it. Without a destination there is
/// nothing to ask.
///
/// Errors: those of vipool_rewrite_bind().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_rewrite_send(
    rewriter: *const vipool_rewriter,
    socket: *const vipool_socket,
    address: *const c_void,
    length: u32,
    fast_open: u32,
    out: *mut vipool_outcome,
) -> vipool_status {
    let decision = |rewriter: &vipool_rewriter| {
        let mut room = MaybeUninit::uninit();
        // SAFETY: the caller vouches for struct and bytes.
        let (socket, address) =
            unsafe { (Asked(in_place_quietly(socket, &mut room)?), parse(address, length)?) };
        Ok(match address {
            Parsed::Inet(to) => rewriter.now().send(&socket, to, fast_open != 0),
            Parsed::Unspecified(_) | Parsed::Other => Outcome::Passed(Reason::NotInet),
        })
    };
    // SAFETY: the caller vouches for handle and struct.
    unsafe { decide(rewriter, out, decision) }
}

/// The source that a program names for one datagram (IP_PKTINFO, IPV6_PKTINFO of sendmsg and
/// WSASendMsg). `address` may be NULL; else it is where the datagram goes by now. With
/// VIPOOL_REWRITTEN `out->address` is the source to name, with port 0.
///
/// Errors: those of vipool_rewrite_bind(), and VIPOOL_ERR_ADDRESS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_rewrite_send_source(
    rewriter: *const vipool_rewriter,
    source: *const vipool_ip,
    address: *const c_void,
    length: u32,
    out: *mut vipool_outcome,
) -> vipool_status {
    let decision = |rewriter: &vipool_rewriter| {
        // SAFETY: the caller vouches for the address.
        let source = unsafe { source.as_ref() }.ok_or(VIPOOL_ERR_NULL)?.required()?;
        let mut to = None;
        if !address.is_null() {
            // SAFETY: the caller vouches for the bytes.
            if let Parsed::Inet(given) = unsafe { parse(address, length) }? {
                to = Some(given);
            }
        }
        Ok(rewriter.now().datagram_source(source, to))
    };
    // SAFETY: the caller vouches for handle and struct.
    unsafe { decide(rewriter, out, decision) }
}

/// getsockname, getpeername, accept, accept4, WSAAccept, AcceptEx, and the source of recvfrom,
/// recvmsg, recvmmsg, WSARecvFrom, WSARecvMsg: `address` is one end of a socket as the kernel has
/// it; with VIPOOL_REWRITTEN the program is shown `out->address`. `ask_other` gives the other end
/// (of a received datagram the socket's own address); it is asked only where that matters and may
/// be NULL.
///
/// Errors: those of vipool_rewrite_bind().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_rewrite_shown(
    rewriter: *const vipool_rewriter,
    address: *const c_void,
    length: u32,
    ask_other: vipool_ask_address_fn,
    context: *mut c_void,
    out: *mut vipool_outcome,
) -> vipool_status {
    let decision = |rewriter: &vipool_rewriter| {
        // SAFETY: the caller vouches for the bytes.
        Ok(shown(rewriter, unsafe { sockaddr_bytes(address, length) }?, ask_other, context))
    };
    // SAFETY: the caller vouches for handle and struct.
    unsafe { decide(rewriter, out, decision) }
}

/// Kept apart from what writes the outcome: taken together, the compiler cuts the address into pieces
/// and puts them together again, which costs more than the call.
#[inline(never)]
fn shown(
    rewriter: &vipool_rewriter,
    bytes: &[u8],
    ask_other: vipool_ask_address_fn,
    context: *mut c_void,
) -> Outcome<SocketAddr> {
    match sockaddr::parse(bytes) {
        Parsed::Inet(end) => {
            rewriter.names().visible_address(end, || ask_address(ask_other, context))
        }
        Parsed::Unspecified(_) | Parsed::Other => Outcome::Passed(Reason::NotInet),
    }
}
