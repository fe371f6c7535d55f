//! Tests the rows for IPv6 sockets: the wildcard, ::1 and the IPv4-mapped loopback address.

use super::*;

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
