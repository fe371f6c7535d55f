//! Hooks of getaddrinfo(3) and getnameinfo(3). The module `hostent` contains the hooks of the older
//! lookup functions.
//!
//! The original functions allocate memory and take locks, so they are not safe in signal handlers.
//! The hooks may therefore call freeaddrinfo(3) for removed entries. They allocate nothing and
//! change the result in place.

use std::ffi::CStr;
use std::net::SocketAddr;
use std::ptr;

use libc::{addrinfo, c_char, c_int, sockaddr, socklen_t};
use vipool::rewrite::HookedProcess;
use vipool::rewrite::sockaddr::{self as sockaddr_bytes, MAX_LENGTH};

use crate::host_names::{is_host_name, is_host_or_pool_address, session_address_for};
use crate::node_name::NodeName;
use crate::sockaddr_buf::{SockaddrBuf, parse_inet, parse_sockaddr};
use crate::{errno, hooked_process, original};

/// getaddrinfo(3). The host's own name resolves to V, or to the client with `client-ip` (row 40).
///
/// # Safety
/// The caller must uphold the contract of the original function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getaddrinfo(
    node: *const c_char,
    service: *const c_char,
    hints: *const addrinfo,
    result: *mut *mut addrinfo,
) -> c_int {
    // SAFETY: the program passed these arguments.
    let error = unsafe { original::getaddrinfo(node, service, hints, result) };
    if error == 0
        && !node.is_null()
        && let Some(process) = hooked_process::current()
    {
        let saved_errno = errno::get();
        // SAFETY: the library has just read the name and created the list.
        unsafe { replace_host_addresses(process, CStr::from_ptr(node), &mut *result) };
        errno::set(saved_errno);
    }
    error
}

/// If `name` is the host's own name, replaces the addresses in the list.
///
/// The replacements are the addresses of `Rewriter::resolve_host_name`: at most one for IPv4 and
/// one for IPv6. Removes and frees entries that have no replacement, and entries with the same
/// family, socket type and protocol as an earlier entry. Changes nothing if no entry has a
/// replacement.
///
/// # Safety
/// `list` is a list that getaddrinfo returned.
unsafe fn replace_host_addresses(process: &HookedProcess, name: &CStr, list: &mut *mut addrinfo) {
    let rewriter = process.rewriter();
    let Some(session_addresses) = rewriter.resolve_host_name(process.client_address()).rewritten()
    else {
        return;
    };
    let mut entry = *list;
    let mut resolves_to_host = false;
    let mut has_replacement = false;
    // SAFETY: the entries and their addresses belong to the library's list.
    while let Some(info) = unsafe { entry.as_ref() } {
        // SAFETY: `ai_addr` points to `ai_addrlen` bytes.
        if let Some(address) = unsafe { parse_sockaddr(info.ai_addr, info.ai_addrlen) } {
            resolves_to_host |= is_host_or_pool_address(&rewriter, address.ip());
            has_replacement |= session_address_for(session_addresses, address.ip()).is_some();
        }
        entry = info.ai_next;
    }
    if !has_replacement || !is_host_name(name.to_bytes(), resolves_to_host) {
        return;
    }
    let mut link: *mut *mut addrinfo = list;
    // The loop uses copies and raw pointers, because `has_earlier_of_same_kind` reads the entries
    // that the loop changes.
    //
    // SAFETY: `link` points to the head or to a link of the library's list.
    while let Some(entry) = ptr::NonNull::new(unsafe { *link }).map(ptr::NonNull::as_ptr) {
        // SAFETY: the entry belongs to this list.
        let info = unsafe { entry.read() };
        // SAFETY: `ai_addr` points to `ai_addrlen` bytes.
        let address = unsafe { parse_sockaddr(info.ai_addr, info.ai_addrlen) };
        let replacement =
            address.and_then(|address| session_address_for(session_addresses, address.ip()));
        // SAFETY: the entry belongs to this list.
        let is_duplicate = unsafe { has_earlier_of_same_kind(*list, entry) };
        match (address, replacement) {
            (Some(mut address), Some(replacement)) if !is_duplicate => {
                address.set_ip(replacement);
                // SAFETY: `ai_addr` points to `ai_addrlen` bytes.
                let target = unsafe {
                    std::slice::from_raw_parts_mut(
                        info.ai_addr.cast::<u8>(),
                        info.ai_addrlen as usize,
                    )
                };
                sockaddr_bytes::write(&address, target);
                // SAFETY: the entry belongs to this list.
                link = unsafe { &raw mut (*entry).ai_next };
            }
            // SAFETY: the entry and its successor belong to this list. When the entry is freed, it
            // is a list of one element, and no link refers to it. freeaddrinfo(3) of glibc can free a
            // part of a list.
            _ => unsafe {
                let (next, canonical_name) = (info.ai_next, info.ai_canonname);
                (*entry).ai_next = ptr::null_mut();
                // Only the first entry has the canonical name. If the first entry is removed, the
                // canonical name moves to the next entry, which becomes the first.
                if !next.is_null() && !canonical_name.is_null() && (*next).ai_canonname.is_null() {
                    (*next).ai_canonname = canonical_name;
                    (*entry).ai_canonname = ptr::null_mut();
                }
                *link = next;
                libc::freeaddrinfo(entry);
            },
        }
    }
}

/// Returns whether an entry before `entry` has the same family, socket type and protocol.
///
/// # Safety
/// `list` is a list that getaddrinfo returned, and `entry` belongs to it.
unsafe fn has_earlier_of_same_kind(list: *const addrinfo, entry: *const addrinfo) -> bool {
    let kind = |info: addrinfo| (info.ai_family, info.ai_socktype, info.ai_protocol);
    let mut earlier = list;
    while earlier != entry {
        // SAFETY: the caller guarantees that the list contains `entry`, so `earlier` is an entry.
        let (earlier_info, entry_info) = unsafe { (earlier.read(), entry.read()) };
        if kind(earlier_info) == kind(entry_info) {
            return true;
        }
        earlier = earlier_info.ai_next;
    }
    false
}

/// getnameinfo(3). L resolves to localhost, and V to the host name (row 42).
///
/// # Safety
/// The caller must uphold the contract of the original function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getnameinfo(
    address: *const sockaddr,
    length: socklen_t,
    host: *mut c_char,
    host_size: socklen_t,
    service: *mut c_char,
    service_size: socklen_t,
    flags: c_int,
) -> c_int {
    let lookup = hooked_process::current().and_then(|process| {
        // SAFETY: the program passed this address.
        let requested = unsafe { SockaddrBuf::read(address, length) }?;
        let requested = parse_inet(requested.bytes())?;
        Some((process.display_rewriter(), requested))
    });
    let mut lookup_address = address;
    let mut effective_flags = flags;
    let mut substitute_bytes = [0u8; MAX_LENGTH];
    let mut must_write_host_name = false;
    if let Some((rewriter, requested)) = lookup {
        if let Some(ip) = rewriter.visible_ip(requested.ip()).rewritten() {
            sockaddr_bytes::write(&SocketAddr::new(ip, requested.port()), &mut substitute_bytes);
            lookup_address = substitute_bytes.as_ptr().cast();
        } else if rewriter.is_virtual_ip(requested.ip()) && flags & libc::NI_NUMERICHOST == 0 {
            must_write_host_name = !host.is_null() && host_size > 0;
            if must_write_host_name {
                // With these flags, the library makes no query for V. The hook then replaces the
                // numeric host that the library writes.
                effective_flags = (flags | libc::NI_NUMERICHOST) & !libc::NI_NAMEREQD;
            }
        }
    }
    // SAFETY: the program passed these arguments. A substitute address is in a buffer of MAX_LENGTH
    // bytes, and `SockaddrBuf::read` has checked that `length` is not larger.
    let error = unsafe {
        original::getnameinfo(
            lookup_address,
            length,
            host,
            host_size,
            service,
            service_size,
            effective_flags,
        )
    };
    if error == 0 && must_write_host_name {
        let node_name = NodeName::read();
        if node_name.size() > host_size as usize {
            return libc::EAI_OVERFLOW;
        }
        // SAFETY: the buffer is large enough for the name and the NUL byte.
        unsafe { node_name.write_to(host) };
    }
    error
}
