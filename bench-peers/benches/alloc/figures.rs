//! What else is asked of a table: answers when there is nothing to give, looking up, attaching,
//! recovering, and the room it takes.

use std::hint::black_box;
use std::time::Instant;

use vipool::map::{MAP_FILE, Map, OpenOptions, Reader, SESSIONS_FILE, Settings};
use vipool_bench_peers::{ByHandle, Floor, Locking, Place, id, map};

use crate::churn::{Churn, Filled};
use crate::report::Row;
use crate::{At, Bench};

/// Operations in a block.
const TIMES: u64 = 20_000;

/// All figures of one size.
pub fn all(bench: &Bench, size: u32) {
    nothing_to_give(bench, size, "exhausted", Settings::default());
    let cooling = Settings { cool_down: 1000, ..Settings::default() };
    nothing_to_give(bench, size, "all cooling", cooling);
    look_up(bench, size);
    attach(bench, size);
    recover(bench, size);
    room(bench, size);
}

fn situation(size: u32, occupancy: u32, threads: usize) -> At {
    At { size, occupancy, churn: Churn::Random, threads }
}

/// Nanoseconds for each of so many.
fn each(times: u64, mut work: impl FnMut(u64)) -> f64 {
    let started = Instant::now();
    (0..times).for_each(&mut work);
    started.elapsed().as_nanos() as f64 / times as f64
}

/// Blocks of some work and of the floor, in turn; each block of work a second time, when what it needs
/// is near again.
fn beside_the_floor(bench: &Bench, name: &str, at: At, mut block: impl FnMut() -> f64) {
    let line = Floor::new(at.size);
    let mut floor = Filled::new(vec![&line], At { threads: 1, ..at });
    let pairs = (0..bench.blocks)
        .map(|_| {
            block();
            (block(), floor.block(TIMES))
        })
        .map(|(work, floor)| (work, work / floor))
        .collect();
    bench.report.row(&Row::of(name, at, pairs));
}

/// The answer of a table without an address to give.
fn nothing_to_give(bench: &Bench, size: u32, name: &str, settings: Settings) {
    for (name, place) in [
        (format!("{name}, alone, in memory"), Place::Memory),
        (format!("{name}, alone, tmpfs"), Place::Inside(&bench.tmpfs)),
    ] {
        if !bench.report.wants(&name) {
            continue;
        }
        let (mut map, _directory) = map(place, size, settings).expect("a map");
        fill(&map, size.into());
        if settings.cool_down > 0 {
            for session in 1..=u64::from(size) {
                map.close_session(id(session), 1).expect("open");
            }
        }
        let mut writer = map.writer().expect("nobody else has it");
        let options = OpenOptions::default();
        beside_the_floor(bench, &name, situation(size, 100, 1), || {
            each(TIMES, |number| {
                let refused = writer.open_session(id(number + (1 << 40)), &options, 2);
                assert!(black_box(refused).is_err());
            })
        });
    }
}

fn fill(map: &Map, sessions: u64) {
    for session in 1..=sessions {
        map.open_session(id(session), &OpenOptions::default(), 0).expect("not full yet");
    }
}

/// A session looked up in the mapped file, by one reader and by two at once.
fn look_up(bench: &Bench, size: u32) {
    for threads in [1, 2] {
        let name = "look-up by session, tmpfs";
        if !bench.report.wants(name) {
            return;
        }
        let (map, directory) =
            map(Place::Inside(&bench.tmpfs), size, Settings::default()).expect("a map");
        let live = u64::from(size / 2);
        fill(&map, live);
        let directory = directory.expect("in files");
        let look = || {
            let reader = Reader::attach(directory.path()).expect("a map");
            // An odd step visits every session in an order that no cache foresees.
            each(TIMES * 10, |number| {
                let session = id(number.wrapping_mul(40_503) % live + 1);
                assert!(!black_box(reader.lookup(session)).is_empty());
            })
        };
        beside_the_floor(bench, name, situation(size, 50, threads), || {
            // Together: what one takes, shared by those who run at once.
            let together: Vec<f64> = std::thread::scope(|scope| {
                let readers: Vec<_> = (0..threads).map(|_| scope.spawn(look)).collect();
                readers.into_iter().map(|reader| reader.join().expect("no panic")).collect()
            });
            let slowest = together.into_iter().fold(0.0, f64::max);
            slowest / threads as f64
        });
    }
}

/// Attaching to a full table.
fn attach(bench: &Bench, size: u32) {
    let name = "attach, tmpfs";
    if bench.report.wants(name) {
        let (map, directory) =
            map(Place::Inside(&bench.tmpfs), size, Settings::default()).expect("a map");
        fill(&map, size.into());
        let directory = directory.expect("in files");
        beside_the_floor(bench, name, situation(size, 100, 1), || {
            each(20, |_| drop(black_box(Reader::attach(directory.path()).expect("a map"))))
        });
    }
}

/// What the next writer does after one was killed within an operation.
fn recover(bench: &Bench, size: u32) {
    let name = "recovery, tmpfs";
    if bench.report.wants(name) {
        let table =
            ByHandle::new(Place::Inside(&bench.tmpfs), size, Locking::Exclusive).expect("a map");
        let at = situation(size, 50, 1);
        let mut churned = Filled::new(vec![&table], at);
        let mut pairs: Vec<f64> = (0..5)
            .map(|_| {
                churned.block(1000);
                each(1, |_| table.map().recover().expect("it is ours"))
            })
            .collect();
        pairs.sort_by(f64::total_cmp);
        bench.report.row(&Row::alone(name, at, pairs[pairs.len() / 2]));
    }
}

/// Bytes for an address: what opening and closing touch, and what is kept of each session beside.
fn room(bench: &Bench, size: u32) {
    let (_map, directory) =
        map(Place::Inside(&bench.tmpfs), size, Settings::default()).expect("a map");
    let directory = directory.expect("in files");
    for (name, file) in [
        ("bytes for an address: slot and index", MAP_FILE),
        ("bytes for an address: user and client", SESSIONS_FILE),
    ] {
        if bench.report.wants(name) {
            let bytes = std::fs::metadata(directory.path().join(file)).expect("a file").len();
            let row = Row::alone(name, situation(size, 0, 1), bytes as f64 / f64::from(size));
            bench.report.row(&row);
        }
    }
}

/// The memory of this process before and after a hundred million operations, in bytes.
pub fn memory(bench: &Bench) {
    let size = 1 << 16;
    let (mut map, _directory) = map(Place::Memory, size, Settings::default()).expect("a map");
    let writer = map.writer().expect("nobody else has it");
    let at = situation(size, 50, 1);
    let mut churned = Filled::new(vec![writer], at);
    churned.block(1_000_000);
    let before = resident();
    bench.report.row(&Row::alone("bytes resident before", at, before));
    churned.block(50_000_000);
    bench.report.row(&Row::alone("bytes resident after 100,000,000 operations", at, resident()));
}

/// Bytes of this process in memory; 0 where the system does not tell (proc_pid_statm(5)).
fn resident() -> f64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: f64 = pages.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0.0);
    pages * 4096.0
}
