//! Hook of getifaddrs(3).

use std::ptr;

use libc::{c_int, ifaddrs, socklen_t};
use vipool::rewrite::sockaddr as sockaddr_bytes;

use crate::sockaddr_buf::parse_sockaddr;
use crate::{errno, hooked_process, original};

/// getifaddrs(3). If the policy hides addresses, removes every virtual IP except V (row 43).
///
/// # Safety
/// The caller must uphold the contract of the original function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getifaddrs(list: *mut *mut ifaddrs) -> c_int {
    // SAFETY: the program passed these arguments.
    let status = unsafe { original::getifaddrs(list) };
    if status == 0
        && let Some(process) = hooked_process::current()
    {
        let saved_errno = errno::get();
        let rewriter = process.rewriter();
        // SAFETY: the C library has just created the list. glibc makes a single allocation for all
        // entries, so the hook frees no entry.
        unsafe {
            let is_hidden = |entry: &ifaddrs| {
                let length = match entry.ifa_addr.as_ref().map(|name| c_int::from(name.sa_family)) {
                    Some(libc::AF_INET) => sockaddr_bytes::IPV4_LENGTH,
                    Some(libc::AF_INET6) => sockaddr_bytes::IPV6_LENGTH,
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
                    // freeifaddrs frees the allocation at the start of the list, so the list must
                    // still start there. Copy the second entry over the first.
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
    status
}
