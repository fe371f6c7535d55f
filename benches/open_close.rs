//! A session opened and closed, and looked up, in tables of three sizes, half full.
//!
//! `cargo xtask bench alloc` puts these beside other crates and the floor of the machine.

use std::hint::black_box;
use std::net::IpAddr;
use std::path::Path;

use criterion::{Criterion, criterion_group, criterion_main};
use vipool::map::{Map, OpenOptions, Plan};
use vipool::pool::{Pool, PoolKind};
use vipool::session::{SessionId, SessionKind};

/// /24, /16, /12.
const SIZES: [u32; 3] = [1 << 8, 1 << 16, 1 << 20];

fn id(number: u32) -> SessionId {
    SessionId::new(SessionKind::Embedder, number.into()).expect("small")
}

fn plan(slots: u32) -> Plan {
    let range = format!("10.0.0.0/{}", 32 - slots.ilog2()).parse().expect("a range");
    let pool = Pool::new("default", PoolKind::VirtualIp, &[range], slots).expect("one range");
    Plan { pools: vec![pool], ..Plan::default() }
}

/// A map that nobody else writes, with sessions 1 to half its size.
fn half_full(directory: &Path, slots: u32) -> Map {
    let mut map = Map::create(directory, &plan(slots)).expect("a map");
    map.hold_exclusively().expect("nobody else has it");
    for number in 1..=slots / 2 {
        map.open_session(id(number), &OpenOptions::default(), 0).expect("half is free");
    }
    map
}

fn sessions(criterion: &mut Criterion) {
    let shared = Path::new("/dev/shm");
    let parent = if shared.is_dir() { shared.to_owned() } else { std::env::temp_dir() };
    for slots in SIZES {
        let directory = tempfile::tempdir_in(&parent).expect("a directory");
        let map = half_full(directory.path(), slots);
        let options = OpenOptions::default();
        let fresh = id(slots);
        let mut group = criterion.benchmark_group(format!("/{}", 32 - slots.ilog2()));
        group.bench_function("open and close by handle", |bench| {
            bench.iter(|| {
                let opened = map.open_session(black_box(fresh), &options, 0).expect("free");
                map.close(&opened.handle, 0).expect("open")
            });
        });
        group.bench_function("open and close by session", |bench| {
            bench.iter(|| {
                map.open_session(black_box(fresh), &options, 0).expect("free");
                map.close_session(fresh, 0).expect("open")
            });
        });
        let reader = map.reader().unwrap();
        let mut number = 0;
        group.bench_function("look-up", |bench| {
            bench.iter(|| {
                // An odd step visits every session in an order that no cache foresees.
                number = (number + 40_503) % (slots / 2);
                reader.lookup(black_box(id(number + 1)))
            });
        });
        let opened = map.open_session(fresh, &options, 0).expect("free");
        assert!(opened.leases.iter().all(|lease| matches!(lease.address, IpAddr::V4(_))));
        group.bench_function("is the lease live", |bench| {
            bench.iter(|| reader.is_live(black_box(&opened.handle)));
        });
        group.finish();
    }
}

criterion_group!(benches, sessions);
criterion_main!(benches);
