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
use crate::memory::{self, Given};
use crate::names::show_bytes;
use crate::socket::Fd;
use crate::{errno, original};

/// The most control bytes of a message that are looked into; a longer one passes as it is.
const MOST_CONTROL: usize = 512;
/// How many messages of a sendmmsg are copied at a time.
const BATCH: usize = 8;
/// The kernel takes no more messages in one call (`UIO_MAXIOV`).
const MOST_MESSAGES: usize = 1024;

/// A message with what was changed in it. The struct points into itself once [`Changed::link`] was
/// called, so it stays where it is from then on.
struct Changed {
    header: msghdr,
    name: Option<Given>,
    control: Option<Control>,
}

#[repr(C, align(16))]
#[derive(Clone, Copy)]
struct Control {
    bytes: [u8; MOST_CONTROL],
}

/// What becomes of a message that is sent. Not boxed: a hook has no heap.
#[allow(clippy::large_enum_variant)]
enum Message {
    Pass,
    Change(Changed),
    Fail(c_int),
}

impl Changed {
    fn link(&mut self) -> msghdr {
        if let Some(name) = &self.name {
            self.header.msg_name = name.as_ptr().cast_mut().cast();
            self.header.msg_namelen = name.length();
        }
        if let Some(control) = &mut self.control {
            self.header.msg_control = control.bytes.as_mut_ptr().cast();
        }
        self.header
    }
}

/// sendmsg(2).
///
/// # Safety
/// As of the original.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sendmsg(fd: c_int, message: *const msghdr, flags: c_int) -> ssize_t {
    let decided = match guest::active() {
        Some(guest) => decide(guest, fd, message, flags),
        None => Message::Pass,
    };
    match decided {
        // SAFETY: the caller's own call.
        Message::Pass => unsafe { original::sendmsg(fd, message, flags) },
        Message::Fail(error) => {
            errno::set(error);
            -1
        }
        Message::Change(mut changed) => {
            let header = changed.link();
            // SAFETY: the caller's own call, but for copies that live until it is over.
            unsafe { original::sendmsg(fd, &raw const header, flags) }
        }
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
    let Some(guest) = guest::active() else {
        // SAFETY: the caller's own call.
        return unsafe { original::sendmmsg(fd, messages, count, flags) };
    };
    let count = (count as usize).min(MOST_MESSAGES);
    let mut sent = 0;
    while sent < count {
        // SAFETY: the program says that there are this many.
        let batch = unsafe { messages.add(sent) };
        let size = (count - sent).min(BATCH);
        // SAFETY: as above; the caller's own call otherwise.
        let done = unsafe { send_batch(guest, fd, batch, size, flags) };
        if done < 0 {
            return if sent == 0 { -1 } else { sent as c_int };
        }
        sent += done as usize;
        if (done as usize) < size {
            break;
        }
    }
    sent as c_int
}

/// A sendmmsg of a few messages.
///
/// # Safety
/// As of sendmmsg; at most [`BATCH`] messages.
unsafe fn send_batch(
    guest: &Guest,
    fd: c_int,
    messages: *mut mmsghdr,
    size: usize,
    flags: c_int,
) -> c_int {
    let mut changed = [const { MaybeUninit::<Changed>::uninit() }; BATCH];
    let mut copies = [const { MaybeUninit::<mmsghdr>::uninit() }; BATCH];
    let mut ready = 0;
    for (place, (changed, copy)) in changed.iter_mut().zip(&mut copies).take(size).enumerate() {
        // SAFETY: the program says that there are this many.
        let message = unsafe { messages.add(place) };
        let Some(mut header) = memory::read(message) else { break };
        // SAFETY: a part of the same struct.
        let inner = unsafe { &raw const (*message).msg_hdr };
        match decide(guest, fd, inner, flags) {
            Message::Pass => {}
            Message::Change(made) => header.msg_hdr = changed.write(made).link(),
            Message::Fail(error) if place == 0 => {
                errno::set(error);
                return -1;
            }
            Message::Fail(_) => break,
        }
        copy.write(header);
        ready += 1;
    }
    if ready == 0 {
        // The first one can't be read: as the kernel says it.
        // SAFETY: the caller's own call.
        return unsafe { original::sendmmsg(fd, messages, size as c_uint, flags) };
    }
    let first = copies.as_mut_ptr().cast::<mmsghdr>();
    // SAFETY: this many copies were made, and what they point to lives until the call is over.
    let sent = unsafe { original::sendmmsg(fd, first, ready, flags) };
    for place in 0..usize::try_from(sent).unwrap_or(0) {
        // SAFETY: as many were made and sent; the program's own structs are there to be written.
        unsafe { (*messages.add(place)).msg_len = (*first.add(place)).msg_len };
    }
    sent
}

/// Decides about a message that is sent, and binds the socket first if it must be.
fn decide(guest: &Guest, fd: c_int, message: *const msghdr, flags: c_int) -> Message {
    let Some(mut header) = memory::read(message) else { return Message::Pass };
    // As the kernel does it: here a name that is too long is cut, unless its length is negative.
    if header.msg_namelen <= c_int::MAX as u32 {
        header.msg_namelen = header.msg_namelen.min(MAX_LENGTH as u32);
    }
    let mut changed = Changed { header, name: None, control: None };
    if !header.msg_name.is_null() && header.msg_namelen > 0 {
        let name = header.msg_name.cast_const().cast();
        match calls::towards(fd, name, header.msg_namelen, By::send(flags)) {
            Instead::Pass | Instead::Dissolve => {}
            Instead::With(given) => changed.name = Some(given),
            Instead::Fail(error) => return Message::Fail(error),
        }
    }
    let length = header.msg_controllen;
    if !header.msg_control.is_null() && length >= size_of::<cmsghdr>() {
        changed.control = control(guest, Fd(fd), &changed, length);
    }
    if changed.name.is_some() || changed.control.is_some() {
        Message::Change(changed)
    } else {
        Message::Pass
    }
}

/// The control messages with another source than the program named (row 24), if it named one. Of
/// descriptors in them it is noted what they may become elsewhere.
fn control(guest: &Guest, fd: Fd, message: &Changed, length: usize) -> Option<Control> {
    let from = message.header.msg_control.cast_const().cast::<u8>();
    if length > MOST_CONTROL {
        PAIRS.note();
        return None;
    }
    if !memory::is_readable(from, length) {
        return None;
    }
    let mut control = Control { bytes: [0; MOST_CONTROL] };
    // SAFETY: this many bytes can be read there, and there is room for them.
    unsafe { std::ptr::copy_nonoverlapping(from, control.bytes.as_mut_ptr(), length) };
    let mut rewritten = false;
    let messages = control.bytes.get_mut(..length)?;
    note_descriptors(guest, messages);
    each_source(messages, |source| {
        let to = match &message.name {
            Some(given) => to_of(given.bytes()),
            None if message.header.msg_name.is_null() => fd.peer(),
            None => Given::read(message.header.msg_name.cast(), message.header.msg_namelen)
                .and_then(|given| to_of(given.bytes())),
        };
        let new = guest.rewriter().send_source(source, to).rewritten();
        rewritten |= new.is_some();
        new
    });
    rewritten.then_some(control)
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
    let guest = guest::active();
    // How much room there is for each address, noted before the kernel overwrites it.
    let mut rooms = [0u8; MOST_MESSAGES];
    if guest.is_some() {
        for (place, room) in rooms.iter_mut().take(count as usize).enumerate() {
            // SAFETY: the program says that there are this many.
            let Some(header) = memory::read(unsafe { messages.add(place) }) else { break };
            *room = u8::try_from(header.msg_hdr.msg_namelen).unwrap_or(u8::MAX);
        }
    }
    // SAFETY: the caller's own call.
    let received = unsafe { original::recvmmsg(fd, messages, count, flags, timeout) };
    if let Some(guest) = guest {
        for (place, room) in rooms.iter().take(usize::try_from(received).unwrap_or(0)).enumerate() {
            // SAFETY: the kernel has just written there.
            unsafe {
                show_message(guest, fd, &raw mut (*messages.add(place)).msg_hdr, (*room).into());
            }
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
