/* Rows on sockets that come from another process, and on what the kernel keeps with a socket: what
 * a program knows of its own sockets does not help there. See matrix.h. */
#include "matrix.h"

#include <sys/wait.h>

#define LOOPBACK "127.0.0.1"
#define ANY "0.0.0.0"

/* Starts this program again with these arguments, and `fd` as descriptor 10. */
static pid_t spawn_helper(int fd, const char *mode, const char *host, int port) {
    char number[16];
    snprintf(number, sizeof number, "%d", port);
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        if (fd >= 0 && dup2(fd, 10) < 0) _exit(3);
        execl("/proc/self/exe", "helper", mode, host, number, NULL);
        _exit(4);
    }
    return child;
}
static void expect_success(pid_t child) {
    int status;
    waitpid(child, &status, 0);
    expect("the other process", status == 0 ? "ok" : "failed", "ok");
}

/* Both ends of a socket must be shown on this address. */
static void expect_both_ends(int fd, const char *host) {
    expect_quietly("getsockname", visible_name(fd), format_host_port(host, kernel_port(fd)));
    const char *peer = kernel_peer(fd);
    expect_quietly("getpeername", visible_peer(fd),
                   format_host_port(host, atoi(strrchr(peer, ':') + 1)));
}

static void send_fd(int channel, int fd) {
    char byte = 0, control[CMSG_SPACE(sizeof fd)] = {0};
    struct iovec part = {&byte, 1};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control,
                             .msg_controllen = sizeof control};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(header), &fd, sizeof fd);
    expect_quietly("pass", errno_text(sendmsg(channel, &message, 0)), "ok");
}
static int receive_fd(int channel) {
    int fd = -1;
    char byte, control[CMSG_SPACE(sizeof fd)];
    struct iovec part = {&byte, 1};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control,
                             .msg_controllen = sizeof control};
    expect_quietly("take", errno_text(recvmsg(channel, &message, 0)), "ok");
    memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof fd);
    return fd;
}

/* Waits until the other process has done something, or tells it. */
static void wait_for_byte(int channel) {
    char byte;
    expect_quietly("wait", read(channel, &byte, 1) == 1 ? "ok" : "ended", "ok");
}
static void send_byte(int channel) {
    expect_quietly("tell", write(channel, "x", 1) == 1 ? "ok" : "failed", "ok");
}

/* What the program does that is started again: descriptor 10 is what it was handed. */
int run_helper(const char *mode, const char *host, int port) {
    int fd = -1;
    if (strcmp(mode, "connect") == 0) {
        fd = strchr(host, ':') ? tcp6() : tcp();
        expect_quietly("connect", try_connect(fd, host, port), "ok");
        expect_both_ends(fd, host);
    } else if (strcmp(mode, "bind-connect") == 0) {
        fd = tcp6();
        expect_quietly("bind", try_bind(fd, "::", 0), "ok");
        expect_quietly("connect", try_connect(fd, host, port), "ok");
        expect_both_ends(fd, host);
    } else if (strcmp(mode, "check-names") == 0) {
        expect_both_ends(10, host);
        return 0;
    } else if (strcmp(mode, "check-fd-300") == 0) {
        expect_both_ends(300, host);
        return 0;
    } else if (strcmp(mode, "check-received") == 0) {
        send_byte(10);
        expect_both_ends(receive_fd(10), host);
        return 0;
    } else if (strcmp(mode, "connect-received") == 0) {
        fd = receive_fd(10);
        expect_quietly("connect", try_connect(fd, host, port), "ok");
        send_byte(10);
    } else if (strcmp(mode, "check-after-connect") == 0) {
        /* Descriptor 11 was handed unconnected. */
        send_byte(10);
        wait_for_byte(10);
        expect_both_ends(11, host);
        return 0;
    } else if (strcmp(mode, "bind-raw") == 0) {
        expect_quietly("bind", try_bind(10, host, port), "ok");
        expect_quietly("kernel", strstr(kernel_name(10), host) ? host : kernel_name(10), host);
        return 0;
    } else {
        return -1;
    }
    /* The other end looks at it first. */
    char end;
    return recv(fd, &end, 1, 0) != 0;
}

/* Nobody wants to know who is accepted. */
static void row_20_null_address(void) {
    int service = listen_on(ANY, 8220), own = listen_on(LOOPBACK, 8320);
    pid_t child = spawn_helper(-1, "connect", LOOPBACK, 8320);
    int accepted = accept(own, NULL, NULL);
    expect_both_ends(accepted, LOOPBACK);
    close(accepted);
    expect_success(child);
    child = spawn_helper(-1, "connect", LOOPBACK, 8220);
    accepted = accept4(service, NULL, NULL, SOCK_CLOEXEC);
    expect_both_ends(accepted, LOOPBACK);
    expect_listed("kernel", kernel_name(accepted), format_host_port(V, 8220), "127.0.0.1:8220");
    close(accepted);
    expect_success(child);
    /* Too little room to tell. */
    char little[2];
    socklen_t length = sizeof little;
    child = spawn_helper(-1, "connect", LOOPBACK, 8220);
    accepted = accept(service, (void *)little, &length);
    expect("length", length == 16 ? "16" : "another", "16");
    expect_both_ends(accepted, LOOPBACK);
    close(accepted);
    expect_success(child);
}

/* Dialling ::1 from a socket that is bound to the wildcard address. */
static void row_32_wildcard(void) {
    int service = listen_on("::1", 8232);
    pid_t child = spawn_helper(-1, "bind-connect", "::1", 8232);
    int accepted = accept(service, NULL, NULL);
    expect_both_ends(accepted, "::1");
    close(accepted);
    expect_success(child);
}

/* As inetd does it: what was accepted is handed to a program that is started for it. */
static void row_35_inherited(void) {
    int service = listen_on(ANY, 8135);
    pid_t client = spawn_helper(-1, "connect", LOOPBACK, 8135);
    /* Past the hook: this process is to know nothing of it. */
    int accepted = syscall(SYS_accept, service, NULL, NULL);
    fcntl(accepted, F_SETFD, FD_CLOEXEC);
    expect_success(spawn_helper(accepted, "check-names", LOOPBACK, 0));
    /* Behind many others. */
    dup2(accepted, 300);
    expect_success(spawn_helper(-1, "check-fd-300", LOOPBACK, 0));
    close(300);
    close(accepted);
    expect_success(client);
    /* Handed on before it is connected, by who handed it on. */
    int pair[2], fd = socket(AF_INET, SOCK_STREAM, 0);
    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair);
    dup2(fd, 11);
    pid_t child = spawn_helper(pair[1], "check-after-connect", LOOPBACK, 0);
    wait_for_byte(pair[0]);
    expect("connect", try_connect(fd, LOOPBACK, 8135), "ok");
    send_byte(pair[0]);
    expect_success(child);
}

/* The same by a message. */
static void row_35_passed(void) {
    int service = listen_on(ANY, 8235), pair[2];
    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair);
    pid_t client = spawn_helper(-1, "connect", LOOPBACK, 8235);
    int accepted = syscall(SYS_accept, service, NULL, NULL);
    /* It runs before it is passed anything. */
    pid_t child = spawn_helper(pair[1], "check-received", LOOPBACK, 0);
    wait_for_byte(pair[0]);
    send_fd(pair[0], accepted);
    expect_success(child);
    close(accepted);
    expect_success(client);
    /* Who gets it connects it, and who passed it looks. */
    int fd = tcp();
    child = spawn_helper(pair[1], "connect-received", LOOPBACK, 8235);
    send_fd(pair[0], fd);
    wait_for_byte(pair[0]);
    expect_both_ends(fd, LOOPBACK);
    shutdown(accept(service, NULL, NULL), SHUT_WR);
    expect_success(child);
}

/* A child that was forked connects what its parent looks at. */
static void row_35_forked(void) {
    int service = listen_on(ANY, 8335), fd = tcp();
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) _exit(strcmp(try_connect(fd, LOOPBACK, 8335), "ok") != 0);
    expect_success(child);
    expect_both_ends(fd, LOOPBACK);
    expect_both_ends(accept(service, NULL, NULL), LOOPBACK);
}

/* Sends outside, and what is seen of it there. */
static const char *source_seen_by_peer(int fd) {
    struct address to = make_address(EXTERNAL_ADDRESS, 7);
    expect("sendto", errno_text(sendto(fd, "x", 1, 0, (void *)&to.bytes, to.length)), "ok");
    return receive_text(fd);
}
static void disconnect(int fd) {
    struct sockaddr_storage none = {.ss_family = AF_UNSPEC};
    expect("disconnect", errno_text(connect(fd, (void *)&none, sizeof none)), "ok");
}

/* Bound or not: whatever is kept with a socket, each datagram comes from where it should. */
static void row_22_bound_or_not(void) {
    int fd = udp();
    for (int i = 0; i < 3; i++)
        expect_listed("source seen by the peer", source_seen_by_peer(fd), V, HOST_ADDRESS);
    expect_listed("a copy", source_seen_by_peer(dup(fd)), V, HOST_ADDRESS);
    disconnect(fd);
    expect_listed("dissolved", source_seen_by_peer(fd), V, HOST_ADDRESS);
    expect("bind later", try_bind(fd, ANY, 8022), "EINVAL");
    /* Bound by others, past the hook. */
    struct address any = make_address(ANY, 0), out = make_address(EXTERNAL_ADDRESS, 7);
    int other = udp();
    expect("bind", errno_text(syscall(SYS_bind, other, &any.bytes, any.length)), "ok");
    for (int i = 0; i < 3; i++)
        expect("source seen by the peer", source_seen_by_peer(other), HOST_ADDRESS);
    /* Bound by the kernel when it was connected, sent from, and free again. */
    int connected = udp();
    long done = syscall(SYS_connect, connected, &out.bytes, out.length);
    expect("connect", errno_text(done), "ok");
    for (int i = 0; i < 3; i++)
        expect("source seen by the peer it", source_seen_by_peer(connected), HOST_ADDRESS);
    disconnect(connected);
    expect("unbound", visible_name(connected), "0.0.0.0:0");
    expect_listed("source seen by the peer after", source_seen_by_peer(connected), V, HOST_ADDRESS);
    expect_listed("and again", source_seen_by_peer(connected), V, HOST_ADDRESS);
    /* A hint of the program's own stays. */
    uint64_t hint = RWH_WRITE_LIFE_SHORT;
    int hinting = udp();
    expect("hint", errno_text(fcntl(hinting, F_SET_RW_HINT, &hint)), "ok");
    for (int i = 0; i < 3; i++)
        expect_listed("source seen by the peer", source_seen_by_peer(hinting), V, HOST_ADDRESS);
    expect("hint", errno_text(fcntl(hinting, F_GET_RW_HINT, &hint)), "ok");
    expect("it is", hint == RWH_WRITE_LIFE_SHORT ? "the same" : "another", "the same");
    /* In messages, and for IPv6. */
    int v6 = udp6();
    struct address to6 = make_address(EXTERNAL_ADDRESS6, 7);
    for (int i = 0; i < 3; i++) {
        expect("sendto", errno_text(sendto(v6, "x", 1, 0, (void *)&to6.bytes, to6.length)), "ok");
        expect_listed("source seen by the peer", receive_text(v6), V6, HOST_ADDRESS6);
    }
    /* Connected once more elsewhere: nothing is bound twice. */
    expect("connect", try_connect(fd, EXTERNAL_ADDRESS, 7), "ok");
    expect_listed("its name", visible_name(fd), format_host_port(V, kernel_port(fd)),
                  format_host_port(HOST_ADDRESS, kernel_port(fd)));
}

/* From a socket of IPv6 to an address of IPv4 as it is. */
static void row_22_families(void) {
    int fd = udp6(), connected = udp6(), v6only = udp6(), service = udp();
    expect_listed("source seen by the peer", source_seen_by_peer(fd), V, HOST_ADDRESS);
    expect_listed("and again", source_seen_by_peer(fd), V, HOST_ADDRESS);
    expect("connect", try_connect(connected, EXTERNAL_ADDRESS, 7), "ok");
    expect("send", errno_text(send(connected, "x", 1, 0)), "ok");
    expect_listed("source seen by the peer", receive_text(connected), V, HOST_ADDRESS);
    enable_option(v6only, IPPROTO_IPV6, IPV6_V6ONLY);
    expect("for IPv6 alone", try_connect(v6only, EXTERNAL_ADDRESS, 7), "EAFNOSUPPORT");
    expect("of a stream", try_connect(tcp6(), EXTERNAL_ADDRESS, 7), "EINVAL");
    /* To a service of the session's own. */
    fd = udp6();
    expect("bind", try_bind(service, ANY, 8222), "ok");
    expect("connect", try_connect(fd, LOOPBACK, 8222), "ok");
    expect("send", errno_text(send(fd, "x", 1, 0)), "ok");
    struct sockaddr_storage from;
    socklen_t length = sizeof from;
    char byte;
    expect("recvfrom", errno_text(recvfrom(service, &byte, 1, 0, (void *)&from, &length)), "ok");
    expect_quietly("source", address_text(&from), format_host_port(LOOPBACK, kernel_port(fd)));
}

/* An address without a port is not taken for none. */
static void row_22_portless(void) {
    int fd = udp(), kept = udp();
    enable_option(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT);
    expect("bind", try_bind(fd, "127.0.0.53", 0), "ok");
    expect("name", visible_name(fd), "127.0.0.53:0");
    expect("connect", try_connect(fd, EXTERNAL_ADDRESS, 7), "EINVAL");
    expect("kept", strstr(kernel_name(fd), "127.0.0.53:") ? "yes" : "no", "yes");
    expect("bind", try_bind(kept, "127.0.0.53", 0), "ok");
    expect("connect", try_connect(kept, "127.0.0.54", 8122), "ok");
    disconnect(kept);
    expect("name", visible_name(kept), "127.0.0.53:0");
    expect("connect", try_connect(kept, EXTERNAL_ADDRESS, 7), "EINVAL");
}

/* A socket of root's in a program that is root no more: the kernel lets it keep no mark. */
static void row_22_dropped_privileges(void) {
    int fd = udp(), marked = udp();
    expect_listed("before", source_seen_by_peer(marked), V, HOST_ADDRESS);
    expect("setuid", errno_text(setuid(65534)), "ok");
    for (int i = 0; i < 3; i++)
        expect_listed("source seen by the peer", source_seen_by_peer(fd), V, HOST_ADDRESS);
    for (int i = 0; i < 2; i++)
        expect_listed("source seen by the peer", source_seen_by_peer(marked), V, HOST_ADDRESS);
    for (int i = 0; i < 2; i++)
        expect_listed("its own", source_seen_by_peer(udp()), V, HOST_ADDRESS);
    uint64_t hint = RWH_WRITE_LIFE_SHORT;
    expect("hint", errno_text(fcntl(fd, F_SET_RW_HINT, &hint)), "EPERM");
}

/* What is neither TCP nor UDP is left alone, also where another process made it. */
static void row_34_protocols(void) {
    int fd = syscall(SYS_socket, AF_INET, SOCK_RAW, IPPROTO_ICMP);
    expect("raw", errno_text(fd), "ok");
    expect_success(spawn_helper(fd, "bind-raw", LOOPBACK, 8034));
    fd = socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_ICMP);
    expect("bind", try_bind(fd, LOOPBACK, 8034), "ok");
    expect("kernel", kernel_name(fd), "127.0.0.1:1");
    /* A port of own-ports. */
    expect("connect", try_connect(fd, LOOPBACK, 8311), "ok");
    expect("kernel peer", kernel_peer(fd), "127.0.0.1:8311");
    expect("not even one", try_bind(socket(AF_UNIX, SOCK_STREAM, 0), LOOPBACK, 8034), "EINVAL");
    fd = socket(AF_INET, SOCK_STREAM, IPPROTO_MPTCP);
    expect("mptcp", try_bind(fd, LOOPBACK, 8134), "ok");
    expect_listed("kernel", kernel_name(fd), format_host_port(L, 8134), "127.0.0.1:8134");
}

const struct row inherited_rows[] = {
    {"20-null-address", row_20_null_address},
    {"22-bound-or-not", row_22_bound_or_not},
    {"22-families", row_22_families},
    {"22-portless", row_22_portless},
    {"22-dropped-privileges", row_22_dropped_privileges},
    {"32-wildcard", row_32_wildcard},
    {"34-protocols", row_34_protocols},
    {"35-inherited", row_35_inherited},
    {"35-passed", row_35_passed},
    {"35-forked", row_35_forked},
    {NULL, NULL},
};
