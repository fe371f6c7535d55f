//! Sends SIGKILL at random times to the writers and readers of one map.
//!
//! Each writer has its own sessions. It records each operation before the operation begins, and the
//! result after the operation ends. The records are in memory that the writer shares with the test.
//! A lease that is recorded as a result is acknowledged. After a kill, the next writer must find
//! every acknowledged lease and no released lease. The interrupted operation may be complete or
//! not.

use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use vipool::Tick;
use vipool::map::{CloseError, Map, MapError, OpenError, OpenOptions, Plan, Reader, Settings};
use vipool::pool::{Pool, PoolKind};
use vipool::session::{Handle, Lease};

use crate::operations::Random;
use crate::process::{Child, shared_words};
use crate::recovery::{TestDirectory, recover_copy, session_id};

const WRITER_COUNT: usize = 3;
const READER_COUNT: usize = 2;
/// The number of sessions of each writer.
const SESSIONS_PER_WRITER: usize = 5;
/// The numbers of the sessions that stay open during the test. The readers look up these sessions.
const STABLE_SESSIONS: Range<u64> = 900..903;

// The values of [`ProcessRecord::intent`].
const NO_OPERATION: u64 = 0;
const OPEN: u64 = 1;
const CLOSE: u64 = 2;

/// The record of a process. The first word is the number of finished operations. A writer has two
/// further words for each of its sessions: the operation in progress, and the acknowledged lease
/// (0 for no lease).
#[derive(Clone, Copy)]
struct ProcessRecord {
    words: &'static [AtomicU64],
}

impl ProcessRecord {
    const WORD_COUNT: usize = 1 + 2 * SESSIONS_PER_WRITER;

    /// Returns the word with the number of finished operations.
    fn operation_count(&self) -> &AtomicU64 {
        &self.words[0]
    }

    /// Returns the word with the operation in progress on a session.
    fn intent(&self, session: usize) -> &AtomicU64 {
        &self.words[1 + session]
    }

    /// Returns the word with the packed acknowledged lease of a session, or 0.
    fn acknowledged_lease(&self, session: usize) -> &AtomicU64 {
        &self.words[1 + SESSIONS_PER_WRITER + session]
    }
}

/// Returns the session number of a writer's session.
fn session_number(writer: usize, session: usize) -> u64 {
    (writer * 100 + session + 1) as u64
}

/// Packs a lease into one non-zero word.
fn pack_lease(handle: &Handle) -> u64 {
    1 << 63
        | u64::from(handle.pool) << 56
        | u64::from(handle.slot) << 32
        | u64::from(handle.generation)
}

/// Returns one of two plans with different ranges. Both plans have fewer virtual IPs than there are
/// sessions, so that some sessions open without a virtual IP.
fn plan(number: u64) -> Plan {
    let last_octet = if number.is_multiple_of(2) { 12 } else { 10 };
    let range = format!("10.0.0.1-10.0.0.{last_octet}").parse().unwrap();
    let loopback = "127.77.0.0/26".parse().unwrap();
    Plan::new([
        Pool::new("default", PoolKind::VirtualIp, &[range], u32::MAX).unwrap(),
        Pool::new("default", PoolKind::Loopback, &[loopback], u32::MAX).unwrap(),
    ])
    .with_settings(Settings::without_cool_down())
}

/// Opens and closes the sessions of a writer until the test kills the writer.
fn run_writer(directory: &Path, writer: usize, record: ProcessRecord, seed: u64) {
    let mut random = Random::new(seed);
    let mut map = Map::open(directory).unwrap();
    let mut exclusive_rounds = 0;
    for now in 0u32.. {
        if exclusive_rounds > 0 {
            exclusive_rounds -= 1;
            if exclusive_rounds == 0 {
                map = Map::open(directory).unwrap();
            }
        }
        match random.below(100) {
            0 if exclusive_rounds == 0 => match Map::create(directory, &plan(random.below(2))) {
                Ok(newer_map) => map = newer_map,
                Err(error) => assert!(is_busy(&error), "{error}"),
            },
            1 if writer == 0 && map.lock_exclusive().is_ok() => exclusive_rounds = 30,
            _ => {}
        }
        let session = random.below(SESSIONS_PER_WRITER as u64) as usize;
        let number = session_number(writer, session);
        let acknowledged_lease = record.acknowledged_lease(session).load(SeqCst);
        if random.below(2) == 0 {
            record.intent(session).store(OPEN, SeqCst);
            match map.open_session(
                session_id(number),
                &OpenOptions::default(),
                Tick::from_secs(now),
            ) {
                Ok(opened) => {
                    assert_eq!(opened.already_open, acknowledged_lease != 0, "session {number}");
                    record.acknowledged_lease(session).store(pack_lease(&opened.handle), SeqCst);
                }
                Err(OpenError::Map(error)) => assert!(is_busy(&error), "{error}"),
                Err(error) => panic!("session {number}: {error}"),
            }
        } else {
            record.intent(session).store(CLOSE, SeqCst);
            match map.close_session(session_id(number), Tick::from_secs(now)) {
                Ok(_) => {
                    assert_ne!(
                        acknowledged_lease, 0,
                        "session {number} was open without an acknowledgement"
                    );
                    record.acknowledged_lease(session).store(0, SeqCst);
                }
                Err(CloseError::NotOpen(_)) => {
                    assert_eq!(acknowledged_lease, 0, "session {number} is lost")
                }
                Err(CloseError::Map(error)) => assert!(is_busy(&error), "{error}"),
                Err(error) => panic!("session {number}: {error}"),
            }
        }
        record.intent(session).store(NO_OPERATION, SeqCst);
        record.operation_count().fetch_add(1, SeqCst);
    }
}

fn is_busy(error: &MapError) -> bool {
    matches!(error, MapError::Busy { .. })
}

/// Looks up the stable sessions until the test kills the reader.
fn run_reader(directory: &Path, record: ProcessRecord) {
    let mut reader = Reader::attach(directory).unwrap();
    let stable_leases: Vec<_> =
        STABLE_SESSIONS.map(|number| reader.find(session_id(number)).unwrap()).collect();
    loop {
        for (handle, leases) in &stable_leases {
            assert_eq!(reader.find(handle.session), Some((*handle, *leases)));
            assert!(reader.is_live(handle));
        }
        // The rows are not a snapshot: a session that is closed and opened again during the call
        // can have two rows. So the limit is a few rows above the number of sessions.
        assert!(reader.sessions().len() <= WRITER_COUNT * SESSIONS_PER_WRITER + 3 + 3);
        if reader.is_superseded() {
            reader = Reader::attach(directory).unwrap();
        }
        record.operation_count().fetch_add(1, SeqCst);
    }
}

/// The running writers and readers, the directory of their map, and their records.
struct Scenario {
    /// This field is declared first, so that the children are killed before the directory is
    /// removed.
    children: Vec<Child>,
    directory: TestDirectory,
    records: Vec<ProcessRecord>,
    random: Random,
}

impl Scenario {
    /// Starts process `number`: a writer if `number` is below `WRITER_COUNT`, otherwise a reader.
    /// If this process was killed before, the new process takes its place.
    fn start(&mut self, number: usize) {
        let (directory, record) = (&self.directory.0, self.records[number]);
        let seed = self.random.below(u32::MAX.into());
        let child = Child::start(|| match number {
            writer if writer < WRITER_COUNT => run_writer(directory, writer, record, seed),
            _ => run_reader(directory, record),
        });
        if number < self.children.len() {
            self.children[number] = child;
        } else {
            self.children.push(child);
        }
    }

    /// Waits until the process `number` has finished `added_count` further operations.
    fn wait_for_progress(&mut self, number: usize, added_count: u64) {
        let count = self.records[number].operation_count();
        let (start_time, target_count) = (Instant::now(), count.load(SeqCst) + added_count);
        while count.load(SeqCst) < target_count {
            if let Some(status) = self.children[number].poll() {
                panic!("process {number} ended: {status:?}");
            }
            assert!(start_time.elapsed() < Duration::from_secs(60), "process {number} hangs");
            std::thread::sleep(Duration::from_micros(50));
        }
    }

    /// Checks the map against the record of a killed writer, and updates the record.
    fn check_killed_writer(&self, writer: usize, map: &Map) {
        let record = self.records[writer];
        for session in 0..SESSIONS_PER_WRITER {
            let number = session_number(writer, session);
            let open_session = map.find(session_id(number)).unwrap();
            let found_lease = open_session.map_or(0, |(handle, _)| pack_lease(&handle));
            let acknowledged_lease = record.acknowledged_lease(session).load(SeqCst);
            match record.intent(session).load(SeqCst) {
                // If the session had only a loopback lease, the interrupted open may have added a
                // virtual IP. In this case, the acknowledged loopback lease is no longer the first
                // lease of the session.
                OPEN => assert!(
                    acknowledged_lease == 0
                        || open_session.is_some_and(|(handle, leases)| leases.iter().any(
                            |lease| {
                                let Lease { pool, slot, generation, .. } = lease;
                                pack_lease(&Handle { pool, slot, generation, ..handle })
                                    == acknowledged_lease
                            }
                        )),
                    "session {number} is lost"
                ),
                CLOSE => {
                    assert!(
                        found_lease == 0 || found_lease == acknowledged_lease,
                        "session {number}"
                    );
                }
                _ => assert_eq!(found_lease, acknowledged_lease, "session {number}"),
            }
            record.acknowledged_lease(session).store(found_lease, SeqCst);
            record.intent(session).store(NO_OPERATION, SeqCst);
        }
    }
}

/// Runs a close that changes no session. Like every operation of a writer, the close first recovers
/// the map if a killed writer left an unfinished operation.
fn trigger_recovery(map: &Map) {
    let start_time = Instant::now();
    loop {
        match map.close_session(session_id(99_999), Tick::ZERO) {
            Err(CloseError::NotOpen(_)) => return,
            Err(CloseError::Map(error)) if is_busy(&error) => {}
            result => panic!("{result:?}"),
        }
        assert!(start_time.elapsed() < Duration::from_secs(60), "the lock stays busy");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn killed_writers_and_readers_lose_no_lease_and_double_none() {
    let kill_count = vipool_testing::effort(300, 10_000);
    let directory = TestDirectory::new("kill");
    let map = Map::create(&directory.0, &plan(0)).unwrap();
    for number in STABLE_SESSIONS {
        map.open_session(session_id(number), &OpenOptions::default(), Tick::ZERO).unwrap();
    }
    let words = shared_words((WRITER_COUNT + READER_COUNT) * ProcessRecord::WORD_COUNT);
    let records = words
        .chunks_exact(ProcessRecord::WORD_COUNT)
        .map(|words| ProcessRecord { words })
        .collect();
    let mut scenario =
        Scenario { directory, records, children: Vec::new(), random: Random::from_environment() };
    (0..WRITER_COUNT + READER_COUNT).for_each(|number| scenario.start(number));
    for kill_number in 1..=kill_count {
        let number = scenario.random.below((WRITER_COUNT + READER_COUNT) as u64) as usize;
        let added_count = scenario.random.below(12);
        scenario.wait_for_progress(number, added_count);
        scenario.children[number].kill();
        if number < WRITER_COUNT {
            trigger_recovery(&map);
            scenario.check_killed_writer(number, &map);
        }
        if kill_number % 20 == 0 {
            // Kill all processes, so that the copies of the map file and of the sessions file are
            // consistent.
            scenario.children.iter_mut().for_each(Child::kill);
            trigger_recovery(&map);
            (0..WRITER_COUNT).for_each(|writer| scenario.check_killed_writer(writer, &map));
            let [map_bytes, sessions_bytes] = ["map", "sessions"]
                .map(|name| std::fs::read(scenario.directory.0.join(name)).unwrap());
            let leases = recover_copy(&map_bytes, &sessions_bytes);
            let all_sessions = (0..WRITER_COUNT)
                .flat_map(|writer| (0..SESSIONS_PER_WRITER).map(move |session| (writer, session)));
            let open_count = all_sessions
                .filter(|(writer, session)| {
                    scenario.records[*writer].acknowledged_lease(*session).load(SeqCst) != 0
                })
                .count();
            let mut open_sessions: Vec<_> =
                leases.values().map(|record| record.lease.session).collect();
            open_sessions.sort_unstable();
            open_sessions.dedup();
            assert_eq!(open_sessions.len(), open_count + STABLE_SESSIONS.count());
            (0..WRITER_COUNT + READER_COUNT).for_each(|number| scenario.start(number));
        } else {
            scenario.start(number);
        }
    }
    (0..WRITER_COUNT + READER_COUNT).for_each(|number| scenario.wait_for_progress(number, 1));
    let operation_counts: Vec<u64> =
        scenario.records.iter().map(|record| record.operation_count().load(SeqCst)).collect();
    println!(
        "{kill_count} kills; operations of the writers {:?}, of the readers {:?}",
        &operation_counts[..WRITER_COUNT],
        &operation_counts[WRITER_COUNT..]
    );
    assert!(scenario.children.iter_mut().all(|child| child.poll().is_none()));
}
