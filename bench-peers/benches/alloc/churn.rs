//! The workload: each operation closes a random session and opens a new session.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use vipool::raw::prefetch::prefetch;
use vipool_bench_peers::Accessor;

use crate::Scenario;

/// The duration of a block, a measured series of operations. The previous block used another table,
/// which evicted the table of this block from the caches. So a warm-up of half the duration
/// precedes each block.
const BLOCK_DURATION: Duration = Duration::from_millis(8);

/// The kind of sessions in a workload.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Churn {
    /// Sessions without a user.
    Anonymous,
    /// Returning users, who get their last address again if it is free.
    Sticky,
}

/// The state of one thread.
struct Client<A: Accessor> {
    table: A,
    /// The leases of the open sessions.
    leases: Vec<A::Lease>,
    /// The user of each open session, if the workload has users.
    active_users: Vec<u32>,
    /// Users without a session.
    idle_users: Vec<u32>,
    last_session_id: u64,
    rng_state: u64,
}

impl<A: Accessor> Client<A> {
    /// Returns a random number below `end` (xorshift64*, scaled by multiplication). `end` must not
    /// be 0.
    fn random_below(&mut self, end: usize) -> usize {
        self.rng_state ^= self.rng_state >> 12;
        self.rng_state ^= self.rng_state << 25;
        self.rng_state ^= self.rng_state >> 27;
        let random_bits = self.rng_state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
        ((random_bits * end as u64) >> 32) as usize
    }

    /// Closes a session and opens another session, `count` times.
    ///
    /// Each iteration chooses and prefetches the session and the user of the next iteration. So the
    /// measured time contains fewer cache misses in the state of the client.
    fn churn(&mut self, user_names: &[String], count: u64) {
        let mut next_indices = self.choose_next(user_names);
        for _ in 0..count {
            let (closed_index, idle_index) = next_indices;
            next_indices = self.choose_next(user_names);
            self.table.close(self.leases[closed_index]);
            let mut user = None;
            if !user_names.is_empty() {
                std::mem::swap(
                    &mut self.idle_users[idle_index],
                    &mut self.active_users[closed_index],
                );
                user = Some(&*user_names[self.active_users[closed_index] as usize]);
            }
            self.last_session_id += 1;
            self.leases[closed_index] =
                self.table.open(self.last_session_id, user).expect("a free address");
        }
    }

    /// Returns the index of the session to close, and the index of the idle user of the new
    /// session.
    fn choose_next(&mut self, user_names: &[String]) -> (usize, usize) {
        let closed_index = self.random_below(self.leases.len());
        prefetch(&self.leases[closed_index]);
        if user_names.is_empty() {
            return (closed_index, 0);
        }
        let idle_index = self.random_below(self.idle_users.len());
        prefetch(&user_names[self.idle_users[idle_index] as usize].as_bytes()[0]);
        (closed_index, idle_index)
    }
}

/// A filled table and the threads that use it.
pub struct Workload<A: Accessor> {
    user_names: Vec<String>,
    clients: Vec<Client<A>>,
}

impl<A: Accessor> Workload<A> {
    /// Fills an empty table. Each thread uses one accessor.
    pub fn new(accessors: Vec<A>, scenario: Scenario) -> Self {
        Self::with_session_id_base(accessors, scenario, 0)
    }

    /// Fills a part of a table that another workload also uses. The session ids of both workloads
    /// are distinct.
    pub fn new_shared(accessors: Vec<A>, scenario: Scenario) -> Self {
        Self::with_session_id_base(accessors, scenario, 1 << 48)
    }

    fn with_session_id_base(accessors: Vec<A>, scenario: Scenario, session_id_base: u64) -> Self {
        let session_count = (u64::from(scenario.size) * u64::from(scenario.occupancy) / 100) as u32;
        let user_count = if scenario.churn == Churn::Sticky { scenario.size } else { 0 };
        let user_names: Vec<String> = (0..user_count).map(|user| format!("user{user}")).collect();
        let new_client = |(thread, table): (u64, A)| Client {
            table,
            leases: Vec::new(),
            active_users: Vec::new(),
            idle_users: Vec::new(),
            last_session_id: session_id_base + ((thread + 1) << 40),
            rng_state: 0x9e37_79b9_7f4a_7c15 ^ thread << 17,
        };
        let mut clients: Vec<Client<A>> = (0..).zip(accessors).map(new_client).collect();
        let thread_count = clients.len();
        for user in 0..session_count {
            let client = &mut clients[user as usize % thread_count];
            let name = user_names.get(user as usize).map(|name| &**name);
            let lease = client.table.open(session_id_base + u64::from(user) + 1, name);
            client.leases.push(lease.expect("a free address"));
            client.active_users.push(user);
        }
        for user in session_count..user_count {
            clients[user as usize % thread_count].idle_users.push(user);
        }
        let mut workload = Self { user_names, clients };
        // Warm up until the order of the free addresses is random.
        workload.run_block(u64::from(scenario.size).clamp(10_000, 2_000_000) / thread_count as u64);
        workload
    }

    /// Runs `count` operations on each thread after a warm-up. Returns the elapsed nanoseconds,
    /// divided by the number of operations of all threads.
    pub fn run_block(&mut self, count: u64) -> f64 {
        let user_names = &*self.user_names;
        let thread_count = self.clients.len();
        let duration = if let [client] = &mut *self.clients {
            client.churn(user_names, count / 2);
            let started = Instant::now();
            client.churn(user_names, count);
            started.elapsed()
        } else {
            // Each thread reads the clock itself, because the spawning thread may run late.
            let start_barrier = Barrier::new(thread_count);
            let churn = |client: &mut Client<A>| {
                client.churn(user_names, count / 2);
                start_barrier.wait();
                let started = Instant::now();
                client.churn(user_names, count);
                (started, Instant::now())
            };
            let spans: Vec<(Instant, Instant)> = std::thread::scope(|scope| {
                let workers: Vec<_> =
                    self.clients.iter_mut().map(|client| scope.spawn(|| churn(client))).collect();
                workers.into_iter().map(|worker| worker.join().expect("no panic")).collect()
            });
            let first_start = spans.iter().map(|span| span.0).min().expect("a thread");
            spans.iter().map(|span| span.1).max().expect("a thread") - first_start
        };
        duration.as_nanos() as f64 / (count * thread_count as u64) as f64
    }

    /// Measures the speed, and returns the number of operations per thread that fill one block.
    pub fn calibrate(&mut self) -> u64 {
        let nanoseconds_per_operation = self.run_block(200).max(1.0) * self.clients.len() as f64;
        ((BLOCK_DURATION.as_nanos() as f64 / nanoseconds_per_operation) as u64).clamp(50, 1 << 20)
    }
}
