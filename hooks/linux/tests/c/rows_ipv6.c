/* Tests the rows of the socket matrix for IPv6 sockets. See matrix.h. */
#include "matrix.h"

/* A bind to [::] is rewritten to ::ffff:V. With IPV6_V6ONLY, the bind is rewritten to V6. */
static void ipv6_wildcard_bind_uses_v(void) {
    int fd = tcp6_socket(), v6only_fd = tcp6_socket();
    char mapped[64];
    snprintf(mapped, sizeof mapped, "::ffff:%s", V);
    enable_option(fd, SOL_SOCKET, SO_REUSEADDR);
    expect("bind", try_bind(fd, "::", 8030), "ok");
    expect_listed("kernel name", kernel_name(fd), format_host_port(mapped, 8030), "[::]:8030");
    listen(fd, 1);
    int client = tcp_socket();
    expect("connect of an IPv4 client", try_connect(client, LOOPBACK, 8030), "ok");
    struct sockaddr_storage peer;
    socklen_t length = sizeof peer;
    int accepted = accept(fd, (void *)&peer, &length);
    expect_unprinted("peer from accept", format_address(&peer),
                     format_host_port("::ffff:127.0.0.1", kernel_port(client)));
    expect("name of the accepted socket", visible_name(accepted), "[::ffff:127.0.0.1]:8030");
    client = tcp6_socket();
    expect("connect of an IPv6 client", try_connect(client, "::1", 8030), "ok");
    expect("peer", visible_peer(client), "[::1]:8030");
    length = sizeof peer;
    accepted = accept(fd, (void *)&peer, &length);
    expect_unprinted("IPv6 peer from accept", format_address(&peer),
                     format_host_port("::1", kernel_port(client)));
    enable_option(v6only_fd, IPPROTO_IPV6, IPV6_V6ONLY);
    expect("bind of an IPV6_V6ONLY socket", try_bind(v6only_fd, "::", 8130), "ok");
    expect_listed("v6only kernel name", kernel_name(v6only_fd), format_host_port(V6, 8130),
                  "[::]:8130");
    fd = tcp6_socket();
    expect("connect to an external address", try_connect(fd, EXTERNAL_ADDRESS6, 7), "ok");
    expect_listed("source seen by the peer", receive_text(fd), V6, HOST_ADDRESS6);
}

/* In a session without V6, a wildcard listener with IPV6_V6ONLY is bound to L6, so only the session
 * reaches this listener. An IPv4 wildcard listener can use the same port. */
static void v6only_wildcard_bind_without_ipv6_address_uses_l6(void) {
    char mapped[64];
    snprintf(mapped, sizeof mapped, "::ffff:%s", L6);
    int fd = tcp6_socket(), client = tcp6_socket();
    listen_on(ANY, 8230);
    enable_option(fd, IPPROTO_IPV6, IPV6_V6ONLY);
    enable_option(fd, SOL_SOCKET, SO_REUSEADDR);
    expect("bind", try_bind(fd, "::", 8230), "ok");
    expect_listed("kernel name", kernel_name(fd), format_host_port(mapped, 8230), "[::]:8230");
    expect("listen", errno_text(listen(fd, 1)), "ok");
    expect("connect", try_connect(client, "::1", 8230), "ok");
    expect("peer", visible_peer(client), "[::1]:8230");
    struct sockaddr_storage peer;
    socklen_t length = sizeof peer;
    int accepted = accept(fd, (void *)&peer, &length);
    expect_unprinted("peer from accept", format_address(&peer),
                     format_host_port("::1", kernel_port(client)));
    expect("name of the accepted socket", visible_name(accepted), "[::1]:8230");
}

/* In a session without V6, and under a rule without the feature loopback, no address can replace
 * [::] for an IPV6_V6ONLY socket. A bind to [::] and a fixed port fails, because two sessions must
 * not share the port. A bind to port 0 passes. */
static void v6only_wildcard_bind_without_session_address_fails(void) {
    int fd = tcp6_socket(), ephemeral_fd = tcp6_socket();
    enable_option(fd, IPPROTO_IPV6, IPV6_V6ONLY);
    enable_option(ephemeral_fd, IPPROTO_IPV6, IPV6_V6ONLY);
    expect_listed("bind", try_bind(fd, "::", 8330), "EADDRNOTAVAIL", "ok");
    expect("bind without a port", try_bind(ephemeral_fd, "::", 0), "ok");
}

/* An IPV6_V6ONLY socket rejects IPv4-mapped addresses. */
static void v6only_socket_rejects_mapped_addresses(void) {
    int fd = tcp6_socket();
    enable_option(fd, IPPROTO_IPV6, IPV6_V6ONLY);
    expect("bind", try_bind(fd, "::ffff:127.0.0.1", 8031), "EINVAL");
    expect("connect", try_connect(fd, "::ffff:10.99.5.2", 7), "ENETUNREACH");
}

/* A bind or connect to ::1 is rewritten to ::ffff:L6. */
static void ipv6_loopback_uses_l6(void) {
    char mapped[64];
    snprintf(mapped, sizeof mapped, "::ffff:%s", L6);
    int fd = tcp6_socket(), ipv4_listener = listen_on(LOOPBACK, 8032);
    enable_option(fd, IPPROTO_IPV6, IPV6_V6ONLY);
    enable_option(fd, SOL_SOCKET, SO_REUSEADDR);
    expect("bind", try_bind(fd, "::1", 8032), "ok");
    expect_listed("kernel name", kernel_name(fd), format_host_port(mapped, 8032), "[::1]:8032");
    expect("getsockname", visible_name(fd), "[::1]:8032");
    expect("listen", errno_text(listen(fd, 1)), "ok");
    int client = tcp6_socket();
    enable_option(client, IPPROTO_IPV6, IPV6_V6ONLY);
    expect("connect", try_connect(client, "::1", 8032), "ok");
    expect("getpeername", visible_peer(client), "[::1]:8032");
    struct sockaddr_storage peer;
    socklen_t length = sizeof peer;
    int accepted = accept(fd, (void *)&peer, &length);
    expect("name of the accepted socket", visible_name(accepted), "[::1]:8032");
    expect_unprinted("peer from accept", format_address(&peer),
                     format_host_port("::1", kernel_port(client)));
    expect_unprinted("client name", visible_name(client),
                     format_host_port("::1", kernel_port(client)));
    close(ipv4_listener);
    expect("connect without a listener", try_connect(tcp6_socket(), "::1", 8132), "ECONNREFUSED");
}

/* Under a rule without the feature virtual-ip, a client that is bound to [::] can connect to the
 * session's service on ::1. */
static void wildcard_client_connects_without_virtual_ip(void) {
    int fd = tcp6_socket(), client = tcp6_socket();
    enable_option(fd, SOL_SOCKET, SO_REUSEADDR);
    expect("bind", try_bind(fd, "::1", 8032), "ok");
    expect("listen", errno_text(listen(fd, 1)), "ok");
    expect("bind the client", try_bind(client, "::", 8033), "ok");
    expect("connect", try_connect(client, "::1", 8032), "ok");
    expect("client name", visible_name(client), "[::1]:8033");
    expect("getpeername", visible_peer(client), "[::1]:8032");
    struct sockaddr_storage peer;
    socklen_t length = sizeof peer;
    int accepted = accept(fd, (void *)&peer, &length);
    expect("peer from accept", format_address(&peer), "[::1]:8033");
    expect("name of the accepted socket", visible_name(accepted), "[::1]:8032");
    expect("peer", visible_peer(accepted), "[::1]:8033");
}

/* In a listed program, an IPv6 socket that is bound to an address of the session reaches only
 * destinations of the same family. See docs/compatibility.md. */
static void bound_ipv6_socket_has_one_family(void) {
    listen_on("::1", 8332), listen_on("::", 8432);
    const char *bound_hosts[] = {"::", "::", "::1", "::1", "::1"};
    const char *destinations[] = {EXTERNAL_ADDRESS6, "::1", "::1", "::1", "::1"};
    /* The test `matrix` runs a listener of the host on [::1]:8532. */
    const int ports[] = {7, 8532, 8332, 8432, 8532};
    const char *listed_results[] = {"EAFNOSUPPORT", "ECONNREFUSED", "ok", "ok", "ECONNREFUSED"};
    for (int i = 0; i < 5; i++) {
        int fd = tcp6_socket();
        expect("bind", try_bind(fd, bound_hosts[i], 0), "ok");
        expect_listed("connect", try_connect(fd, destinations[i], ports[i]), listed_results[i],
                      "ok");
    }
    /* The program binds the first UDP socket to [::]:0. The hook binds the second UDP socket to
     * ::ffff:V before its first datagram. */
    struct address destination = make_address(EXTERNAL_ADDRESS6, 7),
                   mapped_destination = make_address("::ffff:" EXTERNAL_ADDRESS, 7);
    int fd = udp6_socket();
    expect("bind", try_bind(fd, "::", 0), "ok");
    expect("sendto",
           errno_text(sendto(fd, "x", 1, 0, (void *)&destination.bytes, destination.length)), "ok");
    fd = udp6_socket();
    long send_result =
        sendto(fd, "x", 1, 0, (void *)&mapped_destination.bytes, mapped_destination.length);
    expect("sendto first", errno_text(send_result), "ok");
    expect_listed("sendto",
                  errno_text(sendto(fd, "x", 1, 0, (void *)&destination.bytes, destination.length)),
                  "EAFNOSUPPORT", "ok");
}

/* Exchanges a request and an answer between a server on [::1]:port and a client. */
static void exchange_over_ipv6_loopback(int client, int port) {
    int server = udp6_socket();
    expect("bind", try_bind(server, "::1", port), "ok");
    struct address destination = make_address("::1", port);
    expect("request",
           errno_text(sendto(client, "x", 1, 0, (void *)&destination.bytes, destination.length)),
           "ok");
    struct sockaddr_storage source;
    socklen_t length = sizeof source;
    char byte;
    expect("recvfrom", errno_text(recvfrom(server, &byte, 1, 0, (void *)&source, &length)), "ok");
    expect_unprinted("source", format_address(&source),
                     format_host_port("::1", kernel_port(client)));
    expect("answer", errno_text(sendto(server, "y", 1, 0, (void *)&source, length)), "ok");
    struct pollfd poll_fd = {client, POLLIN, 0};
    expect("answer arrives", poll(&poll_fd, 1, 5000) == 1 ? "yes" : "no", "yes");
    length = sizeof source;
    expect("recvfrom the answer",
           errno_text(recvfrom(client, &byte, 1, 0, (void *)&source, &length)), "ok");
    expect("source of the answer", format_address(&source), format_host_port("::1", port));
}

/* A server on ::1 answers a client that is bound to [::]:0. */
static void ipv6_loopback_answer_reaches_wildcard_client(void) {
    int client = udp6_socket();
    expect("bind the client", try_bind(client, "::", 0), "ok");
    exchange_over_ipv6_loopback(client, 8732);
}

/* Under a rule without the feature virtual-ip, a client that is bound to [::]:0 keeps the wildcard
 * address, even with IPV6_V6ONLY. */
static void ipv6_loopback_answer_needs_no_virtual_ip(void) {
    ipv6_loopback_answer_reaches_wildcard_client();
    int v6only_fd = udp6_socket();
    enable_option(v6only_fd, IPPROTO_IPV6, IPV6_V6ONLY);
    expect("bind the IPV6_V6ONLY client", try_bind(v6only_fd, "::", 0), "ok");
    expect_unprinted("kernel name", kernel_name(v6only_fd),
                     format_host_port("::", kernel_port(v6only_fd)));
    exchange_over_ipv6_loopback(v6only_fd, 8733);
}

static const char *v6only_option(int fd) {
    int value = -1;
    socklen_t length = sizeof value;
    getsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &value, &length);
    return value == 1 ? "1" : value == 0 ? "0" : "error";
}

/* Sends with MSG_FASTOPEN on an IPV6_V6ONLY socket. Nothing listens on the port, so the send fails.
 * IPV6_V6ONLY must stay set. */
static void failed_fast_open_keeps_v6only(int uses_sendmmsg) {
    int fd = tcp6_socket();
    char data[] = "x";
    struct address destination = make_address("::1", 8311);
    struct iovec iov = {data, 1};
    struct mmsghdr message = {.msg_hdr = {.msg_name = &destination.bytes,
                                          .msg_namelen = destination.length,
                                          .msg_iov = &iov,
                                          .msg_iovlen = 1}};
    enable_option(fd, IPPROTO_IPV6, IPV6_V6ONLY);
    long result = uses_sendmmsg ? sendmmsg(fd, &message, 1, MSG_FASTOPEN)
                                : sendmsg(fd, &message.msg_hdr, MSG_FASTOPEN);
    expect(uses_sendmmsg ? "sendmmsg" : "sendmsg", errno_text(result), "ECONNREFUSED");
    expect("IPV6_V6ONLY", v6only_option(fd), "1");
}

/* A connect that fails leaves IPV6_V6ONLY as the program set it. Port 8311 is one of own-ports, so
 * the connect is rewritten although nothing listens. */
static void failed_connect_keeps_v6only(void) {
    int fd = tcp6_socket(), server = tcp6_socket();
    enable_option(fd, IPPROTO_IPV6, IPV6_V6ONLY);
    expect("connect", try_connect(fd, "::1", 8311), "ECONNREFUSED");
    expect("IPV6_V6ONLY", v6only_option(fd), "1");
    failed_fast_open_keeps_v6only(0);
    failed_fast_open_keeps_v6only(1);
    enable_option(server, SOL_SOCKET, SO_REUSEADDR);
    expect("bind", try_bind(server, "::1", 8311), "ok");
    expect("listen", errno_text(listen(server, 1)), "ok");
    expect("connect again", try_connect(fd, "::1", 8311), "ok");
    expect("peer", visible_peer(fd), "[::1]:8311");
}

/* A connect from a socket that is bound to ::1 fails with ECONNREFUSED if the session has no
 * listener on the port. */
static void bound_socket_is_refused_without_a_listener(void) {
    int fd = tcp6_socket();
    expect("bind", try_bind(fd, "::1", 8734), "ok");
    expect("connect", try_connect(fd, "::1", 8735), "ECONNREFUSED");
}

/* A UDP socket that is bound to [::]:0 can send to an external destination of either family. The
 * first external destination determines the socket's address. The port stays the same. */
static void ephemeral_ipv6_datagram_socket_reaches_both_families(void) {
    const char *hosts[] = {EXTERNAL_ADDRESS6, "::ffff:" EXTERNAL_ADDRESS}, *sources[] = {V6, V},
               *host_sources[] = {HOST_ADDRESS6, HOST_ADDRESS};
    int server = udp6_socket();
    expect("bind the server", try_bind(server, "::1", 8430), "ok");
    for (int i = 0; i < 4; i++) {
        int fd = udp6_socket(), is_connected = i >= 2;
        expect("bind", try_bind(fd, "::", 0), "ok");
        int port = kernel_port(fd);
        expect_unprinted("name", visible_name(fd), format_host_port("::", port));
        struct address loopback = make_address("::1", 8430),
                       destination = make_address(hosts[i % 2], 7),
                       link_local_address = make_link_local(LINK_LOCAL, 7);
        sendto(fd, "x", 1, 0, (void *)&loopback.bytes, loopback.length);
        struct sockaddr_storage source;
        socklen_t length = sizeof source;
        char byte;
        expect("recvfrom", errno_text(recvfrom(server, &byte, 1, 0, (void *)&source, &length)),
               "ok");
        expect_unprinted("source", format_address(&source), format_host_port("::1", port));
        expect("sendto a link-local address",
               errno_text(sendto(fd, "x", 1, 0, (void *)&link_local_address.bytes,
                                 link_local_address.length)),
               "ok");
        if (is_connected) expect("connect", try_connect(fd, hosts[i % 2], 7), "ok");
        long send_result =
            is_connected ? send(fd, "x", 1, 0)
                         : sendto(fd, "x", 1, 0, (void *)&destination.bytes, destination.length);
        expect("sendto", errno_text(send_result), "ok");
        expect_listed("source seen by the peer", receive_text(fd), sources[i % 2],
                      host_sources[i % 2]);
        expect_unprinted("port", kernel_port(fd) == port ? "kept" : "changed", "kept");
    }
}

/* IPv4-mapped addresses are rewritten and stay mapped. */
static void mapped_addresses_stay_mapped(void) {
    char mapped[64];
    snprintf(mapped, sizeof mapped, "::ffff:%s", L);
    int fd = tcp6_socket(), client = tcp6_socket();
    enable_option(fd, SOL_SOCKET, SO_REUSEADDR);
    expect("bind", try_bind(fd, "::ffff:127.0.0.1", 8033), "ok");
    expect_listed("kernel name", kernel_name(fd), format_host_port(mapped, 8033),
                  "[::ffff:127.0.0.1]:8033");
    expect("getsockname", visible_name(fd), "[::ffff:127.0.0.1]:8033");
    listen(fd, 1);
    expect("connect", try_connect(client, "::ffff:127.0.0.1", 8033), "ok");
    expect("getpeername", visible_peer(client), "[::ffff:127.0.0.1]:8033");
    client = tcp6_socket();
    expect("connect to an external address", try_connect(client, "::ffff:10.99.5.2", 7), "ok");
    expect_listed("source seen by the peer", receive_text(client), V, HOST_ADDRESS);
}

const struct row ipv6_rows[] = {
    {"30", ipv6_wildcard_bind_uses_v},
    {"30-udp", ephemeral_ipv6_datagram_socket_reaches_both_families},
    {"30-v6only", v6only_wildcard_bind_without_ipv6_address_uses_l6},
    {"30-refused", v6only_wildcard_bind_without_session_address_fails},
    {"31", v6only_socket_rejects_mapped_addresses},
    {"32", ipv6_loopback_uses_l6},
    {"32-loopback", wildcard_client_connects_without_virtual_ip},
    {"32-bound", bound_ipv6_socket_has_one_family},
    {"32-answers", ipv6_loopback_answer_reaches_wildcard_client},
    {"32-answers-loopback", ipv6_loopback_answer_needs_no_virtual_ip},
    {"32-v6only", failed_connect_keeps_v6only},
    {"32-refused", bound_socket_is_refused_without_a_listener},
    {"33", mapped_addresses_stay_mapped},
    {NULL, NULL},
};
