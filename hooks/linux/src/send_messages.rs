//! Hooks of sendmsg(2) and sendmmsg(2).
//!
//! The hooks change only copies on the stack. In the program's structs, they write only the sent
//! lengths, which the kernel also writes.

use std::mem::MaybeUninit;

use libc::{c_int, c_uint, mmsghdr, msghdr, ssize_t};
use vipool::rewrite::HookedProcess;
use vipool::rewrite::control_message::{HEADER_LENGTH, replace_packet_info};
use vipool::rewrite::sockaddr::MAX_LENGTH;

use crate::caller_memory::{self, CallerArray, MAX_MESSAGES};
use crate::destination::{
    CallAction, DestinationCall, choose_destination, restore_v6only_on_failure,
};
use crate::facts::{PAIRED_SOCKETS, PORTLESS_BINDINGS};
use crate::fd_facts::record_passed_fds;
use crate::sockaddr_buf::{SockaddrBuf, parse_inet};
use crate::socket::Fd;
use crate::{errno, hooked_process, original};

/// Maximum length of control data that the hook rewrites. Longer control data passes unchanged. All
/// messages of one batch share a buffer of this size, because the stack of a signal handler may be
/// small.
const MAX_CONTROL_LENGTH: usize = 512;
/// Maximum number of messages in a batch. The hook divides the messages of one sendmmsg into
/// batches, and sends each batch with one original call.
const BATCH_SIZE: usize = 8;

/// A buffer for rewritten control data. The data of each message starts at a multiple of
/// [`CONTROL_ALIGNMENT`].
#[repr(C, align(16))]
struct ControlBuffer([MaybeUninit<u8>; MAX_CONTROL_LENGTH]);

const CONTROL_ALIGNMENT: usize = align_of::<ControlBuffer>();

impl ControlBuffer {
    const fn new() -> Self {
        Self([MaybeUninit::uninit(); MAX_CONTROL_LENGTH])
    }
}

/// The action of the hook for a message.
enum MessageAction {
    /// Sends the message unchanged.
    PassThrough,
    /// Sends a copy of the message. The header of the copy points to the rewritten address or
    /// control data. If `cleared_v6only` is set, the hook has cleared `IPV6_V6ONLY` for the call.
    Rewritten { cleared_v6only: bool },
    /// Does not send the message, and fails with this error number.
    Fail(c_int),
    /// Sends the message with the next batch, because its control data does not fit into the buffer
    /// of this batch.
    NextBatch,
}

/// sendmsg(2).
///
/// # Safety
/// The caller must uphold the contract of the original function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sendmsg(fd: c_int, message: *const msghdr, flags: c_int) -> ssize_t {
    match hooked_process::current() {
        // SAFETY: the program passed these arguments.
        Some(process) => unsafe { sendmsg_hooked(process, fd, message, flags) },
        // SAFETY: the program passed these arguments.
        None => unsafe { original::sendmsg(fd, message, flags) },
    }
}

/// Handles sendmsg in a listed program. The buffers are in this separate function, so that other
/// programs need no stack space for them.
///
/// # Safety
/// The caller must uphold the contract of sendmsg.
#[inline(never)]
unsafe fn sendmsg_hooked(
    process: &HookedProcess,
    fd: c_int,
    message: *const msghdr,
    flags: c_int,
) -> ssize_t {
    let (mut name, mut control) = (MaybeUninit::uninit(), ControlBuffer::new());
    // SAFETY: the program passed this message.
    let mut header = unsafe { caller_memory::read(message) };
    let action = header.as_mut().map_or(MessageAction::PassThrough, |header| {
        let unused_control = &mut control.0.as_mut_slice();
        // SAFETY: the program passed this message.
        unsafe { rewrite_message(process, fd, header, flags, &mut name, unused_control) }
    });
    match (action, &header) {
        (MessageAction::Rewritten { cleared_v6only }, Some(header)) => {
            // SAFETY: the program passed these arguments. The buffers to which the rewritten header
            // points live until the call returns.
            let result = unsafe { original::sendmsg(fd, header, flags) };
            if cleared_v6only {
                restore_v6only_on_failure(Fd(fd), result < 0);
            }
            result
        }
        (MessageAction::Fail(error), _) => {
            errno::set(error);
            -1
        }
        // SAFETY: the program passed these arguments.
        _ => unsafe { original::sendmsg(fd, message, flags) },
    }
}

/// sendmmsg(2).
///
/// # Safety
/// The caller must uphold the contract of the original function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sendmmsg(
    fd: c_int,
    messages: *mut mmsghdr,
    count: c_uint,
    flags: c_int,
) -> c_int {
    match hooked_process::current() {
        // SAFETY: the program passed these arguments.
        Some(process) if count > 0 => unsafe {
            sendmmsg_hooked(process, fd, messages, count, flags)
        },
        // SAFETY: the program passed these arguments.
        _ => unsafe { original::sendmmsg(fd, messages, count, flags) },
    }
}

/// Handles sendmmsg in a listed program. Like sendmmsg itself, this function fails only if no
/// message was sent.
///
/// # Safety
/// The caller must uphold the contract of sendmmsg. `count` is at least 1.
#[inline(never)]
unsafe fn sendmmsg_hooked(
    process: &HookedProcess,
    fd: c_int,
    messages: *mut mmsghdr,
    count: c_uint,
    flags: c_int,
) -> c_int {
    let saved_errno = errno::get();
    let count = (count as usize).min(MAX_MESSAGES);
    // SAFETY: the program passed this array.
    let mut messages = unsafe { CallerArray::new(messages, count) };
    let mut sent_count = 0;
    while sent_count < count {
        let batch_size = (count - sent_count).min(BATCH_SIZE);
        // SAFETY: the program passed these arguments. The batch is a part of the program's array.
        let (batch_sent_count, may_continue) =
            unsafe { send_batch(process, fd, &mut messages, sent_count, batch_size, flags) };
        sent_count += batch_sent_count;
        if !may_continue {
            break;
        }
    }
    if sent_count == 0 {
        return -1;
    }
    errno::set(saved_errno);
    sent_count as c_int
}

/// Sends up to `size` messages, from the index `start`. Returns the number of sent messages, and
/// whether the caller may send the next batch.
///
/// # Safety
/// The caller must uphold the contract of sendmmsg. `size` is 1 to [`BATCH_SIZE`].
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
    let (mut copied_count, mut has_rewritten_message, mut has_cleared_v6only) = (0, false, false);
    for (name, copy) in names.iter_mut().zip(&mut copies).take(size) {
        let Some(mut message) = messages.read(start + copied_count) else { break };
        let header = &mut message.msg_hdr;
        // SAFETY: the program passed this message.
        let action =
            unsafe { rewrite_message(process, fd, header, flags, name, &mut unused_control) };
        match action {
            MessageAction::PassThrough => {}
            MessageAction::Rewritten { cleared_v6only } => {
                has_rewritten_message = true;
                has_cleared_v6only |= cleared_v6only;
            }
            MessageAction::Fail(error) if copied_count == 0 => {
                errno::set(error);
                return (0, false);
            }
            MessageAction::Fail(_) | MessageAction::NextBatch => break,
        }
        copy.write(message);
        copied_count += 1;
    }
    // If the first message is unreadable, the hook passes this message to the kernel, which reports
    // the error.
    let attempted_count = copied_count.max(1);
    let first_message = if has_rewritten_message {
        copies.as_mut_ptr().cast()
    } else {
        messages.element_ptr(start)
    };
    // SAFETY: `first_message` points to the program's own messages, or to `attempted_count` copies.
    // The buffers of the copies live until the call returns.
    let sent_count =
        unsafe { original::sendmmsg(fd, first_message, attempted_count as c_uint, flags) };
    if has_cleared_v6only {
        restore_v6only_on_failure(Fd(fd), sent_count < 0);
    }
    let sent_count = usize::try_from(sent_count).unwrap_or(0);
    if has_rewritten_message {
        for index in 0..sent_count {
            // SAFETY: the kernel sent this copy and wrote its length.
            let length = unsafe { (*first_message.add(index)).msg_len };
            if !messages.write_sent_length(start + index, length) {
                errno::set(libc::EFAULT);
                return (index, false);
            }
        }
    }
    (sent_count, sent_count == attempted_count)
}

/// Rewrites a message if necessary. May also bind the socket.
///
/// `name` receives the rewritten destination. The start of `unused_control` receives the rewritten
/// control data, and `unused_control` then begins after this data. The function changes `header` so
/// that it points to the rewritten parts.
///
/// # Safety
/// `header` is a copy of a message that the program passed to sendmsg or sendmmsg.
unsafe fn rewrite_message<'a>(
    process: &HookedProcess,
    fd: c_int,
    header: &mut msghdr,
    flags: c_int,
    name: &'a mut MaybeUninit<SockaddrBuf>,
    unused_control: &mut &'a mut [MaybeUninit<u8>],
) -> MessageAction {
    let length = header.msg_controllen;
    let has_control = !header.msg_control.is_null() && length >= HEADER_LENGTH;
    if has_control && (unused_control.len() + 1..=MAX_CONTROL_LENGTH).contains(&length) {
        return MessageAction::NextBatch;
    }
    let (mut is_rewritten, mut has_cleared_v6only) = (false, false);
    // sendmsg and sendmmsg truncate an address that is too long. They reject a negative length.
    if header.msg_namelen <= c_int::MAX as u32 {
        header.msg_namelen = header.msg_namelen.min(MAX_LENGTH as u32);
    }
    if !header.msg_name.is_null() && header.msg_namelen > 0 {
        let destination = header.msg_name.cast_const().cast();
        let call = DestinationCall::from_send_flags(flags);
        // SAFETY: the program passed this address.
        match unsafe { choose_destination(fd, destination, header.msg_namelen, call) } {
            CallAction::PassThrough | CallAction::Disconnect => {}
            CallAction::UseAddress { address, cleared_v6only } => {
                has_cleared_v6only = cleared_v6only;
                let buffer = name.write(address);
                header.msg_name = buffer.as_ptr().cast_mut().cast();
                header.msg_namelen = buffer.length();
                is_rewritten = true;
            }
            CallAction::Fail(error) => return MessageAction::Fail(error),
        }
    }
    if has_control {
        // SAFETY: guaranteed by the caller. If the name was rewritten, it points to `name`.
        let control = unsafe { rewrite_control(process, Fd(fd), header, unused_control) };
        if let Some(control) = control {
            header.msg_control = control.cast();
            is_rewritten = true;
        }
    }
    if is_rewritten {
        MessageAction::Rewritten { cleared_v6only: has_cleared_v6only }
    } else {
        MessageAction::PassThrough
    }
}

/// Copies the control data and rewrites its packet information (row 24). Returns the copy, or
/// `None` if the kernel must receive the program's control data unchanged. Records the facts of
/// descriptors in the control data.
///
/// # Safety
/// `header` is a copy of a message that the program passed to sendmsg or sendmmsg. Its name may be
/// the rewritten address.
unsafe fn rewrite_control(
    process: &HookedProcess,
    fd: Fd,
    header: &msghdr,
    unused_control: &mut &mut [MaybeUninit<u8>],
) -> Option<*mut u8> {
    let program_data = header.msg_control.cast_const().cast::<u8>();
    let length = header.msg_controllen;
    if length > MAX_CONTROL_LENGTH {
        // The hook does not examine this data, so it must assume that the data contains
        // descriptors.
        PAIRED_SOCKETS.union(PORTLESS_BINDINGS).record();
        return None;
    }
    let buffer = unused_control.get_mut(..length)?;
    if !caller_memory::is_readable(program_data, length) {
        return None;
    }
    let copy = buffer.as_mut_ptr().cast::<u8>();
    // SAFETY: `length` bytes are readable, and the program does not change them during the call.
    // `copy` points to `length` bytes that belong to this hook.
    let control_data = unsafe {
        std::ptr::copy_nonoverlapping(program_data, copy, length);
        std::slice::from_raw_parts_mut(copy, length)
    };
    record_passed_fds(process, control_data);
    let is_rewritten = replace_packet_info(control_data, |info| {
        let destination = if header.msg_name.is_null() {
            fd.peer()
        } else {
            // SAFETY: guaranteed by the caller.
            unsafe { SockaddrBuf::read(header.msg_name.cast(), header.msg_namelen) }
                .and_then(|buffer| parse_inet(buffer.bytes()))
        };
        process.rewriter().send_packet_info(&fd, info, destination).rewritten()
    });
    if !is_rewritten {
        return None;
    }
    let (used, rest) = std::mem::take(unused_control)
        .split_at_mut_checked(length.next_multiple_of(CONTROL_ALIGNMENT))?;
    *unused_control = rest;
    Some(used.as_mut_ptr().cast())
}
