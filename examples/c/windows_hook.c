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
 */

#include <winsock2.h>
#include <ws2tcpip.h>
#include <windows.h>
#include <string.h>

#include <vipool.h>

/* Made once, before the first call is replaced. NULL (not listed, no lease): every call goes on as
 * it is. */
static vipool_rewriter *rewriter;

/* The system's own. This DLL's import table is left alone, so they are called by their names. */

static uint32_t ask_local(void *context, void *buffer, uint32_t capacity)
{
    int length = (int)capacity;
    return getsockname(*(SOCKET *)context, buffer, &length) == 0 ? (uint32_t)length : 0;
}

static uint32_t ask_peer(void *context, void *buffer, uint32_t capacity)
{
    int length = (int)capacity;
    return getpeername(*(SOCKET *)context, buffer, &length) == 0 ? (uint32_t)length : 0;
}

static uint32_t ask_protocol(void *context)
{
    int type = 0;
    int length = sizeof type;
    (void)getsockopt(*(SOCKET *)context, SOL_SOCKET, SO_TYPE, (char *)&type, &length);
    return type == SOCK_STREAM  ? VIPOOL_PROTOCOL_TCP
           : type == SOCK_DGRAM ? VIPOOL_PROTOCOL_UDP
                                : VIPOOL_PROTOCOL_OTHER;
}

static vipool_socket facts_of(SOCKET *s)
{
    vipool_socket facts;
    memset(&facts, 0, sizeof facts);
    facts.size = sizeof facts;
    facts.ask_local = ask_local;
    facts.ask_protocol = ask_protocol;
    facts.context = s;
    return facts;
}

static vipool_outcome nothing_yet(void)
{
    vipool_outcome outcome;
    memset(&outcome, 0, sizeof outcome);
    outcome.size = sizeof outcome;
    outcome.kind = VIPOOL_PASSED;
    return outcome;
}

static int refused(const vipool_outcome *outcome)
{
    WSASetLastError(outcome->error);
    return SOCKET_ERROR;
}

/* A failed call of vipool, as with a bad pointer, leaves VIPOOL_PASSED: the system judges. */

static int WSAAPI hooked_bind(SOCKET s, const struct sockaddr *name, int length)
{
    vipool_socket facts = facts_of(&s);
    vipool_outcome outcome = nothing_yet();
    (void)vipool_rewrite_bind(rewriter, &facts, name, (uint32_t)length, &outcome);
    if (outcome.kind == VIPOOL_REFUSED) {
        return refused(&outcome);
    }
    if (outcome.kind == VIPOOL_REWRITTEN) {
        name = (const void *)outcome.address.bytes;
        length = (int)outcome.address.length;
    }
    return bind(s, name, length);
}

static int WSAAPI hooked_connect(SOCKET s, const struct sockaddr *name, int length)
{
    vipool_socket facts = facts_of(&s);
    vipool_outcome outcome = nothing_yet();
    (void)vipool_rewrite_connect(rewriter, &facts, name, (uint32_t)length, &outcome);
    if (outcome.kind == VIPOOL_REFUSED) {
        return refused(&outcome);
    }
    if (outcome.kind == VIPOOL_REWRITTEN) {
        if (outcome.flags & VIPOOL_DO_BIND_FIRST) {
            (void)bind(s, (const void *)outcome.bind.bytes, (int)outcome.bind.length);
        }
        name = (const void *)outcome.address.bytes;
        length = (int)outcome.address.length;
    }
    return connect(s, name, length);
}

static int WSAAPI hooked_getsockname(SOCKET s, struct sockaddr *name, int *length)
{
    vipool_outcome outcome = nothing_yet();
    if (getsockname(s, name, length) != 0) {
        return SOCKET_ERROR;
    }
    (void)vipool_rewrite_shown(rewriter, name, (uint32_t)*length, ask_peer, &s, &outcome);
    if (outcome.kind == VIPOOL_REWRITTEN) {
        /* Of the same family, so there is room. */
        memcpy(name, outcome.address.bytes, outcome.address.length);
    }
    return 0;
}

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

/* Finds the lease and the rule of this process. Whatever is missing, the program runs untouched. */
static void start(void)
{
    wchar_t map[MAX_PATH];
    wchar_t wide[MAX_PATH];
    char lease[128];
    vipool_reader *reader = NULL;
    vipool_executable executable;
    vipool_rule rule;
    vipool_rewriter_options options;
    DWORD map_length = GetEnvironmentVariableW(L"VIPOOL_MAP", map, MAX_PATH);
    DWORD lease_length = GetEnvironmentVariableA("VIPOOL_LEASE", lease, sizeof lease);
    DWORD units = GetModuleFileNameW(NULL, wide, MAX_PATH);

    memset(&options, 0, sizeof options);
    options.size = sizeof options;
    options.find_listener = vipool_find_listener;
    memset(&executable, 0, sizeof executable);
    executable.size = sizeof executable;
    executable.path = wide;
    executable.path_length = units;
    executable.encoding = VIPOOL_ENCODING_UTF16;
    executable.style = VIPOOL_PATHS_WINDOWS;
    memset(&rule, 0, sizeof rule);
    rule.size = sizeof rule;
    if (map_length == 0 || lease_length == 0
        || vipool_handle_parse(lease, lease_length, &options.handle) != VIPOOL_OK
        || vipool_reader_attach_utf16((const uint16_t *)map, map_length, &reader) != VIPOOL_OK) {
        return;
    }
    if (vipool_reader_find_rule(reader, &executable, &rule) == VIPOOL_OK) {
        HMODULE winsock = GetModuleHandleW(L"ws2_32.dll");
        options.rule = rule.id;
        if (vipool_rewriter_new(reader, &options, &rewriter) == VIPOOL_OK && winsock != NULL) {
            replace((const void *)GetProcAddress(winsock, "bind"),
                    (const void *)hooked_bind);
            replace((const void *)GetProcAddress(winsock, "connect"),
                    (const void *)hooked_connect);
            replace((const void *)GetProcAddress(winsock, "getsockname"),
                    (const void *)hooked_getsockname);
        }
    }
    /* The rewriter keeps what it needs. */
    vipool_reader_free(reader);
}

BOOL WINAPI DllMain(HINSTANCE module, DWORD reason, LPVOID reserved)
{
    (void)module;
    (void)reserved;
    if (reason == DLL_PROCESS_ATTACH) {
        start();
    }
    return TRUE;
}
