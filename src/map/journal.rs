//! [`Journal`]: a reader of the latest events of a map.

use std::path::Path;

use super::engine::files::{JOURNAL_FILE, open_region};
use super::format::journal::{self, CAPACITY};
use super::format::region::Region;
use super::types::error::MapError;
use super::types::event::{Event, RecentEvents};

/// A journal that is open for reading. Threads may share a `Journal`.
#[derive(Debug)]
pub struct Journal {
    region: Region,
}

impl Journal {
    /// Opens the journal of the map in a directory. Only root and the group of the file can read
    /// the journal.
    ///
    /// # Errors
    /// Fails if there is no journal, or if it is damaged or not trusted.
    pub fn open(directory: &Path) -> Result<Self, MapError> {
        let path = || directory.join(JOURNAL_FILE);
        let region = open_region(directory, JOURNAL_FILE).map_err(|failure| failure.at(path()))?;
        if !journal::is_journal(region.words()) {
            return Err(MapError::Damaged { path: path(), reason: "it is not a journal" });
        }
        Ok(Self { region })
    }

    /// Returns the hash of the boot and the network namespace. The handles of the map contain the
    /// same hash.
    #[must_use]
    pub fn boot(&self) -> u64 {
        journal::boot(self.region.words())
    }

    /// Returns the number of the next event.
    #[must_use]
    pub fn next_number(&self) -> u64 {
        journal::next_number(self.region.words())
    }

    /// Returns the events from number `first_number` on that writers have not overwritten. Pass 1
    /// for all events.
    #[must_use]
    pub fn since(&self, first_number: u64) -> RecentEvents {
        let next_number = self.next_number();
        let oldest_number = next_number.saturating_sub(CAPACITY).max(1);
        let start_number = first_number.clamp(1, next_number.max(1)).max(oldest_number);
        let read = |number| journal::read(self.region.words(), number);
        let events: Vec<Event> = (start_number..next_number).filter_map(read).collect();
        let requested_count = next_number.saturating_sub(first_number.max(1));
        let lost_count = requested_count - (events.len() as u64).min(requested_count);
        RecentEvents { events, lost: lost_count, next: next_number }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::Tick;
    use crate::map::format::region::WritableRegion;
    use crate::map::format::words::store;
    use crate::map::{EventKind, Map, OpenOptions, Plan, Settings};
    use crate::pool::{Pool, PoolKind};
    use crate::raw::word::WriteAccess;
    use crate::session::SessionId;

    fn plan() -> Plan {
        let ranges = ["10.0.5.10-10.0.5.11".parse().unwrap()];
        let pool = Pool::new("default", PoolKind::VirtualIp, &ranges, u32::MAX).unwrap();
        Plan::new([pool]).with_settings(Settings::without_cool_down())
    }

    fn session(number: u64) -> SessionId {
        number.to_string().parse().unwrap()
    }

    #[test]
    fn events_are_in_order_and_survive_a_second_create() {
        let directory = tempfile::tempdir().unwrap();
        let map = Map::create(directory.path(), &plan()).unwrap();
        let client = Some("2001:db8::7".parse().unwrap());
        let alice = OpenOptions { user: Some("alice"), client, ..OpenOptions::default() };
        let anonymous = OpenOptions::default();
        map.open_session(session(1), &alice, Tick::from_secs(10)).unwrap();
        map.open_session(session(1), &alice, Tick::from_secs(11)).unwrap();
        map.open_session(session(2), &anonymous, Tick::from_secs(12)).unwrap();
        map.open_session(session(3), &anonymous, Tick::from_secs(13)).unwrap_err();
        Map::create(directory.path(), &plan()).unwrap();
        map.close_session(session(1), Tick::from_secs(14)).unwrap();

        let journal = Journal::open(directory.path()).unwrap();
        let recent = journal.since(1);
        let actual: Vec<_> = recent
            .events
            .iter()
            .map(|event| (event.kind, event.session, event.time.as_secs()))
            .collect();
        let expected = [
            (EventKind::Assigned, session(1), 10),
            (EventKind::Assigned, session(2), 12),
            (EventKind::Exhausted, session(3), 13),
            (EventKind::Released, session(1), 14),
        ];
        assert_eq!(actual, expected);
        assert_eq!((recent.lost, recent.next), (0, 5));
        let first_event = &recent.events[0];
        assert_eq!((first_event.user.as_deref(), first_event.client), (Some("alice"), client));
        assert_eq!(first_event.address, Some("10.0.5.10".parse().unwrap()));
        assert_eq!(journal.since(5), RecentEvents { next: 5, ..RecentEvents::default() });
        assert_eq!(journal.boot(), map.reader().unwrap().boot());
    }

    #[test]
    fn overwritten_events_count_as_lost() {
        let directory = tempfile::tempdir().unwrap();
        let map = Map::create(directory.path(), &plan()).unwrap();
        let now = Tick::from_secs(1);
        for _ in 0..CAPACITY {
            map.open_session(session(1), &OpenOptions::default(), now).unwrap();
            map.close_session(session(1), now).unwrap();
        }
        let recent = Journal::open(directory.path()).unwrap().since(1);
        assert_eq!(recent.events.len() as u64, CAPACITY);
        assert_eq!(recent.lost, CAPACITY);
        assert_eq!(recent.events[0].number, CAPACITY + 1);
    }

    #[test]
    fn a_damaged_event_number_does_not_stop_the_writer() {
        /// The offset in bytes of the number of the next event.
        const NEXT_NUMBER_OFFSET: u64 = 16;
        let directory = tempfile::tempdir().unwrap();
        let map = Map::create(directory.path(), &plan()).unwrap();
        let path = directory.path().join(JOURNAL_FILE);
        let file = std::fs::File::options().write(true).open(path).unwrap();
        for number in [u64::MAX, 0] {
            std::io::Seek::seek(&mut &file, std::io::SeekFrom::Start(NEXT_NUMBER_OFFSET)).unwrap();
            std::io::Write::write_all(&mut &file, &number.to_ne_bytes()).unwrap();
            let opened = map.open_session(session(1), &OpenOptions::default(), Tick::ZERO).unwrap();
            map.close_by_handle(&opened.handle, Tick::ZERO).unwrap();
        }
        assert_eq!(Journal::open(directory.path()).unwrap().since(1).events.len(), 2);
    }

    #[test]
    fn a_journal_with_random_bytes_is_read_without_a_panic() {
        /// The offset of the word with the number of the next event.
        const NEXT_NUMBER_WORD: usize = 2;
        let access = WriteAccess::for_test();
        let region = WritableRegion::in_memory(journal::JOURNAL_WORDS).into_region();
        for offset in 0..journal::JOURNAL_WORDS {
            store(access, region.words(), offset, crate::hash::mix64(offset as u64));
        }
        let journal = Journal { region };
        for next_number in [0, 1, CAPACITY, u64::MAX] {
            store(access, journal.region.words(), NEXT_NUMBER_WORD, next_number);
            assert!(journal.since(0).events.len() as u64 <= CAPACITY);
            let _ = journal.since(u64::MAX);
        }
    }
}
