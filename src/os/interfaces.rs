//! Lists the network interfaces of the machine with their addresses.

use std::io;

use crate::interface::Interface;

/// Returns the interfaces that have at least one IP address, ordered by index. The addresses are in
/// the order of the kernel. They include loopback and link-local addresses, and the addresses that
/// `vipool up` added.
///
/// Calls getifaddrs(3). The function allocates and may block for a moment, so hooked calls must not
/// use it.
///
/// # Errors
/// Returns the error of getifaddrs(3).
#[allow(unsafe_code)]
pub fn list() -> io::Result<Vec<Interface>> {
    let mut list_head = std::ptr::null_mut();
    // SAFETY: getifaddrs writes one pointer to `list_head`, which is valid for writing.
    if unsafe { libc::getifaddrs(&mut list_head) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let mut interfaces: Vec<Interface> = Vec::new();
    let mut current_entry = list_head;
    while !current_entry.is_null() {
        // SAFETY: every entry of the list is valid until freeifaddrs. Its name ends with NUL. An
        // address or netmask is NULL or a sockaddr of the system.
        let (name, address, netmask, next_entry) = unsafe {
            let ifaddrs = &*current_entry;
            let name = std::ffi::CStr::from_ptr(ifaddrs.ifa_name);
            (name, socket_ip(ifaddrs.ifa_addr), socket_ip(ifaddrs.ifa_netmask), ifaddrs.ifa_next)
        };
        if let (Some(address), Some(netmask)) = (address, netmask)
            && let Ok(interface_address) = ipnet::IpNet::with_netmask(address, netmask)
        {
            // SAFETY: the name ends with NUL.
            let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
            let name = name.to_string_lossy();
            match interfaces.iter_mut().find(|interface| interface.name == name) {
                Some(interface) => interface.addresses.push(interface_address),
                None => interfaces.push(Interface {
                    index,
                    name: name.into_owned(),
                    addresses: vec![interface_address],
                }),
            }
        }
        current_entry = next_entry;
    }
    // SAFETY: getifaddrs returned the list, and no pointer into it is used after this call.
    unsafe { libc::freeifaddrs(list_head) };
    // An interface that was removed after the call of getifaddrs has no index.
    interfaces.retain(|interface| interface.index != 0);
    interfaces.sort_by_key(|interface| interface.index);
    Ok(interfaces)
}

/// Returns the IP address in a socket address; `None` for NULL and for a family other than IP.
///
/// # Safety
/// `address` is NULL or an address or netmask that getifaddrs(3) returned.
#[allow(unsafe_code)]
unsafe fn socket_ip(address: *const libc::sockaddr) -> Option<std::net::IpAddr> {
    if address.is_null() {
        return None;
    }
    // SAFETY: the caller guarantees an address of the system. The code reads the family first.
    unsafe {
        match i32::from((*address).sa_family) {
            libc::AF_INET => {
                let ipv4: libc::sockaddr_in = read_sockaddr(address);
                Some(std::net::Ipv4Addr::from(ipv4.sin_addr.s_addr.to_ne_bytes()).into())
            }
            libc::AF_INET6 => {
                let ipv6: libc::sockaddr_in6 = read_sockaddr(address);
                Some(std::net::Ipv6Addr::from(ipv6.sin6_addr.s6_addr).into())
            }
            _ => None,
        }
    }
}

/// Copies a socket address. On macOS and the BSDs, the system stores the length of each address,
/// and omits zero bytes at the end of a netmask. These bytes are zero in the copy.
///
/// # Safety
/// `address` is a socket address of the system whose family requires a `T`. All-zero bytes are a
/// valid `T`.
#[allow(unsafe_code)]
unsafe fn read_sockaddr<T: Copy>(address: *const libc::sockaddr) -> T {
    #[cfg(any(target_vendor = "apple", target_os = "freebsd"))]
    // SAFETY: the caller guarantees a socket address, which begins with its length.
    let length = usize::from(unsafe { (*address).sa_len });
    #[cfg(not(any(target_vendor = "apple", target_os = "freebsd")))]
    let length = size_of::<T>();
    let mut copy = std::mem::MaybeUninit::<T>::zeroed();
    // SAFETY: the address has `length` bytes. The copy has room for them and is valid before and
    // after, because the caller guarantees that zeros are valid.
    unsafe {
        std::ptr::copy_nonoverlapping(
            address.cast::<u8>(),
            copy.as_mut_ptr().cast::<u8>(),
            length.min(size_of::<T>()),
        );
        copy.assume_init()
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn loopback_interface_is_listed() {
        let interfaces = list().unwrap();
        let loopback = interfaces
            .iter()
            .find(|interface| {
                interface.addresses.iter().any(|interface_address| {
                    interface_address.addr().is_loopback() && interface_address.addr().is_ipv4()
                })
            })
            .expect("every machine has 127.0.0.1");
        assert_ne!(loopback.index, 0);
        assert!(loopback.addresses.contains(&"127.0.0.1/8".parse().unwrap()));
    }
}
