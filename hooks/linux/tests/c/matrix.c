/* Runs one row of the matrix, or one of the services that rows need. See matrix.h. */
#include "matrix.h"

/* Answers on TCP and UDP with the address that is seen. */
static int serve(void) {
    int stream = tcp6(), datagram = udp6();
    enable_option(stream, SOL_SOCKET, SO_REUSEADDR);
    if (strcmp(try_bind(stream, "::", 7), "ok") || strcmp(try_bind(datagram, "::", 7), "ok") ||
        listen(stream, 128))
        return 1;
    printf("ready\n");
    fflush(stdout);
    for (;;) {
        struct pollfd both[2] = {{stream, POLLIN, 0}, {datagram, POLLIN, 0}};
        struct sockaddr_storage from;
        socklen_t length = sizeof from;
        char host[64], packet[64];
        poll(both, 2, -1);
        int fd = both[0].revents ? accept(stream, (void *)&from, &length) : datagram;
        if (fd == datagram) recvfrom(fd, packet, sizeof packet, 0, (void *)&from, &length);
        inet_ntop(AF_INET6, &((struct sockaddr_in6 *)&from)->sin6_addr, host, sizeof host);
        const char *plain = strncmp(host, "::ffff:", 7) ? host : host + 7;
        if (fd == datagram) {
            sendto(fd, plain, strlen(plain), 0, (void *)&from, length);
        } else {
            send(fd, plain, strlen(plain), 0);
            close(fd);
        }
    }
}

/* Holds a TCP and a UDP port until its input ends. */
static int hold(const char *host, int port) {
    int stream = listen_on(host, port), datagram = strchr(host, ':') ? udp6() : udp();
    if (stream < 0 || strcmp(try_bind(datagram, host, port), "ok") != 0) return 1;
    printf("ready %s\n", visible_name(stream));
    fflush(stdout);
    char end;
    return read(0, &end, 1) != 0;
}

int main(int count, char **arguments) {
    matrix_setup();
    if (count > 1 && strcmp(arguments[1], "serve") == 0) return serve();
    if (count > 1 && strcmp(arguments[1], "names") == 0) return serve_names();
    if (count > 3 && strcmp(arguments[1], "hold") == 0)
        return hold(arguments[2], atoi(arguments[3]));
    if (count > 3) {
        int done = run_helper(arguments[1], arguments[2], atoi(arguments[3]));
        if (done >= 0) return done;
    }
    const struct row *tables[] = {rows, message_rows, unhooked_rows, inherited_rows};
    for (int table = 0; table < 4; table++) {
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
