//! Copies new events from a map's journal to the history on disk.
//!
//! The journal keeps only the latest events. If it has overwritten an event before the copy, a gap
//! record contains the number of lost events. Events can also be missing in the journal because a
//! writer was killed or the machine restarted. Reconciliation compares the history with the map and
//! adds the missing records.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;
use std::time::SystemTime;

use jiff::{SignedDuration, Timestamp};
use vipool::Tick;
use vipool::map::{Event, EventKind, Journal, Map, SessionRow};

use super::admin::format_boot;
use super::log::{HistoryLog, Retention};
use super::record::{HistoryState, Record, RecordKind};
use crate::maps::report::wall_clock;

/// A session that waits for an address retries several times per second. The history records at
/// most one failure of a session per interval.
const EXHAUSTED_INTERVAL: SignedDuration = SignedDuration::from_secs(60);
/// Maximum number of attempts to read the map and the journal without a change between the two
/// reads.
const MAX_ATTEMPTS: usize = 8;

/// Appends records of the new events to the history, and returns these records.
///
/// With `retention`, this function first removes old records.
///
/// # Errors
/// The map, its journal or the history cannot be used.
pub fn collect(
    directory: &Path,
    history_file: &Path,
    retention: Option<&Retention>,
) -> anyhow::Result<Vec<Record>> {
    // Open the map first: if this process does not trust the map, it creates no history file.
    let map = Map::open(directory)?;
    // The lock of the history prevents other processes from collecting the same events.
    let mut log = HistoryLog::open(history_file)?;
    if let Some(limits) = retention {
        log.apply_retention(limits, SystemTime::now())?;
    }
    let records = records_after(&map, directory, log.state())?;
    log.append(&records)?;
    Ok(records)
}

/// Returns the records of the events that are not in the history yet. Writes nothing.
///
/// `collected` must contain all records of the history.
///
/// # Errors
/// The map or its journal cannot be used.
pub fn pending(directory: &Path, collected: &[Record]) -> anyhow::Result<Vec<Record>> {
    let mut state = HistoryState::default();
    collected.iter().for_each(|record| state.apply(record));
    records_after(&Map::open(directory)?, directory, &state)
}

/// Returns the records of the events that `state` does not contain yet.
fn records_after(map: &Map, directory: &Path, state: &HistoryState) -> anyhow::Result<Vec<Record>> {
    let journal = Journal::open(directory)?;
    let boot = format_boot(journal.boot());
    let first_number = match &state.last_position {
        // If the journal has not reached the last number of the history, the journal is new
        // and is read from its first event.
        Some(last) if last.boot == boot && last.number < journal.next_number() => last.number + 1,
        _ => 1,
    };
    let mut attempts = 0;
    let (session_rows, journal_tail, is_unchanged) = loop {
        let next_number_before = journal.next_number();
        let session_rows = map.sessions()?;
        let journal_tail = journal.since(first_number);
        attempts += 1;
        let is_unchanged = journal_tail.next == next_number_before;
        if is_unchanged || attempts == MAX_ATTEMPTS {
            break (session_rows, journal_tail, is_unchanged);
        }
    };
    let mut collector = Collector {
        boot,
        state: state.clone(),
        records: Vec::new(),
        last_number: first_number - 1,
    };
    collector.end_leases_of_other_boots();
    if journal_tail.lost > 0 {
        let time =
            journal_tail.events.first().map_or_else(Timestamp::now, |event| wall_clock(event.time));
        collector.last_number = first_number - 1 + journal_tail.lost;
        let gap = collector.new_record(time, RecordKind::Gap);
        collector.push(Record { lost: Some(journal_tail.lost), ..gap });
    }
    for event in &journal_tail.events {
        collector.add_event(event);
    }
    // A new event shows that the map changed during or after the reads, so `session_rows` may not
    // match the journal. In this case, the next call reconciles.
    if is_unchanged && journal.next_number() == journal_tail.next {
        collector.reconcile(&session_rows);
    }
    Ok(collector.records)
}

/// Converts journal events to records.
struct Collector {
    boot: String,
    /// The state after all old records and all records in `records`.
    state: HistoryState,
    /// The new records.
    records: Vec<Record>,
    /// Number of the last journal event that was converted or lost.
    last_number: u64,
}

impl Collector {
    fn push(&mut self, record: Record) {
        self.state.apply(&record);
        self.records.push(record);
    }

    fn new_record(&self, time: Timestamp, event: RecordKind) -> Record {
        Record::new(time, event, self.boot.clone(), self.last_number)
    }

    /// Adds the records of a journal event, if the history needs any.
    fn add_event(&mut self, event: &Event) {
        self.last_number = event.number;
        let time = wall_clock(event.time);
        let session = event.session.to_string();
        let kind = match event.kind {
            EventKind::Released => return self.release_all(&session, time, false),
            EventKind::Assigned => RecordKind::Assigned,
            EventKind::LowWater => RecordKind::LowWater,
            EventKind::Exhausted => {
                let last_time = self.state.last_exhausted.get(&session);
                if last_time.is_some_and(|last_exhausted| {
                    time.duration_since(*last_exhausted) < EXHAUSTED_INTERVAL
                }) {
                    return;
                }
                RecordKind::Exhausted
            }
            // This version of vipool has no history record for other kinds of events.
            _ => return,
        };
        if let (RecordKind::Assigned, Some(address)) = (kind, event.address) {
            match self.state.open_lease(address).and_then(|record| record.session.clone()) {
                Some(holder) if holder == session => return,
                // The release event of the previous holder was lost.
                Some(holder) => self.release_all(&holder, time, true),
                None => {}
            }
        }
        self.push(Record {
            session: Some(session),
            address: event.address,
            user: event.user.clone(),
            client: event.client,
            ..self.new_record(time, kind)
        });
    }

    fn has_open_lease(&self, address: IpAddr, session: &str) -> bool {
        self.state
            .open_lease(address)
            .is_some_and(|record| record.session.as_deref() == Some(session))
    }

    /// Adds a release record for every open lease of the session.
    fn release_all(&mut self, session: &str, time: Timestamp, reconciled: bool) {
        let leases: Vec<_> = self.state.leases_of(session).cloned().collect();
        for lease in leases {
            self.push_release(lease, time, reconciled);
        }
    }

    /// Adds a release record for an open lease.
    fn push_release(&mut self, lease: Record, time: Timestamp, reconciled: bool) {
        let (boot, number) = (self.boot.clone(), self.last_number);
        let event = RecordKind::Released;
        self.push(Record { time, event, reconciled, boot, number, ..lease });
    }

    /// Adds release records for the leases of earlier boots, because a restart of the machine ends
    /// all leases.
    fn end_leases_of_other_boots(&mut self) {
        let is_of_other_boot = |record: &&Record| record.boot != self.boot;
        let leases_of_other_boots: Vec<_> =
            self.state.open_leases().filter(is_of_other_boot).cloned().collect();
        for lease in leases_of_other_boots {
            let time = wall_clock(Tick::ZERO).max(lease.time);
            self.push_release(lease, time, true);
        }
    }

    /// Adds records for the differences between the map's sessions and the history.
    fn reconcile(&mut self, rows: &[SessionRow]) {
        let holders: HashMap<IpAddr, String> = rows
            .iter()
            .flat_map(|row| row.leases.iter().map(|lease| (lease.address, row.session.to_string())))
            .collect();
        let has_ended = |record: &&Record| {
            let holder = record.address.and_then(|address| holders.get(&address));
            record.session.is_none() || holder != record.session.as_ref()
        };
        let ended_leases: Vec<_> = self.state.open_leases().filter(has_ended).cloned().collect();
        for lease in ended_leases {
            self.push_release(lease, Timestamp::now(), true);
        }
        for row in rows {
            let session = row.session.to_string();
            for lease in row.leases.iter() {
                if !self.has_open_lease(lease.address, &session) {
                    self.push(Record {
                        session: Some(session.clone()),
                        address: Some(lease.address),
                        user: row.user.clone(),
                        client: row.client,
                        reconciled: true,
                        ..self.new_record(wall_clock(row.since), RecordKind::Assigned)
                    });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::time::Duration;

    use super::super::log::read;
    use super::*;
    use vipool::map::{JOURNAL_CAPACITY, OpenOptions, Plan, Settings};
    use vipool::pool::{Pool, PoolKind};

    fn create_map(directory: &Path) -> Map {
        let ranges = ["10.0.5.10-10.0.5.11".parse().unwrap()];
        let pool = Pool::new("default", PoolKind::VirtualIp, &ranges, u32::MAX).unwrap();
        Map::create(directory, &Plan::new([pool]).with_settings(Settings::without_cool_down()))
            .unwrap()
    }

    /// Opens a session. Ignores the error if no address is free.
    fn open(map: &Map, session: u64, user: &str) {
        let options = OpenOptions::new().with_user(user);
        let _ = map.open_session(session.to_string().parse().unwrap(), &options, Tick::now());
    }

    fn close(map: &Map, session: u64) {
        map.close_session(session.to_string().parse().unwrap(), Tick::now()).unwrap();
    }

    /// Returns the kind, the session and the field `reconciled` of each record.
    fn summaries(records: &[Record]) -> Vec<(RecordKind, Option<&str>, bool)> {
        records
            .iter()
            .map(|record| (record.event, record.session.as_deref(), record.reconciled))
            .collect()
    }

    #[test]
    fn each_event_is_collected_once() {
        let directory = tempfile::tempdir().unwrap();
        let history_file = directory.path().join("history.log");
        let map = create_map(directory.path());
        open(&map, 1, "alice");
        open(&map, 2, "bob");
        // Two failures within one interval cause one record.
        open(&map, 3, "carol");
        open(&map, 3, "carol");
        close(&map, 1);
        let first_records = collect(directory.path(), &history_file, None).unwrap();
        let expected = [
            (RecordKind::Assigned, Some("1"), false),
            (RecordKind::Assigned, Some("2"), false),
            (RecordKind::Exhausted, Some("3"), false),
            (RecordKind::Released, Some("1"), false),
        ];
        assert_eq!(summaries(&first_records), expected);
        assert_eq!(first_records[3].user.as_deref(), Some("alice"));
        assert_eq!(first_records[3].address, first_records[0].address);
        assert_eq!(collect(directory.path(), &history_file, None).unwrap(), []);
        close(&map, 2);
        let second_records = collect(directory.path(), &history_file, None).unwrap();
        assert_eq!(summaries(&second_records), [(RecordKind::Released, Some("2"), false)]);
    }

    #[test]
    fn lost_events_become_a_gap_and_are_reconciled() {
        let directory = tempfile::tempdir().unwrap();
        let history_file = directory.path().join("history.log");
        let map = create_map(directory.path());
        open(&map, 1, "alice");
        collect(directory.path(), &history_file, None).unwrap();
        close(&map, 1);
        open(&map, 2, "bob");
        for _ in 0..JOURNAL_CAPACITY {
            open(&map, 3, "carol");
            close(&map, 3);
        }
        let records = collect(directory.path(), &history_file, None).unwrap();
        assert_eq!(
            (records[0].event, records[0].lost),
            (RecordKind::Gap, Some(JOURNAL_CAPACITY + 2))
        );
        let reconciled: Vec<_> =
            summaries(&records).into_iter().filter(|(_, _, reconciled)| *reconciled).collect();
        let expected =
            [(RecordKind::Released, Some("1"), true), (RecordKind::Assigned, Some("2"), true)];
        assert_eq!(reconciled, expected);
        let state = HistoryLog::open(&history_file).unwrap().state().clone();
        assert_eq!(state.open_leases().len(), 1, "{state:?}");
    }

    /// Collects the events, and rotates the history because the period of its file is over.
    fn collect_and_rotate(directory: &Path, history_file: &Path) -> Vec<Record> {
        let day = Duration::from_secs(24 * 3600);
        let rotated_file = history_file.with_extension("log.1");
        let newest_rotated = File::options().create(true).append(true).open(&rotated_file).unwrap();
        newest_rotated.set_modified(SystemTime::now() - 20 * day).unwrap();
        let limits = Retention { max_age: Some(80 * day), max_bytes: u64::MAX };
        let records = collect(directory, history_file, Some(&limits)).unwrap();
        let age = rotated_file.metadata().unwrap().modified().unwrap().elapsed();
        assert!(age.unwrap_or_default() < day, "the history was rotated");
        records
    }

    #[test]
    fn rotation_keeps_the_position_in_the_journal() {
        let directory = tempfile::tempdir().unwrap();
        let history_file = directory.path().join("history.log");
        let map = create_map(directory.path());
        open(&map, 1, "alice");
        close(&map, 1);
        open(&map, 2, "bob");
        assert_eq!(collect(directory.path(), &history_file, None).unwrap().len(), 3);
        // No event is new, so the next file gets no record of an event.
        assert_eq!(collect_and_rotate(directory.path(), &history_file), []);
        assert_eq!(collect(directory.path(), &history_file, None).unwrap(), []);
        close(&map, 2);
        assert_eq!(collect(directory.path(), &history_file, None).unwrap().len(), 1);
        // Now no lease is open either.
        assert_eq!(collect_and_rotate(directory.path(), &history_file), []);
        assert_eq!(collect(directory.path(), &history_file, None).unwrap(), []);
        assert_eq!(read(&history_file).unwrap().0.len(), 4);
    }

    #[test]
    fn interrupted_rotation_is_completed() {
        let directory = tempfile::tempdir().unwrap();
        let history_file = directory.path().join("history.log");
        let map = create_map(directory.path());
        open(&map, 1, "alice");
        collect(directory.path(), &history_file, None).unwrap();
        collect_and_rotate(directory.path(), &history_file);
        // The process was killed between the two renames.
        std::fs::rename(&history_file, history_file.with_extension("log.next")).unwrap();
        assert_eq!(read(&history_file).unwrap().0.len(), 1);
        assert_eq!(collect(directory.path(), &history_file, None).unwrap(), []);
        assert!(history_file.exists());
    }

    #[test]
    fn new_boot_ends_open_leases() {
        let directory = tempfile::tempdir().unwrap();
        let history_file = directory.path().join("history.log");
        let map = create_map(directory.path());
        open(&map, 1, "alice");
        let records = collect(directory.path(), &history_file, None).unwrap();
        // Replace the history with a record of an earlier boot.
        let old_record = Record { boot: "of another boot".into(), number: 9, ..records[0].clone() };
        std::fs::remove_file(&history_file).unwrap();
        HistoryLog::open(&history_file).unwrap().append(&[old_record]).unwrap();
        let records = collect(directory.path(), &history_file, None).unwrap();
        let expected =
            [(RecordKind::Released, Some("1"), true), (RecordKind::Assigned, Some("1"), false)];
        assert_eq!(summaries(&records), expected);
    }
}
