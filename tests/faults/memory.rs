//! Tests of exhausted memory. An allocation that fails ends the process (abort(3)). The tests check
//! that opening, finding and closing a session allocate nothing, and that no lease is lost if the
//! process ends at an allocation.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fs;
use std::ptr;
use std::sync::atomic::Ordering::SeqCst;

use vipool::Tick;
use vipool::map::{Map, OpenOptions};

use crate::plan;
use crate::process::{Child, WaitStatus, shared_words};
use crate::recovery::{IdleProbe, TestDirectory, all_leases, recover_copy, session_id};

/// The system's allocator, with a limit after which allocations fail.
struct FailingAllocator;

#[global_allocator]
static ALLOCATOR: FailingAllocator = FailingAllocator;

thread_local! {
    /// The number of further allocations of this thread that succeed; `None` without a limit.
    static REMAINING_ALLOCATIONS: Cell<Option<u32>> = const { Cell::new(None) };
}

// SAFETY: all memory comes from `System`. A null pointer reports exhausted memory.
unsafe impl GlobalAlloc for FailingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match REMAINING_ALLOCATIONS.get() {
            Some(0) => return ptr::null_mut(),
            Some(remaining) => REMAINING_ALLOCATIONS.set(Some(remaining - 1)),
            None => {}
        }
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        // SAFETY: `start` comes from `System`, with this layout.
        unsafe { System.dealloc(start, layout) }
    }
}

/// Runs `body`. After `limit` allocations, every allocation of this thread fails.
pub fn with_allocation_limit<T>(limit: u32, body: impl FnOnce() -> T) -> T {
    REMAINING_ALLOCATIONS.set(Some(limit));
    let result = body();
    REMAINING_ALLOCATIONS.set(None);
    result
}

/// An allocation in one of these operations would end the process.
#[test]
fn opening_and_closing_sessions_needs_no_memory() {
    let directory = TestDirectory::new("memory");
    for is_exclusive in [false, true] {
        let mut map = Map::create_at(&directory.0, &plan(8), Tick::from_secs(1)).unwrap();
        if is_exclusive {
            map.lock_exclusive().unwrap();
        }
        let options = OpenOptions::new().with_user("ann");
        // In exclusive mode, the first operation in each second also examines the files.
        for second in [2, 3] {
            let now = Tick::from_secs(second);
            let (opened, found, closed) = with_allocation_limit(0, || {
                let opened = map.open_session(session_id(1), &options, now);
                let reopened = map.open_session(session_id(1), &options, now);
                assert!(reopened.is_ok_and(|reopened| reopened.already_open));
                let found = map.find(session_id(1));
                let closed = map.close_session(session_id(1), now);
                assert!(map.open_session(session_id(2), &OpenOptions::new(), now).is_ok());
                assert!(map.close_session(session_id(2), now).is_ok());
                (opened, found, closed)
            });
            let handle = opened.unwrap().handle;
            assert_eq!(found.unwrap().unwrap().0, handle);
            closed.unwrap();
            map.reap(now, u32::MAX, &mut IdleProbe).unwrap();
        }
    }
}

/// Each iteration permits one more allocation than the previous one, until the process succeeds.
#[test]
fn process_that_ends_at_an_allocation_loses_no_lease() {
    let flags = shared_words(2);
    let (is_opened, is_closed) = (&flags[0], &flags[1]);
    let has_session = |map: &Map, number| map.find(session_id(number)).unwrap().is_some();
    for limit in 0.. {
        let directory = TestDirectory::new("allocation");
        let now = Tick::from_secs(1);
        let old_map = Map::create_at(&directory.0, &plan(8), now).unwrap();
        old_map.open_session(session_id(1), &OpenOptions::new(), now).unwrap();
        is_opened.store(0, SeqCst);
        is_closed.store(0, SeqCst);
        let operations = || {
            let options = OpenOptions::new().with_user("ann");
            let map = Map::create_at(&directory.0, &plan(9), now).unwrap();
            map.open_session(session_id(2), &options, now).unwrap();
            is_opened.store(1, SeqCst);
            map.save_users(&directory.0.join("last-users")).unwrap();
            let mut agent = Map::open(&directory.0).unwrap();
            agent.lock_exclusive().unwrap();
            agent.close_session(session_id(1), now).unwrap();
            is_closed.store(1, SeqCst);
            agent.reap(now, u32::MAX, &mut IdleProbe).unwrap();
            assert_eq!(agent.sessions().unwrap().len(), 1);
        };
        let status = Child::start(|| with_allocation_limit(limit, operations)).wait();
        let map = Map::open(&directory.0).unwrap();
        let leases = all_leases(&map);
        assert_eq!(has_session(&map, 1), is_closed.load(SeqCst) == 0, "after {limit} allocations");
        assert_eq!(has_session(&map, 2), is_opened.load(SeqCst) == 1, "after {limit} allocations");
        drop(map);
        let read_file = |name| fs::read(directory.0.join(name)).unwrap();
        assert_eq!(recover_copy(&read_file("map"), &read_file("sessions")), leases);
        // A new writer can acquire the lock, because the process released it when it ended.
        Map::create_at(&directory.0, &plan(10), now).unwrap();
        match status {
            WaitStatus::Exited(0) => return assert!(limit > 20, "{limit} allocations"),
            status => assert_eq!(status, WaitStatus::Killed(libc::SIGABRT)),
        }
    }
}
