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
 *  - Texts are UTF-8 with a length in bytes; they need no NUL. Paths have variants that take
 *    UTF-16 with a length in units, as Windows has them.
 *  - Addresses are vipool_ip, or the bytes of a sockaddr with their length.
 *  - Kinds and flags enter as uint32_t and are checked.
 *  - Times are ticks: seconds since the machine was started (vipool_now()).
 *  - Callbacks are called on the thread that made the call, before it returns, and must not
 *    throw or longjmp.
 *  - "In a signal handler" means: takes no lock, allocates nothing, keeps errno, leaves the last
 *    error text alone; may also be called in the child of a fork or vfork.
 *
 * Two kinds of program use this header. An agent opens and closes sessions (vipool_map); a hook
 * inside an application finds the addresses of its process and rewrites socket calls
 * (vipool_reader). examples/c and examples/cpp show both.
 */

#ifndef VIPOOL_H
#define VIPOOL_H

/* Made by `cargo xtask header` of src/capi: change it there. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 The most leases of one session.
 */
#define MAX_LEASES 4

/*
 The most slots of one pool (24 bits in the index of the map file).
 */
#define MAX_SLOTS ((1 << 24) - 2)

/*
 The most bytes that a sockaddr given back has: sizeof(struct sockaddr_in6).
 */
#define VIPOOL_SOCKADDR_MAX LENGTH_V6

/*
 The most leases of one session.
 */
#define VIPOOL_MAX_LEASES 4

/*
 Major part of the version of this header: it changes when a program must be changed.
 */
#define VIPOOL_VERSION_MAJOR 0

/*
 Minor part of the version of this header: it changes when something is added.
 */
#define VIPOOL_VERSION_MINOR 1

/*
 Patch part of the version of this header: it changes when only the insides changed.
 */
#define VIPOOL_VERSION_PATCH 0

/*
 The version of this header as one number: major * 1000000 + minor * 1000 + patch.
 */
#define VIPOOL_VERSION_NUMBER 1000

/*
 What a call came to: VIPOOL_OK or one of these. The numbers never change; -1 to -19 are
 mistakes of the caller's, the others come from what it was called with.

 vipool_status_text() has a sentence for each, vipool_last_error() the details of the last one.
 */
enum vipool_status
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /*
     Done.
     */
    VIPOOL_OK = 0,
    /*
     A pointer that must not be NULL is.
     */
    VIPOOL_ERR_NULL = -1,
    /*
     The size at the start of a struct is none that any version of this struct ever had.
     */
    VIPOOL_ERR_STRUCT_SIZE = -2,
    /*
     The caller's struct is newer than the library and uses a field that this one does not know.
     */
    VIPOOL_ERR_UNKNOWN_FIELD = -3,
    /*
     A text is not UTF-8.
     */
    VIPOOL_ERR_UTF8 = -4,
    /*
     A text is not UTF-16.
     */
    VIPOOL_ERR_UTF16 = -5,
    /*
     A number that stands for a kind, a feature or a flag is none of those defined.
     */
    VIPOOL_ERR_KIND = -6,
    /*
     Not an address: unknown family, wrong length, or text that does not say one.
     */
    VIPOOL_ERR_ADDRESS = -7,
    /*
     The caller's buffer is too small; the length that is needed was written.
     */
    VIPOOL_ERR_BUFFER = -8,
    /*
     There is no such element: past the end, or not known by this name.
     */
    VIPOOL_ERR_NOT_FOUND = -9,
    /*
     A mistake inside the library. The call did not finish; please report the last error text.
     */
    VIPOOL_ERR_PANIC = -10,
    /*
     Not a range: neither an address, a CIDR prefix nor first-last.
     */
    VIPOOL_ERR_RANGE_SYNTAX = -20,
    /*
     A CIDR prefix with bits set behind the prefix length.
     */
    VIPOOL_ERR_RANGE_HOST_BITS = -21,
    /*
     First address above last, or two families.
     */
    VIPOOL_ERR_RANGE_ORDER = -22,
    /*
     IPv4 and IPv6 in one pool.
     */
    VIPOOL_ERR_POOL_MIXED = -23,
    /*
     Two ranges of a pool share addresses.
     */
    VIPOOL_ERR_POOL_OVERLAP = -24,
    /*
     A loopback pool reaches outside 127.0.0.2-127.255.255.254.
     */
    VIPOOL_ERR_POOL_NOT_LOOPBACK = -25,
    /*
     Not a session id: zero, a value above 2^56-1, or a text that says none.
     */
    VIPOOL_ERR_SESSION_ID = -26,
    /*
     The audit id 4294967295: the process has no session.
     */
    VIPOOL_ERR_SESSION_UNSET = -27,
    /*
     Not the text of a handle.
     */
    VIPOOL_ERR_HANDLE = -28,
    /*
     Every address is in use, reserved or drained.
     */
    VIPOOL_ERR_EXHAUSTED = -40,
    /*
     Every free address is cooling down; the last error text says until when.
     */
    VIPOOL_ERR_COOLING = -41,
    /*
     Every free address may still have sockets on it: vipool_map_reap() looks.
     */
    VIPOOL_ERR_LINGERING = -42,
    /*
     The pool is being drained.
     */
    VIPOOL_ERR_DRAINING = -43,
    /*
     No pool has this name.
     */
    VIPOOL_ERR_UNKNOWN_POOL = -44,
    /*
     The requested address is in no pool of this server.
     */
    VIPOOL_ERR_EXCLUDED = -45,
    /*
     The requested address is leased to another session.
     */
    VIPOOL_ERR_TAKEN = -46,
    /*
     The requested address is cooling down.
     */
    VIPOOL_ERR_ADDRESS_COOLING = -47,
    /*
     The requested address may still have sockets of its last session on it.
     */
    VIPOOL_ERR_ADDRESS_LINGERING = -48,
    /*
     The requested address is reserved for another user.
     */
    VIPOOL_ERR_RESERVED = -49,
    /*
     The requested address is drained.
     */
    VIPOOL_ERR_DRAINED = -50,
    /*
     The user has as many sessions as one may have.
     */
    VIPOOL_ERR_QUOTA = -51,
    /*
     The server has as many sessions as it may have.
     */
    VIPOOL_ERR_TOO_MANY_SESSIONS = -52,
    /*
     The sessions of the operating system have not been restored yet.
     */
    VIPOOL_ERR_NOT_READY = -53,
    /*
     The session is not open.
     */
    VIPOOL_ERR_NOT_OPEN = -60,
    /*
     The lease was closed before, or belongs to a later session by now. Nothing was freed.
     */
    VIPOOL_ERR_STALE = -61,
    /*
     The handle is of another boot, network namespace or map. Nothing was freed.
     */
    VIPOOL_ERR_FOREIGN = -62,
    /*
     The operating system said no; the last error text names the file and its answer.
     */
    VIPOOL_ERR_IO = -70,
    /*
     There is no map in this directory.
     */
    VIPOOL_ERR_MISSING = -71,
    /*
     Not a map file, damaged, or of a version this one does not know.
     */
    VIPOOL_ERR_DAMAGED = -72,
    /*
     The map was made before the last start of the machine, or in another network namespace.
     */
    VIPOOL_ERR_OTHER_BOOT = -73,
    /*
     The map file is planted or unsafe: a symlink, another owner, writable by others.
     */
    VIPOOL_ERR_UNTRUSTED = -74,
    /*
     Another writer held the map for too long.
     */
    VIPOOL_ERR_BUSY = -75,
    /*
     Another writer holds the map for itself.
     */
    VIPOOL_ERR_BUSY_EXCLUSIVE = -76,
    /*
     The plan cannot be made into a map.
     */
    VIPOOL_ERR_PLAN = -77,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum vipool_status vipool_status;
#else
typedef int32_t vipool_status;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/*
 Where a session id comes from; it enters as uint32_t.
 */
enum vipool_session_kind
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /*
     A Windows terminal services session id (ProcessIdToSessionId).
     */
    VIPOOL_SESSION_WINDOWS = 1,
    /*
     A Linux audit session id (/proc/self/sessionid).
     */
    VIPOOL_SESSION_AUDIT = 2,
    /*
     A logind session (XDG_SESSION_ID); see vipool_session_logind().
     */
    VIPOOL_SESSION_LOGIND = 3,
    /*
     Chosen by the program that embeds this library.
     */
    VIPOOL_SESSION_EMBEDDER = 4,
    /*
     Chosen by an administrator on the command line.
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

/*
 An IP address, or none. Zeroed memory is none. Plain data: copy it as you like.
 */
typedef struct {
    /*
     0 none, 4 IPv4, 6 IPv6 (not AF_INET: that differs between systems).
     */
    uint32_t family;
    /*
     The address in network order; IPv4 in the first four bytes, the others zero.
     */
    uint8_t bytes[16];
} vipool_ip;

/*
 Addresses from the first to the last, both included, of one family. Plain data.
 */
typedef struct {
    /*
     The lowest address.
     */
    vipool_ip first;
    /*
     The highest address.
     */
    vipool_ip last;
} vipool_range;

/*
 A session id: 64 bits, its kind in the upper 8, its value in the lower 56. Zero is no session.
 */
typedef uint64_t vipool_session;

/*
 What a program is told of its lease instead of the bare session id: enough to find it, and to
 notice that it is no longer the same one. Plain data; its layout never changes.
 */
typedef struct {
    /*
     The session the address was leased to.
     */
    vipool_session session;
    /*
     The boot and network namespace the map belongs to, hashed.
     */
    uint64_t boot;
    /*
     Slot within the pool.
     */
    uint32_t slot;
    /*
     How often the slot had been leased, this lease included (wraps).
     */
    uint32_t generation;
    /*
     Number of the pool in the map, from 0.
     */
    uint32_t pool;
    /*
     Zero.
     */
    uint32_t reserved;
} vipool_handle;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/*
 Reads an address from text, such as "10.0.5.7" or "2001:db8::7".

 `text`: `length` bytes of UTF-8. Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_UTF8, VIPOOL_ERR_ADDRESS.
 May be called from any thread.
 */
vipool_status vipool_ip_parse(const char *text, size_t length, vipool_ip *out);

/*
 Writes an address as text with a NUL behind it; 46 bytes are always enough. None is empty.

 `out_length` may be NULL; it is told the length without the NUL, also with VIPOOL_ERR_BUFFER.
 Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_ADDRESS (unknown family), VIPOOL_ERR_BUFFER.
 May be called from any thread.
 */
vipool_status vipool_ip_format(const vipool_ip *ip,
                               char *buffer,
                               size_t capacity,
                               size_t *out_length);

/*
 Takes the address and port out of a sockaddr_in or sockaddr_in6.

 `sockaddr`: `length` bytes as the system's socket calls have them, aligned or not. `out_port`
 is in host order and may be NULL.
 Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_ADDRESS (another family, or too short).
 May be called from any thread.
 */
vipool_status vipool_ip_from_sockaddr(const void *sockaddr,
                                      uint32_t length,
                                      vipool_ip *out,
                                      uint16_t *out_port);

/*
 Makes a sockaddr_in or sockaddr_in6 of an address and a port in host order.

 `buffer`: `capacity` bytes; VIPOOL_SOCKADDR_MAX are always enough. `out_length` is told how
 many it takes, also with VIPOOL_ERR_BUFFER.
 Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_ADDRESS, VIPOOL_ERR_BUFFER.
 May be called from any thread.
 */
vipool_status vipool_ip_to_sockaddr(const vipool_ip *ip,
                                    uint16_t port,
                                    void *buffer,
                                    uint32_t capacity,
                                    uint32_t *out_length);

/*
 Reads a range from text: a CIDR prefix ("10.0.5.0/24"), first-last ("10.0.5.10-10.0.5.99") or
 one address.

 Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_UTF8, VIPOOL_ERR_RANGE_SYNTAX, VIPOOL_ERR_RANGE_HOST_BITS,
 VIPOOL_ERR_RANGE_ORDER. May be called from any thread.
 */
vipool_status vipool_range_parse(const char *text, size_t length, vipool_range *out);

/*
 The details of the last call of this thread that failed: what is wrong, where, and what to do,
 in English, NUL-terminated, at most 1023 bytes of UTF-8. Empty before the first failure; kept
 until the next one.

 The text belongs to the library and is valid until the next call of this thread. Functions
 that may be called in a signal handler leave it alone.

 May be called from any thread.
 */
const char *vipool_last_error(void);

/*
 Makes a session id of a kind (vipool_session_kind) and a value from 0 to 2^56-1.

 Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_KIND, VIPOOL_ERR_SESSION_ID, VIPOOL_ERR_SESSION_UNSET.
 May be called from any thread.
 */
vipool_status vipool_session_new(uint32_t kind, uint64_t value, vipool_session *out);

/*
 The id of a logind session by its name, `length` bytes of UTF-8. Numeric names keep their
 number; others ("c1") are hashed within the kind.

 Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_UTF8, VIPOOL_ERR_SESSION_ID.
 May be called from any thread.
 */
vipool_status vipool_session_logind(const char *name, size_t length, vipool_session *out);

/*
 Reads a session id from text: "7" (command line) or kind and value ("audit:3", "logind:c1").

 Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_UTF8, VIPOOL_ERR_KIND, VIPOOL_ERR_SESSION_ID,
 VIPOOL_ERR_SESSION_UNSET. May be called from any thread.
 */
vipool_status vipool_session_parse(const char *text, size_t length, vipool_session *out);

/*
 Writes a session id as vipool_session_parse() reads it, with a NUL behind it; 32 bytes are
 always enough.

 `out_length` may be NULL; it is told the length without the NUL, also with VIPOOL_ERR_BUFFER.
 Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_SESSION_ID, VIPOOL_ERR_BUFFER.
 May be called from any thread.
 */
vipool_status vipool_session_format(vipool_session session_id,
                                    char *buffer,
                                    size_t capacity,
                                    size_t *out_length);

/*
 Writes a handle as text for the environment of a program, with a NUL behind it; 72 bytes are
 always enough.

 `out_length` may be NULL; it is told the length without the NUL, also with VIPOOL_ERR_BUFFER.
 Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_SESSION_ID, VIPOOL_ERR_HANDLE, VIPOOL_ERR_BUFFER.
 May be called from any thread.
 */
vipool_status vipool_handle_format(const vipool_handle *handle,
                                   char *buffer,
                                   size_t capacity,
                                   size_t *out_length);

/*
 Reads what vipool_handle_format() wrote. Takes no lock and allocates nothing; leaves the last
 error text alone.

 Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_HANDLE.
 May be called from any thread and in a signal handler.
 */
vipool_status vipool_handle_parse(const char *text, size_t length, vipool_handle *out);

/*
 The name of a status, such as "VIPOOL_ERR_BUSY"; "unknown status" for other numbers. Static:
 nothing to free.

 May be called from any thread and in a signal handler.
 */
const char *vipool_status_name(int32_t status);

/*
 What a status means, in an English sentence; "unknown status" for other numbers. Static:
 nothing to free. For the details of a failure see vipool_last_error().

 May be called from any thread and in a signal handler.
 */
const char *vipool_status_text(int32_t status);

/*
 The version of the library that is loaded, as one number: major * 1000000 + minor * 1000 +
 patch. Compare it with VIPOOL_VERSION_NUMBER to find out whether header and library belong
 together.

 May be called from any thread and in a signal handler.
 */
uint32_t vipool_version_number(void);

/*
 The version of the library that is loaded as text, such as "0.1.0". Static: nothing to free.

 May be called from any thread and in a signal handler.
 */
const char *vipool_version(void);

/*
 The text for a user when no address is left, word for word. Static: nothing to free.

 May be called from any thread and in a signal handler.
 */
const char *vipool_exhausted_message(void);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* VIPOOL_H */
