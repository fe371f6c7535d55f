/* A server and a client that use a completion port, as Go, libuv and .NET do. Like these, the
 * modes serve and connect get AcceptEx, ConnectEx and GetAcceptExSockaddrs from WSAIoctl. The test
 * also passes the virtual IP, which this program does not use.
 *
 *   iocp.exe serve PORT V    prints "ready", and sends each client the addresses of the connection
 *   iocp.exe exports PORT V  like serve, but calls the functions that mswsock.dll exports
 *   iocp.exe connect PORT V  connects to 127.0.0.1:PORT and prints the reply */
#include <winsock2.h>
#include <ws2tcpip.h>
#include <mswsock.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static HANDLE completion_port;

static void *get_extension(SOCKET s, GUID guid)
{
    void *function = NULL;
    DWORD transferred;
    if (WSAIoctl(s, SIO_GET_EXTENSION_FUNCTION_POINTER, &guid, sizeof guid, &function,
                 sizeof function, &transferred, NULL, NULL))
        exit(3);
    return function;
}

static SOCKET overlapped_socket(void)
{
    SOCKET s = WSASocketW(AF_INET, SOCK_STREAM, IPPROTO_TCP, NULL, 0, WSA_FLAG_OVERLAPPED);
    CreateIoCompletionPort((HANDLE)s, completion_port, 0, 0);
    return s;
}

/* Waits for the pending operation. Returns the number of transferred bytes. */
static DWORD wait_for_completion(void)
{
    DWORD bytes;
    ULONG_PTR key;
    OVERLAPPED *completed;
    if (!GetQueuedCompletionStatus(completion_port, &bytes, &key, &completed, 20000)) {
        printf("completion: %lu\n", GetLastError());
        exit(4);
    }
    return bytes;
}

static void format_ip(const struct sockaddr *address, char *out)
{
    inet_ntop(AF_INET, &((const struct sockaddr_in *)address)->sin_addr, out, 64);
}

static int serve(int port, int use_exports)
{
    SOCKET s = overlapped_socket();
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons((u_short)port) };
    char ip[64], reply[200];
    int length = sizeof address;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(s, (void *)&address, sizeof address) || listen(s, 5)) {
        printf("bind or listen: %d\n", WSAGetLastError());
        return 1;
    }
    getsockname(s, (void *)&address, &length);
    format_ip((void *)&address, ip);
    printf("listening on %s\nready\n", ip);
    GUID accept_guid = WSAID_ACCEPTEX, sockaddrs_guid = WSAID_GETACCEPTEXSOCKADDRS;
    LPFN_ACCEPTEX accept_ex = AcceptEx;
    LPFN_GETACCEPTEXSOCKADDRS get_sockaddrs = GetAcceptExSockaddrs;
    if (!use_exports) {
        accept_ex = (LPFN_ACCEPTEX)get_extension(s, accept_guid);
        get_sockaddrs = (LPFN_GETACCEPTEXSOCKADDRS)get_extension(s, sockaddrs_guid);
    }
    for (;;) {
        SOCKET client = WSASocketW(AF_INET, SOCK_STREAM, IPPROTO_TCP, NULL, 0, WSA_FLAG_OVERLAPPED);
        char buffer[2 * (sizeof(struct sockaddr_in) + 16)], local_ip[64], remote_ip[64];
        OVERLAPPED overlapped = { 0 };
        /* AcceptEx requires 16 bytes more than the size of an address. */
        DWORD transferred, entry_size = sizeof(struct sockaddr_in) + 16;
        if (!accept_ex(s, client, buffer, 0, entry_size, entry_size, &transferred, &overlapped)
            && WSAGetLastError() != WSA_IO_PENDING) {
            printf("AcceptEx: %d\n", WSAGetLastError());
            return 1;
        }
        wait_for_completion();
        setsockopt(client, SOL_SOCKET, SO_UPDATE_ACCEPT_CONTEXT, (char *)&s, sizeof s);
        struct sockaddr *local, *remote;
        int local_length, remote_length;
        get_sockaddrs(buffer, 0, entry_size, entry_size, &local, &local_length, &remote,
                      &remote_length);
        format_ip(local, local_ip);
        format_ip(remote, remote_ip);
        /* getpeername must report the same address as GetAcceptExSockaddrs. */
        length = sizeof address;
        getpeername(client, (void *)&address, &length);
        format_ip((void *)&address, ip);
        snprintf(reply, sizeof reply, "server address %s, client address %s%s\n", local_ip,
                 remote_ip, strcmp(ip, remote_ip) ? ", getpeername differs" : "");
        send(client, reply, (int)strlen(reply), 0);
        closesocket(client);
    }
}

static int connect_to_server(int port)
{
    SOCKET s = overlapped_socket();
    struct sockaddr_in wildcard = { .sin_family = AF_INET }, to = wildcard;
    to.sin_port = htons((u_short)port);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    GUID guid = WSAID_CONNECTEX;
    LPFN_CONNECTEX connect_ex = (LPFN_CONNECTEX)get_extension(s, guid);
    OVERLAPPED connect_overlapped = { 0 }, receive_overlapped = { 0 };
    char ip[64], reply[200] = "";
    int length = sizeof to;
    if (bind(s, (void *)&wildcard, sizeof wildcard)) {
        printf("bind: %d\n", WSAGetLastError());
        return 1;
    }
    if (!connect_ex(s, (void *)&to, sizeof to, NULL, 0, NULL, &connect_overlapped)
        && WSAGetLastError() != WSA_IO_PENDING) {
        printf("ConnectEx: %d\n", WSAGetLastError());
        return 1;
    }
    wait_for_completion();
    setsockopt(s, SOL_SOCKET, SO_UPDATE_CONNECT_CONTEXT, NULL, 0);
    getpeername(s, (void *)&to, &length);
    format_ip((void *)&to, ip);
    printf("connected to %s\n", ip);
    WSABUF buffer = { sizeof reply - 1, reply };
    DWORD flags = 0;
    if (WSARecv(s, &buffer, 1, NULL, &flags, &receive_overlapped, NULL)
        && WSAGetLastError() != WSA_IO_PENDING)
        return 1;
    reply[wait_for_completion()] = 0;
    printf("%s", reply);
    return 0;
}

/* To end the server, the test writes a line to standard input or closes standard input. */
static DWORD WINAPI exit_on_input(void *unused)
{
    char line[16];
    (void)unused;
    (void)!fgets(line, sizeof line, stdin);
    ExitProcess(0);
}

int main(int argc, char **argv)
{
    WSADATA data;
    if (argc < 3) return 2;
    setvbuf(stdout, NULL, _IONBF, 0);
    WSAStartup(MAKEWORD(2, 2), &data);
    completion_port = CreateIoCompletionPort(INVALID_HANDLE_VALUE, NULL, 0, 1);
    if (strcmp(argv[1], "connect") != 0) {
        CreateThread(NULL, 0, exit_on_input, NULL, 0, NULL);
        return serve(atoi(argv[2]), strcmp(argv[1], "exports") == 0);
    }
    return connect_to_server(atoi(argv[2]));
}
