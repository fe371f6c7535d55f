//! Derives [`Facts`] from descriptors that this process receives from another process or passes to
//! another process.

use std::ptr;
use std::sync::atomic::AtomicU8;

use libc::c_int;
use vipool::rewrite::control_message::for_each_control_message;
use vipool::rewrite::{HookedProcess, Protocol, Socket};

use crate::descriptors;
use crate::facts::{self, Facts, OTHER_PROTOCOLS, PAIRED_SOCKETS, PORTLESS_BINDINGS};
use crate::socket::Fd;

/// Returns the facts that may be true for the socket `fd`, now or later. They may become true later
/// because another process that has the same socket open can change the socket.
fn possible_facts(process: &HookedProcess, fd: c_int) -> Facts {
    let fd = Fd(fd);
    let domain = match fd.option(libc::SOL_SOCKET, libc::SO_DOMAIN) {
        // `None`: the descriptor is not a socket. Sockets of the two families have no IPv4 or IPv6
        // address.
        None | Some(libc::AF_UNIX | libc::AF_NETLINK) => return Facts::NONE,
        Some(domain) => domain,
    };
    let protocol = fd.protocol();
    let is_inet = [libc::AF_INET, libc::AF_INET6].contains(&domain);
    let protocol_facts = match protocol {
        Protocol::Tcp | Protocol::Udp | Protocol::UdpLite if is_inet => Facts::NONE,
        _ => OTHER_PROTOCOLS,
    };
    let peer_facts = match (protocol, fd.peer()) {
        // A connected TCP socket keeps its two addresses.
        (Protocol::Tcp, Some(peer)) => {
            let visible = process.display_rewriter().visible_address(peer, || fd.local_address());
            if visible.rewritten().is_some() { PAIRED_SOCKETS } else { Facts::NONE }
        }
        (Protocol::Tcp, None) if fd.option(libc::SOL_SOCKET, libc::SO_ACCEPTCONN) == Some(1) => {
            Facts::NONE
        }
        // Another process that has this socket open may connect or disconnect it.
        _ => PAIRED_SOCKETS.union(PORTLESS_BINDINGS),
    };
    protocol_facts.union(peer_facts)
}

/// Records the facts that may become true because of descriptors in control messages (`SCM_RIGHTS`
/// of unix(7)).
pub fn record_passed_fds(process: &HookedProcess, control: &mut [u8]) {
    for_each_control_message(control, |level, message_type, data| {
        if (level, message_type) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
            for fd in data.as_chunks().0 {
                possible_facts(process, c_int::from_ne_bytes(*fd)).record();
            }
        }
    });
}

/// Scans the descriptors that are already open when the dynamic linker loads this library. The
/// process inherited them, or constructors of other libraries opened them. If this function fails,
/// every fact stays possible.
pub fn scan_inherited_fds(process: &HookedProcess) {
    let mut facts = Facts::NONE;
    let is_complete =
        descriptors::for_each_open_fd(|fd| facts = facts.union(possible_facts(process, fd)));
    if !is_complete {
        return;
    }
    // SAFETY: the call creates a new anonymous mapping at an address that the kernel chooses.
    let page = unsafe {
        let (protection, flags) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
        libc::mmap(ptr::null_mut(), size_of::<AtomicU8>(), protection, flags, -1, 0)
    };
    if page != libc::MAP_FAILED {
        // SAFETY: the mapping is writable, zeroed, aligned to a page and never unmapped.
        let page = unsafe { &*page.cast::<AtomicU8>() };
        facts::use_shared_page(page, facts);
    }
}
