//! Lets a process change the bytes of a map at random while another process reads and writes the
//! map. No call may panic or hang.

use std::net::IpAddr;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use vipool::Tick;
use vipool::map::{Journal, Leader, Map, OpenOptions, Plan, Probe, Reader, Settings};
use vipool::policy::{Executable, Features, PathStyle, Policy, PoolRule, Program};
use vipool::pool::{Pool, PoolKind};
use vipool::raw::mapping::WritableMapping;
use vipool::session::Handle;

use crate::operations::Random;
use crate::process::{Child, WaitStatus, shared_words};
use crate::recovery::{TestDirectory, session_id};

const FILES: [&str; 3] = ["map", "sessions", "journal"];
const NAMES: [&str; 3] = ["ann", "bob", "eve"];

fn plan() -> Plan {
    let pool =
        |name, kind, range: &str| Pool::new(name, kind, &[range.parse().unwrap()], 48).unwrap();
    let features = Features::default().with_virtual_ip(true).with_loopback(true);
    let program = |path: &str| Program::new(path).with_features(features);
    let rules = [PoolRule::new("lab").with_users(["eve"]).with_programs(["/usr/bin/nc"])];
    let policy = Policy::new([program("/usr/bin/nc"), program("redis-server")])
        .with_pool_rules(rules)
        .with_host_addresses(["10.0.0.250".parse().unwrap()]);
    let settings =
        Settings::without_cool_down().with_cool_down(3).with_check_in_use(true).with_low_water(4);
    Plan::new([
        pool("default", PoolKind::VirtualIp, "10.0.0.0/26"),
        pool("default", PoolKind::VirtualIp, "2001:db8::/64"),
        pool("lab", PoolKind::VirtualIp, "10.0.1.0/28"),
        pool("loopback", PoolKind::Loopback, "127.3.4.0/27"),
    ])
    .with_policy(policy)
    .with_settings(settings)
}

/// Changes random words of the map's files until the test kills this process. From time to time,
/// restores the original content of a file, so that the other process gets past its first checks.
fn corrupt_words(directory: &Path, mut random: Random) -> ! {
    let files = FILES.map(|name| {
        let file = std::fs::File::options().read(true).write(true).open(directory.join(name));
        let mapping = WritableMapping::new(&file.unwrap()).unwrap();
        let original_words: Vec<u64> =
            mapping.atomics().iter().map(|word| word.load(Relaxed)).collect();
        (mapping, original_words)
    });
    loop {
        // Most changes concern the file `map`.
        let (mapping, original_words) = &files[[0, 0, 0, 0, 0, 0, 1, 2][random.below(8) as usize]];
        let words = mapping.atomics();
        for _ in 0..random.below(40) {
            // Most changes are near the start of the file. In the file `map`, the header and the
            // address blocks are there.
            let index_limit = [80, 400, words.len() as u64][random.below(3) as usize];
            let index = random.below(index_limit.min(words.len() as u64)) as usize;
            let value = words[index].load(Relaxed);
            let new_value = match random.below(8) {
                0 => 0,
                1 => u64::MAX,
                2 => value ^ 1 << random.below(64),
                3 => value.wrapping_add(random.below(5)).wrapping_sub(2),
                4 => words[random.below(words.len() as u64) as usize].load(Relaxed),
                5 => u64::from(u32::MAX) << (32 * random.below(2)),
                6 => random.below(1 << 32) << 32 | random.below(1 << 32),
                _ => original_words[index],
            };
            words[index].store(new_value, Relaxed);
        }
        if random.below(4) == 0 {
            for (word, value) in words.iter().zip(original_words) {
                word.store(*value, Relaxed);
            }
        }
    }
}

/// A probe that returns random results.
struct RandomProbe<'a>(&'a mut Random);

impl Probe for RandomProbe<'_> {
    fn has_sockets(&mut self, _: IpAddr) -> bool {
        self.0.below(2) == 0
    }

    fn has_exited(&mut self, _: &Leader) -> bool {
        self.0.below(2) == 0
    }
}

/// Calls random methods of a reader.
fn use_reader(reader: &Reader, handle: &Handle, random: &mut Random) {
    match random.below(6) {
        0 => {
            if let Some((handle, leases)) = reader.find(session_id(random.below(12) + 1)) {
                _ = (reader.is_live(&handle), reader.addresses(&leases));
            }
        }
        1 => _ = (reader.leases_of(handle), reader.is_live(handle), reader.is_superseded()),
        2 => _ = (reader.pools(), reader.settings(), reader.is_draining()),
        3 => _ = (reader.sessions(), reader.slots(random.below(5) as u16)),
        4 => {
            let addresses = ["10.0.0.5", "2001:db8::3", "10.0.1.2", "127.3.4.9"];
            let address = addresses[random.below(4) as usize].parse().unwrap();
            _ = reader.pool_kind(address);
        }
        _ => {
            let program = Executable::new(b"/usr/bin/nc", PathStyle::Posix);
            let policy = reader.policy();
            _ = (policy.find(&program), policy.explain(program).count());
            _ = (policy.host_addresses().count(), policy.rewrite_flags());
        }
    }
}

/// Calls random methods of a map.
fn use_writer(map: &Map, handle: &Handle, random: &mut Random, now: Tick) {
    let session = session_id(random.below(12) + 1);
    let name = NAMES[random.below(3) as usize];
    let address: IpAddr = [10, 0, 0, random.below(40) as u8].into();
    match random.below(12) {
        0..=3 => {
            let leader = Leader { pid: 7, start_time: 7, pid_namespace: 0 };
            let options = OpenOptions::new()
                .with_user([None, Some(name)][random.below(2) as usize])
                .with_pool([None, Some("lab")][random.below(2) as usize])
                .with_address((random.below(4) == 0).then_some(address))
                .with_client(Some(address))
                .with_leader((random.below(2) == 0).then_some(leader));
            _ = map.open_session(session, &options, now);
        }
        4 | 5 => _ = map.close_session(session, now),
        6 => _ = map.close_by_handle(handle, now),
        7 => _ = map.drain(&address.into(), now).and(map.undrain(&address.into(), now)),
        8 => _ = map.reserve(address, name, now).is_ok() && map.unreserve(address, now).is_ok(),
        9 => _ = map.reap(now, random.below(64) as u32, &mut RandomProbe(random)),
        10 => _ = (map.sessions(), map.find(session), map.choose_pool(name, None)),
        _ => _ = (map.reconcile(now, |_, _| random.below(3) > 0), map.recover()),
    }
}

/// Runs `operation_count` random operations on the map and the journal. Some operations copy the
/// files and call `Map::create_at` in the directory of the copy. Stores the number of finished
/// operations in `finished_count`.
fn use_map(
    directory: &Path,
    handle: &Handle,
    operation_count: u64,
    mut random: Random,
    finished_count: &AtomicU64,
) {
    let copy_directory = TestDirectory::new("changing-copy");
    // The files can be opened only while their headers are intact, so repeat the attempts.
    let attach = || Reader::attach(directory);
    let mut reader = std::iter::repeat_with(attach).find_map(Result::ok).unwrap();
    let mut map = std::iter::repeat_with(|| Map::open(directory)).find_map(Result::ok).unwrap();
    for number in 0..operation_count {
        let now = Tick::from_secs(10 + (number / 100) as u32);
        match random.below(64) {
            0 => reader = Reader::attach(directory).unwrap_or(reader),
            1 => map = Map::open(directory).unwrap_or(map),
            2 => _ = Journal::open(directory).map(|journal| journal.since(random.below(2000))),
            3 => {
                for name in FILES {
                    std::fs::copy(directory.join(name), copy_directory.0.join(name)).unwrap();
                }
                _ = Map::create_at(&copy_directory.0, &plan(), now);
            }
            4..=33 => use_reader(&reader, handle, &mut random),
            _ => use_writer(&map, handle, &mut random, now),
        }
        finished_count.store(number + 1, SeqCst);
    }
}

#[test]
fn changing_bytes_cause_no_panic_and_no_endless_loop() {
    let operation_count = vipool_testing::effort(100_000, 1_000_000);
    let mut seeds = Random::from_environment();
    let directory = TestDirectory::new("changing");
    let map = Map::create(&directory.0, &plan()).unwrap();
    for number in 1..9 {
        let options = OpenOptions::new().with_user(NAMES[number as usize % 3]);
        map.open_session(session_id(number), &options, Tick::from_secs(1)).unwrap();
    }
    let (handle, _) = map.find(session_id(1)).unwrap().unwrap();
    map.close_session(session_id(8), Tick::from_secs(2)).unwrap();
    map.drain(&"10.0.0.9".parse().unwrap(), Tick::from_secs(2)).unwrap();
    map.reserve("10.0.0.12".parse().unwrap(), "eve", Tick::from_secs(2)).unwrap();
    let finished_count = &shared_words(1)[0];
    let (change_seed, use_seed) = (seeds.below(1 << 32), seeds.below(1 << 32));
    let _changing_process = Child::start(|| corrupt_words(&directory.0, Random::new(change_seed)));
    let mut using_process = Child::start(|| {
        use_map(&directory.0, &handle, operation_count, Random::new(use_seed), finished_count);
    });
    let (mut last_count, mut last_progress) = (0, Instant::now());
    let status = loop {
        if let Some(status) = using_process.poll() {
            break status;
        }
        let count = finished_count.load(SeqCst);
        if count != last_count {
            (last_count, last_progress) = (count, Instant::now());
        }
        assert!(last_progress.elapsed() < Duration::from_secs(120), "operation {count} hangs");
        thread::sleep(Duration::from_millis(10));
    };
    let count = finished_count.load(SeqCst);
    assert_eq!(status, WaitStatus::Exited(0), "after {count} operations");
}
