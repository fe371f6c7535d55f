//! Raw ARP on one Ethernet interface (packet(7)): what the assigner asks the neighbours with.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// An ARP packet for IPv4 over Ethernet (RFC 826).
pub type ArpPacket = [u8; 28];

/// A socket that sends and receives ARP on one interface. Needs CAP_NET_RAW. Closed on exec.
#[derive(Debug)]
pub struct ArpSocket {
    fd: OwnedFd,
    interface: i32,
}

impl ArpSocket {
    /// A socket on the interface with this index.
    ///
    /// # Errors
    /// What socket(2) and bind(2) say: EPERM without CAP_NET_RAW, ENODEV without the interface.
    #[allow(unsafe_code)]
    pub fn open(interface: u32) -> io::Result<Self> {
        let protocol = i32::from((libc::ETH_P_ARP as u16).to_be());
        let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC;
        // SAFETY: takes numbers only.
        let fd = unsafe { libc::socket(libc::AF_PACKET, kind, protocol) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: socket returned a new descriptor, which nobody else has.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let socket = Self { fd, interface: interface as i32 };
        let address = socket.everybody();
        // SAFETY: a sockaddr_ll with its length, and a descriptor that we own.
        let bound = unsafe {
            libc::bind(
                socket.fd.as_raw_fd(),
                (&raw const address).cast(),
                size_of::<libc::sockaddr_ll>() as libc::socklen_t,
            )
        };
        if bound != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(socket)
    }

    /// Sends one packet to everybody on the link.
    ///
    /// # Errors
    /// What sendto(2) says; ENOBUFS when the interface's queue is full.
    #[allow(unsafe_code)]
    pub fn broadcast(&self, packet: &ArpPacket) -> io::Result<()> {
        let address = self.everybody();
        // SAFETY: a buffer and a sockaddr_ll, each with its length, valid during the call.
        let sent = unsafe {
            libc::sendto(
                self.fd.as_raw_fd(),
                packet.as_ptr().cast(),
                packet.len(),
                0,
                (&raw const address).cast(),
                size_of::<libc::sockaddr_ll>() as libc::socklen_t,
            )
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// The next packet that somebody else sent; `None` when none came in time. Longer packets are
    /// cut (Ethernet pads them), shorter ones are passed over.
    ///
    /// # Errors
    /// What poll(2) and recv(2) say, ENETDOWN when the interface goes down among it.
    #[allow(unsafe_code)]
    pub fn receive(&self, wait: Duration) -> io::Result<Option<ArpPacket>> {
        let mut poll = libc::pollfd { fd: self.fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let millis = wait.as_millis().min(i32::MAX as u128) as i32;
        // SAFETY: one pollfd, valid during the call.
        match unsafe { libc::poll(&mut poll, 1, millis) } {
            0 => return Ok(None),
            1.. => {}
            _ => {
                let error = io::Error::last_os_error();
                return if error.kind() == io::ErrorKind::Interrupted {
                    Ok(None)
                } else {
                    Err(error)
                };
            }
        }
        let mut packet: ArpPacket = [0; 28];
        // SAFETY: a buffer with its length, valid during the call.
        let got = unsafe {
            libc::recv(
                self.fd.as_raw_fd(),
                packet.as_mut_ptr().cast(),
                packet.len(),
                libc::MSG_DONTWAIT,
            )
        };
        match got {
            28.. => Ok(Some(packet)),
            0.. => Ok(None),
            _ => {
                let error = io::Error::last_os_error();
                if error.kind() == io::ErrorKind::WouldBlock { Ok(None) } else { Err(error) }
            }
        }
    }

    fn everybody(&self) -> libc::sockaddr_ll {
        libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            sll_protocol: (libc::ETH_P_ARP as u16).to_be(),
            sll_ifindex: self.interface,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 6,
            sll_addr: [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0],
        }
    }
}
