//! What a program is shown of addresses without a port, of interfaces, and of the host's own name.

use std::net::IpAddr;

use super::address::vipool_ip;
use super::decision::{Told, numbers, vipool_outcome};
use super::handle::{not_null, shared};
use super::layout::{check_out_quietly, layout, write};
use super::outcome::quiet;
use super::rewrite::decide;
use super::rewriter::vipool_rewriter;
use super::status::vipool_status::{self, *};
use crate::rewrite::Outcome;

/// The address of a received IP_PKTINFO, or one whose name is looked up (getnameinfo,
/// gethostbyaddr): with VIPOOL_REWRITTEN the program is shown `out->address`, with port 0.
///
/// Errors: those of vipool_rewrite_bind(), and VIPOOL_ERR_ADDRESS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_rewrite_shown_ip(
    rewriter: *const vipool_rewriter,
    address: *const vipool_ip,
    out: *mut vipool_outcome,
) -> vipool_status {
    // SAFETY: the caller vouches for all of them.
    unsafe { decide_ip(rewriter, address, out, |rewriter, ip| rewriter.names().visible_ip(ip)) }
}

/// A multicast datagram to `address` where the program set no interface (IP_MULTICAST_IF): with
/// VIPOOL_REWRITTEN set it to `out->address`, without its port.
///
/// Errors: those of vipool_rewrite_bind(), and VIPOOL_ERR_ADDRESS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_rewrite_multicast_interface(
    rewriter: *const vipool_rewriter,
    address: *const vipool_ip,
    out: *mut vipool_outcome,
) -> vipool_status {
    // SAFETY: the caller vouches for all of them.
    unsafe {
        decide_ip(rewriter, address, out, |rewriter, to| rewriter.now().multicast_interface(to))
    }
}

/// A decision about an address without a port, whose outcome is one too.
///
/// # Safety
/// As for [`decide`].
#[inline(always)]
unsafe fn decide_ip<T: Told>(
    rewriter: *const vipool_rewriter,
    address: *const vipool_ip,
    out: *mut vipool_outcome,
    decision: impl Fn(&vipool_rewriter, IpAddr) -> Outcome<T>,
) -> vipool_status {
    let decision = |rewriter: &vipool_rewriter| {
        // SAFETY: the caller's promise.
        let address = unsafe { address.as_ref() }.ok_or(VIPOOL_ERR_NULL)?;
        // Each family by itself: an address that may be of either is put together in memory, and
        // waited for.
        match address.family {
            4 => Ok(decision(rewriter, address.v4().into())),
            6 => Ok(decision(rewriter, address.v6().into())),
            _ => Err(VIPOOL_ERR_ADDRESS),
        }
    };
    // SAFETY: the caller's promise.
    unsafe { decide(rewriter, out, decision) }
}

/// What the host's own name stands for.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct vipool_host_addresses {
    /// sizeof(vipool_host_addresses), set by the caller.
    pub size: usize,
    /// VIPOOL_REWRITTEN or VIPOOL_PASSED.
    pub kind: u32,
    /// With VIPOOL_PASSED a vipool_reason.
    pub code: u32,
    /// In place of its IPv4 addresses; none if it has none.
    pub v4: vipool_ip,
    /// In place of its IPv6 addresses; none if it has none.
    pub v6: vipool_ip,
}
layout!(vipool_host_addresses { size, kind, code, v4, v6 });

/// getaddrinfo, gethostbyname and their variants, of the host's own name: the session's virtual
/// IP, or the address of its client where the program has that feature. `client` may be NULL or
/// none if it is not known.
///
/// Errors: those of vipool_rewrite_bind(), and VIPOOL_ERR_ADDRESS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_rewrite_host_addresses(
    rewriter: *const vipool_rewriter,
    client: *const vipool_ip,
    out: *mut vipool_host_addresses,
) -> vipool_status {
    let decide = || {
        // SAFETY: the caller vouches for handle, address and struct.
        let (rewriter, client) = unsafe { (shared(rewriter)?, client.as_ref()) };
        // SAFETY: as above.
        unsafe { check_out_quietly(out) }?;
        let client = client.map_or(Ok(None), vipool_ip::get)?;
        let outcome = rewriter.now().resolve_host_name(client);
        let (kind, code, _) = numbers(&outcome);
        let addresses = outcome.rewritten().unwrap_or_default();
        let (v4, v6) = (addresses.v4.map(Into::into), addresses.v6.map(Into::into));
        let size = size_of::<vipool_host_addresses>();
        let answer = vipool_host_addresses { size, kind, code, v4: v4.into(), v6: v6.into() };
        // SAFETY: checked above.
        unsafe { write(out, &answer) };
        Ok(())
    };
    quiet(|| decide().err().unwrap_or(VIPOOL_OK))
}

/// What a rewriter says of an address.
///
/// # Safety
/// As for [`decide`].
unsafe fn question(
    rewriter: *const vipool_rewriter,
    address: *const vipool_ip,
    out: *mut u32,
    ask: impl FnOnce(&vipool_rewriter, IpAddr) -> bool,
) -> vipool_status {
    let answer = || {
        not_null(out)?;
        // SAFETY: the caller's promise.
        let (rewriter, ip) =
            unsafe { (shared(rewriter)?, address.as_ref().ok_or(VIPOOL_ERR_NULL)?.required()?) };
        let yes = ask(rewriter, ip);
        // SAFETY: not NULL.
        unsafe { out.write(yes.into()) };
        Ok(())
    };
    quiet(|| answer().err().unwrap_or(VIPOOL_OK))
}

/// getnameinfo, gethostbyaddr: `out_own` is 1 if the name of this address is the host's own name,
/// else 0.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_ADDRESS. May be called from any thread and in a signal
/// handler.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_rewrite_is_own_address(
    rewriter: *const vipool_rewriter,
    address: *const vipool_ip,
    out_own: *mut u32,
) -> vipool_status {
    // SAFETY: the caller vouches for all of them.
    unsafe {
        question(rewriter, address, out_own, |rewriter, ip| rewriter.names().is_virtual_ip(ip))
    }
}

/// getifaddrs, GetAdaptersAddresses: `out_hidden` is 1 if this address of an interface is left out
/// of the list that the program gets, else 0.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_ADDRESS. May be called from any thread and in a signal
/// handler.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_rewrite_hides(
    rewriter: *const vipool_rewriter,
    address: *const vipool_ip,
    out_hidden: *mut u32,
) -> vipool_status {
    // SAFETY: the caller vouches for all of them.
    unsafe { question(rewriter, address, out_hidden, |rewriter, ip| rewriter.now().is_hidden(ip)) }
}

/// After a bind to an address that vipool_outcome named (`address` of bind and listen, `bind` of
/// connect and send) failed because it is on no interface (EADDRNOTAVAIL, WSAEADDRNOTAVAIL):
/// `out_retry` is 1 if the program's call goes on without it, 0 if the program gets the error.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_ADDRESS. May be called from any thread and in a signal
/// handler.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_rewrite_retries(
    rewriter: *const vipool_rewriter,
    address: *const vipool_ip,
    out_retry: *mut u32,
) -> vipool_status {
    // SAFETY: the caller vouches for all of them.
    unsafe {
        question(rewriter, address, out_retry, |rewriter, ip| rewriter.names().retries_original(ip))
    }
}
