//! Tests of exhausted memory. An allocation that fails ends the process (abort(3)). The tests check
//! which operations allocate nothing, and that an end at any allocation loses no lease.

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

/// The allocator of the system, whose allocations can fail.
struct FailingAllocator;

#[global_allocator]
static ALLOCATOR: FailingAllocator = FailingAllocator;

thread_local! {
    /// The number of allocations of this thread that succeed; `None` without a limit.
    static REMAINING: Cell<Option<u32>> = const { Cell::new(None) };
}

// SAFETY: all memory comes from `System`. A null pointer reports exhausted memory.
unsafe impl GlobalAlloc for FailingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match REMAINING.get() {
            Some(0) => return ptr::null_mut(),
            Some(remaining) => REMAINING.set(Some(remaining - 1)),
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

/// Runs `body`. After this number of allocations, every allocation of this thread fails.
fn with_allocations<T>(number: u32, body: impl FnOnce() -> T) -> T {
    REMAINING.set(Some(number));
    let result = body();
    REMAINING.set(None);
    result
}

/// If one of these operations allocated, the process would end.
#[test]
fn opening_and_closing_sessions_needs_no_memory() {
    let directory = TestDirectory::new("memory");
    for is_exclusive in [false, true] {
        let mut map = Map::create_at(&directory.0, &plan(8), Tick::from_secs(1)).unwrap();
        if is_exclusive {
            map.lock_exclusive().unwrap();
        }
        let user = OpenOptions::new().with_user("ann");
        // The first operation of a second examines the files.
        for second in [2, 3] {
            let now = Tick::from_secs(second);
            let (opened, found, closed) = with_allocations(0, || {
                let opened = map.open_session(session_id(1), &user, now);
                let again = map.open_session(session_id(1), &user, now);
                assert!(again.is_ok_and(|again| again.already_open));
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

/// In run N, the process ends at its Nth allocation.
#[test]
fn end_at_any_allocation_loses_nothing() {
    let flags = shared_words(2);
    let (has_opened, has_closed) = (&flags[0], &flags[1]);
    let has_session = |map: &Map, number| map.find(session_id(number)).unwrap().is_some();
    for number in 0.. {
        let directory = TestDirectory::new("allocation");
        let now = Tick::from_secs(1);
        let old_map = Map::create_at(&directory.0, &plan(8), now).unwrap();
        old_map.open_session(session_id(1), &OpenOptions::new(), now).unwrap();
        has_opened.store(0, SeqCst);
        has_closed.store(0, SeqCst);
        let operations = || {
            let user = OpenOptions::new().with_user("ann");
            let map = Map::create_at(&directory.0, &plan(9), now).unwrap();
            map.open_session(session_id(2), &user, now).unwrap();
            has_opened.store(1, SeqCst);
            map.save_users(&directory.0.join("last-users")).unwrap();
            let mut agent = Map::open(&directory.0).unwrap();
            agent.lock_exclusive().unwrap();
            agent.close_session(session_id(1), now).unwrap();
            has_closed.store(1, SeqCst);
            agent.reap(now, u32::MAX, &mut IdleProbe).unwrap();
            assert_eq!(agent.sessions().unwrap().len(), 1);
        };
        let status = Child::start(|| with_allocations(number, operations)).wait();
        let map = Map::open(&directory.0).unwrap();
        let leases = all_leases(&map);
        assert_eq!(has_session(&map, 1), has_closed.load(SeqCst) == 0, "allocation {number}");
        assert_eq!(has_session(&map, 2), has_opened.load(SeqCst) == 1, "allocation {number}");
        drop(map);
        let read = |name| fs::read(directory.0.join(name)).unwrap();
        assert_eq!(recover_copy(&read("map"), &read("sessions")), leases);
        // The next writer gets the lock of the ended process.
        Map::create_at(&directory.0, &plan(10), now).unwrap();
        match status {
            WaitStatus::Exited(0) => return assert!(number > 20, "{number} allocations"),
            status => assert_eq!(status, WaitStatus::Killed(libc::SIGABRT)),
        }
    }
}
