//! `vipool history` and `vipool who`: show which session and user held an address, and when.

use std::net::IpAddr;
use std::process::ExitCode;

use anyhow::{Context, bail};
use jiff::Timestamp;
use serde::Serialize;
use vipool::map::Reader;
use vipool::range::Range;

use super::time_argument::parse_time;
use crate::history::{self, Record, RecordKind};
use crate::maps::selection::MapArgs;
use crate::output::print_json;
use crate::table::{self, local_time, table};
use crate::text::{escape, pluralize};

/// Show when addresses were leased, released, drained and reserved
///
/// The output also contains each run of 'vipool up' and 'vipool down'. For the commands of an
/// administrator, the output contains the user who logged on, also after su and sudo. Times are
/// local. With --csv or --json, times are in UTC.
///
/// The command reads the history and the new events in the map's journal. The history of the
/// system's map is in /var/lib/vipool, in an append-only file with checksums. 'vipool gc' moves the
/// events from the journal to the history, and removes old records. If events were lost before they
/// reached the history, the output shows a gap.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vipool history --since yesterday --user alice
  vipool history --csv > leases.csv")]
pub struct History {
    /// Start time: RFC 3339, or local (2026-03-01, '2026-03-01 14:30'), today, yesterday, '2h ago'
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    since: Option<Timestamp>,
    /// End time
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    until: Option<Timestamp>,
    /// Show only this user
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// Show only this session
    #[arg(long, value_name = "SESSION")]
    session: Option<String>,
    /// Show only this address
    #[arg(long, value_name = "ADDRESS")]
    address: Option<IpAddr>,
    /// Print comma-separated values, quoted as in RFC 4180. Control characters and spreadsheet
    /// formulas are escaped
    #[arg(long)]
    csv: bool,
    /// Print JSON
    #[arg(long, conflicts_with = "csv")]
    json: bool,
    #[command(flatten)]
    map: MapArgs,
}

/// Show to which session and user an address was leased at a given time
///
/// The answer comes from the history. It does not prove that the user used the address: any local
/// user can bind any address of the host unless the kernel prevents it.
#[derive(clap::Args)]
#[command(after_help = "Exit status:
  0  the address was leased
  1  the address was not leased, or the history does not cover this time

Example:
  vipool who 10.0.5.17 --at '2026-03-01 14:30'")]
pub struct Who {
    /// The address
    address: IpAddr,
    /// The time: RFC 3339, or local ('2026-03-01 14:30'), yesterday, '2h ago' [default: now]
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    at: Option<Timestamp>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    map: MapArgs,
}

/// The answer of `vipool who`.
#[derive(Serialize)]
struct Holder<'a> {
    address: IpAddr,
    session: Option<&'a str>,
    user: Option<&'a str>,
    client: Option<IpAddr>,
    from: Timestamp,
    /// `None` while the session still has the lease.
    until: Option<Timestamp>,
    /// Whether one of the two times was reconstructed by a comparison of the history with the map,
    /// and may be inexact.
    reconciled: bool,
}

/// Returns all records of the selected map: its history and the new events in its journal.
fn read_records(map: &MapArgs) -> anyhow::Result<Vec<Record>> {
    let directory = map.directory()?;
    let file = history::history_file(&directory);
    let (mut records, damaged_line_count) = history::read(&file)?;
    if damaged_line_count > 0 {
        let count_text = pluralize(damaged_line_count, "damaged line", "damaged lines");
        errln!("vipool: ignored {count_text} of {}", file.display());
    }
    match map.existing_directory().and_then(|directory| history::pending(&directory, &records)) {
        Ok(new_records) => records.extend(new_records),
        // If the map is missing or not accessible, the older records can still be read.
        Err(error) => errln!("vipool: the newest events are missing: {error:#}"),
    }
    Ok(records)
}

impl History {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let mut records = read_records(&self.map)?;
        records.retain(|record| self.matches(record));
        if self.json {
            print_json(&records)?;
        } else if self.csv {
            let mut csv_text =
                "time,event,session,address,user,client,reconciled,lost,administrator\n".to_owned();
            for record in &records {
                let fields = format_fields(record, false).map(|field| csv_field(&field));
                csv_text += &(fields.join(",") + "\n");
            }
            out!("{csv_text}")?;
        } else {
            let titles = ["TIME", "EVENT", "SESSION", "ADDRESS", "USER", "CLIENT", "NOTE"];
            let mut record_table = table(&titles);
            for record in &records {
                let fields = format_fields(record, true);
                let [time, event, session, address, user, client, reconciled, _, administrator] =
                    fields;
                let note = if let Some(lost_count) = record.lost {
                    format!("lost {}", pluralize(lost_count, "event", "events"))
                } else if !administrator.is_empty() {
                    format!("by {administrator}")
                } else if !reconciled.is_empty() {
                    "reconstructed".to_owned()
                } else {
                    String::new()
                };
                record_table.add_row([time, event, session, address, user, client, note]);
            }
            out!("{}", table::render(&record_table))?;
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Returns whether the options select the record. Gap records are never filtered by user,
    /// session or address, because the lost events can concern any of them.
    fn matches(&self, record: &Record) -> bool {
        let is_gap = record.event == RecordKind::Gap;
        self.since.is_none_or(|since| record.time >= since)
            && self.until.is_none_or(|until| record.time <= until)
            && (is_gap || self.user.is_none() || self.user == record.user)
            && (is_gap || self.session.is_none() || self.session == record.session)
            && (is_gap || self.address.is_none_or(|address| concerns(record, address)))
    }
}

/// Returns whether a record is about the address or about a range that contains the address.
fn concerns(record: &Record, address: IpAddr) -> bool {
    let range = record.addresses.as_ref().and_then(|addresses| addresses.parse::<Range>().ok());
    record.address == Some(address) || range.is_some_and(|range| range.contains(address))
}

/// Returns the fields of a record as text. `is_for_terminal` selects local times and escaped names.
fn format_fields(record: &Record, is_for_terminal: bool) -> [String; 9] {
    let time = if is_for_terminal { local_time(record.time) } else { record.time.to_string() };
    let event = serde_json::to_value(record.event).ok();
    let event = event.as_ref().and_then(|event| event.as_str()).unwrap_or_default().to_owned();
    let name_text = |name: &Option<String>| {
        let name = name.as_deref().unwrap_or_default();
        if is_for_terminal { escape(name) } else { name.to_owned() }
    };
    let address = record.address.map(|address| address.to_string());
    [
        time,
        event,
        record.session.clone().unwrap_or_default(),
        address.or_else(|| record.addresses.clone()).unwrap_or_default(),
        name_text(&record.user),
        record.client.map(|client| client.to_string()).unwrap_or_default(),
        if record.reconciled { "true".to_owned() } else { String::new() },
        record.lost.map(|lost| lost.to_string()).unwrap_or_default(),
        name_text(&record.administrator),
    ]
}

/// Formats a field of comma-separated values. Escapes control characters, which a terminal would
/// interpret. Puts an apostrophe before a field that a spreadsheet would interpret as a formula.
fn csv_field(field: &str) -> String {
    let mut escaped = String::new();
    if field.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        escaped.push('\'');
    }
    for character in field.chars() {
        match character.is_control() {
            true => escaped.extend(character.escape_default()),
            false => escaped.push(character),
        }
    }
    if escaped.contains([',', '"']) {
        format!("\"{}\"", escaped.replace('"', "\"\""))
    } else {
        escaped
    }
}

impl Who {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let time = self.at.unwrap_or_else(Timestamp::now);
        let mut records = read_records(&self.map)?;
        records.retain(|record| record.administrator.is_none());
        if let Some(lost_count) = lost_events_around(&records, time) {
            let count_text = pluralize(lost_count, "event", "events");
            errln!("vipool: lost {count_text} around this time: the answer may be wrong");
        }
        // A lease in the history has the first address of its slot. The map shows whether the given
        // address is the second address of a slot.
        let reader = Reader::attach(&self.map.directory()?).ok();
        let slot_address = reader.as_ref().and_then(|map| map.slot_address(self.address));
        let leased_address = slot_address.unwrap_or(self.address);
        let holder = find_holder(&records, leased_address, time)
            .map(|holder| Holder { address: self.address, ..holder });
        if self.json {
            print_json(&holder)?;
            return Ok(ExitCode::from(u8::from(holder.is_none())));
        }
        let Some(holder) = holder else {
            let is_recorded = records.iter().any(|record| record.address == Some(leased_address));
            if reader.is_some() && slot_address.is_none() && !is_recorded {
                outln!(
                    "{} belongs to no pool, so no session can lease it ('vipool status' shows the pools)",
                    self.address
                )?;
                return Ok(ExitCode::FAILURE);
            }
            let first_record = records.first().context("the history is empty")?;
            if time < first_record.time {
                bail!("the history begins later, at {}", local_time(first_record.time));
            }
            outln!("{} was not leased", self.address)?;
            return Ok(ExitCode::FAILURE);
        };
        let user = holder
            .user
            .map_or("an unknown user".to_owned(), |user| format!("user {}", escape(user)));
        let client = holder.client.map(|client| format!(" at {client}")).unwrap_or_default();
        let until = holder.until.map_or("now".to_owned(), local_time);
        let second_address_note = match leased_address == self.address {
            true => String::new(),
            false => format!(" (::1 of the session that leased {leased_address})"),
        };
        outln!(
            "{}{second_address_note} was leased to session {} of {user}{client}, from {} to {until}{}",
            self.address,
            holder.session.unwrap_or("?"),
            local_time(holder.from),
            if holder.reconciled { " (a time was reconstructed and may be inexact)" } else { "" },
        )?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Finds the lease of the address at `time`.
fn find_holder(records: &[Record], address: IpAddr, time: Timestamp) -> Option<Holder<'_>> {
    let is_change = |record: &&Record| {
        record.address == Some(address)
            && matches!(record.event, RecordKind::Assigned | RecordKind::Released)
    };
    let mut changes = records.iter().filter(is_change).peekable();
    while let Some(record) = changes.next() {
        // The next change ends the lease, even if the release record is missing.
        let next_change = changes.peek();
        let covers_time = record.event == RecordKind::Assigned
            && record.time <= time
            && next_change.is_none_or(|next_change| time < next_change.time);
        if covers_time {
            return Some(Holder {
                address,
                session: record.session.as_deref(),
                user: record.user.as_deref(),
                client: record.client,
                from: record.time,
                until: next_change.map(|next_change| next_change.time),
                reconciled: record.reconciled
                    || next_change.is_some_and(|next_change| next_change.reconciled),
            });
        }
    }
    None
}

/// Returns the number of lost events if the last record up to `time` or the next record is a gap.
fn lost_events_around(records: &[Record], time: Timestamp) -> Option<u64> {
    let first_later_index =
        records.iter().position(|record| record.time > time).unwrap_or(records.len());
    let neighbours = records
        .get(first_later_index.saturating_sub(1)..(first_later_index + 1).min(records.len()))?;
    neighbours.iter().find_map(|record| record.lost)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(event: RecordKind, second: i64, session: &str) -> Record {
        Record {
            session: Some(session.into()),
            address: Some("10.0.5.10".parse().unwrap()),
            user: Some(format!("user{session}")),
            ..Record::new(Timestamp::from_second(second).unwrap(), event, String::new(), 0)
        }
    }

    #[test]
    fn lease_covers_its_start_but_not_its_end() {
        let records = [
            record(RecordKind::Assigned, 100, "1"),
            record(RecordKind::Released, 200, "1"),
            record(RecordKind::Assigned, 300, "2"),
        ];
        let session_at = |second| {
            let time = Timestamp::from_second(second).unwrap();
            find_holder(&records, "10.0.5.10".parse().unwrap(), time)
                .and_then(|holder| holder.session)
        };
        for (second, session) in [
            (99, None),
            (100, Some("1")),
            (199, Some("1")),
            (200, None),
            (300, Some("2")),
            (999, Some("2")),
        ] {
            assert_eq!(session_at(second), session, "{second}");
        }
    }

    #[test]
    fn csv_fields_are_quoted_and_neutralised() {
        for (field, expected) in [
            ("alice", "alice"),
            ("a,\"b\"\n", "\"a,\"\"b\"\"\\n\""),
            ("=1+1", "'=1+1"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("-2", "'-2"),
            ("+2", "'+2"),
            ("\t=1", "'\\t=1"),
            ("\u{1b}[2J", "\\u{1b}[2J"),
            ("2026-03-01T00:00:00Z", "2026-03-01T00:00:00Z"),
        ] {
            assert_eq!(csv_field(field), expected, "{field:?}");
        }
    }
}
