//! The calls that bind or reach one socket address.

use std::net::{Ipv4Addr, SocketAddr};
use std::ptr;

use libc::{c_int, c_void, size_t, sockaddr, socklen_t, ssize_t};
use vipool::rewrite::sockaddr::{self as bytes, Parsed};
use vipool::rewrite::{Bind, Connect, Outcome, Reason, Refusal, Socket};

use crate::facts::{OTHER_PROTOCOLS, PAIRS, PORTLESS};
use crate::guest::{self, Decider, Guest};
use crate::mark::{self, Mark};
use crate::memory::{self, Given};
use crate::socket::{Fd, Outward};
use crate::{errno, original};

/// What is done with a call instead of passing it on.
pub enum Instead {
    /// It is passed on as it is.
    Pass,
    /// The same, and a connect dissolves the connection.
    Dissolve,
    /// It is made with this address.
    With(Given),
    /// It fails with this error.
    Fail(c_int),
}

fn refused(refusal: Refusal) -> c_int {
    match refusal {
        Refusal::AddressOfAnother => libc::EADDRNOTAVAIL,
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
    let usual = match (domain, kind & !(libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK)) {
        (libc::AF_UNIX | libc::AF_NETLINK, _) => true,
        (libc::AF_INET | libc::AF_INET6, libc::SOCK_STREAM) => {
            matches!(protocol, 0 | IPPROTO_TCP | IPPROTO_MPTCP)
        }
        (libc::AF_INET | libc::AF_INET6, libc::SOCK_DGRAM) => {
            matches!(protocol, 0 | IPPROTO_UDP | IPPROTO_UDPLITE)
        }
        _ => false,
    };
    if !usual {
        OTHER_PROTOCOLS.note();
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
    let Some(guest) = guest::active() else {
        // SAFETY: the caller's own call.
        return unsafe { original::bind(fd, address, length) };
    };
    let before = errno::get();
    let (outcome, given) = decide_bind(guest, fd, address, length);
    errno::set(before);
    match (outcome, given) {
        (Outcome::Rewritten(plan), Some(given)) => {
            let given = given.with(&plan.address);
            let result = bind_as(Fd(fd), &plan, &given);
            if result != 0
                && errno::get() == libc::EADDRNOTAVAIL
                && guest.rewriter().retries_untouched(plan.address.ip())
            {
                errno::set(before);
                // SAFETY: the caller's own call.
                return unsafe { original::bind(fd, address, length) };
            }
            result
        }
        (Outcome::Refused(refusal), _) => {
            errno::set(refused(refusal));
            -1
        }
        // SAFETY: the caller's own call.
        _ => unsafe { original::bind(fd, address, length) },
    }
}

fn decide_bind(
    guest: &Guest,
    fd: c_int,
    address: *const sockaddr,
    length: socklen_t,
) -> (Outcome<Bind>, Option<Given>) {
    let pass = Outcome::Passed(Reason::NotInet);
    let Some(given) = Given::read(address, length) else { return (pass, None) };
    let wanted = match bytes::parse(given.bytes()) {
        Parsed::Inet(address) => address,
        // Row 15: of old, this stands for 0.0.0.0.
        Parsed::Unspecified(Some(port)) => SocketAddr::from(([0, 0, 0, 0], port)),
        Parsed::Unspecified(None) | Parsed::Other => return (pass, None),
    };
    (guest.rewriter().bind(&Fd(fd), wanted), Some(given))
}

/// Makes the original call with another address, and clears `IPV6_V6ONLY` for it if it must be.
fn bind_as(fd: Fd, plan: &Bind, given: &Given) -> c_int {
    if plan.clear_v6only {
        fd.set_option(libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 0);
    }
    // SAFETY: the address is as long as is said.
    let result = unsafe { original::bind(fd.0, given.as_ptr(), given.length()) };
    if result != 0 && plan.clear_v6only {
        let failed = errno::get();
        fd.set_option(libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1);
        errno::set(failed);
    }
    result
}

/// listen(2). See [`vipool::rewrite::Rewriter::listen`].
///
/// # Safety
/// As of the original.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn listen(fd: c_int, backlog: c_int) -> c_int {
    if let Some(guest) = guest::active() {
        let before = errno::get();
        let rewriter = guest.rewriter();
        if let Outcome::Rewritten(plan) = rewriter.listen(&Fd(fd)) {
            let failed = Fd(fd).bind(plan.address.ip(), false);
            if failed == libc::EADDRNOTAVAIL && !rewriter.retries_untouched(plan.address.ip()) {
                errno::set(failed);
                return -1;
            }
        }
        errno::set(before);
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
    match towards(fd, address, length, By::Connect) {
        Instead::Fail(error) => {
            errno::set(error);
            -1
        }
        // SAFETY: the address is as long as is said.
        Instead::With(given) => unsafe { original::connect(fd, given.as_ptr(), given.length()) },
        // SAFETY: the caller's own call.
        Instead::Pass => unsafe { original::connect(fd, address, length) },
        Instead::Dissolve => {
            PORTLESS.note();
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
    match towards(fd, address, length, By::send(flags)) {
        Instead::Fail(error) => {
            errno::set(error);
            -1
        }
        // SAFETY: the address is as long as is said; the rest is the caller's own.
        Instead::With(given) => unsafe {
            original::sendto(fd, data, size, flags, given.as_ptr(), given.length())
        },
        // SAFETY: the caller's own call.
        Instead::Pass | Instead::Dissolve => unsafe {
            original::sendto(fd, data, size, flags, address, length)
        },
    }
}

/// By what kind of call a program names a destination.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// connect(2).
    Connect,
    /// A send with `MSG_FASTOPEN`, which connects a stream.
    FastOpen,
    /// Any other send.
    Send,
}

impl By {
    /// A send with these flags.
    pub fn send(flags: c_int) -> Self {
        if flags & libc::MSG_FASTOPEN != 0 { By::FastOpen } else { By::Send }
    }
}

/// Decides where a connect or a datagram goes, and binds the socket first if it must be.
#[inline(always)]
pub fn towards(fd: c_int, address: *const sockaddr, length: socklen_t, by: By) -> Instead {
    let Some(guest) = guest::latest() else { return Instead::Pass };
    let Some(given) = Given::read(address, length) else { return Instead::Pass };
    let to = match bytes::parse(given.bytes()) {
        Parsed::Inet(to) => to,
        Parsed::Unspecified(_) => return Instead::Dissolve,
        Parsed::Other => return Instead::Pass,
    };
    let binds = guest.binds_for(to.ip());
    let mark = if binds && by == By::Send { Mark::of(Fd(fd)) } else { Mark::Unknown };
    if mark == Mark::Bound {
        return Instead::Pass;
    }
    let before = errno::get();
    let may_try = binds && (by == By::Connect || mark == Mark::None);
    let instead = decide(Fd(fd), &given, to, by, mark, may_try);
    errno::set(before);
    instead
}

/// As [`towards`], of what is not decided at once; `may_try` if a bind may tell whether the socket
/// is bound.
#[inline(never)]
fn decide(fd: Fd, given: &Given, to: SocketAddr, by: By, mark: Mark, may_try: bool) -> Instead {
    let Some(guest) = guest::active() else { return Instead::Pass };
    let rewriter = guest.rewriter();
    if let Outcome::Rewritten(interface) = rewriter.multicast_interface(to.ip()) {
        fd.set_multicast_interface(interface);
    }
    let outward = Outward::new(fd, to);
    let socket: &dyn Socket = if may_try { &outward } else { &fd };
    let outcome = match by {
        By::Connect => rewriter.connect(socket, to),
        By::FastOpen | By::Send => rewriter.send(socket, to, by == By::FastOpen),
    };
    let plan = match outcome {
        Outcome::Rewritten(plan) => plan,
        Outcome::Refused(refusal) => return Instead::Fail(refused(refusal)),
        Outcome::Passed(reason) => {
            if mark == Mark::None && reason == Reason::AlreadyBound {
                mark::set_if_bound(fd);
            }
            note_pair(&rewriter, to, by);
            return Instead::Pass;
        }
    };
    if let Err(error) = prepare(&rewriter, fd, &plan, mark) {
        return Instead::Fail(error);
    }
    note_pair(&rewriter, plan.to, by);
    if plan.to == to { Instead::Pass } else { Instead::With(given.with(&plan.to)) }
}

/// Binds a socket as is planned for where it goes, or answers the error that the call fails with.
fn prepare(rewriter: &Decider<'_>, fd: Fd, plan: &Connect, mark: Mark) -> Result<(), c_int> {
    if plan.clear_v6only {
        fd.set_option(libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 0);
    }
    let Some(source) = plan.bind else { return Ok(()) };
    match fd.bind(source, plan.late_port) {
        0 if mark == Mark::None => mark::set(fd),
        0 => {}
        // One that is bound already needs no address.
        libc::EADDRNOTAVAIL if !rewriter.retries_untouched(source) && !fd.has_port() => {
            return Err(libc::EADDRNOTAVAIL);
        }
        _ if mark == Mark::None => mark::set_if_bound(fd),
        _ => {}
    }
    Ok(())
}

/// What is about to be connected within the session may be a pair from then on. A datagram with a
/// destination connects nothing.
#[inline]
fn note_pair(rewriter: &Decider<'_>, to: SocketAddr, by: By) {
    if by != By::Send && rewriter.may_join(to) {
        PAIRS.note();
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
        PORTLESS.note();
    }
    let mut number = None;
    if level == libc::IPPROTO_IP
        && option == libc::IP_MULTICAST_IF
        && length as usize >= size_of::<libc::ip_mreqn>()
        && let Some(guest) = guest::active()
    {
        number = memory::read(value.cast::<libc::ip_mreqn>()).filter(|number| {
            number.imr_address.s_addr == libc::INADDR_ANY && number.imr_ifindex != 0
        });
        let group = Ipv4Addr::new(224, 0, 0, 1);
        match (&mut number, guest.rewriter().multicast_interface(group.into())) {
            (Some(number), Outcome::Rewritten(interface)) => {
                number.imr_address.s_addr = u32::from_ne_bytes(interface.octets());
            }
            _ => number = None,
        }
    }
    match &number {
        // SAFETY: the caller's own call, with a copy of its value of its own length.
        Some(number) => unsafe {
            let size = size_of::<libc::ip_mreqn>() as socklen_t;
            original::setsockopt(fd, level, option, ptr::from_ref(number).cast(), size)
        },
        // SAFETY: the caller's own call.
        None => unsafe { original::setsockopt(fd, level, option, value, length) },
    }
}
