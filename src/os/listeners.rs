//! Searches for listening sockets through the kernel's `sock_diag(7)` interface.
//!
//! [`find`] opens one close-on-exec descriptor, queries the kernel without blocking, and closes the
//! descriptor before it returns. The function keeps no state in the process and allocates nothing.
//! It calls syscall(2) instead of the socket functions of the C library, so no call is a
//! cancellation point or a hooked function.
//!
//! Signals are blocked during the search: a handler that leaves through siglongjmp would leak the
//! descriptor. A child that another thread forks during the search holds the descriptor until it
//! calls exec. `errno` may change.

use std::net::SocketAddr;

use super::socket::{ListenerMatch, Protocol};

/// Returns the index of the first address in `wanted` that has a socket of its own. A wildcard
/// socket does not count. See
/// [`SystemView::find_listener`](crate::rewrite::SystemView::find_listener).
#[cfg(target_os = "linux")]
pub fn find(wanted: &[SocketAddr], protocol: Protocol, from: Option<SocketAddr>) -> ListenerMatch {
    // Declared first, because signals must stay blocked until the descriptor is closed.
    let _waiting = diag::Waiting::signals();
    let Some(diag) = diag::Diag::open() else { return ListenerMatch::Unknown };
    for (place, address) in wanted.iter().enumerate() {
        match diag.has_socket(*address, protocol, from) {
            Some(false) => {}
            Some(true) => return ListenerMatch::Index(place),
            None => return ListenerMatch::Unknown,
        }
    }
    ListenerMatch::NotFound
}

/// These systems have no query that is suitable for a hook layer.
#[cfg(not(target_os = "linux"))]
pub fn find(
    _wanted: &[SocketAddr],
    _protocol: Protocol,
    _from: Option<SocketAddr>,
) -> ListenerMatch {
    ListenerMatch::Unknown
}

#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
mod diag {
    use std::net::{IpAddr, Ipv6Addr, SocketAddr};

    use libc::{c_int, c_long};

    use crate::os::socket::Protocol;

    /// `TCP_LISTEN` of the kernel's `tcp_states.h`.
    const LISTEN: u8 = 10;
    /// `SOCK_DIAG_BY_FAMILY` of linux/sock_diag.h.
    const BY_FAMILY: u16 = 20;
    /// The size of `struct nlmsghdr`.
    const HEADER: usize = 16;
    /// The size of `struct inet_diag_req_v2`.
    const REQUEST: usize = 56;
    /// The offset of `struct inet_diag_sockid` in the request. In the answer the offset is smaller,
    /// because only the request contains four bytes of states.
    const REQUEST_ID: usize = HEADER + 8;
    const ANSWER_ID: usize = HEADER + 4;

    /// Blocks signals while it exists, except those that an instruction of the thread itself
    /// raises. (A sandbox can answer a system call with SIGSYS. If the thread blocks SIGSYS, the
    /// kernel kills the process.)
    pub(super) struct Waiting(Option<u64>);

    impl Waiting {
        /// Blocks the signals of this thread until the value is dropped.
        pub(super) fn signals() -> Self {
            let own = [
                libc::SIGSYS,
                libc::SIGSEGV,
                libc::SIGBUS,
                libc::SIGFPE,
                libc::SIGILL,
                libc::SIGTRAP,
            ];
            let set = own.iter().fold(u64::MAX, |set, signal| set & !(1 << (signal - 1)));
            let mut before = 0;
            Self(mask(libc::SIG_BLOCK, &set, &mut before).then_some(before))
        }
    }

    impl Drop for Waiting {
        fn drop(&mut self) {
            if let Some(before) = self.0 {
                mask(libc::SIG_SETMASK, &before, std::ptr::null_mut());
            }
        }
    }

    /// Calls the kernel directly, because the C library never blocks the signals that cancel
    /// threads.
    fn mask(how: c_int, set: &u64, before: *mut u64) -> bool {
        // SAFETY: the size is that of the kernel's signal set. The kernel reads `set`, and writes
        // to `before` unless it is NULL.
        unsafe { libc::syscall(libc::SYS_rt_sigprocmask, how, set, before, size_of::<u64>()) == 0 }
    }

    /// An open netlink socket.
    pub(super) struct Diag(c_long);

    impl Diag {
        pub(super) fn open() -> Option<Self> {
            // SAFETY: all arguments are numbers.
            let descriptor = unsafe {
                libc::syscall(
                    libc::SYS_socket,
                    libc::AF_NETLINK,
                    libc::SOCK_RAW | libc::SOCK_CLOEXEC,
                    libc::NETLINK_SOCK_DIAG,
                )
            };
            (descriptor >= 0).then_some(Self(descriptor))
        }

        /// Returns whether a socket has exactly this address, or `None` if the kernel does not
        /// answer.
        pub(super) fn has_socket(
            &self,
            wanted: SocketAddr,
            protocol: Protocol,
            from: Option<SocketAddr>,
        ) -> Option<bool> {
            let request = request(wanted, protocol, from)?;
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
                return None;
            }
            // The buffer has room for all fields that `read` uses. The kernel truncates a longer
            // answer.
            let mut answer = [0u8; 256];
            // SAFETY: the length is that of the buffer, and no address is requested.
            let length = unsafe {
                libc::syscall(
                    libc::SYS_recvfrom,
                    self.0,
                    answer.as_mut_ptr(),
                    answer.len(),
                    libc::MSG_DONTWAIT,
                    std::ptr::null_mut::<u8>(),
                    std::ptr::null_mut::<u8>(),
                )
            };
            read(answer.get(..usize::try_from(length).ok()?)?, wanted, protocol)
        }
    }

    impl Drop for Diag {
        fn drop(&mut self) {
            // SAFETY: the descriptor is open, and only this value uses it.
            unsafe { libc::syscall(libc::SYS_close, self.0) };
        }
    }

    fn request(
        wanted: SocketAddr,
        protocol: Protocol,
        from: Option<SocketAddr>,
    ) -> Option<[u8; HEADER + REQUEST]> {
        let kind = match protocol {
            Protocol::Tcp => libc::IPPROTO_TCP,
            Protocol::Udp => libc::IPPROTO_UDP,
            Protocol::Other => return None,
        };
        let mut bytes = [0; HEADER + REQUEST];
        put(&mut bytes, 0, &((HEADER + REQUEST) as u32).to_ne_bytes());
        put(&mut bytes, 4, &BY_FAMILY.to_ne_bytes());
        put(&mut bytes, 6, &(libc::NLM_F_REQUEST as u16).to_ne_bytes());
        put(&mut bytes, HEADER, &[family(wanted) as u8, kind as u8]);
        put(&mut bytes, HEADER + 4, &u32::MAX.to_ne_bytes());
        // TCP searches for the socket that is bound to "src". UDP searches for the socket that
        // receives datagrams from "src" at "dst".
        let from = from.filter(|from| family(*from) == family(wanted));
        let (src, dst) = match protocol {
            Protocol::Udp => (from, Some(wanted)),
            _ => (Some(wanted), None),
        };
        for (address, port_at, ip_at) in [(src, 0, 4), (dst, 2, 20)] {
            if let Some(address) = address {
                put(&mut bytes, REQUEST_ID + port_at, &address.port().to_be_bytes());
                match plain(address) {
                    IpAddr::V4(v4) => put(&mut bytes, REQUEST_ID + ip_at, &v4.octets()),
                    IpAddr::V6(v6) => put(&mut bytes, REQUEST_ID + ip_at, &v6.octets()),
                }
            }
        }
        // INET_DIAG_NOCOOKIE.
        put(&mut bytes, REQUEST_ID + 40, &u64::MAX.to_ne_bytes());
        Some(bytes)
    }

    fn read(answer: &[u8], wanted: SocketAddr, protocol: Protocol) -> Option<bool> {
        let kind = u16::from_ne_bytes(*answer.get(4..)?.first_chunk()?);
        if c_int::from(kind) == libc::NLMSG_ERROR {
            let error = i32::from_ne_bytes(*answer.get(HEADER..)?.first_chunk()?);
            return (error == -libc::ENOENT).then_some(false);
        }
        if kind != BY_FAMILY {
            return None;
        }
        let [of, state] = *answer.get(HEADER..)?.first_chunk()?;
        let src: &[u8; 16] = answer.get(ANSWER_ID + 4..)?.first_chunk()?;
        let (v6, source) = match c_int::from(of) {
            libc::AF_INET => {
                let [a, b, c, d, ..] = *src;
                (false, IpAddr::from([a, b, c, d]))
            }
            libc::AF_INET6 => (true, IpAddr::V6(Ipv6Addr::from(*src))),
            _ => return None,
        };
        // The kernel also finds a wildcard socket. Such a socket does not have the address itself.
        let same = source.to_canonical() == plain(wanted);
        let open = protocol != Protocol::Tcp || state == LISTEN;
        Some(same && open && (v6 || wanted.is_ipv4()))
    }

    /// Returns the IP address. Converts a mapped address to IPv4, because the kernel then finds
    /// both IPv4 and IPv6 sockets.
    fn plain(address: SocketAddr) -> IpAddr {
        address.ip().to_canonical()
    }

    fn family(address: SocketAddr) -> c_int {
        if plain(address).is_ipv4() { libc::AF_INET } else { libc::AF_INET6 }
    }

    /// Copies `part` to the offset `at`. Leaves out bytes that do not fit.
    fn put(bytes: &mut [u8], at: usize, part: &[u8]) {
        for (to, from) in bytes.iter_mut().skip(at).zip(part) {
            *to = *from;
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::net::{IpAddr, TcpListener, UdpSocket};

    use super::*;

    /// Returns a socket address that depends on the process id, so that parallel runs use different
    /// addresses.
    fn own(last: u8) -> SocketAddr {
        let [.., a, b] = std::process::id().to_be_bytes();
        SocketAddr::from(([127, 60 + (a & 0x3f), b, last], 0))
    }

    fn at(address: SocketAddr, port: u16) -> SocketAddr {
        SocketAddr::new(address.ip(), port)
    }

    #[test]
    fn a_listener_is_found_by_its_own_address_only() {
        let listener = TcpListener::bind(own(1)).unwrap();
        let here = listener.local_addr().unwrap();
        let other = at(own(2), here.port());
        assert_eq!(find(&[here], Protocol::Tcp, None), ListenerMatch::Index(0));
        assert_eq!(find(&[other, here], Protocol::Tcp, None), ListenerMatch::Index(1));
        assert_eq!(find(&[other], Protocol::Tcp, None), ListenerMatch::NotFound);
        assert_eq!(find(&[here], Protocol::Udp, None), ListenerMatch::NotFound);
        let IpAddr::V4(v4) = here.ip() else { unreachable!() };
        let mapped = at(SocketAddr::new(v4.to_ipv6_mapped().into(), 0), here.port());
        assert_eq!(find(&[mapped], Protocol::Tcp, None), ListenerMatch::NotFound);
    }

    #[test]
    fn a_wildcard_socket_is_none() {
        let listener = TcpListener::bind("0.0.0.0:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(find(&[at(own(1), port)], Protocol::Tcp, None), ListenerMatch::NotFound);
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        assert_eq!(find(&[at(own(1), port)], Protocol::Udp, None), ListenerMatch::NotFound);
    }

    #[test]
    fn an_ipv6_socket_is_found_by_the_ipv4_address_it_holds() {
        let IpAddr::V4(v4) = own(3).ip() else { unreachable!() };
        let listener = TcpListener::bind((v4.to_ipv6_mapped(), 0)).unwrap();
        let mapped = listener.local_addr().unwrap();
        assert_eq!(find(&[mapped], Protocol::Tcp, None), ListenerMatch::Index(0));
        assert_eq!(
            find(&[at(own(3), mapped.port())], Protocol::Tcp, None),
            ListenerMatch::Index(0)
        );
    }

    #[test]
    fn a_connected_udp_socket_is_found_by_its_peer_only() {
        let socket = UdpSocket::bind(own(4)).unwrap();
        let here = socket.local_addr().unwrap();
        assert_eq!(find(&[here], Protocol::Udp, None), ListenerMatch::Index(0));
        let peer = UdpSocket::bind(own(5)).unwrap().local_addr().unwrap();
        socket.connect(peer).unwrap();
        assert_eq!(find(&[here], Protocol::Udp, None), ListenerMatch::NotFound);
        assert_eq!(find(&[here], Protocol::Udp, Some(peer)), ListenerMatch::Index(0));
    }
}
