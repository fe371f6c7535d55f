//! Tests the rows for datagrams: the destination of a send, and the packet info of a message.

use super::*;

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
