/* A vendor's hook DLL that defers binds. The DLL extends the example hook DLL. The code follows the
 * description of VIPOOL_DO_DEFER in include/vipool.h step by step. */

#include <vipool.h>

#define DllMain example_main
/* Each call of vipool_rewriter_new in windows_hook.c first sets the flag that enables deferred
 * binds. */
#define vipool_rewriter_new(reader, options, out)                                                  \
    ((options)->flags = VIPOOL_REWRITER_DEFER_WILDCARD,                                            \
     (vipool_rewriter_new)((reader), (options), (out)))
#include "../../../../examples/c/windows_hook.c"
#undef DllMain

#include <mswsock.h>

/* The sockets with a deferred bind; 0 marks a free entry. If no entry is free, the bind is not
 * deferred. The program has one thread, so no lock is necessary. */
static SOCKET deferred_sockets[16];

static int find_deferred(SOCKET s)
{
    for (int i = 0; i < 16; i++)
        if (deferred_sockets[i] == s) return i;
    return -1;
}

static int remove_deferred(SOCKET s)
{
    int index = find_deferred(s);
    if (index >= 0) deferred_sockets[index] = 0;
    return index >= 0;
}

static int is_unbound(SOCKET s)
{
    struct sockaddr_storage name;
    int length = sizeof name, saved_error = WSAGetLastError();
    int unbound = getsockname(s, (void *)&name, &length) != 0 && WSAGetLastError() == WSAEINVAL;
    WSASetLastError(saved_error);
    return unbound;
}

static int bind_to_wildcard(SOCKET s)
{
    struct sockaddr_storage name;
    int length = (int)get_local(&s, &name, sizeof name);
    return bind(s, (void *)&name, length);
}

static int WSAAPI replacement_bind(SOCKET s, const struct sockaddr *name, int length)
{
    vipool_socket facts = describe_socket(&s);
    vipool_outcome outcome = passed_outcome();
    int saved_error = WSAGetLastError();
    if (find_deferred(s) >= 0) {
        WSASetLastError(WSAEINVAL);
        return SOCKET_ERROR;
    }
    (void)vipool_rewrite_bind(get_rewriter(), &facts, name, (uint32_t)length, &outcome);
    WSASetLastError(saved_error);
    if (outcome.kind == VIPOOL_REWRITTEN && (outcome.flags & VIPOOL_DO_DEFER) && is_unbound(s)
        && find_deferred(0) >= 0) {
        deferred_sockets[find_deferred(0)] = s;
        return 0;
    }
    return hooked_bind(s, name, length);
}

static int WSAAPI replacement_connect(SOCKET s, const struct sockaddr *name, int length)
{
    remove_deferred(s);
    return hooked_connect(s, name, length);
}

/* Performs the deferred bind of the socket, if there is one. The functions listen and getsockname
 * need a bound socket. */
static int bind_deferred(SOCKET s)
{
    vipool_socket facts = describe_socket(&s);
    vipool_outcome outcome = passed_outcome();
    if (!remove_deferred(s)) return 0;
    (void)vipool_rewrite_listen(get_rewriter(), &facts, &outcome);
    if (outcome.kind == VIPOOL_REWRITTEN) {
        if (bind_to(s, &outcome.address) == 0) return 0;
        if (must_fail_without_address(&outcome.address)) return SOCKET_ERROR;
    }
    return bind_to_wildcard(s);
}

static int WSAAPI replacement_listen(SOCKET s, int backlog)
{
    return bind_deferred(s) != 0 ? SOCKET_ERROR : listen(s, backlog);
}

static int WSAAPI replacement_getsockname(SOCKET s, struct sockaddr *name, int *length)
{
    return bind_deferred(s) != 0 ? SOCKET_ERROR : hooked_getsockname(s, name, length);
}

static int WSAAPI replacement_getpeername(SOCKET s, struct sockaddr *name, int *length)
{
    vipool_outcome outcome = passed_outcome();
    if (getpeername(s, name, length) != 0) return SOCKET_ERROR;
    (void)vipool_rewrite_visible_address(get_rewriter(), name, (uint32_t)*length, get_local, &s,
                                         &outcome);
    if (outcome.kind == VIPOOL_REWRITTEN)
        memcpy(name, outcome.address.bytes, outcome.address.length);
    return 0;
}

static int WSAAPI replacement_closesocket(SOCKET s)
{
    remove_deferred(s);
    return closesocket(s);
}

static LPFN_CONNECTEX connect_ex;

static BOOL PASCAL replacement_connect_ex(SOCKET s, const struct sockaddr *name, int length,
                                          void *data, DWORD size, DWORD *sent,
                                          OVERLAPPED *overlapped)
{
    vipool_socket facts = describe_socket(&s);
    vipool_outcome outcome = passed_outcome();
    int was_deferred = remove_deferred(s);
    (void)vipool_rewrite_connect(get_rewriter(), &facts, name, (uint32_t)length, &outcome);
    if (outcome.kind == VIPOOL_REFUSED) {
        WSASetLastError(outcome.error);
        return FALSE;
    }
    if (outcome.kind == VIPOOL_REWRITTEN) {
        set_v6only(s, &outcome, 0);
        if (was_deferred && (outcome.flags & VIPOOL_DO_BIND_FIRST)
            && bind_to(s, &outcome.bind) != 0 && must_fail_without_address(&outcome.bind)) return FALSE;
        name = (const void *)outcome.address.bytes;
        length = (int)outcome.address.length;
    }
    if (was_deferred && is_unbound(s) && bind_to_wildcard(s) != 0) return FALSE;
    return connect_ex(s, name, length, data, size, sent, overlapped);
}

static int WSAAPI replacement_wsa_ioctl(SOCKET s, DWORD code, void *in, DWORD in_size, void *out,
                                        DWORD out_size, DWORD *returned, OVERLAPPED *overlapped,
                                        LPWSAOVERLAPPED_COMPLETION_ROUTINE routine)
{
    static const GUID connect_ex_guid = WSAID_CONNECTEX;
    int result = WSAIoctl(s, code, in, in_size, out, out_size, returned, overlapped, routine);
    if (result == 0 && code == SIO_GET_EXTENSION_FUNCTION_POINTER && in_size == sizeof connect_ex_guid
        && memcmp(in, &connect_ex_guid, sizeof connect_ex_guid) == 0) {
        memcpy(&connect_ex, out, sizeof connect_ex);
        *(LPFN_CONNECTEX *)out = replacement_connect_ex;
    }
    return result;
}

BOOL WINAPI DllMain(HINSTANCE module, DWORD reason, LPVOID reserved)
{
    static const struct { const char *name; const void *replacement;
    } replacements[] = {
        { "bind", replacement_bind },
        { "connect", replacement_connect },
        { "listen", replacement_listen },
        { "getsockname", replacement_getsockname },
        { "getpeername", replacement_getpeername },
        { "closesocket", replacement_closesocket },
        { "WSAIoctl", replacement_wsa_ioctl },
    };
    if (reason == DLL_PROCESS_ATTACH)
        for (size_t i = 0; i < sizeof replacements / sizeof *replacements; i++)
            replace_import((const void *)GetProcAddress(GetModuleHandleW(L"ws2_32.dll"),
                                                        replacements[i].name),
                           replacements[i].replacement);
    (void)example_main;
    (void)module;
    (void)reserved;
    return TRUE;
}
