// vipool for C++17: handles that free themselves, statuses as exceptions. Take this file into your
// own sources and change it as you like; it has no parts that are compiled.

#ifndef VIPOOL_HPP
#define VIPOOL_HPP

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <vipool.h>

namespace vipool {

// A call that failed: its status, and the details that the library kept for this thread.
class error : public std::runtime_error {
public:
    explicit error(vipool_status status)
        : std::runtime_error(vipool_last_error()), status_(status) {}
    vipool_status status() const noexcept { return status_; }
    const char *name() const noexcept { return vipool_status_name(status_); }

private:
    vipool_status status_;
};

inline void check(vipool_status status)
{
    if (status != VIPOOL_OK) {
        throw error(status);
    }
}

// A struct that begins with its size, zeroed.
template <class T> T sized()
{
    T value{};
    value.size = sizeof value;
    return value;
}

template <class T, void (*Free)(T *)> struct deleter {
    void operator()(T *handle) const noexcept { Free(handle); }
};
template <class T, void (*Free)(T *)> using handle = std::unique_ptr<T, deleter<T, Free>>;

using plan_handle = handle<vipool_plan, vipool_plan_free>;
using farm_handle = handle<vipool_farm, vipool_farm_free>;
using map_handle = handle<vipool_map, vipool_map_free>;
using snapshot_handle = handle<vipool_snapshot, vipool_snapshot_free>;

// What a function that takes a buffer writes, in a string.
template <class Write> std::string text(Write write)
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

inline std::string to_string(const vipool_ip &ip)
{
    return text([&](char *buffer, std::size_t capacity, std::size_t *length) {
        return vipool_ip_format(&ip, buffer, capacity, length);
    });
}

inline std::string session_text(vipool_session session)
{
    return text([&](char *buffer, std::size_t capacity, std::size_t *length) {
        return vipool_session_format(session, buffer, capacity, length);
    });
}

inline vipool_range range(std::string_view addresses)
{
    vipool_range parsed{};
    check(vipool_range_parse(addresses.data(), addresses.size(), &parsed));
    return parsed;
}

inline vipool_ip ip(std::string_view address)
{
    vipool_ip parsed{};
    check(vipool_ip_parse(address.data(), address.size(), &parsed));
    return parsed;
}

inline vipool_session session(std::uint32_t kind, std::uint64_t value)
{
    vipool_session made = 0;
    check(vipool_session_new(kind, value, &made));
    return made;
}

// A farm.toml with its findings.
class farm {
public:
    static farm load(std::string_view path)
    {
        vipool_farm *made = nullptr;
        check(vipool_farm_load(path.data(), path.size(), &made));
        return farm(made);
    }
    std::size_t errors() const { return vipool_farm_error_count(farm_.get()); }
    std::string report() const
    {
        return text([&](char *buffer, std::size_t capacity, std::size_t *length) {
            return vipool_farm_report(farm_.get(), buffer, capacity, length);
        });
    }
    plan_handle plan(std::string_view host)
    {
        vipool_plan *made = nullptr;
        check(vipool_farm_plan(farm_.get(), host.data(), host.size(), nullptr, 0, nullptr, &made));
        return plan_handle(made);
    }

private:
    explicit farm(vipool_farm *made) : farm_(made) {}
    farm_handle farm_;
};

// The pools and sessions of one moment.
class snapshot {
public:
    explicit snapshot(snapshot_handle made) : snapshot_(std::move(made)) {}

    // In pages, as for a table too large to be fetched at once.
    std::vector<vipool_session_row> sessions() const
    {
        return pages<vipool_session_row>(vipool_snapshot_sessions);
    }
    std::vector<vipool_pool_row> pools() const
    {
        return pages<vipool_pool_row>(vipool_snapshot_pools);
    }

private:
    template <class Row, class Fetch> std::vector<Row> pages(Fetch fetch) const
    {
        std::vector<Row> rows;
        Row page[16];
        std::size_t count = 0;
        do {
            page[0] = sized<Row>();
            check(fetch(snapshot_.get(), rows.size(), page, 16, &count));
            rows.insert(rows.end(), page, page + count);
        } while (count > 0);
        return rows;
    }
    snapshot_handle snapshot_;
};

// A map that this agent writes. Threads may share it.
class map {
public:
    static map create(std::string_view directory, const vipool_plan *plan,
                      const vipool_map_options &options)
    {
        vipool_map *made = nullptr;
        check(vipool_map_create(directory.data(), directory.size(), plan, &options, &made));
        return map(made);
    }
    vipool_opened open(vipool_session session, std::string_view user)
    {
        auto options = sized<vipool_open_options>();
        options.user = user.data();
        options.user_length = user.size();
        auto opened = sized<vipool_opened>();
        check(vipool_map_open_session(map_.get(), session, &options, vipool_now(), &opened));
        return opened;
    }
    void close(vipool_session session)
    {
        check(vipool_map_close_session(map_.get(), session, vipool_now(), nullptr));
    }
    vipool_changed drain(const vipool_range &range)
    {
        auto changed = sized<vipool_changed>();
        check(vipool_map_drain(map_.get(), &range, vipool_now(), &changed));
        return changed;
    }
    void reserve(const vipool_ip &address, std::string_view user)
    {
        check(vipool_map_reserve(map_.get(), &address, user.data(), user.size(), vipool_now(),
                                 nullptr));
    }
    vipool_reaped reap(const vipool_probe &probe)
    {
        auto reaped = sized<vipool_reaped>();
        check(vipool_map_reap(map_.get(), vipool_now(), 1000, &probe, &reaped));
        return reaped;
    }
    snapshot now() const
    {
        vipool_snapshot *made = nullptr;
        check(vipool_map_snapshot(map_.get(), &made));
        return snapshot(snapshot_handle(made));
    }

private:
    explicit map(vipool_map *made) : map_(made) {}
    map_handle map_;
};

} // namespace vipool

#endif
