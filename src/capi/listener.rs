//! Listener lookup: finds the first of several addresses that has a socket.

use std::ffi::c_void;
use std::net::{IpAddr, SocketAddr};
use std::ptr;

use super::address::vipool_sockaddr;
use super::error::silent_or;
use super::socket::vipool_protocol;
use crate::os::listeners;
use crate::os::socket::SEARCH_ERROR;
use crate::rewrite::{ListenerLookup, ListenerMatch, Protocol};

/// Result of a vipool_listener_find_fn: no address has a listener.
pub const VIPOOL_LISTENER_NONE: i32 = -1;
/// Result of a vipool_listener_find_fn: the kernel did not report the listeners. The library
/// refuses the socket call (VIPOOL_REASON_LISTENERS_UNKNOWN), because that call could reach a
/// service of the host in place of the session's own service.
pub const VIPOOL_LISTENER_UNKNOWN: i32 = -2;

/// Maximum number of addresses in one lookup.
const MAX_CANDIDATES: usize = 4;

/// Finds the first of several addresses that has a socket: a listening TCP socket or a bound UDP
/// socket.
///
/// A wildcard socket does not count. An IPv6 socket on the mapped form of an IPv4 address counts
/// for the IPv4 address. For a mapped address, only IPv6 sockets count. vipool_rewrite_connect()
/// and vipool_rewrite_send() call this function. vipool_listener_find() is an implementation of it.
///
/// Parameters:
/// - `context`: vipool_rewriter_options.context.
/// - `addresses`, `count`: the addresses, at most 4.
/// - `protocol`: vipool_protocol.
/// - `source`: source address of the datagram that the program sends. A UDP socket that is
///   connected to this address counts too. May be NULL.
///
/// Returns: the index of the address, VIPOOL_LISTENER_NONE or VIPOOL_LISTENER_UNKNOWN.
pub type vipool_listener_find_fn = Option<
    unsafe extern "C" fn(
        context: *mut c_void,
        addresses: *const vipool_sockaddr,
        count: usize,
        protocol: u32,
        source: *const vipool_sockaddr,
    ) -> i32,
>;

/// Finds a listener by a query to the kernel. An implementation of vipool_listener_find_fn.
///
/// Linux: sock_diag. The call opens and closes a descriptor. Unlike other signal-safe functions, it
/// may change errno. Windows: GetExtendedTcpTable and GetExtendedUdpTable. Other systems:
/// VIPOOL_LISTENER_UNKNOWN.
///
/// Parameters:
/// - `context`: ignored.
/// - `addresses`, `count`: the addresses. With more than 4 the result is VIPOOL_LISTENER_UNKNOWN.
/// - `protocol`: vipool_protocol.
/// - `source`: source address of the datagram. May be NULL.
///
/// Returns: the index of the address, VIPOOL_LISTENER_NONE or VIPOOL_LISTENER_UNKNOWN.
///
/// Threads: any; signal-safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_listener_find(
    context: *mut c_void,
    addresses: *const vipool_sockaddr,
    count: usize,
    protocol: u32,
    source: *const vipool_sockaddr,
) -> i32 {
    let _ = context;
    silent_or(VIPOOL_LISTENER_UNKNOWN, || {
        let protocol = match protocol {
            1 => Protocol::Tcp,
            2 => Protocol::Udp,
            3 => Protocol::UdpLite,
            _ => return VIPOOL_LISTENER_UNKNOWN,
        };
        let mut candidates = [SocketAddr::new(IpAddr::V4(0.into()), 0); MAX_CANDIDATES];
        let Some(candidates) = candidates.get_mut(..count) else { return VIPOOL_LISTENER_UNKNOWN };
        if addresses.is_null() && count > 0 {
            return VIPOOL_LISTENER_UNKNOWN;
        }
        for (index, candidate) in candidates.iter_mut().enumerate() {
            // SAFETY: not NULL; the caller guarantees `count` addresses.
            let Some(address) = (unsafe { vipool_sockaddr::read(addresses.add(index)) }) else {
                return VIPOOL_LISTENER_UNKNOWN;
            };
            *candidate = address;
        }
        let source = match source.is_null() {
            true => None,
            // SAFETY: not NULL; the caller guarantees the address.
            false => unsafe { vipool_sockaddr::read(source) },
        };
        match listeners::find(candidates, protocol, source) {
            ListenerMatch::NotFound => VIPOOL_LISTENER_NONE,
            ListenerMatch::Index(index) => index as i32,
            ListenerMatch::Unknown { .. } => VIPOOL_LISTENER_UNKNOWN,
        }
    })
}

/// Listener lookup by a callback of the caller.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CallbackLookup {
    find_listener: vipool_listener_find_fn,
    context: *mut c_void,
}

impl CallbackLookup {
    /// Returns a lookup that calls a callback of the caller.
    ///
    /// # Safety
    /// As long as the result is used, any number of threads may call the callback with the context.
    pub(crate) unsafe fn new(find_listener: vipool_listener_find_fn, context: *mut c_void) -> Self {
        Self { find_listener, context }
    }
}

// SAFETY: the library only passes the context to the callback, and the caller of `new` guarantees
// that any thread may call the callback.
unsafe impl Send for CallbackLookup {}
// SAFETY: as above.
unsafe impl Sync for CallbackLookup {}

impl ListenerLookup for CallbackLookup {
    fn find(
        &self,
        candidates: &[SocketAddr],
        protocol: Protocol,
        source: Option<SocketAddr>,
    ) -> ListenerMatch {
        let unknown_match = ListenerMatch::Unknown { error: SEARCH_ERROR };
        // Without a callback, the lookup finds no listener of the session, see
        // `vipool_rewriter_options`.
        let Some(find_listener) = self.find_listener else { return ListenerMatch::NotFound };
        let source_sockaddr = source.as_ref().map(vipool_sockaddr::from);
        let source_pointer = source_sockaddr.as_ref().map_or(ptr::null(), ptr::from_ref);
        let mut addresses = [vipool_sockaddr::NONE; MAX_CANDIDATES];
        let mut count = 0;
        for (address, candidate) in addresses.iter_mut().zip(candidates) {
            address.set(candidate);
            count += 1;
        }
        let protocol = match protocol {
            Protocol::Tcp => vipool_protocol::VIPOOL_PROTOCOL_TCP,
            Protocol::Udp => vipool_protocol::VIPOOL_PROTOCOL_UDP,
            Protocol::UdpLite => vipool_protocol::VIPOOL_PROTOCOL_UDPLITE,
            Protocol::Other => vipool_protocol::VIPOOL_PROTOCOL_OTHER,
        };
        let (protocol, array) = (protocol as u32, addresses.as_ptr());
        // SAFETY: the caller of `new` guarantees callback and context.
        match unsafe { find_listener(self.context, array, count, protocol, source_pointer) } {
            VIPOOL_LISTENER_NONE => ListenerMatch::NotFound,
            index => usize::try_from(index).map_or(unknown_match, ListenerMatch::Index),
        }
    }
}
