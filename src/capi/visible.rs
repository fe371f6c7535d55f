//! C functions that decide about addresses without a port, interfaces, and the name of the host.

use std::net::IpAddr;

use super::address::vipool_ip;
use super::error::silent_status;
use super::handle::{borrow_shared, check_not_null};
use super::layout::layout;
use super::outcome::{WriteTo, outcome_numbers, vipool_outcome};
use super::output::check_out_silent;
use super::rewrite::decide;
use super::rewriter::vipool_rewriter;
use super::status::vipool_status::{self, *};
use crate::rewrite::Outcome;

/// Decides about an address without a port in a reverse lookup (getnameinfo, gethostbyaddr).
///
/// The hook looks up the address that the program sees: 127.0.0.1 or ::1 instead of the session's
/// virtual loopback.
///
/// Parameters:
/// - `rewriter`: the rewriter.
/// - `address`: the address that the program looks up.
/// - `out`: receives the outcome. With VIPOOL_REWRITTEN look up `out->address`, which has port 0.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_ADDRESS. After an error, the hook
/// makes the call as the program made it.
///
/// Threads: any; signal-safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_rewrite_visible_ip(
    rewriter: *const vipool_rewriter,
    address: *const vipool_ip,
    out: *mut vipool_outcome,
) -> vipool_status {
    // SAFETY: the caller guarantees handle, address and struct.
    unsafe {
        decide_for_ip(rewriter, address, out, |rewriter, ip| rewriter.for_display().visible_ip(ip))
    }
}

/// Decides about the interface of a multicast datagram.
///
/// Call this function only if the program has not set IP_MULTICAST_IF.
///
/// Parameters:
/// - `rewriter`: the rewriter.
/// - `address`: the multicast destination.
/// - `out`: receives the outcome. With VIPOOL_REWRITTEN set IP_MULTICAST_IF to `out->address`.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_ADDRESS. After an error, the hook
/// makes the call as the program made it.
///
/// Threads: any; signal-safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_rewrite_multicast_interface(
    rewriter: *const vipool_rewriter,
    address: *const vipool_ip,
    out: *mut vipool_outcome,
) -> vipool_status {
    // SAFETY: the caller guarantees handle, address and struct.
    unsafe {
        decide_for_ip(rewriter, address, out, |rewriter, destination| {
            rewriter.for_call().multicast_interface(destination)
        })
    }
}

/// Decides about an address without a port. An address in the outcome has port 0.
///
/// # Safety
/// As for [`decide`]; `address` is NULL or valid for reads.
#[inline(always)]
unsafe fn decide_for_ip<T: WriteTo>(
    rewriter: *const vipool_rewriter,
    address: *const vipool_ip,
    out: *mut vipool_outcome,
    decision: impl Fn(&vipool_rewriter, IpAddr) -> Outcome<T>,
) -> vipool_status {
    let decision = |rewriter: &vipool_rewriter| {
        // SAFETY: the caller guarantees the address.
        let address = unsafe { address.as_ref() }.ok_or(VIPOOL_ERR_NULL)?;
        // Use one branch per family. A value that can have either family would be built in memory,
        // and reading it back stalls the CPU.
        match address.family {
            4 => Ok(decision(rewriter, address.ipv4().into())),
            6 => Ok(decision(rewriter, address.ipv6().into())),
            _ => Err(VIPOOL_ERR_ADDRESS),
        }
    };
    // SAFETY: the caller guarantees handle and struct.
    unsafe { decide(rewriter, out, decision) }
}

/// The addresses that a lookup of the host's name returns to the program.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct vipool_host_addresses {
    /// sizeof(vipool_host_addresses), set by the caller.
    pub size: usize,
    /// VIPOOL_REWRITTEN or VIPOOL_PASSED.
    pub kind: u32,
    /// With VIPOOL_PASSED: vipool_reason. Otherwise 0.
    pub reason: u32,
    /// With VIPOOL_REWRITTEN: replaces all IPv4 addresses that the lookup returned. If this member
    /// is no address, the hook removes the IPv4 addresses.
    pub v4: vipool_ip,
    /// With VIPOOL_REWRITTEN: replaces all IPv6 addresses that the lookup returned. If this member
    /// is no address, the hook removes the IPv6 addresses.
    pub v6: vipool_ip,
}
layout!(vipool_host_addresses { size, kind, reason, v4, v6 });

/// Decides which addresses a lookup of the host's own name returns (getaddrinfo, gethostbyname).
///
/// The result is the virtual IP of the session. If the rule of the program has
/// VIPOOL_FEATURE_CLIENT_IP and `client` is an address, the result is only `client`.
///
/// Parameters:
/// - `rewriter`: the rewriter.
/// - `client`: address of the client (vipool_client_get()). May be NULL or no address.
/// - `out`: receives the addresses.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_ADDRESS. After an error, the hook
/// makes the call as the program made it.
///
/// Threads: any; signal-safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_rewrite_host_addresses(
    rewriter: *const vipool_rewriter,
    client: *const vipool_ip,
    out: *mut vipool_host_addresses,
) -> vipool_status {
    silent_status(|| {
        // SAFETY: the caller guarantees handle and address.
        let (rewriter, client) = unsafe { (borrow_shared(rewriter)?, client.as_ref()) };
        // SAFETY: the caller guarantees the struct.
        let out = unsafe { check_out_silent(out) }?;
        let client = client.map_or(Ok(None), vipool_ip::decode_ip)?;
        let outcome = rewriter.for_call().resolve_host_name(client);
        let (kind, reason, _) = outcome_numbers(&outcome);
        let addresses = outcome.rewritten().unwrap_or_default();
        let (v4, v6) = (addresses.v4.map(Into::into), addresses.v6.map(Into::into));
        let size = size_of::<vipool_host_addresses>();
        let result = vipool_host_addresses { size, kind, reason, v4: v4.into(), v6: v6.into() };
        out.write(&result);
        Ok(())
    })
}

/// Writes 1 to `out` if `predicate` is true for the address, otherwise 0.
///
/// # Safety
/// `rewriter` is NULL or a live handle. `address` is NULL or valid for reads. `out` is NULL or
/// valid for a write.
unsafe fn write_predicate(
    rewriter: *const vipool_rewriter,
    address: *const vipool_ip,
    out: *mut u32,
    predicate: impl FnOnce(&vipool_rewriter, IpAddr) -> bool,
) -> vipool_status {
    silent_status(|| {
        check_not_null(out)?;
        // SAFETY: the caller guarantees handle and address.
        let (rewriter, address) =
            unsafe { (borrow_shared(rewriter)?, address.as_ref().ok_or(VIPOOL_ERR_NULL)?) };
        let is_true = predicate(rewriter, address.decode_required_ip()?);
        // SAFETY: not NULL.
        unsafe { out.write(is_true.into()) };
        Ok(())
    })
}

/// Returns whether a reverse lookup of an address returns the host's own name.
///
/// This is true for the session's virtual IP. Reverse lookups are getnameinfo and gethostbyaddr.
///
/// Parameters:
/// - `rewriter`: the rewriter.
/// - `address`: the address.
/// - `out_own`: receives 1 if the lookup returns the host's name, otherwise 0.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_ADDRESS.
///
/// Threads: any; signal-safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_rewrite_is_own_address(
    rewriter: *const vipool_rewriter,
    address: *const vipool_ip,
    out_own: *mut u32,
) -> vipool_status {
    // SAFETY: the caller guarantees handle, address and result.
    unsafe {
        write_predicate(rewriter, address, out_own, |rewriter, ip| {
            rewriter.for_display().is_virtual_ip(ip)
        })
    }
}

/// Returns whether lists of interface addresses omit an address (getifaddrs, GetAdaptersAddresses).
///
/// Parameters:
/// - `rewriter`: the rewriter.
/// - `address`: an address of an interface.
/// - `out_hidden`: receives 1 if the list for the program omits the address, otherwise 0.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_ADDRESS.
///
/// Threads: any; signal-safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_rewrite_is_hidden(
    rewriter: *const vipool_rewriter,
    address: *const vipool_ip,
    out_hidden: *mut u32,
) -> vipool_status {
    // SAFETY: the caller guarantees handle, address and result.
    unsafe {
        write_predicate(rewriter, address, out_hidden, |rewriter, ip| {
            rewriter.for_call().is_hidden(ip)
        })
    }
}

/// Returns whether the hook may make the call as the program made it, after a bind failed.
///
/// Call this function if a bind to an address of a vipool_outcome failed with EADDRNOTAVAIL or
/// WSAEADDRNOTAVAIL. This error means that the address is on no interface.
///
/// Parameters:
/// - `rewriter`: the rewriter.
/// - `address`: vipool_outcome.address for bind and listen, vipool_outcome.bind for connect and
///   send.
/// - `out_allowed`: receives 1 if the hook makes the call as the program made it, 0 if the call
///   fails with the error of the bind.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_ADDRESS.
///
/// Threads: any; signal-safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_rewrite_is_retry_allowed(
    rewriter: *const vipool_rewriter,
    address: *const vipool_ip,
    out_allowed: *mut u32,
) -> vipool_status {
    // SAFETY: the caller guarantees handle, address and result.
    unsafe {
        write_predicate(rewriter, address, out_allowed, |rewriter, ip| {
            rewriter.for_display().retries_original(ip)
        })
    }
}
