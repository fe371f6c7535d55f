//! Whether somebody else has an IPv4 address: probing and announcing by RFC 5227, for many
//! addresses of one interface at once.
//!
//! Each address gets three probes, one to two seconds apart, and two seconds for late answers;
//! since all addresses are probed side by side, a thousand take as long as one (six seconds).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use vipool::os::packet::{ArpPacket, ArpSocket};

/// RFC 5227, section 1.1.
const PROBE_NUM: u32 = 3;
const PROBE_INTERVAL: Duration = Duration::from_millis(1500);
const ANNOUNCE_WAIT: Duration = Duration::from_secs(2);
/// PROBE_WAIT spreads hosts that start together; here it spreads the probes of one host.
const SPREAD: Duration = Duration::from_secs(1);

/// An Ethernet address.
pub type Hardware = [u8; 6];

const REQUEST: u16 = 1;

/// Probes the addresses on the interface with this index and Ethernet address; calls `tick` with
/// the part that is done (0 to 1). Returns who has which: everybody else must keep off these. What
/// an interface of this `host` says does not count: Linux answers for all its addresses on each.
pub fn probe(
    interface: u32,
    own: Hardware,
    host: &BTreeSet<Hardware>,
    addresses: &BTreeSet<Ipv4Addr>,
    mut tick: impl FnMut(f64),
) -> io::Result<BTreeMap<Ipv4Addr, Hardware>> {
    let socket = ArpSocket::open(interface)?;
    let mut taken = BTreeMap::new();
    let all = (PROBE_INTERVAL * (PROBE_NUM - 1) + SPREAD + ANNOUNCE_WAIT).as_secs_f64();
    let start = Instant::now();
    let gap = SPREAD / u32::try_from(addresses.len().max(1)).unwrap_or(u32::MAX);
    for round in 0..PROBE_NUM {
        let began = start + PROBE_INTERVAL * round;
        for (place, address) in addresses.iter().enumerate() {
            let due = began + gap * place as u32;
            listen(&socket, host, addresses, due, &mut taken)?;
            // Who is known to have it needs no more probes.
            if !taken.contains_key(address) {
                send(&socket, &packet(own, Ipv4Addr::UNSPECIFIED, *address))?;
            }
            tick(start.elapsed().as_secs_f64() / all);
        }
    }
    let end = Instant::now() + ANNOUNCE_WAIT;
    while Instant::now() < end {
        let next = end.min(Instant::now() + Duration::from_millis(100));
        listen(&socket, host, addresses, next, &mut taken)?;
        tick(start.elapsed().as_secs_f64() / all);
    }
    Ok(taken)
}

/// Tells the neighbours, who may remember an earlier holder, that the addresses are here now.
pub fn announce(
    interface: u32,
    own: Hardware,
    addresses: impl Iterator<Item = Ipv4Addr>,
) -> io::Result<()> {
    let socket = ArpSocket::open(interface)?;
    for address in addresses {
        send(&socket, &packet(own, address, address))?;
    }
    Ok(())
}

/// Hears what the others say until `until`.
fn listen(
    socket: &ArpSocket,
    host: &BTreeSet<Hardware>,
    addresses: &BTreeSet<Ipv4Addr>,
    until: Instant,
    taken: &mut BTreeMap<Ipv4Addr, Hardware>,
) -> io::Result<()> {
    loop {
        let wait = until.saturating_duration_since(Instant::now());
        match socket.receive(wait)? {
            Some(heard) => {
                if let Some((address, holder)) = claim(&heard)
                    && !host.contains(&holder)
                    && addresses.contains(&address)
                {
                    taken.insert(address, holder);
                }
            }
            None if Instant::now() >= until => return Ok(()),
            None => {}
        }
    }
}

/// Sends, giving a full queue time to drain.
fn send(socket: &ArpSocket, packet: &ArpPacket) -> io::Result<()> {
    for _ in 0..50 {
        match socket.broadcast(packet) {
            Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => {
                std::thread::sleep(Duration::from_millis(10));
            }
            other => return other,
        }
    }
    socket.broadcast(packet)
}

/// An ARP request of ours: a probe when `sender` is 0.0.0.0, else an announcement.
fn packet(own: Hardware, sender: Ipv4Addr, target: Ipv4Addr) -> ArpPacket {
    let mut packet: ArpPacket = [0; 28];
    packet[..8].copy_from_slice(&[0, 1, 8, 0, 6, 4, 0, REQUEST as u8]);
    packet[8..14].copy_from_slice(&own);
    packet[14..18].copy_from_slice(&sender.octets());
    packet[24..28].copy_from_slice(&target.octets());
    packet
}

/// The address that the sender of a packet has or is about to take (RFC 5227, section 2.1.1).
fn claim(packet: &ArpPacket) -> Option<(Ipv4Addr, Hardware)> {
    if packet[..6] != [0, 1, 8, 0, 6, 4] {
        return None;
    }
    let hardware: Hardware = packet[8..14].try_into().expect("six bytes");
    let sender = Ipv4Addr::from(<[u8; 4]>::try_from(&packet[14..18]).expect("four bytes"));
    let target = Ipv4Addr::from(<[u8; 4]>::try_from(&packet[24..28]).expect("four bytes"));
    let operation = u16::from_be_bytes([packet[6], packet[7]]);
    let address = if !sender.is_unspecified() {
        sender
    } else if operation == REQUEST {
        target
    } else {
        return None;
    };
    Some((address, hardware))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OTHER: Hardware = [2, 0, 0, 0, 0, 2];
    const V: Ipv4Addr = Ipv4Addr::new(10, 0, 5, 7);

    #[test]
    fn a_sender_and_a_fellow_prober_hold_the_address() {
        assert_eq!(claim(&packet(OTHER, V, V)), Some((V, OTHER)));
        assert_eq!(claim(&packet(OTHER, Ipv4Addr::UNSPECIFIED, V)), Some((V, OTHER)));
        let asking = packet(OTHER, Ipv4Addr::new(10, 0, 5, 1), V);
        assert_eq!(claim(&asking), Some((Ipv4Addr::new(10, 0, 5, 1), OTHER)));
    }

    #[test]
    fn other_protocols_say_nothing() {
        let mut odd = packet(OTHER, V, V);
        odd[3] = 6;
        assert_eq!(claim(&odd), None);
        let mut empty_reply = packet(OTHER, Ipv4Addr::UNSPECIFIED, V);
        empty_reply[7] = 2;
        assert_eq!(claim(&empty_reply), None);
    }
}
