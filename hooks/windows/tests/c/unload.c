/* unload.exe PORT DLL: binds before the hook layer is loaded, with it, and after it was removed;
 * then with it again. Prints the address that each socket has. */
#include <winsock2.h>
#include <ws2tcpip.h>
#include <stdio.h>
#include <stdlib.h>

typedef DWORD(WINAPI *entry)(void *);

static void where(const char *when, int port)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((u_short)port) };
    SOCKET s = socket(AF_INET, SOCK_STREAM, 0);
    int length = sizeof a;
    char ip[64];
    if (bind(s, (void *)&a, sizeof a)) {
        printf("%s: %d\n", when, WSAGetLastError());
        return;
    }
    getsockname(s, (void *)&a, &length);
    inet_ntop(AF_INET, &a.sin_addr, ip, sizeof ip);
    printf("%s: %s\n", when, ip);
    closesocket(s);
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
