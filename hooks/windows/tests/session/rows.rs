//! The rows of the matrix that one program shows by itself, with and without the hook layer. What
//! it prints holds every error that WSAGetLastError gave.

use super::support::{Host, port};

/// What a row prints in a session, next to what it prints without the hook layer.
fn both(host: &Host, row: u32) -> (String, String) {
    let session = host.session(1);
    (session.plain_row(row, port()), session.row(row, port()))
}

/// Rows in which a rewritten program sees what any program sees.
#[test]
fn rows_that_look_the_same() {
    let host = Host::new(|_| ());
    let session = host.session(1);
    for row in
        [9, 12, 13, 14, 15, 16, 17, 18, 19, 21, 23, 24, 31, 32, 33, 34, 35, 36, 38, 39, 41, 45, 48]
    {
        let plain = session.plain_row(row, port());
        assert!(!plain.is_empty(), "row {row}");
        assert_eq!(session.row(row, port()), plain, "row {row}");
    }
}

/// Two processes of one program are told apart by what they listen on, not by what they print:
/// see `sessions`. Here it is the calls that show V.
#[test]
fn rows_that_show_the_virtual_ip() {
    let host = Host::new(|_| ());
    let table = [
        // The host's own address; others' V and L; an address of nobody's.
        (
            5,
            "bind: ok\nname: HOST port\nbind: ok\nbind: ok\nbind: 10049\n",
            "bind: ok\nname: V port\nbind: 10049\nbind: 10049\nbind: 10049\n",
        ),
        // The program's own bind comes first: no second one.
        (
            10,
            "bind: ok\nbind: ok\nname: 127.0.0.1 other\nconnect: 10061\nname: 127.0.0.1 other\n",
            "bind: ok\nbind: ok\nname: 127.0.0.1 other\nconnect: ok\nname: 127.0.0.1 other\n",
        ),
        (
            22,
            "sendto: ok\nname: 0.0.0.0 other\nbind: 10022\n",
            "sendto: ok\nname: V other\nbind: 10022\n",
        ),
        (
            26,
            "bind: ok\nshared: 0.0.0.0 port\nbind: ok\nmdns: 0.0.0.0 other\n\
             bind: ok\nplain: 0.0.0.0 port\n",
            "bind: ok\nshared: 0.0.0.0 port\nbind: ok\nmdns: 0.0.0.0 other\n\
             bind: ok\nplain: V port\n",
        ),
        (27, "interface: 0.0.0.0\nits own: HOST\n", "interface: V\nits own: HOST\n"),
        (
            46,
            "bind: ok\nbind: ok\nConnectEx: ok\nloopback peer: 127.0.0.1 port\n\
             bind: ok\nconnect: ok\nbind: ok\nbind: ok\nbind: 10022\nin between: 0.0.0.0 other\n\
             bind: ok\nlisten: ok\nlistening: 0.0.0.0 other\nConnectEx: 10022\n\
             never bound: 10022\n",
            "bind: ok\nbind: ok\nConnectEx: ok\nloopback peer: 127.0.0.1 port\n\
             bind: ok\nconnect: ok\nbind: ok\nbind: ok\nbind: 10022\nin between: V other\n\
             bind: ok\nlisten: ok\nlistening: V other\nConnectEx: 10022\n\
             never bound: 10022\n",
        ),
    ];
    for (row, plain, hooked) in table {
        assert_eq!(both(&host, row), (plain.to_owned(), hooked.to_owned()), "row {row}");
    }
}

/// More than the hook layer has places for: the others are bound at once, and none is left out.
#[test]
fn row_46_more_binds_put_off_than_there_are_places() {
    let host = Host::new(|_| ());
    assert_eq!(
        both(&host, 462),
        (
            "V 0, 0.0.0.0 1500, bound again 0\n".to_owned(),
            "V 1500, 0.0.0.0 0, bound again 0\n".to_owned()
        )
    );
}

#[test]
fn row_6_an_address_that_no_interface_has() {
    // The fifth session's V is not configured.
    let host = Host::new(|_| ());
    let session = (1..=5).map(|number| host.session(number)).last().unwrap();
    assert_eq!(session.row(6, port()), "bind: 10049\nname: 10022\n");
    let host = Host::new(|policy| policy.pass_when_missing = true);
    let session = (1..=5).map(|number| host.session(number)).last().unwrap();
    assert_eq!(session.row(6, port()), "bind: ok\nname: 0.0.0.0 port\n");
}

#[test]
fn row_30_sockets_of_both_families() {
    let host = Host::new(|_| ());
    let (plain, hooked) = both(&host, 30);
    assert!(plain.starts_with("bind: ok\nname: :: port\nconnect: ok\n"), "{plain}");
    assert!(hooked.starts_with("bind: ok\nname: ::ffff:V port\nconnect: ok\n"), "{hooked}");
    assert!(hooked.ends_with("name: ::1 other\npeer: ::1 port\n"), "{hooked}");
}

#[test]
fn rows_40_and_42_names() {
    let host = Host::new(|_| ());
    let (plain, hooked) = both(&host, 40);
    assert!(!plain.contains(": V"), "{plain}");
    assert_eq!(
        hooked,
        "getaddrinfo: V 0\nGetAddrInfoW: V 0\nGetAddrInfoExW: V 0\n\
         GetAddrInfoExW, overlapped: V 0\ngethostbyname: V\n"
    );
    let (_, hooked) = both(&host, 42);
    assert_eq!(
        hooked,
        "V: own name port\nL: localhost port\nV numeric: V port\nL numeric: 127.0.0.1 port\n\
         gethostbyaddr L: localhost\n"
    );
}

#[test]
fn row_43_interfaces() {
    let host = Host::new(|policy| policy.hide_addresses = true);
    let (plain, hooked) = both(&host, 43);
    assert_eq!(plain, "own 1 others 1 loopback 1\n");
    assert_eq!(hooked, "own 1 others 0 loopback 1\n");
    let (_, shown) = both(&Host::new(|_| ()), 43);
    assert_eq!(shown, "own 1 others 1 loopback 1\n");
}
