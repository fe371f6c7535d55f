/* running.exe PORT: stays while the map changes under it. It listens on 127.0.0.1:PORT; for each line
 * on its standard input it says what it sees of that socket, what becomes of a bind to 0.0.0.0:PORT+1,
 * and whether it reaches 127.0.0.1:PORT. Then it listens on 127.0.0.1:PORT+1 until the next line. */
#include <winsock2.h>
#include <ws2tcpip.h>
#include <stdio.h>
#include <stdlib.h>

static struct sockaddr_in at(unsigned long ip, int port)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((u_short)port) };
    a.sin_addr.s_addr = htonl(ip);
    return a;
}

static SOCKET bound(unsigned long ip, int port)
{
    struct sockaddr_in a = at(ip, port);
    SOCKET s = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(s, (void *)&a, sizeof a)) printf("bind: %d ", WSAGetLastError());
    return s;
}

static void say(const char *what, SOCKET s)
{
    struct sockaddr_in a;
    int length = sizeof a;
    char ip[64] = "none";
    if (getsockname(s, (void *)&a, &length) == 0) inet_ntop(AF_INET, &a.sin_addr, ip, sizeof ip);
    printf("%s %s", what, ip);
}

int main(int argc, char **argv)
{
    WSADATA data;
    char line[16];
    if (argc < 2) return 2;
    int port = atoi(argv[1]);
    setvbuf(stdout, NULL, _IONBF, 0);
    WSAStartup(MAKEWORD(2, 2), &data);
    SOCKET first = bound(INADDR_LOOPBACK, port), last = INVALID_SOCKET;
    listen(first, 20);
    printf("ready\n");
    while (fgets(line, sizeof line, stdin)) {
        if (last != INVALID_SOCKET) closesocket(last);
        say("first", first);
        SOCKET any = bound(INADDR_ANY, port + 1);
        say(", any", any);
        closesocket(any);
        struct sockaddr_in a = at(INADDR_LOOPBACK, port);
        SOCKET c = socket(AF_INET, SOCK_STREAM, 0);
        printf(", dialled %d\n", connect(c, (void *)&a, sizeof a) ? WSAGetLastError() : 0);
        closesocket(c);
        fd_set waiting;
        struct timeval now = { 0, 0 };
        for (;;) { /* whoever dialled, it was looked at */
            FD_ZERO(&waiting);
            FD_SET(first, &waiting);
            if (select(0, &waiting, NULL, NULL, &now) != 1) break;
            closesocket(accept(first, NULL, NULL));
        }
        last = bound(INADDR_LOOPBACK, port + 1);
        listen(last, 5);
        printf("ready\n");
    }
    return 0;
}
