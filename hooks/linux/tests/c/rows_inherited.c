/* Tests the rows of the socket matrix that need a second process. The two processes connect to each
 * other or share a socket. The hook in one process does not intercept the calls of the other
 * process. See matrix.h. */
#include "matrix.h"

#include <sys/wait.h>

/* Starts this program again in a child process, which calls `run_helper` with `mode`. The child
 * inherits `fd` as descriptor 10, unless `fd` is negative. */
static pid_t spawn_helper(int fd, const char *mode, const char *host, int port) {
    char port_text[16];
    snprintf(port_text, sizeof port_text, "%d", port);
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        if (fd >= 0 && dup2(fd, 10) < 0) _exit(3);
        execl("/proc/self/exe", "helper", mode, host, port_text, NULL);
        _exit(4);
    }
    return child;
}

/* Expects that the helper process exits with status 0. */
static void expect_success(pid_t child) {
    int status;
    waitpid(child, &status, 0);
    expect("helper process", status == 0 ? "ok" : "failed", "ok");
}

/* Expects that getsockname and getpeername return `host` with the ports that the kernel stores. */
static void expect_visible_names(int fd, const char *host) {
    expect_unprinted("getsockname", visible_name(fd), format_host_port(host, kernel_port(fd)));
    const char *peer = kernel_peer(fd);
    expect_unprinted("getpeername", visible_peer(fd),
                     format_host_port(host, atoi(strrchr(peer, ':') + 1)));
}

/* Passes a descriptor over a Unix socket. */
static void send_fd(int channel, int fd) {
    char byte = 0, control[CMSG_SPACE(sizeof fd)] = {0};
    struct iovec iov = {&byte, 1};
    struct msghdr message = {.msg_iov = &iov,
                             .msg_iovlen = 1,
                             .msg_control = control,
                             .msg_controllen = sizeof control};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(header), &fd, sizeof fd);
    expect_unprinted("send the descriptor", errno_text(sendmsg(channel, &message, 0)), "ok");
}

/* Receives a descriptor over a Unix socket. */
static int receive_fd(int channel) {
    int fd = -1;
    char byte, control[CMSG_SPACE(sizeof fd)];
    struct iovec iov = {&byte, 1};
    struct msghdr message = {.msg_iov = &iov,
                             .msg_iovlen = 1,
                             .msg_control = control,
                             .msg_controllen = sizeof control};
    expect_unprinted("receive the descriptor", errno_text(recvmsg(channel, &message, 0)), "ok");
    memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof fd);
    return fd;
}

/* Waits until the other process sends a byte. */
static void wait_for_byte(int channel) {
    char byte;
    expect_unprinted("wait for a byte", read(channel, &byte, 1) == 1 ? "ok" : "ended", "ok");
}

/* Sends a byte to the other process. */
static void send_byte(int channel) {
    expect_unprinted("send a byte", write(channel, "x", 1) == 1 ? "ok" : "failed", "ok");
}

int run_helper(const char *mode, const char *host, int port) {
    int fd = -1;
    if (strcmp(mode, "connect") == 0) {
        fd = strchr(host, ':') ? tcp6_socket() : tcp_socket();
        expect_unprinted("connect", try_connect(fd, host, port), "ok");
        expect_visible_names(fd, host);
    } else if (strcmp(mode, "bind-connect") == 0) {
        fd = tcp6_socket();
        expect_unprinted("bind", try_bind(fd, "::", 0), "ok");
        expect_unprinted("connect", try_connect(fd, host, port), "ok");
        expect_visible_names(fd, host);
    } else if (strcmp(mode, "check-names") == 0) {
        expect_visible_names(10, host);
        return 0;
    } else if (strcmp(mode, "check-fd-300") == 0) {
        expect_visible_names(300, host);
        return 0;
    } else if (strcmp(mode, "check-received") == 0) {
        send_byte(10);
        expect_visible_names(receive_fd(10), host);
        return 0;
    } else if (strcmp(mode, "connect-received") == 0) {
        fd = receive_fd(10);
        expect_unprinted("connect", try_connect(fd, host, port), "ok");
        send_byte(10);
    } else if (strcmp(mode, "check-after-connect") == 0) {
        /* The parent connects the socket of descriptor 11 after this process has inherited it. */
        send_byte(10);
        wait_for_byte(10);
        expect_visible_names(11, host);
        return 0;
    } else if (strcmp(mode, "bind-raw") == 0) {
        expect_unprinted("bind", try_bind(10, host, port), "ok");
        expect_unprinted("kernel name", strstr(kernel_name(10), host) ? host : kernel_name(10),
                         host);
        return 0;
    } else {
        return -1;
    }
    /* Keep the connection open until the other end has checked it. */
    char byte;
    return recv(fd, &byte, 1, 0) != 0;
}

/* An accepted socket has the right visible names, even if the program passes no address buffer to
 * accept, or a buffer that is too small. */
static void accept_without_buffer_keeps_visible_names(void) {
    int listener = listen_on(ANY, 8220), loopback_listener = listen_on(LOOPBACK, 8320);
    pid_t child = spawn_helper(-1, "connect", LOOPBACK, 8320);
    int accepted = accept(loopback_listener, NULL, NULL);
    expect_visible_names(accepted, LOOPBACK);
    close(accepted);
    expect_success(child);
    child = spawn_helper(-1, "connect", LOOPBACK, 8220);
    accepted = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    expect_visible_names(accepted, LOOPBACK);
    expect_listed("kernel name", kernel_name(accepted), format_host_port(V, 8220),
                  "127.0.0.1:8220");
    close(accepted);
    expect_success(child);
    /* The buffer is too small for the address. */
    char short_buffer[2];
    socklen_t length = sizeof short_buffer;
    child = spawn_helper(-1, "connect", LOOPBACK, 8220);
    accepted = accept(listener, (void *)short_buffer, &length);
    expect("length", length == 16 ? "16" : "other", "16");
    expect_visible_names(accepted, LOOPBACK);
    close(accepted);
    expect_success(child);
}

/* A socket that is bound to the wildcard address can connect to ::1. */
static void socket_bound_to_wildcard_connects_to_ipv6_loopback(void) {
    int listener = listen_on("::1", 8232);
    pid_t child = spawn_helper(-1, "bind-connect", "::1", 8232);
    int accepted = accept(listener, NULL, NULL);
    expect_visible_names(accepted, "::1");
    close(accepted);
    expect_success(child);
}

/* Calls on sockets that are neither TCP nor UDP are not rewritten, even if another process created
 * the socket. MPTCP sockets are rewritten like TCP sockets. */
static void other_protocols_are_not_rewritten(void) {
    int fd = syscall(SYS_socket, AF_INET, SOCK_RAW, IPPROTO_ICMP);
    expect("raw socket", errno_text(fd), "ok");
    expect_success(spawn_helper(fd, "bind-raw", LOOPBACK, 8034));
    fd = socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_ICMP);
    expect("bind", try_bind(fd, LOOPBACK, 8034), "ok");
    expect("kernel name", kernel_name(fd), "127.0.0.1:1");
    /* 8311 is one of the own-ports. */
    expect("connect", try_connect(fd, LOOPBACK, 8311), "ok");
    expect("kernel peer", kernel_peer(fd), "127.0.0.1:8311");
    expect("bind of a Unix socket", try_bind(socket(AF_UNIX, SOCK_STREAM, 0), LOOPBACK, 8034),
           "EINVAL");
    fd = socket(AF_INET, SOCK_STREAM, IPPROTO_MPTCP);
    expect("mptcp", try_bind(fd, LOOPBACK, 8134), "ok");
    expect_listed("kernel name", kernel_name(fd), format_host_port(L, 8134), "127.0.0.1:8134");
}

/* A program sees the visible names of a socket that it inherits through exec, as under inetd. */
static void inherited_socket_has_visible_names(void) {
    int listener = listen_on(ANY, 8135);
    pid_t client = spawn_helper(-1, "connect", LOOPBACK, 8135);
    /* Use a direct system call, so that the hook in this process does not intercept the accept. */
    int accepted = syscall(SYS_accept, listener, NULL, NULL);
    fcntl(accepted, F_SETFD, FD_CLOEXEC);
    expect_success(spawn_helper(accepted, "check-names", LOOPBACK, 0));
    /* At program start, the hook calls poll(2) for the descriptors below 256. If a higher
     * descriptor is open, the hook reads /proc/self/fd instead. */
    dup2(accepted, 300);
    expect_success(spawn_helper(-1, "check-fd-300", LOOPBACK, 0));
    close(300);
    close(accepted);
    expect_success(client);
    /* The parent connects the socket after the child has inherited it. */
    int channel_pair[2], fd = socket(AF_INET, SOCK_STREAM, 0);
    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, channel_pair);
    dup2(fd, 11);
    pid_t child = spawn_helper(channel_pair[1], "check-after-connect", LOOPBACK, 0);
    wait_for_byte(channel_pair[0]);
    expect("connect", try_connect(fd, LOOPBACK, 8135), "ok");
    send_byte(channel_pair[0]);
    expect_success(child);
}

/* A program sees the visible names of a socket that it receives in a message. */
static void received_socket_has_visible_names(void) {
    int listener = listen_on(ANY, 8235), channel_pair[2];
    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, channel_pair);
    pid_t client = spawn_helper(-1, "connect", LOOPBACK, 8235);
    int accepted = syscall(SYS_accept, listener, NULL, NULL);
    /* The child receives the descriptor after the hook has scanned the inherited descriptors. */
    pid_t child = spawn_helper(channel_pair[1], "check-received", LOOPBACK, 0);
    wait_for_byte(channel_pair[0]);
    send_fd(channel_pair[0], accepted);
    expect_success(child);
    close(accepted);
    expect_success(client);
    /* The receiver connects the socket, and the sender checks the socket's visible names. */
    int fd = tcp_socket();
    child = spawn_helper(channel_pair[1], "connect-received", LOOPBACK, 8235);
    send_fd(channel_pair[0], fd);
    wait_for_byte(channel_pair[0]);
    expect_visible_names(fd, LOOPBACK);
    shutdown(accept(listener, NULL, NULL), SHUT_WR);
    expect_success(child);
}

/* The parent sees the visible names of a socket that a forked child connects. */
static void child_connect_is_visible_to_parent(void) {
    int listener = listen_on(ANY, 8335), fd = tcp_socket();
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) _exit(strcmp(try_connect(fd, LOOPBACK, 8335), "ok") != 0);
    expect_success(child);
    expect_visible_names(fd, LOOPBACK);
    expect_visible_names(accept(listener, NULL, NULL), LOOPBACK);
}

const struct row inherited_rows[] = {
    {"20-null-address", accept_without_buffer_keeps_visible_names},
    {"32-wildcard", socket_bound_to_wildcard_connects_to_ipv6_loopback},
    {"34-protocols", other_protocols_are_not_rewritten},
    {"35-inherited", inherited_socket_has_visible_names},
    {"35-passed", received_socket_has_visible_names},
    {"35-forked", child_connect_is_visible_to_parent},
    {NULL, NULL},
};
