/* Tests the rows of the socket matrix for sendmsg(2), recvmsg(2) and multicast. See matrix.h. */
#include "matrix.h"

#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/uio.h>

/* Sets the source address of a message in its packet information. */
static void set_source(struct message *message, const char *source) {
    struct address address = make_address(source, 0);
    struct cmsghdr *control = &message->control.header;
    if (address.bytes.ss_family == AF_INET) {
        struct in_pktinfo info = {.ipi_spec_dst = ((struct sockaddr_in *)&address.bytes)->sin_addr};
        control->cmsg_level = IPPROTO_IP;
        control->cmsg_type = IP_PKTINFO;
        control->cmsg_len = CMSG_LEN(sizeof info);
        memcpy(CMSG_DATA(control), &info, sizeof info);
        message->header.msg_controllen = CMSG_SPACE(sizeof info);
    } else {
        struct in6_pktinfo info = {.ipi6_addr = ((struct sockaddr_in6 *)&address.bytes)->sin6_addr};
        control->cmsg_level = IPPROTO_IPV6;
        control->cmsg_type = IPV6_PKTINFO;
        control->cmsg_len = CMSG_LEN(sizeof info);
        memcpy(CMSG_DATA(control), &info, sizeof info);
        message->header.msg_controllen = CMSG_SPACE(sizeof info);
    }
}

/* The hook rewrites the source of a message, including the source in IP_PKTINFO. The hook changes
 * only a copy of the message. */
static void message_source_is_rewritten(void) {
    struct address external_destination = make_address(EXTERNAL_ADDRESS, 7);
    struct message message;
    const char *sources[] = {HOST_ADDRESS, ANY};
    for (int i = 0; i < 2; i++) {
        int fd = udp_socket();
        init_message(&message, &external_destination);
        set_source(&message, sources[i]);
        struct message original_message = message;
        expect("sendmsg", errno_text(sendmsg(fd, &message.header, 0)), "ok");
        expect("arguments are unchanged",
               memcmp(&original_message, &message, sizeof message) ? "no" : "yes", "yes");
        expect_listed("source seen by the peer", receive_text(fd), V, HOST_ADDRESS);
    }
    /* The kernel reads the address length as an int. It reduces a length above 128 to 128, and
     * rejects a negative length. */
    const unsigned lengths[] = {128, 129, 1000, INT_MAX, 0x80000000u, ~0u};
    for (int i = 0; i < 6; i++) {
        int fd = udp_socket();
        init_message(&message, &external_destination);
        message.header.msg_namelen = lengths[i];
        expect("sendmsg", errno_text(sendmsg(fd, &message.header, 0)), i < 4 ? "ok" : "EINVAL");
        if (i < 4) expect_listed("source seen by the peer", receive_text(fd), V, HOST_ADDRESS);
    }
    /* Only the second message has packet information. */
    int fd = udp_socket();
    struct message contents[2];
    struct mmsghdr messages[2];
    init_message(&contents[0], &external_destination);
    init_message(&contents[1], &external_destination);
    set_source(&contents[1], HOST_ADDRESS);
    messages[0].msg_hdr = contents[0].header;
    messages[1].msg_hdr = contents[1].header;
    expect("sendmmsg", sendmmsg(fd, messages, 2, 0) == 2 ? "2" : "other", "2");
    expect("lengths", messages[0].msg_len == 1 && messages[1].msg_len == 1 ? "1" : "other", "1");
    expect_listed("source seen by the peer first", receive_text(fd), V, HOST_ADDRESS);
    expect_listed("source seen by the peer second", receive_text(fd), V, HOST_ADDRESS);
    /* Send more messages than the hook copies at once. */
    struct mmsghdr message_batch[20];
    for (int i = 0; i < 20; i++) message_batch[i] = messages[1];
    expect("sendmmsg of several batches", sendmmsg(fd, message_batch, 20, 0) == 20 ? "20" : "other",
           "20");
    expect("sendmmsg with a bad pointer", errno_text(sendmmsg(fd, NULL, 1, 0)), "EFAULT");
    expect("sendmsg with a bad pointer", errno_text(sendmsg(fd, NULL, 0)), "EFAULT");
    expect("sendmmsg of no message", errno_text(sendmmsg(fd, NULL, 0, 0)), "ok");
    expect("sendmmsg without a descriptor", errno_text(sendmmsg(-1, NULL, 0, 0)), "EBADF");
    int file = open("/dev/null", O_RDONLY | O_CLOEXEC);
    expect("sendmmsg of no message on a file", errno_text(sendmmsg(file, NULL, 0, 0)), "ENOTSOCK");
    expect("sendmmsg on a file", errno_text(sendmmsg(file, message_batch, 1, 0)), "ENOTSOCK");
    /* The destination is a loopback service of the session. */
    int service = udp_socket();
    expect("bind", try_bind(service, LOOPBACK, 8024), "ok");
    struct address loopback_destination = make_address(LOOPBACK, 8024);
    init_message(&message, &loopback_destination);
    set_source(&message, LOOPBACK);
    fd = udp_socket();
    expect("sendmsg to the session", errno_text(sendmsg(fd, &message.header, 0)), "ok");
    struct sockaddr_storage source;
    socklen_t length = sizeof source;
    char byte;
    expect("recvfrom", errno_text(recvfrom(service, &byte, 1, 0, (void *)&source, &length)), "ok");
    expect_unprinted("source", format_address(&source),
                     format_host_port(LOOPBACK, kernel_port(fd)));
}

/* The array of messages may end directly before an inaccessible page: the hook does not access this
 * page. If the pages of the array are read-only, sendmmsg fails as without the hook. The control
 * data of the whole array is larger than the hook's buffer for one batch of messages. */
static void message_array_may_end_at_page_end(void) {
    enum { COUNT = 100, PAGE = 4096 };
    size_t size = COUNT * sizeof(struct mmsghdr), mapped_size = (size + PAGE - 1) / PAGE * PAGE;
    char *memory =
        mmap(NULL, mapped_size + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(memory + mapped_size, PAGE, PROT_NONE);
    struct mmsghdr *messages = (void *)(memory + mapped_size - size);
    struct address external_destination = make_address(EXTERNAL_ADDRESS, 7);
    static struct message contents[COUNT];
    int fd = udp_socket(), buffer_size = 1 << 20;
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &buffer_size, sizeof buffer_size);
    for (int i = 0; i < COUNT; i++) {
        init_message(&contents[i], &external_destination);
        if (i % 3) set_source(&contents[i], HOST_ADDRESS);
        /* Every third message has its packet information twice, which the kernel accepts. */
        if (i % 3 == 2) {
            size_t length = contents[i].header.msg_controllen;
            memcpy(contents[i].control.bytes + length, contents[i].control.bytes, length);
            contents[i].header.msg_controllen *= 2;
        }
        messages[i].msg_hdr = contents[i].header;
        messages[i].msg_len = 77;
    }
    expect("sendmmsg of all", sendmmsg(fd, messages, COUNT, 0) == COUNT ? "all" : "some", "all");
    for (int i = 0; i < COUNT; i++) {
        expect_listed("source seen by the peer", receive_text(fd), V, HOST_ADDRESS);
        expect_unprinted("length", messages[i].msg_len == 1 ? "1" : "other", "1");
    }
    errno = EDOM;
    expect("sendmmsg beyond the last message",
           sendmmsg(fd, messages + 90, 20, 0) == 10 ? "10" : "other", "10");
    expect("errno", strerrorname_np(errno), "EDOM");
    for (int i = 0; i < 10; i++)
        expect_listed("source seen by the peer", receive_text(fd), V, HOST_ADDRESS);
    expect("sendmmsg from an unmapped page", errno_text(sendmmsg(fd, messages + COUNT, 1, 0)),
           "EFAULT");
    expect("recvmmsg into an unmapped page",
           errno_text(recvmmsg(fd, messages + COUNT, 1, MSG_DONTWAIT, NULL)), "EFAULT");
    /* sendmmsg cannot write the lengths of the sent messages to a read-only page. At first only the
     * last page is read-only, later every page. */
    mprotect(memory + mapped_size - PAGE, PAGE, PROT_READ);
    expect("read-only last page", sendmmsg(fd, messages, COUNT, 0) < COUNT ? "some" : "all",
           "some");
    mprotect(memory, mapped_size, PROT_READ);
    expect("read-only", errno_text(sendmmsg(fd, messages, COUNT, 0)), "EFAULT");
    mprotect(memory, mapped_size, PROT_NONE);
    expect("inaccessible pages", errno_text(sendmmsg(fd, messages, COUNT, 0)), "EFAULT");
    munmap(memory, mapped_size + PAGE);
}

/* The source in IPV6_PKTINFO is rewritten. */
static void ipv6_message_source_is_rewritten(void) {
    struct address external_destination = make_address(EXTERNAL_ADDRESS6, 7);
    struct message message;
    int fd = udp6_socket();
    init_message(&message, &external_destination);
    set_source(&message, HOST_ADDRESS6);
    expect("sendmsg", errno_text(sendmsg(fd, &message.header, 0)), "ok");
    expect_listed("source seen by the peer", receive_text(fd), V6, HOST_ADDRESS6);
}

/* The source of a message to a link-local address stays link-local, whether the packet information
 * contains the link-local source or "::". */
static void link_local_message_source_passes(void) {
    int service = udp6_socket(), fd = udp6_socket();
    struct address link_local_address = make_link_local(LINK_LOCAL, 8024);
    expect("bind",
           errno_text(bind(service, (void *)&link_local_address.bytes, link_local_address.length)),
           "ok");
    const char *sources[] = {LINK_LOCAL, "::"};
    for (int i = 0; i < 2; i++) {
        struct message message;
        init_message(&message, &link_local_address);
        set_source(&message, sources[i]);
        expect("sendmsg", errno_text(sendmsg(fd, &message.header, 0)), "ok");
        struct pollfd poll_fd = {service, POLLIN, 0};
        expect("datagram arrives", poll(&poll_fd, 1, 5000) == 1 ? "yes" : "no", "yes");
        struct sockaddr_storage source;
        socklen_t length = sizeof source;
        char byte;
        expect("recvfrom", errno_text(recvfrom(service, &byte, 1, 0, (void *)&source, &length)),
               "ok");
        expect_unprinted("source", format_address(&source),
                         format_host_port(LINK_LOCAL, kernel_port(fd)));
    }
}

/* Returns the destination in the packet information of a received message. */
static const char *pktinfo_destination(struct message *message) {
    static char texts[4][64];
    static int next_index;
    char *text = texts[next_index++ % 4];
    strcpy(text, "nothing");
    for (struct cmsghdr *control = CMSG_FIRSTHDR(&message->header); control;
         control = CMSG_NXTHDR(&message->header, control)) {
        struct in_pktinfo v4;
        struct in6_pktinfo v6;
        if (control->cmsg_level == IPPROTO_IP && control->cmsg_type == IP_PKTINFO) {
            memcpy(&v4, CMSG_DATA(control), sizeof v4);
            inet_ntop(AF_INET, &v4.ipi_addr, text, 64);
        } else if (control->cmsg_level == IPPROTO_IPV6 && control->cmsg_type == IPV6_PKTINFO) {
            memcpy(&v6, CMSG_DATA(control), sizeof v6);
            inet_ntop(AF_INET6, &v6.ipi6_addr, text, 64);
        }
    }
    return text;
}

/* In received messages, the source and the address in IP_PKTINFO are visible as 127.0.0.1. */
static void received_messages_have_loopback_addresses(void) {
    int service = udp_socket(), fd = udp_socket();
    enable_option(service, IPPROTO_IP, IP_PKTINFO);
    expect("bind", try_bind(service, LOOPBACK, 8025), "ok");
    expect("bind client", try_bind(fd, LOOPBACK, 8125), "ok");
    struct address destination = make_address(LOOPBACK, 8025);
    struct message message;
    for (int i = 0; i < 3; i++)
        expect("sendto",
               errno_text(sendto(fd, "x", 1, 0, (void *)&destination.bytes, destination.length)),
               "ok");
    init_message(&message, NULL);
    expect("recvmsg", errno_text(recvmsg(service, &message.header, 0)), "ok");
    expect("source", format_address(&message.name), "127.0.0.1:8125");
    expect("sent to", pktinfo_destination(&message), LOOPBACK);
    /* The reply repeats the packet information of the request, without the interface index. */
    struct cmsghdr *control = CMSG_FIRSTHDR(&message.header);
    struct in_pktinfo info;
    memcpy(&info, CMSG_DATA(control), sizeof info);
    info.ipi_ifindex = 0;
    memcpy(CMSG_DATA(control), &info, sizeof info);
    expect("reply", errno_text(sendmsg(service, &message.header, 0)), "ok");
    char byte;
    struct sockaddr_storage source;
    socklen_t length = sizeof source;
    expect("recvfrom the reply", errno_text(recvfrom(fd, &byte, 1, 0, (void *)&source, &length)),
           "ok");
    expect("sender of the reply", format_address(&source), "127.0.0.1:8025");
    struct message contents[2];
    struct mmsghdr messages[2];
    for (int i = 0; i < 2; i++) {
        init_message(&contents[i], NULL);
        messages[i].msg_hdr = contents[i].header;
    }
    expect("recvmmsg", recvmmsg(service, messages, 2, 0, NULL) == 2 ? "2" : "other", "2");
    for (int i = 0; i < 2; i++) {
        contents[i].header = messages[i].msg_hdr;
        expect("source", format_address(&contents[i].name), "127.0.0.1:8125");
        expect("sent to", pktinfo_destination(&contents[i]), LOOPBACK);
    }
    expect("recvmsg with a bad pointer", errno_text(recvmsg(service, NULL, MSG_DONTWAIT)),
           "EFAULT");
    expect("recvmsg on an empty queue", errno_text(recvmsg(service, &message.header, MSG_DONTWAIT)),
           "EAGAIN");
    /* recvmsg truncates the source to a short address buffer, and does not change the bytes after
     * the buffer. */
    expect("sendto",
           errno_text(sendto(fd, "x", 1, 0, (void *)&destination.bytes, destination.length)), "ok");
    init_message(&message, NULL);
    memset(&message.name, 0xaa, sizeof message.name);
    message.header.msg_namelen = 4;
    expect("recvmsg into a short buffer", errno_text(recvmsg(service, &message.header, 0)), "ok");
    expect("reported length", message.header.msg_namelen == 16 ? "16" : "other", "16");
    expect("bytes after the buffer",
           ((unsigned char *)&message.name)[4] == 0xaa ? "untouched" : "written", "untouched");
}

enum { LARGE_ARRAY = 1100 };
static int large_array_service;

/* Sends one datagram for each element of the large array. Sends the next datagram when the service
 * has received the previous datagram, so that no datagram is lost. */
static void *send_to_large_array(void *unused) {
    struct address destination = make_address(LOOPBACK, 8127);
    int fd = udp_socket(), unread = 0;
    expect_unprinted("bind", try_bind(fd, LOOPBACK, 8128), "ok");
    for (int i = 0; i < LARGE_ARRAY; i++) {
        sendto(fd, "x", 1, 0, (void *)&destination.bytes, destination.length);
        while (ioctl(large_array_service, FIONREAD, &unread) == 0 && unread > 0) sched_yield();
    }
    return unused;
}

/* recvmmsg has no limit of messages. The program sees the visible source of each message, also in
 * an array with more than 1024 messages. */
static void large_message_array_has_visible_sources(void) {
    static struct mmsghdr messages[LARGE_ARRAY];
    static struct message contents[LARGE_ARRAY];
    pthread_t sender;
    int service = udp_socket(), received_count = 0, visible_count = 0;
    expect("bind", try_bind(service, LOOPBACK, 8127), "ok");
    for (int i = 0; i < LARGE_ARRAY; i++) {
        init_message(&contents[i], NULL);
        messages[i].msg_hdr = contents[i].header;
    }
    large_array_service = service;
    pthread_create(&sender, NULL, send_to_large_array, NULL);
    while (received_count < LARGE_ARRAY) {
        int result = recvmmsg(service, messages + received_count, LARGE_ARRAY - received_count, 0,
                              NULL);
        if (result <= 0) break;
        received_count += result;
    }
    /* The sender waits for an empty queue, and a closed socket ends this wait. */
    if (received_count < LARGE_ARRAY) close(service);
    pthread_join(sender, NULL);
    for (int i = 0; i < received_count; i++)
        visible_count += strcmp(format_address(&contents[i].name), "127.0.0.1:8128") == 0;
    expect("received", received_count == LARGE_ARRAY ? "all" : "some", "all");
    expect("visible sources", visible_count == LARGE_ARRAY ? "all" : "some", "all");
}

/* Returns the interface in the packet information of a received message. */
static const char *pktinfo_interface(struct message *message) {
    struct cmsghdr *control = CMSG_FIRSTHDR(&message->header);
    int index = 0;
    if (control && control->cmsg_level == IPPROTO_IP) {
        struct in_pktinfo info;
        memcpy(&info, CMSG_DATA(control), sizeof info);
        index = info.ipi_ifindex;
    } else if (control) {
        struct in6_pktinfo info;
        memcpy(&info, CMSG_DATA(control), sizeof info);
        index = info.ipi6_ifindex;
    }
    static char name[IF_NAMESIZE];
    return if_indextoname(index, name) ? name : "none";
}

/* Waits for an answer, and checks its visible source. */
static void expect_answer(int client, const char *host, int port) {
    struct pollfd poll_fd = {client, POLLIN, 0};
    expect("answer arrives", poll(&poll_fd, 1, 5000) == 1 ? "yes" : "no", "yes");
    struct sockaddr_storage source;
    socklen_t length = sizeof source;
    char byte;
    expect("recvfrom", errno_text(recvfrom(client, &byte, 1, 0, (void *)&source, &length)), "ok");
    expect("source of the answer", format_address(&source), format_host_port(host, port));
}

/* A client sends a request to 127.0.0.1 or ::1, and a server of the session receives it. The server
 * sends two answers. The first answer has the packet information of the request. The second answer
 * has packet information with this loopback address as the source and without an interface. Each
 * answer stays on the host and reaches the client. */
static void loopback_answer_with_packet_info_stays_on_host(void) {
    const char *bound_hosts[] = {ANY, LOOPBACK, "::", "::1"};
    const char *destination_hosts[] = {LOOPBACK, LOOPBACK, "::1", "::1"};
    for (int i = 0; i < 8; i++) {
        const char *host = destination_hosts[i / 2];
        int is_v4 = i < 4, port = 8240 + i, server = is_v4 ? udp_socket() : udp6_socket();
        enable_option(server, is_v4 ? IPPROTO_IP : IPPROTO_IPV6,
                      is_v4 ? IP_PKTINFO : IPV6_RECVPKTINFO);
        expect("bind", try_bind(server, bound_hosts[i / 2], port), "ok");
        int client = is_v4 ? udp_socket() : udp6_socket(), is_connected = i % 2;
        struct address destination = make_address(host, port);
        if (is_connected) expect("connect", try_connect(client, host, port), "ok");
        long send_result = is_connected ? send(client, "x", 1, 0)
                                        : sendto(client, "x", 1, 0, (void *)&destination.bytes,
                                                 destination.length);
        expect("request", errno_text(send_result), "ok");
        struct message message;
        init_message(&message, NULL);
        expect("recvmsg", errno_text(recvmsg(server, &message.header, 0)), "ok");
        expect("sent to", pktinfo_destination(&message), host);
        expect("interface", pktinfo_interface(&message), "lo");
        expect("reply", errno_text(sendmsg(server, &message.header, 0)), "ok");
        expect_answer(client, host, port);
        set_source(&message, host);
        expect("reply from its address", errno_text(sendmsg(server, &message.header, 0)), "ok");
        expect_answer(client, host, port);
        close(server), close(client);
    }
}

/* Multicast datagrams leave through the interface of V, unless the program sets an interface. */
static void multicast_uses_interface_of_v(void) {
    int fd = udp_socket();
    struct address group = make_address("239.99.5.1", 8027);
    struct in_addr interface = {0}, v_address;
    socklen_t length = sizeof interface;
    expect("sendto", errno_text(sendto(fd, "x", 1, 0, (void *)&group.bytes, group.length)), "ok");
    getsockopt(fd, IPPROTO_IP, IP_MULTICAST_IF, &interface, &length);
    inet_pton(AF_INET, V, &v_address);
    expect_listed("interface", interface.s_addr == v_address.s_addr ? "V" : "other", "V", "other");
    /* The hook does not change an interface that the program has set. */
    fd = udp_socket();
    struct in_addr host_address;
    inet_pton(AF_INET, HOST_ADDRESS, &host_address);
    setsockopt(fd, IPPROTO_IP, IP_MULTICAST_IF, &host_address, sizeof host_address);
    expect("sendto with an interface",
           errno_text(sendto(fd, "x", 1, 0, (void *)&group.bytes, group.length)), "ok");
    getsockopt(fd, IPPROTO_IP, IP_MULTICAST_IF, &interface, &length);
    expect("interface is kept", interface.s_addr == host_address.s_addr ? "yes" : "no", "yes");
    /* If the program sets the interface only by its index, the hook adds V as the address. Without
     * an address, getsockopt would return 0.0.0.0, and the hook would replace the interface at a
     * later send. */
    fd = udp_socket();
    struct ip_mreqn request = {.imr_ifindex = if_nametoindex("lo")}, original_request = request;
    expect("set by index",
           errno_text(setsockopt(fd, IPPROTO_IP, IP_MULTICAST_IF, &request, sizeof request)), "ok");
    expect("arguments are unchanged",
           memcmp(&request, &original_request, sizeof request) ? "no" : "yes", "yes");
    getsockopt(fd, IPPROTO_IP, IP_MULTICAST_IF, &interface, &length);
    expect_listed("interface address", interface.s_addr == v_address.s_addr ? "V" : "nothing", "V",
                  "nothing");
    expect("sendto by index", errno_text(sendto(fd, "x", 1, 0, (void *)&group.bytes, group.length)),
           "ok");
    expect("setsockopt with a bad pointer",
           errno_text(setsockopt(fd, IPPROTO_IP, IP_MULTICAST_IF, (void *)8, sizeof request)),
           "EFAULT");
    expect("setsockopt with a negative length",
           errno_text(setsockopt(fd, IPPROTO_IP, IP_MULTICAST_IF, &request, (socklen_t)-1)),
           "EINVAL");
}

/* A send with MSG_FASTOPEN connects the socket, so it is rewritten like a connect. */
static void fast_open_is_rewritten_like_connect(void) {
    int fd = tcp_socket();
    struct address destination = make_address(EXTERNAL_ADDRESS, 7);
    expect("sendto",
           errno_text(
               sendto(fd, "x", 1, MSG_FASTOPEN, (void *)&destination.bytes, destination.length)),
           "ok");
    expect_listed("source seen by the peer", receive_text(fd), V, HOST_ADDRESS);
    struct message message;
    fd = tcp_socket();
    init_message(&message, &destination);
    expect("sendmsg", errno_text(sendmsg(fd, &message.header, MSG_FASTOPEN)), "ok");
    expect_listed("source seen by the peer again", receive_text(fd), V, HOST_ADDRESS);
}

const struct row message_rows[] = {
    {"24", message_source_is_rewritten},
    {"24-pages", message_array_may_end_at_page_end},
    {"24-ipv6", ipv6_message_source_is_rewritten},
    {"24-link-local", link_local_message_source_passes},
    {"24-loopback", loopback_answer_with_packet_info_stays_on_host},
    {"25-messages", received_messages_have_loopback_addresses},
    {"25-large-array", large_message_array_has_visible_sources},
    {"27", multicast_uses_interface_of_v},
    {"28", fast_open_is_rewritten_like_connect},
    {NULL, NULL},
};
