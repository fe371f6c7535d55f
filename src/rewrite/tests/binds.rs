//! Tests the rows for bind and listen: the loopback address, the wildcard, the addresses of the
//! host and shared receivers.

use super::*;

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
