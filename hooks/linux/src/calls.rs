//! The calls that bind or reach one socket address.

use std::net::{Ipv4Addr, SocketAddr};
use std::ptr;

use libc::{c_int, c_void, size_t, sockaddr, socklen_t, ssize_t};
use vipool::rewrite::sockaddr::{self as bytes, Parsed};
use vipool::rewrite::{Bind, Connect, Outcome, Refusal};

use crate::guest::{self, Guest};
use crate::memory::{self, Given};
use crate::socket::Fd;
use crate::{errno, original};

/// What is done with a call instead of passing it on.
pub enum Instead {
    /// It is passed on as it is.
    Pass,
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
        (Outcome::Rewritten(plan), Some(mut given)) => {
            bytes::write(&plan.address, given.bytes_mut());
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
    let pass = Outcome::Passed(vipool::rewrite::Reason::NotInet);
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
    match guest::active().map(|guest| {
        towards(guest, fd, address, length, |rewriter, to| rewriter.connect(&Fd(fd), to))
    }) {
        Some(Instead::Fail(error)) => {
            errno::set(error);
            -1
        }
        // SAFETY: the address is as long as is said.
        Some(Instead::With(given)) => unsafe {
            original::connect(fd, given.as_ptr(), given.length())
        },
        // SAFETY: the caller's own call.
        Some(Instead::Pass) | None => unsafe { original::connect(fd, address, length) },
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
    let instead = match guest::active() {
        Some(guest) if !address.is_null() => towards(guest, fd, address, length, |rewriter, to| {
            rewriter.send(&Fd(fd), to, flags & libc::MSG_FASTOPEN != 0)
        }),
        _ => Instead::Pass,
    };
    match instead {
        Instead::Fail(error) => {
            errno::set(error);
            -1
        }
        // SAFETY: the address is as long as is said; the rest is the caller's own.
        Instead::With(given) => unsafe {
            original::sendto(fd, data, size, flags, given.as_ptr(), given.length())
        },
        // SAFETY: the caller's own call.
        Instead::Pass => unsafe { original::sendto(fd, data, size, flags, address, length) },
    }
}

/// Decides where a connect or a datagram goes, and binds the socket first if it must be.
#[inline]
pub fn towards(
    guest: &Guest,
    fd: c_int,
    address: *const sockaddr,
    length: socklen_t,
    decide: impl FnOnce(&guest::Decider<'_>, SocketAddr) -> Outcome<Connect>,
) -> Instead {
    let before = errno::get();
    let instead = prepare(guest, fd, address, length, decide);
    errno::set(before);
    instead
}

fn prepare(
    guest: &Guest,
    fd: c_int,
    address: *const sockaddr,
    length: socklen_t,
    decide: impl FnOnce(&guest::Decider<'_>, SocketAddr) -> Outcome<Connect>,
) -> Instead {
    let Some(mut given) = Given::read(address, length) else { return Instead::Pass };
    let Parsed::Inet(to) = bytes::parse(given.bytes()) else { return Instead::Pass };
    let rewriter = guest.rewriter();
    if let Outcome::Rewritten(interface) = rewriter.multicast_interface(to.ip()) {
        Fd(fd).set_multicast_interface(interface);
    }
    let plan = match decide(&rewriter, to) {
        Outcome::Rewritten(plan) => plan,
        Outcome::Refused(refusal) => return Instead::Fail(refused(refusal)),
        Outcome::Passed(_) => return Instead::Pass,
    };
    let fd = Fd(fd);
    if plan.clear_v6only {
        fd.set_option(libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 0);
    }
    if let Some(source) = plan.bind
        && fd.bind(source, plan.late_port) == libc::EADDRNOTAVAIL
        && !rewriter.retries_untouched(source)
    {
        return Instead::Fail(libc::EADDRNOTAVAIL);
    }
    if plan.to == to {
        return Instead::Pass;
    }
    bytes::write(&plan.to, given.bytes_mut());
    Instead::With(given)
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
