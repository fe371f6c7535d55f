/* What a program may do to a hook that lives in it: signals, threads, forks, jumps, many sockets. */
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
#include <sys/wait.h>
#include <sys/time.h>
#include <ucontext.h>

#define LOOPBACK "127.0.0.1"

/* Calls every hooked function that may be called in a signal handler. */
static void everything(void) {
    int saved = errno;
    struct address here = at(LOOPBACK, 8090), own = at(LOOPBACK, 8311), out = at(OUTSIDE, 9);
    struct sockaddr_storage name;
    socklen_t length = sizeof name;
    char byte = 0;
    struct iovec part = {&byte, 1};
    struct msghdr message = {.msg_name = &own.bytes, .msg_namelen = own.length, .msg_iov = &part,
                             .msg_iovlen = 1};
    struct mmsghdr messages = {.msg_hdr = message};
    int stream = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int datagram = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int unbound = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (stream >= 0 && datagram >= 0 && unbound >= 0) {
        one(stream, SOL_SOCKET, SO_REUSEADDR);
        bind(stream, (void *)&here.bytes, here.length);
        listen(stream, 1);
        accept(stream, (void *)&name, &length);
        accept4(stream, (void *)&name, &length, 0);
        length = sizeof name;
        getsockname(stream, (void *)&name, &length);
        getpeername(stream, (void *)&name, &length);
        connect(datagram, (void *)&here.bytes, here.length);
        sendto(unbound, &byte, 1, 0, (void *)&own.bytes, own.length);
        sendmsg(unbound, &message, 0);
        sendmmsg(unbound, &messages, 1, 0);
        length = sizeof name;
        recvfrom(unbound, &byte, 1, 0, (void *)&name, &length);
        recvmsg(unbound, &message, 0);
        recvmmsg(unbound, &messages, 1, 0, NULL);
        sendto(unbound, &byte, 1, 0, (void *)&out.bytes, out.length);
    }
    close(stream);
    close(datagram);
    close(unbound);
    errno = saved;
}

static volatile int stop;
static volatile unsigned handled;

static void in_handler(int number) {
    (void)number;
    everything();
    handled++;
}

static void *in_thread(void *none) {
    while (!stop) everything();
    return none;
}

static int descriptors(void) {
    int count = 0;
    DIR *directory = opendir("/proc/self/fd");
    while (readdir(directory)) count++;
    closedir(directory);
    return count;
}

static void signals(void) {
    struct itimerval often = {{0, 500}, {0, 500}}, never = {{0, 0}, {0, 0}};
    pthread_t threads[4];
    int before = descriptors();
    signal(SIGALRM, in_handler);
    setitimer(ITIMER_REAL, &often, NULL);
    for (int i = 0; i < 4; i++) pthread_create(&threads[i], NULL, in_thread, NULL);
    for (int i = 0; i < 300; i++) {
        everything();
        pid_t child = fork();
        if (child == 0) {
            everything();
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
    stop = 1;
    setitimer(ITIMER_REAL, &never, NULL);
    for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
    expect("handled", handled > 10 ? "yes" : "no", "yes");
    expect("descriptors", descriptors() == before ? "as before" : "others", "as before");
}

/* A handler whose stack has as little room as programs give it. */
static void small_stack(void) {
    enum { ROOM = 8192 };
    char *memory = mmap(NULL, 3 * ROOM, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(memory + ROOM, ROOM, PROT_READ | PROT_WRITE);
    stack_t small = {.ss_sp = memory + ROOM, .ss_size = ROOM};
    struct sigaction action = {.sa_handler = in_handler, .sa_flags = SA_ONSTACK};
    expect("stack", result(sigaltstack(&small, NULL)), "ok");
    sigaction(SIGUSR1, &action, NULL);
    raise(SIGUSR1);
    expect("handled", handled == 1 ? "yes" : "no", "yes");
}

#ifdef __x86_64__
static volatile unsigned questions;
static void in_question(int number, siginfo_t *info, void *context) {
    (void)number, (void)info;
    ((ucontext_t *)context)->uc_mcontext.gregs[REG_RAX] = -EINVAL;
    questions++;
}
#endif

/* How often the kernel is asked whether an array on the heap can be read: the question, a
 * rt_sigprocmask that does nothing, is counted by a trap. */
static void questions_of_arrays(void) {
#ifdef __x86_64__
    enum { COUNT = 1024, MOST = COUNT * sizeof(struct mmsghdr) / 4096 + 1 };
    struct mmsghdr *many = calloc(COUNT, sizeof *many);
    char byte = 0;
    struct iovec part = {&byte, 1};
    for (int i = 0; i < COUNT; i++) many[i].msg_hdr = (struct msghdr){.msg_iov = &part, .msg_iovlen = 1};
    int service = udp(), fd = udp();
    expect("bind", try_bind(service, LOOPBACK, 8098), "ok");
    expect("connect", try_connect(fd, LOOPBACK, 8098), "ok");
    struct sigaction action = {.sa_sigaction = in_question, .sa_flags = SA_SIGINFO};
    sigaction(SIGSYS, &action, NULL);
    struct sock_filter trap[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_rt_sigprocmask, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof trap / sizeof *trap, trap};
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    expect("trap", result(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)), "ok");
    expect("none", result(recvmmsg(service, many, COUNT, MSG_DONTWAIT, NULL)), "EAGAIN");
    expect_listed("asked", questions > 0 && questions <= MOST ? "few" : "other", "few", "other");
    questions = 0;
    expect("sent", sendmmsg(fd, many, COUNT, 0) == COUNT ? "all" : "some", "all");
    expect_listed("asked", questions > 0 && questions <= MOST ? "few" : "other", "few", "other");
#endif
}

static sigjmp_buf out_of_it;
static void jump(int number) {
    (void)number;
    siglongjmp(out_of_it, 1);
}

static void *blocked(void *fd) {
    struct sockaddr_storage peer;
    socklen_t length = sizeof peer;
    char byte;
    recvfrom(*(int *)fd, &byte, 1, 0, (void *)&peer, &length);
    return NULL;
}

/* Leaves connects to 127.0.0.1, for which the kernel is asked through a descriptor of the hook's. */
static void jumps_while_asking(void) {
    struct itimerval soon = {{0, 40}, {0, 40}}, never = {{0, 0}, {0, 0}};
    int service = listener(LOOPBACK, 8092), fd = udp();
    struct address to = at(LOOPBACK, 8092);
    signal(SIGALRM, jump);
    int before = dup(service);
    close(before);
    for (volatile int i = 0; i < 2000; i++) {
        if (sigsetjmp(out_of_it, 1) == 0) {
            setitimer(ITIMER_REAL, &soon, NULL);
            for (;;) connect(fd, (void *)&to.bytes, to.length);
        }
    }
    setitimer(ITIMER_REAL, &never, NULL);
    int after = dup(service);
    expect("descriptors", after == before ? "as before" : "more", "as before");
}

/* Leaves blocking calls by siglongjmp and by cancellation, again and again. */
static void jumps(void) {
    struct itimerval soon = {{0, 0}, {0, 1000}};
    int service = listener(LOOPBACK, 8091), datagram = udp();
    expect("bind", try_bind(datagram, LOOPBACK, 8091), "ok");
    signal(SIGALRM, jump);
    for (volatile int i = 0; i < 300; i++) {
        struct sockaddr_storage peer;
        socklen_t length = sizeof peer;
        if (sigsetjmp(out_of_it, 1) == 0) {
            setitimer(ITIMER_REAL, &soon, NULL);
            accept(service, (void *)&peer, &length);
        }
        pthread_t thread;
        if (i % 10 == 0) {
            pthread_create(&thread, NULL, blocked, &datagram);
            usleep(2000);
            pthread_cancel(thread);
            pthread_join(thread, NULL);
        }
        int fd = tcp();
        one(fd, SOL_SOCKET, SO_REUSEADDR);
        try_bind(fd, LOOPBACK, 8191);
        expect_listed("kernel", kernel(fd), host_port(L, 8191), "127.0.0.1:8191");
        close(fd);
    }
    expect("name", seen(service), "127.0.0.1:8091");
}

static long resident(void) {
    long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (!file || fscanf(file, "%*d %ld", &pages) != 1) exit(2);
    fclose(file);
    return pages;
}

/* The descriptors that are open; the one that looks is left out. */
struct open {
    char is[4096];
};

static struct open open_now(void) {
    struct open open = {{0}};
    DIR *directory = opendir("/proc/self/fd");
    for (struct dirent *entry; (entry = readdir(directory));) {
        int fd = atoi(entry->d_name);
        if (entry->d_name[0] == '.' || fd == dirfd(directory)) continue;
        open.is[fd % sizeof open.is] = 1;
    }
    closedir(directory);
    return open;
}

static int same(const struct open *one, const struct open *other) {
    return memcmp(one, other, sizeof *one) == 0;
}

/* Makes a call, and looks whether it left a descriptor open or closed one. */
#define STILL(call)                                                      \
    do {                                                                 \
        struct open before = open_now();                                 \
        (void)!(call);                                                   \
        struct open after = open_now();                                  \
        expect_alike(#call, same(&before, &after) ? "" : "others", "");  \
        calls++;                                                         \
    } while (0)

/* Between any two calls the program sees its own descriptors and no other, whatever was asked of the
 * kernel meanwhile. */
static void descriptors_between_calls(void) {
    int calls = 0;
    struct address own = at(LOOPBACK, 8095), forced = at(LOOPBACK, 8311), none = at(LOOPBACK, 8096),
                   out = at(OUTSIDE, 9), six = at("::1", 8095), any = at("0.0.0.0", 8097);
    struct address places[] = {own, forced, none, out, six, any};
    struct sockaddr_storage name;
    socklen_t length = sizeof name;
    char byte = 0, text[256], service[32];
    struct iovec part = {&byte, 1};
    int server = listener(LOOPBACK, 8095), wild = listener("0.0.0.0", 8097);
    for (unsigned i = 0; i < sizeof places / sizeof *places; i++) {
        struct address *to = &places[i];
        int family = to->bytes.ss_family;
        int stream = socket(family, SOCK_STREAM | SOCK_NONBLOCK, 0);
        int datagram = socket(family, SOCK_DGRAM | SOCK_NONBLOCK, 0);
        int bound = socket(family, SOCK_STREAM, 0);
        STILL(connect(stream, (void *)&to->bytes, to->length));
        STILL(connect(datagram, (void *)&to->bytes, to->length));
        STILL(sendto(datagram, &byte, 1, 0, (void *)&to->bytes, to->length));
        struct msghdr message = {.msg_name = &to->bytes, .msg_namelen = to->length,
                                 .msg_iov = &part, .msg_iovlen = 1};
        struct mmsghdr messages = {.msg_hdr = message};
        STILL(sendmsg(datagram, &message, 0));
        STILL(sendmmsg(datagram, &messages, 1, 0));
        STILL(bind(bound, (void *)&to->bytes, to->length));
        STILL(listen(bound, 1));
        length = sizeof name;
        STILL(getsockname(stream, (void *)&name, &length));
        length = sizeof name;
        STILL(getpeername(stream, (void *)&name, &length));
        length = sizeof name;
        STILL(recvfrom(datagram, &byte, 1, 0, (void *)&name, &length));
        message.msg_name = &name, message.msg_namelen = sizeof name;
        STILL(recvmsg(datagram, &message, 0));
        messages.msg_hdr = message;
        STILL(recvmmsg(datagram, &messages, 1, 0, NULL));
        STILL(getnameinfo((void *)&to->bytes, to->length, text, sizeof text, service,
                          sizeof service, 0));
        close(stream), close(datagram), close(bound);
    }
    struct addrinfo *found = NULL;
    STILL(getaddrinfo(NAME, "80", NULL, &found));
    freeaddrinfo(found);
    struct ifaddrs *interfaces = NULL;
    STILL(getifaddrs(&interfaces));
    freeifaddrs(interfaces);
    STILL(gethostbyname(NAME));
    STILL(gethostbyaddr("\x7f\0\0\1", 4, AF_INET));
    /* What accept gives is the program's, and the only one more. */
    for (int i = 0; i < 4; i++) {
        int fd = tcp();
        STILL(strcmp(try_connect(fd, LOOPBACK, i % 2 ? 8095 : 8097), "ok"));
        struct open before = open_now();
        length = sizeof name;
        int accepted = i < 2 ? accept4(i % 2 ? server : wild, (void *)&name, &length, 0)
                             : accept(i % 2 ? server : wild, (void *)&name, &length);
        while (accepted < 0) accepted = accept(i % 2 ? server : wild, NULL, NULL);
        struct open after = open_now();
        before.is[accepted] = 1;
        expect("accepted", same(&before, &after) ? "one more" : "others", "one more");
        close(accepted);
        close(fd);
    }
    expect("calls", calls > 80 ? "all" : "few", "all");
}

/* Sockets opened, bound and closed: nothing grows. */
static void many(long count) {
    int before = descriptors();
    long pages = 0;
    for (long i = 0; i < count; i++) {
        int fd = i % 2 ? tcp() : udp();
        try_bind(fd, LOOPBACK, 8092);
        if (i % 16 == 0) seen(fd);
        close(fd);
        if (i == count / 10) pages = resident();
    }
    expect("grown", resident() - pages > 64 ? "yes" : "no", "no");
    expect("descriptors", descriptors() == before ? "as before" : "others", "as before");
}

/* Connections to a hundred places from a hundred ports. */
static void connections(int count) {
    int made = 0;
    for (int i = 0; i < count; i++) {
        struct linger none_left = {1, 0};
        int fd = tcp();
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &none_left, sizeof none_left);
        made += strcmp(try_connect(fd, OUTSIDE, 20000 + i % 200), "ok") == 0;
        /* All of them stay open. */
    }
    expect("connections", made == count ? "all" : "not all", "all");
}

/* Listens on many ports beside this host and keeps what comes. */
static void keep(void) {
    for (int i = 0; i < 200; i++) listener(OUTSIDE, 20000 + i);
    printf("ready\n");
    fflush(stdout);
    pause();
}

/* Binds for ever, while the map is changed under it; a line on the input asks how it is. */
static void watched(void) {
    printf("ready\n");
    fflush(stdout);
    char line[16];
    for (;;) {
        struct pollfd input = {0, POLLIN, 0};
        int asked = poll(&input, 1, 0) == 1;
        if (asked && read(0, line, sizeof line) <= 0) exit(0);
        /* What is told was bound after it was asked for. */
        everything();
        int fd = tcp();
        one(fd, SOL_SOCKET, SO_REUSEADDR);
        try_bind(fd, LOOPBACK, 8094);
        if (asked) {
            printf("%s %s\n", seen(fd), kernel(fd));
            fflush(stdout);
        }
        close(fd);
    }
}

int main(int count, char **arguments) {
    const char *what = count > 1 ? arguments[1] : "";
    long number = count > 2 ? atol(arguments[2]) : 0;
    matrix_setup();
    if (strcmp(what, "signals") == 0) signals();
    else if (strcmp(what, "small-stack") == 0) small_stack();
    else if (strcmp(what, "questions") == 0) questions_of_arrays();
    else if (strcmp(what, "jumps") == 0) jumps();
    else if (strcmp(what, "jumps-while-asking") == 0) jumps_while_asking();
    else if (strcmp(what, "many") == 0) many(number);
    else if (strcmp(what, "descriptors") == 0) descriptors_between_calls();
    else if (strcmp(what, "connections") == 0) connections(number);
    else if (strcmp(what, "keep") == 0) keep();
    else if (strcmp(what, "watched") == 0) watched();
    else return 2;
    return 0;
}
