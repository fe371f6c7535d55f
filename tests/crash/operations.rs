//! Random operations on a map, and the maps they are done on.

use std::net::IpAddr;
use std::ops::ControlFlow;
use std::time::SystemTime;

use vipool::Tick;
use vipool::map::{Leader, Map, OpenOptions, Plan, Probe, Settings};
use vipool::pool::{Pool, PoolKind};
use vipool::range::Range;

use crate::view::id;

/// Random numbers that come again with the same seed (xorshift64*).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Numbers that come once, unless they are asked for again.
    pub fn of_any_seed() -> Self {
        let asked = std::env::var("VIPOOL_SEED").ok().and_then(|text| text.parse().ok());
        let seed = asked.unwrap_or_else(|| {
            let since = SystemTime::UNIX_EPOCH.elapsed().unwrap();
            u64::from(since.subsec_nanos()) << 16 ^ since.as_secs()
        });
        println!("VIPOOL_SEED={seed}");
        Self::new(seed)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) % end
    }
}

/// What is done on a map: its plan, and the sessions that take part.
pub struct Scene {
    pub name: &'static str,
    pub plan: Plan,
    pub sessions: Vec<u64>,
    /// How many of them are opened first.
    pub open: usize,
    /// Whose sessions they are; others are nobody's.
    pub users: &'static [&'static str],
    /// How many quarters of the instructions are stepped through in it.
    pub weight: u64,
}

fn pool(kind: PoolKind, range: &str) -> Pool {
    let range: Range = range.parse().unwrap();
    Pool::new("default", kind, &[range], u32::MAX).unwrap()
}

/// Small tables, each for other ways through the code.
pub fn scenes() -> Vec<Scene> {
    let plain = pool(PoolKind::VirtualIp, "10.0.0.1-10.0.0.6");
    let wide = pool(PoolKind::VirtualIp, "10.0.0.1-10.0.0.144");
    let loopback = pool(PoolKind::Loopback, "127.77.0.0/28");
    let careful = Settings { cool_down: 3, check_in_use: true, ..Settings::default() };
    vec![
        Scene {
            name: "one pool",
            plan: Plan { pools: vec![plain.clone()], ..Plan::default() },
            sessions: (1..=8).collect(),
            open: 0,
            users: &USERS,
            weight: 2,
        },
        Scene {
            name: "nobody's sessions",
            plan: Plan { pools: vec![plain.clone()], ..Plan::default() },
            sessions: (1..=8).collect(),
            open: 3,
            users: &[],
            weight: 1,
        },
        Scene {
            name: "two pools that cool",
            plan: Plan { pools: vec![plain, loopback], settings: careful, ..Plan::default() },
            sessions: (1..=10).collect(),
            open: 4,
            users: &USERS,
            weight: 2,
        },
        Scene {
            name: "an index that overflows",
            plan: Plan { pools: vec![wide], ..Plan::default() },
            sessions: same_home(144, 18),
            open: 140,
            users: &USERS,
            weight: 1,
        },
    ]
}

/// Sessions whose entries all belong into one bucket of so many: both halves of the product with
/// the golden ratio together, the upper half of which is scaled to the number of buckets.
fn same_home(count: usize, buckets: u64) -> Vec<u64> {
    let home = |number: u64| {
        let product = u128::from(id(number).raw()) * 0x9e37_79b9_7f4a_7c15;
        let hash = product as u64 ^ (product >> 64) as u64;
        ((hash >> 32) * buckets) >> 32
    };
    (1..).filter(|number| home(*number) == 3).take(count).collect()
}

const USERS: [&str; 3] = ["ann", "bob", "eve"];

/// Some addresses have sockets and some leaders are gone, others at each look.
struct Lively<'a>(&'a mut Random);

impl Probe for Lively<'_> {
    fn has_sockets(&mut self, _: IpAddr) -> bool {
        self.0.below(3) == 0
    }

    fn is_gone(&mut self, _: &Leader) -> bool {
        self.0.below(4) != 0
    }
}

/// Does something to the map at a time that only grows. What it is told first is a look-up, done
/// before `begin`, so that what follows is the operation itself and nothing else.
pub fn operate(
    map: &Map,
    scene: &Scene,
    random: &mut Random,
    now: u32,
    begin: impl FnOnce() -> ControlFlow<()>,
) {
    let number = scene.sessions[random.below(scene.sessions.len() as u64) as usize];
    let session = id(number);
    let found = map.find(session).unwrap();
    let user = scene.users.get(random.below(5) as usize).copied();
    let address = scene.plan.pools[0].address(random.below(6) as u32).unwrap();
    let range = Range::from(address);
    let client = [None, Some(IpAddr::from([192, 0, 2, number as u8]))][random.below(2) as usize];
    let leader = Leader { pid: number as u32 + 1, start_time: 7, pid_namespace: 0 };
    let leader = [None, Some(leader)][random.below(2) as usize];
    let choice = random.below(20);
    if begin().is_break() {
        return;
    }
    match (choice, found) {
        (0..=7, _) => {
            let address = (choice == 0).then_some(address);
            let options = OpenOptions { user, address, client, leader, pool: None };
            _ = map.open_session(session, &options, Tick::from_secs(now));
        }
        (8..=11, Some((handle, _))) => _ = map.close_by_handle(&handle, Tick::from_secs(now)),
        (12 | 13, _) => _ = map.close_session(session, Tick::from_secs(now)),
        (14, _) => _ = map.drain(&range, Tick::from_secs(now)),
        (15, _) => _ = map.undrain(&range, Tick::from_secs(now)),
        (16, _) => _ = map.reserve(address, "ann", Tick::from_secs(now)),
        (17, _) => _ = map.unreserve(address, Tick::from_secs(now)),
        // In a wide table this alone is a hundred thousand instructions.
        (18, _) if random.below(8) == 0 => _ = map.recover(),
        (_, _) => _ = map.reap(Tick::from_secs(now), 3, &mut Lively(random)),
    }
}
