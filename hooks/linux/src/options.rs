//! Hooks of socket(2) and setsockopt(2). The hooks record facts about the sockets of the process
//! (see [`crate::facts`]). The hook of setsockopt also stores V in the socket if the program
//! selects a multicast interface by its index.

use std::net::Ipv4Addr;
use std::ptr;

use libc::{c_int, c_void, socklen_t};
use vipool::rewrite::Outcome;

use crate::facts::{OTHER_PROTOCOLS, PORTLESS_BINDINGS};
use crate::{caller_memory, hooked_process, original};

/// socket(2). Records [`OTHER_PROTOCOLS`] for a socket that may have an IPv4 or IPv6 address and is
/// not TCP, UDP or UDP-Lite. A socket of an unknown family may have such an address.
///
/// # Safety
/// The caller must uphold the contract of the original function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int {
    use libc::{IPPROTO_MPTCP, IPPROTO_TCP, IPPROTO_UDP, IPPROTO_UDPLITE};
    let needs_no_fact = match (domain, kind & !(libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK)) {
        (libc::AF_UNIX | libc::AF_NETLINK, _) => true,
        (libc::AF_INET | libc::AF_INET6, libc::SOCK_STREAM) => {
            matches!(protocol, 0 | IPPROTO_TCP | IPPROTO_MPTCP)
        }
        (libc::AF_INET | libc::AF_INET6, libc::SOCK_DGRAM) => {
            matches!(protocol, 0 | IPPROTO_UDP | IPPROTO_UDPLITE)
        }
        _ => false,
    };
    if !needs_no_fact {
        OTHER_PROTOCOLS.record();
    }
    // SAFETY: the program passed these arguments.
    unsafe { original::socket(domain, kind, protocol) }
}

/// setsockopt(2). Records [`PORTLESS_BINDINGS`] for `IP_BIND_ADDRESS_NO_PORT`.
///
/// A program can select the multicast interface by its index, without an address. The kernel never
/// reports this index (ip(7)), so the hook adds V as the address of the interface. When the program
/// later sends to a group, the hook reads V and does not change the interface (row 27). A negative
/// length passes, because the kernel rejects it.
///
/// # Safety
/// The caller must uphold the contract of the original function.
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
    let mut interface_request = None;
    if level == libc::IPPROTO_IP
        && option == libc::IP_MULTICAST_IF
        && (size_of::<libc::ip_mreqn>()..=c_int::MAX as usize).contains(&(length as usize))
        && let Some(process) = hooked_process::current()
    {
        // SAFETY: the program passed this value.
        interface_request = unsafe { caller_memory::read(value.cast::<libc::ip_mreqn>()) }.filter(
            |interface_request| {
                interface_request.imr_address.s_addr == libc::INADDR_ANY
                    && interface_request.imr_ifindex != 0
            },
        );
        // The interface is the same for every IPv4 multicast group.
        let group = Ipv4Addr::new(224, 0, 0, 1);
        match (&mut interface_request, process.rewriter().multicast_interface(group.into())) {
            (Some(interface_request), Outcome::Rewritten(interface)) => {
                interface_request.imr_address.s_addr = u32::from_ne_bytes(interface.octets());
            }
            _ => interface_request = None,
        }
    }
    match &interface_request {
        // SAFETY: the program passed these arguments. The value is a modified copy of the program's
        // value.
        Some(interface_request) => unsafe {
            let size = size_of::<libc::ip_mreqn>() as socklen_t;
            original::setsockopt(fd, level, option, ptr::from_ref(interface_request).cast(), size)
        },
        // SAFETY: the program passed these arguments.
        None => unsafe { original::setsockopt(fd, level, option, value, length) },
    }
}
