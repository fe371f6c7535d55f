/* sending.exe PORT DLL: row 24. What the hook layer hands to the system when a datagram names its own
 * source. The system's WSASendMsg is replaced by one that looks, before the hook layer is loaded: it
 * prints what comes to it. Wine pays no heed to that control message, so on the wire nothing shows. */
#include <winsock2.h>
#include <ws2tcpip.h>
#include <mswsock.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef DWORD(WINAPI *entry)(void *);

static const char *ip(struct in_addr in)
{
    static char out[2][64];
    static int turn;
    turn = !turn;
    return inet_ntop(AF_INET, &in, out[turn], sizeof out[turn]);
}

/* The packet information in a message. */
static struct in_pktinfo *information(WSAMSG *m)
{
    WSACMSGHDR *c = (void *)m->Control.buf;
    return c && m->Control.len >= sizeof *c ? (void *)(c + 1) : NULL;
}

/* In place of the system's. */
static int WSAAPI look(SOCKET s, WSAMSG *m, DWORD flags, DWORD *sent, WSAOVERLAPPED *o,
                       LPWSAOVERLAPPED_COMPLETION_ROUTINE routine)
{
    struct sockaddr_in *to = (void *)m->name;
    struct in_pktinfo *info = information(m);
    (void)s, (void)flags, (void)o, (void)routine;
    printf(" to %s", ip(to->sin_addr));
    printf(" from %s\n", info ? ip(info->ipi_addr) : "nowhere");
    *sent = 1;
    WSASetLastError(4242);
    return 0;
}

static void replace(void *function, void *with)
{
    unsigned char jump[12] = { 0x48, 0xb8, [10] = 0xff, 0xe0 }; /* mov rax, with; jmp rax */
    DWORD before;
    memcpy(jump + 2, &with, sizeof with);
    if (!VirtualProtect(function, sizeof jump, PAGE_EXECUTE_READWRITE, &before)) exit(4);
    memcpy(function, jump, sizeof jump);
}

static int send_from(SOCKET s, const char *to, const char *source, int port)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((u_short)port) };
    char control[WSA_CMSG_SPACE(sizeof(struct in_pktinfo))] = { 0 }, before[sizeof control];
    WSABUF data = { 1, "x" };
    WSAMSG m = { (void *)&a, sizeof a, &data, 1, { 0, NULL }, 0 };
    DWORD sent = 0;
    inet_pton(AF_INET, to, &a.sin_addr);
    if (*source) {
        WSACMSGHDR *c = (void *)control;
        c->cmsg_len = WSA_CMSG_LEN(sizeof(struct in_pktinfo));
        c->cmsg_level = IPPROTO_IP;
        c->cmsg_type = IP_PKTINFO;
        m.Control.buf = control;
        m.Control.len = sizeof control;
        inet_pton(AF_INET, source, &information(&m)->ipi_addr);
    }
    memcpy(before, control, sizeof control);
    printf("%s from %s:", to, *source ? source : "nowhere");
    int r = WSASendMsg(s, &m, 0, &sent, NULL, NULL);
    if (r || sent != 1 || WSAGetLastError() != 4242) printf("failed: %d\n", WSAGetLastError());
    /* The program's own message is as it was. */
    if (memcmp(before, control, sizeof control)) printf("the program's message was changed\n");
    return r;
}

int main(int argc, char **argv)
{
    WSADATA data;
    struct sockaddr_in any = { .sin_family = AF_INET };
    BOOL on = TRUE;
    if (argc < 4) return 2;
    int port = atoi(argv[1]);
    const char *host = argv[3];
    WSAStartup(MAKEWORD(2, 2), &data);
    HMODULE winsock = GetModuleHandleA("ws2_32.dll");
    replace((void *)GetProcAddress(winsock, "WSASendMsg"), look);
    HMODULE dll = LoadLibraryA(argv[2]);
    entry install = (entry)(void *)GetProcAddress(dll, "vipool_hook_install");
    printf("hooked %lu\n", install(NULL));
    /* A service of the session's own, and a socket that stays on the wildcard address (row 26). */
    SOCKET own = socket(AF_INET, SOCK_DGRAM, 0), s = socket(AF_INET, SOCK_DGRAM, 0);
    any.sin_port = htons((u_short)port);
    any.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    bind(own, (void *)&any, sizeof any);
    any.sin_port = htons((u_short)(port + 1));
    any.sin_addr.s_addr = 0;
    setsockopt(s, SOL_SOCKET, SO_REUSEADDR, (char *)&on, sizeof on);
    bind(s, (void *)&any, sizeof any);
    send_from(s, "192.0.2.1", "", port);
    send_from(s, "192.0.2.1", host, port);
    send_from(s, "192.0.2.1", "0.0.0.0", port);
    send_from(s, "192.0.2.1", "198.51.100.7", port);
    send_from(s, "127.0.0.1", "127.0.0.1", port);
    send_from(s, "127.0.0.1", "127.0.0.1", port + 7);
    return 0;
}
