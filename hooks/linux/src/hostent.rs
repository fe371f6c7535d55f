//! Names of hosts and the addresses behind them, by the calls that answer with a `struct hostent`.
//! What `lookups` says of its calls holds for these too.

use std::ffi::CStr;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ptr;

use libc::{c_char, c_int, c_void, hostent, size_t, socklen_t};

use crate::addrinfo::{is_host_name, is_host_or_session_address, replacement_for};
use crate::{caller_memory, errno, hooked_process, original};

/// Puts the session's address in the place of the host's own ones.
///
/// # Safety
/// The name is a C string, and the entry is one that the library has just made of it.
unsafe fn replace_host_addresses(name: *const c_char, entry: *mut hostent) {
    let Some(process) = hooked_process::current() else { return };
    // SAFETY: the caller's promise.
    let (Some(entry), false) = (unsafe { entry.as_mut() }, name.is_null()) else { return };
    let saved_errno = errno::get();
    let rewriter = process.rewriter();
    if let Some(own) = rewriter.resolve_host_name(process.client()).rewritten()
        // SAFETY: the list ends in a null pointer; its entries are as long as is said.
        && let Some(first) = unsafe { first_address(entry) }
        && let Some(replacement) = replacement_for(own, first)
        && is_host_name(
            // SAFETY: the caller's promise.
            unsafe { CStr::from_ptr(name) }.to_bytes(),
            is_host_or_session_address(&rewriter, first),
        )
    {
        // SAFETY: there is a first address, so also an entry after it, or the null that ends it.
        unsafe {
            write_address(entry, replacement);
            *entry.h_addr_list.add(1) = ptr::null_mut();
        }
    }
    errno::set(saved_errno);
}

/// # Safety
/// The entry is one of the library's.
unsafe fn first_address(entry: &hostent) -> Option<IpAddr> {
    // SAFETY: the caller's promise: a list that ends in a null pointer, of addresses of h_length.
    unsafe {
        let first = entry.h_addr_list.as_ref()?.cast::<u8>();
        read_ip(first, entry.h_length, entry.h_addrtype)
    }
}

/// # Safety
/// The address is null or as long as is said.
unsafe fn read_ip(address: *const u8, length: c_int, family: c_int) -> Option<IpAddr> {
    if address.is_null() {
        return None;
    }
    match (family, length) {
        (libc::AF_INET, 4) => {
            // SAFETY: the caller's promise.
            let octets = unsafe { address.cast::<[u8; 4]>().read_unaligned() };
            Some(Ipv4Addr::from(octets).into())
        }
        (libc::AF_INET6, 16) => {
            // SAFETY: the caller's promise.
            let octets = unsafe { address.cast::<[u8; 16]>().read_unaligned() };
            Some(Ipv6Addr::from(octets).into())
        }
        _ => None,
    }
}

/// # Safety
/// The entry is one of the library's with a first address.
unsafe fn write_address(entry: &mut hostent, replacement: IpAddr) {
    // SAFETY: the caller's promise, and the family is compared.
    unsafe {
        let first = *entry.h_addr_list;
        match (replacement, entry.h_length) {
            (IpAddr::V4(replacement), 4) => {
                first.cast::<[u8; 4]>().write_unaligned(replacement.octets())
            }
            (IpAddr::V6(replacement), 16) => {
                first.cast::<[u8; 16]>().write_unaligned(replacement.octets())
            }
            _ => {}
        }
    }
}

/// gethostbyname(3).
///
/// # Safety
/// As of the original.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gethostbyname(name: *const c_char) -> *mut hostent {
    // SAFETY: the caller's own call.
    unsafe {
        let entry = original::gethostbyname(name);
        replace_host_addresses(name, entry);
        entry
    }
}

/// gethostbyname2(3).
///
/// # Safety
/// As of the original.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gethostbyname2(name: *const c_char, family: c_int) -> *mut hostent {
    // SAFETY: the caller's own call.
    unsafe {
        let entry = original::gethostbyname2(name, family);
        replace_host_addresses(name, entry);
        entry
    }
}

/// gethostbyname_r(3).
///
/// # Safety
/// As of the original.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gethostbyname_r(
    name: *const c_char,
    result: *mut hostent,
    buffer: *mut c_char,
    size: size_t,
    found: *mut *mut hostent,
    error: *mut c_int,
) -> c_int {
    // SAFETY: the caller's own call.
    unsafe {
        let failed = original::gethostbyname_r(name, result, buffer, size, found, error);
        if failed == 0 {
            replace_host_addresses(name, *found);
        }
        failed
    }
}

/// gethostbyname2_r(3).
///
/// # Safety
/// As of the original.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gethostbyname2_r(
    name: *const c_char,
    family: c_int,
    result: *mut hostent,
    buffer: *mut c_char,
    size: size_t,
    found: *mut *mut hostent,
    error: *mut c_int,
) -> c_int {
    // SAFETY: the caller's own call.
    unsafe {
        let failed = original::gethostbyname2_r(name, family, result, buffer, size, found, error);
        if failed == 0 {
            replace_host_addresses(name, *found);
        }
        failed
    }
}

/// What to look up in place of an address, and whether it is the host's own.
struct SubstituteQuery {
    octets: [u8; 16],
    /// V: the host's own name is its name.
    host_ip: Option<IpAddr>,
}

/// # Safety
/// The address is as long as is said.
unsafe fn substitute_query(
    address: *const c_void,
    length: socklen_t,
    family: c_int,
) -> Option<SubstituteQuery> {
    let process = hooked_process::current()?;
    if !caller_memory::is_readable(address.cast(), length as usize) {
        return None;
    }
    // SAFETY: the caller's promise, and it was looked at.
    let ip = unsafe { read_ip(address.cast(), length as c_int, family) }?;
    let names = process.display_rewriter();
    let (lookup_ip, host_ip) = match names.visible_ip(ip).rewritten() {
        Some(shown) => (shown, None),
        // The library makes an entry for the loopback; its name and address are then put right.
        None if names.is_virtual_ip(ip) => match ip {
            IpAddr::V4(_) => (Ipv4Addr::LOCALHOST.into(), Some(ip)),
            IpAddr::V6(_) => (Ipv6Addr::LOCALHOST.into(), Some(ip)),
        },
        None => return None,
    };
    let mut octets = [0; 16];
    match lookup_ip {
        IpAddr::V4(v4) => octets.iter_mut().zip(v4.octets()).for_each(|(to, from)| *to = from),
        IpAddr::V6(v6) => octets = v6.octets(),
    }
    Some(SubstituteQuery { octets, host_ip })
}

impl SubstituteQuery {
    /// Makes the entry of the loopback one of the host's own address.
    ///
    /// # Safety
    /// The entry is null or one of the library's, with a first address.
    unsafe fn restore_entry(&self, entry: *mut hostent) {
        // SAFETY: the caller's promise.
        let (Some(host_ip), Some(entry)) = (self.host_ip, unsafe { entry.as_mut() }) else {
            return;
        };
        entry.h_name = hooked_process::node_name();
        // SAFETY: the caller's promise; the list of other names ends in a null pointer.
        unsafe {
            if !entry.h_aliases.is_null() {
                *entry.h_aliases = ptr::null_mut();
            }
            write_address(entry, host_ip);
        }
    }
}

/// gethostbyaddr(3).
///
/// # Safety
/// As of the original.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gethostbyaddr(
    address: *const c_void,
    length: socklen_t,
    family: c_int,
) -> *mut hostent {
    // SAFETY: the caller's own call, with an address of the same length.
    unsafe {
        match substitute_query(address, length, family) {
            None => original::gethostbyaddr(address, length, family),
            Some(query) => {
                let entry = original::gethostbyaddr(query.octets.as_ptr().cast(), length, family);
                query.restore_entry(entry);
                entry
            }
        }
    }
}

/// gethostbyaddr_r(3).
///
/// # Safety
/// As of the original.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gethostbyaddr_r(
    address: *const c_void,
    length: socklen_t,
    family: c_int,
    result: *mut hostent,
    buffer: *mut c_char,
    size: size_t,
    found: *mut *mut hostent,
    error: *mut c_int,
) -> c_int {
    // SAFETY: the caller's own call, with an address of the same length.
    unsafe {
        let query = substitute_query(address, length, family);
        let octets = query.as_ref().map_or(address, |query| query.octets.as_ptr().cast());
        let failed =
            original::gethostbyaddr_r(octets, length, family, result, buffer, size, found, error);
        if let (0, Some(query)) = (failed, query) {
            query.restore_entry(*found);
        }
        failed
    }
}
