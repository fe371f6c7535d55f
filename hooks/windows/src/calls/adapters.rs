//! GetAdaptersAddresses and GetAdaptersInfo. If the policy requires it, the hook layer removes
//! every virtual IP except V from the results (row 43).

use std::ffi::{CStr, c_void};
use std::net::{IpAddr, Ipv4Addr};

use windows_sys::Win32::Foundation::{ERROR_SUCCESS, NO_ERROR};
use windows_sys::Win32::NetworkManagement::IpHelper::{
    IP_ADAPTER_ADDRESSES_LH, IP_ADAPTER_INFO, IP_ADDR_STRING,
};

use crate::context::rewriter;
use crate::last_error::LastError;
use crate::original;
use crate::socket::read_sockaddr;

pub unsafe extern "system" fn get_adapters_addresses(
    family: u32,
    flags: u32,
    reserved: *const c_void,
    list: *mut IP_ADAPTER_ADDRESSES_LH,
    size: *mut u32,
) -> u32 {
    // SAFETY: the arguments come from the program.
    let result = unsafe { original::GetAdaptersAddresses(family, flags, reserved, list, size) };
    if result != ERROR_SUCCESS {
        return result;
    }
    let saved_error = LastError::save();
    if let Some(rewriter) = rewriter() {
        let mut next_adapter = list;
        // SAFETY: the system has just written the whole list into the buffer of the program. The
        // hook unlinks entries and frees none.
        unsafe {
            while let Some(adapter) = next_adapter.as_mut() {
                let mut link = &raw mut adapter.FirstUnicastAddress;
                while let Some(unicast) = (*link).as_mut() {
                    let address = unicast.Address;
                    let address = read_sockaddr(address.lpSockaddr, address.iSockaddrLength);
                    if address.is_some_and(|address| rewriter.is_hidden(address.ip())) {
                        *link = unicast.Next;
                    } else {
                        link = &raw mut unicast.Next;
                    }
                }
                next_adapter = adapter.Next;
            }
        }
    }
    saved_error.restore();
    result
}

pub unsafe extern "system" fn get_adapters_info(list: *mut IP_ADAPTER_INFO, size: *mut u32) -> u32 {
    // SAFETY: the arguments come from the program.
    let result = unsafe { original::GetAdaptersInfo(list, size) };
    if result != NO_ERROR {
        return result;
    }
    let saved_error = LastError::save();
    if let Some(rewriter) = rewriter() {
        let is_hidden =
            |entry: &IP_ADDR_STRING| parse_address(entry).is_some_and(|ip| rewriter.is_hidden(ip));
        let mut next_adapter = list;
        // SAFETY: the system has just written the whole list into the buffer of the program. The
        // hook unlinks entries and frees none.
        unsafe {
            while let Some(adapter) = next_adapter.as_mut() {
                // The first entry is a member of the adapter, so it cannot be unlinked. The hook
                // copies the next entry over a hidden first entry.
                let first_entry = &mut adapter.IpAddressList;
                while is_hidden(first_entry) {
                    match first_entry.Next.as_ref() {
                        Some(next_entry) => *first_entry = *next_entry,
                        None => {
                            first_entry.IpAddress.String = unspecified_address();
                            first_entry.IpMask.String = unspecified_address();
                        }
                    }
                }
                let mut link = &raw mut first_entry.Next;
                while let Some(entry) = (*link).as_mut() {
                    if is_hidden(entry) {
                        *link = entry.Next;
                    } else {
                        link = &raw mut entry.Next;
                    }
                }
                next_adapter = adapter.Next;
            }
        }
    }
    saved_error.restore();
    result
}

/// Returns 0.0.0.0, the text that Windows writes for an adapter without an address.
fn unspecified_address() -> [i8; 16] {
    let mut text = [0; 16];
    for (target, source) in text.iter_mut().zip(b"0.0.0.0") {
        *target = *source as i8;
    }
    text
}

fn parse_address(entry: &IP_ADDR_STRING) -> Option<IpAddr> {
    let bytes = entry.IpAddress.String.map(|byte| byte as u8);
    let text = CStr::from_bytes_until_nul(&bytes).ok()?.to_str().ok()?;
    text.parse::<Ipv4Addr>().ok().map(IpAddr::V4)
}
