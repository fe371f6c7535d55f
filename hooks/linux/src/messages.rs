//! The calls that take a `struct msghdr`: an address, and control messages that name one.
//!
//! What must be changed is changed in copies on the stack; the program's own structs are read, and
//! written only where the kernel has just written too.

use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use libc::{c_int, c_uint, cmsghdr, mmsghdr, msghdr, ssize_t};
use vipool::rewrite::Socket;
use vipool::rewrite::sockaddr::{self as bytes, MAX_LENGTH, Parsed};

use crate::caller_memory::{self, CallerArray, SockaddrBuf};
use crate::connect::{self, CallAction, DestinationCall};
use crate::facts::{Facts, PAIRED_SOCKETS};
use crate::hooked_process::{self, HookedProcess};
use crate::socket::Fd;
use crate::socket_names::write_visible_bytes;
use crate::{errno, original};

/// The most control bytes of a message that are looked into; a longer one passes as it is. As many
/// are changed at a time: a signal handler's stack may be small.
const MAX_CONTROL_LENGTH: usize = 512;
/// How many messages of a sendmmsg are copied at a time.
const BATCH_SIZE: usize = 8;
/// The kernel takes no more messages in one call (`UIO_MAXIOV`).
const MAX_MESSAGES: usize = 1024;

/// Room for changed control messages: each of them begins at a multiple of [`ALIGNMENT`].
#[repr(C, align(16))]
struct ControlBuffer([MaybeUninit<u8>; MAX_CONTROL_LENGTH]);

const CONTROL_ALIGNMENT: usize = align_of::<ControlBuffer>();

impl ControlBuffer {
    const fn new() -> Self {
        Self([MaybeUninit::uninit(); MAX_CONTROL_LENGTH])
    }
}

/// What becomes of a message that is sent.
enum MessageAction {
    PassThrough,
    /// Its header names what was changed.
    Rewritten,
    Fail(c_int),
    /// There is no room for its control messages beside those of the others.
    NextBatch,
}

/// sendmsg(2).
///
/// # Safety
/// As of the original.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sendmsg(fd: c_int, message: *const msghdr, flags: c_int) -> ssize_t {
    match hooked_process::current() {
        // SAFETY: the caller's own call.
        Some(process) => unsafe { rewrite_and_send(process, fd, message, flags) },
        // SAFETY: the caller's own call.
        None => unsafe { original::sendmsg(fd, message, flags) },
    }
}

/// A sendmsg of a listed program.
///
/// # Safety
/// As of sendmsg.
#[inline(never)]
unsafe fn rewrite_and_send(
    process: &HookedProcess,
    fd: c_int,
    message: *const msghdr,
    flags: c_int,
) -> ssize_t {
    let (mut name, mut control) = (MaybeUninit::uninit(), ControlBuffer::new());
    let mut header = caller_memory::read(message);
    let action = header.as_mut().map_or(MessageAction::PassThrough, |header| {
        rewrite_message(process, fd, header, flags, &mut name, &mut control.0.as_mut_slice())
    });
    match (action, &header) {
        // SAFETY: the caller's own call, but for copies that live until it is over.
        (MessageAction::Rewritten, Some(header)) => unsafe { original::sendmsg(fd, header, flags) },
        (MessageAction::Fail(error), _) => {
            errno::set(error);
            -1
        }
        // SAFETY: the caller's own call.
        _ => unsafe { original::sendmsg(fd, message, flags) },
    }
}

/// sendmmsg(2).
///
/// # Safety
/// As of the original.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sendmmsg(
    fd: c_int,
    messages: *mut mmsghdr,
    count: c_uint,
    flags: c_int,
) -> c_int {
    match hooked_process::current() {
        // SAFETY: the caller's own call.
        Some(process) if count > 0 => unsafe {
            send_in_batches(process, fd, messages, count, flags)
        },
        // SAFETY: the caller's own call.
        _ => unsafe { original::sendmmsg(fd, messages, count, flags) },
    }
}

/// A sendmmsg of a listed program. As the kernel does, it fails only if nothing was sent.
///
/// # Safety
/// As of sendmmsg; at least one message.
#[inline(never)]
unsafe fn send_in_batches(
    process: &HookedProcess,
    fd: c_int,
    messages: *mut mmsghdr,
    count: c_uint,
    flags: c_int,
) -> c_int {
    let saved_errno = errno::get();
    let mut messages = CallerArray::new(messages);
    let count = (count as usize).min(MAX_MESSAGES);
    let mut sent = 0;
    while sent < count {
        let size = (count - sent).min(BATCH_SIZE);
        // SAFETY: the caller's own call, of a part of the messages.
        let (batch_sent, all_sent) =
            unsafe { send_batch(process, fd, &mut messages, sent, size, flags) };
        sent += batch_sent;
        if !all_sent {
            break;
        }
    }
    if sent == 0 {
        return -1;
    }
    errno::set(saved_errno);
    sent as c_int
}

/// Sends a few messages. Answers how many were sent, and whether those were all that were tried.
///
/// # Safety
/// As of sendmmsg; at least one message, at most [`BATCH`].
unsafe fn send_batch(
    process: &HookedProcess,
    fd: c_int,
    messages: &mut CallerArray<mmsghdr>,
    start: usize,
    size: usize,
    flags: c_int,
) -> (usize, bool) {
    let mut names = [const { MaybeUninit::<SockaddrBuf>::uninit() }; BATCH_SIZE];
    let mut copies = [const { MaybeUninit::<mmsghdr>::uninit() }; BATCH_SIZE];
    let mut control = ControlBuffer::new();
    let mut unused_control = control.0.as_mut_slice();
    let (mut copied, mut changed) = (0, false);
    for (name, copy) in names.iter_mut().zip(&mut copies).take(size) {
        let Some(mut message) = messages.read(start + copied) else { break };
        match rewrite_message(process, fd, &mut message.msg_hdr, flags, name, &mut unused_control) {
            MessageAction::PassThrough => {}
            MessageAction::Rewritten => changed = true,
            MessageAction::Fail(error) if copied == 0 => {
                errno::set(error);
                return (0, false);
            }
            MessageAction::Fail(_) | MessageAction::NextBatch => break,
        }
        copy.write(message);
        copied += 1;
    }
    // If not even the first one can be read, it is for the kernel to say so.
    let attempted = copied.max(1);
    let first = if changed { copies.as_mut_ptr().cast() } else { messages.element_ptr(start) };
    // SAFETY: the caller's own call, or as many copies, and what they point to lives until it is
    // over.
    let sent = unsafe { original::sendmmsg(fd, first, attempted as c_uint, flags) };
    let sent = usize::try_from(sent).unwrap_or(0);
    if changed {
        for index in 0..sent {
            // SAFETY: as many copies were made and sent.
            let length = unsafe { (*first.add(index)).msg_len };
            if !messages.write_sent_length(start + index, length) {
                errno::set(libc::EFAULT);
                return (index, false);
            }
        }
    }
    (sent, sent == attempted)
}

/// Decides about a message that is sent, and binds the socket first if it must be. What is changed
/// of it is put into `name` and what is `free`, and named by its header then.
fn rewrite_message<'a>(
    process: &HookedProcess,
    fd: c_int,
    header: &mut msghdr,
    flags: c_int,
    name: &'a mut MaybeUninit<SockaddrBuf>,
    unused_control: &mut &'a mut [MaybeUninit<u8>],
) -> MessageAction {
    let length = header.msg_controllen;
    let has_control = !header.msg_control.is_null() && length >= size_of::<cmsghdr>();
    if has_control && (unused_control.len() + 1..=MAX_CONTROL_LENGTH).contains(&length) {
        return MessageAction::NextBatch;
    }
    let mut changed = false;
    // As the kernel does it: here a name that is too long is cut, unless its length is negative.
    if header.msg_namelen <= c_int::MAX as u32 {
        header.msg_namelen = header.msg_namelen.min(MAX_LENGTH as u32);
    }
    if !header.msg_name.is_null() && header.msg_namelen > 0 {
        let destination = header.msg_name.cast_const().cast();
        match connect::choose_destination(
            fd,
            destination,
            header.msg_namelen,
            DestinationCall::from_send_flags(flags),
        ) {
            CallAction::PassThrough | CallAction::Disconnect => {}
            CallAction::UseAddress(buffer) => {
                let buffer = name.write(buffer);
                header.msg_name = buffer.as_ptr().cast_mut().cast();
                header.msg_namelen = buffer.length();
                changed = true;
            }
            CallAction::Fail(error) => return MessageAction::Fail(error),
        }
    }
    if has_control && let Some(control) = rewrite_control(process, Fd(fd), header, unused_control) {
        header.msg_control = control.cast();
        changed = true;
    }
    if changed { MessageAction::Rewritten } else { MessageAction::PassThrough }
}

/// The control messages with another source than the program named (row 24), if it named one. Of
/// descriptors in them it is noted what they may become elsewhere.
fn rewrite_control(
    process: &HookedProcess,
    fd: Fd,
    header: &msghdr,
    unused_control: &mut &mut [MaybeUninit<u8>],
) -> Option<*mut u8> {
    let source_bytes = header.msg_control.cast_const().cast::<u8>();
    let length = header.msg_controllen;
    if length > MAX_CONTROL_LENGTH {
        PAIRED_SOCKETS.record();
        return None;
    }
    let capacity = unused_control.get_mut(..length)?;
    if !caller_memory::is_readable(source_bytes, length) {
        return None;
    }
    let copy = capacity.as_mut_ptr().cast::<u8>();
    // SAFETY: this many bytes can be read there, there is room for them, and they are ours.
    let messages = unsafe {
        std::ptr::copy_nonoverlapping(source_bytes, copy, length);
        std::slice::from_raw_parts_mut(copy, length)
    };
    let mut rewritten = false;
    record_passed_fds(process, messages);
    for_each_pktinfo_address(messages, |source| {
        let destination = if header.msg_name.is_null() {
            fd.peer()
        } else {
            SockaddrBuf::read(header.msg_name.cast(), header.msg_namelen)
                .and_then(|buffer| parse_inet(buffer.bytes()))
        };
        let new = process.rewriter().datagram_source(source, destination).rewritten();
        rewritten |= new.is_some();
        new
    });
    if !rewritten {
        return None;
    }
    let (used, rest) = std::mem::take(unused_control)
        .split_at_mut_checked(length.next_multiple_of(CONTROL_ALIGNMENT))?;
    *unused_control = rest;
    Some(used.as_mut_ptr().cast())
}

fn parse_inet(name: &[u8]) -> Option<SocketAddr> {
    match bytes::parse(name) {
        Parsed::Inet(destination) => Some(destination),
        Parsed::Unspecified(_) | Parsed::Other => None,
    }
}

/// recvmsg(2).
///
/// # Safety
/// As of the original.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn recvmsg(fd: c_int, message: *mut msghdr, flags: c_int) -> ssize_t {
    let process = hooked_process::current();
    let capacity = process
        .and_then(|_| caller_memory::read(message.cast_const()))
        .map(|header| header.msg_namelen as usize);
    // SAFETY: the caller's own call.
    let received = unsafe { original::recvmsg(fd, message, flags) };
    if let (Some(process), Some(capacity), 0..) = (process, capacity, received) {
        // SAFETY: the kernel has just written there.
        unsafe { write_visible_message(process, fd, message, capacity) };
    }
    received
}

/// recvmmsg(2).
///
/// # Safety
/// As of the original.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn recvmmsg(
    fd: c_int,
    messages: *mut mmsghdr,
    count: c_uint,
    flags: c_int,
    timeout: *mut libc::timespec,
) -> c_int {
    match hooked_process::current() {
        // SAFETY: the caller's own call.
        Some(process) => unsafe { receive_all(process, fd, messages, count, flags, timeout) },
        // SAFETY: the caller's own call.
        None => unsafe { original::recvmmsg(fd, messages, count, flags, timeout) },
    }
}

/// A recvmmsg of a listed program.
///
/// # Safety
/// As of recvmmsg.
#[inline(never)]
unsafe fn receive_all(
    process: &HookedProcess,
    fd: c_int,
    messages: *mut mmsghdr,
    count: c_uint,
    flags: c_int,
    timeout: *mut libc::timespec,
) -> c_int {
    // How much room there is for each address, noted before the kernel overwrites it.
    let mut capacities = [0u8; MAX_MESSAGES];
    let mut array = CallerArray::new(messages);
    for (index, capacity) in capacities.iter_mut().take(count as usize).enumerate() {
        let Some(message) = array.read(index) else { break };
        *capacity = u8::try_from(message.msg_hdr.msg_namelen).unwrap_or(u8::MAX);
    }
    // SAFETY: the caller's own call.
    let received = unsafe { original::recvmmsg(fd, messages, count, flags, timeout) };
    for (index, capacity) in
        capacities.iter().take(usize::try_from(received).unwrap_or(0)).enumerate()
    {
        // SAFETY: the kernel has just written there.
        unsafe {
            write_visible_message(
                process,
                fd,
                &raw mut (*messages.add(index)).msg_hdr,
                (*capacity).into(),
            );
        }
    }
    received
}

/// Shows a received message as the program shall see it.
///
/// # Safety
/// The kernel has just received into this message.
unsafe fn write_visible_message(
    process: &HookedProcess,
    fd: c_int,
    message: *mut msghdr,
    capacity: usize,
) {
    // SAFETY: the caller's promise.
    let header = unsafe { message.read_unaligned() };
    if !header.msg_name.is_null() {
        let length = header.msg_namelen as usize;
        let written = capacity.min(length).min(MAX_LENGTH);
        // SAFETY: the kernel has just written this many bytes there.
        let name = unsafe { std::slice::from_raw_parts_mut(header.msg_name.cast(), written) };
        write_visible_bytes(
            process,
            name,
            length > written,
            false,
            || None,
            || Fd(fd).local_address(),
        );
    }
    let length = header.msg_controllen;
    if !header.msg_control.is_null() && length >= size_of::<cmsghdr>() {
        // SAFETY: the kernel has just written this many bytes there.
        let control =
            unsafe { std::slice::from_raw_parts_mut(header.msg_control.cast::<u8>(), length) };
        record_passed_fds(process, control);
        let names = process.display_rewriter();
        for_each_pktinfo_address(control, |address| names.visible_ip(address).rewritten());
    }
}

/// Notes what may become true by the descriptors that are passed (`SCM_RIGHTS` of unix(7)).
fn record_passed_fds(process: &HookedProcess, control: &mut [u8]) {
    for_each_control_message(control, |level, kind, body| {
        if (level, kind) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
            for fd in body.as_chunks().0 {
                Facts::of_fd(process, c_int::from_ne_bytes(*fd)).record();
            }
        }
    });
}

/// Visits the addresses in `IP_PKTINFO` and `IPV6_PKTINFO` control messages (ip(7), ipv6(7)) and
/// writes what `change` gives in their place, where it is of the same family.
fn for_each_pktinfo_address(control: &mut [u8], mut change: impl FnMut(IpAddr) -> Option<IpAddr>) {
    for_each_control_message(control, |level, kind, body| match (level, kind) {
        // struct in_pktinfo: index, local address (source when sending), destination.
        (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
            for offset in [4, 8] {
                if let Some(octets) = body.get_mut(offset..).and_then(|b| b.first_chunk_mut::<4>())
                    && let Some(IpAddr::V4(new)) = change(Ipv4Addr::from(*octets).into())
                {
                    *octets = new.octets();
                }
            }
        }
        // struct in6_pktinfo: address, index.
        (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
            if let Some(octets) = body.first_chunk_mut::<16>()
                && let Some(IpAddr::V6(new)) = change(Ipv6Addr::from(*octets).into())
            {
                *octets = new.octets();
            }
        }
        _ => {}
    });
}

/// Visits control messages: level, kind, and what they hold (cmsg(3)).
fn for_each_control_message(control: &mut [u8], mut visit: impl FnMut(c_int, c_int, &mut [u8])) {
    /// Control messages are aligned as `size_t` is (`CMSG_ALIGN`).
    const ALIGN: usize = size_of::<usize>();
    const HEADER: usize = size_of::<cmsghdr>();
    let mut rest = control;
    while let Some(header) = rest.first_chunk::<HEADER>() {
        // The length counts the header; the kernel's own type is size_t.
        let Some(length) = header.first_chunk().copied().map(usize::from_ne_bytes) else { return };
        let number = |offset: usize| {
            header
                .get(offset..)
                .and_then(|tail| tail.first_chunk())
                .copied()
                .map(c_int::from_ne_bytes)
        };
        let (level, kind) = (number(size_of::<usize>()), number(size_of::<usize>() + 4));
        if length < HEADER || length > rest.len() {
            return;
        }
        let body = rest.get_mut(HEADER..length).unwrap_or_default();
        if let (Some(level), Some(kind)) = (level, kind) {
            visit(level, kind, body);
        }
        let Some(next) = rest.get_mut(length.next_multiple_of(ALIGN)..) else { return };
        rest = next;
    }
}
