//! Hooks of the lookup functions that return a `struct hostent`: the gethostbyname(3) and
//! gethostbyaddr(3) families. The comment on signal safety in `addrinfo` also applies to these
//! functions.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ptr;

use libc::{c_char, c_int, c_void, hostent, size_t, socklen_t};
use vipool::rewrite::HookedProcess;

use crate::host_names::{is_host_name, is_host_or_pool_address, session_address_for};
use crate::node_name::NodeName;
use crate::{caller_memory, errno, hooked_process, original};

/// A copy of the name that a program looks up. The program may pass a name in the buffer that
/// receives the result, such as the `h_name` of an earlier result, so the hook copies the name
/// before the original call.
struct RequestedName {
    process: &'static HookedProcess,
    bytes: [u8; Self::SIZE],
    length: usize,
}

impl RequestedName {
    /// The size of the copy. A name in the domain name system has at most 254 bytes with its final
    /// dot, so it is shorter.
    const SIZE: usize = 256;

    /// Copies the name. Returns `None` if the hook does not need the name, or if the name is too
    /// long for a host name.
    ///
    /// # Safety
    /// `name` is null or a C string.
    unsafe fn copy(name: *const c_char) -> Option<Self> {
        let process = hooked_process::current()?;
        if name.is_null() {
            return None;
        }
        // SAFETY: guaranteed by the caller.
        let length = unsafe { libc::strnlen(name, Self::SIZE) };
        let mut bytes = [0; Self::SIZE];
        // SAFETY: the C string has at least `length` bytes.
        let name = unsafe { std::slice::from_raw_parts(name.cast::<u8>(), length) };
        bytes.get_mut(..length)?.copy_from_slice(name);
        (length < Self::SIZE).then_some(Self { process, bytes, length })
    }

    /// Replaces the addresses in `entry` with one address if this name is the host's own name (row
    /// 40).
    ///
    /// The new address is V, or the address of the session's client with `client-ip`.
    ///
    /// # Safety
    /// `entry` is null or the C library's result for this name.
    unsafe fn replace_host_addresses(&self, entry: *mut hostent) {
        // SAFETY: guaranteed by the caller.
        let Some(entry) = (unsafe { entry.as_mut() }) else { return };
        let saved_errno = errno::get();
        let rewriter = self.process.rewriter();
        let client_address = self.process.client_address();
        let name = self.bytes.get(..self.length).unwrap_or_default();
        if let Some(session_addresses) = rewriter.resolve_host_name(client_address).rewritten()
            // SAFETY: the C library created the entry.
            && let Some(first_ip) = unsafe { first_address(entry) }
            && let Some(replacement) = session_address_for(session_addresses, first_ip)
            && is_host_name(name, is_host_or_pool_address(&rewriter, first_ip))
        {
            // SAFETY: the C library created the entry. The list continues after its first address,
            // with another address or the null pointer.
            unsafe {
                write_first_address(entry, replacement);
                *entry.h_addr_list.add(1) = ptr::null_mut();
            }
        }
        errno::set(saved_errno);
    }
}

/// Returns the first address of an entry.
///
/// # Safety
/// The C library created the entry.
unsafe fn first_address(entry: &hostent) -> Option<IpAddr> {
    // SAFETY: the C library ends the list with a null pointer. Its addresses have `h_length` bytes.
    unsafe {
        let first = entry.h_addr_list.as_ref()?.cast::<u8>();
        read_ip(first, entry.h_length, entry.h_addrtype)
    }
}

/// Reads an address of the given length and family.
///
/// # Safety
/// `address` is null or points to `length` readable bytes.
unsafe fn read_ip(address: *const u8, length: c_int, family: c_int) -> Option<IpAddr> {
    if address.is_null() {
        return None;
    }
    match (family, length) {
        (libc::AF_INET, 4) => {
            // SAFETY: guaranteed by the caller.
            let octets = unsafe { address.cast::<[u8; 4]>().read_unaligned() };
            Some(Ipv4Addr::from(octets).into())
        }
        (libc::AF_INET6, 16) => {
            // SAFETY: guaranteed by the caller.
            let octets = unsafe { address.cast::<[u8; 16]>().read_unaligned() };
            Some(Ipv6Addr::from(octets).into())
        }
        _ => None,
    }
}

/// Overwrites the first address of an entry, if the entry has an address and `address` has the same
/// length.
///
/// # Safety
/// The C library created the entry.
unsafe fn write_first_address(entry: &mut hostent, address: IpAddr) {
    // SAFETY: the C library ends the list with a null pointer. Its addresses have `h_length` bytes.
    // The code writes only an address of this length.
    unsafe {
        let Some(target) = entry.h_addr_list.as_ref().copied().filter(|first| !first.is_null())
        else {
            return;
        };
        match (address, entry.h_length) {
            (IpAddr::V4(v4), 4) => target.cast::<[u8; 4]>().write_unaligned(v4.octets()),
            (IpAddr::V6(v6), 16) => target.cast::<[u8; 16]>().write_unaligned(v6.octets()),
            _ => {}
        }
    }
}

/// gethostbyname(3).
///
/// # Safety
/// The caller must uphold the contract of the original function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gethostbyname(name: *const c_char) -> *mut hostent {
    // SAFETY: the program passed these arguments. The entry is the result for `name`.
    unsafe {
        let requested_name = RequestedName::copy(name);
        let entry = original::gethostbyname(name);
        if let Some(requested_name) = requested_name {
            requested_name.replace_host_addresses(entry);
        }
        entry
    }
}

/// gethostbyname2(3).
///
/// # Safety
/// The caller must uphold the contract of the original function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gethostbyname2(name: *const c_char, family: c_int) -> *mut hostent {
    // SAFETY: the program passed these arguments. The entry is the result for `name`.
    unsafe {
        let requested_name = RequestedName::copy(name);
        let entry = original::gethostbyname2(name, family);
        if let Some(requested_name) = requested_name {
            requested_name.replace_host_addresses(entry);
        }
        entry
    }
}

/// gethostbyname_r(3).
///
/// # Safety
/// The caller must uphold the contract of the original function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gethostbyname_r(
    name: *const c_char,
    entry: *mut hostent,
    buffer: *mut c_char,
    size: size_t,
    result: *mut *mut hostent,
    h_errno: *mut c_int,
) -> c_int {
    // SAFETY: the program passed these arguments. The entry is the result for `name`.
    unsafe {
        let requested_name = RequestedName::copy(name);
        let status = original::gethostbyname_r(name, entry, buffer, size, result, h_errno);
        if let (0, Some(requested_name)) = (status, requested_name) {
            requested_name.replace_host_addresses(*result);
        }
        status
    }
}

/// gethostbyname2_r(3).
///
/// # Safety
/// The caller must uphold the contract of the original function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gethostbyname2_r(
    name: *const c_char,
    family: c_int,
    entry: *mut hostent,
    buffer: *mut c_char,
    size: size_t,
    result: *mut *mut hostent,
    h_errno: *mut c_int,
) -> c_int {
    // SAFETY: the program passed these arguments. The entry is the result for `name`.
    unsafe {
        let requested_name = RequestedName::copy(name);
        let status = original::gethostbyname2_r(name, family, entry, buffer, size, result, h_errno);
        if let (0, Some(requested_name)) = (status, requested_name) {
            requested_name.replace_host_addresses(*result);
        }
        status
    }
}

/// The address that the hook looks up in place of one of the session's addresses.
struct SubstituteQuery {
    octets: [u8; 16],
    /// The requested address, if it is V. In this case, `patch_entry` writes V and the host name to
    /// the C library's result.
    virtual_ip: Option<IpAddr>,
}

/// Returns the query that replaces the program's query for `address`. Returns `None` if the
/// program's query must pass unchanged.
///
/// # Safety
/// The address may be invalid. If the memory is mapped, no other thread changes or unmaps it during
/// the call.
unsafe fn substitute_query(
    address: *const c_void,
    length: socklen_t,
    family: c_int,
) -> Option<SubstituteQuery> {
    let process = hooked_process::current()?;
    // `is_readable` requires that the bytes are on at most two pages.
    let has_valid_length = matches!((family, length), (libc::AF_INET, 4) | (libc::AF_INET6, 16));
    if !has_valid_length || !caller_memory::is_readable(address.cast(), length as usize) {
        return None;
    }
    // SAFETY: the bytes are readable.
    let ip = unsafe { read_ip(address.cast(), length as c_int, family) }?;
    let rewriter = process.display_rewriter();
    let (substitute, virtual_ip) = match rewriter.visible_ip(ip).rewritten() {
        Some(visible) => (visible, None),
        // The C library creates an entry for the loopback address. `patch_entry` then changes the
        // name and the address of this entry.
        None if rewriter.is_virtual_ip(ip) => match ip {
            IpAddr::V4(_) => (Ipv4Addr::LOCALHOST.into(), Some(ip)),
            IpAddr::V6(_) => (Ipv6Addr::LOCALHOST.into(), Some(ip)),
        },
        None => return None,
    };
    let mut octets = [0; 16];
    match substitute {
        IpAddr::V4(v4) => octets.iter_mut().zip(v4.octets()).for_each(|(to, from)| *to = from),
        IpAddr::V6(v6) => octets = v6.octets(),
    }
    Some(SubstituteQuery { octets, virtual_ip })
}

impl SubstituteQuery {
    /// If V was requested, changes the entry of the loopback address to an entry of V, with this
    /// name.
    ///
    /// # Safety
    /// `entry` is null, or the C library created it. `name` is a C string that the entry may
    /// contain.
    unsafe fn patch_entry(&self, entry: *mut hostent, name: *mut c_char) {
        // SAFETY: guaranteed by the caller.
        let (Some(virtual_ip), Some(entry)) = (self.virtual_ip, unsafe { entry.as_mut() }) else {
            return;
        };
        entry.h_name = name;
        // SAFETY: guaranteed by the caller. The list of aliases ends with a null pointer, so its
        // first element exists.
        unsafe {
            if !entry.h_aliases.is_null() {
                *entry.h_aliases = ptr::null_mut();
            }
            write_first_address(entry, virtual_ip);
        }
    }
}

/// gethostbyaddr(3).
///
/// # Safety
/// The caller must uphold the contract of the original function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gethostbyaddr(
    address: *const c_void,
    length: socklen_t,
    family: c_int,
) -> *mut hostent {
    // SAFETY: the program passed these arguments. A substitute address has the same length.
    unsafe {
        match substitute_query(address, length, family) {
            None => original::gethostbyaddr(address, length, family),
            Some(query) => {
                let entry = original::gethostbyaddr(query.octets.as_ptr().cast(), length, family);
                query.patch_entry(entry, NodeName::read().write_to_static());
                entry
            }
        }
    }
}

/// gethostbyaddr_r(3).
///
/// # Safety
/// The caller must uphold the contract of the original function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gethostbyaddr_r(
    address: *const c_void,
    length: socklen_t,
    family: c_int,
    entry: *mut hostent,
    buffer: *mut c_char,
    size: size_t,
    result: *mut *mut hostent,
    h_errno: *mut c_int,
) -> c_int {
    // SAFETY: the program passed these arguments. A substitute address has the same length.
    unsafe {
        let Some(query) = substitute_query(address, length, family) else {
            return original::gethostbyaddr_r(
                address, length, family, entry, buffer, size, result, h_errno,
            );
        };
        let octets = query.octets.as_ptr().cast();
        // The end of the buffer receives the name. If the rest of the buffer is too small, the
        // original function fails with ERANGE, and the program tries again with a larger buffer.
        let node_name = query.virtual_ip.map(|_| NodeName::read());
        let name_size = node_name.as_ref().map_or(0, NodeName::size);
        let rest_size = size.saturating_sub(name_size);
        let status = original::gethostbyaddr_r(
            octets, length, family, entry, buffer, rest_size, result, h_errno,
        );
        if let (0, Some(node_name)) = (status, node_name)
            && size >= name_size
        {
            let name = buffer.add(rest_size);
            node_name.write_to(name);
            query.patch_entry(*result, name);
        }
        status
    }
}
