//! The list of interfaces.

use std::ptr;

use libc::{c_int, ifaddrs, socklen_t};
use vipool::rewrite::sockaddr as bytes;

use crate::addrinfo::parse_sockaddr;
use crate::{errno, hooked_process, original};

/// getifaddrs(3): the addresses of other sessions are left out where the policy says so (row 43).
///
/// # Safety
/// As of the original.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getifaddrs(list: *mut *mut ifaddrs) -> c_int {
    // SAFETY: the caller's own call.
    let failed = unsafe { original::getifaddrs(list) };
    if failed == 0
        && let Some(process) = hooked_process::current()
    {
        let saved_errno = errno::get();
        let rewriter = process.rewriter();
        // SAFETY: the library has just made the list, in one piece of memory.
        unsafe {
            let is_hidden = |entry: &ifaddrs| {
                let length = match entry.ifa_addr.as_ref().map(|name| c_int::from(name.sa_family)) {
                    Some(libc::AF_INET) => bytes::IPV4_LENGTH,
                    Some(libc::AF_INET6) => bytes::IPV6_LENGTH,
                    _ => return false,
                };
                parse_sockaddr(entry.ifa_addr, length as socklen_t)
                    .is_some_and(|address| rewriter.is_hidden(address.ip()))
            };
            let mut link = list;
            while let Some(entry) = (*link).as_mut() {
                if !is_hidden(entry) {
                    link = &raw mut entry.ifa_next;
                } else if link == list {
                    // The first entry is what will be freed: the next one moves into it.
                    match entry.ifa_next.as_ref() {
                        Some(next) => ptr::copy(next, entry, 1),
                        None => break,
                    }
                } else {
                    *link = entry.ifa_next;
                }
            }
        }
        errno::set(saved_errno);
    }
    failed
}
