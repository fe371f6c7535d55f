/* What the rows of the matrix share: addresses as text, what the program sees and what the kernel
 * has, and expectations that differ between a listed program and one that is not rewritten. */
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

/* Whether this run is rewritten; the session's addresses as text. */
extern int listed;
extern const char *V, *L, *L6, *V6;

/* Takes these from the environment. */
void matrix_setup(void);

/* An address as bytes, from "10.0.0.1" or "::1" and a port. */
struct address {
    struct sockaddr_storage bytes;
    socklen_t length;
};
struct address make_address(const char *host, int port);
/* One that belongs to the link of the sessions' addresses. */
struct address make_link_local(const char *host, int port);

/* An address as text, "10.0.0.1:80" or "[::1]:80"; each call has memory of its own for a while. */
const char *address_text(const struct sockaddr_storage *bytes);
/* As text with another port: for expectations. */
const char *format_host_port(const char *host, int port);
int kernel_port(int fd);

/* What the program sees, and what the kernel has. */
const char *visible_name(int fd);
const char *visible_peer(int fd);
const char *kernel_name(int fd);
const char *kernel_peer(int fd);

/* "ok", or the name of errno: to be used at once after the call. */
const char *errno_text(long value);

/* Ends the run with a message unless they are equal. */
void expect(const char *label, const char *actual, const char *expected);
/* The same where the port is another in every run. */
void expect_quietly(const char *label, const char *actual, const char *expected);
/* The same, with one wish for a listed program and one for all others. */
void expect_listed(const char *label, const char *actual, const char *if_listed,
                   const char *if_not_listed);

int tcp(void);
int udp(void);
int tcp6(void);
int udp6(void);
const char *try_bind(int fd, const char *host, int port);
const char *try_connect(int fd, const char *host, int port);
/* A socket that listens there; the run ends if that fails. */
int listen_on(const char *host, int port);
int enable_option(int fd, int level, int option);

/* A host beside this one, with a service on TCP and UDP port 7 that answers with the address it
 * sees, and one on port 9 that accepts and keeps. */
#define EXTERNAL_ADDRESS "10.99.5.2"
#define EXTERNAL_ADDRESS6 "fd99::2"
#define HOST_ADDRESS "10.99.5.1"
#define HOST_ADDRESS6 "fd99::1"
#define LINK_LOCAL "fe80::1"
/* What the driver makes the host call itself. */
#define HOST_NAME "matrixhost"
#define OTHER_SESSION_V "10.99.5.12"
/* Reads what the service on port 7 answered, without its port. */
const char *receive_text(int fd);

struct row {
    const char *name;
    void (*run)(void);
};
extern const struct row rows[], message_rows[], unhooked_rows[], inherited_rows[];

/* What this program does when a row of inherited_rows starts it again; -1 if it is no such mode. */
int run_helper(const char *mode, const char *host, int port);

/* Answers every question for an IPv4 address with the address that asked. */
int serve_names(void);

#endif
