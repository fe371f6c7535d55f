/* running.exe PORT: a program that runs while the map is replaced.
 *
 * The program listens on 127.0.0.1:PORT. For each line on standard input, it prints the address of
 * the listener, the address of a new socket bound to 0.0.0.0:PORT+1, and the result of a connection
 * to 127.0.0.1:PORT. Then it listens on 127.0.0.1:PORT+1 until the next line. */
#include <winsock2.h>
#include <ws2tcpip.h>
#include <stdio.h>
#include <stdlib.h>

static struct sockaddr_in make_address(unsigned long ip, int port)
{
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons((u_short)port) };
    address.sin_addr.s_addr = htonl(ip);
    return address;
}

static SOCKET bind_socket(unsigned long ip, int port)
{
    struct sockaddr_in address = make_address(ip, port);
    SOCKET s = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(s, (void *)&address, sizeof address)) printf("bind: %d ", WSAGetLastError());
    return s;
}

static void print_local_address(const char *label, SOCKET s)
{
    struct sockaddr_in address;
    int length = sizeof address;
    char ip[64] = "none";
    if (getsockname(s, (void *)&address, &length) == 0)
        inet_ntop(AF_INET, &address.sin_addr, ip, sizeof ip);
    printf("%s %s", label, ip);
}

int main(int argc, char **argv)
{
    WSADATA data;
    char line[16];
    if (argc < 2) return 2;
    int port = atoi(argv[1]);
    setvbuf(stdout, NULL, _IONBF, 0);
    WSAStartup(MAKEWORD(2, 2), &data);
    SOCKET first_listener = bind_socket(INADDR_LOOPBACK, port), second_listener = INVALID_SOCKET;
    listen(first_listener, 20);
    printf("ready\n");
    while (fgets(line, sizeof line, stdin)) {
        if (second_listener != INVALID_SOCKET) closesocket(second_listener);
        print_local_address("first", first_listener);
        SOCKET wildcard_socket = bind_socket(INADDR_ANY, port + 1);
        print_local_address(", wildcard", wildcard_socket);
        closesocket(wildcard_socket);
        struct sockaddr_in address = make_address(INADDR_LOOPBACK, port);
        SOCKET client = socket(AF_INET, SOCK_STREAM, 0);
        printf(", connect %d\n",
               connect(client, (void *)&address, sizeof address) ? WSAGetLastError() : 0);
        closesocket(client);
        fd_set readable_sockets;
        struct timeval no_wait = { 0, 0 };
        for (;;) { /* accept and close all pending connections */
            FD_ZERO(&readable_sockets);
            FD_SET(first_listener, &readable_sockets);
            if (select(0, &readable_sockets, NULL, NULL, &no_wait) != 1) break;
            closesocket(accept(first_listener, NULL, NULL));
        }
        second_listener = bind_socket(INADDR_LOOPBACK, port + 1);
        listen(second_listener, 5);
        printf("ready\n");
    }
    return 0;
}
