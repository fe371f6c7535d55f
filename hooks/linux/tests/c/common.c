/* Helper functions that the test programs share. See matrix.h. */
#include "matrix.h"

#include <signal.h>

int is_listed;
const char *V, *L, *L6, *V6;

struct address make_address(const char *host, int port) {
    struct address address;
    memset(&address, 0, sizeof address);
    struct sockaddr_in *v4 = (void *)&address.bytes;
    struct sockaddr_in6 *v6 = (void *)&address.bytes;
    if (inet_pton(AF_INET, host, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons(port);
        address.length = sizeof *v4;
    } else if (inet_pton(AF_INET6, host, &v6->sin6_addr) == 1) {
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons(port);
        address.length = sizeof *v6;
    } else {
        fprintf(stderr, "%s is no address\n", host);
        exit(2);
    }
    return address;
}

struct address make_link_local(const char *host, int port) {
    struct address address = make_address(host, port);
    ((struct sockaddr_in6 *)&address.bytes)->sin6_scope_id = if_nametoindex("v0");
    return address;
}

static char *next_text_buffer(void) {
    static char texts[64][128];
    static unsigned next_index;
    return texts[next_index++ % 64];
}

const char *format_address(const struct sockaddr_storage *bytes) {
    char *text = next_text_buffer(), host[64] = "?";
    const struct sockaddr_in *v4 = (const void *)bytes;
    const struct sockaddr_in6 *v6 = (const void *)bytes;
    if (bytes->ss_family == AF_INET) {
        inet_ntop(AF_INET, &v4->sin_addr, host, sizeof host);
        snprintf(text, 128, "%s:%d", host, ntohs(v4->sin_port));
    } else if (bytes->ss_family == AF_INET6) {
        inet_ntop(AF_INET6, &v6->sin6_addr, host, sizeof host);
        snprintf(text, 128, "[%s]:%d", host, ntohs(v6->sin6_port));
    } else {
        snprintf(text, 128, "family %d", bytes->ss_family);
    }
    return text;
}

const char *format_host_port(const char *host, int port) {
    char *text = next_text_buffer();
    snprintf(text, 128, strchr(host, ':') ? "[%s]:%d" : "%s:%d", host, port);
    return text;
}

/* Returns the address of a socket or of its peer as text, or the name of errno. If `is_direct_call`
 * is set, makes a direct system call, which bypasses the hook. */
static const char *socket_name(int fd, int is_peer, int is_direct_call) {
    struct sockaddr_storage bytes;
    socklen_t length = sizeof bytes;
    memset(&bytes, 0, sizeof bytes);
    long result = is_direct_call
                      ? syscall(is_peer ? SYS_getpeername : SYS_getsockname, fd, &bytes, &length)
                  : is_peer ? getpeername(fd, (void *)&bytes, &length)
                            : getsockname(fd, (void *)&bytes, &length);
    return result ? errno_text(result) : format_address(&bytes);
}

const char *visible_name(int fd) { return socket_name(fd, 0, 0); }
const char *visible_peer(int fd) { return socket_name(fd, 1, 0); }
const char *kernel_name(int fd) { return socket_name(fd, 0, 1); }
const char *kernel_peer(int fd) { return socket_name(fd, 1, 1); }

int kernel_port(int fd) {
    const char *text = kernel_name(fd);
    return atoi(strrchr(text, ':') + 1);
}

const char *errno_text(long result) { return result >= 0 ? "ok" : strerrorname_np(errno); }

void expect_listed(const char *label, const char *actual, const char *if_listed,
                   const char *if_not_listed) {
    const char *expected = is_listed ? if_listed : if_not_listed;
    if (strcmp(actual, expected) != 0) {
        printf("FAILED: %s: actual %s, expected %s\n", label, actual, expected);
        exit(1);
    }
}

void expect(const char *label, const char *actual, const char *expected) {
    /* The test `matrix` runs each row three times: without the hook, in an unlisted program and in
     * a listed program. All runs must print the same lines. */
    printf("%s = %s\n", label, actual);
    expect_listed(label, actual, expected, expected);
}

void expect_unprinted(const char *label, const char *actual, const char *expected) {
    expect_listed(label, actual, expected, expected);
}

int enable_option(int fd, int level, int option) {
    int value = 1;
    return setsockopt(fd, level, option, &value, sizeof value);
}

int tcp_socket(void) { return socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0); }
int udp_socket(void) { return socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0); }
int tcp6_socket(void) { return socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0); }
int udp6_socket(void) { return socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0); }

const char *try_bind(int fd, const char *host, int port) {
    struct address address = make_address(host, port);
    return errno_text(bind(fd, (void *)&address.bytes, address.length));
}

const char *try_connect(int fd, const char *host, int port) {
    struct address address = make_address(host, port);
    return errno_text(connect(fd, (void *)&address.bytes, address.length));
}

int listen_on(const char *host, int port) {
    int fd = strchr(host, ':') ? tcp6_socket() : tcp_socket();
    /* Connections of an earlier run may still be in TIME_WAIT. */
    enable_option(fd, SOL_SOCKET, SO_REUSEADDR);
    const char *bind_result = try_bind(fd, host, port);
    if (strcmp(bind_result, "ok") != 0 || listen(fd, 512) != 0) {
        printf("FAILED: no listener on %s port %d: %s\n", host, port, bind_result);
        exit(1);
    }
    return fd;
}

const char *receive_text(int fd) {
    char *text = next_text_buffer();
    ssize_t length = recv(fd, text, 127, 0);
    if (length < 0) return errno_text(length);
    text[length] = 0;
    return text;
}

static const char *environment_value(const char *name) {
    const char *value = getenv(name);
    return value ? value : "?";
}

void matrix_setup(void) {
    signal(SIGPIPE, SIG_IGN);
    is_listed = getenv("MATRIX_LISTED") != NULL;
    V = environment_value("MATRIX_V"), L = environment_value("MATRIX_L");
    L6 = environment_value("MATRIX_L6"), V6 = environment_value("MATRIX_V6");
}

void init_message(struct message *message, const struct address *destination) {
    memset(message, 0, sizeof *message);
    message->part = (struct iovec){&message->byte, 1};
    message->header.msg_iov = &message->part;
    message->header.msg_iovlen = 1;
    message->header.msg_name = &message->name;
    message->header.msg_namelen = sizeof message->name;
    message->header.msg_control = &message->control;
    message->header.msg_controllen = sizeof message->control;
    if (destination) {
        message->name = destination->bytes;
        message->header.msg_namelen = destination->length;
        message->header.msg_controllen = 0;
    }
}
