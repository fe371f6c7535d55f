/* unload.exe PORT DLL: binds before the hook layer is loaded, with it (first as soon as the thread that
 * DllMain started has set the hooks), and after it was removed; then with it again. Prints the address that each socket has. */
#include <winsock2.h>
#include <ws2tcpip.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef DWORD(WINAPI *entry)(void *);

/* Where a bind goes, in `ip`; the error, or 0. */
static int bound(int port, char *ip)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((u_short)port) };
    SOCKET s = socket(AF_INET, SOCK_STREAM, 0);
    int length = sizeof a, r = bind(s, (void *)&a, sizeof a);
    if (r) return WSAGetLastError();
    getsockname(s, (void *)&a, &length);
    inet_ntop(AF_INET, &a.sin_addr, ip, 64);
    closesocket(s);
    return 0;
}

static void where(const char *when, int port)
{
    char ip[64];
    int error = bound(port, ip);
    if (error) printf("%s: %d\n", when, error);
    else printf("%s: %s\n", when, ip);
}

int main(int argc, char **argv)
{
    WSADATA data;
    if (argc < 3) return 2;
    int port = atoi(argv[1]);
    WSAStartup(MAKEWORD(2, 2), &data);
    where("before", port);
    HMODULE dll = LoadLibraryA(argv[2]);
    if (!dll) {
        printf("LoadLibrary: %lu\n", GetLastError());
        return 1;
    }
    /* DllMain only hands off to a thread: some moments later the hooks are there. */
    char ip[64];
    for (int i = 0; i < 2000 && bound(port, ip) == 0 && strcmp(ip, "0.0.0.0") == 0; i++) Sleep(10);
    where("by itself", port);
    entry install = (entry)(void *)GetProcAddress(dll, "vipool_hook_install");
    entry removal = (entry)(void *)GetProcAddress(dll, "vipool_hook_remove");
    install(NULL);
    where("with", port);
    removal(NULL);
    where("after", port);
    install(NULL);
    where("again", port);
    removal(NULL);
    FreeLibrary(dll);
    where("unloaded", port);
    return 0;
}
