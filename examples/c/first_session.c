/* A minimal agent and hook in one program. The agent creates a map and opens a session. The hook
 * acts as if it were loaded into /usr/bin/redis-server: it finds the rule of this program and
 * rewrites a bind.
 *
 *     cc -std=c99 first_session.c $(pkg-config --cflags --libs vipool) -o first_session
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <vipool.h>

/* Prints the details of an error and exits. Does nothing if `status` is VIPOOL_OK. */
static void check(vipool_status status, const char *operation)
{
    if (status != VIPOOL_OK) {
        fprintf(stderr, "%s: %s: %s\n", operation, vipool_status_get_name(status), vipool_last_error());
        exit(1);
    }
}

static void print_ip(const char *name, const vipool_ip *ip)
{
    char text[46];
    check(vipool_ip_format(ip, text, sizeof text, NULL), "vipool_ip_format");
    printf("%-20s %s\n", name, text);
}

static vipool_range parse_range(const char *addresses)
{
    vipool_range range;
    check(vipool_range_parse(addresses, strlen(addresses), &range), addresses);
    return range;
}

/* Builds a farm of one server, with network addresses, loopback addresses and one program on the
 * process list. Returns the plan of the server. A real agent reads farm.toml with vipool_farm_load()
 * instead. */
static vipool_plan *make_plan(const char *program_path)
{
    vipool_range network = parse_range("10.0.5.10-10.0.5.99");
    vipool_range loopback = parse_range("127.3.0.2-127.3.0.99");
    vipool_farm *farm = NULL;
    vipool_plan *plan = NULL;
    vipool_server_range server_range;
    vipool_program program;
    vipool_plan_options options;

    check(vipool_farm_new(&farm), "vipool_farm_new");
    VIPOOL_INIT(&server_range);
    server_range.addresses = &network;
    server_range.address_count = 1;
    check(vipool_farm_add_range(farm, &server_range), "vipool_farm_add_range");
    check(vipool_farm_set_loopback(farm, &loopback, 1, NULL, 0), "vipool_farm_set_loopback");

    VIPOOL_INIT(&program);
    program.pattern = program_path;
    program.pattern_length = strlen(program_path);
    program.features = VIPOOL_FEATURE_VIRTUAL_IP | VIPOOL_FEATURE_LOOPBACK;
    check(vipool_farm_add_program(farm, &program), "vipool_farm_add_program");

    VIPOOL_INIT(&options);
    /* After VIPOOL_ERR_FARM, vipool_farm_format_report() returns all errors of the farm. */
    check(vipool_plan_new(farm, &options, &plan), "vipool_plan_new");
    vipool_farm_free(farm);
    return plan;
}

/* The hook: rewrites bind(127.0.0.1:6379) and prints the outcome. It does not call bind(). */
static void rewrite_bind(const vipool_rewriter *rewriter)
{
    static const char localhost[] = "127.0.0.1";
    vipool_ip ip;
    uint16_t port = 0;
    vipool_sockaddr requested;
    vipool_socket socket_facts;
    vipool_outcome outcome;

    check(vipool_ip_parse(localhost, strlen(localhost), &ip), localhost);
    check(vipool_ip_to_sockaddr(&ip, 6379, &requested), "vipool_ip_to_sockaddr");

    VIPOOL_INIT(&socket_facts);
    socket_facts.protocol = VIPOOL_PROTOCOL_TCP;
    VIPOOL_INIT(&outcome);
    check(vipool_rewrite_bind(rewriter, &socket_facts, requested.bytes, requested.length, &outcome),
          "vipool_rewrite_bind");

    switch (outcome.kind) {
    case VIPOOL_REWRITTEN:
        check(vipool_ip_from_sockaddr(outcome.address.bytes, outcome.address.length, &ip, &port),
              "vipool_ip_from_sockaddr");
        print_ip("127.0.0.1 becomes", &ip);
        printf("%-20s %u\n", "with port", (unsigned)port);
        break;
    case VIPOOL_PASSED:
        printf("%-20s %s\n", "passed", vipool_reason_get_text(outcome.reason));
        break;
    default:
        printf("%-20s %s (errno %d)\n", "refused", vipool_reason_get_text(outcome.reason),
               (int)outcome.error);
        break;
    }
}

/* The hook: finds the rule of the program. Creates the rewriter for the session of `handle`. */
static vipool_rewriter *make_rewriter(const vipool_reader *reader, const char *program_path,
                                      const vipool_handle *handle)
{
    vipool_executable executable;
    vipool_rule rule;
    vipool_rewriter_options options;
    vipool_rewriter *rewriter = NULL;

    VIPOOL_INIT(&executable);
    executable.path = program_path;
    executable.path_length = strlen(program_path);
    VIPOOL_INIT(&rule);
    check(vipool_reader_find_rule(reader, &executable, &rule), "vipool_reader_find_rule");

    VIPOOL_INIT(&options);
    options.handle = *handle;
    options.rule = rule.id;
    check(vipool_rewriter_new(reader, &options, &rewriter), "vipool_rewriter_new");
    return rewriter;
}

int main(int argc, char **argv)
{
    static const char program_path[] = "/usr/bin/redis-server";
    vipool_plan *plan = make_plan(program_path);
    vipool_map *map = NULL;
    vipool_reader *reader = NULL;
    vipool_rewriter *rewriter = NULL;
    vipool_session session = 0;
    vipool_open_options options;
    vipool_opened_session opened;
    vipool_status status;
    uint32_t index;

    printf("vipool %s\n", vipool_version());

    /* The agent's part. The argument is the directory for the files of the map. Without an
     * argument, the map is in memory. */
    if (argc > 1) {
        check(vipool_map_create(argv[1], strlen(argv[1]), plan, NULL, &map), "vipool_map_create");
    } else {
        check(vipool_map_create_in_memory(plan, NULL, &map), "vipool_map_create_in_memory");
    }
    vipool_plan_free(plan);

    check(vipool_session_make(VIPOOL_SESSION_EMBEDDER, 7, &session), "vipool_session_make");
    VIPOOL_INIT(&options);
    options.user = "ada";
    options.user_length = strlen("ada");
    VIPOOL_INIT(&opened);
    check(vipool_map_open_session(map, session, &options, vipool_now(), &opened),
          "vipool_map_open_session");
    for (index = 0; index < opened.lease_count; index++) {
        print_ip("leased", &opened.leases[index].address);
    }

    /* The hook's part. */
    if (argc > 1) {
        check(vipool_reader_open(argv[1], strlen(argv[1]), &reader), "vipool_reader_open");
    } else {
        check(vipool_reader_open_map(map, &reader), "vipool_reader_open_map");
    }
    rewriter = make_rewriter(reader, program_path, &opened.handle);
    rewrite_bind(rewriter);

    /* The agent closes the session. A second close releases nothing and returns an error. */
    check(vipool_map_close_by_handle(map, &opened.handle, vipool_now(), NULL), "vipool_map_close_by_handle");
    status = vipool_map_close_by_handle(map, &opened.handle, vipool_now(), NULL);
    printf("%-20s %s: %s\n", "closed twice", vipool_status_get_name(status), vipool_last_error());
    rewrite_bind(rewriter);

    vipool_rewriter_free(rewriter);
    vipool_reader_close(reader);
    vipool_map_close(map);
    return status == VIPOOL_ERR_STALE ? 0 : 1;
}
