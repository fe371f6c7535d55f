//! What the assigner asks of the kernel's routing socket (rtnetlink(7)): links, addresses, and
//! addresses added and deleted in batches.
//!
//! An address of a pool is added so that it never becomes the host's own source: IPv4 as a /32 of
//! host scope (source selection passes over it for every destination outside; a deprecated one it
//! would take), IPv6 as a /128 with preferred lifetime 0 (RFC 6724, rule 3). Each carries
//! [`PROTOCOL`], which a new `ip address` shows as `proto 0x76`; kernels before 5.18 drop it.

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

/// Who added the address (IFA_PROTO), for people who look at `ip address`.
pub const PROTOCOL: u8 = 0x76;

/// Messages per system call: their answers fit in the socket's buffer many times over.
const BATCH: usize = 128;

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The kernel's number for it.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Whether it is up.
    pub up: bool,
    /// Its Ethernet address, if neighbours are found by ARP on it.
    pub arp: Option<[u8; 6]>,
}

/// An address on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bound {
    /// Index of the interface.
    pub interface: u32,
    /// The address.
    pub address: IpAddr,
}

/// What the kernel says of a bound address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// Length of its prefix.
    pub prefix: u8,
    /// IPv6: duplicate address detection is under way, the address cannot be used yet.
    pub tentative: bool,
    /// IPv6: somebody else has the address.
    pub duplicate: bool,
    /// It was added in the way of this module: nobody's own address looks like it.
    pub pool_like: bool,
    /// It carries [`PROTOCOL`].
    pub marked: bool,
}

/// A routing socket.
pub struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    /// Opens a routing socket in the network namespace of this process.
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        // Answers without the request in them, with the kernel's own words where it has some.
        socket.set_cap_ack(true)?;
        Ok(Self { socket, sequence: 0 })
    }

    /// All interfaces.
    pub fn links(&mut self) -> io::Result<Vec<Link>> {
        let mut links = Vec::new();
        self.dump(RouteNetlinkMessage::GetLink(LinkMessage::default()), |message| {
            let RouteNetlinkMessage::NewLink(link) = message else { return };
            let flags = link.header.flags;
            let mut name = String::new();
            let mut hardware = None;
            for attribute in link.attributes {
                match attribute {
                    LinkAttribute::IfName(text) => name = text,
                    LinkAttribute::Address(bytes) => hardware = bytes.try_into().ok(),
                    _ => {}
                }
            }
            let arp = !flags.intersects(LinkFlags::Noarp | LinkFlags::Loopback);
            links.push(Link {
                index: link.header.index,
                name,
                up: flags.contains(LinkFlags::Up),
                arp: hardware.filter(|_| arp),
            });
        })?;
        Ok(links)
    }

    /// All addresses of all interfaces.
    pub fn addresses(&mut self) -> io::Result<BTreeMap<Bound, State>> {
        let mut addresses = BTreeMap::new();
        self.dump(RouteNetlinkMessage::GetAddress(AddressMessage::default()), |message| {
            let RouteNetlinkMessage::NewAddress(message) = message else { return };
            let (mut local, mut peer) = (None, None);
            let mut flags = AddressFlags::empty();
            let mut preferred = u32::MAX;
            let mut marked = false;
            for attribute in &message.attributes {
                match attribute {
                    AddressAttribute::Local(address) => local = Some(*address),
                    AddressAttribute::Address(address) => peer = Some(*address),
                    AddressAttribute::Flags(value) => flags = *value,
                    AddressAttribute::CacheInfo(info) => preferred = info.ifa_preferred,
                    AddressAttribute::Protocol(by) => marked = u8::from(*by) == PROTOCOL,
                    _ => {}
                }
            }
            // On a point-to-point link IFA_ADDRESS is the other side's.
            let Some(address) = local.or(peer) else { return };
            let prefix = message.header.prefix_len;
            let pool_like = match address {
                IpAddr::V4(_) => prefix == 32 && message.header.scope == AddressScope::Host,
                IpAddr::V6(_) => prefix == 128 && preferred == 0,
            };
            let state = State {
                prefix,
                tentative: flags.contains(AddressFlags::Tentative),
                duplicate: flags.contains(AddressFlags::Dadfailed),
                pool_like: pool_like && !address.is_loopback(),
                marked,
            };
            addresses.insert(Bound { interface: message.header.index, address }, state);
        })?;
        Ok(addresses)
    }

    /// Adds addresses; calls `done` with how many are through. The answers come in the order of
    /// the addresses: `AlreadyExists` where one is on the interface already.
    pub fn add(
        &mut self,
        addresses: &[Bound],
        done: impl FnMut(usize),
    ) -> io::Result<Vec<io::Result<()>>> {
        let flags = NLM_F_CREATE | NLM_F_EXCL;
        self.change(addresses, flags, RouteNetlinkMessage::NewAddress, done)
    }

    /// Deletes addresses; `AddrNotAvailable` answers for one that is not there.
    pub fn delete(
        &mut self,
        addresses: &[Bound],
        done: impl FnMut(usize),
    ) -> io::Result<Vec<io::Result<()>>> {
        self.change(addresses, 0, RouteNetlinkMessage::DelAddress, done)
    }

    fn change(
        &mut self,
        addresses: &[Bound],
        flags: u16,
        kind: fn(AddressMessage) -> RouteNetlinkMessage,
        mut done: impl FnMut(usize),
    ) -> io::Result<Vec<io::Result<()>>> {
        let mut answers = Vec::with_capacity(addresses.len());
        for batch in addresses.chunks(BATCH) {
            let first = self.sequence + 1;
            let mut bytes = Vec::new();
            for bound in batch {
                self.put(kind(message_of(bound)), NLM_F_ACK | flags, &mut bytes);
            }
            self.socket.send(&bytes, 0)?;
            let mut left: Vec<Option<io::Result<()>>> = batch.iter().map(|_| None).collect();
            while left.iter().any(Option::is_none) {
                self.receive(|sequence, payload| {
                    let place = sequence.wrapping_sub(first) as usize;
                    if let (Some(answer), NetlinkPayload::Error(error)) =
                        (left.get_mut(place), payload)
                    {
                        let failed = error.code.is_some();
                        *answer = Some(if failed { Err(error.to_io()) } else { Ok(()) });
                    }
                    Ok(())
                })?;
            }
            answers.extend(left.into_iter().flatten());
            done(answers.len());
        }
        Ok(answers)
    }

    fn dump(
        &mut self,
        request: RouteNetlinkMessage,
        mut each: impl FnMut(RouteNetlinkMessage),
    ) -> io::Result<()> {
        let mut bytes = Vec::new();
        self.put(request, NLM_F_DUMP, &mut bytes);
        self.socket.send(&bytes, 0)?;
        let (mut finished, wanted) = (false, self.sequence);
        while !finished {
            self.receive(|sequence, payload| {
                match payload {
                    _ if sequence != wanted => {}
                    NetlinkPayload::InnerMessage(message) => each(message),
                    NetlinkPayload::Error(error) => return Err(error.to_io()),
                    NetlinkPayload::Done(_) => finished = true,
                    _ => {}
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    fn put(&mut self, message: RouteNetlinkMessage, flags: u16, bytes: &mut Vec<u8>) {
        self.sequence += 1;
        let mut message = NetlinkMessage::from(message);
        message.header.flags = NLM_F_REQUEST | flags;
        message.header.sequence_number = self.sequence;
        message.finalize();
        let start = bytes.len();
        // Messages of one datagram begin at multiples of four (NLMSG_ALIGN).
        bytes.resize(start + message.buffer_len().next_multiple_of(4), 0);
        message.serialize(&mut bytes[start..]);
    }

    /// Reads one datagram and hands on its messages.
    fn receive(
        &mut self,
        mut each: impl FnMut(u32, NetlinkPayload<RouteNetlinkMessage>) -> io::Result<()>,
    ) -> io::Result<()> {
        let (datagram, _) = self.socket.recv_from_full()?;
        let mut rest = &datagram[..];
        while !rest.is_empty() {
            let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
            let length = message.header.length as usize;
            each(message.header.sequence_number, message.payload)?;
            rest = rest.get(length.next_multiple_of(4).max(1)..).unwrap_or_default();
        }
        Ok(())
    }
}

fn message_of(bound: &Bound) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.index = bound.interface;
    message.attributes = vec![
        AddressAttribute::Local(bound.address),
        AddressAttribute::Address(bound.address),
        AddressAttribute::Protocol(AddressProtocol::Other(PROTOCOL)),
    ];
    match bound.address {
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
