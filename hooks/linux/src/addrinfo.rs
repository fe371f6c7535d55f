//! Names of hosts and the addresses behind them, by getaddrinfo and getnameinfo; the older calls
//! are in `hostent`.
//!
//! These calls of the C library allocate and lock by themselves and are not safe in signal
//! handlers with or without the hook; the hook adds nothing to that. What they return is edited
//! in place; entries that are dropped are given back as the library gave them.

use std::ffi::CStr;
use std::net::{IpAddr, SocketAddr};
use std::ptr;

use libc::{addrinfo, c_char, c_int, sockaddr, socklen_t};
use vipool::rewrite::sockaddr::{self as bytes, MAX_LENGTH, Parsed};
use vipool::rewrite::{HostNameAddresses, SystemView, sockaddr::as_ipv4};

use crate::caller_memory::SockaddrBuf;
use crate::hooked_process::{self, HookedProcess, ProcessRewriter};
use crate::{errno, original};

/// getaddrinfo(3): the host's own name stands for the session's address alone (row 40).
///
/// # Safety
/// As of the original.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getaddrinfo(
    node: *const c_char,
    service: *const c_char,
    hints: *const addrinfo,
    result: *mut *mut addrinfo,
) -> c_int {
    // SAFETY: the caller's own call.
    let failed = unsafe { original::getaddrinfo(node, service, hints, result) };
    if failed == 0
        && !node.is_null()
        && let Some(process) = hooked_process::current()
    {
        let saved_errno = errno::get();
        // SAFETY: the library has just read the name and made the list.
        unsafe { keep_session_addresses(process, CStr::from_ptr(node), &mut *result) };
        errno::set(saved_errno);
    }
    failed
}

/// # Safety
/// The list is one of getaddrinfo's.
unsafe fn keep_session_addresses(process: &HookedProcess, name: &CStr, list: &mut *mut addrinfo) {
    let rewriter = process.rewriter();
    let Some(own) = rewriter.resolve_host_name(process.client()).rewritten() else { return };
    let mut entry = *list;
    let mut is_local = false;
    let mut has_replacement = false;
    // SAFETY: the entries and their addresses are the library's.
    while let Some(info) = unsafe { entry.as_ref() } {
        // SAFETY: as above.
        if let Some(address) = unsafe { parse_sockaddr(info.ai_addr, info.ai_addrlen) } {
            is_local |= is_host_or_session_address(&rewriter, address.ip());
            has_replacement |= replacement_for(own, address.ip()).is_some();
        }
        entry = info.ai_next;
    }
    if !has_replacement || !is_host_name(name.to_bytes(), is_local) {
        return;
    }
    let mut link: *mut *mut addrinfo = list;
    // SAFETY: the entries are the library's, each in memory of its own, as freeaddrinfo frees them.
    while let Some(info) = unsafe { (*link).as_mut() } {
        // SAFETY: as above.
        let address = unsafe { parse_sockaddr(info.ai_addr, info.ai_addrlen) };
        let new = address.and_then(|address| replacement_for(own, address.ip()));
        // SAFETY: it is the list that the entry is in.
        let is_duplicate = unsafe { has_earlier_of_same_kind(*list, info) };
        match (address, new) {
            (Some(mut address), Some(new)) if !is_duplicate => {
                address.set_ip(new);
                // SAFETY: the address is as long as the library says.
                let bytes_to_write = unsafe {
                    std::slice::from_raw_parts_mut(
                        info.ai_addr.cast::<u8>(),
                        info.ai_addrlen as usize,
                    )
                };
                bytes::write(&address, bytes_to_write);
                link = &raw mut info.ai_next;
            }
            _ => {
                let (next, canonical) = (info.ai_next, info.ai_canonname);
                info.ai_next = ptr::null_mut();
                // The first entry carries the name.
                // SAFETY: null or the next entry.
                if let Some(next) = unsafe { next.as_mut() }
                    && !canonical.is_null()
                    && next.ai_canonname.is_null()
                {
                    next.ai_canonname = canonical;
                    info.ai_canonname = ptr::null_mut();
                }
                // SAFETY: a list of this entry alone, that nothing points to from then on.
                unsafe {
                    libc::freeaddrinfo(info);
                    *link = next;
                }
            }
        }
    }
}

/// Whether an entry of the same kind comes before this one.
///
/// # Safety
/// The list is one of getaddrinfo's, and the entry is in it.
unsafe fn has_earlier_of_same_kind(list: *const addrinfo, entry: &addrinfo) -> bool {
    let mut earlier = list;
    // SAFETY: the caller's promise.
    while let Some(info) = unsafe { earlier.as_ref() } {
        if ptr::eq(info, entry) {
            return false;
        }
        let kind = |info: &addrinfo| (info.ai_family, info.ai_socktype, info.ai_protocol);
        if kind(info) == kind(entry) {
            return true;
        }
        earlier = info.ai_next;
    }
    false
}

/// The address behind a pointer of the library's, if it is an IPv4 or IPv6 one.
///
/// # Safety
/// The address is null or as long as is said.
pub unsafe fn parse_sockaddr(address: *const sockaddr, length: socklen_t) -> Option<SocketAddr> {
    if address.is_null() {
        return None;
    }
    // SAFETY: the caller's promise.
    let visible = unsafe { std::slice::from_raw_parts(address.cast::<u8>(), length as usize) };
    match bytes::parse(visible) {
        Parsed::Inet(address) => Some(address),
        Parsed::Unspecified(_) | Parsed::Other => None,
    }
}

/// What a look-up gives in place of this address of the host's own.
pub fn replacement_for(own: HostNameAddresses, address: IpAddr) -> Option<IpAddr> {
    match (address, as_ipv4(address)) {
        (IpAddr::V4(_), _) => own.v4.map(IpAddr::V4),
        (IpAddr::V6(_), Some(_)) => own.v4.map(|v4| v4.to_ipv6_mapped().into()),
        (IpAddr::V6(_), None) => own.v6.map(IpAddr::V6),
    }
}

/// Whether this is an address of the host or of one of its sessions.
pub fn is_host_or_session_address(rewriter: &ProcessRewriter<'_>, address: IpAddr) -> bool {
    let ip = as_ipv4(address).map_or(address, IpAddr::V4);
    ip.is_loopback()
        || rewriter.system.is_host_address(ip)
        || rewriter.system.pool_kind(ip).is_some()
}

/// Whether this is the name of the host: the one it gives itself, or one with a domain more or
/// less that leads to it.
pub fn is_host_name(name: &[u8], is_local: bool) -> bool {
    let node = node_name();
    let own = node.bytes();
    let first_label_length = |name: &[u8]| name.split(|byte| *byte == b'.').next().map(<[u8]>::len);
    let eq_ignore_case = |a: &[u8], b: &[u8]| a.eq_ignore_ascii_case(b);
    let name = name.strip_suffix(b".").unwrap_or(name);
    if own.is_empty() || name.is_empty() || eq_ignore_case(name, b"localhost") {
        return false;
    }
    let label_length = |name: &[u8]| first_label_length(name).unwrap_or(0);
    eq_ignore_case(name, own)
        || is_local
            && (!name.contains(&b'.') || !own.contains(&b'.'))
            && eq_ignore_case(
                name.get(..label_length(name)).unwrap_or_default(),
                own.get(..label_length(own)).unwrap_or_default(),
            )
}

/// The name that the host gives itself.
struct NodeName {
    name: [u8; 65],
}

fn node_name() -> NodeName {
    let mut node = NodeName { name: [0; 65] };
    let mut system = std::mem::MaybeUninit::<libc::utsname>::zeroed();
    // SAFETY: there is room for one.
    if unsafe { libc::uname(system.as_mut_ptr()) } == 0 {
        // SAFETY: it was filled in, and all zeros would be fine too.
        let system = unsafe { system.assume_init() };
        for (to, from) in node.name.iter_mut().zip(system.nodename) {
            *to = from as u8;
        }
    }
    node
}

impl NodeName {
    fn bytes(&self) -> &[u8] {
        let end = self.name.iter().position(|byte| *byte == 0).unwrap_or(0);
        self.name.get(..end).unwrap_or_default()
    }
}

/// getnameinfo(3): L is localhost, V is the host (row 42).
///
/// # Safety
/// As of the original.
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
    let request = hooked_process::current().and_then(|process| {
        let buffer = SockaddrBuf::read(address, length)?;
        let Parsed::Inet(end) = bytes::parse(buffer.bytes()) else { return None };
        Some((process.display_rewriter(), end))
    });
    let mut visible = address;
    let mut effective_flags = flags;
    let mut copy = [0u8; MAX_LENGTH];
    let mut is_host = false;
    if let Some((names, end)) = request {
        if let Some(ip) = names.visible_ip(end.ip()).rewritten() {
            bytes::write(&SocketAddr::new(ip, end.port()), &mut copy);
            visible = copy.as_ptr().cast();
        } else if names.is_virtual_ip(end.ip()) && flags & libc::NI_NUMERICHOST == 0 {
            is_host = !host.is_null() && host_size > 0;
            if is_host {
                effective_flags = (flags | libc::NI_NUMERICHOST) & !libc::NI_NAMEREQD;
            }
        }
    }
    // SAFETY: the caller's own call, with an address of the same length.
    let failed = unsafe {
        original::getnameinfo(
            visible,
            length,
            host,
            host_size,
            service,
            service_size,
            effective_flags,
        )
    };
    if failed == 0 && is_host {
        let node = node_name();
        let name = node.bytes();
        if name.len() >= host_size as usize {
            return libc::EAI_OVERFLOW;
        }
        // SAFETY: there is room for this many bytes and the zero after them.
        unsafe {
            ptr::copy_nonoverlapping(name.as_ptr(), host.cast(), name.len());
            *host.add(name.len()) = 0;
        }
    }
    failed
}
