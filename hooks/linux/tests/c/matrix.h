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
struct address at(const char *host, int port);
/* One that belongs to the link of the sessions' addresses. */
struct address on_link(const char *host, int port);

/* An address as text, "10.0.0.1:80" or "[::1]:80"; each call has memory of its own for a while. */
const char *text_of(const struct sockaddr_storage *bytes);
/* As text with another port: for expectations. */
const char *host_port(const char *host, int port);
int port_of(int fd);

/* What the program sees, and what the kernel has. */
const char *seen(int fd);
const char *seen_peer(int fd);
const char *kernel(int fd);
const char *kernel_peer(int fd);

/* "ok", or the name of errno: to be used at once after the call. */
const char *result(long value);

/* Ends the run with a message unless they are equal. */
void expect(const char *what, const char *got, const char *wanted);
/* The same where the port is another in every run. */
void expect_alike(const char *what, const char *got, const char *wanted);
/* The same, with one wish for a listed program and one for all others. */
void expect_listed(const char *what, const char *got, const char *when_listed,
                   const char *otherwise);

int tcp(void);
int udp(void);
int tcp6(void);
int udp6(void);
const char *try_bind(int fd, const char *host, int port);
const char *try_connect(int fd, const char *host, int port);
/* A socket that listens there; the run ends if that fails. */
int listener(const char *host, int port);
int one(int fd, int level, int option);

/* A host beside this one, with a service on TCP and UDP port 7 that answers with the address it
 * sees, and one on port 9 that accepts and keeps. */
#define OUTSIDE "10.99.5.2"
#define OUTSIDE6 "fd99::2"
#define HOST "10.99.5.1"
#define HOST6 "fd99::1"
#define LINK_LOCAL "fe80::1"
/* What the driver makes the host call itself. */
#define NAME "matrixhost"
#define ANOTHERS_V "10.99.5.12"
/* Reads what the service on port 7 answered, without its port. */
const char *answered(int fd);

struct row {
    const char *name;
    void (*run)(void);
};
extern const struct row rows[], more_rows[], unreached_rows[], handed_rows[];

/* What this program does when a row of handed_rows starts it again; -1 if it is no such mode. */
int handed(const char *mode, const char *host, int port);

/* Answers every question for an IPv4 address with the address that asked. */
int serve_names(void);

#endif
