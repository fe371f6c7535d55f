//! Tests the rows for the addresses that a program sees: the ends of a connection, the host name
//! and the interfaces.

use super::*;

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
