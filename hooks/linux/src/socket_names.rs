//! Hooks of the calls that return one socket address: accept(2), accept4(2), getsockname(2),
//! getpeername(2) and recvfrom(2).

use std::net::SocketAddr;

use libc::{c_int, c_void, size_t, sockaddr, socklen_t, ssize_t};
use vipool::rewrite::sockaddr::{IPV6_LENGTH, MAX_LENGTH};
use vipool::rewrite::{HookedProcess, Socket};

use crate::facts::PAIRED_SOCKETS;
use crate::socket::Fd;
use crate::visible_name::write_visible_name;
use crate::{caller_memory, hooked_process, original};

/// accept(2).
///
/// # Safety
/// The caller must uphold the contract of the original function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn accept(
    fd: c_int,
    address: *mut sockaddr,
    length: *mut socklen_t,
) -> c_int {
    // SAFETY: the program passed these arguments. A substitute buffer is valid too.
    unsafe { accept_with(address, length, |address, length| original::accept(fd, address, length)) }
}

/// accept4(2).
///
/// # Safety
/// The caller must uphold the contract of the original function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn accept4(
    fd: c_int,
    address: *mut sockaddr,
    length: *mut socklen_t,
    flags: c_int,
) -> c_int {
    // SAFETY: the program passed these arguments. A substitute buffer is valid too.
    unsafe {
        accept_with(address, length, |address, length| {
            original::accept4(fd, address, length, flags)
        })
    }
}

/// Calls `accept_call`, and replaces the address of the peer with the address that the program must
/// see.
///
/// The hook also needs the address of the peer to decide whether the accepted socket is paired (see
/// [`PAIRED_SOCKETS`]). If the socket is paired, the hook records this fact. As long as the fact is
/// not recorded, a buffer of the hook receives the address if the program does not request it.
///
/// # Safety
/// The caller must uphold the contract of accept. `accept_call` makes the original call with the
/// arguments that it receives.
#[inline]
unsafe fn accept_with(
    address: *mut sockaddr,
    length: *mut socklen_t,
    accept_call: impl Fn(*mut sockaddr, *mut socklen_t) -> c_int,
) -> c_int {
    let mut substitute_bytes = [0u8; IPV6_LENGTH];
    let mut substitute_length = substitute_bytes.len() as socklen_t;
    let (address, length) = if address.is_null() && !PAIRED_SOCKETS.is_possible() {
        (substitute_bytes.as_mut_ptr().cast(), &raw mut substitute_length)
    } else {
        (address, length)
    };
    // SAFETY: the arguments are those of the call.
    let buffer = unsafe { NameBuffer::new(address, length) };
    let accepted = accept_call(address, length);
    if let (Some(buffer), 0..) = (buffer, accepted) {
        let fd = Fd(accepted);
        // SAFETY: the call succeeded, so the kernel has written the address.
        let has_changed =
            unsafe { buffer.replace_with_visible(false, || fd.peer(), || fd.local_address()) };
        if has_changed {
            PAIRED_SOCKETS.record();
        }
    }
    accepted
}

/// getsockname(2).
///
/// # Safety
/// The caller must uphold the contract of the original function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getsockname(
    fd: c_int,
    address: *mut sockaddr,
    length: *mut socklen_t,
) -> c_int {
    // SAFETY: the program passed these arguments.
    let buffer = unsafe { NameBuffer::new(address, length) };
    // SAFETY: the program passed these arguments.
    let result = unsafe { original::getsockname(fd, address, length) };
    if let (Some(buffer), 0) = (buffer, result) {
        let ignores_other_end = !PAIRED_SOCKETS.is_possible();
        // SAFETY: the call succeeded, so the kernel has written the address.
        unsafe {
            buffer.replace_with_visible(
                ignores_other_end,
                || Fd(fd).local_address(),
                || Fd(fd).peer(),
            );
        }
    }
    result
}

/// getpeername(2).
///
/// # Safety
/// The caller must uphold the contract of the original function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getpeername(
    fd: c_int,
    address: *mut sockaddr,
    length: *mut socklen_t,
) -> c_int {
    // SAFETY: the program passed these arguments.
    let buffer = unsafe { NameBuffer::new(address, length) };
    // SAFETY: the program passed these arguments.
    let result = unsafe { original::getpeername(fd, address, length) };
    if let (Some(buffer), 0) = (buffer, result) {
        let ignores_other_end = !PAIRED_SOCKETS.is_possible();
        // SAFETY: the call succeeded, so the kernel has written the address.
        unsafe {
            buffer.replace_with_visible(
                ignores_other_end,
                || Fd(fd).peer(),
                || Fd(fd).local_address(),
            );
        }
    }
    result
}

/// recvfrom(2).
///
/// # Safety
/// The caller must uphold the contract of the original function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn recvfrom(
    fd: c_int,
    data: *mut c_void,
    size: size_t,
    flags: c_int,
    address: *mut sockaddr,
    length: *mut socklen_t,
) -> ssize_t {
    // SAFETY: the program passed these arguments.
    let buffer = unsafe { NameBuffer::new(address, length) };
    // SAFETY: the program passed these arguments.
    let received = unsafe { original::recvfrom(fd, data, size, flags, address, length) };
    // SAFETY: `buffer` is that of the call.
    unsafe { replace_source(fd, received, buffer) };
    received
}

/// recvfrom(2) in a program that was compiled with `_FORTIFY_SOURCE`.
///
/// # Safety
/// The caller must uphold the contract of the original function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __recvfrom_chk(
    fd: c_int,
    data: *mut c_void,
    size: size_t,
    data_capacity: size_t,
    flags: c_int,
    address: *mut sockaddr,
    length: *mut socklen_t,
) -> ssize_t {
    // SAFETY: the program passed these arguments.
    let buffer = unsafe { NameBuffer::new(address, length) };
    // SAFETY: the program passed these arguments.
    let received =
        unsafe { original::__recvfrom_chk(fd, data, size, data_capacity, flags, address, length) };
    // SAFETY: `buffer` is that of the call.
    unsafe { replace_source(fd, received, buffer) };
    received
}

/// Replaces the source of a received datagram in the program's buffer. `received` is the result of
/// the original call.
///
/// # Safety
/// `buffer` is the address buffer of this call.
unsafe fn replace_source(fd: c_int, received: ssize_t, buffer: Option<NameBuffer>) {
    if let (Some(buffer), 0..) = (buffer, received) {
        // SAFETY: the call succeeded, so the kernel has written the address.
        unsafe { buffer.replace_with_visible(false, || None, || Fd(fd).local_address()) };
    }
}

/// The buffer to which the kernel writes an address. Before the call, the length argument contains
/// the capacity of the buffer. The kernel overwrites the length during the call, so the hook reads
/// the capacity first.
#[derive(Clone, Copy)]
struct NameBuffer {
    process: &'static HookedProcess,
    address: *mut sockaddr,
    length: *const socklen_t,
    capacity: usize,
}

impl NameBuffer {
    /// Reads the capacity of the buffer. Returns `None` if the hook does not need to replace an
    /// address in the buffer.
    ///
    /// The cached [`HookedProcess`] is sufficient, because the session keeps its addresses when the
    /// map is replaced. The slow path of [`write_visible_name`] uses the current [`HookedProcess`].
    ///
    /// # Safety
    /// The caller is about to pass `address` and `length` to the original function. The memory may
    /// be unmapped or protected.
    #[inline]
    unsafe fn new(address: *mut sockaddr, length: *const socklen_t) -> Option<Self> {
        let process = hooked_process::cached()?;
        if address.is_null() {
            return None;
        }
        // SAFETY: the program passed this length.
        let capacity = usize::try_from(unsafe { caller_memory::read(length) }?).ok()?;
        Some(Self { process, address, length, capacity })
    }

    /// Replaces the address in the buffer, which the kernel has just written, with the address that
    /// the program must see. Returns whether the address changed. See [`write_visible_name`] for
    /// the parameters.
    ///
    /// # Safety
    /// The original function has succeeded with this buffer, and has not been called since.
    #[inline]
    unsafe fn replace_with_visible(
        &self,
        ignores_other_end: bool,
        read_name: impl FnOnce() -> Option<SocketAddr>,
        read_other_end: impl FnOnce() -> Option<SocketAddr>,
    ) -> bool {
        // SAFETY: the kernel has just written the length.
        let length = unsafe { self.length.read_unaligned() } as usize;
        let written_length = self.capacity.min(length).min(MAX_LENGTH);
        // SAFETY: the kernel has just written this many bytes. The program does not use the buffer
        // during the call to which it passed the buffer.
        let name =
            unsafe { std::slice::from_raw_parts_mut(self.address.cast::<u8>(), written_length) };
        write_visible_name(
            self.process,
            name,
            length > written_length,
            ignores_other_end,
            read_name,
            read_other_end,
        )
    }
}
