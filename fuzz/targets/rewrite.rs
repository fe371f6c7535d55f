//! Passes arbitrary bytes as the address of each socket call, with arbitrary rules. No call may
//! panic, and every result must keep the invariants of the rewriter.
#![no_main]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use libfuzzer_sys::fuzz_target;
use vipool::policy::{Features, ProgramFlags, RewriteFlags};
use vipool::pool::PoolKind;
use vipool::rewrite::sockaddr::{self, MAX_LENGTH, Parsed};
use vipool::rewrite::{
    ListenerMatch, Outcome, PacketInfo, Protocol, RewriteRules, Rewriter, SocketProperties,
    SystemView,
};
use vipool::session::Addresses;

const V: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 5);
const L: Ipv4Addr = Ipv4Addr::new(127, 3, 4, 5);
const L6: Ipv4Addr = Ipv4Addr::new(127, 4, 4, 5);
const V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 5);

/// A [`SystemView`] that derives its answers from two bytes of the input.
struct FuzzedSystem {
    bits: u8,
    listener_choice: u8,
}

impl FuzzedSystem {
    fn has_bit(&self, index: u8) -> bool {
        self.bits >> index & 1 == 1
    }
}

impl SystemView for FuzzedSystem {
    fn is_own_port(&self, port: u16) -> bool {
        self.has_bit(0) && port % 2 == 0
    }
    fn is_shared_port(&self, port: u16) -> bool {
        self.has_bit(1) && port % 3 == 0
    }
    fn is_wildcard_udp_port(&self, port: u16) -> bool {
        self.has_bit(2) && port == 5353
    }
    fn is_host_address(&self, address: IpAddr) -> bool {
        self.has_bit(3) && address == IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1))
    }
    fn pool_kind(&self, address: IpAddr) -> Option<PoolKind> {
        match sockaddr::as_ipv4(address)?.octets() {
            [10, 0, 0, last] if last > 1 => Some(PoolKind::VirtualIp),
            [127, 3 | 4, ..] => Some(PoolKind::Loopback),
            _ => None,
        }
    }
    fn find_listener(
        &self,
        candidates: &[SocketAddr],
        _protocol: Protocol,
        _source: Option<SocketAddr>,
    ) -> ListenerMatch {
        match usize::from(self.listener_choice % 5) {
            4 => ListenerMatch::Unknown { error: 24 },
            index if index < candidates.len() => ListenerMatch::Index(index),
            _ => ListenerMatch::NotFound,
        }
    }
}

/// Returns whether the address is neither a loopback address nor a wildcard address.
fn is_external(address: IpAddr) -> bool {
    match sockaddr::as_ipv4(address) {
        Some(v4) => !v4.is_loopback() && !v4.is_unspecified(),
        None => !address.is_loopback() && !address.is_unspecified(),
    }
}

/// Returns whether the address is one of the two virtual loopback addresses.
fn is_own_loopback(address: IpAddr) -> bool {
    sockaddr::as_ipv4(address).is_some_and(|v4| v4 == L || v4 == L6)
}

fuzz_target!(|input: &[u8]| {
    let [rule_bits, system_bits, listener_choice, socket_bits, address_bytes @ ..] = input else {
        return;
    };
    let has_bit = |byte: u8, index: u8| byte >> index & 1 == 1;
    let parsed = sockaddr::parse(address_bytes);
    if let Parsed::Inet(address) = parsed {
        // Parsing returns the address that was written, and a write never exceeds the buffer.
        let mut out = [0xaa; MAX_LENGTH];
        let length = sockaddr::write(&address, &mut out);
        assert_eq!(sockaddr::parse(&out[..length]), parsed);
        let capacity = usize::from(*listener_choice) % MAX_LENGTH;
        let mut buffer = vec![0xaa; capacity + 1];
        sockaddr::write(&address, &mut buffer[..capacity]);
        assert_eq!(buffer[capacity], 0xaa);
    }
    let Parsed::Inet(address) = parsed else { return };
    let system = FuzzedSystem { bits: *system_bits, listener_choice: *listener_choice };
    let rewriter = Rewriter {
        addresses: Addresses {
            v4: has_bit(system.bits, 4).then_some(V),
            v6: has_bit(system.bits, 5).then_some(V6),
            loopback: has_bit(system.bits, 6).then_some(L),
            loopback6: has_bit(system.bits, 7).then_some(L6),
        },
        rules: RewriteRules {
            features: Features::from_bits(u32::from(*rule_bits & 0b111)),
            program_flags: ProgramFlags::from_bits(u32::from(*rule_bits >> 3) & 0b111),
            rewrite_flags: RewriteFlags::from_bits(u32::from(*rule_bits >> 6)),
            defer_wildcard: has_bit(*socket_bits, 7),
            rebind_datagrams: has_bit(*listener_choice, 7),
        },
        lease_held: !has_bit(*socket_bits, 6),
        system: &system,
    };
    let unbound = if address.is_ipv4() {
        SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0)
    } else {
        SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0)
    };
    let properties = SocketProperties {
        protocol: [Protocol::Tcp, Protocol::Udp, Protocol::UdpLite, Protocol::Other]
            [usize::from(socket_bits % 4)],
        local_address: has_bit(*socket_bits, 5).then_some(unbound),
        is_v6only: has_bit(*socket_bits, 4),
        can_share_port: has_bit(*socket_bits, 3),
    };
    if let Outcome::Rewritten(bind) = rewriter.bind(&properties, address) {
        assert_eq!(bind.address.is_ipv4(), address.is_ipv4());
        assert_eq!(bind.address.port(), address.port());
        assert!(rewriter.lease_held);
    }
    for outcome in
        [rewriter.connect(&properties, address), rewriter.send(&properties, address, false)]
    {
        if let Outcome::Rewritten(connect) = outcome {
            assert_eq!(connect.destination.is_ipv4(), address.is_ipv4());
            assert_eq!(connect.destination.port(), address.port());
            // L and L6 are never the source for an external destination.
            if let Some(source) = connect.source {
                assert!(!(is_own_loopback(source) && is_external(address.ip())));
            }
        }
    }
    let _ = rewriter.listen(&properties);
    let info = PacketInfo { address: address.ip(), interface: u32::from(*listener_choice) };
    if let Outcome::Rewritten(rewritten) =
        rewriter.send_packet_info(&properties, info, Some(address))
    {
        assert_eq!(rewritten.address.is_ipv4(), address.is_ipv4());
    }
    let _ = rewriter.visible_address(address, || Some(unbound));
    // The visible address has the family of the kernel's address. A second translation does not
    // change the visible address.
    if let Outcome::Rewritten(visible) = rewriter.visible_address(address, || None) {
        assert_eq!(visible.is_ipv4(), address.is_ipv4());
        assert!(
            rewriter
                .visible_address(visible, || None)
                .rewritten()
                .is_none_or(|visible_again| visible_again == visible)
        );
    }
    let _ = rewriter.resolve_host_name(Some(address.ip()));
    let _ = rewriter.is_hidden(address.ip());
});
