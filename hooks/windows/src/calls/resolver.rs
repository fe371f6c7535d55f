//! The name resolver. The hook layer replaces the addresses of the host's own name (row 40) and the
//! names of the session's addresses (row 42).

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use vipool::rewrite::HostNameAddresses;
use windows_sys::Win32::Foundation::HANDLE;
use windows_sys::Win32::Networking::WinSock::{
    ADDRINFOA, ADDRINFOEXW, ADDRINFOW, AF_INET, AF_INET6, FreeAddrInfoExW, FreeAddrInfoW,
    GetHostNameW, HOSTENT, LPLOOKUPSERVICE_COMPLETION_ROUTINE, NI_NUMERICHOST, SOCKADDR, TIMEVAL,
    WSAEFAULT, freeaddrinfo, gethostname,
};
use windows_sys::Win32::System::IO::OVERLAPPED;
use windows_sys::Win32::System::LibraryLoader::{GetModuleHandleA, GetProcAddress};
use windows_sys::Win32::System::SystemInformation::{
    ComputerNameDnsFullyQualified, ComputerNameDnsHostname, ComputerNameNetBIOS, GetComputerNameExA,
};
use windows_sys::core::{GUID, PCSTR, PCWSTR, PSTR, PWSTR, s};

use crate::context::{self, rewriter};
use crate::last_error::LastError;
use crate::socket::{SockaddrBuf, overwrite_sockaddr, read_sockaddr};
use crate::{memory, original};

/// The size of a buffer for the longest host name (RFC 1035) and a NUL byte.
const HOST_NAME_BUFFER_SIZE: usize = 256;
/// A name that Windows resolves to the host itself (see the documentation of getaddrinfo).
const LOCAL_MACHINE: &[u8] = b"..localmachine";

/// A name that the program wants to resolve, in lower case.
struct HostName {
    bytes: [u8; HOST_NAME_BUFFER_SIZE],
    length: usize,
}

impl HostName {
    /// Reads a name from a string of bytes. Returns `None` for NULL, an invalid pointer and a name
    /// that is too long.
    fn from_ansi(name: PCSTR) -> Option<Self> {
        Self::read(|index| memory::read(name.wrapping_add(index)), name.is_null())
    }

    /// Reads a name from a UTF-16 string. A UTF-16 unit above 0xff becomes 0xff. The host's own
    /// name is ASCII, so a name with such a unit never matches the host's own name.
    fn from_utf16(name: PCWSTR) -> Option<Self> {
        let byte_at =
            |index| memory::read(name.wrapping_add(index)).map(|unit: u16| unit.min(0xff) as u8);
        Self::read(byte_at, name.is_null())
    }

    fn read(byte_at: impl Fn(usize) -> Option<u8>, is_null: bool) -> Option<Self> {
        let mut name = Self { bytes: [0; HOST_NAME_BUFFER_SIZE], length: 0 };
        if is_null {
            return None;
        }
        loop {
            match byte_at(name.length)? {
                0 => return Some(name),
                byte => *name.bytes.get_mut(name.length)? = byte.to_ascii_lowercase(),
            }
            name.length += 1;
        }
    }

    /// Returns whether the name refers to this host. Such names are the DNS host name, the fully
    /// qualified name, the NetBIOS name, the empty name and `..localmachine`.
    fn is_own_host(&self) -> bool {
        let name = &self.bytes[..self.length];
        let name_types =
            [ComputerNameDnsHostname, ComputerNameDnsFullyQualified, ComputerNameNetBIOS];
        name.is_empty()
            || name == LOCAL_MACHINE
            || name_types.into_iter().any(|name_type| {
                let mut own_name = [0; HOST_NAME_BUFFER_SIZE];
                let mut size = HOST_NAME_BUFFER_SIZE as u32;
                // SAFETY: the system writes at most as many bytes as the buffer holds.
                let has_succeeded =
                    unsafe { GetComputerNameExA(name_type, own_name.as_mut_ptr(), &mut size) } != 0;
                has_succeeded
                    && own_name
                        .get(..size as usize)
                        .is_some_and(|own_name| own_name.eq_ignore_ascii_case(name))
            })
    }
}

/// Returns the addresses that replace the host's addresses in a lookup of `name` (row 40).
///
/// Returns `None` if `name` is not the host's own name, or if the rewriter has no replacement.
fn own_host_addresses(name: Option<HostName>) -> Option<HostNameAddresses> {
    let hooked_process = context::hooked_process()?;
    let addresses =
        hooked_process.rewriter().resolve_host_name(hooked_process.client_address()).rewritten()?;
    name?.is_own_host().then_some(addresses)
}

pub unsafe extern "system" fn gethostbyname(name: PCSTR) -> *mut HOSTENT {
    let saved_error = LastError::save();
    // For gethostbyname, NULL means the host itself.
    let host_name = if name.is_null() {
        Some(HostName { bytes: [0; HOST_NAME_BUFFER_SIZE], length: 0 })
    } else {
        HostName::from_ansi(name)
    };
    let addresses = own_host_addresses(host_name);
    saved_error.restore();
    // SAFETY: the arguments come from the program.
    let entry = unsafe { original::gethostbyname(name) };
    if let Some(v4) = addresses.and_then(|addresses| addresses.v4) {
        // SAFETY: the system has just returned this entry.
        unsafe { replace_hostent_addresses(entry, v4) };
    }
    entry
}

/// Replaces the IPv4 addresses of an entry with the single address `v4`. Each thread has its own
/// entry, so no other thread reads it at the same time.
///
/// # Safety
/// `entry` is NULL or the last result of gethostbyname on this thread.
unsafe fn replace_hostent_addresses(entry: *mut HOSTENT, v4: Ipv4Addr) {
    // SAFETY: an IPv4 entry has a list of pointers to four bytes each, and the list ends in NULL.
    unsafe {
        let Some(entry) = entry.as_ref() else { return };
        let list = entry.h_addr_list;
        if entry.h_addrtype as u16 == AF_INET && !list.is_null() && !(*list).is_null() {
            (*list).cast::<[u8; 4]>().write_unaligned(v4.octets());
            *list.add(1) = std::ptr::null_mut();
        }
    }
}

pub unsafe extern "system" fn gethostbyaddr(
    address: PCSTR,
    length: i32,
    family: i32,
) -> *mut HOSTENT {
    let saved_error = LastError::save();
    let requested_ip = (length == 4 && family == i32::from(AF_INET))
        .then(|| memory::read(address.cast::<u32>()))
        .flatten()
        .map(|bits| Ipv4Addr::from(bits.to_ne_bytes()));
    if let (Some(rewriter), Some(ip)) = (rewriter(), requested_ip) {
        if rewriter.is_virtual_ip(ip.into()) {
            let mut name = [0u8; HOST_NAME_BUFFER_SIZE];
            // SAFETY: the system writes at most as many bytes as the buffer holds, with a final
            // NUL. The entry is the result of gethostbyname.
            unsafe {
                if gethostname(name.as_mut_ptr(), HOST_NAME_BUFFER_SIZE as i32) == 0 {
                    saved_error.restore();
                    let entry = original::gethostbyname(name.as_ptr());
                    replace_hostent_addresses(entry, ip);
                    return entry;
                }
            }
        } else if let Some(IpAddr::V4(visible)) = rewriter.visible_ip(ip.into()).rewritten() {
            let bytes = visible.octets();
            saved_error.restore();
            // SAFETY: `length` is 4, and the array has four bytes.
            return unsafe { original::gethostbyaddr(bytes.as_ptr(), length, family) };
        }
    }
    saved_error.restore();
    // SAFETY: the arguments come from the program.
    unsafe { original::gethostbyaddr(address, length, family) }
}

/// An entry of a list of addresses. Windows has three types of such entries.
///
/// The functions that change an entry take raw pointers, so that no reference to an entry is live
/// while the entry changes.
trait AddrInfo: Sized {
    /// Returns the next entry, or NULL.
    fn next(&self) -> *mut Self;
    /// Returns a pointer to the socket address, and the length of the address.
    fn address(&self) -> (*mut SOCKADDR, i32);
    /// Returns the family, type and protocol for the sockets that use this address.
    fn socket_kind(&self) -> (i32, i32, i32);
    /// Returns a pointer to the link from an entry to the next entry.
    ///
    /// # Safety
    /// The entry is valid.
    unsafe fn link(entry: *mut Self) -> *mut *mut Self;
    /// Exchanges the addresses of two entries. The entries keep their places in the list and their
    /// canonical names, because only the first entry of a list has a canonical name.
    ///
    /// # Safety
    /// The entries are valid and different, and no reference to them is live.
    unsafe fn swap_addresses(first_entry: *mut Self, second_entry: *mut Self);
    /// Frees an entry that was removed from its list.
    ///
    /// # Safety
    /// The system returned the list. The entry was not the first entry of the list, and nothing
    /// refers to the entry any more. `is_wine` is the result of [`is_wine`].
    unsafe fn free_removed(entry: *mut Self, is_wine: bool);
}

macro_rules! impl_addr_info {
    ($($type:ty, $free:path, $is_block_under_wine:literal;)*) => {$(
        impl AddrInfo for $type {
            fn next(&self) -> *mut Self {
                self.ai_next
            }
            fn address(&self) -> (*mut SOCKADDR, i32) {
                (self.ai_addr, self.ai_addrlen as i32)
            }
            fn socket_kind(&self) -> (i32, i32, i32) {
                (self.ai_family, self.ai_socktype, self.ai_protocol)
            }
            unsafe fn link(entry: *mut Self) -> *mut *mut Self {
                // SAFETY: the caller passes a valid entry.
                unsafe { &raw mut (*entry).ai_next }
            }
            unsafe fn swap_addresses(first_entry: *mut Self, second_entry: *mut Self) {
                // SAFETY: the caller passes valid and different entries to which no reference is
                // live.
                unsafe {
                    std::ptr::swap(first_entry, second_entry);
                    std::ptr::swap(
                        &raw mut (*first_entry).ai_canonname,
                        &raw mut (*second_entry).ai_canonname,
                    );
                    std::ptr::swap(
                        &raw mut (*first_entry).ai_next,
                        &raw mut (*second_entry).ai_next,
                    );
                }
            }
            unsafe fn free_removed(entry: *mut Self, is_wine: bool) {
                if $is_block_under_wine && is_wine {
                    // The entry is freed with the first entry of its list.
                    return;
                }
                // SAFETY: each entry has its own memory, so the entry is a list of its own.
                // Nothing refers to the entry any more.
                unsafe {
                    (*entry).ai_next = std::ptr::null_mut();
                    $free(entry);
                }
            }
        }
    )*};
}

// In Wine, getaddrinfo allocates a whole list in one block, and freeaddrinfo frees this block. In
// all other lists, each entry must have its own memory (docs/windows.md).
impl_addr_info! {
    ADDRINFOA, freeaddrinfo, true;
    ADDRINFOW, FreeAddrInfoW, false;
    ADDRINFOEXW, FreeAddrInfoExW, false;
}

/// Returns whether this process runs under Wine.
fn is_wine() -> bool {
    // SAFETY: both names end in NUL. ntdll is loaded in every process.
    unsafe { GetProcAddress(GetModuleHandleA(s!("ntdll.dll")), s!("wine_get_version")).is_some() }
}

/// Replaces the host's addresses in a list with `addresses`, at most one per family.
///
/// The first entry of each socket kind (family, type and protocol) receives the address of its
/// family. The function removes and frees the later entries of the same kind, and all entries of a
/// family that has no address in `addresses`. If this would remove every entry, the list does not
/// change. The first entry of the list keeps its memory, because the memory of the whole list can
/// begin there. Preserves the last error.
///
/// # Safety
/// The system has just written a valid list to `list`.
unsafe fn replace_host_addresses<E: AddrInfo>(list: *mut *mut E, addresses: &HostNameAddresses) {
    let replacement = |entry: &E| match entry.socket_kind().0 as u16 {
        AF_INET => addresses.v4.map(IpAddr::V4),
        AF_INET6 => addresses.v6.map(IpAddr::V6),
        _ => None,
    };
    let saved_error = LastError::save();
    let is_wine = is_wine();
    // SAFETY: the entries of the list are valid until they are freed. Each freed entry is unlinked
    // first, and it is not the first entry, because the first entry has a replacement. No reference
    // to an entry is live when an entry changes.
    unsafe {
        let first_entry = *list;
        let mut first_kept = first_entry;
        while !first_kept.is_null() && replacement(&*first_kept).is_none() {
            first_kept = (*first_kept).next();
        }
        if first_kept.is_null() {
            return;
        }
        if first_kept != first_entry {
            E::swap_addresses(first_entry, first_kept);
        }
        let mut link: *mut *mut E = list;
        while !(*link).is_null() {
            let current_entry = *link;
            let (socket_kind, new_ip, (sockaddr, length)) = {
                let entry = &*current_entry;
                (entry.socket_kind(), replacement(entry), entry.address())
            };
            // Only entries that stay in the list are before the current entry.
            let is_first_of_kind =
                !any_entry(*list, current_entry, |entry| entry.socket_kind() == socket_kind);
            if let Some(ip) = new_ip.filter(|_| is_first_of_kind) {
                if let Some(mut address) = read_sockaddr(sockaddr, length) {
                    address.set_ip(ip);
                    overwrite_sockaddr(sockaddr, length, address);
                }
                link = E::link(current_entry);
            } else {
                *link = *E::link(current_entry);
                E::free_removed(current_entry, is_wine);
            }
        }
    }
    saved_error.restore();
}

/// Returns whether the predicate holds for any entry from `first_entry` on, up to but not including
/// `end`.
///
/// # Safety
/// The list is valid. `end` is NULL or an entry of the list.
unsafe fn any_entry<E: AddrInfo>(
    first_entry: *const E,
    end: *const E,
    predicate: impl Fn(&E) -> bool,
) -> bool {
    let mut next_entry = first_entry;
    while next_entry != end {
        // SAFETY: the caller passes a valid list. The reference ends before the next entry is read.
        let Some(entry) = (unsafe { next_entry.as_ref() }) else { break };
        if predicate(entry) {
            return true;
        }
        next_entry = entry.next();
    }
    false
}

pub unsafe extern "system" fn getaddrinfo(
    name: PCSTR,
    service: PCSTR,
    hints: *const ADDRINFOA,
    result: *mut *mut ADDRINFOA,
) -> i32 {
    let saved_error = LastError::save();
    let addresses = own_host_addresses(HostName::from_ansi(name));
    saved_error.restore();
    // SAFETY: the arguments come from the program.
    let status = unsafe { original::getaddrinfo(name, service, hints, result) };
    if let Some(addresses) = addresses.filter(|_| status == 0) {
        // SAFETY: the call succeeded, so the system has written a list.
        unsafe { replace_host_addresses(result, &addresses) };
    }
    status
}

pub unsafe extern "system" fn get_addr_info_w(
    name: PCWSTR,
    service: PCWSTR,
    hints: *const ADDRINFOW,
    result: *mut *mut ADDRINFOW,
) -> i32 {
    let saved_error = LastError::save();
    let addresses = own_host_addresses(HostName::from_utf16(name));
    saved_error.restore();
    // SAFETY: the arguments come from the program.
    let status = unsafe { original::GetAddrInfoW(name, service, hints, result) };
    if let Some(addresses) = addresses.filter(|_| status == 0) {
        // SAFETY: the call succeeded, so the system has written a list.
        unsafe { replace_host_addresses(result, &addresses) };
    }
    status
}

/// Replaces GetAddrInfoExW.
///
/// The system can write the result of an overlapped query after this function has returned. So in
/// an overlapped query for the host's own name, the hook layer replaces the name with the IPv4
/// address that must be the result (row 40). If there is no such address, the query passes
/// unchanged.
pub unsafe extern "system" fn get_addr_info_ex_w(
    name: PCWSTR,
    service: PCWSTR,
    namespace: u32,
    provider: *const GUID,
    hints: *const ADDRINFOEXW,
    result: *mut *mut ADDRINFOEXW,
    timeout: *const TIMEVAL,
    overlapped: *const OVERLAPPED,
    routine: LPLOOKUPSERVICE_COMPLETION_ROUTINE,
    handle: *mut HANDLE,
) -> i32 {
    let saved_error = LastError::save();
    let addresses = own_host_addresses(HostName::from_utf16(name));
    let session_address = addresses
        .and_then(|addresses| addresses.v4)
        .filter(|_| !overlapped.is_null())
        .map(format_utf16);
    let name = session_address.as_ref().map_or(name, |text| text.as_ptr());
    saved_error.restore();
    // SAFETY: the arguments come from the program. A rewritten name is valid during the call, and
    // the system copies the name before the call returns.
    let status = unsafe {
        original::GetAddrInfoExW(
            name, service, namespace, provider, hints, result, timeout, overlapped, routine, handle,
        )
    };
    if let Some(addresses) = addresses.filter(|_| status == 0 && overlapped.is_null()) {
        // SAFETY: the call succeeded, so the system has written a list.
        unsafe { replace_host_addresses(result, &addresses) };
    }
    status
}

/// Formats an address as UTF-16 with a final NUL.
fn format_utf16(v4: Ipv4Addr) -> [u16; 16] {
    let mut text = [0u16; 16];
    let mut length = 0;
    for (index, octet) in v4.octets().into_iter().enumerate() {
        if index > 0 {
            text[length] = b'.'.into();
            length += 1;
        }
        for divisor in [100, 10, 1] {
            if octet >= divisor || divisor == 1 {
                text[length] = u16::from(b'0' + octet / divisor % 10);
                length += 1;
            }
        }
    }
    text
}

/// How the hook layer answers a query for the name of an address.
enum NameLookup {
    /// Makes the program's query.
    Unchanged,
    /// Makes a query for this address instead.
    Address(SockaddrBuf),
    /// Makes no query for the name. The result is the host's own name.
    HostName,
}

/// Decides how the hook layer answers the program's query for the name of an address.
fn choose_name_lookup(sockaddr: *const SOCKADDR, length: i32, flags: i32) -> NameLookup {
    let decide = || {
        let (rewriter, address) = (rewriter()?, read_sockaddr(sockaddr, length)?);
        if rewriter.is_virtual_ip(address.ip()) && flags & NI_NUMERICHOST as i32 == 0 {
            return Some(NameLookup::HostName);
        }
        let ip = rewriter.visible_ip(address.ip()).rewritten()?;
        Some(NameLookup::Address(SockaddrBuf::new(SocketAddr::new(ip, address.port()))))
    };
    let saved_error = LastError::save();
    let lookup = decide().unwrap_or(NameLookup::Unchanged);
    saved_error.restore();
    lookup
}

/// Defines getnameinfo or GetNameInfoW. The two functions differ only in the type of strings.
macro_rules! name_info {
    ($name:ident, $original:ident, $text:ty, $own_name:path) => {
        pub unsafe extern "system" fn $name(
            sockaddr: *const SOCKADDR,
            length: i32,
            host: $text,
            host_size: u32,
            service: $text,
            service_size: u32,
            flags: i32,
        ) -> i32 {
            let call_original = |sockaddr, length, host, host_size| {
                // SAFETY: the arguments come from the program. A rewritten address is valid too.
                // The system writes no more than the sizes allow.
                unsafe {
                    original::$original(
                        sockaddr,
                        length,
                        host,
                        host_size,
                        service,
                        service_size,
                        flags,
                    )
                }
            };
            match choose_name_lookup(sockaddr, length, flags) {
                NameLookup::Unchanged => call_original(sockaddr, length, host, host_size),
                NameLookup::Address(visible) => {
                    call_original(visible.as_ptr(), visible.length(), host, host_size)
                }
                NameLookup::HostName => {
                    let must_write_host = !host.is_null() && host_size > 0;
                    // SAFETY: the system writes at most as much as the size allows.
                    if must_write_host && unsafe { $own_name(host, host_size as i32) } != 0 {
                        return WSAEFAULT;
                    }
                    if service.is_null() || service_size == 0 {
                        return 0;
                    }
                    call_original(sockaddr, length, std::ptr::null_mut(), 0)
                }
            }
        }
    };
}

name_info!(getnameinfo, getnameinfo, PSTR, gethostname);
name_info!(get_name_info_w, GetNameInfoW, PWSTR, GetHostNameW);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_formatted_as_utf16() {
        for text in ["0.0.0.0", "10.1.2.30", "255.255.255.255", "192.168.100.9"] {
            let units = format_utf16(text.parse().unwrap());
            let end = units.iter().position(|unit| *unit == 0).unwrap();
            assert_eq!(String::from_utf16(&units[..end]).unwrap(), text);
        }
    }
}
