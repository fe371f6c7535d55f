//! The properties of a socket that the rewriter reads.

use std::net::SocketAddr;

pub(crate) use crate::os::socket::SEARCH_ERROR;
pub use crate::os::socket::{ListenerMatch, Protocol};

/// Declares the properties of a socket: a struct of values, and the trait that a hook layer
/// implements with system calls. The doc comment of each property is used for both the field and
/// the method.
macro_rules! socket_properties {
    ($($(#[$doc:meta])* $property:ident: $type:ty;)*) => {
        /// The properties of a socket, as values.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct SocketProperties {
            $($(#[$doc])* pub $property: $type,)*
        }

        /// The socket of a call. Each property may cost a system call, so the rewriter reads only
        /// the properties that it needs for its decision.
        pub trait Socket {
            $($(#[$doc])* fn $property(&self) -> $type;)*

            /// Returns whether the socket is TCP or UDP. An implementation may also return true for
            /// a socket that is neither IPv4 nor IPv6. This is harmless: the kernel rejects an IP
            /// address for such a socket.
            fn is_tcp_or_udp(&self) -> bool {
                self.protocol() != Protocol::Other
            }
        }

        impl Socket for SocketProperties {
            $(
                fn $property(&self) -> $type {
                    self.$property
                }
            )*
        }
    };
}

socket_properties! {
    /// The protocol.
    protocol: Protocol;
    /// The local address in the kernel, not the address that the program sees. For an unbound
    /// socket, the value is the wildcard address with port 0. For a socket that is neither IPv4 nor
    /// IPv6, the value is `None`.
    local_address: Option<SocketAddr>;
    /// Whether the socket is restricted to IPv6 (`IPV6_V6ONLY`).
    is_v6only: bool;
    /// Whether other sockets can receive the same datagrams: `SO_REUSEADDR`, `SO_REUSEPORT` or
    /// `SO_BROADCAST` is set (row 26).
    can_share_port: bool;
}

impl SocketProperties {
    /// Returns the properties of a socket without any option set.
    #[must_use]
    pub fn new(protocol: Protocol, local_address: Option<SocketAddr>) -> Self {
        Self { protocol, local_address, is_v6only: false, can_share_port: false }
    }
}
