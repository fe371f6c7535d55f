//! Compares vipool with its peers and prints a table. Each operation closes a random session and
//! opens a new session. The module `operations` measures further operations of vipool. The floor is
//! the time of two atomic operations on random cache lines.
//!
//! A block is a series of operations. The bench alternates blocks of the measured table and blocks
//! of the floor. The ratio is the median of the ratios of adjacent blocks, because other load on
//! the machine affects two adjacent blocks alike.
//!
//! `--json` prints one object per row. `--quick` runs fewer blocks. `--prefix 16` measures only
//! tables of a /16. `--only TEXT` measures the rows whose name contains TEXT. `--churn` prints the
//! memory before and after a hundred million opens and closes.

use std::path::{Path, PathBuf};

use vipool_bench_peers::{
    Accessor, Allocator, ByHandle, BySession, DependentFloor, ExclusiveBySession, Floor, IdPool,
    Lmdb, Locking, MutexMap, QueueMap, Storage, VmAllocator, create_map,
};

mod churn;
mod operations;
mod report;

use churn::{Churn, Workload};
use report::{Report, Row};

/// The conditions of a measurement.
#[derive(Clone, Copy)]
struct Scenario {
    /// The number of addresses.
    size: u32,
    /// The percentage of addresses in use.
    occupancy: u32,
    churn: Churn,
    threads: usize,
}

struct Bench {
    report: Report,
    /// The number of blocks for a row.
    block_count: usize,
    /// The directory for maps in files: /dev/shm, or the temporary directory.
    tmpfs: PathBuf,
}

impl Bench {
    /// Measures one table in alternation with the floor. Each thread uses one accessor.
    fn measure<A: Accessor>(&self, name: &str, accessors: Vec<A>, scenario: Scenario) {
        let floor = Floor::new(scenario.size);
        let mut workload = Workload::new(accessors, scenario);
        let mut floor_workload = Workload::new(vec![&floor; scenario.threads], scenario);
        let (count, floor_count) = (workload.calibrate(), floor_workload.calibrate());
        let blocks: Vec<(f64, f64)> = (0..self.block_count)
            .map(|_| (workload.run_block(count), floor_workload.run_block(floor_count)))
            .map(|(table_ns, floor_ns)| (table_ns, table_ns / floor_ns))
            .collect();
        self.report.print(&Row::from_blocks(name, scenario, blocks));
    }

    /// Measures a table that threads share.
    fn measure_shared<A: Allocator>(
        &self,
        name: &str,
        create: impl FnOnce() -> A,
        scenario: Scenario,
    ) {
        if self.report.selects(name) {
            let table = create();
            self.measure(name, vec![&table; scenario.threads], scenario);
        }
    }

    /// Measures vipool in a program with one thread that holds the exclusive lock. One row
    /// closes sessions by handle, the other row by id.
    fn measure_exclusive_writer<'p>(
        &self,
        storage: impl Fn() -> Storage<'p>,
        storage_name: &str,
        scenario: Scenario,
    ) {
        for closes_by_session in [false, true] {
            let close_method = if closes_by_session { ", by session" } else { "" };
            let name = format!("vipool{close_method}, exclusive writer, {storage_name}");
            if !self.report.selects(&name) || scenario.threads > 1 {
                continue;
            }
            let (mut map, _directory) =
                create_map(storage(), scenario.size, vipool::map::Settings::without_cool_down())
                    .expect("a valid plan");
            let writer = map.exclusive_writer().expect("no other writer");
            if closes_by_session {
                self.measure(&name, vec![ExclusiveBySession(writer)], scenario);
            } else {
                self.measure(&name, vec![writer], scenario);
            }
        }
    }

    /// Measures all tables in one scenario.
    fn measure_all(&self, scenario: Scenario) {
        let size = scenario.size;
        let tmpfs = || Storage::Directory(&self.tmpfs);
        let by_handle =
            |storage, locking| ByHandle::new(storage, size, locking).expect("a valid plan");
        let by_session =
            |storage| BySession::new(storage, size, Locking::Exclusive).expect("a valid plan");
        self.measure_shared("floor", || Floor::new(size), scenario);
        let dependent_floor = "floor, dependent lines";
        if self.report.selects(dependent_floor) && scenario.threads == 1 {
            self.measure(dependent_floor, vec![DependentFloor::new(&Floor::new(size))], scenario);
        }
        self.measure_exclusive_writer(|| Storage::Memory, "in memory", scenario);
        self.measure_exclusive_writer(tmpfs, "tmpfs", scenario);
        let create = || by_handle(Storage::Memory, Locking::Exclusive);
        self.measure_shared("vipool, exclusive lock, in memory", create, scenario);
        let create = || by_handle(tmpfs(), Locking::Exclusive);
        self.measure_shared("vipool, exclusive lock, tmpfs", create, scenario);
        let create = || by_session(Storage::Memory);
        self.measure_shared("vipool, by session, in memory", create, scenario);
        self.measure_shared("vipool, by session, tmpfs", || by_session(tmpfs()), scenario);
        let create = || by_handle(tmpfs(), Locking::PerOperation);
        self.measure_shared("vipool, lock per operation, tmpfs", create, scenario);
        if scenario.churn == Churn::Sticky {
            return; // no peer stores users
        }
        self.measure_shared("Mutex<(VecDeque, HashMap)>", || MutexMap::new(size), scenario);
        self.measure_shared("ArrayQueue + DashMap", || QueueMap::new(size), scenario);
        self.measure_shared("vm-allocator", || VmAllocator::new(size), scenario);
        self.measure_shared("id-pool", || IdPool::new(size), scenario);
        let create = || Lmdb::new(&self.tmpfs, size).expect("a working store");
        self.measure_shared("LMDB (heed)", create, scenario);
    }

    /// Compares two threads with one thread on the same table. The row contains the time per
    /// operation of two threads, and the ratio of that time to the time of one thread.
    fn measure_two_threads(&self, name: &str, storage: Storage<'_>, locking: Locking, size: u32) {
        if !self.report.selects(name) {
            return;
        }
        let table = ByHandle::new(storage, size, locking).expect("a valid plan");
        let scenario = Scenario { size, occupancy: 50, churn: Churn::Anonymous, threads: 2 };
        let half_occupied_scenario = Scenario { occupancy: 25, ..scenario };
        let mut two_threads = Workload::new(vec![&table; 2], half_occupied_scenario);
        let mut one_thread =
            Workload::new_shared(vec![&table], Scenario { threads: 1, ..half_occupied_scenario });
        let (count_of_two, count_of_one) = (two_threads.calibrate(), one_thread.calibrate());
        let blocks = (0..self.block_count)
            .map(|_| (two_threads.run_block(count_of_two), one_thread.run_block(count_of_one)))
            .map(|(two_threads_ns, one_thread_ns)| (two_threads_ns, two_threads_ns / one_thread_ns))
            .collect();
        self.report.print(&Row::from_blocks(name, scenario, blocks));
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let has_flag = |flag: &str| arguments.iter().any(|argument| argument == flag);
    let value_of = |flag: &str| {
        let index = arguments.iter().position(|argument| argument == flag)?;
        arguments.get(index + 1).cloned()
    };
    let prefix = value_of("--prefix").map(|text| text.parse::<u32>().expect("a prefix length"));
    let shared_memory = Path::new("/dev/shm");
    let tmpfs =
        if shared_memory.is_dir() { shared_memory.to_owned() } else { std::env::temp_dir() };
    let bench = Bench {
        report: Report::new(has_flag("--json"), value_of("--only").unwrap_or_default()),
        block_count: if has_flag("--quick") { 5 } else { 31 },
        tmpfs,
    };
    if has_flag("--churn") {
        return operations::measure_memory(&bench);
    }
    for length in [24, 16, 12]
        .into_iter()
        .filter(|length| prefix.is_none_or(|prefix_length| prefix_length == *length))
    {
        let size = 1 << (32 - length);
        for occupancy in [50, 99] {
            for churn in [Churn::Anonymous, Churn::Sticky] {
                for threads in [1, 2] {
                    bench.measure_all(Scenario { size, occupancy, churn, threads });
                }
            }
        }
        let name = "two threads against one, exclusive lock, in memory";
        bench.measure_two_threads(name, Storage::Memory, Locking::Exclusive, size);
        let name = "two threads against one, lock per operation, tmpfs";
        let tmpfs = Storage::Directory(&bench.tmpfs);
        bench.measure_two_threads(name, tmpfs, Locking::PerOperation, size);
        operations::measure_all(&bench, size);
    }
}
