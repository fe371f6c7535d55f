/* A hook layer of a vendor's own: what its replacements of bind, listen, connect, getsockname and
 * accept do with the answers of vipool. How they get into a program (import tables, a preload, a
 * detour library) is the vendor's business and not shown: here main() calls them.
 *
 *     hook MAP-DIRECTORY LEASE PORT
 *
 * LEASE is the text of the session's handle, which the agent put into the environment of the
 * program. The program listens on 127.0.0.1:PORT and talks to itself: in two sessions at the same
 * time each meets its own.
 *
 * Linux and other systems with POSIX sockets; on Windows the calls are those of Winsock.
 */

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <vipool.h>

/* What decides for this process. Made once, before the first call is replaced; NULL if the program
 * is not on the process list or in no session: then every call goes on as it is. */
static vipool_rewriter *rewriter;

/* ---- What the rewriter asks of the kernel ---------------------------------------------------- */

static int descriptor_of(void *context)
{
    return *(const int *)context;
}

static uint32_t ask_local(void *context, void *buffer, uint32_t capacity)
{
    socklen_t length = (socklen_t)capacity;
    if (getsockname(descriptor_of(context), (struct sockaddr *)buffer, &length) != 0) {
        return 0;
    }
    return (uint32_t)length;
}

static uint32_t ask_peer(void *context, void *buffer, uint32_t capacity)
{
    socklen_t length = (socklen_t)capacity;
    if (getpeername(descriptor_of(context), (struct sockaddr *)buffer, &length) != 0) {
        return 0;
    }
    return (uint32_t)length;
}

static int option(int descriptor, int level, int name)
{
    int value = 0;
    socklen_t length = sizeof value;
    return getsockopt(descriptor, level, name, &value, &length) == 0 ? value : 0;
}

static uint32_t ask_protocol(void *context)
{
    switch (option(descriptor_of(context), SOL_SOCKET, SO_TYPE)) {
    case SOCK_STREAM:
        return VIPOOL_PROTOCOL_TCP;
    case SOCK_DGRAM:
        return VIPOOL_PROTOCOL_UDP;
    default:
        return VIPOOL_PROTOCOL_OTHER;
    }
}

static uint32_t ask_flags(void *context)
{
    int descriptor = descriptor_of(context);
    uint32_t flags = 0;
    if (option(descriptor, IPPROTO_IPV6, IPV6_V6ONLY)) {
        flags |= VIPOOL_SOCKET_V6ONLY;
    }
    if (option(descriptor, SOL_SOCKET, SO_REUSEADDR) || option(descriptor, SOL_SOCKET, SO_BROADCAST)) {
        flags |= VIPOOL_SOCKET_SHARES_PORT;
    }
    return flags;
}

static vipool_socket facts_of(int *descriptor)
{
    vipool_socket facts;
    memset(&facts, 0, sizeof facts);
    facts.size = sizeof facts;
    facts.ask_local = ask_local;
    facts.ask_protocol = ask_protocol;
    facts.ask_flags = ask_flags;
    facts.context = descriptor;
    return facts;
}

/* ---- The replacements ------------------------------------------------------------------------ */

static vipool_outcome nothing_yet(void)
{
    vipool_outcome outcome;
    memset(&outcome, 0, sizeof outcome);
    outcome.size = sizeof outcome;
    outcome.kind = VIPOOL_PASSED;
    return outcome;
}

static void set_v6only(int descriptor, int value)
{
    (void)setsockopt(descriptor, IPPROTO_IPV6, IPV6_V6ONLY, &value, sizeof value);
}

/* bind to the address of an outcome; IPV6_V6ONLY is set again if it fails. */
static int bind_as_told(int descriptor, const vipool_outcome *outcome)
{
    int result;
    if (outcome->flags & VIPOOL_DO_CLEAR_V6ONLY) {
        set_v6only(descriptor, 0);
    }
    result = bind(descriptor, (const struct sockaddr *)(const void *)outcome->address.bytes,
                  (socklen_t)outcome->address.length);
    if (result != 0 && (outcome->flags & VIPOOL_DO_CLEAR_V6ONLY)) {
        int error = errno;
        set_v6only(descriptor, 1);
        errno = error;
    }
    return result;
}

/* Whether a call that failed is made again as the program meant it: the session's address is on no
 * interface, and the administrator lets such calls pass. */
static int retries(const vipool_outcome *outcome)
{
    int error = errno;
    uint32_t retry = 0;
    vipool_ip address;

    if (error == EADDRNOTAVAIL
        && vipool_ip_from_sockaddr(outcome->address.bytes, outcome->address.length, &address, NULL)
               == VIPOOL_OK) {
        (void)vipool_rewrite_retries(rewriter, &address, &retry);
    }
    errno = error;
    return retry != 0;
}

static int hooked_bind(int descriptor, const struct sockaddr *address, socklen_t length)
{
    vipool_socket facts = facts_of(&descriptor);
    vipool_outcome outcome = nothing_yet();
    int result;

    /* A failed call of vipool, as with NULL, leaves VIPOOL_PASSED: the kernel judges. */
    (void)vipool_rewrite_bind(rewriter, &facts, address, (uint32_t)length, &outcome);
    switch (outcome.kind) {
    case VIPOOL_REWRITTEN:
        result = bind_as_told(descriptor, &outcome);
        return result != 0 && retries(&outcome) ? bind(descriptor, address, length) : result;
    case VIPOOL_REFUSED:
        errno = outcome.error;
        return -1;
    default:
        return bind(descriptor, address, length);
    }
}

static int hooked_listen(int descriptor, int backlog)
{
    vipool_socket facts = facts_of(&descriptor);
    vipool_outcome outcome = nothing_yet();

    (void)vipool_rewrite_listen(rewriter, &facts, &outcome);
    if (outcome.kind == VIPOOL_REWRITTEN && bind_as_told(descriptor, &outcome) != 0) {
        return -1;
    }
    return listen(descriptor, backlog);
}

static int hooked_connect(int descriptor, const struct sockaddr *address, socklen_t length)
{
    vipool_socket facts = facts_of(&descriptor);
    vipool_outcome outcome = nothing_yet();

    (void)vipool_rewrite_connect(rewriter, &facts, address, (uint32_t)length, &outcome);
    if (outcome.kind == VIPOOL_REFUSED) {
        errno = outcome.error;
        return -1;
    }
    if (outcome.kind != VIPOOL_REWRITTEN) {
        return connect(descriptor, address, length);
    }
    if (outcome.flags & VIPOOL_DO_CLEAR_V6ONLY) {
        set_v6only(descriptor, 0);
    }
    if (outcome.flags & VIPOOL_DO_BIND_FIRST) {
#ifdef IP_BIND_ADDRESS_NO_PORT
        int late = 1;
        if (outcome.flags & VIPOOL_DO_LATE_PORT) {
            (void)setsockopt(descriptor, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &late, sizeof late);
        }
#endif
        (void)bind(descriptor, (const struct sockaddr *)(const void *)outcome.bind.bytes,
                   (socklen_t)outcome.bind.length);
    }
    return connect(descriptor, (const struct sockaddr *)(const void *)outcome.address.bytes,
                   (socklen_t)outcome.address.length);
}

/* Puts what the program is shown into its buffer, as getsockname does: cut to its size. */
static void show(const vipool_outcome *outcome, struct sockaddr *address, socklen_t room,
                 socklen_t *length)
{
    socklen_t whole = (socklen_t)outcome->address.length;
    if (outcome->kind == VIPOOL_REWRITTEN) {
        memcpy(address, outcome->address.bytes, whole < room ? whole : room);
        *length = whole;
    }
}

static int hooked_getsockname(int descriptor, struct sockaddr *address, socklen_t *length)
{
    socklen_t room = *length;
    vipool_outcome outcome = nothing_yet();

    if (getsockname(descriptor, address, length) != 0) {
        return -1;
    }
    (void)vipool_rewrite_shown(rewriter, address, (uint32_t)(*length < room ? *length : room),
                               ask_peer, &descriptor, &outcome);
    show(&outcome, address, room, length);
    return 0;
}

static int hooked_accept(int descriptor, struct sockaddr *address, socklen_t *length)
{
    socklen_t room = *length;
    vipool_outcome outcome = nothing_yet();
    int accepted = accept(descriptor, address, length);

    if (accepted < 0) {
        return -1;
    }
    (void)vipool_rewrite_shown(rewriter, address, (uint32_t)(*length < room ? *length : room),
                               ask_local, &accepted, &outcome);
    show(&outcome, address, room, length);
    return accepted;
}

/* ---- Start of the process -------------------------------------------------------------------- */

/* Finds the lease and the rule of this process. Whatever is missing, the program runs untouched. */
static void start(const char *directory, const char *lease)
{
    static const char self[] = "/proc/self/exe";
    char path[4096];
    ssize_t path_length = readlink(self, path, sizeof path);
    vipool_reader *reader = NULL;
    vipool_executable executable;
    vipool_rule rule;
    vipool_rewriter_options options;

    memset(&options, 0, sizeof options);
    options.size = sizeof options;
    /* vipool's own question to the kernel; a vendor may have a better one. */
    options.find_listener = vipool_find_listener;
    if (path_length < 0
        || vipool_handle_parse(lease, strlen(lease), &options.handle) != VIPOOL_OK
        || vipool_reader_attach(directory, strlen(directory), &reader) != VIPOOL_OK) {
        fprintf(stderr, "untouched: %s\n", vipool_last_error());
        return;
    }
    memset(&executable, 0, sizeof executable);
    executable.size = sizeof executable;
    executable.path = path;
    executable.path_length = (size_t)path_length;
    memset(&rule, 0, sizeof rule);
    rule.size = sizeof rule;
    if (vipool_reader_find_rule(reader, &executable, &rule) != VIPOOL_OK) {
        fprintf(stderr, "untouched: %s\n", vipool_reason_text(VIPOOL_REASON_NOT_LISTED));
    } else {
        options.rule = rule.id;
        if (vipool_rewriter_new(reader, &options, &rewriter) != VIPOOL_OK) {
            fprintf(stderr, "untouched: %s\n", vipool_last_error());
        }
    }
    /* The rewriter keeps what it needs. A hook never frees the rewriter: other threads may be in
     * it until the process ends. This program frees it so that leak checkers stay quiet. */
    vipool_reader_free(reader);
}

/* ---- The program ----------------------------------------------------------------------------- */

static void must(int result, const char *what)
{
    if (result < 0) {
        perror(what);
        exit(1);
    }
}

static void print_address(const char *what, const struct sockaddr_in *address)
{
    char text[INET_ADDRSTRLEN];
    printf("%s %s:%u\n", what, inet_ntop(AF_INET, &address->sin_addr, text, sizeof text),
           (unsigned)ntohs(address->sin_port));
}

int main(int argc, char **argv)
{
    struct sockaddr_in address;
    struct sockaddr *generic = (struct sockaddr *)(void *)&address;
    socklen_t length = sizeof address;
    int server = -1;
    int client = -1;
    int accepted = -1;
    char letter = 0;

    if (argc != 4) {
        fprintf(stderr, "usage: hook MAP-DIRECTORY LEASE PORT\n");
        return 2;
    }
    start(argv[1], argv[2]);

    memset(&address, 0, sizeof address);
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons((uint16_t)atoi(argv[3]));
    server = socket(AF_INET, SOCK_STREAM, 0);
    must(server, "socket");
    must(hooked_bind(server, generic, sizeof address), "bind");
    must(hooked_listen(server, 1), "listen");

    length = sizeof address;
    must(getsockname(server, generic, &length), "getsockname");
    print_address("the kernel listens on", &address);
    length = sizeof address;
    must(hooked_getsockname(server, generic, &length), "getsockname");
    print_address("the program sees", &address);

    /* Says that it listens, and waits until the other session does too. */
    fflush(stdout);
    if (getchar() == EOF) {
        return 1;
    }

    client = socket(AF_INET, SOCK_STREAM, 0);
    must(client, "socket");
    must(hooked_connect(client, generic, sizeof address), "connect");
    length = sizeof address;
    accepted = hooked_accept(server, generic, &length);
    must(accepted, "accept");
    printf("accepted from %s\n", inet_ntoa(address.sin_addr));
    must((int)write(client, "x", 1), "write");
    must((int)read(accepted, &letter, 1), "read");
    printf("received %c\n", letter);

    close(accepted);
    close(client);
    close(server);
    vipool_rewriter_free(rewriter);
    return letter == 'x' ? 0 : 1;
}
