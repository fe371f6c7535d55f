/* Calls the functions of examples/c/hook.c, and checks their results and errno. Some calls have
 * NULL arguments, and some calls must fail. No interface has the virtual IP of the session.
 *
 *     hook_calls MAP-DIRECTORY LEASE PORT PASS_WHEN_MISSING
 *
 * LEASE is the handle of the session as text. No program listens on PORT. PASS_WHEN_MISSING is 1 if
 * the map has the setting pass-when-missing, otherwise 0. */

#define main example
#include "../../examples/c/hook.c"
#undef main

/* CHECK sets errno to this value. After the next call, errno shows whether the call changed it. */
#define INITIAL_ERRNO 4242

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            printf("line %d: %s; errno %d\n", __LINE__, #condition, errno);                        \
            has_failed = 1;                                                                        \
        }                                                                                          \
        errno = INITIAL_ERRNO;                                                                     \
    } while (0)

static int has_failed = 0;

static struct sockaddr_in make_address(const char *ip, int port)
{
    struct sockaddr_in address = { .sin_family = AF_INET };
    address.sin_port = htons((uint16_t)port);
    inet_pton(AF_INET, ip, &address.sin_addr);
    return address;
}

static struct sockaddr *as_sockaddr(void *address)
{
    return (struct sockaddr *)address;
}

int main(int argc, char **argv)
{
    int port = argc == 5 ? atoi(argv[3]) : 0;
    int pass_when_missing = argc == 5 && atoi(argv[4]);
    int option_on = 1;
    struct sockaddr_in loopback = make_address("127.0.0.1", port), wildcard = make_address("0.0.0.0", port);
    struct sockaddr_in external_address = make_address("192.0.2.9", port), unused_address = make_address("127.0.0.1", port + 1);
    struct sockaddr_in6 unused_address6 = { .sin6_family = AF_INET6, .sin6_port = unused_address.sin_port };
    struct sockaddr_storage buffer;
    socklen_t length;
    int server, client, result;

    unused_address6.sin6_addr = in6addr_loopback;
    if (argc != 5) {
        return 2;
    }
    CHECK(create_rewriter(argv[1], "no lease") != NULL && *create_rewriter(argv[1], "no lease") != 0);
    CHECK(create_rewriter(argv[1], argv[2]) == NULL);

    /* The server accepts one connection without a buffer for the client's address, and one
     * connection with a buffer. */
    server = socket(AF_INET, SOCK_STREAM, 0);
    errno = INITIAL_ERRNO;
    CHECK(hooked_bind(server, as_sockaddr(&loopback), sizeof loopback) == 0 && errno == INITIAL_ERRNO);
    CHECK(hooked_listen(server, 5) == 0 && errno == INITIAL_ERRNO);
    client = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(hooked_connect(client, as_sockaddr(&loopback), sizeof loopback) == 0 && errno == INITIAL_ERRNO);
    CHECK(hooked_accept(server, NULL, NULL) >= 0 && errno == INITIAL_ERRNO);
    client = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(hooked_connect(client, as_sockaddr(&loopback), sizeof loopback) == 0 && errno == INITIAL_ERRNO);
    length = 4;
    CHECK(hooked_accept(server, as_sockaddr(&buffer), &length) >= 0 && length == sizeof loopback);
    CHECK(hooked_getsockname(server, NULL, NULL) == -1 && errno == EFAULT);
    length = 0;
    CHECK(hooked_getsockname(server, NULL, &length) == 0 && length == sizeof loopback);
    length = sizeof buffer;
    CHECK(hooked_getsockname(server, as_sockaddr(&buffer), &length) == 0 && errno == INITIAL_ERRNO);
    CHECK(memcmp(&buffer, &loopback, 8) == 0);

    /* These calls need the virtual IP, but no interface has it. */
    client = socket(AF_INET, SOCK_STREAM, 0);
    result = hooked_listen(client, 1);
    CHECK(pass_when_missing ? result == 0 && errno == INITIAL_ERRNO : result == -1 && errno == EADDRNOTAVAIL);
    client = socket(AF_INET, SOCK_STREAM, 0);
    result = hooked_bind(client, as_sockaddr(&wildcard), sizeof wildcard);
    /* With pass-when-missing, the hook binds the wildcard address unchanged. The kernel refuses
     * this bind, because `server` already listens on this port. */
    CHECK(result == -1 && errno == (pass_when_missing ? EADDRINUSE : EADDRNOTAVAIL));
    /* The destination is another host. The socket is a datagram socket, because its connect call
     * sends no packet. */
    client = socket(AF_INET, SOCK_DGRAM, 0);
    result = hooked_connect(client, as_sockaddr(&external_address), sizeof external_address);
    CHECK(pass_when_missing ? result == 0 || errno != EADDRNOTAVAIL : result == -1 && errno == EADDRNOTAVAIL);

    /* A UDP socket that shares its port can be a multicast receiver, so the hook does not rewrite
     * its bind. */
    client = socket(AF_INET, SOCK_DGRAM, 0);
    CHECK(setsockopt(client, SOL_SOCKET, SO_REUSEPORT, &option_on, sizeof option_on) == 0);
    CHECK(hooked_bind(client, as_sockaddr(&wildcard), sizeof wildcard) == 0 && errno == INITIAL_ERRNO);

    /* This connect call to ::1 fails, because no program listens on the port. The hook must restore
     * the socket options that it changed. */
    client = socket(AF_INET6, SOCK_STREAM, 0);
    if (client < 0) {
        printf("no IPv6\n");
        return has_failed;
    }
    CHECK(setsockopt(client, IPPROTO_IPV6, IPV6_V6ONLY, &option_on, sizeof option_on) == 0);
    CHECK(hooked_connect(client, as_sockaddr(&unused_address6), sizeof unused_address6) == -1 && errno == ECONNREFUSED);
    CHECK(get_option(client, IPPROTO_IPV6, IPV6_V6ONLY) == 1);
    CHECK(get_option(client, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT) == 0);
    vipool_rewriter_free(rewriter);
    return has_failed;
}
