// vipool for C++17: RAII handles and exceptions for vipool.h. Header only.
//
// Copyright the vipool authors. Licensed under the Apache License, Version 2.0.
//
//     vipool::farm farm = vipool::farm::load("/etc/vipool/farm.toml");
//     if (farm.count_findings(VIPOOL_LEVEL_ERROR) > 0) {
//         std::cerr << farm.report();
//     }
//     vipool::plan plan = farm.make_plan("ts1");
//     vipool::map map = vipool::map::create("/run/vipool", plan);
//     auto opened = map.open_session(vipool::make_session(VIPOOL_SESSION_EMBEDDER, 7), "ada");
//     map.close_session(opened.handle);
//
// Conventions:
//
// - A failed call throws vipool::error with the status and the message of vipool_last_error(). If the
//   function is signal-safe, it sets no message, and the error has the text of the status.
// - An object owns its handle. It can be moved, not copied. get() returns the handle for functions of
//   vipool.h that have no method here.
// - Threads may share an object if vipool.h allows threads to share its handle.
// - Callbacks must be noexcept: an exception must not pass through the library.

#ifndef VIPOOL_HPP
#define VIPOOL_HPP

#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <vipool.h>

namespace vipool {

/// The status and the message of a failed call.
class error : public std::runtime_error {
public:
    /// An error with the text of the status.
    explicit error(vipool_status status) : error(status, vipool_status_get_text(status)) {}
    /// An error with a message, such as that of vipool_last_error().
    error(vipool_status status, const char *message)
        : std::runtime_error(message), status_(status) {}
    vipool_status status() const noexcept { return status_; }
    /// The name of the status, such as "VIPOOL_ERR_BUSY".
    const char *name() const noexcept { return vipool_status_get_name(status_); }

private:
    vipool_status status_;
};

/// Throws vipool::error with the message of vipool_last_error() unless the status is VIPOOL_OK. For
/// a signal-safe function, use check_signal_safe(): the last error is that of an earlier call.
inline void check(vipool_status status)
{
    if (status != VIPOOL_OK) {
        throw error(status, vipool_last_error());
    }
}

/// Throws vipool::error with the text of the status unless the status is VIPOOL_OK.
inline void check_signal_safe(vipool_status status)
{
    if (status != VIPOOL_OK) {
        throw error(status);
    }
}

/// Returns a zeroed struct with its size set.
template <class T> T sized()
{
    T value{};
    value.size = sizeof value;
    return value;
}

namespace detail {

template <class T, void (*Free)(T *)> struct deleter {
    void operator()(T *handle) const noexcept { Free(handle); }
};
template <class T, void (*Free)(T *)> using handle = std::unique_ptr<T, deleter<T, Free>>;

/// Returns the text that a function writes to a buffer.
template <class Write> std::string read_text(Write write)
{
    std::size_t length = 0;
    std::string buffer(64, '\0');
    vipool_status status = write(&buffer[0], buffer.size(), &length);
    if (status == VIPOOL_ERR_BUFFER) {
        buffer.resize(length + 1);
        status = write(&buffer[0], buffer.size(), &length);
    }
    check(status);
    buffer.resize(length);
    return buffer;
}

/// Calls a list function until it returns no more rows. Returns all rows.
template <class Row, class List> std::vector<Row> collect_rows(List list)
{
    std::vector<Row> result;
    Row page[16] = {};
    std::size_t count = 0;
    do {
        page[0] = sized<Row>();
        check(list(result.size(), page, std::size_t{16}, &count));
        result.insert(result.end(), page, page + count);
    } while (count > 0);
    return result;
}

} // namespace detail

/// Formats an address.
inline std::string to_string(const vipool_ip &ip)
{
    return detail::read_text([&](char *buffer, std::size_t capacity, std::size_t *length) {
        return vipool_ip_format(&ip, buffer, capacity, length);
    });
}

/// Formats a range as first-last, or as one address.
inline std::string to_string(const vipool_range &range)
{
    return detail::read_text([&](char *buffer, std::size_t capacity, std::size_t *length) {
        return vipool_range_format(&range, buffer, capacity, length);
    });
}

/// Formats a handle for the environment variable VIPOOL_LEASE.
inline std::string to_string(const vipool_handle &handle)
{
    return detail::read_text([&](char *buffer, std::size_t capacity, std::size_t *length) {
        return vipool_handle_format(&handle, buffer, capacity, length);
    });
}

/// Formats a session id. (A session id is an integer, so this is not an overload of to_string.)
inline std::string session_to_string(vipool_session session)
{
    return detail::read_text([&](char *buffer, std::size_t capacity, std::size_t *length) {
        return vipool_session_format(session, buffer, capacity, length);
    });
}

/// Parses an address.
inline vipool_ip parse_ip(std::string_view text)
{
    vipool_ip ip{};
    check(vipool_ip_parse(text.data(), text.size(), &ip));
    return ip;
}

/// Parses a range: a CIDR prefix, first-last or one address.
inline vipool_range parse_range(std::string_view text)
{
    vipool_range range{};
    check(vipool_range_parse(text.data(), text.size(), &range));
    return range;
}

/// Parses a session id, such as "7", "audit:3" or "logind:c1".
inline vipool_session parse_session(std::string_view text)
{
    vipool_session session = 0;
    check(vipool_session_parse(text.data(), text.size(), &session));
    return session;
}

/// Makes a session id from a vipool_session_kind and a value.
inline vipool_session make_session(std::uint32_t kind, std::uint64_t value)
{
    vipool_session session = 0;
    check(vipool_session_make(kind, value, &session));
    return session;
}

/// Returns the directory of the map of this machine.
inline std::string map_directory()
{
    return detail::read_text(vipool_map_get_directory);
}

/// The plan of one server: its pools, policy and settings. map::create() makes a map from a plan.
class plan {
public:
    explicit plan(vipool_plan *handle) : handle_(handle) {}
    const vipool_plan *get() const noexcept { return handle_.get(); }
    /// Returns a row for each interface and subnet, with the addresses to add to the interface. The
    /// texts and the arrays in the rows are valid as long as the plan lives.
    std::vector<vipool_assignment> assignments() const
    {
        return detail::collect_rows<vipool_assignment>([&](auto first, auto rows, auto capacity, auto count) {
            return vipool_plan_list_assignments(get(), first, rows, capacity, count, nullptr);
        });
    }

private:
    detail::handle<vipool_plan, vipool_plan_free> handle_;
};

/// The configuration of a farm of servers, with the errors and warnings (findings) about it.
class farm {
public:
    /// Makes an empty farm. Configure it with the vipool_farm_ functions and get().
    farm()
    {
        vipool_farm *handle = nullptr;
        check(vipool_farm_new(&handle));
        handle_.reset(handle);
    }
    /// Reads and validates a farm.toml.
    static farm load(std::string_view path)
    {
        vipool_farm *handle = nullptr;
        check(vipool_farm_load(path.data(), path.size(), &handle));
        return farm(handle);
    }
    /// Parses and validates the text of a farm.toml.
    static farm parse(std::string_view text)
    {
        vipool_farm *handle = nullptr;
        check(vipool_farm_parse(text.data(), text.size(), &handle));
        return farm(handle);
    }
    vipool_farm *get() const noexcept { return handle_.get(); }
    /// Validates a farm that was configured by the vipool_farm_ functions.
    void validate() { check(vipool_farm_validate(get())); }
    /// Returns the number of findings whose level is at least `min_level`, a vipool_level.
    std::size_t count_findings(std::uint32_t min_level) const
    {
        std::size_t written = 0, total = 0;
        check(vipool_farm_list_findings(get(), min_level, 0, nullptr, 0, &written, &total));
        return total;
    }
    /// Returns the findings as text for people.
    std::string report() const
    {
        return detail::read_text([&](char *buffer, std::size_t capacity, std::size_t *length) {
            return vipool_farm_format_report(get(), buffer, capacity, length);
        });
    }
    /// Validates the farm and makes the plan of a server. Adds the findings about the plan to the
    /// farm. Throws if a finding is an error.
    plan make_plan(std::string_view host)
    {
        auto options = sized<vipool_plan_options>();
        options.host = host.data();
        options.host_length = host.size();
        return make_plan(options);
    }
    /// Makes the plan of the server in `options`, in the same way.
    plan make_plan(const vipool_plan_options &options)
    {
        vipool_plan *handle = nullptr;
        check(vipool_plan_new(get(), &options, &handle));
        return plan(handle);
    }

private:
    explicit farm(vipool_farm *handle) : handle_(handle) {}
    detail::handle<vipool_farm, vipool_farm_free> handle_;
};

/// The pools and sessions of a map at one moment.
class snapshot {
public:
    explicit snapshot(vipool_snapshot *handle) : handle_(handle) {}
    const vipool_snapshot *get() const noexcept { return handle_.get(); }
    /// Returns the sessions. Their texts are valid as long as the snapshot lives.
    std::vector<vipool_session_row> sessions() const
    {
        return detail::collect_rows<vipool_session_row>([&](auto first, auto rows, auto capacity, auto count) {
            return vipool_snapshot_list_sessions(get(), first, rows, capacity, count, nullptr);
        });
    }
    /// Returns the pools. Their texts are valid as long as the snapshot lives.
    std::vector<vipool_pool_row> pools() const
    {
        return detail::collect_rows<vipool_pool_row>([&](auto first, auto rows, auto capacity, auto count) {
            return vipool_snapshot_list_pools(get(), first, rows, capacity, count, nullptr);
        });
    }

private:
    detail::handle<vipool_snapshot, vipool_snapshot_free> handle_;
};

/// An open map, in which an agent opens and closes sessions. The destructor closes the map. If the
/// map is in files, its sessions stay open.
class map {
public:
    /// Creates the files of a map in an existing directory. If the directory has a map of this
    /// boot, the sessions of that map stay open in the new map.
    static map create(std::string_view directory, const plan &plan,
                      const vipool_map_options &options = sized<vipool_map_options>())
    {
        vipool_map *handle = nullptr;
        check(vipool_map_create(directory.data(), directory.size(), plan.get(), &options, &handle));
        return map(handle);
    }
    /// Creates a map in memory.
    static map create_in_memory(const plan &plan,
                                const vipool_map_options &options = sized<vipool_map_options>())
    {
        vipool_map *handle = nullptr;
        check(vipool_map_create_in_memory(plan.get(), &options, &handle));
        return map(handle);
    }
    /// Opens the map in a directory.
    static map open(std::string_view directory,
                    const vipool_map_options &options = sized<vipool_map_options>())
    {
        vipool_map *handle = nullptr;
        check(vipool_map_open(directory.data(), directory.size(), &options, &handle));
        return map(handle);
    }
    vipool_map *get() const noexcept { return handle_.get(); }
    /// Opens a session of a user, or returns the leases that the session already has.
    vipool_opened_session open_session(vipool_session session, std::string_view user)
    {
        auto options = sized<vipool_open_options>();
        options.user = user.data();
        options.user_length = user.size();
        return open_session(session, options);
    }
    /// Opens a session with options.
    vipool_opened_session open_session(vipool_session session, const vipool_open_options &options)
    {
        auto opened = sized<vipool_opened_session>();
        check(vipool_map_open_session(get(), session, &options, vipool_now(), &opened));
        return opened;
    }
    /// Replaces the client of an open session.
    void update_session(vipool_session session, const vipool_ip &client)
    {
        check(vipool_map_update_session(get(), session, &client, nullptr));
    }
    /// Replaces the leader of an open session.
    void update_session(vipool_session session, const vipool_leader &leader)
    {
        check(vipool_map_update_session(get(), session, nullptr, &leader));
    }
    /// Closes a session by its id.
    vipool_closed_session close_session(vipool_session session)
    {
        auto closed = sized<vipool_closed_session>();
        check(vipool_map_close_session(get(), session, vipool_now(), &closed));
        return closed;
    }
    /// Closes a session by its handle.
    vipool_closed_session close_session(const vipool_handle &handle)
    {
        auto closed = sized<vipool_closed_session>();
        check(vipool_map_close_by_handle(get(), &handle, vipool_now(), &closed));
        return closed;
    }
    /// Drains addresses: no further session gets them.
    vipool_admin_change drain(const vipool_range &range)
    {
        auto change = sized<vipool_admin_change>();
        check(vipool_map_drain(get(), &range, vipool_now(), &change));
        return change;
    }
    /// Ends the drain of addresses, so that sessions can get them again.
    vipool_admin_change undrain(const vipool_range &range)
    {
        auto change = sized<vipool_admin_change>();
        check(vipool_map_undrain(get(), &range, vipool_now(), &change));
        return change;
    }
    /// Reserves an address for a user.
    vipool_admin_change reserve(const vipool_ip &address, std::string_view user)
    {
        auto change = sized<vipool_admin_change>();
        check(vipool_map_reserve(get(), &address, user.data(), user.size(), vipool_now(), &change));
        return change;
    }
    /// Removes the reservation of an address.
    vipool_admin_change unreserve(const vipool_ip &address)
    {
        auto change = sized<vipool_admin_change>();
        check(vipool_map_unreserve(get(), &address, vipool_now(), &change));
        return change;
    }
    /// Closes sessions whose leader has exited, and frees cooled addresses. Examines the processes
    /// and sockets of this machine. One call examines at most `budget` sessions, and a number of
    /// addresses that `budget` limits too. Call again while `more` in the report is 1.
    vipool_reap_report reap(std::uint32_t budget = 1000) { return reap(nullptr, budget); }
    /// Closes sessions whose leader has exited, and frees cooled addresses. Calls the functions of
    /// `probe` instead of examining this machine.
    vipool_reap_report reap(const vipool_probe &probe, std::uint32_t budget = 1000)
    {
        return reap(&probe, budget);
    }
    /// Takes a snapshot of pools and sessions.
    snapshot take_snapshot() const
    {
        vipool_snapshot *handle = nullptr;
        check(vipool_snapshot_new(get(), &handle));
        return snapshot(handle);
    }

private:
    explicit map(vipool_map *handle) : handle_(handle) {}
    vipool_reap_report reap(const vipool_probe *probe, std::uint32_t budget)
    {
        auto report = sized<vipool_reap_report>();
        check(vipool_map_reap(get(), vipool_now(), budget, probe, &report));
        return report;
    }
    detail::handle<vipool_map, vipool_map_close> handle_;
};

/// A read-only view of a map.
class reader {
public:
    /// Opens the map in a directory for reading.
    static reader open(std::string_view directory)
    {
        vipool_reader *handle = nullptr;
        check(vipool_reader_open(directory.data(), directory.size(), &handle));
        return reader(handle);
    }
    /// Opens a reader of an open map. The reader may outlive the map.
    static reader open(const map &map)
    {
        vipool_reader *handle = nullptr;
        check(vipool_reader_open_map(map.get(), &handle));
        return reader(handle);
    }
    const vipool_reader *get() const noexcept { return handle_.get(); }
    /// Returns the addresses of a session.
    vipool_addresses addresses(vipool_session session) const
    {
        auto addresses = sized<vipool_addresses>();
        check_signal_safe(vipool_reader_get_addresses(get(), session, &addresses));
        return addresses;
    }
    /// Returns whether the lease of a handle is still held.
    bool is_live(const vipool_handle &handle) const
    {
        return vipool_reader_check_handle(get(), &handle) == VIPOOL_OK;
    }

private:
    explicit reader(vipool_reader *handle) : handle_(handle) {}
    detail::handle<vipool_reader, vipool_reader_close> handle_;
};

} // namespace vipool

#endif
