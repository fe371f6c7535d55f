/* Tests the rows of the socket matrix for invalid arguments, short buffers, other address families
 * and errno. See matrix.h. */
#include "matrix.h"

#include <sys/mman.h>

static void *map_inaccessible_page(void) {
    return mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

/* Calls with invalid pointers or lengths fail with the same errors as without the hook. */
static void invalid_arguments_fail_as_unhooked(void) {
    struct address local = make_address(LOOPBACK, 8016);
    char long_address[129] = {0};
    memcpy(long_address, &local.bytes, sizeof(struct sockaddr_in));
    void *inaccessible_page = map_inaccessible_page();
    const struct sockaddr *bad_pointers[] = {NULL, inaccessible_page, (void *)1, (void *)-1,
                                             (void *)~0xfffUL};
    for (unsigned i = 0; i < 5; i++) {
        expect("bind with a bad pointer", errno_text(bind(tcp_socket(), bad_pointers[i], 16)),
               "EFAULT");
        expect("connect with a bad pointer", errno_text(connect(tcp_socket(), bad_pointers[i], 16)),
               "EFAULT");
        expect("sendto with a bad pointer",
               errno_text(sendto(udp_socket(), "x", 1, 0, bad_pointers[i], 16)),
               bad_pointers[i] ? "EFAULT" : "EDESTADDRREQ");
        socklen_t length = 16;
        int fd = tcp_socket();
        try_bind(fd, LOOPBACK, 0);
        expect("getsockname with a bad pointer",
               errno_text(getsockname(fd, (void *)bad_pointers[i], &length)), "EFAULT");
        expect("getsockname with a bad length pointer",
               errno_text(getsockname(fd, (void *)&local.bytes, (void *)bad_pointers[i])),
               "EFAULT");
    }
    local = make_address(LOOPBACK, 8016);
    expect("bind with length 0", errno_text(bind(tcp_socket(), (void *)&local.bytes, 0)), "EINVAL");
    expect("bind with length 8", errno_text(bind(tcp_socket(), (void *)&local.bytes, 8)), "EINVAL");
    expect("bind with a negative length", errno_text(bind(tcp_socket(), (void *)&local.bytes, -1)),
           "EINVAL");
    expect("bind with length 129", errno_text(bind(tcp_socket(), (void *)long_address, 129)),
           "EINVAL");
    int fd = tcp_socket();
    expect("bind with length 128", errno_text(bind(fd, (void *)long_address, 128)), "ok");
    expect_listed("kernel name", kernel_name(fd), format_host_port(L, 8016), "127.0.0.1:8016");
    expect("bind of a file", errno_text(bind(0, (void *)&local.bytes, local.length)), "ENOTSOCK");
    expect("bind without a descriptor", errno_text(bind(-1, (void *)&local.bytes, local.length)),
           "EBADF");
    expect("connect without a descriptor",
           errno_text(connect(-1, (void *)&local.bytes, local.length)), "EBADF");
    expect("listen without a descriptor", errno_text(listen(-1, 1)), "EBADF");
    /* The address is at the end of a page, and the next page is inaccessible. */
    char *pages = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(pages + 4096, 4096, PROT_NONE);
    struct address edge_address = make_address(LOOPBACK, 8116);
    memcpy(pages + 4096 - 16, &edge_address.bytes, 16);
    expect("at the edge", errno_text(bind(tcp_socket(), (void *)(pages + 4096 - 16), 16)), "ok");
    expect("beyond the edge", errno_text(bind(tcp_socket(), (void *)(pages + 4096 - 16), 28)),
           "EFAULT");
}

/* getsockname truncates the address to the size of the buffer, and reports the whole length. */
static void truncated_name_has_whole_length(void) {
    int fd = tcp_socket();
    expect("bind", try_bind(fd, LOOPBACK, 8017), "ok");
    for (socklen_t capacity = 0; capacity <= 20; capacity++) {
        unsigned char buffer[24], expected_bytes[24];
        struct sockaddr_storage whole_name;
        socklen_t length = sizeof whole_name;
        memset(buffer, 0xaa, sizeof buffer);
        memset(expected_bytes, 0xaa, sizeof expected_bytes);
        getsockname(fd, (void *)&whole_name, &length);
        memcpy(expected_bytes, &whole_name, capacity < 16 ? capacity : 16);
        length = capacity;
        expect("getsockname", errno_text(getsockname(fd, (void *)buffer, &length)), "ok");
        expect("length", length == 16 ? "16" : "other", "16");
        expect("buffer",
               memcmp(buffer, expected_bytes, sizeof buffer) == 0 ? "as expected" : "different",
               "as expected");
    }
    socklen_t negative_length = -1;
    struct sockaddr_in buffer;
    expect("negative length", errno_text(getsockname(fd, (void *)&buffer, &negative_length)),
           "EINVAL");
}

/* Calls with addresses that are neither IPv4 nor IPv6 are not rewritten. */
static void other_families_are_not_rewritten(void) {
    struct sockaddr_un name = {.sun_family = AF_UNIX, .sun_path = "\0vipool-matrix-34"};
    socklen_t length = sizeof(sa_family_t) + 17;
    int service = socket(AF_UNIX, SOCK_STREAM, 0), fd = socket(AF_UNIX, SOCK_STREAM, 0);
    expect("bind", errno_text(bind(service, (void *)&name, length)), "ok");
    expect("listen", errno_text(listen(service, 1)), "ok");
    expect("connect", errno_text(connect(fd, (void *)&name, length)), "ok");
    struct sockaddr_un peer;
    socklen_t peer_length = sizeof peer;
    expect("getpeername", errno_text(getpeername(fd, (void *)&peer, &peer_length)), "ok");
    expect("peer name", peer_length == length && !memcmp(&peer, &name, length) ? "same" : "other",
           "same");
    int netlink = socket(AF_NETLINK, SOCK_RAW, 0);
    struct sockaddr_storage netlink_address = {.ss_family = AF_NETLINK};
    expect("netlink", errno_text(bind(netlink, (void *)&netlink_address, 12)), "ok");
    struct address ipv4_address = make_address(LOOPBACK, 8034);
    expect("bind of a Unix socket to an IPv4 address",
           errno_text(bind(fd, (void *)&ipv4_address.bytes, ipv4_address.length)), "EINVAL");
    expect("connect of a Unix socket to an IPv4 address",
           errno_text(connect(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&ipv4_address.bytes,
                              ipv4_address.length)),
           "EINVAL");
}

/* Successful calls do not change errno. */
static void successful_calls_keep_errno(void) {
    int fd = tcp_socket(), service = tcp_socket();
    struct sockaddr_storage name;
    socklen_t length = sizeof name;
    enable_option(service, SOL_SOCKET, SO_REUSEADDR);
    errno = EDOM;
    try_bind(service, LOOPBACK, 8045);
    expect("bind", strerrorname_np(errno), "EDOM");
    listen(service, 1);
    expect("listen", strerrorname_np(errno), "EDOM");
    try_connect(fd, LOOPBACK, 8045);
    expect("connect", strerrorname_np(errno), "EDOM");
    close(accept(service, (void *)&name, &length));
    expect("accept", strerrorname_np(errno), "EDOM");
    getsockname(fd, (void *)&name, &length);
    getpeername(fd, (void *)&name, &length);
    expect("getsockname and getpeername", strerrorname_np(errno), "EDOM");
    fd = tcp_socket();
    try_connect(fd, LOOPBACK, 8211);
    expect("connect to the host's service", strerrorname_np(errno), "EDOM");
    fd = tcp_socket();
    try_connect(fd, EXTERNAL_ADDRESS, 7);
    expect("connect to an external address", strerrorname_np(errno), "EDOM");
    fd = udp_socket();
    struct address destination = make_address(EXTERNAL_ADDRESS, 7);
    sendto(fd, "x", 1, 0, (void *)&destination.bytes, destination.length);
    expect("sendto", strerrorname_np(errno), "EDOM");
    listen(tcp_socket(), 1);
    expect("listen unbound", strerrorname_np(errno), "EDOM");
    setsockopt(fd, IPPROTO_IP, IP_MULTICAST_IF, &(struct in_addr){INADDR_ANY}, 4);
    expect("setsockopt", strerrorname_np(errno), "EDOM");
}

/* Successful calls that send or receive messages do not change errno, even if sendmmsg stops before
 * an invalid message. */
static void successful_message_calls_keep_errno(void) {
    struct address loopback_destination = make_address(LOOPBACK, 8145),
                   external_destination = make_address(EXTERNAL_ADDRESS, 7),
                   destinations[] = {loopback_destination, external_destination};
    struct sockaddr_storage name;
    socklen_t length = sizeof name;
    char byte = 0;
    struct iovec iov = {&byte, 1}, bad_iov = {(void *)8, 1};
    struct mmsghdr messages[12];
    int service = udp_socket();
    expect("bind", try_bind(service, LOOPBACK, 8145), "ok");
    for (int i = 0; i < 2; i++) {
        int fd = udp_socket();
        struct msghdr message = {.msg_name = &destinations[i].bytes,
                                 .msg_namelen = destinations[i].length,
                                 .msg_iov = &iov,
                                 .msg_iovlen = 1};
        for (int position = 0; position < 12; position++)
            messages[position] = (struct mmsghdr){.msg_hdr = message};
        errno = EDOM;
        sendto(fd, &byte, 1, 0, (void *)&destinations[i].bytes, destinations[i].length);
        expect("sendto", strerrorname_np(errno), "EDOM");
        sendmsg(fd, &message, 0);
        expect("sendmsg", strerrorname_np(errno), "EDOM");
        expect("sendmmsg", sendmmsg(fd, messages, 12, 0) == 12 ? "12" : "other", "12");
        expect("errno", strerrorname_np(errno), "EDOM");
        for (int position = 1; position < 12; position++) {
            messages[position].msg_hdr.msg_iov = &bad_iov;
            if (position > 1) messages[position - 1].msg_hdr.msg_iov = &iov;
            expect("sendmmsg with a bad message",
                   sendmmsg(fd, messages, 12, 0) == position ? "preceding" : "other", "preceding");
            expect("errno", strerrorname_np(errno), "EDOM");
        }
        messages[0].msg_hdr.msg_iov = &bad_iov;
        expect("sendmmsg with a bad first message", errno_text(sendmmsg(fd, messages, 12, 0)),
               "EFAULT");
    }
    struct msghdr message = {
        .msg_name = &name, .msg_namelen = sizeof name, .msg_iov = &iov, .msg_iovlen = 1};
    for (int position = 0; position < 2; position++)
        messages[position] = (struct mmsghdr){.msg_hdr = message};
    errno = EDOM;
    recvfrom(service, &byte, 1, 0, (void *)&name, &length);
    expect("recvfrom", strerrorname_np(errno), "EDOM");
    recvmsg(service, &message, 0);
    expect("recvmsg", strerrorname_np(errno), "EDOM");
    expect("recvmmsg", recvmmsg(service, messages, 2, 0, NULL) == 2 ? "2" : "other", "2");
    expect("errno", strerrorname_np(errno), "EDOM");
}

const struct row error_rows[] = {
    {"16", invalid_arguments_fail_as_unhooked},
    {"17", truncated_name_has_whole_length},
    {"34", other_families_are_not_rewritten},
    {"45", successful_calls_keep_errno},
    {"45-messages", successful_message_calls_keep_errno},
    {NULL, NULL},
};
