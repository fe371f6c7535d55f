/* Tests the rows of the socket matrix for lookups of names and interfaces. See matrix.h. */
#include "matrix.h"

#include <ifaddrs.h>
#include <netdb.h>

/* Returns the addresses that getaddrinfo finds for a name, in its order and with port 80, or the
 * error message. With AI_CANONNAME, the canonical name follows the addresses. */
static const char *resolved_addresses(const char *node, int family, int flags) {
    static char text[512];
    struct addrinfo hints = {.ai_family = family, .ai_socktype = SOCK_STREAM, .ai_flags = flags};
    struct addrinfo *list;
    text[0] = 0;
    int error = getaddrinfo(node, "80", &hints, &list);
    if (error) return gai_strerror(error);
    for (struct addrinfo *entry = list; entry; entry = entry->ai_next) {
        strcat(text, text[0] ? " " : "");
        strcat(text, format_address((void *)entry->ai_addr));
    }
    if (flags & AI_CANONNAME) {
        strcat(text, " ");
        strcat(text, list->ai_canonname ? list->ai_canonname : "?");
    }
    freeaddrinfo(list);
    return text;
}

/* Without a node name and with AI_PASSIVE, getaddrinfo returns the wildcard address. */
static void lookup_without_name_is_wildcard(void) {
    expect("IPv4", resolved_addresses(NULL, AF_INET, AI_PASSIVE), "0.0.0.0:80");
    expect("IPv6", resolved_addresses(NULL, AF_INET6, AI_PASSIVE), "[::]:80");
}

/* In a listed program, the host's own name resolves to V for IPv4 and to V6 for IPv6, and to no
 * other address. */
static void host_name_resolves_to_v(void) {
    char address_and_name[128];
    snprintf(address_and_name, sizeof address_and_name, "%s:80 %s", V, HOST_NAME);
    expect_listed("IPv4", resolved_addresses(HOST_NAME, AF_INET, AI_CANONNAME), address_and_name,
                  HOST_ADDRESS ":80 " HOST_NAME);
    expect_listed("IPv6", resolved_addresses(HOST_NAME, AF_INET6, 0), format_host_port(V6, 80),
                  "[" HOST_ADDRESS6 "]:80");
    struct hostent *entry = gethostbyname(HOST_NAME), storage, *result_entry;
    char buffer[1024], text[64];
    int error;
    inet_ntop(AF_INET, entry->h_addr_list[0], text, sizeof text);
    expect_listed("gethostbyname", text, V, HOST_ADDRESS);
    expect("number of addresses", entry->h_addr_list[1] ? "more" : "one", "one");
    entry = gethostbyname2(HOST_NAME, AF_INET6);
    inet_ntop(AF_INET6, entry->h_addr_list[0], text, sizeof text);
    expect_listed("gethostbyname2", text, V6, HOST_ADDRESS6);
    gethostbyname_r(HOST_NAME, &storage, buffer, sizeof buffer, &result_entry, &error);
    inet_ntop(AF_INET, result_entry->h_addr_list[0], text, sizeof text);
    expect_listed("gethostbyname_r", text, V, HOST_ADDRESS);
    gethostbyname2_r(HOST_NAME, AF_INET6, &storage, buffer, sizeof buffer, &result_entry, &error);
    inet_ntop(AF_INET6, result_entry->h_addr_list[0], text, sizeof text);
    expect_listed("gethostbyname2_r", text, V6, HOST_ADDRESS6);
    if (!is_listed) return;
    /* The argument is in the buffer that receives the result. */
    entry = gethostbyname(gethostbyname(HOST_NAME)->h_name);
    inet_ntop(AF_INET, entry->h_addr_list[0], text, sizeof text);
    expect_unprinted("gethostbyname of an earlier result", text, V);
}

/* localhost and numeric addresses have the same lookup results as without the hook. */
static void localhost_lookup_passes(void) {
    /* The addresses of localhost depend on /etc/hosts, so this row only prints them. The test
     * `matrix` compares the output of a listed program with the output without the hook. */
    printf("IPv4 %s\n", resolved_addresses("localhost", AF_INET, 0));
    printf("IPv6 %s\n", resolved_addresses("localhost", AF_INET6, 0));
    expect("numeric", resolved_addresses("10.99.5.1", AF_INET, 0), "10.99.5.1:80");
}

/* Returns the name of an address, or the error message. If getnameinfo returns a service other than
 * 80, returns the service. */
static const char *resolved_name(const char *host, int flags) {
    static char name[256];
    char service[32];
    struct address address = make_address(host, 80);
    int error = getnameinfo((void *)&address.bytes, address.length, name, sizeof name, service,
                            sizeof service, flags | NI_NUMERICSERV);
    if (error) return gai_strerror(error);
    return strcmp(service, "80") ? service : name;
}

/* The reverse lookup of V returns the host's name, and the reverse lookup of L returns
 * localhost. */
static void reverse_lookup_returns_host_name_and_localhost(void) {
    expect("127.0.0.1", resolved_name(LOOPBACK, 0), "localhost");
    expect("host address", resolved_name(HOST_ADDRESS, 0), HOST_NAME);
    expect("getnameinfo without an address",
           errno_text(getnameinfo(NULL, 0, NULL, 0, NULL, 0, 0) == EAI_FAMILY ? 0 : -1), "ok");
    if (!is_listed) return;
    expect_unprinted("V", resolved_name(V, 0), HOST_NAME);
    expect_unprinted("V numeric", resolved_name(V, NI_NUMERICHOST), V);
    expect_unprinted("L", resolved_name(L, 0), "localhost");
    expect_unprinted("L numeric", resolved_name(L, NI_NUMERICHOST), LOOPBACK);
    struct in_addr v_bytes, l_bytes;
    char buffer[1024], text[64];
    struct hostent *entry, storage, *result_entry;
    int error;
    inet_pton(AF_INET, V, &v_bytes);
    inet_pton(AF_INET, L, &l_bytes);
    entry = gethostbyaddr(&v_bytes, sizeof v_bytes, AF_INET);
    expect_unprinted("gethostbyaddr V", entry->h_name, HOST_NAME);
    inet_ntop(AF_INET, entry->h_addr_list[0], text, sizeof text);
    expect_unprinted("address", text, V);
    entry = gethostbyaddr(&l_bytes, sizeof l_bytes, AF_INET);
    expect_unprinted("gethostbyaddr L", entry->h_name, "localhost");
    gethostbyaddr_r(&l_bytes, sizeof l_bytes, AF_INET, &storage, buffer, sizeof buffer,
                    &result_entry, &error);
    expect_unprinted("gethostbyaddr_r L", result_entry->h_name, "localhost");
    gethostbyaddr_r(&v_bytes, sizeof v_bytes, AF_INET, &storage, buffer, sizeof buffer,
                    &result_entry, &error);
    expect_unprinted("gethostbyaddr_r V", result_entry->h_name, HOST_NAME);
    int is_in_buffer = result_entry->h_name >= buffer &&
                       result_entry->h_name + sizeof HOST_NAME <= buffer + sizeof buffer;
    expect_unprinted("name in the buffer", is_in_buffer ? "yes" : "no", "yes");
    /* With a growing buffer, the lookup fails with ERANGE until the buffer has room for the whole
     * result. */
    int status = ERANGE;
    size_t size = 0;
    for (; status == ERANGE && size < sizeof buffer; size++) {
        memset(buffer, 0x55, sizeof buffer);
        status = gethostbyaddr_r(&v_bytes, sizeof v_bytes, AF_INET, &storage, buffer, size,
                                 &result_entry, &error);
        int is_untouched = buffer[size] == 0x55;
        expect_unprinted("byte after the buffer", is_untouched ? "same" : "changed", "same");
    }
    expect_unprinted("status", status ? "error" : "ok", "ok");
    expect_unprinted("small buffers", size > sizeof HOST_NAME ? "ERANGE" : "ok", "ERANGE");
    expect_unprinted("name", result_entry->h_name, HOST_NAME);
    /* The program may write to the result. The next result is correct. */
    entry = gethostbyaddr(&v_bytes, sizeof v_bytes, AF_INET);
    memset(entry->h_name, 'x', strlen(entry->h_name));
    expect_unprinted("earlier result", result_entry->h_name, HOST_NAME);
    entry = gethostbyaddr(&v_bytes, sizeof v_bytes, AF_INET);
    expect_unprinted("gethostbyaddr V again", entry->h_name, HOST_NAME);
}

/* getifaddrs hides the addresses of other sessions if the policy requires it. */
static void getifaddrs_hides_other_sessions(void) {
    struct ifaddrs *list;
    int v_count = 0, other_count = 0, host_count = 0, loopback_count = 0;
    expect("getifaddrs", errno_text(getifaddrs(&list)), "ok");
    for (struct ifaddrs *entry = list; entry; entry = entry->ifa_next) {
        if (!entry->ifa_addr || entry->ifa_addr->sa_family != AF_INET) continue;
        const char *text = format_address((void *)entry->ifa_addr);
        v_count += strcmp(text, format_host_port(V, 0)) == 0;
        other_count += strcmp(text, OTHER_SESSION_V ":0") == 0;
        host_count += strcmp(text, HOST_ADDRESS ":0") == 0;
        loopback_count += strcmp(text, LOOPBACK ":0") == 0;
    }
    freeifaddrs(list);
    expect("own address", v_count == 1 ? "yes" : "no", "yes");
    expect("host address", host_count == 1 ? "yes" : "no", "yes");
    expect("loopback", loopback_count == 1 ? "yes" : "no", "yes");
    expect_listed("other sessions' addresses", other_count ? "shown" : "hidden", "hidden", "shown");
}

const struct row lookup_rows[] = {
    {"39", lookup_without_name_is_wildcard}, {"40", host_name_resolves_to_v},
    {"41", localhost_lookup_passes},         {"42", reverse_lookup_returns_host_name_and_localhost},
    {"43", getifaddrs_hides_other_sessions}, {NULL, NULL},
};
