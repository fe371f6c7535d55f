//! Readers beside a writer, in every order of their loads and stores that the memory model allows
//! (loom; `RUSTFLAGS="--cfg loom"`). What is there all along is found, what is found is whole, and
//! nothing loops.

use std::sync::Arc;

use loom::thread;

use super::engine::state::State;
use super::format::index::{Bucket, Home, Key};
use super::format::record;
use super::types::outcome::Leases;
use super::types::plan::{OpenOptions, Plan};
use crate::Tick;
use crate::pool::{Pool, PoolKind};
use crate::session::{Handle, SessionId, SessionKind};
use crate::sync::AtomicU64;

fn id(number: u64) -> SessionId {
    SessionId::new(SessionKind::CommandLine, number).unwrap()
}

fn state(slots: u32) -> Arc<State> {
    let range = "10.0.0.0/24".parse().unwrap();
    let pool = Pool::new("default", PoolKind::VirtualIp, &[range], slots).unwrap();
    Arc::new(State::in_memory(&Plan { pools: vec![pool], ..Plan::default() }).unwrap())
}

fn open(state: &State, number: u64, options: &OpenOptions<'_>) -> (Handle, Leases) {
    let opened = match state.open_plain(id(number), options, Tick::from_secs(1)) {
        Some(opened) => opened,
        None => state.open_anyhow(id(number), options, Tick::from_secs(1)).unwrap(),
    };
    (opened.handle, opened.leases)
}

fn close(state: &State, handle: &Handle) {
    if state.close_plain(handle, Tick::from_secs(1)).is_none() {
        state.close_anyhow(handle, Tick::from_secs(1)).unwrap();
    }
}

/// Every interleaving with up to this many switches away from a thread that could go on.
fn check(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 20_000;
    builder.check(model);
}

/// Runs the reader beside the writer.
fn beside(
    state: &Arc<State>,
    write: impl FnOnce(&State) + 'static,
    read: impl FnOnce(&State) + 'static,
) {
    let writers = Arc::clone(state);
    let writer = thread::spawn(move || write(&writers));
    read(state);
    writer.join().unwrap();
}

#[test]
fn a_stable_session_is_found_while_others_come_and_go() {
    check(2, || {
        let state = state(2);
        let stable = open(&state, 1, &OpenOptions::default());
        beside(
            &state,
            |state| {
                let (handle, _) = open(state, 2, &OpenOptions::default());
                close(state, &handle);
            },
            move |state| {
                let sessions = &state;
                assert_eq!(sessions.lookup(id(1)), stable.1);
                assert!(sessions.is_live(&stable.0));
            },
        );
    });
}

#[test]
fn a_lease_is_seen_whole_or_not_at_all() {
    check(2, || {
        let state = state(1);
        beside(
            &state,
            |state| _ = open(state, 2, &OpenOptions::default()),
            |state| {
                let sessions = &state;
                if let Some(lease) = sessions.lookup(id(2)).iter().next() {
                    assert_eq!((lease.slot, lease.generation), (0, 1));
                    assert_eq!(lease.address.to_string(), "10.0.0.0");
                    let handle = sessions.handle(&sessions.lookup(id(2))).unwrap();
                    assert!(sessions.is_live(&handle));
                }
            },
        );
    });
}

#[test]
fn a_handle_dies_with_its_lease_whoever_comes_after() {
    check(2, || {
        let state = state(1);
        let (handle, leases) = open(&state, 1, &OpenOptions::default());
        beside(
            &state,
            move |state| {
                close(state, &handle);
                // The same session again, on the same slot.
                open(state, 1, &OpenOptions::default());
            },
            move |state| {
                let sessions = &state;
                // As a reader answers what a handle stands for.
                let found = sessions.lookup(handle.session);
                if sessions.is_live(&handle) {
                    assert_eq!(found, leases);
                }
            },
        );
    });
}

#[test]
fn a_stable_session_is_found_while_all_is_derived_again() {
    check(2, || {
        let state = state(2);
        let stable = open(&state, 1, &OpenOptions::default());
        open(&state, 2, &OpenOptions::default());
        beside(
            &state,
            |state| state.rebuild(),
            move |state| assert_eq!(state.lookup(id(1)), stable.1),
        );
    });
}

#[test]
fn a_record_is_of_its_lease_or_nothing() {
    check(2, || {
        let state = state(1);
        let ann = OpenOptions { user: Some("ann"), ..OpenOptions::default() };
        let (handle, leases) = open(&state, 1, &ann);
        beside(
            &state,
            move |state| {
                close(state, &handle);
                let bob = OpenOptions { user: Some("bob"), ..OpenOptions::default() };
                open(state, 2, &bob);
            },
            move |state| {
                let lease = leases.iter().next().unwrap();
                let sessions = &state;
                let pool = sessions.layout.pool(0).unwrap();
                let record = record::read(sessions.records(), pool, lease.slot, lease.generation);
                if let Some(record) = record {
                    assert_eq!(record.user.as_deref(), Some("ann"));
                }
            },
        );
    });
}

#[test]
fn an_entry_that_found_no_room_at_home_is_found_while_others_come_and_go() {
    check(2, || {
        // Home is full with entries of no slot of ours; what comes goes to the bucket behind.
        let buckets: Arc<[Bucket]> =
            (0..2).map(|_| std::array::from_fn(|_| AtomicU64::new(0))).collect();
        let key = (1..).map(|raw| Key::session(raw)).find(|key| home(*key) == 0).unwrap();
        let tags = u64::from_ne_bytes([99; 8]);
        buckets[0][0].store(tags, crate::sync::Ordering::Release);
        buckets[0][1].store(tags >> 8, crate::sync::Ordering::Release);
        assert!(Home::of(key, &buckets).insert(7));
        let others = Arc::clone(&buckets);
        let writer = thread::spawn(move || {
            assert!(Home::of(key, &others).insert(8));
            assert!(Home::of(key, &others).remove(8));
        });
        let found = Home::of(key, &buckets).find(|slot| (slot == 7).then_some(slot));
        assert_eq!(found, Some(7));
        writer.join().unwrap();
        // Nothing is displaced any more but what is there.
        assert!(Home::of(key, &buckets).remove(7));
        assert_eq!(Home::of(key, &buckets).find(|slot| (slot == 7).then_some(slot)), None);
    });
}

/// The home of a key among two buckets, found out by where an entry goes.
fn home(key: Key) -> usize {
    let buckets: Vec<Bucket> = (0..2).map(|_| std::array::from_fn(|_| AtomicU64::new(0))).collect();
    assert!(Home::of(key, &buckets).insert(1));
    let used =
        |bucket: &Bucket| bucket.iter().any(|word| word.load(crate::sync::Ordering::Acquire) != 0);
    buckets.iter().position(used).unwrap()
}
