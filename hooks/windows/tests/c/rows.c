/* Runs a row of docs/socket-matrix.md: rows.exe ROW PORT V L HOST
 *
 * A ROW of three digits is a variant of a row of the matrix: 112 is row 11b, 161 is a variant of
 * row 16, 251 of row 25, 402 of row 40, and 461 and 462 of row 46.
 *
 * Most lines of the output contain the name of a call and its result: "ok", the value of
 * WSAGetLastError, or an address. The program prints the words V, L and HOST instead of these
 * addresses. The program does not depend on the hook layer. Without the hook layer, it prints the
 * results of Winsock itself. A row that listens for other programs prints "ready" and waits for a
 * line on standard input. */
#include <winsock2.h>
#include <ws2tcpip.h>
#include <mswsock.h>
#include <iphlpapi.h>
#include <af_irda.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int port;
static const char *virtual_ip, *loopback_ip, *host_ip;

/* The value of the last error before a call that the row tests. After a successful call, the last
 * error must be the same with and without the hook layer. */
#define LAST_ERROR_SENTINEL 4242

static const char *address_label(const char *ip)
{
    if (strcmp(ip, virtual_ip) == 0) return "V";
    if (strcmp(ip, loopback_ip) == 0) return "L";
    if (strcmp(ip, host_ip) == 0) return "HOST";
    if (strncmp(ip, "::ffff:", 7) == 0) {
        static char mapped[80];
        snprintf(mapped, sizeof mapped, "::ffff:%s", address_label(ip + 7));
        return mapped;
    }
    return ip;
}

/* Formats an address. The function writes "port" for the port PORT, "0" for 0, and "other" for
 * any other port. */
static const char *format_address(const struct sockaddr_storage *address)
{
    static char text[128];
    char ip[64] = "?";
    int address_port = 0;
    if (address->ss_family == AF_INET) {
        const struct sockaddr_in *in = (const void *)address;
        inet_ntop(AF_INET, (void *)&in->sin_addr, ip, sizeof ip);
        address_port = ntohs(in->sin_port);
    } else if (address->ss_family == AF_INET6) {
        const struct sockaddr_in6 *in = (const void *)address;
        inet_ntop(AF_INET6, (void *)&in->sin6_addr, ip, sizeof ip);
        address_port = ntohs(in->sin6_port);
    }
    snprintf(text, sizeof text, "%s %s", address_label(ip),
             address_port == port ? "port"
             : address_port == 0  ? "0"
                                  : "other");
    return text;
}

static struct sockaddr_storage make_address(const char *ip, int address_port, int *length)
{
    struct sockaddr_storage address;
    memset(&address, 0, sizeof address);
    if (strchr(ip, ':')) {
        struct sockaddr_in6 *in = (void *)&address;
        in->sin6_family = AF_INET6;
        in->sin6_port = htons((u_short)address_port);
        inet_pton(AF_INET6, ip, &in->sin6_addr);
        *length = sizeof *in;
    } else {
        struct sockaddr_in *in = (void *)&address;
        in->sin_family = AF_INET;
        in->sin_port = htons((u_short)address_port);
        inet_pton(AF_INET, ip, &in->sin_addr);
        *length = sizeof *in;
    }
    return address;
}

static void print_result(const char *label, int failed)
{
    if (failed) printf("%s: %d\n", label, WSAGetLastError());
    else printf("%s: ok\n", label);
    WSASetLastError(LAST_ERROR_SENTINEL);
}

static SOCKET tcp_socket(void) { return socket(AF_INET, SOCK_STREAM, 0); }
static SOCKET udp_socket(void) { return socket(AF_INET, SOCK_DGRAM, 0); }

static SOCKET tcp6_socket(int v6only)
{
    SOCKET s = socket(AF_INET6, SOCK_STREAM, 0);
    DWORD value = (DWORD)v6only;
    setsockopt(s, IPPROTO_IPV6, IPV6_V6ONLY, (char *)&value, sizeof value);
    return s;
}

static int try_bind(SOCKET s, const char *ip, int address_port)
{
    int length;
    struct sockaddr_storage address = make_address(ip, address_port, &length);
    WSASetLastError(LAST_ERROR_SENTINEL);
    int result = bind(s, (void *)&address, length);
    print_result("bind", result);
    return result;
}

static int try_connect(SOCKET s, const char *ip, int address_port)
{
    int length;
    struct sockaddr_storage address = make_address(ip, address_port, &length);
    WSASetLastError(LAST_ERROR_SENTINEL);
    int result = connect(s, (void *)&address, length);
    print_result("connect", result);
    return result;
}

static void print_local_address(const char *label, SOCKET s)
{
    struct sockaddr_storage address;
    int length = sizeof address;
    WSASetLastError(LAST_ERROR_SENTINEL);
    if (getsockname(s, (void *)&address, &length)) print_result(label, 1);
    else printf("%s: %s\n", label, format_address(&address));
}

static void print_peer_address(const char *label, SOCKET s)
{
    struct sockaddr_storage address;
    int length = sizeof address;
    WSASetLastError(LAST_ERROR_SENTINEL);
    if (getpeername(s, (void *)&address, &length)) print_result(label, 1);
    else printf("%s: %s\n", label, format_address(&address));
}

static SOCKET try_accept(SOCKET s)
{
    struct sockaddr_storage address;
    int length = sizeof address;
    SOCKET client = accept(s, (void *)&address, &length);
    if (client == INVALID_SOCKET) print_result("accept", 1);
    else printf("accept: %s\n", format_address(&address));
    return client;
}

static void wait_for_input(void)
{
    char line[16];
    printf("ready\n");
    fflush(stdout);
    if (!fgets(line, sizeof line, stdin)) exit(0);
}

/* Listens on `s`, connects a new socket to `destination`, and prints the addresses of the accepted
 * socket and of the new socket. */
static void print_both_ends(SOCKET s, const char *destination)
{
    SOCKET client = strchr(destination, ':') ? tcp6_socket(0) : tcp_socket();
    listen(s, 5);
    if (try_connect(client, destination, port)) return;
    SOCKET accepted = try_accept(s);
    print_local_address("accepted name", accepted);
    print_peer_address("accepted peer", accepted);
    print_local_address("name", client);
    print_peer_address("peer", client);
}

static void *get_extension(SOCKET s, GUID guid)
{
    void *function = NULL;
    DWORD transferred;
    WSAIoctl(s, SIO_GET_EXTENSION_FUNCTION_POINTER, &guid, sizeof guid, &function, sizeof function,
             &transferred, NULL, NULL);
    return function;
}

/* Calls ConnectEx and waits for its completion. Returns 0 on success. */
static int connect_ex(SOCKET s, const char *ip, int address_port)
{
    GUID guid = WSAID_CONNECTEX;
    LPFN_CONNECTEX connect_function = (LPFN_CONNECTEX)get_extension(s, guid);
    OVERLAPPED overlapped = { 0 };
    overlapped.hEvent = CreateEvent(NULL, TRUE, FALSE, NULL);
    int length;
    struct sockaddr_storage address = make_address(ip, address_port, &length);
    DWORD sent = 0, flags;
    BOOL succeeded = connect_function(s, (void *)&address, length, NULL, 0, &sent, &overlapped);
    if (!succeeded && WSAGetLastError() == WSA_IO_PENDING)
        succeeded = WSAGetOverlappedResult(s, &overlapped, &sent, TRUE, &flags);
    print_result("ConnectEx", !succeeded);
    if (succeeded) setsockopt(s, SOL_SOCKET, SO_UPDATE_CONNECT_CONTEXT, NULL, 0);
    return !succeeded;
}

static void print_addresses(const char *label, const struct addrinfo *entry)
{
    for (; entry; entry = entry->ai_next) {
        struct sockaddr_storage address = { 0 };
        memcpy(&address, entry->ai_addr, entry->ai_addrlen);
        printf("%s: %s\n", label, format_address(&address));
    }
}

/* Prints the socket type and the address of each entry. */
static void print_entries(const char *label, const struct addrinfo *entry)
{
    for (; entry; entry = entry->ai_next) {
        struct sockaddr_storage address = { 0 };
        memcpy(&address, entry->ai_addr, entry->ai_addrlen);
        printf("%s: type %d %s\n", label, entry->ai_socktype, format_address(&address));
    }
}

static void print_host_name(const char *label, const char *ip, int flags)
{
    int length;
    struct sockaddr_storage address = make_address(ip, port, &length);
    char name[256] = "", host_name[256] = "", service[32] = "";
    gethostname(host_name, sizeof host_name);
    int result = getnameinfo((void *)&address, length, name, sizeof name, service, sizeof service,
                        flags | NI_NUMERICSERV);
    if (result) printf("%s: %d\n", label, result);
    else
        printf("%s: %s %s\n", label,
               _stricmp(name, host_name) == 0 ? "own name" : address_label(name),
               atoi(service) == port ? "port" : service);
}

static int run_row(int row)
{
    SOCKET s, client;
    int length;
    struct sockaddr_storage address;
    switch (row) {
    case 1:
        s = tcp_socket();
        if (try_bind(s, "127.0.0.1", port)) return 1;
        print_local_address("name", s);
        listen(s, 5);
        wait_for_input();
        return 0;
    case 3:
        s = tcp_socket();
        if (try_bind(s, "0.0.0.0", port)) return 1;
        print_local_address("name", s);
        listen(s, 5);
        wait_for_input();
        return 0;
    case 5:
        s = tcp_socket();
        try_bind(s, host_ip, port);
        print_local_address("name", s);
        try_bind(tcp_socket(), "10.77.0.14", port);
        try_bind(tcp_socket(), "127.77.0.9", port);
        try_bind(tcp_socket(), "192.0.2.1", port);
        return 0;
    case 6:
        s = tcp_socket();
        try_bind(s, "0.0.0.0", port);
        print_local_address("name", s);
        return 0;
    case 9:
        s = tcp_socket();
        try_connect(s, "127.0.0.1", port);
        try_connect(s, host_ip, port);
        return 0;
    case 10:
        s = tcp_socket();
        try_bind(s, host_ip, port);
        listen(s, 5);
        client = tcp_socket();
        try_bind(client, "127.0.0.1", 0);
        print_local_address("name", client);
        try_connect(client, "127.0.0.1", port);
        print_local_address("name", client);
        return 0;
    case 11: /* connects to a listener of another program */
        client = tcp_socket();
        if (try_connect(client, "127.0.0.1", port)) return 1;
        print_local_address("name", client);
        print_peer_address("peer", client);
        return 0;
    case 12:
        s = tcp_socket();
        try_bind(s, "127.0.0.1", port);
        print_both_ends(s, "0.0.0.0");
        return 0;
    case 13:
        s = udp_socket();
        try_connect(s, host_ip, port);
        address = make_address("0.0.0.0", 0, &length);
        address.ss_family = AF_UNSPEC;
        print_result("disconnect", connect(s, (void *)&address, length));
        print_peer_address("peer", s);
        return 0;
    case 14: {
        u_long on = 1;
        s = tcp_socket();
        try_bind(s, "127.0.0.1", port);
        listen(s, 5);
        client = tcp_socket();
        ioctlsocket(client, FIONBIO, &on);
        try_connect(client, "127.0.0.1", port);
        fd_set writable;
        FD_ZERO(&writable);
        FD_SET(client, &writable);
        struct timeval timeout = { 10, 0 };
        printf("writable: %d\n", select(0, NULL, &writable, NULL, &timeout));
        print_peer_address("peer", client);
        return 0;
    }
    case 112: /* row 11b: a datagram to a service of this session */
        s = udp_socket();
        try_connect(s, "127.0.0.1", port);
        print_peer_address("peer", s);
        print_result("send", send(s, "x", 1, 0) != 1);
        return 0;
    case 15:
        s = tcp_socket();
        address = make_address("0.0.0.0", port, &length);
        address.ss_family = AF_UNSPEC;
        print_result("bind", bind(s, (void *)&address, length));
        return 0;
    case 16: {
        char long_name[129] = { 0 };
        address = make_address("127.0.0.1", port, &length);
        memcpy(long_name, &address, (size_t)length);
        print_result("null", bind(tcp_socket(), NULL, 16));
        print_result("short", bind(tcp_socket(), (void *)&address, 15));
        print_result("none", bind(tcp_socket(), (void *)&address, 0));
        print_result("negative", bind(tcp_socket(), (void *)&address, -1));
        print_result("128", bind(tcp_socket(), (void *)long_name, 128));
        print_result("connect short", connect(tcp_socket(), (void *)&address, 8));
        print_result("no socket", bind((SOCKET)12345678, (void *)&address, 16));
        return 0;
    }
    case 161: /* Wine 8 crashes on these calls, even without the hook layer */
        print_result("bad", bind(tcp_socket(), (void *)16, 16));
        print_result("connect null", connect(tcp_socket(), NULL, 16));
        print_result("connect bad", connect(tcp_socket(), (void *)16, 16));
        print_result("null length", getsockname(tcp_socket(), (void *)&address, NULL));
        print_result("sendto bad", sendto(udp_socket(), "x", 1, 0, (void *)16, 16));
        return 0;
    case 17:
        s = tcp_socket();
        try_bind(s, "127.0.0.1", port);
        memset(&address, 0x55, sizeof address);
        length = 4;
        print_result("getsockname", getsockname(s, (void *)&address, &length));
        printf("fifth byte %x\n", ((unsigned char *)&address)[4]);
        length = sizeof address;
        print_result("null name", getsockname(s, NULL, &length));
        return 0;
    case 18:
        print_local_address("tcp", tcp_socket());
        print_local_address("udp", udp_socket());
        print_peer_address("peer", tcp_socket());
        return 0;
    case 19:
        s = tcp_socket();
        try_bind(s, "127.0.0.1", port);
        print_both_ends(s, "127.0.0.1");
        closesocket(s);
        s = tcp_socket();
        try_bind(s, "0.0.0.0", port + 1);
        port++;
        print_both_ends(s, "127.0.0.1");
        return 0;
    case 21:
        s = tcp_socket();
        print_result("listen", listen(s, 5));
        return 0;
    case 22:
        s = udp_socket();
        address = make_address(host_ip, port, &length);
        WSASetLastError(LAST_ERROR_SENTINEL);
        print_result("sendto", sendto(s, "x", 1, 0, (void *)&address, length) != 1);
        print_local_address("name", s);
        try_bind(s, "0.0.0.0", port);
        return 0;
    case 23:
        s = tcp_socket();
        try_bind(s, "127.0.0.1", 0);
        print_local_address("name", s);
        return 0;
    case 24: { /* calls the WSASendMsg that WSAIoctl returns */
        GUID guid = WSAID_WSASENDMSG;
        DWORD sent = 0;
        char data[8], control[WSA_CMSG_SPACE(sizeof(struct in_pktinfo))] = { 0 };
        WSABUF buffer = { 1, "x" };
        WSACMSGHDR *header = (void *)control;
        s = udp_socket();
        try_bind(s, "127.0.0.1", port);
        address = make_address("127.0.0.1", port, &length);
        header->cmsg_len = WSA_CMSG_LEN(sizeof(struct in_pktinfo));
        header->cmsg_level = IPPROTO_IP;
        header->cmsg_type = IP_PKTINFO;
        inet_pton(AF_INET, "127.0.0.1", header + 1);
        WSAMSG message = { (void *)&address, length, &buffer, 1, { sizeof control, control }, 0 };
        LPFN_WSASENDMSG send_message = (LPFN_WSASENDMSG)get_extension(s, guid);
        print_result("WSASendMsg", send_message(s, &message, 0, &sent, NULL, NULL));
        length = sizeof address;
        print_result("recvfrom", recvfrom(s, data, sizeof data, 0, (void *)&address, &length) != 1);
        printf("from %s\n", format_address(&address));
        return 0;
    }
    case 25: { /* the test sends five datagrams, and one more after the second "ready" */
        DWORD on = 1, transferred, flags = 0;
        GUID guid = WSAID_WSARECVMSG;
        char data[8], control[128];
        WSABUF buffer = { sizeof data, data };
        OVERLAPPED overlapped = { 0 };
        DWORD timeout = 20000;
        s = udp_socket();
        setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, (char *)&timeout, sizeof timeout);
        try_bind(s, "127.0.0.1", port);
        setsockopt(s, IPPROTO_IP, IP_PKTINFO, (char *)&on, sizeof on);
        LPFN_WSARECVMSG receive_message = (LPFN_WSARECVMSG)get_extension(s, guid);
        wait_for_input();
        length = sizeof address;
        print_result("recvfrom", recvfrom(s, data, sizeof data, 0, (void *)&address, &length) != 1);
        printf("from %s\n", format_address(&address));
        length = sizeof address;
        print_result("WSARecvFrom", WSARecvFrom(s, &buffer, 1, &transferred, &flags,
                                                (void *)&address, &length, NULL, NULL));
        printf("from %s\n", format_address(&address));
        WSAMSG message = {
            (void *)&address, sizeof address, &buffer, 1, { sizeof control, control }, 0
        };
        print_result("WSARecvMsg", receive_message(s, &message, &transferred, NULL, NULL));
        struct in_pktinfo *info = (void *)((WSACMSGHDR *)control + 1);
        printf("from %s", format_address(&address));
        printf(", to %s\n", message.Control.len > sizeof(WSACMSGHDR)
                                ? address_label(inet_ntoa(info->ipi_addr))
                                : "?");
        overlapped.hEvent = CreateEvent(NULL, TRUE, FALSE, NULL);
        length = sizeof address;
        /* Wait until the fourth datagram has arrived. */
        fd_set arrived;
        FD_ZERO(&arrived);
        FD_SET(s, &arrived);
        select(0, &arrived, NULL, NULL, NULL);
        print_result(
            "overlapped, at once",
            WSARecvFrom(s, &buffer, 1, NULL, &flags, (void *)&address, &length, &overlapped, NULL));
        printf("from %s\n", format_address(&address));
        ResetEvent(overlapped.hEvent);
        select(0, &arrived, NULL, NULL, NULL); /* until the fifth datagram has arrived */
        message.namelen = sizeof address;
        message.Control.len = sizeof control;
        print_result("overlapped WSARecvMsg, at once",
                     receive_message(s, &message, &transferred, &overlapped, NULL));
        printf("from %s", format_address(&address));
        printf(", to %s\n", address_label(inet_ntoa(info->ipi_addr)));
        ResetEvent(overlapped.hEvent);
        length = sizeof address;
        print_result("overlapped, later", WSARecvFrom(s, &buffer, 1, NULL, &flags, (void *)&address,
                                                      &length, &overlapped, NULL));
        wait_for_input();
        WaitForSingleObject(overlapped.hEvent, timeout);
        print_result("completion",
                     !WSAGetOverlappedResult(s, &overlapped, &transferred, FALSE, &flags));
        printf("from %s\n", format_address(&address));
        return 0;
    }
    case 251: { /* on a stream socket, the system does not write the source */
        char data[8];
        DWORD transferred, flags = 0;
        WSABUF buffer = { 1, data };
        s = tcp_socket();
        try_bind(s, "127.0.0.1", port);
        listen(s, 5);
        client = tcp_socket();
        try_connect(client, "127.0.0.1", port);
        SOCKET accepted = accept(s, NULL, NULL);
        print_result("send", send(accepted, "xy", 2, 0) != 2);
        address = make_address(loopback_ip, port, &length);
        print_result("recvfrom", recvfrom(client, data, 1, 0, (void *)&address, &length) != 1);
        printf("from %s\n", format_address(&address));
        address = make_address(loopback_ip, port, &length);
        print_result("WSARecvFrom", WSARecvFrom(client, &buffer, 1, &transferred, &flags,
                                                (void *)&address, &length, NULL, NULL));
        printf("from %s\n", format_address(&address));
        return 0;
    }
    case 26: {
        BOOL on = TRUE;
        s = udp_socket();
        setsockopt(s, SOL_SOCKET, SO_REUSEADDR, (char *)&on, sizeof on);
        try_bind(s, "0.0.0.0", port);
        print_local_address("shared", s);
        s = udp_socket();
        try_bind(s, "0.0.0.0", 5353);
        print_local_address("mdns", s);
        s = udp_socket();
        try_bind(s, "0.0.0.0", port + 1);
        port++;
        print_local_address("unshared", s);
        return 0;
    }
    case 27: {
        struct in_addr in = { 0 };
        int size = sizeof in;
        s = udp_socket();
        address = make_address("239.7.7.7", port, &length);
        sendto(s, "x", 1, 0, (void *)&address, length);
        getsockopt(s, IPPROTO_IP, IP_MULTICAST_IF, (char *)&in, &size);
        printf("interface: %s\n", address_label(inet_ntoa(in)));
        s = udp_socket();
        inet_pton(AF_INET, host_ip, &in);
        setsockopt(s, IPPROTO_IP, IP_MULTICAST_IF, (char *)&in, sizeof in);
        sendto(s, "x", 1, 0, (void *)&address, length);
        getsockopt(s, IPPROTO_IP, IP_MULTICAST_IF, (char *)&in, &size);
        printf("set by program: %s\n", address_label(inet_ntoa(in)));
        return 0;
    }
    case 29: /* a dual-stack listener that blocks the port for other programs */
        s = tcp6_socket(0);
        try_bind(s, "::", port);
        listen(s, 5);
        wait_for_input();
        return 0;
    case 30:
        s = tcp6_socket(0);
        try_bind(s, "::", port);
        print_local_address("name", s);
        listen(s, 5);
        print_both_ends(s, "::1");
        return 0;
    case 31:
        s = tcp6_socket(1);
        try_bind(s, "::", port);
        print_local_address("name", s);
        return 0;
    case 32:
        s = tcp6_socket(1);
        try_bind(s, "::1", port);
        print_local_address("name", s);
        print_both_ends(s, "::1");
        client = tcp6_socket(1); /* a client that uses ConnectEx on a bound socket */
        try_bind(client, "::", 0);
        connect_ex(client, "::1", port);
        print_local_address("name", client);
        print_peer_address("peer", client);
        return 0;
    case 33:
        s = tcp6_socket(0);
        try_bind(s, "::ffff:127.0.0.1", port);
        print_local_address("name", s);
        print_both_ends(s, "::ffff:127.0.0.1");
        return 0;
    case 34: { /* sockets that are neither IPv4 nor IPv6 */
        static const struct { int family, type; } families[] = {
            { AF_UNIX, SOCK_STREAM }, { AF_IRDA, SOCK_STREAM }, { AF_BTH, SOCK_STREAM }
        };
        for (int i = 0; i < 3; i++) {
            s = socket(families[i].family, families[i].type, 0);
            print_result("socket", s == INVALID_SOCKET);
            address = make_address("127.0.0.1", port, &length);
            address.ss_family = (ADDRESS_FAMILY)families[i].family;
            print_result("bind", bind(s, (void *)&address, length));
            print_result("connect", connect(s, (void *)&address, length));
        }
        return 0;
    }
    case 35: { /* the address of a socket from WSADuplicateSocket is rewritten too */
        WSAPROTOCOL_INFOW info;
        s = tcp_socket();
        try_bind(s, "127.0.0.1", port);
        print_result("duplicate", WSADuplicateSocketW(s, GetCurrentProcessId(), &info));
        client = WSASocketW(AF_INET, SOCK_STREAM, 0, &info, 0, 0);
        closesocket(s);
        print_local_address("name", client);
        return 0;
    }
    case 36:
        for (int i = 0; i < 200; i++) {
            s = tcp_socket();
            address = make_address("0.0.0.0", 0, &length);
            if (bind(s, (void *)&address, length)) print_result("bind", 1);
            closesocket(s);
        }
        print_local_address("unbound", tcp_socket());
        return 0;
    case 38: {
        BOOL on = TRUE;
        int size = sizeof on;
        s = tcp_socket();
        setsockopt(s, SOL_SOCKET, SO_EXCLUSIVEADDRUSE, (char *)&on, sizeof on);
        try_bind(s, "127.0.0.1", port);
        on = FALSE;
        getsockopt(s, SOL_SOCKET, SO_EXCLUSIVEADDRUSE, (char *)&on, &size);
        printf("exclusive: %d\n", on != 0);
        return 0;
    }
    case 39: {
        struct addrinfo hints = { .ai_flags = AI_PASSIVE, .ai_socktype = SOCK_STREAM }, *results;
        char service[8];
        snprintf(service, sizeof service, "%d", port);
        if (getaddrinfo(NULL, service, &hints, &results) == 0) print_addresses("passive", results);
        return 0;
    }
    case 40: {
        struct addrinfo hints = { .ai_family = AF_INET, .ai_socktype = SOCK_STREAM }, *results;
        char host_name[256];
        gethostname(host_name, sizeof host_name);
        int result = getaddrinfo(host_name, NULL, &hints, &results);
        if (result) printf("getaddrinfo: %d\n", result);
        else print_addresses("getaddrinfo", results);
        WCHAR host_name_w[256];
        GetHostNameW(host_name_w, 256);
        ADDRINFOW hints_w = { .ai_family = AF_INET, .ai_socktype = SOCK_STREAM }, *results_w;
        result = GetAddrInfoW(host_name_w, NULL, &hints_w, &results_w);
        if (result) printf("GetAddrInfoW: %d\n", result);
        else for (; results_w; results_w = results_w->ai_next) {
            memcpy(&address, results_w->ai_addr, results_w->ai_addrlen);
            printf("GetAddrInfoW: %s\n", format_address(&address));
        }
        for (int is_overlapped = 0; is_overlapped < 2; is_overlapped++) {
            ADDRINFOEXW hints_ex = { .ai_family = AF_INET, .ai_socktype = SOCK_STREAM },
                        *results_ex = NULL;
            OVERLAPPED overlapped = { .hEvent = CreateEvent(NULL, TRUE, FALSE, NULL) };
            HANDLE cancel;
            result = GetAddrInfoExW(host_name_w, NULL, NS_DNS, NULL, &hints_ex, &results_ex, NULL,
                                    is_overlapped ? &overlapped : NULL, NULL,
                                    is_overlapped ? &cancel : NULL);
            if (result == WSA_IO_PENDING) {
                WaitForSingleObject(overlapped.hEvent, 20000);
                /* The headers of mingw do not declare this function. */
                FARPROC get_result = GetProcAddress(GetModuleHandleA("ws2_32.dll"),
                                           "GetAddrInfoExOverlappedResult");
                result = ((int(WSAAPI *)(OVERLAPPED *))(void *)get_result)(&overlapped);
            }
            if (result) printf("GetAddrInfoExW: %d\n", result);
            else for (; results_ex; results_ex = (void *)results_ex->ai_next) {
                memcpy(&address, results_ex->ai_addr, results_ex->ai_addrlen);
                printf("GetAddrInfoExW%s: %s\n", is_overlapped ? ", overlapped" : "",
                       format_address(&address));
            }
        }
        struct hostent *entry = gethostbyname(host_name);
        if (!entry) print_result("gethostbyname", 1);
        for (int i = 0; entry && entry->h_addr_list[i]; i++)
            printf("gethostbyname: %s\n",
                   address_label(inet_ntoa(*(struct in_addr *)entry->h_addr_list[i])));
        return 0;
    }
    case 402: { /* without hints, the list has entries of several families and socket types */
        char host_name[256];
        WCHAR host_name_w[256];
        struct addrinfo *results;
        ADDRINFOW *results_w;
        gethostname(host_name, sizeof host_name);
        GetHostNameW(host_name_w, 256);
        for (int i = 0; i < 50; i++) {
            SetLastError(LAST_ERROR_SENTINEL);
            if (getaddrinfo(host_name, NULL, NULL, &results)) print_result("getaddrinfo", 1);
            DWORD error = GetLastError();
            if (i == 0) {
                print_entries("getaddrinfo", results);
                printf("last error: %lu\n", error);
            }
            if (!HeapValidate(GetProcessHeap(), 0, NULL)) printf("invalid heap\n");
            freeaddrinfo(results);
            if (GetAddrInfoW(host_name_w, NULL, NULL, &results_w)) print_result("GetAddrInfoW", 1);
            /* The two structures differ only in the type of the canonical name. */
            if (i == 0) print_entries("GetAddrInfoW", (const struct addrinfo *)results_w);
            FreeAddrInfoW(results_w);
            if (!HeapValidate(GetProcessHeap(), 0, NULL)) printf("invalid heap\n");
        }
        return 0;
    }
    case 41: {
        struct addrinfo hints = { .ai_family = AF_INET, .ai_socktype = SOCK_STREAM }, *results;
        int result = getaddrinfo("localhost", NULL, &hints, &results);
        if (result) printf("localhost: %d\n", result);
        else print_addresses("localhost", results);
        return 0;
    }
    case 42: {
        print_host_name("V", virtual_ip, 0);
        print_host_name("L", loopback_ip, 0);
        print_host_name("V numeric", virtual_ip, NI_NUMERICHOST);
        print_host_name("L numeric", loopback_ip, NI_NUMERICHOST);
        struct in_addr in;
        inet_pton(AF_INET, loopback_ip, &in);
        struct hostent *entry = gethostbyaddr((char *)&in, 4, AF_INET);
        printf("gethostbyaddr L: %s\n", entry ? entry->h_name : "none");
        return 0;
    }
    case 43: {
        ULONG size = 64 * 1024;
        IP_ADAPTER_ADDRESSES *adapters = malloc(size);
        ULONG result = GetAdaptersAddresses(AF_INET, 0, NULL, adapters, &size);
        int own_count = 0, other_count = 0, loopback_count = 0;
        for (IP_ADAPTER_ADDRESSES *adapter = result ? NULL : adapters; adapter;
             adapter = adapter->Next)
            for (IP_ADAPTER_UNICAST_ADDRESS *unicast = adapter->FirstUnicastAddress; unicast;
                 unicast = unicast->Next) {
                char ip[64];
                struct sockaddr_in *in = (void *)unicast->Address.lpSockaddr;
                inet_ntop(AF_INET, &in->sin_addr, ip, sizeof ip);
                if (strcmp(ip, virtual_ip) == 0) own_count++;
                else if (strncmp(ip, "10.77.0.", 8) == 0 && atoi(ip + 8) > 10) other_count++;
                else if (strcmp(ip, "127.0.0.1") == 0) loopback_count++;
            }
        printf("own %d others %d loopback %d\n", own_count, other_count > 0, loopback_count);
        return 0;
    }
    case 46:
        s = tcp_socket(); /* the destination is a service of this session */
        try_bind(s, "127.0.0.1", port);
        listen(s, 5);
        client = tcp_socket();
        try_bind(client, "0.0.0.0", 0);
        connect_ex(client, "127.0.0.1", port);
        print_peer_address("loopback peer", client);
        client = tcp_socket();
        try_bind(client, "0.0.0.0", 0);
        try_connect(client, "127.0.0.1", port);
        closesocket(s);
        s = tcp_socket(); /* calls without a destination on a socket with a deferred bind */
        try_bind(s, host_ip, port + 1);
        listen(s, 5);
        client = tcp_socket();
        try_bind(client, "0.0.0.0", 0);
        try_bind(client, "0.0.0.0", 0);
        print_local_address("after deferred bind", client);
        client = tcp_socket();
        try_bind(client, "0.0.0.0", 0);
        print_result("listen", listen(client, 5));
        print_local_address("listening", client);
        connect_ex(tcp_socket(), "127.0.0.1", port);
        print_local_address("never bound", tcp_socket());
        return 0;
    case 462: { /* more binds than the hook layer can defer */
        static SOCKET sockets[1500];
        int v_count = 0, wildcard_count = 0, bound_again_count = 0;
        for (int i = 0; i < 1500; i++) {
            sockets[i] = tcp_socket();
            address = make_address("0.0.0.0", 0, &length);
            if (sockets[i] == INVALID_SOCKET || bind(sockets[i], (void *)&address, length))
                print_result("bind", 1);
        }
        for (int i = 0; i < 1500; i++) {
            /* For the program, the socket is bound, whether the bind was deferred or not. */
            if (bind(sockets[i], (void *)&address, length) == 0 || WSAGetLastError() != WSAEINVAL)
                bound_again_count++;
            length = sizeof address;
            if (getsockname(sockets[i], (void *)&address, &length)) print_result("name", 1);
            v_count += strcmp(format_address(&address), "V other") == 0;
            wildcard_count += strcmp(format_address(&address), "0.0.0.0 other") == 0;
            closesocket(sockets[i]);
            address = make_address("0.0.0.0", 0, &length);
        }
        printf("V %d, 0.0.0.0 %d, bound again %d\n", v_count, wildcard_count, bound_again_count);
        return 0;
    }
    case 461: /* an external destination, on which another program listens */
        client = tcp_socket();
        try_bind(client, "0.0.0.0", 0);
        connect_ex(client, host_ip, port);
        print_local_address("bound", client);
        client = tcp_socket();
        try_connect(client, host_ip, port);
        print_local_address("unbound", client);
        return 0;
    case 48: {
        s = tcp_socket();
        try_bind(s, "0.0.0.0", port);
        listen(s, 5);
        client = tcp_socket();
        address = make_address("127.0.0.1", port, &length);
        WSASetLastError(LAST_ERROR_SENTINEL);
        print_result("WSAConnect",
                     WSAConnect(client, (void *)&address, length, NULL, NULL, NULL, NULL));
        print_local_address("name", client);
        print_peer_address("peer", client);
        length = sizeof address;
        SOCKET accepted = WSAAccept(s, (void *)&address, &length, NULL, 0);
        printf("WSAAccept: %s\n", accepted == INVALID_SOCKET ? "failed" : format_address(&address));
        return 0;
    }
    case 45: {
        s = tcp_socket();
        WSASetLastError(LAST_ERROR_SENTINEL);
        address = make_address("127.0.0.1", port, &length);
        bind(s, (void *)&address, length);
        printf("after bind: %d\n", WSAGetLastError());
        WSASetLastError(LAST_ERROR_SENTINEL);
        listen(s, 5);
        printf("after listen: %d\n", WSAGetLastError());
        client = tcp_socket();
        WSASetLastError(LAST_ERROR_SENTINEL);
        connect(client, (void *)&address, length);
        printf("after connect: %d\n", WSAGetLastError());
        WSASetLastError(LAST_ERROR_SENTINEL);
        length = sizeof address;
        accept(s, (void *)&address, &length);
        printf("after accept: %d\n", WSAGetLastError());
        WSASetLastError(LAST_ERROR_SENTINEL);
        length = sizeof address;
        getsockname(client, (void *)&address, &length);
        printf("after getsockname: %d\n", WSAGetLastError());
        WSASetLastError(LAST_ERROR_SENTINEL);
        length = sizeof address;
        getpeername(client, (void *)&address, &length);
        printf("after getpeername: %d\n", WSAGetLastError());
        return 0;
    }
    }
    return 2;
}

int main(int argc, char **argv)
{
    WSADATA data;
    if (argc < 6) return 2;
    setvbuf(stdout, NULL, _IONBF, 0);
    port = atoi(argv[2]);
    virtual_ip = argv[3];
    loopback_ip = argv[4];
    host_ip = argv[5];
    WSAStartup(MAKEWORD(2, 2), &data);
    return run_row(atoi(argv[1]));
}
