//! Tests the rows of docs/socket-matrix.md. The tests make no system calls.

use super::*;
use crate::policy::{Features, LoopbackConnect, WildcardBind};

const V: &str = "10.0.5.7";
const L: &str = "127.3.4.5";

/// A system with fixed results in place of the map and the kernel.
#[derive(Default)]
pub(super) struct TestSystem {
    listeners: Vec<SocketAddr>,
    is_kernel_failing: bool,
}

impl SystemView for TestSystem {
    fn is_own_port(&self, port: u16) -> bool {
        port == 7000
    }
    fn is_shared_port(&self, port: u16) -> bool {
        port == 631
    }
    fn is_wildcard_udp_port(&self, port: u16) -> bool {
        port == 5353
    }
    fn is_host_address(&self, address: IpAddr) -> bool {
        ["10.0.5.1", "fd00::1", "fe80::1"].map(ip).contains(&address)
    }
    fn pool_kind(&self, address: IpAddr) -> Option<PoolKind> {
        match address {
            IpAddr::V4(v4) if v4.octets()[..3] == [10, 0, 5] && v4.octets()[3] > 1 => {
                Some(PoolKind::VirtualIp)
            }
            IpAddr::V4(v4) if v4.octets()[..2] == [127, 3] => Some(PoolKind::Loopback),
            _ => None,
        }
    }
    fn find_listener(
        &self,
        candidates: &[SocketAddr],
        _: Protocol,
        _: Option<SocketAddr>,
    ) -> ListenerMatch {
        if self.is_kernel_failing {
            return ListenerMatch::Unknown { error: 24 };
        }
        let index = candidates.iter().position(|candidate| self.listeners.contains(candidate));
        index.map_or(ListenerMatch::NotFound, ListenerMatch::Index)
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn socket_address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn session_addresses() -> Addresses {
    Addresses {
        v4: V.parse().ok(),
        v6: "fd00::7".parse().ok(),
        loopback: L.parse().ok(),
        loopback6: "127.131.4.5".parse().ok(),
    }
}

fn rules() -> RewriteRules {
    RewriteRules {
        features: Features { virtual_ip: true, loopback: true, client_ip: false },
        ..RewriteRules::default()
    }
}

pub(super) fn rewriter(system: &TestSystem) -> Rewriter<'_, TestSystem> {
    Rewriter { addresses: session_addresses(), rules: rules(), lease_held: true, system }
}

fn socket(protocol: Protocol, local: &str) -> SocketProperties {
    SocketProperties::new(protocol, Some(socket_address(local)))
}

fn tcp() -> SocketProperties {
    socket(Protocol::Tcp, "0.0.0.0:0")
}

fn udp() -> SocketProperties {
    socket(Protocol::Udp, "0.0.0.0:0")
}

fn tcp6() -> SocketProperties {
    socket(Protocol::Tcp, "[::]:0")
}

/// Returns the outcome of a bind as text: the address, or the name of the reason or refusal. Before
/// the address, "dual" means that the hook layer clears `IPV6_V6ONLY`, and "deferred" means that it
/// defers the bind.
fn bind(rewriter: &Rewriter<'_, TestSystem>, socket: SocketProperties, address: &str) -> String {
    match rewriter.bind(&socket, socket_address(address)) {
        Outcome::Rewritten(Bind { address, clear_v6only: false, defer: false }) => {
            address.to_string()
        }
        Outcome::Rewritten(bind) if bind.defer => format!("deferred {}", bind.address),
        Outcome::Rewritten(bind) => format!("dual {}", bind.address),
        Outcome::Passed(reason) => reason.name().to_owned(),
        Outcome::Refused(refusal) => refusal.name().to_owned(),
    }
}

/// Returns the outcome of a connect as text: `source > destination`, the destination alone, or the
/// name of the reason or refusal. Before a destination without a source, "dual" means that the hook
/// layer clears `IPV6_V6ONLY`.
fn connect(
    rewriter: &Rewriter<'_, TestSystem>,
    socket: SocketProperties,
    destination: &str,
) -> String {
    match rewriter.connect(&socket, socket_address(destination)) {
        Outcome::Rewritten(Connect { source: Some(source), destination, .. }) => {
            format!("{source} > {destination}")
        }
        Outcome::Rewritten(connect) if connect.clear_v6only => {
            format!("dual {}", connect.destination)
        }
        Outcome::Rewritten(connect) => connect.destination.to_string(),
        Outcome::Passed(reason) => reason.name().to_owned(),
        Outcome::Refused(refusal) => refusal.name().to_owned(),
    }
}

fn system_with_listeners(addresses: &[&str]) -> TestSystem {
    TestSystem {
        listeners: addresses.iter().map(|text| socket_address(text)).collect(),
        is_kernel_failing: false,
    }
}

#[test]
fn row_1_and_23_loopback_bind_uses_l() {
    let system = TestSystem::default();
    let mut rewriter = rewriter(&system);
    assert_eq!(bind(&rewriter, tcp(), "127.0.0.1:80"), "127.3.4.5:80");
    assert_eq!(bind(&rewriter, udp(), "127.0.0.1:80"), "127.3.4.5:80");
    assert_eq!(bind(&rewriter, tcp(), "127.0.0.1:0"), "127.3.4.5:0");
    assert_eq!(bind(&rewriter, tcp6(), "[::1]:0"), "[::ffff:127.131.4.5]:0");
    assert_eq!(bind(&rewriter, tcp(), "127.0.0.1:631"), "shared-port");
    rewriter.rules.program_flags.keep_ephemeral = true;
    assert_eq!(bind(&rewriter, tcp(), "127.0.0.1:0"), "ephemeral-port");
    assert_eq!(bind(&rewriter, tcp(), "127.0.0.1:80"), "127.3.4.5:80");
    rewriter.rules.features.loopback = false;
    assert_eq!(bind(&rewriter, tcp(), "127.0.0.1:80"), "feature-off");
    rewriter.rules.features.loopback = true;
    rewriter.addresses.loopback = None;
    assert_eq!(bind(&rewriter, tcp(), "127.0.0.1:80"), "no-such-address");
}

#[test]
fn row_3_and_4_wildcard_bind_uses_v_or_configured_l() {
    let system = TestSystem::default();
    let mut rewriter = rewriter(&system);
    assert_eq!(bind(&rewriter, tcp(), "0.0.0.0:80"), "10.0.5.7:80");
    assert_eq!(bind(&rewriter, tcp(), "0.0.0.0:0"), "10.0.5.7:0");
    rewriter.addresses.v4 = None;
    assert_eq!(bind(&rewriter, tcp(), "0.0.0.0:80"), "wildcard-kept");
    rewriter.rules.program_flags.wildcard = WildcardBind::Loopback;
    assert_eq!(bind(&rewriter, tcp(), "0.0.0.0:80"), "127.3.4.5:80");
    assert_eq!(bind(&rewriter, tcp(), "0.0.0.0:0"), "wildcard-kept");
}

#[test]
fn row_5_bind_to_host_address_uses_v() {
    let system = TestSystem::default();
    let rewriter = rewriter(&system);
    assert_eq!(bind(&rewriter, tcp(), "10.0.5.1:80"), "10.0.5.7:80");
    assert_eq!(bind(&rewriter, tcp(), "10.0.5.8:80"), "other-session-address");
    assert_eq!(bind(&rewriter, tcp(), "127.3.9.9:80"), "other-session-address");
    assert_eq!(bind(&rewriter, tcp(), "10.0.5.7:80"), "own-address");
    assert_eq!(bind(&rewriter, tcp(), "127.3.4.5:80"), "own-address");
    assert_eq!(bind(&rewriter, tcp(), "127.0.0.53:53"), "other-address");
    assert_eq!(bind(&rewriter, tcp(), "192.0.2.1:80"), "other-address");
    assert_eq!(bind(&rewriter, tcp6(), "[::ffff:10.0.5.1]:80"), "[::ffff:10.0.5.7]:80");
    assert_eq!(bind(&rewriter, tcp6(), "[::ffff:10.0.5.8]:80"), "other-session-address");
    assert_eq!(bind(&rewriter, tcp6(), "[fd00::1]:80"), "[fd00::7]:80");
    assert_eq!(bind(&rewriter, tcp6(), "[fe80::1%2]:80"), "link-local");
}

#[test]
fn row_6_only_virtual_ip_is_retried_unchanged() {
    let system = TestSystem::default();
    let mut rewriter = rewriter(&system);
    assert!(!rewriter.retries_original(ip(V)));
    rewriter.rules.rewrite_flags.pass_when_missing = true;
    assert!(rewriter.retries_original(ip(V)));
    assert!(rewriter.retries_original(ip("::ffff:10.0.5.7")));
    assert!(rewriter.retries_original(ip("fd00::7")));
    assert!(!rewriter.retries_original(ip(L)));
}

#[test]
fn row_7_to_10_external_connect_uses_source_v() {
    let system = TestSystem::default();
    let mut rewriter = rewriter(&system);
    let external = "192.0.2.9:80";
    assert_eq!(connect(&rewriter, tcp(), external), "10.0.5.7 > 192.0.2.9:80");
    assert_eq!(connect(&rewriter, udp(), external), "10.0.5.7 > 192.0.2.9:80");
    assert_eq!(connect(&rewriter, socket(Protocol::Tcp, "10.0.5.7:99"), external), "already-bound");
    assert_eq!(connect(&rewriter, socket(Protocol::Tcp, "0.0.0.0:99"), external), "already-bound");
    assert_eq!(
        connect(&rewriter, socket(Protocol::Tcp, "127.3.4.5:99"), external),
        "already-bound"
    );
    // After a failed connect to the session's own service, the socket is bound to L with port 0. A
    // connect to another host must still use V.
    assert_eq!(
        connect(&rewriter, socket(Protocol::Tcp, "127.3.4.5:0"), external),
        "10.0.5.7 > 192.0.2.9:80"
    );
    assert_eq!(
        connect(&rewriter, socket(Protocol::Other, "0.0.0.0:0"), external),
        "not-tcp-or-udp"
    );
    assert_eq!(connect(&rewriter, tcp(), "127.0.0.53:53"), "other-address");
    assert_eq!(connect(&rewriter, tcp(), "127.3.9.9:53"), "other-address");
    rewriter.addresses.v4 = None;
    assert_eq!(connect(&rewriter, tcp(), external), "no-such-address");
    rewriter.lease_held = false;
    assert_eq!(connect(&rewriter, tcp(), external), "lease-closed");
}

#[test]
fn row_11_and_12_own_listener_precedes_the_host() {
    let without_listener = TestSystem::default();
    let (own_listener, listener_on_v) =
        (system_with_listeners(&["127.3.4.5:80"]), system_with_listeners(&["10.0.5.7:80"]));
    let both_listeners = system_with_listeners(&["127.3.4.5:80", "10.0.5.7:80"]);
    for requested in ["127.0.0.1:80", "0.0.0.0:80"] {
        assert_eq!(connect(&rewriter(&without_listener), tcp(), requested), "no-own-listener");
        assert_eq!(connect(&rewriter(&own_listener), tcp(), requested), "127.3.4.5:80");
        assert_eq!(connect(&rewriter(&listener_on_v), tcp(), requested), "127.3.4.5 > 10.0.5.7:80");
        assert_eq!(connect(&rewriter(&both_listeners), tcp(), requested), "127.3.4.5:80");
        let bound_socket = socket(Protocol::Tcp, "10.0.5.7:9");
        assert_eq!(connect(&rewriter(&listener_on_v), bound_socket, requested), "10.0.5.7:80");
    }
    assert_eq!(connect(&rewriter(&without_listener), tcp(), "127.0.0.1:7000"), "127.3.4.5:7000");
    assert_eq!(
        connect(&rewriter(&system_with_listeners(&["127.3.4.5:631"])), tcp(), "127.0.0.1:631"),
        "shared-port"
    );
    let raw_socket = socket(Protocol::Other, "0.0.0.0:0");
    assert_eq!(connect(&rewriter(&own_listener), raw_socket, "127.0.0.1:7000"), "not-tcp-or-udp");
}

#[test]
fn row_5_and_11_unknown_listeners_never_lead_to_the_host() {
    let failing_system = TestSystem { is_kernel_failing: true, ..TestSystem::default() };
    let failing_rewriter = rewriter(&failing_system);
    let refused = Outcome::Refused(Refusal::ListenersUnknown { error: 24 });
    for requested in ["127.0.0.1:80", "0.0.0.0:80", "10.0.5.1:80", "[::1]:80", "[fd00::1]:80"] {
        let socket = if requested.starts_with('[') { tcp6() } else { tcp() };
        let requested = socket_address(requested);
        assert_eq!(failing_rewriter.connect(&socket, requested), refused);
        assert_eq!(failing_rewriter.send(&socket, requested, true), refused);
        // Without TCP Fast Open, the kernel ignores the destination of a send on a TCP socket.
        let passed = Outcome::Passed(Reason::Stream);
        assert_eq!(failing_rewriter.send(&socket, requested, false), passed);
    }
    let loopback = socket_address("127.0.0.1:80");
    assert_eq!(failing_rewriter.connect(&udp(), loopback), refused);
    assert_eq!(failing_rewriter.send(&udp(), loopback, false), refused);
    // The outcomes of the following connects do not depend on the listeners.
    assert_eq!(connect(&failing_rewriter, tcp(), "127.0.0.1:7000"), "127.3.4.5:7000");
    assert_eq!(connect(&failing_rewriter, tcp(), "127.0.0.1:631"), "shared-port");
    assert_eq!(connect(&failing_rewriter, tcp(), "192.0.2.1:80"), "10.0.5.7 > 192.0.2.1:80");
    let mut own_only_rewriter = rewriter(&failing_system);
    own_only_rewriter.rules.program_flags.loopback_connect = LoopbackConnect::Own;
    assert_eq!(connect(&own_only_rewriter, tcp(), "127.0.0.1:80"), "127.3.4.5:80");
}

#[test]
fn row_5_and_11_own_listener_is_reached_at_the_host_address() {
    let (without_listener, listener_on_v) =
        (TestSystem::default(), system_with_listeners(&["10.0.5.7:80", "[::ffff:10.0.5.7]:80"]));
    let listener_on_v6 = system_with_listeners(&["[fd00::7]:80"]);
    let host_address = "10.0.5.1:80";
    assert_eq!(
        connect(&rewriter(&without_listener), tcp(), host_address),
        "10.0.5.7 > 10.0.5.1:80"
    );
    assert_eq!(connect(&rewriter(&listener_on_v), tcp(), host_address), "10.0.5.7 > 10.0.5.7:80");
    assert_eq!(connect(&rewriter(&listener_on_v), udp(), host_address), "10.0.5.7 > 10.0.5.7:80");
    assert_eq!(
        connect(&rewriter(&listener_on_v), socket(Protocol::Tcp, "127.3.4.5:9"), host_address),
        "10.0.5.7:80"
    );
    assert_eq!(connect(&rewriter(&listener_on_v), tcp(), "10.0.5.2:80"), "10.0.5.7 > 10.0.5.2:80");
    assert_eq!(
        connect(&rewriter(&listener_on_v), tcp6(), "[::ffff:10.0.5.1]:80"),
        "::ffff:10.0.5.7 > [::ffff:10.0.5.7]:80"
    );
    assert_eq!(
        connect(&rewriter(&listener_on_v6), tcp6(), "[fd00::1]:80"),
        "fd00::7 > [fd00::7]:80"
    );
    assert_eq!(
        connect(&rewriter(&listener_on_v), tcp6(), "[fd00::1]:80"),
        "::ffff:10.0.5.7 > [::ffff:10.0.5.7]:80"
    );
    assert_eq!(connect(&rewriter(&without_listener), tcp6(), "[fe80::1%2]:80"), "link-local");
    let mut rewriter_without_virtual_ip = rewriter(&listener_on_v);
    rewriter_without_virtual_ip.rules.features.virtual_ip = false;
    assert_eq!(connect(&rewriter_without_virtual_ip, tcp(), host_address), "feature-off");
}

#[test]
fn row_19_and_20_program_sees_l_as_host_loopback() {
    let system = TestSystem::default();
    let rewriter = rewriter(&system);
    let visible = |end: &str, other_end: &str| {
        let visible =
            rewriter.visible_address(socket_address(end), || Some(socket_address(other_end)));
        visible.rewritten().map(|address| address.to_string())
    };
    let loopback = Some("127.0.0.1:80".to_owned());
    assert_eq!(visible("127.3.4.5:80", "192.0.2.1:9"), loopback);
    assert_eq!(visible("10.0.5.7:80", "127.3.4.5:9"), loopback);
    assert_eq!(visible("127.3.4.5:80", "10.0.5.7:9"), loopback);
    assert_eq!(visible("10.0.5.7:80", "10.0.5.7:9"), None);
    assert_eq!(visible("10.0.5.7:80", "127.0.0.1:9"), None);
    assert_eq!(visible("10.0.5.8:80", "127.3.4.5:9"), None);
    assert_eq!(visible("[::ffff:127.3.4.5]:80", "[::1]:9"), Some("[::ffff:127.0.0.1]:80".into()));
    assert_eq!(visible("[::ffff:127.131.4.5]:80", "[::1]:9"), Some("[::1]:80".into()));
    assert_eq!(visible("[::ffff:10.0.5.7]:80", "[::ffff:127.131.4.5]:9"), Some("[::1]:80".into()));
    assert_eq!(
        visible("[::ffff:10.0.5.7]:80", "[::ffff:127.3.4.5]:9"),
        Some("[::ffff:127.0.0.1]:80".into())
    );
    // If an unbound socket connects to L6, the kernel selects 127.0.0.1 as the source address. The
    // program sees this source as ::1.
    assert_eq!(visible("[::ffff:127.0.0.1]:9", "[::ffff:127.131.4.5]:80"), Some("[::1]:9".into()));
    assert_eq!(visible("[::ffff:127.0.0.1]:9", "[::ffff:127.0.0.1]:80"), None);
    assert_eq!(visible("127.0.0.1:9", "127.131.4.5:80"), None);
    assert_eq!(visible("[fd00::7]:80", "[::1]:9"), None);
    assert_eq!(
        rewriter.visible_address(socket_address("10.0.5.7:80"), || None),
        Outcome::Passed(Reason::VisibleUnchanged)
    );
}

#[test]
fn row_21_listen_binds_an_unbound_socket() {
    let system = TestSystem::default();
    let mut rewriter = rewriter(&system);
    rewriter.rules.defer_wildcard = true;
    let listen = |socket| rewriter.listen(&socket).rewritten().map(|bind| bind.address);
    assert_eq!(listen(tcp()), Some(socket_address("10.0.5.7:0")));
    assert_eq!(listen(tcp6()), Some(socket_address("[::ffff:10.0.5.7]:0")));
    assert_eq!(listen(socket(Protocol::Tcp, "0.0.0.0:80")), None);
    assert_eq!(bind(&rewriter, tcp(), "0.0.0.0:0"), "deferred 10.0.5.7:0");
    assert_eq!(bind(&rewriter, udp(), "0.0.0.0:0"), "10.0.5.7:0");
}

#[test]
fn row_22_unbound_datagram_socket_is_bound_to_v() {
    let listener_on_v = system_with_listeners(&["10.0.5.7:53"]);
    let rewriter = rewriter(&listener_on_v);
    let send = |socket: SocketProperties, destination: &str| {
        rewriter
            .send(&socket, socket_address(destination), false)
            .rewritten()
            .map(|connect| (connect.source, connect.destination.to_string()))
    };
    assert_eq!(send(udp(), "192.0.2.9:53"), Some((Some(ip(V)), "192.0.2.9:53".into())));
    assert_eq!(send(socket(Protocol::Udp, "10.0.5.7:9"), "192.0.2.9:53"), None);
    assert_eq!(send(udp(), "127.0.0.1:7000"), Some((None, "127.3.4.5:7000".into())));
    assert_eq!(send(udp(), "127.0.0.1:53"), Some((Some(ip(L)), "10.0.5.7:53".into())));
    assert_eq!(send(tcp(), "192.0.2.9:53"), None);
    assert!(rewriter.send(&tcp(), socket_address("192.0.2.9:53"), true).rewritten().is_some());
    // A dual-stack datagram socket can send to an IPv4 sockaddr. An IPv6 stream socket cannot
    // connect to an IPv4 sockaddr.
    let ipv6_udp = socket(Protocol::Udp, "[::]:0");
    let mapped = |text: &str| Some(ip(&format!("::ffff:{text}")));
    assert_eq!(send(ipv6_udp, "192.0.2.9:53"), Some((mapped(V), "192.0.2.9:53".into())));
    assert_eq!(send(ipv6_udp, "127.0.0.1:53"), Some((mapped(L), "10.0.5.7:53".into())));
    assert_eq!(send(SocketProperties { is_v6only: true, ..ipv6_udp }, "192.0.2.9:53"), None);
    assert_eq!(send(udp(), "[2001:db8::9]:53"), None);
    assert_eq!(connect(&rewriter, tcp6(), "192.0.2.9:53"), "not-inet");
    assert_eq!(connect(&rewriter, tcp6(), "127.0.0.1:53"), "not-inet");
}

#[test]
fn row_24_and_25_packet_info_source_becomes_v_or_l() {
    let system = TestSystem::default();
    let rewriter = rewriter(&system);
    let rewritten_source = |source: &str, destination: &str| {
        rewriter
            .send_packet_info(&udp(), packet_info(source, 0), Some(socket_address(destination)))
            .rewritten()
            .map(|info| info.address.to_string())
    };
    assert_eq!(rewritten_source("0.0.0.0", "192.0.2.9:53"), Some(V.into()));
    assert_eq!(rewritten_source("10.0.5.1", "192.0.2.9:53"), Some(V.into()));
    assert_eq!(rewritten_source("10.0.5.7", "192.0.2.9:53"), None);
    assert_eq!(rewritten_source("127.0.0.1", "127.3.4.5:53"), Some(L.into()));
    assert_eq!(rewritten_source("127.0.0.1", "127.0.0.1:53"), None);
    assert_eq!(rewritten_source("0.0.0.0", "127.0.0.1:53"), None);
    assert_eq!(rewritten_source("::", "[::ffff:192.0.2.9]:53"), Some("::ffff:10.0.5.7".into()));
    assert_eq!(rewritten_source("::", "[2001:db8::1]:53"), Some("fd00::7".into()));
    assert_eq!(rewritten_source("fe80::1", "[fe80::9%2]:53"), None);
    assert_eq!(rewritten_source("::", "[ff02::fb%2]:53"), None);
    assert_eq!(rewritten_source("fd00::1", "[ff02::fb%2]:53"), Some("fd00::7".into()));
    // If the destination is an address of the session, an unspecified source stays unspecified. The
    // kernel uses the address of the socket. For an IPv4-mapped destination, the kernel rejects
    // the source ::, so the source becomes ::ffff:0.0.0.0.
    assert_eq!(rewritten_source("0.0.0.0", "10.0.5.7:53"), None);
    assert_eq!(rewritten_source("::", "[::ffff:127.131.4.5]:53"), Some("::ffff:0.0.0.0".into()));
    assert_eq!(rewritten_source("::", "[::ffff:10.0.5.7]:53"), Some("::ffff:0.0.0.0".into()));
    assert_eq!(rewriter.visible_ip(ip(L)), Outcome::Rewritten(ip("127.0.0.1")));
    assert_eq!(rewriter.visible_ip(ip(V)), Outcome::Passed(Reason::VisibleUnchanged));
}

fn packet_info(address: &str, interface: u32) -> PacketInfo {
    PacketInfo { address: ip(address), interface }
}

#[test]
fn row_24_answers_to_loopback_peers_stay_on_the_host() {
    let system = TestSystem::default();
    let rewriter = rewriter(&system);
    let send = |local: &str, source: &str, destination: &str| {
        let socket = socket(Protocol::Udp, local);
        let destination = Some(socket_address(destination));
        let info = packet_info(source, 3);
        let rewritten = rewriter.send_packet_info(&socket, info, destination).rewritten()?;
        Some(format!("{} via {}", rewritten.address, rewritten.interface))
    };
    let expected = |text: &str| Some(text.to_owned());
    // A service on V answers from V if its peer sent to 127.0.0.1 or ::1.
    assert_eq!(send("10.0.5.7:53", "127.0.0.1", "127.3.4.5:9"), expected("10.0.5.7 via 0"));
    assert_eq!(send("10.0.5.7:53", "10.0.5.7", "127.3.4.5:9"), expected("10.0.5.7 via 0"));
    assert_eq!(
        send("[::ffff:10.0.5.7]:53", "::1", "[::ffff:127.131.4.5]:9"),
        expected("::ffff:10.0.5.7 via 0")
    );
    assert_eq!(send("10.0.5.7:53", "0.0.0.0", "127.0.0.1:9"), expected("0.0.0.0 via 0"));
    assert_eq!(send("10.0.5.7:53", "10.0.5.7", "[::1]:9"), expected("10.0.5.7 via 0"));
    // A service on L answers from L, even if the address of its peer is 127.0.0.1.
    assert_eq!(send("127.3.4.5:53", "127.0.0.1", "127.0.0.1:9"), expected("127.3.4.5 via 0"));
    assert_eq!(
        send("[::ffff:127.3.4.5]:53", "::ffff:127.0.0.1", "[::ffff:127.0.0.1]:9"),
        expected("::ffff:127.3.4.5 via 0")
    );
    assert_eq!(
        send("[::ffff:127.131.4.5]:53", "::1", "[::ffff:127.0.0.1]:9"),
        expected("::ffff:127.131.4.5 via 0")
    );
    // For a destination on another host, the kernel rejects the source L, as it rejects 127.0.0.1.
    assert_eq!(send("10.0.5.7:53", "127.0.0.1", "192.0.2.9:9"), expected("127.3.4.5 via 3"));
    assert_eq!(send("10.0.5.7:53", "10.0.5.1", "192.0.2.9:9"), expected("10.0.5.7 via 3"));
    assert_eq!(send("0.0.0.0:53", "127.0.0.1", "127.0.0.1:9"), expected("127.0.0.1 via 0"));

    let visible = |address: &str, source: &str| {
        let source = socket_address(source);
        rewriter
            .visible_packet_info(packet_info(address, 3), || Some(source))
            .rewritten()
            .map(|info| format!("{} via {}", info.address, info.interface))
    };
    assert_eq!(visible("10.0.5.7", "127.3.4.5:9"), expected("127.0.0.1 via 1"));
    assert_eq!(visible("::ffff:10.0.5.7", "[::ffff:127.131.4.5]:9"), expected("::1 via 1"));
    assert_eq!(visible("127.3.4.5", "127.0.0.1:9"), expected("127.0.0.1 via 1"));
    assert_eq!(visible("10.0.5.7", "192.0.2.9:9"), None);
    assert_eq!(visible("239.1.2.3", "127.3.4.5:9"), None);
}

#[test]
fn row_26_shared_receiver_stays_on_the_wildcard() {
    let system = TestSystem::default();
    let rewriter = rewriter(&system);
    assert_eq!(bind(&rewriter, udp(), "0.0.0.0:53"), "10.0.5.7:53");
    assert_eq!(bind(&rewriter, udp(), "0.0.0.0:5353"), "shared-receiver");
    let shared_socket = SocketProperties { can_share_port: true, ..udp() };
    assert_eq!(bind(&rewriter, shared_socket, "0.0.0.0:53"), "shared-receiver");
    let shared_socket = SocketProperties { can_share_port: true, ..tcp() };
    assert_eq!(bind(&rewriter, shared_socket, "0.0.0.0:53"), "10.0.5.7:53");
}

#[test]
fn row_30_and_31_ipv6_wildcard_bind_uses_v() {
    let system = TestSystem::default();
    let mut rewriter = rewriter(&system);
    let v6only = SocketProperties { is_v6only: true, ..tcp6() };
    assert_eq!(bind(&rewriter, tcp6(), "[::]:80"), "[::ffff:10.0.5.7]:80");
    assert_eq!(bind(&rewriter, v6only, "[::]:80"), "[fd00::7]:80");
    assert_eq!(bind(&rewriter, tcp6(), "[::ffff:0.0.0.0]:80"), "[::ffff:10.0.5.7]:80");
    rewriter.addresses.v4 = None;
    assert_eq!(bind(&rewriter, tcp6(), "[::]:80"), "[fd00::7]:80");
    rewriter.addresses.v6 = None;
    assert_eq!(bind(&rewriter, tcp6(), "[::]:80"), "wildcard-kept");
    assert_eq!(bind(&rewriter, v6only, "[::]:80"), "wildcard-kept");
}

#[test]
fn row_30_ipv6_datagram_client_is_bound_by_its_first_destination() {
    let system = TestSystem::default();
    let mut rewriter = rewriter(&system);
    let udp6 = socket(Protocol::Udp, "[::]:0");
    let bound_socket = socket(Protocol::Udp, "[::]:4000");
    let rebind = |rewriter: &Rewriter<'_, TestSystem>, socket, destination| {
        let connect = rewriter.connect(&socket, socket_address(destination)).rewritten()?;
        assert!(connect.rebind);
        connect.source
    };
    assert_eq!(bind(&rewriter, udp6, "[::]:0"), "[::ffff:10.0.5.7]:0");
    assert_eq!(rebind(&rewriter, bound_socket, "[2001:db8::9]:80"), None);
    rewriter.rules.rebind_datagrams = true;
    assert_eq!(bind(&rewriter, udp6, "[::]:0"), "family-unknown");
    assert_eq!(bind(&rewriter, udp6, "[::]:80"), "[::ffff:10.0.5.7]:80");
    assert_eq!(bind(&rewriter, tcp6(), "[::]:0"), "[::ffff:10.0.5.7]:0");
    let v6only = SocketProperties { is_v6only: true, ..udp6 };
    assert_eq!(bind(&rewriter, v6only, "[::]:0"), "dual [::]:0");
    assert_eq!(rebind(&rewriter, bound_socket, "[2001:db8::9]:80"), Some(ip("fd00::7")));
    assert_eq!(
        rebind(&rewriter, bound_socket, "[::ffff:192.0.2.9]:80"),
        Some(ip("::ffff:10.0.5.7"))
    );
    assert_eq!(connect(&rewriter, bound_socket, "[fe80::9]:80"), "link-local");
    for (protocol, local) in
        [(Protocol::Udp, "[::]:5353"), (Protocol::Udp, "[fd00::9]:80"), (Protocol::Tcp, "[::]:80")]
    {
        let destination = "[2001:db8::9]:80";
        assert_eq!(connect(&rewriter, socket(protocol, local), destination), "already-bound");
    }
    let shared_socket = SocketProperties { can_share_port: true, ..bound_socket };
    assert_eq!(connect(&rewriter, shared_socket, "[2001:db8::9]:80"), "already-bound");
    rewriter.addresses.v6 = None;
    assert_eq!(connect(&rewriter, bound_socket, "[2001:db8::9]:80"), "no-such-address");
    rewriter.rules.features.loopback = false;
    rewriter.addresses.v6 = "fd00::7".parse().ok();
    assert_eq!(bind(&rewriter, v6only, "[::]:0"), "[fd00::7]:0");
}

#[test]
fn row_30_sessions_without_ipv6_address_share_no_wildcard_port() {
    let system = TestSystem::default();
    let mut rewriter = rewriter(&system);
    rewriter.addresses.v6 = None;
    let v6only = SocketProperties { is_v6only: true, ..tcp6() };
    let udp_v6only = SocketProperties { is_v6only: true, ..socket(Protocol::Udp, "[::]:0") };
    for socket in [v6only, udp_v6only] {
        assert_eq!(bind(&rewriter, socket, "[::]:80"), "dual [::ffff:127.131.4.5]:80");
    }
    assert_eq!(bind(&rewriter, v6only, "[::]:0"), "wildcard-kept");
    assert_eq!(bind(&rewriter, udp_v6only, "[::]:5353"), "shared-receiver");
    rewriter.rules.features.loopback = false;
    assert_eq!(bind(&rewriter, v6only, "[::]:80"), "shared-ipv6-wildcard");
    assert_eq!(bind(&rewriter, v6only, "[::]:0"), "wildcard-kept");
    rewriter.rules.features = Features { loopback: true, ..Features::default() };
    assert_eq!(bind(&rewriter, v6only, "[::]:80"), "wildcard-kept");
    rewriter.rules.program_flags.wildcard = WildcardBind::Loopback;
    assert_eq!(bind(&rewriter, v6only, "[::]:80"), "dual [::ffff:127.131.4.5]:80");
}

#[test]
fn row_32_ipv6_loopback_uses_l6() {
    let v6only = SocketProperties { is_v6only: true, ..tcp6() };
    let without_listener = TestSystem::default();
    assert_eq!(bind(&rewriter(&without_listener), tcp6(), "[::1]:80"), "[::ffff:127.131.4.5]:80");
    assert_eq!(
        bind(&rewriter(&without_listener), v6only, "[::1]:80"),
        "dual [::ffff:127.131.4.5]:80"
    );
    assert_eq!(connect(&rewriter(&without_listener), tcp6(), "[::1]:80"), "no-own-listener");
    let own_listener = system_with_listeners(&["[::ffff:127.131.4.5]:80"]);
    let expected = "::ffff:127.131.4.5 > [::ffff:127.131.4.5]:80";
    assert_eq!(connect(&rewriter(&own_listener), tcp6(), "[::1]:80"), expected);
    let dual_connect =
        rewriter(&own_listener).connect(&v6only, socket_address("[::1]:80")).rewritten().unwrap();
    assert!(dual_connect.clear_v6only);
    let listener_on_v = system_with_listeners(&["[::ffff:10.0.5.7]:80"]);
    assert_eq!(
        connect(&rewriter(&listener_on_v), tcp6(), "[::1]:80"),
        "::ffff:127.131.4.5 > [::ffff:10.0.5.7]:80"
    );
    // A socket that is bound to an IPv4 address cannot reach the host's ::1, so it connects to L6.
    for local in ["[::ffff:127.131.4.5]:9", "[::ffff:10.0.5.7]:9"] {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            assert_eq!(
                connect(&rewriter(&without_listener), socket(protocol, local), "[::1]:80"),
                "[::ffff:127.131.4.5]:80"
            );
        }
    }
    for local in ["[::1]:9", "[::]:9", "[fd00::7]:9"] {
        let local_socket = socket(Protocol::Udp, local);
        assert_eq!(
            connect(&rewriter(&without_listener), local_socket, "[::1]:80"),
            "no-own-listener"
        );
    }
    let listener_on_v6 = system_with_listeners(&["[fd00::7]:80"]);
    assert_eq!(connect(&rewriter(&listener_on_v6), tcp6(), "[::1]:80"), "[fd00::7]:80");
    let bound_socket = socket(Protocol::Tcp, "[fd00::7]:9");
    assert_eq!(connect(&rewriter(&own_listener), bound_socket, "[::1]:80"), "already-bound");
    // On Windows, ConnectEx needs a bound socket. The bind to [::]:0 is deferred, so that a connect
    // to ::1 reaches L6.
    let mut deferring_rewriter = rewriter(&own_listener);
    deferring_rewriter.rules.defer_wildcard = true;
    deferring_rewriter.addresses.v6 = None;
    assert_eq!(bind(&deferring_rewriter, v6only, "[::]:0"), "deferred [::]:0");
    assert_eq!(bind(&deferring_rewriter, v6only, "[::]:80"), "dual [::ffff:127.131.4.5]:80");
    deferring_rewriter.rules.features.virtual_ip = false;
    assert_eq!(bind(&deferring_rewriter, tcp6(), "[::]:0"), "deferred [::]:0");
    let udp_v6only = SocketProperties { is_v6only: true, ..socket(Protocol::Udp, "[::]:0") };
    assert_eq!(bind(&deferring_rewriter, udp_v6only, "[::]:0"), "dual [::]:0");
    assert_eq!(bind(&deferring_rewriter, udp_v6only, "[::]:80"), "wildcard-kept");
    assert_eq!(bind(&deferring_rewriter, tcp(), "0.0.0.0:0"), "wildcard-kept");
}

#[test]
fn row_33_mapped_loopback_uses_mapped_l() {
    let own_listener = system_with_listeners(&["127.3.4.5:80"]);
    let rewriter = rewriter(&own_listener);
    assert_eq!(bind(&rewriter, tcp6(), "[::ffff:127.0.0.1]:80"), "[::ffff:127.3.4.5]:80");
    assert_eq!(connect(&rewriter, tcp6(), "[::ffff:127.0.0.1]:80"), "[::ffff:127.3.4.5]:80");
    assert_eq!(
        connect(&rewriter, tcp6(), "[::ffff:192.0.2.9]:80"),
        "::ffff:10.0.5.7 > [::ffff:192.0.2.9]:80"
    );
    assert_eq!(connect(&rewriter, tcp6(), "[2001:db8::9]:80"), "fd00::7 > [2001:db8::9]:80");
    assert_eq!(connect(&rewriter, tcp6(), "[fe80::9]:80"), "link-local");
    assert_eq!(connect(&rewriter, tcp6(), "[ff02::fb]:80"), "link-local");
}

#[test]
fn row_40_to_43_host_name_and_interfaces_show_own_addresses() {
    let system = TestSystem::default();
    let mut rewriter = rewriter(&system);
    let host_names = HostNameAddresses { v4: V.parse().ok(), v6: "fd00::7".parse().ok() };
    let client = Some(ip("198.51.100.4"));
    assert_eq!(rewriter.resolve_host_name(client), Outcome::Rewritten(host_names));
    rewriter.rules.features.client_ip = true;
    let host_names = HostNameAddresses { v4: "198.51.100.4".parse().ok(), v6: None };
    assert_eq!(rewriter.resolve_host_name(client), Outcome::Rewritten(host_names));
    assert!(!rewriter.is_hidden(ip("10.0.5.8")));
    rewriter.rules.rewrite_flags.hide_addresses = true;
    assert!(rewriter.is_hidden(ip("10.0.5.8")));
    assert!(!rewriter.is_hidden(ip(V)));
    assert!(!rewriter.is_hidden(ip("10.0.5.1")));
}

#[test]
fn numbers_and_names_of_reasons_are_unique() {
    for reason in Reason::ALL {
        assert_eq!(Reason::from_number(reason.number()), Some(*reason));
        let same_name = Reason::ALL.iter().filter(|other| other.name() == reason.name());
        assert_eq!(same_name.count(), 1, "{}", reason.name());
    }
}
