//! Converts farm.toml to a [`Farm`]. This module reads each value by its key. The module `validate`
//! checks the relations between values.

use std::io::Read;
use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;
use toml::de::DeTable;

use super::finding::{Finding, Level, Report, position};
use super::section::{Section, TomlReader, Value, parse_seconds};
use super::{
    DEFAULT_SETTINGS, Farm, LoopbackOptions, NetworkOptions, PoolOptions, RewriteOptions, Server,
    ServerRange,
};
use crate::map::{AllocationTime, ExhaustionPolicy, Settings};
use crate::policy::flags::{BitValue, VisitFlags};
use crate::policy::{Features, PoolRule, Program, ProgramFlags};
use crate::pool::Reservation;
use crate::range::Range;

/// The maximum size of a file in bytes. The file of a farm with a thousand servers has a tenth of
/// this size.
const MAX_FILE: u64 = 4 << 20;

impl Farm {
    /// Reads and validates a file. Reports values with errors and treats them as absent. A file
    /// that cannot be opened results in an empty farm and an error in the report.
    #[must_use]
    pub fn load(file: &Path) -> (Farm, Report) {
        let (farm, report) = match read(file) {
            Ok(bytes) => parse_bytes(&bytes),
            Err(finding) => {
                let mut report = Report::default();
                report.extend([*finding]);
                (Farm::default(), report)
            }
        };
        (farm, report.with_file(file))
    }

    /// Parses and validates the text of a farm.toml.
    #[must_use]
    pub fn parse(text: &str) -> (Farm, Report) {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let (table, errors) = DeTable::parse_recoverable(text);
        let mut reader = TomlReader::new(text);
        let farm = farm(&mut reader, Section::root(table.get_ref()));
        let mut report = Report::new(text, reader.positions);
        report.extend(errors.iter().map(|error| {
            let span = error.span().unwrap_or(0..0);
            let value = text.get(span.clone()).unwrap_or_default();
            let message = format!("invalid TOML: {}", error.message());
            let remedy = "fix this line, or an unfinished line before it";
            let mut finding = Finding::new((Level::Error, "syntax"), "", value, message, remedy);
            finding.position = Some(position(text, span.start, span.end));
            finding
        }));
        // Do not report a value with an error as missing too. Report no other findings on a line
        // with a syntax error.
        let read_findings = reader.findings;
        let mut validation_findings = farm.validate();
        validation_findings.retain(|finding| {
            !(finding.value.is_empty()
                && read_findings.iter().any(|other| other.key.starts_with(&finding.key)))
        });
        report.extend(read_findings);
        report.extend(validation_findings);
        report.drop_beside("syntax");
        (farm, report)
    }
}

fn read(file: &Path) -> Result<Vec<u8>, Box<Finding>> {
    let finding = |message: String, remedy: &str| {
        Box::new(Finding::new((Level::Error, "file"), "", file.display(), message, remedy))
    };
    let unreadable = |e: std::io::Error| {
        finding(format!("cannot read the file: {e}"), "check its path and its permissions")
    };
    let mut bytes = Vec::new();
    let opened = std::fs::File::open(file).map_err(unreadable)?;
    opened.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(finding(
            "the file is larger than 4 MiB".to_owned(),
            "check that this is a farm.toml",
        ));
    }
    Ok(bytes)
}

fn parse_bytes(bytes: &[u8]) -> (Farm, Report) {
    let error = match str::from_utf8(bytes) {
        Ok(text) => return Farm::parse(text),
        Err(error) => error,
    };
    let offset = error.valid_up_to();
    let (farm, mut report) = Farm::parse(&String::from_utf8_lossy(bytes));
    let is_utf16 = bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff");
    let remedy =
        if is_utf16 { "save the file as UTF-8; it is UTF-16" } else { "save the file as UTF-8" };
    let code = (Level::Error, "encoding");
    let value = format!("{:#04x}", bytes[offset]);
    let mut finding = Finding::new(code, "", value, format!("byte {offset} is not UTF-8"), remedy);
    finding.position = Some(report.position(offset, offset + 1));
    report.extend([finding]);
    (farm, report)
}

fn farm(r: &mut TomlReader<'_>, mut root: Section<'_>) -> Farm {
    let farm = Farm {
        network: section(r, &mut root, "network", network),
        servers: {
            let servers = root.take(r, "server");
            r.named(servers)
                .into_iter()
                .filter_map(|(name, value)| server(r, name, value))
                .collect()
        },
        ranges: tables(r, &mut root, "range", range),
        pools: {
            let pools = root.take(r, "pool");
            r.named(pools).into_iter().filter_map(|(name, value)| pool(r, name, value)).collect()
        },
        loopback: section(r, &mut root, "loopback", loopback),
        sessions: section(r, &mut root, "sessions", sessions),
        reservations: {
            let users = root.take(r, "reservations");
            r.named(users)
                .into_iter()
                .flat_map(|(user, value)| reservations(r, &user, value))
                .collect()
        },
        rewrite: section(r, &mut root, "rewrite", rewrite),
        programs: tables(r, &mut root, "program", program),
    };
    root.finish(r);
    farm
}

fn network(r: &mut TomlReader<'_>, s: &mut Section<'_>) -> NetworkOptions {
    let subnets = s.take(r, "subnets");
    let dhcp = s.take(r, "dhcp-ranges");
    NetworkOptions {
        subnets: r.list(subnets, subnet).unwrap_or_default(),
        dhcp_ranges: ranges(r, dhcp).unwrap_or_default(),
    }
}

fn subnet(r: &mut TomlReader<'_>, value: Value<'_>) -> Option<IpNet> {
    let text = r.text(value.clone())?;
    let net: Option<IpNet> = text.parse().ok();
    match net {
        Some(net) if net == net.trunc() => return Some(net),
        Some(net) => {
            let remedy = format!("write {}", net.trunc());
            r.value_error(&value, format!("{net} has host bits set"), remedy);
        }
        None => r.value_error(
            &value,
            format!("{text:?} is not a subnet"),
            "write a subnet such as 10.0.5.0/24",
        ),
    }
    None
}

fn address(r: &mut TomlReader<'_>, value: Value<'_>) -> Option<IpAddr> {
    let text = r.text(value.clone())?;
    let address = text.parse().ok();
    if address.is_none() {
        r.value_error(
            &value,
            format!("{text:?} is not an address"),
            "write an address such as 10.0.5.17",
        );
    }
    address
}

fn server(r: &mut TomlReader<'_>, name: String, value: Value<'_>) -> Option<Server> {
    let mut s = r.section(value)?;
    let default = Server::new(&name);
    let server = Server {
        enabled: boolean(r, &mut s, "enabled", default.enabled),
        max_sessions: s.take(r, "max-sessions").and_then(|v| r.number(v, 0..=u32::MAX)),
        ..default
    };
    s.finish(r);
    Some(server)
}

fn range(r: &mut TomlReader<'_>, s: &mut Section<'_>) -> ServerRange {
    let default = ServerRange::default();
    let addresses = s.take(r, "addresses");
    let exclude = s.take(r, "exclude");
    ServerRange {
        addresses: ranges(r, addresses).unwrap_or_default(),
        exclude: ranges(r, exclude).unwrap_or_default(),
        server: s.take(r, "server").and_then(|v| r.text(v)),
        pool: s.take(r, "pool").and_then(|v| r.text(v)).unwrap_or(default.pool),
    }
}

fn pool(r: &mut TomlReader<'_>, name: String, value: Value<'_>) -> Option<PoolOptions> {
    let mut s = r.section(value)?;
    let pool = PoolOptions {
        rule: PoolRule {
            pool: name,
            users: texts(r, &mut s, "users"),
            groups: texts(r, &mut s, "groups"),
            programs: texts(r, &mut s, "programs"),
        },
        max_addresses: s
            .take(r, "max-addresses")
            .and_then(|v| r.number(v, 1..=crate::pool::MAX_SLOTS)),
    };
    s.finish(r);
    Some(pool)
}

fn loopback(r: &mut TomlReader<'_>, s: &mut Section<'_>) -> LoopbackOptions {
    let (included, exclude) = (s.take(r, "ranges"), s.take(r, "exclude"));
    LoopbackOptions {
        ranges: ranges(r, included).unwrap_or(LoopbackOptions::default().ranges),
        exclude: ranges(r, exclude).unwrap_or_default(),
    }
}

fn sessions(r: &mut TomlReader<'_>, s: &mut Section<'_>) -> Settings {
    let default = DEFAULT_SETTINGS;
    let mut number = |r: &mut TomlReader<'_>, key, default| {
        s.take(r, key).and_then(|v| r.number(v, 0..=u32::MAX)).unwrap_or(default)
    };
    let low_water = number(r, "low-water", default.low_water);
    let sessions_per_user = number(r, "sessions-per-user", default.sessions_per_user);
    let max_sessions = number(r, "max-sessions", default.max_sessions);
    let allocation_times =
        [("logon", AllocationTime::Logon), ("first-use", AllocationTime::FirstUse)];
    Settings {
        low_water,
        sessions_per_user,
        max_sessions,
        cool_down: s.take(r, "cool-down").and_then(|v| r.seconds(v)).unwrap_or(default.cool_down),
        check_in_use: boolean(r, s, "check-in-use", default.check_in_use),
        on_exhausted: s
            .take(r, "when-exhausted")
            .and_then(|v| when_exhausted(r, v))
            .unwrap_or(default.on_exhausted),
        allocate: s
            .take(r, "allocate")
            .and_then(|v| r.word(v, &allocation_times))
            .unwrap_or(default.allocate),
        await_restore: boolean(r, s, "await-restore", default.await_restore),
    }
}

/// Reads "pass", "refuse" or "wait 30s".
fn when_exhausted(r: &mut TomlReader<'_>, value: Value<'_>) -> Option<ExhaustionPolicy> {
    let text = r.text(value.clone())?;
    if let Some(time) = text.strip_prefix("wait") {
        let seconds = parse_seconds(time);
        if seconds.is_none() {
            r.value_error(&value, format!("{text:?} has no duration"), "write \"wait 30s\"");
        }
        return seconds.map(ExhaustionPolicy::Wait);
    }
    r.word(
        value,
        &[
            ("pass", ExhaustionPolicy::Pass),
            ("refuse", ExhaustionPolicy::Refuse),
            ("wait 30s", ExhaustionPolicy::Wait(30)),
        ],
    )
}

fn reservations(r: &mut TomlReader<'_>, user: &str, value: Value<'_>) -> Vec<Reservation> {
    let addresses = r.list(Some(value), address);
    let reservation = |address| Reservation { user: user.to_owned(), address };
    addresses.unwrap_or_default().into_iter().map(reservation).collect()
}

fn rewrite(r: &mut TomlReader<'_>, s: &mut Section<'_>) -> RewriteOptions {
    let default = RewriteOptions::default();
    let (udp, fixed) = (s.take(r, "wildcard-udp-ports"), s.take(r, "fixed-ports"));
    let mut flags = default.flags;
    flags.visit(&mut FlagReader { reader: r, section: s });
    RewriteOptions {
        flags,
        wildcard_udp_ports: r.list(udp, TomlReader::ports).unwrap_or(default.wildcard_udp_ports),
        fixed_ports: r.list(fixed, TomlReader::ports).unwrap_or_default(),
    }
}

fn program(r: &mut TomlReader<'_>, s: &mut Section<'_>) -> Program {
    let features = s.take(r, "features");
    let (own, shared) = (s.take(r, "own-ports"), s.take(r, "shared-ports"));
    let mut flags = ProgramFlags::default();
    flags.visit(&mut FlagReader { reader: r, section: s });
    Program {
        pattern: s.take(r, "path").and_then(|v| r.text(v)).unwrap_or_default(),
        target: None,
        script: s.take(r, "script").and_then(|v| r.text(v)),
        features: match features {
            Some(value) => self::features(r, value),
            None => Features { virtual_ip: true, loopback: true, client_ip: false },
        },
        flags,
        own_ports: r.list(own, TomlReader::ports).unwrap_or_default(),
        shared_ports: r.list(shared, TomlReader::ports).unwrap_or_default(),
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
        let read = match T::WORDS {
            None => self.reader.boolean(value).map(|is_set| T::VALUES[usize::from(is_set)]),
            Some([clear, set]) => {
                self.reader.word(value, &[(clear, T::VALUES[0]), (set, T::VALUES[1])])
            }
        };
        if let Some(read) = read {
            *field = read;
        }
    }
}

fn features(r: &mut TomlReader<'_>, value: Value<'_>) -> Features {
    let bits = r.list(Some(value), |r, v| r.word(v, Features::TABLE)).unwrap_or_default();
    Features::from_bits(bits.iter().fold(0, |all, bit| all | bit))
}

/// Reads a table. If the table is absent, every value has its default.
fn section<T>(
    r: &mut TomlReader<'_>,
    parent: &mut Section<'_>,
    key: &'static str,
    read: impl Fn(&mut TomlReader<'_>, &mut Section<'_>) -> T,
) -> T {
    let value = parent.take(r, key).and_then(|value| r.section(value));
    let mut section = value.unwrap_or_else(Section::empty);
    let read = read(r, &mut section);
    section.finish(r);
    read
}

/// Reads an array of tables.
fn tables<T>(
    r: &mut TomlReader<'_>,
    parent: &mut Section<'_>,
    key: &'static str,
    read: impl Fn(&mut TomlReader<'_>, &mut Section<'_>) -> T,
) -> Vec<T> {
    let value = parent.take(r, key);
    let one = |r: &mut TomlReader<'_>, value: Value<'_>| {
        let mut section = r.section(value)?;
        let read = read(r, &mut section);
        section.finish(r);
        Some(read)
    };
    r.list(value, one).unwrap_or_default()
}

fn boolean(r: &mut TomlReader<'_>, s: &mut Section<'_>, key: &'static str, default: bool) -> bool {
    s.take(r, key).and_then(|value| r.boolean(value)).unwrap_or(default)
}

fn texts(r: &mut TomlReader<'_>, s: &mut Section<'_>, key: &'static str) -> Vec<String> {
    let value = s.take(r, key);
    r.list(value, TomlReader::text).unwrap_or_default()
}

fn ranges(r: &mut TomlReader<'_>, value: Option<Value<'_>>) -> Option<Vec<Range>> {
    r.list(value, |r, v| r.parsed(v, "fix or remove it"))
}
