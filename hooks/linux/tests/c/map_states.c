/* Calls every hooked function, and counts the allocations of each call. The test `map_states` runs
 * this program under strace. Before and after each call, the program writes a marker to the invalid
 * descriptor -1, so that the trace shows the system calls of each call.
 *
 * Each line of input is a command:
 * - "measure N": makes N rounds of calls. For each function, prints its name and the largest number
 *   of allocations in one call. The first round is not counted.
 * - "fill": opens descriptors until the descriptor table is full.
 * - "release": closes the descriptors of "fill". */
#include "matrix.h"

#include <ifaddrs.h>
#include <netdb.h>
#include <sys/resource.h>

static volatile unsigned long allocation_count;

#ifndef __SANITIZE_ADDRESS__
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *pointer, size_t size);
void *__libc_memalign(size_t alignment, size_t size);

void *malloc(size_t size) {
    allocation_count++;
    return __libc_malloc(size);
}

void *calloc(size_t count, size_t size) {
    allocation_count++;
    return __libc_calloc(count, size);
}

void *realloc(void *pointer, size_t size) {
    allocation_count++;
    return __libc_realloc(pointer, size);
}

int posix_memalign(void **result, size_t alignment, size_t size) {
    allocation_count++;
    *result = __libc_memalign(alignment, size);
    return *result ? 0 : ENOMEM;
}
#endif

enum { MAX_FUNCTIONS = 64 };

static struct {
    const char *name;
    unsigned long allocation_count;
} functions[MAX_FUNCTIONS];

static void write_marker(const char *text) {
    int saved_errno = errno;
    syscall(SYS_write, -1, text, strlen(text));
    errno = saved_errno;
}

static void record(int round, const char *name, unsigned long count) {
    int i = 0;
    while (functions[i].name && strcmp(functions[i].name, name) != 0) i++;
    functions[i].name = name;
    if (round > 0 && count > functions[i].allocation_count) functions[i].allocation_count = count;
}

/* Makes one call between two markers, and records the number of its allocations. */
#define MEASURE(name, call)                                                                        \
    do {                                                                                           \
        write_marker(name);                                                                        \
        unsigned long count_before = allocation_count;                                             \
        (void)!(call);                                                                             \
        unsigned long count = allocation_count - count_before;                                     \
        write_marker("end");                                                                       \
        record(round, name, count);                                                                \
    } while (0)

ssize_t __recvfrom_chk(int fd, void *data, size_t size, size_t buffer_size, int flags,
                       struct sockaddr *address, socklen_t *length);

/* The arguments of the calls. The hook checks arguments outside the stack with a system call. These
 * arguments are static, so that the test also counts such system calls. */
static struct address local_address, own_port_address, unused_port_address, external_address,
    wildcard_address;
static struct sockaddr_storage name;
static socklen_t length;
static char byte, text[512];
static struct iovec iov = {&byte, 1};
static struct msghdr message;
static struct mmsghdr mmsg;
static struct ip_mreqn multicast;
static int listener, stream, bound_socket, datagram, sender;

static void open_sockets(void) {
    local_address = make_address(LOOPBACK, 8090), own_port_address = make_address(LOOPBACK, 8311);
    unused_port_address = make_address(LOOPBACK, 8096),
    external_address = make_address(EXTERNAL_ADDRESS, 9);
    wildcard_address = make_address(ANY, 8097);
    multicast.imr_ifindex = 1;
    listener = listen_on(LOOPBACK, 8090);
    int flags = SOCK_NONBLOCK | SOCK_CLOEXEC;
    stream = socket(AF_INET, SOCK_STREAM | flags, 0),
    bound_socket = socket(AF_INET, SOCK_STREAM | flags, 0);
    datagram = socket(AF_INET, SOCK_DGRAM | flags, 0),
    sender = socket(AF_INET, SOCK_DGRAM | flags, 0);
    fcntl(listener, F_SETFL, O_NONBLOCK);
}

static void *name_buffer(void) {
    length = sizeof name;
    return &name;
}

static struct msghdr *message_to(struct address *address) {
    message = (struct msghdr){.msg_name = address ? (void *)&address->bytes : name_buffer(),
                              .msg_namelen = address ? address->length : sizeof name,
                              .msg_iov = &iov,
                              .msg_iovlen = 1};
    mmsg.msg_hdr = message;
    return &message;
}

static void call_every_hook(int round) {
    struct address *destinations[] = {&local_address, &own_port_address, &unused_port_address,
                                      &external_address};
    int new_socket = -1;
    MEASURE("socket", new_socket = socket(AF_INET, SOCK_STREAM, 0));
    if (new_socket >= 0) close(new_socket);
    MEASURE("bind", bind(bound_socket, (void *)&wildcard_address.bytes, wildcard_address.length));
    MEASURE("listen", listen(bound_socket, 1));
    MEASURE("accept", accept(listener, name_buffer(), &length));
    MEASURE("accept4", accept4(listener, name_buffer(), &length, SOCK_CLOEXEC));
    MEASURE("setsockopt",
            setsockopt(sender, IPPROTO_IP, IP_MULTICAST_IF, &multicast, sizeof multicast));
    for (int i = 0; i < 4; i++) {
        struct address *destination = destinations[i];
        MEASURE("connect", connect(stream, (void *)&destination->bytes, destination->length));
        MEASURE("connect", connect(datagram, (void *)&destination->bytes, destination->length));
        MEASURE("sendto",
                sendto(sender, &byte, 1, 0, (void *)&destination->bytes, destination->length));
        MEASURE("sendmsg", sendmsg(sender, message_to(destination), 0));
        message_to(destination);
        MEASURE("sendmmsg", sendmmsg(sender, &mmsg, 1, 0));
    }
    MEASURE("getsockname", getsockname(listener, name_buffer(), &length));
    MEASURE("getpeername", getpeername(datagram, name_buffer(), &length));
    MEASURE("recvfrom", recvfrom(sender, &byte, 1, 0, name_buffer(), &length));
    MEASURE("__recvfrom_chk", __recvfrom_chk(sender, &byte, 1, 1, 0, name_buffer(), &length));
    MEASURE("recvmsg", recvmsg(sender, message_to(NULL), 0));
    message_to(NULL);
    MEASURE("recvmmsg", recvmmsg(sender, &mmsg, 1, 0, NULL));
    MEASURE("getnameinfo", getnameinfo((void *)&local_address.bytes, local_address.length, text,
                                       sizeof text, NULL, 0, NI_NUMERICHOST));
    struct addrinfo *results = NULL;
    MEASURE("getaddrinfo", getaddrinfo(HOST_NAME, "80", NULL, &results));
    if (results) freeaddrinfo(results);
    struct ifaddrs *interfaces = NULL;
    MEASURE("getifaddrs", getifaddrs(&interfaces));
    if (interfaces) freeifaddrs(interfaces);
    MEASURE("gethostbyname", gethostbyname(HOST_NAME));
    MEASURE("gethostbyname2", gethostbyname2(HOST_NAME, AF_INET));
    MEASURE("gethostbyaddr", gethostbyaddr("\x7f\0\0\1", 4, AF_INET));
    struct hostent entry, *result;
    int error;
    MEASURE("gethostbyname_r",
            gethostbyname_r(HOST_NAME, &entry, text, sizeof text, &result, &error));
    MEASURE("gethostbyname2_r",
            gethostbyname2_r(HOST_NAME, AF_INET, &entry, text, sizeof text, &result, &error));
    MEASURE("gethostbyaddr_r",
            gethostbyaddr_r("\x7f\0\0\1", 4, AF_INET, &entry, text, sizeof text, &result, &error));
}

static void measure(int rounds) {
    memset(functions, 0, sizeof functions);
    write_marker("measure");
    for (int round = 0; round < rounds; round++) call_every_hook(round);
    for (int i = 0; functions[i].name; i++)
        printf("%s %lu\n", functions[i].name, functions[i].allocation_count);
}

/* Opens descriptors until the descriptor table is full, or closes these descriptors. */
static void fill_descriptor_table(int should_fill) {
    static int filler_fds[256], count;
    struct rlimit limit = {sizeof filler_fds / sizeof *filler_fds, 4096};
    setrlimit(RLIMIT_NOFILE, &limit);
    if (should_fill)
        while ((filler_fds[count] = dup(0)) >= 0) count++;
    else
        while (count > 0) close(filler_fds[--count]);
}

int main(void) {
    char line[32];
    matrix_setup();
    open_sockets();
    printf("ready\n");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        if (strncmp(line, "measure ", 8) == 0)
            measure(atoi(line + 8));
        else
            fill_descriptor_table(strcmp(line, "fill\n") == 0);
        printf("done\n");
        fflush(stdout);
    }
    return 0;
}
