//! Sends the ARP probes and announcements of RFC 5227 for many addresses of one interface at the
//! same time. A probe detects whether another host uses an IPv4 address.
//!
//! The module sends three probes for each address, 1.5 seconds apart, and accepts late answers for
//! two seconds. It probes all addresses concurrently, so any number of addresses takes five to six
//! seconds.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use crate::system::arp_socket::{ArpPacket, ArpSocket};

// These constants follow RFC 5227, section 1.1.
const PROBE_NUM: u32 = 3;
/// The time between two probes of an address. The RFC permits one second (PROBE_MIN) to two seconds
/// (PROBE_MAX).
const PROBE_INTERVAL: Duration = Duration::from_millis(1500);
const ANNOUNCE_WAIT: Duration = Duration::from_secs(2);
/// In the RFC, PROBE_WAIT spreads the probes of hosts that start at the same time. Here, PROBE_WAIT
/// spreads the probes that this host sends for different addresses.
const PROBE_WAIT: Duration = Duration::from_secs(1);

/// An Ethernet address.
pub type MacAddress = [u8; 6];

/// The ARP operation of a request.
const OP_REQUEST: u16 = 1;

/// Probes the network of one interface for hosts that use one of `addresses`. Returns each address
/// that another host uses, with that host's Ethernet address.
///
/// `host_macs` contains the Ethernet addresses of this host. The function ignores packets from
/// these Ethernet addresses, because some network devices send a broadcast back to its sender
/// (RFC 5227, section 2.1.1). `report_progress` receives the completed fraction, 0 to 1.
///
/// # Errors
/// The ARP socket cannot be opened, or sending or receiving fails.
pub fn probe(
    interface: u32,
    source_mac: MacAddress,
    host_macs: &BTreeSet<MacAddress>,
    addresses: &BTreeSet<Ipv4Addr>,
    mut report_progress: impl FnMut(f64),
) -> io::Result<BTreeMap<Ipv4Addr, MacAddress>> {
    let socket = ArpSocket::open(interface)?;
    let mut conflicts = BTreeMap::new();
    let total_seconds =
        (PROBE_INTERVAL * (PROBE_NUM - 1) + PROBE_WAIT + ANNOUNCE_WAIT).as_secs_f64();
    let start = Instant::now();
    let spacing = PROBE_WAIT / u32::try_from(addresses.len().max(1)).unwrap_or(u32::MAX);
    for round in 0..PROBE_NUM {
        let round_start = start + PROBE_INTERVAL * round;
        for (index, address) in addresses.iter().enumerate() {
            let send_time = round_start + spacing * index as u32;
            receive_until(&socket, host_macs, addresses, send_time, &mut conflicts)?;
            // Do not probe an address again after a host has claimed it.
            if !conflicts.contains_key(address) {
                send(&socket, &request(source_mac, Ipv4Addr::UNSPECIFIED, *address))?;
            }
            report_progress(start.elapsed().as_secs_f64() / total_seconds);
        }
    }
    let end_time = Instant::now() + ANNOUNCE_WAIT;
    while Instant::now() < end_time {
        let step_end = end_time.min(Instant::now() + Duration::from_millis(100));
        receive_until(&socket, host_macs, addresses, step_end, &mut conflicts)?;
        report_progress(start.elapsed().as_secs_f64() / total_seconds);
    }
    Ok(conflicts)
}

/// Announces the addresses to the neighbours. Their ARP caches may contain the Ethernet address of
/// an earlier owner.
///
/// # Errors
/// The ARP socket cannot be opened, or sending fails.
pub fn announce(
    interface: u32,
    source_mac: MacAddress,
    addresses: impl Iterator<Item = Ipv4Addr>,
) -> io::Result<()> {
    let socket = ArpSocket::open(interface)?;
    for address in addresses {
        send(&socket, &request(source_mac, address, address))?;
    }
    Ok(())
}

/// Receives packets until the deadline and adds the addresses in use to `conflicts`.
fn receive_until(
    socket: &ArpSocket,
    host_macs: &BTreeSet<MacAddress>,
    addresses: &BTreeSet<Ipv4Addr>,
    deadline: Instant,
    conflicts: &mut BTreeMap<Ipv4Addr, MacAddress>,
) -> io::Result<()> {
    loop {
        let timeout = deadline.saturating_duration_since(Instant::now());
        match socket.receive(timeout)? {
            Some(packet) => {
                if let Some((address, owner_mac)) = claimed_address(&packet)
                    && !host_macs.contains(&owner_mac)
                    && addresses.contains(&address)
                {
                    conflicts.insert(address, owner_mac);
                }
            }
            None if Instant::now() >= deadline => return Ok(()),
            None => {}
        }
    }
}

/// Sends a packet. If the queue of the interface is full, retries for half a second.
fn send(socket: &ArpSocket, packet: &ArpPacket) -> io::Result<()> {
    for _ in 0..50 {
        match socket.broadcast(packet) {
            Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => {
                std::thread::sleep(Duration::from_millis(10));
            }
            result => return result,
        }
    }
    socket.broadcast(packet)
}

/// Builds an ARP request: a probe if `sender` is 0.0.0.0, an announcement if `sender` is `target`.
fn request(source_mac: MacAddress, sender: Ipv4Addr, target: Ipv4Addr) -> ArpPacket {
    let mut packet: ArpPacket = [0; 28];
    packet[..8].copy_from_slice(&[0, 1, 8, 0, 6, 4, 0, OP_REQUEST as u8]);
    packet[8..14].copy_from_slice(&source_mac);
    packet[14..18].copy_from_slice(&sender.octets());
    packet[24..28].copy_from_slice(&target.octets());
    packet
}

/// Returns the IP address that a packet's sender uses or probes, and the sender's Ethernet address.
///
/// See RFC 5227, section 2.1.1.
fn claimed_address(packet: &ArpPacket) -> Option<(Ipv4Addr, MacAddress)> {
    if packet[..6] != [0, 1, 8, 0, 6, 4] {
        return None;
    }
    let sender_mac: MacAddress = packet[8..14].try_into().expect("six bytes");
    let sender = Ipv4Addr::from(<[u8; 4]>::try_from(&packet[14..18]).expect("four bytes"));
    let target = Ipv4Addr::from(<[u8; 4]>::try_from(&packet[24..28]).expect("four bytes"));
    let operation = u16::from_be_bytes([packet[6], packet[7]]);
    let address = if !sender.is_unspecified() {
        sender
    } else if operation == OP_REQUEST {
        target
    } else {
        return None;
    };
    Some((address, sender_mac))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER_MAC: MacAddress = [2, 0, 0, 0, 0, 2];
    const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 5, 7);

    #[test]
    fn senders_and_probers_claim_their_address() {
        assert_eq!(
            claimed_address(&request(PEER_MAC, ADDRESS, ADDRESS)),
            Some((ADDRESS, PEER_MAC))
        );
        assert_eq!(
            claimed_address(&request(PEER_MAC, Ipv4Addr::UNSPECIFIED, ADDRESS)),
            Some((ADDRESS, PEER_MAC))
        );
        let ordinary_request = request(PEER_MAC, Ipv4Addr::new(10, 0, 5, 1), ADDRESS);
        assert_eq!(
            claimed_address(&ordinary_request),
            Some((Ipv4Addr::new(10, 0, 5, 1), PEER_MAC))
        );
    }

    #[test]
    fn other_protocols_and_replies_without_sender_claim_nothing() {
        let mut other_protocol = request(PEER_MAC, ADDRESS, ADDRESS);
        other_protocol[3] = 6;
        assert_eq!(claimed_address(&other_protocol), None);
        let mut empty_reply = request(PEER_MAC, Ipv4Addr::UNSPECIFIED, ADDRESS);
        empty_reply[7] = 2;
        assert_eq!(claimed_address(&empty_reply), None);
    }
}
