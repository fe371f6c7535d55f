//! Random operations on a map, and the scenarios in which they run.

use std::net::IpAddr;
use std::ops::ControlFlow;
use std::time::SystemTime;

use vipool::Tick;
use vipool::map::{Leader, Map, OpenOptions, Plan, Probe, Settings};
use vipool::pool::{Pool, PoolKind};
use vipool::range::Range;

use crate::recovery::session_id;

/// A random number generator (xorshift64*) that repeats its numbers for the same seed.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Creates a generator with the seed in `VIPOOL_SEED`. If this variable is not set, the clock
    /// provides the seed. Prints the seed.
    pub fn from_environment() -> Self {
        let requested_seed = std::env::var("VIPOOL_SEED").ok().and_then(|text| text.parse().ok());
        let seed = requested_seed.unwrap_or_else(|| {
            let elapsed = SystemTime::UNIX_EPOCH.elapsed().unwrap();
            u64::from(elapsed.subsec_nanos()) << 16 ^ elapsed.as_secs()
        });
        println!("VIPOOL_SEED={seed}");
        Self::new(seed)
    }

    /// Returns a number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) % end
    }
}

/// A plan and the sessions that use it.
pub struct Scenario {
    pub name: &'static str,
    pub plan: Plan,
    pub sessions: Vec<u64>,
    /// The number of sessions that are open at the start.
    pub initial_open_count: usize,
    /// Each open chooses one of these users at random, or no user.
    pub users: &'static [&'static str],
    /// The number of instructions to step through, in quarters of the requested number.
    pub quarters: u64,
}

fn pool(kind: PoolKind, range: &str) -> Pool {
    let range: Range = range.parse().unwrap();
    Pool::new("default", kind, &[range], u32::MAX).unwrap()
}

/// Returns scenarios with small maps. Each scenario covers different branches of the code.
pub fn scenarios() -> Vec<Scenario> {
    let small_pool = pool(PoolKind::VirtualIp, "10.0.0.1-10.0.0.6");
    let large_pool = pool(PoolKind::VirtualIp, "10.0.0.1-10.0.0.144");
    let loopback_pool = pool(PoolKind::Loopback, "127.77.0.0/28");
    let cool_down_settings =
        Settings::without_cool_down().with_cool_down(3).with_check_in_use(true);
    vec![
        Scenario {
            name: "one pool",
            plan: Plan::new([small_pool.clone()]).with_settings(Settings::without_cool_down()),
            sessions: (1..=8).collect(),
            initial_open_count: 0,
            users: &USERS,
            quarters: 2,
        },
        Scenario {
            name: "anonymous sessions",
            plan: Plan::new([small_pool.clone()]).with_settings(Settings::without_cool_down()),
            sessions: (1..=8).collect(),
            initial_open_count: 3,
            users: &[],
            quarters: 1,
        },
        Scenario {
            name: "two pools with a cool-down",
            plan: Plan::new([small_pool, loopback_pool]).with_settings(cool_down_settings),
            sessions: (1..=10).collect(),
            initial_open_count: 4,
            users: &USERS,
            quarters: 2,
        },
        Scenario {
            name: "an overflowing index bucket",
            plan: Plan::new([large_pool]).with_settings(Settings::without_cool_down()),
            sessions: sessions_in_one_bucket(144, 18),
            initial_open_count: 140,
            users: &USERS,
            quarters: 1,
        },
    ]
}

/// Returns sessions whose entries all have the same home bucket in an index with `bucket_count`
/// buckets. The hash is the hash of the index: the product of the session id and the golden ratio,
/// with its halves combined by XOR. The upper half of the hash, scaled to the number of buckets, is
/// the number of the home bucket.
fn sessions_in_one_bucket(session_count: usize, bucket_count: u64) -> Vec<u64> {
    let home_bucket = |number: u64| {
        let product = u128::from(session_id(number).raw()) * 0x9e37_79b9_7f4a_7c15;
        let hash = product as u64 ^ (product >> 64) as u64;
        ((hash >> 32) * bucket_count) >> 32
    };
    (1..).filter(|number| home_bucket(*number) == 3).take(session_count).collect()
}

const USERS: [&str; 3] = ["ann", "bob", "eve"];

/// Reports random addresses as in use and random leaders as dead.
struct RandomProbe<'a>(&'a mut Random);

impl Probe for RandomProbe<'_> {
    fn has_sockets(&mut self, _: IpAddr) -> bool {
        self.0.below(3) == 0
    }

    fn has_exited(&mut self, _: &Leader) -> bool {
        self.0.below(4) != 0
    }
}

/// Runs a random operation at the time `now`. The time must not decrease between calls.
///
/// The function calls `begin` immediately before the operation, after it has chosen the arguments
/// and looked up the session. If `begin` returns `Break`, the operation does not run.
pub fn run_random_operation(
    map: &Map,
    scenario: &Scenario,
    random: &mut Random,
    now: u32,
    begin: impl FnOnce() -> ControlFlow<()>,
) {
    let number = scenario.sessions[random.below(scenario.sessions.len() as u64) as usize];
    let session = session_id(number);
    let open_session = map.find(session).unwrap();
    let user = scenario.users.get(random.below(5) as usize).copied();
    let address = scenario.plan.pools[0].address(random.below(6) as u32).unwrap();
    let range = Range::from(address);
    let client = [None, Some(IpAddr::from([192, 0, 2, number as u8]))][random.below(2) as usize];
    let leader = Leader { pid: number as u32 + 1, start_time: 7, pid_namespace: 0 };
    let leader = [None, Some(leader)][random.below(2) as usize];
    let choice = random.below(20);
    if begin().is_break() {
        return;
    }
    match (choice, open_session) {
        (0..=7, _) => {
            let address = (choice == 0).then_some(address);
            let options = OpenOptions::new()
                .with_user(user)
                .with_address(address)
                .with_client(client)
                .with_leader(leader);
            _ = map.open_session(session, &options, Tick::from_secs(now));
        }
        (8..=11, Some((handle, _))) => _ = map.close_by_handle(&handle, Tick::from_secs(now)),
        (12 | 13, _) => _ = map.close_session(session, Tick::from_secs(now)),
        (14, _) => _ = map.drain(&range, Tick::from_secs(now)),
        (15, _) => _ = map.undrain(&range, Tick::from_secs(now)),
        (16, _) => _ = map.reserve(address, "ann", Tick::from_secs(now)),
        (17, _) => _ = map.unreserve(address, Tick::from_secs(now)),
        (18, Some(_)) if random.below(2) == 0 => _ = map.update_session(session, client, leader),
        // Recover rarely, because the recovery of the large pool takes a hundred thousand
        // instructions.
        (18, _) if random.below(8) == 0 => _ = map.recover(),
        (_, _) => _ = map.reap(Tick::from_secs(now), 3, &mut RandomProbe(random)),
    }
}
