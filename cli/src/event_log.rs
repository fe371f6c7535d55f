//! Writes events to the system log: journald, or syslog if journald does not accept the event.
//!
//! Each kind of event has a fixed `MESSAGE_ID` (systemd.journal-fields(7)). docs/events.md lists
//! the kinds and their `MESSAGE_ID`s. If no log can be reached, the functions of this module do
//! nothing.

use std::io;
use std::net::IpAddr;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use vipool::EXHAUSTED_MESSAGE;
use vipool::system::map_directory;

use crate::history::{Record, RecordKind, WHOLE_SERVER};
use crate::text::pluralize;

const JOURNALD_SOCKET: &str = "/run/systemd/journal/socket";
const SYSLOG_SOCKET: &str = "/dev/log";
/// The facility `daemon` of syslog(3).
const DAEMON_FACILITY: u8 = 3;

/// The kind of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EventKind {
    Assigned,
    Released,
    Exhausted,
    LowWater,
    Conflict,
    NotRewritten,
    UnknownPool,
    Gap,
    Administered,
}

impl EventKind {
    /// Returns the name, the message id and the priority (syslog(3)).
    fn properties(self) -> (&'static str, &'static str, u8) {
        match self {
            Self::Assigned => ("assigned", "2f6031fd7263419e8038b11046c0e2e1", 6),
            Self::Released => ("released", "4c36279782bd4608850dbda8d818126b", 6),
            Self::Exhausted => ("exhausted", "c687936e9d664af8a03ba6e5fe9fd260", 4),
            Self::LowWater => ("low-water", "5cc6a4fcc7e64ee99284b4ddc6bf602d", 4),
            Self::Conflict => ("conflict", "8ebe69d237f14e839f7537bc7d0b56b0", 4),
            Self::NotRewritten => ("not-rewritten", "827e37a00ad14f1a8cd14456e744ce6f", 5),
            Self::UnknownPool => ("unknown-pool", "9d0f3b1c7a5e4c60b1c2a94e6f0d8857", 4),
            Self::Gap => ("gap", "d3c2a4f07be94a6cb36a05b0ad6c3f5e", 4),
            Self::Administered => ("administered", "2b57148fcdcf48748aa66e9878decd1f", 5),
        }
    }
}

/// Logs records that were added to the history of the map in `directory`. Logs nothing if this map
/// is not the system's map.
pub fn log_records(directory: &Path, records: &[Record]) {
    if directory != map_directory() {
        return;
    }
    for record in records {
        let (kind, message) = describe_record(record);
        log(kind, record.time, &message, &record_fields(record));
    }
}

/// Returns the journald fields of a record. Omits a field if the record has no value for it.
fn record_fields(record: &Record) -> Vec<(&'static str, String)> {
    let to_text = |address: Option<IpAddr>| address.map(|address| address.to_string());
    let fields = [
        ("VIPOOL_SESSION", record.session.clone()),
        ("VIPOOL_ADDRESS", to_text(record.address).or_else(|| record.addresses.clone())),
        ("VIPOOL_USER", record.user.clone()),
        ("VIPOOL_CLIENT", to_text(record.client)),
        ("VIPOOL_ADMINISTRATOR", record.administrator.clone()),
    ];
    fields.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

/// Logs that `vipool up` cannot use an address, for example because another host uses it.
pub fn log_conflict(address: IpAddr, reason: &str) {
    let message = format!("cannot lease {address}: {reason}");
    log(
        EventKind::Conflict,
        Timestamp::now(),
        &message,
        &[("VIPOOL_ADDRESS", address.to_string())],
    );
}

/// Logs the reason why a program runs outside its session.
pub fn log_not_rewritten(program: &str, reason: &str) {
    let message = format!("{program} runs with the host's addresses: {reason}");
    let fields = [("VIPOOL_PROGRAM", program.to_owned())];
    log(EventKind::NotRewritten, Timestamp::now(), &message, &fields);
}

/// Logs that a session got no address, because vipool could not determine its pool.
pub fn log_unknown_pool(reason: &str) {
    log(EventKind::UnknownPool, Timestamp::now(), reason, &[]);
}

fn describe_record(record: &Record) -> (EventKind, String) {
    let session = record.session.as_deref().unwrap_or("?");
    let address = record.address.map(|address| address.to_string()).unwrap_or_default();
    let user = record.user.as_ref().map(|user| format!(" of {user}")).unwrap_or_default();
    let suffix = if record.reconciled { " (reconstructed)" } else { "" };
    match record.event {
        RecordKind::Assigned => {
            (EventKind::Assigned, format!("{address} is leased to session {session}{user}{suffix}"))
        }
        RecordKind::Released => (
            EventKind::Released,
            format!("{address} was released by session {session}{user}{suffix}"),
        ),
        RecordKind::Exhausted => (EventKind::Exhausted, EXHAUSTED_MESSAGE.to_owned()),
        RecordKind::LowWater => {
            (EventKind::LowWater, format!("the pool of {address} is below its low-water mark"))
        }
        RecordKind::Gap => {
            let lost_events = pluralize(record.lost.unwrap_or_default(), "event", "events");
            (EventKind::Gap, format!("lost {lost_events} before they reached the history"))
        }
        RecordKind::Drained
        | RecordKind::Undrained
        | RecordKind::Reserved
        | RecordKind::Unreserved
        | RecordKind::Up
        | RecordKind::Down => (EventKind::Administered, describe_action(record)),
    }
}

/// Describes an action of an administrator.
fn describe_action(record: &Record) -> String {
    let administrator = record.administrator.as_deref().unwrap_or("?");
    let address = record.address.map(|address| address.to_string()).unwrap_or_default();
    let addresses = match record.addresses.as_deref() {
        Some(WHOLE_SERVER) => "the server",
        range => range.unwrap_or_default(),
    };
    let user = record.user.as_deref().unwrap_or("?");
    match record.event {
        RecordKind::Drained => format!("{administrator} drained {addresses}"),
        RecordKind::Undrained => format!("{administrator} ended the drain of {addresses}"),
        RecordKind::Reserved => format!("{administrator} reserved {address} for {user}"),
        RecordKind::Unreserved => format!("{administrator} removed the reservation of {address}"),
        RecordKind::Down => format!("{administrator} ran vipool down"),
        _ => format!("{administrator} ran vipool up"),
    }
}

/// Logs an event that happened at `time`.
fn log(kind: EventKind, time: Timestamp, message: &str, fields: &[(&str, String)]) {
    let Ok(socket) = UnixDatagram::unbound() else { return };
    let journald_message = journald_message(kind, time, message, fields);
    if send(&socket, JOURNALD_SOCKET, &journald_message).is_err() {
        let _ = send(&socket, SYSLOG_SOCKET, &syslog_message(kind, time, message));
    }
}

fn send(socket: &UnixDatagram, path: &str, message: &str) -> io::Result<()> {
    // A slow log must not delay the caller.
    socket.set_nonblocking(true)?;
    socket.send_to(message.as_bytes(), path).map(drop)
}

/// Formats a message of journald's native protocol. Each line is a field, so line breaks in values
/// are replaced.
fn journald_message(
    kind: EventKind,
    time: Timestamp,
    message: &str,
    fields: &[(&str, String)],
) -> String {
    let (name, message_id, priority) = kind.properties();
    let (priority, time) = (priority.to_string(), time.to_string());
    let common_fields = [
        ("MESSAGE", message),
        ("MESSAGE_ID", message_id),
        ("PRIORITY", &priority),
        ("SYSLOG_IDENTIFIER", "vipool"),
        ("VIPOOL_EVENT", name),
        ("VIPOOL_TIME", &time),
    ];
    let fields = fields.iter().map(|(name, value)| (*name, value.as_str()));
    let format_field =
        |(name, value): (&str, &str)| format!("{name}={}\n", replace_control_chars(value));
    common_fields.into_iter().chain(fields).map(format_field).collect()
}

/// Formats a message of RFC 3164 without the host, which local syslog daemons add.
fn syslog_message(kind: EventKind, time: Timestamp, message: &str) -> String {
    let (name, _, priority) = kind.properties();
    let local_time = time.to_zoned(TimeZone::system());
    format!(
        "<{}>{} vipool[{}]: {name}: {}",
        DAEMON_FACILITY * 8 + priority,
        local_time.strftime("%b %e %H:%M:%S"),
        std::process::id(),
        replace_control_chars(message)
    )
}

/// Replaces control characters. A line break would start another field, and a terminal would
/// interpret the other control characters.
fn replace_control_chars(text: &str) -> String {
    text.replace(|character: char| character.is_control(), "?")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_cannot_add_fields() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let log_socket = UnixDatagram::bind(&path).unwrap();
        let socket = UnixDatagram::unbound().unwrap();
        let mut buffer = [0; 1024];

        let time: Timestamp = "2026-11-30T12:00:00Z".parse().unwrap();
        let fields = [("VIPOOL_USER", "eve\nPRIORITY=0".to_owned())];
        let message = journald_message(EventKind::Exhausted, time, EXHAUSTED_MESSAGE, &fields);
        send(&socket, path.to_str().unwrap(), &message).unwrap();
        let length = log_socket.recv(&mut buffer).unwrap();
        let received = std::str::from_utf8(&buffer[..length]).unwrap();
        let lines: Vec<_> = received.lines().collect();
        assert_eq!(lines[0], format!("MESSAGE={EXHAUSTED_MESSAGE}"));
        assert_eq!(lines[1], "MESSAGE_ID=c687936e9d664af8a03ba6e5fe9fd260");
        assert_eq!(lines[5..], ["VIPOOL_TIME=2026-11-30T12:00:00Z", "VIPOOL_USER=eve?PRIORITY=0"]);

        let message = syslog_message(EventKind::Conflict, time, "10.0.5.10 is taken");
        let local_day = time.to_zoned(TimeZone::system()).strftime("%b %e").to_string();
        assert!(message.starts_with(&format!("<28>{local_day} ")), "{message}");
        assert!(message.contains(":00 vipool["), "{message}");
        assert!(message.ends_with("]: conflict: 10.0.5.10 is taken"), "{message}");
    }

    #[test]
    fn action_of_an_administrator_names_its_addresses_and_the_administrator() {
        let time: Timestamp = "2026-11-30T12:00:00Z".parse().unwrap();
        let record = Record {
            addresses: Some("10.0.5.0-10.0.5.7".to_owned()),
            administrator: Some("carol".to_owned()),
            ..Record::new(time, RecordKind::Drained, String::new(), 0)
        };
        let fields = record_fields(&record);
        let expected = [("VIPOOL_ADDRESS", "10.0.5.0-10.0.5.7"), ("VIPOOL_ADMINISTRATOR", "carol")];
        assert_eq!(fields, expected.map(|(name, value)| (name, value.to_owned())));
    }

    #[test]
    fn message_ids_are_unique_and_documented() {
        let kinds = [
            EventKind::Assigned,
            EventKind::Released,
            EventKind::Exhausted,
            EventKind::LowWater,
            EventKind::Conflict,
            EventKind::NotRewritten,
            EventKind::UnknownPool,
            EventKind::Gap,
            EventKind::Administered,
        ];
        let events_page = include_str!("../../docs/events.md");
        let mut ids: Vec<_> = kinds.iter().map(|kind| kind.properties().1).collect();
        for kind in kinds {
            let (name, id, _) = kind.properties();
            assert!(
                id.len() == 32 && events_page.contains(&format!("| `{name}` | `{id}` |")),
                "{name}"
            );
        }
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), kinds.len());
    }
}
