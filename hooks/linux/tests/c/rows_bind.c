/* Tests the rows of the socket matrix for bind(2) and listen(2). See matrix.h. */
#include "matrix.h"

/* A bind to 127.0.0.1 is rewritten to L. */
static void loopback_bind_uses_l(void) {
    int fd = tcp_socket(), udp_fd = udp_socket();
    expect("bind", try_bind(fd, LOOPBACK, 8001), "ok");
    expect("getsockname", visible_name(fd), "127.0.0.1:8001");
    expect_listed("kernel name", kernel_name(fd), format_host_port(L, 8001), "127.0.0.1:8001");
    expect("second bind", try_bind(tcp_socket(), LOOPBACK, 8001), "EADDRINUSE");
    expect("udp bind", try_bind(udp_fd, LOOPBACK, 8001), "ok");
    expect("udp getsockname", visible_name(udp_fd), "127.0.0.1:8001");
    expect_listed("udp kernel name", kernel_name(udp_fd), format_host_port(L, 8001),
                  "127.0.0.1:8001");
}

/* A wildcard listener of the host conflicts with a loopback bind to the same port. The order of the
 * two binds does not matter. */
static void host_wildcard_listener_conflicts(void) {
    /* The test `matrix` runs a listener of the host on 0.0.0.0:8002. */
    int fd = tcp_socket();
    enable_option(fd, SOL_SOCKET, SO_REUSEADDR);
    expect("bind", try_bind(fd, LOOPBACK, 8002), "EADDRINUSE");
    /* In the reverse order, the host binds second. This row makes the host's bind with a direct
     * system call, which bypasses the hook. */
    listen_on(LOOPBACK, 8102);
    struct address wildcard = make_address(ANY, 8102);
    for (int i = 0; i < 2; i++) {
        fd = tcp_socket();
        if (i) enable_option(fd, SOL_SOCKET, SO_REUSEADDR);
        expect("bind by the host",
               errno_text(syscall(SYS_bind, fd, &wildcard.bytes, wildcard.length)), "EADDRINUSE");
    }
}

/* A bind to 0.0.0.0 is rewritten to V. */
static void wildcard_bind_uses_v(void) {
    int fd = tcp_socket(), udp_fd = udp_socket();
    expect("bind", try_bind(fd, ANY, 8003), "ok");
    expect_listed("kernel name", kernel_name(fd), format_host_port(V, 8003), "0.0.0.0:8003");
    expect_listed("getsockname", visible_name(fd), format_host_port(V, 8003), "0.0.0.0:8003");
    expect("udp bind", try_bind(udp_fd, ANY, 8003), "ok");
    expect_listed("udp kernel name", kernel_name(udp_fd), format_host_port(V, 8003),
                  "0.0.0.0:8003");
}

/* Under a rule without the feature virtual-ip, a wildcard bind is not rewritten. */
static void wildcard_bind_passes_without_virtual_ip(void) {
    int fd = tcp_socket(), udp_fd = udp_socket();
    expect("bind", try_bind(fd, ANY, 8103), "ok");
    expect("kernel name", kernel_name(fd), "0.0.0.0:8103");
    expect("udp bind", try_bind(udp_fd, ANY, 8103), "ok");
    expect("udp kernel name", kernel_name(udp_fd), "0.0.0.0:8103");
}

/* Under a rule with wildcard = "loopback" and without the feature virtual-ip, a wildcard bind to a
 * fixed port is rewritten to L. A wildcard bind to port 0 is not rewritten. */
static void wildcard_loopback_rule_binds_l(void) {
    int fd = tcp_socket(), client = tcp_socket(), ephemeral_fd = tcp_socket();
    enable_option(fd, SOL_SOCKET, SO_REUSEADDR);
    expect("bind", try_bind(fd, ANY, 8203), "ok");
    expect_listed("kernel name", kernel_name(fd), format_host_port(L, 8203), "0.0.0.0:8203");
    expect("listen", errno_text(listen(fd, 1)), "ok");
    expect("connect", try_connect(client, LOOPBACK, 8203), "ok");
    expect_listed("peer", kernel_peer(client), format_host_port(L, 8203), "127.0.0.1:8203");
    expect("bind without a port", try_bind(ephemeral_fd, ANY, 0), "ok");
    expect_unprinted("kernel name without a port", kernel_name(ephemeral_fd),
                     format_host_port(ANY, kernel_port(ephemeral_fd)));
}

/* A bind to the host's address is rewritten to V. A bind to a pool address that the session does
 * not hold fails. */
static void host_address_bind_uses_v(void) {
    int fd = tcp_socket();
    expect("bind", try_bind(fd, HOST_ADDRESS, 8005), "ok");
    expect_listed("kernel name", kernel_name(fd), format_host_port(V, 8005),
                  format_host_port(HOST_ADDRESS, 8005));
    expect_listed("bind to another session's V", try_bind(tcp_socket(), OTHER_SESSION_V, 8005),
                  "EADDRNOTAVAIL", "ok");
    expect_listed("bind to another session's L", try_bind(tcp_socket(), "127.99.0.9", 8005),
                  "EADDRNOTAVAIL", "ok");
    fd = tcp_socket();
    expect("bind to an unleased loopback address", try_bind(fd, "127.0.0.53", 8005), "ok");
    expect("kernel name of the unleased address", kernel_name(fd), "127.0.0.53:8005");
    expect("bind to a foreign address", try_bind(tcp_socket(), "192.0.2.1", 8005), "EADDRNOTAVAIL");
}

/* A bind to a link-local address is not rewritten. */
static void link_local_bind_passes(void) {
    int fd = tcp6_socket(), client = tcp6_socket();
    struct address local = make_link_local(LINK_LOCAL, 8105);
    expect("bind", errno_text(bind(fd, (void *)&local.bytes, local.length)), "ok");
    expect("kernel name", kernel_name(fd), "[" LINK_LOCAL "]:8105");
    expect("listen", errno_text(listen(fd, 1)), "ok");
    expect("connect", errno_text(connect(client, (void *)&local.bytes, local.length)), "ok");
    expect("getpeername", visible_peer(client), "[" LINK_LOCAL "]:8105");
}

/* After a bind to port 0, getsockname immediately returns a port. A failed connect before the bind
 * does not change this. */
static void port_is_visible_after_bind(void) {
    int fd = tcp_socket();
    expect("bind", try_bind(fd, LOOPBACK, 0), "ok");
    expect("port is visible", kernel_port(fd) ? "yes" : "no", "yes");
    fd = tcp_socket();
    expect("connect", try_connect(fd, EXTERNAL_ADDRESS, 8), "ECONNREFUSED");
    expect("bind after the connect", try_bind(fd, ANY, 0), "ok");
    expect("port is visible after the connect", kernel_port(fd) ? "yes" : "no", "yes");
    expect_listed("kernel name", kernel_name(fd), format_host_port(V, kernel_port(fd)),
                  format_host_port(ANY, kernel_port(fd)));
}

/* A bind with AF_UNSPEC and a zero address is a wildcard bind. */
static void unspecified_family_bind_is_wildcard(void) {
    int fd = tcp_socket();
    struct address wildcard = make_address(ANY, 8015);
    wildcard.bytes.ss_family = AF_UNSPEC;
    expect("bind", errno_text(bind(fd, (void *)&wildcard.bytes, wildcard.length)), "ok");
    expect_listed("kernel name", kernel_name(fd), format_host_port(V, 8015), "0.0.0.0:8015");
    struct address other_address = make_address(LOOPBACK, 8115);
    other_address.bytes.ss_family = AF_UNSPEC;
    expect("bind with AF_UNSPEC to another address",
           errno_text(bind(tcp_socket(), (void *)&other_address.bytes, other_address.length)),
           "EAFNOSUPPORT");
}

/* An unbound socket has the wildcard address and port 0. */
static void unbound_socket_has_wildcard_name(void) {
    expect("tcp", visible_name(tcp_socket()), "0.0.0.0:0");
    expect("udp", visible_name(udp_socket()), "0.0.0.0:0");
    expect("tcp6", visible_name(tcp6_socket()), "[::]:0");
}

/* listen on an unbound socket binds it to V. */
static void listen_binds_unbound_socket_to_v(void) {
    int fd = tcp_socket();
    expect("listen", errno_text(listen(fd, 8)), "ok");
    expect_listed("kernel name", kernel_name(fd), format_host_port(V, kernel_port(fd)),
                  format_host_port(ANY, kernel_port(fd)));
    expect("listen again", errno_text(listen(fd, 16)), "ok");
    expect("listen on UDP", errno_text(listen(udp_socket(), 8)), "EOPNOTSUPP");
    int unix_fd = socket(AF_UNIX, SOCK_STREAM, 0);
    expect("listen on a Unix socket", errno_text(listen(unix_fd, 8)), "EINVAL");
}

/* A bind to 127.0.0.1 or ::1 with port 0 is rewritten to L or L6. The program can connect to the
 * port, and cannot bind the port again. */
static void ephemeral_loopback_bind_uses_l(void) {
    char mapped_l6[64];
    snprintf(mapped_l6, sizeof mapped_l6, "::ffff:%s", L6);
    const char *hosts[] = {LOOPBACK, "::1"}, *kernel_hosts[] = {L, mapped_l6};
    for (int i = 0; i < 2; i++) {
        int fd = i ? tcp6_socket() : tcp_socket(), client = i ? tcp6_socket() : tcp_socket(),
            second_fd = i ? tcp6_socket() : tcp_socket();
        expect("bind", try_bind(fd, hosts[i], 0), "ok");
        int port = kernel_port(fd);
        expect_listed("kernel name", kernel_name(fd), format_host_port(kernel_hosts[i], port),
                      format_host_port(hosts[i], port));
        expect_unprinted("getsockname", visible_name(fd), format_host_port(hosts[i], port));
        expect("listen", errno_text(listen(fd, 1)), "ok");
        expect("second bind", try_bind(second_fd, hosts[i], port), "EADDRINUSE");
        expect("bind the client", try_bind(client, hosts[i], 0), "ok");
        expect("connect", try_connect(client, hosts[i], port), "ok");
        expect_unprinted("peer", visible_peer(client), format_host_port(hosts[i], port));
    }
    /* A client that is bound to 127.0.0.1 sees 127.0.0.1 as its peer, even if the service is on
     * V. */
    int fd = tcp_socket();
    listen_on(ANY, 8323);
    expect("bind", try_bind(fd, LOOPBACK, 0), "ok");
    expect("connect to a service on V", try_connect(fd, LOOPBACK, 8323), "ok");
    expect("peer", visible_peer(fd), "127.0.0.1:8323");
    /* The test `matrix` runs listeners of the host on 127.0.0.1:8223 and [::1]:8223. */
    fd = tcp_socket();
    expect("bind again", try_bind(fd, LOOPBACK, 0), "ok");
    expect("connect to the host's service", try_connect(fd, LOOPBACK, 8223), "ok");
    fd = tcp6_socket();
    expect("bind a second client", try_bind(fd, "::1", 0), "ok");
    expect_listed("connect to the host's service on ::1", try_connect(fd, "::1", 8223),
                  "ECONNREFUSED", "ok");
}

/* Under a rule with keep-ephemeral, a loopback bind with port 0 is not rewritten. */
static void keep_ephemeral_rule_keeps_loopback(void) {
    int fd = tcp_socket();
    expect("bind", try_bind(fd, LOOPBACK, 0), "ok");
    expect_unprinted("kernel name", kernel_name(fd), format_host_port(LOOPBACK, kernel_port(fd)));
    expect_unprinted("getsockname", visible_name(fd), format_host_port(LOOPBACK, kernel_port(fd)));
}

/* Wildcard binds of UDP sockets with SO_REUSEADDR, SO_REUSEPORT or SO_BROADCAST are not rewritten.
 * Wildcard binds to a port of wildcard-udp-ports are not rewritten either. */
static void shared_udp_port_bind_passes(void) {
    int fd = udp_socket();
    enable_option(fd, SOL_SOCKET, SO_REUSEADDR);
    expect("bind with SO_REUSEADDR", try_bind(fd, ANY, 8026), "ok");
    expect("kernel name", kernel_name(fd), "0.0.0.0:8026");
    fd = udp_socket();
    enable_option(fd, SOL_SOCKET, SO_REUSEPORT);
    expect("bind with SO_REUSEPORT", try_bind(fd, ANY, 8226), "ok");
    expect("kernel name with SO_REUSEPORT", kernel_name(fd), "0.0.0.0:8226");
    fd = udp_socket();
    enable_option(fd, SOL_SOCKET, SO_BROADCAST);
    expect("bind with SO_BROADCAST", try_bind(fd, ANY, 8126), "ok");
    expect("kernel name with SO_BROADCAST", kernel_name(fd), "0.0.0.0:8126");
    fd = udp_socket();
    expect("bind to a wildcard-udp-port", try_bind(fd, ANY, 5353), "ok");
    expect("kernel name on a wildcard-udp-port", kernel_name(fd), "0.0.0.0:5353");
}

/* A listener of the host on [::] conflicts with a bind to 0.0.0.0 on the same port. */
static void host_ipv6_wildcard_listener_conflicts(void) {
    /* The test `matrix` runs a listener of the host on [::]:8029. */
    expect("bind", try_bind(tcp_socket(), ANY, 8029), "EADDRINUSE");
}

/* SO_REUSEPORT groups work within a session. */
static void reuseport_group_stays_in_session(void) {
    int first_fd = tcp_socket(), second_fd = tcp_socket();
    enable_option(first_fd, SOL_SOCKET, SO_REUSEPORT);
    enable_option(second_fd, SOL_SOCKET, SO_REUSEPORT);
    expect("bind", try_bind(first_fd, ANY, 8038), "ok");
    expect("bind second", try_bind(second_fd, ANY, 8038), "ok");
    /* While the listed program runs, another session listens on the same port without
     * SO_REUSEPORT. */
    expect_listed("kernel name", kernel_name(first_fd), format_host_port(V, 8038), "0.0.0.0:8038");
    expect_listed("kernel name of the second", kernel_name(second_fd), format_host_port(V, 8038),
                  "0.0.0.0:8038");
    expect("bind without SO_REUSEPORT", try_bind(tcp_socket(), ANY, 8038), "EADDRINUSE");
    expect("listen", errno_text(listen(first_fd, 1)), "ok");
    expect("listen second", errno_text(listen(second_fd, 1)), "ok");
}

const struct row bind_rows[] = {
    {"1", loopback_bind_uses_l},
    {"2", host_wildcard_listener_conflicts},
    {"3", wildcard_bind_uses_v},
    {"3-loopback", wildcard_bind_passes_without_virtual_ip},
    {"3-wildcard", wildcard_loopback_rule_binds_l},
    {"5", host_address_bind_uses_v},
    {"5-link-local", link_local_bind_passes},
    {"8", port_is_visible_after_bind},
    {"15", unspecified_family_bind_is_wildcard},
    {"18", unbound_socket_has_wildcard_name},
    {"21", listen_binds_unbound_socket_to_v},
    {"23", ephemeral_loopback_bind_uses_l},
    {"23-kept", keep_ephemeral_rule_keeps_loopback},
    {"26", shared_udp_port_bind_passes},
    {"29", host_ipv6_wildcard_listener_conflicts},
    {"38", reuseport_group_stays_in_session},
    {NULL, NULL},
};
