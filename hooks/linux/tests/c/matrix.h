/* Declarations that the test programs share: functions for addresses and checks, and the rows of
 * the socket matrix (docs/socket-matrix.md). The program sees the visible address of a socket. The
 * kernel can store another address. */
#ifndef MATRIX_H
#define MATRIX_H
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#define LOOPBACK "127.0.0.1"
#define ANY "0.0.0.0"

/* The external host, a second host on the same link. Its service on port 7 (TCP and UDP) answers
 * with the client's address. */
#define EXTERNAL_ADDRESS "10.99.5.2"
#define EXTERNAL_ADDRESS6 "fd99::2"
#define HOST_ADDRESS "10.99.5.1"
#define HOST_ADDRESS6 "fd99::1"
#define LINK_LOCAL "fe80::1"
/* The host name that the tests set. */
#define HOST_NAME "matrixhost"
#define OTHER_SESSION_V "10.99.5.12"

/* Whether the process list contains this program, so that the hook rewrites its calls. */
extern int is_listed;
/* The session's addresses as text: the virtual IPs V and V6, and the loopback addresses L and
 * L6. */
extern const char *V, *L, *L6, *V6;

/* Sets `is_listed` and the addresses from the environment. Ignores SIGPIPE. */
void matrix_setup(void);

/* A socket address and its length. */
struct address {
    struct sockaddr_storage bytes;
    socklen_t length;
};
/* Makes a socket address from a text such as "10.0.0.1" or "::1", and a port. */
struct address make_address(const char *host, int port);
/* Like `make_address`, with the scope ID of the interface that has the sessions' addresses. */
struct address make_link_local(const char *host, int port);

/* Formats an address as "10.0.0.1:80" or "[::1]:80". The functions that format or receive a text
 * share 64 buffers, so each text stays valid for the next 63 calls. */
const char *format_address(const struct sockaddr_storage *bytes);
/* Formats a host and a port like `format_address`. */
const char *format_host_port(const char *host, int port);
/* Returns the local port of a socket, as the kernel stores it. */
int kernel_port(int fd);

/* Return the local or peer address of a socket as the program sees it, or the name of errno. */
const char *visible_name(int fd);
const char *visible_peer(int fd);
/* Return the local or peer address of a socket as the kernel stores it, or the name of errno. */
const char *kernel_name(int fd);
const char *kernel_peer(int fd);

/* Returns "ok" if `result` is not negative, otherwise the name of errno. Call this function
 * directly after the call that returned `result`, before errno changes. */
const char *errno_text(long result);

/* Prints the actual value. Ends the program if the value differs from the expected value. */
void expect(const char *label, const char *actual, const char *expected);
/* Like `expect`, but does not print the value. Used for values with a port that differs in every
 * run. */
void expect_unprinted(const char *label, const char *actual, const char *expected);
/* Like `expect_unprinted`, but a listed program has its own expected value. */
void expect_listed(const char *label, const char *actual, const char *if_listed,
                   const char *if_not_listed);

/* Create a socket that exec closes. */
int tcp_socket(void);
int udp_socket(void);
int tcp6_socket(void);
int udp6_socket(void);
/* Bind or connect a socket, and return the `errno_text` of the result. */
const char *try_bind(int fd, const char *host, int port);
const char *try_connect(int fd, const char *host, int port);
/* Returns a listening socket. Ends the program if this fails. */
int listen_on(const char *host, int port);
/* Enables a socket option. */
int enable_option(int fd, int level, int option);
/* Receives a text from a socket, and returns the text or the name of errno. */
const char *receive_text(int fd);

/* A message of one byte, with buffers for an address and for control messages. */
struct message {
    struct msghdr header;
    struct iovec part;
    char byte;
    struct sockaddr_storage name;
    union {
        struct cmsghdr header;
        char bytes[256];
    } control;
};
/* Prepares a message for sending to `destination`. If `destination` is NULL, prepares the message
 * for receiving. */
void init_message(struct message *message, const struct address *destination);

/* A row of the matrix, or a variant of a row. */
struct row {
    const char *name;
    void (*run)(void);
};
extern const struct row bind_rows[], connect_rows[], datagram_rows[], error_rows[], message_rows[],
    ipv6_rows[], descriptor_rows[], lookup_rows[], unhooked_rows[], inherited_rows[];

/* Runs one of the helper modes that the `inherited_rows` use. Returns the exit status, or -1 for an
 * unknown mode. */
int run_helper(const char *mode, const char *host, int port);

/* Runs a DNS server that answers every query of type A with the client's address. */
int run_dns_server(void);

#endif
