/* The hand-written part of the program that abuse.rs generates. abuse.rs appends abuse(), which
 * contains the generated calls. */

#include <dirent.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <vipool.h>

/* The arguments of the calls, and the memory that the calls write to. Each thread has one fixture.
 * All fixtures contain the same pointers to the objects that threads may share. */
struct fixture {
    vipool_map *map;
    vipool_reader *reader;
    vipool_rewriter *rewriter;
    vipool_snapshot *snapshot;
    vipool_plan *plan;
    vipool_farm *farm;
    vipool_journal *journal;
    vipool_interface_list *interface_list;

    vipool_map *created_map;
    vipool_reader *created_reader;
    vipool_rewriter *created_rewriter;
    vipool_snapshot *created_snapshot;
    vipool_plan *created_plan;
    vipool_farm *created_farm;
    vipool_journal *created_journal;
    vipool_interface_list *created_interface_list;

    char directory[256];
    uint16_t utf16[256];
    size_t utf16_length;
    char buffer[256];
    size_t size;
    uint32_t number;
    uint64_t long_number;
    const char *text;
    const char *arguments[2];
    const vipool_interface *interfaces;
    vipool_ports ports;
    int32_t signed_number;
    uint16_t port;
    vipool_session session;
    vipool_session other_session;
    vipool_ip ip, out_ip;
    vipool_range range, ranges[2], out_range;
    vipool_sockaddr sockaddr, out_sockaddr;
    vipool_handle handle, out_handle;
    vipool_leader leader, out_leader;
    uint64_t rule;
    vipool_subnet subnet;

    /* Heap blocks for the struct arguments of one call. A block has no spare bytes, so that
     * AddressSanitizer or valgrind detects an access beyond the end of a struct. */
    void *blocks[8];
    unsigned block_count;
    unsigned checked_calls;
};

static void expect(vipool_status status, vipool_status expected, const char *label);
static void expect_size_accepted(vipool_status status, const char *label);
static void abuse(struct fixture *fx);

static __thread struct fixture *current_fixture;

static void expect(vipool_status status, vipool_status expected, const char *label)
{
    current_fixture->checked_calls++;
    if (status != expected) {
        fprintf(stderr, "%s: %s instead of %s (%s)\n", label, vipool_status_get_name(status),
                vipool_status_get_name(expected), vipool_last_error());
        exit(1);
    }
}

/* Exits if the call rejected the size or the unknown members of a struct, or panicked. The call may
 * fail for any other reason, because its numbers can be extreme. */
static void expect_size_accepted(vipool_status status, const char *label)
{
    current_fixture->checked_calls++;
    if (status == VIPOOL_ERR_STRUCT_SIZE || status == VIPOOL_ERR_UNKNOWN_FIELD
        || status == VIPOOL_ERR_PANIC) {
        fprintf(stderr, "%s: %s (%s)\n", label, vipool_status_get_name(status), vipool_last_error());
        exit(1);
    }
}

static void free_results(struct fixture *fx)
{
    vipool_rewriter_free(fx->created_rewriter);
    vipool_reader_close(fx->created_reader);
    vipool_snapshot_free(fx->created_snapshot);
    vipool_plan_free(fx->created_plan);
    vipool_farm_free(fx->created_farm);
    vipool_journal_close(fx->created_journal);
    vipool_interface_list_free(fx->created_interface_list);
    vipool_map_close(fx->created_map);
    fx->created_rewriter = NULL;
    fx->created_reader = NULL;
    fx->created_snapshot = NULL;
    fx->created_plan = NULL;
    fx->created_farm = NULL;
    fx->created_journal = NULL;
    fx->created_interface_list = NULL;
    fx->created_map = NULL;
    while (fx->block_count > 0) {
        free(fx->blocks[--fx->block_count]);
    }
}

static void *allocate_block(struct fixture *fx, size_t size)
{
    void *block = calloc(1, size);
    if (block == NULL || fx->block_count == 8) {
        abort();
    }
    fx->blocks[fx->block_count++] = block;
    return block;
}

/* Sets the required members of the struct `value`. `name` is the name of the struct type. */
static void fill_required_members(struct fixture *fx, const char *name, void *value)
{
    if (strcmp(name, "vipool_interface") == 0) {
        vipool_interface *interface = (vipool_interface *)value;
        interface->name = "eth0";
        interface->name_length = 4;
        interface->addresses = &fx->subnet;
        interface->address_count = 1;
    } else if (strcmp(name, "vipool_program") == 0) {
        vipool_program *program = (vipool_program *)value;
        program->pattern = "/bin/x";
        program->pattern_length = 6;
    } else if (strcmp(name, "vipool_server") == 0) {
        vipool_server *server = (vipool_server *)value;
        server->name = "ts1";
        server->name_length = 3;
    } else if (strcmp(name, "vipool_server_range") == 0) {
        vipool_server_range *range = (vipool_server_range *)value;
        range->addresses = &fx->range;
        range->address_count = 1;
    } else if (strcmp(name, "vipool_executable") == 0) {
        vipool_executable *executable = (vipool_executable *)value;
        executable->path = "/bin/x";
        executable->path_length = 6;
    } else if (strcmp(name, "vipool_rewriter_options") == 0) {
        vipool_rewriter_options *options = (vipool_rewriter_options *)value;
        options->handle = fx->handle;
        options->rule = fx->rule;
    } else if (strcmp(name, "vipool_socket") == 0) {
        ((vipool_socket *)value)->protocol = VIPOOL_PROTOCOL_TCP;
    }
}

/* fresh_X returns a valid struct. sized_X returns a struct whose member `size` has the passed
 * value. If this size is too small for the member or above 100000, the memory holds only the
 * member. Bytes beyond the current version of the struct are not zero. */
#define SIZED(X)                                                                                   \
    static X *fresh_##X(struct fixture *fx)                                                        \
    {                                                                                              \
        X *value = (X *)allocate_block(fx, sizeof(X));                                             \
        value->size = sizeof(X);                                                                   \
        fill_required_members(fx, #X, value);                                                      \
        return value;                                                                              \
    }                                                                                              \
    static X *sized_##X(struct fixture *fx, size_t size)                                           \
    {                                                                                              \
        size_t allocated_size = size < sizeof(size_t) || size > 100000 ? sizeof(size_t) : size;    \
        unsigned char *value = (unsigned char *)allocate_block(fx, allocated_size);                \
        memcpy(value, &size, sizeof size);                                                         \
        if (allocated_size > sizeof(X)) {                                                          \
            X current_version;                                                                     \
            memset(&current_version, 0, sizeof current_version);                                   \
            current_version.size = size;                                                           \
            fill_required_members(fx, #X, &current_version);                                       \
            memcpy(value, &current_version, sizeof current_version);                               \
            memset(value + sizeof(X), 0xff, allocated_size - sizeof(X));                           \
        }                                                                                          \
        return (X *)(void *)value;                                                                 \
    }

static uint32_t is_alive(void *context, vipool_session session, const vipool_leader *leader)
{
    (void)context;
    (void)session;
    (void)leader;
    return 1;
}

static void exit_on_error(vipool_status status, const char *label)
{
    if (status != VIPOOL_OK) {
        fprintf(stderr, "%s: %s: %s\n", label, vipool_status_get_name(status), vipool_last_error());
        exit(1);
    }
}

/* Creates the plan of a farm with one range. The farm also has one program if `has_program` is 1. */
static void make_plan(struct fixture *fx, int has_program)
{
    vipool_farm *farm = NULL;
    vipool_server_range range;
    vipool_program program;
    vipool_plan_options options;

    exit_on_error(vipool_farm_new(&farm), "farm");
    memset(&range, 0, sizeof range);
    range.size = sizeof range;
    fill_required_members(fx, "vipool_server_range", &range);
    exit_on_error(vipool_farm_add_range(farm, &range), "range");
    exit_on_error(vipool_farm_set_loopback(farm, NULL, 0, NULL, 0), "loopback");
    memset(&program, 0, sizeof program);
    program.size = sizeof program;
    fill_required_members(fx, "vipool_program", &program);
    if (has_program) {
        exit_on_error(vipool_farm_add_program(farm, &program), "program");
    }
    memset(&options, 0, sizeof options);
    options.size = sizeof options;
    exit_on_error(vipool_plan_new(farm, &options, &fx->plan), "plan");
    vipool_farm_free(farm);
}

/* Creates the objects that the threads share, and valid arguments for the calls. */
static void prepare(struct fixture *fx)
{
    static const char range_text[] = "10.0.5.10-10.0.5.99";
    vipool_opened_session opened;
    vipool_executable executable;
    vipool_rule rule;
    vipool_rewriter_options options;

    memset(fx, 0, sizeof *fx);
    exit_on_error(vipool_range_parse(range_text, strlen(range_text), &fx->range), "range");
    exit_on_error(vipool_ip_parse("10.0.5.50", 9, &fx->ip), "ip");
    exit_on_error(vipool_ip_to_sockaddr(&fx->ip, 80, &fx->sockaddr), "sockaddr");
    fx->subnet.address = fx->ip;
    fx->subnet.prefix_length = 24;
    make_plan(fx, 1);
    exit_on_error(vipool_map_create_in_memory(fx->plan, NULL, &fx->map), "map");
    exit_on_error(vipool_session_make(VIPOOL_SESSION_EMBEDDER, 7, &fx->session), "session");
    memset(&opened, 0, sizeof opened);
    opened.size = sizeof opened;
    exit_on_error(vipool_map_open_session(fx->map, fx->session, NULL, 1000, &opened), "open");
    fx->handle = opened.handle;
    exit_on_error(vipool_reader_open_map(fx->map, &fx->reader), "reader");
    exit_on_error(vipool_snapshot_new(fx->map, &fx->snapshot), "snapshot");
    memset(&executable, 0, sizeof executable);
    executable.size = sizeof executable;
    fill_required_members(fx, "vipool_executable", &executable);
    memset(&rule, 0, sizeof rule);
    rule.size = sizeof rule;
    exit_on_error(vipool_reader_find_rule(fx->reader, &executable, &rule), "rule");
    fx->rule = rule.id;
    memset(&options, 0, sizeof options);
    options.size = sizeof options;
    fill_required_members(fx, "vipool_rewriter_options", &options);
    exit_on_error(vipool_rewriter_new(fx->reader, &options, &fx->rewriter), "rewriter");
    exit_on_error(vipool_interface_list_new(&fx->interface_list), "interfaces");
    fx->arguments[0] = "-u";
    fx->arguments[1] = "run.py";
}

static void *run_thread(void *argument)
{
    struct fixture *fx = (struct fixture *)argument;
    size_t unit_index;
    vipool_map *map = NULL;

    current_fixture = fx;
    make_plan(fx, 0);
    exit_on_error(vipool_farm_parse("[sessions]", 10, &fx->farm), "farm");
    exit_on_error(vipool_map_create(fx->directory, strlen(fx->directory), fx->plan, NULL, &map), "create");
    vipool_map_close(map);
    exit_on_error(vipool_journal_open(fx->directory, strlen(fx->directory), &fx->journal), "journal");
    fx->utf16_length = strlen(fx->directory);
    for (unit_index = 0; unit_index < fx->utf16_length; unit_index++) {
        fx->utf16[unit_index] = (uint16_t)fx->directory[unit_index];
    }
    abuse(fx);
    vipool_journal_close(fx->journal);
    vipool_plan_free(fx->plan);
    vipool_farm_free(fx->farm);
    return NULL;
}

static unsigned count_threads(void)
{
    DIR *tasks = opendir("/proc/self/task");
    struct dirent *task;
    unsigned count = 0;

    while (tasks != NULL && (task = readdir(tasks)) != NULL) {
        count += task->d_name[0] != '.';
    }
    if (tasks != NULL) {
        closedir(tasks);
    }
    return count;
}

int main(int argc, char **argv)
{
    static struct fixture shared;
    static struct fixture fixtures[8];
    pthread_t threads[8];
    unsigned checked_calls = 0;
    const unsigned initial_thread_count = count_threads();
    int thread_index;

    if (argc != 2) {
        return 2;
    }
    current_fixture = &shared;
    prepare(&shared);
    for (thread_index = 0; thread_index < 8; thread_index++) {
        struct fixture *fx = &fixtures[thread_index];
        *fx = shared;
        snprintf(fx->directory, sizeof fx->directory, "%s/%d", argv[1], thread_index);
        if (mkdir(fx->directory, 0700) != 0
            || pthread_create(&threads[thread_index], NULL, run_thread, fx) != 0) {
            perror("thread");
            return 1;
        }
    }
    for (thread_index = 0; thread_index < 8; thread_index++) {
        pthread_join(threads[thread_index], NULL);
        checked_calls += fixtures[thread_index].checked_calls;
    }
    vipool_interface_list_free(shared.interface_list);
    vipool_snapshot_free(shared.snapshot);
    vipool_rewriter_free(shared.rewriter);
    vipool_reader_close(shared.reader);
    vipool_map_close(shared.map);
    vipool_plan_free(shared.plan);
    /* No function of the library may leave a thread running. */
    if (count_threads() != initial_thread_count) {
        fprintf(stderr, "%u threads instead of %u\n", count_threads(), initial_thread_count);
        return 1;
    }
    printf("%u calls returned the expected status\n", checked_calls);
    return 0;
}
