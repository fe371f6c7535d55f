//! Several processes at one map: who waits for whom, and what a fork child may do.

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::thread;
use std::time::{Duration, Instant};

use vipool::Tick;
use vipool::map::{Map, MapError, OpenError, OpenOptions, Plan, Reader, Settings};
use vipool::pool::{Pool, PoolKind};

use crate::process::{Child, Event, shared_words};
use crate::view::{Directory, id};

const ANY: OpenOptions<'_> =
    OpenOptions { user: None, pool: None, address: None, client: None, leader: None };

/// A plan of one pool with this many addresses.
pub fn plan(slots: u32) -> Plan {
    let range = "10.0.0.0/8".parse().unwrap();
    let pool = Pool::new("default", PoolKind::VirtualIp, &[range], slots).unwrap();
    Plan { pools: vec![pool], settings: Settings::default(), ..Plan::default() }
}

/// Waits until another process has stored this.
fn wait_for(word: &std::sync::atomic::AtomicU64, value: u64) {
    let began = Instant::now();
    while word.load(SeqCst) != value {
        assert!(began.elapsed() < Duration::from_secs(60), "the other process is not coming");
        thread::sleep(Duration::from_micros(100));
    }
}

#[test]
fn a_fork_child_keeps_no_lock_and_is_told_to_open_the_map_itself() {
    let directory = Directory::new("fork");
    let mut map = Map::create(&directory.0, &plan(9)).unwrap();
    map.lock_exclusive().unwrap();
    let opened = map.open_session(id(1), &ANY, Tick::ZERO).unwrap();
    let turn = &shared_words(1)[0];
    let mut child = Child::start(|| {
        let forked = |error: MapError| matches!(error, MapError::Forked);
        assert!(matches!(
            map.open_session(id(2), &ANY, Tick::ZERO),
            Err(OpenError::Map(MapError::Forked))
        ));
        assert!(map.close_by_handle(&opened.handle, Tick::ZERO).is_err());
        assert!(forked(map.find(id(1)).unwrap_err()) && forked(map.recover().unwrap_err()));
        // It goes on living, with all that it inherited.
        turn.store(1, SeqCst);
        wait_for(turn, 2);
        let own = Map::open(&directory.0).unwrap();
        own.open_session(id(3), &ANY, Tick::ZERO).unwrap();
    });
    wait_for(turn, 1);
    // The parent still holds it, and the child can't have given it away.
    let other = Map::open(&directory.0).unwrap();
    assert!(matches!(
        other.open_session(id(4), &ANY, Tick::ZERO),
        Err(OpenError::Map(MapError::Busy { exclusive: true, .. }))
    ));
    drop(map);
    other.open_session(id(4), &ANY, Tick::ZERO).unwrap();
    turn.store(2, SeqCst);
    assert_eq!(child.wait(), Event::Exited(0));
    assert_eq!(other.sessions().unwrap().len(), 3);
}

#[test]
fn a_writer_of_the_parent_writes_nothing_in_a_fork_child() {
    let directory = Directory::new("fork-writer");
    let mut map = Map::create(&directory.0, &plan(9)).unwrap();
    let mut held = Some(map.exclusive_writer().unwrap());
    let writer = held.as_mut().unwrap();
    let opened = writer.open_session(id(1), &ANY, Tick::ZERO).unwrap();
    let mut child = Child::start(|| {
        let mut map = Map::open(&directory.0).unwrap();
        assert!(matches!(map.lock_exclusive(), Err(MapError::Busy { exclusive: true, .. })));
        let writer = held.as_mut().unwrap();
        assert!(matches!(
            writer.open_session(id(2), &ANY, Tick::ZERO),
            Err(OpenError::Map(MapError::Forked))
        ));
        assert!(writer.close_by_handle(&opened.handle, Tick::ZERO).is_err());
        drop(held.take());
        assert!(matches!(map.lock_exclusive(), Err(MapError::Busy { exclusive: true, .. })));
    });
    assert_eq!(child.wait(), Event::Exited(0));
    let other = Map::open(&directory.0).unwrap();
    assert!(other.close_by_handle(&opened.handle, Tick::ZERO).is_err());
    held.as_mut().unwrap().close_by_handle(&opened.handle, Tick::ZERO).unwrap();
    drop(held);
    other.open_session(id(2), &ANY, Tick::ZERO).unwrap();
}

#[test]
fn an_exclusive_holder_is_named_and_its_death_frees_the_map() {
    let directory = Directory::new("holder");
    let map = Map::create(&directory.0, &plan(9)).unwrap();
    let turn = &shared_words(1)[0];
    let mut agent = Child::start(|| {
        let mut own = Map::open(&directory.0).unwrap();
        own.lock_exclusive().unwrap();
        own.open_session(id(1), &ANY, Tick::ZERO).unwrap();
        turn.store(std::process::id().into(), SeqCst);
        wait_for(turn, 0);
    });
    while turn.load(SeqCst) == 0 {
        thread::sleep(Duration::from_micros(100));
    }
    let busy = map.open_session(id(2), &ANY, Tick::ZERO).unwrap_err().to_string();
    let pid = turn.load(SeqCst);
    assert_eq!(busy, format!("busy: pid {pid} (it holds the map for itself)"));
    // Looking needs no lock; a new configuration does.
    assert_eq!(map.sessions().unwrap().len(), 1);
    assert!(matches!(Map::create(&directory.0, &plan(5)), Err(MapError::Busy { .. })));
    agent.kill();
    map.open_session(id(2), &ANY, Tick::ZERO).unwrap();
    assert_eq!(map.sessions().unwrap().len(), 2);
}

#[test]
fn a_slow_writer_is_waited_for_and_then_named() {
    let directory = Directory::new("slow");
    let map = Map::create(&directory.0, &plan(9)).unwrap();
    map.open_session(id(1), &ANY, Tick::ZERO).unwrap();
    let turn = &shared_words(1)[0];
    let mut slow = Child::start(|| {
        let own = Map::open(&directory.0).unwrap();
        let wait = |_, _: Option<&_>| {
            turn.store(1, SeqCst);
            wait_for(turn, 2);
            true
        };
        own.reconcile(Tick::ZERO, wait).unwrap();
    });
    wait_for(turn, 1);
    let began = Instant::now();
    let busy = map.close_session(id(1), Tick::ZERO).unwrap_err().to_string();
    assert!(busy.starts_with("busy: pid ") && !busy.contains("for itself"), "{busy}");
    assert!(began.elapsed() >= Duration::from_secs(2), "it did not wait");
    // Threads wait side by side, and looking waits for none of them.
    let (began, busy) = (Instant::now(), AtomicUsize::new(0));
    thread::scope(|scope| {
        for number in 0..4 {
            let (map, busy) = (&map, &busy);
            scope.spawn(move || {
                let opened = map.open_session(id(10 + number), &ANY, Tick::ZERO);
                assert!(matches!(opened, Err(OpenError::Map(MapError::Busy { .. }))));
                busy.fetch_add(1, SeqCst);
            });
        }
        thread::sleep(Duration::from_millis(200));
        assert!(map.find(id(1)).unwrap().is_some());
        assert_eq!(map.sessions().unwrap().len(), 1);
        assert_eq!(busy.load(SeqCst), 0, "looking waited");
    });
    assert!(began.elapsed() < Duration::from_secs(6), "they waited one after another");
    turn.store(2, SeqCst);
    assert_eq!(slow.wait(), Event::Exited(0));
    map.close_session(id(1), Tick::ZERO).unwrap();
}

#[test]
fn readers_outlive_the_file_they_read() {
    let directory = Directory::new("superseded");
    let map = Map::create(&directory.0, &plan(9)).unwrap();
    let opened = map.open_session(id(1), &ANY, Tick::ZERO).unwrap();
    let first = Reader::attach(&directory.0).unwrap();
    thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut reader = Reader::attach(&directory.0).unwrap();
                    let mut followed = 0;
                    while followed < 5 {
                        assert_eq!(reader.find(id(1)), Some((opened.handle, opened.leases)));
                        if reader.is_superseded() {
                            reader = Reader::attach(&directory.0).unwrap();
                            followed += 1;
                        }
                    }
                })
            })
            .collect();
        for round in 0.. {
            if readers.iter().all(|reader| reader.is_finished()) {
                break;
            }
            Map::create(&directory.0, &plan(9 + round % 3)).unwrap();
        }
    });
    // The first file is long gone from the directory; what was in it can still be read.
    assert!(first.is_superseded() && first.is_live(&opened.handle));
    map.close_by_handle(&opened.handle, Tick::ZERO).unwrap();
    assert!(Reader::attach(&directory.0).unwrap().find(id(1)).is_none());
}
