/* The rows of docs/socket-matrix.md, by number: rows.exe ROW PORT V L HOST
 *
 * Prints what the program sees, one line for each call: what was called, "ok" or the error that
 * WSAGetLastError gives, and addresses by name. Knows nothing of the hook layer: run without it,
 * it prints what Winsock does. A row that listens for others says "ready" and waits for a line on
 * standard input. */
#include <winsock2.h>
#include <ws2tcpip.h>
#include <mswsock.h>
#include <iphlpapi.h>
#include <af_irda.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int port;
static const char *v, *l, *host;

/* What the last error is before every call; a call that succeeds must not touch it more than
 * Winsock itself does. */
#define MARK 4242

static const char *name_of(const char *ip)
{
    if (strcmp(ip, v) == 0) return "V";
    if (strcmp(ip, l) == 0) return "L";
    if (strcmp(ip, host) == 0) return "HOST";
    if (strncmp(ip, "::ffff:", 7) == 0) {
        static char mapped[80];
        snprintf(mapped, sizeof mapped, "::ffff:%s", name_of(ip + 7));
        return mapped;
    }
    return ip;
}

/* An address as text: the port as "port", "0" or "other". */
static const char *text(const struct sockaddr_storage *a)
{
    static char out[128];
    char ip[64] = "?";
    int p = 0;
    if (a->ss_family == AF_INET) {
        const struct sockaddr_in *in = (const void *)a;
        inet_ntop(AF_INET, (void *)&in->sin_addr, ip, sizeof ip);
        p = ntohs(in->sin_port);
    } else if (a->ss_family == AF_INET6) {
        const struct sockaddr_in6 *in = (const void *)a;
        inet_ntop(AF_INET6, (void *)&in->sin6_addr, ip, sizeof ip);
        p = ntohs(in->sin6_port);
    }
    snprintf(out, sizeof out, "%s %s", name_of(ip), p == port ? "port" : p == 0 ? "0" : "other");
    return out;
}

static struct sockaddr_storage at(const char *ip, int p, int *length)
{
    struct sockaddr_storage a;
    memset(&a, 0, sizeof a);
    if (strchr(ip, ':')) {
        struct sockaddr_in6 *in = (void *)&a;
        in->sin6_family = AF_INET6;
        in->sin6_port = htons((u_short)p);
        inet_pton(AF_INET6, ip, &in->sin6_addr);
        *length = sizeof *in;
    } else {
        struct sockaddr_in *in = (void *)&a;
        in->sin_family = AF_INET;
        in->sin_port = htons((u_short)p);
        inet_pton(AF_INET, ip, &in->sin_addr);
        *length = sizeof *in;
    }
    return a;
}

static void said(const char *what, int failed)
{
    if (failed) printf("%s: %d\n", what, WSAGetLastError());
    else printf("%s: ok\n", what);
    WSASetLastError(MARK);
}

static SOCKET tcp(void) { return socket(AF_INET, SOCK_STREAM, 0); }
static SOCKET udp(void) { return socket(AF_INET, SOCK_DGRAM, 0); }

static SOCKET tcp6(int v6only)
{
    SOCKET s = socket(AF_INET6, SOCK_STREAM, 0);
    DWORD value = (DWORD)v6only;
    setsockopt(s, IPPROTO_IPV6, IPV6_V6ONLY, (char *)&value, sizeof value);
    return s;
}

static int do_bind(SOCKET s, const char *ip, int p)
{
    int length;
    struct sockaddr_storage a = at(ip, p, &length);
    WSASetLastError(MARK);
    int r = bind(s, (void *)&a, length);
    said("bind", r);
    return r;
}

static int do_connect(SOCKET s, const char *ip, int p)
{
    int length;
    struct sockaddr_storage a = at(ip, p, &length);
    WSASetLastError(MARK);
    int r = connect(s, (void *)&a, length);
    said("connect", r);
    return r;
}

static void sockname(const char *what, SOCKET s)
{
    struct sockaddr_storage a;
    int length = sizeof a;
    WSASetLastError(MARK);
    if (getsockname(s, (void *)&a, &length)) said(what, 1);
    else printf("%s: %s\n", what, text(&a));
}

static void peername(const char *what, SOCKET s)
{
    struct sockaddr_storage a;
    int length = sizeof a;
    WSASetLastError(MARK);
    if (getpeername(s, (void *)&a, &length)) said(what, 1);
    else printf("%s: %s\n", what, text(&a));
}

static SOCKET do_accept(SOCKET s)
{
    struct sockaddr_storage a;
    int length = sizeof a;
    SOCKET c = accept(s, (void *)&a, &length);
    if (c == INVALID_SOCKET) said("accept", 1);
    else printf("accept: %s\n", text(&a));
    return c;
}

static void ready(void)
{
    char line[16];
    printf("ready\n");
    fflush(stdout);
    if (!fgets(line, sizeof line, stdin)) exit(0);
}

/* Both ends of a connection to a listener of this program. */
static void both_ends(SOCKET s, const char *dialled)
{
    SOCKET c = strchr(dialled, ':') ? tcp6(0) : tcp();
    listen(s, 5);
    if (do_connect(c, dialled, port)) return;
    SOCKET a = do_accept(s);
    sockname("accepted name", a);
    peername("accepted peer", a);
    sockname("name", c);
    peername("peer", c);
}

static void *extension(SOCKET s, GUID guid)
{
    void *f = NULL;
    DWORD got;
    WSAIoctl(s, SIO_GET_EXTENSION_FUNCTION_POINTER, &guid, sizeof guid, &f, sizeof f, &got, NULL,
             NULL);
    return f;
}

/* ConnectEx, waited for. */
static int connect_ex(SOCKET s, const char *ip, int p)
{
    GUID guid = WSAID_CONNECTEX;
    LPFN_CONNECTEX f = (LPFN_CONNECTEX)extension(s, guid);
    OVERLAPPED o = { 0 };
    o.hEvent = CreateEvent(NULL, TRUE, FALSE, NULL);
    int length;
    struct sockaddr_storage a = at(ip, p, &length);
    DWORD sent = 0, flags;
    BOOL ok = f(s, (void *)&a, length, NULL, 0, &sent, &o);
    if (!ok && WSAGetLastError() == WSA_IO_PENDING)
        ok = WSAGetOverlappedResult(s, &o, &sent, TRUE, &flags);
    said("ConnectEx", !ok);
    if (ok) setsockopt(s, SOL_SOCKET, SO_UPDATE_CONNECT_CONTEXT, NULL, 0);
    return !ok;
}

static void list(const char *what, const struct addrinfo *a)
{
    for (; a; a = a->ai_next) {
        struct sockaddr_storage s = { 0 };
        memcpy(&s, a->ai_addr, a->ai_addrlen);
        printf("%s: %s\n", what, text(&s));
    }
}

static void named(const char *what, const char *ip, int flags)
{
    int length;
    struct sockaddr_storage a = at(ip, port, &length);
    char name[256] = "", own[256] = "", service[32] = "";
    gethostname(own, sizeof own);
    int r = getnameinfo((void *)&a, length, name, sizeof name, service, sizeof service,
                        flags | NI_NUMERICSERV);
    if (r) printf("%s: %d\n", what, r);
    else printf("%s: %s %s\n", what, _stricmp(name, own) == 0 ? "own name" : name_of(name),
                atoi(service) == port ? "port" : service);
}

static int row(int number)
{
    SOCKET s, c;
    int length;
    struct sockaddr_storage a;
    switch (number) {
    case 1:
        s = tcp();
        if (do_bind(s, "127.0.0.1", port)) return 1;
        sockname("name", s);
        listen(s, 5);
        ready();
        return 0;
    case 3:
        s = tcp();
        if (do_bind(s, "0.0.0.0", port)) return 1;
        sockname("name", s);
        listen(s, 5);
        ready();
        return 0;
    case 5:
        s = tcp();
        do_bind(s, host, port);
        sockname("name", s);
        do_bind(tcp(), "10.77.0.14", port);
        do_bind(tcp(), "127.77.0.9", port);
        do_bind(tcp(), "192.0.2.1", port);
        return 0;
    case 6:
        s = tcp();
        do_bind(s, "0.0.0.0", port);
        sockname("name", s);
        return 0;
    case 9:
        s = tcp();
        do_connect(s, "127.0.0.1", port);
        do_connect(s, host, port);
        return 0;
    case 10:
        s = tcp();
        do_bind(s, host, port);
        listen(s, 5);
        c = tcp();
        do_bind(c, "127.0.0.1", 0);
        sockname("name", c);
        do_connect(c, "127.0.0.1", port);
        sockname("name", c);
        return 0;
    case 11: /* dials what this or another program listens on */
        c = tcp();
        if (do_connect(c, "127.0.0.1", port)) return 1;
        sockname("name", c);
        peername("peer", c);
        return 0;
    case 12:
        s = tcp();
        do_bind(s, "127.0.0.1", port);
        both_ends(s, "0.0.0.0");
        return 0;
    case 13:
        s = udp();
        do_connect(s, host, port);
        a = at("0.0.0.0", 0, &length);
        a.ss_family = AF_UNSPEC;
        said("dissolve", connect(s, (void *)&a, length));
        peername("peer", s);
        return 0;
    case 14: {
        u_long on = 1;
        s = tcp();
        do_bind(s, "127.0.0.1", port);
        listen(s, 5);
        c = tcp();
        ioctlsocket(c, FIONBIO, &on);
        do_connect(c, "127.0.0.1", port);
        fd_set wait;
        FD_ZERO(&wait);
        FD_SET(c, &wait);
        struct timeval patience = { 10, 0 };
        printf("writable: %d\n", select(0, NULL, &wait, NULL, &patience));
        peername("peer", c);
        return 0;
    }
    case 112: /* row 11b: a datagram to a service of its own */
        s = udp();
        do_connect(s, "127.0.0.1", port);
        peername("peer", s);
        said("send", send(s, "x", 1, 0) != 1);
        return 0;
    case 15:
        s = tcp();
        a = at("0.0.0.0", port, &length);
        a.ss_family = AF_UNSPEC;
        said("bind", bind(s, (void *)&a, length));
        return 0;
    case 16: {
        char big[129] = { 0 };
        a = at("127.0.0.1", port, &length);
        memcpy(big, &a, (size_t)length);
        said("null", bind(tcp(), NULL, 16));
        said("short", bind(tcp(), (void *)&a, 15));
        said("none", bind(tcp(), (void *)&a, 0));
        said("negative", bind(tcp(), (void *)&a, -1));
        said("128", bind(tcp(), (void *)big, 128));
        said("connect short", connect(tcp(), (void *)&a, 8));
        said("no socket", bind((SOCKET)12345678, (void *)&a, 16));
        return 0;
    }
    case 161: /* Wine 8 itself crashes on these */
        said("bad", bind(tcp(), (void *)16, 16));
        said("connect null", connect(tcp(), NULL, 16));
        said("connect bad", connect(tcp(), (void *)16, 16));
        said("null length", getsockname(tcp(), (void *)&a, NULL));
        said("sendto bad", sendto(udp(), "x", 1, 0, (void *)16, 16));
        return 0;
    case 17:
        s = tcp();
        do_bind(s, "127.0.0.1", port);
        memset(&a, 0x55, sizeof a);
        length = 4;
        said("getsockname", getsockname(s, (void *)&a, &length));
        printf("fifth byte %x\n", ((unsigned char *)&a)[4]);
        length = sizeof a;
        said("null name", getsockname(s, NULL, &length));
        return 0;
    case 18:
        sockname("tcp", tcp());
        sockname("udp", udp());
        peername("peer", tcp());
        return 0;
    case 19:
        s = tcp();
        do_bind(s, "127.0.0.1", port);
        both_ends(s, "127.0.0.1");
        closesocket(s);
        s = tcp();
        do_bind(s, "0.0.0.0", port + 1);
        port++;
        both_ends(s, "127.0.0.1");
        return 0;
    case 21:
        s = tcp();
        said("listen", listen(s, 5));
        return 0;
    case 22:
        s = udp();
        a = at(host, port, &length);
        WSASetLastError(MARK);
        said("sendto", sendto(s, "x", 1, 0, (void *)&a, length) != 1);
        sockname("name", s);
        do_bind(s, "0.0.0.0", port);
        return 0;
    case 23:
        s = tcp();
        do_bind(s, "127.0.0.1", 0);
        sockname("name", s);
        return 0;
    case 24: { /* by the function that WSAIoctl gives */
        GUID guid = WSAID_WSASENDMSG;
        DWORD sent = 0;
        char data[8], control[WSA_CMSG_SPACE(sizeof(struct in_pktinfo))] = { 0 };
        WSABUF buffer = { 1, "x" };
        WSACMSGHDR *c24 = (void *)control;
        s = udp();
        do_bind(s, "127.0.0.1", port);
        a = at("127.0.0.1", port, &length);
        c24->cmsg_len = WSA_CMSG_LEN(sizeof(struct in_pktinfo));
        c24->cmsg_level = IPPROTO_IP;
        c24->cmsg_type = IP_PKTINFO;
        inet_pton(AF_INET, "127.0.0.1", c24 + 1);
        WSAMSG m = { (void *)&a, length, &buffer, 1, { sizeof control, control }, 0 };
        LPFN_WSASENDMSG send_message = (LPFN_WSASENDMSG)extension(s, guid);
        said("WSASendMsg", send_message(s, &m, 0, &sent, NULL, NULL));
        length = sizeof a;
        said("recvfrom", recvfrom(s, data, sizeof data, 0, (void *)&a, &length) != 1);
        printf("from %s\n", text(&a));
        return 0;
    }
    case 25: { /* the test sends four datagrams from L at once, and one more when it is asked to */
        DWORD on = 1, got, flags = 0;
        GUID guid = WSAID_WSARECVMSG;
        char data[8], control[128];
        WSABUF buffer = { sizeof data, data };
        OVERLAPPED o = { 0 };
        DWORD patience = 20000;
        s = udp();
        setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, (char *)&patience, sizeof patience);
        do_bind(s, "127.0.0.1", port);
        setsockopt(s, IPPROTO_IP, IP_PKTINFO, (char *)&on, sizeof on);
        LPFN_WSARECVMSG receive = (LPFN_WSARECVMSG)extension(s, guid);
        ready();
        length = sizeof a;
        said("recvfrom", recvfrom(s, data, sizeof data, 0, (void *)&a, &length) != 1);
        printf("from %s\n", text(&a));
        length = sizeof a;
        said("WSARecvFrom",
             WSARecvFrom(s, &buffer, 1, &got, &flags, (void *)&a, &length, NULL, NULL));
        printf("from %s\n", text(&a));
        WSAMSG m = { (void *)&a, sizeof a, &buffer, 1, { sizeof control, control }, 0 };
        said("WSARecvMsg", receive(s, &m, &got, NULL, NULL));
        struct in_pktinfo *info = (void *)((WSACMSGHDR *)control + 1);
        printf("from %s", text(&a));
        printf(", to %s\n", m.Control.len > sizeof(WSACMSGHDR) ? name_of(inet_ntoa(info->ipi_addr)) : "?");
        o.hEvent = CreateEvent(NULL, TRUE, FALSE, NULL);
        length = sizeof a;
        /* The fourth may still be on its way. */
        fd_set arrived;
        FD_ZERO(&arrived);
        FD_SET(s, &arrived);
        select(0, &arrived, NULL, NULL, NULL);
        said("overlapped, at once",
             WSARecvFrom(s, &buffer, 1, NULL, &flags, (void *)&a, &length, &o, NULL));
        printf("from %s\n", text(&a));
        ResetEvent(o.hEvent);
        length = sizeof a;
        said("overlapped, later",
             WSARecvFrom(s, &buffer, 1, NULL, &flags, (void *)&a, &length, &o, NULL));
        ready();
        WaitForSingleObject(o.hEvent, patience);
        said("completion", !WSAGetOverlappedResult(s, &o, &got, FALSE, &flags));
        printf("from %s\n", text(&a));
        return 0;
    }
    case 26: {
        BOOL on = TRUE;
        s = udp();
        setsockopt(s, SOL_SOCKET, SO_REUSEADDR, (char *)&on, sizeof on);
        do_bind(s, "0.0.0.0", port);
        sockname("shared", s);
        s = udp();
        do_bind(s, "0.0.0.0", 5353);
        sockname("mdns", s);
        s = udp();
        do_bind(s, "0.0.0.0", port + 1);
        port++;
        sockname("plain", s);
        return 0;
    }
    case 27: {
        struct in_addr in = { 0 };
        int size = sizeof in;
        s = udp();
        a = at("239.7.7.7", port, &length);
        sendto(s, "x", 1, 0, (void *)&a, length);
        getsockopt(s, IPPROTO_IP, IP_MULTICAST_IF, (char *)&in, &size);
        printf("interface: %s\n", name_of(inet_ntoa(in)));
        s = udp();
        inet_pton(AF_INET, host, &in);
        setsockopt(s, IPPROTO_IP, IP_MULTICAST_IF, (char *)&in, sizeof in);
        sendto(s, "x", 1, 0, (void *)&a, length);
        getsockopt(s, IPPROTO_IP, IP_MULTICAST_IF, (char *)&in, &size);
        printf("its own: %s\n", name_of(inet_ntoa(in)));
        return 0;
    }
    case 29: /* a listener of both families, for others to meet */
        s = tcp6(0);
        do_bind(s, "::", port);
        listen(s, 5);
        ready();
        return 0;
    case 30:
        s = tcp6(0);
        do_bind(s, "::", port);
        sockname("name", s);
        listen(s, 5);
        both_ends(s, "::1");
        return 0;
    case 31:
        s = tcp6(1);
        do_bind(s, "::", port);
        sockname("name", s);
        return 0;
    case 32:
        s = tcp6(1);
        do_bind(s, "::1", port);
        sockname("name", s);
        both_ends(s, "::1");
        c = tcp6(1); /* as overlapped clients dial */
        do_bind(c, "::", 0);
        connect_ex(c, "::1", port);
        sockname("name", c);
        peername("peer", c);
        return 0;
    case 33:
        s = tcp6(0);
        do_bind(s, "::ffff:127.0.0.1", port);
        sockname("name", s);
        both_ends(s, "::ffff:127.0.0.1");
        return 0;
    case 34: { /* other families */
        static const struct { int family, type; } others[] = {
            { AF_UNIX, SOCK_STREAM }, { AF_IRDA, SOCK_STREAM }, { AF_BTH, SOCK_STREAM }
        };
        for (int i = 0; i < 3; i++) {
            s = socket(others[i].family, others[i].type, 0);
            said("socket", s == INVALID_SOCKET);
            a = at("127.0.0.1", port, &length);
            a.ss_family = (ADDRESS_FAMILY)others[i].family;
            said("bind", bind(s, (void *)&a, length));
            said("connect", connect(s, (void *)&a, length));
        }
        return 0;
    }
    case 35: { /* a socket handed over by WSADuplicateSocket is mapped as ever */
        WSAPROTOCOL_INFOW info;
        s = tcp();
        do_bind(s, "127.0.0.1", port);
        said("duplicate", WSADuplicateSocketW(s, GetCurrentProcessId(), &info));
        c = WSASocketW(AF_INET, SOCK_STREAM, 0, &info, 0, 0);
        closesocket(s);
        sockname("name", c);
        return 0;
    }
    case 36:
        for (int i = 0; i < 200; i++) {
            s = tcp();
            a = at("0.0.0.0", 0, &length);
            if (bind(s, (void *)&a, length)) said("bind", 1);
            closesocket(s);
        }
        sockname("unbound", tcp());
        return 0;
    case 38: {
        BOOL on = TRUE;
        int size = sizeof on;
        s = tcp();
        setsockopt(s, SOL_SOCKET, SO_EXCLUSIVEADDRUSE, (char *)&on, sizeof on);
        do_bind(s, "127.0.0.1", port);
        on = FALSE;
        getsockopt(s, SOL_SOCKET, SO_EXCLUSIVEADDRUSE, (char *)&on, &size);
        printf("exclusive: %d\n", on != 0);
        return 0;
    }
    case 39: {
        struct addrinfo hints = { .ai_flags = AI_PASSIVE, .ai_socktype = SOCK_STREAM }, *found;
        char service[8];
        snprintf(service, sizeof service, "%d", port);
        if (getaddrinfo(NULL, service, &hints, &found) == 0) list("passive", found);
        return 0;
    }
    case 40: {
        struct addrinfo hints = { .ai_family = AF_INET, .ai_socktype = SOCK_STREAM }, *found;
        char own[256];
        gethostname(own, sizeof own);
        int r = getaddrinfo(own, NULL, &hints, &found);
        if (r) printf("getaddrinfo: %d\n", r);
        else list("getaddrinfo", found);
        WCHAR wide[256];
        GetHostNameW(wide, 256);
        ADDRINFOW whints = { .ai_family = AF_INET, .ai_socktype = SOCK_STREAM }, *wfound;
        r = GetAddrInfoW(wide, NULL, &whints, &wfound);
        if (r) printf("GetAddrInfoW: %d\n", r);
        else for (; wfound; wfound = wfound->ai_next) {
            memcpy(&a, wfound->ai_addr, wfound->ai_addrlen);
            printf("GetAddrInfoW: %s\n", text(&a));
        }
        for (int later = 0; later < 2; later++) {
            ADDRINFOEXW xhints = { .ai_family = AF_INET, .ai_socktype = SOCK_STREAM }, *xfound = NULL;
            OVERLAPPED o = { .hEvent = CreateEvent(NULL, TRUE, FALSE, NULL) };
            HANDLE cancel;
            r = GetAddrInfoExW(wide, NULL, NS_DNS, NULL, &xhints, &xfound, NULL, later ? &o : NULL,
                               NULL, later ? &cancel : NULL);
            if (r == WSA_IO_PENDING) {
                WaitForSingleObject(o.hEvent, 20000);
                /* Not in the headers of mingw. */
                FARPROC f = GetProcAddress(GetModuleHandleA("ws2_32.dll"),
                                           "GetAddrInfoExOverlappedResult");
                r = ((int(WSAAPI *)(OVERLAPPED *))(void *)f)(&o);
            }
            if (r) printf("GetAddrInfoExW: %d\n", r);
            else for (; xfound; xfound = (void *)xfound->ai_next) {
                memcpy(&a, xfound->ai_addr, xfound->ai_addrlen);
                printf("GetAddrInfoExW%s: %s\n", later ? ", overlapped" : "", text(&a));
            }
        }
        struct hostent *e = gethostbyname(own);
        if (!e) said("gethostbyname", 1);
        for (int i = 0; e && e->h_addr_list[i]; i++)
            printf("gethostbyname: %s\n", name_of(inet_ntoa(*(struct in_addr *)e->h_addr_list[i])));
        return 0;
    }
    case 41: {
        struct addrinfo hints = { .ai_family = AF_INET, .ai_socktype = SOCK_STREAM }, *found;
        int r = getaddrinfo("localhost", NULL, &hints, &found);
        if (r) printf("localhost: %d\n", r);
        else list("localhost", found);
        return 0;
    }
    case 42: {
        named("V", v, 0);
        named("L", l, 0);
        named("V numeric", v, NI_NUMERICHOST);
        named("L numeric", l, NI_NUMERICHOST);
        struct in_addr in;
        inet_pton(AF_INET, l, &in);
        struct hostent *e = gethostbyaddr((char *)&in, 4, AF_INET);
        printf("gethostbyaddr L: %s\n", e ? e->h_name : "none");
        return 0;
    }
    case 43: {
        ULONG size = 64 * 1024;
        IP_ADAPTER_ADDRESSES *adapters = malloc(size);
        ULONG r = GetAdaptersAddresses(AF_INET, 0, NULL, adapters, &size);
        int own = 0, others = 0, loopback = 0;
        for (IP_ADAPTER_ADDRESSES *i = r ? NULL : adapters; i; i = i->Next)
            for (IP_ADAPTER_UNICAST_ADDRESS *u = i->FirstUnicastAddress; u; u = u->Next) {
                char ip[64];
                struct sockaddr_in *in = (void *)u->Address.lpSockaddr;
                inet_ntop(AF_INET, &in->sin_addr, ip, sizeof ip);
                if (strcmp(ip, v) == 0) own++;
                else if (strncmp(ip, "10.77.0.", 8) == 0 && atoi(ip + 8) > 10) others++;
                else if (strcmp(ip, "127.0.0.1") == 0) loopback++;
            }
        printf("own %d others %d loopback %d\n", own, others > 0, loopback);
        return 0;
    }
    case 46:
        s = tcp(); /* the destination is this host's own service */
        do_bind(s, "127.0.0.1", port);
        listen(s, 5);
        c = tcp();
        do_bind(c, "0.0.0.0", 0);
        connect_ex(c, "127.0.0.1", port);
        peername("loopback peer", c);
        c = tcp();
        do_bind(c, "0.0.0.0", 0);
        do_connect(c, "127.0.0.1", port);
        closesocket(s);
        s = tcp(); /* the outside */
        do_bind(s, host, port + 1);
        listen(s, 5);
        c = tcp();
        do_bind(c, "0.0.0.0", 0);
        do_bind(c, "0.0.0.0", 0);
        sockname("in between", c);
        c = tcp();
        do_bind(c, "0.0.0.0", 0);
        said("listen", listen(c, 5));
        sockname("listening", c);
        connect_ex(tcp(), "127.0.0.1", port);
        sockname("never bound", tcp());
        return 0;
    case 462: { /* more binds put off than there are places for */
        static SOCKET many[1500];
        int as_v = 0, as_any = 0, again = 0;
        for (int i = 0; i < 1500; i++) {
            many[i] = tcp();
            a = at("0.0.0.0", 0, &length);
            if (many[i] == INVALID_SOCKET || bind(many[i], (void *)&a, length)) said("bind", 1);
        }
        for (int i = 0; i < 1500; i++) {
            /* Bound, as far as the program knows, whether it was put off or not. */
            if (bind(many[i], (void *)&a, length) == 0 || WSAGetLastError() != WSAEINVAL) again++;
            length = sizeof a;
            if (getsockname(many[i], (void *)&a, &length)) said("name", 1);
            as_v += strcmp(text(&a), "V other") == 0;
            as_any += strcmp(text(&a), "0.0.0.0 other") == 0;
            closesocket(many[i]);
            a = at("0.0.0.0", 0, &length);
        }
        printf("V %d, 0.0.0.0 %d, bound again %d\n", as_v, as_any, again);
        return 0;
    }
    case 461: /* a destination outside, which another program listens on */
        c = tcp();
        do_bind(c, "0.0.0.0", 0);
        connect_ex(c, host, port);
        sockname("bound", c);
        c = tcp();
        do_connect(c, host, port);
        sockname("unbound", c);
        return 0;
    case 48: {
        s = tcp();
        do_bind(s, "0.0.0.0", port);
        listen(s, 5);
        c = tcp();
        a = at("127.0.0.1", port, &length);
        WSASetLastError(MARK);
        said("WSAConnect", WSAConnect(c, (void *)&a, length, NULL, NULL, NULL, NULL));
        sockname("name", c);
        peername("peer", c);
        length = sizeof a;
        SOCKET accepted = WSAAccept(s, (void *)&a, &length, NULL, 0);
        printf("WSAAccept: %s\n", accepted == INVALID_SOCKET ? "failed" : text(&a));
        return 0;
    }
    case 45: {
        s = tcp();
        WSASetLastError(MARK);
        a = at("127.0.0.1", port, &length);
        bind(s, (void *)&a, length);
        printf("after bind: %d\n", WSAGetLastError());
        WSASetLastError(MARK);
        listen(s, 5);
        printf("after listen: %d\n", WSAGetLastError());
        c = tcp();
        WSASetLastError(MARK);
        connect(c, (void *)&a, length);
        printf("after connect: %d\n", WSAGetLastError());
        WSASetLastError(MARK);
        length = sizeof a;
        accept(s, (void *)&a, &length);
        printf("after accept: %d\n", WSAGetLastError());
        WSASetLastError(MARK);
        length = sizeof a;
        getsockname(c, (void *)&a, &length);
        printf("after getsockname: %d\n", WSAGetLastError());
        WSASetLastError(MARK);
        length = sizeof a;
        getpeername(c, (void *)&a, &length);
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
    v = argv[3];
    l = argv[4];
    host = argv[5];
    WSAStartup(MAKEWORD(2, 2), &data);
    return row(atoi(argv[1]));
}
