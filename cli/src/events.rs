//! Events for the administrator's log: journald, or syslog where there is no journald.
//!
//! Each kind has an id of its own (`MESSAGE_ID`, systemd.journal-fields(7)), listed in
//! docs/events.md. A log that cannot be reached is no reason to fail.

use std::io;
use std::net::IpAddr;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use vipool::EXHAUSTED_MESSAGE;
use vipool::os::place::map_directory;

use crate::history::{Record, What};

const JOURNALD: &str = "/run/systemd/journal/socket";
const SYSLOG: &str = "/dev/log";
/// `daemon` of syslog(3).
const FACILITY: u8 = 3;

/// A kind of event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Assigned,
    Released,
    Exhausted,
    LowWater,
    Conflict,
    NotRewritten,
    Gap,
}

impl Kind {
    /// Its name, id and priority (syslog(3)).
    fn traits(self) -> (&'static str, &'static str, u8) {
        match self {
            Self::Assigned => ("assigned", "2f6031fd7263419e8038b11046c0e2e1", 6),
            Self::Released => ("released", "4c36279782bd4608850dbda8d818126b", 6),
            Self::Exhausted => ("exhausted", "c687936e9d664af8a03ba6e5fe9fd260", 4),
            Self::LowWater => ("low-water", "5cc6a4fcc7e64ee99284b4ddc6bf602d", 4),
            Self::Conflict => ("conflict", "8ebe69d237f14e839f7537bc7d0b56b0", 4),
            Self::NotRewritten => ("not-rewritten", "827e37a00ad14f1a8cd14456e744ce6f", 5),
            Self::Gap => ("gap", "d3c2a4f07be94a6cb36a05b0ad6c3f5e", 4),
        }
    }
}

/// Logs what the history learned of the system's map. Private maps are their user's own business.
pub fn tell(directory: &Path, records: &[Record]) {
    if directory != map_directory() {
        return;
    }
    for record in records {
        let (kind, message) = described(record);
        let text = |address: Option<IpAddr>| address.map(|address| address.to_string());
        let fields = [
            ("VIPOOL_SESSION", record.session.clone()),
            ("VIPOOL_ADDRESS", text(record.address)),
            ("VIPOOL_USER", record.user.clone()),
            ("VIPOOL_CLIENT", text(record.client)),
        ];
        let fields: Vec<_> =
            fields.iter().filter_map(|(name, value)| Some((*name, value.as_deref()?))).collect();
        log(kind, &message, &fields);
    }
}

/// Logs an address that somebody else has.
pub fn conflict(address: IpAddr, why: &str) {
    let message = format!("{address} is not given out: {why}");
    log(Kind::Conflict, &message, &[("VIPOOL_ADDRESS", &address.to_string())]);
}

/// Logs why a program runs outside the session it was meant for.
pub fn not_rewritten(program: &str, why: &str) {
    let message = format!("{program} runs with the host's addresses: {why}");
    log(Kind::NotRewritten, &message, &[("VIPOOL_PROGRAM", program)]);
}

fn described(record: &Record) -> (Kind, String) {
    let session = record.session.as_deref().unwrap_or("?");
    let address = record.address.map(|address| address.to_string()).unwrap_or_default();
    let user = record.user.as_ref().map(|user| format!(" of {user}")).unwrap_or_default();
    let later = if record.reconciled { " (found later)" } else { "" };
    match record.event {
        What::Assigned => {
            (Kind::Assigned, format!("{address} is leased to session {session}{user}{later}"))
        }
        What::Released => {
            (Kind::Released, format!("{address} was given back by session {session}{user}{later}"))
        }
        What::Exhausted => (Kind::Exhausted, EXHAUSTED_MESSAGE.to_owned()),
        What::LowWater => {
            (Kind::LowWater, format!("the pool of {address} is below its low-water mark"))
        }
        What::Gap => {
            let lost = record.lost.unwrap_or_default();
            (Kind::Gap, format!("{lost} events were lost before they reached the history"))
        }
    }
}

fn log(kind: Kind, message: &str, fields: &[(&str, &str)]) {
    let Ok(socket) = UnixDatagram::unbound() else { return };
    let sent = send(&socket, JOURNALD, &for_journald(kind, message, fields));
    if sent.is_err() {
        let _ = send(&socket, SYSLOG, &for_syslog(kind, message));
    }
}

fn send(socket: &UnixDatagram, path: &str, message: &str) -> io::Result<()> {
    // A log that does not keep up is not waited for.
    socket.set_nonblocking(true)?;
    socket.send_to(message.as_bytes(), path).map(drop)
}

/// The native protocol: a field a line, values without line breaks.
fn for_journald(kind: Kind, message: &str, fields: &[(&str, &str)]) -> String {
    let (name, id, priority) = kind.traits();
    let priority = priority.to_string();
    let always = [
        ("MESSAGE", message),
        ("MESSAGE_ID", id),
        ("PRIORITY", &priority),
        ("SYSLOG_IDENTIFIER", "vipool"),
        ("VIPOOL_EVENT", name),
    ];
    let line = |(name, value): &(&str, &str)| format!("{name}={}\n", plain(value));
    always.iter().chain(fields).map(line).collect()
}

/// RFC 3164, as local syslog daemons read it: they add time and host.
fn for_syslog(kind: Kind, message: &str) -> String {
    let (name, _, priority) = kind.traits();
    let pid = std::process::id();
    format!("<{}>vipool[{pid}]: {name}: {}", FACILITY * 8 + priority, plain(message))
}

/// Without what would begin another line or field, or move a terminal.
fn plain(text: &str) -> String {
    text.replace(|character: char| character.is_control(), "?")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_logs_get_what_they_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let log = UnixDatagram::bind(&path).unwrap();
        let socket = UnixDatagram::unbound().unwrap();
        let mut buffer = [0; 1024];

        let fields = [("VIPOOL_USER", "eve\nPRIORITY=0")];
        let text = for_journald(Kind::Exhausted, EXHAUSTED_MESSAGE, &fields);
        send(&socket, path.to_str().unwrap(), &text).unwrap();
        let length = log.recv(&mut buffer).unwrap();
        let received = std::str::from_utf8(&buffer[..length]).unwrap();
        let lines: Vec<_> = received.lines().collect();
        assert_eq!(lines[0], format!("MESSAGE={EXHAUSTED_MESSAGE}"));
        assert_eq!(lines[1], "MESSAGE_ID=c687936e9d664af8a03ba6e5fe9fd260");
        assert_eq!(lines[5], "VIPOOL_USER=eve?PRIORITY=0");
        assert_eq!(lines.len(), 6);

        let text = for_syslog(Kind::Conflict, "10.0.5.10 is taken");
        assert!(text.starts_with("<28>vipool["), "{text}");
        assert!(text.ends_with("]: conflict: 10.0.5.10 is taken"), "{text}");
    }

    #[test]
    fn every_kind_has_an_id_of_its_own() {
        let kinds = [
            Kind::Assigned,
            Kind::Released,
            Kind::Exhausted,
            Kind::LowWater,
            Kind::Conflict,
            Kind::NotRewritten,
            Kind::Gap,
        ];
        let page = include_str!("../../docs/events.md");
        let mut ids: Vec<_> = kinds.iter().map(|kind| kind.traits().1).collect();
        for kind in kinds {
            let (name, id, _) = kind.traits();
            assert!(id.len() == 32 && page.contains(&format!("| `{name}` | `{id}` |")), "{name}");
        }
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), kinds.len());
    }
}
