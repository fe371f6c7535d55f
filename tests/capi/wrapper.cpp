// This program uses every class of vipool.hpp.

#include <cstdio>
#include <cstdlib>
#include <type_traits>

#include <vipool.hpp>

static_assert(!std::is_copy_constructible_v<vipool::map>);
static_assert(std::is_move_constructible_v<vipool::map>);

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            std::printf("line %d: %s\n", __LINE__, #condition);                                    \
            return 1;                                                                              \
        }                                                                                          \
    } while (0)

int main(int argc, char **argv)
{
    const std::string directory = argc > 1 ? argv[1] : "";
    vipool::farm invalid_farm = vipool::farm::parse("[[range]]\naddresses = \"10.0.5.1/24\"\n");
    CHECK(invalid_farm.count_findings(VIPOOL_LEVEL_ERROR) == 1);
    CHECK(invalid_farm.report().find("10.0.5.1/24") != std::string::npos);
    vipool::farm missing_farm = vipool::farm::load(directory + "/missing.toml");
    CHECK(missing_farm.count_findings(VIPOOL_LEVEL_WARNING) > 0);

    vipool::farm farm;
    const vipool_range address_range = vipool::parse_range("10.0.5.10-10.0.5.13");
    auto range = vipool::sized<vipool_server_range>();
    range.addresses = &address_range;
    range.address_count = 1;
    vipool::check(vipool_farm_add_range(farm.get(), &range));
    farm.validate();
    const vipool::plan plan = farm.make_plan("");
    CHECK(plan.assignments().empty());
    CHECK(vipool::to_string(address_range) == "10.0.5.10-10.0.5.13");

    for (int is_file_backed = 0; is_file_backed < 2; is_file_backed++) {
        auto options = vipool::sized<vipool_map_options>();
        options.flags = is_file_backed ? 0 : VIPOOL_MAP_SINGLE_THREADED;
        vipool::map map = is_file_backed ? vipool::map::create(directory, plan)
                                         : vipool::map::create_in_memory(plan, options);
        vipool::map moved_map = std::move(map);
        const auto session = vipool::make_session(VIPOOL_SESSION_EMBEDDER, 7);
        CHECK(session == vipool::parse_session("embedder:7"));
        CHECK(vipool::session_to_string(session) == "embedder:7");
        const auto opened = moved_map.open_session(session, "ada");
        CHECK(vipool::to_string(opened.leases[0].address) == "10.0.5.10");
        CHECK(vipool::to_string(opened.handle).size() > 20);
        moved_map.update_session(session, vipool::parse_ip("192.0.2.9"));
        moved_map.update_session(session, vipool_leader{7, 0, 1, 0});

        vipool::reader reader =
            is_file_backed ? vipool::reader::open(directory) : vipool::reader::open(moved_map);
        CHECK(reader.is_live(opened.handle));
        CHECK(vipool::to_string(reader.addresses(session).v4) == "10.0.5.10");

        CHECK(moved_map.reserve(vipool::parse_ip("10.0.5.11"), "bob").addresses == 1);
        CHECK(moved_map.unreserve(vipool::parse_ip("10.0.5.11")).addresses == 1);
        CHECK(moved_map.drain(address_range).held == 1);
        CHECK(moved_map.undrain(address_range).addresses == 4);
        CHECK(moved_map.reap().closed == 0);
        const vipool::snapshot snapshot = moved_map.take_snapshot();
        CHECK(snapshot.sessions().size() == 1 && snapshot.pools().size() == 2);
        CHECK(vipool::to_string(snapshot.sessions()[0].client) == "192.0.2.9");
        CHECK(snapshot.sessions()[0].leader.pid == 7);

        CHECK(moved_map.close_session(opened.handle).lease_count == 2);
        CHECK(!reader.is_live(opened.handle));
        try {
            moved_map.close_session(session);
            CHECK(!"close_session threw no exception");
        } catch (const vipool::error &error) {
            CHECK(error.status() == VIPOOL_ERR_NOT_OPEN);
            CHECK(std::string(error.name()) == "VIPOOL_ERR_NOT_OPEN");
        }
    }
    CHECK(vipool::map::open(directory).get() != nullptr);

    // A signal-safe function sets no message, so the error must not have that of an earlier call.
    const vipool::reader reader = vipool::reader::open(directory);
    const auto closed_session = vipool::make_session(VIPOOL_SESSION_EMBEDDER, 8);
    vipool_ip ip;
    CHECK(vipool_ip_parse("no address", 10, &ip) == VIPOOL_ERR_ADDRESS);
    try {
        reader.addresses(closed_session);
        CHECK(!"addresses threw no exception");
    } catch (const vipool::error &error) {
        CHECK(error.status() == VIPOOL_ERR_NOT_OPEN);
        CHECK(std::string(error.what()) == vipool_status_get_text(VIPOOL_ERR_NOT_OPEN));
    }
    try {
        vipool::parse_ip("no address");
        CHECK(!"parse_ip threw no exception");
    } catch (const vipool::error &error) {
        CHECK(std::string(error.what()).find("no address") != std::string::npos);
    }
    CHECK(!vipool::map_directory().empty());
    std::puts("done");
    return 0;
}
