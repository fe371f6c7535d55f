/* Tests the rows of the socket matrix for calls that a preloaded library cannot interpose. Such
 * calls are not rewritten. See matrix.h. */
#include "matrix.h"

#include <netdb.h>

enum { HEADER_SIZE = 12 };

int run_dns_server(void) {
    unsigned char message[512];
    int fd = udp_socket();
    if (strcmp(try_bind(fd, EXTERNAL_ADDRESS, 53), "ok")) return 1;
    printf("ready\n");
    fflush(stdout);
    for (;;) {
        struct sockaddr_in client;
        socklen_t length = sizeof client;
        ssize_t size = recvfrom(fd, message, 256, 0, (void *)&client, &length);
        if (size < HEADER_SIZE) continue;
        /* The question contains a name, a zero byte, the type and the class. The server removes
         * the records after the question. */
        size_t end = HEADER_SIZE + strlen((char *)message + HEADER_SIZE) + 5;
        int is_type_a = message[end - 3] == 1;
        message[2] = 0x84, message[3] = 0x00;
        memset(message + 6, 0, 6);
        message[7] = is_type_a;
        if (is_type_a) {
            const unsigned char answer[12] = {0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4};
            memcpy(message + end, answer, sizeof answer);
            memcpy(message + end + sizeof answer, &client.sin_addr, 4);
            end += sizeof answer + 4;
        }
        sendto(fd, message, end, 0, (void *)&client, length);
    }
}

/* Sockets that the C library opens internally use the host's source address. */
static void c_library_sockets_are_not_rewritten(void) {
    struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM}, *result;
    int error = getaddrinfo("source.test", "80", &hints, &result);
    expect("getaddrinfo", error ? gai_strerror(error) : "ok", "ok");
    expect("source", format_address((void *)result->ai_addr), HOST_ADDRESS ":80");
    freeaddrinfo(result);
}

/* Direct system calls are not rewritten. If such a call binds a socket, the program sees the
 * address that the kernel stores. */
static void direct_system_calls_are_not_rewritten(void) {
    struct address local = make_address(LOOPBACK, 8049);
    int fd = tcp_socket(), client = tcp_socket();
    expect("bind", errno_text(syscall(SYS_bind, fd, &local.bytes, local.length)), "ok");
    expect("kernel name", kernel_name(fd), "127.0.0.1:8049");
    expect("visible name", visible_name(fd), "127.0.0.1:8049");
    expect("listen", errno_text(syscall(SYS_listen, fd, 1)), "ok");
    /* The hook treats this listener as a service of the host. No service of the session has this
     * port, so the connect to 127.0.0.1 goes to the host. */
    expect("connect", try_connect(client, LOOPBACK, 8049), "ok");
    expect("peer", kernel_peer(client), "127.0.0.1:8049");
}

const struct row unhooked_rows[] = {
    {"44", c_library_sockets_are_not_rewritten},
    {"49", direct_system_calls_are_not_rewritten},
    {NULL, NULL},
};
