//! Close a random live session, open a fresh one: vipool, its peers and the floor of the machine.
//!
//! Every figure is taken beside the floor within one run, block by block in turn, and the ratio is
//! the median of the ratios of neighbouring blocks: what else the machine does hits both.
//! `--json` prints an object per row, `--quick` takes fewer blocks; `--prefix 16` measures that size
//! alone, `--only TEXT` the rows whose name holds the text.

use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::time::{Duration, Instant};

use vipool_bench_peers::{
    Allocator, ByHandle, BySession, Floor, IdPool, Lmdb, Locking, MutexMap, Place, QueueMap,
    VmAllocator,
};

/// Blocks of the subject and of the floor, in turn.
const BLOCKS: usize = 15;
/// How long a block lasts.
const BLOCK: Duration = Duration::from_millis(8);

/// Who logs on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Churn {
    /// Users who were never there.
    Random,
    /// Users who come back, and get their last address again if it is free.
    Sticky,
}

/// One line of the table.
struct Row {
    name: String,
    size: u32,
    occupancy: u32,
    churn: Churn,
    threads: usize,
    nanoseconds: f64,
    ratio: f64,
}

/// What one thread does to a table: its live sessions, its users, its dice.
struct Client<L> {
    live: Vec<(L, u32)>,
    away: Vec<u32>,
    next: u64,
    dice: u64,
}

impl<L: Copy> Client<L> {
    /// A number below `below`, which is not zero (xorshift64*, by multiplication).
    fn roll(&mut self, below: usize) -> usize {
        self.dice ^= self.dice >> 12;
        self.dice ^= self.dice << 25;
        self.dice ^= self.dice >> 27;
        let high = self.dice.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
        ((high * below as u64) >> 32) as usize
    }

    /// So many times: one logs off, one logs on.
    fn churn<A: Allocator<Lease = L>>(&mut self, table: &A, names: &[String], times: u64) {
        for _ in 0..times {
            let seat = self.roll(self.live.len());
            let (lease, leaver) = self.live[seat];
            table.close(lease);
            let comer = if self.away.is_empty() {
                leaver
            } else {
                let place = self.roll(self.away.len());
                std::mem::replace(&mut self.away[place], leaver)
            };
            self.next += 1;
            let name = names.get(comer as usize).map(|name| &**name);
            self.live[seat] = (table.open(self.next, name).expect("one was closed"), comer);
        }
    }
}

/// A table, filled, and those who churn it.
struct Filled<A: Allocator> {
    table: A,
    names: Vec<String>,
    clients: Vec<Client<A::Lease>>,
}

impl<A: Allocator> Filled<A> {
    fn new(table: A, slots: u32, occupancy: u32, churn: Churn, threads: usize) -> Self {
        let live = (u64::from(slots) * u64::from(occupancy) / 100) as u32;
        let users = if churn == Churn::Sticky { slots } else { 0 };
        let names: Vec<String> = (0..users).map(|user| format!("user{user}")).collect();
        let mut clients: Vec<Client<A::Lease>> = (0..threads as u64)
            .map(|thread| Client {
                live: Vec::new(),
                away: Vec::new(),
                next: (thread + 1) << 40,
                dice: 0x9e37_79b9_7f4a_7c15 ^ thread << 17,
            })
            .collect();
        for user in 0..live {
            let name = names.get(user as usize).map(|name| &**name);
            let lease = table.open(u64::from(user) + 1, name).expect("not full yet");
            clients[user as usize % threads].live.push((lease, user));
        }
        for user in live..users {
            clients[user as usize % threads].away.push(user);
        }
        let mut filled = Self { table, names, clients };
        // Until the order of the free addresses is no longer that of the first filling.
        filled.block(u64::from(slots).clamp(10_000, 200_000) / threads as u64);
        filled
    }

    /// Nanoseconds for a close and an open, over so many by each thread.
    fn block(&mut self, times: u64) -> f64 {
        let (table, names) = (&self.table, &*self.names);
        let threads = self.clients.len();
        // Each thread looks at the clock itself: who starts them may be late.
        let start = Barrier::new(threads);
        let spans: Vec<(Instant, Instant)> = std::thread::scope(|scope| {
            let workers: Vec<_> = self
                .clients
                .iter_mut()
                .map(|client| {
                    scope.spawn(|| {
                        start.wait();
                        let started = Instant::now();
                        client.churn(table, names, times);
                        (started, Instant::now())
                    })
                })
                .collect();
            workers.into_iter().map(|worker| worker.join().expect("no panic")).collect()
        });
        let first = spans.iter().map(|span| span.0).min().expect("a thread");
        let last = spans.iter().map(|span| span.1).max().expect("a thread");
        let took = last - first;
        took.as_nanos() as f64 / (times * threads as u64) as f64
    }

    /// How many each thread does in a block.
    fn calibrate(&mut self) -> u64 {
        let each = self.block(50).max(1.0) * self.clients.len() as f64;
        ((BLOCK.as_nanos() as f64 / each) as u64).clamp(50, 1 << 20)
    }
}

struct Bench {
    blocks: usize,
    json: bool,
    only: String,
}

impl Bench {
    /// Measures one subject beside the floor.
    fn subject<A: Allocator>(
        &self,
        name: &str,
        make: impl FnOnce() -> A,
        (size, occupancy, churn, threads): (u32, u32, Churn, usize),
    ) {
        if !name.contains(&self.only) {
            return;
        }
        let mut subject = Filled::new(make(), size, occupancy, churn, threads);
        let mut floor = Filled::new(Floor::new(size), size, occupancy, churn, threads);
        let (many, many_floor) = (subject.calibrate(), floor.calibrate());
        let mut pairs: Vec<(f64, f64)> = (0..self.blocks)
            .map(|_| (subject.block(many), floor.block(many_floor)))
            .map(|(subject, floor)| (subject, subject / floor))
            .collect();
        let middle = pairs.len() / 2;
        pairs.sort_by(|a, b| a.1.total_cmp(&b.1));
        let ratio = pairs[middle].1;
        pairs.sort_by(|a, b| a.0.total_cmp(&b.0));
        let nanoseconds = pairs[middle].0;
        let name = name.to_owned();
        let row = Row { name, size, occupancy, churn, threads, nanoseconds, ratio };
        if self.json {
            println!("{}", row.json());
        } else {
            println!("{}", row.line());
        }
    }

    /// All subjects in one situation.
    fn situation(&self, tmpfs: &Path, at: (u32, u32, Churn, usize)) {
        let (size, .., churn, _) = at;
        let by_handle = |place, locking| ByHandle::new(place, size, locking).expect("a map");
        let inside = || Place::Inside(tmpfs);
        let session = || BySession::new(inside(), size, Locking::Exclusive).expect("a map");
        self.subject("floor", || Floor::new(size), at);
        self.subject("vipool, by handle", || by_handle(inside(), Locking::Exclusive), at);
        self.subject("vipool, by session", session, at);
        self.subject("vipool, in memory", || by_handle(Place::Memory, Locking::Exclusive), at);
        self.subject("vipool, lock each time", || by_handle(inside(), Locking::PerOperation), at);
        if churn == Churn::Sticky {
            return; // none of the others knows users
        }
        self.subject("Mutex<(VecDeque, HashMap)>", || MutexMap::new(size), at);
        self.subject("ArrayQueue + DashMap", || QueueMap::new(size), at);
        self.subject("vm-allocator", || VmAllocator::new(size), at);
        self.subject("id-pool", || IdPool::new(size), at);
        self.subject("LMDB (heed)", || Lmdb::new(tmpfs, size).expect("a store"), at);
    }
}

impl Row {
    fn churn(&self) -> &'static str {
        match self.churn {
            Churn::Random => "random",
            Churn::Sticky => "sticky",
        }
    }

    fn line(&self) -> String {
        format!(
            "{:<28} /{:<4} {:>3} % {:>7} {:>7} {:>10.1} {:>8.2}",
            self.name,
            32 - self.size.ilog2(),
            self.occupancy,
            self.churn(),
            self.threads,
            self.nanoseconds,
            self.ratio
        )
    }

    fn json(&self) -> String {
        serde_json::json!({
            "name": self.name,
            "size": self.size,
            "occupancy": self.occupancy,
            "churn": self.churn(),
            "threads": self.threads,
            "ns": (self.nanoseconds * 10.0).round() / 10.0,
            "ratio": (self.ratio * 100.0).round() / 100.0,
        })
        .to_string()
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
    let bench = Bench {
        blocks: if has("--quick") { 3 } else { BLOCKS },
        json: has("--json"),
        only: value("--only").unwrap_or_default(),
    };
    let shared = PathBuf::from("/dev/shm");
    let tmpfs = if shared.is_dir() { shared } else { std::env::temp_dir() };
    if !bench.json {
        println!("ns for a close and an open; the ratio is to the floor, measured in turn\n");
        println!(
            "{:<28} {:>5} {:>5} {:>7} {:>7} {:>10} {:>8}",
            "name", "size", "full", "churn", "threads", "ns", "ratio"
        );
    }
    for length in [24, 16, 12].into_iter().filter(|length| prefix.is_none_or(|p| p == *length)) {
        let size = 1 << (32 - length);
        for occupancy in [50, 99] {
            for churn in [Churn::Random, Churn::Sticky] {
                for threads in [1, 2] {
                    bench.situation(&tmpfs, (size, occupancy, churn, threads));
                }
            }
        }
    }
}
