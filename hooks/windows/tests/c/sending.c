/* sending.exe PORT DLL HOST: row 24, datagrams with a source address in a control message.
 *
 * The program patches the system's WSASendMsg before it loads the hook layer. The patched function
 * prints the destination and the source that the hook layer passes to the system. It does not send
 * the datagram: Wine ignores control messages, so under Wine a receiver would not see this source.
 */
#include <winsock2.h>
#include <ws2tcpip.h>
#include <mswsock.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef DWORD(WINAPI *hook_entry)(void *);

static const char *format_ip(struct in_addr in)
{
    static char out[2][64];
    static int index;
    index = !index;
    return inet_ntop(AF_INET, &in, out[index], sizeof out[index]);
}

/* Returns the packet information of a message, or NULL. */
static struct in_pktinfo *packet_info(WSAMSG *message)
{
    WSACMSGHDR *header = (void *)message->Control.buf;
    return header && message->Control.len >= sizeof *header ? (void *)(header + 1) : NULL;
}

/* Replaces the WSASendMsg of the system. */
static int WSAAPI print_message(SOCKET s, WSAMSG *message, DWORD flags, DWORD *sent,
                                WSAOVERLAPPED *overlapped,
                                LPWSAOVERLAPPED_COMPLETION_ROUTINE routine)
{
    struct sockaddr_in *to = (void *)message->name;
    struct in_pktinfo *info = packet_info(message);
    (void)s, (void)flags, (void)overlapped, (void)routine;
    printf(" to %s", format_ip(to->sin_addr));
    printf(" from %s\n", info ? format_ip(info->ipi_addr) : "none");
    *sent = 1;
    WSASetLastError(4242);
    return 0;
}

/* Writes a jump to `replacement` over the start of a function. */
static void patch_function(void *function, void *replacement)
{
    unsigned char jump[12] = { 0x48, 0xb8, [10] = 0xff, 0xe0 }; /* mov rax, replacement; jmp rax */
    DWORD old_protection;
    memcpy(jump + 2, &replacement, sizeof replacement);
    if (!VirtualProtect(function, sizeof jump, PAGE_EXECUTE_READWRITE, &old_protection)) exit(4);
    memcpy(function, jump, sizeof jump);
}

static int send_from(SOCKET s, const char *to, const char *source, int port)
{
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons((u_short)port) };
    char control[WSA_CMSG_SPACE(sizeof(struct in_pktinfo))] = { 0 };
    char original_control[sizeof control];
    WSABUF data = { 1, "x" };
    WSAMSG message = { (void *)&address, sizeof address, &data, 1, { 0, NULL }, 0 };
    DWORD sent = 0;
    inet_pton(AF_INET, to, &address.sin_addr);
    if (*source) {
        WSACMSGHDR *header = (void *)control;
        header->cmsg_len = WSA_CMSG_LEN(sizeof(struct in_pktinfo));
        header->cmsg_level = IPPROTO_IP;
        header->cmsg_type = IP_PKTINFO;
        message.Control.buf = control;
        message.Control.len = sizeof control;
        inet_pton(AF_INET, source, &packet_info(&message)->ipi_addr);
    }
    memcpy(original_control, control, sizeof control);
    printf("%s from %s:", to, *source ? source : "none");
    int result = WSASendMsg(s, &message, 0, &sent, NULL, NULL);
    if (result || sent != 1 || WSAGetLastError() != 4242) printf("failed: %d\n", WSAGetLastError());
    /* The hook layer must not change the program's own message. */
    if (memcmp(original_control, control, sizeof control))
        printf("the program's message was changed\n");
    return result;
}

int main(int argc, char **argv)
{
    WSADATA data;
    struct sockaddr_in local = { .sin_family = AF_INET };
    BOOL on = TRUE;
    if (argc < 4) return 2;
    int port = atoi(argv[1]);
    const char *host = argv[3];
    WSAStartup(MAKEWORD(2, 2), &data);
    HMODULE winsock = GetModuleHandleA("ws2_32.dll");
    patch_function((void *)GetProcAddress(winsock, "WSASendMsg"), print_message);
    HMODULE dll = LoadLibraryA(argv[2]);
    hook_entry install = (hook_entry)(void *)GetProcAddress(dll, "vipool_hook_install");
    printf("install returned %lu\n", install(NULL));
    /* `service` is a service of the session. `s` has SO_REUSEADDR, so the hook layer leaves it
     * bound to the wildcard address (row 26). */
    SOCKET service = socket(AF_INET, SOCK_DGRAM, 0), s = socket(AF_INET, SOCK_DGRAM, 0);
    local.sin_port = htons((u_short)port);
    local.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    bind(service, (void *)&local, sizeof local);
    local.sin_port = htons((u_short)(port + 1));
    local.sin_addr.s_addr = 0;
    setsockopt(s, SOL_SOCKET, SO_REUSEADDR, (char *)&on, sizeof on);
    bind(s, (void *)&local, sizeof local);
    send_from(s, "192.0.2.1", "", port);
    send_from(s, "192.0.2.1", host, port);
    send_from(s, "192.0.2.1", "0.0.0.0", port);
    send_from(s, "192.0.2.1", "198.51.100.7", port);
    send_from(s, "127.0.0.1", "127.0.0.1", port);
    send_from(s, "127.0.0.1", "127.0.0.1", port + 7);
    return 0;
}
