//! The socket calls that a trace reports.

use std::net::SocketAddr;

/// A call of a program that concerns its addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SocketCall {
    /// The program bound a socket, or tried to bind an address that was in use (EADDRINUSE).
    Bind {
        /// Whether the socket is TCP; otherwise it is UDP.
        is_tcp: bool,
        /// The requested address.
        address: SocketAddr,
        /// Whether the bind succeeded.
        has_succeeded: bool,
    },
    /// The program connected a socket, or sent a datagram with sendto(2). A trace also reports the
    /// attempt if the destination refused it (ECONNREFUSED).
    Connect {
        /// Whether the socket is TCP; otherwise it is UDP.
        is_tcp: bool,
        /// The destination.
        destination: SocketAddr,
    },
    /// The program requested the interfaces' addresses, as getifaddrs(3) does.
    ListInterfaces,
    /// The program requested the host's name (uname(2), which gethostname(3) calls).
    GetHostName,
    /// The program resolved a name: it opened `/etc/hosts`.
    ResolveName,
    /// The program created an io_uring(7). Operations through an io_uring cannot be traced.
    CreateIoUring,
}
