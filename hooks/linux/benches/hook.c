/* Compares socket calls of the C library, which a hook may interpose, with the corresponding direct
 * system calls. The two variants run in one process, in alternating blocks.
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

#define BLOCK_COUNT 201

static struct sockaddr_in make_address(const char *host, int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    inet_pton(AF_INET, host, &address.sin_addr);
    return address;
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

static int direct_bind(int fd, const struct sockaddr *address, socklen_t length) {
    return syscall(SYS_bind, fd, address, length);
}
static int direct_connect(int fd, const struct sockaddr *address, socklen_t length) {
    return syscall(SYS_connect, fd, address, length);
}
static int direct_accept(int fd, struct sockaddr *address, socklen_t *length) {
    return syscall(SYS_accept, fd, address, length);
}
static int direct_getsockname(int fd, struct sockaddr *address, socklen_t *length) {
    return syscall(SYS_getsockname, fd, address, length);
}
static int direct_getpeername(int fd, struct sockaddr *address, socklen_t *length) {
    return syscall(SYS_getpeername, fd, address, length);
}
static ssize_t direct_sendto(int fd, const void *data, size_t size, int flags,
                             const struct sockaddr *address, socklen_t length) {
    return syscall(SYS_sendto, fd, data, size, flags, address, length);
}
static ssize_t direct_recvfrom(int fd, void *data, size_t size, int flags, struct sockaddr *address,
                               socklen_t *length) {
    return syscall(SYS_recvfrom, fd, data, size, flags, address, length);
}
static int direct_listen(int fd, int backlog) { return syscall(SYS_listen, fd, backlog); }
static int direct_setsockopt(int fd, int level, int option, const void *value, socklen_t length) {
    return syscall(SYS_setsockopt, fd, level, option, value, length);
}
static ssize_t direct_sendmsg(int fd, const struct msghdr *message, int flags) {
    return syscall(SYS_sendmsg, fd, message, flags);
}
static ssize_t direct_recvmsg(int fd, struct msghdr *message, int flags) {
    return syscall(SYS_recvmsg, fd, message, flags);
}
static int direct_sendmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags) {
    return syscall(SYS_sendmmsg, fd, messages, count, flags);
}
static int direct_recvmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags,
                           struct timespec *timeout) {
    return syscall(SYS_recvmmsg, fd, messages, count, flags, timeout);
}
static const struct calls direct = {
    direct_bind,    direct_connect,  direct_accept,  direct_getsockname, direct_getpeername,
    direct_sendto,  direct_recvfrom, direct_listen,  direct_setsockopt,  direct_sendmsg,
    direct_recvmsg, direct_sendmmsg, direct_recvmmsg};
static struct calls measured_calls;

/* The floor: direct calls with only the additional system calls that every hook needs. Before a
 * connect or the first send of a UDP socket, these calls read its protocol and bind it to V. The
 * mark of a socket is its read-write hint. A call reads the mark before each send, and another call
 * sets the mark before the first send. */
static void read_mark(int fd, uint64_t *hint) { syscall(SYS_fcntl, fd, F_GET_RW_HINT, hint); }
static void query_protocol_and_bind_to_v(int fd) {
    struct sockaddr_in virtual_ip = make_address(getenv("BENCH_V"), 0);
    int protocol;
    socklen_t length = sizeof protocol;
    syscall(SYS_getsockopt, fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &length);
    direct_bind(fd, (void *)&virtual_ip, sizeof virtual_ip);
}
static int floor_connect(int fd, const struct sockaddr *address, socklen_t length) {
    query_protocol_and_bind_to_v(fd);
    return direct_connect(fd, address, length);
}
static ssize_t floor_sendto(int fd, const void *data, size_t size, int flags,
                            const struct sockaddr *address, socklen_t length) {
    uint64_t hint = 0;
    read_mark(fd, &hint);
    if (hint == 0) {
        query_protocol_and_bind_to_v(fd);
        hint = RWH_WRITE_LIFE_EXTREME;
        syscall(SYS_fcntl, fd, F_SET_RW_HINT, &hint);
    }
    return direct_sendto(fd, data, size, flags, address, length);
}
static const struct calls floor_calls = {.bind = direct_bind,
                                         .connect = floor_connect,
                                         .accept = direct_accept,
                                         .getsockname = direct_getsockname,
                                         .getpeername = direct_getpeername,
                                         .sendto = floor_sendto,
                                         .recvfrom = direct_recvfrom};

static const char *host;
static int socket_on_l, socket_on_v, connected_to_host, connected_to_v, tcp_service, udp_service,
    udp_client, session_udp_client, session_tcp_service, session_udp_service;
static int tcp_port, udp_port;

static int read_socket_name(const struct calls *calls, int fd) {
    struct sockaddr_in address;
    socklen_t length = sizeof address;
    return calls->getsockname(fd, (void *)&address, &length);
}
static int getsockname_on_l(const struct calls *calls) {
    return read_socket_name(calls, socket_on_l);
}
static int getsockname_on_v(const struct calls *calls) {
    return read_socket_name(calls, socket_on_v);
}
static int read_peer_name(const struct calls *calls, int fd) {
    struct sockaddr_in address;
    socklen_t length = sizeof address;
    return calls->getpeername(fd, (void *)&address, &length);
}
static int getpeername_of_host(const struct calls *calls) {
    return read_peer_name(calls, connected_to_host);
}
static int getpeername_of_v(const struct calls *calls) {
    return read_peer_name(calls, connected_to_v);
}
static int bind_cycle(const struct calls *calls) {
    struct sockaddr_in address = make_address("127.0.0.1", 8900);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    int error = calls->bind(fd, (void *)&address, sizeof address);
    close(fd);
    return error;
}
static int udp_connect(const struct calls *calls) {
    struct sockaddr_in address = make_address(host, 8901);
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    int error = calls->connect(fd, (void *)&address, sizeof address);
    close(fd);
    return error;
}
static int connect_and_accept(const struct calls *calls, const char *destination, int port,
                              int listener) {
    struct sockaddr_in address = make_address(destination, port), from;
    struct linger reset_on_close = {1, 0};
    socklen_t length = sizeof from;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset_on_close, sizeof reset_on_close);
    int error = calls->connect(fd, (void *)&address, sizeof address);
    int accepted = error ? -1 : calls->accept(listener, (void *)&from, &length);
    close(fd);
    if (accepted >= 0) close(accepted);
    return error;
}
static int connect_cycle(const struct calls *calls) {
    return connect_and_accept(calls, host, tcp_port, tcp_service);
}
/* The session's L: the destination of the direct calls. The hooked calls use 127.0.0.1 instead. */
static char loopback_address[32];
static int session_connect_cycle(const struct calls *calls) {
    return connect_and_accept(calls, calls == &direct ? loopback_address : "127.0.0.1", 8903,
                              session_tcp_service);
}
static int send_receive(const struct calls *calls, int sender, struct sockaddr_in address,
                        int receiver) {
    struct sockaddr_in from;
    socklen_t length = sizeof from;
    char data[64] = {0};
    if (calls->sendto(sender, data, sizeof data, 0, (void *)&address, sizeof address) < 0)
        return -1;
    return calls->recvfrom(receiver, data, sizeof data, MSG_DONTWAIT, (void *)&from, &length) < 0;
}
static int send_receive_cycle(const struct calls *calls) {
    return send_receive(calls, udp_client, make_address(host, udp_port), udp_service);
}
static int first_send_cycle(const struct calls *calls) {
    struct sockaddr_in address = make_address(host, udp_port);
    char data[64] = {0};
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    int error = calls->sendto(fd, data, sizeof data, 0, (void *)&address, sizeof address) < 0;
    close(fd);
    return direct_recvfrom(udp_service, data, sizeof data, MSG_DONTWAIT, NULL, NULL) < 0 || error;
}
static int session_port_cycle(const struct calls *calls) {
    return send_receive(calls, session_udp_client,
                        make_address(calls == &direct ? loopback_address : "127.0.0.1", 8904),
                        session_udp_service);
}

static int repeat_listen(const struct calls *calls) { return calls->listen(socket_on_l, 64); }
static int set_keepalive(const struct calls *calls) {
    int enabled = 1;
    return calls->setsockopt(socket_on_l, SOL_SOCKET, SO_KEEPALIVE, &enabled, sizeof enabled);
}
static int message_cycle(const struct calls *calls) {
    struct sockaddr_in to = make_address(host, udp_port), from;
    char data[64] = {0};
    struct iovec iov = {data, sizeof data};
    struct msghdr message = {
        .msg_name = &to, .msg_namelen = sizeof to, .msg_iov = &iov, .msg_iovlen = 1};
    if (calls->sendmsg(udp_client, &message, 0) < 0) return -1;
    message.msg_name = &from;
    return calls->recvmsg(udp_service, &message, MSG_DONTWAIT) < 0;
}
/* The message headers are on the heap, as in many programs, so the hook must probe the memory. */
#define MESSAGE_COUNT 8
static int message_batch_cycle(const struct calls *calls) {
    static struct mmsghdr *messages;
    struct sockaddr_in to = make_address(host, udp_port), from;
    char data[64] = {0};
    struct iovec iov = {data, sizeof data};
    if (!messages) messages = calloc(MESSAGE_COUNT, sizeof *messages);
    for (int i = 0; i < MESSAGE_COUNT; i++)
        messages[i].msg_hdr = (struct msghdr){
            .msg_name = &to, .msg_namelen = sizeof to, .msg_iov = &iov, .msg_iovlen = 1};
    if (calls->sendmmsg(udp_client, messages, MESSAGE_COUNT, 0) != MESSAGE_COUNT) return -1;
    for (int i = 0; i < MESSAGE_COUNT; i++) messages[i].msg_hdr.msg_name = &from;
    int received = calls->recvmmsg(udp_service, messages, MESSAGE_COUNT, MSG_DONTWAIT, NULL);
    return received != MESSAGE_COUNT;
}

static double monotonic_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1e9 + now.tv_nsec;
}

static int compare_doubles(const void *left, const void *right) {
    double left_value = *(const double *)left, right_value = *(const double *)right;
    return (left_value > right_value) - (left_value < right_value);
}
static double median(double *values) {
    qsort(values, BLOCK_COUNT, sizeof *values, compare_doubles);
    return values[BLOCK_COUNT / 2];
}

static double measure_block(int (*operation)(const struct calls *), const struct calls *calls,
                            int repetitions) {
    double start = monotonic_ns();
    for (int i = 0; i < repetitions; i++) operation(calls);
    return (monotonic_ns() - start) / repetitions;
}

/* The selected operation, or NULL for all. */
static const char *selected_operation;

static void measure(const char *name, int (*operation)(const struct calls *), int repetitions) {
    if (selected_operation && strcmp(selected_operation, name)) return;
    static double direct_ns[BLOCK_COUNT], hooked_ns[BLOCK_COUNT], differences[BLOCK_COUNT],
        ratios[BLOCK_COUNT];
    if (operation(&direct) || operation(&measured_calls)) {
        printf("%s -\n", name);
        return;
    }
    measure_block(operation, &direct, repetitions);
    measure_block(operation, &measured_calls, repetitions);
    for (int i = 0; i < BLOCK_COUNT; i++) {
        /* The order of the two variants alternates, so that neither variant benefits more from warm
         * caches. */
        if (i % 2) direct_ns[i] = measure_block(operation, &direct, repetitions);
        hooked_ns[i] = measure_block(operation, &measured_calls, repetitions);
        if (i % 2 == 0) direct_ns[i] = measure_block(operation, &direct, repetitions);
        differences[i] = hooked_ns[i] - direct_ns[i];
        ratios[i] = hooked_ns[i] / direct_ns[i];
    }
    printf("%s %.1f %.1f %.1f %.3f\n", name, median(direct_ns), median(hooked_ns),
           median(differences), median(ratios));
    fflush(stdout);
}

static int bound_socket(int type, const char *bind_host, int port) {
    struct sockaddr_in address = make_address(bind_host, port);
    int fd = socket(AF_INET, type, 0);
    if (direct_bind(fd, (void *)&address, sizeof address)) perror(bind_host);
    if (type == SOCK_STREAM) listen(fd, 64);
    return fd;
}
static int socket_port(int fd) {
    struct sockaddr_in address;
    socklen_t length = sizeof address;
    direct_getsockname(fd, (void *)&address, &length);
    return ntohs(address.sin_port);
}

int main(int count, char **arguments) {
    selected_operation = count > 1 ? arguments[1] : NULL;
    /* With another interposing library, a call may block forever. */
    alarm(selected_operation ? 5 : 120);
    measured_calls = (struct calls){.bind = bind,
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
    snprintf(loopback_address, sizeof loopback_address, "%s", l);
    socket_on_l = bound_socket(SOCK_STREAM, l, 8902);
    socket_on_v = bound_socket(SOCK_STREAM, v, 8902);
    tcp_service = bound_socket(SOCK_STREAM, host, 0);
    tcp_port = socket_port(tcp_service);
    udp_service = bound_socket(SOCK_DGRAM, host, 0);
    udp_port = socket_port(udp_service);
    session_tcp_service = bound_socket(SOCK_STREAM, l, 8903);
    session_udp_service = bound_socket(SOCK_DGRAM, l, 8904);
    /* The client sends to `udp_service`, whose address is neither V nor L. So the hook treats this
     * address like an external address. */
    udp_client = bound_socket(SOCK_DGRAM, host, 0);
    session_udp_client = bound_socket(SOCK_DGRAM, l, 0);
    connected_to_host = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in to = make_address(host, tcp_port);
    direct_connect(connected_to_host, (void *)&to, sizeof to);
    direct_accept(tcp_service, NULL, NULL);
    connected_to_v = socket(AF_INET, SOCK_STREAM, 0);
    to = make_address(v, 8902);
    direct_connect(connected_to_v, (void *)&to, sizeof to);
    if (getenv("BENCH_FLOOR")) {
        measured_calls = floor_calls;
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
    measure("sendmmsg-recvmmsg-8", message_batch_cycle, 50);
    measure("listen", repeat_listen, 1000);
    measure("setsockopt", set_keepalive, 1000);
    measure("sendto-recvfrom-own-port", session_port_cycle, 200);
    measure("connect-own-first", session_connect_cycle, 30);
    /* The process has connected within its session. So the visible address of a socket on V may
     * depend on its peer. */
    measure("getsockname-of-V-talked", getsockname_on_v, 2000);
    measure("getpeername-of-V-talked", getpeername_of_v, 2000);
    return 0;
}
