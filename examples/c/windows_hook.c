/* A vendor's hook DLL for Windows. It replaces bind, connect and getsockname in the import table of
 * the program that loads it, and rewrites the addresses of these calls with vipool.dll.
 *
 *     x86_64-w64-mingw32-gcc -shared -o windows_hook.dll windows_hook.c libvipool.dll.a -lws2_32
 *
 * The environment contains the directory of the map (VIPOOL_MAP) and the handle of the session
 * (VIPOOL_LEASE). This example does not show how a vendor loads the DLL into the process. The DLL
 * changes the import table, because this method is the simplest. The method misses calls from other
 * DLLs, and calls of functions that the program finds with GetProcAddress.
 *
 * The DLL does not replace listen, because on Windows, listen does not bind an unbound socket: it
 * fails with WSAEINVAL. A hook that sets VIPOOL_REWRITER_DEFER_WILDCARD must replace listen. This
 * DLL does not set the flag, so a bind to 0.0.0.0:0 becomes a bind to the virtual IP. On Windows, a
 * socket that is bound to the virtual IP cannot connect to a loopback address.
 */

#include <winsock2.h>
#include <ws2tcpip.h>
#include <windows.h>
#include <string.h>

#include <vipool.h>

/* The rewriter of this process. Without a rule or a lease, the rewriter is NULL and every call
 * passes. */
static vipool_rewriter *rewriter;

/* Creates the rewriter from the lease and the rule of this process. */
static BOOL CALLBACK create_rewriter(INIT_ONCE *once, void *parameter, void **context);

/* Returns the rewriter. The first hooked call creates it. DllMain cannot create it, because the
 * system holds the loader lock during DllMain, and DllMain may call only few functions. */
static vipool_rewriter *get_rewriter(void)
{
    static INIT_ONCE once = INIT_ONCE_STATIC_INIT;
    (void)InitOnceExecuteOnce(&once, create_rewriter, NULL, NULL);
    return rewriter;
}

/* ---- Callbacks: facts about a socket ---------------------------------------------------------- */

/* The import table of this DLL is not changed, so these calls reach the system. */

static uint32_t get_local(void *context, void *buffer, uint32_t capacity)
{
    SOCKET sock = *(SOCKET *)context;
    int length = (int)capacity;
    WSAPROTOCOL_INFOW protocol_info;
    int info_length = sizeof protocol_info;
    struct sockaddr *name = buffer;
    if (getsockname(sock, name, &length) == 0) {
        return (uint32_t)length;
    }
    /* On an unbound socket, getsockname of Winsock fails. vipool expects 0.0.0.0:0 or [::]:0 for
     * such a socket. */
    if (WSAGetLastError() != WSAEINVAL
        || getsockopt(sock, SOL_SOCKET, SO_PROTOCOL_INFOW, (char *)&protocol_info, &info_length) != 0) {
        return 0;
    }
    memset(buffer, 0, capacity);
    name->sa_family = (ADDRESS_FAMILY)protocol_info.iAddressFamily;
    return protocol_info.iAddressFamily == AF_INET6 ? sizeof(struct sockaddr_in6)
           : protocol_info.iAddressFamily == AF_INET ? sizeof(struct sockaddr_in)
                                            : 0;
}

static uint32_t get_peer(void *context, void *buffer, uint32_t capacity)
{
    int length = (int)capacity;
    return getpeername(*(SOCKET *)context, buffer, &length) == 0 ? (uint32_t)length : 0;
}

static DWORD get_option(SOCKET sock, int level, int option)
{
    DWORD value = 0;
    int length = sizeof value;
    return getsockopt(sock, level, option, (char *)&value, &length) == 0 ? value : 0;
}

static uint32_t get_protocol(void *context)
{
    DWORD socket_type = get_option(*(SOCKET *)context, SOL_SOCKET, SO_TYPE);
    return socket_type == SOCK_STREAM  ? VIPOOL_PROTOCOL_TCP
           : socket_type == SOCK_DGRAM ? VIPOOL_PROTOCOL_UDP
                                : VIPOOL_PROTOCOL_OTHER;
}

static uint32_t get_flags(void *context)
{
    SOCKET sock = *(SOCKET *)context;
    uint32_t flags = get_option(sock, IPPROTO_IPV6, IPV6_V6ONLY) ? VIPOOL_SOCKET_V6ONLY : 0;
    if (get_option(sock, SOL_SOCKET, SO_REUSEADDR) || get_option(sock, SOL_SOCKET, SO_BROADCAST)) {
        flags |= VIPOOL_SOCKET_SHARES_PORT;
    }
    return flags;
}

static vipool_socket describe_socket(SOCKET *sock)
{
    vipool_socket socket_facts = {
        .size = sizeof socket_facts,
        .get_local = get_local,
        .get_protocol = get_protocol,
        .get_flags = get_flags,
        .context = sock,
    };
    return socket_facts;
}

/* ---- The replacements ------------------------------------------------------------------------ */

/* The replacements keep the last error unless the call itself fails. If a call to vipool fails, for
 * example without a rewriter, the outcome stays VIPOOL_PASSED. */

static vipool_outcome passed_outcome(void)
{
    vipool_outcome outcome = { .size = sizeof outcome, .kind = VIPOOL_PASSED };
    return outcome;
}

/* Sets IPV6_V6ONLY to `value` if the outcome requires that the option is cleared for the call. */
static void set_v6only(SOCKET sock, const vipool_outcome *outcome, DWORD value)
{
    int saved_error = WSAGetLastError();
    if (outcome->flags & VIPOOL_DO_CLEAR_V6ONLY) {
        (void)setsockopt(sock, IPPROTO_IPV6, IPV6_V6ONLY, (const char *)&value, sizeof value);
    }
    WSASetLastError(saved_error);
}

static int bind_to(SOCKET sock, const vipool_sockaddr *address)
{
    return bind(sock, (const void *)address->bytes, (int)address->length);
}

/* Returns whether the hooked call must fail after a failed bind to `address`. It must fail if this
 * address is on no interface, unless the settings allow the call without the address. */
static BOOL must_fail_without_address(const vipool_sockaddr *address)
{
    uint32_t is_retry_allowed = 0;
    vipool_ip ip;
    if (WSAGetLastError() != WSAEADDRNOTAVAIL) {
        return FALSE;
    }
    if (vipool_ip_from_sockaddr(address->bytes, address->length, &ip, NULL) == VIPOOL_OK) {
        (void)vipool_rewrite_is_retry_allowed(rewriter, &ip, &is_retry_allowed);
    }
    /* vipool_ip_from_sockaddr() clears the error message of the thread. The access to this
     * thread-local memory can reset the last error. */
    WSASetLastError(WSAEADDRNOTAVAIL);
    return !is_retry_allowed;
}

static int WSAAPI hooked_bind(SOCKET sock, const struct sockaddr *name, int length)
{
    int saved_error = WSAGetLastError();
    vipool_socket socket_facts = describe_socket(&sock);
    vipool_outcome outcome = passed_outcome();

    (void)vipool_rewrite_bind(get_rewriter(), &socket_facts, name, (uint32_t)length, &outcome);
    if (outcome.kind == VIPOOL_REFUSED) {
        WSASetLastError(outcome.error);
        return SOCKET_ERROR;
    }
    WSASetLastError(saved_error);
    if (outcome.kind == VIPOOL_REWRITTEN) {
        set_v6only(sock, &outcome, 0);
        if (bind_to(sock, &outcome.address) == 0) {
            return 0;
        }
        set_v6only(sock, &outcome, 1);
        if (WSAGetLastError() != WSAEADDRNOTAVAIL || must_fail_without_address(&outcome.address)) {
            return SOCKET_ERROR;
        }
        WSASetLastError(saved_error);
    }
    return bind(sock, name, length);
}

static int WSAAPI hooked_connect(SOCKET sock, const struct sockaddr *name, int length)
{
    int saved_error = WSAGetLastError();
    vipool_socket socket_facts = describe_socket(&sock);
    vipool_outcome outcome = passed_outcome();
    int result = 0;

    (void)vipool_rewrite_connect(get_rewriter(), &socket_facts, name, (uint32_t)length, &outcome);
    if (outcome.kind == VIPOOL_REFUSED) {
        WSASetLastError(outcome.error);
        return SOCKET_ERROR;
    }
    WSASetLastError(saved_error);
    if (outcome.kind != VIPOOL_REWRITTEN) {
        return connect(sock, name, length);
    }
    set_v6only(sock, &outcome, 0);
    if ((outcome.flags & VIPOOL_DO_BIND_FIRST) && bind_to(sock, &outcome.bind) != 0
        && must_fail_without_address(&outcome.bind)) {
        result = SOCKET_ERROR;
    } else {
        WSASetLastError(saved_error);
        result = connect(sock, (const void *)outcome.address.bytes, (int)outcome.address.length);
    }
    if (result != 0 && WSAGetLastError() != WSAEWOULDBLOCK) {
        set_v6only(sock, &outcome, 1);
    }
    return result;
}

static int WSAAPI hooked_getsockname(SOCKET sock, struct sockaddr *name, int *length)
{
    vipool_outcome outcome = passed_outcome();
    int saved_error;
    if (getsockname(sock, name, length) != 0) {
        return SOCKET_ERROR;
    }
    saved_error = WSAGetLastError();
    (void)vipool_rewrite_visible_address(get_rewriter(), name, (uint32_t)*length, get_peer, &sock, &outcome);
    if (outcome.kind == VIPOOL_REWRITTEN) {
        /* The rewritten address has the same family, so it fits. */
        memcpy(name, outcome.address.bytes, outcome.address.length);
    }
    WSASetLastError(saved_error);
    return 0;
}

/* ---- Start of the process -------------------------------------------------------------------- */

/* Replaces a function in the import table of the program. */
static void replace_import(const void *original, const void *replacement)
{
    BYTE *image_base = (BYTE *)GetModuleHandleW(NULL);
    const IMAGE_NT_HEADERS *headers =
        (const void *)(image_base + ((const IMAGE_DOS_HEADER *)image_base)->e_lfanew);
    const IMAGE_DATA_DIRECTORY *directory =
        &headers->OptionalHeader.DataDirectory[IMAGE_DIRECTORY_ENTRY_IMPORT];
    const IMAGE_IMPORT_DESCRIPTOR *imported_dll = (const void *)(image_base + directory->VirtualAddress);
    if (directory->VirtualAddress == 0) {
        return;
    }
    for (; imported_dll->Name != 0; imported_dll++) {
        const void **entry = (const void **)(image_base + imported_dll->FirstThunk);
        for (; *entry != NULL; entry++) {
            DWORD old_protection;
            if (*entry == original
                && VirtualProtect(entry, sizeof *entry, PAGE_READWRITE, &old_protection)) {
                *entry = replacement;
                VirtualProtect(entry, sizeof *entry, old_protection, &old_protection);
            }
        }
    }
}

/* If the map, the lease or the rule is missing, the rewriter stays NULL and every call passes. */
static BOOL CALLBACK create_rewriter(INIT_ONCE *once, void *parameter, void **context)
{
    /* The buffers are static, because they are large. This is safe, because InitOnceExecuteOnce
     * runs this function once. */
    static wchar_t map_directory[1024];
    static char directory_utf8[3 * 1024];
    static wchar_t program_path[1024];
    char disable_value[2];
    char lease[128];
    vipool_reader *reader = NULL;
    vipool_executable executable = {
        .size = sizeof executable,
        .path = program_path,
        .encoding = VIPOOL_ENCODING_UTF16,
        .style = VIPOOL_PATHS_WINDOWS,
    };
    vipool_rule rule = { .size = sizeof rule };
    vipool_rewriter_options options = {
        .size = sizeof options,
        .find_listener = vipool_listener_find,
    };
    /* If a value does not fit, these functions return at least the capacity. */
    DWORD map_directory_length = GetEnvironmentVariableW(L"VIPOOL_MAP", map_directory, 1024);
    DWORD lease_length = GetEnvironmentVariableA("VIPOOL_LEASE", lease, sizeof lease);
    DWORD path_length = GetModuleFileNameW(NULL, program_path, 1024);
    size_t directory_utf8_length = 0;

    (void)once;
    (void)parameter;
    (void)context;
    if (map_directory_length == 0 || map_directory_length >= 1024 || lease_length == 0 || lease_length >= sizeof lease
        || path_length == 0 || path_length >= 1024) {
        return TRUE;
    }
    if (GetEnvironmentVariableA("VIPOOL_DISABLE", disable_value, sizeof disable_value) == 1
        && disable_value[0] == '1') {
        return TRUE;
    }
    if (vipool_handle_parse(lease, lease_length, &options.handle) != VIPOOL_OK
        || vipool_utf16_to_utf8((const uint16_t *)map_directory, map_directory_length, directory_utf8, sizeof directory_utf8,
                                &directory_utf8_length) != VIPOOL_OK
        || vipool_reader_open(directory_utf8, directory_utf8_length, &reader) != VIPOOL_OK) {
        return TRUE;
    }
    executable.path_length = path_length;
    if (vipool_reader_find_rule(reader, &executable, &rule) == VIPOOL_OK) {
        options.rule = rule.id;
        (void)vipool_rewriter_new(reader, &options, &rewriter);
    }
    /* The rewriter does not need the reader. */
    vipool_reader_close(reader);
    return TRUE;
}

BOOL WINAPI DllMain(HINSTANCE module, DWORD reason, LPVOID reserved)
{
    (void)module;
    (void)reserved;
    if (reason == DLL_PROCESS_ATTACH) {
        HMODULE winsock = GetModuleHandleW(L"ws2_32.dll");
        replace_import((const void *)GetProcAddress(winsock, "bind"), (const void *)hooked_bind);
        replace_import((const void *)GetProcAddress(winsock, "connect"), (const void *)hooked_connect);
        replace_import((const void *)GetProcAddress(winsock, "getsockname"),
                (const void *)hooked_getsockname);
    }
    return TRUE;
}
