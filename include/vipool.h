/* vipool: a virtual IP address for every session on a multi-user server.
 *
 * Copyright the vipool authors. Licensed under the Apache License, Version 2.0.
 *
 * An agent opens and closes sessions. A hook in an application rewrites the addresses of its socket
 * calls. A monitor reads sessions and pools. All of them share a map, which is in a file or in
 * memory.
 *
 * ==== Quickstart: an agent ====
 *
 *     vipool_plan_options server = { .size = sizeof server, .host = "ts1", .host_length = 3 };
 *     vipool_map_options options = { .size = sizeof options, .flags = VIPOOL_MAP_EXCLUSIVE };
 *     vipool_open_options user = { .size = sizeof user, .user = "ada", .user_length = 3 };
 *     vipool_opened_session opened;
 *
 *     VIPOOL_INIT(&opened);
 *     vipool_farm_load("/etc/vipool/farm.toml", 21, &farm);
 *     status = vipool_plan_new(farm, &server, &plan);
 *     if (status != VIPOOL_OK) { return; }  // vipool_farm_format_report() describes the errors.
 *     vipool_map_create("/run/vipool", 11, plan, &options, &map);
 *     vipool_map_reconcile(map, vipool_now(), is_alive, NULL, NULL);
 *
 *     // At a logon:
 *     vipool_session_make(VIPOOL_SESSION_EMBEDDER, 7, &session);
 *     vipool_map_open_session(map, session, &user, vipool_now(), &opened);
 *     vipool_handle_format(&opened.handle, lease, sizeof lease, NULL);  // for VIPOOL_LEASE
 *     // At a logoff:
 *     vipool_map_close_by_handle(map, &opened.handle, vipool_now(), NULL);
 *     // By a timer, every ten seconds:
 *     vipool_map_reap(map, vipool_now(), 1000, NULL, NULL);
 *
 * The library allocates addresses. The agent, or `vipool up`, adds them to the interfaces of
 * vipool_plan_list_assignments(), as /32 or /128. A map may be closed and opened again at any time;
 * sessions stay open. Without a farm.toml, build a farm with vipool_farm_new().
 *
 * ==== Quickstart: a hook ====
 *
 *     vipool_executable program = { .size = sizeof program, .path = path, .path_length = length };
 *     vipool_rewriter_options options = { .size = sizeof options,
 *                                         .find_listener = vipool_listener_find };
 *     vipool_rule rule = { .size = sizeof rule };
 *     vipool_outcome outcome = { .size = sizeof outcome, .kind = VIPOOL_PASSED };
 *
 *     // When the process starts. If one of these calls fails, do not rewrite:
 *     vipool_handle_parse(lease, strlen(lease), &options.handle);
 *     vipool_reader_open("/run/vipool", 11, &reader);
 *     vipool_reader_find_rule(reader, &program, &rule);
 *     options.rule = rule.id;
 *     vipool_rewriter_new(reader, &options, &rewriter);
 *
 *     // In the replacement of bind():
 *     vipool_rewrite_bind(rewriter, facts, address, address_length, &outcome);
 *     if (outcome.kind == VIPOOL_REFUSED) { errno = outcome.error; return -1; }
 *     if (outcome.kind == VIPOOL_REWRITTEN) {
 *         return bind(s, (const void *)outcome.address.bytes, outcome.address.length);
 *     }
 *     return bind(s, address, address_length);
 *
 * A hook does nothing if the environment has VIPOOL_DISABLE=1, and ignores its environment in a
 * process with more rights than its user (AT_SECURE). VIPOOL_LEASE names the lease; without
 * VIPOOL_LEASE, vipool_reader_find_by_process() finds the lease. vipool_reader_find_rule() finds
 * the rule; if no rule matches, vipool_reader_find_parent_rule() finds an inherited rule. The hook
 * uses no object of the library during the original call, which may block or never return. In each
 * call, the hook checks vipool_reader_is_superseded(). If a newer map exists, the hook repeats the
 * start in the next call that may allocate memory. The hook never frees the old reader and the old
 * rewriter, because other threads may use them.
 *
 * Complete programs: examples/cpp/agent.cpp, examples/c/first_session.c, examples/c/hook.c and
 * examples/c/windows_hook.c. vipool.hpp wraps this header for C++17.
 *
 * ==== Conventions ====
 *
 * Names. vipool_<object>_<verb>. Objects in memory have _new and _free. Objects that use files have
 * _open or _create, and _close. _get reads one value. _list reads a page of rows. _add and _set
 * change a configuration. _find searches. _is returns 0 or 1. _parse and _format convert text.
 *
 * Statuses. A function that can fail returns a vipool_status: VIPOOL_OK (0) or a negative number
 * with a fixed meaning. vipool_last_error() returns the details of the last call, unless the function
 * is signal-safe.
 *
 * Parameters. Out-parameters come last. The library writes them on success only; with
 * VIPOOL_ERR_BUFFER, it also writes the length or the count, and vipool_map_open_session() also
 * writes a shortage. A parameter may be NULL only if its
 * description says so; otherwise NULL causes VIPOOL_ERR_NULL. The library does not change `const`
 * objects.
 *
 * Objects. NULL is checked everywhere. A call with an object that was freed, or that another kind of
 * function made, is undefined behaviour, as with free() of the C library.
 *
 * Structs that begin with `size`. VIPOOL_INIT(&the_struct) zeroes the struct and sets size to
 * sizeof(the struct). A size below that of the first version, such as the size of a pointer, causes
 * VIPOOL_ERR_STRUCT_SIZE. Zero is the default of every member, except in vipool_settings. Old
 * programs work with new libraries, because missing members are zero. A struct of a newer header
 * causes VIPOOL_ERR_UNKNOWN_FIELD if it sets a member that this library does not know. A reserved
 * member that is not zero also causes VIPOOL_ERR_UNKNOWN_FIELD.
 *
 * Numbers. Kinds and flags are uint32_t. An unknown value causes VIPOOL_ERR_KIND.
 *
 * Texts. Texts are UTF-8 with a length in bytes. A NUL is not needed. A buffer with capacity 0 may
 * be NULL: the call returns VIPOOL_ERR_BUFFER and the length. Windows programs convert paths with
 * vipool_utf16_to_utf8().
 *
 * List calls. They write up to `capacity` rows, starting with index `first`, and the number of rows
 * that they wrote. The number is 0 after the last row. The size in the first row is the distance
 * between rows.
 *
 * Callbacks. The library calls them on the thread of the call, before it returns. They must not throw
 * or longjmp.
 *
 * Writer errors. Calls that change a map may return VIPOOL_ERR_IO, VIPOOL_ERR_MISSING,
 * VIPOOL_ERR_DAMAGED, VIPOOL_ERR_BUSY, VIPOOL_ERR_BUSY_EXCLUSIVE, VIPOOL_ERR_FORKED and
 * VIPOOL_ERR_LOCK_LOST.
 *
 * Threads. `any`: any number of threads may call the function at once, also with the same object.
 * If the object is a map with VIPOOL_MAP_SINGLE_THREADED, one thread at a time may use it. `one at
 * a time per X`: calls with the same X must not overlap. `signal-safe`: the function may also be
 * called in a signal handler and in the child of fork() or vfork(). It takes no lock, allocates
 * nothing, keeps errno and does not change vipool_last_error().
 *
 * After fork(). The child may use readers and rewriters of its parent, and the objects in memory
 * (farms, plans, snapshots, journals). Every function with a map of the parent, in files or in memory,
 * returns VIPOOL_ERR_FORKED; the child opens the map again. vipool_map_close() frees the child's copy
 * and leaves the map and its lock to the parent. If the parent has several threads, POSIX allows the
 * child only signal-safe functions until it calls exec. With the GNU C library, the child may also
 * call malloc() and therefore the other functions of this library.
 *
 * Lock. A writer that closes all descriptors, for example with closefrom(), loses its lock, unless it
 * holds the map exclusively: calls return VIPOOL_ERR_LOCK_LOST, and the map must be opened again. If
 * the files of a map are removed, its writers get VIPOOL_ERR_MISSING or VIPOOL_ERR_LOCK_LOST. An
 * exclusive writer notices the removal when the time that it passes has a new second. A child that
 * was made by the system call clone(2) keeps the lock of its parent until it exits or opens the map.
 *
 * Host process. The library starts no thread, changes no environment variable or signal handler,
 * and writes nothing to standard output or error. A defect inside the library causes
 * VIPOOL_ERR_PANIC.
 *
 * Terms. V: virtual IP, an address of the network. L: virtual loopback, an address of 127.0.0.0/8;
 * L6: a second address of 127.0.0.0/8, which replaces ::1. Slot: an address of a pool. Lease: an
 * address held by a session. Handle: identifies a lease. Rule: an entry of the process list.
 */

#ifndef VIPOOL_H
#define VIPOOL_H

/* Generated by `cargo xtask header` from src/capi. Do not edit. */

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Zeroes a struct that begins with `size`, and sets its size: VIPOOL_INIT(&opened). */
#define VIPOOL_INIT(p) (memset((p), 0, sizeof *(p)), (void)((p)->size = sizeof *(p)))

/*
 * Contents
 *
 *  1. Statuses and errors
 *  2. Version, clock and text
 *  3. Addresses and ranges
 *  4. Sessions, handles and leases
 *  5. Network interfaces
 *  6. Settings, process list and programs
 *  7. Agent: the farm
 *  8. Agent: the plan of one server
 *  9. Agent: events
 * 10. Agent: creating and opening a map
 * 11. Agent: opening and closing sessions
 * 12. Agent: administration
 * 13. Agent and hook: client addresses
 * 14. Hook and monitor: reading a map
 * 15. Monitor: snapshots and slots
 * 16. Monitor: the journal
 * 17. Hook: the rule and the lease of a process
 * 18. Hook: sockets, outcomes and reasons
 * 19. Hook: the rewriter
 * 20. Hook: rewrite calls
 */

#ifdef __cplusplus
extern "C" {
#endif

/* ================================================================================
 * 1. Statuses and errors
 */

/**
 * Result of a call. The numbers never change. -1 to -8 are mistakes of the caller.
 * VIPOOL_ERR_PANIC is a defect of the library. The other errors depend on the map, the system or
 * the input.
 *
 * vipool_status_get_text() describes a status. vipool_last_error() describes the failure of the
 * last call of this thread. Signal-safe functions do not change that description.
 */
typedef int32_t vipool_status;
enum {
    /**
     * Success.
     */
    VIPOOL_OK = 0,
    /**
     * A pointer that must not be NULL is NULL.
     */
    VIPOOL_ERR_NULL = -1,
    /**
     * The size at the start of a struct is not the size of any version of this struct. VIPOOL_INIT
     * sets the correct size. A common mistake is to pass the size of a pointer.
     */
    VIPOOL_ERR_STRUCT_SIZE = -2,
    /**
     * A struct sets a member that this library does not know, or a reserved member.
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
     * A kind or a flag has an undefined value.
     */
    VIPOOL_ERR_KIND = -6,
    /**
     * Not an address: unknown family, wrong length or invalid text.
     */
    VIPOOL_ERR_ADDRESS = -7,
    /**
     * A buffer is too small, or a path or an array of the caller is too long. If a buffer is too
     * small, the call has still written the length or the count of the complete result.
     */
    VIPOOL_ERR_BUFFER = -8,
    /**
     * Nothing was found.
     */
    VIPOOL_ERR_NOT_FOUND = -9,
    /**
     * A defect inside the library. The call did not finish. Please report vipool_last_error().
     */
    VIPOOL_ERR_PANIC = -10,
    /**
     * This system does not support the call.
     */
    VIPOOL_ERR_UNSUPPORTED = -11,
    /**
     * Not a range: neither an address, a CIDR prefix nor first-last.
     */
    VIPOOL_ERR_RANGE_SYNTAX = -20,
    /**
     * The CIDR prefix has bits set after the prefix length.
     */
    VIPOOL_ERR_RANGE_HOST_BITS = -21,
    /**
     * The first address or port is above the last, or the families differ.
     */
    VIPOOL_ERR_RANGE_ORDER = -22,
    /**
     * Not a session id: zero, a number with an unknown kind, a value above 2^56-1, or invalid
     * text.
     */
    VIPOOL_ERR_SESSION_ID = -26,
    /**
     * The audit session is 4294967295: the process has no session.
     */
    VIPOOL_ERR_SESSION_UNSET = -27,
    /**
     * Not a handle.
     */
    VIPOOL_ERR_HANDLE = -28,
    /**
     * Every address is in use, reserved or drained. The text of this status is the message for
     * the user.
     */
    VIPOOL_ERR_EXHAUSTED = -40,
    /**
     * No address is free, but addresses are cooling down. vipool_last_error() reports when the
     * first cool-down ends.
     */
    VIPOOL_ERR_COOLING = -41,
    /**
     * No address is free. Addresses have cooled down, but may still have sockets.
     * vipool_map_reap() examines them.
     */
    VIPOOL_ERR_LINGERING = -42,
    /**
     * The pool or the server is draining.
     */
    VIPOOL_ERR_DRAINING = -43,
    /**
     * No pool has this name.
     */
    VIPOOL_ERR_UNKNOWN_POOL = -44,
    /**
     * The address is in no pool of this server.
     */
    VIPOOL_ERR_EXCLUDED = -45,
    /**
     * Another session holds the address.
     */
    VIPOOL_ERR_TAKEN = -46,
    /**
     * The address is cooling down.
     */
    VIPOOL_ERR_ADDRESS_COOLING = -47,
    /**
     * The address may still have sockets of its last session.
     */
    VIPOOL_ERR_ADDRESS_LINGERING = -48,
    /**
     * The address is reserved for another user.
     */
    VIPOOL_ERR_RESERVED = -49,
    /**
     * The address is drained.
     */
    VIPOOL_ERR_DRAINED = -50,
    /**
     * The user has the maximum number of sessions.
     */
    VIPOOL_ERR_QUOTA = -51,
    /**
     * The server has the maximum number of sessions.
     */
    VIPOOL_ERR_TOO_MANY_SESSIONS = -52,
    /**
     * The agent has not restored the sessions of the operating system yet.
     */
    VIPOOL_ERR_NOT_READY = -53,
    /**
     * The address is not reserved.
     */
    VIPOOL_ERR_NOT_RESERVED = -54,
    /**
     * A rule selects the pool by a group, and the user database did not return the groups of the
     * user.
     */
    VIPOOL_ERR_UNKNOWN_GROUPS = -55,
    /**
     * The session is already open for another user.
     */
    VIPOOL_ERR_OTHER_USER = -56,
    /**
     * The session is already open with another address.
     */
    VIPOOL_ERR_OTHER_ADDRESS = -57,
    /**
     * The session is not open.
     */
    VIPOOL_ERR_NOT_OPEN = -60,
    /**
     * The lease is already released, and a later session may hold the address. The call released
     * nothing.
     */
    VIPOOL_ERR_STALE = -61,
    /**
     * The handle is of another boot, network namespace or map. The call released nothing.
     */
    VIPOOL_ERR_FOREIGN = -62,
    /**
     * The operating system reported an error. vipool_last_error() names the file and the error.
     */
    VIPOOL_ERR_IO = -70,
    /**
     * The directory has no map.
     */
    VIPOOL_ERR_MISSING = -71,
    /**
     * The file is not a map, is damaged, or has an unknown version.
     */
    VIPOOL_ERR_DAMAGED = -72,
    /**
     * The map was created before the last boot, or in another network namespace.
     */
    VIPOOL_ERR_OTHER_BOOT = -73,
    /**
     * The map file is unsafe. For example, it is a symbolic link, belongs to another user, or
     * other users can write to it.
     */
    VIPOOL_ERR_UNTRUSTED = -74,
    /**
     * Another writer held the lock of the map for too long, or another process creates or repairs
     * the map.
     */
    VIPOOL_ERR_BUSY = -75,
    /**
     * Another writer holds the map exclusively.
     */
    VIPOOL_ERR_BUSY_EXCLUSIVE = -76,
    /**
     * No map can be made from the plan.
     */
    VIPOOL_ERR_PLAN = -77,
    /**
     * The parent of this process opened the map before fork(). Open the map again.
     */
    VIPOOL_ERR_FORKED = -78,
    /**
     * The lock no longer excludes other writers: this process has closed the descriptor of the
     * lock file, or the lock file was removed. Open the map again.
     */
    VIPOOL_ERR_LOCK_LOST = -79,
    /**
     * The farm has errors: vipool_farm_list_findings() and vipool_farm_format_report() describe
     * them.
     */
    VIPOOL_ERR_FARM = -80,
    /**
     * The directory for a map does not exist, or its name is empty.
     */
    VIPOOL_ERR_DIRECTORY = -81
};

/**
 * Returns the name of a status, such as "VIPOOL_ERR_BUSY".
 *
 * Parameters:
 * - `status`: vipool_status.
 *
 * Returns: a static text; "unknown status" for other numbers.
 *
 * Threads: any; signal-safe.
 */
const char *vipool_status_get_name(int32_t status);

/**
 * Returns the description of a status.
 *
 * The text of VIPOOL_ERR_EXHAUSTED is the message for a user without an address.
 *
 * Parameters:
 * - `status`: vipool_status.
 *
 * Returns: a static text; "unknown status" for other numbers.
 *
 * Threads: any; signal-safe.
 */
const char *vipool_status_get_text(int32_t status);

/**
 * Returns the error message of the last call of this thread.
 *
 * The message is in English. It names what failed, and where known also the value, the reason and
 * the remedy. It is UTF-8, has at most 1023 bytes, and ends with a NUL. It is empty if the call
 * succeeded.
 *
 * A function that returns a vipool_status replaces the message, unless the function is signal-safe
 * or its description excludes this. No other function changes the message. For a status without a
 * message, use vipool_status_get_text().
 *
 * Returns: a text of the library, valid until the next call of this thread.
 *
 * Threads: any.
 */
const char *vipool_last_error(void);

/* ================================================================================
 * 2. Version, clock and text
 */

/**
 * Major version of this header. A new major version can break existing programs.
 */
#define VIPOOL_VERSION_MAJOR 0

/**
 * Minor version of this header. A new minor version adds features.
 */
#define VIPOOL_VERSION_MINOR 1

/**
 * Patch version of this header. A new patch version does not change the interface.
 */
#define VIPOOL_VERSION_PATCH 0

/**
 * Version of this header as one number: major * 1000000 + minor * 1000 + patch.
 */
#define VIPOOL_VERSION_NUMBER 1000

/**
 * Returns the version of the loaded library as a number.
 *
 * Compare it with VIPOOL_VERSION_NUMBER to check that the header matches the library.
 *
 * Returns: major * 1000000 + minor * 1000 + patch.
 *
 * Threads: any; signal-safe.
 */
uint32_t vipool_version_number(void);

/**
 * Returns the version of the loaded library as text, such as "0.1.0".
 *
 * Returns: a static text.
 *
 * Threads: any; signal-safe.
 */
const char *vipool_version(void);

/**
 * Returns the current tick.
 *
 * A tick is the number of seconds since the machine was started, including the time that it was
 * asleep. Changes of the wall clock do not affect ticks. Every parameter `now` is a tick.
 *
 * Returns: the tick.
 *
 * Threads: any; signal-safe.
 */
uint32_t vipool_now(void);

/**
 * Converts a UTF-16 text, such as a Windows path, to UTF-8, the encoding of this library.
 *
 * Parameters:
 * - `text`, `length`: the text, in units of two bytes and in the byte order of the machine.
 * - `buffer`, `capacity`: receives the UTF-8 text and a NUL. Three bytes per unit and one for the
 *   NUL are enough.
 * - `out_length`: receives the length in bytes without the NUL. May be NULL.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_UTF16 (an unpaired surrogate, or `text` is not aligned to two
 * bytes), VIPOOL_ERR_BUFFER.
 *
 * Threads: any.
 */
vipool_status vipool_utf16_to_utf8(const uint16_t *text,
                                   size_t length,
                                   char *buffer,
                                   size_t capacity,
                                   size_t *out_length);

/* ================================================================================
 * 3. Addresses and ranges
 */

/**
 * An IP address, or no address. A struct of zeros means no address. Plain data.
 */
typedef struct vipool_ip {
    /**
     * 4 for IPv4, 6 for IPv6, 0 for no address. This is not AF_INET6, whose value differs between
     * systems.
     */
    uint32_t family;
    /**
     * The address in network byte order. An IPv4 address uses the first four bytes; the other
     * bytes are zero.
     */
    uint8_t bytes[16];
} vipool_ip;

/**
 * An inclusive range of addresses of one family. Plain data.
 */
typedef struct vipool_range {
    /**
     * Lowest address.
     */
    struct vipool_ip first;
    /**
     * Highest address.
     */
    struct vipool_ip last;
} vipool_range;

/**
 * Capacity of vipool_sockaddr.bytes: sizeof(struct sockaddr_in6).
 */
enum { VIPOOL_SOCKADDR_MAX = 28 };

/**
 * A sockaddr_in or sockaddr_in6 with its length. Pass `bytes` and `length` to the socket calls of
 * the system. Plain data.
 */
typedef struct vipool_sockaddr {
    /**
     * Number of valid bytes; 0 for no address.
     */
    uint32_t length;
    /**
     * The sockaddr. Bytes beyond `length` are undefined.
     */
    uint8_t bytes[VIPOOL_SOCKADDR_MAX];
} vipool_sockaddr;

/**
 * Parses an address, such as "10.0.5.7" or "2001:db8::7".
 *
 * Parameters:
 * - `text`, `length`: the text, UTF-8.
 * - `out`: receives the address.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_UTF8, VIPOOL_ERR_ADDRESS.
 *
 * Threads: any.
 */
vipool_status vipool_ip_parse(const char *text, size_t length, struct vipool_ip *out);

/**
 * Formats an address.
 *
 * Parameters:
 * - `ip`: the address. For no address, the text is empty.
 * - `buffer`, `capacity`: receives the text and a NUL. 46 bytes are always enough.
 * - `out_length`: receives the length without the NUL. May be NULL.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_ADDRESS (unknown family), VIPOOL_ERR_BUFFER.
 *
 * Threads: any.
 */
vipool_status vipool_ip_format(const struct vipool_ip *ip,
                               char *buffer,
                               size_t capacity,
                               size_t *out_length);

/**
 * Reads the address and the port of a sockaddr_in or sockaddr_in6.
 *
 * Parameters:
 * - `address`, `length`: the sockaddr, aligned or not.
 * - `out`: receives the address.
 * - `out_port`: receives the port in host byte order. May be NULL.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_ADDRESS (another family, or a wrong length).
 *
 * Threads: any.
 */
vipool_status vipool_ip_from_sockaddr(const void *address,
                                      uint32_t length,
                                      struct vipool_ip *out,
                                      uint16_t *out_port);

/**
 * Makes a sockaddr from an address and a port.
 *
 * Parameters:
 * - `ip`: the address.
 * - `port`: the port in host byte order.
 * - `out`: receives the sockaddr.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_ADDRESS.
 *
 * Threads: any.
 */
vipool_status vipool_ip_to_sockaddr(const struct vipool_ip *ip,
                                    uint16_t port,
                                    struct vipool_sockaddr *out);

/**
 * Parses a range.
 *
 * The text is a CIDR prefix ("10.0.5.0/24"), first-last ("10.0.5.10-10.0.5.99"), or one address.
 *
 * Parameters:
 * - `text`, `length`: the text, UTF-8.
 * - `out`: receives the range.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_UTF8, VIPOOL_ERR_RANGE_SYNTAX, VIPOOL_ERR_RANGE_HOST_BITS,
 * VIPOOL_ERR_RANGE_ORDER.
 *
 * Threads: any.
 */
vipool_status vipool_range_parse(const char *text, size_t length, struct vipool_range *out);

/**
 * Formats a range as first-last, or as one address if first and last are equal.
 *
 * Parameters:
 * - `range`: the range.
 * - `buffer`, `capacity`: receives the text and a NUL. 92 bytes are always enough.
 * - `out_length`: receives the length without the NUL. May be NULL.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_ADDRESS, VIPOOL_ERR_RANGE_ORDER, VIPOOL_ERR_BUFFER.
 *
 * Threads: any.
 */
vipool_status vipool_range_format(const struct vipool_range *range,
                                  char *buffer,
                                  size_t capacity,
                                  size_t *out_length);

/**
 * Computes the addresses that two ranges have in common.
 *
 * Parameters:
 * - `range`, `other_range`: the ranges.
 * - `out`: receives the intersection.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_ADDRESS, VIPOOL_ERR_RANGE_ORDER, VIPOOL_ERR_NOT_FOUND (no
 * common address).
 *
 * Threads: any.
 */
vipool_status vipool_range_intersect(const struct vipool_range *range,
                                     const struct vipool_range *other_range,
                                     struct vipool_range *out);

/* ================================================================================
 * 4. Sessions, handles and leases
 */

/**
 * A session id: the kind in the upper 8 bits, the value in the lower 56. Zero is no session.
 */
typedef uint64_t vipool_session;

/**
 * Source of a session id.
 */
typedef uint32_t vipool_session_kind;
enum {
    /**
     * A Windows terminal services session (ProcessIdToSessionId). Text: "windows:3".
     */
    VIPOOL_SESSION_WINDOWS = 1,
    /**
     * A Linux audit session (/proc/self/sessionid). Text: "audit:3".
     */
    VIPOOL_SESSION_AUDIT = 2,
    /**
     * A logind session (XDG_SESSION_ID). vipool_session_parse() makes the id from "logind:" and
     * the name.
     */
    VIPOOL_SESSION_LOGIND = 3,
    /**
     * An id that the embedding program chooses. Text: "embedder:3".
     */
    VIPOOL_SESSION_EMBEDDER = 4,
    /**
     * An id that an administrator chooses on the command line. Text: "3".
     */
    VIPOOL_SESSION_COMMAND_LINE = 5,
    /**
     * A Linux user id, for the session that all logons of the user share
     * (VIPOOL_SETTING_SESSION_PER_USER). Text: "user:1000".
     */
    VIPOOL_SESSION_USER = 6
};

/**
 * Capacity of the lease arrays. A session has at most this number of leases.
 */
enum { VIPOOL_MAX_LEASES = 4 };

/**
 * Identifies one lease. Programs receive a handle instead of a session id, because the library
 * recognises a handle of an earlier session, boot or map as stale. Plain data with a fixed layout.
 */
typedef struct vipool_handle {
    /**
     * The session that holds the lease.
     */
    vipool_session session;
    /**
     * Hash of the boot id and the network namespace that the map belongs to.
     */
    uint64_t boot;
    /**
     * Slot within the pool.
     */
    uint32_t slot;
    /**
     * Number of leases that the slot has had, including this one. Wraps around.
     */
    uint32_t generation;
    /**
     * Number of the pool in the map, from 0.
     */
    uint32_t pool;
    /**
     * Reserved: zero.
     */
    uint32_t reserved;
} vipool_handle;

/**
 * One address leased to one session. Plain data with a fixed layout.
 */
typedef struct vipool_lease {
    /**
     * The session that holds the lease.
     */
    vipool_session session;
    /**
     * Slot within the pool.
     */
    uint32_t slot;
    /**
     * Number of leases that the slot has had, including this one. Wraps around.
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
 * The addresses of one session, as a hook uses them. Each of them may be missing.
 */
typedef struct vipool_addresses {
    /**
     * sizeof(vipool_addresses), set by the caller.
     */
    size_t size;
    /**
     * V: the virtual IP, an IPv4 address.
     */
    struct vipool_ip v4;
    /**
     * The virtual IP, an IPv6 address.
     */
    struct vipool_ip v6;
    /**
     * L: the virtual loopback address, in 127.0.0.0/8.
     */
    struct vipool_ip loopback;
    /**
     * L6: a second address in 127.0.0.0/8. ::ffff:L6 replaces ::1.
     */
    struct vipool_ip loopback6;
} vipool_addresses;

/**
 * Makes a session id.
 *
 * Parameters:
 * - `kind`: vipool_session_kind.
 * - `value`: 0 to 2^56-1.
 * - `out`: receives the id.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_KIND, VIPOOL_ERR_SESSION_ID, VIPOOL_ERR_SESSION_UNSET.
 *
 * Threads: any.
 */
vipool_status vipool_session_make(uint32_t kind, uint64_t value, vipool_session *out);

/**
 * Parses a session id: "7" (command line), or kind and value ("audit:3", "logind:c1").
 *
 * For a logind session, the text is "logind:" and the name of the session. If the name is a number
 * below 2^56, this number is the value of the id. If it is another name of up to nine ASCII
 * letters and digits, the value encodes the name. For a longer name, or a name with other
 * characters, the value is a hash of the name.
 *
 * Parameters:
 * - `text`, `length`: the text, UTF-8.
 * - `out`: receives the id.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_UTF8, VIPOOL_ERR_KIND, VIPOOL_ERR_SESSION_ID,
 * VIPOOL_ERR_SESSION_UNSET.
 *
 * Threads: any.
 */
vipool_status vipool_session_parse(const char *text, size_t length, vipool_session *out);

/**
 * Formats a session id in the syntax of vipool_session_parse().
 *
 * Parameters:
 * - `session`: the id.
 * - `buffer`, `capacity`: receives the text and a NUL. 32 bytes are always enough.
 * - `out_length`: receives the length without the NUL. May be NULL.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_SESSION_ID, VIPOOL_ERR_BUFFER.
 *
 * Threads: any.
 */
vipool_status vipool_session_format(vipool_session session,
                                    char *buffer,
                                    size_t capacity,
                                    size_t *out_length);

/**
 * Formats a handle for the environment variable VIPOOL_LEASE.
 *
 * Parameters:
 * - `handle`: the handle.
 * - `buffer`, `capacity`: receives the text and a NUL. 72 bytes are always enough.
 * - `out_length`: receives the length without the NUL. May be NULL.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_UNKNOWN_FIELD, VIPOOL_ERR_SESSION_ID, VIPOOL_ERR_HANDLE,
 * VIPOOL_ERR_BUFFER.
 *
 * Threads: any.
 */
vipool_status vipool_handle_format(const struct vipool_handle *handle,
                                   char *buffer,
                                   size_t capacity,
                                   size_t *out_length);

/**
 * Parses the text of a handle, as vipool_handle_format() returns it.
 *
 * Parameters:
 * - `text`, `length`: the text.
 * - `out`: receives the handle.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_HANDLE.
 *
 * Threads: any; signal-safe.
 */
vipool_status vipool_handle_parse(const char *text, size_t length, struct vipool_handle *out);

/**
 * The leader of a session: vipool_map_reap() closes the session when this process has exited. The
 * start time distinguishes the leader from a later process with the same pid. Plain data.
 */
typedef struct vipool_leader {
    /**
     * Pid of the process in the namespace pid_namespace; 0 for no leader.
     */
    uint32_t pid;
    /**
     * Reserved: zero.
     */
    uint32_t reserved;
    /**
     * Start time in the unit of the kernel (on Linux, field 22 of /proc/PID/stat).
     */
    uint64_t start_time;
    /**
     * Inode of a pid namespace; 0 if the namespace is unknown, and on systems without pid
     * namespaces.
     */
    uint64_t pid_namespace;
} vipool_leader;

/**
 * Returns the identity of the process that has this pid now. Available on Linux and Windows.
 *
 * Parameters:
 * - `pid`: the pid.
 * - `out`: receives the identity, for use as the leader of a session.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_NOT_FOUND (no such process; on Windows also a process that
 * has exited), VIPOOL_ERR_IO, VIPOOL_ERR_UNSUPPORTED (a system other than Linux and Windows).
 *
 * Threads: any.
 */
vipool_status vipool_leader_from_pid(uint32_t pid, struct vipool_leader *out);

/* ================================================================================
 * 5. Network interfaces
 */

/**
 * An address of an interface with the prefix length of its subnet. Plain data.
 */
typedef struct vipool_subnet {
    /**
     * The address.
     */
    struct vipool_ip address;
    /**
     * Prefix length: 0 to 32 for IPv4, 0 to 128 for IPv6.
     */
    uint32_t prefix_length;
} vipool_subnet;

/**
 * A network interface.
 */
typedef struct vipool_interface {
    /**
     * sizeof(vipool_interface), set by the caller in every element of an array.
     */
    size_t size;
    /**
     * Name, UTF-8, such as "eth0".
     */
    const char *name;
    /**
     * Length of `name` in bytes.
     */
    size_t name_length;
    /**
     * Addresses of the interface. May be NULL for none.
     */
    const struct vipool_subnet *addresses;
    /**
     * Number of `addresses`.
     */
    size_t address_count;
    /**
     * Interface index of the system.
     */
    uint32_t index;
    /**
     * Reserved: zero.
     */
    uint32_t reserved;
} vipool_interface;

/**
 * The network interfaces of this machine at one moment. Threads may share the list.
 */
typedef struct vipool_interface_list vipool_interface_list;

/**
 * Lists the interfaces of this machine that have an IP address.
 *
 * The list has every address that the system reports, also the addresses that vipool added.
 * vipool_plan_new() treats each address of an interface as an address of the host, and removes it
 * from the ranges. So pass a copy of the array without the addresses that vipool added: omit every
 * address inside a range of the farm.
 *
 * Parameters:
 * - `out`: receives the list. Free it with vipool_interface_list_free().
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_IO.
 *
 * Threads: any. May block for a short time.
 */
vipool_status vipool_interface_list_new(struct vipool_interface_list **out);

/**
 * Returns the interfaces of a list as an array.
 *
 * Parameters:
 * - `list`: the list.
 * - `out`: receives the array, or NULL if the list is empty. The array is valid until the list is
 *   freed.
 * - `out_count`: receives the number of interfaces.
 *
 * Errors: VIPOOL_ERR_NULL.
 *
 * Threads: any.
 */
vipool_status vipool_interface_list_get(const struct vipool_interface_list *list,
                                        const struct vipool_interface **out,
                                        size_t *out_count);

/**
 * Frees a list of interfaces, with its array.
 *
 * Parameters:
 * - `list`: the list. NULL is ignored.
 *
 * Threads: any; the last call with the list.
 */
void vipool_interface_list_free(struct vipool_interface_list *list);

/* ================================================================================
 * 6. Settings, process list and programs
 */

/**
 * What happens to a session when no address is free.
 */
typedef uint32_t vipool_exhaustion_policy;
enum {
    /**
     * The session starts with the address of the host. The agent shows the user the message that
     * vipool_status_get_text(VIPOOL_ERR_EXHAUSTED) returns.
     */
    VIPOOL_EXHAUSTION_PASS = 0,
    /**
     * The session does not start. If vipool_map_open_session() succeeds but
     * vipool_opened_session.shortage is not VIPOOL_OK, the agent closes the session again.
     */
    VIPOOL_EXHAUSTION_REFUSE = 1,
    /**
     * The agent retries for up to wait_seconds. If there is still no address after this time, the
     * session starts with the address of the host. The library does not retry.
     */
    VIPOOL_EXHAUSTION_WAIT = 2
};

/**
 * When a session gets its addresses.
 */
typedef uint32_t vipool_allocation_time;
enum {
    /**
     * At the logon.
     */
    VIPOOL_ALLOCATE_LOGON = 0,
    /**
     * At the start of the first listed program. The process that starts the program allocates the
     * addresses. A hook never allocates addresses.
     */
    VIPOOL_ALLOCATE_FIRST_USE = 1
};

/**
 * vipool_settings.flags: a cooled address becomes free only after vipool_map_reap() found no
 * socket on it.
 */
enum { VIPOOL_SETTING_CHECK_IN_USE = 1 };
#define VIPOOL_SETTING_CHECK_IN_USE 1u

/**
 * vipool_settings.flags: vipool_map_open_session() returns VIPOOL_ERR_NOT_READY until
 * vipool_map_mark_restored() or vipool_map_reconcile() is called.
 */
enum { VIPOOL_SETTING_AWAIT_RESTORE = 2 };
#define VIPOOL_SETTING_AWAIT_RESTORE 2u

/**
 * vipool_settings.flags: all logons of a user share one session. For each logon, the agent opens
 * the session whose id vipool_session_make(VIPOOL_SESSION_USER, uid, ...) returns. The agent
 * closes the session when the last logon has ended.
 */
enum { VIPOOL_SETTING_SESSION_PER_USER = 4 };
#define VIPOOL_SETTING_SESSION_PER_USER 4u

/**
 * Settings for the allocation of addresses. All writers of a map use the same settings. A zeroed
 * struct does not contain the defaults: it has no cool-down. vipool_settings_get_default() returns
 * the default settings.
 */
typedef struct vipool_settings {
    /**
     * sizeof(vipool_settings), set by the caller.
     */
    size_t size;
    /**
     * Cool-down: seconds until a released address may be allocated to another user.
     */
    uint32_t cool_down;
    /**
     * Report VIPOOL_EVENT_LOW_WATER when the number of free and cooling addresses of a pool falls
     * below this number; 0 for no report.
     */
    uint32_t low_water;
    /**
     * Maximum number of sessions of one user; 0 for no limit.
     */
    uint32_t sessions_per_user;
    /**
     * Maximum number of sessions of the server; 0 for no limit.
     */
    uint32_t max_sessions;
    /**
     * vipool_exhaustion_policy.
     */
    uint32_t on_exhausted;
    /**
     * Seconds to wait with VIPOOL_EXHAUSTION_WAIT; otherwise zero.
     */
    uint32_t wait_seconds;
    /**
     * vipool_allocation_time.
     */
    uint32_t allocate;
    /**
     * VIPOOL_SETTING_...
     */
    uint32_t flags;
} vipool_settings;

/**
 * Returns the default settings: a cool-down of 120 seconds, VIPOOL_SETTING_CHECK_IN_USE, no
 * limits.
 *
 * A new farm has these settings. A farm.toml without the section `[sessions]` has them too.
 *
 * Parameters:
 * - `out`: receives the settings.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE.
 *
 * Threads: any.
 */
vipool_status vipool_settings_get_default(struct vipool_settings *out);

/**
 * An inclusive range of ports in host byte order. Plain data.
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
 * Feature: the virtual IP of the session replaces the address of the host.
 */
enum { VIPOOL_FEATURE_VIRTUAL_IP = 1 };
#define VIPOOL_FEATURE_VIRTUAL_IP 1u

/**
 * Feature: the virtual loopback address of the session replaces 127.0.0.1.
 */
enum { VIPOOL_FEATURE_LOOPBACK = 2 };
#define VIPOOL_FEATURE_LOOPBACK 2u

/**
 * Feature: the name of the host resolves to the address of the session's client.
 */
enum { VIPOOL_FEATURE_CLIENT_IP = 4 };
#define VIPOOL_FEATURE_CLIENT_IP 4u

/**
 * vipool_program.flags: the rule also applies to child processes that no rule matches.
 */
enum { VIPOOL_PROGRAM_INHERIT = 1 };
#define VIPOOL_PROGRAM_INHERIT 1u

/**
 * vipool_program.flags: a bind to 127.0.0.1 with port 0 stays on the host, where unlisted programs
 * reach it.
 */
enum { VIPOOL_PROGRAM_KEEP_EPHEMERAL = 2 };
#define VIPOOL_PROGRAM_KEEP_EPHEMERAL 2u

/**
 * vipool_program.flags: a bind to 0.0.0.0 with a fixed port goes to the virtual loopback address
 * if the session has no virtual IP. Without the flag such a bind passes.
 */
enum { VIPOOL_PROGRAM_WILDCARD_LOOPBACK = 4 };
#define VIPOOL_PROGRAM_WILDCARD_LOOPBACK 4u

/**
 * vipool_program.flags: a connect to 127.0.0.1 always goes to the virtual loopback address.
 * Without the flag, the connect goes to an address of the session on which the session listens. If
 * there is none, the connect goes to the host.
 */
enum { VIPOOL_PROGRAM_CONNECT_OWN = 8 };
#define VIPOOL_PROGRAM_CONNECT_OWN 8u

/**
 * A rule of the process list. The library copies texts and arrays.
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
     * Length of `pattern` in bytes.
     */
    size_t pattern_length;
    /**
     * For an interpreter: the rule matches only if the interpreter runs this script. May be NULL.
     */
    const char *script;
    /**
     * Length of `script` in bytes.
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
     * Loopback ports of the session. A connect to such a port always goes to the virtual loopback
     * address, without a lookup of listeners. May be NULL for none.
     */
    const struct vipool_ports *own_ports;
    /**
     * Number of `own_ports`.
     */
    size_t own_port_count;
    /**
     * Loopback ports of the host. A bind or connect to such a port on 127.0.0.1 or ::1 always
     * passes. May be NULL for none.
     */
    const struct vipool_ports *shared_ports;
    /**
     * Number of `shared_ports`.
     */
    size_t shared_port_count;
    /**
     * If `pattern` contains a symbolic link: the path without links, UTF-8. The system reports
     * this path as the path of the running program. May be NULL. With the flag
     * VIPOOL_PLAN_FOLLOW_LINKS of vipool_plan_options, the library finds the path itself.
     */
    const char *target;
    /**
     * Length of `target` in bytes.
     */
    size_t target_length;
} vipool_program;

/**
 * How paths are compared.
 */
typedef uint32_t vipool_path_style;
enum {
    /**
     * "/" separates components; case matters.
     */
    VIPOOL_PATHS_POSIX = 0,
    /**
     * "\" and "/" separate components; case does not matter. The prefix "\\?\" is ignored, and so
     * are trailing dots and spaces of each component.
     */
    VIPOOL_PATHS_WINDOWS = 1
};

/**
 * Encoding of the texts of a vipool_executable.
 */
typedef uint32_t vipool_encoding;
enum {
    /**
     * Bytes, like POSIX paths. Lengths are in bytes. The library compares the bytes with the UTF-8
     * texts of the process list.
     */
    VIPOOL_ENCODING_BYTES = 0,
    /**
     * UTF-16, like Windows paths. Lengths are in units of two bytes. A path that needs more than
     * 4096 bytes of UTF-8 causes VIPOOL_ERR_BUFFER. A path that is not aligned to two bytes causes
     * VIPOOL_ERR_UTF16.
     */
    VIPOOL_ENCODING_UTF16 = 1
};

/**
 * A running program.
 */
typedef struct vipool_executable {
    /**
     * sizeof(vipool_executable), set by the caller.
     */
    size_t size;
    /**
     * Path of the program file: the target of /proc/self/exe, or the result of GetModuleFileNameW.
     */
    const void *path;
    /**
     * Length of `path`.
     */
    size_t path_length;
    /**
     * Path by which the program was started: getauxval(AT_EXECFN) on Linux. If this path is a
     * symbolic link, it differs from `path`. May be NULL.
     */
    const void *invoked_as;
    /**
     * Length of `invoked_as`.
     */
    size_t invoked_as_length;
    /**
     * For an interpreter: the script that the interpreter runs. May be NULL.
     */
    const void *script;
    /**
     * Length of `script`.
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
 * Finds the script that an interpreter runs, for vipool_executable.script.
 *
 * Recognises a script, a module (-m) and an archive (-jar).
 *
 * Parameters:
 * - `arguments`, `count`: the arguments after the name of the program, each with a NUL.
 * - `out`: receives the element of `arguments` that names the script.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_NOT_FOUND (code on the command line, or no script).
 *
 * Threads: any; signal-safe.
 */
vipool_status vipool_executable_find_script(const char *const *arguments,
                                            size_t count,
                                            const char **out);

/* ================================================================================
 * 7. Agent: the farm
 */

/**
 * The configuration of a farm of servers, with the findings of its validation. One thread at a
 * time may use it.
 */
typedef struct vipool_farm vipool_farm;

/**
 * Severity of a finding.
 */
typedef uint32_t vipool_level;
enum {
    /**
     * The farm works, but perhaps not as intended.
     */
    VIPOOL_LEVEL_WARNING = 1,
    /**
     * The farm cannot be used as it is.
     */
    VIPOOL_LEVEL_ERROR = 2
};

/**
 * A finding: one mistake in a farm. The texts are UTF-8 without a NUL. They are valid until the
 * farm is validated or freed, or a plan is made from the farm.
 */
typedef struct vipool_finding {
    /**
     * sizeof(vipool_finding), set by the caller in the first row of a page.
     */
    size_t size;
    /**
     * Fixed word for this kind of finding, such as "overlap".
     */
    const char *code;
    /**
     * Length of `code` in bytes.
     */
    size_t code_length;
    /**
     * Key of farm.toml, such as "sessions.cool-down"; empty for the whole file.
     */
    const char *key;
    /**
     * Length of `key` in bytes.
     */
    size_t key_length;
    /**
     * Value of the key. May be empty.
     */
    const char *value;
    /**
     * Length of `value` in bytes.
     */
    size_t value_length;
    /**
     * Description of the mistake.
     */
    const char *message;
    /**
     * Length of `message` in bytes.
     */
    size_t message_length;
    /**
     * Recommended correction.
     */
    const char *remedy;
    /**
     * Length of `remedy` in bytes.
     */
    size_t remedy_length;
    /**
     * vipool_level.
     */
    uint32_t level;
    /**
     * Line in the file, from 1; 0 if unknown.
     */
    uint32_t line;
    /**
     * Column in characters, from 1; 0 if unknown.
     */
    uint32_t column;
    /**
     * Reserved: zero.
     */
    uint32_t reserved;
} vipool_finding;

/**
 * Makes an empty farm: no ranges, no programs, default settings.
 *
 * Until a server is added, the farm has one server, and the name of this server does not matter.
 *
 * Configure the farm with the vipool_farm_add_ and vipool_farm_set_ functions, then call
 * vipool_farm_validate(). A farm that was read from farm.toml can be changed in the same way.
 *
 * Parameters:
 * - `out`: receives the farm. Free it with vipool_farm_free().
 *
 * Errors: VIPOOL_ERR_NULL.
 *
 * Threads: any.
 */
vipool_status vipool_farm_new(struct vipool_farm **out);

/**
 * Reads and validates a farm.toml.
 *
 * Mistakes in the file are findings, not errors of this call: see vipool_farm_list_findings(). An
 * unreadable file is a finding too.
 *
 * Parameters:
 * - `path`, `path_length`: the path of the file, UTF-8.
 * - `out`: receives the farm. Free it with vipool_farm_free().
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_UTF8.
 *
 * Threads: any.
 */
vipool_status vipool_farm_load(const char *path, size_t path_length, struct vipool_farm **out);

/**
 * Parses and validates the text of a farm.toml.
 *
 * Parameters:
 * - `text`, `length`: the text, UTF-8.
 * - `out`: receives the farm. Free it with vipool_farm_free().
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_UTF8. For mistakes in the text see
 * vipool_farm_list_findings().
 *
 * Threads: any.
 */
vipool_status vipool_farm_parse(const char *text, size_t length, struct vipool_farm **out);

/**
 * Frees a farm, with the texts of its findings.
 *
 * Parameters:
 * - `farm`: the farm. NULL is ignored.
 *
 * Threads: the last call with the farm.
 */
void vipool_farm_free(struct vipool_farm *farm);

/**
 * Validates a farm that was built or changed by calls.
 *
 * Replaces the findings of an earlier validation. The findings of the call that made the farm
 * stay. If the call that made the farm found an error, this call does not validate the farm.
 *
 * Parameters:
 * - `farm`: the farm.
 *
 * Errors: VIPOOL_ERR_NULL. For mistakes in the farm see vipool_farm_list_findings().
 *
 * Threads: one at a time per farm.
 */
vipool_status vipool_farm_validate(struct vipool_farm *farm);

/**
 * Lists the findings of a farm in the order of the file.
 *
 * Findings without a position in the file come first.
 *
 * With `min_level` VIPOOL_LEVEL_ERROR and capacity 0, `out_total` receives the number of errors.
 * The farm can be used if the number is zero.
 *
 * Parameters:
 * - `farm`: the farm.
 * - `min_level`: vipool_level. Findings of a lower level are omitted.
 * - `first`: index of the first finding, from 0.
 * - `rows`, `capacity`: receives the findings. Set the size of the first row.
 * - `out_count`: receives the number of rows that were written.
 * - `out_total`: receives the total number of findings with at least this level. May be NULL.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_KIND.
 *
 * Threads: one at a time per farm.
 */
vipool_status vipool_farm_list_findings(const struct vipool_farm *farm,
                                        uint32_t min_level,
                                        size_t first,
                                        struct vipool_finding *rows,
                                        size_t capacity,
                                        size_t *out_count,
                                        size_t *out_total);

/**
 * Formats all findings as text for people, each with its line of the file.
 *
 * Parameters:
 * - `farm`: the farm.
 * - `buffer`, `capacity`: receives the text and a NUL.
 * - `out_length`: receives the length without the NUL. May be NULL. Call with capacity 0 first to
 *   get the length.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_BUFFER.
 *
 * Threads: one at a time per farm.
 */
vipool_status vipool_farm_format_report(const struct vipool_farm *farm,
                                        char *buffer,
                                        size_t capacity,
                                        size_t *out_length);

/**
 * vipool_server.flags: sessions on this server get no addresses.
 */
enum { VIPOOL_SERVER_DISABLED = 1 };
#define VIPOOL_SERVER_DISABLED 1u

/**
 * vipool_server.flags: max_sessions replaces vipool_settings.max_sessions.
 */
enum { VIPOOL_SERVER_MAX_SESSIONS = 2 };
#define VIPOOL_SERVER_MAX_SESSIONS 2u

/**
 * A server of a farm.
 */
typedef struct vipool_server {
    /**
     * sizeof(vipool_server), set by the caller.
     */
    size_t size;
    /**
     * Host name, with or without the domain. Case does not matter.
     */
    const char *name;
    /**
     * Length of `name` in bytes.
     */
    size_t name_length;
    /**
     * With VIPOOL_SERVER_MAX_SESSIONS: the maximum number of sessions at once; 0 for no limit.
     */
    uint32_t max_sessions;
    /**
     * VIPOOL_SERVER_...
     */
    uint32_t flags;
} vipool_server;

/**
 * Ranges for one pool of one server. The library copies texts and arrays.
 */
typedef struct vipool_server_range {
    /**
     * sizeof(vipool_server_range), set by the caller.
     */
    size_t size;
    /**
     * The ranges, IPv4 or IPv6.
     */
    const struct vipool_range *addresses;
    /**
     * Number of `addresses`.
     */
    size_t address_count;
    /**
     * Ranges inside `addresses` that are never allocated. May be NULL for none.
     */
    const struct vipool_range *excluded;
    /**
     * Number of `excluded`.
     */
    size_t excluded_count;
    /**
     * Name of the server. May be NULL unless the farm has several servers.
     */
    const char *server;
    /**
     * Length of `server` in bytes.
     */
    size_t server_length;
    /**
     * Name of the pool. NULL means "default".
     */
    const char *pool;
    /**
     * Length of `pool` in bytes.
     */
    size_t pool_length;
} vipool_server_range;

/**
 * The property of a session that a pool rule matches.
 */
typedef uint32_t vipool_pool_rule;
enum {
    /**
     * The name of the user.
     */
    VIPOOL_POOL_RULE_USER = 1,
    /**
     * The name of a group of the user.
     */
    VIPOOL_POOL_RULE_GROUP = 2,
    /**
     * The program that the session starts: a full path or a bare file name.
     */
    VIPOOL_POOL_RULE_PROGRAM = 3
};

/**
 * Adds a server.
 *
 * Parameters:
 * - `farm`: the farm.
 * - `server`: the server.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_UNKNOWN_FIELD, VIPOOL_ERR_UTF8,
 * VIPOOL_ERR_KIND (flags).
 *
 * Threads: one at a time per farm.
 */
vipool_status vipool_farm_add_server(struct vipool_farm *farm, const struct vipool_server *server);

/**
 * Adds ranges to a pool of a server.
 *
 * Parameters:
 * - `farm`: the farm.
 * - `range`: the ranges, the server and the pool.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_UNKNOWN_FIELD, VIPOOL_ERR_UTF8,
 * VIPOOL_ERR_ADDRESS, VIPOOL_ERR_RANGE_ORDER.
 *
 * Threads: one at a time per farm.
 */
vipool_status vipool_farm_add_range(struct vipool_farm *farm,
                                    const struct vipool_server_range *range);

/**
 * Declares a pool, so that ranges and rules can name it. The pool "default" always exists.
 *
 * Parameters:
 * - `farm`: the farm.
 * - `name`, `name_length`: the pool, UTF-8.
 * - `max_addresses`: the maximum number of addresses of each family. The pool uses the lowest
 *   addresses. 0 means all IPv4 addresses and 4096 IPv6 addresses.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_UTF8.
 *
 * Threads: one at a time per farm.
 */
vipool_status vipool_farm_add_pool(struct vipool_farm *farm,
                                   const char *name,
                                   size_t name_length,
                                   uint32_t max_addresses);

/**
 * Adds a rule that selects the pool of a session's virtual IP. Declares the pool if necessary.
 *
 * If several rules match a session, a rule for a user has precedence over a rule for a group, and
 * a rule for a group over a rule for a program. Among rules of the same kind, the rule of the pool
 * that was declared first has precedence.
 *
 * Parameters:
 * - `farm`: the farm.
 * - `pool`, `pool_length`: the pool, UTF-8.
 * - `kind`: vipool_pool_rule.
 * - `name`, `name_length`: the user, group or program, UTF-8.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_UTF8, VIPOOL_ERR_KIND.
 *
 * Threads: one at a time per farm.
 */
vipool_status vipool_farm_add_pool_rule(struct vipool_farm *farm,
                                        const char *pool,
                                        size_t pool_length,
                                        uint32_t kind,
                                        const char *name,
                                        size_t name_length);

/**
 * Reserves an address for a user.
 *
 * Parameters:
 * - `farm`: the farm.
 * - `user`, `user_length`: the name of the user, UTF-8.
 * - `address`: the address.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_UTF8, VIPOOL_ERR_ADDRESS.
 *
 * Threads: one at a time per farm.
 */
vipool_status vipool_farm_add_reservation(struct vipool_farm *farm,
                                          const char *user,
                                          size_t user_length,
                                          const struct vipool_ip *address);

/**
 * Adds a rule to the process list.
 *
 * The most specific rule that matches a program applies. Among equally specific rules, the rule
 * that was added first applies.
 *
 * Parameters:
 * - `farm`: the farm.
 * - `program`: the rule.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_UNKNOWN_FIELD, VIPOOL_ERR_UTF8,
 * VIPOOL_ERR_KIND, VIPOOL_ERR_RANGE_ORDER (ports).
 *
 * Threads: one at a time per farm.
 */
vipool_status vipool_farm_add_program(struct vipool_farm *farm,
                                      const struct vipool_program *program);

/**
 * vipool_rewrite_settings.flags: if no interface has the virtual IP, a bind passes unchanged.
 * Without the flag, the bind fails with EADDRNOTAVAIL.
 */
enum { VIPOOL_REWRITE_PASS_WHEN_MISSING = 1 };
#define VIPOOL_REWRITE_PASS_WHEN_MISSING 1u

/**
 * vipool_rewrite_settings.flags: getifaddrs and GetAdaptersAddresses do not list the addresses of
 * other sessions.
 */
enum { VIPOOL_REWRITE_HIDE_ADDRESSES = 2 };
#define VIPOOL_REWRITE_HIDE_ADDRESSES 2u

/**
 * Settings for all programs of the process list. The library copies the arrays.
 */
typedef struct vipool_rewrite_settings {
    /**
     * sizeof(vipool_rewrite_settings), set by the caller.
     */
    size_t size;
    /**
     * UDP ports on which a bind to the wildcard address passes unchanged, for receivers of
     * multicast and broadcast. NULL with a count of 0 means the defaults 5353, 1900, 3702, 5355,
     * 67 and 68. For no ports, pass a pointer that is not NULL and a count of 0.
     */
    const struct vipool_ports *wildcard_udp_ports;
    /**
     * Number of `wildcard_udp_ports`.
     */
    size_t wildcard_udp_port_count;
    /**
     * Ports that programs bind, in addition to vipool_program.own_ports: see
     * vipool_farm_list_fixed_ports(). May be NULL for none.
     */
    const struct vipool_ports *fixed_ports;
    /**
     * Number of `fixed_ports`.
     */
    size_t fixed_port_count;
    /**
     * VIPOOL_REWRITE_...
     */
    uint32_t flags;
    /**
     * Reserved: zero.
     */
    uint32_t reserved;
} vipool_rewrite_settings;

/**
 * Sets the ranges in 127.0.0.0/8 from which each session gets two addresses.
 *
 * The default is 127.100.0.0/20. Without ranges, no session gets a loopback address. 127.0.0.1 is
 * never allocated.
 *
 * Parameters:
 * - `farm`: the farm.
 * - `addresses`, `address_count`: the ranges. May be NULL for none.
 * - `excluded`, `excluded_count`: ranges inside `addresses` that are never allocated. May be NULL
 *   for none.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_ADDRESS, VIPOOL_ERR_RANGE_ORDER.
 *
 * Threads: one at a time per farm.
 */
vipool_status vipool_farm_set_loopback(struct vipool_farm *farm,
                                       const struct vipool_range *addresses,
                                       size_t address_count,
                                       const struct vipool_range *excluded,
                                       size_t excluded_count);

/**
 * Sets the known subnets and DHCP ranges, so that the ranges of the farm can be validated on any
 * machine.
 *
 * Parameters:
 * - `farm`: the farm.
 * - `subnets`, `subnet_count`: the subnets of the servers. May be NULL for none.
 * - `dhcp_ranges`, `dhcp_range_count`: the ranges of a DHCP server. May be NULL for none.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_ADDRESS, VIPOOL_ERR_RANGE_ORDER.
 *
 * Threads: one at a time per farm.
 */
vipool_status vipool_farm_set_network(struct vipool_farm *farm,
                                      const struct vipool_subnet *subnets,
                                      size_t subnet_count,
                                      const struct vipool_range *dhcp_ranges,
                                      size_t dhcp_range_count);

/**
 * Replaces all settings for the allocation of addresses.
 *
 * To change some settings, start with the result of vipool_farm_get_settings() or
 * vipool_settings_get_default().
 *
 * Parameters:
 * - `farm`: the farm.
 * - `settings`: the settings.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_UNKNOWN_FIELD, VIPOOL_ERR_KIND.
 *
 * Threads: one at a time per farm.
 */
vipool_status vipool_farm_set_settings(struct vipool_farm *farm,
                                       const struct vipool_settings *settings);

/**
 * Returns the settings for the allocation of addresses.
 *
 * Parameters:
 * - `farm`: the farm.
 * - `out`: receives the settings.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE.
 *
 * Threads: one at a time per farm.
 */
vipool_status vipool_farm_get_settings(const struct vipool_farm *farm, struct vipool_settings *out);

/**
 * Sets the settings for all programs of the process list.
 *
 * Parameters:
 * - `farm`: the farm.
 * - `settings`: the settings.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_UNKNOWN_FIELD, VIPOOL_ERR_KIND,
 * VIPOOL_ERR_RANGE_ORDER (ports).
 *
 * Threads: one at a time per farm.
 */
vipool_status vipool_farm_set_rewrite(struct vipool_farm *farm,
                                      const struct vipool_rewrite_settings *settings);

/**
 * Lists the ports that programs bind: fixed_ports and all own_ports, sorted and without overlaps.
 *
 * The kernel must not choose one of these ports as the source port of a connection, because the
 * program could then not bind it. On Linux, add the ports to net.ipv4.ip_local_reserved_ports.
 *
 * Parameters:
 * - `farm`: the farm.
 * - `ports`, `capacity`: receives the ports.
 * - `out_count`: receives the number of port ranges, also with VIPOOL_ERR_BUFFER. Call with
 *   capacity 0 first to get the number.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_BUFFER.
 *
 * Threads: one at a time per farm.
 */
vipool_status vipool_farm_list_fixed_ports(const struct vipool_farm *farm,
                                           struct vipool_ports *ports,
                                           size_t capacity,
                                           size_t *out_count);

/* ================================================================================
 * 8. Agent: the plan of one server
 */

/**
 * The plan of one server: pools, settings, the process list, and the addresses of each interface.
 * Threads may share a plan. A map keeps no reference to the plan from which it was created.
 */
typedef struct vipool_plan vipool_plan;

/**
 * Use of the addresses of a pool.
 */
typedef uint32_t vipool_pool_kind;
enum {
    /**
     * V: addresses of the network.
     */
    VIPOOL_POOL_VIRTUAL_IP = 1,
    /**
     * L: addresses inside 127.0.0.2-127.255.255.254. Each session gets two of them: one as L, one
     * as L6, which represents ::1. A pool of n addresses serves n/2 sessions.
     */
    VIPOOL_POOL_LOOPBACK = 2
};

/**
 * vipool_plan_options.flags: replace vipool_program.target in each rule of the plan. If `pattern`
 * is a full path that contains a symbolic link on this machine, the target is the path without
 * links. Otherwise the rule has no target. Use this flag only on the server of the plan.
 */
enum { VIPOOL_PLAN_FOLLOW_LINKS = 1 };
#define VIPOOL_PLAN_FOLLOW_LINKS 1u

/**
 * Options of vipool_plan_new().
 */
typedef struct vipool_plan_options {
    /**
     * sizeof(vipool_plan_options), set by the caller.
     */
    size_t size;
    /**
     * Host name of the server, UTF-8. A farm without servers accepts every name.
     */
    const char *host;
    /**
     * Length of `host` in bytes.
     */
    size_t host_length;
    /**
     * Interfaces of the server, without the addresses that vipool added itself. Each range is
     * assigned to the interface whose subnet contains it. Network, broadcast and host addresses
     * are removed from the ranges. NULL with count 0 if the interfaces are unknown. In this case,
     * no range is assigned, no host address is removed, and network and broadcast addresses are
     * removed only in the subnets that the farm lists.
     */
    const struct vipool_interface *interfaces;
    /**
     * Number of `interfaces`.
     */
    size_t interface_count;
    /**
     * VIPOOL_PLAN_...
     */
    uint32_t flags;
    /**
     * Reserved: zero.
     */
    uint32_t reserved;
} vipool_plan_options;

/**
 * The addresses of the plan on one interface in one subnet.
 */
typedef struct vipool_assignment {
    /**
     * sizeof(vipool_assignment), set by the caller in the first row of a page.
     */
    size_t size;
    /**
     * The usable addresses. Valid until the plan is freed. NULL for none.
     */
    const struct vipool_range *ranges;
    /**
     * Number of `ranges`.
     */
    size_t range_count;
    /**
     * Index of the interface in the system.
     */
    uint32_t index;
    /**
     * The subnet that contains the ranges.
     */
    struct vipool_subnet subnet;
    /**
     * Reserved: zero.
     */
    uint32_t reserved;
    /**
     * Name of the interface, UTF-8 without a NUL. Valid until the plan is freed.
     */
    const char *name;
    /**
     * Length of `name` in bytes.
     */
    size_t name_length;
} vipool_assignment;

/**
 * Makes the plan of one server.
 *
 * Validates the farm as vipool_farm_validate() does, and adds findings of the plan, for example a
 * range without an interface. If one of the findings is an error, the call makes no plan and
 * returns VIPOOL_ERR_FARM. Warnings do not prevent a plan. The findings replace those of an
 * earlier call.
 *
 * Parameters:
 * - `farm`: the farm. Receives the findings, also with VIPOOL_ERR_FARM.
 * - `options`: the server and its interfaces.
 * - `out`: receives the plan. Free it with vipool_plan_free().
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_UNKNOWN_FIELD, VIPOOL_ERR_UTF8,
 * VIPOOL_ERR_KIND (flags), VIPOOL_ERR_ADDRESS, VIPOOL_ERR_FARM.
 *
 * Threads: one at a time per farm.
 */
vipool_status vipool_plan_new(struct vipool_farm *farm,
                              const struct vipool_plan_options *options,
                              struct vipool_plan **out);

/**
 * Frees a plan, with the texts and ranges of its assignments.
 *
 * Parameters:
 * - `plan`: the plan. NULL is ignored.
 *
 * Threads: the last call with the plan.
 */
void vipool_plan_free(struct vipool_plan *plan);

/**
 * Lists the addresses of each interface: one row per interface and subnet.
 *
 * The list is empty if the plan was made without interfaces.
 *
 * Parameters:
 * - `plan`: the plan.
 * - `first`: index of the first row, from 0.
 * - `rows`, `capacity`: receives the rows. Set the size of the first row.
 * - `out_count`: receives the number of rows that were written.
 * - `out_total`: receives the total number of rows. May be NULL.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE.
 *
 * Threads: any.
 */
vipool_status vipool_plan_list_assignments(const struct vipool_plan *plan,
                                           size_t first,
                                           struct vipool_assignment *rows,
                                           size_t capacity,
                                           size_t *out_count,
                                           size_t *out_total);

/* ================================================================================
 * 9. Agent: events
 */

/**
 * Kind of an event.
 */
typedef uint32_t vipool_event_kind;
enum {
    /**
     * A session got the address of `lease`.
     */
    VIPOOL_EVENT_ASSIGNED = 1,
    /**
     * A session released the address of `lease`.
     */
    VIPOOL_EVENT_RELEASED = 2,
    /**
     * A session got no address of a pool, because of `reason`.
     */
    VIPOOL_EVENT_EXHAUSTED = 3,
    /**
     * A pool fell below its low-water mark when the session was opened.
     */
    VIPOOL_EVENT_LOW_WATER = 4
};

/**
 * An event. The library fills it.
 */
typedef struct vipool_event {
    /**
     * Number of bytes that the library filled. A program that was compiled with a newer header
     * must not read beyond them.
     */
    size_t size;
    /**
     * vipool_event_kind.
     */
    uint32_t kind;
    /**
     * With VIPOOL_EVENT_EXHAUSTED: VIPOOL_ERR_EXHAUSTED, VIPOOL_ERR_COOLING, VIPOOL_ERR_LINGERING
     * or VIPOOL_ERR_DRAINING. Otherwise VIPOOL_OK.
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
    /**
     * Number of the pool in the map, from 0.
     */
    uint32_t pool;
    /**
     * Reserved: zero.
     */
    uint32_t reserved;
    /**
     * With VIPOOL_EVENT_EXHAUSTED and VIPOOL_EVENT_LOW_WATER: the name of the pool, UTF-8 without
     * a NUL, valid until the callback returns. Otherwise NULL.
     */
    const char *pool_name;
    /**
     * Length of `pool_name` in bytes.
     */
    size_t pool_name_length;
} vipool_event;

/**
 * Receives the events of a map.
 *
 * The library calls the function on the thread whose call caused the event, after the operation on
 * the map and before that call returns. Several threads may call the function at once. The
 * function may call the library, but must not close the map, throw or longjmp.
 *
 * Parameters:
 * - `context`: vipool_map_options.context.
 * - `event`: the event, valid until the callback returns.
 */
typedef void (*vipool_event_fn)(void *context, const struct vipool_event *event);

/* ================================================================================
 * 10. Agent: creating and opening a map
 */

/**
 * A writable map, in which an agent opens and closes sessions.
 *
 * Threads may share it, unless it was opened with VIPOOL_MAP_SINGLE_THREADED. Other processes may
 * write the same map, unless it was opened with VIPOOL_MAP_EXCLUSIVE. A process may have 64 maps
 * with files open at once. Opening another one returns VIPOOL_ERR_IO. Windows has no such limit.
 */
typedef struct vipool_map vipool_map;

/**
 * vipool_map_options.flags: hold the writer lock as long as the map is open. Calls then need no
 * system call for the lock. Other writers get VIPOOL_ERR_BUSY_EXCLUSIVE, and vipool_last_error()
 * names the pid of this process.
 */
enum { VIPOOL_MAP_EXCLUSIVE = 1 };
#define VIPOOL_MAP_EXCLUSIVE 1u

/**
 * vipool_map_options.flags: the caller guarantees that one thread at a time uses the map. Opening
 * and closing sessions then needs no lock at all. Includes VIPOOL_MAP_EXCLUSIVE.
 */
enum { VIPOOL_MAP_SINGLE_THREADED = 2 };
#define VIPOOL_MAP_SINGLE_THREADED 2u

/**
 * vipool_map_options.flags, for vipool_map_open(): open the map although another writer holds it
 * exclusively. A monitor can then take snapshots. Calls that change the map fail with
 * VIPOOL_ERR_BUSY_EXCLUSIVE as long as that writer holds it.
 */
enum { VIPOOL_MAP_MONITOR = 4 };
#define VIPOOL_MAP_MONITOR 4u

/**
 * Options for creating or opening a map.
 */
typedef struct vipool_map_options {
    /**
     * sizeof(vipool_map_options), set by the caller.
     */
    size_t size;
    /**
     * Receives the events that calls with this map cause. May be NULL.
     */
    vipool_event_fn on_event;
    /**
     * Passed to on_event.
     */
    void *context;
    /**
     * VIPOOL_MAP_...
     */
    uint32_t flags;
    /**
     * Reserved: zero.
     */
    uint32_t reserved;
} vipool_map_options;

/**
 * Returns the directory of the map of this machine.
 *
 * The directory is fixed at installation: /run/vipool, or on Windows the folder vipool in
 * ProgramData of the system drive. For use without root and in tests, the environment variable
 * VIPOOL_MAP of a process names another directory to its hook. This function ignores the variable.
 *
 * Parameters:
 * - `buffer`, `capacity`: receives the path and a NUL.
 * - `out_length`: receives the length without the NUL. May be NULL.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_BUFFER.
 *
 * Threads: any.
 */
vipool_status vipool_map_get_directory(char *buffer, size_t capacity, size_t *out_length);

/**
 * Creates the files of a map in an existing directory and opens the map.
 *
 * If the directory has a map of this boot, the sessions of that map stay open in the new map. The
 * readers of the old map see that it is superseded. If the new map would have the same content,
 * the call opens the old map instead.
 *
 * Parameters:
 * - `directory`, `directory_length`: the directory, UTF-8.
 * - `plan`: the plan of this server.
 * - `options`: may be NULL.
 * - `out`: receives the map. Close it with vipool_map_close(), which does not remove the files.
 *
 * If another call creates or repairs a map in the directory, this function waits for at most 30
 * seconds, and then fails with VIPOOL_ERR_BUSY.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_UNKNOWN_FIELD, VIPOOL_ERR_KIND,
 * VIPOOL_ERR_UTF8, VIPOOL_ERR_PLAN, VIPOOL_ERR_DIRECTORY (create the directory first),
 * VIPOOL_ERR_DAMAGED (remove the file), VIPOOL_ERR_IO, VIPOOL_ERR_UNTRUSTED, VIPOOL_ERR_BUSY,
 * VIPOOL_ERR_BUSY_EXCLUSIVE.
 *
 * Threads: any.
 */
vipool_status vipool_map_create(const char *directory,
                                size_t directory_length,
                                const struct vipool_plan *plan,
                                const struct vipool_map_options *options,
                                struct vipool_map **out);

/**
 * Creates a map in the memory of this process, without files.
 *
 * Parameters:
 * - `plan`: the plan.
 * - `options`: may be NULL.
 * - `out`: receives the map. Close it with vipool_map_close().
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_UNKNOWN_FIELD, VIPOOL_ERR_KIND,
 * VIPOOL_ERR_PLAN.
 *
 * Threads: any.
 */
vipool_status vipool_map_create_in_memory(const struct vipool_plan *plan,
                                          const struct vipool_map_options *options,
                                          struct vipool_map **out);

/**
 * Opens the map in a directory for writing.
 *
 * Parameters:
 * - `directory`, `directory_length`: the directory, UTF-8.
 * - `options`: may be NULL.
 * - `out`: receives the map. Close it with vipool_map_close().
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_UNKNOWN_FIELD, VIPOOL_ERR_KIND,
 * VIPOOL_ERR_UTF8, VIPOOL_ERR_DIRECTORY (empty), VIPOOL_ERR_MISSING, VIPOOL_ERR_DAMAGED,
 * VIPOOL_ERR_OTHER_BOOT, VIPOOL_ERR_UNTRUSTED, VIPOOL_ERR_IO, VIPOOL_ERR_BUSY,
 * VIPOOL_ERR_BUSY_EXCLUSIVE (another writer holds the map, and VIPOOL_MAP_MONITOR is not set).
 *
 * Threads: any.
 */
vipool_status vipool_map_open(const char *directory,
                              size_t directory_length,
                              const struct vipool_map_options *options,
                              struct vipool_map **out);

/**
 * Makes a map in memory from the bytes of the files of a map.
 *
 * The files may be of any boot. Use the map in memory to inspect the files or to try an operation.
 * The library does not change the bytes. They must not change before the call returns: read the
 * files into memory, do not map them.
 *
 * Parameters:
 * - `map`, `map_length`: the bytes of the file `map`.
 * - `sessions`, `sessions_length`: the bytes of the file `sessions`. May be NULL. Users, clients
 *   and leaders are unknown if `sessions` is NULL or belongs to another map.
 * - `options`: may be NULL.
 * - `out`: receives the map. Close it with vipool_map_close().
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_UNKNOWN_FIELD, VIPOOL_ERR_KIND,
 * VIPOOL_ERR_DAMAGED.
 *
 * Threads: any.
 */
vipool_status vipool_map_open_bytes(const void *map,
                                    size_t map_length,
                                    const void *sessions,
                                    size_t sessions_length,
                                    const struct vipool_map_options *options,
                                    struct vipool_map **out);

/**
 * Closes a map and frees it.
 *
 * The files of a map remain, and its sessions stay open. A map in memory is lost.
 *
 * Parameters:
 * - `map`: the map. NULL is ignored.
 *
 * Threads: any; the last call with the map.
 */
void vipool_map_close(struct vipool_map *map);

/**
 * Returns the pool that the pool rules select for a session.
 *
 * Use the result as vipool_open_options.pool.
 *
 * Parameters:
 * - `map`: the map.
 * - `user`, `user_length`: the user of the session, UTF-8.
 * - `program`: the program that starts in the session. May be NULL if it is unknown.
 * - `buffer`, `capacity`: receives the name of the pool and a NUL.
 * - `out_length`: receives the length without the NUL. May be NULL.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_UTF8, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_UNKNOWN_FIELD,
 * VIPOOL_ERR_KIND, VIPOOL_ERR_BUFFER, VIPOOL_ERR_NOT_FOUND (no rule applies: use NULL as pool),
 * VIPOOL_ERR_UNKNOWN_GROUPS and VIPOOL_ERR_DAMAGED (the pool is unknown: do not open the session),
 * VIPOOL_ERR_FORKED, and the errors of vipool_map_open() if the map was replaced.
 *
 * Threads: any. May block while it looks up the groups of the user, if a rule names a group.
 */
vipool_status vipool_map_choose_pool(const struct vipool_map *map,
                                     const char *user,
                                     size_t user_length,
                                     const struct vipool_executable *program,
                                     char *buffer,
                                     size_t capacity,
                                     size_t *out_length);

/* ================================================================================
 * 11. Agent: opening and closing sessions
 */

/**
 * Options of vipool_map_open_session(). Every member is optional.
 */
typedef struct vipool_open_options {
    /**
     * sizeof(vipool_open_options), set by the caller.
     */
    size_t size;
    /**
     * Name of the user, UTF-8. The user's last address, reservations and quota apply. The library
     * compares the complete name; the map shows its first 63 bytes. May be NULL.
     */
    const char *user;
    /**
     * Length of `user` in bytes.
     */
    size_t user_length;
    /**
     * Name of the pool of the virtual IP. NULL means "default", or the first pool if no pool has
     * this name. Loopback pools serve every session.
     */
    const char *pool;
    /**
     * Length of `pool` in bytes.
     */
    size_t pool_length;
    /**
     * Require this address; fail if it is not available.
     */
    struct vipool_ip address;
    /**
     * Address of the user's client.
     */
    struct vipool_ip client;
    /**
     * Session leader: vipool_map_reap() closes the session when this process has exited. Pid 0 for
     * none.
     */
    struct vipool_leader leader;
} vipool_open_options;

/**
 * vipool_opened_session.flags: the session was already open. It keeps its leases, and gets the
 * leases that were missing.
 */
enum { VIPOOL_OPENED_ALREADY = 1 };
#define VIPOOL_OPENED_ALREADY 1u

/**
 * vipool_opened_session.flags: this call brought a pool below its low-water mark.
 */
enum { VIPOOL_OPENED_LOW_WATER = 2 };
#define VIPOOL_OPENED_LOW_WATER 2u

/**
 * Result of vipool_map_open_session().
 */
typedef struct vipool_opened_session {
    /**
     * sizeof(vipool_opened_session), set by the caller.
     */
    size_t size;
    /**
     * Handle for the programs of the session.
     */
    struct vipool_handle handle;
    /**
     * The leases of the session, in the order of the pools. The first `lease_count` elements are
     * written.
     */
    struct vipool_lease leases[VIPOOL_MAX_LEASES];
    /**
     * Number of leases.
     */
    uint32_t lease_count;
    /**
     * VIPOOL_OPENED_...
     */
    uint32_t flags;
    /**
     * VIPOOL_OK if the session has a lease in every pool that serves it. Otherwise the reason why
     * a lease is missing: VIPOOL_ERR_EXHAUSTED, VIPOOL_ERR_COOLING, VIPOOL_ERR_LINGERING or
     * VIPOOL_ERR_DRAINING.
     */
    int32_t shortage;
    /**
     * With VIPOOL_ERR_COOLING: the tick (see vipool_now()) at which the next cool-down of an
     * address of the pool ends.
     */
    uint32_t cooling_until;
    /**
     * With a shortage: number, from 0, of the first pool that has no address for the session.
     * vipool_snapshot_list_pools() returns the name of the pool.
     */
    uint32_t shortage_pool;
    /**
     * Reserved: zero.
     */
    uint32_t reserved;
} vipool_opened_session;

/**
 * Result of closing a session.
 */
typedef struct vipool_closed_session {
    /**
     * sizeof(vipool_closed_session), set by the caller.
     */
    size_t size;
    /**
     * The released leases, in the order of the pools. The first `lease_count` elements are
     * written.
     */
    struct vipool_lease leases[VIPOOL_MAX_LEASES];
    /**
     * Number of leases.
     */
    uint32_t lease_count;
    /**
     * Reserved: zero.
     */
    uint32_t reserved;
} vipool_closed_session;

/**
 * Opens a session: allocates its addresses, or returns the addresses that it already has.
 *
 * A second call for an open session adds missing addresses, and replaces the client and the leader
 * of the session if the options contain them. A session keeps its user, if it has one, and its
 * pool.
 *
 * In each pool, the session gets the first of these addresses that is available: the address that
 * it already holds, the required address, the reserved address of the user, the last address of
 * the user, the address that has been free longest. If the required address is not available, the
 * call fails.
 *
 * Events: assigned for each new lease, exhausted, low water.
 *
 * Parameters:
 * - `map`: the map.
 * - `session`: the session.
 * - `options`: may be NULL.
 * - `now`: vipool_now().
 * - `out`: receives the handle and the leases. If the call succeeds and `shortage` is not
 *   VIPOOL_OK, the session lacks a lease of at least one pool. If the call fails with
 *   VIPOOL_ERR_EXHAUSTED, VIPOOL_ERR_COOLING, VIPOOL_ERR_LINGERING or VIPOOL_ERR_DRAINING, `out`
 *   receives the shortage and no leases.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_UNKNOWN_FIELD, VIPOOL_ERR_UTF8,
 * VIPOOL_ERR_ADDRESS, VIPOOL_ERR_SESSION_ID, VIPOOL_ERR_OTHER_USER, VIPOOL_ERR_OTHER_ADDRESS, all
 * statuses from VIPOOL_ERR_EXHAUSTED to VIPOOL_ERR_NOT_READY, and writer errors.
 *
 * Threads: any.
 */
vipool_status vipool_map_open_session(const struct vipool_map *map,
                                      vipool_session session,
                                      const struct vipool_open_options *options,
                                      uint32_t now,
                                      struct vipool_opened_session *out);

/**
 * Replaces the client and the leader of an open session.
 *
 * Call this function when the user reconnects from another client, or when another process becomes
 * the leader.
 *
 * Parameters:
 * - `map`: the map.
 * - `session`: the session.
 * - `client`: address of the client. NULL or no address keeps the current client.
 * - `leader`: the leader. NULL or pid 0 keeps the current leader.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_UNKNOWN_FIELD, VIPOOL_ERR_ADDRESS, VIPOOL_ERR_SESSION_ID,
 * VIPOOL_ERR_NOT_OPEN, and writer errors.
 *
 * Threads: any.
 */
vipool_status vipool_map_update_session(const struct vipool_map *map,
                                        vipool_session session,
                                        const struct vipool_ip *client,
                                        const struct vipool_leader *leader);

/**
 * Closes a session by its id and releases its leases.
 *
 * Events: released for each lease.
 *
 * Parameters:
 * - `map`: the map.
 * - `session`: the session.
 * - `now`: vipool_now().
 * - `out`: receives the released leases. May be NULL.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_SESSION_ID, VIPOOL_ERR_NOT_OPEN, and
 * writer errors.
 *
 * Threads: any.
 */
vipool_status vipool_map_close_session(const struct vipool_map *map,
                                       vipool_session session,
                                       uint32_t now,
                                       struct vipool_closed_session *out);

/**
 * Closes the session of a handle and releases its leases.
 *
 * A handle that is stale or foreign, or whose session is closed, releases nothing.
 *
 * Events: released for each lease.
 *
 * Parameters:
 * - `map`: the map.
 * - `handle`: the handle.
 * - `now`: vipool_now().
 * - `out`: receives the released leases. May be NULL.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_UNKNOWN_FIELD,
 * VIPOOL_ERR_SESSION_ID, VIPOOL_ERR_HANDLE, VIPOOL_ERR_NOT_OPEN, VIPOOL_ERR_STALE,
 * VIPOOL_ERR_FOREIGN, and writer errors.
 *
 * Threads: any.
 */
vipool_status vipool_map_close_by_handle(const struct vipool_map *map,
                                         const struct vipool_handle *handle,
                                         uint32_t now,
                                         struct vipool_closed_session *out);

/* ================================================================================
 * 12. Agent: administration
 */

/**
 * Result of a call that starts or ends a drain or a reservation of addresses.
 */
typedef struct vipool_admin_change {
    /**
     * sizeof(vipool_admin_change), set by the caller.
     */
    size_t size;
    /**
     * Number of addresses that the change applies to.
     */
    uint32_t addresses;
    /**
     * Number of these addresses that sessions hold and keep.
     */
    uint32_t held;
} vipool_admin_change;

/**
 * Drains addresses: no further session gets them. Sessions that hold them keep them.
 *
 * Parameters:
 * - `map`: the map.
 * - `range`: the addresses.
 * - `now`: vipool_now().
 * - `out`: receives the result. May be NULL.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_ADDRESS, VIPOOL_ERR_RANGE_ORDER, and
 * writer errors.
 *
 * Threads: any.
 */
vipool_status vipool_map_drain(const struct vipool_map *map,
                               const struct vipool_range *range,
                               uint32_t now,
                               struct vipool_admin_change *out);

/**
 * Ends the drain of addresses, so that sessions can get them again.
 *
 * Parameters:
 * - `map`: the map.
 * - `range`: the addresses.
 * - `now`: vipool_now().
 * - `out`: receives the result. May be NULL.
 *
 * Errors: as for vipool_map_drain().
 *
 * Threads: any.
 */
vipool_status vipool_map_undrain(const struct vipool_map *map,
                                 const struct vipool_range *range,
                                 uint32_t now,
                                 struct vipool_admin_change *out);

/**
 * Starts or ends the drain of the whole server. While the server drains, sessions keep their
 * addresses, and no session gets another address.
 *
 * Parameters:
 * - `map`: the map.
 * - `draining`: 1 to start the drain, 0 to end it.
 *
 * Errors: VIPOOL_ERR_NULL, and writer errors.
 *
 * Threads: any.
 */
vipool_status vipool_map_set_draining(const struct vipool_map *map, uint32_t draining);

/**
 * Reserves an address for a user. A session that holds the address keeps it.
 *
 * Parameters:
 * - `map`: the map.
 * - `address`: the address.
 * - `user`, `user_length`: the name of the user, UTF-8.
 * - `now`: vipool_now().
 * - `out`: receives the result. May be NULL.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_UTF8, VIPOOL_ERR_ADDRESS,
 * VIPOOL_ERR_EXCLUDED (in no pool), VIPOOL_ERR_RESERVED (for another user), and writer errors.
 *
 * Threads: any.
 */
vipool_status vipool_map_reserve(const struct vipool_map *map,
                                 const struct vipool_ip *address,
                                 const char *user,
                                 size_t user_length,
                                 uint32_t now,
                                 struct vipool_admin_change *out);

/**
 * Removes the reservation of an address.
 *
 * Parameters:
 * - `map`: the map.
 * - `address`: the address.
 * - `now`: vipool_now().
 * - `out`: receives the result. May be NULL.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_ADDRESS, VIPOOL_ERR_EXCLUDED (in no
 * pool), VIPOOL_ERR_NOT_RESERVED, and writer errors.
 *
 * Threads: any.
 */
vipool_status vipool_map_unreserve(const struct vipool_map *map,
                                   const struct vipool_ip *address,
                                   uint32_t now,
                                   struct vipool_admin_change *out);

/**
 * Reports that the agent has restored the sessions of the operating system.
 * vipool_map_open_session() then no longer returns VIPOOL_ERR_NOT_READY.
 *
 * Parameters:
 * - `map`: the map.
 *
 * Errors: VIPOOL_ERR_NULL, and writer errors.
 *
 * Threads: any.
 */
vipool_status vipool_map_mark_restored(const struct vipool_map *map);

/**
 * Rebuilds free lists, index and counters from the slots.
 *
 * The library recovers a map automatically after a writer died. An administrator can also request
 * a recovery.
 *
 * Parameters:
 * - `map`: the map.
 *
 * Errors: VIPOOL_ERR_NULL, and writer errors.
 *
 * Threads: any.
 */
vipool_status vipool_map_recover(const struct vipool_map *map);

/**
 * Returns whether a session still exists in the operating system. The callback must not use the
 * map.
 *
 * Parameters:
 * - `context`: as passed to vipool_map_reconcile().
 * - `session`: the session.
 * - `leader`: the leader of the session. NULL if the session has none.
 *
 * Returns: 0 if the session has ended, otherwise 1.
 */
typedef uint32_t (*vipool_is_alive_fn)(void *context,
                                       vipool_session session,
                                       const struct vipool_leader *leader);

/**
 * Closes every session for which `is_alive` returns 0. Then does the same as
 * vipool_map_mark_restored().
 *
 * Call this function after the start of an agent, before the agent opens the first session.
 *
 * Events: released for each lease.
 *
 * Parameters:
 * - `map`: the map.
 * - `now`: vipool_now().
 * - `is_alive`: called for each open session.
 * - `context`: passed to `is_alive`.
 * - `out_closed`: receives the number of closed sessions. May be NULL.
 *
 * Errors: VIPOOL_ERR_NULL, and writer errors.
 *
 * Threads: any.
 */
vipool_status vipool_map_reconcile(const struct vipool_map *map,
                                   uint32_t now,
                                   vipool_is_alive_fn is_alive,
                                   void *context,
                                   uint32_t *out_closed);

/**
 * Callbacks of the agent for vipool_map_reap(). They must not use the map, because it is locked
 * while they run.
 */
typedef struct vipool_probe {
    /**
     * sizeof(vipool_probe), set by the caller.
     */
    size_t size;
    /**
     * Returns 0 if no socket is bound to the address or connected from it. Returns 1 otherwise and
     * in doubt. NULL means 1 for every address.
     */
    uint32_t (*has_sockets)(void *context, const struct vipool_ip *address);
    /**
     * Returns 1 if the process has exited. Returns 0 otherwise and in doubt. NULL means 0 for
     * every process.
     */
    uint32_t (*has_exited)(void *context, const struct vipool_leader *leader);
    /**
     * Passed to the callbacks.
     */
    void *context;
} vipool_probe;

/**
 * Result of vipool_map_reap().
 */
typedef struct vipool_reap_report {
    /**
     * sizeof(vipool_reap_report), set by the caller.
     */
    size_t size;
    /**
     * Number of addresses that became free.
     */
    uint32_t freed;
    /**
     * Number of cooled addresses on which this call found sockets.
     */
    uint32_t lingering;
    /**
     * Number of sessions that were closed because their leader has exited.
     */
    uint32_t closed;
    /**
     * 1 if the budget ran out before every session and every cooled address was examined,
     * otherwise 0. Addresses that an earlier call found lingering do not count.
     */
    uint32_t more;
} vipool_reap_report;

/**
 * Closes sessions whose leader has exited, and frees addresses that have cooled down.
 *
 * An agent calls this function about every ten seconds. A session is closed when two calls, at
 * least ten seconds apart, find that its leader has exited. If the process of another logon of the
 * session still runs, this process becomes the leader instead. With VIPOOL_SETTING_CHECK_IN_USE, a
 * cooled address that has sockets is not freed.
 *
 * Events: released for each lease.
 *
 * Parameters:
 * - `map`: the map.
 * - `now`: vipool_now().
 * - `budget`: the maximum number of sessions to examine. In each pool, the same maximum applies to
 *   each of three groups: lingering addresses; cooling addresses; reserved or drained addresses.
 *   Call again while `out->more` is 1.
 * - `probe`: callbacks of the agent. With NULL, the library examines this machine (Linux,
 *   Windows).
 * - `out`: receives the result. May be NULL.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_UNKNOWN_FIELD, VIPOOL_ERR_IO,
 * VIPOOL_ERR_UNSUPPORTED (NULL for `probe` on another system), and writer errors.
 *
 * Threads: any.
 */
vipool_status vipool_map_reap(const struct vipool_map *map,
                              uint32_t now,
                              uint32_t budget,
                              const struct vipool_probe *probe,
                              struct vipool_reap_report *out);

/* ================================================================================
 * 13. Agent and hook: client addresses
 */

/**
 * Stores the client address of a session in a file.
 *
 * The file is in the directory of the map. Its name is random. Hooks in programs with
 * VIPOOL_FEATURE_CLIENT_IP search for the file that contains the handle of their session.
 *
 * On Linux and Windows, the file belongs to the user of this process. If `user` is another user,
 * this user can only read the file. On Linux, such a file requires a file system with access
 * control lists.
 *
 * Parameters:
 * - `directory`, `directory_length`: the directory of the map, UTF-8.
 * - `handle`: the handle of the session.
 * - `client`: the address.
 * - `user`, `user_length`: the user of the session, UTF-8. On Windows, the name can contain a
 *   domain ("DOMAIN\\user"). NULL means the user of this process.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_UNKNOWN_FIELD, VIPOOL_ERR_UTF8, VIPOOL_ERR_SESSION_ID,
 * VIPOOL_ERR_HANDLE, VIPOOL_ERR_ADDRESS, VIPOOL_ERR_DIRECTORY (empty), VIPOOL_ERR_NOT_FOUND
 * (unknown user), VIPOOL_ERR_IO.
 *
 * Threads: any. May block for the lookup of the user.
 */
vipool_status vipool_client_set(const char *directory,
                                size_t directory_length,
                                const struct vipool_handle *handle,
                                const struct vipool_ip *client,
                                const char *user,
                                size_t user_length);

/**
 * Returns the client address of a session, for vipool_rewrite_host_addresses().
 *
 * Parameters:
 * - `directory`, `directory_length`: the directory of the map, UTF-8.
 * - `handle`: the handle of the session.
 * - `out`: receives the address.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_UNKNOWN_FIELD, VIPOOL_ERR_UTF8, VIPOOL_ERR_SESSION_ID,
 * VIPOOL_ERR_HANDLE, VIPOOL_ERR_DIRECTORY (empty), VIPOOL_ERR_NOT_FOUND (not stored, or not
 * readable by this user).
 *
 * Threads: any.
 */
vipool_status vipool_client_get(const char *directory,
                                size_t directory_length,
                                const struct vipool_handle *handle,
                                struct vipool_ip *out);

/**
 * Removes the client address of a session. Call this function when the session is closed.
 *
 * If no address is stored, the call succeeds.
 *
 * Parameters:
 * - `directory`, `directory_length`: the directory of the map, UTF-8.
 * - `handle`: the handle of the session.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_UNKNOWN_FIELD, VIPOOL_ERR_UTF8, VIPOOL_ERR_SESSION_ID,
 * VIPOOL_ERR_HANDLE, VIPOOL_ERR_DIRECTORY (empty), VIPOOL_ERR_IO.
 *
 * Threads: any.
 */
vipool_status vipool_client_remove(const char *directory,
                                   size_t directory_length,
                                   const struct vipool_handle *handle);

/* ================================================================================
 * 14. Hook and monitor: reading a map
 */

/**
 * A read-only view of a map. It never blocks and never writes. Threads may share it.
 */
typedef struct vipool_reader vipool_reader;

/**
 * The handle and the leases of an open session.
 */
typedef struct vipool_found_session {
    /**
     * sizeof(vipool_found_session), set by the caller.
     */
    size_t size;
    /**
     * Handle for the programs of the session.
     */
    struct vipool_handle handle;
    /**
     * The leases, in the order of the pools. The first `lease_count` elements are written.
     */
    struct vipool_lease leases[VIPOOL_MAX_LEASES];
    /**
     * Number of leases.
     */
    uint32_t lease_count;
    /**
     * Reserved: zero.
     */
    uint32_t reserved;
} vipool_found_session;

/**
 * vipool_map_info.flags: the whole server drains (vipool_map_set_draining()).
 */
enum { VIPOOL_MAP_INFO_DRAINING = 1 };
#define VIPOOL_MAP_INFO_DRAINING 1u

/**
 * vipool_map_info.flags: this map is out of date, see vipool_reader_is_superseded().
 */
enum { VIPOOL_MAP_INFO_SUPERSEDED = 2 };
#define VIPOOL_MAP_INFO_SUPERSEDED 2u

/**
 * Properties of a map.
 */
typedef struct vipool_map_info {
    /**
     * sizeof(vipool_map_info), set by the caller.
     */
    size_t size;
    /**
     * Hash of the boot id and the network namespace. The handles of the map have this value in
     * vipool_handle.boot.
     */
    uint64_t boot;
    /**
     * VIPOOL_MAP_INFO_...
     */
    uint32_t flags;
    /**
     * VIPOOL_REWRITE_...: vipool_rewrite_settings.flags of the farm.
     */
    uint32_t rewrite_flags;
} vipool_map_info;

/**
 * Opens the map in a directory for reading, as a hook or a monitor does.
 *
 * Parameters:
 * - `directory`, `directory_length`: the directory, UTF-8.
 * - `out`: receives the reader. Close it with vipool_reader_close(). A hook can keep it open until
 *   the process exits.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_UTF8, VIPOOL_ERR_MISSING, VIPOOL_ERR_DAMAGED,
 * VIPOOL_ERR_OTHER_BOOT, VIPOOL_ERR_UNTRUSTED, VIPOOL_ERR_IO.
 *
 * Threads: any.
 */
vipool_status vipool_reader_open(const char *directory,
                                 size_t directory_length,
                                 struct vipool_reader **out);

/**
 * Opens a reader of an open map. A map in memory is accepted too.
 *
 * Parameters:
 * - `map`: the map. The reader may outlive it.
 * - `out`: receives the reader. Close it with vipool_reader_close().
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_IO, VIPOOL_ERR_MISSING, VIPOOL_ERR_DAMAGED,
 * VIPOOL_ERR_OTHER_BOOT, VIPOOL_ERR_UNTRUSTED, VIPOOL_ERR_FORKED.
 *
 * Threads: any.
 */
vipool_status vipool_reader_open_map(const struct vipool_map *map, struct vipool_reader **out);

/**
 * Closes a reader and frees it.
 *
 * Parameters:
 * - `reader`: the reader. NULL is ignored.
 *
 * Threads: any; the last call with the reader.
 */
void vipool_reader_close(struct vipool_reader *reader);

/**
 * Finds the handle and the leases of a session.
 *
 * Parameters:
 * - `reader`: the reader.
 * - `session`: the session.
 * - `out`: receives handle and leases.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_SESSION_ID, VIPOOL_ERR_NOT_OPEN.
 *
 * Threads: any; signal-safe.
 */
vipool_status vipool_reader_find_session(const struct vipool_reader *reader,
                                         vipool_session session,
                                         struct vipool_found_session *out);

/**
 * Finds the leases of the session of a handle, if the lease of the handle is still held.
 *
 * Programs that received a handle use this function instead of vipool_reader_find_session(),
 * because a later session can have the same session id.
 *
 * Parameters:
 * - `reader`: the reader.
 * - `handle`: the handle.
 * - `out`: receives handle and leases.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_UNKNOWN_FIELD,
 * VIPOOL_ERR_SESSION_ID, VIPOOL_ERR_HANDLE, VIPOOL_ERR_STALE.
 *
 * Threads: any; signal-safe.
 */
vipool_status vipool_reader_find_by_handle(const struct vipool_reader *reader,
                                           const struct vipool_handle *handle,
                                           struct vipool_found_session *out);

/**
 * Checks whether the lease of a handle is still held. The check costs a few loads from memory.
 *
 * Parameters:
 * - `reader`: the reader.
 * - `handle`: the handle.
 *
 * Returns: VIPOOL_OK if the lease is held.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_UNKNOWN_FIELD, VIPOOL_ERR_SESSION_ID, VIPOOL_ERR_HANDLE,
 * VIPOOL_ERR_STALE.
 *
 * Threads: any; signal-safe.
 */
vipool_status vipool_reader_check_handle(const struct vipool_reader *reader,
                                         const struct vipool_handle *handle);

/**
 * Returns the addresses of a session.
 *
 * Parameters:
 * - `reader`: the reader.
 * - `session`: the session.
 * - `out`: receives the addresses.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_SESSION_ID, VIPOOL_ERR_NOT_OPEN.
 *
 * Threads: any; signal-safe.
 */
vipool_status vipool_reader_get_addresses(const struct vipool_reader *reader,
                                          vipool_session session,
                                          struct vipool_addresses *out);

/**
 * Returns the kind of the pool that an address belongs to. The address may be leased or not.
 *
 * Parameters:
 * - `reader`: the reader.
 * - `address`: the address.
 * - `out_kind`: receives vipool_pool_kind, or 0 if the address is in no pool.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_ADDRESS.
 *
 * Threads: any; signal-safe.
 */
vipool_status vipool_reader_get_address_kind(const struct vipool_reader *reader,
                                             const struct vipool_ip *address,
                                             uint32_t *out_kind);

/**
 * Returns whether the map of this reader is out of date. The check reads one word.
 *
 * A map is out of date if a newer map replaces it, or if the map was removed. In this case, open
 * the newer map with vipool_reader_open(). If there is none yet, try again later. The old reader
 * stays valid until it is closed.
 *
 * Parameters:
 * - `reader`: the reader.
 * - `out_superseded`: receives 1 if the map is out of date, otherwise 0.
 *
 * Errors: VIPOOL_ERR_NULL.
 *
 * Threads: any; signal-safe.
 */
vipool_status vipool_reader_is_superseded(const struct vipool_reader *reader,
                                          uint32_t *out_superseded);

/**
 * Returns properties of the map.
 *
 * Parameters:
 * - `reader`: the reader.
 * - `out`: receives the properties.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE.
 *
 * Threads: any; signal-safe.
 */
vipool_status vipool_reader_get_info(const struct vipool_reader *reader,
                                     struct vipool_map_info *out);

/**
 * Returns the settings for the allocation of addresses.
 *
 * Parameters:
 * - `reader`: the reader.
 * - `out`: receives the settings.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE.
 *
 * Threads: any.
 */
vipool_status vipool_reader_get_settings(const struct vipool_reader *reader,
                                         struct vipool_settings *out);

/* ================================================================================
 * 15. Monitor: snapshots and slots
 */

/**
 * The pools and the open sessions at the time when the snapshot was made. Threads may share a
 * snapshot.
 */
typedef struct vipool_snapshot vipool_snapshot;

/**
 * An open session.
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
     * Handle of the session.
     */
    struct vipool_handle handle;
    /**
     * Leases of the session, in the order of the pools.
     */
    struct vipool_lease leases[VIPOOL_MAX_LEASES];
    /**
     * Number of leases.
     */
    uint32_t lease_count;
    /**
     * Time at which the session got its first lease, as a tick (see vipool_now()).
     */
    uint32_t since;
    /**
     * Name of the user, UTF-8 without a NUL, valid until the snapshot is freed. NULL if unknown.
     */
    const char *user;
    /**
     * Length of `user` in bytes.
     */
    size_t user_length;
    /**
     * Address of the client; no address if unknown.
     */
    struct vipool_ip client;
    /**
     * Reserved: zero.
     */
    uint32_t reserved;
    /**
     * Leader of the session; pid 0 if unknown or none.
     */
    struct vipool_leader leader;
} vipool_session_row;

/**
 * The counters of a pool.
 *
 * Each slot is counted in exactly one of `free`, `leased`, `cooling`, `lingering`, `reserved` and
 * `drained`.
 */
typedef struct vipool_pool_row {
    /**
     * sizeof(vipool_pool_row), set by the caller in the first row of a page.
     */
    size_t size;
    /**
     * Name of the pool, UTF-8 without a NUL, valid until the snapshot is freed. Empty for a
     * removed pool. Such a pool has a row only because pools with higher numbers exist.
     */
    const char *name;
    /**
     * Length of `name` in bytes.
     */
    size_t name_length;
    /**
     * vipool_pool_kind.
     */
    uint32_t kind;
    /**
     * Number of slots. A slot of a loopback pool has two addresses, a slot of another pool has
     * one.
     */
    uint32_t slots;
    /**
     * Slots that can be allocated.
     */
    uint32_t free;
    /**
     * Slots that sessions hold.
     */
    uint32_t leased;
    /**
     * Released slots that cool down, or that vipool_map_reap() has not examined since they cooled
     * down.
     */
    uint32_t cooling;
    /**
     * Slots that have cooled down, but had sockets at their most recent check.
     */
    uint32_t lingering;
    /**
     * Slots that are reserved for a user, and neither leased nor drained.
     */
    uint32_t reserved;
    /**
     * Slots that are not leased, and are drained or no longer configured.
     */
    uint32_t drained;
    /**
     * The maximum of `leased` so far.
     */
    uint32_t peak;
    /**
     * Family of the addresses: 4 or 6.
     */
    uint32_t family;
} vipool_pool_row;

/**
 * Takes a snapshot of a map, with users, clients and leaders if this process may read them.
 *
 * In this process, calls that open or close sessions wait while the sessions are read. If no other
 * process changes the map, all sessions are of the same moment. The pools are read immediately
 * afterwards.
 *
 * Parameters:
 * - `map`: the map.
 * - `out`: receives the snapshot. Free it with vipool_snapshot_free().
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_IO, VIPOOL_ERR_MISSING, VIPOOL_ERR_DAMAGED,
 * VIPOOL_ERR_OTHER_BOOT, VIPOOL_ERR_UNTRUSTED, VIPOOL_ERR_FORKED.
 *
 * Threads: any.
 */
vipool_status vipool_snapshot_new(const struct vipool_map *map, struct vipool_snapshot **out);

/**
 * Takes a snapshot through a reader, without users, clients and leaders. Takes no lock.
 *
 * If sessions are opened or closed during the call, the rows may be of different moments.
 *
 * Parameters:
 * - `reader`: the reader.
 * - `out`: receives the snapshot. Free it with vipool_snapshot_free().
 *
 * Errors: VIPOOL_ERR_NULL.
 *
 * Threads: any.
 */
vipool_status vipool_snapshot_new_from_reader(const struct vipool_reader *reader,
                                              struct vipool_snapshot **out);

/**
 * Frees a snapshot and the texts of its rows.
 *
 * Parameters:
 * - `snapshot`: the snapshot. NULL is ignored.
 *
 * Threads: any; the last call with the snapshot.
 */
void vipool_snapshot_free(struct vipool_snapshot *snapshot);

/**
 * Lists the sessions of a snapshot, sorted by the pool and slot of their first leases.
 *
 * Parameters:
 * - `snapshot`: the snapshot.
 * - `first`: index of the first row, from 0.
 * - `rows`, `capacity`: receives the rows. Set the size of the first row.
 * - `out_count`: receives the number of rows that were written.
 * - `out_total`: receives the total number of sessions. May be NULL.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE.
 *
 * Threads: any.
 */
vipool_status vipool_snapshot_list_sessions(const struct vipool_snapshot *snapshot,
                                            size_t first,
                                            struct vipool_session_row *rows,
                                            size_t capacity,
                                            size_t *out_count,
                                            size_t *out_total);

/**
 * Lists the pools of a snapshot in the order of their numbers.
 *
 * Parameters:
 * - `snapshot`: the snapshot.
 * - `first`: number of the first pool, from 0.
 * - `rows`, `capacity`: receives the rows. Set the size of the first row.
 * - `out_count`: receives the number of rows that were written.
 * - `out_total`: receives the total number of pools. May be NULL.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE.
 *
 * Threads: any.
 */
vipool_status vipool_snapshot_list_pools(const struct vipool_snapshot *snapshot,
                                         size_t first,
                                         struct vipool_pool_row *rows,
                                         size_t capacity,
                                         size_t *out_count,
                                         size_t *out_total);

/**
 * State of a slot.
 */
typedef uint32_t vipool_slot_state;
enum {
    /**
     * The address can be allocated, unless it is drained or reserved for another user.
     */
    VIPOOL_SLOT_FREE = 0,
    /**
     * A session holds the address.
     */
    VIPOOL_SLOT_LEASED = 1,
    /**
     * The address was released. It cools down, or vipool_map_reap() has not examined it since it
     * cooled down.
     */
    VIPOOL_SLOT_COOLING = 2,
    /**
     * The cool-down has ended, but the most recent check found sockets on the address.
     */
    VIPOOL_SLOT_LINGERING = 3
};

/**
 * vipool_slot_row.flags: the address is reserved for a user.
 */
enum { VIPOOL_SLOT_RESERVED = 1 };
#define VIPOOL_SLOT_RESERVED 1u

/**
 * vipool_slot_row.flags: the address is drained or no longer configured.
 */
enum { VIPOOL_SLOT_DRAINED = 2 };
#define VIPOOL_SLOT_DRAINED 2u

/**
 * A slot: one address of a pool with its state.
 */
typedef struct vipool_slot_row {
    /**
     * sizeof(vipool_slot_row), set by the caller in the first row of a page.
     */
    size_t size;
    /**
     * The address; in a loopback pool, the address that replaces 127.0.0.1.
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
     * Reserved: zero.
     */
    uint32_t reserved;
} vipool_slot_row;

/**
 * Lists the slots of a pool in their current state. Each call reads the slots again.
 *
 * Parameters:
 * - `reader`: the reader.
 * - `pool`: number of the pool, from 0. An unknown pool has no slots.
 * - `first`: number of the first slot, from 0.
 * - `rows`, `capacity`: receives the rows. Set the size of the first row.
 * - `out_count`: receives the number of rows that were written.
 * - `out_total`: receives the total number of slots. May be NULL.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE.
 *
 * Threads: any.
 */
vipool_status vipool_reader_list_slots(const struct vipool_reader *reader,
                                       uint32_t pool,
                                       size_t first,
                                       struct vipool_slot_row *rows,
                                       size_t capacity,
                                       size_t *out_count,
                                       size_t *out_total);

/* ================================================================================
 * 16. Monitor: the journal
 */

/**
 * The last events of a map (at most 1024) from all of its writers. Threads may share the journal.
 */
typedef struct vipool_journal vipool_journal;

/**
 * Capacity of vipool_journal_row.user, with the NUL.
 */
enum { VIPOOL_USER_MAX = 64 };

/**
 * An event of a journal.
 */
typedef struct vipool_journal_row {
    /**
     * sizeof(vipool_journal_row), set by the caller in the first row of a page.
     */
    size_t size;
    /**
     * Number of the event in this boot, from 1.
     */
    uint64_t number;
    /**
     * The session.
     */
    vipool_session session;
    /**
     * Time of the event, as a tick: see vipool_now().
     */
    uint32_t tick;
    /**
     * vipool_event_kind.
     */
    uint32_t kind;
    /**
     * Generation of the lease; 0 with VIPOOL_EVENT_EXHAUSTED.
     */
    uint32_t generation;
    /**
     * Length of `user` in bytes; 0 if unknown, and with VIPOOL_EVENT_RELEASED.
     */
    uint32_t user_length;
    /**
     * Address of the lease; no address with VIPOOL_EVENT_EXHAUSTED. With VIPOOL_EVENT_LOW_WATER,
     * the address whose allocation brought the pool below its low-water mark.
     */
    struct vipool_ip address;
    /**
     * Address of the user's client; no address if unknown, and with VIPOOL_EVENT_RELEASED.
     */
    struct vipool_ip client;
    /**
     * Name of the user, UTF-8 with a NUL.
     */
    char user[VIPOOL_USER_MAX];
    /**
     * Number of the pool in the map, from 0. Also 0 if an earlier version of vipool, which did not
     * record pools, recorded the event.
     */
    uint32_t pool;
    /**
     * Reserved: zero.
     */
    uint32_t reserved;
} vipool_journal_row;

/**
 * Result of vipool_journal_list_events().
 */
typedef struct vipool_journal_page {
    /**
     * sizeof(vipool_journal_page), set by the caller.
     */
    size_t size;
    /**
     * Number of rows that were written. 0 if no event has the number `first` or a higher number.
     */
    size_t count;
    /**
     * Number of events from number `first` on that were overwritten before this call read them.
     */
    uint64_t lost;
    /**
     * Number of the first event of the next page.
     */
    uint64_t next;
    /**
     * Hash of the boot id and the network namespace, as in vipool_handle.boot. If the value
     * changes, the event numbers start again at 1.
     */
    uint64_t boot;
} vipool_journal_page;

/**
 * Opens the journal of the map in a directory. Only root and the group of vipool may read the
 * journal.
 *
 * Parameters:
 * - `directory`, `directory_length`: the directory, UTF-8.
 * - `out`: receives the journal. Close it with vipool_journal_close().
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_UTF8, VIPOOL_ERR_DIRECTORY (empty), VIPOOL_ERR_MISSING,
 * VIPOOL_ERR_DAMAGED, VIPOOL_ERR_UNTRUSTED, VIPOOL_ERR_IO.
 *
 * Threads: any.
 */
vipool_status vipool_journal_open(const char *directory,
                                  size_t directory_length,
                                  struct vipool_journal **out);

/**
 * Closes a journal and frees it.
 *
 * Parameters:
 * - `journal`: the journal. NULL is ignored.
 *
 * Threads: any; the last call with the journal.
 */
void vipool_journal_close(struct vipool_journal *journal);

/**
 * Lists events, beginning with the number `first`.
 *
 * Start with 1, then continue with `out->next`.
 *
 * Parameters:
 * - `journal`: the journal.
 * - `first`: number of the first event, from 1.
 * - `rows`, `capacity`: receives the events. Set the size of the first row.
 * - `out`: receives the counts and the next number.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE.
 *
 * Threads: any.
 */
vipool_status vipool_journal_list_events(const struct vipool_journal *journal,
                                         uint64_t first,
                                         struct vipool_journal_row *rows,
                                         size_t capacity,
                                         struct vipool_journal_page *out);

/* ================================================================================
 * 17. Hook: the rule and the lease of a process
 */

/**
 * How a rule matched a program or a script.
 */
typedef uint32_t vipool_matched_by;
enum {
    /**
     * No rule matches the program; the program inherited this rule from an ancestor.
     */
    VIPOOL_MATCHED_INHERITED = 0,
    /**
     * The path of the program file, or the full path by which the program was started.
     */
    VIPOOL_MATCHED_FULL_PATH = 1,
    /**
     * A symbolic link to the program file. A rule never matches a script in this way.
     */
    VIPOOL_MATCHED_LINK = 2,
    /**
     * The name of the program file, in any directory.
     */
    VIPOOL_MATCHED_BARE_NAME = 3
};

/**
 * The rule that applies to a program.
 */
typedef struct vipool_rule {
    /**
     * sizeof(vipool_rule), set by the caller.
     */
    size_t size;
    /**
     * Id of the rule. It stays the same after a reload of the process list, and in child
     * processes.
     */
    uint64_t id;
    /**
     * VIPOOL_FEATURE_...
     */
    uint32_t features;
    /**
     * VIPOOL_PROGRAM_... With VIPOOL_PROGRAM_INHERIT, child processes inherit the rule.
     */
    uint32_t flags;
    /**
     * vipool_matched_by.
     */
    uint32_t matched_by;
    /**
     * Reserved: zero.
     */
    uint32_t reserved;
} vipool_rule;

/**
 * Finds the rule that applies to a program: the most specific rule that matches. Among equally
 * specific rules, the first applies.
 *
 * Parameters:
 * - `reader`: the reader.
 * - `executable`: the program.
 * - `out`: receives the rule.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_UNKNOWN_FIELD, VIPOOL_ERR_KIND,
 * VIPOOL_ERR_BUFFER (a path is too long), VIPOOL_ERR_NOT_FOUND (no rule matches: do not rewrite).
 *
 * Threads: any; signal-safe, with 24 KiB of stack.
 */
vipool_status vipool_reader_find_rule(const struct vipool_reader *reader,
                                      const struct vipool_executable *executable,
                                      struct vipool_rule *out);

/**
 * Finds the rule with this id, if child processes inherit it.
 *
 * Use this function for a program that no rule matches, if the rule with this id applies to the
 * parent of the program.
 *
 * Parameters:
 * - `reader`: the reader.
 * - `id`: vipool_rule.id of the rule that applies to the parent.
 * - `out`: receives the rule.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_NOT_FOUND.
 *
 * Threads: any; signal-safe.
 */
vipool_status vipool_reader_find_rule_by_id(const struct vipool_reader *reader,
                                            uint64_t id,
                                            struct vipool_rule *out);

/**
 * Result of matching a program against one rule.
 */
typedef uint32_t vipool_match_result;
enum {
    /**
     * The rule is for another program.
     */
    VIPOOL_MATCH_OTHER_PROGRAM = 0,
    /**
     * The rule matches. The most specific rule that matches applies. Among equally specific rules,
     * the first applies.
     */
    VIPOOL_MATCH_MATCHED = 1,
    /**
     * The file names are equal, but the rule has another full path.
     */
    VIPOOL_MATCH_OTHER_DIRECTORY = 2,
    /**
     * The rule is for this interpreter with another script.
     */
    VIPOOL_MATCH_OTHER_SCRIPT = 3
};

/**
 * A rule of the process list with its match result.
 */
typedef struct vipool_match_row {
    /**
     * sizeof(vipool_match_row), set by the caller in the first row of a page.
     */
    size_t size;
    /**
     * Id of the rule: vipool_rule.id.
     */
    uint64_t id;
    /**
     * Full path or bare file name of the rule, UTF-8 without a NUL, valid until the reader is
     * closed.
     */
    const char *pattern;
    /**
     * Length of `pattern` in bytes.
     */
    size_t pattern_length;
    /**
     * Script of the rule, UTF-8 without a NUL, valid until the reader is closed. NULL for none.
     */
    const char *script;
    /**
     * Length of `script` in bytes.
     */
    size_t script_length;
    /**
     * Description of the result for people, UTF-8 without a NUL. The text is static.
     */
    const char *text;
    /**
     * Length of `text` in bytes.
     */
    size_t text_length;
    /**
     * vipool_match_result.
     */
    uint32_t result;
    /**
     * With VIPOOL_MATCH_MATCHED: vipool_matched_by. Otherwise 0.
     */
    uint32_t matched_by;
    /**
     * With VIPOOL_MATCH_MATCHED, if the rule has a script: vipool_matched_by for the path of the
     * script. Otherwise 0.
     */
    uint32_t script_matched_by;
    /**
     * Reserved: zero.
     */
    uint32_t reserved;
} vipool_match_row;

/**
 * Lists the match results of a program for all rules of the process list, in the order of the
 * list.
 *
 * Use this function for diagnosis. vipool_reader_find_rule() decides which rule applies.
 *
 * Parameters:
 * - `reader`: the reader.
 * - `executable`: the program.
 * - `first`: index of the first rule, from 0.
 * - `rows`, `capacity`: receives the rows. Set the size of the first row.
 * - `out_count`: receives the number of rows that were written.
 * - `out_total`: receives the total number of rules. May be NULL.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_UNKNOWN_FIELD, VIPOOL_ERR_KIND,
 * VIPOOL_ERR_BUFFER (a path is too long).
 *
 * Threads: any.
 */
vipool_status vipool_reader_list_matches(const struct vipool_reader *reader,
                                         const struct vipool_executable *executable,
                                         size_t first,
                                         struct vipool_match_row *rows,
                                         size_t capacity,
                                         size_t *out_count,
                                         size_t *out_total);

/**
 * How the session of a process was found.
 */
typedef uint32_t vipool_found_by;
enum {
    /**
     * Linux: the audit session of the kernel.
     */
    VIPOOL_FOUND_BY_AUDIT_SESSION = 1,
    /**
     * Linux: the control group of a logind session scope.
     */
    VIPOOL_FOUND_BY_SESSION_SCOPE = 2,
    /**
     * Linux: the user manager (systemd --user). The user has exactly one session, or the user's
     * logons share one session.
     */
    VIPOOL_FOUND_BY_USER_MANAGER = 3,
    /**
     * Windows: the terminal services session.
     */
    VIPOOL_FOUND_BY_WINDOWS_SESSION = 4,
    /**
     * Linux: the login user (/proc/self/loginuid), whose logons share one session.
     */
    VIPOOL_FOUND_BY_LOGIN_USER = 5
};

/**
 * Finds the open session of a process in the data of the operating system.
 *
 * Use this call if the environment of the process does not contain VIPOOL_LEASE. Otherwise, use
 * the handle in this variable: vipool_handle_parse(), then vipool_reader_find_by_handle().
 *
 * The call takes no lock and allocates nothing. On Linux, it reads files of /proc and /run. A hook
 * makes the call while its process starts. The call does not change vipool_last_error().
 *
 * Parameters:
 * - `reader`: the reader.
 * - `pid`: the process; 0 for this one.
 * - `out`: receives handle and leases.
 * - `out_found_by`: receives vipool_found_by. May be NULL.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_NOT_OPEN (the process has no
 * session, the session is not open, or the system denies access), VIPOOL_ERR_UNSUPPORTED (a system
 * other than Linux and Windows).
 *
 * Threads: any.
 */
vipool_status vipool_reader_find_by_process(const struct vipool_reader *reader,
                                            uint32_t pid,
                                            struct vipool_found_session *out,
                                            uint32_t *out_found_by);

/**
 * Finds the rule that a process inherits from its nearest listed ancestor. Linux only.
 *
 * Use the call for a program that no rule matches. On Windows, use vipool_reader_find_rule_by_id()
 * instead: a hook passes the id of its rule to each process that its program starts.
 *
 * The call takes no lock and allocates nothing, but reads files of /proc. A hook makes the call
 * while its process starts. The call does not change vipool_last_error().
 *
 * Parameters:
 * - `reader`: the reader.
 * - `pid`: the process; 0 for this one.
 * - `out`: receives the rule.
 * - `out_parent`: receives the pid of the nearest listed ancestor. May be NULL.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_NOT_FOUND (no rule is inherited),
 * VIPOOL_ERR_UNSUPPORTED (a system other than Linux).
 *
 * Threads: any.
 */
vipool_status vipool_reader_find_parent_rule(const struct vipool_reader *reader,
                                             uint32_t pid,
                                             struct vipool_rule *out,
                                             uint32_t *out_parent);

/* ================================================================================
 * 18. Hook: sockets, outcomes and reasons
 */

/**
 * The reason why a socket call passes or is refused. The numbers never change. Numbers below 64
 * concern the whole process. Of these, the rewriter returns only VIPOOL_REASON_LEASE_CLOSED. The
 * hook layer detects the other conditions itself. Numbers from 64 to 127 concern one call that
 * passes. Numbers from 128 on concern one call that is refused.
 */
typedef uint32_t vipool_reason;
enum {
    /**
     * The environment has `VIPOOL_DISABLE=1`.
     */
    VIPOOL_REASON_DISABLED = 1,
    /**
     * There is no map file, or it cannot be used.
     */
    VIPOOL_REASON_MAP_UNREADABLE = 2,
    /**
     * No rule of the process list matches the program.
     */
    VIPOOL_REASON_NOT_LISTED = 3,
    /**
     * No session was found for the process.
     */
    VIPOOL_REASON_NO_SESSION = 4,
    /**
     * The session has no address.
     */
    VIPOOL_REASON_NO_ADDRESS = 5,
    /**
     * The lease of the session was released while the program ran.
     */
    VIPOOL_REASON_LEASE_CLOSED = 6,
    /**
     * The handle in the environment belongs to another boot, another map or an earlier session.
     */
    VIPOOL_REASON_STALE_LEASE = 7,
    /**
     * The address is neither IPv4 nor IPv6.
     */
    VIPOOL_REASON_NOT_INET = 64,
    /**
     * The socket is neither TCP nor UDP.
     */
    VIPOOL_REASON_NOT_TCP_OR_UDP = 65,
    /**
     * The rule of the program does not have the feature that the rewrite needs.
     */
    VIPOOL_REASON_FEATURE_OFF = 66,
    /**
     * The session has no address of the kind that the rewrite needs.
     */
    VIPOOL_REASON_NO_ADDRESS_OF_KIND = 67,
    /**
     * A loopback bind without a fixed port, with VIPOOL_PROGRAM_KEEP_EPHEMERAL.
     */
    VIPOOL_REASON_EPHEMERAL_PORT = 68,
    /**
     * A loopback port that the rule of the program lists in shared_ports.
     */
    VIPOOL_REASON_SHARED_PORT = 69,
    /**
     * A wildcard bind that passes because there is no virtual IP.
     */
    VIPOOL_REASON_WILDCARD_UNCHANGED = 70,
    /**
     * A wildcard UDP bind to a port of wildcard_udp_ports, or by a socket that can receive the
     * same datagrams as other sockets (VIPOOL_SOCKET_SHARES_PORT).
     */
    VIPOOL_REASON_SHARED_RECEIVER = 71,
    /**
     * The address already belongs to the session.
     */
    VIPOOL_REASON_OWN_ADDRESS = 72,
    /**
     * An address that vipool does not rewrite.
     */
    VIPOOL_REASON_OTHER_ADDRESS = 73,
    /**
     * The socket is already bound to an address, so the hook cannot bind it.
     */
    VIPOOL_REASON_ALREADY_BOUND = 74,
    /**
     * The session does not listen on the port, so the call goes to the host's loopback address.
     */
    VIPOOL_REASON_NO_OWN_LISTENER = 75,
    /**
     * The socket is IPv6-only, and the replacement would be an IPv4 address.
     */
    VIPOOL_REASON_V6ONLY = 77,
    /**
     * An IPv6 address with link scope: unicast or multicast.
     */
    VIPOOL_REASON_LINK_LOCAL = 78,
    /**
     * A send on a stream socket: the data has no destination of its own.
     */
    VIPOOL_REASON_STREAM_DATA = 79,
    /**
     * The program sees the address that the kernel reports.
     */
    VIPOOL_REASON_VISIBLE_UNCHANGED = 80,
    /**
     * A name that is not the name of the host.
     */
    VIPOOL_REASON_OTHER_NAME = 81,
    /**
     * A bind of an IPv6 datagram socket to :: and port 0. The first destination on another host
     * decides to which address of the session the hook binds the socket (VIPOOL_DO_REBIND).
     */
    VIPOOL_REASON_FAMILY_UNKNOWN = 82,
    /**
     * Refused: the address belongs to another session (EADDRNOTAVAIL, WSAEADDRNOTAVAIL).
     */
    VIPOOL_REASON_OTHER_SESSION_ADDRESS = 129,
    /**
     * Refused: the session has no IPv6 address, and an IPv6-only socket on :: would share the port
     * with other sessions (EADDRNOTAVAIL, WSAEADDRNOTAVAIL).
     */
    VIPOOL_REASON_SHARED_IPV6_WILDCARD = 130,
    /**
     * Refused: the kernel did not report whether the session listens on the port (ENOBUFS,
     * WSAENOBUFS).
     */
    VIPOOL_REASON_LISTENERS_UNKNOWN = 131
};

/**
 * Returns the machine-readable name of a reason, such as "not-listed".
 *
 * Parameters:
 * - `reason`: vipool_reason.
 *
 * Returns: a static text; "unknown" if the number is not a vipool_reason.
 *
 * Threads: any; signal-safe.
 */
const char *vipool_reason_get_name(uint32_t reason);

/**
 * Returns the human-readable description of a reason.
 *
 * Parameters:
 * - `reason`: vipool_reason.
 *
 * Returns: a static text; "unknown" if the number is not a vipool_reason.
 *
 * Threads: any; signal-safe.
 */
const char *vipool_reason_get_text(uint32_t reason);

/**
 * How a socket call continues.
 */
typedef uint32_t vipool_outcome_kind;
enum {
    /**
     * Make the call with `address` instead of the address of the program, or return `address` to
     * the program. `flags` lists further steps.
     */
    VIPOOL_REWRITTEN = 1,
    /**
     * Make the call exactly as the program made it, because of `reason`.
     */
    VIPOOL_PASSED = 2,
    /**
     * Do not make the call: it fails with `error`, because of `reason`.
     */
    VIPOOL_REFUSED = 3
};

/**
 * vipool_outcome.flags: clear IPV6_V6ONLY first. Set it again if the call fails; EINPROGRESS and
 * WSAEWOULDBLOCK are not failures.
 */
enum { VIPOOL_DO_CLEAR_V6ONLY = 1 };
#define VIPOOL_DO_CLEAR_V6ONLY 1u

/**
 * vipool_outcome.flags: do not bind now, but report success and remember the socket until its
 * destination is known. Only with VIPOOL_REWRITER_DEFER_WILDCARD, for Windows: ConnectEx requires
 * a bound socket, and on Windows a socket that is bound to a virtual IP cannot reach a loopback
 * address. If the program binds a socket to the wildcard address and port 0, the hook handles the
 * calls on this socket as follows:
 *
 *  - bind: remember the socket if it is not bound (getsockname fails with WSAEINVAL) and the hook
 *    has space to remember it. Otherwise bind it to `address` at once. A second bind of a
 *    remembered socket fails with WSAEINVAL, without a rewrite call.
 *  - connect, WSAConnect: forget the socket and follow vipool_rewrite_connect(). If the socket is
 *    still unbound, connect and WSAConnect bind it.
 *  - ConnectEx: forget the socket and follow vipool_rewrite_connect(). If the socket was
 *    remembered and is still unbound, bind it to the wildcard address and port 0 before the call.
 *    If it was not remembered, ignore VIPOOL_DO_BIND_FIRST, so that ConnectEx still fails with
 *    WSAEINVAL if the program never bound the socket.
 *  - listen, getsockname: forget the socket, call vipool_rewrite_listen() and bind the socket to
 *    the address of the outcome. If the outcome is VIPOOL_PASSED, bind it to the wildcard address
 *    and port 0 instead. Then make the call. For a socket that is not remembered, do not call
 *    vipool_rewrite_listen(), so that the call still fails with WSAEINVAL if the program never
 *    bound the socket.
 *  - closesocket: forget the socket.
 */
enum { VIPOOL_DO_DEFER = 2 };
#define VIPOOL_DO_DEFER 2u

/**
 * vipool_outcome.flags: bind the socket to `bind` (port 0) first. If the bind fails with
 * EADDRNOTAVAIL or WSAEADDRNOTAVAIL, vipool_rewrite_is_retry_allowed() decides whether the call
 * continues or fails with this error. After any other error of the bind, continue with the call.
 */
enum { VIPOOL_DO_BIND_FIRST = 4 };
#define VIPOOL_DO_BIND_FIRST 4u

/**
 * vipool_outcome.flags, with VIPOOL_DO_BIND_FIRST: the kernel chooses the port at the
 * connect and not at the bind, so that connections to two destinations can share one port. On
 * Linux, set IP_BIND_ADDRESS_NO_PORT before the bind. Clear the option after the bind unless the
 * program had set it: if the connect fails, the program can bind the socket itself, and that bind
 * must choose a port at once.
 */
enum { VIPOOL_DO_DEFER_PORT = 8 };
#define VIPOOL_DO_DEFER_PORT 8u

/**
 * vipool_outcome.flags, with VIPOOL_DO_BIND_FIRST: move the socket from the wildcard address to
 * the IP address in `bind`, and keep the port of the socket. Only with
 * VIPOOL_REWRITER_REBIND_DATAGRAMS. First connect the socket to AF_UNSPEC, which releases a port
 * that the kernel chose. Then bind the socket to the IP address in `bind` and to its old port. A
 * port that the program chose is not released, so the bind fails and the call continues. Leave a
 * socket with SO_BINDTODEVICE as it is, because the connect to AF_UNSPEC resets this option. If
 * the bind fails after the release, bind the socket to the wildcard address and its port again.
 */
enum { VIPOOL_DO_REBIND = 16 };
#define VIPOOL_DO_REBIND 16u

/**
 * The outcome of a rewrite call.
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
     * With VIPOOL_PASSED and VIPOOL_REFUSED: vipool_reason. Otherwise 0.
     */
    uint32_t reason;
    /**
     * With VIPOOL_REFUSED: the value for errno or WSASetLastError(). Otherwise 0.
     */
    int32_t error;
    /**
     * With VIPOOL_REWRITTEN: VIPOOL_DO_... Otherwise 0.
     */
    uint32_t flags;
    /**
     * With VIPOOL_REWRITTEN: the address for the call or for the program.
     */
    struct vipool_sockaddr address;
    /**
     * With VIPOOL_DO_BIND_FIRST: the address to bind first.
     */
    struct vipool_sockaddr bind;
    /**
     * With VIPOOL_REWRITTEN, for packet information: the index of the interface. Otherwise 0.
     */
    uint32_t interface_index;
    /**
     * Reserved: zero.
     */
    uint32_t reserved;
} vipool_outcome;

/**
 * Protocol of a socket.
 */
typedef uint32_t vipool_protocol;
enum {
    /**
     * Another protocol. Calls on such a socket pass unchanged.
     */
    VIPOOL_PROTOCOL_OTHER = 0,
    /**
     * TCP or MPTCP.
     */
    VIPOOL_PROTOCOL_TCP = 1,
    /**
     * UDP.
     */
    VIPOOL_PROTOCOL_UDP = 2,
    /**
     * UDP-Lite.
     */
    VIPOOL_PROTOCOL_UDPLITE = 3
};

/**
 * Reads an address of a socket from the kernel.
 *
 * Parameters:
 * - `context`: the context that the caller passed with the callback.
 * - `buffer`, `capacity`: receives the sockaddr. The capacity is enough for every sockaddr.
 *
 * Returns: the length of the sockaddr; 0 if there is none or it is not IPv4 or IPv6.
 */
typedef uint32_t (*vipool_get_address_fn)(void *context, void *buffer, uint32_t capacity);

/**
 * Reads the protocol or the flags of a socket from the kernel.
 *
 * Parameters:
 * - `context`: vipool_socket.context.
 *
 * Returns: vipool_protocol, or VIPOOL_SOCKET_... flags.
 */
typedef uint32_t (*vipool_get_number_fn)(void *context);

/**
 * vipool_socket.flags: an IPv6-only socket (IPV6_V6ONLY).
 */
enum { VIPOOL_SOCKET_V6ONLY = 1 };
#define VIPOOL_SOCKET_V6ONLY 1u

/**
 * vipool_socket.flags: the socket can receive the same datagrams as other sockets: SO_REUSEADDR,
 * SO_REUSEPORT or SO_BROADCAST is set.
 */
enum { VIPOOL_SOCKET_SHARES_PORT = 2 };
#define VIPOOL_SOCKET_SHARES_PORT 2u

/**
 * Properties of a socket. A property is a member, or the result of a callback. The library calls a
 * callback only if the outcome depends on the property, because each callback may make a system
 * call. A callback that is not NULL replaces the member.
 *
 * Unknown flags and protocols, from a member or a callback, cause VIPOOL_ERR_KIND.
 */
typedef struct vipool_socket {
    /**
     * sizeof(vipool_socket), set by the caller.
     */
    size_t size;
    /**
     * The local sockaddr of the socket in the kernel, which can differ from the address that the
     * program sees. For a socket that is not bound, pass the unspecified address with port 0. (On
     * Windows, getsockname fails with WSAEINVAL for such a socket.) NULL if the socket is not an
     * IPv4 or IPv6 socket.
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
     * Reserved: zero.
     */
    uint32_t reserved;
    /**
     * Returns `local`. May be NULL.
     */
    vipool_get_address_fn get_local;
    /**
     * Returns `protocol`. May be NULL.
     */
    vipool_get_number_fn get_protocol;
    /**
     * Returns `flags`. May be NULL.
     */
    vipool_get_number_fn get_flags;
    /**
     * Passed to the callbacks.
     */
    void *context;
} vipool_socket;

/**
 * Result of a vipool_listener_find_fn: no address has a listener.
 */
enum { VIPOOL_LISTENER_NONE = -1 };

/**
 * Result of a vipool_listener_find_fn: the kernel did not report the listeners. The library
 * refuses the socket call (VIPOOL_REASON_LISTENERS_UNKNOWN), because that call could reach a
 * service of the host in place of the session's own service.
 */
enum { VIPOOL_LISTENER_UNKNOWN = -2 };

/**
 * Finds the first of several addresses that has a socket: a listening TCP socket or a bound UDP
 * socket.
 *
 * A wildcard socket does not count. An IPv6 socket on the mapped form of an IPv4 address counts
 * for the IPv4 address. For a mapped address, only IPv6 sockets count. vipool_rewrite_connect()
 * and vipool_rewrite_send() call this function. vipool_listener_find() is an implementation of it.
 *
 * Parameters:
 * - `context`: vipool_rewriter_options.context.
 * - `addresses`, `count`: the addresses, at most 4.
 * - `protocol`: vipool_protocol.
 * - `source`: source address of the datagram that the program sends. A UDP socket that is
 *   connected to this address counts too. May be NULL.
 *
 * Returns: the index of the address, VIPOOL_LISTENER_NONE or VIPOOL_LISTENER_UNKNOWN.
 */
typedef int32_t (*vipool_listener_find_fn)(void *context,
                                           const struct vipool_sockaddr *addresses,
                                           size_t count,
                                           uint32_t protocol,
                                           const struct vipool_sockaddr *source);

/**
 * Finds a listener by a query to the kernel. An implementation of vipool_listener_find_fn.
 *
 * Linux: sock_diag. The call opens and closes a descriptor. Unlike other signal-safe functions, it
 * may change errno. Windows: GetExtendedTcpTable and GetExtendedUdpTable. Other systems:
 * VIPOOL_LISTENER_UNKNOWN.
 *
 * Parameters:
 * - `context`: ignored.
 * - `addresses`, `count`: the addresses. With more than 4 the result is VIPOOL_LISTENER_UNKNOWN.
 * - `protocol`: vipool_protocol.
 * - `source`: source address of the datagram. May be NULL.
 *
 * Returns: the index of the address, VIPOOL_LISTENER_NONE or VIPOOL_LISTENER_UNKNOWN.
 *
 * Threads: any; signal-safe.
 */
int32_t vipool_listener_find(void *context,
                             const struct vipool_sockaddr *addresses,
                             size_t count,
                             uint32_t protocol,
                             const struct vipool_sockaddr *source);

/* ================================================================================
 * 19. Hook: the rewriter
 */

/**
 * vipool_rewriter_options.flags: defer TCP binds to the wildcard address and port 0 until the
 * destination is known. Only for Windows. VIPOOL_DO_DEFER describes the reason, and the steps of
 * the hook.
 */
enum { VIPOOL_REWRITER_DEFER_WILDCARD = 1 };
#define VIPOOL_REWRITER_DEFER_WILDCARD 1u

/**
 * vipool_rewriter_options.flags: the hook can bind a datagram socket again (VIPOOL_DO_REBIND). If
 * the program binds an IPv6 datagram socket to :: and port 0, the socket stays on ::, so it
 * reaches IPv4 and IPv6 addresses of this host. The hook binds the socket again when its first
 * destination on another host is known. Only for Linux.
 */
enum { VIPOOL_REWRITER_REBIND_DATAGRAMS = 2 };
#define VIPOOL_REWRITER_REBIND_DATAGRAMS 2u

/**
 * Options of vipool_rewriter_new().
 */
typedef struct vipool_rewriter_options {
    /**
     * sizeof(vipool_rewriter_options), set by the caller.
     */
    size_t size;
    /**
     * The handle of the session to which the process belongs.
     */
    struct vipool_handle handle;
    /**
     * The rule that applies to the program: vipool_rule.id.
     */
    uint64_t rule;
    /**
     * Finds listeners. May be NULL. In this case, a connect to 127.0.0.1 goes to the host, unless
     * the port is in own_ports or the rule has VIPOOL_PROGRAM_CONNECT_OWN.
     */
    vipool_listener_find_fn find_listener;
    /**
     * Passed to find_listener.
     */
    void *context;
    /**
     * VIPOOL_REWRITER_...
     */
    uint32_t flags;
    /**
     * Reserved: zero.
     */
    uint32_t reserved;
} vipool_rewriter_options;

/**
 * Decides about the socket calls of one program in one session. A rewriter keeps no state for a
 * socket. Threads may share it. A hook does not free it, because another thread may still use it
 * in a call.
 */
typedef struct vipool_rewriter vipool_rewriter;

/**
 * Makes a rewriter.
 *
 * When vipool_reader_is_superseded() reports that the map is out of date, open a new reader and
 * make a new rewriter.
 *
 * Parameters:
 * - `reader`: the reader. The rewriter may outlive it.
 * - `options`: the handle and the rule.
 * - `out`: receives the rewriter. Free it with vipool_rewriter_free().
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_UNKNOWN_FIELD, VIPOOL_ERR_KIND,
 * VIPOOL_ERR_SESSION_ID, VIPOOL_ERR_HANDLE, VIPOOL_ERR_STALE (the lease is no longer held),
 * VIPOOL_ERR_NOT_FOUND (unknown rule).
 *
 * Threads: any.
 */
vipool_status vipool_rewriter_new(const struct vipool_reader *reader,
                                  const struct vipool_rewriter_options *options,
                                  struct vipool_rewriter **out);

/**
 * Frees a rewriter.
 *
 * Parameters:
 * - `rewriter`: the rewriter. NULL is ignored.
 *
 * Threads: any; the last call with the rewriter.
 */
void vipool_rewriter_free(struct vipool_rewriter *rewriter);

/* ================================================================================
 * 20. Hook: rewrite calls
 */

/**
 * Decides about bind.
 *
 * A bind to an address that is neither IPv4 nor IPv6 passes. On an IPv4 socket, AF_UNSPEC with
 * 0.0.0.0 counts as IPv4.
 *
 * Parameters:
 * - `rewriter`: the rewriter.
 * - `socket`: the socket.
 * - `address`, `length`: the address of the program.
 * - `out`: receives the outcome.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_UNKNOWN_FIELD,
 * VIPOOL_ERR_KIND. After an error, the hook makes the call as the program made it.
 *
 * Threads: any; signal-safe.
 */
vipool_status vipool_rewrite_bind(const struct vipool_rewriter *rewriter,
                                  const struct vipool_socket *socket,
                                  const void *address,
                                  uint32_t length,
                                  struct vipool_outcome *out);

/**
 * Decides about listen.
 *
 * On an unbound socket, listen would bind the socket to the wildcard address. With
 * VIPOOL_REWRITTEN, bind the socket to `out->address` first. If this bind fails with
 * EADDRNOTAVAIL, vipool_rewrite_is_retry_allowed() decides whether to call listen or to fail with
 * this error. After any other error of the bind, call listen.
 *
 * On Windows, call this function only for sockets whose bind was deferred (VIPOOL_DO_DEFER). For
 * any other unbound socket, listen fails with WSAEINVAL, as without a hook.
 *
 * Parameters:
 * - `rewriter`: the rewriter.
 * - `socket`: the socket.
 * - `out`: receives the outcome.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_UNKNOWN_FIELD,
 * VIPOOL_ERR_KIND. After an error, the hook makes the call as the program made it.
 *
 * Threads: any; signal-safe.
 */
vipool_status vipool_rewrite_listen(const struct vipool_rewriter *rewriter,
                                    const struct vipool_socket *socket,
                                    struct vipool_outcome *out);

/**
 * Decides about connect, WSAConnect and ConnectEx, for TCP and UDP.
 *
 * Parameters:
 * - `rewriter`: the rewriter.
 * - `socket`: the socket.
 * - `address`, `length`: the destination.
 * - `out`: receives the outcome.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_UNKNOWN_FIELD,
 * VIPOOL_ERR_KIND. After an error, the hook makes the call as the program made it.
 *
 * Threads: any; signal-safe.
 */
vipool_status vipool_rewrite_connect(const struct vipool_rewriter *rewriter,
                                     const struct vipool_socket *socket,
                                     const void *address,
                                     uint32_t length,
                                     struct vipool_outcome *out);

/**
 * Decides about sendto, sendmsg, WSASendTo and WSASendMsg with a destination.
 *
 * A call without a destination needs no decision.
 *
 * Parameters:
 * - `rewriter`: the rewriter.
 * - `socket`: the socket.
 * - `address`, `length`: the destination.
 * - `fast_open`: 1 if the call has the flag MSG_FASTOPEN, which opens a stream. Otherwise 0.
 * - `out`: receives the outcome.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_UNKNOWN_FIELD,
 * VIPOOL_ERR_KIND. After an error, the hook makes the call as the program made it.
 *
 * Threads: any; signal-safe.
 */
vipool_status vipool_rewrite_send(const struct vipool_rewriter *rewriter,
                                  const struct vipool_socket *socket,
                                  const void *address,
                                  uint32_t length,
                                  uint32_t fast_open,
                                  struct vipool_outcome *out);

/**
 * Decides about an address that the program receives from the kernel.
 *
 * Use this function for getsockname, getpeername, accept, accept4, WSAAccept, AcceptEx, and for
 * the source of recvfrom, recvmsg, recvmmsg, WSARecvFrom and WSARecvMsg.
 *
 * Parameters:
 * - `rewriter`: the rewriter.
 * - `address`, `length`: the address of one end of a socket, as the kernel reports it.
 * - `get_other_end`, `context`: the callback that returns the address of the other end. For a
 *   received datagram, this is the local address of the socket. The library calls the callback
 *   only if the outcome depends on the other end. May be NULL.
 * - `out`: receives the outcome. With VIPOOL_REWRITTEN the program gets `out->address`.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_UNKNOWN_FIELD. After an error, the
 * hook does not change the address.
 *
 * Threads: any; signal-safe.
 */
vipool_status vipool_rewrite_visible_address(const struct vipool_rewriter *rewriter,
                                             const void *address,
                                             uint32_t length,
                                             vipool_get_address_fn get_other_end,
                                             void *context,
                                             struct vipool_outcome *out);

/**
 * Decides about the packet information of one datagram to send: sendmsg and WSASendMsg.
 *
 * Parameters:
 * - `rewriter`: the rewriter.
 * - `socket`: the socket.
 * - `source`: the source address that the program requests.
 * - `interface_index`: the interface that the program requests; 0 for none.
 * - `address`, `length`: the destination of the datagram, already rewritten. If the call
 *   contains no destination, this is the peer of the socket. NULL if it is not known.
 * - `out`: receives the outcome. With VIPOOL_REWRITTEN use the source `out->address`, which has no
 *   port, and the interface `out->interface_index`.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_UNKNOWN_FIELD,
 * VIPOOL_ERR_KIND, VIPOOL_ERR_ADDRESS. After an error, the hook does not change the packet
 * information.
 *
 * Threads: any; signal-safe.
 */
vipool_status vipool_rewrite_send_packet_info(const struct vipool_rewriter *rewriter,
                                              const struct vipool_socket *socket,
                                              const struct vipool_ip *source,
                                              uint32_t interface_index,
                                              const void *address,
                                              uint32_t length,
                                              struct vipool_outcome *out);

/**
 * Decides about the packet information of a received datagram: recvmsg, recvmmsg and WSARecvMsg.
 *
 * Parameters:
 * - `rewriter`: the rewriter.
 * - `address`: the address in the packet information.
 * - `interface_index`: the interface in the packet information.
 * - `get_source`, `context`: the callback that returns the source of the datagram as the kernel
 *   reported it. The library calls the callback only if the outcome depends on the source. May be
 *   NULL.
 * - `out`: receives the outcome. With VIPOOL_REWRITTEN the program gets `out->address` and
 *   `out->interface_index`.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_UNKNOWN_FIELD, VIPOOL_ERR_ADDRESS.
 * After an error, the hook does not change the packet information.
 *
 * Threads: any; signal-safe.
 */
vipool_status vipool_rewrite_visible_packet_info(const struct vipool_rewriter *rewriter,
                                                 const struct vipool_ip *address,
                                                 uint32_t interface_index,
                                                 vipool_get_address_fn get_source,
                                                 void *context,
                                                 struct vipool_outcome *out);

/**
 * Decides about an address without a port in a reverse lookup (getnameinfo, gethostbyaddr).
 *
 * The hook looks up the address that the program sees: 127.0.0.1 or ::1 instead of the session's
 * virtual loopback.
 *
 * Parameters:
 * - `rewriter`: the rewriter.
 * - `address`: the address that the program looks up.
 * - `out`: receives the outcome. With VIPOOL_REWRITTEN look up `out->address`, which has port 0.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_ADDRESS. After an error, the hook
 * makes the call as the program made it.
 *
 * Threads: any; signal-safe.
 */
vipool_status vipool_rewrite_visible_ip(const struct vipool_rewriter *rewriter,
                                        const struct vipool_ip *address,
                                        struct vipool_outcome *out);

/**
 * Decides about the interface of a multicast datagram.
 *
 * Call this function only if the program has not set IP_MULTICAST_IF.
 *
 * Parameters:
 * - `rewriter`: the rewriter.
 * - `address`: the multicast destination.
 * - `out`: receives the outcome. With VIPOOL_REWRITTEN set IP_MULTICAST_IF to `out->address`.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_ADDRESS. After an error, the hook
 * makes the call as the program made it.
 *
 * Threads: any; signal-safe.
 */
vipool_status vipool_rewrite_multicast_interface(const struct vipool_rewriter *rewriter,
                                                 const struct vipool_ip *address,
                                                 struct vipool_outcome *out);

/**
 * The addresses that a lookup of the host's name returns to the program.
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
     * With VIPOOL_PASSED: vipool_reason. Otherwise 0.
     */
    uint32_t reason;
    /**
     * With VIPOOL_REWRITTEN: replaces all IPv4 addresses that the lookup returned. If this member
     * is no address, the hook removes the IPv4 addresses.
     */
    struct vipool_ip v4;
    /**
     * With VIPOOL_REWRITTEN: replaces all IPv6 addresses that the lookup returned. If this member
     * is no address, the hook removes the IPv6 addresses.
     */
    struct vipool_ip v6;
} vipool_host_addresses;

/**
 * Decides which addresses a lookup of the host's own name returns (getaddrinfo, gethostbyname).
 *
 * The result is the virtual IP of the session. If the rule of the program has
 * VIPOOL_FEATURE_CLIENT_IP and `client` is an address, the result is only `client`.
 *
 * Parameters:
 * - `rewriter`: the rewriter.
 * - `client`: address of the client (vipool_client_get()). May be NULL or no address.
 * - `out`: receives the addresses.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_ADDRESS. After an error, the hook
 * makes the call as the program made it.
 *
 * Threads: any; signal-safe.
 */
vipool_status vipool_rewrite_host_addresses(const struct vipool_rewriter *rewriter,
                                            const struct vipool_ip *client,
                                            struct vipool_host_addresses *out);

/**
 * Returns whether a reverse lookup of an address returns the host's own name.
 *
 * This is true for the session's virtual IP. Reverse lookups are getnameinfo and gethostbyaddr.
 *
 * Parameters:
 * - `rewriter`: the rewriter.
 * - `address`: the address.
 * - `out_own`: receives 1 if the lookup returns the host's name, otherwise 0.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_ADDRESS.
 *
 * Threads: any; signal-safe.
 */
vipool_status vipool_rewrite_is_own_address(const struct vipool_rewriter *rewriter,
                                            const struct vipool_ip *address,
                                            uint32_t *out_own);

/**
 * Returns whether lists of interface addresses omit an address (getifaddrs, GetAdaptersAddresses).
 *
 * Parameters:
 * - `rewriter`: the rewriter.
 * - `address`: an address of an interface.
 * - `out_hidden`: receives 1 if the list for the program omits the address, otherwise 0.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_ADDRESS.
 *
 * Threads: any; signal-safe.
 */
vipool_status vipool_rewrite_is_hidden(const struct vipool_rewriter *rewriter,
                                       const struct vipool_ip *address,
                                       uint32_t *out_hidden);

/**
 * Returns whether the hook may make the call as the program made it, after a bind failed.
 *
 * Call this function if a bind to an address of a vipool_outcome failed with EADDRNOTAVAIL or
 * WSAEADDRNOTAVAIL. This error means that the address is on no interface.
 *
 * Parameters:
 * - `rewriter`: the rewriter.
 * - `address`: vipool_outcome.address for bind and listen, vipool_outcome.bind for connect and
 *   send.
 * - `out_allowed`: receives 1 if the hook makes the call as the program made it, 0 if the call
 *   fails with the error of the bind.
 *
 * Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_ADDRESS.
 *
 * Threads: any; signal-safe.
 */
vipool_status vipool_rewrite_is_retry_allowed(const struct vipool_rewriter *rewriter,
                                              const struct vipool_ip *address,
                                              uint32_t *out_allowed);

#ifdef __cplusplus
}
#endif

#endif  /* VIPOOL_H */
