//! Tests of readers that run in parallel with a writer, under the model checker loom
//! (`RUSTFLAGS="--cfg loom"`).
//!
//! Loom runs every order of loads and stores that the memory model allows, up to a number of
//! preemptions. The tests check that a reader always finds a session that the writer does not
//! change, that each result is complete, and that no loop is endless.

use std::sync::Arc;

use loom::thread;

use super::engine::image::MapImage;
use super::engine::writer::WritableMap;
use super::format::index::{Bucket, Key, LoadedBucket};
use super::format::record;
use super::replan::build::build_in_memory;
use super::types::leases::Leases;
use super::types::plan::{OpenOptions, Plan, Settings};
use crate::Tick;
use crate::pool::{Pool, PoolKind};
use crate::raw::word::{Word, WriteAccess};
use crate::session::{Handle, SessionId, SessionKind};

const NOW: Tick = Tick::from_secs(1);

fn session_id(number: u64) -> SessionId {
    SessionId::new(SessionKind::CommandLine, number).unwrap()
}

fn map_with_slots(slot_count: u32) -> WritableMap {
    let range = "10.0.0.0/24".parse().unwrap();
    let pool = Pool::new("default", PoolKind::VirtualIp, &[range], slot_count).unwrap();
    build_in_memory(&Plan::new([pool]).with_settings(Settings::without_cool_down())).unwrap()
}

fn open(map: &mut WritableMap, number: u64, options: &OpenOptions<'_>) -> (Handle, Leases) {
    let opened = map.begin().open_session_and_commit(session_id(number), options, NOW).unwrap();
    (opened.handle, opened.leases)
}

fn open_anonymous(map: &mut WritableMap, number: u64) -> (Handle, Leases) {
    open(map, number, &OpenOptions::default())
}

fn close(map: &mut WritableMap, handle: &Handle) {
    map.begin().close_by_handle_and_commit(handle, NOW).unwrap();
}

/// Runs a model in every interleaving with at most this many preemptions.
fn check_model(max_preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(max_preemptions);
    builder.max_branches = 20_000;
    builder.check(model);
}

/// Runs a reader in parallel with a writer.
fn run_concurrently(
    mut map: WritableMap,
    write: impl FnOnce(&mut WritableMap) + 'static,
    read: impl FnOnce(&MapImage),
) {
    let image = map.share_with_sessions().unwrap();
    let writer = thread::spawn(move || write(&mut map));
    read(&image);
    writer.join().unwrap();
}

#[test]
fn a_stable_session_is_found_while_others_open_and_close() {
    check_model(2, || {
        let mut map = map_with_slots(2);
        let (handle, leases) = open_anonymous(&mut map, 1);
        run_concurrently(
            map,
            |map| {
                let (handle, _) = open_anonymous(map, 2);
                close(map, &handle);
            },
            |image| {
                assert_eq!(image.lookup(session_id(1)), leases);
                assert!(image.is_live(&handle));
            },
        );
    });
}

#[test]
fn a_lease_is_complete_or_not_visible() {
    check_model(2, || {
        run_concurrently(
            map_with_slots(1),
            |map| _ = open_anonymous(map, 2),
            |image| {
                if let Some(lease) = image.lookup(session_id(2)).iter().next() {
                    assert_eq!((lease.slot, lease.generation), (0, 1));
                    assert_eq!(lease.address.to_string(), "10.0.0.0");
                    let handle = image.handle(&image.lookup(session_id(2))).unwrap();
                    assert!(image.is_live(&handle));
                }
            },
        );
    });
}

#[test]
fn a_handle_ends_with_its_lease_even_if_the_same_session_opens_again() {
    check_model(2, || {
        let mut map = map_with_slots(1);
        let (handle, leases) = open_anonymous(&mut map, 1);
        run_concurrently(
            map,
            move |map| {
                close(map, &handle);
                // The same session gets the same slot again.
                open_anonymous(map, 1);
            },
            |image| {
                // Make the two reads in the same order as `Reader::leases_of`.
                let found_leases = image.lookup(handle.session);
                if image.is_live(&handle) {
                    assert_eq!(found_leases, leases);
                }
            },
        );
    });
}

#[test]
fn a_stable_session_is_found_during_a_recovery() {
    check_model(2, || {
        let mut map = map_with_slots(2);
        let (_, leases) = open_anonymous(&mut map, 1);
        open_anonymous(&mut map, 2);
        run_concurrently(
            map,
            |map| map.writer().rebuild(),
            |image| assert_eq!(image.lookup(session_id(1)), leases),
        );
    });
}

#[test]
fn a_record_belongs_to_its_lease_or_is_not_visible() {
    check_model(2, || {
        let mut map = map_with_slots(1);
        let ann = OpenOptions { user: Some("ann"), ..OpenOptions::default() };
        let (handle, leases) = open(&mut map, 1, &ann);
        run_concurrently(
            map,
            move |map| {
                close(map, &handle);
                let bob = OpenOptions { user: Some("bob"), ..OpenOptions::default() };
                open(map, 2, &bob);
            },
            |image| {
                let lease = leases.iter().next().unwrap();
                let pool = image.layout().pool(0).unwrap();
                let record =
                    record::read(image.sessions_words(), pool, lease.slot, lease.generation);
                if let Some(record) = record {
                    assert_eq!(record.user(), Some("ann"));
                }
            },
        );
    });
}

#[test]
fn an_overflow_entry_is_found_while_others_are_inserted_and_removed() {
    check_model(2, || {
        // The home bucket of `key` is full, so the entries of `key` go to the next bucket.
        let access = WriteAccess::for_test();
        let buckets: Arc<[Bucket]> =
            (0..2).map(|_| std::array::from_fn(|_| Word::new(0))).collect();
        let key = (1..).map(Key::session).find(|key| home_bucket_number(*key) == 0).unwrap();
        let tags = u64::from_ne_bytes([99; 8]);
        buckets[0][0].store(access, tags);
        buckets[0][1].store(access, tags >> 8);
        assert!(LoadedBucket::load(key, &buckets).insert(access, 7));
        let writer_buckets = Arc::clone(&buckets);
        let writer = thread::spawn(move || {
            let access = WriteAccess::for_test();
            assert!(LoadedBucket::load(key, &writer_buckets).insert(access, 8));
            assert!(LoadedBucket::load(key, &writer_buckets).remove(access, 8));
        });
        let find = |buckets: &[Bucket]| {
            LoadedBucket::load(key, buckets).find(|slot| (slot == 7).then_some(slot))
        };
        assert_eq!(find(&buckets), Some(7));
        writer.join().unwrap();
        assert!(LoadedBucket::load(key, &buckets).remove(access, 7));
        assert_eq!(find(&buckets), None);
    });
}

/// Returns the number of the home bucket of a key in an index with two buckets. Inserts an entry to
/// find the bucket.
fn home_bucket_number(key: Key) -> usize {
    let access = WriteAccess::for_test();
    let buckets: Vec<Bucket> = (0..2).map(|_| std::array::from_fn(|_| Word::new(0))).collect();
    assert!(LoadedBucket::load(key, &buckets).insert(access, 1));
    let is_used = |bucket: &Bucket| bucket.iter().any(|word| word.load() != 0);
    buckets.iter().position(is_used).unwrap()
}
