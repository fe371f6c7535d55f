//! Values that describe sockets.

/// The transport protocol of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// TCP or MPTCP.
    Tcp,
    /// UDP.
    Udp,
    /// UDP-Lite. Its ports are separate from the ports of UDP.
    UdpLite,
    /// Any other protocol. Calls on such a socket are never rewritten.
    Other,
}

impl Protocol {
    /// Returns whether the protocol is UDP or UDP-Lite.
    #[must_use]
    pub fn is_datagram(self) -> bool {
        matches!(self, Protocol::Udp | Protocol::UdpLite)
    }
}

/// The result of a search for a socket that listens or receives at one of several candidate
/// addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenerMatch {
    /// No socket listens or receives at any of the candidate addresses.
    NotFound,
    /// The index of the first candidate address at which a socket listens or receives.
    Index(usize),
    /// The kernel did not report the sockets.
    Unknown {
        /// The error number with which the hook layer fails the program's call.
        error: i32,
    },
}

/// The error number in [`ListenerMatch::Unknown`] if the system returned none: `ENOBUFS`, on
/// Windows `WSAENOBUFS`.
pub const SEARCH_ERROR: i32 = {
    #[cfg(unix)]
    {
        libc::ENOBUFS
    }
    #[cfg(windows)]
    {
        windows_sys::Win32::Networking::WinSock::WSAENOBUFS
    }
};
