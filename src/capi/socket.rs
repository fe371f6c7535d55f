//! Properties of a socket: members of a struct, or results of callbacks.

use std::cell::Cell;
use std::ffi::c_void;
use std::mem::MaybeUninit;
use std::net::SocketAddr;

use super::address::{parse_inet, sockaddr_bytes};
use super::layout::{layout, read_in_place_silent};
use super::status::vipool_status::{self, *};
use crate::rewrite::sockaddr;
use crate::rewrite::{Protocol, Socket};

/// Protocol of a socket.
#[repr(u32)]
#[derive(Clone, Copy, Debug)]
pub enum vipool_protocol {
    /// Another protocol. Calls on such a socket pass unchanged.
    VIPOOL_PROTOCOL_OTHER = 0,
    /// TCP or MPTCP.
    VIPOOL_PROTOCOL_TCP = 1,
    /// UDP.
    VIPOOL_PROTOCOL_UDP = 2,
    /// UDP-Lite.
    VIPOOL_PROTOCOL_UDPLITE = 3,
}

/// Reads an address of a socket from the kernel.
///
/// Parameters:
/// - `context`: the context that the caller passed with the callback.
/// - `buffer`, `capacity`: receives the sockaddr. The capacity is enough for every sockaddr.
///
/// Returns: the length of the sockaddr; 0 if there is none or it is not IPv4 or IPv6.
pub type vipool_get_address_fn =
    Option<unsafe extern "C" fn(context: *mut c_void, buffer: *mut c_void, capacity: u32) -> u32>;

/// Reads the protocol or the flags of a socket from the kernel.
///
/// Parameters:
/// - `context`: vipool_socket.context.
///
/// Returns: vipool_protocol, or VIPOOL_SOCKET_... flags.
pub type vipool_get_number_fn = Option<unsafe extern "C" fn(context: *mut c_void) -> u32>;

/// vipool_socket.flags: an IPv6-only socket (IPV6_V6ONLY).
pub const VIPOOL_SOCKET_V6ONLY: u32 = 1;
/// vipool_socket.flags: the socket can receive the same datagrams as other sockets: SO_REUSEADDR,
/// SO_REUSEPORT or SO_BROADCAST is set.
pub const VIPOOL_SOCKET_SHARES_PORT: u32 = 2;

/// Properties of a socket. A property is a member, or the result of a callback. The library calls a
/// callback only if the outcome depends on the property, because each callback may make a system
/// call. A callback that is not NULL replaces the member.
///
/// Unknown flags and protocols, from a member or a callback, cause VIPOOL_ERR_KIND.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct vipool_socket {
    /// sizeof(vipool_socket), set by the caller.
    pub size: usize,
    /// The local sockaddr of the socket in the kernel, which can differ from the address that the
    /// program sees. For a socket that is not bound, pass the unspecified address with port 0. (On
    /// Windows, getsockname fails with WSAEINVAL for such a socket.) NULL if the socket is not an
    /// IPv4 or IPv6 socket.
    pub local: *const c_void,
    /// Length of `local` in bytes.
    pub local_length: u32,
    /// vipool_protocol.
    pub protocol: u32,
    /// VIPOOL_SOCKET_...
    pub flags: u32,
    /// Reserved: zero.
    pub reserved: u32,
    /// Returns `local`. May be NULL.
    pub get_local: vipool_get_address_fn,
    /// Returns `protocol`. May be NULL.
    pub get_protocol: vipool_get_number_fn,
    /// Returns `flags`. May be NULL.
    pub get_flags: vipool_get_number_fn,
    /// Passed to the callbacks.
    pub context: *mut c_void,
}
layout!(vipool_socket {
    size,
    local,
    local_length,
    protocol,
    flags,
    reserved,
    get_local,
    get_protocol,
    get_flags,
    context,
});

const KNOWN_FLAGS: u32 = VIPOOL_SOCKET_V6ONLY | VIPOOL_SOCKET_SHARES_PORT;
const MAX_PROTOCOL: u32 = vipool_protocol::VIPOOL_PROTOCOL_UDPLITE as u32;

/// A pointer to the [`vipool_socket`] of a caller, or to a copy if the struct is of another
/// version. Each property is read when it is needed.
pub(crate) struct CallerSocket {
    socket: *const vipool_socket,
    /// Whether a callback returned an unknown protocol or an unknown flag.
    has_unknown_number: Cell<bool>,
}

impl CallerSocket {
    /// Checks the protocol, the flags and the reserved member. Keeps a pointer to the struct.
    ///
    /// # Safety
    /// `socket` is NULL, or aligned and valid for reads of `(*socket).size` bytes. The sockaddr,
    /// the callbacks and the context in the struct are valid. These conditions hold as long as the
    /// result is used. `storage` outlives the result.
    #[inline]
    pub(crate) unsafe fn new(
        socket: *const vipool_socket,
        storage: &mut MaybeUninit<vipool_socket>,
    ) -> Result<Self, vipool_status> {
        // SAFETY: the caller guarantees the struct.
        let socket = unsafe { read_in_place_silent(socket, storage) }?;
        // SAFETY: as above.
        let (protocol, flags, reserved) =
            unsafe { ((*socket).protocol, (*socket).flags, (*socket).reserved) };
        if reserved != 0 {
            return Err(VIPOOL_ERR_UNKNOWN_FIELD);
        }
        if flags & !KNOWN_FLAGS != 0 || protocol > MAX_PROTOCOL {
            return Err(VIPOOL_ERR_KIND);
        }
        Ok(Self { socket, has_unknown_number: Cell::new(false) })
    }

    /// Returns an error if a callback returned an unknown protocol or an unknown flag.
    #[inline]
    pub(crate) fn check_callback_numbers(&self) -> Result<(), vipool_status> {
        if self.has_unknown_number.get() { Err(VIPOOL_ERR_KIND) } else { Ok(()) }
    }

    fn flags(&self) -> u32 {
        // SAFETY: the caller of `new` guarantees struct, callback and context.
        let flags = unsafe {
            let vipool_socket { get_flags, flags, context, .. } = *self.socket;
            get_flags.map_or(flags, |get_flags| get_flags(context))
        };
        if flags & !KNOWN_FLAGS != 0 {
            self.has_unknown_number.set(true);
        }
        flags
    }
}

impl Socket for CallerSocket {
    #[inline]
    fn protocol(&self) -> Protocol {
        // SAFETY: the caller of `new` guarantees struct, callback and context.
        let number = unsafe {
            let vipool_socket { get_protocol, protocol, context, .. } = *self.socket;
            get_protocol.map_or(protocol, |get_protocol| get_protocol(context))
        };
        match number {
            0 => Protocol::Other,
            1 => Protocol::Tcp,
            2 => Protocol::Udp,
            3 => Protocol::UdpLite,
            _ => {
                self.has_unknown_number.set(true);
                Protocol::Other
            }
        }
    }

    fn local_address(&self) -> Option<SocketAddr> {
        // SAFETY: the caller of `new` guarantees the struct.
        let vipool_socket { local, local_length, get_local, context, .. } = unsafe { *self.socket };
        if get_local.is_some() {
            // SAFETY: the caller of `new` guarantees callback and context.
            return unsafe { call_get_address(get_local, context) };
        }
        // SAFETY: the caller of `new` guarantees the bytes.
        parse_inet(unsafe { sockaddr_bytes(local, local_length) }.ok()?)
    }

    fn is_v6only(&self) -> bool {
        self.flags() & VIPOOL_SOCKET_V6ONLY != 0
    }

    fn can_share_port(&self) -> bool {
        self.flags() & VIPOOL_SOCKET_SHARES_PORT != 0
    }
}

/// Returns the address that a callback reads. Returns `None` if there is no callback or no address.
///
/// # Safety
/// `get_address` may be called with this context.
pub(crate) unsafe fn call_get_address(
    get_address: vipool_get_address_fn,
    context: *mut c_void,
) -> Option<SocketAddr> {
    let get_address = get_address?;
    // u64 gives the buffer the alignment of a sockaddr_storage.
    let mut buffer = [0u64; sockaddr::MAX_LENGTH / 8];
    let capacity = sockaddr::MAX_LENGTH as u32;
    // SAFETY: the buffer has this many bytes; the caller guarantees callback and context.
    let length = unsafe { get_address(context, buffer.as_mut_ptr().cast(), capacity) };
    // SAFETY: the slice consists of the bytes of the buffer.
    let bytes =
        unsafe { std::slice::from_raw_parts(buffer.as_ptr().cast::<u8>(), sockaddr::MAX_LENGTH) };
    parse_inet(bytes.get(..length as usize)?)
}
