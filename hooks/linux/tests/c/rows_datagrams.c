/* Tests the rows of the socket matrix for datagrams. See matrix.h. */
#include "matrix.h"

#include <signal.h>
#include <sys/wait.h>

/* Exchanges a request and a reply, and checks the visible source addresses. The client sends its
 * request with connect and send, or with sendto. */
static void exchange_datagrams(int server, int client, const char *host, int port,
                               int is_connected) {
    struct address destination = make_address(host, port);
    if (is_connected) {
        expect("connect", try_connect(client, host, port), "ok");
        expect("getpeername", visible_peer(client), format_host_port(LOOPBACK, port));
        expect("send", errno_text(send(client, "ask", 3, 0)), "ok");
    } else {
        expect(
            "sendto",
            errno_text(sendto(client, "ask", 3, 0, (void *)&destination.bytes, destination.length)),
            "ok");
    }
    struct sockaddr_storage source;
    socklen_t length = sizeof source;
    char data[16];
    expect("recvfrom", errno_text(recvfrom(server, data, 16, 0, (void *)&source, &length)), "ok");
    expect_unprinted("source", format_address(&source),
                     format_host_port(LOOPBACK, kernel_port(client)));
    expect("reply", errno_text(sendto(server, "answer", 6, 0, (void *)&source, length)), "ok");
    length = sizeof source;
    struct pollfd poll_fd = {client, POLLIN, 0};
    expect("datagram arrives", poll(&poll_fd, 1, 5000) == 1 ? "yes" : "no", "yes");
    expect("recvfrom", errno_text(recvfrom(client, data, 16, 0, (void *)&source, &length)), "ok");
    expect("sender", format_address(&source), format_host_port(LOOPBACK, port));
}

/* A datagram to 127.0.0.1 reaches the session's service. The visible source of the answer is
 * 127.0.0.1. */
static void loopback_datagrams_reach_session(void) {
    int loopback_fd = udp_socket(), wildcard_fd = udp_socket();
    expect("bind", try_bind(loopback_fd, LOOPBACK, 8011), "ok");
    exchange_datagrams(loopback_fd, udp_socket(), LOOPBACK, 8011, 1);
    exchange_datagrams(loopback_fd, udp_socket(), LOOPBACK, 8011, 0);
    expect("bind any", try_bind(wildcard_fd, ANY, 8111), "ok");
    exchange_datagrams(wildcard_fd, udp_socket(), LOOPBACK, 8111, 1);
    exchange_datagrams(wildcard_fd, udp_socket(), LOOPBACK, 8111, 0);
}

/* UDP-Lite and UDP have separate ports. The hook looks for a service of the session only among the
 * sockets of the same protocol. */
static void udplite_datagrams_reach_session(void) {
    int server = socket(AF_INET, SOCK_DGRAM, IPPROTO_UDPLITE), udp_fd = udp_socket();
    if (server < 0 && errno == EPROTONOSUPPORT) {
        printf("this kernel has no UDP-Lite\n");
        return;
    }
    expect("bind", try_bind(server, LOOPBACK, 8611), "ok");
    expect_listed("kernel name", kernel_name(server), format_host_port(L, 8611), "127.0.0.1:8611");
    expect("bind a UDP socket", try_bind(udp_fd, LOOPBACK, 8711), "ok");
    for (int i = 0; i < 2; i++)
        exchange_datagrams(server, socket(AF_INET, SOCK_DGRAM, IPPROTO_UDPLITE), LOOPBACK, 8611, i);
    int fd = socket(AF_INET, SOCK_DGRAM, IPPROTO_UDPLITE);
    expect("connect", try_connect(fd, LOOPBACK, 8711), "ok");
    expect_unprinted("kernel peer", kernel_peer(fd), "127.0.0.1:8711");
}

/* An unbound UDP socket sends to external destinations from V. */
static void external_datagram_uses_v(void) {
    int fd = udp_socket();
    struct address destination = make_address(EXTERNAL_ADDRESS, 7);
    expect("sendto",
           errno_text(sendto(fd, "x", 1, 0, (void *)&destination.bytes, destination.length)), "ok");
    expect_listed("source seen by the peer", receive_text(fd), V, HOST_ADDRESS);
    expect_listed("kernel name", kernel_name(fd), format_host_port(V, kernel_port(fd)),
                  format_host_port(ANY, kernel_port(fd)));
    expect("second bind", try_bind(fd, ANY, 8022), "EINVAL");
    /* For a loopback destination, the kernel binds only the port and not the address. */
    int service = udp_socket();
    expect("bind", try_bind(service, LOOPBACK, 8122), "ok");
    fd = udp_socket();
    destination = make_address(LOOPBACK, 8122);
    expect("sendto loopback",
           errno_text(sendto(fd, "x", 1, 0, (void *)&destination.bytes, destination.length)), "ok");
    expect_unprinted("kernel name after the send", kernel_name(fd),
                     format_host_port(ANY, kernel_port(fd)));
    expect("sendto on tcp",
           errno_text(sendto(tcp_socket(), "x", 1, MSG_NOSIGNAL, (void *)&destination.bytes,
                             destination.length)),
           "EPIPE");
}

/* Sends a datagram to the external service, and returns the source address that the service
 * sees. */
static const char *source_seen_by_peer(int fd) {
    struct address destination = make_address(EXTERNAL_ADDRESS, 7);
    expect("sendto",
           errno_text(sendto(fd, "x", 1, 0, (void *)&destination.bytes, destination.length)), "ok");
    return receive_text(fd);
}

static void disconnect(int fd) {
    struct sockaddr_storage unspecified = {.ss_family = AF_UNSPEC};
    expect("disconnect", errno_text(connect(fd, (void *)&unspecified, sizeof unspecified)), "ok");
}

/* Each datagram of a listed program to the external host has the source V or V6, unless a direct
 * system call bound or connected the socket. */
static void every_datagram_has_right_source(void) {
    int fd = udp_socket();
    for (int i = 0; i < 3; i++)
        expect_listed("source seen by the peer", source_seen_by_peer(fd), V, HOST_ADDRESS);
    expect_listed("source of a duplicate", source_seen_by_peer(dup(fd)), V, HOST_ADDRESS);
    disconnect(fd);
    expect_listed("source after the disconnect", source_seen_by_peer(fd), V, HOST_ADDRESS);
    expect("second bind", try_bind(fd, ANY, 8022), "EINVAL");
    /* A direct system call binds the socket. */
    struct address wildcard = make_address(ANY, 0),
                   external_destination = make_address(EXTERNAL_ADDRESS, 7);
    int directly_bound_fd = udp_socket();
    expect("bind",
           errno_text(syscall(SYS_bind, directly_bound_fd, &wildcard.bytes, wildcard.length)),
           "ok");
    for (int i = 0; i < 3; i++)
        expect("source seen by the peer", source_seen_by_peer(directly_bound_fd), HOST_ADDRESS);
    /* The kernel binds the socket on connect, and unbinds it on disconnect. */
    int connected_fd = udp_socket();
    long result = syscall(SYS_connect, connected_fd, &external_destination.bytes,
                          external_destination.length);
    expect("connect", errno_text(result), "ok");
    for (int i = 0; i < 3; i++)
        expect("source seen by the peer", source_seen_by_peer(connected_fd), HOST_ADDRESS);
    disconnect(connected_fd);
    expect("unbound", visible_name(connected_fd), "0.0.0.0:0");
    expect_listed("source seen after the disconnect", source_seen_by_peer(connected_fd), V,
                  HOST_ADDRESS);
    expect_listed("source seen by the peer again", source_seen_by_peer(connected_fd), V,
                  HOST_ADDRESS);
    /* The hook marks bound sockets with a write-lifetime hint. It does not change a hint that the
     * program has set. */
    uint64_t hint = RWH_WRITE_LIFE_SHORT;
    int hinted_fd = udp_socket();
    expect("hint", errno_text(fcntl(hinted_fd, F_SET_RW_HINT, &hint)), "ok");
    for (int i = 0; i < 3; i++)
        expect_listed("source seen by the peer", source_seen_by_peer(hinted_fd), V, HOST_ADDRESS);
    expect("hint", errno_text(fcntl(hinted_fd, F_GET_RW_HINT, &hint)), "ok");
    expect("hint is kept", hint == RWH_WRITE_LIFE_SHORT ? "yes" : "no", "yes");
    /* The datagrams of an IPv6 socket have the source V6. */
    int ipv6_fd = udp6_socket();
    struct address ipv6_destination = make_address(EXTERNAL_ADDRESS6, 7);
    for (int i = 0; i < 3; i++) {
        expect("sendto",
               errno_text(sendto(ipv6_fd, "x", 1, 0, (void *)&ipv6_destination.bytes,
                                 ipv6_destination.length)),
               "ok");
        expect_listed("source seen by the peer", receive_text(ipv6_fd), V6, HOST_ADDRESS6);
    }
    /* The socket `fd` is already bound, so a connect does not bind it again. */
    expect("connect", try_connect(fd, EXTERNAL_ADDRESS, 7), "ok");
    expect_listed("visible name", visible_name(fd), format_host_port(V, kernel_port(fd)),
                  format_host_port(HOST_ADDRESS, kernel_port(fd)));
}

/* An IPv6 UDP socket sends to an IPv4 destination (AF_INET) from V. */
static void mapped_destination_uses_v(void) {
    int fd = udp6_socket(), connected_fd = udp6_socket(), v6only_fd = udp6_socket(),
        service = udp_socket();
    expect_listed("source seen by the peer", source_seen_by_peer(fd), V, HOST_ADDRESS);
    expect_listed("source seen by the peer again", source_seen_by_peer(fd), V, HOST_ADDRESS);
    expect("connect", try_connect(connected_fd, EXTERNAL_ADDRESS, 7), "ok");
    expect("send", errno_text(send(connected_fd, "x", 1, 0)), "ok");
    expect_listed("source seen by the peer", receive_text(connected_fd), V, HOST_ADDRESS);
    enable_option(v6only_fd, IPPROTO_IPV6, IPV6_V6ONLY);
    expect("connect of an IPV6_V6ONLY socket", try_connect(v6only_fd, EXTERNAL_ADDRESS, 7),
           "EAFNOSUPPORT");
    expect("connect of a stream", try_connect(tcp6_socket(), EXTERNAL_ADDRESS, 7), "EINVAL");
    /* The destination is a service of the session. */
    fd = udp6_socket();
    expect("bind", try_bind(service, ANY, 8222), "ok");
    expect("connect", try_connect(fd, LOOPBACK, 8222), "ok");
    expect("send", errno_text(send(fd, "x", 1, 0)), "ok");
    struct sockaddr_storage source;
    socklen_t length = sizeof source;
    char byte;
    expect("recvfrom", errno_text(recvfrom(service, &byte, 1, 0, (void *)&source, &length)), "ok");
    expect_unprinted("source", format_address(&source),
                     format_host_port(LOOPBACK, kernel_port(fd)));
}

/* A socket bound to an address without a port is not treated as unbound. */
static void portless_binding_is_kept(void) {
    int fd = udp_socket(), disconnected_fd = udp_socket();
    enable_option(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT);
    expect("bind", try_bind(fd, "127.0.0.53", 0), "ok");
    expect("name", visible_name(fd), "127.0.0.53:0");
    expect("connect", try_connect(fd, EXTERNAL_ADDRESS, 7), "EINVAL");
    expect("address is kept", strstr(kernel_name(fd), "127.0.0.53:") ? "yes" : "no", "yes");
    expect("bind", try_bind(disconnected_fd, "127.0.0.53", 0), "ok");
    expect("connect", try_connect(disconnected_fd, "127.0.0.54", 8122), "ok");
    disconnect(disconnected_fd);
    expect("name", visible_name(disconnected_fd), "127.0.0.53:0");
    expect("connect", try_connect(disconnected_fd, EXTERNAL_ADDRESS, 7), "EINVAL");
}

/* Datagrams of a process that dropped root have the source V. The kernel does not allow this
 * process to set the write-lifetime hint of a socket that root created. So the hook cannot mark
 * such a socket as bound. */
static void source_is_right_without_privileges(void) {
    int fd = udp_socket(), marked_fd = udp_socket();
    expect_listed("source before setuid", source_seen_by_peer(marked_fd), V, HOST_ADDRESS);
    expect("setuid", errno_text(setuid(65534)), "ok");
    for (int i = 0; i < 3; i++)
        expect_listed("source seen by the peer", source_seen_by_peer(fd), V, HOST_ADDRESS);
    for (int i = 0; i < 2; i++)
        expect_listed("source seen by the peer", source_seen_by_peer(marked_fd), V, HOST_ADDRESS);
    for (int i = 0; i < 2; i++)
        expect_listed("source of an unmarked socket", source_seen_by_peer(udp_socket()), V,
                      HOST_ADDRESS);
    uint64_t hint = RWH_WRITE_LIFE_SHORT;
    expect("hint", errno_text(fcntl(fd, F_SET_RW_HINT, &hint)), "EPERM");
}

/* A datagram from the session's loopback address has the visible source 127.0.0.1. */
static void loopback_datagram_has_loopback_source(void) {
    int service = udp_socket(), fd = udp_socket();
    expect("bind", try_bind(service, LOOPBACK, 8025), "ok");
    expect("bind client", try_bind(fd, LOOPBACK, 8125), "ok");
    struct address destination = make_address(LOOPBACK, 8025);
    expect("sendto",
           errno_text(sendto(fd, "x", 1, 0, (void *)&destination.bytes, destination.length)), "ok");
    struct sockaddr_storage source;
    socklen_t length = sizeof source;
    char data[4];
    expect("recvfrom", errno_text(recvfrom(service, data, 4, 0, (void *)&source, &length)), "ok");
    expect("source", format_address(&source), "127.0.0.1:8125");
    expect("sendto for a recvfrom without a buffer",
           errno_text(sendto(fd, "y", 1, 0, (void *)&destination.bytes, destination.length)), "ok");
    expect("recvfrom without a buffer", errno_text(recvfrom(service, data, 4, 0, NULL, NULL)),
           "ok");
}

ssize_t __recvfrom_chk(int, void *, size_t, size_t, int, struct sockaddr *, socklen_t *);

/* __recvfrom_chk behaves like recvfrom. With _FORTIFY_SOURCE, recvfrom becomes a call of
 * __recvfrom_chk if the compiler knows the buffer's size, but cannot prove that the length fits. */
static void fortified_recvfrom_acts_like_recvfrom(void) {
    int service = udp_socket(), fd = udp_socket();
    expect("bind", try_bind(service, LOOPBACK, 8225), "ok");
    expect("bind client", try_bind(fd, LOOPBACK, 8325), "ok");
    struct address destination = make_address(LOOPBACK, 8225);
    struct sockaddr_storage source;
    socklen_t length = sizeof source;
    char bytes[4];
    expect("sendto",
           errno_text(sendto(fd, "x", 1, 0, (void *)&destination.bytes, destination.length)), "ok");
    errno = EDOM;
    expect("recvfrom",
           __recvfrom_chk(service, bytes, 2, sizeof bytes, 0, (void *)&source, &length) == 1
               ? "1"
               : "other",
           "1");
    expect("errno", strerrorname_np(errno), "EDOM");
    expect("source", format_address(&source), "127.0.0.1:8325");
    fflush(stdout);
    /* A length that exceeds the buffer aborts the program. The hook does not change this. */
    int status = 0;
    pid_t child = fork();
    if (child == 0) {
        close(2);
        __recvfrom_chk(service, bytes, 9, sizeof bytes, MSG_DONTWAIT, (void *)&source, &length);
        _exit(0);
    }
    waitpid(child, &status, 0);
    expect("oversized length",
           WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT ? "abort" : "other", "abort");
}

const struct row datagram_rows[] = {
    {"11b", loopback_datagrams_reach_session},
    {"11b-udplite", udplite_datagrams_reach_session},
    {"22", external_datagram_uses_v},
    {"22-bound-or-not", every_datagram_has_right_source},
    {"22-families", mapped_destination_uses_v},
    {"22-portless", portless_binding_is_kept},
    {"22-dropped-privileges", source_is_right_without_privileges},
    {"25", loopback_datagram_has_loopback_source},
    {"25-fortified", fortified_recvfrom_acts_like_recvfrom},
    {NULL, NULL},
};
