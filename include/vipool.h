/* vipool: an IP address of its own for every session on a multi-user server.
 *
 * Copyright the vipool authors. Licensed under the Apache License, Version 2.0.
 *
 * Conventions, kept by every function:
 *
 *  - What can fail returns a vipool_status: VIPOOL_OK (0) or a negative number that never changes
 *    its meaning. Out-parameters come last and are written on success only (of VIPOOL_ERR_BUFFER
 *    the length that is needed).
 *  - A NULL where none is allowed is VIPOOL_ERR_NULL. Parameters marked "may be NULL" may.
 *  - Opaque types are made by the functions that say so and given back by their own _free
 *    function, exactly once; _free takes NULL too. What is const is not changed.
 *  - Structs that begin with a member `size` are made by the caller: zero them and set size to
 *    sizeof(the struct). Zero is the default of every member. Programs compiled with an older
 *    header keep working: what their struct lacks is zero. A struct of a newer header is taken
 *    unless it uses (sets to non-zero) what this library does not know.
 *  - Texts are UTF-8 with a length in bytes; they need no NUL. A buffer for one may be NULL if its
 *    capacity is 0: VIPOOL_ERR_BUFFER tells the length. Paths have variants that take UTF-16 with a
 *    length in units, as Windows has them, but for the directories of the vipool_client_ functions.
 *  - Addresses are vipool_ip, or the bytes of a sockaddr with their length.
 *  - Kinds and flags enter as uint32_t and are checked, but for the flags of a vipool_socket:
 *    unknown ones do nothing. Set what is marked "Zero" to zero: this version does not look at it, a
 *    later one may.
 *  - Times are ticks: seconds since the machine was started (vipool_now()).
 *  - Callbacks are called on the thread that made the call, before it returns, and must not
 *    throw or longjmp.
 *  - "In a signal handler" means: takes no lock, allocates nothing, keeps errno, leaves the last
 *    error text alone; may also be called in the child of a fork or vfork. Of other functions a
 *    child may call those of readers and rewriters; a map is to be opened again there
 *    (VIPOOL_ERR_FORKED).
 *  - Where several threads may use a handle at once, they may call every function with it at once;
 *    otherwise one after the other. Functions without a handle may be called by any thread.
 *  - The library starts no threads, sets no environment variables or signal handlers, and writes
 *    nothing to standard output or error. A mistake inside it is VIPOOL_ERR_PANIC.
 *
 * Two kinds of program use this header.
 *
 * An agent opens and closes sessions:
 *  1. Read what the administrator says (vipool_farm_load(), or vipool_farm_new() and what follows
 *     it), show what is wrong (vipool_farm_report()), and plan this server with its interfaces
 *     (vipool_interface_list_new(), vipool_farm_plan(), vipool_plan_follow_links()). Or build a plan
 *     without a farm (vipool_plan_new()).
 *  2. Make the map (vipool_map_create()) in vipool_map_directory(); VIPOOL_MAP_EXCLUSIVE if nobody
 *     else opens sessions. The library gives out addresses; to put them on the interfaces that the
 *     match names, as /32 or /128, is up to the agent or to `vipool up`.
 *  3. Close what ended meanwhile: vipool_map_reconcile().
 *  4. At a logon vipool_map_open_session(); give vipool_handle_format() of the handle to the
 *     session's programs in the environment variable VIPOOL_LEASE. At a logoff vipool_map_close().
 *  5. By a timer, every ten seconds or so, vipool_map_reap().
 *  A map may be closed and opened again at any time (vipool_map_open()): sessions stay open.
 *
 * A hook inside an application rewrites its socket calls:
 *  1. While it is loaded: nothing if the environment has VIPOOL_DISABLE=1. (A process with more
 *     rights than its user, AT_SECURE, reads nothing from the environment.) Else map the map
 *     (vipool_reader_attach()), and find the rule that the program is under
 *     (vipool_reader_find_rule(), else vipool_reader_parents_rule()) and its lease (the handle in
 *     VIPOOL_LEASE, else vipool_reader_lease_of_process()). Without all three leave the program alone.
 *  2. Make a rewriter (vipool_rewriter_new()) and keep it for good.
 *  3. In each hooked call ask the vipool_rewrite_ function of that name, do what the vipool_outcome
 *     says, and make the original call. Nothing of the library is held meanwhile: the call may
 *     block, or never return.
 *  4. Keep the reader too, and ask vipool_reader_is_superseded() in each hooked call: it reads one
 *     word. When it says so, do all of it again with the new map, as soon as a call is made where the
 *     program may allocate. Do not free the old ones: other threads may be using them.
 *
 * examples/cpp/agent.cpp is an agent. examples/c/hook.c and examples/c/windows_hook.c show the third
 * step of a hook and as much of the first two as a lease that is handed in and a rule of the
 * program's own need.
 */

#ifndef VIPOOL_H
#define VIPOOL_H

/* Made by `cargo xtask header` of src/capi: change it there. */

#include <stddef.h>
#include <stdint.h>

/**
 * Major part of the version of this header: it changes when a program must be changed.
 */
#define VIPOOL_VERSION_MAJOR 0

/**
 * Minor part of the version of this header: it changes when something is added.
 */
#define VIPOOL_VERSION_MINOR 1

/**
 * Patch part of the version of this header: it changes when only the insides changed.
 */
#define VIPOOL_VERSION_PATCH 0

/**
 * The version of this header as one number: major * 1000000 + minor * 1000 + patch.
 */
#define VIPOOL_VERSION_NUMBER 1000

/**
 * The most bytes that a sockaddr given back has: sizeof(struct sockaddr_in6).
 */
#define VIPOOL_SOCKADDR_MAX 28

/**
 * Room for the leases of one session; fewer may be used.
 */
#define VIPOOL_MAX_LEASES 4

/**
 * Of vipool_server.flags: sessions there get no addresses.
 */
#define VIPOOL_SERVER_DISABLED 1

/**
 * Of vipool_server.flags: max_sessions counts; otherwise that of the farm's settings.
 */
#define VIPOOL_SERVER_MAX_SESSIONS 2

/**
 * Of vipool_rules.flags: binds pass when the virtual IP is on no interface; otherwise they fail
 * with EADDRNOTAVAIL.
 */
#define VIPOOL_RULE_PASS_WHEN_MISSING 1

/**
 * Of vipool_rules.flags: other sessions' addresses are hidden from getifaddrs and
 * GetAdaptersAddresses.
 */
#define VIPOOL_RULE_HIDE_ADDRESSES 2

/**
 * Of vipool_settings.flags: a cooled address becomes free only when vipool_map_reap() found no
 * socket on it.
 */
#define VIPOOL_SETTING_CHECK_IN_USE 1

/**
 * Of vipool_settings.flags: vipool_map_open_session() answers VIPOOL_ERR_NOT_READY until
 * vipool_map_restored() was called.
 */
#define VIPOOL_SETTING_AWAIT_RESTORE 2

/**
 * A feature: the session's virtual IP in place of the host's address.
 */
#define VIPOOL_FEATURE_VIRTUAL_IP 1

/**
 * A feature: a loopback address of the session's own in place of 127.0.0.1.
 */
#define VIPOOL_FEATURE_LOOPBACK 2

/**
 * A feature: the client's address is what the host's own name resolves to.
 */
#define VIPOOL_FEATURE_CLIENT_IP 4

/**
 * Of vipool_program.flags: children that are on no list of their own are under this rule too.
 */
#define VIPOOL_PROGRAM_INHERIT 1

/**
 * Of vipool_program.flags: a bind to 127.0.0.1 with port 0 is rewritten too.
 */
#define VIPOOL_PROGRAM_MAP_EPHEMERAL 2

/**
 * Of vipool_program.flags: a bind to 0.0.0.0 with a fixed port becomes the session's loopback
 * address where there is no virtual IP; otherwise it stays as it is.
 */
#define VIPOOL_PROGRAM_WILDCARD_LOOPBACK 4

/**
 * Of vipool_program.flags: a connect to 127.0.0.1 always goes to the session's own address;
 * otherwise to the session's own listener if there is one, else to the host's.
 */
#define VIPOOL_PROGRAM_CONNECT_OWN 8

/**
 * Of vipool_map_options.flags: keep the writer lock for as long as the map is open. Operations
 * then cost no system call, and other writers get VIPOOL_ERR_BUSY_EXCLUSIVE with the pid.
 */
#define VIPOOL_MAP_EXCLUSIVE 1

/**
 * Of vipool_opened.flags: the session was open already; its leases are the same, or more if some
 * were missing.
 */
#define VIPOOL_OPENED_ALREADY 1

/**
 * Of vipool_opened.flags: this call brought a pool below its low-water mark.
 */
#define VIPOOL_OPENED_LOW_WATER 2

/**
 * Of vipool_slot_row.flags: the address is kept for a user.
 */
#define VIPOOL_SLOT_RESERVED 1

/**
 * Of vipool_slot_row.flags: the address was taken out of use.
 */
#define VIPOOL_SLOT_DRAINED 2

/**
 * Room for the name of a user with its NUL.
 */
#define VIPOOL_USER_ROOM 64

/**
 * The answer of a vipool_find_listener_fn: nothing listens on any of them.
 */
#define VIPOOL_LISTENER_NONE -1

/**
 * The answer of a vipool_find_listener_fn: the kernel did not say.
 */
#define VIPOOL_LISTENER_UNKNOWN -2

/**
 * Of vipool_rewriter_options.flags: TCP binds to the wildcard address without a port are
 * put off until the destination is known, as Windows needs it. VIPOOL_DO_DEFER says what that asks
 * of a hook.
 */
#define VIPOOL_REWRITER_DEFER_WILDCARD 1

/**
 * Of vipool_socket.flags: the socket is for IPv6 alone (IPV6_V6ONLY).
 */
#define VIPOOL_SOCKET_V6ONLY 1

/**
 * Of vipool_socket.flags: the socket can receive what others receive too: SO_REUSEADDR,
 * SO_REUSEPORT or SO_BROADCAST is set.
 */
#define VIPOOL_SOCKET_SHARES_PORT 2

/**
 * Of vipool_outcome.flags: clear IPV6_V6ONLY first (and set it again if the call fails; one that
 * goes on, EINPROGRESS or WSAEWOULDBLOCK, did not).
 */
#define VIPOOL_DO_CLEAR_V6ONLY 1

/**
 * Of vipool_outcome.flags: do not bind now but report success, and remember the socket until its
 * destination is known. Only with VIPOOL_REWRITER_DEFER_WILDCARD, for Windows: ConnectEx wants a
 * socket that is bound, and one that is bound to a virtual IP reaches no loopback address there.
 * A socket that was bound to the wildcard address without a port is then, in each call:
 *
 *  - bind: remembered if it is not bound yet (getsockname answers WSAEINVAL) and there is room to
 *    remember it; otherwise bound to `address` at once. A second bind of a remembered socket fails
 *    with WSAEINVAL, without asking.
 *  - connect, WSAConnect: forgotten, and what vipool_rewrite_connect() says is done; the call binds
 *    what is still unbound.
 *  - ConnectEx: the same, and if it is still unbound it is bound to the wildcard address and port 0
 *    before the call. Of a socket that is not remembered VIPOOL_DO_BIND_FIRST is ignored: ConnectEx
 *    answers WSAEINVAL if it was never bound.
 *  - listen, getsockname: forgotten, and bound to what vipool_rewrite_listen() says, or to the
 *    wildcard address and port 0 if that passes; then the call is made. Of a socket that is not
 *    remembered nothing is asked: if it was never bound they answer WSAEINVAL.
 *  - closesocket: forgotten.
 */
#define VIPOOL_DO_DEFER 2

/**
 * Of vipool_outcome.flags: bind the socket to `bind` (port 0) first. If that fails, go on all the
 * same, unless the address is on no interface and vipool_rewrite_retries() says that the program
 * gets the error.
 */
#define VIPOOL_DO_BIND_FIRST 4

/**
 * Of vipool_outcome.flags, with VIPOOL_DO_BIND_FIRST: that bind leaves the choice of the port to
 * the connect, so that two destinations can share one: on Linux set IP_BIND_ADDRESS_NO_PORT before
 * it, and clear it after it unless the program had set it: a bind of the program's own chooses a
 * port at once.
 */
#define VIPOOL_DO_LATE_PORT 8

/**
 * What a call came to: VIPOOL_OK or one of these. The numbers never change; -1 to -19 are
 * mistakes of the caller's, the others come from what it was called with.
 *
 * vipool_status_text() has a sentence for each, vipool_last_error() the details of the last one.
 */
enum vipool_status
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * Done.
     */
    VIPOOL_OK = 0,
    /**
     * A pointer that must not be NULL is.
     */
    VIPOOL_ERR_NULL = -1,
    /**
     * The size at the start of a struct is none that any version of this struct ever had.
     */
    VIPOOL_ERR_STRUCT_SIZE = -2,
    /**
     * The caller's struct is newer than the library and uses a field that this one does not know.
     */
    VIPOOL_ERR_UNKNOWN_FIELD = -3,
    /**
     * A text is not UTF-8.
     */
    VIPOOL_ERR_UTF8 = -4,
    /**
     * A text is not UTF-16.
     */
    VIPOOL_ERR_UTF16 = -5,
    /**
     * A number that stands for a kind, a feature or a flag is none of those defined.
     */
    VIPOOL_ERR_KIND = -6,
    /**
     * Not an address: unknown family, wrong length, or text that does not say one.
     */
    VIPOOL_ERR_ADDRESS = -7,
    /**
     * The caller's buffer is too small; the length that is needed was written.
     */
    VIPOOL_ERR_BUFFER = -8,
    /**
     * There is no such element: past the end, or not known by this name.
     */
    VIPOOL_ERR_NOT_FOUND = -9,
    /**
     * A mistake inside the library. The call did not finish; please report the last error text.
     */
    VIPOOL_ERR_PANIC = -10,
    /**
     * This system has no such thing.
     */
    VIPOOL_ERR_UNSUPPORTED = -11,
    /**
     * Not a range: neither an address, a CIDR prefix nor first-last.
     */
    VIPOOL_ERR_RANGE_SYNTAX = -20,
    /**
     * A CIDR prefix with bits set behind the prefix length.
     */
    VIPOOL_ERR_RANGE_HOST_BITS = -21,
    /**
     * First address above last, or two families.
     */
    VIPOOL_ERR_RANGE_ORDER = -22,
    /**
     * IPv4 and IPv6 in one pool.
     */
    VIPOOL_ERR_POOL_MIXED = -23,
    /**
     * Two ranges of a pool share addresses.
     */
    VIPOOL_ERR_POOL_OVERLAP = -24,
    /**
     * A loopback pool reaches outside 127.0.0.2-127.255.255.254.
     */
    VIPOOL_ERR_POOL_NOT_LOOPBACK = -25,
    /**
     * Not a session id: zero, a value above 2^56-1, or a text that says none.
     */
    VIPOOL_ERR_SESSION_ID = -26,
    /**
     * The audit id 4294967295: the process has no session.
     */
    VIPOOL_ERR_SESSION_UNSET = -27,
    /**
     * Not the text of a handle.
     */
    VIPOOL_ERR_HANDLE = -28,
    /**
     * No interface has an address in the subnet of the range.
     */
    VIPOOL_ERR_NO_INTERFACE = -29,
    /**
     * Several interfaces are in the subnet of the range.
     */
    VIPOOL_ERR_INTERFACE_TIE = -30,
    /**
     * The range is not inside one subnet.
     */
    VIPOOL_ERR_SPANS_SUBNETS = -31,
    /**
     * Every address is in use, reserved or drained.
     */
    VIPOOL_ERR_EXHAUSTED = -40,
    /**
     * Every free address is cooling down; the last error text says until when.
     */
    VIPOOL_ERR_COOLING = -41,
    /**
     * Every free address may still have sockets on it: vipool_map_reap() looks.
     */
    VIPOOL_ERR_LINGERING = -42,
    /**
     * The pool is being drained.
     */
    VIPOOL_ERR_DRAINING = -43,
    /**
     * No pool has this name.
     */
    VIPOOL_ERR_UNKNOWN_POOL = -44,
    /**
     * The requested address is in no pool of this server.
     */
    VIPOOL_ERR_EXCLUDED = -45,
    /**
     * The requested address is leased to another session.
     */
    VIPOOL_ERR_TAKEN = -46,
    /**
     * The requested address is cooling down.
     */
    VIPOOL_ERR_ADDRESS_COOLING = -47,
    /**
     * The requested address may still have sockets of its last session on it.
     */
    VIPOOL_ERR_ADDRESS_LINGERING = -48,
    /**
     * The requested address is reserved for another user.
     */
    VIPOOL_ERR_RESERVED = -49,
    /**
     * The requested address is drained.
     */
    VIPOOL_ERR_DRAINED = -50,
    /**
     * The user has as many sessions as one may have.
     */
    VIPOOL_ERR_QUOTA = -51,
    /**
     * The server has as many sessions as it may have.
     */
    VIPOOL_ERR_TOO_MANY_SESSIONS = -52,
    /**
     * The sessions of the operating system have not been restored yet.
     */
    VIPOOL_ERR_NOT_READY = -53,
    /**
     * The address is not reserved.
     */
    VIPOOL_ERR_NOT_RESERVED = -54,
    /**
     * The session is not open.
     */
    VIPOOL_ERR_NOT_OPEN = -60,
    /**
     * The lease was closed before, or belongs to a later session by now. Nothing was freed.
     */
    VIPOOL_ERR_STALE = -61,
    /**
     * The handle is of another boot, network namespace or map. Nothing was freed.
     */
    VIPOOL_ERR_FOREIGN = -62,
    /**
     * The operating system said no; the last error text names the file and its answer.
     */
    VIPOOL_ERR_IO = -70,
    /**
     * There is no map in this directory.
     */
    VIPOOL_ERR_MISSING = -71,
    /**
     * Not a map file, damaged, or of a version this one does not know.
     */
    VIPOOL_ERR_DAMAGED = -72,
    /**
     * The map was made before the last start of the machine, or in another network namespace.
     */
    VIPOOL_ERR_OTHER_BOOT = -73,
    /**
     * The map file is planted or unsafe: a symlink, another owner, writable by others.
     */
    VIPOOL_ERR_UNTRUSTED = -74,
    /**
     * Another writer held the map for too long.
     */
    VIPOOL_ERR_BUSY = -75,
    /**
     * Another writer holds the map for itself.
     */
    VIPOOL_ERR_BUSY_EXCLUSIVE = -76,
    /**
     * The plan cannot be made into a map.
     */
    VIPOOL_ERR_PLAN = -77,
    /**
     * The map was opened by the parent of this process, which was forked since: open it again.
     */
    VIPOOL_ERR_FORKED = -78,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum vipool_status vipool_status;
#else
typedef int32_t vipool_status;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * When a session gets its addresses; it enters as uint32_t.
 */
enum vipool_allocate
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * When the user logs on.
     */
    VIPOOL_ALLOCATE_LOGON = 0,
    /**
     * When somebody starts a listed program in the session. A hook never allocates.
     */
    VIPOOL_ALLOCATE_FIRST_USE = 1,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum vipool_allocate vipool_allocate;
#else
typedef uint32_t vipool_allocate;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * How the texts of a vipool_executable are written; it enters as uint32_t.
 */
enum vipool_encoding
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * Bytes, as POSIX has paths; the process list is UTF-8. Lengths are in bytes.
     */
    VIPOOL_ENCODING_BYTES = 0,
    /**
     * UTF-16, as Windows has paths. Lengths are in units of two bytes; a path of more than 4096
     * bytes of UTF-8 is VIPOOL_ERR_BUFFER.
     */
    VIPOOL_ENCODING_UTF16 = 1,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum vipool_encoding vipool_encoding;
#else
typedef uint32_t vipool_encoding;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What happened.
 */
enum vipool_event_kind
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * A session was given an address: `lease`.
     */
    VIPOOL_EVENT_ASSIGNED = 1,
    /**
     * A session gave an address back: `lease`.
     */
    VIPOOL_EVENT_RELEASED = 2,
    /**
     * A session got no address of a pool: `reason` says why.
     */
    VIPOOL_EVENT_EXHAUSTED = 3,
    /**
     * A pool fell below its low-water mark when this session was opened.
     */
    VIPOOL_EVENT_LOW_WATER = 4,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum vipool_event_kind vipool_event_kind;
#else
typedef uint32_t vipool_event_kind;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * By what a process was found to belong to a session.
 */
enum vipool_found_by
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * Linux: the kernel's audit session.
     */
    VIPOOL_FOUND_BY_AUDIT_SESSION = 1,
    /**
     * Linux: the scope of a logind session, which is its control group.
     */
    VIPOOL_FOUND_BY_SESSION_SCOPE = 2,
    /**
     * Linux: the user's manager, of a user with one session.
     */
    VIPOOL_FOUND_BY_USER_MANAGER = 3,
    /**
     * Windows: the terminal services session.
     */
    VIPOOL_FOUND_BY_WINDOWS_SESSION = 4,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum vipool_found_by vipool_found_by;
#else
typedef uint32_t vipool_found_by;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * How bad a finding is.
 */
enum vipool_level
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * It works, but perhaps not as meant.
     */
    VIPOOL_LEVEL_WARNING = 1,
    /**
     * The farm cannot be used as it is.
     */
    VIPOOL_LEVEL_ERROR = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum vipool_level vipool_level;
#else
typedef uint32_t vipool_level;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * By what a rule matched a program.
 */
enum vipool_matched_by
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * The program is on no rule; its parent handed this one down.
     */
    VIPOOL_MATCHED_INHERITED = 0,
    /**
     * The path of its file, or the full path it was started by.
     */
    VIPOOL_MATCHED_FULL_PATH = 1,
    /**
     * The listed path is a symbolic link that leads to its file.
     */
    VIPOOL_MATCHED_LINK = 2,
    /**
     * The name of its file, in whatever directory.
     */
    VIPOOL_MATCHED_BARE_NAME = 3,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum vipool_matched_by vipool_matched_by;
#else
typedef uint32_t vipool_matched_by;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What becomes of a session when no address is left; it enters as uint32_t.
 */
enum vipool_on_exhausted
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * It starts all the same, with the host's address, and the user is told
     * (vipool_exhausted_message()).
     */
    VIPOOL_ON_EXHAUSTED_PASS = 0,
    /**
     * It does not start.
     */
    VIPOOL_ON_EXHAUSTED_REFUSE = 1,
    /**
     * The agent tries again for up to wait_seconds, then passes. The loop is the agent's.
     */
    VIPOOL_ON_EXHAUSTED_WAIT = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum vipool_on_exhausted vipool_on_exhausted;
#else
typedef uint32_t vipool_on_exhausted;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What becomes of a call.
 */
enum vipool_outcome_kind
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * The call goes on with `address` in place of what the program gave (or is shown), after what
     * `flags` and `bind` say.
     */
    VIPOOL_REWRITTEN = 1,
    /**
     * The call goes on exactly as the program made it; `code` is the vipool_reason.
     */
    VIPOOL_PASSED = 2,
    /**
     * The call is not made: the program gets `error`; `code` is the vipool_refusal.
     */
    VIPOOL_REFUSED = 3,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum vipool_outcome_kind vipool_outcome_kind;
#else
typedef uint32_t vipool_outcome_kind;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * By which rules paths are compared; it enters as uint32_t.
 */
enum vipool_path_style
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * "/" separates, case matters.
     */
    VIPOOL_PATHS_POSIX = 0,
    /**
     * "\" and "/" separate, case does not matter, "\\?\" and trailing dots and spaces are dropped.
     */
    VIPOOL_PATHS_WINDOWS = 1,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum vipool_path_style vipool_path_style;
#else
typedef uint32_t vipool_path_style;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What the addresses of a pool are for; it enters as uint32_t.
 */
enum vipool_pool_kind
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * V: addresses of the network.
     */
    VIPOOL_POOL_VIRTUAL_IP = 1,
    /**
     * L: addresses inside 127.0.0.2-127.255.255.254; every second one stands for ::1.
     */
    VIPOOL_POOL_LOOPBACK = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum vipool_pool_kind vipool_pool_kind;
#else
typedef uint32_t vipool_pool_kind;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * Whose sessions a rule sends to a pool; it enters as uint32_t.
 */
enum vipool_pool_rule
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * Those of the user of this name.
     */
    VIPOOL_POOL_RULE_USER = 1,
    /**
     * Those of members of the group of this name.
     */
    VIPOOL_POOL_RULE_GROUP = 2,
    /**
     * Those in which this program is started: a full path or a bare file name.
     */
    VIPOOL_POOL_RULE_PROGRAM = 3,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum vipool_pool_rule vipool_pool_rule;
#else
typedef uint32_t vipool_pool_rule;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What a socket carries; it enters as uint32_t.
 */
enum vipool_protocol
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * Anything else: it is left alone.
     */
    VIPOOL_PROTOCOL_OTHER = 0,
    /**
     * TCP, or MPTCP.
     */
    VIPOOL_PROTOCOL_TCP = 1,
    /**
     * UDP, or UDP-Lite.
     */
    VIPOOL_PROTOCOL_UDP = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum vipool_protocol vipool_protocol;
#else
typedef uint32_t vipool_protocol;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * Why a call goes on untouched. The numbers never change; those below 64 are of the whole process
 * and set by hooks themselves, the others of one call.
 */
enum vipool_reason
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * Turned off by `VIPOOL_DISABLE=1`.
     */
    VIPOOL_REASON_DISABLED = 1,
    /**
     * No map file, or not one that can be used.
     */
    VIPOOL_REASON_MAP_UNREADABLE = 2,
    /**
     * The program is on no rule of the process list.
     */
    VIPOOL_REASON_NOT_LISTED = 3,
    /**
     * The process belongs to no session that could be found.
     */
    VIPOOL_REASON_NO_SESSION = 4,
    /**
     * The session holds no address.
     */
    VIPOOL_REASON_NO_ADDRESS = 5,
    /**
     * The session's lease was closed while the program ran.
     */
    VIPOOL_REASON_LEASE_CLOSED = 6,
    /**
     * The handle in the environment is of another boot, another map or an earlier session.
     */
    VIPOOL_REASON_STALE_LEASE = 7,
    /**
     * Not an IPv4 or IPv6 address.
     */
    VIPOOL_REASON_NOT_INET = 64,
    /**
     * Neither TCP nor UDP.
     */
    VIPOOL_REASON_NOT_TCP_OR_UDP = 65,
    /**
     * The program's rule does not have the feature that would apply.
     */
    VIPOOL_REASON_FEATURE_OFF = 66,
    /**
     * The session holds no address of the kind that would apply.
     */
    VIPOOL_REASON_NO_SUCH_ADDRESS = 67,
    /**
     * A loopback bind without a fixed port (row 23).
     */
    VIPOOL_REASON_EPHEMERAL_PORT = 68,
    /**
     * A loopback port that is the host's.
     */
    VIPOOL_REASON_SHARED_PORT = 69,
    /**
     * A wildcard bind that stays one: there is no virtual IP (row 3).
     */
    VIPOOL_REASON_WILDCARD_KEPT = 70,
    /**
     * A wildcard UDP bind of a multicast or broadcast receiver (row 26).
     */
    VIPOOL_REASON_SHARED_RECEIVER = 71,
    /**
     * The address is the session's own already.
     */
    VIPOOL_REASON_OWN_ADDRESS = 72,
    /**
     * An address that the hook has no business with.
     */
    VIPOOL_REASON_OTHER_ADDRESS = 73,
    /**
     * The program bound the socket itself.
     */
    VIPOOL_REASON_ALREADY_BOUND = 74,
    /**
     * Nothing of the session's listens there: the real loopback is meant.
     */
    VIPOOL_REASON_NO_OWN_LISTENER = 75,
    /**
     * The kernel did not say what listens.
     */
    VIPOOL_REASON_LISTENERS_UNKNOWN = 76,
    /**
     * An IPv6 socket for IPv6 alone, where only an IPv4 address could stand.
     */
    VIPOOL_REASON_V6ONLY = 77,
    /**
     * An IPv6 address that belongs to one link.
     */
    VIPOOL_REASON_LINK_LOCAL = 78,
    /**
     * An established stream takes no destination.
     */
    VIPOOL_REASON_STREAM = 79,
    /**
     * What the program sees is what there is.
     */
    VIPOOL_REASON_SHOWN_AS_IS = 80,
    /**
     * A name that is not the host's own.
     */
    VIPOOL_REASON_OTHER_NAME = 81,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum vipool_reason vipool_reason;
#else
typedef uint32_t vipool_reason;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * Why a call is not made. The numbers never change.
 */
enum vipool_refusal
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * The address belongs to another session (EADDRNOTAVAIL, WSAEADDRNOTAVAIL).
     */
    VIPOOL_REFUSAL_ADDRESS_OF_ANOTHER = 1,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum vipool_refusal vipool_refusal;
#else
typedef uint32_t vipool_refusal;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * Where a session id comes from; it enters as uint32_t.
 */
enum vipool_session_kind
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * A Windows terminal services session id (ProcessIdToSessionId).
     */
    VIPOOL_SESSION_WINDOWS = 1,
    /**
     * A Linux audit session id (/proc/self/sessionid).
     */
    VIPOOL_SESSION_AUDIT = 2,
    /**
     * A logind session (XDG_SESSION_ID); see vipool_session_logind().
     */
    VIPOOL_SESSION_LOGIND = 3,
    /**
     * Chosen by the program that embeds this library.
     */
    VIPOOL_SESSION_EMBEDDER = 4,
    /**
     * Chosen by an administrator on the command line.
     */
    VIPOOL_SESSION_COMMAND_LINE = 5,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum vipool_session_kind vipool_session_kind;
#else
typedef uint32_t vipool_session_kind;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What an address is doing.
 */
enum vipool_slot_state
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * Nothing.
     */
    VIPOOL_SLOT_FREE = 0,
    /**
     * A session holds it.
     */
    VIPOOL_SLOT_USED = 1,
    /**
     * Released and cooling down.
     */
    VIPOOL_SLOT_COOLING = 2,
    /**
     * Cooled, with sockets still on it.
     */
    VIPOOL_SLOT_LINGERING = 3,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum vipool_slot_state vipool_slot_state;
#else
typedef uint32_t vipool_slot_state;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What became of one rule.
 */
enum vipool_verdict
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * The rule is for another program.
     */
    VIPOOL_VERDICT_OTHER_PROGRAM = 0,
    /**
     * The rule holds; of several the most specific counts, the first of equals.
     */
    VIPOOL_VERDICT_MATCHES = 1,
    /**
     * The name is the same but the rule gives a full path, and that is another.
     */
    VIPOOL_VERDICT_OTHER_DIRECTORY = 2,
    /**
     * The interpreter is listed, but only with another script.
     */
    VIPOOL_VERDICT_OTHER_SCRIPT = 3,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum vipool_verdict vipool_verdict;
#else
typedef uint32_t vipool_verdict;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What an administrator says of a farm of servers, with what is wrong with it: a farm.toml that was
 * read, or a farm built by calls (vipool_farm_new()).
 *
 * One thread at a time may use it.
 */
typedef struct vipool_farm vipool_farm;

/**
 * The network interfaces of this machine at one moment. Any number of threads may use it at once;
 * vipool_interface_list_free() must be the last call.
 */
typedef struct vipool_interface_list vipool_interface_list;

/**
 * The last events of a map (1024 at most), of all its writers. Any number of threads may
 * use it at once; vipool_journal_free() must be the last call.
 */
typedef struct vipool_journal vipool_journal;

/**
 * A writer of the map: opens and closes sessions. Any number of threads may use it at once;
 * vipool_map_free() must be the last call. Other processes may write to the same map unless one
 * holds it exclusively. A process may have 64 maps with files open at once (on Windows any number);
 * one more is VIPOOL_ERR_IO.
 */
typedef struct vipool_map vipool_map;

/**
 * Which interface each of some ranges belongs to. Any number of threads may use it at once;
 * vipool_match_free() must be the last call.
 */
typedef struct vipool_match vipool_match;

/**
 * What a map is made from: the pools of this server, how addresses are given out, and the process
 * list. Built by calls (vipool_plan_new()) or from farm.toml (vipool_farm_plan()).
 *
 * One thread at a time may use it. A map keeps nothing of it.
 */
typedef struct vipool_plan vipool_plan;

/**
 * A read-only view of a map. It never blocks and never writes. Any number of threads may use it
 * at once; vipool_reader_free() must be the last call.
 */
typedef struct vipool_reader vipool_reader;

/**
 * Decides for the socket calls of one program in one session. It holds no state of any socket.
 * Any number of threads may use it at once; vipool_rewriter_free() must be the last call, and a
 * hook keeps it for the life of its process.
 */
typedef struct vipool_rewriter vipool_rewriter;

/**
 * Pools and sessions as they were when it was made: what is read from it later does not change. Any number of
 * threads may use it at once; vipool_snapshot_free() must be the last call.
 */
typedef struct vipool_snapshot vipool_snapshot;

/**
 * Opens and closes sessions without even a lock between threads, and holds the map against other
 * processes for as long as it lives.
 *
 * One thread at a time may use it. It borrows its map: no call with the map is allowed, not even
 * vipool_map_free(), before vipool_writer_free(). Readers and snapshots made of the map before go
 * on.
 */
typedef struct vipool_writer vipool_writer;

/**
 * An IP address, or none. Zeroed memory is none. Plain data: copy it as you like.
 */
typedef struct vipool_ip {
    /**
     * 0 none, 4 IPv4, 6 IPv6 (not AF_INET: that differs between systems).
     */
    uint32_t family;
    /**
     * The address in network order; IPv4 in the first four bytes, the others zero.
     */
    uint8_t bytes[16];
} vipool_ip;

/**
 * A sockaddr_in or sockaddr_in6 with its length: hand `bytes` and `length` to the system's calls.
 * Plain data.
 */
typedef struct vipool_sockaddr {
    /**
     * How many of the bytes there are; 0 for none.
     */
    uint32_t length;
    /**
     * As the system's socket calls have them. Those behind `length` are left as they were.
     */
    uint8_t bytes[VIPOOL_SOCKADDR_MAX];
} vipool_sockaddr;

/**
 * Addresses from the first to the last, both included, of one family. Plain data.
 */
typedef struct vipool_range {
    /**
     * The lowest address.
     */
    struct vipool_ip first;
    /**
     * The highest address.
     */
    struct vipool_ip last;
} vipool_range;

/**
 * A session id: 64 bits, its kind in the upper 8, its value in the lower 56. Zero is no session.
 */
typedef uint64_t vipool_session;

/**
 * What a program is told of its lease instead of the bare session id: enough to find it, and to
 * notice that it is no longer the same one. Plain data; its layout never changes.
 */
typedef struct vipool_handle {
    /**
     * The session the address was leased to.
     */
    vipool_session session;
    /**
     * The boot and network namespace the map belongs to, hashed.
     */
    uint64_t boot;
    /**
     * Slot within the pool.
     */
    uint32_t slot;
    /**
     * How often the slot had been leased, this lease included (wraps).
     */
    uint32_t generation;
    /**
     * Number of the pool in the map, from 0.
     */
    uint32_t pool;
    /**
     * Zero.
     */
    uint32_t reserved;
} vipool_handle;

/**
 * An address of an interface with the length of its subnet's prefix. Plain data.
 */
typedef struct vipool_subnet {
    /**
     * The address.
     */
    struct vipool_ip address;
    /**
     * 0 to 32 for IPv4, to 128 for IPv6.
     */
    uint32_t prefix_length;
} vipool_subnet;

/**
 * A network interface, as the system lists it (getifaddrs, GetAdaptersAddresses). Addresses that
 * vipool itself has put on it are left out.
 */
typedef struct vipool_interface {
    /**
     * sizeof(vipool_interface), set by the caller in every element of an array.
     */
    size_t size;
    /**
     * Its name, UTF-8, such as "eth0".
     */
    const char *name;
    /**
     * Its length in bytes.
     */
    size_t name_length;
    /**
     * Its addresses. May be NULL for none.
     */
    const struct vipool_subnet *addresses;
    /**
     * How many they are.
     */
    size_t address_count;
    /**
     * The system's number for it.
     */
    uint32_t index;
    /**
     * Zero.
     */
    uint32_t reserved;
} vipool_interface;

/**
 * What one interface carries of the ranges that were asked for.
 */
typedef struct vipool_assignment {
    /**
     * sizeof(vipool_assignment), set by the caller.
     */
    size_t size;
    /**
     * The usable addresses, in order, valid until the match is freed: ranges for
     * vipool_plan_add_pool(). NULL if there are none.
     */
    const struct vipool_range *ranges;
    /**
     * How many ranges they are.
     */
    size_t range_count;
    /**
     * The system's number for the interface.
     */
    uint32_t index;
    /**
     * The subnet that the ranges belong to.
     */
    struct vipool_subnet subnet;
    /**
     * Zero.
     */
    uint32_t reserved;
    /**
     * Name of the interface, UTF-8 without a NUL, valid until the match is freed.
     */
    const char *name;
    /**
     * Its length in bytes.
     */
    size_t name_length;
} vipool_assignment;

/**
 * One address given to one session. Plain data; its layout never changes.
 */
typedef struct vipool_lease {
    /**
     * The session the address was leased to.
     */
    vipool_session session;
    /**
     * Slot within the pool.
     */
    uint32_t slot;
    /**
     * How often the slot had been leased, this lease included (wraps).
     */
    uint32_t generation;
    /**
     * Number of the pool in the map, from 0.
     */
    uint32_t pool;
    /**
     * The address.
     */
    struct vipool_ip address;
} vipool_lease;

/**
 * What an open session holds.
 */
typedef struct vipool_found {
    /**
     * sizeof(vipool_found), set by the caller.
     */
    size_t size;
    /**
     * What its programs are told.
     */
    struct vipool_handle handle;
    /**
     * Its leases, in the order of the pools; `lease_count` of them are written.
     */
    struct vipool_lease leases[VIPOOL_MAX_LEASES];
    /**
     * How many of them there are.
     */
    uint32_t lease_count;
    /**
     * Zero.
     */
    uint32_t reserved;
} vipool_found;

/**
 * The rule that a program is under: which features it has.
 */
typedef struct vipool_rule {
    /**
     * sizeof(vipool_rule), set by the caller.
     */
    size_t size;
    /**
     * Names the rule across reloads of the list, and from a program to its children.
     */
    uint64_t id;
    /**
     * VIPOOL_FEATURE_...
     */
    uint32_t features;
    /**
     * VIPOOL_PROGRAM_...; with VIPOOL_PROGRAM_INHERIT the id is handed down to children.
     */
    uint32_t flags;
    /**
     * vipool_matched_by.
     */
    uint32_t matched_by;
    /**
     * Zero.
     */
    uint32_t reserved;
} vipool_rule;

/**
 * One thing that is wrong. The texts are UTF-8 without a NUL and valid until the farm is changed
 * (vipool_farm_plan(), vipool_farm_validate()) or freed.
 */
typedef struct vipool_finding {
    /**
     * sizeof(vipool_finding), set by the caller.
     */
    size_t size;
    /**
     * A fixed word for this kind of finding, such as "overlap".
     */
    const char *code;
    /**
     * Its length in bytes.
     */
    size_t code_length;
    /**
     * The key it is about, such as "sessions.cool-down"; empty for the whole file.
     */
    const char *key;
    /**
     * Its length in bytes.
     */
    size_t key_length;
    /**
     * The value it is about; may be empty.
     */
    const char *value;
    /**
     * Its length in bytes.
     */
    size_t value_length;
    /**
     * What is wrong.
     */
    const char *message;
    /**
     * Its length in bytes.
     */
    size_t message_length;
    /**
     * What to do.
     */
    const char *remedy;
    /**
     * Its length in bytes.
     */
    size_t remedy_length;
    /**
     * vipool_level.
     */
    uint32_t level;
    /**
     * Line in the file, from 1; 0 if it stands nowhere.
     */
    uint32_t line;
    /**
     * Column in characters, from 1; 0 if it stands nowhere.
     */
    uint32_t column;
    /**
     * Zero.
     */
    uint32_t reserved;
} vipool_finding;

/**
 * One server of a farm.
 */
typedef struct vipool_server {
    /**
     * sizeof(vipool_server), set by the caller.
     */
    size_t size;
    /**
     * Its host name, with or without its domain. Case does not matter.
     */
    const char *name;
    /**
     * Its length in bytes.
     */
    size_t name_length;
    /**
     * With VIPOOL_SERVER_MAX_SESSIONS the most sessions at once; 0 sets no limit.
     */
    uint32_t max_sessions;
    /**
     * VIPOOL_SERVER_...
     */
    uint32_t flags;
} vipool_server;

/**
 * Ranges for one pool of one server. The texts and arrays are copied.
 */
typedef struct vipool_server_range {
    /**
     * sizeof(vipool_server_range), set by the caller.
     */
    size_t size;
    /**
     * The addresses, IPv4 or IPv6.
     */
    const struct vipool_range *addresses;
    /**
     * How many ranges they are.
     */
    size_t address_count;
    /**
     * Those of them that are not given out. May be NULL for none.
     */
    const struct vipool_range *excluded;
    /**
     * How many ranges they are.
     */
    size_t excluded_count;
    /**
     * Name of the server. May be NULL: the only one there is.
     */
    const char *server;
    /**
     * Its length in bytes.
     */
    size_t server_length;
    /**
     * Name of the pool. May be NULL: "default".
     */
    const char *pool;
    /**
     * Its length in bytes.
     */
    size_t pool_length;
} vipool_server_range;

/**
 * How addresses are given out; the same for every writer of a map.
 */
typedef struct vipool_settings {
    /**
     * sizeof(vipool_settings), set by the caller.
     */
    size_t size;
    /**
     * Seconds until a released address goes to another user.
     */
    uint32_t cool_down;
    /**
     * Warn once when fewer than this many addresses of a pool are left; 0 never warns.
     */
    uint32_t low_water;
    /**
     * The most sessions of one user; 0 sets no limit.
     */
    uint32_t sessions_per_user;
    /**
     * The most sessions of the server at once; 0 sets no limit.
     */
    uint32_t max_sessions;
    /**
     * vipool_on_exhausted.
     */
    uint32_t on_exhausted;
    /**
     * For VIPOOL_ON_EXHAUSTED_WAIT; zero with the others.
     */
    uint32_t wait_seconds;
    /**
     * vipool_allocate.
     */
    uint32_t allocate;
    /**
     * VIPOOL_SETTING_...
     */
    uint32_t flags;
} vipool_settings;

/**
 * Ports from the first to the last, both included, in host order. Plain data.
 */
typedef struct vipool_ports {
    /**
     * Lowest port.
     */
    uint16_t first;
    /**
     * Highest port.
     */
    uint16_t last;
} vipool_ports;

/**
 * One rule of the process list. The texts and arrays are copied.
 */
typedef struct vipool_program {
    /**
     * sizeof(vipool_program), set by the caller.
     */
    size_t size;
    /**
     * A full path (recommended) or a bare file name, UTF-8.
     */
    const char *pattern;
    /**
     * Its length in bytes.
     */
    size_t pattern_length;
    /**
     * For an interpreter: the rule holds only when it runs this script. May be NULL.
     */
    const char *script;
    /**
     * Its length in bytes.
     */
    size_t script_length;
    /**
     * VIPOOL_FEATURE_...
     */
    uint32_t features;
    /**
     * VIPOOL_PROGRAM_...
     */
    uint32_t flags;
    /**
     * Loopback ports that always go to the session's own address, without asking the kernel.
     * May be NULL for none.
     */
    const struct vipool_ports *own_ports;
    /**
     * How many they are.
     */
    size_t own_port_count;
    /**
     * Loopback ports to leave alone: they are the host's. May be NULL for none.
     */
    const struct vipool_ports *shared_ports;
    /**
     * How many they are.
     */
    size_t shared_port_count;
    /**
     * Where `pattern` is a symbolic link, the file that it leads to, UTF-8: what the system shows
     * as the path of the running program. May be NULL; vipool_plan_follow_links() finds all.
     */
    const char *target;
    /**
     * Its length in bytes.
     */
    size_t target_length;
} vipool_program;

/**
 * What concerns all listed programs of a farm. The arrays are copied.
 */
typedef struct vipool_farm_rules {
    /**
     * sizeof(vipool_farm_rules), set by the caller.
     */
    size_t size;
    /**
     * UDP ports whose wildcard binds stay wildcard (multicast and broadcast receivers). NULL for
     * the usual ones: 5353, 1900, 3702, 5355, 67 and 68; for none a pointer that is not NULL and a
     * count of 0.
     */
    const struct vipool_ports *wildcard_udp_ports;
    /**
     * How many they are.
     */
    size_t wildcard_udp_port_count;
    /**
     * Ports that programs bind, to be kept from being given to outgoing connections, beside the
     * own_ports of the programs: see vipool_farm_fixed_ports(). May be NULL for none.
     */
    const struct vipool_ports *fixed_ports;
    /**
     * How many they are.
     */
    size_t fixed_port_count;
    /**
     * VIPOOL_RULE_...
     */
    uint32_t flags;
    /**
     * Zero.
     */
    uint32_t reserved;
} vipool_farm_rules;

/**
 * What hook layers go by beside the process list. The arrays are copied.
 */
typedef struct vipool_rules {
    /**
     * sizeof(vipool_rules), set by the caller.
     */
    size_t size;
    /**
     * The addresses of the host itself on the interfaces that the pools belong to: a bind to one
     * of them becomes one to the session's virtual IP. May be NULL for none.
     */
    const struct vipool_ip *host_addresses;
    /**
     * How many they are.
     */
    size_t host_address_count;
    /**
     * UDP ports whose wildcard binds stay wildcard (multicast and broadcast receivers). May be
     * NULL for none.
     */
    const struct vipool_ports *wildcard_udp_ports;
    /**
     * How many they are.
     */
    size_t wildcard_udp_port_count;
    /**
     * VIPOOL_RULE_...
     */
    uint32_t flags;
    /**
     * Zero.
     */
    uint32_t reserved;
} vipool_rules;

/**
 * Something that happened. Made by the library; its size says how much of it there is.
 */
typedef struct vipool_event {
    /**
     * How many bytes of this struct the library has filled: a program that was compiled with a
     * newer header must not read beyond.
     */
    size_t size;
    /**
     * vipool_event_kind.
     */
    uint32_t kind;
    /**
     * With VIPOOL_EVENT_EXHAUSTED: VIPOOL_ERR_EXHAUSTED, VIPOOL_ERR_COOLING,
     * VIPOOL_ERR_LINGERING or VIPOOL_ERR_DRAINING. Otherwise VIPOOL_OK.
     */
    int32_t reason;
    /**
     * The session.
     */
    vipool_session session;
    /**
     * With VIPOOL_EVENT_ASSIGNED and VIPOOL_EVENT_RELEASED: the lease. Otherwise zero.
     */
    struct vipool_lease lease;
} vipool_event;

/**
 * Called with the context of vipool_map_options for each event, on the thread whose call caused
 * it, after the map was unlocked and before the call returns; by several threads at once if
 * several threads use the map. It may call the library; it must not throw or free the map. With a
 * writer it may call that writer, but not the writer's map, and must not free either. The event
 * is valid until it returns.
 */
typedef void (*vipool_event_fn)(void *context, const struct vipool_event *event);

/**
 * How a map is opened.
 */
typedef struct vipool_map_options {
    /**
     * sizeof(vipool_map_options), set by the caller.
     */
    size_t size;
    /**
     * Called for what happens in the calls of this map. May be NULL.
     */
    vipool_event_fn on_event;
    /**
     * Handed to on_event.
     */
    void *context;
    /**
     * VIPOOL_MAP_...
     */
    uint32_t flags;
    /**
     * Zero.
     */
    uint32_t reserved;
} vipool_map_options;

/**
 * A running program, as its hook sees it.
 */
typedef struct vipool_executable {
    /**
     * sizeof(vipool_executable), set by the caller.
     */
    size_t size;
    /**
     * Its file: what /proc/self/exe leads to, GetModuleFileNameW.
     */
    const void *path;
    /**
     * Its length.
     */
    size_t path_length;
    /**
     * The path it was started by, where that may differ (a symbolic link): on Linux AT_EXECFN of
     * getauxval. May be NULL.
     */
    const void *invoked_as;
    /**
     * Its length.
     */
    size_t invoked_as_length;
    /**
     * For an interpreter, the script that it runs. May be NULL.
     */
    const void *script;
    /**
     * Its length.
     */
    size_t script_length;
    /**
     * vipool_path_style.
     */
    uint32_t style;
    /**
     * vipool_encoding.
     */
    uint32_t encoding;
} vipool_executable;

/**
 * A process, so named that a later one with the same pid is not taken for it. Plain data; see
 * vipool_leader_of().
 */
typedef struct vipool_leader {
    /**
     * Its pid, in its own pid namespace; 0 for none.
     */
    uint32_t pid;
    /**
     * Zero.
     */
    uint32_t reserved;
    /**
     * Its start time in the kernel's unit (field 22 of /proc/PID/stat).
     */
    uint64_t start_time;
    /**
     * The inode of its pid namespace; 0 where there are none.
     */
    uint64_t pid_namespace;
} vipool_leader;

/**
 * What vipool_map_open_session() is told of a session, beside its id. All may be left out.
 */
typedef struct vipool_open_options {
    /**
     * sizeof(vipool_open_options), set by the caller.
     */
    size_t size;
    /**
     * The user's name, UTF-8: for the address of last time, reservations and the quota. At most
     * 63 bytes are kept. May be NULL.
     */
    const char *user;
    /**
     * Its length in bytes.
     */
    size_t user_length;
    /**
     * Name of the pool to take virtual IPs from, "default" if NULL. Loopback pools serve every
     * session.
     */
    const char *pool;
    /**
     * Its length in bytes.
     */
    size_t pool_length;
    /**
     * This very address, or an error.
     */
    struct vipool_ip address;
    /**
     * The address of the user's client.
     */
    struct vipool_ip client;
    /**
     * The process that stands for the session; pid 0 for none. vipool_map_reap() closes the
     * session when it is gone.
     */
    struct vipool_leader leader;
} vipool_open_options;

/**
 * An open session: what its programs are told, and its leases.
 */
typedef struct vipool_opened {
    /**
     * sizeof(vipool_opened), set by the caller.
     */
    size_t size;
    /**
     * To hand to the session's programs.
     */
    struct vipool_handle handle;
    /**
     * What the session holds now, in the order of the pools; `lease_count` of them are written.
     */
    struct vipool_lease leases[VIPOOL_MAX_LEASES];
    /**
     * How many of them there are.
     */
    uint32_t lease_count;
    /**
     * VIPOOL_OPENED_...
     */
    uint32_t flags;
    /**
     * Why it holds less than it could: VIPOOL_ERR_EXHAUSTED, VIPOOL_ERR_COOLING,
     * VIPOOL_ERR_LINGERING or VIPOOL_ERR_DRAINING; VIPOOL_OK if it holds all.
     */
    int32_t shortage;
    /**
     * With VIPOOL_ERR_COOLING: the tick when the first address is ready.
     */
    uint32_t cooling_until;
} vipool_opened;

/**
 * What a close did.
 */
typedef struct vipool_closed {
    /**
     * sizeof(vipool_closed), set by the caller.
     */
    size_t size;
    /**
     * The leases that were given back, in the order of the pools; `lease_count` of them are
     * written.
     */
    struct vipool_lease leases[VIPOOL_MAX_LEASES];
    /**
     * How many of them there are.
     */
    uint32_t lease_count;
    /**
     * Zero.
     */
    uint32_t reserved;
} vipool_closed;

/**
 * What a change to addresses did.
 */
typedef struct vipool_changed {
    /**
     * sizeof(vipool_changed), set by the caller.
     */
    size_t size;
    /**
     * How many addresses the change was made to.
     */
    uint32_t addresses;
    /**
     * How many of them are held by sessions, which keep them.
     */
    uint32_t held;
} vipool_changed;

/**
 * Asked whether a session of the map is still one of the operating system's: answers 0 if it is
 * gone, something else if it lives. `leader` is NULL if none is known. It must not call the map.
 */
typedef uint32_t (*vipool_is_alive_fn)(void *context,
                                       vipool_session session,
                                       const struct vipool_leader *leader);

/**
 * What vipool_map_reap() asks. The callbacks run while the map is locked: they must not call it.
 */
typedef struct vipool_probe {
    /**
     * sizeof(vipool_probe), set by the caller.
     */
    size_t size;
    /**
     * Whether some socket is bound to this address or connected from it: 0 for no. Say yes when
     * in doubt. NULL: always in doubt.
     */
    uint32_t (*has_sockets)(void *context, const struct vipool_ip *address);
    /**
     * Whether this process is gone: 0 for no. Say no when in doubt. NULL: always in doubt.
     */
    uint32_t (*is_gone)(void *context, const struct vipool_leader *leader);
    /**
     * Handed to the callbacks.
     */
    void *context;
} vipool_probe;

/**
 * What vipool_map_reap() did.
 */
typedef struct vipool_reaped {
    /**
     * sizeof(vipool_reaped), set by the caller.
     */
    size_t size;
    /**
     * Addresses that became free.
     */
    uint32_t freed;
    /**
     * Addresses that cooled down but still have sockets on them.
     */
    uint32_t lingering;
    /**
     * Sessions closed because their leader was gone.
     */
    uint32_t closed;
    /**
     * 1 if the budget ran out before everything was looked at, else 0.
     */
    uint32_t more;
} vipool_reaped;

/**
 * The addresses of one session, as a hook uses them. Any of them may be none.
 */
typedef struct vipool_addresses {
    /**
     * sizeof(vipool_addresses), set by the caller.
     */
    size_t size;
    /**
     * V: the session's virtual IP, IPv4.
     */
    struct vipool_ip v4;
    /**
     * The session's virtual IP, IPv6.
     */
    struct vipool_ip v6;
    /**
     * L: the session's virtual loopback address, in 127.0.0.0/8.
     */
    struct vipool_ip loopback;
    /**
     * L6: a second address in 127.0.0.0/8, which stands for ::1 as ::ffff:L6.
     */
    struct vipool_ip loopback6;
} vipool_addresses;

/**
 * One open session.
 */
typedef struct vipool_session_row {
    /**
     * sizeof(vipool_session_row), set by the caller in the first row of a page.
     */
    size_t size;
    /**
     * The session.
     */
    vipool_session session;
    /**
     * What its programs were told.
     */
    struct vipool_handle handle;
    /**
     * Its leases, in the order of the pools.
     */
    struct vipool_lease leases[VIPOOL_MAX_LEASES];
    /**
     * How many of them there are.
     */
    uint32_t lease_count;
    /**
     * The tick when the first of them was given.
     */
    uint32_t since;
    /**
     * The user's name, UTF-8 without a NUL, valid until the snapshot is freed; NULL if unknown.
     */
    const char *user;
    /**
     * Its length in bytes.
     */
    size_t user_length;
    /**
     * The address of the client; none if unknown.
     */
    struct vipool_ip client;
    /**
     * Zero.
     */
    uint32_t reserved;
    /**
     * The process that stands for it; pid 0 if unknown or none.
     */
    struct vipool_leader leader;
} vipool_session_row;

/**
 * The numbers of one pool.
 */
typedef struct vipool_pool_row {
    /**
     * sizeof(vipool_pool_row), set by the caller in the first row of a page.
     */
    size_t size;
    /**
     * The pool's name, UTF-8 without a NUL, valid until the snapshot is freed; empty for the number
     * of a pool that is gone while others behind it are not.
     */
    const char *name;
    /**
     * Its length in bytes.
     */
    size_t name_length;
    /**
     * vipool_pool_kind.
     */
    uint32_t kind;
    /**
     * Addresses in all.
     */
    uint32_t slots;
    /**
     * Free to be given out.
     */
    uint32_t free;
    /**
     * Held by sessions.
     */
    uint32_t used;
    /**
     * Released and cooling down.
     */
    uint32_t cooling;
    /**
     * Cooled, with sockets still on them.
     */
    uint32_t lingering;
    /**
     * Reserved for a user and not in use.
     */
    uint32_t reserved;
    /**
     * Taken out of use, and not in use.
     */
    uint32_t drained;
    /**
     * The most that were used at once.
     */
    uint32_t peak;
    /**
     * 4 or 6: the family of its addresses.
     */
    uint32_t family;
} vipool_pool_row;

/**
 * One address of a pool.
 */
typedef struct vipool_slot_row {
    /**
     * sizeof(vipool_slot_row), set by the caller in the first row of a page.
     */
    size_t size;
    /**
     * The address.
     */
    struct vipool_ip address;
    /**
     * vipool_slot_state.
     */
    uint32_t state;
    /**
     * VIPOOL_SLOT_RESERVED, VIPOOL_SLOT_DRAINED.
     */
    uint32_t flags;
    /**
     * Zero.
     */
    uint32_t reserved;
} vipool_slot_row;

/**
 * One event of a journal.
 */
typedef struct vipool_journal_row {
    /**
     * sizeof(vipool_journal_row), set by the caller in the first row of a page.
     */
    size_t size;
    /**
     * Its number within this boot, from 1.
     */
    uint64_t number;
    /**
     * The session.
     */
    vipool_session session;
    /**
     * The tick when it happened.
     */
    uint32_t at;
    /**
     * vipool_event_kind.
     */
    uint32_t kind;
    /**
     * With VIPOOL_EVENT_ASSIGNED the generation of the lease; otherwise 0.
     */
    uint32_t generation;
    /**
     * Length of `user` in bytes; 0 if the user is not known, and of releases.
     */
    uint32_t user_length;
    /**
     * With VIPOOL_EVENT_ASSIGNED and VIPOOL_EVENT_LOW_WATER the address; otherwise none.
     */
    struct vipool_ip address;
    /**
     * The address of the user's client; none if it is not known, and of releases.
     */
    struct vipool_ip client;
    /**
     * The user's name, UTF-8 with a NUL.
     */
    char user[VIPOOL_USER_ROOM];
} vipool_journal_row;

/**
 * A rule of the process list, and what it says of a program.
 */
typedef struct vipool_verdict_row {
    /**
     * sizeof(vipool_verdict_row), set by the caller in the first row of a page.
     */
    size_t size;
    /**
     * Names the rule: vipool_rule.id.
     */
    uint64_t id;
    /**
     * The full path or bare file name of the rule, UTF-8 without a NUL, valid until the reader is
     * freed.
     */
    const char *pattern;
    /**
     * Its length in bytes.
     */
    size_t pattern_length;
    /**
     * The script that the rule is for, UTF-8 without a NUL, valid until the reader is freed; NULL
     * for none.
     */
    const char *script;
    /**
     * Its length in bytes.
     */
    size_t script_length;
    /**
     * A sentence for people, UTF-8 without a NUL. Static.
     */
    const char *text;
    /**
     * Its length in bytes.
     */
    size_t text_length;
    /**
     * vipool_verdict.
     */
    uint32_t verdict;
    /**
     * With VIPOOL_VERDICT_MATCHES vipool_matched_by; otherwise 0.
     */
    uint32_t matched_by;
    /**
     * With VIPOOL_VERDICT_MATCHES of a rule for a script, by what that matched: vipool_matched_by;
     * otherwise 0.
     */
    uint32_t script_matched_by;
    /**
     * Zero.
     */
    uint32_t reserved;
} vipool_verdict_row;

/**
 * Asked by vipool_rewrite_connect() and vipool_rewrite_send() which of `count` addresses, in this
 * order, has a socket of its own: TCP listening, UDP bound (`protocol`: vipool_protocol). A
 * wildcard socket is none. An IPv4 address is met by an IPv6 socket on its mapped form too; a
 * mapped one only by an IPv6 socket. `from`, if it is not NULL, is where a datagram would come
 * from: it reaches sockets connected to there too. Answers the number of the address, from 0, or
 * VIPOOL_LISTENER_NONE or VIPOOL_LISTENER_UNKNOWN. `count` is 4 at most.
 *
 * vipool_find_listener() is one that asks the kernel of Linux or Windows; of more than 4 addresses
 * it says VIPOOL_LISTENER_UNKNOWN.
 */
typedef int32_t (*vipool_find_listener_fn)(void *context,
                                           const struct vipool_sockaddr *addresses,
                                           size_t count,
                                           uint32_t protocol,
                                           const struct vipool_sockaddr *from);

/**
 * For whom a rewriter decides.
 */
typedef struct vipool_rewriter_options {
    /**
     * sizeof(vipool_rewriter_options), set by the caller.
     */
    size_t size;
    /**
     * The lease of the process.
     */
    struct vipool_handle handle;
    /**
     * The id of the rule that the program is under: vipool_rule.id.
     */
    uint64_t rule;
    /**
     * Asked what listens. May be NULL: then the kernel never says, and a dialled 127.0.0.1 goes
     * to the host's except for ports that are always the session's own.
     */
    vipool_find_listener_fn find_listener;
    /**
     * Handed to find_listener.
     */
    void *context;
    /**
     * VIPOOL_REWRITER_...
     */
    uint32_t flags;
    /**
     * Zero.
     */
    uint32_t reserved;
} vipool_rewriter_options;

/**
 * Asked for an address that the kernel has: writes it to `buffer` (`capacity` bytes, room for
 * any) as a sockaddr and answers its length; 0 if there is none or it is not IPv4 or IPv6.
 */
typedef uint32_t (*vipool_ask_address_fn)(void *context, void *buffer, uint32_t capacity);

/**
 * Asked for a number: vipool_protocol, or VIPOOL_SOCKET_... flags.
 */
typedef uint32_t (*vipool_ask_number_fn)(void *context);

/**
 * What is known of a socket. Each fact is handed in, or asked for by a callback where it matters
 * (each may cost a system call); a callback that is not NULL wins.
 */
typedef struct vipool_socket {
    /**
     * sizeof(vipool_socket), set by the caller.
     */
    size_t size;
    /**
     * The address that the kernel has for it (not the one that the program is shown), as a
     * sockaddr: the unspecified address and port 0 while it has none (of such a socket Winsock's
     * getsockname says WSAEINVAL). NULL if it is not an IPv4 or IPv6 socket.
     */
    const void *local;
    /**
     * Length of `local` in bytes.
     */
    uint32_t local_length;
    /**
     * vipool_protocol.
     */
    uint32_t protocol;
    /**
     * VIPOOL_SOCKET_...
     */
    uint32_t flags;
    /**
     * Zero.
     */
    uint32_t reserved;
    /**
     * Asked for the address that `local` is. May be NULL.
     */
    vipool_ask_address_fn ask_local;
    /**
     * Asked for vipool_protocol. May be NULL.
     */
    vipool_ask_number_fn ask_protocol;
    /**
     * Asked for VIPOOL_SOCKET_... flags. May be NULL.
     */
    vipool_ask_number_fn ask_flags;
    /**
     * Handed to the callbacks.
     */
    void *context;
} vipool_socket;

/**
 * What becomes of a call, and how it goes on.
 */
typedef struct vipool_outcome {
    /**
     * sizeof(vipool_outcome), set by the caller.
     */
    size_t size;
    /**
     * vipool_outcome_kind.
     */
    uint32_t kind;
    /**
     * With VIPOOL_PASSED a vipool_reason, with VIPOOL_REFUSED a vipool_refusal; otherwise 0.
     */
    uint32_t code;
    /**
     * With VIPOOL_REFUSED, what errno (on Windows WSAGetLastError) says; otherwise 0.
     */
    int32_t error;
    /**
     * With VIPOOL_REWRITTEN, VIPOOL_DO_...; otherwise 0.
     */
    uint32_t flags;
    /**
     * With VIPOOL_REWRITTEN, the address to go on with, of the same family as the program's.
     */
    struct vipool_sockaddr address;
    /**
     * With VIPOOL_DO_BIND_FIRST, the address to bind first.
     */
    struct vipool_sockaddr bind;
} vipool_outcome;

/**
 * What the host's own name stands for.
 */
typedef struct vipool_host_addresses {
    /**
     * sizeof(vipool_host_addresses), set by the caller.
     */
    size_t size;
    /**
     * VIPOOL_REWRITTEN or VIPOOL_PASSED.
     */
    uint32_t kind;
    /**
     * With VIPOOL_PASSED a vipool_reason.
     */
    uint32_t code;
    /**
     * In place of its IPv4 addresses; none if it has none.
     */
    struct vipool_ip v4;
    /**
     * In place of its IPv6 addresses; none if it has none.
     */
    struct vipool_ip v6;
} vipool_host_addresses;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * The details of the last call of this thread that failed: what is wrong, where, and what to do,
 * in English, NUL-terminated, at most 1023 bytes of UTF-8. Empty before the first failure; kept
 * until the next one.
 *
 * The text belongs to the library and is valid until the next call of this thread. Functions
 * that may be called in a signal handler leave it alone.
 *
 * May be called from any thread.
 */
const char *vipool_last_error(void);

/**
 * The version of the library that is loaded, as one number: major * 1000000 + minor * 1000 +
 * patch. Compare it with VIPOOL_VERSION_NUMBER to find out whether header and library belong
 * together.
 *
 * May be called from any thread and in a signal handler.
 */
uint32_t vipool_version_number(void);

/**
 * The version of the library that is loaded as text, such as "0.1.0". Static: nothing to free.
 *
 * May be called from any thread and in a signal handler.
 */
const char *vipool_version(void);

/**
 * The text for a user when no address is left, word for word. Static: nothing to free.
 *
 * May be called from any thread and in a signal handler.
 */
const char *vipool_exhausted_message(void);

/**
 * The name of a status, such as "VIPOOL_ERR_BUSY"; "unknown status" for other numbers. Static:
 * nothing to free.
 *
 * May be called from any thread and in a signal handler.
 */
const char *vipool_status_name(int32_t status);

/**
 * What a status means, in an English sentence; "unknown status" for other numbers. Static:
 * nothing to free. For the details of a failure see vipool_last_error().
 *
 * May be called from any thread and in a signal handler.
 */
const char *vipool_status_text(int32_t status);

/**
 * Reads an address from text, such as "10.0.5.7" or "2001:db8::7".
 *
 * `text`: `length` bytes of UTF-8. Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_UTF8, VIPOOL_ERR_ADDRESS.
 * May be called from any thread.
 */
vipool_status vipool_ip_parse(const char *text, size_t length, struct vipool_ip *out);

/**
 * Writes an address as text with a NUL behind it; 46 bytes are always enough. None is empty.
 *
 * `out_length` may be NULL; it is told the length without the NUL, also with VIPOOL_ERR_BUFFER.
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_ADDRESS (unknown family), VIPOOL_ERR_BUFFER.
 * May be called from any thread.
 */
vipool_status vipool_ip_format(const struct vipool_ip *ip,
                               char *buffer,
                               size_t capacity,
                               size_t *out_length);

/**
 * Takes the address and port out of a sockaddr_in or sockaddr_in6.
 *
 * `address`: `length` bytes as the system's socket calls have them, aligned or not. `out_port`
 * is in host order and may be NULL.
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_ADDRESS (another family, or too short).
 * May be called from any thread.
 */
vipool_status vipool_ip_from_sockaddr(const void *address,
                                      uint32_t length,
                                      struct vipool_ip *out,
                                      uint16_t *out_port);

/**
 * Makes a sockaddr of an address and a port in host order.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_ADDRESS. May be called from any thread.
 */
vipool_status vipool_ip_to_sockaddr(const struct vipool_ip *ip,
                                    uint16_t port,
                                    struct vipool_sockaddr *out);

/**
 * Reads a range from text: a CIDR prefix ("10.0.5.0/24"), first-last ("10.0.5.10-10.0.5.99") or
 * one address.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_UTF8, VIPOOL_ERR_RANGE_SYNTAX, VIPOOL_ERR_RANGE_HOST_BITS,
 * VIPOOL_ERR_RANGE_ORDER. May be called from any thread.
 */
vipool_status vipool_range_parse(const char *text, size_t length, struct vipool_range *out);

/**
 * Writes a range as one address or as first-last, which vipool_range_parse() reads, with a NUL
 * behind it; 92 bytes are always enough.
 *
 * `out_length` may be NULL; it is told the length without the NUL, also with VIPOOL_ERR_BUFFER.
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_ADDRESS, VIPOOL_ERR_RANGE_ORDER, VIPOOL_ERR_BUFFER.
 * May be called from any thread.
 */
vipool_status vipool_range_format(const struct vipool_range *range,
                                  char *buffer,
                                  size_t capacity,
                                  size_t *out_length);

/**
 * The addresses that are in both ranges; VIPOOL_ERR_NOT_FOUND if there are none.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_ADDRESS, VIPOOL_ERR_RANGE_ORDER, VIPOOL_ERR_NOT_FOUND.
 * May be called from any thread.
 */
vipool_status vipool_range_intersection(const struct vipool_range *range,
                                        const struct vipool_range *other,
                                        struct vipool_range *out);

/**
 * What is left of a range without another: `out` has room for two ranges, `out_count` is told how
 * many are left (0, 1 or 2), in order.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_ADDRESS, VIPOOL_ERR_RANGE_ORDER.
 * May be called from any thread.
 */
vipool_status vipool_range_without(const struct vipool_range *range,
                                   const struct vipool_range *cut,
                                   struct vipool_range *out,
                                   size_t *out_count);

/**
 * Makes a session id of a kind (vipool_session_kind) and a value from 0 to 2^56-1.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_KIND, VIPOOL_ERR_SESSION_ID, VIPOOL_ERR_SESSION_UNSET.
 * May be called from any thread.
 */
vipool_status vipool_session_new(uint32_t kind, uint64_t value, vipool_session *out);

/**
 * The id of a logind session by its name, `length` bytes of UTF-8. Numeric names keep their
 * number; others ("c1") are hashed within the kind.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_UTF8, VIPOOL_ERR_SESSION_ID.
 * May be called from any thread.
 */
vipool_status vipool_session_logind(const char *name, size_t length, vipool_session *out);

/**
 * Reads a session id from text: "7" (command line) or kind and value ("audit:3", "logind:c1").
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_UTF8, VIPOOL_ERR_KIND, VIPOOL_ERR_SESSION_ID,
 * VIPOOL_ERR_SESSION_UNSET. May be called from any thread.
 */
vipool_status vipool_session_parse(const char *text, size_t length, vipool_session *out);

/**
 * Writes a session id as vipool_session_parse() reads it, with a NUL behind it; 32 bytes are
 * always enough.
 *
 * `out_length` may be NULL; it is told the length without the NUL, also with VIPOOL_ERR_BUFFER.
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_SESSION_ID, VIPOOL_ERR_BUFFER.
 * May be called from any thread.
 */
vipool_status vipool_session_format(vipool_session session_id,
                                    char *buffer,
                                    size_t capacity,
                                    size_t *out_length);

/**
 * Writes a handle as text for the environment of a program, with a NUL behind it; 72 bytes are
 * always enough.
 *
 * `out_length` may be NULL; it is told the length without the NUL, also with VIPOOL_ERR_BUFFER.
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_SESSION_ID, VIPOOL_ERR_HANDLE, VIPOOL_ERR_BUFFER.
 * May be called from any thread.
 */
vipool_status vipool_handle_format(const struct vipool_handle *handle,
                                   char *buffer,
                                   size_t capacity,
                                   size_t *out_length);

/**
 * Reads what vipool_handle_format() wrote. Takes no lock and allocates nothing; leaves the last
 * error text alone.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_HANDLE.
 * May be called from any thread and in a signal handler.
 */
vipool_status vipool_handle_parse(const char *text, size_t length, struct vipool_handle *out);

/**
 * Finds the interface that each range belongs to (the one whose subnet holds all of it; of nested
 * subnets the longest prefix) and cuts away what cannot be given out there: network and broadcast
 * addresses, the host's own, and `excluded`. Ranges that belong to no interface become errors of
 * the match; the others are assigned all the same.
 *
 * Arrays may be NULL for none. Give the match back with vipool_match_free().
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_UNKNOWN_FIELD, VIPOOL_ERR_UTF8,
 * VIPOOL_ERR_ADDRESS, VIPOOL_ERR_RANGE_ORDER. May be called from any thread.
 */
vipool_status vipool_match_new(const struct vipool_range *ranges,
                               size_t range_count,
                               const struct vipool_range *excluded,
                               size_t excluded_count,
                               const struct vipool_interface *interface_array,
                               size_t interface_count,
                               struct vipool_match **out);

/**
 * How many assignments (one per interface and subnet) the match has; 0 for NULL.
 * May be called from any thread.
 */
size_t vipool_match_count(const struct vipool_match *found);

/**
 * An assignment by its number, from 0.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_NOT_FOUND.
 * May be called from any thread.
 */
vipool_status vipool_match_get(const struct vipool_match *found,
                               size_t number,
                               struct vipool_assignment *out);

/**
 * How many ranges belong to no interface; 0 for NULL. May be called from any thread.
 */
size_t vipool_match_error_count(const struct vipool_match *found);

/**
 * Why a range belongs to no interface, by the number of the error, from 0: `out_reason` is told
 * VIPOOL_ERR_NO_INTERFACE, VIPOOL_ERR_INTERFACE_TIE or VIPOOL_ERR_SPANS_SUBNETS, the buffer gets
 * the text with a NUL behind it.
 *
 * `out_length` may be NULL; it is told the length without the NUL, also with VIPOOL_ERR_BUFFER.
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_NOT_FOUND, VIPOOL_ERR_BUFFER.
 * May be called from any thread.
 */
vipool_status vipool_match_error(const struct vipool_match *found,
                                 size_t number,
                                 int32_t *out_reason,
                                 char *buffer,
                                 size_t capacity,
                                 size_t *out_length);

/**
 * Frees a match; the ranges of its assignments are gone with it. NULL is nothing.
 */
void vipool_match_free(struct vipool_match *found);

/**
 * Seconds since the machine was started, time asleep included; jumps of the wall clock do not
 * move it. What all calls take as `now`.
 *
 * May be called from any thread and in a signal handler.
 */
uint32_t vipool_now(void);

/**
 * The directory of this machine's map (/run/vipool, on Windows ProgramData\\vipool of the system
 * drive) with a NUL behind it. Fixed at installation. Hook layers take another one from the
 * environment variable VIPOOL_MAP, for rootless use and tests.
 *
 * `out_length` may be NULL; it is told the length without the NUL, also with VIPOOL_ERR_BUFFER.
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_BUFFER. May be called from any thread.
 */
vipool_status vipool_map_directory(char *buffer, size_t capacity, size_t *out_length);

/**
 * Lists the interfaces of this machine that have an IP address, as the system does: with all of
 * their addresses. Leave out those that vipool itself has put there (all that are in the ranges)
 * before you hand them to vipool_match_new() or vipool_farm_plan().
 *
 * Give the list back with vipool_interface_list_free().
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_IO. May be called from any thread; may block shortly.
 */
vipool_status vipool_interface_list_new(struct vipool_interface_list **out);

/**
 * The interfaces of a list as an array, as other functions take it, valid until the list is freed.
 *
 * Errors: VIPOOL_ERR_NULL. May be called from any thread.
 */
vipool_status vipool_interface_list_get(const struct vipool_interface_list *list,
                                        const struct vipool_interface **out,
                                        size_t *out_count);

/**
 * Frees a list of interfaces; its array is gone with it. NULL is nothing.
 */
void vipool_interface_list_free(struct vipool_interface_list *list);

/**
 * The session of a process of Windows (ProcessIdToSessionId). Elsewhere VIPOOL_ERR_UNSUPPORTED:
 * what opens sessions there knows them.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_IO (no such process), VIPOOL_ERR_UNSUPPORTED.
 * May be called from any thread.
 */
vipool_status vipool_session_of_process(uint32_t pid, vipool_session *out);

/**
 * The lease of a process, by what the operating system says of it: that of the open session which
 * it belongs to. `pid`: 0 for this process. `out_found_by` (may be NULL) is told vipool_found_by.
 *
 * A program that was started with the environment variable VIPOOL_LEASE goes by what is in there
 * instead: vipool_handle_parse(), then vipool_reader_leases_of().
 * Takes no lock and allocates nothing, but reads files of /proc and /run: for a hook while its
 * process starts. Leaves the last error text alone.
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_NOT_OPEN (its session is not open,
 * it belongs to none, or the system does not let us see), VIPOOL_ERR_UNSUPPORTED (other systems).
 * May be called from any thread.
 */
vipool_status vipool_reader_lease_of_process(const struct vipool_reader *reader,
                                             uint32_t pid,
                                             struct vipool_found *out,
                                             uint32_t *out_found_by);

/**
 * The rule that the nearest listed one of a process's parents hands down: for a program that is on
 * no rule itself. `pid`: 0 for this process. `out_parent` (may be NULL) is told the pid of that
 * parent. On Linux, where it is found in /proc; on Windows a hook hands the id of the rule to the
 * processes that it starts (vipool_reader_inherited_rule()).
 *
 * Takes no lock and allocates nothing, but reads files of /proc: for a hook while its process
 * starts. Leaves the last error text alone.
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_NOT_FOUND (none does),
 * VIPOOL_ERR_UNSUPPORTED (other systems). May be called from any thread.
 */
vipool_status vipool_reader_parents_rule(const struct vipool_reader *reader,
                                         uint32_t pid,
                                         struct vipool_rule *out,
                                         uint32_t *out_parent);

/**
 * Reads and validates a farm.toml. A file that cannot be read or is wrong gives a farm too: its
 * findings say what is wrong, and what could not be read is as if it were not there. Use a farm
 * only if vipool_farm_error_count() is 0.
 *
 * Give it back with vipool_farm_free(). Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_UTF8 (the path).
 * May be called from any thread.
 */
vipool_status vipool_farm_load(const char *path, size_t path_length, struct vipool_farm **out);

/**
 * vipool_farm_load() with a UTF-16 path of `path_length` units.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_UTF16. May be called from any thread.
 */
vipool_status vipool_farm_load_utf16(const uint16_t *path,
                                     size_t path_length,
                                     struct vipool_farm **out);

/**
 * vipool_farm_load() of the text of a farm.toml in memory, `length` bytes of UTF-8.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_UTF8. May be called from any thread.
 */
vipool_status vipool_farm_parse(const char *text, size_t length, struct vipool_farm **out);

/**
 * Frees a farm; the texts of its findings are gone with it. NULL is nothing.
 */
void vipool_farm_free(struct vipool_farm *farm);

/**
 * How many findings the farm has, warnings included; 0 for NULL.
 */
size_t vipool_farm_finding_count(const struct vipool_farm *farm);

/**
 * How many of its findings are errors; 0 for NULL.
 */
size_t vipool_farm_error_count(const struct vipool_farm *farm);

/**
 * A finding by its number, from 0, in the order of the file.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_NOT_FOUND.
 */
vipool_status vipool_farm_finding(const struct vipool_farm *farm,
                                  size_t number,
                                  struct vipool_finding *out);

/**
 * All findings as a text for people, with the lines of the file that they are about, and a NUL
 * behind it.
 *
 * `out_length` may be NULL; it is told the length without the NUL, also with VIPOOL_ERR_BUFFER:
 * call once with capacity 0 to learn it.
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_BUFFER.
 */
vipool_status vipool_farm_report(const struct vipool_farm *farm,
                                 char *buffer,
                                 size_t capacity,
                                 size_t *out_length);

/**
 * The plan of one server, given by its host name.
 *
 * `interface_array` (may be NULL: not known) are the server's interfaces: each range is put on
 * the one whose subnet it belongs to, less what cannot be given out there. Without, ranges are
 * taken as they stand. What is wrong is added to the findings of the farm; the plan holds what is
 * left. `out_match` (may be NULL) is told which interface carries which addresses; give it back
 * with vipool_match_free(). Give the plan back with vipool_plan_free().
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_UNKNOWN_FIELD, VIPOOL_ERR_UTF8,
 * VIPOOL_ERR_ADDRESS.
 */
vipool_status vipool_farm_plan(struct vipool_farm *farm,
                               const char *host,
                               size_t host_length,
                               const struct vipool_interface *interface_array,
                               size_t interface_count,
                               struct vipool_match **out_match,
                               struct vipool_plan **out);

/**
 * Makes a farm without servers (one machine, whatever its name), ranges and programs, with the
 * defaults for all else: those of a farm.toml that is empty.
 *
 * Build it by the functions below, then call vipool_farm_validate(). Farms that were read can be
 * changed by them too. Give it back with vipool_farm_free(). Errors: VIPOOL_ERR_NULL.
 * May be called from any thread.
 */
vipool_status vipool_farm_new(struct vipool_farm **out);

/**
 * Adds a server.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_UNKNOWN_FIELD, VIPOOL_ERR_UTF8,
 * VIPOOL_ERR_KIND (flags).
 */
vipool_status vipool_farm_add_server(struct vipool_farm *farm, const struct vipool_server *server);

/**
 * Adds ranges.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_UNKNOWN_FIELD, VIPOOL_ERR_UTF8,
 * VIPOOL_ERR_ADDRESS, VIPOOL_ERR_RANGE_ORDER.
 */
vipool_status vipool_farm_add_range(struct vipool_farm *farm,
                                    const struct vipool_server_range *range);

/**
 * Declares a pool, which ranges and rules then name. "default" need not be declared.
 *
 * `max_addresses`: the most addresses of each family that it uses, from the lowest on; 0 for all of
 * IPv4 and 4096 of IPv6.
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_UTF8.
 */
vipool_status vipool_farm_add_pool(struct vipool_farm *farm,
                                   const char *name,
                                   size_t name_length,
                                   uint32_t max_addresses);

/**
 * Adds a rule by which sessions take their virtual IPs from a pool: `kind` (vipool_pool_rule) and
 * `name` say whose. A rule for the user wins over one for a group, that over one for a program; of
 * equals the one whose pool was declared first.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_UTF8, VIPOOL_ERR_KIND.
 */
vipool_status vipool_farm_add_pool_rule(struct vipool_farm *farm,
                                        const char *pool,
                                        size_t pool_length,
                                        uint32_t kind,
                                        const char *name,
                                        size_t name_length);

/**
 * Validates the farm as it is now. What is wrong is added to its findings; findings of an earlier
 * validation stay, so build all of it first.
 *
 * Errors: VIPOOL_ERR_NULL. A farm that is wrong is no error of this call: see
 * vipool_farm_error_count().
 */
vipool_status vipool_farm_validate(struct vipool_farm *farm);

/**
 * Sets the addresses of 127.0.0.0/8 that sessions are given (each session takes two), in place of
 * 127.100.0.0/20. No ranges: no session gets any. 127.0.0.1 is never given out.
 *
 * Arrays may be NULL for none.
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_ADDRESS, VIPOOL_ERR_RANGE_ORDER.
 */
vipool_status vipool_farm_set_loopback(struct vipool_farm *farm,
                                       const struct vipool_range *addresses,
                                       size_t address_count,
                                       const struct vipool_range *excluded,
                                       size_t excluded_count);

/**
 * Says what is known of the network, so that ranges can be checked without seeing a server: the
 * subnets that the servers are in, and what a DHCP server gives out.
 *
 * Arrays may be NULL for none.
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_ADDRESS, VIPOOL_ERR_RANGE_ORDER.
 */
vipool_status vipool_farm_set_network(struct vipool_farm *farm,
                                      const struct vipool_subnet *subnets,
                                      size_t subnet_count,
                                      const struct vipool_range *dhcp_ranges,
                                      size_t dhcp_range_count);

/**
 * How addresses are given out: the defaults (cool_down 120, VIPOOL_SETTING_CHECK_IN_USE), or what was
 * read or set.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE.
 */
vipool_status vipool_farm_settings(const struct vipool_farm *farm,
                                   struct vipool_settings *out);

/**
 * Sets how addresses are given out, all of it: change what vipool_farm_settings() gave.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_UNKNOWN_FIELD, VIPOOL_ERR_KIND.
 */
vipool_status vipool_farm_set_settings(struct vipool_farm *farm,
                                       const struct vipool_settings *settings);

/**
 * Keeps an address for a user, whose name is `user_length` bytes of UTF-8.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_UTF8, VIPOOL_ERR_ADDRESS.
 */
vipool_status vipool_farm_add_reservation(struct vipool_farm *farm,
                                          const char *user,
                                          size_t user_length,
                                          const struct vipool_ip *address);

/**
 * Adds a rule to the process list. The most specific rule that holds for a program wins, the first
 * of equals.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_UNKNOWN_FIELD, VIPOOL_ERR_UTF8,
 * VIPOOL_ERR_KIND, VIPOOL_ERR_RANGE_ORDER (ports).
 */
vipool_status vipool_farm_add_program(struct vipool_farm *farm,
                                      const struct vipool_program *program);

/**
 * Sets what concerns all listed programs.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_UNKNOWN_FIELD, VIPOOL_ERR_KIND,
 * VIPOOL_ERR_RANGE_ORDER (ports).
 */
vipool_status vipool_farm_set_rules(struct vipool_farm *farm,
                                    const struct vipool_farm_rules *rules);

/**
 * The ports that listed programs bind: the fixed ones of the farm's rules and all own_ports, in
 * order and without overlaps. They are to be kept from outgoing connections
 * (net.ipv4.ip_local_reserved_ports of Linux).
 *
 * `ports`: an array of `capacity`. `out_count` is told how many there are, also with
 * VIPOOL_ERR_BUFFER: call once with capacity 0 to learn it.
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_BUFFER.
 */
vipool_status vipool_farm_fixed_ports(const struct vipool_farm *farm,
                                      struct vipool_ports *ports,
                                      size_t capacity,
                                      size_t *out_count);

/**
 * Makes a plan without pools, with the default settings and an empty process list.
 *
 * Give it back with vipool_plan_free(). Errors: VIPOOL_ERR_NULL. May be called from any thread.
 */
vipool_status vipool_plan_new(struct vipool_plan **out);

/**
 * Frees a plan. NULL is nothing.
 */
void vipool_plan_free(struct vipool_plan *plan);

/**
 * Adds a pool: ranges of one family, with everything that must not be given out cut away already
 * (network, broadcast, host and excluded addresses; see vipool_range_without()).
 *
 * `name`: what sessions choose it by, "default" being the one taken if none is named; a pool of
 * IPv4 and one of IPv6 may share a name, none may share addresses. `kind`: vipool_pool_kind.
 * `max_slots`: at most so many addresses, 0 for all; a sparse IPv6 prefix is cut there. The number
 * of a pool is how many were added before it, but for a map that takes the place of another one:
 * pools that were there keep their numbers.
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_UTF8, VIPOOL_ERR_KIND, VIPOOL_ERR_ADDRESS,
 * VIPOOL_ERR_RANGE_ORDER, VIPOOL_ERR_POOL_MIXED, VIPOOL_ERR_POOL_OVERLAP,
 * VIPOOL_ERR_POOL_NOT_LOOPBACK.
 */
vipool_status vipool_plan_add_pool(struct vipool_plan *plan,
                                   const char *name,
                                   size_t name_length,
                                   uint32_t kind,
                                   const struct vipool_range *ranges,
                                   size_t range_count,
                                   uint32_t max_slots);

/**
 * Finds vipool_program.target of every listed path that is a symbolic link on this machine, so that
 * the rule holds for the file behind it. The plan is then one for this machine. Programs that are
 * added later are not looked at.
 *
 * Errors: VIPOOL_ERR_NULL.
 */
vipool_status vipool_plan_follow_links(struct vipool_plan *plan);

/**
 * Sets how addresses are given out.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_UNKNOWN_FIELD, VIPOOL_ERR_KIND.
 */
vipool_status vipool_plan_set_settings(struct vipool_plan *plan,
                                       const struct vipool_settings *settings);

/**
 * Adds a rule to the process list. The most specific rule that holds for a program wins, the
 * first of equals.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_UNKNOWN_FIELD, VIPOOL_ERR_UTF8,
 * VIPOOL_ERR_KIND, VIPOOL_ERR_RANGE_ORDER (ports).
 */
vipool_status vipool_plan_add_program(struct vipool_plan *plan,
                                      const struct vipool_program *program);

/**
 * Sets what hook layers go by beside the process list.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_UNKNOWN_FIELD, VIPOOL_ERR_ADDRESS,
 * VIPOOL_ERR_KIND, VIPOOL_ERR_RANGE_ORDER (ports).
 */
vipool_status vipool_plan_set_rules(struct vipool_plan *plan, const struct vipool_rules *rules);

/**
 * Keeps an address of one of the pools for a user, whose name is `user_length` bytes of UTF-8.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_UTF8, VIPOOL_ERR_ADDRESS. Whether a pool has the address
 * shows when a map is made.
 */
vipool_status vipool_plan_add_reservation(struct vipool_plan *plan,
                                          const char *user,
                                          size_t user_length,
                                          const struct vipool_ip *address);

/**
 * Adds a rule by which sessions take their virtual IPs from a pool: `kind` (vipool_pool_rule) and
 * `name` say whose. A rule for the user wins over one for a group, that over one for a program;
 * of equals the first.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_UTF8, VIPOOL_ERR_KIND.
 */
vipool_status vipool_plan_add_pool_rule(struct vipool_plan *plan,
                                        const char *pool,
                                        size_t pool_length,
                                        uint32_t kind,
                                        const char *name,
                                        size_t name_length);

/**
 * Makes a map in memory alone: gone with the process, seen by nobody else.
 *
 * `options` may be NULL. Give the map back with vipool_map_free().
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_UNKNOWN_FIELD, VIPOOL_ERR_KIND,
 * VIPOOL_ERR_PLAN.
 */
vipool_status vipool_map_in_memory(const struct vipool_plan *plan,
                                   const struct vipool_map_options *options,
                                   struct vipool_map **out);

/**
 * Makes the files of a map in a directory of ours, which exists, and opens it. Sessions of an
 * older map there, of this boot, are carried over; readers of the old one are told.
 *
 * `options` may be NULL. Give the map back with vipool_map_free(); the files stay.
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_UNKNOWN_FIELD, VIPOOL_ERR_KIND,
 * VIPOOL_ERR_UTF8, VIPOOL_ERR_PLAN, VIPOOL_ERR_IO, VIPOOL_ERR_UNTRUSTED, VIPOOL_ERR_BUSY,
 * VIPOOL_ERR_BUSY_EXCLUSIVE.
 */
vipool_status vipool_map_create(const char *directory,
                                size_t directory_length,
                                const struct vipool_plan *plan,
                                const struct vipool_map_options *options,
                                struct vipool_map **out);

/**
 * vipool_map_create() with a UTF-16 path of `directory_length` units.
 *
 * Errors: those, and VIPOOL_ERR_UTF16.
 */
vipool_status vipool_map_create_utf16(const uint16_t *directory,
                                      size_t directory_length,
                                      const struct vipool_plan *plan,
                                      const struct vipool_map_options *options,
                                      struct vipool_map **out);

/**
 * Opens the map in a directory for writing.
 *
 * `options` may be NULL. Give the map back with vipool_map_free().
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_UNKNOWN_FIELD, VIPOOL_ERR_KIND,
 * VIPOOL_ERR_UTF8, VIPOOL_ERR_MISSING, VIPOOL_ERR_DAMAGED, VIPOOL_ERR_OTHER_BOOT,
 * VIPOOL_ERR_UNTRUSTED, VIPOOL_ERR_IO, VIPOOL_ERR_BUSY, VIPOOL_ERR_BUSY_EXCLUSIVE.
 */
vipool_status vipool_map_open(const char *directory,
                              size_t directory_length,
                              const struct vipool_map_options *options,
                              struct vipool_map **out);

/**
 * vipool_map_open() with a UTF-16 path of `directory_length` units.
 *
 * Errors: those, and VIPOOL_ERR_UTF16.
 */
vipool_status vipool_map_open_utf16(const uint16_t *directory,
                                    size_t directory_length,
                                    const struct vipool_map_options *options,
                                    struct vipool_map **out);

/**
 * A copy in memory of the bytes of the files `map` and `sessions`, of whatever boot: to look at
 * what somebody left, or to try something on it. The files themselves never change by it.
 *
 * `sessions` may be NULL (or the bytes of another map's): then nothing is known of users, clients
 * and leaders. `options` may be NULL. Give the map back with vipool_map_free().
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_UNKNOWN_FIELD, VIPOOL_ERR_KIND,
 * VIPOOL_ERR_DAMAGED.
 */
vipool_status vipool_map_from_bytes(const void *map,
                                    size_t map_length,
                                    const void *sessions,
                                    size_t sessions_length,
                                    const struct vipool_map_options *options,
                                    struct vipool_map **out);

/**
 * Closes the map and frees it; what is in it stays. NULL is nothing.
 */
void vipool_map_free(struct vipool_map *map);

/**
 * How addresses are given out: what the plan said.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE. May be called from any thread.
 */
vipool_status vipool_map_settings(const struct vipool_map *map, struct vipool_settings *out);

/**
 * The handle and leases of a session. Waits for threads that use the map, but not for other
 * processes; vipool_reader_find() waits for nobody.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_SESSION_ID, VIPOOL_ERR_NOT_OPEN,
 * VIPOOL_ERR_IO, VIPOOL_ERR_DAMAGED, VIPOOL_ERR_FORKED.
 */
vipool_status vipool_map_find(const struct vipool_map *map,
                              vipool_session session_id,
                              struct vipool_found *out);

/**
 * The pool that the rules choose for a session of this user (`user_length` bytes of UTF-8), in
 * which this program is started (NULL if that is not known): its name with a NUL behind it, for
 * vipool_open_options.pool. May block while the user's groups are looked up, where a rule names a
 * group.
 *
 * `out_length` may be NULL; it is told the length without the NUL, also with VIPOOL_ERR_BUFFER.
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_UTF8, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_UNKNOWN_FIELD,
 * VIPOOL_ERR_KIND, VIPOOL_ERR_BUFFER, VIPOOL_ERR_NOT_FOUND (no rule holds: the default pool).
 */
vipool_status vipool_map_choose_pool(const struct vipool_map *map,
                                     const char *user,
                                     size_t user_length,
                                     const struct vipool_executable *program,
                                     char *buffer,
                                     size_t capacity,
                                     size_t *out_length);

/**
 * A view of this map for looking things up, also of one in memory. It may outlive the map.
 *
 * Give it back with vipool_reader_free(). Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_IO,
 * VIPOOL_ERR_MISSING, VIPOOL_ERR_DAMAGED, VIPOOL_ERR_OTHER_BOOT, VIPOOL_ERR_UNTRUSTED,
 * VIPOOL_ERR_FORKED.
 */
vipool_status vipool_map_reader(const struct vipool_map *map, struct vipool_reader **out);

/**
 * The open sessions of one moment and the pools, with users, clients and leaders where this
 * process may read them. Sessions that open and close meanwhile wait; pools are read right
 * after.
 *
 * Give it back with vipool_snapshot_free().
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_IO, VIPOOL_ERR_MISSING, VIPOOL_ERR_DAMAGED,
 * VIPOOL_ERR_OTHER_BOOT, VIPOOL_ERR_UNTRUSTED, VIPOOL_ERR_FORKED.
 */
vipool_status vipool_map_snapshot(const struct vipool_map *map, struct vipool_snapshot **out);

/**
 * The process that has this pid now, on Linux and Windows.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_NOT_FOUND (there is no such process, or it has ended),
 * VIPOOL_ERR_IO, VIPOOL_ERR_UNSUPPORTED (other systems). May be called from any thread.
 */
vipool_status vipool_leader_of(uint32_t pid, struct vipool_leader *out);

/**
 * Gives a session its addresses, or completes and returns those it has: opening twice is as
 * opening once.
 *
 * In this order: the lease it has; the address it asks for, or an error; the one reserved for the
 * user; the user's last one; the one that has been free longest.
 *
 * `options` may be NULL. `now`: vipool_now(). VIPOOL_OK with `out->shortage` set means that the
 * session has some addresses but not all. Without any, nothing was opened.
 * Events: assigned for each new lease, exhausted, low water.
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_UNKNOWN_FIELD, VIPOOL_ERR_UTF8,
 * VIPOOL_ERR_ADDRESS, VIPOOL_ERR_SESSION_ID, VIPOOL_ERR_EXHAUSTED to VIPOOL_ERR_NOT_READY,
 * VIPOOL_ERR_IO, VIPOOL_ERR_DAMAGED, VIPOOL_ERR_BUSY, VIPOOL_ERR_BUSY_EXCLUSIVE,
 * VIPOOL_ERR_FORKED.
 */
vipool_status vipool_map_open_session(const struct vipool_map *map,
                                      vipool_session session_id,
                                      const struct vipool_open_options *options,
                                      uint32_t now,
                                      struct vipool_opened *out);

/**
 * Gives back what this session holds.
 *
 * `out` may be NULL. Events: released for each lease.
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_SESSION_ID, VIPOOL_ERR_NOT_OPEN,
 * VIPOOL_ERR_IO, VIPOOL_ERR_DAMAGED, VIPOOL_ERR_BUSY, VIPOOL_ERR_BUSY_EXCLUSIVE,
 * VIPOOL_ERR_FORKED.
 */
vipool_status vipool_map_close_session(const struct vipool_map *map,
                                       vipool_session session_id,
                                       uint32_t now,
                                       struct vipool_closed *out);

/**
 * Gives back what the session of this handle holds. A stale, foreign or second close frees
 * nothing and says so.
 *
 * `out` may be NULL. Events: released for each lease.
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_SESSION_ID, VIPOOL_ERR_HANDLE,
 * VIPOOL_ERR_NOT_OPEN, VIPOOL_ERR_STALE, VIPOOL_ERR_FOREIGN, VIPOOL_ERR_IO, VIPOOL_ERR_DAMAGED,
 * VIPOOL_ERR_BUSY, VIPOOL_ERR_BUSY_EXCLUSIVE, VIPOOL_ERR_FORKED.
 */
vipool_status vipool_map_close(const struct vipool_map *map,
                               const struct vipool_handle *handle,
                               uint32_t now,
                               struct vipool_closed *out);

/**
 * Makes a writer of a map.
 *
 * Give it back with vipool_writer_free(), before the map.
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_IO, VIPOOL_ERR_MISSING, VIPOOL_ERR_DAMAGED,
 * VIPOOL_ERR_BUSY, VIPOOL_ERR_BUSY_EXCLUSIVE, VIPOOL_ERR_FORKED; then the map is as it was.
 */
vipool_status vipool_writer_new(struct vipool_map *map, struct vipool_writer **out);

/**
 * vipool_map_open_session() by a writer: same parameters, events and errors.
 */
vipool_status vipool_writer_open_session(struct vipool_writer *writer,
                                         vipool_session session_id,
                                         const struct vipool_open_options *options,
                                         uint32_t now,
                                         struct vipool_opened *out);

/**
 * vipool_map_close_session() by a writer: same parameters, events and errors.
 */
vipool_status vipool_writer_close_session(struct vipool_writer *writer,
                                          vipool_session session_id,
                                          uint32_t now,
                                          struct vipool_closed *out);

/**
 * vipool_map_close() by a writer: same parameters, events and errors.
 */
vipool_status vipool_writer_close(struct vipool_writer *writer,
                                  const struct vipool_handle *handle,
                                  uint32_t now,
                                  struct vipool_closed *out);

/**
 * Frees a writer; its map can be used again. NULL is nothing.
 */
void vipool_writer_free(struct vipool_writer *writer);

/**
 * Takes addresses out of use: no session gets them; those that have them keep them.
 *
 * `out` may be NULL.
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_ADDRESS, VIPOOL_ERR_RANGE_ORDER,
 * VIPOOL_ERR_IO, VIPOOL_ERR_DAMAGED, VIPOOL_ERR_BUSY, VIPOOL_ERR_BUSY_EXCLUSIVE,
 * VIPOOL_ERR_FORKED.
 */
vipool_status vipool_map_drain(const struct vipool_map *map,
                               const struct vipool_range *range,
                               uint32_t now,
                               struct vipool_changed *out);

/**
 * Puts drained addresses back into use.
 *
 * `out` may be NULL. Errors: those of vipool_map_drain().
 */
vipool_status vipool_map_undrain(const struct vipool_map *map,
                                 const struct vipool_range *range,
                                 uint32_t now,
                                 struct vipool_changed *out);

/**
 * Whether the whole server drains (`draining` not 0): no new session gets an address.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_IO, VIPOOL_ERR_DAMAGED, VIPOOL_ERR_BUSY,
 * VIPOOL_ERR_BUSY_EXCLUSIVE, VIPOOL_ERR_FORKED.
 */
vipool_status vipool_map_drain_server(const struct vipool_map *map, uint32_t draining);

/**
 * Keeps an address for a user from now on, whose name is `user_length` bytes of UTF-8. A session
 * that has it keeps it.
 *
 * `out` may be NULL.
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_UTF8, VIPOOL_ERR_ADDRESS,
 * VIPOOL_ERR_EXCLUDED (in no pool), VIPOOL_ERR_RESERVED (for another user), VIPOOL_ERR_IO,
 * VIPOOL_ERR_DAMAGED, VIPOOL_ERR_BUSY, VIPOOL_ERR_BUSY_EXCLUSIVE, VIPOOL_ERR_FORKED.
 */
vipool_status vipool_map_reserve(const struct vipool_map *map,
                                 const struct vipool_ip *address,
                                 const char *user,
                                 size_t user_length,
                                 uint32_t now,
                                 struct vipool_changed *out);

/**
 * Keeps an address for nobody any more.
 *
 * `out` may be NULL. Errors: those of vipool_map_reserve(), and VIPOOL_ERR_NOT_RESERVED.
 */
vipool_status vipool_map_unreserve(const struct vipool_map *map,
                                   const struct vipool_ip *address,
                                   uint32_t now,
                                   struct vipool_changed *out);

/**
 * Says that the sessions of the operating system are restored: VIPOOL_ERR_NOT_READY ends.
 *
 * Errors: those of vipool_map_drain_server().
 */
vipool_status vipool_map_restored(const struct vipool_map *map);

/**
 * Derives lists, index and counters from the addresses' own records again, as is done by itself
 * after the death of a writer.
 *
 * Errors: those of vipool_map_drain_server().
 */
vipool_status vipool_map_recover(const struct vipool_map *map);

/**
 * Closes every session that `is_alive` says is gone, then ends VIPOOL_ERR_NOT_READY: to be called
 * with the operating system's list of sessions before the first session is opened.
 *
 * `out_closed` (may be NULL) is told how many were closed. Events: released for each lease.
 * Errors: those of vipool_map_drain_server().
 */
vipool_status vipool_map_reconcile(const struct vipool_map *map,
                                   uint32_t now,
                                   vipool_is_alive_fn is_alive,
                                   void *context,
                                   uint32_t *out_closed);

/**
 * The slow path, for an agent's timer: closes sessions whose leader is gone (seen dead twice, ten
 * seconds apart or more), and frees cooled addresses without sockets. Looks at up to `budget`
 * addresses of each pool; call it again while `out->more` is set.
 *
 * `probe` may be NULL: then this machine is asked, on Linux and Windows. `out` may be NULL.
 * Events: released for each lease.
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_UNKNOWN_FIELD, VIPOOL_ERR_IO,
 * VIPOOL_ERR_DAMAGED, VIPOOL_ERR_BUSY, VIPOOL_ERR_BUSY_EXCLUSIVE, VIPOOL_ERR_FORKED,
 * VIPOOL_ERR_UNSUPPORTED (no probe on another system).
 */
vipool_status vipool_map_reap(const struct vipool_map *map,
                              uint32_t now,
                              uint32_t budget,
                              const struct vipool_probe *probe,
                              struct vipool_reaped *out);

/**
 * Tells the user of a session, and nobody else, where its client is: in a file of the map's
 * directory that is named after the lease. For programs with VIPOOL_FEATURE_CLIENT_IP.
 *
 * `user`: `user_length` bytes of UTF-8, on Windows "DOMAIN\\user" too; may be NULL for the user of this
 * process. May block while the user is looked up.
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_UTF8, VIPOOL_ERR_SESSION_ID, VIPOOL_ERR_HANDLE,
 * VIPOOL_ERR_ADDRESS, VIPOOL_ERR_NOT_FOUND (the system knows no such user), VIPOOL_ERR_IO.
 * May be called from any thread.
 */
vipool_status vipool_client_write(const char *directory,
                                  size_t directory_length,
                                  const struct vipool_handle *handle,
                                  const struct vipool_ip *client,
                                  const char *user,
                                  size_t user_length);

/**
 * Where the client of the session of this lease is, for vipool_rewrite_host_addresses().
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_UTF8, VIPOOL_ERR_SESSION_ID, VIPOOL_ERR_HANDLE,
 * VIPOOL_ERR_NOT_FOUND (not known, or not to this user). May be called from any thread.
 */
vipool_status vipool_client_read(const char *directory,
                                 size_t directory_length,
                                 const struct vipool_handle *handle,
                                 struct vipool_ip *out);

/**
 * Takes away what vipool_client_write() wrote: to be called when the session is closed. What is
 * not there is no error.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_UTF8, VIPOOL_ERR_SESSION_ID, VIPOOL_ERR_HANDLE,
 * VIPOOL_ERR_IO. May be called from any thread.
 */
vipool_status vipool_client_remove(const char *directory,
                                   size_t directory_length,
                                   const struct vipool_handle *handle);

/**
 * Maps the map in a directory read-only, as a hook or a monitor does.
 *
 * Give it back with vipool_reader_free(); a hook keeps it for the life of its process.
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_UTF8, VIPOOL_ERR_MISSING, VIPOOL_ERR_DAMAGED,
 * VIPOOL_ERR_OTHER_BOOT, VIPOOL_ERR_UNTRUSTED, VIPOOL_ERR_IO.
 */
vipool_status vipool_reader_attach(const char *directory,
                                   size_t directory_length,
                                   struct vipool_reader **out);

/**
 * vipool_reader_attach() with a UTF-16 path of `directory_length` units.
 *
 * Errors: those, and VIPOOL_ERR_UTF16.
 */
vipool_status vipool_reader_attach_utf16(const uint16_t *directory,
                                         size_t directory_length,
                                         struct vipool_reader **out);

/**
 * Frees a reader. NULL is nothing.
 */
void vipool_reader_free(struct vipool_reader *reader);

/**
 * The handle and leases of a session.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_SESSION_ID, VIPOOL_ERR_NOT_OPEN.
 * May be called from any thread and in a signal handler.
 */
vipool_status vipool_reader_find(const struct vipool_reader *reader,
                                 vipool_session session_id,
                                 struct vipool_found *out);

/**
 * The leases of the session of a handle, if the lease that the handle names is still held: what a
 * program goes by that was told its handle.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_SESSION_ID, VIPOOL_ERR_HANDLE,
 * VIPOOL_ERR_STALE. May be called from any thread and in a signal handler.
 */
vipool_status vipool_reader_leases_of(const struct vipool_reader *reader,
                                      const struct vipool_handle *handle,
                                      struct vipool_found *out);

/**
 * The addresses of a session.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_SESSION_ID, VIPOOL_ERR_NOT_OPEN.
 * May be called from any thread and in a signal handler.
 */
vipool_status vipool_reader_addresses(const struct vipool_reader *reader,
                                      vipool_session session_id,
                                      struct vipool_addresses *out);

/**
 * Whether the lease of this handle is still held: VIPOOL_OK or VIPOOL_ERR_STALE. Costs a few
 * loads.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_SESSION_ID, VIPOOL_ERR_HANDLE, VIPOOL_ERR_STALE.
 * May be called from any thread and in a signal handler.
 */
vipool_status vipool_reader_check(const struct vipool_reader *reader,
                                  const struct vipool_handle *handle);

/**
 * The boot and network namespace that the map belongs to, hashed: vipool_handle.boot of its leases.
 *
 * Errors: VIPOOL_ERR_NULL. May be called from any thread and in a signal handler.
 */
vipool_status vipool_reader_boot(const struct vipool_reader *reader, uint64_t *out_boot);

/**
 * Whose an address is: `out_kind` is the vipool_pool_kind of the pool that it belongs to (some
 * session's V or L, held or not), 0 if it belongs to none.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_ADDRESS.
 * May be called from any thread and in a signal handler.
 */
vipool_status vipool_reader_kind_of(const struct vipool_reader *reader,
                                    const struct vipool_ip *address,
                                    uint32_t *out_kind);

/**
 * Whether a newer file has taken the place of this map: `out_superseded` is 1 if so, else 0.
 * Then attach again; the old reader stays valid until it is freed.
 *
 * Errors: VIPOOL_ERR_NULL. May be called from any thread and in a signal handler.
 */
vipool_status vipool_reader_is_superseded(const struct vipool_reader *reader,
                                          uint32_t *out_superseded);

/**
 * Whether the whole server drains: `out_draining` is 1 if so, else 0.
 *
 * Errors: VIPOOL_ERR_NULL. May be called from any thread and in a signal handler.
 */
vipool_status vipool_reader_is_draining(const struct vipool_reader *reader, uint32_t *out_draining);

/**
 * How addresses are given out.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE. May be called from any thread.
 */
vipool_status vipool_reader_settings(const struct vipool_reader *reader,
                                     struct vipool_settings *out);

/**
 * The pools and the open sessions, without users, clients and leaders. No lock is taken: each row
 * is of a moment of its own while sessions open and close, and the numbers of the pools are of
 * another. vipool_map_snapshot() gives the sessions of one moment.
 *
 * Give it back with vipool_snapshot_free(). Errors: VIPOOL_ERR_NULL. May be called from any
 * thread.
 */
vipool_status vipool_reader_snapshot(const struct vipool_reader *reader,
                                     struct vipool_snapshot **out);

/**
 * How many sessions are in the snapshot; 0 for NULL. May be called from any thread.
 */
size_t vipool_snapshot_session_count(const struct vipool_snapshot *snapshot);

/**
 * How many pools are in the snapshot; 0 for NULL. May be called from any thread.
 */
size_t vipool_snapshot_pool_count(const struct vipool_snapshot *snapshot);

/**
 * A page of the sessions, from number `first` on (from 0), in the order of pools and slots.
 *
 * `rows`: an array of `capacity` rows; set the size of the first one. `out_count` is told how
 * many were written, 0 behind the last.
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE. May be called from any thread.
 */
vipool_status vipool_snapshot_sessions(const struct vipool_snapshot *snapshot,
                                       size_t first,
                                       struct vipool_session_row *rows,
                                       size_t capacity,
                                       size_t *out_count);

/**
 * A page of the pools, from number `first` on (from 0), in their order.
 *
 * `rows`: an array of `capacity` rows; set the size of the first one. `out_count` is told how
 * many were written, 0 behind the last.
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE. May be called from any thread.
 */
vipool_status vipool_snapshot_pools(const struct vipool_snapshot *snapshot,
                                    size_t first,
                                    struct vipool_pool_row *rows,
                                    size_t capacity,
                                    size_t *out_count);

/**
 * A page of the addresses of a pool (by its number, from 0), from slot `first` on, as they are
 * now: each page is of its own moment, so ask for all at once where that matters.
 *
 * `rows`: an array of `capacity` rows; set the size of the first one. `out_count` is told how
 * many were written, 0 behind the last and for a pool that there is not.
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE. May be called from any thread.
 */
vipool_status vipool_reader_slots(const struct vipool_reader *reader,
                                  uint32_t pool,
                                  size_t first,
                                  struct vipool_slot_row *rows,
                                  size_t capacity,
                                  size_t *out_count);

/**
 * Frees a snapshot; the texts in its rows are gone with it. NULL is nothing.
 */
void vipool_snapshot_free(struct vipool_snapshot *snapshot);

/**
 * Opens the journal of the map in a directory, which only root and the group of vipool may.
 *
 * Give it back with vipool_journal_free().
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_UTF8, VIPOOL_ERR_MISSING, VIPOOL_ERR_DAMAGED,
 * VIPOOL_ERR_UNTRUSTED, VIPOOL_ERR_IO. May be called from any thread.
 */
vipool_status vipool_journal_open(const char *directory,
                                  size_t directory_length,
                                  struct vipool_journal **out);

/**
 * vipool_journal_open() with a UTF-16 path of `directory_length` units.
 *
 * Errors: those, and VIPOOL_ERR_UTF16.
 */
vipool_status vipool_journal_open_utf16(const uint16_t *directory,
                                        size_t directory_length,
                                        struct vipool_journal **out);

/**
 * The boot and network namespace that the journal belongs to, hashed: vipool_handle.boot of the
 * leases in it. Event numbers begin anew with another one.
 *
 * Errors: VIPOOL_ERR_NULL. May be called from any thread.
 */
vipool_status vipool_journal_boot(const struct vipool_journal *journal, uint64_t *out_boot);

/**
 * A page of the events from number `first` on (1 for all that there are), in order.
 *
 * `rows`: an array of `capacity` rows; set the size of the first one. `out_count` is told how many
 * were written, 0 if nothing has happened since. `out_lost` (may be NULL) is told how many before or
 * between them were overwritten before they could be read. `out_next` (may be NULL) is told the number
 * to ask for next time.
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE. May be called from any thread.
 */
vipool_status vipool_journal_since(const struct vipool_journal *journal,
                                   uint64_t first,
                                   struct vipool_journal_row *rows,
                                   size_t capacity,
                                   size_t *out_count,
                                   uint64_t *out_lost,
                                   uint64_t *out_next);

/**
 * Closes a journal and frees it. NULL is nothing.
 */
void vipool_journal_free(struct vipool_journal *journal);

/**
 * The rule of the process list that holds for a program: the most specific, the first of equals.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_UNKNOWN_FIELD, VIPOOL_ERR_KIND,
 * VIPOOL_ERR_BUFFER, VIPOOL_ERR_NOT_FOUND (it is on no rule: leave it alone).
 * May be called from any thread and in a signal handler, on a stack with 24 KiB left.
 */
vipool_status vipool_reader_find_rule(const struct vipool_reader *reader,
                                      const struct vipool_executable *executable,
                                      struct vipool_rule *out);

/**
 * The rule with this id, if it is on the list and is handed down to children: for a program that
 * is on no rule itself and was started by one that is under this rule.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_NOT_FOUND.
 * May be called from any thread and in a signal handler.
 */
vipool_status vipool_reader_inherited_rule(const struct vipool_reader *reader,
                                           uint64_t id,
                                           struct vipool_rule *out);

/**
 * What every rule of the process list says of a program, from number `first` on (from 0), in the
 * order of the list: why it holds or does not. For people who wonder;
 * vipool_reader_find_rule() decides.
 *
 * `rows`: an array of `capacity` rows; set the size of the first one. `out_count` is told how many
 * were written, 0 behind the last.
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_UNKNOWN_FIELD, VIPOOL_ERR_KIND,
 * VIPOOL_ERR_BUFFER (a path that is too long). May be called from any thread.
 */
vipool_status vipool_reader_explain(const struct vipool_reader *reader,
                                    const struct vipool_executable *executable,
                                    size_t first,
                                    struct vipool_verdict_row *rows,
                                    size_t capacity,
                                    size_t *out_count);

/**
 * What hook layers go by beside the process list: `out_flags` is told VIPOOL_RULE_... flags.
 *
 * Errors: VIPOOL_ERR_NULL. May be called from any thread and in a signal handler.
 */
vipool_status vipool_reader_rule_flags(const struct vipool_reader *reader, uint32_t *out_flags);

/**
 * The script that an interpreter runs, for vipool_executable.script: the script, module (-m) or
 * archive (-jar) among the `count` arguments that follow the program's own name, each with a NUL
 * behind it. `out` is told which of the pointers it is.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_NOT_FOUND (code on the command line, or no script at all).
 * May be called from any thread and in a signal handler.
 */
vipool_status vipool_script_of(const char *const *arguments, size_t count, const char **out);

/**
 * The name of a vipool_reason for programs, such as "not-listed"; "unknown" for other numbers.
 * Static: nothing to free.
 *
 * May be called from any thread and in a signal handler.
 */
const char *vipool_reason_name(uint32_t reason);

/**
 * A vipool_reason in a sentence for people; "unknown" for other numbers. Static: nothing to free.
 *
 * May be called from any thread and in a signal handler.
 */
const char *vipool_reason_text(uint32_t reason);

/**
 * The name of a vipool_refusal for programs; "unknown" for other numbers. Static: nothing to free.
 *
 * May be called from any thread and in a signal handler.
 */
const char *vipool_refusal_name(uint32_t refusal);

/**
 * A vipool_refusal in a sentence for people; "unknown" for other numbers. Static: nothing to free.
 *
 * May be called from any thread and in a signal handler.
 */
const char *vipool_refusal_text(uint32_t refusal);

/**
 * A vipool_find_listener_fn that asks the kernel: on Linux by sock_diag (it opens and closes a
 * descriptor of its own; errno may change), on Windows by GetExtendedTcpTable and
 * GetExtendedUdpTable; elsewhere its answer is VIPOOL_LISTENER_UNKNOWN. The context is not used.
 *
 * May be called from any thread and in a signal handler.
 */
int32_t vipool_find_listener(void *context,
                             const struct vipool_sockaddr *addresses,
                             size_t count,
                             uint32_t protocol,
                             const struct vipool_sockaddr *from);

/**
 * Makes a rewriter for a program that is under a rule, in the session of a lease.
 *
 * Give it back with vipool_rewriter_free(). It may outlive the reader that it was made of. When
 * vipool_reader_is_superseded() says so, attach again and make a new one.
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_UNKNOWN_FIELD, VIPOOL_ERR_KIND,
 * VIPOOL_ERR_SESSION_ID, VIPOOL_ERR_HANDLE, VIPOOL_ERR_STALE (the lease is no longer held),
 * VIPOOL_ERR_NOT_FOUND (no such rule). May be called from any thread.
 */
vipool_status vipool_rewriter_new(const struct vipool_reader *reader,
                                  const struct vipool_rewriter_options *options,
                                  struct vipool_rewriter **out);

/**
 * Frees a rewriter. NULL is nothing.
 */
void vipool_rewriter_free(struct vipool_rewriter *rewriter);

/**
 * bind: the program binds `socket` to `address`.
 *
 * Errors of this and all vipool_rewrite_ calls: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE,
 * VIPOOL_ERR_UNKNOWN_FIELD; then the call goes on as the program made it. An address that is not
 * IPv4 or IPv6 is no error but VIPOOL_PASSED.
 * May be called from any thread and in a signal handler, as all of them.
 */
vipool_status vipool_rewrite_bind(const struct vipool_rewriter *rewriter,
                                  const struct vipool_socket *socket,
                                  const void *address,
                                  uint32_t length,
                                  struct vipool_outcome *out);

/**
 * listen: an unbound socket would be bound to the wildcard address by the kernel, so with
 * VIPOOL_REWRITTEN bind it to `address` first. If that fails, go on all the same, unless the address
 * is on no interface and vipool_rewrite_retries() says that the program gets the error.
 *
 * Winsock binds nothing in listen but answers WSAEINVAL: on Windows ask only of sockets whose bind
 * was put off (VIPOOL_DO_DEFER).
 *
 * Errors: those of vipool_rewrite_bind().
 */
vipool_status vipool_rewrite_listen(const struct vipool_rewriter *rewriter,
                                    const struct vipool_socket *socket,
                                    struct vipool_outcome *out);

/**
 * connect, WSAConnect, ConnectEx: the program connects `socket` to `address`, TCP or UDP.
 *
 * Errors: those of vipool_rewrite_bind().
 */
vipool_status vipool_rewrite_connect(const struct vipool_rewriter *rewriter,
                                     const struct vipool_socket *socket,
                                     const void *address,
                                     uint32_t length,
                                     struct vipool_outcome *out);

/**
 * sendto, sendmsg, WSASendTo, WSASendMsg with a destination: a datagram (`fast_open` 0), or with
 * `fast_open` not 0 (MSG_FASTOPEN) a stream that begins with it. Without a destination there is
 * nothing to ask.
 *
 * Errors: those of vipool_rewrite_bind().
 */
vipool_status vipool_rewrite_send(const struct vipool_rewriter *rewriter,
                                  const struct vipool_socket *socket,
                                  const void *address,
                                  uint32_t length,
                                  uint32_t fast_open,
                                  struct vipool_outcome *out);

/**
 * The source that a program names for one datagram (IP_PKTINFO, IPV6_PKTINFO of sendmsg and
 * WSASendMsg). `address` may be NULL; else it is where the datagram goes by now. With
 * VIPOOL_REWRITTEN `out->address` is the source to name, with port 0.
 *
 * Errors: those of vipool_rewrite_bind(), and VIPOOL_ERR_ADDRESS.
 */
vipool_status vipool_rewrite_send_source(const struct vipool_rewriter *rewriter,
                                         const struct vipool_ip *source,
                                         const void *address,
                                         uint32_t length,
                                         struct vipool_outcome *out);

/**
 * getsockname, getpeername, accept, accept4, WSAAccept, AcceptEx, and the source of recvfrom,
 * recvmsg, recvmmsg, WSARecvFrom, WSARecvMsg: `address` is one end of a socket as the kernel has
 * it; with VIPOOL_REWRITTEN the program is shown `out->address`. `ask_other` gives the other end
 * (of a received datagram the socket's own address); it is asked only where that matters and may
 * be NULL.
 *
 * Errors: those of vipool_rewrite_bind().
 */
vipool_status vipool_rewrite_shown(const struct vipool_rewriter *rewriter,
                                   const void *address,
                                   uint32_t length,
                                   vipool_ask_address_fn ask_other,
                                   void *context,
                                   struct vipool_outcome *out);

/**
 * The address of a received IP_PKTINFO, or one whose name is looked up (getnameinfo,
 * gethostbyaddr): with VIPOOL_REWRITTEN the program is shown `out->address`, with port 0.
 *
 * Errors: those of vipool_rewrite_bind(), and VIPOOL_ERR_ADDRESS.
 */
vipool_status vipool_rewrite_shown_ip(const struct vipool_rewriter *rewriter,
                                      const struct vipool_ip *address,
                                      struct vipool_outcome *out);

/**
 * A multicast datagram to `address` where the program set no interface (IP_MULTICAST_IF): with
 * VIPOOL_REWRITTEN set it to `out->address`, without its port.
 *
 * Errors: those of vipool_rewrite_bind(), and VIPOOL_ERR_ADDRESS.
 */
vipool_status vipool_rewrite_multicast_interface(const struct vipool_rewriter *rewriter,
                                                 const struct vipool_ip *address,
                                                 struct vipool_outcome *out);

/**
 * getaddrinfo, gethostbyname and their variants, of the host's own name: the session's virtual
 * IP, or the address of its client where the program has that feature. `client` may be NULL or
 * none if it is not known.
 *
 * Errors: those of vipool_rewrite_bind(), and VIPOOL_ERR_ADDRESS.
 */
vipool_status vipool_rewrite_host_addresses(const struct vipool_rewriter *rewriter,
                                            const struct vipool_ip *client,
                                            struct vipool_host_addresses *out);

/**
 * getnameinfo, gethostbyaddr: `out_own` is 1 if the name of this address is the host's own name,
 * else 0.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_ADDRESS. May be called from any thread and in a signal
 * handler.
 */
vipool_status vipool_rewrite_is_own_address(const struct vipool_rewriter *rewriter,
                                            const struct vipool_ip *address,
                                            uint32_t *out_own);

/**
 * getifaddrs, GetAdaptersAddresses: `out_hidden` is 1 if this address of an interface is left out
 * of the list that the program gets, else 0.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_ADDRESS. May be called from any thread and in a signal
 * handler.
 */
vipool_status vipool_rewrite_hides(const struct vipool_rewriter *rewriter,
                                   const struct vipool_ip *address,
                                   uint32_t *out_hidden);

/**
 * After a bind to an address that vipool_outcome named (`address` of bind and listen, `bind` of
 * connect and send) failed because it is on no interface (EADDRNOTAVAIL, WSAEADDRNOTAVAIL):
 * `out_retry` is 1 if the program's call goes on without it, 0 if the program gets the error.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_ADDRESS. May be called from any thread and in a signal
 * handler.
 */
vipool_status vipool_rewrite_retries(const struct vipool_rewriter *rewriter,
                                     const struct vipool_ip *address,
                                     uint32_t *out_retry);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* VIPOOL_H */
