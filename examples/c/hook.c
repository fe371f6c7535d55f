/* A vendor's hook layer: replacements of bind, listen, connect, getsockname and accept. Each
 * replacement asks vipool for an outcome (passed, rewritten or refused) and applies it. This
 * example does not show how a vendor installs the replacements (import tables, a preload library,
 * detours). Here, main() calls them directly.
 *
 *     hook MAP-DIRECTORY LEASE PORT
 *
 * LEASE is the session's handle as text: the value of VIPOOL_LEASE in a program of the session. The
 * program listens on 127.0.0.1:PORT and connects to itself. If two sessions run the program at the
 * same time, each instance connects to its own listener.
 *
 * For Linux. Another system with POSIX sockets needs other code that finds the path of the program
 * and the listeners.
 */

#define _DEFAULT_SOURCE /* SO_REUSEPORT of glibc */

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <vipool.h>

/* The rewriter of this process. The program creates it before the first replaced call. If
 * create_rewriter() fails, the rewriter is NULL and every call passes. */
static vipool_rewriter *rewriter;

/* ---- Callbacks: facts about a socket ---------------------------------------------------------- */

static int get_descriptor(void *context)
{
    return *(const int *)context;
}

static uint32_t get_local(void *context, void *buffer, uint32_t capacity)
{
    socklen_t length = (socklen_t)capacity;
    return getsockname(get_descriptor(context), buffer, &length) == 0 ? (uint32_t)length : 0;
}

static uint32_t get_peer(void *context, void *buffer, uint32_t capacity)
{
    socklen_t length = (socklen_t)capacity;
    return getpeername(get_descriptor(context), buffer, &length) == 0 ? (uint32_t)length : 0;
}

static int get_option(int descriptor, int level, int option)
{
    int value = 0;
    socklen_t length = sizeof value;
    return getsockopt(descriptor, level, option, &value, &length) == 0 ? value : 0;
}

static uint32_t get_protocol(void *context)
{
    switch (get_option(get_descriptor(context), SOL_SOCKET, SO_TYPE)) {
    case SOCK_STREAM:
        return VIPOOL_PROTOCOL_TCP;
    case SOCK_DGRAM:
        return VIPOOL_PROTOCOL_UDP;
    default:
        return VIPOOL_PROTOCOL_OTHER;
    }
}

static uint32_t get_flags(void *context)
{
    int descriptor = get_descriptor(context);
    uint32_t flags = 0;
    if (get_option(descriptor, IPPROTO_IPV6, IPV6_V6ONLY)) {
        flags |= VIPOOL_SOCKET_V6ONLY;
    }
    if (get_option(descriptor, SOL_SOCKET, SO_REUSEADDR) || get_option(descriptor, SOL_SOCKET, SO_REUSEPORT)
        || get_option(descriptor, SOL_SOCKET, SO_BROADCAST)) {
        flags |= VIPOOL_SOCKET_SHARES_PORT;
    }
    return flags;
}

static vipool_socket describe_socket(int *descriptor)
{
    vipool_socket socket_facts = {
        .size = sizeof socket_facts,
        .get_local = get_local,
        .get_protocol = get_protocol,
        .get_flags = get_flags,
        .context = descriptor,
    };
    return socket_facts;
}

/* ---- The replacements ------------------------------------------------------------------------ */

/* The replacements keep errno unless the call itself fails. If a call to vipool fails, the outcome
 * stays VIPOOL_PASSED. If the program passes an invalid pointer, a replacement crashes, while the
 * kernel would return EFAULT. To avoid this, a hook can read the memory with process_vm_readv(). */

static vipool_outcome passed_outcome(void)
{
    vipool_outcome outcome = { .size = sizeof outcome, .kind = VIPOOL_PASSED };
    return outcome;
}

static void set_option(int descriptor, int level, int option, int value)
{
    int saved_errno = errno;
    (void)setsockopt(descriptor, level, option, &value, sizeof value);
    errno = saved_errno;
}

static int bind_to(int descriptor, const vipool_sockaddr *address)
{
    return bind(descriptor, (const struct sockaddr *)(const void *)address->bytes,
                (socklen_t)address->length);
}

/* Binds to the address of an outcome. If the outcome requires it, clears IPV6_V6ONLY before the
 * bind, and sets it again if the bind fails. */
static int bind_outcome(int descriptor, const vipool_outcome *outcome)
{
    uint32_t must_clear_v6only = outcome->flags & VIPOOL_DO_CLEAR_V6ONLY;
    int result;
    if (must_clear_v6only) {
        set_option(descriptor, IPPROTO_IPV6, IPV6_V6ONLY, 0);
    }
    result = bind_to(descriptor, &outcome->address);
    if (result != 0 && must_clear_v6only) {
        set_option(descriptor, IPPROTO_IPV6, IPV6_V6ONLY, 1);
    }
    return result;
}

/* Returns whether the hooked call must fail after a failed bind to `address`. It must fail if this
 * address is on no interface, unless the settings allow the call without the address. */
static int must_fail_without_address(const vipool_sockaddr *address)
{
    uint32_t is_allowed = 0;
    vipool_ip ip;
    if (errno != EADDRNOTAVAIL) {
        return 0;
    }
    if (vipool_ip_from_sockaddr(address->bytes, address->length, &ip, NULL) == VIPOOL_OK) {
        (void)vipool_rewrite_is_retry_allowed(rewriter, &ip, &is_allowed);
    }
    return !is_allowed;
}

static int hooked_bind(int descriptor, const struct sockaddr *address, socklen_t length)
{
    int saved_errno = errno;
    vipool_socket socket_facts = describe_socket(&descriptor);
    vipool_outcome outcome = passed_outcome();

    (void)vipool_rewrite_bind(rewriter, &socket_facts, address, (uint32_t)length, &outcome);
    if (outcome.kind == VIPOOL_REFUSED) {
        errno = outcome.error;
        return -1;
    }
    if (outcome.kind == VIPOOL_REWRITTEN) {
        errno = saved_errno;
        if (bind_outcome(descriptor, &outcome) == 0) {
            return 0;
        }
        if (errno != EADDRNOTAVAIL || must_fail_without_address(&outcome.address)) {
            return -1;
        }
    }
    errno = saved_errno;
    return bind(descriptor, address, length);
}

static int hooked_listen(int descriptor, int backlog)
{
    int saved_errno = errno;
    vipool_socket socket_facts = describe_socket(&descriptor);
    vipool_outcome outcome = passed_outcome();

    (void)vipool_rewrite_listen(rewriter, &socket_facts, &outcome);
    if (outcome.kind == VIPOOL_REWRITTEN && bind_outcome(descriptor, &outcome) != 0
        && must_fail_without_address(&outcome.address)) {
        return -1;
    }
    /* Other errors of the bind are ignored, because listen() fails too or binds the socket
     * itself. */
    errno = saved_errno;
    return listen(descriptor, backlog);
}

/* Binds a socket to its source address before a connect. Returns -1 if the connect must fail. */
static int bind_source(int descriptor, const vipool_outcome *outcome)
{
    int result;
#ifdef IP_BIND_ADDRESS_NO_PORT
    /* With this option, the kernel chooses the port at the connect. The option is cleared after the
     * bind. If the connect fails, the program can bind the socket itself, and that bind must choose
     * a port at once. */
    int option_name = IP_BIND_ADDRESS_NO_PORT;
    if ((outcome->flags & VIPOOL_DO_DEFER_PORT) && !get_option(descriptor, IPPROTO_IP, option_name)) {
        set_option(descriptor, IPPROTO_IP, option_name, 1);
        result = bind_to(descriptor, &outcome->bind);
        set_option(descriptor, IPPROTO_IP, option_name, 0);
    } else
#endif
        result = bind_to(descriptor, &outcome->bind);
    return result != 0 && must_fail_without_address(&outcome->bind) ? -1 : 0;
}

static int hooked_connect(int descriptor, const struct sockaddr *address, socklen_t length)
{
    int saved_errno = errno;
    vipool_socket socket_facts = describe_socket(&descriptor);
    vipool_outcome outcome = passed_outcome();
    int result;

    (void)vipool_rewrite_connect(rewriter, &socket_facts, address, (uint32_t)length, &outcome);
    if (outcome.kind == VIPOOL_REFUSED) {
        errno = outcome.error;
        return -1;
    }
    errno = saved_errno;
    if (outcome.kind != VIPOOL_REWRITTEN) {
        return connect(descriptor, address, length);
    }
    if (outcome.flags & VIPOOL_DO_CLEAR_V6ONLY) {
        set_option(descriptor, IPPROTO_IPV6, IPV6_V6ONLY, 0);
    }
    result = outcome.flags & VIPOOL_DO_BIND_FIRST ? bind_source(descriptor, &outcome) : 0;
    if (result == 0) {
        errno = saved_errno;
        result = connect(descriptor, (const struct sockaddr *)(const void *)outcome.address.bytes,
                         (socklen_t)outcome.address.length);
    }
    if (result != 0 && errno != EINPROGRESS && (outcome.flags & VIPOOL_DO_CLEAR_V6ONLY)) {
        set_option(descriptor, IPPROTO_IPV6, IPV6_V6ONLY, 1);
    }
    return result;
}

/* Overwrites the address that the kernel wrote to a buffer of the program, if the program must see
 * another address. Truncates the new address to the size of the buffer. The buffer is NULL if the
 * program does not request the address. */
static void replace_address(struct sockaddr *address, socklen_t capacity, socklen_t *length,
                 vipool_get_address_fn get_other_end, int *descriptor)
{
    int saved_errno = errno;
    vipool_outcome outcome = passed_outcome();
    if (address == NULL) {
        return;
    }
    (void)vipool_rewrite_visible_address(rewriter, address, (uint32_t)(*length < capacity ? *length : capacity),
                               get_other_end, descriptor, &outcome);
    errno = saved_errno;
    if (outcome.kind == VIPOOL_REWRITTEN) {
        socklen_t full_length = (socklen_t)outcome.address.length;
        memcpy(address, outcome.address.bytes, full_length < capacity ? full_length : capacity);
        *length = full_length;
    }
}

static int hooked_getsockname(int descriptor, struct sockaddr *address, socklen_t *length)
{
    socklen_t capacity = length != NULL ? *length : 0;
    int result = getsockname(descriptor, address, length);

    if (result == 0) {
        replace_address(address, capacity, length, get_peer, &descriptor);
    }
    return result;
}

static int hooked_accept(int descriptor, struct sockaddr *address, socklen_t *length)
{
    socklen_t capacity = length != NULL ? *length : 0;
    int connection = accept(descriptor, address, length);

    if (connection >= 0) {
        replace_address(address, capacity, length, get_local, &connection);
    }
    return connection;
}

/* ---- Start of the process -------------------------------------------------------------------- */

/* Creates the rewriter from the lease and the rule of this process. Returns NULL on success,
 * otherwise the reason why calls pass. A complete hook also checks VIPOOL_DISABLE and AT_SECURE.
 * vipool.h describes other ways to find the lease and the rule. */
static const char *create_rewriter(const char *directory, const char *lease)
{
    char program_path[4096];
    ssize_t path_length = readlink("/proc/self/exe", program_path, sizeof program_path);
    vipool_reader *reader = NULL;
    vipool_executable executable = { .size = sizeof executable, .path = program_path };
    vipool_rule rule = { .size = sizeof rule };
    vipool_rewriter_options options = {
        .size = sizeof options,
        /* A vendor can use its own function that finds listeners faster. */
        .find_listener = vipool_listener_find,
    };
    vipool_status status;
    const char *reason = NULL;

    if (path_length < 0) {
        return strerror(errno);
    }
    /* vipool_handle_parse() is signal-safe, so it does not set vipool_last_error(). */
    status = vipool_handle_parse(lease, strlen(lease), &options.handle);
    if (status != VIPOOL_OK) {
        return vipool_status_get_text(status);
    }
    if (vipool_reader_open(directory, strlen(directory), &reader) != VIPOOL_OK) {
        return vipool_last_error();
    }
    executable.path_length = (size_t)path_length;
    if (vipool_reader_find_rule(reader, &executable, &rule) != VIPOOL_OK) {
        reason = vipool_reason_get_text(VIPOOL_REASON_NOT_LISTED);
    } else {
        options.rule = rule.id;
        if (vipool_rewriter_new(reader, &options, &rewriter) != VIPOOL_OK) {
            reason = vipool_last_error();
        }
    }
    /* The rewriter does not need the reader. A real hook never frees the rewriter, because other
     * threads may use the rewriter until the process exits. This example frees the rewriter at the
     * end of main(), so that leak checkers report nothing. */
    vipool_reader_close(reader);
    return reason;
}

/* ---- The program ----------------------------------------------------------------------------- */

static void exit_on_error(int result, const char *operation)
{
    if (result < 0) {
        perror(operation);
        exit(1);
    }
}

static void print_address(const char *label, const struct sockaddr_in *address)
{
    char text[INET_ADDRSTRLEN];
    printf("%s %s:%u\n", label, inet_ntop(AF_INET, &address->sin_addr, text, sizeof text),
           (unsigned)ntohs(address->sin_port));
}

int main(int argc, char **argv)
{
    struct sockaddr_in address = { .sin_family = AF_INET };
    struct sockaddr *generic_address = (struct sockaddr *)(void *)&address;
    socklen_t length = sizeof address;
    int server, client, connection;
    char received_byte = 0;
    const char *reason;

    if (argc != 4) {
        fprintf(stderr, "usage: hook MAP-DIRECTORY LEASE PORT\n");
        return 2;
    }
    reason = create_rewriter(argv[1], argv[2]);
    if (reason != NULL) {
        fprintf(stderr, "not rewritten: %s\n", reason);
    }

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons((uint16_t)atoi(argv[3]));
    server = socket(AF_INET, SOCK_STREAM, 0);
    exit_on_error(server, "socket");
    exit_on_error(hooked_bind(server, generic_address, sizeof address), "bind");
    exit_on_error(hooked_listen(server, 1), "listen");

    length = sizeof address;
    exit_on_error(getsockname(server, generic_address, &length), "getsockname");
    print_address("the kernel listens on", &address);
    length = sizeof address;
    exit_on_error(hooked_getsockname(server, generic_address, &length), "getsockname");
    print_address("the program sees", &address);

    /* After the printed lines, the user knows that this instance listens. The instance waits for
     * input, so that the user can start the instance of another session before the connect. */
    fflush(stdout);
    if (getchar() == EOF) {
        return 1;
    }

    client = socket(AF_INET, SOCK_STREAM, 0);
    exit_on_error(client, "socket");
    exit_on_error(hooked_connect(client, generic_address, sizeof address), "connect");
    length = sizeof address;
    connection = hooked_accept(server, generic_address, &length);
    exit_on_error(connection, "accept");
    printf("accepted from %s\n", inet_ntoa(address.sin_addr));
    exit_on_error((int)write(client, "x", 1), "write");
    exit_on_error((int)read(connection, &received_byte, 1), "read");
    printf("received %c\n", received_byte);

    close(connection);
    close(client);
    close(server);
    vipool_rewriter_free(rewriter);
    return received_byte == 'x' ? 0 : 1;
}
