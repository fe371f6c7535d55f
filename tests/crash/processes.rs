//! Tests of several processes that share a map. Processes wait for the lock, and a forked child
//! must not use the map of its parent.

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::thread;
use std::time::{Duration, Instant};

use vipool::Tick;
use vipool::map::{
    ChangeError, CloseError, Map, MapError, OpenError, OpenOptions, Plan, Reader, Settings,
};
use vipool::pool::{Pool, PoolKind};

use crate::process::{Child, WaitStatus, shared_words};
use crate::recovery::{TestDirectory, session_id};

const ANONYMOUS: OpenOptions<'_> = OpenOptions::new();

/// Returns a plan with one pool of `address_count` addresses.
pub fn plan(address_count: u32) -> Plan {
    let range = "10.0.0.0/8".parse().unwrap();
    let pool = Pool::new("default", PoolKind::VirtualIp, &[range], address_count).unwrap();
    Plan::new([pool]).with_settings(Settings::without_cool_down())
}

/// Waits until another process or thread has stored `value` in `word`.
pub fn wait_for(word: &std::sync::atomic::AtomicU64, value: u64) {
    let start_time = Instant::now();
    while word.load(SeqCst) != value {
        assert!(start_time.elapsed() < Duration::from_secs(60), "the other process hangs");
        thread::sleep(Duration::from_micros(100));
    }
}

#[test]
fn fork_child_inherits_no_lock_and_must_reopen_the_map() {
    let directory = TestDirectory::new("fork");
    let mut map = Map::create(&directory.0, &plan(9)).unwrap();
    map.lock_exclusive().unwrap();
    let opened = map.open_session(session_id(1), &ANONYMOUS, Tick::ZERO).unwrap();
    let phase = &shared_words(1)[0];
    let mut child = Child::start(|| {
        let is_forked = |error: MapError| matches!(error, MapError::Forked);
        assert!(matches!(
            map.open_session(session_id(2), &ANONYMOUS, Tick::ZERO),
            Err(OpenError::Map(MapError::Forked))
        ));
        assert!(map.close_by_handle(&opened.handle, Tick::ZERO).is_err());
        assert!(
            is_forked(map.find(session_id(1)).unwrap_err())
                && is_forked(map.recover().unwrap_err())
        );
        // The child stays alive and keeps the inherited descriptors and mappings.
        phase.store(1, SeqCst);
        wait_for(phase, 2);
        let child_map = Map::open(&directory.0).unwrap();
        child_map.open_session(session_id(3), &ANONYMOUS, Tick::ZERO).unwrap();
    });
    wait_for(phase, 1);
    // The parent still holds the lock, because the child cannot release it.
    let other_map = Map::open(&directory.0).unwrap();
    assert!(matches!(
        other_map.open_session(session_id(4), &ANONYMOUS, Tick::ZERO),
        Err(OpenError::Map(MapError::Busy { exclusive: true, .. }))
    ));
    drop(map);
    other_map.open_session(session_id(4), &ANONYMOUS, Tick::ZERO).unwrap();
    phase.store(2, SeqCst);
    assert_eq!(child.wait(), WaitStatus::Exited(0));
    assert_eq!(other_map.sessions().unwrap().len(), 3);
}

#[test]
fn fork_child_never_waits_for_a_thread_of_the_parent() {
    let directory = TestDirectory::new("fork-thread");
    let maps = [Map::create(&directory.0, &plan(9)).unwrap(), Map::in_memory(&plan(9)).unwrap()];
    for map in &maps {
        let opened = map.open_session(session_id(1), &ANONYMOUS, Tick::ZERO).unwrap();
        let words = shared_words(2);
        // Phase 1: the callback runs. Phase 2: the child has exited.
        let (phase, is_finished) = (&words[0], &words[1]);
        thread::scope(|scope| {
            // The callback of `reconcile` runs while its thread holds the lock of the map.
            scope.spawn(|| {
                let is_alive = |_, _: Option<&_>| {
                    phase.store(1, SeqCst);
                    wait_for(phase, 2);
                    true
                };
                map.reconcile(Tick::ZERO, is_alive).unwrap();
            });
            wait_for(phase, 1);
            let mut child = Child::start(|| {
                let id = session_id(2);
                assert!(matches!(
                    map.open_session(id, &ANONYMOUS, Tick::ZERO),
                    Err(OpenError::Map(MapError::Forked))
                ));
                assert!(matches!(
                    map.close_by_handle(&opened.handle, Tick::ZERO),
                    Err(CloseError::Map(MapError::Forked))
                ));
                assert!(matches!(
                    map.update_session(session_id(1), None, None),
                    Err(ChangeError::Map(MapError::Forked))
                ));
                let results = [
                    map.settings().map(drop),
                    map.reader().map(drop),
                    map.find(id).map(drop),
                    map.sessions().map(drop),
                    map.mark_restored(),
                    map.drain_server(true),
                    map.recover(),
                ];
                for result in results {
                    assert!(matches!(result, Err(MapError::Forked)), "{result:?}");
                }
                is_finished.store(1, SeqCst);
            });
            wait_for(is_finished, 1);
            assert_eq!(child.wait(), WaitStatus::Exited(0));
            phase.store(2, SeqCst);
        });
        map.open_session(session_id(2), &ANONYMOUS, Tick::ZERO).unwrap();
        assert_eq!(map.sessions().unwrap().len(), 2);
    }
}

#[test]
fn exclusive_writer_of_the_parent_writes_nothing_in_a_fork_child() {
    let directory = TestDirectory::new("fork-writer");
    let mut map = Map::create(&directory.0, &plan(9)).unwrap();
    let mut parent_writer = Some(map.exclusive_writer().unwrap());
    let writer = parent_writer.as_mut().unwrap();
    let opened = writer.open_session(session_id(1), &ANONYMOUS, Tick::ZERO).unwrap();
    let mut child = Child::start(|| {
        let mut map = Map::open(&directory.0).unwrap();
        assert!(matches!(map.lock_exclusive(), Err(MapError::Busy { exclusive: true, .. })));
        let writer = parent_writer.as_mut().unwrap();
        assert!(matches!(
            writer.open_session(session_id(2), &ANONYMOUS, Tick::ZERO),
            Err(OpenError::Map(MapError::Forked))
        ));
        assert!(writer.close_by_handle(&opened.handle, Tick::ZERO).is_err());
        drop(parent_writer.take());
        assert!(matches!(map.lock_exclusive(), Err(MapError::Busy { exclusive: true, .. })));
    });
    assert_eq!(child.wait(), WaitStatus::Exited(0));
    let other_map = Map::open(&directory.0).unwrap();
    assert!(other_map.close_by_handle(&opened.handle, Tick::ZERO).is_err());
    parent_writer.as_mut().unwrap().close_by_handle(&opened.handle, Tick::ZERO).unwrap();
    drop(parent_writer);
    other_map.open_session(session_id(2), &ANONYMOUS, Tick::ZERO).unwrap();
}

#[test]
fn busy_error_names_the_exclusive_holder_whose_death_unlocks_the_map() {
    let directory = TestDirectory::new("holder");
    let map = Map::create(&directory.0, &plan(9)).unwrap();
    let holder_pid = &shared_words(1)[0];
    let mut agent = Child::start(|| {
        let mut child_map = Map::open(&directory.0).unwrap();
        child_map.lock_exclusive().unwrap();
        child_map.open_session(session_id(1), &ANONYMOUS, Tick::ZERO).unwrap();
        holder_pid.store(std::process::id().into(), SeqCst);
        // No process stores 0, so the child waits until it is killed.
        wait_for(holder_pid, 0);
    });
    while holder_pid.load(SeqCst) == 0 {
        thread::sleep(Duration::from_micros(100));
    }
    let error_message =
        map.open_session(session_id(2), &ANONYMOUS, Tick::ZERO).unwrap_err().to_string();
    let pid = holder_pid.load(SeqCst);
    assert_eq!(error_message, format!("busy: pid {pid} holds the writer lock exclusively"));
    // A read needs no lock, but a new plan needs the lock.
    assert_eq!(map.sessions().unwrap().len(), 1);
    assert!(matches!(Map::create(&directory.0, &plan(5)), Err(MapError::Busy { .. })));
    agent.kill();
    map.open_session(session_id(2), &ANONYMOUS, Tick::ZERO).unwrap();
    assert_eq!(map.sessions().unwrap().len(), 2);
}

#[test]
fn busy_error_names_a_slow_writer_after_the_lock_timeout() {
    let directory = TestDirectory::new("slow");
    let map = Map::create(&directory.0, &plan(9)).unwrap();
    map.open_session(session_id(1), &ANONYMOUS, Tick::ZERO).unwrap();
    let phase = &shared_words(1)[0];
    let mut slow_writer = Child::start(|| {
        let child_map = Map::open(&directory.0).unwrap();
        let wait = |_, _: Option<&_>| {
            phase.store(1, SeqCst);
            wait_for(phase, 2);
            true
        };
        child_map.reconcile(Tick::ZERO, wait).unwrap();
    });
    wait_for(phase, 1);
    let start_time = Instant::now();
    let error_message = map.close_session(session_id(1), Tick::ZERO).unwrap_err().to_string();
    assert!(
        error_message.starts_with("busy: pid ") && !error_message.contains("exclusively"),
        "{error_message}"
    );
    assert!(start_time.elapsed() >= Duration::from_secs(2), "the close must wait for the lock");
    // Threads wait in parallel, and reads do not wait.
    let (start_time, busy_count) = (Instant::now(), AtomicUsize::new(0));
    thread::scope(|scope| {
        for number in 0..4 {
            let (map, busy_count) = (&map, &busy_count);
            scope.spawn(move || {
                let opened = map.open_session(session_id(10 + number), &ANONYMOUS, Tick::ZERO);
                assert!(matches!(opened, Err(OpenError::Map(MapError::Busy { .. }))));
                busy_count.fetch_add(1, SeqCst);
            });
        }
        thread::sleep(Duration::from_millis(200));
        assert!(map.find(session_id(1)).unwrap().is_some());
        assert_eq!(map.sessions().unwrap().len(), 1);
        assert_eq!(busy_count.load(SeqCst), 0, "a read must not wait");
    });
    let wait_time = start_time.elapsed();
    assert!(wait_time < Duration::from_secs(6), "the threads must wait at the same time");
    phase.store(2, SeqCst);
    assert_eq!(slow_writer.wait(), WaitStatus::Exited(0));
    map.close_session(session_id(1), Tick::ZERO).unwrap();
}

#[test]
fn readers_follow_superseded_files_and_keep_reading_old_ones() {
    let directory = TestDirectory::new("superseded");
    let map = Map::create(&directory.0, &plan(9)).unwrap();
    let opened = map.open_session(session_id(1), &ANONYMOUS, Tick::ZERO).unwrap();
    let first_reader = Reader::attach(&directory.0).unwrap();
    thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut reader = Reader::attach(&directory.0).unwrap();
                    let mut file_change_count = 0;
                    while file_change_count < 5 {
                        assert_eq!(
                            reader.find(session_id(1)),
                            Some((opened.handle, opened.leases))
                        );
                        if reader.is_superseded() {
                            reader = Reader::attach(&directory.0).unwrap();
                            file_change_count += 1;
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
    // The first file is no longer in the directory, but its mapping is still readable.
    assert!(first_reader.is_superseded() && first_reader.is_live(&opened.handle));
    map.close_by_handle(&opened.handle, Tick::ZERO).unwrap();
    assert!(Reader::attach(&directory.0).unwrap().find(session_id(1)).is_none());
}
