/* Compares socket calls of the C library, which a hook may interpose, with direct system calls
 * of the same kind. Both kinds of calls run in one process, in alternating blocks.
 *
 * Prints one line per operation: name, direct ns, hooked ns, difference ns, ratio. Each value is
 * a median over the blocks. For an operation that cannot be measured, the line contains the name
 * and "-". An argument selects a single operation. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define BLOCKS 201

static struct sockaddr_in make_address(const char *host, int port) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
    inet_pton(AF_INET, host, &a.sin_addr);
    return a;
}

/* One implementation of the measured calls. */
struct calls {
    int (*bind)(int, const struct sockaddr *, socklen_t);
    int (*connect)(int, const struct sockaddr *, socklen_t);
    int (*accept)(int, struct sockaddr *, socklen_t *);
    int (*getsockname)(int, struct sockaddr *, socklen_t *);
    int (*getpeername)(int, struct sockaddr *, socklen_t *);
    ssize_t (*sendto)(int, const void *, size_t, int, const struct sockaddr *, socklen_t);
    ssize_t (*recvfrom)(int, void *, size_t, int, struct sockaddr *, socklen_t *);
    int (*listen)(int, int);
    int (*setsockopt)(int, int, int, const void *, socklen_t);
    ssize_t (*sendmsg)(int, const struct msghdr *, int);
    ssize_t (*recvmsg)(int, struct msghdr *, int);
    int (*sendmmsg)(int, struct mmsghdr *, unsigned, int);
    int (*recvmmsg)(int, struct mmsghdr *, unsigned, int, struct timespec *);
};

static int direct_bind(int f, const struct sockaddr *a, socklen_t l) {
    return syscall(SYS_bind, f, a, l);
}
static int direct_connect(int f, const struct sockaddr *a, socklen_t l) {
    return syscall(SYS_connect, f, a, l);
}
static int direct_accept(int f, struct sockaddr *a, socklen_t *l) {
    return syscall(SYS_accept, f, a, l);
}
static int direct_getsockname(int f, struct sockaddr *a, socklen_t *l) {
    return syscall(SYS_getsockname, f, a, l);
}
static int direct_getpeername(int f, struct sockaddr *a, socklen_t *l) {
    return syscall(SYS_getpeername, f, a, l);
}
static ssize_t direct_sendto(int f, const void *d, size_t n, int g, const struct sockaddr *a,
                             socklen_t l) {
    return syscall(SYS_sendto, f, d, n, g, a, l);
}
static ssize_t direct_recvfrom(int f, void *d, size_t n, int g, struct sockaddr *a, socklen_t *l) {
    return syscall(SYS_recvfrom, f, d, n, g, a, l);
}
static int direct_listen(int f, int n) { return syscall(SYS_listen, f, n); }
static int direct_setsockopt(int f, int l, int o, const void *v, socklen_t n) {
    return syscall(SYS_setsockopt, f, l, o, v, n);
}
static ssize_t direct_sendmsg(int f, const struct msghdr *m, int g) {
    return syscall(SYS_sendmsg, f, m, g);
}
static ssize_t direct_recvmsg(int f, struct msghdr *m, int g) {
    return syscall(SYS_recvmsg, f, m, g);
}
static int direct_sendmmsg(int f, struct mmsghdr *m, unsigned n, int g) {
    return syscall(SYS_sendmmsg, f, m, n, g);
}
static int direct_recvmmsg(int f, struct mmsghdr *m, unsigned n, int g, struct timespec *t) {
    return syscall(SYS_recvmmsg, f, m, n, g, t);
}
static const struct calls direct = {
    direct_bind,    direct_connect,  direct_accept,  direct_getsockname, direct_getpeername,
    direct_sendto,  direct_recvfrom, direct_listen,  direct_setsockopt,  direct_sendmsg,
    direct_recvmsg, direct_sendmmsg, direct_recvmmsg};
static struct calls hooked;

/* The floor: calls that make only the additional system calls that a hook needs. They read the
 * protocol of a UDP socket and the mark of a sending socket, and bind an unbound socket. */
static void read_mark(int f, uint64_t *hint) { syscall(SYS_fcntl, f, F_GET_RW_HINT, hint); }
static void bind_to_v(int f) {
    struct sockaddr_in own = make_address(getenv("BENCH_V"), 0);
    int protocol;
    socklen_t length = sizeof protocol;
    syscall(SYS_getsockopt, f, SOL_SOCKET, SO_PROTOCOL, &protocol, &length);
    direct_bind(f, (void *)&own, sizeof own);
}
static int floor_connect(int f, const struct sockaddr *a, socklen_t l) {
    bind_to_v(f);
    return direct_connect(f, a, l);
}
static ssize_t floor_sendto(int f, const void *d, size_t n, int g, const struct sockaddr *a,
                            socklen_t l) {
    uint64_t hint = 0;
    read_mark(f, &hint);
    if (hint == 0) {
        bind_to_v(f);
        hint = RWH_WRITE_LIFE_EXTREME;
        syscall(SYS_fcntl, f, F_SET_RW_HINT, &hint);
    }
    return direct_sendto(f, d, n, g, a, l);
}
static const struct calls floor_calls = {.bind = direct_bind,
                                         .connect = floor_connect,
                                         .accept = direct_accept,
                                         .getsockname = direct_getsockname,
                                         .getpeername = direct_getpeername,
                                         .sendto = floor_sendto,
                                         .recvfrom = direct_recvfrom};

static const char *host;
static int socket_on_l, socket_on_v, connected, connected_to_v, tcp_service, udp_service,
    udp_client, own_udp_client, own_tcp_service, own_udp_service;
static int tcp_port, udp_port;

static int read_socket_name(const struct calls *c, int fd) {
    struct sockaddr_in a;
    socklen_t length = sizeof a;
    return c->getsockname(fd, (void *)&a, &length);
}
static int getsockname_on_l(const struct calls *c) { return read_socket_name(c, socket_on_l); }
static int getsockname_on_v(const struct calls *c) { return read_socket_name(c, socket_on_v); }
static int read_peer_name(const struct calls *c, int fd) {
    struct sockaddr_in a;
    socklen_t length = sizeof a;
    return c->getpeername(fd, (void *)&a, &length);
}
static int getpeername_of_host(const struct calls *c) { return read_peer_name(c, connected); }
static int getpeername_of_v(const struct calls *c) { return read_peer_name(c, connected_to_v); }
static int bind_cycle(const struct calls *c) {
    struct sockaddr_in a = make_address("127.0.0.1", 8900);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    int error = c->bind(fd, (void *)&a, sizeof a);
    close(fd);
    return error;
}
static int udp_connect(const struct calls *c) {
    struct sockaddr_in a = make_address(host, 8901);
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    int error = c->connect(fd, (void *)&a, sizeof a);
    close(fd);
    return error;
}
static int connect_and_accept(const struct calls *c, const char *to, int port, int listener) {
    struct sockaddr_in a = make_address(to, port), from;
    struct linger reset_on_close = {1, 0};
    socklen_t length = sizeof from;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset_on_close, sizeof reset_on_close);
    int error = c->connect(fd, (void *)&a, sizeof a);
    int accepted = error ? -1 : c->accept(listener, (void *)&from, &length);
    close(fd);
    if (accepted >= 0) close(accepted);
    return error;
}
static int connect_cycle(const struct calls *c) {
    return connect_and_accept(c, host, tcp_port, tcp_service);
}
/* The session's L. The direct calls connect to L, and the hooked calls connect to 127.0.0.1. */
static char own_loopback[32];
static int own_connect_cycle(const struct calls *c) {
    return connect_and_accept(c, c == &direct ? own_loopback : "127.0.0.1", 8903, own_tcp_service);
}
static int send_receive(const struct calls *c, int udp_client, struct sockaddr_in a, int to) {
    struct sockaddr_in from;
    socklen_t length = sizeof from;
    char packet[64] = {0};
    if (c->sendto(udp_client, packet, sizeof packet, 0, (void *)&a, sizeof a) < 0) return -1;
    return c->recvfrom(to, packet, sizeof packet, MSG_DONTWAIT, (void *)&from, &length) < 0;
}
static int send_receive_cycle(const struct calls *c) {
    return send_receive(c, udp_client, make_address(host, udp_port), udp_service);
}
static int first_send_cycle(const struct calls *c) {
    struct sockaddr_in a = make_address(host, udp_port);
    char packet[64] = {0};
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    int error = c->sendto(fd, packet, sizeof packet, 0, (void *)&a, sizeof a) < 0;
    close(fd);
    return direct_recvfrom(udp_service, packet, sizeof packet, MSG_DONTWAIT, NULL, NULL) < 0 ||
           error;
}
static int own_port_cycle(const struct calls *c) {
    return send_receive(c, own_udp_client,
                        make_address(c == &direct ? own_loopback : "127.0.0.1", 8904),
                        own_udp_service);
}

static int repeat_listen(const struct calls *c) { return c->listen(socket_on_l, 64); }
static int set_keepalive(const struct calls *c) {
    int on = 1;
    return c->setsockopt(socket_on_l, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
}
static int message_cycle(const struct calls *c) {
    struct sockaddr_in to = make_address(host, udp_port), from;
    char packet[64] = {0};
    struct iovec part = {packet, sizeof packet};
    struct msghdr message = {
        .msg_name = &to, .msg_namelen = sizeof to, .msg_iov = &part, .msg_iovlen = 1};
    if (c->sendmsg(udp_client, &message, 0) < 0) return -1;
    message.msg_name = &from;
    return c->recvmsg(udp_service, &message, MSG_DONTWAIT) < 0;
}
/* The messages are on the heap, as in many programs. */
#define MESSAGES 8
static int messages_cycle(const struct calls *c) {
    static struct mmsghdr *messages;
    struct sockaddr_in to = make_address(host, udp_port), from;
    char packet[64] = {0};
    struct iovec part = {packet, sizeof packet};
    if (!messages) messages = calloc(MESSAGES, sizeof *messages);
    for (int i = 0; i < MESSAGES; i++)
        messages[i].msg_hdr = (struct msghdr){
            .msg_name = &to, .msg_namelen = sizeof to, .msg_iov = &part, .msg_iovlen = 1};
    if (c->sendmmsg(udp_client, messages, MESSAGES, 0) != MESSAGES) return -1;
    for (int i = 0; i < MESSAGES; i++) messages[i].msg_hdr.msg_name = &from;
    return c->recvmmsg(udp_service, messages, MESSAGES, MSG_DONTWAIT, NULL) != MESSAGES;
}

static double monotonic_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e9 + t.tv_nsec;
}

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}
static double median(double *values) {
    qsort(values, BLOCKS, sizeof *values, compare);
    return values[BLOCKS / 2];
}

static double measure_block(int (*operation)(const struct calls *), const struct calls *c,
                            int times) {
    double start = monotonic_ns();
    for (int i = 0; i < times; i++) operation(c);
    return (monotonic_ns() - start) / times;
}

/* The selected operation, or NULL for all. */
static const char *selected;

static void measure(const char *name, int (*operation)(const struct calls *), int times) {
    if (selected && strcmp(selected, name)) return;
    static double direct_ns[BLOCKS], hooked_ns[BLOCKS], difference[BLOCKS], ratio[BLOCKS];
    if (operation(&direct) || operation(&hooked)) {
        printf("%s -\n", name);
        return;
    }
    measure_block(operation, &direct, times);
    measure_block(operation, &hooked, times);
    for (int i = 0; i < BLOCKS; i++) {
        /* The order alternates, so that neither kind of call has an advantage from warm caches. */
        if (i % 2) direct_ns[i] = measure_block(operation, &direct, times);
        hooked_ns[i] = measure_block(operation, &hooked, times);
        if (i % 2 == 0) direct_ns[i] = measure_block(operation, &direct, times);
        difference[i] = hooked_ns[i] - direct_ns[i];
        ratio[i] = hooked_ns[i] / direct_ns[i];
    }
    printf("%s %.1f %.1f %.1f %.3f\n", name, median(direct_ns), median(hooked_ns),
           median(difference), median(ratio));
    fflush(stdout);
}

static int bound_socket(int type, const char *on, int port) {
    struct sockaddr_in a = make_address(on, port);
    int fd = socket(AF_INET, type, 0);
    if (direct_bind(fd, (void *)&a, sizeof a)) perror(on);
    if (type == SOCK_STREAM) listen(fd, 64);
    return fd;
}
static int socket_port(int fd) {
    struct sockaddr_in a;
    socklen_t length = sizeof a;
    direct_getsockname(fd, (void *)&a, &length);
    return ntohs(a.sin_port);
}

int main(int count, char **arguments) {
    selected = count > 1 ? arguments[1] : NULL;
    /* With another interposing library, a call may block forever. */
    alarm(selected ? 5 : 120);
    hooked = (struct calls){.bind = bind,
                            .connect = connect,
                            .accept = accept,
                            .getsockname = getsockname,
                            .getpeername = getpeername,
                            .sendto = sendto,
                            .recvfrom = recvfrom,
                            .listen = listen,
                            .setsockopt = setsockopt,
                            .sendmsg = sendmsg,
                            .recvmsg = recvmsg,
                            .sendmmsg = sendmmsg,
                            .recvmmsg = recvmmsg};
    host = getenv("BENCH_HOST");
    const char *v = getenv("BENCH_V"), *l = getenv("BENCH_L");
    snprintf(own_loopback, sizeof own_loopback, "%s", l);
    socket_on_l = bound_socket(SOCK_STREAM, l, 8902);
    socket_on_v = bound_socket(SOCK_STREAM, v, 8902);
    tcp_service = bound_socket(SOCK_STREAM, host, 0);
    tcp_port = socket_port(tcp_service);
    udp_service = bound_socket(SOCK_DGRAM, host, 0);
    udp_port = socket_port(udp_service);
    own_tcp_service = bound_socket(SOCK_STREAM, l, 8903);
    own_udp_service = bound_socket(SOCK_DGRAM, l, 8904);
    /* The address of the service is neither V nor L, like the address of an external host. */
    udp_client = bound_socket(SOCK_DGRAM, host, 0);
    own_udp_client = bound_socket(SOCK_DGRAM, l, 0);
    connected = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in to = make_address(host, tcp_port);
    direct_connect(connected, (void *)&to, sizeof to);
    direct_accept(tcp_service, NULL, NULL);
    connected_to_v = socket(AF_INET, SOCK_STREAM, 0);
    to = make_address(v, 8902);
    direct_connect(connected_to_v, (void *)&to, sizeof to);
    if (getenv("BENCH_FLOOR")) {
        hooked = floor_calls;
        measure("udp-connect", udp_connect, 200);
        measure("sendto-recvfrom", send_receive_cycle, 200);
        measure("sendto-first", first_send_cycle, 200);
        return 0;
    }
    measure("getsockname", getsockname_on_l, 2000);
    measure("getsockname-of-V", getsockname_on_v, 2000);
    measure("getpeername", getpeername_of_host, 2000);
    measure("getpeername-of-V", getpeername_of_v, 2000);
    measure("bind-cycle", bind_cycle, 200);
    measure("udp-connect", udp_connect, 200);
    measure("connect-cycle", connect_cycle, 30);
    measure("sendto-recvfrom", send_receive_cycle, 200);
    measure("sendto-first", first_send_cycle, 200);
    measure("sendmsg-recvmsg", message_cycle, 200);
    measure("sendmmsg-recvmmsg-8", messages_cycle, 50);
    measure("listen", repeat_listen, 1000);
    measure("setsockopt", set_keepalive, 1000);
    measure("sendto-recvfrom-own-port", own_port_cycle, 200);
    measure("connect-own-first", own_connect_cycle, 30);
    /* The process has connected within its session. So the visible address of a socket on V may
     * depend on its peer. */
    measure("getsockname-of-V-talked", getsockname_on_v, 2000);
    measure("getpeername-of-V-talked", getpeername_of_v, 2000);
    return 0;
}
