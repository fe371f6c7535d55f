//! Tests the rows for connect: to another host, to the loopback address and to the host address.

use super::*;

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
