/* Rows on sockets that come from another process, and on what the kernel keeps with a socket: what
 * a program knows of its own sockets does not help there. See matrix.h. */
#include "matrix.h"

#include <sys/wait.h>

#define LOOPBACK "127.0.0.1"
#define ANY "0.0.0.0"

/* Starts this program again with these arguments, and `fd` as descriptor 10. */
static pid_t again(int fd, const char *mode, const char *host, int port) {
    char number[16];
    snprintf(number, sizeof number, "%d", port);
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        if (fd >= 0 && dup2(fd, 10) < 0) _exit(3);
        execl("/proc/self/exe", "again", mode, host, number, NULL);
        _exit(4);
    }
    return child;
}
static void ended_well(pid_t child) {
    int status;
    waitpid(child, &status, 0);
    expect("the other process", status == 0 ? "ok" : "failed", "ok");
}

/* Both ends of a socket must be shown on this address. */
static void both_on(int fd, const char *host) {
    expect_alike("getsockname", seen(fd), host_port(host, port_of(fd)));
    const char *peer = kernel_peer(fd);
    expect_alike("getpeername", seen_peer(fd), host_port(host, atoi(strrchr(peer, ':') + 1)));
}

static void pass(int channel, int fd) {
    char byte = 0, control[CMSG_SPACE(sizeof fd)] = {0};
    struct iovec part = {&byte, 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control,
                             .msg_controllen = sizeof control};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(header), &fd, sizeof fd);
    expect_alike("pass", result(sendmsg(channel, &message, 0)), "ok");
}
static int take(int channel) {
    int fd = -1;
    char byte, control[CMSG_SPACE(sizeof fd)];
    struct iovec part = {&byte, 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control,
                             .msg_controllen = sizeof control};
    expect_alike("take", result(recvmsg(channel, &message, 0)), "ok");
    memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof fd);
    return fd;
}

/* Waits until the other process has done something, or tells it. */
static void wait_for(int channel) {
    char byte;
    expect_alike("wait", read(channel, &byte, 1) == 1 ? "ok" : "ended", "ok");
}
static void tell(int channel) {
    expect_alike("tell", write(channel, "x", 1) == 1 ? "ok" : "failed", "ok");
}

/* What the program does that is started again: descriptor 10 is what it was handed. */
int handed(const char *mode, const char *host, int port) {
    int fd = -1;
    if (strcmp(mode, "dial") == 0) {
        fd = strchr(host, ':') ? tcp6() : tcp();
        expect_alike("dial", try_connect(fd, host, port), "ok");
        both_on(fd, host);
    } else if (strcmp(mode, "dial-bound") == 0) {
        fd = tcp6();
        expect_alike("bind", try_bind(fd, "::", 0), "ok");
        expect_alike("dial", try_connect(fd, host, port), "ok");
        both_on(fd, host);
    } else if (strcmp(mode, "look") == 0) {
        both_on(10, host);
        return 0;
    } else if (strcmp(mode, "look-far") == 0) {
        both_on(300, host);
        return 0;
    } else if (strcmp(mode, "look-taken") == 0) {
        tell(10);
        both_on(take(10), host);
        return 0;
    } else if (strcmp(mode, "dial-taken") == 0) {
        fd = take(10);
        expect_alike("dial", try_connect(fd, host, port), "ok");
        tell(10);
    } else if (strcmp(mode, "look-later") == 0) {
        /* Descriptor 11 was handed unconnected. */
        tell(10);
        wait_for(10);
        both_on(11, host);
        return 0;
    } else if (strcmp(mode, "raw") == 0) {
        expect_alike("bind", try_bind(10, host, port), "ok");
        expect_alike("kernel", strstr(kernel(10), host) ? host : kernel(10), host);
        return 0;
    } else {
        return -1;
    }
    /* The other end looks at it first. */
    char end;
    return recv(fd, &end, 1, 0) != 0;
}

/* Nobody wants to know who is accepted. */
static void row_20_unasked(void) {
    int service = listener(ANY, 8220), own = listener(LOOPBACK, 8320);
    pid_t child = again(-1, "dial", LOOPBACK, 8320);
    int accepted = accept(own, NULL, NULL);
    both_on(accepted, LOOPBACK);
    close(accepted);
    ended_well(child);
    child = again(-1, "dial", LOOPBACK, 8220);
    accepted = accept4(service, NULL, NULL, SOCK_CLOEXEC);
    both_on(accepted, LOOPBACK);
    expect_listed("kernel", kernel(accepted), host_port(V, 8220), "127.0.0.1:8220");
    close(accepted);
    ended_well(child);
    /* Too little room to tell. */
    char little[2];
    socklen_t length = sizeof little;
    child = again(-1, "dial", LOOPBACK, 8220);
    accepted = accept(service, (void *)little, &length);
    expect("length", length == 16 ? "16" : "another", "16");
    both_on(accepted, LOOPBACK);
    close(accepted);
    ended_well(child);
}

/* Dialling ::1 from a socket that is bound to the wildcard address. */
static void row_32_wildcard(void) {
    int service = listener("::1", 8232);
    pid_t child = again(-1, "dial-bound", "::1", 8232);
    int accepted = accept(service, NULL, NULL);
    both_on(accepted, "::1");
    close(accepted);
    ended_well(child);
}

/* As inetd does it: what was accepted is handed to a program that is started for it. */
static void row_35_handed(void) {
    int service = listener(ANY, 8135);
    pid_t client = again(-1, "dial", LOOPBACK, 8135);
    /* Past the hook: this process is to know nothing of it. */
    int accepted = syscall(SYS_accept, service, NULL, NULL);
    fcntl(accepted, F_SETFD, FD_CLOEXEC);
    ended_well(again(accepted, "look", LOOPBACK, 0));
    /* Behind many others. */
    dup2(accepted, 300);
    ended_well(again(-1, "look-far", LOOPBACK, 0));
    close(300);
    close(accepted);
    ended_well(client);
    /* Handed on before it is connected, by who handed it on. */
    int pair[2], fd = socket(AF_INET, SOCK_STREAM, 0);
    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair);
    dup2(fd, 11);
    pid_t child = again(pair[1], "look-later", LOOPBACK, 0);
    wait_for(pair[0]);
    expect("connect", try_connect(fd, LOOPBACK, 8135), "ok");
    tell(pair[0]);
    ended_well(child);
}

/* The same by a message. */
static void row_35_passed(void) {
    int service = listener(ANY, 8235), pair[2];
    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair);
    pid_t client = again(-1, "dial", LOOPBACK, 8235);
    int accepted = syscall(SYS_accept, service, NULL, NULL);
    /* It runs before it is passed anything. */
    pid_t child = again(pair[1], "look-taken", LOOPBACK, 0);
    wait_for(pair[0]);
    pass(pair[0], accepted);
    ended_well(child);
    close(accepted);
    ended_well(client);
    /* Who gets it connects it, and who passed it looks. */
    int fd = tcp();
    child = again(pair[1], "dial-taken", LOOPBACK, 8235);
    pass(pair[0], fd);
    wait_for(pair[0]);
    both_on(fd, LOOPBACK);
    shutdown(accept(service, NULL, NULL), SHUT_WR);
    ended_well(child);
}

/* A child that was forked connects what its parent looks at. */
static void row_35_forked(void) {
    int service = listener(ANY, 8335), fd = tcp();
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) _exit(strcmp(try_connect(fd, LOOPBACK, 8335), "ok") != 0);
    ended_well(child);
    both_on(fd, LOOPBACK);
    both_on(accept(service, NULL, NULL), LOOPBACK);
}

/* Sends outside, and what is seen of it there. */
static const char *seen_outside(int fd) {
    struct address to = at(OUTSIDE, 7);
    expect("sendto", result(sendto(fd, "x", 1, 0, (void *)&to.bytes, to.length)), "ok");
    return answered(fd);
}
static void dissolve(int fd) {
    struct sockaddr_storage none = {.ss_family = AF_UNSPEC};
    expect("dissolve", result(connect(fd, (void *)&none, sizeof none)), "ok");
}

/* Bound or not: whatever is kept with a socket, each datagram comes from where it should. */
static void row_22_bound_or_not(void) {
    int fd = udp();
    for (int i = 0; i < 3; i++) expect_listed("they see", seen_outside(fd), V, HOST);
    expect_listed("a copy", seen_outside(dup(fd)), V, HOST);
    dissolve(fd);
    expect_listed("dissolved", seen_outside(fd), V, HOST);
    expect("bind later", try_bind(fd, ANY, 8022), "EINVAL");
    /* Bound by others, past the hook. */
    struct address any = at(ANY, 0), out = at(OUTSIDE, 7);
    int other = udp();
    expect("bind", result(syscall(SYS_bind, other, &any.bytes, any.length)), "ok");
    for (int i = 0; i < 3; i++) expect("they see the host", seen_outside(other), HOST);
    /* Bound by the kernel when it was connected, sent from, and free again. */
    int connected = udp();
    long done = syscall(SYS_connect, connected, &out.bytes, out.length);
    expect("connect", result(done), "ok");
    for (int i = 0; i < 3; i++) expect("they see it", seen_outside(connected), HOST);
    dissolve(connected);
    expect("unbound", seen(connected), "0.0.0.0:0");
    expect_listed("they see after", seen_outside(connected), V, HOST);
    expect_listed("and again", seen_outside(connected), V, HOST);
    /* A hint of the program's own stays. */
    uint64_t hint = RWH_WRITE_LIFE_SHORT;
    int hinting = udp();
    expect("hint", result(fcntl(hinting, F_SET_RW_HINT, &hint)), "ok");
    for (int i = 0; i < 3; i++) expect_listed("they see", seen_outside(hinting), V, HOST);
    expect("hint", result(fcntl(hinting, F_GET_RW_HINT, &hint)), "ok");
    expect("it is", hint == RWH_WRITE_LIFE_SHORT ? "the same" : "another", "the same");
    /* In messages, and for IPv6. */
    int six = udp6();
    struct address out6 = at(OUTSIDE6, 7);
    for (int i = 0; i < 3; i++) {
        expect("sendto", result(sendto(six, "x", 1, 0, (void *)&out6.bytes, out6.length)), "ok");
        expect_listed("they see", answered(six), V6, HOST6);
    }
    /* Connected once more elsewhere: nothing is bound twice. */
    expect("connect", try_connect(fd, OUTSIDE, 7), "ok");
    expect_listed("its name", seen(fd), host_port(V, port_of(fd)), host_port(HOST, port_of(fd)));
}

/* From a socket of IPv6 to an address of IPv4 as it is. */
static void row_22_families(void) {
    int fd = udp6(), connected = udp6(), only = udp6(), service = udp();
    expect_listed("they see", seen_outside(fd), V, HOST);
    expect_listed("and again", seen_outside(fd), V, HOST);
    expect("connect", try_connect(connected, OUTSIDE, 7), "ok");
    expect("send", result(send(connected, "x", 1, 0)), "ok");
    expect_listed("they see", answered(connected), V, HOST);
    one(only, IPPROTO_IPV6, IPV6_V6ONLY);
    expect("for IPv6 alone", try_connect(only, OUTSIDE, 7), "EAFNOSUPPORT");
    expect("of a stream", try_connect(tcp6(), OUTSIDE, 7), "EINVAL");
    /* To a service of the session's own. */
    fd = udp6();
    expect("bind", try_bind(service, ANY, 8222), "ok");
    expect("connect", try_connect(fd, LOOPBACK, 8222), "ok");
    expect("send", result(send(fd, "x", 1, 0)), "ok");
    struct sockaddr_storage from;
    socklen_t length = sizeof from;
    char byte;
    expect("recvfrom", result(recvfrom(service, &byte, 1, 0, (void *)&from, &length)), "ok");
    expect_alike("source", text_of(&from), host_port(LOOPBACK, port_of(fd)));
}

/* An address without a port is not taken for none. */
static void row_22_portless(void) {
    int fd = udp(), kept = udp();
    one(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT);
    expect("bind", try_bind(fd, "127.0.0.53", 0), "ok");
    expect("name", seen(fd), "127.0.0.53:0");
    expect("connect", try_connect(fd, OUTSIDE, 7), "EINVAL");
    expect("kept", strstr(kernel(fd), "127.0.0.53:") ? "yes" : "no", "yes");
    expect("bind", try_bind(kept, "127.0.0.53", 0), "ok");
    expect("connect", try_connect(kept, "127.0.0.54", 8122), "ok");
    dissolve(kept);
    expect("name", seen(kept), "127.0.0.53:0");
    expect("connect", try_connect(kept, OUTSIDE, 7), "EINVAL");
}

/* A socket of root's in a program that is root no more: the kernel lets it keep no mark. */
static void row_22_dropped(void) {
    int fd = udp(), marked = udp();
    expect_listed("before", seen_outside(marked), V, HOST);
    expect("setuid", result(setuid(65534)), "ok");
    for (int i = 0; i < 3; i++) expect_listed("they see", seen_outside(fd), V, HOST);
    for (int i = 0; i < 2; i++) expect_listed("they see", seen_outside(marked), V, HOST);
    for (int i = 0; i < 2; i++) expect_listed("its own", seen_outside(udp()), V, HOST);
    uint64_t hint = RWH_WRITE_LIFE_SHORT;
    expect("hint", result(fcntl(fd, F_SET_RW_HINT, &hint)), "EPERM");
}

/* What is neither TCP nor UDP is left alone, also where another process made it. */
static void row_34_protocols(void) {
    int fd = syscall(SYS_socket, AF_INET, SOCK_RAW, IPPROTO_ICMP);
    expect("raw", result(fd), "ok");
    ended_well(again(fd, "raw", LOOPBACK, 8034));
    fd = socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_ICMP);
    expect("bind", try_bind(fd, LOOPBACK, 8034), "ok");
    expect("kernel", kernel(fd), "127.0.0.1:1");
    /* A port of own-ports. */
    expect("connect", try_connect(fd, LOOPBACK, 8311), "ok");
    expect("kernel peer", kernel_peer(fd), "127.0.0.1:8311");
    expect("not even one", try_bind(socket(AF_UNIX, SOCK_STREAM, 0), LOOPBACK, 8034), "EINVAL");
    fd = socket(AF_INET, SOCK_STREAM, IPPROTO_MPTCP);
    expect("mptcp", try_bind(fd, LOOPBACK, 8134), "ok");
    expect_listed("kernel", kernel(fd), host_port(L, 8134), "127.0.0.1:8134");
}

const struct row handed_rows[] = {
    {"20-unasked", row_20_unasked}, {"22-bound-or-not", row_22_bound_or_not},
    {"22-families", row_22_families}, {"22-portless", row_22_portless}, {"22-dropped", row_22_dropped}, {"32-wildcard", row_32_wildcard},
    {"34-protocols", row_34_protocols}, {"35-handed", row_35_handed},
    {"35-passed", row_35_passed}, {"35-forked", row_35_forked}, {NULL, NULL},
};
