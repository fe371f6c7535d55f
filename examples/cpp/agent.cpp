// A server agent: it creates the map of this server from farm.toml and holds the map exclusively.
// It opens a session at each logon and closes the session at each logoff. In this example, lines
// on standard input replace the events of the operating system and the requests of an
// administrator. The command line, and the possible input lines, are:
//
//     agent FARM.TOML HOST MAP-DIRECTORY
//     logon 7 ada | logoff 7 | reserve 10.0.5.20 ada | drain 10.0.5.0/24 | tick | status
//
// examples/agent.rs is the same agent in Rust, with the same output.

#include <iostream>
#include <sstream>
#include <stdexcept>
#include <string>

#include <vipool.hpp>

namespace {

// Prints the events of the map. A real agent would write them to a log.
void on_event(void *, const vipool_event *event) noexcept
{
    try {
        const std::string session = vipool::session_to_string(event->session);
        switch (event->kind) {
        case VIPOOL_EVENT_ASSIGNED:
            std::cout << "event: " << session << " leased "
                      << vipool::to_string(event->lease.address) << '\n';
            break;
        case VIPOOL_EVENT_RELEASED:
            std::cout << "event: " << session << " released "
                      << vipool::to_string(event->lease.address) << '\n';
            break;
        case VIPOOL_EVENT_EXHAUSTED:
            std::cout << "event: no address for " << session << '\n';
            break;
        case VIPOOL_EVENT_LOW_WATER:
            std::cout << "event: few addresses are left\n";
            break;
        default: // A newer library may report events that this program does not handle.
            break;
        }
    } catch (...) {
    }
}

// Reports that no socket uses the address. The library calls this function during `tick`. The
// probe has no callback for session leaders, so no leader counts as exited.
std::uint32_t has_sockets(void *, const vipool_ip *) noexcept { return 0; }

void print_status(const vipool::map &map)
{
    const vipool::snapshot snapshot = map.take_snapshot();
    for (const vipool_pool_row &pool : snapshot.pools()) {
        std::cout << "pool " << std::string(pool.name, pool.name_length) << ": " << pool.leased
                  << " leased, " << pool.free << " free, " << pool.reserved << " reserved, "
                  << pool.drained << " drained of " << pool.slots << '\n';
    }
    for (const vipool_session_row &row : snapshot.sessions()) {
        std::cout << "session " << vipool::session_to_string(row.session) << " of "
                  << std::string(row.user, row.user_length) << ':';
        for (std::uint32_t index = 0; index < row.lease_count; index++) {
            std::cout << ' ' << vipool::to_string(row.leases[index].address);
        }
        std::cout << '\n';
    }
}

void run_command(vipool::map &map, const std::string &line)
{
    std::istringstream words(line);
    std::string command, argument, user;
    words >> command >> argument >> user;
    if (command == "logon") {
        const auto session = vipool::make_session(VIPOOL_SESSION_WINDOWS, std::stoull(argument));
        const auto opened = map.open_session(session, user);
        if (opened.shortage != VIPOOL_OK) {
            std::cout << vipool_status_get_text(opened.shortage) << '\n';
        }
    } else if (command == "logoff") {
        map.close_session(vipool::make_session(VIPOOL_SESSION_WINDOWS, std::stoull(argument)));
    } else if (command == "reserve") {
        map.reserve(vipool::parse_ip(argument), user);
    } else if (command == "drain") {
        const auto change = map.drain(vipool::parse_range(argument));
        std::cout << "drained " << change.addresses << ", " << change.held << " held\n";
    } else if (command == "tick") {
        auto probe = vipool::sized<vipool_probe>();
        probe.has_sockets = has_sockets;
        const auto report = map.reap(probe);
        std::cout << "freed " << report.freed << ", closed " << report.closed << '\n';
    } else if (command == "status") {
        print_status(map);
    } else {
        std::cout << "unknown command: " << line << '\n';
    }
}

} // namespace

int main(int argc, char **argv)
try {
    if (argc != 4) {
        std::cerr << "usage: agent FARM.TOML HOST MAP-DIRECTORY\n";
        return 2;
    }
    vipool::farm farm = vipool::farm::load(argv[1]);
    if (farm.count_findings(VIPOOL_LEVEL_ERROR) > 0) {
        std::cerr << farm.report();
        return 1;
    }
    const vipool::plan plan = farm.make_plan(argv[2]);
    auto options = vipool::sized<vipool_map_options>();
    options.on_event = on_event;
    options.flags = VIPOOL_MAP_EXCLUSIVE;
    vipool::map map = vipool::map::create(argv[3], plan, options);

    for (std::string line; std::getline(std::cin, line);) {
        try {
            run_command(map, line);
        } catch (const vipool::error &error) {
            std::cout << "error: " << error.what() << '\n';
        } catch (const std::logic_error &) {
            std::cout << "error: the session is not a number\n";
        }
    }
    return 0;
} catch (const std::exception &error) {
    std::cerr << error.what() << '\n';
    return 1;
}
