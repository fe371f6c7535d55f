//! Close a random live session, open a fresh one: vipool, its peers and the floor of the machine;
//! then what else is asked of the table.
//!
//! Every figure is taken beside the floor within one run, block by block in turn, and the ratio is
//! the median of the ratios of neighbouring blocks: what else the machine does hits both.
//! `--json` prints an object per row, `--quick` takes fewer blocks; `--prefix 16` measures that size
//! alone, `--only TEXT` the rows whose name holds the text; `--churn` takes a hundred million
//! operations and tells the memory before and after.

use std::path::{Path, PathBuf};

use vipool_bench_peers::{
    Allocator, AloneBySession, ByHandle, BySession, Chain, Floor, Hand, IdPool, Lmdb, Locking,
    MutexMap, Place, QueueMap, VmAllocator, map,
};

mod churn;
mod figures;
mod report;

use churn::{Churn, Filled};
use report::{Report, Row};

/// Where a table is measured: its size, how full it is, who comes, and on how many threads.
#[derive(Clone, Copy)]
struct At {
    size: u32,
    occupancy: u32,
    churn: Churn,
    threads: usize,
}

struct Bench {
    report: Report,
    blocks: usize,
    tmpfs: PathBuf,
}

impl Bench {
    /// Measures one subject beside the floor. `hands` gives each thread its hand on the table.
    fn subject<H: Hand>(&self, name: &str, hands: Vec<H>, at: At) {
        let line = Floor::new(at.size);
        let mut subject = Filled::new(hands, at);
        let mut floor = Filled::new(vec![&line; at.threads], at);
        let (many, many_floor) = (subject.calibrate(), floor.calibrate());
        let pairs: Vec<(f64, f64)> = (0..self.blocks)
            .map(|_| (subject.block(many), floor.block(many_floor)))
            .map(|(subject, floor)| (subject, subject / floor))
            .collect();
        self.report.row(&Row::of(name, at, pairs));
    }

    /// A subject that threads share.
    fn shared<A: Allocator>(&self, name: &str, make: impl FnOnce() -> A, at: At) {
        if self.report.wants(name) {
            let table = make();
            self.subject(name, vec![&table; at.threads], at);
        }
    }

    /// vipool as a program of one thread has it that writes alone: by handle, and by session.
    fn writer<'p>(&self, place: impl Fn() -> Place<'p>, memory: &str, at: At) {
        for by_session in [false, true] {
            let by = if by_session { ", by session" } else { "" };
            let name = format!("vipool{by}, alone, {memory}");
            if !self.report.wants(&name) || at.threads > 1 {
                continue;
            }
            let (mut map, _directory) =
                map(place(), at.size, vipool::map::Settings::default()).expect("a map");
            let writer = map.writer().expect("nobody else has it");
            if by_session {
                self.subject(&name, vec![AloneBySession(writer)], at);
            } else {
                self.subject(&name, vec![writer], at);
            }
        }
    }

    /// All subjects in one situation.
    fn situation(&self, at: At) {
        let inside = || Place::Inside(&self.tmpfs);
        let by_handle = |place, locking| ByHandle::new(place, at.size, locking).expect("a map");
        let by_session = |place| BySession::new(place, at.size, Locking::Exclusive).expect("a map");
        let size = at.size;
        self.shared("floor", || Floor::new(size), at);
        let chained = "floor, one line after the other";
        if self.report.wants(chained) && at.threads == 1 {
            self.subject(chained, vec![Chain::new(&Floor::new(size))], at);
        }
        self.writer(|| Place::Memory, "in memory", at);
        self.writer(inside, "tmpfs", at);
        let memory = || by_handle(Place::Memory, Locking::Exclusive);
        self.shared("vipool, exclusive, in memory", memory, at);
        let exclusive = || by_handle(inside(), Locking::Exclusive);
        self.shared("vipool, exclusive, tmpfs", exclusive, at);
        self.shared("vipool, by session, in memory", || by_session(Place::Memory), at);
        self.shared("vipool, by session, tmpfs", || by_session(inside()), at);
        let each_time = || by_handle(inside(), Locking::PerOperation);
        self.shared("vipool, lock each time, tmpfs", each_time, at);
        if at.churn == Churn::Sticky {
            return; // none of the others knows users
        }
        self.shared("Mutex<(VecDeque, HashMap)>", || MutexMap::new(size), at);
        self.shared("ArrayQueue + DashMap", || QueueMap::new(size), at);
        self.shared("vm-allocator", || VmAllocator::new(size), at);
        self.shared("id-pool", || IdPool::new(size), at);
        self.shared("LMDB (heed)", || Lmdb::new(&self.tmpfs, size).expect("a store"), at);
    }

    /// Two threads together beside one alone, on the same table: what each takes for an operation.
    fn threads(&self, name: &str, place: Place<'_>, locking: Locking, size: u32) {
        if !self.report.wants(name) {
            return;
        }
        let table = ByHandle::new(place, size, locking).expect("a map");
        let at = At { size, occupancy: 50, churn: Churn::Random, threads: 2 };
        let mut two = Filled::new(vec![&table; 2], At { occupancy: 25, ..at });
        let mut one = Filled::later(vec![&table], At { occupancy: 25, threads: 1, ..at });
        let (many, many_one) = (two.calibrate(), one.calibrate());
        let pairs = (0..self.blocks)
            .map(|_| (two.block(many), one.block(many_one)))
            .map(|(two, one)| (two, two / one))
            .collect();
        self.report.row(&Row::of(name, at, pairs));
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    let value = |flag: &str| {
        let place = arguments.iter().position(|argument| argument == flag)?;
        arguments.get(place + 1).cloned()
    };
    let prefix = value("--prefix").map(|prefix| prefix.parse::<u32>().expect("a prefix length"));
    let shared = Path::new("/dev/shm");
    let bench = Bench {
        report: Report::new(has("--json"), value("--only").unwrap_or_default()),
        blocks: if has("--quick") { 5 } else { 31 },
        tmpfs: if shared.is_dir() { shared.to_owned() } else { std::env::temp_dir() },
    };
    if has("--churn") {
        return figures::memory(&bench);
    }
    for length in [24, 16, 12].into_iter().filter(|length| prefix.is_none_or(|p| p == *length)) {
        let size = 1 << (32 - length);
        for occupancy in [50, 99] {
            for churn in [Churn::Random, Churn::Sticky] {
                for threads in [1, 2] {
                    bench.situation(At { size, occupancy, churn, threads });
                }
            }
        }
        let exclusive = "two threads to one, exclusive, in memory";
        bench.threads(exclusive, Place::Memory, Locking::Exclusive, size);
        let each_time = "two threads to one, lock each time, tmpfs";
        bench.threads(each_time, Place::Inside(&bench.tmpfs), Locking::PerOperation, size);
        figures::all(&bench, size);
    }
}
