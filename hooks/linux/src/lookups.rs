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
use vipool::rewrite::{HostAddresses, World, sockaddr::as_ipv4};

use crate::guest::{self, Decider, Guest};
use crate::memory::Given;
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
        && let Some(guest) = guest::active()
    {
        let before = errno::get();
        // SAFETY: the library has just read the name and made the list.
        unsafe { own_addresses_only(guest, CStr::from_ptr(node), &mut *result) };
        errno::set(before);
    }
    failed
}

/// # Safety
/// The list is one of getaddrinfo's.
unsafe fn own_addresses_only(guest: &Guest, name: &CStr, list: &mut *mut addrinfo) {
    let rewriter = guest.rewriter();
    let Some(own) = rewriter.host_addresses(guest.client()).rewritten() else { return };
    let mut entry = *list;
    let mut of_the_host = false;
    let mut possible = false;
    // SAFETY: the entries and their addresses are the library's.
    while let Some(info) = unsafe { entry.as_ref() } {
        // SAFETY: as above.
        if let Some(address) = unsafe { address_of(info.ai_addr, info.ai_addrlen) } {
            of_the_host |= is_of_the_host(&rewriter, address.ip());
            possible |= substitute(own, address.ip()).is_some();
        }
        entry = info.ai_next;
    }
    if !possible || !is_own_name(name.to_bytes(), of_the_host) {
        return;
    }
    let mut link: *mut *mut addrinfo = list;
    // SAFETY: the entries are the library's, each in memory of its own, as freeaddrinfo frees them.
    while let Some(info) = unsafe { (*link).as_mut() } {
        // SAFETY: as above.
        let address = unsafe { address_of(info.ai_addr, info.ai_addrlen) };
        let new = address.and_then(|address| substitute(own, address.ip()));
        // SAFETY: it is the list that the entry is in.
        let seen = unsafe { is_before(*list, info) };
        match (address, new) {
            (Some(mut address), Some(new)) if !seen => {
                address.set_ip(new);
                // SAFETY: the address is as long as the library says.
                let room = unsafe {
                    std::slice::from_raw_parts_mut(
                        info.ai_addr.cast::<u8>(),
                        info.ai_addrlen as usize,
                    )
                };
                bytes::write(&address, room);
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
unsafe fn is_before(list: *const addrinfo, entry: &addrinfo) -> bool {
    let mut before = list;
    // SAFETY: the caller's promise.
    while let Some(info) = unsafe { before.as_ref() } {
        if ptr::eq(info, entry) {
            return false;
        }
        let kind = |info: &addrinfo| (info.ai_family, info.ai_socktype, info.ai_protocol);
        if kind(info) == kind(entry) {
            return true;
        }
        before = info.ai_next;
    }
    false
}

/// The address behind a pointer of the library's, if it is an IPv4 or IPv6 one.
///
/// # Safety
/// The address is null or as long as is said.
pub unsafe fn address_of(address: *const sockaddr, length: socklen_t) -> Option<SocketAddr> {
    if address.is_null() {
        return None;
    }
    // SAFETY: the caller's promise.
    let shown = unsafe { std::slice::from_raw_parts(address.cast::<u8>(), length as usize) };
    match bytes::parse(shown) {
        Parsed::Inet(address) => Some(address),
        Parsed::Unspecified(_) | Parsed::Other => None,
    }
}

/// What a look-up gives in place of this address of the host's own.
pub fn substitute(own: HostAddresses, address: IpAddr) -> Option<IpAddr> {
    match (address, as_ipv4(address)) {
        (IpAddr::V4(_), _) => own.v4.map(IpAddr::V4),
        (IpAddr::V6(_), Some(_)) => own.v4.map(|v4| v4.to_ipv6_mapped().into()),
        (IpAddr::V6(_), None) => own.v6.map(IpAddr::V6),
    }
}

/// Whether this is an address of the host or of one of its sessions.
pub fn is_of_the_host(rewriter: &Decider<'_>, address: IpAddr) -> bool {
    let ip = as_ipv4(address).map_or(address, IpAddr::V4);
    ip.is_loopback() || rewriter.world.is_host_address(ip) || rewriter.world.kind_of(ip).is_some()
}

/// Whether this is the name of the host: the one it gives itself, or one with a domain more or
/// less that leads to it.
pub fn is_own_name(name: &[u8], of_the_host: bool) -> bool {
    let node = node_name();
    let own = node.bytes();
    let label = |name: &[u8]| name.split(|byte| *byte == b'.').next().map(<[u8]>::len);
    let same = |a: &[u8], b: &[u8]| a.eq_ignore_ascii_case(b);
    let name = name.strip_suffix(b".").unwrap_or(name);
    if own.is_empty() || name.is_empty() || same(name, b"localhost") {
        return false;
    }
    let first = |name: &[u8]| label(name).unwrap_or(0);
    same(name, own)
        || of_the_host
            && (!name.contains(&b'.') || !own.contains(&b'.'))
            && same(
                name.get(..first(name)).unwrap_or_default(),
                own.get(..first(own)).unwrap_or_default(),
            )
}

/// The name that the host gives itself.
struct Node {
    name: [u8; 65],
}

fn node_name() -> Node {
    let mut node = Node { name: [0; 65] };
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

impl Node {
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
    let named = guest::active().and_then(|guest| {
        let given = Given::read(address, length)?;
        let Parsed::Inet(end) = bytes::parse(given.bytes()) else { return None };
        Some((guest.names(), end))
    });
    let mut shown = address;
    let mut with_flags = flags;
    let mut copy = [0u8; MAX_LENGTH];
    let mut is_the_host = false;
    if let Some((names, end)) = named {
        if let Some(ip) = names.shown_ip(end.ip()).rewritten() {
            bytes::write(&SocketAddr::new(ip, end.port()), &mut copy);
            shown = copy.as_ptr().cast();
        } else if names.is_own_address(end.ip()) && flags & libc::NI_NUMERICHOST == 0 {
            is_the_host = !host.is_null() && host_size > 0;
            if is_the_host {
                with_flags = (flags | libc::NI_NUMERICHOST) & !libc::NI_NAMEREQD;
            }
        }
    }
    // SAFETY: the caller's own call, with an address of the same length.
    let failed = unsafe {
        original::getnameinfo(shown, length, host, host_size, service, service_size, with_flags)
    };
    if failed == 0 && is_the_host {
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
