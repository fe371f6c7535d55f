//! Hooks of connect(2) and sendto(2).

use libc::{c_int, c_void, size_t, sockaddr, socklen_t, ssize_t};

use crate::destination::{
    CallAction, DestinationCall, choose_destination, restore_v6only_on_failure,
};
use crate::facts::PORTLESS_BINDINGS;
use crate::socket::Fd;
use crate::{errno, mark, original};

/// connect(2). See [`vipool::rewrite::Rewriter::connect`].
///
/// # Safety
/// The caller must uphold the contract of the original function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn connect(fd: c_int, address: *const sockaddr, length: socklen_t) -> c_int {
    // SAFETY: the program passed this address.
    let action = unsafe { choose_destination(fd, address, length, DestinationCall::Connect) };
    match action {
        CallAction::Fail(error) => {
            errno::set(error);
            -1
        }
        CallAction::UseAddress { address, cleared_v6only } => {
            // SAFETY: the buffer contains `length()` bytes.
            let result = unsafe { original::connect(fd, address.as_ptr(), address.length()) };
            if cleared_v6only {
                restore_v6only_on_failure(Fd(fd), result != 0);
            }
            result
        }
        // SAFETY: the program passed these arguments.
        CallAction::PassThrough => unsafe { original::connect(fd, address, length) },
        CallAction::Disconnect => {
            // A UDP socket that is disconnected may lose its port and keep its address.
            PORTLESS_BINDINGS.record();
            mark::clear(Fd(fd));
            // SAFETY: the program passed these arguments.
            let result = unsafe { original::connect(fd, address, length) };
            // Another thread may have marked the socket before this call disconnected it.
            mark::clear(Fd(fd));
            result
        }
    }
}

/// sendto(2). See [`vipool::rewrite::Rewriter::send`].
///
/// # Safety
/// The caller must uphold the contract of the original function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sendto(
    fd: c_int,
    data: *const c_void,
    size: size_t,
    flags: c_int,
    address: *const sockaddr,
    length: socklen_t,
) -> ssize_t {
    let call = DestinationCall::from_send_flags(flags);
    // SAFETY: the program passed this address.
    let action = unsafe { choose_destination(fd, address, length, call) };
    match action {
        CallAction::Fail(error) => {
            errno::set(error);
            -1
        }
        CallAction::UseAddress { address, cleared_v6only } => {
            // SAFETY: the buffer contains `length()` bytes. The program passed the other arguments.
            let result = unsafe {
                original::sendto(fd, data, size, flags, address.as_ptr(), address.length())
            };
            if cleared_v6only {
                restore_v6only_on_failure(Fd(fd), result < 0);
            }
            result
        }
        // SAFETY: the program passed these arguments.
        CallAction::PassThrough | CallAction::Disconnect => unsafe {
            original::sendto(fd, data, size, flags, address, length)
        },
    }
}
