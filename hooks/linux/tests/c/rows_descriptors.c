/* Tests the rows of the socket matrix for descriptors that are duplicated, passed, inherited or
 * reused, and for siglongjmp(3) and thread cancellation. See matrix.h. */
#include "matrix.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/wait.h>

/* Duplicated, passed and inherited descriptors of a socket have the same visible name. */
static void passed_descriptors_keep_names(void) {
    int fd = tcp_socket(), socket_pair[2];
    expect("bind", try_bind(fd, LOOPBACK, 8035), "ok");
    expect("dup", visible_name(dup(fd)), "127.0.0.1:8035");
    expect("dup2", visible_name(dup2(fd, 100)), "127.0.0.1:8035");
    socketpair(AF_UNIX, SOCK_STREAM, 0, socket_pair);
    struct message message;
    init_message(&message, NULL);
    message.header.msg_name = NULL;
    message.header.msg_namelen = 0;
    struct cmsghdr *control = &message.control.header;
    control->cmsg_level = SOL_SOCKET;
    control->cmsg_type = SCM_RIGHTS;
    control->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(control), &fd, sizeof fd);
    message.header.msg_controllen = CMSG_SPACE(sizeof fd);
    expect("send the descriptor", errno_text(sendmsg(socket_pair[0], &message.header, 0)), "ok");
    message.header.msg_controllen = sizeof message.control;
    expect("receive the descriptor", errno_text(recvmsg(socket_pair[1], &message.header, 0)), "ok");
    memcpy(&fd, CMSG_DATA(control), sizeof fd);
    expect("name of the received descriptor", visible_name(fd), "127.0.0.1:8035");
    fflush(stdout);
    if (fork() == 0) {
        expect("name in a child", visible_name(100), "127.0.0.1:8035");
        exit(0);
    }
    int status;
    wait(&status);
    expect("child", status == 0 ? "ok" : "failed", "ok");
}

/* After a descriptor is closed and reused, the hook keeps no state of the old socket. */
static void closed_descriptors_leave_no_state(void) {
    int fd = tcp_socket();
    expect("bind", try_bind(fd, LOOPBACK, 8036), "ok");
    if (vfork() == 0) {
        close(fd);
        _exit(0);
    }
    wait(NULL);
    expect("after vfork", visible_name(fd), "127.0.0.1:8036");
    close_range(3, ~0U, 0);
    int reused_fd = udp_socket();
    expect("descriptor is reused", reused_fd == fd ? "yes" : "no", "yes");
    expect("visible name", visible_name(reused_fd), "0.0.0.0:0");
    int other_fd = udp_socket();
    expect("bind other", try_bind(other_fd, LOOPBACK, 8136), "ok");
    dup2(other_fd, reused_fd);
    expect("dup2 over an open descriptor", visible_name(reused_fd), "127.0.0.1:8136");
}

static sigjmp_buf jump_target;
static void jump_out(int signal_number) {
    (void)signal_number;
    siglongjmp(jump_target, 1);
}

static void *accept_blocking(void *fd) {
    struct sockaddr_storage peer;
    socklen_t length = sizeof peer;
    accept(*(int *)fd, (void *)&peer, &length);
    return NULL;
}

/* siglongjmp or a thread cancellation ends a blocking call. The hook still works afterwards. */
static void jumps_leave_no_state(void) {
    int service = listen_on(LOOPBACK, 8037);
    signal(SIGALRM, jump_out);
    if (sigsetjmp(jump_target, 1) == 0) {
        alarm(1);
        accept_blocking(&service);
        expect("jump happened", "no", "yes");
    }
    int fd = tcp_socket();
    expect("bind", try_bind(fd, LOOPBACK, 8137), "ok");
    expect_listed("kernel name", kernel_name(fd), format_host_port(L, 8137), "127.0.0.1:8137");
    pthread_t thread;
    pthread_create(&thread, NULL, accept_blocking, &service);
    usleep(200000);
    pthread_cancel(thread);
    pthread_join(thread, NULL);
    fd = tcp_socket();
    expect("bind after cancel", try_bind(fd, LOOPBACK, 8237), "ok");
    expect_listed("kernel name", kernel_name(fd), format_host_port(L, 8237), "127.0.0.1:8237");
}

const struct row descriptor_rows[] = {
    {"35", passed_descriptors_keep_names},
    {"36", closed_descriptors_leave_no_state},
    {"37", jumps_leave_no_state},
    {NULL, NULL},
};
