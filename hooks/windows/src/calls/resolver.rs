//! Names: what the host's own name stands for (row 40), and the names of the session's own
//! addresses (row 42).

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use vipool::rewrite::HostAddresses;
use windows_sys::Win32::Foundation::HANDLE;
use windows_sys::Win32::Networking::WinSock::{
    ADDRINFOA, ADDRINFOEXW, ADDRINFOW, AF_INET, AF_INET6, FreeAddrInfoExW, FreeAddrInfoW,
    GetHostNameW, HOSTENT, LPLOOKUPSERVICE_COMPLETION_ROUTINE, NI_NUMERICHOST, SOCKADDR, TIMEVAL,
    WSAEFAULT, freeaddrinfo, gethostname,
};
use windows_sys::Win32::System::IO::OVERLAPPED;
use windows_sys::Win32::System::SystemInformation::{
    ComputerNameDnsFullyQualified, ComputerNameDnsHostname, ComputerNameNetBIOS, GetComputerNameExA,
};
use windows_sys::core::{GUID, PCSTR, PCWSTR, PSTR, PWSTR};

use crate::context::{self, rewriter};
use crate::memory;
use crate::socket::{LastError, SockaddrBuf, overwrite_sockaddr, read_sockaddr};
use crate::table::original;

/// The longest name of a host (RFC 1035), with a final 0.
const MAX_HOST_NAME: usize = 256;
/// The name by which Windows means the host itself (getaddrinfo's documentation).
const LOCAL_MACHINE: &[u8] = b"..localmachine";

/// A name that the program asked for, in lower case.
struct HostName {
    bytes: [u8; MAX_HOST_NAME],
    length: usize,
}

impl HostName {
    /// A name of bytes. NULL is no name.
    fn from_ansi(name: PCSTR) -> Option<Self> {
        Self::read(|at| memory::read(name.wrapping_add(at)), name.is_null())
    }

    /// A name of UTF-16 units; the host's own name is ASCII, so another is not it.
    fn from_utf16(name: PCWSTR) -> Option<Self> {
        let unit = |at| memory::read(name.wrapping_add(at)).map(|unit: u16| unit.min(0xff) as u8);
        Self::read(unit, name.is_null())
    }

    fn read(unit: impl Fn(usize) -> Option<u8>, is_null: bool) -> Option<Self> {
        let mut asked = Self { bytes: [0; MAX_HOST_NAME], length: 0 };
        if is_null {
            return None;
        }
        loop {
            match unit(asked.length)? {
                0 => return Some(asked),
                byte => *asked.bytes.get_mut(asked.length)? = byte.to_ascii_lowercase(),
            }
            asked.length += 1;
        }
    }

    /// Whether it means this host: its name, long or short, or what Windows takes for it.
    fn is_own_host(&self) -> bool {
        let asked = &self.bytes[..self.length];
        let own = [ComputerNameDnsHostname, ComputerNameDnsFullyQualified, ComputerNameNetBIOS];
        asked.is_empty()
            || asked == LOCAL_MACHINE
            || own.into_iter().any(|kind| {
                let mut name = [0; MAX_HOST_NAME];
                let mut size = MAX_HOST_NAME as u32;
                // SAFETY: the system writes no more than the buffer predicate.
                let succeeded =
                    unsafe { GetComputerNameExA(kind, name.as_mut_ptr(), &mut size) } != 0;
                succeeded
                    && name.get(..size as usize).is_some_and(|n| n.eq_ignore_ascii_case(asked))
            })
    }
}

/// What a name stands for, if it is the host's own and the program is to see something else.
fn own_host_addresses(name: Option<HostName>) -> Option<HostAddresses> {
    let hooked = context::hooked_process()?;
    let host = hooked.rewriter().host_addresses(hooked.client()).rewritten()?;
    name?.is_own_host().then_some(host)
}

pub unsafe extern "system" fn gethostbyname(name: PCSTR) -> *mut HOSTENT {
    let error = LastError::save();
    // NULL is the host itself here.
    let asked = if name.is_null() {
        Some(HostName { bytes: [0; MAX_HOST_NAME], length: 0 })
    } else {
        HostName::from_ansi(name)
    };
    let host = own_host_addresses(asked);
    error.restore();
    // SAFETY: the program's own call.
    let entry = unsafe { original::gethostbyname(name) };
    if let Some(v4) = host.and_then(|host| host.v4) {
        // SAFETY: what the system has just returned.
        unsafe { keep_only_address(entry, v4) };
    }
    entry
}

/// Leaves one address in a list of IPv4 addresses that belongs to this thread.
///
/// # Safety
/// `entry` is NULL or what gethostbyname returned on this thread.
unsafe fn keep_only_address(entry: *mut HOSTENT, v4: Ipv4Addr) {
    // SAFETY: an entry of IPv4 has a list of pointers to four bytes each, ended by NULL.
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
    let error = LastError::save();
    let asked = (length == 4 && family == i32::from(AF_INET))
        .then(|| memory::read(address.cast::<u32>()))
        .flatten()
        .map(|bits| Ipv4Addr::from(bits.to_ne_bytes()));
    if let (Some(rewriter), Some(ip)) = (rewriter(), asked) {
        if rewriter.is_own_address(ip.into()) {
            let mut name = [0u8; MAX_HOST_NAME];
            // SAFETY: the system writes no more than the buffer predicate, with a final 0; then the
            // entry is what it has just returned.
            unsafe {
                if gethostname(name.as_mut_ptr(), MAX_HOST_NAME as i32) == 0 {
                    error.restore();
                    let entry = original::gethostbyname(name.as_ptr());
                    keep_only_address(entry, ip);
                    return entry;
                }
            }
        } else if let Some(IpAddr::V4(shown)) = rewriter.shown_ip(ip.into()).rewritten() {
            let bytes = shown.octets();
            error.restore();
            // SAFETY: four bytes, as the length says.
            return unsafe { original::gethostbyaddr(bytes.as_ptr(), length, family) };
        }
    }
    error.restore();
    // SAFETY: the program's own call.
    unsafe { original::gethostbyaddr(address, length, family) }
}

/// One entry of a list of addresses, in any of the three forms that Windows has.
trait AddrInfo: Sized {
    fn next(&mut self) -> &mut *mut Self;
    fn address(&self) -> (*mut SOCKADDR, i32);
    /// Family, type and protocol of the sockets that it is for.
    fn kind(&self) -> (i32, i32, i32);
    /// Hands the canonical name, which only the first entry has, to another.
    fn move_canonical_name(&mut self, to: &mut Self);
    /// Frees a list.
    ///
    /// # Safety
    /// It came from the system and nobody else has it.
    unsafe fn free(list: *mut Self);
}

macro_rules! entries {
    ($($type:ty, $free:path;)*) => {$(
        impl AddrInfo for $type {
            fn next(&mut self) -> &mut *mut Self {
                &mut self.ai_next
            }
            fn address(&self) -> (*mut SOCKADDR, i32) {
                (self.ai_addr, self.ai_addrlen as i32)
            }
            fn kind(&self) -> (i32, i32, i32) {
                (self.ai_family, self.ai_socktype, self.ai_protocol)
            }
            fn move_canonical_name(&mut self, to: &mut Self) {
                std::mem::swap(&mut self.ai_canonname, &mut to.ai_canonname);
            }
            unsafe fn free(list: *mut Self) {
                // SAFETY: as the caller says.
                unsafe { $free(list) }
            }
        }
    )*};
}

entries! {
    ADDRINFOA, freeaddrinfo;
    ADDRINFOW, FreeAddrInfoW;
    ADDRINFOEXW, FreeAddrInfoExW;
}

/// Leaves the session's addresses in a list of the host's: the first entry of each kind is kept,
/// with the session's address of its family in it; other entries go. A list that would end up
/// empty stays as it is.
///
/// # Safety
/// `list` is where the system has just written a list for the program.
unsafe fn replace_host_addresses<E: AddrInfo>(list: *mut *mut E, host: &HostAddresses) {
    let own = |entry: &E| match entry.kind().0 as u16 {
        AF_INET => host.v4.map(IpAddr::V4),
        AF_INET6 => host.v6.map(IpAddr::V6),
        _ => None,
    };
    // SAFETY: entries of the list, each valid until it is freed. What is freed is a list of one
    // entry that is linked nowhere (RFC 3493, 6.1: parts of a list may be freed).
    unsafe {
        if !any_entry(*list, |entry| own(entry).is_some()) {
            return;
        }
        let mut link: *mut *mut E = list;
        while let Some(entry) = (*link).as_mut() {
            let kind = entry.kind();
            let this: *const E = entry;
            // What comes before has been kept.
            let mut is_before = true;
            let is_first_of_kind = !any_entry(*list, |other| {
                is_before &= !std::ptr::eq(other, this);
                is_before && other.kind() == kind
            });
            if let Some(ip) = own(entry).filter(|_| is_first_of_kind) {
                let (name, length) = entry.address();
                if let Some(mut address) = read_sockaddr(name, length) {
                    address.set_ip(ip);
                    overwrite_sockaddr(name, address);
                }
                link = entry.next();
            } else {
                *link = std::mem::replace(entry.next(), std::ptr::null_mut());
                if let Some(next) = (*link).as_mut() {
                    entry.move_canonical_name(next);
                }
                E::free(entry);
            }
        }
    }
}

/// Whether this predicate for an entry of a list.
///
/// # Safety
/// The list is valid.
unsafe fn any_entry<E: AddrInfo>(list: *mut E, mut predicate: impl FnMut(&E) -> bool) -> bool {
    let mut at = list;
    // SAFETY: as the caller says.
    while let Some(entry) = unsafe { at.as_mut() } {
        if predicate(entry) {
            return true;
        }
        at = *entry.next();
    }
    false
}

pub unsafe extern "system" fn getaddrinfo(
    name: PCSTR,
    service: PCSTR,
    hints: *const ADDRINFOA,
    result: *mut *mut ADDRINFOA,
) -> i32 {
    let error = LastError::save();
    let host = own_host_addresses(HostName::from_ansi(name));
    error.restore();
    // SAFETY: the program's own call.
    let status = unsafe { original::getaddrinfo(name, service, hints, result) };
    if let Some(host) = host.filter(|_| status == 0) {
        // SAFETY: the call succeeded.
        unsafe { replace_host_addresses(result, &host) };
    }
    status
}

pub unsafe extern "system" fn get_addr_info_w(
    name: PCWSTR,
    service: PCWSTR,
    hints: *const ADDRINFOW,
    result: *mut *mut ADDRINFOW,
) -> i32 {
    let error = LastError::save();
    let host = own_host_addresses(HostName::from_utf16(name));
    error.restore();
    // SAFETY: the program's own call.
    let status = unsafe { original::GetAddrInfoW(name, service, hints, result) };
    if let Some(host) = host.filter(|_| status == 0) {
        // SAFETY: the call succeeded.
        unsafe { replace_host_addresses(result, &host) };
    }
    status
}

/// An overlapped look-up answers after this returns, so it is made for the session's address in
/// the first place; without one of IPv4 it passes.
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
    let error = LastError::save();
    let host = own_host_addresses(HostName::from_utf16(name));
    let numeric = host.and_then(|host| host.v4).filter(|_| !overlapped.is_null()).map(wide_text);
    let name = numeric.as_ref().map_or(name, |text| text.as_ptr());
    error.restore();
    // SAFETY: the program's own call, perhaps with a name of ours, which the system copies.
    let status = unsafe {
        original::GetAddrInfoExW(
            name, service, namespace, provider, hints, result, timeout, overlapped, routine, handle,
        )
    };
    if let Some(host) = host.filter(|_| status == 0 && overlapped.is_null()) {
        // SAFETY: the call succeeded.
        unsafe { replace_host_addresses(result, &host) };
    }
    status
}

/// An address as text that ends in 0.
fn wide_text(v4: Ipv4Addr) -> [u16; 16] {
    let mut text = [0u16; 16];
    let mut at = 0;
    for (place, octet) in v4.octets().into_iter().enumerate() {
        if place > 0 {
            text[at] = b'.'.into();
            at += 1;
        }
        for divisor in [100, 10, 1] {
            if octet >= divisor || divisor == 1 {
                text[at] = u16::from(b'0' + octet / divisor % 10);
                at += 1;
            }
        }
    }
    text
}

/// What is looked up in place of an address that the program wants the name of.
enum NameLookup {
    /// Nothing else.
    Unchanged,
    /// This address.
    Address(SockaddrBuf),
    /// None: it is the host's own name.
    HostName,
}

fn name_lookup(name: *const SOCKADDR, length: i32, flags: i32) -> NameLookup {
    let find = || {
        let (rewriter, address) = (rewriter()?, read_sockaddr(name, length)?);
        if rewriter.is_own_address(address.ip()) && flags & NI_NUMERICHOST as i32 == 0 {
            return Some(NameLookup::HostName);
        }
        let ip = rewriter.shown_ip(address.ip()).rewritten()?;
        Some(NameLookup::Address(SockaddrBuf::new(SocketAddr::new(ip, address.port()))))
    };
    let error = LastError::save();
    let lookup = find().unwrap_or(NameLookup::Unchanged);
    error.restore();
    lookup
}

/// getnameinfo or GetNameInfoW, which are alike but for their texts.
macro_rules! name_info {
    ($name:ident, $original:ident, $text:ty, $own_name:path) => {
        pub unsafe extern "system" fn $name(
            name: *const SOCKADDR,
            length: i32,
            host: $text,
            host_size: u32,
            service: $text,
            service_size: u32,
            flags: i32,
        ) -> i32 {
            let call = |name, length, host, host_size| {
                // SAFETY: the program's own call, or one with an address of ours; the system
                // writes no more than there is said to be room for.
                unsafe {
                    original::$original(name, length, host, host_size, service, service_size, flags)
                }
            };
            match name_lookup(name, length, flags) {
                NameLookup::Unchanged => call(name, length, host, host_size),
                NameLookup::Address(own) => call(own.as_ptr(), own.length(), host, host_size),
                NameLookup::HostName => {
                    let wants_host = !host.is_null() && host_size > 0;
                    // SAFETY: the system writes no more than there is said to be room for.
                    if wants_host && unsafe { $own_name(host, host_size as i32) } != 0 {
                        return WSAEFAULT;
                    }
                    if service.is_null() || service_size == 0 {
                        return 0;
                    }
                    call(name, length, std::ptr::null_mut(), 0)
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
            let wide = wide_text(text.parse().unwrap());
            let end = wide.iter().position(|unit| *unit == 0).unwrap();
            assert_eq!(String::from_utf16(&wide[..end]).unwrap(), text);
        }
    }
}
