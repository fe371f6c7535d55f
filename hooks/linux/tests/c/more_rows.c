/* The rows on messages, IPv6, descriptors that move, and names of hosts. */
#include "matrix.h"

#include <ifaddrs.h>
#include <limits.h>
#include <netdb.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <sys/wait.h>

#define LOOPBACK "127.0.0.1"
#define ANY "0.0.0.0"

/* A message of one byte with room for an address and for control messages. */
struct packet {
    struct msghdr header;
    struct iovec part;
    char byte;
    struct sockaddr_storage name;
    union {
        struct cmsghdr header;
        char bytes[256];
    } control;
};

static void prepare(struct packet *packet, const struct address *to) {
    memset(packet, 0, sizeof *packet);
    packet->part = (struct iovec){&packet->byte, 1};
    packet->header.msg_iov = &packet->part;
    packet->header.msg_iovlen = 1;
    packet->header.msg_name = &packet->name;
    packet->header.msg_namelen = sizeof packet->name;
    packet->header.msg_control = &packet->control;
    packet->header.msg_controllen = sizeof packet->control;
    if (to) {
        packet->name = to->bytes;
        packet->header.msg_namelen = to->length;
        packet->header.msg_controllen = 0;
    }
}

/* Names the source of a message. */
static void from(struct packet *packet, const char *source) {
    struct address a = at(source, 0);
    struct cmsghdr *control = &packet->control.header;
    if (a.bytes.ss_family == AF_INET) {
        struct in_pktinfo info = {.ipi_spec_dst = ((struct sockaddr_in *)&a.bytes)->sin_addr};
        control->cmsg_level = IPPROTO_IP;
        control->cmsg_type = IP_PKTINFO;
        control->cmsg_len = CMSG_LEN(sizeof info);
        memcpy(CMSG_DATA(control), &info, sizeof info);
        packet->header.msg_controllen = CMSG_SPACE(sizeof info);
    } else {
        struct in6_pktinfo info = {.ipi6_addr = ((struct sockaddr_in6 *)&a.bytes)->sin6_addr};
        control->cmsg_level = IPPROTO_IPV6;
        control->cmsg_type = IPV6_PKTINFO;
        control->cmsg_len = CMSG_LEN(sizeof info);
        memcpy(CMSG_DATA(control), &info, sizeof info);
        packet->header.msg_controllen = CMSG_SPACE(sizeof info);
    }
}

/* What a received message says that it was sent to. */
static const char *sent_to(struct packet *packet) {
    static char texts[4][64];
    static int next;
    char *text = texts[next++ % 4];
    strcpy(text, "nothing");
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&packet->header); c; c = CMSG_NXTHDR(&packet->header, c)) {
        struct in_pktinfo v4;
        struct in6_pktinfo v6;
        if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
            memcpy(&v4, CMSG_DATA(c), sizeof v4);
            inet_ntop(AF_INET, &v4.ipi_addr, text, 64);
        } else if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO) {
            memcpy(&v6, CMSG_DATA(c), sizeof v6);
            inet_ntop(AF_INET6, &v6.ipi6_addr, text, 64);
        }
    }
    return text;
}

static void row_24(void) {
    struct address out = at(OUTSIDE, 7);
    struct packet packet;
    const char *sources[] = {HOST, ANY};
    for (int i = 0; i < 2; i++) {
        int fd = udp();
        prepare(&packet, &out);
        from(&packet, sources[i]);
        struct packet before = packet;
        expect("sendmsg", result(sendmsg(fd, &packet.header, 0)), "ok");
        expect("untouched", memcmp(&before, &packet, sizeof packet) ? "no" : "yes", "yes");
        expect_listed("they see", answered(fd), V, HOST);
    }
    /* A name that is too long is cut. */
    const unsigned lengths[] = {128, 129, 1000, INT_MAX, 0x80000000u, ~0u};
    for (int i = 0; i < 6; i++) {
        int fd = udp();
        prepare(&packet, &out);
        packet.header.msg_namelen = lengths[i];
        expect("sendmsg", result(sendmsg(fd, &packet.header, 0)), i < 4 ? "ok" : "EINVAL");
        if (i < 4) expect_listed("they see", answered(fd), V, HOST);
    }
    /* Two at once, one of them with a source. */
    int fd = udp();
    struct packet two[2];
    struct mmsghdr messages[2];
    prepare(&two[0], &out);
    prepare(&two[1], &out);
    from(&two[1], HOST);
    messages[0].msg_hdr = two[0].header;
    messages[1].msg_hdr = two[1].header;
    expect("sendmmsg", sendmmsg(fd, messages, 2, 0) == 2 ? "2" : "not", "2");
    expect("lengths", messages[0].msg_len == 1 && messages[1].msg_len == 1 ? "1" : "not", "1");
    expect_listed("they see first", answered(fd), V, HOST);
    expect_listed("they see second", answered(fd), V, HOST);
    /* As many as are more than a batch. */
    struct mmsghdr many[20];
    for (int i = 0; i < 20; i++) many[i] = messages[1];
    expect("sendmmsg many", sendmmsg(fd, many, 20, 0) == 20 ? "20" : "not", "20");
    expect("sendmmsg bad", result(sendmmsg(fd, NULL, 1, 0)), "EFAULT");
    expect("sendmsg bad", result(sendmsg(fd, NULL, 0)), "EFAULT");
    expect("sendmmsg none", result(sendmmsg(fd, NULL, 0, 0)), "ok");
    expect("none by none", result(sendmmsg(-1, NULL, 0, 0)), "EBADF");
    int file = open("/dev/null", O_RDONLY | O_CLOEXEC);
    expect("none by a file", result(sendmmsg(file, NULL, 0, 0)), "ENOTSOCK");
    expect("sendmmsg by a file", result(sendmmsg(file, many, 1, 0)), "ENOTSOCK");
    /* The loopback: the session's own. */
    int service = udp();
    expect("bind", try_bind(service, LOOPBACK, 8024), "ok");
    struct address own = at(LOOPBACK, 8024);
    prepare(&packet, &own);
    from(&packet, LOOPBACK);
    fd = udp();
    expect("sendmsg own", result(sendmsg(fd, &packet.header, 0)), "ok");
    struct sockaddr_storage source;
    socklen_t length = sizeof source;
    char byte;
    expect("recvfrom", result(recvfrom(service, &byte, 1, 0, (void *)&source, &length)), "ok");
    expect_alike("source", text_of(&source), host_port(LOOPBACK, port_of(fd)));
}

/* Arrays of messages that end where nothing is mapped, or that can't be written; with so many
 * control messages that not all are changed at once. */
static void row_24_pages(void) {
    enum { COUNT = 100, PAGE = 4096 };
    size_t size = COUNT * sizeof(struct mmsghdr), room = (size + PAGE - 1) / PAGE * PAGE;
    char *memory = mmap(NULL, room + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(memory + room, PAGE, PROT_NONE);
    struct mmsghdr *many = (void *)(memory + room - size);
    struct address out = at(OUTSIDE, 7);
    static struct packet packets[COUNT];
    int fd = udp(), buffer = 1 << 20;
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof buffer);
    for (int i = 0; i < COUNT; i++) {
        prepare(&packets[i], &out);
        if (i % 3) from(&packets[i], HOST);
        /* Twice the same is allowed. */
        if (i % 3 == 2) {
            size_t length = packets[i].header.msg_controllen;
            memcpy(packets[i].control.bytes + length, packets[i].control.bytes, length);
            packets[i].header.msg_controllen *= 2;
        }
        many[i].msg_hdr = packets[i].header;
        many[i].msg_len = 77;
    }
    expect("all", sendmmsg(fd, many, COUNT, 0) == COUNT ? "all" : "some", "all");
    for (int i = 0; i < COUNT; i++) {
        expect_listed("they see", answered(fd), V, HOST);
        expect_alike("length", many[i].msg_len == 1 ? "1" : "other", "1");
    }
    errno = EDOM;
    expect("as many as there are", sendmmsg(fd, many + 90, 20, 0) == 10 ? "10" : "other", "10");
    expect("its errno", strerrorname_np(errno), "EDOM");
    for (int i = 0; i < 10; i++) expect_listed("they see", answered(fd), V, HOST);
    expect("none there", result(sendmmsg(fd, many + COUNT, 1, 0)), "EFAULT");
    expect("receive none there", result(recvmmsg(fd, many + COUNT, 1, MSG_DONTWAIT, NULL)), "EFAULT");
    /* Sent, but it can't be told how much: of the last page, then of all. */
    mprotect(memory + room - PAGE, PAGE, PROT_READ);
    expect("the last page", sendmmsg(fd, many, COUNT, 0) < COUNT ? "some" : "all", "some");
    mprotect(memory, room, PROT_READ);
    expect("read-only", result(sendmmsg(fd, many, COUNT, 0)), "EFAULT");
    mprotect(memory, room, PROT_NONE);
    expect("unreadable", result(sendmmsg(fd, many, COUNT, 0)), "EFAULT");
    munmap(memory, room + PAGE);
}

static void row_24_ipv6(void) {
    struct address out = at(OUTSIDE6, 7);
    struct packet packet;
    int fd = udp6();
    prepare(&packet, &out);
    from(&packet, HOST6);
    expect("sendmsg", result(sendmsg(fd, &packet.header, 0)), "ok");
    expect_listed("they see", answered(fd), V6, HOST6);
}

static void row_24_link_local(void) {
    int service = udp6(), fd = udp6();
    struct address here = on_link(LINK_LOCAL, 8024);
    expect("bind", result(bind(service, (void *)&here.bytes, here.length)), "ok");
    const char *sources[] = {LINK_LOCAL, "::"};
    for (int i = 0; i < 2; i++) {
        struct packet packet;
        prepare(&packet, &here);
        from(&packet, sources[i]);
        expect("sendmsg", result(sendmsg(fd, &packet.header, 0)), "ok");
        struct pollfd ready = {service, POLLIN, 0};
        expect("it comes", poll(&ready, 1, 5000) == 1 ? "yes" : "no", "yes");
        struct sockaddr_storage source;
        socklen_t length = sizeof source;
        char byte;
        expect("recvfrom", result(recvfrom(service, &byte, 1, 0, (void *)&source, &length)), "ok");
        expect_alike("source", text_of(&source), host_port(LINK_LOCAL, port_of(fd)));
    }
}

static void row_25_messages(void) {
    int service = udp(), fd = udp();
    one(service, IPPROTO_IP, IP_PKTINFO);
    expect("bind", try_bind(service, LOOPBACK, 8025), "ok");
    expect("bind client", try_bind(fd, LOOPBACK, 8125), "ok");
    struct address to = at(LOOPBACK, 8025);
    struct packet packet;
    for (int i = 0; i < 3; i++)
        expect("sendto", result(sendto(fd, "x", 1, 0, (void *)&to.bytes, to.length)), "ok");
    prepare(&packet, NULL);
    expect("recvmsg", result(recvmsg(service, &packet.header, 0)), "ok");
    expect("source", text_of(&packet.name), "127.0.0.1:8125");
    expect("sent to", sent_to(&packet), LOOPBACK);
    /* The reply with what was told of the request. */
    struct cmsghdr *control = CMSG_FIRSTHDR(&packet.header);
    struct in_pktinfo info;
    memcpy(&info, CMSG_DATA(control), sizeof info);
    info.ipi_ifindex = 0;
    memcpy(CMSG_DATA(control), &info, sizeof info);
    expect("reply", result(sendmsg(service, &packet.header, 0)), "ok");
    char byte;
    struct sockaddr_storage source;
    socklen_t length = sizeof source;
    expect("answer", result(recvfrom(fd, &byte, 1, 0, (void *)&source, &length)), "ok");
    expect("answer from", text_of(&source), "127.0.0.1:8025");
    struct packet two[2];
    struct mmsghdr messages[2];
    for (int i = 0; i < 2; i++) {
        prepare(&two[i], NULL);
        messages[i].msg_hdr = two[i].header;
    }
    expect("recvmmsg", recvmmsg(service, messages, 2, 0, NULL) == 2 ? "2" : "not", "2");
    for (int i = 0; i < 2; i++) {
        two[i].header = messages[i].msg_hdr;
        expect("source", text_of(&two[i].name), "127.0.0.1:8125");
        expect("sent to", sent_to(&two[i]), LOOPBACK);
    }
    expect("recvmsg bad", result(recvmsg(service, NULL, MSG_DONTWAIT)), "EFAULT");
    expect("recvmsg none", result(recvmsg(service, &packet.header, MSG_DONTWAIT)), "EAGAIN");
    /* Too little room for the address: cut, and nothing behind it touched. */
    expect("sendto", result(sendto(fd, "x", 1, 0, (void *)&to.bytes, to.length)), "ok");
    prepare(&packet, NULL);
    memset(&packet.name, 0xaa, sizeof packet.name);
    packet.header.msg_namelen = 4;
    expect("recvmsg cut", result(recvmsg(service, &packet.header, 0)), "ok");
    expect("its length", packet.header.msg_namelen == 16 ? "16" : "other", "16");
    expect("behind", ((unsigned char *)&packet.name)[4] == 0xaa ? "untouched" : "written",
           "untouched");
}

/* What recvfrom becomes with _FORTIFY_SOURCE where the size is known only when it runs. */
ssize_t __recvfrom_chk(int, void *, size_t, size_t, int, struct sockaddr *, socklen_t *);
static void row_25_checked(void) {
    int service = udp(), fd = udp();
    expect("bind", try_bind(service, LOOPBACK, 8225), "ok");
    expect("bind client", try_bind(fd, LOOPBACK, 8325), "ok");
    struct address to = at(LOOPBACK, 8225);
    struct sockaddr_storage source;
    socklen_t length = sizeof source;
    char bytes[4];
    expect("sendto", result(sendto(fd, "x", 1, 0, (void *)&to.bytes, to.length)), "ok");
    errno = EDOM;
    expect("recvfrom", __recvfrom_chk(service, bytes, 2, sizeof bytes, 0, (void *)&source,
                                      &length) == 1 ? "1" : "other", "1");
    expect("its errno", strerrorname_np(errno), "EDOM");
    expect("source", text_of(&source), "127.0.0.1:8325");
    fflush(stdout);
    /* More than there is room for ends the program, as ever. */
    int status = 0;
    pid_t child = fork();
    if (child == 0) {
        close(2);
        __recvfrom_chk(service, bytes, 9, sizeof bytes, MSG_DONTWAIT, (void *)&source, &length);
        _exit(0);
    }
    waitpid(child, &status, 0);
    expect("too many", WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT ? "abort" : "other",
           "abort");
}

static void row_27(void) {
    int fd = udp();
    struct address group = at("239.99.5.1", 8027);
    struct in_addr interface = {0}, v;
    socklen_t length = sizeof interface;
    expect("sendto", result(sendto(fd, "x", 1, 0, (void *)&group.bytes, group.length)), "ok");
    getsockopt(fd, IPPROTO_IP, IP_MULTICAST_IF, &interface, &length);
    inet_pton(AF_INET, V, &v);
    expect_listed("interface", interface.s_addr == v.s_addr ? "V" : "other", "V", "other");
    /* Set by the program: stays. */
    fd = udp();
    struct in_addr host;
    inet_pton(AF_INET, HOST, &host);
    setsockopt(fd, IPPROTO_IP, IP_MULTICAST_IF, &host, sizeof host);
    expect("sendto set", result(sendto(fd, "x", 1, 0, (void *)&group.bytes, group.length)), "ok");
    getsockopt(fd, IPPROTO_IP, IP_MULTICAST_IF, &interface, &length);
    expect("stays", interface.s_addr == host.s_addr ? "yes" : "no", "yes");
    /* Also by its number alone, which nobody can read back: it is not taken for none. */
    fd = udp();
    struct ip_mreqn number = {.imr_ifindex = if_nametoindex("lo")}, before = number;
    expect("by number", result(setsockopt(fd, IPPROTO_IP, IP_MULTICAST_IF, &number, sizeof number)),
           "ok");
    expect("untouched", memcmp(&number, &before, sizeof number) ? "no" : "yes", "yes");
    getsockopt(fd, IPPROTO_IP, IP_MULTICAST_IF, &interface, &length);
    expect_listed("beside it", interface.s_addr == v.s_addr ? "V" : "nothing", "V", "nothing");
    expect("sendto by number", result(sendto(fd, "x", 1, 0, (void *)&group.bytes, group.length)),
           "ok");
    expect("bad", result(setsockopt(fd, IPPROTO_IP, IP_MULTICAST_IF, (void *)8, sizeof number)),
           "EFAULT");
}

static void row_28(void) {
    int fd = tcp();
    struct address to = at(OUTSIDE, 7);
    expect("sendto", result(sendto(fd, "x", 1, MSG_FASTOPEN, (void *)&to.bytes, to.length)), "ok");
    expect_listed("they see", answered(fd), V, HOST);
    struct packet packet;
    fd = tcp();
    prepare(&packet, &to);
    expect("sendmsg", result(sendmsg(fd, &packet.header, MSG_FASTOPEN)), "ok");
    expect_listed("they see again", answered(fd), V, HOST);
}

static void row_30(void) {
    int fd = tcp6(), only = tcp6();
    char mapped[64];
    snprintf(mapped, sizeof mapped, "::ffff:%s", V);
    one(fd, SOL_SOCKET, SO_REUSEADDR);
    expect("bind", try_bind(fd, "::", 8030), "ok");
    expect_listed("kernel", kernel(fd), host_port(mapped, 8030), "[::]:8030");
    listen(fd, 1);
    int client = tcp();
    expect("an IPv4 client", try_connect(client, LOOPBACK, 8030), "ok");
    struct sockaddr_storage peer;
    socklen_t length = sizeof peer;
    int accepted = accept(fd, (void *)&peer, &length);
    expect_alike("accept shows", text_of(&peer), host_port("::ffff:127.0.0.1", port_of(client)));
    expect("accepted", seen(accepted), "[::ffff:127.0.0.1]:8030");
    client = tcp6();
    expect("an IPv6 client", try_connect(client, "::1", 8030), "ok");
    expect("its peer", seen_peer(client), "[::1]:8030");
    length = sizeof peer;
    accepted = accept(fd, (void *)&peer, &length);
    expect_alike("accept shows IPv6", text_of(&peer), host_port("::1", port_of(client)));
    one(only, IPPROTO_IPV6, IPV6_V6ONLY);
    expect("bind for IPv6 alone", try_bind(only, "::", 8130), "ok");
    expect_listed("kernel of that", kernel(only), host_port(V6, 8130), "[::]:8130");
    fd = tcp6();
    expect("connect outside", try_connect(fd, OUTSIDE6, 7), "ok");
    expect_listed("they see", answered(fd), V6, HOST6);
}

static void row_31(void) {
    int fd = tcp6();
    one(fd, IPPROTO_IPV6, IPV6_V6ONLY);
    expect("bind", try_bind(fd, "::ffff:127.0.0.1", 8031), "EINVAL");
    expect("connect", try_connect(fd, "::ffff:10.99.5.2", 7), "ENETUNREACH");
}

static void row_32(void) {
    char mapped[64];
    snprintf(mapped, sizeof mapped, "::ffff:%s", L6);
    int fd = tcp6(), v4 = listener(LOOPBACK, 8032);
    one(fd, IPPROTO_IPV6, IPV6_V6ONLY);
    one(fd, SOL_SOCKET, SO_REUSEADDR);
    expect("bind", try_bind(fd, "::1", 8032), "ok");
    expect_listed("kernel", kernel(fd), host_port(mapped, 8032), "[::1]:8032");
    expect("getsockname", seen(fd), "[::1]:8032");
    expect("listen", result(listen(fd, 1)), "ok");
    int client = tcp6();
    one(client, IPPROTO_IPV6, IPV6_V6ONLY);
    expect("connect", try_connect(client, "::1", 8032), "ok");
    expect("getpeername", seen_peer(client), "[::1]:8032");
    struct sockaddr_storage peer;
    socklen_t length = sizeof peer;
    int accepted = accept(fd, (void *)&peer, &length);
    expect("accepted", seen(accepted), "[::1]:8032");
    expect_alike("accept shows", text_of(&peer), host_port("::1", port_of(client)));
    expect_alike("the client", seen(client), host_port("::1", port_of(client)));
    close(v4);
    expect("nothing", try_connect(tcp6(), "::1", 8132), "ECONNREFUSED");
}

/* Without a virtual IP, and bound before it dials. */
static void row_32_loopback(void) {
    int fd = tcp6(), client = tcp6();
    one(fd, SOL_SOCKET, SO_REUSEADDR);
    expect("bind", try_bind(fd, "::1", 8032), "ok");
    expect("listen", result(listen(fd, 1)), "ok");
    expect("bind the client", try_bind(client, "::", 8033), "ok");
    expect("connect", try_connect(client, "::1", 8032), "ok");
    expect("the client", seen(client), "[::1]:8033");
    expect("getpeername", seen_peer(client), "[::1]:8032");
    struct sockaddr_storage peer;
    socklen_t length = sizeof peer;
    int accepted = accept(fd, (void *)&peer, &length);
    expect("accept shows", text_of(&peer), "[::1]:8033");
    expect("accepted", seen(accepted), "[::1]:8032");
    expect("its peer", seen_peer(accepted), "[::1]:8033");
}

/* Bound before it dials, it is of one family from then on: docs/compatibility.md. */
static void row_32_bound(void) {
    listener("::1", 8332), listener("::", 8432);
    const char *bound[] = {"::", "::", "::1", "::1", "::1"};
    const char *dialled[] = {OUTSIDE6, "::1", "::1", "::1", "::1"};
    /* The driver has a listener of the host's on [::1]:8532. */
    const int ports[] = {7, 8532, 8332, 8432, 8532};
    const char *when_listed[] = {"EAFNOSUPPORT", "EAFNOSUPPORT", "ECONNREFUSED", "ECONNREFUSED", "ok"};
    for (int i = 0; i < 5; i++) {
        int fd = tcp6();
        expect("bind", try_bind(fd, bound[i], 0), "ok");
        expect_listed("connect", try_connect(fd, dialled[i], ports[i]), when_listed[i], "ok");
    }
    /* Bound by the program, or by its first datagram. */
    struct address to = at(OUTSIDE6, 7), before = at("::ffff:" OUTSIDE, 7);
    int fd = udp6();
    expect("bind", try_bind(fd, "::", 0), "ok");
    expect_listed("sendto", result(sendto(fd, "x", 1, 0, (void *)&to.bytes, to.length)),
                  "EAFNOSUPPORT", "ok");
    fd = udp6();
    long sent = sendto(fd, "x", 1, 0, (void *)&before.bytes, before.length);
    expect("sendto first", result(sent), "ok");
    expect_listed("sendto", result(sendto(fd, "x", 1, 0, (void *)&to.bytes, to.length)),
                  "EAFNOSUPPORT", "ok");
}

static void row_33(void) {
    char mapped[64];
    snprintf(mapped, sizeof mapped, "::ffff:%s", L);
    int fd = tcp6(), client = tcp6();
    one(fd, SOL_SOCKET, SO_REUSEADDR);
    expect("bind", try_bind(fd, "::ffff:127.0.0.1", 8033), "ok");
    expect_listed("kernel", kernel(fd), host_port(mapped, 8033), "[::ffff:127.0.0.1]:8033");
    expect("getsockname", seen(fd), "[::ffff:127.0.0.1]:8033");
    listen(fd, 1);
    expect("connect", try_connect(client, "::ffff:127.0.0.1", 8033), "ok");
    expect("getpeername", seen_peer(client), "[::ffff:127.0.0.1]:8033");
    client = tcp6();
    expect("connect outside", try_connect(client, "::ffff:10.99.5.2", 7), "ok");
    expect_listed("they see", answered(client), V, HOST);
}

static void row_35(void) {
    int fd = tcp(), pair[2];
    expect("bind", try_bind(fd, LOOPBACK, 8035), "ok");
    expect("dup", seen(dup(fd)), "127.0.0.1:8035");
    expect("dup2", seen(dup2(fd, 100)), "127.0.0.1:8035");
    socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
    struct packet packet;
    prepare(&packet, NULL);
    packet.header.msg_name = NULL;
    packet.header.msg_namelen = 0;
    struct cmsghdr *control = &packet.control.header;
    control->cmsg_level = SOL_SOCKET;
    control->cmsg_type = SCM_RIGHTS;
    control->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(control), &fd, sizeof fd);
    packet.header.msg_controllen = CMSG_SPACE(sizeof fd);
    expect("pass", result(sendmsg(pair[0], &packet.header, 0)), "ok");
    packet.header.msg_controllen = sizeof packet.control;
    expect("take", result(recvmsg(pair[1], &packet.header, 0)), "ok");
    memcpy(&fd, CMSG_DATA(control), sizeof fd);
    expect("passed", seen(fd), "127.0.0.1:8035");
    fflush(stdout);
    if (fork() == 0) {
        expect("in a child", seen(100), "127.0.0.1:8035");
        exit(0);
    }
    int status;
    wait(&status);
    expect("child", status == 0 ? "ok" : "failed", "ok");
}

static void row_36(void) {
    int fd = tcp();
    expect("bind", try_bind(fd, LOOPBACK, 8036), "ok");
    if (vfork() == 0) {
        close(fd);
        _exit(0);
    }
    wait(NULL);
    expect("after vfork", seen(fd), "127.0.0.1:8036");
    close_range(3, ~0U, 0);
    int again = udp();
    expect("reused", again == fd ? "the same" : "another", "the same");
    expect("its name", seen(again), "0.0.0.0:0");
    int other = udp();
    expect("bind other", try_bind(other, LOOPBACK, 8136), "ok");
    dup2(other, again);
    expect("dup2 over", seen(again), "127.0.0.1:8136");
}

static sigjmp_buf out_of_it;
static void jump(int number) {
    (void)number;
    siglongjmp(out_of_it, 1);
}

static void *wait_for_ever(void *fd) {
    struct sockaddr_storage peer;
    socklen_t length = sizeof peer;
    accept(*(int *)fd, (void *)&peer, &length);
    return NULL;
}

static void row_37(void) {
    int service = listener(LOOPBACK, 8037);
    signal(SIGALRM, jump);
    if (sigsetjmp(out_of_it, 1) == 0) {
        alarm(1);
        wait_for_ever(&service);
        expect("left", "no", "yes");
    }
    int fd = tcp();
    expect("bind", try_bind(fd, LOOPBACK, 8137), "ok");
    expect_listed("kernel", kernel(fd), host_port(L, 8137), "127.0.0.1:8137");
    pthread_t thread;
    pthread_create(&thread, NULL, wait_for_ever, &service);
    usleep(200000);
    pthread_cancel(thread);
    pthread_join(thread, NULL);
    fd = tcp();
    expect("bind after cancel", try_bind(fd, LOOPBACK, 8237), "ok");
    expect_listed("kernel", kernel(fd), host_port(L, 8237), "127.0.0.1:8237");
}

/* Every address of a name, in order, without repetition by kind of socket. */
static const char *addresses(const char *node, int family, int flags) {
    static char text[512];
    struct addrinfo hints = {.ai_family = family, .ai_socktype = SOCK_STREAM, .ai_flags = flags};
    struct addrinfo *list;
    text[0] = 0;
    int failed = getaddrinfo(node, "80", &hints, &list);
    if (failed) return gai_strerror(failed);
    for (struct addrinfo *entry = list; entry; entry = entry->ai_next) {
        strcat(text, text[0] ? " " : "");
        strcat(text, text_of((void *)entry->ai_addr));
    }
    if (flags & AI_CANONNAME) {
        strcat(text, " ");
        strcat(text, list->ai_canonname ? list->ai_canonname : "?");
    }
    freeaddrinfo(list);
    return text;
}

static void row_39(void) {
    expect("IPv4", addresses(NULL, AF_INET, AI_PASSIVE), "0.0.0.0:80");
    expect("IPv6", addresses(NULL, AF_INET6, AI_PASSIVE), "[::]:80");
}

static void row_40(void) {
    char both[128];
    snprintf(both, sizeof both, "%s:80 %s", V, NAME);
    expect_listed("IPv4", addresses(NAME, AF_INET, AI_CANONNAME), both, HOST ":80 " NAME);
    expect_listed("IPv6", addresses(NAME, AF_INET6, 0), host_port(V6, 80), "[" HOST6 "]:80");
    struct hostent *entry = gethostbyname(NAME), made, *found;
    char buffer[1024], shown[64];
    int error;
    inet_ntop(AF_INET, entry->h_addr_list[0], shown, sizeof shown);
    expect_listed("gethostbyname", shown, V, HOST);
    expect("one", entry->h_addr_list[1] ? "more" : "one", "one");
    entry = gethostbyname2(NAME, AF_INET6);
    inet_ntop(AF_INET6, entry->h_addr_list[0], shown, sizeof shown);
    expect_listed("gethostbyname2", shown, V6, HOST6);
    gethostbyname_r(NAME, &made, buffer, sizeof buffer, &found, &error);
    inet_ntop(AF_INET, found->h_addr_list[0], shown, sizeof shown);
    expect_listed("gethostbyname_r", shown, V, HOST);
    gethostbyname2_r(NAME, AF_INET6, &made, buffer, sizeof buffer, &found, &error);
    inet_ntop(AF_INET6, found->h_addr_list[0], shown, sizeof shown);
    expect_listed("gethostbyname2_r", shown, V6, HOST6);
}

static void row_41(void) {
    /* Whatever /etc/hosts makes of it: the driver compares. */
    printf("IPv4 %s\n", addresses("localhost", AF_INET, 0));
    printf("IPv6 %s\n", addresses("localhost", AF_INET6, 0));
    expect("numeric", addresses("10.99.5.1", AF_INET, 0), "10.99.5.1:80");
}

static const char *name_of(const char *host, int flags) {
    static char name[256];
    char service[32];
    struct address a = at(host, 80);
    int failed = getnameinfo((void *)&a.bytes, a.length, name, sizeof name, service, sizeof service,
                             flags | NI_NUMERICSERV);
    if (failed) return gai_strerror(failed);
    return strcmp(service, "80") ? service : name;
}

static void row_42(void) {
    expect("127.0.0.1", name_of(LOOPBACK, 0), "localhost");
    expect("the host", name_of(HOST, 0), NAME);
    expect("NULL", result(getnameinfo(NULL, 0, NULL, 0, NULL, 0, 0) == EAI_FAMILY ? 0 : -1), "ok");
    if (!listed) return;
    expect_alike("V", name_of(V, 0), NAME);
    expect_alike("V numeric", name_of(V, NI_NUMERICHOST), V);
    expect_alike("L", name_of(L, 0), "localhost");
    expect_alike("L numeric", name_of(L, NI_NUMERICHOST), LOOPBACK);
    struct in_addr v, l;
    char buffer[1024], shown[64];
    struct hostent *entry, made, *found;
    int error;
    inet_pton(AF_INET, V, &v);
    inet_pton(AF_INET, L, &l);
    entry = gethostbyaddr(&v, sizeof v, AF_INET);
    expect_alike("gethostbyaddr V", entry->h_name, NAME);
    inet_ntop(AF_INET, entry->h_addr_list[0], shown, sizeof shown);
    expect_alike("its address", shown, V);
    entry = gethostbyaddr(&l, sizeof l, AF_INET);
    expect_alike("gethostbyaddr L", entry->h_name, "localhost");
    gethostbyaddr_r(&l, sizeof l, AF_INET, &made, buffer, sizeof buffer, &found, &error);
    expect_alike("gethostbyaddr_r L", found->h_name, "localhost");
    gethostbyaddr_r(&v, sizeof v, AF_INET, &made, buffer, sizeof buffer, &found, &error);
    expect_alike("gethostbyaddr_r V", found->h_name, NAME);
}

static void row_43(void) {
    struct ifaddrs *list;
    int own = 0, others = 0, host = 0, loopback = 0;
    expect("getifaddrs", result(getifaddrs(&list)), "ok");
    for (struct ifaddrs *entry = list; entry; entry = entry->ifa_next) {
        if (!entry->ifa_addr || entry->ifa_addr->sa_family != AF_INET) continue;
        const char *text = text_of((void *)entry->ifa_addr);
        own += strcmp(text, host_port(V, 0)) == 0;
        others += strcmp(text, ANOTHERS_V ":0") == 0;
        host += strcmp(text, HOST ":0") == 0;
        loopback += strcmp(text, LOOPBACK ":0") == 0;
    }
    freeifaddrs(list);
    expect("own", own == 1 ? "yes" : "no", "yes");
    expect("host", host == 1 ? "yes" : "no", "yes");
    expect("loopback", loopback == 1 ? "yes" : "no", "yes");
    expect_listed("others", others ? "shown" : "hidden", "hidden", "shown");
}

const struct row more_rows[] = {
    {"24", row_24}, {"24-pages", row_24_pages}, {"24-ipv6", row_24_ipv6},
    {"24-link-local", row_24_link_local}, {"25-messages", row_25_messages},
    {"25-checked", row_25_checked},
    {"27", row_27}, {"28", row_28}, {"30", row_30}, {"31", row_31}, {"32", row_32}, {"32-loopback", row_32_loopback},
    {"32-bound", row_32_bound},
    {"33", row_33}, {"35", row_35}, {"36", row_36}, {"37", row_37}, {"39", row_39},
    {"40", row_40}, {"41", row_41}, {"42", row_42}, {"43", row_43}, {NULL, NULL},
};
