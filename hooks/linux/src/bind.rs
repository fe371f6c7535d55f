//! Hooks of bind(2) and listen(2).

use std::net::SocketAddr;

use libc::{c_int, sockaddr, socklen_t};
use vipool::rewrite::sockaddr::{self as sockaddr_bytes, Parsed};
use vipool::rewrite::{Bind, HookedProcess, Outcome, Reason};

use crate::sockaddr_buf::SockaddrBuf;
use crate::socket::Fd;
use crate::{errno, hooked_process, original};

/// bind(2). See [`vipool::rewrite::Rewriter::bind`].
///
/// # Safety
/// The caller must uphold the contract of the original function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bind(fd: c_int, address: *const sockaddr, length: socklen_t) -> c_int {
    let Some(process) = hooked_process::current() else {
        // SAFETY: the program passed these arguments.
        return unsafe { original::bind(fd, address, length) };
    };
    let saved_errno = errno::get();
    // SAFETY: the program passed these arguments.
    let (outcome, requested_buffer) = unsafe { rewrite_bind(process, fd, address, length) };
    errno::set(saved_errno);
    match (outcome, requested_buffer) {
        (Outcome::Rewritten(rewritten_bind), Some(requested_buffer)) => {
            let rewritten_buffer = requested_buffer.with_address(&rewritten_bind.address);
            let result = bind_rewritten(Fd(fd), &rewritten_bind, &rewritten_buffer);
            if result != 0
                && errno::get() == libc::EADDRNOTAVAIL
                && process.rewriter().retries_original(rewritten_bind.address.ip())
            {
                errno::set(saved_errno);
                // SAFETY: the program passed these arguments.
                return unsafe { original::bind(fd, address, length) };
            }
            result
        }
        (Outcome::Refused(refusal), _) => {
            errno::set(errno::for_refusal(refusal));
            -1
        }
        // SAFETY: the program passed these arguments.
        _ => unsafe { original::bind(fd, address, length) },
    }
}

/// Returns the outcome of the bind. Also returns a copy of the program's address, if the kernel
/// would bind this address as an IPv4 or IPv6 address.
///
/// # Safety
/// The caller must uphold the contract of bind.
unsafe fn rewrite_bind(
    process: &HookedProcess,
    fd: c_int,
    address: *const sockaddr,
    length: socklen_t,
) -> (Outcome<Bind>, Option<SockaddrBuf>) {
    let passed = Outcome::Passed(Reason::NotInet);
    // SAFETY: guaranteed by the caller.
    let Some(buffer) = (unsafe { SockaddrBuf::read(address, length) }) else {
        return (passed, None);
    };
    let requested = match sockaddr_bytes::parse(buffer.bytes()) {
        Parsed::Inet(address) => address,
        // Row 15 of the socket matrix: the kernel accepts AF_UNSPEC with a zero address as
        // 0.0.0.0.
        Parsed::Unspecified(Some(port)) => SocketAddr::from(([0, 0, 0, 0], port)),
        Parsed::Unspecified(None) | Parsed::Other => return (passed, None),
    };
    (process.rewriter().bind(&Fd(fd), requested), Some(buffer))
}

/// Makes the original call with `address`, the rewritten address. If `rewritten_bind.clear_v6only`
/// is set, this function clears `IPV6_V6ONLY` before the call, and sets it again if the call fails.
fn bind_rewritten(fd: Fd, rewritten_bind: &Bind, address: &SockaddrBuf) -> c_int {
    if rewritten_bind.clear_v6only {
        fd.set_option(libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 0);
    }
    // SAFETY: the buffer contains `length()` bytes.
    let result = unsafe { original::bind(fd.0, address.as_ptr(), address.length()) };
    if result != 0 && rewritten_bind.clear_v6only {
        let error = errno::get();
        fd.set_option(libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1);
        errno::set(error);
    }
    result
}

/// listen(2). See [`vipool::rewrite::Rewriter::listen`].
///
/// # Safety
/// The caller must uphold the contract of the original function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn listen(fd: c_int, backlog: c_int) -> c_int {
    if let Some(process) = hooked_process::current() {
        let saved_errno = errno::get();
        let rewriter = process.rewriter();
        if let Outcome::Rewritten(rewritten_bind) = rewriter.listen(&Fd(fd)) {
            let error = Fd(fd).bind(rewritten_bind.address.ip(), false);
            if error == libc::EADDRNOTAVAIL
                && !rewriter.retries_original(rewritten_bind.address.ip())
            {
                errno::set(error);
                return -1;
            }
        }
        errno::set(saved_errno);
    }
    // SAFETY: the program passed these arguments.
    unsafe { original::listen(fd, backlog) }
}
