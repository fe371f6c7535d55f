//! Converts the tables of farm.toml to a [`Farm`]. This module checks the type and the format of
//! each value. The module `validate` checks whether the values make a usable farm.

use std::net::IpAddr;

use ipnet::IpNet;

use super::section::{Section, TomlReader, Value, parse_seconds};
use super::{
    Farm, LoopbackOptions, NetworkOptions, PoolOptions, RewriteOptions, Server, ServerRange,
};
use crate::map::{AllocationTime, ExhaustionPolicy, SessionPer, Settings};
use crate::policy::flags::{BitValue, VisitFlags};
use crate::policy::{Features, PoolRule, Program, ProgramFlags};
use crate::pool::Reservation;
use crate::range::{AddressMistake, Range};

pub(super) fn read_farm(reader: &mut TomlReader<'_>, mut root: Section<'_>) -> Farm {
    let farm = Farm {
        network: read_table(reader, &mut root, "network", read_network),
        servers: read_named_values(reader, &mut root, "server", read_server),
        ranges: read_tables(reader, &mut root, "range", read_range),
        pools: read_named_values(reader, &mut root, "pool", read_pool),
        loopback: read_table(reader, &mut root, "loopback", read_loopback),
        sessions: read_table(reader, &mut root, "sessions", read_sessions),
        reservations: read_named_values(reader, &mut root, "reservations", read_reservations),
        rewrite: read_table(reader, &mut root, "rewrite", read_rewrite),
        programs: read_tables(reader, &mut root, "program", read_program),
    };
    root.finish(reader);
    farm
}

fn read_network(reader: &mut TomlReader<'_>, section: &mut Section<'_>) -> NetworkOptions {
    let subnets = section.take(reader, "subnets");
    let dhcp_ranges = section.take(reader, "dhcp-ranges");
    NetworkOptions {
        subnets: reader.read_list(subnets, read_subnet).unwrap_or_default(),
        dhcp_ranges: read_ranges(reader, dhcp_ranges).unwrap_or_default(),
    }
}

fn read_subnet(reader: &mut TomlReader<'_>, value: Value<'_>) -> Option<IpNet> {
    let text = reader.read_text(value.clone())?;
    match text.parse::<IpNet>().ok() {
        Some(prefix) if prefix == prefix.trunc() => return Some(prefix),
        Some(prefix) => {
            let remedy = format!("write {}", prefix.trunc());
            reader.report_value_error(&value, format!("{prefix} has host bits set"), remedy);
        }
        None => reader.report_value_error(
            &value,
            format!("{text:?} is not a subnet"),
            address_remedy(&text, "write a subnet such as 10.0.5.0/24"),
        ),
    }
    None
}

/// Returns the remedy for a common mistake in an address or a subnet, or `general_remedy` if `text`
/// has no such mistake.
fn address_remedy(text: &str, general_remedy: &str) -> String {
    AddressMistake::find(text)
        .map_or_else(|| general_remedy.to_owned(), |mistake| mistake.to_string())
}

fn read_address(reader: &mut TomlReader<'_>, value: Value<'_>) -> Option<IpAddr> {
    let text = reader.read_text(value.clone())?;
    let address = text.parse().ok();
    if address.is_none() {
        reader.report_value_error(
            &value,
            format!("{text:?} is not an address"),
            address_remedy(&text, "write an address such as 10.0.5.17"),
        );
    }
    address
}

fn read_server(reader: &mut TomlReader<'_>, name: String, value: Value<'_>) -> Option<Server> {
    let mut section = reader.read_section(value)?;
    let default_server = Server::new(&name);
    let server = Server {
        enabled: read_boolean(reader, &mut section, "enabled", default_server.enabled),
        max_sessions: section
            .take(reader, "max-sessions")
            .and_then(|value| reader.read_integer(value, 0..=u32::MAX)),
        ..default_server
    };
    section.finish(reader);
    Some(server)
}

fn read_range(reader: &mut TomlReader<'_>, section: &mut Section<'_>) -> ServerRange {
    let default_range = ServerRange::default();
    let addresses = section.take(reader, "addresses");
    let exclude = section.take(reader, "exclude");
    ServerRange {
        addresses: read_ranges(reader, addresses).unwrap_or_default(),
        exclude: read_ranges(reader, exclude).unwrap_or_default(),
        server: section.take(reader, "server").and_then(|value| reader.read_text(value)),
        pool: section
            .take(reader, "pool")
            .and_then(|value| reader.read_text(value))
            .unwrap_or(default_range.pool),
    }
}

fn read_pool(reader: &mut TomlReader<'_>, name: String, value: Value<'_>) -> Option<PoolOptions> {
    let mut section = reader.read_section(value)?;
    let pool = PoolOptions {
        rule: PoolRule {
            pool: name,
            users: read_texts(reader, &mut section, "users"),
            groups: read_texts(reader, &mut section, "groups"),
            programs: read_texts(reader, &mut section, "programs"),
        },
        max_addresses: section
            .take(reader, "max-addresses")
            .and_then(|value| reader.read_integer(value, 1..=crate::pool::MAX_SLOTS)),
    };
    section.finish(reader);
    Some(pool)
}

fn read_loopback(reader: &mut TomlReader<'_>, section: &mut Section<'_>) -> LoopbackOptions {
    let ranges = section.take(reader, "ranges");
    let exclude = section.take(reader, "exclude");
    LoopbackOptions {
        ranges: read_ranges(reader, ranges).unwrap_or(LoopbackOptions::default().ranges),
        exclude: read_ranges(reader, exclude).unwrap_or_default(),
    }
}

fn read_sessions(reader: &mut TomlReader<'_>, section: &mut Section<'_>) -> Settings {
    let default_settings = Settings::new();
    let mut read_number = |reader: &mut TomlReader<'_>, key, default| {
        section
            .take(reader, key)
            .and_then(|value| reader.read_integer(value, 0..=u32::MAX))
            .unwrap_or(default)
    };
    let low_water = read_number(reader, "low-water", default_settings.low_water);
    let sessions_per_user =
        read_number(reader, "sessions-per-user", default_settings.sessions_per_user);
    let max_sessions = read_number(reader, "max-sessions", default_settings.max_sessions);
    let allocation_times =
        [("logon", AllocationTime::Logon), ("first-use", AllocationTime::FirstUse)];
    Settings {
        low_water,
        sessions_per_user,
        max_sessions,
        cool_down: section
            .take(reader, "cool-down")
            .and_then(|value| reader.read_duration(value))
            .unwrap_or(default_settings.cool_down),
        check_in_use: read_boolean(reader, section, "check-in-use", default_settings.check_in_use),
        on_exhausted: section
            .take(reader, "when-exhausted")
            .and_then(|value| read_exhaustion_policy(reader, value))
            .unwrap_or(default_settings.on_exhausted),
        allocate: section
            .take(reader, "allocate")
            .and_then(|value| reader.read_keyword(value, &allocation_times))
            .unwrap_or(default_settings.allocate),
        session_per: section
            .take(reader, "session-per")
            .and_then(|value| {
                let keywords = [("logon", SessionPer::Logon), ("user", SessionPer::User)];
                reader.read_keyword(value, &keywords)
            })
            .unwrap_or(default_settings.session_per),
        await_restore: read_boolean(
            reader,
            section,
            "await-restore",
            default_settings.await_restore,
        ),
    }
}

/// Reads "pass", "refuse", or "wait" with a duration, such as "wait 30s".
fn read_exhaustion_policy(
    reader: &mut TomlReader<'_>,
    value: Value<'_>,
) -> Option<ExhaustionPolicy> {
    let text = reader.read_text(value.clone())?;
    if let Some(duration) = text.strip_prefix("wait") {
        let seconds = parse_seconds(duration);
        if seconds.is_none() {
            reader.report_value_error(
                &value,
                format!("{text:?} has no duration"),
                "write \"wait 30s\"",
            );
        }
        return seconds.map(ExhaustionPolicy::Wait);
    }
    reader.read_keyword(
        value,
        &[
            ("pass", ExhaustionPolicy::Pass),
            ("refuse", ExhaustionPolicy::Refuse),
            ("wait 30s", ExhaustionPolicy::Wait(30)),
        ],
    )
}

fn read_reservations(
    reader: &mut TomlReader<'_>,
    user: String,
    value: Value<'_>,
) -> Vec<Reservation> {
    let addresses = reader.read_list(Some(value), read_address);
    let reservation = |address| Reservation { user: user.clone(), address };
    addresses.unwrap_or_default().into_iter().map(reservation).collect()
}

fn read_rewrite(reader: &mut TomlReader<'_>, section: &mut Section<'_>) -> RewriteOptions {
    let default_options = RewriteOptions::default();
    let wildcard_udp_ports = section.take(reader, "wildcard-udp-ports");
    let fixed_ports = section.take(reader, "fixed-ports");
    let mut flags = default_options.flags;
    flags.visit(&mut FlagReader { reader, section });
    RewriteOptions {
        flags,
        wildcard_udp_ports: reader
            .read_list(wildcard_udp_ports, TomlReader::read_port_range)
            .unwrap_or(default_options.wildcard_udp_ports),
        fixed_ports: reader.read_list(fixed_ports, TomlReader::read_port_range).unwrap_or_default(),
    }
}

fn read_program(reader: &mut TomlReader<'_>, section: &mut Section<'_>) -> Program {
    let features = section.take(reader, "features");
    let own_ports = section.take(reader, "own-ports");
    let shared_ports = section.take(reader, "shared-ports");
    let mut flags = ProgramFlags::default();
    flags.visit(&mut FlagReader { reader, section });
    Program {
        pattern: section
            .take(reader, "path")
            .and_then(|value| reader.read_text(value))
            .unwrap_or_default(),
        target: None,
        script: section.take(reader, "script").and_then(|value| reader.read_text(value)),
        features: match features {
            Some(value) => read_features(reader, value),
            None => Features { virtual_ip: true, loopback: true, client_ip: false },
        },
        flags,
        own_ports: reader.read_list(own_ports, TomlReader::read_port_range).unwrap_or_default(),
        shared_ports: reader
            .read_list(shared_ports, TomlReader::read_port_range)
            .unwrap_or_default(),
    }
}

/// Reads the flags that `policy::flags` declares.
struct FlagReader<'r, 's, 'f, 't> {
    reader: &'r mut TomlReader<'s>,
    section: &'f mut Section<'t>,
}

impl VisitFlags for FlagReader<'_, '_, '_, '_> {
    fn visit<T: BitValue>(&mut self, key: &'static str, field: &mut T) {
        let Some(value) = self.section.take(self.reader, key) else { return };
        let flag_value = match T::KEYWORDS {
            None => self.reader.read_boolean(value).map(|is_set| T::VALUES[usize::from(is_set)]),
            Some([keyword0, keyword1]) => self
                .reader
                .read_keyword(value, &[(keyword0, T::VALUES[0]), (keyword1, T::VALUES[1])]),
        };
        if let Some(flag_value) = flag_value {
            *field = flag_value;
        }
    }
}

fn read_features(reader: &mut TomlReader<'_>, value: Value<'_>) -> Features {
    let feature_bits = reader
        .read_list(Some(value), |reader, value| reader.read_keyword(value, Features::TABLE))
        .unwrap_or_default();
    Features::from_bits(feature_bits.iter().fold(0, |bits, bit| bits | bit))
}

/// Reads a table. If the table is absent, every value has its default.
fn read_table<T>(
    reader: &mut TomlReader<'_>,
    parent: &mut Section<'_>,
    key: &'static str,
    read_keys: impl Fn(&mut TomlReader<'_>, &mut Section<'_>) -> T,
) -> T {
    let present_section = parent.take(reader, key).and_then(|value| reader.read_section(value));
    let mut section = present_section.unwrap_or_else(Section::empty);
    let options = read_keys(reader, &mut section);
    section.finish(reader);
    options
}

/// Reads a table whose keys are names. `read_value` returns the results for one name.
fn read_named_values<T, R: IntoIterator<Item = T>>(
    reader: &mut TomlReader<'_>,
    parent: &mut Section<'_>,
    key: &'static str,
    read_value: impl Fn(&mut TomlReader<'_>, String, Value<'_>) -> R,
) -> Vec<T> {
    let table = parent.take(reader, key);
    let entries = reader.read_named(table);
    entries.into_iter().flat_map(|(name, value)| read_value(reader, name, value)).collect()
}

/// Reads an array of tables.
fn read_tables<T>(
    reader: &mut TomlReader<'_>,
    parent: &mut Section<'_>,
    key: &'static str,
    read_keys: impl Fn(&mut TomlReader<'_>, &mut Section<'_>) -> T,
) -> Vec<T> {
    let array = parent.take(reader, key);
    let read_item = |reader: &mut TomlReader<'_>, table: Value<'_>| {
        let mut section = reader.read_section(table)?;
        let item = read_keys(reader, &mut section);
        section.finish(reader);
        Some(item)
    };
    reader.read_list(array, read_item).unwrap_or_default()
}

fn read_boolean(
    reader: &mut TomlReader<'_>,
    section: &mut Section<'_>,
    key: &'static str,
    default: bool,
) -> bool {
    section.take(reader, key).and_then(|value| reader.read_boolean(value)).unwrap_or(default)
}

fn read_texts(
    reader: &mut TomlReader<'_>,
    section: &mut Section<'_>,
    key: &'static str,
) -> Vec<String> {
    let value = section.take(reader, key);
    reader.read_list(value, TomlReader::read_text).unwrap_or_default()
}

fn read_ranges(reader: &mut TomlReader<'_>, value: Option<Value<'_>>) -> Option<Vec<Range>> {
    reader.read_list(value, |reader, value| reader.read_parsed(value, "fix or remove it"))
}
