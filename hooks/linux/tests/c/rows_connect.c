/* Tests the rows of the socket matrix for connect(2) and accept(2). See matrix.h. */
#include "matrix.h"

/* A socket bound to 0.0.0.0:0 can connect to an external destination, or to the session's service
 * on 127.0.0.1. */
static void socket_bound_to_wildcard_connects_anywhere(void) {
    int fd = tcp_socket();
    expect("bind", try_bind(fd, ANY, 0), "ok");
    int port = kernel_port(fd);
    expect_listed("kernel name", kernel_name(fd), format_host_port(V, port),
                  format_host_port(ANY, port));
    expect("connect to an external address", try_connect(fd, EXTERNAL_ADDRESS, 7), "ok");
    expect_listed("source seen by the peer", receive_text(fd), V, HOST_ADDRESS);
    int service = listen_on(LOOPBACK, 8004);
    fd = tcp_socket();
    expect("bind again", try_bind(fd, ANY, 0), "ok");
    expect("connect to the session's loopback", try_connect(fd, LOOPBACK, 8004), "ok");
    expect("getpeername", visible_peer(fd), "127.0.0.1:8004");
    expect_unprinted("getsockname", visible_name(fd), format_host_port(LOOPBACK, kernel_port(fd)));
    struct sockaddr_storage peer;
    socklen_t length = sizeof peer;
    int accepted = accept(service, (void *)&peer, &length);
    expect_unprinted("peer from accept", format_address(&peer),
                     format_host_port(LOOPBACK, kernel_port(fd)));
    expect("name of the accepted socket", visible_name(accepted), "127.0.0.1:8004");
}

/* A connect to a port of the host's address reaches the session's service on this port. Without
 * such a service, the connect reaches the host's service. */
static void host_address_connect_prefers_session(void) {
    const int ports[] = {8205, 8305, 8405};
    const char *hosts[] = {HOST_ADDRESS, ANY, "::"},
               *destinations[] = {HOST_ADDRESS, HOST_ADDRESS, HOST_ADDRESS6};
    char mapped_v[64];
    snprintf(mapped_v, sizeof mapped_v, "::ffff:%s", V);
    const char *visible_hosts[] = {V, V, mapped_v};
    for (int i = 0; i < 3; i++) {
        int service = listen_on(hosts[i], ports[i]), fd = i < 2 ? tcp_socket() : tcp6_socket();
        if (i == 2) enable_option(fd, IPPROTO_IPV6, IPV6_V6ONLY);
        expect("connect", try_connect(fd, destinations[i], ports[i]), "ok");
        expect_listed("peer", visible_peer(fd), format_host_port(visible_hosts[i], ports[i]),
                      format_host_port(destinations[i], ports[i]));
        int accepted = accept(service, NULL, NULL);
        expect_listed("peer of the accepted socket", visible_peer(accepted),
                      format_host_port(visible_hosts[i], kernel_port(fd)),
                      format_host_port(destinations[i], kernel_port(fd)));
    }
    int service = udp_socket(), fd = udp_socket();
    struct address destination = make_address(HOST_ADDRESS, 8205);
    expect("bind", try_bind(service, HOST_ADDRESS, 8205), "ok");
    for (int i = 0; i < 2; i++) {
        struct pollfd poll_fd = {service, POLLIN, 0};
        char byte;
        expect("sendto",
               errno_text(sendto(fd, "x", 1, 0, (void *)&destination.bytes, destination.length)),
               "ok");
        expect("datagram arrives", poll(&poll_fd, 1, 5000) == 1 ? "yes" : "no", "yes");
        expect("recv", errno_text(recv(service, &byte, 1, 0)), "ok");
    }
    struct address external = make_address(EXTERNAL_ADDRESS, 7);
    expect("sendto", errno_text(sendto(fd, "x", 1, 0, (void *)&external.bytes, external.length)),
           "ok");
    expect_listed("source seen by the peer", receive_text(fd), V, HOST_ADDRESS);
    /* The test `matrix` runs a listener of the host on port 8505. The session has no listener on
     * this port. */
    fd = tcp_socket();
    expect("connect to the host's service", try_connect(fd, HOST_ADDRESS, 8505), "ok");
    expect("peer", kernel_peer(fd), format_host_port(HOST_ADDRESS, 8505));
    expect_listed("sender", visible_name(fd), format_host_port(V, kernel_port(fd)),
                  format_host_port(HOST_ADDRESS, kernel_port(fd)));
}

/* Calls fail while no interface has V. The test `matrix` has removed V from its interface. */
static void calls_fail_without_interface_address(void) {
    expect_listed("bind", try_bind(tcp_socket(), ANY, 8006), "EADDRNOTAVAIL", "ok");
    expect_listed("connect", try_connect(tcp_socket(), EXTERNAL_ADDRESS, 7), "EADDRNOTAVAIL", "ok");
    int fd = udp_socket();
    struct address destination = make_address(EXTERNAL_ADDRESS, 7);
    expect_listed("sendto",
                  errno_text(sendto(fd, "x", 1, 0, (void *)&destination.bytes, destination.length)),
                  "EADDRNOTAVAIL", "ok");
}

/* With pass-when-missing, calls pass unchanged while no interface has V. */
static void calls_pass_without_interface_address(void) {
    int fd = tcp_socket();
    expect("bind", try_bind(fd, ANY, 8006), "ok");
    expect("kernel name", kernel_name(fd), "0.0.0.0:8006");
    fd = tcp_socket();
    expect("connect", try_connect(fd, EXTERNAL_ADDRESS, 7), "ok");
    expect("source seen by the peer", receive_text(fd), HOST_ADDRESS);
}

/* An unbound socket connects to an external destination from V. */
static void external_connect_uses_v(void) {
    int fd = tcp_socket();
    expect("connect", try_connect(fd, EXTERNAL_ADDRESS, 7), "ok");
    expect_listed("source seen by the peer", receive_text(fd), V, HOST_ADDRESS);
    expect_listed("getsockname", visible_name(fd), format_host_port(V, kernel_port(fd)),
                  format_host_port(HOST_ADDRESS, kernel_port(fd)));
    int is_option_set = -1;
    socklen_t length = sizeof is_option_set;
    getsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &is_option_set, &length);
    expect("IP_BIND_ADDRESS_NO_PORT", is_option_set ? "set" : "clear", "clear");
}

/* Connections to two destinations share local ports. The test `matrix` reduces the ephemeral range
 * to 100 ports, and runs two external listeners that keep their connections open. */
static void connections_share_local_ports(void) {
    for (int i = 0; i < 150; i++) {
        struct linger reset_on_close = {1, 0};
        int fd = tcp_socket();
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset_on_close, sizeof reset_on_close);
        expect("connect", try_connect(fd, EXTERNAL_ADDRESS, i % 2 ? 8007 : 8107), "ok");
    }
}

/* A socket whose connect failed can be bound to 127.0.0.1. */
static void bind_after_failed_connect_uses_l(void) {
    int fd = tcp_socket();
    expect("connect", try_connect(fd, EXTERNAL_ADDRESS, 8), "ECONNREFUSED");
    expect("bind", try_bind(fd, LOOPBACK, 8009), "ok");
    expect("getsockname", visible_name(fd), "127.0.0.1:8009");
    expect_listed("kernel name", kernel_name(fd), format_host_port(L, 8009), "127.0.0.1:8009");
}

/* A socket bound to the host's address keeps its port when it connects. */
static void connect_keeps_bound_port(void) {
    int fd = tcp_socket();
    enable_option(fd, SOL_SOCKET, SO_REUSEADDR);
    expect("bind", try_bind(fd, HOST_ADDRESS, 8010), "ok");
    expect("connect", try_connect(fd, EXTERNAL_ADDRESS, 7), "ok");
    expect_listed("getsockname", visible_name(fd), format_host_port(V, 8010),
                  format_host_port(HOST_ADDRESS, 8010));
    expect("connect again", try_connect(fd, EXTERNAL_ADDRESS, 7), "EISCONN");
}

/* Connects to a service, and checks the addresses at both ends. For a listed program,
 * `name_if_listed` and `peer_if_listed` are the local address and the peer address that the kernel
 * stores for the accepted socket. */
static void connect_and_check(int service, const char *host, int port, const char *name_if_listed,
                              const char *peer_if_listed) {
    int fd = tcp_socket();
    expect("connect", try_connect(fd, host, port), "ok");
    int local_port = kernel_port(fd);
    expect("getpeername", visible_peer(fd), format_host_port(LOOPBACK, port));
    expect_unprinted("getsockname", visible_name(fd), format_host_port(LOOPBACK, local_port));
    struct sockaddr_storage peer;
    socklen_t length = sizeof peer;
    int accepted = accept4(service, (void *)&peer, &length, SOCK_CLOEXEC);
    expect_unprinted("peer from accept4", format_address(&peer),
                     format_host_port(LOOPBACK, local_port));
    expect_unprinted("peer of the accepted socket", visible_peer(accepted),
                     format_host_port(LOOPBACK, local_port));
    expect("name of the accepted socket", visible_name(accepted), format_host_port(LOOPBACK, port));
    expect_listed("kernel name", kernel_name(accepted), format_host_port(name_if_listed, port),
                  format_host_port(LOOPBACK, port));
    if (is_listed &&
        strcmp(kernel_peer(accepted), format_host_port(peer_if_listed, local_port)) != 0) {
        printf("FAILED: kernel peer %s\n", kernel_peer(accepted));
        exit(1);
    }
}

/* A connect to 127.0.0.1 reaches the listener on L. Without a listener on L, the connect reaches
 * the listener on V. Without a listener of the session, the connect reaches the listener of the
 * host. */
static void loopback_connect_prefers_session(void) {
    connect_and_check(listen_on(LOOPBACK, 8011), LOOPBACK, 8011, L, LOOPBACK);
    connect_and_check(listen_on(ANY, 8111), LOOPBACK, 8111, V, L);
    /* The test `matrix` runs a listener of the host on 127.0.0.1:8211. The session has no listener
     * on this port. */
    int fd = tcp_socket();
    expect("connect to the host's service", try_connect(fd, LOOPBACK, 8211), "ok");
    expect("kernel peer after the connect", kernel_peer(fd), "127.0.0.1:8211");
    /* A connect to a port of own-ports (8311) never reaches the host, even if the session has no
     * listener. */
    expect_listed("connect to a port of own-ports", try_connect(tcp_socket(), LOOPBACK, 8311),
                  "ECONNREFUSED", "ok");
    /* A connect to a port of shared-ports never reaches the session. */
    expect("connect to a port of shared-ports", try_connect(tcp_socket(), LOOPBACK, 8411), "ok");
    expect("bind to a port of shared-ports", try_bind(tcp_socket(), LOOPBACK, 8411), "EADDRINUSE");
    expect("connect without any listener", try_connect(tcp_socket(), LOOPBACK, 8511),
           "ECONNREFUSED");
}

/* A connect to 0.0.0.0 has the same effect as a connect to 127.0.0.1. */
static void wildcard_connect_equals_loopback_connect(void) {
    connect_and_check(listen_on(LOOPBACK, 8012), ANY, 8012, L, LOOPBACK);
}

/* A connect with AF_UNSPEC disconnects the socket. */
static void unspecified_connect_disconnects(void) {
    int fd = udp_socket();
    expect("connect", try_connect(fd, EXTERNAL_ADDRESS, 7), "ok");
    struct sockaddr_storage unspecified = {.ss_family = AF_UNSPEC};
    expect("disconnect", errno_text(connect(fd, (void *)&unspecified, sizeof unspecified)), "ok");
    expect("getpeername", visible_peer(fd), "ENOTCONN");
}

/* A non-blocking connect returns EINPROGRESS. */
static void nonblocking_connect_is_in_progress(void) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    expect("connect", try_connect(fd, EXTERNAL_ADDRESS, 7), "EINPROGRESS");
    struct pollfd poll_fd = {fd, POLLOUT, 0};
    poll(&poll_fd, 1, 5000);
    expect_listed("getsockname", visible_name(fd), format_host_port(V, kernel_port(fd)),
                  format_host_port(HOST_ADDRESS, kernel_port(fd)));
}

/* The local address of a connection from an external client is V. */
static void external_client_connects_to_v(void) {
    int service = listen_on(ANY, 8019);
    /* When the test `matrix` reads this line, it connects from the external host. */
    printf("connect-to %s 8019\n", is_listed ? V : HOST_ADDRESS);
    fflush(stdout);
    int accepted = accept(service, NULL, NULL);
    expect_listed("local name of the accepted socket", visible_name(accepted),
                  format_host_port(V, 8019), format_host_port(HOST_ADDRESS, 8019));
    expect_listed("kernel name", kernel_name(accepted), format_host_port(V, 8019),
                  format_host_port(HOST_ADDRESS, 8019));
}

/* If a client is bound to 127.0.0.1, the session's service sees this address as the peer. The
 * listener of this row is non-blocking. */
static void loopback_client_is_visible_as_loopback(void) {
    int service = listen_on(LOOPBACK, 8020);
    fcntl(service, F_SETFL, O_NONBLOCK);
    struct sockaddr_storage peer;
    socklen_t length = sizeof peer;
    expect("accept", errno_text(accept(service, (void *)&peer, &length)), "EAGAIN");
    int fd = tcp_socket();
    enable_option(fd, SOL_SOCKET, SO_REUSEADDR);
    expect("bind", try_bind(fd, LOOPBACK, 8120), "ok");
    expect("connect", try_connect(fd, LOOPBACK, 8020), "ok");
    struct pollfd poll_fd = {service, POLLIN, 0};
    poll(&poll_fd, 1, 5000);
    int accepted = accept(service, (void *)&peer, &length);
    expect("peer from accept", format_address(&peer), "127.0.0.1:8120");
    expect_listed("kernel peer", kernel_peer(accepted), format_host_port(L, 8120),
                  "127.0.0.1:8120");
}

const struct row connect_rows[] = {
    {"4", socket_bound_to_wildcard_connects_anywhere},
    {"5-host-connect", host_address_connect_prefers_session},
    {"6", calls_fail_without_interface_address},
    {"6-pass", calls_pass_without_interface_address},
    {"7", external_connect_uses_v},
    {"7-ports", connections_share_local_ports},
    {"9", bind_after_failed_connect_uses_l},
    {"10", connect_keeps_bound_port},
    {"11", loopback_connect_prefers_session},
    {"12", wildcard_connect_equals_loopback_connect},
    {"13", unspecified_connect_disconnects},
    {"14", nonblocking_connect_is_in_progress},
    {"19", external_client_connects_to_v},
    {"20", loopback_client_is_visible_as_loopback},
    {NULL, NULL},
};
