//! From the journal of a map to the history on disk.
//!
//! What the journal could not hold becomes a gap; what neither of them tells, since a writer was
//! killed or the machine was started anew, is found by comparing the history with the map.

use std::net::IpAddr;
use std::path::Path;
use std::time::SystemTime;

use jiff::{SignedDuration, Timestamp};
use vipool::map::{Event, EventKind, Journal, Map, SessionRow};

use super::log::{Keep, Log, Record, State, What};
use crate::report::wall_clock;

/// A session that waits for an address asks again and again: it is noted once in this time.
const EXHAUSTED_AGAIN: SignedDuration = SignedDuration::from_secs(60);
/// How often the map is looked at again because somebody changed it meanwhile.
const TRIES: usize = 8;

/// Appends what happened since the last time, and tells it. What is not to be kept is removed.
pub fn collect(
    directory: &Path,
    history: &Path,
    keep: Option<&Keep>,
) -> anyhow::Result<Vec<Record>> {
    // First: while we hold it, no other process collects.
    let mut log = Log::open(history)?;
    if let Some(keep) = keep {
        log.keep(keep, SystemTime::now())?;
    }
    let map = Map::open(directory)?;
    let journal = Journal::open(directory)?;
    let boot = format!("{:016x}", journal.boot());
    let first = match &log.state().last {
        // A journal that is behind its history is a new one.
        Some((of, number)) if *of == boot && *number < journal.next() => number + 1,
        _ => 1,
    };
    let mut tries = 0;
    let (rows, recent) = loop {
        let before = journal.next();
        let rows = map.sessions()?;
        let recent = journal.since(first);
        tries += 1;
        if recent.next == before || tries == TRIES {
            break (rows, recent);
        }
    };
    let mut records =
        Records { boot, state: log.state().clone(), new: Vec::new(), number: first - 1 };
    records.end_of_other_boots();
    if recent.lost > 0 {
        let time = recent.events.first().map_or_else(Timestamp::now, |event| wall_clock(event.at));
        records.number = first - 1 + recent.lost;
        records.push(Record { lost: Some(recent.lost), ..records.blank(time, What::Gap) });
    }
    for event in &recent.events {
        records.event(event);
    }
    // Only where nobody was in between: else the next time.
    if journal.next() == recent.next {
        records.reconcile(&rows);
    }
    log.append(&records.new)?;
    Ok(records.new)
}

/// Records that are being made.
struct Records {
    boot: String,
    state: State,
    new: Vec<Record>,
    /// Number of the last event looked at.
    number: u64,
}

impl Records {
    fn push(&mut self, record: Record) {
        self.state.add(&record);
        self.new.push(record);
    }

    fn blank(&self, time: Timestamp, event: What) -> Record {
        Record {
            time,
            event,
            session: None,
            address: None,
            user: None,
            client: None,
            reconciled: false,
            lost: None,
            boot: self.boot.clone(),
            number: self.number,
        }
    }

    fn event(&mut self, event: &Event) {
        self.number = event.number;
        let time = wall_clock(event.at);
        let session = event.session.to_string();
        let what = match event.kind {
            EventKind::Released => return self.release(&session, time, false),
            EventKind::Assigned => What::Assigned,
            EventKind::LowWater => What::LowWater,
            EventKind::Exhausted => {
                let last = self.state.exhausted.get(&session);
                if last.is_some_and(|last| time.duration_since(*last) < EXHAUSTED_AGAIN) {
                    return;
                }
                What::Exhausted
            }
        };
        if let (What::Assigned, Some(address)) = (what, event.address) {
            match self.state.open.get(&address).and_then(|record| record.session.clone()) {
                Some(holder) if holder == session => return,
                // Its end is what was lost.
                Some(holder) => self.release(&holder, time, true),
                None => {}
            }
        }
        self.push(Record {
            session: Some(session),
            address: event.address,
            user: event.user.clone(),
            client: event.client,
            ..self.blank(time, what)
        });
    }

    fn is_open(&self, address: IpAddr, session: &str) -> bool {
        self.state
            .open
            .get(&address)
            .is_some_and(|record| record.session.as_deref() == Some(session))
    }

    /// Everything that a session had.
    fn release(&mut self, session: &str, time: Timestamp, reconciled: bool) {
        let its = |record: &&Record| record.session.as_deref() == Some(session);
        let held: Vec<_> = self.state.open.values().filter(its).cloned().collect();
        for record in held {
            let (boot, number) = (self.boot.clone(), self.number);
            self.push(Record { time, event: What::Released, reconciled, boot, number, ..record });
        }
    }

    /// What was open when the machine went down was over by the time it came up.
    fn end_of_other_boots(&mut self) {
        let over = |record: &&Record| record.boot != self.boot;
        let over: Vec<_> = self.state.open.values().filter(over).cloned().collect();
        for record in over {
            if let Some(session) = &record.session {
                self.release(session, wall_clock(0).max(record.time), true);
            }
        }
    }

    /// What the map has and the history has not, and the other way round.
    fn reconcile(&mut self, rows: &[SessionRow]) {
        let has = |session: &str, address: IpAddr| {
            rows.iter().any(|row| {
                row.session.to_string() == session
                    && row.leases.iter().any(|lease| lease.address == address)
            })
        };
        let gone = |(address, record): &(&IpAddr, &Record)| {
            record.session.as_deref().is_none_or(|session| !has(session, **address))
        };
        let gone: Vec<_> = self.state.open.iter().filter(gone).map(|(_, r)| r.clone()).collect();
        for record in gone {
            let (boot, number) = (self.boot.clone(), self.number);
            let time = Timestamp::now();
            self.push(Record {
                time,
                event: What::Released,
                reconciled: true,
                boot,
                number,
                ..record
            });
        }
        for row in rows {
            let session = row.session.to_string();
            for lease in row.leases.iter() {
                if !self.is_open(lease.address, &session) {
                    self.push(Record {
                        session: Some(session.clone()),
                        address: Some(lease.address),
                        user: row.user.clone(),
                        client: row.client,
                        reconciled: true,
                        ..self.blank(wall_clock(row.since), What::Assigned)
                    });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vipool::map::{JOURNAL_CAPACITY, OpenOptions, Plan};
    use vipool::os::clock;
    use vipool::pool::{Pool, PoolKind};

    fn map(directory: &Path) -> Map {
        let ranges = ["10.0.5.10-10.0.5.11".parse().unwrap()];
        let pool = Pool::new("default", PoolKind::VirtualIp, &ranges, u32::MAX).unwrap();
        Map::create(directory, &Plan { pools: vec![pool], ..Plan::default() }).unwrap()
    }

    fn open(map: &Map, session: u64, user: &str) {
        let options = OpenOptions { user: Some(user), ..OpenOptions::default() };
        let _ = map.open_session(session.to_string().parse().unwrap(), &options, clock::now());
    }

    fn close(map: &Map, session: u64) {
        map.close_session(session.to_string().parse().unwrap(), clock::now()).unwrap();
    }

    fn told(records: &[Record]) -> Vec<(What, Option<&str>, bool)> {
        records
            .iter()
            .map(|record| (record.event, record.session.as_deref(), record.reconciled))
            .collect()
    }

    #[test]
    fn everything_is_told_once() {
        let directory = tempfile::tempdir().unwrap();
        let history = directory.path().join("history.log");
        let map = map(directory.path());
        open(&map, 1, "alice");
        open(&map, 2, "bob");
        // Asks again and again.
        open(&map, 3, "carol");
        open(&map, 3, "carol");
        close(&map, 1);
        let first = collect(directory.path(), &history, None).unwrap();
        let expected = [
            (What::Assigned, Some("1"), false),
            (What::Assigned, Some("2"), false),
            (What::Exhausted, Some("3"), false),
            (What::Released, Some("1"), false),
        ];
        assert_eq!(told(&first), expected);
        assert_eq!(first[3].user.as_deref(), Some("alice"));
        assert_eq!(first[3].address, first[0].address);
        assert_eq!(collect(directory.path(), &history, None).unwrap(), []);
        close(&map, 2);
        let second = collect(directory.path(), &history, None).unwrap();
        assert_eq!(told(&second), [(What::Released, Some("2"), false)]);
    }

    #[test]
    fn what_the_journal_lost_is_a_gap_and_what_is_true_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let history = directory.path().join("history.log");
        let map = map(directory.path());
        open(&map, 1, "alice");
        collect(directory.path(), &history, None).unwrap();
        close(&map, 1);
        open(&map, 2, "bob");
        for _ in 0..JOURNAL_CAPACITY {
            open(&map, 3, "carol");
            close(&map, 3);
        }
        let records = collect(directory.path(), &history, None).unwrap();
        assert_eq!((records[0].event, records[0].lost), (What::Gap, Some(JOURNAL_CAPACITY + 2)));
        let reconciled: Vec<_> =
            told(&records).into_iter().filter(|(_, _, reconciled)| *reconciled).collect();
        let expected = [(What::Released, Some("1"), true), (What::Assigned, Some("2"), true)];
        assert_eq!(reconciled, expected);
        let state = Log::open(&history).unwrap().state().clone();
        assert_eq!(state.open.len(), 1, "{:?}", state.open);
    }

    #[test]
    fn a_new_boot_ends_what_was_open() {
        let directory = tempfile::tempdir().unwrap();
        let history = directory.path().join("history.log");
        let map = map(directory.path());
        open(&map, 1, "alice");
        let first = collect(directory.path(), &history, None).unwrap();
        // As if it had been written before the last start.
        let before = Record { boot: "of another boot".into(), number: 9, ..first[0].clone() };
        std::fs::remove_file(&history).unwrap();
        Log::open(&history).unwrap().append(&[before]).unwrap();
        let records = collect(directory.path(), &history, None).unwrap();
        let expected = [(What::Released, Some("1"), true), (What::Assigned, Some("1"), false)];
        assert_eq!(told(&records), expected);
    }
}
