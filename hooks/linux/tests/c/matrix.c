/* Runs one row of the socket matrix, or a service or helper process for a row. Without an argument,
 * the program lists the rows. See matrix.h. */
#include "matrix.h"

/* Runs a service on TCP and UDP port 7. The service answers with the client's address. */
static int run_echo_service(void) {
    int stream = tcp6_socket(), datagram = udp6_socket();
    enable_option(stream, SOL_SOCKET, SO_REUSEADDR);
    if (strcmp(try_bind(stream, "::", 7), "ok") || strcmp(try_bind(datagram, "::", 7), "ok") ||
        listen(stream, 128))
        return 1;
    printf("ready\n");
    fflush(stdout);
    for (;;) {
        struct pollfd sockets[2] = {{stream, POLLIN, 0}, {datagram, POLLIN, 0}};
        struct sockaddr_storage client;
        socklen_t length = sizeof client;
        char host[64], data[64];
        poll(sockets, 2, -1);
        int fd = sockets[0].revents ? accept(stream, (void *)&client, &length) : datagram;
        if (fd == datagram) recvfrom(fd, data, sizeof data, 0, (void *)&client, &length);
        inet_ntop(AF_INET6, &((struct sockaddr_in6 *)&client)->sin6_addr, host, sizeof host);
        const char *text = strncmp(host, "::ffff:", 7) ? host : host + 7;
        if (fd == datagram) {
            sendto(fd, text, strlen(text), 0, (void *)&client, length);
        } else {
            send(fd, text, strlen(text), 0);
            close(fd);
        }
    }
}

/* Listens on a TCP port, binds the UDP port of the same number, and waits for the end of standard
 * input. */
static int listen_until_eof(const char *host, int port) {
    int stream = listen_on(host, port), datagram = strchr(host, ':') ? udp6_socket() : udp_socket();
    if (stream < 0 || strcmp(try_bind(datagram, host, port), "ok") != 0) return 1;
    printf("ready %s\n", visible_name(stream));
    fflush(stdout);
    char byte;
    return read(0, &byte, 1) != 0;
}

int main(int count, char **arguments) {
    matrix_setup();
    if (count > 1 && strcmp(arguments[1], "serve") == 0) return run_echo_service();
    if (count > 1 && strcmp(arguments[1], "dns") == 0) return run_dns_server();
    if (count > 3 && strcmp(arguments[1], "listen") == 0)
        return listen_until_eof(arguments[2], atoi(arguments[3]));
    if (count > 3) {
        int status = run_helper(arguments[1], arguments[2], atoi(arguments[3]));
        if (status >= 0) return status;
    }
    const struct row *tables[] = {bind_rows,     connect_rows,  datagram_rows,   error_rows,
                                  message_rows,  ipv6_rows,     descriptor_rows, lookup_rows,
                                  unhooked_rows, inherited_rows};
    for (unsigned table = 0; table < sizeof tables / sizeof *tables; table++) {
        for (const struct row *row = tables[table]; row->name; row++) {
            if (count == 1) {
                printf("%s\n", row->name);
            } else if (strcmp(row->name, arguments[1]) == 0) {
                printf("row %s\n", row->name);
                row->run();
                return 0;
            }
        }
    }
    return count == 1 ? 0 : 2;
}
