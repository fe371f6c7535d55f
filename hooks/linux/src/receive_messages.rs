//! Hooks of recvmsg(2) and recvmmsg(2). They replace addresses in the buffers that the kernel has
//! just filled.

use libc::{c_int, c_uint, mmsghdr, msghdr, ssize_t};
use vipool::rewrite::control_message::{HEADER_LENGTH, replace_packet_info};
use vipool::rewrite::sockaddr::MAX_LENGTH;
use vipool::rewrite::{HookedProcess, Socket};

use crate::caller_memory::{self, CallerArray, MAX_MESSAGES};
use crate::fd_facts::record_passed_fds;
use crate::sockaddr_buf::parse_inet;
use crate::socket::Fd;
use crate::visible_name::write_visible_name;
use crate::{hooked_process, original};

/// recvmsg(2).
///
/// # Safety
/// The caller must uphold the contract of the original function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn recvmsg(fd: c_int, message: *mut msghdr, flags: c_int) -> ssize_t {
    let process = hooked_process::current();
    // Before the call, `msg_namelen` is the capacity of the address buffer. The kernel overwrites
    // it with the length of the address, so the hook reads the capacity first.
    let capacity = process
        // SAFETY: the program passed this message.
        .and_then(|_| unsafe { caller_memory::read(message.cast_const()) })
        .map(|header| header.msg_namelen as usize);
    // SAFETY: the program passed these arguments.
    let received = unsafe { original::recvmsg(fd, message, flags) };
    if let (Some(process), Some(capacity), 0..) = (process, capacity, received) {
        // SAFETY: the kernel has just filled this message, and `capacity` is its `msg_namelen`
        // before the call.
        unsafe { replace_addresses(process, fd, message, capacity) };
    }
    received
}

/// recvmmsg(2).
///
/// # Safety
/// The caller must uphold the contract of the original function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn recvmmsg(
    fd: c_int,
    messages: *mut mmsghdr,
    count: c_uint,
    flags: c_int,
    timeout: *mut libc::timespec,
) -> c_int {
    match hooked_process::current() {
        // SAFETY: the program passed these arguments.
        Some(process) => unsafe { recvmmsg_hooked(process, fd, messages, count, flags, timeout) },
        // SAFETY: the program passed these arguments.
        None => unsafe { original::recvmmsg(fd, messages, count, flags, timeout) },
    }
}

/// Handles recvmmsg in a listed program. The array of capacities is in this separate function, so
/// that programs that are not listed need no stack space for it. Receives at most [`MAX_MESSAGES`]
/// messages, because the hook has to know the capacity of each address buffer.
///
/// # Safety
/// The caller must uphold the contract of recvmmsg.
#[inline(never)]
unsafe fn recvmmsg_hooked(
    process: &HookedProcess,
    fd: c_int,
    messages: *mut mmsghdr,
    count: c_uint,
    flags: c_int,
    timeout: *mut libc::timespec,
) -> c_int {
    // The capacity of each address buffer. An address never needs more than u8::MAX bytes.
    let mut capacities = [0u8; MAX_MESSAGES];
    let count = (count as usize).min(MAX_MESSAGES);
    // SAFETY: the program passed this array.
    let mut message_array = unsafe { CallerArray::new(messages, count) };
    for (index, capacity) in capacities.iter_mut().take(count).enumerate() {
        let Some(message) = message_array.read(index) else { break };
        *capacity = u8::try_from(message.msg_hdr.msg_namelen).unwrap_or(u8::MAX);
    }
    // SAFETY: the program passed these arguments.
    let received = unsafe { original::recvmmsg(fd, messages, count as c_uint, flags, timeout) };
    let received_count = usize::try_from(received).unwrap_or(0);
    for (index, capacity) in capacities.iter().take(received_count).enumerate() {
        // SAFETY: the kernel has just filled this message, and `capacity` is at most its
        // `msg_namelen` before the call.
        unsafe {
            let header = &raw mut (*messages.add(index)).msg_hdr;
            replace_addresses(process, fd, header, (*capacity).into());
        }
    }
    received
}

/// Replaces the addresses of a received message with the visible addresses. Records facts about the
/// descriptors that the message passes.
///
/// # Safety
/// The kernel has just filled this message. `capacity` is at most `msg_namelen` before the call.
unsafe fn replace_addresses(
    process: &HookedProcess,
    fd: c_int,
    message: *mut msghdr,
    capacity: usize,
) {
    // SAFETY: guaranteed by the caller.
    let header = unsafe { message.read_unaligned() };
    let length = header.msg_controllen;
    let has_control = !header.msg_control.is_null() && length >= HEADER_LENGTH;
    let mut source = None;
    if !header.msg_name.is_null() {
        let length = header.msg_namelen as usize;
        let written = capacity.min(length).min(MAX_LENGTH);
        // SAFETY: the kernel has just written `msg_namelen` bytes, but at most `capacity` bytes.
        let name = unsafe { std::slice::from_raw_parts_mut(header.msg_name.cast(), written) };
        if has_control {
            source = parse_inet(name);
        }
        let read_other_end = || Fd(fd).local_address();
        write_visible_name(process, name, length > written, false, || None, read_other_end);
    }
    if has_control {
        // SAFETY: the kernel has just filled this many bytes of the program's buffer with control
        // messages. It does not write the padding between them, whose bytes are those of the
        // program.
        let control =
            unsafe { std::slice::from_raw_parts_mut(header.msg_control.cast::<u8>(), length) };
        record_passed_fds(process, control);
        let rewriter = process.display_rewriter();
        // If the program does not request the source, the source is known only for a connected
        // socket: it is the peer.
        let read_source = || source.or_else(|| Fd(fd).peer());
        replace_packet_info(control, |info| {
            rewriter.visible_packet_info(info, read_source).rewritten()
        });
    }
}
