/* A hook DLL of a vendor's own for Windows: it stands before bind, connect and getsockname in
 * the import table of the program that it is loaded into, and asks vipool.dll what becomes of
 * an address. The program knows nothing of it.
 *
 *     x86_64-w64-mingw32-gcc -shared -o windows_hook.dll windows_hook.c libvipool.dll.a -lws2_32
 *
 * The environment says where the map is (VIPOOL_MAP) and which lease the process is under
 * (VIPOOL_LEASE); a vendor's agent may tell it otherwise. How the DLL comes into the process is the
 * vendor's business. Import tables are the simplest way: a program that asks GetProcAddress for its
 * calls is not met by them.
 *
 * listen need not be replaced: Winsock answers WSAEINVAL for a socket that was never bound. That
 * changes with VIPOOL_REWRITER_DEFER_WILDCARD, which is left out here: a socket that was bound to
 * 0.0.0.0:0 is on the virtual IP, from where Windows lets it reach no loopback address.
 */

#include <winsock2.h>
#include <ws2tcpip.h>
#include <windows.h>
#include <string.h>

#include <vipool.h>

/* What decides for this process. NULL (not listed, no lease): every call goes on as it is. */
static vipool_rewriter *rewriter;

/* Finds the lease and the rule of this process; what follows is in the order of the calls. */
static BOOL CALLBACK start(INIT_ONCE *once, void *parameter, void **context);

/* The first call that is met makes the rewriter. In DllMain it would hold the loader's lock, under
 * which nothing but the simplest functions of the system may be called. */
static vipool_rewriter *decider(void)
{
    static INIT_ONCE once = INIT_ONCE_STATIC_INIT;
    (void)InitOnceExecuteOnce(&once, start, NULL, NULL);
    return rewriter;
}

/* ---- What the rewriter asks of the system ---------------------------------------------------- */

/* The system's own functions: this DLL's import table is left alone, so they are called by name. */

static uint32_t get_local(void *context, void *buffer, uint32_t capacity)
{
    SOCKET s = *(SOCKET *)context;
    int length = (int)capacity;
    WSAPROTOCOL_INFOW info;
    int info_length = sizeof info;
    struct sockaddr *name = buffer;
    if (getsockname(s, name, &length) == 0) {
        return (uint32_t)length;
    }
    /* Winsock has no name for a socket that is not bound; to vipool that is 0.0.0.0:0 or [::]:0. */
    if (WSAGetLastError() != WSAEINVAL
        || getsockopt(s, SOL_SOCKET, SO_PROTOCOL_INFOW, (char *)&info, &info_length) != 0) {
        return 0;
    }
    memset(buffer, 0, capacity);
    name->sa_family = (ADDRESS_FAMILY)info.iAddressFamily;
    return info.iAddressFamily == AF_INET6 ? sizeof(struct sockaddr_in6)
           : info.iAddressFamily == AF_INET ? sizeof(struct sockaddr_in)
                                            : 0;
}

static uint32_t get_peer(void *context, void *buffer, uint32_t capacity)
{
    int length = (int)capacity;
    return getpeername(*(SOCKET *)context, buffer, &length) == 0 ? (uint32_t)length : 0;
}

static DWORD option(SOCKET s, int level, int name)
{
    DWORD value = 0;
    int length = sizeof value;
    return getsockopt(s, level, name, (char *)&value, &length) == 0 ? value : 0;
}

static uint32_t get_protocol(void *context)
{
    DWORD type = option(*(SOCKET *)context, SOL_SOCKET, SO_TYPE);
    return type == SOCK_STREAM  ? VIPOOL_PROTOCOL_TCP
           : type == SOCK_DGRAM ? VIPOOL_PROTOCOL_UDP
                                : VIPOOL_PROTOCOL_OTHER;
}

static uint32_t get_flags(void *context)
{
    SOCKET s = *(SOCKET *)context;
    uint32_t flags = option(s, IPPROTO_IPV6, IPV6_V6ONLY) ? VIPOOL_SOCKET_V6ONLY : 0;
    if (option(s, SOL_SOCKET, SO_REUSEADDR) || option(s, SOL_SOCKET, SO_BROADCAST)) {
        flags |= VIPOOL_SOCKET_SHARES_PORT;
    }
    return flags;
}

static vipool_socket facts_of(SOCKET *s)
{
    vipool_socket facts = {
        .size = sizeof facts,
        .get_local = get_local,
        .get_protocol = get_protocol,
        .get_flags = get_flags,
        .context = s,
    };
    return facts;
}

/* ---- The replacements ------------------------------------------------------------------------ */

/* What they do on the way leaves the last error as it was. A failed call of vipool, as with NULL,
 * leaves VIPOOL_PASSED: the system judges. */

static vipool_outcome nothing_yet(void)
{
    vipool_outcome outcome = { .size = sizeof outcome, .kind = VIPOOL_PASSED };
    return outcome;
}

/* IPV6_V6ONLY, where the outcome says that it is to be cleared. */
static void set_v6only(SOCKET s, const vipool_outcome *outcome, DWORD value)
{
    int before = WSAGetLastError();
    if (outcome->flags & VIPOOL_DO_CLEAR_V6ONLY) {
        (void)setsockopt(s, IPPROTO_IPV6, IPV6_V6ONLY, (const char *)&value, sizeof value);
    }
    WSASetLastError(before);
}

static int bind_to(SOCKET s, const vipool_sockaddr *address)
{
    return bind(s, (const void *)address->bytes, (int)address->length);
}

/* Whether a bind failed since the session's address is on no interface, and the administrator
 * does not let such calls go on as the program meant them. */
static BOOL is_missed(const vipool_sockaddr *address)
{
    uint32_t retry = 0;
    vipool_ip ip;
    if (WSAGetLastError() != WSAEADDRNOTAVAIL) {
        return FALSE;
    }
    if (vipool_ip_from_sockaddr(address->bytes, address->length, &ip, NULL) == VIPOOL_OK) {
        (void)vipool_rewrite_is_retry_allowed(rewriter, &ip, &retry);
    }
    return !retry;
}

static int WSAAPI hooked_bind(SOCKET s, const struct sockaddr *name, int length)
{
    int before = WSAGetLastError();
    vipool_socket facts = facts_of(&s);
    vipool_outcome outcome = nothing_yet();

    (void)vipool_rewrite_bind(decider(), &facts, name, (uint32_t)length, &outcome);
    if (outcome.kind == VIPOOL_REFUSED) {
        WSASetLastError(outcome.error);
        return SOCKET_ERROR;
    }
    WSASetLastError(before);
    if (outcome.kind == VIPOOL_REWRITTEN) {
        set_v6only(s, &outcome, 0);
        if (bind_to(s, &outcome.address) == 0) {
            return 0;
        }
        set_v6only(s, &outcome, 1);
        if (WSAGetLastError() != WSAEADDRNOTAVAIL || is_missed(&outcome.address)) {
            return SOCKET_ERROR;
        }
        WSASetLastError(before);
    }
    return bind(s, name, length);
}

static int WSAAPI hooked_connect(SOCKET s, const struct sockaddr *name, int length)
{
    int before = WSAGetLastError();
    vipool_socket facts = facts_of(&s);
    vipool_outcome outcome = nothing_yet();
    int result = 0;

    (void)vipool_rewrite_connect(decider(), &facts, name, (uint32_t)length, &outcome);
    if (outcome.kind == VIPOOL_REFUSED) {
        WSASetLastError(outcome.error);
        return SOCKET_ERROR;
    }
    WSASetLastError(before);
    if (outcome.kind != VIPOOL_REWRITTEN) {
        return connect(s, name, length);
    }
    set_v6only(s, &outcome, 0);
    if ((outcome.flags & VIPOOL_DO_BIND_FIRST) && bind_to(s, &outcome.bind) != 0
        && is_missed(&outcome.bind)) {
        result = SOCKET_ERROR;
    } else {
        WSASetLastError(before);
        result = connect(s, (const void *)outcome.address.bytes, (int)outcome.address.length);
    }
    if (result != 0 && WSAGetLastError() != WSAEWOULDBLOCK) {
        set_v6only(s, &outcome, 1);
    }
    return result;
}

static int WSAAPI hooked_getsockname(SOCKET s, struct sockaddr *name, int *length)
{
    vipool_outcome outcome = nothing_yet();
    int before;
    if (getsockname(s, name, length) != 0) {
        return SOCKET_ERROR;
    }
    before = WSAGetLastError();
    (void)vipool_rewrite_visible_address(decider(), name, (uint32_t)*length, get_peer, &s, &outcome);
    if (outcome.kind == VIPOOL_REWRITTEN) {
        /* Of the same family, so there is room. */
        memcpy(name, outcome.address.bytes, outcome.address.length);
    }
    WSASetLastError(before);
    return 0;
}

/* ---- Start of the process -------------------------------------------------------------------- */

/* Puts our functions into the import table of the program. */
static void replace(const void *system, const void *ours)
{
    BYTE *base = (BYTE *)GetModuleHandleW(NULL);
    const IMAGE_NT_HEADERS *headers =
        (const void *)(base + ((const IMAGE_DOS_HEADER *)base)->e_lfanew);
    const IMAGE_DATA_DIRECTORY *directory =
        &headers->OptionalHeader.DataDirectory[IMAGE_DIRECTORY_ENTRY_IMPORT];
    const IMAGE_IMPORT_DESCRIPTOR *import = (const void *)(base + directory->VirtualAddress);
    if (directory->VirtualAddress == 0) {
        return;
    }
    for (; import->Name != 0; import++) {
        const void **slot = (const void **)(base + import->FirstThunk);
        for (; *slot != NULL; slot++) {
            DWORD before;
            if (*slot == system
                && VirtualProtect(slot, sizeof *slot, PAGE_READWRITE, &before)) {
                *slot = ours;
                VirtualProtect(slot, sizeof *slot, before, &before);
            }
        }
    }
}

/* Whatever is missing, the program runs untouched. */
static BOOL CALLBACK start(INIT_ONCE *once, void *parameter, void **context)
{
    /* Without a lock of the loader, and once: they may as well be large. */
    static wchar_t map[1024];
    static char directory[3 * 1024];
    static wchar_t path[1024];
    char disabled[2];
    char lease[128];
    vipool_reader *reader = NULL;
    vipool_executable executable = {
        .size = sizeof executable,
        .path = path,
        .encoding = VIPOOL_ENCODING_UTF16,
        .style = VIPOOL_PATHS_WINDOWS,
    };
    vipool_rule rule = { .size = sizeof rule };
    vipool_rewriter_options options = {
        .size = sizeof options,
        .find_listener = vipool_listener_find,
    };
    /* Of a variable that does not fit the answer is the room that it needs, of a path that does not
     * fit the room that there is: in either case not less than that. */
    DWORD map_length = GetEnvironmentVariableW(L"VIPOOL_MAP", map, 1024);
    DWORD lease_length = GetEnvironmentVariableA("VIPOOL_LEASE", lease, sizeof lease);
    DWORD path_length = GetModuleFileNameW(NULL, path, 1024);
    size_t directory_length = 0;

    (void)once;
    (void)parameter;
    (void)context;
    if (map_length == 0 || map_length >= 1024 || lease_length == 0 || lease_length >= sizeof lease
        || path_length == 0 || path_length >= 1024) {
        return TRUE;
    }
    if (GetEnvironmentVariableA("VIPOOL_DISABLE", disabled, sizeof disabled) == 1
        && disabled[0] == '1') {
        return TRUE;
    }
    if (vipool_handle_parse(lease, lease_length, &options.handle) != VIPOOL_OK
        || vipool_utf16_to_utf8((const uint16_t *)map, map_length, directory, sizeof directory,
                                &directory_length) != VIPOOL_OK
        || vipool_reader_open(directory, directory_length, &reader) != VIPOOL_OK) {
        return TRUE;
    }
    executable.path_length = path_length;
    if (vipool_reader_find_rule(reader, &executable, &rule) == VIPOOL_OK) {
        options.rule = rule.id;
        (void)vipool_rewriter_new(reader, &options, &rewriter);
    }
    /* The rewriter keeps what it needs. */
    vipool_reader_close(reader);
    return TRUE;
}

BOOL WINAPI DllMain(HINSTANCE module, DWORD reason, LPVOID reserved)
{
    (void)module;
    (void)reserved;
    if (reason == DLL_PROCESS_ATTACH) {
        HMODULE winsock = GetModuleHandleW(L"ws2_32.dll");
        replace((const void *)GetProcAddress(winsock, "bind"), (const void *)hooked_bind);
        replace((const void *)GetProcAddress(winsock, "connect"), (const void *)hooked_connect);
        replace((const void *)GetProcAddress(winsock, "getsockname"),
                (const void *)hooked_getsockname);
    }
    return TRUE;
}
