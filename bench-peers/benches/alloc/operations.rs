//! Measures more operations of a table: refusals, lookups, attaching and recovery. Also prints the
//! size of a table.

use std::hint::black_box;
use std::time::Instant;

use vipool::Tick;
use vipool::map::{MAP_FILE, Map, OpenOptions, Reader, SESSIONS_FILE, Settings};
use vipool_bench_peers::{ByHandle, Floor, Locking, Storage, create_map, session_id};

use crate::churn::{Churn, Workload};
use crate::report::Row;
use crate::{Bench, Scenario};

/// The number of operations in a block of the floor, and in a block of refusals.
const BLOCK_OPERATIONS: u64 = 20_000;

/// Makes all measurements of this module, except [`measure_memory`], for one table size.
pub fn measure_all(bench: &Bench, size: u32) {
    measure_refusal(bench, size, "exhausted", Settings::without_cool_down());
    let cooling_settings = Settings::without_cool_down().with_cool_down(1000);
    measure_refusal(bench, size, "all cooling", cooling_settings);
    measure_lookup(bench, size);
    measure_attach(bench, size);
    measure_recovery(bench, size);
    print_table_size(bench, size);
}

fn scenario(size: u32, occupancy: u32, threads: usize) -> Scenario {
    Scenario { size, occupancy, churn: Churn::Anonymous, threads }
}

/// Returns the nanoseconds per call of `operation`, which is called `count` times.
fn time_per_call(count: u64, mut operation: impl FnMut(u64)) -> f64 {
    let started = Instant::now();
    (0..count).for_each(&mut operation);
    started.elapsed().as_nanos() as f64 / count as f64
}

/// Measures blocks of an operation and of the floor in alternation. Each block of the operation
/// runs twice. Only the second run counts, because the first run warms the caches.
fn compare_with_floor(
    bench: &Bench,
    name: &str,
    scenario: Scenario,
    mut run_block: impl FnMut() -> f64,
) {
    let floor = Floor::new(scenario.size);
    let mut floor_workload = Workload::new(vec![&floor], Scenario { threads: 1, ..scenario });
    let blocks = (0..bench.block_count)
        .map(|_| {
            run_block();
            (run_block(), floor_workload.run_block(BLOCK_OPERATIONS))
        })
        .map(|(operation_ns, floor_ns)| (operation_ns, operation_ns / floor_ns))
        .collect();
    bench.report.print(&Row::from_blocks(name, scenario, blocks));
}

/// Measures a refused `open_session` on a table without a free address.
fn measure_refusal(bench: &Bench, size: u32, name: &str, settings: Settings) {
    for (name, storage) in [
        (format!("{name}, exclusive writer, in memory"), Storage::Memory),
        (format!("{name}, exclusive writer, tmpfs"), Storage::Directory(&bench.tmpfs)),
    ] {
        if !bench.report.selects(&name) {
            continue;
        }
        let (mut map, _directory) = create_map(storage, size, settings).expect("a valid plan");
        fill(&map, size.into());
        if settings.cool_down > 0 {
            for session in 1..=u64::from(size) {
                map.close_session(session_id(session), Tick::from_secs(1))
                    .expect("an open session");
            }
        }
        let mut writer = map.exclusive_writer().expect("no other writer");
        let options = OpenOptions::default();
        compare_with_floor(bench, &name, scenario(size, 100, 1), || {
            time_per_call(BLOCK_OPERATIONS, |number| {
                let result = writer.open_session(
                    session_id(number + (1 << 40)),
                    &options,
                    Tick::from_secs(2),
                );
                assert!(black_box(result).is_err());
            })
        });
    }
}

/// Opens the sessions 1 to `session_count`.
fn fill(map: &Map, session_count: u64) {
    for session in 1..=session_count {
        map.open_session(session_id(session), &OpenOptions::default(), Tick::ZERO)
            .expect("a free address");
    }
}

/// Measures lookups in the mapped file, by one reader and by two readers at once.
fn measure_lookup(bench: &Bench, size: u32) {
    for threads in [1, 2] {
        let name = "lookup by session, tmpfs";
        if !bench.report.selects(name) {
            return;
        }
        let (map, directory) =
            create_map(Storage::Directory(&bench.tmpfs), size, Settings::without_cool_down())
                .expect("a valid plan");
        let session_count = u64::from(size / 2);
        fill(&map, session_count);
        let directory = directory.expect("a map in files");
        let run_reader = || {
            let reader = Reader::attach(directory.path()).expect("a valid map");
            // The order of the lookups defeats the prefetcher. No session repeats before all were
            // visited, because the step is odd and `session_count` is a power of two.
            time_per_call(BLOCK_OPERATIONS * 10, |number| {
                let session = session_id(number.wrapping_mul(40_503) % session_count + 1);
                assert!(!black_box(reader.lookup(session)).is_empty());
            })
        };
        compare_with_floor(bench, name, scenario(size, 50, threads), || {
            // Use the time of the slowest reader, divided by the number of readers.
            let times: Vec<f64> = std::thread::scope(|scope| {
                let readers: Vec<_> = (0..threads).map(|_| scope.spawn(run_reader)).collect();
                readers.into_iter().map(|reader| reader.join().expect("no panic")).collect()
            });
            let slowest_time = times.into_iter().fold(0.0, f64::max);
            slowest_time / threads as f64
        });
    }
}

/// Measures attaching to a full table.
fn measure_attach(bench: &Bench, size: u32) {
    let name = "attach, tmpfs";
    if bench.report.selects(name) {
        let (map, directory) =
            create_map(Storage::Directory(&bench.tmpfs), size, Settings::without_cool_down())
                .expect("a valid plan");
        fill(&map, size.into());
        let directory = directory.expect("a map in files");
        compare_with_floor(bench, name, scenario(size, 100, 1), || {
            time_per_call(20, |_| {
                drop(black_box(Reader::attach(directory.path()).expect("a valid map")))
            })
        });
    }
}

/// Measures a recovery. If a writer is killed during an operation, the next writer recovers the
/// map.
fn measure_recovery(bench: &Bench, size: u32) {
    let name = "recovery, tmpfs";
    if bench.report.selects(name) {
        let table = ByHandle::new(Storage::Directory(&bench.tmpfs), size, Locking::Exclusive)
            .expect("a valid plan");
        let scenario = scenario(size, 50, 1);
        let mut workload = Workload::new(vec![&table], scenario);
        let mut times: Vec<f64> = (0..5)
            .map(|_| {
                workload.run_block(1000);
                time_per_call(1, |_| table.map().recover().expect("the exclusive lock"))
            })
            .collect();
        times.sort_by(f64::total_cmp);
        bench.report.print(&Row::without_ratio(name, scenario, times[times.len() / 2]));
    }
}

/// Prints the bytes per address of the map file and of the sessions file.
fn print_table_size(bench: &Bench, size: u32) {
    let (_map, directory) =
        create_map(Storage::Directory(&bench.tmpfs), size, Settings::without_cool_down())
            .expect("a valid plan");
    let directory = directory.expect("a map in files");
    for (name, file) in [
        ("bytes per address: slot and index", MAP_FILE),
        ("bytes per address: user and client", SESSIONS_FILE),
    ] {
        if bench.report.selects(name) {
            let bytes =
                std::fs::metadata(directory.path().join(file)).expect("the file exists").len();
            let row =
                Row::without_ratio(name, scenario(size, 0, 1), bytes as f64 / f64::from(size));
            bench.report.print(&row);
        }
    }
}

/// Prints the resident memory of this process in bytes, before and after a hundred million opens
/// and closes with their warm-up. The warm-up has half that number of opens and closes.
pub fn measure_memory(bench: &Bench) {
    let size = 1 << 16;
    let (mut map, _directory) =
        create_map(Storage::Memory, size, Settings::without_cool_down()).expect("a valid plan");
    let writer = map.exclusive_writer().expect("no other writer");
    let scenario = scenario(size, 50, 1);
    let mut workload = Workload::new(vec![writer], scenario);
    workload.run_block(1_000_000);
    let initial_bytes = resident_bytes();
    bench.report.print(&Row::without_ratio("bytes resident before", scenario, initial_bytes));
    workload.run_block(50_000_000);
    bench.report.print(&Row::without_ratio(
        "bytes resident after 100,000,000 opens and closes",
        scenario,
        resident_bytes(),
    ));
}

/// Returns the resident memory of this process in bytes, or 0 if the system does not report it
/// (proc_pid_statm(5)). Assumes pages of 4096 bytes.
fn resident_bytes() -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: f64 = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0.0);
    pages * 4096.0
}
