//! The calls that take a `struct msghdr`: an address, and control messages that name one.
//!
//! What must be changed is changed in copies on the stack; the program's own structs are read, and
//! written only where the kernel has just written too.

use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use libc::{c_int, c_uint, cmsghdr, mmsghdr, msghdr, ssize_t};
use vipool::rewrite::Socket;
use vipool::rewrite::sockaddr::{self as bytes, MAX_LENGTH, Parsed};

use crate::calls::{self, By, Instead};
use crate::facts::{Facts, PAIRS};
use crate::guest::{self, Guest};
use crate::memory::{self, Array, Given};
use crate::names::show_bytes;
use crate::socket::Fd;
use crate::{errno, original};

/// The most control bytes of a message that are looked into; a longer one passes as it is. As many
/// are changed at a time: a signal handler's stack may be small.
const MOST_CONTROL: usize = 512;
/// How many messages of a sendmmsg are copied at a time.
const BATCH: usize = 8;
/// The kernel takes no more messages in one call (`UIO_MAXIOV`).
const MOST_MESSAGES: usize = 1024;

/// Room for changed control messages: each of them begins at a multiple of [`ALIGNMENT`].
#[repr(C, align(16))]
struct Control([MaybeUninit<u8>; MOST_CONTROL]);

const ALIGNMENT: usize = align_of::<Control>();

impl Control {
    const fn new() -> Self {
        Self([MaybeUninit::uninit(); MOST_CONTROL])
    }
}

/// What becomes of a message that is sent.
enum Message {
    Pass,
    /// Its header names what was changed.
    Change,
    Fail(c_int),
    /// There is no room for its control messages beside those of the others.
    Later,
}

/// sendmsg(2).
///
/// # Safety
/// As of the original.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sendmsg(fd: c_int, message: *const msghdr, flags: c_int) -> ssize_t {
    match guest::active() {
        // SAFETY: the caller's own call.
        Some(guest) => unsafe { send_one(guest, fd, message, flags) },
        // SAFETY: the caller's own call.
        None => unsafe { original::sendmsg(fd, message, flags) },
    }
}

/// A sendmsg of a listed program.
///
/// # Safety
/// As of sendmsg.
#[inline(never)]
unsafe fn send_one(guest: &Guest, fd: c_int, message: *const msghdr, flags: c_int) -> ssize_t {
    let (mut name, mut control) = (MaybeUninit::uninit(), Control::new());
    let mut header = memory::read(message);
    let decided = header.as_mut().map_or(Message::Pass, |header| {
        decide(guest, fd, header, flags, &mut name, &mut control.0.as_mut_slice())
    });
    match (decided, &header) {
        // SAFETY: the caller's own call, but for copies that live until it is over.
        (Message::Change, Some(header)) => unsafe { original::sendmsg(fd, header, flags) },
        (Message::Fail(error), _) => {
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
    match guest::active() {
        // SAFETY: the caller's own call.
        Some(guest) if count > 0 => unsafe { send_each(guest, fd, messages, count, flags) },
        // SAFETY: the caller's own call.
        _ => unsafe { original::sendmmsg(fd, messages, count, flags) },
    }
}

/// A sendmmsg of a listed program. As the kernel does, it fails only if nothing was sent.
///
/// # Safety
/// As of sendmmsg; at least one message.
#[inline(never)]
unsafe fn send_each(
    guest: &Guest,
    fd: c_int,
    messages: *mut mmsghdr,
    count: c_uint,
    flags: c_int,
) -> c_int {
    let before = errno::get();
    let mut messages = Array::new(messages);
    let count = (count as usize).min(MOST_MESSAGES);
    let mut sent = 0;
    while sent < count {
        let size = (count - sent).min(BATCH);
        // SAFETY: the caller's own call, of a part of the messages.
        let (done, goes_on) = unsafe { send_batch(guest, fd, &mut messages, sent, size, flags) };
        sent += done;
        if !goes_on {
            break;
        }
    }
    if sent == 0 {
        return -1;
    }
    errno::set(before);
    sent as c_int
}

/// Sends a few messages. Answers how many were sent, and whether those were all that were tried.
///
/// # Safety
/// As of sendmmsg; at least one message, at most [`BATCH`].
unsafe fn send_batch(
    guest: &Guest,
    fd: c_int,
    messages: &mut Array<mmsghdr>,
    start: usize,
    size: usize,
    flags: c_int,
) -> (usize, bool) {
    let mut names = [const { MaybeUninit::<Given>::uninit() }; BATCH];
    let mut copies = [const { MaybeUninit::<mmsghdr>::uninit() }; BATCH];
    let mut control = Control::new();
    let mut free = control.0.as_mut_slice();
    let (mut ready, mut changed) = (0, false);
    for (name, copy) in names.iter_mut().zip(&mut copies).take(size) {
        let Some(mut message) = messages.read(start + ready) else { break };
        match decide(guest, fd, &mut message.msg_hdr, flags, name, &mut free) {
            Message::Pass => {}
            Message::Change => changed = true,
            Message::Fail(error) if ready == 0 => {
                errno::set(error);
                return (0, false);
            }
            Message::Fail(_) | Message::Later => break,
        }
        copy.write(message);
        ready += 1;
    }
    // If not even the first one can be read, it is for the kernel to say so.
    let tried = ready.max(1);
    let first = if changed { copies.as_mut_ptr().cast() } else { messages.at(start) };
    // SAFETY: the caller's own call, or as many copies, and what they point to lives until it is
    // over.
    let sent = unsafe { original::sendmmsg(fd, first, tried as c_uint, flags) };
    let sent = usize::try_from(sent).unwrap_or(0);
    if changed {
        for place in 0..sent {
            // SAFETY: as many copies were made and sent.
            let length = unsafe { (*first.add(place)).msg_len };
            if !messages.write_length(start + place, length) {
                errno::set(libc::EFAULT);
                return (place, false);
            }
        }
    }
    (sent, sent == tried)
}

/// Decides about a message that is sent, and binds the socket first if it must be. What is changed
/// of it is put into `name` and what is `free`, and named by its header then.
fn decide<'a>(
    guest: &Guest,
    fd: c_int,
    header: &mut msghdr,
    flags: c_int,
    name: &'a mut MaybeUninit<Given>,
    free: &mut &'a mut [MaybeUninit<u8>],
) -> Message {
    let length = header.msg_controllen;
    let has_control = !header.msg_control.is_null() && length >= size_of::<cmsghdr>();
    if has_control && (free.len() + 1..=MOST_CONTROL).contains(&length) {
        return Message::Later;
    }
    let mut changed = false;
    // As the kernel does it: here a name that is too long is cut, unless its length is negative.
    if header.msg_namelen <= c_int::MAX as u32 {
        header.msg_namelen = header.msg_namelen.min(MAX_LENGTH as u32);
    }
    if !header.msg_name.is_null() && header.msg_namelen > 0 {
        let to = header.msg_name.cast_const().cast();
        match calls::towards(fd, to, header.msg_namelen, By::send(flags)) {
            Instead::Pass | Instead::Dissolve => {}
            Instead::With(given) => {
                let given = name.write(given);
                header.msg_name = given.as_ptr().cast_mut().cast();
                header.msg_namelen = given.length();
                changed = true;
            }
            Instead::Fail(error) => return Message::Fail(error),
        }
    }
    if has_control && let Some(control) = control(guest, Fd(fd), header, free) {
        header.msg_control = control.cast();
        changed = true;
    }
    if changed { Message::Change } else { Message::Pass }
}

/// The control messages with another source than the program named (row 24), if it named one. Of
/// descriptors in them it is noted what they may become elsewhere.
fn control(
    guest: &Guest,
    fd: Fd,
    header: &msghdr,
    free: &mut &mut [MaybeUninit<u8>],
) -> Option<*mut u8> {
    let from = header.msg_control.cast_const().cast::<u8>();
    let length = header.msg_controllen;
    if length > MOST_CONTROL {
        PAIRS.note();
        return None;
    }
    let room = free.get_mut(..length)?;
    if !memory::is_readable(from, length) {
        return None;
    }
    let copy = room.as_mut_ptr().cast::<u8>();
    // SAFETY: this many bytes can be read there, there is room for them, and they are ours.
    let messages = unsafe {
        std::ptr::copy_nonoverlapping(from, copy, length);
        std::slice::from_raw_parts_mut(copy, length)
    };
    let mut rewritten = false;
    note_descriptors(guest, messages);
    each_source(messages, |source| {
        let to = if header.msg_name.is_null() {
            fd.peer()
        } else {
            Given::read(header.msg_name.cast(), header.msg_namelen)
                .and_then(|given| to_of(given.bytes()))
        };
        let new = guest.rewriter().send_source(source, to).rewritten();
        rewritten |= new.is_some();
        new
    });
    if !rewritten {
        return None;
    }
    let (kept, rest) =
        std::mem::take(free).split_at_mut_checked(length.next_multiple_of(ALIGNMENT))?;
    *free = rest;
    Some(kept.as_mut_ptr().cast())
}

fn to_of(name: &[u8]) -> Option<SocketAddr> {
    match bytes::parse(name) {
        Parsed::Inet(to) => Some(to),
        Parsed::Unspecified(_) | Parsed::Other => None,
    }
}

/// recvmsg(2).
///
/// # Safety
/// As of the original.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn recvmsg(fd: c_int, message: *mut msghdr, flags: c_int) -> ssize_t {
    let guest = guest::active();
    let room = guest
        .and_then(|_| memory::read(message.cast_const()))
        .map(|header| header.msg_namelen as usize);
    // SAFETY: the caller's own call.
    let received = unsafe { original::recvmsg(fd, message, flags) };
    if let (Some(guest), Some(room), 0..) = (guest, room, received) {
        // SAFETY: the kernel has just written there.
        unsafe { show_message(guest, fd, message, room) };
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
    match guest::active() {
        // SAFETY: the caller's own call.
        Some(guest) => unsafe { receive_each(guest, fd, messages, count, flags, timeout) },
        // SAFETY: the caller's own call.
        None => unsafe { original::recvmmsg(fd, messages, count, flags, timeout) },
    }
}

/// A recvmmsg of a listed program.
///
/// # Safety
/// As of recvmmsg.
#[inline(never)]
unsafe fn receive_each(
    guest: &Guest,
    fd: c_int,
    messages: *mut mmsghdr,
    count: c_uint,
    flags: c_int,
    timeout: *mut libc::timespec,
) -> c_int {
    // How much room there is for each address, noted before the kernel overwrites it.
    let mut rooms = [0u8; MOST_MESSAGES];
    let mut array = Array::new(messages);
    for (place, room) in rooms.iter_mut().take(count as usize).enumerate() {
        let Some(message) = array.read(place) else { break };
        *room = u8::try_from(message.msg_hdr.msg_namelen).unwrap_or(u8::MAX);
    }
    // SAFETY: the caller's own call.
    let received = unsafe { original::recvmmsg(fd, messages, count, flags, timeout) };
    for (place, room) in rooms.iter().take(usize::try_from(received).unwrap_or(0)).enumerate() {
        // SAFETY: the kernel has just written there.
        unsafe {
            show_message(guest, fd, &raw mut (*messages.add(place)).msg_hdr, (*room).into());
        }
    }
    received
}

/// Shows a received message as the program shall see it.
///
/// # Safety
/// The kernel has just received into this message.
unsafe fn show_message(guest: &Guest, fd: c_int, message: *mut msghdr, room: usize) {
    // SAFETY: the caller's promise.
    let header = unsafe { message.read_unaligned() };
    if !header.msg_name.is_null() {
        let length = header.msg_namelen as usize;
        let written = room.min(length).min(MAX_LENGTH);
        // SAFETY: the kernel has just written this many bytes there.
        let name = unsafe { std::slice::from_raw_parts_mut(header.msg_name.cast(), written) };
        show_bytes(guest, name, length > written, false, || None, || Fd(fd).local());
    }
    let length = header.msg_controllen;
    if !header.msg_control.is_null() && length >= size_of::<cmsghdr>() {
        // SAFETY: the kernel has just written this many bytes there.
        let control =
            unsafe { std::slice::from_raw_parts_mut(header.msg_control.cast::<u8>(), length) };
        note_descriptors(guest, control);
        let names = guest.names();
        each_source(control, |address| names.shown_ip(address).rewritten());
    }
}

/// Notes what may become true by the descriptors that are passed (`SCM_RIGHTS` of unix(7)).
fn note_descriptors(guest: &Guest, control: &mut [u8]) {
    each_control(control, |level, kind, body| {
        if (level, kind) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
            for fd in body.as_chunks().0 {
                Facts::of(guest, c_int::from_ne_bytes(*fd)).note();
            }
        }
    });
}

/// Visits the addresses in `IP_PKTINFO` and `IPV6_PKTINFO` control messages (ip(7), ipv6(7)) and
/// writes what `change` gives in their place, where it is of the same family.
fn each_source(control: &mut [u8], mut change: impl FnMut(IpAddr) -> Option<IpAddr>) {
    each_control(control, |level, kind, body| match (level, kind) {
        // struct in_pktinfo: index, local address (source when sending), destination.
        (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
            for at in [4, 8] {
                if let Some(octets) = body.get_mut(at..).and_then(|b| b.first_chunk_mut::<4>())
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
fn each_control(control: &mut [u8], mut visit: impl FnMut(c_int, c_int, &mut [u8])) {
    /// Control messages are aligned as `size_t` is (`CMSG_ALIGN`).
    const ALIGN: usize = size_of::<usize>();
    const HEADER: usize = size_of::<cmsghdr>();
    let mut rest = control;
    while let Some(header) = rest.first_chunk::<HEADER>() {
        // The length counts the header; the kernel's own type is size_t.
        let Some(length) = header.first_chunk().copied().map(usize::from_ne_bytes) else { return };
        let number = |at: usize| {
            header.get(at..).and_then(|tail| tail.first_chunk()).copied().map(c_int::from_ne_bytes)
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
