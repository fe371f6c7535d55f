//! Network interfaces that a caller passes or that the system lists.

use std::ffi::c_char;
use std::ptr;

use ipnet::IpNet;

use super::address::vipool_ip;
use super::error::{CallError, catch_panic, silent};
use super::handle::{Opaque, Shared, borrow_shared, check_not_null, free_handle, write_handle};
use super::layout::{any_bytes, layout, read_array};
use super::status::vipool_status::{self, *};
use super::text::{check_reserved, read_slice, read_utf8};
use crate::interface::Interface;

/// An address of an interface with the prefix length of its subnet. Plain data.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct vipool_subnet {
    /// The address.
    pub address: vipool_ip,
    /// Prefix length: 0 to 32 for IPv4, 0 to 128 for IPv6.
    pub prefix_length: u32,
}
any_bytes!(vipool_subnet { address, prefix_length });

/// A network interface.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct vipool_interface {
    /// sizeof(vipool_interface), set by the caller in every element of an array.
    pub size: usize,
    /// Name, UTF-8, such as "eth0".
    pub name: *const c_char,
    /// Length of `name` in bytes.
    pub name_length: usize,
    /// Addresses of the interface. May be NULL for none.
    pub addresses: *const vipool_subnet,
    /// Number of `addresses`.
    pub address_count: usize,
    /// Interface index of the system.
    pub index: u32,
    /// Reserved: zero.
    pub reserved: u32,
}
layout!(vipool_interface { size, name, name_length, addresses, address_count, index, reserved });

impl From<IpNet> for vipool_subnet {
    fn from(interface_address: IpNet) -> Self {
        Self {
            address: interface_address.addr().into(),
            prefix_length: interface_address.prefix_len().into(),
        }
    }
}

impl vipool_subnet {
    pub(crate) fn decode_ip_net(&self) -> Result<IpNet, CallError> {
        let address = self.address.decode_required_ip()?;
        u8::try_from(self.prefix_length)
            .ok()
            .and_then(|length| IpNet::new(address, length).ok())
            .ok_or_else(|| {
                let length = self.prefix_length;
                VIPOOL_ERR_ADDRESS
                    .with_message(format_args!("{address}/{length}: no such prefix length"))
            })
    }
}

/// Reads an array of interfaces.
///
/// # Safety
/// `interfaces` is NULL or an array of `count` interfaces. Their names and addresses are valid for
/// reads.
pub(crate) unsafe fn read_interfaces(
    interfaces: *const vipool_interface,
    count: usize,
) -> Result<Vec<Interface>, CallError> {
    // SAFETY: the caller guarantees the array.
    let interfaces = unsafe { read_array(interfaces, count) }?;
    interfaces
        .iter()
        .map(|interface| {
            check_reserved(interface.reserved)?;
            // SAFETY: the caller guarantees name and addresses.
            let (name, addresses) = unsafe {
                (
                    read_utf8(interface.name, interface.name_length)?,
                    read_slice(interface.addresses, interface.address_count)?,
                )
            };
            Ok(Interface {
                index: interface.index,
                name: name.to_owned(),
                addresses: addresses
                    .iter()
                    .map(vipool_subnet::decode_ip_net)
                    .collect::<Result<_, _>>()?,
            })
        })
        .collect()
}

/// The network interfaces of this machine at one moment. Threads may share the list.
pub struct vipool_interface_list {
    /// Owns the names that `array` points to.
    _interfaces: Vec<Interface>,
    /// Owns the addresses that `array` points to.
    _addresses: Vec<Vec<vipool_subnet>>,
    array: Vec<vipool_interface>,
}

// SAFETY: the pointers point to memory that the list owns and never changes.
unsafe impl Send for vipool_interface_list {}
// SAFETY: as above.
unsafe impl Sync for vipool_interface_list {}

impl Opaque for vipool_interface_list {
    type Access = Shared;
}

/// Lists the interfaces of this machine that have an IP address.
///
/// The list has every address that the system reports, also the addresses that vipool added.
/// vipool_plan_new() treats each address of an interface as an address of the host, and removes it
/// from the ranges. So pass a copy of the array without the addresses that vipool added: omit every
/// address inside a range of the farm.
///
/// Parameters:
/// - `out`: receives the list. Free it with vipool_interface_list_free().
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_IO.
///
/// Threads: any. May block for a short time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_interface_list_new(
    out: *mut *mut vipool_interface_list,
) -> vipool_status {
    catch_panic(|| {
        check_not_null(out)?;
        let interfaces = crate::system::interfaces().map_err(|error| {
            VIPOOL_ERR_IO.with_message(format_args!("cannot list the interfaces: {error}"))
        })?;
        let addresses: Vec<Vec<_>> = interfaces
            .iter()
            .map(|interface| interface.addresses.iter().copied().map(Into::into).collect())
            .collect();
        let array = interfaces
            .iter()
            .zip(&addresses)
            .map(|(interface, addresses)| vipool_interface {
                size: size_of::<vipool_interface>(),
                name: interface.name.as_ptr().cast(),
                name_length: interface.name.len(),
                addresses: addresses.as_ptr(),
                address_count: addresses.len(),
                index: interface.index,
                reserved: 0,
            })
            .collect();
        let list = vipool_interface_list { _interfaces: interfaces, _addresses: addresses, array };
        // SAFETY: not NULL.
        unsafe { write_handle(list, out) };
        Ok(())
    })
}

/// Returns the interfaces of a list as an array.
///
/// Parameters:
/// - `list`: the list.
/// - `out`: receives the array, or NULL if the list is empty. The array is valid until the list is
///   freed.
/// - `out_count`: receives the number of interfaces.
///
/// Errors: VIPOOL_ERR_NULL.
///
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_interface_list_get(
    list: *const vipool_interface_list,
    out: *mut *const vipool_interface,
    out_count: *mut usize,
) -> vipool_status {
    catch_panic(|| {
        check_not_null(out)?;
        check_not_null(out_count)?;
        // SAFETY: the caller guarantees the handle; neither pointer is NULL.
        unsafe {
            let array = &borrow_shared(list)?.array;
            out.write(if array.is_empty() { ptr::null() } else { array.as_ptr() });
            out_count.write(array.len());
        }
        Ok(())
    })
}

/// Frees a list of interfaces, with its array.
///
/// Parameters:
/// - `list`: the list. NULL is ignored.
///
/// Threads: any; the last call with the list.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_interface_list_free(list: *mut vipool_interface_list) {
    // SAFETY: the caller gives up the handle.
    silent(|| unsafe { free_handle(list) });
}
