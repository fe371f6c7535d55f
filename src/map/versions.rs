//! [`VersionChain`]: a lock-free chain of value versions, for code inside other programs.
//!
//! Invariants:
//! - A value in the chain is never dropped or moved. So a caller can keep a reference forever, in
//!   any thread, signal handler or vfork child.
//! - No method locks. On Unix, no method uses the heap or has a cancellation point (pthreads(7)).
//! - If siglongjmp or fork interrupts a method, the chain stays usable. No thread ever waits for
//!   another thread.
//! - A call that finds the newest version superseded makes no system call, unless it attempts to
//!   create the successor. [`Attempts`] limits how often that happens.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use super::reader::Reader;
use crate::os::clock;
use crate::raw::newest::Newest;

/// A chain of value versions. Each version supersedes the previous version.
///
/// Only the number of mappings of a process (`/proc/sys/vm/max_map_count`) limits the length of a
/// chain: each version has its own pages, and a chain of readers also keeps all map files mapped.
#[derive(Debug)]
pub struct VersionChain<T: Send + Sync + 'static> {
    newest: Newest<Version<T>>,
}

#[derive(Debug)]
struct Version<T> {
    value: T,
    /// The attempts to create the next version.
    attempts: Attempts,
}

impl<T: Send + Sync> VersionChain<T> {
    /// Returns an empty chain.
    #[allow(clippy::new_without_default, reason = "only statics hold a chain")]
    #[must_use]
    pub const fn new() -> Self {
        Self { newest: Newest::new() }
    }

    /// Returns the newest version. Costs one load.
    #[inline]
    pub fn newest(&self) -> Option<&'static T> {
        self.newest.get().map(|version| &version.value)
    }

    /// Returns the newest version. If the chain is empty, creates the first version.
    ///
    /// The result is `None` if `create` returns `None`, or if the kernel has no memory.
    pub fn get_or_init(&self, create: impl FnOnce() -> Option<T>) -> Option<&'static T> {
        self.newest().or_else(|| self.append(None, create))
    }

    /// Returns the newest version. If that version is superseded, creates and returns its
    /// successor.
    ///
    /// `mark_of` returns 0 for a version that is not superseded, and another number for a
    /// superseded version. `create` returns the successor, which stays in the chain forever.
    ///
    /// The result is `None` if the chain is empty. The result is the superseded version if `create`
    /// returns `None`, or if no attempt to create a successor is due. After an attempt, the next
    /// attempt is due when the mark changes, or after a delay. The delays grow up to 4 seconds.
    #[inline]
    pub fn follow(
        &self,
        mark_of: impl FnOnce(&T) -> u64,
        create: impl FnOnce(&'static T) -> Option<T>,
    ) -> Option<&'static T> {
        let version = self.newest.get()?;
        match mark_of(&version.value) {
            0 => Some(&version.value),
            mark => self.replace(version, mark, create),
        }
    }

    #[cold]
    fn replace(
        &self,
        old_version: &'static Version<T>,
        mark: u64,
        create: impl FnOnce(&'static T) -> Option<T>,
    ) -> Option<&'static T> {
        let old_value = &old_version.value;
        if !old_version.attempts.claim(mark, clock::coarse_milliseconds()) {
            return Some(old_value);
        }
        self.append(Some(old_version), || create(old_value)).or(Some(old_value))
    }

    /// Appends a version, unless another thread has replaced `old_version` meanwhile. Returns the
    /// newest version, or `None` if no version was created.
    fn append(
        &self,
        old_version: Option<&'static Version<T>>,
        create: impl FnOnce() -> Option<T>,
    ) -> Option<&'static T> {
        let new_version = Version { value: create()?, attempts: Attempts::new() };
        self.newest.replace(old_version, new_version).map(|version| &version.value)
    }
}

impl VersionChain<Reader> {
    /// Returns a reader of the map in a directory. Attaches to the new map if the current map is
    /// superseded. The files of superseded readers stay mapped.
    ///
    /// Returns `None` if neither this call nor an earlier call could attach to a map.
    #[inline]
    pub fn map(&self, directory: &Path) -> Option<&'static Reader> {
        let attach = || Reader::try_attach(directory).ok();
        self.get_or_init(attach)?;
        // The file in the directory can be marked as superseded for two reasons: its successor is
        // not in place yet, or the process that set the mark has died. In both cases, keep the old
        // reader until the successor is in place or a writer removes the mark.
        let attach_to_successor = |_: &Reader| attach().filter(|reader| !reader.is_superseded());
        self.follow(Reader::superseded_mark, attach_to_successor)
    }
}

/// The limit on attempts to create the successor of one version. Its state is one word.
///
/// - Only one thread makes each attempt. Other threads use the superseded version, and do not wait.
/// - After an attempt, the next attempt is due after a delay. The first delay is 1 ms. Each delay
///   is twice as long as the previous delay, up to `MAX_DELAY`.
/// - If the mark of the superseded version changes, an attempt is due at once.
#[derive(Debug)]
struct Attempts(AtomicU64);

impl Attempts {
    /// The binary logarithm of `MAX_DELAY`.
    const MAX_EXPONENT: u64 = 12;
    /// The longest delay in milliseconds.
    #[cfg(test)]
    const MAX_DELAY: u64 = 1 << Self::MAX_EXPONENT;

    const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Returns whether the caller may make an attempt. `mark` is not 0. `now` is the time in
    /// milliseconds.
    fn claim(&self, mark: u64, now: u64) -> bool {
        let state = self.0.load(Ordering::Relaxed);
        let (due_time, exponent, last_mark) = (state >> 16, state >> 8 & 0xff, state & 0xff);
        let mark = mark.min(0xff);
        let exponent = match mark == last_mark {
            true if now < due_time => return false,
            true => (exponent + 1).min(Self::MAX_EXPONENT),
            false => 0,
        };
        let new_state = (now + (1 << exponent)) << 16 | exponent << 8 | mark;
        self.0.compare_exchange(state, new_state, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Map, OpenOptions, Plan, Settings};
    use super::*;
    use crate::Tick;
    use crate::pool::{Pool, PoolKind};
    use crate::session::{SessionId, SessionKind};
    use std::sync::atomic::AtomicUsize;
    use std::time::{Duration, Instant};

    const CURRENT: u64 = 0;
    const SUPERSEDED: u64 = 1;

    #[test]
    fn each_version_supersedes_the_previous_version() {
        let numbers = VersionChain::new();
        assert_eq!(numbers.follow(|_| SUPERSEDED, |_| unreachable!()), None);
        assert_eq!(numbers.get_or_init(|| None), None);
        assert_eq!(numbers.get_or_init(|| Some(0)), Some(&0));
        assert_eq!(numbers.get_or_init(|| unreachable!()), Some(&0));
        for number in 1..1000 {
            assert_eq!(numbers.follow(|_| CURRENT, |_| unreachable!()), Some(&(number - 1)));
            let successor = numbers.follow(
                |_| SUPERSEDED,
                |superseded_number| {
                    assert_eq!(*superseded_number, number - 1);
                    Some(number)
                },
            );
            assert_eq!(successor, Some(&number));
            assert_eq!(numbers.newest(), Some(&number));
        }
    }

    #[test]
    fn late_creator_replaces_nothing() {
        let numbers = VersionChain::new();
        numbers.get_or_init(|| Some(1));
        let create_late = |_: &_| {
            assert_eq!(numbers.follow(|_| SUPERSEDED + 1, |_| Some(2)), Some(&2));
            Some(3)
        };
        assert_eq!(numbers.follow(|_| SUPERSEDED, create_late), Some(&2));
    }

    #[test]
    fn delays_double_up_to_a_limit() {
        let attempts = Attempts::new();
        let mut now = 77;
        for exponent in 0..20 {
            assert!(attempts.claim(1, now));
            let delay = (1 << exponent).min(Attempts::MAX_DELAY);
            assert!(!attempts.claim(1, now) && !attempts.claim(1, now + delay - 1));
            now += delay;
        }
        assert!(attempts.claim(1, now));
        // A new mark permits an attempt at once, and starts again with the shortest delay.
        assert!(attempts.claim(2, now) && !attempts.claim(2, now));
        assert!(attempts.claim(2, now + 1));
        // All marks that do not fit into 8 bits count as the same mark.
        assert!(attempts.claim(u64::MAX, now) && !attempts.claim(u64::MAX - 1, now));
    }

    #[test]
    fn create_is_called_again_after_it_returned_none() {
        let numbers = VersionChain::new();
        numbers.get_or_init(|| Some(1));
        let mut calls = 0;
        for _ in 0..1000 {
            let create_nothing = |_: &_| {
                calls += 1;
                None
            };
            assert_eq!(numbers.follow(|_| SUPERSEDED, create_nothing), Some(&1));
        }
        assert!((1..100).contains(&calls), "{calls} calls");
        assert!(becomes_true(|| numbers.follow(|_| SUPERSEDED, |_| Some(2)) == Some(&2)));
    }

    #[test]
    fn parallel_calls_create_a_successor() {
        let numbers = VersionChain::new();
        numbers.get_or_init(|| Some(usize::MAX));
        let created_count = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for number in 0..32 {
                let (numbers, created_count) = (&numbers, &created_count);
                scope.spawn(move || {
                    numbers.follow(
                        |value| u64::from(*value == usize::MAX),
                        |_| {
                            created_count.fetch_add(1, Ordering::Relaxed);
                            Some(number)
                        },
                    );
                });
            }
        });
        assert!(created_count.into_inner() >= 1);
        assert!(numbers.newest().is_some_and(|number| *number < 32));
    }

    /// Returns a plan that differs from the plans of other numbers.
    fn plan(number: usize) -> Plan {
        let ranges = ["10.0.0.0/29".parse().unwrap()];
        let pool = Pool::new("default", PoolKind::VirtualIp, &ranges, u32::MAX).unwrap();
        let settings = Settings { low_water: number as u32, ..Settings::without_cool_down() };
        Plan { pools: vec![pool], settings, ..Plan::default() }
    }

    /// Calls `condition` until it returns true. Returns false after a minute.
    fn becomes_true(mut condition: impl FnMut() -> bool) -> bool {
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(60) {
            if condition() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        false
    }

    #[test]
    fn superseded_map_without_a_successor_stays() {
        let directory = tempfile::tempdir().unwrap();
        let map = Map::create(directory.path(), &plan(0)).unwrap();
        let maps = VersionChain::new();
        let first_reader: *const Reader = maps.map(directory.path()).unwrap();
        let is_first_reader = |reader: &Reader| std::ptr::eq(reader, first_reader);
        // Simulate a process that is killed before it replaces the map.
        map.mark_superseded();
        for _ in 0..1000 {
            assert!(maps.map(directory.path()).is_some_and(is_first_reader));
        }
        // A process that starts now attaches to the same map.
        assert!(VersionChain::new().map(directory.path()).is_some());
        let session = "7".parse().unwrap();
        map.open_session(session, &OpenOptions::default(), Tick::ZERO).unwrap();
        let current_reader = maps.map(directory.path()).unwrap();
        assert!(is_first_reader(current_reader) && !current_reader.is_superseded());
        // The next call after a replacement attaches to the new map, although attempts have failed
        // before.
        let map = Map::create(directory.path(), &plan(1)).unwrap();
        map.close_session(session, Tick::ZERO).unwrap();
        assert!(maps.map(directory.path()).is_some_and(|map| map.find(session).is_none()));
    }

    #[test]
    fn removed_map_stays_until_there_is_a_new_map() {
        let directory = tempfile::tempdir().unwrap();
        let map = Map::create(directory.path(), &plan(0)).unwrap();
        let maps = VersionChain::new();
        let first_reader: *const Reader = maps.map(directory.path()).unwrap();
        let is_first_reader = |reader: &Reader| std::ptr::eq(reader, first_reader);
        map.mark_superseded();
        std::fs::remove_file(directory.path().join(crate::map::MAP_FILE)).unwrap();
        for _ in 0..1000 {
            assert!(maps.map(directory.path()).is_some_and(is_first_reader));
        }
        Map::create(directory.path(), &plan(1)).unwrap();
        assert!(becomes_true(|| maps
            .map(directory.path())
            .is_some_and(|map| !map.is_superseded())));
    }

    #[test]
    fn readers_follow_many_maps() {
        let directory = tempfile::tempdir().unwrap();
        let maps = VersionChain::new();
        for number in 0..300 {
            let map = Map::create(directory.path(), &plan(number)).unwrap();
            let session =
                SessionId::new(SessionKind::CommandLine, number as u64 / 100 + 1).unwrap();
            map.open_session(session, &OpenOptions::default(), Tick::ZERO).unwrap();
            assert!(maps.map(directory.path()).is_some_and(|map| map.find(session).is_some()));
        }
    }
}
