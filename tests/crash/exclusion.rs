//! Tests of the lock of the writers in unusual situations: after a clone without fork handlers,
//! after a process has closed all its descriptors, and after the files of the map were removed. A
//! writer that has lost its lock must fail.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::thread;

use vipool::Tick;
use vipool::map::{Map, MapError, OpenError, OpenOptions, OpenedSession};

use crate::process::{Child, WaitStatus, close_all_descriptors, inode_of, shared_words};
use crate::processes::{plan, wait_for};
use crate::recovery::{TestDirectory, all_leases, session_id};

/// Opens the session `number` without options, at the time `second`.
fn open(map: &Map, number: u64, second: u32) -> Result<OpenedSession, OpenError> {
    map.open_session(session_id(number), &OpenOptions::new(), Tick::from_secs(second))
}

fn is_lock_lost(result: Result<OpenedSession, OpenError>) -> bool {
    matches!(result, Err(OpenError::Map(MapError::LockLost { .. })))
}

fn is_missing(result: Result<OpenedSession, OpenError>) -> bool {
    matches!(result, Err(OpenError::Map(MapError::Missing(_))))
}

#[test]
fn child_of_a_clone_without_fork_handlers_cannot_use_the_map_of_its_parent() {
    let directory = TestDirectory::new("clone");
    // No fork handlers run in this clone. If another thread holds a lock of the C library at this
    // time, for example in the allocator, the lock stays locked in the child forever. So the test
    // needs a process with one thread.
    let mut process = Child::start(|| {
        let memory_map = Map::in_memory(&plan(9)).unwrap();
        for is_exclusive in [false, true] {
            let mut map = Map::create(&directory.0, &plan(9)).unwrap();
            if is_exclusive {
                map.lock_exclusive().unwrap();
            }
            let opened = open(&map, 1, 0).unwrap();
            let mut child = Child::start_without_handlers(|| {
                for map in [&map, &memory_map] {
                    assert!(matches!(open(map, 2, 0), Err(OpenError::Map(MapError::Forked))));
                    assert!(matches!(map.find(session_id(1)), Err(MapError::Forked)));
                }
                assert!(map.close_by_handle(&opened.handle, Tick::ZERO).is_err());
                let child_map = Map::open(&directory.0).unwrap();
                let result = open(&child_map, 3, 0);
                match is_exclusive {
                    true => assert!(matches!(result, Err(OpenError::Map(MapError::Busy { .. })))),
                    false => drop(result.unwrap()),
                }
            });
            assert_eq!(child.wait(), WaitStatus::Exited(0));
            map.close_by_handle(&opened.handle, Tick::ZERO).unwrap();
        }
    });
    assert_eq!(process.wait(), WaitStatus::Exited(0));
}

#[test]
fn exclusive_lock_outlives_the_descriptors_of_its_process() {
    let directory = TestDirectory::new("closefrom");
    let phase = &shared_words(1)[0];
    let mut agent = Child::start(|| {
        let mut map = Map::create(&directory.0, &plan(9)).unwrap();
        map.lock_exclusive().unwrap();
        close_all_descriptors();
        phase.store(1, SeqCst);
        wait_for(phase, 2);
        open(&map, 1, 1).unwrap();
        drop(map);
        phase.store(3, SeqCst);
        wait_for(phase, 4);
    });
    wait_for(phase, 1);
    let other_map = Map::open(&directory.0).unwrap();
    let is_busy =
        |result| matches!(result, Err(OpenError::Map(MapError::Busy { exclusive: true, .. })));
    assert!(is_busy(open(&other_map, 2, 0)));
    phase.store(2, SeqCst);
    wait_for(phase, 3);
    open(&other_map, 2, 0).unwrap();
    phase.store(4, SeqCst);
    assert_eq!(agent.wait(), WaitStatus::Exited(0));
    assert_eq!(all_leases(&other_map).len(), 2);
}

#[test]
fn writer_without_its_descriptor_writes_nothing_and_closes_no_other_file() {
    let directory = TestDirectory::new("descriptor");
    let mut process = Child::start(|| {
        let map = Map::create(&directory.0, &plan(9)).unwrap();
        close_all_descriptors();
        assert!(is_lock_lost(open(&map, 1, 0)));
        // The descriptor of the lock is closed. One of the new files reuses its number.
        let file = |number| File::create(directory.0.join(format!("file{number}"))).unwrap();
        let files: Vec<File> = (0..64).map(file).collect();
        let are_open = || files.iter().all(|file| file.metadata().is_ok());
        assert!(is_lock_lost(open(&map, 1, 0)));
        let mut child = Child::start(|| assert!(are_open()));
        assert_eq!(child.wait(), WaitStatus::Exited(0));
        drop(map);
        assert!(are_open());
    });
    assert_eq!(process.wait(), WaitStatus::Exited(0));
}

#[test]
fn two_locks_never_share_a_descriptor() {
    let directory = TestDirectory::new("shared-descriptor");
    let mut process = Child::start(|| {
        let old_map = Map::create(&directory.0, &plan(9)).unwrap();
        close_all_descriptors();
        // The new lock reuses the descriptor number of the old lock, whose descriptor is closed.
        // Both locks are on the same file.
        let new_map = Map::open(&directory.0).unwrap();
        open(&new_map, 1, 0).unwrap();
        assert!(is_lock_lost(open(&old_map, 2, 0)));
        drop(old_map);
        open(&new_map, 2, 0).unwrap();
    });
    assert_eq!(process.wait(), WaitStatus::Exited(0));
}

#[test]
fn writer_of_a_removed_map_fails_and_follows_the_next_map() {
    let directory = TestDirectory::new("removed");
    let map = Map::create(&directory.0, &plan(9)).unwrap();
    open(&map, 1, 0).unwrap();
    fs::remove_file(directory.0.join("map")).unwrap();
    assert!(is_missing(open(&map, 2, 0)));
    let new_map = Map::create(&directory.0, &plan(9)).unwrap();
    open(&new_map, 3, 0).unwrap();
    open(&map, 4, 0).unwrap();
    // `all_leases` checks that no address is leased twice.
    assert_eq!(all_leases(&new_map).len(), 2);
    fs::remove_file(directory.0.join("lock")).unwrap();
    assert!(is_lock_lost(open(&map, 5, 0)));
}

#[test]
fn exclusive_writer_of_removed_files_fails_in_the_next_second() {
    let directory = TestDirectory::new("removed-exclusive");
    let mut agent = Map::create(&directory.0, &plan(9)).unwrap();
    agent.lock_exclusive().unwrap();
    open(&agent, 1, 1).unwrap();
    fs::remove_file(directory.0.join("map")).unwrap();
    assert!(is_missing(open(&agent, 2, 2)));
    fs::remove_file(directory.0.join("lock")).unwrap();
    open(&Map::create(&directory.0, &plan(9)).unwrap(), 3, 1).unwrap();
    assert!(is_lock_lost(open(&agent, 4, 3)));
    let mut writer = agent.exclusive_writer().unwrap();
    let now = Tick::from_secs(4);
    assert!(is_lock_lost(writer.open_session(session_id(5), &OpenOptions::new(), now)));
}

#[test]
fn no_child_inherits_the_descriptor_of_a_lock() {
    let directory = TestDirectory::new("window");
    let _map = Map::create(&directory.0, &plan(9)).unwrap();
    let inode = |name| fs::metadata(directory.0.join(name)).unwrap().ino();
    let lock_inodes = ["lock", "reload"].map(inode);
    let is_finished = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_finished.load(SeqCst) {
                drop(Map::open(&directory.0).unwrap());
            }
        });
        scope.spawn(|| {
            while !is_finished.load(SeqCst) {
                drop(Map::create(&directory.0, &plan(9)).unwrap());
            }
        });
        let statuses: Vec<WaitStatus> = (0..vipool_testing::effort(300, 10_000))
            .map(|_| {
                let check_descriptors = || {
                    assert!((3..512).all(|descriptor| {
                        inode_of(descriptor).is_none_or(|inode| !lock_inodes.contains(&inode))
                    }))
                };
                Child::start(check_descriptors).wait()
            })
            .collect();
        is_finished.store(true, SeqCst);
        assert!(statuses.iter().all(|status| *status == WaitStatus::Exited(0)));
    });
}
