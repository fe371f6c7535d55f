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
        let mut adapter = list;
        // SAFETY: the system has just written the whole list into the buffer of the program. The
        // hook unlinks entries and frees none. The buffer can have any alignment, so the hook makes
        // no reference to an entry.
        unsafe {
            while !adapter.is_null() {
                let mut link = &raw mut (*adapter).FirstUnicastAddress;
                loop {
                    let unicast = link.read_unaligned();
                    if unicast.is_null() {
                        break;
                    }
                    let address = (&raw const (*unicast).Address).read_unaligned();
                    let address = read_sockaddr(address.lpSockaddr, address.iSockaddrLength);
                    let next_link = &raw mut (*unicast).Next;
                    if address.is_some_and(|address| rewriter.is_hidden(address.ip())) {
                        link.write_unaligned(next_link.read_unaligned());
                    } else {
                        link = next_link;
                    }
                }
                adapter = (&raw const (*adapter).Next).read_unaligned();
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
        let mut adapter = list;
        // SAFETY: the system has just written the whole list into the buffer of the program. The
        // hook unlinks entries and frees none. The buffer can have any alignment, so the hook makes
        // no reference to an entry.
        unsafe {
            while !adapter.is_null() {
                // The first entry is a member of the adapter, so it cannot be unlinked. The hook
                // copies the next entry over a hidden first entry.
                let first_entry_ptr = &raw mut (*adapter).IpAddressList;
                let mut first_entry = first_entry_ptr.read_unaligned();
                while is_hidden(&first_entry) {
                    if first_entry.Next.is_null() {
                        first_entry.IpAddress.String = unspecified_address();
                        first_entry.IpMask.String = unspecified_address();
                    } else {
                        first_entry = first_entry.Next.read_unaligned();
                    }
                }
                first_entry_ptr.write_unaligned(first_entry);
                let mut link = &raw mut (*first_entry_ptr).Next;
                loop {
                    let entry = link.read_unaligned();
                    if entry.is_null() {
                        break;
                    }
                    if is_hidden(&entry.read_unaligned()) {
                        link.write_unaligned((&raw const (*entry).Next).read_unaligned());
                    } else {
                        link = &raw mut (*entry).Next;
                    }
                }
                adapter = (&raw const (*adapter).Next).read_unaligned();
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
