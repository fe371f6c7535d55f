//! Tests of the process list and of the calls of the rewriter.

use vipool::map::Plan;
use vipool::policy::{Features, Policy, PortRange, Program, ProgramFlags, RewriteFlags};
use vipool::rewrite::{PacketInfo, Protocol, SocketProperties};

use crate::api::{Api, Call};
use crate::suite::{
    FIRST_ADDRESS, SECOND_ADDRESS, addresses, for_user, ip, plan, session_id, socket_addr,
};

/// Returns a plan with three rules. The first two rules have the features `virtual-ip` and
/// `loopback`. The second rule has a Windows path. The third rule has only the feature `client-ip`.
fn plan_with_rules() -> Plan {
    let both_features = Features::default().with_virtual_ip(true).with_loopback(true);
    let program = |pattern: &str, features| Program::new(pattern).with_features(features);
    plan().with_policy(
        Policy::new([
            program("/usr/bin/server", both_features)
                .with_own_ports([PortRange { first: 7000, last: 7001 }])
                .with_shared_ports([PortRange { first: 631, last: 631 }]),
            program(r"C:\Program Files\App\app.exe", both_features)
                .with_flags(ProgramFlags::default().with_keep_ephemeral(true)),
            program("client", Features::default().with_client_ip(true)),
        ])
        .with_host_addresses([ip("10.0.5.1")])
        .with_wildcard_udp_ports([PortRange { first: 5353, last: 5353 }])
        .with_rewrite(
            RewriteFlags::default().with_pass_when_missing(true).with_hide_addresses(true),
        ),
    )
}

pub fn rule_matches_by_path_or_name<A: Api>() {
    let api = A::new(&plan_with_rules()).unwrap();
    let features = |path, is_windows| api.rule(path, is_windows).map(|(_, features)| features);
    assert_eq!(features("/usr/bin/server", false), Some(3));
    assert_eq!(features("/opt/bin/server", false), None);
    assert_eq!(features("/usr/bin/Server", false), None);
    assert_eq!(features("/home/ada/client", false), Some(4));
    assert_eq!(features(r"\\?\c:\PROGRAM FILES\app\APP.EXE", true), Some(3));
    assert_eq!(features(r"D:\App\app.exe", true), None);
}

pub fn socket_calls_are_rewritten<A: Api>() {
    let api = A::new(&plan_with_rules()).unwrap();
    let handle = api.open(session_id(1), &for_user("ada"), 100).unwrap().handle;
    let other_session = api.open(session_id(2), &for_user("eve"), 100).unwrap();
    assert_eq!(addresses(&other_session)[0], SECOND_ADDRESS);
    let (server_rule_id, _) = api.rule("/usr/bin/server", false).unwrap();
    let socket = |protocol, local: &str| SocketProperties::new(protocol, Some(socket_addr(local)));
    let tcp_socket = socket(Protocol::Tcp, "0.0.0.0:0");
    let udp_socket = socket(Protocol::Udp, "0.0.0.0:0");
    let ipv6_only_socket = SocketProperties { is_v6only: true, ..socket(Protocol::Tcp, "[::]:0") };
    let bound_tcp_socket = socket(Protocol::Tcp, "10.0.5.10:4000");
    let bound_udp_socket = socket(Protocol::Udp, "10.0.5.10:4000");
    let packet_info = |address: &str, interface| PacketInfo { address: ip(address), interface };
    let listeners = [socket_addr("127.3.0.2:6379"), socket_addr("10.0.5.10:8080")];
    let cases = [
        (Call::Bind(tcp_socket, socket_addr("127.0.0.1:80")), "127.3.0.2:80"),
        (Call::Bind(tcp_socket, socket_addr("127.0.0.1:0")), "127.3.0.2:0"),
        (Call::Bind(tcp_socket, socket_addr("127.0.0.1:631")), "shared-port"),
        (Call::Bind(tcp_socket, socket_addr("0.0.0.0:80")), "10.0.5.10:80"),
        (Call::Bind(tcp_socket, socket_addr("10.0.5.1:80")), "10.0.5.10:80"),
        (Call::Bind(tcp_socket, socket_addr("10.0.5.11:80")), "other-session-address"),
        (Call::Bind(tcp_socket, socket_addr("10.0.5.10:80")), "own-address"),
        (Call::Bind(udp_socket, socket_addr("0.0.0.0:5353")), "shared-receiver"),
        (Call::Bind(ipv6_only_socket, socket_addr("[::1]:80")), "[::ffff:127.3.0.6]:80 v6only"),
        (Call::Listen(tcp_socket), "10.0.5.10:0"),
        (Call::Listen(bound_tcp_socket), "already-bound"),
        (
            Call::Connect(tcp_socket, socket_addr("192.0.2.1:443")),
            "192.0.2.1:443 from 10.0.5.10 late",
        ),
        (Call::Connect(bound_tcp_socket, socket_addr("192.0.2.1:443")), "already-bound"),
        (Call::Connect(tcp_socket, socket_addr("127.0.0.1:6379")), "127.3.0.2:6379"),
        (
            Call::Connect(tcp_socket, socket_addr("127.0.0.1:8080")),
            "10.0.5.10:8080 from 127.3.0.2 late",
        ),
        (Call::Connect(tcp_socket, socket_addr("127.0.0.1:9999")), "no-own-listener"),
        (Call::Connect(tcp_socket, socket_addr("127.0.0.1:7000")), "127.3.0.2:7000"),
        (Call::Send(udp_socket, socket_addr("192.0.2.1:53"), false), "192.0.2.1:53 from 10.0.5.10"),
        (Call::Send(tcp_socket, socket_addr("192.0.2.1:53"), false), "stream"),
        (
            Call::Send(tcp_socket, socket_addr("192.0.2.1:53"), true),
            "192.0.2.1:53 from 10.0.5.10 late",
        ),
        (Call::SendPacketInfo(udp_socket, packet_info("0.0.0.0", 3), None), "10.0.5.10 via 3"),
        (
            Call::SendPacketInfo(
                udp_socket,
                packet_info("192.0.2.7", 3),
                Some(socket_addr("192.0.2.1:53")),
            ),
            "other-address",
        ),
        (
            Call::SendPacketInfo(
                bound_udp_socket,
                packet_info("127.0.0.1", 1),
                Some(socket_addr("127.3.0.2:9")),
            ),
            "10.0.5.10 via 0",
        ),
        (
            Call::VisiblePacketInfo(packet_info("10.0.5.10", 3), Some(socket_addr("127.3.0.2:9"))),
            "127.0.0.1 via 1",
        ),
        (
            Call::VisiblePacketInfo(packet_info("10.0.5.10", 3), Some(socket_addr("192.0.2.1:9"))),
            "shown-as-is",
        ),
        (Call::VisibleAddress(socket_addr("127.3.0.2:80"), None), "127.0.0.1:80"),
        (Call::VisibleAddress(socket_addr("10.0.5.10:80"), None), "shown-as-is"),
        (
            Call::VisibleAddress(socket_addr("10.0.5.10:80"), Some(socket_addr("127.3.0.2:9"))),
            "127.0.0.1:80",
        ),
        (Call::VisibleAddress(socket_addr("[::ffff:127.3.0.6]:80"), None), "[::1]:80"),
        (Call::VisibleIp(ip("127.3.0.2")), "127.0.0.1:0"),
        (Call::VisibleIp(ip("10.0.5.10")), "shown-as-is"),
        (Call::MulticastInterface(ip("239.1.2.3")), "10.0.5.10:0"),
        (Call::MulticastInterface(ip("192.0.2.1")), "other-address"),
        (Call::HostAddresses(Some(ip("192.0.2.9"))), "Some(10.0.5.10) None"),
        (Call::IsOwnAddress(ip(FIRST_ADDRESS)), "true"),
        (Call::IsOwnAddress(ip(SECOND_ADDRESS)), "false"),
        (Call::IsHidden(ip(SECOND_ADDRESS)), "true"),
        (Call::IsHidden(ip(FIRST_ADDRESS)), "false"),
        (Call::IsRetryAllowed(ip(FIRST_ADDRESS)), "true"),
        (Call::IsRetryAllowed(ip(SECOND_ADDRESS)), "false"),
    ];
    for (call, expected) in cases {
        assert_eq!(api.rewrite(&handle, server_rule_id, &listeners, call), expected, "{call:?}");
    }
    let (keep_ephemeral_rule_id, _) = api.rule(r"C:\Program Files\App\app.exe", true).unwrap();
    let bind = Call::Bind(tcp_socket, socket_addr("127.0.0.1:0"));
    assert_eq!(api.rewrite(&handle, keep_ephemeral_rule_id, &[], bind), "ephemeral-port");
    let (client_rule_id, _) = api.rule("/bin/client", false).unwrap();
    let host_addresses = Call::HostAddresses(Some(ip("192.0.2.9")));
    assert_eq!(api.rewrite(&handle, client_rule_id, &[], host_addresses), "Some(192.0.2.9) None");
    let bind = Call::Bind(tcp_socket, socket_addr("127.0.0.1:80"));
    assert_eq!(api.rewrite(&handle, client_rule_id, &[], bind), "feature-off");
}
