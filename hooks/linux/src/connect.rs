//! The calls that bind or reach one socket address.

use std::net::{Ipv4Addr, SocketAddr};
use std::ptr;

use libc::{c_int, c_void, size_t, sockaddr, socklen_t, ssize_t};
use vipool::rewrite::sockaddr::{self as bytes, Parsed};
use vipool::rewrite::{Bind, Connect, Outcome, Reason, Refusal, Socket};

use crate::caller_memory::{self, SockaddrBuf};
use crate::facts::{OTHER_PROTOCOLS, PAIRED_SOCKETS, PORTLESS_BINDINGS};
use crate::hooked_process::{self, HookedProcess, ProcessRewriter};
use crate::mark::{self, Mark};
use crate::socket::{Fd, PresumedUnbound};
use crate::{errno, original};

/// What is done with a call instead of passing it on.
pub enum CallAction {
    /// It is passed on as it is.
    PassThrough,
    /// The same, and a connect dissolves the connection.
    Disconnect,
    /// It is made with this address.
    UseAddress(SockaddrBuf),
    /// It fails with this error.
    Fail(c_int),
}

fn errno_for(refusal: Refusal) -> c_int {
    match refusal {
        Refusal::OtherSessionAddress => libc::EADDRNOTAVAIL,
    }
}

/// socket(2): what is neither TCP nor UDP is noted, if it may take an address of IPv4 or IPv6; for
/// all that is known of other families, they may.
///
/// # Safety
/// As of the original.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int {
    use libc::{IPPROTO_MPTCP, IPPROTO_TCP, IPPROTO_UDP, IPPROTO_UDPLITE};
    let is_tracked_kind = match (domain, kind & !(libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK)) {
        (libc::AF_UNIX | libc::AF_NETLINK, _) => true,
        (libc::AF_INET | libc::AF_INET6, libc::SOCK_STREAM) => {
            matches!(protocol, 0 | IPPROTO_TCP | IPPROTO_MPTCP)
        }
        (libc::AF_INET | libc::AF_INET6, libc::SOCK_DGRAM) => {
            matches!(protocol, 0 | IPPROTO_UDP | IPPROTO_UDPLITE)
        }
        _ => false,
    };
    if !is_tracked_kind {
        OTHER_PROTOCOLS.record();
    }
    // SAFETY: the caller's own call.
    unsafe { original::socket(domain, kind, protocol) }
}

/// bind(2). See [`vipool::rewrite::Rewriter::bind`].
///
/// # Safety
/// As of the original.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bind(fd: c_int, address: *const sockaddr, length: socklen_t) -> c_int {
    let Some(process) = hooked_process::current() else {
        // SAFETY: the caller's own call.
        return unsafe { original::bind(fd, address, length) };
    };
    let saved_errno = errno::get();
    let (outcome, buffer) = plan_bind(process, fd, address, length);
    errno::set(saved_errno);
    match (outcome, buffer) {
        (Outcome::Rewritten(plan), Some(buffer)) => {
            let buffer = buffer.with_address(&plan.address);
            let result = bind_rewritten(Fd(fd), &plan, &buffer);
            if result != 0
                && errno::get() == libc::EADDRNOTAVAIL
                && process.rewriter().retries_original(plan.address.ip())
            {
                errno::set(saved_errno);
                // SAFETY: the caller's own call.
                return unsafe { original::bind(fd, address, length) };
            }
            result
        }
        (Outcome::Refused(refusal), _) => {
            errno::set(errno_for(refusal));
            -1
        }
        // SAFETY: the caller's own call.
        _ => unsafe { original::bind(fd, address, length) },
    }
}

fn plan_bind(
    process: &HookedProcess,
    fd: c_int,
    address: *const sockaddr,
    length: socklen_t,
) -> (Outcome<Bind>, Option<SockaddrBuf>) {
    let pass = Outcome::Passed(Reason::NotInet);
    let Some(buffer) = SockaddrBuf::read(address, length) else { return (pass, None) };
    let requested = match bytes::parse(buffer.bytes()) {
        Parsed::Inet(address) => address,
        // Row 15: of old, this stands for 0.0.0.0.
        Parsed::Unspecified(Some(port)) => SocketAddr::from(([0, 0, 0, 0], port)),
        Parsed::Unspecified(None) | Parsed::Other => return (pass, None),
    };
    (process.rewriter().bind(&Fd(fd), requested), Some(buffer))
}

/// Makes the original call with another address, and clears `IPV6_V6ONLY` for it if it must be.
fn bind_rewritten(fd: Fd, plan: &Bind, buffer: &SockaddrBuf) -> c_int {
    if plan.clear_v6only {
        fd.set_option(libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 0);
    }
    // SAFETY: the address is as long as is said.
    let result = unsafe { original::bind(fd.0, buffer.as_ptr(), buffer.length()) };
    if result != 0 && plan.clear_v6only {
        let error = errno::get();
        fd.set_option(libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1);
        errno::set(error);
    }
    result
}

/// listen(2). See [`vipool::rewrite::Rewriter::listen`].
///
/// # Safety
/// As of the original.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn listen(fd: c_int, backlog: c_int) -> c_int {
    if let Some(process) = hooked_process::current() {
        let saved_errno = errno::get();
        let rewriter = process.rewriter();
        if let Outcome::Rewritten(plan) = rewriter.listen(&Fd(fd)) {
            let error = Fd(fd).bind(plan.address.ip(), false);
            if error == libc::EADDRNOTAVAIL && !rewriter.retries_original(plan.address.ip()) {
                errno::set(error);
                return -1;
            }
        }
        errno::set(saved_errno);
    }
    // SAFETY: the caller's own call.
    unsafe { original::listen(fd, backlog) }
}

/// connect(2). See [`vipool::rewrite::Rewriter::connect`].
///
/// # Safety
/// As of the original.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn connect(fd: c_int, address: *const sockaddr, length: socklen_t) -> c_int {
    match choose_destination(fd, address, length, DestinationCall::Connect) {
        CallAction::Fail(error) => {
            errno::set(error);
            -1
        }
        // SAFETY: the address is as long as is said.
        CallAction::UseAddress(buffer) => unsafe {
            original::connect(fd, buffer.as_ptr(), buffer.length())
        },
        // SAFETY: the caller's own call.
        CallAction::PassThrough => unsafe { original::connect(fd, address, length) },
        CallAction::Disconnect => {
            PORTLESS_BINDINGS.record();
            mark::clear(Fd(fd));
            // SAFETY: the caller's own call.
            let result = unsafe { original::connect(fd, address, length) };
            // By another thread, meanwhile.
            mark::clear(Fd(fd));
            result
        }
    }
}

/// sendto(2). See [`vipool::rewrite::Rewriter::send`].
///
/// # Safety
/// As of the original.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sendto(
    fd: c_int,
    data: *const c_void,
    size: size_t,
    flags: c_int,
    address: *const sockaddr,
    length: socklen_t,
) -> ssize_t {
    match choose_destination(fd, address, length, DestinationCall::from_send_flags(flags)) {
        CallAction::Fail(error) => {
            errno::set(error);
            -1
        }
        // SAFETY: the address is as long as is said; the rest is the caller's own.
        CallAction::UseAddress(buffer) => unsafe {
            original::sendto(fd, data, size, flags, buffer.as_ptr(), buffer.length())
        },
        // SAFETY: the caller's own call.
        CallAction::PassThrough | CallAction::Disconnect => unsafe {
            original::sendto(fd, data, size, flags, address, length)
        },
    }
}

/// By what kind of call a program names a destination.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum DestinationCall {
    /// connect(2).
    Connect,
    /// A send with `MSG_FASTOPEN`, which connects a stream.
    FastOpen,
    /// Any other send.
    Send,
}

impl DestinationCall {
    /// A send with these flags.
    pub fn from_send_flags(flags: c_int) -> Self {
        if flags & libc::MSG_FASTOPEN != 0 {
            DestinationCall::FastOpen
        } else {
            DestinationCall::Send
        }
    }
}

/// Decides where a connect or a datagram goes, and binds the socket first if it must be.
#[inline(always)]
pub fn choose_destination(
    fd: c_int,
    address: *const sockaddr,
    length: socklen_t,
    call: DestinationCall,
) -> CallAction {
    let Some(process) = hooked_process::cached() else { return CallAction::PassThrough };
    let Some(buffer) = SockaddrBuf::read(address, length) else { return CallAction::PassThrough };
    let destination = match bytes::parse(buffer.bytes()) {
        Parsed::Inet(destination) => destination,
        Parsed::Unspecified(_) => return CallAction::Disconnect,
        Parsed::Other => return CallAction::PassThrough,
    };
    let binds = process.is_known_outside(destination.ip());
    let mark =
        if binds && call == DestinationCall::Send { Mark::read(Fd(fd)) } else { Mark::Unknown };
    if mark == Mark::Bound {
        return CallAction::PassThrough;
    }
    let saved_errno = errno::get();
    let may_probe_by_bind = binds && (call == DestinationCall::Connect || mark == Mark::Unmarked);
    let action = plan_destination(Fd(fd), &buffer, destination, call, mark, may_probe_by_bind);
    errno::set(saved_errno);
    action
}

/// As [`towards`], of what is not decided at once; `may_try` if a bind may tell whether the socket
/// is bound.
#[inline(never)]
fn plan_destination(
    fd: Fd,
    buffer: &SockaddrBuf,
    destination: SocketAddr,
    call: DestinationCall,
    mark: Mark,
    may_probe_by_bind: bool,
) -> CallAction {
    let Some(process) = hooked_process::current() else { return CallAction::PassThrough };
    let rewriter = process.rewriter();
    if let Outcome::Rewritten(interface) = rewriter.multicast_interface(destination.ip()) {
        fd.set_multicast_interface(interface);
    }
    let presumed_unbound = PresumedUnbound::new(fd, destination);
    let socket: &dyn Socket = if may_probe_by_bind { &presumed_unbound } else { &fd };
    let outcome = match call {
        DestinationCall::Connect => rewriter.connect(socket, destination),
        DestinationCall::FastOpen | DestinationCall::Send => {
            rewriter.send(socket, destination, call == DestinationCall::FastOpen)
        }
    };
    let plan = match outcome {
        Outcome::Rewritten(plan) => plan,
        Outcome::Refused(refusal) => return CallAction::Fail(errno_for(refusal)),
        Outcome::Passed(reason) => {
            if mark == Mark::Unmarked && reason == Reason::AlreadyBound {
                mark::set_if_bound(fd);
            }
            record_possible_pair(&rewriter, destination, call);
            return CallAction::PassThrough;
        }
    };
    if let Err(error) = bind_source(&rewriter, fd, &plan, mark) {
        return CallAction::Fail(error);
    }
    record_possible_pair(&rewriter, plan.destination, call);
    if plan.destination == destination {
        CallAction::PassThrough
    } else {
        CallAction::UseAddress(buffer.with_address(&plan.destination))
    }
}

/// Binds a socket as is planned for where it goes, or answers the error that the call fails with.
fn bind_source(
    rewriter: &ProcessRewriter<'_>,
    fd: Fd,
    plan: &Connect,
    mark: Mark,
) -> Result<(), c_int> {
    if plan.clear_v6only {
        fd.set_option(libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 0);
    }
    let Some(source) = plan.source else { return Ok(()) };
    match fd.bind(source, plan.defer_port) {
        0 if mark == Mark::Unmarked => mark::set(fd),
        0 => {}
        // One that is bound already needs no address.
        libc::EADDRNOTAVAIL if !rewriter.retries_original(source) && !fd.has_port() => {
            return Err(libc::EADDRNOTAVAIL);
        }
        _ if mark == Mark::Unmarked => mark::set_if_bound(fd),
        _ => {}
    }
    Ok(())
}

/// What is about to be connected within the session may be a pair from then on. A datagram with a
/// destination connects nothing.
#[inline]
fn record_possible_pair(
    rewriter: &ProcessRewriter<'_>,
    destination: SocketAddr,
    call: DestinationCall,
) {
    if call != DestinationCall::Send && rewriter.may_form_loopback_pair(destination) {
        PAIRED_SOCKETS.record();
    }
}

/// setsockopt(2): the interface for multicast may be given by its number alone, which nobody can
/// read back (ip(7)); V is put beside it, so that it is not taken for none (row 27).
///
/// # Safety
/// As of the original.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn setsockopt(
    fd: c_int,
    level: c_int,
    option: c_int,
    value: *const c_void,
    length: socklen_t,
) -> c_int {
    if level == libc::IPPROTO_IP && option == libc::IP_BIND_ADDRESS_NO_PORT {
        PORTLESS_BINDINGS.record();
    }
    let mut request = None;
    if level == libc::IPPROTO_IP
        && option == libc::IP_MULTICAST_IF
        && length as usize >= size_of::<libc::ip_mreqn>()
        && let Some(process) = hooked_process::current()
    {
        request = caller_memory::read(value.cast::<libc::ip_mreqn>()).filter(|request| {
            request.imr_address.s_addr == libc::INADDR_ANY && request.imr_ifindex != 0
        });
        let group = Ipv4Addr::new(224, 0, 0, 1);
        match (&mut request, process.rewriter().multicast_interface(group.into())) {
            (Some(request), Outcome::Rewritten(interface)) => {
                request.imr_address.s_addr = u32::from_ne_bytes(interface.octets());
            }
            _ => request = None,
        }
    }
    match &request {
        // SAFETY: the caller's own call, with a copy of its value of its own length.
        Some(request) => unsafe {
            let size = size_of::<libc::ip_mreqn>() as socklen_t;
            original::setsockopt(fd, level, option, ptr::from_ref(request).cast(), size)
        },
        // SAFETY: the caller's own call.
        None => unsafe { original::setsockopt(fd, level, option, value, length) },
    }
}
