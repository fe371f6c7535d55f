//! Tests of threads that share a map: writers that compete for the lock, and concurrent readers.

use std::collections::HashMap;
use std::sync::Mutex;
use std::thread;

use vipool::Tick;
use vipool::map::{OpenOptions, Settings};

use crate::support::{memory_map, session_id};

#[test]
fn threads_share_a_map_but_no_address() {
    let round_count = if cfg!(miri) { 5 } else { 2000 };
    let map = memory_map(&["10.0.0.1-10.0.0.9"], Settings::without_cool_down());
    let stable_session =
        map.open_session(session_id(1), &OpenOptions::default(), Tick::ZERO).unwrap();
    let holders = Mutex::new(HashMap::new());
    thread::scope(|scope| {
        for thread_number in 1..=3u64 {
            let (map, holders) = (&map, &holders);
            scope.spawn(move || {
                for round in 0..round_count {
                    let session = session_id(thread_number * 1_000_000 + round);
                    let opened =
                        map.open_session(session, &OpenOptions::default(), Tick::ZERO).unwrap();
                    let address = opened.leases.iter().next().unwrap().address;
                    let previous_holder = holders.lock().unwrap().insert(address, session);
                    assert_eq!(previous_holder, None, "{address} is leased twice");
                    holders.lock().unwrap().remove(&address);
                    map.close_by_handle(&opened.handle, Tick::ZERO).unwrap();
                    assert!(map.close_by_handle(&opened.handle, Tick::ZERO).is_err());
                }
            });
        }
        for _ in 0..2 {
            let reader = map.reader().unwrap();
            scope.spawn(move || {
                for round in 0..round_count {
                    assert_eq!(
                        reader.find(session_id(1)),
                        Some((stable_session.handle, stable_session.leases))
                    );
                    // A lookup of a short-lived session returns only leases of this session.
                    let session = session_id(1_000_000 + round);
                    let leases = reader.lookup(session);
                    assert!(leases.iter().all(|lease| lease.session == session));
                    // The rows are not a snapshot, so there may be more rows than sessions that are
                    // open at the same time.
                    let rows = reader.sessions();
                    assert_eq!(rows.iter().filter(|row| row.session == session_id(1)).count(), 1);
                    assert!(rows.iter().all(|row| row.handle.session == row.session));
                }
            });
        }
    });
    assert_eq!(map.reader().unwrap().pools()[0].leased, 1);
}
