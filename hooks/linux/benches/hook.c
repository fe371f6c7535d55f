/* What socket calls cost through the C library's names, where hooks stand, against raw system
 * calls of the same kind: in one process, in blocks that alternate, medians of the pairs.
 * Prints a line per operation, of all or of the one that is named: name, raw ns, hooked ns,
 * difference ns, ratio; or name and "-". */
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

/* The calls, either way. */
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

static int raw_bind(int f, const struct sockaddr *a, socklen_t l) {
    return syscall(SYS_bind, f, a, l);
}
static int raw_connect(int f, const struct sockaddr *a, socklen_t l) {
    return syscall(SYS_connect, f, a, l);
}
static int raw_accept(int f, struct sockaddr *a, socklen_t *l) {
    return syscall(SYS_accept, f, a, l);
}
static int raw_getsockname(int f, struct sockaddr *a, socklen_t *l) {
    return syscall(SYS_getsockname, f, a, l);
}
static int raw_getpeername(int f, struct sockaddr *a, socklen_t *l) {
    return syscall(SYS_getpeername, f, a, l);
}
static ssize_t raw_sendto(int f, const void *d, size_t n, int g, const struct sockaddr *a,
                          socklen_t l) {
    return syscall(SYS_sendto, f, d, n, g, a, l);
}
static ssize_t raw_recvfrom(int f, void *d, size_t n, int g, struct sockaddr *a, socklen_t *l) {
    return syscall(SYS_recvfrom, f, d, n, g, a, l);
}
static int raw_listen(int f, int n) { return syscall(SYS_listen, f, n); }
static int raw_setsockopt(int f, int l, int o, const void *v, socklen_t n) {
    return syscall(SYS_setsockopt, f, l, o, v, n);
}
static ssize_t raw_sendmsg(int f, const struct msghdr *m, int g) {
    return syscall(SYS_sendmsg, f, m, g);
}
static ssize_t raw_recvmsg(int f, struct msghdr *m, int g) { return syscall(SYS_recvmsg, f, m, g); }
static int raw_sendmmsg(int f, struct mmsghdr *m, unsigned n, int g) {
    return syscall(SYS_sendmmsg, f, m, n, g);
}
static int raw_recvmmsg(int f, struct mmsghdr *m, unsigned n, int g, struct timespec *t) {
    return syscall(SYS_recvmmsg, f, m, n, g, t);
}
static const struct calls raw = {raw_bind,        raw_connect, raw_accept,   raw_getsockname,
                                 raw_getpeername, raw_sendto,  raw_recvfrom, raw_listen,
                                 raw_setsockopt,  raw_sendmsg, raw_recvmsg,  raw_sendmmsg,
                                 raw_recvmmsg};
static struct calls hooked;

/* What a hook at its best costs: it has to ask the kernel, of UDP what it is, and of a datagram's
 * socket whether it is marked, and it binds what is unbound. */
static void ask_mark(int f, uint64_t *hint) { syscall(SYS_fcntl, f, F_GET_RW_HINT, hint); }
static void bind_own(int f) {
    struct sockaddr_in own = make_address(getenv("BENCH_V"), 0);
    int protocol;
    socklen_t length = sizeof protocol;
    syscall(SYS_getsockopt, f, SOL_SOCKET, SO_PROTOCOL, &protocol, &length);
    raw_bind(f, (void *)&own, sizeof own);
}
static int asking_connect(int f, const struct sockaddr *a, socklen_t l) {
    bind_own(f);
    return raw_connect(f, a, l);
}
static ssize_t asking_sendto(int f, const void *d, size_t n, int g, const struct sockaddr *a,
                             socklen_t l) {
    uint64_t hint = 0;
    ask_mark(f, &hint);
    if (hint == 0) {
        bind_own(f);
        hint = RWH_WRITE_LIFE_EXTREME;
        syscall(SYS_fcntl, f, F_SET_RW_HINT, &hint);
    }
    return raw_sendto(f, d, n, g, a, l);
}
static const struct calls asking = {.bind = raw_bind,
                                    .connect = asking_connect,
                                    .accept = raw_accept,
                                    .getsockname = raw_getsockname,
                                    .getpeername = raw_getpeername,
                                    .sendto = asking_sendto,
                                    .recvfrom = raw_recvfrom};

static const char *host;
static int socket_on_l, socket_on_v, connected, connected_to_v, service, datagrams, client,
    own_client, own_service, own_datagrams;
static int host_port, datagram_port;

static int name(const struct calls *c, int fd) {
    struct sockaddr_in a;
    socklen_t length = sizeof a;
    return c->getsockname(fd, (void *)&a, &length);
}
static int name_on_l(const struct calls *c) { return name(c, socket_on_l); }
static int name_on_v(const struct calls *c) { return name(c, socket_on_v); }
static int peer_of(const struct calls *c, int fd) {
    struct sockaddr_in a;
    socklen_t length = sizeof a;
    return c->getpeername(fd, (void *)&a, &length);
}
static int peer(const struct calls *c) { return peer_of(c, connected); }
static int peer_on_v(const struct calls *c) { return peer_of(c, connected_to_v); }
static int bind_cycle(const struct calls *c) {
    struct sockaddr_in a = make_address("127.0.0.1", 8900);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    int failed = c->bind(fd, (void *)&a, sizeof a);
    close(fd);
    return failed;
}
static int udp_connect(const struct calls *c) {
    struct sockaddr_in a = make_address(host, 8901);
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    int failed = c->connect(fd, (void *)&a, sizeof a);
    close(fd);
    return failed;
}
static int dial(const struct calls *c, const char *to, int port, int listener) {
    struct sockaddr_in a = make_address(to, port), from;
    struct linger none_left = {1, 0};
    socklen_t length = sizeof from;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &none_left, sizeof none_left);
    int failed = c->connect(fd, (void *)&a, sizeof a);
    int accepted = failed ? -1 : c->accept(listener, (void *)&from, &length);
    close(fd);
    if (accepted >= 0) close(accepted);
    return failed;
}
static int connect_cycle(const struct calls *c) { return dial(c, host, host_port, service); }
/* The raw one dials the session's own address, which the kernel knows as that. */
static char own_host[32];
static int own_first(const struct calls *c) {
    return dial(c, c == &raw ? own_host : "127.0.0.1", 8903, own_service);
}
static int send_receive_at(const struct calls *c, int client, struct sockaddr_in a, int to) {
    struct sockaddr_in from;
    socklen_t length = sizeof from;
    char packet[64] = {0};
    if (c->sendto(client, packet, sizeof packet, 0, (void *)&a, sizeof a) < 0) return -1;
    return c->recvfrom(to, packet, sizeof packet, MSG_DONTWAIT, (void *)&from, &length) < 0;
}
static int send_receive(const struct calls *c) {
    return send_receive_at(c, client, make_address(host, datagram_port), datagrams);
}
static int first_send(const struct calls *c) {
    struct sockaddr_in a = make_address(host, datagram_port);
    char packet[64] = {0};
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    int failed = c->sendto(fd, packet, sizeof packet, 0, (void *)&a, sizeof a) < 0;
    close(fd);
    return raw_recvfrom(datagrams, packet, sizeof packet, MSG_DONTWAIT, NULL, NULL) < 0 || failed;
}
static int own_port(const struct calls *c) {
    return send_receive_at(c, own_client, make_address(c == &raw ? own_host : "127.0.0.1", 8904),
                           own_datagrams);
}

static int listen_again(const struct calls *c) { return c->listen(socket_on_l, 64); }
static int set_option(const struct calls *c) {
    int on = 1;
    return c->setsockopt(socket_on_l, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
}
static int message_cycle(const struct calls *c) {
    struct sockaddr_in to = make_address(host, datagram_port), from;
    char packet[64] = {0};
    struct iovec part = {packet, sizeof packet};
    struct msghdr message = {
        .msg_name = &to, .msg_namelen = sizeof to, .msg_iov = &part, .msg_iovlen = 1};
    if (c->sendmsg(client, &message, 0) < 0) return -1;
    message.msg_name = &from;
    return c->recvmsg(datagrams, &message, MSG_DONTWAIT) < 0;
}
/* On the heap, as many programs have them. */
#define MANY 8
static int messages_cycle(const struct calls *c) {
    static struct mmsghdr *messages;
    struct sockaddr_in to = make_address(host, datagram_port), from;
    char packet[64] = {0};
    struct iovec part = {packet, sizeof packet};
    if (!messages) messages = calloc(MANY, sizeof *messages);
    for (int i = 0; i < MANY; i++)
        messages[i].msg_hdr = (struct msghdr){
            .msg_name = &to, .msg_namelen = sizeof to, .msg_iov = &part, .msg_iovlen = 1};
    if (c->sendmmsg(client, messages, MANY, 0) != MANY) return -1;
    for (int i = 0; i < MANY; i++) messages[i].msg_hdr.msg_name = &from;
    return c->recvmmsg(datagrams, messages, MANY, MSG_DONTWAIT, NULL) != MANY;
}

static double now(void) {
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

static double block(int (*operation)(const struct calls *), const struct calls *c, int times) {
    double start = now();
    for (int i = 0; i < times; i++) operation(c);
    return (now() - start) / times;
}

/* The one operation that is asked for; all without. */
static const char *only;

static void measure(const char *what, int (*operation)(const struct calls *), int times) {
    if (only && strcmp(only, what)) return;
    static double a[BLOCKS], b[BLOCKS], difference[BLOCKS], ratio[BLOCKS];
    if (operation(&raw) || operation(&hooked)) {
        printf("%s -\n", what);
        return;
    }
    block(operation, &raw, times);
    block(operation, &hooked, times);
    for (int i = 0; i < BLOCKS; i++) {
        /* Which goes first changes, so that neither has the warmer cache. */
        if (i % 2) a[i] = block(operation, &raw, times);
        b[i] = block(operation, &hooked, times);
        if (i % 2 == 0) a[i] = block(operation, &raw, times);
        difference[i] = b[i] - a[i];
        ratio[i] = b[i] / a[i];
    }
    double d = median(difference), r = median(ratio);
    printf("%s %.1f %.1f %.1f %.3f\n", what, median(a), median(b), d, r);
    fflush(stdout);
}

static int bound(int type, const char *on, int port) {
    struct sockaddr_in a = make_address(on, port);
    int fd = socket(AF_INET, type, 0);
    if (raw_bind(fd, (void *)&a, sizeof a)) perror(on);
    if (type == SOCK_STREAM) listen(fd, 64);
    return fd;
}
static int port(int fd) {
    struct sockaddr_in a;
    socklen_t length = sizeof a;
    raw_getsockname(fd, (void *)&a, &length);
    return ntohs(a.sin_port);
}

int main(int count, char **arguments) {
    only = count > 1 ? arguments[1] : NULL;
    /* Under another library a call may wait for something that never comes. */
    alarm(only ? 5 : 120);
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
    snprintf(own_host, sizeof own_host, "%s", l);
    socket_on_l = bound(SOCK_STREAM, l, 8902);
    socket_on_v = bound(SOCK_STREAM, v, 8902);
    service = bound(SOCK_STREAM, host, 0);
    host_port = port(service);
    datagrams = bound(SOCK_DGRAM, host, 0);
    datagram_port = port(datagrams);
    own_service = bound(SOCK_STREAM, l, 8903);
    own_datagrams = bound(SOCK_DGRAM, l, 8904);
    /* What answers is neither V nor L: a host like any other. */
    client = bound(SOCK_DGRAM, host, 0);
    own_client = bound(SOCK_DGRAM, l, 0);
    connected = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in to = make_address(host, host_port);
    raw_connect(connected, (void *)&to, sizeof to);
    raw_accept(service, NULL, NULL);
    connected_to_v = socket(AF_INET, SOCK_STREAM, 0);
    to = make_address(v, 8902);
    raw_connect(connected_to_v, (void *)&to, sizeof to);
    if (getenv("BENCH_ASKING")) {
        hooked = asking;
        measure("udp-connect", udp_connect, 200);
        measure("sendto-recvfrom", send_receive, 200);
        measure("sendto-first", first_send, 200);
        return 0;
    }
    measure("getsockname", name_on_l, 2000);
    measure("getsockname-of-V", name_on_v, 2000);
    measure("getpeername", peer, 2000);
    measure("getpeername-of-V", peer_on_v, 2000);
    measure("bind-cycle", bind_cycle, 200);
    measure("udp-connect", udp_connect, 200);
    measure("connect-cycle", connect_cycle, 30);
    measure("sendto-recvfrom", send_receive, 200);
    measure("sendto-first", first_send, 200);
    measure("sendmsg-recvmsg", message_cycle, 200);
    measure("sendmmsg-recvmmsg-8", messages_cycle, 50);
    measure("listen", listen_again, 1000);
    measure("setsockopt", set_option, 1000);
    measure("sendto-recvfrom-own-port", own_port, 200);
    measure("connect-own-first", own_first, 30);
    /* It has talked within its session now: V may be one end of a pair. */
    measure("getsockname-of-V-talked", name_on_v, 2000);
    measure("getpeername-of-V-talked", peer_on_v, 2000);
    return 0;
}
