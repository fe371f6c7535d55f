//! A packet socket (packet(7)) for ARP packets on one Ethernet interface.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// An ARP packet for IPv4 over Ethernet (RFC 826).
pub type ArpPacket = [u8; 28];

/// A socket that sends and receives ARP packets on one interface. The kernel closes the socket
/// on exec.
#[derive(Debug)]
pub struct ArpSocket {
    fd: OwnedFd,
    interface_index: i32,
}

impl ArpSocket {
    /// Opens a socket on the interface with this index.
    ///
    /// # Errors
    /// EPERM without CAP_NET_RAW, ENODEV if the interface does not exist, and other errors of
    /// socket(2) and bind(2).
    pub fn open(interface_index: u32) -> io::Result<Self> {
        let protocol = i32::from((libc::ETH_P_ARP as u16).to_be());
        let socket_type = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC;
        // SAFETY: the call takes only integers.
        let fd = unsafe { libc::socket(libc::AF_PACKET, socket_type, protocol) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: socket(2) returned a new descriptor, and nothing else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let socket = Self { fd, interface_index: interface_index as i32 };
        // bind(2) uses only the protocol and the interface of this address (packet(7)).
        let address = socket.broadcast_address();
        // SAFETY: the pointer and the length describe a valid sockaddr_ll.
        let status = unsafe {
            libc::bind(
                socket.fd.as_raw_fd(),
                (&raw const address).cast(),
                size_of::<libc::sockaddr_ll>() as libc::socklen_t,
            )
        };
        if status != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(socket)
    }

    /// Broadcasts a packet on the link.
    ///
    /// # Errors
    /// ENOBUFS if the interface's queue is full, and other errors of sendto(2).
    pub fn broadcast(&self, packet: &ArpPacket) -> io::Result<()> {
        let address = self.broadcast_address();
        // SAFETY: both pointers are valid for their lengths during the call.
        let sent_length = unsafe {
            libc::sendto(
                self.fd.as_raw_fd(),
                packet.as_ptr().cast(),
                packet.len(),
                0,
                (&raw const address).cast(),
                size_of::<libc::sockaddr_ll>() as libc::socklen_t,
            )
        };
        if sent_length < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Returns the next packet of another host. Returns `None` if no packet arrives before the
    /// timeout.
    ///
    /// Discards the padding that Ethernet adds to short packets. Also returns `None`, before the
    /// timeout, after a packet of less than 28 bytes or a signal.
    ///
    /// # Errors
    /// ENETDOWN if the interface goes down, and other errors of poll(2) and recv(2).
    pub fn receive(&self, timeout: Duration) -> io::Result<Option<ArpPacket>> {
        let mut poll_fd =
            libc::pollfd { fd: self.fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let milliseconds = timeout.as_millis().min(i32::MAX as u128) as i32;
        // SAFETY: the pointer is valid for one pollfd during the call.
        match unsafe { libc::poll(&mut poll_fd, 1, milliseconds) } {
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
        // SAFETY: the pointer is valid for the packet's length during the call.
        let received_length = unsafe {
            libc::recv(
                self.fd.as_raw_fd(),
                packet.as_mut_ptr().cast(),
                packet.len(),
                libc::MSG_DONTWAIT,
            )
        };
        match received_length {
            28.. => Ok(Some(packet)),
            0.. => Ok(None),
            _ => {
                let error = io::Error::last_os_error();
                if error.kind() == io::ErrorKind::WouldBlock { Ok(None) } else { Err(error) }
            }
        }
    }

    fn broadcast_address(&self) -> libc::sockaddr_ll {
        libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            sll_protocol: (libc::ETH_P_ARP as u16).to_be(),
            sll_ifindex: self.interface_index,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 6,
            sll_addr: [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0],
        }
    }
}
