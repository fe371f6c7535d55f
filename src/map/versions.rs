//! [`VersionChain`]: a lock-free chain of value versions, for code inside other programs.
//!
//! Invariants:
//! - A value in the chain is never dropped or moved. So a caller can keep a reference forever, in
//!   any thread, signal handler or vfork child.
//! - No method locks or allocates.
//! - Several threads can append at the same time, and siglongjmp or fork can interrupt an append.
//!   Each append has its own cell. All threads see the append that completes first.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::reader::Reader;
use crate::raw::set_once::SetOnce;

/// Maximum number of versions over the life of a process.
const MAX_VERSIONS: usize = 128;

/// Maximum number of threads that create the successor of one version at the same time.
const MAX_CREATORS: usize = 4;

/// A chain of value versions. Each version supersedes the previous version.
#[derive(Debug)]
pub struct VersionChain<T> {
    versions: [Version<T>; MAX_VERSIONS],
    /// The number of cells that appends have claimed.
    claimed: AtomicUsize,
    /// The number of the newest version, from 1; 0 if there is none.
    newest: AtomicUsize,
    /// The number of threads that create the first version.
    first_creators: AtomicUsize,
}

#[derive(Debug)]
struct Version<T> {
    value: SetOnce<T>,
    /// The number of threads that create the next version.
    creators: AtomicUsize,
}

impl<T> VersionChain<T> {
    /// Returns an empty chain.
    #[allow(clippy::new_without_default, reason = "only statics hold a chain")]
    #[must_use]
    pub const fn new() -> Self {
        Self {
            versions: [const { Version { value: SetOnce::new(), creators: AtomicUsize::new(0) } };
                MAX_VERSIONS],
            claimed: AtomicUsize::new(0),
            newest: AtomicUsize::new(0),
            first_creators: AtomicUsize::new(0),
        }
    }

    /// Returns the newest version. Costs a few loads.
    #[inline]
    pub fn newest(&self) -> Option<&T> {
        self.version(self.newest.load(Ordering::Acquire))
    }

    #[inline]
    fn version(&self, number: usize) -> Option<&T> {
        self.versions.get(number.checked_sub(1)?)?.value.get()
    }

    /// Returns the newest version. If `is_superseded` returns true for that version, creates and
    /// returns its successor.
    ///
    /// `create` returns the successor, which then stays in the chain forever. The result is the
    /// superseded version if `create` returns `None`, or if too many other threads are creating the
    /// successor. In both cases the next call tries again. The result is `None` if the chain is
    /// full.
    #[inline]
    pub fn current(
        &self,
        is_superseded: impl FnOnce(&T) -> bool,
        create: impl FnOnce(Option<&T>) -> Option<T>,
    ) -> Option<&T> {
        let number = self.newest.load(Ordering::Acquire);
        match self.version(number) {
            Some(value) if !is_superseded(value) => Some(value),
            old => self.append(number, old, create),
        }
    }

    #[cold]
    fn append<'s>(
        &'s self,
        old_number: usize,
        old: Option<&'s T>,
        create: impl FnOnce(Option<&T>) -> Option<T>,
    ) -> Option<&'s T> {
        let old_version = old_number.checked_sub(1).and_then(|index| self.versions.get(index));
        let creators = old_version.map_or(&self.first_creators, |version| &version.creators);
        if self.claimed.load(Ordering::Relaxed) >= MAX_VERSIONS {
            return None;
        }
        let increment_below_limit = |count| (count < MAX_CREATORS).then_some(count + 1);
        if creators
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, increment_below_limit)
            .is_err()
        {
            return old;
        }
        let Some(value) = create(old) else {
            creators.fetch_sub(1, Ordering::Relaxed);
            return old;
        };
        // If another thread has appended a version during `create`, return that version and claim
        // no cell.
        if self.newest.load(Ordering::Acquire) != old_number {
            return self.newest();
        }
        // The counter gives each thread its own cell, so no thread waits for another.
        let index = self.claimed.fetch_add(1, Ordering::Relaxed);
        self.versions.get(index)?.value.set(value);
        let _ = self.newest.compare_exchange(
            old_number,
            index + 1,
            Ordering::AcqRel,
            Ordering::Relaxed,
        );
        self.newest()
    }
}

impl VersionChain<Reader> {
    /// Returns a reader of the map in a directory. Attaches to the new map if the current map is
    /// superseded. The files of superseded readers stay mapped.
    ///
    /// Returns `None` if the directory has no map yet, or if the chain is full.
    #[inline]
    pub fn map(&self, directory: &Path) -> Option<&Reader> {
        self.current(Reader::is_superseded, |old| {
            // The current file can be marked as superseded for two reasons: its successor is not in
            // place yet, or the process that set the mark has died. In both cases, keep the old
            // reader until the successor is in place or a writer removes the mark.
            Reader::attach(directory).ok().filter(|new| old.is_none() || !new.is_superseded())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Map, OpenOptions, Plan, Settings};
    use super::*;
    use crate::Tick;
    use crate::pool::{Pool, PoolKind};
    use crate::session::{SessionId, SessionKind};

    #[test]
    fn each_version_supersedes_the_previous_version() {
        let numbers = VersionChain::new();
        assert_eq!(numbers.current(|_| true, |_| None::<usize>), None);
        for number in 0..2 * MAX_VERSIONS {
            let found = numbers.current(
                |_| true,
                |old| {
                    assert_eq!(old.copied(), number.checked_sub(1));
                    Some(number)
                },
            );
            if number + 1 < MAX_VERSIONS {
                assert_eq!(found, Some(&number));
            }
            if number + 1 == MAX_VERSIONS {
                break;
            }
        }
        // The chain is full: the last version stays, and a caller that needs a newer version gets
        // `None`.
        assert_eq!(numbers.current(|_| true, |_| unreachable!()), None);
        assert_eq!(numbers.newest(), Some(&(MAX_VERSIONS - 1)));
        assert_eq!(numbers.current(|_| false, |_| unreachable!()), Some(&(MAX_VERSIONS - 1)));
    }

    #[test]
    fn a_late_creator_claims_no_cell() {
        let numbers = VersionChain::new();
        numbers.current(|_| true, |_| Some(1));
        let create_late = |_: Option<&_>| {
            numbers.current(|_| true, |_| Some(2));
            Some(3)
        };
        assert_eq!(numbers.current(|_| true, create_late), Some(&2));
        assert_eq!(numbers.claimed.load(Ordering::Relaxed), 2);
    }

    /// Returns a plan that differs from the plans of other numbers.
    fn plan(number: usize) -> Plan {
        let ranges = ["10.0.0.0/29".parse().unwrap()];
        let pool = Pool::new("default", PoolKind::VirtualIp, &ranges, u32::MAX).unwrap();
        let settings = Settings { low_water: number as u32, ..Settings::default() };
        Plan { pools: vec![pool], settings, ..Plan::default() }
    }

    #[test]
    fn a_superseded_map_without_a_successor_claims_no_cells() {
        let directory = tempfile::tempdir().unwrap();
        let map = Map::create(directory.path(), &plan(0)).unwrap();
        let maps = VersionChain::new();
        let first: *const Reader = maps.map(directory.path()).unwrap();
        // Simulate a process that is killed before it replaces the map.
        map.mark_superseded();
        for _ in 0..2 * MAX_VERSIONS {
            assert!(maps.map(directory.path()).is_some_and(|map| std::ptr::eq(map, first)));
        }
        // A process that starts now attaches to the same map.
        assert!(VersionChain::new().map(directory.path()).is_some());
        let session = "7".parse().unwrap();
        map.open_session(session, &OpenOptions::default(), Tick::ZERO).unwrap();
        let current = maps.map(directory.path()).unwrap();
        assert!(std::ptr::eq(current, first) && !current.is_superseded());
        let map = Map::create(directory.path(), &plan(1)).unwrap();
        map.close_session(session, Tick::ZERO).unwrap();
        assert!(maps.map(directory.path()).is_some_and(|map| map.find(session).is_none()));
    }

    #[test]
    fn readers_follow_new_maps_until_the_chain_is_full() {
        let directory = tempfile::tempdir().unwrap();
        let maps = VersionChain::new();
        for number in 0..MAX_VERSIONS {
            let map = Map::create(directory.path(), &plan(number)).unwrap();
            let session =
                SessionId::new(SessionKind::CommandLine, number as u64 / 100 + 1).unwrap();
            map.open_session(session, &OpenOptions::default(), Tick::ZERO).unwrap();
            assert!(maps.map(directory.path()).is_some_and(|map| map.find(session).is_some()));
        }
        Map::create(directory.path(), &plan(MAX_VERSIONS)).unwrap();
        assert!(maps.map(directory.path()).is_none());
        assert!(maps.newest().is_some_and(Reader::is_superseded));
    }

    #[test]
    fn create_is_called_again_after_it_returned_none() {
        let numbers = VersionChain::new();
        numbers.current(|_| true, |_| Some(1));
        for _ in 0..3 * MAX_CREATORS {
            assert_eq!(numbers.current(|_| true, |_| None), Some(&1));
        }
        assert_eq!(numbers.current(|_| true, |_| Some(2)), Some(&2));
    }

    #[test]
    fn create_is_called_again_after_it_returned_none_to_many_threads() {
        let numbers = VersionChain::new();
        numbers.current(|_| true, |_| Some(1));
        let create_nothing = |_: Option<&_>| {
            std::thread::yield_now();
            None
        };
        std::thread::scope(|scope| {
            for _ in 0..4 * MAX_CREATORS {
                scope.spawn(|| {
                    for _ in 0..5_000 {
                        numbers.current(|_| true, create_nothing);
                        std::thread::yield_now();
                    }
                });
            }
        });
        // A thread that stays counted after its return would reduce the limit forever.
        assert_eq!(numbers.versions[0].creators.load(Ordering::Relaxed), 0);
        assert_eq!(numbers.current(|_| true, |_| Some(2)), Some(&2));
    }

    #[test]
    fn creators_are_limited_and_all_threads_get_one_version() {
        let numbers = VersionChain::new();
        numbers.current(|_| true, |_| Some(usize::MAX));
        let created = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for number in 0..32 {
                let (numbers, created) = (&numbers, &created);
                scope.spawn(move || {
                    numbers.current(
                        |value| *value == usize::MAX,
                        |_| {
                            created.fetch_add(1, Ordering::Relaxed);
                            Some(number)
                        },
                    );
                });
            }
        });
        assert!((1..=MAX_CREATORS).contains(&created.into_inner()));
        assert!(numbers.newest().is_some_and(|number| *number < 32));
    }
}
