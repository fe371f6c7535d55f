// A server agent: it makes the map of this server from farm.toml and holds it for itself, opens a
// session at each logon and closes it at each logoff. The operating system's events come as lines
// on standard input here:
//
//     agent FARM.TOML HOST MAP-DIRECTORY
//     logon 7 ada | logoff 7 | reserve 10.0.5.20 ada | drain 10.0.5.0/24 | tick | status
//
// examples/agent.rs is the same agent in Rust and says the same.

#include <iostream>
#include <sstream>
#include <string>

#include "vipool.hpp"

namespace {

// What the map tells of: for a log, a ticket, a mail to the administrator. Must not throw.
void on_event(void *, const vipool_event *event) noexcept
{
    try {
        const std::string session = vipool::session_text(event->session);
        switch (event->kind) {
        case VIPOOL_EVENT_ASSIGNED:
            std::cout << "event: " << session << " has "
                      << vipool::to_string(event->lease.address) << '\n';
            break;
        case VIPOOL_EVENT_RELEASED:
            std::cout << "event: " << session << " gave back "
                      << vipool::to_string(event->lease.address) << '\n';
            break;
        case VIPOOL_EVENT_EXHAUSTED:
            std::cout << "event: nothing for " << session << '\n';
            break;
        case VIPOOL_EVENT_LOW_WATER:
            std::cout << "event: few addresses are left\n";
            break;
        default: // of a newer library
            break;
        }
    } catch (...) {
    }
}

// What reaping asks of the system. This agent knows of no sockets and of no leaders.
std::uint32_t has_sockets(void *, const vipool_ip *) noexcept { return 0; }

void status(const vipool::map &map)
{
    const vipool::snapshot now = map.now();
    for (const vipool_pool_row &pool : now.pools()) {
        std::cout << "pool " << std::string(pool.name, pool.name_length) << ": " << pool.used
                  << " used, " << pool.free << " free, " << pool.reserved << " reserved, "
                  << pool.drained << " drained of " << pool.slots << '\n';
    }
    for (const vipool_session_row &row : now.sessions()) {
        std::cout << "session " << vipool::session_text(row.session) << " of "
                  << std::string(row.user, row.user_length) << ':';
        for (std::uint32_t lease = 0; lease < row.lease_count; lease++) {
            std::cout << ' ' << vipool::to_string(row.leases[lease].address);
        }
        std::cout << '\n';
    }
}

void obey(vipool::map &map, const std::string &line)
{
    std::istringstream words(line);
    std::string command, argument, user;
    words >> command >> argument >> user;
    if (command == "logon") {
        const auto opened =
            map.open(vipool::session(VIPOOL_SESSION_WINDOWS, std::stoull(argument)), user);
        if (opened.shortage != VIPOOL_OK) {
            std::cout << vipool_status_text(opened.shortage) << '\n';
        }
    } else if (command == "logoff") {
        map.close(vipool::session(VIPOOL_SESSION_WINDOWS, std::stoull(argument)));
    } else if (command == "reserve") {
        map.reserve(vipool::ip(argument), user);
    } else if (command == "drain") {
        const auto changed = map.drain(vipool::range(argument));
        std::cout << "drained " << changed.addresses << ", " << changed.held << " held\n";
    } else if (command == "tick") {
        auto probe = vipool::sized<vipool_probe>();
        probe.has_sockets = has_sockets;
        const auto reaped = map.reap(probe);
        std::cout << "freed " << reaped.freed << ", closed " << reaped.closed << '\n';
    } else if (command == "status") {
        status(map);
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
    const vipool::plan_handle plan = farm.plan(argv[2]);
    if (farm.errors() > 0) {
        std::cerr << farm.report();
        return 1;
    }
    auto options = vipool::sized<vipool_map_options>();
    options.on_event = on_event;
    options.flags = VIPOOL_MAP_EXCLUSIVE;
    vipool::map map = vipool::map::create(argv[3], plan.get(), options);

    for (std::string line; std::getline(std::cin, line);) {
        try {
            obey(map, line);
        } catch (const vipool::error &error) {
            std::cout << "error: " << error.what() << '\n';
        }
    }
    return 0;
} catch (const std::exception &error) {
    std::cerr << error.what() << '\n';
    return 1;
}
