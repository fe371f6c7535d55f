//! Tests of the rows of docs/socket-matrix.md that one program can test alone.
//!
//! Most tests run rows.exe (tests/c/rows.c) with and without the hook layer and check both outputs.
//! The output contains the result of each call: "ok", an address or a Winsock error code.

use super::support::{TestHost, unused_port};

/// Runs a row without the hook layer, then in a session. Returns both outputs in this order.
fn run_both(host: &TestHost, row: u32) -> (String, String) {
    let session = host.open_session(1);
    (session.run_row_without_hooks(row, unused_port()), session.run_row(row, unused_port()))
}

#[test]
fn some_rows_print_the_same_output_with_and_without_hooks() {
    let host = TestHost::new(|_| ());
    let session = host.open_session(1);
    for row in
        [9, 12, 13, 14, 15, 16, 17, 18, 19, 21, 23, 24, 251, 32, 33, 34, 35, 36, 38, 39, 41, 45, 48]
    {
        let without_hooks = session.run_row_without_hooks(row, unused_port());
        assert!(!without_hooks.is_empty(), "row {row}");
        assert_eq!(session.run_row(row, unused_port()), without_hooks, "row {row}");
    }
}

/// With the hook layer, the program sees V or ::1 in these rows, or a call has a different result.
#[test]
fn other_rows_print_different_output_with_hooks() {
    let host = TestHost::new(|_| ());
    let cases = [
        // The program binds to the host's own address, to an address of each pool that its session
        // does not have, and to an address that no interface has.
        (
            5,
            "bind: ok\nname: HOST port\nbind: ok\nbind: ok\nbind: 10049\n",
            "bind: ok\nname: V port\nbind: 10049\nbind: 10049\nbind: 10049\n",
        ),
        // The program listens on the host's own address, so without the hook layer, no listener is
        // on 127.0.0.1. The program itself binds the client socket, so the hook layer does not bind
        // it again.
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
             bind: ok\nunshared: 0.0.0.0 port\n",
            "bind: ok\nshared: 0.0.0.0 port\nbind: ok\nmdns: 0.0.0.0 other\n\
             bind: ok\nunshared: V port\n",
        ),
        // The session has no IPv6 address, so the hook layer binds an IPv6-only socket to L6
        // instead of :: (row 30). The program sees L6 as ::1.
        (31, "bind: ok\nname: :: port\n", "bind: ok\nname: ::1 port\n"),
        (27, "interface: 0.0.0.0\nset by program: HOST\n", "interface: V\nset by program: HOST\n"),
        (
            46,
            "bind: ok\nbind: ok\nConnectEx: ok\nloopback peer: 127.0.0.1 port\n\
             bind: ok\nconnect: ok\nbind: ok\nbind: ok\nbind: 10022\nafter deferred bind: 0.0.0.0 other\n\
             bind: ok\nlisten: ok\nlistening: 0.0.0.0 other\nConnectEx: 10022\n\
             never bound: 10022\n",
            "bind: ok\nbind: ok\nConnectEx: ok\nloopback peer: 127.0.0.1 port\n\
             bind: ok\nconnect: ok\nbind: ok\nbind: ok\nbind: 10022\nafter deferred bind: V other\n\
             bind: ok\nlisten: ok\nlistening: V other\nConnectEx: 10022\n\
             never bound: 10022\n",
        ),
    ];
    for (row, without_hooks, with_hooks) in cases {
        assert_eq!(
            run_both(&host, row),
            (without_hooks.to_owned(), with_hooks.to_owned()),
            "row {row}"
        );
    }
}

/// The table of deferred binds has 1024 entries, and the program binds 1500 sockets, so some binds
/// cannot be deferred.
#[test]
fn row_46_binds_beyond_the_table_size_are_not_deferred() {
    let host = TestHost::new(|_| ());
    assert_eq!(
        run_both(&host, 462),
        (
            "V 0, 0.0.0.0 1500, bound again 0\n".to_owned(),
            "V 1500, 0.0.0.0 0, bound again 0\n".to_owned()
        )
    );
}

#[test]
fn row_6_address_without_interface_fails_or_passes_by_policy() {
    // No interface has the V of the fifth session.
    let host = TestHost::new(|_| ());
    let session = (1..=5).map(|number| host.open_session(number)).last().unwrap();
    assert_eq!(session.run_row(6, unused_port()), "bind: 10049\nname: 10022\n");
    let host = TestHost::new(|policy| policy.rewrite.pass_when_missing = true);
    let session = (1..=5).map(|number| host.open_session(number)).last().unwrap();
    assert_eq!(session.run_row(6, unused_port()), "bind: ok\nname: 0.0.0.0 port\n");
}

#[test]
fn row_30_dual_stack_sockets_are_rewritten() {
    let host = TestHost::new(|_| ());
    let (without_hooks, with_hooks) = run_both(&host, 30);
    assert!(without_hooks.starts_with("bind: ok\nname: :: port\nconnect: ok\n"), "{without_hooks}");
    assert!(with_hooks.starts_with("bind: ok\nname: ::ffff:V port\nconnect: ok\n"), "{with_hooks}");
    assert!(with_hooks.ends_with("name: ::1 other\npeer: ::1 port\n"), "{with_hooks}");
}

#[test]
fn rows_40_and_42_names_resolve_to_session_addresses() {
    let host = TestHost::new(|_| ());
    let (without_hooks, with_hooks) = run_both(&host, 40);
    assert!(!without_hooks.contains(": V"), "{without_hooks}");
    assert_eq!(
        with_hooks,
        "getaddrinfo: V 0\nGetAddrInfoW: V 0\nGetAddrInfoExW: V 0\n\
         GetAddrInfoExW, overlapped: V 0\ngethostbyname: V\n"
    );
    let (_, with_hooks) = run_both(&host, 42);
    assert_eq!(
        with_hooks,
        "V: own name port\nL: localhost port\nV numeric: V port\nL numeric: 127.0.0.1 port\n\
         gethostbyaddr L: localhost\n"
    );
}

#[test]
fn row_40_lookup_without_hints_returns_a_list_that_can_be_freed() {
    let host = TestHost::new(|_| ());
    let (without_hooks, with_hooks) = run_both(&host, 402);
    let entries = |output: &str, function: &str| -> Vec<String> {
        let prefix = format!("{function}: ");
        output.lines().filter_map(|line| Some(line.strip_prefix(&prefix)?.to_owned())).collect()
    };
    for function in ["getaddrinfo", "GetAddrInfoW"] {
        let (original, rewritten) =
            (entries(&without_hooks, function), entries(&with_hooks, function));
        assert!(original.len() > rewritten.len(), "{without_hooks}\n{with_hooks}");
        // The list has one entry for each type of socket, with the only address of the session.
        let mut types = rewritten.clone();
        types.sort();
        types.dedup();
        assert_eq!(types.len(), rewritten.len());
        assert!(!rewritten.is_empty() && rewritten.iter().all(|entry| entry.ends_with(" V 0")));
    }
    // The other lines are the last error, and a message if the heap is invalid.
    let other_lines =
        |output: &str| output.lines().filter(|line| !line.contains(" type ")).collect::<String>();
    assert_eq!(other_lines(&with_hooks), other_lines(&without_hooks));
}

#[test]
fn row_43_addresses_of_other_sessions_are_hidden() {
    let host = TestHost::new(|policy| policy.rewrite.hide_addresses = true);
    let (without_hooks, with_hooks) = run_both(&host, 43);
    assert_eq!(without_hooks, "own 1 others 1 loopback 1\n");
    assert_eq!(with_hooks, "own 1 others 0 loopback 1\n");
    let (_, with_hooks) = run_both(&TestHost::new(|_| ()), 43);
    assert_eq!(with_hooks, "own 1 others 1 loopback 1\n");
}
