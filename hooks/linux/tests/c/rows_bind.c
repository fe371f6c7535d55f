/* The rows of the matrix (docs/socket-matrix.md), each a function of its number. */
#include "matrix.h"

#include <sys/mman.h>

#define LOOPBACK "127.0.0.1"
#define ANY "0.0.0.0"

/* A page that cannot be touched. */
static void *inaccessible_page(void) {
    return mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static void row_1(void) {
    int fd = tcp(), datagram = udp();
    expect("bind", try_bind(fd, LOOPBACK, 8001), "ok");
    expect("getsockname", visible_name(fd), "127.0.0.1:8001");
    expect_listed("kernel", kernel_name(fd), format_host_port(L, 8001), "127.0.0.1:8001");
    expect("again", try_bind(tcp(), LOOPBACK, 8001), "EADDRINUSE");
    expect("udp bind", try_bind(datagram, LOOPBACK, 8001), "ok");
    expect("udp getsockname", visible_name(datagram), "127.0.0.1:8001");
    expect_listed("udp kernel", kernel_name(datagram), format_host_port(L, 8001), "127.0.0.1:8001");
}

static void row_2(void) {
    /* The driver has a listener of the host's on 0.0.0.0:8002. */
    int fd = tcp();
    enable_option(fd, SOL_SOCKET, SO_REUSEADDR);
    expect("bind", try_bind(fd, LOOPBACK, 8002), "EADDRINUSE");
    /* The other way round: the host comes second, past the hook. */
    listen_on(LOOPBACK, 8102);
    struct address any = make_address(ANY, 8102);
    for (int i = 0; i < 2; i++) {
        fd = tcp();
        if (i) enable_option(fd, SOL_SOCKET, SO_REUSEADDR);
        expect("the host", errno_text(syscall(SYS_bind, fd, &any.bytes, any.length)), "EADDRINUSE");
    }
}

static void row_3(void) {
    int fd = tcp(), datagram = udp();
    expect("bind", try_bind(fd, ANY, 8003), "ok");
    expect_listed("kernel", kernel_name(fd), format_host_port(V, 8003), "0.0.0.0:8003");
    expect_listed("getsockname", visible_name(fd), format_host_port(V, 8003), "0.0.0.0:8003");
    expect("udp bind", try_bind(datagram, ANY, 8003), "ok");
    expect_listed("udp kernel", kernel_name(datagram), format_host_port(V, 8003), "0.0.0.0:8003");
}

/* Without a virtual IP. */
static void row_3_loopback(void) {
    int fd = tcp(), datagram = udp();
    expect("bind", try_bind(fd, ANY, 8103), "ok");
    expect("kernel", kernel_name(fd), "0.0.0.0:8103");
    expect("udp bind", try_bind(datagram, ANY, 8103), "ok");
    expect("udp kernel", kernel_name(datagram), "0.0.0.0:8103");
}

/* The same under a rule that says `wildcard = "loopback"`. */
static void row_3_wildcard(void) {
    int fd = tcp(), client = tcp(), without = tcp();
    enable_option(fd, SOL_SOCKET, SO_REUSEADDR);
    expect("bind", try_bind(fd, ANY, 8203), "ok");
    expect_listed("kernel", kernel_name(fd), format_host_port(L, 8203), "0.0.0.0:8203");
    expect("listen", errno_text(listen(fd, 1)), "ok");
    expect("connect", try_connect(client, LOOPBACK, 8203), "ok");
    expect_listed("its peer", kernel_peer(client), format_host_port(L, 8203), "127.0.0.1:8203");
    expect("bind without a port", try_bind(without, ANY, 0), "ok");
    expect_quietly("kernel of that", kernel_name(without),
                   format_host_port(ANY, kernel_port(without)));
}

static void row_4(void) {
    int fd = tcp();
    expect("bind", try_bind(fd, ANY, 0), "ok");
    int port = kernel_port(fd);
    expect_listed("kernel", kernel_name(fd), format_host_port(V, port),
                  format_host_port(ANY, port));
    expect("connect outside", try_connect(fd, EXTERNAL_ADDRESS, 7), "ok");
    expect_listed("source seen by the peer", receive_text(fd), V, HOST_ADDRESS);
    int service = listen_on(LOOPBACK, 8004);
    fd = tcp();
    expect("bind again", try_bind(fd, ANY, 0), "ok");
    expect("connect to own loopback", try_connect(fd, LOOPBACK, 8004), "ok");
    expect("getpeername", visible_peer(fd), "127.0.0.1:8004");
    expect_quietly("getsockname", visible_name(fd), format_host_port(LOOPBACK, kernel_port(fd)));
    struct sockaddr_storage peer;
    socklen_t length = sizeof peer;
    int accepted = accept(service, (void *)&peer, &length);
    expect_quietly("accept shows", address_text(&peer),
                   format_host_port(LOOPBACK, kernel_port(fd)));
    expect("accepted", visible_name(accepted), "127.0.0.1:8004");
}

static void row_5(void) {
    int fd = tcp();
    expect("bind", try_bind(fd, HOST_ADDRESS, 8005), "ok");
    expect_listed("kernel", kernel_name(fd), format_host_port(V, 8005),
                  format_host_port(HOST_ADDRESS, 8005));
    expect_listed("another's V", try_bind(tcp(), OTHER_SESSION_V, 8005), "EADDRNOTAVAIL", "ok");
    expect_listed("another's L", try_bind(tcp(), "127.99.0.9", 8005), "EADDRNOTAVAIL", "ok");
    fd = tcp();
    expect("a loopback address of nobody", try_bind(fd, "127.0.0.53", 8005), "ok");
    expect("kernel of that", kernel_name(fd), "127.0.0.53:8005");
    expect("an address of nobody", try_bind(tcp(), "192.0.2.1", 8005), "EADDRNOTAVAIL");
}

/* What belongs to one link stays there. */
static void row_5_link_local(void) {
    int fd = tcp6(), client = tcp6();
    struct address here = make_link_local(LINK_LOCAL, 8105);
    expect("bind", errno_text(bind(fd, (void *)&here.bytes, here.length)), "ok");
    expect("kernel", kernel_name(fd), "[" LINK_LOCAL "]:8105");
    expect("listen", errno_text(listen(fd, 1)), "ok");
    expect("connect", errno_text(connect(client, (void *)&here.bytes, here.length)), "ok");
    expect("getpeername", visible_peer(client), "[" LINK_LOCAL "]:8105");
}

/* What was bound to the host's address is dialled there. */
static void row_5_dialled(void) {
    const int ports[] = {8205, 8305, 8405};
    const char *hosts[] = {HOST_ADDRESS, ANY, "::"},
               *dialled[] = {HOST_ADDRESS, HOST_ADDRESS, HOST_ADDRESS6};
    char mapped[64];
    snprintf(mapped, sizeof mapped, "::ffff:%s", V);
    const char *visible[] = {V, V, mapped};
    for (int i = 0; i < 3; i++) {
        int service = listen_on(hosts[i], ports[i]), fd = i < 2 ? tcp() : tcp6();
        if (i == 2) enable_option(fd, IPPROTO_IPV6, IPV6_V6ONLY);
        expect("connect", try_connect(fd, dialled[i], ports[i]), "ok");
        expect_listed("peer", visible_peer(fd), format_host_port(visible[i], ports[i]),
                      format_host_port(dialled[i], ports[i]));
        int accepted = accept(service, NULL, NULL);
        expect_listed("accepted", visible_peer(accepted),
                      format_host_port(visible[i], kernel_port(fd)),
                      format_host_port(dialled[i], kernel_port(fd)));
    }
    int service = udp(), fd = udp();
    struct address to = make_address(HOST_ADDRESS, 8205);
    expect("bind", try_bind(service, HOST_ADDRESS, 8205), "ok");
    for (int i = 0; i < 2; i++) {
        struct pollfd ready = {service, POLLIN, 0};
        char byte;
        expect("sendto", errno_text(sendto(fd, "x", 1, 0, (void *)&to.bytes, to.length)), "ok");
        expect("datagram arrives", poll(&ready, 1, 5000) == 1 ? "yes" : "no", "yes");
        expect("recv", errno_text(recv(service, &byte, 1, 0)), "ok");
    }
    struct address out = make_address(EXTERNAL_ADDRESS, 7);
    expect("sendto", errno_text(sendto(fd, "x", 1, 0, (void *)&out.bytes, out.length)), "ok");
    expect_listed("source seen by the peer", receive_text(fd), V, HOST_ADDRESS);
    /* Nothing of the session's own: the host's (the driver has a listener there). */
    fd = tcp();
    expect("the host's", try_connect(fd, HOST_ADDRESS, 8505), "ok");
    expect("its peer", kernel_peer(fd), format_host_port(HOST_ADDRESS, 8505));
    expect_listed("from", visible_name(fd), format_host_port(V, kernel_port(fd)),
                  format_host_port(HOST_ADDRESS, kernel_port(fd)));
}

/* The driver has taken V off the interface. */
static void row_6(void) {
    expect_listed("bind", try_bind(tcp(), ANY, 8006), "EADDRNOTAVAIL", "ok");
    expect_listed("connect", try_connect(tcp(), EXTERNAL_ADDRESS, 7), "EADDRNOTAVAIL", "ok");
    int fd = udp();
    struct address to = make_address(EXTERNAL_ADDRESS, 7);
    expect_listed("sendto", errno_text(sendto(fd, "x", 1, 0, (void *)&to.bytes, to.length)),
                  "EADDRNOTAVAIL", "ok");
}

/* The same where the policy says pass. */
static void row_6_pass(void) {
    int fd = tcp();
    expect("bind", try_bind(fd, ANY, 8006), "ok");
    expect("kernel", kernel_name(fd), "0.0.0.0:8006");
    fd = tcp();
    expect("connect", try_connect(fd, EXTERNAL_ADDRESS, 7), "ok");
    expect("source seen by the peer", receive_text(fd), HOST_ADDRESS);
}

static void row_7(void) {
    int fd = tcp();
    expect("connect", try_connect(fd, EXTERNAL_ADDRESS, 7), "ok");
    expect_listed("source seen by the peer", receive_text(fd), V, HOST_ADDRESS);
    expect_listed("getsockname", visible_name(fd), format_host_port(V, kernel_port(fd)),
                  format_host_port(HOST_ADDRESS, kernel_port(fd)));
    int option = -1;
    socklen_t length = sizeof option;
    getsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &option, &length);
    expect("the option is as it was", option ? "set" : "clear", "clear");
}

/* The driver gives 100 ports, and two destinations beside this host that keep what comes. */
static void row_7_ports(void) {
    for (int i = 0; i < 150; i++) {
        struct linger none_left = {1, 0};
        int fd = tcp();
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &none_left, sizeof none_left);
        expect("connect", try_connect(fd, EXTERNAL_ADDRESS, i % 2 ? 8007 : 8107), "ok");
    }
}

static void row_8(void) {
    int fd = tcp();
    expect("bind", try_bind(fd, LOOPBACK, 0), "ok");
    expect("port is shown", kernel_port(fd) ? "yes" : "no", "yes");
    fd = tcp();
    expect("connect", try_connect(fd, EXTERNAL_ADDRESS, 8), "ECONNREFUSED");
    expect("bind after", try_bind(fd, ANY, 0), "ok");
    expect("port is shown after", kernel_port(fd) ? "yes" : "no", "yes");
    expect_listed("kernel", kernel_name(fd), format_host_port(V, kernel_port(fd)),
                  format_host_port(ANY, kernel_port(fd)));
}

static void row_9(void) {
    int fd = tcp();
    expect("connect", try_connect(fd, EXTERNAL_ADDRESS, 8), "ECONNREFUSED");
    expect("bind", try_bind(fd, LOOPBACK, 8009), "ok");
    expect("getsockname", visible_name(fd), "127.0.0.1:8009");
    expect_listed("kernel", kernel_name(fd), format_host_port(L, 8009), "127.0.0.1:8009");
}

static void row_10(void) {
    int fd = tcp();
    enable_option(fd, SOL_SOCKET, SO_REUSEADDR);
    expect("bind", try_bind(fd, HOST_ADDRESS, 8010), "ok");
    expect("connect", try_connect(fd, EXTERNAL_ADDRESS, 7), "ok");
    expect_listed("getsockname", visible_name(fd), format_host_port(V, 8010),
                  format_host_port(HOST_ADDRESS, 8010));
    expect("connect again", try_connect(fd, EXTERNAL_ADDRESS, 7), "EISCONN");
}

/* Dials, and looks at the pair from both ends. */
static void connect_and_check(int service, const char *host, int port, const char *if_listed,
                              const char *kernel_peer_listed) {
    int fd = tcp();
    expect("connect", try_connect(fd, host, port), "ok");
    int local_port = kernel_port(fd);
    expect("getpeername", visible_peer(fd), format_host_port(LOOPBACK, port));
    expect_quietly("getsockname", visible_name(fd), format_host_port(LOOPBACK, local_port));
    struct sockaddr_storage peer;
    socklen_t length = sizeof peer;
    int accepted = accept4(service, (void *)&peer, &length, SOCK_CLOEXEC);
    expect_quietly("accept4 shows", address_text(&peer), format_host_port(LOOPBACK, local_port));
    expect_quietly("accepted peer", visible_peer(accepted), format_host_port(LOOPBACK, local_port));
    expect("accepted", visible_name(accepted), format_host_port(LOOPBACK, port));
    expect_listed("kernel", kernel_name(accepted), format_host_port(if_listed, port),
                  format_host_port(LOOPBACK, port));
    if (listed &&
        strcmp(kernel_peer(accepted), format_host_port(kernel_peer_listed, local_port)) != 0) {
        printf("FAILED: kernel peer %s\n", kernel_peer(accepted));
        exit(1);
    }
}

static void row_11(void) {
    connect_and_check(listen_on(LOOPBACK, 8011), LOOPBACK, 8011, L, LOOPBACK);
    connect_and_check(listen_on(ANY, 8111), LOOPBACK, 8111, V, L);
    /* Nothing of the session's own: the host's (the driver has a listener on 127.0.0.1:8211). */
    int fd = tcp();
    expect("the host's", try_connect(fd, LOOPBACK, 8211), "ok");
    expect("kernel of the host's", kernel_peer(fd), "127.0.0.1:8211");
    /* One of own-ports, nothing listens there: never the host's (8311). */
    expect_listed("an own port", try_connect(tcp(), LOOPBACK, 8311), "ECONNREFUSED", "ok");
    /* One of shared-ports: never the session's own. */
    expect("a shared port", try_connect(tcp(), LOOPBACK, 8411), "ok");
    expect("bind to a shared port", try_bind(tcp(), LOOPBACK, 8411), "EADDRINUSE");
    expect("nothing anywhere", try_connect(tcp(), LOOPBACK, 8511), "ECONNREFUSED");
}

static void exchange_datagrams(int server, int client, const char *host, int port, int connected) {
    struct address to = make_address(host, port);
    if (connected) {
        expect("connect", try_connect(client, host, port), "ok");
        expect("getpeername", visible_peer(client), format_host_port(LOOPBACK, port));
        expect("send", errno_text(send(client, "ask", 3, 0)), "ok");
    } else {
        expect("sendto", errno_text(sendto(client, "ask", 3, 0, (void *)&to.bytes, to.length)),
               "ok");
    }
    struct sockaddr_storage from;
    socklen_t length = sizeof from;
    char packet[16];
    expect("recvfrom", errno_text(recvfrom(server, packet, 16, 0, (void *)&from, &length)), "ok");
    expect_quietly("source", address_text(&from), format_host_port(LOOPBACK, kernel_port(client)));
    expect("reply", errno_text(sendto(server, "answer", 6, 0, (void *)&from, length)), "ok");
    length = sizeof from;
    struct pollfd ready = {client, POLLIN, 0};
    expect("datagram arrives", poll(&ready, 1, 5000) == 1 ? "yes" : "no", "yes");
    expect("recvfrom", errno_text(recvfrom(client, packet, 16, 0, (void *)&from, &length)), "ok");
    expect("from", address_text(&from), format_host_port(LOOPBACK, port));
}

static void row_11b(void) {
    int on_loopback = udp(), on_any = udp();
    expect("bind", try_bind(on_loopback, LOOPBACK, 8011), "ok");
    exchange_datagrams(on_loopback, udp(), LOOPBACK, 8011, 1);
    exchange_datagrams(on_loopback, udp(), LOOPBACK, 8011, 0);
    expect("bind any", try_bind(on_any, ANY, 8111), "ok");
    exchange_datagrams(on_any, udp(), LOOPBACK, 8111, 1);
    exchange_datagrams(on_any, udp(), LOOPBACK, 8111, 0);
}

static void row_12(void) { connect_and_check(listen_on(LOOPBACK, 8012), ANY, 8012, L, LOOPBACK); }

static void row_13(void) {
    int fd = udp();
    expect("connect", try_connect(fd, EXTERNAL_ADDRESS, 7), "ok");
    struct sockaddr_storage none = {.ss_family = AF_UNSPEC};
    expect("dissolve", errno_text(connect(fd, (void *)&none, sizeof none)), "ok");
    expect("getpeername", visible_peer(fd), "ENOTCONN");
}

static void row_14(void) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    expect("connect", try_connect(fd, EXTERNAL_ADDRESS, 7), "EINPROGRESS");
    struct pollfd ready = {fd, POLLOUT, 0};
    poll(&ready, 1, 5000);
    expect_listed("getsockname", visible_name(fd), format_host_port(V, kernel_port(fd)),
                  format_host_port(HOST_ADDRESS, kernel_port(fd)));
}

static void row_15(void) {
    int fd = tcp();
    struct address any = make_address(ANY, 8015);
    any.bytes.ss_family = AF_UNSPEC;
    expect("bind", errno_text(bind(fd, (void *)&any.bytes, any.length)), "ok");
    expect_listed("kernel", kernel_name(fd), format_host_port(V, 8015), "0.0.0.0:8015");
    struct address other = make_address(LOOPBACK, 8115);
    other.bytes.ss_family = AF_UNSPEC;
    expect("not 0.0.0.0", errno_text(bind(tcp(), (void *)&other.bytes, other.length)),
           "EAFNOSUPPORT");
}

static void row_16(void) {
    struct address here = make_address(LOOPBACK, 8016);
    char long_one[129] = {0};
    memcpy(long_one, &here.bytes, sizeof(struct sockaddr_in));
    void *inaccessible = inaccessible_page();
    const struct sockaddr *wrong[] = {NULL, inaccessible, (void *)1, (void *)-1, (void *)~0xfffUL};
    for (unsigned i = 0; i < 5; i++) {
        expect("bind bad", errno_text(bind(tcp(), wrong[i], 16)), "EFAULT");
        expect("connect bad", errno_text(connect(tcp(), wrong[i], 16)), "EFAULT");
        expect("sendto bad", errno_text(sendto(udp(), "x", 1, 0, wrong[i], 16)),
               wrong[i] ? "EFAULT" : "EDESTADDRREQ");
        socklen_t length = 16;
        int fd = tcp();
        try_bind(fd, LOOPBACK, 0);
        expect("getsockname bad", errno_text(getsockname(fd, (void *)wrong[i], &length)), "EFAULT");
        expect("getsockname bad length",
               errno_text(getsockname(fd, (void *)&here.bytes, (void *)wrong[i])), "EFAULT");
    }
    here = make_address(LOOPBACK, 8016);
    expect("bind zero", errno_text(bind(tcp(), (void *)&here.bytes, 0)), "EINVAL");
    expect("bind short", errno_text(bind(tcp(), (void *)&here.bytes, 8)), "EINVAL");
    expect("bind negative", errno_text(bind(tcp(), (void *)&here.bytes, -1)), "EINVAL");
    expect("bind 129", errno_text(bind(tcp(), (void *)long_one, 129)), "EINVAL");
    int fd = tcp();
    expect("bind 128", errno_text(bind(fd, (void *)long_one, 128)), "ok");
    expect_listed("kernel", kernel_name(fd), format_host_port(L, 8016), "127.0.0.1:8016");
    expect("no socket", errno_text(bind(0, (void *)&here.bytes, here.length)), "ENOTSOCK");
    expect("no descriptor", errno_text(bind(-1, (void *)&here.bytes, here.length)), "EBADF");
    expect("connect no descriptor", errno_text(connect(-1, (void *)&here.bytes, here.length)),
           "EBADF");
    expect("listen no descriptor", errno_text(listen(-1, 1)), "EBADF");
    /* The last bytes of a page whose neighbour can't be touched. */
    char *pages = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(pages + 4096, 4096, PROT_NONE);
    struct address edge = make_address(LOOPBACK, 8116);
    memcpy(pages + 4096 - 16, &edge.bytes, 16);
    expect("at the edge", errno_text(bind(tcp(), (void *)(pages + 4096 - 16), 16)), "ok");
    expect("over the edge", errno_text(bind(tcp(), (void *)(pages + 4096 - 16), 28)), "EFAULT");
}

static void row_17(void) {
    int fd = tcp();
    expect("bind", try_bind(fd, LOOPBACK, 8017), "ok");
    for (socklen_t room = 0; room <= 20; room++) {
        unsigned char out[24], whole[24];
        struct sockaddr_storage all;
        socklen_t length = sizeof all;
        memset(out, 0xaa, sizeof out);
        memset(whole, 0xaa, sizeof whole);
        getsockname(fd, (void *)&all, &length);
        memcpy(whole, &all, room < 16 ? room : 16);
        length = room;
        expect("getsockname", errno_text(getsockname(fd, (void *)out, &length)), "ok");
        expect("length", length == 16 ? "16" : "another", "16");
        expect("bytes", memcmp(out, whole, sizeof out) == 0 ? "as they should" : "others",
               "as they should");
    }
    socklen_t negative = -1;
    struct sockaddr_in out;
    expect("negative", errno_text(getsockname(fd, (void *)&out, &negative)), "EINVAL");
}

static void row_18(void) {
    expect("tcp", visible_name(tcp()), "0.0.0.0:0");
    expect("udp", visible_name(udp()), "0.0.0.0:0");
    expect("tcp6", visible_name(tcp6()), "[::]:0");
}

static void row_19(void) {
    /* The driver dials from outside when it reads the port. */
    int service = listen_on(ANY, 8019);
    printf("dial %s 8019\n", listed ? V : HOST_ADDRESS);
    fflush(stdout);
    int accepted = accept(service, NULL, NULL);
    expect_listed("accepted on", visible_name(accepted), format_host_port(V, 8019),
                  format_host_port(HOST_ADDRESS, 8019));
    expect_listed("kernel", kernel_name(accepted), format_host_port(V, 8019),
                  format_host_port(HOST_ADDRESS, 8019));
}

/* A client that is bound to own L reaches an own listener on L, without blocking. */
static void row_20(void) {
    int service = listen_on(LOOPBACK, 8020);
    fcntl(service, F_SETFL, O_NONBLOCK);
    struct sockaddr_storage peer;
    socklen_t length = sizeof peer;
    expect("accept", errno_text(accept(service, (void *)&peer, &length)), "EAGAIN");
    int fd = tcp();
    enable_option(fd, SOL_SOCKET, SO_REUSEADDR);
    expect("bind", try_bind(fd, LOOPBACK, 8120), "ok");
    expect("connect", try_connect(fd, LOOPBACK, 8020), "ok");
    struct pollfd ready = {service, POLLIN, 0};
    poll(&ready, 1, 5000);
    int accepted = accept(service, (void *)&peer, &length);
    expect("accept shows", address_text(&peer), "127.0.0.1:8120");
    expect_listed("kernel", kernel_peer(accepted), format_host_port(L, 8120), "127.0.0.1:8120");
}

static void row_21(void) {
    int fd = tcp();
    expect("listen", errno_text(listen(fd, 8)), "ok");
    expect_listed("kernel", kernel_name(fd), format_host_port(V, kernel_port(fd)),
                  format_host_port(ANY, kernel_port(fd)));
    expect("listen again", errno_text(listen(fd, 16)), "ok");
    expect("on udp", errno_text(listen(udp(), 8)), "EOPNOTSUPP");
    int local = socket(AF_UNIX, SOCK_STREAM, 0);
    expect("on unix", errno_text(listen(local, 8)), "EINVAL");
}

static void row_22(void) {
    int fd = udp();
    struct address to = make_address(EXTERNAL_ADDRESS, 7);
    expect("sendto", errno_text(sendto(fd, "x", 1, 0, (void *)&to.bytes, to.length)), "ok");
    expect_listed("source seen by the peer", receive_text(fd), V, HOST_ADDRESS);
    expect_listed("kernel", kernel_name(fd), format_host_port(V, kernel_port(fd)),
                  format_host_port(ANY, kernel_port(fd)));
    expect("a later bind", try_bind(fd, ANY, 8022), "EINVAL");
    /* Towards the loopback nothing is bound but a port. */
    int service = udp();
    expect("bind", try_bind(service, LOOPBACK, 8122), "ok");
    fd = udp();
    to = make_address(LOOPBACK, 8122);
    expect("sendto loopback", errno_text(sendto(fd, "x", 1, 0, (void *)&to.bytes, to.length)),
           "ok");
    expect_quietly("kernel of that", kernel_name(fd), format_host_port(ANY, kernel_port(fd)));
    expect("sendto on tcp",
           errno_text(sendto(tcp(), "x", 1, MSG_NOSIGNAL, (void *)&to.bytes, to.length)), "EPIPE");
}

static void row_23(void) {
    int fd = tcp();
    expect("bind", try_bind(fd, LOOPBACK, 0), "ok");
    expect_quietly("kernel", kernel_name(fd), format_host_port(LOOPBACK, kernel_port(fd)));
    expect_quietly("getsockname", visible_name(fd), format_host_port(LOOPBACK, kernel_port(fd)));
}

/* A rule can map it. */
static void row_23_mapped(void) {
    char mapped[64];
    snprintf(mapped, sizeof mapped, "::ffff:%s", L6);
    int fd = tcp(), v6 = tcp6(), client = tcp6();
    expect("bind", try_bind(fd, LOOPBACK, 0), "ok");
    int port = kernel_port(fd);
    expect_listed("kernel", kernel_name(fd), format_host_port(L, port),
                  format_host_port(LOOPBACK, port));
    expect_quietly("getsockname", visible_name(fd), format_host_port(LOOPBACK, port));
    expect("listen", errno_text(listen(fd, 1)), "ok");
    expect("connect", try_connect(tcp(), LOOPBACK, port), "ok");
    expect("bind IPv6", try_bind(v6, "::1", 0), "ok");
    port = kernel_port(v6);
    expect_listed("kernel", kernel_name(v6), format_host_port(mapped, port),
                  format_host_port("::1", port));
    expect_quietly("getsockname", visible_name(v6), format_host_port("::1", port));
    expect("listen", errno_text(listen(v6, 1)), "ok");
    expect("bind the client", try_bind(client, "::1", 0), "ok");
    expect("connect", try_connect(client, "::1", port), "ok");
    /* The driver has a listener of the host's there. */
    client = tcp6();
    expect("bind another", try_bind(client, "::1", 0), "ok");
    expect_listed("the host's", try_connect(client, "::1", 8223), "EAFNOSUPPORT", "ok");
}

static void row_25(void) {
    int service = udp(), fd = udp();
    expect("bind", try_bind(service, LOOPBACK, 8025), "ok");
    expect("bind client", try_bind(fd, LOOPBACK, 8125), "ok");
    struct address to = make_address(LOOPBACK, 8025);
    expect("sendto", errno_text(sendto(fd, "x", 1, 0, (void *)&to.bytes, to.length)), "ok");
    struct sockaddr_storage from;
    socklen_t length = sizeof from;
    char packet[4];
    expect("recvfrom", errno_text(recvfrom(service, packet, 4, 0, (void *)&from, &length)), "ok");
    expect("source", address_text(&from), "127.0.0.1:8125");
    expect("without room", errno_text(sendto(fd, "y", 1, 0, (void *)&to.bytes, to.length)), "ok");
    expect("recvfrom without", errno_text(recvfrom(service, packet, 4, 0, NULL, NULL)), "ok");
}

static void row_26(void) {
    int fd = udp();
    enable_option(fd, SOL_SOCKET, SO_REUSEADDR);
    expect("shared", try_bind(fd, ANY, 8026), "ok");
    expect("kernel", kernel_name(fd), "0.0.0.0:8026");
    fd = udp();
    enable_option(fd, SOL_SOCKET, SO_REUSEPORT);
    expect("port shared", try_bind(fd, ANY, 8226), "ok");
    expect("kernel of that", kernel_name(fd), "0.0.0.0:8226");
    fd = udp();
    enable_option(fd, SOL_SOCKET, SO_BROADCAST);
    expect("broadcast", try_bind(fd, ANY, 8126), "ok");
    expect("kernel of that", kernel_name(fd), "0.0.0.0:8126");
    fd = udp();
    expect("a port of the list", try_bind(fd, ANY, 5353), "ok");
    expect("kernel of the list", kernel_name(fd), "0.0.0.0:5353");
}

static void row_29(void) {
    /* The driver has a listener of the host's on [::]:8029. */
    expect("bind", try_bind(tcp(), ANY, 8029), "EADDRINUSE");
}

static void row_34(void) {
    struct sockaddr_un name = {.sun_family = AF_UNIX, .sun_path = "\0vipool-matrix-34"};
    socklen_t length = sizeof(sa_family_t) + 17;
    int service = socket(AF_UNIX, SOCK_STREAM, 0), fd = socket(AF_UNIX, SOCK_STREAM, 0);
    expect("bind", errno_text(bind(service, (void *)&name, length)), "ok");
    expect("listen", errno_text(listen(service, 1)), "ok");
    expect("connect", errno_text(connect(fd, (void *)&name, length)), "ok");
    struct sockaddr_un peer;
    socklen_t room = sizeof peer;
    expect("getpeername", errno_text(getpeername(fd, (void *)&peer, &room)), "ok");
    expect("the name", room == length && !memcmp(&peer, &name, length) ? "same" : "other", "same");
    int netlink = socket(AF_NETLINK, SOCK_RAW, 0);
    struct sockaddr_storage kernel_end = {.ss_family = AF_NETLINK};
    expect("netlink", errno_text(bind(netlink, (void *)&kernel_end, 12)), "ok");
    struct address inet = make_address(LOOPBACK, 8034);
    expect("inet on unix", errno_text(bind(fd, (void *)&inet.bytes, inet.length)), "EINVAL");
    expect("inet on unix connect",
           errno_text(connect(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&inet.bytes, inet.length)),
           "EINVAL");
}

static void row_38(void) {
    int first = tcp(), second = tcp();
    enable_option(first, SOL_SOCKET, SO_REUSEPORT);
    enable_option(second, SOL_SOCKET, SO_REUSEPORT);
    expect("bind", try_bind(first, ANY, 8038), "ok");
    expect("bind second", try_bind(second, ANY, 8038), "ok");
    /* Another session has the port for itself (the driver sees to that). */
    expect_listed("kernel", kernel_name(first), format_host_port(V, 8038), "0.0.0.0:8038");
    expect_listed("kernel of the second", kernel_name(second), format_host_port(V, 8038),
                  "0.0.0.0:8038");
    expect("one that does not share", try_bind(tcp(), ANY, 8038), "EADDRINUSE");
    expect("listen", errno_text(listen(first, 1)), "ok");
    expect("listen second", errno_text(listen(second, 1)), "ok");
}

static void row_45(void) {
    int fd = tcp(), service = tcp();
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
    expect("names", strerrorname_np(errno), "EDOM");
    fd = tcp();
    try_connect(fd, LOOPBACK, 8211);
    expect("connect to the host's", strerrorname_np(errno), "EDOM");
    fd = tcp();
    try_connect(fd, EXTERNAL_ADDRESS, 7);
    expect("connect outside", strerrorname_np(errno), "EDOM");
    fd = udp();
    struct address to = make_address(EXTERNAL_ADDRESS, 7);
    sendto(fd, "x", 1, 0, (void *)&to.bytes, to.length);
    expect("sendto", strerrorname_np(errno), "EDOM");
    listen(tcp(), 1);
    expect("listen unbound", strerrorname_np(errno), "EDOM");
    setsockopt(fd, IPPROTO_IP, IP_MULTICAST_IF, &(struct in_addr){INADDR_ANY}, 4);
    expect("setsockopt", strerrorname_np(errno), "EDOM");
}

/* The same of messages, also where the kernel refuses those behind the first ones. */
static void row_45_messages(void) {
    struct address own = make_address(LOOPBACK, 8145), out = make_address(EXTERNAL_ADDRESS, 7),
                   places[] = {own, out};
    struct sockaddr_storage name;
    socklen_t length = sizeof name;
    char byte = 0;
    struct iovec part = {&byte, 1}, bad = {(void *)8, 1};
    struct mmsghdr many[12];
    int service = udp();
    expect("bind", try_bind(service, LOOPBACK, 8145), "ok");
    for (int i = 0; i < 2; i++) {
        int fd = udp();
        struct msghdr message = {.msg_name = &places[i].bytes,
                                 .msg_namelen = places[i].length,
                                 .msg_iov = &part,
                                 .msg_iovlen = 1};
        for (int k = 0; k < 12; k++) many[k] = (struct mmsghdr){.msg_hdr = message};
        errno = EDOM;
        sendto(fd, &byte, 1, 0, (void *)&places[i].bytes, places[i].length);
        expect("sendto", strerrorname_np(errno), "EDOM");
        sendmsg(fd, &message, 0);
        expect("sendmsg", strerrorname_np(errno), "EDOM");
        expect("sendmmsg", sendmmsg(fd, many, 12, 0) == 12 ? "12" : "other", "12");
        expect("its errno", strerrorname_np(errno), "EDOM");
        for (int k = 1; k < 12; k++) {
            many[k].msg_hdr.msg_iov = &bad;
            if (k > 1) many[k - 1].msg_hdr.msg_iov = &part;
            expect("sendmmsg some", sendmmsg(fd, many, 12, 0) == k ? "those before" : "other",
                   "those before");
            expect("its errno", strerrorname_np(errno), "EDOM");
        }
        many[0].msg_hdr.msg_iov = &bad;
        expect("sendmmsg none", errno_text(sendmmsg(fd, many, 12, 0)), "EFAULT");
    }
    struct msghdr message = {
        .msg_name = &name, .msg_namelen = sizeof name, .msg_iov = &part, .msg_iovlen = 1};
    for (int k = 0; k < 2; k++) many[k] = (struct mmsghdr){.msg_hdr = message};
    errno = EDOM;
    recvfrom(service, &byte, 1, 0, (void *)&name, &length);
    expect("recvfrom", strerrorname_np(errno), "EDOM");
    recvmsg(service, &message, 0);
    expect("recvmsg", strerrorname_np(errno), "EDOM");
    expect("recvmmsg", recvmmsg(service, many, 2, 0, NULL) == 2 ? "2" : "other", "2");
    expect("its errno", strerrorname_np(errno), "EDOM");
}

const struct row rows[] = {
    {"1", row_1},
    {"2", row_2},
    {"3", row_3},
    {"3-loopback", row_3_loopback},
    {"3-wildcard", row_3_wildcard},
    {"4", row_4},
    {"5", row_5},
    {"5-link-local", row_5_link_local},
    {"5-dialled", row_5_dialled},
    {"6", row_6},
    {"6-pass", row_6_pass},
    {"7", row_7},
    {"7-ports", row_7_ports},
    {"8", row_8},
    {"9", row_9},
    {"10", row_10},
    {"11", row_11},
    {"11b", row_11b},
    {"12", row_12},
    {"13", row_13},
    {"14", row_14},
    {"15", row_15},
    {"16", row_16},
    {"17", row_17},
    {"18", row_18},
    {"19", row_19},
    {"20", row_20},
    {"21", row_21},
    {"22", row_22},
    {"23", row_23},
    {"23-mapped", row_23_mapped},
    {"25", row_25},
    {"26", row_26},
    {"29", row_29},
    {"34", row_34},
    {"38", row_38},
    {"45", row_45},
    {"45-messages", row_45_messages},
    {NULL, NULL},
};
