/* What the test programs share. See matrix.h. */
#include "matrix.h"

#include <signal.h>

int listed;
const char *V, *L, *L6, *V6;

struct address at(const char *host, int port) {
    struct address a;
    memset(&a, 0, sizeof a);
    struct sockaddr_in *v4 = (void *)&a.bytes;
    struct sockaddr_in6 *v6 = (void *)&a.bytes;
    if (inet_pton(AF_INET, host, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons(port);
        a.length = sizeof *v4;
    } else if (inet_pton(AF_INET6, host, &v6->sin6_addr) == 1) {
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons(port);
        a.length = sizeof *v6;
    } else {
        fprintf(stderr, "%s is no address\n", host);
        exit(2);
    }
    return a;
}

struct address on_link(const char *host, int port) {
    struct address a = at(host, port);
    ((struct sockaddr_in6 *)&a.bytes)->sin6_scope_id = if_nametoindex("v0");
    return a;
}

static char *scratch(void) {
    static char texts[64][128];
    static unsigned next;
    return texts[next++ % 64];
}

const char *text_of(const struct sockaddr_storage *bytes) {
    char *text = scratch(), host[64] = "?";
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

const char *host_port(const char *host, int port) {
    char *text = scratch();
    snprintf(text, 128, strchr(host, ':') ? "[%s]:%d" : "%s:%d", host, port);
    return text;
}

static const char *name(int fd, int peer, int raw) {
    struct sockaddr_storage bytes;
    socklen_t length = sizeof bytes;
    memset(&bytes, 0, sizeof bytes);
    long failed = raw ? syscall(peer ? SYS_getpeername : SYS_getsockname, fd, &bytes, &length)
                  : peer ? getpeername(fd, (void *)&bytes, &length)
                         : getsockname(fd, (void *)&bytes, &length);
    return failed ? result(failed) : text_of(&bytes);
}

const char *seen(int fd) { return name(fd, 0, 0); }
const char *seen_peer(int fd) { return name(fd, 1, 0); }
const char *kernel(int fd) { return name(fd, 0, 1); }
const char *kernel_peer(int fd) { return name(fd, 1, 1); }

int port_of(int fd) {
    const char *text = kernel(fd);
    return atoi(strrchr(text, ':') + 1);
}

const char *result(long value) { return value >= 0 ? "ok" : strerrorname_np(errno); }

void expect_listed(const char *what, const char *got, const char *when_listed,
                   const char *otherwise) {
    const char *wanted = listed ? when_listed : otherwise;
    if (strcmp(got, wanted) != 0) {
        printf("FAILED: %s: got %s, wanted %s\n", what, got, wanted);
        exit(1);
    }
}

void expect(const char *what, const char *got, const char *wanted) {
    /* The transcript of what a program sees must be the same however it is run. */
    printf("%s = %s\n", what, got);
    expect_listed(what, got, wanted, wanted);
}

void expect_alike(const char *what, const char *got, const char *wanted) {
    expect_listed(what, got, wanted, wanted);
}

int one(int fd, int level, int option) {
    int on = 1;
    return setsockopt(fd, level, option, &on, sizeof on);
}

int tcp(void) { return socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0); }
int udp(void) { return socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0); }
int tcp6(void) { return socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0); }
int udp6(void) { return socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0); }

const char *try_bind(int fd, const char *host, int port) {
    struct address a = at(host, port);
    return result(bind(fd, (void *)&a.bytes, a.length));
}

const char *try_connect(int fd, const char *host, int port) {
    struct address a = at(host, port);
    return result(connect(fd, (void *)&a.bytes, a.length));
}

int listener(const char *host, int port) {
    int fd = strchr(host, ':') ? tcp6() : tcp();
    /* What an earlier run left in TIME_WAIT is not in the way. */
    one(fd, SOL_SOCKET, SO_REUSEADDR);
    const char *bound = try_bind(fd, host, port);
    if (strcmp(bound, "ok") != 0 || listen(fd, 512) != 0) {
        printf("FAILED: no listener on %s port %d: %s\n", host, port, bound);
        exit(1);
    }
    return fd;
}

const char *answered(int fd) {
    char *text = scratch();
    ssize_t length = recv(fd, text, 127, 0);
    if (length < 0) return result(length);
    text[length] = 0;
    return text;
}

static const char *variable(const char *name) {
    const char *value = getenv(name);
    return value ? value : "?";
}

void matrix_setup(void) {
    signal(SIGPIPE, SIG_IGN);
    listed = getenv("MATRIX_LISTED") != NULL;
    V = variable("MATRIX_V"), L = variable("MATRIX_L");
    L6 = variable("MATRIX_L6"), V6 = variable("MATRIX_V6");
}
