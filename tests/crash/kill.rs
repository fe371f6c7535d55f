//! SIGKILL at any time, to several writers and readers of one map.
//!
//! Each writer has sessions of its own, and notes in memory shared with the test what it is about to
//! do and what it was told. After a kill the next writer must find every lease that was
//! acknowledged, none that was given back, and of what was under way either outcome.

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
use crate::view::{Directory, id, recovered};

const WRITERS: usize = 3;
const READERS: usize = 2;
/// Sessions of each writer.
const SESSIONS: usize = 5;
/// Sessions that are open all the time, for readers to find.
const STABLE: Range<u64> = 900..903;

// What is about to be done with a session.
const NOTHING: u64 = 0;
const OPEN: u64 = 1;
const CLOSE: u64 = 2;

/// What a process notes: how often it did something, and of each of its sessions what it is about to
/// do and the lease it was told of (0: none).
#[derive(Clone, Copy)]
struct Notes {
    words: &'static [AtomicU64],
}

impl Notes {
    const WORDS: usize = 1 + 2 * SESSIONS;

    fn count(&self) -> &AtomicU64 {
        &self.words[0]
    }

    fn intent(&self, session: usize) -> &AtomicU64 {
        &self.words[1 + session]
    }

    fn told(&self, session: usize) -> &AtomicU64 {
        &self.words[1 + SESSIONS + session]
    }
}

fn session_of(writer: usize, session: usize) -> u64 {
    (writer * 100 + session + 1) as u64
}

/// A lease in one word that is not 0.
fn packed(handle: &Handle) -> u64 {
    1 << 63
        | u64::from(handle.pool) << 56
        | u64::from(handle.slot) << 32
        | u64::from(handle.generation)
}

/// Fewer addresses than sessions, so that some begin without one; two plans that differ in a range.
fn plan(number: u64) -> Plan {
    let last = if number.is_multiple_of(2) { 12 } else { 10 };
    let range = format!("10.0.0.1-10.0.0.{last}").parse().unwrap();
    let loopback = "127.77.0.0/26".parse().unwrap();
    Plan {
        pools: vec![
            Pool::new("default", PoolKind::VirtualIp, &[range], u32::MAX).unwrap(),
            Pool::new("default", PoolKind::Loopback, &[loopback], u32::MAX).unwrap(),
        ],
        settings: Settings::default(),
        ..Plan::default()
    }
}

/// Opens and closes its sessions until it is killed.
fn write(directory: &Path, writer: usize, notes: Notes, seed: u64) {
    let mut random = Random::new(seed);
    let mut map = Map::open(directory).unwrap();
    let mut exclusive = 0;
    for now in 0u32.. {
        if exclusive > 0 {
            exclusive -= 1;
            if exclusive == 0 {
                map = Map::open(directory).unwrap();
            }
        }
        match random.below(100) {
            0 if exclusive == 0 => match Map::create(directory, &plan(random.below(2))) {
                Ok(newer) => map = newer,
                Err(error) => assert!(is_busy(&error), "{error}"),
            },
            1 if writer == 0 && map.lock_exclusive().is_ok() => exclusive = 30,
            _ => {}
        }
        let session = random.below(SESSIONS as u64) as usize;
        let raw = session_of(writer, session);
        let told = notes.told(session).load(SeqCst);
        if random.below(2) == 0 {
            notes.intent(session).store(OPEN, SeqCst);
            match map.open_session(id(raw), &OpenOptions::default(), Tick::from_secs(now)) {
                Ok(opened) => {
                    assert_eq!(opened.already_open, told != 0, "session {raw}");
                    notes.told(session).store(packed(&opened.handle), SeqCst);
                }
                Err(OpenError::Map(error)) => assert!(is_busy(&error), "{error}"),
                Err(other) => panic!("session {raw}: {other}"),
            }
        } else {
            notes.intent(session).store(CLOSE, SeqCst);
            match map.close_session(id(raw), Tick::from_secs(now)) {
                Ok(_) => {
                    assert_ne!(told, 0, "session {raw} was not open");
                    notes.told(session).store(0, SeqCst);
                }
                Err(CloseError::NotOpen(_)) => assert_eq!(told, 0, "session {raw} is lost"),
                Err(CloseError::Map(error)) => assert!(is_busy(&error), "{error}"),
                Err(other) => panic!("session {raw}: {other}"),
            }
        }
        notes.intent(session).store(NOTHING, SeqCst);
        notes.count().fetch_add(1, SeqCst);
    }
}

fn is_busy(error: &MapError) -> bool {
    matches!(error, MapError::Busy { .. })
}

/// Looks for the stable sessions until it is killed.
fn read(directory: &Path, notes: Notes) {
    let mut reader = Reader::attach(directory).unwrap();
    let stable: Vec<_> = STABLE.map(|number| reader.find(id(number)).unwrap()).collect();
    loop {
        for (handle, leases) in &stable {
            assert_eq!(reader.find(handle.session), Some((*handle, *leases)));
            assert!(reader.is_live(handle));
        }
        assert!(reader.sessions().len() <= WRITERS * SESSIONS + 3 + 3);
        if reader.is_superseded() {
            reader = Reader::attach(directory).unwrap();
        }
        notes.count().fetch_add(1, SeqCst);
    }
}

struct Scene {
    /// Ended before the directory goes.
    children: Vec<Child>,
    directory: Directory,
    notes: Vec<Notes>,
    random: Random,
}

impl Scene {
    fn start(&mut self, number: usize) {
        let (directory, notes) = (&self.directory.0, self.notes[number]);
        let seed = self.random.below(u32::MAX.into());
        let child = Child::start(|| match number {
            writer if writer < WRITERS => write(directory, writer, notes, seed),
            _ => read(directory, notes),
        });
        if number < self.children.len() {
            self.children[number] = child;
        } else {
            self.children.push(child);
        }
    }

    /// Waits until this process has done so much more.
    fn watch(&mut self, number: usize, more: u64) {
        let count = self.notes[number].count();
        let (began, wanted) = (Instant::now(), count.load(SeqCst) + more);
        while count.load(SeqCst) < wanted {
            if let Some(event) = self.children[number].poll() {
                panic!("process {number} ended: {event:?}");
            }
            assert!(began.elapsed() < Duration::from_secs(60), "process {number} hangs");
            std::thread::sleep(Duration::from_micros(50));
        }
    }

    /// After this writer was killed: what it was told is so, and what it was about to do is settled.
    fn settle(&self, writer: usize, map: &Map) {
        let notes = self.notes[writer];
        for session in 0..SESSIONS {
            let raw = session_of(writer, session);
            let held = map.find(id(raw)).unwrap();
            let found = held.map_or(0, |(handle, _)| packed(&handle));
            let told = notes.told(session).load(SeqCst);
            match notes.intent(session).load(SeqCst) {
                // It may have got a lease that it lacked, which is then the first.
                OPEN => assert!(
                    told == 0
                        || held.is_some_and(|(handle, leases)| leases.iter().any(|lease| {
                            let Lease { pool, slot, generation, .. } = lease;
                            packed(&Handle { pool, slot, generation, ..handle }) == told
                        })),
                    "session {raw} is lost"
                ),
                CLOSE => assert!(found == 0 || found == told, "session {raw}"),
                _ => assert_eq!(found, told, "session {raw}"),
            }
            notes.told(session).store(found, SeqCst);
            notes.intent(session).store(NOTHING, SeqCst);
        }
    }
}

/// An operation that changes nothing, so that what a dead writer left is made whole.
fn come_after(map: &Map) {
    let began = Instant::now();
    loop {
        match map.close_session(id(99_999), Tick::ZERO) {
            Err(CloseError::NotOpen(_)) => return,
            Err(CloseError::Map(error)) if is_busy(&error) => {}
            other => panic!("{other:?}"),
        }
        assert!(began.elapsed() < Duration::from_secs(60), "the lock is never free");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn killed_writers_and_readers_lose_and_double_nothing() {
    let kills = vipool_testing::effort(300, 10_000);
    let directory = Directory::new("kill");
    let map = Map::create(&directory.0, &plan(0)).unwrap();
    for number in STABLE {
        map.open_session(id(number), &OpenOptions::default(), Tick::ZERO).unwrap();
    }
    let words = shared_words((WRITERS + READERS) * Notes::WORDS);
    let notes = words.chunks_exact(Notes::WORDS).map(|words| Notes { words }).collect();
    let mut scene = Scene { directory, notes, children: Vec::new(), random: Random::of_any_seed() };
    (0..WRITERS + READERS).for_each(|number| scene.start(number));
    for kill in 1..=kills {
        let number = scene.random.below((WRITERS + READERS) as u64) as usize;
        let more = scene.random.below(12);
        scene.watch(number, more);
        scene.children[number].kill();
        if number < WRITERS {
            come_after(&map);
            scene.settle(number, &map);
        }
        if kill % 20 == 0 {
            // All at once, so that a copy of the files is of one moment.
            scene.children.iter_mut().for_each(Child::kill);
            come_after(&map);
            (0..WRITERS).for_each(|writer| scene.settle(writer, &map));
            let bytes = ["map", "sessions"]
                .map(|name| std::fs::read(scene.directory.0.join(name)).unwrap());
            let held = recovered(&bytes[0], &bytes[1]);
            let all = (0..WRITERS).flat_map(|writer| (0..SESSIONS).map(move |s| (writer, s)));
            let open = all.filter(|(w, s)| scene.notes[*w].told(*s).load(SeqCst) != 0).count();
            let mut sessions: Vec<_> = held.values().map(|tenant| tenant.lease.session).collect();
            sessions.sort_unstable();
            sessions.dedup();
            assert_eq!(sessions.len(), open + STABLE.count());
            (0..WRITERS + READERS).for_each(|number| scene.start(number));
        } else {
            scene.start(number);
        }
    }
    (0..WRITERS + READERS).for_each(|number| scene.watch(number, 1));
    let counts: Vec<u64> = scene.notes.iter().map(|notes| notes.count().load(SeqCst)).collect();
    println!(
        "{kills} kills; writers did {:?}, readers {:?}",
        &counts[..WRITERS],
        &counts[WRITERS..]
    );
    assert!(scene.children.iter_mut().all(|child| child.poll().is_none()));
}
