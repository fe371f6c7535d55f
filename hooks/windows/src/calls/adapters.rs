//! Lists of interfaces, without the other sessions' addresses where the policy says so (row 43).

use std::ffi::{CStr, c_void};
use std::net::{IpAddr, Ipv4Addr};

use windows_sys::Win32::Foundation::{ERROR_SUCCESS, NO_ERROR};
use windows_sys::Win32::NetworkManagement::IpHelper::{
    IP_ADAPTER_ADDRESSES_LH, IP_ADAPTER_INFO, IP_ADDR_STRING,
};

use crate::context::rewriter;
use crate::socket::{LastError, read_sockaddr};
use crate::table::interfaces::original;

pub unsafe extern "system" fn get_adapters_addresses(
    family: u32,
    flags: u32,
    reserved: *const c_void,
    list: *mut IP_ADAPTER_ADDRESSES_LH,
    size: *mut u32,
) -> u32 {
    // SAFETY: the program's own call.
    let result = unsafe { original::GetAdaptersAddresses(family, flags, reserved, list, size) };
    if result != ERROR_SUCCESS {
        return result;
    }
    let error = LastError::save();
    if let Some(rewriter) = rewriter() {
        let mut at = list;
        // SAFETY: the list that the system has just written, all of it inside the program's
        // buffer: entries are unlinked, not freed.
        unsafe {
            while let Some(adapter) = at.as_mut() {
                let mut link = &raw mut adapter.FirstUnicastAddress;
                while let Some(unicast) = (*link).as_mut() {
                    let address = unicast.Address;
                    let shown = read_sockaddr(address.lpSockaddr, address.iSockaddrLength);
                    if shown.is_some_and(|shown| rewriter.hides(shown.ip())) {
                        *link = unicast.Next;
                    } else {
                        link = &raw mut unicast.Next;
                    }
                }
                at = adapter.Next;
            }
        }
    }
    error.restore();
    result
}

pub unsafe extern "system" fn get_adapters_info(list: *mut IP_ADAPTER_INFO, size: *mut u32) -> u32 {
    // SAFETY: the program's own call.
    let result = unsafe { original::GetAdaptersInfo(list, size) };
    if result != NO_ERROR {
        return result;
    }
    let error = LastError::save();
    if let Some(rewriter) = rewriter() {
        let hidden = |entry: &IP_ADDR_STRING| address(entry).is_some_and(|ip| rewriter.hides(ip));
        let mut at = list;
        // SAFETY: as above.
        unsafe {
            while let Some(adapter) = at.as_mut() {
                // The first entry is inside the adapter's: what comes next takes its place.
                let first = &mut adapter.IpAddressList;
                while hidden(first) {
                    match first.Next.as_ref() {
                        Some(next) => *first = *next,
                        None => {
                            first.IpAddress.String = no_address();
                            first.IpMask.String = no_address();
                        }
                    }
                }
                let mut link = &raw mut first.Next;
                while let Some(entry) = (*link).as_mut() {
                    if hidden(entry) {
                        *link = entry.Next;
                    } else {
                        link = &raw mut entry.Next;
                    }
                }
                at = adapter.Next;
            }
        }
    }
    error.restore();
    result
}

/// What Windows writes for an adapter without an address.
fn no_address() -> [i8; 16] {
    let mut text = [0; 16];
    for (to, from) in text.iter_mut().zip(b"0.0.0.0") {
        *to = *from as i8;
    }
    text
}

/// The address in an entry, which is text.
fn address(entry: &IP_ADDR_STRING) -> Option<IpAddr> {
    let bytes = entry.IpAddress.String.map(|byte| byte as u8);
    let text = CStr::from_bytes_until_nul(&bytes).ok()?.to_str().ok()?;
    text.parse::<Ipv4Addr>().ok().map(IpAddr::V4)
}
