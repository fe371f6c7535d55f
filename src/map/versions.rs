//! Values of which each takes the place of the one before, for code inside other programs.
//!
//! Invariants: nothing that was put in is ever dropped or moved, so that whoever found it may hold
//! it for good, in any thread, signal handler or vfork child; nothing locks or allocates. Threads
//! may put a newer value in at once, and one may be left in the middle by siglongjmp or fork: each
//! has a place of its own, and whoever is first is seen by all.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::Reader;
use crate::raw::set_once::SetOnce;

/// How many values there can be over the life of a process.
const PLACES: usize = 128;

/// How many may look for the value after another at once.
const MOST_FOLLOWERS: usize = 4;

/// A value and those that took its place since.
#[derive(Debug)]
pub struct Succession<T> {
    places: [Place<T>; PLACES],
    /// How many places were given out.
    used: AtomicUsize,
    /// The place of the newest value, counted from 1; 0 while there is none.
    newest: AtomicUsize,
    /// Who is looking for the first one.
    followers: AtomicUsize,
}

#[derive(Debug)]
struct Place<T> {
    value: SetOnce<T>,
    /// Who is looking for the value after this one.
    followers: AtomicUsize,
}

impl<T> Succession<T> {
    /// Without a value yet.
    #[allow(clippy::new_without_default, reason = "only statics hold one")]
    pub const fn new() -> Self {
        Self {
            places: [const { Place { value: SetOnce::new(), followers: AtomicUsize::new(0) } };
                PLACES],
            used: AtomicUsize::new(0),
            newest: AtomicUsize::new(0),
            followers: AtomicUsize::new(0),
        }
    }

    /// The newest value. A few loads.
    #[inline]
    pub fn newest(&self) -> Option<&T> {
        self.at(self.newest.load(Ordering::Acquire))
    }

    #[inline]
    fn at(&self, place: usize) -> Option<&T> {
        self.places.get(place.checked_sub(1)?)?.value.get()
    }

    /// The newest value, unless it `is_over`: then what `make` gives takes its place, and is kept
    /// for good. Goes on with the value as it was if `make` gives none (it is asked again next
    /// time) or if enough others are at it; `None` if there is no room for more.
    #[inline]
    pub fn follow(
        &self,
        is_over: impl FnOnce(&T) -> bool,
        make: impl FnOnce(Option<&T>) -> Option<T>,
    ) -> Option<&T> {
        let place = self.newest.load(Ordering::Acquire);
        match self.at(place) {
            Some(value) if !is_over(value) => Some(value),
            old => self.succeed(place, old, make),
        }
    }

    #[cold]
    fn succeed<'s>(
        &'s self,
        old_place: usize,
        old: Option<&'s T>,
        make: impl FnOnce(Option<&T>) -> Option<T>,
    ) -> Option<&'s T> {
        let before = old_place.checked_sub(1).and_then(|place| self.places.get(place));
        let followers = before.map_or(&self.followers, |place| &place.followers);
        if self.used.load(Ordering::Relaxed) >= PLACES {
            return None;
        }
        let enter = |looking| (looking < MOST_FOLLOWERS).then_some(looking + 1);
        if followers.fetch_update(Ordering::Relaxed, Ordering::Relaxed, enter).is_err() {
            return old;
        }
        let Some(value) = make(old) else {
            followers.fetch_sub(1, Ordering::Relaxed);
            return old;
        };
        // If another thread was faster, that is as good, and a place is saved.
        if self.newest.load(Ordering::Acquire) != old_place {
            return self.newest();
        }
        // The place was counted up: nobody else gets it, so nobody waits for this either.
        let number = self.used.fetch_add(1, Ordering::Relaxed);
        self.places.get(number)?.value.set(value);
        let _ = self.newest.compare_exchange(
            old_place,
            number + 1,
            Ordering::AcqRel,
            Ordering::Relaxed,
        );
        self.newest()
    }
}

impl Succession<Reader> {
    /// The map in a directory, found once and followed when another takes its place; `None` while
    /// there was none, and once there is no room for another. Readers that are over stay mapped.
    #[inline]
    pub fn map(&self, directory: &Path) -> Option<&Reader> {
        self.follow(Reader::is_superseded, |old| {
            // A map that is in place and marked waits for its successor, or for a writer to find that
            // there will be none: whoever is on it stays.
            Reader::attach(directory).ok().filter(|new| old.is_none() || !new.is_superseded())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::format::layout::SUPERSEDED;
    use super::super::format::region::store;
    use super::super::{Map, OpenOptions, Plan, Settings};
    use super::*;
    use crate::Tick;
    use crate::pool::{Pool, PoolKind};
    use crate::session::{SessionId, SessionKind};

    #[test]
    fn each_value_takes_the_place_of_the_one_before() {
        let numbers = Succession::new();
        assert_eq!(numbers.follow(|_| true, |_| None::<usize>), None);
        for number in 0..2 * PLACES {
            let found = numbers.follow(
                |_| true,
                |old| {
                    assert_eq!(old.copied(), number.checked_sub(1));
                    Some(number)
                },
            );
            if number + 1 < PLACES {
                assert_eq!(found, Some(&number));
            }
            if number + 1 == PLACES {
                break;
            }
        }
        // No room for more: the last one stays, and who finds that it is over is told so.
        assert_eq!(numbers.follow(|_| true, |_| unreachable!()), None);
        assert_eq!(numbers.newest(), Some(&(PLACES - 1)));
        assert_eq!(numbers.follow(|_| false, |_| unreachable!()), Some(&(PLACES - 1)));
    }

    #[test]
    fn who_comes_late_takes_no_place() {
        let numbers = Succession::new();
        numbers.follow(|_| true, |_| Some(1));
        let late = |_: Option<&_>| {
            numbers.follow(|_| true, |_| Some(2));
            Some(3)
        };
        assert_eq!(numbers.follow(|_| true, late), Some(&2));
        assert_eq!(numbers.used.load(Ordering::Relaxed), 2);
    }

    /// A plan that differs from those of other numbers.
    fn plan(number: usize) -> Plan {
        let ranges = ["10.0.0.0/29".parse().unwrap()];
        let pool = Pool::new("default", PoolKind::VirtualIp, &ranges, u32::MAX).unwrap();
        let settings = Settings { low_water: number as u32, ..Settings::default() };
        Plan { pools: vec![pool], settings, ..Plan::default() }
    }

    #[test]
    fn a_map_whose_successor_never_came_takes_no_places() {
        let directory = tempfile::tempdir().unwrap();
        let map = Map::create(directory.path(), &plan(0)).unwrap();
        let maps = Succession::new();
        let first: *const Reader = maps.map(directory.path()).unwrap();
        // Whoever was about to replace it is killed.
        store(map.state.lock().words(), SUPERSEDED, 1);
        for _ in 0..2 * PLACES {
            assert!(maps.map(directory.path()).is_some_and(|map| std::ptr::eq(map, first)));
        }
        // A process that starts meanwhile has a map all the same.
        assert!(Succession::new().map(directory.path()).is_some());
        let session = "7".parse().unwrap();
        map.open_session(session, &OpenOptions::default(), Tick::ZERO).unwrap();
        let still = maps.map(directory.path()).unwrap();
        assert!(std::ptr::eq(still, first) && !still.is_superseded());
        let map = Map::create(directory.path(), &plan(1)).unwrap();
        map.close_session(session, Tick::ZERO).unwrap();
        assert!(maps.map(directory.path()).is_some_and(|map| map.find(session).is_none()));
    }

    #[test]
    fn maps_are_followed_while_there_is_room() {
        let directory = tempfile::tempdir().unwrap();
        let maps = Succession::new();
        for number in 0..PLACES {
            let map = Map::create(directory.path(), &plan(number)).unwrap();
            let session =
                SessionId::new(SessionKind::CommandLine, number as u64 / 100 + 1).unwrap();
            map.open_session(session, &OpenOptions::default(), Tick::ZERO).unwrap();
            assert!(maps.map(directory.path()).is_some_and(|map| map.find(session).is_some()));
        }
        Map::create(directory.path(), &plan(PLACES)).unwrap();
        assert!(maps.map(directory.path()).is_none());
        assert!(maps.newest().is_some_and(Reader::is_superseded));
    }

    #[test]
    fn whoever_gives_nothing_is_asked_again() {
        let numbers = Succession::new();
        numbers.follow(|_| true, |_| Some(1));
        for _ in 0..3 * MOST_FOLLOWERS {
            assert_eq!(numbers.follow(|_| true, |_| None), Some(&1));
        }
        assert_eq!(numbers.follow(|_| true, |_| Some(2)), Some(&2));
    }

    #[test]
    fn whoever_gives_nothing_to_many_threads_is_asked_again() {
        let numbers = Succession::new();
        numbers.follow(|_| true, |_| Some(1));
        let give_nothing = |_: Option<&_>| {
            std::thread::yield_now();
            None
        };
        std::thread::scope(|scope| {
            for _ in 0..4 * MOST_FOLLOWERS {
                scope.spawn(|| {
                    for _ in 0..5_000 {
                        numbers.follow(|_| true, give_nothing);
                        std::thread::yield_now();
                    }
                });
            }
        });
        // One that is counted and gone is one less who may look, for good.
        assert_eq!(numbers.places[0].followers.load(Ordering::Relaxed), 0);
        assert_eq!(numbers.follow(|_| true, |_| Some(2)), Some(&2));
    }

    #[test]
    fn few_of_many_threads_look_and_all_see_one() {
        let numbers = Succession::new();
        numbers.follow(|_| true, |_| Some(usize::MAX));
        let looked = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for number in 0..32 {
                let (numbers, looked) = (&numbers, &looked);
                scope.spawn(move || {
                    numbers.follow(
                        |value| *value == usize::MAX,
                        |_| {
                            looked.fetch_add(1, Ordering::Relaxed);
                            Some(number)
                        },
                    );
                });
            }
        });
        assert!((1..=MOST_FOLLOWERS).contains(&looked.into_inner()));
        assert!(numbers.newest().is_some_and(|number| *number < 32));
    }
}
