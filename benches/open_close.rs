//! Measures how long it takes to open, close and look up a session, and to check a handle, in
//! half-full maps of three sizes.
//!
//! `cargo xtask bench alloc` compares these operations with other crates and with the floor. The
//! floor is the time of two atomic operations on random cache lines.

use std::hint::black_box;
use std::net::IpAddr;
use std::path::Path;

use criterion::{Criterion, criterion_group, criterion_main};
use vipool::Tick;
use vipool::map::{Map, OpenOptions, Plan, Settings};
use vipool::pool::{Pool, PoolKind};
use vipool::session::{SessionId, SessionKind};

/// The numbers of slots: a /24, a /16 and a /12.
const SLOT_COUNTS: [u32; 3] = [1 << 8, 1 << 16, 1 << 20];

fn session_id(number: u32) -> SessionId {
    SessionId::new(SessionKind::Embedder, number.into()).expect("a small number")
}

fn plan_with_slots(slot_count: u32) -> Plan {
    let range = format!("10.0.0.0/{}", 32 - slot_count.ilog2()).parse().expect("a range");
    let pool = Pool::new("default", PoolKind::VirtualIp, &[range], slot_count).expect("one range");
    Plan::new([pool]).with_settings(Settings::without_cool_down())
}

/// Returns an exclusively locked map in which sessions 1 to `slot_count / 2` are open.
fn half_full_map(directory: &Path, slot_count: u32) -> Map {
    let mut map = Map::create(directory, &plan_with_slots(slot_count)).expect("a map");
    map.lock_exclusive().expect("no other writer");
    for number in 1..=slot_count / 2 {
        map.open_session(session_id(number), &OpenOptions::default(), Tick::ZERO)
            .expect("a free address");
    }
    map
}

fn bench_sessions(criterion: &mut Criterion) {
    let shared_memory = Path::new("/dev/shm");
    let parent_directory =
        if shared_memory.is_dir() { shared_memory.to_owned() } else { std::env::temp_dir() };
    for slot_count in SLOT_COUNTS {
        let directory = tempfile::tempdir_in(&parent_directory).expect("a directory");
        let map = half_full_map(directory.path(), slot_count);
        let options = OpenOptions::default();
        let new_session = session_id(slot_count);
        let mut group = criterion.benchmark_group(format!("/{}", 32 - slot_count.ilog2()));
        group.bench_function("open and close by handle", |bencher| {
            bencher.iter(|| {
                let opened = map
                    .open_session(black_box(new_session), &options, Tick::ZERO)
                    .expect("a free address");
                map.close_by_handle(&opened.handle, Tick::ZERO).expect("an open session")
            });
        });
        group.bench_function("open and close by session", |bencher| {
            bencher.iter(|| {
                map.open_session(black_box(new_session), &options, Tick::ZERO)
                    .expect("a free address");
                map.close_session(new_session, Tick::ZERO).expect("an open session")
            });
        });
        let reader = map.reader().expect("a valid map");
        let mut number = 0;
        group.bench_function("lookup by session", |bencher| {
            bencher.iter(|| {
                // The order of the lookups defeats the prefetcher. No session repeats before all
                // were visited, because the step is odd and the count is a power of two.
                number = (number + 40_503) % (slot_count / 2);
                reader.lookup(black_box(session_id(number + 1)))
            });
        });
        let opened = map.open_session(new_session, &options, Tick::ZERO).expect("a free address");
        assert!(opened.leases.iter().all(|lease| matches!(lease.address, IpAddr::V4(_))));
        group.bench_function("lease liveness check", |bencher| {
            bencher.iter(|| reader.is_live(black_box(&opened.handle)));
        });
        group.finish();
    }
}

criterion_group!(benches, bench_sessions);
criterion_main!(benches);
