//! The kernel's routing socket (rtnetlink(7)): lists links and addresses, and adds and deletes
//! addresses in batches.
//!
//! The assigner adds a pool address in a form that the host never uses as its own source address:
//! - IPv4: a /32 of host scope. For a destination outside the host, the kernel never selects a
//!   source address of host scope. A preferred lifetime of 0 would not suffice, because the kernel
//!   could still select a deprecated IPv4 address.
//! - IPv6: a /128 with preferred lifetime 0, which makes it deprecated (RFC 6724, rule 3).
//!
//! Each address carries the mark [`POOL_ADDRESS_PROTOCOL`], which recent versions of `ip address`
//! show as `proto 0x76`. Kernels before 5.18 drop the mark.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressMessage, AddressProtocol, AddressScope, CacheInfo,
};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

/// The mark of pool addresses. The kernel stores it in IFA_PROTO, the attribute for the origin of
/// an address.
pub const POOL_ADDRESS_PROTOCOL: u8 = 0x76;

/// Maximum number of messages per system call. The kernel's answers to this number of messages fit
/// in the receive buffer of the socket.
const BATCH_SIZE: usize = 128;

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The interface index.
    pub index: u32,
    /// The interface name.
    pub name: String,
    /// Whether the interface is up.
    pub is_up: bool,
    /// The Ethernet address, if the interface uses ARP.
    pub arp_mac: Option<[u8; 6]>,
}

/// An address on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct InterfaceAddress {
    /// Index of the interface.
    pub interface: u32,
    /// The address.
    pub address: IpAddr,
}

/// The state of an address on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressState {
    /// Length of the prefix.
    pub prefix_length: u8,
    /// IPv6: the address cannot be used, because duplicate address detection is in progress or has
    /// found a duplicate.
    pub is_tentative: bool,
    /// IPv6: another host uses the address.
    pub is_duplicate: bool,
    /// The address has the form of a pool address. The host's own addresses usually have
    /// another form.
    pub is_pool_like: bool,
    /// The address carries the mark [`POOL_ADDRESS_PROTOCOL`].
    pub is_marked: bool,
}

/// A routing socket.
pub struct Netlink {
    socket: Socket,
    last_sequence: u32,
}

impl Netlink {
    /// Opens a routing socket in the network namespace of this process.
    ///
    /// # Errors
    /// A system call on the socket fails.
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        // Without this option, an answer that reports an error repeats the request.
        socket.set_cap_ack(true)?;
        Ok(Self { socket, last_sequence: 0 })
    }

    /// Returns all interfaces.
    ///
    /// # Errors
    /// The kernel reports an error.
    pub fn links(&mut self) -> io::Result<Vec<Link>> {
        let mut links = Vec::new();
        self.dump(RouteNetlinkMessage::GetLink(LinkMessage::default()), |message| {
            let RouteNetlinkMessage::NewLink(link) = message else { return };
            let flags = link.header.flags;
            let mut name = String::new();
            let mut mac = None;
            for attribute in link.attributes {
                match attribute {
                    LinkAttribute::IfName(text) => name = text,
                    LinkAttribute::Address(bytes) => mac = bytes.try_into().ok(),
                    _ => {}
                }
            }
            let uses_arp = !flags.intersects(LinkFlags::Noarp | LinkFlags::Loopback);
            links.push(Link {
                index: link.header.index,
                name,
                is_up: flags.contains(LinkFlags::Up),
                arp_mac: mac.filter(|_| uses_arp),
            });
        })?;
        Ok(links)
    }

    /// Returns all addresses of all interfaces.
    ///
    /// # Errors
    /// The kernel reports an error.
    pub fn addresses(&mut self) -> io::Result<BTreeMap<InterfaceAddress, AddressState>> {
        let mut addresses = BTreeMap::new();
        self.dump(RouteNetlinkMessage::GetAddress(AddressMessage::default()), |message| {
            let RouteNetlinkMessage::NewAddress(message) = message else { return };
            let (mut local_address, mut peer_address) = (None, None);
            let mut flags = AddressFlags::empty();
            let mut preferred_lifetime = u32::MAX;
            let mut is_marked = false;
            for attribute in &message.attributes {
                match attribute {
                    AddressAttribute::Local(address) => local_address = Some(*address),
                    AddressAttribute::Address(address) => peer_address = Some(*address),
                    AddressAttribute::Flags(value) => flags = *value,
                    AddressAttribute::CacheInfo(cache_info) => {
                        preferred_lifetime = cache_info.ifa_preferred;
                    }
                    AddressAttribute::Protocol(protocol) => {
                        is_marked = u8::from(*protocol) == POOL_ADDRESS_PROTOCOL
                    }
                    _ => {}
                }
            }
            // On a point-to-point link, IFA_ADDRESS is the address of the peer.
            let Some(address) = local_address.or(peer_address) else { return };
            let prefix_length = message.header.prefix_len;
            let has_pool_form = match address {
                IpAddr::V4(_) => prefix_length == 32 && message.header.scope == AddressScope::Host,
                IpAddr::V6(_) => prefix_length == 128 && preferred_lifetime == 0,
            };
            let state = AddressState {
                prefix_length,
                is_tentative: flags.contains(AddressFlags::Tentative),
                is_duplicate: flags.contains(AddressFlags::Dadfailed),
                is_pool_like: has_pool_form && !address.is_loopback(),
                is_marked,
            };
            addresses.insert(InterfaceAddress { interface: message.header.index, address }, state);
        })?;
        Ok(addresses)
    }

    /// Adds addresses. Calls `report_progress` with the number of processed addresses.
    ///
    /// The results are in the order of the addresses. `AlreadyExists` means that the address is
    /// already on the interface.
    ///
    /// # Errors
    /// The socket fails.
    pub fn add(
        &mut self,
        addresses: &[InterfaceAddress],
        report_progress: impl FnMut(usize),
    ) -> io::Result<Vec<io::Result<()>>> {
        let flags = NLM_F_CREATE | NLM_F_EXCL;
        self.change_addresses(addresses, flags, RouteNetlinkMessage::NewAddress, report_progress)
    }

    /// Deletes addresses. The result of an address that does not exist is `AddrNotAvailable`.
    ///
    /// # Errors
    /// The socket fails.
    pub fn delete(
        &mut self,
        addresses: &[InterfaceAddress],
        report_progress: impl FnMut(usize),
    ) -> io::Result<Vec<io::Result<()>>> {
        self.change_addresses(addresses, 0, RouteNetlinkMessage::DelAddress, report_progress)
    }

    /// Sends a request for each address, in batches. Returns the kernel's answers in the order of
    /// the addresses.
    fn change_addresses(
        &mut self,
        addresses: &[InterfaceAddress],
        flags: u16,
        build_request: fn(AddressMessage) -> RouteNetlinkMessage,
        mut report_progress: impl FnMut(usize),
    ) -> io::Result<Vec<io::Result<()>>> {
        let mut results = Vec::with_capacity(addresses.len());
        for batch in addresses.chunks(BATCH_SIZE) {
            let first_sequence = self.last_sequence + 1;
            let mut bytes = Vec::new();
            for entry in batch {
                self.append_message(
                    build_request(address_message(entry)),
                    NLM_F_ACK | flags,
                    &mut bytes,
                );
            }
            self.socket.send(&bytes, 0)?;
            let mut batch_results: Vec<Option<io::Result<()>>> =
                batch.iter().map(|_| None).collect();
            while batch_results.iter().any(Option::is_none) {
                self.receive(|sequence, payload| {
                    let index = sequence.wrapping_sub(first_sequence) as usize;
                    if let (Some(result), NetlinkPayload::Error(error)) =
                        (batch_results.get_mut(index), payload)
                    {
                        let has_failed = error.code.is_some();
                        *result = Some(if has_failed { Err(error.to_io()) } else { Ok(()) });
                    }
                    Ok(())
                })?;
            }
            results.extend(batch_results.into_iter().flatten());
            report_progress(results.len());
        }
        Ok(results)
    }

    /// Sends a dump request and passes every message of the answer to `handle_message`.
    fn dump(
        &mut self,
        request: RouteNetlinkMessage,
        mut handle_message: impl FnMut(RouteNetlinkMessage),
    ) -> io::Result<()> {
        let mut bytes = Vec::new();
        self.append_message(request, NLM_F_DUMP, &mut bytes);
        self.socket.send(&bytes, 0)?;
        let request_sequence = self.last_sequence;
        let mut is_finished = false;
        while !is_finished {
            self.receive(|sequence, payload| {
                match payload {
                    _ if sequence != request_sequence => {}
                    NetlinkPayload::InnerMessage(message) => handle_message(message),
                    NetlinkPayload::Error(error) => return Err(error.to_io()),
                    NetlinkPayload::Done(_) => is_finished = true,
                    _ => {}
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Appends a request to a datagram.
    fn append_message(&mut self, message: RouteNetlinkMessage, flags: u16, bytes: &mut Vec<u8>) {
        self.last_sequence += 1;
        let mut message = NetlinkMessage::from(message);
        message.header.flags = NLM_F_REQUEST | flags;
        message.header.sequence_number = self.last_sequence;
        message.finalize();
        let start = bytes.len();
        // Messages in a datagram are aligned to four bytes (NLMSG_ALIGN).
        bytes.resize(start + message.buffer_len().next_multiple_of(4), 0);
        message.serialize(&mut bytes[start..]);
    }

    /// Reads one datagram and passes its messages to `handle_message`.
    fn receive(
        &mut self,
        mut handle_message: impl FnMut(u32, NetlinkPayload<RouteNetlinkMessage>) -> io::Result<()>,
    ) -> io::Result<()> {
        let (datagram, _) = self.socket.recv_from_full()?;
        let mut remaining_bytes = &datagram[..];
        while !remaining_bytes.is_empty() {
            let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(remaining_bytes)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
            let length = message.header.length as usize;
            handle_message(message.header.sequence_number, message.payload)?;
            remaining_bytes =
                remaining_bytes.get(length.next_multiple_of(4).max(1)..).unwrap_or_default();
        }
        Ok(())
    }
}

/// Returns the message that adds or deletes an address in the form of a pool address.
fn address_message(entry: &InterfaceAddress) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.index = entry.interface;
    message.attributes = vec![
        AddressAttribute::Local(entry.address),
        AddressAttribute::Address(entry.address),
        AddressAttribute::Protocol(AddressProtocol::Other(POOL_ADDRESS_PROTOCOL)),
    ];
    match entry.address {
        IpAddr::V4(_) => {
            message.header.family = AddressFamily::Inet;
            message.header.prefix_len = 32;
            message.header.scope = AddressScope::Host;
        }
        IpAddr::V6(_) => {
            message.header.family = AddressFamily::Inet6;
            message.header.prefix_len = 128;
            let mut lifetimes = CacheInfo::default();
            lifetimes.ifa_preferred = 0;
            lifetimes.ifa_valid = u32::MAX;
            message.attributes.push(AddressAttribute::CacheInfo(lifetimes));
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Noprefixroute));
        }
    }
    message
}
