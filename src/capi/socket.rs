//! What is known of a socket: handed in, or asked for by callbacks.

use std::ffi::c_void;
use std::net::SocketAddr;

use super::address::sockaddr_bytes;
use super::layout::layout;
use crate::rewrite::sockaddr::{self, Parsed};
use crate::rewrite::{Protocol, Socket};

/// Asked for an address that the kernel has: writes it to `buffer` (`capacity` bytes, room for
/// any) as a sockaddr and answers its length; 0 if there is none or it is not IPv4 or IPv6.
pub type vipool_ask_address_fn =
    Option<unsafe extern "C" fn(context: *mut c_void, buffer: *mut c_void, capacity: u32) -> u32>;

/// Asked for a number: vipool_protocol, or VIPOOL_SOCKET_... flags.
pub type vipool_ask_number_fn = Option<unsafe extern "C" fn(context: *mut c_void) -> u32>;

/// Of vipool_socket.flags: the socket is for IPv6 alone (IPV6_V6ONLY).
pub const VIPOOL_SOCKET_V6ONLY: u32 = 1;
/// Of vipool_socket.flags: the socket can receive what others receive too: SO_REUSEADDR,
/// SO_REUSEPORT or SO_BROADCAST is set.
pub const VIPOOL_SOCKET_SHARES_PORT: u32 = 2;

/// What is known of a socket. Each fact is handed in, or asked for by a callback where it matters
/// (each may cost a system call); a callback that is not NULL wins.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct vipool_socket {
    /// sizeof(vipool_socket), set by the caller.
    pub size: usize,
    /// The address that the kernel has for it (not the one that the program is shown), as a
    /// sockaddr: the unspecified address and port 0 while it has none (of such a socket Winsock's
    /// getsockname says WSAEINVAL). NULL if it is not an IPv4 or IPv6 socket.
    pub local: *const c_void,
    /// Length of `local` in bytes.
    pub local_length: u32,
    /// vipool_protocol.
    pub protocol: u32,
    /// VIPOOL_SOCKET_...
    pub flags: u32,
    /// Zero.
    pub reserved: u32,
    /// Asked for the address that `local` is. May be NULL.
    pub ask_local: vipool_ask_address_fn,
    /// Asked for vipool_protocol. May be NULL.
    pub ask_protocol: vipool_ask_number_fn,
    /// Asked for VIPOOL_SOCKET_... flags. May be NULL.
    pub ask_flags: vipool_ask_number_fn,
    /// Handed to the callbacks.
    pub context: *mut c_void,
}
layout!(vipool_socket {
    size,
    local,
    local_length,
    protocol,
    flags,
    reserved,
    ask_local,
    ask_protocol,
    ask_flags,
    context,
});

/// A [`vipool_socket`] where the caller has it: each fact is read when it is asked for.
pub(crate) struct Asked(pub(crate) *const vipool_socket);

impl Socket for Asked {
    #[inline]
    fn protocol(&self) -> Protocol {
        // SAFETY: the caller vouches for the struct, the callback and its context.
        let number = unsafe {
            let vipool_socket { ask_protocol, protocol, context, .. } = *self.0;
            ask_protocol.map_or(protocol, |ask| ask(context))
        };
        match number {
            1 => Protocol::Tcp,
            2 => Protocol::Udp,
            _ => Protocol::Other,
        }
    }

    fn local_address(&self) -> Option<SocketAddr> {
        // SAFETY: the caller vouches for the struct.
        let vipool_socket { local, local_length, ask_local, context, .. } = unsafe { *self.0 };
        if ask_local.is_some() {
            return ask_address(ask_local, context);
        }
        // SAFETY: the caller vouches for the bytes.
        match sockaddr::parse(unsafe { sockaddr_bytes(local, local_length) }.ok()?) {
            Parsed::Inet(address) => Some(address),
            Parsed::Unspecified(_) | Parsed::Other => None,
        }
    }

    fn is_v6only(&self) -> bool {
        self.flags() & VIPOOL_SOCKET_V6ONLY != 0
    }

    fn can_share_port(&self) -> bool {
        self.flags() & VIPOOL_SOCKET_SHARES_PORT != 0
    }
}

impl Asked {
    fn flags(&self) -> u32 {
        // SAFETY: the caller vouches for the struct, the callback and its context.
        unsafe {
            let vipool_socket { ask_flags, flags, context, .. } = *self.0;
            ask_flags.map_or(flags, |ask| ask(context))
        }
    }
}

/// Asks a callback for an address.
pub(crate) fn ask_address(ask: vipool_ask_address_fn, context: *mut c_void) -> Option<SocketAddr> {
    let ask = ask?;
    // Aligned as a sockaddr_storage is.
    let mut buffer = [0u64; sockaddr::MAX_LENGTH / 8];
    // SAFETY: the buffer has this many bytes; the caller vouches for callback and context.
    let length = unsafe { ask(context, buffer.as_mut_ptr().cast(), sockaddr::MAX_LENGTH as u32) };
    // SAFETY: the buffer, as bytes.
    let bytes =
        unsafe { std::slice::from_raw_parts(buffer.as_ptr().cast::<u8>(), sockaddr::MAX_LENGTH) };
    match sockaddr::parse(bytes.get(..length as usize)?) {
        Parsed::Inet(address) => Some(address),
        Parsed::Unspecified(_) | Parsed::Other => None,
    }
}
