//! Searches for the sockets that listen or receive at an address, through the kernel's
//! `sock_diag(7)` interface.
//!
//! [`find`] opens one close-on-exec descriptor, queries the kernel without blocking, and closes the
//! descriptor before it returns. The function keeps no state in the process and allocates nothing.
//! It calls syscall(2) instead of the socket functions of the C library, so no call is a
//! cancellation point or a hooked function.
//!
//! Asynchronous signals are blocked during the search, because a handler that leaves through
//! siglongjmp would leak the descriptor. A child that another thread forks during the search holds
//! the descriptor until the child calls exec. `errno` may change.

use std::net::SocketAddr;

use super::socket::{ListenerMatch, Protocol};

/// Returns the index of the first candidate at which a socket listens or receives. A wildcard
/// socket does not count. See
/// [`SystemView::find_listener`](crate::rewrite::SystemView::find_listener).
#[cfg(target_os = "linux")]
pub fn find(
    candidates: &[SocketAddr],
    protocol: Protocol,
    source: Option<SocketAddr>,
) -> ListenerMatch {
    // This guard is declared first, because signals must stay blocked until the descriptor is
    // closed.
    let _blocked_signals = sock_diag::BlockedSignals::new();
    let search = || {
        let socket = sock_diag::DiagSocket::open()?;
        for (index, address) in candidates.iter().enumerate() {
            if socket.has_socket(*address, protocol, source)? {
                return Ok(ListenerMatch::Index(index));
            }
        }
        Ok(ListenerMatch::NotFound)
    };
    search().unwrap_or_else(|error| ListenerMatch::Unknown { error })
}

/// Returns [`ListenerMatch::Unknown`]. Unix systems other than Linux have no query that is suitable
/// for a hook layer.
#[cfg(not(target_os = "linux"))]
pub fn find(
    _candidates: &[SocketAddr],
    _protocol: Protocol,
    _source: Option<SocketAddr>,
) -> ListenerMatch {
    ListenerMatch::Unknown { error: super::socket::SEARCH_ERROR }
}

#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
mod sock_diag {
    use std::net::{IpAddr, Ipv6Addr, SocketAddr};

    use libc::{c_int, c_long};

    use crate::os::socket::{Protocol, SEARCH_ERROR};

    /// `TCP_LISTEN` of the kernel's `tcp_states.h`.
    const TCP_LISTEN: u8 = 10;
    /// `SOCK_DIAG_BY_FAMILY` of linux/sock_diag.h.
    const SOCK_DIAG_BY_FAMILY: u16 = 20;
    /// The size of `struct nlmsghdr`.
    const HEADER_LENGTH: usize = 16;
    /// The size of `struct inet_diag_req_v2`.
    const REQUEST_LENGTH: usize = 56;
    /// The offset of `struct inet_diag_sockid` in the request. The offset in the reply is smaller,
    /// because only the request contains the 4-byte field `idiag_states`.
    const REQUEST_SOCKET_ID_OFFSET: usize = HEADER_LENGTH + 8;
    const REPLY_SOCKET_ID_OFFSET: usize = HEADER_LENGTH + 4;

    /// Blocks the asynchronous signals of this thread while this value exists. Signals that the
    /// thread's own instructions raise stay unblocked, because the kernel kills the process if such
    /// a signal is blocked. For example, a sandbox can raise SIGSYS for a system call.
    pub(super) struct BlockedSignals(Option<u64>);

    impl BlockedSignals {
        /// Blocks the signals. If the system call fails, the signal mask stays unchanged.
        pub(super) fn new() -> Self {
            let synchronous_signals = [
                libc::SIGSYS,
                libc::SIGSEGV,
                libc::SIGBUS,
                libc::SIGFPE,
                libc::SIGILL,
                libc::SIGTRAP,
            ];
            let blocked_signals = synchronous_signals
                .iter()
                .fold(u64::MAX, |signals, signal| signals & !(1 << (signal - 1)));
            let mut old_mask = 0;
            Self(
                set_signal_mask(libc::SIG_BLOCK, &blocked_signals, Some(&mut old_mask))
                    .then_some(old_mask),
            )
        }
    }

    impl Drop for BlockedSignals {
        fn drop(&mut self) {
            if let Some(old_mask) = self.0 {
                set_signal_mask(libc::SIG_SETMASK, &old_mask, None);
            }
        }
    }

    /// Changes the signal mask of this thread, and writes the old mask to `old_mask`. Returns
    /// whether the system call succeeded.
    ///
    /// Calls the kernel directly, because pthread_sigmask(3) never blocks the signal that the C
    /// library uses to cancel threads.
    fn set_signal_mask(how: c_int, signals: &u64, old_mask: Option<&mut u64>) -> bool {
        let old_mask = old_mask.map_or(std::ptr::null_mut(), std::ptr::from_mut);
        // SAFETY: the size is that of the kernel's signal set. The kernel reads `signals`, and
        // writes to `old_mask` unless it is NULL. Both refer to values of this size.
        unsafe {
            libc::syscall(libc::SYS_rt_sigprocmask, how, signals, old_mask, size_of::<u64>()) == 0
        }
    }

    /// Returns the error number of the system call that has just failed.
    fn last_error_number() -> c_int {
        std::io::Error::last_os_error().raw_os_error().unwrap_or(SEARCH_ERROR)
    }

    /// The descriptor of a netlink socket for queries of `sock_diag`.
    pub(super) struct DiagSocket(c_long);

    impl DiagSocket {
        /// Opens the socket. Returns an error number if that fails, for example `EMFILE`.
        pub(super) fn open() -> Result<Self, c_int> {
            // SAFETY: all arguments are numbers.
            let descriptor = unsafe {
                libc::syscall(
                    libc::SYS_socket,
                    libc::AF_NETLINK,
                    libc::SOCK_RAW | libc::SOCK_CLOEXEC,
                    libc::NETLINK_SOCK_DIAG,
                )
            };
            if descriptor >= 0 { Ok(Self(descriptor)) } else { Err(last_error_number()) }
        }

        /// Returns whether a socket that is bound to `candidate` listens or receives. A wildcard
        /// socket does not count. Returns an error number if the search fails.
        pub(super) fn has_socket(
            &self,
            candidate: SocketAddr,
            protocol: Protocol,
            source: Option<SocketAddr>,
        ) -> Result<bool, c_int> {
            let request = encode_request(candidate, protocol, source).ok_or(SEARCH_ERROR)?;
            // SAFETY: the length is that of the buffer, and no address is passed.
            let sent = unsafe {
                libc::syscall(
                    libc::SYS_sendto,
                    self.0,
                    request.as_ptr(),
                    request.len(),
                    0,
                    std::ptr::null::<u8>(),
                    0,
                )
            };
            if sent != request.len() as c_long {
                return Err(last_error_number());
            }
            // The buffer has room for all fields that `parse_reply` reads. The kernel truncates a
            // longer reply.
            let mut reply = [0u8; 256];
            // SAFETY: the length is that of the buffer, and no address is requested.
            let length = unsafe {
                libc::syscall(
                    libc::SYS_recvfrom,
                    self.0,
                    reply.as_mut_ptr(),
                    reply.len(),
                    libc::MSG_DONTWAIT,
                    std::ptr::null_mut::<u8>(),
                    std::ptr::null_mut::<u8>(),
                )
            };
            let length = usize::try_from(length).map_err(|_| last_error_number())?;
            parse_reply(reply.get(..length).unwrap_or_default(), candidate, protocol)
                .ok_or(SEARCH_ERROR)?
        }
    }

    impl Drop for DiagSocket {
        fn drop(&mut self) {
            // SAFETY: the descriptor is open, and only this value uses it.
            unsafe { libc::syscall(libc::SYS_close, self.0) };
        }
    }

    fn encode_request(
        candidate: SocketAddr,
        protocol: Protocol,
        source: Option<SocketAddr>,
    ) -> Option<[u8; HEADER_LENGTH + REQUEST_LENGTH]> {
        let ip_protocol = match protocol {
            Protocol::Tcp => libc::IPPROTO_TCP,
            Protocol::Udp => libc::IPPROTO_UDP,
            Protocol::UdpLite => libc::IPPROTO_UDPLITE,
            Protocol::Other => return None,
        };
        let mut bytes = [0; HEADER_LENGTH + REQUEST_LENGTH];
        write_at(&mut bytes, 0, &((HEADER_LENGTH + REQUEST_LENGTH) as u32).to_ne_bytes());
        write_at(&mut bytes, 4, &SOCK_DIAG_BY_FAMILY.to_ne_bytes());
        write_at(&mut bytes, 6, &(libc::NLM_F_REQUEST as u16).to_ne_bytes());
        write_at(&mut bytes, HEADER_LENGTH, &[family(candidate) as u8, ip_protocol as u8]);
        // The request asks for sockets in every state.
        write_at(&mut bytes, HEADER_LENGTH + 4, &u32::MAX.to_ne_bytes());
        // For TCP, the kernel searches for the socket that is bound to "src". For datagrams, it
        // searches for the socket that receives from "src" at "dst".
        let source = source.filter(|source| family(*source) == family(candidate));
        let (src, dst) = if protocol.is_datagram() {
            (source, Some(candidate))
        } else {
            (Some(candidate), None)
        };
        for (address, port_offset, ip_offset) in [(src, 0, 4), (dst, 2, 20)] {
            if let Some(address) = address {
                write_at(
                    &mut bytes,
                    REQUEST_SOCKET_ID_OFFSET + port_offset,
                    &address.port().to_be_bytes(),
                );
                match canonical_ip(address) {
                    IpAddr::V4(ip) => {
                        write_at(&mut bytes, REQUEST_SOCKET_ID_OFFSET + ip_offset, &ip.octets())
                    }
                    IpAddr::V6(ip) => {
                        write_at(&mut bytes, REQUEST_SOCKET_ID_OFFSET + ip_offset, &ip.octets())
                    }
                }
            }
        }
        // The request contains no cookie of a socket (INET_DIAG_NOCOOKIE).
        write_at(&mut bytes, REQUEST_SOCKET_ID_OFFSET + 40, &u64::MAX.to_ne_bytes());
        Some(bytes)
    }

    /// Returns the result of [`DiagSocket::has_socket`], or `None` if the reply is not valid.
    fn parse_reply(
        reply: &[u8],
        candidate: SocketAddr,
        protocol: Protocol,
    ) -> Option<Result<bool, c_int>> {
        let message_type = u16::from_ne_bytes(*reply.get(4..)?.first_chunk()?);
        if c_int::from(message_type) == libc::NLMSG_ERROR {
            let error = i32::from_ne_bytes(*reply.get(HEADER_LENGTH..)?.first_chunk()?);
            return match error.checked_neg()? {
                libc::ENOENT => Some(Ok(false)),
                error => (error > 0).then_some(Err(error)),
            };
        }
        if message_type != SOCK_DIAG_BY_FAMILY {
            return None;
        }
        let [family, state] = *reply.get(HEADER_LENGTH..)?.first_chunk()?;
        let src: &[u8; 16] = reply.get(REPLY_SOCKET_ID_OFFSET + 4..)?.first_chunk()?;
        let (is_ipv6, bound_ip) = match c_int::from(family) {
            libc::AF_INET => {
                let [a, b, c, d, ..] = *src;
                (false, IpAddr::from([a, b, c, d]))
            }
            libc::AF_INET6 => (true, IpAddr::V6(Ipv6Addr::from(*src))),
            _ => return None,
        };
        // The kernel also finds wildcard sockets. A wildcard socket is not bound to the candidate.
        let is_bound_to_candidate = bound_ip.to_canonical() == canonical_ip(candidate);
        let is_receiving = protocol != Protocol::Tcp || state == TCP_LISTEN;
        // For a mapped candidate, the kernel also finds IPv4 sockets. Only an IPv6 socket can be
        // bound to a mapped address.
        let can_have_family = is_ipv6 || candidate.is_ipv4();
        Some(Ok(is_bound_to_candidate && is_receiving && can_have_family))
    }

    /// Returns the IP address. Converts a mapped address to IPv4, because a search for an IPv4
    /// address finds both IPv4 and IPv6 sockets.
    fn canonical_ip(address: SocketAddr) -> IpAddr {
        address.ip().to_canonical()
    }

    fn family(address: SocketAddr) -> c_int {
        if canonical_ip(address).is_ipv4() { libc::AF_INET } else { libc::AF_INET6 }
    }

    /// Copies `value` to `bytes` at `offset`. Ignores bytes that do not fit.
    fn write_at(bytes: &mut [u8], offset: usize, value: &[u8]) {
        for (target, byte) in bytes.iter_mut().skip(offset).zip(value) {
            *target = *byte;
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::net::{IpAddr, TcpListener, UdpSocket};

    use super::*;

    /// Returns a socket address that depends on the process id, so that parallel runs use different
    /// addresses.
    fn test_address(last_octet: u8) -> SocketAddr {
        let [.., high_byte, low_byte] = std::process::id().to_be_bytes();
        SocketAddr::from(([127, 60 + (high_byte & 0x3f), low_byte, last_octet], 0))
    }

    fn with_port(address: SocketAddr, port: u16) -> SocketAddr {
        SocketAddr::new(address.ip(), port)
    }

    #[test]
    fn listener_matches_only_its_address() {
        let listener = TcpListener::bind(test_address(1)).unwrap();
        let bound_address = listener.local_addr().unwrap();
        let unbound_address = with_port(test_address(2), bound_address.port());
        assert_eq!(find(&[bound_address], Protocol::Tcp, None), ListenerMatch::Index(0));
        assert_eq!(
            find(&[unbound_address, bound_address], Protocol::Tcp, None),
            ListenerMatch::Index(1)
        );
        assert_eq!(find(&[unbound_address], Protocol::Tcp, None), ListenerMatch::NotFound);
        assert_eq!(find(&[bound_address], Protocol::Udp, None), ListenerMatch::NotFound);
        let IpAddr::V4(bound_ip) = bound_address.ip() else { unreachable!() };
        let mapped_address =
            SocketAddr::new(bound_ip.to_ipv6_mapped().into(), bound_address.port());
        assert_eq!(find(&[mapped_address], Protocol::Tcp, None), ListenerMatch::NotFound);
    }

    #[test]
    fn wildcard_socket_matches_no_address() {
        let listener = TcpListener::bind("0.0.0.0:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(
            find(&[with_port(test_address(1), port)], Protocol::Tcp, None),
            ListenerMatch::NotFound
        );
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        assert_eq!(
            find(&[with_port(test_address(1), port)], Protocol::Udp, None),
            ListenerMatch::NotFound
        );
    }

    #[test]
    fn mapped_ipv6_socket_matches_its_ipv4_address() {
        let IpAddr::V4(ip) = test_address(3).ip() else { unreachable!() };
        let listener = TcpListener::bind((ip.to_ipv6_mapped(), 0)).unwrap();
        let mapped_address = listener.local_addr().unwrap();
        assert_eq!(find(&[mapped_address], Protocol::Tcp, None), ListenerMatch::Index(0));
        assert_eq!(
            find(&[with_port(test_address(3), mapped_address.port())], Protocol::Tcp, None),
            ListenerMatch::Index(0)
        );
    }

    #[test]
    fn connected_udp_socket_matches_only_its_peer() {
        let socket = UdpSocket::bind(test_address(4)).unwrap();
        let bound_address = socket.local_addr().unwrap();
        assert_eq!(find(&[bound_address], Protocol::Udp, None), ListenerMatch::Index(0));
        let peer = UdpSocket::bind(test_address(5)).unwrap().local_addr().unwrap();
        socket.connect(peer).unwrap();
        assert_eq!(find(&[bound_address], Protocol::Udp, None), ListenerMatch::NotFound);
        assert_eq!(find(&[bound_address], Protocol::Udp, Some(peer)), ListenerMatch::Index(0));
    }
}
