/* unload.exe PORT DLL: installs and removes the hooks repeatedly. At the start and after each step,
 * the program binds a socket and prints the address of the socket. */
#include <winsock2.h>
#include <ws2tcpip.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef DWORD(WINAPI *hook_entry)(void *);

/* Binds a socket to the wildcard address, stores in `ip` the address that getsockname reports, and
 * closes the socket. Returns 0 or an error code. */
static int bind_and_get_address(int port, char *ip)
{
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons((u_short)port) };
    SOCKET s = socket(AF_INET, SOCK_STREAM, 0);
    int length = sizeof address, result = bind(s, (void *)&address, sizeof address);
    if (result) return WSAGetLastError();
    getsockname(s, (void *)&address, &length);
    inet_ntop(AF_INET, &address.sin_addr, ip, 64);
    closesocket(s);
    return 0;
}

static void print_bound_address(const char *label, int port)
{
    char ip[64];
    int error = bind_and_get_address(port, ip);
    if (error) printf("%s: %d\n", label, error);
    else printf("%s: %s\n", label, ip);
}

int main(int argc, char **argv)
{
    WSADATA data;
    if (argc < 3) return 2;
    int port = atoi(argv[1]);
    WSAStartup(MAKEWORD(2, 2), &data);
    print_bound_address("before", port);
    /* The thread that DllMain starts needs the code of the DLL, so FreeLibrary must not unmap it. */
    FreeLibrary(LoadLibraryA(argv[2]));
    printf("freed at once: %s\n", GetModuleHandleA(argv[2]) ? "loaded" : "unloaded");
    fflush(stdout);
    HMODULE dll = LoadLibraryA(argv[2]);
    if (!dll) {
        printf("LoadLibrary: %lu\n", GetLastError());
        return 1;
    }
    /* DllMain starts a thread that installs the hooks. The program waits for that thread. */
    char ip[64];
    for (int i = 0; i < 2000 && bind_and_get_address(port, ip) == 0 && strcmp(ip, "0.0.0.0") == 0;
         i++)
        Sleep(10);
    print_bound_address("by DllMain", port);
    hook_entry install_hooks = (hook_entry)(void *)GetProcAddress(dll, "vipool_hook_install");
    hook_entry remove_hooks = (hook_entry)(void *)GetProcAddress(dll, "vipool_hook_remove");
    install_hooks(NULL);
    print_bound_address("installed", port);
    remove_hooks(NULL);
    print_bound_address("removed", port);
    install_hooks(NULL);
    print_bound_address("installed again", port);
    remove_hooks(NULL);
    FreeLibrary(dll);
    print_bound_address("unloaded", port);
    return 0;
}
