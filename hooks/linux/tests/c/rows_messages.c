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

static void init_packet(struct packet *packet, const struct address *to) {
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
static void set_source(struct packet *packet, const char *source) {
    struct address a = make_address(source, 0);
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
static const char *packet_destination(struct packet *packet) {
    static char texts[4][64];
    static int next;
    char *text = texts[next++ % 4];
    strcpy(text, "nothing");
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&packet->header); c;
         c = CMSG_NXTHDR(&packet->header, c)) {
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
    struct address out = make_address(EXTERNAL_ADDRESS, 7);
    struct packet packet;
    const char *sources[] = {HOST_ADDRESS, ANY};
    for (int i = 0; i < 2; i++) {
        int fd = udp();
        init_packet(&packet, &out);
        set_source(&packet, sources[i]);
        struct packet before = packet;
        expect("sendmsg", errno_text(sendmsg(fd, &packet.header, 0)), "ok");
        expect("untouched", memcmp(&before, &packet, sizeof packet) ? "no" : "yes", "yes");
        expect_listed("source seen by the peer", receive_text(fd), V, HOST_ADDRESS);
    }
    /* A name that is too long is cut. */
    const unsigned lengths[] = {128, 129, 1000, INT_MAX, 0x80000000u, ~0u};
    for (int i = 0; i < 6; i++) {
        int fd = udp();
        init_packet(&packet, &out);
        packet.header.msg_namelen = lengths[i];
        expect("sendmsg", errno_text(sendmsg(fd, &packet.header, 0)), i < 4 ? "ok" : "EINVAL");
        if (i < 4) expect_listed("source seen by the peer", receive_text(fd), V, HOST_ADDRESS);
    }
    /* Two at once, one of them with a source. */
    int fd = udp();
    struct packet two[2];
    struct mmsghdr messages[2];
    init_packet(&two[0], &out);
    init_packet(&two[1], &out);
    set_source(&two[1], HOST_ADDRESS);
    messages[0].msg_hdr = two[0].header;
    messages[1].msg_hdr = two[1].header;
    expect("sendmmsg", sendmmsg(fd, messages, 2, 0) == 2 ? "2" : "not", "2");
    expect("lengths", messages[0].msg_len == 1 && messages[1].msg_len == 1 ? "1" : "not", "1");
    expect_listed("source seen by the peer first", receive_text(fd), V, HOST_ADDRESS);
    expect_listed("source seen by the peer second", receive_text(fd), V, HOST_ADDRESS);
    /* As many as are more than a batch. */
    struct mmsghdr many[20];
    for (int i = 0; i < 20; i++) many[i] = messages[1];
    expect("sendmmsg many", sendmmsg(fd, many, 20, 0) == 20 ? "20" : "not", "20");
    expect("sendmmsg bad", errno_text(sendmmsg(fd, NULL, 1, 0)), "EFAULT");
    expect("sendmsg bad", errno_text(sendmsg(fd, NULL, 0)), "EFAULT");
    expect("sendmmsg none", errno_text(sendmmsg(fd, NULL, 0, 0)), "ok");
    expect("none by none", errno_text(sendmmsg(-1, NULL, 0, 0)), "EBADF");
    int file = open("/dev/null", O_RDONLY | O_CLOEXEC);
    expect("none by a file", errno_text(sendmmsg(file, NULL, 0, 0)), "ENOTSOCK");
    expect("sendmmsg by a file", errno_text(sendmmsg(file, many, 1, 0)), "ENOTSOCK");
    /* The loopback: the session's own. */
    int service = udp();
    expect("bind", try_bind(service, LOOPBACK, 8024), "ok");
    struct address own = make_address(LOOPBACK, 8024);
    init_packet(&packet, &own);
    set_source(&packet, LOOPBACK);
    fd = udp();
    expect("sendmsg own", errno_text(sendmsg(fd, &packet.header, 0)), "ok");
    struct sockaddr_storage source;
    socklen_t length = sizeof source;
    char byte;
    expect("recvfrom", errno_text(recvfrom(service, &byte, 1, 0, (void *)&source, &length)), "ok");
    expect_quietly("source", address_text(&source), format_host_port(LOOPBACK, kernel_port(fd)));
}

/* Arrays of messages that end where nothing is mapped, or that can't be written; with so many
 * control messages that not all are changed at once. */
static void row_24_pages(void) {
    enum { COUNT = 100, PAGE = 4096 };
    size_t size = COUNT * sizeof(struct mmsghdr), room = (size + PAGE - 1) / PAGE * PAGE;
    char *memory =
        mmap(NULL, room + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(memory + room, PAGE, PROT_NONE);
    struct mmsghdr *many = (void *)(memory + room - size);
    struct address out = make_address(EXTERNAL_ADDRESS, 7);
    static struct packet packets[COUNT];
    int fd = udp(), buffer = 1 << 20;
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof buffer);
    for (int i = 0; i < COUNT; i++) {
        init_packet(&packets[i], &out);
        if (i % 3) set_source(&packets[i], HOST_ADDRESS);
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
        expect_listed("source seen by the peer", receive_text(fd), V, HOST_ADDRESS);
        expect_quietly("length", many[i].msg_len == 1 ? "1" : "other", "1");
    }
    errno = EDOM;
    expect("as many as there are", sendmmsg(fd, many + 90, 20, 0) == 10 ? "10" : "other", "10");
    expect("its errno", strerrorname_np(errno), "EDOM");
    for (int i = 0; i < 10; i++)
        expect_listed("source seen by the peer", receive_text(fd), V, HOST_ADDRESS);
    expect("none there", errno_text(sendmmsg(fd, many + COUNT, 1, 0)), "EFAULT");
    expect("receive none there", errno_text(recvmmsg(fd, many + COUNT, 1, MSG_DONTWAIT, NULL)),
           "EFAULT");
    /* Sent, but it can't be told how much: of the last page, then of all. */
    mprotect(memory + room - PAGE, PAGE, PROT_READ);
    expect("the last page", sendmmsg(fd, many, COUNT, 0) < COUNT ? "some" : "all", "some");
    mprotect(memory, room, PROT_READ);
    expect("read-only", errno_text(sendmmsg(fd, many, COUNT, 0)), "EFAULT");
    mprotect(memory, room, PROT_NONE);
    expect("unreadable", errno_text(sendmmsg(fd, many, COUNT, 0)), "EFAULT");
    munmap(memory, room + PAGE);
}

static void row_24_ipv6(void) {
    struct address out = make_address(EXTERNAL_ADDRESS6, 7);
    struct packet packet;
    int fd = udp6();
    init_packet(&packet, &out);
    set_source(&packet, HOST_ADDRESS6);
    expect("sendmsg", errno_text(sendmsg(fd, &packet.header, 0)), "ok");
    expect_listed("source seen by the peer", receive_text(fd), V6, HOST_ADDRESS6);
}

static void row_24_link_local(void) {
    int service = udp6(), fd = udp6();
    struct address here = make_link_local(LINK_LOCAL, 8024);
    expect("bind", errno_text(bind(service, (void *)&here.bytes, here.length)), "ok");
    const char *sources[] = {LINK_LOCAL, "::"};
    for (int i = 0; i < 2; i++) {
        struct packet packet;
        init_packet(&packet, &here);
        set_source(&packet, sources[i]);
        expect("sendmsg", errno_text(sendmsg(fd, &packet.header, 0)), "ok");
        struct pollfd ready = {service, POLLIN, 0};
        expect("datagram arrives", poll(&ready, 1, 5000) == 1 ? "yes" : "no", "yes");
        struct sockaddr_storage source;
        socklen_t length = sizeof source;
        char byte;
        expect("recvfrom", errno_text(recvfrom(service, &byte, 1, 0, (void *)&source, &length)),
               "ok");
        expect_quietly("source", address_text(&source),
                       format_host_port(LINK_LOCAL, kernel_port(fd)));
    }
}

static void row_25_messages(void) {
    int service = udp(), fd = udp();
    enable_option(service, IPPROTO_IP, IP_PKTINFO);
    expect("bind", try_bind(service, LOOPBACK, 8025), "ok");
    expect("bind client", try_bind(fd, LOOPBACK, 8125), "ok");
    struct address to = make_address(LOOPBACK, 8025);
    struct packet packet;
    for (int i = 0; i < 3; i++)
        expect("sendto", errno_text(sendto(fd, "x", 1, 0, (void *)&to.bytes, to.length)), "ok");
    init_packet(&packet, NULL);
    expect("recvmsg", errno_text(recvmsg(service, &packet.header, 0)), "ok");
    expect("source", address_text(&packet.name), "127.0.0.1:8125");
    expect("sent to", packet_destination(&packet), LOOPBACK);
    /* The reply with what was told of the request. */
    struct cmsghdr *control = CMSG_FIRSTHDR(&packet.header);
    struct in_pktinfo info;
    memcpy(&info, CMSG_DATA(control), sizeof info);
    info.ipi_ifindex = 0;
    memcpy(CMSG_DATA(control), &info, sizeof info);
    expect("reply", errno_text(sendmsg(service, &packet.header, 0)), "ok");
    char byte;
    struct sockaddr_storage source;
    socklen_t length = sizeof source;
    expect("answer", errno_text(recvfrom(fd, &byte, 1, 0, (void *)&source, &length)), "ok");
    expect("answer from", address_text(&source), "127.0.0.1:8025");
    struct packet two[2];
    struct mmsghdr messages[2];
    for (int i = 0; i < 2; i++) {
        init_packet(&two[i], NULL);
        messages[i].msg_hdr = two[i].header;
    }
    expect("recvmmsg", recvmmsg(service, messages, 2, 0, NULL) == 2 ? "2" : "not", "2");
    for (int i = 0; i < 2; i++) {
        two[i].header = messages[i].msg_hdr;
        expect("source", address_text(&two[i].name), "127.0.0.1:8125");
        expect("sent to", packet_destination(&two[i]), LOOPBACK);
    }
    expect("recvmsg bad", errno_text(recvmsg(service, NULL, MSG_DONTWAIT)), "EFAULT");
    expect("recvmsg none", errno_text(recvmsg(service, &packet.header, MSG_DONTWAIT)), "EAGAIN");
    /* Too little room for the address: cut, and nothing behind it touched. */
    expect("sendto", errno_text(sendto(fd, "x", 1, 0, (void *)&to.bytes, to.length)), "ok");
    init_packet(&packet, NULL);
    memset(&packet.name, 0xaa, sizeof packet.name);
    packet.header.msg_namelen = 4;
    expect("recvmsg cut", errno_text(recvmsg(service, &packet.header, 0)), "ok");
    expect("its length", packet.header.msg_namelen == 16 ? "16" : "other", "16");
    expect("behind", ((unsigned char *)&packet.name)[4] == 0xaa ? "untouched" : "written",
           "untouched");
}

/* What recvfrom becomes with _FORTIFY_SOURCE where the size is known only when it runs. */
ssize_t __recvfrom_chk(int, void *, size_t, size_t, int, struct sockaddr *, socklen_t *);
static void row_25_fortified(void) {
    int service = udp(), fd = udp();
    expect("bind", try_bind(service, LOOPBACK, 8225), "ok");
    expect("bind client", try_bind(fd, LOOPBACK, 8325), "ok");
    struct address to = make_address(LOOPBACK, 8225);
    struct sockaddr_storage source;
    socklen_t length = sizeof source;
    char bytes[4];
    expect("sendto", errno_text(sendto(fd, "x", 1, 0, (void *)&to.bytes, to.length)), "ok");
    errno = EDOM;
    expect("recvfrom",
           __recvfrom_chk(service, bytes, 2, sizeof bytes, 0, (void *)&source, &length) == 1
               ? "1"
               : "other",
           "1");
    expect("its errno", strerrorname_np(errno), "EDOM");
    expect("source", address_text(&source), "127.0.0.1:8325");
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
    struct address group = make_address("239.99.5.1", 8027);
    struct in_addr interface = {0}, v;
    socklen_t length = sizeof interface;
    expect("sendto", errno_text(sendto(fd, "x", 1, 0, (void *)&group.bytes, group.length)), "ok");
    getsockopt(fd, IPPROTO_IP, IP_MULTICAST_IF, &interface, &length);
    inet_pton(AF_INET, V, &v);
    expect_listed("interface", interface.s_addr == v.s_addr ? "V" : "other", "V", "other");
    /* Set by the program: stays. */
    fd = udp();
    struct in_addr host;
    inet_pton(AF_INET, HOST_ADDRESS, &host);
    setsockopt(fd, IPPROTO_IP, IP_MULTICAST_IF, &host, sizeof host);
    expect("sendto set", errno_text(sendto(fd, "x", 1, 0, (void *)&group.bytes, group.length)),
           "ok");
    getsockopt(fd, IPPROTO_IP, IP_MULTICAST_IF, &interface, &length);
    expect("stays", interface.s_addr == host.s_addr ? "yes" : "no", "yes");
    /* Also by its number alone, which nobody can read back: it is not taken for none. */
    fd = udp();
    struct ip_mreqn number = {.imr_ifindex = if_nametoindex("lo")}, before = number;
    expect("by number",
           errno_text(setsockopt(fd, IPPROTO_IP, IP_MULTICAST_IF, &number, sizeof number)), "ok");
    expect("untouched", memcmp(&number, &before, sizeof number) ? "no" : "yes", "yes");
    getsockopt(fd, IPPROTO_IP, IP_MULTICAST_IF, &interface, &length);
    expect_listed("beside it", interface.s_addr == v.s_addr ? "V" : "nothing", "V", "nothing");
    expect("sendto by number",
           errno_text(sendto(fd, "x", 1, 0, (void *)&group.bytes, group.length)), "ok");
    expect("bad", errno_text(setsockopt(fd, IPPROTO_IP, IP_MULTICAST_IF, (void *)8, sizeof number)),
           "EFAULT");
}

static void row_28(void) {
    int fd = tcp();
    struct address to = make_address(EXTERNAL_ADDRESS, 7);
    expect("sendto", errno_text(sendto(fd, "x", 1, MSG_FASTOPEN, (void *)&to.bytes, to.length)),
           "ok");
    expect_listed("source seen by the peer", receive_text(fd), V, HOST_ADDRESS);
    struct packet packet;
    fd = tcp();
    init_packet(&packet, &to);
    expect("sendmsg", errno_text(sendmsg(fd, &packet.header, MSG_FASTOPEN)), "ok");
    expect_listed("source seen by the peer again", receive_text(fd), V, HOST_ADDRESS);
}

static void row_30(void) {
    int fd = tcp6(), v6only = tcp6();
    char mapped[64];
    snprintf(mapped, sizeof mapped, "::ffff:%s", V);
    enable_option(fd, SOL_SOCKET, SO_REUSEADDR);
    expect("bind", try_bind(fd, "::", 8030), "ok");
    expect_listed("kernel", kernel_name(fd), format_host_port(mapped, 8030), "[::]:8030");
    listen(fd, 1);
    int client = tcp();
    expect("an IPv4 client", try_connect(client, LOOPBACK, 8030), "ok");
    struct sockaddr_storage peer;
    socklen_t length = sizeof peer;
    int accepted = accept(fd, (void *)&peer, &length);
    expect_quietly("accept shows", address_text(&peer),
                   format_host_port("::ffff:127.0.0.1", kernel_port(client)));
    expect("accepted", visible_name(accepted), "[::ffff:127.0.0.1]:8030");
    client = tcp6();
    expect("an IPv6 client", try_connect(client, "::1", 8030), "ok");
    expect("its peer", visible_peer(client), "[::1]:8030");
    length = sizeof peer;
    accepted = accept(fd, (void *)&peer, &length);
    expect_quietly("accept shows IPv6", address_text(&peer),
                   format_host_port("::1", kernel_port(client)));
    enable_option(v6only, IPPROTO_IPV6, IPV6_V6ONLY);
    expect("bind for IPv6 alone", try_bind(v6only, "::", 8130), "ok");
    expect_listed("kernel of that", kernel_name(v6only), format_host_port(V6, 8130), "[::]:8130");
    fd = tcp6();
    expect("connect outside", try_connect(fd, EXTERNAL_ADDRESS6, 7), "ok");
    expect_listed("source seen by the peer", receive_text(fd), V6, HOST_ADDRESS6);
}

static void row_31(void) {
    int fd = tcp6();
    enable_option(fd, IPPROTO_IPV6, IPV6_V6ONLY);
    expect("bind", try_bind(fd, "::ffff:127.0.0.1", 8031), "EINVAL");
    expect("connect", try_connect(fd, "::ffff:10.99.5.2", 7), "ENETUNREACH");
}

static void row_32(void) {
    char mapped[64];
    snprintf(mapped, sizeof mapped, "::ffff:%s", L6);
    int fd = tcp6(), v4 = listen_on(LOOPBACK, 8032);
    enable_option(fd, IPPROTO_IPV6, IPV6_V6ONLY);
    enable_option(fd, SOL_SOCKET, SO_REUSEADDR);
    expect("bind", try_bind(fd, "::1", 8032), "ok");
    expect_listed("kernel", kernel_name(fd), format_host_port(mapped, 8032), "[::1]:8032");
    expect("getsockname", visible_name(fd), "[::1]:8032");
    expect("listen", errno_text(listen(fd, 1)), "ok");
    int client = tcp6();
    enable_option(client, IPPROTO_IPV6, IPV6_V6ONLY);
    expect("connect", try_connect(client, "::1", 8032), "ok");
    expect("getpeername", visible_peer(client), "[::1]:8032");
    struct sockaddr_storage peer;
    socklen_t length = sizeof peer;
    int accepted = accept(fd, (void *)&peer, &length);
    expect("accepted", visible_name(accepted), "[::1]:8032");
    expect_quietly("accept shows", address_text(&peer),
                   format_host_port("::1", kernel_port(client)));
    expect_quietly("the client", visible_name(client),
                   format_host_port("::1", kernel_port(client)));
    close(v4);
    expect("nothing", try_connect(tcp6(), "::1", 8132), "ECONNREFUSED");
}

/* Without a virtual IP, and bound before it dials. */
static void row_32_loopback(void) {
    int fd = tcp6(), client = tcp6();
    enable_option(fd, SOL_SOCKET, SO_REUSEADDR);
    expect("bind", try_bind(fd, "::1", 8032), "ok");
    expect("listen", errno_text(listen(fd, 1)), "ok");
    expect("bind the client", try_bind(client, "::", 8033), "ok");
    expect("connect", try_connect(client, "::1", 8032), "ok");
    expect("the client", visible_name(client), "[::1]:8033");
    expect("getpeername", visible_peer(client), "[::1]:8032");
    struct sockaddr_storage peer;
    socklen_t length = sizeof peer;
    int accepted = accept(fd, (void *)&peer, &length);
    expect("accept shows", address_text(&peer), "[::1]:8033");
    expect("accepted", visible_name(accepted), "[::1]:8032");
    expect("its peer", visible_peer(accepted), "[::1]:8033");
}

/* Bound before it dials, it is of one family from then on: docs/compatibility.md. */
static void row_32_bound(void) {
    listen_on("::1", 8332), listen_on("::", 8432);
    const char *bound[] = {"::", "::", "::1", "::1", "::1"};
    const char *dialled[] = {EXTERNAL_ADDRESS6, "::1", "::1", "::1", "::1"};
    /* The driver has a listener of the host's on [::1]:8532. */
    const int ports[] = {7, 8532, 8332, 8432, 8532};
    const char *if_listed[] = {"EAFNOSUPPORT", "EAFNOSUPPORT", "ECONNREFUSED", "ECONNREFUSED",
                               "ok"};
    for (int i = 0; i < 5; i++) {
        int fd = tcp6();
        expect("bind", try_bind(fd, bound[i], 0), "ok");
        expect_listed("connect", try_connect(fd, dialled[i], ports[i]), if_listed[i], "ok");
    }
    /* Bound by the program, or by its first datagram. */
    struct address to = make_address(EXTERNAL_ADDRESS6, 7),
                   before = make_address("::ffff:" EXTERNAL_ADDRESS, 7);
    int fd = udp6();
    expect("bind", try_bind(fd, "::", 0), "ok");
    expect_listed("sendto", errno_text(sendto(fd, "x", 1, 0, (void *)&to.bytes, to.length)),
                  "EAFNOSUPPORT", "ok");
    fd = udp6();
    long sent = sendto(fd, "x", 1, 0, (void *)&before.bytes, before.length);
    expect("sendto first", errno_text(sent), "ok");
    expect_listed("sendto", errno_text(sendto(fd, "x", 1, 0, (void *)&to.bytes, to.length)),
                  "EAFNOSUPPORT", "ok");
}

static void row_33(void) {
    char mapped[64];
    snprintf(mapped, sizeof mapped, "::ffff:%s", L);
    int fd = tcp6(), client = tcp6();
    enable_option(fd, SOL_SOCKET, SO_REUSEADDR);
    expect("bind", try_bind(fd, "::ffff:127.0.0.1", 8033), "ok");
    expect_listed("kernel", kernel_name(fd), format_host_port(mapped, 8033),
                  "[::ffff:127.0.0.1]:8033");
    expect("getsockname", visible_name(fd), "[::ffff:127.0.0.1]:8033");
    listen(fd, 1);
    expect("connect", try_connect(client, "::ffff:127.0.0.1", 8033), "ok");
    expect("getpeername", visible_peer(client), "[::ffff:127.0.0.1]:8033");
    client = tcp6();
    expect("connect outside", try_connect(client, "::ffff:10.99.5.2", 7), "ok");
    expect_listed("source seen by the peer", receive_text(client), V, HOST_ADDRESS);
}

static void row_35(void) {
    int fd = tcp(), pair[2];
    expect("bind", try_bind(fd, LOOPBACK, 8035), "ok");
    expect("dup", visible_name(dup(fd)), "127.0.0.1:8035");
    expect("dup2", visible_name(dup2(fd, 100)), "127.0.0.1:8035");
    socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
    struct packet packet;
    init_packet(&packet, NULL);
    packet.header.msg_name = NULL;
    packet.header.msg_namelen = 0;
    struct cmsghdr *control = &packet.control.header;
    control->cmsg_level = SOL_SOCKET;
    control->cmsg_type = SCM_RIGHTS;
    control->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(control), &fd, sizeof fd);
    packet.header.msg_controllen = CMSG_SPACE(sizeof fd);
    expect("pass", errno_text(sendmsg(pair[0], &packet.header, 0)), "ok");
    packet.header.msg_controllen = sizeof packet.control;
    expect("take", errno_text(recvmsg(pair[1], &packet.header, 0)), "ok");
    memcpy(&fd, CMSG_DATA(control), sizeof fd);
    expect("passed", visible_name(fd), "127.0.0.1:8035");
    fflush(stdout);
    if (fork() == 0) {
        expect("in a child", visible_name(100), "127.0.0.1:8035");
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
    expect("after vfork", visible_name(fd), "127.0.0.1:8036");
    close_range(3, ~0U, 0);
    int again = udp();
    expect("reused", again == fd ? "the same" : "another", "the same");
    expect("its name", visible_name(again), "0.0.0.0:0");
    int other = udp();
    expect("bind other", try_bind(other, LOOPBACK, 8136), "ok");
    dup2(other, again);
    expect("dup2 over", visible_name(again), "127.0.0.1:8136");
}

static sigjmp_buf jump_target;
static void jump_out(int number) {
    (void)number;
    siglongjmp(jump_target, 1);
}

static void *accept_blocking(void *fd) {
    struct sockaddr_storage peer;
    socklen_t length = sizeof peer;
    accept(*(int *)fd, (void *)&peer, &length);
    return NULL;
}

static void row_37(void) {
    int service = listen_on(LOOPBACK, 8037);
    signal(SIGALRM, jump_out);
    if (sigsetjmp(jump_target, 1) == 0) {
        alarm(1);
        accept_blocking(&service);
        expect("left", "no", "yes");
    }
    int fd = tcp();
    expect("bind", try_bind(fd, LOOPBACK, 8137), "ok");
    expect_listed("kernel", kernel_name(fd), format_host_port(L, 8137), "127.0.0.1:8137");
    pthread_t thread;
    pthread_create(&thread, NULL, accept_blocking, &service);
    usleep(200000);
    pthread_cancel(thread);
    pthread_join(thread, NULL);
    fd = tcp();
    expect("bind after cancel", try_bind(fd, LOOPBACK, 8237), "ok");
    expect_listed("kernel", kernel_name(fd), format_host_port(L, 8237), "127.0.0.1:8237");
}

/* Every address of a name, in order, without repetition by kind of socket. */
static const char *resolved_addresses(const char *node, int family, int flags) {
    static char text[512];
    struct addrinfo hints = {.ai_family = family, .ai_socktype = SOCK_STREAM, .ai_flags = flags};
    struct addrinfo *list;
    text[0] = 0;
    int failed = getaddrinfo(node, "80", &hints, &list);
    if (failed) return gai_strerror(failed);
    for (struct addrinfo *entry = list; entry; entry = entry->ai_next) {
        strcat(text, text[0] ? " " : "");
        strcat(text, address_text((void *)entry->ai_addr));
    }
    if (flags & AI_CANONNAME) {
        strcat(text, " ");
        strcat(text, list->ai_canonname ? list->ai_canonname : "?");
    }
    freeaddrinfo(list);
    return text;
}

static void row_39(void) {
    expect("IPv4", resolved_addresses(NULL, AF_INET, AI_PASSIVE), "0.0.0.0:80");
    expect("IPv6", resolved_addresses(NULL, AF_INET6, AI_PASSIVE), "[::]:80");
}

static void row_40(void) {
    char both[128];
    snprintf(both, sizeof both, "%s:80 %s", V, HOST_NAME);
    expect_listed("IPv4", resolved_addresses(HOST_NAME, AF_INET, AI_CANONNAME), both,
                  HOST_ADDRESS ":80 " HOST_NAME);
    expect_listed("IPv6", resolved_addresses(HOST_NAME, AF_INET6, 0), format_host_port(V6, 80),
                  "[" HOST_ADDRESS6 "]:80");
    struct hostent *entry = gethostbyname(HOST_NAME), made, *found;
    char buffer[1024], shown[64];
    int error;
    inet_ntop(AF_INET, entry->h_addr_list[0], shown, sizeof shown);
    expect_listed("gethostbyname", shown, V, HOST_ADDRESS);
    expect("one", entry->h_addr_list[1] ? "more" : "one", "one");
    entry = gethostbyname2(HOST_NAME, AF_INET6);
    inet_ntop(AF_INET6, entry->h_addr_list[0], shown, sizeof shown);
    expect_listed("gethostbyname2", shown, V6, HOST_ADDRESS6);
    gethostbyname_r(HOST_NAME, &made, buffer, sizeof buffer, &found, &error);
    inet_ntop(AF_INET, found->h_addr_list[0], shown, sizeof shown);
    expect_listed("gethostbyname_r", shown, V, HOST_ADDRESS);
    gethostbyname2_r(HOST_NAME, AF_INET6, &made, buffer, sizeof buffer, &found, &error);
    inet_ntop(AF_INET6, found->h_addr_list[0], shown, sizeof shown);
    expect_listed("gethostbyname2_r", shown, V6, HOST_ADDRESS6);
}

static void row_41(void) {
    /* Whatever /etc/hosts makes of it: the driver compares. */
    printf("IPv4 %s\n", resolved_addresses("localhost", AF_INET, 0));
    printf("IPv6 %s\n", resolved_addresses("localhost", AF_INET6, 0));
    expect("numeric", resolved_addresses("10.99.5.1", AF_INET, 0), "10.99.5.1:80");
}

static const char *resolved_name(const char *host, int flags) {
    static char name[256];
    char service[32];
    struct address a = make_address(host, 80);
    int failed = getnameinfo((void *)&a.bytes, a.length, name, sizeof name, service, sizeof service,
                             flags | NI_NUMERICSERV);
    if (failed) return gai_strerror(failed);
    return strcmp(service, "80") ? service : name;
}

static void row_42(void) {
    expect("127.0.0.1", resolved_name(LOOPBACK, 0), "localhost");
    expect("the host", resolved_name(HOST_ADDRESS, 0), HOST_NAME);
    expect("NULL", errno_text(getnameinfo(NULL, 0, NULL, 0, NULL, 0, 0) == EAI_FAMILY ? 0 : -1),
           "ok");
    if (!listed) return;
    expect_quietly("V", resolved_name(V, 0), HOST_NAME);
    expect_quietly("V numeric", resolved_name(V, NI_NUMERICHOST), V);
    expect_quietly("L", resolved_name(L, 0), "localhost");
    expect_quietly("L numeric", resolved_name(L, NI_NUMERICHOST), LOOPBACK);
    struct in_addr v, l;
    char buffer[1024], shown[64];
    struct hostent *entry, made, *found;
    int error;
    inet_pton(AF_INET, V, &v);
    inet_pton(AF_INET, L, &l);
    entry = gethostbyaddr(&v, sizeof v, AF_INET);
    expect_quietly("gethostbyaddr V", entry->h_name, HOST_NAME);
    inet_ntop(AF_INET, entry->h_addr_list[0], shown, sizeof shown);
    expect_quietly("its address", shown, V);
    entry = gethostbyaddr(&l, sizeof l, AF_INET);
    expect_quietly("gethostbyaddr L", entry->h_name, "localhost");
    gethostbyaddr_r(&l, sizeof l, AF_INET, &made, buffer, sizeof buffer, &found, &error);
    expect_quietly("gethostbyaddr_r L", found->h_name, "localhost");
    gethostbyaddr_r(&v, sizeof v, AF_INET, &made, buffer, sizeof buffer, &found, &error);
    expect_quietly("gethostbyaddr_r V", found->h_name, HOST_NAME);
}

static void row_43(void) {
    struct ifaddrs *list;
    int own = 0, others = 0, host = 0, loopback = 0;
    expect("getifaddrs", errno_text(getifaddrs(&list)), "ok");
    for (struct ifaddrs *entry = list; entry; entry = entry->ifa_next) {
        if (!entry->ifa_addr || entry->ifa_addr->sa_family != AF_INET) continue;
        const char *text = address_text((void *)entry->ifa_addr);
        own += strcmp(text, format_host_port(V, 0)) == 0;
        others += strcmp(text, OTHER_SESSION_V ":0") == 0;
        host += strcmp(text, HOST_ADDRESS ":0") == 0;
        loopback += strcmp(text, LOOPBACK ":0") == 0;
    }
    freeifaddrs(list);
    expect("own", own == 1 ? "yes" : "no", "yes");
    expect("host", host == 1 ? "yes" : "no", "yes");
    expect("loopback", loopback == 1 ? "yes" : "no", "yes");
    expect_listed("others", others ? "shown" : "hidden", "hidden", "shown");
}

const struct row message_rows[] = {
    {"24", row_24},
    {"24-pages", row_24_pages},
    {"24-ipv6", row_24_ipv6},
    {"24-link-local", row_24_link_local},
    {"25-messages", row_25_messages},
    {"25-fortified", row_25_fortified},
    {"27", row_27},
    {"28", row_28},
    {"30", row_30},
    {"31", row_31},
    {"32", row_32},
    {"32-loopback", row_32_loopback},
    {"32-bound", row_32_bound},
    {"33", row_33},
    {"35", row_35},
    {"36", row_36},
    {"37", row_37},
    {"39", row_39},
    {"40", row_40},
    {"41", row_41},
    {"42", row_42},
    {"43", row_43},
    {NULL, NULL},
};
