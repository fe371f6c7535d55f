//! Measures the cost of rewriting a socket call: each iteration parses a sockaddr, computes the
//! outcome with the rewriter, and writes the new sockaddr. It makes no socket call.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use criterion::{Criterion, criterion_group, criterion_main};
use vipool::policy::Features;
use vipool::pool::PoolKind;
use vipool::rewrite::sockaddr::{self, IPV6_LENGTH, Parsed};
use vipool::rewrite::{
    ListenerMatch, Outcome, Protocol, RewriteRules, Rewriter, SocketProperties, SystemView,
};
use vipool::session::Addresses;

const V: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 5);
const L: Ipv4Addr = Ipv4Addr::new(127, 3, 4, 5);

/// A view of the system that makes no system calls. The bench in hooks/linux measures the cost of
/// system calls.
struct ConstantSystem;

impl SystemView for ConstantSystem {
    fn is_own_port(&self, port: u16) -> bool {
        port == 6379
    }
    fn is_shared_port(&self, _port: u16) -> bool {
        false
    }
    fn is_wildcard_udp_port(&self, _port: u16) -> bool {
        false
    }
    fn is_host_address(&self, _address: IpAddr) -> bool {
        false
    }
    fn pool_kind(&self, _address: IpAddr) -> Option<PoolKind> {
        None
    }
    fn find_listener(
        &self,
        _candidates: &[SocketAddr],
        _protocol: Protocol,
        _source: Option<SocketAddr>,
    ) -> ListenerMatch {
        ListenerMatch::Index(0)
    }
}

fn rewriter() -> Rewriter<'static, ConstantSystem> {
    Rewriter {
        addresses: Addresses { v4: Some(V), loopback: Some(L), ..Addresses::default() },
        rules: RewriteRules {
            features: Features::default().with_virtual_ip(true).with_loopback(true),
            ..RewriteRules::default()
        },
        lease_held: true,
        system: &ConstantSystem,
    }
}

/// Parses a sockaddr and rewrites the address. Returns the bytes of the new sockaddr and their
/// length, or the length 0 if the address is not rewritten.
fn rewrite_bytes(
    bytes: &[u8],
    rewrite: impl FnOnce(SocketAddr) -> Outcome<SocketAddr>,
) -> ([u8; IPV6_LENGTH], usize) {
    let mut new_bytes = [0; IPV6_LENGTH];
    let length = match sockaddr::parse(bytes) {
        Parsed::Inet(address) => match rewrite(address) {
            Outcome::Rewritten(address) => sockaddr::write(&address, &mut new_bytes),
            Outcome::Passed(_) | Outcome::Refused(_) => 0,
        },
        Parsed::Unspecified(_) | Parsed::Other => 0,
    };
    (new_bytes, length)
}

/// Applies `convert` to a rewritten value.
fn map_outcome<A, B>(outcome: Outcome<A>, convert: impl FnOnce(A) -> B) -> Outcome<B> {
    match outcome {
        Outcome::Rewritten(value) => Outcome::Rewritten(convert(value)),
        Outcome::Passed(reason) => Outcome::Passed(reason),
        Outcome::Refused(refusal) => Outcome::Refused(refusal),
    }
}

fn bench_socket_calls(criterion: &mut Criterion) {
    let unbound_socket =
        SocketProperties::new(Protocol::Tcp, Some("0.0.0.0:0".parse().expect("an address")));
    let sockaddr_bytes = |address: &str| {
        let mut bytes = [0; IPV6_LENGTH];
        let address = address.parse().expect("an address");
        let length = sockaddr::write(&address, &mut bytes);
        bytes[..length].to_vec()
    };
    let mut group = criterion.benchmark_group("rewrite");
    let rewriter = rewriter();
    for (name, address) in [
        ("bind 0.0.0.0", "0.0.0.0:8080"),
        ("bind 127.0.0.1", "127.0.0.1:8080"),
        ("bind ::", "[::]:8080"),
        ("bind a foreign address (passed)", "192.0.2.1:8080"),
    ] {
        let bytes = sockaddr_bytes(address);
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                rewrite_bytes(black_box(&bytes), |address| {
                    map_outcome(rewriter.bind(black_box(&unbound_socket), address), |bind| {
                        bind.address
                    })
                })
            });
        });
    }
    for (name, address) in [
        ("connect to another host", "192.0.2.1:443"),
        ("connect 127.0.0.1 on a port of own-ports", "127.0.0.1:6379"),
        ("connect 127.0.0.1 with a listener of the session", "127.0.0.1:8080"),
    ] {
        let bytes = sockaddr_bytes(address);
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                rewrite_bytes(black_box(&bytes), |address| {
                    map_outcome(rewriter.connect(black_box(&unbound_socket), address), |connect| {
                        connect.destination
                    })
                })
            });
        });
    }
    for (name, address) in
        [("visible address of L", "127.3.4.5:8080"), ("visible address of a peer", "192.0.2.1:443")]
    {
        let bytes = sockaddr_bytes(address);
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                rewrite_bytes(black_box(&bytes), |address| {
                    rewriter.visible_address(address, || None)
                })
            });
        });
    }
    group.finish();
}

criterion_group!(benches, bench_socket_calls);
criterion_main!(benches);
