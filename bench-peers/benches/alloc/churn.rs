//! Those who churn a table: one logs off, one logs on.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use vipool::os::prefetch::prefetch;
use vipool_bench_peers::Hand;

use crate::At;

/// How long a block lasts; half as long again it runs before, to bring a /16 back into the caches
/// from which the block before drove it out.
const BLOCK: Duration = Duration::from_millis(8);

/// Who logs on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Churn {
    /// Users who were never there.
    Random,
    /// Users who come back, and get their last address again if it is free.
    Sticky,
}

/// One thread: its hand on the table, its live sessions, its users, its dice.
struct Client<H: Hand> {
    table: H,
    live: Vec<H::Lease>,
    /// The user of each of them, where there are users.
    users: Vec<u32>,
    away: Vec<u32>,
    next: u64,
    dice: u64,
}

impl<H: Hand> Client<H> {
    /// A number below `below`, which is not zero (xorshift64*, by multiplication).
    fn roll(&mut self, below: usize) -> usize {
        self.dice ^= self.dice >> 12;
        self.dice ^= self.dice << 25;
        self.dice ^= self.dice >> 27;
        let high = self.dice.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
        ((high * below as u64) >> 32) as usize
    }

    /// So many times: one logs off, one logs on. Who is next is rolled a turn ahead, and what is held
    /// of both fetched: it is the table that is measured, not the list of who is there.
    fn churn(&mut self, names: &[String], times: u64) {
        let mut next = self.next_turn(names);
        for _ in 0..times {
            let (seat, place) = next;
            next = self.next_turn(names);
            self.table.close(self.live[seat]);
            let mut user = None;
            if !names.is_empty() {
                std::mem::swap(&mut self.away[place], &mut self.users[seat]);
                user = Some(&*names[self.users[seat] as usize]);
            }
            self.next += 1;
            self.live[seat] = self.table.open(self.next, user).expect("one was closed");
        }
    }

    /// Who logs off, and who of those away logs on.
    fn next_turn(&mut self, names: &[String]) -> (usize, usize) {
        let seat = self.roll(self.live.len());
        prefetch(&self.live[seat]);
        if names.is_empty() {
            return (seat, 0);
        }
        let place = self.roll(self.away.len());
        prefetch(&names[self.away[place] as usize].as_bytes()[0]);
        (seat, place)
    }
}

/// A table, filled, and those who churn it.
pub struct Filled<H: Hand> {
    names: Vec<String>,
    clients: Vec<Client<H>>,
}

impl<H: Hand> Filled<H> {
    /// Fills an empty table on which each thread has a hand.
    pub fn new(hands: Vec<H>, at: At) -> Self {
        Self::from(hands, at, 0)
    }

    /// The same of a table on which others have sessions already.
    pub fn later(hands: Vec<H>, at: At) -> Self {
        Self::from(hands, at, 1 << 48)
    }

    fn from(hands: Vec<H>, at: At, first: u64) -> Self {
        let live = (u64::from(at.size) * u64::from(at.occupancy) / 100) as u32;
        let users = if at.churn == Churn::Sticky { at.size } else { 0 };
        let names: Vec<String> = (0..users).map(|user| format!("user{user}")).collect();
        let client = |(thread, table): (u64, H)| Client {
            table,
            live: Vec::new(),
            users: Vec::new(),
            away: Vec::new(),
            next: first + ((thread + 1) << 40),
            dice: 0x9e37_79b9_7f4a_7c15 ^ thread << 17,
        };
        let mut clients: Vec<Client<H>> = (0..).zip(hands).map(client).collect();
        let threads = clients.len();
        for user in 0..live {
            let client = &mut clients[user as usize % threads];
            let name = names.get(user as usize).map(|name| &**name);
            let lease = client.table.open(first + u64::from(user) + 1, name);
            client.live.push(lease.expect("not full yet"));
            client.users.push(user);
        }
        for user in live..users {
            clients[user as usize % threads].away.push(user);
        }
        let mut filled = Self { names, clients };
        // Until the order of the free addresses is no longer that of the first filling.
        filled.block(u64::from(at.size).clamp(10_000, 2_000_000) / threads as u64);
        filled
    }

    /// Nanoseconds for a close and an open, over so many by each thread.
    pub fn block(&mut self, times: u64) -> f64 {
        let names = &*self.names;
        let threads = self.clients.len();
        let took = if let [client] = &mut *self.clients {
            client.churn(names, times / 2);
            let started = Instant::now();
            client.churn(names, times);
            started.elapsed()
        } else {
            // Each thread looks at the clock itself: who starts them may be late.
            let start = Barrier::new(threads);
            let churn = |client: &mut Client<H>| {
                client.churn(names, times / 2);
                start.wait();
                let started = Instant::now();
                client.churn(names, times);
                (started, Instant::now())
            };
            let spans: Vec<(Instant, Instant)> = std::thread::scope(|scope| {
                let workers: Vec<_> =
                    self.clients.iter_mut().map(|client| scope.spawn(|| churn(client))).collect();
                workers.into_iter().map(|worker| worker.join().expect("no panic")).collect()
            });
            let first = spans.iter().map(|span| span.0).min().expect("a thread");
            spans.iter().map(|span| span.1).max().expect("a thread") - first
        };
        took.as_nanos() as f64 / (times * threads as u64) as f64
    }

    /// How many each thread does in a block.
    pub fn calibrate(&mut self) -> u64 {
        let each = self.block(200).max(1.0) * self.clients.len() as f64;
        ((BLOCK.as_nanos() as f64 / each) as u64).clamp(50, 1 << 20)
    }
}
