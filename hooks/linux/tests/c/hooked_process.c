/* Tests the hook with signals, threads, forks, jumps and many sockets. The first argument selects
 * a test or a helper mode. */
#include "matrix.h"

#include <dirent.h>
#include <ifaddrs.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <netdb.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <sys/time.h>
#include <ucontext.h>

/* Calls the hooked functions that are allowed in a signal handler. */
static void call_every_hook(void) {
    int saved_errno = errno;
    struct address local_address = make_address(LOOPBACK, 8090),
                   own_port_destination = make_address(LOOPBACK, 8311),
                   external_destination = make_address(EXTERNAL_ADDRESS, 9);
    struct sockaddr_storage name;
    socklen_t length = sizeof name;
    char byte = 0;
    struct iovec iov = {&byte, 1};
    struct msghdr message = {.msg_name = &own_port_destination.bytes,
                             .msg_namelen = own_port_destination.length,
                             .msg_iov = &iov,
                             .msg_iovlen = 1};
    struct mmsghdr mmsg = {.msg_hdr = message};
    int stream = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int datagram = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int unbound_fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (stream >= 0 && datagram >= 0 && unbound_fd >= 0) {
        enable_option(stream, SOL_SOCKET, SO_REUSEADDR);
        bind(stream, (void *)&local_address.bytes, local_address.length);
        listen(stream, 1);
        accept(stream, (void *)&name, &length);
        accept4(stream, (void *)&name, &length, 0);
        length = sizeof name;
        getsockname(stream, (void *)&name, &length);
        getpeername(stream, (void *)&name, &length);
        connect(datagram, (void *)&local_address.bytes, local_address.length);
        sendto(unbound_fd, &byte, 1, 0, (void *)&own_port_destination.bytes,
               own_port_destination.length);
        sendmsg(unbound_fd, &message, 0);
        sendmmsg(unbound_fd, &mmsg, 1, 0);
        length = sizeof name;
        recvfrom(unbound_fd, &byte, 1, 0, (void *)&name, &length);
        recvmsg(unbound_fd, &message, 0);
        recvmmsg(unbound_fd, &mmsg, 1, 0, NULL);
        sendto(unbound_fd, &byte, 1, 0, (void *)&external_destination.bytes,
               external_destination.length);
    }
    close(stream);
    close(datagram);
    close(unbound_fd);
    errno = saved_errno;
}

static volatile int is_stopped;
static volatile unsigned handled_count;

static void handle_signal(int signal_number) {
    (void)signal_number;
    call_every_hook();
    handled_count++;
}

static void *call_hooks_until_stopped(void *argument) {
    while (!is_stopped) call_every_hook();
    return argument;
}

static int count_descriptors(void) {
    int count = 0;
    DIR *directory = opendir("/proc/self/fd");
    while (readdir(directory)) count++;
    closedir(directory);
    return count;
}

static void signals(void) {
    struct itimerval repeated_timer = {{0, 500}, {0, 500}}, stopped_timer = {{0, 0}, {0, 0}};
    pthread_t threads[4];
    int fds_before = count_descriptors();
    signal(SIGALRM, handle_signal);
    setitimer(ITIMER_REAL, &repeated_timer, NULL);
    for (int i = 0; i < 4; i++) pthread_create(&threads[i], NULL, call_hooks_until_stopped, NULL);
    for (int i = 0; i < 300; i++) {
        call_every_hook();
        pid_t child = fork();
        if (child == 0) {
            call_every_hook();
            _exit(0);
        }
        waitpid(child, NULL, 0);
        child = vfork();
        if (child == 0) {
            close(12345);
            _exit(0);
        }
        waitpid(child, NULL, 0);
    }
    is_stopped = 1;
    setitimer(ITIMER_REAL, &stopped_timer, NULL);
    for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
    expect("signals handled", handled_count > 10 ? "yes" : "no", "yes");
    expect("descriptors", count_descriptors() == fds_before ? "as before" : "different",
           "as before");
}

/* Calls the hooks in a signal handler with a small stack. */
static void small_stack(void) {
    enum { STACK_SIZE = 8192 };
    char *memory = mmap(NULL, 3 * STACK_SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(memory + STACK_SIZE, STACK_SIZE, PROT_READ | PROT_WRITE);
    stack_t signal_stack = {.ss_sp = memory + STACK_SIZE, .ss_size = STACK_SIZE};
    struct sigaction action = {.sa_handler = handle_signal, .sa_flags = SA_ONSTACK};
    expect("stack", errno_text(sigaltstack(&signal_stack, NULL)), "ok");
    sigaction(SIGUSR1, &action, NULL);
    raise(SIGUSR1);
    expect("signals handled", handled_count == 1 ? "yes" : "no", "yes");
}

#ifdef __x86_64__
static volatile unsigned probe_count;
static void count_probe(int signal_number, siginfo_t *info, void *context) {
    (void)signal_number, (void)info;
    ((ucontext_t *)context)->uc_mcontext.gregs[REG_RAX] = -EAGAIN;
    probe_count++;
}
#endif

/* Counts the memory probes for an array of messages on the heap. With a probe, the hook checks
 * whether a page of the program's memory is readable. A probe is a call of futex(2), which
 * a program with one thread does not make itself. A seccomp filter traps every such call. */
static void memory_probes_of_arrays(void) {
#ifdef __x86_64__
    enum { MESSAGE_COUNT = 1024, MAX_PROBES = MESSAGE_COUNT * sizeof(struct mmsghdr) / 4096 + 1 };
    struct mmsghdr *messages = calloc(MESSAGE_COUNT, sizeof *messages);
    char byte = 0;
    struct iovec iov = {&byte, 1};
    for (int i = 0; i < MESSAGE_COUNT; i++)
        messages[i].msg_hdr = (struct msghdr){.msg_iov = &iov, .msg_iovlen = 1};
    int service = udp_socket(), fd = udp_socket();
    expect("bind", try_bind(service, LOOPBACK, 8098), "ok");
    expect("connect", try_connect(fd, LOOPBACK, 8098), "ok");
    struct sigaction action = {.sa_sigaction = count_probe, .sa_flags = SA_SIGINFO};
    sigaction(SIGSYS, &action, NULL);
    struct sock_filter trap[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_futex, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof trap / sizeof *trap, trap};
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    expect("trap", errno_text(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)), "ok");
    expect("recvmmsg on an empty queue",
           errno_text(recvmmsg(service, messages, MESSAGE_COUNT, MSG_DONTWAIT, NULL)), "EAGAIN");
    expect_listed("probes", probe_count > 0 && probe_count <= MAX_PROBES ? "few" : "other", "few",
                  "other");
    probe_count = 0;
    expect("sent messages",
           sendmmsg(fd, messages, MESSAGE_COUNT, 0) == MESSAGE_COUNT ? "all" : "some", "all");
    expect_listed("probes", probe_count > 0 && probe_count <= MAX_PROBES ? "few" : "other", "few",
                  "other");
#endif
}

/* Makes calls with arguments on the heap, so that the hook probes their memory. The bytes that the
 * kernel does not read stay uninitialized, so that valgrind detects if the hook uses them. */
static void heap_arguments(void) {
    struct sockaddr_in *address = malloc(sizeof *address), *name = malloc(sizeof *name);
    struct msghdr *message = malloc(sizeof *message);
    struct iovec *iov = malloc(sizeof *iov);
    socklen_t *length = malloc(sizeof *length);
    char *byte = calloc(1, 1);
    int service = listen_on(LOOPBACK, 8099), fd = udp_socket();
    address->sin_family = AF_INET;
    address->sin_port = htons(8099);
    address->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    *length = sizeof *name;
    expect("bind", errno_text(bind(fd, (void *)address, sizeof *address)), "ok");
    expect("connect", errno_text(connect(tcp_socket(), (void *)address, sizeof *address)), "ok");
    expect("sendto", errno_text(sendto(fd, byte, 1, 0, (void *)address, sizeof *address)), "ok");
    *iov = (struct iovec){byte, 1};
    memset(message, 0, sizeof *message);
    message->msg_name = address, message->msg_namelen = sizeof *address;
    message->msg_iov = iov, message->msg_iovlen = 1;
    expect("sendmsg", errno_text(sendmsg(fd, message, 0)), "ok");
    expect("recvmsg", errno_text(recvmsg(fd, message, 0)), "ok");
    expect("recvfrom", errno_text(recvfrom(fd, byte, 1, 0, (void *)name, length)), "ok");
    expect("accept", errno_text(accept(service, (void *)name, length)), "ok");
    expect("name", errno_text(getsockname(fd, (void *)name, length)), "ok");
    free(address), free(name), free(message), free(iov), free(length), free(byte);
}

static sigjmp_buf jump_target;
static void jump_out(int signal_number) {
    (void)signal_number;
    siglongjmp(jump_target, 1);
}

static void *receive_blocking(void *fd) {
    struct sockaddr_storage peer;
    socklen_t length = sizeof peer;
    char byte;
    recvfrom(*(int *)fd, &byte, 1, 0, (void *)&peer, &length);
    return NULL;
}

/* Jumps out of connects to 127.0.0.1. During such a connect, the hook temporarily opens a
 * descriptor. A jump must not leave this descriptor open. */
static void jumps_during_connect(void) {
    struct itimerval repeated_timer = {{0, 40}, {0, 40}}, stopped_timer = {{0, 0}, {0, 0}};
    int service = listen_on(LOOPBACK, 8092), fd = udp_socket();
    struct address destination = make_address(LOOPBACK, 8092);
    signal(SIGALRM, jump_out);
    int lowest_free_fd = dup(service);
    close(lowest_free_fd);
    for (volatile int i = 0; i < 2000; i++) {
        if (sigsetjmp(jump_target, 1) == 0) {
            setitimer(ITIMER_REAL, &repeated_timer, NULL);
            for (;;) connect(fd, (void *)&destination.bytes, destination.length);
        }
    }
    setitimer(ITIMER_REAL, &stopped_timer, NULL);
    int lowest_free_fd_after = dup(service);
    expect("descriptors", lowest_free_fd_after == lowest_free_fd ? "as before" : "more",
           "as before");
}

/* Ends blocking calls with siglongjmp and with thread cancellation, many times. */
static void jumps(void) {
    struct itimerval one_shot_timer = {{0, 0}, {0, 1000}};
    int service = listen_on(LOOPBACK, 8091), datagram = udp_socket();
    expect("bind", try_bind(datagram, LOOPBACK, 8091), "ok");
    signal(SIGALRM, jump_out);
    for (volatile int i = 0; i < 300; i++) {
        struct sockaddr_storage peer;
        socklen_t length = sizeof peer;
        if (sigsetjmp(jump_target, 1) == 0) {
            setitimer(ITIMER_REAL, &one_shot_timer, NULL);
            accept(service, (void *)&peer, &length);
        }
        pthread_t thread;
        if (i % 10 == 0) {
            pthread_create(&thread, NULL, receive_blocking, &datagram);
            usleep(2000);
            pthread_cancel(thread);
            pthread_join(thread, NULL);
        }
        int fd = tcp_socket();
        enable_option(fd, SOL_SOCKET, SO_REUSEADDR);
        try_bind(fd, LOOPBACK, 8191);
        expect_listed("kernel name", kernel_name(fd), format_host_port(L, 8191), "127.0.0.1:8191");
        close(fd);
    }
    expect("name", visible_name(service), "127.0.0.1:8091");
}

static long resident_pages(void) {
    long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (!file || fscanf(file, "%*d %ld", &pages) != 1) exit(2);
    fclose(file);
    return pages;
}

/* The open descriptors, except for the descriptor through which `snapshot_fds` reads them. */
struct open_fds {
    char is_open[4096];
};

static struct open_fds snapshot_fds(void) {
    struct open_fds fds = {{0}};
    DIR *directory = opendir("/proc/self/fd");
    for (struct dirent *entry; (entry = readdir(directory));) {
        int fd = atoi(entry->d_name);
        if (entry->d_name[0] == '.' || fd == dirfd(directory)) continue;
        fds.is_open[fd % sizeof fds.is_open] = 1;
    }
    closedir(directory);
    return fds;
}

static int is_same_set(const struct open_fds *left, const struct open_fds *right) {
    return memcmp(left, right, sizeof *left) == 0;
}

/* Makes a call, and expects that the call neither opens nor closes a descriptor. */
#define EXPECT_SAME_FDS(call)                                                                      \
    do {                                                                                           \
        struct open_fds fds_before = snapshot_fds();                                               \
        (void)!(call);                                                                             \
        struct open_fds fds_after = snapshot_fds();                                                \
        expect_unprinted(#call, is_same_set(&fds_before, &fds_after) ? "" : "different", "");      \
        call_count++;                                                                              \
    } while (0)

/* Checks that the hook closes every descriptor that it opens during a call. */
static void descriptors_unchanged_by_calls(void) {
    int call_count = 0;
    struct address service_destination = make_address(LOOPBACK, 8095),
                   own_port_destination = make_address(LOOPBACK, 8311),
                   unused_destination = make_address(LOOPBACK, 8096),
                   external_destination = make_address(EXTERNAL_ADDRESS, 9),
                   ipv6_destination = make_address("::1", 8095),
                   wildcard_destination = make_address("0.0.0.0", 8097);
    struct address destinations[] = {service_destination, own_port_destination,
                                     unused_destination,  external_destination,
                                     ipv6_destination,    wildcard_destination};
    struct sockaddr_storage name;
    socklen_t length = sizeof name;
    char byte = 0, text[256], service[32];
    struct iovec iov = {&byte, 1};
    int server = listen_on(LOOPBACK, 8095), wildcard_server = listen_on("0.0.0.0", 8097);
    for (unsigned i = 0; i < sizeof destinations / sizeof *destinations; i++) {
        struct address *destination = &destinations[i];
        int family = destination->bytes.ss_family;
        int stream = socket(family, SOCK_STREAM | SOCK_NONBLOCK, 0);
        int datagram = socket(family, SOCK_DGRAM | SOCK_NONBLOCK, 0);
        int bound_fd = socket(family, SOCK_STREAM, 0);
        EXPECT_SAME_FDS(connect(stream, (void *)&destination->bytes, destination->length));
        EXPECT_SAME_FDS(connect(datagram, (void *)&destination->bytes, destination->length));
        EXPECT_SAME_FDS(
            sendto(datagram, &byte, 1, 0, (void *)&destination->bytes, destination->length));
        struct msghdr message = {.msg_name = &destination->bytes,
                                 .msg_namelen = destination->length,
                                 .msg_iov = &iov,
                                 .msg_iovlen = 1};
        struct mmsghdr mmsg = {.msg_hdr = message};
        EXPECT_SAME_FDS(sendmsg(datagram, &message, 0));
        EXPECT_SAME_FDS(sendmmsg(datagram, &mmsg, 1, 0));
        EXPECT_SAME_FDS(bind(bound_fd, (void *)&destination->bytes, destination->length));
        EXPECT_SAME_FDS(listen(bound_fd, 1));
        length = sizeof name;
        EXPECT_SAME_FDS(getsockname(stream, (void *)&name, &length));
        length = sizeof name;
        EXPECT_SAME_FDS(getpeername(stream, (void *)&name, &length));
        length = sizeof name;
        EXPECT_SAME_FDS(recvfrom(datagram, &byte, 1, 0, (void *)&name, &length));
        message.msg_name = &name, message.msg_namelen = sizeof name;
        EXPECT_SAME_FDS(recvmsg(datagram, &message, 0));
        mmsg.msg_hdr = message;
        EXPECT_SAME_FDS(recvmmsg(datagram, &mmsg, 1, 0, NULL));
        EXPECT_SAME_FDS(getnameinfo((void *)&destination->bytes, destination->length, text,
                                    sizeof text, service, sizeof service, 0));
        close(stream), close(datagram), close(bound_fd);
    }
    struct addrinfo *result = NULL;
    EXPECT_SAME_FDS(getaddrinfo(HOST_NAME, "80", NULL, &result));
    freeaddrinfo(result);
    struct ifaddrs *interfaces = NULL;
    EXPECT_SAME_FDS(getifaddrs(&interfaces));
    freeifaddrs(interfaces);
    EXPECT_SAME_FDS(gethostbyname(HOST_NAME));
    EXPECT_SAME_FDS(gethostbyaddr("\x7f\0\0\1", 4, AF_INET));
    /* accept adds exactly one descriptor. */
    for (int i = 0; i < 4; i++) {
        int fd = tcp_socket();
        EXPECT_SAME_FDS(strcmp(try_connect(fd, LOOPBACK, i % 2 ? 8095 : 8097), "ok"));
        struct open_fds fds_before = snapshot_fds();
        length = sizeof name;
        int accepted = i < 2 ? accept4(i % 2 ? server : wildcard_server, (void *)&name, &length, 0)
                             : accept(i % 2 ? server : wildcard_server, (void *)&name, &length);
        while (accepted < 0) accepted = accept(i % 2 ? server : wildcard_server, NULL, NULL);
        struct open_fds fds_after = snapshot_fds();
        fds_before.is_open[accepted] = 1;
        expect("descriptors after accept",
               is_same_set(&fds_before, &fds_after) ? "one more" : "different", "one more");
        close(accepted);
        close(fd);
    }
    expect("checked calls", call_count > 80 ? "all" : "few", "all");
}

/* Connects and sends while the descriptor table is full. Without a free descriptor, the hook cannot
 * query the kernel for the session's listeners. The host and the session each have services on
 * ports 8312 and 8313. No call may reach a service of the host. */
static void full_descriptor_table(void) {
    int service = listen_on(LOOPBACK, 8312), datagram_service = udp_socket(),
        wildcard_service = tcp_socket();
    expect("bind", try_bind(datagram_service, LOOPBACK, 8312), "ok");
    enable_option(wildcard_service, SOL_SOCKET, SO_REUSEADDR);
    expect("bind", try_bind(wildcard_service, "0.0.0.0", 8313), "ok");
    expect("listen", errno_text(listen(wildcard_service, 4)), "ok");
    int stream = tcp_socket(), to_host = tcp_socket(), to_own_port = tcp_socket(),
        datagram = udp_socket(), sender = udp_socket();
    struct address service_address = make_address(LOOPBACK, 8312);
    struct rlimit limit = {64, 64};
    expect("limit", errno_text(setrlimit(RLIMIT_NOFILE, &limit)), "ok");
    int last_fd = -1;
    for (int fd; (fd = dup(service)) >= 0;) last_fd = fd;
    expect("connect", try_connect(stream, LOOPBACK, 8312), "EMFILE");
    expect("connect to the host's address", try_connect(to_host, HOST_ADDRESS, 8313), "EMFILE");
    expect("connect of a datagram socket", try_connect(datagram, LOOPBACK, 8312), "EMFILE");
    expect("sendto",
           errno_text(
               sendto(sender, "x", 1, 0, (void *)&service_address.bytes, service_address.length)),
           "EMFILE");
    expect("connect to an own port", try_connect(to_own_port, LOOPBACK, 8311), "ECONNREFUSED");
    expect("connect to another host", try_connect(stream, EXTERNAL_ADDRESS, 8), "ECONNREFUSED");
    /* A call that failed with EMFILE leaves its socket usable. */
    close(last_fd);
    expect("connect after a close", try_connect(stream, LOOPBACK, 8312), "ok");
    expect("peer", strcmp(kernel_peer(stream), format_host_port(L, 8312)) ? "other" : "L", "L");
    expect("connect after a close", try_connect(to_host, HOST_ADDRESS, 8313), "ok");
    expect("peer", strcmp(kernel_peer(to_host), format_host_port(V, 8313)) ? "other" : "V", "V");
    expect("connect after a close", try_connect(datagram, LOOPBACK, 8312), "ok");
    expect("peer", strcmp(kernel_peer(datagram), format_host_port(L, 8312)) ? "other" : "L", "L");
}

/* Runs the services of the host for `full_descriptor_table`. */
static void host_services(void) {
    int datagram = udp_socket();
    listen_on(LOOPBACK, 8312);
    listen_on(HOST_ADDRESS, 8313);
    expect_unprinted("bind", try_bind(datagram, LOOPBACK, 8312), "ok");
    printf("ready\n");
    fflush(stdout);
    pause();
}

/* Opens, binds and closes many sockets. Checks that memory use and the number of descriptors do
 * not grow. */
static void many_sockets(long count) {
    int fds_before = count_descriptors();
    long pages_before = 0;
    for (long i = 0; i < count; i++) {
        int fd = i % 2 ? tcp_socket() : udp_socket();
        try_bind(fd, LOOPBACK, 8092);
        if (i % 16 == 0) visible_name(fd);
        close(fd);
        if (i == count / 10) pages_before = resident_pages();
    }
    expect("memory has grown", resident_pages() - pages_before > 64 ? "yes" : "no", "no");
    expect("descriptors", count_descriptors() == fds_before ? "as before" : "different",
           "as before");
}

/* Opens `count` connections to the external host, distributed over 200 ports. */
static void connections(int count) {
    int established_count = 0;
    for (int i = 0; i < count; i++) {
        struct linger reset_on_close = {1, 0};
        int fd = tcp_socket();
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset_on_close, sizeof reset_on_close);
        established_count += strcmp(try_connect(fd, EXTERNAL_ADDRESS, 20000 + i % 200), "ok") == 0;
        /* The connections stay open. */
    }
    expect("connections", established_count == count ? "all" : "not all", "all");
}

/* Listens on 200 ports of the external host, but never calls accept. The connections stay open in
 * the queues of the listeners. */
static void listen_forever(void) {
    for (int i = 0; i < 200; i++) listen_on(EXTERNAL_ADDRESS, 20000 + i);
    printf("ready\n");
    fflush(stdout);
    pause();
}

/* Binds sockets to 127.0.0.1 in a loop. For each line of input, prints the visible name and the
 * kernel's name of the next socket. */
static void report_names(void) {
    printf("ready\n");
    fflush(stdout);
    char line[16];
    for (;;) {
        struct pollfd input = {0, POLLIN, 0};
        int is_requested = poll(&input, 1, 0) == 1;
        if (is_requested && read(0, line, sizeof line) <= 0) exit(0);
        /* The reported socket is bound after the request. */
        call_every_hook();
        int fd = tcp_socket();
        enable_option(fd, SOL_SOCKET, SO_REUSEADDR);
        try_bind(fd, LOOPBACK, 8094);
        if (is_requested) {
            printf("%s %s\n", visible_name(fd), kernel_name(fd));
            fflush(stdout);
        }
        close(fd);
    }
}

/* Makes the call with this name. The calls are not cancellation points (pthreads(7)). */
static int call_without_cancellation_point(const char *name) {
    struct address address = make_address(LOOPBACK, 8096);
    struct ip_mreqn request = {.imr_ifindex = if_nametoindex("lo")};
    char host[64];
    int fd = udp_socket(), stream = tcp_socket(), result = 1;
    if (strcmp(name, "bind") == 0)
        result = bind(stream, (void *)&address.bytes, address.length);
    else if (strcmp(name, "listen") == 0)
        result = listen(stream, 1);
    else if (strcmp(name, "setsockopt") == 0)
        result = setsockopt(fd, IPPROTO_IP, IP_MULTICAST_IF, &request, sizeof request);
    else if (strcmp(name, "getnameinfo") == 0)
        result = getnameinfo((void *)&address.bytes, address.length, host, sizeof host, NULL, 0,
                             NI_NUMERICHOST);
    syscall(SYS_close, fd), syscall(SYS_close, stream);
    return result;
}

static const char *cancelled_call_result;

/* Makes a call while a cancellation of this thread is pending. */
static void *call_while_cancelled(void *name) {
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
    pthread_cancel(pthread_self());
    cancelled_call_result = "cancelled";
    pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, NULL);
    int result = call_without_cancellation_point(name);
    cancelled_call_result = errno_text(result ? -1 : 0);
    pthread_testcancel();
    return NULL;
}

/* For each line of input, makes the call with this name in a cancelled thread. Prints the result
 * and the number of descriptors that the call left open. */
static void cancelled_calls(void) {
    char line[32];
    printf("ready\n");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        pthread_t thread;
        void *exit_value = NULL;
        line[strcspn(line, "\n")] = 0;
        struct open_fds fds_before = snapshot_fds();
        pthread_create(&thread, NULL, call_while_cancelled, line);
        pthread_join(thread, &exit_value);
        struct open_fds fds_after = snapshot_fds();
        printf("%s, %s, descriptors %s\n", cancelled_call_result,
               exit_value == PTHREAD_CANCELED ? "cancelled later" : "not cancelled",
               is_same_set(&fds_before, &fds_after) ? "unchanged" : "changed");
        fflush(stdout);
    }
}

int main(int argument_count, char **arguments) {
    const char *mode = argument_count > 1 ? arguments[1] : "";
    long count_argument = argument_count > 2 ? atol(arguments[2]) : 0;
    matrix_setup();
    if (strcmp(mode, "signals") == 0)
        signals();
    else if (strcmp(mode, "small-stack") == 0)
        small_stack();
    else if (strcmp(mode, "memory-probes") == 0)
        memory_probes_of_arrays();
    else if (strcmp(mode, "heap-arguments") == 0)
        heap_arguments();
    else if (strcmp(mode, "jumps") == 0)
        jumps();
    else if (strcmp(mode, "jumps-during-connect") == 0)
        jumps_during_connect();
    else if (strcmp(mode, "many-sockets") == 0)
        many_sockets(count_argument);
    else if (strcmp(mode, "descriptors") == 0)
        descriptors_unchanged_by_calls();
    else if (strcmp(mode, "full-descriptor-table") == 0)
        full_descriptor_table();
    else if (strcmp(mode, "host-services") == 0)
        host_services();
    else if (strcmp(mode, "connections") == 0)
        connections(count_argument);
    else if (strcmp(mode, "listen-forever") == 0)
        listen_forever();
    else if (strcmp(mode, "report-names") == 0)
        report_names();
    else if (strcmp(mode, "cancelled-calls") == 0)
        cancelled_calls();
    else
        return 2;
    return 0;
}
