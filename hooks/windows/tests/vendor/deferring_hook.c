/* The example of a vendor's hook DLL, with the binds put off that include/vipool.h says, at
 * VIPOOL_DO_DEFER, how to put off: this is that list, line by line. */

#include <vipool.h>

#define DllMain example_main
/* The last argument but one is the address of the options. */
#define vipool_rewriter_new(reader, options, out)                                                  \
    ((options)->flags = VIPOOL_REWRITER_DEFER_WILDCARD,                                            \
     (vipool_rewriter_new)((reader), (options), (out)))
#include "../../../../examples/c/windows_hook.c"
#undef DllMain

#include <mswsock.h>

/* The sockets that are remembered, in a program of one thread. */
static SOCKET deferred[16];

static int place_of(SOCKET s)
{
    for (int i = 0; i < 16; i++)
        if (deferred[i] == s) return i;
    return -1;
}

static int forget(SOCKET s)
{
    int place = place_of(s);
    if (place >= 0) deferred[place] = 0;
    return place >= 0;
}

static int is_unbound(SOCKET s)
{
    struct sockaddr_storage name;
    int length = sizeof name, before = WSAGetLastError();
    int unbound = getsockname(s, (void *)&name, &length) != 0 && WSAGetLastError() == WSAEINVAL;
    WSASetLastError(before);
    return unbound;
}

static int bind_to_wildcard(SOCKET s)
{
    struct sockaddr_storage name;
    int length = (int)ask_local(&s, &name, sizeof name);
    return bind(s, (void *)&name, length);
}

static int WSAAPI my_bind(SOCKET s, const struct sockaddr *name, int length)
{
    vipool_socket facts = facts_of(&s);
    vipool_outcome outcome = nothing_yet();
    int before = WSAGetLastError();
    if (place_of(s) >= 0) {
        WSASetLastError(WSAEINVAL);
        return SOCKET_ERROR;
    }
    (void)vipool_rewrite_bind(decider(), &facts, name, (uint32_t)length, &outcome);
    WSASetLastError(before);
    if (outcome.kind == VIPOOL_REWRITTEN && (outcome.flags & VIPOOL_DO_DEFER) && is_unbound(s)
        && place_of(0) >= 0) {
        deferred[place_of(0)] = s;
        return 0;
    }
    return hooked_bind(s, name, length);
}

static int WSAAPI my_connect(SOCKET s, const struct sockaddr *name, int length)
{
    forget(s);
    return hooked_connect(s, name, length);
}

/* For listen and getsockname. */
static int bind_now(SOCKET s)
{
    vipool_socket facts = facts_of(&s);
    vipool_outcome outcome = nothing_yet();
    if (!forget(s)) return 0;
    (void)vipool_rewrite_listen(decider(), &facts, &outcome);
    if (outcome.kind == VIPOOL_REWRITTEN) {
        if (bind_to(s, &outcome.address) == 0) return 0;
        if (is_missed(&outcome.address)) return SOCKET_ERROR;
    }
    return bind_to_wildcard(s);
}

static int WSAAPI my_listen(SOCKET s, int backlog)
{
    return bind_now(s) != 0 ? SOCKET_ERROR : listen(s, backlog);
}

static int WSAAPI my_getsockname(SOCKET s, struct sockaddr *name, int *length)
{
    return bind_now(s) != 0 ? SOCKET_ERROR : hooked_getsockname(s, name, length);
}

static int WSAAPI my_getpeername(SOCKET s, struct sockaddr *name, int *length)
{
    vipool_outcome outcome = nothing_yet();
    if (getpeername(s, name, length) != 0) return SOCKET_ERROR;
    (void)vipool_rewrite_shown(decider(), name, (uint32_t)*length, ask_local, &s, &outcome);
    if (outcome.kind == VIPOOL_REWRITTEN)
        memcpy(name, outcome.address.bytes, outcome.address.length);
    return 0;
}

static int WSAAPI my_closesocket(SOCKET s)
{
    forget(s);
    return closesocket(s);
}

static LPFN_CONNECTEX connect_ex;

static BOOL PASCAL my_connect_ex(SOCKET s, const struct sockaddr *name, int length, void *data,
                                 DWORD size, DWORD *sent, OVERLAPPED *overlapped)
{
    vipool_socket facts = facts_of(&s);
    vipool_outcome outcome = nothing_yet();
    int was_deferred = forget(s);
    (void)vipool_rewrite_connect(decider(), &facts, name, (uint32_t)length, &outcome);
    if (outcome.kind == VIPOOL_REFUSED) {
        WSASetLastError(outcome.error);
        return FALSE;
    }
    if (outcome.kind == VIPOOL_REWRITTEN) {
        set_v6only(s, &outcome, 0);
        if (was_deferred && (outcome.flags & VIPOOL_DO_BIND_FIRST)
            && bind_to(s, &outcome.bind) != 0 && is_missed(&outcome.bind)) return FALSE;
        name = (const void *)outcome.address.bytes;
        length = (int)outcome.address.length;
    }
    if (was_deferred && is_unbound(s) && bind_to_wildcard(s) != 0) return FALSE;
    return connect_ex(s, name, length, data, size, sent, overlapped);
}

static int WSAAPI my_ioctl(SOCKET s, DWORD code, void *in, DWORD in_size, void *out, DWORD out_size,
                           DWORD *got, OVERLAPPED *overlapped,
                           LPWSAOVERLAPPED_COMPLETION_ROUTINE done)
{
    static const GUID guid = WSAID_CONNECTEX;
    int result = WSAIoctl(s, code, in, in_size, out, out_size, got, overlapped, done);
    if (result == 0 && code == SIO_GET_EXTENSION_FUNCTION_POINTER && in_size == sizeof guid
        && memcmp(in, &guid, sizeof guid) == 0) {
        memcpy(&connect_ex, out, sizeof connect_ex);
        *(LPFN_CONNECTEX *)out = my_connect_ex;
    }
    return result;
}

BOOL WINAPI DllMain(HINSTANCE module, DWORD reason, LPVOID reserved)
{
    static const struct { const char *name; const void *ours; } calls[] = {
        { "bind", my_bind }, { "connect", my_connect }, { "listen", my_listen },
        { "getsockname", my_getsockname }, { "getpeername", my_getpeername },
        { "closesocket", my_closesocket }, { "WSAIoctl", my_ioctl },
    };
    if (reason == DLL_PROCESS_ATTACH)
        for (size_t i = 0; i < sizeof calls / sizeof *calls; i++)
            replace((const void *)GetProcAddress(GetModuleHandleW(L"ws2_32.dll"), calls[i].name),
                    calls[i].ours);
    (void)example_main;
    (void)module;
    (void)reserved;
    return TRUE;
}
