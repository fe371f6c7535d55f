//! `vipool history` and `vipool who`: which session and user had an address, and when.

mod collect;
mod log;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde::Serialize;
use vipool::os::place::map_directory;

pub use collect::collect;
pub use log::{Keep, MOST_BYTES, Record, What};

use crate::place::Place;
use crate::table::{self, table};

/// Where the history of the system's map is.
const SYSTEM: &str = "/var/lib/vipool/history.log";

/// The file with the history of the map in this directory.
pub fn file_of(directory: &Path) -> PathBuf {
    if directory == map_directory() { SYSTEM.into() } else { directory.join("history.log") }
}

/// Show which sessions were given which addresses, and gave them back
///
/// What happened since the last look is taken from the map's journal first. The history of the
/// system is in /var/lib/vipool, checksummed and appended to only; 'vipool gc' removes what is too
/// old. What was lost before it got there is shown as a gap.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vipool history --since 2026-03-01 --user alice
  vipool history --csv > leases.csv")]
pub struct History {
    /// From this time on: RFC 3339, or local (2026-03-01, '2026-03-01 14:30')
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<Timestamp>,
    /// Up to this time
    #[arg(long, value_name = "TIME", value_parser = time)]
    until: Option<Timestamp>,
    /// Of this user only
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// Of this session only
    #[arg(long, value_name = "SESSION")]
    session: Option<String>,
    /// Of this address only
    #[arg(long, value_name = "ADDRESS")]
    address: Option<IpAddr>,
    /// Print comma-separated values (RFC 4180)
    #[arg(long)]
    csv: bool,
    /// Print JSON
    #[arg(long, conflicts_with = "csv")]
    json: bool,
    #[command(flatten)]
    place: Place,
}

/// Say which session and user an address was leased to at a moment
///
/// "Leased to" is what the history knows: any local user can bind any address of the host unless
/// the kernel stops it.
#[derive(clap::Args)]
#[command(after_help = "Exit status: 0 known, 1 leased to nobody or not known

Example:
  vipool who 10.0.5.17 --at '2026-03-01 14:30'")]
pub struct Who {
    /// The address
    address: IpAddr,
    /// The moment: RFC 3339, or local [default: now]
    #[arg(long, value_name = "TIME", value_parser = time)]
    at: Option<Timestamp>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

/// A lease as `who` tells it.
#[derive(Serialize)]
struct Holder<'a> {
    address: IpAddr,
    session: Option<&'a str>,
    user: Option<&'a str>,
    client: Option<IpAddr>,
    from: Timestamp,
    /// Null if it still has it.
    until: Option<Timestamp>,
    /// Whether one of the two times was found later, after a crash: it may be off.
    reconciled: bool,
}

/// A time as people write it.
fn time(text: &str) -> Result<Timestamp, String> {
    let local = || text.parse::<DateTime>().ok()?.to_zoned(TimeZone::system()).ok();
    text.parse().ok().or_else(|| Some(local()?.timestamp())).ok_or_else(|| {
        format!("{text:?} is not a time: write 2026-03-01T14:30:00Z, or local '2026-03-01 14:30'")
    })
}

/// The history of a map, with what happened just now.
fn records(place: &Place) -> anyhow::Result<Vec<Record>> {
    let directory = place.directory()?;
    let file = file_of(&directory);
    match collect(&directory, &file, None) {
        Ok(new) => crate::events::tell(&directory, &new),
        // What was written before can be read all the same: the map may be gone, or not for us.
        Err(error) => eprintln!("vipool: the last events are missing: {error:#}"),
    }
    let (records, damaged) = log::read(&file)?;
    if damaged > 0 {
        eprintln!("vipool: {damaged} lines of {} are damaged and left out", file.display());
    }
    Ok(records)
}

impl History {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let mut records = records(&self.place)?;
        records.retain(|record| self.wants(record));
        if self.json {
            println!("{}", serde_json::to_string_pretty(&records)?);
        } else if self.csv {
            println!("time,event,session,address,user,client,reconciled,lost");
            for record in &records {
                println!("{}", cells(record, false).map(|cell| csv(&cell)).join(","));
            }
        } else {
            let titles = ["TIME", "EVENT", "SESSION", "ADDRESS", "USER", "CLIENT", "NOTE"];
            let mut rows = table(&titles);
            for record in &records {
                let [time, event, session, address, user, client, reconciled, lost] =
                    cells(record, true);
                let note = match (&record.lost, reconciled.is_empty()) {
                    (Some(_), _) => format!("{lost} events were lost"),
                    (None, false) => "found later".to_owned(),
                    (None, true) => String::new(),
                };
                rows.add_row([time, event, session, address, user, client, note]);
            }
            print!("{}", table::render(&rows));
        }
        Ok(ExitCode::SUCCESS)
    }

    fn wants(&self, record: &Record) -> bool {
        let gap = record.event == What::Gap;
        self.since.is_none_or(|since| record.time >= since)
            && self.until.is_none_or(|until| record.time <= until)
            && (gap || self.user.is_none() || self.user == record.user)
            && (gap || self.session.is_none() || self.session == record.session)
            && (gap || self.address.is_none() || self.address == record.address)
    }
}

/// The fields of a record as text, for people or for programs.
fn cells(record: &Record, people: bool) -> [String; 8] {
    let time = match people {
        true => record.time.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string(),
        false => record.time.to_string(),
    };
    let event = serde_json::to_value(record.event).ok();
    let event = event.as_ref().and_then(|event| event.as_str()).unwrap_or_default().to_owned();
    let user = record.user.clone().unwrap_or_default();
    [
        time,
        event,
        record.session.clone().unwrap_or_default(),
        record.address.map(|address| address.to_string()).unwrap_or_default(),
        if people { user.escape_debug().to_string() } else { user },
        record.client.map(|client| client.to_string()).unwrap_or_default(),
        if record.reconciled { "true".to_owned() } else { String::new() },
        record.lost.map(|lost| lost.to_string()).unwrap_or_default(),
    ]
}

/// A field of comma-separated values.
fn csv(cell: &str) -> String {
    if cell.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", cell.replace('"', "\"\""))
    } else {
        cell.to_owned()
    }
}

impl Who {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let at = self.at.unwrap_or_else(Timestamp::now);
        let records = records(&self.place)?;
        if let Some(gap) = gap_around(&records, at) {
            eprintln!("vipool: {gap} events around this time were lost: the answer may be wrong");
        }
        let holder = holder(&records, self.address, at);
        if self.json {
            println!("{}", serde_json::to_string_pretty(&holder)?);
            return Ok(ExitCode::from(u8::from(holder.is_none())));
        }
        let Some(holder) = holder else {
            let first = records.first().context("the history is empty")?;
            if at < first.time {
                bail!("the history begins at {} only", first.time);
            }
            println!("{} was leased to nobody", self.address);
            return Ok(ExitCode::FAILURE);
        };
        let user = holder
            .user
            .map_or("an unknown user".to_owned(), |user| format!("user {}", user.escape_debug()));
        let client = holder.client.map(|client| format!(" at {client}")).unwrap_or_default();
        let until = holder.until.map_or("now".to_owned(), |until| until.to_string());
        println!(
            "{} was leased to session {} of {user}{client}, from {} to {until}{}",
            self.address,
            holder.session.unwrap_or("?"),
            holder.from,
            if holder.reconciled { " (a time was found later, and may be off)" } else { "" },
        );
        Ok(ExitCode::SUCCESS)
    }
}

/// Who had the address at that moment.
fn holder(records: &[Record], address: IpAddr, at: Timestamp) -> Option<Holder<'_>> {
    let its = |record: &&Record| {
        record.address == Some(address) && matches!(record.event, What::Assigned | What::Released)
    };
    let mut its = records.iter().filter(its).peekable();
    while let Some(record) = its.next() {
        let end =
            its.peek().filter(|next| next.event == What::Released || next.event == What::Assigned);
        let is_it = record.event == What::Assigned
            && record.time <= at
            && end.is_none_or(|end| at < end.time);
        if is_it {
            return Some(Holder {
                address,
                session: record.session.as_deref(),
                user: record.user.as_deref(),
                client: record.client,
                from: record.time,
                until: end.map(|end| end.time),
                reconciled: record.reconciled || end.is_some_and(|end| end.reconciled),
            });
        }
    }
    None
}

/// How many events were lost between the records on either side of that moment.
fn gap_around(records: &[Record], at: Timestamp) -> Option<u64> {
    let after = records.iter().position(|record| record.time > at).unwrap_or(records.len());
    let around = records.get(after.saturating_sub(1)..(after + 1).min(records.len()))?;
    around.iter().find_map(|record| record.lost)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(event: What, second: i64, session: &str) -> Record {
        Record {
            time: Timestamp::from_second(second).unwrap(),
            event,
            session: Some(session.into()),
            address: Some("10.0.5.10".parse().unwrap()),
            user: Some(format!("user{session}")),
            client: None,
            reconciled: false,
            lost: None,
            boot: String::new(),
            number: 0,
        }
    }

    #[test]
    fn a_moment_belongs_to_the_lease_it_is_in() {
        let records = [
            record(What::Assigned, 100, "1"),
            record(What::Released, 200, "1"),
            record(What::Assigned, 300, "2"),
        ];
        let who = |second| {
            let at = Timestamp::from_second(second).unwrap();
            holder(&records, "10.0.5.10".parse().unwrap(), at).and_then(|holder| holder.session)
        };
        for (second, session) in [
            (99, None),
            (100, Some("1")),
            (199, Some("1")),
            (200, None),
            (300, Some("2")),
            (999, Some("2")),
        ] {
            assert_eq!(who(second), session, "{second}");
        }
    }

    #[test]
    fn times_are_read_as_people_write_them() {
        assert_eq!(time("2026-03-01T14:30:00Z").unwrap().as_second(), 1_772_375_400);
        for text in ["2026-03-01", "2026-03-01 14:30", "2026-03-01 14:30:05"] {
            assert!(time(text).is_ok(), "{text}");
        }
        assert!(time("yesterday").unwrap_err().contains("yesterday"));
    }

    #[test]
    fn values_with_commas_are_quoted() {
        assert_eq!(csv("alice"), "alice");
        assert_eq!(csv("a,\"b\"\n"), "\"a,\"\"b\"\"\n\"");
    }
}
