//! Lists the network interfaces of the machine. This is the Windows version of `interfaces.rs`.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ptr::null;

use windows_sys::Win32::Foundation::{ERROR_BUFFER_OVERFLOW, ERROR_NO_DATA, ERROR_SUCCESS};
use windows_sys::Win32::NetworkManagement::IpHelper::{
    GAA_FLAG_SKIP_ANYCAST, GAA_FLAG_SKIP_DNS_SERVER, GAA_FLAG_SKIP_MULTICAST, GetAdaptersAddresses,
    IP_ADAPTER_ADDRESSES_LH,
};
use windows_sys::Win32::Networking::WinSock::{
    AF_INET, AF_INET6, AF_UNSPEC, SOCKADDR, SOCKADDR_IN, SOCKADDR_IN6,
};

use crate::interface::Interface;

/// Returns the interfaces that have at least one IP address, ordered by index. The addresses of an
/// interface stay in the order in which Windows returns them. They include loopback and link-local
/// addresses. The name of an interface is the friendly name of the adapter ("Ethernet").
///
/// Hooked calls must not use this function: it allocates, and GetAdaptersAddresses (iphlpapi) may
/// block for a moment.
///
/// # Errors
/// Returns the error of GetAdaptersAddresses.
#[allow(unsafe_code)]
pub fn list() -> io::Result<Vec<Interface>> {
    let flags = GAA_FLAG_SKIP_ANYCAST | GAA_FLAG_SKIP_MULTICAST | GAA_FLAG_SKIP_DNS_SERVER;
    // The `u64` elements give the structures in the buffer their alignment. Microsoft recommends a
    // buffer of 15 KB.
    let mut buffer: Vec<u64> = vec![0; 15 * 1024 / 8];
    let list = loop {
        let mut size = u32::try_from(buffer.len() * 8).unwrap_or(u32::MAX);
        let list: *mut IP_ADAPTER_ADDRESSES_LH = buffer.as_mut_ptr().cast();
        // SAFETY: the buffer has `size` bytes and the alignment of the structure.
        match unsafe { GetAdaptersAddresses(AF_UNSPEC.into(), flags, null(), list, &mut size) } {
            ERROR_SUCCESS => break list,
            ERROR_NO_DATA => return Ok(Vec::new()),
            // An interface can appear between two calls, so the loop runs until the buffer is large
            // enough.
            ERROR_BUFFER_OVERFLOW => buffer.resize(size as usize / 8 + 128, 0),
            error => return Err(io::Error::from_raw_os_error(error as i32)),
        }
    };
    let mut interfaces = Vec::new();
    let mut adapter_pointer = list.cast_const();
    // SAFETY: the list and everything it points to are inside the buffer, which outlives the loop.
    // Names end with a 0. A socket address has the size that its family requires.
    unsafe {
        while let Some(adapter) = adapter_pointer.as_ref() {
            let mut addresses = Vec::new();
            let mut address_pointer = adapter.FirstUnicastAddress.cast_const();
            while let Some(address) = address_pointer.as_ref() {
                if let Some(ip) = socket_ip(address.Address.lpSockaddr)
                    && let Ok(interface_address) = ipnet::IpNet::new(ip, address.OnLinkPrefixLength)
                {
                    addresses.push(interface_address);
                }
                address_pointer = address.Next;
            }
            let index = match adapter.Anonymous1.Anonymous.IfIndex {
                0 => adapter.Ipv6IfIndex,
                index => index,
            };
            if !addresses.is_empty() {
                let name = read_wide_string(adapter.FriendlyName);
                interfaces.push(Interface { index, name, addresses });
            }
            adapter_pointer = adapter.Next;
        }
    }
    interfaces.sort_by_key(|interface| interface.index);
    Ok(interfaces)
}

/// Returns the IP address in a socket address. Returns `None` if `address` is NULL or belongs to
/// neither IPv4 nor IPv6.
///
/// # Safety
/// `address` is NULL or points to a socket address of the size that its family requires.
#[allow(unsafe_code)]
unsafe fn socket_ip(address: *const SOCKADDR) -> Option<IpAddr> {
    // SAFETY: the caller guarantees the size that the family requires. The code reads the family
    // first.
    unsafe {
        match address.as_ref()?.sa_family {
            AF_INET => {
                let ipv4_word = (*address.cast::<SOCKADDR_IN>()).sin_addr.S_un.S_addr;
                Some(Ipv4Addr::from(ipv4_word.to_ne_bytes()).into())
            }
            AF_INET6 => {
                let ipv6_bytes = (*address.cast::<SOCKADDR_IN6>()).sin6_addr.u.Byte;
                Some(Ipv6Addr::from(ipv6_bytes).into())
            }
            _ => None,
        }
    }
}

/// Returns a UTF-16 text as a `String`, which is empty if `text` is NULL.
///
/// # Safety
/// `text` is NULL or points to a text that ends with a 0.
#[allow(unsafe_code)]
unsafe fn read_wide_string(text: *const u16) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: the caller guarantees a final 0. All units before it can be read.
    unsafe {
        let length = (0..).take_while(|index| *text.add(*index) != 0).count();
        String::from_utf16_lossy(std::slice::from_raw_parts(text, length))
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn loopback_interface_is_listed() {
        let interfaces = super::list().unwrap();
        let loopback = std::net::IpAddr::from([127, 0, 0, 1]);
        assert!(
            interfaces
                .iter()
                .flat_map(|interface| &interface.addresses)
                .any(|interface_address| interface_address.addr() == loopback),
            "{interfaces:?}"
        );
    }
}
